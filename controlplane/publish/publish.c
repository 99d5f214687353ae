/*
 * publish: a publication from its sources to the head that points at it. The functions follow in
 * the order of the table in publish.h; only run() decides what comes next.
 *
 * Before the journal row is committed nothing is published: what was put into KV by then is named
 * by no head, and the number that was handed out is never used again. From that commit on it is
 * published, whatever becomes of this process: the next leader's first beat signs the head.
 */
#include "controlplane/publish/publish.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "common/snapshot/manifest.h"
#include "controlplane/publish/check.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/reach.h"
#include "controlplane/publish/rollback.h"
#include "controlplane/publish/streams.h"

enum {
    HEAD_WAIT_MS = 5000,
    BUCKET_STEP_MS = 100,
    BUS_GRACE_MS = 1000,
    SENTENCE_MAX = 4096,
    TEXT_MAX = 16 << 20,
    CONTAINER_MAX = 1 << 20,
    ARENA_BLOCK = 256 << 10,
    MESSAGE_OVERHEAD = 256,   /* what a stream takes for a message beside its payload. */
    BUCKET_RESERVE = 1 << 20, /* of the bucket, which publications leave free. */
};

struct publication {
    struct cp_publish_room *room;
    struct cp_work *work;
    struct cp_fence fence;
    struct cp_prepared *prepared; /* compiled, and cut unless it must be cut anew; NULL: not yet,
                                     or it takes over another version's content. */
    bool found;                   /* 'prepared' was on the shelf. */
    struct cp_prepared *before;   /* of the newest publication; NULL: not at hand. */
    struct map before_chunks;     /* raw digests of its chunks to them. */
    struct cp_streams own;        /* what was taken over, or cut anew. */
    const struct cp_streams *cut; /* what is published: 'own', or of 'prepared'; NULL: not yet. */
    struct arena kept;            /* stored bytes of 'own'; raw digests that are known. */
    struct map known;             /* raw digests that the journal knows. */
    struct manifest newest;       /* of the newest publication; zero: none. */
    struct map newest_chunks;     /* names of its chunks. */
    struct buf body;              /* of the manifest. */
    struct cp_proposal proposal;  /* that is cosigned. */
    struct container_signature signature; /* this replica's. */
    bool proposed;                        /* 'proposal' and 'body' are one to judge. */
    struct buf container;                 /* the body, signed by as many as it needs. */
    bool over;                            /* nothing is left to do. */
    bool committed;                       /* the journal has it, under this manifest. */
    struct cp_store_chunk *rows;          /* of the journal, one a chunk. */
    size_t row_count;
};

static struct err step_head(struct publication *p);

/* ---- base, lead ---- */

/* A request that came before was answered by what it did then: the sender did not hear of it. */
static struct err find_request(struct publication *p, bool *out_found)
{
    struct cp_work *work = p->work;
    *out_found = false;
    if (work->request[0] == '\0') {
        return OK;
    }
    struct err e = p->room->store->ops->find_request(p->room->store, p->room->environment,
                                                     work->request, &work->record);
    *out_found = err_ok(e);
    return e.code == E_NOT_FOUND ? OK : e;
}

/* What is newest now: the base, and whose revocations a rollback keeps. */
static struct err find_newest(struct publication *p)
{
    struct cp_work *work = p->work;
    struct err e = p->room->store->ops->latest(p->room->store, p->room->environment, &work->before);
    if (e.code == E_NOT_FOUND) {
        work->before = (struct cp_record){0};
        return OK;
    }
    return e;
}

/* What was planned under an id stands on the version that it was compared with. */
static struct err take_plan(struct publication *p)
{
    struct cp_work *work = p->work;
    uint64_t base = 0;
    p->prepared = cp_shelf_planned(p->room->shelf, work->plan, &base);
    if (p->prepared == NULL) {
        return FAIL(E_PLAN_GONE);
    }
    p->found = true;
    work->base = work->has_base ? work->base : base;
    work->has_base = true;
    return OK;
}

static struct err step_base(struct publication *p)
{
    struct cp_work *work = p->work;
    TRY(find_request(p, &p->over));
    if (p->over) {
        return step_head(p);
    }
    TRY(work->has_plan ? take_plan(p) : OK);
    TRY(find_newest(p));
    if (work->has_base && work->base != work->before.version) {
        TRY(buf_addf(&work->sentence,
                     "the newest version is %" PRIu64 ", the plan was made against %" PRIu64,
                     work->before.version, work->base));
        return FAIL(E_BASE_CHANGED);
    }
    return OK;
}

static struct err step_lead(struct publication *p)
{
    struct cp_leader_status status;
    struct err leads = cp_leader_fence(p->room->leader, &p->fence);
    cp_leader_status(p->room->leader, &status);
    if (err_ok(leads) && status.code == E_STORE_BEHIND && !p->work->recovers) {
        return FAIL(E_STORE_BEHIND);
    }
    /* One that has just started, or lost a server of several, is connected in a moment. */
    if (!err_ok(bus_wait_connected(p->room->bus, BUS_GRACE_MS))) {
        TRY(buf_addf(&p->work->sentence, "NATS cannot be reached since %" PRIu64 " ms",
                     bus_down_ms(p->room->bus)));
        return FAIL(E_BUS_UNAVAILABLE);
    }
    return leads;
}

/* ---- open ---- */

static bool has_judged(const struct cp_cosignature *cosignatures, size_t count,
                       const uint8_t key[KEY_ID_SIZE])
{
    for (size_t i = 0; i < count; i++) {
        if (memcmp(cosignatures[i].key_id, key, KEY_ID_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

static void own_key_id(const struct publication *p, uint8_t out[KEY_ID_SIZE])
{
    struct cp_signer_hello hello = cp_signer_hello(p->room->signer);
    key_id(hello.manifest_public, out);
}

static struct err step_open(struct publication *p)
{
    struct cp_store *store = p->room->store;
    struct err e = store->ops->proposal_open(store, p->room->environment, &p->proposal, &p->body);
    if (e.code == E_NOT_FOUND) {
        p->over = true;
        return OK;
    }
    TRY(e);
    struct cp_cosignature found[CP_COSIGNATURES_MAX];
    size_t count = 0;
    uint8_t key[KEY_ID_SIZE];
    own_key_id(p, key);
    TRY(store->ops->cosign_list(store, p->room->environment, p->proposal.version, found, &count));
    p->over = has_judged(found, count, key);
    p->proposed = !p->over;
    p->work->record.version = p->proposal.version;
    p->work->target = p->proposal.origin;
    p->work->with_trust = p->proposal.with_trust;
    return p->over ? OK : find_newest(p);
}

/* ---- load ---- */

static struct err take_file(void *ctx, const struct cp_store_file *file)
{
    return cp_source_set_add(ctx, file->name, file->bytes);
}

static struct err open_manifest(struct slice container, struct manifest *out)
{
    struct container c;
    TRY(container_read(container, CONTAINER_MANIFEST, /* environment= */ NULL, &c));
    return manifest_decode(c.body, out);
}

static void take_rollback(struct publication *p, struct cp_rollback *from)
{
    p->work->capabilities = from->capabilities;
    p->work->format = from->format;
    p->own.count = from->stream_count;
    p->own.format = from->format;
    (void)memcpy(p->own.streams, from->streams, from->stream_count * sizeof(from->streams[0]));
    from->stream_count = 0;
    p->cut = &p->own;
}

/* The history says of such a rollback what it was, before its reason. */
static void mark_with_trust(struct cp_work *work)
{
    char marked[sizeof(work->message) + sizeof("with trust: ")];
    (void)snprintf(marked, sizeof(marked), "with trust: %s", work->message);
    (void)memcpy(work->message, marked, sizeof(work->message) - 1);
    /* A long reason is cut, but through no character. */
    for (size_t size = strlen(work->message); !text_is_utf8(slice_of(work->message, size));) {
        work->message[--size] = '\0';
    }
}

/* A rollback takes the old content byte for byte: it does not compile it again. */
static struct err load_version(struct publication *p, uint64_t version)
{
    struct cp_store *store = p->room->store;
    const struct cp_rollback_wish wish = {.environment = p->room->environment,
                                          .target = version,
                                          .newest = p->work->before.version,
                                          .with_trust = p->work->with_trust};
    struct cp_rollback rollback;
    struct err e = cp_rollback_load(store, &wish, &p->kept, &rollback);
    if (err_ok(e)) {
        take_rollback(p, &rollback);
    }
    cp_rollback_free(&rollback);
    if (e.code == E_NOT_FOUND) {
        TRY(buf_addf(&p->work->sentence, "version %" PRIu64 " was never published, or is too old",
                     version));
        return FAIL(E_NEVER_PUBLISHED);
    }
    if (e.code == E_CAPABILITY_MISSING) {
        TRY(buf_addf(&p->work->sentence,
                     "version %" PRIu64 " was written in a format that no node reads any more: "
                     "publish its sources instead",
                     version));
    }
    TRY(e);
    return store->ops->sources_get(store, p->room->environment, version, take_file,
                                   &p->work->sources);
}

/* What positions are held against, and what a publication puts over itself. */
static struct err load_newest(struct publication *p)
{
    if (p->work->before.version == 0) {
        return OK;
    }
    auto_buf struct buf container = BUF_MAX(CONTAINER_MAX);
    struct cp_record record;
    TRY(p->room->store->ops->load(p->room->store, p->room->environment, p->work->before.version,
                                  &record, &container));
    TRY(open_manifest(buf_slice(&container), &p->newest));
    for (size_t i = 0; i < p->newest.stream_count; i++) {
        const struct manifest_stream *stream = &p->newest.streams[i];
        for (size_t k = 0; k < stream->chunk_count; k++) {
            struct slice name =
                slice_of(stream->chunk_digests + k * DIGEST_SHORT_SIZE, DIGEST_SHORT_SIZE);
            TRY(map_put(&p->newest_chunks, name, p, /* out_old= */ NULL));
        }
    }
    return OK;
}

/*
 * Right after a start nobody is known: neither whom this must suit, nor whom to wait for. What
 * cannot be read stops nothing: nodes judge for themselves.
 */
static struct err list_nodes(struct publication *p, struct cp_fleet_node **out, size_t *count)
{
    if (bus_state(p->room->bus) == BUS_CONNECTED) {
        (void)cp_fleet_wait_read(p->room->fleet, limits.fetch_timeout_ms);
    }
    return cp_fleet_list(p->room->fleet, out, count);
}

/* As long as a live node speaks no more than the format before, that is what is written. */
static struct err choose_format(struct publication *p)
{
    struct cp_fleet_node *nodes = NULL;
    size_t count = 0;
    TRY(list_nodes(p, &nodes, &count));
    p->work->format = cp_reach_format(nodes, count);
    free(nodes);
    return OK;
}

/* What this replica judges it makes in the proposal's own format: which one suits the fleet is the
 * leader's to see. */
static struct err load_proposed(struct publication *p)
{
    struct cp_store *store = p->room->store;
    auto_manifest struct manifest proposed = {0};
    TRY(manifest_decode(buf_slice(&p->body), &proposed));
    p->work->format = manifest_format(&proposed);
    if (p->proposal.origin != 0) {
        return load_version(p, p->proposal.origin);
    }
    TRY(load_newest(p));
    return store->ops->sources_get(store, p->room->environment, p->proposal.version, take_file,
                                   &p->work->sources);
}

static struct err step_load(struct publication *p)
{
    if (p->work->kind == CP_WORK_VALIDATE) {
        return OK; /* the request brought them. */
    }
    if (p->work->kind == CP_WORK_COSIGN) {
        return load_proposed(p);
    }
    TRY(load_newest(p));
    if (p->work->kind != CP_WORK_ROLLBACK) {
        return choose_format(p);
    }
    if (p->work->with_trust) {
        mark_with_trust(p->work);
    }
    return load_version(p, p->work->target);
}

/* ---- compile, cut ---- */

/* Whether the content is an older version's, byte for byte. */
static bool is_taken_over(const struct publication *p)
{
    return p->work->kind == CP_WORK_ROLLBACK || p->proposal.origin != 0;
}

/* What is strict about its nodes' connections does not go out over one that is exposed. */
static struct err judge_bus(struct publication *p)
{
    const char *exposure = bus_exposure(p->room->bus);
    if (!cp_compiled_is_strict(p->prepared->compiled) || exposure == NULL) {
        return OK;
    }
    TRY(buf_add_str(&p->work->sentence, exposure));
    return FAIL(E_BUS_EXPOSED);
}

static bool is_newest(const struct publication *p, const struct cut_chunk *chunk)
{
    return map_get(&p->newest_chunks, slice_of(chunk->digest, sizeof(chunk->digest))) != NULL;
}

static struct err note_known(struct publication *p, const uint8_t raw_digest[DIGEST_SIZE])
{
    struct slice key;
    TRY(arena_dup(&p->kept, slice_of(raw_digest, DIGEST_SIZE), &key));
    return map_put(&p->known, key, p, /* out_old= */ NULL);
}

/*
 * What the newest publication was made from, when it is at hand: what it holds is known. Only what
 * the manifest names counts: a replica that cosigned may have stored a chunk in another way.
 */
static struct err find_before(struct publication *p)
{
    if (p->work->before.version == 0) {
        return OK;
    }
    p->before = cp_shelf_published(p->room->shelf, p->work->before.manifest_digest);
    for (size_t i = 0; p->before != NULL && i < p->before->cut.count; i++) {
        const struct cut_stream *stream = &p->before->cut.streams[i];
        for (size_t k = 0; k < stream->chunk_count; k++) {
            struct cut_chunk *chunk = &stream->chunks[k];
            struct slice raw_digest = slice_of(chunk->raw_digest, DIGEST_SIZE);
            TRY(is_newest(p, chunk)
                    ? map_put(&p->before_chunks, raw_digest, chunk, /* out_old= */ NULL)
                    : OK);
        }
    }
    return OK;
}

/* Takes what was compiled of the same sources, or of a plan. */
static void find_prepared(struct publication *p)
{
    if (p->prepared != NULL) {
        return;
    }
    struct cp_prepared *found = cp_shelf_find(p->room->shelf, &p->work->sources);
    bool lacks = found != NULL && p->work->kind == CP_WORK_PLAN &&
                 !cp_compiled_has_inventory(found->compiled);
    if (lacks) {
        cp_prepared_unref(found);
        return;
    }
    p->prepared = found;
    p->found = found != NULL;
}

static struct err compile(struct publication *p)
{
    struct cp_diags diags;
    const struct cp_compile_options options = {.reuse = p->room->reuse,
                                               .inventory = p->work->kind == CP_WORK_PLAN};
    TRY(cp_prepared_new(&p->prepared));
    cp_diags_init(&diags, &p->work->sources);
    struct err e = cp_compile_set(&p->work->sources, &diags, &options, &p->prepared->compiled);
    if (!err_ok(e) && diags.count > 0) {
        struct err json = cp_diags_json(&diags, &p->work->diagnostics);
        struct err text = cp_diags_text(&diags, &p->work->diagnostics_text);
        e = err_ok(json) && err_ok(text) ? e : FAIL(E_TOO_LARGE);
    }
    cp_diags_free(&diags);
    return e;
}

static struct err step_compile(struct publication *p)
{
    if (is_taken_over(p)) {
        return OK;
    }
    if (p->work->kind != CP_WORK_VALIDATE) {
        TRY(find_before(p));
        find_prepared(p);
    }
    TRY(p->found ? OK : compile(p));
    const struct cp_compiled *compiled = p->prepared->compiled;
    struct slice environment = cp_compiled_environment(compiled);
    if (!slice_eq(environment, slice_str(p->room->environment))) {
        TRY(buf_addf(&p->work->sentence,
                     "the sources are of environment \"%.*s\", this is the server of \"%s\"",
                     SLICE_ARG(environment), p->room->environment));
        return FAIL(E_SOURCE_INVALID);
    }
    p->work->capabilities = cp_compiled_capabilities(compiled);
    (void)memcpy(p->work->plan, p->prepared->id, sizeof(p->work->plan));
    return p->work->kind == CP_WORK_VALIDATE ? OK : judge_bus(p);
}

/* ---- cut ---- */

/* Whether a chunk may be published as it is stored; the journal's bytes, if it has some, stay. */
static struct err fits_journal(struct publication *p, const struct cut_chunk *chunk, bool *out)
{
    *out = true;
    if (is_newest(p, chunk)) {
        return note_known(p, chunk->raw_digest);
    }
    auto_buf struct buf bytes = BUF_MAX(CHUNK_RAW_MAX);
    struct cp_store *store = p->room->store;
    struct err e = store->ops->chunk_get(store, chunk->raw_digest, &bytes);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    uint8_t digest[DIGEST_SHORT_SIZE];
    ids_digest_short(buf_slice(&bytes), digest);
    *out = memcmp(digest, chunk->digest, sizeof(digest)) == 0;
    return note_known(p, chunk->raw_digest);
}

/* What was cut before holds for its format, as long as the journal has no chunk of it stored in
 * another way. */
static struct err fits_still(struct publication *p, const struct cp_prepared *found, bool *out)
{
    *out = found->cut.format == cp_streams_format(found->compiled, p->work->format);
    for (size_t i = 0; i < found->cut.count && *out; i++) {
        for (size_t k = 0; k < found->cut.streams[i].chunk_count && *out; k++) {
            TRY(fits_journal(p, &found->cut.streams[i].chunks[k], out));
        }
    }
    return OK;
}

/* Whose chunks are stored where. */
struct cutting {
    struct publication *p;
    struct arena *kept;
};

/* Stored bytes that were published before stay as they are, whatever today's zstd would make. */
static bool find_known(void *ctx, const uint8_t raw_digest[DIGEST_SIZE], struct slice *stored)
{
    const struct cutting *c = ctx;
    struct publication *p = c->p;
    auto_buf struct buf bytes = BUF_MAX(CHUNK_RAW_MAX);
    const struct cut_chunk *before = map_get(&p->before_chunks, slice_of(raw_digest, DIGEST_SIZE));
    struct err e = before != NULL
                       ? buf_add(&bytes, before->stored)
                       : p->room->store->ops->chunk_get(p->room->store, raw_digest, &bytes);
    return err_ok(e) && err_ok(arena_dup(c->kept, buf_slice(&bytes), stored)) &&
           err_ok(note_known(p, raw_digest)); /* else it is stored anew: the same content. */
}

static struct err cut_to(struct publication *p, struct cp_streams *out, struct arena *kept)
{
    struct cutting cutting = {.p = p, .kept = kept};
    const struct cp_streams_options options = {.format = p->work->format,
                                               .known = find_known,
                                               .context = &cutting,
                                               .before =
                                                   p->before == NULL ? NULL : &p->before->cut};
    TRY(cp_streams_cut(p->prepared->compiled, &options, out));
    p->cut = out;
    return OK;
}

/* What was on the shelf is others', too: it stays as it is. */
static struct err cut_found(struct publication *p)
{
    bool fits = false;
    TRY(fits_still(p, p->prepared, &fits));
    if (fits) {
        p->cut = &p->prepared->cut;
        return OK;
    }
    map_free(&p->known);
    return cut_to(p, &p->own, &p->kept);
}

/* What the content cannot be said in is not chosen; step_reach() names who cannot read it. */
static struct err step_cut(struct publication *p)
{
    if (is_taken_over(p)) {
        return OK;
    }
    TRY(p->found ? cut_found(p) : cut_to(p, &p->prepared->cut, &p->prepared->kept));
    p->work->format = p->cut->format;
    return OK;
}

static struct manifest_plan plan_of(const struct publication *p, uint64_t version)
{
    return (struct manifest_plan){.version = version,
                                  .made_at_ms = clock_wall_ms(),
                                  .capabilities = p->work->capabilities,
                                  .streams = p->cut->streams,
                                  .stream_count = p->cut->count};
}

/* ---- agree ---- */

static struct err step_agree(struct publication *p)
{
    struct manifest_plan mine = plan_of(p, p->proposal.version);
    return cp_cosign_agree(buf_slice(&p->body), &mine, &p->work->sentence);
}

/* ---- compare ---- */

static struct err add_diff(struct publication *p)
{
    struct cp_compiled *again = NULL; /* of the newest publication. */
    const struct cp_compiled *before = p->before == NULL ? NULL : p->before->compiled;
    if (p->work->before.version != 0 && (before == NULL || !cp_compiled_has_inventory(before))) {
        struct err found = cp_publish_compiled(p->room, p->work->before.version, &again);
        TRY(found.code == E_NOT_FOUND ? OK : found); /* it was adopted: everything is new. */
        before = again;
    }
    struct cp_diff diff;
    struct err e = cp_diff_make(before, p->prepared->compiled, &diff);
    cp_compiled_free(again);
    TRY(e);
    e = cp_diff_json(&diff, &p->work->diff);
    if (err_ok(e)) {
        e = cp_diff_text(&diff, &p->work->diff_text);
    }
    cp_diff_free(&diff);
    return e;
}

/* Positions are outside the content digest, but a moved rule is explained by them. */
static bool same_positions(const struct publication *p)
{
    const struct manifest_stream *before = manifest_stream(&p->newest, CP_PART_POSITIONS);
    for (size_t i = 0; i < p->cut->count; i++) {
        if (p->cut->streams[i].kind == CP_PART_POSITIONS) {
            return before != NULL &&
                   memcmp(p->cut->streams[i].raw_digest, before->raw_digest, DIGEST_SIZE) == 0;
        }
    }
    return before == NULL;
}

static struct err step_compare(struct publication *p)
{
    struct manifest_plan plan = plan_of(p, 0);
    struct cp_record *record = &p->work->record;
    manifest_plan_digest(&plan, record->content_digest);
    for (size_t i = 0; i < p->cut->count; i++) {
        record->raw_size += p->cut->streams[i].raw_size;
        p->work->chunks += p->cut->streams[i].chunk_count;
    }
    p->work->is_same = p->work->before.version != 0 &&
                       memcmp(record->content_digest, p->work->before.content_digest,
                              sizeof(record->content_digest)) == 0;
    p->work->is_unchanged = p->work->is_same && same_positions(p);
    if (p->work->kind == CP_WORK_PUBLISH && p->work->is_unchanged && !p->work->again) {
        p->work->record = p->work->before; /* it is published already: that ends well. */
        p->work->in_head = true;
        p->over = true;
    }
    return p->work->kind == CP_WORK_PLAN ? add_diff(p) : OK;
}

/* ---- reach ---- */

static struct err step_reach(struct publication *p)
{
    struct cp_fleet_node *nodes = NULL;
    size_t count = 0;
    TRY(list_nodes(p, &nodes, &count));
    struct cp_work *work = p->work;
    const struct cp_reach_need need = {.capabilities = work->capabilities, .format = work->format};
    struct err e = cp_reach_judge(nodes, count, &need, &work->nodes_live, &work->sentence);
    free(nodes);
    return e;
}

/* ---- check ---- */

/* The number is not handed out yet; the child judges the content. */
static struct err run_check(struct publication *p, struct cp_check *check)
{
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    auto_buf struct buf container = BUF_MAX(CONTAINER_MAX);
    struct manifest_plan plan = plan_of(p, p->work->before.version + 1);
    TRY(manifest_encode(&plan, &body));
    TRY(container_seal(CONTAINER_MANIFEST, cp_roots_environment(p->room->roots), buf_slice(&body),
                       /* signatures= */ NULL, 0, &container));
    check->manifest = buf_slice(&container);
    return cp_check_run(check, &p->work->sentence);
}

/* What was loaded once, for a plan or a publication of the same content, loads again. */
static struct err step_check(struct publication *p)
{
    struct cp_check check = {.program = p->room->dp_check,
                             .directory = p->room->directory,
                             .environment = p->room->environment,
                             .streams = p->cut->streams,
                             .stream_count = p->cut->count};
    uint8_t digest[DIGEST_SIZE];
    bool named = err_ok(cp_check_digest(&check, p->work->capabilities, digest));
    if (named && cp_shelf_has_passed(p->room->shelf, digest)) {
        return OK;
    }
    TRY(run_check(p, &check));
    if (named) {
        cp_shelf_pass(p->room->shelf, digest);
    }
    return OK;
}

/* ---- version, propose, sign ---- */

static struct err keep_sources(struct publication *p)
{
    const struct cp_source_set *set = p->work->has_plan ? &p->prepared->sources : &p->work->sources;
    struct cp_store_file *files = calloc(set->count + 1, sizeof(*files));
    if (files == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < set->count; i++) {
        files[i] = (struct cp_store_file){set->files[i].name, set->files[i].bytes};
    }
    struct err e = p->room->store->ops->sources_put(p->room->store, &p->fence,
                                                    p->work->record.version, files, set->count);
    free(files);
    return e;
}

static struct err step_version(struct publication *p)
{
    TRY(cp_leader_fence(p->room->leader, &p->fence)); /* compiling took its time. */
    TRY(p->room->store->ops->version_hand(p->room->store, &p->fence, &p->work->record.version));
    return keep_sources(p);
}

static struct err step_propose(struct publication *p)
{
    struct manifest_plan plan = plan_of(p, p->work->record.version);
    TRY(manifest_encode(&plan, &p->body));
    ids_digest(buf_slice(&p->body), p->work->record.manifest_digest);
    struct cp_proposal proposal = {.version = p->work->record.version,
                                   .origin =
                                       p->work->kind == CP_WORK_ROLLBACK ? p->work->target : 0,
                                   .with_trust = p->work->with_trust};
    TRY(p->room->store->ops->proposal_put(p->room->store, &p->fence, &proposal,
                                          buf_slice(&p->body)));
    cp_cosign_hint(p->room->bus, p->room->environment);
    return OK;
}

static struct err step_sign(struct publication *p)
{
    struct cp_signer_request request = {.kind = CONTAINER_MANIFEST,
                                        .version = p->work->record.version,
                                        .body = buf_slice(&p->body)};
    return cp_signer_sign(p->room->signer, &request, &p->signature);
}

/* ---- cosign, tell ---- */

static struct err step_cosign(struct publication *p)
{
    struct cp_cosign cosign = {.version = p->work->record.version,
                               .body = buf_slice(&p->body),
                               .own = p->signature,
                               .wait_ms = p->work->sign_wait_ms == 0 ? limits.cosign_wait_ms
                                                                     : p->work->sign_wait_ms};
    auto_buf struct buf signers = BUF_MAX(CP_SIGNERS_MAX);
    TRY(cp_cosign_gather(p->room, &cosign, &p->container, &signers, &p->work->sentence));
    (void)snprintf(p->work->record.signers, sizeof(p->work->record.signers), "%.*s",
                   SLICE_ARG(buf_slice(&signers)));
    return OK;
}

/* Keeps what came of a proposal: the signature, or why there is none. */
static struct err tell(struct publication *p, struct err why)
{
    struct cp_cosignature cosignature = {.code = why.code};
    uint8_t digest[DIGEST_SIZE];
    own_key_id(p, cosignature.key_id);
    if (err_ok(why)) {
        (void)memcpy(cosignature.signature, p->signature.signature, sizeof(cosignature.signature));
    }
    (void)snprintf(cosignature.sentence, sizeof(cosignature.sentence), "%.*s",
                   SLICE_ARG(slice_head(buf_slice(&p->work->sentence), CP_MESSAGE_MAX)));
    ids_digest(buf_slice(&p->body), digest);
    return p->room->store->ops->cosign_put(p->room->store, p->room->environment,
                                           p->proposal.version, digest, &cosignature);
}

static struct err step_tell(struct publication *p)
{
    return tell(p, OK);
}

/* What another try may mend is tried again with the next look; the rest is said once. */
static bool is_final(enum err_code code)
{
    return code != E_UNAVAILABLE && code != E_RESULT_UNKNOWN && code != E_TIMEOUT && code != E_IO &&
           code != E_NO_MEMORY && code != E_SIGNER_GONE;
}

static void tell_refusal(struct publication *p)
{
    struct err e = p->work->result;
    if (p->proposed && !err_ok(e) && is_final(e.code)) {
        struct err told = tell(p, e);
        LOG(LOG_WARN, "cosign", "refused", LOG_U64("version", p->proposal.version), LOG_ERR(e),
            LOG_SLICE("sentence", buf_slice(&p->work->sentence)),
            LOG_STR("told", err_name(told.code)));
    }
}

/* ---- chunks, manifest ---- */

/* Bytes that the bucket takes for what is not there yet: chunks of the newest version are put over
 * themselves. */
static uint64_t bytes_to_put(const struct publication *p)
{
    uint64_t bytes = p->container.size + MESSAGE_OVERHEAD;
    for (size_t i = 0; i < p->cut->count; i++) {
        for (size_t k = 0; k < p->cut->streams[i].chunk_count; k++) {
            const struct cut_chunk *chunk = &p->cut->streams[i].chunks[k];
            bool there =
                cp_bucket_has_chunk(&p->room->bucket, chunk->digest) || is_newest(p, chunk);
            bytes += there ? 0 : chunk->stored.size + MESSAGE_OVERHEAD;
        }
    }
    return bytes;
}

static bool has_room(const struct stream_info *bucket, uint64_t wanted)
{
    return bucket->max_bytes == 0 || bucket->bytes + wanted + BUCKET_RESERVE <= bucket->max_bytes;
}

/* A full bucket would take no heads either: some room is left for them, always. */
static struct err make_room(struct publication *p)
{
    const struct kv *kv = &p->room->bucket.kv;
    struct stream_info bucket;
    uint64_t removed = 0;
    uint64_t wanted = bytes_to_put(p);
    TRY(kv_look(kv, limits.fetch_timeout_ms, &bucket));
    if (has_room(&bucket, wanted)) {
        return OK;
    }
    TRY(cp_collector_run(p->room->collector, p->room, &removed));
    TRY(kv_look(kv, limits.fetch_timeout_ms, &bucket));
    if (has_room(&bucket, wanted)) {
        return OK;
    }
    TRY(buf_addf(&p->work->sentence,
                 "the bucket holds %" PRIu64 " of %" PRIu64 " bytes and %" PRIu64
                 " more are needed; %" PRIu64 " objects were collected just now",
                 bucket.bytes, bucket.max_bytes, wanted, removed));
    return FAIL(E_BUCKET_FULL);
}

static struct err put_stream(struct publication *p, const struct cut_stream *stream)
{
    for (size_t i = 0; i < stream->chunk_count; i++) {
        const struct cut_chunk *chunk = &stream->chunks[i];
        if (!cp_bucket_has_chunk(&p->room->bucket, chunk->digest)) {
            TRY(cp_bucket_put_chunk(&p->room->bucket, chunk->digest, chunk->stored));
        }
    }
    return OK;
}

static struct err put_streams(struct publication *p)
{
    for (size_t i = 0; i < p->cut->count; i++) {
        TRY(put_stream(p, &p->cut->streams[i]));
    }
    return OK;
}

static struct err fill_bucket(struct publication *p)
{
    buf_clear(&p->work->sentence);
    TRY(cp_bucket_prepare(&p->room->bucket, &p->work->sentence));
    cp_bucket_learn(&p->room->bucket);
    TRY(make_room(p));
    struct err e = put_streams(p);
    return e.code == E_BUS_FULL ? FAIL(E_BUCKET_FULL) : e; /* others fill it, too. */
}

static struct err put_manifest(struct publication *p)
{
    return cp_bucket_put_manifest(&p->room->bucket, &p->work->record, buf_slice(&p->container));
}

/*
 * When a NATS server dies, the bucket answers nobody until the others have elected. What is put
 * here may be put twice, so it is tried again, while this replica leads; a control plane that is
 * cut off from NATS leaves the row, and gives up.
 */
static struct err patiently(struct publication *p, struct err (*put)(struct publication *))
{
    uint64_t end_ns = clock_mono_ns() + limits.bucket_wait_ms * 1000000;
    for (;;) { /* ends with the bucket, the row, or the time. */
        struct err e = put(p);
        bool silent = e.code == E_UNAVAILABLE || e.code == E_RESULT_UNKNOWN;
        if (!silent || clock_mono_ns() >= end_ns || p->room->stopping(p->room->stopping_ctx)) {
            return e;
        }
        TRY(cp_leader_fence(p->room->leader, &p->fence));
        (void)poll(NULL, 0, BUCKET_STEP_MS);
    }
}

static struct err step_chunks(struct publication *p)
{
    return patiently(p, fill_bucket);
}

static struct err step_manifest(struct publication *p)
{
    return patiently(p, put_manifest);
}

/* ---- journal, head ---- */

static void fill_row(struct publication *p, const struct cut_chunk *chunk)
{
    struct cp_store_chunk *row = &p->rows[p->row_count++];
    row->raw_size = chunk->raw.size;
    row->stored = chunk->stored;
    (void)memcpy(row->raw_digest, chunk->raw_digest, sizeof(row->raw_digest));
    (void)memcpy(row->stored_digest, chunk->digest, sizeof(row->stored_digest));
    struct slice key = slice_of(row->raw_digest, sizeof(row->raw_digest));
    if (p->work->kind == CP_WORK_ROLLBACK || map_get(&p->known, key) != NULL) {
        row->stored = (struct slice){0}; /* the journal has it. */
        return;
    }
    p->work->chunks_new++;
    p->work->bytes_new += chunk->stored.size;
}

static struct err step_journal(struct publication *p)
{
    p->rows = calloc(p->work->chunks + 1, sizeof(*p->rows));
    if (p->rows == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < p->cut->count; i++) {
        for (size_t k = 0; k < p->cut->streams[i].chunk_count; k++) {
            fill_row(p, &p->cut->streams[i].chunks[k]);
        }
    }
    struct cp_record *record = &p->work->record;
    record->epoch = p->fence.epoch;
    record->origin = p->work->kind == CP_WORK_ROLLBACK ? p->work->target : 0;
    (void)memcpy(record->request, p->work->request, sizeof(record->request));
    (void)memcpy(record->author, p->work->author, sizeof(record->author));
    (void)memcpy(record->message, p->work->message, sizeof(record->message));
    struct cp_publication publication = {.record = *record,
                                         .manifest = buf_slice(&p->container),
                                         .chunks = p->rows,
                                         .chunk_count = p->row_count};
    struct err e = p->room->store->ops->publish(p->room->store, &p->fence, &publication);
    p->committed = err_ok(e);
    bool found = false;
    if (e.code == E_CONFLICT) { /* the same request, by another way, was faster. */
        TRY(find_request(p, &found));
    }
    return found ? OK : e;
}

/* It is published already: a head that takes longer is told, not refused. */
static struct err step_head(struct publication *p)
{
    cp_leader_wake(p->room->leader);
    p->work->in_head = cp_leader_wait_head(p->room->leader, p->work->record.version, HEAD_WAIT_MS);
    return OK;
}

/* ---- the runner ---- */

struct step {
    const char *name;
    unsigned kinds;
    struct err (*run)(struct publication *p);
};

static const struct step steps[] = {
#define X(name, kinds, text) {#name, kinds, step_##name},
    CP_PUBLISH_STEPS(X)
#undef X
};
enum { STEP_COUNT = sizeof(steps) / sizeof(steps[0]) };

/* "stop:NAME" is NAME, at which the process is stopped instead of killed. */
static const char *fault_name(const char *fault, bool *out_stops)
{
    static const char prefix[] = "stop:";
    *out_stops = strncmp(fault, prefix, sizeof(prefix) - 1) == 0;
    return *out_stops ? fault + sizeof(prefix) - 1 : fault;
}

bool cp_publish_is_step(const char *fault)
{
    bool stops = false;
    const char *name = fault_name(fault, &stops);
    for (size_t i = 0; i < STEP_COUNT; i++) {
        if (strcmp(name, steps[i].name) == 0) {
            return true;
        }
    }
    return strcmp(name, CP_FAULT_END) == 0;
}

static void fault_before(const struct cp_publish_room *room, const struct cp_work *work,
                         const char *step)
{
    bool publishes = (1U << work->kind & CP_PUBLISHED) != 0;
    if (!publishes || room->fault_step == NULL) {
        return;
    }
    bool stops = false;
    if (strcmp(fault_name(room->fault_step, &stops), step) == 0) {
        (void)raise(stops ? SIGSTOP : SIGKILL);
    }
}

static struct err run(struct publication *p)
{
    for (size_t i = 0; i < STEP_COUNT; i++) {
        const struct step *step = &steps[i];
        if ((step->kinds & 1U << p->work->kind) == 0) {
            continue;
        }
        p->work->step = step->name;
        fault_before(p->room, p->work, step->name);
        uint64_t start_ns = clock_mono_ns();
        struct err e = step->run(p);
        LOG(LOG_DEBUG, "publish", "step", LOG_STR("step", step->name), LOG_ERR(e),
            LOG_U64("us", (clock_mono_ns() - start_ns) / 1000));
        TRY(e);
        if (p->over) {
            return OK;
        }
    }
    fault_before(p->room, p->work, CP_FAULT_END);
    return OK;
}

/* Whether the work ended with a manifest that names this content, and the digest of it. */
static bool is_in_manifest(const struct publication *p, uint8_t out[DIGEST_SIZE])
{
    const struct cp_work *work = p->work;
    if (work->kind == CP_WORK_COSIGN) {
        ids_digest(buf_slice(&p->body), out);
        return err_ok(work->result);
    }
    (void)memcpy(out, work->record.manifest_digest, DIGEST_SIZE);
    return p->committed ||
           (work->kind == CP_WORK_PUBLISH && p->over && err_ok(work->result)); /* unchanged. */
}

/* For the publication that follows a plan, and for what follows a publication. */
static void leave_prepared(struct publication *p)
{
    struct cp_work *work = p->work;
    uint8_t manifest_digest[DIGEST_SIZE];
    if (p->prepared == NULL || p->cut == NULL) {
        return;
    }
    if (!p->found) {
        p->prepared->sources = work->sources; /* the work is over: they are handed on. */
        cp_source_set_init(&work->sources);
    }
    const struct cp_shelf_note note = {
        .planned = work->kind == CP_WORK_PLAN && err_ok(work->result),
        .base = work->before.version,
        .manifest_digest = is_in_manifest(p, manifest_digest) ? manifest_digest : NULL};
    cp_shelf_put(p->room->shelf, p->prepared, &note);
}

static void publication_free(struct publication *p)
{
    cp_streams_free(&p->own);
    cp_prepared_unref(p->prepared);
    cp_prepared_unref(p->before);
    manifest_free(&p->newest);
    map_free(&p->before_chunks);
    map_free(&p->known);
    map_free(&p->newest_chunks);
    arena_free(&p->kept);
    buf_free(&p->body);
    buf_free(&p->container);
    free(p->rows);
    free(p);
}

void cp_publish_run(struct cp_publish_room *room, struct cp_work *work)
{
    struct publication *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        work->result = FAIL(E_NO_MEMORY);
        return;
    }
    p->room = room;
    p->work = work;
    p->body = BUF_MAX(MANIFEST_BODY_MAX);
    p->container = BUF_MAX(CONTAINER_MAX);
    arena_init(&p->kept, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
    work->result = run(p);
    tell_refusal(p);
    if (1U << work->kind & CP_PUBLISHED) {
        LOG(err_ok(work->result) ? LOG_INFO : LOG_WARN, "publish",
            err_ok(work->result) ? "published" : "refused",
            LOG_U64("version", work->record.version), LOG_STR("step", work->step),
            LOG_ERR(work->result), LOG_STR("author", work->author),
            LOG_SLICE("sentence", buf_slice(&work->sentence)));
    }
    leave_prepared(p);
    publication_free(p);
}

struct err cp_publish_compiled(struct cp_publish_room *room, uint64_t version,
                               struct cp_compiled **out)
{
    struct cp_record record;
    struct err e = room->store->ops->load(room->store, room->environment, version, &record,
                                          /* manifest= */ NULL);
    TRY(e.code == E_NOT_FOUND ? FAIL(E_NEVER_PUBLISHED) : e);
    struct cp_source_set set;
    struct cp_diags diags;
    const struct cp_compile_options options = {.reuse = room->reuse, .inventory = true};
    cp_source_set_init(&set);
    cp_diags_init(&diags, &set);
    e = room->store->ops->sources_get(room->store, room->environment, version, take_file, &set);
    if (err_ok(e) && set.count == 0) {
        e = FAIL(E_NOT_FOUND);
    }
    if (err_ok(e)) {
        e = cp_compile_set(&set, &diags, &options, out);
    }
    cp_diags_free(&diags);
    cp_source_set_free(&set);
    TRY(e);
    if (record.origin == 0) {
        return OK;
    }
    e = cp_rollback_revocations(room->store, room->environment, version, *out);
    if (!err_ok(e)) {
        cp_compiled_free(*out);
        *out = NULL;
    }
    return e;
}

void cp_work_init(struct cp_work *work, enum cp_work_kind kind)
{
    *work = (struct cp_work){.kind = kind, .step = ""};
    cp_source_set_init(&work->sources);
    work->sentence = BUF_MAX(SENTENCE_MAX);
    work->diagnostics = BUF_MAX(TEXT_MAX);
    work->diagnostics_text = BUF_MAX(TEXT_MAX);
    work->diff = BUF_MAX(TEXT_MAX);
    work->diff_text = BUF_MAX(TEXT_MAX);
}

void cp_work_free(struct cp_work *work)
{
    cp_source_set_free(&work->sources);
    buf_free(&work->sentence);
    buf_free(&work->diagnostics);
    buf_free(&work->diagnostics_text);
    buf_free(&work->diff);
    buf_free(&work->diff_text);
}
