/* asked: see asked.h. */
#include "tests/policy/asked.h"

static bool find_header(const void *ctx, struct slice name, struct slice *out)
{
    const struct plain_request *q = ctx;
    for (int i = 0; i < PLAIN_NAMES; i++) {
        if (slice_eq(name, slice_str(plain_headers[i])) && q->headers[i] >= 0) {
            *out = slice_str(plain_values[q->headers[i]]);
            return true;
        }
    }
    return false;
}

void asked_init(const struct plain_request *q, struct asked *out)
{
    *out = (struct asked){.caller = {.id = slice_str(q->caller),
                                     .domain = slice_str(plain_domains[q->domain]),
                                     .tenant = slice_str(plain_tenants[q->tenant]),
                                     .traits = out->traits}};
    for (int i = 0; i < PLAIN_NAMES; i++) {
        if (q->traits[i] >= 0) {
            out->traits[out->caller.trait_count++] = (struct dp_trait){
                slice_str(plain_traits[i]), slice_str(plain_values[q->traits[i]])};
        }
    }
    out->query = (struct dp_policy_query){.verb = (enum dp_verb)q->verb,
                                          .lane = slice_str(plain_lanes[q->lane]),
                                          .method = slice_str(q->method),
                                          .caller = &out->caller,
                                          .header = find_header,
                                          .ctx = q,
                                          .wall_ms = q->wall_ms};
}

bool asked_agrees(const struct plain_rule *rules, const struct dp_verdict *got,
                  struct plain_verdict want)
{
    bool allow = want.rule >= 0 && !rules[want.rule].deny;
    return got->allow == allow &&
           slice_eq(got->rule, slice_str(want.rule < 0 ? NULL : rules[want.rule].id)) &&
           slice_eq(got->shadow, slice_str(want.shadow < 0 ? NULL : rules[want.shadow].id));
}
