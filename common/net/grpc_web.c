/* grpc_web: see grpc_web.h. */
#include "common/net/grpc_web.h"

#include "common/base/check.h"
#include "common/net/grpc.h"
#include "common/net/http1.h"

/* ---- content types ---- */

/* "+proto" behind a type; what is no suffix makes it another type. */
static bool read_suffix(struct slice rest, struct slice *out)
{
    struct slice suffix = slice_head(rest, slice_find(rest, ';'));
    while (suffix.size > 0 && suffix.ptr[suffix.size - 1] == ' ') {
        suffix.size--;
    }
    if (suffix.size > 0 && (suffix.ptr[0] != '+' || !http1_is_token(slice_from(suffix, 1)))) {
        return false;
    }
    *out = suffix;
    return true;
}

enum grpc_web_kind grpc_web_content_type(struct slice value, struct slice *out_suffix)
{
    static const struct slice binary = SLICE_INIT("application/grpc-web");
    static const struct slice text = SLICE_INIT("application/grpc-web-text");
    if (slice_eq_nocase(slice_head(value, text.size), text)) {
        return read_suffix(slice_from(value, text.size), out_suffix) ? GRPC_WEB_TEXT
                                                                     : GRPC_WEB_NONE;
    }
    if (slice_eq_nocase(slice_head(value, binary.size), binary)) {
        return read_suffix(slice_from(value, binary.size), out_suffix) ? GRPC_WEB_BINARY
                                                                       : GRPC_WEB_NONE;
    }
    return GRPC_WEB_NONE;
}

enum grpc_web_kind grpc_web_accepted(struct slice accept)
{
    enum grpc_web_kind kind = GRPC_WEB_NONE;
    while (accept.size > 0 && kind == GRPC_WEB_NONE) {
        struct slice type = slice_head(accept, slice_find(accept, ','));
        struct slice suffix = {0};
        accept = slice_from(accept, type.size + 1);
        while (type.size > 0 && type.ptr[0] == ' ') {
            type = slice_from(type, 1);
        }
        kind = grpc_web_content_type(type, &suffix);
    }
    return kind;
}

/* ---- base64 ---- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum { NO_DIGIT = 64 };

static uint8_t digit_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return (uint8_t)(c - 'A');
    }
    if (c >= 'a' && c <= 'z') {
        return (uint8_t)(c - 'a' + 26);
    }
    if (c >= '0' && c <= '9') {
        return (uint8_t)(c - '0' + 52);
    }
    return c == '+' ? 62 : c == '/' ? 63 : NO_DIGIT;
}

/* One character of a group. Padding stands for its third and fourth alone. */
static struct err take_character(struct grpc_web_decoder *d, uint8_t c)
{
    uint8_t digit = digit_of(c);
    bool padding = c == '=' && d->have >= 2;
    if (padding ? d->have - d->padded < 2 : digit == NO_DIGIT || d->padded > 0) {
        return FAIL(E_MALFORMED);
    }
    d->bits = d->bits << 6 | (padding ? 0 : digit);
    d->padded = (uint8_t)(d->padded + (padding ? 1 : 0));
    d->have++;
    return OK;
}

/* A group is whole: one to three bytes. Bits that padding cuts off must be zero: what decodes has
 * one form alone (RFC 4648, 3.5). */
static struct err end_group(struct grpc_web_decoder *d, uint8_t *out, size_t *used)
{
    static const uint32_t cut_off[] = {0, 0xff, 0xffff};
    if ((d->bits & cut_off[d->padded]) != 0) {
        return FAIL(E_MALFORMED);
    }
    size_t size = 3 - (size_t)d->padded;
    for (size_t i = 0; i < size; i++) {
        out[(*used)++] = (uint8_t)(d->bits >> (16 - 8 * i));
    }
    *d = (struct grpc_web_decoder){0};
    return OK;
}

struct err grpc_web_decode(struct grpc_web_decoder *d, struct slice *in, uint8_t *out,
                           size_t capacity, size_t *out_size)
{
    size_t used = 0;
    size_t at = 0;
    while (at < in->size && capacity - used >= 3) {
        TRY(take_character(d, in->ptr[at++]));
        if (d->have == 4) {
            TRY(end_group(d, out, &used));
        }
    }
    *in = slice_from(*in, at);
    *out_size = used;
    return OK;
}

struct err grpc_web_decode_end(const struct grpc_web_decoder *d)
{
    return d->have == 0 ? OK : FAIL(E_MALFORMED);
}

void grpc_web_encode(struct slice bytes, char *out)
{
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t bits = (uint32_t)bytes.ptr[i] << 16;
        bits |= left > 1 ? (uint32_t)bytes.ptr[i + 1] << 8 : 0;
        bits |= left > 2 ? bytes.ptr[i + 2] : 0;
        *out++ = alphabet[bits >> 18];
        *out++ = alphabet[bits >> 12 & 63];
        *out++ = '=';
        *out++ = '=';
        if (left > 1) {
            out[-2] = alphabet[bits >> 6 & 63];
        }
        if (left > 2) {
            out[-1] = alphabet[bits & 63];
        }
    }
}

/* ---- sections of fields ---- */

static bool is_pseudo(const struct h2_field *f)
{
    return f->name.size > 0 && f->name.ptr[0] == ':';
}

static struct err write_field(struct buf *out, const struct h2_field *f)
{
    if (!http1_is_token(f->name) || !http1_is_value(f->value)) {
        return FAIL(E_USAGE);
    }
    TRY(buf_add(out, f->name));
    TRY(buf_add_str(out, ": "));
    TRY(buf_add(out, f->value));
    return buf_add_str(out, "\r\n");
}

static struct err write_section(struct buf *out, const struct h2_field *fields, size_t count)
{
    static const uint8_t no_prefix[GRPC_PREFIX_BYTES] = {0};
    size_t from = out->size;
    TRY(buf_add(out, slice_of(no_prefix, sizeof(no_prefix))));
    for (size_t i = 0; i < count; i++) {
        if (!is_pseudo(&fields[i])) {
            TRY(write_field(out, &fields[i]));
        }
    }
    size_t size = out->size - from - GRPC_PREFIX_BYTES;
    CHECK(size <= UINT32_MAX);
    grpc_prefix_write((uint32_t)size, out->ptr + from);
    out->ptr[from] = GRPC_WEB_FIELDS_FLAG;
    return OK;
}

struct err grpc_web_write_fields(struct buf *out, const struct h2_field *fields, size_t count)
{
    size_t before = out->size;
    struct err e = write_section(out, fields, count);
    if (!err_ok(e)) {
        out->size = before;
    }
    return e;
}

struct err grpc_web_next_field(struct slice *section, struct slice *out_name,
                               struct slice *out_value, bool *out_found)
{
    *out_found = false;
    if (section->size == 0) {
        return OK;
    }
    struct slice line = slice_head(*section, slice_find(*section, '\n'));
    bool whole = line.size < section->size && line.size > 0 && line.ptr[line.size - 1] == '\r';
    struct slice rest = slice_from(*section, line.size + 1);
    line.size -= whole ? 1 : 0;
    struct slice name = slice_head(line, slice_find(line, ':'));
    struct slice value = slice_trim(slice_from(line, name.size + 1));
    if (!whole || name.size == line.size || !http1_is_token(name) || !http1_is_value(value)) {
        return FAIL(E_MALFORMED);
    }
    *section = rest;
    *out_name = name;
    *out_value = value;
    *out_found = true;
    return OK;
}
