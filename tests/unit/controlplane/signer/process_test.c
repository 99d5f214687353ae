/* Proves, on the real process, that the signer signs what verifies, checks the numbers against the
 * body, remembers over a restart, and refuses key files that others may read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/head.h"
#include "controlplane/signer/signer.h"

static char directory[] = "/tmp/trilane-signing-XXXXXX";
static char program[4096];
static char manifest_path[64];
static char head_path[64];
static char state_path[64];
static uint8_t environment[ENVIRONMENT_SIZE];

static void must(struct err e)
{
    if (!err_ok(e)) {
        print_error("%s at %s\n", err_name(e.code), e.where);
    }
    assert_int_equal(e.code, E_OK);
}

static struct err start(struct cp_signer **out)
{
    struct cp_signer_options options = {.program = program,
                                        .environment = "dev",
                                        .key_manifest = manifest_path,
                                        .key_head = head_path,
                                        .state = state_path};
    struct buf message = BUF_MAX(4096);
    struct err e = cp_signer_start(&options, out, &message);
    assert_int_equal(err_ok(e), message.size == 0); /* a refusal has its sentence. */
    buf_free(&message);
    return e;
}

static struct err sign_head(struct cp_signer *signer, uint64_t epoch, uint64_t sequence,
                            uint64_t claimed_sequence)
{
    struct head head = {.root_version = 1,
                        .epoch = epoch,
                        .sequence = sequence,
                        .signed_at_ms = 1000,
                        .expires_at_ms = 2000,
                        .target_count = 1};
    head.targets[0].all = true;
    head.targets[0].version = 1;
    struct buf body = BUF_MAX(HEAD_BODY_MAX);
    struct buf signed_bytes = BUF_MAX(64 << 10);
    must(head_encode(&head, &body));
    struct cp_signer_request request = {.kind = CONTAINER_HEAD,
                                        .root_version = 1,
                                        .epoch = epoch,
                                        .sequence = claimed_sequence,
                                        .body = buf_slice(&body)};
    struct container_signature signature;
    struct err e = cp_signer_sign(signer, &request, &signature);
    if (err_ok(e)) {
        must(container_signed_bytes(CONTAINER_HEAD, environment, buf_slice(&body), &signed_bytes));
        assert_true(key_verify(cp_signer_hello(signer).head_public, buf_slice(&signed_bytes),
                               signature.signature));
    }
    buf_free(&body);
    buf_free(&signed_bytes);
    return e;
}

static void it_signs_what_verifies_and_grows(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    must(start(&signer));
    assert_int_equal(cp_signer_hello(signer).epoch, 0);
    must(sign_head(signer, 3, 1, 1));
    must(sign_head(signer, 3, 2, 2));
    assert_int_equal(sign_head(signer, 3, 1, 1).code, E_SIGNER_REFUSED);
    assert_int_equal(sign_head(signer, 2, 9, 9).code, E_SIGNER_REFUSED);
    cp_signer_stop(signer);
}

static void a_number_that_the_body_does_not_say_is_refused(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    must(start(&signer));
    assert_int_equal(sign_head(signer, 4, 1, 2).code, E_SIGNER_REFUSED);
    must(sign_head(signer, 4, 1, 1));
    cp_signer_stop(signer);
}

static void it_remembers_over_a_restart(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    must(start(&signer));
    uint64_t epoch = cp_signer_hello(signer).epoch;
    assert_true(epoch >= 4);
    assert_int_equal(sign_head(signer, epoch, 1000, 1000).code, E_SIGNER_REFUSED);
    must(sign_head(signer, epoch + 1, 1, 1));
    cp_signer_stop(signer);
}

static void a_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    assert_int_equal(chmod(head_path, 0640), 0);
    assert_int_equal(start(&signer).code, E_USAGE);
    assert_null(signer);
    assert_int_equal(chmod(head_path, 0600), 0);
}

static void a_torn_state_is_not_taken_for_a_new_one(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    assert_int_equal(truncate(state_path, 20), 0);
    assert_int_equal(start(&signer).code, E_MALFORMED);
    assert_null(signer);
}

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    const char *build = getenv("TRILANE_BUILD_DIR");
    (void)snprintf(program, sizeof(program), "%s/trilane-cp", build == NULL ? "." : build);
    (void)snprintf(manifest_path, sizeof(manifest_path), "%s/m.key", directory);
    (void)snprintf(head_path, sizeof(head_path), "%s/h.key", directory);
    (void)snprintf(state_path, sizeof(state_path), "%s/state", directory);
    snap_environment(SLICE_LIT("dev"), environment);
    struct key_pair pair;
    must(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("m"), &pair));
    must(key_file_write(manifest_path, &pair));
    must(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("h"), &pair));
    must(key_file_write(head_path, &pair));
    key_pair_wipe(&pair);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_signs_what_verifies_and_grows),
        cmocka_unit_test(a_number_that_the_body_does_not_say_is_refused),
        cmocka_unit_test(it_remembers_over_a_restart),
        cmocka_unit_test(a_key_that_others_may_read_is_refused),
        cmocka_unit_test(a_torn_state_is_not_taken_for_a_new_one),
    };
    int failed = cmocka_run_group_tests_name("signer.process", tests, NULL, NULL);
    (void)unlink(manifest_path);
    (void)unlink(head_path);
    (void)unlink(state_path);
    (void)rmdir(directory);
    return failed;
}
