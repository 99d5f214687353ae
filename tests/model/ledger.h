/*
 * ledger: what was handed out, signed and published in a schedule, as somebody sees it who sees
 * everything; and what must never happen.
 *
 * Errors     a violated invariant ends the schedule: sim_fail().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/snapshot/root.h"
#include "common/snapshot/set.h"
#include "controlplane/signer/signer.h"
#include "controlplane/store/store.h"
#include "dataplane/apply/model.h"

void ledger_begin(void);

/* What an intruder has got hold of: then a node may be pointed at what is signed and not published,
 * or may lose its way until the keys are taken away. */
void ledger_leak_head_key(void);

/* ---- the database ---- */

/* The row was asked for: each epoch has one holder. */
void ledger_lease(const struct cp_lease_wish *wish, const struct cp_lease *lease);

/* Who holds an epoch; false: nobody does. */
bool ledger_holder(uint64_t epoch, uint8_t out[CP_HOLDER_SIZE]);

/* A write was done: the row was the fence's, and had not run out. */
void ledger_fenced(struct cp_store *store, const struct cp_fence *fence, const char *what);

/* A number was handed out: it never was before. */
void ledger_handed(uint64_t version);

/* A row was committed: the version has this content and no other, and the request had none yet. */
void ledger_published(struct cp_store *store, const struct cp_record *record);

/* The database is backed up, and put back to that: what came behind may come again. */
void ledger_backed_up(void);
void ledger_restored(void);

/* The newest version of the journal; 0: none. */
uint64_t ledger_newest(void);

/* Whether a request was published, as which version. */
bool ledger_request(const char *request, uint64_t *out_version);

/* Whether the database knows the version, and its content is the one of that number, as far as that
 * is known: of what was adopted and never published it is not. */
bool ledger_holds(uint64_t version, uint64_t number);

/* How many publications there were. */
uint64_t ledger_count(void);

/* ---- signatures ---- */

/* A signature leaves a signer: by this key for no lower number, and for no other body of one. */
void ledger_signed(const struct cp_signer_request *request, const uint8_t key_id[KEY_ID_SIZE]);

/* A leader puts a head in the place of another one: it points at no lower version, unless the other
 * one may be somebody else's. */
void ledger_pointed(struct slice before, struct slice head);

/* ---- nodes ---- */

/* What a node is handed to serve: all of one publication, and nothing else. */
void ledger_served(const char *node, const struct dp_model *model);
