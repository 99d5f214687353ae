/* ask: see ask.h. */
#include "common/net/ask.h"

#include <curl/curl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

enum { LOOK_MS = 50 };

struct net_asking {
    struct net_ask ask;
    CURL *curl;
    struct curl_slist *headers;
    struct buf *answer;
    struct err taken; /* what adding to the answer came to. */
    void *ctx;
    struct net_asking *next; /* of those under way. */
    struct net_asking **link;
};

struct net_asks {
    CURLM *multi; /* also of one alone: curl_easy_perform() asks 'gives_up' once a second. */
    struct net_asking *all;
};

struct err net_ask_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? OK : FAIL(E_NO_MEMORY);
}

/* ---- what libcurl calls ---- */

static size_t take(char *bytes, size_t size, size_t count, void *ctx)
{
    struct net_asking *a = ctx;
    a->taken = buf_add(a->answer, slice_of(bytes, size * count));
    return err_ok(a->taken) ? size * count : 0;
}

/* In the place of OpenSSL's own verification; libcurl asks for the name afterwards. */
static int verify(X509_STORE_CTX *ctx, void *arg)
{
    const struct net_ask *ask = &((const struct net_asking *)arg)->ask;
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

static struct err add_header(struct net_asking *a, const char *line)
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

static struct err set_up_body(struct net_asking *a)
{
    const struct slice *body = &a->ask.body;
    TRY(add_header(a, "Content-Type: application/json"));
    TRY(add_header(a, "Expect:")); /* none: the body goes at once. */
    (void)curl_easy_setopt(a->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->size);
    (void)curl_easy_setopt(a->curl, CURLOPT_POSTFIELDS,
                           body->size == 0 ? "" : (const char *)body->ptr);
    return OK;
}

/* With a CA of ours none of the system's directory is asked, which libcurl would do beside it. */
static struct err set_up_ca(struct net_asking *a)
{
    const struct net_ask *ask = &a->ask;
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

static struct err set_up_trust(struct net_asking *a)
{
    (void)curl_easy_setopt(a->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    (void)curl_easy_setopt(a->curl, CURLOPT_SSL_VERIFYPEER, 1L);
    (void)curl_easy_setopt(a->curl, CURLOPT_SSL_VERIFYHOST, 2L);
    TRY(set_up_ca(a));
    if (a->ask.trusts != NULL &&
        (curl_easy_setopt(a->curl, CURLOPT_SSL_CTX_FUNCTION, use_trust) != CURLE_OK ||
         curl_easy_setopt(a->curl, CURLOPT_SSL_CTX_DATA, a) != CURLE_OK)) {
        return FAIL(E_UNSUPPORTED);
    }
    return OK;
}

static struct err set_up(struct net_asking *a)
{
    const struct net_ask *ask = &a->ask;
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
    (void)curl_easy_setopt(a->curl, CURLOPT_QUICK_EXIT, 1L); /* a resolver that hangs is left. */
    (void)curl_easy_setopt(a->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)ask->connect_ms);
    (void)curl_easy_setopt(a->curl, CURLOPT_TIMEOUT_MS, (long)ask->whole_ms);
    (void)curl_easy_setopt(a->curl, CURLOPT_HTTPHEADER, a->headers);
    (void)curl_easy_setopt(a->curl, CURLOPT_WRITEFUNCTION, take);
    (void)curl_easy_setopt(a->curl, CURLOPT_WRITEDATA, a);
    (void)curl_easy_setopt(a->curl, CURLOPT_PRIVATE, a);
    return OK;
}

static struct err error_of(const struct net_asking *a, CURLcode done)
{
    switch ((int)done) {
    case CURLE_OK:
        return OK;
    case CURLE_OPERATION_TIMEDOUT:
        return FAIL(E_TIMEOUT);
    case CURLE_PEER_FAILED_VERIFICATION:
        return FAIL(E_UNAUTHENTICATED);
    case CURLE_WRITE_ERROR:
        return err_ok(a->taken) ? FAIL(E_UNAVAILABLE) : a->taken;
    case CURLE_OUT_OF_MEMORY:
        return FAIL(E_NO_MEMORY);
    default:
        return FAIL(E_UNAVAILABLE);
    }
}

/* ---- several at once ---- */

struct err net_asks_new(struct net_asks **out)
{
    struct net_asks *asks = calloc(1, sizeof(*asks));
    if (asks == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    asks->multi = curl_multi_init();
    if (asks->multi == NULL) {
        free(asks);
        return FAIL(E_NO_MEMORY);
    }
    *out = asks;
    return OK;
}

static void asking_free(struct net_asking *a)
{
    curl_easy_cleanup(a->curl);
    curl_slist_free_all(a->headers);
    free(a);
}

static void take_out(struct net_asks *asks, struct net_asking *a)
{
    (void)curl_multi_remove_handle(asks->multi, a->curl);
    *a->link = a->next;
    if (a->next != NULL) {
        a->next->link = a->link;
    }
}

void net_asks_free(struct net_asks *asks)
{
    if (asks == NULL) {
        return;
    }
    while (asks->all != NULL) {
        net_asks_cancel(asks, asks->all);
    }
    (void)curl_multi_cleanup(asks->multi);
    free(asks);
}

struct err net_asks_begin(struct net_asks *asks, const struct net_ask *ask, struct buf *answer,
                          void *ctx, struct net_asking **out)
{
    struct net_asking *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *a = (struct net_asking){
        .ask = *ask, .curl = curl_easy_init(), .answer = answer, .ctx = ctx, .taken = OK};
    struct err e = a->curl == NULL ? FAIL(E_NO_MEMORY) : set_up(a);
    if (err_ok(e) && curl_multi_add_handle(asks->multi, a->curl) != CURLM_OK) {
        e = FAIL(E_NO_MEMORY);
    }
    if (!err_ok(e)) {
        asking_free(a);
        return e;
    }
    a->next = asks->all;
    a->link = &asks->all;
    if (a->next != NULL) {
        a->next->link = &a->next;
    }
    asks->all = a;
    *out = a;
    return OK;
}

void net_asks_cancel(struct net_asks *asks, struct net_asking *asking)
{
    if (asking != NULL) {
        take_out(asks, asking);
        asking_free(asking);
    }
}

void net_asks_wait(struct net_asks *asks, unsigned wait_ms)
{
    int running = 0;
    int before = 0;
    for (const struct net_asking *a = asks->all; a != NULL; a = a->next) {
        before++;
    }
    (void)curl_multi_perform(asks->multi, &running);
    if (running == before) { /* else one is over by now. */
        (void)curl_multi_poll(asks->multi, /* extra= */ NULL, 0, (int)wait_ms,
                              /* out_ready= */ NULL);
        (void)curl_multi_perform(asks->multi, &running);
    }
}

void net_asks_wake(struct net_asks *asks)
{
    (void)curl_multi_wakeup(asks->multi);
}

bool net_asks_next(struct net_asks *asks, struct net_asked *out)
{
    int left = 0;
    long status = 0;
    struct net_asking *a = NULL;
    const CURLMsg *done = curl_multi_info_read(asks->multi, &left);
    if (done == NULL) {
        return false;
    }
    CURLcode code = done->data.result; /* 'done' dies with the handle. */
    CHECK(curl_easy_getinfo(done->easy_handle, CURLINFO_PRIVATE, &a) == CURLE_OK);
    (void)curl_easy_getinfo(a->curl, CURLINFO_RESPONSE_CODE, &status);
    *out = (struct net_asked){.ctx = a->ctx,
                              .err = error_of(a, code),
                              .status = (unsigned)status,
                              .why = err_ok(a->taken) ? curl_easy_strerror(code)
                                                      : err_text(a->taken.code)};
    take_out(asks, a);
    asking_free(a);
    return true;
}

/* ---- one alone ---- */

static void asks_free(struct net_asks **asks)
{
    net_asks_free(*asks);
}

struct err net_ask(const struct net_ask *ask, unsigned *out_status, struct buf *answer,
                   const char **out_why)
{
    __attribute__((cleanup(asks_free))) struct net_asks *asks = NULL;
    struct net_asking *asking = NULL;
    struct net_asked asked = {.err = OK};
    *out_why = "it could not be asked";
    TRY(net_asks_new(&asks));
    TRY(net_asks_begin(asks, ask, answer, /* ctx= */ NULL, &asking));
    while (!net_asks_next(asks, &asked)) { /* ends: by 'whole_ms'. */
        if (ask->gives_up != NULL && ask->gives_up(ask->ctx)) {
            return FAIL(E_CLOSED);
        }
        net_asks_wait(asks, LOOK_MS);
    }
    if (err_ok(asked.err)) {
        *out_status = asked.status;
    } else {
        *out_why = asked.why;
    }
    return asked.err;
}
