/* Target: the HTTP/1.1 parser, requests and responses. Property: how a stream is cut never changes
 * what the parser says of it; and every head that it accepts is bounded by its store. */
#include <stdlib.h>

#include "common/base/check.h"

#include "tests/unit/common/net/http1_transcript.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 'cuts' gives the sizes of pieces, over and over; empty: one piece. */
static void run(struct transcript *t, enum http1_kind kind, struct slice input, struct slice cuts)
{
    transcript_init(t, kind);
    for (size_t i = 0; input.size > 0; i++) {
        size_t piece = cuts.size == 0 ? input.size : 1 + (size_t)cuts.ptr[i % cuts.size] % 32;
        struct slice part = slice_head(input, piece);
        transcript_feed(t, part);
        input = slice_from(input, part.size);
    }
    transcript_eof(t);
}

/* The first byte: kind, and how many of the next bytes are cuts. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct transcript whole;
    static struct transcript cut;
    if (size < 1) {
        return 0;
    }
    enum http1_kind kind = (data[0] & 1) == 0 ? HTTP1_REQUEST : HTTP1_RESPONSE;
    size_t cut_count = (data[0] >> 1) % 8U;
    if (size < 1 + cut_count) {
        return 0;
    }
    struct slice cuts = slice_of(data + 1, cut_count);
    struct slice input = slice_of(data + 1 + cut_count, size - 1 - cut_count);
    run(&whole, kind, input, (struct slice){0});
    run(&cut, kind, input, cuts);
    CHECK(slice_eq(buf_slice(&whole.text), buf_slice(&cut.text)));
    buf_free(&whole.text);
    buf_free(&cut.text);
    return 0;
}
