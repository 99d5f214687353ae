/* state: see state.h. */
#include "controlplane/signer/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/scope.h"
#include "common/base/slice.h"
#include "common/snapshot/wire.h"

/* magic, format, environment, version, digest, epoch, digest, checksum. */
enum {
    AT_ENVIRONMENT = 8,
    AT_VERSION = AT_ENVIRONMENT + ENVIRONMENT_SIZE,
    AT_MANIFEST_DIGEST = AT_VERSION + 8,
    AT_EPOCH = AT_MANIFEST_DIGEST + DIGEST_SIZE,
    AT_HEAD_DIGEST = AT_EPOCH + 8,
    AT_CHECKSUM = AT_HEAD_DIGEST + DIGEST_SIZE,
    FILE_SIZE = AT_CHECKSUM + DIGEST_SHORT_SIZE,
    PATH_SIZE = 4096,
};
static const uint8_t file_magic[8] = {'T', 'R', 'L', 'S', 1, 0, 0, 0};

static struct err parse(const uint8_t bytes[FILE_SIZE], const uint8_t environment[ENVIRONMENT_SIZE],
                        struct signer_state *out)
{
    uint8_t checksum[DIGEST_SHORT_SIZE];
    ids_digest_short(slice_of(bytes, AT_CHECKSUM), checksum);
    if (memcmp(bytes, file_magic, sizeof(file_magic)) != 0 ||
        memcmp(bytes + AT_ENVIRONMENT, environment, ENVIRONMENT_SIZE) != 0 ||
        memcmp(bytes + AT_CHECKSUM, checksum, sizeof(checksum)) != 0) {
        return FAIL(E_MALFORMED);
    }
    out->version = wire_get64(bytes + AT_VERSION);
    (void)memcpy(out->manifest_digest, bytes + AT_MANIFEST_DIGEST, DIGEST_SIZE);
    out->epoch = wire_get64(bytes + AT_EPOCH);
    (void)memcpy(out->head_digest, bytes + AT_HEAD_DIGEST, DIGEST_SIZE);
    return OK;
}

struct err signer_state_read(const char *path, const uint8_t environment[ENVIRONMENT_SIZE],
                             struct signer_state *out)
{
    struct signer_state state = {0};
    (void)memcpy(state.environment, environment, ENVIRONMENT_SIZE);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno != ENOENT) {
        return FAIL(E_IO);
    }
    if (fd >= 0) {
        uint8_t bytes[FILE_SIZE + 1];
        if (read(fd, bytes, sizeof(bytes)) != FILE_SIZE) {
            return FAIL(E_MALFORMED);
        }
        TRY(parse(bytes, environment, &state));
    }
    *out = state;
    return OK;
}

static struct err write_aside(const char *path, const uint8_t bytes[FILE_SIZE])
{
    auto_close int fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (fd < 0 || write(fd, bytes, FILE_SIZE) != FILE_SIZE || fsync(fd) != 0) {
        return FAIL(errno == ENOSPC ? E_STORE_FULL : E_IO);
    }
    return OK;
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

struct err signer_state_write(const char *path, const struct signer_state *state)
{
    uint8_t bytes[FILE_SIZE] = {0};
    (void)memcpy(bytes, file_magic, sizeof(file_magic));
    (void)memcpy(bytes + AT_ENVIRONMENT, state->environment, ENVIRONMENT_SIZE);
    wire_put64(bytes + AT_VERSION, state->version);
    (void)memcpy(bytes + AT_MANIFEST_DIGEST, state->manifest_digest, DIGEST_SIZE);
    wire_put64(bytes + AT_EPOCH, state->epoch);
    (void)memcpy(bytes + AT_HEAD_DIGEST, state->head_digest, DIGEST_SIZE);
    ids_digest_short(slice_of(bytes, AT_CHECKSUM), bytes + AT_CHECKSUM);
    char aside[PATH_SIZE];
    int size = snprintf(aside, sizeof(aside), "%s.new", path);
    if (size < 0 || (size_t)size >= sizeof(aside)) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(write_aside(aside, bytes));
    if (rename(aside, path) != 0) {
        return FAIL(E_IO);
    }
    return sync_directory_of(path);
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
