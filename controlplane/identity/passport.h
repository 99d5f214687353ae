/*
 * passport: what a node's certificate says of it, once our CA is seen to have signed it.
 *
 * Shape      The row of a node keeps its present certificate, and who can write to the database can
 *            put there what they like. So what is believed of a node (its labels and names, the key
 *            by which it speaks and renews, the count of its last request) is read from the
 *            certificate, after its signature and its id were judged. When it ends is read, not
 *            judged: who was off for a month is still that node.
 * Ownership  cp_passports_new() gives what cp_passports_free() ends.
 * Threads    any; the authorities lie under a lock.
 * Errors     E_CERTIFICATE_MISSING: what is there is no certificate of ours for that node.
 * Source     docs/decisions/0092-a-row-is-its-certificate.md; docs/formats.md, "Certificates of
 *            nodes".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/cert.h"
#include "controlplane/identity/grant.h"

/* The authorities that nodes' certificates are judged by. */
struct cp_passports;

/* 'bundle': ca.pem. Errors of net_chain_read(). */
MUST_CHECK struct err cp_passports_new(struct slice bundle, struct cp_passports **out);
/* Accepts NULL. */
void cp_passports_free(struct cp_passports *passports);

/* From now on by these: the file may have changed by the time that the certifier read it again. The
 * same again costs nothing. */
MUST_CHECK struct err cp_passports_set(struct cp_passports *passports, struct slice bundle);
/* Grows whenever they change: what was judged before may be judged otherwise. */
uint64_t cp_passports_generation(struct cp_passports *passports);

struct cp_passport {
    char grant[CP_GRANT_MAX + 1]; /* of cp_grant_make(). */
    bool has_status_key;          /* false: made by a release before, or by hand. */
    uint8_t status_key[NET_STATUS_KEY_SIZE];
    char serial[NET_SERIAL_SIZE];
    int64_t not_after_ms;
};

/* Reads the certificate of a node, in DER; 'passports' NULL: there is no CA here, and none of it.
 * E_NO_MEMORY; all else is E_CERTIFICATE_MISSING, with *out as it was. */
MUST_CHECK struct err cp_passport_open(struct cp_passports *passports, const char *node,
                                       struct slice der, struct cp_passport *out);
