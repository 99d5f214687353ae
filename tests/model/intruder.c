/* intruder: see intruder.h. */
#include "tests/model/intruder.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/snapshot/head.h"
#include "common/snapshot/manifest.h"

#include "tests/model/database.h"
#include "tests/model/ledger.h"
#include "tests/model/world.h"

enum { BYTES_MAX = 1 << 20, JUNK_MAX = 300, NEAR = 2 };

static struct {
    bool has_head_key;
    bool has_manifest_key;
    bool goes_far; /* may lead nodes to epochs that no leader goes to by itself. */
    bool went_far;
    struct key_pair head_key;
    struct key_pair manifest_key;
} intruder;

void intruder_begin(void)
{
    uint64_t how_much = sim_random(10);
    memset(&intruder, 0, sizeof(intruder));
    intruder.has_head_key = how_much >= 7;
    intruder.has_manifest_key = how_much >= 8;
    intruder.goes_far = sim_chance(500);
    intruder.head_key = world.replicas[INTRUDER_VICTIM].head_key;
    intruder.manifest_key = world.replicas[INTRUDER_VICTIM].manifest_key;
}

bool intruder_has_key(void)
{
    return intruder.has_head_key;
}

static void must(struct err e)
{
    if (!err_ok(e)) {
        sim_fail("the intruder: %s at %s", err_name(e.code), e.where);
    }
}

bool intruder_went_far(void)
{
    return intruder.went_far;
}

/* To the bucket, as a hint, or both. */
static void put_head(struct slice bytes, uint64_t how)
{
    if (how % 3 != 0) {
        nats_put(WORLD_SNAPSHOTS, SLICE_LIT(SNAP_KEY_HEAD), bytes);
    }
    if (how % 3 != 1) {
        nats_send(SLICE_LIT(WORLD_HINTS), bytes);
    }
}

/* ---- without a key ---- */

static void send_junk(uint64_t size)
{
    uint8_t junk[JUNK_MAX];
    sim_fill(junk, sizeof(junk));
    put_head(slice_of(junk, size % JUNK_MAX), size / JUNK_MAX);
}

static void replay_head(uint64_t size)
{
    struct slice key;
    struct slice value;
    if (nats_any_of(WORLD_SNAPSHOTS, SNAP_KEY_HEAD, &key, &value)) {
        put_head(value, size);
    }
}

/* Another version's object under the name of one. */
static void swap_objects(uint64_t size)
{
    static const char *const prefixes[] = {"manifest.", "chunk.", "root."};
    const char *prefix = prefixes[size % 3];
    struct slice key;
    struct slice other;
    struct slice value;
    if (nats_any_of(WORLD_SNAPSHOTS, prefix, &key, &value) &&
        nats_any_of(WORLD_SNAPSHOTS, prefix, &other, &value)) {
        nats_put(WORLD_SNAPSHOTS, key, value);
    }
}

static void tamper(uint64_t size)
{
    static const char *const prefixes[] = {"head", "manifest.", "chunk.", "root."};
    struct slice key;
    struct slice value;
    uint8_t *copy = malloc(BYTES_MAX);
    CHECK(copy != NULL);
    if (nats_any_of(WORLD_SNAPSHOTS, prefixes[size % 4], &key, &value) && value.size > 0) {
        memcpy(copy, value.ptr, value.size);
        copy[size / 4 % value.size] ^= (uint8_t)(1U << (size / 4096 % 8));
        nats_put(WORLD_SNAPSHOTS, key, slice_of(copy, value.size));
    }
    free(copy);
}

/* What a node said before, under its name or another one's. */
static void replay_status(uint64_t size)
{
    struct slice key;
    struct slice value;
    if (nats_any_of(WORLD_NODES, "dp-", &key, &value)) {
        struct slice under = size % 2 == 0 ? key : slice_str(world.nodes[size / 2 % NODES].name);
        nats_put(WORLD_NODES, under, value);
    }
}

/* ---- with a head key ---- */

/* Where the world is, as anybody who reads along can see. */
static void read_head(uint64_t *out_epoch, uint64_t *out_sequence)
{
    struct slice value;
    struct container c;
    auto_head struct head head = {0};
    *out_epoch = 1;
    *out_sequence = 1;
    if (nats_get(WORLD_SNAPSHOTS, SLICE_LIT(SNAP_KEY_HEAD), &value) &&
        err_ok(container_read(value, CONTAINER_HEAD, NULL, &c)) &&
        err_ok(head_decode(c.body, &head))) {
        *out_epoch = head.epoch;
        *out_sequence = head.sequence;
    }
}

/* Any manifest that ever lay in the bucket. */
static void point_somewhere(struct head_target *target)
{
    struct slice key;
    struct slice value;
    struct container c;
    auto_manifest struct manifest m = {0};
    target->all = true;
    target->version = ledger_newest() + 1 + sim_random(1000);
    sim_fill(target->manifest_digest, DIGEST_SIZE);
    if (sim_chance(700) && nats_any_of(WORLD_SNAPSHOTS, "manifest.", &key, &value) &&
        err_ok(container_read(value, CONTAINER_MANIFEST, NULL, &c)) &&
        err_ok(manifest_decode(c.body, &m))) {
        target->version = m.version;
        memcpy(target->manifest_digest, m.digest, DIGEST_SIZE);
    }
}

static void seal_head(const struct head *head, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    struct container_signature signature;
    must(head_encode(head, &body));
    must(container_sign(CONTAINER_HEAD, world.root.environment_id, buf_slice(&body),
                        &intruder.head_key, &signature));
    must(container_seal(CONTAINER_HEAD, world.root.environment_id, buf_slice(&body), &signature, 1,
                        out));
}

static void forge_head(uint64_t size, const struct head_target *target)
{
    static const uint64_t epochs[] = {0, 0, 1, 2, 17, 1000, HEAD_EPOCH_JUMP, HEAD_EPOCH_JUMP + 1};
    static const uint64_t sequences[] = {0, 1, 3, 1000, UINT64_C(1) << 62};
    struct head head = {.root_version = world.root.version + (size % 16 == 0 ? 1 : 0),
                        .signed_at_ms = sim_wall_ms(&database_clock),
                        .target_count = size / 16 % 16 == 0 ? 0 : 1};
    read_head(&head.epoch, &head.sequence);
    uint64_t further = epochs[size / 256 % (intruder.goes_far ? 8 : 4)];
    head.epoch += further;
    intruder.went_far = intruder.went_far || further > NEAR;
    head.sequence += sequences[size / 2048 % 5];
    head.expires_at_ms = head.signed_at_ms + 1 + (int64_t)(size / 10240 % HEAD_VALIDITY_MAX_MS);
    head.targets[0] = *target;
    auto_buf struct buf bytes = BUF_MAX(BYTES_MAX);
    seal_head(&head, &bytes);
    put_head(buf_slice(&bytes), size / 7);
}

static void point_head(uint64_t size)
{
    struct head_target target = {0};
    point_somewhere(&target);
    forge_head(size, &target);
}

/* ---- with a manifest key ---- */

/* The newest version's manifest under another number, signed by one where two are asked for: its
 * own signature alone, or beside one that is another manifest's. */
static void forge_manifest(uint64_t size)
{
    struct slice key;
    struct slice value;
    struct container c;
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    auto_buf struct buf bytes = BUF_MAX(BYTES_MAX);
    if (!nats_any_of(WORLD_SNAPSHOTS, "manifest.", &key, &value) ||
        !err_ok(container_read(value, CONTAINER_MANIFEST, NULL, &c)) || c.signature_count == 0) {
        return;
    }
    uint64_t version = ledger_newest() + 1 + size % 3;
    if (version >= 128) {
        return; /* its number would take more bytes than the one that is replaced. */
    }
    must(buf_add(&body, c.body));
    body.ptr[1] = (uint8_t)version; /* field 1 comes first. */
    struct container_signature signatures[2];
    must(container_sign(CONTAINER_MANIFEST, world.root.environment_id, buf_slice(&body),
                        &intruder.manifest_key, &signatures[0]));
    memcpy(&signatures[1], c.signatures.ptr, sizeof(signatures[1]));
    bool doubled = memcmp(signatures[0].key_id, signatures[1].key_id, KEY_ID_SIZE) == 0;
    must(container_seal(CONTAINER_MANIFEST, world.root.environment_id, buf_slice(&body), signatures,
                        doubled ? 1 : 2, &bytes));
    struct head_target target = {.all = true, .version = version};
    char name[SNAP_KEY_SIZE];
    ids_digest(buf_slice(&body), target.manifest_digest);
    snap_key_manifest(version, target.manifest_digest, name);
    nats_put(WORLD_SNAPSHOTS, slice_str(name), buf_slice(&bytes));
    forge_head(size | 16 * 1, &target);
}

void intruder_strike(uint64_t size)
{
    uint64_t what = size % 8;
    size /= 8;
    if (what >= 4 && intruder.has_manifest_key && size % 2 == 0) {
        forge_manifest(size / 2);
    } else if (what >= 4 && intruder.has_head_key) {
        point_head(size / 2);
    } else if (what % 5 == 0) {
        send_junk(size);
    } else if (what % 5 == 1) {
        replay_head(size);
    } else if (what % 5 == 2) {
        swap_objects(size);
    } else if (what % 5 == 3) {
        tamper(size);
    } else {
        replay_status(size);
    }
}
