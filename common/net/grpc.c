/* gRPC's framing, timeouts and statuses on HTTP/2. */
#include "common/net/grpc.h"

/* ---- framing ---- */

static uint32_t prefix_size(const uint8_t prefix[GRPC_PREFIX_BYTES])
{
    return (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 |
           prefix[4];
}

/* A prefix is whole: checks it and starts its message. */
static struct err scan_prefix(struct grpc_scan *scan)
{
    if (scan->prefix[0] > 1) {
        return FAIL(E_MALFORMED);
    }
    uint32_t size = prefix_size(scan->prefix);
    if (size > scan->message_max) {
        return FAIL(E_MESSAGE_TOO_LARGE);
    }
    scan->compressed = scan->compressed || scan->prefix[0] == 1;
    scan->left = size;
    scan->have = 0;
    scan->messages++;
    return OK;
}

/* Takes bytes of a prefix from the front of *in; checks it when it is whole. */
static struct err scan_head(struct grpc_scan *scan, struct slice *in)
{
    size_t missing = GRPC_PREFIX_BYTES - (size_t)scan->have;
    size_t size = in->size < missing ? in->size : missing;
    if (size > 0) {
        memcpy(scan->prefix + scan->have, in->ptr, size);
    }
    scan->have = (uint8_t)(scan->have + size);
    *in = slice_from(*in, size);
    return scan->have == GRPC_PREFIX_BYTES ? scan_prefix(scan) : OK;
}

/* Takes bytes of the current message from the front of *in. */
static struct slice scan_body(struct grpc_scan *scan, struct slice *in)
{
    struct slice body = slice_head(*in, scan->left);
    scan->left -= (uint32_t)body.size;
    scan->bytes += body.size;
    *in = slice_from(*in, body.size);
    return body;
}

struct err grpc_scan(struct grpc_scan *scan, struct slice bytes)
{
    while (bytes.size > 0) {
        (void)scan_body(scan, &bytes);
        if (bytes.size > 0) {
            TRY(scan_head(scan, &bytes));
        }
    }
    return OK;
}

struct err grpc_scan_end(const struct grpc_scan *scan)
{
    return scan->left == 0 && scan->have == 0 ? OK : FAIL(E_MALFORMED);
}

void grpc_reader_init(struct grpc_reader *r, uint64_t message_max)
{
    *r = (struct grpc_reader){.scan = {.message_max = message_max},
                              .held = BUF_MAX(message_max > SIZE_MAX ? SIZE_MAX : message_max)};
}

void grpc_reader_free(struct grpc_reader *r)
{
    buf_free(&r->held);
}

/* Where the message begins: forgets what was lent before, and reads the prefix. */
static struct err reader_open(struct grpc_reader *r, struct slice *in)
{
    if (r->scan.have == 0) {
        buf_clear(&r->held);
    }
    uint64_t before = r->scan.messages;
    TRY(scan_head(&r->scan, in));
    r->message_open = r->scan.messages != before;
    if (r->message_open) {
        r->compressed = r->scan.prefix[0] == 1;
    }
    return OK;
}

struct err grpc_reader_next(struct grpc_reader *r, struct slice *in, struct slice *out_message,
                            bool *out_found)
{
    *out_found = false;
    if (!r->message_open) {
        TRY(reader_open(r, in));
    }
    if (!r->message_open) {
        return OK; /* the prefix is not whole, so *in is empty. */
    }
    struct slice body = scan_body(&r->scan, in);
    bool whole = r->scan.left == 0;
    if (!whole || r->held.size > 0) {
        TRY(buf_add(&r->held, body));
        body = buf_slice(&r->held);
    }
    if (whole) {
        r->message_open = false;
        *out_message = body;
        *out_found = true;
    }
    return OK;
}

void grpc_prefix_write(uint32_t message_bytes, uint8_t out[GRPC_PREFIX_BYTES])
{
    out[0] = 0;
    out[1] = (uint8_t)(message_bytes >> 24);
    out[2] = (uint8_t)(message_bytes >> 16);
    out[3] = (uint8_t)(message_bytes >> 8);
    out[4] = (uint8_t)message_bytes;
}

/* ---- fields ---- */

bool grpc_is_content_type(struct slice value)
{
    static const struct slice name = {(const uint8_t *)"application/grpc", 16};
    if (!slice_eq_nocase(slice_head(value, name.size), name)) {
        return false;
    }
    return value.size == name.size || value.ptr[name.size] == '+' || value.ptr[name.size] == ';';
}

/* Bytes that stand for themselves (PROTOCOL-HTTP2.md: space to '~' without '%'). */
static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte <= 0x7e && byte != '%';
}

/* Bytes of the UTF-8 character that starts here; a stray byte is one of its own. */
static size_t char_size(struct slice text)
{
    uint8_t first = text.ptr[0];
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
    return size <= text.size ? size : 1;
}

static size_t encoded_size(struct slice character)
{
    return character.size == 1 && is_plain(character.ptr[0]) ? 1 : character.size * 3;
}

size_t grpc_message_encode(struct slice text, char *out, size_t capacity)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t used = 0;
    while (text.size > 0) {
        struct slice character = slice_head(text, char_size(text));
        if (encoded_size(character) > capacity - used) {
            break;
        }
        for (size_t i = 0; i < character.size; i++) {
            uint8_t byte = character.ptr[i];
            if (is_plain(byte)) {
                out[used++] = (char)byte;
                continue;
            }
            out[used++] = '%';
            out[used++] = hex[byte >> 4];
            out[used++] = hex[byte & 15];
        }
        text = slice_from(text, character.size);
    }
    return used;
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

size_t grpc_message_decode(struct slice value, char *out, size_t capacity)
{
    size_t used = 0;
    while (value.size > 0 && used < capacity) {
        int high = value.size >= 3 && value.ptr[0] == '%' ? hex_digit(value.ptr[1]) : -1;
        int low = high >= 0 ? hex_digit(value.ptr[2]) : -1;
        bool escaped = low >= 0;
        out[used++] = escaped ? (char)(uint8_t)(high * 16 + low) : (char)value.ptr[0];
        value = slice_from(value, escaped ? 3 : 1);
    }
    return used;
}

enum grpc_status grpc_status_parse(struct slice value)
{
    uint64_t status = 0;
    if (value.size > 2 || !slice_to_u64(value, &status) || status > GRPC_UNAUTHENTICATED) {
        return GRPC_UNKNOWN;
    }
    return (enum grpc_status)status;
}

struct slice grpc_status_text(enum grpc_status status)
{
    static const char digits[] = "0123456789";
    static const char tens[] = "10111213141516";
    if (status < 10) {
        return slice_of(digits + status, 1);
    }
    return slice_of(tens + ((size_t)status - 10) * 2, 2);
}

enum grpc_status grpc_status_of_http(int http_status)
{
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

/* ---- refusals ---- */

/* Writes digits, without a NUL behind them. */
static struct slice number_text(uint64_t number, char room[20])
{
    size_t at = 20;
    do {
        room[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return slice_of(room + at, 20 - at);
}

size_t grpc_refusal_fields(const struct grpc_refusal *r, struct grpc_refusal_room *room,
                           struct h2_field fields[GRPC_REFUSAL_FIELDS])
{
    struct slice sentence = r->sentence.size > 0 ? r->sentence : slice_str(err_text(r->code));
    size_t size = grpc_message_encode(sentence, room->message, sizeof(room->message));
    struct slice status = grpc_status_text((enum grpc_status)err_grpc_status(r->code));
    size_t n = 0;
    fields[n++] = h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200"));
    fields[n++] = h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc"));
    fields[n++] = h2_field_static(H2_TOKEN_GRPC_STATUS, status);
    fields[n++] = h2_field_of(H2_TOKEN_GRPC_MESSAGE, slice_of(room->message, size));
    fields[n++] = h2_field_static(H2_TOKEN_X_TRILANE_CODE, slice_str(err_name(r->code)));
    if (r->rule.size > 0) {
        fields[n++] = h2_field_of(H2_TOKEN_X_TRILANE_RULE, r->rule);
    }
    if (r->explain.size > 0) {
        fields[n++] = h2_field_of(H2_TOKEN_X_TRILANE_EXPLAIN, r->explain);
    }
    if (r->version != 0) {
        fields[n++] =
            h2_field_of(H2_TOKEN_X_TRILANE_VERSION, number_text(r->version, room->version));
    }
    if (r->retry_ms != 0) {
        fields[n++] =
            h2_field_of(H2_TOKEN_GRPC_RETRY_PUSHBACK, number_text(r->retry_ms, room->retry));
    }
    return n;
}

void grpc_refuse(struct h2_stream *s, const struct grpc_refusal *r)
{
    struct grpc_refusal_room room;
    struct h2_field fields[GRPC_REFUSAL_FIELDS];
    if (h2_stream_sent_end(s)) {
        return;
    }
    size_t count = grpc_refusal_fields(r, &room, fields);
    struct err e = h2_stream_responded(s) ? h2_stream_trailers(s, fields + 2, count - 2)
                                          : h2_stream_respond(s, fields, count, /* end= */ true);
    if (!err_ok(e)) {
        h2_stream_reset(s, H2_INTERNAL_ERROR);
    }
}
