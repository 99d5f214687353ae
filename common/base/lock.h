/*
 * lock: a mutex the compiler can reason about.
 *
 * Threads    clang -Wthread-safety checks these at compile time. In C an attribute on a member
 *            cannot name a sibling member, so a member says GUARDED ("some lock") and the
 *            functions that touch it say which: REQUIRES(x->lock).
 */
#pragma once

#include <pthread.h>

#ifdef __clang__
#define LOCK_ATTR_(x) __attribute__((x))
#else
#define LOCK_ATTR_(x)
#endif

#define GUARDED LOCK_ATTR_(guarded_var)
#define REQUIRES(m) LOCK_ATTR_(requires_capability(m))
#define ACQUIRES(m) LOCK_ATTR_(acquire_capability(m))
#define RELEASES(m) LOCK_ATTR_(release_capability(m))

struct LOCK_ATTR_(capability("mutex")) lock {
    pthread_mutex_t m;
};

/* A lock is ready after lock_init(); lock_free() only while nobody holds it. */
void lock_init(struct lock *l);
void lock_free(struct lock *l);

/* Waits for the lock, and gives it back. */
void lock_take(struct lock *l) ACQUIRES(*l);
void lock_drop(struct lock *l) RELEASES(*l);
