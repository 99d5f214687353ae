/*
 * Proves what is PostgreSQL's own: a server that stops, dies, ends sessions or turns read only
 * holds no thread up and is found again; two leaders never both write; replicas migrate once; and
 * no password is ever said.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/store/sql.h"
#include "controlplane/store/store.h"

#include "tests/support/cmocka.h"
#include "tests/support/postgres_server.h"

enum {
    PATIENT_MS = 30000, /* for an answer that comes, on a machine that is slow, too. */
    SILENCE_MS = 3000,  /* for one that does not come. */
    URL_MAX = 768,
    TLS_URL_MAX = 2 * URL_MAX
};

static struct postgres_server server;
static struct cp_store *store;
static struct cp_fence fence;
static char url[URL_MAX];
static int schema_number;

#define must(call) assert_string_equal(err_name((call).code), "OK")
#define must_fail(call, expected) assert_string_equal(err_name((call).code), err_name(expected))

static struct cp_store *open_store(const char *at)
{
    struct cp_store *opened = NULL;
    struct buf message = BUF_MAX(1024);
    must(cp_store_open(at, &opened, &message));
    buf_free(&message);
    return opened;
}

/* Opening that must fail; what was said about it. */
static void refuse(const char *at, enum err_code code, char out[1024])
{
    struct cp_store *opened = NULL;
    struct buf message = BUF_MAX(1023);
    must_fail(cp_store_open(at, &opened, &message), code);
    assert_null(opened);
    (void)snprintf(out, 1024, "%.*s", SLICE_ARG(buf_slice(&message)));
    buf_free(&message);
}

static void sql(const char *text)
{
    postgres_server_sql(url, text);
}

static void end_sessions(void)
{
    postgres_server_sql(server.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                                    " WHERE application_name = 'trilane-cp'");
}

static struct cp_lease_wish wish_of(uint8_t holder)
{
    return (struct cp_lease_wish){
        .environment = "dev", .holder = {holder}, .name = "cp", .lease_ms = 60000};
}

static int set_up(void **state)
{
    (void)state;
    char text[64];
    limits.store_timeout_ms = PATIENT_MS;
    (void)snprintf(text, sizeof(text), "CREATE SCHEMA case_%d", ++schema_number);
    postgres_server_sql(server.url, text);
    (void)snprintf(url, sizeof(url), "%s?options=-csearch_path%%3Dcase_%d", server.url,
                   schema_number);
    store = open_store(url);
    struct cp_lease_wish wish = wish_of(1);
    struct cp_lease lease = {0};
    must(store->ops->lease_take(store, &wish, &lease));
    fence = (struct cp_fence){.environment = "dev", .holder = {1}, .epoch = lease.epoch};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cp_store_close(store);
    return 0;
}

static uint64_t hand(void)
{
    uint64_t version = 0;
    must(store->ops->version_hand(store, &fence, &version));
    return version;
}

static struct cp_publication publication_of(uint64_t version)
{
    return (struct cp_publication){.record = {.version = version},
                                   .manifest = SLICE_LIT("manifest")};
}

static uint64_t ms_since(uint64_t start_ns)
{
    return (clock_mono_ns() - start_ns) / 1000000;
}

/* ---- a server that does not answer ---- */

/* One silence has passed since, and not a second one. */
static void check_one_silence(uint64_t start_ns)
{
    assert_in_range(ms_since(start_ns), SILENCE_MS, 2 * SILENCE_MS - 1);
}

static void a_stopped_server_holds_nobody_up(void **state)
{
    (void)state;
    struct cp_lease lease = {0};
    struct cp_lease_wish wish = wish_of(1);
    char said[1024];
    postgres_server_pause(&server);
    limits.store_timeout_ms = SILENCE_MS;
    uint64_t start_ns = clock_mono_ns();
    must_fail(store->ops->lease_take(store, &wish, &lease), E_UNAVAILABLE);
    check_one_silence(start_ns);
    start_ns = clock_mono_ns();
    must_fail(store->ops->lease_read(store, "dev", &lease), E_UNAVAILABLE); /* connects */
    check_one_silence(start_ns);
    start_ns = clock_mono_ns();
    refuse(url, E_UNAVAILABLE, said);
    check_one_silence(start_ns);
    assert_non_null(strstr(said, "did not answer in time"));
    assert_null(strstr(said, server.password));
    postgres_server_resume(&server);
    limits.store_timeout_ms = PATIENT_MS;
    must(store->ops->lease_take(store, &wish, &lease));
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 1);
}

static void a_killed_server_is_found_again(void **state)
{
    (void)state;
    struct cp_lease lease = {0};
    assert_int_equal(hand(), 1);
    postgres_server_kill(&server);
    uint64_t start_ns = clock_mono_ns();
    must_fail(store->ops->lease_read(store, "dev", &lease), E_UNAVAILABLE);
    uint64_t version = 0;
    must_fail(store->ops->version_hand(store, &fence, &version), E_UNAVAILABLE);
    assert_in_range(ms_since(start_ns), 0, PATIENT_MS); /* nobody waits for an answer. */
    postgres_server_start(&server);
    assert_int_equal(hand(), 2);
    must(store->ops->lease_read(store, "dev", &lease));
}

static void an_ended_session_costs_no_operation(void **state)
{
    (void)state;
    struct cp_lease lease = {0};
    end_sessions();
    must(store->ops->lease_read(store, "dev", &lease));
    end_sessions();
    assert_int_equal(hand(), 1);
    end_sessions();
    struct cp_publication p = publication_of(1);
    must(store->ops->publish(store, &fence, &p));
}

/* What a body does the first time that it runs. */
struct script {
    void (*first)(void);
    const char *text; /* a statement; NULL: none. */
    int runs;
    int failing_runs; /* that run 'text'. */
};

static struct err run_script(struct sql *db, void *ctx)
{
    struct script *s = ctx;
    s->runs++;
    auto_sql struct sql_query q;
    sql_begin(&q, db, "INSERT INTO root (environment, number, container) VALUES ('dev', 1, $1)");
    sql_bind_bytes(&q, 1, SLICE_LIT("root"));
    TRY(sql_run(&q));
    if (s->first != NULL && s->runs == 1) {
        s->first();
    }
    if (s->runs > s->failing_runs) {
        return OK;
    }
    auto_sql struct sql_query t;
    sql_begin(&t, db, s->text);
    return sql_run(&t);
}

static struct err transact(struct script *s)
{
    struct sql *db = NULL;
    struct buf message = BUF_MAX(1024);
    must(sql_open(url, &db, &message));
    struct sql_work work = {.body = run_script, .ctx = s};
    struct err e = sql_transact(db, &work);
    sql_close(db);
    buf_free(&message);
    return e;
}

static void count_roots(uint64_t expected)
{
    char text[128];
    (void)snprintf(text, sizeof(text),
                   "DO $$ BEGIN ASSERT (SELECT count(*) FROM root) = %d; END $$", (int)expected);
    sql(text);
}

static void a_transaction_whose_session_ends_runs_again(void **state)
{
    (void)state;
    struct script s = {.first = end_sessions, .text = "SELECT 1", .failing_runs = 1};
    must(transact(&s));
    assert_int_equal(s.runs, 2);
    count_roots(1);
}

static void collisions_run_again_a_few_times(void **state)
{
    (void)state;
    static const char text[] = "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$";
    struct script s = {.text = text, .failing_runs = 2};
    must(transact(&s));
    assert_int_equal(s.runs, 3);
    count_roots(1);
    sql("DELETE FROM root");
    s = (struct script){.text = text, .failing_runs = 100};
    must_fail(transact(&s), E_UNAVAILABLE);
    assert_int_equal(s.runs, 4);
    count_roots(0);
}

static uint64_t shortened_ns;

static void shorten(void)
{
    limits.store_timeout_ms = SILENCE_MS;
    shortened_ns = clock_mono_ns();
}

static void a_statement_past_its_time_ends(void **state)
{
    (void)state;
    struct script s = {.first = shorten, .text = "SELECT pg_sleep(60)", .failing_runs = 100};
    must_fail(transact(&s), E_UNAVAILABLE);
    check_one_silence(shortened_ns);
    assert_int_equal(s.runs, 1);
    count_roots(0);
}

/* As a primary that became a standby: it answers, and takes no writes. */
static void a_server_that_turns_read_only_is_left(void **state)
{
    (void)state;
    uint64_t version = 0;
    char said[1024];
    sql("ALTER ROLE trilane SET default_transaction_read_only = on");
    end_sessions();
    must_fail(store->ops->version_hand(store, &fence, &version), E_UNAVAILABLE);
    refuse(url, E_UNAVAILABLE, said);
    assert_non_null(strstr(said, "read-only"));
    char writing[URL_MAX];
    (void)snprintf(writing, sizeof(writing), "%s?options=-cdefault_transaction_read_only%%3Doff",
                   server.url);
    postgres_server_sql(writing, "ALTER ROLE trilane RESET default_transaction_read_only");
    assert_int_equal(hand(), 1);
}

/* How many have connected since it was asked last. */
static int count_callers(int listener)
{
    int count = 0;
    for (int fd = 0; fd >= 0;) { /* ends: each was there before. */
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            count++;
            CHECK(close(fd) == 0);
        }
    }
    return count;
}

/* A host that takes connections and never answers, and one that refuses, before the right one. */
static void hosts_are_tried_in_turn(void **state)
{
    (void)state;
    auto_close int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    CHECK(bind(silent, (struct sockaddr *)&at, size) == 0 && listen(silent, 4) == 0);
    CHECK(getsockname(silent, (struct sockaddr *)&at, &size) == 0);
    char several[URL_MAX];
    (void)snprintf(several, sizeof(several),
                   "postgresql://trilane:%s@127.0.0.1:%u,127.0.0.1:1,127.0.0.1:%u/postgres"
                   "?options=-csearch_path%%3Dcase_%d",
                   server.password, ntohs(at.sin_port), server.port, schema_number);
    limits.store_timeout_ms = 3 * SILENCE_MS; /* a third of it is the silent one's. */
    uint64_t start_ns = clock_mono_ns();
    struct cp_store *found = open_store(several);
    assert_in_range(ms_since(start_ns), SILENCE_MS - 1, UINT64_MAX);
    assert_int_equal(count_callers(silent), 1);
    end_sessions(); /* the one that answered is the first one asked from now on. */
    struct cp_lease lease = {0};
    must(found->ops->lease_read(found, "dev", &lease));
    assert_int_equal(count_callers(silent), 0);
    postgres_server_kill(&server);
    must_fail(found->ops->lease_read(found, "dev", &lease), E_UNAVAILABLE);
    postgres_server_start(&server);
    must(found->ops->lease_read(found, "dev", &lease));
    cp_store_close(found);
}

/* ---- two leaders ---- */

struct call {
    pthread_t thread;
    struct cp_store *store;
    struct cp_lease lease;
    uint64_t version;
    struct err result;
};

static void *publish_it(void *ctx)
{
    struct call *c = ctx;
    struct cp_publication p = publication_of(c->version);
    c->result = c->store->ops->publish(c->store, &fence, &p);
    return NULL;
}

static void *take_it(void *ctx)
{
    struct call *c = ctx;
    struct cp_lease_wish wish = wish_of(2);
    c->result = c->store->ops->lease_take(c->store, &wish, &c->lease);
    return NULL;
}

/* Until a session of ours waits for a lock. */
static void wait_for_waiting(void)
{
    struct sql *db = NULL;
    struct buf message = BUF_MAX(1024);
    must(sql_open(url, &db, &message));
    uint64_t start_ns = clock_mono_ns();
    for (bool found = false; !found;) {
        assert_in_range(ms_since(start_ns), 0, PATIENT_MS / 2);
        auto_sql struct sql_query q;
        sql_begin(&q, db,
                  "SELECT 1 FROM pg_stat_activity"
                  " WHERE application_name = 'trilane-cp' AND wait_event_type = 'Lock'");
        must(sql_row(&q, &found));
    }
    sql_close(db);
    buf_free(&message);
}

/* The publication has written everything but its commit when the row changes hands. */
static struct err hold_turn(struct sql *db, void *ctx)
{
    struct call *c = ctx;
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO newest (environment, published, sources, oldest)"
              " VALUES ('dev', 0, 0, 0)");
    TRY(sql_run(&q));
    CHECK(pthread_create(&c->thread, NULL, publish_it, c) == 0);
    wait_for_waiting();
    sql("UPDATE leader SET expires_ms = 0");
    struct call taker = {.store = open_store(url)};
    (void)take_it(&taker);
    must(taker.result);
    assert_true(taker.lease.held);
    assert_int_equal(taker.lease.epoch, 2);
    cp_store_close(taker.store);
    return FAIL(E_CANCELLED); /* lets the turn go. */
}

static void a_take_over_during_a_publication_ends_it(void **state)
{
    (void)state;
    struct sql *db = NULL;
    struct buf message = BUF_MAX(1024);
    struct call call = {.store = store, .version = hand()};
    must(sql_open(url, &db, &message));
    struct sql_work work = {.body = hold_turn, .ctx = &call};
    must_fail(sql_transact(db, &work), E_CANCELLED);
    CHECK(pthread_join(call.thread, NULL) == 0);
    must_fail(call.result, E_NOT_LEADER);
    struct cp_record record;
    must_fail(store->ops->latest(store, "dev", &record), E_NOT_FOUND);
    sql_close(db);
    buf_free(&message);
}

/* What stands between the fence and the commit, which here is held up. */
static struct err hold_row(struct sql *db, void *ctx)
{
    struct call *c = ctx;
    auto_sql struct sql_query q;
    sql_begin(&q, db, "SELECT trilane_fence('dev', $1, 1)");
    sql_bind_bytes(&q, 1, slice_of(fence.holder, sizeof(fence.holder)));
    TRY(sql_run(&q));
    CHECK(pthread_create(&c->thread, NULL, take_it, c) == 0);
    wait_for_waiting();
    return OK;
}

static void a_take_over_waits_for_a_commit(void **state)
{
    (void)state;
    struct sql *db = NULL;
    struct buf message = BUF_MAX(1024);
    struct call call = {.store = open_store(url)};
    must(sql_open(url, &db, &message));
    struct sql_work work = {.body = hold_row, .ctx = &call};
    must(sql_transact(db, &work));
    CHECK(pthread_join(call.thread, NULL) == 0);
    must(call.result);
    assert_false(call.lease.held); /* it has not run out. */
    cp_store_close(call.store);
    sql_close(db);
    buf_free(&message);
}

/* A leader that is stopped in its transaction: the row is free at once, the rest a little later. */
static struct err stand_still(struct sql *db, void *ctx)
{
    struct call *c = ctx;
    if (c->store == NULL) {
        return OK; /* again, since nobody answered its commit. */
    }
    auto_sql struct sql_query q;
    sql_begin(&q, db,
              "INSERT INTO version (environment, number, epoch, handed_ms)"
              " VALUES ('dev', 1, 1, 1)");
    TRY(sql_run(&q));
    sql("UPDATE leader SET expires_ms = 0");
    (void)take_it(c);
    must(c->result);
    assert_true(c->lease.held);
    struct cp_fence young = {.environment = "dev", .holder = {2}, .epoch = c->lease.epoch};
    /* It wants number 1, too, and would wait for it as long as this one stands still. */
    must(c->store->ops->version_hand(c->store, &young, &c->version));
    assert_int_equal(c->version, 1);
    cp_store_close(c->store);
    c->store = NULL;
    return OK; /* wakes up. */
}

static void a_leader_that_stands_still_holds_nobody_up(void **state)
{
    (void)state;
    struct sql *db = NULL;
    struct buf message = BUF_MAX(1024);
    struct call call = {.store = open_store(url)};
    limits.store_timeout_ms = 2 * SILENCE_MS; /* half of it may a transaction stand still. */
    must(sql_open(url, &db, &message));
    limits.store_timeout_ms = PATIENT_MS;
    struct sql_fence old = {
        .environment = "dev", .holder = slice_of(fence.holder, CP_HOLDER_SIZE), .epoch = 1};
    struct sql_work work = {.body = stand_still, .ctx = &call, .fence = &old};
    must_fail(sql_transact(db, &work), E_NOT_LEADER);
    sql_close(db);
    buf_free(&message);
}

/* ---- sessions and schemas ---- */

static void what_is_committed_is_on_disk(void **state)
{
    (void)state;
    sql("ALTER ROLE trilane SET synchronous_commit = off");
    struct sql *db = NULL;
    struct buf message = BUF_MAX(1024);
    must(sql_open(url, &db, &message));
    {
        auto_sql struct sql_query q;
        bool found = false;
        char value[16];
        sql_begin(&q, db, "SELECT current_setting('synchronous_commit')");
        must(sql_row(&q, &found));
        sql_text(&q, 0, value, sizeof(value));
        assert_string_equal(value, "on");
    }
    sql_close(db);
    buf_free(&message);
    sql("ALTER ROLE trilane RESET synchronous_commit");
}

static void *open_it(void *ctx)
{
    struct call *c = ctx;
    struct buf message = BUF_MAX(1024);
    c->result = cp_store_open(url, &c->store, &message);
    buf_free(&message);
    return NULL;
}

static void replicas_that_start_at_once_migrate_once(void **state)
{
    (void)state;
    enum { REPLICAS = 4 };
    struct call calls[REPLICAS] = {0};
    char text[64];
    (void)snprintf(text, sizeof(text), "CREATE SCHEMA case_%d", ++schema_number);
    postgres_server_sql(server.url, text);
    (void)snprintf(url, sizeof(url), "%s?options=-csearch_path%%3Dcase_%d", server.url,
                   schema_number);
    for (int i = 0; i < REPLICAS; i++) {
        CHECK(pthread_create(&calls[i].thread, NULL, open_it, &calls[i]) == 0);
    }
    for (int i = 0; i < REPLICAS; i++) {
        CHECK(pthread_join(calls[i].thread, NULL) == 0);
        must(calls[i].result);
        cp_store_close(calls[i].store);
    }
    sql("DO $$ BEGIN ASSERT (SELECT count(*) FROM trilane_schema) = 1; END $$");
}

static void a_newer_schema_is_refused_at_once(void **state)
{
    (void)state;
    char said[1024];
    uint64_t version = 0;
    struct cp_lease lease = {0};
    struct cp_lease_wish wish = wish_of(1);
    assert_int_equal(hand(), 1);
    sql("CREATE TABLE was AS SELECT number FROM trilane_schema");
    sql("UPDATE trilane_schema SET number = 1000"); /* while an older one runs. */
    must_fail(store->ops->version_hand(store, &fence, &version), E_STORE_NEWER);
    must_fail(store->ops->lease_take(store, &wish, &lease), E_STORE_NEWER);
    end_sessions();
    must_fail(store->ops->version_hand(store, &fence, &version), E_STORE_NEWER);
    refuse(url, E_STORE_NEWER, said);
    assert_non_null(strstr(said, "schema 1000"));
    sql("UPDATE trilane_schema SET number = (SELECT number FROM was)");
    assert_int_equal(hand(), 2);
}

static void another_encoding_is_refused(void **state)
{
    (void)state;
    char said[1024];
    char at[URL_MAX];
    sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    (void)snprintf(at, sizeof(at), "postgresql://trilane:%s@127.0.0.1:%u/latin", server.password,
                   server.port);
    refuse(at, E_USAGE, said);
    assert_non_null(strstr(said, "LATIN1; expected UTF8"));
}

/* ---- TLS ---- */

/* A certificate of the server's own, for its address; PostgreSQL takes a key of its user alone. */
static void make_certificate(const char *directory, const char *name)
{
    char command[URL_MAX * 2];
    struct stat data;
    (void)snprintf(command, sizeof(command), "%s/data", directory);
    CHECK(stat(command, &data) == 0);
    (void)snprintf(command, sizeof(command),
                   "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
                   " -days 2 -subj /CN=%s -addext subjectAltName=IP:127.0.0.1"
                   " -keyout '%s/data/%s.key' -out '%s/data/%s.crt' 2>/dev/null"
                   " && chown %u:%u '%s/data/%s.key' '%s/data/%s.crt'"
                   " && chmod 600 '%s/data/%s.key'",
                   name, directory, name, directory, name, data.st_uid, data.st_gid, directory,
                   name, directory, name, directory, name);
    CHECK(system(command) == 0); /* NOLINT(concurrency-mt-unsafe): one thread. */
}

static void tls_url(const char *ca, char out[TLS_URL_MAX])
{
    (void)snprintf(out, TLS_URL_MAX, "%s&sslmode=verify-full&sslrootcert=%s/data/%s.crt", url,
                   server.directory, ca);
}

static void tls_is_as_the_url_says(void **state)
{
    (void)state;
    char at[TLS_URL_MAX];
    char said[1024];
    make_certificate(server.directory, "server");
    make_certificate(server.directory, "stranger");
    sql("ALTER SYSTEM SET ssl = on");
    sql("SELECT pg_reload_conf()");
    tls_url("stranger", at);
    refuse(at, E_UNAVAILABLE, said);
    assert_non_null(strstr(said, "certificate verify failed"));
    tls_url("server", at);
    struct cp_store *covered = open_store(at);
    sql("DO $$ BEGIN ASSERT (SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)"
        " WHERE s.ssl AND a.application_name = 'trilane-cp') = 1; END $$");
    struct cp_publication p = publication_of(hand());
    must(covered->ops->publish(covered, &fence, &p));
    struct cp_record record;
    postgres_server_pause(&server);
    limits.store_timeout_ms = SILENCE_MS;
    uint64_t start_ns = clock_mono_ns();
    must_fail(covered->ops->latest(covered, "dev", &record), E_UNAVAILABLE);
    check_one_silence(start_ns);
    start_ns = clock_mono_ns();
    must_fail(covered->ops->latest(covered, "dev", &record), E_UNAVAILABLE); /* connects */
    check_one_silence(start_ns);
    limits.store_timeout_ms = PATIENT_MS;
    postgres_server_resume(&server);
    must(covered->ops->latest(covered, "dev", &record));
    cp_store_close(covered);
    sql("ALTER SYSTEM RESET ssl");
    sql("SELECT pg_reload_conf()");
}

/* ---- what is said ---- */

static void no_password_is_ever_said(void **state)
{
    (void)state;
    char said[1024];
    char at[URL_MAX];
    char log[8192] = "";
    int fd = memfd_create("log", MFD_CLOEXEC);
    CHECK(fd >= 0);
    log_fd_set(fd);
    log_level_set(LOG_DEBUG);
    (void)snprintf(at, sizeof(at), "postgresql://trilane:swordfish@127.0.0.1:%u/postgres",
                   server.port);
    refuse(at, E_UNAVAILABLE, said);
    assert_non_null(strstr(said, "password authentication failed"));
    assert_null(strstr(said, "swordfish"));
    refuse("postgresql://trilane:swordfish%zz@127.0.0.1/postgres", E_USAGE, said);
    assert_null(strstr(said, "swordfish"));
    refuse("postgresql://trilane:swordfish@127.0.0.1/postgres?sslmode=swordfish", E_UNAVAILABLE,
           said);
    assert_null(strstr(said, "swordfish"));
    /* A server that repeats what it was told. */
    (void)snprintf(at, sizeof(at), "postgresql://swordfish:swordfish@127.0.0.1:%u/postgres",
                   server.port);
    refuse(at, E_UNAVAILABLE, said);
    assert_null(strstr(said, "swordfish"));
    CHECK(pread(fd, log, sizeof(log) - 1, 0) > 0);
    assert_null(strstr(log, "swordfish"));
    assert_null(strstr(log, server.password));
    log_fd_set(STDERR_FILENO);
    log_level_set(LOG_ERROR);
    CHECK(close(fd) == 0);
}

static void large_values_travel(void **state)
{
    (void)state;
    enum { SIZE = 24 << 20 };
    uint8_t *bytes = calloc(1, SIZE);
    assert_non_null(bytes);
    ids_quick(bytes, 1 << 20);
    struct cp_store_file file = {SLICE_LIT("large.yaml"), slice_of(bytes, SIZE), NULL};
    must(store->ops->sources_put(store, &fence, hand(), &file, 1));
    free(bytes);
}

int main(void)
{
    ids_init();
    log_level_set(LOG_ERROR);
    postgres_server_init(&server);
    postgres_server_start(&server);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_stopped_server_holds_nobody_up),
        T(a_killed_server_is_found_again),
        T(an_ended_session_costs_no_operation),
        T(a_transaction_whose_session_ends_runs_again),
        T(collisions_run_again_a_few_times),
        T(a_statement_past_its_time_ends),
        T(a_server_that_turns_read_only_is_left),
        T(hosts_are_tried_in_turn),
        T(a_take_over_during_a_publication_ends_it),
        T(a_take_over_waits_for_a_commit),
        T(a_leader_that_stands_still_holds_nobody_up),
        T(what_is_committed_is_on_disk),
        T(replicas_that_start_at_once_migrate_once),
        T(a_newer_schema_is_refused_at_once),
        T(another_encoding_is_refused),
        T(tls_is_as_the_url_says),
        T(no_password_is_ever_said),
        T(large_values_travel),
    };
    int failed = cmocka_run_group_tests_name("store.postgres", tests, NULL, NULL);
    postgres_server_free(&server);
    return failed;
}
