/*
 * trie: byte-string keys to pointers, where a copy costs nothing and a change what it touches.
 *
 * Shape      a hash trie of 32 ways. Copies share nodes; a change makes the nodes between the
 *            root and its place anew unless nobody else has them, and leaves all other copies as
 *            they are. XXH3-64 with the seed of map.h.
 * Ownership  keys are borrowed and live as long as a copy that has them. Values are borrowed,
 *            too, unless the trie has an owner: then each node that holds one has a reference of
 *            its own.
 * Threads    any number of readers. All that changes, copies or frees tries that share nodes is
 *            done by one thread: references are plain counts.
 * Errors     E_NO_MEMORY; the trie says the same as before.
 * Source     P. Bagwell, "Ideal Hash Trees", 2001.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct trie_node;

/* How references to values are counted. */
struct trie_owner {
    void (*take)(void *value);
    void (*drop)(void *value);
};

/* An empty one needs no init but its owner; NULL: values are borrowed. */
struct trie {
    const struct trie_owner *owner;
    struct trie_node *root; /* a reference; NULL while empty. */
    size_t count;
};

/* A copy, which lives and changes by itself. */
struct trie trie_copy(const struct trie *t);
void trie_free(struct trie *t);

/* Sets key to value; what the key had is dropped, and so is its key. Takes a reference. */
MUST_CHECK struct err trie_put(struct trie *t, struct slice key, void *value);

/* Takes the key out, if it is there, and drops its value. */
MUST_CHECK struct err trie_remove(struct trie *t, struct slice key);

/* The value under key, or NULL; borrowed. */
void *trie_get(const struct trie *t, struct slice key);

/* Calls 'visit' for all values in no particular order; its first failure ends the walk. */
typedef struct err trie_visit_fn(void *ctx, struct slice key, void *value);
MUST_CHECK struct err trie_walk(const struct trie *t, trie_visit_fn *visit, void *ctx);

/* The same by a hash that the caller names, for keys whose hash is known. All calls for a key must
 * name the same. */
MUST_CHECK struct err trie_put_hashed(struct trie *t, struct slice key, uint64_t hash, void *value);
MUST_CHECK struct err trie_remove_hashed(struct trie *t, struct slice key, uint64_t hash);
void *trie_get_hashed(const struct trie *t, struct slice key, uint64_t hash);
