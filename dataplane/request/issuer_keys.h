/*
 * issuer_keys: the keys that issuers' URLs gave, as workers look them up.
 *
 * Shape      a table with a row for each place that keys are read from. Whoever reads keys makes a
 *            new table when something changes, and leaves it in the mail of each worker; a worker
 *            takes it between two turns. Back goes one flag: that a key is missed.
 * Units      Unix time in milliseconds.
 * Ownership  counted references; a mail owns the one that waits in it.
 * Threads    a table: any; it does not change but for the flags. Putting: the thread that reads
 *            keys. Taking: the worker.
 * Errors     E_NO_MEMORY.
 * Source     docs/tokens.md; docs/decisions/0120-keys-are-read-by-nodes.md.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/refs.h"

struct jose_keys;

struct dp_issuer_keys_row {
    uint8_t source[DIGEST_SIZE]; /* as struct dp_issuer has it. */
    struct jose_keys *keys;      /* a reference; NULL: none were read yet. */
    int64_t read_ms;             /* when the issuer last said that these are its keys. */
    atomic_bool missed;          /* a token names a key that is not among them, or is of another. */
};

struct dp_issuer_keys {
    struct refs refs;
    size_t count;
    struct dp_issuer_keys_row rows[];
};

/* Rows are zeroed; the maker fills them before anybody else sees the table. */
MUST_CHECK struct err dp_issuer_keys_new(size_t count, struct dp_issuer_keys **out);
struct dp_issuer_keys *dp_issuer_keys_ref(struct dp_issuer_keys *table);
void dp_issuer_keys_unref(struct dp_issuer_keys *table); /* NULL is fine. */

/* The row of that source; NULL: there is none. 'table' may be NULL. */
struct dp_issuer_keys_row *dp_issuer_keys_find(struct dp_issuer_keys *table,
                                               const uint8_t source[DIGEST_SIZE]);

/* Where a table waits for one worker. All zeros: none does. */
struct dp_keys_mail {
    _Atomic(struct dp_issuer_keys *) waiting;
};

/* Takes a reference of its own. What nobody took goes. */
void dp_keys_mail_put(struct dp_keys_mail *mail, struct dp_issuer_keys *table);

/* What waits, a reference; NULL: nothing. */
struct dp_issuer_keys *dp_keys_mail_take(struct dp_keys_mail *mail);
