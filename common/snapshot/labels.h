/*
 * labels: what a node is selected by, as text: "rack=b,zone=eu-1".
 *
 * Shape      up to HEAD_LABELS_MAX pairs, names ascending. Name and value are of [A-Za-z0-9._/-],
 *            not empty, and together with their "=" at most LABEL_MAX bytes: as much as an
 *            attribute of a certificate's subject has room for.
 * Ownership  labels borrow from the text that they were read from.
 * Threads    pure functions; any thread.
 * Errors     E_USAGE for text that is no list of labels, or has a name twice.
 * Source     docs/formats.md, "Certificates of nodes" and "Bodies".
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/head.h"

enum { LABEL_MAX = 64, LABELS_TEXT_MAX = HEAD_LABELS_MAX * (LABEL_MAX + 1) };

struct labels {
    struct head_label items[HEAD_LABELS_MAX]; /* names ascending. */
    size_t count;
};

/* Reads "name=value,…" in any order; empty text is no labels. */
MUST_CHECK struct err labels_parse(struct slice text, struct labels *out);

/* Adds one "name=value". */
MUST_CHECK struct err labels_add(struct labels *l, struct slice pair);

/* Appends "name=value,…", names ascending: equal labels give equal text. */
MUST_CHECK struct err labels_print(const struct labels *l, struct buf *out);

bool labels_eq(const struct labels *a, const struct labels *b);
