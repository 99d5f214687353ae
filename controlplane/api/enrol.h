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
cp_enrol_fn cp_enrol_list;

/*
 * Removing has two halves. The doorman takes the node out of the store, on whichever replica it was
 * asked: *out is the refusal, or NULL. 'is_retold': another replica did so before it sent the call
 * here. The publisher then has the leader publish it, and makes the answer: the removal holds also
 * when that failed. E_NOT_LEADER, with nothing in *out, when a call was sent here and this replica
 * leads no more.
 */
MUST_CHECK struct err cp_enrol_remove(struct cp_registrar *registrar, struct cp_publish_room *room,
                                      struct slice body, bool is_retold, json_t **out);
MUST_CHECK struct err cp_enrol_depart(struct cp_registrar *registrar, struct cp_publish_room *room,
                                      struct slice body, bool is_retold, json_t **out);
