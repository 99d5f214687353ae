/*
 * relay: TLS to a NATS server, spoken by a thread of ours.
 *
 * Shape      nats.c talks in clear to a socket of loopback, whose other end is a thread of this
 *            process that carries the bytes to the server and back under TLS. It is there because
 *            libnats up to 3.10 reads and writes one TLS session from two threads without a lock;
 *            here one thread alone touches the session, whichever libnats is installed. A relay
 *            is one connection: it takes one, from this process, and ends with it.
 * Units      milliseconds.
 * Ownership  relay_open() gives a relay that relay_close() ends.
 * Threads    one owner; it waits in relay_open() and relay_close().
 * Errors     E_UNAVAILABLE, E_TIMEOUT: the server; E_CRYPTO: files, or the handshake;
 *            E_NOT_FOUND: a file; E_MALFORMED: it does not begin as a NATS server does. 'why'
 *            gets a sentence.
 * Source     docs.nats.io, "Client protocol": INFO comes in clear, the handshake behind it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

struct relay;

struct relay_config {
    const char *host;
    const char *port;
    const char *ca;   /* PEM; NULL: the system's. */
    const char *cert; /* PEM chain; NULL: none. */
    const char *key;
};

/* Connects and shakes hands; the certificate must be of 'host'. Starts the thread. */
MUST_CHECK struct err relay_open(const struct relay_config *config, uint64_t timeout_ms,
                                 struct relay **out, char *why, size_t why_size);

/* Where nats.c connects to, on 127.0.0.1. */
uint16_t relay_port(const struct relay *relay);

/* Ends the connection and the thread. 'why' (may be NULL) gets a sentence when the session ended by
 * the server's refusal, and else stays as it is. Accepts NULL. */
void relay_close(struct relay *relay, char *why, size_t why_size);
