/* Heads, and which target of one is a node's. */
#include "common/snapshot/head.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/proto/strict.h"
#include "common/snapshot/wire.h"

#include "trilane/snapshot/v1/snapshot.pb-c.h"

#define PICK_TAG "trilane.dev/pick/1"

/* A time beyond this is a mistake, and sums with it could overflow. */
#define TIME_MAX_MS (INT64_MAX / 4)

enum { PER_MILLE_ALL = 1000 };

typedef Trilane__Snapshot__V1__Head head_message;
typedef Trilane__Snapshot__V1__Target target_message;
typedef Trilane__Snapshot__V1__Selector selector_message;
typedef Trilane__Snapshot__V1__Label label_message;

/* ---- decode ---- */

static struct err labels_decode(const selector_message *m, struct head_target *out)
{
    if (m->n_labels > HEAD_LABELS_MAX) {
        return FAIL(E_HEAD_MALFORMED);
    }
    for (size_t i = 0; i < m->n_labels; i++) {
        struct head_label *label = &out->labels[i];
        label->name = slice_str(m->labels[i]->name);
        label->value = slice_str(m->labels[i]->value);
        bool ascending = i == 0 || slice_cmp(out->labels[i - 1].name, label->name) < 0;
        if (label->name.size == 0 || !ascending) {
            return FAIL(E_HEAD_MALFORMED);
        }
    }
    out->label_count = (uint32_t)m->n_labels;
    return OK;
}

/* 'all' and nothing else; or labels, a share and its salt. */
static struct err selector_decode(const selector_message *m, struct head_target *out)
{
    if (m == NULL) {
        return FAIL(E_HEAD_MALFORMED);
    }
    if (m->all) {
        bool nothing_else = m->n_labels == 0 && m->per_mille == 0 && m->salt.len == 0;
        out->all = true;
        return nothing_else ? OK : FAIL(E_HEAD_MALFORMED);
    }
    if (m->per_mille < 1 || m->per_mille > PER_MILLE_ALL || m->salt.len != HEAD_SALT_SIZE) {
        return FAIL(E_HEAD_MALFORMED);
    }
    out->per_mille = m->per_mille;
    memcpy(out->salt, m->salt.data, HEAD_SALT_SIZE);
    return labels_decode(m, out);
}

static struct err target_decode(const target_message *m, struct head_target *out)
{
    if (m->version == 0 || m->manifest_digest.len != DIGEST_SIZE) {
        return FAIL(E_HEAD_MALFORMED);
    }
    out->version = m->version;
    memcpy(out->manifest_digest, m->manifest_digest.data, DIGEST_SIZE);
    return selector_decode(m->selector, out);
}

static struct err message_to_head(const head_message *m, struct head *out)
{
    if (m->root_version == 0 || m->epoch == 0 || m->sequence == 0 ||
        m->n_targets > HEAD_TARGETS_MAX || m->signed_at_ms < 0 || m->signed_at_ms > TIME_MAX_MS ||
        m->expires_at_ms <= m->signed_at_ms ||
        m->expires_at_ms - m->signed_at_ms > HEAD_VALIDITY_MAX_MS) {
        return FAIL(E_HEAD_MALFORMED);
    }
    out->root_version = m->root_version;
    out->epoch = m->epoch;
    out->sequence = m->sequence;
    out->signed_at_ms = m->signed_at_ms;
    out->expires_at_ms = m->expires_at_ms;
    out->target_count = (uint32_t)m->n_targets;
    for (size_t i = 0; i < m->n_targets; i++) {
        TRY(target_decode(m->targets[i], &out->targets[i]));
    }
    return OK;
}

struct err head_decode(struct slice body, struct head *out)
{
    if (body.size > HEAD_BODY_MAX) {
        return FAIL(E_HEAD_MALFORMED);
    }
    const struct proto_rules rules = {.memory_max = CONTAINER_MEMORY_FACTOR * body.size,
                                      .malformed = E_HEAD_MALFORMED,
                                      .unknown = E_HEAD_MALFORMED};
    auto_proto ProtobufCMessage *m = NULL;
    TRY(proto_decode(&trilane__snapshot__v1__head__descriptor, body, &rules, &m));
    struct head h = {0};
    TRY(message_to_head((const head_message *)m, &h));
    h.owned = TAKE_PTR(m);
    *out = h;
    return OK;
}

void head_free(struct head *h)
{
    proto_free(h->owned);
    *h = (struct head){0};
}

/* ---- encode ---- */

struct target_space {
    target_message target;
    selector_message selector;
    label_message labels[HEAD_LABELS_MAX];
    label_message *list[HEAD_LABELS_MAX];
    char *texts[HEAD_LABELS_MAX * 2]; /* owned: labels with a NUL behind them. */
};

static char *text_of(struct slice s)
{
    char *text = malloc(s.size + 1);
    if (text != NULL) {
        memcpy(text, s.size == 0 ? "" : (const char *)s.ptr, s.size);
        text[s.size] = '\0';
    }
    return text;
}

static bool has_nul(struct slice s)
{
    return slice_find(s, '\0') != s.size;
}

static struct err labels_fill(struct target_space *space, const struct head_target *from)
{
    for (size_t i = 0; i < from->label_count; i++) {
        if (has_nul(from->labels[i].name) || has_nul(from->labels[i].value)) {
            return FAIL(E_USAGE); /* what is behind it would be lost without a word. */
        }
        char *name = text_of(from->labels[i].name);
        char *value = text_of(from->labels[i].value);
        space->texts[2 * i] = name;
        space->texts[2 * i + 1] = value;
        if (name == NULL || value == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        trilane__snapshot__v1__label__init(&space->labels[i]);
        space->labels[i].name = name;
        space->labels[i].value = value;
        space->list[i] = &space->labels[i];
    }
    space->selector.n_labels = from->label_count;
    space->selector.labels = space->list;
    return OK;
}

static struct err target_fill(struct target_space *space, const struct head_target *from)
{
    trilane__snapshot__v1__target__init(&space->target);
    trilane__snapshot__v1__selector__init(&space->selector);
    space->target.selector = &space->selector;
    space->target.version = from->version;
    space->target.manifest_digest = proto_binary(from->manifest_digest, DIGEST_SIZE);
    space->selector.all = from->all;
    space->selector.per_mille = from->per_mille;
    if (!from->all) {
        space->selector.salt = proto_binary(from->salt, HEAD_SALT_SIZE);
    }
    return from->label_count > HEAD_LABELS_MAX ? FAIL(E_USAGE) : labels_fill(space, from);
}

static struct err head_fill(const struct head *h, struct target_space *spaces, struct buf *out)
{
    target_message *targets[HEAD_TARGETS_MAX];
    head_message m;
    trilane__snapshot__v1__head__init(&m);
    for (size_t i = 0; i < h->target_count; i++) {
        TRY(target_fill(&spaces[i], &h->targets[i]));
        targets[i] = &spaces[i].target;
    }
    m.root_version = h->root_version;
    m.epoch = h->epoch;
    m.sequence = h->sequence;
    m.n_targets = h->target_count;
    m.targets = targets;
    m.signed_at_ms = h->signed_at_ms;
    m.expires_at_ms = h->expires_at_ms;
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    TRY(proto_encode(&m.base, &body));
    auto_head struct head check = {0}; /* what is written is read back. */
    if (!err_ok(head_decode(buf_slice(&body), &check))) {
        return FAIL(E_USAGE);
    }
    return buf_add(out, buf_slice(&body));
}

struct err head_encode(const struct head *h, struct buf *out)
{
    if (h->target_count > HEAD_TARGETS_MAX) {
        return FAIL(E_USAGE);
    }
    auto_free struct target_space *spaces = calloc(HEAD_TARGETS_MAX, sizeof(*spaces));
    if (spaces == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = head_fill(h, spaces, out);
    for (size_t i = 0; i < HEAD_TARGETS_MAX; i++) {
        for (size_t k = 0; k < sizeof(spaces->texts) / sizeof(spaces->texts[0]); k++) {
            free(spaces[i].texts[k]);
        }
    }
    return e;
}

/* ---- selecting ---- */

static bool has_label(const struct head_node *node, const struct head_label *wanted)
{
    for (size_t i = 0; i < node->label_count; i++) {
        if (slice_eq(node->labels[i].name, wanted->name)) {
            return slice_eq(node->labels[i].value, wanted->value);
        }
    }
    return false;
}

/* Where in the thousand a node lies: by salt and id, so that each rollout picks others. */
static uint64_t pick(const uint8_t salt[HEAD_SALT_SIZE], struct slice id)
{
    uint8_t bytes[sizeof(PICK_TAG) + HEAD_SALT_SIZE + KEY_NAME_MAX];
    uint8_t digest[DIGEST_SIZE];
    CHECK(id.size <= KEY_NAME_MAX);
    memcpy(bytes, PICK_TAG, sizeof(PICK_TAG)); /* with its NUL */
    memcpy(bytes + sizeof(PICK_TAG), salt, HEAD_SALT_SIZE);
    if (id.size > 0) {
        memcpy(bytes + sizeof(PICK_TAG) + HEAD_SALT_SIZE, id.ptr, id.size);
    }
    ids_digest(slice_of(bytes, sizeof(PICK_TAG) + HEAD_SALT_SIZE + id.size), digest);
    return wire_get64(digest) % PER_MILLE_ALL;
}

static bool target_matches(const struct head_target *t, const struct head_node *node)
{
    if (t->all) {
        return true;
    }
    for (uint32_t i = 0; i < t->label_count; i++) {
        if (!has_label(node, &t->labels[i])) {
            return false;
        }
    }
    return pick(t->salt, node->id) < t->per_mille;
}

const struct head_target *head_target(const struct head *h, const struct head_node *node)
{
    for (uint32_t i = 0; i < h->target_count; i++) {
        if (target_matches(&h->targets[i], node)) {
            return &h->targets[i];
        }
    }
    return NULL;
}
