/* roots: see roots.h. */
#include "controlplane/publish/roots.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/base/slice.h"
#include "controlplane/identity/files.h"
#include "controlplane/publish/keys.h"

/* A database's numbers have a sign, and there must be room above a floor. */
#define FLOOR_MAX (INT64_MAX / 4)

struct cp_roots {
    uint8_t environment[ENVIRONMENT_SIZE]; /* set by cp_roots_new(); never changes. */
    struct {
        struct lock lock;
        struct root oldest GUARDED;
        struct root newest GUARDED; /* in force. */
        bool has_floor GUARDED;
        struct root_floor floor GUARDED; /* of the newest root that has one. */
        uint64_t trusted GUARDED;        /* version of the first one, trusted by its file. */
        size_t count GUARDED;            /* versions are oldest.version + index. */
        struct buf containers[CP_ROOTS_MAX] GUARDED;
    } shared;
};

static struct err load(struct cp_roots *roots, struct slice path, struct buf *message)
{
    auto_free char *name = slice_dup(path);
    auto_buf struct buf bytes = BUF_MAX(CP_ROOT_CONTAINER_MAX);
    struct err e = cp_file_read(name, &bytes);
    if (err_ok(e)) {
        e = cp_roots_take(roots, buf_slice(&bytes), /* out_new= */ NULL);
    }
    if (!err_ok(e)) {
        TRY(buf_addf(message, "trust-root: %s: %s", name, err_text(e.code)));
    }
    return e;
}

static struct err load_all(struct cp_roots *roots, const char *paths, struct buf *message)
{
    struct slice rest = slice_str(paths);
    while (rest.size > 0) {
        struct slice item = slice_head(rest, slice_find(rest, ','));
        TRY(load(roots, item, message));
        rest = slice_from(rest, item.size + 1);
    }
    return OK;
}

struct err cp_roots_new(const char *paths, const char *environment, struct cp_roots **out,
                        struct buf *message)
{
    struct cp_roots *roots = calloc(1, sizeof(*roots));
    if (roots == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&roots->shared.lock);
    snap_environment(slice_str(environment), roots->environment);
    struct err e = load_all(roots, paths, message);
    struct root now = {0};
    cp_roots_now(roots, &now);
    if (err_ok(e) && strcmp(now.environment, environment) != 0) {
        e = buf_addf(message, "trust-root: the root is that of environment \"%s\", not of \"%s\"",
                     now.environment, environment);
        e = err_ok(e) ? FAIL(E_USAGE) : e;
    }
    if (!err_ok(e)) {
        cp_roots_free(roots);
        return e;
    }
    *out = roots;
    return OK;
}

void cp_roots_free(struct cp_roots *roots)
{
    if (roots == NULL) {
        return;
    }
    lock_take(&roots->shared.lock);
    for (size_t i = 0; i < roots->shared.count; i++) {
        buf_free(&roots->shared.containers[i]);
    }
    lock_drop(&roots->shared.lock);
    lock_free(&roots->shared.lock);
    free(roots);
}

void cp_roots_now(struct cp_roots *roots, struct root *out)
{
    lock_take(&roots->shared.lock);
    *out = roots->shared.newest;
    lock_drop(&roots->shared.lock);
}

uint64_t cp_roots_version(struct cp_roots *roots)
{
    lock_take(&roots->shared.lock);
    uint64_t version = roots->shared.newest.version;
    lock_drop(&roots->shared.lock);
    return version;
}

const uint8_t *cp_roots_environment(const struct cp_roots *roots)
{
    return roots->environment;
}

/* ---- taking one more ---- */

static struct err is_known(struct cp_roots *roots, uint64_t version, struct slice container)
    REQUIRES(roots->shared.lock)
{
    const struct buf *known = &roots->shared.containers[version - roots->shared.oldest.version];
    struct container here;
    struct container there;
    TRY(container_read(buf_slice(known), CONTAINER_ROOT, /* environment= */ NULL, &here));
    TRY(container_read(container, CONTAINER_ROOT, /* environment= */ NULL, &there));
    return slice_eq(here.body, there.body) ? OK : FAIL(E_CONFLICT);
}

static void forget_oldest(struct cp_roots *roots) REQUIRES(roots->shared.lock)
{
    struct root next;
    if (!err_ok(root_open(buf_slice(&roots->shared.containers[1]), &next))) {
        return; /* it was opened before: cannot be. */
    }
    buf_free(&roots->shared.containers[0]);
    memmove(roots->shared.containers, roots->shared.containers + 1,
            (CP_ROOTS_MAX - 1) * sizeof(roots->shared.containers[0]));
    roots->shared.containers[CP_ROOTS_MAX - 1] = (struct buf){0};
    roots->shared.oldest = next;
    roots->shared.count--;
}

/* Takes 'copy', and leaves it empty. */
static struct err take_newer(struct cp_roots *roots, struct buf *copy, bool *out_new)
    REQUIRES(roots->shared.lock)
{
    struct root_walk walk;
    root_walk_start(&roots->shared.newest, &walk);
    TRY(root_walk_step(&walk, buf_slice(copy)));
    if (roots->shared.count == CP_ROOTS_MAX) {
        forget_oldest(roots);
    }
    roots->shared.newest = walk.at;
    if (walk.has_floor) {
        roots->shared.has_floor = true;
        roots->shared.floor = walk.floor;
    }
    roots->shared.containers[roots->shared.count++] = *copy;
    *copy = (struct buf){0};
    *out_new = true;
    return OK;
}

/* The oldest one known vouches for the one before it by the signatures that it carries. */
static struct err take_older(struct cp_roots *roots, const struct root *older, struct buf *copy)
    REQUIRES(roots->shared.lock)
{
    struct root_walk walk;
    root_walk_start(older, &walk);
    TRY(root_walk_step(&walk, buf_slice(&roots->shared.containers[0])));
    if (roots->shared.count == CP_ROOTS_MAX) {
        return OK; /* the newer ones are what nodes ask for. */
    }
    memmove(roots->shared.containers + 1, roots->shared.containers,
            roots->shared.count * sizeof(roots->shared.containers[0]));
    roots->shared.oldest = *older;
    if (older->has_floor && !roots->shared.has_floor) {
        roots->shared.has_floor = true;
        roots->shared.floor = older->floor;
    }
    roots->shared.containers[0] = *copy;
    roots->shared.count++;
    *copy = (struct buf){0};
    return OK;
}

static struct err take(struct cp_roots *roots, const struct root *root, struct buf *copy,
                       bool *out_new) REQUIRES(roots->shared.lock)
{
    if (roots->shared.count == 0) {
        roots->shared.oldest = *root;
        roots->shared.newest = *root;
        roots->shared.trusted = root->version;
        roots->shared.has_floor = root->has_floor;
        roots->shared.floor = root->floor;
        roots->shared.containers[roots->shared.count++] = *copy;
        *copy = (struct buf){0};
        *out_new = true;
        return OK;
    }
    uint64_t oldest = roots->shared.oldest.version;
    uint64_t newest = roots->shared.newest.version;
    if (root->version >= oldest && root->version <= newest) {
        return is_known(roots, root->version, buf_slice(copy));
    }
    if (root->version == newest + 1) {
        return take_newer(roots, copy, out_new);
    }
    return root->version + 1 == oldest ? take_older(roots, root, copy) : FAIL(E_ROOT_MISSING);
}

struct err cp_roots_take(struct cp_roots *roots, struct slice container, bool *out_new)
{
    struct root root;
    bool is_new = false;
    auto_buf struct buf copy = BUF_MAX(CP_ROOT_CONTAINER_MAX);
    if (container.size > CP_ROOT_CONTAINER_MAX) {
        return FAIL(E_ROOT_MALFORMED);
    }
    TRY(root_open(container, &root));
    TRY(buf_add(&copy, container));
    lock_take(&roots->shared.lock);
    struct err e = take(roots, &root, &copy, &is_new);
    lock_drop(&roots->shared.lock);
    TRY(e);
    if (out_new != NULL) {
        *out_new = is_new;
    }
    return OK;
}

/* ---- before a root is published ---- */

static struct err judge_floor(const struct root *root, uint64_t epoch, struct buf *message)
{
    const struct root_floor *floor = &root->floor;
    if (floor->epoch > FLOOR_MAX || floor->version > FLOOR_MAX) {
        TRY(buf_addf(message, "floor: epoch and version are at most %" PRIu64,
                     (uint64_t)FLOOR_MAX));
        return FAIL(E_USAGE);
    }
    if (epoch > floor->epoch && epoch - floor->epoch > HEAD_EPOCH_JUMP) {
        TRY(buf_addf(message,
                     "floor: the leader's epoch is %" PRIu64 ", more than %d above %" PRIu64
                     ": nodes would refuse it as EPOCH_JUMP",
                     epoch, HEAD_EPOCH_JUMP, floor->epoch));
        return FAIL(E_USAGE);
    }
    return OK;
}

struct err cp_roots_judge(struct cp_roots *roots, struct slice container, uint64_t epoch,
                          struct root *out, struct buf *message)
{
    struct root_walk walk;
    TRY(root_open(container, out));
    lock_take(&roots->shared.lock);
    root_walk_start(&roots->shared.newest, &walk);
    bool is_old = out->version >= roots->shared.oldest.version &&
                  out->version <= roots->shared.newest.version;
    struct err e = is_old ? is_known(roots, out->version, container) : OK;
    lock_drop(&roots->shared.lock);
    if (is_old) {
        if (!err_ok(e)) {
            TRY(buf_addf(message, "another root %" PRIu64 " was published", out->version));
        }
        return e;
    }
    if (out->version != walk.at.version + 1) {
        TRY(buf_addf(message,
                     "the root in force is %" PRIu64 ": the next one is %" PRIu64 ", not %" PRIu64,
                     walk.at.version, walk.at.version + 1, out->version));
        return FAIL(E_ROOT_MISSING);
    }
    TRY(root_walk_step(&walk, container));
    TRY(root_walk_end(&walk, clock_wall_ms(), /* tolerance_ms= */ 0));
    return out->has_floor ? judge_floor(out, epoch, message) : OK;
}

bool cp_roots_floor(struct cp_roots *roots, struct root_floor *out)
{
    lock_take(&roots->shared.lock);
    bool has_floor = roots->shared.has_floor;
    if (has_floor) {
        *out = roots->shared.floor;
    }
    lock_drop(&roots->shared.lock);
    return has_floor;
}

struct opening {
    struct slice container;
    const struct manifest_wanted *wanted;
    struct manifest *out;
};

/* E_EXISTS ends the visit: it is open. */
static struct err open_by(void *ctx, uint64_t version, struct slice container)
{
    (void)version;
    const struct opening *o = ctx;
    struct root root;
    TRY(root_open(container, &root));
    struct err e = manifest_open(o->container, &root, o->wanted, o->out);
    bool by_others = e.code == E_MANIFEST_UNSIGNED || e.code == E_MANIFEST_WRONG_KEY;
    return err_ok(e) ? FAIL(E_EXISTS) : by_others ? OK : e;
}

struct err cp_roots_open(struct cp_roots *roots, struct slice container,
                         const struct manifest_wanted *wanted, struct manifest *out,
                         bool *out_in_force)
{
    struct root root;
    cp_roots_now(roots, &root);
    struct err e = manifest_open(container, &root, wanted, out);
    bool in_force = err_ok(e);
    if (e.code == E_MANIFEST_UNSIGNED || e.code == E_MANIFEST_WRONG_KEY) {
        struct opening opening = {.container = container, .wanted = wanted, .out = out};
        lock_take(&roots->shared.lock);
        uint64_t trusted = roots->shared.trusted;
        lock_drop(&roots->shared.lock);
        struct err found = cp_roots_each(roots, trusted, open_by, &opening);
        e = found.code == E_EXISTS ? OK : err_ok(found) ? e : found;
    }
    TRY(e);
    if (out_in_force != NULL) {
        *out_in_force = in_force;
    }
    return OK;
}

/* ---- the database ---- */

struct exchange {
    struct cp_roots *roots;
    struct cp_store *store;
    const char *environment;
    uint64_t oldest;       /* of ours, before. */
    uint64_t newest_there; /* 0: it has none. */
    struct buf *older;     /* CP_ROOTS_MAX of them, ascending. */
    size_t older_count;
    struct err left_out; /* why a root of the database was not taken. */
};

static struct err take_there(void *ctx, uint64_t version, struct slice container)
{
    struct exchange *x = ctx;
    x->newest_there = version;
    if (version >= x->oldest) {
        struct err e = err_ok(x->left_out) ? cp_roots_take(x->roots, container, NULL) : OK;
        if (e.code == E_ROOT_UNSIGNED || e.code == E_ROOT_MALFORMED) {
            x->left_out = e; /* nor is any behind it. */
            return OK;
        }
        return e;
    }
    if (x->older_count == CP_ROOTS_MAX) {
        return OK;
    }
    x->older[x->older_count] = BUF_MAX(CP_ROOT_CONTAINER_MAX);
    return buf_add(&x->older[x->older_count++], container);
}

/* From the newest of the older ones down; the first that is not one of ours ends it. */
static void take_older_there(struct exchange *x)
{
    for (size_t i = x->older_count; i > 0; i--) {
        struct err e = cp_roots_take(x->roots, buf_slice(&x->older[i - 1]), NULL);
        if (!err_ok(e)) {
            x->left_out = e;
            return;
        }
    }
}

static struct err put_there(void *ctx, uint64_t version, struct slice container)
{
    const struct exchange *x = ctx;
    return x->store->ops->root_put(x->store, x->environment, version, container);
}

static struct err exchange(struct exchange *x, struct buf *message)
{
    struct err e =
        x->store->ops->roots_get(x->store, x->environment, /* version= */ 0, take_there, x);
    if (e.code == E_CONFLICT || e.code == E_ROOT_MISSING) {
        TRY(buf_addf(message, "trust-root: root %" PRIu64 " of the database %s", x->newest_there,
                     e.code == E_CONFLICT ? "is another one"
                                          : "is further ahead: name the roots before it, too"));
    }
    TRY(e);
    if (x->newest_there != 0 && x->newest_there + 1 < x->oldest) {
        TRY(buf_addf(message,
                     "trust-root: the database's newest root is %" PRIu64
                     ": name the ones between it and %" PRIu64 ", too",
                     x->newest_there, x->oldest));
        return FAIL(E_ROOT_MISSING);
    }
    take_older_there(x);
    return cp_roots_each(x->roots, x->newest_there + 1, put_there, x);
}

static struct err exchange_once(struct cp_roots *roots, struct cp_store *store,
                                const char *environment, struct buf *message)
{
    struct exchange x = {.roots = roots, .store = store, .environment = environment};
    x.older = calloc(CP_ROOTS_MAX, sizeof(*x.older));
    if (x.older == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_take(&roots->shared.lock);
    x.oldest = roots->shared.oldest.version;
    lock_drop(&roots->shared.lock);
    struct err e = exchange(&x, message);
    if (!err_ok(x.left_out)) {
        LOG(LOG_ERROR, "roots", "root_left_out", LOG_ERR(x.left_out),
            LOG_STR("text", err_text(x.left_out.code)));
    }
    for (size_t i = 0; i < x.older_count; i++) {
        buf_free(&x.older[i]);
    }
    free(x.older);
    return e;
}

struct err cp_roots_exchange(struct cp_roots *roots, struct cp_store *store,
                             const char *environment, struct buf *message)
{
    struct err e = exchange_once(roots, store, environment, message);
    if (e.code == E_CONFLICT) { /* another replica put the same ones meanwhile. */
        buf_clear(message);
        e = exchange_once(roots, store, environment, message);
    }
    return e;
}

static struct err take_next(void *ctx, uint64_t version, struct slice container)
{
    (void)version;
    return cp_roots_take(ctx, container, /* out_new= */ NULL);
}

struct err cp_roots_poll(struct cp_roots *roots, struct cp_store *store, const char *environment)
{
    return store->ops->roots_get(store, environment, cp_roots_version(roots) + 1, take_next, roots);
}

/* ---- handing out ---- */

/* The first root from 'version' on; E_NOT_FOUND behind the newest. */
static struct err copy_from(struct cp_roots *roots, uint64_t version, uint64_t *out_version,
                            struct buf *out) REQUIRES(roots->shared.lock)
{
    uint64_t oldest = roots->shared.oldest.version;
    uint64_t at = version < oldest ? oldest : version;
    if (at - oldest >= roots->shared.count) {
        return FAIL(E_NOT_FOUND);
    }
    *out_version = at;
    buf_clear(out);
    return buf_add(out, buf_slice(&roots->shared.containers[at - oldest]));
}

struct err cp_roots_each(struct cp_roots *roots, uint64_t version, cp_root_fn *visit, void *ctx)
{
    auto_buf struct buf copy = BUF_MAX(CP_ROOT_CONTAINER_MAX);
    for (uint64_t next = version;; next++) { /* ends behind the newest. */
        lock_take(&roots->shared.lock);
        struct err e = copy_from(roots, next, &next, &copy);
        lock_drop(&roots->shared.lock);
        if (e.code == E_NOT_FOUND) {
            return OK;
        }
        TRY(e);
        TRY(visit(ctx, next, buf_slice(&copy)));
    }
}

/* ---- the signer's keys ---- */

struct err cp_roots_check_signer(struct cp_roots *roots, const struct cp_signer_hello *hello,
                                 struct buf *message)
{
    struct root root;
    struct cp_keys keys;
    cp_roots_now(roots, &root);
    /* Whether its time is over is no matter here: a server whose key has ended must run, so that it
     * can be given the root with the next one. */
    cp_keys_judge(&root, hello, /* now_ms= */ 0, &keys);
    if (!keys.manifest_known || keys.head_code != E_OK) {
        TRY(buf_addf(message,
                     "key-%s: the root in force (version %" PRIu64 ") does not have this key",
                     keys.manifest_known ? "head" : "manifest", root.version));
        return FAIL(E_USAGE);
    }
    if (cp_key_is_break_glass(keys.manifest)) {
        TRY(buf_addf(message, "key-manifest: %s is a key that people hold, and no replica",
                     keys.manifest));
        return FAIL(E_USAGE);
    }
    return OK;
}
