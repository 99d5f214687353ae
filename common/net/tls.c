/* tls: contexts. Protocols, ciphers and session rules are decided here, once. */
#include "common/net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/net/tls_impl.h"

/* ALPN lists in wire form: each name behind its length. */
static const unsigned char alpn_both[] = "\x02h2\x08http/1.1";
static const unsigned char alpn_h2[] = "\x02h2";
static const unsigned char alpn_http1[] = "\x08http/1.1";

/* OpenSSL leaves notes in a thread's queue; a later call must not find them. */
static struct err crypto_failure(void)
{
    ERR_clear_error();
    return FAIL(E_CRYPTO);
}

static struct slice alpn_list(const struct net_tls *tls)
{
    if (tls->h2_only) {
        return slice_of(alpn_h2, sizeof(alpn_h2) - 1);
    }
    if (tls->http1_only) {
        return slice_of(alpn_http1, sizeof(alpn_http1) - 1);
    }
    return slice_of(alpn_both, sizeof(alpn_both) - 1);
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                       const unsigned char *offered, unsigned offered_size, void *arg)
{
    (void)ssl;
    struct slice ours = alpn_list(arg);
    unsigned char *chosen = NULL;
    int found = SSL_select_next_proto(&chosen, out_size, ours.ptr, (unsigned)ours.size, offered,
                                      offered_size);
    if (found != OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* RFC 7301, 3.2: no_application_protocol. */
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* Certificate, key and chain are counted, and a context that is in use changes none of them. */
static struct err take_own(SSL_CTX *context, const struct net_tls *from)
{
    STACK_OF(X509) *chain = NULL;
    if (SSL_CTX_get0_chain_certs(from->context, &chain) != 1 ||
        SSL_CTX_use_cert_and_key(context, SSL_CTX_get0_certificate(from->context),
                                 SSL_CTX_get0_privatekey(from->context), chain,
                                 /* override= */ 1) != 1) {
        return crypto_failure();
    }
    return OK;
}

static struct err load_own(SSL_CTX *context, const struct net_tls_options *o)
{
    if (o->cert_file == NULL) {
        return OK;
    }
    if (o->own != NULL) {
        return take_own(context, o->own);
    }
    SSL_CTX_set_default_passwd_cb(context, net_no_passphrase);
    const char *key_file = o->key_file == NULL ? o->cert_file : o->key_file;
    if (access(o->cert_file, R_OK) != 0 || access(key_file, R_OK) != 0) {
        return FAIL(E_NOT_FOUND);
    }
    if (SSL_CTX_use_certificate_chain_file(context, o->cert_file) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1) {
        return crypto_failure();
    }
    return OK;
}

/* ---- trust ---- */

static struct err read_trust(const char *ca_file, struct net_tls_trust *trust)
{
    if (ca_file != NULL && access(ca_file, R_OK) != 0) {
        return FAIL(E_NOT_FOUND);
    }
    trust->store = X509_STORE_new();
    if (trust->store == NULL ||
        (ca_file != NULL && X509_STORE_load_file(trust->store, ca_file) != 1)) {
        return crypto_failure();
    }
    trust->names = ca_file == NULL ? sk_X509_NAME_new_null() : SSL_load_client_CA_file(ca_file);
    return trust->names == NULL ? crypto_failure() : OK;
}

struct err net_tls_trust_new(const char *ca_file, struct net_tls_trust **out)
{
    return net_tls_trust_bound_new(ca_file, /* bundles= */ NULL, 0, out);
}

struct err net_tls_trust_bound_new(const char *ca_file, const struct net_tls_bundle *bundles,
                                   size_t count, struct net_tls_trust **out)
{
    struct net_tls_trust *trust = calloc(1, sizeof(*trust));
    if (trust == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    atomic_init(&trust->references, 1);
    struct err failed = read_trust(ca_file, trust);
    if (err_ok(failed)) {
        failed = net_tls_trust_bind(trust, bundles, count);
    }
    if (!err_ok(failed)) {
        net_tls_trust_unref(trust);
        return failed;
    }
    *out = trust;
    return OK;
}

static struct net_tls_trust *trust_ref(struct net_tls_trust *trust)
{
    CHECK(atomic_fetch_add_explicit(&trust->references, 1, memory_order_relaxed) > 0);
    return trust;
}

void net_tls_trust_unref(struct net_tls_trust *trust)
{
    if (trust == NULL ||
        atomic_fetch_sub_explicit(&trust->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    X509_STORE_free(trust->store);
    sk_X509_NAME_pop_free(trust->names, X509_NAME_free);
    net_tls_trust_unbind(trust);
    free(trust);
}

/* The process' own, like the files that they come from. */
static struct net_tls_trust system_trust = {.references = 1};

static void read_system_trust(void)
{
    X509_STORE *store = X509_STORE_new();
    if (store != NULL && X509_STORE_set_default_paths(store) == 1) {
        system_trust.store = store;
        return;
    }
    X509_STORE_free(store);
    ERR_clear_error();
}

void net_tls_trust_system_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, read_system_trust) == 0);
}

/* With a reference; *out is NULL for a server that asks for no certificate. */
static struct err find_trust(const struct net_tls_options *o, bool server,
                             struct net_tls_trust **out)
{
    *out = NULL;
    if (o->trust != NULL) {
        *out = trust_ref(o->trust);
    } else if (o->ca_file != NULL) {
        return net_tls_trust_new(o->ca_file, out);
    } else if (!server) {
        net_tls_trust_system_load();
        if (system_trust.store == NULL) {
            return FAIL(E_CRYPTO);
        }
        *out = trust_ref(&system_trust);
    }
    return OK;
}

static struct err use_trust(SSL_CTX *context, const struct net_tls_trust *trust, bool server)
{
    SSL_CTX_set1_cert_store(context, trust->store);
    /* Whoever is named is an anchor, of a root or not: as for net_chain_verify(). Not of the store:
     * our own chain, which OpenSSL completes from there, goes up to a root that peers may know. */
    if (trust->names != NULL &&
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN) != 1) {
        return crypto_failure();
    }
    if (server) { /* what the server hints at in its request for a certificate. */
        STACK_OF(X509_NAME) *names = SSL_dup_CA_list(trust->names);
        if (names == NULL) {
            return crypto_failure();
        }
        SSL_CTX_set_client_CA_list(context, names); /* takes it. */
    }
    return OK;
}

/* In the place of OpenSSL's own verification, by some of the CAs. */
static int verify_bound(X509_STORE_CTX *verify, void *arg)
{
    const struct net_tls *tls = arg;
    if (!net_tls_trust_choose(tls->trust, verify)) {
        X509_STORE_CTX_set_error(verify, X509_V_ERR_CERT_REJECTED);
        return 0;
    }
    return X509_verify_cert(verify);
}

static struct err load_trust(struct net_tls *tls, const struct net_tls_options *o, bool server)
{
    TRY(find_trust(o, server, &tls->trust));
    if (tls->trust != NULL && tls->trust->bound_count > 0) {
        SSL_CTX_set_cert_verify_callback(tls->context, verify_bound, tls);
    }
    return tls->trust == NULL ? OK : use_trust(tls->context, tls->trust, server);
}

/* The digests of the CAs, one over the other: in whatever order they lie in the store. */
static struct err digest_trust(struct net_tls *tls)
{
    const STACK_OF(X509_OBJECT) *all =
        X509_STORE_get0_objects(SSL_CTX_get_cert_store(tls->context));
    for (int i = 0; i < sk_X509_OBJECT_num(all); i++) {
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned size = 0;
        X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(all, i));
        if (ca == NULL) {
            continue; /* a list of revocations. */
        }
        if (X509_digest(ca, EVP_sha256(), digest, &size) != 1) {
            return crypto_failure();
        }
        CHECK(size == sizeof(tls->trust_digest));
        for (size_t k = 0; k < sizeof(tls->trust_digest); k++) {
            tls->trust_digest[k] ^= digest[k];
        }
    }
    return net_tls_trust_digest(tls->trust, tls->trust_digest);
}

bool net_tls_same_trust(const struct net_tls *a, const struct net_tls *b)
{
    return memcmp(a->trust_digest, b->trust_digest, sizeof(a->trust_digest)) == 0;
}

bool net_tls_verifies(const struct net_tls *tls)
{
    return tls->trust != NULL;
}

/* ---- contexts ---- */

static void set_common(SSL_CTX *context)
{
    CHECK(SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                           SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* A chunk moves between two tries of a write. Buffers of idle connections are given back. */
    (void)SSL_CTX_set_mode(context, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    /* TLS 1.2: forward secrecy and AEAD alone (RFC 9113, 9.2.2 refuses the others). */
    CHECK(SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1);
}

static struct err set_server(struct net_tls *tls, const struct net_tls_options *o)
{
    static const unsigned char session_scope[] = "trilane";
    SSL_CTX_set_alpn_select_cb(tls->context, select_alpn, tls);
    TRY(net_tls_judge_tickets(tls->context));
    if (SSL_CTX_set_session_id_context(tls->context, session_scope, sizeof(session_scope) - 1) !=
            1 ||
        SSL_CTX_set_num_tickets(tls->context, 1) != 1) {
        return crypto_failure();
    }
    (void)SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_OFF); /* tickets alone. */
    if (o->client_cert == NET_TLS_CLIENT_CERT_NONE) {
        return OK;
    }
    if (o->ca_file == NULL && o->trust == NULL) {
        return FAIL(E_USAGE); /* a certificate that nobody can judge. */
    }
    bool required = o->client_cert == NET_TLS_CLIENT_CERT_REQUIRED;
    SSL_CTX_set_verify(tls->context,
                       SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
    return OK;
}

static struct err set_client(struct net_tls *tls)
{
    struct slice alpn = alpn_list(tls);
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_set_alpn_protos(tls->context, alpn.ptr, (unsigned)alpn.size) != 0) {
        return crypto_failure();
    }
    return OK;
}

static struct err tls_new(const struct net_tls_options *o, bool server, struct net_tls **out)
{
    struct net_tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    atomic_init(&tls->references, 1);
    tls->server = server;
    tls->h2_only = o->h2_only;
    tls->http1_only = o->http1_only;
    tls->context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    struct err failed = tls->context == NULL ? crypto_failure() : OK;
    if (err_ok(failed)) {
        set_common(tls->context);
        failed = load_own(tls->context, o);
    }
    if (err_ok(failed)) {
        failed = load_trust(tls, o, server);
    }
    if (err_ok(failed) && (o->trust != NULL || o->ca_file != NULL)) {
        failed = digest_trust(tls); /* the system's many stay as they are. */
    }
    if (err_ok(failed)) {
        failed = server ? set_server(tls, o) : set_client(tls);
    }
    if (!err_ok(failed)) {
        net_tls_unref(tls);
        return failed;
    }
    *out = tls;
    return OK;
}

struct err net_tls_server_new(const struct net_tls_options *o, struct net_tls **out)
{
    return o->cert_file == NULL ? FAIL(E_USAGE) : tls_new(o, /* server= */ true, out);
}

struct err net_tls_client_new(const struct net_tls_options *o, struct net_tls **out)
{
    return tls_new(o, /* server= */ false, out);
}

struct net_tls *net_tls_ref(struct net_tls *tls)
{
    CHECK(atomic_fetch_add_explicit(&tls->references, 1, memory_order_relaxed) > 0);
    return tls;
}

void net_tls_unref(struct net_tls *tls)
{
    if (tls == NULL || atomic_fetch_sub_explicit(&tls->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    SSL_CTX_free(tls->context);
    net_tls_trust_unref(tls->trust);
    free(tls);
}
