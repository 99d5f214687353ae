/* Proves what the API takes as a request and refuses, each with its sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/ids.h"
#include "controlplane/api/json.h"

static struct cp_work work;

static enum err_code read_as(enum cp_work_kind kind, const char *body)
{
    cp_work_free(&work);
    cp_work_init(&work, kind);
    return cp_json_read_work(slice_str(body), &work).code;
}

static void a_publish_is_read(void **state)
{
    (void)state;
    assert_int_equal(read_as(CP_WORK_PUBLISH,
                             "{\"message\": \"why\", \"author\": \"ada\", \"base\": 7,"
                             " \"files\": [{\"name\": \"a.yaml\", \"content\": \"aGk=\"}]}"),
                     E_OK);
    assert_string_equal(work.message, "why");
    assert_string_equal(work.author, "ada");
    assert_true(work.has_base);
    assert_int_equal(work.base, 7);
    assert_int_equal(work.sources.count, 1);
    assert_true(slice_eq(work.sources.files[0].bytes, SLICE_LIT("hi")));
}

static void a_planned_publish_is_read(void **state)
{
    (void)state;
    static const uint8_t id[CP_PREPARED_ID_SIZE] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    assert_int_equal(read_as(CP_WORK_PUBLISH, "{\"message\": \"why\", \"plan\":"
                                              " \"0123456789abcdef0000000000000000\"}"),
                     E_OK);
    assert_true(work.has_plan);
    assert_memory_equal(work.plan, id, sizeof(id));
    assert_int_equal(work.sources.count, 0);
    assert_int_equal(read_as(CP_WORK_PLAN, "{\"plan\": \"0123456789abcdef0000000000000000\"}"),
                     E_USAGE);
}

static void a_rollback_is_read(void **state)
{
    (void)state;
    assert_int_equal(read_as(CP_WORK_ROLLBACK, "{\"message\": \"m\", \"version\": 3}"), E_OK);
    assert_int_equal(work.target, 3);
    assert_false(work.has_base);
}

static void each_refusal_has_its_sentence(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "[]",
        "{",
        "{\"message\": \"m\"}",
        "{\"files\": [{\"name\": \"a.yaml\", \"content\": \"aGk=\"}]}",
        "{\"message\": \"m\", \"files\": []}",
        "{\"message\": \"m\", \"plan\": 7}",
        "{\"message\": \"m\", \"plan\": \"0123\"}",
        "{\"message\": \"m\", \"plan\": \"0123456789abcdef000000000000000g\"}",
        ("{\"message\": \"m\", \"plan\": \"0123456789abcdef0000000000000000\", \"files\":"
         " [{\"name\": \"a.yaml\", \"content\": \"aGk=\"}]}"),
        "{\"message\": \"m\", \"files\": [1]}",
        "{\"message\": \"m\", \"files\": [{\"name\": \"a.yaml\"}]}",
        "{\"message\": \"m\", \"files\": [{\"name\": \"a.yaml\", \"content\": \"a\"}]}",
        "{\"message\": \"m\", \"files\": [{\"name\": \"../a\", \"content\": \"aGk=\"}]}",
        "{\"message\": 1, \"files\": [{\"name\": \"a.yaml\", \"content\": \"aGk=\"}]}",
        "{\"message\": \"m\", \"base\": -1, \"files\": [{\"name\": \"a\", \"content\": \"\"}]}",
        "{\"message\": \"m\", \"mesage\": \"m\", \"files\": []}",
        "{\"message\": \"m\", \"message\": \"m\", \"files\": []}",
        "{\"message\": \"a\\u0000b\", \"files\": []}",
    };
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        assert_int_not_equal(read_as(CP_WORK_PUBLISH, bodies[i]), E_OK);
        assert_true(work.sentence.size > 0);
    }
    assert_int_not_equal(read_as(CP_WORK_ROLLBACK, "{\"message\": \"m\"}"), E_OK);
}

static void texts_are_taken_up_to_their_bound(void **state)
{
    (void)state;
    char body[2 * CP_MESSAGE_MAX];
    char message[CP_MESSAGE_MAX + 2];
    (void)memset(message, 'x', sizeof(message));
    message[CP_MESSAGE_MAX] = '\0';
    (void)snprintf(body, sizeof(body), "{\"message\": \"%s\", \"version\": 1}", message);
    assert_int_equal(read_as(CP_WORK_ROLLBACK, body), E_OK);
    message[CP_MESSAGE_MAX] = 'x';
    message[CP_MESSAGE_MAX + 1] = '\0';
    (void)snprintf(body, sizeof(body), "{\"message\": \"%s\", \"version\": 1}", message);
    assert_int_equal(read_as(CP_WORK_ROLLBACK, body), E_USAGE);
}

static void an_unverified_node_is_not_repeated(void **state)
{
    (void)state;
    struct cp_fleet_node node = {.why = E_UNAUTHENTICATED};
    (void)snprintf(node.id, sizeof(node.id), "node-1");
    node.status.version = 99;
    json_t *value = cp_json_node(&node);
    assert_null(json_object_get(value, "version"));
    assert_true(json_is_false(json_object_get(value, "verified")));
    assert_string_equal(json_string_value(json_object_get(value, "code")), "UNAUTHENTICATED");
    json_decref(value);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_publish_is_read),
        cmocka_unit_test(a_planned_publish_is_read),
        cmocka_unit_test(a_rollback_is_read),
        cmocka_unit_test(each_refusal_has_its_sentence),
        cmocka_unit_test(texts_are_taken_up_to_their_bound),
        cmocka_unit_test(an_unverified_node_is_not_repeated),
    };
    int failed = cmocka_run_group_tests_name("api.json", tests, NULL, NULL);
    cp_work_free(&work);
    return failed;
}
