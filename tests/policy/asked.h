/*
 * asked: a plain request as a node has it, and its answer beside the plain one.
 *
 * Ownership  it borrows from the request.
 */
#pragma once

#include "dataplane/apply/model.h"
#include "dataplane/request/policy.h"

#include "tests/policy/plain.h"

struct asked {
    struct dp_caller caller;
    struct dp_trait traits[PLAIN_NAMES];
    struct dp_policy_query query;
};

void asked_init(const struct plain_request *q, struct asked *out);

/* Whether a node's verdict names the rules that the plain one does. */
bool asked_agrees(const struct plain_rule *rules, const struct dp_verdict *got,
                  struct plain_verdict want);
