/*
 * Fuzzes: part_next, part_decode with every message of parts.proto, cut_stream, snap_set_close.
 * Property: a message that decodes encodes to the same bytes; a stream that can be walked is cut
 * into chunks that open again and give the same parts.
 *
 * The first byte is the stream's kind; with its top bit set, the rest is one message of it.
 */
#include "common/snapshot/parts.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_message(uint32_t kind, struct slice key, struct slice bytes)
{
    const ProtobufCMessageDescriptor *type = part_message(kind, key);
    auto_proto ProtobufCMessage *m = NULL;
    auto_buf struct buf again = BUF_MAX(PART_MAX);
    if (type != NULL && err_ok(part_decode(type, bytes, &m))) {
        struct err e = proto_encode(m, &again);
        CHECK(err_ok(e) && slice_eq(buf_slice(&again), bytes));
    }
}

static void compare(const struct snap_set *set, uint32_t kind, struct slice raw)
{
    struct part_iter it = {.rest = raw};
    struct snap_cursor at = {0};
    struct snap_part got;
    struct part want;
    bool more = true;
    struct err e = part_next(&it, &want, &more);
    while (err_ok(e) && more) {
        bool found = snap_set_next(set, kind, &at, &got);
        CHECK(found && slice_eq(got.key, want.key) && slice_eq(got.bytes, want.bytes));
        e = part_next(&it, &want, &more);
    }
    CHECK(err_ok(e));
}

static void fuzz_set(const struct cut_stream *cut, struct slice raw)
{
    const struct manifest_plan plan = {.version = 1, .streams = cut, .stream_count = 1};
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    auto_manifest struct manifest m = {0};
    struct snap_set *set = NULL;
    struct err e = manifest_encode(&plan, &body);
    CHECK(err_ok(e));
    e = manifest_decode(buf_slice(&body), &m);
    CHECK(err_ok(e));
    e = snap_set_new(&m, NULL, &set);
    CHECK(err_ok(e));
    for (size_t i = 0; i < cut->chunk_count; i++) {
        struct chunk_name name = manifest_chunk(&m.streams[0], i);
        e = snap_set_add(set, &name, cut->chunks[i].stored);
        CHECK(err_ok(e));
    }
    e = snap_set_close(set);
    CHECK(err_ok(e));
    compare(set, cut->kind, raw);
    snap_set_unref(set);
}

static void fuzz_stream(uint32_t kind, struct slice raw)
{
    struct part_iter it = {.rest = raw};
    struct part p;
    bool more = true;
    struct err walked = part_next(&it, &p, &more);
    while (err_ok(walked) && more) {
        fuzz_message(kind, p.key, p.bytes);
        walked = part_next(&it, &p, &more);
    }
    struct cut_stream cut;
    struct err e = cut_stream(kind, raw, /* options= */ NULL, &cut);
    CHECK(err_ok(e) == err_ok(walked));
    if (err_ok(e)) {
        fuzz_set(&cut, raw);
        cut_stream_free(&cut);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct slice keys[] = {SLICE_INIT("host/"), SLICE_INIT("service/"),
                                        SLICE_INIT("environment")};
    ids_init();
    if (size == 0) {
        return 0;
    }
    struct slice rest = slice_of(data + 1, size - 1);
    uint32_t kind = data[0] & 0x7f;
    if (data[0] < 0x80) {
        fuzz_stream(kind == 0 || kind == STREAM_POSITIONS ? 1 : kind, rest);
        return 0;
    }
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        fuzz_message(kind, keys[i], rest);
    }
    return 0;
}
