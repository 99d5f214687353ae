/* trie: see trie.h. Changes go down with nodes of their own, so that none can fail half-way. */
#include "common/base/trie.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/map.h"

enum {
    LEVEL_BITS = 5,
    LEVEL_MASK = (1 << LEVEL_BITS) - 1,
    LEVELS_END = 60, /* of the hash's bits: what is the same up to here lies in one list. */
};

struct entry {
    struct slice key;
    uint64_t hash;
    void *value;
};

/* Entries in the order of their bits, then children likewise. Behind the last level there are no
 * bits, and entries alone. */
struct trie_node {
    uint32_t refs;
    uint32_t entry_bits;
    uint32_t child_bits;
    uint32_t entry_count;
    uint32_t child_count;
    struct entry entries[];
};

static struct trie_node **children(struct trie_node *n)
{
    return (struct trie_node **)(void *)(n->entries + n->entry_count);
}

static struct trie_node *const *children_of(const struct trie_node *n)
{
    return (struct trie_node *const *)(const void *)(n->entries + n->entry_count);
}

static uint32_t bit_of(uint64_t hash, unsigned shift)
{
    return UINT32_C(1) << (hash >> shift & LEVEL_MASK);
}

/* How many of the bits below 'bit' are set: where its item is, or would be. */
static size_t place(uint32_t bits, uint32_t bit)
{
    return (size_t)__builtin_popcount(bits & (bit - 1));
}

static void value_take(const struct trie *t, void *value)
{
    if (t->owner != NULL) {
        t->owner->take(value);
    }
}

static void value_drop(const struct trie *t, void *value)
{
    if (t->owner != NULL) {
        t->owner->drop(value);
    }
}

static struct trie_node *node_new(size_t entry_count, size_t child_count)
{
    struct trie_node *n = malloc(sizeof(*n) + entry_count * sizeof(struct entry) +
                                 child_count * sizeof(struct trie_node *));
    if (n != NULL) {
        *n = (struct trie_node){
            .refs = 1, .entry_count = (uint32_t)entry_count, .child_count = (uint32_t)child_count};
    }
    return n;
}

static void node_drop(const struct trie *t, struct trie_node *n)
{
    CHECK(n->refs > 0);
    if (--n->refs > 0) {
        return;
    }
    for (size_t i = 0; i < n->entry_count; i++) {
        value_drop(t, n->entries[i].value);
    }
    for (size_t i = 0; i < n->child_count; i++) {
        node_drop(t, children(n)[i]); /* as deep as the hash has levels. */
    }
    free(n);
}

struct trie trie_copy(const struct trie *t)
{
    if (t->root != NULL) {
        t->root->refs++;
    }
    return *t;
}

void trie_free(struct trie *t)
{
    if (t->root != NULL) {
        node_drop(t, t->root);
    }
    *t = (struct trie){.owner = t->owner};
}

/* ---- nodes of one's own ---- */

/* A node that others have, too, is left to them: *at is then a copy. */
static struct err own(const struct trie *t, struct trie_node **at)
{
    struct trie_node *n = *at;
    if (n->refs == 1) {
        return OK;
    }
    struct trie_node *copy = node_new(n->entry_count, n->child_count);
    if (copy == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    copy->entry_bits = n->entry_bits;
    copy->child_bits = n->child_bits;
    memcpy(copy->entries, n->entries, n->entry_count * sizeof(struct entry));
    memcpy(children(copy), children(n), n->child_count * sizeof(struct trie_node *));
    for (size_t i = 0; i < n->entry_count; i++) {
        value_take(t, n->entries[i].value);
    }
    for (size_t i = 0; i < n->child_count; i++) {
        children(n)[i]->refs++;
    }
    n->refs--;
    *at = copy;
    return OK;
}

/* Takes the place of a node of one's own with room for one entry more or less; what it holds moves
 * over. 'at' is where the entry comes or goes. */
static struct err resize_entries(struct trie_node **node, size_t at, bool more)
{
    struct trie_node *n = *node;
    struct trie_node *to = node_new(n->entry_count + (more ? 1 : (size_t)-1), n->child_count);
    if (to == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    to->entry_bits = n->entry_bits;
    to->child_bits = n->child_bits;
    memcpy(to->entries, n->entries, at * sizeof(struct entry));
    memcpy(to->entries + at + (more ? 1 : 0), n->entries + at + (more ? 0 : 1),
           (n->entry_count - at - (more ? 0 : 1)) * sizeof(struct entry));
    memcpy(children(to), children(n), n->child_count * sizeof(struct trie_node *));
    free(n);
    *node = to;
    return OK;
}

/* The same for a child. */
static struct err resize_children(struct trie_node **node, size_t at, bool more)
{
    struct trie_node *n = *node;
    struct trie_node *to = node_new(n->entry_count, n->child_count + (more ? 1 : (size_t)-1));
    if (to == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    to->entry_bits = n->entry_bits;
    to->child_bits = n->child_bits;
    memcpy(to->entries, n->entries, n->entry_count * sizeof(struct entry));
    memcpy(children(to), children(n), at * sizeof(struct trie_node *));
    memcpy(children(to) + at + (more ? 1 : 0), children(n) + at + (more ? 0 : 1),
           (n->child_count - at - (more ? 0 : 1)) * sizeof(struct trie_node *));
    free(n);
    *node = to;
    return OK;
}

/* ---- putting ---- */

static struct err add_entry(const struct trie *t, struct trie_node **node, size_t at, uint32_t bit,
                            const struct entry *e)
{
    TRY(resize_entries(node, at, /* more= */ true));
    (*node)->entries[at] = *e;
    (*node)->entry_bits |= bit;
    value_take(t, e->value);
    return OK;
}

/* Two entries of one place: the one that is there goes a level down. */
static struct err push_down(struct trie_node **node, size_t at, uint32_t bit, unsigned shift)
{
    struct entry there = (*node)->entries[at];
    struct trie_node *below = node_new(1, 0);
    if (below == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    below->entries[0] = there;
    below->entry_bits = shift >= LEVELS_END ? 0 : bit_of(there.hash, shift);
    size_t child_at = place((*node)->child_bits, bit);
    struct err e = resize_children(node, child_at, /* more= */ true);
    if (!err_ok(e)) {
        free(below);
        return e;
    }
    children(*node)[child_at] = below;
    (*node)->child_bits |= bit;
    /* One entry less needs no other memory: children move up over it. */
    struct trie_node *n = *node;
    struct trie_node **from = children(n);
    memmove(n->entries + at, n->entries + at + 1, (n->entry_count - at - 1) * sizeof(struct entry));
    n->entry_count--;
    n->entry_bits &= ~bit;
    memmove(children(n), from, n->child_count * sizeof(struct trie_node *));
    return OK;
}

static void replace(const struct trie *t, struct entry *there, const struct entry *e)
{
    value_take(t, e->value);
    value_drop(t, there->value);
    *there = *e;
}

/* In the list behind the last level. */
static struct err put_in_list(struct trie *t, struct trie_node **node, const struct entry *e)
{
    for (size_t i = 0; i < (*node)->entry_count; i++) {
        if (slice_eq((*node)->entries[i].key, e->key)) {
            replace(t, &(*node)->entries[i], e);
            return OK;
        }
    }
    TRY(add_entry(t, node, (*node)->entry_count, /* bit= */ 0, e));
    t->count++;
    return OK;
}

static struct err put(struct trie *t, const struct entry *e)
{
    struct trie_node **node = &t->root;
    for (unsigned shift = 0; shift < LEVELS_END; shift += LEVEL_BITS) {
        TRY(own(t, node));
        uint32_t bit = bit_of(e->hash, shift);
        if (((*node)->child_bits & bit) != 0) {
            node = &children(*node)[place((*node)->child_bits, bit)];
            continue;
        }
        size_t at = place((*node)->entry_bits, bit);
        if (((*node)->entry_bits & bit) == 0) {
            TRY(add_entry(t, node, at, bit, e));
            t->count++;
            return OK;
        }
        if (slice_eq((*node)->entries[at].key, e->key)) {
            replace(t, &(*node)->entries[at], e);
            return OK;
        }
        TRY(push_down(node, at, bit, shift + LEVEL_BITS));
        node = &children(*node)[place((*node)->child_bits, bit)];
    }
    TRY(own(t, node));
    return put_in_list(t, node, e);
}

struct err trie_put_hashed(struct trie *t, struct slice key, uint64_t hash, void *value)
{
    CHECK(value != NULL);
    if (t->root == NULL) {
        t->root = node_new(0, 0);
        if (t->root == NULL) {
            return FAIL(E_NO_MEMORY);
        }
    }
    return put(t, &(struct entry){.key = key, .hash = hash, .value = value});
}

struct err trie_put(struct trie *t, struct slice key, void *value)
{
    return trie_put_hashed(t, key, map_hash(key), value);
}

/* ---- finding ---- */

static const struct entry *find(const struct trie *t, struct slice key, uint64_t hash)
{
    const struct trie_node *n = t->root;
    for (unsigned shift = 0; n != NULL && shift < LEVELS_END; shift += LEVEL_BITS) {
        uint32_t bit = bit_of(hash, shift);
        if ((n->child_bits & bit) != 0) {
            n = children_of(n)[place(n->child_bits, bit)];
            continue;
        }
        const struct entry *e = &n->entries[place(n->entry_bits, bit)];
        return (n->entry_bits & bit) != 0 && slice_eq(e->key, key) ? e : NULL;
    }
    for (size_t i = 0; n != NULL && i < n->entry_count; i++) {
        if (slice_eq(n->entries[i].key, key)) {
            return &n->entries[i];
        }
    }
    return NULL;
}

void *trie_get_hashed(const struct trie *t, struct slice key, uint64_t hash)
{
    const struct entry *e = find(t, key, hash);
    return e == NULL ? NULL : e->value;
}

void *trie_get(const struct trie *t, struct slice key)
{
    return t->count == 0 ? NULL : trie_get_hashed(t, key, map_hash(key));
}

static struct err walk(const struct trie_node *n, trie_visit_fn *visit, void *ctx)
{
    for (size_t i = 0; i < n->entry_count; i++) {
        TRY(visit(ctx, n->entries[i].key, n->entries[i].value));
    }
    for (size_t i = 0; i < n->child_count; i++) {
        TRY(walk(children_of(n)[i], visit, ctx));
    }
    return OK;
}

struct err trie_walk(const struct trie *t, trie_visit_fn *visit, void *ctx)
{
    return t->root == NULL ? OK : walk(t->root, visit, ctx);
}

/* ---- removing ---- */

static bool is_empty(const struct trie_node *n)
{
    return n->entry_count + n->child_count == 0;
}

/* Takes an entry out of a node of one's own. */
static struct err cut_entry(const struct trie *t, struct trie_node **node, size_t at, uint32_t bit)
{
    void *value = (*node)->entries[at].value;
    TRY(resize_entries(node, at, /* more= */ false));
    (*node)->entry_bits &= ~bit;
    value_drop(t, value);
    return OK;
}

/* The key is there. A node that became empty goes with its place. */
static struct err cut(const struct trie *t, struct trie_node **node, unsigned shift,
                      const struct entry *e)
{
    TRY(own(t, node));
    uint32_t bit = shift >= LEVELS_END ? 0 : bit_of(e->hash, shift);
    if (((*node)->child_bits & bit) != 0) {
        size_t at = place((*node)->child_bits, bit);
        TRY(cut(t, &children(*node)[at], shift + LEVEL_BITS, e));
        struct trie_node *child = children(*node)[at];
        if (is_empty(child) && err_ok(resize_children(node, at, /* more= */ false))) {
            (*node)->child_bits &= ~bit; /* else it stays, empty. */
            free(child);
        }
        return OK;
    }
    size_t at = place((*node)->entry_bits, bit);
    while (shift >= LEVELS_END && !slice_eq((*node)->entries[at].key, e->key)) {
        at++;
    }
    return cut_entry(t, node, at, bit);
}

struct err trie_remove_hashed(struct trie *t, struct slice key, uint64_t hash)
{
    const struct entry *there = find(t, key, hash);
    if (there == NULL) {
        return OK;
    }
    const struct entry e = *there;
    TRY(cut(t, &t->root, 0, &e));
    t->count--;
    return OK;
}

struct err trie_remove(struct trie *t, struct slice key)
{
    return trie_remove_hashed(t, key, map_hash(key));
}
