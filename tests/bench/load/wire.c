/* wire: see wire.h. */
#include "tests/bench/load/wire.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"

/* ALPN lists in wire form: each name behind its length. */
static const unsigned char alpn_h2[] = "\x02h2";
static const unsigned char alpn_http1[] = "\x08http/1.1";

/* ---- contexts ---- */

static bool load_files(SSL_CTX *tls, const struct wire_files *files)
{
    bool good = files->cert == NULL ||
                (SSL_CTX_use_certificate_chain_file(tls, files->cert) == 1 &&
                 SSL_CTX_use_PrivateKey_file(tls, files->key, SSL_FILETYPE_PEM) == 1);
    return good && (files->ca == NULL || SSL_CTX_load_verify_file(tls, files->ca) == 1);
}

/* What both sides are; NULL when a file is not what it should be. */
static SSL_CTX *context_new(const SSL_METHOD *method, const struct wire_files *files)
{
    SSL_CTX *tls = SSL_CTX_new(method);
    CHECK(tls != NULL && SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) == 1);
    if (!load_files(tls, files)) {
        (void)fputs("wire: certificate, key or CA cannot be used:\n", stderr);
        ERR_print_errors_fp(stderr);
        SSL_CTX_free(tls);
        return NULL;
    }
    (void)SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(tls, 1); /* one system call for a record's head and its content. */
    return tls;
}

SSL_CTX *wire_client(const struct wire_files *files, const char *host, bool http1)
{
    SSL_CTX *tls = context_new(TLS_client_method(), files);
    if (tls == NULL) {
        return NULL;
    }
    const unsigned char *alpn = http1 ? alpn_http1 : alpn_h2;
    CHECK(SSL_CTX_set_alpn_protos(tls, alpn, (unsigned)strlen((const char *)alpn)) == 0);
    CHECK(X509_VERIFY_PARAM_set1_ip_asc(SSL_CTX_get0_param(tls), host) == 1);
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    return tls;
}

static int choose_h2(SSL *ssl, const unsigned char **out, unsigned char *out_size,
                     const unsigned char *offered, unsigned offered_size, void *arg)
{
    (void)ssl;
    (void)arg;
    unsigned char *chosen = NULL;
    int found = SSL_select_next_proto(&chosen, out_size, alpn_h2, sizeof(alpn_h2) - 1, offered,
                                      offered_size);
    *out = chosen;
    return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

SSL_CTX *wire_server(const struct wire_files *files)
{
    static const unsigned char scope[] = "bench";
    SSL_CTX *tls = context_new(TLS_server_method(), files);
    if (tls == NULL) {
        return NULL;
    }
    SSL_CTX_set_alpn_select_cb(tls, choose_h2, /* arg= */ NULL);
    CHECK(SSL_CTX_set_session_id_context(tls, scope, sizeof(scope) - 1) == 1);
    if (files->ca != NULL) {
        SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return tls;
}

/* ---- wires ---- */

static void attach(struct wire *w, int fd, SSL_CTX *tls)
{
    *w = (struct wire){.fd = fd};
    if (tls != NULL) {
        w->ssl = SSL_new(tls);
        CHECK(w->ssl != NULL && SSL_set_fd(w->ssl, fd) == 1);
    }
}

bool wire_connect(struct wire *w, int fd, SSL_CTX *tls)
{
    attach(w, fd, tls);
    if (tls == NULL) {
        return true;
    }
    const unsigned char *alpn = NULL;
    unsigned size = 0;
    ERR_clear_error();
    if (SSL_connect(w->ssl) != 1) {
        (void)fputs("wire: no handshake:\n", stderr);
        ERR_print_errors_fp(stderr);
        return false;
    }
    SSL_get0_alpn_selected(w->ssl, &alpn, &size);
    if (size == 0) {
        (void)fputs("wire: the server chose no protocol\n", stderr);
    }
    return size > 0;
}

void wire_accept(struct wire *w, int fd, SSL_CTX *tls)
{
    attach(w, fd, tls);
    if (tls != NULL) {
        SSL_set_accept_state(w->ssl);
    }
}

bool wire_ready(const struct wire *w)
{
    return w->ssl == NULL || SSL_is_init_finished(w->ssl) == 1;
}

/* What OpenSSL said, as a system call would have. */
static ssize_t outcome(const struct wire *w, int said)
{
    if (said > 0) {
        return said;
    }
    int why = SSL_get_error(w->ssl, said);
    if (why == SSL_ERROR_ZERO_RETURN) {
        return 0;
    }
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
    return -1;
}

static int at_once(size_t size)
{
    return size < INT_MAX ? (int)size : INT_MAX;
}

ssize_t wire_recv(struct wire *w, void *to, size_t size)
{
    if (w->ssl == NULL) {
        return recv(w->fd, to, size, 0);
    }
    ERR_clear_error();
    return outcome(w, SSL_read(w->ssl, to, at_once(size)));
}

ssize_t wire_send(struct wire *w, const void *from, size_t size)
{
    if (w->ssl == NULL) {
        return send(w->fd, from, size, MSG_NOSIGNAL);
    }
    ERR_clear_error();
    return outcome(w, SSL_write(w->ssl, from, at_once(size)));
}

bool wire_pending(const struct wire *w)
{
    return w->ssl != NULL && SSL_has_pending(w->ssl) == 1;
}

void wire_close(struct wire *w)
{
    SSL_free(w->ssl);
    (void)close(w->fd);
    *w = (struct wire){.fd = -1};
}
