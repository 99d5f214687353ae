/* kinds_issuer: the fields of an Issuer. See kinds.h. */
#include "controlplane/source/kinds_impl.h"
#include "controlplane/source/model.h"

static const struct cp_field jwks_fields[] = {
    {.name = "uri",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_KEYS_URI,
     .offset = offsetof(struct cp_issuer, jwks_uri),
     .help = "Where every node reads the keys: at once, after each refresh, and when a token names "
             "one that it has not. http is taken in an Environment with security: dev alone."},
    {.name = "discovery",
     .type = CP_TYPE_BOOL,
     .min = 1,
     .offset = offsetof(struct cp_issuer, jwks_discovery),
     .help =
         "true: every node asks the issuer where its keys are, by OpenID Connect Discovery, each "
         "time before it reads them. Its name is an https URL then."},
    {.name = "ca",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PEM,
     .offset = offsetof(struct cp_issuer, jwks_ca),
     .help = "CAs of that server, in the place of the system's; with discovery, of both."},
    {.name = "file",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_FILE,
     .offset = offsetof(struct cp_issuer, jwks_file),
     .help = "A key set among the sources, NAME.jwks: the nodes read nothing, and a rotation is a "
             "publication."},
    {.name = "inline",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_KEY_SET,
     .offset = offsetof(struct cp_issuer, jwks_inline),
     .help = "The same as text."},
};
static const struct cp_shape jwks_shape = {SHAPE(jwks_fields, struct cp_issuer),
                                           .one_of = "uri|discovery|file|inline"};

static const struct cp_field claim_value_fields[] = {
    {.name = "claim",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLAIM,
     .required = true,
     .offset = offsetof(struct cp_claim_value, claim),
     .help = "The claim."},
    {.name = "value",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLAIM_VALUE,
     .required = true,
     .offset = offsetof(struct cp_claim_value, value),
     .help = "Its value, or one of its values: a group."},
};
static const struct cp_shape claim_value_shape = {SHAPE(claim_value_fields, struct cp_claim_value)};

static const struct cp_field issuer_tenant_fields[] = {
    {.name = "when",
     .type = CP_TYPE_OBJECTS,
     .shape = &claim_value_shape,
     .min = 1,
     .max = 16,
     .offset = offsetof(struct cp_issuer_tenant, when),
     .help = "Claims that must all have their value. Without it: any token."},
    {.name = "tenant",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_NAME,
     .tenant = true,
     .offset = offsetof(struct cp_issuer_tenant, tenant),
     .help = "The tenant."},
    {.name = "claim",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLAIM,
     .offset = offsetof(struct cp_issuer_tenant, claim),
     .help = "The claim whose value is the tenant's name."},
};
static const struct cp_shape issuer_tenant_shape = {
    SHAPE(issuer_tenant_fields, struct cp_issuer_tenant), .one_of = "tenant|claim"};

static const struct cp_field issuer_fields[] = {
    {.name = "issuer",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_ISSUER,
     .required = true,
     .offset = offsetof(struct cp_issuer, issuer),
     .help = "Claim iss of its tokens, byte for byte. No two Issuers have the same."},
    {.name = "audiences",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_ISSUER,
     .required = true,
     .min = 1,
     .max = 64,
     .offset = offsetof(struct cp_issuer, audiences),
     .help = "Claim aud must have one of these: a token for somebody else is not for us."},
    {.name = "algorithms",
     .type = CP_TYPE_FLAGS,
     .choices = "RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA",
     .required = true,
     .min = 1,
     .offset = offsetof(struct cp_issuer, algorithms),
     .help = "Algorithms of its signatures; no other is taken. EdDSA is Ed25519."},
    {.name = "jwks",
     .type = CP_TYPE_OBJECT,
     .shape = &jwks_shape,
     .flat = true,
     .required = true,
     .help = "Its public keys."},
    {.name = "refresh",
     .type = CP_TYPE_DURATION,
     .dflt = "5m",
     .min = 10000,
     .max = 86400000,
     .offset = offsetof(struct cp_issuer, refresh_ms),
     .help = "How often a node reads the keys anew."},
    {.name = "maxStale",
     .type = CP_TYPE_DURATION,
     .dflt = "24h",
     .min = 60000,
     .max = 30ULL * 24 * 3600 * 1000,
     .offset = offsetof(struct cp_issuer, max_stale_ms),
     .place = offsetof(struct cp_issuer, max_stale_at),
     .help =
         "While the issuer is away, keys that were read this long ago still verify new tokens."},
    {.name = "leeway",
     .type = CP_TYPE_DURATION,
     .dflt = "30s",
     .max = 600000,
     .offset = offsetof(struct cp_issuer, leeway_ms),
     .help = "By how much the clocks may differ: of claims exp and nbf."},
    {.name = "tenants",
     .type = CP_TYPE_OBJECTS,
     .shape = &issuer_tenant_shape,
     .min = 1,
     .max = 256,
     .offset = offsetof(struct cp_issuer, tenants),
     .help =
         "Ways to the caller's tenant. All of those that fit a token must lead to the same one, "
         "else it is refused. Without it: the Issuer's own tenant."},
    {.name = "subject",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLAIM,
     .dflt = "sub",
     .offset = offsetof(struct cp_issuer, subject),
     .help = "The claim that tells callers apart."},
    {.name = "service",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLAIM,
     .offset = offsetof(struct cp_issuer, service),
     .help = "A claim that names a Service of the tenant: then the caller is that Service. It must "
             "be one that the tokens of people never have. Without it, or in a token without the "
             "claim: a caller of its own, which rules know by tenant and traits."},
    {.name = "traits",
     .type = CP_TYPE_PAIRS,
     .form = CP_FORM_CLAIM,
     .max = 32,
     .offset = offsetof(struct cp_issuer, traits),
     .help = "Traits of the caller, and the claim that each one is from. Of a claim with several "
             "values (a list, scope) each is a trait of its own: role/admin: \"true\"."},
    {.name = "trustDomain",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_DOMAIN,
     .offset = offsetof(struct cp_issuer, trust_domain),
     .help = "What rules see as the callers' trust domain; none of the Environment's. Without it: "
             "none."},
};

const struct cp_kind_row cp_issuer_row = {
    .name = "Issuer",
    .help = "Whose JSON Web Tokens prove who calls, and what their claims say. "
            "See docs/tokens.md.",
    .tenancy = CP_TENANT_OPTIONAL,
    .example = "issuer: https://id.example.com/realms/main\n"
               "audiences: [trilane]\nalgorithms: [ES256, RS256]\n"
               "jwks: {uri: \"https://id.example.com/realms/main/keys\"}\n"
               "tenants:\n"
               "  - {claim: organization}\n"
               "traits: {role: realm_access.roles}\n",
    .spec = {SHAPE(issuer_fields, struct cp_issuer)}};
