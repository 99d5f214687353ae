/* check: see check.h. */
#include "controlplane/publish/check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/snapshot/disk_pack.h"

extern char **environ;

enum {
    PATH_SIZE = 4096,
    OUTPUT_MAX = 64 << 10,
    WAIT_STEP_MS = 20,
    NAME_MAX_BYTES = 1 << 20, /* above what CHUNKS_MAX chunks take. */
};

static bool is_off(const char *program)
{
    return strcmp(program, "off") == 0;
}

struct err cp_check_program(const char *program)
{
    return is_off(program) || access(program, X_OK) == 0 ? OK : FAIL(E_CHECK_MISSING);
}

/* ---- its name ---- */

static struct err add_u64(struct buf *out, uint64_t value)
{
    return buf_add(out, slice_of(&value, sizeof(value)));
}

/* A program that was replaced is another one. */
static struct err add_program(struct buf *out, const char *program)
{
    struct stat st = {0};
    if (stat(program, &st) != 0) {
        return FAIL(E_CHECK_MISSING);
    }
    TRY(add_u64(out, st.st_dev));
    TRY(add_u64(out, st.st_ino));
    TRY(add_u64(out, (uint64_t)st.st_size));
    TRY(add_u64(out, (uint64_t)st.st_mtim.tv_sec));
    return add_u64(out, (uint64_t)st.st_mtim.tv_nsec);
}

static struct err add_stream(struct buf *out, const struct cut_stream *stream)
{
    TRY(add_u64(out, stream->kind));
    TRY(add_u64(out, stream->format));
    TRY(buf_add(out, slice_of(stream->raw_digest, sizeof(stream->raw_digest))));
    for (size_t i = 0; i < stream->chunk_count; i++) {
        TRY(buf_add(out, slice_of(stream->chunks[i].digest, sizeof(stream->chunks[i].digest))));
    }
    return OK;
}

struct err cp_check_digest(const struct cp_check *check, uint64_t capabilities,
                           uint8_t out[DIGEST_SIZE])
{
    auto_buf struct buf name = BUF_MAX(NAME_MAX_BYTES);
    TRY(add_program(&name, check->program));
    TRY(add_u64(&name, capabilities));
    for (size_t i = 0; i < check->stream_count; i++) {
        if (check->streams[i].kind != STREAM_POSITIONS) {
            TRY(add_stream(&name, &check->streams[i]));
        }
    }
    ids_digest(buf_slice(&name), out);
    return OK;
}

/* ---- the bundle ---- */

static struct err add_chunks(struct pack *pack, const struct cut_stream *stream)
{
    for (size_t i = 0; i < stream->chunk_count; i++) {
        const struct cut_chunk *chunk = &stream->chunks[i];
        if (pack_chunk(pack, chunk->digest) == NULL) {
            TRY(pack_add(pack, PACK_CHUNK, chunk->stored));
        }
    }
    return OK;
}

static struct err add_all(struct pack *pack, const struct cp_check *check)
{
    for (size_t i = 0; i < check->stream_count; i++) {
        TRY(add_chunks(pack, &check->streams[i]));
    }
    return pack_add_manifest(pack, check->manifest, /* root_version= */ 0, /* epoch= */ 0);
}

static struct err write_bundle(const struct cp_check *check, const char *directory)
{
    auto_close int dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return FAIL(E_IO);
    }
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(slice_str(check->environment), environment);
    struct disk_steps no_steps = {0};
    struct pack pack;
    TRY(pack_open(&pack, dir_fd, environment, &no_steps));
    struct err e = add_all(&pack, check);
    pack_close(&pack);
    return e;
}

/* ---- the child ---- */

struct child {
    pid_t pid;
    int output; /* read end of its standard output and error. */
};

static struct err spawn_with(const char *program, char *const argv[],
                             posix_spawn_file_actions_t *actions, int write_end,
                             struct child *child)
{
    if (posix_spawn_file_actions_adddup2(actions, write_end, STDOUT_FILENO) != 0 ||
        posix_spawn_file_actions_adddup2(actions, write_end, STDERR_FILENO) != 0) {
        return FAIL(E_NO_MEMORY);
    }
    return posix_spawn(&child->pid, program, actions, NULL, argv, environ) == 0
               ? OK
               : FAIL(E_CHECK_MISSING);
}

static struct err spawn_child(const struct cp_check *check, const char *bundle, struct child *child)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return FAIL(E_IO);
    }
    auto_close int read_end = ends[0];
    auto_close int write_end = ends[1];
    char environment[128];
    char path[PATH_SIZE];
    (void)snprintf(environment, sizeof(environment), "--environment=%s", check->environment);
    (void)snprintf(path, sizeof(path), "%s", bundle);
    char name[] = "trilane-dp";
    char subcommand[] = "check";
    char *argv[] = {name, subcommand, environment, path, NULL};
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = spawn_with(check->program, argv, &actions, write_end, child);
    (void)posix_spawn_file_actions_destroy(&actions);
    TRY(e);
    child->output = TAKE_FD(read_end);
    return OK;
}

/* Takes what the child writes, up to a bound; false at its end. */
static bool take_output(struct child *child, struct buf *out)
{
    uint8_t bytes[4096];
    ssize_t size = read(child->output, bytes, sizeof(bytes));
    if (size <= 0) {
        return false;
    }
    struct err e = buf_add(out, slice_of(bytes, (size_t)size));
    (void)e; /* what is over the bound is not shown. */
    return true;
}

static struct err read_until_end(struct child *child, struct buf *out)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)CP_CHECK_TIMEOUT_MS * 1000000;
    struct pollfd fds = {.fd = child->output, .events = POLLIN};
    while (clock_mono_ns() < end_ns) {
        if (poll(&fds, 1, WAIT_STEP_MS) > 0 && !take_output(child, out)) {
            return OK;
        }
    }
    return FAIL(E_TIMEOUT);
}

static struct err await(struct child *child, struct buf *message)
{
    auto_buf struct buf output = BUF_MAX(OUTPUT_MAX);
    struct err e = read_until_end(child, &output);
    if (!err_ok(e)) {
        (void)kill(child->pid, SIGKILL);
    }
    int status = 0;
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
    }
    TRY(e);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return OK;
    }
    if (WIFSIGNALED(status)) {
        TRY(buf_addf(message, "trilane-dp check died of signal %d: ", WTERMSIG(status)));
    }
    struct slice said = buf_slice(&output);
    while (said.size > 0 && said.ptr[said.size - 1] == '\n') {
        said.size--;
    }
    size_t over = said.size > 2000 ? said.size - 2000 : 0;
    TRY(buf_add(message, slice_from(said, over)));
    return FAIL(E_CHECK_FAILED);
}

static struct err check_in(const struct cp_check *check, const char *directory, struct buf *message)
{
    char bundle[PATH_SIZE];
    int size = snprintf(bundle, sizeof(bundle), "%s/pack", directory);
    if (size < 0 || (size_t)size >= sizeof(bundle)) {
        return FAIL(E_TOO_LARGE);
    }
    struct child child = {.output = -1};
    struct err e = write_bundle(check, directory);
    if (err_ok(e)) {
        e = spawn_child(check, bundle, &child);
    }
    if (err_ok(e)) {
        e = await(&child, message);
    }
    scope_close(&child.output);
    (void)unlink(bundle);
    return e;
}

struct err cp_check_run(const struct cp_check *check, struct buf *message)
{
    if (is_off(check->program)) {
        return OK;
    }
    TRY(cp_check_program(check->program));
    char directory[PATH_SIZE];
    int size = snprintf(directory, sizeof(directory), "%s/check-XXXXXX", check->directory);
    if (size < 0 || (size_t)size >= sizeof(directory) - sizeof("/pack")) {
        return FAIL(E_TOO_LARGE);
    }
    if (mkdtemp(directory) == NULL) {
        return FAIL(E_IO);
    }
    struct err e = check_in(check, directory, message);
    (void)rmdir(directory);
    return e;
}
