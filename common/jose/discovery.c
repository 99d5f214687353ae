/* discovery: see discovery.h. */
#include "common/jose/discovery.h"

#include <stdlib.h>

#include "common/base/scope.h"
#include "common/jose/json_doc.h"
#include "common/jose/jwk.h"

bool jose_discovery_may(struct slice issuer, bool *out_clear)
{
    return jose_uri_is_safe(issuer, out_clear) && slice_find(issuer, '?') == issuer.size;
}

/* Section 4: a slash at the end is taken away first. */
struct err jose_discovery_uri(struct arena *arena, struct slice issuer, struct slice *out)
{
    bool slash = issuer.size > 0 && issuer.ptr[issuer.size - 1] == '/';
    const struct slice pieces[] = {slice_head(issuer, issuer.size - (slash ? 1 : 0)),
                                   SLICE_LIT("/.well-known/openid-configuration")};
    return arena_join(arena, pieces, 2, out);
}

static struct err refuse(const char *why, const char **out_why)
{
    *out_why = why;
    return FAIL(E_MALFORMED);
}

struct err jose_discovery_read(uint8_t *json, size_t size, struct slice issuer,
                               struct slice *out_uri, const char **out_why)
{
    bool issuer_clear = false;
    bool clear = false;
    struct slice named = {0};
    struct slice uri = {0};
    *out_why = "the discovery document is too large";
    if (size > JOSE_DISCOVERY_BYTES_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    auto_free struct json_doc_value *doc = calloc(JOSE_DISCOVERY_VALUES_MAX, sizeof(*doc));
    if (doc == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = json_doc_parse(json, size, doc, JOSE_DISCOVERY_VALUES_MAX);
    if (!err_ok(e)) {
        *out_why = e.code == E_TOO_LARGE ? *out_why : "the discovery document is no JSON";
        return e;
    }
    if (!json_doc_text(doc, SLICE_LIT("issuer"), &named) || !slice_eq(named, issuer)) {
        return refuse("the discovery document is of another issuer", out_why);
    }
    if (!json_doc_text(doc, SLICE_LIT("jwks_uri"), &uri) || uri.size > JOSE_DISCOVERY_URI_MAX) {
        return refuse("the discovery document has no jwks_uri", out_why);
    }
    if (!jose_discovery_may(issuer, &issuer_clear) || !jose_uri_is_safe(uri, &clear) ||
        (clear && !issuer_clear)) {
        return refuse("keys are not read from the jwks_uri of the discovery document", out_why);
    }
    *out_uri = uri;
    return OK;
}
