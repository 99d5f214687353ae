/* Proves that an apply lets whoever waits for the core go first between any two of its pieces but
 * the shortest, and that one that takes long does so no more; how often a bucket is asked that is
 * slow, or lacks something; that the node goes on saying how it stands meanwhile; what a new root
 * leaves of what was tried; that the disk's word about a version that kills holds for heads; and
 * that it waits while readers hold as many snapshots as may be alive. Its thread does not run: the
 * test is the thread, and sees each piece by what it calls. */
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/request/metrics.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"

enum { TRACE_MAX = 256 };

#define LONG_NS UINT64_C(1000000000)
#define PIECE_NS UINT64_C(30000) /* more than what is done in a row. */

struct world {
    char directory[64];
    struct publisher publisher;
    struct key_pair key; /* the node's. */
    struct metrics *metrics;
    struct version *version;
    struct dp_apply *apply;
    struct dp_model *model;
    uint64_t now_ns;
    uint64_t fetch_ns;        /* a fetch takes so long; */
    enum err_code fetch_code; /* and comes to this; */
    const char *lacks;        /* keys that begin so are not there; NULL: all are; */
    enum err_code lacks_code; /* E_OK: which is said as NOT_FOUND. */
    struct buf root;          /* the next one; empty: there is none. */
    uint64_t look_ns;         /* and whatever lies between two looks at the clock. */
    bool connected;
    char trace[TRACE_MAX + 1]; /* y: it yields; f: fetches; d: syncs; s: swaps; r: reports. */
    size_t trace_size;
};

static struct world w;

static void note(char what)
{
    assert_true(w.trace_size < TRACE_MAX);
    w.trace[w.trace_size++] = what;
    w.trace[w.trace_size] = '\0';
}

/* The next root, or the manifest or a chunk of the version. */
static struct slice object(const char *key)
{
    const struct version *v = w.version;
    char name[SNAP_KEY_SIZE];
    snap_key_root(w.publisher.root.version, name);
    if (strcmp(key, name) == 0 && w.root.size > 0) {
        return buf_slice(&w.root);
    }
    snap_key_manifest(v->number, v->digest, name);
    if (strcmp(key, name) == 0) {
        return buf_slice(&v->manifest);
    }
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            snap_key_chunk(v->streams[i].chunks[k].digest, name);
            if (strcmp(key, name) == 0) {
                return v->streams[i].chunks[k].stored;
            }
        }
    }
    return (struct slice){0};
}

/* ---- what an apply calls ---- */

/* Names that the linker makes of --wrap. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg);
/* NOLINTNEXTLINE(readability-non-const-parameter): as the library's. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    (void)thread;
    (void)attr;
    (void)run;
    (void)arg;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
    (void)thread;
    (void)result;
    return 0;
}

int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
    note('y');
    return 0;
}

uint64_t __wrap_clock_mono_ns(void);
uint64_t __wrap_clock_mono_ns(void)
{
    w.now_ns += w.look_ns;
    return w.now_ns;
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    (void)fd;
    note('d');
    return 0;
}

int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    return __wrap_fsync(fd);
}

const char *__wrap_bus_exposure(const struct bus *bus);
const char *__wrap_bus_exposure(const struct bus *bus)
{
    (void)bus;
    return NULL;
}

bool __wrap_dp_feed_pushed(const struct dp_feed *feed, const char *key, struct slice *out);
bool __wrap_dp_feed_pushed(const struct dp_feed *feed, const char *key, struct slice *out)
{
    (void)feed;
    (void)key;
    (void)out;
    return false;
}

bool __wrap_dp_feed_connected(const struct dp_feed *feed);
bool __wrap_dp_feed_connected(const struct dp_feed *feed)
{
    (void)feed;
    return w.connected;
}

struct err __wrap_dp_feed_put_status(struct dp_feed *feed, struct slice node, struct slice status);
struct err __wrap_dp_feed_put_status(struct dp_feed *feed, struct slice node, struct slice status)
{
    (void)feed;
    (void)node;
    (void)status;
    note('r');
    return OK;
}

struct err __wrap_dp_feed_get(struct dp_feed *feed, const char *key, struct buf *out);
struct err __wrap_dp_feed_get(struct dp_feed *feed, const char *key, struct buf *out)
{
    (void)feed;
    note('f');
    w.now_ns += w.fetch_ns;
    if (w.fetch_code != E_OK) {
        return FAIL(w.fetch_code);
    }
    struct slice bytes = object(key);
    bool lacks = w.lacks != NULL && strncmp(key, w.lacks, strlen(w.lacks)) == 0;
    if (lacks && w.lacks_code != E_OK) {
        return FAIL(w.lacks_code);
    }
    return lacks || bytes.size == 0 ? FAIL(E_NOT_FOUND) : buf_add(out, bytes);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

static void swap(void *ctx, struct dp_model *model)
{
    (void)ctx;
    note('s');
    dp_model_unref(w.model);
    w.model = dp_model_ref(model);
}

static void fresh(void *ctx, uint64_t content_ns)
{
    (void)ctx;
    (void)content_ns;
}

static uint64_t served(void *ctx)
{
    (void)ctx;
    return w.model == NULL ? 0 : dp_model_version(w.model);
}

/* ---- the node ---- */

static void next_version(uint64_t number)
{
    struct content *c = content_sample((uint16_t)number);
    version_free(w.version);
    w.version = version_new(&w.publisher, c, number, NULL);
    content_free(c);
}

static void start(void)
{
    struct dp_apply_config config = {
        .environment = SLICE_LIT(PUBLISHER_ENVIRONMENT),
        .node = SLICE_LIT("node-1"),
        .state_dir = w.directory,
        .trust_root = buf_slice(&w.publisher.root_bytes),
        .workers = {.swap = swap, .fresh = fresh, .served = served},
        .key = &w.key,
        .metrics = w.metrics,
        .shard = metrics_shard(w.metrics, 0),
    };
    assert_true(err_ok(dp_apply_start(&config, &w.apply)));
}

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    w.now_ns = 3600 * LONG_NS;
    w.look_ns = PIECE_NS;
    (void)snprintf(w.directory, sizeof(w.directory), "/tmp/trilane-walk-XXXXXX");
    assert_non_null(mkdtemp(w.directory));
    publisher_init(&w.publisher);
    assert_true(err_ok(key_pair_new(KEY_ROLE_NODE, SLICE_LIT("node-1"), &w.key)));
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w.metrics)));
    next_version(7);
    start();
    w.trace_size = 0;
    return 0;
}

static int remove_entry(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    dp_model_unref(w.model);
    dp_apply_stop(w.apply);
    dp_apply_free(w.apply);
    /* Nobody else walks a tree in this process. */
    /* NOLINTNEXTLINE(concurrency-mt-unsafe) */
    (void)nftw(w.directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    metrics_free(w.metrics);
    version_free(w.version);
    buf_free(&w.root);
    publisher_free(&w.publisher);
    return 0;
}

/* Names the version. */
static void take_head_by(const char *way, struct head_plan plan)
{
    auto_buf struct buf head = BUF_MAX(1 << 20);
    plan.version = w.version->number;
    plan.digest = w.version->digest;
    publisher_head(&w.publisher, &plan, &head);
    dp_apply_head(w.apply, buf_slice(&head), way);
}

static void take_head(struct head_plan plan)
{
    take_head_by("hint", plan);
}

static void take_root(const struct root_floor *floor)
{
    w.root = BUF_MAX((size_t)2 * ROOT_BODY_MAX);
    publisher_next_root(&w.publisher, floor, &w.root);
    dp_apply_roots(w.apply);
    assert_int_equal(w.apply->judge.root.version, w.publisher.root.version);
}

static void apply_it(void)
{
    take_head((struct head_plan){.epoch = 1, .sequence = 1});
    assert_int_equal(served(NULL), w.version->number);
}

static enum err_code refusal(void)
{
    struct dp_apply_status s;
    dp_apply_status(w.apply, &s);
    return s.code;
}

static size_t count_of(char what)
{
    size_t count = 0;
    for (size_t i = 0; i < w.trace_size; i++) {
        count += w.trace[i] == what;
    }
    return count;
}

/* ---- the cases ---- */

#define STEP_INDEX(name, text) STEP_##name,
enum { DP_APPLY_STEPS(STEP_INDEX) };
#undef STEP_INDEX

static void lets_others_go_first_between_its_pieces(void **state)
{
    (void)state;
    apply_it();
    assert_true(count_of('d') >= 3); /* the pack, the floor, and the floor's name. */
    assert_int_equal(strspn(w.trace, "y"), STEP_manifest + 1); /* then it fetches; once a step. */
    for (size_t i = 0; i < w.trace_size; i++) {
        char before = i == 0 ? '\0' : w.trace[i - 1];
        bool waits = w.trace[i] == 'd' || w.trace[i] == 's';
        if (waits && before != 'y') {
            fail_msg("no yield before piece %zu of %s", i, w.trace);
        }
    }
}

static void one_that_takes_long_waits_for_nobody(void **state)
{
    (void)state;
    w.fetch_ns = LONG_NS;
    apply_it();
    const char *fetched = strchr(w.trace, 'f');
    assert_non_null(fetched);
    assert_int_not_equal(w.trace[0], 'f');
    assert_null(strchr(fetched, 'y'));
    assert_non_null(strchr(fetched, 's'));
}

static void short_pieces_are_done_in_a_row(void **state)
{
    (void)state;
    w.look_ns = 0;
    apply_it();
    assert_int_equal(count_of('y'), 1);
    assert_int_equal(w.trace[0], 'y');
}

/* Whether it answers that there is none or does not answer, and however late. */
static void a_strangers_head_asks_once_for_a_root(void **state)
{
    (void)state;
    static const enum err_code answers[] = {E_UNAVAILABLE, E_NOT_FOUND};
    w.fetch_ns = 5 * LONG_NS;
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        w.fetch_code = answers[i];
        w.trace_size = 0;
        w.now_ns += 60 * LONG_NS;
        take_head((struct head_plan){.epoch = 1, .sequence = 1, .key = &w.publisher.stranger});
        assert_int_equal(refusal(), E_HEAD_UNSIGNED);
        assert_int_equal(count_of('f'), 1);
    }
}

/* Else it would be applied above a floor that was to be below it, and the leader's next version be
 * a replay. */
static void a_target_is_not_tried_past_a_new_floor(void **state)
{
    (void)state;
    next_version(1000);
    w.lacks = "chunk";
    take_head((struct head_plan){.epoch = 1, .sequence = 1});
    assert_int_equal(refusal(), E_CHUNK_MISSING);
    assert_int_not_equal(w.apply->retry_ns, 0);
    take_root(&(struct root_floor){.epoch = 2, .version = 50});
    w.lacks = NULL;
    assert_int_equal(w.apply->retry_ns, 0);
    dp_apply_again(w.apply);
    assert_int_equal(served(NULL), 0);
    next_version(51);
    take_head((struct head_plan){.epoch = 3, .sequence = 1});
    assert_int_equal(served(NULL), 51);
    assert_int_equal(refusal(), E_OK);
}

/* The leader may be away: the same head is taken up again, as it stands on the new root. */
static void the_same_head_goes_on_under_a_new_root(void **state)
{
    (void)state;
    const struct head_plan plan = {
        .epoch = 1, .sequence = 2, .signed_at_ms = clock_wall_ms(), .validity_ms = 60000};
    w.lacks = "chunk";
    take_head(plan);
    assert_int_equal(refusal(), E_CHUNK_MISSING);
    take_root(/* floor= */ NULL);
    w.lacks = NULL;
    uint64_t contact_ns = w.apply->standing.contact_ns;
    take_head(plan);
    assert_int_equal(served(NULL), w.version->number);
    assert_int_equal(w.apply->standing.contact_ns, contact_ns); /* it is no news. */
}

static void a_poll_may_be_behind_after_a_new_root(void **state)
{
    (void)state;
    take_head((struct head_plan){.epoch = 1, .sequence = 2});
    take_root(/* floor= */ NULL);
    take_head_by("poll", (struct head_plan){.epoch = 1, .sequence = 1});
    assert_int_equal(refusal(), E_OK);
}

/* Of those that a node fetches. */
static size_t chunk_count(const char **out_last)
{
    static char last[SNAP_KEY_SIZE];
    size_t count = 0;
    for (size_t i = 0; i < w.version->stream_count; i++) {
        const struct cut_stream *s = &w.version->streams[i];
        if (s->kind != STREAM_POSITIONS) {
            snap_key_chunk(s->chunks[s->chunk_count - 1].digest, last);
            count += s->chunk_count;
        }
    }
    *out_last = last;
    return count;
}

/* Tries again; how many fetches that was. */
static size_t fetches_again(void)
{
    w.trace_size = 0;
    dp_apply_again(w.apply);
    return count_of('f');
}

/* A version, and all but the last of its chunks. */
static size_t take_all_but_one(enum err_code code)
{
    size_t chunks = chunk_count(&w.lacks);
    w.lacks_code = code;
    w.trace_size = 0;
    take_head((struct head_plan){.epoch = 1, .sequence = w.version->number});
    assert_int_equal(count_of('f'), 1 + chunks); /* and the manifest. */
    return chunks;
}

/* Else whoever withholds one has all nodes fetch all the others each second. */
static void with_one_chunk_missing_the_others_are_fetched_once(void **state)
{
    (void)state;
    assert_true(take_all_but_one(E_NOT_FOUND) > 2);
    assert_int_equal(fetches_again(), 2);
    assert_int_equal(refusal(), E_CHUNK_MISSING);
    w.lacks_code = E_UNAVAILABLE;
    assert_int_equal(fetches_again(), 2);
    assert_int_equal(refusal(), E_CONTENT_UNANSWERED);
    w.lacks = NULL;
    assert_int_equal(fetches_again(), 2);
    assert_int_equal(served(NULL), w.version->number);
    assert_null(w.apply->open);
}

static void chunks_of_another_manifest_are_let_go(void **state)
{
    (void)state;
    (void)take_all_but_one(E_NOT_FOUND);
    assert_non_null(w.apply->open);
    next_version(8);
    (void)take_all_but_one(E_NOT_FOUND);
    assert_memory_equal(snap_set_manifest_digest(w.apply->open), w.version->digest, DIGEST_SIZE);
    take_root(/* floor= */ NULL);
    assert_null(w.apply->open);
}

/* Back at what is served, nothing is left of what was tried. */
static void a_way_back_lets_chunks_go(void **state)
{
    (void)state;
    apply_it();
    struct version *before = TAKE_PTR(w.version);
    next_version(8);
    w.lacks = "chunk";
    take_head((struct head_plan){.epoch = 1, .sequence = 2});
    assert_non_null(w.apply->open);
    version_free(w.version);
    w.version = before;
    take_head((struct head_plan){.epoch = 1, .sequence = 3});
    assert_int_equal(refusal(), E_OK);
    assert_null(w.apply->open);
}

static void what_was_fetched_is_let_go_when_memory_is_short(void **state)
{
    (void)state;
    (void)take_all_but_one(E_NO_MEMORY);
    assert_int_equal(refusal(), E_OUT_OF_MEMORY);
    assert_null(w.apply->open);
}

/* Slow chunks are no reason to be silent, nor to be deaf; and none of them is fetched twice. */
static void a_long_walk_speaks_and_ends(void **state)
{
    (void)state;
    const char *last = NULL;
    size_t chunks = chunk_count(&last);
    const size_t in_one_walk = 3;
    assert_true(chunks > in_one_walk);
    w.connected = true;
    w.fetch_ns = 13 * LONG_NS; /* longer than between two statuses. */
    assert_true(in_one_walk * w.fetch_ns > limits.stale_after_ms * UINT64_C(1000000));
    take_head((struct head_plan){.epoch = 1, .sequence = 1});
    assert_int_equal(refusal(), E_CONTENT_UNANSWERED);
    const char *fetched = strchr(w.trace, 'f');
    assert_non_null(fetched);
    assert_string_equal(fetched, "ffrfrfr");
    size_t fetches = count_of('f');
    size_t walks = 1;
    for (; refusal() != E_OK; walks++) {
        assert_true(walks < chunks);
        fetches += fetches_again();
    }
    assert_int_equal(served(NULL), w.version->number);
    assert_int_equal(fetches, chunks + walks); /* the manifest with each. */
}

/* Nothing is fetched for a version that there is no room for, however often it is tried. */
static void assert_waits(const struct dp_model *serving)
{
    assert_ptr_equal(w.model, serving);
    assert_int_equal(count_of('f') + count_of('d') + count_of('s'), 0);
    assert_true(w.apply->waits_for_room);
    assert_true(w.apply->retry_ns > w.now_ns);
    assert_int_equal(dp_model_bin_live(w.apply->bin), limits.live_snapshots);
}

static void point_at_it(void)
{
    take_head((struct head_plan){.epoch = 1, .sequence = w.version->number});
}

/* Each snapshot is held by a reader that is stuck in it, as an open request is. */
static void readers_of_old_snapshots_are_waited_for(void **state)
{
    (void)state;
    struct dp_model *held[8] = {NULL};
    assert_int_equal(limits.live_snapshots, sizeof(held) / sizeof(held[0]));
    for (size_t i = 0; i < limits.live_snapshots; i++) {
        point_at_it();
        assert_int_equal(served(NULL), w.version->number);
        held[i] = dp_model_ref(w.model);
        next_version(w.version->number + 1);
        w.trace_size = 0;
    }
    const struct dp_model *serving = w.model;
    point_at_it();
    assert_waits(serving);
    dp_apply_again(w.apply);
    assert_waits(serving);
    dp_model_unref(held[0]);
    dp_apply_again(w.apply);
    assert_int_equal(served(NULL), w.version->number);
    assert_false(w.apply->waits_for_room);
    assert_int_equal(w.apply->retry_ns, 0);
    for (size_t i = 1; i < limits.live_snapshots; i++) {
        assert_true(dp_model_has_tenant(held[i], SLICE_LIT("acme"))); /* whole, to its reader. */
        dp_model_unref(held[i]);
    }
}

/* As a process that died: nothing says that it stopped. */
static void die(void)
{
    lock_take(&w.apply->shared.lock);
    struct dp_model *model = TAKE_PTR(w.apply->shared.model);
    lock_drop(&w.apply->shared.lock);
    dp_model_unref(model);
    dp_model_unref(TAKE_PTR(w.apply->model));
    dp_model_unref(TAKE_PTR(w.model));
    dp_feed_free(&w.apply->feed);
    dp_apply_free(TAKE_PTR(w.apply));
}

/* There is no version before it: it is not tried a fourth time, whoever offers it. */
static void the_first_version_that_kills_is_let_be(void **state)
{
    (void)state;
    apply_it();
    for (uint64_t deaths = 1; deaths < 3; deaths++) {
        die();
        start();
        dp_apply_disk(w.apply);
        assert_int_equal(served(NULL), w.version->number);
    }
    die();
    start();
    dp_apply_disk(w.apply);
    assert_null(w.model);
    take_head((struct head_plan){.epoch = 1, .sequence = 2});
    assert_null(w.model);
    assert_int_equal(refusal(), E_CRASHED_NODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lets_others_go_first_between_its_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_takes_long_waits_for_nobody, set_up, tear_down),
        cmocka_unit_test_setup_teardown(short_pieces_are_done_in_a_row, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_strangers_head_asks_once_for_a_root, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_target_is_not_tried_past_a_new_floor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_head_goes_on_under_a_new_root, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_poll_may_be_behind_after_a_new_root, set_up, tear_down),
        cmocka_unit_test_setup_teardown(with_one_chunk_missing_the_others_are_fetched_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_long_walk_speaks_and_ends, set_up, tear_down),
        cmocka_unit_test_setup_teardown(chunks_of_another_manifest_are_let_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_way_back_lets_chunks_go, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_was_fetched_is_let_go_when_memory_is_short, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(readers_of_old_snapshots_are_waited_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_first_version_that_kills_is_let_be, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
