/*
 * join: a join token's text, and the bytes that a node signs to join and to renew.
 *
 * Shape      "tlj1.<environment>.<node>.<64 hex digits of the secret>.<pin>"; the pin is 64 hex
 *            digits, or "-" where the server has no certificate. Statements are fixed layouts with
 *            a domain of their own, signed by the node's status key.
 * Ownership  a struct join_token holds a secret: join_token_wipe() when done with it.
 * Threads    pure functions; any thread, after ids_init().
 * Errors     E_MALFORMED for text that is no token.
 * Source     docs/formats.md, "Joining".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/keys.h"

enum {
    JOIN_SECRET_SIZE = 32,
    JOIN_PIN_SIZE = 32,
    JOIN_TOKEN_MAX = 300, /* longest text, with room to spare. */
    JOIN_STATEMENT_MAX = 256,
};

struct join_token {
    char environment[KEY_NAME_MAX + 1];
    char node[KEY_NAME_MAX + 1];
    uint8_t secret[JOIN_SECRET_SIZE];
    bool has_pin;
    uint8_t pin[JOIN_PIN_SIZE]; /* of a certificate in the server's chain: net_cert_pin(). */
};

void join_token_wipe(struct join_token *token);
#define auto_join_token __attribute__((cleanup(join_token_wipe)))

MUST_CHECK struct err join_token_print(const struct join_token *token, struct buf *out);
MUST_CHECK struct err join_token_parse(struct slice text, struct join_token *out);

/* What is kept of a token: the digest of its secret. */
void join_token_digest(const struct join_token *token, uint8_t out[DIGEST_SIZE]);

/* What a node that joins proves with its status key: it is for this environment, this token, this
 * request for a certificate and this name. */
struct join_statement {
    const uint8_t *environment; /* ENVIRONMENT_SIZE bytes. */
    const uint8_t *token;       /* DIGEST_SIZE bytes. */
    struct slice node;          /* text_is_name(). */
    struct slice csr;           /* as it was sent. */
};
MUST_CHECK struct err join_statement(const struct join_statement *s, struct buf *out);

/* What a node that renews proves: moment and count keep it from being used again. */
struct renew_statement {
    const uint8_t *environment;
    struct slice node;
    struct slice csr;
    int64_t at_ms;
    uint64_t count; /* grows with each request of this node. */
};
MUST_CHECK struct err renew_statement(const struct renew_statement *s, struct buf *out);

/* What the key of its certificate proves besides, where that certificate does not say its status
 * key: that both are of one node. */
MUST_CHECK struct err present_statement(const struct renew_statement *s,
                                        const uint8_t status_key[KEY_PUBLIC_SIZE], struct buf *out);
