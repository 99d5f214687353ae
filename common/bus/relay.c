/* relay: see relay.h. Top to bottom: connect, shake hands, take nats.c's connection, carry. */
#include "common/bus/relay.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/bus/dial.h"
#include "common/bus/flat_json.h"

enum {
    DIRECTION_SIZE = 64 << 10,
    ACCEPT_MS = 5000,
    DRAIN_MS = 1000,
    ROUNDS = 64, /* of carrying, before the end is looked for. */
    WHY_SIZE = 128,
};

/* Bytes on their way in one direction. */
struct direction {
    uint8_t bytes[DIRECTION_SIZE];
    size_t start;
    size_t end;
};

struct relay {
    int listener;
    int local;  /* nats.c's connection. */
    int remote; /* the server's. */
    int wake;   /* eventfd: relay_close() began. */
    uint16_t port;
    SSL_CTX *context;
    SSL *ssl;
    struct direction up;   /* to the server. */
    struct direction down; /* begins with the INFO line. */
    short remote_events;   /* what the session waits for. */
    bool remote_gone;
    char why[WHY_SIZE]; /* of the end, when the session knows it. */
    pthread_t thread;
    bool started;
};

/* ---- the session ---- */

/* OpenSSL leaves notes in a thread's queue; the last one says why. */
static struct err crypto_failure(char *why, size_t size, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    (void)snprintf(why, size, "%s: %s", what, reason == NULL ? "refused" : reason);
    ERR_clear_error();
    return FAIL(E_CRYPTO);
}

static struct err missing(char *why, size_t size, const char *path)
{
    (void)snprintf(why, size, "%s: cannot be read", path);
    return FAIL(E_NOT_FOUND);
}

/* Nobody is asked for a passphrase: without this OpenSSL would, on the terminal. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's type of it. */
static int no_passphrase(char *out, int size, int writes, void *ctx)
{
    (void)out;
    (void)size;
    (void)writes;
    (void)ctx;
    return -1;
}

static struct err load_files(SSL_CTX *context, const struct relay_config *c, char *why, size_t size)
{
    if (c->ca != NULL && access(c->ca, R_OK) != 0) {
        return missing(why, size, c->ca);
    }
    int fine = c->ca == NULL ? SSL_CTX_set_default_verify_paths(context)
                             : SSL_CTX_load_verify_locations(context, c->ca, NULL);
    if (fine != 1) {
        return crypto_failure(why, size, c->ca == NULL ? "the system's CAs" : c->ca);
    }
    if (c->cert == NULL) {
        return OK;
    }
    if (access(c->cert, R_OK) != 0 || access(c->key, R_OK) != 0) {
        return missing(why, size, access(c->cert, R_OK) != 0 ? c->cert : c->key);
    }
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    bool loaded = SSL_CTX_use_certificate_chain_file(context, c->cert) == 1 &&
                  SSL_CTX_use_PrivateKey_file(context, c->key, SSL_FILETYPE_PEM) == 1 &&
                  SSL_CTX_check_private_key(context) == 1;
    return loaded ? OK : crypto_failure(why, size, c->cert);
}

static struct err make_context(struct relay *r, const struct relay_config *c, char *why,
                               size_t size)
{
    r->context = SSL_CTX_new(TLS_client_method());
    if (r->context == NULL) {
        return crypto_failure(why, size, "TLS");
    }
    CHECK(SSL_CTX_set_min_proto_version(r->context, TLS1_2_VERSION) == 1);
    (void)SSL_CTX_set_options(r->context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_set_mode(r->context,
                           SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    CHECK(SSL_CTX_set_cipher_list(r->context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1);
    SSL_CTX_set_verify(r->context, SSL_VERIFY_PEER, NULL);
    return load_files(r->context, c, why, size);
}

/* Whom we mean, and which name the certificate must carry: RFC 6066 knows no literals in SNI. */
static bool name_peer(SSL *ssl, const char *host)
{
    struct in6_addr ip;
    char name[DIAL_URL_MAX]; /* OpenSSL's macro takes what may be written to. */
    (void)snprintf(name, sizeof(name), "%s", host);
    if (inet_pton(AF_INET, host, &ip) == 1 || inet_pton(AF_INET6, host, &ip) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    }
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, host) == 1;
}

static struct err handshake_failure(const SSL *ssl, char *why, size_t size)
{
    long verdict = SSL_get_verify_result(ssl);
    if (verdict == X509_V_OK) {
        return crypto_failure(why, size, "TLS handshake");
    }
    (void)snprintf(why, size, "TLS handshake: %s", X509_verify_cert_error_string(verdict));
    ERR_clear_error();
    return FAIL(E_CRYPTO);
}

static struct err shake_hands(struct relay *r, const struct relay_config *c, uint64_t deadline_ns,
                              char *why, size_t size)
{
    TRY(make_context(r, c, why, size));
    r->ssl = SSL_new(r->context);
    if (r->ssl == NULL || !name_peer(r->ssl, c->host) || SSL_set_fd(r->ssl, r->remote) != 1) {
        return crypto_failure(why, size, "TLS");
    }
    for (;;) { /* ends: with the handshake, or by time. */
        int done = SSL_connect(r->ssl);
        if (done == 1) {
            return OK;
        }
        int error = SSL_get_error(r->ssl, done);
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
            return handshake_failure(r->ssl, why, size);
        }
        struct pollfd ready = {.fd = r->remote,
                               .events = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT};
        if (poll(&ready, 1, dial_left_ms(deadline_ns)) != 1) {
            (void)snprintf(why, size, "TLS handshake: no answer in time");
            return FAIL(E_TIMEOUT);
        }
    }
}

/* ---- INFO ---- */

/* What would make nats.c begin a handshake of its own, or go to servers past the relay. */
static bool is_kept(struct slice name)
{
    static const char *const dropped[] = {"tls_required", "tls_verify",      "tls_available",
                                          "connect_urls", "ws_connect_urls", "host",
                                          "port"};
    for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++) {
        if (slice_eq(name, slice_str(dropped[i]))) {
            return false;
        }
    }
    return true;
}

static struct err rewrite_info(struct slice line, struct buf *out)
{
    if (!slice_starts(line, SLICE_LIT("INFO "))) {
        return FAIL(E_MALFORMED);
    }
    struct flat_json json = flat_json_of(slice_from(line, 5));
    struct flat_json_member m;
    bool more = false;
    const char *comma = "";
    TRY(buf_add_str(out, "INFO {"));
    TRY(flat_json_next(&json, &m, &more));
    while (more) {
        if (is_kept(m.name)) {
            const char *quote = m.is_text ? "\"" : "";
            TRY(buf_addf(out, "%s\"%.*s\":%s", comma, SLICE_ARG(m.name), quote));
            TRY(buf_add(out, m.value));
            TRY(buf_add_str(out, quote));
            comma = ",";
        }
        TRY(flat_json_next(&json, &m, &more));
    }
    return buf_add_str(out, "}\r\n");
}

/* In clear, and nothing that it says is believed before the handshake has named the server. */
static struct err take_info(struct relay *r, uint64_t deadline_ns, char *why, size_t size)
{
    auto_buf struct buf line = BUF_MAX(DIAL_INFO_MAX);
    auto_buf struct buf info = BUF_MAX(DIRECTION_SIZE);
    struct err e = dial_read_line(r->remote, deadline_ns, &line);
    if (err_ok(e)) {
        e = rewrite_info(buf_slice(&line), &info);
    }
    if (!err_ok(e)) {
        (void)snprintf(why, size, "no INFO line of a NATS server came");
        return e;
    }
    memcpy(r->down.bytes, info.ptr, info.size);
    r->down.end = info.size;
    return OK;
}

/* ---- nats.c's connection ---- */

static struct err listen_here(struct relay *r)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof(at);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool fine = r->listener >= 0 && bind(r->listener, (struct sockaddr *)&at, size) == 0 &&
                listen(r->listener, 4) == 0 &&
                getsockname(r->listener, (struct sockaddr *)&at, &size) == 0;
    r->port = ntohs(at.sin_port);
    return fine ? OK : FAIL(E_IO);
}

static bool is_at(int fd, const struct sockaddr_in *address)
{
    struct sockaddr_in at = {0};
    socklen_t size = sizeof(at);
    return getsockname(fd, (struct sockaddr *)&at, &size) == 0 && at.sin_family == AF_INET &&
           at.sin_port == address->sin_port && at.sin_addr.s_addr == address->sin_addr.s_addr;
}

/*
 * Whether the other end of a connection is a socket of this process: it has that address, which is
 * one socket's alone. Any user of the machine can connect to a port of loopback, and what comes
 * through here is believed to be ours.
 */
static bool is_ours(const struct sockaddr_in *peer)
{
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) {
        return false;
    }
    bool found = false;
    const struct dirent *item = NULL;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this stream is this thread's alone. */
    while (!found && (item = readdir(directory)) != NULL) {
        uint64_t number = 0;
        found = slice_to_u64(slice_str(item->d_name), &number) && is_at((int)number, peer);
    }
    (void)closedir(directory);
    return found;
}

static bool take_connection(struct relay *r)
{
    uint64_t deadline_ns = clock_mono_ns() + (uint64_t)ACCEPT_MS * 1000000;
    while (r->local < 0) { /* ends: with ours, at the end of the relay, or by time. */
        struct pollfd fds[] = {{.fd = r->listener, .events = POLLIN},
                               {.fd = r->wake, .events = POLLIN}};
        struct sockaddr_in peer = {0};
        socklen_t size = sizeof(peer);
        if (poll(fds, 2, dial_left_ms(deadline_ns)) <= 0 || fds[1].revents != 0) {
            return false;
        }
        auto_close int fd =
            accept4(r->listener, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && is_ours(&peer)) {
            r->local = TAKE_FD(fd);
        }
    }
    scope_close(&r->listener);
    int one = 1;
    (void)setsockopt(r->local, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(r->remote, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return true;
}

/* ---- carrying ---- */

enum carried { CARRIED_NOTHING, CARRIED_SOME, CARRIED_END };

static size_t waiting(const struct direction *d)
{
    return d->end - d->start;
}

static void drop(struct direction *d, size_t size)
{
    d->start += size;
    if (d->start == d->end) {
        d->start = 0;
        d->end = 0;
    }
}

static enum carried session_result(struct relay *r, int result)
{
    int error = SSL_get_error(r->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        r->remote_events |= error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        return CARRIED_NOTHING;
    }
    if (error == SSL_ERROR_SSL) { /* with TLS 1.3 the server judges our certificate only now. */
        (void)crypto_failure(r->why, sizeof(r->why), "TLS");
    }
    ERR_clear_error();
    r->remote_gone = true;
    return CARRIED_END;
}

static enum carried socket_result(ssize_t result)
{
    bool later = result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    return later ? CARRIED_NOTHING : CARRIED_END;
}

static enum carried fill_up(struct relay *r)
{
    if (waiting(&r->up) > 0) {
        return CARRIED_NOTHING;
    }
    ssize_t got = recv(r->local, r->up.bytes, DIRECTION_SIZE, 0);
    if (got <= 0) {
        return socket_result(got);
    }
    r->up.end = (size_t)got;
    return CARRIED_SOME;
}

static enum carried empty_up(struct relay *r)
{
    if (waiting(&r->up) == 0) {
        return CARRIED_NOTHING;
    }
    int sent = SSL_write(r->ssl, r->up.bytes + r->up.start, (int)waiting(&r->up));
    if (sent <= 0) {
        return session_result(r, sent);
    }
    drop(&r->up, (size_t)sent);
    return CARRIED_SOME;
}

static enum carried fill_down(struct relay *r)
{
    if (waiting(&r->down) > 0) {
        return CARRIED_NOTHING;
    }
    int got = SSL_read(r->ssl, r->down.bytes, DIRECTION_SIZE);
    if (got <= 0) {
        return session_result(r, got);
    }
    r->down.end = (size_t)got;
    return CARRIED_SOME;
}

static enum carried empty_down(struct relay *r)
{
    if (waiting(&r->down) == 0) {
        return CARRIED_NOTHING;
    }
    ssize_t sent = send(r->local, r->down.bytes + r->down.start, waiting(&r->down), MSG_NOSIGNAL);
    if (sent <= 0) {
        return socket_result(sent);
    }
    drop(&r->down, (size_t)sent);
    return CARRIED_SOME;
}

typedef enum carried (*move_fn)(struct relay *);

/* As far as it goes now, or a number of rounds: then there is more. */
static enum carried carry(struct relay *r)
{
    static const move_fn moves[] = {empty_down, fill_down, fill_up, empty_up};
    enum carried all = CARRIED_SOME;
    for (int round = 0; round < ROUNDS && all == CARRIED_SOME; round++) {
        all = CARRIED_NOTHING;
        r->remote_events = 0;
        for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
            enum carried one = moves[i](r);
            if (one == CARRIED_END) {
                return CARRIED_END;
            }
            all = one == CARRIED_SOME ? CARRIED_SOME : all;
        }
    }
    return all;
}

/* Until there is something to carry. True: the end is wanted. */
static bool wait_turn(const struct relay *r, bool more, bool *local_gone)
{
    short events = waiting(&r->up) == 0 ? POLLIN : 0;
    events |= waiting(&r->down) > 0 ? POLLOUT : 0;
    struct pollfd fds[] = {{.fd = *local_gone ? -1 : r->local, .events = events},
                           {.fd = r->remote, .events = r->remote_events},
                           {.fd = r->wake, .events = POLLIN}};
    (void)poll(fds, 3, more ? 0 : -1);
    /* It says so for ever, while what it sent may still wait for the server. */
    *local_gone = *local_gone || (fds[0].revents & (POLLHUP | POLLERR)) != 0;
    return fds[2].revents != 0;
}

/* What nats.c wrote before it closed goes out, too; whatever still comes down is for nobody. A
 * server that takes nothing more is waited for a second. */
static void drain(struct relay *r)
{
    uint64_t deadline_ns = clock_mono_ns() + (uint64_t)DRAIN_MS * 1000000;
    bool more = true;
    while (!r->remote_gone && (more || waiting(&r->up) > 0) && clock_mono_ns() < deadline_ns) {
        r->remote_events = 0;
        more = more && fill_up(r) != CARRIED_END;
        enum carried sent = empty_up(r);
        struct pollfd fds[] = {
            {.fd = r->remote, .events = r->remote_events},
            {.fd = more && waiting(&r->up) == 0 ? r->local : -1, .events = POLLIN}};
        if (sent == CARRIED_NOTHING && (more || waiting(&r->up) > 0)) {
            (void)poll(fds, 2, DRAIN_MS);
            r->remote_gone = (fds[0].revents & (POLLHUP | POLLERR)) != 0;
        }
    }
}

static void *run(void *ctx)
{
    struct relay *r = ctx;
    sigset_t pipe;
    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE); /* OpenSSL writes without asking for none. */
    (void)pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    (void)pthread_setname_np(pthread_self(), "nats-tls");
    if (!take_connection(r)) {
        return NULL;
    }
    enum carried carried = carry(r);
    bool local_gone = false;
    bool woken = false;
    while (carried != CARRIED_END && !woken) { /* ends: with either side, or by relay_close(). */
        woken = wait_turn(r, carried == CARRIED_SOME, &local_gone);
        carried = carry(r);
    }
    drain(r);
    (void)SSL_shutdown(r->ssl); /* says goodbye, and does not wait for an answer. */
    ERR_clear_error();
    (void)shutdown(r->local, SHUT_RDWR); /* nats.c learns it now. */
    (void)shutdown(r->remote, SHUT_RDWR);
    return NULL;
}

/* ---- opening and closing ---- */

static struct err open_in(struct relay *r, const struct relay_config *config, uint64_t timeout_ms,
                          char *why, size_t size)
{
    uint64_t deadline_ns = clock_mono_ns() + timeout_ms * 1000000;
    struct err e = dial(config->host, config->port, deadline_ns, &r->remote);
    if (!err_ok(e)) {
        (void)snprintf(why, size, "%s:%s cannot be reached", config->host, config->port);
        return e;
    }
    TRY(take_info(r, deadline_ns, why, size));
    TRY(shake_hands(r, config, deadline_ns, why, size));
    r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    TRY(r->wake < 0 ? FAIL(E_IO) : listen_here(r));
    r->started = pthread_create(&r->thread, NULL, run, r) == 0;
    return r->started ? OK : FAIL(E_IO);
}

struct err relay_open(const struct relay_config *config, uint64_t timeout_ms, struct relay **out,
                      char *why, size_t why_size)
{
    struct relay *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    r->listener = -1;
    r->local = -1;
    r->remote = -1;
    r->wake = -1;
    struct err e = open_in(r, config, timeout_ms, why, why_size);
    if (!err_ok(e)) {
        relay_close(r, /* why= */ NULL, 0);
        return e;
    }
    *out = r;
    return OK;
}

uint16_t relay_port(const struct relay *relay)
{
    return relay->port;
}

void relay_close(struct relay *relay, char *why, size_t why_size)
{
    if (relay == NULL) {
        return;
    }
    if (relay->started) {
        uint64_t one = 1;
        CHECK(write(relay->wake, &one, sizeof(one)) == (ssize_t)sizeof(one));
        CHECK(pthread_join(relay->thread, NULL) == 0);
    }
    if (why != NULL && relay->why[0] != '\0') {
        (void)snprintf(why, why_size, "%s", relay->why);
    }
    SSL_free(relay->ssl);
    SSL_CTX_free(relay->context);
    scope_close(&relay->listener);
    scope_close(&relay->local);
    scope_close(&relay->remote);
    scope_close(&relay->wake);
    free(relay);
}
