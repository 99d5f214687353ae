/* fault: see fault.h. */
#include "dataplane/apply/fault.h"

#ifdef TRILANE_FAULTS

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/slice.h"

enum { POINT_MAX = 64 };

static void pause_ms(struct slice digits)
{
    uint64_t ms = 0;
    (void)slice_to_u64(digits, &ms);
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

struct err dp_fault(const char *point)
{
    /* Nothing here sets the environment, so reading it from a thread is safe. */
    struct slice wanted = slice_str(getenv("TRILANE_FAULT")); /* NOLINT(concurrency-mt-unsafe) */
    struct slice action = slice_from(wanted, slice_find(wanted, ':') + 1);
    if (!slice_eq(slice_head(wanted, slice_find(wanted, ':')), slice_str(point))) {
        return OK;
    }
    if (slice_eq(action, SLICE_LIT("kill"))) {
        (void)raise(SIGKILL);
    }
    if (slice_starts(action, SLICE_LIT("pause="))) {
        pause_ms(slice_from(action, sizeof("pause=") - 1));
    }
    return slice_eq(action, SLICE_LIT("error")) ? FAIL(E_IO) : OK;
}

int dp_fault_disk(enum disk_step step)
{
#define X(name, text) [DISK_##name] = #name,
    static const char *const names[DISK_STEP_COUNT] = {DISK_STEP_LIST(X)};
#undef X
    char point[POINT_MAX];
    (void)snprintf(point, sizeof(point), "disk.%s", names[step]);
    for (char *c = point; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    return err_ok(dp_fault(point)) ? 0 : ENOSPC;
}

#endif
