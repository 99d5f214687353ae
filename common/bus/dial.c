/* dial: see dial.h. */
#include "common/bus/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/base/slice.h"

int dial_left_ms(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns();
    return now_ns >= deadline_ns ? 0 : (int)((deadline_ns - now_ns) / 1000000 + 1);
}

/* ---- URLs ---- */

static bool take(struct slice from, char *to, size_t size)
{
    if (from.size >= size) {
        return false;
    }
    if (from.size > 0) {
        memcpy(to, from.ptr, from.size);
    }
    to[from.size] = '\0';
    return true;
}

/* Where 'c' stands last; the size when it does not. */
static size_t find_last(struct slice s, char c)
{
    for (size_t i = s.size; i > 0; i--) {
        if (s.ptr[i - 1] == (uint8_t)c) {
            return i - 1;
        }
    }
    return s.size;
}

struct err dial_parse(const char *url, struct dial_url *out)
{
    struct slice rest = slice_str(url);
    *out = (struct dial_url){0};
    const char *scheme_end = strstr(url, "://");
    if (scheme_end != NULL) {
        out->tls = slice_starts(rest, SLICE_LIT("tls://"));
        rest = slice_str(scheme_end + 3);
    }
    size_t at = find_last(rest, '@');
    if (at < rest.size) {
        if (!take(slice_head(rest, at), out->user, sizeof(out->user))) {
            return FAIL(E_MALFORMED);
        }
        rest = slice_from(rest, at + 1);
    }
    size_t host_end = find_last(rest, ':');
    if (rest.size > 0 && rest.ptr[0] == '[') { /* colons of an address of IPv6 are no port's. */
        rest = slice_from(rest, 1);
        host_end = slice_find(rest, ']');
        if (host_end == rest.size) {
            return FAIL(E_MALFORMED);
        }
    }
    struct slice host = slice_head(rest, host_end);
    struct slice port = slice_from(rest, host_end);
    if (slice_starts(port, SLICE_LIT("]"))) {
        port = slice_from(port, 1);
    }
    port = port.size == 0 ? SLICE_LIT(":4222") : port;
    bool fits = host.size > 0 && port.size > 1 && port.ptr[0] == ':' &&
                take(host, out->host, sizeof(out->host)) &&
                take(slice_from(port, 1), out->port, sizeof(out->port));
    return fits ? OK : FAIL(E_MALFORMED);
}

bool dial_is_loopback(const struct dial_url *url)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (strcmp(url->host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, url->host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, url->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

/* ---- sockets ---- */

struct err dial(const char *host, const char *port, uint64_t deadline_ns, int *out_fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        return FAIL(E_UNAVAILABLE);
    }
    auto_close int fd = -1;
    bool connected = false;
    for (struct addrinfo *at = list; at != NULL && !connected; at = at->ai_next) {
        scope_close(&fd);
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            continue;
        }
        (void)connect(fd, at->ai_addr, at->ai_addrlen); /* its outcome is SO_ERROR's. */
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        int error = 0;
        socklen_t size = sizeof(error);
        connected = poll(&ready, 1, dial_left_ms(deadline_ns)) == 1 &&
                    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
    freeaddrinfo(list);
    if (!connected) {
        return FAIL(E_UNAVAILABLE);
    }
    *out_fd = TAKE_FD(fd);
    return OK;
}

struct err dial_read_line(int fd, uint64_t deadline_ns, struct buf *line)
{
    for (;;) { /* ends: at a line's end, at the bound, or by time. */
        size_t end = slice_find(buf_slice(line), '\n');
        if (end < line->size) {
            line->size = end;
            return OK;
        }
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, dial_left_ms(deadline_ns)) != 1) {
            return FAIL(E_TIMEOUT);
        }
        uint8_t *to = NULL;
        TRY(buf_reserve(line, 1024, &to));
        ssize_t got = recv(fd, to, 1024, 0);
        if (got <= 0) {
            return FAIL(E_UNAVAILABLE);
        }
        buf_commit(line, (size_t)got);
    }
}
