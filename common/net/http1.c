/* http1: the parser. Lines of a head are gathered in the store, and each is judged when its LF has
 * come: so the verdict depends on the bytes alone, and not on how they were cut. */
#include "common/net/http1.h"

#include <string.h>

#include "common/base/check.h"
#include "common/net/addr.h"

enum state {
    AT_START,      /* nothing of a message came. */
    IN_FIRST_LINE, /* request line or status line. */
    IN_FIELDS,
    AT_BODY, /* the head was given out: what follows is decided by its framing. */
    IN_LENGTH,
    IN_CHUNK_SIZE,
    IN_CHUNK_DATA,
    IN_CHUNK_END,
    IN_TRAILERS,
    IN_UNTIL_CLOSE,
    AT_END,
    DONE,
    UPGRADED,
};

enum { CHUNK_DIGITS_MAX = 15 };

/* RFC 9110, 5.6.2: tchar; RFC 3986: what a URI is written with, but for '#'. */
enum { TOKEN = 1, URI = 2, VALUE = 4, AUTHORITY = 8 };

#define ALNUM_CLASSES (TOKEN | URI | VALUE | AUTHORITY)

/* Beyond ASCII: allowed in values alone (obs-text). */
static const uint8_t classes[128] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = TOKEN | URI | VALUE | AUTHORITY,
    ['"'] = VALUE,
    ['#'] = TOKEN | VALUE,
    ['$'] = TOKEN | URI | VALUE | AUTHORITY,
    ['%'] = TOKEN | URI | VALUE | AUTHORITY,
    ['&'] = TOKEN | URI | VALUE | AUTHORITY,
    ['\''] = TOKEN | URI | VALUE | AUTHORITY,
    ['('] = URI | VALUE | AUTHORITY,
    [')'] = URI | VALUE | AUTHORITY,
    ['*'] = TOKEN | URI | VALUE | AUTHORITY,
    ['+'] = TOKEN | URI | VALUE | AUTHORITY,
    [','] = URI | VALUE | AUTHORITY,
    ['-'] = TOKEN | URI | VALUE | AUTHORITY,
    ['.'] = TOKEN | URI | VALUE | AUTHORITY,
    ['/'] = URI | VALUE,
    ['0'] = ALNUM_CLASSES,
    ['1'] = ALNUM_CLASSES,
    ['2'] = ALNUM_CLASSES,
    ['3'] = ALNUM_CLASSES,
    ['4'] = ALNUM_CLASSES,
    ['5'] = ALNUM_CLASSES,
    ['6'] = ALNUM_CLASSES,
    ['7'] = ALNUM_CLASSES,
    ['8'] = ALNUM_CLASSES,
    ['9'] = ALNUM_CLASSES,
    [':'] = URI | VALUE,
    [';'] = URI | VALUE | AUTHORITY,
    ['<'] = VALUE,
    ['='] = URI | VALUE | AUTHORITY,
    ['>'] = VALUE,
    ['?'] = URI | VALUE,
    ['@'] = URI | VALUE,
    ['A'] = ALNUM_CLASSES,
    ['B'] = ALNUM_CLASSES,
    ['C'] = ALNUM_CLASSES,
    ['D'] = ALNUM_CLASSES,
    ['E'] = ALNUM_CLASSES,
    ['F'] = ALNUM_CLASSES,
    ['G'] = ALNUM_CLASSES,
    ['H'] = ALNUM_CLASSES,
    ['I'] = ALNUM_CLASSES,
    ['J'] = ALNUM_CLASSES,
    ['K'] = ALNUM_CLASSES,
    ['L'] = ALNUM_CLASSES,
    ['M'] = ALNUM_CLASSES,
    ['N'] = ALNUM_CLASSES,
    ['O'] = ALNUM_CLASSES,
    ['P'] = ALNUM_CLASSES,
    ['Q'] = ALNUM_CLASSES,
    ['R'] = ALNUM_CLASSES,
    ['S'] = ALNUM_CLASSES,
    ['T'] = ALNUM_CLASSES,
    ['U'] = ALNUM_CLASSES,
    ['V'] = ALNUM_CLASSES,
    ['W'] = ALNUM_CLASSES,
    ['X'] = ALNUM_CLASSES,
    ['Y'] = ALNUM_CLASSES,
    ['Z'] = ALNUM_CLASSES,
    ['['] = URI | VALUE,
    ['\\'] = VALUE,
    [']'] = URI | VALUE,
    ['^'] = TOKEN | VALUE,
    ['_'] = TOKEN | URI | VALUE | AUTHORITY,
    ['`'] = TOKEN | VALUE,
    ['a'] = ALNUM_CLASSES,
    ['b'] = ALNUM_CLASSES,
    ['c'] = ALNUM_CLASSES,
    ['d'] = ALNUM_CLASSES,
    ['e'] = ALNUM_CLASSES,
    ['f'] = ALNUM_CLASSES,
    ['g'] = ALNUM_CLASSES,
    ['h'] = ALNUM_CLASSES,
    ['i'] = ALNUM_CLASSES,
    ['j'] = ALNUM_CLASSES,
    ['k'] = ALNUM_CLASSES,
    ['l'] = ALNUM_CLASSES,
    ['m'] = ALNUM_CLASSES,
    ['n'] = ALNUM_CLASSES,
    ['o'] = ALNUM_CLASSES,
    ['p'] = ALNUM_CLASSES,
    ['q'] = ALNUM_CLASSES,
    ['r'] = ALNUM_CLASSES,
    ['s'] = ALNUM_CLASSES,
    ['t'] = ALNUM_CLASSES,
    ['u'] = ALNUM_CLASSES,
    ['v'] = ALNUM_CLASSES,
    ['w'] = ALNUM_CLASSES,
    ['x'] = ALNUM_CLASSES,
    ['y'] = ALNUM_CLASSES,
    ['z'] = ALNUM_CLASSES,
    ['{'] = VALUE,
    ['|'] = TOKEN | VALUE,
    ['}'] = VALUE,
    ['~'] = TOKEN | URI | VALUE | AUTHORITY,
};

static uint8_t classes_of(uint8_t c)
{
    return c < sizeof(classes) ? classes[c] : VALUE;
}

static bool all_of(struct slice s, uint8_t class)
{
    for (size_t i = 0; i < s.size; i++) {
        if ((classes_of(s.ptr[i]) & class) == 0) {
            return false;
        }
    }
    return true;
}

bool http1_is_token(struct slice s)
{
    return s.size > 0 && all_of(s, TOKEN);
}

bool http1_is_value(struct slice s)
{
    return all_of(s, VALUE);
}

/* Takes the next member off a comma list. */
static struct slice next_member(struct slice *list)
{
    struct slice member = slice_head(*list, slice_find(*list, ','));
    *list = slice_from(*list, member.size + 1);
    return slice_trim(member);
}

void http1_parser_init(struct http1_parser *p, enum http1_kind kind,
                       const struct http1_store *store)
{
    *p = (struct http1_parser){.kind = kind, .store = *store, .state = AT_START};
}

void http1_next(struct http1_parser *p)
{
    CHECK(p->state == DONE);
    bool interim = p->kind == HTTP1_RESPONSE && p->head.status < 200;
    bool no_body = p->no_response_body;
    bool to_connect = p->to_connect;
    struct http1_store store = p->store;
    http1_parser_init(p, p->kind, &store);
    if (interim) { /* the real answer to the same request is still to come. */
        p->no_response_body = no_body;
        p->to_connect = to_connect;
    }
}

void http1_expect_response(struct http1_parser *p, struct slice request_method)
{
    CHECK(p->kind == HTTP1_RESPONSE && p->state == AT_START);
    p->no_response_body = slice_eq(request_method, SLICE_LIT("HEAD"));
    p->to_connect = slice_eq(request_method, SLICE_LIT("CONNECT"));
}

bool http1_in_message(const struct http1_parser *p)
{
    return p->state != AT_START && p->state != DONE && p->state != UPGRADED;
}

/*
 * Moves input into the store up to and with the next LF. True when a line is whole: then *out is
 * the line without CR LF.
 */
static struct err take_line(struct http1_parser *p, struct slice *input, bool *out_whole,
                            struct slice *out)
{
    size_t lf = slice_find(*input, '\n');
    bool whole = lf < input->size;
    size_t size = whole ? lf + 1 : input->size;
    if (size > p->store.size - p->used) {
        return FAIL(E_HEADERS_TOO_LARGE);
    }
    if (size > 0) {
        memcpy(p->store.bytes + p->used, input->ptr, size);
    }
    p->used += size;
    *input = slice_from(*input, size);
    *out_whole = whole;
    if (!whole) {
        return OK;
    }
    size_t length = p->used - p->line;
    if (length < 2 || p->store.bytes[p->used - 2] != '\r') {
        return FAIL(E_MALFORMED); /* a bare LF. */
    }
    *out = slice_of(p->store.bytes + p->line, length - 2);
    p->line = p->used;
    return OK;
}

/* "HTTP/1.0" or "HTTP/1.1". */
static struct err read_version(struct http1_parser *p, struct slice s)
{
    if (s.size != 8 || memcmp(s.ptr, "HTTP/", 5) != 0 || s.ptr[5] < '0' || s.ptr[5] > '9' ||
        s.ptr[6] != '.' || s.ptr[7] < '0' || s.ptr[7] > '9') {
        return FAIL(E_MALFORMED);
    }
    if (s.ptr[5] != '1' || s.ptr[7] > '1') {
        return FAIL(E_HTTP_VERSION);
    }
    p->head.minor = (unsigned)(s.ptr[7] - '0');
    return OK;
}

/* host, host:port, [v6], [v6]:port (RFC 9110, 4.2.3: a user in it is refused). */
static bool authority_valid(struct slice s, bool need_port)
{
    struct slice host = {0};
    uint16_t port = 0;
    bool literal = s.size > 0 && s.ptr[0] == '[';
    size_t host_end = literal ? slice_find(s, ']') + 1 : slice_find(s, ':');
    bool has_port = host_end < s.size;
    if (host_end > s.size || (need_port && !has_port)) {
        return false;
    }
    if (has_port) {
        if (!err_ok(net_host_port(s, &host, &port)) || (need_port && port == 0)) {
            return false;
        }
    } else {
        host = literal ? slice_of(s.ptr + 1, s.size - 2) : s;
    }
    if (literal) {
        struct net_addr addr = {0};
        return err_ok(net_addr_from_ip(host, port, &addr)) && addr.sa.any.sa_family == AF_INET6;
    }
    return host.size > 0 && all_of(host, AUTHORITY);
}

bool http1_is_authority(struct slice s)
{
    return authority_valid(s, /* need_port= */ false);
}

static bool is_scheme(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.ptr[i] | 0x20;
        bool letter = c >= 'a' && c <= 'z';
        bool later = (s.ptr[i] >= '0' && s.ptr[i] <= '9') || s.ptr[i] == '+' || s.ptr[i] == '-' ||
                     s.ptr[i] == '.';
        if (!letter && (i == 0 || !later)) {
            return false;
        }
    }
    return s.size > 0;
}

/* scheme "://" authority path-and-query */
static struct err read_absolute(struct http1_head *head)
{
    struct slice scheme = slice_head(head->target, slice_find(head->target, ':'));
    struct slice rest = slice_from(head->target, scheme.size);
    if (!is_scheme(scheme) || !slice_starts(rest, SLICE_LIT("://"))) {
        return FAIL(E_MALFORMED);
    }
    rest = slice_from(rest, 3);
    size_t end = slice_find(rest, '/');
    size_t query = slice_find(rest, '?');
    end = end < query ? end : query;
    head->form = HTTP1_ABSOLUTE;
    head->scheme = scheme;
    head->authority = slice_head(rest, end);
    head->path = slice_from(rest, end);
    if (!authority_valid(head->authority, /* need_port= */ false)) {
        return FAIL(E_MALFORMED);
    }
    if (head->path.size == 0) {
        head->path = SLICE_LIT("/");
    } else if (head->path.ptr[0] != '/') {
        return FAIL(E_MALFORMED); /* "http://host?query": nobody could pass that on as it is. */
    }
    return OK;
}

static struct err read_target(struct http1_head *head)
{
    struct slice target = head->target;
    if (target.size == 0 || !all_of(target, URI)) {
        return FAIL(E_MALFORMED);
    }
    if (slice_eq(head->method, SLICE_LIT("CONNECT"))) {
        head->form = HTTP1_AUTHORITY;
        head->authority = target;
        return authority_valid(target, /* need_port= */ true) ? OK : FAIL(E_MALFORMED);
    }
    if (slice_eq(target, SLICE_LIT("*"))) {
        head->form = HTTP1_ASTERISK;
        return slice_eq(head->method, SLICE_LIT("OPTIONS")) ? OK : FAIL(E_MALFORMED);
    }
    if (target.ptr[0] == '/') {
        head->form = HTTP1_ORIGIN;
        head->path = target;
        return OK;
    }
    return read_absolute(head);
}

static struct err read_request_line(struct http1_parser *p, struct slice line)
{
    struct http1_head *head = &p->head;
    head->method = slice_head(line, slice_find(line, ' '));
    struct slice rest = slice_from(line, head->method.size + 1);
    head->target = slice_head(rest, slice_find(rest, ' '));
    if (!http1_is_token(head->method)) {
        return FAIL(E_MALFORMED);
    }
    TRY(read_version(p, slice_from(rest, head->target.size + 1)));
    return read_target(head);
}

static struct err read_status_line(struct http1_parser *p, struct slice line)
{
    enum { STATUS_AT = 9, REASON_AT = 13 };
    TRY(read_version(p, slice_head(line, STATUS_AT - 1)));
    uint64_t status = 0;
    if (line.size < STATUS_AT + 3 || line.ptr[STATUS_AT - 1] != ' ' ||
        !slice_to_u64(slice_of(line.ptr + STATUS_AT, 3), &status) || status < 100 || status > 599) {
        return FAIL(E_MALFORMED);
    }
    /* The blank before an empty reason is often left out: that hides nothing. */
    if (line.size > STATUS_AT + 3 && line.ptr[STATUS_AT + 3] != ' ') {
        return FAIL(E_MALFORMED);
    }
    p->head.status = (unsigned)status;
    p->head.reason = slice_from(line, REASON_AT);
    return all_of(p->head.reason, VALUE) ? OK : FAIL(E_MALFORMED);
}

static struct err read_first_line(struct http1_parser *p, struct slice line)
{
    if (line.size == 0) {
        if (p->kind == HTTP1_RESPONSE || p->skipped_blank) {
            return FAIL(E_MALFORMED);
        }
        p->skipped_blank = true;
        return OK;
    }
    p->state = IN_FIELDS;
    return p->kind == HTTP1_REQUEST ? read_request_line(p, line) : read_status_line(p, line);
}

static struct err see_length(struct http1_parser *p, struct slice value)
{
    if (p->saw_length) {
        return FAIL(E_PROTOCOL_ERROR);
    }
    p->saw_length = true;
    if (!slice_to_u64(value, &p->head.length) || p->head.length > INT64_MAX) {
        return FAIL(E_MALFORMED);
    }
    return OK;
}

static struct err see_coding(struct http1_parser *p, struct slice value)
{
    bool chunked = false;
    bool more = true;
    p->saw_coding = true;
    while (more) { /* an empty member is one, too: not all readers pass it over. */
        more = slice_find(value, ',') < value.size;
        chunked = slice_eq_nocase(next_member(&value), SLICE_LIT("chunked"));
        p->codings++;
    }
    if (!chunked || p->head.minor == 0) {
        return FAIL(E_PROTOCOL_ERROR);
    }
    return p->codings == 1 ? OK : FAIL(E_UNSUPPORTED);
}

static struct err see_host(struct http1_parser *p, struct slice value)
{
    if (p->kind == HTTP1_RESPONSE) {
        return OK;
    }
    if (p->saw_host) {
        return FAIL(E_PROTOCOL_ERROR);
    }
    p->saw_host = true;
    if (!authority_valid(value, /* need_port= */ false)) {
        return FAIL(E_MALFORMED);
    }
    if (p->head.form == HTTP1_ORIGIN || p->head.form == HTTP1_ASTERISK) {
        p->head.authority = value;
    }
    return OK;
}

static struct err see_connection(struct http1_parser *p, struct slice value)
{
    p->connection_bytes += value.size + (p->saw_connection ? 1 : 0);
    p->saw_connection = true;
    if (p->connection_bytes > HTTP1_CONNECTION_BYTES_MAX) {
        return FAIL(E_MALFORMED);
    }
    while (value.size > 0) {
        struct slice option = next_member(&value);
        p->saw_close |= slice_eq_nocase(option, SLICE_LIT("close"));
        p->saw_keep_alive |= slice_eq_nocase(option, SLICE_LIT("keep-alive"));
        p->saw_upgrade_option |= slice_eq_nocase(option, SLICE_LIT("upgrade"));
    }
    return OK;
}

/* Fields that decide about framing and connection; 'name' is in lower case. */
static struct err see_field(struct http1_parser *p, const struct http1_field *f)
{
    switch (f->name.size) {
    case 4:
        return slice_eq(f->name, SLICE_LIT("host")) ? see_host(p, f->value) : OK;
    case 6:
        p->head.expect_continue |= slice_eq(f->name, SLICE_LIT("expect")) &&
                                   slice_eq_nocase(f->value, SLICE_LIT("100-continue"));
        return OK;
    case 7:
        p->saw_upgrade |= slice_eq(f->name, SLICE_LIT("upgrade"));
        return OK;
    case 10:
        return slice_eq(f->name, SLICE_LIT("connection")) ? see_connection(p, f->value) : OK;
    case 14:
        return slice_eq(f->name, SLICE_LIT("content-length")) ? see_length(p, f->value) : OK;
    case 17:
        return slice_eq(f->name, SLICE_LIT("transfer-encoding")) ? see_coding(p, f->value) : OK;
    default:
        return OK;
    }
}

/* Splits "name: value"; a line that starts with white space (obs-fold) has no token before it. */
static struct err read_field(struct http1_parser *p, struct slice line, struct http1_field **out)
{
    struct slice name = slice_head(line, slice_find(line, ':'));
    struct slice value = slice_trim(slice_from(line, name.size + 1));
    if (name.size == line.size || !http1_is_token(name) || !http1_is_value(value)) {
        return FAIL(E_MALFORMED);
    }
    if (p->field_count == p->store.field_max) {
        return FAIL(E_HEADERS_TOO_LARGE);
    }
    uint8_t *bytes = p->store.bytes + (name.ptr - p->store.bytes);
    for (size_t i = 0; i < name.size; i++) {
        bytes[i] |= bytes[i] >= 'A' && bytes[i] <= 'Z' ? 0x20 : 0;
    }
    struct http1_field *f = &p->store.fields[p->field_count++];
    *f = (struct http1_field){.name = name, .value = value};
    *out = f;
    return OK;
}

static struct err frame_request(struct http1_parser *p)
{
    struct http1_head *head = &p->head;
    if (!p->saw_host && head->minor > 0) {
        return FAIL(E_PROTOCOL_ERROR);
    }
    if (head->form == HTTP1_AUTHORITY && (p->saw_coding || p->saw_length)) {
        return FAIL(E_PROTOCOL_ERROR); /* a body here would be taken for the tunnel's bytes. */
    }
    head->framing = p->saw_coding                       ? HTTP1_CHUNKED
                    : p->saw_length && head->length > 0 ? HTTP1_LENGTH
                                                        : HTTP1_NO_BODY;
    head->expect_continue &= head->minor > 0 && head->framing != HTTP1_NO_BODY;
    return OK;
}

static struct err frame_response(struct http1_parser *p)
{
    struct http1_head *head = &p->head;
    bool tunnel = head->status == 101 || (p->to_connect && head->status / 100 == 2);
    bool bodiless = head->status < 200 || head->status == 204;
    if ((bodiless || tunnel) && p->saw_coding) {
        return FAIL(E_PROTOCOL_ERROR); /* RFC 9112, 6.1. */
    }
    if (bodiless || tunnel || head->status == 304 || p->no_response_body) {
        head->framing = HTTP1_NO_BODY;
    } else if (p->saw_coding) {
        head->framing = HTTP1_CHUNKED;
    } else if (p->saw_length) {
        head->framing = head->length > 0 ? HTTP1_LENGTH : HTTP1_NO_BODY;
    } else {
        head->framing = HTTP1_UNTIL_CLOSE;
    }
    return OK;
}

/* The blank line came. */
static struct err end_head(struct http1_parser *p)
{
    struct http1_head *head = &p->head;
    if (p->saw_coding && p->saw_length) {
        return FAIL(E_PROTOCOL_ERROR); /* the mother of smuggling (RFC 9112, 6.3). */
    }
    TRY(p->kind == HTTP1_REQUEST ? frame_request(p) : frame_response(p));
    head->fields = p->store.fields;
    head->field_count = p->field_count;
    head->upgrade = p->saw_upgrade && p->saw_upgrade_option && head->minor > 0;
    head->keep_alive = !p->saw_close && (head->minor > 0 || p->saw_keep_alive) &&
                       head->framing != HTTP1_UNTIL_CLOSE;
    p->state = AT_BODY;
    return OK;
}

/* Fields that decide how a message is read must not come when it was read (RFC 9110, 6.5.1). */
static bool allowed_in_trailers(struct slice name)
{
    static const char *const refused[] = {"content-length",   "transfer-encoding", "host",
                                          "connection",       "content-encoding",  "content-type",
                                          "content-range",    "trailer",           "authorization",
                                          "proxy-connection", "upgrade",           "expect"};
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (slice_eq(name, slice_str(refused[i]))) {
            return false;
        }
    }
    return true;
}

/* One line of the head or of the trailers. */
static struct err read_line(struct http1_parser *p, struct slice line, bool *out_head)
{
    if (p->state == IN_FIRST_LINE) {
        return read_first_line(p, line);
    }
    if (line.size == 0 && p->state == IN_FIELDS) {
        *out_head = true;
        return end_head(p);
    }
    if (line.size == 0) {
        p->trailers = p->store.fields + p->head.field_count;
        p->trailer_count = p->field_count - p->head.field_count;
        p->state = AT_END;
        return OK;
    }
    struct http1_field *f = NULL;
    TRY(read_field(p, line, &f));
    if (p->state == IN_FIELDS) {
        return see_field(p, f);
    }
    return allowed_in_trailers(f->name) ? OK : FAIL(E_PROTOCOL_ERROR);
}

static void begin_body(struct http1_parser *p)
{
    const struct http1_head *head = &p->head;
    bool tunnel = p->kind == HTTP1_REQUEST
                      ? head->form == HTTP1_AUTHORITY
                      : head->status == 101 || (p->to_connect && head->status / 100 == 2);
    if (tunnel) {
        p->state = UPGRADED;
        return;
    }
    switch (head->framing) {
    case HTTP1_NO_BODY:
        p->state = AT_END;
        return;
    case HTTP1_LENGTH:
        p->left = head->length;
        p->state = IN_LENGTH;
        return;
    case HTTP1_CHUNKED:
        p->state = IN_CHUNK_SIZE;
        return;
    case HTTP1_UNTIL_CLOSE:
        p->state = IN_UNTIL_CLOSE;
        return;
    }
}

static struct slice take(struct slice *input, uint64_t most)
{
    size_t size = input->size < most ? input->size : (size_t)most;
    struct slice taken = slice_head(*input, size);
    *input = slice_from(*input, size);
    return taken;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    uint8_t lower = c | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The line of a chunk's size is whole. */
static struct err end_chunk_size(struct http1_parser *p)
{
    if (p->chunk_digits == 0) {
        return FAIL(E_MALFORMED);
    }
    p->state = p->left == 0 ? IN_TRAILERS : IN_CHUNK_DATA;
    p->line = p->used;
    p->chunk_digits = 0;
    p->in_extension = false;
    p->saw_cr = false;
    return OK;
}

/* One byte of "SIZE [;extension] CR LF". */
static struct err read_chunk_size(struct http1_parser *p, uint8_t c)
{
    if (p->saw_cr) {
        return c == '\n' ? end_chunk_size(p) : FAIL(E_MALFORMED);
    }
    if (c == '\r') {
        p->saw_cr = true;
        return OK;
    }
    if (p->in_extension) {
        p->extension_bytes++;
        if (p->extension_bytes > HTTP1_EXTENSION_BYTES_MAX) {
            return FAIL(E_TOO_LARGE);
        }
        return (classes_of(c) & VALUE) != 0 ? OK : FAIL(E_MALFORMED);
    }
    if (c == ';' && p->chunk_digits > 0) {
        p->in_extension = true;
        return OK;
    }
    int digit = hex_digit(c);
    if (digit < 0 || p->chunk_digits == CHUNK_DIGITS_MAX) {
        return FAIL(E_MALFORMED);
    }
    p->left = (p->chunk_digits == 0 ? 0 : p->left << 4) | (uint64_t)digit;
    p->chunk_digits++;
    return OK;
}

/* The CR LF behind a chunk's data. */
static struct err read_chunk_end(struct http1_parser *p, uint8_t c)
{
    if (c != (p->saw_cr ? '\n' : '\r')) {
        return FAIL(E_MALFORMED);
    }
    if (p->saw_cr) {
        p->state = IN_CHUNK_SIZE;
    }
    p->saw_cr = !p->saw_cr;
    return OK;
}

/* One piece of body; ends its part when all of it came. */
static bool take_body(struct http1_parser *p, struct slice *input, enum state then)
{
    p->body = take(input, p->left);
    p->left -= p->body.size;
    if (p->left == 0) {
        p->state = (uint8_t)then;
    }
    return p->body.size > 0;
}

/* Takes a line, if it is whole, and judges it. */
static struct err step_line(struct http1_parser *p, struct slice *input, enum http1_event *out)
{
    bool whole = false;
    bool head = false;
    struct slice line = {0};
    TRY(take_line(p, input, &whole, &line));
    if (whole) {
        TRY(read_line(p, line, &head));
    }
    *out = head ? HTTP1_HEAD : HTTP1_MORE;
    return OK;
}

/* One step: takes input, or changes the state. *out stays HTTP1_MORE when nothing is to be told. */
static struct err step(struct http1_parser *p, struct slice *input, enum http1_event *out)
{
    struct slice byte = {0};
    switch ((enum state)p->state) {
    case AT_START:
        p->state = IN_FIRST_LINE;
        return OK;
    case IN_FIRST_LINE:
    case IN_FIELDS:
    case IN_TRAILERS:
        return step_line(p, input, out);
    case AT_BODY:
        begin_body(p);
        return OK;
    case IN_LENGTH:
        *out = take_body(p, input, AT_END) ? HTTP1_BODY : HTTP1_MORE;
        return OK;
    case IN_CHUNK_DATA:
        *out = take_body(p, input, IN_CHUNK_END) ? HTTP1_BODY : HTTP1_MORE;
        return OK;
    case IN_UNTIL_CLOSE:
        p->body = take(input, UINT64_MAX);
        *out = HTTP1_BODY;
        return OK;
    case IN_CHUNK_SIZE:
        byte = take(input, 1);
        return read_chunk_size(p, byte.ptr[0]);
    case IN_CHUNK_END:
        byte = take(input, 1);
        return read_chunk_end(p, byte.ptr[0]);
    case AT_END:
        p->state = DONE;
        *out = HTTP1_END;
        return OK;
    case UPGRADED:
        *out = HTTP1_UPGRADED;
        return OK;
    case DONE:
        break;
    }
    CHECK(p->state != DONE); /* http1_next() was forgotten. */
    return OK;
}

/* States that tell something, or move on, without input. */
static bool needs_input(const struct http1_parser *p)
{
    return p->state != AT_BODY && p->state != AT_END && p->state != UPGRADED;
}

struct err http1_parse(struct http1_parser *p, struct slice *input, enum http1_event *out)
{
    if (p->dead != E_OK) {
        return FAIL(p->dead);
    }
    enum http1_event event = HTTP1_MORE;
    while (event == HTTP1_MORE && (input->size > 0 || !needs_input(p))) {
        struct err failed = step(p, input, &event);
        if (!err_ok(failed)) {
            p->dead = failed.code;
            return failed;
        }
    }
    *out = event;
    return OK;
}

struct err http1_parse_eof(struct http1_parser *p, enum http1_event *out)
{
    if (p->dead != E_OK) {
        return FAIL(p->dead);
    }
    if (p->state == IN_UNTIL_CLOSE || p->state == AT_END ||
        (p->state == AT_BODY && p->head.framing == HTTP1_UNTIL_CLOSE) ||
        (p->state == AT_BODY && p->head.framing == HTTP1_NO_BODY)) {
        p->state = DONE;
        *out = HTTP1_END;
        return OK;
    }
    /* A blank line that was forgiven opens no message. */
    bool nothing_open = p->state == IN_FIRST_LINE && p->skipped_blank && p->line == p->used;
    if (http1_in_message(p) && !nothing_open) {
        p->dead = E_MALFORMED;
        return FAIL(E_MALFORMED);
    }
    *out = HTTP1_MORE;
    return OK;
}

const struct http1_field *http1_find(const struct http1_head *head, struct slice name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        if (slice_eq(head->fields[i].name, name)) {
            return &head->fields[i];
        }
    }
    return NULL;
}

bool http1_has_token(const struct http1_head *head, struct slice name, struct slice token)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct slice list = head->fields[i].value;
        while (slice_eq(head->fields[i].name, name) && list.size > 0) {
            if (slice_eq_nocase(next_member(&list), token)) {
                return true;
            }
        }
    }
    return false;
}

bool http1_is_hop_by_hop(struct slice name)
{
    static const char *const names[] = {
        "connection",    "keep-alive",       "te",      "transfer-encoding",
        "trailer",       "proxy-connection", "upgrade", "proxy-authorization",
        "http2-settings"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (slice_eq(name, slice_str(names[i]))) {
            return true;
        }
    }
    return false;
}
