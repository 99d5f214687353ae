/* address: see address.h. */
#include "dataplane/proxy/address.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"

enum { V4_BYTES = 4, V6_BYTES = 16 };

struct v4_range {
    uint8_t bytes[V4_BYTES];
    unsigned bits;
    const char *name;
};

/* None of these overlap. */
static const struct v4_range v4_ranges[] = {
    {{0, 0, 0, 0}, 8, "this network"},
    {{10, 0, 0, 0}, 8, "private"},
    {{100, 64, 0, 0}, 10, "shared by carriers"},
    {{127, 0, 0, 0}, 8, "loopback"},
    {{169, 254, 0, 0}, 16, "link-local"},
    {{172, 16, 0, 0}, 12, "private"},
    {{192, 0, 0, 0}, 24, "protocol assignments"},
    {{192, 0, 2, 0}, 24, "documentation"},
    {{192, 88, 99, 0}, 24, "6to4 relay"},
    {{192, 168, 0, 0}, 16, "private"},
    {{198, 18, 0, 0}, 15, "benchmarking"},
    {{198, 51, 100, 0}, 24, "documentation"},
    {{203, 0, 113, 0}, 24, "documentation"},
    {{224, 0, 0, 0}, 4, "multicast"},
    {{240, 0, 0, 0}, 4, "reserved"}, /* with the broadcast address. */
};

enum v6_verdict { V6_SPECIAL, V6_GLOBAL, V6_EMBEDS };

struct v6_range {
    uint8_t bytes[V6_BYTES];
    unsigned bits;
    enum v6_verdict verdict;
    unsigned embedded_at; /* V6_EMBEDS: first byte of the IPv4 address. */
    const char *name;
};

/* The first that matches decides: the narrower before the wider. */
static const struct v6_range v6_ranges[] = {
    {{[15] = 1}, 128, V6_SPECIAL, 0, "loopback"},
    {{[10] = 0xff, [11] = 0xff}, 96, V6_EMBEDS, 12, "IPv4-mapped"},
    {{0}, 96, V6_SPECIAL, 0, "unspecified or IPv4-compatible"},
    {{0x00, 0x64, 0xff, 0x9b}, 96, V6_EMBEDS, 12, "NAT64"},
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, V6_SPECIAL, 0, "local NAT64"},
    {{0x01, 0x00}, 64, V6_SPECIAL, 0, "discard"},
    {{0x20, 0x01}, 23, V6_SPECIAL, 0, "protocol assignments"}, /* with Teredo. */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, V6_SPECIAL, 0, "documentation"},
    {{0x20, 0x02}, 16, V6_EMBEDS, 2, "6to4"},
    {{0x3f, 0xff}, 20, V6_SPECIAL, 0, "documentation"},
    {{0x20}, 3, V6_GLOBAL, 0, "global unicast"},
    {{0x5f}, 16, V6_SPECIAL, 0, "segment routing"},
    {{0xfc}, 7, V6_SPECIAL, 0, "unique local"},
    {{0xfe, 0x80}, 10, V6_SPECIAL, 0, "link-local"},
    {{0xfe, 0xc0}, 10, V6_SPECIAL, 0, "site-local"},
    {{0xff}, 8, V6_SPECIAL, 0, "multicast"},
    {{0}, 0, V6_SPECIAL, 0, "not assigned"},
};

static bool starts_with_bits(const uint8_t *address, const uint8_t *prefix, unsigned bits)
{
    unsigned whole = bits / 8;
    unsigned rest = bits % 8;
    if (memcmp(address, prefix, whole) != 0) {
        return false;
    }
    return rest == 0 || ((address[whole] ^ prefix[whole]) >> (8 - rest)) == 0;
}

/* The name of the special range of an IPv4 address; NULL: none. */
static const char *v4_special(const uint8_t *bytes)
{
    for (size_t i = 0; i < sizeof(v4_ranges) / sizeof(v4_ranges[0]); i++) {
        if (starts_with_bits(bytes, v4_ranges[i].bytes, v4_ranges[i].bits)) {
            return v4_ranges[i].name;
        }
    }
    return NULL;
}

static const struct v6_range *v6_find(const uint8_t *bytes)
{
    size_t i = 0;
    while (!starts_with_bits(bytes, v6_ranges[i].bytes, v6_ranges[i].bits)) {
        i++; /* ends: the last row matches all. */
    }
    CHECK(i < sizeof(v6_ranges) / sizeof(v6_ranges[0]));
    return &v6_ranges[i];
}

/* RFC 5214, 6.1: an interface identifier of 00-00-5e-fe or 02-00-5e-fe, then an IPv4 address. */
static bool is_isatap(const uint8_t *bytes)
{
    return (bytes[8] & ~0x03) == 0 && bytes[9] == 0 && bytes[10] == 0x5e && bytes[11] == 0xfe;
}

/* The IPv4 address that a packet to this one ends up at; NULL: none. */
static const uint8_t *embedded_v4(const uint8_t *v6)
{
    const struct v6_range *range = v6_find(v6);
    if (range->verdict == V6_EMBEDS) {
        return v6 + range->embedded_at;
    }
    return is_isatap(v6) ? v6 + 12 : NULL;
}

static const uint8_t *v4_bytes(const struct net_addr *a)
{
    return (const uint8_t *)&a->sa.v4.sin_addr;
}

struct net_addr px_address_normal(const struct net_addr *a)
{
    static const uint8_t mapped[V6_BYTES] = {[10] = 0xff, [11] = 0xff};
    if (a->sa.any.sa_family != AF_INET6 ||
        !starts_with_bits(a->sa.v6.sin6_addr.s6_addr, mapped, 96)) {
        return *a;
    }
    struct net_addr normal = {.sa.v4 = {.sin_family = AF_INET, .sin_port = a->sa.v6.sin6_port}};
    (void)memcpy(&normal.sa.v4.sin_addr, a->sa.v6.sin6_addr.s6_addr + 12, V4_BYTES);
    return normal;
}

const char *px_address_special(const struct net_addr *a)
{
    if (a->sa.any.sa_family == AF_INET) {
        return v4_special(v4_bytes(a));
    }
    if (a->sa.any.sa_family != AF_INET6) {
        return "no address";
    }
    const uint8_t *bytes = a->sa.v6.sin6_addr.s6_addr;
    const struct v6_range *range = v6_find(bytes);
    if (range->verdict == V6_SPECIAL) {
        return range->name;
    }
    const uint8_t *inside = embedded_v4(bytes);
    return inside == NULL ? NULL : v4_special(inside);
}

bool px_address_in(const struct net_addr *a, struct slice range)
{
    size_t slash = slice_find(range, '/');
    uint64_t bits = 0;
    struct net_addr prefix = {0};
    if (!slice_to_u64(slice_from(range, slash + 1), &bits) ||
        !err_ok(net_addr_from_ip(slice_head(range, slash), 0, &prefix))) {
        return false;
    }
    bool v6 = a->sa.any.sa_family == AF_INET6;
    if (prefix.sa.any.sa_family == AF_INET6) {
        return v6 && bits <= 128 &&
               starts_with_bits(a->sa.v6.sin6_addr.s6_addr, prefix.sa.v6.sin6_addr.s6_addr,
                                (unsigned)bits);
    }
    const uint8_t *bytes = v6 ? embedded_v4(a->sa.v6.sin6_addr.s6_addr) : v4_bytes(a);
    return bytes != NULL && bits <= 32 &&
           starts_with_bits(bytes, v4_bytes(&prefix), (unsigned)bits);
}

bool px_address_allowed(const struct net_addr *a, const struct slice *ranges, size_t range_count)
{
    if (px_address_special(a) == NULL) {
        return true;
    }
    for (size_t i = 0; i < range_count; i++) {
        if (px_address_in(a, ranges[i])) {
            return true;
        }
    }
    return false;
}

static bool is_any(const struct net_addr *a)
{
    return a->sa.any.sa_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&a->sa.v6.sin6_addr)
                                           : a->sa.v4.sin_addr.s_addr == 0;
}

/* Only an address of this machine can be bound to. */
static bool is_this_machine(const struct net_addr *a)
{
    struct net_addr probe = *a;
    net_addr_set_port(&probe, 0);
    auto_close int fd = socket(probe.sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 || bind(fd, &probe.sa.any, net_addr_size(&probe)) == 0;
}

bool px_address_is_own(const struct net_addr *a, const struct net_addr *listens,
                       size_t listen_count)
{
    struct net_addr dialled = px_address_normal(a);
    for (size_t i = 0; i < listen_count; i++) {
        struct net_addr own = px_address_normal(&listens[i]);
        if (net_addr_port(&own) != net_addr_port(&dialled)) {
            continue;
        }
        if (is_any(&own) || is_any(&dialled) ? is_this_machine(&dialled)
                                             : net_addr_eq(&own, &dialled)) {
            return true;
        }
    }
    return false;
}
