/* Files that a process reads again after a start: a node's disk, what it joined as, a key, a backup
 * of the control plane's database. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/base/scope.h"
#include "common/snapshot/wire.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/join/self.h"

#include "tests/mutation/bytes.h"
#include "tests/mutation/node.h"
#include "tests/mutation/plane.h"

enum {
    FILE_MAX = 64 << 20,
    PATH_SIZE = NODE_PATH + 32,
    RECORD_AT_KIND = 6, /* of a pack's record; docs/formats.md, "On a node's disk". */
    RECORD_AT_SIZE = 8,
    RECORD_AT_CHECKSUM = 16,
    RECORD_HEADER = 24,
    RECORD_OF_MANIFEST = 2,
    MANIFEST_PREFIX = 16, /* root's version and epoch, before the container. */
};

static void read_file(const char *path, struct buf *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    uint8_t *room = NULL;
    CHECK(fd >= 0 && fstat(fd, &info) == 0);
    MUST(buf_reserve(out, (size_t)info.st_size + 1, &room));
    CHECK(read(fd, room, (size_t)info.st_size) == info.st_size);
    buf_commit(out, (size_t)info.st_size);
}

static void write_file(const char *path, struct slice bytes)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && (bytes.size == 0 || write(fd, bytes.ptr, bytes.size) == (ssize_t)bytes.size));
}

/* ---- a node's disk ---- */

static void node_file(const struct trial *t, const char *name, struct buf *out)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/%s", t->node->directory, name);
    *out = BUF_MAX(FILE_MAX);
    read_file(path, out);
}

static bool same_version(const struct disk_version *a, const struct disk_version *b)
{
    return a->version == b->version && memcmp(a->digest, b->digest, DIGEST_SIZE) == 0;
}

/* What was not taken as it stood there. */
static enum err_code left_out(const struct disk *d)
{
    struct disk_notes notes = disk_notes(d);
    if (notes.floor_rebuilt) {
        return E_FLOOR_CORRUPT;
    }
    return notes.torn_bytes > 0 || notes.bad_records > 0 ? E_CHUNK_TAMPERED : E_OK;
}

/* A start may serve what the node has committed, present or last good, and nothing else. */
static void judge_start(struct trial *t, struct disk *d)
{
    const struct disk_floor *floor = disk_floor(t->node->apply->disk);
    struct disk_start start = {0};
    struct err e = disk_start(d, &start);
    if (!err_ok(e)) {
        t->got = e.code;
        return;
    }
    bool known =
        same_version(&start.version, &floor->present) || same_version(&start.version, &floor->good);
    bool whole =
        memcmp(snap_set_manifest_digest(start.set), start.version.digest, DIGEST_SIZE) == 0;
    snap_set_unref(start.set);
    if (!known || !whole) {
        trial_fail(t, "it starts with version %llu", (unsigned long long)start.version.version);
    }
    t->got = start.fell_back ? start.why.code : left_out(d);
}

/* Opens a disk of these two files beside the node's. */
static void start_from(struct trial *t, struct slice floor, struct slice pack)
{
    const struct disk_floor *real = disk_floor(t->node->apply->disk);
    char directory[PATH_SIZE];
    char path[PATH_SIZE + 16];
    (void)snprintf(directory, sizeof(directory), "%s.copy", t->node->directory);
    (void)mkdir(directory, S_IRWXU);
    (void)snprintf(path, sizeof(path), "%s/floor", directory);
    write_file(path, floor);
    (void)snprintf(path, sizeof(path), "%s/pack", directory);
    write_file(path, pack);
    const struct disk_options options = {
        .directory = directory,
        .environment = t->world->environment_id,
        .trust_root = buf_slice(&t->world->root_bytes[ROOT_NOW]),
        .lock_fd = -1,
    };
    struct disk *d = NULL;
    struct err e = disk_open(&options, &d);
    if (!err_ok(e)) {
        t->got = e.code;
        return;
    }
    const struct disk_floor *opened = disk_floor(d);
    bool below = opened->epoch < real->epoch || disk_root_version(d) < real->root_version ||
                 opened->present.version < real->present.version;
    bool other = opened->present.version > real->present.version ||
                 (opened->present.version == real->present.version &&
                  !same_version(&opened->present, &real->present));
    if (other || (below && t->wanted == E_FLOOR_CORRUPT)) {
        trial_fail(t, "its floor is version %llu, epoch %llu, root %llu",
                   (unsigned long long)opened->present.version, (unsigned long long)opened->epoch,
                   (unsigned long long)disk_root_version(d));
    }
    judge_start(t, d);
    disk_close(d);
}

static void damage(struct trial *t, struct buf *b)
{
    if (dice_below(&t->dice, 4) == 0) {
        bytes_resize(&t->dice, b);
    } else {
        bytes_change(&t->dice, b);
    }
}

static void floor_changed(struct trial *t)
{
    auto_buf struct buf pack;
    auto_buf struct buf original;
    struct buf *floor = trial_input(t, "floor");
    node_file(t, "floor", floor);
    node_file(t, "floor", &original);
    node_file(t, "pack", &pack);
    damage(t, floor);
    t->idle = slice_eq(buf_slice(floor), buf_slice(&original));
    if (!t->idle) {
        t->wanted = E_FLOOR_CORRUPT;
        start_from(t, buf_slice(floor), buf_slice(&pack));
    }
}

static void pack_changed(struct trial *t)
{
    auto_buf struct buf floor;
    auto_buf struct buf original;
    struct buf *pack = trial_input(t, "pack");
    node_file(t, "pack", pack);
    node_file(t, "pack", &original);
    node_file(t, "floor", &floor);
    damage(t, pack);
    start_from(t, buf_slice(&floor), buf_slice(pack));
    t->idle = t->got == E_OK && (slice_eq(buf_slice(pack), buf_slice(&original)) ||
                                 pack->size < original.size); /* cut where a record ends. */
}

static void reckon(uint8_t *record, size_t size)
{
    auto_buf struct buf covered = BUF_MAX(FILE_MAX);
    MUST(buf_add(&covered, slice_of(record, RECORD_AT_CHECKSUM)));
    MUST(buf_add(&covered, slice_of(record + RECORD_HEADER, size)));
    wire_put64(record + RECORD_AT_CHECKSUM, XXH3_64bits(covered.ptr, covered.size));
}

/* Records of manifests, chunks and roots with other bytes in them, and a checksum that holds. */
static void pack_forged(struct trial *t)
{
    auto_buf struct buf floor;
    struct buf *pack = trial_input(t, "pack");
    node_file(t, "pack", pack);
    node_file(t, "floor", &floor);
    size_t forged = 0;
    for (size_t at = 0; at + RECORD_HEADER <= pack->size;) {
        uint8_t *p = pack->ptr + at;
        size_t size = wire_get32(p + RECORD_AT_SIZE);
        size_t from = p[RECORD_AT_KIND] == RECORD_OF_MANIFEST ? MANIFEST_PREFIX : 0;
        if (dice_below(&t->dice, 3) == 0) {
            p[RECORD_HEADER + from + dice_below(&t->dice, size - from)] ^=
                (uint8_t)(1U << dice_below(&t->dice, 8));
            reckon(p, size);
            forged++;
        }
        at += RECORD_HEADER + size;
    }
    trial_says(t, "%zu records", forged);
    start_from(t, buf_slice(&floor), buf_slice(pack));
    t->idle = t->got == E_OK; /* garbage: what is served has none of them. */
}

/* ---- what a node joined as ---- */

static struct dp_self self_of(const struct trial *t)
{
    struct dp_self self;
    memset(&self, 0, sizeof(self));
    (void)snprintf(self.environment, sizeof(self.environment), "%s", t->world->environment);
    (void)snprintf(self.node, sizeof(self.node), "node-1");
    (void)snprintf(self.server, sizeof(self.server), "https://cp.example:8443");
    self.has_pin = true;
    memset(self.pin, 0x3c, sizeof(self.pin));
    memset(self.token, 0x5d, sizeof(self.token));
    self.seed = (struct disk_seed){.root_version = t->world->roots[ROOT_NOW].version,
                                   .epoch = t->world->epoch,
                                   .version = t->world->versions[VERSION_FLOOR]->number};
    return self;
}

static void joined_changed(struct trial *t)
{
    char path[PATH_SIZE];
    struct dp_self self = self_of(t);
    struct dp_self read;
    auto_identity_dir struct dp_identity_dir directory = {.fd = -1};
    auto_buf struct buf message = BUF_MAX(4096);
    auto_buf struct buf original = BUF_MAX(4096);
    struct buf *b = trial_input(t, "joined");
    *b = BUF_MAX(8192);
    (void)snprintf(path, sizeof(path), "%s.joined", t->node->directory);
    MUST(dp_identity_open(path, /* make= */ true, &directory, &message));
    MUST(dp_self_write(&directory, &self));
    MUST(dp_identity_get(&directory, DP_FILE_JOINED, &original));
    MUST(buf_add(b, buf_slice(&original)));
    damage(t, b);
    MUST(dp_identity_put(&directory, DP_FILE_JOINED, buf_slice(b)));
    memset(&read, 0, sizeof(read));
    t->got = dp_self_read(&directory, &read, &message).code;
    if (t->got == E_OK) { /* another name or number; written again, it says the same. */
        struct dp_self again;
        auto_buf struct buf once = BUF_MAX(DP_IDENTITY_FILE_MAX);
        auto_buf struct buf twice = BUF_MAX(DP_IDENTITY_FILE_MAX);
        MUST(dp_self_write(&directory, &read));
        MUST(dp_identity_get(&directory, DP_FILE_JOINED, &once));
        MUST(dp_self_read(&directory, &again, &message));
        MUST(dp_self_write(&directory, &again));
        MUST(dp_identity_get(&directory, DP_FILE_JOINED, &twice));
        t->idle = slice_eq(buf_slice(&once), buf_slice(&twice));
    }
}

/* ---- a key's file ---- */

static void memory_file(struct slice bytes, int *out)
{
    *out = memfd_create("trial", MFD_CLOEXEC);
    CHECK(*out >= 0 &&
          (bytes.size == 0 || write(*out, bytes.ptr, bytes.size) == (ssize_t)bytes.size));
    CHECK(lseek(*out, 0, SEEK_SET) == 0);
}

static void key_file_changed(struct trial *t)
{
    const struct key_pair *pair = world_key(t->world, KEY_ROLE_MANIFEST, 0);
    char path[PATH_SIZE];
    struct key_pair read;
    auto_close int fd = -1;
    struct buf *b = trial_input(t, "key");
    *b = BUF_MAX(4096);
    (void)snprintf(path, sizeof(path), "%s.key", t->node->directory);
    (void)unlink(path);
    MUST(key_file_write(path, pair));
    read_file(path, b);
    damage(t, b);
    memory_file(buf_slice(b), &fd);
    t->got = key_file_read_open(fd, &read).code;
    if (t->got == E_OK) { /* another name: the key itself must be the one that it was. */
        t->idle = memcmp(read.seed, pair->seed, KEY_SEED_SIZE) == 0 &&
                  memcmp(read.public.bytes, pair->public.bytes, KEY_PUBLIC_SIZE) == 0;
    }
}

/* ---- a backup ---- */

static void backup_changed(struct trial *t)
{
    struct slice original = plane_backup(t->plane);
    auto_close int fd = -1;
    struct buf *b = trial_input(t, "backup");
    *b = BUF_MAX(FILE_MAX);
    MUST(buf_add(b, original));
    if (dice_below(&t->dice, 4) == 0) { /* format and schema are at its front. */
        b->ptr[dice_below(&t->dice, 16)] ^= (uint8_t)(1U << dice_below(&t->dice, 8));
    } else {
        damage(t, b);
    }
    t->idle = slice_eq(buf_slice(b), original);
    if (!t->idle) {
        memory_file(buf_slice(b), &fd);
        t->got = plane_restore(t->plane, fd);
    }
}

const struct trial_kind file_kinds[] = {
    {"file.floor_changed", floor_changed, 2, {E_FLOOR_CORRUPT}},
    {"file.pack_changed",
     pack_changed,
     2,
     {E_CHUNK_TAMPERED, TRIAL_RARE, E_CHUNK_MISSING, E_MANIFEST_MISSING, E_ROOT_MISSING}},
    {"file.pack_forged",
     pack_forged,
     2,
     {E_CHUNK_MISSING, E_MANIFEST_MISSING, TRIAL_RARE, E_ROOT_MISSING, E_CHUNK_TAMPERED,
      E_MANIFEST_MALFORMED, E_MANIFEST_UNSIGNED, E_ROOT_MALFORMED, E_ROOT_UNSIGNED}},
    {"file.joined_changed", joined_changed, 3, {E_MALFORMED}},
    {"file.key_changed", key_file_changed, 5, {E_MALFORMED}},
    {"file.backup_changed", backup_changed, 1, {E_MALFORMED, E_STORE_NEWER}},
    {.name = NULL},
};
