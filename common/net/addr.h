/*
 * addr: an IP address and a port.
 *
 * Shape      a sockaddr of IPv4 or IPv6, by value.
 * Threads    pure values; any thread. net_addr_resolve_boot() may wait for a resolver.
 * Errors     E_MALFORMED for text that is none.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct net_addr {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sa; /* sa.any.sa_family: AF_INET, AF_INET6, or AF_UNSPEC while empty. */
};

/* Longest text of an address: "[" v6 "%" scope "]:65535" and a NUL. */
enum { NET_ADDR_TEXT_MAX = 72 };

/* Reads an IP literal without brackets; *out is untouched when it is none. */
MUST_CHECK struct err net_addr_from_ip(struct slice ip, uint16_t port, struct net_addr *out);

/* Reads "1.2.3.4:80" or "[::1]:80": literals only, no resolving. */
MUST_CHECK struct err net_addr_parse(struct slice text, struct net_addr *out);

/*
 * Splits "host:port" or "[v6]:port"; 'out_host' is without brackets and may be empty.
 * E_MALFORMED for a missing or wrong port, or a colon in a host without brackets.
 */
MUST_CHECK struct err net_host_port(struct slice text, struct slice *out_host, uint16_t *out_port);

/* Like net_addr_parse(), but a name is looked up, waiting: at boot only. E_NOT_FOUND. */
MUST_CHECK struct err net_addr_resolve_boot(struct slice text, struct net_addr *out);

/* Writes "1.2.3.4:80" or "[::1]:80" and a NUL; returns 'out'. */
const char *net_addr_text(const struct net_addr *a, char out[NET_ADDR_TEXT_MAX]);

/* Size of the sockaddr for system calls. */
socklen_t net_addr_size(const struct net_addr *a);

uint16_t net_addr_port(const struct net_addr *a);
void net_addr_set_port(struct net_addr *a, uint16_t port);
bool net_addr_eq(const struct net_addr *a, const struct net_addr *b);

/* What counts as one caller's: an IPv4 address, as itself or in IPv6, or the first 64 bits of an
 * IPv6 address, of which whoever has one has all. Never zero. */
uint64_t net_addr_source(const struct net_addr *a);
