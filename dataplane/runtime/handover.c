/* handover: see handover.h. */
#include "dataplane/runtime/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/net/wait.h"

enum { FD_COUNT = DP_PORT_COUNT + 2, PATH_BYTES = 4096, ARGUMENTS_MAX = 1 << 20 };

/* What is said beside the descriptors: which there are. Both are of one machine; another release
 * may have other ports, and then refuses. */
struct note {
    uint32_t magic;
    uint32_t given; /* bit i: descriptor i of the list below. */
};

enum { MAGIC = 0x746c6831, DONE = 'd' };

static char program[PATH_BYTES];

void dp_handover_init(void)
{
    ssize_t size = readlink("/proc/self/exe", program, sizeof(program) - 1);
    program[size < 0 ? 0 : size] = '\0';
}

/* ---- starting ---- */

/* NUL-separated texts as a list that ends with NULL; the list is the caller's to free. */
static char **split(struct buf *texts)
{
    size_t count = 0;
    for (size_t i = 0; i < texts->size; i++) {
        count += texts->ptr[i] == '\0' ? 1 : 0;
    }
    char **list = calloc(count + 1, sizeof(*list));
    char *at = (char *)texts->ptr;
    for (size_t i = 0; list != NULL && i < count; i++) {
        list[i] = at;
        at += strlen(at) + 1;
    }
    return list;
}

static struct err read_arguments(struct buf *out)
{
    auto_close int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0) {
        uint8_t bytes[4096];
        n = read(fd, bytes, sizeof(bytes));
        TRY(n > 0 ? buf_add(out, slice_of(bytes, (size_t)n)) : OK);
    }
    return n < 0 || out->size == 0 ? FAIL(E_IO) : OK;
}

/* Ours, and where the socket is. */
static struct err make_environment(int fd, struct buf *out)
{
    for (char **at = environ; *at != NULL; at++) {
        TRY(buf_add(out, slice_of(*at, strlen(*at) + 1)));
    }
    TRY(buf_addf(out, "%s=%d", DP_HANDOVER_VARIABLE, fd));
    return buf_add_byte(out, '\0');
}

/* No signal is blocked in the new one, and its threads begin as those of this one did. */
static int set_attributes(posix_spawnattr_t *attributes, int policy)
{
    const struct sched_param none = {.sched_priority = 0};
    sigset_t empty;
    (void)sigemptyset(&empty);
    (void)posix_spawnattr_setsigmask(attributes, &empty);
    (void)posix_spawnattr_setschedpolicy(attributes, policy);
    (void)posix_spawnattr_setschedparam(attributes, &none);
    return posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSCHEDULER);
}

static int spawn(int fd, int policy, char **arguments, char **environment, pid_t *out_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawnattr_init(&attributes) == 0);
    /* Onto itself: this one descriptor stays open over the exec. */
    int failure = posix_spawn_file_actions_adddup2(&actions, fd, fd);
    failure = failure != 0 ? failure : set_attributes(&attributes, policy);
    if (failure == 0) {
        failure = posix_spawn(out_pid, program, &actions, &attributes, arguments, environment);
    }
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failure;
}

struct err dp_handover_start(int policy, pid_t *out_pid, int *out_fd)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return FAIL(E_IO);
    }
    auto_close int ours = pair[0];
    auto_close int theirs = pair[1];
    auto_buf struct buf arguments = BUF_MAX(ARGUMENTS_MAX);
    auto_buf struct buf environment = BUF_MAX(ARGUMENTS_MAX);
    TRY(read_arguments(&arguments));
    TRY(make_environment(theirs, &environment));
    char **argument_list = split(&arguments);
    char **environment_list = split(&environment);
    bool room = argument_list != NULL && environment_list != NULL;
    int failure = room ? spawn(theirs, policy, argument_list, environment_list, out_pid) : ENOMEM;
    free(argument_list);
    free(environment_list);
    if (failure != 0) {
        return FAIL(failure == ENOMEM ? E_NO_MEMORY : E_IO);
    }
    *out_fd = TAKE_FD(ours);
    return OK;
}

void dp_handover_give_up(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/* ---- messages ---- */

/* The descriptors in the order of their bits. */
static void list_of(struct dp_handover *h, int *out[FD_COUNT])
{
    for (size_t i = 0; i < DP_PORT_COUNT; i++) {
        out[i] = &h->ports[i];
    }
    out[DP_PORT_COUNT] = &h->admin;
    out[DP_PORT_COUNT + 1] = &h->lock;
}

struct err dp_handover_give(int fd, const struct dp_handover *given)
{
    struct dp_handover copy = *given;
    int *list[FD_COUNT];
    int sent[FD_COUNT];
    size_t count = 0;
    struct note note = {.magic = MAGIC};
    list_of(&copy, list);
    for (size_t i = 0; i < FD_COUNT; i++) {
        if (*list[i] >= 0) {
            note.given |= 1U << i;
            sent[count++] = *list[i];
        }
    }
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(sent))] = {0};
    struct iovec body = {.iov_base = &note, .iov_len = sizeof(note)};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(head), sent, count * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(note) ? OK : FAIL(E_CLOSED);
}

/* Puts received descriptors into their places; those that do not fit are closed. */
static bool place(const struct note *note, struct msghdr *message, struct dp_handover *out)
{
    int *list[FD_COUNT];
    int received[FD_COUNT];
    size_t count = 0;
    size_t at = 0;
    struct cmsghdr *head = CMSG_FIRSTHDR(message);
    if (head != NULL && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
        count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(received, CMSG_DATA(head), count * sizeof(int));
    }
    list_of(out, list);
    for (size_t i = 0; i < FD_COUNT && at < count; i++) {
        if ((note->given >> i & 1) != 0) {
            *list[i] = received[at++];
        }
    }
    bool whole = at == count && (size_t)__builtin_popcount(note->given) == count;
    while (at < count) {
        (void)close(received[at++]);
    }
    return whole;
}

struct err dp_handover_take(int fd, uint64_t timeout_ms, struct dp_handover *out)
{
    struct note note = {0};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(FD_COUNT * sizeof(int))];
    struct iovec body = {.iov_base = &note, .iov_len = sizeof(note)};
    struct msghdr message = {.msg_iov = &body,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    *out = (struct dp_handover){.ports = {-1, -1, -1, -1}, .admin = -1, .lock = -1};
    TRY(net_wait(fd, POLLIN, timeout_ms));
    ssize_t size = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (size <= 0) {
        return FAIL(E_CLOSED);
    }
    bool known = size == (ssize_t)sizeof(note) && note.magic == MAGIC &&
                 (message.msg_flags & MSG_CTRUNC) == 0;
    if (!place(&note, &message, out) || !known) {
        dp_handover_close(out);
        return FAIL(E_MALFORMED);
    }
    return OK;
}

void dp_handover_close(struct dp_handover *h)
{
    int *list[FD_COUNT];
    list_of(h, list);
    for (size_t i = 0; i < FD_COUNT; i++) {
        if (*list[i] >= 0) {
            (void)close(*list[i]);
        }
        *list[i] = -1;
    }
}

struct err dp_handover_wait(int fd, uint64_t timeout_ms)
{
    char said = 0;
    TRY(net_wait(fd, POLLIN, timeout_ms));
    return recv(fd, &said, 1, 0) == 1 && said == DONE ? OK : FAIL(E_CLOSED);
}

int dp_handover_found(void)
{
    /* Before any thread exists. */
    const char *text = getenv(DP_HANDOVER_VARIABLE); /* NOLINT(concurrency-mt-unsafe) */
    uint64_t fd = 0;
    bool found = slice_to_u64(slice_str(text), &fd) && fd <= INT32_MAX &&
                 fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0;
    (void)unsetenv(DP_HANDOVER_VARIABLE); /* NOLINT(concurrency-mt-unsafe) */
    return found ? (int)fd : -1;
}

/* As sd_notify() does: an abstract name begins with '@'. */
void dp_handover_notify(void)
{
    char text[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* The environment is nobody's to change any more. */
    const char *path = getenv("NOTIFY_SOCKET"); /* NOLINT(concurrency-mt-unsafe) */
    size_t size = path == NULL ? 0 : strlen(path);
    auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || size == 0 || size >= sizeof(address.sun_path)) {
        return;
    }
    memcpy(address.sun_path, path, size);
    if (path[0] == '@') {
        address.sun_path[0] = '\0';
    }
    int length = snprintf(text, sizeof(text), "MAINPID=%ld\nREADY=1", (long)getpid());
    socklen_t room = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
    (void)sendto(fd, text, (size_t)length, MSG_NOSIGNAL, (const struct sockaddr *)&address, room);
}

struct err dp_handover_done(int fd)
{
    const char done = DONE;
    return send(fd, &done, 1, MSG_NOSIGNAL) == 1 ? OK : FAIL(E_CLOSED);
}
