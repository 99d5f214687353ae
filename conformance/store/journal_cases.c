/* Publications: all or nothing, in order, with the chunks and the sources that they name. */
#include "conformance/store/rig.h"

static void a_publication_is_read_back(void **state)
{
    struct rig *f = *state;
    struct cp_store_chunk chunks[2] = {rig_chunk("one"), rig_chunk("two")};
    uint64_t version = rig_publish(f, chunks, 2);
    struct cp_record record;
    struct buf manifest = BUF_MAX(1024);
    must(f->ops->load(f->store, "dev", version, &record, &manifest));
    assert_int_equal(record.version, version);
    assert_int_equal(record.raw_size, 9);
    assert_string_equal(record.author, "ada");
    assert_string_equal(record.message, "version 1");
    assert_int_equal(record.manifest_digest[0], version);
    assert_int_equal(record.content_digest[31], 7);
    assert_true(record.created_ms > 1000000000000);
    assert_true(slice_eq(buf_slice(&manifest), SLICE_LIT("manifest bytes")));
    buf_free(&manifest);
    must_fail(f->ops->load(f->store, "dev", 9, &record, NULL), E_NOT_FOUND);
    must_fail(f->ops->load(f->store, "prod", 1, &record, NULL), E_NOT_FOUND);
}

static void a_version_is_published_once_and_in_order(void **state)
{
    struct rig *f = *state;
    uint64_t first = rig_hand(f);
    uint64_t second = rig_publish(f, NULL, 0);
    struct cp_publication late = rig_publication(first, NULL, 0);
    must_fail(f->ops->publish(f->store, &f->fence, &late), E_CONFLICT);
    struct cp_publication again = rig_publication(second, NULL, 0);
    must_fail(f->ops->publish(f->store, &f->fence, &again), E_CONFLICT);
    struct cp_publication unknown = rig_publication(99, NULL, 0);
    must_fail(f->ops->publish(f->store, &f->fence, &unknown), E_CONFLICT);
    struct cp_record record;
    must(f->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, second);
}

static struct err add_text(void *ctx, const struct cp_store_chunk *chunk)
{
    TRY(buf_add(ctx, chunk->stored));
    return buf_add_byte(ctx, ' ');
}

static void chunks_keep_their_stored_bytes(void **state)
{
    struct rig *f = *state;
    struct cp_store_chunk chunks[3] = {rig_chunk("one"), rig_chunk("two"), rig_chunk("one")};
    (void)rig_publish(f, chunks, 3);
    chunks[1].stored = SLICE_LIT("packed otherwise"); /* the same raw bytes: the first stay. */
    chunks[2] = rig_chunk("three");
    chunks[0].stored = (struct slice){0}; /* known: only named. */
    uint64_t version = rig_publish(f, chunks, 3);
    struct buf text = BUF_MAX(1024);
    must(f->ops->chunks_get(f->store, "dev", version, add_text, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("one two three ")));
    buf_clear(&text);
    must(f->ops->chunk_get(f->store, chunks[1].raw_digest, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("two")));
    struct cp_store_chunk unknown = rig_chunk("unknown");
    must_fail(f->ops->chunk_get(f->store, unknown.raw_digest, &text), E_NOT_FOUND);
    buf_free(&text);
}

static void a_failed_publication_leaves_nothing(void **state)
{
    struct rig *f = *state;
    struct cp_store_chunk chunks[2] = {rig_chunk("kept?"), rig_chunk("named only")};
    chunks[1].stored = (struct slice){0}; /* named, and not there. */
    struct cp_publication p = rig_publication(rig_hand(f), chunks, 2);
    must_fail(f->ops->publish(f->store, &f->fence, &p), E_CONFLICT);
    struct buf text = BUF_MAX(64);
    must_fail(f->ops->chunk_get(f->store, chunks[0].raw_digest, &text), E_NOT_FOUND);
    buf_free(&text);
    struct cp_record record;
    must_fail(f->ops->latest(f->store, "dev", &record), E_NOT_FOUND);
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
    struct rig *f = *state;
    uint64_t version = rig_hand(f);
    struct cp_store_file files[3] = {{.name = SLICE_LIT("b.yaml"), .bytes = SLICE_LIT("two")},
                                     {.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("one")},
                                     {.name = SLICE_LIT("empty.yaml"), .bytes = SLICE_LIT("")}};
    must(f->ops->sources_put(f->store, &f->fence, version, files, 3));
    struct buf text = BUF_MAX(1024);
    must(f->ops->sources_get(f->store, "dev", version, add_file, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("a.yaml=one b.yaml=two empty.yaml= ")));
    buf_free(&text);
    struct cp_store_file twice[2] = {files[0], files[0]};
    must_fail(f->ops->sources_put(f->store, &f->fence, rig_hand(f), twice, 2), E_CONFLICT);
}

/* By the digest the store knows what it has: what comes with one is not hashed again. */
static void a_known_digest_is_taken(void **state)
{
    struct rig *f = *state;
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("one"), digest);
    struct cp_store_file files[2] = {
        {.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("one"), .digest = digest},
        {.name = SLICE_LIT("b.yaml"), .bytes = SLICE_LIT("two")}};
    must(f->ops->sources_put(f->store, &f->fence, rig_hand(f), files, 2));
    files[1].digest = digest; /* what it names is there: these bytes are not asked for. */
    uint64_t second = rig_hand(f);
    must(f->ops->sources_put(f->store, &f->fence, second, files, 2));
    struct buf text = BUF_MAX(1024);
    must(f->ops->sources_get(f->store, "dev", second, add_file, &text));
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("a.yaml=one b.yaml=one ")));
    buf_free(&text);
}

static struct err refuse_file(void *ctx, const struct cp_store_file *file)
{
    (void)ctx;
    (void)file;
    return FAIL(E_TOO_LARGE);
}

static void a_visitor_can_stop_the_walk(void **state)
{
    struct rig *f = *state;
    uint64_t version = rig_hand(f);
    struct cp_store_file file = {.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("one")};
    must(f->ops->sources_put(f->store, &f->fence, version, &file, 1));
    must_fail(f->ops->sources_get(f->store, "dev", version, refuse_file, NULL), E_TOO_LARGE);
    (void)rig_publish(f, NULL, 0); /* the store is usable afterwards. */
}

static void history_is_newest_first_and_pages(void **state)
{
    struct rig *f = *state;
    for (int i = 0; i < 5; i++) {
        (void)rig_publish(f, NULL, 0);
    }
    struct cp_record records[3];
    size_t count = 0;
    must(f->ops->history(f->store, "dev", 0, records, 3, &count));
    assert_int_equal(count, 3);
    assert_int_equal(records[0].version, 5);
    assert_int_equal(records[2].version, 3);
    must(f->ops->history(f->store, "dev", 3, records, 3, &count));
    assert_int_equal(count, 2);
    assert_int_equal(records[0].version, 2);
    must(f->ops->history(f->store, "prod", 0, records, 3, &count));
    assert_int_equal(count, 0);
}

static void old_publications_go_and_their_numbers_stay(void **state)
{
    struct rig *f = *state;
    uint64_t kept = limits.history_versions;
    limits.history_versions = 2;
    struct cp_store_chunk first = rig_chunk("first");
    struct cp_store_chunk later = rig_chunk("later");
    (void)rig_publish(f, &first, 1);
    (void)rig_publish(f, &later, 1);
    struct cp_record record;
    struct cp_publication third = rig_publication(rig_hand(f), &later, 1);
    must(f->ops->publish(f->store, &f->fence, &third));
    must(f->ops->load(f->store, "dev", 1, &record, NULL)); /* publishing waits for no dropping. */
    bool any = false;
    struct cp_fence lost = f->fence;
    lost.epoch++;
    must_fail(f->ops->drop_old(f->store, &lost, &any), E_NOT_LEADER);
    must(f->ops->load(f->store, "dev", 1, &record, NULL));
    must(f->ops->drop_old(f->store, &f->fence, &any));
    assert_true(any);
    must(f->ops->drop_old(f->store, &lost, &any)); /* there is nothing to write. */
    assert_false(any);
    limits.history_versions = kept;
    must_fail(f->ops->load(f->store, "dev", 1, &record, NULL), E_NOT_FOUND);
    must(f->ops->load(f->store, "dev", 2, &record, NULL));
    struct buf text = BUF_MAX(64);
    must_fail(f->ops->chunk_get(f->store, first.raw_digest, &text), E_NOT_FOUND);
    must(f->ops->chunk_get(f->store, later.raw_digest, &text));
    buf_free(&text);
    assert_int_equal(rig_hand(f), 4);
}

/* As if they had never been: what is used by the one below them is used on. */
static void rows_above_go_and_may_come_again(void **state)
{
    struct rig *f = *state;
    const uint64_t kept = limits.history_versions;
    const struct cp_store_chunk both[] = {rig_chunk("first"), rig_chunk("later")};
    struct cp_fence lost = f->fence;
    struct cp_record record;
    bool any = false;
    lost.epoch++;
    (void)rig_publish(f, &both[0], 1);
    (void)rig_publish(f, &both[1], 1);
    must_fail(f->ops->drop_above(f->store, &lost, 1, 2), E_NOT_LEADER);
    must_fail(f->ops->drop_above(f->store, &f->fence, 1, 3), E_CONFLICT);
    must(f->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, 2);
    must(f->ops->drop_above(f->store, &f->fence, 1, 2));
    must(f->ops->drop_above(f->store, &f->fence, 1, 2)); /* its answer was lost. */
    must(f->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, 1);
    struct cp_publication second = rig_publication(2, both, 2);
    must(f->ops->publish(f->store, &f->fence, &second));
    assert_int_equal(rig_publish(f, both, 2), 3);
    limits.history_versions = 2;
    must(f->ops->drop_old(f->store, &f->fence, &any));
    limits.history_versions = kept;
    assert_true(any);
    struct buf text = BUF_MAX(64);
    must(f->ops->chunk_get(f->store, both[0].raw_digest, &text));
    buf_free(&text);
}

static void environments_are_apart(void **state)
{
    struct rig *f = *state;
    (void)rig_publish(f, NULL, 0);
    struct cp_lease_wish wish = rig_wish(9, 60000);
    wish.environment = "prod";
    struct cp_lease lease = {0};
    must(f->ops->lease_take(f->store, &wish, &lease));
    struct cp_fence prod = {.environment = "prod", .epoch = lease.epoch};
    (void)memcpy(prod.holder, wish.holder, sizeof(prod.holder));
    uint64_t version = 0;
    must(f->ops->version_hand(f->store, &prod, &version));
    assert_int_equal(version, 1);
}

/* ---- what changes between versions ---- */

static void add_name(char *out, const char *name)
{
    (void)strncat(out, name, 255 - strlen(out));
}

static struct err add_chunk_name(void *ctx, const struct cp_store_chunk *chunk)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%.*s ", SLICE_ARG(chunk->stored));
    add_name(ctx, name);
    return OK;
}

static void check_chunks(struct rig *f, uint64_t version, const char *expected)
{
    char found[256] = "";
    must(f->ops->chunks_get(f->store, "dev", version, add_chunk_name, found));
    assert_string_equal(found, expected);
}

/* A chunk goes with the last version that names it, whichever these are. */
static void a_chunk_stays_as_long_as_a_version_names_it(void **state)
{
    struct rig *f = *state;
    uint64_t kept = limits.history_versions;
    limits.history_versions = 3;
    struct cp_store_chunk a = rig_chunk("a");
    struct cp_store_chunk b = rig_chunk("b");
    struct cp_store_chunk c = rig_chunk("c");
    struct cp_store_chunk ab[] = {a, b};
    struct cp_store_chunk ba[] = {b, a};
    (void)rig_publish(f, ab, 2);  /* 1: a b */
    (void)rig_publish(f, &b, 1);  /* 2: b */
    (void)rig_publish(f, &c, 1);  /* 3: c */
    a.stored = (struct slice){0}; /* 4: a again, known from 1, as a rollback names it */
    (void)rig_publish(f, &a, 1);
    check_chunks(f, 4, "a ");
    assert_true(rig_has_chunk(f, &b)); /* 1 is gone; 2 has it. */
    (void)rig_publish(f, &c, 1);       /* 5: c; 2 is gone, with b. */
    assert_false(rig_has_chunk(f, &b));
    assert_true(rig_has_chunk(f, &a));
    ba[1].stored = (struct slice){0};
    (void)rig_publish(f, ba, 2); /* 6: b a */
    check_chunks(f, 4, "a ");
    check_chunks(f, 5, "c ");
    check_chunks(f, 6, "b a ");
    (void)rig_publish(f, NULL, 0);
    (void)rig_publish(f, NULL, 0); /* 8: nothing; 6 to 8 stay. */
    assert_false(rig_has_chunk(f, &c));
    check_chunks(f, 6, "b a ");
    check_chunks(f, 8, "");
    limits.history_versions = kept;
}

static void known_chunks_are_found_in_order(void **state)
{
    struct rig *f = *state;
    struct cp_store_chunk chunks[] = {rig_chunk("a"), rig_chunk("b"), rig_chunk("c")};
    uint8_t digests[5][DIGEST_SIZE];
    static const char *const asked[] = {"c", "unknown", "a", "unknown", "c"};
    char found[256] = "";
    (void)rig_publish(f, chunks, 3);
    for (int i = 0; i < 5; i++) {
        ids_digest(slice_str(asked[i]), digests[i]);
    }
    must(f->ops->chunks_find(f->store, slice_of(digests, sizeof(digests)), add_chunk_name, found));
    assert_string_equal(found, "c a c ");
    must(f->ops->chunks_find(f->store, slice_of(digests, 0), add_chunk_name, found));
    assert_string_equal(found, "c a c ");
}

/* More than one statement holds. */
static void many_chunks_come_back_in_order(void **state)
{
    enum { COUNT = 150 };
    struct rig *f = *state;
    static char texts[COUNT][8];
    static struct cp_store_chunk chunks[COUNT];
    char expected[256] = "";
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "%d", i);
        chunks[i] = rig_chunk(texts[i]);
    }
    (void)rig_publish(f, chunks, COUNT);
    char found[4096] = "";
    struct buf text = BUF_MAX(sizeof(found));
    must(f->ops->chunks_get(f->store, "dev", 1, add_text, &text));
    for (int i = 0; i < COUNT; i++) {
        size_t size = strlen(found);
        (void)snprintf(found + size, sizeof(found) - size, "%d ", i);
    }
    assert_true(slice_eq(buf_slice(&text), slice_str(found)));
    buf_free(&text);
    limits.history_versions = 2;
    (void)rig_publish(f, chunks + 140, 10); /* these alone go on. */
    (void)rig_publish(f, chunks + 140, 10); /* the first version goes, with 140 chunks. */
    limits.history_versions = 1000;
    for (int i = 140; i < COUNT; i++) {
        add_name(expected, texts[i]);
        add_name(expected, " ");
    }
    check_chunks(f, 3, expected);
    assert_false(rig_has_chunk(f, &chunks[0]));
    assert_false(rig_has_chunk(f, &chunks[139]));
}

static void put_sources(struct rig *f, uint64_t version, const char *names, const char *content)
{
    struct cp_store_file files[8];
    size_t count = 0;
    for (const char *name = names; *name != '\0'; name++) {
        files[count++] =
            (struct cp_store_file){.name = slice_of(name, 1), .bytes = slice_str(content)};
    }
    must(f->ops->sources_put(f->store, &f->fence, version, files, count));
}

static void check_sources(struct rig *f, uint64_t version, const char *expected)
{
    struct buf text = BUF_MAX(1024);
    must(f->ops->sources_get(f->store, "dev", version, add_file, &text));
    assert_true(slice_eq(buf_slice(&text), slice_str(expected)));
    buf_free(&text);
}

static void sources_change_between_versions(void **state)
{
    struct rig *f = *state;
    put_sources(f, rig_hand(f), "abc", "one"); /* 1 */
    (void)rig_hand(f);                         /* 2: a number without sources */
    put_sources(f, rig_hand(f), "bcd", "one"); /* 3: a goes, d comes */
    put_sources(f, rig_hand(f), "c", "two");   /* 4: c changes, others go */
    put_sources(f, rig_hand(f), "abc", "one"); /* 5: as the first */
    check_sources(f, 1, "a=one b=one c=one ");
    check_sources(f, 2, "");
    check_sources(f, 3, "b=one c=one d=one ");
    check_sources(f, 4, "c=two ");
    check_sources(f, 5, "a=one b=one c=one ");
    check_sources(f, 77, "");
}

static void sources_go_with_their_versions(void **state)
{
    struct rig *f = *state;
    limits.history_versions = 2;
    for (int i = 0; i < 4; i++) { /* 1 to 4, published; then one that is not. */
        uint64_t version = rig_hand(f);
        put_sources(f, version, i == 0 ? "ab" : "b", "one");
        struct cp_publication p = rig_publication(version, NULL, 0);
        bool any = false;
        must(f->ops->publish(f->store, &f->fence, &p));
        must(f->ops->drop_old(f->store, &f->fence, &any));
        assert_int_equal(any, i >= 2);
    }
    put_sources(f, rig_hand(f), "bc", "one");
    limits.history_versions = 1000;
    check_sources(f, 1, "");
    check_sources(f, 4, "b=one ");
    check_sources(f, 5, "b=one c=one ");
    put_sources(f, rig_hand(f), "abc", "one"); /* bytes that were dropped come back. */
    check_sources(f, 6, "a=one b=one c=one ");
}

static void many_sources_come_back_by_name(void **state)
{
    enum { COUNT = 200 };
    struct rig *f = *state;
    static char names[COUNT][16];
    struct cp_store_file files[COUNT];
    char expected[8192] = "";
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "%03d.yaml", COUNT - 1 - i);
        files[i] =
            (struct cp_store_file){.name = slice_str(names[i]), .bytes = slice_str(names[i])};
        size_t size = strlen(expected);
        (void)snprintf(expected + size, sizeof(expected) - size, "%03d.yaml=%03d.yaml ", i, i);
    }
    must(f->ops->sources_put(f->store, &f->fence, rig_hand(f), files, COUNT));
    struct buf text = BUF_MAX(sizeof(expected));
    must(f->ops->sources_get(f->store, "dev", 1, add_file, &text));
    assert_true(slice_eq(buf_slice(&text), slice_str(expected)));
    buf_free(&text);
    put_sources(f, rig_hand(f), "a", "one"); /* two hundred names go at once. */
    check_sources(f, 2, "a=one ");
}

static void sources_are_kept_once_and_in_turn(void **state)
{
    struct rig *f = *state;
    uint64_t first = rig_hand(f);
    uint64_t second = rig_hand(f);
    struct cp_store_file file = {.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("one")};
    put_sources(f, second, "a", "one");
    must_fail(f->ops->sources_put(f->store, &f->fence, second, &file, 1), E_CONFLICT);
    must_fail(f->ops->sources_put(f->store, &f->fence, first, &file, 1), E_CONFLICT);
    must_fail(f->ops->sources_put(f->store, &f->fence, 99, &file, 1), E_CONFLICT);
    check_sources(f, second, "a=one ");
}

static void names_are_text(void **state)
{
    struct rig *f = *state;
    static const struct slice names[] = {SLICE_INIT("\xff.yaml"), SLICE_INIT("a\0b"),
                                         SLICE_INIT("")};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct cp_store_file file = {.name = names[i], .bytes = SLICE_LIT("one")};
        must_fail(f->ops->sources_put(f->store, &f->fence, rig_hand(f), &file, 1), E_MALFORMED);
    }
    struct cp_store_file bytes = {.name = SLICE_LIT("any"),
                                  .bytes = SLICE_LIT("\xff\0'")}; /* bytes are bytes. */
    must(f->ops->sources_put(f->store, &f->fence, rig_hand(f), &bytes, 1));
}

/* ---- the sender's own ids ---- */

static void a_request_publishes_once(void **state)
{
    struct rig *f = *state;
    struct cp_record record;
    struct cp_publication p = rig_publication(rig_hand(f), NULL, 0);
    (void)snprintf(p.record.request, sizeof(p.record.request), "build-77");
    p.record.request_digest[31] = 9;
    must(f->ops->publish(f->store, &f->fence, &p));
    (void)rig_publish(f, NULL, 0); /* publications without an id do not meet. */
    (void)rig_publish(f, NULL, 0);
    must(f->ops->find_request(f->store, "dev", "build-77", &record));
    assert_int_equal(record.version, 1);
    assert_string_equal(record.request, "build-77");
    assert_int_equal(record.request_digest[31], 9);
    must_fail(f->ops->find_request(f->store, "dev", "build-78", &record), E_NOT_FOUND);
    must_fail(f->ops->find_request(f->store, "prod", "build-77", &record), E_NOT_FOUND);
    must_fail(f->ops->find_request(f->store, "dev", "", &record), E_NOT_FOUND);
    p.record.version = rig_hand(f);
    must_fail(f->ops->publish(f->store, &f->fence, &p), E_CONFLICT);
    must(f->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, 3);
    assert_int_equal(rig_publish(f, NULL, 0), 5); /* what failed holds nothing up. */
}

/* ---- what survives ---- */

static void all_is_there_after_opening_again(void **state)
{
    struct rig *f = *state;
    struct cp_store_chunk chunk = rig_chunk("one");
    uint64_t version = rig_publish(f, &chunk, 1);
    cp_store_close(f->store);
    f->store = rig_open(f->url);
    f->ops = f->store->ops;
    struct cp_record record;
    must(f->ops->latest(f->store, "dev", &record));
    assert_int_equal(record.version, version);
    assert_int_equal(rig_hand(f), version + 1);
}

static void another_kind_of_url_is_refused(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    struct buf message = BUF_MAX(1024);
    must_fail(cp_store_open("mysql:nowhere", &store, &message), E_USAGE);
    assert_true(message.size > 0);
    assert_null(store);
    buf_clear(&message);
    must_fail(cp_store_open("postgre://ada:secret@host/db", &store, &message), E_USAGE);
    must(buf_add_byte(&message, '\0'));
    assert_null(strstr((const char *)message.ptr, "secret"));
    buf_free(&message);
}

const struct CMUnitTest journal_cases[] = {
    RIG_CASE(a_publication_is_read_back),
    RIG_CASE(a_version_is_published_once_and_in_order),
    RIG_CASE(chunks_keep_their_stored_bytes),
    RIG_CASE(a_failed_publication_leaves_nothing),
    RIG_CASE(sources_come_back_by_name),
    RIG_CASE(a_known_digest_is_taken),
    RIG_CASE(a_visitor_can_stop_the_walk),
    RIG_CASE(history_is_newest_first_and_pages),
    RIG_CASE(old_publications_go_and_their_numbers_stay),
    RIG_CASE(rows_above_go_and_may_come_again),
    RIG_CASE(environments_are_apart),
    RIG_CASE(a_chunk_stays_as_long_as_a_version_names_it),
    RIG_CASE(known_chunks_are_found_in_order),
    RIG_CASE(many_chunks_come_back_in_order),
    RIG_CASE(sources_change_between_versions),
    RIG_CASE(sources_go_with_their_versions),
    RIG_CASE(many_sources_come_back_by_name),
    RIG_CASE(sources_are_kept_once_and_in_turn),
    RIG_CASE(names_are_text),
    RIG_CASE(a_request_publishes_once),
    RIG_CASE(all_is_there_after_opening_again),
    cmocka_unit_test(another_kind_of_url_is_refused),
};
const size_t journal_case_count = sizeof(journal_cases) / sizeof(journal_cases[0]);
