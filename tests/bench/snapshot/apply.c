/* apply: the node's own code from an accepted head to the model that workers would get. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/snapshot/disk.h"
#include "dataplane/apply/build.h"

#include "tests/bench/snapshot/content.h"
#include "tests/bench/snapshot/snapshot.h"

/* A node's apply thread, as far as it goes here. */
struct node {
    struct disk *disk;
    struct dp_model_bin *bin;
    struct dp_model *model; /* served; NULL: none yet. */
};

static void open_node(struct node *n, const struct publisher *p, const char *directory)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(slice_str(PUBLISHER_ENVIRONMENT), environment);
    const struct disk_options options = {.directory = directory,
                                         .environment = environment,
                                         .trust_root = buf_slice(&p->root_bytes),
                                         .lock_fd = -1};
    *n = (struct node){0};
    bench_must(disk_open(&options, &n->disk), "disk");
    bench_must(dp_model_bin_new(&n->bin), "bin");
}

static void close_node(struct node *n)
{
    dp_model_unref(n->model);
    dp_model_bin_free(n->bin);
    disk_close(n->disk);
}

/* Where a version's chunks are, as a bucket would know. */
static void index_chunks(struct map *chunks, const struct version *v)
{
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            struct cut_chunk *c = &v->streams[i].chunks[k];
            bench_must(map_put(chunks, slice_of(c->digest, DIGEST_SHORT_SIZE), c, NULL), "index");
        }
    }
}

static void add_chunks(struct snap_set *set, const struct map *chunks)
{
    struct snap_missing missing;
    size_t at = 0;
    while (snap_set_missing(set, &at, &missing)) {
        const struct cut_chunk *c =
            map_get(chunks, slice_of(missing.name.digest, DIGEST_SHORT_SIZE));
        CHECK(c != NULL);
        bench_must(snap_set_add(set, &missing.name, c->stored), "chunk");
    }
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* One apply, step by step, printed. */
static void apply(struct node *n, struct publisher *p, const struct version *v)
{
    auto_manifest struct manifest m = {0};
    struct snap_set *set = NULL;
    struct dp_model *model = NULL;
    struct dp_build_report report;
    struct map chunks = {0};
    index_chunks(&chunks, v);
    const struct manifest_wanted wanted = {.version = v->number, .digest = v->digest};
    uint64_t start_ns = clock_mono_ns();
    bench_must(manifest_open(buf_slice(&v->manifest), &p->root, &wanted, &m), "manifest");
    bench_must(manifest_check_capabilities(&m, CAPABILITIES_HERE), "capabilities");
    bench_must(snap_set_new(&m, n->model == NULL ? NULL : dp_model_set(n->model), &set), "set");
    add_chunks(set, &chunks);
    bench_must(snap_set_close(set), "set");
    double verify_ms = bench_ms(start_ns);
    uint64_t build_ns = clock_mono_ns();
    bench_must(dp_model_build(n->bin, set, n->model, &model, &report), "build");
    double build_ms = bench_ms(build_ns);
    uint64_t persist_ns = clock_mono_ns();
    const struct disk_apply to_disk = {.manifest = buf_slice(&v->manifest), .set = set, .epoch = 1};
    bench_must(disk_commit(n->disk, &to_disk), "persist");
    disk_make_room(n->disk);
    snap_set_drop_stored(set);
    double persist_ms = bench_ms(persist_ns);
    double ms = bench_ms(start_ns);
    size_t both = heap_bytes();
    dp_model_unref(n->model);
    (void)dp_model_bin_sweep(n->bin);
    n->model = model;
    snap_set_unref(set);
    double all_ms = bench_ms(start_ns);
    map_free(&chunks);
    printf(
        "{\"ms\": %.3f, \"freed_ms\": %.3f, \"verify_ms\": %.3f, \"build_ms\": %.3f, \"persist_ms\": %.3f, "
        "\"parts\": %zu, \"parts_built\": %zu, \"heap_both\": %zu, \"heap\": %zu}",
        ms, all_ms - ms, verify_ms, build_ms, persist_ms, report.parts, report.parts_built, both,
        heap_bytes());
}

static void apply_number(struct node *n, struct publisher *p, const struct bench_content *c,
                         uint64_t number)
{
    struct version *v = bench_version(p, c, number);
    apply(n, p, v);
    bench_version_free(v);
}

void bench_apply(const char *first, const char *second, int rounds, const char *state)
{
    struct publisher p;
    struct bench_content contents[2];
    struct node n;
    char directory[4096];
    publisher_init(&p);
    bench_content_load(&contents[0], first);
    bench_content_load(&contents[1], second);
    printf("{\"heap_before\": %zu, \"fresh\": [", heap_bytes());
    for (int i = 0; i < rounds; i++) {
        printf("%s", i == 0 ? "" : ", ");
        (void)snprintf(directory, sizeof(directory), "%s/%d", state, i);
        open_node(&n, &p, directory);
        apply_number(&n, &p, &contents[0], 1);
        close_node(&n);
    }
    (void)snprintf(directory, sizeof(directory), "%s/turns", state);
    open_node(&n, &p, directory);
    printf("], \"turns\": [");
    for (int i = 0; i <= rounds; i++) {
        printf("%s", i == 0 ? "" : ", ");
        apply_number(&n, &p, &contents[i % 2], (uint64_t)i + 1);
    }
    printf("]}\n");
    close_node(&n);
    bench_content_free(&contents[0]);
    bench_content_free(&contents[1]);
    publisher_free(&p);
}
