/* Proves that a question that is interrupted gets its answer, and ends by its time when none
 * comes. */
#include "dataplane/admin/ask.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/scope.h"

#include "tests/support/cmocka.h"

enum { INTERRUPTIONS = 50 };

/* Takes one question, and interrupts who asked it. */
struct server {
    pthread_t thread;
    pthread_t asker;
    int listener;
    char address[32];
    bool answers;
    atomic_bool over; /* it is not waited for any more. */
};

static struct server server;
static atomic_int interruptions;

/* The clock, which none but the asking thread reads: how slow the machine is does not count. */
static uint64_t time_ns; /* what it shows after an interruption, */
static uint64_t step_ns; /* and how much later that is after each. */
static int64_t shift_ns;

static void interrupt(int number)
{
    (void)number;
    time_ns += step_ns;
    shift_ns += (int64_t)(time_ns - clock_mono_ns());
    clock_shift_for_test(shift_ns, /* wall_ms= */ 0);
    atomic_fetch_add(&interruptions, 1);
}

/* Until the signal was handled, so that each one interrupts for itself. */
static void interrupt_asker(const struct server *s)
{
    int before = atomic_load(&interruptions);
    CHECK(pthread_kill(s->asker, SIGUSR1) == 0);
    while (atomic_load(&interruptions) == before) {
        (void)sched_yield();
    }
}

static void read_question(int fd)
{
    char text[1024] = "";
    size_t size = 0;
    while (strstr(text, "\r\n\r\n") == NULL) {
        ssize_t n = read(fd, text + size, sizeof(text) - 1 - size);
        CHECK(n > 0);
        size += (size_t)n;
        text[size] = '\0';
    }
}

static void send_text(int fd, const char *text)
{
    (void)send(fd, text, strlen(text), MSG_NOSIGNAL); /* who asked may have given up. */
}

static void *serve(void *ctx)
{
    struct server *s = ctx;
    auto_close int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(fd >= 0);
    read_question(fd);
    for (int i = 0; s->answers && i < INTERRUPTIONS; i++) {
        interrupt_asker(s);
    }
    if (s->answers) {
        send_text(fd, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab");
        interrupt_asker(s);
        send_text(fd, "cd");
    }
    while (!atomic_load(&s->over)) {
        interrupt_asker(s);
    }
    return NULL;
}

static void start(bool answers, uint64_t step_ms)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof(at);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    time_ns = clock_mono_ns();
    step_ns = step_ms * 1000000;
    server = (struct server){.asker = pthread_self(), .answers = answers};
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(server.listener, (struct sockaddr *)&at, size) == 0);
    CHECK(listen(server.listener, 1) == 0);
    CHECK(getsockname(server.listener, (struct sockaddr *)&at, &size) == 0);
    (void)snprintf(server.address, sizeof(server.address), "127.0.0.1:%u", ntohs(at.sin_port));
    CHECK(pthread_create(&server.thread, NULL, serve, &server) == 0);
}

static struct err ask(struct buf *body)
{
    struct err e = dp_ask(slice_str(server.address), SLICE_LIT("/dump"), (struct slice){0}, body);
    atomic_store(&server.over, true);
    CHECK(pthread_join(server.thread, NULL) == 0);
    CHECK(close(server.listener) == 0);
    return e;
}

static void an_interruption_costs_no_answer(void **state)
{
    (void)state;
    auto_buf struct buf body = BUF_MAX(100);
    start(/* answers= */ true, /* step_ms= */ 0);
    assert_string_equal(err_name(ask(&body).code), "OK");
    assert_true(slice_eq(buf_slice(&body), SLICE_LIT("abcd")));
    assert_true(atomic_load(&interruptions) > INTERRUPTIONS);
}

static void interruptions_give_no_time(void **state)
{
    (void)state;
    auto_buf struct buf body = BUF_MAX(100);
    start(/* answers= */ false, /* step_ms= */ 60000);
    assert_string_equal(err_name(ask(&body).code), "TIMEOUT");
}

int main(void)
{
    const struct sigaction action = {.sa_handler = interrupt};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_interruption_costs_no_answer),
        cmocka_unit_test(interruptions_give_no_time),
    };
    return cmocka_run_group_tests_name("admin.ask", tests, NULL, NULL);
}
