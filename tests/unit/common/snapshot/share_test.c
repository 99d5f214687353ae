/* share: demand and shares come back as they were sealed, and only from who had to sign them. */
#include "common/snapshot/share.h"

#include <string.h>

#include "common/base/ids.h"
#include "common/snapshot/keys.h"

#include "tests/support/cmocka.h"

static uint8_t environment[ENVIRONMENT_SIZE];
static struct key_pair node_key;
static struct key_pair head_key;
static struct key_pair other_key;

static struct demand a_demand(void)
{
    struct demand d = {.node = "node-1",
                       .run = 7,
                       .at_ms = 1000,
                       .epoch = 3,
                       .sequence = 9,
                       .count = 2,
                       .of = {{5, 4000000, 250000}, {UINT64_MAX, 0, 0}}};
    return d;
}

static struct shares some_shares(void)
{
    struct shares s = {.epoch = 3,
                       .sequence = 10,
                       .node = "node-1",
                       .run = 7,
                       .at_ms = 1000,
                       .valid_ms = 3000,
                       .nodes = 2,
                       .count = 2,
                       .of = {{5, SHARE_WHOLE}, {6, 0}}};
    return s;
}

static void a_demand_is_its_nodes(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(64 << 10);
    struct demand d = a_demand();
    struct demand out;
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_OK);
    assert_int_equal(demand_open(buf_slice(&bytes), environment, &node_key.public, &out).code,
                     E_OK);
    assert_memory_equal(&out, &d, sizeof(d));
    assert_int_equal(demand_open(buf_slice(&bytes), environment, &other_key.public, &out).code,
                     E_UNAUTHENTICATED);
    struct key_public renamed = node_key.public;
    memcpy(renamed.name, "node-2", sizeof("node-2")); /* its key under another name. */
    assert_int_equal(demand_open(buf_slice(&bytes), environment, &renamed, &out).code,
                     E_UNAUTHENTICATED);
    uint8_t elsewhere[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT("elsewhere"), elsewhere);
    assert_int_equal(demand_open(buf_slice(&bytes), elsewhere, &node_key.public, &out).code,
                     E_MALFORMED);
    for (size_t i = 0; i < bytes.size; i++) {
        bytes.ptr[i] ^= 1;
        assert_false(err_ok(demand_open(buf_slice(&bytes), environment, &node_key.public, &out)));
        bytes.ptr[i] ^= 1;
        struct slice cut = slice_head(buf_slice(&bytes), i);
        assert_false(err_ok(demand_open(cut, environment, &node_key.public, &out)));
    }
}

static void what_cannot_be_said_is_not_sealed(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(64 << 10);
    struct demand d = a_demand();
    d.of[1].budget = 5; /* twice. */
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_USAGE);
    d = a_demand();
    d.of[0].share = SHARE_WHOLE + 1;
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_USAGE);
    d = a_demand();
    d.at_ms = 0;
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_USAGE);
    d = a_demand();
    d.sequence = 0; /* of an epoch. */
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_USAGE);
    d = a_demand();
    d.count = SHARE_BUDGETS_MAX + 1;
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_USAGE);
    struct shares s = some_shares();
    s.valid_ms = SHARE_VALID_MAX_MS + 1;
    assert_int_equal(shares_encode(&s, &bytes).code, E_USAGE);
    s = some_shares();
    s.nodes = 0;
    assert_int_equal(shares_encode(&s, &bytes).code, E_USAGE);
    s = some_shares();
    s.of[0].share = SHARE_WHOLE + 1;
    assert_int_equal(shares_encode(&s, &bytes).code, E_USAGE);
    assert_int_equal(bytes.size, 0);
}

static void as_many_as_there_may_be_fit(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(64 << 10);
    struct demand d = a_demand();
    struct shares s = some_shares();
    d.count = SHARE_BUDGETS_MAX;
    s.count = SHARE_BUDGETS_MAX;
    for (uint32_t i = 0; i < SHARE_BUDGETS_MAX; i++) {
        d.of[i] = (struct demand_of){UINT64_MAX - SHARE_BUDGETS_MAX + i, UINT32_MAX, SHARE_WHOLE};
        s.of[i] = (struct share_of){UINT64_MAX - SHARE_BUDGETS_MAX + i, SHARE_WHOLE};
    }
    assert_int_equal(demand_seal(&d, environment, &node_key, &bytes).code, E_OK);
    assert_int_equal(shares_encode(&s, &bytes).code, E_OK);
}

static void seal_shares(const struct shares *s, const struct key_pair *pair, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(SHARES_BODY_MAX);
    struct container_signature signature;
    assert_int_equal(shares_encode(s, &body).code, E_OK);
    assert_int_equal(
        container_sign(CONTAINER_SHARES, environment, buf_slice(&body), pair, &signature).code,
        E_OK);
    assert_int_equal(
        container_seal(CONTAINER_SHARES, environment, buf_slice(&body), &signature, 1, out).code,
        E_OK);
}

static void add_key(struct keyring *ring, enum key_role role, const struct key_pair *pair)
{
    struct ring_key *key = &ring->keys[ring->count++];
    *key = (struct ring_key){.role = role};
    key_id(pair->public.bytes, key->id);
    memcpy(key->public, pair->public.bytes, KEY_PUBLIC_SIZE);
    ring->thresholds[role] = 1;
}

static void shares_are_a_head_keys(void **state)
{
    (void)state;
    auto_buf struct buf bytes = BUF_MAX(64 << 10);
    auto_buf struct buf foreign = BUF_MAX(64 << 10);
    struct keyring ring = {.count = 0};
    add_key(&ring, KEY_ROLE_HEAD, &head_key);
    add_key(&ring, KEY_ROLE_MANIFEST, &other_key);
    struct shares s = some_shares();
    struct shares out;
    const struct ring_key *key = NULL;
    seal_shares(&s, &head_key, &bytes);
    assert_int_equal(shares_open(buf_slice(&bytes), environment, &ring, &out, &key).code, E_OK);
    assert_memory_equal(&out, &s, sizeof(s));
    assert_memory_equal(key->public, head_key.public.bytes, KEY_PUBLIC_SIZE);
    seal_shares(&s, &other_key, &foreign); /* a key of another role. */
    assert_int_equal(shares_open(buf_slice(&foreign), environment, &ring, &out, &key).code,
                     E_UNAUTHENTICATED);
    for (size_t i = 0; i < bytes.size; i++) {
        bytes.ptr[i] ^= 1;
        assert_false(err_ok(shares_open(buf_slice(&bytes), environment, &ring, &out, &key)));
        bytes.ptr[i] ^= 1;
    }
    struct demand d; /* shares are no demand, whoever signs. */
    assert_int_equal(demand_open(buf_slice(&bytes), environment, &head_key.public, &d).code,
                     E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_demand_is_its_nodes),
        cmocka_unit_test(what_cannot_be_said_is_not_sealed),
        cmocka_unit_test(as_many_as_there_may_be_fit),
        cmocka_unit_test(shares_are_a_head_keys),
    };
    ids_init();
    snap_environment(SLICE_LIT("test"), environment);
    if (!err_ok(key_pair_new(KEY_ROLE_NODE, SLICE_LIT("node-1"), &node_key)) ||
        !err_ok(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("head-1"), &head_key)) ||
        !err_ok(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("other"), &other_key))) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
