/* Fields that a message of HTTP/2 must and must not have. */
#include "common/net/h2_message.h"

#include <string.h>

#define BIT(token) (UINT64_C(1) << H2_TOKEN_##token)

static const uint64_t pseudo_of_kind[] = {
    [H2_SECTION_REQUEST] = BIT(AUTHORITY) | BIT(METHOD) | BIT(PATH) | BIT(SCHEME),
    [H2_SECTION_ANSWER] = BIT(STATUS),
    [H2_SECTION_TRAILERS] = 0,
};

/* ---- bytes ---- */

enum byte_class { NAME = 1, TOKEN = 2, PATH = 4, AUTHORITY = 8, SCHEME = 16, LETTER = 32 };

/* Filled before main() runs; read only from then on. */
static uint8_t classes[256];

static void add_class(const char *bytes, uint8_t class)
{
    for (const char *b = bytes; *b != '\0'; b++) {
        classes[(uint8_t)*b] |= class;
    }
}

__attribute__((constructor)) static void fill_classes(void)
{
    add_class("0123456789abcdefghijklmnopqrstuvwxyz!#$%&'*+-.^_`|~", NAME | TOKEN);
    add_class("ABCDEFGHIJKLMNOPQRSTUVWXYZ", TOKEN);
    add_class("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$&'()*+,;=:@[]%",
              AUTHORITY);
    add_class("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-.", SCHEME);
    add_class("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", LETTER);
    for (unsigned byte = 0x21; byte < 256; byte++) {
        classes[byte] |= byte == 0x7f ? 0 : PATH;
    }
}

static bool all_of(struct slice s, uint8_t class)
{
    uint8_t common = class;
    for (size_t i = 0; i < s.size; i++) {
        common &= classes[s.ptr[i]];
    }
    return common != 0;
}

bool h2_name_is_valid(struct slice name)
{
    if (name.size > 0 && name.ptr[0] == ':') {
        name = slice_from(name, 1);
    }
    return name.size > 0 && all_of(name, NAME);
}

/* Whether one of eight bytes is below 0x20 or is 0x7f, or perhaps is above it: those that are sure
 * to be neither are by far the most. */
static bool may_have_control(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t del = word ^ ones * 0x7f;
    return (((word - ones * 0x20) | (del - ones) | word) & (ones * 0x80)) != 0;
}

static bool is_value_byte(uint8_t byte)
{
    return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

bool h2_value_is_valid(struct slice value)
{
    if (value.size == 0) {
        return true;
    }
    if (is_blank(value.ptr[0]) || is_blank(value.ptr[value.size - 1])) {
        return false;
    }
    size_t at = 0;
    for (uint64_t word; at + sizeof(word) <= value.size; at += sizeof(word)) {
        memcpy(&word, value.ptr + at, sizeof(word));
        if (may_have_control(word)) {
            break;
        }
    }
    for (; at < value.size; at++) {
        if (!is_value_byte(value.ptr[at])) {
            return false;
        }
    }
    return true;
}

/* ---- fields ---- */

void h2_check_begin(struct h2_check *c, enum h2_section_kind kind)
{
    *c = (struct h2_check){.kind = kind, .content_length = H2_LENGTH_NONE};
}

static bool is_status(struct slice value)
{
    return value.size == 3 && value.ptr[0] >= '1' && value.ptr[0] <= '9' && value.ptr[1] >= '0' &&
           value.ptr[1] <= '9' && value.ptr[2] >= '0' && value.ptr[2] <= '9';
}

static bool check_path(struct h2_check *c, struct slice value)
{
    c->asterisk = slice_eq(value, SLICE_LIT("*"));
    return value.size > 0 && (value.ptr[0] == '/' || c->asterisk) && all_of(value, PATH);
}

static bool check_pseudo(struct h2_check *c, enum h2_token token, struct slice value)
{
    uint64_t bit = UINT64_C(1) << token;
    if (c->regular || token == H2_TOKEN_OTHER || (pseudo_of_kind[c->kind] & bit) == 0 ||
        (c->seen & bit) != 0) {
        return false;
    }
    c->seen |= bit;
    switch ((int)token) {
    case H2_TOKEN_METHOD:
        c->connect = slice_eq(value, SLICE_LIT("CONNECT"));
        c->options = slice_eq(value, SLICE_LIT("OPTIONS"));
        return value.size > 0 && all_of(value, TOKEN);
    case H2_TOKEN_PATH:
        return check_path(c, value);
    case H2_TOKEN_SCHEME:
        return value.size > 0 && (classes[value.ptr[0]] & LETTER) != 0 && all_of(value, SCHEME);
    case H2_TOKEN_AUTHORITY:
        return value.size > 0 && all_of(value, AUTHORITY); /* section 8.3.1. */
    default:
        return is_status(value);
    }
}

/* What is of one hop of HTTP/1 has no place (section 8.2.2). */
static bool is_of_connection(struct slice name)
{
    switch (name.size) {
    case 7:
        return slice_eq(name, SLICE_LIT("upgrade"));
    case 10:
        return slice_eq(name, SLICE_LIT("connection")) || slice_eq(name, SLICE_LIT("keep-alive"));
    case 16:
        return slice_eq(name, SLICE_LIT("proxy-connection"));
    case 17:
        return slice_eq(name, SLICE_LIT("transfer-encoding"));
    default:
        return false;
    }
}

/* Behind the body it would say another length than the one that was kept to. */
static bool check_length(struct h2_check *c, struct slice value)
{
    if (c->kind == H2_SECTION_TRAILERS) {
        return false;
    }
    bool first = c->content_length == H2_LENGTH_NONE;
    return first && slice_to_u64(value, &c->content_length) && c->content_length <= INT64_MAX;
}

bool h2_check_field(struct h2_check *c, enum h2_token token, struct slice name, struct slice value)
{
    if (name.size > 0 && name.ptr[0] == ':') {
        return check_pseudo(c, token, value);
    }
    c->regular = true;
    switch ((int)token) {
    case H2_TOKEN_OTHER:
        return !is_of_connection(name);
    case H2_TOKEN_TE:
        return slice_eq_nocase(value, SLICE_LIT("trailers"));
    case H2_TOKEN_CONTENT_LENGTH:
        return check_length(c, value);
    case H2_TOKEN_HOST: {
        bool first = (c->seen & BIT(HOST)) == 0;
        c->seen |= BIT(HOST);
        return c->kind != H2_SECTION_REQUEST ||
               (first && value.size > 0 && all_of(value, AUTHORITY));
    }
    default:
        return true;
    }
}

static bool check_request_end(const struct h2_check *c)
{
    if (c->connect) {
        return (c->seen & (BIT(AUTHORITY) | BIT(SCHEME) | BIT(PATH))) == BIT(AUTHORITY);
    }
    const uint64_t needed = BIT(METHOD) | BIT(SCHEME) | BIT(PATH);
    return (c->seen & needed) == needed && (c->seen & (BIT(AUTHORITY) | BIT(HOST))) != 0 &&
           (!c->asterisk || c->options);
}

bool h2_check_end(const struct h2_check *c)
{
    switch ((int)c->kind) {
    case H2_SECTION_REQUEST:
        return check_request_end(c);
    case H2_SECTION_ANSWER:
        return (c->seen & BIT(STATUS)) != 0;
    default:
        return true;
    }
}
