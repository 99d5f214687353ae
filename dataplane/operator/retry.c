/* retry: see retry.h. */
#include "dataplane/operator/retry.h"

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/net/grpc.h"

enum {
    JITTER_FIRST = 800, /* thousandths of a pause, */
    JITTER_SPAN = 401   /* and how many of them there are to draw from. */
};

enum op_pushback op_pushback_read(const struct h2_field *field, uint64_t *out_ms)
{
    uint64_t ms = 0;
    if (field == NULL) {
        return OP_PUSHBACK_NONE;
    }
    if (!slice_to_u64(field->value, &ms) || ms > INT32_MAX) {
        return OP_PUSHBACK_STOP;
    }
    *out_ms = ms;
    return OP_PUSHBACK_WAIT;
}

uint64_t op_backoff_ms(const struct dp_method_policy *policy, uint32_t number, uint64_t draw)
{
    uint64_t ms = policy->backoff_ms;
    for (uint32_t i = 0; i < number && ms < policy->backoff_max_ms; i++) {
        ms *= policy->multiplier; /* both are below 2^32. */
    }
    ms = ms < policy->backoff_max_ms ? ms : policy->backoff_max_ms;
    return (ms * (JITTER_FIRST + draw % JITTER_SPAN) + 500) / 1000;
}

void op_retry_begin(struct op_retry *retry, const struct dp_method_policy *policy,
                    struct op_budget *budget, bool safe)
{
    *retry = (struct op_retry){.policy = *policy, .budget = budget, .made = 1, .safe = safe};
    retry->policy.name = (struct slice){0};
}

void op_retry_settle(struct op_retry *retry)
{
    op_budget_give(retry->budget, retry->held);
    retry->held = 0;
}

void op_retry_end(struct op_retry *retry)
{
    op_retry_settle(retry);
    op_budget_close(retry->budget);
}

bool op_retry_names(const struct op_retry *retry, const struct op_failure *failure)
{
    return !failure->ours && failure->status != GRPC_OK &&
           (failure->timed_out || (retry->policy.codes >> failure->status & 1) != 0);
}

bool op_retry_may(const struct op_retry *retry)
{
    return retry->safe && !retry->stopped && retry->made < retry->policy.attempts;
}

static bool denied(struct op_retry *retry, enum op_count why)
{
    op_budget_count(retry->budget, why);
    return false;
}

/* One more attempt at once the first time; later ones take the place of those that failed. */
static bool take_retry(struct op_retry *retry)
{
    enum op_count why = OP_COUNT_DENIED_TOKENS;
    if (retry->held > 0) {
        return op_budget_has_tokens(retry->budget) || denied(retry, why);
    }
    if (!op_budget_take_retry(retry->budget, &why)) {
        return denied(retry, why);
    }
    retry->held = 1;
    return true;
}

/* What is said applies to the call, whoever of its attempts hears it. */
static enum op_pushback heed(struct op_retry *retry, const struct op_failure *failure,
                             uint64_t *out_ms)
{
    enum op_pushback said = op_pushback_read(failure->pushback, out_ms);
    if (said == OP_PUSHBACK_STOP && !retry->stopped) {
        retry->stopped = true;
        op_budget_count(retry->budget, OP_COUNT_DENIED_PUSHBACK);
    }
    return said;
}

void op_retry_unnamed(struct op_retry *retry, const struct op_failure *failure)
{
    uint64_t ignored_ms = 0;
    if (!failure->ours && failure->status != GRPC_OK &&
        op_pushback_read(failure->pushback, &ignored_ms) == OP_PUSHBACK_STOP) {
        op_budget_note(retry->budget, /* succeeded= */ false);
    }
}

bool op_retry_next(struct op_retry *retry, const struct op_failure *failure, uint64_t left_ms,
                   uint64_t *out_pause_ms)
{
    uint64_t pause_ms = 0;
    if (!op_retry_names(retry, failure)) {
        op_retry_unnamed(retry, failure);
        return false;
    }
    op_budget_note(retry->budget, /* succeeded= */ false);
    enum op_pushback said = heed(retry, failure, &pause_ms);
    bool allowed = retry->safe || !failure->sent;
    if (retry->stopped || !allowed || retry->made >= retry->policy.attempts) {
        return false;
    }
    if (said == OP_PUSHBACK_NONE) {
        uint64_t draw = 0;
        ids_quick(&draw, sizeof(draw));
        pause_ms = op_backoff_ms(&retry->policy, retry->pauses, draw);
    }
    if (pause_ms >= left_ms || !take_retry(retry)) {
        return false;
    }
    retry->pauses = said == OP_PUSHBACK_NONE ? retry->pauses + 1 : 0;
    *out_pause_ms = pause_ms;
    return true;
}

bool op_retry_hedge_delay(struct op_retry *retry, struct op_latencies *latencies)
{
    uint64_t us = 0;
    retry->hedge_ms = retry->policy.delay_ms;
    if (!op_retry_may(retry)) {
        return false;
    }
    if (retry->hedge_ms > 0) {
        return true;
    }
    if (!op_latency_percentile(op_latencies_get(latencies, retry->latency_key),
                               retry->policy.percentile, &us)) {
        return false;
    }
    retry->hedge_ms = us / 1000 + 1; /* never zero, and behind the percentile. */
    return true;
}

void op_retry_give_hedge(struct op_retry *retry)
{
    CHECK(retry->held > 0);
    op_budget_give(retry->budget, 1);
    retry->held--;
}

bool op_retry_take_hedge(struct op_retry *retry)
{
    enum op_count why = OP_COUNT_DENIED_SHARE;
    if (!op_retry_may(retry)) {
        return false;
    }
    if (retry->paid) {
        retry->paid = false;
        return true;
    }
    if (!op_budget_take_hedge(retry->budget, retry->denials, &why)) {
        retry->denials++;
        return denied(retry, why);
    }
    retry->held++;
    return true;
}

bool op_retry_take_place(struct op_retry *retry, bool first)
{
    enum op_count why = OP_COUNT_DENIED_TOKENS;
    if (!op_retry_may(retry)) {
        return false;
    }
    if (retry->paid) { /* the one that waits goes now, with its own room. */
        retry->paid = false;
        if (!first) {
            op_retry_give_hedge(retry);
        }
        return true;
    }
    if (!first) {
        return op_budget_has_tokens(retry->budget) || denied(retry, why);
    }
    if (!op_budget_take_retry(retry->budget, &why)) {
        return denied(retry, why);
    }
    retry->held++;
    return true;
}

enum op_pushback op_retry_hedge_failed(struct op_retry *retry, const struct op_failure *failure,
                                       uint64_t *out_wait_ms)
{
    op_budget_note(retry->budget, /* succeeded= */ false);
    return heed(retry, failure, out_wait_ms);
}
