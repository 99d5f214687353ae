/*
 * options: the node's settings, read and judged once, before anything starts.
 *
 * Ownership  text is borrowed from the settings; files are owned. Not to be copied or moved.
 * Threads    main().
 * Errors     E_USAGE and others, with one sentence that names the setting.
 * Source     NAMES, "Configuration".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/settings.h"
#include "common/base/slice.h"
#include "common/net/tls.h"
#include "common/snapshot/head.h"
#include "common/snapshot/keys.h"
#include "common/snapshot/labels.h"
#include "dataplane/join/self.h"
#include "dataplane/runtime/port.h"

/* Certificate, its key and the CAs. */
enum { DP_IDENTITY_PATHS = 3 };

struct dp_options {
    struct slice environment;
    char node[KEY_NAME_MAX + 1];
    char label_text[LABELS_TEXT_MAX + 1];
    struct labels labels; /* borrow from label_text. */
    bool joined;          /* what data-dir/identity says, in 'self' and 'cert', is in force. */
    struct dp_self self;
    struct dp_self_cert cert;
    struct buf identity_paths[DP_IDENTITY_PATHS]; /* owned texts of the settings below. */
    size_t workers;
    bool pin_workers;
    const char *ports[DP_PORT_COUNT]; /* addresses; NULL: not open. */
    const char *admin;                /* NULL: not open. */
    struct buf admin_token;           /* empty: none is asked for. */
    const char *data_dir;
    struct buf state_dir; /* data-dir and "/state". */
    struct buf trust_root;
    const char *dns_servers; /* NULL: the system's. */
    const char *nats_urls;   /* NULL: no bus. */
    uint32_t nats_replicas;
    const char *nats_bucket_api;
    const char *nats_creds;
    const char *nats_user_file; /* "user:password", for us alone to read; NULL: none. */
    const char *nats_ca;
    const char *nats_cert; /* with nats_key. */
    const char *nats_key;
    bool has_key;
    struct key_pair key; /* signs the status. */
    const char *tls_cert;
    const char *tls_key;
    const char *tls_ca;
    const char *access_log; /* NULL: none. */
};

MUST_CHECK struct err dp_options_read(const struct settings *settings, struct dp_options *out,
                                      struct buf *message);
void dp_options_free(struct dp_options *o);

/* The CAs that peers of our own are verified against, for all workers: of the file, and of the
 * bundles of the snapshot; NULL when there are none. */
struct net_tls_trust;
struct net_tls_bundle;
MUST_CHECK struct err dp_options_trust(const struct dp_options *o,
                                       const struct net_tls_bundle *bundles, size_t bundle_count,
                                       struct net_tls_trust **out);

/* When the certificate that is presented ends, by its file as it is now. E_NOT_FOUND: there is
 * none. */
MUST_CHECK struct err dp_options_cert_ends(const struct dp_options *o, int64_t *out_s);

/* Makes the TLS contexts of one worker from the files as they are now, or of what 'own' read of
 * them, unless it is NULL. 'trust' may be NULL. */
struct dp_worker_tls;
struct net_tls;
MUST_CHECK struct err dp_options_tls(const struct dp_options *o, struct net_tls_trust *trust,
                                     struct net_tls *own, struct dp_worker_tls *out);
