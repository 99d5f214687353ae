/*
 * ca: a certificate authority for development, in two files.
 *
 * Shape      ca.pem and ca.key in a directory; leaves are X.509-SVIDs for services and nodes, with
 *            DNS names and addresses beside the SPIFFE id. ECDSA P-256, SHA-256.
 * Units      days of validity; a leaf begins an hour before now, for clocks that differ.
 * Threads    commands only: one thread.
 * Errors     E_USAGE for a name that is none, E_EXISTS for a file that is there already (nothing is
 *            written over), E_NOT_FOUND without a CA, E_CRYPTO, E_IO.
 * Source     SPIFFE X509-SVID specification; docs/operations.md, "Identities".
 */
#pragma once

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

enum { CP_CA_DAYS = 3650, CP_LEAF_DAYS = 90, CP_LEAF_DAYS_MAX = 825 };

/* Makes a CA of a trust domain. The directory is made when missing. */
MUST_CHECK struct err cp_ca_init(const char *directory, const char *trust_domain,
                                 struct buf *message);

struct cp_leaf {
    const char *ca;      /* directory of the CA. */
    const char *out;     /* directory that the files are written to; made when missing. */
    const char *service; /* "tenant/name"; or NULL and */
    const char *node;    /* the id of a node. */
    const char *san;     /* "dns:NAME,ip:ADDRESS,…"; NULL: none. */
    uint32_t days;       /* 1 to CP_LEAF_DAYS_MAX. */
};

/*
 * Issues a leaf: <tenant>-<name>.pem and .key, or node-<id>.pem and .key; the chain file holds the
 * leaf and the CA's certificate. 'out_id' gets the SPIFFE id, 'out_base' the path without its
 * ending.
 */
MUST_CHECK struct err cp_ca_issue(const struct cp_leaf *leaf, struct buf *out_id,
                                  struct buf *out_base, struct buf *message);
