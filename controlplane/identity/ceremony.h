/*
 * ceremony: what is done once and offline: key files, roots, static tokens.
 *
 * Shape      files in, files out; nothing is written over.
 * Threads    commands only: one thread.
 * Errors     E_USAGE with a sentence in 'message'; E_EXISTS, E_NOT_FOUND, E_IO.
 * Source     docs/formats.md, "Bodies"; docs/operations.md, "Keys".
 */
#pragma once

#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/keys.h"

/* Writes DIRECTORY/NAME.key (0600) and NAME.pub; *out is the public half. */
MUST_CHECK struct err cp_key_generate(enum key_role role, const char *name, const char *directory,
                                      struct key_public *out, struct buf *message);

/* Reads a file as key_public_print() writes it, or the public half of a private key's file. */
MUST_CHECK struct err cp_key_read_public(const char *path, struct key_public *out,
                                         struct buf *message);

/* Writes one line of a public key into a new file. */
MUST_CHECK struct err cp_key_write_public(const char *path, const struct key_public *key);

struct cp_root_plan {
    const char *environment;
    uint64_t version;      /* 1, or one above that of 'previous'. */
    const char *roots;     /* comma-separated private key files: they are in the root and sign it */
    const char *signers;   /* further root keys that sign, of the root before; NULL: none. */
    const char *manifests; /* comma-separated public key files. */
    const char *heads;
    uint32_t threshold_roots; /* 0: all of them. */
    uint32_t threshold_manifests;
    uint32_t days;      /* until the root ends. */
    uint32_t head_days; /* until its head keys end. */
    const char *out;    /* directory; the file is root.<version>. */
};

/* Makes and signs a root; 'out_path' gets its path. */
MUST_CHECK struct err cp_root_make(const struct cp_root_plan *plan, struct buf *out_path,
                                   struct buf *message);

/* A random token of 256 bits, and what an Environment keeps of it: "blake2b:<64 hex digits>". */
MUST_CHECK struct err cp_token_make(struct buf *out_token, struct buf *out_digest);
