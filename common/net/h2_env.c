/* What the HTTP/2 connections of one worker share. */
#include <stdlib.h>
#include <sys/random.h>

#include "common/base/check.h"
#include "common/net/h2_impl.h"

struct err h2_env_new(struct net_loop *loop, struct h2_env **out)
{
    CHECK(loop != NULL);
    struct h2_env *env = calloc(1, sizeof(*env));
    if (env == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    CHECK(getrandom(&env->streams_key, sizeof(env->streams_key), 0) == sizeof(env->streams_key));
    env->streams_key |= 1;
    env->loop = loop;
    h2_mem_init(&env->mem);
    h2_window_bounds(env);
    *out = env;
    return OK;
}

void h2_env_free(struct h2_env *env)
{
    if (env == NULL) {
        return;
    }
    CHECK(env->connections == 0);
    CHECK(env->mem.lent == 0);
    free(env->scratch);
    h2_mem_clear(&env->mem);
    free(env);
}

const struct h2_counters *h2_env_counters(const struct h2_env *env)
{
    return &env->counters;
}

void h2_env_give_back(struct h2_env *env)
{
    h2_mem_give_back(&env->mem);
}

size_t h2_env_memory(const struct h2_env *env)
{
    return env->mem.bytes;
}
