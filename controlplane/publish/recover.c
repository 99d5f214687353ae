/* recover: see recover.h. */
#include "controlplane/publish/recover.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/snapshot/head.h"
#include "common/snapshot/set.h"
#include "controlplane/identity/files.h"
#include "controlplane/publish/passage.h"
#include "controlplane/publish/revoked.h"
#include "controlplane/publish/sealed.h"

enum {
    CONTAINER_MAX = 1 << 20,
    FOUND_MAX = 8 << 20,
    ARENA_BLOCK = 256 << 10,
    AHEAD_MAX = 1 << 20, /* versions, above what we know of ourselves. */
};

/* A version that the bucket's head names. */
struct named {
    uint64_t version;
    uint8_t digest[DIGEST_SIZE];
};

struct recovery {
    struct cp_publish_room *room;
    struct cp_work *work;
    struct cp_fence fence;
    struct root root;            /* in force. */
    uint64_t newest;             /* publication in the journal; 0: none. */
    uint64_t latest;             /* row in the journal, signed or not; 0: none. */
    uint64_t highest;            /* that was seen anywhere: bucket, nodes, signer. */
    uint64_t served;             /* highest that a live node says it serves, of what is believed. */
    bool found;                  /* the bucket's head names a version above the journal's: */
    uint64_t version;            /* this one, */
    uint8_t digest[DIGEST_SIZE]; /* of this manifest. */
    struct named ahead[HEAD_TARGETS_MAX]; /* all of those that it names above. */
    size_t ahead_count;
    struct buf container;
    struct manifest manifest;
    struct snap_set *parts;
    struct snap_set *positions;
    struct arena kept; /* stored bytes. */
    struct cp_store_chunk *rows;
    size_t row_count;
};

/* ---- sent again ---- */

/* What a recovery publishes keeps its request's id, and no digest of what that was: it depends on
 * what was found. */
static struct err find_request(struct recovery *r, bool *out_found)
{
    static const uint8_t unknown[DIGEST_SIZE];
    struct cp_work *work = r->work;
    struct cp_record record;
    *out_found = false;
    if (work->request[0] == '\0') {
        return OK;
    }
    work->step = "base";
    struct err e = r->room->store->ops->find_request(r->room->store, r->room->environment,
                                                     work->request, &record);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    if (memcmp(record.request_digest, unknown, DIGEST_SIZE) != 0) {
        TRY(buf_addf(&work->sentence,
                     "the id of this request is that of version %" PRIu64
                     ", which no recovery published",
                     record.version));
        return FAIL(E_CONFLICT);
    }
    work->record = record;
    *out_found = true;
    return OK;
}

/* ---- what is there ---- */

static void see(struct recovery *r, uint64_t version)
{
    r->highest = version > r->highest ? version : r->highest;
}

/*
 * Numbers are used up for ever, so neither a head, for which one key is enough, nor a node makes
 * them jump: what is further ahead than publications are is for --above to say. Of nodes' words
 * such a one is left out.
 */
static void believe(struct recovery *r, uint64_t version)
{
    if (version > r->highest && version - r->highest > AHEAD_MAX) {
        LOG(LOG_WARN, "recover", "version_not_believed", LOG_U64("version", version),
            LOG_U64("highest", r->highest));
        return;
    }
    see(r, version);
}

static struct err take_head(struct recovery *r, struct slice bytes)
{
    struct container c;
    struct container_signers signers;
    auto_head struct head head = {0};
    TRY(container_read(bytes, CONTAINER_HEAD, r->root.environment_id, &c));
    TRY(container_verify(&c, &r->root.ring, KEY_ROLE_HEAD, &signers));
    TRY(head_decode(c.body, &head));
    for (uint32_t i = 0; i < head.target_count; i++) {
        const struct head_target *target = &head.targets[i];
        believe(r, target->version);
        if (target->version > r->newest) {
            struct named *named = &r->ahead[r->ahead_count++];
            named->version = target->version;
            (void)memcpy(named->digest, target->manifest_digest, sizeof(named->digest));
        }
        if (target->version > r->newest && target->version > r->version) {
            r->found = true;
            r->version = target->version;
            (void)memcpy(r->digest, target->manifest_digest, sizeof(r->digest));
        }
    }
    return OK;
}

static struct err look_at_bucket(struct recovery *r)
{
    auto_buf struct buf bytes = BUF_MAX(FOUND_MAX);
    struct kv_entry entry;
    TRY(kv_get(&r->room->bucket.kv, SLICE_LIT(SNAP_KEY_HEAD), KV_READ_LEADER,
               limits.fetch_timeout_ms, &bytes, &entry));
    if (entry.state != KV_VALUE) {
        return OK;
    }
    struct err e = take_head(r, buf_slice(&bytes));
    if (!err_ok(e) && e.code != E_NO_MEMORY) { /* not ours: nothing of it counts. */
        LOG(LOG_WARN, "recover", "head_not_ours", LOG_ERR(e));
        return OK;
    }
    return e;
}

/* Rows that nobody signed may stand above it, or in the place of what was lost. */
static struct err look_at_journal(struct recovery *r)
{
    struct cp_publish_room *room = r->room;
    const struct cp_sealed_place place = {room->roots, room->store, room->environment};
    struct err e = room->store->ops->latest(room->store, room->environment, &r->work->before);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    r->latest = r->work->before.version;
    e = cp_sealed_newest(&place, &r->work->before, /* container= */ NULL);
    if (e.code == E_NOT_FOUND) {
        TRY(buf_add_str(&r->work->sentence,
                        "no version of the journal is what a threshold of keys signed: restore a "
                        "backup, or have the files of --trust-root begin with an older root"));
        return FAIL(E_MANIFEST_UNSIGNED);
    }
    TRY(e);
    r->newest = r->work->before.version;
    return OK;
}

static struct err look(struct recovery *r)
{
    struct cp_publish_room *room = r->room;
    struct cp_fleet_order order;
    r->work->step = "look";
    cp_roots_now(room->roots, &r->root);
    TRY(look_at_journal(r));
    see(r, r->newest);
    see(r, cp_signer_hello(room->signer).version);
    see(r, r->work->above);
    TRY(look_at_bucket(r));
    (void)cp_fleet_wait_read(room->fleet, limits.fetch_timeout_ms);
    const struct cp_fleet_order most = {.version = r->highest + AHEAD_MAX};
    cp_fleet_order(room->fleet, &most, &order);
    see(r, order.version);
    r->served = order.version;
    return OK;
}

/* So that what is put in their place is the newest. */
static struct err drop_unsigned(struct recovery *r)
{
    struct cp_store *store = r->room->store;
    r->work->step = "journal";
    if (r->latest > r->newest) {
        LOG(LOG_WARN, "recover", "unsigned_rows_dropped", LOG_U64("above", r->newest),
            LOG_U64("newest", r->latest));
    }
    return store->ops->drop_above(store, &r->fence, r->newest, r->latest);
}

/* ---- adopting ---- */

static struct err get(struct recovery *r, const char *key, struct buf *out)
{
    struct kv_entry entry;
    TRY(kv_get(&r->room->bucket.kv, slice_str(key), KV_READ_LEADER, limits.fetch_timeout_ms, out,
               &entry));
    if (entry.state != KV_VALUE) {
        TRY(buf_addf(&r->work->sentence, "%s is not in the bucket", key));
        return FAIL(E_NOT_FOUND);
    }
    return OK;
}

static struct err read_manifest(struct recovery *r)
{
    char key[SNAP_KEY_SIZE];
    r->work->step = "manifest";
    snap_key_manifest(r->version, r->digest, key);
    TRY(get(r, key, &r->container));
    struct manifest_wanted wanted = {.version = r->version, .digest = r->digest};
    return manifest_open(buf_slice(&r->container), &r->root, &wanted, &r->manifest);
}

static struct err read_chunk(struct recovery *r, struct snap_set *set,
                             const struct chunk_name *name, struct cp_store_chunk *out)
{
    auto_buf struct buf stored = BUF_MAX(CHUNK_RAW_MAX);
    char key[SNAP_KEY_SIZE];
    snap_key_chunk(name->digest, key);
    TRY(get(r, key, &stored));
    TRY(snap_set_add(set, name, buf_slice(&stored)));
    auto_free uint8_t *bytes = malloc(name->raw_size + 1U);
    if (bytes == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(chunk_open(buf_slice(&stored), name, bytes, out->raw_digest));
    (void)memcpy(out->stored_digest, name->digest, sizeof(out->stored_digest));
    out->raw_size = name->raw_size;
    return arena_dup(&r->kept, buf_slice(&stored), &out->stored);
}

static size_t chunk_total(const struct manifest *m)
{
    size_t total = 0;
    for (size_t i = 0; i < m->stream_count; i++) {
        total += m->streams[i].chunk_count;
    }
    return total;
}

static struct err read_chunks(struct recovery *r)
{
    r->work->step = "chunks";
    r->rows = calloc(chunk_total(&r->manifest) + 1, sizeof(*r->rows));
    if (r->rows == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(snap_set_new(&r->manifest, /* previous= */ NULL, &r->parts));
    TRY(snap_set_new_positions(&r->manifest, /* previous= */ NULL, &r->positions));
    for (size_t i = 0; i < r->manifest.stream_count; i++) {
        const struct manifest_stream *stream = &r->manifest.streams[i];
        struct snap_set *set = stream->kind == STREAM_POSITIONS ? r->positions : r->parts;
        for (size_t k = 0; k < stream->chunk_count; k++) {
            struct chunk_name name = manifest_chunk(stream, k);
            TRY(read_chunk(r, set, &name, &r->rows[r->row_count]));
            r->work->bytes_new += name.stored_size;
            r->row_count++;
        }
    }
    TRY(snap_set_close(r->parts));
    return snap_set_close(r->positions);
}

static struct err write_row(struct recovery *r)
{
    struct cp_publish_room *room = r->room;
    struct cp_work *work = r->work;
    work->step = "journal";
    struct cp_record *record = &work->record;
    *record = (struct cp_record){.version = r->version, .epoch = r->fence.epoch};
    (void)memcpy(record->manifest_digest, r->digest, sizeof(record->manifest_digest));
    (void)memcpy(record->content_digest, r->manifest.content_digest,
                 sizeof(record->content_digest));
    (void)memcpy(record->author, work->author, sizeof(record->author));
    (void)memcpy(record->message, work->message, sizeof(record->message));
    (void)memcpy(record->request, work->request, sizeof(record->request));
    for (size_t i = 0; i < r->manifest.stream_count; i++) {
        record->raw_size += r->manifest.streams[i].raw_size;
    }
    work->chunks = r->row_count;
    work->chunks_new = r->row_count;
    struct cp_publication publication = {.record = *record,
                                         .manifest = buf_slice(&r->container),
                                         .chunks = r->rows,
                                         .chunk_count = r->row_count};
    TRY(room->store->ops->version_raise(room->store, &r->fence, r->version));
    TRY(room->store->ops->publish(room->store, &r->fence, &publication));
    return room->store->ops->version_raise(room->store, &r->fence, r->highest);
}

static struct err adopt(struct recovery *r)
{
    if (!r->found) {
        TRY(buf_addf(&r->work->sentence,
                     "the bucket's head names no version above the journal's %" PRIu64, r->newest));
        return FAIL(E_NOT_FOUND);
    }
    if (r->served > r->version) { /* they would refuse what is adopted. */
        TRY(buf_addf(&r->work->sentence,
                     "nodes serve version %" PRIu64 ", which the bucket has lost, too: it names "
                     "version %" PRIu64 "; --give-up publishes above both",
                     r->served, r->version));
        return FAIL(E_NOT_FOUND);
    }
    TRY(read_manifest(r));
    TRY(read_chunks(r));
    TRY(drop_unsigned(r));
    TRY(write_row(r));
    cp_leader_wake(r->room->leader);
    return OK;
}

/* ---- giving it up ---- */

static struct err raise_number(struct recovery *r)
{
    r->work->step = "version";
    return r->room->store->ops->version_raise(r->room->store, &r->fence, r->highest);
}

/* An empty journal has nothing to point at instead: without the head it is no longer behind, and
 * the first publication gets a number above all. Nodes serve on meanwhile. */
static struct err remove_head(struct recovery *r)
{
    r->work->step = "head";
    TRY(kv_purge(&r->room->bucket.kv, SLICE_LIT(SNAP_KEY_HEAD), KV_ANY_REVISION,
                 limits.fetch_timeout_ms));
    cp_leader_give_up(r->room->leader);
    cp_leader_wake(r->room->leader);
    return OK;
}

/*
 * What a version revokes that is given up stays revoked. One whose manifest does not hold was never
 * published: nothing of it counts. What is signed and cannot be read is not passed over in silence.
 */
static struct err add_ahead(struct recovery *r, const struct named *named, struct cp_revoked *out)
{
    auto_manifest struct manifest manifest = {0};
    auto_buf struct buf container = BUF_MAX(CONTAINER_MAX);
    struct manifest_wanted wanted = {.version = named->version, .digest = named->digest};
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(named->version, named->digest, key);
    struct err e = get(r, key, &container);
    if (err_ok(e)) {
        e = manifest_open(buf_slice(&container), &r->root, &wanted, &manifest);
        if (e.code == E_MANIFEST_UNSIGNED || e.code == E_MANIFEST_WRONG_KEY) {
            LOG(LOG_WARN, "recover", "manifest_not_ours", LOG_ERR(e),
                LOG_U64("version", named->version));
            return OK;
        }
    }
    if (err_ok(e)) {
        e = cp_revoked_add_bucket(out, &r->room->bucket.kv, &manifest);
    }
    if (err_ok(e)) {
        return OK;
    }
    if (r->work->with_trust && r->work->target == named->version) {
        LOG(LOG_WARN, "recover", "revocations_given_up", LOG_ERR(e),
            LOG_U64("version", named->version));
        return OK;
    }
    buf_clear(&r->work->sentence);
    TRY(buf_addf(&r->work->sentence,
                 "what version %" PRIu64 " revoked cannot be read from the bucket (%s), and would "
                 "be taken again: --give-up --with-trust --yes-really %" PRIu64
                 " gives that up, too",
                 named->version, err_name(e.code), named->version));
    return e;
}

static struct err find_ahead(struct recovery *r, struct cp_revoked *out)
{
    r->work->step = "revocations";
    for (size_t i = 0; i < r->ahead_count; i++) {
        TRY(add_ahead(r, &r->ahead[i], out));
    }
    return OK;
}

static struct err print_revoked(const struct recovery *r, const struct cp_revoked *revoked,
                                struct buf *out)
{
    char name[64];
    char reason[128];
    (void)snprintf(name, sizeof(name), "given-up-%" PRIu64, r->highest);
    (void)snprintf(reason, sizeof(reason), "in force when version %" PRIu64 " was given up",
                   r->highest);
    return cp_revoked_print(revoked, name, reason, out);
}

/*
 * The sources of the journal's newest version, and a Revocation besides of all that is revoked in
 * it or in what is given up: so every replica makes the same of it, and people see it.
 */
static struct err take_sources(struct recovery *r, const struct cp_revoked *revoked)
{
    struct cp_publish_room *room = r->room;
    struct cp_source_set *sources = &r->work->sources;
    char name[64];
    auto_buf struct buf text = BUF_MAX(limits.source_file_bytes);
    (void)snprintf(name, sizeof(name), "given-up-%" PRIu64 ".yaml", r->highest);
    TRY(room->store->ops->sources_get(room->store, room->environment, r->newest,
                                      cp_passage_take_others, sources));
    if (sources->count == 0) {
        TRY(buf_addf(&r->work->sentence,
                     "what is given up revokes more than version %" PRIu64
                     ", whose sources are not here: recover without --give-up, then roll back to "
                     "%" PRIu64 ", which keeps what is revoked",
                     r->newest, r->newest));
        return FAIL(E_CONFLICT);
    }
    TRY(print_revoked(r, revoked, &text));
    return cp_source_set_add(sources, slice_str(name), buf_slice(&text));
}

/* Where there is nothing to publish, whoever publishes first finds it in a file. */
static struct err keep_beside(struct recovery *r, const struct cp_revoked *revoked)
{
    char path[CP_PATH_SIZE];
    auto_buf struct buf text = BUF_MAX(limits.source_file_bytes);
    if (revoked->count == 0) {
        return OK;
    }
    (void)snprintf(path, sizeof(path), "%s/given-up-%" PRIu64 ".yaml", r->room->directory,
                   r->highest);
    TRY(print_revoked(r, revoked, &text));
    struct err e = cp_file_write_new(path, buf_slice(&text));
    TRY(e.code == E_EXISTS ? OK : e);
    LOG(LOG_WARN, "recover", "revocations_kept", LOG_STR("file", path),
        LOG_U64("count", revoked->count));
    return OK;
}

/* Runs as a rollback, or as a publication; 'work' tells of it afterwards. */
static struct err run_as(struct recovery *r, enum cp_work_kind kind)
{
    r->work->kind = kind;
    r->work->recovers = true;
    cp_publish_run(r->room, r->work);
    r->work->kind = CP_WORK_RECOVER;
    return r->work->result;
}

/* The newest content of the journal under a number above all: as a rollback to it does, unless what
 * is given up revokes more. */
static struct err publish_newest(struct recovery *r, struct cp_revoked *ahead)
{
    const struct cp_sealed_place place = {r->room->roots, r->room->store, r->room->environment};
    auto_revoked struct cp_revoked newest;
    cp_revoked_init(&newest);
    TRY(cp_revoked_add_version(&newest, &place, r->newest));
    if (cp_revoked_has_all(&newest, ahead)) {
        r->work->target = r->newest;
        return run_as(r, CP_WORK_ROLLBACK);
    }
    TRY(cp_revoked_add_version(ahead, &place, r->newest));
    TRY(take_sources(r, ahead));
    LOG(LOG_WARN, "recover", "revocations_kept", LOG_U64("count", ahead->count),
        LOG_U64("version", r->newest));
    return run_as(r, CP_WORK_PUBLISH);
}

static struct err give_up(struct recovery *r)
{
    auto_revoked struct cp_revoked ahead;
    cp_revoked_init(&ahead);
    TRY(find_ahead(r, &ahead));
    TRY(r->newest == 0 ? keep_beside(r, &ahead) : OK);
    TRY(drop_unsigned(r));
    TRY(raise_number(r));
    return r->newest == 0 ? remove_head(r) : publish_newest(r, &ahead);
}

static void recovery_free(struct recovery *r)
{
    snap_set_unref(r->parts);
    snap_set_unref(r->positions);
    manifest_free(&r->manifest);
    buf_free(&r->container);
    arena_free(&r->kept);
    free(r->rows);
    free(r);
}

static struct err run(struct recovery *r)
{
    bool done = false;
    TRY(find_request(r, &done));
    if (done) {
        return OK;
    }
    r->work->step = "lead";
    TRY(cp_leader_fence(r->room->leader, &r->fence));
    TRY(look(r));
    return r->work->gives_up ? give_up(r) : adopt(r);
}

void cp_recover_run(struct cp_publish_room *room, struct cp_work *work)
{
    struct recovery *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        work->result = FAIL(E_NO_MEMORY);
        return;
    }
    *r = (struct recovery){.room = room, .work = work, .container = BUF_MAX(CONTAINER_MAX)};
    arena_init(&r->kept, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
    work->result = run(r);
    LOG(LOG_WARN, "recover", err_ok(work->result) ? "recovered" : "refused",
        LOG_U64("version", work->record.version), LOG_U64("highest_seen", r->highest),
        LOG_STR("step", work->step), LOG_ERR(work->result), LOG_STR("author", work->author));
    recovery_free(r);
}
