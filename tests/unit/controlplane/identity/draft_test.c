/* Proves the ceremony of files: what the next root's draft holds, that each signature counts for
 * the sides that know its key, and that only both thresholds make it a root that nodes walk to. */
#include "controlplane/identity/draft.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "controlplane/identity/ceremony.h"

#include "tests/support/cmocka.h"

#define EXPECT(call, wanted) assert_int_equal((call).code, (wanted))
#define EXPECT_OK(call) EXPECT(call, E_OK)

static char directory[32];
static char here[4096]; /* where the test came from. */
static struct buf message;
static struct buf path;
static struct cp_draft draft;

static void make_key(enum key_role role, const char *name)
{
    struct key_public key;
    EXPECT_OK(cp_key_generate(role, name, "k", &key, &message));
}

/* Root 1: one root key, one manifest key, one head key. */
static const struct cp_root_plan first_plan = {.environment = "test",
                                               .version = 1,
                                               .roots = "k/a.key",
                                               .manifests = "k/m1.pub",
                                               .heads = "k/h1.pub",
                                               .threshold_manifests = 1,
                                               .days = 30,
                                               .head_days = 1,
                                               .out = "."};

static int setup(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/trilane-draft-XXXXXX");
    assert_non_null(mkdtemp(directory));
    assert_int_equal(chdir(directory), 0);
    message = BUF_MAX(4096);
    path = BUF_MAX(4096);
    draft = (struct cp_draft){0};
    static const char *const names[] = {"a", "b", "c"};
    for (size_t i = 0; i < 3; i++) {
        make_key(KEY_ROLE_ROOT, names[i]);
    }
    make_key(KEY_ROLE_MANIFEST, "m1");
    make_key(KEY_ROLE_MANIFEST, "m2");
    make_key(KEY_ROLE_HEAD, "h1");
    make_key(KEY_ROLE_HEAD, "h2");
    make_key(KEY_ROLE_NODE, "n1");
    EXPECT_OK(cp_root_make(&first_plan, &path, &message));
    buf_clear(&path);
    return 0;
}

/* A directory that is not there is made; one that cannot be is said to be so, by the system's word.
 */
static void it_is_written_where_it_is_told(void **state)
{
    (void)state;
    struct cp_root_plan plan = first_plan;
    plan.out = "ceremony";
    EXPECT_OK(cp_root_make(&plan, &path, &message));
    assert_int_equal(access("ceremony/root.1", R_OK), 0);
    plan.out = "not/there";
    assert_int_equal(cp_root_make(&plan, &path, &message).code, E_IO);
    const char *said = NULL;
    EXPECT_OK(buf_cstr(&message, &said));
    assert_string_equal(said, "not/there: No such file or directory");
}

static int teardown(void **state)
{
    (void)state;
    char command[64];
    buf_free(&message);
    buf_free(&path);
    cp_draft_free(&draft);
    assert_int_equal(chdir(here), 0);
    (void)snprintf(command, sizeof(command), "rm -rf %s", directory);
    return system(command);
}

static struct cp_draft_plan plan_of(const char *add, const char *drop)
{
    return (struct cp_draft_plan){
        .root = "root.1", .add = add, .drop = drop, .days = 10, .head_days = 7, .out = "."};
}

static struct err make(const struct cp_draft_plan *plan, struct root *out)
{
    buf_clear(&path);
    buf_clear(&message);
    return cp_draft_make(plan, out, &path, &message);
}

static struct err sign(const char *file, const char *key)
{
    buf_clear(&path);
    buf_clear(&message);
    cp_draft_free(&draft);
    return cp_draft_sign(file, /* previous= */ NULL, key, &draft, &path, &message);
}

static bool says(const char *text)
{
    return memmem(message.ptr, message.size, text, strlen(text)) != NULL;
}

static const struct ring_key *key_of(const struct root *root, const char *name)
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        if (strcmp(root->ring.keys[i].name, name) == 0) {
            return &root->ring.keys[i];
        }
    }
    return NULL;
}

static void a_draft_is_the_root_before_and_what_was_said(void **state)
{
    (void)state;
    struct root next;
    struct cp_draft_plan plan = plan_of("k/b.pub,k/m2.pub,k/h2.pub", "h1");
    plan.thresholds[KEY_ROLE_ROOT] = 2;
    plan.has_floor = true;
    plan.floor = (struct root_floor){.epoch = 7, .version = 9};
    EXPECT_OK(make(&plan, &next));
    EXPECT_OK(cp_draft_read("root.2.draft", NULL, &draft, &message));
    assert_int_equal(draft.root.version, 2);
    assert_string_equal(draft.root.environment, "test");
    assert_int_equal(draft.root.ring.thresholds[KEY_ROLE_ROOT], 2);
    assert_int_equal(draft.root.ring.thresholds[KEY_ROLE_MANIFEST], 1);
    assert_true(draft.root.has_floor && draft.root.floor.epoch == 7 &&
                draft.root.floor.version == 9);
    assert_int_equal(draft.root.ring.count, 5);
    assert_null(key_of(&draft.root, "h1"));
    assert_non_null(key_of(&draft.root, "a"));
    assert_non_null(key_of(&draft.root, "m1"));
    int64_t left_ms = key_of(&draft.root, "h2")->not_after_ms - clock_wall_ms();
    assert_true(left_ms > 6 * 86400000LL && left_ms <= 7 * 86400000LL);
    assert_int_equal(key_of(&draft.root, "m2")->not_after_ms, 0);
    assert_true(draft.has_before);
    assert_int_equal(draft.own.count, 0);
    assert_false(draft.whole);
    EXPECT(make(&plan, &next), E_EXISTS); /* nothing is written over. */
}

static void a_head_key_that_stays_gets_a_new_end(void **state)
{
    (void)state;
    struct root next;
    struct cp_draft_plan plan = plan_of("k/h1.pub", "");
    EXPECT_OK(make(&plan, &next));
    assert_int_equal(next.ring.count, 3);
    assert_true(key_of(&next, "h1")->not_after_ms - clock_wall_ms() > 6 * 86400000LL);
}

static void what_makes_no_root_is_refused(void **state)
{
    (void)state;
    struct root next;
    struct cp_draft_plan plan = plan_of("", "h1");
    EXPECT(make(&plan, &next), E_USAGE);
    assert_true(says("0 head keys are left"));
    plan = plan_of("", "nobody");
    EXPECT(make(&plan, &next), E_USAGE);
    assert_true(says("\"nobody\" is neither name nor id"));
    plan = plan_of("k/m1.pub", "");
    EXPECT(make(&plan, &next), E_USAGE);
    assert_true(says("manifest key m1"));
    plan = plan_of("k/n1.pub", "");
    EXPECT(make(&plan, &next), E_USAGE);
    plan = plan_of("k/nowhere.pub", "");
    EXPECT(make(&plan, &next), E_NOT_FOUND);
    assert_true(says("k/nowhere.pub"));
    plan = plan_of("", "");
    plan.thresholds[KEY_ROLE_MANIFEST] = 2;
    EXPECT(make(&plan, &next), E_USAGE);
    assert_true(says("1 manifest keys are left, and 2 of them must sign"));
    plan.thresholds[KEY_ROLE_MANIFEST] = 0;
    plan.root = "k/m1.pub";
    EXPECT(make(&plan, &next), E_ROOT_MALFORMED);
    assert_int_not_equal(access("root.2.draft", F_OK), 0);
}

static void a_name_that_two_keys_have_must_be_told_apart(void **state)
{
    (void)state;
    struct root next;
    struct key_public key;
    EXPECT_OK(cp_key_generate(KEY_ROLE_HEAD, "m1", "other", &key, &message));
    struct cp_draft_plan plan = plan_of("other/m1.pub,k/m2.pub", "");
    EXPECT_OK(make(&plan, &next));
    EXPECT_OK(sign("root.2.draft", "k/a.key"));
    plan = plan_of("", "m1");
    plan.root = "root.2";
    EXPECT(make(&plan, &next), E_USAGE);
    assert_true(says("say which by ROLE:NAME"));
    plan.drop = "manifest:m1";
    EXPECT_OK(make(&plan, &next));
    assert_int_equal(key_of(&next, "m1")->role, KEY_ROLE_HEAD);
    assert_int_equal(unlink("root.3.draft"), 0);
    char id[2 * KEY_ID_SIZE + 1] = "";
    for (size_t i = 0; i < KEY_ID_SIZE; i++) {
        (void)snprintf(id + 2 * i, 3, "%02x", key_of(&next, "m1")->id[i]);
    }
    plan.drop = id;
    EXPECT_OK(make(&plan, &next));
    assert_int_equal(key_of(&next, "m1")->role, KEY_ROLE_MANIFEST);
}

/* From one root key to two of three, and on to a root without the first one. */
static void both_thresholds_make_it_a_root(void **state)
{
    (void)state;
    struct root next;
    struct root first;
    struct root_walk walk;
    struct cp_draft_plan plan = plan_of("k/b.pub,k/c.pub", "");
    plan.thresholds[KEY_ROLE_ROOT] = 2;
    EXPECT_OK(make(&plan, &next));
    EXPECT_OK(sign("root.2.draft", "k/b.key"));
    assert_int_equal(draft.own.count, 1);
    assert_int_equal(draft.own.threshold, 2);
    assert_int_equal(draft.previous.count, 0);
    EXPECT_OK(sign("root.2.draft", "k/c.key")); /* enough for itself, not for the one before. */
    assert_int_equal(draft.own.count, 2);
    assert_false(draft.whole);
    EXPECT_OK(sign("root.2.draft", "k/c.key")); /* again: it is there already. */
    assert_int_equal(draft.own.count, 2);
    EXPECT_OK(sign("root.2.draft", "k/a.key"));
    assert_true(draft.whole);
    assert_true(slice_eq(buf_slice(&path), SLICE_LIT("./root.2")));
    assert_int_not_equal(access("root.2.draft", F_OK), 0);
    struct cp_draft made;
    EXPECT_OK(cp_draft_read("root.1", NULL, &made, &message));
    first = made.root;
    cp_draft_free(&made);
    EXPECT_OK(cp_draft_read("root.2", NULL, &made, &message));
    assert_true(made.whole);
    root_walk_start(&first, &walk);
    EXPECT_OK(root_walk_step(&walk, buf_slice(&made.bytes)));
    cp_draft_free(&made);
    plan = plan_of("", "a");
    plan.root = "root.2";
    EXPECT_OK(make(&plan, &next));
    EXPECT_OK(sign("root.3.draft", "k/a.key")); /* counts for the one before alone. */
    assert_int_equal(draft.own.count, 0);
    assert_int_equal(draft.previous.count, 1);
    EXPECT_OK(sign("root.3.draft", "k/b.key"));
    assert_false(draft.whole);
    EXPECT_OK(sign("root.3.draft", "k/c.key"));
    assert_true(draft.whole);
    root_walk_start(&walk.at, &walk);
    EXPECT_OK(root_walk_step(&walk, buf_slice(&draft.bytes)));
}

static void who_may_not_sign_is_told(void **state)
{
    (void)state;
    struct root next;
    struct cp_draft_plan plan = plan_of("k/h2.pub", "");
    EXPECT_OK(make(&plan, &next));
    EXPECT(sign("root.2.draft", "k/b.key"), E_USAGE); /* a root key of neither side. */
    assert_true(says("it is no root key of root 2 or of the one before"));
    EXPECT(sign("root.2.draft", "k/m1.key"), E_USAGE);
    EXPECT(sign("root.2.draft", "k/nowhere.key"), E_NOT_FOUND);
    assert_int_equal(chmod("k/a.key", 0644), 0);
    EXPECT(sign("root.2.draft", "k/a.key"), E_USAGE);
    assert_int_equal(chmod("k/a.key", 0600), 0);
    EXPECT(sign("nowhere.draft", "k/a.key"), E_NOT_FOUND);
    EXPECT(sign("k/a.pub", "k/a.key"), E_ROOT_MALFORMED);
    assert_int_equal(rename("root.1", "elsewhere"), 0);
    EXPECT(sign("root.2.draft", "k/a.key"), E_USAGE);
    assert_true(says("root 1 is needed, too: name it with --previous"));
    cp_draft_free(&draft);
    EXPECT_OK(cp_draft_sign("root.2.draft", "elsewhere", "k/a.key", &draft, &path, &message));
    assert_true(draft.whole);
}

static void another_root_before_is_not_taken(void **state)
{
    (void)state;
    struct root next;
    struct cp_draft_plan plan = plan_of("k/h2.pub", "");
    EXPECT_OK(make(&plan, &next));
    EXPECT_OK(sign("root.2.draft", "k/a.key"));
    plan = plan_of("", "h1");
    plan.root = "root.2";
    EXPECT_OK(make(&plan, &next));
    cp_draft_free(&draft);
    buf_clear(&message);
    EXPECT(cp_draft_sign("root.3.draft", "root.1", "k/a.key", &draft, &path, &message), E_USAGE);
    assert_true(says("it is root 1 of test; expected root 2 of test"));
}

/* A signature that broke on the way counts for nothing, and the next one is written without it. */
static void a_draft_from_foreign_hands_is_counted_anew(void **state)
{
    (void)state;
    struct root next;
    struct cp_draft_plan plan = plan_of("k/b.pub", "");
    plan.thresholds[KEY_ROLE_ROOT] = 2;
    EXPECT_OK(make(&plan, &next));
    EXPECT_OK(sign("root.2.draft", "k/b.key"));
    auto_close int fd = open("root.2.draft", O_RDWR | O_CLOEXEC);
    const off_t at = CONTAINER_HEADER_SIZE + KEY_ID_SIZE + 5;
    uint8_t byte = 0;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    EXPECT_OK(sign("root.2.draft", "k/a.key"));
    assert_int_equal(draft.own.count, 1);
    assert_false(draft.whole);
    EXPECT_OK(sign("root.2.draft", "k/b.key"));
    assert_true(draft.whole);
}

int main(void)
{
    assert_non_null(getcwd(here, sizeof(here)));
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_draft_is_the_root_before_and_what_was_said, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(it_is_written_where_it_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_head_key_that_stays_gets_a_new_end, setup, teardown),
        cmocka_unit_test_setup_teardown(what_makes_no_root_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_two_keys_have_must_be_told_apart, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(both_thresholds_make_it_a_root, setup, teardown),
        cmocka_unit_test_setup_teardown(who_may_not_sign_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(another_root_before_is_not_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(a_draft_from_foreign_hands_is_counted_anew, setup,
                                        teardown),
    };
    return cmocka_run_group_tests_name("identity.draft", tests, NULL, NULL);
}
