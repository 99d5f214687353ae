/* issuer: see issuer.h. */
#include "dataplane/apply/issuer.h"

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/jose/discovery.h"
#include "common/jose/jwk.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/decode.h"
#include "dataplane/request/claims.h"

enum {
    LIST_MAX = 256, /* audiences, ways to a tenant, conditions, traits: of each so many. */
    LEEWAY_MAX_MS = 600000,
    REFRESH_MIN_MS = 1000,
};

_Static_assert((int)JOSE_RS256 == (int)TRILANE__PARTS__V1__JWS_ALGORITHM__JWS_RS256 &&
                   (int)JOSE_EdDSA == (int)TRILANE__PARTS__V1__JWS_ALGORITHM__JWS_EDDSA,
               "algorithms have the numbers of the parts");

/* "issuer/<tenant>/<name>". */
static struct err decode_key(const struct dp_part *part, struct dp_issuer *out)
{
    out->id = slice_from(part->key, DP_ISSUER_PREFIX.size);
    struct slice tenant = slice_head(out->id, slice_find(out->id, '/'));
    out->name = slice_from(out->id, tenant.size + 1);
    out->only_tenant = slice_eq(tenant, SLICE_LIT("-")) ? (struct slice){0} : tenant;
    bool whole = tenant.size > 0 && out->name.size > 0 &&
                 slice_find(out->name, '/') == out->name.size &&
                 slice_find(out->name, '#') == out->name.size;
    return whole ? OK : FAIL(E_PART_MALFORMED);
}

static struct err decode_when(const Trilane__Parts__V1__IssuerTenant *m, struct arena *arena,
                              struct dp_issuer_tenant *out)
{
    struct dp_issuer_when *when = NULL;
    if (m->n_when > LIST_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(arena_calloc(arena, m->n_when, sizeof(*when), (void **)&when));
    for (size_t i = 0; i < m->n_when; i++) {
        when[i] = (struct dp_issuer_when){.claim = slice_str(m->when[i]->claim),
                                          .value = slice_str(m->when[i]->value)};
        if (when[i].claim.size == 0 || when[i].value.size == 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    out->when = when;
    out->when_count = m->n_when;
    return OK;
}

static struct err decode_tenants(const Trilane__Parts__V1__Issuer *m, struct arena *arena,
                                 struct dp_issuer *out)
{
    struct dp_issuer_tenant *tenants = NULL;
    if (m->n_tenants == 0 || m->n_tenants > LIST_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(arena_calloc(arena, m->n_tenants, sizeof(*tenants), (void **)&tenants));
    for (size_t i = 0; i < m->n_tenants; i++) {
        tenants[i].tenant = slice_str(m->tenants[i]->tenant);
        tenants[i].claim = slice_str(m->tenants[i]->claim);
        if ((tenants[i].tenant.size == 0) == (tenants[i].claim.size == 0)) {
            return FAIL(E_PART_MALFORMED);
        }
        TRY(decode_when(m->tenants[i], arena, &tenants[i]));
    }
    out->tenants = tenants;
    out->tenant_count = m->n_tenants;
    return OK;
}

static struct err decode_traits(const Trilane__Parts__V1__Issuer *m, struct arena *arena,
                                struct dp_issuer *out)
{
    struct dp_issuer_trait *traits = NULL;
    if (m->n_traits > LIST_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(arena_calloc(arena, m->n_traits, sizeof(*traits), (void **)&traits));
    for (size_t i = 0; i < m->n_traits; i++) {
        traits[i] = (struct dp_issuer_trait){.name = slice_str(m->traits[i]->name),
                                             .claim = slice_str(m->traits[i]->claim)};
        if (traits[i].name.size == 0 || traits[i].claim.size == 0 ||
            (i > 0 && slice_cmp(traits[i - 1].name, traits[i].name) >= 0)) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    out->traits = traits;
    out->trait_count = m->n_traits;
    return OK;
}

/* Keys stand in the part, or are read from a URL that nobody on the way can answer for. */
static struct err decode_keys(const Trilane__Parts__V1__Issuer *m, struct arena *arena,
                              struct dp_issuer *out)
{
    const char *why = NULL;
    out->jwks_uri = slice_str(m->jwks_uri);
    out->ca = slice_of(m->ca.data, m->ca.len);
    out->discovery = m->discovery != 0;
    if ((out->jwks_uri.size > 0) + (m->jwks.len > 0) + out->discovery != 1) {
        return FAIL(E_PART_MALFORMED);
    }
    if (out->discovery) {
        bool clear = false;
        if (!jose_discovery_may(out->issuer, &clear)) {
            return FAIL(E_PART_MALFORMED);
        }
        TRY(jose_discovery_uri(arena, out->issuer, &out->jwks_uri));
    }
    if (out->jwks_uri.size > 0) {
        bool clear = false;
        bool fetched = jose_uri_is_safe(out->jwks_uri, &clear) && m->refresh_ms >= REFRESH_MIN_MS;
        return fetched ? OK : FAIL(E_PART_MALFORMED);
    }
    struct err e = jose_keys_read(slice_of(m->jwks.data, m->jwks.len), &out->keys, &why);
    return err_ok(e) || e.code == E_NO_MEMORY ? e : FAIL(E_PART_MALFORMED);
}

static struct err add_piece(struct buf *out, struct slice piece)
{
    TRY(buf_addf(out, "%zu:", piece.size));
    return buf_add(out, piece);
}

/* What stands for the keys' origin, and for all that the part says. */
static struct err take_digests(const struct dp_part *part, struct dp_issuer *out)
{
    auto_buf struct buf bytes = BUF_MAX((size_t)2 * PART_MAX);
    TRY(add_piece(&bytes, out->issuer));
    TRY(add_piece(&bytes, out->jwks_uri));
    TRY(add_piece(&bytes, out->ca));
    TRY(out->discovery ? add_piece(&bytes, SLICE_LIT("discovery")) : OK);
    ids_digest(buf_slice(&bytes), out->source);
    buf_clear(&bytes);
    TRY(add_piece(&bytes, part->key));
    TRY(proto_encode(part->message, &bytes));
    ids_digest(buf_slice(&bytes), out->digest);
    return OK;
}

struct err dp_issuer_decode(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__Issuer *m = (const void *)part->message;
    struct dp_issuer *issuer = &part->as.issuer;
    struct slice *audiences = NULL;
    *issuer = (struct dp_issuer){
        .issuer = slice_str(m->issuer),
        .algorithms = m->algorithms,
        .leeway_ms = m->leeway_ms,
        .refresh_ms = m->refresh_ms,
        .max_stale_ms = m->max_stale_ms,
        .subject_claim = slice_str(m->subject_claim),
        .service_claim = slice_str(m->service_claim),
        .trust_domain = slice_str(m->trust_domain),
        .counted = {.id = part->key},
    };
    TRY(decode_key(part, issuer));
    bool known = m->algorithms != 0 && (m->algorithms & ~(uint32_t)JOSE_ALGS_ALL) == 0;
    if (issuer->issuer.size == 0 || issuer->issuer.size > DP_CLAIM_ISSUER_MAX ||
        slice_find(issuer->issuer, '#') < issuer->issuer.size || !known ||
        issuer->subject_claim.size == 0 || m->leeway_ms > LEEWAY_MAX_MS || m->n_audiences == 0 ||
        m->n_audiences > LIST_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(dp_decode_strings(&part->arena, m->audiences, m->n_audiences, &audiences));
    issuer->audiences = audiences;
    issuer->audience_count = m->n_audiences;
    TRY(decode_tenants(m, &part->arena, issuer));
    TRY(decode_traits(m, &part->arena, issuer));
    TRY(decode_keys(m, &part->arena, issuer));
    return take_digests(part, issuer);
}
