/*
 * server: which nats-server there is. libnats 3.4.1 does not tell, but each server says it in the
 * first line on a new connection, before any login.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/bus/bus_internal.h"
#include "common/bus/dial.h"
#include "common/bus/flat_json.h"
#include "common/bus/jetstream.h"

/* "2.9.10", "2.14.0-RC.1": three numbers, and what follows does not matter. */
static struct err take_version(struct slice text, struct jetstream_server *server)
{
    uint32_t *const parts[] = {&server->major, &server->minor, &server->patch};
    struct slice rest = text;
    if (text.size >= JETSTREAM_VERSION_MAX) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < 3; i++) {
        size_t digits = 0;
        uint64_t number = 0;
        while (digits < rest.size && rest.ptr[digits] >= '0' && rest.ptr[digits] <= '9') {
            digits++;
        }
        if (!slice_to_u64(slice_head(rest, digits), &number) || number > 100000) {
            return FAIL(E_MALFORMED);
        }
        *parts[i] = (uint32_t)number;
        rest = slice_from(rest, digits + 1);
    }
    memcpy(server->version, text.ptr, text.size);
    server->version[text.size] = '\0';
    return OK;
}

static struct err take_member(const struct flat_json_member *m, struct jetstream_server *server)
{
    if (slice_eq(m->name, SLICE_LIT("version"))) {
        return take_version(m->value, server);
    }
    if (slice_eq(m->name, SLICE_LIT("jetstream"))) {
        server->jetstream = slice_eq(m->value, SLICE_LIT("true"));
    } else if (slice_eq(m->name, SLICE_LIT("headers"))) {
        server->headers = slice_eq(m->value, SLICE_LIT("true"));
    } else if (slice_eq(m->name, SLICE_LIT("max_payload"))) {
        return slice_to_u64(m->value, &server->max_payload) ? OK : FAIL(E_MALFORMED);
    }
    return OK;
}

struct err jetstream_server_parse(struct slice info, struct jetstream_server *out)
{
    if (!slice_starts(info, SLICE_LIT("INFO "))) {
        return FAIL(E_MALFORMED);
    }
    struct jetstream_server server = {0};
    struct flat_json json = flat_json_of(slice_from(info, 5));
    struct flat_json_member m;
    bool more = false;
    TRY(flat_json_next(&json, &m, &more));
    while (more) {
        TRY(take_member(&m, &server));
        TRY(flat_json_next(&json, &m, &more));
    }
    if (server.version[0] == '\0') {
        return FAIL(E_MALFORMED);
    }
    bool from_2_10 = server.major > 2 || (server.major == 2 && server.minor >= 10);
    bool from_2_12 = server.major > 2 || (server.major == 2 && server.minor >= 12);
    server.sync_interval_known = from_2_10;
    server.filter_subjects = from_2_10;
    server.strict_api = from_2_12;
    *out = server;
    return OK;
}

/* ---- asking ---- */

struct err jetstream_server_ask(struct bus *bus, uint64_t timeout_ms, struct jetstream_server *out)
{
    char text[sizeof(bus->shared.server)] = "";
    struct dial_url url;
    natsConnection *nc = NULL;
    TRY(bus_hold(bus, &nc));
    natsStatus status = NATS_OK;
    if (bus->tls) { /* nats.c knows the relay alone. */
        lock_take(&bus->shared.lock);
        memcpy(text, bus->shared.server, sizeof(text));
        lock_drop(&bus->shared.lock);
    } else {
        status = natsConnection_GetConnectedUrl(nc, text, sizeof(text));
    }
    bus_release(bus);
    if (status != NATS_OK || text[0] == '\0') {
        return FAIL(E_UNAVAILABLE);
    }
    TRY(err_ok(dial_parse(text, &url)) ? OK : FAIL(E_UNAVAILABLE));
    uint64_t deadline_ns = clock_mono_ns() + timeout_ms * 1000000;
    auto_close int fd = -1;
    TRY(dial(url.host, url.port, deadline_ns, &fd));
    auto_buf struct buf line = BUF_MAX(DIAL_INFO_MAX);
    TRY(dial_read_line(fd, deadline_ns, &line));
    return jetstream_server_parse(buf_slice(&line), out);
}
