/*
 * kv_list: the keys of a bucket, by a consumer that lives as long as the list.
 *
 * A read by key would bring the values; the stream's own list of subjects has no revisions and
 * comes in one piece. So: an unacknowledged pull consumer of headers alone, kept in memory on one
 * server, asked for a page at a time. It is deleted at the end, and the server forgets it by itself
 * when this process dies in between.
 */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/bus/bus_internal.h"
#include "common/bus/ensure.h"
#include "common/bus/flat_json.h"
#include "common/bus/jetstream.h"
#include "common/bus/kv.h"
#include "common/bus/kv_internal.h"

enum {
    PAGE = 256,
    FORGOTTEN_MS = 10000, /* the server drops a consumer that nobody asked for so long. */
    NAME_RANDOM = 8,
    NAME_SIZE = 32,
    TEXT_SIZE = 768,
};

struct list {
    const struct kv *kv;
    uint64_t timeout_ms;
    kv_list_fn *visit;
    void *ctx;
    char stream[KV_BUCKET_MAX + 4];
    char name[NAME_SIZE];
    char filter[KV_BUCKET_MAX + 16]; /* "$KV.<bucket>.>" */
    char inbox[BUS_INBOX_SIZE + NAME_SIZE];
    struct queue queue;
    sem_t wakes;
    struct bus_subscription *subscription;
    uint64_t pending; /* keys that were not seen yet, as the server counts. */
};

static void wake(void *ctx)
{
    struct list *list = ctx;
    CHECK(sem_post(&list->wakes) == 0);
}

/* ---- the consumer ---- */

static struct err take_created(struct slice answer, uint64_t *out_pending)
{
    struct flat_json json = flat_json_of(answer);
    struct flat_json_member m;
    bool more = false;
    bool counted = false;
    TRY(flat_json_next(&json, &m, &more));
    while (more) {
        if (slice_eq(m.name, SLICE_LIT("error"))) {
            return FAIL(E_UNAVAILABLE); /* no such stream, or no room for a consumer. */
        }
        if (slice_eq(m.name, SLICE_LIT("num_pending"))) {
            counted = slice_to_u64(m.value, out_pending);
        }
        TRY(flat_json_next(&json, &m, &more));
    }
    return counted ? OK : FAIL(E_MALFORMED);
}

static struct err ask(struct list *list, const char *subject, struct slice body, natsMsg **out)
{
    struct bus_outgoing request = {.subject = slice_str(subject), .payload = body};
    struct err err = bus_request(list->kv->bus, &request, list->timeout_ms, out);
    return err.code == E_RESULT_UNKNOWN ? FAIL(E_UNAVAILABLE) : err; /* it ends by itself. */
}

static struct err create(struct list *list)
{
    char subject[TEXT_SIZE];
    char body[TEXT_SIZE];
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.CREATE.%s.%s.%s", list->stream,
                   list->name, list->filter);
    int size = snprintf(body, sizeof(body),
                        "{\"stream_name\": \"%s\", \"config\": {\"name\": \"%s\", "
                        "\"deliver_policy\": \"last_per_subject\", \"ack_policy\": \"none\", "
                        "\"replay_policy\": \"instant\", \"filter_subject\": \"%s\", "
                        "\"headers_only\": true, \"mem_storage\": true, \"num_replicas\": 1, "
                        "\"inactive_threshold\": %llu}}",
                        list->stream, list->name, list->filter,
                        (unsigned long long)FORGOTTEN_MS * 1000000);
    CHECK(size > 0 && (size_t)size < sizeof(body));
    natsMsg *answer = NULL;
    TRY(ask(list, subject, slice_of(body, (size_t)size), &answer));
    struct err err = take_created(
        slice_of(natsMsg_GetData(answer), (size_t)natsMsg_GetDataLength(answer)), &list->pending);
    natsMsg_Destroy(answer);
    return err.code == E_MALFORMED ? FAIL(E_UNAVAILABLE) : err;
}

/* Whatever comes of it: a consumer that is not asked any more goes by itself. */
static void delete (struct list *list)
{
    char subject[TEXT_SIZE];
    natsMsg *answer = NULL;
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DELETE.%s.%s", list->stream,
                   list->name);
    if (err_ok(ask(list, subject, (struct slice){0}, &answer))) {
        natsMsg_Destroy(answer);
    }
}

/* ---- pages ---- */

/* The next message, or NULL when none came in time. */
static struct bus_message *next(struct list *list)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(list->timeout_ms / 1000);
    until.tv_nsec += (long)(list->timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    for (;;) { /* ends with a message, or the time. */
        void *item = NULL;
        if (queue_pop(&list->queue, &item, 1) == 1) {
            return item;
        }
        if (sem_clockwait(&list->wakes, CLOCK_MONOTONIC, &until) != 0 && errno == ETIMEDOUT) {
            return NULL;
        }
    }
}

static struct err visit(struct list *list, const struct bus_message *message)
{
    struct jetstream_delivery delivery;
    struct slice prefix = slice_str(list->filter);
    prefix.size--; /* '>' */
    if (!slice_starts(message->subject, prefix) ||
        !err_ok(jetstream_delivery_parse(message->reply, &delivery))) {
        return FAIL(E_UNAVAILABLE); /* somebody else sends to our inbox. */
    }
    list->pending = delivery.pending;
    struct slice operation = bus_message_header(message, SLICE_LIT("KV-Operation"));
    struct kv_entry entry = {.state = kv_is_marker(operation) ? KV_DELETED : KV_VALUE,
                             .revision = delivery.stream_sequence,
                             .time_ms = delivery.time_ms};
    return list->visit(list->ctx, slice_from(message->subject, prefix.size), &entry);
}

/*
 * One page. What was removed meanwhile never comes, while the server may still count it: then the
 * pull ends by its own time, and so does the list.
 */
static struct err page(struct list *list)
{
    struct jetstream_pull pull = {.stream = slice_str(list->stream),
                                  .durable = slice_str(list->name),
                                  .inbox = slice_str(list->inbox),
                                  .batch = PAGE,
                                  .expires_ms = list->timeout_ms / 4 + 1};
    struct err err = jetstream_pull(list->kv->bus, &pull);
    TRY(err_ok(err) ? OK : FAIL(E_UNAVAILABLE));
    for (int i = 0; i < PAGE && list->pending > 0; i++) {
        struct bus_message *message = next(list);
        if (message == NULL) {
            return FAIL(E_UNAVAILABLE);
        }
        uint32_t status = jetstream_pull_status(message);
        bool over = status == 404 || status == 408;
        list->pending = over ? 0 : list->pending;
        err = over ? OK : status == 0 ? visit(list, message) : FAIL(E_UNAVAILABLE);
        bus_message_free(message);
        TRY(err);
    }
    return OK;
}

static struct err pages(struct list *list)
{
    TRY(bus_subscribe(list->kv->bus, slice_str(list->inbox), /* group= */ (struct slice){0},
                      &list->queue, list, &list->subscription));
    while (list->pending > 0) { /* ends: each page brings it down, or time is over. */
        TRY(page(list));
    }
    return OK;
}

struct err kv_list(const struct kv *kv, uint64_t timeout_ms, kv_list_fn *visit_fn, void *ctx)
{
    struct list list = {.kv = kv, .timeout_ms = timeout_ms, .visit = visit_fn, .ctx = ctx};
    uint8_t random[NAME_RANDOM];
    char hex[2 * NAME_RANDOM + 1];
    ids_random(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), hex);
    (void)snprintf(list.stream, sizeof(list.stream), "KV_%s", kv->bucket);
    (void)snprintf(list.name, sizeof(list.name), "list_%s", hex);
    (void)snprintf(list.filter, sizeof(list.filter), "$KV.%s.>", kv->bucket);
    (void)snprintf(list.inbox, sizeof(list.inbox), "%s.list.%s", kv->bus->inbox, hex);
    TRY(queue_init(&list.queue, (size_t)2 * PAGE, wake, &list));
    CHECK(sem_init(&list.wakes, 0, 0) == 0);
    struct err err = create(&list);
    if (err_ok(err)) {
        err = pages(&list);
        bus_unsubscribe(kv->bus, list.subscription);
        delete (&list);
    }
    queue_free(&list.queue, bus_message_drop);
    (void)sem_destroy(&list.wakes);
    return err;
}
