/* condition: expressions of CEL, as text and by their meaning. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/policy/plain.h"
#include "tests/support/cmocka.h"

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

enum attribute {
    CALLER_ID,
    CALLER_TENANT,
    CALLER_SERVICE,
    CALLER_DOMAIN,
    METHOD,
    SERVICE,
    LANE,
    VERB,
    TYPE,
    TRAIT,                        /* and the next one. */
    HEADER = TRAIT + PLAIN_NAMES, /* and the next one. */
    ATTRIBUTES = HEADER + PLAIN_NAMES,
};

static const char *const names[ATTRIBUTES] = {"caller.id",
                                              "caller.tenant",
                                              "caller.service",
                                              "caller.trustDomain",
                                              "request.method",
                                              "request.service",
                                              "lane",
                                              "verb",
                                              "type",
                                              "caller.traits['team']",
                                              "caller.traits.tier",
                                              "request.headers['x-a']",
                                              "request.headers[\"x-b\"]"};

/* A value that some request may have for the attribute. */
static void random_value(const struct plain_world *world, int attribute, char out[PLAIN_TEXT])
{
    struct plain_request q;
    plain_random_request(world, &q);
    const char *text = NULL;
    switch (attribute) {
    case CALLER_ID:
        text = q.caller;
        break;
    case CALLER_TENANT:
        text = plain_tenants[q.tenant];
        break;
    case CALLER_SERVICE:
        text = strrchr(q.caller, '/') + 1;
        break;
    case CALLER_DOMAIN:
        text = plain_domains[q.domain];
        break;
    case METHOD:
        text = q.method;
        break;
    case SERVICE:
        (void)snprintf(out, PLAIN_TEXT, "p%d.S", plain_below(world->packages));
        return;
    case LANE:
        text = plain_lanes[q.lane];
        break;
    case VERB:
        text = plain_verbs[q.verb];
        break;
    case TYPE:
        text = plain_chance(70) ? "User.v1" : "GET";
        break;
    default:
        text = plain_values[plain_below(PLAIN_VALUES)];
        break;
    }
    (void)snprintf(out, PLAIN_TEXT, "%s", text);
}

/* Cuts a text to a piece at its front, its end, or its middle; never to nothing. */
static void cut(enum plain_how how, char text[PLAIN_TEXT])
{
    size_t size = strlen(text);
    size_t front = how == PLAIN_STARTS ? 0 : (size_t)plain_below((int)size);
    size_t end = how == PLAIN_ENDS ? size : front + 1 + (size_t)plain_below((int)(size - front));
    (void)memmove(text, text + front, end - front);
    text[end - front] = '\0';
}

/* A comparison by order; its bound is near to what requests have. */
static void random_order(struct plain_node *node)
{
    node->order = (enum plain_order)plain_below(PLAIN_ORDERS);
    node->turned = plain_chance(30);
    node->how = (enum plain_how)(PLAIN_SIZE + plain_below(5));
    node->offset = plain_chance(50) ? 0 : (plain_below(57) - 28) * 30;
    node->number = plain_below(node->how == PLAIN_DAY ? 9 : 26) - 1;
    if (node->how == PLAIN_INT) {
        node->number = plain_chance(10) ? INT64_MIN : plain_below(40) - 20;
    }
    if (node->how == PLAIN_INSTANT) {
        node->number = plain_random_time() / 1000;
        node->order = (enum plain_order)plain_below(PLAIN_EQ);
    }
    /* None of service, lane, verb and type, of which only parts are texts. */
    bool part = node->attribute == CALLER_SERVICE ||
                (node->attribute >= SERVICE && node->attribute <= TYPE);
    node->attribute = part ? METHOD : node->attribute;
}

static void random_leaf(const struct plain_world *world, struct plain_node *node)
{
    *node = (struct plain_node){.op = PLAIN_LEAF, .attribute = plain_below(ATTRIBUTES)};
    if (plain_chance(world->orders)) {
        random_order(node);
        return;
    }
    node->how = (enum plain_how)plain_below(PLAIN_CONTAINS + 1);
    if (node->attribute >= TRAIT && plain_chance(15)) {
        node->how = PLAIN_PRESENT;
    }
    for (int i = 0; i < 2; i++) {
        random_value(world, node->attribute, node->texts[i]);
        if (node->how >= PLAIN_STARTS && node->how <= PLAIN_CONTAINS) {
            cut(node->how, node->texts[i]);
        }
    }
}

void plain_random_condition(const struct plain_world *world, struct plain_condition *c)
{
    int leaves = 1 + plain_below(4);
    *c = (struct plain_condition){0};
    for (int i = 0; i < leaves; i++) {
        random_leaf(world, &c->nodes[c->count++]);
        if (plain_chance(25)) {
            c->nodes[c->count] = (struct plain_node){.op = PLAIN_NOT, .left = c->count - 1};
            c->count++;
        }
        if (i == 0) {
            continue;
        }
        /* With what came before, which a node of its own stands for. */
        int before = c->nodes[c->count - 1].op == PLAIN_NOT ? c->count - 3 : c->count - 2;
        c->nodes[c->count] = (struct plain_node){
            .op = plain_chance(50) ? PLAIN_AND : PLAIN_OR, .left = before, .right = c->count - 1};
        c->count++;
    }
    if (plain_chance(20)) {
        c->nodes[c->count] = (struct plain_node){.op = PLAIN_NOT, .left = c->count - 1};
        c->count++;
    }
}

static void zone_text(const struct plain_node *node, struct buf *out)
{
    int minutes = abs(node->offset);
    if (node->offset != 0) {
        ADD(out, "'%c%02d:%02d'", node->offset < 0 ? '-' : '+', minutes / 60, minutes % 60);
    }
}

static void measure_text(const struct plain_node *node, struct buf *out)
{
    const char *name = names[node->attribute];
    if (node->how == PLAIN_SIZE) {
        ADD(out, node->number % 2 == 0 ? "size(%s)" : "%s.size()", name);
    } else if (node->how == PLAIN_INT) {
        ADD(out, "int(%s)", name);
    } else if (node->how == PLAIN_INSTANT) {
        ADD(out, "request.time");
    } else {
        ADD(out, "request.time.%s(", node->how == PLAIN_HOURS ? "getHours" : "getDayOfWeek");
        zone_text(node, out);
        ADD(out, ")");
    }
}

static void bound_text(const struct plain_node *node, struct buf *out)
{
    struct tm tm;
    char text[32];
    time_t seconds = (time_t)node->number;
    if (node->how != PLAIN_INSTANT) {
        ADD(out, "%lld", (long long)node->number);
        return;
    }
    assert_non_null(gmtime_r(&seconds, &tm));
    assert_true(strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 20);
    ADD(out, "timestamp('%s')", text);
}

static void order_text(const struct plain_node *node, struct buf *out)
{
    static const char *const orders[PLAIN_ORDERS] = {"<", "<=", ">", ">=", "==", "!="};
    static const char *const turned[PLAIN_ORDERS] = {">", ">=", "<", "<=", "==", "!="};
    if (node->turned) {
        bound_text(node, out);
        ADD(out, " %s ", turned[node->order]);
        measure_text(node, out);
        return;
    }
    measure_text(node, out);
    ADD(out, " %s ", orders[node->order]);
    bound_text(node, out);
}

static void leaf_text(const struct plain_node *node, struct buf *out)
{
    static const char *const maps[] = {"caller.traits", "request.headers"};
    const char *name = names[node->attribute];
    const char *a = node->texts[0];
    switch (node->how) {
    case PLAIN_EQUAL:
        ADD(out, "%s == '%s'", name, a);
        return;
    case PLAIN_UNEQUAL:
        ADD(out, "\"%s\" != %s", a, name);
        return;
    case PLAIN_IN:
        ADD(out, "%s in ['%s', \"%s\"]", name, a, node->texts[1]);
        return;
    case PLAIN_STARTS:
        ADD(out, "%s.startsWith('%s')", name, a);
        return;
    case PLAIN_ENDS:
        ADD(out, "%s.endsWith('%s')", name, a);
        return;
    case PLAIN_CONTAINS:
        ADD(out, "%s.contains('%s')", name, a);
        return;
    case PLAIN_SIZE:
    case PLAIN_INT:
    case PLAIN_HOURS:
    case PLAIN_DAY:
    case PLAIN_INSTANT:
        order_text(node, out);
        return;
    case PLAIN_PRESENT: {
        bool header = node->attribute >= HEADER;
        ADD(out, "'%s' in %s",
            header ? plain_headers[node->attribute - HEADER]
                   : plain_traits[node->attribute - TRAIT],
            maps[header]);
        return;
    }
    }
}

static void node_text(const struct plain_condition *c, int at, struct buf *out)
{
    const struct plain_node *node = &c->nodes[at];
    if (node->op == PLAIN_LEAF) {
        leaf_text(node, out);
        return;
    }
    if (node->op == PLAIN_NOT) {
        ADD(out, "!(");
        node_text(c, node->left, out);
        ADD(out, ")");
        return;
    }
    ADD(out, "(");
    node_text(c, node->left, out);
    ADD(out, ") %s (", node->op == PLAIN_AND ? "&&" : "||");
    node_text(c, node->right, out);
    ADD(out, ")");
}

void plain_condition_text(const struct plain_condition *c, struct buf *out)
{
    node_text(c, c->count - 1, out);
}

/* The attribute's value of a request; NULL: it is not there. */
static const char *value_of(int attribute, const struct plain_request *q, char out[PLAIN_TEXT])
{
    out[0] = '\0';
    switch (attribute) {
    case CALLER_ID:
        return q->caller;
    case CALLER_TENANT:
        return plain_tenants[q->tenant];
    case CALLER_SERVICE:
        return strchr(q->caller, '#') != NULL ? out : strchr(q->caller, '/') + 1;
    case CALLER_DOMAIN:
        return plain_domains[q->domain];
    case METHOD:
        return q->method;
    case SERVICE:
        if (q->lane == 0 && q->method[0] == '/') {
            (void)snprintf(out, PLAIN_TEXT, "%.*s", (int)strcspn(q->method + 1, "/"),
                           q->method + 1);
        }
        return out;
    case LANE:
        return plain_lanes[q->lane];
    case VERB:
        return plain_verbs[q->verb];
    case TYPE:
        return q->lane == 1 ? q->method : out;
    default:
        break;
    }
    int value = attribute >= HEADER ? q->headers[attribute - HEADER] : q->traits[attribute - TRAIT];
    return value < 0 ? NULL : plain_values[value];
}

static int order_value(enum plain_order order, int64_t a, int64_t b)
{
    const bool values[PLAIN_ORDERS] = {a<b, a <= b, a> b, a >= b, a == b, a != b};
    return values[order];
}

/* Of the wall clock, by the calendar. */
static int clock_value(const struct plain_node *node, const struct plain_request *q)
{
    struct tm tm;
    time_t local = (time_t)(q->wall_ms / 1000 + (int64_t)node->offset * 60);
    assert_non_null(gmtime_r(&local, &tm));
    return order_value(node->order, node->how == PLAIN_HOURS ? tm.tm_hour : tm.tm_wday,
                       node->number);
}

/* Of a value that is there. */
static int number_value(const struct plain_node *node, const char *value)
{
    char *end = NULL;
    long long number = 0;
    if (node->how == PLAIN_SIZE) {
        return order_value(node->order, (int64_t)strlen(value), node->number);
    }
    number = strtoll(value, &end, 10);
    return end == value || *end != '\0' ? -1 : order_value(node->order, number, node->number);
}

static int leaf_value(const struct plain_node *node, const struct plain_request *q)
{
    char room[PLAIN_TEXT];
    if (node->how == PLAIN_HOURS || node->how == PLAIN_DAY) {
        return clock_value(node, q);
    }
    if (node->how == PLAIN_INSTANT) {
        return order_value(node->order, q->wall_ms, 1000 * node->number);
    }
    const char *value = value_of(node->attribute, q, room);
    const char *text = node->texts[0];
    if (node->how == PLAIN_PRESENT) {
        return value != NULL;
    }
    if (value == NULL) {
        return -1;
    }
    size_t size = strlen(value);
    size_t length = strlen(text);
    switch (node->how) {
    case PLAIN_EQUAL:
        return strcmp(value, text) == 0;
    case PLAIN_UNEQUAL:
        return strcmp(value, text) != 0;
    case PLAIN_IN:
        return strcmp(value, text) == 0 || strcmp(value, node->texts[1]) == 0;
    case PLAIN_STARTS:
        return strncmp(value, text, length) == 0;
    case PLAIN_ENDS:
        return size >= length && strcmp(value + size - length, text) == 0;
    case PLAIN_CONTAINS:
        return strstr(value, text) != NULL;
    case PLAIN_SIZE:
    case PLAIN_INT:
        return number_value(node, value);
    case PLAIN_HOURS:
    case PLAIN_DAY:
    case PLAIN_INSTANT:
    case PLAIN_PRESENT:
        break;
    }
    return -1;
}

/* As CEL: "and" is false when either side is, "or" true when either is; else an error goes on. */
static int and_value(int left, int right)
{
    return left == 0 || right == 0 ? 0 : left < 0 || right < 0 ? -1 : 1;
}

static int or_value(int left, int right)
{
    return left == 1 || right == 1 ? 1 : left < 0 || right < 0 ? -1 : 0;
}

static int node_value(const struct plain_node *node, const int *values,
                      const struct plain_request *q)
{
    switch (node->op) {
    case PLAIN_LEAF:
        return leaf_value(node, q);
    case PLAIN_AND:
        return and_value(values[node->left], values[node->right]);
    case PLAIN_OR:
        return or_value(values[node->left], values[node->right]);
    case PLAIN_NOT:
        return values[node->left] < 0 ? -1 : !values[node->left];
    }
    return -1;
}

int plain_condition_value(const struct plain_condition *c, const struct plain_request *q)
{
    int values[PLAIN_NODES] = {0};
    for (int i = 0; i < c->count; i++) {
        values[i] = node_value(&c->nodes[i], values, q);
    }
    return values[c->count - 1];
}
