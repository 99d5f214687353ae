/* Proves what the admin port answers, with and without a snapshot, a token, a tenant; over a real
 * socket and a real apply thread that has an empty or a filled disk. */
#include "dataplane/admin/admin.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/net/addr.h"
#include "common/snapshot/disk.h"
#include "dataplane/admin/ask.h"
#include "dataplane/admin/show.h"
#include "dataplane/apply/apply.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/refusals.h"

#include "tests/support/cmocka.h"
#include "tests/support/ports.h"
#include "tests/support/publisher.h"

#define TOKEN "a-token-of-some-length"

struct world {
    char directory[64];
    char address[NET_ADDR_TEXT_MAX];
    struct publisher publisher;
    struct metrics *metrics;
    struct dp_apply *apply;
    struct dp_admin *admin;
    struct dp_refusals *refusals[2];
    unsigned scrapes;
};

static struct world w;

/* One worker that is as fast as the apply thread: it serves what it was given. */
static void swap(void *ctx, struct dp_model *model)
{
    (void)ctx;
    (void)model;
}

static void fresh(void *ctx, uint64_t content_ns)
{
    (void)ctx;
    (void)content_ns;
}

static uint64_t served_4(void *ctx)
{
    (void)ctx;
    return 4;
}

static uint64_t served_none(void *ctx)
{
    (void)ctx;
    return 0;
}

static uint64_t worker_version(void *ctx, size_t index)
{
    (void)ctx;
    return index + 4;
}

static size_t worker_connections(void *ctx, size_t index)
{
    (void)ctx;
    return index + 70;
}

static const struct dp_refusals *worker_refusals(void *ctx, size_t index)
{
    (void)ctx;
    return w.refusals[index];
}

static void before_scrape(void *ctx)
{
    (void)ctx;
    w.scrapes++;
}

static void write_disk(void)
{
    struct content *c = content_sample(1);
    struct version *v = version_new(&w.publisher, c, 4, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT(PUBLISHER_ENVIRONMENT), environment);
    struct disk_options options = {.directory = w.directory,
                                   .environment = environment,
                                   .trust_root = buf_slice(&w.publisher.root_bytes),
                                   .lock_fd = -1};
    struct disk *disk = NULL;
    assert_true(err_ok(disk_open(&options, &disk)));
    struct disk_apply apply = {.manifest = buf_slice(&v->manifest), .set = set, .epoch = 3};
    assert_true(err_ok(disk_commit(disk, &apply)));
    disk_close(disk);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
}

static void set_address(uint16_t port)
{
    (void)snprintf(w.address, sizeof(w.address), "127.0.0.1:%u", port);
}

static void start(bool with_disk, const char *token)
{
    memset(&w, 0, sizeof(w));
    (void)snprintf(w.directory, sizeof(w.directory), "/tmp/trilane-admin-XXXXXX");
    assert_non_null(mkdtemp(w.directory));
    publisher_init(&w.publisher);
    if (with_disk) {
        write_disk();
    }
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 2, &w.metrics)));
    struct dp_apply_config apply = {
        .environment = SLICE_LIT(PUBLISHER_ENVIRONMENT),
        .node = SLICE_LIT("node-1"),
        .state_dir = w.directory,
        .trust_root = buf_slice(&w.publisher.root_bytes),
        .workers = {.swap = swap, .fresh = fresh, .served = with_disk ? served_4 : served_none},
        .metrics = w.metrics,
        .shard = metrics_shard(w.metrics, 0),
    };
    assert_true(err_ok(dp_apply_start(&apply, &w.apply)));
    for (size_t i = 0; i < 2; i++) {
        assert_true(err_ok(dp_refusals_new(16, &w.refusals[i])));
    }
    set_address(test_free_port());
    struct dp_admin_config admin = {
        .address = w.address,
        .token = slice_str(token),
        .environment = SLICE_LIT(PUBLISHER_ENVIRONMENT),
        .node = SLICE_LIT("node-1"),
        .apply = w.apply,
        .metrics = w.metrics,
        .shard = metrics_shard(w.metrics, 1),
        .worker_count = 2,
        .worker_version = worker_version,
        .worker_connections = worker_connections,
        .worker_refusals = worker_refusals,
        .before_scrape = before_scrape,
    };
    assert_true(err_ok(dp_admin_start(&admin, &w.admin)));
}

static int remove_entry(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void stop(void)
{
    dp_admin_stop(w.admin);
    dp_refusals_free(w.refusals[0]);
    dp_refusals_free(w.refusals[1]);
    dp_apply_stop(w.apply);
    dp_apply_free(w.apply);
    metrics_free(w.metrics);
    publisher_free(&w.publisher);
    /* Nobody else walks a tree in this process. */
    /* NOLINTNEXTLINE(concurrency-mt-unsafe) */
    (void)nftw(w.directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The body holds 'wanted'; the status is what 'code' stands for. */
static void expect(const char *path, const char *token, enum err_code code, const char *wanted)
{
    auto_buf struct buf body = BUF_MAX(1 << 20);
    struct err e = dp_ask(slice_str(w.address), slice_str(path), slice_str(token), &body);
    const char *text = "";
    assert_true(err_ok(buf_cstr(&body, &text)));
    assert_string_equal(err_name(e.code), err_name(code));
    if (strstr(text, wanted) == NULL) {
        fail_msg("%s: no %s in %s", path, wanted, text);
    }
}

static void wait_for_model(void)
{
    struct dp_model *model = NULL;
    while ((model = dp_apply_model(w.apply)) == NULL) {
        struct timespec t = {.tv_nsec = 1000000};
        (void)nanosleep(&t, NULL);
    }
    dp_model_unref(model);
}

static void without_a_snapshot(void **state)
{
    (void)state;
    start(/* with_disk= */ false, "");
    expect("/health", "", E_OK, "ok");
    expect("/healthz", "", E_OK, "ok");
    expect("/ready", "", E_IO, "NOT_READY"); /* 503. */
    expect("/dump", "", E_OK, "\"version\": 0");
    expect("/nothing", "", E_NOT_FOUND, "NOT_FOUND");
    stop();
}

static void with_a_snapshot(void **state)
{
    (void)state;
    start(/* with_disk= */ true, "");
    wait_for_model();
    expect("/ready", "", E_OK, "\"ready\": true");
    expect("/ready?tenant=acme", "", E_OK, "\"ready\": true");
    expect("/ready?tenant=globex", "", E_IO, "the tenant has no service");
    expect("/dump", "", E_OK, "\"version\": 5"); /* of the second worker. */
    expect("/dump", "", E_OK, "\"connections\": 71");
    expect("/dump", "", E_OK, "\"request_turn_us\": {");
    expect("/ready?probe=1&tenant=globex", "", E_IO, "the tenant has no service");
    expect("/ready?tenant=", "", E_IO, "the tenant has no service");
    expect("/ready?tenants=globex", "", E_OK, "\"ready\": true");
    expect("/dump?x=1", "", E_OK, "\"environment\": \"test\"");
    expect("/metrics", "", E_OK, "# TYPE trilane_snapshot_version gauge");
    assert_int_equal(w.scrapes, 1);
    dp_apply_drain(w.apply);
    struct dp_apply_status s = {0};
    while (s.state != SNAP_DRAINING) {
        dp_apply_status(w.apply, &s);
    }
    expect("/ready", "", E_IO, "DRAINING");
    stop();
}

static void a_token_is_asked_for(void **state)
{
    (void)state;
    start(/* with_disk= */ true, TOKEN);
    expect("/health", "", E_OK, "ok");
    expect("/dump", "", E_UNAUTHENTICATED, "UNAUTHENTICATED");
    expect("/metrics", "a-token-of-some-lengtX", E_UNAUTHENTICATED, "UNAUTHENTICATED");
    expect("/metrics", TOKEN "-and-more", E_UNAUTHENTICATED, "UNAUTHENTICATED");
    expect("/metrics", TOKEN, E_OK, "trilane_snapshot_version");
    expect("/dump", TOKEN, E_OK, "\"node\": \"node-1\"");
    expect("/trace", "", E_UNAUTHENTICATED, "UNAUTHENTICATED");
    expect("/trace/000000000001", "", E_UNAUTHENTICATED, "UNAUTHENTICATED");
    expect("/trace", TOKEN, E_OK, "\"refusals\": []");
    stop();
}

/* Of 'version', refused by a rule; 'minutes' ago. */
static void refuse(size_t worker, uint64_t id, uint64_t version, unsigned minutes)
{
    struct dp_refusal entry = {.id = id,
                               .time_ms = 1767225600123,
                               .boot_ms = clock_boot_ns() / 1000000 - minutes * UINT64_C(60000),
                               .version = version,
                               .code = E_POLICY_DENIED,
                               .grpc_status = 7,
                               .http_status = 200};
    dp_refusal_set(&entry, DP_REFUSAL_CALLER, SLICE_LIT("acme/web"));
    dp_refusal_set(&entry, DP_REFUSAL_RULE, SLICE_LIT("acme/orders/nobody"));
    dp_refusals_add(w.refusals[worker], &entry);
}

static void show(const char *id, enum dp_show_format format, enum err_code code, const char *wanted)
{
    auto_buf struct buf out = BUF_MAX(1 << 20);
    auto_buf struct buf message = BUF_MAX(4096);
    const struct dp_show_trace asked = {
        .servers = slice_str(w.address), .id = slice_str(id), .format = format};
    struct err e = dp_show_trace(&asked, &out, &message);
    assert_string_equal(err_name(e.code), err_name(code));
    const char *text = "";
    assert_true(err_ok(buf_cstr(code == E_OK ? &out : &message, &text)));
    if (strstr(text, wanted) == NULL) {
        fail_msg("%s: no %s in %s", id, wanted, text);
    }
}

static void a_refusal_is_explained(void **state)
{
    (void)state;
    start(/* with_disk= */ true, "");
    wait_for_model();
    refuse(0, 1, 4, 0);
    refuse(1, 2, 3, 30);
    refuse(1, 3, 4, 61);
    /* Positions are in the bucket alone, and there is none: that is said once, then tried again. */
    expect("/trace/000000000001", "", E_OK, "\"state\": \"asked\"");
    show("000000000001", DP_SHOW_JSON, E_OK, "\"code\": \"UNAVAILABLE\"");
    show("000000000001", DP_SHOW_TABLE, E_OK, "rule         acme/orders/nobody\n");
    show("000000000001", DP_SHOW_TABLE, E_OK, "stands in    could not be fetched now");
    show("000000000001", DP_SHOW_YAML, E_OK, "caller: \"acme/web\"\n");
    show("000000000001", DP_SHOW_YAML, E_OK, "position:\n  of: \"acme/orders/nobody\"\n");
    show("000000000002", DP_SHOW_TABLE, E_OK, "of a version that is served no more");
    show("000000000002", DP_SHOW_JSON, E_OK, "\"time\": \"2026-01-01T00:00:00.123Z\"");
    show("000000000003", DP_SHOW_TABLE, E_NOT_FOUND, "older than an hour");
    show("none", DP_SHOW_TABLE, E_USAGE, "is no id");
    show("", DP_SHOW_TABLE, E_OK, "000000000001  POLICY_DENIED         acme/web");
    show("", DP_SHOW_YAML, E_OK, "total: 3\nrefusals:\n  -\n    id: \"000000000001\"\n");
    expect("/trace/", "", E_NOT_FOUND, "NOT_FOUND");
    stop();
}

static void nobody_answers(void **state)
{
    (void)state;
    uint16_t port = 0;
    int fd = test_deaf_port(&port);
    set_address(port);
    auto_buf struct buf body = BUF_MAX(100);
    assert_int_equal(
        dp_ask(slice_str(w.address), SLICE_LIT("/dump"), (struct slice){0}, &body).code,
        E_UNAVAILABLE);
    (void)close(fd);
}

int main(void)
{
    /* A machine that has just booted has no hour behind it, of which a refusal could be. */
    clock_shift_for_test(INT64_C(2) * 3600 * 1000000000, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_snapshot),   cmocka_unit_test(with_a_snapshot),
        cmocka_unit_test(a_token_is_asked_for), cmocka_unit_test(a_refusal_is_explained),
        cmocka_unit_test(nobody_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
