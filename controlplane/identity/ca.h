/*
 * ca: a certificate authority in two files, and the leaves that it signs.
 *
 * Shape      ca.pem and ca.key in a directory. ca.pem may hold several certificates: the first one
 *            is the key's, and all of them are what nodes trust, so that a new authority is known
 *            before it signs. Leaves are X.509-SVIDs for services and nodes, with DNS names and
 *            addresses beside the SPIFFE id. ECDSA P-256, SHA-256.
 * Units      seconds and days of validity; a leaf begins an hour before now, for clocks that
 *            differ.
 * Ownership  cp_ca_open() gives what cp_ca_close() ends; it holds the authority's private key.
 * Threads    one at a time.
 * Errors     E_USAGE for a name that is none, or a key's file that others may read, E_EXISTS for
 *            a file that is there already (nothing is written over), E_NOT_FOUND without a CA,
 *            E_CA_EXPIRED, E_CRYPTO, E_IO.
 * Source     SPIFFE X509-SVID specification; docs/formats.md, "Certificates of nodes".
 */
#pragma once

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/net/cert.h"
#include "common/snapshot/labels.h"

enum { CP_CA_DAYS = 3650, CP_LEAF_DAYS = 90, CP_LEAF_DAYS_MAX = 825 };

/* Makes a CA of a trust domain. The directory is made when missing. */
MUST_CHECK struct err cp_ca_init(const char *directory, const char *trust_domain,
                                 struct buf *message);

struct cp_leaf {
    const char *ca;      /* directory of the CA. */
    const char *out;     /* directory that the files are written to; made when missing. */
    const char *service; /* "tenant/name"; or NULL and */
    const char *node;    /* the id of a node. */
    const char *labels;  /* of a node: "name=value,…"; NULL: none. */
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

/* ---- an authority that is open ---- */

struct cp_ca;

/* 'key' is the file of the private key, or "fd:N", which is read and closed; NULL: ca.key in the
 * directory. A server has it open in a process of its own: certifier.h. */
MUST_CHECK struct err cp_ca_open(const char *directory, const char *key, struct cp_ca **out,
                                 struct buf *message);
/* Accepts NULL. */
void cp_ca_close(struct cp_ca *ca);

/* What nodes trust: ca.pem, as it was read. */
struct slice cp_ca_bundle(const struct cp_ca *ca);

/* A node's certificate, as it is ordered. */
struct cp_ca_order {
    struct evp_pkey_st *key; /* its public key is what counts. */
    const char *node;
    struct slice labels; /* of a cp_grant. */
    struct slice sans;
    uint64_t ttl_ms;           /* a second to CP_LEAF_DAYS_MAX. */
    uint64_t count;            /* of the request: net_serial_count(). */
    const uint8_t *status_key; /* NET_STATUS_KEY_SIZE bytes, which the certificate says. */
};

/* What was signed. */
struct cp_ca_leaf {
    struct buf chain; /* PEM: the leaf, then the authority's certificate. */
    char serial[NET_SERIAL_SIZE];
    int64_t not_after_ms;
};

/* Signs what an order may say and nothing else: a leaf of a node, for TLS, that ends no later than
 * the authority. E_USAGE, E_UNSUPPORTED for an order that says more. */
MUST_CHECK struct err cp_ca_sign(struct cp_ca *ca, const struct cp_ca_order *order,
                                 struct cp_ca_leaf *out);
void cp_ca_leaf_free(struct cp_ca_leaf *leaf);
