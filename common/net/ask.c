/* ask: see ask.h. */
#include "common/net/ask.h"

#include <curl/curl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <string.h>

enum { LOOK_MS = 50 };

struct asking {
    const struct net_ask *ask;
    CURLM *multi; /* drives 'curl': curl_easy_perform() asks 'gives_up' once a second alone. */
    CURL *curl;
    struct curl_slist *headers;
    struct buf *answer;
    struct err taken; /* what adding to the answer came to. */
};

static void asking_free(struct asking *a)
{
    if (a->multi != NULL && a->curl != NULL) {
        (void)curl_multi_remove_handle(a->multi, a->curl);
    }
    (void)curl_multi_cleanup(a->multi);
    curl_slist_free_all(a->headers);
    curl_easy_cleanup(a->curl);
}

struct err net_ask_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? OK : FAIL(E_NO_MEMORY);
}

/* ---- what libcurl calls ---- */

static size_t take(char *bytes, size_t size, size_t count, void *ctx)
{
    struct asking *a = ctx;
    a->taken = buf_add(a->answer, slice_of(bytes, size * count));
    return err_ok(a->taken) ? size * count : 0;
}

/* In the place of OpenSSL's own verification; libcurl asks for the name afterwards. */
static int verify(X509_STORE_CTX *ctx, void *arg)
{
    const struct net_ask *ask = ((const struct asking *)arg)->ask;
    STACK_OF(X509) *stack = X509_STORE_CTX_get0_untrusted(ctx);
    X509 *leaf = X509_STORE_CTX_get0_cert(ctx);
    struct net_chain sent = {.count = 0}; /* borrowed. */
    sent.certs[sent.count++] = leaf;
    for (int i = 0; i < sk_X509_num(stack) && sent.count < NET_CHAIN_MAX; i++) {
        X509 *cert = sk_X509_value(stack, i);
        if (cert != leaf) {
            sent.certs[sent.count++] = cert;
        }
    }
    bool trusted = leaf != NULL && ask->trusts(ask->ctx, &sent);
    X509_STORE_CTX_set_error(ctx, trusted ? X509_V_OK : X509_V_ERR_CERT_UNTRUSTED);
    ERR_clear_error();
    return trusted ? 1 : 0;
}

static CURLcode use_trust(CURL *curl, void *context, void *arg)
{
    (void)curl;
    SSL_CTX_set_cert_verify_callback(context, verify, arg);
    return CURLE_OK;
}

/* ---- one request ---- */

static struct err add_header(struct asking *a, const char *line)
{
    if (strpbrk(line, "\r\n") != NULL) {
        return FAIL(E_MALFORMED);
    }
    struct curl_slist *longer = curl_slist_append(a->headers, line);
    if (longer == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    a->headers = longer;
    return OK;
}

static struct err set_up_body(struct asking *a)
{
    const struct slice *body = &a->ask->body;
    TRY(add_header(a, "Content-Type: application/json"));
    TRY(add_header(a, "Expect:")); /* none: the body goes at once. */
    (void)curl_easy_setopt(a->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->size);
    (void)curl_easy_setopt(a->curl, CURLOPT_POSTFIELDS,
                           body->size == 0 ? "" : (const char *)body->ptr);
    return OK;
}

/* With a CA of ours none of the system's directory is asked, which libcurl would do beside it. */
static struct err set_up_ca(struct asking *a)
{
    const struct net_ask *ask = a->ask;
    if (ask->ca_file != NULL) {
        (void)curl_easy_setopt(a->curl, CURLOPT_CAPATH, NULL);
        (void)curl_easy_setopt(a->curl, CURLOPT_CAINFO, ask->ca_file);
    } else if (ask->ca.size > 0) {
        const union {
            const uint8_t *in;
            void *out;
        } bytes = {.in = ask->ca.ptr}; /* libcurl copies what it is given. */
        struct curl_blob blob = {.data = bytes.out, .len = ask->ca.size, .flags = CURL_BLOB_COPY};
        (void)curl_easy_setopt(a->curl, CURLOPT_CAPATH, NULL);
        if (curl_easy_setopt(a->curl, CURLOPT_CAINFO_BLOB, &blob) != CURLE_OK) {
            return FAIL(E_UNSUPPORTED);
        }
    }
    return OK;
}

static struct err set_up_trust(struct asking *a)
{
    (void)curl_easy_setopt(a->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    (void)curl_easy_setopt(a->curl, CURLOPT_SSL_VERIFYPEER, 1L);
    (void)curl_easy_setopt(a->curl, CURLOPT_SSL_VERIFYHOST, 2L);
    TRY(set_up_ca(a));
    if (a->ask->trusts != NULL &&
        (curl_easy_setopt(a->curl, CURLOPT_SSL_CTX_FUNCTION, use_trust) != CURLE_OK ||
         curl_easy_setopt(a->curl, CURLOPT_SSL_CTX_DATA, a) != CURLE_OK)) {
        return FAIL(E_UNSUPPORTED);
    }
    return OK;
}

static struct err set_up(struct asking *a)
{
    const struct net_ask *ask = a->ask;
    for (size_t i = 0; i < NET_ASK_HEADERS_MAX; i++) {
        TRY(ask->headers[i] == NULL ? OK : add_header(a, ask->headers[i]));
    }
    TRY(ask->posts ? set_up_body(a) : OK);
    TRY(set_up_trust(a));
    (void)curl_easy_setopt(a->curl, CURLOPT_URL, ask->url);
    (void)curl_easy_setopt(a->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(a->curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(a->curl, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(a->curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(a->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(a->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)ask->connect_ms);
    (void)curl_easy_setopt(a->curl, CURLOPT_TIMEOUT_MS, (long)ask->whole_ms);
    (void)curl_easy_setopt(a->curl, CURLOPT_HTTPHEADER, a->headers);
    (void)curl_easy_setopt(a->curl, CURLOPT_WRITEFUNCTION, take);
    (void)curl_easy_setopt(a->curl, CURLOPT_WRITEDATA, a);
    return OK;
}

/* How it ended. */
static CURLcode transfer(const struct asking *a)
{
    const struct net_ask *ask = a->ask;
    int running = 1;
    CURLMcode code = curl_multi_add_handle(a->multi, a->curl);
    while (code == CURLM_OK && running > 0) { /* ends: by 'whole_ms'. */
        if (ask->gives_up != NULL && ask->gives_up(ask->ctx)) {
            return CURLE_ABORTED_BY_CALLBACK;
        }
        code = curl_multi_perform(a->multi, &running);
        if (code == CURLM_OK && running > 0) {
            code = curl_multi_poll(a->multi, /* extra= */ NULL, 0, LOOK_MS, /* out_ready= */ NULL);
        }
    }
    int left = 0;
    const CURLMsg *done = curl_multi_info_read(a->multi, &left);
    if (code != CURLM_OK || done == NULL) {
        return CURLE_OUT_OF_MEMORY;
    }
    return done->data.result;
}

static struct err error_of(const struct asking *a, CURLcode done)
{
    switch ((int)done) {
    case CURLE_OPERATION_TIMEDOUT:
        return FAIL(E_TIMEOUT);
    case CURLE_PEER_FAILED_VERIFICATION:
        return FAIL(E_UNAUTHENTICATED);
    case CURLE_ABORTED_BY_CALLBACK:
        return FAIL(E_CLOSED);
    case CURLE_WRITE_ERROR:
        return err_ok(a->taken) ? FAIL(E_UNAVAILABLE) : a->taken;
    case CURLE_OUT_OF_MEMORY:
        return FAIL(E_NO_MEMORY);
    default:
        return FAIL(E_UNAVAILABLE);
    }
}

struct err net_ask(const struct net_ask *ask, unsigned *out_status, struct buf *answer,
                   const char **out_why)
{
    __attribute__((cleanup(asking_free))) struct asking a = {
        .ask = ask, .multi = curl_multi_init(), .curl = curl_easy_init(), .answer = answer};
    *out_why = "it could not be asked";
    if (a.multi == NULL || a.curl == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(set_up(&a));
    CURLcode done = transfer(&a);
    if (done != CURLE_OK) {
        *out_why = err_ok(a.taken) ? curl_easy_strerror(done) : err_text(a.taken.code);
        return error_of(&a, done);
    }
    long status = 0;
    (void)curl_easy_getinfo(a.curl, CURLINFO_RESPONSE_CODE, &status);
    *out_status = (unsigned)status;
    return OK;
}
