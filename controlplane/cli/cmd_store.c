/* cmd_store: backup and restore: the database of a control plane as one file. They open the
 * database themselves: no server is asked. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/scope.h"
#include "controlplane/cli/commands.h"
#include "controlplane/store/store.h"

enum { MESSAGE_MAX = 4096, PATH_SIZE = 4096 };

static const struct setting_row rows[] = {
    {"store", "URL", NULL, "the database; default: sqlite:<data-dir>/store.db", SETTING_TEXT},
    {"data-dir", "DIRECTORY", CP_DATA_DIR, "where the server keeps its files", SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

typedef struct err move_fn(struct cp_store *store, const char *path, uint64_t *out_bytes,
                           struct buf *message);

static struct err say_errno(struct buf *message, const char *path)
{
    TRY(buf_addf(message, "%s: %s", path, strerrordesc_np(errno)));
    return FAIL(errno == EEXIST ? E_EXISTS : E_IO);
}

/* A backup that is not whole has another name: it is never taken for one. */
static struct err back_up(struct cp_store *store, const char *path, uint64_t *out_bytes,
                          struct buf *message)
{
    char aside[PATH_SIZE];
    struct stat info = {0};
    int size = snprintf(aside, sizeof(aside), "%s.part", path);
    if (size < 0 || (size_t)size >= sizeof(aside)) {
        return FAIL(E_TOO_LARGE);
    }
    if (access(path, F_OK) == 0) {
        errno = EEXIST;
        return say_errno(message, path);
    }
    auto_close int fd = open(aside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return say_errno(message, aside);
    }
    struct err e = store->ops->backup(store, fd);
    if (err_ok(e) && (fsync(fd) != 0 || fstat(fd, &info) != 0 || rename(aside, path) != 0)) {
        e = say_errno(message, path);
    }
    if (!err_ok(e)) {
        (void)unlink(aside);
    }
    *out_bytes = (uint64_t)info.st_size;
    return e;
}

static struct err bring_back(struct cp_store *store, const char *path, uint64_t *out_bytes,
                             struct buf *message)
{
    struct stat info = {0};
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        return say_errno(message, path);
    }
    struct err e = store->ops->restore(store, fd);
    if (e.code == E_CONFLICT) {
        TRY(buf_add_str(message, "the database is not empty: a backup is restored into a new one"));
    }
    *out_bytes = (uint64_t)info.st_size;
    return e;
}

static void moved_table(const json_t *value)
{
    (void)printf("%s: %" JSON_INTEGER_FORMAT " bytes\n", cli_text(value, "path"),
                 cli_int(value, "bytes"));
}

static struct err open_store(const struct cli *cli, struct cp_store **out, struct buf *message)
{
    char url[PATH_SIZE];
    const char *given = settings_get(cli->settings, "store");
    int size = given == NULL ? snprintf(url, sizeof(url), "sqlite:%s/store.db",
                                        settings_get(cli->settings, "data-dir"))
                             : snprintf(url, sizeof(url), "%s", given);
    if (size < 0 || (size_t)size >= sizeof(url)) {
        return FAIL(E_TOO_LARGE);
    }
    return cp_store_open(url, out, message);
}

static int move(const struct cli *cli, move_fn *fn)
{
    const char *path = settings_arg(cli->settings, 0);
    if (path == NULL) {
        cli_say("error: USAGE: %s needs a FILE", cli->command->name);
        return CLI_USAGE;
    }
    if (!cli_store_fine(cli)) {
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    const char *text = NULL;
    uint64_t bytes = 0;
    struct cp_store *store = NULL;
    struct err e = open_store(cli, &store, &message);
    if (err_ok(e)) {
        e = fn(store, path, &bytes, &message);
    }
    cp_store_close(store);
    return err_ok(e)
               ? cli_result(cli, json_pack("{s:s, s:I}", "path", path, "bytes", (json_int_t)bytes),
                            moved_table)
               : cli_fail(e, err_ok(buf_cstr(&message, &text)) ? text : NULL);
}

static int backup(const struct cli *cli)
{
    return move(cli, back_up);
}

static int restore(const struct cli *cli)
{
    return move(cli, bring_back);
}

CLI_RUN(backup)
CLI_RUN(restore)

const struct cli_command cli_command_backup = {
    .name = "backup",
    .arg_max = 1,
    .args = "--store URL FILE",
    .summary = "writes the database of a control plane, as of one moment, into a new file",
    CLI_ROWS(rows),
    .run = backup_run,
};
const struct cli_command cli_command_restore = {
    .name = "restore",
    .arg_max = 1,
    .args = "--store URL FILE",
    .summary = "fills an empty database, of either kind, from such a file",
    CLI_ROWS(rows),
    .run = restore_run,
};
