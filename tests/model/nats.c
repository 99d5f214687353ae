/* nats: see nats.h. */
#include "tests/model/nats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/snapshot/set.h"

#include "tests/model/ledger.h"

enum { BUCKETS_MAX = 4, WRITES_MAX = 1 << 16, SUBSCRIPTIONS_MAX = 1 << 12, SUBJECT_MAX = 512 };

/* A connection that hears nothing notices so by its pings. */
#define NOTICED_NS (4 * SIM_SECOND)
/* A request on its way, there and back. */
#define TRIP_MOST_NS (2 * SIM_MS)
/* A write that was given up arrives so late, at most. */
#define LATE_NS (10 * SIM_SECOND)

/* What a server takes for a message beside its payload. */
enum { OVERHEAD = 64 };

struct write {
    uint64_t sequence;
    uint64_t at_ns;
    enum kv_state state; /* KV_MISSING: forgotten. */
    struct slice key;
    struct slice value;
};

struct stream {
    bool exists;
    uint64_t life; /* another one whenever its numbers begin anew. */
    uint64_t sequence;
    const struct write **writes;
    size_t count;
};

struct bucket {
    char name[KV_BUCKET_MAX + 1];
    struct stream now;
    struct stream kept; /* the backup. */
    const struct write **ever;
    size_t ever_count;
};

struct bus_subscription {
    struct sim_process *process;
    uint64_t life;
    struct nats_link *link;
    char subject[SUBJECT_MAX];
    struct queue *queue;         /* NULL: messages wait until they are taken. */
    struct bus_message *waiting; /* the newest, of those. */
    void *ctx;
    size_t payload_max; /* 0: any. */
    bool dead;
    bool ended;
};

struct nats_faults nats_faults;

static struct {
    struct bucket buckets[BUCKETS_MAX];
    size_t bucket_count;
    struct bus_subscription *subscriptions[SUBSCRIPTIONS_MAX];
    size_t subscription_count;
} nats;

static struct slice copy(struct slice from)
{
    uint8_t *bytes = malloc(from.size + 1);
    CHECK(bytes != NULL);
    if (from.size > 0) {
        memcpy(bytes, from.ptr, from.size);
    }
    bytes[from.size] = '\0';
    return slice_of(bytes, from.size);
}

void nats_begin(void)
{
    memset(&nats, 0, sizeof(nats));
    nats_faults = (struct nats_faults){.delay_ns = 3 * SIM_MS};
}

/* ---- buckets ---- */

static struct bucket *find_bucket(const char *name)
{
    for (size_t i = 0; i < nats.bucket_count; i++) {
        if (strcmp(nats.buckets[i].name, name) == 0) {
            return &nats.buckets[i];
        }
    }
    CHECK(nats.bucket_count < BUCKETS_MAX);
    struct bucket *b = &nats.buckets[nats.bucket_count++];
    (void)snprintf(b->name, sizeof(b->name), "%s", name);
    b->ever = calloc(WRITES_MAX, sizeof(struct write *));
    CHECK(b->ever != NULL);
    return b;
}

static uint64_t next_life(void)
{
    static uint64_t lives;
    return ++lives;
}

static void make_stream(struct stream *s)
{
    *s = (struct stream){.exists = true, .life = next_life()};
    s->writes = calloc(WRITES_MAX, sizeof(struct write *));
    CHECK(s->writes != NULL);
}

/* The last write of a key as of a time; NULL: none. */
static const struct write *last_write(const struct stream *s, struct slice key, uint64_t as_of_ns)
{
    for (size_t i = s->count; i > 0; i--) {
        const struct write *w = s->writes[i - 1];
        if (w->at_ns <= as_of_ns && slice_eq(w->key, key)) {
            return w->state == KV_MISSING ? NULL : w;
        }
    }
    return NULL;
}

static void add_write(struct bucket *b, struct slice key, enum kv_state state, struct slice value)
{
    struct stream *s = &b->now;
    struct write *w = malloc(sizeof(*w));
    CHECK(w != NULL && s->count < WRITES_MAX && b->ever_count < WRITES_MAX);
    *w = (struct write){.sequence = state == KV_MISSING ? 0 : ++s->sequence,
                        .at_ns = sim_now_ns(),
                        .state = state,
                        .key = copy(key),
                        .value = copy(value)};
    s->writes[s->count++] = w;
    if (state == KV_VALUE) {
        b->ever[b->ever_count++] = w;
    }
}

static void announce(const struct bucket *b, struct slice key, struct slice value)
{
    char subject[SUBJECT_MAX];
    int size = snprintf(subject, sizeof(subject), "$KV.%s.%.*s", b->name, SLICE_ARG(key));
    nats_send(slice_of(subject, (size_t)size), value);
}

static void put(struct bucket *b, struct slice key, enum kv_state state, struct slice value)
{
    add_write(b, key, state, value);
    if (state != KV_MISSING) {
        announce(b, key, value);
    }
}

/* ---- for the schedule and the intruder ---- */

void nats_put(const char *bucket, struct slice key, struct slice value)
{
    struct bucket *b = find_bucket(bucket);
    if (b->now.exists && !nats_faults.down) {
        put(b, key, KV_VALUE, value);
    }
}

void nats_mark(const char *bucket, struct slice key)
{
    struct bucket *b = find_bucket(bucket);
    if (b->now.exists && !nats_faults.down) {
        put(b, key, KV_DELETED, (struct slice){0});
    }
}

void nats_forget(const char *bucket, struct slice key)
{
    struct bucket *b = find_bucket(bucket);
    if (!b->now.exists) {
        return;
    }
    if (key.size > 0) {
        put(b, key, KV_MISSING, (struct slice){0});
        return;
    }
    b->now.count = 0; /* the sequence goes on. */
}

void nats_destroy(const char *bucket)
{
    find_bucket(bucket)->now = (struct stream){0};
}

static struct stream duplicate(const struct stream *from)
{
    struct stream to = *from;
    if (from->exists) {
        make_stream(&to);
        memcpy(to.writes, from->writes, from->count * sizeof(struct write *));
        to.count = from->count;
        to.sequence = from->sequence;
    }
    return to;
}

void nats_backup(const char *bucket)
{
    struct bucket *b = find_bucket(bucket);
    b->kept = duplicate(&b->now);
}

void nats_restore(const char *bucket)
{
    struct bucket *b = find_bucket(bucket);
    b->now = duplicate(&b->kept);
    b->now.life = next_life();
}

bool nats_get(const char *bucket, struct slice key, struct slice *out_value)
{
    const struct write *w = last_write(&find_bucket(bucket)->now, key, sim_now_ns());
    if (w == NULL || w->state != KV_VALUE) {
        return false;
    }
    *out_value = w->value;
    return true;
}

bool nats_ever(const char *bucket, struct slice key, struct slice *out_value)
{
    const struct bucket *b = find_bucket(bucket);
    for (size_t i = b->ever_count; i > 0; i--) {
        if (slice_eq(b->ever[i - 1]->key, key)) {
            *out_value = b->ever[i - 1]->value;
            return true;
        }
    }
    return false;
}

bool nats_any_of(const char *bucket, const char *key_prefix, struct slice *out_key,
                 struct slice *out_value)
{
    const struct bucket *b = find_bucket(bucket);
    size_t from = b->ever_count == 0 ? 0 : sim_random(b->ever_count);
    for (size_t i = 0; i < b->ever_count; i++) {
        const struct write *w = b->ever[(from + i) % b->ever_count];
        if (slice_starts(w->key, slice_str(key_prefix))) {
            *out_key = w->key;
            *out_value = w->value;
            return true;
        }
    }
    return false;
}

/* ---- connections ---- */

/* Servers that are gone are noticed at once, a way that swallows everything by pings. */
static bool is_connected(const struct nats_link *link)
{
    bool noticed = link->way != NATS_UP && sim_now_ns() - link->since_ns > NOTICED_NS;
    return !nats_faults.down && !noticed;
}

enum bus_state bus_state(struct bus *bus)
{
    return is_connected(bus->link) ? BUS_CONNECTED : BUS_RECONNECTING;
}

static bool is_up(void *ctx)
{
    const struct bus *bus = ctx;
    return is_connected(bus->link);
}

struct err bus_wait_connected(struct bus *bus, uint64_t timeout_ms)
{
    bool up = sim_wait(is_up, bus, sim_deadline_ns(timeout_ms * SIM_MS));
    return up ? OK : FAIL(E_TIMEOUT);
}

const char *bus_exposure(const struct bus *bus)
{
    (void)bus;
    return NULL;
}

void bus_last_error(struct bus *bus, char out[BUS_ERROR_TEXT_MAX])
{
    (void)bus;
    out[0] = '\0'; /* it has no limits that would refuse something. */
}

uint64_t bus_down_ms(struct bus *bus)
{
    return is_connected(bus->link) ? 0 : (sim_now_ns() - bus->link->since_ns) / SIM_MS;
}

/* ---- core messages ---- */

static struct bus_message *make_message(struct slice subject, struct slice payload, void *ctx)
{
    struct bus_message *m = malloc(sizeof(*m) + subject.size + 1 + payload.size);
    CHECK(m != NULL);
    uint8_t *bytes = (uint8_t *)(m + 1);
    memcpy(bytes, subject.ptr, subject.size);
    bytes[subject.size] = '\0';
    if (payload.size > 0) {
        memcpy(bytes + subject.size + 1, payload.ptr, payload.size);
    }
    *m = (struct bus_message){.ctx = ctx,
                              .subject = slice_of(bytes, subject.size),
                              .payload = slice_of(bytes + subject.size + 1, payload.size)};
    return m;
}

void bus_message_free(struct bus_message *message)
{
    free(message);
}

void bus_message_drop(void *message)
{
    free(message);
}

struct delivery {
    struct bus_subscription *to;
    struct slice subject;
    struct slice payload;
};

static void push(void *ctx)
{
    struct delivery *d = ctx;
    struct bus_message *m = make_message(d->subject, d->payload, d->to->ctx);
    if (d->to->queue == NULL) {
        free(d->to->waiting);
        d->to->waiting = m;
        return;
    }
    bool fits = d->to->payload_max == 0 || d->payload.size <= d->to->payload_max;
    if (!fits || !err_ok(queue_push(d->to->queue, m))) {
        free(m);
    }
}

static bool listens(const struct bus_subscription *s)
{
    return !s->ended && !s->dead && s->process->alive && s->process->life == s->life;
}

static void deliver(void *ctx)
{
    struct delivery *d = ctx;
    if (listens(d->to) && d->to->link->way == NATS_UP && !nats_faults.down) {
        sim_inside(d->to->process, push, d);
    }
    free(d);
}

/* "a.b.c" by itself, and "a.b.>". */
static bool matches(const char *pattern, struct slice subject)
{
    size_t size = strlen(pattern);
    bool rest = size > 0 && pattern[size - 1] == '>';
    return rest ? slice_starts(subject, slice_of(pattern, size - 1))
                : slice_eq(subject, slice_str(pattern));
}

static void send_to(struct bus_subscription *to, struct slice subject, struct slice payload)
{
    unsigned times = sim_chance(nats_faults.doubled_per_mille) ? 2 : 1;
    for (unsigned i = 0; i < times; i++) {
        struct delivery *d = malloc(sizeof(*d));
        CHECK(d != NULL);
        *d = (struct delivery){.to = to, .subject = subject, .payload = payload};
        sim_at(sim_now_ns() + sim_random(nats_faults.delay_ns + 1), deliver, d);
    }
}

void nats_send(struct slice subject, struct slice payload)
{
    if (nats_faults.down) {
        return;
    }
    struct slice kept_subject = copy(subject);
    struct slice kept_payload = copy(payload);
    for (size_t i = 0; i < nats.subscription_count; i++) {
        struct bus_subscription *s = nats.subscriptions[i];
        if (listens(s) && matches(s->subject, subject) && !sim_chance(nats_faults.lost_per_mille)) {
            send_to(s, kept_subject, kept_payload);
        }
    }
}

struct err bus_publish(struct bus *bus, const struct bus_outgoing *message)
{
    sim_point("bus.publish");
    if (!is_connected(bus->link)) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    if (bus->link->way != NATS_LOST) {
        nats_send(message->subject, message->payload);
    }
    return OK;
}

static void forget_ended(void)
{
    size_t kept = 0;
    for (size_t i = 0; i < nats.subscription_count; i++) {
        struct bus_subscription *s = nats.subscriptions[i];
        if (!s->ended && s->process->life == s->life) {
            nats.subscriptions[kept++] = s;
        }
    }
    nats.subscription_count = kept;
}

struct err bus_subscribe(struct bus *bus, struct slice subject, struct slice group,
                         struct queue *queue, void *ctx, struct bus_subscription **out)
{
    CHECK(group.size == 0 && subject.size < SUBJECT_MAX);
    forget_ended();
    struct bus_subscription *s = calloc(1, sizeof(*s));
    CHECK(s != NULL && nats.subscription_count < SUBSCRIPTIONS_MAX);
    *s = (struct bus_subscription){.process = bus->process,
                                   .life = bus->process->life,
                                   .link = bus->link,
                                   .queue = queue,
                                   .ctx = ctx};
    memcpy(s->subject, subject.ptr, subject.size);
    nats.subscriptions[nats.subscription_count++] = s;
    *out = s;
    return OK;
}

struct err bus_subscribe_payloads(struct bus *bus, struct slice subject, size_t payload_max,
                                  struct queue *queue, void *ctx, struct bus_subscription **out)
{
    TRY(bus_subscribe(bus, subject, /* group= */ (struct slice){0}, queue, ctx, out));
    (*out)->payload_max = payload_max;
    return OK;
}

struct err bus_subscribe_waiting(struct bus *bus, struct slice subject, size_t messages,
                                 size_t bytes, struct bus_subscription **out)
{
    (void)messages;
    (void)bytes;
    return bus_subscribe(bus, subject, /* group= */ (struct slice){0}, /* queue= */ NULL,
                         /* ctx= */ NULL, out);
}

struct bus_message *bus_take(struct bus_subscription *sub)
{
    struct bus_message *m = sub->waiting;
    sub->waiting = NULL;
    return m;
}

void bus_unsubscribe(struct bus *bus, struct bus_subscription *sub)
{
    (void)bus;
    if (sub != NULL) {
        sub->ended = true; /* a delivery may be on its way to it. */
    }
}

void nats_deafen(const struct sim_process *process)
{
    for (size_t i = 0; i < nats.subscription_count; i++) {
        struct bus_subscription *s = nats.subscriptions[i];
        s->dead = s->dead || s->process == process;
    }
}

/* ---- requests ---- */

enum answer { ANSWERED, UNANSWERED, UNREACHABLE };

/* A request goes out; what becomes of it when it does. */
static enum answer ask(const struct kv *kv, uint64_t timeout_ms)
{
    const struct nats_link *link = kv->bus->link;
    if (!is_connected(link)) {
        return UNREACHABLE;
    }
    sim_sleep(sim_random(TRIP_MOST_NS));
    if (link->way == NATS_LOST || nats_faults.down) {
        sim_sleep(sim_deadline_ns(timeout_ms * SIM_MS) - sim_now_ns());
        return UNANSWERED;
    }
    return ANSWERED;
}

/* The answer comes back, or does not. */
static enum answer hear(const struct kv *kv, uint64_t timeout_ms)
{
    if (kv->bus->link->way != NATS_UP || nats_faults.down) {
        sim_sleep(sim_deadline_ns(timeout_ms * SIM_MS) - sim_now_ns());
        return UNANSWERED;
    }
    return ANSWERED;
}

/* ---- kv.h ---- */

static const struct sim_clock server_clock;

static struct kv_entry entry_of(const struct write *w)
{
    if (w == NULL) {
        return (struct kv_entry){.state = KV_MISSING};
    }
    int64_t age_ms = (int64_t)((sim_now_ns() - w->at_ns) / SIM_MS);
    return (struct kv_entry){
        .state = w->state, .revision = w->sequence, .time_ms = sim_wall_ms(&server_clock) - age_ms};
}

struct err kv_bind(struct kv *kv, struct bus *bus, struct slice bucket)
{
    *kv = (struct kv){.bus = bus};
    CHECK(bucket.size < sizeof(kv->bucket));
    memcpy(kv->bucket, bucket.ptr, bucket.size);
    return OK;
}

/* There is one account. */
struct err kv_bind_imported(struct kv *kv, struct bus *bus, struct slice bucket, const char *api)
{
    (void)api;
    return kv_bind(kv, bus, bucket);
}

/* How a bucket is; it has as many replicas as it should. */
static struct stream_info info_of(const struct stream *s)
{
    struct stream_info info = {.replicas = NATS_SERVERS, .replicas_current = NATS_SERVERS};
    for (size_t i = 0; i < s->count; i++) {
        const struct write *w = s->writes[i];
        if (last_write(s, w->key, SIM_NEVER) == w) {
            info.messages++;
            info.bytes += w->value.size + OVERHEAD;
        }
    }
    return info;
}

struct err kv_ensure(const struct kv *kv, const struct kv_config *config, uint64_t timeout_ms,
                     struct buf *why, struct stream_info *out)
{
    (void)config;
    (void)why;
    sim_point("kv.ensure");
    if (ask(kv, timeout_ms) != ANSWERED) {
        return FAIL(E_UNAVAILABLE);
    }
    struct bucket *b = find_bucket(kv->bucket);
    if (!b->now.exists) {
        make_stream(&b->now);
        sim_note("bucket %s is made", kv->bucket);
    }
    if (out != NULL) {
        *out = info_of(&b->now);
    }
    enum answer heard = hear(kv, timeout_ms);
    sim_point("kv.ensured");
    return heard == ANSWERED ? OK : FAIL(E_UNAVAILABLE);
}

struct err kv_look(const struct kv *kv, uint64_t timeout_ms, struct stream_info *out)
{
    sim_point("kv.look");
    if (ask(kv, timeout_ms) != ANSWERED) {
        return FAIL(E_UNAVAILABLE);
    }
    const struct bucket *b = find_bucket(kv->bucket);
    bool exists = b->now.exists;
    *out = info_of(&b->now);
    return hear(kv, timeout_ms) == ANSWERED && exists ? OK : FAIL(E_UNAVAILABLE);
}

struct err kv_raise(const struct kv *kv, uint32_t replicas, uint64_t timeout_ms,
                    struct stream_info *out)
{
    (void)replicas;
    return kv_look(kv, timeout_ms, out);
}

/* Whoever visits does not wait: the list is as of one moment, and comes when it was. */
struct err kv_list(const struct kv *kv, uint64_t timeout_ms, kv_list_fn *visit, void *ctx)
{
    sim_point("kv.list");
    if (ask(kv, timeout_ms) != ANSWERED) {
        return FAIL(E_UNAVAILABLE);
    }
    struct stream s = duplicate(&find_bucket(kv->bucket)->now);
    if (hear(kv, timeout_ms) != ANSWERED || !s.exists) {
        return FAIL(E_UNAVAILABLE);
    }
    for (size_t i = 0; i < s.count; i++) {
        const struct write *w = s.writes[i];
        struct kv_entry entry = entry_of(w);
        if (w->state != KV_MISSING && last_write(&s, w->key, SIM_NEVER) == w) {
            TRY(visit(ctx, w->key, &entry));
        }
    }
    return OK;
}

bool kv_answers(const struct kv *kv, uint64_t timeout_ms)
{
    sim_point("kv.answers");
    return ask(kv, timeout_ms) == ANSWERED && hear(kv, timeout_ms) == ANSWERED;
}

struct err bus_ping(struct bus *bus, uint64_t timeout_ms)
{
    const struct kv kv = {.bus = bus};
    return kv_answers(&kv, timeout_ms) ? OK : FAIL(E_UNAVAILABLE);
}

static struct err take(const struct write *w, struct buf *value, struct kv_entry *out)
{
    if (w != NULL && w->state == KV_VALUE) {
        TRY(buf_add(value, w->value));
    }
    *out = entry_of(w);
    return OK;
}

struct err kv_get(const struct kv *kv, struct slice key, enum kv_read read, uint64_t timeout_ms,
                  struct buf *value, struct kv_entry *out)
{
    sim_point("kv.get");
    if (ask(kv, timeout_ms) != ANSWERED) {
        return FAIL(E_UNAVAILABLE);
    }
    const struct bucket *b = find_bucket(kv->bucket);
    uint64_t behind_ns = read == KV_READ_ANY ? sim_random(nats_faults.behind_ns + 1) : 0;
    uint64_t now_ns = sim_now_ns();
    bool exists = b->now.exists;
    const struct write *w =
        exists ? last_write(&b->now, key, behind_ns < now_ns ? now_ns - behind_ns : 0) : NULL;
    enum answer heard = hear(kv, timeout_ms);
    sim_point("kv.got");
    return heard != ANSWERED || !exists ? FAIL(E_UNAVAILABLE) : take(w, value, out);
}

struct request {
    struct bucket *bucket;
    uint64_t life; /* of the bucket's stream when it was sent. */
    struct slice key;
    struct slice value;
    enum kv_state state;
    uint64_t expected;
    bool erases;           /* it leaves no marker. */
    uint64_t judged_at_ns; /* the condition holds for what was stored by then. */
    uint64_t revision;
    struct err result;
};

/* What the server makes of a write. */
static void judge_write(struct request *q)
{
    const struct stream *s = &q->bucket->now;
    if (!s->exists) { /* nobody keeps the message; whoever listens gets it all the same. */
        announce(q->bucket, q->key, q->value);
        q->result = FAIL(E_UNAVAILABLE);
        return;
    }
    const struct write *w = last_write(s, q->key, q->judged_at_ns);
    if (q->expected != KV_ANY_REVISION && q->expected != (w == NULL ? 0 : w->sequence)) {
        q->result = FAIL(E_CONFLICT);
        return;
    }
    if (nats_faults.full && q->state == KV_VALUE) {
        q->result = FAIL(E_BUS_FULL);
        return;
    }
    bool is_head = slice_eq(q->key, SLICE_LIT(SNAP_KEY_HEAD)) && q->state == KV_VALUE;
    /* A condition on a number of a stream that is gone may hold by chance, and comes late: a beat
     * later it is written over, and nodes do not follow it. */
    bool binds = q->life == s->life && !nats_faults.races;
    if (is_head && w != NULL && w->state == KV_VALUE && binds) {
        ledger_pointed(w->value, q->value);
    }
    put(q->bucket, q->key, q->erases ? KV_MISSING : q->state, q->value);
    q->revision = s->sequence;
    q->result = OK;
}

static void arrive_late(void *ctx)
{
    struct request *q = ctx;
    if (!nats_faults.down) {
        judge_write(q);
        sim_note("a late write of %.*s: %s", SLICE_ARG(q->key), err_name(q->result.code));
    }
    free(q);
}

static void send_late(const struct request *q)
{
    struct request *late = malloc(sizeof(*late));
    CHECK(late != NULL);
    *late = *q;
    late->key = copy(q->key);
    late->value = copy(q->value);
    sim_at(sim_now_ns() + sim_random(LATE_NS), arrive_late, late);
}

/* Nobody knows: it was done, will be, or is lost. */
static struct err leave_unknown(struct request *q, uint64_t timeout_ms)
{
    uint64_t what = sim_random(3);
    if (what == 0) {
        judge_write(q);
    } else if (what == 1) {
        send_late(q);
    }
    sim_sleep(sim_deadline_ns(timeout_ms * SIM_MS) - sim_now_ns());
    return FAIL(E_RESULT_UNKNOWN);
}

static struct err send_write(const struct kv *kv, struct request *q, uint64_t timeout_ms,
                             uint64_t *out_revision)
{
    sim_point("kv.write");
    q->bucket = find_bucket(kv->bucket);
    q->life = q->bucket->now.life;
    q->judged_at_ns = nats_faults.races && !q->erases ? sim_now_ns() : SIM_NEVER;
    enum answer asked = ask(kv, timeout_ms);
    if (asked != ANSWERED) {
        return FAIL(asked == UNREACHABLE ? E_UNAVAILABLE : E_RESULT_UNKNOWN);
    }
    if (sim_chance(nats_faults.unknown_per_mille)) {
        return leave_unknown(q, timeout_ms);
    }
    judge_write(q);
    enum answer heard = hear(kv, timeout_ms);
    sim_point("kv.written");
    if (heard != ANSWERED) {
        return FAIL(E_RESULT_UNKNOWN);
    }
    if (err_ok(q->result) && out_revision != NULL) {
        *out_revision = q->revision;
    }
    return q->result;
}

struct err kv_put(const struct kv *kv, struct slice key, struct slice value, uint64_t timeout_ms,
                  uint64_t *out_revision)
{
    struct request q = {.key = key, .value = value, .state = KV_VALUE, .expected = KV_ANY_REVISION};
    return send_write(kv, &q, timeout_ms, out_revision);
}

/* One after the other: whoever is cut off in between has written some of them, as there. */
struct err kv_put_all(const struct kv *kv, struct kv_item *items, size_t count, uint64_t timeout_ms)
{
    for (size_t i = 0; i < count; i++) {
        if (!items[i].done) {
            TRY(kv_put(kv, items[i].key, items[i].value, timeout_ms, /* out_revision= */ NULL));
            items[i].done = true;
        }
    }
    return OK;
}

struct err kv_create(const struct kv *kv, struct slice key, struct slice value, uint64_t timeout_ms,
                     uint64_t *out_revision)
{
    return kv_update(kv, key, value, /* expected= */ 0, timeout_ms, out_revision);
}

struct err kv_update(const struct kv *kv, struct slice key, struct slice value, uint64_t expected,
                     uint64_t timeout_ms, uint64_t *out_revision)
{
    struct request q = {.key = key, .value = value, .state = KV_VALUE, .expected = expected};
    return send_write(kv, &q, timeout_ms, out_revision);
}

struct err kv_purge(const struct kv *kv, struct slice key, uint64_t expected, uint64_t timeout_ms)
{
    struct request q = {.key = key, .state = KV_DELETED, .expected = expected};
    return send_write(kv, &q, timeout_ms, /* out_revision= */ NULL);
}

struct err kv_erase(const struct kv *kv, struct slice key, uint64_t revision, uint64_t timeout_ms)
{
    struct request q = {.key = key, .state = KV_DELETED, .expected = revision, .erases = true};
    return send_write(kv, &q, timeout_ms, /* out_revision= */ NULL);
}
