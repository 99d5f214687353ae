/* Targets grpc_web_decode(), grpc_web_content_type() and grpc_web_next_field(). Property: how
 * base64 is cut never changes what it decodes to, or that it does not; what was encoded decodes to
 * itself; a section of fields ends. */
#include "common/net/grpc_web.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

enum { BYTES_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum err_code decode(struct slice text, size_t step, uint8_t *out, size_t *out_size)
{
    struct grpc_web_decoder decoder = {0};
    *out_size = 0;
    while (text.size > 0) {
        struct slice piece = slice_head(text, step);
        text = slice_from(text, step);
        while (piece.size > 0) {
            size_t wrote = 0;
            struct err e = grpc_web_decode(&decoder, &piece, out + *out_size, 3 + step % 7, &wrote);
            if (!err_ok(e)) {
                return e.code;
            }
            *out_size += wrote;
        }
    }
    return grpc_web_decode_end(&decoder).code;
}

static void check_base64(struct slice text, size_t step)
{
    static uint8_t whole[BYTES_MAX + 16];
    static uint8_t cut[BYTES_MAX + 16];
    size_t whole_size = 0;
    size_t cut_size = 0;
    enum err_code code = decode(text, text.size + 1, whole, &whole_size);
    CHECK(decode(text, step, cut, &cut_size) == code);
    CHECK(code != E_OK || slice_eq(slice_of(whole, whole_size), slice_of(cut, cut_size)));
}

static void check_encoding(struct slice bytes)
{
    static char text[BYTES_MAX / 3 * 4 + 8];
    static uint8_t back[BYTES_MAX + 16];
    size_t size = 0;
    grpc_web_encode(bytes, text);
    struct slice encoded = slice_of(text, grpc_web_encoded_size(bytes.size));
    CHECK(decode(encoded, encoded.size + 1, back, &size) == E_OK);
    CHECK(slice_eq(slice_of(back, size), bytes));
}

static void check_section(struct slice section)
{
    struct slice name = {0};
    struct slice value = {0};
    struct slice suffix = {0};
    bool found = true;
    while (found) {
        size_t before = section.size;
        if (!err_ok(grpc_web_next_field(&section, &name, &value, &found))) {
            return;
        }
        CHECK(!found || section.size < before);
        (void)grpc_web_content_type(value, &suffix);
        (void)grpc_web_accepted(value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > BYTES_MAX) {
        return 0;
    }
    struct slice input = slice_of(data + 1, size - 1);
    check_base64(input, 1 + data[0] % 17);
    check_encoding(input);
    check_section(input);
    return 0;
}
