/* tls_bundle: CAs that vouch for the SPIFFE ids of one trust domain, and for nothing else. */
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/cert.h"
#include "common/net/tls_impl.h"

static struct err print_of(const X509 *cert, struct net_tls_print *out)
{
    unsigned size = 0;
    if (X509_digest(cert, EVP_sha256(), out->bytes, &size) != 1) {
        ERR_clear_error();
        return FAIL(E_CRYPTO);
    }
    CHECK(size == NET_TLS_DIGEST);
    return OK;
}

/* ---- the CAs of a file: they vouch for whatever has no bundle ---- */

static struct err note_open(struct net_tls_trust *trust)
{
    const STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(trust->store);
    int count = sk_X509_OBJECT_num(all);
    trust->open = calloc((size_t)count + 1, sizeof(*trust->open));
    if (trust->open == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (int i = 0; i < count; i++) {
        const X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        if (ca != NULL) {
            TRY(print_of(ca, &trust->open[trust->open_count]));
            trust->open_count++;
        }
    }
    return OK;
}

/* ---- bundles ---- */

static struct err add_ca(struct net_tls_trust *trust, struct net_tls_bound *bound, X509 *ca)
{
    X509_NAME *name = X509_NAME_dup(X509_get_subject_name(ca));
    if (name == NULL || sk_X509_NAME_push(trust->names, name) <= 0) {
        X509_NAME_free(name);
        ERR_clear_error();
        return FAIL(E_NO_MEMORY);
    }
    if (X509_STORE_add_cert(trust->store, ca) != 1) {
        ERR_clear_error();
        return FAIL(E_CRYPTO);
    }
    TRY(print_of(ca, &bound->cas[bound->ca_count]));
    bound->ca_count++;
    return OK;
}

static struct err add_bundle(struct net_tls_trust *trust, const struct net_tls_bundle *bundle)
{
    auto_chain struct net_chain chain = {.count = 0};
    struct net_tls_bound *bound = &trust->bound[trust->bound_count];
    if (!err_ok(net_chain_read(bundle->ca, &chain))) {
        return FAIL(E_CRYPTO);
    }
    bound->domain = strndup((const char *)bundle->trust_domain.ptr, bundle->trust_domain.size);
    if (bound->domain == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    trust->bound_count++;
    for (size_t i = 0; i < chain.count; i++) {
        TRY(add_ca(trust, bound, chain.certs[i]));
    }
    return OK;
}

struct err net_tls_trust_bind(struct net_tls_trust *trust, const struct net_tls_bundle *bundles,
                              size_t count)
{
    if (count == 0) {
        return OK;
    }
    TRY(note_open(trust));
    trust->bound = calloc(count, sizeof(*trust->bound));
    if (trust->bound == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < count; i++) {
        TRY(add_bundle(trust, &bundles[i]));
    }
    return OK;
}

void net_tls_trust_unbind(struct net_tls_trust *trust)
{
    for (size_t i = 0; i < trust->bound_count; i++) {
        free(trust->bound[i].domain);
    }
    free(trust->bound);
    free(trust->open);
}

struct err net_tls_trust_digest(const struct net_tls_trust *trust, uint8_t out[NET_TLS_DIGEST])
{
    for (size_t i = 0; i < trust->bound_count; i++) {
        const struct net_tls_bound *bound = &trust->bound[i];
        for (size_t k = 0; k < bound->ca_count; k++) {
            uint8_t digest[NET_TLS_DIGEST];
            EVP_MD_CTX *context = EVP_MD_CTX_new();
            bool made = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                        EVP_DigestUpdate(context, bound->domain, strlen(bound->domain) + 1) == 1 &&
                        EVP_DigestUpdate(context, bound->cas[k].bytes, NET_TLS_DIGEST) == 1 &&
                        EVP_DigestFinal_ex(context, digest, NULL) == 1;
            EVP_MD_CTX_free(context);
            if (!made) {
                ERR_clear_error();
                return FAIL(E_CRYPTO);
            }
            for (size_t byte = 0; byte < NET_TLS_DIGEST; byte++) {
                out[byte] ^= digest[byte];
            }
        }
    }
    return OK;
}

/* ---- judging ---- */

static bool is_among(const struct net_tls_print *prints, size_t count,
                     const struct net_tls_print *wanted)
{
    for (size_t i = 0; i < count; i++) {
        if (memcmp(prints[i].bytes, wanted->bytes, NET_TLS_DIGEST) == 0) {
            return true;
        }
    }
    return false;
}

/* The bundle of a SPIFFE id's trust domain; NULL: it has none, or there is no SPIFFE id. */
static const struct net_tls_bound *bundle_of(const struct net_tls_trust *trust,
                                             const struct net_identity *identity)
{
    for (size_t i = 0; identity->spiffe_id.size > 0 && i < trust->bound_count; i++) {
        if (slice_eq(identity->spiffe.trust_domain, slice_str(trust->bound[i].domain))) {
            return &trust->bound[i];
        }
    }
    return NULL;
}

bool net_tls_trust_holds(const struct net_tls_trust *trust, X509_STORE_CTX *verified)
{
    struct net_tls_print anchor;
    struct net_identity *identity = NULL;
    if (trust == NULL || trust->bound_count == 0) {
        return true;
    }
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(verified);
    int count = sk_X509_num(chain);
    if (count < 1 || !err_ok(print_of(sk_X509_value(chain, count - 1), &anchor)) ||
        !err_ok(net_identity_new(sk_X509_value(chain, 0), &identity))) {
        return false;
    }
    const struct net_tls_bound *bound = bundle_of(trust, identity);
    net_identity_free(identity);
    return bound == NULL ? is_among(trust->open, trust->open_count, &anchor)
                         : is_among(bound->cas, bound->ca_count, &anchor);
}
