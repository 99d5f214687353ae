/* budget_impl: what the files of budget share. See budget.h. */
#pragma once

#include <stdatomic.h>

#include "dataplane/request/budget.h"

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

struct dp_budget {
    uint64_t id;             /* under the table's lock, as all that is not atomic. */
    size_t holders;          /* of a limit's. */
    uint64_t counted;        /* of 'asked', that were said. */
    uint64_t counted_ns;     /* when. */
    uint64_t from_ns;        /* shares that answer a demand before this are none of it. */
    uint64_t needed_ns;      /* of a key: when it was last asked for more than it has anyway. */
    uint32_t given;          /* what the leader gave last, of what is given by demand. */
    uint32_t asked_before;   /* of a key: what was said last. */
    bool made_up;            /* of a key: callers made some of it up. */
    struct dp_budget *limit; /* of a key: its limit's; NULL: it is a limit's. */
    _Atomic uint64_t period_ns;
    _Atomic uint64_t burst_ns;
    _Atomic bool renewed; /* the two are others than they were; until the next demand. */
    _Atomic uint64_t asked;
    _Atomic uint64_t tat_ns; /* by the budget's clock. */
    _Atomic uint64_t count;  /* of writes of what follows; odd: one is under way. */
    _Atomic uint64_t base_ns;
    _Atomic uint64_t clock_ns;
    _Atomic uint64_t ahead_ns;
    _Atomic uint64_t until_ns;
    _Atomic uint64_t extra_ns;
    _Atomic uint32_t share;
    _Atomic uint32_t nodes;
};

/* How the clock of a budget goes since a moment. */
struct dp_budget_state {
    uint64_t base_ns;  /* of the monotonic clock, */
    uint64_t clock_ns; /* of the budget's then, */
    uint64_t ahead_ns; /* and how far ahead requests might be taken. */
    uint64_t until_ns; /* behind that the clock goes as of an equal part. */
    uint64_t extra_ns; /* until then: how much further ahead than the share's part of the burst. */
    uint32_t share;
    uint32_t nodes;
};

/* The table's lock: that of limits and of keys. */
void dp_budget_lock(void);
void dp_budget_unlock(void);

/* ---- under the lock ---- */

struct dp_budget_state dp_budget_get_state(const struct dp_budget *budget);
void dp_budget_set_state(struct dp_budget *budget, const struct dp_budget_state *state);

/* From now on the clock goes by the share of 'to', which says until when, how much there is beyond
 * the burst, and how many nodes there are; it goes on from where it is. */
void dp_budget_go_by(struct dp_budget *budget, const struct dp_budget_state *to, uint64_t now_ns);

/* Nothing is lost with it: it was never used, or what was taken has filled again. */
bool dp_budget_is_full(const struct dp_budget *budget, uint64_t now_ns);

/* What was asked since it was said last, in parts of the whole; from now on it is said. */
uint32_t dp_budget_say(struct dp_budget *budget, uint64_t now_ns);

/* What shares say of a budget, if they answer a word of it; else NULL. */
const struct share_of *dp_budget_named(const struct dp_budget *budget, const struct shares *shares);

/* What it had may be another node's from now on; and so may what is on its way here. */
void dp_budget_end(struct dp_budget *budget, uint64_t now_ns);

/* Of one that is renewed: what was taken by a lower rate empties it, no more. */
void dp_budget_forgive(struct dp_budget *budget, uint64_t now_ns);

/* Whether a share fell by so much that others wait for it. */
bool dp_budget_fell(uint32_t before, uint32_t share);

/* How many limits are held; and whether one has this id. */
uint32_t dp_budget_limits(void);
bool dp_budget_is_limit(uint64_t id);

/* ---- keys of limits; under the lock ---- */

/* Adds the keys that are said: those that were asked for most, where there is no room for all.
 * Forgets those that need no share of their own any more. */
void dp_budget_keys_demand(uint64_t now_ns, struct demand *d);

/* Takes shares into force; whether some share fell. */
bool dp_budget_keys_share(const struct shares *shares, uint64_t until_ns, uint64_t now_ns);

/* No key has a share any more. */
void dp_budget_keys_end(uint64_t now_ns);

/* The limit's period and burst are others now; or the entry is another limit's. */
void dp_budget_keys_follow(struct dp_budget *limit);
void dp_budget_keys_forget(struct dp_budget *limit);
