/*
 * log: structured lines on standard error, one event a line, logfmt.
 *
 *     ts=2026-01-31T12:00:00.123Z level=info module=apply event=applied version=7 ms=12
 *
 * Shape      LOG(level, module, event, fields...); fields come from LOG_STR() and its kin.
 * Units      in the field's name.
 * Ownership  everything is borrowed for the call.
 * Threads    any; one write(2) a line, so lines never mix.
 * Errors     none: what cannot be written is dropped and counted (log_dropped()).
 *
 * Values from outside are escaped, and cut at LOG_VALUE_MAX bytes. A module writes at most
 * log_lines_per_second lines a second (a limit); what is over is dropped and counted, but for
 * errors, which are always written. Secrets are never given to a field.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_LEVEL_COUNT };

enum { LOG_VALUE_MAX = 256 };

enum log_kind { LOG_KIND_TEXT, LOG_KIND_U64, LOG_KIND_I64 };

struct log_field {
    const char *key;
    enum log_kind kind;
    struct slice text;
    uint64_t number;
};

#define LOG_STR(key, cstr) ((struct log_field){key, LOG_KIND_TEXT, slice_str(cstr), 0})
#define LOG_SLICE(key, slice) ((struct log_field){key, LOG_KIND_TEXT, slice, 0})
#define LOG_U64(key, value) ((struct log_field){key, LOG_KIND_U64, {0}, (uint64_t)(value)})
#define LOG_I64(key, value) ((struct log_field){key, LOG_KIND_I64, {0}, (uint64_t)(int64_t)(value)})
#define LOG_ERR(err)                                                                               \
    LOG_STR("code", err_name((err).code)), LOG_STR("where", (err).where == NULL ? "" : (err).where)

/* LOG(LOG_INFO, "apply", "applied", LOG_U64("version", 7)); at least one field. */
#define LOG(level, module, event, ...)                                                             \
    do {                                                                                           \
        if ((level) <= log_level_get()) {                                                          \
            const struct log_field log_fields_[] = {__VA_ARGS__};                                  \
            log_write(level, module, event, log_fields_,                                           \
                      sizeof(log_fields_) / sizeof(log_fields_[0]));                               \
        }                                                                                          \
    } while (0)

void log_write(enum log_level level, const char *module, const char *event,
               const struct log_field *fields, size_t count);

/* The level up to which lines are written; LOG_INFO at start. */
enum log_level log_level_get(void);
void log_level_set(enum log_level level);

/* Reads "error", "warn", "info", "debug"; false when it is none of them. */
bool log_level_find(struct slice name, enum log_level *out);

/* Lines that were dropped because standard error took no more, or over a module's rate. */
uint64_t log_dropped(void);

/* Sends lines to this descriptor instead of standard error; for tests. */
void log_fd_set(int fd);
