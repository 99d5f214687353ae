/*
 * addresses: where an endpoint can be reached: one address of a literal, as many as there are of a
 * name, each with its pool of connections.
 *
 * Shape      who waits for a connection is given an address in turn. One that refused connections
 *            is passed over for 1 s, then 2, 4, up to 30 s, while there is another one. Addresses
 *            are of one family: that of the one which is best to reach (RFC 6724).
 * Units      *_ns of the loop's clock.
 * Ownership  the endpoint's; an address holds its pool. Addresses that stay keep what is known.
 * Threads    one worker.
 * Errors     E_NO_MEMORY, E_UPSTREAM_CONNECT (the node was given no certificates).
 * Source     docs/decisions/0171-names-have-addresses.md.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/net/addr.h"

struct h2_pool;
struct op_endpoint;

struct op_address {
    struct net_addr addr;
    char text[NET_ADDR_TEXT_MAX]; /* what the log calls it. */
    struct h2_pool *pool;         /* a reference. */
    uint64_t failed_until_ns;     /* left alone until then, when there is another one. */
    uint32_t failed_ms;           /* for how long the next time; zero: it did not fail. */
};

struct op_addresses {
    struct op_address *at; /* owned. */
    size_t count;          /* zero: none is known yet. */
    size_t turn;           /* the next one to be given. */
};

/* These are the endpoint's addresses from now on, with what secures its connections now. Who waits
 * at one that is not among them any more hears of it (E_DRAINING). On failure all is as before. */
MUST_CHECK struct err op_addresses_set(struct op_endpoint *e, const struct net_addr *addrs,
                                       size_t count);

/* The same addresses with what secures the endpoint's connections now. */
MUST_CHECK struct err op_addresses_renew(struct op_endpoint *e);

/* The next in turn that did not fail of late; else the next in turn. There is one. */
struct op_address *op_addresses_next(struct op_endpoint *e);

/* The address with this pool; NULL: it is not the endpoint's any more. */
struct op_address *op_addresses_of(struct op_endpoint *e, const struct h2_pool *pool);

/* How connecting there went. */
void op_address_report(struct op_address *a, bool reached, uint64_t now_ns);

void op_addresses_free(struct op_addresses *all);
