/*
 * json: what the API says, as jansson values, and what it is sent.
 *
 * Ownership  each function gives a new value that the caller takes, or NULL without memory.
 * Threads    any: they look at copies.
 */
#pragma once

#include <jansson.h>

#include "common/base/buf.h"
#include "controlplane/fleet/fleet.h"
#include "controlplane/publish/collect.h"
#include "controlplane/publish/leader.h"
#include "controlplane/publish/work.h"

enum { CP_SIGN_WAIT_MAX_MS = 3600000 }; /* for which a caller may have a publication wait. */

json_t *cp_json_record(const struct cp_record *record);
json_t *cp_json_node(const struct cp_fleet_node *node);
json_t *cp_json_leader(const struct cp_leader_status *status);
json_t *cp_json_bucket(const struct cp_collector_status *status);
/* What came of a work that went well. */
json_t *cp_json_work(const struct cp_work *work);
/* {"code", "message", "fix"} and, of a work, its diagnostics. 'work' may be NULL. */
json_t *cp_json_error(struct err e, const struct cp_work *work);

/* Reads the body of validate, plan, publish or rollback into a work that was initialised; in case
 * of a refusal work->sentence names the member. */
MUST_CHECK struct err cp_json_read_work(struct slice body, struct cp_work *work);

/* Whether a value is a text of at most 'max' bytes without control characters: it is shown on
 * terminals. */
bool cp_json_is_line(const json_t *value, size_t max);

/* Bytes as base64 with padding (RFC 4648, 4); NULL: no memory. The caller's. */
json_t *cp_json_base64(struct slice bytes);

/* Appends the text of 'value' and drops it. E_NO_MEMORY for NULL. */
MUST_CHECK struct err cp_json_write(json_t *value, struct buf *out);
