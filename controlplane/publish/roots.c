/* roots: see roots.h. */
#include "controlplane/publish/roots.h"

#include <fcntl.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/base/slice.h"

enum {
    ROOT_FILE_MAX =
        CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE + ROOT_BODY_MAX
};

static struct err read_file(const char *path, struct buf *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL(E_NOT_FOUND);
    }
    for (;;) { /* ends at the end of the file, or past the bound of 'out'. */
        uint8_t *room = NULL;
        TRY(buf_reserve(out, 4096, &room));
        ssize_t size = read(fd, room, 4096);
        if (size < 0) {
            return FAIL(E_IO);
        }
        if (size == 0) {
            return OK;
        }
        buf_commit(out, (size_t)size);
    }
}

/* The first root is trusted by where it comes from; each later one by the one before. */
static struct err take(struct cp_roots *roots, struct root_walk *walk, struct slice bytes)
{
    if (roots->count == 0) {
        TRY(root_open(bytes, &roots->root));
        root_walk_start(&roots->root, walk);
        return OK;
    }
    TRY(root_walk_step(walk, bytes));
    roots->root = walk->at;
    return OK;
}

static struct err load_one(struct cp_roots *roots, struct root_walk *walk, const char *path)
{
    if (roots->count == CP_ROOTS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    struct buf *bytes = &roots->containers[roots->count];
    *bytes = BUF_MAX(ROOT_FILE_MAX + 4096);
    struct err e = read_file(path, bytes);
    if (err_ok(e)) {
        e = take(roots, walk, buf_slice(bytes));
    }
    if (!err_ok(e)) {
        buf_free(bytes);
        return e;
    }
    roots->versions[roots->count++] = roots->root.version;
    return OK;
}

struct err cp_roots_load(const char *paths, const char *environment, struct cp_roots *out,
                         struct buf *message)
{
    struct root_walk walk;
    struct slice rest = slice_str(paths);
    *out = (struct cp_roots){0};
    while (rest.size > 0) {
        struct slice item = slice_head(rest, slice_find(rest, ','));
        auto_free char *path = slice_dup(item);
        struct err e = load_one(out, &walk, path);
        if (!err_ok(e)) {
            cp_roots_free(out);
            TRY(buf_addf(message, "trust-root: %s: %s", path, err_text(e.code)));
            return e;
        }
        rest = slice_from(rest, item.size + 1);
    }
    if (out->count == 0 || strcmp(out->root.environment, environment) != 0) {
        TRY(buf_addf(message, "trust-root: the root is that of environment \"%s\", not of \"%s\"",
                     out->root.environment, environment));
        cp_roots_free(out);
        return FAIL(E_USAGE);
    }
    return OK;
}

void cp_roots_free(struct cp_roots *roots)
{
    for (size_t i = 0; i < roots->count; i++) {
        buf_free(&roots->containers[i]);
    }
    roots->count = 0;
}

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

struct err cp_roots_check_signer(const struct cp_roots *roots, const struct cp_signer_hello *hello,
                                 struct buf *message)
{
    bool manifest = has_key(&roots->root, KEY_ROLE_MANIFEST, hello->manifest_public);
    if (manifest && has_key(&roots->root, KEY_ROLE_HEAD, hello->head_public)) {
        return OK;
    }
    TRY(buf_addf(message, "key-%s: the root in force (version %llu) does not have this key",
                 manifest ? "head" : "manifest", (unsigned long long)roots->root.version));
    return FAIL(E_USAGE);
}
