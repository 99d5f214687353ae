/* schedule: see schedule.h. */
#include "controlplane/source/schedule.h"

#include <stdlib.h>

#include "common/base/check.h"

enum { DAY_MINUTES = 24 * 60 };

static uint32_t number_at(struct slice text, size_t at, size_t digits)
{
    uint32_t number = 0;
    for (size_t i = 0; i < digits; i++) {
        number = number * 10 + (uint32_t)(text.ptr[at + i] - '0');
    }
    return number;
}

/* Of "09:30". */
static uint32_t clock_minutes(struct slice text)
{
    return 60 * number_at(text, 0, 2) + number_at(text, 3, 2);
}

/* Of "+01:00"; "Z" and nothing are none. */
int32_t cp_offset_minutes(struct slice text)
{
    if (text.size < 6) {
        return 0;
    }
    int32_t minutes = (int32_t)clock_minutes(slice_from(text, 1));
    return text.ptr[0] == '-' ? -minutes : minutes;
}

/* Days since 1970 of a day of the proleptic Gregorian calendar, years 2000 to 2099. */
static uint64_t days_since_1970(uint32_t year, uint32_t month, uint32_t day)
{
    static const uint32_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    uint32_t leap_days = (year - 1969) / 4; /* until the year begins: 2000 was one, too. */
    bool past_february = month > 2 && year % 4 == 0;
    return (uint64_t)(year - 1970) * 365 + leap_days + before[month - 1] + day - 1 +
           (past_february ? 1 : 0);
}

bool cp_instant_ms(struct slice text, uint64_t *out)
{
    static const uint32_t longest[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    CHECK(text.size == 20);
    uint32_t year = number_at(text, 0, 4);
    uint32_t month = number_at(text, 5, 2);
    uint32_t day = number_at(text, 8, 2);
    uint32_t hour = number_at(text, 11, 2);
    uint32_t minute = number_at(text, 14, 2);
    uint32_t second = number_at(text, 17, 2);
    if (month < 1 || month > 12 || day < 1 || day > longest[month - 1] || hour > 23 ||
        minute > 59 || second > 59 || (month == 2 && day == 29 && year % 4 != 0)) {
        return false;
    }
    uint64_t days = days_since_1970(year, month, day);
    *out = 1000 * (((days * 24 + hour) * 60 + minute) * 60 + second);
    return true;
}

static void add_span(struct cp_schedule *s, uint32_t from, uint32_t to)
{
    CHECK(s->count < CP_SPANS_MAX);
    s->spans[s->count++] = (struct cp_span){from, to};
}

/* Minutes that begin on one day, from Monday; past the end of the week they go on at its beginning.
 */
static void add_minutes(struct cp_schedule *s, uint32_t day, const struct cp_daily *daily)
{
    uint32_t length = daily->to - daily->from;
    int32_t start = (int32_t)(day * DAY_MINUTES + daily->from) - daily->offset;
    uint32_t at = (uint32_t)(start + CP_WEEK_MINUTES) % CP_WEEK_MINUTES;
    if (at + length > CP_WEEK_MINUTES) {
        add_span(s, 0, at + length - CP_WEEK_MINUTES);
        length = CP_WEEK_MINUTES - at;
    }
    if (length > 0) { /* else it was refused. */
        add_span(s, at, at + length);
    }
}

static void add_window(struct cp_schedule *s, const struct cp_window *window, uint32_t day)
{
    uint32_t from = clock_minutes(window->from.text);
    struct cp_daily daily = {.from = from,
                             .to = from + cp_window_minutes(window),
                             .offset = cp_offset_minutes(window->offset.text)};
    add_minutes(s, day, &daily);
}

static int span_order(const void *x, const void *y)
{
    const struct cp_span *a = x;
    const struct cp_span *b = y;
    return a->from != b->from ? (a->from > b->from) - (a->from < b->from)
                              : (a->to > b->to) - (a->to < b->to);
}

static void join_spans(struct cp_schedule *s)
{
    size_t count = 0;
    if (s->count > 1) {
        qsort(s->spans, s->count, sizeof(s->spans[0]), span_order);
    }
    for (size_t i = 0; i < s->count; i++) {
        struct cp_span *last = count == 0 ? NULL : &s->spans[count - 1];
        if (last != NULL && s->spans[i].from <= last->to) {
            last->to = s->spans[i].to > last->to ? s->spans[i].to : last->to;
        } else {
            s->spans[count++] = s->spans[i];
        }
    }
    s->count = count;
    if (count == 1 && s->spans[0].from == 0 && s->spans[0].to == CP_WEEK_MINUTES) {
        s->count = 0;
    }
}

uint32_t cp_window_minutes(const struct cp_window *window)
{
    uint32_t from = clock_minutes(window->from.text);
    uint32_t to = clock_minutes(window->to.text);
    return to == from ? 0 : to > from ? to - from : to + DAY_MINUTES - from;
}

void cp_daily_schedule(const struct cp_daily *daily, struct cp_schedule *out)
{
    *out = (struct cp_schedule){0};
    for (uint32_t day = 0; day < 7; day++) {
        if ((daily->days >> day & 1) != 0) {
            add_minutes(out, day, daily);
        }
    }
    join_spans(out);
}

bool cp_rule_has_schedule(const struct cp_rule *rule)
{
    return rule->windows.count > 0 || rule->not_before.text.size > 0 ||
           rule->not_after.text.size > 0;
}

void cp_rule_schedule(const struct cp_rule *rule, struct cp_schedule *out)
{
    *out = (struct cp_schedule){0};
    for (size_t i = 0; i < rule->windows.count; i++) {
        const struct cp_window *window = &rule->windows.items[i];
        for (uint32_t day = 0; day < 7; day++) {
            if (window->days == 0 || (window->days >> day & 1) != 0) {
                add_window(out, window, day);
            }
        }
    }
    join_spans(out);
    if (rule->not_before.text.size > 0) {
        (void)cp_instant_ms(rule->not_before.text, &out->not_before_ms);
    }
    if (rule->not_after.text.size > 0) {
        (void)cp_instant_ms(rule->not_after.text, &out->not_after_ms);
    }
}
