/* state: see state.h. */
#include "controlplane/signer/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/scope.h"
#include "common/base/slice.h"
#include "common/snapshot/file.h"
#include "common/snapshot/wire.h"

/* magic, format, environment, version, digest, epoch, digest, checksum. */
enum {
    AT_ENVIRONMENT = 8,
    AT_VERSION = AT_ENVIRONMENT + ENVIRONMENT_SIZE,
    AT_MANIFEST_DIGEST = AT_VERSION + 8,
    AT_EPOCH = AT_MANIFEST_DIGEST + DIGEST_SIZE,
    AT_HEAD_DIGEST = AT_EPOCH + 8,
    AT_CHECKSUM = AT_HEAD_DIGEST + DIGEST_SIZE,
    COPY_SIZE = AT_CHECKSUM + DIGEST_SHORT_SIZE,
    BLOCK_SIZE = 4096, /* a disk writes no less, and loses no less. */
    COPIES = 2,
    FILE_SIZE = COPIES * BLOCK_SIZE,
    PATH_SIZE = 4096,
};
static const uint8_t magic[8] = {'T', 'R', 'L', 'S', 2, 0, 0, 0};
/* Format 1 is one copy, and nothing behind it. */
static const uint8_t magic_1[8] = {'T', 'R', 'L', 'S', 1, 0, 0, 0};

/* ---- one copy ---- */

static void print(const struct signer_state *state, uint8_t out[COPY_SIZE])
{
    (void)memcpy(out, magic, sizeof(magic));
    (void)memcpy(out + AT_ENVIRONMENT, state->environment, ENVIRONMENT_SIZE);
    wire_put64(out + AT_VERSION, state->version);
    (void)memcpy(out + AT_MANIFEST_DIGEST, state->manifest_digest, DIGEST_SIZE);
    wire_put64(out + AT_EPOCH, state->epoch);
    (void)memcpy(out + AT_HEAD_DIGEST, state->head_digest, DIGEST_SIZE);
    ids_digest_short(slice_of(out, AT_CHECKSUM), out + AT_CHECKSUM);
}

static struct err parse(const uint8_t bytes[COPY_SIZE], const uint8_t wanted[8],
                        const uint8_t environment[ENVIRONMENT_SIZE], struct signer_state *out)
{
    uint8_t checksum[DIGEST_SHORT_SIZE];
    ids_digest_short(slice_of(bytes, AT_CHECKSUM), checksum);
    if (memcmp(bytes, wanted, sizeof(magic)) != 0 ||
        memcmp(bytes + AT_ENVIRONMENT, environment, ENVIRONMENT_SIZE) != 0 ||
        memcmp(bytes + AT_CHECKSUM, checksum, sizeof(checksum)) != 0) {
        return FAIL(E_MALFORMED);
    }
    *out = (struct signer_state){0};
    (void)memcpy(out->environment, environment, ENVIRONMENT_SIZE);
    out->version = wire_get64(bytes + AT_VERSION);
    (void)memcpy(out->manifest_digest, bytes + AT_MANIFEST_DIGEST, DIGEST_SIZE);
    out->epoch = wire_get64(bytes + AT_EPOCH);
    (void)memcpy(out->head_digest, bytes + AT_HEAD_DIGEST, DIGEST_SIZE);
    return OK;
}

/* ---- the file ---- */

/* The newer of two copies; numbers only grow, and both do so together. */
static struct err parse_copies(const uint8_t bytes[FILE_SIZE],
                               const uint8_t environment[ENVIRONMENT_SIZE],
                               struct signer_state *out)
{
    struct signer_state copies[COPIES];
    struct err first = parse(bytes, magic, environment, &copies[0]);
    struct err second = parse(bytes + BLOCK_SIZE, magic, environment, &copies[1]);
    if (!err_ok(first) && !err_ok(second)) {
        return first;
    }
    if (!err_ok(first) || !err_ok(second)) {
        *out = copies[err_ok(first) ? 0 : 1];
        return OK;
    }
    bool above = copies[0].version >= copies[1].version && copies[0].epoch >= copies[1].epoch;
    bool below = copies[0].version <= copies[1].version && copies[0].epoch <= copies[1].epoch;
    if (!above && !below) {
        return FAIL(E_MALFORMED);
    }
    *out = copies[above ? 0 : 1];
    return OK;
}

static struct err read_all(int fd, const uint8_t environment[ENVIRONMENT_SIZE],
                           struct signer_state *out, bool *out_old)
{
    uint8_t bytes[FILE_SIZE + 1];
    size_t size = 0;
    TRY(file_read_at(fd, bytes, sizeof(bytes), 0, &size));
    *out_old = size == COPY_SIZE;
    if (*out_old) {
        return parse(bytes, magic_1, environment, out);
    }
    return size == FILE_SIZE ? parse_copies(bytes, environment, out) : FAIL(E_MALFORMED);
}

static struct err no_room_or(enum err_code code)
{
    return FAIL(errno == ENOSPC || errno == EDQUOT ? E_STORE_FULL : code);
}

static struct err sync_directory_of(const char *path)
{
    char directory[PATH_SIZE];
    (void)snprintf(directory, sizeof(directory), "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash == NULL) {
        (void)snprintf(directory, sizeof(directory), ".");
    } else {
        slash[slash == directory ? 1 : 0] = '\0';
    }
    auto_close int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? OK : FAIL(E_IO);
}

/* Makes the file, or replaces it, whole. */
static struct err make(const char *path, const struct signer_state *state, int *out_fd)
{
    uint8_t bytes[FILE_SIZE] = {0};
    char aside[PATH_SIZE];
    int size = snprintf(aside, sizeof(aside), "%s.new", path);
    if (size < 0 || (size_t)size >= sizeof(aside)) {
        return FAIL(E_TOO_LARGE);
    }
    print(state, bytes);
    print(state, bytes + BLOCK_SIZE);
    auto_close int fd =
        open(aside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (fd < 0 || !err_ok(file_write_at(fd, slice_of(bytes, sizeof(bytes)), 0)) || fsync(fd) != 0) {
        return no_room_or(E_IO);
    }
    if (rename(aside, path) != 0) {
        return FAIL(E_IO);
    }
    TRY(sync_directory_of(path));
    *out_fd = TAKE_FD(fd);
    return OK;
}

struct err signer_state_open(const char *path, const uint8_t environment[ENVIRONMENT_SIZE],
                             struct signer_state *out, int *out_fd)
{
    struct signer_state state = {0};
    (void)memcpy(state.environment, environment, ENVIRONMENT_SIZE);
    auto_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ENOENT) {
        return FAIL(E_IO);
    }
    bool old = true;
    if (fd >= 0) {
        TRY(read_all(fd, environment, &state, &old));
    }
    if (old) {
        scope_close(&fd);
        TRY(make(path, &state, &fd));
    } else {
        TRY(signer_state_write(fd, &state)); /* a copy that was torn or went bad is whole again. */
    }
    *out = state;
    *out_fd = TAKE_FD(fd);
    return OK;
}

struct err signer_state_write(int fd, const struct signer_state *state)
{
    uint8_t bytes[COPY_SIZE];
    print(state, bytes);
    for (uint64_t i = 0; i < COPIES; i++) {
        struct err e = file_write_at(fd, slice_of(bytes, sizeof(bytes)), i * BLOCK_SIZE);
        if (!err_ok(e) || fdatasync(fd) != 0) {
            return no_room_or(E_IO);
        }
    }
    return OK;
}

static bool same(const uint8_t a[DIGEST_SIZE], const uint8_t b[DIGEST_SIZE])
{
    return memcmp(a, b, DIGEST_SIZE) == 0;
}

struct err signer_state_manifest(struct signer_state *state, uint64_t version,
                                 const uint8_t digest[DIGEST_SIZE], bool *out_write)
{
    if (version < state->version || version == 0) {
        return FAIL(E_SIGNER_REFUSED);
    }
    if (version == state->version) {
        *out_write = false;
        return same(digest, state->manifest_digest) ? OK : FAIL(E_SIGNER_REFUSED);
    }
    state->version = version;
    (void)memcpy(state->manifest_digest, digest, DIGEST_SIZE);
    *out_write = true;
    return OK;
}

static struct err judge_sequence(const struct signer_state *state, uint64_t sequence,
                                 const uint8_t digest[DIGEST_SIZE])
{
    if (!state->epoch_is_ours || sequence < state->sequence) {
        return FAIL(E_SIGNER_REFUSED);
    }
    if (sequence == state->sequence && !same(digest, state->last_digest)) {
        return FAIL(E_SIGNER_REFUSED);
    }
    return OK;
}

struct err signer_state_head(struct signer_state *state, uint64_t epoch, uint64_t sequence,
                             const uint8_t digest[DIGEST_SIZE], bool *out_write)
{
    if (epoch < state->epoch || epoch == 0 || sequence == 0) {
        return FAIL(E_SIGNER_REFUSED);
    }
    *out_write = epoch > state->epoch;
    if (*out_write) {
        state->epoch = epoch;
        state->epoch_is_ours = true;
        (void)memcpy(state->head_digest, digest, DIGEST_SIZE);
    } else {
        TRY(judge_sequence(state, sequence, digest));
    }
    state->sequence = sequence;
    (void)memcpy(state->last_digest, digest, DIGEST_SIZE);
    return OK;
}

struct err signer_state_shares(struct signer_state *state, uint64_t epoch, uint64_t sequence)
{
    bool same = epoch == state->shares_epoch;
    if (!state->epoch_is_ours || epoch != state->epoch || sequence == 0 ||
        (same && sequence <= state->shares_sequence)) {
        return FAIL(E_SIGNER_REFUSED);
    }
    state->shares_epoch = epoch;
    state->shares_sequence = sequence;
    return OK;
}
