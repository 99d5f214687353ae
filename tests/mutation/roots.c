/* Roots that a node must not walk to: each lies in the place of the next one, and a valid head asks
 * for it. */
#include <string.h>

#include "common/base/clock.h"
#include "common/proto/strict.h"

#include "tests/mutation/bytes.h"
#include "tests/mutation/node.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

#define ROOT_BYTES_MAX ((size_t)2 * ROOT_BODY_MAX)

enum { DAY_MS = 86400000 };

static struct buf *input(struct trial *t)
{
    struct buf *b = trial_input(t, "root");
    *b = BUF_MAX(ROOT_BYTES_MAX);
    return b;
}

/* A head by a key that both roots have, on the next root. */
static void ask(struct trial *t)
{
    struct world *w = t->world;
    struct buf *head = trial_input(t, "head");
    *head = BUF_MAX((size_t)2 * HEAD_BODY_MAX);
    world_head(w,
               &(struct world_head){.root_version = w->roots[ROOT_NEXT].version,
                                    .key = world_key(w, KEY_ROLE_HEAD, 1)},
               head);
    node_refuses(t, buf_slice(head));
}

static void offer(struct trial *t, struct slice root)
{
    char key[SNAP_KEY_SIZE];
    snap_key_root(t->world->roots[ROOT_NEXT].version, key);
    node_lie(t->node, key, root);
    ask(t);
}

static struct buf *valid(struct trial *t)
{
    struct buf *b = input(t);
    MUST(buf_add(b, buf_slice(&t->world->root_bytes[ROOT_NEXT])));
    return b;
}

/* ---- bytes ---- */

static void changed(struct trial *t)
{
    static const struct bytes_codes codes = {E_ROOT_MALFORMED, E_ROOT_MALFORMED, E_ROOT_UNSIGNED,
                                             E_ROOT_UNSIGNED};
    struct buf *b = valid(t);
    bytes_change(&t->dice, b);
    unsigned parts = bytes_parts(buf_slice(&t->world->root_bytes[ROOT_NEXT]), buf_slice(b));
    trial_says(t, "bytes changed, parts %x", parts);
    t->idle = parts == 0;
    if (!t->idle) {
        t->wanted = bytes_code(parts, &codes);
        offer(t, buf_slice(b));
    }
}

static void resized(struct trial *t)
{
    struct buf *b = valid(t);
    bytes_resize(&t->dice, b);
    offer(t, buf_slice(b));
}

static void reframed(struct trial *t)
{
    struct buf *b = valid(t);
    bytes_reframe(&t->dice, b);
    offer(t, buf_slice(b));
}

/* ---- replays and splices ---- */

static void missing(struct trial *t)
{
    ask(t);
}

/* One of another place in the chain. What the root in force has signed itself is out of order; the
 * others lack its signatures. */
static void out_of_order(struct trial *t)
{
    static const enum world_root roots[] = {ROOT_BEFORE, ROOT_NOW, ROOT_AFTER};
    enum world_root root = roots[dice_below(&t->dice, 3)];
    t->wanted = root == ROOT_NOW ? E_ROOT_MALFORMED : E_ROOT_UNSIGNED;
    trial_says(t, "root %d of the chain", (int)root);
    offer(t, buf_slice(&t->world->root_bytes[root]));
}

static void of_another_world(struct trial *t)
{
    struct world *other = trial_other(t);
    bool same_name = strcmp(other->environment, t->world->environment) == 0;
    t->wanted = same_name ? E_ROOT_UNSIGNED : E_ROOT_MALFORMED;
    offer(t, buf_slice(&other->root_bytes[ROOT_NEXT]));
}

static void other_document(struct trial *t)
{
    struct slice documents[] = {buf_slice(&t->world->versions[VERSION_NEXT]->manifest),
                                world_past(t->world, &t->dice)};
    offer(t, documents[dice_below(&t->dice, 2)]);
}

/* ---- signatures ---- */

static void body_of(const struct root *r, struct buf *out)
{
    *out = BUF_MAX(ROOT_BODY_MAX);
    MUST(root_encode(r, out));
}

/* Keys that only one of both sides has, or too few, in any order. */
static void one_side(struct trial *t)
{
    struct world *w = t->world;
    const struct key_pair *keys = w->keys[KEY_ROLE_ROOT];
    const struct key_pair *pairs[CONTAINER_SIGNATURES_MAX];
    size_t count = 0;
    size_t shared = (size_t)dice_below(&t->dice, w->threshold); /* one less than both ask for. */
    bool old = dice_even(&t->dice);
    for (size_t i = 0; i < shared; i++) {
        pairs[count++] = &keys[ROOT_NEXT + i];
    }
    pairs[count++] = old ? &keys[ROOT_NOW] : &keys[ROOT_NEXT + w->threshold];
    for (size_t i = count; i > 1; i--) {
        size_t k = (size_t)dice_below(&t->dice, i);
        const struct key_pair *pair = pairs[i - 1];
        pairs[i - 1] = pairs[k];
        pairs[k] = pair;
    }
    trial_says(t, "%zu keys of both, one of the %s", shared, old ? "old" : "new");
    auto_buf struct buf body;
    body_of(&w->roots[ROOT_NEXT], &body);
    struct buf *b = input(t);
    seal_by(w, CONTAINER_ROOT, buf_slice(&body), pairs, count, b);
    offer(t, buf_slice(b));
}

/* Keys of other roles, dropped ones, ones to come, and strangers in the place of the last one. */
static void by_another_key(struct trial *t)
{
    struct world *w = t->world;
    const struct key_pair *others[] = {
        world_key(w, KEY_ROLE_MANIFEST, 0), world_key(w, KEY_ROLE_HEAD, 0),
        &w->keys[KEY_ROLE_ROOT][ROOT_BEFORE], &w->keys[KEY_ROLE_ROOT][w->threshold + ROOT_AFTER],
        &w->stranger};
    const struct key_pair *pairs[THRESHOLD_MAX];
    for (size_t i = 0; i < w->threshold; i++) {
        pairs[i] = &w->keys[KEY_ROLE_ROOT][ROOT_NEXT + i];
    }
    pairs[dice_below(&t->dice, w->threshold)] = others[dice_below(&t->dice, 5)];
    auto_buf struct buf body;
    body_of(&w->roots[ROOT_NEXT], &body);
    struct buf *b = input(t);
    seal_by(w, CONTAINER_ROOT, buf_slice(&body), pairs, w->threshold, b);
    offer(t, buf_slice(b));
}

/* One key as often as signatures are asked for; the copies may go by the ids of other keys. */
static void doubled(struct trial *t)
{
    struct world *w = t->world;
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    auto_buf struct buf body;
    body_of(&w->roots[ROOT_NEXT], &body);
    size_t count = w->threshold == 1 ? 2 : w->threshold;
    bool disguised = w->threshold > 1 && dice_even(&t->dice);
    for (size_t i = 0; i < count; i++) {
        const struct key_pair *keys = w->keys[KEY_ROLE_ROOT];
        MUST(container_sign(CONTAINER_ROOT, w->environment_id, buf_slice(&body), &keys[ROOT_NEXT],
                            &signatures[i]));
        if (disguised) {
            key_id(keys[ROOT_NEXT + i].public.bytes, signatures[i].key_id);
        }
    }
    t->wanted = disguised ? E_ROOT_UNSIGNED : E_ROOT_MALFORMED;
    struct buf *b = input(t);
    seal_with(CONTAINER_ROOT, w->environment_id, buf_slice(&body), signatures, count, b);
    offer(t, buf_slice(b));
}

/* ---- signed by who may, and wrong ---- */

static void expired(struct trial *t)
{
    struct root late = t->world->roots[ROOT_NEXT];
    late.not_after_ms =
        clock_wall_ms() - 60000 - (int64_t)dice_below(&t->dice, INT64_C(300) * DAY_MS);
    auto_buf struct buf body;
    body_of(&late, &body);
    struct buf *b = input(t);
    seal_next_root(t->world, buf_slice(&body), b);
    offer(t, buf_slice(b));
}

typedef Trilane__Snapshot__V1__Root root_message;

static void break_root(struct trial *t, root_message *m)
{
    switch (dice_below(&t->dice, 9)) {
    case 0:
        m->version += 1 + dice_below(&t->dice, 1 << 20); /* a step is left out. */
        break;
    case 1:
        m->version = 0;
        break;
    case 2:
        m->roots->threshold = 0;
        break;
    case 3:
        m->manifests->threshold = (uint32_t)m->manifests->n_keys + 1;
        break;
    case 4:
        m->heads->threshold = 2;
        break;
    case 5: /* a key in two roles. */
        memcpy(m->manifests->keys[0]->public_key.data, m->heads->keys[0]->public_key.data,
               KEY_PUBLIC_SIZE);
        break;
    case 6: /* a key twice in one role. */
        memcpy(m->manifests->keys[0]->public_key.data, m->manifests->keys[1]->public_key.data,
               KEY_PUBLIC_SIZE);
        break;
    case 7:
        m->environment[0] = m->environment[0] == 'x' ? 'y' : 'x';
        break;
    default:
        m->not_after_ms = 0;
    }
}

static void signed_nonsense(struct trial *t)
{
    struct world *w = t->world;
    auto_buf struct buf body;
    body_of(&w->roots[ROOT_NEXT], &body);
    if (dice_below(&t->dice, 4) == 0) {
        MUST(buf_add(&body, dice_even(&t->dice) ? SLICE_LIT("\x90\x03\x01") : SLICE_LIT("\xff")));
    } else {
        root_message *m = trilane__snapshot__v1__root__unpack(NULL, body.size, body.ptr);
        CHECK(m != NULL);
        break_root(t, m);
        buf_clear(&body);
        MUST(proto_encode(&m->base, &body));
        trilane__snapshot__v1__root__free_unpacked(m, NULL);
    }
    struct buf *b = input(t);
    seal_next_root(w, buf_slice(&body), b);
    offer(t, buf_slice(b));
}

const struct trial_kind root_kinds[] = {
    {"root.changed", changed, 50, {E_ROOT_MALFORMED, E_ROOT_UNSIGNED}},
    {"root.resized", resized, 10, {E_ROOT_MALFORMED}},
    {"root.reframed", reframed, 20, {E_ROOT_UNSIGNED}},
    {"root.missing", missing, 2, {E_ROOT_MISSING}},
    {"root.out_of_order", out_of_order, 20, {E_ROOT_MALFORMED, E_ROOT_UNSIGNED}},
    {"root.of_another_world", of_another_world, 10, {E_ROOT_MALFORMED, E_ROOT_UNSIGNED}},
    {"root.other_document", other_document, 5, {E_ROOT_MALFORMED}},
    {"root.one_side", one_side, 20, {E_ROOT_UNSIGNED}},
    {"root.by_another_key", by_another_key, 20, {E_ROOT_UNSIGNED}},
    {"root.doubled", doubled, 10, {E_ROOT_MALFORMED, E_ROOT_UNSIGNED}},
    {"root.expired", expired, 5, {E_ROOT_EXPIRED}},
    {"root.signed_nonsense", signed_nonsense, 20, {E_ROOT_MALFORMED}},
    {.name = NULL},
};
