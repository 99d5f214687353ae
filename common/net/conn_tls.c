/* conn_tls: OpenSSL between a connection's handler and its socket. It reads from what the socket
 * gave this turn and writes records into pooled chunks, by a BIO of ours: the system calls stay
 * those of the clear case. OpenSSL's error queue is only looked at when a connection ends. */
#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/conn_impl.h"
#include "common/net/tls_impl.h"

enum {
    /* Records that wait for the socket; past this, output stays in clear. */
    SEALED_MAX = 128 * 1024,
    NAME_MAX_BYTES = 253,
};

static int bio_write(BIO *bio, const char *data, size_t size, size_t *out_written)
{
    struct net_conn *conn = BIO_get_data(bio);
    struct slice rest = slice_of(data, size);
    while (rest.size > 0) {
        struct net_chunk *tail = net_chunks_tail(conn->loop, &conn->tls.sealed, 1);
        if (tail == NULL) {
            return 0; /* the connection breaks; what was added goes with it. */
        }
        size_t part = NET_CHUNK_BYTES - tail->end;
        part = part < rest.size ? part : rest.size;
        memcpy(tail->own + tail->end, rest.ptr, part);
        tail->end += part;
        conn->tls.sealed.bytes += part;
        rest = slice_from(rest, part);
    }
    *out_written = size;
    return 1;
}

static int bio_read(BIO *bio, char *data, size_t size, size_t *out_read)
{
    struct net_conn *conn = BIO_get_data(bio);
    struct slice *input = &conn->tls.input;
    BIO_clear_retry_flags(bio);
    if (input->size == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    size_t part = size < input->size ? size : input->size;
    memcpy(data, input->ptr, part);
    *input = slice_from(*input, part);
    *out_read = part;
    return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void bio_method_free(void)
{
    BIO_meth_free(bio_method);
}

static void bio_method_make(void)
{
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");
    CHECK(bio_method != NULL);
    CHECK(BIO_meth_set_write_ex(bio_method, bio_write) == 1);
    CHECK(BIO_meth_set_read_ex(bio_method, bio_read) == 1);
    CHECK(BIO_meth_set_ctrl(bio_method, bio_ctrl) == 1);
    CHECK(atexit(bio_method_free) == 0);
}

static bool is_ip_literal(const char *name)
{
    struct net_addr unused = {0};
    return err_ok(net_addr_from_ip(slice_str(name), 0, &unused));
}

/* Says whom we mean (SNI), and which name the certificate must carry. */
static struct err expect_name(SSL *ssl, struct slice server_name, bool verify)
{
    char name[NAME_MAX_BYTES + 1] = {0};
    if (server_name.size > NAME_MAX_BYTES || slice_find(server_name, 0) != server_name.size) {
        return FAIL(E_MALFORMED);
    }
    memcpy(name, server_name.ptr, server_name.size);
    if (is_ip_literal(name)) { /* RFC 6066, 3: no literals in SNI. */
        if (verify && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) != 1) {
            return FAIL(E_CRYPTO);
        }
        return OK;
    }
    if (SSL_set_tlsext_host_name(ssl, name) != 1) {
        return FAIL(E_CRYPTO);
    }
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (verify && SSL_set1_host(ssl, name) != 1) {
        return FAIL(E_CRYPTO);
    }
    return OK;
}

static struct err expect_peer(struct net_conn *conn, const struct net_conn_tls_expect *client)
{
    bool by_spiffe = client->spiffe_id.size > 0;
    if (by_spiffe) {
        struct net_spiffe unused = {0};
        TRY(net_spiffe_parse(client->spiffe_id, &unused));
        conn->tls.spiffe_id = strndup((const char *)client->spiffe_id.ptr, client->spiffe_id.size);
        if (conn->tls.spiffe_id == NULL) {
            return FAIL(E_NO_MEMORY);
        }
    }
    if (client->server_name.size > 0) {
        return expect_name(conn->tls.ssl, client->server_name, !by_spiffe);
    }
    /* Nobody in particular would be everybody whom the CA knows: the caller has to say whom. */
    return by_spiffe ? OK : FAIL(E_USAGE);
}

static int protocol_of(enum net_tls_version version)
{
    switch (version) {
    case NET_TLS_ANY:
        return 0; /* the context's; of the highest: OpenSSL's. */
    case NET_TLS_1_2:
        return TLS1_2_VERSION;
    case NET_TLS_1_3:
        return TLS1_3_VERSION;
    }
    return 0;
}

/* Who has no certificate is told so by an alert of the handshake, where the version has one. */
static struct err demand(SSL *ssl, const struct net_tls_terms *terms)
{
    if (terms->version_min != NET_TLS_ANY &&
        SSL_set_min_proto_version(ssl, protocol_of(terms->version_min)) != 1) {
        return FAIL(E_CRYPTO);
    }
    if (terms->version_max != NET_TLS_ANY &&
        SSL_set_max_proto_version(ssl, protocol_of(terms->version_max)) != 1) {
        return FAIL(E_CRYPTO);
    }
    if (terms->client_cert) {
        SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return OK;
}

struct err net_conn_tls_init(struct net_conn *conn, struct net_tls *tls,
                             const struct net_tls_terms *terms,
                             const struct net_conn_tls_expect *client)
{
    CHECK(tls->server == (client == NULL));
    CHECK(client == NULL || !terms->client_cert);
    CHECK(pthread_once(&bio_once, bio_method_make) == 0);
    conn->tls.context = net_tls_ref(tls);
    conn->tls.refuse_others = tls->h2_only;
    conn->tls.ssl = SSL_new(tls->context);
    BIO *bio = conn->tls.ssl == NULL ? NULL : BIO_new(bio_method);
    if (bio == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    BIO_set_data(bio, conn);
    BIO_set_init(bio, 1);
    SSL_set_bio(conn->tls.ssl, bio, bio); /* takes the BIO. */
    conn->tls.terms = *terms;
    TRY(demand(conn->tls.ssl, terms));
    if (client == NULL) {
        SSL_set_accept_state(conn->tls.ssl);
        return OK;
    }
    SSL_set_connect_state(conn->tls.ssl);
    static const unsigned char alpn[] = "\x08http/1.1";
    if (client->http1_only && SSL_set_alpn_protos(conn->tls.ssl, alpn, sizeof(alpn) - 1) != 0) {
        return FAIL(E_CRYPTO);
    }
    return expect_peer(conn, client);
}

void net_conn_tls_free(struct net_conn *conn)
{
    struct net_conn_tls *tls = &conn->tls;
    net_chunks_clear(conn->loop, &tls->sealed);
    SSL_free(tls->ssl);
    net_tls_unref(tls->context);
    net_identity_free(tls->identity);
    free(tls->spiffe_id);
    free(tls->stash);
    *tls = (struct net_conn_tls){0};
}

bool net_conn_is_tls(const struct net_conn *conn)
{
    return conn->tls.ssl != NULL;
}

struct slice net_conn_alpn(const struct net_conn *conn)
{
    const unsigned char *name = NULL;
    unsigned size = 0;
    if (conn->tls.ssl != NULL) {
        SSL_get0_alpn_selected(conn->tls.ssl, &name, &size);
    }
    return slice_of(name, size);
}

const struct net_tls *net_conn_tls(const struct net_conn *conn)
{
    return conn->tls.context;
}

const struct net_identity *net_conn_identity(const struct net_conn *conn)
{
    return conn->tls.identity;
}

bool net_conn_meets(const struct net_conn *conn, const struct net_tls_terms *terms)
{
    if (conn->tls.ssl == NULL) {
        return true;
    }
    int version = SSL_version(conn->tls.ssl);
    int least = protocol_of(terms->version_min);
    int most = protocol_of(terms->version_max);
    return version >= least && (most == 0 || version <= most) &&
           (!terms->client_cert || conn->tls.identity != NULL);
}

static bool chain_holds(X509_STORE_CTX *verify, const struct net_conn_tls *by, X509 *cert,
                        const struct net_tls *tls)
{
    X509_STORE *store = SSL_CTX_get_cert_store(tls->context);
    const char *purpose = by->context->server ? "ssl_client" : "ssl_server";
    if (X509_STORE_CTX_init(verify, store, cert, SSL_get_peer_cert_chain(by->ssl)) != 1 ||
        X509_STORE_CTX_set_default(verify, purpose) != 1) {
        return false;
    }
    X509_STORE_CTX_set_flags(verify, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
    return net_tls_trust_choose(tls->trust, verify) && X509_verify_cert(verify) == 1;
}

bool net_conn_peer_trusted(const struct net_conn *conn, const struct net_tls *tls)
{
    X509 *cert = conn->tls.ssl == NULL ? NULL : SSL_get0_peer_certificate(conn->tls.ssl);
    if (cert == NULL) {
        return true;
    }
    X509_STORE_CTX *verify = X509_STORE_CTX_new();
    bool holds = verify != NULL && chain_holds(verify, &conn->tls, cert, tls);
    X509_STORE_CTX_free(verify);
    ERR_clear_error();
    return holds;
}

/* Alerts by which a peer says that it does not accept who we are. */
static bool alert_refuses_us(int reason)
{
    return reason == SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED ||
           reason == SSL_R_SSLV3_ALERT_BAD_CERTIFICATE ||
           reason == SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED ||
           reason == SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN ||
           reason == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE ||
           reason == SSL_R_TLSV1_ALERT_DECRYPT_ERROR || /* of a certificate's signature. */
           reason == SSL_R_TLSV1_ALERT_UNKNOWN_CA || reason == SSL_R_TLSV1_ALERT_ACCESS_DENIED;
}

/*
 * Whether a call failed only since the socket gave no more. SSL_want() says so of real failures,
 * too, and SSL_get_error() searches the error queue: the mark that bio_read() left is exact, when
 * it was taken off before the call.
 */
static void mark_clear(SSL *ssl)
{
    BIO_clear_retry_flags(SSL_get_rbio(ssl));
}

static bool wants_more(SSL *ssl)
{
    return BIO_should_read(SSL_get_rbio(ssl)) != 0;
}

/* Why a call to OpenSSL failed for good; empties the thread's error queue. */
static struct err tls_failure(const struct net_conn *conn)
{
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    bool unverified = SSL_get_verify_result(conn->tls.ssl) != X509_V_OK ||
                      reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE;
    ERR_clear_error();
    return unverified || alert_refuses_us(reason) ? FAIL(E_UNAUTHENTICATED) : FAIL(E_CRYPTO);
}

/* Ends the connection; an alert that OpenSSL has sealed still leaves, as far as it can. */
static void tls_break(struct net_conn *conn, struct err why)
{
    if (conn->state == NET_CONN_HANDSHAKE) {
        conn->loop->stats.handshakes_failed++;
    }
    net_chunks_clear(conn->loop, &conn->output);
    net_conn_flush(conn);
    net_conn_break(conn, why);
}

/* The chain was verified by OpenSSL: reads who it is, and whether that is whom we meant. */
static struct err tls_judge_peer(struct net_conn *conn)
{
    struct net_conn_tls *tls = &conn->tls;
    X509 *cert = SSL_get0_peer_certificate(tls->ssl);
    if (cert != NULL) {
        CHECK(SSL_get_verify_result(tls->ssl) == X509_V_OK);
        if (!err_ok(net_identity_new(cert, &tls->identity))) {
            return FAIL(E_UNAUTHENTICATED);
        }
    }
    if (tls->spiffe_id != NULL &&
        (tls->identity == NULL || !slice_eq(tls->identity->spiffe_id, slice_str(tls->spiffe_id)))) {
        return FAIL(E_UNAUTHENTICATED);
    }
    if (!net_conn_meets(conn, &tls->terms)) {
        return FAIL(E_UNAUTHENTICATED); /* a session of before, which shows no certificate. */
    }
    if (tls->refuse_others && !slice_eq(net_conn_alpn(conn), SLICE_LIT("h2"))) {
        return FAIL(E_UNSUPPORTED);
    }
    return OK;
}

void net_conn_tls_handshake(struct net_conn *conn)
{
    net_hook_queue(conn->loop, &conn->hook); /* our part of it has to leave. */
    mark_clear(conn->tls.ssl);
    int done = SSL_do_handshake(conn->tls.ssl);
    if (done == 1) {
        struct err refused = tls_judge_peer(conn);
        if (!err_ok(refused)) {
            tls_break(conn, refused);
            return;
        }
        conn->loop->stats.handshakes++;
        net_conn_opened(conn);
        return;
    }
    if (!wants_more(conn->tls.ssl)) {
        tls_break(conn, tls_failure(conn));
    }
}

/* Keeps clear text for a handler that paused between the socket and here. */
static void tls_stash(struct net_conn *conn, struct slice clear)
{
    struct net_conn_tls *tls = &conn->tls;
    uint8_t *grown = realloc(tls->stash, tls->stash_bytes + clear.size);
    if (grown == NULL) {
        net_conn_break(conn, FAIL(E_NO_MEMORY));
        return;
    }
    memcpy(grown + tls->stash_bytes, clear.ptr, clear.size);
    tls->stash = grown;
    tls->stash_bytes += clear.size;
}

void net_conn_tls_unstash(struct net_conn *conn)
{
    struct net_conn_tls *tls = &conn->tls;
    if (tls->stash == NULL || conn->paused || conn->broken) {
        return;
    }
    uint8_t *bytes = tls->stash;
    size_t size = tls->stash_bytes;
    tls->stash = NULL;
    tls->stash_bytes = 0;
    net_conn_deliver(conn, slice_of(bytes, size));
    free(bytes);
}

/* What SSL_read() says when it brings nothing. */
static void tls_read_ended(struct net_conn *conn)
{
    if (wants_more(conn->tls.ssl)) {
        return;
    }
    if ((SSL_get_shutdown(conn->tls.ssl) & SSL_RECEIVED_SHUTDOWN) != 0 && ERR_peek_error() == 0) {
        conn->eof = true;
        conn->eof_due = true;
        net_conn_watch(conn);
        net_hook_queue(conn->loop, &conn->hook);
        return;
    }
    tls_break(conn, tls_failure(conn));
}

void net_conn_tls_input(struct net_conn *conn, struct slice bytes)
{
    struct net_conn_tls *tls = &conn->tls;
    tls->input = bytes;
    if (conn->state == NET_CONN_HANDSHAKE) {
        net_conn_tls_handshake(conn);
    }
    size_t filled = 0;
    uint8_t *clear = conn->loop->clear_buffer;
    while (!conn->broken && conn->state == NET_CONN_OPEN && filled < NET_READ_BYTES &&
           (tls->input.size > 0 || SSL_has_pending(tls->ssl))) {
        size_t got = 0;
        mark_clear(tls->ssl);
        if (SSL_read_ex(tls->ssl, clear + filled, NET_READ_BYTES - filled, &got) != 1) {
            tls_read_ended(conn);
            break;
        }
        filled += got;
    }
    /* One read never brings more than the loop's buffer holds: see TLS_READ_BYTES. */
    CHECK(tls->input.size == 0 || conn->broken || conn->eof);
    tls->input = (struct slice){0};
    struct slice text = slice_of(clear, filled);
    if (filled == 0) {
        return;
    }
    if (conn->paused) {
        tls_stash(conn, text);
    } else {
        net_conn_deliver(conn, text);
    }
}

void net_conn_tls_seal(struct net_conn *conn)
{
    struct net_conn_tls *tls = &conn->tls;
    while (conn->output.bytes > 0 && tls->sealed.bytes < SEALED_MAX && !conn->broken) {
        struct net_chunk *chunk = conn->output.first;
        size_t size = chunk->end - chunk->start;
        size = size < NET_CHUNK_BYTES ? size : NET_CHUNK_BYTES;
        size_t written = 0;
        if (size > 0 && SSL_write_ex(tls->ssl, chunk->bytes + chunk->start, size, &written) != 1) {
            net_conn_break(conn, tls_failure(conn));
            return;
        }
        conn->stats.bytes_out += written;
        net_chunks_drop(conn->loop, &conn->output, written);
    }
}

void net_conn_tls_goodbye(struct net_conn *conn)
{
    conn->tls.said_goodbye = true;
    if (SSL_shutdown(conn->tls.ssl) < 0) {
        ERR_clear_error(); /* the connection ends anyway. */
    }
}
