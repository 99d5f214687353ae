/* passport: see passport.h. */
#include "controlplane/identity/passport.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/lock.h"
#include "common/net/tls.h"

struct cp_passports {
    struct {
        struct lock lock;
        struct net_chain anchors GUARDED;
        struct buf bundle GUARDED; /* that they were read from. */
        uint64_t generation GUARDED;
    } shared;
};

/* ---- the authorities ---- */

struct err cp_passports_new(struct slice bundle, struct cp_passports **out)
{
    struct cp_passports *p = calloc(1, sizeof(*p));
    if (p == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&p->shared.lock);
    lock_take(&p->shared.lock);
    p->shared.bundle = BUF_MAX(NET_CHAIN_BYTES_MAX);
    lock_drop(&p->shared.lock);
    struct err e = cp_passports_set(p, bundle);
    if (!err_ok(e)) {
        cp_passports_free(p);
        return e;
    }
    *out = p;
    return OK;
}

void cp_passports_free(struct cp_passports *passports)
{
    if (passports == NULL) {
        return;
    }
    lock_take(&passports->shared.lock);
    net_chain_free(&passports->shared.anchors);
    buf_free(&passports->shared.bundle);
    lock_drop(&passports->shared.lock);
    lock_free(&passports->shared.lock);
    free(passports);
}

static struct err replace(struct cp_passports *p, struct slice bundle) REQUIRES(p->shared.lock)
{
    struct net_chain anchors = {.count = 0};
    if (slice_eq(buf_slice(&p->shared.bundle), bundle)) {
        return OK;
    }
    TRY(net_chain_read(bundle, &anchors));
    net_chain_free(&p->shared.anchors);
    p->shared.anchors = anchors;
    p->shared.generation++;
    buf_clear(&p->shared.bundle); /* one that could not be kept is read again the next time. */
    return buf_add(&p->shared.bundle, bundle);
}

struct err cp_passports_set(struct cp_passports *passports, struct slice bundle)
{
    lock_take(&passports->shared.lock);
    struct err e = replace(passports, bundle);
    lock_drop(&passports->shared.lock);
    return e;
}

uint64_t cp_passports_generation(struct cp_passports *passports)
{
    lock_take(&passports->shared.lock);
    uint64_t generation = passports->shared.generation;
    lock_drop(&passports->shared.lock);
    return generation;
}

/* Signatures are verified without the lock. */
static void borrow(struct cp_passports *p, struct net_chain *out)
{
    lock_take(&p->shared.lock);
    *out = p->shared.anchors;
    for (size_t i = 0; i < out->count; i++) {
        (void)X509_up_ref(out->certs[i]);
    }
    lock_drop(&p->shared.lock);
}

/* ---- one certificate ---- */

/* ".../node/<id>": a leaf of ours for a service, or for another node, is none. */
static struct err judge_name(X509 *cert, const char *node)
{
    struct net_identity *identity = NULL;
    char path[sizeof("/node/") + CP_ENVIRONMENT_MAX];
    (void)snprintf(path, sizeof(path), "/node/%s", node);
    TRY(net_identity_new(cert, &identity));
    bool own = identity->spiffe_id.size > 0 && slice_eq(identity->spiffe.path, slice_str(path));
    net_identity_free(identity);
    return own ? OK : FAIL(E_UNAUTHENTICATED);
}

/* As a join token's grant is judged. */
static struct err read_grant(const X509 *cert, struct cp_passport *out)
{
    auto_buf struct buf labels = BUF_MAX(CP_GRANT_MAX);
    auto_buf struct buf sans = BUF_MAX(CP_GRANT_MAX);
    auto_buf struct buf text = BUF_MAX(CP_GRANT_MAX);
    auto_buf struct buf message = BUF_MAX(1024); /* a certificate of ours is never wrong so. */
    TRY(net_cert_labels(cert, &labels));
    TRY(net_cert_sans(cert, &sans));
    const struct cp_grant grant = {.labels = buf_slice(&labels), .sans = buf_slice(&sans)};
    TRY(cp_grant_make(&grant, &text, &message));
    (void)snprintf(out->grant, sizeof(out->grant), "%.*s", SLICE_ARG(buf_slice(&text)));
    return OK;
}

static struct err judge(struct cp_passports *p, const char *node, struct slice der,
                        struct cp_passport *out)
{
    auto_chain struct net_chain read = {.count = 0};
    auto_chain struct net_chain anchors = {.count = 0};
    struct net_cert_times times;
    TRY(net_cert_read(der, &read));
    X509 *cert = read.certs[0];
    borrow(p, &anchors);
    TRY(net_cert_is_signed(cert, &anchors));
    TRY(judge_name(cert, node));
    TRY(read_grant(cert, out));
    TRY(net_cert_status_key(cert, out->status_key, &out->has_status_key));
    TRY(net_cert_times(cert, &times));
    net_cert_serial(cert, out->serial);
    out->not_after_ms = times.ends_s * 1000;
    return OK;
}

struct err cp_passport_open(struct cp_passports *passports, const char *node, struct slice der,
                            struct cp_passport *out)
{
    struct cp_passport passport = {.grant = ""};
    struct err e =
        passports == NULL ? FAIL(E_CERTIFICATE_MISSING) : judge(passports, node, der, &passport);
    if (!err_ok(e)) {
        return e.code == E_NO_MEMORY ? e : FAIL(E_CERTIFICATE_MISSING);
    }
    *out = passport;
    return OK;
}
