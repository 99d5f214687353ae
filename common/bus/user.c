/* user: see user.h. */
#include "common/bus/user.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/scope.h"

enum { FILE_MAX = 2 * BUS_USER_MAX + 3 }; /* the colon, the end of the line, and one too many. */

void bus_user_wipe(struct bus_user *user)
{
    explicit_bzero(user, sizeof(*user));
}

static struct err open_file(const char *path, int *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat info;
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : errno == ELOOP ? E_USAGE : E_IO);
    }
    if (fstat(fd, &info) != 0) {
        return FAIL(E_IO);
    }
    if (!S_ISREG(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 077) != 0) {
        return FAIL(E_USAGE);
    }
    *out = TAKE_FD(fd);
    return OK;
}

static bool is_word(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.ptr[i] < 0x20 || s.ptr[i] == 0x7f) {
            return false;
        }
    }
    return s.size > 0 && s.size <= BUS_USER_MAX;
}

struct err bus_user_parse(struct slice text, struct bus_user *out)
{
    struct slice line = slice_head(text, slice_find(text, '\n'));
    size_t colon = slice_find(line, ':');
    struct slice name = slice_head(line, colon);
    struct slice password = slice_from(line, colon + 1);
    bool whole = colon < line.size && line.size + 1 >= text.size;
    if (!whole || !is_word(name) || !is_word(password)) {
        return FAIL(E_MALFORMED);
    }
    *out = (struct bus_user){.name = ""};
    (void)memcpy(out->name, name.ptr, name.size);
    (void)memcpy(out->password, password.ptr, password.size);
    return OK;
}

/* Up to the end, or until the room is full. */
static struct err read_all(int fd, char text[FILE_MAX], size_t *out_size)
{
    *out_size = 0;
    while (*out_size < FILE_MAX) {
        ssize_t got = read(fd, text + *out_size, FILE_MAX - *out_size);
        if (got < 0 && errno != EINTR) {
            return FAIL(E_IO);
        }
        if (got == 0) {
            return OK;
        }
        *out_size += got > 0 ? (size_t)got : 0;
    }
    return OK;
}

struct err bus_user_read(const char *path, struct bus_user *out)
{
    auto_close int fd = -1;
    char text[FILE_MAX];
    size_t size = 0;
    TRY(open_file(path, &fd));
    struct err e = read_all(fd, text, &size);
    if (err_ok(e)) {
        e = bus_user_parse(slice_of(text, size), out);
    }
    explicit_bzero(text, sizeof(text));
    return e;
}

const char *bus_user_why(struct err e)
{
    switch ((int)e.code) {
    case E_USAGE:
        return "expected a plain file of our own that nobody else may read; chmod 600";
    case E_MALFORMED:
        return "expected \"user:password\" on its only line";
    default:
        return err_text(e.code);
    }
}
