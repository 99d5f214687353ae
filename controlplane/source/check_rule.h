/*
 * check_rule: what a rule of a policy says beyond its shape: its condition and its times.
 *
 * Errors     what is wrong is a diagnostic, a condition's with the line and column of the word.
 *            A kept leaf is judged anew by each load, so the rule itself is left as it is.
 *            E_NO_MEMORY.
 */
#pragma once

#include "common/base/err.h"
#include "controlplane/source/diag.h"
#include "controlplane/source/model.h"

MUST_CHECK struct err cp_check_rule(const struct cp_model *model, struct cp_diags *diags,
                                    const struct cp_rule *rule);
