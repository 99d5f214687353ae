/* renewal: see renewal.h. */
#include "dataplane/join/renewal.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/net/csr.h"
#include "dataplane/apply/fault.h"
#include "dataplane/join/server.h"
#include "dataplane/request/metrics.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    MESSAGE_MAX = 1024,
    SLEEP_MAX_MS = 30000, /* the wall clock is looked at so often: it may jump. */
    BACKOFF_MIN_MS = 1000,
    BACKOFF_MAX_MS = 300000,
    BACKOFF_PART = 20, /* and at most this part of a certificate's life. */
    EARLY_MIN_S = 10,
    EARLY_SPREAD_S = 50, /* nodes that are upgraded together do not renew together. */
};

struct dp_renewal {
    struct dp_renewal_config config;
    struct dp_self self;
    uint8_t environment[ENVIRONMENT_SIZE];
    pthread_t thread;
    uint64_t count;      /* of the last request, or of the certificate. */
    uint64_t backoff_ms; /* 0: the last try went well. */
    enum err_code logged;
    struct {
        struct lock lock;
        pthread_cond_t stops;
        bool stop GUARDED;
        struct dp_renewal_status status GUARDED; /* 'next_s': by the certificate's own times. */
        uint64_t rests_until_ns GUARDED; /* monotonic: what failed is not tried again before. */
    } shared;
};

int64_t dp_renewal_due_s(const struct net_cert_times *times, unsigned per_mille)
{
    int64_t life_s = times->ends_s - times->made_s;
    return times->made_s + life_s * 3 / 5 + life_s * (int64_t)per_mille / 7500;
}

int64_t dp_renewal_first_s(const struct dp_self_cert *cert, int64_t now_s, unsigned per_mille)
{
    int64_t due = dp_renewal_due_s(&cert->times, per_mille);
    int64_t early = now_s + EARLY_MIN_S + (int64_t)per_mille * EARLY_SPREAD_S / 1000;
    return cert->says_key || due < early ? due : early;
}

/* ---- one renewal ---- */

/* What a renewal works with. */
struct work {
    struct dp_identity_dir dir;
    struct evp_pkey_st *key;
    struct buf csr;
    struct buf ca;
    struct buf server_ca;
    json_t *answer;
    struct buf *message;
};

static void work_free(struct work *w)
{
    dp_identity_close(&w->dir);
    net_key_free(&w->key);
    buf_free(&w->csr);
    buf_free(&w->ca);
    buf_free(&w->server_ca);
    json_decref(w->answer);
}

static struct err make_key(struct work *w)
{
    auto_buf struct buf pem = BUF_MAX(NET_KEY_PEM_MAX);
    TRY(net_key_new(&w->key));
    TRY(net_csr_make(w->key, &w->csr));
    struct err e = net_key_write(w->key, &pem);
    if (err_ok(e)) {
        e = dp_identity_put(&w->dir, DP_FILE_KEY_NEXT, buf_slice(&pem));
    }
    if (pem.ptr != NULL) {
        sodium_memzero(pem.ptr, pem.capacity);
    }
    return e;
}

/* Above the present certificate's and above every one before, over restarts and wrong clocks. */
static uint64_t next_count(struct dp_renewal *r, int64_t now_ms)
{
    r->count = now_ms > 0 && (uint64_t)now_ms > r->count ? (uint64_t)now_ms : r->count + 1;
    return r->count;
}

static struct err prove(struct dp_renewal *r, const struct renew_statement *s,
                        char out[2 * KEY_SIGNATURE_SIZE + 1])
{
    uint8_t proof[KEY_SIGNATURE_SIZE];
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    TRY(renew_statement(s, &statement));
    key_sign(r->config.key, buf_slice(&statement), proof);
    text_hex(slice_of(proof, sizeof(proof)), out);
    return OK;
}

/* The leaf alone: the first certificate of the file. */
static struct err read_leaf(const struct work *w, struct buf *out)
{
    static const struct slice end = SLICE_INIT("-----END CERTIFICATE-----\n");
    auto_buf struct buf chain = BUF_MAX(DP_IDENTITY_FILE_MAX);
    TRY(dp_identity_get(&w->dir, DP_FILE_CERT, &chain));
    size_t size = 0;
    while (size < chain.size && !slice_starts(slice_from(buf_slice(&chain), size), end)) {
        size++;
    }
    return buf_add(out, slice_head(buf_slice(&chain), size + end.size));
}

static struct err read_key(const struct work *w, struct evp_pkey_st **out)
{
    auto_buf struct buf pem = BUF_MAX(NET_KEY_PEM_MAX);
    struct err e = dp_identity_get(&w->dir, DP_FILE_KEY, &pem);
    if (err_ok(e)) {
        e = net_key_read(buf_slice(&pem), out);
    }
    if (pem.ptr != NULL) {
        sodium_memzero(pem.ptr, pem.capacity);
    }
    return e;
}

/* Adds the certificate in force, and that the status key is its node's: said by its own key. */
static struct err present(struct dp_renewal *r, const struct work *w,
                          const struct renew_statement *s, json_t *body)
{
    char text[2 * NET_SIGNATURE_MAX + 1];
    auto_net_key struct evp_pkey_st *key = NULL;
    auto_buf struct buf leaf = BUF_MAX(DP_IDENTITY_FILE_MAX);
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    auto_buf struct buf proof = BUF_MAX(NET_SIGNATURE_MAX);
    TRY(read_leaf(w, &leaf));
    TRY(read_key(w, &key));
    TRY(present_statement(s, r->config.key->public.bytes, &statement));
    TRY(net_key_sign(key, buf_slice(&statement), &proof));
    text_hex(buf_slice(&proof), text);
    (void)json_object_set_new(body, "certificate", json_stringn((const char *)leaf.ptr, leaf.size));
    (void)json_object_set_new(body, "certificate_proof", json_string(text));
    return OK;
}

static bool is_stopping(void *ctx)
{
    struct dp_renewal *r = ctx;
    lock_take(&r->shared.lock);
    bool stop = r->shared.stop;
    lock_drop(&r->shared.lock);
    return stop;
}

static struct err make_body(struct dp_renewal *r, const struct work *w, bool presents, json_t **out)
{
    char proof[2 * KEY_SIGNATURE_SIZE + 1];
    int64_t at_ms = clock_wall_ms();
    const struct renew_statement s = {.environment = r->environment,
                                      .node = slice_str(r->self.node),
                                      .csr = buf_slice(&w->csr),
                                      .at_ms = at_ms,
                                      .count = next_count(r, at_ms)};
    TRY(prove(r, &s, proof));
    json_t *body = json_pack("{s:s, s:s%, s:I, s:I, s:s}", "node", r->self.node, "csr",
                             (const char *)w->csr.ptr, w->csr.size, "at_ms", (json_int_t)at_ms,
                             "count", (json_int_t)s.count, "proof", proof);
    struct err e = presents ? present(r, w, &s, body) : OK;
    if (!err_ok(e)) {
        json_decref(body);
        return e;
    }
    *out = body;
    return OK;
}

static struct err post(struct dp_renewal *r, struct work *w, bool presents)
{
    struct dp_server server = {.urls = r->self.server,
                               .pin = r->self.has_pin ? r->self.pin : NULL,
                               .ca = buf_slice(&w->server_ca),
                               .more_ca = buf_slice(&w->ca),
                               .gives_up = is_stopping,
                               .ctx = r};
    json_t *body = NULL;
    TRY(make_body(r, w, presents, &body));
    struct err e = dp_server_post(&server, "/api/v1/renew", body, &w->answer, w->message);
    json_decref(body);
    return e;
}

/* The certificate is sent to a control plane that has none of ours, and to no other: one of the
 * release before would take it for a mistake. */
static struct err ask(struct dp_renewal *r, struct work *w)
{
    TRY(dp_identity_get(&w->dir, DP_FILE_CA, &w->ca));
    struct err e = dp_identity_get(&w->dir, DP_FILE_SERVER_CA, &w->server_ca);
    TRY(e.code == E_NOT_FOUND ? OK : e);
    e = post(r, w, /* presents= */ false);
    return e.code == E_CERTIFICATE_MISSING ? post(r, w, /* presents= */ true) : e;
}

static struct slice text_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return slice_of(json_string_value(value), json_string_length(value));
}

/* The CAs first: a certificate of a new one is of no use to whoever does not know it. */
static struct err put(struct dp_renewal *r, struct work *w, struct dp_self_cert *out)
{
    struct slice ca = text_of(w->answer, "ca");
    struct slice chain = text_of(w->answer, "certificate");
    TRY(dp_self_judge(&r->self, chain, ca, w->key, out, w->message));
    if (!slice_eq(ca, buf_slice(&w->ca))) {
        TRY(dp_identity_put(&w->dir, DP_FILE_CA, ca));
    }
    TRY(dp_fault("renew.put"));
    return dp_self_take_cert(&w->dir, chain);
}

static struct err renew(struct dp_renewal *r, struct dp_self_cert *out, struct buf *message)
{
    __attribute__((cleanup(work_free))) struct work w = {.dir.fd = -1,
                                                         .csr = BUF_MAX(NET_CSR_MAX),
                                                         .ca = BUF_MAX(DP_IDENTITY_FILE_MAX),
                                                         .server_ca = BUF_MAX(DP_IDENTITY_FILE_MAX),
                                                         .message = message};
    TRY(dp_identity_open(r->config.data_dir, /* make= */ false, &w.dir, message));
    TRY(make_key(&w));
    TRY(ask(r, &w));
    return put(r, &w, out);
}

/* ---- when ---- */

static unsigned random_per_mille(void)
{
    uint32_t random = 0;
    ids_quick(&random, sizeof(random));
    return random % 1000;
}

/* Twice as long each time, and ± 20 %, so that nodes whose server was away do not come at once. */
static uint64_t next_backoff_ms(struct dp_renewal *r, const struct dp_self_cert *cert)
{
    uint32_t random = 0;
    ids_quick(&random, sizeof(random));
    uint64_t life_ms = (uint64_t)(cert->times.ends_s - cert->times.made_s) * 1000;
    uint64_t most =
        life_ms / BACKOFF_PART < BACKOFF_MAX_MS ? life_ms / BACKOFF_PART : BACKOFF_MAX_MS;
    most = most < BACKOFF_MIN_MS ? BACKOFF_MIN_MS : most;
    r->backoff_ms = r->backoff_ms == 0 ? BACKOFF_MIN_MS : r->backoff_ms * 2;
    r->backoff_ms = r->backoff_ms < most ? r->backoff_ms : most;
    return r->backoff_ms * (800 + random % 401) / 1000;
}

static void note(struct dp_renewal *r, const struct dp_self_cert *cert, struct err e)
{
    struct slice outcome = err_ok(e) ? SLICE_LIT("ok") : slice_str(err_name(e.code));
    metrics_add(r->config.shard,
                metrics_series(r->config.metrics, DP_METRIC_CERT_RENEWALS, &outcome), 1);
    lock_take(&r->shared.lock);
    struct dp_renewal_status *s = &r->shared.status;
    s->code = e.code;
    if (err_ok(e)) {
        s->cert = *cert;
        s->renewals++;
        s->next_s = dp_renewal_due_s(&cert->times, random_per_mille());
        r->backoff_ms = 0;
    } else {
        s->failures++;
        r->shared.rests_until_ns = clock_mono_ns() + next_backoff_ms(r, &s->cert) * NS_PER_MS;
    }
    lock_drop(&r->shared.lock);
}

/* One line for each change: what goes on failing was said. */
static void tell(struct dp_renewal *r, const struct dp_self_cert *cert, struct err e,
                 const struct buf *message)
{
    if (err_ok(e)) {
        LOG(LOG_INFO, "join", "renewed", LOG_STR("serial", cert->serial),
            LOG_I64("ends_s", cert->times.ends_s));
    } else if (e.code != r->logged) {
        LOG(e.code == E_NODE_REMOVED ? LOG_ERROR : LOG_WARN, "join", "not-renewed", LOG_ERR(e),
            LOG_SLICE("text", buf_slice(message)), LOG_STR("fix", err_fix(e.code)));
    }
    r->logged = e.code;
}

static void renew_once(struct dp_renewal *r)
{
    struct dp_self_cert cert = {.labels = ""};
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct err e = renew(r, &cert, &message);
    tell(r, &cert, e, &message);
    note(r, &cert, e);
    if (err_ok(e)) {
        r->config.renewed(r->config.ctx);
    }
}

/* 0: what failed may be tried again. */
static int64_t rest_ms(const struct dp_renewal *r) REQUIRES(r->shared.lock)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t until_ns = r->shared.rests_until_ns;
    return until_ns <= now_ns ? 0 : (int64_t)((until_ns - now_ns) / NS_PER_MS) + 1;
}

/* A certificate's life is of the wall clock, which may jump; what failed rests by the other. */
static int64_t next_left_ms(const struct dp_renewal *r) REQUIRES(r->shared.lock)
{
    int64_t left_ms = r->shared.status.next_s * 1000 - clock_wall_ms();
    int64_t rests_ms = rest_ms(r);
    return left_ms > rests_ms ? left_ms : rests_ms;
}

/* Sleeps until something is due; false when it is over. */
static bool wait_due(struct dp_renewal *r)
{
    bool due = false;
    lock_take(&r->shared.lock);
    while (!r->shared.stop && !due) {
        int64_t left_ms = next_left_ms(r);
        due = left_ms <= 0;
        left_ms = left_ms < SLEEP_MAX_MS ? left_ms : SLEEP_MAX_MS;
        if (!due) {
            struct timespec until;
            CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
            until.tv_sec += left_ms / 1000;
            until.tv_nsec += left_ms % 1000 * 1000000;
            until.tv_sec += until.tv_nsec / 1000000000;
            until.tv_nsec %= 1000000000;
            (void)pthread_cond_clockwait(&r->shared.stops, &r->shared.lock.m, CLOCK_MONOTONIC,
                                         &until);
        }
    }
    bool stop = r->shared.stop;
    lock_drop(&r->shared.lock);
    return !stop;
}

static void *thread_main(void *ctx)
{
    struct dp_renewal *r = ctx;
    while (wait_due(r)) {
        renew_once(r);
    }
    return NULL;
}

/* ---- start and stop ---- */

struct err dp_renewal_start(const struct dp_renewal_config *config, struct dp_renewal **out)
{
    struct dp_renewal *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    r->config = *config;
    r->self = *config->self;
    r->logged = E_OK;
    r->count = net_serial_count(config->cert->serial);
    snap_environment(slice_str(r->self.environment), r->environment);
    lock_init(&r->shared.lock);
    CHECK(pthread_cond_init(&r->shared.stops, NULL) == 0);
    lock_take(&r->shared.lock);
    r->shared.status = (struct dp_renewal_status){.cert = *config->cert};
    r->shared.status.next_s =
        dp_renewal_first_s(config->cert, clock_wall_ms() / 1000, random_per_mille());
    lock_drop(&r->shared.lock);
    if (pthread_create(&r->thread, NULL, thread_main, r) != 0) {
        CHECK(pthread_cond_destroy(&r->shared.stops) == 0);
        lock_free(&r->shared.lock);
        free(r);
        return FAIL(E_IO);
    }
    *out = r;
    return OK;
}

void dp_renewal_stop(struct dp_renewal *renewal)
{
    if (renewal == NULL) {
        return;
    }
    lock_take(&renewal->shared.lock);
    renewal->shared.stop = true;
    CHECK(pthread_cond_signal(&renewal->shared.stops) == 0);
    lock_drop(&renewal->shared.lock);
    CHECK(pthread_join(renewal->thread, NULL) == 0);
    CHECK(pthread_cond_destroy(&renewal->shared.stops) == 0);
    lock_free(&renewal->shared.lock);
    free(renewal);
}

void dp_renewal_status(struct dp_renewal *renewal, struct dp_renewal_status *out)
{
    lock_take(&renewal->shared.lock);
    *out = renewal->shared.status;
    int64_t rests_ms = rest_ms(renewal);
    int64_t again_s = (clock_wall_ms() + rests_ms + 999) / 1000;
    if (rests_ms > 0 && again_s > out->next_s) {
        out->next_s = again_s;
    }
    lock_drop(&renewal->shared.lock);
}
