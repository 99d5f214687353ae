/* kv: compare-and-set, markers, bounds and unreachable servers, on a real nats-server. */
#include "common/bus/kv.h"

#include <nats/nats.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/ids.h"

#include "tests/support/cmocka.h"
#include "tests/support/nats_server.h"

/* What is forbidden is told once nothing has come for so long: the server says it meanwhile. */
enum { WAIT_MS = 15000, SILENCE_MS = 3000 };

static const struct kv_config small = {.history = 1, .max_bytes = 1 << 20};

/* Two users: a node reads; the control plane may do all. */
static const char two_users[] =
    "authorization { users = ["
    " { user: cp, password: cp },"
    " { user: node, password: node, permissions: {"
    "   publish: [\"$JS.API.DIRECT.GET.KV_snap.>\", \"$JS.API.STREAM.MSG.GET.KV_snap\","
    "     \"$JS.API.STREAM.INFO.KV_snap\"],"
    "   subscribe: [\"_INBOX.node.>\"] } } ] }";

struct fixture {
    struct nats_server server;
    struct bus *bus;
    struct kv kv;
};

static struct bus *open_bus(const struct nats_server *server, const char *user)
{
    struct bus *bus = NULL;
    struct bus_config config = {.urls = server->url, .user = user, .password = user};
    if (user[0] == 'n') {
        config.inbox_prefix = "_INBOX.node";
    }
    assert_int_equal(bus_open(&config, &bus).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    return bus;
}

static int set_up(void **state)
{
    static struct fixture f;
    ids_init();
    nats_server_init(&f.server, two_users);
    nats_server_start(&f.server);
    f.bus = open_bus(&f.server, "cp");
    assert_int_equal(kv_bind(&f.kv, f.bus, SLICE_LIT("snap")).code, E_OK);
    assert_int_equal(kv_ensure(&f.kv, &small, WAIT_MS, NULL, /* out= */ NULL).code, E_OK);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    bus_close(f->bus);
    nats_server_free(&f->server);
    return 0;
}

static void expect(struct fixture *f, const char *key, enum kv_state state, const char *value,
                   uint64_t revision)
{
    for (int read = KV_READ_ANY; read <= KV_READ_LEADER; read++) {
        auto_buf struct buf got = BUF_MAX(1024);
        struct kv_entry entry = {0};
        assert_int_equal(
            kv_get(&f->kv, slice_str(key), (enum kv_read)read, WAIT_MS, &got, &entry).code, E_OK);
        assert_int_equal(entry.state, state);
        assert_true(slice_eq(buf_slice(&got), slice_str(value)));
        assert_int_equal(entry.revision, revision);
    }
}

static void reads_what_was_written(void **state)
{
    struct fixture *f = *state;
    uint64_t first = 0;
    uint64_t second = 0;
    expect(f, "a.b", KV_MISSING, "", 0);
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("a.b"), SLICE_LIT("one"), WAIT_MS, &first).code,
                     E_OK);
    expect(f, "a.b", KV_VALUE, "one", first);
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("a.b"), SLICE_LIT(""), WAIT_MS, &second).code, E_OK);
    assert_true(second > first);
    expect(f, "a.b", KV_VALUE, "", second);
}

static void compares_and_sets(void **state)
{
    struct fixture *f = *state;
    struct slice key = SLICE_LIT("head");
    uint64_t first = 0;
    uint64_t second = 0;
    uint64_t untouched = 77;
    assert_int_equal(kv_create(&f->kv, key, SLICE_LIT("1"), WAIT_MS, &first).code, E_OK);
    assert_int_equal(kv_create(&f->kv, key, SLICE_LIT("x"), WAIT_MS, &untouched).code, E_CONFLICT);
    assert_int_equal(kv_update(&f->kv, key, SLICE_LIT("2"), first, WAIT_MS, &second).code, E_OK);
    assert_int_equal(kv_update(&f->kv, key, SLICE_LIT("3"), first, WAIT_MS, &untouched).code,
                     E_CONFLICT);
    assert_int_equal(untouched, 77);
    expect(f, "head", KV_VALUE, "2", second);
}

static void tells_a_marker_from_nothing(void **state)
{
    struct fixture *f = *state;
    struct slice key = SLICE_LIT("gone");
    uint64_t revision = 0;
    assert_int_equal(kv_put(&f->kv, key, SLICE_LIT("x"), WAIT_MS, &revision).code, E_OK);
    assert_int_equal(kv_purge(&f->kv, key, revision + 1, WAIT_MS).code, E_CONFLICT);
    assert_int_equal(kv_purge(&f->kv, key, revision, WAIT_MS).code, E_OK);
    expect(f, "gone", KV_DELETED, "", revision + 1);
    assert_int_equal(kv_create(&f->kv, key, SLICE_LIT("y"), WAIT_MS, NULL).code, E_CONFLICT);
    assert_int_equal(kv_update(&f->kv, key, SLICE_LIT("y"), revision + 1, WAIT_MS, &revision).code,
                     E_OK);
    expect(f, "gone", KV_VALUE, "y", revision);
    assert_int_equal(kv_delete(&f->kv, key, KV_ANY_REVISION, WAIT_MS).code, E_OK);
    expect(f, "gone", KV_DELETED, "", revision + 1);
}

/* A bucket of a case's own; freed with the server. */
static struct kv bucket_of(struct fixture *f, const char *name)
{
    struct kv kv;
    assert_int_equal(kv_bind(&kv, f->bus, slice_str(name)).code, E_OK);
    assert_int_equal(kv_ensure(&kv, &small, WAIT_MS, NULL, /* out= */ NULL).code, E_OK);
    return kv;
}

static struct stream_info look(const struct kv *kv)
{
    struct stream_info info = {0};
    assert_int_equal(kv_look(kv, WAIT_MS, &info).code, E_OK);
    return info;
}

static void says_when_it_was_put(void **state)
{
    struct fixture *f = *state;
    struct kv kv = bucket_of(f, "times");
    int64_t before_ms = clock_wall_ms();
    assert_int_equal(kv_put(&kv, SLICE_LIT("a"), SLICE_LIT("1"), WAIT_MS, NULL).code, E_OK);
    int64_t after_ms = clock_wall_ms();
    int64_t times[2] = {0};
    for (int read = KV_READ_ANY; read <= KV_READ_LEADER; read++) {
        auto_buf struct buf value = BUF_MAX(16);
        struct kv_entry entry = {0};
        assert_int_equal(
            kv_get(&kv, SLICE_LIT("a"), (enum kv_read)read, WAIT_MS, &value, &entry).code, E_OK);
        assert_in_range(entry.time_ms, before_ms, after_ms);
        times[read] = entry.time_ms;
    }
    assert_int_equal(times[0], times[1]);
}

static void erases_what_was_judged_alone(void **state)
{
    struct fixture *f = *state;
    struct kv kv = bucket_of(f, "erased");
    struct slice key = SLICE_LIT("chunk.a");
    uint64_t first = 0;
    uint64_t second = 0;
    assert_int_equal(kv_put(&kv, SLICE_LIT("chunk.aa"), SLICE_LIT("x"), WAIT_MS, NULL).code, E_OK);
    assert_int_equal(kv_put(&kv, key, SLICE_LIT("1"), WAIT_MS, &first).code, E_OK);
    assert_int_equal(kv_erase(&kv, key, first - 1, WAIT_MS).code, E_CONFLICT);
    assert_int_equal(kv_put(&kv, key, SLICE_LIT("2"), WAIT_MS, &second).code, E_OK);
    assert_int_equal(kv_erase(&kv, key, first, WAIT_MS).code, E_CONFLICT);
    assert_int_equal(look(&kv).messages, 2);
    assert_int_equal(kv_erase(&kv, key, second, WAIT_MS).code, E_OK);
    assert_int_equal(look(&kv).messages, 1); /* no marker either. */
    assert_int_equal(kv_erase(&kv, key, second, WAIT_MS).code, E_CONFLICT);
    assert_int_equal(kv_create(&kv, key, SLICE_LIT("3"), WAIT_MS, NULL).code, E_OK);
    assert_int_equal(kv_erase(&kv, SLICE_LIT("*"), second, WAIT_MS).code, E_USAGE);
}

struct listing {
    const struct kv *kv;
    size_t count;
    size_t markers;
    uint64_t last;
    bool fine;         /* keys and order were as they should be. */
    size_t stop_after; /* 0: never. */
    bool writes;       /* writes and removes while the list goes on. */
};

/* Fails nothing by itself: a list must end before its test does. */
static struct err take_listed(void *ctx, struct slice key, const struct kv_entry *entry)
{
    struct listing *l = ctx;
    bool known = slice_starts(key, SLICE_LIT("chunk.")) || slice_eq(key, SLICE_LIT("head"));
    l->fine = l->fine && known && entry->revision >= l->last && entry->time_ms > 0;
    l->last = entry->revision;
    l->count++;
    l->markers += entry->state == KV_DELETED;
    if (l->writes && l->count == 1) {
        TRY(kv_put(l->kv, SLICE_LIT("head"), SLICE_LIT("2"), WAIT_MS, NULL));
        TRY(kv_purge(l->kv, SLICE_LIT("chunk.599"), KV_ANY_REVISION, WAIT_MS));
    }
    return l->count == l->stop_after ? FAIL(E_CLOSED) : OK;
}

static struct listing list(const struct kv *kv, struct listing l, enum err_code expected)
{
    l.kv = kv;
    l.fine = true;
    assert_int_equal(kv_list(kv, WAIT_MS, take_listed, &l).code, expected);
    assert_true(l.fine);
    return l;
}

static uint64_t consumers(struct fixture *f, const char *stream)
{
    natsConnection *nc = NULL;
    jsCtx *js = NULL;
    jsStreamInfo *info = NULL;
    natsOptions *options = NULL;
    assert_int_equal(natsOptions_Create(&options), NATS_OK);
    assert_int_equal(natsOptions_SetURL(options, f->server.url), NATS_OK);
    assert_int_equal(natsOptions_SetUserInfo(options, "cp", "cp"), NATS_OK);
    assert_int_equal(natsConnection_Connect(&nc, options), NATS_OK);
    assert_int_equal(natsConnection_JetStream(&js, nc, NULL), NATS_OK);
    assert_int_equal(js_GetStreamInfo(&info, js, stream, NULL, NULL), NATS_OK);
    uint64_t count = (uint64_t)info->State.Consumers;
    jsStreamInfo_Destroy(info);
    jsCtx_Destroy(js);
    natsConnection_Destroy(nc);
    natsOptions_Destroy(options);
    return count;
}

static void lists_keys_in_pages_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct kv kv = bucket_of(f, "listed");
    assert_int_equal(list(&kv, (struct listing){0}, E_OK).count, 0);
    for (int i = 0; i < 600; i++) { /* more than two pages. */
        char key[16];
        (void)snprintf(key, sizeof(key), "chunk.%d", i);
        assert_int_equal(kv_put(&kv, slice_str(key), SLICE_LIT("value"), WAIT_MS, NULL).code, E_OK);
    }
    assert_int_equal(kv_put(&kv, SLICE_LIT("chunk.0"), SLICE_LIT("new"), WAIT_MS, NULL).code, E_OK);
    assert_int_equal(kv_purge(&kv, SLICE_LIT("chunk.1"), KV_ANY_REVISION, WAIT_MS).code, E_OK);
    struct listing all = list(&kv, (struct listing){0}, E_OK);
    assert_int_equal(all.count, 600);
    assert_int_equal(all.markers, 1);
    struct listing some = list(&kv, (struct listing){.stop_after = 300}, E_CLOSED);
    assert_int_equal(some.count, 300);
    assert_int_equal(kv_put(&kv, SLICE_LIT("head"), SLICE_LIT("1"), WAIT_MS, NULL).code, E_OK);
    struct listing changing = list(&kv, (struct listing){.writes = true}, E_OK);
    assert_in_range(changing.count, 599, 603); /* while keys change, some come twice. */
    assert_int_equal(consumers(f, "KV_listed"), 0);
    struct kv missing;
    assert_int_equal(kv_bind(&missing, f->bus, SLICE_LIT("none")).code, E_OK);
    (void)list(&missing, (struct listing){0}, E_UNAVAILABLE);
}

/* One server keeps one replica: asked for more, a new bucket is refused and an old one stays. */
static void replicas_that_are_not_there(void **state)
{
    struct fixture *f = *state;
    struct kv kv;
    struct kv_config three = {.history = 1, .max_bytes = 1 << 20, .replicas = 3};
    struct stream_info info = {0};
    auto_buf struct buf why = BUF_MAX(256);
    assert_int_equal(kv_bind(&kv, f->bus, SLICE_LIT("three")).code, E_OK);
    assert_int_equal(kv_ensure(&kv, &three, WAIT_MS, &why, &info).code, E_REPLICAS_MISSING);
    assert_true(slice_ends(buf_slice(&why), SLICE_LIT("too few servers")));
    assert_int_equal(kv_ensure(&kv, &small, WAIT_MS, NULL, &info).code, E_OK);
    assert_int_equal(info.replicas, 1);
    assert_int_equal(kv_ensure(&kv, &three, WAIT_MS, NULL, &info).code, E_OK);
    assert_int_equal(info.replicas, 1);
    info = (struct stream_info){0};
    assert_int_equal(kv_raise(&kv, 3, WAIT_MS, &info).code, E_REPLICAS_MISSING);
    assert_int_equal(info.replicas, 1);
    assert_int_equal(info.replicas_current, 1);
    assert_int_equal(kv_raise(&kv, 1, WAIT_MS, &info).code, E_OK);
    assert_int_equal(info.max_bytes, 1 << 20);
}

static void refuses_names_and_sizes(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"", "a b", "a..b", "*", ">", ".a", "a."};
    struct kv other;
    struct kv_entry entry;
    assert_int_equal(kv_bind(&other, f->bus, SLICE_LIT("a.b")).code, E_USAGE);
    assert_int_equal(kv_bind(&other, f->bus, SLICE_LIT("")).code, E_USAGE);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(kv_put(&f->kv, slice_str(bad[i]), SLICE_LIT(""), WAIT_MS, NULL).code,
                         E_USAGE);
    }
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("five"), SLICE_LIT("12345"), WAIT_MS, NULL).code,
                     E_OK);
    auto_buf struct buf exact = BUF_MAX(5);
    auto_buf struct buf less = BUF_MAX(4);
    assert_int_equal(kv_get(&f->kv, SLICE_LIT("five"), KV_READ_ANY, WAIT_MS, &exact, &entry).code,
                     E_OK);
    assert_int_equal(kv_get(&f->kv, SLICE_LIT("five"), KV_READ_ANY, WAIT_MS, &less, &entry).code,
                     E_TOO_LARGE);
    auto_buf struct buf huge = BUF_MAX(2 << 20);
    uint8_t *at = NULL;
    assert_int_equal(buf_reserve(&huge, 2 << 20, &at).code, E_OK);
    memset(at, 'x', 2 << 20);
    buf_commit(&huge, 2 << 20);
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("huge"), buf_slice(&huge), WAIT_MS, NULL).code,
                     E_BUS_LIMIT);
    char said[BUS_ERROR_TEXT_MAX];
    bus_last_error(f->bus, said);
    assert_non_null(strstr(said, "max_payload, 1048576"));
    assert_non_null(strstr(said, ".huge\""));
}

static void a_full_bucket_refuses(void **state)
{
    struct fixture *f = *state;
    struct kv tiny;
    struct kv_config config = {.history = 1, .max_bytes = 2048};
    uint8_t bytes[1500] = {0};
    assert_int_equal(kv_bind(&tiny, f->bus, SLICE_LIT("tiny")).code, E_OK);
    assert_int_equal(kv_ensure(&tiny, &config, WAIT_MS, NULL, /* out= */ NULL).code, E_OK);
    struct slice value = slice_of(bytes, sizeof(bytes));
    assert_int_equal(kv_put(&tiny, SLICE_LIT("a"), value, WAIT_MS, NULL).code, E_OK);
    assert_int_equal(kv_put(&tiny, SLICE_LIT("b"), value, WAIT_MS, NULL).code, E_BUS_FULL);
}

static void an_existing_bucket_is_judged(void **state)
{
    struct fixture *f = *state;
    struct kv_config other = {.history = 5, .max_bytes = 1 << 20};
    auto_buf struct buf why = BUF_MAX(256);
    assert_int_equal(kv_ensure(&f->kv, &small, WAIT_MS, NULL, /* out= */ NULL).code, E_OK);
    assert_int_equal(kv_ensure(&f->kv, &other, WAIT_MS, &why, /* out= */ NULL).code, E_CONFLICT);
    assert_true(slice_ends(buf_slice(&why), SLICE_LIT("exists and is no bucket of that history")));
    other.history = 65;
    assert_int_equal(kv_ensure(&f->kv, &other, WAIT_MS, NULL, /* out= */ NULL).code, E_USAGE);
}

static void a_missing_bucket_is_no_missing_key(void **state)
{
    struct fixture *f = *state;
    struct kv none;
    struct kv_entry entry;
    auto_buf struct buf value = BUF_MAX(16);
    assert_int_equal(kv_bind(&none, f->bus, SLICE_LIT("none")).code, E_OK);
    assert_int_equal(kv_get(&none, SLICE_LIT("head"), KV_READ_ANY, WAIT_MS, &value, &entry).code,
                     E_UNAVAILABLE);
    assert_int_equal(kv_get(&none, SLICE_LIT("head"), KV_READ_LEADER, WAIT_MS, &value, &entry).code,
                     E_UNAVAILABLE);
    assert_int_equal(kv_put(&none, SLICE_LIT("head"), SLICE_LIT("x"), WAIT_MS, NULL).code,
                     E_UNAVAILABLE);
}

static void a_node_cannot_write_the_head(void **state)
{
    struct fixture *f = *state;
    struct kv kv;
    struct kv_entry entry;
    struct bus_stats stats;
    char text[BUS_ERROR_TEXT_MAX];
    struct bus *node = open_bus(&f->server, "node");
    assert_int_equal(kv_bind(&kv, node, SLICE_LIT("snap")).code, E_OK);
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("head"), SLICE_LIT("good"), WAIT_MS, NULL).code,
                     E_OK);
    assert_int_equal(kv_put(&kv, SLICE_LIT("head"), SLICE_LIT("bad"), SILENCE_MS, NULL).code,
                     E_BUS_FORBIDDEN);
    bus_stats(node, &stats);
    bus_last_error(node, text);
    assert_int_equal(stats.forbidden, 1);
    assert_non_null(strstr(text, "$KV.snap.head"));
    auto_buf struct buf value = BUF_MAX(16);
    assert_int_equal(kv_get(&kv, SLICE_LIT("head"), KV_READ_ANY, WAIT_MS, &value, &entry).code,
                     E_OK);
    assert_true(slice_eq(buf_slice(&value), SLICE_LIT("good")));
    bus_close(node);
}

static void silence_is_an_unknown_result(void **state)
{
    struct fixture *f = *state;
    struct kv_entry entry;
    auto_buf struct buf value = BUF_MAX(16);
    nats_server_pause(&f->server);
    struct err put = kv_put(&f->kv, SLICE_LIT("slow"), SLICE_LIT("x"), 200, NULL);
    struct err get = kv_get(&f->kv, SLICE_LIT("slow"), KV_READ_LEADER, 200, &value, &entry);
    nats_server_resume(&f->server);
    assert_int_equal(put.code, E_RESULT_UNKNOWN);
    assert_int_equal(get.code, E_UNAVAILABLE);
    assert_int_equal(
        kv_get(&f->kv, SLICE_LIT("slow"), KV_READ_LEADER, WAIT_MS, &value, &entry).code, E_OK);
    assert_int_equal(entry.state, KV_VALUE); /* it had arrived: hence "unknown". */
}

static void a_dead_server_is_unavailable(void **state)
{
    struct fixture *f = *state;
    uint64_t revision = 0;
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("kept"), SLICE_LIT("x"), WAIT_MS, &revision).code,
                     E_OK);
    nats_server_kill(&f->server);
    while (bus_down_ms(f->bus) == 0) { /* ends: the socket closes at once. */
        assert_in_range(bus_wait_connected(f->bus, 1).code, 0, E_COUNT);
    }
    assert_int_equal(kv_put(&f->kv, SLICE_LIT("kept"), SLICE_LIT("y"), WAIT_MS, NULL).code,
                     E_UNAVAILABLE);
    nats_server_start(&f->server);
    assert_int_equal(bus_wait_connected(f->bus, WAIT_MS).code, E_OK);
    expect(f, "kept", KV_VALUE, "x", revision);
}

/* ---- several at once ---- */

enum { MANY = 300 }; /* more than are on their way at once. */

static char many_keys[MANY][16];

static void fill_many(struct kv_item items[MANY], const char *value)
{
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(many_keys[i], sizeof(many_keys[i]), "many.%d", i);
        items[i] = (struct kv_item){.key = slice_str(many_keys[i]), .value = slice_str(value)};
    }
}

static struct err count_many(void *ctx, struct slice key, const struct kv_entry *entry)
{
    int *count = ctx;
    *count += entry->state == KV_VALUE && slice_starts(key, SLICE_LIT("many."));
    return OK;
}

static void many_are_written_at_once(void **state)
{
    struct fixture *f = *state;
    struct kv_item items[MANY];
    int count = 0;
    struct kv_entry entry;
    auto_buf struct buf value = BUF_MAX(16);
    fill_many(items, "one");
    items[7].done = true; /* it is passed over. */
    assert_int_equal(kv_put_all(&f->kv, items, MANY, WAIT_MS).code, E_OK);
    assert_int_equal(kv_list(&f->kv, WAIT_MS, count_many, &count).code, E_OK);
    assert_int_equal(count, MANY - 1);
    for (int i = 0; i < MANY; i++) {
        assert_true(items[i].done);
    }
    assert_int_equal(
        kv_get(&f->kv, SLICE_LIT("many.7"), KV_READ_LEADER, WAIT_MS, &value, &entry).code, E_OK);
    assert_int_equal(entry.state, KV_MISSING);
    assert_int_equal(kv_put_all(&f->kv, items, 0, WAIT_MS).code, E_OK);
}

/* What was refused, and what was not sent behind it, is not done. */
static void the_first_refusal_ends_many(void **state)
{
    struct fixture *f = *state;
    struct kv tiny;
    struct kv none;
    struct kv_item items[MANY];
    uint8_t bytes[1500] = {0};
    struct kv_config config = {.history = 1, .max_bytes = 8192};
    assert_int_equal(kv_bind(&tiny, f->bus, SLICE_LIT("tiny-many")).code, E_OK);
    assert_int_equal(kv_ensure(&tiny, &config, WAIT_MS, NULL, /* out= */ NULL).code, E_OK);
    fill_many(items, "");
    for (int i = 0; i < MANY; i++) {
        items[i].value = slice_of(bytes, sizeof(bytes));
    }
    assert_int_equal(kv_put_all(&tiny, items, MANY, WAIT_MS).code, E_BUS_FULL);
    assert_true(items[0].done);
    assert_false(items[100].done); /* it was sent, and refused. */
    assert_false(items[MANY - 1].done);
    fill_many(items, "one");
    items[2].key = SLICE_LIT("a..b");
    assert_int_equal(kv_put_all(&f->kv, items, MANY, WAIT_MS).code, E_USAGE);
    assert_true(items[1].done); /* what was on its way was waited for. */
    assert_false(items[3].done);
    assert_int_equal(kv_bind(&none, f->bus, SLICE_LIT("none")).code, E_OK);
    fill_many(items, "one");
    assert_int_equal(kv_put_all(&none, items, 1, WAIT_MS).code, E_UNAVAILABLE);
}

static void silence_leaves_many_unknown(void **state)
{
    struct fixture *f = *state;
    struct kv_item items[MANY];
    fill_many(items, "two");
    nats_server_pause(&f->server);
    assert_int_equal(kv_put_all(&f->kv, items, MANY, 200).code, E_RESULT_UNKNOWN);
    nats_server_resume(&f->server);
    assert_false(items[0].done);
    assert_int_equal(kv_put_all(&f->kv, items, MANY, WAIT_MS).code, E_OK);
}

static void a_node_cannot_write_many(void **state)
{
    struct fixture *f = *state;
    struct kv kv;
    struct kv_item items[MANY];
    struct bus *node = open_bus(&f->server, "node");
    assert_int_equal(kv_bind(&kv, node, SLICE_LIT("snap")).code, E_OK);
    fill_many(items, "bad");
    assert_int_equal(kv_put_all(&kv, items, 2, SILENCE_MS).code, E_BUS_FORBIDDEN);
    bus_close(node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_written),
        cmocka_unit_test(compares_and_sets),
        cmocka_unit_test(tells_a_marker_from_nothing),
        cmocka_unit_test(says_when_it_was_put),
        cmocka_unit_test(erases_what_was_judged_alone),
        cmocka_unit_test(lists_keys_in_pages_and_leaves_nothing),
        cmocka_unit_test(replicas_that_are_not_there),
        cmocka_unit_test(refuses_names_and_sizes),
        cmocka_unit_test(a_full_bucket_refuses),
        cmocka_unit_test(an_existing_bucket_is_judged),
        cmocka_unit_test(a_missing_bucket_is_no_missing_key),
        cmocka_unit_test(a_node_cannot_write_the_head),
        cmocka_unit_test(silence_is_an_unknown_result),
        cmocka_unit_test(many_are_written_at_once),
        cmocka_unit_test(the_first_refusal_ends_many),
        cmocka_unit_test(silence_leaves_many_unknown),
        cmocka_unit_test(a_node_cannot_write_many),
        cmocka_unit_test(a_dead_server_is_unavailable),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
