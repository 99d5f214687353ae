/* Proves: shards add up, also while they are written; label values are bounded; histograms keep
 * their error; the text is what Prometheus reads. */
#include "common/telemetry/metrics.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/cmocka.h"

enum { REQUESTS, OPEN, LATENCY, SIMPLE };

static const struct metrics_family families[] = {
    [REQUESTS] = {"trilane_requests_total", "Requests.", METRICS_COUNTER, {"lane", "code"}, 2, 0},
    [OPEN] = {"trilane_open", "Open connections.", METRICS_GAUGE, {NULL}, 0, 0},
    [LATENCY] = {"gw_rpc_latency_ms", "Latency.", METRICS_HISTOGRAM, {"op"}, 1, 0.001},
    [SIMPLE] = {"trilane_bytes", "Sizes.", METRICS_HISTOGRAM, {NULL}, 0, 0},
};

enum { FAMILY_COUNT = sizeof(families) / sizeof(families[0]) };

static struct metrics *set_of(size_t shards)
{
    struct metrics *m = NULL;
    assert_int_equal(metrics_new(families, FAMILY_COUNT, shards, &m).code, E_OK);
    return m;
}

static metrics_id requests(struct metrics *m, const char *lane, const char *code)
{
    struct slice values[] = {slice_str(lane), slice_str(code)};
    return metrics_series(m, REQUESTS, values);
}

static char *rendered(struct metrics *m, bool openmetrics)
{
    struct buf b = BUF_MAX(1 << 20);
    assert_int_equal(metrics_render(m, openmetrics, &b).code, E_OK);
    char *text = slice_dup(buf_slice(&b));
    buf_free(&b);
    return text;
}

static void counters_of_shards_add_up(void **state)
{
    (void)state;
    struct metrics *m = set_of(3);
    metrics_id a = requests(m, "operator", "OK");
    metrics_id b = requests(m, "proxy", "say \"hi\"\\\n");
    assert_int_equal(requests(m, "operator", "OK"), a);
    assert_int_not_equal(a, b);
    for (size_t i = 0; i < 3; i++) {
        metrics_add(metrics_shard(m, i), a, (int64_t)i + 1);
        metrics_set(metrics_shard(m, i), metrics_plain(m, OPEN), 5);
    }
    metrics_add(metrics_shard(m, 0), b, 7);
    assert_int_equal(metrics_value(m, a), 6);
    char *text = rendered(m, false);
    assert_string_equal(text,
                        "# HELP trilane_requests_total Requests.\n"
                        "# TYPE trilane_requests_total counter\n"
                        "trilane_requests_total{lane=\"operator\",code=\"OK\"} 6\n"
                        "trilane_requests_total{lane=\"proxy\",code=\"say \\\"hi\\\"\\\\\\n\"} 7\n"
                        "# HELP trilane_open Open connections.\n"
                        "# TYPE trilane_open gauge\n"
                        "trilane_open 15\n");
    free(text);
    text = rendered(m, true);
    assert_non_null(strstr(text, "# TYPE trilane_requests counter\ntrilane_requests_total{"));
    assert_true(slice_ends(slice_str(text), SLICE_LIT("trilane_open 15\n# EOF\n")));
    free(text);
    metrics_free(m);
    metrics_free(NULL);
}

static void values_past_the_bound_become_other(void **state)
{
    (void)state;
    struct metrics *m = set_of(1);
    metrics_id first = requests(m, "a", "1");
    metrics_id second = requests(m, "b", "1");
    metrics_id third = requests(m, "c", "1");
    assert_int_equal(requests(m, "d", "2"), third);
    assert_int_equal(requests(m, "a", "1"), first);
    assert_int_not_equal(second, third);
    metrics_add(metrics_shard(m, 0), third, 4);
    char *text = rendered(m, false);
    assert_non_null(strstr(text, "trilane_requests_total{lane=\"other\",code=\"other\"} 4\n"));
    assert_null(strstr(text, "lane=\"c\""));
    free(text);
    metrics_free(m);
}

static void long_values_are_cut(void **state)
{
    (void)state;
    struct metrics *m = set_of(1);
    char text[METRICS_LABEL_VALUE_MAX + 2];
    memset(text, 'x', sizeof(text));
    struct slice a[] = {slice_of(text, METRICS_LABEL_VALUE_MAX), SLICE_LIT("")};
    struct slice b[] = {slice_of(text, METRICS_LABEL_VALUE_MAX + 1), SLICE_LIT("")};
    struct slice c[] = {slice_of(text, METRICS_LABEL_VALUE_MAX - 1), SLICE_LIT("")};
    assert_int_equal(metrics_series(m, REQUESTS, a), metrics_series(m, REQUESTS, b));
    assert_int_not_equal(metrics_series(m, REQUESTS, a), metrics_series(m, REQUESTS, c));
    metrics_free(m);
}

static void histograms_keep_their_error(void **state)
{
    (void)state;
    static const uint64_t values[] = {
        0, 1, 15, 16, 17, 31, 32, 1000, 999999, 1ULL << 39, (1ULL << 40) - 1};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct metrics *m = set_of(1);
        metrics_id id = metrics_plain(m, SIMPLE);
        assert_int_equal(metrics_percentile(m, id, 50), 0);
        metrics_record(metrics_shard(m, 0), id, values[i]);
        uint64_t shown = metrics_percentile(m, id, 50);
        assert_true(shown >= values[i] && shown - values[i] <= values[i] / 8);
        metrics_record(metrics_shard(m, 0), id, UINT64_MAX); /* the last bucket takes the rest. */
        assert_int_equal(metrics_value(m, id), 2);
        assert_true(metrics_percentile(m, id, 100) == (1ULL << 40) - 1);
        metrics_free(m);
    }
}

static void percentiles_follow_the_records(void **state)
{
    (void)state;
    struct metrics *m = set_of(2);
    metrics_id id = metrics_plain(m, SIMPLE);
    for (uint64_t v = 1; v <= 10000; v++) {
        metrics_record(metrics_shard(m, v % 2), id, v);
    }
    for (int percent = 1; percent <= 100; percent++) {
        double shown = (double)metrics_percentile(m, id, percent);
        assert_true(shown >= percent * 100.0 && shown <= percent * 100.0 * 1.125 + 1);
    }
    metrics_free(m);
}

static void histograms_render_cumulative_and_scaled(void **state)
{
    (void)state;
    struct metrics *m = set_of(1);
    struct slice op = SLICE_LIT("get");
    metrics_id id = metrics_series(m, LATENCY, &op);
    metrics_record(metrics_shard(m, 0), id, 3);
    metrics_record(metrics_shard(m, 0), id, 1500);
    char *text = rendered(m, false);
    assert_non_null(strstr(text, "gw_rpc_latency_ms_bucket{op=\"get\",le=\"0.007\"} 1\n"));
    assert_non_null(strstr(text, "gw_rpc_latency_ms_bucket{op=\"get\",le=\"1.023\"} 1\n"));
    assert_non_null(strstr(text, "gw_rpc_latency_ms_bucket{op=\"get\",le=\"2.047\"} 2\n"));
    assert_non_null(strstr(text, "gw_rpc_latency_ms_bucket{op=\"get\",le=\"+Inf\"} 2\n"));
    assert_non_null(strstr(text, "gw_rpc_latency_ms_sum{op=\"get\"} 1.503\n"));
    assert_non_null(strstr(text, "gw_rpc_latency_ms_count{op=\"get\"} 2\n"));
    free(text);
    metrics_free(m);
}

static void no_series_is_harmless(void **state)
{
    (void)state;
    struct metrics *m = set_of(1);
    metrics_add(metrics_shard(m, 0), 0, 1);
    metrics_record(metrics_shard(m, 0), 0, 1);
    assert_int_equal(metrics_value(m, 0), 0);
    struct buf small = BUF_MAX(10);
    (void)metrics_plain(m, OPEN);
    assert_int_equal(metrics_render(m, false, &small).code, E_TOO_LARGE);
    buf_free(&small);
    metrics_free(m);
}

enum { WORKERS = 3, ROUNDS = 20000 };

struct worker {
    struct metrics *m;
    size_t index;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct metrics_shard *s = metrics_shard(w->m, w->index);
    metrics_id counter = requests(w->m, "operator", "OK");
    metrics_id histogram = metrics_plain(w->m, SIMPLE);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        metrics_add(s, counter, 1);
        metrics_record(s, histogram, i);
    }
    return NULL;
}

static void a_scrape_may_run_beside_the_workers(void **state)
{
    (void)state;
    struct worker workers[WORKERS];
    pthread_t threads[WORKERS];
    struct metrics *m = set_of(WORKERS);
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){m, i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    int64_t last = 0;
    for (int i = 0; i < 20; i++) {
        int64_t now = metrics_value(m, requests(m, "operator", "OK"));
        assert_true(now >= last && now <= WORKERS * ROUNDS);
        last = now;
        free(rendered(m, true));
    }
    for (size_t i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(metrics_value(m, requests(m, "operator", "OK")), WORKERS * ROUNDS);
    assert_int_equal(metrics_value(m, metrics_plain(m, SIMPLE)), WORKERS * ROUNDS);
    metrics_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_of_shards_add_up),
        cmocka_unit_test(values_past_the_bound_become_other),
        cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(histograms_keep_their_error),
        cmocka_unit_test(percentiles_follow_the_records),
        cmocka_unit_test(histograms_render_cumulative_and_scaled),
        cmocka_unit_test(no_series_is_harmless),
        cmocka_unit_test(a_scrape_may_run_beside_the_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
