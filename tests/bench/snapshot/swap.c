/*
 * swap: a publisher that a node follows as fast as it can: two contents by turns, each time under
 * the next number. Chunks of both lie in the bucket from the start; a turn is a manifest and a
 * head. It publishes as well for an environment that no node is of: the same work for whatever else
 * runs on the machine, and no swap.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/bus/bus.h"
#include "common/bus/kv.h"
#include "common/bus/subject.h"

#include "tests/bench/snapshot/content.h"
#include "tests/bench/snapshot/snapshot.h"

#define NS_PER_S UINT64_C(1000000000)

enum { WAIT_MS = 10000, BUCKET_BYTES = 256 << 20 };

/* An environment to publish for. */
struct place {
    const char *name; /* in the line that asks for it. */
    struct slice environment;
    struct kv kv;
    struct subject head;
    uint64_t number; /* the last one. */
};

enum { HERE, ELSEWHERE, PLACE_COUNT };

struct swaps {
    struct publisher publisher;
    struct bench_content contents[2];
    struct bus *bus;
    struct place places[PLACE_COUNT];
    uint64_t late_ns; /* the longest that a turn came behind its time. */
};

static void write_root(const struct swaps *s, const char *path)
{
    FILE *file = fopen(path, "wbe");
    struct slice bytes = buf_slice(&s->publisher.root_bytes);
    bool written =
        file != NULL && fwrite(bytes.ptr, 1, bytes.size, file) == bytes.size && fclose(file) == 0;
    bench_must(written ? OK : FAIL(E_IO), path);
}

static void connect_bus(struct swaps *s, const char *urls)
{
    const struct bus_config config = {
        .urls = urls, .name = "bench", .inbox_prefix = "_INBOX.trilane-cp"};
    bench_must(bus_open(&config, &s->bus), urls);
    bench_must(bus_wait_connected(s->bus, WAIT_MS), urls);
}

static void publish(struct swaps *s, struct place *place, bool chunks)
{
    uint64_t number = ++place->number;
    struct version *v = bench_version(&s->publisher, &s->contents[number % 2], number);
    auto_buf struct buf head = BUF_MAX(1 << 20);
    char key[SNAP_KEY_SIZE];
    const struct head_plan plan = {
        .epoch = 1, .sequence = number, .version = number, .digest = v->digest};
    if (chunks) {
        publisher_put_version(&place->kv, v);
    }
    snap_key_manifest(v->number, v->digest, key);
    publisher_put(&place->kv, key, buf_slice(&v->manifest));
    publisher_head(&s->publisher, &plan, &head);
    publisher_put(&place->kv, SNAP_KEY_HEAD, buf_slice(&head));
    const struct bus_outgoing hint = {.subject = subject_slice(&place->head),
                                      .payload = buf_slice(&head)};
    bench_must(bus_publish(s->bus, &hint), "hint");
    bench_version_free(v);
}

/* Both contents lie there afterwards. */
static void open_place(struct swaps *s, struct place *place)
{
    const struct kv_config bucket = {.history = 1, .max_bytes = BUCKET_BYTES, .replicas = 1};
    struct subject name;
    auto_buf struct buf why = BUF_MAX(1024);
    bench_must(subject_bucket_snapshots(place->environment, &name), "bucket");
    bench_must(subject_head(place->environment, &place->head), "head");
    bench_must(kv_bind(&place->kv, s->bus, subject_slice(&name)), "bucket");
    bench_must(kv_ensure(&place->kv, &bucket, WAIT_MS, &why, /* out= */ NULL), "bucket");
    publish(s, place, /* chunks= */ true);
    publish(s, place, /* chunks= */ true);
}

static void sleep_until(struct swaps *s, uint64_t at_ns)
{
    uint64_t now_ns = clock_mono_ns();
    if (now_ns < at_ns) {
        struct timespec rest = {.tv_nsec = (long)((at_ns - now_ns) % NS_PER_S),
                                .tv_sec = (time_t)((at_ns - now_ns) / NS_PER_S)};
        (void)nanosleep(&rest, NULL);
    } else if (now_ns - at_ns > s->late_ns) {
        s->late_ns = now_ns - at_ns;
    }
}

/* 'rate' a second for so long, and what came of it as a line of JSON. */
static void window(struct swaps *s, struct place *place, const struct bench_swap *options)
{
    uint64_t start_ns = clock_mono_ns();
    uint64_t count = (uint64_t)options->rate * options->seconds;
    s->late_ns = 0;
    for (uint64_t i = 0; i < count; i++) {
        sleep_until(s, start_ns + i * NS_PER_S / options->rate);
        publish(s, place, /* chunks= */ false);
    }
    printf("{\"swaps\": %" PRIu64 ", \"last\": %" PRIu64 ", \"seconds\": %.3f, "
           "\"late_ms\": %.3f}\n",
           count, place->number, bench_ms(start_ns) / 1e3, (double)s->late_ns / 1e6);
    (void)fflush(stdout);
}

void bench_swap(const struct bench_swap *options)
{
    static struct swaps s = {
        .places = {
            [HERE] = {.name = "here\n", .environment = SLICE_INIT(PUBLISHER_ENVIRONMENT)},
            [ELSEWHERE] = {.name = "elsewhere\n", .environment = SLICE_INIT("elsewhere")},
        }};
    char line[64];
    publisher_init(&s.publisher);
    bench_content_load(&s.contents[0], options->directories[0]);
    bench_content_load(&s.contents[1], options->directories[1]);
    write_root(&s, options->root);
    connect_bus(&s, options->urls);
    for (size_t i = 0; i < PLACE_COUNT; i++) {
        open_place(&s, &s.places[i]);
    }
    printf("ready\n");
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) { /* one window of swaps a line. */
        for (size_t i = 0; i < PLACE_COUNT; i++) {
            if (strcmp(line, s.places[i].name) == 0) {
                window(&s, &s.places[i], options);
            }
        }
    }
    bus_close(s.bus);
    bench_content_free(&s.contents[0]);
    bench_content_free(&s.contents[1]);
    publisher_free(&s.publisher);
}
