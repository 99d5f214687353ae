/*
 * self: who this node is: what lies in data-dir/identity since it joined.
 *
 * Shape      files, each replaced whole: `joined` is the commit and names environment, node, server
 *            and seed; `cert.pem`, `key.pem`, `ca.pem`, `status.key`; `server.pem` where the server
 *            is trusted by a file. `key.next` and `cert.next` are a key and its certificate on
 *            their way in: a certificate takes effect when it lies there whole.
 * Ownership  plain values; struct dp_identity_dir owns its descriptor until closed.
 * Threads    one owner at a time; the directory is locked while it is open.
 * Errors     E_NOT_FOUND: this node did not join. E_CONFLICT: another process joins or renews here.
 *            E_MALFORMED, E_CRYPTO with a sentence in 'message'; E_PERSIST_FAILED.
 * Source     docs/formats.md, "Joining"; docs/node.md, "Joining".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/net/cert.h"
#include "common/snapshot/disk.h"
#include "common/snapshot/join.h"
#include "common/snapshot/labels.h"

enum { DP_SERVER_MAX = 1023, DP_IDENTITY_FILE_MAX = NET_CHAIN_BYTES_MAX };

/* Names of the files. */
#define DP_FILE_JOINED "joined"
#define DP_FILE_CERT "cert.pem"
#define DP_FILE_CERT_NEXT "cert.next"
#define DP_FILE_KEY "key.pem"
#define DP_FILE_KEY_NEXT "key.next"
#define DP_FILE_CA "ca.pem"
#define DP_FILE_SERVER_CA "server.pem"
#define DP_FILE_STATUS_KEY "status.key"

/* What `joined` says. */
struct dp_self {
    char environment[KEY_NAME_MAX + 1];
    char node[KEY_NAME_MAX + 1];
    char server[DP_SERVER_MAX + 1]; /* "https://…,https://…". */
    bool has_pin;
    uint8_t pin[JOIN_PIN_SIZE];
    uint8_t token[DIGEST_SIZE]; /* digest of the one that it joined with. */
    struct disk_seed seed;
};

/* What the certificate says. */
struct dp_self_cert {
    char labels[LABELS_TEXT_MAX + 1]; /* "name=value,…"; judged by labels_parse(). */
    char serial[NET_SERIAL_SIZE];
    struct net_cert_times times;
    bool says_key; /* its status key, too: false, a control plane of a release before made it. */
};

/* ---- the directory ---- */

struct dp_identity_dir {
    char path[1024]; /* data-dir/identity. */
    int fd;          /* -1: not open. */
};

/* Opens and locks data-dir/identity; 'make': makes both directories if they are missing. */
MUST_CHECK struct err dp_identity_open(const char *data_dir, bool make, struct dp_identity_dir *out,
                                       struct buf *message);
/* Safe on one that is not open. */
void dp_identity_close(struct dp_identity_dir *dir);
#define auto_identity_dir __attribute__((cleanup(dp_identity_close)))

/* Replaces a file whole, synced. Replaces one by another, synced. */
MUST_CHECK struct err dp_identity_put(const struct dp_identity_dir *dir, const char *name,
                                      struct slice bytes);
MUST_CHECK struct err dp_identity_rename(const struct dp_identity_dir *dir, const char *from,
                                         const char *to);
/* Appends a file's bytes. E_NOT_FOUND. */
MUST_CHECK struct err dp_identity_get(const struct dp_identity_dir *dir, const char *name,
                                      struct buf *out);
/* A path for those who open it by name. */
MUST_CHECK struct err dp_identity_path(const struct dp_identity_dir *dir, const char *name,
                                       struct buf *out);

/* ---- what is in it ---- */

MUST_CHECK struct err dp_self_write(const struct dp_identity_dir *dir, const struct dp_self *self);
MUST_CHECK struct err dp_self_read(const struct dp_identity_dir *dir, struct dp_self *out,
                                   struct buf *message);

/* Finishes, or drops, a certificate that was on its way in when the process ended. */
MUST_CHECK struct err dp_self_settle(const struct dp_identity_dir *dir);

/* Puts `key.next` and a chain for it into effect. */
MUST_CHECK struct err dp_self_take_cert(const struct dp_identity_dir *dir, struct slice chain);

/*
 * Judges a chain that is to be this node's: it must be for the key, lead to 'ca', and be the
 * SPIFFE id of the node. 'message' gets one sentence.
 */
MUST_CHECK struct err dp_self_judge(const struct dp_self *self, struct slice chain, struct slice ca,
                                    const struct evp_pkey_st *key, struct dp_self_cert *out,
                                    struct buf *message);

/* Reads the certificate in force; it must be the key's and the node's. */
MUST_CHECK struct err dp_self_cert(const struct dp_identity_dir *dir, const struct dp_self *self,
                                   struct dp_self_cert *out, struct buf *message);
