/* Targets grpc_scan(), grpc_reader_next() and the parsers of gRPC's fields. Property: scanner and
 * reader agree on the number of messages and on the error, however the input is cut; what was
 * encoded decodes to itself. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/grpc.h"

enum { MESSAGE_MAX = 4096, FIELD_MAX = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum err_code read_all(struct slice bytes, size_t step, uint64_t *out_messages)
{
    struct grpc_reader reader;
    grpc_reader_init(&reader, MESSAGE_MAX);
    struct err e = OK;
    *out_messages = 0;
    while (bytes.size > 0 && err_ok(e)) {
        struct slice piece = slice_head(bytes, step);
        bytes = slice_from(bytes, step);
        bool found = true;
        while (found && err_ok(e)) {
            struct slice message = {NULL, 0};
            e = grpc_reader_next(&reader, &piece, &message, &found);
            CHECK(message.size <= MESSAGE_MAX);
            *out_messages += err_ok(e) && found ? 1 : 0;
        }
        CHECK(!err_ok(e) || piece.size == 0);
    }
    e = err_ok(e) ? grpc_scan_end(&reader.scan) : e;
    grpc_reader_free(&reader);
    return e.code;
}

static void check_framing(struct slice bytes, size_t step)
{
    struct grpc_scan scan = {.message_max = MESSAGE_MAX};
    struct err e = OK;
    for (size_t at = 0; at < bytes.size && err_ok(e); at += step) {
        e = grpc_scan(&scan, slice_head(slice_from(bytes, at), step));
    }
    enum err_code code = err_ok(e) ? grpc_scan_end(&scan).code : e.code;
    uint64_t messages = 0;
    CHECK(read_all(bytes, step, &messages) == code);
    uint64_t open = scan.left > 0 ? 1 : 0;
    CHECK(messages == scan.messages - open);
}

static void check_fields(struct slice bytes)
{
    char encoded[FIELD_MAX * 3];
    char decoded[FIELD_MAX];
    struct slice text = slice_head(bytes, FIELD_MAX);
    size_t used = grpc_message_encode(text, encoded, sizeof(encoded));
    used = grpc_message_decode(slice_of(encoded, used), decoded, sizeof(decoded));
    CHECK(slice_eq(slice_of(decoded, used), text));
    (void)grpc_status_parse(bytes);
    (void)grpc_is_content_type(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct slice bytes = slice_of(data + 1, size - 1);
    check_framing(bytes, bytes.size == 0 ? 1 : bytes.size);
    check_framing(bytes, 1 + data[0] % 31);
    check_fields(bytes);
    return 0;
}
