/* child: see child.h. */
#include "controlplane/signer/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "controlplane/signer/wire.h"

enum {
    GREETING_S = 30, /* a start: our binary, the keys, the sandbox; on a slow machine, too. */
    ANSWER_S = 5,    /* one write to disk and one signature. */
    END_MS = 2000,   /* its last write, and wiping its keys. */
};

const char *signer_child_key(int kept_fd, int index, const char *file)
{
    static const char *const inherited[SIGNER_CHILD_KEYS_MAX] = {"fd:4", "fd:5"};
    _Static_assert(SIGNER_KEY_FD == 4 && SIGNER_CHILD_KEYS_MAX == 2, "the numbers above");
    return kept_fd >= 0 ? inherited[index] : file;
}

/* Between fork and exec: async-signal-safe calls only. Kept keys lie above all that is set here. */
static void hand_over(const struct signer_child_plan *plan, int fd)
{
    if (fd == SIGNER_FD) {
        (void)fcntl(fd, F_SETFD, 0);
    } else if (dup2(fd, SIGNER_FD) < 0) {
        _exit(1);
    }
    for (int i = 0; i < plan->key_count; i++) {
        if (plan->keys[i] >= 0 && dup2(plan->keys[i], SIGNER_KEY_FD + i) < 0) {
            _exit(1);
        }
    }
}

/* The same. */
static _Noreturn void become(const struct signer_child_plan *plan, int fd, pid_t parent)
{
    static char name[] = "trilane-cp";
    char *argv[SIGNER_CHILD_ARGS_MAX + 2] = {name};
    char *no_environment[] = {(char *)0};
    hand_over(plan, fd);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) { /* it died before the line above. */
        _exit(1);
    }
    for (int i = 0; i < SIGNER_CHILD_ARGS_MAX && plan->args[i] != NULL; i++) {
        /* execve() takes char *const[] for history's sake and writes to nothing of it. */
        const union {
            const char *in;
            char *out;
        } arg = {plan->args[i]};
        argv[i + 1] = arg.out;
    }
    (void)execve(plan->program == NULL ? "/proc/self/exe" : plan->program, argv, no_environment);
    _exit(1);
}

static struct err set_timeouts(int fd, time_t seconds)
{
    const struct timeval wait = {.tv_sec = seconds};
    bool fine = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0;
    return fine ? OK : FAIL(E_IO);
}

struct err signer_child_start(const struct signer_child_plan *plan, struct signer_child *out)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return FAIL(E_IO);
    }
    auto_close int ours = pair[0];
    auto_close int theirs = pair[1];
    TRY(set_timeouts(ours, plan->urgent ? ANSWER_S : GREETING_S));
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become(plan, theirs, parent);
    }
    if (pid < 0) {
        return FAIL(E_IO);
    }
    *out = (struct signer_child){.pid = pid, .fd = TAKE_FD(ours)};
    return OK;
}

struct err signer_child_greeting(const struct signer_child *child, void *out, size_t size)
{
    TRY(signer_receive(child->fd, out, size));
    return set_timeouts(child->fd, ANSWER_S);
}

static bool ends_by_itself(pid_t pid)
{
    auto_close int fd = pidfd_open(pid, 0);
    const uint64_t end_ns = clock_mono_ns() + UINT64_C(1000000) * END_MS;
    uint64_t now_ns = clock_mono_ns();
    int ready = 0;
    while (fd >= 0 && ready <= 0 && now_ns < end_ns) { /* ends: by its time. */
        struct pollfd over = {.fd = fd, .events = POLLIN};
        ready = poll(&over, 1, (int)((end_ns - now_ns) / 1000000) + 1);
        now_ns = clock_mono_ns();
    }
    return ready > 0;
}

int signer_child_end(struct signer_child *child, bool hangs)
{
    int status = 0;
    scope_close(&child->fd);
    if (child->pid > 0) {
        if (hangs || !ends_by_itself(child->pid)) {
            (void)kill(child->pid, SIGKILL);
        }
        while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
        }
        child->pid = 0;
    }
    return status;
}

bool signer_child_is_gone(struct signer_child *child, int *out_status)
{
    if (child->pid > 0 && waitpid(child->pid, out_status, WNOHANG) == child->pid) {
        child->pid = 0;
        scope_close(&child->fd);
    }
    return child->fd < 0;
}

void signer_child_harden(int first_other)
{
    static const struct rlimit none = {0, 0};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)close_range((unsigned)first_other, ~0U, /* flags= */ 0);
    /* A drain is the parent's to decide: a signal to the whole group must not take the keys away
     * from under a publication. */
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
}
