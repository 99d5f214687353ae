/* puback: see puback.h. The numbers are those of nats-server's errors.json. */
#include "common/bus/puback.h"

#include "common/bus/flat_json.h"

enum {
    JS_WRONG_LAST_SEQUENCE = 10071,
    JS_WRONG_LAST_MESSAGE_ID = 10070,
    JS_MESSAGE_TOO_LARGE = 10054,
    JS_STORE_FAILED = 10077, /* with discard new: "maximum bytes exceeded". */
    JS_ACCOUNT_RESOURCES = 10002,
    JS_INSUFFICIENT_RESOURCES = 10023,
    JS_STORAGE_RESOURCES = 10047,
    JS_MEMORY_RESOURCES = 10028,
    JS_STREAM_SEALED = 10109
};

static enum err_code code_of(uint64_t err_code)
{
    switch (err_code) {
    case JS_WRONG_LAST_SEQUENCE:
    case JS_WRONG_LAST_MESSAGE_ID:
        return E_CONFLICT;
    case JS_MESSAGE_TOO_LARGE:
        return E_MESSAGE_TOO_LARGE;
    case JS_STORE_FAILED:
    case JS_ACCOUNT_RESOURCES:
    case JS_INSUFFICIENT_RESOURCES:
    case JS_STORAGE_RESOURCES:
    case JS_MEMORY_RESOURCES:
    case JS_STREAM_SEALED:
        return E_BUS_FULL;
    default:
        return E_BUS_UNAVAILABLE;
    }
}

static struct err take_error(struct slice object, struct puback *ack)
{
    struct flat_json json = flat_json_of(object);
    struct flat_json_member m;
    bool more = false;
    TRY(flat_json_next(&json, &m, &more));
    while (more) {
        if (slice_eq(m.name, SLICE_LIT("err_code"))) {
            (void)slice_to_u64(m.value, &ack->err_code);
        } else if (slice_eq(m.name, SLICE_LIT("description")) && m.is_text) {
            ack->description = m.value;
        }
        TRY(flat_json_next(&json, &m, &more));
    }
    ack->err = FAIL(code_of(ack->err_code));
    return OK;
}

static struct err take_member(const struct flat_json_member *m, struct puback *ack)
{
    if (slice_eq(m->name, SLICE_LIT("stream")) && m->is_text) {
        ack->stream = m->value;
    } else if (slice_eq(m->name, SLICE_LIT("seq"))) {
        return slice_to_u64(m->value, &ack->sequence) ? OK : FAIL(E_MALFORMED);
    } else if (slice_eq(m->name, SLICE_LIT("duplicate"))) {
        ack->duplicate = slice_eq(m->value, SLICE_LIT("true"));
    } else if (slice_eq(m->name, SLICE_LIT("error"))) {
        return take_error(m->value, ack);
    }
    return OK;
}

struct err puback_decode(struct slice answer, struct puback *out)
{
    struct flat_json json = flat_json_of(answer);
    struct flat_json_member m;
    struct puback ack = {0};
    bool more = false;
    TRY(flat_json_next(&json, &m, &more));
    while (more) {
        TRY(take_member(&m, &ack));
        TRY(flat_json_next(&json, &m, &more));
    }
    if (err_ok(ack.err) && (ack.stream.size == 0 || ack.sequence == 0)) {
        return FAIL(E_MALFORMED); /* an answer of somebody else. */
    }
    *out = ack;
    return OK;
}

bool puback_is_limit(uint64_t err_code)
{
    return err_code == JS_ACCOUNT_RESOURCES || err_code == JS_INSUFFICIENT_RESOURCES ||
           err_code == JS_STORAGE_RESOURCES || err_code == JS_MEMORY_RESOURCES;
}
