/*
 * vouch: what shows that a replica gave a certificate out, that one was told to remove it, and that
 *        one was told to let a node in.
 *
 * Shape      Rows of certificates and join tokens lie in the database, and who can write to it must
 *            neither have a certificate revoked by that nor let a node in. So each bears a keyed
 *            digest of what it says, one for each purpose; the key is that of the warrants, which
 *            comes of the token of the API.
 * Ownership  plain values.
 * Threads    pure functions; any thread.
 * Source     docs/decisions/0091-removal-is-published.md, 0092-a-row-is-its-certificate.md;
 *            controlplane/publish/warrant.h.
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

/* That a replica was told to let a node in: over all that the row of its token says. */
void cp_vouch_token(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                    const struct cp_join_token *token, uint8_t out[CP_WARRANT_SIZE]);

/* Whether a row bears it. */
bool cp_vouched_given(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_certificate *certificate);
bool cp_vouched_removed(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                        const struct cp_certificate *certificate);
bool cp_vouched_token(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_join_token *token);
