/*
 * removals: certificates of nodes that were removed, each until when it must be refused.
 *
 * Shape      a set of serials, ascending, each once and with its latest end. It travels as a file
 *            among the sources of a publication, CP_REMOVALS_FILE, which each replica compiles; and
 *            it is found again in what was published: entries of the stream of revocations that say
 *            until when (parts.proto).
 * Units      milliseconds since the epoch; ends are whole hours, so that many make few resources.
 * Ownership  a zeroed set is empty; cp_removals_free() ends it.
 * Threads    one owner at a time.
 * Errors     E_MALFORMED for a file that cp_removals_print() did not write; PART_MALFORMED for a
 *            stream that is none; E_TOO_LARGE, E_NO_MEMORY.
 * Source     docs/decisions/0091-removal-is-published.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/compile/compile.h"
#include "controlplane/store/store.h"

#define CP_REMOVALS_FILE SLICE_LIT("trilane-removed.yaml")

struct cp_removal {
    char serial[CP_SERIAL_MAX + 1]; /* as a node writes it: lower-case hex. */
    int64_t until_ms;
};

struct cp_removals {
    struct cp_removal *items; /* owned. */
    size_t count;
    size_t capacity;
};

void cp_removals_free(struct cp_removals *set);
#define auto_removals __attribute__((cleanup(cp_removals_free)))

/* Adds one, whose end is rounded up; what is over at 'now_ms' is left out. */
MUST_CHECK struct err cp_removals_add(struct cp_removals *set, struct slice serial,
                                      int64_t until_ms, int64_t now_ms);

/* Adds those that a stream of revocations says the end of; the same of what was compiled. */
MUST_CHECK struct err cp_removals_add_stream(struct cp_removals *set, struct slice raw,
                                             int64_t now_ms);
MUST_CHECK struct err cp_removals_add_compiled(struct cp_removals *set,
                                               const struct cp_compiled *compiled, int64_t now_ms);

/* Whether all of 'part' are in 'whole', and for as long. */
bool cp_removals_has_all(const struct cp_removals *whole, const struct cp_removals *part);

/* Appends the set as a file of resources; nothing for an empty one. And reads it. */
MUST_CHECK struct err cp_removals_print(const struct cp_removals *set, struct buf *out);
MUST_CHECK struct err cp_removals_parse(struct slice text, struct cp_removals *out);

/* Appends a stream of revocations with these entries added; *out_changed is false when it had them
 * all. */
MUST_CHECK struct err cp_removals_merge(const struct cp_removals *set, struct slice raw,
                                        struct buf *out, bool *out_changed);
