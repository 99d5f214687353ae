/*
 * set_dir: a directory as a source set.
 *
 * Directories are opened relative to their parent without following links. A link to a file is
 * followed by the kernel, bound to stay below the root: so Kubernetes mounts a ConfigMap.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/base/scope.h"
#include "controlplane/source/source.h"

enum { DEPTH_MAX = 16, PATH_BYTES = 1024, UNREAD_MAX = 1000 };

struct walk {
    struct cp_source_set *set;
    struct buf *message;
    const char *root; /* as the user gave it, for messages. */
    int root_fd;      /* links resolve below it. */
    bool data_only;   /* leave YAML files and directories out. */
};

/* Says what happened to the path that was asked for, and passes the failure on. */
static struct err refuse(const struct walk *w, const char *what, struct err why)
{
    struct err said = buf_addf(w->message, "%s: %s", w->root, what);
    return err_ok(said) ? why : said;
}

/* Notes what is there and cannot be taken; the walk goes on. */
static MUST_CHECK struct err pass_over(const struct walk *w, struct slice path, const char *why,
                                       const char *fix)
{
    struct cp_source_set *set = w->set;
    if (set->unread_count == UNREAD_MAX) {
        return OK;
    }
    if (set->unread_count == set->unread_capacity) {
        size_t capacity = set->unread_capacity == 0 ? 16 : 2 * set->unread_capacity;
        void *unread = realloc(set->unread, capacity * sizeof(struct cp_unread));
        if (unread == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        set->unread = unread;
        set->unread_capacity = capacity;
    }
    struct cp_unread unread = {.code = CP_DIAG_FILE_UNREADABLE};
    TRY(arena_dup(&set->arena, path.size > 0 ? path : SLICE_LIT("."), &unread.name));
    TRY(arena_dup(&set->arena, slice_str(why), &unread.why));
    TRY(arena_dup(&set->arena, slice_str(fix), &unread.fix));
    set->unread[set->unread_count++] = unread;
    return OK;
}

static MUST_CHECK struct err pass_over_large(const struct walk *w, struct slice path,
                                             const char *why, const char *fix)
{
    size_t before = w->set->unread_count;
    TRY(pass_over(w, path, why, fix));
    if (w->set->unread_count > before) {
        w->set->unread[before].code = CP_DIAG_FILE_SIZE;
    }
    return OK;
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

static MUST_CHECK struct err add_bytes(const struct walk *w, struct slice path, struct slice bytes)
{
    char text[128];
    struct err e = cp_source_set_add(w->set, path, bytes);
    if (e.code == E_TOO_LARGE) {
        (void)snprintf(text, sizeof(text), "at most %llu bytes in all files, and 100000 files",
                       (unsigned long long)limits.source_total_bytes);
        return pass_over_large(w, path, "with this file the sources are too large", text);
    }
    return e.code == E_MALFORMED
               ? pass_over(w, path, "a name that is no plain text",
                           "a name in UTF-8 without control characters and backslashes")
               : e;
}

static MUST_CHECK struct err add_file(const struct walk *w, int fd, struct slice path)
{
    char text[128];
    struct stat st = {0};
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return pass_over(w, path, "not a regular file", "a regular file");
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > limits.source_file_bytes) {
        char why[128];
        (void)snprintf(why, sizeof(why), "the file has %lld bytes", (long long)st.st_size);
        (void)snprintf(text, sizeof(text), "at most %llu bytes (source-file-bytes)",
                       (unsigned long long)limits.source_file_bytes);
        return pass_over_large(w, path, why, text);
    }
    auto_buf struct buf bytes = BUF_MAX((size_t)st.st_size + 1);
    struct err e = read_all(fd, (size_t)st.st_size, &bytes);
    if (e.code == E_IO || e.code == E_CONFLICT) {
        return pass_over(w, path, e.code == E_IO ? "reading it fails" : "it grows while it is read",
                         "a file at rest");
    }
    TRY(e);
    return add_bytes(w, path, buf_slice(&bytes));
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

static int open_below(int root, const char *path)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/*
 * A link to a file of the sources is that file under one name more. One that leads out of them, or
 * to a directory (which could be a ring), is not followed, and not passed over in silence: a policy
 * that is not loaded is a policy that is not there.
 */
static MUST_CHECK struct err walk_link(const struct walk *w, int dir, const char *name,
                                       struct slice path, bool wanted)
{
    struct stat st = {0};
    bool directory = fstatat(dir, name, &st, /* flags= */ 0) == 0 && S_ISDIR(st.st_mode);
    if (directory ? w->data_only : !wanted) {
        return OK;
    }
    if (directory) {
        return pass_over(w, path, "a symbolic link to a directory, which is not followed",
                         "the directory itself; or a name that begins with a dot");
    }
    char below[PATH_BYTES + NAME_MAX + 2];
    (void)snprintf(below, sizeof(below), "%.*s", SLICE_ARG(path));
    auto_close int fd = open_below(w->root_fd, below);
    if (fd < 0) {
        return pass_over(w, path,
                         errno == EXDEV
                             ? "a symbolic link that is absolute or leads out of the sources"
                             : strerrordesc_np(errno),
                         "the file itself, or a relative link to a file below the same root");
    }
    return add_file(w, fd, path);
}

/* One entry of a directory: a directory is walked, a source is added, all else is left out. */
static MUST_CHECK struct err walk_entry(const struct walk *w, int dir, struct slice path, int depth,
                                        const char *name)
{
    char joined[PATH_BYTES + NAME_MAX + 2];
    int size = snprintf(joined, sizeof(joined), "%.*s%s%s", SLICE_ARG(path),
                        path.size > 0 ? "/" : "", name);
    if (size < 0 || size > PATH_BYTES) {
        return pass_over(w, path, "a path below it is longer than 1024 bytes", "shorter names");
    }
    struct stat st = {0};
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return pass_over(w, slice_str(joined), strerrordesc_np(errno), "a file that can be read");
    }
    bool wanted =
        cp_source_is_data(slice_str(name)) || (cp_source_is_yaml(slice_str(name)) && !w->data_only);
    if (S_ISLNK(st.st_mode)) {
        return walk_link(w, dir, name, slice_str(joined), wanted);
    }
    if (S_ISDIR(st.st_mode) ? w->data_only : !wanted) {
        return OK;
    }
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
        return pass_over(w, slice_str(joined), "not a regular file", "a regular file");
    }
    auto_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return pass_over(w, slice_str(joined), strerrordesc_np(errno),
                         "permission to read it for who runs this");
    }
    return S_ISDIR(st.st_mode) ? walk_dir(w, fd, slice_str(joined), depth + 1)
                               : add_file(w, fd, slice_str(joined));
}

/* Walks one directory in order of names. Recursion ends at DEPTH_MAX. */
static struct err walk_dir(const struct walk *w, int dir, struct slice path, int depth)
{
    if (depth > DEPTH_MAX) {
        return pass_over(w, path, "directories nest deeper than 16", "a flatter tree");
    }
    struct dirent **entries = NULL;
    int count = scandirat(dir, ".", &entries, visible, name_cmp);
    if (count < 0) {
        return pass_over(w, path, strerrordesc_np(errno), "a directory that can be listed");
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
        return refuse(w, strerrordesc_np(errno), FAIL(E_IO));
    }
    w->data_only = true;
    w->root_fd = dir;
    return walk_dir(w, dir, (struct slice){0}, /* depth= */ 0);
}

struct err cp_source_set_load(struct cp_source_set *set, const char *path, struct buf *message)
{
    struct walk w = {.set = set, .message = message, .root = path};
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return refuse(&w, strerrordesc_np(errno), errno == ENOENT ? FAIL(E_NOT_FOUND) : FAIL(E_IO));
    }
    w.root_fd = fd;
    struct stat st = {0};
    if (fstat(fd, &st) != 0) {
        return refuse(&w, strerrordesc_np(errno), FAIL(E_IO));
    }
    return S_ISDIR(st.st_mode) ? walk_dir(&w, fd, (struct slice){0}, /* depth= */ 0)
                               : load_file(&w, fd, path);
}
