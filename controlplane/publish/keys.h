/*
 * keys: what this replica's signer may do under the root in force.
 *
 * Shape      a pure judgement of the signer's public keys against a root.
 * Units      milliseconds of the wall clock.
 * Threads    any.
 * Errors     in struct cp_keys: KEY_UNKNOWN, KEY_EXPIRED.
 * Source     docs/formats.md, "Bodies"; docs/operations.md, "Keys".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/snapshot/root.h"
#include "controlplane/signer/signer.h"

struct cp_keys {
    enum err_code head_code;     /* why no node takes its heads; E_OK: they do. */
    int64_t head_left_ms;        /* until the head key ends; INT64_MAX: it has no end. */
    bool manifest_known;         /* its signature on a manifest counts. */
    int64_t root_left_ms;        /* until the root ends: below zero nobody walks to it any more. */
    char head[KEY_NAME_MAX + 1]; /* names in the root; "": unknown. */
    char manifest[KEY_NAME_MAX + 1];
};

void cp_keys_judge(const struct root *root, const struct cp_signer_hello *hello, int64_t now_ms,
                   struct cp_keys *out);

/* A manifest key of this name is held by no replica, but by people, for the day when too few
 * replicas are left to sign: its name begins with "break-glass". */
bool cp_key_is_break_glass(const char *name);
