/*
 * check_fit: what is said of a target that fits no request of it.
 *
 * A rule that denies, and a limit, would let pass what they were written against; so what can never
 * fit is refused, whatever it says besides.
 *
 * Shape      a service is called by the operator lane, by methods /package.Service/Method; a topic
 *            is published and subscribed to by the canonical lane, by types; what is fetched
 *            through an egress is so by the proxy lane, by HTTP methods.
 */
#pragma once

#include "controlplane/source/diag.h"
#include "controlplane/source/model.h"

/* verbs, lanes, methods and headers of a policy's rules; methods and headers of a limit. */
void cp_check_rule_fits(struct cp_diags *diags, const struct cp_target *target,
                        const struct cp_rule *rule);
void cp_check_limit_fits(struct cp_diags *diags, const struct cp_rate_limit *limit);

/* methods[].names of a Service. */
void cp_check_method_fits(struct cp_diags *diags, const struct cp_method *method);

/* What a Route asks of requests, and what a Service is balanced by. */
void cp_check_match_fits(struct cp_diags *diags, const struct cp_route_match *match);
void cp_check_balance_fits(struct cp_diags *diags, const struct cp_balance *balance);

/* Whether nodes take such a header out of a request before anybody looks at it. */
bool cp_header_is_taken_out(struct slice name);
