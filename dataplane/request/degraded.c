/* degraded: see degraded.h. */
#include "dataplane/request/degraded.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/lock.h"
#include "common/base/map.h"

struct entry {
    uint32_t sayers; /* how many say so. */
    size_t size;
    uint8_t name[];
};

struct dp_degraded {
    atomic_uint count;
    atomic_uint edition;
    struct {
        struct lock lock;
        struct map services GUARDED; /* of struct entry, owned. */
    } shared;
};

struct err dp_degraded_new(struct dp_degraded **out)
{
    struct dp_degraded *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&d->shared.lock);
    *out = d;
    return OK;
}

void dp_degraded_free(struct dp_degraded *d)
{
    if (d == NULL) {
        return;
    }
    lock_take(&d->shared.lock);
    size_t at = 0;
    for (const struct map_entry *e = map_next(&d->shared.services, &at); e != NULL;
         e = map_next(&d->shared.services, &at)) {
        free(e->value);
    }
    map_free(&d->shared.services);
    lock_drop(&d->shared.lock);
    lock_free(&d->shared.lock);
    free(d);
}

static void changed(struct dp_degraded *d) REQUIRES(d->shared.lock)
{
    atomic_store(&d->count, (uint32_t)d->shared.services.count);
    atomic_fetch_add(&d->edition, 1);
}

static MUST_CHECK struct err add_new(struct dp_degraded *d, struct slice service)
    REQUIRES(d->shared.lock)
{
    if (d->shared.services.count == DP_DEGRADED_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    struct entry *entry = malloc(sizeof(*entry) + service.size);
    if (entry == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    entry->sayers = 1;
    entry->size = service.size;
    (void)memcpy(entry->name, service.ptr, service.size);
    struct err e = map_put(&d->shared.services, slice_of(entry->name, entry->size), entry,
                           /* out_old= */ NULL);
    if (!err_ok(e)) {
        free(entry);
        return e;
    }
    changed(d);
    return OK;
}

struct err dp_degraded_add(struct dp_degraded *d, struct slice service)
{
    CHECK(service.size > 0);
    struct err e = OK;
    lock_take(&d->shared.lock);
    struct entry *entry = map_get(&d->shared.services, service);
    if (entry != NULL) {
        entry->sayers++;
    } else {
        e = add_new(d, service);
    }
    lock_drop(&d->shared.lock);
    return e;
}

void dp_degraded_remove(struct dp_degraded *d, struct slice service)
{
    lock_take(&d->shared.lock);
    struct entry *entry = map_get(&d->shared.services, service);
    CHECK(entry != NULL);
    if (--entry->sayers == 0) {
        (void)map_remove(&d->shared.services, service);
        free(entry);
        changed(d);
    }
    lock_drop(&d->shared.lock);
}

uint32_t dp_degraded_count(const struct dp_degraded *d)
{
    return atomic_load(&d->count);
}

uint32_t dp_degraded_edition(const struct dp_degraded *d)
{
    return atomic_load(&d->edition);
}

static int name_cmp(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static MUST_CHECK struct err copy(struct dp_degraded *d, struct arena *arena, struct slice **out)
    REQUIRES(d->shared.lock)
{
    struct slice *names = NULL;
    size_t at = 0;
    TRY(arena_calloc(arena, d->shared.services.count + 1, sizeof(*names), (void **)&names));
    size_t count = 0;
    for (const struct map_entry *e = map_next(&d->shared.services, &at); e != NULL;
         e = map_next(&d->shared.services, &at)) {
        TRY(arena_dup(arena, e->key, &names[count++]));
    }
    *out = names;
    return OK;
}

struct err dp_degraded_list(struct dp_degraded *d, struct arena *arena, const struct slice **out,
                            size_t *out_count)
{
    struct slice *names = NULL;
    lock_take(&d->shared.lock);
    struct err e = copy(d, arena, &names);
    size_t count = d->shared.services.count;
    lock_drop(&d->shared.lock);
    if (!err_ok(e)) {
        return e;
    }
    qsort(names, count, sizeof(*names), name_cmp);
    *out = names;
    *out_count = count;
    return OK;
}
