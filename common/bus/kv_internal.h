/*
 * kv_internal: what the files of a bucket share.
 *
 * Threads    pure functions; any thread.
 * Errors     as in kv.h.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/bus/kv.h"
#include "common/bus/subject.h"

/* Whether the header KV-Operation says that a message is a marker, no value. */
bool kv_is_marker(struct slice operation);

/* Writes <prefix>$KV.<bucket>.<key>. E_USAGE when the key is none. */
MUST_CHECK struct err kv_key_subject(const struct kv *kv, const char *prefix, struct slice key,
                                     char out[SUBJECT_SIZE_MAX + 1]);

/* What the stream answered to a write, and notes its words when a limit refused it; 'out_revision'
 * may be NULL. */
MUST_CHECK struct err kv_take_ack(const struct kv *kv, struct slice answer, uint64_t *out_revision);
