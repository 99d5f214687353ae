/* check_issuers: what an Issuer says of keys and tenants. See check.h. */
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/jose/discovery.h"
#include "common/jose/jwk.h"
#include "common/net/cert.h"
#include "controlplane/source/check.h"
#include "controlplane/source/decode.h"
#include "controlplane/source/decode_scalar.h"
#include "controlplane/source/source.h"

enum { NEAR_OFFERS = 2000 }; /* names that are looked at for the nearest one. */

struct checking {
    struct cp_model *model;
    struct cp_diags *diags;
    const struct cp_environment *environment; /* NULL: there is none, which was said. */
};

static bool is_platform(const struct cp_meta *meta)
{
    return slice_eq(meta->tenant.text, SLICE_LIT("-"));
}

/* ---- keys ---- */

static void check_clear(struct checking *c, struct cp_issuer *issuer, bool clear, struct cp_pos at)
{
    bool strict = c->environment == NULL || c->environment->security == 1;
    if (clear && strict) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_FORMAT_INVALID, at,
                                            "keys over http in an Environment that is strict");
        cp_diag_expect(c->diags, diag, "an https URL");
        issuer->meta.faulty = true;
    }
}

static void check_uri(struct checking *c, struct cp_issuer *issuer)
{
    bool clear = false;
    const struct cp_text *uri = &issuer->jwks_uri;
    if (uri->text.size > 0 && jose_uri_is_safe(uri->text, &clear)) {
        check_clear(c, issuer, clear, uri->at);
    }
}

/* Who says where the keys are is who is asked: by its name. */
static void check_discovery(struct checking *c, struct cp_issuer *issuer)
{
    bool clear = false;
    const struct cp_text *name = &issuer->issuer;
    if (issuer->jwks_discovery == 0 || name->text.size == 0 || issuer->meta.faulty) {
        return;
    }
    if (jose_discovery_may(name->text, &clear)) {
        check_clear(c, issuer, clear, name->at);
        return;
    }
    struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_FORMAT_INVALID, name->at,
                                        "issuer \"%.*s\" cannot be asked where its keys are",
                                        SLICE_ARG(slice_head(name->text, 80)));
    cp_diag_expect(c->diags, diag,
                   "an https URL without user, query and fragment, or http of 127.0.0.1, [::1] or "
                   "localhost; or jwks.uri in the place of discovery");
    issuer->meta.faulty = true;
}

static MUST_CHECK struct err check_ca(struct checking *c, struct cp_issuer *issuer)
{
    auto_chain struct net_chain chain = {.count = 0};
    const struct cp_text *ca = &issuer->jwks_ca;
    if (ca->text.size == 0) {
        return OK;
    }
    if (issuer->jwks_uri.text.size == 0 && issuer->jwks_discovery == 0) {
        if (!issuer->meta.faulty) {
            struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_CHOICE, ca->at,
                                                "ca is of a server, and there is no uri");
            cp_diag_expect(c->diags, diag, "uri or discovery beside it");
            issuer->meta.faulty = true;
        }
        return OK;
    }
    struct err e = net_chain_read(ca->text, &chain);
    if (e.code == E_NO_MEMORY) {
        return e;
    }
    if (!err_ok(e)) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_CA_MALFORMED, ca->at,
                                            "these are no certificates that parse");
        cp_diag_expect(c->diags, diag, "one to %d of them in PEM", NET_CHAIN_MAX);
        issuer->meta.faulty = true;
    }
    return OK;
}

static void refuse_file(struct checking *c, const struct cp_text *path)
{
    const struct cp_source_set *set = c->model->set;
    struct cp_near near = cp_near_to(path->text);
    for (size_t i = 0; i < set->count && i < NEAR_OFFERS; i++) {
        cp_near_offer(&near, set->files[i].name);
    }
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_KEY_SET_MISSING, path->at,
                     "no file \"%.*s\" among the sources", SLICE_ARG(path->text));
    cp_diag_expect(c->diags, diag, "a path from the directory of this file: NAME.jwks");
    cp_diag_nearest(c->diags, diag, near.best);
}

static MUST_CHECK struct err find_set(struct checking *c, struct cp_issuer *issuer)
{
    const struct cp_text *path = &issuer->jwks_file;
    struct slice name = {0};
    const struct cp_source_file *file = NULL;
    issuer->jwks = issuer->jwks_inline.text;
    if (path->text.size == 0 || issuer->jwks.size > 0) {
        return OK; /* both were refused: which of them is meant nobody knows */
    }
    TRY(cp_check_path(c->model, path->at.file, path->text, &name, &file));
    if (file != NULL) {
        issuer->jwks = file->bytes;
        return OK;
    }
    issuer->meta.faulty = true;
    if (!cp_source_is_unread(c->model->set, name)) {
        refuse_file(c, path);
    }
    return OK;
}

static MUST_CHECK struct err check_set(struct checking *c, struct cp_issuer *issuer)
{
    struct jose_keys *keys = NULL;
    const char *why = "";
    TRY(find_set(c, issuer));
    if (issuer->jwks.ptr == NULL) {
        return OK; /* nodes read them, or why there are none was said */
    }
    struct err e = jose_keys_read(issuer->jwks, &keys, &why);
    jose_keys_unref(keys);
    if (e.code == E_NO_MEMORY) {
        return e;
    }
    if (!err_ok(e)) {
        const struct cp_text *from =
            issuer->jwks_file.text.size > 0 ? &issuer->jwks_file : &issuer->jwks_inline;
        struct cp_diag *diag =
            cp_diags_add(c->diags, CP_DIAG_KEY_SET_MALFORMED, from->at, "of the key set: %s", why);
        cp_diag_expect(c->diags, diag,
                       "public keys for signatures: RSA from 2048 bits, P-256, P-384, P-521, "
                       "Ed25519; each with its kid where there are several");
        cp_diag_mask(c->diags, diag);
        issuer->meta.faulty = true;
    }
    return OK;
}

/* Else new tokens would be refused between two readings of a server that is well. */
static MUST_CHECK struct err check_stale(struct checking *c, struct cp_issuer *issuer)
{
    bool read = issuer->jwks_uri.text.size > 0 || issuer->jwks_discovery != 0;
    if (!read || issuer->meta.faulty || issuer->max_stale_ms >= issuer->refresh_ms ||
        cp_diags_pass_over(c->diags)) {
        return OK;
    }
    auto_buf struct buf least = BUF_MAX(64);
    TRY(cp_number_text(&least, CP_TYPE_DURATION, issuer->refresh_ms));
    struct cp_pos at = issuer->max_stale_at.line > 0 ? issuer->max_stale_at : issuer->meta.at;
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_OUT_OF_BOUND, at, "maxStale is below refresh, which is %.*s",
                     SLICE_ARG(buf_slice(&least)));
    cp_diag_expect(c->diags, diag, "%.*s or more", SLICE_ARG(buf_slice(&least)));
    issuer->meta.faulty = true;
    return OK;
}

/* ---- tenants and trust domain ---- */

static void check_tenants(struct checking *c, struct cp_issuer *issuer)
{
    const struct cp_meta *meta = &issuer->meta;
    if (is_platform(meta)) {
        if (issuer->tenants.count == 0 && !meta->faulty) {
            struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_KEY_MISSING, meta->at,
                                                "key \"tenants\" is missing here");
            cp_diag_expect(c->diags, diag, "tenants, or metadata.tenant: whose its callers are");
            issuer->meta.faulty = true;
        }
        return;
    }
    for (size_t i = 0; i < issuer->tenants.count; i++) {
        const struct cp_text *tenant = &issuer->tenants.items[i].tenant;
        if (tenant->text.size == 0 || slice_eq(tenant->text, meta->tenant.text)) {
            continue;
        }
        struct cp_diag *diag =
            cp_diags_add(c->diags, CP_DIAG_REFERENCE_FOREIGN, tenant->at,
                         "tenant \"%.*s\" in an Issuer of another one", SLICE_ARG(tenant->text));
        cp_diag_expect(c->diags, diag, "\"%.*s\", or an Issuer of the platform",
                       SLICE_ARG(meta->tenant.text));
        issuer->meta.faulty = true;
    }
}

/* A trust domain of the Environment is proven by certificates: no token has it. */
static void check_trust_domain(struct checking *c, struct cp_issuer *issuer)
{
    const struct cp_text *domain = &issuer->trust_domain;
    if (domain->text.size == 0 || c->environment == NULL) {
        return;
    }
    bool own = slice_eq(domain->text, c->environment->trust_domain.text);
    for (size_t i = 0; i < c->environment->trust_domains.count; i++) {
        own = own || slice_eq(domain->text, c->environment->trust_domains.items[i].text);
    }
    if (own) {
        struct cp_diag *diag = cp_diags_add(
            c->diags, CP_DIAG_FORMAT_INVALID, domain->at,
            "trust domain \"%.*s\" is the Environment's: certificates prove it, and no token",
            SLICE_ARG(domain->text));
        cp_diag_expect(c->diags, diag, "another one, or none");
        issuer->meta.faulty = true;
    }
}

/* ---- all ---- */

static MUST_CHECK struct err check_double(struct checking *c, struct map *seen,
                                          struct cp_issuer *issuer)
{
    struct cp_text *name = &issuer->issuer;
    if (name->text.size == 0 || issuer->meta.apart) {
        return OK;
    }
    const struct cp_text *first = map_get(seen, name->text);
    if (first == NULL) {
        return map_put(seen, name->text, name, /* out_old= */ NULL);
    }
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_DUPLICATE_IDENTITY, name->at,
                     "issuer \"%.*s\" is there already", SLICE_ARG(slice_head(name->text, 80)));
    cp_diag_expect(c->diags, diag, "one Issuer that has it");
    cp_diag_other(c->diags, diag, first->at);
    issuer->meta.faulty = true;
    return OK;
}

static MUST_CHECK struct err check_issuer(struct checking *c, struct map *seen,
                                          struct cp_issuer *issuer)
{
    check_tenants(c, issuer);
    check_uri(c, issuer);
    check_discovery(c, issuer);
    TRY(check_ca(c, issuer));
    TRY(check_set(c, issuer));
    TRY(check_stale(c, issuer));
    check_trust_domain(c, issuer);
    return check_double(c, seen, issuer);
}

struct err cp_check_issuers(struct cp_model *model, struct cp_diags *diags)
{
    const struct cp_resources *environments = &model->of[CP_KIND_ENVIRONMENT];
    const struct cp_resources *all = &model->of[CP_KIND_ISSUER];
    struct checking c = {.model = model, .diags = diags};
    struct map seen = {0};
    struct err e = OK;
    if (environments->count > 0) {
        c.environment = (const struct cp_environment *)environments->items[0];
    }
    for (size_t i = 0; i < all->count && err_ok(e); i++) {
        e = check_issuer(&c, &seen, (struct cp_issuer *)all->items[i]);
    }
    map_free(&seen);
    return e;
}
