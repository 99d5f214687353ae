/* quota: counts the hours, days and months of the calendar; an orderly end loses nothing, a crash
 * gives nothing back, and takes no more than the reserve, once. */
#include "dataplane/request/quota.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/quota_file.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__LimitTarget part_target;
typedef Trilane__Parts__V1__Limit part_limit;

enum { CELLS = 128, HOUR_MS = 3600000, PATIENCE_MS = 60000 };

static const struct dp_caller web = {.id = SLICE_INIT("acme/web"), .tenant = SLICE_INIT("acme")};
static const struct dp_caller app = {.id = SLICE_INIT("acme/app"), .tenant = SLICE_INIT("acme")};

static struct {
    char directory[256];
    struct dp_limit_table *table;
    struct dp_limit_target *target;
    struct dp_quota *quota;
} w;

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): before any thread. */
    (void)snprintf(w.directory, sizeof(w.directory), "%s/trilane-quota-XXXXXX",
                   base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(w.directory));
    return 0;
}

static void build(uint64_t count, uint32_t window)
{
    char id[] = "acme/q";
    char target_id[] = "service/acme/x";
    part_limit limit;
    part_limit *list[] = {&limit};
    trilane__parts__v1__limit__init(&limit);
    limit.id = id;
    limit.by = 1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_CALLER;
    limit.quota = count;
    limit.window = (Trilane__Parts__V1__LimitWindow)window;
    part_target target;
    trilane__parts__v1__limit_target__init(&target);
    target.target = target_id;
    target.n_limits = 1;
    target.limits = list;
    auto_buf struct buf bytes = BUF_MAX(1 << 16);
    assert_int_equal(proto_encode(&target.base, &bytes).code, E_OK);
    dp_limit_free(w.target);
    w.target = NULL;
    assert_int_equal(dp_limit_build(buf_slice(&bytes), &w.target).code, E_OK);
}

static void begin(const char *directory)
{
    assert_int_equal(dp_quota_open(directory, CELLS, &w.quota).code, E_OK);
    assert_int_equal(dp_limit_table_new(CELLS, &w.table).code, E_OK);
    dp_limit_table_keep(w.table, w.quota);
}

static void end(void)
{
    dp_limit_table_free(w.table);
    dp_quota_close(w.quota);
    w.table = NULL;
    w.quota = NULL;
}

static int tear_down(void **state)
{
    (void)state;
    end();
    dp_limit_free(w.target);
    clock_shift_for_test(0, 0);
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/quotas", w.directory);
    (void)unlink(path);
    assert_int_equal(rmdir(w.directory), 0);
    return 0;
}

/* One request; what refused it is in *why. */
static bool passes(const struct dp_caller *caller, enum dp_limit_why *why)
{
    struct dp_limit_refusal refusal = {0};
    struct dp_limit_held held = {.count = 0};
    const struct dp_limit_query query = {
        .method = SLICE_LIT("/x/Get"), .caller = caller, .now_ns = clock_mono_ns()};
    struct err err = dp_limit_take(w.table, w.target, &query, &held, &refusal);
    *why = refusal.why;
    assert_true(err_ok(err) || (err.code == E_RATE_LIMITED && refusal.retry_ns > 0));
    return err_ok(err);
}

/* How many pass in a row, up to 'most'. */
static unsigned pass(const struct dp_caller *caller, unsigned most, enum dp_limit_why expected)
{
    enum dp_limit_why why = DP_LIMIT_RATE;
    unsigned passed = 0;
    while (passed < most && passes(caller, &why)) {
        passed++;
    }
    assert_true(passed == most || why == expected);
    return passed;
}

/* The same where some have to wait until the disk knows of those before. */
static unsigned pass_patiently(const struct dp_caller *caller, unsigned most)
{
    unsigned passed = 0;
    uint64_t until_ns = clock_mono_ns() + UINT64_C(1000000) * PATIENCE_MS;
    while (passed < most) {
        enum dp_limit_why why = DP_LIMIT_RATE;
        bool one = passes(caller, &why);
        if (!one && why == DP_LIMIT_QUOTA) {
            break;
        }
        assert_true(clock_mono_ns() < until_ns);
        passed += one;
    }
    return passed;
}

/* The bytes that a crash at this moment would leave. */
static void file_now(struct buf *out)
{
    int fd = open(w.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    buf_clear(out);
    assert_int_equal(dp_quota_file_read(fd, dp_quota_file_size(CELLS), out).code, E_OK);
    assert_int_equal(close(fd), 0);
}

/* As if the process had died when the file was this. */
static void crash_to(const struct buf *bytes)
{
    end();
    int fd = open(w.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(dp_quota_file_write(fd, buf_slice(bytes)).code, E_OK);
    assert_int_equal(close(fd), 0);
    begin(w.directory);
}

static int64_t moment(int year, int month, int day, int hour)
{
    struct tm tm = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour};
    return (int64_t)timegm(&tm) * 1000;
}

static void expect_window(enum dp_quota_unit unit, int64_t now_ms, int64_t begin_ms, int64_t end_ms)
{
    struct dp_quota_window window = dp_quota_window_of(unit, now_ms);
    assert_int_equal(window.begin_hour * HOUR_MS, begin_ms);
    assert_int_equal(window.end_hour * HOUR_MS, end_ms);
}

static void windows_are_the_calendars(void **state)
{
    (void)state;
    int64_t now = moment(2028, 2, 29, 23) + 59 * 60000;
    expect_window(DP_QUOTA_HOUR, now, moment(2028, 2, 29, 23), moment(2028, 3, 1, 0));
    expect_window(DP_QUOTA_DAY, now, moment(2028, 2, 29, 0), moment(2028, 3, 1, 0));
    expect_window(DP_QUOTA_MONTH, now, moment(2028, 2, 1, 0), moment(2028, 3, 1, 0));
    now = moment(2031, 12, 31, 12);
    expect_window(DP_QUOTA_MONTH, now, moment(2031, 12, 1, 0), moment(2032, 1, 1, 0));
    now = moment(2030, 7, 1, 0);
    expect_window(DP_QUOTA_MONTH, now, moment(2030, 7, 1, 0), moment(2030, 8, 1, 0));
    expect_window(DP_QUOTA_DAY, now - 1, moment(2030, 6, 30, 0), moment(2030, 7, 1, 0));
}

/* Begins the test's time a quarter past an hour, so that it does not end within it. */
static void at_quarter_past(int64_t later_hours)
{
    clock_shift_for_test(0, 0);
    int64_t now = clock_wall_ms();
    clock_shift_for_test(0, HOUR_MS - now % HOUR_MS + HOUR_MS / 4 + later_hours * HOUR_MS);
}

static void an_hour_has_its_quota_once(void **state)
{
    (void)state;
    at_quarter_past(0);
    begin(NULL);
    build(7, DP_QUOTA_HOUR);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 7);
    assert_int_equal(pass(&app, 20, DP_LIMIT_QUOTA), 7); /* his own. */
    at_quarter_past(1);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 7);
    at_quarter_past(0); /* a clock that goes back gives nothing back, */
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 0);
    at_quarter_past(2); /* nor takes anything. */
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 7);
}

/* A clock that was years ahead for a while: nothing is given back, and the next window is one. */
static void a_clock_was_far_ahead(void **state)
{
    (void)state;
    enum { YEARS = 10 * 365 * 24 };
    at_quarter_past(YEARS);
    begin(NULL);
    build(7, DP_QUOTA_HOUR);
    assert_int_equal(pass(&web, 7, DP_LIMIT_QUOTA), 7);
    assert_int_equal(pass(&app, 3, DP_LIMIT_QUOTA), 3);
    at_quarter_past(0);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 0);
    assert_int_equal(pass(&app, 20, DP_LIMIT_QUOTA), 4);
    at_quarter_past(1);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 7);
    at_quarter_past(YEARS);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 7);
    at_quarter_past(2);
    build(9, DP_QUOTA_HOUR);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 2);
}

/* The same over a restart, as a machine without a clock of its own has it. */
static void a_clock_was_far_ahead_before_a_restart(void **state)
{
    (void)state;
    enum { YEARS = 10 * 365 * 24 };
    for (int hour = YEARS; hour >= 0; hour -= YEARS) {
        at_quarter_past(hour);
        begin(w.directory);
        build(640, DP_QUOTA_HOUR); /* a reserve of 10. */
        assert_int_equal(dp_quota_start(w.quota).code, E_OK);
        assert_int_equal(pass_patiently(&web, 600), hour == 0 ? 40 : 600);
        end();
    }
    at_quarter_past(1);
    begin(w.directory);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 1000), 640);
}

/* A snapshot that makes a quota of a month one of an hour is no clock that went back. */
static void another_window_is_counted_by_itself(void **state)
{
    (void)state;
    at_quarter_past(0);
    begin(NULL);
    build(30, DP_QUOTA_MONTH);
    assert_int_equal(pass(&web, 25, DP_LIMIT_QUOTA), 25);
    build(7, DP_QUOTA_HOUR);
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 7);
    build(30, DP_QUOTA_MONTH); /* and back: nothing was refilled. */
    assert_int_equal(pass(&web, 20, DP_LIMIT_QUOTA), 5);
}

static void what_the_disk_does_not_know_is_bounded(void **state)
{
    (void)state;
    at_quarter_past(0);
    begin(w.directory); /* nobody writes yet. */
    build(100, DP_QUOTA_DAY);
    assert_int_equal(pass(&web, 20, DP_LIMIT_DISK), 4);
    assert_int_equal(pass(&app, 20, DP_LIMIT_DISK), 4);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 200), 96);
}

static void an_orderly_end_loses_nothing(void **state)
{
    (void)state;
    at_quarter_past(0);
    begin(w.directory);
    build(50, DP_QUOTA_DAY);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 30), 30);
    assert_int_equal(pass_patiently(&app, 1), 1);
    for (int i = 0; i < 3; i++) {
        end();
        begin(w.directory);
    }
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 100), 20);
    assert_int_equal(pass_patiently(&app, 100), 49);
}

/* Callers who count, until nobody else finds a cell; 'most' of them are asked. */
static unsigned fill_table(unsigned most)
{
    unsigned count = 0;
    for (unsigned i = 0; i < most; i++) {
        char id[32];
        enum dp_limit_why why = DP_LIMIT_RATE;
        struct dp_caller caller = web;
        caller.id = slice_of(id, (size_t)snprintf(id, sizeof(id), "acme/%u", i));
        count += passes(&caller, &why) ? 1 : 0;
    }
    return count;
}

/* Whoever makes enough keys must not keep the node from starting again. */
static void a_full_table_comes_back(void **state)
{
    (void)state;
    at_quarter_past(0);
    build(50, DP_QUOTA_MONTH);
    for (int round = 0; round < 5; round++) { /* each with keys of its own. */
        begin(w.directory);
        assert_int_equal(fill_table(2000), CELLS / 2);
        end();
        begin(w.directory);
        assert_int_equal(fill_table(2000), CELLS / 2);
        end();
        char path[300];
        (void)snprintf(path, sizeof(path), "%s/quotas", w.directory);
        assert_int_equal(unlink(path), 0);
    }
}

static void a_crash_gives_nothing_back(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    at_quarter_past(0);
    begin(w.directory);
    build(640, DP_QUOTA_DAY); /* a reserve of 10. */
    file_now(&bytes);
    assert_int_equal(pass(&web, 20, DP_LIMIT_DISK), 10); /* the disk knows nothing of them. */
    crash_to(&bytes);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 1000), 630); /* the ten count. */
    assert_int_equal(pass_patiently(&app, 100), 100);
    end();
    begin(w.directory);
    file_now(&bytes);
    for (int i = 0; i < 20; i++) { /* one that is idle is charged once. */
        crash_to(&bytes);
        file_now(&bytes);
    }
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    /* He began with ten by the first crash, counted a hundred, and has ten by the others. */
    assert_int_equal(pass_patiently(&app, 1000), 640 - 10 - 100 - 10);
    end();
    at_quarter_past(24);
    begin(w.directory);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 1000), 640); /* a new day. */
}

/* Where the disk takes nothing, nothing is counted, from the start: what it has may say that all
 * was well. */
/* As a process does that hands over to another one, and goes on until its callers have left. */
static void who_leaves_the_file_and_who_takes_it_count_no_more_than_all(void **state)
{
    (void)state;
    at_quarter_past(0);
    begin(w.directory);
    build(640, DP_QUOTA_DAY); /* a reserve of 10. */
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    unsigned before = pass_patiently(&web, 100);
    dp_quota_leave(w.quota);
    before += pass(&web, 20, DP_LIMIT_DISK);
    assert_in_range(before, 100, 110);
    end(); /* what it counted last is not written. */
    begin(w.directory);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    unsigned all = before + pass_patiently(&web, 1000);
    assert_in_range(all, 620, 640);
}

static void a_file_that_was_left_can_be_taken_back(void **state)
{
    (void)state;
    at_quarter_past(0);
    begin(w.directory);
    build(50, DP_QUOTA_DAY);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 30), 30);
    dp_quota_leave(w.quota);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass_patiently(&web, 100), 20);
}

static void a_disk_that_takes_nothing_lets_nothing_pass(void **state)
{
    (void)state;
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/quotas.new", w.directory);
    at_quarter_past(0);
    begin(w.directory);
    build(50, DP_QUOTA_DAY);
    assert_int_equal(pass(&web, 3, DP_LIMIT_DISK), 3);
    end();
    assert_int_equal(mkdir(path, 0700), 0); /* in the way of the next file. */
    begin(w.directory);
    assert_int_equal(pass(&web, 3, DP_LIMIT_DISK), 0);
    assert_int_equal(dp_quota_start(w.quota).code, E_OK);
    assert_int_equal(pass(&web, 3, DP_LIMIT_DISK), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(pass_patiently(&web, 100), 47);
}

static void a_damaged_file_is_none(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    struct dp_quota_file file;
    struct dp_quota_entry entries[CELLS];
    at_quarter_past(0);
    begin(w.directory);
    build(50, DP_QUOTA_DAY);
    assert_int_equal(pass(&web, 3, DP_LIMIT_DISK), 3);
    end();
    file_now(&bytes);
    assert_int_equal(dp_quota_file_decode(buf_slice(&bytes), CELLS, entries, &file).code, E_OK);
    assert_int_equal(file.count, 1);
    assert_true(file.clean);
    assert_int_equal(dp_quota_file_decode(buf_slice(&bytes), 0, entries, &file).code, E_TOO_LARGE);
    for (size_t i = 0; i < bytes.size; i++) {
        bytes.ptr[i] ^= 1;
        assert_int_equal(dp_quota_file_decode(buf_slice(&bytes), CELLS, entries, &file).code,
                         E_MALFORMED);
        struct slice cut = slice_head(buf_slice(&bytes), i);
        bytes.ptr[i] ^= 1;
        assert_int_equal(dp_quota_file_decode(cut, CELLS, entries, &file).code, E_MALFORMED);
    }
    bytes.ptr[bytes.size / 2] ^= 1;
    int fd = open(w.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(dp_quota_file_write(fd, buf_slice(&bytes)).code, E_OK);
    assert_int_equal(close(fd), 0);
    struct dp_quota *quota = NULL;
    assert_int_equal(dp_quota_open(w.directory, CELLS, &quota).code, E_MALFORMED);
    assert_null(quota);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        EACH(windows_are_the_calendars),
        EACH(an_hour_has_its_quota_once),
        EACH(a_clock_was_far_ahead),
        EACH(a_clock_was_far_ahead_before_a_restart),
        EACH(another_window_is_counted_by_itself),
        EACH(what_the_disk_does_not_know_is_bounded),
        EACH(an_orderly_end_loses_nothing),
        EACH(a_full_table_comes_back),
        EACH(a_crash_gives_nothing_back),
        EACH(who_leaves_the_file_and_who_takes_it_count_no_more_than_all),
        EACH(a_file_that_was_left_can_be_taken_back),
        EACH(a_disk_that_takes_nothing_lets_nothing_pass),
        EACH(a_damaged_file_is_none),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
