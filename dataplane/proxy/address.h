/*
 * address: may the outside be reached at this address?
 *
 * Shape      one table of ranges, the first that holds the address decides: global, special, or
 *            judged by the IPv4 address inside (NAT64, 6to4, ISATAP, IPv4-mapped). What IANA has
 *            not given to global unicast is special.
 * Threads    pure functions; any thread.
 * Source     IANA IPv4 and IPv6 Special-Purpose Address Registries; RFC 6890, 4291, 6052, 3056,
 *            5214, 9637, 9602.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/slice.h"
#include "common/net/addr.h"

/* An IPv4-mapped address as the IPv4 address that the kernel dials for it; others as they are. */
struct net_addr px_address_normal(const struct net_addr *a);

/* The name of the special range that holds the address ("loopback", "private"); NULL: none. */
const char *px_address_special(const struct net_addr *a);

/* Whether 'a', or the IPv4 address inside of it, lies in "10.0.0.0/8" or "fd00::/8". False also
 * for text that is no range. */
bool px_address_in(const struct net_addr *a, struct slice range);

/* Whether an Egress with these ranges may dial it: it is not special, or in one of them. */
bool px_address_allowed(const struct net_addr *a, const struct slice *ranges, size_t range_count);

/* Whether dialling it would reach one of our own listening sockets. Asks the kernel which
 * addresses are this machine's only when a port is the same and one side names no address. */
bool px_address_is_own(const struct net_addr *a, const struct net_addr *listens,
                       size_t listen_count);
