/* Proves that descriptors arrive in their places, and that what is no hand-over, comes late or
 * comes from nobody is said to be that, with every descriptor closed. */
#include "dataplane/runtime/handover.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/base/scope.h"

#include "tests/support/cmocka.h"

enum { SOON_MS = 20, PATIENCE_MS = 60000 };

static void make_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static int new_file(void)
{
    char path[] = "/tmp/trilane-handover-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)unlink(path);
    return fd;
}

static bool are_one(int a, int b)
{
    struct stat x;
    struct stat y;
    assert_int_equal(fstat(a, &x), 0);
    assert_int_equal(fstat(b, &y), 0);
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The lowest number that is free: the same before and after what leaves nothing open. */
static int free_number(void)
{
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_true(fd >= 0);
    (void)close(fd);
    return fd;
}

static void descriptors_arrive_in_their_places(void **state)
{
    (void)state;
    int pair[2];
    make_pair(pair);
    int before = free_number();
    struct dp_handover given = {
        .ports = {new_file(), -1, new_file(), -1}, .admin = new_file(), .lock = new_file()};
    struct dp_handover taken;
    assert_true(err_ok(dp_handover_give(pair[0], &given)));
    assert_true(err_ok(dp_handover_take(pair[1], PATIENCE_MS, &taken)));
    assert_true(are_one(given.ports[0], taken.ports[0]));
    assert_int_equal(taken.ports[1], -1);
    assert_true(are_one(given.ports[2], taken.ports[2]));
    assert_int_equal(taken.ports[3], -1);
    assert_true(are_one(given.admin, taken.admin));
    assert_true(are_one(given.lock, taken.lock));
    assert_true((fcntl(taken.lock, F_GETFD) & FD_CLOEXEC) != 0);
    dp_handover_close(&taken);
    assert_int_equal(taken.lock, -1);
    dp_handover_close(&given);
    assert_int_equal(free_number(), before);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void nothing_may_be_given(void **state)
{
    (void)state;
    int pair[2];
    make_pair(pair);
    const struct dp_handover none = {.ports = {-1, -1, -1, -1}, .admin = -1, .lock = -1};
    struct dp_handover taken;
    assert_true(err_ok(dp_handover_give(pair[0], &none)));
    assert_true(err_ok(dp_handover_take(pair[1], PATIENCE_MS, &taken)));
    assert_memory_equal(&taken, &none, sizeof(none));
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void what_is_none_is_refused(void **state)
{
    (void)state;
    static const struct slice wrong[] = {SLICE_INIT("x"), SLICE_INIT("01234567"),
                                         SLICE_INIT("\x31\x68\x6c\x74\xff\0\0\0")};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        int pair[2];
        make_pair(pair);
        int before = free_number();
        struct dp_handover taken;
        assert_true(send(pair[0], wrong[i].ptr, wrong[i].size, MSG_NOSIGNAL) > 0);
        assert_int_equal(dp_handover_take(pair[1], PATIENCE_MS, &taken).code, E_MALFORMED);
        assert_int_equal(free_number(), before);
        (void)close(pair[0]);
        (void)close(pair[1]);
    }
}

static void the_other_one_may_be_late_or_gone(void **state)
{
    (void)state;
    int pair[2];
    struct dp_handover taken;
    make_pair(pair);
    assert_int_equal(dp_handover_take(pair[1], SOON_MS, &taken).code, E_TIMEOUT);
    assert_int_equal(dp_handover_wait(pair[0], SOON_MS).code, E_TIMEOUT);
    assert_true(err_ok(dp_handover_done(pair[1])));
    assert_true(err_ok(dp_handover_wait(pair[0], PATIENCE_MS)));
    (void)close(pair[1]);
    assert_int_equal(dp_handover_wait(pair[0], PATIENCE_MS).code, E_CLOSED);
    const struct dp_handover none = {.ports = {-1, -1, -1, -1}, .admin = -1, .lock = -1};
    assert_int_equal(dp_handover_give(pair[0], &none).code, E_CLOSED);
    (void)close(pair[0]);
    make_pair(pair);
    (void)close(pair[0]);
    assert_int_equal(dp_handover_take(pair[1], PATIENCE_MS, &taken).code, E_CLOSED);
    assert_int_equal(dp_handover_done(pair[1]).code, E_CLOSED);
    (void)close(pair[1]);
}

static void the_socket_is_found_once(void **state)
{
    (void)state;
    char text[16];
    int pair[2];
    assert_int_equal(dp_handover_found(), -1);
    assert_int_equal(setenv(DP_HANDOVER_VARIABLE, "no number", 1), 0);
    assert_int_equal(dp_handover_found(), -1);
    make_pair(pair);
    (void)snprintf(text, sizeof(text), "%d", pair[0]);
    assert_int_equal(setenv(DP_HANDOVER_VARIABLE, text, 1), 0);
    assert_int_equal(dp_handover_found(), pair[0]);
    assert_int_equal(dp_handover_found(), -1); /* its own children are told nothing. */
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void who_supervises_is_told(void **state)
{
    (void)state;
    static const char name[] = "@trilane-handover-test";
    char said[200] = "";
    char wanted[64];
    char path[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int size = snprintf(path, sizeof(path), "%s-%ld", name, (long)getpid());
    memcpy(address.sun_path, path, (size_t)size);
    address.sun_path[0] = '\0';
    auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t room = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)size);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, room), 0);
    dp_handover_notify(); /* nobody is named. */
    assert_int_equal(setenv("NOTIFY_SOCKET", path, 1), 0);
    dp_handover_notify();
    (void)snprintf(wanted, sizeof(wanted), "MAINPID=%ld\nREADY=1", (long)getpid());
    assert_true(recv(fd, said, sizeof(said) - 1, MSG_DONTWAIT) > 0);
    assert_string_equal(said, wanted);
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_arrive_in_their_places),
        cmocka_unit_test(nothing_may_be_given),
        cmocka_unit_test(what_is_none_is_refused),
        cmocka_unit_test(the_other_one_may_be_late_or_gone),
        cmocka_unit_test(the_socket_is_found_once),
        cmocka_unit_test(who_supervises_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
