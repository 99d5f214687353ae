/* spread: see spread.h. */
#include "dataplane/runtime/spread.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/lock.h"

struct seat {
    struct net_loop *loop; /* NULL: nothing is passed on to it. */
    struct net_task task;
    bool posted;
    size_t connection_count;
    size_t waiting_count;
    struct dp_socket waiting[DP_SPREAD_WAITING_MAX];
};

/* How many connections a source has. */
struct source {
    uint64_t id; /* 0: the place is free. */
    size_t count;
};

struct dp_spread {
    struct dp_spread_bounds bounds;
    size_t seat_count;
    size_t source_mask; /* of the places in 'sources'; they are twice as many as connections. */
    struct {
        struct lock lock;
        size_t connection_count GUARDED;
        struct seat *seats GUARDED;     /* 'seat_count' of them, owned. */
        struct source *sources GUARDED; /* open addressing, owned; NULL: nobody is counted. */
    } shared;
};

static size_t source_places(const struct dp_spread_bounds *bounds)
{
    size_t places = 2;
    while (places < 2 * bounds->connections) {
        places *= 2;
    }
    return places;
}

struct err dp_spread_new(size_t worker_count, const struct dp_spread_bounds *bounds,
                         struct dp_spread **out)
{
    CHECK(worker_count > 0);
    size_t places = source_places(bounds);
    struct dp_spread *s = calloc(1, sizeof(*s));
    struct seat *seats = calloc(worker_count, sizeof(*seats));
    struct source *sources = bounds->per_source == 0 ? NULL : calloc(places, sizeof(*sources));
    if (s == NULL || seats == NULL || (sources == NULL && bounds->per_source != 0)) {
        free(sources);
        free(seats);
        free(s);
        return FAIL(E_NO_MEMORY);
    }
    s->bounds = *bounds;
    s->seat_count = worker_count;
    s->source_mask = places - 1;
    lock_init(&s->shared.lock);
    lock_take(&s->shared.lock);
    s->shared.seats = seats;
    s->shared.sources = sources;
    lock_drop(&s->shared.lock);
    *out = s;
    return OK;
}

void dp_spread_free(struct dp_spread *s)
{
    if (s == NULL) {
        return;
    }
    lock_take(&s->shared.lock);
    for (size_t i = 0; i < s->seat_count; i++) {
        const struct seat *seat = &s->shared.seats[i];
        for (size_t k = 0; k < seat->waiting_count; k++) {
            (void)close(seat->waiting[k].fd);
        }
    }
    free(s->shared.seats);
    free(s->shared.sources);
    lock_drop(&s->shared.lock);
    lock_free(&s->shared.lock);
    free(s);
}

void dp_spread_join(struct dp_spread *s, size_t worker, struct net_loop *loop, net_task_fn *arrived,
                    void *ctx)
{
    CHECK(worker < s->seat_count);
    lock_take(&s->shared.lock);
    struct seat *seat = &s->shared.seats[worker];
    seat->loop = loop;
    seat->task = (struct net_task){.fn = arrived, .ctx = ctx};
    lock_drop(&s->shared.lock);
}

void dp_spread_leave(struct dp_spread *s, size_t worker)
{
    CHECK(worker < s->seat_count);
    lock_take(&s->shared.lock);
    s->shared.seats[worker].loop = NULL;
    lock_drop(&s->shared.lock);
}

/* ---- sources ---- */

static size_t source_home(const struct dp_spread *s, uint64_t id)
{
    return (size_t)((id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & s->source_mask;
}

/* Where a source is, or would be: there are more places than connections. */
static struct source *source_find(struct dp_spread *s, uint64_t id) REQUIRES(s->shared.lock)
{
    size_t at = source_home(s, id);
    while (s->shared.sources[at].id != 0 && s->shared.sources[at].id != id) {
        at = (at + 1) & s->source_mask;
    }
    return &s->shared.sources[at];
}

/* Frees a place, and moves those behind it that would not be found any more. */
static void source_remove(struct dp_spread *s, size_t hole) REQUIRES(s->shared.lock)
{
    struct source *sources = s->shared.sources;
    size_t at = hole;
    for (;;) { /* ends: there is a free place. */
        at = (at + 1) & s->source_mask;
        if (sources[at].id == 0) {
            sources[hole] = (struct source){0};
            return;
        }
        size_t home = source_home(s, sources[at].id);
        if (((at - home) & s->source_mask) >= ((at - hole) & s->source_mask)) {
            sources[hole] = sources[at];
            hole = at;
        }
    }
}

/* False when it has as many as it may. */
static bool source_add(struct dp_spread *s, uint64_t id) REQUIRES(s->shared.lock)
{
    if (s->shared.sources == NULL || id == 0) {
        return true;
    }
    struct source *source = source_find(s, id);
    if (source->count >= s->bounds.per_source) {
        return false;
    }
    source->id = id;
    source->count++;
    return true;
}

static void source_drop(struct dp_spread *s, uint64_t id) REQUIRES(s->shared.lock)
{
    if (s->shared.sources == NULL || id == 0) {
        return;
    }
    struct source *source = source_find(s, id);
    CHECK(source->count > 0);
    if (--source->count == 0) {
        source_remove(s, (size_t)(source - s->shared.sources));
    }
}

/* ---- seats ---- */

/* The seat with the fewest connections; on a tie the worker's own. */
static struct seat *least(struct dp_spread *s, struct seat *own) REQUIRES(s->shared.lock)
{
    struct seat *found = own;
    for (size_t i = 0; i < s->seat_count; i++) {
        struct seat *seat = &s->shared.seats[i];
        if (seat->loop != NULL && seat->connection_count < found->connection_count) {
            found = seat;
        }
    }
    return found;
}

static bool put(struct seat *seat, struct dp_socket socket)
{
    if (seat->waiting_count == DP_SPREAD_WAITING_MAX) {
        return false;
    }
    if (!seat->posted && !err_ok(net_loop_post(seat->loop, &seat->task))) {
        return false;
    }
    seat->posted = true;
    seat->waiting[seat->waiting_count++] = socket;
    return true;
}

static enum dp_spread_place seat_of(struct dp_spread *s, size_t worker, struct dp_socket socket)
    REQUIRES(s->shared.lock)
{
    struct seat *own = &s->shared.seats[worker];
    struct seat *seat = least(s, own);
    bool passed = seat != own && put(seat, socket);
    seat = passed ? seat : own;
    seat->connection_count++;
    s->shared.connection_count++;
    return passed ? DP_SPREAD_PASSED : DP_SPREAD_HERE;
}

enum dp_spread_place dp_spread_place(struct dp_spread *s, size_t worker, struct dp_socket socket)
{
    CHECK(worker < s->seat_count);
    enum dp_spread_place place = DP_SPREAD_FULL;
    lock_take(&s->shared.lock);
    if (s->shared.connection_count < s->bounds.connections) {
        place = source_add(s, socket.source) ? seat_of(s, worker, socket) : DP_SPREAD_CROWD;
    }
    lock_drop(&s->shared.lock);
    return place;
}

size_t dp_spread_take(struct dp_spread *s, size_t worker,
                      struct dp_socket out[DP_SPREAD_WAITING_MAX])
{
    CHECK(worker < s->seat_count);
    lock_take(&s->shared.lock);
    struct seat *seat = &s->shared.seats[worker];
    size_t count = seat->waiting_count;
    for (size_t i = 0; i < count; i++) {
        out[i] = seat->waiting[i];
    }
    seat->waiting_count = 0;
    seat->posted = false;
    lock_drop(&s->shared.lock);
    return count;
}

void dp_spread_drop(struct dp_spread *s, size_t worker, uint64_t source)
{
    CHECK(worker < s->seat_count);
    lock_take(&s->shared.lock);
    CHECK(s->shared.seats[worker].connection_count > 0);
    s->shared.seats[worker].connection_count--;
    s->shared.connection_count--;
    source_drop(s, source);
    lock_drop(&s->shared.lock);
}

size_t dp_spread_count(struct dp_spread *s, size_t worker)
{
    CHECK(worker < s->seat_count);
    lock_take(&s->shared.lock);
    size_t count = s->shared.seats[worker].connection_count;
    lock_drop(&s->shared.lock);
    return count;
}
