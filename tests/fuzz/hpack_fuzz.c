/* Targets hpack_next() and hpack_encode(). Property: a sequence of header blocks is read as nghttp2
 * reads it, field by field, and broken where it is; what was read is written again, and nghttp2
 * reads the same from that. An input is blocks, each behind a byte of its length. */
#include "common/net/hpack.h"

#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/h2_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS_MAX = 64, BYTES_MAX = 1 << 16 };

/* Fields that were read, with their bytes. */
struct list {
    struct h2_field at[FIELDS_MAX];
    bool never_index[FIELDS_MAX];
    size_t count;
    uint8_t bytes[BYTES_MAX];
    size_t size;
    bool broken;
    bool full; /* more than is kept: nothing is compared from there on. */
};

static struct slice keep(struct list *l, struct slice bytes)
{
    struct slice kept = slice_of(l->bytes + l->size, bytes.size);
    if (bytes.size > 0) {
        memcpy(l->bytes + l->size, bytes.ptr, bytes.size);
    }
    l->size += bytes.size;
    return kept;
}

static void add(struct list *l, struct slice name, struct slice value, bool never_index)
{
    if (l->count == FIELDS_MAX || name.size + value.size > BYTES_MAX - l->size) {
        l->full = true;
        return;
    }
    l->at[l->count] = h2_field_named(keep(l, name), keep(l, value));
    l->at[l->count].token = (uint8_t)h2_token_find(name);
    l->never_index[l->count++] = never_index;
}

static void read_ours(struct hpack_decoder *d, struct slice bytes, uint8_t *scratch, struct list *l)
{
    struct hpack_block block = {.at = bytes.ptr, .end = bytes.ptr + bytes.size};
    block.scratch = scratch;
    l->count = 0;
    l->size = 0;
    for (;;) { /* ends with the block. */
        struct hpack_field f;
        enum hpack_step step = hpack_next(d, &block, &f);
        if (step != HPACK_FIELD) {
            l->broken = step != HPACK_END;
            return;
        }
        CHECK(f.token == h2_token_find(f.name));
        CHECK(f.valid == (h2_value_is_valid(f.value) &&
                          (f.token != H2_TOKEN_OTHER || h2_name_is_valid(f.name))));
        add(l, f.name, f.value, f.never_index);
    }
}

static void read_theirs(nghttp2_hd_inflater *inflater, struct slice bytes, struct list *l)
{
    l->count = 0;
    l->size = 0;
    for (;;) { /* ends with the block. */
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, bytes.ptr, bytes.size, 1);
        if (used < 0) {
            l->broken = true;
            return;
        }
        bytes = slice_from(bytes, (size_t)used);
        if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
            add(l, slice_of(nv.name, nv.namelen), slice_of(nv.value, nv.valuelen),
                (nv.flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0);
        }
        if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
            nghttp2_hd_inflate_end_headers(inflater);
            return;
        }
        CHECK((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 || bytes.size > 0);
    }
}

static void expect_same(const struct list *ours, const struct list *theirs)
{
    if (ours->full || theirs->full) {
        return;
    }
    CHECK(ours->broken == theirs->broken);
    CHECK(ours->broken || ours->count == theirs->count);
    for (size_t i = 0; i < ours->count && i < theirs->count; i++) {
        CHECK(slice_eq(ours->at[i].name, theirs->at[i].name));
        CHECK(slice_eq(ours->at[i].value, theirs->at[i].value));
        CHECK(ours->never_index[i] == theirs->never_index[i]);
    }
}

/* Writes what was read, and has it read again. */
static void write_again(struct hpack_encoder *e, nghttp2_hd_inflater *inflater,
                        const struct list *read)
{
    static uint8_t block[2 * BYTES_MAX];
    static struct list again;
    size_t size = hpack_encode(e, read->at, read->count, block);
    CHECK(size <= hpack_encoded_bound(read->at, read->count));
    again.broken = false;
    again.full = false;
    read_theirs(inflater, slice_of(block, size), &again);
    CHECK(!again.broken && !again.full);
    CHECK(again.count == read->count);
    for (size_t i = 0; i < again.count; i++) {
        CHECK(slice_eq(again.at[i].name, read->at[i].name));
        CHECK(slice_eq(again.at[i].value, read->at[i].value));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t scratch[1024];
    static struct list ours;
    static struct list theirs;
    struct h2_mem mem = {0};
    struct hpack_decoder decoder;
    struct hpack_encoder encoder;
    nghttp2_hd_inflater *first = NULL;
    nghttp2_hd_inflater *second = NULL;
    hpack_decoder_init(&decoder, &mem);
    hpack_encoder_init(&encoder, &mem);
    CHECK(nghttp2_hd_inflate_new(&first) == 0 && nghttp2_hd_inflate_new(&second) == 0);
    ours.broken = false;
    ours.full = false;
    theirs.broken = false;
    theirs.full = false;
    struct slice rest = slice_of(data, size);
    while (rest.size > 1 && !ours.broken && !theirs.broken && !ours.full) {
        struct slice block = slice_head(slice_from(rest, 1), rest.ptr[0]);
        rest = slice_from(rest, 1 + block.size);
        if (rest.size % 3 == 0) {
            hpack_encoder_limit(&encoder, (uint32_t)rest.size * 37);
        }
        read_ours(&decoder, block, scratch, &ours);
        read_theirs(first, block, &theirs);
        expect_same(&ours, &theirs);
        if (!ours.broken && !ours.full) {
            write_again(&encoder, second, &ours);
        }
    }
    nghttp2_hd_inflate_del(first);
    nghttp2_hd_inflate_del(second);
    hpack_decoder_free(&decoder);
    hpack_encoder_free(&encoder);
    CHECK(mem.lent == 0);
    h2_mem_clear(&mem);
    return 0;
}
