/* Heads that a node must not accept, and accepted ones whose target it must not serve. */
#include <string.h>

#include "common/base/clock.h"
#include "common/proto/strict.h"

#include "tests/mutation/bytes.h"
#include "tests/mutation/node.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

#define HEAD_MAX ((size_t)2 * HEAD_BODY_MAX)

static struct buf *input(struct trial *t)
{
    struct buf *b = trial_input(t, "head");
    *b = BUF_MAX(HEAD_MAX);
    return b;
}

/* A valid head to the next version. */
static struct buf *valid(struct trial *t)
{
    struct buf *b = input(t);
    world_head(t->world, &(struct world_head){0}, b);
    return b;
}

static void planned(struct trial *t, const struct world_head *plan)
{
    struct buf *b = input(t);
    world_head(t->world, plan, b);
    node_refuses(t, buf_slice(b));
}

/* ---- bytes ---- */

static void changed(struct trial *t)
{
    static const struct bytes_codes codes = {E_HEAD_MALFORMED, E_HEAD_WRONG_ENVIRONMENT,
                                             E_HEAD_UNSIGNED, E_HEAD_UNSIGNED};
    struct buf *b = valid(t);
    auto_buf struct buf original = BUF_MAX(HEAD_MAX);
    MUST(buf_add(&original, buf_slice(b)));
    bytes_change(&t->dice, b);
    unsigned parts = bytes_parts(buf_slice(&original), buf_slice(b));
    trial_says(t, "bytes changed, parts %x", parts);
    t->idle = parts == 0;
    if (!t->idle) {
        t->wanted = bytes_code(parts, &codes);
        node_refuses(t, buf_slice(b));
    }
}

static void resized(struct trial *t)
{
    struct buf *b = valid(t);
    bytes_resize(&t->dice, b);
    node_refuses(t, buf_slice(b));
}

static void reframed(struct trial *t)
{
    struct buf *b = valid(t);
    bytes_reframe(&t->dice, b);
    node_refuses(t, buf_slice(b));
}

static void noise(struct trial *t)
{
    struct buf *b = input(t);
    for (uint64_t n = dice_below(&t->dice, 600); n > 0; n--) {
        MUST(buf_add_byte(b, (uint8_t)dice_next(&t->dice)));
    }
    node_refuses(t, buf_slice(b));
}

/* None, or several; the right one among them, or twice. */
static void signature_count(struct trial *t)
{
    struct world *w = t->world;
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    size_t count = (size_t)dice_below(&t->dice, CONTAINER_SIGNATURES_MAX);
    count += count > 0 ? 1 : 0;
    world_head_body(w, &(struct world_head){0}, &body);
    for (size_t i = 0; i < count; i++) {
        bool other = dice_even(&t->dice);
        MUST(container_sign(CONTAINER_HEAD, w->environment_id, buf_slice(&body),
                            world_key(w, KEY_ROLE_HEAD, other ? 1 : 0), &signatures[i]));
    }
    struct buf *b = input(t);
    seal_with(CONTAINER_HEAD, w->environment_id, buf_slice(&body), signatures, count, b);
    trial_says(t, "%zu signatures", count);
    node_refuses(t, buf_slice(b));
}

/* ---- replays and splices ---- */

static void replayed(struct trial *t)
{
    struct world *w = t->world;
    struct buf *b = input(t);
    if (w->epoch > 1 && dice_even(&t->dice)) {
        trial_says(t, "of an epoch before");
        world_head(w,
                   &(struct world_head){.epoch = dice_between(&t->dice, 1, w->epoch - 1),
                                        .sequence = dice_between(&t->dice, 1, 1 << 20)},
                   b);
    } else {
        MUST(buf_add(b, world_past(w, &t->dice)));
    }
    node_refuses(t, buf_slice(b));
}

static void equivocation(struct trial *t)
{
    planned(t, &(struct world_head){.sequence = t->world->sequence,
                                    .signed_at_ms = clock_wall_ms() + 1000 +
                                                    (int64_t)dice_below(&t->dice, 5000)});
}

/* Another environment's; or another platform's, whose environment has the same name. */
static void of_another_world(struct trial *t)
{
    struct world *other = trial_other(t);
    bool same_name = strcmp(other->environment, t->world->environment) == 0;
    struct buf *b = input(t);
    world_head(other, &(struct world_head){0}, b);
    t->wanted = same_name ? E_HEAD_UNSIGNED : E_HEAD_WRONG_ENVIRONMENT;
    trial_says(t, "of world %u", other->index);
    node_refuses(t, buf_slice(b));
}

/* The signature of another head, of another environment's key, or made for another kind. */
static void spliced(struct trial *t)
{
    struct world *w = t->world;
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    auto_buf struct buf other = BUF_MAX(HEAD_BODY_MAX);
    struct container_signature signature;
    const struct key_pair *key = world_key(w, KEY_ROLE_HEAD, 0);
    uint8_t environment[ENVIRONMENT_SIZE];
    memcpy(environment, w->environment_id, sizeof(environment));
    enum container_kind kind = CONTAINER_HEAD;
    world_head_body(w, &(struct world_head){0}, &body);
    world_head_body(w, &(struct world_head){.sequence = w->sequence + 2}, &other);
    struct slice signed_body = buf_slice(&body);
    switch (dice_below(&t->dice, 4)) {
    case 0:
        signed_body = buf_slice(&other);
        break;
    case 1:
        snap_environment(SLICE_LIT("elsewhere"), environment);
        break;
    case 2:
        kind = dice_even(&t->dice) ? CONTAINER_MANIFEST : CONTAINER_ROOT;
        break;
    default: /* of another key, under this one's id. */
        key = &w->stranger;
    }
    MUST(container_sign(kind, environment, signed_body, key, &signature));
    key_id(world_key(w, KEY_ROLE_HEAD, 0)->public.bytes, signature.key_id);
    struct buf *b = input(t);
    seal_with(CONTAINER_HEAD, w->environment_id, buf_slice(&body), &signature, 1, b);
    node_refuses(t, buf_slice(b));
}

/* A whole container of another kind. */
static void other_document(struct trial *t)
{
    struct world *w = t->world;
    const struct buf *documents[] = {&w->root_bytes[ROOT_NOW], &w->root_bytes[ROOT_NEXT],
                                     &w->versions[VERSION_NEXT]->manifest,
                                     &w->versions[VERSION_OLD]->manifest};
    node_refuses(t, buf_slice(documents[dice_below(&t->dice, 4)]));
}

/* ---- keys ---- */

static void by_another_role(struct trial *t)
{
    struct world *w = t->world;
    enum key_role role = dice_even(&t->dice) ? KEY_ROLE_MANIFEST : KEY_ROLE_ROOT;
    size_t index = (size_t)dice_below(&t->dice, world_key_count(w, role));
    trial_says(t, "by %s key %zu", key_role_name(role), index);
    planned(t, &(struct world_head){.key = world_key(w, role, index)});
}

/* Of no root, of the root before, of one to come, of a node, or of another world. */
static void by_an_unknown_key(struct trial *t)
{
    struct world *w = t->world;
    const struct key_pair *keys[] = {&w->stranger, &w->keys[KEY_ROLE_HEAD][ROOT_BEFORE],
                                     &w->keys[KEY_ROLE_HEAD][ROOT_AFTER], &w->node,
                                     world_key(trial_other(t), KEY_ROLE_HEAD, 0)};
    size_t which = (size_t)dice_below(&t->dice, 5);
    trial_says(t, "by unknown key %zu", which);
    planned(t, &(struct world_head){.key = keys[which]});
}

static void by_a_key_whose_days_are_over(struct trial *t)
{
    planned(t, &(struct world_head){.key = &t->world->late});
}

/* ---- right but for one thing ---- */

static void old_or_early(struct trial *t)
{
    bool old = dice_even(&t->dice);
    int64_t off_ms = 60000 + (int64_t)dice_below(&t->dice, INT64_C(400) * 86400000);
    t->wanted = old ? E_HEAD_EXPIRED : E_CLOCK_SKEW;
    planned(t, &(struct world_head){.signed_at_ms = clock_wall_ms() + (old ? -off_ms : off_ms)});
}

static void epoch_jump(struct trial *t)
{
    uint64_t far = t->world->epoch + HEAD_EPOCH_JUMP + 1;
    planned(t, &(struct world_head){.epoch = dice_even(&t->dice)
                                                 ? far + dice_below(&t->dice, 1 << 30)
                                                 : UINT64_MAX - dice_below(&t->dice, 1 << 30),
                                    .sequence = 1});
}

static void root_ahead(struct trial *t)
{
    uint64_t above = dice_between(&t->dice, 1, 5);
    planned(t, &(struct world_head){.root_version = t->world->roots[ROOT_NOW].version + above});
}

typedef Trilane__Snapshot__V1__Head head_message;

/* What no head may say: each breaks one rule. */
static void break_head(struct trial *t, head_message *m)
{
    Trilane__Snapshot__V1__Selector *selector = m->targets[0]->selector;
    switch (dice_below(&t->dice, 11)) {
    case 0:
        m->root_version = 0;
        break;
    case 1:
        m->sequence = 0;
        break;
    case 2:
        m->epoch = 0;
        break;
    case 3:
        m->expires_at_ms =
            m->signed_at_ms + HEAD_VALIDITY_MAX_MS + 1 + (int64_t)dice_below(&t->dice, 1 << 30);
        break;
    case 4:
        m->expires_at_ms = m->signed_at_ms - (int64_t)dice_below(&t->dice, 1 << 30);
        break;
    case 5:
        m->signed_at_ms = -m->signed_at_ms;
        m->expires_at_ms = m->signed_at_ms + 1000;
        break;
    case 6:
        m->targets[0]->version = 0;
        break;
    case 7:
        m->targets[0]->manifest_digest.len -= 1 + (size_t)dice_below(&t->dice, DIGEST_SIZE);
        break;
    case 8:
        selector->per_mille = (uint32_t)dice_between(&t->dice, 1, 1000);
        break;
    case 9:
        selector->all = false;
        break;
    default:
        selector->all = false;
        selector->per_mille = 1001 + (uint32_t)dice_below(&t->dice, 1 << 20);
    }
}

/* Bytes behind a body that are no field, an unknown one, or one that is there already. */
static void append_field(struct trial *t, struct buf *body)
{
    const struct slice fields[] = {
        SLICE_LIT("\xff"),         /* cut off. */
        SLICE_LIT("\x90\x03\x01"), /* field 50. */
        SLICE_LIT("\x10\x05"),     /* field 2 again. */
        SLICE_LIT("\x00\x00"),     /* field 0. */
        SLICE_LIT("\x0b\x0c"),     /* a group. */
    };
    MUST(buf_add(body, fields[dice_below(&t->dice, sizeof(fields) / sizeof(fields[0]))]));
}

static void signed_nonsense(struct trial *t)
{
    struct world *w = t->world;
    const struct key_pair *key = world_key(w, KEY_ROLE_HEAD, 0);
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    world_head_body(w, &(struct world_head){0}, &body);
    if (dice_below(&t->dice, 3) == 0) {
        append_field(t, &body);
    } else {
        head_message *m = trilane__snapshot__v1__head__unpack(NULL, body.size, body.ptr);
        CHECK(m != NULL);
        break_head(t, m);
        buf_clear(&body);
        MUST(proto_encode(&m->base, &body));
        trilane__snapshot__v1__head__free_unpacked(m, NULL);
    }
    struct buf *b = input(t);
    seal_by(w, CONTAINER_HEAD, buf_slice(&body), &key, 1, b);
    node_refuses(t, buf_slice(b));
}

/* Any change of a body, signed by a key that is held, and of another role. */
static void forged_by_another_role(struct trial *t)
{
    struct world *w = t->world;
    const struct key_pair *key =
        world_key(w, dice_even(&t->dice) ? KEY_ROLE_MANIFEST : KEY_ROLE_ROOT, 0);
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    world_head_body(w, &(struct world_head){0}, &body);
    bytes_change(&t->dice, &body);
    struct buf *b = input(t);
    seal_by(w, CONTAINER_HEAD, buf_slice(&body), &key, 1, b);
    node_refuses(t, buf_slice(b));
}

/* ---- targets ---- */

static void target(struct trial *t, const struct world_head *plan)
{
    struct buf *b = input(t);
    world_head(t->world, plan, b);
    node_refuses_target(t, buf_slice(b));
}

static void no_target(struct trial *t)
{
    target(t, &(struct world_head){.no_target = true});
}

/* An old version under a new order, with its own digest, or another one. */
static void old_version(struct trial *t)
{
    const struct world *w = t->world;
    const struct version *old = w->versions[VERSION_OLD];
    const struct version *other = w->versions[dice_below(&t->dice, WORLD_VERSIONS)];
    uint64_t number = dice_even(&t->dice) ? old->number : dice_between(&t->dice, 1, old->number);
    target(t, &(struct world_head){.version = number, .digest = other->digest});
}

static void rival_version(struct trial *t)
{
    const struct world *w = t->world;
    uint8_t digest[DIGEST_SIZE];
    memcpy(digest, w->versions[VERSION_FLOOR]->digest, sizeof(digest));
    digest[dice_below(&t->dice, DIGEST_SIZE)] ^= (uint8_t)(1U << dice_below(&t->dice, 8));
    bool real = dice_even(&t->dice); /* signed as well, and in the bucket. */
    target(t, &(struct world_head){.version = w->versions[VERSION_FLOOR]->number,
                                   .digest = real ? w->versions[VERSION_RIVAL]->digest : digest});
}

const struct trial_kind head_kinds[] = {
    {"head.changed", changed, 60, {E_HEAD_MALFORMED, E_HEAD_WRONG_ENVIRONMENT, E_HEAD_UNSIGNED}},
    {"head.resized", resized, 20, {E_HEAD_MALFORMED}},
    {"head.reframed", reframed, 20, {E_HEAD_UNSIGNED}},
    {"head.noise", noise, 5, {E_HEAD_MALFORMED}},
    {"head.signature_count", signature_count, 5, {E_HEAD_MALFORMED}},
    {"head.replayed", replayed, 40, {E_HEAD_REPLAYED}},
    {"head.equivocation", equivocation, 10, {E_HEAD_EQUIVOCATION}},
    {"head.of_another_world", of_another_world, 20, {E_HEAD_WRONG_ENVIRONMENT, E_HEAD_UNSIGNED}},
    {"head.spliced", spliced, 40, {E_HEAD_UNSIGNED}},
    {"head.other_document", other_document, 5, {E_HEAD_MALFORMED}},
    {"head.by_another_role", by_another_role, 20, {E_HEAD_WRONG_KEY}},
    {"head.by_an_unknown_key", by_an_unknown_key, 20, {E_HEAD_UNSIGNED}},
    {"head.by_a_late_key", by_a_key_whose_days_are_over, 5, {E_CLOCK_SKEW}},
    {"head.old_or_early", old_or_early, 10, {E_HEAD_EXPIRED, E_CLOCK_SKEW}},
    {"head.epoch_jump", epoch_jump, 10, {E_EPOCH_JUMP}},
    {"head.root_ahead", root_ahead, 5, {E_ROOT_MISSING}},
    {"head.signed_nonsense", signed_nonsense, 20, {E_HEAD_MALFORMED}},
    {"head.forged_by_another_role", forged_by_another_role, 20, {E_HEAD_WRONG_KEY}},
    {"target.none", no_target, 5, {E_NO_TARGET}},
    {"target.old_version", old_version, 20, {E_SNAPSHOT_REPLAYED}},
    {"target.rival", rival_version, 10, {E_SNAPSHOT_EQUIVOCATION}},
    {.name = NULL},
};
