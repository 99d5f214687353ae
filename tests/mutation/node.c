/* node: see node.h. */
#include "tests/mutation/node.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/request/metrics.h"

/* Between two heads: whatever a node does at most once in a while, it does anew. */
#define BETWEEN_NS (INT64_C(10) * 1000000000)

static struct node *asks; /* whose head is being judged. */

/* ---- what is not a node's own ---- */

/* The thread does not run: its steps are called one by one. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg);
/* NOLINTNEXTLINE(readability-non-const-parameter): as the library's. */
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
                          void *arg)
{
    (void)thread;
    (void)attr;
    (void)start;
    (void)arg;
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
    (void)thread;
    (void)result;
    return 0;
}

const char *__wrap_bus_exposure(const struct bus *bus);
const char *__wrap_bus_exposure(const struct bus *bus)
{
    (void)bus;
    return NULL;
}

/* What the bucket has under a key, lies before the truth. */
static bool bucket_get(const char *key, struct slice *out)
{
    for (size_t i = 0; i < asks->lie_count; i++) {
        const struct node_lie *lie = &asks->lies[i];
        if (strcmp(lie->key, key) == 0) {
            *out = lie->bytes;
            return !lie->is_missing;
        }
    }
    return world_get(asks->world, key, out);
}

struct err __wrap_dp_feed_get(struct dp_feed *feed, const char *key, struct buf *out);
struct err __wrap_dp_feed_get(struct dp_feed *feed, const char *key, struct buf *out)
{
    struct slice value;
    (void)feed;
    return bucket_get(key, &value) ? buf_add(out, value) : FAIL(E_NOT_FOUND);
}

/* Whoever lies in the bucket pushes the same lie, and honest objects are pushed, too: no lie may
 * get further by either way, and what is no object any more is asked of the bucket. */
bool __wrap_dp_feed_pushed(const struct dp_feed *feed, const char *key, struct slice *out);
bool __wrap_dp_feed_pushed(const struct dp_feed *feed, const char *key, struct slice *out)
{
    (void)feed;
    return bucket_get(key, out);
}

/* ---- its worker ---- */

static void swap(void *ctx, struct dp_model *model)
{
    struct node *n = ctx;
    dp_model_unref(n->model);
    n->model = dp_model_ref(model);
}

static void fresh(void *ctx, uint64_t content_ns)
{
    (void)ctx;
    (void)content_ns;
}

static uint64_t served(void *ctx)
{
    const struct node *n = ctx;
    return n->model == NULL ? 0 : dp_model_version(n->model);
}

/* ---- its life ---- */

void node_start(struct node *n, struct world *w, const char *directory)
{
    *n = (struct node){.world = w};
    (void)snprintf(n->directory, sizeof(n->directory), "%s", directory);
    MUST(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &n->metrics));
    struct dp_apply_config config = {
        .environment = slice_str(w->environment),
        .node = SLICE_LIT("node-1"),
        .state_dir = n->directory,
        .trust_root = buf_slice(&w->root_bytes[ROOT_NOW]),
        .workers = {.swap = swap, .fresh = fresh, .served = served, .ctx = n},
        .metrics = n->metrics,
        .shard = metrics_shard(n->metrics, 0),
    };
    asks = n;
    MUST(dp_apply_start(&config, &n->apply));
    dp_apply_disk(n->apply);
}

void node_stop(struct node *n)
{
    if (n->apply != NULL) {
        dp_model_unref(TAKE_PTR(n->model));
        dp_apply_stop(n->apply);
        dp_apply_free(n->apply);
        metrics_free(n->metrics);
    }
    *n = (struct node){.world = NULL};
}

static struct node_lie *add_lie(struct node *n, const char *key)
{
    CHECK(n->lie_count < NODE_LIES_MAX);
    struct node_lie *lie = &n->lies[n->lie_count++];
    *lie = (struct node_lie){.is_missing = true};
    (void)snprintf(lie->key, sizeof(lie->key), "%s", key);
    return lie;
}

void node_lie(struct node *n, const char *key, struct slice bytes)
{
    struct node_lie *lie = add_lie(n, key);
    lie->is_missing = false;
    lie->bytes = bytes;
}

void node_hide(struct node *n, const char *key)
{
    (void)add_lie(n, key);
}

/* ---- before and after ---- */

struct file {
    ino_t number;
    off_t size;
    struct timespec changed;
};

/* All that a refusal must leave alone. */
struct picture {
    struct judge judge;
    struct disk_floor floor;
    struct disk_sizes sizes;
    struct file floor_file;
    struct file pack_file;
    const struct dp_model *model;
    const struct dp_model *served;
    uint64_t applies;
    uint64_t refusals;
};

static struct file file_of(const struct node *n, const char *name)
{
    char path[NODE_PATH + 16];
    struct stat info = {0};
    (void)snprintf(path, sizeof(path), "%s/%s", n->directory, name);
    (void)stat(path, &info);
    return (struct file){.number = info.st_ino, .size = info.st_size, .changed = info.st_mtim};
}

static void take_picture(const struct node *n, struct picture *out)
{
    const struct dp_apply *a = n->apply;
    memset(out, 0, sizeof(*out));
    memcpy(&out->judge, &a->judge, sizeof(out->judge));
    memcpy(&out->floor, disk_floor(a->disk), sizeof(out->floor));
    out->sizes = disk_sizes(a->disk);
    out->floor_file = file_of(n, "floor");
    out->pack_file = file_of(n, "pack");
    out->model = a->model;
    out->served = n->model;
    out->applies = a->standing.applies;
    out->refusals = a->standing.refusals;
}

static bool same_file(const struct file *a, const struct file *b)
{
    return a->number == b->number && a->size == b->size && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

/* What changed; NULL: nothing but what the refusal itself counts. */
static const char *changed(const struct picture *before, const struct picture *now)
{
    /* NOLINTBEGIN(bugprone-suspicious-memory-comparison): copies of one place, padding included. */
    if (memcmp(&before->judge, &now->judge, sizeof(now->judge)) != 0) {
        return "what the node trusts";
    }
    if (memcmp(&before->floor, &now->floor, sizeof(now->floor)) != 0 ||
        before->sizes.pack_bytes != now->sizes.pack_bytes ||
        !same_file(&before->floor_file, &now->floor_file) ||
        !same_file(&before->pack_file, &now->pack_file)) {
        return "the disk";
    }
    /* NOLINTEND(bugprone-suspicious-memory-comparison) */
    bool same_model = before->model == now->model && before->served == now->served;
    return same_model && before->applies == now->applies ? NULL : "what is served";
}

static void show(struct node *n, struct slice head)
{
    static int64_t shift_ns;
    shift_ns += BETWEEN_NS;
    clock_shift_for_test(shift_ns, /* wall_ms= */ 0);
    asks = n;
    dp_fetch_drop(n->apply); /* else it would not ask for what an input before told the truth of. */
    dp_apply_head(n->apply, head, "hint");
    n->lie_count = 0;
}

/* ---- controls ---- */

static _Noreturn void not_taken(const struct node *n, const char *what)
{
    const struct dp_apply_standing *s = &n->apply->standing;
    (void)fprintf(
        stderr, "control: %s of world %u, generation %llu, is not taken: %s of %s; serves %llu\n",
        what, n->world->index, (unsigned long long)n->world->generation, err_name(s->code),
        s->object, (unsigned long long)(n->model == NULL ? 0 : dp_model_version(n->model)));
    exit(1);
}

void node_takes(struct node *n, struct slice head, uint64_t version)
{
    show(n, head);
    if (n->apply->standing.code != E_OK || served(n) != version ||
        n->apply->judge.version != version) {
        not_taken(n, "the valid version");
    }
    world_accepted(n->world, head);
}

void node_walks(struct node *n, struct slice root, struct slice head, uint64_t root_version)
{
    char key[SNAP_KEY_SIZE];
    snap_key_root(root_version, key);
    node_lie(n, key, root);
    if (head.size == 0) {
        asks = n;
        dp_apply_roots(n->apply);
        n->lie_count = 0;
    } else {
        show(n, head);
    }
    if (n->apply->judge.root.version != root_version) {
        not_taken(n, "the valid root");
    }
}

void node_proves(struct node *n)
{
    dp_apply_prove(n->apply, UINT64_MAX);
    if (!n->apply->standing.good) {
        not_taken(n, "what is good");
    }
}

void node_knows(struct node *n, struct slice head)
{
    struct picture before;
    struct picture now;
    take_picture(n, &before);
    show(n, head);
    take_picture(n, &now);
    if (changed(&before, &now) != NULL || before.refusals != now.refusals) {
        not_taken(n, "the head that it knows");
    }
}

/* ---- refusals ---- */

static void must_refuse(struct trial *t, const struct picture *before)
{
    struct picture now;
    take_picture(t->node, &now);
    const char *what = changed(before, &now);
    if (what != NULL) {
        trial_fail(t, "it changed %s", what);
    }
    if (now.refusals != before->refusals + 1) {
        trial_fail(t, "it was taken without a word");
    }
    t->got = t->node->apply->standing.last_code;
}

void node_refuses(struct trial *t, struct slice head)
{
    struct picture before;
    take_picture(t->node, &before);
    show(t->node, head);
    must_refuse(t, &before);
}

void node_refuses_target(struct trial *t, struct slice head)
{
    struct picture before;
    take_picture(t->node, &before);
    show(t->node, head);
    const struct judge *now = &t->node->apply->judge;
    if (now->epoch == before.judge.epoch && now->sequence == before.judge.sequence) {
        trial_fail(t, "its head was refused: %s", err_name(t->node->apply->standing.last_code));
    }
    before.judge.epoch = now->epoch;
    before.judge.sequence = now->sequence;
    memcpy(before.judge.head_digest, now->head_digest, DIGEST_SIZE);
    must_refuse(t, &before);
    world_accepted(t->world, head);
}
