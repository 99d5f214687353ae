/*
 * puts: which chunks lie in the bucket, put so lately that nobody can be collecting them.
 *
 * Shape      a set of chunk names, each with the moment of its last put; what is older than
 *            limits.chunk_fresh_ms counts as not there. Collecting spares what was put within
 *            limits.collect_age_ms, which is twice as long at least: between the two there is time
 *            for a leader that hangs, and for clocks that go apart.
 * Units      milliseconds.
 * Ownership  a value; cp_puts_free() gives its memory back.
 * Threads    one owner.
 * Errors     none: what cannot be remembered is put once more.
 * Source     docs/formats.md, "Publishing".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/ids.h"
#include "common/base/map.h"

struct cp_puts {
    struct map chunks; /* name to struct put. */
};

/* A chunk was put 'age_ms' ago. */
void cp_puts_note(struct cp_puts *p, const uint8_t digest[DIGEST_SHORT_SIZE], uint64_t age_ms);

/* Whether it was put so lately that it need not be put again. */
bool cp_puts_is_fresh(const struct cp_puts *p, const uint8_t digest[DIGEST_SHORT_SIZE]);

/* Forgets all: the bucket may not be the one that they were put into. */
void cp_puts_forget(struct cp_puts *p);

void cp_puts_free(struct cp_puts *p);
