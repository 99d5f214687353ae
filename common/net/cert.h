/*
 * cert: certificates as files and as what they say of a node: times, serial, labels, names, keys.
 *
 * Shape      a chain is the certificates of a PEM file in their order, parsed; functions over one
 *            certificate of it.
 * Units      seconds since the epoch.
 * Ownership  net_chain_read() gives what net_chain_free() ends.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED for bytes that are no certificates, E_TOO_LARGE for more than
 *            NET_CHAIN_MAX of them.
 * Source     docs/formats.md, "Certificates of nodes"; RFC 5280, RFC 7469 2.4 (the pin).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct x509_st;
struct evp_pkey_st;

enum {
    NET_CHAIN_MAX = 8,
    NET_CHAIN_BYTES_MAX = 64 << 10,
    NET_SERIAL_SIZE = 41,      /* hex digits of 20 bytes, the most there are, and a NUL. */
    NET_PIN_SIZE = 32,         /* SHA-256 of a public key. */
    NET_CERT_EARLIER_S = 3600, /* our CA's leaves begin so long before they are made. */
    NET_CERT_DER_MAX = 4096,
    NET_STATUS_KEY_SIZE = 32, /* Ed25519, public. */
};

struct net_chain {
    struct x509_st *certs[NET_CHAIN_MAX]; /* the leaf is first. */
    size_t count;                         /* at least one once it was read. */
};

/* Nobody is asked for a passphrase: without this callback OpenSSL would, on the terminal. */
int net_no_passphrase(char *out, int size, int writes, void *ctx);

/* Reads all certificates of a PEM text, of which there must be one. */
MUST_CHECK struct err net_chain_read(struct slice pem, struct net_chain *out);
/* Safe on an empty one. */
void net_chain_free(struct net_chain *chain);
#define auto_chain __attribute__((cleanup(net_chain_free)))

/* Whether the chain's first certificate leads to one of the anchors, in time and by signatures;
 * an anchor need not be a root. E_UNAUTHENTICATED when not. */
MUST_CHECK struct err net_chain_verify(const struct net_chain *chain,
                                       const struct net_chain *anchors);

/* Reads one certificate in DER, all of the bytes and at most NET_CERT_DER_MAX; the caller frees it
 * as a chain of one. E_MALFORMED, E_TOO_LARGE. */
MUST_CHECK struct err net_cert_read(struct slice der, struct net_chain *out);
/* Appends a certificate in DER. */
MUST_CHECK struct err net_cert_write(const struct x509_st *cert, struct buf *out);

/* Whether one of the anchors signed the certificate, or who it signed did, whenever that was: an
 * authority's word on what it certified holds when the certificate is over. E_UNAUTHENTICATED. */
MUST_CHECK struct err net_cert_is_signed(struct x509_st *cert, const struct net_chain *anchors);

/* Whether a certificate is that key's. */
bool net_cert_is_for(const struct x509_st *cert, const struct evp_pkey_st *key);

/* Its serial as lower-case hex digits; "" when it is longer than a certificate's may be. */
void net_cert_serial(const struct x509_st *cert, char out[NET_SERIAL_SIZE]);

/*
 * The count that a serial of our CA carries: 48 bits behind its first byte, NET_SERIAL_FIRST, and
 * before 72 random ones. It is that of the request which led to the certificate, so the record of a
 * node's present certificate tells an older request from a newer one. Zero for other serials.
 */
enum { NET_SERIAL_FIRST = 0x40, NET_SERIAL_BYTES = 16, NET_SERIAL_COUNT_BITS = 48 };
uint64_t net_serial_count(const char *serial);

/* When our CA made it, and when it ends. E_MALFORMED. */
struct net_cert_times {
    int64_t made_s; /* NET_CERT_EARLIER_S after its beginning. */
    int64_t ends_s;
};
MUST_CHECK struct err net_cert_times(const struct x509_st *cert, struct net_cert_times *out);

/*
 * Appends the labels of a node: the attributes "OU" of the subject that have a "=", as text
 * "name=value,…" in their order. Whoever wants labels judges that text by labels_parse().
 */
MUST_CHECK struct err net_cert_labels(const struct x509_st *cert, struct buf *out);

/*
 * Appends the DNS names and addresses of a node, "dns:NAME,ip:ADDRESS,…" in their order.
 * E_MALFORMED for one that would read as another text.
 */
MUST_CHECK struct err net_cert_sans(const struct x509_st *cert, struct buf *out);

/*
 * The key by which a node speaks its statuses and renews, as our CA wrote it down: the attribute
 * "serialNumber" of the subject, a PrintableString of 64 lower-case hex digits. It is no extension
 * of ours: we have no number to give it, and parsers of others refuse one of 128 bits (X.667).
 * *found is false without one; E_MALFORMED when it is there twice, or not so.
 */
MUST_CHECK struct err net_cert_status_key(const struct x509_st *cert,
                                          uint8_t out[NET_STATUS_KEY_SIZE], bool *found);
/* Adds it to a certificate that is being made. E_CRYPTO. */
MUST_CHECK struct err net_cert_add_status_key(struct x509_st *cert,
                                              const uint8_t key[NET_STATUS_KEY_SIZE]);

/* Adds a label to the subject of a certificate that is being made. E_CRYPTO. */
MUST_CHECK struct err net_cert_add_label(struct x509_st *cert, struct slice label);

/* SHA-256 of the certificate's public key (SubjectPublicKeyInfo). E_CRYPTO. */
MUST_CHECK struct err net_cert_pin(const struct x509_st *cert, uint8_t out[NET_PIN_SIZE]);
