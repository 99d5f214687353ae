/* ledger: see ledger.h. */
#include "tests/model/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/head.h"
#include "common/snapshot/manifest.h"
#include "dataplane/apply/build.h"

#include "tests/model/content.h"
#include "tests/model/database.h"
#include "tests/model/nats.h"
#include "tests/model/sim.h"
#include "tests/model/world.h"

enum { ENTRIES_MAX = 512, EPOCHS_MAX = 4096, SIGNERS_MAX = 64, CONTAINER_MAX = 1 << 20 };

/* A version that was published, or could have been. */
struct entry {
    uint64_t version;
    uint64_t epoch;
    bool is_there;  /* the database knows it, */
    bool is_backed; /* and so does its backup. */
    char request[CP_REQUEST_MAX + 1];
    uint8_t manifest_digest[DIGEST_SIZE];
    uint8_t content_digest[DIGEST_SIZE];
    uint8_t parts_digest[DIGEST_SIZE]; /* over all parts, made by ourselves. */
    uint64_t number;                   /* of the content; see content.h. */
};

struct epoch {
    uint64_t epoch;
    bool is_there;
    bool is_backed;
    uint8_t holder[CP_HOLDER_SIZE];
};

/* What a key signed, over all lives of its signer. */
struct signer {
    uint8_t key_id[KEY_ID_SIZE];
    uint64_t high; /* version, or epoch. */
    uint64_t low;  /* 0, or sequence. */
    uint8_t digest[DIGEST_SIZE];
};

static struct {
    struct entry entries[ENTRIES_MAX];
    size_t entry_count;
    struct epoch epochs[EPOCHS_MAX];
    size_t epoch_count;
    struct signer signers[SIGNERS_MAX];
    size_t signer_count;
    uint64_t handed; /* highest that the database knows, and its backup. */
    uint64_t handed_backed;
    uint64_t newest;
    bool head_key_leaked;
} ledger;

static void must(struct err e, const char *what)
{
    if (!err_ok(e)) {
        sim_fail("%s: %s at %s", what, err_name(e.code), e.where);
    }
}

void ledger_begin(void)
{
    memset(&ledger, 0, sizeof(ledger));
}

void ledger_leak_head_key(void)
{
    ledger.head_key_leaked = true;
}

/* ---- the database ---- */

static struct epoch *find_epoch(uint64_t epoch)
{
    for (size_t i = 0; i < ledger.epoch_count; i++) {
        struct epoch *e = &ledger.epochs[i];
        if (e->epoch == epoch && e->is_there) {
            return e;
        }
    }
    return NULL;
}

void ledger_lease(const struct cp_lease_wish *wish, const struct cp_lease *lease)
{
    if (!lease->held) {
        return;
    }
    struct epoch *e = find_epoch(lease->epoch);
    if (e == NULL) {
        CHECK(ledger.epoch_count < EPOCHS_MAX);
        e = &ledger.epochs[ledger.epoch_count++];
        *e = (struct epoch){.epoch = lease->epoch, .is_there = true};
        memcpy(e->holder, wish->holder, sizeof(e->holder));
        sim_note("%s leads in epoch %llu", wish->name, (unsigned long long)lease->epoch);
    }
    if (memcmp(e->holder, wish->holder, sizeof(e->holder)) != 0) {
        sim_fail("two holders have epoch %llu", (unsigned long long)lease->epoch);
    }
}

bool ledger_holder(uint64_t epoch, uint8_t out[CP_HOLDER_SIZE])
{
    const struct epoch *e = find_epoch(epoch);
    if (e != NULL) {
        memcpy(out, e->holder, sizeof(e->holder));
    }
    return e != NULL;
}

void ledger_fenced(struct cp_store *store, const struct cp_fence *fence, const char *what)
{
    struct cp_lease row;
    must(store->ops->lease_read(store, fence->environment, &row), "the leader's row");
    const struct epoch *e = find_epoch(fence->epoch);
    if (row.epoch != fence->epoch || row.expires_ms <= row.now_ms) {
        sim_fail("%s went through in epoch %llu, the row is in %llu and runs %lld ms", what,
                 (unsigned long long)fence->epoch, (unsigned long long)row.epoch,
                 (long long)(row.expires_ms - row.now_ms));
    }
    if (e == NULL || memcmp(e->holder, fence->holder, sizeof(e->holder)) != 0) {
        sim_fail("%s went through for who does not hold epoch %llu", what,
                 (unsigned long long)fence->epoch);
    }
}

void ledger_handed(uint64_t version)
{
    if (version <= ledger.handed) {
        sim_fail("number %llu is handed out twice", (unsigned long long)version);
    }
    ledger.handed = version;
}

static struct entry *find_entry(uint64_t version)
{
    for (size_t i = 0; i < ledger.entry_count; i++) {
        if (ledger.entries[i].version == version) {
            return &ledger.entries[i];
        }
    }
    return NULL;
}

/* All parts of a set, in order: stream, key, bytes. */
static void digest_parts(const struct snap_set *set, uint8_t out[DIGEST_SIZE])
{
    auto_buf struct buf bytes = BUF_MAX(64 << 20);
    for (uint32_t kind = 1; kind < STREAMS_MAX; kind++) {
        struct snap_cursor at = {0};
        struct snap_part part;
        while (snap_set_next(set, kind, &at, &part)) {
            uint64_t sizes[] = {kind, part.key.size, part.bytes.size};
            must(buf_add(&bytes, slice_of(sizes, sizeof(sizes))), "parts");
            must(buf_add(&bytes, part.key), "parts");
            must(buf_add(&bytes, part.bytes), "parts");
        }
    }
    ids_digest(buf_slice(&bytes), out);
}

/* Chunks of positions are no part of a set: nobody asks for them. */
static struct err add_chunk(void *ctx, const struct cp_store_chunk *row)
{
    struct chunk_name name = {.stored_size = (uint32_t)row->stored.size,
                              .raw_size = (uint32_t)row->raw_size};
    memcpy(name.digest, row->stored_digest, sizeof(name.digest));
    struct err e = snap_set_add(ctx, &name, row->stored);
    return e.code == E_CHUNK_TAMPERED ? OK : e;
}

/* The set as the journal has it. */
static struct snap_set *load_set(struct cp_store *store, const struct cp_record *record)
{
    auto_buf struct buf container = BUF_MAX(CONTAINER_MAX);
    struct cp_record loaded;
    struct container c;
    auto_manifest struct manifest m = {0};
    struct snap_set *set = NULL;
    must(store->ops->load(store, WORLD_ENVIRONMENT, record->version, &loaded, &container),
         "a row that was just written");
    must(container_read(buf_slice(&container), CONTAINER_MANIFEST, NULL, &c), "its manifest");
    must(manifest_decode(c.body, &m), "its manifest");
    must(snap_set_new(&m, NULL, &set), "its parts");
    must(store->ops->chunks_get(store, WORLD_ENVIRONMENT, record->version, add_chunk, set),
         "its chunks");
    must(snap_set_close(set), "its chunks");
    return set;
}

/* Which content it is: a request is named by it, a rollback has that of another version, and what
 * is adopted is known already. 0: nobody knows, for it was but proposed when who stole a head key
 * had nodes serve it. */
static uint64_t number_of(const struct cp_record *record)
{
    uint64_t version = record->origin == 0 ? record->version : record->origin;
    const struct entry *e = find_entry(version);
    if (e != NULL) {
        return e->number;
    }
    return record->request[0] == 'r' ? strtoull(record->request + 1, NULL, 10) : 0;
}

void ledger_published(struct cp_store *store, const struct cp_record *record)
{
    struct entry made = {.version = record->version, .epoch = record->epoch, .is_there = true};
    (void)snprintf(made.request, sizeof(made.request), "%s", record->request);
    memcpy(made.manifest_digest, record->manifest_digest, DIGEST_SIZE);
    memcpy(made.content_digest, record->content_digest, DIGEST_SIZE);
    struct snap_set *set = load_set(store, record);
    digest_parts(set, made.parts_digest);
    snap_set_unref(set);
    made.number = number_of(record);
    sim_note("version %llu is published, %s", (unsigned long long)made.version, made.request);
    struct entry *before = find_entry(made.version);
    if (before != NULL) {
        if (memcmp(before->manifest_digest, made.manifest_digest, DIGEST_SIZE) != 0) {
            sim_fail("version %llu has two contents", (unsigned long long)made.version);
        }
        if (before->is_there) {
            sim_fail("version %llu is published twice", (unsigned long long)made.version);
        }
        *before = made;
    } else {
        CHECK(ledger.entry_count < ENTRIES_MAX);
        ledger.entries[ledger.entry_count++] = made;
    }
    if (made.version <= ledger.newest) {
        sim_fail("version %llu is published behind %llu", (unsigned long long)made.version,
                 (unsigned long long)ledger.newest);
    }
    ledger.newest = made.version;
    for (size_t i = 0; i < NODES; i++) {
        uint64_t served = node_serves(&world.nodes[i]);
        if (served != UINT64_MAX && served > made.version) {
            sim_fail("version %llu is published, and %s serves %llu already",
                     (unsigned long long)made.version, world.nodes[i].name,
                     (unsigned long long)served);
        }
    }
    for (size_t i = 0; i < ledger.entry_count; i++) {
        const struct entry *e = &ledger.entries[i];
        bool other = e->version != made.version && e->is_there;
        if (other && made.request[0] != '\0' && strcmp(e->request, made.request) == 0) {
            sim_fail("request %s is published twice", made.request);
        }
    }
}

void ledger_backed_up(void)
{
    ledger.handed_backed = ledger.handed;
    for (size_t i = 0; i < ledger.entry_count; i++) {
        ledger.entries[i].is_backed = ledger.entries[i].is_there;
    }
    for (size_t i = 0; i < ledger.epoch_count; i++) {
        ledger.epochs[i].is_backed = ledger.epochs[i].is_there;
    }
}

void ledger_restored(void)
{
    ledger.handed = ledger.handed_backed;
    ledger.newest = 0;
    for (size_t i = 0; i < ledger.entry_count; i++) {
        struct entry *e = &ledger.entries[i];
        e->is_there = e->is_backed;
        ledger.newest = e->is_there && e->version > ledger.newest ? e->version : ledger.newest;
    }
    for (size_t i = 0; i < ledger.epoch_count; i++) {
        ledger.epochs[i].is_there = ledger.epochs[i].is_backed;
    }
    sim_note("the database is back at version %llu", (unsigned long long)ledger.newest);
}

uint64_t ledger_newest(void)
{
    return ledger.newest;
}

bool ledger_request(const char *request, uint64_t *out_version)
{
    for (size_t i = 0; i < ledger.entry_count; i++) {
        const struct entry *e = &ledger.entries[i];
        if (e->is_there && strcmp(e->request, request) == 0) {
            *out_version = e->version;
            return true;
        }
    }
    return false;
}

bool ledger_holds(uint64_t version, uint64_t number)
{
    const struct entry *e = find_entry(version);
    return e != NULL && e->is_there && (e->number == number || e->number == 0);
}

uint64_t ledger_count(void)
{
    return ledger.entry_count;
}

/* ---- signatures ---- */

void ledger_signed(const struct cp_signer_request *request, const uint8_t key_id[KEY_ID_SIZE])
{
    bool is_head = request->kind == CONTAINER_HEAD;
    uint64_t high = is_head ? request->epoch : request->version;
    uint64_t low = is_head ? request->sequence : 0;
    uint8_t digest[DIGEST_SIZE];
    ids_digest(request->body, digest);
    struct signer *s = NULL;
    for (size_t i = 0; i < ledger.signer_count && s == NULL; i++) {
        s = memcmp(ledger.signers[i].key_id, key_id, KEY_ID_SIZE) == 0 ? &ledger.signers[i] : NULL;
    }
    if (s == NULL) {
        CHECK(ledger.signer_count < SIGNERS_MAX);
        s = &ledger.signers[ledger.signer_count++];
        memcpy(s->key_id, key_id, KEY_ID_SIZE);
    }
    bool lower = high < s->high || (high == s->high && low < s->low);
    bool other = high == s->high && low == s->low && memcmp(digest, s->digest, DIGEST_SIZE) != 0;
    if (lower || other) {
        sim_fail("a signature of %s %llu.%llu leaves behind %llu.%llu",
                 is_head ? "head" : "version", (unsigned long long)high, (unsigned long long)low,
                 (unsigned long long)s->high, (unsigned long long)s->low);
    }
    s->high = high;
    s->low = low;
    memcpy(s->digest, digest, DIGEST_SIZE);
}

/* ---- heads ---- */

static bool has_manifest(const struct head_target *target)
{
    char key[SNAP_KEY_SIZE];
    struct slice value;
    snap_key_manifest(target->version, target->manifest_digest, key);
    return nats_get(WORLD_SNAPSHOTS, slice_str(key), &value);
}

/* The highest version that a head points at, if it is signed by a key of the newest root; 'known':
 * of those whose manifest is there. */
static uint64_t version_of(struct slice bytes, bool known)
{
    struct container c;
    struct container_signers signers;
    auto_head struct head head = {0};
    struct err e = container_read(bytes, CONTAINER_HEAD, world.root.environment_id, &c);
    e = err_ok(e) ? container_verify(&c, &world.root.ring, KEY_ROLE_HEAD, &signers) : e;
    e = err_ok(e) ? head_decode(c.body, &head) : e;
    uint64_t highest = 0;
    for (uint32_t i = 0; i < head.target_count && err_ok(e); i++) {
        uint64_t version = head.targets[i].version;
        bool counts = version > highest && (!known || has_manifest(&head.targets[i]));
        highest = counts ? version : highest;
    }
    return highest;
}

/* While there is one root everybody knows every key. A head whose manifest somebody purged, and
 * that a database from before knows nothing of, may be one that a stolen key made of nothing. */
void ledger_pointed(struct slice before, struct slice head)
{
    uint64_t was = version_of(before, /* known= */ true);
    uint64_t is = version_of(head, /* known= */ false);
    if (world.root_count == 1 && !ledger.head_key_leaked && is < was) {
        sim_fail("a head of version %llu takes the place of one of %llu", (unsigned long long)is,
                 (unsigned long long)was);
    }
}

/* ---- nodes ---- */

/* With a head key a node can be pointed at what was signed by enough and did not come to its row.
 * Its number is used by nobody else. */
static bool is_signed_by_enough(const struct snap_set *set)
{
    char key[SNAP_KEY_SIZE];
    struct slice value;
    snap_key_manifest(snap_set_version(set), snap_set_manifest_digest(set), key);
    return ledger.head_key_leaked && nats_ever(WORLD_SNAPSHOTS, slice_str(key), &value) &&
           world_verifies(value, snap_set_manifest_digest(set));
}

void ledger_served(const char *node, const struct dp_model *model)
{
    uint64_t version = dp_model_version(model);
    const struct entry *e = find_entry(version);
    const struct snap_set *set = dp_model_set(model);
    uint8_t parts[DIGEST_SIZE];
    if (e == NULL && is_signed_by_enough(set)) {
        return;
    }
    if (e == NULL) {
        sim_fail("%s serves version %llu, which was never published", node,
                 (unsigned long long)version);
    }
    digest_parts(set, parts);
    if (memcmp(snap_set_manifest_digest(set), e->manifest_digest, DIGEST_SIZE) != 0 ||
        memcmp(dp_model_content_digest(model), e->content_digest, DIGEST_SIZE) != 0 ||
        memcmp(parts, e->parts_digest, DIGEST_SIZE) != 0) {
        sim_fail("%s serves as version %llu what is not", node, (unsigned long long)version);
    }
    const char *wrong = content_wrong(model, e->number);
    if (wrong != NULL) {
        sim_fail("%s serves as version %llu another content: %s", node, (unsigned long long)version,
                 wrong);
    }
}
