/* plain: see plain.h. */
#include "tests/policy/plain.h"

#include <fnmatch.h>
#include <string.h>
#include <time.h>

#include "tests/support/cmocka.h"

static bool caller_fits(const struct plain_caller *c, const struct plain_request *q)
{
    bool fits = (c->service < 0 || (c->service == q->service && c->service_tenant == q->tenant)) &&
                (c->tenant < 0 || c->tenant == q->tenant) &&
                (c->domain < 0 || c->domain == q->domain) &&
                (c->id[0] == '\0' || fnmatch(c->id, q->caller, 0) == 0);
    for (int i = 0; i < PLAIN_NAMES; i++) {
        fits = fits && (c->traits[i] < 0 || c->traits[i] == q->traits[i]);
    }
    return fits;
}

/* By the calendar of the window's own zone: it began today, or yesterday and goes on. */
static bool window_fits(const struct plain_window *w, int64_t wall_ms)
{
    time_t local = (time_t)(wall_ms / 1000 + (int64_t)w->offset * 60);
    struct tm tm;
    assert_non_null(gmtime_r(&local, &tm));
    int today = (tm.tm_wday + 6) % 7;
    int minute = tm.tm_hour * 60 + tm.tm_min;
    bool overnight = w->to <= w->from;
    bool of_today = w->days == 0 || (w->days >> today & 1) != 0;
    bool of_yesterday = w->days == 0 || (w->days >> (today + 6) % 7 & 1) != 0;
    return (of_today && minute >= w->from && (overnight || minute < w->to)) ||
           (overnight && of_yesterday && minute < w->to);
}

static bool times_fit(const struct plain_rule *rule, int64_t wall_ms)
{
    bool in = rule->window_count == 0;
    for (int i = 0; i < rule->window_count; i++) {
        in = in || window_fits(&rule->windows[i], wall_ms);
    }
    return in &&
           (!rule->bounded || (wall_ms >= rule->not_before_ms && wall_ms < rule->not_after_ms));
}

bool plain_fits(const struct plain_rule *rule, const struct plain_request *q)
{
    bool caller = rule->caller_count == 0;
    for (int i = 0; i < rule->caller_count; i++) {
        caller = caller || caller_fits(&rule->callers[i], q);
    }
    bool method = rule->method_count == 0;
    for (int i = 0; i < rule->method_count; i++) {
        method = method || fnmatch(rule->methods[i], q->method, 0) == 0;
    }
    bool fits = caller && method && (rule->verbs == 0 || (rule->verbs >> q->verb & 1) != 0) &&
                (rule->lanes == 0 || (rule->lanes >> q->lane & 1) != 0) &&
                times_fit(rule, q->wall_ms);
    for (int i = 0; i < PLAIN_NAMES; i++) {
        fits = fits &&
               (rule->headers[i] < 0 ||
                (rule->headers[i] == 99 ? q->headers[i] >= 0 : q->headers[i] == rule->headers[i]));
    }
    if (!fits || rule->condition.count == 0) {
        return fits;
    }
    int value = plain_condition_value(&rule->condition, q);
    return rule->deny ? value != 0 : value == 1;
}

/* Whether a rule wins over the best so far: deny before allow, then the smaller id. */
static bool wins(const struct plain_rule *rules, int rule, int best)
{
    return best < 0 || (rules[rule].deny && !rules[best].deny) ||
           (rules[rule].deny == rules[best].deny && strcmp(rules[rule].id, rules[best].id) < 0);
}

struct plain_verdict plain_decide(const struct plain_rule *rules, int count,
                                  const struct plain_request *q)
{
    struct plain_verdict verdict = {.rule = -1, .shadow = -1};
    int all = -1; /* were the shadows none. */
    for (int i = 0; i < count; i++) {
        if (!plain_fits(&rules[i], q)) {
            continue;
        }
        verdict.rule = !rules[i].shadow && wins(rules, i, verdict.rule) ? i : verdict.rule;
        all = wins(rules, i, all) ? i : all;
    }
    bool allowed = verdict.rule >= 0 && !rules[verdict.rule].deny;
    bool would = all >= 0 && !rules[all].deny;
    verdict.shadow = allowed != would ? all : -1;
    return verdict;
}
