/*
 * warrant: what shows that a row was written by a replica that has the token of the API.
 *
 * Shape      Replicas speak to each other through rows, and who can write to the database is not
 *            therefore one of them. What a row asks another replica to do bears a keyed digest of
 *            what it says; the key comes of the token that every write of the API must bear, which
 *            all replicas have and the database has not.
 * Ownership  plain values; a key is wiped by its owner.
 * Threads    pure functions; any thread.
 * Errors     E_NO_MEMORY from making the key.
 * Source     docs/decisions/0090-the-database-signs-nothing.md; docs/threats.md, "The database".
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/store/store.h"

enum { CP_WARRANT_KEY_SIZE = 32 };

struct cp_warrant_key {
    uint8_t bytes[CP_WARRANT_KEY_SIZE];
};

/* Costs some milliseconds and megabytes on purpose: who reads warrants in the database shall not
 * find a token that people chose by trying. */
MUST_CHECK struct err cp_warrant_key_make(struct slice token, const char *environment,
                                          struct cp_warrant_key *out);

/* The warrant of a proposal, for its row: over all that it says, its sources and its body. */
void cp_warrant_proposal(const struct cp_warrant_key *key, const char *environment,
                         const struct cp_proposal *proposal, struct slice body,
                         uint8_t out[CP_WARRANT_SIZE]);

/* The warrant of the address of a leader's API, to which followers send the token. */
void cp_warrant_address(const struct cp_warrant_key *key, const char *environment,
                        const char *address, uint8_t out[CP_WARRANT_SIZE]);

/* Whether a lease bears it. */
bool cp_warrant_names(const struct cp_warrant_key *key, const char *environment,
                      const struct cp_lease *lease);

/* Whether the warrant of a proposal's row is that. */
bool cp_warrant_holds(const struct cp_warrant_key *key, const char *environment,
                      const struct cp_proposal *proposal, struct slice body);
