/* check: see check.h. */
#include "dataplane/apply/check.h"

#include <fcntl.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/snapshot/container.h"
#include "common/snapshot/disk_pack.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/set.h"
#include "dataplane/apply/build.h"

/* ---- the pack ---- */

static struct err open_pack(const char *path, const uint8_t environment[ENVIRONMENT_SIZE],
                            int *out_dir, struct pack *out, struct buf *message)
{
    struct slice whole = slice_str(path);
    struct slice name = SLICE_LIT("pack");
    struct slice parent = slice_head(whole, whole.size < name.size ? 0 : whole.size - name.size);
    bool named =
        slice_ends(whole, name) && (parent.size == 0 || slice_ends(parent, SLICE_LIT("/")));
    if (!named || access(path, R_OK) != 0) {
        TRY(buf_addf(message, "%s: a readable file named \"pack\" is needed", path));
        return FAIL(E_NOT_FOUND);
    }
    auto_free char *directory = slice_dup(parent.size == 0 ? SLICE_LIT(".") : parent);
    *out_dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*out_dir < 0) {
        return FAIL(E_IO);
    }
    struct disk_steps no_steps = {0};
    return pack_open(out, *out_dir, environment, &no_steps);
}

/* The last manifest of the file. */
static const struct pack_record *find_manifest(const struct pack *pack)
{
    for (size_t i = pack->record_count; i > 0; i--) {
        if (pack->records[i - 1]->kind == PACK_MANIFEST) {
            return pack->records[i - 1];
        }
    }
    return NULL;
}

static struct err load_manifest(const struct pack *pack,
                                const uint8_t environment[ENVIRONMENT_SIZE], struct manifest *out,
                                struct buf *message)
{
    const struct pack_record *record = find_manifest(pack);
    if (record == NULL) {
        TRY(buf_add_str(message, "no manifest is in the file"));
        return FAIL(E_MANIFEST_MISSING);
    }
    auto_buf struct buf bytes = BUF_MAX(CONTAINER_HEADER_SIZE + MANIFEST_BODY_MAX +
                                        CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE);
    struct container container;
    TRY(pack_read(pack, record, &bytes));
    TRY(container_read(buf_slice(&bytes), CONTAINER_MANIFEST, environment, &container));
    TRY(manifest_decode(container.body, out));
    TRY(manifest_check_capabilities(out, CAPABILITIES_HERE));
    for (size_t i = 0; i < out->stream_count; i++) {
        if (!dp_model_knows_stream(out->streams[i].kind)) {
            TRY(buf_addf(message, "stream kind %u is not known", out->streams[i].kind));
            return FAIL(E_CAPABILITY_MISSING);
        }
    }
    return OK;
}

static struct err load_set(const struct pack *pack, const struct manifest *m, struct snap_set **out)
{
    struct snap_set *set = NULL;
    TRY(snap_set_new(m, /* previous= */ NULL, &set));
    struct snap_missing missing;
    size_t at = 0;
    struct err e = OK;
    while (err_ok(e) && snap_set_missing(set, &at, &missing)) {
        auto_buf struct buf stored = BUF_MAX(CHUNK_RAW_MAX);
        const struct pack_record *record = pack_chunk(pack, missing.name.digest);
        e = record == NULL ? FAIL(E_CHUNK_MISSING) : pack_read(pack, record, &stored);
        if (err_ok(e)) {
            e = snap_set_add(set, &missing.name, buf_slice(&stored));
        }
    }
    if (err_ok(e)) {
        e = snap_set_close(set);
    }
    if (!err_ok(e)) {
        snap_set_unref(set);
        return e;
    }
    *out = set;
    return OK;
}

/* ---- the model ---- */

static struct err build(struct snap_set *set, struct dp_check_result *out, struct buf *message)
{
    struct dp_model_bin *bin = NULL;
    struct dp_model *model = NULL;
    struct dp_build_report report;
    TRY(dp_model_bin_new(&bin));
    uint64_t before_ns = clock_mono_ns();
    struct err e = dp_model_build(bin, set, /* previous= */ NULL, &model, &report);
    out->us = (clock_mono_ns() - before_ns) / 1000;
    out->version = snap_set_version(set);
    out->parts = report.parts;
    dp_model_unref(model);
    dp_model_bin_free(bin);
    if (!err_ok(e)) {
        TRY(buf_add_str(message, report.object));
    }
    return e;
}

static struct err check_pack(const struct pack *pack, const uint8_t environment[ENVIRONMENT_SIZE],
                             struct dp_check_result *out, struct buf *message)
{
    auto_manifest struct manifest manifest = {0};
    struct snap_set *set = NULL;
    TRY(load_manifest(pack, environment, &manifest, message));
    TRY(load_set(pack, &manifest, &set));
    struct err e = build(set, out, message);
    snap_set_unref(set);
    return e;
}

struct err dp_check(struct slice environment, const char *path, struct dp_check_result *out,
                    struct buf *message)
{
    *out = (struct dp_check_result){0};
    uint8_t id[ENVIRONMENT_SIZE];
    snap_environment(environment, id);
    auto_close int dir_fd = -1;
    struct pack pack;
    TRY(open_pack(path, id, &dir_fd, &pack, message));
    struct err e = check_pack(&pack, id, out, message);
    pack_close(&pack);
    return e;
}
