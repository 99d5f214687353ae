/*
 * grant: what a join token lets its node have: labels, names and addresses.
 *
 * Shape      text as the store keeps it beside a token and a node, both parts in one list:
 *            "rack=b,zone=eu-1,dns:edge.example.org,ip:192.0.2.7". Labels come first, names
 *            ascending; then DNS names and addresses in the order in which they were given.
 * Ownership  the parts of a grant that was split borrow from its text.
 * Threads    pure functions; any thread.
 * Errors     E_USAGE, with a sentence in 'message'.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/store/store.h"

enum { CP_GRANT_MAX = CP_LABELS_MAX };

struct cp_grant {
    struct slice labels; /* "name=value,…"; empty: none. */
    struct slice sans;   /* "dns:NAME,ip:ADDRESS,…"; empty: none. */
};

/* Judges what an operator grants, and appends its text. */
MUST_CHECK struct err cp_grant_make(const struct cp_grant *grant, struct buf *out,
                                    struct buf *message);

/* Takes a text of cp_grant_make() apart. */
struct cp_grant cp_grant_split(struct slice text);

/* Appends "DNS:NAME,IP:ADDRESS,…", as OpenSSL's configuration writes them; each behind a comma. */
MUST_CHECK struct err cp_grant_add_sans(struct slice sans, struct buf *out, struct buf *message);
