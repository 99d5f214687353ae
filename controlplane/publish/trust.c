/* trust: see trust.h. */
#include "controlplane/publish/trust.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "controlplane/publish/sealed.h"

enum {
    SENTENCE_MAX = 4096,
    ID_TEXT_SIZE = 2 * KEY_ID_SIZE + 1,
    TELL_MS = 60000,
    ROOTS_PUT = 8, /* at the beginning of a leadership. */
};

void cp_trust_init(struct cp_trust *t, const char *environment, const char *replica,
                   struct cp_roots *roots, struct cp_signer *signer)
{
    *t = (struct cp_trust){.environment = environment,
                           .replica = replica,
                           .roots = roots,
                           .signer = signer,
                           .said_manifest = true,
                           .files_version = cp_roots_version(roots)};
}

/* ---- a beat ---- */

/* What cannot be read now is read with the next beat; a root that nobody signed stays out. */
static void poll_roots(struct cp_trust *t, struct cp_store *store)
{
    uint64_t before = cp_roots_version(t->roots);
    struct err e = cp_roots_poll(t->roots, store, t->environment);
    if (!err_ok(e) && e.code != t->said_poll) {
        LOG(LOG_ERROR, "trust", "root_not_taken", LOG_ERR(e), LOG_STR("text", err_text(e.code)),
            LOG_U64("in_force", before));
    }
    t->said_poll = e.code;
    cp_roots_now(t->roots, &t->root);
    if (t->root.version != before) {
        LOG(LOG_INFO, "trust", "root_taken", LOG_U64("version", t->root.version),
            LOG_U64("before", before));
    }
}

static void key_text(const uint8_t public[KEY_PUBLIC_SIZE], char out[ID_TEXT_SIZE])
{
    uint8_t id[KEY_ID_SIZE];
    key_id(public, id);
    text_hex(slice_of(id, sizeof(id)), out);
}

static void reload_keys(struct cp_trust *t)
{
    bool changed = false;
    auto_buf struct buf why = BUF_MAX(SENTENCE_MAX);
    struct err e = cp_signer_reload(t->signer, &changed, &why);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "trust", "keys_not_taken", LOG_ERR(e), LOG_SLICE("why", buf_slice(&why)));
        return;
    }
    char manifest[ID_TEXT_SIZE];
    char head[ID_TEXT_SIZE];
    struct cp_signer_hello hello = cp_signer_hello(t->signer);
    key_text(hello.manifest_public, manifest);
    key_text(hello.head_public, head);
    LOG(LOG_INFO, "trust", changed ? "keys_taken" : "keys_unchanged", LOG_STR("manifest", manifest),
        LOG_STR("head", head));
}

/* One that was started anew knows no sequence of the present epoch: the row gets the next. */
static struct err watch_signer(struct cp_trust *t)
{
    if (!cp_signer_is_gone(t->signer)) {
        return OK;
    }
    auto_buf struct buf why = BUF_MAX(SENTENCE_MAX);
    struct err e = cp_signer_restart(t->signer, &why);
    LOG(err_ok(e) ? LOG_WARN : LOG_ERROR, "leader", err_ok(e) ? "signer_restarted" : "signer_gone",
        LOG_ERR(e), LOG_SLICE("why", buf_slice(&why)));
    return err_ok(e) ? OK : FAIL(E_SIGNER_GONE);
}

static bool ends_soon(int64_t left_ms, uint64_t warn_ms)
{
    return left_ms < 0 || (uint64_t)left_ms < warn_ms;
}

static void warn_of_ends(struct cp_trust *t)
{
    const struct cp_keys *keys = &t->keys;
    bool key_ends = keys->head_code == E_OK && ends_soon(keys->head_left_ms, limits.key_warn_ms);
    if (key_ends && !t->said_key_ends) {
        LOG(LOG_WARN, "trust", "head_key_ends", LOG_STR("name", keys->head),
            LOG_I64("seconds_left", keys->head_left_ms / 1000),
            LOG_STR("fix", err_fix(E_KEY_EXPIRED)));
    }
    t->said_key_ends = key_ends;
    bool root_ends = ends_soon(keys->root_left_ms, limits.root_warn_ms);
    if (root_ends && !t->said_root_ends) {
        LOG(LOG_WARN, "trust", "root_ends", LOG_U64("version", t->root.version),
            LOG_I64("seconds_left", keys->root_left_ms / 1000),
            LOG_STR("fix", err_fix(E_ROOT_EXPIRED)));
    }
    t->said_root_ends = root_ends;
}

static void judge_keys(struct cp_trust *t)
{
    struct cp_signer_hello hello = cp_signer_hello(t->signer);
    cp_keys_judge(&t->root, &hello, clock_wall_ms(), &t->keys);
    if (t->keys.head_code != t->said_head) {
        enum err_code code = t->keys.head_code;
        LOG(code == E_OK ? LOG_INFO : LOG_ERROR, "trust", "head_key",
            LOG_STR("code", err_name(code)), LOG_STR("text", err_text(code)),
            LOG_STR("fix", err_fix(code)));
        t->said_head = code;
    }
    if (t->keys.manifest_known != t->said_manifest) {
        t->said_manifest = t->keys.manifest_known;
        LOG(t->said_manifest ? LOG_INFO : LOG_ERROR, "trust", "manifest_key",
            LOG_STR("text", t->said_manifest ? "the root in force has this replica's manifest key"
                                             : "the root in force does not have this replica's "
                                               "manifest key: its signatures count for nothing"));
    }
    warn_of_ends(t);
}

static bool is_told(const struct cp_trust *t, const struct cp_signer_hello *hello, uint64_t now_ns)
{
    return t->told_ns != 0 && now_ns - t->told_ns < UINT64_C(1000000) * TELL_MS &&
           memcmp(t->told.manifest_public, hello->manifest_public, KEY_PUBLIC_SIZE) == 0 &&
           memcmp(t->told.head_public, hello->head_public, KEY_PUBLIC_SIZE) == 0;
}

/* For people, who ask any replica: what cannot be told now is told later. */
static void tell_keys(struct cp_trust *t, struct cp_store *store)
{
    struct cp_signer_hello hello = cp_signer_hello(t->signer);
    struct cp_replica replica = {.seen_ms = 0};
    uint64_t now_ns = clock_mono_ns();
    if (t->said_poll != E_OK || is_told(t, &hello, now_ns)) { /* who is silent is asked once. */
        return;
    }
    (void)memcpy(replica.manifest_key, hello.manifest_public, sizeof(replica.manifest_key));
    (void)memcpy(replica.head_key, hello.head_public, sizeof(replica.head_key));
    (void)snprintf(replica.name, sizeof(replica.name), "%s", t->replica);
    struct err e = store->ops->replica_put(store, t->environment, &replica);
    if (!err_ok(e)) {
        LOG(LOG_DEBUG, "trust", "keys_not_told", LOG_ERR(e));
        return;
    }
    t->told = hello;
    t->told_ns = now_ns;
}

struct err cp_trust_beat(struct cp_trust *t, struct cp_store *store, bool reload)
{
    poll_roots(t, store);
    if (reload || t->root.version != t->files_version) {
        t->files_version = t->root.version;
        reload_keys(t);
    }
    TRY(watch_signer(t));
    judge_keys(t);
    tell_keys(t, store);
    return t->keys.head_code == E_OK ? OK : FAIL(t->keys.head_code);
}

/* ---- what a leader owes to its root ---- */

uint64_t cp_trust_epoch(struct cp_trust *t)
{
    struct root_floor floor = {0};
    uint64_t signed_epoch = cp_signer_hello(t->signer).epoch;
    (void)cp_roots_floor(t->roots, &floor);
    return signed_epoch > floor.epoch ? signed_epoch : floor.epoch;
}

void cp_trust_lead(struct cp_trust *t)
{
    t->put_version = 0;
    t->raised_version = 0;
    t->judged_root = 0;
    t->unsigned_version = 0;
}

struct err cp_trust_put(struct cp_trust *t, const struct cp_bucket *bucket)
{
    if (t->put_version == t->root.version) {
        return OK;
    }
    /* The first time the newest ones, of which the leader before may have put none; and those
     * before them, too, unless the last of these lies there. */
    uint64_t newest = t->root.version;
    uint64_t first = newest > ROOTS_PUT ? newest - ROOTS_PUT + 1 : 1;
    if (t->put_version == 0 && first > 1) {
        bool there = false;
        TRY(cp_bucket_has_root(bucket, first - 1, &there));
        first = there ? first : 1;
    }
    TRY(cp_bucket_put_roots(bucket, t->put_version == 0 ? first : t->put_version + 1));
    t->put_version = t->root.version;
    return OK;
}

struct err cp_trust_raise(struct cp_trust *t, struct cp_store *store, const struct cp_fence *fence)
{
    struct root_floor floor = {0};
    if (t->raised_version == t->root.version) {
        return OK;
    }
    if (cp_roots_floor(t->roots, &floor)) {
        TRY(store->ops->version_raise(store, fence, floor.version));
    }
    t->raised_version = t->root.version;
    return OK;
}

/* The row is that of the last judgement, and so is the root. */
static bool held_before(const struct cp_trust *t, const struct cp_record *newest)
{
    return t->judged_root == t->root.version && t->judged_version == newest->version &&
           memcmp(t->judged_digest, newest->manifest_digest, DIGEST_SIZE) == 0;
}

/* Said once a row. What is below it is looked for once a leadership. */
static struct err fall_back(struct cp_trust *t, const struct cp_sealed_place *place,
                            struct cp_record *newest, struct err why)
{
    if (t->said_unsigned != newest->version) {
        t->said_unsigned = newest->version;
        LOG(LOG_ERROR, "trust", "journal_row_unsigned", LOG_U64("version", newest->version),
            LOG_ERR(why),
            LOG_STR("text", "no threshold of keys signed this row: somebody else writes to the "
                            "database, or it is damaged; the next publication stands above it"));
    }
    if (t->unsigned_version != newest->version) {
        struct cp_record below = {0};
        struct err e = cp_sealed_newest(place, &below, /* container= */ NULL);
        TRY(e.code == E_NOT_FOUND ? OK : e);
        t->unsigned_version = newest->version;
        t->fallback = below;
    }
    *newest = t->fallback;
    return FAIL(E_MANIFEST_UNSIGNED);
}

struct err cp_trust_newest(struct cp_trust *t, struct cp_store *store, struct cp_record *newest,
                           bool *out_holds)
{
    struct root_floor floor = {0};
    const struct cp_sealed_place place = {t->roots, store, t->environment};
    *out_holds = true;
    if (t->unsigned_version != newest->version) {
        t->unsigned_version = 0; /* when it comes again, what is below it may be another. */
    }
    if (newest->version == 0 || held_before(t, newest)) {
        return OK;
    }
    auto_buf struct buf container = BUF_MAX(CP_SEALED_CONTAINER_MAX);
    auto_manifest struct manifest manifest = {0};
    struct cp_record record;
    bool in_force = false;
    TRY(store->ops->load(store, t->environment, newest->version, &record, &container));
    const struct manifest_wanted wanted = {.version = newest->version,
                                           .digest = newest->manifest_digest};
    struct err e = cp_roots_open(t->roots, buf_slice(&container), &wanted, &manifest, &in_force);
    if (cp_sealed_is_none(e)) {
        return fall_back(t, &place, newest, e);
    }
    TRY(e);
    (void)cp_roots_floor(t->roots, &floor);
    *out_holds = newest->version >= floor.version && in_force;
    if (*out_holds) {
        t->judged_root = t->root.version;
        t->judged_version = newest->version;
        (void)memcpy(t->judged_digest, newest->manifest_digest, DIGEST_SIZE);
    }
    return OK;
}
