/*
 * schedule: the times at which a rule holds, as minutes of the week in UTC.
 *
 * Shape      windows of all days and offsets become spans of the one week that a node's clock is
 *            in, sorted and apart from each other: rules that say the same times in other ways have
 *            the same schedule.
 * Units      minutes from Monday 00:00 UTC; instants are milliseconds of the wall clock.
 * Ownership  by value.
 * Threads    any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/snapshot/format.h"
#include "controlplane/source/model.h"

enum {
    CP_WEEK_MINUTES = 7 * 24 * 60,
    CP_SPANS_MAX = CP_WINDOWS_MAX * 8, /* a window on 7 days, of which one passes the week's end. */
};
_Static_assert((int)CP_SPANS_MAX <= (int)SCHEDULE_SPANS_MAX,
               "a node takes the spans of every rule");

struct cp_span {
    uint32_t from;
    uint32_t to; /* the first minute that is not in it. */
};

struct cp_schedule {
    struct cp_span spans[CP_SPANS_MAX];
    size_t count;           /* 0: all of the week. */
    uint64_t not_before_ms; /* 0: none. */
    uint64_t not_after_ms;  /* 0: none. */
};

/* How long a window is, less than a day or a whole one; 0: it ends when it begins. Its texts have
 * their forms. */
uint32_t cp_window_minutes(const struct cp_window *window);

/* Whether the rule holds at some times only. Its texts have their forms. */
bool cp_rule_has_schedule(const struct cp_rule *rule);
void cp_rule_schedule(const struct cp_rule *rule, struct cp_schedule *out);

/* Some minutes of some days. */
struct cp_daily {
    uint32_t days;  /* bits from Monday. */
    uint32_t from;  /* minute of the day. */
    uint32_t to;    /* greater; at most 24 * 60. */
    int32_t offset; /* minutes from UTC. */
};

/* The schedule of those minutes; all of the week has no span, as none has that holds always. */
void cp_daily_schedule(const struct cp_daily *daily, struct cp_schedule *out);

/* Minutes of an offset that has its form; of "Z" and nothing: 0. */
int32_t cp_offset_minutes(struct slice text);

/* Milliseconds of an instant; false: there is no such day or time. */
bool cp_instant_ms(struct slice text, uint64_t *out);
