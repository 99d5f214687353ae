/* dns: c-ares on a loop. It tells us which sockets to watch; a query's own timer bounds the whole,
 * whatever c-ares still tries. */
#include "common/net/dns.h"

#include <ares.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/loop_impl.h"

enum { NAME_BYTES_MAX = 253, LABEL_BYTES_MAX = 63, TRY_MS = 1000, TRIES = 3, ADDRS_MAX = 64 };

/* A socket of c-ares. */
struct dns_socket {
    uv_poll_t poll;
    struct dns_socket *next;
    struct net_dns *dns;
    ares_socket_t fd;
};

struct net_dns {
    struct net_loop *loop;
    ares_channel channel;
    struct net_timer timer; /* what c-ares wants to be called for. */
    struct dns_socket *sockets;
    struct net_dns_query *queries;
    size_t query_count;
    int64_t ttl_s; /* of the answer that is told now. */
};

struct net_dns_query {
    struct net_dns *dns;
    struct net_dns_query *next;
    struct net_dns_query **link;
    net_dns_fn *fn; /* NULL: told, or cancelled. */
    void *ctx;
    struct net_timer timer;
    struct net_hook hook; /* queued: the result is here. */
    bool in_ares;         /* c-ares has yet to call back. */
    uint16_t port;
    struct err how;
    int64_t ttl_s;
    size_t count;
    struct net_addr addrs[ADDRS_MAX];
};

static pthread_once_t ares_once = PTHREAD_ONCE_INIT;

static void ares_once_init(void)
{
    CHECK(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS);
}

static void dns_arm(struct net_dns *dns)
{
    struct timeval most = {.tv_sec = TRY_MS / 1000};
    struct timeval wait = {0};
    if (dns->query_count == 0) {
        net_timer_cancel(dns->loop, &dns->timer);
        return;
    }
    const struct timeval *next = ares_timeout(dns->channel, &most, &wait);
    net_timer_arm(dns->loop, &dns->timer,
                  (uint64_t)next->tv_sec * 1000 + (uint64_t)next->tv_usec / 1000 + 1);
}

static void on_dns_timer(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct net_dns *dns = ctx;
    ares_process_fd(dns->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    dns_arm(dns);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct dns_socket *s = poll->data;
    struct net_dns *dns = s->dns;
    ares_socket_t fd = s->fd;
    bool in = status < 0 || (events & UV_READABLE) != 0;
    bool out = status < 0 || (events & UV_WRITABLE) != 0;
    /* The socket may be gone when this returns. */
    ares_process_fd(dns->channel, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
    dns_arm(dns);
}

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void socket_forget(struct net_dns *dns, ares_socket_t fd)
{
    struct dns_socket **link = &dns->sockets;
    while (*link != NULL && (*link)->fd != fd) {
        link = &(*link)->next;
    }
    struct dns_socket *s = *link;
    if (s != NULL) {
        *link = s->next;
        uv_close((uv_handle_t *)&s->poll, on_socket_closed);
    }
}

static struct dns_socket *socket_find(struct net_dns *dns, ares_socket_t fd)
{
    for (struct dns_socket *s = dns->sockets; s != NULL; s = s->next) {
        if (s->fd == fd) {
            return s;
        }
    }
    struct dns_socket *s = calloc(1, sizeof(*s));
    if (s == NULL || uv_poll_init(&dns->loop->uv, &s->poll, fd) != 0) {
        free(s);
        return NULL; /* unwatched: the query's timer ends it. */
    }
    s->poll.data = s;
    s->dns = dns;
    s->fd = fd;
    s->next = dns->sockets;
    dns->sockets = s;
    return s;
}

/* c-ares: watch this socket for that; for neither: it is about to be closed. */
static void on_socket_state(void *ctx, ares_socket_t fd, int readable, int writable)
{
    struct net_dns *dns = ctx;
    if (readable == 0 && writable == 0) {
        socket_forget(dns, fd);
        return;
    }
    struct dns_socket *s = socket_find(dns, fd);
    if (s != NULL) {
        int events = (readable != 0 ? UV_READABLE : 0) | (writable != 0 ? UV_WRITABLE : 0);
        CHECK(uv_poll_start(&s->poll, events, on_socket) == 0);
    }
}

struct err net_dns_new(struct net_loop *loop, const char *servers, struct net_dns **out)
{
    CHECK(pthread_once(&ares_once, ares_once_init) == 0);
    struct net_dns *dns = calloc(1, sizeof(*dns));
    if (dns == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    char lookups[] = "fb"; /* the hosts file, then servers. */
    struct ares_options options = {
        .timeout = TRY_MS,
        .tries = TRIES,
        .lookups = lookups,
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = dns,
    };
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    dns->loop = loop;
    net_timer_init(&dns->timer, on_dns_timer, dns);
    if (ares_init_options(&dns->channel, &options, mask) != ARES_SUCCESS) {
        free(dns);
        return FAIL(E_IO);
    }
    if (servers != NULL && ares_set_servers_ports_csv(dns->channel, servers) != ARES_SUCCESS) {
        ares_destroy(dns->channel);
        free(dns);
        return FAIL(E_USAGE);
    }
    loop->users++;
    *out = dns;
    return OK;
}

static void query_free(struct net_dns_query *q)
{
    net_timer_cancel(q->dns->loop, &q->timer);
    net_hook_cancel(q->dns->loop, &q->hook);
    *q->link = q->next;
    if (q->next != NULL) {
        q->next->link = q->link;
    }
    q->dns->query_count--;
    free(q);
}

static void query_tell(struct net_dns_query *q, struct err how)
{
    net_dns_fn *fn = q->fn;
    q->fn = NULL;
    q->dns->ttl_s = q->ttl_s;
    if (fn != NULL) {
        fn(q->ctx, how, q->addrs, err_ok(how) ? q->count : 0);
    }
}

static void on_query_hook(struct net_hook *hook, void *ctx)
{
    (void)hook;
    struct net_dns_query *q = ctx;
    query_tell(q, q->how);
    query_free(q);
}

static void on_query_timer(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct net_dns_query *q = ctx;
    query_tell(q, FAIL(E_TIMEOUT)); /* stays until c-ares has called back. */
}

static struct err ares_failure(int status)
{
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        return FAIL(E_NOT_FOUND);
    case ARES_EBADNAME:
        return FAIL(E_MALFORMED);
    case ARES_ETIMEOUT:
        return FAIL(E_TIMEOUT);
    case ARES_ENOMEM:
        return FAIL(E_NO_MEMORY);
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION:
        return FAIL(E_CLOSED);
    default:
        return FAIL(E_UNAVAILABLE);
    }
}

static void query_take(struct net_dns_query *q, const struct ares_addrinfo_node *node)
{
    struct net_addr a = {0};
    size_t max = limits.dns_addresses < ADDRS_MAX ? limits.dns_addresses : ADDRS_MAX;
    bool known = node->ai_family == AF_INET || node->ai_family == AF_INET6;
    if (!known || q->count >= max || (size_t)node->ai_addrlen > sizeof(a.sa)) {
        return;
    }
    memcpy(&a.sa, node->ai_addr, (size_t)node->ai_addrlen);
    net_addr_set_port(&a, q->port);
    for (size_t i = 0; i < q->count; i++) {
        if (net_addr_eq(&a, &q->addrs[i])) {
            return;
        }
    }
    q->addrs[q->count++] = a;
    bool less = q->ttl_s == NET_DNS_TTL_UNSAID || node->ai_ttl < q->ttl_s;
    q->ttl_s = less ? node->ai_ttl : q->ttl_s;
}

static void on_answer(void *ctx, int status, int timeouts, struct ares_addrinfo *found)
{
    (void)timeouts;
    struct net_dns_query *q = ctx;
    q->in_ares = false;
    q->how = status == ARES_SUCCESS ? OK : ares_failure(status);
    for (struct ares_addrinfo_node *n = found == NULL ? NULL : found->nodes; n != NULL;
         n = n->ai_next) {
        query_take(q, n);
    }
    if (err_ok(q->how) && q->count == 0) {
        q->how = FAIL(E_NOT_FOUND);
    }
    ares_freeaddrinfo(found);
    net_hook_queue(q->dns->loop, &q->hook);
}

int64_t net_dns_ttl_s(const struct net_dns *dns)
{
    return dns->ttl_s;
}

/* Labels of letters, digits, '-' and '_', with a dot between; one at the end is allowed. */
static bool name_valid(struct slice host)
{
    struct slice rest = slice_ends(host, SLICE_LIT(".")) ? slice_head(host, host.size - 1) : host;
    if (rest.size == 0 || rest.size > NAME_BYTES_MAX) {
        return false;
    }
    size_t label = 0;
    for (size_t i = 0; i < rest.size; i++) {
        uint8_t c = rest.ptr[i];
        uint8_t lower = c | 0x20;
        bool dot = c == '.';
        bool fits =
            (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if ((!dot && !fits) || (dot && label == 0) || label > LABEL_BYTES_MAX) {
            return false;
        }
        label = dot ? 0 : label + 1;
    }
    return label > 0 && label <= LABEL_BYTES_MAX;
}

static struct net_dns_query *query_new(struct net_dns *dns)
{
    struct net_dns_query *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return NULL;
    }
    q->dns = dns;
    q->ttl_s = NET_DNS_TTL_UNSAID;
    net_timer_init(&q->timer, on_query_timer, q);
    net_hook_init(&q->hook, NET_HOOK_WORK, on_query_hook, q);
    q->next = dns->queries;
    q->link = &dns->queries;
    if (q->next != NULL) {
        q->next->link = &q->next;
    }
    dns->queries = q;
    dns->query_count++;
    return q;
}

static void query_ask(struct net_dns_query *q, struct slice host)
{
    char name[NAME_BYTES_MAX + 2] = {0};
    memcpy(name, host.ptr, host.size);
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    q->in_ares = true;
    net_timer_arm(q->dns->loop, &q->timer, limits.dns_timeout_ms);
    ares_getaddrinfo(q->dns->channel, name, NULL, &hints, on_answer, q);
    dns_arm(q->dns);
}

struct err net_dns_resolve(struct net_dns *dns, struct slice host, uint16_t port, net_dns_fn *fn,
                           void *ctx, struct net_dns_query **out)
{
    CHECK(fn != NULL);
    if (dns->query_count >= limits.dns_queries) {
        return FAIL(E_QUEUE_FULL);
    }
    struct net_dns_query *q = query_new(dns);
    if (q == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    q->fn = fn;
    q->ctx = ctx;
    q->port = port;
    if (err_ok(net_addr_from_ip(host, port, &q->addrs[0]))) {
        q->count = 1;
        net_hook_queue(dns->loop, &q->hook);
    } else if (!name_valid(host)) {
        q->how = FAIL(E_MALFORMED);
        net_hook_queue(dns->loop, &q->hook);
    } else {
        query_ask(q, host);
    }
    if (out != NULL) {
        *out = q;
    }
    return OK;
}

void net_dns_cancel(struct net_dns_query *query)
{
    CHECK(query->fn != NULL);
    query->fn = NULL;
    net_timer_cancel(query->dns->loop, &query->timer);
    if (!query->in_ares) {
        query_free(query);
    }
}

void net_dns_free(struct net_dns *dns)
{
    if (dns == NULL) {
        return;
    }
    ares_destroy(dns->channel); /* calls back for every open query. */
    while (dns->queries != NULL) {
        struct net_dns_query *q = dns->queries;
        query_tell(q, err_ok(q->how) || q->how.code == E_CLOSED ? FAIL(E_CLOSED) : q->how);
        query_free(q);
    }
    CHECK(dns->sockets == NULL);
    net_timer_cancel(dns->loop, &dns->timer);
    dns->loop->users--;
    free(dns);
}
