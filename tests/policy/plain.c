/* plain: see plain.h. */
#include "tests/policy/plain.h"

#include <fnmatch.h>
#include <stdlib.h>
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

/* What is decided by the rules so far. */
struct deciding {
    int rule;
    int all; /* were the shadows none. */
};

static void try_rule(const struct plain_rule *rules, int i, const struct plain_request *q,
                     struct deciding *d)
{
    if (plain_fits(&rules[i], q)) {
        d->rule = !rules[i].shadow && wins(rules, i, d->rule) ? i : d->rule;
        d->all = wins(rules, i, d->all) ? i : d->all;
    }
}

static struct plain_verdict verdict_of(const struct plain_rule *rules, const struct deciding *d)
{
    bool allowed = d->rule >= 0 && !rules[d->rule].deny;
    bool would = d->all >= 0 && !rules[d->all].deny;
    return (struct plain_verdict){.rule = d->rule, .shadow = allowed != would ? d->all : -1};
}

struct plain_verdict plain_decide(const struct plain_rule *rules, int count,
                                  const struct plain_request *q)
{
    struct deciding d = {.rule = -1, .all = -1};
    for (int i = 0; i < count; i++) {
        try_rule(rules, i, q, &d);
    }
    return verdict_of(rules, &d);
}

/* ---- by caller ---- */

/* The list of a caller's service; of -1 that of rules that need not be about a named one. */
static int list_of(int services, int tenant, int service)
{
    return service < 0 ? 2 * services : 2 * service + tenant;
}

/* The lists that a rule is in, each once. */
static int lists_of(int services, const struct plain_rule *rule, int out[PLAIN_CALLERS])
{
    int count = 0;
    for (int i = 0; i < rule->caller_count; i++) {
        const struct plain_caller *c = &rule->callers[i];
        int list = list_of(services, c->service_tenant, c->service);
        bool known = false;
        for (int k = 0; k < count; k++) {
            known = known || out[k] == list;
        }
        if (!known) {
            out[count++] = list;
        }
    }
    if (count == 0) {
        out[count++] = list_of(services, 0, -1);
    }
    return count;
}

void plain_index_init(const struct plain_world *world, const struct plain_rule *rules, int count,
                      struct plain_index *out)
{
    int lists = 2 * world->services + 1;
    int of[PLAIN_CALLERS];
    *out = (struct plain_index){.rules = rules, .services = world->services};
    out->starts = calloc((size_t)lists + 2, sizeof(int));
    out->lists = calloc((size_t)count * PLAIN_CALLERS + 1, sizeof(int));
    assert_non_null(out->starts);
    assert_non_null(out->lists);
    for (int i = 0; i < count; i++) {
        for (int k = lists_of(world->services, &rules[i], of) - 1; k >= 0; k--) {
            out->starts[of[k] + 2]++;
        }
    }
    for (int i = 2; i < lists + 2; i++) {
        out->starts[i] += out->starts[i - 1];
    }
    for (int i = 0; i < count; i++) {
        for (int k = lists_of(world->services, &rules[i], of) - 1; k >= 0; k--) {
            out->lists[out->starts[of[k] + 1]++] = i;
        }
    }
}

void plain_index_free(struct plain_index *index)
{
    free(index->starts);
    free(index->lists);
}

struct plain_verdict plain_index_decide(const struct plain_index *index,
                                        const struct plain_request *q)
{
    struct deciding d = {.rule = -1, .all = -1};
    const int lists[] = {list_of(index->services, q->tenant, q->service),
                         list_of(index->services, 0, -1)};
    for (int l = 0; l < 2; l++) {
        for (int i = index->starts[lists[l]]; i < index->starts[lists[l] + 1]; i++) {
            try_rule(index->rules, index->lists[i], q, &d);
        }
    }
    return verdict_of(index->rules, &d);
}
