/* Status: small, signed by the node, and opened only by the key that is enrolled for it. */
#include "common/snapshot/status.h"

#include <string.h>

#include "common/base/text.h"
#include "common/proto/strict.h"

#include "trilane/snapshot/v1/snapshot.pb-c.h"

typedef Trilane__Snapshot__V1__Status status_message;

static bool is_zero(const uint8_t *bytes, size_t size)
{
    uint8_t all = 0;
    for (size_t i = 0; i < size; i++) {
        all |= bytes[i];
    }
    return all == 0;
}

static struct err status_encode(const struct status *s, struct buf *out)
{
    uint32_t health[STATUS_HEALTH_MAX];
    memcpy(health, s->health, sizeof(health));
    status_message m;
    trilane__snapshot__v1__status__init(&m);
    m.node = proto_text(s->node);
    m.epoch = s->epoch;
    m.sequence = s->sequence;
    m.version = s->version;
    if (!is_zero(s->content_prefix, STATUS_PREFIX_SIZE)) {
        m.content_prefix = proto_binary(s->content_prefix, STATUS_PREFIX_SIZE);
    }
    m.state = s->state;
    m.code = s->code;
    m.object = proto_text(s->object);
    m.at_ms = s->at_ms;
    m.format = s->format;
    m.n_health = s->health_count;
    m.health = health;
    m.count = s->count;
    m.capabilities = s->capabilities;
    return proto_encode(&m.base, out);
}

static struct err message_to_status(const status_message *m, struct status *out)
{
    size_t node_size = strlen(m->node);
    size_t object_size = strlen(m->object);
    bool prefix_holds = m->content_prefix.len == 0 || m->content_prefix.len == STATUS_PREFIX_SIZE;
    if (!text_is_name(slice_str(m->node)) || object_size > STATUS_OBJECT_MAX || !prefix_holds ||
        m->state >= SNAP_STATE_COUNT || m->at_ms < 0 || m->n_health > STATUS_HEALTH_MAX) {
        return FAIL(E_MALFORMED);
    }
    if (object_size > 0 && m->code == 0) {
        return FAIL(E_MALFORMED); /* only a refusal has an object. */
    }
    *out = (struct status){.epoch = m->epoch,
                           .sequence = m->sequence,
                           .version = m->version,
                           .state = (enum snap_state)m->state,
                           .code = m->code,
                           .at_ms = m->at_ms,
                           .format = m->format,
                           .health_count = (uint32_t)m->n_health,
                           .count = m->count,
                           .capabilities = m->capabilities};
    memcpy(out->node, m->node, node_size);
    memcpy(out->object, m->object, object_size);
    if (m->content_prefix.len > 0) {
        memcpy(out->content_prefix, m->content_prefix.data, STATUS_PREFIX_SIZE);
    }
    if (m->n_health > 0) {
        memcpy(out->health, m->health, m->n_health * sizeof(out->health[0]));
    }
    return OK;
}

static struct err status_decode(struct slice body, struct status *out)
{
    const struct proto_rules rules = {.memory_max = CONTAINER_MEMORY_FACTOR * body.size,
                                      .malformed = E_MALFORMED,
                                      .unknown = E_MALFORMED};
    auto_proto ProtobufCMessage *m = NULL;
    TRY(proto_decode(&trilane__snapshot__v1__status__descriptor, body, &rules, &m));
    return message_to_status((const status_message *)m, out);
}

struct err status_seal(const struct status *s, const uint8_t environment[ENVIRONMENT_SIZE],
                       const struct key_pair *pair, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(STATUS_BODY_MAX);
    struct status check;
    if (s->health_count > STATUS_HEALTH_MAX) {
        return FAIL(E_USAGE);
    }
    TRY(status_encode(s, &body));
    if (!err_ok(status_decode(buf_slice(&body), &check))) {
        return FAIL(E_USAGE);
    }
    return container_seal_one(CONTAINER_STATUS, environment, buf_slice(&body), pair, out);
}

struct err status_open(struct slice bytes, const uint8_t environment[ENVIRONMENT_SIZE],
                       const struct key_public *key, struct status *out)
{
    struct container c;
    TRY(container_open_one(bytes, CONTAINER_STATUS, environment, key, &c));
    struct status s;
    TRY(status_decode(c.body, &s));
    if (!slice_eq(slice_str(s.node), slice_str(key->name))) {
        return FAIL(E_UNAUTHENTICATED);
    }
    *out = s;
    return OK;
}
