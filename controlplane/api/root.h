/*
 * root: the root in force and this replica's keys, shown; and the next root, published.
 *
 * Shape      GET /api/v1/roots; POST /api/v1/roots {"root", "author"}: the container in base64. Any
 *            replica takes it: it is judged, kept in the database, taken over here at once and by
 *            the others within their next beats.
 * Threads    the reader's: no publication holds it up.
 * Errors     ROOT_UNSIGNED, ROOT_MALFORMED, ROOT_EXPIRED, ROOT_MISSING (not the next one), CONFLICT
 *            (another one of this number was published), E_USAGE (a floor that heals nothing).
 * Source     docs/operations.md, "Keys".
 */
#pragma once

#include <jansson.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/publish/publish.h"

MUST_CHECK struct err cp_api_roots(struct cp_publish_room *room, json_t **out);
MUST_CHECK struct err cp_api_root_publish(struct cp_publish_room *room, struct slice body,
                                          json_t **out);

/* A root as JSON: thresholds, keys, floor. */
json_t *cp_json_root(const struct root *root);
