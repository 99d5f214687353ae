/*
 * vouch: what shows that a replica gave a certificate out, and that one was told to remove it.
 *
 * Shape      Rows of certificates lie in the database, and who can write to it must not have one
 *            revoked by that. So each bears a keyed digest of what it says, one for either; the key
 *            is that of the warrants, which comes of the token of the API.
 * Ownership  plain values.
 * Threads    pure functions; any thread.
 * Source     docs/decisions/0091-removal-is-published.md; controlplane/publish/warrant.h.
 */
#pragma once

#include <stdbool.h>

#include "controlplane/store/store.h"

enum { CP_VOUCH_KEY_SIZE = 32 };

/* That it was given out: over environment, node, serial and end. */
void cp_vouch_given(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                    const struct cp_certificate *certificate, uint8_t out[CP_WARRANT_SIZE]);
/* That its node was removed: over the same. */
void cp_vouch_removed(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_certificate *certificate, uint8_t out[CP_WARRANT_SIZE]);

/* Whether a row bears it. */
bool cp_vouched_given(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_certificate *certificate);
bool cp_vouched_removed(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                        const struct cp_certificate *certificate);
