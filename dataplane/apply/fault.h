/*
 * fault: points at which a test makes a node die, fail or wait.
 *
 * Shape      TRILANE_FAULT=POINT:ACTION in the environment: POINT is a step of apply.c, "start" and
 *            "load" (before and after the disk counts a start), a disk step in lower case
 *            ("disk.pack_sync"), a step of join.c ("join.ask"), "renew.put", "identity.next" or
 *            "identity.key"; ACTION is kill (SIGKILL to oneself), error, or pause=MS.
 * Threads    any.
 * Errors     dp_fault() fails with E_IO for "error".
 *
 * Compiled in where TRILANE_FAULTS is defined: in debug builds, and in release builds configured
 * with -DTRILANE_FAULTS=ON. A product build holds none of it.
 */
#pragma once

#include "common/base/err.h"
#include "common/snapshot/disk.h"

#ifdef TRILANE_FAULTS
MUST_CHECK struct err dp_fault(const char *point);

/* What a disk step is to fail with; 0: nothing. */
int dp_fault_disk(enum disk_step step);
#else
static inline struct err dp_fault(const char *point)
{
    (void)point;
    return OK;
}
static inline int dp_fault_disk(enum disk_step step)
{
    (void)step;
    return 0;
}
#endif
