/* What the HTTP/2 connections of one worker share. */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

/* Streams that a client opens before it has seen the server's SETTINGS: what other proxies do. */
enum { PEER_STREAMS_BEFORE_SETTINGS = 100 };

static void *library_malloc(size_t size, void *mem)
{
    return h2_mem_alloc(mem, size);
}

static void library_free(void *ptr, void *mem)
{
    h2_mem_free(mem, ptr);
}

static void *library_calloc(size_t count, size_t size, void *mem)
{
    return h2_mem_calloc(mem, count, size);
}

static void *library_realloc(void *ptr, size_t size, void *mem)
{
    return h2_mem_realloc(mem, ptr, size);
}

/*
 * Windows are given back by us alone, as the other side takes the data. Closed streams are not
 * kept: only RFC 7540's priorities need them, and those are off (RFC 9113, section 5.3.2).
 */
static bool make_option(nghttp2_option **out)
{
    if (nghttp2_option_new(out) != 0) {
        return false;
    }
    nghttp2_option_set_no_auto_window_update(*out, 1);
    nghttp2_option_set_no_closed_streams(*out, 1);
    nghttp2_option_set_peer_max_concurrent_streams(*out, PEER_STREAMS_BEFORE_SETTINGS);
    nghttp2_option_set_max_send_header_block_length(*out, limits.request_header_bytes * 2);
    return true;
}

/* Our own guards count resets of both sides and say so; the library's would only get in between. */
static void leave_resets_to_us(nghttp2_option *option)
{
    nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX);
}

static bool make_library_parts(struct h2_env *env)
{
    if (!make_option(&env->server_option) || !make_option(&env->client_option) ||
        nghttp2_session_callbacks_new(&env->callbacks) != 0) {
        return false;
    }
    leave_resets_to_us(env->server_option);
    h2_recv_callbacks(env->callbacks);
    h2_send_callbacks(env->callbacks);
    return true;
}

struct err h2_env_new(struct net_loop *loop, struct h2_env **out)
{
    CHECK(loop != NULL);
    struct h2_env *env = calloc(1, sizeof(*env));
    if (env == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    env->loop = loop;
    env->library_mem = (nghttp2_mem){.mem_user_data = &env->mem,
                                     .malloc = library_malloc,
                                     .free = library_free,
                                     .calloc = library_calloc,
                                     .realloc = library_realloc};
    if (!make_library_parts(env)) {
        h2_env_free(env);
        return FAIL(E_NO_MEMORY);
    }
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
    nghttp2_option_del(env->server_option);
    nghttp2_option_del(env->client_option);
    nghttp2_session_callbacks_del(env->callbacks);
    h2_mem_clear(&env->mem);
    free(env);
}

const struct h2_counters *h2_env_counters(const struct h2_env *env)
{
    return &env->counters;
}

size_t h2_env_memory(const struct h2_env *env)
{
    return env->mem.bytes;
}
