/* addresses: see addresses.h. */
#include "dataplane/operator/addresses.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/loop.h"
#include "dataplane/operator/upstream_impl.h"

enum { FAILED_FIRST_MS = 1000, FAILED_MAX_MS = 30000 };

static MUST_CHECK struct err open_pool(const struct op_endpoint *e, const struct net_addr *addr,
                                       struct h2_pool **out)
{
    struct h2_target target = {.addr = *addr,
                               .tls = op_endpoint_tls(e),
                               .server_name = slice_str(e->server_name),
                               .spiffe_id = slice_str(e->spiffe_id),
                               .connect_timeout_ms = e->connect_timeout_ms,
                               .connections_max = e->connections_max,
                               .max_age_ms = e->max_age_ms,
                               .terms = e->terms};
    if (e->security != 0 && target.tls == NULL) {
        return FAIL(E_UPSTREAM_CONNECT); /* the node was given no certificates. */
    }
    return h2_pools_get(e->ups->pools, &target, out);
}

/* A pool that stays is found again by its target, so that its connections stay. */
static MUST_CHECK struct err fill(struct op_endpoint *e, const struct net_addr *addrs, size_t count,
                                  struct op_addresses *out)
{
    for (size_t i = 0; i < count; i++) {
        struct op_address *to = &out->at[out->count];
        if (addrs[i].sa.any.sa_family != addrs[0].sa.any.sa_family) {
            continue;
        }
        TRY(open_pool(e, &addrs[i], &to->pool));
        to->addr = addrs[i];
        (void)net_addr_text(&addrs[i], to->text);
        out->count++;
        const struct op_address *before = op_addresses_of(e, to->pool);
        if (before != NULL) {
            to->failed_until_ns = before->failed_until_ns;
            to->failed_ms = before->failed_ms;
        }
    }
    return OK;
}

struct err op_addresses_set(struct op_endpoint *e, const struct net_addr *addrs, size_t count)
{
    CHECK(count > 0);
    struct op_addresses all = {.at = calloc(count, sizeof(*all.at)), .turn = e->addresses.turn};
    if (all.at == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err err = fill(e, addrs, count, &all);
    if (!err_ok(err)) {
        op_addresses_free(&all);
        return err;
    }
    struct op_addresses before = e->addresses;
    e->addresses = all;
    op_addresses_free(&before); /* last: who waits there hears of it, and comes here again. */
    return OK;
}

struct err op_addresses_renew(struct op_endpoint *e)
{
    struct op_addresses *all = &e->addresses;
    struct net_addr *addrs = calloc(all->count, sizeof(*addrs));
    if (addrs == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < all->count; i++) {
        addrs[i] = all->at[i].addr;
    }
    struct err err = op_addresses_set(e, addrs, all->count);
    free(addrs);
    return err;
}

struct op_address *op_addresses_next(struct op_endpoint *e)
{
    struct op_addresses *all = &e->addresses;
    CHECK(all->count > 0);
    uint64_t now_ns = net_loop_now_ns(e->ups->host->loop);
    size_t first = all->turn++ % all->count;
    for (size_t i = 0; i < all->count; i++) {
        struct op_address *a = &all->at[(first + i) % all->count];
        if (a->failed_until_ns <= now_ns) {
            all->turn += i; /* whose turn it was is passed over, and gives nobody a second one. */
            return a;
        }
    }
    return &all->at[first];
}

struct op_address *op_addresses_of(struct op_endpoint *e, const struct h2_pool *pool)
{
    for (size_t i = 0; i < e->addresses.count; i++) {
        if (e->addresses.at[i].pool == pool) {
            return &e->addresses.at[i];
        }
    }
    return NULL;
}

void op_address_report(struct op_address *a, bool reached, uint64_t now_ns)
{
    if (reached) {
        a->failed_ms = 0;
        a->failed_until_ns = 0;
        return;
    }
    if (a->failed_until_ns > now_ns) {
        return; /* one failure, however many waited for the connection. */
    }
    uint32_t ms = a->failed_ms == 0 ? FAILED_FIRST_MS : a->failed_ms * 2;
    a->failed_ms = ms > FAILED_MAX_MS ? FAILED_MAX_MS : ms;
    a->failed_until_ns = now_ns + a->failed_ms * UINT64_C(1000000);
}

void op_addresses_free(struct op_addresses *all)
{
    struct op_address *at = all->at;
    size_t count = all->count;
    *all = (struct op_addresses){.at = NULL};
    for (size_t i = 0; i < count; i++) {
        h2_pool_unref(at[i].pool);
    }
    free(at);
}
