/* Proves that a live node that lacks a capability is named, and that no other node holds anything
 * up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/snapshot/format.h"
#include "controlplane/publish/reach.h"

static struct cp_fleet_node node(const char *id, bool live, uint64_t capabilities)
{
    struct cp_fleet_node made = {.verified = live, .live = live};
    (void)snprintf(made.id, sizeof(made.id), "%s", id);
    made.status.capabilities = capabilities;
    made.status.format = SNAPSHOT_FORMAT;
    return made;
}

static struct cp_fleet_node node_of_format(const char *id, bool live, uint32_t format)
{
    struct cp_fleet_node made = node(id, live, CAPABILITIES_HERE);
    made.status.format = format;
    return made;
}

static enum err_code judge_need(const struct cp_fleet_node *nodes, size_t count,
                                struct cp_reach_need need, uint64_t want_live,
                                const char *want_sentence)
{
    struct buf sentence = BUF_MAX(4096);
    const char *text = "";
    uint64_t live = 99;
    struct err e = cp_reach_judge(nodes, count, &need, &live, &sentence);
    assert_int_equal(buf_cstr(&sentence, &text).code, E_OK);
    assert_string_equal(text, want_sentence);
    assert_int_equal(live, want_live);
    buf_free(&sentence);
    return e.code;
}

static enum err_code judge(const struct cp_fleet_node *nodes, size_t count, uint64_t needs,
                           uint64_t want_live, const char *want_sentence)
{
    const struct cp_reach_need need = {.capabilities = needs, .format = SNAPSHOT_FORMAT};
    return judge_need(nodes, count, need, want_live, want_sentence);
}

static enum err_code judge_format(const struct cp_fleet_node *nodes, size_t count, uint32_t format,
                                  uint64_t want_live, const char *want_sentence)
{
    return judge_need(nodes, count, (struct cp_reach_need){.format = format}, want_live,
                      want_sentence);
}

static void who_can_is_reached(void **state)
{
    (void)state;
    struct cp_fleet_node nodes[] = {node("a", true, CAPABILITIES_HERE),
                                    node("b", true, CAPABILITY_LIMIT_KEYS)};
    assert_int_equal(judge(nodes, 0, CAPABILITIES_HERE, 0, ""), E_OK);
    assert_int_equal(judge(nodes, 2, CAPABILITY_NONE, 2, ""), E_OK);
    assert_int_equal(judge(nodes, 2, CAPABILITY_LIMIT_KEYS, 2, ""), E_OK);
}

static void who_cannot_is_named(void **state)
{
    (void)state;
    uint64_t needs = CAPABILITY_LIMIT_KEYS | CAPABILITY_UPSTREAM_TLS;
    struct cp_fleet_node nodes[] = {node("a", true, needs), node("b", true, CAPABILITY_LIMIT_KEYS),
                                    node("c", true, 0)};
    assert_int_equal(judge(nodes, 3, needs, 3,
                           "node b cannot do UPSTREAM_TLS; node c cannot do LIMIT_KEYS, "
                           "UPSTREAM_TLS"),
                     E_CAPABILITY_MISSING);
}

static void who_is_silent_holds_nothing_up(void **state)
{
    (void)state;
    struct cp_fleet_node nodes[] = {node("a", true, CAPABILITIES_HERE), node("b", false, 0)};
    assert_int_equal(judge(nodes, 2, CAPABILITIES_HERE, 1, ""), E_OK);
}

static void many_are_counted(void **state)
{
    (void)state;
    struct cp_fleet_node nodes[10];
    char want[512] = "";
    for (int i = 0; i < 10; i++) {
        char id[8];
        (void)snprintf(id, sizeof(id), "n%d", i);
        nodes[i] = node(id, true, 0);
        size_t size = strlen(want);
        if (i < 8) {
            (void)snprintf(want + size, sizeof(want) - size, "%snode n%d cannot do LIMIT_KEYS",
                           i == 0 ? "" : "; ", i);
        }
    }
    size_t size = strlen(want);
    (void)snprintf(want + size, sizeof(want) - size, "; and 2 more nodes");
    assert_int_equal(judge(nodes, 10, CAPABILITY_LIMIT_KEYS, 10, want), E_CAPABILITY_MISSING);
}

/* Every pair of a node's format and a snapshot's. */
static void a_node_reads_its_format_and_the_one_before(void **state)
{
    (void)state;
    for (uint32_t speaks = 0; speaks < 6; speaks++) {
        for (uint32_t written = 1; written < 6; written++) {
            struct cp_fleet_node one = node_of_format("a", true, speaks);
            char want[128] = "";
            bool reads = written == speaks || written + 1 == speaks;
            if (!reads) {
                (void)snprintf(want, sizeof(want),
                               "node a cannot read snapshot format %u, it speaks %u", written,
                               speaks);
            }
            assert_int_equal(judge_format(&one, 1, written, 1, want),
                             reads ? E_OK : E_CAPABILITY_MISSING);
        }
    }
}

static void what_is_written_is_what_all_read(void **state)
{
    (void)state;
    struct cp_fleet_node nodes[] = {
        node_of_format("a", true, SNAPSHOT_FORMAT),
        node_of_format("b", true, SNAPSHOT_FORMAT_LEAST),
        node_of_format("c", false, SNAPSHOT_FORMAT_LEAST),
        node_of_format("d", true, SNAPSHOT_FORMAT + 1),
    };
    assert_int_equal(cp_reach_format(nodes, 0), SNAPSHOT_FORMAT);
    assert_int_equal(cp_reach_format(nodes, 1), SNAPSHOT_FORMAT);
    assert_int_equal(cp_reach_format(nodes, 2), SNAPSHOT_FORMAT_LEAST);
    assert_int_equal(cp_reach_format(nodes + 2, 1), SNAPSHOT_FORMAT); /* it is silent. */
    assert_int_equal(cp_reach_format(nodes + 2, 2), SNAPSHOT_FORMAT); /* newer nodes read it. */
    nodes[0].status.format = 0; /* too old: it is named, not suited. */
    assert_int_equal(cp_reach_format(nodes, 1), SNAPSHOT_FORMAT_LEAST);
    assert_int_equal(judge_format(nodes, 1, SNAPSHOT_FORMAT_LEAST, 1,
                                  "node a cannot read snapshot format 1, it speaks 0"),
                     E_CAPABILITY_MISSING);
}

static void a_node_lacks_both(void **state)
{
    (void)state;
    struct cp_fleet_node one = node_of_format("a", true, SNAPSHOT_FORMAT_LEAST);
    one.status.capabilities = 0;
    const struct cp_reach_need need = {.capabilities = CAPABILITY_TRUST_DOMAINS,
                                       .format = SNAPSHOT_FORMAT};
    assert_int_equal(judge_need(&one, 1, need, 1,
                                "node a cannot do TRUST_DOMAINS nor read snapshot format 2, it "
                                "speaks 1"),
                     E_CAPABILITY_MISSING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_can_is_reached),
        cmocka_unit_test(who_cannot_is_named),
        cmocka_unit_test(who_is_silent_holds_nothing_up),
        cmocka_unit_test(many_are_counted),
        cmocka_unit_test(a_node_reads_its_format_and_the_one_before),
        cmocka_unit_test(what_is_written_is_what_all_read),
        cmocka_unit_test(a_node_lacks_both),
    };
    return cmocka_run_group_tests_name("reach", tests, NULL, NULL);
}
