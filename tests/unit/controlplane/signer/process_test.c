/* Proves, on the real process, that the signer signs what verifies, checks the numbers against the
 * body, remembers over a restart, refuses key files that others may read, takes keys by descriptor
 * and changed keys over, and is shut off from the rest of the machine. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/head.h"
#include "common/snapshot/share.h"
#include "controlplane/signer/signer.h"

#include "tests/support/cmocka.h"

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

static struct err accepts; /* what start_with() has its signer's keys judged as. */
static int asked;          /* how often that was asked. */

static struct err accept_keys(void *ctx, const struct cp_signer_hello *hello, struct buf *message)
{
    assert_ptr_equal(ctx, &accepts);
    assert_true(hello->manifest_public[0] != 0 || hello->manifest_public[1] != 0);
    asked++;
    if (!err_ok(accepts)) {
        must(buf_add_str(message, "these keys are not taken"));
    }
    return accepts;
}

static struct err start_with(const char *head, struct cp_signer **out)
{
    struct cp_signer_options options = {.program = program,
                                        .environment = "dev",
                                        .key_manifest = manifest_path,
                                        .key_head = head,
                                        .state = state_path,
                                        .accept = accept_keys,
                                        .accept_ctx = &accepts};
    struct buf message = BUF_MAX(4096);
    struct err e = cp_signer_start(&options, out, &message);
    assert_int_equal(err_ok(e), message.size == 0); /* a refusal has its sentence. */
    buf_free(&message);
    return e;
}

static struct err start(struct cp_signer **out)
{
    return start_with(head_path, out);
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

static struct err sign_shares(struct cp_signer *signer, uint64_t epoch, uint64_t sequence,
                              uint64_t claimed_sequence)
{
    struct shares shares = {.epoch = epoch,
                            .sequence = sequence,
                            .node = "node-1",
                            .run = 1,
                            .at_ms = 1,
                            .valid_ms = 3000,
                            .nodes = 1};
    struct buf body = BUF_MAX(SHARES_BODY_MAX);
    struct buf signed_bytes = BUF_MAX(64 << 10);
    must(shares_encode(&shares, &body));
    struct cp_signer_request request = {.kind = CONTAINER_SHARES,
                                        .epoch = epoch,
                                        .sequence = claimed_sequence,
                                        .body = buf_slice(&body)};
    struct container_signature signature;
    struct err e = cp_signer_sign(signer, &request, &signature);
    if (err_ok(e)) {
        must(
            container_signed_bytes(CONTAINER_SHARES, environment, buf_slice(&body), &signed_bytes));
        assert_true(key_verify(cp_signer_hello(signer).head_public, buf_slice(&signed_bytes),
                               signature.signature));
    }
    buf_free(&body);
    buf_free(&signed_bytes);
    return e;
}

static void shares_are_of_the_epoch_of_heads(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    must(start(&signer));
    uint64_t epoch = cp_signer_hello(signer).epoch + 1;
    assert_int_equal(sign_shares(signer, epoch, 1, 1).code, E_SIGNER_REFUSED); /* no head yet. */
    must(sign_head(signer, epoch, 1, 1));
    must(sign_shares(signer, epoch, 1, 1));
    must(sign_shares(signer, epoch, 5, 5));
    assert_int_equal(sign_shares(signer, epoch, 5, 5).code, E_SIGNER_REFUSED); /* it grows. */
    assert_int_equal(sign_shares(signer, epoch, 6, 7).code, E_SIGNER_REFUSED); /* it is said. */
    assert_int_equal(sign_shares(signer, epoch - 1, 8, 8).code, E_SIGNER_REFUSED);
    assert_int_equal(sign_shares(signer, epoch + 1, 8, 8).code, E_SIGNER_REFUSED);
    must(sign_head(signer, epoch, 2, 2)); /* heads have an order of their own. */
    must(sign_head(signer, epoch + 1, 1, 1));
    must(sign_shares(signer, epoch + 1, 1, 1));
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

/* The next epoch's first head. */
static uint64_t lead(struct cp_signer *signer)
{
    uint64_t epoch = cp_signer_hello(signer).epoch + 1;
    must(sign_head(signer, epoch, 1, 1));
    return epoch;
}

static void other_keys_take_over(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    struct key_pair before;
    struct key_pair next;
    bool changed = true;
    auto_buf struct buf message = BUF_MAX(4096);
    must(start(&signer));
    uint64_t epoch = lead(signer);
    must(cp_signer_reload(signer, &changed, &message));
    assert_false(changed);
    must(sign_head(signer, epoch, 2, 2)); /* the one that ran knows its sequence. */
    must(key_file_read(head_path, &before));
    must(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("h2"), &next));
    assert_int_equal(unlink(head_path), 0);
    must(key_file_write(head_path, &next));
    accepts = FAIL(E_USAGE);
    assert_int_equal(cp_signer_reload(signer, &changed, &message).code, E_USAGE);
    assert_true(slice_eq(buf_slice(&message), SLICE_LIT("these keys are not taken")));
    accepts = OK;
    must(sign_head(signer, epoch, 3, 3));
    assert_memory_equal(cp_signer_hello(signer).head_public, before.public.bytes, KEY_PUBLIC_SIZE);
    must(cp_signer_reload(signer, &changed, &message));
    assert_true(changed);
    assert_memory_equal(cp_signer_hello(signer).head_public, next.public.bytes, KEY_PUBLIC_SIZE);
    assert_int_equal(cp_signer_hello(signer).epoch,
                     epoch); /* it remembers what the other signed. */
    assert_int_equal(sign_head(signer, epoch, 4, 4).code, E_SIGNER_REFUSED);
    must(sign_head(signer, epoch + 1, 1, 1));
    cp_signer_stop(signer);
    key_pair_wipe(&before);
    key_pair_wipe(&next);
}

static void a_key_file_that_broke_changes_nothing(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    bool changed = true;
    auto_buf struct buf message = BUF_MAX(4096);
    must(start(&signer));
    uint64_t epoch = lead(signer);
    assert_int_equal(chmod(manifest_path, 0604), 0);
    assert_int_equal(cp_signer_reload(signer, &changed, &message).code, E_USAGE);
    assert_true(message.size > 0);
    assert_int_equal(chmod(manifest_path, 0600), 0);
    must(sign_head(signer, epoch, 2, 2));
    cp_signer_stop(signer);
}

/* ASan's runtime makes nothing of mlock(). */
#ifdef __SANITIZE_ADDRESS__
enum { LOCKED_KIB_MIN = 0 };
#else
enum { LOCKED_KIB_MIN = 24 + 2 * 4 }; /* the stack, a page a key. */
#endif

/* The process id of our only child. */
static pid_t child(void)
{
    char name[64];
    char line[64];
    (void)snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)gettid());
    FILE *file = fopen(name, "re");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    assert_int_equal(fclose(file), 0);
    return (pid_t)strtol(line, NULL, 10);
}

/* A line of /proc/<pid>/<what> that begins with 'name'; the rest of it as a number. */
static long proc_number(pid_t pid, const char *what, const char *name)
{
    char path[64];
    char line[256];
    long number = -1;
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            number = strtol(line + strlen(name), NULL, 10);
        }
    }
    assert_int_equal(fclose(file), 0);
    return number;
}

static void it_is_shut_off(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    must(start(&signer));
    pid_t pid = child();
    assert_int_equal(proc_number(pid, "status", "Seccomp:"), 2); /* a filter. */
    assert_int_equal(proc_number(pid, "status", "NoNewPrivs:"), 1);
    assert_true(proc_number(pid, "status", "VmLck:") >= LOCKED_KIB_MIN);
    assert_int_equal(proc_number(pid, "limits", "Max core file size"), 0);
    char path[64];
    char link[256];
    for (int fd = 3; fd < 64; fd++) { /* the socket and the state; no key file, none of ours. */
        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        ssize_t size = readlink(path, link, sizeof(link));
        bool expected =
            fd == 3 || (size > 0 && slice_eq(slice_of(link, (size_t)size), slice_str(state_path)));
        assert_true(size < 0 || expected);
    }
    cp_signer_stop(signer);
}

static void one_that_is_killed_comes_back(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    auto_buf struct buf message = BUF_MAX(4096);
    must(start(&signer));
    uint64_t epoch = lead(signer);
    asked = 0;
    assert_int_equal(kill(child(), SIGSYS), 0); /* as its sandbox would. */
    assert_int_equal(sign_head(signer, epoch, 2, 2).code, E_SIGNER_GONE);
    assert_true(cp_signer_is_gone(signer));
    must(cp_signer_restart(signer, &message));
    assert_true(slice_starts(buf_slice(&message), SLICE_LIT("the signer had ended by SIGSYS")));
    assert_int_equal(asked, 0); /* the same keys need no judge. */
    must(sign_head(signer, epoch + 1, 1, 1));
    cp_signer_stop(signer);
}

static void one_that_is_stopped_is_not_waited_for(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    struct key_pair next;
    bool changed = false;
    auto_buf struct buf message = BUF_MAX(4096);
    must(start(&signer));
    uint64_t epoch = lead(signer);
    must(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("h3"), &next));
    assert_int_equal(unlink(head_path), 0);
    must(key_file_write(head_path, &next));
    assert_int_equal(kill(child(), SIGSTOP), 0);
    must(cp_signer_reload(signer, &changed, &message)); /* returns. */
    assert_true(changed);
    must(sign_head(signer, epoch + 1, 1, 1)); /* it remembers what the other signed. */
    assert_int_equal(kill(child(), SIGSTOP), 0);
    cp_signer_stop(signer); /* the same. */
    key_pair_wipe(&next);
}

/* A pipe that holds 'size' bytes of a file, and is closed behind them; "fd:N" of its end. */
static int pipe_of(const char *path, size_t size, char out[16])
{
    char bytes[4096] = {0};
    int fds[2];
    auto_close int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, bytes, sizeof(bytes));
    assert_true(got >= 0);
    size = size == 0 ? (size_t)got : size;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(write(fds[1], bytes, size), size);
    assert_int_equal(close(fds[1]), 0);
    (void)snprintf(out, 16, "fd:%d", fds[0]);
    return fds[0];
}

static void a_key_comes_by_a_descriptor(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    char source[16];
    bool changed = true;
    auto_buf struct buf message = BUF_MAX(4096);
    int fd = pipe_of(head_path, 0, source);
    must(start_with(source, &signer));
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* read and closed. */
    uint64_t epoch = lead(signer);
    must(cp_signer_reload(signer, &changed, &message));
    assert_false(changed);
    must(sign_head(signer, epoch, 2, 2));
    assert_int_equal(kill(child(), SIGKILL), 0); /* the next one needs the bytes again. */
    assert_int_equal(sign_head(signer, epoch, 3, 3).code, E_SIGNER_GONE);
    must(cp_signer_restart(signer, &message));
    must(sign_head(signer, epoch + 1, 1, 1));
    cp_signer_stop(signer);
}

static void a_descriptor_without_a_key_is_refused(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    char source[16];
    assert_int_equal(start_with("fd:399", &signer).code, E_USAGE);
    (void)pipe_of(NULL, 0, source);
    assert_int_equal(start_with(source, &signer).code, E_USAGE);
    (void)pipe_of(NULL, 2000, source);
    assert_int_equal(start_with(source, &signer).code, E_USAGE);
    (void)pipe_of(NULL, 200, source);
    assert_int_equal(start_with(source, &signer).code, E_MALFORMED);
    (void)pipe_of(manifest_path, 0, source); /* of another role. */
    assert_int_equal(start_with(source, &signer).code, E_USAGE);
    assert_int_equal(start_with("fd:1", &signer).code, E_NOT_FOUND); /* not ours: a file's name. */
    assert_null(signer);
}

static void keys_that_are_not_taken_do_not_start(void **state)
{
    (void)state;
    struct cp_signer *signer = NULL;
    accepts = FAIL(E_USAGE);
    assert_int_equal(start(&signer).code, E_USAGE);
    accepts = OK;
    assert_null(signer);
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
        cmocka_unit_test(shares_are_of_the_epoch_of_heads),
        cmocka_unit_test(a_key_that_others_may_read_is_refused),
        cmocka_unit_test(other_keys_take_over),
        cmocka_unit_test(a_key_file_that_broke_changes_nothing),
        cmocka_unit_test(it_is_shut_off),
        cmocka_unit_test(one_that_is_killed_comes_back),
        cmocka_unit_test(one_that_is_stopped_is_not_waited_for),
        cmocka_unit_test(a_key_comes_by_a_descriptor),
        cmocka_unit_test(a_descriptor_without_a_key_is_refused),
        cmocka_unit_test(keys_that_are_not_taken_do_not_start),
        cmocka_unit_test(a_torn_state_is_not_taken_for_a_new_one),
    };
    int failed = cmocka_run_group_tests_name("signer.process", tests, NULL, NULL);
    (void)unlink(manifest_path);
    (void)unlink(head_path);
    (void)unlink(state_path);
    (void)rmdir(directory);
    return failed;
}
