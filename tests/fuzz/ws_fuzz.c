/* Targets ws_read(): frames of a hostile client. Property: how the bytes are cut never changes
 * which messages are shown, nor whether the connection goes on; nothing is shown of a message past
 * its bound; and what is answered is bounded by what came. */
#include "common/net/ws.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/base/check.h"

enum { MESSAGE_MAX = 512, HEARD_MAX = 1 << 20, CONTROLS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct buf heard;
    size_t said;
    size_t message;
    size_t controls;
};

static void data_came(void *ctx, struct slice bytes, bool end)
{
    struct run *r = ctx;
    r->message += bytes.size;
    CHECK(r->message <= MESSAGE_MAX);
    CHECK(err_ok(buf_add(&r->heard, bytes)));
    if (end) {
        CHECK(err_ok(buf_add_str(&r->heard, "]")));
        r->message = 0;
    }
}

static bool control(void *ctx)
{
    struct run *r = ctx;
    return ++r->controls <= CONTROLS_MAX;
}

static size_t room(void *ctx)
{
    (void)ctx;
    return SIZE_MAX;
}

static struct err write_bytes(void *ctx, struct slice bytes)
{
    struct run *r = ctx;
    r->said += bytes.size;
    return OK;
}

static const struct ws_handler handler = {
    .data = data_came, .control = control, .room = room, .write = write_bytes};

static void run(struct run *r, struct slice input, size_t step)
{
    struct ws *ws = NULL;
    *r = (struct run){.heard = BUF_MAX(HEARD_MAX)};
    CHECK(err_ok(ws_new(&handler, r, MESSAGE_MAX, &ws)));
    struct err e = OK;
    for (size_t at = 0; at < input.size && err_ok(e); at += step) {
        e = ws_read(ws, slice_head(slice_from(input, at), step));
    }
    struct err flushed = ws_flush(ws);
    CHECK(err_ok(flushed) || !err_ok(e));
    CHECK(r->said <= 2 * input.size + 8);
    ws_free(ws);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    struct run whole;
    struct run cut;
    struct slice input = slice_of(data + 1, size - 1);
    run(&whole, input, input.size + 1);
    run(&cut, input, 1 + data[0] % 13);
    CHECK(slice_eq(buf_slice(&whole.heard), buf_slice(&cut.heard)));
    buf_free(&whole.heard);
    buf_free(&cut.heard);
    return 0;
}
