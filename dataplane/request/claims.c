/* claims: see claims.h. */
#include "dataplane/request/claims.h"

#include <string.h>

#include "common/base/text.h"

/* Times past this are as good as any: the year 41700. */
#define TIME_MAX_S (INT64_C(1) << 40)

static const struct {
    const char *label;
    enum err_code code;
    const char *sentence;
} outcomes[DP_TOKEN_OUTCOME_COUNT] = {
#define X(name, label, code, sentence) [DP_TOKEN_##name] = {label, E_##code, sentence},
    DP_TOKEN_OUTCOMES(X)
#undef X
};

const char *dp_token_outcome_label(enum dp_token_outcome outcome)
{
    return outcomes[outcome].label;
}

enum err_code dp_token_outcome_code(enum dp_token_outcome outcome)
{
    return outcomes[outcome].code;
}

const char *dp_token_outcome_sentence(enum dp_token_outcome outcome)
{
    return outcomes[outcome].sentence;
}

/* ---- is it for us, and now? ---- */

static bool is_audience(const struct dp_issuer *issuer, const struct json_doc_value *value)
{
    for (size_t i = 0; i < issuer->audience_count; i++) {
        if (value->kind == JSON_DOC_STRING && slice_eq(value->text, issuer->audiences[i])) {
            return true;
        }
    }
    return false;
}

static bool has_audience(const struct json_doc_value *claims, const struct dp_issuer *issuer)
{
    const struct json_doc_value *aud = json_doc_get(claims, SLICE_LIT("aud"));
    const struct json_doc_value *at = NULL;
    bool found = aud != NULL && is_audience(issuer, aud);
    while (!found && json_doc_next(aud, &at)) {
        found = is_audience(issuer, at);
    }
    return found;
}

/* A NumericDate (RFC 7519, 2). */
static bool read_time(const struct json_doc_value *claims, struct slice name, int64_t *out_ms)
{
    uint64_t seconds = 0;
    if (!json_doc_u53(json_doc_get(claims, name), &seconds)) {
        return false;
    }
    *out_ms = (seconds > (uint64_t)TIME_MAX_S ? TIME_MAX_S : (int64_t)seconds) * 1000;
    return true;
}

enum dp_token_outcome dp_claims_hold(const struct json_doc_value *claims,
                                     const struct dp_issuer *issuer, int64_t now_ms,
                                     int64_t *out_expires_ms)
{
    int64_t leeway_ms = (int64_t)issuer->leeway_ms;
    int64_t ends_ms = 0;
    int64_t begins_ms = 0;
    bool begins = json_doc_get(claims, SLICE_LIT("nbf")) != NULL;
    if (!read_time(claims, SLICE_LIT("exp"), &ends_ms) ||
        (begins && !read_time(claims, SLICE_LIT("nbf"), &begins_ms))) {
        return DP_TOKEN_CLAIMS;
    }
    if (!has_audience(claims, issuer)) {
        return DP_TOKEN_AUDIENCE;
    }
    if (now_ms >= ends_ms + leeway_ms) {
        return DP_TOKEN_EXPIRED;
    }
    if (begins && now_ms < begins_ms - leeway_ms) {
        return DP_TOKEN_EARLY;
    }
    *out_expires_ms = ends_ms + leeway_ms;
    return DP_TOKEN_GOOD;
}

/* ---- one claim ---- */

/* The claim of that very name; else dots lead into objects: "realm_access.roles". */
static const struct json_doc_value *find_claim(const struct json_doc_value *claims,
                                               struct slice name)
{
    const struct json_doc_value *at = json_doc_get(claims, name);
    if (at != NULL || slice_find(name, '.') == name.size) {
        return at;
    }
    at = claims;
    for (struct slice rest = name; rest.size > 0 && at != NULL;) {
        struct slice step = slice_head(rest, slice_find(rest, '.'));
        at = json_doc_get(at, step);
        rest = slice_from(rest, step.size + 1);
    }
    return at;
}

/* Claims whose text is a list of words. */
static bool is_words(struct slice name)
{
    return slice_eq(name, SLICE_LIT("scope")) || slice_eq(name, SLICE_LIT("scp"));
}

/* The values of a claim, one after the other: of an array its items, of a list its words. */
struct values {
    const struct json_doc_value *claim; /* NULL: there is none. */
    const struct json_doc_value *item;
    struct slice words; /* the rest of them. */
    bool several;       /* it is a list, of however many. */
    bool over;
};

static struct values values_of(const struct json_doc_value *claims, struct slice name)
{
    const struct json_doc_value *claim = find_claim(claims, name);
    bool words = claim != NULL && claim->kind == JSON_DOC_STRING && is_words(name);
    return (struct values){.claim = claim,
                           .words = words ? claim->text : (struct slice){0},
                           .several = words || (claim != NULL && claim->kind == JSON_DOC_ARRAY),
                           .over = claim == NULL};
}

static bool next_word(struct slice *rest, struct slice *out)
{
    while (rest->size > 0 && rest->ptr[0] == ' ') {
        *rest = slice_from(*rest, 1);
    }
    *out = slice_head(*rest, slice_find(*rest, ' '));
    *rest = slice_from(*rest, out->size);
    return out->size > 0;
}

static bool is_scalar(const struct json_doc_value *value)
{
    return value->kind == JSON_DOC_STRING || value->kind == JSON_DOC_NUMBER ||
           value->kind == JSON_DOC_BOOL;
}

/* What is no text, number or truth is passed over: nothing could be compared with it. */
static bool next_value(struct values *v, struct slice *out)
{
    if (v->over) {
        return false;
    }
    if (v->several && v->claim->kind == JSON_DOC_STRING) {
        return next_word(&v->words, out);
    }
    while (v->several && json_doc_next(v->claim, &v->item)) {
        if (is_scalar(v->item)) {
            *out = v->item->text;
            return true;
        }
    }
    v->over = true;
    *out = v->claim->text;
    return !v->several && is_scalar(v->claim);
}

static bool has_value(const struct json_doc_value *claims, const struct dp_issuer_when *when)
{
    struct values values = values_of(claims, when->claim);
    struct slice value = {0};
    while (next_value(&values, &value)) {
        if (slice_eq(value, when->value)) {
            return true;
        }
    }
    return false;
}

/* A claim that is one text; false: it is absent, or something else. */
static bool one_text(const struct json_doc_value *claims, struct slice name, struct slice *out)
{
    const struct json_doc_value *claim = find_claim(claims, name);
    if (claim == NULL || claim->kind != JSON_DOC_STRING || claim->text.size == 0) {
        return false;
    }
    *out = claim->text;
    return true;
}

/* ---- whom does it speak of? ---- */

static bool fits(const struct json_doc_value *claims, const struct dp_issuer_tenant *way)
{
    for (size_t i = 0; i < way->when_count; i++) {
        if (!has_value(claims, &way->when[i])) {
            return false;
        }
    }
    return true;
}

/* All ways that fit lead to one tenant: whoever could add a claim would else pick another one. */
static enum dp_token_outcome find_tenant(const struct json_doc_value *claims,
                                         const struct dp_issuer *issuer, struct slice *out)
{
    struct slice found = {0};
    for (size_t i = 0; i < issuer->tenant_count; i++) {
        const struct dp_issuer_tenant *way = &issuer->tenants[i];
        struct slice tenant = way->tenant;
        if (!fits(claims, way) || (way->claim.size > 0 && !one_text(claims, way->claim, &tenant))) {
            continue;
        }
        if (found.size > 0 && !slice_eq(found, tenant)) {
            return DP_TOKEN_TENANT;
        }
        found = tenant;
    }
    bool foreign = issuer->only_tenant.size > 0 && !slice_eq(issuer->only_tenant, found);
    if (!text_is_name(found) || foreign) {
        return DP_TOKEN_TENANT;
    }
    *out = found;
    return DP_TOKEN_GOOD;
}

/* Takes bytes of the room; false: there are none left. */
static bool take_room(struct dp_claims_room *room, size_t size, uint8_t **out)
{
    if (size > sizeof(room->text) - room->used) {
        return false;
    }
    *out = room->text + room->used;
    room->used += size;
    return true;
}

/* Into a form that is the same in a header, a log and an id, and leads back to one subject. */
static bool encode_subject(struct dp_claims_room *room, struct slice subject, struct slice *out)
{
    static const char digits[] = "0123456789ABCDEF";
    uint8_t *to = room->text + room->used;
    size_t size = 0;
    for (size_t i = 0; i < subject.size; i++) {
        uint8_t c = subject.ptr[i];
        bool plain = c > ' ' && c < 0x7f && c != '%';
        if (size + 3 > DP_CLAIM_SUBJECT_MAX + 2) {
            return false;
        }
        if (plain) {
            to[size++] = c;
        } else {
            to[size++] = '%';
            to[size++] = (uint8_t)digits[c >> 4];
            to[size++] = (uint8_t)digits[c & 15];
        }
    }
    *out = slice_of(to, size);
    room->used += size;
    return size > 0 && size <= DP_CLAIM_SUBJECT_MAX;
}

/* "<name>/<value>": a list gives a trait for each of its values. */
static bool join_name(struct dp_claims_room *room, struct slice name, struct slice value,
                      struct slice *out)
{
    uint8_t *to = NULL;
    size_t size = name.size + 1 + value.size;
    if (!take_room(room, size, &to)) {
        return false;
    }
    memcpy(to, name.ptr, name.size);
    to[name.size] = '/';
    memcpy(to + name.size + 1, value.ptr, value.size);
    *out = slice_of(to, size);
    return true;
}

/* False: too many, or too long. To leave some out would pass by a rule that denies what they say.
 */
static bool read_trait(const struct json_doc_value *claims, const struct dp_issuer_trait *trait,
                       struct dp_claims_room *room, size_t *count)
{
    struct values values = values_of(claims, trait->claim);
    struct slice value = {0};
    while (next_value(&values, &value)) {
        if (value.size == 0) {
            continue;
        }
        if (*count == DP_CLAIM_TRAITS_MAX || value.size > DP_CLAIM_VALUE_MAX) {
            return false;
        }
        struct dp_trait *to = &room->traits[*count];
        *to = (struct dp_trait){trait->name, value};
        if (values.several) {
            to->value = SLICE_LIT("true");
            if (!join_name(room, trait->name, value, &to->name)) {
                return false;
            }
        }
        (*count)++;
    }
    return true;
}

enum dp_token_outcome dp_claims_read(const struct json_doc_value *claims,
                                     const struct dp_issuer *issuer, struct dp_claims_room *room,
                                     struct dp_claims *out)
{
    struct dp_claims read = {.traits = room->traits};
    struct slice subject = {0};
    room->used = 0;
    enum dp_token_outcome outcome = find_tenant(claims, issuer, &read.tenant);
    if (outcome != DP_TOKEN_GOOD) {
        return outcome;
    }
    if (!one_text(claims, issuer->subject_claim, &subject) ||
        !encode_subject(room, subject, &read.subject)) {
        return DP_TOKEN_CLAIMS;
    }
    if (issuer->service_claim.size > 0) {
        (void)one_text(claims, issuer->service_claim, &read.service);
    }
    for (size_t i = 0; i < issuer->trait_count; i++) {
        if (!read_trait(claims, &issuer->traits[i], room, &read.trait_count)) {
            return DP_TOKEN_CLAIMS;
        }
    }
    *out = read;
    return DP_TOKEN_GOOD;
}
