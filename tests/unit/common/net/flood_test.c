/* Proves: every flood is counted by its kind, and the log of a second has a few lines, whose next
 * one says how many it stands for. */
#include "common/net/flood.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/net/addr.h"
#include "common/net/loop.h"

#include "tests/support/cmocka.h"

enum { TEXT_MAX = 1 << 16, MANY = 1000 };

static char text[TEXT_MAX];

/* What was written to the log since the last call. */
static void read_log(int fd)
{
    ssize_t size = read(fd, text, sizeof(text) - 1);
    assert_true(size >= 0);
    text[size] = '\0';
}

static size_t lines(void)
{
    size_t count = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) {
        count++;
    }
    return count;
}

static void a_flood_does_not_flood_the_log(void **state)
{
    (void)state;
    int fds[2];
    struct net_loop *loop = NULL;
    struct net_addr peer = {0};
    assert_int_equal(pipe(fds), 0);
    assert_true(err_ok(net_loop_new(&loop)));
    assert_true(err_ok(net_addr_parse(SLICE_LIT("192.0.2.7:4711"), &peer)));
    log_fd_set(fds[1]);
    for (int i = 0; i < MANY; i++) {
        net_flood(loop, NET_FLOOD_RESET, &peer);
    }
    read_log(fds[0]);
    assert_in_range(lines(), NET_FLOOD_LINES, 2 * NET_FLOOD_LINES); /* a second may end between. */
    assert_non_null(strstr(text, "event=flood peer=192.0.2.7:4711 kind=reset unsaid=0"));
    clock_shift_for_test(2000000000, 0);
    net_loop_turn(loop);
    net_flood(loop, NET_FLOOD_UNREAD, &peer);
    size_t said = lines();
    read_log(fds[0]);
    assert_int_equal(lines(), 1);
    assert_non_null(strstr(text, "kind=unread unsaid="));
    assert_int_equal(strtoul(strstr(text, "unsaid=") + 7, NULL, 10), MANY - said);
    assert_int_equal(net_flood_count(loop, NET_FLOOD_RESET), MANY);
    assert_int_equal(net_flood_count(loop, NET_FLOOD_UNREAD), 1);
    assert_int_equal(net_flood_count(loop, NET_FLOOD_CONTROL), 0);
    log_fd_set(STDERR_FILENO);
    clock_shift_for_test(0, 0);
    net_loop_free(loop);
    assert_int_equal(close(fds[0]) + close(fds[1]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_does_not_flood_the_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
