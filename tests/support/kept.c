/* kept: see kept.h. */
#include "tests/support/kept.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/container.h"
#include "common/snapshot/disk_pack.h"

enum { BYTES_MAX = 1 << 20 };

static void must(struct err e)
{
    if (!err_ok(e)) {
        (void)fprintf(stderr, "kept: %s at %s\n", err_name(e.code), e.where);
        abort();
    }
}

void kept_path(const char *name, char out[1024])
{
    const char *source = getenv("TRILANE_SOURCE_DIR"); /* NOLINT(concurrency-mt-unsafe) */
    CHECK(source != NULL);
    (void)snprintf(out, 1024, "%s/tests/golden/snapshot-1/%s", source, name);
}

void kept_read(const char *name, struct buf *out)
{
    char path[1024];
    uint8_t bytes[4096];
    kept_path(name, path);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    for (size_t size = 1; size > 0;) {
        size = fread(bytes, 1, sizeof(bytes), file);
        must(buf_add(out, slice_of(bytes, size)));
    }
    CHECK(fclose(file) == 0);
}

static void copy(const char *name, const char *directory)
{
    char path[1024];
    auto_buf struct buf bytes = BUF_MAX(BYTES_MAX);
    kept_read(name, &bytes);
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    CHECK(fwrite(bytes.ptr, 1, bytes.size, file) == bytes.size);
    CHECK(fclose(file) == 0);
}

void kept_copy(const char *directory)
{
    copy("pack", directory);
    copy("floor", directory);
}

/* ---- what the pack holds ---- */

/* Opening a pack may repair it: a copy is opened. */
struct opened {
    char directory[64];
    int dir_fd;
    struct pack pack;
};

static void open_copy(struct opened *o)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    struct disk_steps no_steps = {0};
    (void)snprintf(o->directory, sizeof(o->directory), "/tmp/trilane-kept-XXXXXX");
    CHECK(mkdtemp(o->directory) != NULL);
    kept_copy(o->directory);
    o->dir_fd = open(o->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(o->dir_fd >= 0);
    snap_environment(slice_str(KEPT_ENVIRONMENT), environment);
    must(pack_open(&o->pack, o->dir_fd, environment, &no_steps));
    CHECK(o->pack.torn_bytes == 0 && o->pack.bad_records == 0);
}

static void close_copy(struct opened *o)
{
    pack_close(&o->pack);
    CHECK(unlinkat(o->dir_fd, "pack", 0) == 0);
    CHECK(unlinkat(o->dir_fd, "floor", 0) == 0);
    scope_close(&o->dir_fd);
    CHECK(rmdir(o->directory) == 0);
}

static void read_manifest(const struct opened *o, struct manifest *out)
{
    auto_buf struct buf bytes = BUF_MAX(BYTES_MAX);
    struct container container;
    size_t i = 0;
    while (o->pack.records[i]->kind != PACK_MANIFEST) {
        i++;
        CHECK(i < o->pack.record_count);
    }
    must(pack_read(&o->pack, o->pack.records[i], &bytes));
    must(container_read(buf_slice(&bytes), CONTAINER_MANIFEST, o->pack.environment, &container));
    must(manifest_decode(container.body, out));
}

void kept_manifest(struct manifest *out)
{
    struct opened o = {.dir_fd = -1};
    open_copy(&o);
    read_manifest(&o, out);
    close_copy(&o);
}

struct snap_set *kept_set(void)
{
    struct opened o = {.dir_fd = -1};
    auto_manifest struct manifest manifest = {0};
    struct snap_set *set = NULL;
    struct snap_missing missing;
    size_t at = 0;
    open_copy(&o);
    read_manifest(&o, &manifest);
    must(snap_set_new(&manifest, /* previous= */ NULL, &set));
    while (snap_set_missing(set, &at, &missing)) {
        auto_buf struct buf stored = BUF_MAX(CHUNK_RAW_MAX);
        must(pack_read(&o.pack, pack_chunk(&o.pack, missing.name.digest), &stored));
        must(snap_set_add(set, &missing.name, buf_slice(&stored)));
    }
    must(snap_set_close(set));
    close_copy(&o);
    return set;
}
