/* addr: see addr.h. */
#include "common/net/addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"

enum { HOST_MAX = 253 };

struct err net_addr_from_ip(struct slice ip, uint16_t port, struct net_addr *out)
{
    char text[INET6_ADDRSTRLEN] = {0};
    if (ip.size == 0 || ip.size >= sizeof(text)) {
        return FAIL(E_MALFORMED);
    }
    memcpy(text, ip.ptr, ip.size);
    if (strlen(text) != ip.size) {
        return FAIL(E_MALFORMED);
    }
    struct net_addr a = {0};
    if (inet_pton(AF_INET, text, &a.sa.v4.sin_addr) == 1) {
        a.sa.v4.sin_family = AF_INET;
    } else if (inet_pton(AF_INET6, text, &a.sa.v6.sin6_addr) == 1) {
        a.sa.v6.sin6_family = AF_INET6;
    } else {
        return FAIL(E_MALFORMED);
    }
    net_addr_set_port(&a, port);
    *out = a;
    return OK;
}

struct err net_addr_parse(struct slice text, struct net_addr *out)
{
    struct slice host = {0};
    uint16_t port = 0;
    TRY(net_host_port(text, &host, &port));
    struct net_addr a = {0};
    TRY(net_addr_from_ip(host, port, &a));
    /* "::1" needs its brackets, and "1.2.3.4" must have none. */
    if ((a.sa.any.sa_family == AF_INET6) != (text.ptr[0] == '[')) {
        return FAIL(E_MALFORMED);
    }
    *out = a;
    return OK;
}

struct err net_host_port(struct slice text, struct slice *out_host, uint16_t *out_port)
{
    struct slice host = {0};
    struct slice port = {0};
    if (text.size > 0 && text.ptr[0] == '[') {
        size_t end = slice_find(text, ']');
        if (end + 1 >= text.size || text.ptr[end + 1] != ':') {
            return FAIL(E_MALFORMED);
        }
        host = slice_of(text.ptr + 1, end - 1);
        port = slice_from(text, end + 2);
        if (slice_find(host, ':') == host.size) {
            return FAIL(E_MALFORMED);
        }
    } else {
        size_t colon = slice_find(text, ':');
        host = slice_head(text, colon);
        port = colon < text.size ? slice_from(text, colon + 1) : port;
    }
    uint64_t number = 0;
    if (port.size > 5 || !slice_to_u64(port, &number) || number > UINT16_MAX) {
        return FAIL(E_MALFORMED);
    }
    *out_host = host;
    *out_port = (uint16_t)number;
    return OK;
}

struct err net_addr_resolve_boot(struct slice text, struct net_addr *out)
{
    if (err_ok(net_addr_parse(text, out))) {
        return OK;
    }
    struct slice host = {0};
    uint16_t port = 0;
    TRY(net_host_port(text, &host, &port));
    char name[HOST_MAX + 1] = {0};
    if (host.size > HOST_MAX) {
        return FAIL(E_MALFORMED);
    }
    if (host.size > 0) {
        memcpy(name, host.ptr, host.size);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host.size == 0 ? NULL : name, "0", &hints, &found) != 0) {
        return FAIL(E_NOT_FOUND);
    }
    struct net_addr a = {0};
    CHECK(found->ai_addrlen <= sizeof(a.sa));
    memcpy(&a.sa, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    net_addr_set_port(&a, port);
    *out = a;
    return OK;
}

const char *net_addr_text(const struct net_addr *a, char out[NET_ADDR_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN] = "";
    if (a->sa.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &a->sa.v6.sin6_addr, ip, sizeof(ip));
        (void)snprintf(out, NET_ADDR_TEXT_MAX, "[%s]:%u", ip, net_addr_port(a));
    } else if (a->sa.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &a->sa.v4.sin_addr, ip, sizeof(ip));
        (void)snprintf(out, NET_ADDR_TEXT_MAX, "%s:%u", ip, net_addr_port(a));
    } else {
        (void)snprintf(out, NET_ADDR_TEXT_MAX, "-");
    }
    return out;
}

socklen_t net_addr_size(const struct net_addr *a)
{
    return a->sa.any.sa_family == AF_INET6 ? sizeof(a->sa.v6) : sizeof(a->sa.v4);
}

uint16_t net_addr_port(const struct net_addr *a)
{
    return ntohs(a->sa.any.sa_family == AF_INET6 ? a->sa.v6.sin6_port : a->sa.v4.sin_port);
}

void net_addr_set_port(struct net_addr *a, uint16_t port)
{
    if (a->sa.any.sa_family == AF_INET6) {
        a->sa.v6.sin6_port = htons(port);
    } else {
        a->sa.v4.sin_port = htons(port);
    }
}

bool net_addr_eq(const struct net_addr *a, const struct net_addr *b)
{
    if (a->sa.any.sa_family != b->sa.any.sa_family || net_addr_port(a) != net_addr_port(b)) {
        return false;
    }
    if (a->sa.any.sa_family == AF_INET6) {
        return memcmp(&a->sa.v6.sin6_addr, &b->sa.v6.sin6_addr, sizeof(struct in6_addr)) == 0 &&
               a->sa.v6.sin6_scope_id == b->sa.v6.sin6_scope_id;
    }
    return a->sa.v4.sin_addr.s_addr == b->sa.v4.sin_addr.s_addr;
}

uint64_t net_addr_source(const struct net_addr *a)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff}; /* IPv4 in IPv6. */
    uint64_t source = 0;
    if (a->sa.any.sa_family == AF_INET) {
        return UINT64_C(1) << 32 | ntohl(a->sa.v4.sin_addr.s_addr);
    }
    const uint8_t *bytes = a->sa.v6.sin6_addr.s6_addr;
    bool is_v4 = memcmp(bytes, mapped, sizeof(mapped)) == 0;
    size_t from = is_v4 ? sizeof(mapped) : 0;
    for (size_t i = from; i < from + (is_v4 ? 4 : 8); i++) {
        source = source << 8 | bytes[i];
    }
    /* A mark behind the prefix' bits would have no room: no prefix in use begins with this bit. */
    return is_v4 ? UINT64_C(1) << 32 | source : source | UINT64_C(1) << 63;
}
