/*
 * server: which nats-server there is. libnats 3.4.1 does not tell, but each server says it in the
 * first line on a new connection, before any login.
 */
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/bus/bus_internal.h"
#include "common/bus/flat_json.h"
#include "common/bus/jetstream.h"

enum { INFO_MAX = 32 << 10, URL_MAX = 512 };

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

static int left_ms(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns();
    return now_ns >= deadline_ns ? 0 : (int)((deadline_ns - now_ns) / 1000000 + 1);
}

static struct err dial(const char *host, const char *port, uint64_t deadline_ns, int *out_fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        return FAIL(E_UNAVAILABLE);
    }
    auto_close int fd = -1;
    bool connected = false;
    for (struct addrinfo *at = list; at != NULL && !connected; at = at->ai_next) {
        scope_close(&fd);
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            continue;
        }
        (void)connect(fd, at->ai_addr, at->ai_addrlen); /* its outcome is SO_ERROR's. */
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        int error = 0;
        socklen_t size = sizeof(error);
        connected = poll(&ready, 1, left_ms(deadline_ns)) == 1 &&
                    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
    freeaddrinfo(list);
    if (!connected) {
        return FAIL(E_UNAVAILABLE);
    }
    *out_fd = TAKE_FD(fd);
    return OK;
}

/* Reads up to the end of the first line. */
static struct err read_line(int fd, uint64_t deadline_ns, struct buf *line)
{
    for (;;) { /* ends: at a line's end, at the bound, or by time. */
        size_t end = slice_find(buf_slice(line), '\n');
        if (end < line->size) {
            line->size = end;
            return OK;
        }
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, left_ms(deadline_ns)) != 1) {
            return FAIL(E_TIMEOUT);
        }
        uint8_t *to = NULL;
        TRY(buf_reserve(line, 1024, &to));
        ssize_t got = recv(fd, to, 1024, 0);
        if (got <= 0) {
            return FAIL(E_UNAVAILABLE);
        }
        buf_commit(line, (size_t)got);
    }
}

/* "nats://user@host:4222" to host and port, in place. */
static struct err split_url(char *url, const char **out_host, const char **out_port)
{
    char *host = strstr(url, "://");
    host = host == NULL ? url : host + 3;
    char *at = strrchr(host, '@');
    host = at == NULL ? host : at + 1;
    char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host) {
        return FAIL(E_UNAVAILABLE);
    }
    *colon = '\0';
    if (host[0] == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        host++;
    }
    *out_host = host;
    *out_port = colon + 1;
    return OK;
}

struct err jetstream_server_ask(struct bus *bus, uint64_t timeout_ms, struct jetstream_server *out)
{
    char url[URL_MAX];
    const char *host = NULL;
    const char *port = NULL;
    natsConnection *nc = NULL;
    TRY(bus_hold(bus, &nc));
    natsStatus status = natsConnection_GetConnectedUrl(nc, url, sizeof(url));
    bus_release(bus);
    if (status != NATS_OK || url[0] == '\0') {
        return FAIL(E_UNAVAILABLE);
    }
    TRY(split_url(url, &host, &port));
    uint64_t deadline_ns = clock_mono_ns() + timeout_ms * 1000000;
    auto_close int fd = -1;
    TRY(dial(host, port, deadline_ns, &fd));
    auto_buf struct buf line = BUF_MAX(INFO_MAX);
    TRY(read_line(fd, deadline_ns, &line));
    return jetstream_server_parse(buf_slice(&line), out);
}
