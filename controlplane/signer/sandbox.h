/*
 * sandbox: what the signer may still ask of the kernel once it has its keys.
 *
 * Shape      A seccomp filter: receive and send on its socket, write and sync its state in place,
 *            wait on after a stop, end. It opens, maps, forks and connects nothing; any other call
 *            ends the process with SIGSYS. Nothing takes the filter away again.
 * Threads    the signer's only one.
 * Errors     E_UNSUPPORTED when the kernel has no seccomp.
 * Source     docs/control-plane.md, "The signer"; seccomp(2), by libseccomp.
 */
#pragma once

#include "common/base/err.h"

/* Puts the filter on. The calls that it lets through are let through on these descriptors alone. */
MUST_CHECK struct err signer_sandbox_enter(int socket_fd, int state_fd);

/*
 * The same for a process that has OpenSSL sign: no state; memory without code in it, random bytes
 * and the time besides. None of that reaches anything outside of the process.
 */
MUST_CHECK struct err signer_sandbox_enter_to_certify(int socket_fd);

/* Locks as much of the stack into memory as signing takes: secrets pass through it. E_NO_MEMORY
 * when the account may not lock so much (RLIMIT_MEMLOCK). */
MUST_CHECK struct err signer_sandbox_lock_stack(void);
