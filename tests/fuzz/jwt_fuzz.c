/*
 * Fuzzes: jwt_read, json_doc_parse, dp_claims_hold, dp_claims_read. The first byte says what the
 * rest is: an even one a token, an odd one claims as they stand in one.
 * Property: what is taken apart is in bounds and walks to its end; whom claims speak of can stand
 * in a header, a log and an id.
 */
#include "common/jose/jwt.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "dataplane/request/claims.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct slice audience = SLICE_INIT("trilane");
static const struct dp_issuer_when when = {SLICE_INIT("groups"), SLICE_INIT("staff")};
static const struct dp_issuer_tenant tenants[] = {
    {.claim = SLICE_INIT("org.name")},
    {.when = &when, .when_count = 1, .tenant = SLICE_INIT("acme")}};
static const struct dp_issuer_trait traits[] = {{SLICE_INIT("role"), SLICE_INIT("roles")},
                                                {SLICE_INIT("scope"), SLICE_INIT("scope")}};
static const struct dp_issuer issuer = {.name = SLICE_INIT("idp"),
                                        .audiences = &audience,
                                        .audience_count = 1,
                                        .leeway_ms = 1000,
                                        .tenants = tenants,
                                        .tenant_count = 2,
                                        .subject_claim = SLICE_INIT("sub"),
                                        .service_claim = SLICE_INIT("client_id"),
                                        .traits = traits,
                                        .trait_count = 2};

/* Every value spans what is in it, and no more than there is. */
static void walk(const struct json_doc_value *value)
{
    size_t inside = 0;
    CHECK(value->span > 0);
    for (size_t at = 1; at < value->span; at += value[at].span) {
        CHECK(value[at].span <= value->span - at);
        inside++;
    }
    CHECK(value->kind != JSON_DOC_OBJECT || inside % 2 == 0);
    CHECK(value->kind == JSON_DOC_OBJECT || value->kind == JSON_DOC_ARRAY || value->span == 1);
}

static void judge(const struct json_doc_value *claims)
{
    static struct dp_claims_room room;
    struct dp_claims found;
    int64_t expires_ms = 0;
    for (uint32_t i = 0; i < claims->span; i++) {
        walk(&claims[i]);
    }
    (void)dp_claims_hold(claims, &issuer, 1000000, &expires_ms);
    if (dp_claims_read(claims, &issuer, &room, &found) != DP_TOKEN_GOOD) {
        return;
    }
    CHECK(text_is_name(found.tenant));
    CHECK(found.subject.size > 0 && found.subject.size <= DP_CLAIM_SUBJECT_MAX);
    for (size_t i = 0; i < found.subject.size; i++) {
        CHECK(found.subject.ptr[i] > ' ' && found.subject.ptr[i] < 0x7f);
    }
    CHECK(found.trait_count <= DP_CLAIM_TRAITS_MAX);
    for (size_t i = 0; i < found.trait_count; i++) {
        CHECK(found.traits[i].value.size > 0 && found.traits[i].value.size <= DP_CLAIM_VALUE_MAX);
    }
}

static void take_token(struct slice token)
{
    static struct jwt_room room;
    struct jwt jwt;
    if (!err_ok(jwt_read(token, &room, &jwt))) {
        return;
    }
    CHECK(jwt_is_shaped(token));
    CHECK(jwt.alg > JOSE_NONE && jwt.alg < JOSE_ALG_COUNT);
    CHECK(jwt.signature.size > 0 && jwt.signed_part.size < token.size);
    walk(room.header_values);
    judge(jwt.claims);
}

static void take_claims(struct slice claims)
{
    static struct json_doc_value values[JWT_CLAIM_VALUES];
    uint8_t *text = malloc(claims.size + 1); /* exactly as long: ASan sees what is read past it. */
    CHECK(text != NULL);
    memcpy(text, claims.ptr, claims.size);
    if (err_ok(json_doc_parse(text, claims.size, values, JWT_CLAIM_VALUES))) {
        judge(values);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1) {
        struct slice rest = slice_of(data + 1, size - 1);
        if (data[0] % 2 == 0) {
            take_token(rest);
        } else {
            take_claims(rest);
        }
    }
    return 0;
}
