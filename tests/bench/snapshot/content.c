/* content: see content.h. */
#include "tests/bench/snapshot/content.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/scope.h"

void bench_must(struct err e, const char *what)
{
    if (!err_ok(e)) {
        (void)fprintf(stderr, "bench-snapshot: %s: %s at %s\n", what, err_name(e.code), e.where);
        exit(1);
    }
}

double bench_ms(uint64_t since_ns)
{
    return (double)(clock_mono_ns() - since_ns) / 1e6;
}

void bench_content_load(struct bench_content *c, const char *directory)
{
    const struct cp_compile_options options = {0};
    struct cp_diags diags;
    auto_buf struct buf message = BUF_MAX(4096);
    cp_source_set_init(&c->sources);
    bench_must(cp_source_set_load(&c->sources, directory, &message), directory);
    cp_diags_init(&diags, &c->sources);
    bench_must(cp_prepared_new(&c->prepared), "content");
    bench_must(cp_compile_set(&c->sources, &diags, &options, &c->prepared->compiled), directory);
    const struct cp_streams_options cut = {.format = SNAPSHOT_FORMAT};
    bench_must(cp_streams_cut(c->prepared->compiled, &cut, &c->prepared->cut), "cut");
    cp_diags_free(&diags);
}

void bench_content_free(struct bench_content *c)
{
    cp_prepared_unref(c->prepared);
    cp_source_set_free(&c->sources);
}

struct version *bench_version(struct publisher *p, const struct bench_content *c, uint64_t number)
{
    struct version *v = calloc(1, sizeof(*v));
    bench_must(v == NULL ? FAIL(E_NO_MEMORY) : OK, "version");
    v->number = number;
    v->stream_count = c->prepared->cut.count;
    memcpy(v->streams, c->prepared->cut.streams, sizeof(v->streams));
    version_sign(p, v, cp_compiled_capabilities(c->prepared->compiled), /* key= */ NULL);
    return v;
}

void bench_version_free(struct version *v)
{
    v->stream_count = 0; /* they are the content's. */
    version_free(v);
}
