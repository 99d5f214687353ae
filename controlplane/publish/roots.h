/*
 * roots: the roots that the control plane was given, in order; the last one is in force.
 *
 * Ownership  cp_roots owns the bytes of the containers.
 * Threads    loaded by main(); read-only afterwards.
 * Errors     E_USAGE with a sentence; ROOT_MALFORMED, ROOT_UNSIGNED.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/root.h"
#include "controlplane/signer/signer.h"

enum { CP_ROOTS_MAX = 64 };

struct cp_roots {
    struct buf containers[CP_ROOTS_MAX];
    uint64_t versions[CP_ROOTS_MAX];
    size_t count;
    struct root root; /* in force. */
};

/* Reads "root.1,root.2,…"; each must follow the one before. */
MUST_CHECK struct err cp_roots_load(const char *paths, const char *environment,
                                    struct cp_roots *out, struct buf *message);
void cp_roots_free(struct cp_roots *roots);

/* E_USAGE unless both of the signer's keys have their role in the root in force. */
MUST_CHECK struct err cp_roots_check_signer(const struct cp_roots *roots,
                                            const struct cp_signer_hello *hello,
                                            struct buf *message);
