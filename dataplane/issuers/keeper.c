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
#include "common/jose/jwk.h"
#include "common/net/ask.h"
#include "dataplane/issuers/cache.h"
#include "dataplane/request/metrics.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    PLACES_MAX = 256, /* of a model; past it none is read. */
    LOOK_MS = 200,    /* how often it is looked whether a worker misses a key. */
    CONNECT_MS = 2000,
    BACKOFF_MIN_MS = 1000,
    BACKOFF_MAX_MS = 60000,
    HTTP_OK = 200,
};

/* Where keys are read from, and what was. */
struct place {
    uint8_t source[DIGEST_SIZE];
    struct slice issuer; /* id; owned, as are these. */
    struct slice uri;    /* a NUL is behind it. */
    struct slice ca;
    uint64_t refresh_ms;
    struct jose_keys *keys;      /* a reference; NULL: none yet. */
    uint8_t digest[DIGEST_SIZE]; /* of the set that they were read from. */
    int64_t read_ms;
    uint64_t due_ns;     /* when they are read next; monotonic. */
    uint64_t asked_ns;   /* when they were asked for last; 0: never. */
    uint64_t backoff_ms; /* 0: the last time went well. */
    enum err_code logged;
    metrics_id age;
};

struct places {
    struct place *at; /* owned. */
    size_t count;
};

struct dp_issuers {
    struct dp_issuers_config config;
    struct places places;        /* the thread's own. */
    struct dp_issuer_keys *keys; /* the newest table, a reference; NULL: none yet. */
    pthread_t thread;
    struct {
        struct lock lock;
        pthread_cond_t wakes;
        pthread_cond_t wrote; /* 'writes' is over. */
        bool stop GUARDED;
        bool writes GUARDED;          /* the disk, now. */
        bool left_disk GUARDED;       /* to another process. */
        bool is_new GUARDED;          /* 'wanted' is to be taken. */
        struct places wanted GUARDED; /* of the newest model. */
    } shared;
};

static void place_free(struct place *place)
{
    slice_free(place->issuer);
    slice_free(place->uri);
    slice_free(place->ca);
    jose_keys_unref(place->keys);
}

static void places_free(struct places *places)
{
    for (size_t i = 0; i < places->count; i++) {
        place_free(&places->at[i]);
    }
    free(places->at);
    *places = (struct places){0};
}

static struct place *find(const struct places *places, const uint8_t source[DIGEST_SIZE])
{
    for (size_t i = 0; i < places->count; i++) {
        if (memcmp(places->at[i].source, source, DIGEST_SIZE) == 0) {
            return &places->at[i];
        }
    }
    return NULL;
}

/* ---- what a model wants ---- */

static struct slice copy(struct slice text)
{
    return slice_of(slice_dup(text), text.size);
}

static void want(void *ctx, const struct dp_issuer *issuer)
{
    struct places *wanted = ctx;
    if (issuer->jwks_uri.size == 0 || wanted->count == PLACES_MAX ||
        find(wanted, issuer->source) != NULL) {
        return;
    }
    struct place *place = &wanted->at[wanted->count++];
    *place = (struct place){.issuer = copy(issuer->id),
                            .uri = copy(issuer->jwks_uri),
                            .ca = copy(issuer->ca),
                            .refresh_ms = issuer->refresh_ms,
                            .logged = E_OK};
    memcpy(place->source, issuer->source, DIGEST_SIZE);
}

void dp_issuers_model(struct dp_issuers *k, const struct dp_model *model)
{
    struct places wanted = {0};
    if (dp_model_has_issuers(model)) {
        wanted.at = calloc(PLACES_MAX, sizeof(struct place));
        CHECK(wanted.at != NULL);
        dp_model_each_issuer(model, want, &wanted);
    }
    lock_take(&k->shared.lock);
    struct places before = k->shared.wanted;
    k->shared.wanted = wanted;
    k->shared.is_new = true;
    CHECK(pthread_cond_signal(&k->shared.wakes) == 0);
    lock_drop(&k->shared.lock);
    places_free(&before);
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
        const struct place *place = &k->places.at[i];
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
static struct err take_set(struct place *place, struct slice set, int64_t read_ms,
                           const char **out_why)
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(set, digest);
    if (place->keys == NULL || memcmp(digest, place->digest, DIGEST_SIZE) != 0) {
        struct jose_keys *keys = NULL;
        TRY(jose_keys_read(set, &keys, out_why));
        LOG(LOG_INFO, "issuers", "keys-taken", LOG_SLICE("issuer", place->issuer),
            LOG_U64("keys", keys->count), LOG_I64("read_ms", read_ms));
        jose_keys_unref(place->keys);
        place->keys = keys;
        memcpy(place->digest, digest, DIGEST_SIZE);
    }
    place->read_ms = read_ms;
    return OK;
}

/* ---- reading ---- */

static bool is_stopping(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    bool stop = k->shared.stop;
    lock_drop(&k->shared.lock);
    return stop;
}

/* Whose reading it is. */
struct reading {
    struct dp_issuers *keeper;
};

static bool gives_up(const void *ctx)
{
    return is_stopping(((const struct reading *)ctx)->keeper);
}

static struct err ask(struct dp_issuers *k, const struct place *place, struct buf *answer,
                      const char **out_why)
{
    unsigned status = 0;
    const struct reading reading = {.keeper = k};
    const struct net_ask ask = {.url = (const char *)place->uri.ptr,
                                .headers = {"Accept: application/jwk-set+json, application/json"},
                                .connect_ms = CONNECT_MS,
                                .whole_ms = limits.issuer_timeout_ms,
                                .ca = place->ca,
                                .gives_up = gives_up,
                                .ctx = &reading};
    TRY(net_ask(&ask, &status, answer, out_why));
    if (status != HTTP_OK) {
        *out_why = "it answered with another status than 200";
        return FAIL(E_UNAVAILABLE);
    }
    return OK;
}

/* Twice as long each time, and ± 20 %, so that nodes do not come back all at once. */
static uint64_t next_backoff_ms(struct place *place)
{
    uint32_t random = 0;
    uint64_t most = place->refresh_ms < BACKOFF_MAX_MS ? place->refresh_ms : BACKOFF_MAX_MS;
    ids_quick(&random, sizeof(random));
    place->backoff_ms = place->backoff_ms == 0 ? BACKOFF_MIN_MS : place->backoff_ms * 2;
    place->backoff_ms = place->backoff_ms < most ? place->backoff_ms : most;
    return place->backoff_ms * (800 + random % 401) / 1000;
}

static uint64_t next_refresh_ms(const struct place *place)
{
    uint32_t random = 0;
    ids_quick(&random, sizeof(random));
    return place->refresh_ms * (900 + random % 201) / 1000;
}

/* One line for each change: what goes on failing was said. */
static void note(struct dp_issuers *k, struct place *place, struct err e, const char *why)
{
    struct slice labels[] = {place->issuer,
                             err_ok(e) ? SLICE_LIT("ok") : slice_str(err_name(e.code))};
    metrics_add(k->config.shard, metrics_series(k->config.metrics, DP_METRIC_ISSUER_READS, labels),
                1);
    if (err_ok(e)) {
        place->backoff_ms = 0;
        place->due_ns = clock_mono_ns() + next_refresh_ms(place) * NS_PER_MS;
    } else {
        place->due_ns = clock_mono_ns() + next_backoff_ms(place) * NS_PER_MS;
    }
    if (!err_ok(e) && e.code != place->logged) {
        LOG(LOG_WARN, "issuers", "keys-not-read", LOG_SLICE("issuer", place->issuer),
            LOG_SLICE("uri", place->uri), LOG_ERR(e), LOG_STR("text", why),
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

static void write_cache(struct dp_issuers *k, const struct place *place, struct slice set)
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

static void read_place(struct dp_issuers *k, struct place *place)
{
    auto_buf struct buf answer = BUF_MAX(JOSE_KEYS_BYTES_MAX);
    const char *why = "";
    int64_t read_ms = clock_wall_ms();
    place->asked_ns = clock_mono_ns();
    struct err e = ask(k, place, &answer, &why);
    if (err_ok(e)) {
        e = take_set(place, buf_slice(&answer), read_ms, &why);
    }
    if (e.code == E_CLOSED && is_stopping(k)) {
        return;
    }
    note(k, place, e, why);
    if (!err_ok(e)) {
        return;
    }
    write_cache(k, place, buf_slice(&answer));
    publish(k);
}

/* ---- places that come and go ---- */

static void read_cache(struct dp_issuers *k, struct place *place)
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
static void begin(struct dp_issuers *k, struct place *place)
{
    struct place *before = find(&k->places, place->source);
    place->age = metrics_series(k->config.metrics, DP_METRIC_ISSUER_AGE, &place->issuer);
    if (before == NULL) {
        read_cache(k, place);
        return;
    }
    place->keys = TAKE_PTR(before->keys);
    memcpy(place->digest, before->digest, DIGEST_SIZE);
    place->read_ms = before->read_ms;
    place->asked_ns = before->asked_ns;
    place->backoff_ms = before->backoff_ms;
    place->logged = before->logged;
    uint64_t soon_ns = clock_mono_ns() + place->refresh_ms * NS_PER_MS;
    place->due_ns = before->due_ns < soon_ns ? before->due_ns : soon_ns;
}

static void take_wanted(struct dp_issuers *k)
{
    lock_take(&k->shared.lock);
    bool is_new = k->shared.is_new;
    struct places wanted = k->shared.wanted;
    if (is_new) {
        k->shared.is_new = false;
        k->shared.wanted = (struct places){0};
    }
    lock_drop(&k->shared.lock);
    if (!is_new || (wanted.count == 0 && k->places.count == 0)) {
        if (is_new) {
            places_free(&wanted);
        }
        return;
    }
    for (size_t i = 0; i < k->places.count; i++) {
        metrics_set(k->config.shard, k->places.at[i].age, -1); /* nobody is there any more. */
    }
    for (size_t i = 0; i < wanted.count; i++) {
        begin(k, &wanted.at[i]);
    }
    places_free(&k->places);
    k->places = wanted;
    publish(k);
}

/* ---- when ---- */

/* A key that is missed is asked for, as often as the issuer may be asked. */
static void look_at(struct dp_issuers *k, struct place *place)
{
    struct dp_issuer_keys_row *row = dp_issuer_keys_find(k->keys, place->source);
    uint64_t now_ns = clock_mono_ns();
    bool rested =
        place->asked_ns == 0 || now_ns - place->asked_ns >= limits.issuer_rest_ms * NS_PER_MS;
    if (row != NULL && rested && atomic_exchange(&row->missed, false)) {
        place->due_ns = now_ns;
    }
    if (place->due_ns <= now_ns) {
        read_place(k, place);
    }
    metrics_set(k->config.shard, place->age,
                place->keys == NULL ? -1 : clock_wall_ms() - place->read_ms);
}

/* Sleeps until it is time to look again; false when it is over. */
static bool wait(struct dp_issuers *k)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_nsec += (long)LOOK_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    lock_take(&k->shared.lock);
    while (!k->shared.stop && !k->shared.is_new && k->places.count == 0) {
        (void)pthread_cond_wait(&k->shared.wakes, &k->shared.lock.m);
    }
    if (!k->shared.stop && !k->shared.is_new) {
        (void)pthread_cond_clockwait(&k->shared.wakes, &k->shared.lock.m, CLOCK_MONOTONIC, &until);
    }
    bool stop = k->shared.stop;
    lock_drop(&k->shared.lock);
    return !stop;
}

static void *thread_main(void *ctx)
{
    struct dp_issuers *k = ctx;
    while (wait(k)) {
        take_wanted(k);
        for (size_t i = 0; i < k->places.count; i++) {
            look_at(k, &k->places.at[i]);
        }
    }
    return NULL;
}

/* ---- start and stop ---- */

struct err dp_issuers_start(const struct dp_issuers_config *config, struct dp_issuers **out)
{
    struct dp_issuers *k = calloc(1, sizeof(*k));
    if (k == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    k->config = *config;
    lock_init(&k->shared.lock);
    CHECK(pthread_cond_init(&k->shared.wakes, NULL) == 0);
    CHECK(pthread_cond_init(&k->shared.wrote, NULL) == 0);
    if (pthread_create(&k->thread, NULL, thread_main, k) != 0) {
        CHECK(pthread_cond_destroy(&k->shared.wakes) == 0);
        CHECK(pthread_cond_destroy(&k->shared.wrote) == 0);
        lock_free(&k->shared.lock);
        free(k);
        return FAIL(E_IO);
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
    CHECK(pthread_cond_signal(&k->shared.wakes) == 0);
    lock_drop(&k->shared.lock);
    CHECK(pthread_join(k->thread, NULL) == 0);
    places_free(&k->places);
    lock_take(&k->shared.lock);
    places_free(&k->shared.wanted);
    lock_drop(&k->shared.lock);
    dp_issuer_keys_unref(k->keys);
    CHECK(pthread_cond_destroy(&k->shared.wakes) == 0);
    CHECK(pthread_cond_destroy(&k->shared.wrote) == 0);
    lock_free(&k->shared.lock);
    free(k);
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
