/* share: see share.h. */
#include "common/snapshot/share.h"

#include <string.h>

#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/proto/strict.h"
#include "common/snapshot/wire.h"

#include "trilane/snapshot/v1/snapshot.pb-c.h"

typedef Trilane__Snapshot__V1__Demand demand_message;
typedef Trilane__Snapshot__V1__DemandOf demand_of_message;
typedef Trilane__Snapshot__V1__Shares shares_message;
typedef Trilane__Snapshot__V1__ShareOf share_of_message;

uint64_t share_budget(struct slice limit_id)
{
    uint8_t digest[DIGEST_SHORT_SIZE];
    ids_digest_short(limit_id, digest);
    return wire_get64(digest);
}

static struct err decode(const ProtobufCMessageDescriptor *type, struct slice body,
                         ProtobufCMessage **out)
{
    const struct proto_rules rules = {.memory_max = CONTAINER_MEMORY_FACTOR * body.size,
                                      .malformed = E_MALFORMED,
                                      .unknown = E_MALFORMED};
    return proto_decode(type, body, &rules, out);
}

static struct err take_name(const char *name, char out[KEY_NAME_MAX + 1])
{
    if (!text_is_name(slice_str(name))) {
        return FAIL(E_MALFORMED);
    }
    memcpy(out, name, strlen(name) + 1);
    return OK;
}

/* ---- demand ---- */

static struct err demand_encode(const struct demand *d, struct buf *out)
{
    demand_of_message items[SHARE_BUDGETS_MAX];
    demand_of_message *list[SHARE_BUDGETS_MAX];
    demand_message m;
    trilane__snapshot__v1__demand__init(&m);
    m.node = proto_text(d->node);
    m.run = d->run;
    m.at_ms = d->at_ms;
    m.epoch = d->epoch;
    m.sequence = d->sequence;
    for (uint32_t i = 0; i < d->count; i++) {
        trilane__snapshot__v1__demand_of__init(&items[i]);
        items[i].budget = d->of[i].budget;
        items[i].asked = d->of[i].asked;
        items[i].share = d->of[i].share;
        list[i] = &items[i];
    }
    m.n_budgets = d->count;
    m.budgets = list;
    return proto_encode(&m.base, out);
}

static struct err demand_decode(struct slice body, struct demand *out)
{
    auto_proto ProtobufCMessage *message = NULL;
    TRY(decode(&trilane__snapshot__v1__demand__descriptor, body, &message));
    const demand_message *m = (const demand_message *)message;
    struct demand d = {.run = m->run,
                       .at_ms = m->at_ms,
                       .epoch = m->epoch,
                       .sequence = m->sequence,
                       .count = (uint32_t)m->n_budgets};
    if (m->n_budgets > SHARE_BUDGETS_MAX || m->run == 0 || m->at_ms == 0 ||
        (m->epoch == 0) != (m->sequence == 0)) {
        return FAIL(E_MALFORMED);
    }
    TRY(take_name(m->node, d.node));
    for (uint32_t i = 0; i < d.count; i++) {
        const demand_of_message *of = m->budgets[i];
        bool ascends = i == 0 || of->budget > d.of[i - 1].budget;
        if (!ascends || of->share > SHARE_WHOLE) {
            return FAIL(E_MALFORMED);
        }
        d.of[i] = (struct demand_of){of->budget, of->asked, of->share};
    }
    *out = d;
    return OK;
}

struct err demand_seal(const struct demand *d, const uint8_t environment[ENVIRONMENT_SIZE],
                       const struct key_pair *pair, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(DEMAND_BODY_MAX);
    struct demand check;
    if (d->count > SHARE_BUDGETS_MAX) {
        return FAIL(E_USAGE);
    }
    TRY(demand_encode(d, &body));
    if (!err_ok(demand_decode(buf_slice(&body), &check))) {
        return FAIL(E_USAGE);
    }
    return container_seal_one(CONTAINER_DEMAND, environment, buf_slice(&body), pair, out);
}

struct err demand_open(struct slice bytes, const uint8_t environment[ENVIRONMENT_SIZE],
                       const struct key_public *key, struct demand *out)
{
    struct container c;
    TRY(container_open_one(bytes, CONTAINER_DEMAND, environment, key, &c));
    struct demand d;
    TRY(demand_decode(c.body, &d));
    if (!slice_eq(slice_str(d.node), slice_str(key->name))) {
        return FAIL(E_UNAUTHENTICATED);
    }
    *out = d;
    return OK;
}

/* ---- shares ---- */

static struct err shares_decode(struct slice body, struct shares *out)
{
    auto_proto ProtobufCMessage *message = NULL;
    TRY(decode(&trilane__snapshot__v1__shares__descriptor, body, &message));
    const shares_message *m = (const shares_message *)message;
    struct shares s = {.epoch = m->epoch,
                       .sequence = m->sequence,
                       .run = m->run,
                       .at_ms = m->at_ms,
                       .valid_ms = m->valid_ms,
                       .nodes = m->nodes,
                       .count = (uint32_t)m->n_budgets};
    if (m->epoch == 0 || m->sequence == 0 || m->run == 0 || m->at_ms == 0 || m->valid_ms == 0 ||
        m->valid_ms > SHARE_VALID_MAX_MS || m->nodes == 0 || m->n_budgets > SHARE_BUDGETS_MAX) {
        return FAIL(E_MALFORMED);
    }
    TRY(take_name(m->node, s.node));
    for (uint32_t i = 0; i < s.count; i++) {
        const share_of_message *of = m->budgets[i];
        bool ascends = i == 0 || of->budget > s.of[i - 1].budget;
        if (!ascends || of->share > SHARE_WHOLE) {
            return FAIL(E_MALFORMED);
        }
        s.of[i] = (struct share_of){of->budget, of->share};
    }
    *out = s;
    return OK;
}

struct err shares_encode(const struct shares *s, struct buf *out)
{
    share_of_message items[SHARE_BUDGETS_MAX];
    share_of_message *list[SHARE_BUDGETS_MAX];
    shares_message m;
    struct shares check;
    if (s->count > SHARE_BUDGETS_MAX) {
        return FAIL(E_USAGE);
    }
    trilane__snapshot__v1__shares__init(&m);
    m.epoch = s->epoch;
    m.sequence = s->sequence;
    m.node = proto_text(s->node);
    m.run = s->run;
    m.at_ms = s->at_ms;
    m.valid_ms = s->valid_ms;
    m.nodes = s->nodes;
    for (uint32_t i = 0; i < s->count; i++) {
        trilane__snapshot__v1__share_of__init(&items[i]);
        items[i].budget = s->of[i].budget;
        items[i].share = s->of[i].share;
        list[i] = &items[i];
    }
    m.n_budgets = s->count;
    m.budgets = list;
    auto_buf struct buf body = BUF_MAX(SHARES_BODY_MAX);
    TRY(proto_encode(&m.base, &body));
    if (!err_ok(shares_decode(buf_slice(&body), &check))) {
        return FAIL(E_USAGE);
    }
    return buf_add(out, buf_slice(&body));
}

struct err shares_open(struct slice bytes, const uint8_t environment[ENVIRONMENT_SIZE],
                       const struct keyring *ring, struct shares *out,
                       const struct ring_key **out_key)
{
    struct container c;
    struct container_signers signers;
    TRY(container_read(bytes, CONTAINER_SHARES, environment, &c));
    TRY(container_verify(&c, ring, KEY_ROLE_HEAD, &signers));
    TRY(shares_decode(c.body, out));
    *out_key = signers.last;
    return OK;
}
