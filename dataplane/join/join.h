/*
 * join: becoming a node: keys, a certificate, roots and a seed, by a token and once.
 *
 * Shape      a table of steps, DP_JOIN_STEPS, run from top to bottom; each may be the last one of
 *            the process. Whoever joins again with the same token goes on where it ended: the keys
 *            stay, and the server answers the same keys again.
 * Threads    a command: one thread.
 * Errors     E_JOINED_ALREADY, E_USAGE for a token that is none or another node's; those of
 *            server.h and self.h. 'message' gets one sentence.
 * Source     docs/control-plane.md, "Joining"; docs/node.md, "Joining".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "dataplane/join/self.h"

/* name, what it does. A fault point has its step's name behind "join.". */
#define DP_JOIN_STEPS(X)                                                                           \
    X(look, "is this directory free, or was it joined by this very token?")                        \
    X(keys, "make what is missing of both keys: they are on disk before anybody hears of them")    \
    X(ask, "send token, request and proof; take the answer")                                       \
    X(judge, "is the certificate ours, do the roots follow each other?")                           \
    X(roots, "write the roots")                                                                    \
    X(certificate, "write the CAs, then the certificate")                                          \
    X(commit, "write `joined`: from now on this is a node")

struct dp_join_options {
    const char *server;
    const char *data_dir;
    const char *node;    /* must be the token's, when given; NULL: it is the token's. */
    const char *ca_file; /* trusts the server by this, not by the token's pin; NULL: no. */
    struct slice token;  /* text; a newline may follow it. */
};

struct dp_join_result {
    struct dp_self self;
    struct dp_self_cert cert;
    bool was_joined; /* by this token, before. */
};

MUST_CHECK struct err dp_join(const struct dp_join_options *options, struct dp_join_result *out,
                              struct buf *message);

/* data-dir/roots/root.<the highest>; E_NOT_FOUND when there is none. */
MUST_CHECK struct err dp_join_root(const char *data_dir, struct buf *out);
