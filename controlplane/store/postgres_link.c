/* postgres_link: see postgres_link.h. */
#include "controlplane/store/postgres_link.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/slice.h"

enum {
    PARAMETERS_MAX = 80, /* libpq knows about 45. */
    HOST_MAX = 256,
    HOSTS_MAX = 16,
    REASON_MAX = 1024,
};

/* ---- the URL ---- */

static const char *option(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (strcmp(o->keyword, keyword) == 0) {
            return o->val;
        }
    }
    return NULL;
}

static unsigned list_count(const char *list)
{
    unsigned count = 1;
    for (const char *at = list; *at != '\0'; at++) {
        count += *at == ',';
    }
    return count;
}

/* The index-th of a list with commas; of a list of one, that one. */
static struct slice list_item(const char *list, unsigned index)
{
    struct slice rest = slice_str(list);
    for (unsigned i = 0; i < index && list_count(list) > 1; i++) {
        rest = slice_from(rest, slice_find(rest, ',') + 1);
    }
    return slice_head(rest, slice_find(rest, ','));
}

struct err pg_link_init(struct pg_link *link, const char *url, struct buf *message)
{
    /* libpq's sentence quotes what it could not read, which may be the password. */
    static const char sentence[] = "store: the URL does not parse; expected "
                                   "postgresql://USER@HOST:PORT/DATABASE?sslmode=verify-full";
    *link = (struct pg_link){.options = PQconninfoParse(url, /* errmsg= */ NULL)};
    if (link->options == NULL) {
        TRY(buf_add_str(message, sentence));
        return FAIL(E_USAGE);
    }
    const char *addresses = option(link->options, "hostaddr");
    const char *hosts = addresses != NULL ? addresses : option(link->options, "host");
    link->host_count = hosts == NULL ? 1 : list_count(hosts);
    if (link->host_count > HOSTS_MAX) {
        pg_link_free(link);
        TRY(buf_addf(message, "store: found more than %d hosts", HOSTS_MAX));
        return FAIL(E_USAGE);
    }
    return OK;
}

void pg_link_free(struct pg_link *link)
{
    PQfinish(link->conn);
    PQconninfoFree(link->options);
    *link = (struct pg_link){0};
}

static bool is_local(struct slice host)
{
    return host.size > 0 && (host.ptr[0] == '/' || host.ptr[0] == '@');
}

static bool is_verified(const char *mode)
{
    return mode != NULL && (strcmp(mode, "verify-ca") == 0 || strcmp(mode, "verify-full") == 0);
}

/* Without a host libpq asks a socket of this machine. */
static bool all_local(const char *hosts)
{
    for (unsigned i = 0; hosts != NULL && i < list_count(hosts); i++) {
        struct slice host = list_item(hosts, i);
        if (host.size > 0 && !is_local(host)) {
            return false;
        }
    }
    return true;
}

/* What a URL leaves open the environment may say. */
static const char *option_or_default(const PQconninfoOption *options,
                                     const PQconninfoOption *defaults, const char *keyword)
{
    const char *given = option(options, keyword);
    return given != NULL ? given : option(defaults, keyword);
}

bool pg_url_is_clear(const char *url)
{
    PQconninfoOption *options = PQconninfoParse(url, /* errmsg= */ NULL);
    PQconninfoOption *defaults = PQconndefaults();
    bool is_clear = true;
    if (options != NULL && defaults != NULL) {
        const char *address = option_or_default(options, defaults, "hostaddr");
        is_clear = !is_verified(option_or_default(options, defaults, "sslmode")) &&
                   (address != NULL || !all_local(option_or_default(options, defaults, "host")));
    }
    PQconninfoFree(options);
    PQconninfoFree(defaults);
    return is_clear;
}

bool pg_url_has_secret(const char *url)
{
    PQconninfoOption *options = PQconninfoParse(url, /* errmsg= */ NULL);
    bool has = options == NULL || option(options, "password") != NULL ||
               option(options, "sslpassword") != NULL;
    PQconninfoFree(options);
    return has;
}

/* ---- what is said ---- */

static struct err add_redacted(struct buf *out, struct slice text, const char *secret)
{
    size_t size = secret == NULL ? 0 : strlen(secret);
    while (text.size > 0) {
        if (size > 0 && text.size >= size && memcmp(text.ptr, secret, size) == 0) {
            TRY(buf_add_str(out, "***"));
            text = slice_from(text, size);
            continue;
        }
        bool is_line = text.ptr[0] == '\n';
        TRY(buf_add_byte(out, is_line ? ' ' : text.ptr[0]));
        text = slice_from(text, 1);
    }
    return OK;
}

/* libpq's words on one line; it never says the password, but a server might say anything. */
static struct err keep_reason(const struct pg_link *link, struct buf *reason, bool is_late)
{
    buf_clear(reason);
    if (is_late) {
        return buf_addf(reason, "%s did not answer in time", PQhost(link->conn));
    }
    struct slice text = slice_str(PQerrorMessage(link->conn));
    while (text.size > 0 && text.ptr[text.size - 1] == '\n') {
        text.size--;
    }
    return add_redacted(reason, slice_head(text, REASON_MAX / 2), PQpass(link->conn));
}

/* ---- waiting ---- */

struct pg_timer pg_timer_start(uint64_t silence_ms)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t silence_ns = silence_ms * 1000000;
    return (struct pg_timer){.silence_ns = silence_ns,
                             .deadline_ns = now_ns + silence_ns,
                             .end_ns = now_ns + PG_TIMER_STEPS * silence_ns};
}

enum waited { WAITED_READY, WAITED_SHORT, WAITED_OVER };

/* Waits for the socket. SHORT: a signal, or too early a wake-up, which is the caller's next turn.
 */
static enum waited wait_until(const PGconn *conn, short events, uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns();
    if (now_ns >= deadline_ns) {
        return WAITED_OVER;
    }
    struct pollfd fds = {.fd = PQsocket(conn), .events = events};
    uint64_t wait_ms = (deadline_ns - now_ns) / 1000000 + 1;
    int ready = poll(&fds, 1, wait_ms > INT32_MAX ? INT32_MAX : (int)wait_ms);
    return ready > 0 ? WAITED_READY : WAITED_SHORT;
}

/* False: the time is over. */
static bool wait_for(const PGconn *conn, short events, struct pg_timer *timer)
{
    enum waited waited = wait_until(conn, events, timer->deadline_ns);
    if (waited == WAITED_READY) {
        uint64_t next_ns = clock_mono_ns() + timer->silence_ns;
        timer->deadline_ns = next_ns < timer->end_ns ? next_ns : timer->end_ns;
    }
    return waited != WAITED_OVER;
}

void pg_link_drop(struct pg_link *link, const char *why)
{
    if (link->conn != NULL) {
        LOG(LOG_WARN, "store", "postgres_dropped", LOG_STR("host", PQhost(link->conn)),
            LOG_STR("why", why));
        PQfinish(link->conn);
        link->conn = NULL;
    }
}

static struct err fail_lost(struct pg_link *link, const char *why)
{
    link->is_lost = true;
    pg_link_drop(link, why);
    return FAIL(E_UNAVAILABLE);
}

static struct err fail_silent(struct pg_link *link)
{
    link->is_lost = false;
    pg_link_drop(link, "no answer in store_timeout_ms");
    return FAIL(E_UNAVAILABLE);
}

struct err pg_link_flush(struct pg_link *link, struct pg_timer *timer)
{
    for (;;) { /* ends with the last byte, the deadline, or the connection. */
        int left = PQflush(link->conn);
        if (left == 0) {
            return OK;
        }
        if (left < 0) {
            return fail_lost(link, "it broke");
        }
        if (!wait_for(link->conn, POLLIN | POLLOUT, timer)) {
            return fail_silent(link);
        }
        if (PQconsumeInput(link->conn) == 0) { /* a server that waits for us to read. */
            return fail_lost(link, "it broke");
        }
    }
}

struct err pg_link_result(struct pg_link *link, struct pg_timer *timer, PGresult **out)
{
    while (PQisBusy(link->conn) != 0) { /* ends as above. */
        if (!wait_for(link->conn, POLLIN, timer)) {
            return fail_silent(link);
        }
        if (PQconsumeInput(link->conn) == 0) {
            return fail_lost(link, "it broke");
        }
    }
    *out = PQgetResult(link->conn);
    return OK;
}

/* ---- connecting ---- */

struct parameters {
    const char *keywords[PARAMETERS_MAX + 1];
    const char *values[PARAMETERS_MAX + 1];
    unsigned count;
    char host[HOST_MAX];
    char address[HOST_MAX];
    char port[16];
    char user_timeout[24];
};

static void add(struct parameters *p, const char *keyword, const char *value)
{
    CHECK(p->count < PARAMETERS_MAX);
    p->keywords[p->count] = keyword;
    p->values[p->count] = value;
    p->count++;
}

static void add_item(struct parameters *p, const char *keyword, const char *list, unsigned index,
                     char *out, size_t size)
{
    struct slice item = list_item(list, index);
    (void)snprintf(out, size, "%.*s", SLICE_ARG(item));
    add(p, keyword, out);
}

/* Of parameters that come twice, libpq takes the last. */
static void fill_parameters(const struct pg_link *link, unsigned host, struct parameters *p)
{
    (void)snprintf(p->user_timeout, sizeof(p->user_timeout), "%" PRIu64, limits.store_timeout_ms);
    add(p, "target_session_attrs", "read-write");
    add(p, "fallback_application_name", "trilane-cp");
    add(p, "tcp_user_timeout", p->user_timeout); /* what was sent and nobody acknowledged. */
    add(p, "keepalives_idle", "5");              /* a peer that is gone while nobody asks it. */
    add(p, "keepalives_interval", "2");
    add(p, "keepalives_count", "3");
    for (const PQconninfoOption *o = link->options; o->keyword != NULL; o++) {
        if (o->val == NULL) {
            continue;
        }
        if (strcmp(o->keyword, "host") == 0) {
            add_item(p, "host", o->val, host, p->host, sizeof(p->host));
        } else if (strcmp(o->keyword, "hostaddr") == 0) {
            add_item(p, "hostaddr", o->val, host, p->address, sizeof(p->address));
        } else if (strcmp(o->keyword, "port") == 0) {
            add_item(p, "port", o->val, host, p->port, sizeof(p->port));
        } else {
            add(p, o->keyword, o->val);
        }
    }
    add(p, "client_encoding", "UTF8");
}

static void ignore_notice(void *ctx, const char *text)
{
    (void)ctx;
    (void)text; /* libpq would write it to standard error. */
}

static struct err poll_connect(struct pg_link *link, uint64_t deadline_ns)
{
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    for (;;) { /* ends with the connection, a failure, or the deadline. */
        if (state == PGRES_POLLING_OK) {
            return PQsetnonblocking(link->conn, 1) == 0 ? OK : FAIL(E_UNAVAILABLE);
        }
        if (state == PGRES_POLLING_FAILED) {
            return FAIL(E_UNAVAILABLE);
        }
        enum waited waited =
            wait_until(link->conn, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_ns);
        if (waited == WAITED_OVER) {
            return FAIL(E_TIMEOUT);
        }
        if (waited == WAITED_READY) {
            state = PQconnectPoll(link->conn);
        }
    }
}

/* ---- which server it is ---- */

/*
 * The latest timeline that any session of this process met. Sessions connect by themselves, each
 * when it needs to: without this, one might still find the old primary where another one found the
 * new one, and a leader would write into two databases.
 */
static struct {
    struct lock lock;
    struct pg_server server GUARDED;
} newest = {.lock = {.m = PTHREAD_MUTEX_INITIALIZER}};

static struct pg_server newest_server(void)
{
    lock_take(&newest.lock);
    struct pg_server server = newest.server;
    lock_drop(&newest.lock);
    return server;
}

static bool is_before(const struct pg_server *server, const struct pg_server *other)
{
    return server->system != 0 && server->system == other->system &&
           server->timeline < other->timeline;
}

bool pg_link_is_deposed(const struct pg_link *link)
{
    struct pg_server known = newest_server();
    return is_before(&link->server, &known);
}

/* False: it was replaced. Another system is another database, with timelines of its own. */
static bool meet(const struct pg_server *server)
{
    lock_take(&newest.lock);
    bool deposed = is_before(server, &newest.server);
    if (!deposed && server->system != 0) {
        newest.server = *server;
    }
    lock_drop(&newest.lock);
    return !deposed;
}

/* A server that does not tell (a standby, where the URL allows one) is not known. */
static struct pg_server read_server(const PGresult *result)
{
    struct pg_server server = {0};
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1) {
        server.system = strtoull(PQgetvalue(result, 0, 0), NULL, 10);
        server.timeline = strtoull(PQgetvalue(result, 0, 1), NULL, 16);
    }
    return server;
}

/* Not the timeline of the last checkpoint: the first one of a new primary may be under way. */
static struct err ask_server(struct pg_link *link, uint64_t deadline_ns)
{
    static const char text[] = "SELECT system_identifier,"
                               " substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
                               " FROM pg_control_system()";
    uint64_t now_ns = clock_mono_ns();
    struct pg_timer timer = {.silence_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0,
                             .deadline_ns = deadline_ns,
                             .end_ns = deadline_ns};
    PGresult *result = NULL;
    link->server = (struct pg_server){0};
    if (PQsendQuery(link->conn, text) != 1) {
        return fail_lost(link, "it broke");
    }
    TRY(pg_link_flush(link, &timer));
    do { /* ends behind the last result, or with the connection. */
        TRY(pg_link_result(link, &timer, &result));
        link->server = result != NULL ? read_server(result) : link->server;
        PQclear(result);
    } while (result != NULL);
    return OK;
}

static struct err judge_server(struct pg_link *link, struct buf *reason)
{
    if (meet(&link->server)) {
        return OK;
    }
    buf_clear(reason);
    TRY(buf_addf(reason,
                 "%s:%s is an old primary, on timeline %" PRIu64 ": a standby of it was promoted",
                 PQhost(link->conn), PQport(link->conn), link->server.timeline));
    PQfinish(link->conn);
    link->conn = NULL;
    return FAIL(E_STORE_DEPOSED);
}

static struct err connect_host(struct pg_link *link, unsigned host, uint64_t deadline_ns,
                               struct buf *reason)
{
    struct parameters p = {0};
    fill_parameters(link, host, &p);
    link->conn = PQconnectStartParams(p.keywords, p.values, /* expand_dbname= */ 0);
    if (link->conn == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    (void)PQsetNoticeProcessor(link->conn, ignore_notice, NULL);
    struct err e = PQstatus(link->conn) == CONNECTION_BAD ? FAIL(E_UNAVAILABLE)
                                                          : poll_connect(link, deadline_ns);
    if (err_ok(e)) {
        TRY(ask_server(link, deadline_ns));
        return judge_server(link, reason);
    }
    struct err kept = keep_reason(link, reason, e.code == E_TIMEOUT);
    PQfinish(link->conn);
    link->conn = NULL;
    TRY(kept);
    return FAIL(E_UNAVAILABLE);
}

/* Each host has its share of the time that is left. */
static uint64_t share_ns(const struct pg_link *link, unsigned asked, uint64_t deadline_ns)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t left_ns = now_ns < deadline_ns ? deadline_ns - now_ns : 0;
    return now_ns + left_ns / (link->host_count - asked);
}

/* Before the first connection of this process: which of the hosts has the latest timeline? */
static void look_around(struct pg_link *link, uint64_t deadline_ns, struct buf *reason)
{
    for (unsigned i = 0; link->host_count > 1 && i < link->host_count; i++) {
        struct err ignored = connect_host(link, i, share_ns(link, i, deadline_ns), reason);
        (void)ignored; /* whoever does not answer is asked again. */
        PQfinish(link->conn);
        link->conn = NULL;
    }
}

static void say_state(struct pg_link *link, struct err e, const struct buf *reason)
{
    if (err_ok(e)) {
        LOG(LOG_INFO, "store", "postgres_connected", LOG_STR("host", PQhost(link->conn)),
            LOG_STR("port", PQport(link->conn)), LOG_U64("tls", PQsslInUse(link->conn) != 0));
    } else if (!link->is_said) {
        LOG(LOG_WARN, "store", "postgres_unreachable", LOG_ERR(e),
            LOG_SLICE("text", buf_slice(reason)));
    }
    link->is_said = !err_ok(e);
}

static bool goes_on(struct err e)
{
    return e.code == E_UNAVAILABLE || e.code == E_STORE_DEPOSED;
}

struct err pg_link_connect(struct pg_link *link, struct buf *message)
{
    CHECK(link->conn == NULL && link->host_count > 0);
    auto_buf struct buf reason = BUF_MAX(REASON_MAX);
    struct err e = FAIL(E_UNAVAILABLE);
    bool deposed = false;
    if (newest_server().system == 0) {
        look_around(link, pg_timer_start(limits.store_timeout_ms).deadline_ns, &reason);
    }
    uint64_t deadline_ns = pg_timer_start(limits.store_timeout_ms).deadline_ns;
    for (unsigned i = 0; i < link->host_count && goes_on(e); i++) {
        unsigned host = (link->host + i) % link->host_count;
        e = connect_host(link, host, share_ns(link, i, deadline_ns), &reason);
        deposed = deposed || e.code == E_STORE_DEPOSED;
        if (err_ok(e)) {
            link->host = host;
        }
    }
    if (e.code == E_UNAVAILABLE && deposed) { /* who is nobody's primary any more says more. */
        e = FAIL(E_STORE_DEPOSED);
    }
    if (!err_ok(e)) { /* the first one may take all the time, in a resolver: begin with the next. */
        link->host = (link->host + 1) % link->host_count;
    }
    link->is_lost = false; /* no statement was under way. */
    say_state(link, e, &reason);
    if (!err_ok(e) && message != NULL) {
        TRY(buf_add_str(message, "store: PostgreSQL cannot be reached: "));
        TRY(buf_add(message, buf_slice(&reason)));
    }
    return e;
}
