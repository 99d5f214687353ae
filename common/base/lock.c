/* lock: see lock.h. */
#include "common/base/lock.h"

#include "common/base/check.h"

#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wthread-safety-analysis"
#endif

void lock_init(struct lock *l)
{
    CHECK(pthread_mutex_init(&l->m, NULL) == 0);
}

void lock_free(struct lock *l)
{
    CHECK(pthread_mutex_destroy(&l->m) == 0);
}

void lock_take(struct lock *l)
{
    CHECK(pthread_mutex_lock(&l->m) == 0);
}

void lock_drop(struct lock *l)
{
    CHECK(pthread_mutex_unlock(&l->m) == 0);
}

#ifdef __clang__
#pragma clang diagnostic pop
#endif
