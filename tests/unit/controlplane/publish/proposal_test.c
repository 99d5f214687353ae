/* Proves under whose name a replica's signature of a proposal is kept. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/publish/passage.h"
#include "controlplane/signer/signer.h"

#include "tests/support/cmocka.h"

enum { VERSION = 7 };

static char directory[] = "/tmp/trilane-proposal-XXXXXX";
static char program[4096];
static char manifest_path[64];
static char head_path[64];
static char state_path[64];

static void must(struct err e)
{
    assert_string_equal(err_name(e.code), "OK");
}

static struct cp_cosignature kept;

/* All of a store that this step asks for. */
static struct err keep(struct cp_store *store, const char *environment, uint64_t version,
                       const uint8_t body_digest[DIGEST_SIZE],
                       const struct cp_cosignature *cosignature)
{
    (void)store;
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("body"), digest);
    assert_string_equal(environment, "dev");
    assert_int_equal(version, VERSION);
    assert_memory_equal(body_digest, digest, DIGEST_SIZE);
    kept = *cosignature;
    return OK;
}

static void a_signature_is_kept_under_the_key_that_made_it(void **state)
{
    (void)state;
    const struct cp_store_ops ops = {.cosign_put = keep};
    struct cp_store store = {.ops = &ops};
    struct cp_publish_room room = {.environment = "dev", .store = &store};
    struct cp_work work = {.kind = CP_WORK_COSIGN};
    struct cp_passage p = {.room = &room,
                           .work = &work,
                           .proposal.version = VERSION,
                           .body = BUF_MAX(16),
                           .signature = {.key_id = {1, 2, 3}, .signature = {4, 5, 6}}};
    const struct cp_signer_options options = {.program = program,
                                              .environment = "dev",
                                              .key_manifest = manifest_path,
                                              .key_head = head_path,
                                              .state = state_path};
    auto_buf struct buf message = BUF_MAX(4096);
    must(buf_add_str(&p.body, "body"));
    must(cp_signer_start(&options, &room.signer, &message)); /* the key of now is another. */
    must(cp_step_tell(&p));
    assert_int_equal(kept.code, E_OK);
    assert_memory_equal(kept.key_id, p.signature.key_id, KEY_ID_SIZE);
    assert_memory_equal(kept.signature, p.signature.signature, sizeof(kept.signature));
    cp_signer_stop(room.signer);
    buf_free(&p.body);
}

static void write_key(enum key_role role, struct slice name, const char *path)
{
    struct key_pair pair;
    must(key_pair_new(role, name, &pair));
    must(key_file_write(path, &pair));
    key_pair_wipe(&pair);
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
    write_key(KEY_ROLE_MANIFEST, SLICE_LIT("m"), manifest_path);
    write_key(KEY_ROLE_HEAD, SLICE_LIT("h"), head_path);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signature_is_kept_under_the_key_that_made_it),
    };
    int failed = cmocka_run_group_tests_name("publish.proposal", tests, NULL, NULL);
    (void)unlink(manifest_path);
    (void)unlink(head_path);
    (void)unlink(state_path);
    (void)rmdir(directory);
    return failed;
}
