/* compile: what the control plane does with sources, timed step by step. */
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "controlplane/compile/reuse.h"

#include "tests/bench/snapshot/content.h"
#include "tests/bench/snapshot/snapshot.h"

static long peak_kib(void)
{
    struct rusage usage;
    bench_must(getrusage(RUSAGE_SELF, &usage) == 0 ? OK : FAIL(E_IO), "getrusage");
    return usage.ru_maxrss;
}

/* Prints one compile; its content takes the place of the one before. */
static void compile_one(const char *directory, struct cp_reuse *reuse, struct bench_content *last)
{
    struct bench_content now;
    struct cp_diags diags;
    size_t parts = 0;
    size_t chunks = 0;
    auto_buf struct buf message = BUF_MAX(4096);
    const struct cp_compile_options options = {.reuse = reuse};
    cp_source_set_init(&now.sources);
    bench_must(cp_source_set_load(&now.sources, directory, &message), directory);
    cp_diags_init(&diags, &now.sources);
    bench_must(cp_prepared_new(&now.prepared), "content");
    uint64_t start_ns = clock_mono_ns();
    bench_must(cp_compile_set(&now.sources, &diags, &options, &now.prepared->compiled), directory);
    double compile_ms = bench_ms(start_ns);
    start_ns = clock_mono_ns();
    const struct cp_streams_options cut = {
        .format = SNAPSHOT_FORMAT, .before = last->prepared == NULL ? NULL : &last->prepared->cut};
    bench_must(cp_streams_cut(now.prepared->compiled, &cut, &now.prepared->cut), "cut");
    double cut_ms = bench_ms(start_ns);
    (void)cp_compiled_parts(now.prepared->compiled, &parts);
    for (size_t i = 0; i < now.prepared->cut.count; i++) {
        chunks += now.prepared->cut.streams[i].chunk_count;
    }
    printf("{\"compile_ms\": %.3f, \"cut_ms\": %.3f, \"files\": %zu, \"bytes\": %zu, "
           "\"parts\": %zu, \"chunks\": %zu, \"peak_kib\": %ld}",
           compile_ms, cut_ms, now.sources.count, now.sources.bytes, parts, chunks, peak_kib());
    cp_diags_free(&diags);
    bench_content_free(last);
    *last = now;
}

void bench_compile(char *const *directories, int count)
{
    struct cp_reuse *reuse = NULL;
    struct bench_content last = {0};
    cp_source_set_init(&last.sources);
    bench_must(cp_reuse_new(&reuse), "reuse");
    printf("{\"runs\": [");
    for (int i = 0; i < count; i++) {
        printf("%s", i == 0 ? "" : ", ");
        compile_one(directories[i], reuse, &last);
    }
    printf("]}\n");
    bench_content_free(&last);
    cp_reuse_free(reuse);
}
