/*
 * bench-policy RULES.yaml REQUESTS.tsv MILLISECONDS: what a decision about service acme/orders
 * costs a node, walked and cached, in CPU of its thread.
 *
 * The rules go through the compiler as the control plane has it, the part through the node's own
 * decoder. A request is a line: caller, its tenant, method. Prints JSON with nanoseconds a decision
 * and, for comparing engines, a digit a request: 1 allowed.
 */
#include "dataplane/request/policy.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "controlplane/compile/compile.h"
#include "controlplane/source/source.h"
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum { FILE_BYTES = 64 << 20, CACHE_ENTRIES = 65536, TTL_MS = 3600000, BATCH = 256 };

struct asked {
    struct dp_caller caller;
    struct dp_policy_query query;
};

struct bench {
    struct dp_policy_target *target;
    struct dp_policy_cache *cache;
    struct asked *asked;
    size_t count;
    size_t capacity;
    double compile_ms;
    size_t part_bytes;
    size_t graphs;
    size_t nodes;
};

static void must(struct err e, const char *what)
{
    if (!err_ok(e)) {
        (void)fprintf(stderr, "%s: %s at %s\n", what, err_name(e.code), e.where);
        exit(1);
    }
}

static void read_file(const char *path, struct buf *out)
{
    uint8_t *at = NULL;
    FILE *file = fopen(path, "rbe");
    must(file == NULL ? FAIL(E_IO) : OK, path);
    must(buf_reserve(out, FILE_BYTES, &at), path);
    buf_commit(out, fread(at, 1, FILE_BYTES, file));
    (void)fclose(file);
}

static void note_size(struct slice part, struct bench *b)
{
    Trilane__Parts__V1__PolicyTarget *m = trilane__parts__v1__policy_target__unpack(
        /* allocator= */ NULL, part.size, part.ptr);
    must(m == NULL ? FAIL(E_PART_MALFORMED) : OK, "part");
    b->part_bytes = part.size;
    b->graphs = 1 + m->n_more_roots;
    b->nodes = m->n_nodes;
    trilane__parts__v1__policy_target__free_unpacked(m, /* allocator= */ NULL);
}

static void compile_rules(struct slice yaml, struct bench *b)
{
    struct cp_source_set set;
    struct cp_diags diags;
    struct cp_compiled *compiled = NULL;
    const struct cp_compile_options options = {0};
    size_t count = 0;
    cp_source_set_init(&set);
    must(cp_source_set_add(&set, SLICE_LIT("rules.yaml"), yaml), "rules");
    cp_diags_init(&diags, &set);
    uint64_t start_ns = clock_thread_ns();
    must(cp_compile_set(&set, &diags, &options, &compiled), "compile");
    b->compile_ms = (double)(clock_thread_ns() - start_ns) * 1e-6;
    const struct cp_part *parts = cp_compiled_parts(compiled, &count);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].kind == CP_PART_AUTHORISATION &&
            slice_eq(parts[i].key, SLICE_LIT("service/acme/orders"))) {
            note_size(parts[i].bytes, b);
            must(dp_policy_build(parts[i].bytes, &b->target), "part");
        }
    }
    must(b->target == NULL ? FAIL(E_NOT_FOUND) : OK, "target");
    cp_compiled_free(compiled);
    cp_diags_free(&diags);
    cp_source_set_free(&set);
}

/* Up to the tab or the end of the line. */
static struct slice take_field(struct slice *rest)
{
    size_t end = 0;
    while (end < rest->size && rest->ptr[end] != '\t' && rest->ptr[end] != '\n') {
        end++;
    }
    struct slice field = slice_head(*rest, end);
    *rest = slice_from(*rest, end < rest->size ? end + 1 : end);
    return field;
}

static void read_requests(struct slice text, struct bench *b)
{
    while (text.size > 0) {
        must(array_room(&b->asked, b->count, &b->capacity, sizeof(*b->asked)), "requests");
        struct asked *asked = &b->asked[b->count++];
        *asked = (struct asked){.caller = {.domain = SLICE_LIT("bench.example")}};
        asked->caller.id = take_field(&text);
        asked->caller.tenant = take_field(&text);
        asked->query = (struct dp_policy_query){
            .verb = DP_VERB_CALL, .lane = SLICE_LIT("operator"), .method = take_field(&text)};
    }
    for (size_t i = 0; i < b->count; i++) { /* the array moves no more. */
        b->asked[i].query.caller = &b->asked[i].caller;
    }
}

/* Nanoseconds of one decision, of as many as fit into the time. */
static double measure(const struct bench *b, bool cached, uint64_t ms)
{
    size_t done = 0;
    size_t allowed = 0;
    uint64_t start_ns = clock_thread_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < ms * 1000000) {
        for (size_t i = 0; i < BATCH; i++) {
            const struct dp_policy_query *query = &b->asked[(done + i) % b->count].query;
            struct dp_verdict verdict = cached
                                            ? dp_policy_cache_decide(b->cache, b->target, query, 1)
                                            : dp_policy_decide(b->target, query);
            allowed += verdict.allow;
        }
        done += BATCH;
        spent_ns = clock_thread_ns() - start_ns;
    }
    must(allowed > done ? FAIL(E_IO) : OK, "count"); /* so that no decision is left out. */
    return (double)spent_ns / (double)done;
}

static void report(const struct bench *b, uint64_t ms)
{
    (void)measure(b, /* cached= */ true, ms / 4 + 1);
    double walked = measure(b, /* cached= */ false, ms);
    double cached = measure(b, /* cached= */ true, ms);
    printf("{\"ns\": %.2f, \"cached_ns\": %.2f, \"compile_ms\": %.2f, \"part_bytes\": %zu, "
           "\"graphs\": %zu, \"nodes\": %zu, \"verdicts\": \"",
           walked, cached, b->compile_ms, b->part_bytes, b->graphs, b->nodes);
    for (size_t i = 0; i < b->count; i++) {
        printf("%d", dp_policy_decide(b->target, &b->asked[i].query).allow);
    }
    printf("\"}\n");
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    auto_buf struct buf yaml = BUF_MAX(FILE_BYTES);
    auto_buf struct buf requests = BUF_MAX(FILE_BYTES);
    uint64_t ms = 0;
    if (argc != 4 || !slice_to_u64(slice_str(argv[3]), &ms)) {
        (void)fprintf(stderr, "bench-policy RULES.yaml REQUESTS.tsv MILLISECONDS\n");
        return 2;
    }
    ids_init();
    read_file(argv[1], &yaml);
    read_file(argv[2], &requests);
    compile_rules(buf_slice(&yaml), &b);
    read_requests(buf_slice(&requests), &b);
    must(dp_policy_cache_new(CACHE_ENTRIES, TTL_MS, &b.cache), "cache");
    report(&b, ms);
    dp_policy_cache_free(b.cache);
    dp_policy_free(b.target);
    free(b.asked);
    return 0;
}
