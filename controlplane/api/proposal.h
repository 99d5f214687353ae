/*
 * proposal: what waits for signatures, shown and signed from outside: with the break-glass key.
 *
 * Shape      GET /api/v1/proposal gives the manifest body as it is to be signed, and who signed;
 *            POST /api/v1/proposal/sign takes one signature, by a manifest key of the root in
 *            force.
 * Threads    the reader's: the publisher is the one that waits.
 * Errors     E_NOT_FOUND when no proposal is open; E_MANIFEST_WRONG_KEY, E_MANIFEST_UNSIGNED for
 *            a signature that counts for nothing.
 * Source     docs/operations.md, "Break-glass".
 */
#pragma once

#include <jansson.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/publish/publish.h"

MUST_CHECK struct err cp_api_proposal(struct cp_publish_room *room, json_t **out);
/* 'body': {"version", "key_id", "signature", "author"}. */
MUST_CHECK struct err cp_api_sign(struct cp_publish_room *room, struct slice body, json_t **out);
