/* log: see log.h. */
#include "common/base/log.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"

enum { LINE_MAX_BYTES = 4096, MODULE_COUNT_MAX = 32 };

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};
_Static_assert(sizeof(level_names) / sizeof(level_names[0]) == LOG_LEVEL_COUNT, "one a level");

static _Atomic int level_now = LOG_INFO;
static _Atomic int fd_now = STDERR_FILENO;
static _Atomic uint64_t dropped;

/* Lines of a module in the present second. Modules are literals, told apart by hash alone. */
static struct {
    _Atomic uint64_t second;
    _Atomic uint64_t count;
} rates[MODULE_COUNT_MAX];

struct line {
    char text[LINE_MAX_BYTES];
    size_t size;
};

static void add_bytes(struct line *line, const char *bytes, size_t size)
{
    size_t room = sizeof(line->text) - 1 - line->size; /* one byte stays for the newline. */
    size = size < room ? size : room;
    (void)memcpy(line->text + line->size, bytes, size);
    line->size += size;
}

static void add_text(struct line *line, const char *text)
{
    add_bytes(line, text, strlen(text));
}

static bool is_plain(struct slice value)
{
    for (size_t i = 0; i < value.size; i++) {
        uint8_t c = value.ptr[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f) {
            return false;
        }
    }
    return value.size > 0;
}

static void add_escaped(struct line *line, struct slice value)
{
    add_text(line, "\"");
    for (size_t i = 0; i < value.size; i++) {
        uint8_t c = value.ptr[i];
        char out[8];
        if (c == '"' || c == '\\') {
            (void)snprintf(out, sizeof(out), "\\%c", c);
        } else if (c < ' ' || c >= 0x7f) {
            (void)snprintf(out, sizeof(out), "\\x%02x", c);
        } else {
            (void)snprintf(out, sizeof(out), "%c", c);
        }
        add_text(line, out);
    }
    add_text(line, "\"");
}

static void add_field(struct line *line, const struct log_field *field)
{
    char number[24];
    add_text(line, " ");
    add_text(line, field->key);
    add_text(line, "=");
    switch (field->kind) {
    case LOG_KIND_TEXT: {
        struct slice value = slice_head(field->text, LOG_VALUE_MAX);
        if (is_plain(value)) {
            add_bytes(line, (const char *)value.ptr, value.size);
        } else {
            add_escaped(line, value);
        }
        break;
    }
    case LOG_KIND_U64:
        (void)snprintf(number, sizeof(number), "%" PRIu64, field->number);
        add_text(line, number);
        break;
    case LOG_KIND_I64:
        (void)snprintf(number, sizeof(number), "%" PRId64, (int64_t)field->number);
        add_text(line, number);
        break;
    }
}

static void add_head(struct line *line, enum log_level level, const char *module, const char *event)
{
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    CHECK(gmtime_r(&seconds, &utc) != NULL);
    char head[160];
    (void)snprintf(head, sizeof(head),
                   "ts=%04d-%02d-%02dT%02d:%02d:%02d.%03dZ level=%s module=%s event=",
                   utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                   utc.tm_sec, (int)(now_ms % 1000), level_names[level], module);
    add_text(line, head);
    if (is_plain(slice_str(event))) {
        add_text(line, event);
    } else {
        add_escaped(line, slice_str(event));
    }
}

/* Whether the module may write one more line in this second; errors always may. */
static bool within_rate(enum log_level level, const char *module)
{
    if (level == LOG_ERROR) {
        return true;
    }
    size_t index = 0;
    for (const char *c = module; *c != '\0'; c++) {
        index = index * 31 + (size_t)*c;
    }
    index %= MODULE_COUNT_MAX;
    uint64_t second = clock_mono_ns() / 1000000000;
    if (atomic_exchange_explicit(&rates[index].second, second, memory_order_relaxed) != second) {
        atomic_store_explicit(&rates[index].count, 0, memory_order_relaxed);
    }
    return atomic_fetch_add_explicit(&rates[index].count, 1, memory_order_relaxed) <
           limits.log_lines_per_second;
}

void log_write(enum log_level level, const char *module, const char *event,
               const struct log_field *fields, size_t count)
{
    if (!within_rate(level, module)) {
        atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
        return;
    }
    struct line line;
    line.size = 0;
    add_head(&line, level, module, event);
    for (size_t i = 0; i < count; i++) {
        add_field(&line, &fields[i]);
    }
    line.text[line.size++] = '\n';
    if (write(atomic_load(&fd_now), line.text, line.size) != (ssize_t)line.size) {
        atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
    }
}

enum log_level log_level_get(void)
{
    return (enum log_level)atomic_load_explicit(&level_now, memory_order_relaxed);
}

void log_level_set(enum log_level level)
{
    CHECK(level < LOG_LEVEL_COUNT);
    atomic_store(&level_now, (int)level);
}

bool log_level_find(struct slice name, enum log_level *out)
{
    for (int level = 0; level < LOG_LEVEL_COUNT; level++) {
        if (slice_eq(name, slice_str(level_names[level]))) {
            *out = (enum log_level)level;
            return true;
        }
    }
    return false;
}

uint64_t log_dropped(void)
{
    return atomic_load(&dropped);
}

void log_fd_set(int fd)
{
    atomic_store(&fd_now, fd);
}
