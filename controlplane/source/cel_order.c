/*
 * cel_order: what has an order in a condition: integers that a value says, sizes, hours, days of
 * the week, and instants.
 *
 * Each comparison becomes a test of a range, negated where that is shorter: "x >= 3" is the
 * negation of "x is at most 2", so that the comparisons of many rules with one bound are one test.
 * Hours and days become schedules, as windows do.
 */
#include <string.h>

#include "controlplane/source/cel_impl.h"

enum { HOURS = 24, DAYS = 7, HOUR_MINUTES = 60 };

enum order_of { OF_SIZE, OF_INT, OF_HOURS, OF_DAYS, OF_TIME };

/* What is compared. */
struct measured {
    enum order_of of;
    struct cel_attribute attribute; /* of OF_SIZE and OF_INT. */
    int32_t offset;                 /* minutes, of OF_HOURS and OF_DAYS. */
    size_t begin;
};

/* What it is compared with: an integer, or milliseconds of an instant. */
struct bound {
    bool instant;
    int64_t number;
    size_t begin;
};

/* A range, and whether it is what must not be. */
struct range {
    int64_t least;
    int64_t most;
    bool negate;
};

/* ---- bounds ---- */

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Digits of an integer of 64 bits. */
static bool read_number(struct slice digits, bool negative, int64_t *out)
{
    uint64_t number = 0;
    uint64_t most = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    for (size_t i = 0; i < digits.size; i++) {
        uint64_t digit = (uint64_t)(digits.ptr[i] - '0');
        if (!is_digit(digits.ptr[i]) || number > (most - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - number) : (int64_t)number;
    return digits.size > 0;
}

static bool take_number(struct cel_parsing *p, struct bound *out)
{
    bool negative = p->token == CEL_TOKEN_MINUS;
    if (negative && !cel_next(p)) {
        return false;
    }
    if (p->token != CEL_TOKEN_WORD || !read_number(p->value, negative, &out->number)) {
        return cel_fault(p, "no integer where one belongs", "an integer of 64 bits");
    }
    return cel_next(p);
}

/* "2026-01-31T12:00:00Z". */
static bool fits_instant(struct slice text)
{
    static const char form[] = "20##-##-##T##:##:##Z";
    if (text.size != sizeof(form) - 1) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (form[i] == '#' ? !is_digit(text.ptr[i]) : text.ptr[i] != (uint8_t)form[i]) {
            return false;
        }
    }
    return true;
}

/* "timestamp('…')", at the word. */
static bool take_instant(struct cel_parsing *p, struct bound *out)
{
    uint64_t ms = 0;
    if (!cel_next(p) || !cel_take(p, CEL_TOKEN_OPEN, "timestamp without its text", "('…')")) {
        return false;
    }
    if (p->token != CEL_TOKEN_TEXT || !fits_instant(p->value) || !cp_instant_ms(p->value, &ms)) {
        return cel_fault(p, "no instant where one belongs", "'2026-01-31T12:00:00Z', in UTC");
    }
    out->instant = true;
    out->number = (int64_t)ms;
    return cel_next(p) && cel_take(p, CEL_TOKEN_CLOSE, "a parenthesis is not closed", ")");
}

static bool is_word(const struct cel_parsing *p, const char *word)
{
    return p->token == CEL_TOKEN_WORD && slice_eq(p->value, slice_str(word));
}

static bool take_bound(struct cel_parsing *p, struct bound *out)
{
    *out = (struct bound){.begin = p->begin};
    return is_word(p, "timestamp") ? take_instant(p, out) : take_number(p, out);
}

/* ---- what is measured ---- */

/* Of an attribute that is written whole: parts of one have no size of their own in a node. */
static bool check_measured(struct cel_parsing *p, const struct measured *m)
{
    const struct cel_attribute *a = &m->attribute;
    bool whole = a->form == CEL_FORM_PLAIN && a->is != CP_CEL_LANE && a->is != CP_CEL_VERB;
    if (!whole) {
        return cel_fault_at(p, a->begin, "it has no size and says no integer",
                            "caller.id, caller.tenant, caller.trustDomain, request.method, a trait "
                            "or a header");
    }
    if (cel_is_secret(a)) {
        (void)cel_fault_at(p, a->begin, "a secret is measured",
                           "'authorization' in request.headers: whether it is there");
        p->fault.secret = true;
        return false;
    }
    return true;
}

/* "int(caller.traits.level)", at the word. */
static bool take_function(struct cel_parsing *p, struct measured *out)
{
    *out = (struct measured){.of = is_word(p, "int") ? OF_INT : OF_SIZE, .begin = p->begin};
    if (!cel_next(p) ||
        !cel_take(p, CEL_TOKEN_OPEN, "a function without its argument", "(request.method)")) {
        return false;
    }
    if (p->token != CEL_TOKEN_WORD) {
        return cel_fault(p, "no attribute to measure", "int(request.headers['x-level'])");
    }
    return cel_parse_attribute(p, &out->attribute) && check_measured(p, out) &&
           cel_take(p, CEL_TOKEN_CLOSE, "a parenthesis is not closed", ")");
}

static bool fits_offset(struct slice text)
{
    return text.size == 6 && (text.ptr[0] == '+' || text.ptr[0] == '-') && is_digit(text.ptr[1]) &&
           is_digit(text.ptr[2]) && text.ptr[3] == ':' && is_digit(text.ptr[4]) &&
           is_digit(text.ptr[5]) && (text.ptr[1] - '0') * 10 + text.ptr[2] - '0' <= 14 &&
           text.ptr[4] <= '5';
}

/* ".getHours('+01:00')", at the dot. */
static bool take_clock(struct cel_parsing *p, struct measured *out)
{
    if (!cel_next(p)) {
        return false;
    }
    bool hours = is_word(p, "getHours");
    if (!hours && !is_word(p, "getDayOfWeek")) {
        return cel_fault(p, "a method that there is not", "getHours() or getDayOfWeek()");
    }
    out->of = hours ? OF_HOURS : OF_DAYS;
    if (!cel_next(p) || !cel_take(p, CEL_TOKEN_OPEN, "a method without parentheses", "()")) {
        return false;
    }
    if (p->token == CEL_TOKEN_TEXT) {
        if (!fits_offset(p->value)) {
            return cel_fault(p, "not an offset from UTC", "'+01:00'; zones have no names here");
        }
        out->offset = cp_offset_minutes(p->value);
        if (!cel_next(p)) {
            return false;
        }
    }
    return cel_take(p, CEL_TOKEN_CLOSE, "a parenthesis is not closed", ")");
}

/* Behind an attribute: its size, or of the clock what is asked of it. */
static bool take_behind(struct cel_parsing *p, const struct cel_attribute *a, struct measured *out)
{
    *out = (struct measured){.of = OF_TIME, .attribute = *a, .begin = a->begin};
    if (a->form == CEL_FORM_TIME) {
        return p->token != CEL_TOKEN_DOT || take_clock(p, out);
    }
    out->of = OF_SIZE;
    return check_measured(p, out) &&
           cel_take(p, CEL_TOKEN_OPEN, "a method without parentheses", "()") &&
           cel_take(p, CEL_TOKEN_CLOSE, "a parenthesis is not closed", ")");
}

/* What stands behind the order, when the bound came first. */
static bool take_measured(struct cel_parsing *p, struct measured *out)
{
    struct cel_attribute a = {0};
    if (is_word(p, "int") || is_word(p, "size")) {
        return take_function(p, out);
    }
    if (p->token != CEL_TOKEN_WORD) {
        return cel_fault(p, "nothing to compare with", "int(…), size(…) or request.time");
    }
    if (!cel_parse_attribute(p, &a)) {
        return false;
    }
    if (a.form == CEL_FORM_TIME) {
        return take_behind(p, &a, out);
    }
    if (p->token != CEL_TOKEN_DOT) {
        return cel_fault_at(p, a.begin, "a text is no integer", "int(…) or size(…)");
    }
    if (!cel_next(p)) {
        return false;
    }
    if (!is_word(p, "size")) {
        return cel_fault(p, "a method that there is not", "size");
    }
    return cel_next(p) && take_behind(p, &a, out);
}

/* ---- tests ---- */

static struct range range_of(enum cel_token order, int64_t number)
{
    struct range range = {.least = INT64_MIN, .most = number};
    range.negate =
        order == CEL_TOKEN_GREATER || order == CEL_TOKEN_AT_LEAST || order == CEL_TOKEN_UNEQUAL;
    if (order == CEL_TOKEN_EQUAL || order == CEL_TOKEN_UNEQUAL) {
        range.least = number;
    }
    if ((order == CEL_TOKEN_LESS || order == CEL_TOKEN_AT_LEAST) && number > INT64_MIN) {
        range.most = number - 1;
    } else if (order == CEL_TOKEN_LESS || order == CEL_TOKEN_AT_LEAST) {
        range.most = INT64_MAX; /* nothing is less than the least: not "any". */
        range.negate = !range.negate;
    }
    return range;
}

static bool schedule_new(struct cel_parsing *p, const struct cp_schedule *schedule, bool negate,
                         struct cel_node **out)
{
    const struct cel_attribute time = {.is = CP_CEL_TIME};
    struct cp_schedule *kept = NULL;
    struct cel_node *node = NULL;
    if (!cel_test_new(p, &time, &node)) {
        return false;
    }
    if (!err_ok(arena_alloc(p->arena, sizeof(*kept), (void **)&kept))) {
        return cel_no_memory(p);
    }
    *kept = *schedule;
    node->test.schedule = kept;
    *out = node;
    return !negate || cel_negate(p, node, out);
}

/* Hours of each day, or days of the week, of which 0 is Sunday. */
static bool make_clock(struct cel_parsing *p, const struct measured *m, const struct range *range,
                       struct cel_node **out)
{
    int64_t count = m->of == OF_HOURS ? HOURS : DAYS;
    int64_t least = range->least < 0 ? 0 : range->least;
    int64_t most = range->most >= count ? count - 1 : range->most;
    struct cp_schedule schedule;
    struct cp_daily daily = {.to = HOURS * HOUR_MINUTES, .offset = m->offset};
    if (least > most || most - least == count - 1) {
        bool always = least <= most;
        return cel_node_new(p, always != range->negate ? CEL_TRUE : CEL_FALSE, out);
    }
    if (m->of == OF_HOURS) {
        daily.days = (1U << DAYS) - 1;
        daily.from = (uint32_t)least * HOUR_MINUTES;
        daily.to = ((uint32_t)most + 1) * HOUR_MINUTES;
    }
    for (int64_t day = least; m->of == OF_DAYS && day <= most; day++) {
        daily.days |= 1U << (day + DAYS - 1) % DAYS;
    }
    cp_daily_schedule(&daily, &schedule);
    return schedule_new(p, &schedule, range->negate, out);
}

/* A node's clock has milliseconds: at most an instant is before the one after it. */
static bool make_instant(struct cel_parsing *p, enum cel_token order, const struct bound *bound,
                         struct cel_node **out)
{
    bool behind = order == CEL_TOKEN_AT_MOST || order == CEL_TOKEN_GREATER;
    bool negate = order == CEL_TOKEN_GREATER || order == CEL_TOKEN_AT_LEAST;
    const struct cp_schedule schedule = {.not_after_ms =
                                             (uint64_t)bound->number + (behind ? 1 : 0)};
    if (order == CEL_TOKEN_EQUAL || order == CEL_TOKEN_UNEQUAL) {
        return cel_fault_at(p, bound->begin, "hardly any request comes at an instant",
                            "<, <=, > or >=");
    }
    return schedule_new(p, &schedule, negate, out);
}

static bool make_order(struct cel_parsing *p, const struct measured *m, enum cel_token order,
                       const struct bound *bound, struct cel_node **out)
{
    struct range range = range_of(order, bound->number);
    struct cel_node *node = NULL;
    if (bound->instant != (m->of == OF_TIME)) {
        return cel_fault_at(p, bound->begin, "it is not compared with that",
                            m->of == OF_TIME ? "timestamp('2026-01-31T12:00:00Z')" : "an integer");
    }
    if (m->of == OF_TIME) {
        return make_instant(p, order, bound, out);
    }
    if (m->of == OF_HOURS || m->of == OF_DAYS) {
        return make_clock(p, m, &range, out);
    }
    if (!cel_test_new(p, &m->attribute, &node)) {
        return false;
    }
    node->test.measure = m->of == OF_INT ? CP_CEL_INT : CP_CEL_SIZE;
    node->test.least = range.least;
    node->test.most = range.most;
    *out = node;
    return !range.negate || cel_negate(p, node, out);
}

/* ---- relations ---- */

static bool take_order(struct cel_parsing *p, enum cel_token *out)
{
    *out = p->token;
    if (*out < CEL_TOKEN_EQUAL || *out > CEL_TOKEN_AT_LEAST) {
        return cel_fault(p, "a number that is not compared", "<, <=, >, >=, == or !=");
    }
    return cel_next(p);
}

/* "3 < x" is "x > 3". */
static enum cel_token turned(enum cel_token order)
{
    return order == CEL_TOKEN_LESS       ? CEL_TOKEN_GREATER
           : order == CEL_TOKEN_AT_MOST  ? CEL_TOKEN_AT_LEAST
           : order == CEL_TOKEN_GREATER  ? CEL_TOKEN_LESS
           : order == CEL_TOKEN_AT_LEAST ? CEL_TOKEN_AT_MOST
                                         : order;
}

static bool parse_behind(struct cel_parsing *p, const struct measured *m, struct cel_node **out)
{
    enum cel_token order = CEL_TOKEN_END;
    struct bound bound;
    if (!take_order(p, &order)) {
        return false;
    }
    if (m->of == OF_TIME && !is_word(p, "timestamp")) {
        return cel_fault(p, "no instant where one belongs", "timestamp('2026-01-31T12:00:00Z')");
    }
    return take_bound(p, &bound) && make_order(p, m, order, &bound, out);
}

bool cel_begins_order(const struct cel_parsing *p)
{
    return p->token == CEL_TOKEN_MINUS || is_word(p, "int") || is_word(p, "size") ||
           is_word(p, "timestamp") ||
           (p->token == CEL_TOKEN_WORD && p->value.size > 0 && is_digit(p->value.ptr[0]));
}

bool cel_parse_order(struct cel_parsing *p, struct cel_node **out)
{
    enum cel_token order = CEL_TOKEN_END;
    struct measured m = {0};
    struct bound bound;
    if (is_word(p, "int") || is_word(p, "size")) {
        return take_function(p, &m) && parse_behind(p, &m, out);
    }
    return take_bound(p, &bound) && take_order(p, &order) && take_measured(p, &m) &&
           make_order(p, &m, turned(order), &bound, out);
}

bool cel_parse_size(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out)
{
    struct measured m = {0};
    return take_behind(p, a, &m) && parse_behind(p, &m, out);
}

bool cel_parse_time(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out)
{
    struct measured m = {0};
    return take_behind(p, a, &m) && parse_behind(p, &m, out);
}
