/* Proves that a caller is found by what it presents, that what is revoked is told from what is not
 * known, and that neither is remembered over a swap. */
#include "dataplane/request/identity.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ids.h"
#include "common/base/text.h"
#include "dataplane/apply/build.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"

#define WEB "spiffe://trilane.test/tenant/acme/service/web"
#define ORDERS "spiffe://trilane.test/tenant/acme/service/orders"

struct world {
    struct publisher publisher;
    struct dp_model_bin *bin;
    struct dp_identity_memo *memo;
    uint64_t version;
};

static struct world w;

static int set_up(void **state)
{
    (void)state;
    w = (struct world){0};
    publisher_init(&w.publisher);
    assert_true(err_ok(dp_model_bin_new(&w.bin)));
    const struct dp_tokens_config tokens = {0};
    assert_true(err_ok(dp_identity_memo_new(&tokens, &w.memo)));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dp_identity_memo_free(w.memo);
    dp_model_bin_free(w.bin);
    publisher_free(&w.publisher);
    return 0;
}

/* Swaps to a model in which these are revoked. */
static struct dp_model *serve(const char *const *keys, size_t count)
{
    struct content *c = content_sample(1);
    for (size_t i = 0; i < count; i++) {
        content_revoke(c, keys[i]);
    }
    struct version *v = version_new(&w.publisher, c, ++w.version, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    struct dp_model *model = NULL;
    struct dp_build_report report;
    assert_true(err_ok(dp_model_build(w.bin, set, NULL, &model, &report)));
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    dp_identity_memo_clear(w.memo);
    return model;
}

static void expect(const struct dp_model *m, const char *spiffe, const char *serial,
                   const char *token, const char *wanted)
{
    struct dp_identified found;
    const struct dp_credentials by = {
        .spiffe = slice_str(spiffe), .serial = slice_str(serial), .token = slice_str(token)};
    struct err e = dp_identity_find(w.memo, m, &by, &found);
    assert_string_equal(err_ok(e) ? (const char *)found.caller->id.ptr : err_name(e.code), wanted);
}

static void callers_are_found(void **state)
{
    (void)state;
    struct dp_model *m = serve(NULL, 0);
    expect(m, WEB, "01", "", "acme/web");
    expect(m, "", "", "token-of-web", "acme/web");
    expect(m, "", "", "token-of-web", "acme/web");          /* by the memo. */
    expect(m, ORDERS, "01", "token-of-web", "acme/orders"); /* the certificate decides alone. */
    expect(m, "spiffe://trilane.test/tenant/acme/service/no", "01", "", "UNAUTHENTICATED");
    expect(m, "", "01", "wrong", "UNAUTHENTICATED");
    expect(m, "", "", "", "UNAUTHENTICATED");
    dp_model_unref(m);
}

static void a_revoked_identity(void **state)
{
    (void)state;
    struct dp_model *before = serve(NULL, 0);
    expect(before, "", "", "token-of-web", "acme/web");
    const char *keys[] = {"identity/" WEB};
    struct dp_model *m = serve(keys, 1);
    expect(m, WEB, "01", "", "IDENTITY_REVOKED");
    expect(m, WEB, "01", "token-of-web", "IDENTITY_REVOKED");
    expect(m, "", "", "token-of-web", "IDENTITY_REVOKED");
    expect(m, ORDERS, "01", "", "acme/orders");
    expect(m, "spiffe://trilane.test/tenant/acme/service/no", "01", "", "UNAUTHENTICATED");
    dp_model_unref(before);
    dp_model_unref(m);
}

/* A certificate without a SPIFFE id, too: who holds it may not use a token beside it. */
static void a_revoked_certificate(void **state)
{
    (void)state;
    const char *keys[] = {"certificate/0a1b"};
    struct dp_model *m = serve(keys, 1);
    expect(m, WEB, "0a1b", "", "IDENTITY_REVOKED");
    expect(m, "", "0a1b", "token-of-web", "IDENTITY_REVOKED");
    expect(m, "spiffe://trilane.test/tenant/acme/service/no", "0a1b", "", "IDENTITY_REVOKED");
    expect(m, WEB, "0a1c", "", "acme/web");
    expect(m, "", "", "token-of-web", "acme/web");
    dp_model_unref(m);
}

static void a_revoked_token(void **state)
{
    (void)state;
    uint8_t digest[DIGEST_SIZE];
    char key[8 + 2 * DIGEST_SIZE] = "token/";
    ids_digest(SLICE_LIT("token-of-web"), digest);
    text_hex(slice_of(digest, sizeof(digest)), key + strlen(key));
    const char *keys[] = {key};
    struct dp_model *m = serve(keys, 1);
    expect(m, "", "", "token-of-web", "IDENTITY_REVOKED");
    expect(m, WEB, "01", "", "acme/web");
    dp_model_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(callers_are_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_revoked_identity, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_revoked_certificate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_revoked_token, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
