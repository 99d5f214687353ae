/*
 * wire: a socket of the benches' tools, in clear or under mutual TLS with HTTP/2.
 *
 * Shape      reading and writing are as of recv() and send() on a non-blocking socket.
 * Units      bytes.
 * Ownership  a wire has its descriptor and its TLS; whoever made a wire_tls frees it last.
 * Threads    one.
 * Errors     of files: NULL, with a message on standard error.
 */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* PEM files. A server asks for a certificate of 'ca' where there is one; a client shows one where
 * there is one. */
struct wire_files {
    const char *cert; /* NULL: none; a server needs one. */
    const char *key;
    const char *ca; /* of the other side; NULL for a server: whoever comes. */
};

struct wire {
    int fd;
    SSL *ssl; /* NULL: in clear. */
};

/* Contexts. A client's is for one host, an IP address, which the certificate must name. */
SSL_CTX *wire_client(const struct wire_files *files, const char *host, bool http1);
SSL_CTX *wire_server(const struct wire_files *files);

/* Takes a connected socket, which still waits, and shakes hands; false with the reason printed. */
bool wire_connect(struct wire *w, int fd, SSL_CTX *tls);

/* Takes an accepted socket that does not wait; hands are shaken as bytes come. */
void wire_accept(struct wire *w, int fd, SSL_CTX *tls);

/* Hands are shaken: what is written goes out. */
bool wire_ready(const struct wire *w);

/* As recv() and send(): 0 or less, and errno is EAGAIN when it is not yet. */
ssize_t wire_recv(struct wire *w, void *to, size_t size);
ssize_t wire_send(struct wire *w, const void *from, size_t size);

/* Bytes came that the socket does not show any more: read again. */
bool wire_pending(const struct wire *w);

void wire_close(struct wire *w);
