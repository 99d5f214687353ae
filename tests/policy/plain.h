/*
 * plain: rules and requests that are made at random, written as YAML, and decided rule by rule,
 * with none of the code under test.
 *
 * Shape      texts are indexes into pools, so that rules and requests meet often.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"

enum {
    PLAIN_CALLERS = 3,
    PLAIN_METHODS = 3,
    PLAIN_NAMES = 2, /* of traits, and of headers. */
    PLAIN_NODES = 24,
    PLAIN_TEXT = 48,
    PLAIN_VALUES = 7,
};

/* How much there is to choose from. */
struct plain_world {
    int services; /* of each of two tenants. */
    int packages; /* of methods. */
    /* Percent of the rules that have each of them. */
    int conditions;
    int headers;
    int windows;
    int shadows;
    int denies;
    int globs;    /* of the methods. */
    int orders;   /* percent of the tests of conditions that compare by order. */
    bool precise; /* each rule names a caller's service and a method. */
    bool guarded; /* the environment has guardrails. */
};

struct plain_request {
    int verb;
    int lane;
    int tenant;
    int service;
    int domain;
    int traits[PLAIN_NAMES]; /* index into the values; -1: it has none. */
    int headers[PLAIN_NAMES];
    char caller[PLAIN_TEXT]; /* "acme/s1". */
    char method[PLAIN_TEXT];
    int64_t wall_ms;
};

struct plain_caller {
    int service; /* -1: not asked; so are all. */
    int service_tenant;
    int tenant;
    int domain;
    int traits[PLAIN_NAMES];
    char id[PLAIN_TEXT]; /* a glob; empty: not asked. */
};

/* An expression: nodes refer to lower indexes. */
enum plain_op { PLAIN_LEAF, PLAIN_AND, PLAIN_OR, PLAIN_NOT };
enum plain_how {
    PLAIN_EQUAL,
    PLAIN_UNEQUAL,
    PLAIN_IN,
    PLAIN_STARTS,
    PLAIN_ENDS,
    PLAIN_CONTAINS,
    PLAIN_SIZE,    /* of the attribute, by 'order' to 'number'. */
    PLAIN_INT,     /* likewise the integer that it says. */
    PLAIN_HOURS,   /* of the wall clock, in the zone of 'offset'. */
    PLAIN_DAY,     /* of the week, likewise; 0 is Sunday. */
    PLAIN_INSTANT, /* the wall clock, to 'number' seconds since 1970. */
    PLAIN_PRESENT
};

enum plain_order { PLAIN_LT, PLAIN_LE, PLAIN_GT, PLAIN_GE, PLAIN_EQ, PLAIN_NE, PLAIN_ORDERS };

struct plain_node {
    enum plain_op op;
    int left;
    int right;
    int attribute; /* plain_attributes. */
    enum plain_how how;
    char texts[2][PLAIN_TEXT]; /* PLAIN_IN has both. */
    enum plain_order order;
    bool turned; /* the number is written first. */
    int64_t number;
    int offset; /* minutes from UTC. */
};

struct plain_condition {
    struct plain_node nodes[PLAIN_NODES]; /* the last one is the whole. */
    int count;                            /* 0: none. */
};

struct plain_window {
    unsigned days; /* bits from Monday; 0: all. */
    int from;      /* minutes. */
    int to;
    int offset;
};

struct plain_rule {
    char name[16];
    char id[PLAIN_TEXT]; /* "acme/p/<name>". */
    bool deny;
    bool shadow;
    unsigned verbs;
    unsigned lanes;
    int caller_count;
    struct plain_caller callers[PLAIN_CALLERS];
    int method_count;
    char methods[PLAIN_METHODS][PLAIN_TEXT];
    int headers[PLAIN_NAMES]; /* index into the values, 99: present, -1: not asked. */
    struct plain_condition condition;
    int window_count;
    struct plain_window windows[2];
    bool bounded; /* it has the two instants. */
    int64_t not_before_ms;
    int64_t not_after_ms;
};

/* What is decided: indexes of rules; -1: no rule. */
struct plain_verdict {
    int rule;
    int shadow; /* the one by which it would be decided otherwise. */
};

extern const char *const plain_verbs[4];
extern const char *const plain_lanes[3];
extern const char *const plain_tenants[2];
extern const char *const plain_domains[2];
extern const char *const plain_traits[PLAIN_NAMES];
extern const char *const plain_headers[PLAIN_NAMES];
extern const char *const plain_values[PLAIN_VALUES];

/* ---- random.c ---- */

void plain_seed(uint64_t seed);
uint64_t plain_random(void);
int plain_below(int count);
bool plain_chance(int percent);
void plain_random_rule(const struct plain_world *world, int index, struct plain_rule *r);
void plain_random_request(const struct plain_world *world, struct plain_request *q);
/* A time around which windows and instants lie. */
int64_t plain_random_time(void);

/* ---- condition.c ---- */

void plain_random_condition(const struct plain_world *world, struct plain_condition *c);
void plain_condition_text(const struct plain_condition *c, struct buf *out);
/* 1 true, 0 false, -1 an error. */
int plain_condition_value(const struct plain_condition *c, const struct plain_request *q);

/* ---- yaml.c ---- */

/* The platform and one policy, "p" of tenant acme about service acme/orders. */
void plain_yaml(const struct plain_world *world, const struct plain_rule *rules, int count,
                struct buf *out);

/* The rules alone, as items of a list. */
void plain_rules_yaml(const struct plain_rule *rules, int count, struct buf *out);

/* ---- plain.c ---- */

bool plain_fits(const struct plain_rule *rule, const struct plain_request *q);

/* The rules by the callers that they name, so that of many rules few are tried for a request. */
struct plain_index {
    const struct plain_rule *rules;
    int *lists;  /* indexes of rules: of each caller, then of those that name none. */
    int *starts; /* where the list of a caller begins, and the next one's. */
    int services;
};

void plain_index_init(const struct plain_world *world, const struct plain_rule *rules, int count,
                      struct plain_index *out);
void plain_index_free(struct plain_index *index);
/* As plain_decide() of all rules. */
struct plain_verdict plain_index_decide(const struct plain_index *index,
                                        const struct plain_request *q);

struct plain_verdict plain_decide(const struct plain_rule *rules, int count,
                                  const struct plain_request *q);
