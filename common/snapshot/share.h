/*
 * share: budgets that all nodes share: what each is asked for, and which part of each it has.
 *
 * Shape      a container of kind demand, signed by the node, and one of kind shares, signed by a
 *            head key for that node. Shares answer a demand: they hold for a time behind the moment
 *            that the demand says, by the clock of the very process that sent it. So nobody's clock
 *            but that one counts, and shares that come late are over when they come.
 * Units      shares and demand in parts per million of a budget.
 * Ownership  plain values without heap.
 * Threads    pure functions; any thread, after ids_init().
 * Errors     E_MALFORMED, E_UNAUTHENTICATED (not signed by who had to), E_USAGE for what cannot be
 *            said.
 * Source     docs/formats.md, "Bodies"; docs/rate-limits.md.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/container.h"

/* What stands for a limit. */
uint64_t share_budget(struct slice limit_id);

struct demand_of {
    uint64_t budget;
    uint32_t asked;
    uint32_t share; /* in force; zero: none. */
};

struct demand {
    char node[KEY_NAME_MAX + 1];
    uint64_t run;
    uint64_t at_ms;
    uint64_t epoch; /* of the shares in force; zero: none are. */
    uint64_t sequence;
    uint32_t count;
    struct demand_of of[SHARE_BUDGETS_MAX]; /* budgets ascending. */
};

struct share_of {
    uint64_t budget;
    uint32_t share;
};

struct shares {
    uint64_t epoch;
    uint64_t sequence;
    char node[KEY_NAME_MAX + 1];
    uint64_t run;
    uint64_t at_ms;
    uint32_t valid_ms;
    uint32_t nodes;
    uint32_t count;
    struct share_of of[SHARE_BUDGETS_MAX]; /* budgets ascending. */
};

/* Appends a signed demand; and opens one by the key of the node. */
MUST_CHECK struct err demand_seal(const struct demand *d,
                                  const uint8_t environment[ENVIRONMENT_SIZE],
                                  const struct key_pair *pair, struct buf *out);
MUST_CHECK struct err demand_open(struct slice bytes, const uint8_t environment[ENVIRONMENT_SIZE],
                                  const struct key_public *key, struct demand *out);

/* The body of shares, for a signer; a container of them is opened by the keys of a root. The key
 * that signed is in *out_key, borrowed of the ring: its time is the caller's to judge. */
MUST_CHECK struct err shares_encode(const struct shares *s, struct buf *out);
MUST_CHECK struct err shares_open(struct slice bytes, const uint8_t environment[ENVIRONMENT_SIZE],
                                  const struct keyring *ring, struct shares *out,
                                  const struct ring_key **out_key);
