/* versions: numbers, each handed out once. */
#include "common/base/check.h"
#include "controlplane/store/store_in.h"

enum { TRIES_MAX = 8 }; /* each lost one means that somebody else got a number. */

struct number {
    const struct cp_fence *fence;
    uint64_t version;
};

/* A number that another transaction takes at the same moment is waited for, and found taken. */
static struct err hand_one(struct sql *db, struct number *number, bool *out_found)
{
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO version (environment, number, epoch, handed_ms)"
              " SELECT $1, coalesce(max(number), 0) + 1, $2, trilane_now()"
              " FROM version WHERE environment = $1"
              " ON CONFLICT (environment, number) DO NOTHING RETURNING number");
    sql_bind_text(&q, 1, number->fence->environment);
    sql_bind_number(&q, 2, number->fence->epoch);
    TRY(sql_row(&q, out_found));
    if (*out_found) {
        number->version = sql_number(&q, 0);
    }
    return sql_run(&q);
}

static struct err hand(struct sql *db, void *ctx)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        bool found = false;
        TRY(hand_one(db, ctx, &found));
        if (found) {
            return OK;
        }
    }
    return FAIL(E_UNAVAILABLE);
}

struct err cp_op_version_hand(struct cp_store *store, const struct cp_fence *fence,
                              uint64_t *out_version)
{
    struct number number = {.fence = fence};
    TRY(cp_write(store, &(struct cp_write){.fence = fence, .bytes = 1}, hand, &number));
    CHECK(number.version > 0);
    *out_version = number.version;
    return OK;
}

/* The number itself counts as handed out: so the next one is above it. */
static struct err raise_to(struct sql *db, void *ctx)
{
    const struct number *number = ctx;
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO version (environment, number, epoch, handed_ms)"
              " SELECT $1, $2, $3, trilane_now() WHERE NOT EXISTS"
              " (SELECT 1 FROM version WHERE environment = $1 AND number >= $2)"
              " ON CONFLICT (environment, number) DO NOTHING");
    sql_bind_text(&q, 1, number->fence->environment);
    sql_bind_number(&q, 2, number->version);
    sql_bind_number(&q, 3, number->fence->epoch);
    return sql_run(&q);
}

struct err cp_op_version_raise(struct cp_store *store, const struct cp_fence *fence,
                               uint64_t version)
{
    struct number number = {.fence = fence, .version = version};
    if (version > CP_STILL / 2) {
        return FAIL(E_TOO_LARGE); /* there must be numbers above it, and many. */
    }
    if (version == 0) {
        return OK;
    }
    return cp_write(store, &(struct cp_write){.fence = fence, .bytes = 1}, raise_to, &number);
}
