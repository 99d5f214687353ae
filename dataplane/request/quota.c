/*
 * quota: see quota.h.
 *
 * What a key may count is bounded by what the disk has of it and its reserve, so at any moment of a
 * crash the disk says how much it can have been. Entries that a crash charged with their reserve
 * stay on disk as they were until the key counts again: an idle key is charged once, however often
 * a node dies.
 */
#include "dataplane/request/quota.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "dataplane/request/quota_file.h"

enum { TICK_MS = 10, WRITE_MS = 1000, MS_PER_HOUR = 3600000, NS_PER_MS = 1000000 };

#define COUNTED_MASK ((UINT64_C(1) << DP_QUOTA_COUNT_BITS) - 1)
#define NS_PER_S INT64_C(1000000000)

/* What the disk has of the key in a cell. Written by the thread that writes the file. */
struct note {
    _Atomic uint64_t key;     /* zero: nothing. */
    _Atomic uint64_t value;   /* of that key. */
    _Atomic uint32_t reserve; /* of the key that counts in the cell; written by workers. */
    _Atomic bool asked;       /* it counts again since the start; written by workers. */
    uint64_t charged;         /* the cell's value after a crash; zero: none was charged. */
};

struct dp_quota {
    struct dp_cells *cells;
    struct note *notes; /* one a cell. */
    size_t count;
    uint64_t seed;
    int dir_fd; /* -1: nothing is kept. */
    bool crashed;
    uint64_t opened_hour;
    struct dp_quota_entry *entries; /* room for all. */
    size_t *indexes;                /* of their cells; the same. */
    struct buf bytes;
    uint64_t written_ns;
    bool failed; /* the last write; said once. */
    bool running;
    bool left; /* the file is another process's. */
    pthread_t thread;
    sem_t stop;
    _Atomic bool wanted; /* some key waits for the disk. */
    _Atomic bool marked; /* the disk knows that this run counts: from then on a crash is one. */
};

/* ---- windows ---- */

static uint64_t hour_of(int64_t wall_ms)
{
    return wall_ms < 0 ? 0 : (uint64_t)wall_ms / MS_PER_HOUR;
}

/* The hour in which a month begins, 'later' months on. */
static uint64_t month_hour(int64_t wall_ms, int later)
{
    time_t now = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    CHECK(gmtime_r(&now, &tm) != NULL);
    struct tm first = {.tm_year = tm.tm_year, .tm_mon = tm.tm_mon + later, .tm_mday = 1};
    return hour_of((int64_t)timegm(&first) * 1000);
}

struct dp_quota_window dp_quota_window_of(enum dp_quota_unit unit, int64_t wall_ms)
{
    uint64_t hour = hour_of(wall_ms);
    switch (unit) {
    case DP_QUOTA_HOUR:
        break;
    case DP_QUOTA_DAY:
        return (struct dp_quota_window){hour / 24 * 24, hour / 24 * 24 + 24};
    case DP_QUOTA_MONTH:
        return (struct dp_quota_window){month_hour(wall_ms, 0), month_hour(wall_ms, 1)};
    }
    return (struct dp_quota_window){hour, hour + 1};
}

/* ---- counting ---- */

struct dp_cells *dp_quota_cells(struct dp_quota *quota)
{
    return quota->cells;
}

uint64_t dp_quota_seed(const struct dp_quota *quota)
{
    return quota->seed;
}

uint64_t dp_quota_unknown(const struct dp_quota *quota, const struct dp_quota_window *window,
                          uint32_t reserve)
{
    bool ran_before = quota->crashed && window->begin_hour <= quota->opened_hour &&
                      quota->opened_hour < window->end_hour;
    return ran_before ? reserve : 0;
}

/* What the disk has of the key's count in the window of 'value'. */
static uint64_t on_disk(const struct note *note, uint64_t key, uint64_t value)
{
    if (atomic_load_explicit(&note->key, memory_order_acquire) != key) {
        return 0;
    }
    uint64_t has = atomic_load_explicit(&note->value, memory_order_acquire);
    bool same = atomic_load_explicit(&note->key, memory_order_acquire) == key &&
                has >> DP_QUOTA_COUNT_BITS == value >> DP_QUOTA_COUNT_BITS;
    return same ? has & COUNTED_MASK : 0;
}

bool dp_quota_covers(struct dp_quota *quota, const struct dp_cell_place *place, uint64_t value,
                     uint32_t reserve)
{
    if (quota->dir_fd < 0) {
        return true;
    }
    if (!atomic_load_explicit(&quota->marked, memory_order_acquire)) {
        atomic_store_explicit(&quota->wanted, true, memory_order_release);
        return false;
    }
    struct note *note = &quota->notes[dp_cells_index(quota->cells, place)];
    if (atomic_load_explicit(&note->reserve, memory_order_relaxed) != reserve) {
        atomic_store_explicit(&note->reserve, reserve, memory_order_relaxed);
    }
    uint64_t has = on_disk(note, place->key, value);
    uint64_t counted = value & COUNTED_MASK;
    if (counted <= has + reserve / 2) {
        return true;
    }
    atomic_store_explicit(&note->asked, true, memory_order_relaxed);
    atomic_store_explicit(&quota->wanted, true, memory_order_release);
    return counted <= has + reserve;
}

/* ---- the disk ---- */

/* An entry's value as the disk is to have it. */
static uint64_t value_for_disk(const struct note *note, uint64_t key, uint64_t value)
{
    bool idle = note->charged == value && !atomic_load_explicit(&note->asked, memory_order_relaxed);
    return idle && atomic_load_explicit(&note->key, memory_order_relaxed) == key
               ? atomic_load_explicit(&note->value, memory_order_relaxed)
               : value;
}

/* Entries of what is counted in windows that are not over, and the index of each one's cell;
 * *out_changed: the disk has others. */
static size_t gather(struct dp_quota *q, bool *out_changed)
{
    uint64_t now_hour = hour_of(clock_wall_ms());
    size_t n = 0;
    *out_changed = false;
    for (size_t i = 0; i < q->count; i++) {
        uint64_t key = 0;
        uint64_t value = 0;
        if (!dp_cells_get(q->cells, i, &key, &value) || (value & COUNTED_MASK) == 0 ||
            value >> DP_QUOTA_COUNT_BITS <= now_hour) {
            continue;
        }
        struct note *note = &q->notes[i];
        value = value_for_disk(note, key, value);
        *out_changed |= atomic_load_explicit(&note->key, memory_order_relaxed) != key ||
                        atomic_load_explicit(&note->value, memory_order_relaxed) != value;
        q->indexes[n] = i;
        q->entries[n++] = (struct dp_quota_entry){
            .key = key,
            .value = value,
            .reserve = atomic_load_explicit(&note->reserve, memory_order_relaxed),
            .made_up = dp_cells_is_made_up(q->cells, i)};
    }
    return n;
}

/* The disk has these now; a reader between the two stores finds no key of its own. */
static void note_entries(struct dp_quota *q, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct note *note = &q->notes[q->indexes[i]];
        const struct dp_quota_entry *entry = &q->entries[i];
        if (atomic_load_explicit(&note->key, memory_order_relaxed) != entry->key) {
            atomic_store_explicit(&note->key, 0, memory_order_release);
        }
        atomic_store_explicit(&note->value, entry->value, memory_order_release);
        atomic_store_explicit(&note->key, entry->key, memory_order_release);
    }
}

static struct err write_file(struct dp_quota *q, size_t count, bool clean)
{
    const struct dp_quota_file file = {
        .seed = q->seed, .clean = clean, .entries = q->entries, .count = count};
    buf_clear(&q->bytes);
    TRY(dp_quota_file_encode(&file, &q->bytes));
    return dp_quota_file_write(q->dir_fd, buf_slice(&q->bytes));
}

/* Writes what is counted, where that is not what the disk has, or at the ends of a run. */
static struct err write_counts(struct dp_quota *q, bool always, bool clean)
{
    bool changed = false;
    size_t count = gather(q, &changed);
    if (changed || always) {
        TRY(write_file(q, count, clean));
    }
    note_entries(q, count);
    atomic_store_explicit(&q->marked, true, memory_order_release);
    return OK;
}

static void say(struct dp_quota *q, struct err e)
{
    if (!err_ok(e) && !q->failed) {
        LOG(LOG_ERROR, "request", "quotas-not-written", LOG_ERR(e),
            LOG_STR("text", "quotas that need the disk are refused until it can be written"),
            LOG_STR("fix", "free space in data-dir; the node tries again each second"));
    }
    q->failed = !err_ok(e);
}

/* Whether it is time: a key waits, or a second has passed; after a failure only that. */
static bool is_due(struct dp_quota *q, uint64_t now_ns)
{
    bool second = now_ns - q->written_ns >= (uint64_t)WRITE_MS * NS_PER_MS;
    bool wanted = (second || !q->failed) && atomic_exchange(&q->wanted, false);
    return second || wanted;
}

static void *thread_main(void *ctx)
{
    struct dp_quota *q = ctx;
    for (;;) { /* until end_thread() posts. */
        struct timespec until;
        CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
        int64_t ns = until.tv_nsec + (int64_t)TICK_MS * NS_PER_MS;
        until.tv_sec += ns / NS_PER_S;
        until.tv_nsec = ns % NS_PER_S;
        if (sem_clockwait(&q->stop, CLOCK_MONOTONIC, &until) == 0) {
            return NULL;
        }
        uint64_t now_ns = clock_mono_ns();
        if (is_due(q, now_ns)) {
            bool marked = atomic_load_explicit(&q->marked, memory_order_relaxed);
            say(q, write_counts(q, /* always= */ !marked, /* clean= */ false));
            q->written_ns = now_ns;
        }
    }
}

/* ---- opening and closing ---- */

/* Puts an entry into a cell from *at on, and moves that on; after a crash with what may have been
 * counted behind it. */
static struct err restore(struct dp_quota *q, const struct dp_quota_entry *entry, size_t *at)
{
    size_t index = 0;
    if (entry->value >> DP_QUOTA_COUNT_BITS <= q->opened_hour) {
        return OK;
    }
    uint64_t value = entry->value + (q->crashed ? entry->reserve : 0);
    TRY(dp_cells_restore(q->cells, entry->made_up, entry->key, value, *at, &index));
    *at = index + 1;
    struct note *note = &q->notes[index];
    atomic_init(&note->key, entry->key);
    atomic_init(&note->value, entry->value);
    atomic_init(&note->reserve, entry->reserve);
    note->charged = q->crashed ? value : 0;
    return OK;
}

static struct err take_over(struct dp_quota *q)
{
    struct dp_quota_file file = {.clean = true};
    struct err e = dp_quota_file_read(q->dir_fd, dp_quota_file_size(q->count), &q->bytes);
    if (e.code == E_NOT_FOUND) {
        ids_random(&q->seed, sizeof(q->seed));
        return OK;
    }
    TRY(e);
    TRY(dp_quota_file_decode(buf_slice(&q->bytes), q->count, q->entries, &file));
    q->seed = file.seed;
    q->crashed = !file.clean;
    q->opened_hour = hour_of(clock_wall_ms());
    size_t at = 0;
    for (size_t i = 0; i < file.count; i++) { /* in the order of their cells, see gather(). */
        TRY(restore(q, &file.entries[i], &at));
    }
    return OK;
}

static struct err open_directory(struct dp_quota *q, const char *directory)
{
    q->dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (q->dir_fd < 0) {
        return FAIL(E_IO);
    }
    TRY(take_over(q));
    /* From here on a crash is one, also before the first count. A full disk keeps no node from
     * serving: until it has room, nothing is counted. */
    say(q, write_counts(q, /* always= */ true, /* clean= */ false));
    return OK;
}

struct err dp_quota_open(const char *directory, size_t cells, struct dp_quota **out)
{
    struct dp_quota *q = calloc(1, sizeof(*q));
    if (q == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    q->dir_fd = -1;
    CHECK(sem_init(&q->stop, /* shared= */ 0, 0) == 0);
    struct err e = dp_cells_new(cells, &q->cells);
    if (err_ok(e)) {
        q->count = dp_cells_count(q->cells);
        q->bytes = BUF_MAX(dp_quota_file_size(q->count) + 1);
        q->notes = calloc(q->count, sizeof(*q->notes));
        q->entries = calloc(q->count, sizeof(*q->entries));
        q->indexes = calloc(q->count, sizeof(*q->indexes));
        bool made = q->notes != NULL && q->entries != NULL && q->indexes != NULL;
        e = made ? OK : FAIL(E_NO_MEMORY);
    }
    if (err_ok(e) && directory != NULL) {
        e = open_directory(q, directory);
    }
    if (!err_ok(e)) {
        if (q->dir_fd >= 0) {
            (void)close(q->dir_fd);
            q->dir_fd = -1; /* what is there stays as it is. */
        }
        dp_quota_close(q);
        return e;
    }
    *out = q;
    return OK;
}

struct err dp_quota_start(struct dp_quota *quota)
{
    if (quota->dir_fd >= 0 && pthread_create(&quota->thread, NULL, thread_main, quota) != 0) {
        return FAIL(E_IO);
    }
    quota->running = quota->dir_fd >= 0;
    quota->left = false;
    if (quota->running) {
        (void)pthread_setname_np(quota->thread, "quota");
    }
    return OK;
}

static void end_thread(struct dp_quota *quota)
{
    if (quota->running) {
        CHECK(sem_post(&quota->stop) == 0);
        CHECK(pthread_join(quota->thread, NULL) == 0);
        quota->running = false;
    }
}

void dp_quota_leave(struct dp_quota *quota)
{
    end_thread(quota);
    quota->left = true;
}

void dp_quota_close(struct dp_quota *quota)
{
    if (quota == NULL) {
        return;
    }
    end_thread(quota);
    if (quota->dir_fd >= 0) {
        if (!quota->left) {
            say(quota, write_counts(quota, /* always= */ true, /* clean= */ true));
        }
        (void)close(quota->dir_fd);
    }
    CHECK(sem_destroy(&quota->stop) == 0);
    dp_cells_free(quota->cells);
    free(quota->notes);
    free(quota->entries);
    free(quota->indexes);
    buf_free(&quota->bytes);
    free(quota);
}
