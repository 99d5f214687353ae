/* tls_bundle: CAs that vouch for the SPIFFE ids of one trust domain, and for nothing else. */
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/cert.h"
#include "common/net/tls_impl.h"

static struct err crypto_failure(enum err_code code)
{
    ERR_clear_error();
    return FAIL(code);
}

/* ---- bundles ---- */

static bool has(const STACK_OF(X509) * cas, const X509 *ca)
{
    for (int i = 0; i < sk_X509_num(cas); i++) {
        if (X509_cmp(sk_X509_value(cas, i), ca) == 0) {
            return true;
        }
    }
    return false;
}

static struct err add_ca(struct net_tls_trust *trust, const struct net_tls_bound *bound, X509 *ca)
{
    if (has(bound->cas, ca)) {
        return OK;
    }
    X509_NAME *name = X509_NAME_dup(X509_get_subject_name(ca));
    if (name == NULL || sk_X509_NAME_push(trust->names, name) <= 0) {
        X509_NAME_free(name);
        return crypto_failure(E_NO_MEMORY);
    }
    if (X509_up_ref(ca) != 1 || sk_X509_push(bound->cas, ca) <= 0) {
        X509_free(ca);
        return crypto_failure(E_NO_MEMORY);
    }
    return OK;
}

static struct err add_bundle(struct net_tls_trust *trust, const struct net_tls_bundle *bundle)
{
    auto_chain struct net_chain chain = {.count = 0};
    struct net_tls_bound *bound = &trust->bound[trust->bound_count];
    if (!err_ok(net_chain_read(bundle->ca, &chain))) {
        return FAIL(E_CRYPTO);
    }
    trust->bound_count++;
    bound->domain = strndup((const char *)bundle->trust_domain.ptr, bundle->trust_domain.size);
    bound->cas = sk_X509_new_null();
    if (bound->domain == NULL || bound->cas == NULL) {
        return crypto_failure(E_NO_MEMORY);
    }
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
    trust->open = X509_STORE_get1_all_certs(trust->store);
    trust->bound = calloc(count, sizeof(*trust->bound));
    if (trust->open == NULL || trust->bound == NULL) {
        return crypto_failure(E_NO_MEMORY);
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
        sk_X509_pop_free(trust->bound[i].cas, X509_free);
    }
    free(trust->bound);
    sk_X509_pop_free(trust->open, X509_free);
}

static struct err mix_bound(const struct net_tls_bound *bound, const X509 *ca,
                            uint8_t out[NET_TLS_DIGEST])
{
    uint8_t print[NET_TLS_DIGEST];
    uint8_t digest[NET_TLS_DIGEST];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool made = context != NULL && X509_digest(ca, EVP_sha256(), print, NULL) == 1 &&
                EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(context, bound->domain, strlen(bound->domain) + 1) == 1 &&
                EVP_DigestUpdate(context, print, NET_TLS_DIGEST) == 1 &&
                EVP_DigestFinal_ex(context, digest, NULL) == 1;
    EVP_MD_CTX_free(context);
    if (!made) {
        return crypto_failure(E_CRYPTO);
    }
    for (size_t byte = 0; byte < NET_TLS_DIGEST; byte++) {
        out[byte] ^= digest[byte];
    }
    return OK;
}

struct err net_tls_trust_digest(const struct net_tls_trust *trust, uint8_t out[NET_TLS_DIGEST])
{
    for (size_t i = 0; i < trust->bound_count; i++) {
        const struct net_tls_bound *bound = &trust->bound[i];
        for (int k = 0; k < sk_X509_num(bound->cas); k++) {
            TRY(mix_bound(bound, sk_X509_value(bound->cas, k), out));
        }
    }
    return OK;
}

/* ---- judging ---- */

/* Those of its SPIFFE id's trust domain, where that has a bundle; else those of the file. */
static STACK_OF(X509) *
    cas_for(const struct net_tls_trust *trust, const struct net_identity *identity)
{
    for (size_t i = 0; identity->spiffe_id.size > 0 && i < trust->bound_count; i++) {
        if (slice_eq(identity->spiffe.trust_domain, slice_str(trust->bound[i].domain))) {
            return trust->bound[i].cas;
        }
    }
    return trust->open;
}

/* The leaf's own word says whose it is; that it may say so is for those CAs to prove. A store of
 * all would have OpenSSL find a CA of another domain that has the same name, and try no other. */
bool net_tls_trust_choose(const struct net_tls_trust *trust, X509_STORE_CTX *verify)
{
    struct net_identity *identity = NULL;
    if (trust == NULL || trust->bound_count == 0) {
        return true;
    }
    if (!err_ok(net_identity_new(X509_STORE_CTX_get0_cert(verify), &identity))) {
        return false;
    }
    X509_STORE_CTX_set0_trusted_stack(verify, cas_for(trust, identity));
    net_identity_free(identity);
    return true;
}
