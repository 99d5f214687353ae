/* Shows that a node takes what is pushed beside a hint in place of reading the bucket, that it
 * believes no push more than the bucket, and that it goes on without any. */
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/bus/subject.h"
#include "common/snapshot/bundle.h"
#include "dataplane/apply/feed.h"

#include "tests/faults/node/rig.h"
#include "tests/support/cmocka.h"

static struct rig rig;

/* What the node said before. */
static struct rig_dump before;

static int set_up_all(void **state)
{
    (void)state;
    rig_start(&rig);
    rig_publish(&rig);
    rig_node_start(&rig, NULL);
    rig_wait_version(&rig, 1);
    rig_wait_state(&rig, "GOOD");
    return 0;
}

static int tear_down_all(void **state)
{
    (void)state;
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

/* ---- what is pushed ---- */

struct push {
    struct bundle_value values[BUNDLE_VALUES_MAX];
    char keys[BUNDLE_VALUES_MAX][SNAP_KEY_SIZE];
    size_t count;
};

static void add(struct push *p, const char *key, struct slice value)
{
    CHECK(p->count < BUNDLE_VALUES_MAX);
    (void)snprintf(p->keys[p->count], SNAP_KEY_SIZE, "%s", key);
    p->values[p->count] = (struct bundle_value){slice_str(p->keys[p->count]), value};
    p->count++;
}

static void add_manifest(struct push *p, const struct version *v)
{
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(v->number, v->digest, key);
    add(p, key, buf_slice(&v->manifest));
}

static void add_chunks(struct push *p, const struct version *v)
{
    char key[SNAP_KEY_SIZE];
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            snap_key_chunk(v->streams[i].chunks[k].digest, key);
            add(p, key, v->streams[i].chunks[k].stored);
        }
    }
}

static void send_bytes(struct slice bytes)
{
    struct subject subject;
    assert_int_equal(subject_content(SLICE_LIT(PUBLISHER_ENVIRONMENT), &subject).code, E_OK);
    struct bus_outgoing message = {.subject = subject_slice(&subject), .payload = bytes};
    assert_int_equal(bus_publish(rig.bus, &message).code, E_OK);
}

static void bytes_of(const struct push *p, struct buf *out)
{
    *out = BUF_MAX(1 << 20);
    assert_int_equal(bundle_write(p->values, p->count, out).code, E_OK);
}

static void send_push(const struct push *p)
{
    auto_buf struct buf bytes;
    bytes_of(p, &bytes);
    send_bytes(buf_slice(&bytes));
}

/* The next version, of a content that was not published before; it lies in no bucket. */
static struct version *next_version(void)
{
    struct content *c = content_sample((uint16_t)(20000 + rig.version));
    struct version *v = version_new(&rig.publisher, c, ++rig.version, NULL);
    content_free(c);
    return v;
}

static void point_at(const struct version *v)
{
    struct head_plan plan = {.version = v->number, .digest = v->digest};
    rig_head(&rig, &plan);
}

static void served_without_a_refusal(uint64_t version)
{
    struct rig_dump now;
    rig_wait_version(&rig, version);
    assert_true(rig_dump(&rig, &now));
    assert_int_equal(now.refusals, before.refusals);
}

/* ---- pushes that help ---- */

static void a_push_is_enough(void **state)
{
    (void)state;
    struct version *v = next_version();
    struct push p = {0};
    add_manifest(&p, v);
    add_chunks(&p, v);
    send_push(&p);
    point_at(v);
    served_without_a_refusal(v->number);
    version_free(v);
}

static void what_a_push_lacks_is_read(void **state)
{
    (void)state;
    struct version *v = next_version();
    struct push p = {0};
    publisher_put_version(&rig.snapshots, v);
    add_manifest(&p, v);
    send_push(&p);
    point_at(v);
    served_without_a_refusal(v->number);
    version_free(v);
    v = next_version();
    p.count = 0;
    publisher_put_version(&rig.snapshots, v);
    add_chunks(&p, v);
    send_push(&p);
    point_at(v);
    served_without_a_refusal(v->number);
    version_free(v);
}

static void pushes_may_come_before_the_hint_of_an_older_one(void **state)
{
    (void)state;
    struct version *versions[FEED_PUSHES];
    for (size_t i = 0; i < FEED_PUSHES; i++) {
        struct push p = {0};
        versions[i] = next_version();
        add_manifest(&p, versions[i]);
        add_chunks(&p, versions[i]);
        send_push(&p);
    }
    for (size_t i = 0; i < FEED_PUSHES; i++) {
        point_at(versions[i]);
        served_without_a_refusal(versions[i]->number);
        version_free(versions[i]);
    }
}

/* ---- pushes that are none ---- */

static void a_push_without_a_head_moves_nobody(void **state)
{
    (void)state;
    struct version *v = next_version();
    struct push p = {0};
    add_manifest(&p, v);
    add_chunks(&p, v);
    send_push(&p);
    rig.version--; /* nobody publishes it. */
    rig_publish(&rig);
    served_without_a_refusal(v->number);
    version_free(v);
}

/* Sends what 'spoil' makes of a whole push, with a version that lies in the bucket. */
static void harmless(void (*spoil)(struct push *p, const struct version *v))
{
    struct version *v = next_version();
    struct push p = {0};
    publisher_put_version(&rig.snapshots, v);
    add_manifest(&p, v);
    add_chunks(&p, v);
    spoil(&p, v);
    point_at(v);
    served_without_a_refusal(v->number);
    version_free(v);
}

static void noise(struct push *p, const struct version *v)
{
    (void)p;
    (void)v;
    send_bytes(SLICE_LIT("no bundle"));
    send_bytes((struct slice){0});
}

static void cut_off(struct push *p, const struct version *v)
{
    auto_buf struct buf bytes;
    (void)v;
    bytes_of(p, &bytes);
    send_bytes(slice_head(buf_slice(&bytes), bytes.size - 1));
}

/* Its first value is a whole one, but there is more than a node keeps. */
static void too_large(struct push *p, const struct version *v)
{
    auto_buf struct buf filler = BUF_MAX(1 << 20);
    (void)v;
    for (size_t i = 0; i < limits.content_push_bytes; i++) {
        assert_int_equal(buf_add(&filler, SLICE_LIT("x")).code, E_OK);
    }
    add(p, "filler", buf_slice(&filler));
    send_push(p);
}

static void other_bytes(struct push *p, const struct version *v)
{
    (void)v;
    for (size_t i = 0; i < p->count; i++) {
        p->values[i].value = SLICE_LIT("other bytes");
    }
    send_push(p);
}

/* Every value is somebody's, under another's key. */
static void spliced(struct push *p, const struct version *v)
{
    (void)v;
    struct slice first = p->values[0].value;
    for (size_t i = 0; i + 1 < p->count; i++) {
        p->values[i].value = p->values[i + 1].value;
    }
    p->values[p->count - 1].value = first;
    send_push(p);
}

/* The body that the head names, signed by nobody who may. */
static void signed_by_a_stranger(struct push *p, const struct version *v)
{
    struct buf container = BUF_MAX(1 << 20);
    assert_int_equal(buf_add(&container, buf_slice(&v->manifest)).code, E_OK);
    container.ptr[CONTAINER_HEADER_SIZE + KEY_ID_SIZE] ^= 1;
    p->values[0].value = buf_slice(&container);
    send_push(p);
    buf_free(&container);
}

static void a_wrong_push_is_as_if_there_were_none(void **state)
{
    (void)state;
    harmless(noise);
    harmless(cut_off);
    harmless(too_large);
    harmless(other_bytes);
    harmless(spliced);
    harmless(signed_by_a_stranger);
}

static void the_refusal_is_the_bucket_s(void **state)
{
    (void)state;
    struct version *v = next_version();
    struct push p = {0};
    add_manifest(&p, v);
    add_chunks(&p, v);
    other_bytes(&p, v);
    point_at(v);
    rig_wait_refusal(&rig, "MANIFEST_MISSING", before.refusals);
    version_free(v);
    rig_publish(&rig);
    rig_wait_version(&rig, rig.version);
}

#define CASE(name) cmocka_unit_test_setup(name, look)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_push_is_enough),
        CASE(what_a_push_lacks_is_read),
        CASE(pushes_may_come_before_the_hint_of_an_older_one),
        CASE(a_push_without_a_head_moves_nobody),
        CASE(a_wrong_push_is_as_if_there_were_none),
        CASE(the_refusal_is_the_bucket_s),
    };
    return cmocka_run_group_tests_name("faults.node.pushes", tests, set_up_all, tear_down_all);
}
