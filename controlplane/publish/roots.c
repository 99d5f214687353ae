/* roots: see roots.h. */
#include "controlplane/publish/roots.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/lock.h"
#include "common/base/scope.h"
#include "common/base/slice.h"

enum { READ_STEP = 4096 };

struct cp_roots {
    uint8_t environment[ENVIRONMENT_SIZE]; /* set by cp_roots_new(); never changes. */
    struct {
        struct lock lock;
        struct root oldest GUARDED;
        struct root newest GUARDED; /* in force. */
        size_t count GUARDED;       /* versions are oldest.version + index. */
        struct buf containers[CP_ROOTS_MAX] GUARDED;
    } shared;
};

static struct err read_file(const char *path, struct buf *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL(E_NOT_FOUND);
    }
    for (;;) { /* ends at the end of the file, or past the bound of 'out'. */
        uint8_t *room = NULL;
        TRY(buf_reserve(out, READ_STEP, &room));
        ssize_t size = read(fd, room, READ_STEP);
        if (size < 0) {
            return FAIL(E_IO);
        }
        if (size == 0) {
            return OK;
        }
        buf_commit(out, (size_t)size);
    }
}

static struct err load(struct cp_roots *roots, struct slice path, struct buf *message)
{
    auto_free char *name = slice_dup(path);
    auto_buf struct buf bytes = BUF_MAX(CP_ROOT_CONTAINER_MAX + READ_STEP);
    struct err e = read_file(name, &bytes);
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

static bool has_key(const struct root *root, enum key_role role, const uint8_t *public)
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        const struct ring_key *key = &root->ring.keys[i];
        if (key->role == role && memcmp(key->public, public, KEY_PUBLIC_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

struct err cp_roots_check_signer(struct cp_roots *roots, const struct cp_signer_hello *hello,
                                 struct buf *message)
{
    struct root root;
    cp_roots_now(roots, &root);
    bool manifest = has_key(&root, KEY_ROLE_MANIFEST, hello->manifest_public);
    if (manifest && has_key(&root, KEY_ROLE_HEAD, hello->head_public)) {
        return OK;
    }
    TRY(buf_addf(message, "key-%s: the root in force (version %llu) does not have this key",
                 manifest ? "head" : "manifest", (unsigned long long)root.version));
    return FAIL(E_USAGE);
}
