/* Parts in a stream, and which message each one is. */
#include "common/snapshot/parts.h"

#include "common/proto/strict.h"
#include "common/snapshot/wire.h"

#include "trilane/parts/v1/parts.pb-c.h"

struct err part_read_sizes(struct slice bytes, struct part *out_sizes)
{
    if (bytes.size < PART_HEADER_SIZE) {
        return FAIL(E_PART_MALFORMED);
    }
    size_t key_size = wire_get16(bytes.ptr);
    size_t size = wire_get32(bytes.ptr + 2);
    if (key_size == 0 || size > PART_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    *out_sizes = (struct part){.key = {NULL, key_size}, .bytes = {NULL, size}};
    return OK;
}

struct err part_read(struct slice bytes, struct part *out)
{
    struct part p;
    TRY(part_read_sizes(bytes, &p));
    if (bytes.size < part_size(&p)) {
        return FAIL(E_PART_MALFORMED);
    }
    p.key.ptr = bytes.ptr + PART_HEADER_SIZE;
    p.bytes.ptr = p.key.ptr + p.key.size;
    *out = p;
    return OK;
}

struct err part_next(struct part_iter *it, struct part *out, bool *out_more)
{
    if (it->rest.size == 0) {
        *out_more = false;
        return OK;
    }
    struct part p;
    TRY(part_read(it->rest, &p));
    if (slice_cmp(it->last, p.key) >= 0) { /* an empty 'last' is below every key. */
        return FAIL(E_PART_MALFORMED);
    }
    it->rest = slice_from(it->rest, (size_t)part_size(&p));
    it->last = p.key;
    *out = p;
    *out_more = true;
    return OK;
}

struct err part_add(struct part_writer *w, struct slice key, struct slice bytes)
{
    if (key.size == 0 || key.size > PART_KEY_MAX || bytes.size > PART_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    if (w->started && slice_cmp(w->last, key) >= 0) {
        return FAIL(E_USAGE);
    }
    uint8_t header[PART_HEADER_SIZE];
    wire_put16(header, (uint16_t)key.size);
    wire_put32(header + 2, (uint32_t)bytes.size);
    TRY(buf_add(w->out, slice_of(header, sizeof(header))));
    TRY(buf_add(w->out, key));
    TRY(buf_add(w->out, bytes));
    w->last = key;
    w->started = true;
    return OK;
}

struct err part_decode(const ProtobufCMessageDescriptor *type, struct slice bytes,
                       ProtobufCMessage **out)
{
    const struct proto_rules rules = {.memory_max = PART_MEMORY_FACTOR * bytes.size,
                                      .malformed = E_PART_MALFORMED,
                                      .unknown = E_CAPABILITY_MISSING};
    return proto_decode(type, bytes, &rules, out);
}

/* The table of parts.proto; a row without a prefix holds for all keys of its kind. */
static const struct {
    uint32_t kind;
    const char *prefix;
    const ProtobufCMessageDescriptor *type;
} messages[] = {
    {STREAM_ROUTING, "host/", &trilane__parts__v1__route_group__descriptor},
    {STREAM_ROUTING, "service/", &trilane__parts__v1__cluster__descriptor},
    {STREAM_TRUST, "environment", &trilane__parts__v1__environment_part__descriptor},
    {STREAM_TRUST, "issuer/", &trilane__parts__v1__issuer__descriptor},
    {STREAM_TRUST, "service/", &trilane__parts__v1__caller__descriptor},
    {STREAM_REVOCATIONS, "", &trilane__parts__v1__revocation__descriptor},
    {STREAM_AUTHORISATION, "", &trilane__parts__v1__policy_target__descriptor},
    {STREAM_LIMITS, "", &trilane__parts__v1__limit_target__descriptor},
    {STREAM_TRANSPORT, "", &trilane__parts__v1__transport__descriptor},
    {STREAM_EGRESS, "", &trilane__parts__v1__egress_part__descriptor},
    {STREAM_SCHEMAS, "service/", &trilane__parts__v1__service_descriptors__descriptor},
    {STREAM_SCHEMAS, "", &trilane__parts__v1__schema__descriptor},
    {STREAM_BUS, "", &trilane__parts__v1__topic_part__descriptor},
    {STREAM_POSITIONS, "", &trilane__parts__v1__position__descriptor},
};

const ProtobufCMessageDescriptor *part_message(uint32_t kind, struct slice key)
{
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        if (messages[i].kind == kind && slice_starts(key, slice_str(messages[i].prefix))) {
            return messages[i].type;
        }
    }
    return NULL;
}
