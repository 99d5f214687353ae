/* policy_values: however many values and fronts a node names, one that fits is found as by trying
 * them all: the value itself, or the longest front. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/policy.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__PolicyTarget part_target;
typedef Trilane__Parts__V1__PolicyNode part_node;
typedef Trilane__Parts__V1__PolicyEdge part_edge;
typedef Trilane__Parts__V1__Verdict part_verdict;

enum { TEXTS = 600, TEXT = 24, NODES = 3, EDGES = NODES * TEXTS, QUERIES = 500 };

static uint32_t state_of_random = 1;

static uint32_t below(uint32_t count)
{
    state_of_random = state_of_random * 1664525U + 1013904223U;
    return (state_of_random >> 8) % count;
}

/* Of few letters, so that one text often begins with another. */
static void random_text(char out[TEXT])
{
    uint32_t size = below(TEXT);
    for (uint32_t i = 0; i < size; i++) {
        out[i] = "ab/"[below(3)];
    }
    out[size] = '\0';
}

static int text_order(const void *x, const void *y)
{
    return strcmp(x, y);
}

/* Graphs of one node each that ask the method; every edge has a verdict of its own. */
struct sample {
    char texts[TEXTS][TEXT];
    size_t text_count;
    part_edge edges[EDGES];
    part_edge *lists[EDGES];
    part_node nodes[NODES];
    part_node *node_list[NODES];
    part_verdict verdicts[EDGES + 1];
    part_verdict *verdict_list[EDGES + 1];
    char rules[EDGES + 1][24];
    uint32_t more[NODES];
    size_t edge_count;
    part_target target;
};

static void random_texts(struct sample *s, size_t count)
{
    char all[TEXTS][TEXT];
    for (size_t i = 0; i < count; i++) {
        random_text(all[i]);
    }
    qsort(all, count, TEXT, text_order);
    s->text_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(all[i], all[i - 1]) != 0) {
            (void)memcpy(s->texts[s->text_count++], all[i], TEXT);
        }
    }
}

static void add_verdict(struct sample *s)
{
    size_t at = s->target.n_verdicts++;
    part_verdict *verdict = &s->verdicts[at];
    trilane__parts__v1__verdict__init(verdict);
    if (at > 0) {
        (void)snprintf(s->rules[at], sizeof(s->rules[at]), "r%zu", at);
        verdict->allow = 1;
        verdict->rule = s->rules[at];
    }
    s->verdict_list[at] = verdict;
}

/* A node with every 'step'th text. */
static void add_node(struct sample *s, size_t step, bool fronts)
{
    size_t index = s->target.n_nodes++;
    part_node *node = &s->nodes[index];
    trilane__parts__v1__policy_node__init(node);
    s->node_list[index] = node;
    node->attribute = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD;
    node->prefixes = fronts;
    node->edges = &s->lists[s->edge_count];
    for (size_t i = 0; i < s->text_count; i += step) {
        part_edge *edge = &s->edges[s->edge_count];
        trilane__parts__v1__policy_edge__init(edge);
        edge->value = s->texts[i];
        edge->to = (uint32_t)(NODES + s->target.n_verdicts);
        add_verdict(s);
        s->lists[s->edge_count++] = edge;
        node->n_edges++;
    }
    node->otherwise = NODES;
}

static void make(struct sample *s, size_t count, const size_t steps[NODES], uint32_t fronts)
{
    static char name[] = "service/acme/b";
    s->edge_count = 0;
    trilane__parts__v1__policy_target__init(&s->target);
    s->target.target = name;
    s->target.attributes = 1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD;
    s->target.nodes = s->node_list;
    s->target.verdicts = s->verdict_list;
    random_texts(s, count);
    add_verdict(s);
    for (size_t i = 0; i < NODES; i++) {
        add_node(s, steps[i], (fronts >> i & 1) != 0);
    }
}

/* The edge that a node takes for a text, by trying all; 0: none; else 1 + its index of all. */
static size_t plain_edge(const struct sample *s, const part_node *node, const char *text)
{
    size_t best = 0;
    size_t length = 0;
    for (size_t i = 0; i < node->n_edges; i++) {
        const char *value = node->edges[i]->value;
        bool fits = node->prefixes != 0 ? strncmp(text, value, strlen(value)) == 0
                                        : strcmp(text, value) == 0;
        if (fits && (best == 0 || strlen(value) > length)) {
            best = (size_t)(node->edges[i] - s->edges) + 1;
            length = strlen(value);
        }
    }
    return best;
}

/* Of the graphs from the first to 'roots' the verdict of the lowest index wins: all allow. */
static void expect(const struct sample *s, const struct dp_policy_target *target, size_t roots,
                   const char *text)
{
    static const struct dp_caller caller = {.id = SLICE_INIT("acme/web")};
    const struct dp_policy_query query = {
        .lane = SLICE_LIT("operator"), .method = slice_str(text), .caller = &caller};
    size_t best = 0;
    for (size_t i = 0; i < roots; i++) {
        size_t edge = plain_edge(s, &s->nodes[i], text);
        best = edge != 0 && (best == 0 || edge < best) ? edge : best;
    }
    struct dp_verdict verdict = dp_policy_decide(target, &query);
    if (!slice_eq(verdict.rule, slice_str(s->rules[best])) || verdict.allow != (best != 0)) {
        fail_msg("\"%s\": %.*s, not %s", text, SLICE_ARG(verdict.rule), s->rules[best]);
    }
}

static void compare(struct sample *s, size_t roots)
{
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    struct dp_policy_target *target = NULL;
    char text[TEXT];
    for (uint32_t i = 1; i < roots; i++) {
        s->more[i - 1] = i;
    }
    s->target.n_more_roots = roots - 1;
    s->target.more_roots = s->more;
    assert_int_equal(proto_encode(&s->target.base, &bytes).code, E_OK);
    assert_int_equal(dp_policy_build(buf_slice(&bytes), &target).code, E_OK);
    for (size_t i = 0; i < s->text_count; i++) {
        expect(s, target, roots, s->texts[i]);
    }
    for (size_t i = 0; i < QUERIES; i++) {
        random_text(text);
        expect(s, target, roots, text);
    }
    dp_policy_free(target);
}

/* From one edge a node to hundreds: in the node, in a row, by their numbers, by hash. */
static void what_fits_is_found(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 2, 3, 8, 9, 10, 60, TEXTS};
    static const size_t steps[][NODES] = {{1, 1, 1}, {1, 7, 3}, {50, 30, 1}, {13, 1, 600}};
    static struct sample s;
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        for (size_t k = 0; k < sizeof(steps) / sizeof(steps[0]); k++) {
            for (uint32_t fronts = 0; fronts < 1U << NODES; fronts++) {
                make(&s, counts[c], steps[k], fronts);
                compare(&s, 1 + below(NODES));
            }
        }
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
