/* request: what blocking calls stand on; the connection cannot go away while one holds it. */
#include <stdio.h>

#include "common/base/check.h"
#include "common/bus/bus_internal.h"

struct err bus_hold(struct bus *bus, natsConnection **out)
{
    lock_take(&bus->shared.lock);
    bool up = bus->shared.state == BUS_CONNECTED && !bus->shared.lost && !bus->shared.link_closed &&
              !bus->shared.closing;
    if (up) {
        bus->shared.holders++;
        *out = bus->shared.connection;
    }
    lock_drop(&bus->shared.lock);
    return up ? OK : FAIL(E_UNAVAILABLE);
}

void bus_release(struct bus *bus)
{
    lock_take(&bus->shared.lock);
    CHECK(bus->shared.holders > 0);
    bus->shared.holders--;
    CHECK(pthread_cond_broadcast(&bus->shared.changed) == 0);
    lock_drop(&bus->shared.lock);
}

/* nats.c puts a place of its own source in front: "(jsm.c:1033): maximum number of streams
 * reached".
 */
const char *bus_words(natsStatus status)
{
    const char *words = nats_GetLastError(/* status= */ NULL);
    if (words == NULL || words[0] == '\0') {
        return natsStatus_GetText(status);
    }
    const char *place = words[0] == '(' ? strstr(words, "): ") : NULL;
    return place == NULL ? words : place + 3;
}

/* A server's words go to terminals and into JSON: what is not plain text in them does not. */
void bus_note_error(struct bus *bus, const char *text)
{
    lock_take(&bus->shared.lock);
    char *at = bus->shared.error;
    (void)snprintf(at, sizeof(bus->shared.error), "%s", text == NULL ? "" : text);
    for (; *at != '\0'; at++) {
        *at = *at >= ' ' && *at <= '~' ? *at : '?';
    }
    lock_drop(&bus->shared.lock);
}

struct err bus_judge_payload(struct bus *bus, struct slice subject, size_t size)
{
    char text[BUS_ERROR_TEXT_MAX];
    uint64_t max = atomic_load(&bus->max_payload);
    if (max == 0 || size <= max) {
        return OK;
    }
    (void)snprintf(text, sizeof(text),
                   "%zu bytes for \"%.*s\" are more than NATS' max_payload, %llu", size,
                   SLICE_ARG(subject), (unsigned long long)max);
    bus_note_error(bus, text);
    return FAIL(E_BUS_LIMIT);
}

uint64_t bus_forbidden(struct bus *bus)
{
    return bus->counters.forbidden;
}

struct err bus_blame(struct bus *bus, uint64_t forbidden_before, const char *subject,
                     struct err otherwise)
{
    char text[BUS_ERROR_TEXT_MAX];
    if (bus->counters.forbidden == forbidden_before) {
        return otherwise;
    }
    bus_last_error(bus, text);
    return strstr(text, subject) == NULL ? otherwise : FAIL(E_BUS_FORBIDDEN);
}

/* What became of a request, by how nats.c's call ended. */
static struct err request_outcome(natsStatus s)
{
    switch ((int)s) {
    case NATS_OK:
        return OK;
    case NATS_NO_RESPONDERS:
    case NATS_INSUFFICIENT_BUFFER:
        return FAIL(E_UNAVAILABLE);
    case NATS_MAX_PAYLOAD: /* with its headers. */
        return FAIL(E_BUS_LIMIT);
    case NATS_NO_MEMORY:
        return FAIL(E_NO_MEMORY);
    default:
        return FAIL(E_RESULT_UNKNOWN);
    }
}

struct err bus_request(struct bus *bus, const struct bus_outgoing *request, uint64_t timeout_ms,
                       natsMsg **out_answer)
{
    natsMsg *msg = NULL;
    natsConnection *nc = NULL;
    TRY(bus_judge_payload(bus, request->subject, request->payload.size));
    TRY(message_make(request, (struct slice){0}, &msg));
    struct err err = bus_hold(bus, &nc);
    if (!err_ok(err)) {
        natsMsg_Destroy(msg);
        return err;
    }
    uint64_t forbidden = bus_forbidden(bus);
    err = request_outcome(natsConnection_RequestMsg(out_answer, nc, msg, (int64_t)timeout_ms));
    if (err.code == E_RESULT_UNKNOWN) {
        err = bus_blame(bus, forbidden, natsMsg_GetSubject(msg), err);
    }
    message_spend(bus, msg);
    bus_release(bus);
    return err;
}

struct err bus_ping(struct bus *bus, uint64_t timeout_ms)
{
    natsConnection *nc = NULL;
    TRY(bus_hold(bus, &nc));
    natsStatus s = natsConnection_FlushTimeout(nc, (int64_t)timeout_ms);
    bus_release(bus);
    return s == NATS_OK ? OK : FAIL(E_UNAVAILABLE);
}
