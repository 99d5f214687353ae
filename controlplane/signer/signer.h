/*
 * signer: the process that holds the private keys of manifests and heads.
 *
 * Shape      a child of trilane-cp, started from the same binary with the hidden subcommand
 *            "signer". It reads two key files and its own state, then answers requests on one
 *            socket until the parent goes. It opens no network and parses nothing from outside:
 *            a request is a fixed header of numbers and a body of at most 512 KiB, which it hashes
 *            and signs, and whose first bytes must be those very numbers. It is in a sandbox from
 *            the moment that it has its keys: sandbox.h.
 * Ownership  cp_signer_start() gives a signer that cp_signer_stop() ends; the texts of its options
 *            are borrowed until then.
 * Threads    any; requests go one after the other. The process dies with the thread that started
 *            it: cp_signer_restart() and cp_signer_reload() are for a thread that stays.
 * Errors     E_SIGNER_REFUSED for a number that is lower than one signed before, or the same with
 *            another body; E_SIGNER_GONE when the process ended or did not answer in time, until
 *            it was started again; E_USAGE, E_CRYPTO at the start.
 * Source     docs/formats.md, "Publishing": the highest epoch and version that were signed are on
 *            disk, with digests, before a signature leaves. docs/operations.md says what to do
 *            about a refusal.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/container.h"

struct cp_signer;
struct cp_signer_hello;

/* Judges the keys of a signer that was just started; a failure ends it. 'message' gets a sentence.
 */
typedef struct err cp_signer_accept_fn(void *ctx, const struct cp_signer_hello *hello,
                                       struct buf *message);

struct cp_signer_options {
    const char *program;      /* our own binary; NULL: /proc/self/exe. */
    const char *environment;  /* its name. */
    const char *key_manifest; /* files of mode 0600; or "fd:5", a descriptor that is read once, */
    const char *key_head;     /* kept for the signer alone (keep.h), and closed. */
    const char *state;        /* file that keeps the highest numbers signed; made when missing. */
    cp_signer_accept_fn *accept; /* NULL: any keys will do. Under the signer's lock. */
    void *accept_ctx;
};

/* What the signer said of itself when it was ready. */
struct cp_signer_hello {
    uint8_t manifest_public[KEY_PUBLIC_SIZE];
    uint8_t head_public[KEY_PUBLIC_SIZE];
    uint64_t epoch;   /* highest of a head that it signed; 0: none. */
    uint64_t version; /* highest of a manifest that it signed; 0: none. */
};

/* What is to be signed. The numbers are judged; they must be those that the body begins with. */
struct cp_signer_request {
    enum container_kind kind; /* CONTAINER_MANIFEST, CONTAINER_HEAD or CONTAINER_SHARES. */
    uint64_t version;         /* of a manifest. */
    uint64_t root_version;    /* of a head. */
    uint64_t epoch;           /* of a head and of shares, and the next. */
    uint64_t sequence;
    struct slice body;
};

/* Starts the process and waits until it is ready. 'message' gets one sentence on failure. */
MUST_CHECK struct err cp_signer_start(const struct cp_signer_options *options,
                                      struct cp_signer **out, struct buf *message);

/* Ends the process. Accepts NULL. */
void cp_signer_stop(struct cp_signer *signer);

struct cp_signer_hello cp_signer_hello(struct cp_signer *signer);

/* Whether it must be started again before it can sign. */
bool cp_signer_is_gone(struct cp_signer *signer);

/* Ends what is left of it and starts it again; other keys than before are judged first. It then
 * knows no sequence of an epoch that it signed before: the next head needs a higher epoch. */
MUST_CHECK struct err cp_signer_restart(struct cp_signer *signer, struct buf *message);

/*
 * Reads the key files anew: other keys than before, once they were judged, take over in a signer
 * that was started anew. On a failure, and with the same keys, the one that runs goes on. Requests
 * wait meanwhile. '*out_changed' says whether other keys sign now.
 */
MUST_CHECK struct err cp_signer_reload(struct cp_signer *signer, bool *out_changed,
                                       struct buf *message);

MUST_CHECK struct err cp_signer_sign(struct cp_signer *signer,
                                     const struct cp_signer_request *request,
                                     struct container_signature *out);

/* Main of the hidden subcommand: options as flags in this order, the socket is descriptor 3. */
int cp_signer_main(int argc, char **argv);
