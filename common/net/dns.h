/*
 * dns: names to addresses, without waiting.
 *
 * Shape      c-ares on a loop: A and AAAA together, the hosts file first. IP literals are answered
 *            without asking anybody.
 * Units      milliseconds.
 * Ownership  the resolver is its loop's; addresses are borrowed for the callback.
 * Threads    the loop's thread.
 * Errors     E_NOT_FOUND (no such name, no address), E_TIMEOUT (limits.dns_timeout_ms),
 *            E_MALFORMED (not a name), E_UNAVAILABLE (no server answers), E_CLOSED (cancelled).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/addr.h"
#include "common/net/loop.h"

struct net_dns;
struct net_dns_query;

/* Up to limits.dns_addresses addresses, each with the port that was given; the best first (RFC
 * 6724). */
typedef void net_dns_fn(void *ctx, struct err how, const struct net_addr *addrs, size_t count);

/* 'servers': "127.0.0.1:5353,…" instead of the system's; NULL as a rule. */
MUST_CHECK struct err net_dns_new(struct net_loop *loop, const char *servers, struct net_dns **out);

/*
 * Looks 'host' up (a literal without brackets, or a name of at most 253 bytes). The callback comes
 * once, never from inside this call, unless the query is cancelled. *out may be NULL when it
 * will not be cancelled. E_NO_MEMORY, E_QUEUE_FULL (limits.dns_queries).
 */
MUST_CHECK struct err net_dns_resolve(struct net_dns *dns, struct slice host, uint16_t port,
                                      net_dns_fn *fn, void *ctx, struct net_dns_query **out);

enum { NET_DNS_TTL_UNSAID = -1 };

/* Inside of a callback: for how many seconds its addresses hold, the least of all their records;
 * NET_DNS_TTL_UNSAID: nobody said, as of literals. What the hosts file has holds for no time. */
int64_t net_dns_ttl_s(const struct net_dns *dns);

/* The callback will not come. Only for a query whose callback has not come. */
void net_dns_cancel(struct net_dns_query *query);

/* Open queries get E_CLOSED. Accepts NULL. */
void net_dns_free(struct net_dns *dns);
