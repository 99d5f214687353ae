/*
 * Proves that a commit without an answer is neither lost nor done twice: the connection to a real
 * PostgreSQL is cut before it, behind it, or falls silent, and each operation is asked for its
 * work.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "controlplane/store/store.h"

#include "tests/integration/store/cutter.h"
#include "tests/support/cmocka.h"
#include "tests/support/postgres_server.h"

enum { PATIENT_MS = 30000, SILENCE_MS = 5000 }; /* the second where it is waited for. */

static struct postgres_server server;
static struct cutter cutter;
static struct cp_store *store; /* through the cutter. */
static struct cp_store *other; /* past it. */
static struct cp_fence fence;
static int schema_number;

#define must(call) assert_string_equal(err_name((call).code), "OK")
#define must_fail(call, expected) assert_string_equal(err_name((call).code), err_name(expected))

static struct cp_store *open_store(uint16_t port)
{
    char url[512];
    struct cp_store *opened = NULL;
    struct buf message = BUF_MAX(1024);
    (void)snprintf(url, sizeof(url),
                   "postgresql://trilane:%s@127.0.0.1:%u/postgres?options=-csearch_path%%3Dcase_%d",
                   server.password, port, schema_number);
    must(cp_store_open(url, &opened, &message));
    buf_free(&message);
    return opened;
}

static int set_up(void **state)
{
    (void)state;
    limits.store_timeout_ms = PATIENT_MS;
    char text[64];
    (void)snprintf(text, sizeof(text), "CREATE SCHEMA case_%d", ++schema_number);
    postgres_server_sql(server.url, text);
    cutter_start(&cutter, server.port);
    store = open_store(cutter.port);
    other = open_store(server.port);
    struct cp_lease_wish wish = {
        .environment = "dev", .holder = {1}, .name = "cp-0", .lease_ms = 60000};
    struct cp_lease lease = {0};
    must(store->ops->lease_take(store, &wish, &lease));
    fence = (struct cp_fence){.environment = "dev", .holder = {1}, .epoch = lease.epoch};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cp_store_close(store);
    cp_store_close(other);
    cutter_stop(&cutter);
    return 0;
}

static void cut(enum cut how)
{
    atomic_store(&cutter.next, (int)how);
}

static void check_was_cut(void)
{
    assert_int_equal(atomic_load(&cutter.next), CUT_NOTHING);
}

static struct cp_publication publication_of(uint64_t version)
{
    static struct cp_store_chunk chunk = {.raw_digest = {7}, .stored = SLICE_INIT("chunk")};
    struct cp_publication p = {.record = {.version = version, .request = "build-1"},
                               .manifest = SLICE_LIT("manifest"),
                               .chunks = &chunk,
                               .chunk_count = 1};
    (void)snprintf(p.record.request, sizeof(p.record.request), "build-%d", (int)version);
    p.record.manifest_digest[0] = (uint8_t)version;
    return p;
}

/* Whatever happens at the commit of any operation, it ends as if nothing had. */
static void every_operation_ends_well(enum cut how)
{
    const struct cp_store_ops *ops = store->ops;
    struct cp_lease lease = {0};
    struct cp_lease_wish wish = {
        .environment = "dev", .holder = {1}, .name = "cp-0", .lease_ms = 60000};
    cut(how);
    must(ops->lease_take(store, &wish, &lease));
    assert_int_equal(lease.epoch, 1);
    uint64_t version = 0;
    cut(how);
    must(ops->version_hand(store, &fence, &version));
    assert_int_equal(version, how == CUT_BEFORE ? 1 : 2); /* another number, when one was lost. */
    cut(how);
    must(ops->version_raise(store, &fence, 5));
    must(ops->version_hand(store, &fence, &version));
    assert_int_equal(version, 6);
    struct cp_store_file file = {.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("a")};
    cut(how);
    must(ops->sources_put(store, &fence, version, &file, 1));
    cut(how);
    must(ops->proposal_put(store, &fence, &(struct cp_proposal){.version = version},
                           SLICE_LIT("body")));
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("body"), digest);
    struct cp_cosignature cosignature = {.code = E_OK};
    cut(how);
    must(ops->cosign_put(store, "dev", version, digest, &cosignature));
    struct cp_publication p = publication_of(version);
    cut(how);
    must(ops->publish(store, &fence, &p));
    check_was_cut();
    cut(how);
    must(ops->root_put(store, "dev", 1, SLICE_LIT("root")));
    struct cp_join_token token = {
        .digest = {1}, .node = "node-1", .expires_ms = clock_wall_ms() + 60000};
    cut(how);
    must(ops->token_put(store, "dev", &token));
    struct cp_node node = {.id = "node-1", .certificate = {1}, .certificate_size = 1};
    cut(how);
    must(ops->node_enrol(store, "dev", token.digest, &node));
    (void)snprintf(node.serial, sizeof(node.serial), "0a");
    node.not_after_ms = 1;
    cut(how);
    must(ops->node_renew(store, "dev", &node));
    cut(how);
    must(ops->node_remove(store, "dev", "node-1"));
    const struct cp_certificate certificate = {.serial = "0a"};
    cut(how);
    must(ops->certificate_remove(store, "dev", &certificate));
    struct cp_audit line = {.actor = "ada"};
    cut(how);
    must(ops->audit_add(store, "dev", &line));
    cut(how);
    must(ops->lease_drop(store, &fence));
    check_was_cut();
}

/* All of it is there, once, for whoever looks past the cutter. */
static void check_all_there(void)
{
    const struct cp_store_ops *ops = other->ops;
    struct cp_record records[3];
    struct cp_audit lines[3];
    size_t count = 0;
    must(ops->history(other, "dev", 0, records, 3, &count));
    assert_int_equal(count, 1);
    assert_int_equal(records[0].version, 6);
    must(ops->audit_list(other, "dev", lines, 3, &count));
    assert_int_equal(count, 1);
    struct cp_node node;
    must(ops->node_get(other, "dev", "node-1", &node));
    assert_int_equal(node.state, CP_NODE_REMOVED);
    assert_string_equal(node.serial, "0a");
    struct cp_lease lease;
    must(ops->lease_read(other, "dev", &lease));
    assert_int_equal(lease.expires_ms, 0);
}

static void a_commit_that_never_arrived_is_done_again(void **state)
{
    (void)state;
    every_operation_ends_well(CUT_BEFORE);
    check_all_there();
}

static void a_commit_that_nobody_heard_of_is_found(void **state)
{
    (void)state;
    every_operation_ends_well(CUT_AFTER);
    check_all_there();
}

static void a_commit_that_fell_silent_is_found(void **state)
{
    (void)state;
    uint64_t version = 0;
    must(store->ops->version_hand(store, &fence, &version));
    struct cp_publication p = publication_of(version);
    limits.store_timeout_ms = SILENCE_MS;
    uint64_t start_ns = clock_mono_ns();
    cut(CUT_SILENT);
    must(store->ops->publish(store, &fence, &p));
    check_was_cut();
    assert_true(clock_mono_ns() - start_ns < UINT64_C(3000000) * SILENCE_MS);
}

/* A publication that somebody else made under the number is not taken for ours. */
static void anothers_work_is_not_ours(void **state)
{
    (void)state;
    uint64_t version = 0;
    must(store->ops->version_hand(store, &fence, &version));
    struct cp_publication p = publication_of(version);
    must(other->ops->publish(other, &fence, &p));
    p.record.manifest_digest[0] ^= 1;
    must_fail(store->ops->publish(store, &fence, &p), E_CONFLICT);
    struct cp_store_file file = {.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("a")};
    must(other->ops->sources_put(other, &fence, version, &file, 1));
    must_fail(store->ops->sources_put(store, &fence, version, &file, 1), E_CONFLICT);
}

static void what_cannot_be_found_out_is_said(void **state)
{
    (void)state;
    uint64_t version = 0;
    must(store->ops->version_hand(store, &fence, &version));
    struct cp_publication p = publication_of(version);
    cut(CUT_AFTER_ALL);
    must_fail(store->ops->publish(store, &fence, &p), E_RESULT_UNKNOWN);
    struct cp_record record;
    must_fail(store->ops->latest(store, "dev", &record), E_UNAVAILABLE);
    must(other->ops->latest(other, "dev", &record)); /* it was. */
    assert_int_equal(record.version, version);
    atomic_store(&cutter.closed, false);
    must(store->ops->latest(store, "dev", &record)); /* the next operation connects. */
    assert_int_equal(record.version, version);
}

/* The row was lost between the commit and the question what became of it. */
static void a_lost_row_does_not_hide_what_was_published(void **state)
{
    (void)state;
    uint64_t version = 0;
    must(store->ops->version_hand(store, &fence, &version));
    struct cp_publication p = publication_of(version);
    char text[128];
    /* A trigger that takes the row away right behind the publication, in the same commit. */
    (void)snprintf(text, sizeof(text), "SET search_path = case_%d; CREATE FUNCTION lose()",
                   schema_number);
    char whole[512];
    (void)snprintf(whole, sizeof(whole),
                   "%s RETURNS trigger LANGUAGE plpgsql AS"
                   " $$ BEGIN UPDATE leader SET epoch = 9; RETURN NULL; END $$;"
                   "CREATE CONSTRAINT TRIGGER lose AFTER INSERT ON journal"
                   " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lose()",
                   text);
    postgres_server_sql(server.url, whole);
    cut(CUT_AFTER);
    must(store->ops->publish(store, &fence, &p));
    check_was_cut();
    must_fail(store->ops->version_hand(store, &fence, &version), E_NOT_LEADER);
}

int main(void)
{
    ids_init();
    log_level_set(LOG_ERROR);
    postgres_server_init(&server);
    postgres_server_start(&server);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_commit_that_never_arrived_is_done_again),
        T(a_commit_that_nobody_heard_of_is_found),
        T(a_commit_that_fell_silent_is_found),
        T(anothers_work_is_not_ours),
        T(what_cannot_be_found_out_is_said),
        T(a_lost_row_does_not_hide_what_was_published),
    };
    int failed = cmocka_run_group_tests_name("store.commit", tests, NULL, NULL);
    postgres_server_free(&server);
    return failed;
}
