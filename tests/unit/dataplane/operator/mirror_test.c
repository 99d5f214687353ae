/* Proves that what becomes of copies is counted, whichever and however many shadows there were. */
#include "dataplane/operator/mirror.h"

#include "tests/unit/dataplane/operator/upstream_world.h"

enum { SHADOWS = 300, ID_SIZE = 64 };

static void id_of(size_t shadow, char id[ID_SIZE])
{
    (void)snprintf(id, ID_SIZE, "service/acme/shadow%zu", shadow);
}

static metrics_id denied(struct world *w, const char *shadow)
{
    const struct slice labels[] = {slice_str(shadow), SLICE_LIT("denied")};
    return metrics_series(w->metrics, DP_METRIC_MIRRORED, labels);
}

/* All denials, also of those that have a series together. */
static int64_t all_denied(struct world *w)
{
    char id[ID_SIZE];
    metrics_id other = denied(w, "other");
    int64_t sum = metrics_value(w->metrics, other);
    for (size_t i = 0; i < SHADOWS; i++) {
        id_of(i, id);
        metrics_id own = denied(w, id);
        sum += own == other ? 0 : metrics_value(w->metrics, own);
    }
    return sum;
}

/* A call whose route copies all to a shadow, that does not let its caller in. */
static void copy_to(struct world *w, struct op_mirrors *mirrors, const char *shadow)
{
    static const struct dp_lane lane = {.name = "operator"};
    const struct dp_route route = {.mirror = slice_str(shadow), .mirror_per_mille = 1000};
    world_ask(w, /* draw: */ 1);
    w->rq.pool = &w->pool;
    w->rq.lane = &lane;
    w->rq.route = &route;
    w->rq.method = SLICE_LIT("/acme.orders/Get");
    assert_null(op_mirror_start(mirrors, &w->rq));
}

static void later_shadows_are_counted_together(void **state)
{
    struct world *w = *state;
    struct op_mirrors *mirrors = NULL;
    world_publish(w, &(struct plan){.count = 1, .shadows = SHADOWS});
    assert_true(err_ok(op_mirrors_new(&w->host, w->ups, &mirrors)));
    for (size_t i = 0; i < SHADOWS; i++) {
        char id[ID_SIZE];
        id_of(i, id);
        copy_to(w, mirrors, id);
    }
    copy_to(w, mirrors, "service/acme/shadow0");
    assert_int_equal(metrics_value(w->metrics, denied(w, "service/acme/shadow0")), 2);
    assert_int_equal(all_denied(w), SHADOWS + 1);
    op_mirrors_free(mirrors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(later_shadows_are_counted_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
