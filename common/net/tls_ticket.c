/* tls_ticket: which sessions go on. A ticket says who its bearer was when it was given, and OpenSSL
 * asks no more than that it is ours. Who may not go on by it shakes hands anew, and may prove by
 * another certificate who it is. */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "common/net/tls_impl.h"

enum { DIRECT = 2 /* a leaf, and the CA that we know. */ };

/* A ticket has the leaf alone: with CAs between, nobody could judge again who came by it. */
static int mark_chain(SSL *ssl, void *arg)
{
    static const char mark[] = "between";
    (void)arg;
    if (sk_X509_num(SSL_get0_verified_chain(ssl)) <= DIRECT) { /* -1: there is none. */
        return 1;
    }
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), mark, sizeof(mark) - 1);
}

static bool goes_on(SSL_SESSION *session)
{
    const X509 *peer = SSL_SESSION_get0_peer(session);
    void *mark = NULL; /* the session's. */
    size_t mark_size = 0;
    if (peer == NULL) {
        return true; /* it proved nothing. */
    }
    return SSL_SESSION_get0_ticket_appdata(session, &mark, &mark_size) == 1 && mark_size == 0 &&
           X509_cmp_current_time(X509_get0_notAfter(peer)) > 0;
}

static SSL_TICKET_RETURN judge_ticket(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                      size_t name_size, SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl;
    (void)name;
    (void)name_size;
    (void)arg;
    if ((status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) || !goes_on(session)) {
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

struct err net_tls_judge_tickets(SSL_CTX *context)
{
    if (SSL_CTX_set_session_ticket_cb(context, mark_chain, judge_ticket, /* arg= */ NULL) != 1) {
        ERR_clear_error();
        return FAIL(E_CRYPTO);
    }
    return OK;
}
