/*
 * set_dir: a directory as a source set.
 *
 * Directories are opened relative to their parent without following links, so that what is read
 * lies where its name says.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/base/scope.h"
#include "controlplane/source/source.h"

enum { DEPTH_MAX = 16, PATH_BYTES = 1024 };

struct walk {
    struct cp_source_set *set;
    struct buf *message;
    const char *root; /* as the user gave it, for messages. */
    bool data_only;   /* leave YAML files and directories out. */
};

static bool is_yaml(struct slice name)
{
    return slice_ends(name, SLICE_LIT(".yaml")) || slice_ends(name, SLICE_LIT(".yml"));
}

static bool is_data(struct slice name)
{
    return slice_ends(name, SLICE_LIT(".binpb")) || slice_ends(name, SLICE_LIT(".desc")) ||
           slice_ends(name, SLICE_LIT(".pb"));
}

/* Says what happened to which path, and passes the failure on. */
static struct err refuse(const struct walk *w, struct slice path, const char *what, struct err why)
{
    struct err said = buf_addf(w->message, "%s%s%.*s: %s", w->root, path.size > 0 ? "/" : "",
                               SLICE_ARG(path), what);
    return err_ok(said) ? why : said;
}

static MUST_CHECK struct err read_all(int fd, size_t size, struct buf *out)
{
    uint8_t *at = NULL;
    TRY(buf_reserve(out, size + 1, &at));
    size_t have = 0;
    while (have <= size) {
        ssize_t got = read(fd, at + have, size + 1 - have);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return FAIL(E_IO);
        }
        if (got == 0) {
            buf_commit(out, have);
            return OK;
        }
        have += (size_t)got;
    }
    return FAIL(E_CONFLICT); /* it grew while we read */
}

static MUST_CHECK struct err add_file(const struct walk *w, int fd, struct slice path)
{
    struct stat st = {0};
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return refuse(w, path, "not a readable file", FAIL(E_IO));
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > limits.source_file_bytes) {
        return refuse(w, path, "larger than source-file-bytes", FAIL(E_TOO_LARGE));
    }
    auto_buf struct buf bytes = BUF_MAX((size_t)st.st_size + 1);
    struct err e = read_all(fd, (size_t)st.st_size, &bytes);
    if (!err_ok(e)) {
        return refuse(w, path, "cannot be read", e);
    }
    e = cp_source_set_add(w->set, path, buf_slice(&bytes));
    return err_ok(e) ? OK : refuse(w, path, err_text(e.code), e);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int name_cmp(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static MUST_CHECK struct err walk_dir(const struct walk *w, int dir, struct slice path, int depth);

/* One entry of a directory: a directory is walked, a source is added, all else is passed over. */
static MUST_CHECK struct err walk_entry(const struct walk *w, int dir, struct slice path, int depth,
                                        const char *name)
{
    char joined[PATH_BYTES + NAME_MAX + 2];
    int size = snprintf(joined, sizeof(joined), "%.*s%s%s", SLICE_ARG(path),
                        path.size > 0 ? "/" : "", name);
    if (size < 0 || size > PATH_BYTES) {
        return refuse(w, path, "a path below it is longer than 1024 bytes", FAIL(E_TOO_LARGE));
    }
    struct stat st = {0};
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return refuse(w, slice_str(joined), "cannot be read", FAIL(E_IO));
    }
    bool wanted = is_data(slice_str(name)) || (is_yaml(slice_str(name)) && !w->data_only);
    if (S_ISDIR(st.st_mode) ? w->data_only : !(S_ISREG(st.st_mode) && wanted)) {
        return OK;
    }
    auto_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return refuse(w, slice_str(joined), "cannot be opened", FAIL(E_IO));
    }
    return S_ISDIR(st.st_mode) ? walk_dir(w, fd, slice_str(joined), depth + 1)
                               : add_file(w, fd, slice_str(joined));
}

/* Walks one directory in order of names. Recursion ends at DEPTH_MAX. */
static struct err walk_dir(const struct walk *w, int dir, struct slice path, int depth)
{
    if (depth > DEPTH_MAX) {
        return refuse(w, path, "nests too deeply", FAIL(E_TOO_LARGE));
    }
    struct dirent **entries = NULL;
    int count = scandirat(dir, ".", &entries, visible, name_cmp);
    if (count < 0) {
        return refuse(w, path, "cannot be listed", FAIL(E_IO));
    }
    struct err e = OK;
    for (int i = 0; i < count; i++) {
        if (err_ok(e)) {
            e = walk_entry(w, dir, path, depth, entries[i]->d_name);
        }
        free(entries[i]);
    }
    free(entries);
    return e;
}

/* One YAML file, with the descriptor sets beside it. */
static MUST_CHECK struct err load_file(struct walk *w, int fd, const char *path)
{
    const char *slash = strrchr(path, '/');
    auto_free char *parent =
        slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (parent == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    const char *name = slash == NULL ? path : slash + 1;
    w->root = parent;
    TRY(add_file(w, fd, slice_str(name)));
    auto_close int dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return refuse(w, (struct slice){0}, "cannot be opened", FAIL(E_IO));
    }
    w->data_only = true;
    struct err e = walk_dir(w, dir, (struct slice){0}, /* depth= */ 0);
    w->root = path;
    return e;
}

struct err cp_source_set_load(struct cp_source_set *set, const char *path, struct buf *message)
{
    struct walk w = {.set = set, .message = message, .root = path};
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return refuse(&w, (struct slice){0}, strerrordesc_np(errno),
                      errno == ENOENT ? FAIL(E_NOT_FOUND) : FAIL(E_IO));
    }
    struct stat st = {0};
    if (fstat(fd, &st) != 0) {
        return refuse(&w, (struct slice){0}, "cannot be read", FAIL(E_IO));
    }
    return S_ISDIR(st.st_mode) ? walk_dir(&w, fd, (struct slice){0}, /* depth= */ 0)
                               : load_file(&w, fd, path);
}
