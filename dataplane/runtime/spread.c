/* spread: see spread.h. */
#include "dataplane/runtime/spread.h"

#include <stdlib.h>
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

struct dp_spread {
    size_t connection_max;
    size_t seat_count;
    struct {
        struct lock lock;
        size_t connection_count GUARDED;
        struct seat *seats GUARDED; /* 'seat_count' of them, owned. */
    } shared;
};

struct err dp_spread_new(size_t worker_count, size_t connection_max, struct dp_spread **out)
{
    CHECK(worker_count > 0);
    struct dp_spread *s = calloc(1, sizeof(*s));
    struct seat *seats = calloc(worker_count, sizeof(*seats));
    if (s == NULL || seats == NULL) {
        free(seats);
        free(s);
        return FAIL(E_NO_MEMORY);
    }
    s->connection_max = connection_max;
    s->seat_count = worker_count;
    lock_init(&s->shared.lock);
    lock_take(&s->shared.lock);
    s->shared.seats = seats;
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

enum dp_spread_place dp_spread_place(struct dp_spread *s, size_t worker, struct dp_socket socket)
{
    CHECK(worker < s->seat_count);
    enum dp_spread_place place = DP_SPREAD_FULL;
    lock_take(&s->shared.lock);
    if (s->shared.connection_count < s->connection_max) {
        struct seat *own = &s->shared.seats[worker];
        struct seat *seat = least(s, own);
        bool passed = seat != own && put(seat, socket);
        seat = passed ? seat : own;
        seat->connection_count++;
        s->shared.connection_count++;
        place = passed ? DP_SPREAD_PASSED : DP_SPREAD_HERE;
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

void dp_spread_drop(struct dp_spread *s, size_t worker)
{
    CHECK(worker < s->seat_count);
    lock_take(&s->shared.lock);
    CHECK(s->shared.seats[worker].connection_count > 0);
    s->shared.seats[worker].connection_count--;
    s->shared.connection_count--;
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
