/* ports: see ports.h. */
#include "tests/support/ports.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"

enum { FIRST = 10000, COUNT = 14000 };

/* A name that one process has at a time; the end of the process closes it. */
static bool reserve(unsigned port)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int size = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "trilane-test-port-%u", port);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && size > 0);
    socklen_t whole = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)size);
    if (bind(fd, (struct sockaddr *)&name, whole) == 0) {
        return true; /* stays open. */
    }
    (void)close(fd);
    return false;
}

static bool is_free(uint16_t port)
{
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    return bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0;
}

uint16_t test_free_port(void)
{
    for (;;) { /* ends with a port: there are more than tests. */
        uint16_t random = 0;
        CHECK(getrandom(&random, sizeof(random), 0) == (ssize_t)sizeof(random));
        uint16_t port = (uint16_t)(FIRST + random % COUNT);
        if (reserve(port) && is_free(port)) {
            return port;
        }
    }
}

int test_deaf_port(uint16_t *out_port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof(at);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&at, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &size) == 0);
    *out_port = ntohs(at.sin_port);
    return fd;
}
