/* server: see server.h. */
#include "dataplane/join/server.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/net/addr.h"
#include "common/net/ask.h"
#include "common/net/cert.h"

enum {
    URL_SIZE = 1024,
    ANSWER_MAX = 8 << 20, /* 64 roots of the largest size, in base64. */
    CONNECT_MS = 5000,
    WHOLE_MS = 20000,
};

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

static bool is_trusted(const void *ctx, const struct net_chain *sent)
{
    const struct dp_server *server = ctx;
    auto_chain struct net_chain anchors = {.count = 0};
    bool read = add_anchors(&anchors, server->ca) && add_anchors(&anchors, server->more_ca);
    add_pinned(&anchors, sent, server->pin);
    bool serves = X509_check_purpose(sent->certs[0], X509_PURPOSE_SSL_SERVER, /* ca= */ 0) == 1;
    return read && serves && err_ok(net_chain_verify(sent, &anchors));
}

/* ---- one request ---- */

static bool gives_up(const void *ctx)
{
    const struct dp_server *server = ctx;
    return server->gives_up(server->ctx);
}

static struct err not_reached(const char *url, struct err e, const char *why, struct buf *message)
{
    buf_clear(message);
    TRY(buf_addf(message, "%s: %s", url,
                 e.code == E_UNAUTHENTICATED
                     ? "its certificate is not the one that is pinned or trusted, or is of another "
                       "name"
                     : why));
    return e;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

/* What the server, or whatever else listens there, answered instead of 200. */
static struct err refused(const char *url, const json_t *answer, unsigned status,
                          struct buf *message)
{
    enum err_code code = E_MALFORMED;
    buf_clear(message);
    if (!err_find(text_of(answer, "code"), &code) || code == E_OK) {
        TRY(buf_addf(message, "%s: HTTP status %u, and no answer of trilane-cp's", url, status));
        return FAIL(E_MALFORMED);
    }
    TRY(buf_addf(message, "%s: %.400s", url, text_of(answer, "message")));
    return FAIL(code);
}

static struct err post_one(const struct dp_server *server, const char *base, const char *path,
                           struct slice body, json_t **out, struct buf *message)
{
    char url[URL_SIZE + 64];
    (void)snprintf(url, sizeof(url), "%s%s", base, path);
    bool own_trust = server->pin != NULL || server->ca.size > 0 || server->more_ca.size > 0;
    struct net_ask ask = {.url = url,
                          .posts = true,
                          .body = body,
                          .connect_ms = CONNECT_MS,
                          .whole_ms = WHOLE_MS,
                          .trusts = own_trust ? is_trusted : NULL,
                          .gives_up = server->gives_up == NULL ? NULL : gives_up,
                          .ctx = server};
    auto_buf struct buf bytes = BUF_MAX(ANSWER_MAX);
    unsigned status = 0;
    const char *why = NULL;
    struct err e = net_ask(&ask, &status, &bytes, &why);
    if (!err_ok(e)) {
        return not_reached(base, e, why, message);
    }
    json_t *answer = json_loadb((const char *)bytes.ptr, bytes.size, JSON_REJECT_DUPLICATES, NULL);
    if (status != 200 || !json_is_object(answer)) {
        e = refused(base, answer, status, message);
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
    auto_free char *text = json_dumps(body, JSON_COMPACT);
    if (text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = FAIL(E_UNAVAILABLE);
    while (next_url(&rest, url)) {
        e = post_one(server, url, path, slice_str(text), out, message);
        /* Another one may serve what this one is not able to just now. */
        bool next = e.code == E_UNAVAILABLE || e.code == E_TIMEOUT || e.code == E_DRAINING ||
                    e.code == E_QUEUE_FULL || e.code == E_OVERLOADED || e.code == E_RATE_LIMITED;
        if (!next) {
            return e;
        }
    }
    return e;
}
