/* Proves that a line of the access log stays one line of plain text, whatever a caller sends, that
 * values are cut, and that a line is whole after the writer has ended. */
#include "dataplane/request/access.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataplane/request/request.h"

#include "tests/support/cmocka.h"

static const struct dp_lane lane = {.id = DP_LANE_OPERATOR, .name = "operator"};
static const struct dp_front front = {.name = "grpc"};

static char path[64];
static char text[128 << 10];

/* Writes 'count' lines of the request by a real writer; the file's content is in 'text' then. */
static size_t write_lines(const struct dp_request *rq, size_t count)
{
    (void)snprintf(path, sizeof(path), "/tmp/trilane-access-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct dp_access_writer *writer = NULL;
    struct dp_access_log *log = NULL;
    assert_true(err_ok(dp_access_writer_new(path, &writer)));
    assert_true(err_ok(dp_access_log_new(writer, &log)));
    for (size_t i = 0; i < count; i++) {
        dp_access_add(log, rq);
    }
    dp_access_log_free(log);
    assert_int_equal(dp_access_dropped(writer), 0);
    dp_access_writer_free(writer);
    ssize_t size = read(fd, text, sizeof(text) - 1);
    assert_true(size > 0);
    text[size] = '\0';
    (void)close(fd);
    (void)unlink(path);
    return (size_t)size;
}

static size_t lines_of(size_t size)
{
    size_t lines = 0;
    for (size_t i = 0; i < size; i++) {
        lines += text[i] == '\n' ? 1 : 0;
    }
    return lines;
}

static void a_line_says_what_happened(void **state)
{
    (void)state;
    struct dp_request rq = {.lane = &lane,
                            .front = &front,
                            .err = FAIL(E_RATE_LIMITED),
                            .limit = SLICE_LIT("acme/few"),
                            .grpc_status = 8,
                            .http_status = 200,
                            .request_bytes = 12,
                            .request_id = SLICE_LIT("rq-1"),
                            .method = SLICE_LIT("/a.B/C"),
                            .correlation = SLICE_LIT("c-1")};
    size_t size = write_lines(&rq, 3);
    assert_int_equal(lines_of(size), 3);
    const char *const parts[] = {
        "ts=20",          " event=request",     " id=rq-1", " lane=operator",
        " front=grpc",    " code=RATE_LIMITED", " grpc=8",  " http=200",
        " method=/a.B/C", " limit=acme/few",    " in=12",   " out=0",
        " trace=",        " correlation=c-1\n"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        assert_non_null(strstr(text, parts[i]));
    }
}

static void hostile_values_stay_in_their_line(void **state)
{
    (void)state;
    const char hostile[] = "a\nts=1 code=OK \"x\"\x7f\xff\x1b[0m=";
    struct dp_request rq = {.lane = &lane,
                            .front = &front,
                            .err = FAIL(E_NO_ROUTE),
                            .grpc_status = -1,
                            .method = slice_of(hostile, sizeof(hostile))};
    size_t size = write_lines(&rq, 1);
    assert_int_equal(lines_of(size), 1);
    assert_non_null(strstr(text, " method=a?ts?1?code?OK??x????[0m??"));
    for (size_t i = 0; i + 1 < size; i++) {
        assert_true(text[i] >= ' ' && text[i] < 0x7f);
    }
}

static void values_and_lines_are_cut(void **state)
{
    (void)state;
    static char longest[4000];
    memset(longest, 'v', sizeof(longest));
    struct slice value = slice_of(longest, sizeof(longest));
    struct dp_request rq = {.lane = &lane,
                            .front = &front,
                            .err = FAIL(E_NO_ROUTE),
                            .grpc_status = -1,
                            .request_id = value,
                            .method = value,
                            .limit = value,
                            .upstream = value,
                            .correlation = value,
                            .caller = &(const struct dp_caller){.id = value},
                            .verdict = {.rule = value, .shadow = value},
                            .in = {.peer = value}};
    size_t size = write_lines(&rq, 20);
    assert_int_equal(lines_of(size), 20);
    assert_true(size <= 20 * (size_t)4096);
    static const char *const kept[] = {" peer=v", " in=0", " us=", " trace=", " correlation=v"};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        assert_non_null(strstr(text, kept[i])); /* long values before take the place of none. */
    }
    const char *method = strstr(text, " method=");
    assert_non_null(method);
    assert_int_equal(strspn(method + 8, "v"), 256);
}

static void a_file_that_cannot_be_opened(void **state)
{
    (void)state;
    struct dp_access_writer *writer = NULL;
    assert_int_equal(dp_access_writer_new("/nowhere/access.log", &writer).code, E_IO);
    assert_null(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_says_what_happened),
        cmocka_unit_test(hostile_values_stay_in_their_line),
        cmocka_unit_test(values_and_lines_are_cut),
        cmocka_unit_test(a_file_that_cannot_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
