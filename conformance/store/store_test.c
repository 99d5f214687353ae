/*
 * Proves that an implementation of cp_store does what store.h says: one leader at a time, numbers
 * that never come twice, a journal whose row is the publication, all or nothing.
 *
 *     conformance.store [URL-PREFIX]     default: sqlite:<fresh directory>/
 *
 * Each test opens a database of its own: URL-PREFIX and the test's number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "controlplane/store/store.h"

static char url_prefix[256];
static int database_number;

struct fixture {
    char url[300];
    struct cp_store *store;
    struct cp_fence fence;
};

static void must(struct err e)
{
    if (!err_ok(e)) {
        print_error("%s at %s\n", err_name(e.code), e.where);
    }
    assert_int_equal(e.code, E_OK);
}

static void open_again(struct fixture *f, struct cp_store **out)
{
    struct buf message = BUF_MAX(1024);
    must(cp_store_open(f->url, out, &message));
    buf_free(&message);
}

static struct cp_lease_wish wish_of(uint8_t holder, uint64_t lease_ms)
{
    struct cp_lease_wish wish = {.environment = "dev", .name = "replica", .lease_ms = lease_ms};
    (void)memset(wish.holder, holder, sizeof(wish.holder));
    return wish;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    CHECK(f != NULL);
    (void)snprintf(f->url, sizeof(f->url), "%s%d", url_prefix, database_number++);
    open_again(f, &f->store);
    struct cp_lease_wish wish = wish_of(1, 60000);
    struct cp_lease lease = {0};
    must(f->store->ops->lease_take(f->store, &wish, &lease));
    assert_true(lease.held);
    f->fence = (struct cp_fence){.environment = "dev", .epoch = lease.epoch};
    (void)memcpy(f->fence.holder, wish.holder, sizeof(wish.holder));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    cp_store_close(f->store);
    free(f);
    return 0;
}

static uint64_t hand(struct fixture *f)
{
    uint64_t version = 0;
    must(f->store->ops->version_hand(f->store, &f->fence, &version));
    return version;
}

static struct cp_store_chunk chunk_of(const char *text)
{
    struct cp_store_chunk chunk = {.raw_size = strlen(text), .stored = slice_str(text)};
    ids_digest(slice_str(text), chunk.raw_digest);
    ids_digest_short(slice_str(text), chunk.stored_digest);
    return chunk;
}

static struct cp_publication publication_of(uint64_t version, const struct cp_store_chunk *chunks,
                                            size_t count)
{
    struct cp_publication p = {.manifest = SLICE_LIT("manifest bytes"),
                               .chunks = chunks,
                               .chunk_count = count,
                               .record = {.version = version, .epoch = 1, .raw_size = 9}};
    (void)snprintf(p.record.author, sizeof(p.record.author), "ada");
    (void)snprintf(p.record.message, sizeof(p.record.message), "version %d", (int)version);
    (void)memset(p.record.manifest_digest, (int)version, DIGEST_SIZE);
    (void)memset(p.record.content_digest, 7, DIGEST_SIZE);
    return p;
}

static uint64_t publish(struct fixture *f, const struct cp_store_chunk *chunks, size_t count)
{
    uint64_t version = hand(f);
    struct cp_publication p = publication_of(version, chunks, count);
    must(f->store->ops->publish(f->store, &f->fence, &p));
    return version;
}

/* ---- leadership ---- */

static void first_leader_has_epoch_one(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->fence.epoch, 1);
    struct cp_lease lease = {0};
    must(f->store->ops->lease_read(f->store, "dev", &lease));
    assert_string_equal(lease.name, "replica");
    assert_true(lease.expires_ms > lease.now_ms);
    assert_int_equal(f->store->ops->lease_read(f->store, "prod", &lease).code, E_NOT_FOUND);
}

static void renewing_keeps_the_epoch(void **state)
{
    struct fixture *f = *state;
    struct cp_lease_wish wish = wish_of(1, 60000);
    struct cp_lease lease = {0};
    must(f->store->ops->lease_take(f->store, &wish, &lease));
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 1);
}

static void a_second_holder_waits_until_the_row_runs_out(void **state)
{
    struct fixture *f = *state;
    struct cp_store *second = NULL;
    open_again(f, &second);
    struct cp_lease_wish wish = wish_of(2, 60000);
    struct cp_lease lease = {0};
    must(second->ops->lease_take(second, &wish, &lease));
    assert_false(lease.held);
    assert_int_equal(lease.epoch, 1);
    must(f->store->ops->lease_drop(f->store, &f->fence));
    must(second->ops->lease_take(second, &wish, &lease));
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 2);
    cp_store_close(second);
}

static void a_lease_that_ran_out_can_be_taken(void **state)
{
    struct fixture *f = *state;
    struct cp_lease_wish mine = wish_of(1, 1);
    struct cp_lease lease = {0};
    must(f->store->ops->lease_take(f->store, &mine, &lease));
    struct cp_lease_wish other = wish_of(2, 60000);
    uint64_t end = clock_mono_ns() + 5000000000ULL;
    do {
        must(f->store->ops->lease_take(f->store, &other, &lease));
    } while (!lease.held && clock_mono_ns() < end);
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 2);
}

static void a_lost_fence_writes_nothing(void **state)
{
    struct fixture *f = *state;
    must(f->store->ops->lease_drop(f->store, &f->fence));
    struct cp_lease_wish wish = wish_of(2, 60000);
    struct cp_lease lease = {0};
    must(f->store->ops->lease_take(f->store, &wish, &lease));
    assert_true(lease.held);
    uint64_t version = 77;
    const struct cp_store_ops *ops = f->store->ops;
    assert_int_equal(ops->version_hand(f->store, &f->fence, &version).code, E_NOT_LEADER);
    assert_int_equal(version, 77);
    struct cp_publication p = publication_of(1, NULL, 0);
    assert_int_equal(ops->publish(f->store, &f->fence, &p).code, E_NOT_LEADER);
    assert_int_equal(
        ops->proposal_put(f->store, &f->fence, &(struct cp_proposal){.version = 1}, SLICE_LIT("x"))
            .code,
        E_NOT_LEADER);
    assert_int_equal(ops->sources_put(f->store, &f->fence, 1, NULL, 0).code, E_NOT_LEADER);
    struct cp_record record;
    assert_int_equal(ops->latest(f->store, "dev", &record).code, E_NOT_FOUND);
}

static void the_epoch_can_be_raised_above_a_foreign_one(void **state)
{
    struct fixture *f = *state;
    struct cp_lease_wish wish = wish_of(1, 60000);
    wish.epoch_above = 41;
    struct cp_lease lease = {0};
    must(f->store->ops->lease_take(f->store, &wish, &lease));
    assert_int_equal(lease.epoch, 42);
    must(f->store->ops->lease_take(f->store, &wish, &lease));
    assert_int_equal(lease.epoch, 42);
    uint64_t version = 0;
    assert_int_equal(f->store->ops->version_hand(f->store, &f->fence, &version).code,
                     E_NOT_LEADER); /* the old epoch is fenced out, too. */
}

/* ---- versions and the journal ---- */

static void numbers_grow_and_never_come_twice(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(hand(f), 1);
    assert_int_equal(hand(f), 2);
    struct cp_store *second = NULL;
    open_again(f, &second);
    uint64_t version = 0;
    must(second->ops->version_hand(second, &f->fence, &version));
    assert_int_equal(version, 3);
    cp_store_close(second);
}

static void a_publication_is_read_back(void **state)
{
    struct fixture *f = *state;
    struct cp_store_chunk chunks[2] = {chunk_of("one"), chunk_of("two")};
    uint64_t version = publish(f, chunks, 2);
    struct cp_record record;
    struct buf manifest = BUF_MAX(1024);
    must(f->store->ops->load(f->store, "dev", version, &record, &manifest));
    assert_int_equal(record.version, version);
    assert_int_equal(record.raw_size, 9);
    assert_string_equal(record.author, "ada");
    assert_string_equal(record.message, "version 1");
    assert_int_equal(record.manifest_digest[0], version);
    assert_int_equal(record.content_digest[31], 7);
    assert_true(record.created_ms > 1000000000000);
    assert_true(slice_eq(buf_slice(&manifest), SLICE_LIT("manifest bytes")));
    buf_free(&manifest);
    assert_int_equal(f->store->ops->load(f->store, "dev", 9, &record, NULL).code, E_NOT_FOUND);
    assert_int_equal(f->store->ops->load(f->store, "prod", 1, &record, NULL).code, E_NOT_FOUND);
}

static void a_version_is_published_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    uint64_t first = hand(f);
    uint64_t second = publish(f, NULL, 0);
    struct cp_publication late = publication_of(first, NULL, 0);
    assert_int_equal(f->store->ops->publish(f->store, &f->fence, &late).code, E_CONFLICT);
    struct cp_publication again = publication_of(second, NULL, 0);
    assert_int_equal(f->store->ops->publish(f->store, &f->fence, &again).code, E_CONFLICT);
    struct cp_publication unknown = publication_of(99, NULL, 0);
    assert_int_equal(f->store->ops->publish(f->store, &f->fence, &unknown).code, E_CONFLICT);
    struct cp_record record;
    must(f->store->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, second);
}

static void a_proposal_is_written_once(void **state)
{
    struct fixture *f = *state;
    uint64_t version = hand(f);
    const struct cp_store_ops *ops = f->store->ops;
    must(ops->proposal_put(f->store, &f->fence, &(struct cp_proposal){.version = version},
                           SLICE_LIT("body")));
    assert_int_equal(ops->proposal_put(f->store, &f->fence,
                                       &(struct cp_proposal){.version = version},
                                       SLICE_LIT("other"))
                         .code,
                     E_CONFLICT);
}

static struct err add_text(void *ctx, const struct cp_store_chunk *chunk)
{
    TRY(buf_add(ctx, chunk->stored));
    return buf_add_byte(ctx, ' ');
}

static void chunks_keep_their_stored_bytes(void **state)
{
    struct fixture *f = *state;
    struct cp_store_chunk chunks[3] = {chunk_of("one"), chunk_of("two"), chunk_of("one")};
    (void)publish(f, chunks, 3);
    chunks[1].stored = SLICE_LIT("packed otherwise"); /* the same raw bytes: the first stay. */
    chunks[2] = chunk_of("three");
    chunks[0].stored = (struct slice){0}; /* known: only named. */
    uint64_t version = publish(f, chunks, 3);
    struct buf text = BUF_MAX(1024);
    must(f->store->ops->chunks_get(f->store, "dev", version, add_text, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("one two three ")));
    buf_clear(&text);
    must(f->store->ops->chunk_get(f->store, chunks[1].raw_digest, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("two")));
    struct cp_store_chunk unknown = chunk_of("unknown");
    assert_int_equal(f->store->ops->chunk_get(f->store, unknown.raw_digest, &text).code,
                     E_NOT_FOUND);
    buf_free(&text);
}

static void a_failed_publication_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct cp_store_chunk chunks[2] = {chunk_of("kept?"), chunk_of("named only")};
    chunks[1].stored = (struct slice){0}; /* named, and not there. */
    struct cp_publication p = publication_of(hand(f), chunks, 2);
    assert_int_equal(f->store->ops->publish(f->store, &f->fence, &p).code, E_CONFLICT);
    struct buf text = BUF_MAX(64);
    assert_int_equal(f->store->ops->chunk_get(f->store, chunks[0].raw_digest, &text).code,
                     E_NOT_FOUND);
    buf_free(&text);
    struct cp_record record;
    assert_int_equal(f->store->ops->latest(f->store, "dev", &record).code, E_NOT_FOUND);
}

static struct err add_file(void *ctx, const struct cp_store_file *file)
{
    TRY(buf_add(ctx, file->name));
    TRY(buf_add_byte(ctx, '='));
    TRY(buf_add(ctx, file->bytes));
    return buf_add_byte(ctx, ' ');
}

static void sources_come_back_by_name(void **state)
{
    struct fixture *f = *state;
    uint64_t version = hand(f);
    struct cp_store_file files[3] = {{SLICE_LIT("b.yaml"), SLICE_LIT("two")},
                                     {SLICE_LIT("a.yaml"), SLICE_LIT("one")},
                                     {SLICE_LIT("empty.yaml"), SLICE_LIT("")}};
    must(f->store->ops->sources_put(f->store, &f->fence, version, files, 3));
    struct buf text = BUF_MAX(1024);
    must(f->store->ops->sources_get(f->store, "dev", version, add_file, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("a.yaml=one b.yaml=two empty.yaml= ")));
    buf_free(&text);
    struct cp_store_file twice[2] = {files[0], files[0]};
    assert_int_equal(f->store->ops->sources_put(f->store, &f->fence, hand(f), twice, 2).code,
                     E_CONFLICT);
}

static struct err refuse_file(void *ctx, const struct cp_store_file *file)
{
    (void)ctx;
    (void)file;
    return FAIL(E_TOO_LARGE);
}

static void a_visitor_can_stop_the_walk(void **state)
{
    struct fixture *f = *state;
    uint64_t version = hand(f);
    struct cp_store_file file = {SLICE_LIT("a.yaml"), SLICE_LIT("one")};
    must(f->store->ops->sources_put(f->store, &f->fence, version, &file, 1));
    assert_int_equal(f->store->ops->sources_get(f->store, "dev", version, refuse_file, NULL).code,
                     E_TOO_LARGE);
    (void)publish(f, NULL, 0); /* the store is usable afterwards. */
}

static void history_is_newest_first_and_pages(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++) {
        (void)publish(f, NULL, 0);
    }
    struct cp_record records[3];
    size_t count = 0;
    must(f->store->ops->history(f->store, "dev", 0, records, 3, &count));
    assert_int_equal(count, 3);
    assert_int_equal(records[0].version, 5);
    assert_int_equal(records[2].version, 3);
    must(f->store->ops->history(f->store, "dev", 3, records, 3, &count));
    assert_int_equal(count, 2);
    assert_int_equal(records[0].version, 2);
    must(f->store->ops->history(f->store, "prod", 0, records, 3, &count));
    assert_int_equal(count, 0);
}

static void old_publications_go_and_their_numbers_stay(void **state)
{
    struct fixture *f = *state;
    uint64_t kept = limits.history_versions;
    limits.history_versions = 2;
    struct cp_store_chunk first = chunk_of("first");
    struct cp_store_chunk later = chunk_of("later");
    (void)publish(f, &first, 1);
    (void)publish(f, &later, 1);
    (void)publish(f, &later, 1);
    limits.history_versions = kept;
    struct cp_record record;
    assert_int_equal(f->store->ops->load(f->store, "dev", 1, &record, NULL).code, E_NOT_FOUND);
    must(f->store->ops->load(f->store, "dev", 2, &record, NULL));
    struct buf text = BUF_MAX(64);
    assert_int_equal(f->store->ops->chunk_get(f->store, first.raw_digest, &text).code, E_NOT_FOUND);
    must(f->store->ops->chunk_get(f->store, later.raw_digest, &text));
    buf_free(&text);
    assert_int_equal(hand(f), 4);
}

static void environments_are_apart(void **state)
{
    struct fixture *f = *state;
    (void)publish(f, NULL, 0);
    struct cp_lease_wish wish = wish_of(9, 60000);
    wish.environment = "prod";
    struct cp_lease lease = {0};
    must(f->store->ops->lease_take(f->store, &wish, &lease));
    struct cp_fence prod = {.environment = "prod", .epoch = lease.epoch};
    (void)memcpy(prod.holder, wish.holder, sizeof(prod.holder));
    uint64_t version = 0;
    must(f->store->ops->version_hand(f->store, &prod, &version));
    assert_int_equal(version, 1);
}

/* ---- audit, and what survives ---- */

static void audit_is_newest_first(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        struct cp_audit entry = {.actor = "ada", .action = "publish", .outcome = "OK"};
        (void)snprintf(entry.object, sizeof(entry.object), "version %d", i);
        must(f->store->ops->audit_add(f->store, "dev", &entry));
    }
    struct cp_audit entries[2];
    size_t count = 0;
    must(f->store->ops->audit_list(f->store, "dev", entries, 2, &count));
    assert_int_equal(count, 2);
    assert_string_equal(entries[0].object, "version 2");
    assert_string_equal(entries[1].actor, "ada");
    assert_true(entries[0].seq > entries[1].seq);
    assert_true(entries[0].at_ms > 1000000000000);
}

static void all_is_there_after_opening_again(void **state)
{
    struct fixture *f = *state;
    struct cp_store_chunk chunk = chunk_of("one");
    uint64_t version = publish(f, &chunk, 1);
    cp_store_close(f->store);
    open_again(f, &f->store);
    struct cp_record record;
    must(f->store->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, version);
    assert_int_equal(hand(f), version + 1);
}

static void another_kind_of_url_is_refused(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    struct buf message = BUF_MAX(1024);
    assert_int_equal(cp_store_open("mysql:nowhere", &store, &message).code, E_USAGE);
    assert_true(message.size > 0);
    assert_null(store);
    buf_free(&message);
}

int main(int argc, char **argv)
{
    ids_init();
    char directory[] = "/tmp/trilane-store-XXXXXX";
    if (argc > 1) {
        (void)snprintf(url_prefix, sizeof(url_prefix), "%s", argv[1]);
    } else {
        CHECK(mkdtemp(directory) != NULL);
        (void)snprintf(url_prefix, sizeof(url_prefix), "sqlite:%s/", directory);
    }
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(first_leader_has_epoch_one),
        T(renewing_keeps_the_epoch),
        T(a_second_holder_waits_until_the_row_runs_out),
        T(a_lease_that_ran_out_can_be_taken),
        T(a_lost_fence_writes_nothing),
        T(the_epoch_can_be_raised_above_a_foreign_one),
        T(numbers_grow_and_never_come_twice),
        T(a_publication_is_read_back),
        T(a_version_is_published_once_and_in_order),
        T(a_proposal_is_written_once),
        T(chunks_keep_their_stored_bytes),
        T(a_failed_publication_leaves_nothing),
        T(sources_come_back_by_name),
        T(a_visitor_can_stop_the_walk),
        T(history_is_newest_first_and_pages),
        T(old_publications_go_and_their_numbers_stay),
        T(environments_are_apart),
        T(audit_is_newest_first),
        T(all_is_there_after_opening_again),
        cmocka_unit_test(another_kind_of_url_is_refused),
    };
    int failed = cmocka_run_group_tests_name("conformance.store", tests, NULL, NULL);
    if (argc <= 1) {
        char command[128];
        (void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
        return system(command) == 0 ? failed : 1; /* NOLINT(concurrency-mt-unsafe): one thread. */
    }
    return failed;
}
