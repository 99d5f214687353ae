/* Proves: a request goes out as it was asked and its answer comes whole or not at all, within its
 * bounds of size and time; nothing but http and https is spoken, no redirect followed, no proxy
 * asked; a server is believed by its certificate and its name alone; and one that is silent holds
 * up no other. */
#include "common/net/ask.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/certs.h"

enum { PATIENCE_MS = 10000, GOT_SIZE = 4096, URL_SIZE = 64 };

static struct certs certs;
static struct certs_file server_pem;

/* Answers one connection with the same bytes, whatever it asks. */
struct server {
    const char *answer; /* NULL: nothing, until the other side has gone. */
    bool tls;
    int fd;
    uint16_t port;
    pthread_t thread;
    char got[GOT_SIZE]; /* what was asked. */
    size_t got_size;
};

struct line {
    int fd;
    SSL *ssl;
};

static int line_read(struct line *l, char *at, size_t size)
{
    return l->ssl == NULL ? (int)read(l->fd, at, size) : SSL_read(l->ssl, at, (int)size);
}

static void line_write(struct line *l, const char *text)
{
    if (l->ssl == NULL) {
        CHECK(send(l->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
    } else {
        CHECK(SSL_write(l->ssl, text, (int)strlen(text)) == (int)strlen(text));
    }
}

/* A head, and a body that ends with a brace. */
static bool is_whole(const struct server *s)
{
    const char *end = strstr(s->got, "\r\n\r\n");
    return end != NULL && (strncmp(s->got, "POST", 4) != 0 || s->got[s->got_size - 1] == '}');
}

static void serve_line(struct server *s, struct line *l)
{
    while (s->answer == NULL || !is_whole(s)) {
        int n = line_read(l, s->got + s->got_size, GOT_SIZE - 1 - s->got_size);
        if (n <= 0) {
            return; /* the other side has gone. */
        }
        s->got_size += (size_t)n;
    }
    line_write(l, s->answer);
}

static void *serve(void *ctx)
{
    struct server *s = ctx;
    struct line l = {.fd = accept(s->fd, NULL, NULL)};
    if (l.fd < 0) {
        return NULL; /* nobody came. */
    }
    SSL_CTX *tls = NULL;
    bool open = true;
    if (s->tls) {
        tls = SSL_CTX_new(TLS_server_method());
        CHECK(SSL_CTX_use_certificate_chain_file(tls, server_pem.path) == 1);
        CHECK(SSL_CTX_use_PrivateKey_file(tls, server_pem.path, SSL_FILETYPE_PEM) == 1);
        l.ssl = SSL_new(tls);
        CHECK(SSL_set_fd(l.ssl, l.fd) == 1);
        open = SSL_accept(l.ssl) == 1;
    }
    if (open) {
        serve_line(s, &l);
    }
    SSL_free(l.ssl);
    SSL_CTX_free(tls);
    (void)close(l.fd);
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(s->fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(s->fd, 4) == 0);
    CHECK(getsockname(s->fd, (struct sockaddr *)&a, &size) == 0);
    s->port = ntohs(a.sin_port);
    CHECK(pthread_create(&s->thread, NULL, serve, s) == 0);
}

static void server_end(struct server *s)
{
    (void)shutdown(s->fd, SHUT_RDWR);
    CHECK(pthread_join(s->thread, NULL) == 0);
    (void)close(s->fd);
}

struct told {
    struct err e;
    unsigned status;
    const char *why;
    char text[256];
};

/* Asks for /x there; 'max': of the answer. */
static struct told ask_server(struct server *s, const char *host, struct net_ask ask, size_t max)
{
    char url[URL_SIZE];
    auto_buf struct buf answer = BUF_MAX(max);
    struct told t = {.status = 0};
    server_start(s);
    (void)snprintf(url, sizeof(url), "%s://%s:%u/x", s->tls ? "https" : "http", host, s->port);
    ask.url = url;
    ask.connect_ms = PATIENCE_MS;
    ask.whole_ms = ask.whole_ms == 0 ? PATIENCE_MS : ask.whole_ms;
    t.e = net_ask(&ask, &t.status, &answer, &t.why);
    (void)snprintf(t.text, sizeof(t.text), "%.*s", SLICE_ARG(buf_slice(&answer)));
    server_end(s);
    return t;
}

static void it_goes_out_as_it_was_asked(void **state)
{
    (void)state;
    struct server s = {.answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n{\"a\"}"};
    struct net_ask ask = {.posts = true,
                          .body = SLICE_LIT("{\"b\":1}"),
                          .headers = {"Authorization: Bearer t", NULL, "X-Third: 3"}};
    struct told t = ask_server(&s, "127.0.0.1", ask, 5);
    assert_int_equal(t.e.code, E_OK);
    assert_int_equal(t.status, 403);
    assert_string_equal(t.text, "{\"a\"}");
    assert_int_equal(strncmp(s.got, "POST /x HTTP/1.1\r\n", 18), 0);
    assert_non_null(strstr(s.got, "\r\nAuthorization: Bearer t\r\n"));
    assert_non_null(strstr(s.got, "\r\nX-Third: 3\r\n"));
    assert_non_null(strstr(s.got, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(s.got, "\r\n\r\n{\"b\":1}"));
    assert_null(strstr(s.got, "Expect"));
    struct server g = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"};
    t = ask_server(&g, "127.0.0.1", (struct net_ask){.posts = false}, 5);
    assert_int_equal(t.status, 200);
    assert_int_equal(strncmp(g.got, "GET /x HTTP/1.1\r\n", 17), 0);
    assert_null(strstr(g.got, "Content-Type"));
}

static void an_answer_has_a_bound(void **state)
{
    (void)state;
    const char *ten = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
    struct server at = {.answer = ten};
    assert_string_equal(ask_server(&at, "127.0.0.1", (struct net_ask){0}, 10).text, "0123456789");
    struct server past = {.answer = ten};
    assert_int_equal(ask_server(&past, "127.0.0.1", (struct net_ask){0}, 9).e.code, E_TOO_LARGE);
}

static void what_breaks_off_is_no_answer(void **state)
{
    (void)state;
    struct server s = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"};
    struct told t = ask_server(&s, "127.0.0.1", (struct net_ask){0}, 100);
    assert_int_equal(t.e.code, E_UNAVAILABLE);
    assert_int_equal(t.status, 0);
    assert_non_null(t.why);
}

static void a_redirect_is_not_followed(void **state)
{
    (void)state;
    struct server other = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    char answer[256];
    server_start(&other);
    (void)snprintf(answer, sizeof(answer),
                   "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%u/\r\n"
                   "Content-Length: 0\r\n\r\n",
                   other.port);
    struct server s = {.answer = answer};
    assert_int_equal(ask_server(&s, "127.0.0.1", (struct net_ask){0}, 100).status, 302);
    server_end(&other);
    assert_int_equal(other.got_size, 0);
}

static bool at_once(const void *ctx)
{
    (void)ctx;
    return true;
}

static void silence_ends(void **state)
{
    (void)state;
    struct server late = {.answer = NULL};
    struct net_ask ask = {.whole_ms = 50};
    assert_int_equal(ask_server(&late, "127.0.0.1", ask, 100).e.code, E_TIMEOUT);
    struct server left = {.answer = NULL};
    ask = (struct net_ask){.gives_up = at_once};
    assert_int_equal(ask_server(&left, "127.0.0.1", ask, 100).e.code, E_CLOSED);
}

/* One of several. */
struct one {
    struct server server;
    char url[URL_SIZE];
    struct buf answer;
    struct net_asking *asking;
};

static void one_begin(struct net_asks *asks, struct one *one, unsigned whole_ms)
{
    server_start(&one->server);
    (void)snprintf(one->url, sizeof(one->url), "http://127.0.0.1:%u/", one->server.port);
    one->answer = BUF_MAX(100);
    const struct net_ask ask = {.url = one->url, .connect_ms = PATIENCE_MS, .whole_ms = whole_ms};
    assert_true(err_ok(net_asks_begin(asks, &ask, &one->answer, one, &one->asking)));
}

static void one_end(struct one *one)
{
    server_end(&one->server);
    buf_free(&one->answer);
}

static void wait_next(struct net_asks *asks, struct net_asked *out)
{
    while (!net_asks_next(asks, out)) { /* ends: by the time that each has. */
        net_asks_wait(asks, PATIENCE_MS);
    }
}

static void several_at_once(void **state)
{
    (void)state;
    struct net_asks *asks = NULL;
    struct net_asked asked = {.ctx = NULL};
    struct one silent = {.server = {.answer = NULL}};
    struct one brief = {.server = {.answer = NULL}};
    struct one good = {.server = {.answer = "HTTP/1.1 201 OK\r\nContent-Length: 2\r\n\r\n{}"}};
    assert_true(err_ok(net_asks_new(&asks)));
    assert_false(net_asks_next(asks, &asked));
    one_begin(asks, &silent, PATIENCE_MS * 10);
    one_begin(asks, &brief, 500);
    one_begin(asks, &good, PATIENCE_MS);
    wait_next(asks, &asked);
    assert_ptr_equal(asked.ctx, &good);
    assert_int_equal(asked.err.code, E_OK);
    assert_int_equal(asked.status, 201);
    assert_true(slice_eq(buf_slice(&good.answer), SLICE_LIT("{}")));
    wait_next(asks, &asked);
    assert_ptr_equal(asked.ctx, &brief);
    assert_int_equal(asked.err.code, E_TIMEOUT);
    net_asks_cancel(asks, silent.asking);
    assert_false(net_asks_next(asks, &asked));
    one_end(&silent);
    one_end(&brief);
    one_end(&good);
    net_asks_free(asks);
}

/* The next wait is none; and what is under way when all is freed is given up. */
static void a_wait_is_woken(void **state)
{
    (void)state;
    struct net_asks *asks = NULL;
    struct net_asked asked = {.ctx = NULL};
    struct one silent = {.server = {.answer = NULL}};
    assert_true(err_ok(net_asks_new(&asks)));
    one_begin(asks, &silent, PATIENCE_MS * 10);
    net_asks_wake(asks);
    net_asks_wait(asks, PATIENCE_MS * 10); /* else the test's own time is over. */
    assert_false(net_asks_next(asks, &asked));
    net_asks_free(asks);
    one_end(&silent);
    net_asks_free(NULL);
}

static enum err_code code_of(struct net_ask ask)
{
    auto_buf struct buf answer = BUF_MAX(100000);
    unsigned status = 0;
    const char *why = NULL;
    ask.connect_ms = PATIENCE_MS;
    ask.whole_ms = PATIENCE_MS;
    enum err_code code = net_ask(&ask, &status, &answer, &why).code;
    assert_int_equal(answer.size, 0);
    assert_non_null(why);
    return code;
}

static void nothing_else_is_spoken(void **state)
{
    (void)state;
    const char *urls[] = {"file:///etc/passwd", "ftp://127.0.0.1/x", "127.0.0.1:1", ""};
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        assert_int_equal(code_of((struct net_ask){.url = urls[i]}), E_UNAVAILABLE);
    }
    struct net_ask two = {.url = "http://127.0.0.1:1/", .headers = {"A: b\r\nC: d"}};
    assert_int_equal(code_of(two), E_MALFORMED);
}

static void no_proxy_is_asked(void **state)
{
    (void)state;
    struct server s = {.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
    assert_int_equal(setenv("no_proxy", "", 1), 0);
    assert_int_equal(ask_server(&s, "127.0.0.1", (struct net_ask){0}, 100).status, 200);
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_int_equal(unsetenv("no_proxy"), 0);
}

static const char hello[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

static void a_server_is_believed_by_certificate_and_name(void **state)
{
    (void)state;
    struct certs_leaf leaf = {.san = "IP:127.0.0.1"};
    struct certs_file stranger = certs_issue(&certs, "stranger", &leaf);
    struct net_ask ours = {.ca_file = certs.ca_file};
    struct server s = {.answer = hello, .tls = true};
    assert_int_equal(ask_server(&s, "127.0.0.1", ours, 100).status, 200);
    struct server name = {.answer = hello, .tls = true};
    assert_int_equal(ask_server(&name, "localhost", ours, 100).e.code, E_UNAUTHENTICATED);
    struct server unknown = {.answer = hello, .tls = true};
    struct net_ask theirs = {.ca_file = stranger.path};
    assert_int_equal(ask_server(&unknown, "127.0.0.1", theirs, 100).e.code, E_UNAUTHENTICATED);
    assert_int_equal(unknown.got_size, 0);
}

struct judge {
    bool trusts;
    const struct net_chain *anchors;
};

static bool judge(const void *ctx, const struct net_chain *sent)
{
    const struct judge *j = ctx;
    return j->trusts && err_ok(net_chain_verify(sent, j->anchors));
}

static void who_asks_may_judge_the_chain(void **state)
{
    (void)state;
    struct net_chain anchors = {.certs = {certs.ca}, .count = 1};
    struct judge yes = {.trusts = true, .anchors = &anchors};
    struct judge no = {.trusts = false, .anchors = &anchors};
    struct server s = {.answer = hello, .tls = true};
    struct net_ask ask = {.trusts = judge, .ctx = &yes};
    assert_int_equal(ask_server(&s, "127.0.0.1", ask, 100).status, 200);
    struct server name = {.answer = hello, .tls = true};
    assert_int_equal(ask_server(&name, "localhost", ask, 100).e.code, E_UNAUTHENTICATED);
    struct server distrusted = {.answer = hello, .tls = true};
    ask.ctx = &no;
    assert_int_equal(ask_server(&distrusted, "127.0.0.1", ask, 100).e.code, E_UNAUTHENTICATED);
    assert_int_equal(distrusted.got_size, 0);
}

static int setup(void **state)
{
    (void)state;
    struct certs_leaf leaf = {.san = "IP:127.0.0.1"};
    certs_init(&certs);
    server_pem = certs_issue(&certs, "server", &leaf);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR); /* OpenSSL writes to who has gone. */
    return err_ok(net_ask_init()) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    certs_free(&certs);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_goes_out_as_it_was_asked),
        cmocka_unit_test(an_answer_has_a_bound),
        cmocka_unit_test(what_breaks_off_is_no_answer),
        cmocka_unit_test(a_redirect_is_not_followed),
        cmocka_unit_test(silence_ends),
        cmocka_unit_test(several_at_once),
        cmocka_unit_test(a_wait_is_woken),
        cmocka_unit_test(nothing_else_is_spoken),
        cmocka_unit_test(no_proxy_is_asked),
        cmocka_unit_test(a_server_is_believed_by_certificate_and_name),
        cmocka_unit_test(who_asks_may_judge_the_chain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
