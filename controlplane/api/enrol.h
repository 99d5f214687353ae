/*
 * enrol: what the API says and is sent of joining: tokens, joins, renewals, nodes.
 *
 * Shape      one function a kind of call: it reads the body, has the registrar do it, and makes the
 *            answer.
 * Ownership  *out is the caller's, also after a refusal that has a sentence.
 * Threads    a worker's.
 * Errors     those of registrar.h; E_USAGE and E_MALFORMED for a body that is not as it should be.
 * Source     docs/control-plane.md, "Joining".
 */
#pragma once

#include <jansson.h>

#include "common/base/err.h"
#include "controlplane/identity/registrar.h"
#include "controlplane/publish/publish.h"

/* Longest body of a join or renewal: they come from whoever reaches the API. */
enum { CP_ENROL_BODY_MAX = 16 << 10 };

typedef struct err cp_enrol_fn(struct cp_registrar *registrar, struct cp_publish_room *room,
                               struct slice body, json_t **out);

cp_enrol_fn cp_enrol_token;
cp_enrol_fn cp_enrol_join;
cp_enrol_fn cp_enrol_renew;
cp_enrol_fn cp_enrol_remove;
cp_enrol_fn cp_enrol_list;
