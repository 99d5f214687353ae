/* A connection's streams by their number. They are spread: numbers that rise would fill slots side
 * by side, and each removal would look at all of them. The peer picks the numbers, and does not
 * know the key: it cannot have them all begin their search at one place. */
#include "common/base/check.h"
#include "common/net/h2_impl.h"

enum { FIRST_BITS = 3 };

static uint32_t home_of(const struct h2_streams *t, uint32_t id)
{
    uint32_t hash = (id >> 1) * t->key;
    hash = (hash ^ hash >> 15) * UINT32_C(0x9e3779b1); /* Knuth's multiplier: top bits of all. */
    return hash >> (32 - t->bits);
}

struct h2_stream *h2_streams_find(const struct h2_streams *t, uint32_t id)
{
    if (t->count == 0) {
        return NULL;
    }
    for (uint32_t i = home_of(t, id);; i = (i + 1) & (t->capacity - 1)) { /* half are empty. */
        struct h2_stream *s = t->at[i];
        if (s == NULL) {
            return NULL;
        }
        if ((uint32_t)s->id == id) {
            return s->over ? NULL : s;
        }
    }
}

static void put(struct h2_streams *t, struct h2_stream *s)
{
    uint32_t i = home_of(t, (uint32_t)s->id);
    while (t->at[i] != NULL) {
        i = (i + 1) & (t->capacity - 1);
    }
    t->at[i] = s;
}

static bool grow(struct h2_conn *c)
{
    struct h2_streams *t = &c->by_id;
    struct h2_streams old = *t;
    uint32_t bits = old.capacity == 0 ? FIRST_BITS : old.bits + 1;
    uint32_t capacity = UINT32_C(1) << bits;
    struct h2_stream **at = h2_mem_calloc(&c->env->mem, capacity, sizeof(struct h2_stream *));
    if (at == NULL) {
        return false;
    }
    t->at = at;
    t->capacity = capacity;
    t->bits = bits;
    for (uint32_t i = 0; i < old.capacity; i++) {
        if (old.at[i] != NULL) {
            put(t, old.at[i]);
        }
    }
    h2_mem_free(&c->env->mem, old.at);
    return true;
}

bool h2_streams_add(struct h2_conn *c, struct h2_stream *s)
{
    struct h2_streams *t = &c->by_id;
    if (2 * (t->count + 1) > t->capacity && !grow(c)) {
        return false;
    }
    put(t, s);
    t->count++;
    return true;
}

/* Whether the one at 'i' has its home at or before 'hole', seen from 'i' backwards. */
static bool may_move(const struct h2_streams *t, uint32_t i, uint32_t hole)
{
    uint32_t mask = t->capacity - 1;
    uint32_t from_home = (i - home_of(t, (uint32_t)t->at[i]->id)) & mask;
    return from_home >= ((i - hole) & mask);
}

void h2_streams_remove(struct h2_streams *t, uint32_t id)
{
    uint32_t mask = t->capacity - 1;
    uint32_t hole = home_of(t, id);
    while (t->at[hole] == NULL || (uint32_t)t->at[hole]->id != id) {
        CHECK(t->at[hole] != NULL);
        hole = (hole + 1) & mask;
    }
    for (uint32_t i = (hole + 1) & mask; t->at[i] != NULL; i = (i + 1) & mask) {
        if (may_move(t, i, hole)) {
            t->at[hole] = t->at[i];
            hole = i;
        }
    }
    t->at[hole] = NULL;
    t->count--;
}
