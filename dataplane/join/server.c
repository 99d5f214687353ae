/* server: see server.h. */
#include "dataplane/join/server.h"

#include <curl/curl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/net/addr.h"
#include "common/net/cert.h"

enum {
    URL_SIZE = 1024,
    ANSWER_MAX = 8 << 20, /* 64 roots of the largest size, in base64. */
    CONNECT_MS = 5000,
    WHOLE_MS = 20000,
};

struct err dp_server_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? OK : FAIL(E_IO);
}

/* ---- addresses ---- */

/* Takes the next URL off a comma-separated list; false at its end. */
static bool next_url(struct slice *rest, char out[URL_SIZE])
{
    struct slice item = slice_head(*rest, slice_find(*rest, ','));
    *rest = slice_from(*rest, item.size + 1);
    if (item.size == 0) {
        return false;
    }
    while (item.size > 0 && item.ptr[item.size - 1] == '/') {
        item.size--;
    }
    (void)snprintf(out, URL_SIZE, "%.*s", SLICE_ARG(item));
    return true;
}

static bool is_loopback(struct slice authority)
{
    struct slice host = {0};
    uint16_t port = 0;
    struct net_addr addr;
    if (!err_ok(net_host_port(authority, &host, &port))) {
        return false;
    }
    if (slice_eq(host, SLICE_LIT("localhost"))) {
        return true;
    }
    if (!err_ok(net_addr_from_ip(host, port, &addr))) {
        return false;
    }
    return addr.sa.any.sa_family == AF_INET ? (ntohl(addr.sa.v4.sin_addr.s_addr) >> 24) == 127
                                            : IN6_IS_ADDR_LOOPBACK(&addr.sa.v6.sin6_addr);
}

/* A scheme, an authority, and nothing else: what could mean something else to libcurl is out. */
static bool is_server(struct slice url)
{
    bool tls = slice_starts(url, SLICE_LIT("https://"));
    struct slice authority = slice_from(url, tls ? 8 : 7);
    for (size_t i = 0; i < authority.size; i++) {
        uint8_t c = authority.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '.' && c != '-' && c != ':' && c != '[' && c != ']') {
            return false;
        }
    }
    if (tls) {
        return authority.size > 0;
    }
    return slice_starts(url, SLICE_LIT("http://")) && is_loopback(authority);
}

struct err dp_server_check_urls(const char *urls, struct buf *message)
{
    struct slice rest = slice_str(urls);
    char url[URL_SIZE];
    size_t count = 0;
    while (next_url(&rest, url)) {
        count++;
        if (!is_server(slice_str(url))) {
            TRY(buf_addf(
                message,
                "server: found \"%.200s\"; expected https://HOST:PORT, or http://HOST:PORT "
                "of loopback",
                url));
            return FAIL(E_USAGE);
        }
    }
    if (count == 0 || rest.size > 0) {
        TRY(buf_add_str(message, "server: expected https://HOST:PORT"));
        return FAIL(E_USAGE);
    }
    return OK;
}

/* ---- trust ---- */

static bool add_anchors(struct net_chain *anchors, struct slice pem)
{
    struct net_chain more = {.count = 0};
    if (pem.size == 0) {
        return true;
    }
    if (!err_ok(net_chain_read(pem, &more))) {
        return false;
    }
    size_t taken = 0;
    while (taken < more.count && anchors->count < NET_CHAIN_MAX) {
        anchors->certs[anchors->count++] = more.certs[taken++];
    }
    for (size_t i = taken; i < more.count; i++) {
        X509_free(more.certs[i]);
    }
    return true;
}

/* The certificate that is pinned is one that the server sends: it becomes an anchor. */
static void add_pinned(struct net_chain *anchors, const struct net_chain *sent, const uint8_t *pin)
{
    for (size_t i = 0; pin != NULL && i < sent->count && anchors->count < NET_CHAIN_MAX; i++) {
        uint8_t found[NET_PIN_SIZE];
        if (err_ok(net_cert_pin(sent->certs[i], found)) && memcmp(found, pin, NET_PIN_SIZE) == 0) {
            (void)X509_up_ref(sent->certs[i]);
            anchors->certs[anchors->count++] = sent->certs[i];
        }
    }
}

static bool is_trusted(const struct dp_server *server, const struct net_chain *sent)
{
    auto_chain struct net_chain anchors = {.count = 0};
    bool read = add_anchors(&anchors, server->ca) && add_anchors(&anchors, server->more_ca);
    add_pinned(&anchors, sent, server->pin);
    bool serves = X509_check_purpose(sent->certs[0], X509_PURPOSE_SSL_SERVER, /* ca= */ 0) == 1;
    return read && serves && err_ok(net_chain_verify(sent, &anchors));
}

/* In the place of OpenSSL's own verification; libcurl asks for the name afterwards. */
static int verify(X509_STORE_CTX *ctx, void *arg)
{
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
    bool trusted = leaf != NULL && is_trusted(arg, &sent);
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

struct request {
    CURL *curl;
    struct curl_slist *headers;
    struct buf answer;
    char *body; /* freed by free(): jansson's text. */
};

static void request_free(struct request *r)
{
    curl_slist_free_all(r->headers);
    curl_easy_cleanup(r->curl);
    buf_free(&r->answer);
    free(r->body);
}

static size_t take(char *bytes, size_t size, size_t count, void *ctx)
{
    return err_ok(buf_add(ctx, slice_of(bytes, size * count))) ? size * count : 0;
}

/* Ends a request that nobody waits for any more: libcurl asks at least once a second. */
static int go_on(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct dp_server *server = arg;
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return server->gives_up != NULL && server->gives_up(server->ctx) ? 1 : 0;
}

static struct err add_header(struct request *r, const char *line)
{
    struct curl_slist *longer = curl_slist_append(r->headers, line);
    if (longer == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    r->headers = longer;
    return OK;
}

static struct err set_up(struct request *r, const struct dp_server *server, const char *url,
                         const json_t *body)
{
    /* libcurl hands the pointer back and changes nothing behind it. */
    union {
        const struct dp_server *in;
        void *out;
    } arg = {server};
    bool own_trust = server->pin != NULL || server->ca.size > 0 || server->more_ca.size > 0;
    r->body = json_dumps(body, JSON_COMPACT);
    if (r->body == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(add_header(r, "Content-Type: application/json"));
    TRY(add_header(r, "Expect:"));
    (void)curl_easy_setopt(r->curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(r->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(r->curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(r->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(r->curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    (void)curl_easy_setopt(r->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    (void)curl_easy_setopt(r->curl, CURLOPT_TIMEOUT_MS, (long)WHOLE_MS);
    (void)curl_easy_setopt(r->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(r->body));
    (void)curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, r->body);
    (void)curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, r->headers);
    (void)curl_easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, take);
    (void)curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, &r->answer);
    (void)curl_easy_setopt(r->curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(r->curl, CURLOPT_XFERINFOFUNCTION, go_on);
    (void)curl_easy_setopt(r->curl, CURLOPT_XFERINFODATA, arg.out);
    if (own_trust && (curl_easy_setopt(r->curl, CURLOPT_SSL_CTX_FUNCTION, use_trust) != CURLE_OK ||
                      curl_easy_setopt(r->curl, CURLOPT_SSL_CTX_DATA, arg.out) != CURLE_OK)) {
        return FAIL(E_UNSUPPORTED); /* this libcurl stands on another TLS than OpenSSL. */
    }
    return OK;
}

static enum err_code code_of(CURLcode done)
{
    switch ((int)done) {
    case CURLE_OPERATION_TIMEDOUT:
        return E_TIMEOUT;
    case CURLE_PEER_FAILED_VERIFICATION:
        return E_UNAUTHENTICATED;
    case CURLE_WRITE_ERROR:
        return E_TOO_LARGE;
    case CURLE_ABORTED_BY_CALLBACK:
        return E_CLOSED;
    default:
        return E_UNAVAILABLE;
    }
}

static struct err not_reached(const char *url, CURLcode done, struct buf *message)
{
    struct err e = FAIL(code_of(done));
    buf_clear(message);
    TRY(buf_addf(message, "%s: %s", url,
                 e.code == E_UNAUTHENTICATED
                     ? "its certificate is not the one that is pinned or trusted, or is of another "
                       "name"
                     : curl_easy_strerror(done)));
    return e;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

/* What the server, or whatever else listens there, answered instead of 200. */
static struct err refused(const char *url, const json_t *answer, long status, struct buf *message)
{
    enum err_code code = E_MALFORMED;
    buf_clear(message);
    if (!err_find(text_of(answer, "code"), &code) || code == E_OK) {
        TRY(buf_addf(message, "%s: HTTP status %ld, and no answer of trilane-cp's", url, status));
        return FAIL(E_MALFORMED);
    }
    TRY(buf_addf(message, "%s: %.400s", url, text_of(answer, "message")));
    return FAIL(code);
}

static struct err post_one(const struct dp_server *server, const char *base, const char *path,
                           const json_t *body, json_t **out, struct buf *message)
{
    char url[URL_SIZE + 64];
    __attribute__((cleanup(request_free))) struct request r = {.curl = curl_easy_init(),
                                                               .answer = BUF_MAX(ANSWER_MAX)};
    (void)snprintf(url, sizeof(url), "%s%s", base, path);
    if (r.curl == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(set_up(&r, server, url, body));
    CURLcode done = curl_easy_perform(r.curl);
    if (done != CURLE_OK) {
        return not_reached(base, done, message);
    }
    long status = 0;
    (void)curl_easy_getinfo(r.curl, CURLINFO_RESPONSE_CODE, &status);
    json_t *answer =
        json_loadb((const char *)r.answer.ptr, r.answer.size, JSON_REJECT_DUPLICATES, NULL);
    if (status != 200 || !json_is_object(answer)) {
        struct err e = refused(base, answer, status, message);
        json_decref(answer);
        return e;
    }
    *out = answer;
    return OK;
}

struct err dp_server_post(const struct dp_server *server, const char *path, const json_t *body,
                          json_t **out, struct buf *message)
{
    struct slice rest = slice_str(server->urls);
    char url[URL_SIZE];
    struct err e = FAIL(E_UNAVAILABLE);
    while (next_url(&rest, url)) {
        e = post_one(server, url, path, body, out, message);
        /* Another one may serve what this one is not able to just now. */
        bool next = e.code == E_UNAVAILABLE || e.code == E_TIMEOUT || e.code == E_DRAINING ||
                    e.code == E_QUEUE_FULL || e.code == E_OVERLOADED || e.code == E_RATE_LIMITED;
        if (!next) {
            return e;
        }
    }
    return e;
}
