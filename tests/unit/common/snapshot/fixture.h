/*
 * fixture: keys, roots, versions and heads for tests, the same ones in every run.
 *
 * Shape      keys come from fixed seeds, content from a number; nothing is random.
 * Ownership  each fx_*_free() gives back what its make call took.
 * Errors     none: what fails here fails the test.
 */
#pragma once

#include "common/base/buf.h"
#include "common/snapshot/container.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/head.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/keys.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "common/snapshot/set.h"

enum { FX_KEYS = 3, FX_STREAMS = 5 };

#define FX_NOW_MS 1700000000000LL

struct fx {
    struct key_pair roots[FX_KEYS];
    struct key_pair manifests[FX_KEYS];
    struct key_pair heads[FX_KEYS];
    struct key_pair node;
    struct root root;      /* version 1: one root key, two of three manifest keys, two head keys. */
    struct buf root_bytes; /* its container. */
    uint8_t environment[ENVIRONMENT_SIZE];
};

void fx_init(struct fx *f);
void fx_free(struct fx *f);

/* A pair from a seed of one repeated byte. */
struct key_pair fx_pair(enum key_role role, const char *name, uint8_t seed);

/* A root of some version with the fixture's keys; 'root_key' is its one root key. */
struct root fx_root(const struct fx *f, uint64_t version, const struct key_pair *root_key);

/* Seals a body, signed by 'count' pairs. */
void fx_seal(enum container_kind kind, const char *environment, struct slice body,
             const struct key_pair *const *pairs, size_t count, struct buf *out);

/* Seals a root, signed by 'count' pairs. */
void fx_seal_root(const struct root *r, const struct key_pair *const *pairs, size_t count,
                  struct buf *out);

/* A published version: its streams, chunks, manifest. */
struct fx_version {
    struct buf raw[FX_STREAMS];
    struct cut_stream streams[FX_STREAMS];
    struct buf body;      /* of the manifest. */
    struct buf container; /* signed by manifest keys 0 and 1. */
    struct manifest manifest;
};

/*
 * Makes version 'version' of 'parts' parts a stream; 'change' alters the part of that number in
 * each stream (and none, when there is no such part).
 */
void fx_version_make(const struct fx *f, uint64_t version, unsigned parts, unsigned change,
                     struct fx_version *out);
void fx_version_free(struct fx_version *v);

/* The stored bytes of a chunk of the version. */
struct slice fx_stored(const struct fx_version *v, const uint8_t digest[DIGEST_SHORT_SIZE]);

/* A closed set of the version, over 'previous' (may be NULL). */
struct snap_set *fx_set(const struct fx_version *v, struct snap_set *previous);

/* A head of one target for all, signed at FX_NOW_MS. */
struct head fx_head(uint64_t epoch, uint64_t sequence, const struct fx_version *v);

/* Seals a head by head key 0. */
void fx_seal_head(const struct fx *f, const struct head *h, struct buf *out);

/* A new directory below the build's; fx_remove_directory() takes it away with its files. */
void fx_directory(char out[256]);
void fx_remove_directory(const char *path);

/* Fails the test unless 'call' gives 'code', and names both. */
void fx_expect(struct err e, enum err_code code, const char *where);
#define EXPECT(call, wanted) fx_expect((call), (wanted), __FILE__ ":" ERR_STR(__LINE__))
#define EXPECT_OK(call) EXPECT(call, E_OK)
