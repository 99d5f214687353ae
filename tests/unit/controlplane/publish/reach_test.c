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
    return made;
}

static enum err_code judge(const struct cp_fleet_node *nodes, size_t count, uint64_t needs,
                           uint64_t want_live, const char *want_sentence)
{
    struct buf sentence = BUF_MAX(4096);
    const char *text = "";
    uint64_t live = 99;
    struct err e = cp_reach_judge(nodes, count, needs, &live, &sentence);
    assert_int_equal(buf_cstr(&sentence, &text).code, E_OK);
    assert_string_equal(text, want_sentence);
    assert_int_equal(live, want_live);
    buf_free(&sentence);
    return e.code;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_can_is_reached),
        cmocka_unit_test(who_cannot_is_named),
        cmocka_unit_test(who_is_silent_holds_nothing_up),
        cmocka_unit_test(many_are_counted),
    };
    return cmocka_run_group_tests_name("reach", tests, NULL, NULL);
}
