/*
 * handshakes: mutual TLS handshakes with an HTTP/2 server, one after the other.
 *
 *     handshakes PORT CA CERT KEY COUNT full|resumed
 *
 * Each is a connection of its own, on which both sides say their first frame; so the server has
 * verified the certificate, and its ticket has come. "resumed" makes one full handshake beside the
 * count, then takes the newest ticket each time. The result is one JSON object on standard output;
 * one handshake of another kind than was asked for is a failure.
 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/slice.h"

#include "tests/bench/load/wire.h"

/* RFC 9113, 3.4: the preface, and SETTINGS without any. */
static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

enum { ARGUMENTS = 7, COUNT_MAX = 1000000 };

static SSL_SESSION *ticket; /* owned; NULL: none came. */

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1; /* it is ours now. */
}

static int dial(uint16_t port)
{
    const struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* Shakes hands, says hello and waits for the server's. */
static bool greet(SSL *ssl, bool resume)
{
    uint8_t frame[9];
    size_t got = 0;
    size_t sent = 0;
    if (resume && ticket != NULL && SSL_set_session(ssl, ticket) != 1) {
        return false;
    }
    return SSL_connect(ssl) == 1 && SSL_write_ex(ssl, hello, sizeof(hello) - 1, &sent) == 1 &&
           SSL_read_ex(ssl, frame, sizeof(frame), &got) == 1;
}

/* One connection from its first to its last packet; false when it failed. */
static bool shake(SSL_CTX *tls, uint16_t port, bool resume, bool *out_resumed)
{
    int fd = dial(port);
    if (fd < 0) {
        return false;
    }
    SSL *ssl = SSL_new(tls);
    CHECK(ssl != NULL && SSL_set_fd(ssl, fd) == 1);
    ERR_clear_error();
    bool good = greet(ssl, resume);
    *out_resumed = good && SSL_session_reused(ssl) == 1;
    if (good) {
        (void)SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    (void)close(fd);
    return good;
}

static bool shake_all(SSL_CTX *tls, uint16_t port, uint64_t count, bool resume)
{
    bool resumed = false;
    if (!shake(tls, port, resume, &resumed)) {
        return false;
    }
    uint64_t start_ns = clock_mono_ns();
    for (uint64_t i = 0; i < count; i++) {
        if (!shake(tls, port, resume, &resumed) || resumed != resume) {
            return false;
        }
    }
    double seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    (void)printf("{\"handshakes\": %" PRIu64 ", \"seconds\": %.6f}\n", count, seconds);
    return true;
}

int main(int argc, char **argv)
{
    uint64_t port = 0;
    uint64_t count = 0;
    bool resume = argc == ARGUMENTS && strcmp(argv[6], "resumed") == 0;
    if (argc != ARGUMENTS || (!resume && strcmp(argv[6], "full") != 0) ||
        !slice_to_u64(slice_str(argv[1]), &port) || port > UINT16_MAX ||
        !slice_to_u64(slice_str(argv[5]), &count) || count == 0 || count > COUNT_MAX) {
        (void)fprintf(stderr, "usage: handshakes PORT CA CERT KEY COUNT full|resumed\n");
        return 2;
    }
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    const struct wire_files files = {.ca = argv[2], .cert = argv[3], .key = argv[4]};
    SSL_CTX *tls = wire_client(&files, "127.0.0.1", /* http1= */ false);
    if (tls == NULL) {
        return 2;
    }
    (void)SSL_CTX_set_session_cache_mode(tls,
                                         SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(tls, keep_ticket);
    bool good = shake_all(tls, (uint16_t)port, count, resume);
    if (!good) {
        (void)fputs("handshakes: one failed, or was not of the kind that was asked for\n", stderr);
        ERR_print_errors_fp(stderr);
    }
    SSL_SESSION_free(ticket);
    SSL_CTX_free(tls);
    return good ? 0 : 1;
}
