/*
 * handover: how a node gives its sockets and its disk to the process that comes after it.
 *
 * Shape      SIGUSR2 has a node start its program anew, by the path and with the arguments that it
 *            was started with: another binary, or another number of workers of a --config FILE. On
 *            a socket between the two the old process hands over what it listens on and the lock
 *            of its disk; the new one says so when it serves. Until then the old one serves, and
 *            goes on when the new one does not get there.
 * Ownership  descriptors that were received are the caller's to close.
 * Threads    the main thread's.
 * Errors     E_IO, E_TIMEOUT; E_MALFORMED: what came is no hand-over; E_CLOSED: nobody is there.
 * Source     HAProxy's and nginx's reloads; SCM_RIGHTS, unix(7).
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/err.h"
#include "dataplane/runtime/port.h"

/* What the new process finds the socket by; it takes it out of its environment. */
#define DP_HANDOVER_VARIABLE "TRILANE_HANDOVER_FD"

/* What goes over; -1: there is none. */
struct dp_handover {
    int ports[DP_PORT_COUNT]; /* listening. */
    int admin;                /* listening. */
    int lock;                 /* of the disk. */
};

/* ---- the old process ---- */

/* At boot: remembers by which file the program was started, before that is replaced. */
void dp_handover_init(void);

/* Starts the program anew, with the scheduling policy 'policy'; the socket to it is the caller's.
 */
MUST_CHECK struct err dp_handover_start(int policy, pid_t *out_pid, int *out_fd);

/* Gives the descriptors over; they stay open here. */
MUST_CHECK struct err dp_handover_give(int fd, const struct dp_handover *given);

/* Waits until the new process serves. */
MUST_CHECK struct err dp_handover_wait(int fd, uint64_t timeout_ms);

/* Ends a new process that does not get there, and waits for its end. */
void dp_handover_give_up(pid_t pid);

/* ---- the new process ---- */

/* The socket to the process before; -1: this one was started by nobody of its kind. */
int dp_handover_found(void);

MUST_CHECK struct err dp_handover_take(int fd, uint64_t timeout_ms, struct dp_handover *out);

/* This process serves: the old one may go. */
MUST_CHECK struct err dp_handover_done(int fd);

/* Closes what was not taken into use. */
void dp_handover_close(struct dp_handover *h);

/* ---- any process ---- */

/* Tells who supervises it, where NOTIFY_SOCKET says how (systemd's Type=notify), that it serves and
 * that this is the main process now. */
void dp_handover_notify(void);
