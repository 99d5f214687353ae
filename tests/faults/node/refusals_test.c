/* Shows that a node refuses every kind of broken, forged or replayed snapshot by its own code,
 * says so in status, log and metric, goes on with last-good, and takes the next honest one; that
 * calls go through it all the while, and none of them fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"

#include "tests/faults/node/rig.h"
#include "tests/support/cmocka.h"

#define HEAD_MAX (CONTAINER_HEADER_SIZE + HEAD_BODY_MAX + CONTAINER_SIGNATURE_SIZE)

static struct rig rig;

/* What the node said before the fault. */
static struct rig_dump before;

static int set_up_all(void **state)
{
    (void)state;
    rig_start(&rig);
    rig_publish(&rig);
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    rig_wait_state(&rig, "GOOD");
    rig_wait_status(&rig, 1, SNAP_GOOD);
    rig_traffic_start(&rig);
    return 0;
}

static int tear_down_all(void **state)
{
    (void)state;
    rig_traffic_end(&rig);
    int code = rig_node_stop(&rig);
    rig_end(&rig);
    return code;
}

static int look(void **state)
{
    (void)state;
    assert_true(rig_dump(&rig, &before));
    return 0;
}

/* The node refused by this code and serves what it served; then an honest version heals it. */
static void refused_as(enum err_code code)
{
    char line[128];
    (void)snprintf(line, sizeof(line), "trilane_snapshot_refusals_total{code=\"%s\"}",
                   err_name(code));
    rig_wait_refusal(&rig, err_name(code), before.refusals);
    rig_wait_status_code(&rig, code);
    assert_true(rig_metric(&rig, line) >= 1);
    assert_true(rig_ready(&rig));
    (void)snprintf(line, sizeof(line), "code=%s", err_name(code));
    assert_true(rig_log_has(&rig, line));
    struct rig_dump now;
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.version, before.version);
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
    rig_wait_state(&rig, "GOOD");
}

/* ---- heads ---- */

static uint8_t any_digest[DIGEST_SIZE] = {7};

static void send_head(struct head_plan plan)
{
    if (plan.digest == NULL) {
        plan.digest = any_digest;
    }
    if (plan.version == 0) {
        plan.version = rig.version + 1;
    }
    rig_head(&rig, &plan);
}

/* A valid head with one byte changed at 'offset' from its end, or cut there. */
static void broken_head(size_t offset, bool cut)
{
    auto_buf struct buf bytes = BUF_MAX(HEAD_MAX);
    struct head_plan plan = {.epoch = rig.epoch,
                             .sequence = rig.sequence + 1,
                             .version = rig.version + 1,
                             .digest = any_digest};
    publisher_head(&rig.publisher, &plan, &bytes);
    CHECK(offset < bytes.size);
    size_t at = bytes.size - 1 - offset;
    bytes.ptr[at] ^= 1;
    rig_head_bytes(&rig, slice_of(bytes.ptr, cut ? at : bytes.size));
}

static void head_tampered(void **state)
{
    (void)state;
    broken_head(3, /* cut= */ false);
    refused_as(E_HEAD_UNSIGNED);
}

static void head_cut_off(void **state)
{
    (void)state;
    broken_head(3, /* cut= */ true);
    refused_as(E_HEAD_MALFORMED);
}

static void head_is_noise(void **state)
{
    (void)state;
    uint8_t noise[512];
    ids_random(noise, sizeof(noise));
    rig_head_bytes(&rig, slice_of(noise, sizeof(noise)));
    refused_as(E_HEAD_MALFORMED);
}

static void head_unknown_field(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence + 1, .unknown_field = true});
    refused_as(E_HEAD_MALFORMED);
}

static void head_by_manifest_key(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence + 1, .key = &rig.publisher.manifest_key});
    refused_as(E_HEAD_WRONG_KEY);
}

static void head_by_stranger(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence + 1, .key = &rig.publisher.stranger});
    refused_as(E_HEAD_UNSIGNED);
}

static void head_of_another_environment(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence + 1, .environment = "staging"});
    refused_as(E_HEAD_WRONG_ENVIRONMENT);
}

static void head_replayed(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence - 1});
    refused_as(E_HEAD_REPLAYED);
}

static void head_equivocation(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence});
    refused_as(E_HEAD_EQUIVOCATION);
}

static void head_expired(void **state)
{
    (void)state;
    send_head(
        (struct head_plan){.sequence = rig.sequence + 1, .signed_at_ms = clock_wall_ms() - 120000});
    refused_as(E_HEAD_EXPIRED);
}

static void head_of_the_future(void **state)
{
    (void)state;
    send_head(
        (struct head_plan){.sequence = rig.sequence + 1, .signed_at_ms = clock_wall_ms() + 120000});
    refused_as(E_CLOCK_SKEW);
}

static void epoch_jump(void **state)
{
    (void)state;
    send_head((struct head_plan){.epoch = rig.epoch + HEAD_EPOCH_JUMP + 1, .sequence = 1});
    refused_as(E_EPOCH_JUMP);
}

static void no_target(void **state)
{
    (void)state;
    send_head((struct head_plan){.no_target = true});
    refused_as(E_NO_TARGET);
}

static void root_missing(void **state)
{
    (void)state;
    send_head((struct head_plan){.sequence = rig.sequence + 1,
                                 .root_version = rig.publisher.root.version + 1});
    refused_as(E_ROOT_MISSING);
}

/* Offers what 'root' holds as the root after the one in force, by a head that names it. */
static void offer_root(struct slice root)
{
    uint64_t next = rig.publisher.root.version + 1;
    char key[SNAP_KEY_SIZE];
    snap_key_root(next, key);
    publisher_put(&rig.snapshots, key, root);
    send_head((struct head_plan){.sequence = rig.sequence + 1, .root_version = next});
}

static void root_is_noise(void **state)
{
    (void)state;
    offer_root(SLICE_LIT("no container"));
    refused_as(E_ROOT_MALFORMED);
}

/* The next root as 'publisher' makes it, which forgets it again. */
static void offer_next_root(struct publisher publisher, size_t flip)
{
    auto_buf struct buf bytes = BUF_MAX((size_t)2 * ROOT_BODY_MAX);
    publisher_next_root(&publisher, /* floor= */ NULL, &bytes);
    bytes.ptr[flip] ^= flip > 0 ? 1 : 0;
    offer_root(buf_slice(&bytes));
}

static void root_signature_tampered(void **state)
{
    (void)state;
    offer_next_root(rig.publisher, CONTAINER_HEADER_SIZE + KEY_ID_SIZE + 3);
    refused_as(E_ROOT_UNSIGNED);
}

static void root_expired(void **state)
{
    (void)state;
    struct publisher late = rig.publisher;
    late.root.not_after_ms = clock_wall_ms() - 86400000;
    offer_next_root(late, 0);
    refused_as(E_ROOT_EXPIRED);
}

/* ---- versions and manifests ---- */

static void old_manifest_under_a_new_epoch(void **state)
{
    (void)state;
    rig.epoch++;
    rig.sequence = 0;
    send_head((struct head_plan){.version = 1});
    refused_as(E_SNAPSHOT_REPLAYED);
}

static void two_manifests_of_one_version(void **state)
{
    (void)state;
    struct content *c = content_sample(9999);
    struct version *v = version_new(&rig.publisher, c, rig.version, NULL);
    publisher_put_version(&rig.snapshots, v);
    send_head((struct head_plan){.version = rig.version, .digest = v->digest});
    version_free(v);
    content_free(c);
    refused_as(E_SNAPSHOT_EQUIVOCATION);
}

static void manifest_missing(void **state)
{
    (void)state;
    send_head((struct head_plan){0});
    refused_as(E_MANIFEST_MISSING);
}

/* The next version, of a content that was not published before. */
static struct version *next_version(const struct key_pair *key)
{
    struct content *c = content_sample((uint16_t)(20000 + rig.version));
    struct version *v = version_new(&rig.publisher, c, ++rig.version, key);
    content_free(c);
    return v;
}

static void point_at(struct version *v)
{
    send_head((struct head_plan){.version = v->number, .digest = v->digest});
    version_free(v);
}

static void manifest_tampered(void **state)
{
    (void)state;
    struct version *v = next_version(NULL);
    v->manifest.ptr[v->manifest.size - 2] ^= 1;
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_MANIFEST_MIXED);
}

static void manifest_signature_tampered(void **state)
{
    (void)state;
    struct version *v = next_version(NULL);
    v->manifest.ptr[CONTAINER_HEADER_SIZE + KEY_ID_SIZE + 3] ^= 1;
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_MANIFEST_UNSIGNED);
}

/* A signed manifest whose body goes on with 'more'. */
static void longer_manifest(struct slice more)
{
    struct version *v = next_version(NULL);
    version_append(&rig.publisher, v, more);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
}

static void manifest_malformed(void **state)
{
    (void)state;
    longer_manifest(SLICE_LIT("\xff"));
    refused_as(E_MANIFEST_MALFORMED);
}

static void manifest_unknown_field(void **state)
{
    (void)state;
    longer_manifest(SLICE_LIT("\x90\x03\x01")); /* field 50. */
    refused_as(E_CAPABILITY_MISSING);
}

static void manifest_by_stranger(void **state)
{
    (void)state;
    struct version *v = next_version(&rig.publisher.stranger);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_MANIFEST_UNSIGNED);
}

static void manifest_by_head_key(void **state)
{
    (void)state;
    struct version *v = next_version(&rig.publisher.head_key);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_MANIFEST_WRONG_KEY);
}

static void unknown_capability(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    c->capabilities = UINT64_C(1) << 63;
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_CAPABILITY_MISSING);
}

static void unknown_stream(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    content_put_bytes(c, STREAM_FILTERS, "filter", SLICE_LIT("?"));
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_CAPABILITY_MISSING);
}

static void unknown_format(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    struct version *v = version_cut(c, ++rig.version);
    v->streams[1].format = stream_format(v->streams[1].kind, SNAPSHOT_FORMAT) + 1;
    version_sign(&rig.publisher, v, c->capabilities, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_CAPABILITY_MISSING);
}

/* A newer release revokes something by it; no capability says so: the flag lies. */
static void unknown_revocation(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    content_revoke(c, "country/xx");
    c->capabilities = 0;
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_CAPABILITY_MISSING);
}

/* What the release before writes is served like any other, and the way back is open. */
static void the_format_before_is_served(void **state)
{
    (void)state;
    struct content *c = content_sample_former(rig.echo_port);
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    rig_wait_version(&rig, rig.version);
    rig_wait_state(&rig, "GOOD");
    struct rig_dump now;
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.refusals, before.refusals);
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
    rig_wait_state(&rig, "GOOD");
}

/* ---- chunks ---- */

static void put_chunk(const struct cut_chunk *chunk, struct slice stored)
{
    char key[SNAP_KEY_SIZE];
    snap_key_chunk(chunk->digest, key);
    publisher_put(&rig.snapshots, key, stored);
}

/* The only chunk of the routing stream, which every content of these tests has its own of. */
static struct cut_chunk *routing_chunk(struct version *v)
{
    CHECK(v->streams[0].kind == STREAM_ROUTING);
    return &v->streams[0].chunks[0];
}

static void chunk_missing(void **state)
{
    (void)state;
    struct version *v = next_version(NULL);
    publisher_put_version(&rig.snapshots, v);
    char key[SNAP_KEY_SIZE];
    snap_key_chunk(routing_chunk(v)->digest, key);
    assert_true(err_ok(kv_purge(&rig.snapshots, slice_str(key), KV_ANY_REVISION, 2000)));
    point_at(v);
    refused_as(E_CHUNK_MISSING);
}

static void chunk_truncated(void **state)
{
    (void)state;
    struct version *v = next_version(NULL);
    publisher_put_version(&rig.snapshots, v);
    struct cut_chunk *chunk = routing_chunk(v);
    put_chunk(chunk, slice_head(chunk->stored, chunk->stored.size - 1));
    point_at(v);
    refused_as(E_CHUNK_TAMPERED);
}

static void chunk_tampered(void **state)
{
    (void)state;
    struct version *v = next_version(NULL);
    publisher_put_version(&rig.snapshots, v);
    struct cut_chunk *chunk = routing_chunk(v);
    auto_buf struct buf bytes = BUF_MAX(CHUNK_RAW_MAX);
    assert_true(err_ok(buf_add(&bytes, chunk->stored)));
    bytes.ptr[bytes.size / 2] ^= 0x10;
    put_chunk(chunk, buf_slice(&bytes));
    point_at(v);
    refused_as(E_CHUNK_TAMPERED);
}

static void chunk_too_large(void **state)
{
    (void)state;
    struct version *v = next_version(NULL);
    publisher_put_version(&rig.snapshots, v);
    auto_free uint8_t *bytes = calloc(2, CHUNK_RAW_MAX);
    put_chunk(routing_chunk(v), slice_of(bytes, (size_t)2 * CHUNK_RAW_MAX));
    point_at(v);
    refused_as(E_CHUNK_TAMPERED);
}

static void chunks_swapped(void **state)
{
    (void)state;
    struct content *c = content_sample((uint16_t)(20000 + rig.version));
    content_put_bytes(c, STREAM_AUTHORISATION, "service/acme/web", SLICE_LIT("?"));
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    struct cut_chunk *routing = routing_chunk(v);
    struct cut_chunk *other = NULL;
    for (size_t i = 1; i < v->stream_count; i++) {
        other = v->streams[i].kind == STREAM_AUTHORISATION ? &v->streams[i].chunks[0] : other;
    }
    CHECK(other != NULL);
    put_chunk(routing, other->stored);
    put_chunk(other, routing->stored);
    point_at(v);
    refused_as(E_CHUNK_TAMPERED);
}

/* A chunk that is what was signed, by name and size, but unpacks to 64 MiB of zeros. */
static void chunk_bomb(void **state)
{
    (void)state;
    enum { BOMB_BYTES = 64 << 20 };
    struct content *c = content_sample((uint16_t)(20000 + rig.version));
    struct version *v = version_cut(c, ++rig.version);
    struct cut_chunk *chunk = routing_chunk(v);
    auto_free uint8_t *zeros = calloc(1, BOMB_BYTES);
    size_t room = ZSTD_compressBound(BOMB_BYTES);
    auto_free uint8_t *bomb = malloc(room);
    size_t size = ZSTD_compress(bomb, room, zeros, BOMB_BYTES, 19);
    CHECK(!ZSTD_isError(size));
    /* Smaller than what it declares, as a compressed chunk must be: the rest of the stream is
     * made larger until the bomb fits below it. */
    content_fill_policies(c, 10);
    CHECK(size < CHUNK_RAW_MAX);
    auto_free uint8_t *raw = calloc(1, CHUNK_RAW_MAX);
    chunk->raw = slice_of(raw, CHUNK_RAW_MAX);
    chunk->stored = slice_of(bomb, size);
    ids_digest_short(chunk->stored, chunk->digest);
    ids_digest(chunk->raw, chunk->raw_digest);
    v->streams[0].raw_size = CHUNK_RAW_MAX;
    cut_raw_digest(chunk->raw_digest, 1, v->streams[0].raw_digest);
    version_sign(&rig.publisher, v, 0, NULL);
    publisher_put_version(&rig.snapshots, v);
    content_free(c);
    point_at(v);
    refused_as(E_CHUNK_BOMB);
}

/* ---- parts ---- */

static void part_malformed(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    content_remove(c, STREAM_TRANSPORT, "default");
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_PART_MALFORMED);
}

static void part_unknown_field(void **state)
{
    (void)state;
    static const uint8_t unknown[] = {0x90, 0x03, 0x01}; /* field 50. */
    struct content *c = content_sample(1);
    content_put_bytes(c, STREAM_TRANSPORT, "other", slice_of(unknown, sizeof(unknown)));
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    publisher_put_version(&rig.snapshots, v);
    point_at(v);
    refused_as(E_CAPABILITY_MISSING);
}

/* ---- the bucket, and what is no refusal ---- */

static void bucket_purged_and_recreated(void **state)
{
    (void)state;
    rig_nats_kill(&rig);
    rig_nats_wipe(&rig);
    rig_nats_start(&rig);
    rig_buckets(&rig);
    assert_true(rig_ready(&rig));
    /* Somebody who kept a copy of the first head puts it into the empty bucket. */
    send_head((struct head_plan){.epoch = 1, .sequence = 1, .version = 1});
    refused_as(E_HEAD_REPLAYED);
}

static void a_new_root_is_walked_to(void **state)
{
    (void)state;
    auto_buf struct buf root = BUF_MAX((size_t)2 * ROOT_BODY_MAX);
    publisher_next_root(&rig.publisher, /* floor= */ NULL, &root);
    char key[SNAP_KEY_SIZE];
    snap_key_root(rig.publisher.root.version, key);
    publisher_put(&rig.snapshots, key, buf_slice(&root));
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
    struct rig_dump now;
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.root_version, rig.publisher.root.version);
}

/* So many roots behind the present one; all are over, but for the last one if it is 'good'. The
 * nearest is put last: a node finds all of them, or none. */
static void put_roots(struct publisher *p, size_t count, bool good)
{
    enum { ROOTS_MAX = 20 };
    struct buf roots[ROOTS_MAX] = {0};
    uint64_t first = p->root.version + 1;
    int64_t end_ms = p->root.not_after_ms;
    CHECK(count <= ROOTS_MAX);
    for (size_t i = 0; i < count; i++) {
        bool last = i + 1 == count;
        roots[i] = BUF_MAX((size_t)2 * ROOT_BODY_MAX);
        p->root.not_after_ms = last && good ? end_ms : clock_wall_ms() - 86400000;
        publisher_next_root(p, /* floor= */ NULL, &roots[i]);
    }
    for (size_t i = count; i-- > 0;) {
        char key[SNAP_KEY_SIZE];
        snap_key_root(first + i, key);
        publisher_put(&rig.snapshots, key, buf_slice(&roots[i]));
        buf_free(&roots[i]);
    }
}

/* More than fit into one walk. */
enum { MANY_ROOTS = 19 };

/* Of many roots that are all over none is taken. */
static void many_roots_that_are_over(void **state)
{
    (void)state;
    struct publisher late = rig.publisher;
    put_roots(&late, MANY_ROOTS - 1, /* good= */ false);
    send_head((struct head_plan){.sequence = rig.sequence + 1, .root_version = late.root.version});
    refused_as(E_ROOT_EXPIRED);
    struct rig_dump now;
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.root_version, before.root_version);
}

/* A node that was away for long: whatever is over on the way, the end is asked of the last. */
static void many_roots_are_walked_over(void **state)
{
    (void)state;
    put_roots(&rig.publisher, MANY_ROOTS, /* good= */ true);
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
    struct rig_dump now;
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.root_version, rig.publisher.root.version);
}

/* A new version by one way alone; the metric says which one it was. */
static void publish_by(enum rig_way way, const char *line)
{
    double heads = rig_metric(&rig, line);
    rig.way = way;
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
    rig.way = RIG_BOTH;
    assert_true(rig_metric(&rig, line) > heads);
}

static void a_hint_alone_moves_a_node(void **state)
{
    (void)state;
    publish_by(RIG_HINT, "trilane_heads_total{way=\"hint\"}");
}

/* It is let go before it waits for anybody: it costs no memory, and no word. */
static void a_hint_that_is_too_large_is_none(void **state)
{
    (void)state;
    static const uint8_t noise[HEAD_MAX + 1];
    rig.way = RIG_HINT;
    rig_head_bytes(&rig, slice_of(noise, sizeof(noise)));
    rig.way = RIG_BOTH;
    rig_publish(&rig); /* on the same connection, so its hint comes behind. */
    rig_wait_version(&rig, rig.version);
    struct rig_dump now = {0};
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.refusals, before.refusals);
}

static void a_poll_finds_what_no_hint_told(void **state)
{
    (void)state;
    publish_by(RIG_PUT, "trilane_heads_total{way=\"poll\"}");
}

static void wait_above(const char *line, double value)
{
    uint64_t until_ns = clock_mono_ns() + UINT64_C(60000000000);
    while (rig_metric(&rig, line) <= value) {
        assert_true(clock_mono_ns() < until_ns);
    }
}

/* Where NATS is slow, the answer to a poll overtakes a hint that was sent before: no alarm. */
static void a_hint_that_a_poll_overtook_is_no_replay(void **state)
{
    (void)state;
    const char *late = "trilane_heads_total{way=\"late\"}";
    double counted = rig_metric(&rig, late); /* below zero: there is no such line yet. */
    double polled = rig_metric(&rig, "trilane_heads_total{way=\"poll\"}");
    rig.way = RIG_PUT;
    uint64_t overtaken = ++rig.sequence;
    rig_heartbeat(&rig);
    wait_above("trilane_heads_total{way=\"poll\"}", polled);
    rig.way = RIG_HINT;
    send_head((struct head_plan){.sequence = overtaken});
    wait_above(late, counted);
    rig.way = RIG_BOTH;
    struct rig_dump now = {0};
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.refusals, before.refusals);
    assert_string_equal(now.code, "");
}

/* Where NATS is behind, a poll finds a head that was: that is said when it stays so, not before. */
static void a_bucket_that_is_behind_is_no_replay_at_once(void **state)
{
    (void)state;
    const char *late = "trilane_heads_total{way=\"late\"}";
    double counted = rig_metric(&rig, late);
    uint64_t start_ns = clock_mono_ns();
    rig.way = RIG_PUT;
    send_head((struct head_plan){.sequence = rig.sequence - 1});
    wait_above(late, counted);
    struct rig_dump now = {0};
    assert_true(rig_dump(&rig, &now));
    if (now.refusals == before.refusals) { /* else a slow machine looked late: see the time. */
        assert_string_equal(now.code, "");
    }
    rig_wait_refusal(&rig, "HEAD_REPLAYED", before.refusals);
    assert_true(clock_mono_ns() - start_ns >= UINT64_C(2000000000)); /* --stale-after-ms. */
    rig.way = RIG_BOTH;
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
    rig_wait_state(&rig, "GOOD");
}

#define CASE(name) cmocka_unit_test_setup(name, look)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(head_tampered),
        CASE(head_cut_off),
        CASE(head_is_noise),
        CASE(head_unknown_field),
        CASE(head_by_manifest_key),
        CASE(head_by_stranger),
        CASE(head_of_another_environment),
        CASE(head_replayed),
        CASE(head_equivocation),
        CASE(head_expired),
        CASE(head_of_the_future),
        CASE(epoch_jump),
        CASE(no_target),
        CASE(root_missing),
        CASE(root_is_noise),
        CASE(root_signature_tampered),
        CASE(root_expired),
        CASE(old_manifest_under_a_new_epoch),
        CASE(two_manifests_of_one_version),
        CASE(manifest_missing),
        CASE(manifest_tampered),
        CASE(manifest_signature_tampered),
        CASE(manifest_malformed),
        CASE(manifest_unknown_field),
        CASE(manifest_by_stranger),
        CASE(manifest_by_head_key),
        CASE(unknown_capability),
        CASE(unknown_stream),
        CASE(unknown_format),
        CASE(unknown_revocation),
        CASE(the_format_before_is_served),
        CASE(chunk_missing),
        CASE(chunk_truncated),
        CASE(chunk_tampered),
        CASE(chunk_too_large),
        CASE(chunks_swapped),
        CASE(chunk_bomb),
        CASE(part_malformed),
        CASE(part_unknown_field),
        CASE(bucket_purged_and_recreated),
        CASE(a_new_root_is_walked_to),
        CASE(many_roots_that_are_over),
        CASE(many_roots_are_walked_over),
        CASE(a_hint_alone_moves_a_node),
        CASE(a_hint_that_is_too_large_is_none),
        CASE(a_poll_finds_what_no_hint_told),
        CASE(a_hint_that_a_poll_overtook_is_no_replay),
        CASE(a_bucket_that_is_behind_is_no_replay_at_once),
    };
    return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
