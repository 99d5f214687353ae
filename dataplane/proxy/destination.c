/* destination: see destination.h. */
#include "dataplane/proxy/destination.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/addr.h"

enum { LABEL_MAX = 63, HTTP_PORT = 80, HTTPS_PORT = 443, PORT_DIGITS_MAX = 5 };

static struct err refuse(void)
{
    return FAIL(E_EGRESS_DESTINATION);
}

/* ---- characters ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(uint8_t c)
{
    uint8_t lower = c | 0x20;
    return lower >= 'a' && lower <= 'z';
}

static uint8_t to_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

static bool is_one_of(uint8_t c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* RFC 3986, 2.3: their encoded and their plain form mean the same. */
static bool is_unreserved(uint8_t c)
{
    return is_letter(c) || is_digit(c) || is_one_of(c, "-._~");
}

/* What a path takes as it is, but for '/'. */
static bool is_path_char(uint8_t c)
{
    return is_unreserved(c) || is_one_of(c, "!$&'()*+,;=:@");
}

/* A query is opaque to us and to policies: any visible ASCII that no parser takes for an end. */
static bool is_query_char(uint8_t c)
{
    return c > ' ' && c < 0x7f && !is_one_of(c, "\"<>\\#");
}

static int hex_value(uint8_t c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    uint8_t lower = to_lower(c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Reads "%41" at 'at'; -1 when it is not that. */
static int read_escape(struct slice s, size_t at)
{
    if (s.size - at < 3) {
        return -1;
    }
    int high = hex_value(s.ptr[at + 1]);
    int low = hex_value(s.ptr[at + 2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* ---- host and port ---- */

static bool label_is_valid(struct slice label)
{
    if (label.size == 0 || label.size > LABEL_MAX || label.ptr[0] == '-' ||
        label.ptr[label.size - 1] == '-') {
        return false;
    }
    for (size_t i = 0; i < label.size; i++) {
        if (!is_letter(label.ptr[i]) && !is_digit(label.ptr[i]) && label.ptr[i] != '-' &&
            label.ptr[i] != '_') {
            return false;
        }
    }
    return true;
}

/* Whether some resolver would read it as a number: all digits, or hexadecimal. */
static bool label_is_number(struct slice label)
{
    bool hex = label.size >= 2 && label.ptr[0] == '0' && to_lower(label.ptr[1]) == 'x';
    for (size_t i = hex ? 2 : 0; i < label.size; i++) {
        if (hex ? hex_value(label.ptr[i]) < 0 : !is_digit(label.ptr[i])) {
            return false;
        }
    }
    return label.size > 0;
}

/* A name whose last label is a number is an IPv4 address, and then in its one plain form. */
static bool name_is_valid(struct slice name)
{
    struct slice rest = name;
    struct slice label = {0};
    while (rest.size > 0) {
        label = slice_head(rest, slice_find(rest, '.'));
        if (!label_is_valid(label)) {
            return false;
        }
        rest = slice_from(rest, label.size + 1);
    }
    if (!label_is_number(label)) {
        return name.size <= PX_HOST_MAX && name.ptr[name.size - 1] != '.';
    }
    struct net_addr unused = {0};
    return err_ok(net_addr_from_ip(name, 0, &unused));
}

static struct err read_name(struct slice text, struct arena *arena, struct slice *out)
{
    if (slice_ends(text, SLICE_LIT("."))) {
        text = slice_head(text, text.size - 1);
    }
    if (text.size == 0 || !name_is_valid(text)) {
        return refuse();
    }
    uint8_t *lower = NULL;
    TRY(arena_alloc(arena, text.size, (void **)&lower));
    for (size_t i = 0; i < text.size; i++) {
        lower[i] = to_lower(text.ptr[i]);
    }
    *out = slice_of(lower, text.size);
    return OK;
}

/* Inside of brackets: an address without a zone, written anew in its one canonical form. */
static struct err read_v6(struct slice text, struct arena *arena, struct slice *out)
{
    struct net_addr addr = {0};
    char canonical[INET6_ADDRSTRLEN];
    if (slice_find(text, '%') < text.size || !err_ok(net_addr_from_ip(text, 0, &addr)) ||
        addr.sa.any.sa_family != AF_INET6) {
        return refuse();
    }
    CHECK(inet_ntop(AF_INET6, &addr.sa.v6.sin6_addr, canonical, sizeof(canonical)) != NULL);
    return arena_dup(arena, slice_str(canonical), out);
}

static struct err read_port(struct slice text, uint16_t *out)
{
    uint64_t port = 0;
    if (text.size > PORT_DIGITS_MAX || !slice_to_u64(text, &port) || text.ptr[0] == '0' ||
        port > UINT16_MAX) {
        return refuse();
    }
    *out = (uint16_t)port;
    return OK;
}

/* Reads host and optional port; *out_port stays when there is none. */
static struct err read_host_port(struct slice text, struct arena *arena, struct slice *out_host,
                                 uint16_t *out_port)
{
    struct slice rest = {0};
    if (slice_starts(text, SLICE_LIT("["))) {
        size_t close = slice_find(text, ']');
        if (close == text.size) {
            return refuse();
        }
        TRY(read_v6(slice_of(text.ptr + 1, close - 1), arena, out_host));
        rest = slice_from(text, close + 1);
    } else {
        size_t colon = slice_find(text, ':');
        TRY(read_name(slice_head(text, colon), arena, out_host));
        rest = slice_from(text, colon);
    }
    if (rest.size == 0) {
        return OK;
    }
    return rest.ptr[0] == ':' ? read_port(slice_from(rest, 1), out_port) : refuse();
}

static struct err write_authority(struct px_destination *d, struct arena *arena)
{
    bool v6 = slice_find(d->host, ':') < d->host.size;
    bool usual = !d->tunnel && d->port == (d->tls ? HTTPS_PORT : HTTP_PORT);
    const char *open = v6 ? "[" : "";
    const char *close = v6 ? "]" : "";
    if (usual) {
        return arena_printf(arena, &d->authority, "%s%.*s%s", open, SLICE_ARG(d->host), close);
    }
    return arena_printf(arena, &d->authority, "%s%.*s%s:%u", open, SLICE_ARG(d->host), close,
                        (unsigned)d->port);
}

/* ---- path and query ---- */

/* What changes the meaning of a path when somebody behind us decodes it. */
static bool is_structure(uint8_t c)
{
    return c < ' ' || c == 0x7f || c == '/' || c == '\\' || c == '.';
}

/* "%252e": a reader that decodes twice sees an escape. Asked of the path's one form, in which the
 * two digits are plain. */
static bool has_double_escape(struct slice path)
{
    for (size_t i = 0; i + 4 < path.size; i++) {
        if (path.ptr[i] == '%' && path.ptr[i + 1] == '2' && path.ptr[i + 2] == '5' &&
            hex_value(path.ptr[i + 3]) >= 0 && hex_value(path.ptr[i + 4]) >= 0) {
            return true;
        }
    }
    return false;
}

/*
 * Writes a path's bytes in their one form: what needs no escape is plain, escapes are in capitals.
 * Refuses escapes that another reader may take for structure.
 */
static bool write_path_bytes(struct slice path, struct slice *out_text, uint8_t *room)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t size = 0;
    for (size_t i = 0; i < path.size; i++) {
        uint8_t c = path.ptr[i];
        if (c != '%') {
            if (c != '/' && !is_path_char(c)) {
                return false;
            }
            room[size++] = c;
            continue;
        }
        int byte = read_escape(path, i);
        if (byte < 0 || is_structure((uint8_t)byte)) {
            return false;
        }
        i += 2;
        if (is_unreserved((uint8_t)byte)) {
            room[size++] = (uint8_t)byte;
            continue;
        }
        room[size++] = '%';
        room[size++] = (uint8_t)digits[byte / 16];
        room[size++] = (uint8_t)digits[byte % 16];
    }
    *out_text = slice_of(room, size);
    return !has_double_escape(*out_text);
}

/* "..;x": parameters behind dots, which some servers cut off before they look at the dots. */
static bool is_dots_with_parameter(struct slice segment)
{
    size_t semicolon = slice_find(segment, ';');
    struct slice dots = slice_head(segment, semicolon);
    return semicolon < segment.size &&
           (slice_eq(dots, SLICE_LIT(".")) || slice_eq(dots, SLICE_LIT("..")));
}

/* Removes the last segment of what was written: 'size' counts "/a/b", and becomes that of "/a". */
static size_t drop_segment(const uint8_t *path, size_t size)
{
    while (size > 0 && path[size - 1] != '/') {
        size--;
    }
    return size > 0 ? size - 1 : 0;
}

/* RFC 3986, 5.2.4, in place; refuses empty segments but the last. */
static bool remove_dots(uint8_t *path, size_t *size)
{
    struct slice rest = slice_of(path + 1, *size - 1);
    size_t written = 0; /* without a '/' at the end. */
    for (;;) {          /* ends: each turn takes one segment off 'rest'. */
        struct slice segment = slice_head(rest, slice_find(rest, '/'));
        bool last = segment.size == rest.size;
        bool dot = slice_eq(segment, SLICE_LIT("."));
        bool dots = slice_eq(segment, SLICE_LIT(".."));
        if ((segment.size == 0 && !last) || is_dots_with_parameter(segment)) {
            return false;
        }
        written = dots ? drop_segment(path, written) : written;
        if (!dot && !dots) {
            path[written] = '/';
            memmove(path + written + 1, segment.ptr, segment.size);
            written += 1 + segment.size;
        } else if (last) {
            path[written++] = '/';
        }
        if (last) {
            *size = written;
            return true;
        }
        rest = slice_from(rest, segment.size + 1);
    }
}

static bool query_is_valid(struct slice query)
{
    for (size_t i = 0; i < query.size; i++) {
        if (!is_query_char(query.ptr[i]) || (query.ptr[i] == '%' && read_escape(query, i) <= 0)) {
            return false;
        }
    }
    return true;
}

/* 'text' is what follows the authority. */
static struct err read_target(struct slice text, struct arena *arena, struct px_destination *d)
{
    size_t mark = slice_find(text, '?');
    struct slice path = slice_head(text, mark);
    struct slice query = slice_from(text, mark); /* with its '?'. */
    path = path.size == 0 ? SLICE_LIT("/") : path;
    uint8_t *room = NULL;
    TRY(arena_alloc(arena, path.size + query.size, (void **)&room));
    if (!write_path_bytes(path, &d->path, room)) {
        return refuse();
    }
    size_t size = d->path.size;
    if (!remove_dots(room, &size) || !query_is_valid(query)) {
        return refuse();
    }
    if (query.size > 0) {
        memcpy(room + size, query.ptr, query.size);
    }
    d->path = slice_of(room, size);
    d->target = slice_of(room, size + query.size);
    return OK;
}

/* ---- the three forms ---- */

/* Takes the scheme off the front of *url. */
static bool read_scheme(struct slice *url, bool *out_tls)
{
    struct slice http = SLICE_LIT("http://");
    struct slice https = SLICE_LIT("https://");
    *out_tls = slice_eq_nocase(slice_head(*url, https.size), https);
    if (!*out_tls && !slice_eq_nocase(slice_head(*url, http.size), http)) {
        return false;
    }
    *url = slice_from(*url, *out_tls ? https.size : http.size);
    return true;
}

static size_t authority_size(struct slice text)
{
    size_t size = 0;
    while (size < text.size && text.ptr[size] != '/' && text.ptr[size] != '?') {
        size++;
    }
    return size;
}

struct err px_destination_url(struct slice url, struct arena *arena, struct px_destination *out)
{
    struct px_destination d = {0};
    struct slice rest = url;
    if (url.size > PX_URL_MAX || !read_scheme(&rest, &d.tls)) {
        return refuse();
    }
    size_t size = authority_size(rest);
    d.port = d.tls ? HTTPS_PORT : HTTP_PORT;
    TRY(read_host_port(slice_head(rest, size), arena, &d.host, &d.port));
    TRY(write_authority(&d, arena));
    TRY(read_target(slice_from(rest, size), arena, &d));
    *out = d;
    return OK;
}

struct err px_destination_authority(struct slice authority, struct arena *arena,
                                    struct px_destination *out)
{
    struct px_destination d = {.tunnel = true};
    TRY(read_host_port(authority, arena, &d.host, &d.port));
    if (d.port == 0) {
        return refuse();
    }
    TRY(write_authority(&d, arena));
    *out = d;
    return OK;
}

static struct err decode_once(struct slice text, struct arena *arena, struct slice *out)
{
    uint8_t *room = NULL;
    size_t size = 0;
    TRY(arena_alloc(arena, text.size, (void **)&room));
    for (size_t i = 0; i < text.size; i++) {
        int byte = text.ptr[i] == '%' ? read_escape(text, i) : text.ptr[i];
        if (byte < 0) {
            return refuse();
        }
        i += text.ptr[i] == '%' ? 2 : 0;
        room[size++] = (uint8_t)byte;
    }
    *out = slice_of(room, size);
    return OK;
}

struct err px_destination_fetch(struct slice query, struct arena *arena, struct px_destination *out)
{
    struct slice name = SLICE_LIT("url=");
    struct slice url = {0};
    if (!slice_starts(query, name) || query.size > 3 * (size_t)PX_URL_MAX ||
        slice_find(query, '&') < query.size || slice_find(query, '#') < query.size) {
        return refuse();
    }
    TRY(decode_once(slice_from(query, name.size), arena, &url));
    return px_destination_url(url, arena, out);
}

bool px_path_below(struct slice path, struct slice prefix)
{
    if (slice_ends(prefix, SLICE_LIT("/"))) {
        prefix = slice_head(prefix, prefix.size - 1);
    }
    return slice_starts(path, prefix) && (path.size == prefix.size || path.ptr[prefix.size] == '/');
}
