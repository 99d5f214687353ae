/*
 * Fuzzes: container_read, root_open, status_open, head_decode, manifest_decode, judge_head.
 * Property: nothing unsigned passes; a head that decodes encodes to the same bytes.
 *
 * The first byte chooses: 0 a whole container for each reader, 1 the body of a head, 2 the body of
 * a manifest, 3 the body of a root, sealed by nobody. Bodies are given by themselves, since no
 * fuzzer finds a signature.
 */
#include "common/snapshot/container.h"

#include <stddef.h>
#include <stdint.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/snapshot/head.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "common/snapshot/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A keyring of no keys: whatever comes, no signature holds. */
static void fuzz_container(struct slice bytes)
{
    static const struct key_public key = {.role = KEY_ROLE_NODE, .name = "node"};
    struct judge j = {.root = {.version = 1}};
    const struct judge_now now = {.wall_ms = 1, .root_asked = true};
    struct container c;
    struct judged judged;
    struct status status;
    for (unsigned kind = CONTAINER_ROOT; kind < CONTAINER_KIND_COUNT; kind++) {
        struct err e = container_read(bytes, (enum container_kind)kind, NULL, &c);
        CHECK(!err_ok(e) || c.body.ptr + c.body.size == bytes.ptr + bytes.size);
        if (err_ok(e)) {
            memcpy(j.root.environment_id, c.environment, ENVIRONMENT_SIZE);
        }
    }
    for (size_t role = 0; role < ROOT_ROLE_COUNT; role++) {
        j.root.ring.thresholds[role] = 1;
    }
    judge_head(&j, bytes, &now, &judged);
    CHECK(judged.verdict == JUDGE_REFUSED);
    struct err e = status_open(bytes, j.root.environment_id, &key, &status);
    CHECK(!err_ok(e));
    const struct manifest_wanted wanted = {0};
    struct manifest m;
    e = manifest_open(bytes, &j.root, &wanted, &m);
    CHECK(!err_ok(e));
    struct root root;
    e = root_open(bytes, &root); /* may hold: a root of the corpus is signed. */
    CHECK(!err_ok(e) || root.version > 0);
}

static void fuzz_head(struct slice body)
{
    auto_head struct head h = {0};
    auto_buf struct buf again = BUF_MAX(HEAD_BODY_MAX);
    if (err_ok(head_decode(body, &h)) && err_ok(head_encode(&h, &again))) {
        /* A field from 100 on is passed over and so is not written again. */
        CHECK(again.size <= body.size);
        CHECK(again.size < body.size || slice_eq(buf_slice(&again), body));
    }
}

static void fuzz_manifest(struct slice body)
{
    auto_manifest struct manifest m = {0};
    if (err_ok(manifest_decode(body, &m))) {
        CHECK(m.version > 0 && m.stream_count <= STREAMS_MAX);
    }
}

static void fuzz_root(struct slice body)
{
    static const uint8_t environment[ENVIRONMENT_SIZE];
    auto_buf struct buf sealed = BUF_MAX(ROOT_BODY_MAX + CONTAINER_HEADER_SIZE);
    struct root r;
    if (err_ok(container_seal(CONTAINER_ROOT, environment, body, NULL, 0, &sealed))) {
        struct err e = root_open(buf_slice(&sealed), &r);
        CHECK(!err_ok(e));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(struct slice) = {fuzz_container, fuzz_head, fuzz_manifest,
                                                    fuzz_root};
    ids_init();
    if (size > 0) {
        targets[data[0] % 4](slice_of(data + 1, size - 1));
    }
    return 0;
}
