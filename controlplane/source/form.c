/* form: patterns, and what patterns cannot say. See form.h. */
#include "controlplane/source/form.h"

#include <arpa/inet.h>

#include "common/base/text.h"
#include "common/jose/jwk.h"

enum { PATTERN_BYTES = 2048 }; /* longer texts are judged by their own function alone. */

static bool path_is_plain(struct slice text)
{
    for (struct slice rest = slice_from(text, 1);;) { /* ends: each turn drops one segment. */
        size_t end = slice_find(rest, '/');
        struct slice segment = slice_head(rest, end);
        if (end == rest.size) {
            return !slice_eq(segment, SLICE_LIT(".")) && !slice_eq(segment, SLICE_LIT(".."));
        }
        if (segment.size == 0 || slice_eq(segment, SLICE_LIT(".")) ||
            slice_eq(segment, SLICE_LIT(".."))) {
            return false;
        }
        rest = slice_from(rest, end + 1);
    }
}

/* No ".." twice in a row, no label of more than 63: what a resolver takes. */
static bool host_is_plain(struct slice text)
{
    if (slice_starts(text, SLICE_LIT("*"))) {
        text = slice_from(text, text.size > 1 ? 2 : 1);
        if (text.size == 0) {
            return true;
        }
    }
    if (slice_find(text, ':') < text.size) {
        struct in6_addr address;
        return inet_pton(AF_INET6, (const char *)text.ptr, &address) == 1;
    }
    while (text.size > 0) {
        size_t end = slice_find(text, '.');
        if (end == 0 || end > 63) {
            return false;
        }
        text = slice_from(text, end + 1);
    }
    return true;
}

/* Whether all bits behind the first 'bits' are zero. */
static bool host_bits_zero(const uint8_t *address, size_t size, size_t bits)
{
    for (size_t i = bits; i < 8 * size; i++) {
        if ((address[i / 8] >> (7 - i % 8) & 1) != 0) {
            return false;
        }
    }
    return true;
}

static bool range_is_canonical(struct slice text)
{
    size_t slash = slice_find(text, '/');
    uint64_t bits = 0;
    char host[64];
    if (slash >= sizeof(host) || !slice_to_u64(slice_from(text, slash + 1), &bits)) {
        return false;
    }
    for (size_t i = 0; i < slash; i++) {
        host[i] = (char)text.ptr[i];
    }
    host[slash] = '\0';
    uint8_t address[16];
    if (inet_pton(AF_INET, host, address) == 1) {
        return bits <= 32 && host_bits_zero(address, 4, (size_t)bits);
    }
    return inet_pton(AF_INET6, host, address) == 1 && bits <= 128 &&
           host_bits_zero(address, 16, (size_t)bits);
}

static bool no_control(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.ptr[i] < 0x20 || text.ptr[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Whole groups of four; what the padding leaves over of the last character is zero. */
static bool is_base64(struct slice text)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t end = text.size;
    while (end > 0 && text.size - end < 2 && text.ptr[end - 1] == '=') {
        end--;
    }
    size_t last = 0;
    for (size_t i = 0; i < end; i++) {
        const char *place = memchr(alphabet, text.ptr[i], sizeof(alphabet) - 1);
        if (place == NULL) {
            return false;
        }
        last = (size_t)(place - alphabet);
    }
    size_t over = 2 * (text.size - end); /* bits of the last character that carry nothing. */
    return end > 0 && text.size % 4 == 0 && (last & (((size_t)1 << over) - 1)) == 0;
}

/* Browsers leave the usual port out: an origin with it is said by nobody. */
static bool origin_is_said(struct slice text)
{
    return !(slice_starts(text, SLICE_LIT("https://")) && slice_ends(text, SLICE_LIT(":443"))) &&
           !(slice_starts(text, SLICE_LIT("http://")) && slice_ends(text, SLICE_LIT(":80")));
}

/* Judges beyond the pattern. */
static bool fits_besides(enum cp_form form, struct slice text)
{
    bool clear = false;
    switch (form) {
    case CP_FORM_PATH:
        return path_is_plain(text);
    case CP_FORM_HOST:
    case CP_FORM_HOST_ANY:
    case CP_FORM_ADDRESS:
        return host_is_plain(text);
    case CP_FORM_CIDR:
        return range_is_canonical(text);
    case CP_FORM_VALUE:
    case CP_FORM_FILE:
        return no_control(text);
    case CP_FORM_BASE64:
        return is_base64(text);
    case CP_FORM_KEYS_URI:
        return jose_uri_is_safe(text, &clear);
    case CP_FORM_ORIGIN:
        return origin_is_said(text);
    case CP_FORM_NONE:
    case CP_FORM_NAME:
    case CP_FORM_KEY:
    case CP_FORM_REFERENCE:
    case CP_FORM_REFERENCE_GLOB:
    case CP_FORM_TYPE_GLOB:
    case CP_FORM_TYPE_MAJOR:
    case CP_FORM_DOMAIN:
    case CP_FORM_PROTO_NAME:
    case CP_FORM_PROTO_WORD:
    case CP_FORM_HTTP_METHOD:
    case CP_FORM_GLOB:
    case CP_FORM_HEADER:
    case CP_FORM_HEADER_VALUE:
    case CP_FORM_DIGEST:
    case CP_FORM_TYPE:
    case CP_FORM_VERSION:
    case CP_FORM_SPIFFE:
    case CP_FORM_SERIAL:
    case CP_FORM_ISSUER:
    case CP_FORM_CLAIM:
    case CP_FORM_CLAIM_VALUE:
    case CP_FORM_SUBJECT:
    case CP_FORM_KEY_SET:
    case CP_FORM_PEM:
    case CP_FORM_CONDITION:
    case CP_FORM_CLOCK:
    case CP_FORM_OFFSET:
    case CP_FORM_INSTANT:
    case CP_FORM_COUNT:
        return true;
    }
    return true;
}

struct err cp_forms_init(struct cp_forms *forms)
{
    *forms = (struct cp_forms){0};
    for (enum cp_form form = CP_FORM_NONE + 1; form < CP_FORM_COUNT; form++) {
        if (regcomp(&forms->patterns[form], cp_form_at(form)->pattern, REG_EXTENDED | REG_NOSUB) !=
            0) {
            cp_forms_free(forms);
            return FAIL(E_NO_MEMORY);
        }
        forms->compiled[form] = true;
    }
    return OK;
}

void cp_forms_free(struct cp_forms *forms)
{
    for (enum cp_form form = CP_FORM_NONE + 1; form < CP_FORM_COUNT; form++) {
        if (forms->compiled[form]) {
            regfree(&forms->patterns[form]);
            forms->compiled[form] = false;
        }
    }
}

bool cp_form_fits(const struct cp_forms *forms, enum cp_form form, struct slice text)
{
    if (text.size > cp_form_at(form)->longest || slice_find(text, '\0') < text.size) {
        return false;
    }
    if (text.size <= PATTERN_BYTES &&
        regexec(&forms->patterns[form], (const char *)text.ptr, 0, NULL, 0) != 0) {
        return false;
    }
    return fits_besides(form, text);
}

struct err cp_form_base64(struct slice text, struct arena *arena, struct slice *out)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    TRY(arena_alloc(arena, text.size / 4 * 3 + 1, (void **)&bytes));
    TRY(text_unbase64(text, bytes, &size));
    *out = slice_of(bytes, size);
    return OK;
}
