/* cutter: see cutter.h. */
#include "tests/integration/store/cutter.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"

enum { PAIRS_MAX = 8, BLOCK = 64 << 10, STEP_MS = 5 };

struct pair {
    int client; /* -1: the pair is free. */
    int server;
    enum cut cut; /* what happens to the server's next answer. */
};

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return to;
}

static void close_pair(struct pair *p)
{
    (void)close(p->client);
    (void)close(p->server);
    p->client = -1;
}

static void take_connection(struct cutter *c, struct pair *pairs)
{
    int client = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(client >= 0);
    struct sockaddr_in to = loopback(c->server);
    for (int i = 0; i < PAIRS_MAX && !atomic_load(&c->closed); i++) {
        if (pairs[i].client < 0) {
            pairs[i] = (struct pair){.client = client,
                                     .server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
            if (connect(pairs[i].server, (struct sockaddr *)&to, sizeof(to)) != 0) {
                close_pair(&pairs[i]);
            }
            return;
        }
    }
    (void)close(client);
}

static void pass_to_server(struct cutter *c, struct pair *p)
{
    static char block[BLOCK];
    ssize_t size = read(p->client, block, sizeof(block));
    if (size <= 0) {
        close_pair(p);
        return;
    }
    if (memmem(block, (size_t)size, "COMMIT", sizeof("COMMIT")) != NULL) { /* not COMMITTED */
        p->cut = (enum cut)atomic_exchange(&c->next, CUT_NOTHING);
        if (p->cut == CUT_BEFORE) {
            close_pair(p);
            return;
        }
    }
    if (send(p->server, block, (size_t)size, MSG_NOSIGNAL) != size) {
        close_pair(p);
    }
}

static void pass_to_client(struct cutter *c, struct pair *p)
{
    static char block[BLOCK];
    ssize_t size = read(p->server, block, sizeof(block));
    if (size > 0 && p->cut == CUT_SILENT) {
        return;
    }
    if (p->cut == CUT_AFTER_ALL) {
        atomic_store(&c->closed, true);
    }
    if (size <= 0 || p->cut != CUT_NOTHING ||
        send(p->client, block, (size_t)size, MSG_NOSIGNAL) != size) {
        close_pair(p);
    }
}

static void turn(struct cutter *c, struct pair *pairs)
{
    struct pollfd fds[1 + 2 * PAIRS_MAX] = {{.fd = c->listener, .events = POLLIN}};
    for (int i = 0; i < PAIRS_MAX; i++) {
        bool used = pairs[i].client >= 0;
        fds[1 + 2 * i] = (struct pollfd){used ? pairs[i].client : -1, POLLIN, 0};
        fds[2 + 2 * i] = (struct pollfd){used ? pairs[i].server : -1, POLLIN, 0};
    }
    (void)poll(fds, 1 + 2 * PAIRS_MAX, STEP_MS);
    for (int i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].client >= 0 && fds[1 + 2 * i].revents != 0) {
            pass_to_server(c, &pairs[i]);
        }
        if (pairs[i].client >= 0 && fds[2 + 2 * i].revents != 0) {
            pass_to_client(c, &pairs[i]);
        }
    }
    if (fds[0].revents != 0) {
        take_connection(c, pairs);
    }
}

static void *run(void *ctx)
{
    struct cutter *c = ctx;
    struct pair pairs[PAIRS_MAX];
    for (int i = 0; i < PAIRS_MAX; i++) {
        pairs[i] = (struct pair){.client = -1};
    }
    while (!atomic_load(&c->stopping)) {
        turn(c, pairs);
    }
    for (int i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i].client >= 0) {
            close_pair(&pairs[i]);
        }
    }
    return NULL;
}

void cutter_start(struct cutter *c, uint16_t server_port)
{
    *c = (struct cutter){.server = server_port};
    c->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = loopback(0);
    socklen_t size = sizeof(at);
    CHECK(c->listener >= 0);
    CHECK(bind(c->listener, (struct sockaddr *)&at, size) == 0);
    CHECK(listen(c->listener, PAIRS_MAX) == 0);
    CHECK(getsockname(c->listener, (struct sockaddr *)&at, &size) == 0);
    c->port = ntohs(at.sin_port);
    CHECK(pthread_create(&c->thread, NULL, run, c) == 0);
}

void cutter_stop(struct cutter *c)
{
    atomic_store(&c->stopping, true);
    CHECK(pthread_join(c->thread, NULL) == 0);
    CHECK(close(c->listener) == 0);
}
