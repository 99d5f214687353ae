/* access: see access.h. */
#include "dataplane/request/access.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/queue.h"
#include "dataplane/request/request.h"

enum {
    BLOCK_BYTES = 64 << 10,
    VALUE_MAX_BYTES = 256,
    LINE_MAX_BYTES = 4096, /* all values as long as they are let be. */
    BLOCKS_MAX = 64,
    AGE_MAX_NS = 100000000
};

struct block {
    size_t size;
    size_t lines;
    char bytes[BLOCK_BYTES];
};

struct dp_access_writer {
    struct queue full; /* blocks to write. */
    sem_t wake;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic uint64_t dropped;
    int fd;
};

struct dp_access_log {
    struct dp_access_writer *writer;
    struct block *block; /* being filled; NULL: none. */
    uint64_t since_ns;   /* of its first line. */
};

static void wake(void *ctx)
{
    struct dp_access_writer *w = ctx;
    CHECK(sem_post(&w->wake) == 0);
}

static void write_block(struct dp_access_writer *w, const struct block *block)
{
    size_t at = 0;
    while (at < block->size) {
        ssize_t n = write(w->fd, block->bytes + at, block->size - at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            atomic_fetch_add(&w->dropped, block->lines);
            return;
        }
        at += (size_t)n;
    }
}

static void *run(void *arg)
{
    struct dp_access_writer *w = arg;
    for (;;) { /* ends when dp_access_writer_free() says so and the queue is empty. */
        void *item = NULL;
        while (queue_pop(&w->full, &item, 1) == 1) {
            write_block(w, item);
            free(item);
        }
        if (atomic_load(&w->stop)) {
            return NULL;
        }
        while (sem_wait(&w->wake) != 0) {
            CHECK(errno == EINTR);
        }
    }
}

static void close_file(int fd)
{
    if (fd != STDOUT_FILENO) {
        (void)close(fd);
    }
}

struct err dp_access_writer_new(const char *path, struct dp_access_writer **out)
{
    int fd = STDOUT_FILENO;
    if (strcmp(path, "-") != 0) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (fd < 0) {
            return FAIL(E_IO);
        }
    }
    struct dp_access_writer *w = calloc(1, sizeof(*w));
    if (w == NULL || !err_ok(queue_init(&w->full, BLOCKS_MAX, wake, w))) {
        free(w);
        close_file(fd);
        return FAIL(E_NO_MEMORY);
    }
    w->fd = fd;
    CHECK(sem_init(&w->wake, /* shared between processes: */ 0, 0) == 0);
    if (pthread_create(&w->thread, NULL, run, w) != 0) {
        queue_free(&w->full, free);
        free(w);
        close_file(fd);
        return FAIL(E_NO_MEMORY);
    }
    *out = w;
    return OK;
}

void dp_access_writer_free(struct dp_access_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    atomic_store(&writer->stop, true);
    wake(writer);
    CHECK(pthread_join(writer->thread, NULL) == 0);
    queue_free(&writer->full, free);
    CHECK(sem_destroy(&writer->wake) == 0);
    close_file(writer->fd);
    free(writer);
}

struct err dp_access_log_new(struct dp_access_writer *writer, struct dp_access_log **out)
{
    struct dp_access_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    log->writer = writer;
    *out = log;
    return OK;
}

static void hand_over(struct dp_access_log *log)
{
    struct block *block = log->block;
    log->block = NULL;
    if (block == NULL) {
        return;
    }
    if (!err_ok(queue_push(&log->writer->full, block))) {
        atomic_fetch_add(&log->writer->dropped, block->lines);
        free(block);
    }
}

void dp_access_log_free(struct dp_access_log *log)
{
    if (log != NULL) {
        hand_over(log);
        free(log);
    }
}

struct line {
    char *at;
    char *end;
};

/* Adds key and value; what is not plain text is shown as '?', so that a line stays one line. */
static void add(struct line *line, const char *key, struct slice value)
{
    if (value.size == 0) {
        return;
    }
    value = slice_head(value, VALUE_MAX_BYTES);
    size_t key_size = strlen(key);
    if ((size_t)(line->end - line->at) < key_size + value.size + 2) {
        return;
    }
    *line->at++ = ' ';
    (void)memcpy(line->at, key, key_size);
    line->at += key_size;
    *line->at++ = '=';
    for (size_t i = 0; i < value.size; i++) {
        uint8_t c = value.ptr[i];
        *line->at++ = c > ' ' && c < 0x7f && c != '"' && c != '=' ? (char)c : '?';
    }
}

static void add_number(struct line *line, const char *key, uint64_t number)
{
    char digits[24];
    char *at = digits + sizeof(digits);
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    add(line, key, slice_of(at, (size_t)(digits + sizeof(digits) - at)));
}

/* The date changes once a second: it is made then, and the milliseconds each time. */
static void add_time(struct line *line)
{
    static _Thread_local int64_t second;
    static _Thread_local char text[32];
    int64_t now_ms = clock_wall_ms();
    if (now_ms / 1000 != second) {
        second = now_ms / 1000;
        time_t seconds = (time_t)second;
        struct tm utc;
        CHECK(gmtime_r(&seconds, &utc) != NULL);
        CHECK(strftime(text, sizeof(text), "ts=%Y-%m-%dT%H:%M:%S.000Z", &utc) == 27);
    }
    (void)memcpy(line->at, text, 27);
    line->at[23] = (char)('0' + now_ms % 1000 / 100);
    line->at[24] = (char)('0' + now_ms % 100 / 10);
    line->at[25] = (char)('0' + now_ms % 10);
    line->at += 27;
}

static void add_outcome(struct line *line, const struct dp_request *rq)
{
    add(line, "code", slice_str(err_name(rq->err.code)));
    if (rq->err.where != NULL) {
        add(line, "where", slice_str(rq->err.where));
    }
    if (rq->grpc_status >= 0) {
        add_number(line, "grpc", (uint64_t)rq->grpc_status);
    }
    if (rq->http_status > 0) {
        add_number(line, "http", (uint64_t)rq->http_status);
    }
}

static void add_request(struct line *line, const struct dp_request *rq)
{
    char trace_id[TRACE_ID_SIZE + 1];
    trace_format_id(&rq->trace, trace_id);
    add(line, "event", SLICE_LIT("request"));
    add(line, "id", rq->request_id);
    add(line, "lane", slice_str(rq->lane->name));
    add(line, "front", slice_str(rq->front->name));
    add_outcome(line, rq);
    if (rq->caller != NULL) {
        add(line, "caller", rq->caller->id);
    }
    if (rq->target != NULL) {
        add(line, "target", rq->target->id);
    }
    add(line, "method", rq->method.size > 0 ? rq->method : rq->in.path);
    add(line, "rule", rq->verdict.rule);
    add(line, "shadow", rq->verdict.shadow);
    add(line, "path", rq->verdict.fast ? SLICE_LIT("fast") : (struct slice){0});
    add(line, "limit", rq->limit);
    if (rq->explain != 0) {
        add(line, "explain", slice_of(rq->explain_text, DP_REFUSAL_ID_SIZE));
    }
    if (rq->route != NULL) {
        add(line, "route", rq->route->id);
    }
    add(line, "upstream", rq->upstream);
    if (rq->attempts > 0) {
        add_number(line, "attempts", rq->attempts);
    }
    add(line, "peer", rq->in.peer);
    if (rq->model != NULL) {
        add_number(line, "version", dp_model_version(rq->model));
    }
    add_number(line, "in", rq->request_bytes);
    add_number(line, "out", rq->response_bytes);
    add_number(line, "us", (clock_mono_ns() - rq->started_ns) / 1000);
    add(line, "trace", slice_of(trace_id, TRACE_ID_SIZE));
    add(line, "correlation", rq->correlation);
}

void dp_access_add(struct dp_access_log *log, const struct dp_request *rq)
{
    if (log->block != NULL && BLOCK_BYTES - log->block->size < LINE_MAX_BYTES) {
        hand_over(log);
    }
    if (log->block == NULL) {
        log->block = malloc(sizeof(*log->block));
        if (log->block == NULL) {
            atomic_fetch_add(&log->writer->dropped, 1);
            return;
        }
        log->block->size = 0;
        log->block->lines = 0;
        log->since_ns = clock_mono_ns();
    }
    char *start = log->block->bytes + log->block->size;
    struct line line = {.at = start, .end = start + LINE_MAX_BYTES - 1};
    add_time(&line);
    add_request(&line, rq);
    *line.at++ = '\n';
    log->block->size += (size_t)(line.at - start);
    log->block->lines++;
}

void dp_access_flush(struct dp_access_log *log, uint64_t now_ns)
{
    if (log->block != NULL && now_ns - log->since_ns >= AGE_MAX_NS) {
        hand_over(log);
    }
}

uint64_t dp_access_dropped(const struct dp_access_writer *writer)
{
    return atomic_load(&writer->dropped);
}
