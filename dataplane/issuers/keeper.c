/* keeper: see keeper.h. */
#include "dataplane/issuers/keeper.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/jose/discovery.h"
#include "common/jose/jwk.h"
#include "common/net/ask.h"
#include "dataplane/issuers/cache.h"
#include "dataplane/issuers/place.h"
#include "dataplane/request/metrics.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    LOOK_MS = 200,    /* how often it is looked whether a worker misses a key. */
    IDLE_MS = 600000, /* without places; another model wakes the thread. */
    CONNECT_MS = 2000,
    HTTP_OK = 200,
};

/* A reading that is under way: of the key set, or before that of the document that says where it
 * is.
 */
struct dp_reading {
    struct dp_place *place;
    char *keys_uri; /* that the document said, owned; NULL: it was not read, or there is none. */
    struct net_asking *asking;
    struct buf answer;
    int64_t began_ms;
};

struct dp_issuers {
    struct dp_issuers_config config;
    struct dp_places places;     /* the thread's own, as are these. */
    struct dp_issuer_keys *keys; /* the newest table, a reference; NULL: none yet. */
    struct net_asks *asks;       /* but for waking it. */
    uint64_t looked_ns;
    pthread_t thread;
    struct {
        struct lock lock;
        pthread_cond_t wrote; /* 'writes' is over. */
        bool stop GUARDED;
        bool writes GUARDED;             /* the disk, now. */
        bool left_disk GUARDED;          /* to another process. */
        bool is_new GUARDED;             /* 'wanted' is to be taken. */
        struct dp_places wanted GUARDED; /* of the newest model. */
    } shared;
};

void dp_issuers_model(struct dp_issuers *k, const struct dp_model *model)
{
    struct dp_places wanted;
    dp_places_of(model, &wanted);
    lock_take(&k->shared.lock);
    struct dp_places before = k->shared.wanted;
    k->shared.wanted = wanted;
    k->shared.is_new = true;
    lock_drop(&k->shared.lock);
    net_asks_wake(k->asks);
    dp_places_free(&before);
}

/* ---- what is in force ---- */

/* Has all workers look at the places as they are now. */
static void publish(struct dp_issuers *k)
{
    struct dp_issuer_keys *table = NULL;
    struct err e = dp_issuer_keys_new(k->places.count, &table);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "issuers", "keys-not-shared", LOG_ERR(e));
        return; /* what is in force stays so until the next reading. */
    }
    for (size_t i = 0; i < table->count; i++) {
        const struct dp_place *place = &k->places.at[i];
        struct dp_issuer_keys_row *row = &table->rows[i];
        memcpy(row->source, place->source, DIGEST_SIZE);
        row->keys = place->keys == NULL ? NULL : jose_keys_ref(place->keys);
        row->read_ms = place->read_ms;
    }
    dp_issuer_keys_unref(k->keys);
    k->keys = table;
    k->config.read(k->config.ctx, table);
}

/* Takes a set that was read into force; E_MALFORMED: it is none. */
static struct err take_set(struct dp_place *place, struct slice set, int64_t read_ms,
                           const char **out_why)
{
    bool is_new = false;
    TRY(dp_place_take(place, set, read_ms, &is_new, out_why));
    if (is_new) {
        LOG(LOG_INFO, "issuers", "keys-taken", LOG_SLICE("issuer", place->issuer),
            LOG_U64("keys", place->keys->count), LOG_I64("read_ms", read_ms));
    }
    return OK;
}

/* ---- reading ---- */

/* Which URL is asked for a place now. */
static const char *uri_of(const struct dp_place *place)
{
    bool found = place->reading != NULL && place->reading->keys_uri != NULL;
    return found ? place->reading->keys_uri : (const char *)place->uri.ptr;
}

/* One line for each change: what goes on failing was said. */
static void note(struct dp_issuers *k, struct dp_place *place, struct err e, const char *why)
{
    struct slice labels[] = {place->issuer,
                             err_ok(e) ? SLICE_LIT("ok") : slice_str(err_name(e.code))};
    metrics_add(k->config.shard, metrics_series(k->config.metrics, DP_METRIC_ISSUER_READS, labels),
                1);
    dp_place_rest(place, err_ok(e), clock_mono_ns());
    if (!err_ok(e) && e.code != place->logged) {
        LOG(LOG_WARN, "issuers", "keys-not-read", LOG_SLICE("issuer", place->issuer),
            LOG_STR("uri", uri_of(place)), LOG_ERR(e), LOG_STR("text", why),
            LOG_STR("keys", place->keys == NULL ? "none: tokens are refused" : "those before"));
    }
    place->logged = e.code;
}

static bool begin_write(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    bool writes = !k->shared.left_disk;
    k->shared.writes = writes;
    lock_drop(&k->shared.lock);
    return writes;
}

static void end_write(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    k->shared.writes = false;
    CHECK(pthread_cond_broadcast(&k->shared.wrote) == 0);
    lock_drop(&k->shared.lock);
}

static void write_cache(struct dp_issuers *k, const struct dp_place *place, struct slice set)
{
    if (!begin_write(k)) {
        return;
    }
    struct err e = dp_issuer_cache_put(k->config.data_dir, place->source, set, place->read_ms);
    end_write(k);
    if (!err_ok(e)) {
        LOG(LOG_WARN, "issuers", "keys-not-kept", LOG_SLICE("issuer", place->issuer), LOG_ERR(e));
    }
}

static void reading_free(struct dp_issuers *k, struct dp_place *place)
{
    struct dp_reading *reading = TAKE_PTR(place->reading);
    if (reading != NULL) {
        net_asks_cancel(k->asks, reading->asking);
        buf_free(&reading->answer);
        free(reading->keys_uri);
        free(reading);
    }
}

static bool is_discovering(const struct dp_reading *reading)
{
    return reading->place->discovery && reading->keys_uri == NULL;
}

static struct err begin_ask(struct dp_issuers *k, struct dp_reading *reading)
{
    bool discovers = is_discovering(reading);
    const struct net_ask ask = {
        .url = uri_of(reading->place),
        .headers = {discovers ? "Accept: application/json"
                              : "Accept: application/jwk-set+json, application/json"},
        .connect_ms = CONNECT_MS,
        .whole_ms = limits.issuer_timeout_ms,
        .ca = reading->place->ca};
    buf_free(&reading->answer);
    reading->answer = BUF_MAX(discovers ? JOSE_DISCOVERY_BYTES_MAX : JOSE_KEYS_BYTES_MAX);
    return net_asks_begin(k->asks, &ask, &reading->answer, reading, &reading->asking);
}

static void begin_reading(struct dp_issuers *k, struct dp_place *place)
{
    struct dp_reading *reading = calloc(1, sizeof(*reading));
    place->asked_ns = clock_mono_ns();
    struct err e = reading == NULL ? FAIL(E_NO_MEMORY) : OK;
    if (err_ok(e)) {
        *reading = (struct dp_reading){.place = place, .began_ms = clock_wall_ms()};
        place->reading = reading;
        e = begin_ask(k, reading);
    }
    if (!err_ok(e)) {
        reading_free(k, place);
        note(k, place, e, "it could not be asked");
    }
}

/* Asks for the key set where the document says that it is. */
static struct err go_on(struct dp_issuers *k, struct dp_reading *reading, const char **out_why)
{
    struct slice uri = {0};
    TRY(jose_discovery_read(reading->answer.ptr, reading->answer.size, reading->place->iss, &uri,
                            out_why));
    reading->keys_uri = slice_dup(uri);
    *out_why = "it could not be asked";
    return begin_ask(k, reading);
}

/* What came is in force, or what was before stays so; true: there is something new to look at. */
static bool finish(struct dp_issuers *k, const struct net_asked *asked)
{
    struct dp_reading *reading = asked->ctx;
    struct dp_place *place = reading->place;
    const char *why = asked->why;
    struct err e = asked->err;
    reading->asking = NULL; /* it is over. */
    if (err_ok(e) && asked->status != HTTP_OK) {
        why = "it answered with another status than 200";
        e = FAIL(E_UNAVAILABLE);
    }
    if (err_ok(e) && is_discovering(reading)) {
        e = go_on(k, reading, &why);
        if (err_ok(e)) {
            return false;
        }
    } else if (err_ok(e)) {
        e = take_set(place, buf_slice(&reading->answer), reading->began_ms, &why);
    }
    note(k, place, e, why);
    if (err_ok(e)) {
        write_cache(k, place, buf_slice(&reading->answer));
    }
    reading_free(k, place);
    return err_ok(e);
}

static void finish_all(struct dp_issuers *k)
{
    bool is_new = false;
    struct net_asked asked;
    while (net_asks_next(k->asks, &asked)) { /* ends: each is over once. */
        is_new = finish(k, &asked) || is_new;
    }
    if (is_new) {
        publish(k);
    }
}

/* ---- places that come and go ---- */

static void read_cache(struct dp_issuers *k, struct dp_place *place)
{
    auto_buf struct buf set = BUF_MAX(JOSE_KEYS_BYTES_MAX);
    const char *why = "";
    int64_t read_ms = 0;
    struct err e =
        dp_issuer_cache_get(k->config.data_dir, place->source, clock_wall_ms(), &set, &read_ms);
    if (err_ok(e)) {
        e = take_set(place, buf_slice(&set), read_ms, &why);
    }
    if (!err_ok(e) && e.code != E_NOT_FOUND) {
        LOG(LOG_WARN, "issuers", "kept-keys-not-read", LOG_SLICE("issuer", place->issuer),
            LOG_ERR(e));
    }
}

/* A place that was there before goes on as it was. */
static void begin(struct dp_issuers *k, struct dp_place *place)
{
    struct dp_place *before = dp_places_find(&k->places, place->source);
    place->age = metrics_series(k->config.metrics, DP_METRIC_ISSUER_AGE, &place->issuer);
    if (before == NULL) {
        read_cache(k, place);
        return;
    }
    dp_place_go_on(place, before, clock_mono_ns());
    if (place->reading != NULL) {
        place->reading->place = place;
    }
}

static void drop_places(struct dp_issuers *k)
{
    for (size_t i = 0; i < k->places.count; i++) {
        reading_free(k, &k->places.at[i]);
    }
    dp_places_free(&k->places);
}

static void take_wanted(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    bool is_new = k->shared.is_new;
    struct dp_places wanted = k->shared.wanted;
    if (is_new) {
        k->shared.is_new = false;
        k->shared.wanted = (struct dp_places){0};
    }
    lock_drop(&k->shared.lock);
    if (!is_new || (wanted.count == 0 && k->places.count == 0)) {
        if (is_new) {
            dp_places_free(&wanted);
        }
        return;
    }
    for (size_t i = 0; i < k->places.count; i++) {
        metrics_set(k->config.shard, k->places.at[i].age, -1); /* nobody is there any more. */
    }
    for (size_t i = 0; i < wanted.count; i++) {
        begin(k, &wanted.at[i]);
    }
    drop_places(k);
    k->places = wanted;
    k->looked_ns = 0;
    publish(k);
}

/* ---- when ---- */

/* A key that is missed is asked for, as often as the issuer may be asked. */
static void look_at(struct dp_issuers *k, struct dp_place *place, uint64_t now_ns)
{
    struct dp_issuer_keys_row *row = dp_issuer_keys_find(k->keys, place->source);
    if (row != NULL && dp_place_may_hurry(place, now_ns) && atomic_exchange(&row->missed, false)) {
        place->due_ns = now_ns;
    }
    if (place->due_ns <= now_ns && place->reading == NULL) {
        begin_reading(k, place);
    }
    metrics_set(k->config.shard, place->age,
                place->keys == NULL ? -1 : clock_wall_ms() - place->read_ms);
}

static void look_at_all(struct dp_issuers *k)
{
    uint64_t now_ns = clock_mono_ns();
    if (k->looked_ns != 0 && now_ns - k->looked_ns < LOOK_MS * NS_PER_MS) {
        return; /* some bytes came, no more. */
    }
    k->looked_ns = now_ns;
    for (size_t i = 0; i < k->places.count; i++) {
        look_at(k, &k->places.at[i], now_ns);
    }
}

static bool is_stopping(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    bool stop = k->shared.stop;
    lock_drop(&k->shared.lock);
    return stop;
}

static void *thread_main(void *ctx)
{
    struct dp_issuers *k = ctx;
    while (!is_stopping(k)) {
        net_asks_wait(k->asks, k->places.count == 0 ? IDLE_MS : LOOK_MS);
        take_wanted(k);
        finish_all(k);
        look_at_all(k);
    }
    return NULL;
}

/* ---- start and stop ---- */

static void keeper_free(struct dp_issuers *k)
{
    drop_places(k);
    net_asks_free(k->asks);
    lock_take(&k->shared.lock);
    dp_places_free(&k->shared.wanted);
    lock_drop(&k->shared.lock);
    dp_issuer_keys_unref(k->keys);
    CHECK(pthread_cond_destroy(&k->shared.wrote) == 0);
    lock_free(&k->shared.lock);
    free(k);
}

struct err dp_issuers_start(const struct dp_issuers_config *config, struct dp_issuers **out)
{
    struct dp_issuers *k = calloc(1, sizeof(*k));
    if (k == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    k->config = *config;
    lock_init(&k->shared.lock);
    CHECK(pthread_cond_init(&k->shared.wrote, NULL) == 0);
    struct err e = net_asks_new(&k->asks);
    if (err_ok(e) && pthread_create(&k->thread, NULL, thread_main, k) != 0) {
        e = FAIL(E_IO);
    }
    if (!err_ok(e)) {
        keeper_free(k);
        return e;
    }
    (void)pthread_setname_np(k->thread, "issuers");
    *out = k;
    return OK;
}

void dp_issuers_stop(struct dp_issuers *k)
{
    if (k == NULL) {
        return;
    }
    lock_take(&k->shared.lock);
    k->shared.stop = true;
    lock_drop(&k->shared.lock);
    net_asks_wake(k->asks);
    CHECK(pthread_join(k->thread, NULL) == 0);
    keeper_free(k);
}

/* ---- the disk, over a hand-over ---- */

void dp_issuers_leave_disk(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    k->shared.left_disk = true;
    while (k->shared.writes) { /* ends: with the write of one file. */
        (void)pthread_cond_wait(&k->shared.wrote, &k->shared.lock.m);
    }
    lock_drop(&k->shared.lock);
}

void dp_issuers_take_disk(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    k->shared.left_disk = false;
    lock_drop(&k->shared.lock);
}
