/* plane: see plane.h. */
#include "tests/mutation/plane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/net/csr.h"
#include "common/proto/strict.h"
#include "common/snapshot/status.h"
#include "controlplane/fleet/roll.h"
#include "controlplane/identity/registrar.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/head.h"
#include "controlplane/signer/state.h"

#include "tests/mutation/bytes.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

#define MS UINT64_C(1000000)

enum { PATH_SIZE = 512, CONTAINER_MAX = 2 * HEAD_BODY_MAX, TOKEN_DAYS_MS = 86400000 };

/* Who reports: two that are enrolled, one that was removed. */
enum { REPORTER, OTHER_REPORTER, REMOVED_REPORTER, REPORTERS };

static const uint8_t vouch_key[CP_VOUCH_KEY_SIZE] = {1};

/* Who joins: a guest that has not yet, a member that has, one that was removed since. */
enum { GUEST, MEMBER, REMOVED_MEMBER, JOINERS };

struct joiner {
    struct join_token token;
    struct key_pair status;
    struct evp_pkey_st *key;
    struct buf csr;
    uint64_t count; /* of its certificate. */
};

struct plane {
    char directory[PATH_SIZE];
    struct world *world;
    /* statuses */
    struct cp_roll *roll;
    struct cp_roll_now now;
    struct key_pair reporters[REPORTERS];
    uint64_t count; /* of the reporter's last status that counted. */
    /* the leader's head */
    struct cp_head_own own;
    struct buf own_head;
    struct signer_state signer;
    /* joining */
    struct cp_store *store;
    struct cp_certifier *certifier;
    struct cp_registrar *registrar;
    struct joiner joiners[JOINERS];
    struct join_token expired;
    struct buf backup;
    struct cp_store *empty; /* what backups are restored into. */
};

static _Noreturn void not_taken(const struct plane *p, const char *what)
{
    (void)fprintf(stderr, "control: %s of world %u, generation %llu, is not taken\n", what,
                  p->world->index, (unsigned long long)p->world->generation);
    exit(1);
}

static void flip(struct trial *t, uint8_t *bytes, size_t size)
{
    bytes[dice_below(&t->dice, size)] ^= (uint8_t)(1U << dice_below(&t->dice, 8));
}

/* ---- statuses ---- */

static const char *const reporter_names[REPORTERS] = {"node-1", "node-2", "node-3"};

struct report {
    uint64_t count; /* 0: above the last. */
    int64_t at_ms;  /* 0: now. */
    unsigned by;
    const char *node; /* NULL: of who signs. */
    const uint8_t *environment;
};

static void report(struct plane *p, const struct report *r, struct buf *out)
{
    const struct world *w = p->world;
    struct status s = {.epoch = w->epoch,
                       .sequence = w->sequence,
                       .version = w->versions[VERSION_FLOOR]->number,
                       .state = SNAP_GOOD,
                       .at_ms = r->at_ms == 0 ? p->now.wall_ms : r->at_ms,
                       .format = SNAPSHOT_FORMAT,
                       .count = r->count == 0 ? p->count + 1 : r->count,
                       .capabilities = CAPABILITIES_HERE};
    (void)snprintf(s.node, sizeof(s.node), "%s", r->node == NULL ? reporter_names[r->by] : r->node);
    MUST(status_seal(&s, r->environment == NULL ? w->environment_id : r->environment,
                     &p->reporters[r->by], out));
}

/* The reporter as the fleet's page has it. */
static struct cp_fleet_node listed(struct plane *p, const char *id)
{
    struct cp_fleet_node *nodes = NULL;
    struct cp_fleet_node found;
    size_t count = 0;
    memset(&found, 0, sizeof(found));
    MUST(cp_roll_list(p->roll, &p->now, &nodes, &count));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(nodes[i].id, id) == 0) {
            memcpy(&found, &nodes[i], sizeof(found));
        }
    }
    free(nodes);
    return found;
}

static struct cp_status_counters counters(struct plane *p)
{
    struct cp_status_counters c;
    cp_roll_counters(p->roll, &c);
    return c;
}

static void pass_time(struct plane *p)
{
    p->now.mono_ns += 2000 * MS;
    p->now.wall_ms += 2000;
}

/* Offered under a node's name, it must not count; what the node said before must stand. */
static void offer_as(struct trial *t, unsigned as, struct slice bytes)
{
    struct plane *p = t->plane;
    struct key_public key = p->reporters[as].public;
    struct status opened;
    pass_time(p);
    struct cp_fleet_node node = listed(p, reporter_names[as]);
    struct cp_status_counters before = counters(p);
    struct err e = status_open(bytes, p->world->environment_id, &key, &opened);
    cp_roll_offer(p->roll, slice_str(reporter_names[as]), bytes, &p->now);
    struct cp_status_counters now = counters(p);
    struct cp_fleet_node after = listed(p, reporter_names[as]);
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): copies of one place. */
    bool same = memcmp(&node.status, &after.status, sizeof(node.status)) == 0;
    if (now.accepted != before.accepted || !same) {
        trial_fail(t, "the status counts");
    }
    if (now.unverified == before.unverified + 1) {
        t->got = e.code == E_OK ? E_UNAUTHENTICATED : e.code;
    } else if (now.skewed == before.skewed + 1) {
        t->got = E_CLOCK_SKEW;
    } else if (now.replayed == before.replayed + 1) {
        t->got = E_CONFLICT;
    } else if (now.removed == before.removed + 1) {
        t->got = E_NODE_REMOVED;
    } else {
        trial_fail(t, "nobody counted the status");
    }
}

static struct buf *status_input(struct trial *t, const struct report *r)
{
    struct buf *b = trial_input(t, "status");
    *b = BUF_MAX(CONTAINER_MAX);
    pass_time(t->plane);
    report(t->plane, r, b);
    return b;
}

static void status_changed(struct trial *t)
{
    static const struct bytes_codes codes = {E_MALFORMED, E_MALFORMED, E_UNAUTHENTICATED,
                                             E_UNAUTHENTICATED};
    struct buf *b = status_input(t, &(struct report){.by = REPORTER});
    auto_buf struct buf original = BUF_MAX(CONTAINER_MAX);
    MUST(buf_add(&original, buf_slice(b)));
    bytes_change(&t->dice, b);
    unsigned parts = bytes_parts(buf_slice(&original), buf_slice(b));
    t->idle = parts == 0;
    if (!t->idle) {
        t->wanted = bytes_code(parts, &codes);
        offer_as(t, REPORTER, buf_slice(b));
    }
}

static void status_resized(struct trial *t)
{
    struct buf *b = status_input(t, &(struct report){.by = REPORTER});
    bytes_resize(&t->dice, b);
    offer_as(t, REPORTER, buf_slice(b));
}

static void status_reframed(struct trial *t)
{
    struct buf *b = status_input(t, &(struct report){.by = REPORTER});
    bytes_reframe(&t->dice, b);
    offer_as(t, REPORTER, buf_slice(b));
}

static void status_replayed(struct trial *t)
{
    uint64_t count = dice_between(&t->dice, 1, t->plane->count);
    offer_as(t, REPORTER,
             buf_slice(status_input(t, &(struct report){.by = REPORTER, .count = count})));
}

static void status_of_another_time(struct trial *t)
{
    int64_t off_ms = 90000 + (int64_t)dice_below(&t->dice, INT64_C(400) * 86400000);
    int64_t at_ms = t->plane->now.wall_ms + (dice_even(&t->dice) ? off_ms : -off_ms);
    struct report r = {.by = REPORTER, .at_ms = at_ms < 0 ? 1 : at_ms};
    offer_as(t, REPORTER, buf_slice(status_input(t, &r)));
}

/* Another node's key, name, or both; or an environment that is not ours. */
static void status_of_another(struct trial *t)
{
    static const struct report reports[] = {
        {.by = OTHER_REPORTER},
        {.by = OTHER_REPORTER, .node = "node-1"},
        {.by = REPORTER, .node = "node-2"},
        {.by = REMOVED_REPORTER, .node = "node-1"},
        {.by = REPORTER},
    };
    size_t which = (size_t)dice_below(&t->dice, sizeof(reports) / sizeof(reports[0]));
    struct report r = reports[which];
    uint8_t elsewhere[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT("elsewhere"), elsewhere);
    bool foreign = which == 4;
    r.environment = foreign ? elsewhere : NULL;
    t->wanted = foreign ? E_MALFORMED : E_UNAUTHENTICATED;
    trial_says(t, "report %zu", which);
    offer_as(t, REPORTER, buf_slice(status_input(t, &r)));
}

static void status_of_a_removed_node(struct trial *t)
{
    struct buf *b = status_input(t, &(struct report){.by = REMOVED_REPORTER});
    offer_as(t, REMOVED_REPORTER, buf_slice(b));
}

static void status_control(struct plane *p)
{
    auto_buf struct buf b = BUF_MAX(CONTAINER_MAX);
    uint64_t before = counters(p).accepted;
    pass_time(p);
    report(p, &(struct report){.by = REPORTER}, &b);
    cp_roll_offer(p->roll, SLICE_LIT("node-1"), buf_slice(&b), &p->now);
    if (counters(p).accepted != before + 1) {
        not_taken(p, "the valid status");
    }
    p->count++;
}

static void begin_roll(struct plane *p)
{
    struct cp_roll_member members[REPORTERS] = {{.removed = false}};
    p->now = (struct cp_roll_now){.mono_ns = 1000000 * MS, .wall_ms = clock_wall_ms()};
    MUST(cp_roll_new(p->world->environment, p->directory, &p->roll));
    for (size_t i = 0; i < REPORTERS; i++) {
        p->reporters[i] = world_pair(p->world->index, KEY_ROLE_NODE, i);
        (void)snprintf(p->reporters[i].public.name, sizeof(p->reporters[i].public.name), "%s",
                       reporter_names[i]);
        (void)snprintf(members[i].id, sizeof(members[i].id), "%s", reporter_names[i]);
        members[i].proved = true;
        memcpy(members[i].status_key, p->reporters[i].public.bytes, KEY_PUBLIC_SIZE);
        members[i].removed = i == REMOVED_REPORTER;
    }
    cp_roll_enrol(p->roll, members, REPORTERS, &p->now);
}

/* ---- the head that lies in the bucket, as the leader judges it ---- */

static enum err_code verdict_code(enum cp_head_verdict verdict)
{
    static const enum err_code codes[CP_HEAD_VERDICT_COUNT] = {
        [CP_HEAD_OURS] = E_OK,
        [CP_HEAD_MISSING] = E_NOT_FOUND,
        [CP_HEAD_MALFORMED] = E_HEAD_MALFORMED,
        [CP_HEAD_UNSIGNED] = E_HEAD_UNSIGNED,
        [CP_HEAD_LOWER] = E_HEAD_REPLAYED,
        [CP_HEAD_JUMP] = E_EPOCH_JUMP,
        [CP_HEAD_FOREIGN] = E_HEAD_EQUIVOCATION,
        [CP_HEAD_BEHIND] = E_STORE_BEHIND,
    };
    return codes[verdict];
}

static enum err_code leader_judges(const struct plane *p, struct slice head)
{
    struct cp_head_judged judged;
    cp_head_judge(&p->world->roots[ROOT_NOW], head, &p->own, &judged);
    return verdict_code(judged.verdict);
}

static struct buf *head_input(struct trial *t)
{
    struct buf *b = trial_input(t, "head");
    *b = BUF_MAX(CONTAINER_MAX);
    return b;
}

static void leader_head_changed(struct trial *t)
{
    static const struct bytes_codes codes = {E_HEAD_MALFORMED, E_HEAD_MALFORMED, E_HEAD_UNSIGNED,
                                             E_HEAD_UNSIGNED};
    const struct buf *own = &t->plane->own_head;
    struct buf *b = head_input(t);
    MUST(buf_add(b, buf_slice(own)));
    bytes_change(&t->dice, b);
    unsigned parts = bytes_parts(buf_slice(own), buf_slice(b));
    t->idle = parts == 0;
    t->wanted = bytes_code(parts, &codes);
    t->got = leader_judges(t->plane, buf_slice(b));
}

/* By who may, but not this leader's: older, of a leader beside it, of later ones, of a version that
 * the database does not have; or by who may not. */
static void leader_head_foreign(struct trial *t)
{
    struct world *w = t->world;
    uint64_t which = dice_below(&t->dice, 6);
    uint64_t sequence = t->plane->own.sequence;
    struct world_head plan = {.epoch = w->epoch, .sequence = sequence};
    static const enum err_code codes[] = {E_HEAD_REPLAYED, E_HEAD_EQUIVOCATION, E_HEAD_EQUIVOCATION,
                                          E_EPOCH_JUMP,    E_STORE_BEHIND,      E_HEAD_UNSIGNED};
    if (which == 0) {
        plan.sequence = dice_between(&t->dice, 1, sequence - 1);
    } else if (which == 1) {
        plan.signed_at_ms = clock_wall_ms() + 5000;
    } else if (which == 2) {
        plan.epoch += dice_between(&t->dice, 1, HEAD_EPOCH_JUMP);
    } else if (which == 3) {
        plan.epoch += HEAD_EPOCH_JUMP + dice_between(&t->dice, 1, 1 << 30);
    } else if (which == 4) {
        plan.version = t->plane->own.version_max + dice_between(&t->dice, 1, UINT64_C(1) << 40);
    } else {
        enum key_role role = dice_even(&t->dice) ? KEY_ROLE_MANIFEST : KEY_ROLE_ROOT;
        plan.key = dice_even(&t->dice) ? world_key(w, role, 0) : &w->stranger;
    }
    struct buf *b = head_input(t);
    world_head(w, &plan, b);
    t->wanted = codes[which];
    t->got = leader_judges(t->plane, buf_slice(b));
}

static void begin_leader(struct plane *p)
{
    enum { LED = 1000 };
    struct container c;
    buf_free(&p->own_head);
    p->own_head = BUF_MAX(CONTAINER_MAX);
    world_head(p->world, &(struct world_head){.sequence = LED}, &p->own_head);
    p->own = (struct cp_head_own){.epoch = p->world->epoch,
                                  .sequence = LED,
                                  .version_max = p->world->versions[VERSION_LATER]->number};
    MUST(container_read(buf_slice(&p->own_head), CONTAINER_HEAD, NULL, &c));
    container_body_digest(&c, p->own.digest);
}

/* ---- proposals ---- */

static struct manifest_plan plan_of(const struct version *v)
{
    return (struct manifest_plan){.version = v->number,
                                  .capabilities = CAPABILITY_REVOCATIONS,
                                  .streams = v->streams,
                                  .stream_count = v->stream_count};
}

static enum err_code replica_judges(const struct plane *p, struct slice body)
{
    auto_buf struct buf sentence = BUF_MAX(4096);
    struct manifest_plan mine = plan_of(p->world->versions[VERSION_NEXT]);
    return cp_cosign_agree(body, &mine, &sentence).code;
}

static struct buf *body_input(struct trial *t)
{
    struct buf *b = trial_input(t, "proposal");
    *b = BUF_MAX(MANIFEST_BODY_MAX);
    return b;
}

/* Whatever the leader's bytes are: what they say must be what this replica made, and their time and
 * the names of stored chunks alone are the leader's word. */
static void proposal_changed(struct trial *t)
{
    const struct version *next = t->world->versions[VERSION_NEXT];
    struct buf *b = body_input(t);
    MUST(buf_add(b, buf_slice(&next->body)));
    if (dice_below(&t->dice, 4) == 0) { /* the version is at its front, under no digest. */
        flip(t, b->ptr, 3);
    } else {
        bytes_change(&t->dice, b);
    }
    Trilane__Snapshot__V1__Manifest *before =
        trilane__snapshot__v1__manifest__unpack(NULL, next->body.size, next->body.ptr);
    Trilane__Snapshot__V1__Manifest *now =
        trilane__snapshot__v1__manifest__unpack(NULL, b->size, b->ptr);
    CHECK(before != NULL);
    t->got = replica_judges(t->plane, buf_slice(b));
    bool leaders_word = now != NULL && now->n_streams == before->n_streams;
    if (leaders_word && t->got == E_OK) { /* then it must say the same once these are put back. */
        now->made_at_ms = before->made_at_ms;
        for (size_t i = 0; i < now->n_streams; i++) {
            Trilane__Snapshot__V1__Stream *s = now->streams[i];
            const Trilane__Snapshot__V1__Stream *from = before->streams[i];
            leaders_word = leaders_word && s->n_stored_sizes == from->n_stored_sizes &&
                           s->chunk_digests.len == from->chunk_digests.len;
            if (leaders_word) {
                memcpy(s->chunk_digests.data, from->chunk_digests.data, from->chunk_digests.len);
                memcpy(s->stored_sizes, from->stored_sizes, from->n_stored_sizes * 4);
            }
        }
        auto_buf struct buf again = BUF_MAX(MANIFEST_BODY_MAX);
        MUST(proto_encode(&now->base, &again));
        t->idle = leaders_word && slice_eq(buf_slice(&again), buf_slice(&next->body));
    }
    trilane__snapshot__v1__manifest__free_unpacked(before, NULL);
    if (now != NULL) {
        trilane__snapshot__v1__manifest__free_unpacked(now, NULL);
    }
}

/* Another content, version, order of streams, capability or format, in a whole manifest. */
static void proposal_of_another_content(struct trial *t)
{
    const struct world *w = t->world;
    size_t from = (size_t)dice_below(&t->dice, WORLD_VERSIONS);
    struct cut_stream streams[STREAMS_MAX];
    struct manifest_plan plan = plan_of(w->versions[from]);
    memcpy(streams, plan.streams, plan.stream_count * sizeof(streams[0]));
    plan.streams = streams;
    plan.version = w->versions[VERSION_NEXT]->number;
    if (from == VERSION_NEXT) {
        switch (dice_below(&t->dice, 4)) {
        case 0:
            plan.version += dice_even(&t->dice) ? 1 : UINT64_MAX;
            break;
        case 1:
            plan.capabilities ^= UINT64_C(1) << dice_below(&t->dice, 64);
            break;
        case 2:
            plan.stream_count -= (size_t)dice_between(&t->dice, 1, plan.stream_count);
            break;
        default:
            streams[dice_below(&t->dice, plan.stream_count)].format++;
        }
    }
    struct buf *b = body_input(t);
    MUST(manifest_encode(&plan, b));
    t->got = replica_judges(t->plane, buf_slice(b));
}

/* ---- signatures under a proposal ---- */

static struct {
    struct root root;
    struct cp_cosignature found[CP_COSIGNATURES_MAX];
    size_t count;
} gathering;

void __wrap_cp_roots_now(struct cp_roots *roots, struct root *out);
void __wrap_cp_roots_now(struct cp_roots *roots, struct root *out)
{
    (void)roots;
    *out = gathering.root;
}

struct err __wrap_cp_leader_fence(struct cp_leader *leader, struct cp_fence *out);
struct err __wrap_cp_leader_fence(struct cp_leader *leader, struct cp_fence *out)
{
    (void)leader;
    *out = (struct cp_fence){.epoch = 1};
    return OK;
}

/* Who writes to the database may leave any rows beside a proposal. */
static struct err list_cosignatures(struct cp_store *store, const char *environment,
                                    uint64_t version, struct cp_cosignature *out, size_t *out_count)
{
    (void)store;
    (void)environment;
    (void)version;
    memcpy(out, gathering.found, sizeof(gathering.found));
    *out_count = gathering.count;
    return OK;
}

/* Who waits for what does not come waits for the whole time. */
static struct err gather(const struct plane *p, uint64_t wait_ms, struct buf *out)
{
    static const struct cp_store_ops ops = {.cosign_list = list_cosignatures};
    struct cp_store store = {.ops = &ops};
    const struct world *w = p->world;
    const struct version *next = w->versions[VERSION_NEXT];
    struct cp_publish_room room = {.environment = w->environment, .store = &store};
    struct cp_cosign cosign = {
        .version = next->number, .body = buf_slice(&next->body), .wait_ms = wait_ms};
    auto_buf struct buf signers = BUF_MAX(4096);
    auto_buf struct buf sentence = BUF_MAX(4096);
    gathering.root = w->roots[ROOT_NOW];
    MUST(container_sign(CONTAINER_MANIFEST, w->environment_id, cosign.body,
                        world_key(w, KEY_ROLE_MANIFEST, 0), &cosign.own));
    return cp_cosign_gather(&room, &cosign, out, &signers, &sentence);
}

static void add_cosignature(const struct world *w, enum container_kind kind, struct slice body,
                            const struct key_pair *key)
{
    struct container_signature s;
    struct cp_cosignature *c = &gathering.found[gathering.count++];
    MUST(container_sign(kind, w->environment_id, body, key, &s));
    *c = (struct cp_cosignature){.code = E_OK};
    memcpy(c->key_id, s.key_id, sizeof(c->key_id));
    memcpy(c->signature, s.signature, sizeof(c->signature));
}

/* As many rows as a root may have keys, and none of them counts. */
static void cosigned_by_nobody(struct trial *t)
{
    const struct world *w = t->world;
    const struct version *next = w->versions[VERSION_NEXT];
    struct slice body = buf_slice(&next->body);
    const struct key_pair *others[] = {
        &w->keys[KEY_ROLE_MANIFEST][ROOT_BEFORE], &w->keys[KEY_ROLE_MANIFEST][w->threshold + 2],
        world_key(w, KEY_ROLE_HEAD, 0), world_key(w, KEY_ROLE_ROOT, 0), &w->stranger};
    const struct key_pair *second = world_key(w, KEY_ROLE_MANIFEST, w->threshold == 1 ? 0 : 1);
    t->idle = w->threshold == 1; /* the leader's own is enough. */
    if (t->idle) {
        return;
    }
    gathering.count = 0;
    for (uint64_t n = dice_between(&t->dice, 1, 8); n > 0; n--) {
        switch (dice_below(&t->dice, 5)) {
        case 0: /* the leader's own again. */
            add_cosignature(w, CONTAINER_MANIFEST, body, world_key(w, KEY_ROLE_MANIFEST, 0));
            break;
        case 1: /* of another body. */
            add_cosignature(w, CONTAINER_MANIFEST, buf_slice(&w->versions[VERSION_LATER]->body),
                            second);
            break;
        case 2: /* made for another kind. */
            add_cosignature(w, CONTAINER_HEAD, body, second);
            break;
        case 3: /* with a bit flipped. */
            add_cosignature(w, CONTAINER_MANIFEST, body, second);
            gathering.found[gathering.count - 1].signature[dice_below(&t->dice, 64)] ^=
                (uint8_t)(1U << dice_below(&t->dice, 8));
            break;
        default:
            add_cosignature(w, CONTAINER_MANIFEST, body, others[dice_below(&t->dice, 5)]);
        }
    }
    struct buf *sealed = trial_input(t, "manifest");
    *sealed = BUF_MAX((size_t)2 * MANIFEST_BODY_MAX);
    t->got = gather(t->plane, /* wait_ms= */ 1, sealed).code;
}

static void proposal_control(struct plane *p)
{
    const struct world *w = p->world;
    struct slice body = buf_slice(&w->versions[VERSION_NEXT]->body);
    auto_buf struct buf sealed = BUF_MAX((size_t)2 * MANIFEST_BODY_MAX);
    struct manifest_wanted wanted = {.digest = w->versions[VERSION_NEXT]->digest};
    auto_manifest struct manifest opened = {0};
    gathering.count = 0;
    for (size_t i = 0; i < w->threshold; i++) {
        add_cosignature(w, CONTAINER_MANIFEST, body, world_key(w, KEY_ROLE_MANIFEST, i));
    }
    if (replica_judges(p, body) != E_OK || !err_ok(gather(p, /* wait_ms= */ 60000, &sealed)) ||
        !err_ok(manifest_open(buf_slice(&sealed), &w->roots[ROOT_NOW], &wanted, &opened))) {
        not_taken(p, "the valid proposal");
    }
}

/* ---- the signer's numbers ---- */

static void digest_of(uint64_t number, uint8_t out[DIGEST_SIZE])
{
    ids_digest(slice_of(&number, sizeof(number)), out);
}

/* A number that was signed before, or the same with another body. */
static void signer_asked_again(struct trial *t)
{
    struct signer_state *s = &t->plane->signer;
    struct signer_state before;
    uint8_t digest[DIGEST_SIZE];
    bool write = false;
    memcpy(&before, s, sizeof(before));
    digest_of(dice_next(&t->dice), digest);
    if (dice_even(&t->dice)) {
        uint64_t version = dice_below(&t->dice, s->version + 1);
        t->got = signer_state_manifest(s, version, digest, &write).code;
    } else {
        uint64_t epoch = dice_below(&t->dice, s->epoch + 1);
        uint64_t sequence = dice_below(&t->dice, s->sequence + 1);
        t->got = signer_state_head(s, epoch, sequence, digest, &write).code;
    }
    /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): copies of one place. */
    if (memcmp(&before, s, sizeof(before)) != 0) {
        trial_fail(t, "the signer's state changed");
    }
}

static void signer_control(struct plane *p)
{
    struct signer_state *s = &p->signer;
    uint8_t digest[DIGEST_SIZE];
    bool write = false;
    digest_of(s->version + 1, digest);
    MUST(signer_state_manifest(s, s->version + 1, digest, &write));
    MUST(signer_state_head(s, p->world->epoch, s->sequence + 1, digest, &write));
}

/* ---- joining ---- */

static void invite(struct plane *p, const char *node, struct joiner *j)
{
    auto_buf struct buf message = BUF_MAX(1024);
    auto_buf struct buf text = BUF_MAX(JOIN_TOKEN_MAX);
    int64_t expires_ms = 0;
    struct cp_invitation invitation = {
        .node = node, .labels = "zone=eu-1", .sans = "", .author = "ada", .ttl_ms = TOKEN_DAYS_MS};
    MUST(cp_registrar_invite(p->registrar, p->store, &invitation, &text, &expires_ms, &message));
    MUST(join_token_parse(buf_slice(&text), &j->token));
    MUST(key_pair_new(KEY_ROLE_NODE, slice_str(node), &j->status));
    MUST(net_key_new(&j->key));
    j->csr = BUF_MAX(NET_CSR_MAX);
    MUST(net_csr_make(j->key, &j->csr));
}

static void joiner_free(struct joiner *j)
{
    net_key_free(&j->key);
    buf_free(&j->csr);
}

static void prove_join(const struct plane *p, const struct joiner *j, struct cp_join_request *r)
{
    uint8_t digest[DIGEST_SIZE];
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    join_token_digest(&r->token, digest);
    struct join_statement s = {.environment = p->world->environment_id,
                               .token = digest,
                               .node = slice_str(r->token.node),
                               .csr = r->csr};
    MUST(join_statement(&s, &statement));
    key_sign(&j->status, buf_slice(&statement), r->proof);
    memcpy(r->status_key, j->status.public.bytes, KEY_PUBLIC_SIZE);
}

static struct cp_join_request join_request(const struct plane *p, const struct joiner *j)
{
    struct cp_join_request r = {.token = j->token, .csr = buf_slice(&j->csr)};
    prove_join(p, j, &r);
    return r;
}

static enum err_code send_join(struct plane *p, const struct cp_join_request *r)
{
    struct cp_admission admission;
    auto_buf struct buf message = BUF_MAX(1024);
    struct err e = cp_registrar_join(p->registrar, p->store, r, &admission, &message);
    if (err_ok(e)) {
        cp_admission_free(&admission);
    }
    return e.code;
}

static uint64_t member_count(struct plane *p, const char *node)
{
    struct cp_node row;
    MUST(p->store->ops->node_get(p->store, p->world->environment, node, &row));
    return net_serial_count(row.serial);
}

/* The guest must stay outside, and its token must stay good. */
static void judge_join(struct trial *t, const struct cp_join_request *r)
{
    struct plane *p = t->plane;
    struct cp_node row;
    struct cp_join_token token;
    uint8_t digest[DIGEST_SIZE];
    t->got = send_join(p, r);
    join_token_digest(&p->joiners[GUEST].token, digest);
    if (p->store->ops->node_get(p->store, p->world->environment, "guest", &row).code !=
            E_NOT_FOUND ||
        !err_ok(p->store->ops->token_get(p->store, p->world->environment, digest, &token))) {
        trial_fail(t, "the guest is in, or its token is used up");
    }
}

/* The token of nobody, of another environment, of another name, one that is over, or was used. */
static void join_by_another_token(struct trial *t)
{
    struct plane *p = t->plane;
    struct joiner *guest = &p->joiners[GUEST];
    struct cp_join_request r = join_request(p, guest);
    static const enum err_code codes[] = {E_TOKEN_UNKNOWN, E_TOKEN_MISMATCH, E_TOKEN_MISMATCH,
                                          E_TOKEN_EXPIRED, E_TOKEN_USED};
    size_t which = (size_t)dice_below(&t->dice, 5);
    if (which == 0) {
        flip(t, r.token.secret, JOIN_SECRET_SIZE);
    } else if (which == 1) {
        (void)snprintf(r.token.environment, sizeof(r.token.environment), "elsewhere");
    } else if (which == 2) {
        (void)snprintf(r.token.node, sizeof(r.token.node), "member");
    } else {
        r.token = which == 3 ? p->expired : p->joiners[MEMBER].token;
    }
    prove_join(p, guest, &r);
    t->wanted = codes[which];
    judge_join(t, &r);
}

/* Whatever is done to the text that a person carries to a node. Its pin is the node's to ask. */
static void join_token_changed(struct trial *t)
{
    struct plane *p = t->plane;
    struct joiner *guest = &p->joiners[GUEST];
    struct buf *text = trial_input(t, "token");
    struct join_token token;
    *text = BUF_MAX((size_t)2 * JOIN_TOKEN_MAX);
    MUST(join_token_print(&guest->token, text));
    if (dice_even(&t->dice)) { /* a digit for a digit, so that it may be one still. */
        static const char digits[] = "0123456789abcdef-";
        text->ptr[dice_below(&t->dice, text->size)] = (uint8_t)digits[dice_below(&t->dice, 17)];
    } else if (dice_even(&t->dice)) {
        bytes_change(&t->dice, text);
    } else {
        bytes_resize(&t->dice, text);
    }
    t->got = join_token_parse(buf_slice(text), &token).code;
    if (t->got != E_OK) {
        return;
    }
    t->idle = memcmp(token.secret, guest->token.secret, JOIN_SECRET_SIZE) == 0 &&
              strcmp(token.node, guest->token.node) == 0 &&
              strcmp(token.environment, guest->token.environment) == 0;
    if (!t->idle) {
        struct cp_join_request r = {.token = token, .csr = buf_slice(&guest->csr)};
        prove_join(p, guest, &r);
        judge_join(t, &r);
    }
}

/* What the proof covers is other than what was proved. */
static void join_unproved(struct trial *t)
{
    struct plane *p = t->plane;
    struct joiner *guest = &p->joiners[GUEST];
    struct cp_join_request r = join_request(p, guest);
    struct cp_join_request other = join_request(p, &p->joiners[MEMBER]);
    switch (dice_below(&t->dice, 5)) {
    case 0:
        flip(t, r.proof, sizeof(r.proof));
        break;
    case 1:
        flip(t, r.status_key, sizeof(r.status_key));
        break;
    case 2:
        r.csr = other.csr;
        break;
    case 3:
        memcpy(r.proof, other.proof, sizeof(r.proof));
        break;
    default:
        memcpy(r.status_key, other.status_key, sizeof(r.status_key));
    }
    judge_join(t, &r);
}

/* A request that is proved, and that its own key did not sign as it is. */
static void join_request_changed(struct trial *t)
{
    struct plane *p = t->plane;
    struct joiner *guest = &p->joiners[GUEST];
    struct buf *csr = trial_input(t, "csr");
    struct slice begin = SLICE_LIT("-----BEGIN CERTIFICATE REQUEST-----\n");
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    *csr = BUF_MAX(NET_CSR_MAX);
    MUST(buf_add(csr, buf_slice(&guest->csr)));
    size_t at = 0;
    do { /* ends: most of it is digits. The last ones may hold bits that mean nothing. */
        at = (size_t)dice_between(&t->dice, begin.size, csr->size - 48);
    } while (csr->ptr[at] == '\n');
    uint8_t digit = (uint8_t)digits[dice_below(&t->dice, 64)];
    t->idle = digit == csr->ptr[at];
    if (t->idle) {
        return;
    }
    csr->ptr[at] = digit;
    struct cp_join_request r = {.token = guest->token, .csr = buf_slice(csr)};
    prove_join(p, guest, &r);
    judge_join(t, &r);
}

/* ---- renewing ---- */

struct renewal {
    unsigned of;
    int64_t at_ms;
    uint64_t count;
    const uint8_t *environment; /* NULL: ours. */
    const char *node;           /* that is signed; NULL: its own. */
};

static struct cp_renew_request renew_request(const struct plane *p, const struct renewal *n)
{
    const struct joiner *j = &p->joiners[n->of];
    struct cp_renew_request r = {.node = j->status.public.name,
                                 .csr = buf_slice(&j->csr),
                                 .at_ms = n->at_ms,
                                 .count = n->count};
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    struct renew_statement s = {.environment = n->environment == NULL ? p->world->environment_id
                                                                      : n->environment,
                                .node = slice_str(n->node == NULL ? r.node : n->node),
                                .csr = r.csr,
                                .at_ms = n->at_ms,
                                .count = n->count};
    MUST(renew_statement(&s, &statement));
    key_sign(&j->status, buf_slice(&statement), r.proof);
    return r;
}

static enum err_code send_renewal(struct plane *p, const struct cp_renew_request *r)
{
    struct cp_admission admission;
    auto_buf struct buf message = BUF_MAX(1024);
    struct err e = cp_registrar_renew(p->registrar, p->store, r, &admission, &message);
    if (err_ok(e)) {
        cp_admission_free(&admission);
    }
    return e.code;
}

static void judge_renewal(struct trial *t, const struct cp_renew_request *r)
{
    struct plane *p = t->plane;
    t->got = send_renewal(p, r);
    if (member_count(p, "member") != p->joiners[MEMBER].count) {
        trial_fail(t, "the member has another certificate");
    }
}

static void renewal_replayed(struct trial *t)
{
    struct plane *p = t->plane;
    uint64_t count = p->joiners[MEMBER].count;
    uint64_t which = dice_below(&t->dice, 3); /* the present one, an older one, no count. */
    if (which == 1) {
        count = dice_between(&t->dice, 1, count);
    } else if (which == 2) {
        count = (UINT64_C(1) << NET_SERIAL_COUNT_BITS) + dice_below(&t->dice, UINT64_C(1) << 50);
    }
    struct renewal n = {.of = MEMBER, .at_ms = clock_wall_ms(), .count = count};
    struct cp_renew_request r = renew_request(p, &n);
    judge_renewal(t, &r);
}

static void renewal_of_another_time(struct trial *t)
{
    struct plane *p = t->plane;
    int64_t off_ms = 60000 + (int64_t)dice_below(&t->dice, INT64_C(400) * 86400000);
    struct renewal n = {.of = MEMBER,
                        .at_ms = clock_wall_ms() + (dice_even(&t->dice) ? off_ms : -off_ms),
                        .count = p->joiners[MEMBER].count + 1};
    struct cp_renew_request r = renew_request(p, &n);
    judge_renewal(t, &r);
}

static void renewal_unproved(struct trial *t)
{
    struct plane *p = t->plane;
    uint8_t elsewhere[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT("elsewhere"), elsewhere);
    struct renewal n = {
        .of = MEMBER, .at_ms = clock_wall_ms(), .count = p->joiners[MEMBER].count + 1};
    uint64_t which = dice_below(&t->dice, 8);
    n.environment = which == 0 ? elsewhere : NULL;
    n.node = which == 1 ? "removed" : NULL;
    n.of = which == 2 ? GUEST : MEMBER;
    struct cp_renew_request r = renew_request(p, &n);
    r.node = which == 3 ? "nobody" : "member";
    r.count += which == 4 ? 1 : 0;
    r.at_ms += which == 5 ? 1 : 0;
    r.csr = which == 6 ? buf_slice(&p->joiners[GUEST].csr) : r.csr;
    if (which == 7) {
        flip(t, r.proof, sizeof(r.proof));
    }
    trial_says(t, "renewal %d", (int)which);
    judge_renewal(t, &r);
}

static void renewal_of_a_removed_node(struct trial *t)
{
    struct plane *p = t->plane;
    struct renewal n = {.of = REMOVED_MEMBER,
                        .at_ms = clock_wall_ms(),
                        .count =
                            p->joiners[REMOVED_MEMBER].count + dice_between(&t->dice, 1, 1 << 20)};
    struct cp_renew_request r = renew_request(p, &n);
    judge_renewal(t, &r);
}

/* ---- rows that no replica wrote ---- */

/* A token's row that was vouched for as another one: whoever has that token stays outside. */
static void row_token_changed(struct trial *t)
{
    struct plane *p = t->plane;
    struct joiner *guest = &p->joiners[GUEST];
    struct cp_join_token row = {.expires_ms = clock_wall_ms() + 60000, .labels = "zone=a"};
    struct cp_join_request r = join_request(p, guest);
    for (size_t i = 0; i < JOIN_SECRET_SIZE; i++) {
        r.token.secret[i] = (uint8_t)dice_next(&t->dice);
    }
    join_token_digest(&r.token, row.digest);
    (void)snprintf(row.node, sizeof(row.node), "%s", dice_even(&t->dice) ? "guest" : "member");
    cp_vouch_token(vouch_key, p->world->environment, &row, row.warrant);
    switch (strcmp(row.node, "guest") != 0 ? 0 : dice_below(&t->dice, 4)) {
    case 0:
        (void)snprintf(row.node, sizeof(row.node), "guest");
        row.expires_ms++;
        break;
    case 1:
        row.labels[dice_below(&t->dice, strlen(row.labels))] = 'b';
        break;
    case 2:
        row.expires_ms += (int64_t)dice_between(&t->dice, 1, 1U << 30);
        break;
    default:
        flip(t, row.warrant, sizeof(row.warrant));
    }
    MUST(p->store->ops->token_put(p->store, p->world->environment, &row));
    prove_join(p, guest, &r);
    judge_join(t, &r);
}

/* The certificate of a node's row is changed, cut short, or another node's. */
static void row_certificate_changed(struct trial *t)
{
    struct plane *p = t->plane;
    const struct cp_store_ops *ops = p->store->ops;
    const char *environment = p->world->environment;
    struct cp_node row;
    MUST(ops->node_get(p->store, environment, "member", &row));
    struct cp_node bad = row;
    uint64_t which = dice_below(&t->dice, 3);
    if (which == 0) {
        bad.certificate_size = (size_t)dice_below(&t->dice, row.certificate_size);
    } else if (which == 1) {
        MUST(ops->node_get(p->store, environment, "removed", &bad));
        (void)snprintf(bad.id, sizeof(bad.id), "member");
    } else {
        flip(t, bad.certificate, row.certificate_size);
    }
    (void)memcpy(bad.serial, row.serial, sizeof(bad.serial));
    MUST(ops->node_renew(p->store, environment, &bad));
    struct renewal n = {
        .of = MEMBER, .at_ms = clock_wall_ms(), .count = p->joiners[MEMBER].count + 1};
    struct cp_renew_request r = renew_request(p, &n);
    judge_renewal(t, &r);
    MUST(ops->node_renew(p->store, environment, &row));
}

static void join_control(struct plane *p)
{
    struct joiner other = {.count = 0};
    invite(p, "another", &other);
    struct cp_join_request r = join_request(p, &other);
    if (send_join(p, &r) != E_OK) {
        not_taken(p, "the valid join");
    }
    joiner_free(&other);
    struct renewal n = {
        .of = MEMBER, .at_ms = clock_wall_ms(), .count = p->joiners[MEMBER].count + 1};
    struct cp_renew_request renewal = renew_request(p, &n);
    if (send_renewal(p, &renewal) != E_OK) {
        not_taken(p, "the valid renewal");
    }
    p->joiners[MEMBER].count = member_count(p, "member");
}

/* A token whose time is over before it was used. */
static void expire_one(struct plane *p)
{
    struct cp_join_token row = {.expires_ms = clock_wall_ms() - 60000};
    p->expired = p->joiners[GUEST].token;
    memset(p->expired.secret, 0x5a, sizeof(p->expired.secret));
    join_token_digest(&p->expired, row.digest);
    (void)snprintf(row.node, sizeof(row.node), "guest");
    MUST(p->store->ops->token_put(p->store, p->world->environment, &row));
}

static void begin_registrar(struct plane *p)
{
    static const char *const names[JOINERS] = {"guest", "member", "removed"};
    char program[PATH_SIZE];
    char ca[PATH_SIZE + 8];
    char url[PATH_SIZE + 32];
    auto_buf struct buf message = BUF_MAX(1024);
    (void)snprintf(ca, sizeof(ca), "%s/ca", p->directory);
    (void)snprintf(url, sizeof(url), "sqlite:%s/store.db", p->directory);
    MUST(cp_ca_init(ca, "platform.test", &message));
    MUST(cp_store_open(url, &p->store, &message));
    const char *build = getenv("TRILANE_BUILD_DIR");
    (void)snprintf(program, sizeof(program), "%s/trilane-cp", build == NULL ? "." : build);
    struct cp_certifier_options certifier = {.program = program, .ca = ca};
    MUST(cp_certifier_start(&certifier, &p->certifier, &message));
    struct cp_registrar_options options = {.environment = p->world->environment,
                                           .certifier = p->certifier,
                                           .attestor = &cp_attest_token,
                                           .vouch_key = vouch_key};
    MUST(cp_registrar_new(&options, &p->registrar));
    for (size_t i = 0; i < JOINERS; i++) {
        struct joiner *j = &p->joiners[i];
        invite(p, names[i], j);
        if (i != GUEST) {
            struct cp_join_request r = join_request(p, j);
            CHECK(send_join(p, &r) == E_OK);
            j->count = member_count(p, names[i]);
        }
    }
    struct cp_departure departure;
    const struct cp_removing removing = {.node = "removed", .author = "ada"};
    MUST(cp_registrar_remove(p->registrar, p->store, &removing, &departure, &message));
    expire_one(p);
}

/* ---- backups ---- */

static void begin_backup(struct plane *p)
{
    enum { BACKUP_MAX = 64 << 20 };
    char url[PATH_SIZE + 32];
    auto_buf struct buf message = BUF_MAX(1024);
    auto_close int fd = memfd_create("backup", MFD_CLOEXEC);
    uint8_t *room = NULL;
    CHECK(fd >= 0);
    MUST(p->store->ops->backup(p->store, fd));
    off_t size = lseek(fd, 0, SEEK_END);
    CHECK(size > 0);
    p->backup = BUF_MAX(BACKUP_MAX);
    MUST(buf_reserve(&p->backup, (size_t)size, &room));
    CHECK(pread(fd, room, (size_t)size, 0) == size);
    buf_commit(&p->backup, (size_t)size);
    (void)snprintf(url, sizeof(url), "sqlite:%s/empty.db", p->directory);
    MUST(cp_store_open(url, &p->empty, &message));
}

struct slice plane_backup(struct plane *p)
{
    return buf_slice(&p->backup);
}

enum err_code plane_restore(struct plane *p, int fd)
{
    return p->empty->ops->restore(p->empty, fd).code;
}

/* What was refused left the database empty: the backup still fits in. */
static void backup_control(struct plane *p)
{
    auto_close int fd = memfd_create("backup", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, p->backup.ptr, p->backup.size) == (ssize_t)p->backup.size);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    if (plane_restore(p, fd) != E_OK) {
        not_taken(p, "the valid backup");
    }
}

/* ---- a plane ---- */

struct plane *plane_new(const char *directory)
{
    struct plane *p = calloc(1, sizeof(*p));
    CHECK(p != NULL);
    (void)snprintf(p->directory, sizeof(p->directory), "%s", directory);
    return p;
}

void plane_free(struct plane *p)
{
    cp_roll_free(p->roll);
    if (p->registrar != NULL) {
        backup_control(p);
        cp_registrar_free(p->registrar);
        cp_certifier_stop(p->certifier);
        cp_store_close(p->store);
        cp_store_close(p->empty);
    }
    for (size_t i = 0; i < JOINERS; i++) {
        joiner_free(&p->joiners[i]);
    }
    buf_free(&p->own_head);
    buf_free(&p->backup);
    free(p);
}

void plane_begin(struct plane *p, struct world *w)
{
    p->world = w;
    if (p->roll == NULL) {
        begin_roll(p);
        begin_registrar(p);
        begin_backup(p);
    }
    begin_leader(p);
    (void)plane_controls(p);
    join_control(p);
}

uint64_t plane_controls(struct plane *p)
{
    enum { CONTROLS = 4 };
    status_control(p);
    if (leader_judges(p, buf_slice(&p->own_head)) != E_OK) {
        not_taken(p, "the leader's own head");
    }
    proposal_control(p);
    signer_control(p);
    return CONTROLS;
}

const struct trial_kind plane_kinds[] = {
    {"status.changed", status_changed, 50, {E_MALFORMED, E_UNAUTHENTICATED}},
    {"status.resized", status_resized, 10, {E_MALFORMED}},
    {"status.reframed", status_reframed, 20, {E_UNAUTHENTICATED}},
    {"status.replayed", status_replayed, 20, {E_CONFLICT}},
    {"status.of_another_time", status_of_another_time, 10, {E_CLOCK_SKEW}},
    {"status.of_another", status_of_another, 20, {E_UNAUTHENTICATED, E_MALFORMED}},
    {"status.of_a_removed_node", status_of_a_removed_node, 5, {E_NODE_REMOVED}},
    {"leader.head_changed", leader_head_changed, 40, {E_HEAD_MALFORMED, E_HEAD_UNSIGNED}},
    {"leader.head_foreign",
     leader_head_foreign,
     20,
     {E_HEAD_REPLAYED, E_HEAD_EQUIVOCATION, E_EPOCH_JUMP, E_STORE_BEHIND, E_HEAD_UNSIGNED}},
    {"proposal.changed",
     proposal_changed,
     20,
     {E_COSIGN_REFUSED, E_MANIFEST_MALFORMED, E_CAPABILITY_MISSING}},
    {"proposal.of_another_content", proposal_of_another_content, 20, {E_COSIGN_REFUSED}},
    {"proposal.cosigned_by_nobody", cosigned_by_nobody, 4, {E_COSIGNERS_MISSING}},
    {"signer.asked_again", signer_asked_again, 20, {E_SIGNER_REFUSED}},
    {"join.by_another_token",
     join_by_another_token,
     4,
     {E_TOKEN_UNKNOWN, E_TOKEN_MISMATCH, E_TOKEN_EXPIRED, E_TOKEN_USED}},
    {"join.token_changed", join_token_changed, 5, {E_MALFORMED, E_TOKEN_UNKNOWN, E_TOKEN_MISMATCH}},
    {"join.unproved", join_unproved, 4, {E_UNAUTHENTICATED}},
    {"join.request_changed",
     join_request_changed,
     4,
     {E_UNAUTHENTICATED, E_MALFORMED, TRIAL_RARE, E_UNSUPPORTED}},
    {"renewal.replayed", renewal_replayed, 4, {E_RENEWAL_REPLAYED}},
    {"renewal.of_another_time", renewal_of_another_time, 4, {E_CLOCK_SKEW}},
    {"renewal.unproved", renewal_unproved, 8, {E_UNAUTHENTICATED}},
    {"renewal.of_a_removed_node", renewal_of_a_removed_node, 2, {E_NODE_REMOVED}},
    {"row.token_changed", row_token_changed, 2, {E_TOKEN_UNKNOWN}},
    {"row.certificate_changed", row_certificate_changed, 4, {E_CERTIFICATE_MISSING}},
    {.name = NULL},
};
