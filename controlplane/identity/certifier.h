/*
 * certifier: the process that holds the private key of the authority, and certifies nodes.
 *
 * Shape      a second signer (signer.h): a child of trilane-cp, started from the same binary with
 *            the hidden subcommand "certifier". It is apart from the signer of manifests and heads
 *            because OpenSSL is in it, and that key is of no use to it. It reads ca.pem and the
 *            key, rehearses each kind of certificate, and goes into a sandbox: signer/sandbox.h.
 *            An order is typed fields of fixed size; it parses no request of a node and signs no
 *            bytes that it did not make: id below /node/, CA:FALSE, usages and the longest life are
 *            its own.
 * Ownership  cp_certifier_start() gives what cp_certifier_stop() ends; the texts of its options are
 *            borrowed until then.
 * Threads    one at a time. The process dies with the thread that started it, which is whoever
 *            signs when it was gone: a thread that stays.
 * Errors     those of ca.h; E_SIGNER_GONE when the process ended, did not answer in time and could
 *            not be started again.
 * Source     docs/control-plane.md, "The certifier"; docs/decisions/0071-the-certifier.md.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "controlplane/identity/ca.h"

struct cp_certifier;

struct cp_certifier_options {
    const char *program; /* our own binary; NULL: /proc/self/exe. */
    const char *ca;      /* directory. */
    const char *key;     /* file, or "fd:5", which is read once and kept for the certifier alone;
                            NULL: ca.key in the directory. */
};

/* Starts the process and waits until it is ready. 'message' gets one sentence on failure. */
MUST_CHECK struct err cp_certifier_start(const struct cp_certifier_options *options,
                                         struct cp_certifier **out, struct buf *message);

/* Ends the process. Accepts NULL. */
void cp_certifier_stop(struct cp_certifier *certifier);

/* What nodes trust: ca.pem, as the process read it. Good until the next call. */
struct slice cp_certifier_bundle(const struct cp_certifier *certifier);

/* Has an order signed; starts the process again when it was gone. */
MUST_CHECK struct err cp_certifier_sign(struct cp_certifier *certifier,
                                        const struct cp_ca_order *order, struct cp_ca_leaf *out);

/* Main of the hidden subcommand: directory, key ("": ca.key there). The socket is descriptor 3. */
int cp_certifier_main(int argc, char **argv);
