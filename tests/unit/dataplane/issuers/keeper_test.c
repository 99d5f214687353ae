/* Proves that a place that does not answer holds up no other, that one that fails is not asked
 * sooner for a key that is missed, that a reading goes on over models and ends with its place, and
 * that the disk is left to another process. */
#include "dataplane/issuers/keeper.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/jose/jwk.h"
#include "common/net/ask.h"
#include "dataplane/apply/build.h"
#include "dataplane/issuers/cache.h"
#include "dataplane/request/metrics.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "tests/support/token_maker.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define PATIENCE_NS UINT64_C(20000000000)

enum { SITES = 2, ANSWER_MAX = 4096, URI_MAX = 64, LINES_MAX = 64 };

/* A server of one key set, which answers or is silent. */
struct site {
    int fd;
    uint16_t port;
    pthread_t thread;
    const char *answer;   /* NULL: nothing, until the other side has gone. */
    const char *document; /* to who asks for the well-known one; NULL: 'answer'. */
    bool discovery;       /* its Issuer has no URL of keys. */
    _Atomic unsigned asked;
    _Atomic unsigned left; /* connections that are over. */
};

static struct world {
    struct publisher publisher;
    struct dp_model_bin *bin;
    struct metrics *metrics;
    struct token_maker maker;
    struct dp_model *model;
    struct dp_issuers *keeper;
    struct site sites[SITES];
    char good[ANSWER_MAX];
    char directory[LINES_MAX];
    uint64_t version;
    pthread_mutex_t lock;
    struct dp_issuer_keys *keys; /* the newest, a reference; under the lock. */
} w;

/* ---- sites ---- */

static void serve(struct site *site, int fd)
{
    char request[ANSWER_MAX];
    size_t size = 0;
    ssize_t got = 1;
    while (got > 0) { /* ends: the other side goes, or is answered. */
        got = read(fd, request + size, sizeof(request) - 1 - size);
        size += got > 0 ? (size_t)got : 0;
        request[size] = '\0';
        if (site->answer != NULL && strstr(request, "\r\n\r\n") != NULL) {
            const char *known = "GET /.well-known/openid-configuration HTTP/1.1\r\n";
            bool document = site->document != NULL && strncmp(request, known, strlen(known)) == 0;
            const char *answer = document ? site->document : site->answer;
            (void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
            break;
        }
    }
    (void)close(fd);
    site->left++;
}

static void *site_main(void *ctx)
{
    struct site *site = ctx;
    for (;;) { /* until its socket is shut. */
        int fd = accept(site->fd, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        site->asked++;
        serve(site, fd);
    }
}

static void site_begin(struct site *site, const char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    site->answer = answer;
    site->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(site->fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(site->fd, 16) == 0);
    CHECK(getsockname(site->fd, (struct sockaddr *)&a, &size) == 0);
    site->port = ntohs(a.sin_port);
    CHECK(pthread_create(&site->thread, NULL, site_main, site) == 0);
}

static void site_end(struct site *site)
{
    (void)shutdown(site->fd, SHUT_RDWR);
    CHECK(pthread_join(site->thread, NULL) == 0);
    (void)close(site->fd);
}

/* ---- the world ---- */

static void read_keys(void *ctx, struct dp_issuer_keys *keys)
{
    (void)ctx;
    CHECK(pthread_mutex_lock(&w.lock) == 0);
    dp_issuer_keys_unref(w.keys);
    w.keys = dp_issuer_keys_ref(keys);
    CHECK(pthread_mutex_unlock(&w.lock) == 0);
}

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    CHECK(pthread_mutex_init(&w.lock, NULL) == 0);
    (void)snprintf(w.directory, sizeof(w.directory), "/tmp/trilane-keeper-XXXXXX");
    assert_non_null(mkdtemp(w.directory));
    publisher_init(&w.publisher);
    token_maker_init(&w.maker, "k1");
    assert_true(err_ok(dp_model_bin_new(&w.bin)));
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w.metrics)));
    const struct token_maker *makers[] = {&w.maker};
    char *set = token_jwks(makers, 1);
    (void)snprintf(w.good, sizeof(w.good), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(set), set);
    free(set);
    limits.issuer_timeout_ms = 60000; /* nothing ends by it. */
    limits.issuer_rest_ms = 10;
    const struct dp_issuers_config config = {.data_dir = w.directory,
                                             .metrics = w.metrics,
                                             .shard = metrics_shard(w.metrics, 0),
                                             .read = read_keys};
    return err_ok(dp_issuers_start(&config, &w.keeper)) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[2 * LINES_MAX];
    dp_issuers_stop(w.keeper);
    for (size_t i = 0; i < SITES; i++) {
        if (w.sites[i].port != 0) {
            site_end(&w.sites[i]);
        }
    }
    dp_issuer_keys_unref(w.keys);
    dp_model_unref(w.model);
    dp_model_bin_free(w.bin);
    metrics_free(w.metrics);
    token_maker_free(&w.maker);
    publisher_free(&w.publisher);
    (void)pthread_mutex_destroy(&w.lock);
    (void)snprintf(command, sizeof(command), "rm -r '%s'", w.directory);
    return system(command);
}

static void put_issuer(struct content *c, size_t i)
{
    char id[URI_MAX];
    char iss[URI_MAX];
    char uri[URI_MAX];
    Trilane__Parts__V1__Issuer part;
    trilane__parts__v1__issuer__init(&part);
    Trilane__Parts__V1__IssuerTenant way;
    trilane__parts__v1__issuer_tenant__init(&way);
    way.tenant = publisher_text("acme");
    Trilane__Parts__V1__IssuerTenant *ways[] = {&way};
    char *audiences[] = {publisher_text("trilane")};
    (void)snprintf(id, sizeof(id), "issuer/-/site%zu", i);
    (void)snprintf(iss, sizeof(iss), "http://127.0.0.1:%u", w.sites[i].port);
    (void)snprintf(uri, sizeof(uri), "http://127.0.0.1:%u/keys", w.sites[i].port);
    part.issuer = publisher_text(iss);
    part.n_audiences = 1;
    part.audiences = audiences;
    part.algorithms = 1U << JOSE_ES256;
    part.n_tenants = 1;
    part.tenants = ways;
    part.subject_claim = publisher_text("sub");
    part.jwks_uri = publisher_text(w.sites[i].discovery ? "" : uri);
    part.discovery = w.sites[i].discovery;
    part.refresh_ms = 3600000;
    part.max_stale_ms = 3600000;
    content_put(c, STREAM_TRUST, id, &part.base);
}

/* A model whose Issuers are those of the sites from 'first' on comes into force. */
static void swap(size_t first, size_t end)
{
    struct content *c = content_sample(1);
    for (size_t i = first; i < end; i++) {
        put_issuer(c, i);
    }
    struct version *v = version_new(&w.publisher, c, ++w.version, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    struct dp_build_report report;
    struct dp_model *model = NULL;
    struct err e = dp_model_build(w.bin, set, NULL, &model, &report);
    if (!err_ok(e)) {
        fail_msg("%s: %s", report.object, err_name(e.code));
    }
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    dp_model_unref(w.model);
    w.model = model;
    dp_issuers_model(w.keeper, model);
}

/* ---- waiting ---- */

static void wait_until(bool (*holds)(size_t), size_t site)
{
    const struct timespec rest = {.tv_nsec = 2000000};
    uint64_t end_ns = clock_mono_ns() + PATIENCE_NS;
    while (!holds(site)) {
        if (clock_mono_ns() > end_ns) {
            fail_msg("it does not come to it, of site %zu", site);
        }
        (void)nanosleep(&rest, NULL);
    }
}

struct finding {
    char id[URI_MAX];
    uint8_t source[DIGEST_SIZE];
};

static void note_source(void *ctx, const struct dp_issuer *issuer)
{
    struct finding *finding = ctx;
    CHECK(finding != NULL);
    if (slice_eq(issuer->id, slice_str(finding->id))) {
        memcpy(finding->source, issuer->source, DIGEST_SIZE);
    }
}

static void source_of(size_t site, uint8_t out[DIGEST_SIZE])
{
    struct finding finding = {.id = ""};
    (void)snprintf(finding.id, sizeof(finding.id), "-/site%zu", site);
    dp_model_each_issuer(w.model, note_source, &finding);
    memcpy(out, finding.source, DIGEST_SIZE);
}

/* The newest table; a reference. */
static struct dp_issuer_keys *newest(void)
{
    CHECK(pthread_mutex_lock(&w.lock) == 0);
    struct dp_issuer_keys *keys = w.keys == NULL ? NULL : dp_issuer_keys_ref(w.keys);
    CHECK(pthread_mutex_unlock(&w.lock) == 0);
    return keys;
}

static bool has_keys(size_t site)
{
    uint8_t source[DIGEST_SIZE];
    source_of(site, source);
    struct dp_issuer_keys *keys = newest();
    const struct dp_issuer_keys_row *row = dp_issuer_keys_find(keys, source);
    bool has = row != NULL && row->keys != NULL;
    dp_issuer_keys_unref(keys);
    return has;
}

static bool was_asked(size_t site)
{
    return w.sites[site].asked > 0;
}

static bool was_asked_twice(size_t site)
{
    return w.sites[site].asked > 1;
}

static bool was_left(size_t site)
{
    return w.sites[site].left > 0;
}

/* A token names a key that the site's set has not. */
static struct dp_issuer_keys_row *miss(struct dp_issuer_keys *keys, size_t site)
{
    uint8_t source[DIGEST_SIZE];
    source_of(site, source);
    struct dp_issuer_keys_row *row = dp_issuer_keys_find(keys, source);
    assert_non_null(row);
    atomic_store(&row->missed, true);
    return row;
}

/* ---- the tests ---- */

static void one_that_is_silent(void **state)
{
    (void)state;
    site_begin(&w.sites[0], NULL);
    site_begin(&w.sites[1], w.good);
    swap(0, 1);
    wait_until(was_asked, 0);
    swap(0, 2);
    wait_until(has_keys, 1);
    assert_false(has_keys(0));
    /* And each time again. */
    struct dp_issuer_keys *keys = newest();
    (void)miss(keys, 1);
    dp_issuer_keys_unref(keys);
    wait_until(was_asked_twice, 1);
    assert_int_equal(w.sites[0].asked, 1); /* the new model did not begin anew either. */
    assert_int_equal(w.sites[0].left, 0);
    swap(1, 2);
    wait_until(was_left, 0); /* nobody wants its keys any more. */
    assert_true(has_keys(1));
}

static void one_that_fails(void **state)
{
    (void)state;
    site_begin(&w.sites[0], "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    site_begin(&w.sites[1], w.good);
    swap(0, 2);
    wait_until(has_keys, 1);
    wait_until(was_left, 0);
    struct dp_issuer_keys *keys = newest();
    const struct dp_issuer_keys_row *failing = miss(keys, 0);
    (void)miss(keys, 1);
    wait_until(was_asked_twice, 1); /* both were looked at. */
    assert_true(atomic_load(&failing->missed));
    dp_issuer_keys_unref(keys);
}

static enum err_code kept(size_t site)
{
    auto_buf struct buf set = BUF_MAX(JOSE_KEYS_BYTES_MAX);
    uint8_t source[DIGEST_SIZE];
    int64_t read_ms = 0;
    source_of(site, source);
    return dp_issuer_cache_get(w.directory, source, clock_wall_ms(), &set, &read_ms).code;
}

static bool is_kept(size_t site)
{
    return kept(site) == E_OK;
}

static void the_disk_is_left(void **state)
{
    (void)state;
    site_begin(&w.sites[0], w.good);
    site_begin(&w.sites[1], w.good);
    swap(0, 1);
    wait_until(has_keys, 0);
    assert_int_equal(kept(0), E_OK);
    dp_issuers_leave_disk(w.keeper);
    swap(0, 2);
    wait_until(has_keys, 1);
    assert_int_equal(kept(1), E_NOT_FOUND);
    dp_issuers_take_disk(w.keeper);
    struct dp_issuer_keys *keys = newest();
    (void)miss(keys, 1);
    dp_issuer_keys_unref(keys);
    wait_until(is_kept, 1);
}

/* "HTTP/1.1 200" and a document of 'issuer' that points to site 1. */
static void put_document(char out[ANSWER_MAX], const char *issuer)
{
    char json[ANSWER_MAX / 2];
    (void)snprintf(json, sizeof(json),
                   "{\"issuer\":\"%s\",\"jwks_uri\":\"http://127.0.0.1:%u/there\"}", issuer,
                   w.sites[1].port);
    (void)snprintf(out, ANSWER_MAX, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(json), json);
}

/* The document is read each time before the keys, and both are asked side by side with others. */
static void keys_are_discovered(void **state)
{
    (void)state;
    char document[ANSWER_MAX];
    char issuer[URI_MAX];
    w.sites[0].discovery = true;
    site_begin(&w.sites[1], w.good);
    site_begin(&w.sites[0], "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    (void)snprintf(issuer, sizeof(issuer), "http://127.0.0.1:%u", w.sites[0].port);
    put_document(document, issuer);
    w.sites[0].document = document;
    swap(0, 1);
    wait_until(has_keys, 0);
    assert_int_equal(w.sites[0].asked, 1);
    assert_int_equal(w.sites[1].asked, 1);
    assert_int_equal(kept(0), E_OK);
    struct dp_issuer_keys *keys = newest();
    (void)miss(keys, 0);
    dp_issuer_keys_unref(keys);
    wait_until(was_asked_twice, 1);
    assert_int_equal(w.sites[0].asked, 2);
}

/* A document of another issuer points nowhere. */
static void another_ones_document(void **state)
{
    (void)state;
    char document[ANSWER_MAX];
    w.sites[0].discovery = true;
    site_begin(&w.sites[1], w.good);
    site_begin(&w.sites[0], w.good);
    put_document(document, "http://127.0.0.1:1");
    w.sites[0].document = document;
    swap(0, 1);
    wait_until(was_asked_twice, 0); /* the first time was in vain, and so it was tried again. */
    assert_int_equal(w.sites[1].asked, 0);
    assert_false(has_keys(0));
}

int main(void)
{
    ids_init();
    assert_true(err_ok(net_ask_init()));
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(one_that_is_silent),  TEST(one_that_fails),        TEST(the_disk_is_left),
        TEST(keys_are_discovered), TEST(another_ones_document),
    };
    return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
