/* sandbox: see sandbox.h. */
#include "controlplane/signer/sandbox.h"

#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { STACK_LOCKED = 24 << 10, ANY_FD = -1 };

struct rule {
    int call;
    int fd; /* first argument; ANY_FD: it is not asked. */
};

/* TSan's runtime lives in the process and maps its own memory. ASan's has all that it needs. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANDBOX_RUNTIME                                                                            \
    {SCMP_SYS(mmap), ANY_FD}, {SCMP_SYS(munmap), ANY_FD}, {SCMP_SYS(madvise), ANY_FD},             \
        {SCMP_SYS(mprotect), ANY_FD}, {SCMP_SYS(futex), ANY_FD}, {SCMP_SYS(sched_yield), ANY_FD},
#endif
#endif
#ifndef SANDBOX_RUNTIME
#define SANDBOX_RUNTIME
#endif

struct err signer_sandbox_enter(int socket_fd, int state_fd)
{
    const struct rule rules[] = {
        {SCMP_SYS(recvfrom), socket_fd},     {SCMP_SYS(sendto), socket_fd},
        {SCMP_SYS(pwrite64), state_fd},      {SCMP_SYS(fdatasync), state_fd},
        {SCMP_SYS(restart_syscall), ANY_FD}, /* what the kernel makes of a call that a SIGSTOP cut
                                              */
        {SCMP_SYS(exit_group), ANY_FD},      SANDBOX_RUNTIME};
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int failed = filter == NULL;
    for (size_t i = 0; failed == 0 && i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct scmp_arg_cmp fd = {
            .arg = 0, .op = SCMP_CMP_EQ, .datum_a = (scmp_datum_t)rules[i].fd};
        failed = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call,
                                        rules[i].fd == ANY_FD ? 0 : 1, &fd);
    }
    if (failed == 0) {
        failed = seccomp_load(filter);
    }
    /* The filter's own memory stays: giving it back could take a call that is over now. */
    return failed == 0 ? OK : FAIL(E_UNSUPPORTED);
}

struct err signer_sandbox_lock_stack(void)
{
    uint8_t room[STACK_LOCKED]; /* where the frames of what signs will lie. */
    __asm__ volatile("" : : "r"(room) : "memory");
    memset(room, 0, sizeof(room)); /* the stack grows by touching it. */
    __asm__ volatile("" : : "r"(room) : "memory");
    return mlock(room, sizeof(room)) == 0 ? OK : FAIL(E_NO_MEMORY);
}
