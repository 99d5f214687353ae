/*
 * disk_step: the points of a write at which a process may die or the disk may refuse.
 *
 * Shape      a hook that tests set, to kill or to fail at every one of them; NULL otherwise.
 * Threads    called by the owner of the disk.
 * Errors     PERSIST_FAILED where the hook fails a step.
 */
#pragma once

#include <errno.h>
#include <stddef.h>

#include "common/base/err.h"

/* Every point at which a process may die or a write may fail; in the order of an apply. */
#define DISK_STEP_LIST(X)                                                                          \
    X(PACK_APPEND, "before a record is appended")                                                  \
    X(PACK_APPENDED, "after all records were appended")                                            \
    X(PACK_SYNC, "before the pack is synced")                                                      \
    X(FLOOR_CREATE, "before the new floor is made aside")                                          \
    X(FLOOR_WRITE, "before it is written")                                                         \
    X(FLOOR_SYNC, "before it is synced")                                                           \
    X(FLOOR_RENAME, "before it takes the place of the old one")                                    \
    X(FLOOR_DIR_SYNC, "before the directory is synced")                                            \
    X(FLOOR_DONE, "after the commit")                                                              \
    X(COMPACT_CREATE, "before the new pack is made")                                               \
    X(COMPACT_WRITE, "before live records are copied")                                             \
    X(COMPACT_SYNC, "before the new pack is synced")                                               \
    X(COMPACT_RENAME, "before it takes the place of the old one")                                  \
    X(COMPACT_DIR_SYNC, "before the directory is synced")                                          \
    X(COMPACT_DONE, "after compaction")

#define DISK_STEP_ENUM_(name, text) DISK_##name,
enum disk_step { DISK_STEP_LIST(DISK_STEP_ENUM_) DISK_STEP_COUNT };
#undef DISK_STEP_ENUM_

/* Called at each step: zero goes on, an errno makes the step fail with it. */
typedef int (*disk_hook_fn)(void *context, enum disk_step step);

struct disk_steps {
    disk_hook_fn hook;
    void *context;
};

static inline struct err disk_step(const struct disk_steps *steps, enum disk_step step)
{
    int failed = steps->hook == NULL ? 0 : steps->hook(steps->context, step);
    if (failed != 0) {
        errno = failed;
        return FAIL(E_PERSIST_FAILED);
    }
    return OK;
}
