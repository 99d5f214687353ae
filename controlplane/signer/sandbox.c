/* sandbox: see sandbox.h. */
#include "controlplane/signer/sandbox.h"

#include <errno.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { STACK_LOCKED = 24 << 10, CONDITIONS_MAX = 2 };

struct rule {
    int call;
    unsigned conditions; /* on its arguments, all of which must hold. */
    struct scmp_arg_cmp on[CONDITIONS_MAX];
};

#define ALWAYS(name)                                                                               \
    {                                                                                              \
        .call = SCMP_SYS(name)                                                                     \
    }
#define ON_FD(name, fd)                                                                            \
    {                                                                                              \
        .call = SCMP_SYS(name), .conditions = 1, .on = {                                           \
            {.arg = 0, .op = SCMP_CMP_EQ, .datum_a = (scmp_datum_t)(fd)}                           \
        }                                                                                          \
    }

/* TSan's runtime lives in the process and maps its own memory. ASan's has all that it needs. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANDBOX_RUNTIME                                                                            \
    ALWAYS(mmap), ALWAYS(munmap), ALWAYS(madvise), ALWAYS(mprotect), ALWAYS(futex),                \
        ALWAYS(sched_yield),
#endif
#endif
#ifndef SANDBOX_RUNTIME
#define SANDBOX_RUNTIME
#endif

static struct err enter(const struct rule *rules, size_t count)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int failed = filter == NULL;
    for (size_t i = 0; failed == 0 && i < count; i++) {
        int added = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call,
                                           rules[i].conditions, rules[i].on);
        failed = added == -EEXIST ? 0 : added; /* a runtime may want what is let through. */
    }
    if (failed == 0) {
        failed = seccomp_load(filter);
    }
    /* The filter's own memory stays: giving it back could take a call that is over now. */
    return failed == 0 ? OK : FAIL(E_UNSUPPORTED);
}

struct err signer_sandbox_enter(int socket_fd, int state_fd)
{
    const struct rule rules[] = {ON_FD(recvfrom, socket_fd), ON_FD(sendto, socket_fd),
                                 ON_FD(pwrite64, state_fd),  ON_FD(fdatasync, state_fd),
                                 ALWAYS(restart_syscall), /* what the kernel makes of a call that a
                                                             SIGSTOP cut. */
                                 ALWAYS(exit_group),         SANDBOX_RUNTIME};
    return enter(rules, sizeof(rules) / sizeof(rules[0]));
}

struct err signer_sandbox_enter_to_certify(int socket_fd)
{
    /* Memory that nobody runs, of no file. */
    const struct rule map = {
        .call = SCMP_SYS(mmap),
        .conditions = 2,
        .on = {{.arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = 0},
               {.arg = 3,
                .op = SCMP_CMP_MASKED_EQ,
                .datum_a = MAP_ANONYMOUS,
                .datum_b = MAP_ANONYMOUS}}};
    const struct rule rules[] = {ON_FD(recvfrom, socket_fd),
                                 ON_FD(sendto, socket_fd),
                                 ALWAYS(restart_syscall),
                                 ALWAYS(exit_group),
                                 ALWAYS(brk),
                                 map,
                                 ALWAYS(munmap),
                                 ALWAYS(mremap),
                                 ALWAYS(madvise),
                                 ALWAYS(futex),
                                 ALWAYS(getrandom), /* nonces, serials. */
                                 ALWAYS(getpid),    /* OpenSSL: has it forked since? */
                                 ALWAYS(clock_gettime),
                                 SANDBOX_RUNTIME};
    return enter(rules, sizeof(rules) / sizeof(rules[0]));
}

struct err signer_sandbox_lock_stack(void)
{
    uint8_t room[STACK_LOCKED]; /* where the frames of what signs will lie. */
    __asm__ volatile("" : : "r"(room) : "memory");
    memset(room, 0, sizeof(room)); /* the stack grows by touching it. */
    __asm__ volatile("" : : "r"(room) : "memory");
    return mlock(room, sizeof(room)) == 0 ? OK : FAIL(E_NO_MEMORY);
}
