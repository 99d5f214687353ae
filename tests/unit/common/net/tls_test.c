/* Proves: only peers that prove who they are get through, by name or by SPIFFE id; data comes whole
 * in full records; a reload, a silent peer and a cut are handled; a session of before proves no
 * more than its certificate would. */
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/net/conn.h"
#include "common/net/listener.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/certs.h"

enum { WAIT_MS = 10000, BIG = 900000 };

static struct certs certs;
static struct certs_file server_pem;
static struct certs_file client_pem;
static uint8_t big[BIG];

static int setup(void **state)
{
    (void)state;
    struct certs_leaf server = {
        .san = "DNS:server.test,DNS:*.wild.test,IP:127.0.0.1,URI:spiffe://test/server"};
    struct certs_leaf client = {.san = "URI:spiffe://test/ns/client"};
    certs_init(&certs);
    server_pem = certs_issue(&certs, "server", &server);
    client_pem = certs_issue(&certs, "client", &client);
    for (size_t i = 0; i < BIG; i++) {
        big[i] = (uint8_t)(i * 31 + i / 253);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    certs_free(&certs);
    return 0;
}

struct side {
    struct net_conn *conn;
    bool opened;
    bool eof;
    bool closed;
    bool got;
    struct err why;
    size_t bytes;
    size_t wanted;
    bool wrong; /* a byte was not the one of 'big'. */
    unsigned reads;
    bool pause_when_opened;
    char alpn[16];
    char spiffe[64];
};

static void side_opened(struct net_conn *conn, void *ctx)
{
    struct side *s = ctx;
    s->opened = true;
    (void)snprintf(s->alpn, sizeof(s->alpn), "%.*s", SLICE_ARG(net_conn_alpn(conn)));
    const struct net_identity *who = net_conn_identity(conn);
    if (who != NULL) {
        (void)snprintf(s->spiffe, sizeof(s->spiffe), "%.*s", SLICE_ARG(who->spiffe_id));
    }
    if (s->pause_when_opened) {
        net_conn_pause(conn);
    }
}

static void side_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct side *s = ctx;
    (void)conn;
    assert_true(s->bytes + bytes.size <= BIG);
    assert_true(bytes.size <= NET_READ_BYTES);
    s->wrong |= memcmp(bytes.ptr, big + s->bytes, bytes.size) != 0;
    s->bytes += bytes.size;
    s->reads++;
    s->got = s->wanted > 0 && s->bytes >= s->wanted;
}

static void side_eof(struct net_conn *conn, void *ctx)
{
    (void)conn;
    ((struct side *)ctx)->eof = true;
}

static void side_closed(struct net_conn *conn, void *ctx, struct err why)
{
    struct side *s = ctx;
    (void)conn;
    assert_false(s->closed);
    s->closed = true;
    s->why = why;
    s->conn = NULL;
}

static const struct net_conn_handler side_handler = {
    .opened = side_opened, .readable = side_readable, .eof = side_eof, .closed = side_closed};

struct pair {
    struct net_loop *loop;
    struct net_listener *listener;
    int fd;
    struct net_addr addr;
    struct side server;
    struct side client;
};

static void on_accepted(struct net_conn *conn, void *ctx)
{
    struct pair *p = ctx;
    p->server.conn = conn;
    net_conn_set_handler(conn, &side_handler, &p->server);
}

static struct net_tls *server_tls(enum net_tls_client_cert asks, bool h2_only)
{
    struct net_tls_options o = {.cert_file = server_pem.path,
                                .ca_file = certs.ca_file,
                                .client_cert = asks,
                                .h2_only = h2_only};
    struct net_tls *tls = NULL;
    assert_int_equal(net_tls_server_new(&o, &tls).code, E_OK);
    return tls;
}

static struct net_tls *client_tls(const char *cert_file, bool http1_only)
{
    struct net_tls_options o = {
        .cert_file = cert_file, .ca_file = certs.ca_file, .http1_only = http1_only};
    struct net_tls *tls = NULL;
    assert_int_equal(net_tls_client_new(&o, &tls).code, E_OK);
    return tls;
}

/* Takes the context. */
static void pair_init(struct pair *p, struct net_tls *tls)
{
    *p = (struct pair){.fd = -1};
    assert_int_equal(net_loop_new(&p->loop).code, E_OK);
    assert_int_equal(net_listen(slice_str("127.0.0.1:0"), &p->fd, &p->addr).code, E_OK);
    struct net_listener_options o = {.fd = p->fd, .tls = tls, .accepted = on_accepted, .ctx = p};
    assert_int_equal(net_listener_new(p->loop, &o, &p->listener).code, E_OK);
    net_tls_unref(tls);
}

/* Takes the context. */
static void pair_dial(struct pair *p, struct net_tls *tls, const char *name, const char *spiffe_id)
{
    struct net_dial_options o = {.addr = &p->addr,
                                 .tls = tls,
                                 .server_name = slice_str(name),
                                 .spiffe_id = slice_str(spiffe_id),
                                 .timeout_ms = WAIT_MS,
                                 .handler = &side_handler,
                                 .ctx = &p->client};
    assert_int_equal(net_dial(p->loop, &o, &p->client.conn).code, E_OK);
    net_tls_unref(tls);
}

static void pair_free(struct pair *p)
{
    net_listener_free(p->listener);
    net_loop_free(p->loop);
    assert_int_equal(close(p->fd), 0);
}

static void wait_for(struct pair *p, const bool *done)
{
    assert_true(net_loop_run_until(p->loop, done, WAIT_MS));
}

/* Both sides open. */
static void pair_open(struct pair *p, enum net_tls_client_cert asks, const char *client_cert)
{
    pair_init(p, server_tls(asks, false));
    pair_dial(p, client_tls(client_cert, false), "server.test", NULL);
    wait_for(p, &p->client.opened);
    wait_for(p, &p->server.opened);
}

static void both_prove_who_they_are(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, NET_TLS_CLIENT_CERT_REQUIRED, client_pem.path);
    assert_string_equal(p.client.alpn, "h2");
    assert_string_equal(p.server.alpn, "h2");
    assert_string_equal(p.server.spiffe, "spiffe://test/ns/client");
    assert_int_equal(net_loop_stats(p.loop)->handshakes, 2);
    pair_free(&p);
}

static void http1_is_chosen_when_it_is_all_that_is_offered(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
    pair_dial(&p, client_tls(NULL, true), "a.wild.test", NULL);
    wait_for(&p, &p.server.opened);
    assert_string_equal(p.server.alpn, "http/1.1");
    assert_null(net_conn_identity(p.server.conn));
    pair_free(&p);
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, true));
    pair_dial(&p, client_tls(NULL, true), "server.test", NULL);
    wait_for(&p, &p.server.closed);
    wait_for(&p, &p.client.closed);
    assert_false(p.server.opened || p.client.opened);
    pair_free(&p);
}

static void data_comes_whole_in_full_records(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, NET_TLS_CLIENT_CERT_NONE, NULL);
    p.server.wanted = BIG;
    uint64_t before = net_loop_stats(p.loop)->bytes_out;
    for (size_t at = 0; at < BIG; at += 1000) {
        assert_int_equal(net_conn_write(p.client.conn, slice_of(big + at, 1000)).code, E_OK);
    }
    wait_for(&p, &p.server.got);
    assert_false(p.server.wrong);
    /* 22 bytes a record: about 55 records, not 900. */
    assert_true(net_loop_stats(p.loop)->bytes_out - before < BIG + 60 * 22);
    assert_int_equal(net_conn_output(p.client.conn), 0);
    p.client.wanted = 100;
    assert_int_equal(net_conn_write(p.server.conn, slice_of(big, 100)).code, E_OK);
    wait_for(&p, &p.client.got);
    net_conn_shutdown(p.client.conn);
    wait_for(&p, &p.server.eof);
    assert_false(p.server.closed);
    net_conn_close(p.server.conn);
    wait_for(&p, &p.client.eof);
    net_conn_close(p.client.conn);
    wait_for(&p, &p.client.closed);
    assert_int_equal(p.client.why.code, E_OK);
    assert_int_equal(p.server.why.code, E_OK);
    pair_free(&p);
}

static void a_pause_in_opened_loses_nothing(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
    p.server.pause_when_opened = true;
    pair_dial(&p, client_tls(NULL, false), "server.test", NULL);
    assert_int_equal(net_conn_write(p.client.conn, slice_of(big, 50000)).code, E_OK);
    wait_for(&p, &p.server.opened);
    bool never = false;
    (void)net_loop_run_until(p.loop, &never, 20);
    assert_int_equal(p.server.bytes, 0);
    p.server.wanted = 50000;
    net_conn_resume(p.server.conn);
    wait_for(&p, &p.server.got);
    assert_false(p.server.wrong);
    pair_free(&p);
}

/* The client refuses the server. */
static void refuses(const char *name, const char *spiffe_id)
{
    struct pair p;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
    pair_dial(&p, client_tls(NULL, false), name, spiffe_id);
    assert_int_equal(net_conn_write(p.client.conn, SLICE_LIT("secret")).code, E_OK);
    wait_for(&p, &p.client.closed);
    assert_int_equal(p.client.why.code, E_UNAUTHENTICATED);
    assert_false(p.client.opened);
    wait_for(&p, &p.server.closed);
    assert_int_equal(p.server.bytes, 0);
    pair_free(&p);
}

static void accepts(const char *name, const char *spiffe_id)
{
    struct pair p;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
    pair_dial(&p, client_tls(NULL, false), name, spiffe_id);
    wait_for(&p, &p.client.opened);
    pair_free(&p);
}

static void servers_are_who_was_meant(void **state)
{
    (void)state;
    accepts("server.test", NULL);
    accepts("127.0.0.1", NULL);
    accepts("a.wild.test", NULL);
    accepts(NULL, "spiffe://test/server");
    accepts("any.name", "spiffe://test/server");
    refuses("other.test", NULL);
    refuses("a.b.wild.test", NULL);
    refuses("127.0.0.2", NULL);
    refuses(NULL, "spiffe://test/other");
    refuses("server.test", "spiffe://test/serve");
}

/* As those of content networks have. */
static void a_server_may_have_many_names(void **state)
{
    (void)state;
    char san[4096] = "";
    size_t size = 0;
    for (int i = 0; i < 120; i++) {
        size += (size_t)snprintf(san + size, sizeof(san) - size, "DNS:n%d.test,", i);
    }
    (void)snprintf(san + size, sizeof(san) - size, "DNS:server.test");
    struct certs_file many = certs_issue(&certs, "many", &(struct certs_leaf){.san = san});
    struct net_tls_options o = {.cert_file = many.path};
    struct net_tls *tls = NULL;
    struct pair p;
    assert_int_equal(net_tls_server_new(&o, &tls).code, E_OK);
    pair_init(&p, tls);
    pair_dial(&p, client_tls(NULL, false), "server.test", NULL);
    wait_for(&p, &p.client.opened);
    pair_free(&p);
}

static void a_dial_must_say_whom_it_means(void **state)
{
    (void)state;
    struct pair p;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
    struct net_tls *tls = client_tls(NULL, false);
    struct net_dial_options o = {.addr = &p.addr, .tls = tls, .handler = &side_handler};
    assert_int_equal(net_dial(p.loop, &o, &p.client.conn).code, E_USAGE);
    o.spiffe_id = SLICE_LIT("spiffe://test");
    assert_int_equal(net_dial(p.loop, &o, &p.client.conn).code, E_MALFORMED);
    net_tls_unref(tls);
    pair_free(&p);
}

/* The server refuses the client. */
static void refuses_client(enum net_tls_client_cert asks, const char *cert_file)
{
    struct pair p;
    pair_init(&p, server_tls(asks, false));
    pair_dial(&p, client_tls(cert_file, false), "server.test", NULL);
    wait_for(&p, &p.server.closed);
    assert_int_equal(p.server.why.code, E_UNAUTHENTICATED);
    assert_false(p.server.opened);
    wait_for(&p, &p.client.closed);
    assert_int_equal(p.client.why.code, E_UNAUTHENTICATED);
    assert_int_equal(net_loop_stats(p.loop)->handshakes_failed, 1);
    pair_free(&p);
}

static void clients_are_judged_as_asked(void **state)
{
    (void)state;
    struct certs strange;
    certs_init(&strange);
    struct certs_leaf leaf = {.san = "URI:spiffe://test/ns/client"};
    struct certs_leaf expired = {.san = "URI:spiffe://test/ns/client", .valid_s = -10};
    struct certs_file stranger = certs_issue(&strange, "stranger", &leaf);
    struct certs_file old = certs_issue(&certs, "old", &expired);
    refuses_client(NET_TLS_CLIENT_CERT_REQUIRED, NULL);
    refuses_client(NET_TLS_CLIENT_CERT_REQUIRED, stranger.path);
    refuses_client(NET_TLS_CLIENT_CERT_OPTIONAL, stranger.path);
    refuses_client(NET_TLS_CLIENT_CERT_OPTIONAL, old.path);
    struct pair p;
    pair_open(&p, NET_TLS_CLIENT_CERT_OPTIONAL, NULL);
    assert_null(net_conn_identity(p.server.conn));
    pair_free(&p);
    certs_free(&strange);
}

static void a_reload_leaves_open_connections_alone(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, NET_TLS_CLIENT_CERT_NONE, NULL);
    struct net_tls *next = server_tls(NET_TLS_CLIENT_CERT_REQUIRED, false);
    net_listener_set_tls(p.listener, next);
    net_tls_unref(next);
    p.server.wanted = 5;
    assert_int_equal(net_conn_write(p.client.conn, slice_of(big, 5)).code, E_OK);
    wait_for(&p, &p.server.got);
    net_conn_abort(p.client.conn, FAIL(E_CLOSED));
    wait_for(&p, &p.client.closed);
    wait_for(&p, &p.server.closed);
    p.client = (struct side){0};
    p.server = (struct side){0};
    pair_dial(&p, client_tls(NULL, false), "server.test", NULL);
    wait_for(&p, &p.server.closed);
    assert_false(p.server.opened);
    pair_free(&p);
}

/* Dials by these versions. */
static void pair_dial_by(struct pair *p, const struct net_tls_terms *terms, const char *client_cert)
{
    struct net_tls *tls = client_tls(client_cert, false);
    struct net_dial_options o = {.addr = &p->addr,
                                 .tls = tls,
                                 .server_name = SLICE_LIT("server.test"),
                                 .terms = *terms,
                                 .timeout_ms = WAIT_MS,
                                 .handler = &side_handler,
                                 .ctx = &p->client};
    assert_int_equal(net_dial(p->loop, &o, &p->client.conn).code, E_OK);
    net_tls_unref(tls);
}

static void versions_are_what_both_demand(void **state)
{
    (void)state;
    static const struct {
        struct net_tls_terms server;
        struct net_tls_terms client;
        enum net_tls_version is; /* NET_TLS_ANY: there is no connection. */
    } rows[] = {
        {{0}, {0}, NET_TLS_1_3},
        {{.version_min = NET_TLS_1_3}, {0}, NET_TLS_1_3},
        {{.version_min = NET_TLS_1_3}, {.version_max = NET_TLS_1_2}, NET_TLS_ANY},
        {{.version_min = NET_TLS_1_2}, {.version_max = NET_TLS_1_2}, NET_TLS_1_2},
        {{.version_max = NET_TLS_1_2}, {0}, NET_TLS_1_2},
        {{.version_max = NET_TLS_1_2}, {.version_min = NET_TLS_1_3}, NET_TLS_ANY},
        {{.version_max = NET_TLS_1_3}, {.version_min = NET_TLS_1_3}, NET_TLS_1_3},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct pair p;
        pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
        net_listener_set_terms(p.listener, &rows[i].server);
        pair_dial_by(&p, &rows[i].client, NULL);
        if (rows[i].is == NET_TLS_ANY) {
            wait_for(&p, &p.client.closed);
            wait_for(&p, &p.server.closed);
            assert_false(p.client.opened || p.server.opened);
        } else {
            wait_for(&p, &p.client.opened);
            wait_for(&p, &p.server.opened);
            const struct net_tls_terms newest = {.version_min = NET_TLS_1_3};
            const struct net_tls_terms oldest = {.version_max = NET_TLS_1_2};
            bool new = rows[i].is == NET_TLS_1_3;
            assert_int_equal(net_conn_meets(p.server.conn, &newest), new);
            assert_int_equal(net_conn_meets(p.client.conn, &newest), new);
            assert_int_equal(net_conn_meets(p.server.conn, &oldest), !new);
        }
        pair_free(&p);
    }
}

/* Whatever the context asks for; and what is open already can be asked. */
static void a_certificate_can_be_demanded(void **state)
{
    (void)state;
    const struct net_tls_terms mutual = {.client_cert = true};
    const struct net_tls_terms none = {.client_cert = false};
    struct pair p;
    pair_open(&p, NET_TLS_CLIENT_CERT_OPTIONAL, NULL);
    assert_true(net_conn_meets(p.server.conn, &none));
    assert_false(net_conn_meets(p.server.conn, &mutual));
    net_conn_abort(p.client.conn, FAIL(E_CLOSED));
    wait_for(&p, &p.client.closed);
    wait_for(&p, &p.server.closed);
    net_listener_set_terms(p.listener, &mutual);
    p.client = (struct side){0};
    p.server = (struct side){0};
    pair_dial_by(&p, &none, NULL);
    wait_for(&p, &p.server.closed);
    assert_int_equal(p.server.why.code, E_UNAUTHENTICATED);
    assert_false(p.server.opened);
    wait_for(&p, &p.client.closed);
    p.client = (struct side){0};
    p.server = (struct side){0};
    pair_dial_by(&p, &none, client_pem.path);
    wait_for(&p, &p.server.opened);
    assert_string_equal(p.server.spiffe, "spiffe://test/ns/client");
    assert_true(net_conn_meets(p.server.conn, &mutual));
    pair_free(&p);
}

/* A bare socket towards the pair's listener. */
static int raw_dial(const struct pair *p)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &p->addr.sa.any, net_addr_size(&p->addr)), 0);
    return fd;
}

static void silence_and_noise_are_ended(void **state)
{
    (void)state;
    struct pair p;
    uint64_t before = limits.handshake_timeout_ms;
    limits.handshake_timeout_ms = 100;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
    int fd = raw_dial(&p);
    wait_for(&p, &p.server.closed);
    assert_int_equal(p.server.why.code, E_TIMEOUT);
    assert_int_equal(close(fd), 0);
    limits.handshake_timeout_ms = before;
    p.server = (struct side){0};
    fd = raw_dial(&p);
    assert_int_equal(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
    wait_for(&p, &p.server.closed);
    assert_int_equal(p.server.why.code, E_CRYPTO);
    assert_int_equal(net_loop_stats(p.loop)->handshakes_failed, 2);
    assert_int_equal(close(fd), 0);
    pair_free(&p);
}

static void contexts_refuse_what_is_not_whole(void **state)
{
    (void)state;
    struct net_tls *tls = NULL;
    struct net_tls_options none = {.ca_file = certs.ca_file};
    struct net_tls_options missing = {.cert_file = "/nonexistent/cert.pem"};
    struct net_tls_options no_key = {.cert_file = certs.ca_file};
    struct net_tls_options other_key = {.cert_file = server_pem.path, .key_file = client_pem.path};
    struct net_tls_options no_ca = {.cert_file = server_pem.path,
                                    .client_cert = NET_TLS_CLIENT_CERT_REQUIRED};
    assert_int_equal(net_tls_server_new(&none, &tls).code, E_USAGE);
    assert_int_equal(net_tls_server_new(&missing, &tls).code, E_NOT_FOUND);
    assert_int_equal(net_tls_server_new(&no_key, &tls).code, E_CRYPTO);
    assert_int_equal(net_tls_server_new(&other_key, &tls).code, E_CRYPTO);
    assert_int_equal(net_tls_server_new(&no_ca, &tls).code, E_USAGE);
    assert_null(tls);
}

/* A copy of the CA's file, which a test may take away. */
static void copy_ca(char path[128])
{
    (void)snprintf(path, 128, "%s.copy", certs.ca_file);
    FILE *from = fopen(certs.ca_file, "re");
    FILE *to = fopen(path, "we");
    assert_non_null(from);
    assert_non_null(to);
    for (int c = fgetc(from); c != EOF; c = fgetc(from)) {
        assert_int_equal(fputc(c, to), c);
    }
    assert_int_equal(fclose(from), 0);
    assert_int_equal(fclose(to), 0);
}

/* Both sides with contexts from these options; the server is verified, and the client. */
static void proves_both(struct net_tls_options server, struct net_tls_options client)
{
    struct net_tls *tls = NULL;
    struct pair p;
    server.cert_file = server_pem.path;
    assert_int_equal(net_tls_server_new(&server, &tls).code, E_OK);
    pair_init(&p, tls);
    assert_int_equal(net_tls_client_new(&client, &tls).code, E_OK);
    pair_dial(&p, tls, "server.test", NULL);
    wait_for(&p, &p.client.opened);
    wait_for(&p, &p.server.opened);
    assert_int_equal(net_conn_identity(p.server.conn) != NULL, client.cert_file != NULL);
    pair_free(&p);
}

static void trust_is_read_once_and_shared(void **state)
{
    (void)state;
    char path[128];
    struct net_tls_trust *trust = NULL;
    copy_ca(path);
    assert_int_equal(net_tls_trust_new(path, &trust).code, E_OK);
    assert_int_equal(unlink(path), 0); /* so whoever reads it again fails. */
    struct net_tls_options server = {.trust = trust, .client_cert = NET_TLS_CLIENT_CERT_REQUIRED};
    struct net_tls_options client = {.trust = trust, .cert_file = client_pem.path};
    proves_both(server, client);
    proves_both(server, client);
    net_tls_trust_unref(trust);
    net_tls_trust_unref(NULL);
    trust = NULL;
    assert_int_equal(net_tls_trust_new(path, &trust).code, E_NOT_FOUND);
    assert_int_equal(net_tls_trust_new("/dev/null", &trust).code, E_CRYPTO);
    assert_null(trust);
}

/* The only test of this program that takes the system's: it says where they are. */
static void the_systems_cas_are_read_once(void **state)
{
    (void)state;
    char path[128];
    copy_ca(path);
    assert_int_equal(setenv("SSL_CERT_FILE", path, 1), 0);
    net_tls_trust_system_load();
    assert_int_equal(unlink(path), 0);
    net_tls_trust_system_load();
    proves_both((struct net_tls_options){0}, (struct net_tls_options){0});
    proves_both((struct net_tls_options){0}, (struct net_tls_options){0});
}

static struct net_tls *tls_of_ca(const char *ca_file)
{
    struct net_tls_options o = {.cert_file = server_pem.path,
                                .ca_file = ca_file,
                                .client_cert = NET_TLS_CLIENT_CERT_OPTIONAL};
    struct net_tls *tls = NULL;
    assert_int_equal(net_tls_server_new(&o, &tls).code, E_OK);
    return tls;
}

/* An open connection's peer is judged by other CAs than those that let it in. */
static void a_peer_is_judged_by_other_cas(void **state)
{
    (void)state;
    struct certs others;
    certs_init(&others);
    struct net_tls *same = tls_of_ca(certs.ca_file);
    struct net_tls *other = tls_of_ca(others.ca_file);
    struct net_tls *again = tls_of_ca(certs.ca_file);
    assert_true(net_tls_same_trust(same, again));
    assert_false(net_tls_same_trust(same, other));
    struct pair p;
    pair_open(&p, NET_TLS_CLIENT_CERT_OPTIONAL, client_pem.path);
    assert_true(net_conn_peer_trusted(p.server.conn, same));
    assert_false(net_conn_peer_trusted(p.server.conn, other));
    assert_true(net_conn_peer_trusted(p.client.conn, same)); /* as a server's certificate. */
    assert_false(net_conn_peer_trusted(p.client.conn, other));
    pair_free(&p);
    pair_open(&p, NET_TLS_CLIENT_CERT_OPTIONAL, NULL); /* who proved nothing loses nothing. */
    assert_true(net_conn_peer_trusted(p.server.conn, other));
    pair_free(&p);
    net_tls_unref(same);
    net_tls_unref(other);
    net_tls_unref(again);
    certs_free(&others);
}

/* By a certificate that lasts so long; false: it had run out before its handshake was over. */
static bool pair_open_briefly(struct pair *p, int valid_s)
{
    const struct certs_leaf leaf = {.san = "URI:spiffe://test/brief", .valid_s = valid_s};
    int64_t expires_s = (int64_t)time(NULL) + valid_s; /* at the earliest. */
    struct certs_file brief = certs_issue(&certs, "brief", &leaf);
    pair_init(p, server_tls(NET_TLS_CLIENT_CERT_REQUIRED, false));
    pair_dial(p, client_tls(brief.path, false), "server.test", NULL);
    bool either = false;
    while (!either) { /* ends as net_dial() ends. */
        either = net_loop_run_until(p->loop, &p->server.opened, 1) || p->server.closed;
    }
    if (p->server.opened) {
        return true;
    }
    assert_true((int64_t)time(NULL) >= expires_s);
    pair_free(p);
    return false;
}

/* A certificate that ran out while its connection is open does not end it: it is renewed. */
static void age_is_not_asked_of_an_open_connection(void **state)
{
    (void)state;
    struct net_tls *same = tls_of_ca(certs.ca_file);
    struct pair p;
    for (int valid_s = 1; !pair_open_briefly(&p, valid_s);) {
        valid_s *= 2; /* for a machine that is slow. */
        assert_true(valid_s <= 32);
    }
    int64_t expires_s = net_conn_identity(p.server.conn)->expires_s;
    bool never = false;
    while (time(NULL) <= expires_s) {
        (void)net_loop_run_until(p.loop, &never, 20);
    }
    assert_true(net_conn_peer_trusted(p.server.conn, same));
    net_tls_unref(same);
    pair_free(&p);
}

/* ---- CAs of one trust domain ---- */

static struct net_tls_trust *bound_trust(const char *file, const char *domain,
                                         const struct certs *of)
{
    char pem[4096];
    FILE *from = fopen(of->ca_file, "re");
    assert_non_null(from);
    const struct net_tls_bundle bundle = {slice_str(domain),
                                          slice_of(pem, fread(pem, 1, sizeof(pem), from))};
    struct net_tls_trust *trust = NULL;
    assert_int_equal(fclose(from), 0);
    assert_int_equal(net_tls_trust_bound_new(file, &bundle, 1, &trust).code, E_OK);
    return trust;
}

static struct net_tls *bound_server(struct net_tls_trust *trust)
{
    struct net_tls *tls = NULL;
    struct net_tls_options o = {
        .cert_file = server_pem.path, .trust = trust, .client_cert = NET_TLS_CLIENT_CERT_REQUIRED};
    assert_int_equal(net_tls_server_new(&o, &tls).code, E_OK);
    return tls;
}

/* Whether a client with a leaf of that CA gets in. */
static bool gets_in(struct net_tls_trust *trust, struct certs *of, const char *san)
{
    struct pair p;
    struct certs_file leaf = certs_issue(of, "bound", &(struct certs_leaf){.san = san});
    pair_init(&p, bound_server(trust));
    pair_dial(&p, client_tls(leaf.path, false), "server.test", NULL);
    while (!p.server.opened && !p.server.closed) { /* ends: WAIT_MS bounds a handshake. */
        net_loop_turn(p.loop);
    }
    bool opened = p.server.opened;
    assert_true(opened || p.server.why.code == E_UNAUTHENTICATED);
    pair_free(&p);
    return opened;
}

static void a_bundle_vouches_for_its_domain_alone(void **state)
{
    (void)state;
    struct certs other;
    certs_init_named(&other, "other CA");
    struct net_tls_trust *trust = bound_trust(certs.ca_file, "other", &other);
    assert_true(gets_in(trust, &certs, "URI:spiffe://test/a"));
    assert_true(gets_in(trust, &certs, "DNS:client.test"));
    assert_true(gets_in(trust, &other, "URI:spiffe://other/a"));
    assert_false(gets_in(trust, &other, "URI:spiffe://test/a"));
    assert_false(gets_in(trust, &other, "DNS:client.test"));
    assert_false(gets_in(trust, &other, "URI:spiffe://other/a,URI:spiffe://test/a"));
    assert_false(gets_in(trust, &certs, "URI:spiffe://other/a"));
    net_tls_trust_unref(trust);
    trust = bound_trust(/* file= */ NULL, "other", &other); /* nobody else is vouched for. */
    assert_true(gets_in(trust, &other, "URI:spiffe://other/a"));
    assert_false(gets_in(trust, &certs, "URI:spiffe://test/a"));
    net_tls_trust_unref(trust);
    trust = bound_trust(other.ca_file, "test", &certs); /* what the file has stays at that. */
    assert_true(gets_in(trust, &certs, "URI:spiffe://test/a"));
    assert_true(gets_in(trust, &other, "DNS:client.test"));
    assert_false(gets_in(trust, &other, "URI:spiffe://test/a"));
    net_tls_trust_unref(trust);
    certs_free(&other);
}

/* It vouches for no server by its name. */
static void a_bundle_vouches_for_no_name(void **state)
{
    (void)state;
    struct certs other;
    struct pair p;
    certs_init_named(&other, "other CA");
    struct net_tls_trust *trust = bound_trust(/* file= */ NULL, "test", &certs);
    struct net_tls_options o = {.trust = trust};
    for (int by_spiffe = 0; by_spiffe < 2; by_spiffe++) {
        struct net_tls *tls = NULL;
        assert_int_equal(net_tls_client_new(&o, &tls).code, E_OK);
        pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_NONE, false));
        pair_dial(&p, tls, "server.test", by_spiffe ? "spiffe://test/server" : NULL);
        wait_for(&p, &p.client.opened); /* its one URI is a SPIFFE id of that domain. */
        pair_free(&p);
    }
    struct certs_file named =
        certs_issue(&certs, "named", &(struct certs_leaf){.san = "DNS:server.test"});
    struct net_tls_options server = {.cert_file = named.path};
    struct net_tls *tls = NULL;
    struct net_tls *client = NULL;
    assert_int_equal(net_tls_server_new(&server, &tls).code, E_OK);
    assert_int_equal(net_tls_client_new(&o, &client).code, E_OK);
    pair_init(&p, tls);
    pair_dial(&p, client, "server.test", NULL);
    wait_for(&p, &p.client.closed);
    assert_int_equal(p.client.why.code, E_UNAUTHENTICATED);
    pair_free(&p);
    net_tls_trust_unref(trust);
    certs_free(&other);
}

/* Binding a CA that was trusted before is another trust, and is asked of open connections. */
static void open_connections_are_judged_by_bundles(void **state)
{
    (void)state;
    struct pair p;
    struct certs other;
    certs_init_named(&other, "other CA");
    pair_open(&p, NET_TLS_CLIENT_CERT_REQUIRED, client_pem.path);
    struct net_tls_trust *trusts[] = {bound_trust(certs.ca_file, "other", &other),
                                      bound_trust(certs.ca_file, "test", &certs),
                                      bound_trust(certs.ca_file, "test", &other)};
    struct net_tls *tls[3];
    for (size_t i = 0; i < 3; i++) {
        tls[i] = bound_server(trusts[i]);
        assert_int_equal(net_conn_peer_trusted(p.server.conn, tls[i]), i < 2);
    }
    assert_true(net_tls_same_trust(tls[0], tls[0]));
    assert_false(net_tls_same_trust(tls[0], tls[1]));
    assert_false(net_tls_same_trust(tls[0], tls[2]));
    for (size_t i = 0; i < 3; i++) {
        net_tls_unref(tls[i]);
        net_tls_trust_unref(trusts[i]);
    }
    pair_free(&p);
    certs_free(&other);
}

/* ---- sessions of before ---- */

/* A client of OpenSSL alone, which keeps the last ticket that it was given. */
struct visitor {
    SSL_CTX *context;
    SSL *ssl;
    SSL_SESSION *session;
    uint64_t tickets; /* that came. */
    int fd;
};

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct visitor *v = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_SESSION_free(v->session);
    v->session = session;
    v->tickets++;
    return 1;
}

static void visitor_init(struct visitor *v, const char *cert_file, int version)
{
    *v = (struct visitor){.context = SSL_CTX_new(TLS_client_method()), .fd = -1};
    assert_non_null(v->context);
    assert_int_equal(SSL_CTX_set_min_proto_version(v->context, version), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(v->context, version), 1);
    assert_int_equal(SSL_CTX_use_certificate_chain_file(v->context, cert_file), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(v->context, cert_file, SSL_FILETYPE_PEM), 1);
    (void)SSL_CTX_set_session_cache_mode(v->context,
                                         SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(v->context, keep_session);
    SSL_CTX_set_app_data(v->context, v);
}

static void visitor_leave(struct visitor *v)
{
    SSL_set_shutdown(v->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else no resuming. */
    SSL_free(v->ssl);
    v->ssl = NULL;
    assert_int_equal(close(v->fd), 0);
}

static void visitor_free(struct visitor *v)
{
    SSL_SESSION_free(v->session);
    SSL_CTX_free(v->context);
}

/* Connects by the ticket, if there is one, until the server has opened or closed. */
static void visitor_call(struct visitor *v, struct pair *p)
{
    char byte = 0;
    uint64_t tickets = v->tickets;
    p->server = (struct side){0};
    v->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(v->fd >= 0);
    assert_int_equal(connect(v->fd, &p->addr.sa.any, sizeof(p->addr.sa.v4)), 0);
    v->ssl = SSL_new(v->context);
    assert_non_null(v->ssl);
    SSL_set_connect_state(v->ssl);
    assert_int_equal(SSL_set_fd(v->ssl, v->fd), 1);
    assert_true(v->session == NULL || SSL_set_session(v->ssl, v->session) == 1);
    struct timeval brief = {.tv_usec = 1000};
    assert_int_equal(setsockopt(v->fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief)), 0);
    while (!p->server.opened && !p->server.closed) { /* ends: a handshake has its time. */
        (void)SSL_do_handshake(v->ssl);
        (void)net_loop_run_until(p->loop, &p->server.opened, 1);
    }
    while (p->server.opened && !SSL_is_init_finished(v->ssl)) {
        (void)SSL_do_handshake(v->ssl);
    }
    bool comes = p->server.opened && SSL_version(v->ssl) == TLS1_3_VERSION;
    for (int i = 0; i < 1000 && comes && v->tickets == tickets; i++) {
        (void)SSL_read(v->ssl, &byte, 1); /* the ticket. */
        (void)net_loop_run_until(p->loop, &p->server.closed, 1);
    }
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* Twice, and the second time by a ticket; false: the certificate had run out before. */
static bool visits_twice(struct visitor *v, struct pair *p)
{
    for (int again = 0; again < 2; again++) {
        visitor_call(v, p);
        bool opened = p->server.opened && SSL_session_reused(v->ssl) == again;
        if (p->server.opened) {
            assert_string_equal(p->server.spiffe, "spiffe://test/brief");
        }
        visitor_leave(v);
        while (!p->server.closed) { /* ends: its peer is gone. */
            net_loop_turn(p->loop);
        }
        if (!opened) {
            return false;
        }
    }
    return true;
}

/* Who shows a ticket proves no more than that it once had a certificate. */
static void a_session_ends_with_its_certificate(void **state)
{
    (void)state;
    struct pair p;
    struct visitor visitors[2];
    int64_t expires_s = 0;
    bool visited = false;
    bool never = false;
    pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_OPTIONAL, false));
    for (int valid_s = 1; !visited; valid_s *= 2) { /* for a machine that is slow. */
        assert_true(valid_s <= 32);
        const struct certs_leaf leaf = {.san = "URI:spiffe://test/brief", .valid_s = valid_s};
        struct certs_file brief = certs_issue(&certs, "brief", &leaf);
        expires_s = (int64_t)time(NULL) + valid_s; /* at the latest. */
        visitor_init(&visitors[0], brief.path, TLS1_2_VERSION);
        visitor_init(&visitors[1], brief.path, TLS1_3_VERSION);
        visited = visits_twice(&visitors[0], &p) && visits_twice(&visitors[1], &p);
        for (size_t i = 0; i < 2 && !visited; i++) {
            visitor_free(&visitors[i]);
        }
    }
    while (time(NULL) <= expires_s) {
        (void)net_loop_run_until(p.loop, &never, 20);
    }
    for (size_t i = 0; i < 2; i++) {
        visitor_call(&visitors[i], &p);
        assert_false(p.server.opened);
        assert_int_equal(p.server.why.code, E_UNAUTHENTICATED);
        visitor_leave(&visitors[i]);
        visitor_free(&visitors[i]);
    }
    pair_free(&p);
}

/* ---- CAs between the root and a leaf ---- */

struct between {
    struct certs ca; /* what signs leaves: its certificate, key and place alone. */
    struct certs_file leaf;
};

/* A CA that ours signed, and a leaf of it whose file has both. */
static void between_init(struct between *b, const char *san)
{
    const struct certs_leaf as_ca = {.name = "between", .is_ca = true, .key_usage = "keyCertSign"};
    b->ca = certs;
    b->ca.ca = certs_make(&certs, &as_ca, &b->ca.ca_key);
    (void)snprintf(b->ca.ca_file, sizeof(b->ca.ca_file), "%s/between-ca.pem", certs.dir);
    b->leaf = certs_issue(&b->ca, "between", &(struct certs_leaf){.san = san});
    const char *files[] = {b->leaf.path, b->ca.ca_file};
    for (size_t i = 0; i < 2; i++) {
        FILE *f = fopen(files[i], i == 0 ? "ae" : "we");
        assert_non_null(f);
        assert_int_equal(PEM_write_X509(f, b->ca.ca), 1);
        assert_int_equal(fclose(f), 0);
    }
}

static void between_free(struct between *b)
{
    X509_free(b->ca.ca);
    EVP_PKEY_free(b->ca.ca_key);
}

/* A ticket keeps the leaf alone: who needs more to be judged again shows it again. */
static void a_resumed_peer_can_be_judged_again(void **state)
{
    (void)state;
    struct between b;
    struct pair p;
    struct visitor visitor;
    struct net_tls *same = tls_of_ca(certs.ca_file);
    between_init(&b, "URI:spiffe://test/between");
    for (size_t i = 0; i < 2; i++) {
        pair_init(&p, server_tls(NET_TLS_CLIENT_CERT_REQUIRED, false));
        visitor_init(&visitor, b.leaf.path, versions[i]);
        for (int again = 0; again < 3; again++) {
            visitor_call(&visitor, &p);
            assert_true(p.server.opened);
            assert_string_equal(p.server.spiffe, "spiffe://test/between");
            assert_true(net_conn_peer_trusted(p.server.conn, same));
            visitor_leave(&visitor);
            wait_for(&p, &p.server.closed);
        }
        visitor_free(&visitor);
        pair_free(&p);
    }
    net_tls_unref(same);
    between_free(&b);
}

/* Whoever is named as a CA is one, whoever else signed it. */
static void a_ca_need_not_be_a_root(void **state)
{
    (void)state;
    struct between b;
    between_init(&b, "URI:spiffe://test/between");
    struct net_tls_trust *trusts[] = {NULL, bound_trust(/* file= */ NULL, "test", &b.ca)};
    assert_int_equal(net_tls_trust_new(b.ca.ca_file, &trusts[0]).code, E_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_true(gets_in(trusts[i], &b.ca, "URI:spiffe://test/a"));
        assert_false(gets_in(trusts[i], &certs, "URI:spiffe://test/a"));
        net_tls_trust_unref(trusts[i]);
    }
    between_free(&b);
}

/* A leaf whose file has it alone is shown with the CAs that the node knows, up to a root. */
static void cas_between_are_shown(void **state)
{
    (void)state;
    struct between first;
    struct certs second;
    struct pair p;
    const struct certs_leaf as_ca = {
        .name = "second", .is_ca = true, .key_usage = "keyCertSign", .san = "DNS:second.test"};
    between_init(&first, "DNS:unused.test");
    second = first.ca;
    second.ca = certs_make(&first.ca, &as_ca, &second.ca_key);
    struct certs_file leaf =
        certs_issue(&second, "alone", &(struct certs_leaf){.san = "DNS:server.test"});
    X509 *const known[] = {second.ca, first.ca.ca, certs.ca};
    char path[128];
    copy_ca(path);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(PEM_write_X509(f, known[i]), 1);
    }
    assert_int_equal(fclose(f), 0);
    struct net_tls_options o = {
        .cert_file = leaf.path, .ca_file = path, .client_cert = NET_TLS_CLIENT_CERT_OPTIONAL};
    struct net_tls *tls = NULL;
    assert_int_equal(net_tls_server_new(&o, &tls).code, E_OK);
    pair_init(&p, tls);
    pair_dial(&p, client_tls(NULL, false), "server.test", NULL);
    while (!p.client.opened && !p.client.closed) { /* ends: WAIT_MS bounds a handshake. */
        net_loop_turn(p.loop);
    }
    assert_true(p.client.opened);
    pair_free(&p);
    X509_free(second.ca);
    EVP_PKEY_free(second.ca_key);
    between_free(&first);
}

/* Of two CAs with one name OpenSSL tries the first alone: a partner's does not stand before ours.
 */
static void a_bundle_does_not_stand_before_others(void **state)
{
    (void)state;
    struct certs other;
    certs_init(&other);
    struct net_tls_trust *trusts[] = {bound_trust(certs.ca_file, "other", &other),
                                      bound_trust(other.ca_file, "test", &certs)};
    for (size_t i = 0; i < 2; i++) {
        assert_true(gets_in(trusts[i], &certs, "URI:spiffe://test/a"));
        assert_true(gets_in(trusts[i], &other, "URI:spiffe://other/a"));
        assert_false(gets_in(trusts[i], &certs, "URI:spiffe://other/a"));
        assert_false(gets_in(trusts[i], &other, "URI:spiffe://test/a"));
        net_tls_trust_unref(trusts[i]);
    }
    certs_free(&other);
}

/* A CA that stood for everybody, and then for one domain alone, is another trust. */
static void who_stands_for_everybody_is_part_of_a_trust(void **state)
{
    (void)state;
    struct certs other;
    char both[128];
    certs_init_named(&other, "other CA");
    copy_ca(both);
    FILE *f = fopen(both, "ae");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, other.ca), 1);
    assert_int_equal(fclose(f), 0);
    struct net_tls_trust *trusts[] = {bound_trust(both, "other", &other),
                                      bound_trust(certs.ca_file, "other", &other)};
    struct net_tls *tls[] = {bound_server(trusts[0]), bound_server(trusts[1])};
    assert_true(gets_in(trusts[0], &other, "URI:spiffe://third/a"));
    assert_false(gets_in(trusts[1], &other, "URI:spiffe://third/a"));
    assert_false(net_tls_same_trust(tls[0], tls[1]));
    for (size_t i = 0; i < 2; i++) {
        net_tls_unref(tls[i]);
        net_tls_trust_unref(trusts[i]);
    }
    certs_free(&other);
}

/* A bundle that lists a CA twice is the bundle that lists it once, and not none. */
static void a_ca_that_is_listed_twice_counts(void **state)
{
    (void)state;
    struct certs twice = certs;
    char path[128];
    copy_ca(path);
    FILE *f = fopen(path, "ae");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, certs.ca), 1);
    assert_int_equal(fclose(f), 0);
    (void)snprintf(twice.ca_file, sizeof(twice.ca_file), "%.95s", path);
    struct net_tls_trust *trusts[] = {bound_trust(certs.ca_file, "test", &twice),
                                      bound_trust(certs.ca_file, "test", &certs),
                                      bound_trust(certs.ca_file, "other", &twice)};
    struct net_tls *tls[3];
    for (size_t i = 0; i < 3; i++) {
        tls[i] = bound_server(trusts[i]);
    }
    assert_true(net_tls_same_trust(tls[0], tls[1]));
    assert_false(net_tls_same_trust(tls[0], tls[2]));
    for (size_t i = 0; i < 3; i++) {
        net_tls_unref(tls[i]);
        net_tls_trust_unref(trusts[i]);
    }
}

/* ---- a key that is locked ---- */

/* On a terminal OpenSSL would ask for its passphrase, and the node would wait for somebody. */
static void nobody_is_asked_for_a_passphrase(void **state)
{
    (void)state;
    char said[64];
    int terminal = -1;
    int status = 0;
    struct certs_file locked =
        certs_issue_locked(&certs, "locked", &(struct certs_leaf){.san = "DNS:server.test"});
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (pid == 0) {
        struct net_tls *tls = NULL;
        struct net_tls_options o = {.cert_file = locked.path};
        _exit(net_tls_server_new(&o, &tls).code == E_CRYPTO ? 0 : 1);
    }
    ssize_t size = read(terminal, said, sizeof(said)); /* an error: it ended without a word. */
    assert_int_equal(close(terminal), 0);              /* hangs up. */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(size <= 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_prove_who_they_are),
        cmocka_unit_test(http1_is_chosen_when_it_is_all_that_is_offered),
        cmocka_unit_test(data_comes_whole_in_full_records),
        cmocka_unit_test(a_pause_in_opened_loses_nothing),
        cmocka_unit_test(servers_are_who_was_meant),
        cmocka_unit_test(a_server_may_have_many_names),
        cmocka_unit_test(a_dial_must_say_whom_it_means),
        cmocka_unit_test(clients_are_judged_as_asked),
        cmocka_unit_test(a_reload_leaves_open_connections_alone),
        cmocka_unit_test(versions_are_what_both_demand),
        cmocka_unit_test(a_certificate_can_be_demanded),
        cmocka_unit_test(silence_and_noise_are_ended),
        cmocka_unit_test(contexts_refuse_what_is_not_whole),
        cmocka_unit_test(trust_is_read_once_and_shared),
        cmocka_unit_test(the_systems_cas_are_read_once),
        cmocka_unit_test(a_peer_is_judged_by_other_cas),
        cmocka_unit_test(age_is_not_asked_of_an_open_connection),
        cmocka_unit_test(a_bundle_vouches_for_its_domain_alone),
        cmocka_unit_test(a_bundle_vouches_for_no_name),
        cmocka_unit_test(open_connections_are_judged_by_bundles),
        cmocka_unit_test(a_session_ends_with_its_certificate),
        cmocka_unit_test(a_resumed_peer_can_be_judged_again),
        cmocka_unit_test(a_ca_need_not_be_a_root),
        cmocka_unit_test(cas_between_are_shown),
        cmocka_unit_test(a_bundle_does_not_stand_before_others),
        cmocka_unit_test(who_stands_for_everybody_is_part_of_a_trust),
        cmocka_unit_test(a_ca_that_is_listed_twice_counts),
        cmocka_unit_test(nobody_is_asked_for_a_passphrase),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
