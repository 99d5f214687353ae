/*
 * show: what `trilane-dp trace` asks of nodes, and how it writes what they say.
 *
 * Threads    any; it waits.
 * Errors     E_NOT_FOUND: none of the nodes keeps a refusal of that id; else those of dp_ask(),
 *            E_MALFORMED when what answered is no node.
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum dp_show_format { DP_SHOW_TABLE, DP_SHOW_JSON, DP_SHOW_YAML };

/* "table", "json", "yaml"; false: it is none. */
bool dp_show_format_find(struct slice name, enum dp_show_format *out);

struct dp_show_trace {
    struct slice servers; /* admin addresses, separated by commas: the first that has it answers. */
    struct slice token;   /* empty: none. */
    struct slice id;      /* empty: the latest of the first server. */
    enum dp_show_format format;
};

/* Appends the answer to 'out'. A place in the sources that a node fetches first is waited for. On
 * failure 'message' says of what. */
MUST_CHECK struct err dp_show_trace(const struct dp_show_trace *asked, struct buf *out,
                                    struct buf *message);
