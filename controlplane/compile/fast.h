/*
 * fast: of a target's rules the part that can be decided by who calls what, and that no denying
 * rule touches: what a node decides by while its kill switch is thrown.
 *
 * It is a subset of the policy, which is proved clause by clause: each of its clauses is one of an
 * allowing rule, and shares no request with any clause of a rule that denies. So where it allows, a
 * rule allows and none denies. A clause that is not proved is left out.
 */
#pragma once

#include "controlplane/compile/authorisation_impl.h"

/* Adds the clauses of the fast path, where the environment has guardrails. */
MUST_CHECK struct err cp_add_fast_clauses(struct targeting *t);

/* Whether the environment has them. */
bool cp_has_guardrails(const struct cp_model *model);
