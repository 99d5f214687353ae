/*
 * secret: what must not stand in sources.
 *
 * Sources are stored, shown and copied to every node's operator; a secret in them is lost. The
 * tests are rough on purpose: a false alarm costs a rename, a miss costs a key.
 */
#include <math.h>

#include "controlplane/source/form.h"

enum {
    TOKEN_CHARS = 24, /* shorter runs are words. */
    HEX_CHARS = 32,   /* 128 bits. */
    RUN_CHARS_MAX = 4096,
};

static bool is_lower(uint8_t c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_upper(uint8_t c)
{
    return c >= 'A' && c <= 'Z';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_token_char(uint8_t c)
{
    return is_lower(c) || is_upper(c) || is_digit(c) || c == '+' || c == '/' || c == '=' ||
           c == '_' || c == '-';
}

/* Bits a character, were each drawn by its share in the run. */
static double entropy(struct slice run)
{
    size_t seen[256] = {0};
    for (size_t i = 0; i < run.size; i++) {
        seen[run.ptr[i]]++;
    }
    double bits = 0;
    for (size_t c = 0; c < 256; c++) {
        if (seen[c] > 0) {
            double share = (double)seen[c] / (double)run.size;
            bits -= share * log2(share);
        }
    }
    return bits;
}

static bool run_is_random(struct slice run)
{
    size_t lower = 0;
    size_t upper = 0;
    size_t digit = 0;
    size_t hex = 0;
    for (size_t i = 0; i < run.size; i++) {
        uint8_t c = run.ptr[i];
        lower += is_lower(c);
        upper += is_upper(c);
        digit += is_digit(c);
        hex += is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    }
    if (hex == run.size) {
        return run.size >= HEX_CHARS && digit > 0 && lower + upper > 0 && entropy(run) > 2.5;
    }
    return run.size >= TOKEN_CHARS && lower > 0 && upper > 0 && digit > 0 && entropy(run) > 3.7;
}

static bool holds(struct slice text, const char *part)
{
    struct slice wanted = slice_str(part);
    return text.size >= wanted.size && memmem(text.ptr, text.size, wanted.ptr, wanted.size) != NULL;
}

/* scheme://user:password@host */
static bool has_userinfo(struct slice text)
{
    const uint8_t *scheme = text.size < 3 ? NULL : memmem(text.ptr, text.size, "://", 3);
    if (scheme == NULL) {
        return false;
    }
    struct slice rest = slice_from(text, (size_t)(scheme - text.ptr) + 3);
    rest = slice_head(rest, slice_find(rest, '/'));
    size_t at = slice_find(rest, '@');
    return at < rest.size && slice_find(slice_head(rest, at), ':') < at;
}

const char *cp_secret_text(struct slice text)
{
    static const struct {
        const char *front;
        const char *what;
    } known[] = {{"AKIA", "an access key"},          {"ghp_", "an access token"},
                 {"github_pat_", "an access token"}, {"xoxb-", "an access token"},
                 {"xoxp-", "an access token"},       {"sk_live_", "a secret key"},
                 {"Bearer ", "a bearer token"},      {"Basic ", "a user's password"}};
    if (holds(text, "PRIVATE KEY-----")) {
        return "a private key";
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (slice_starts(text, slice_str(known[i].front)) && text.size >= 16) {
            return known[i].what;
        }
    }
    if (has_userinfo(text)) {
        return "a URL with a password";
    }
    while (text.size > 0) {
        size_t end = 0;
        while (end < text.size && end < RUN_CHARS_MAX && is_token_char(text.ptr[end])) {
            end++;
        }
        if (run_is_random(slice_head(text, end))) {
            return "a random-looking token";
        }
        text = slice_from(text, end == 0 ? 1 : end);
    }
    return NULL;
}

bool cp_secret_key(struct slice key)
{
    static const char *const words[] = {"password", "passwd",       "passphrase", "secret",
                                        "apikey",   "privatekey",   "credential", "accesskey",
                                        "token",    "authorization"};
    static const char *const fine[] = {"ref", "digest", "file", "path", "id", "name"};
    char folded[128];
    size_t size = 0;
    for (size_t i = 0; i < key.size && size < sizeof(folded); i++) {
        uint8_t c = key.ptr[i];
        if (c != '-' && c != '_' && c != '.') {
            folded[size++] = (char)(is_upper(c) ? c + 32 : c);
        }
    }
    struct slice name = slice_of(folded, size);
    for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++) {
        if (slice_ends(name, slice_str(fine[i]))) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (holds(name, words[i])) {
            return true;
        }
    }
    return false;
}

bool cp_secret_header(struct slice name)
{
    static const char *const names[] = {"authorization", "proxy-authorization", "cookie",
                                        "x-api-key"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (slice_eq(name, slice_str(names[i]))) {
            return true;
        }
    }
    return false;
}
