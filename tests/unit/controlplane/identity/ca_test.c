/* Proves that leaves of the development CA are X.509-SVIDs that the node's own reader accepts, and
 * that wrong names, and files that are there already, are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/net/tls.h"
#include "controlplane/identity/ca.h"

static char directory[] = "/tmp/trilane-ca-XXXXXX";
static const char *labels; /* of the next leaf. */

static struct err issue(const char *service, const char *node, const char *san, char base[256])
{
    struct cp_leaf leaf = {.ca = directory,
                           .out = directory,
                           .service = service,
                           .node = node,
                           .labels = labels,
                           .san = san,
                           .days = 30};
    struct buf id = BUF_MAX(1024);
    struct buf path = BUF_MAX(1024);
    struct buf message = BUF_MAX(1024);
    struct err e = cp_ca_issue(&leaf, &id, &path, &message);
    (void)snprintf(base, 256, "%.*s", SLICE_ARG(buf_slice(&path)));
    buf_free(&id);
    buf_free(&path);
    buf_free(&message);
    return e;
}

static X509 *read_cert(const char *base, const char *ending)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s%s", base, ending);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    X509 *cert = PEM_read_X509(file, NULL, NULL, NULL);
    assert_int_equal(fclose(file), 0);
    assert_non_null(cert);
    return cert;
}

static void verify(X509 *leaf)
{
    char base[256];
    (void)snprintf(base, sizeof(base), "%s/ca", directory);
    X509 *ca = read_cert(base, ".pem");
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    assert_int_equal(X509_STORE_add_cert(store, ca), 1);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, leaf, NULL), 1);
    assert_int_equal(X509_verify_cert(ctx), 1);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    X509_free(ca);
}

static void a_service_has_its_spiffe_id(void **state)
{
    (void)state;
    char base[256];
    assert_int_equal(issue("acme/web", NULL, "dns:web.acme.test,ip:127.0.0.1", base).code, E_OK);
    X509 *leaf = read_cert(base, ".pem");
    verify(leaf);
    struct net_identity *identity = NULL;
    assert_int_equal(net_identity_new(leaf, &identity).code, E_OK);
    assert_true(
        slice_eq(identity->spiffe_id, SLICE_LIT("spiffe://platform.test/tenant/acme/service/web")));
    assert_int_equal(identity->dns_name_count, 1);
    net_identity_free(identity);
    X509_free(leaf);
    assert_int_equal(issue("acme/web", NULL, NULL, base).code, E_EXISTS);
}

static void a_node_has_its_spiffe_id(void **state)
{
    (void)state;
    char base[256];
    assert_int_equal(issue(NULL, "node-1", NULL, base).code, E_OK);
    X509 *leaf = read_cert(base, ".pem");
    verify(leaf);
    struct net_identity *identity = NULL;
    assert_int_equal(net_identity_new(leaf, &identity).code, E_OK);
    assert_true(slice_eq(identity->spiffe_id, SLICE_LIT("spiffe://platform.test/node/node-1")));
    net_identity_free(identity);
    X509_free(leaf);
}

static void a_node_has_its_labels(void **state)
{
    (void)state;
    char base[256];
    labels = "zone=eu-1,rack=b";
    assert_int_equal(issue(NULL, "node-2", NULL, base).code, E_OK);
    assert_int_equal(issue("acme/labelled", NULL, NULL, base).code, E_USAGE); /* a node's alone. */
    labels = "zone";
    assert_int_equal(issue(NULL, "node-3", NULL, base).code, E_USAGE);
    labels = NULL;
    (void)snprintf(base, sizeof(base), "%s/node-node-2", directory);
    X509 *leaf = read_cert(base, ".pem");
    struct buf text = BUF_MAX(256);
    assert_int_equal(net_cert_labels(leaf, &text).code, E_OK);
    assert_true(slice_eq(buf_slice(&text), SLICE_LIT("rack=b,zone=eu-1")));
    buf_free(&text);
    X509_free(leaf);
}

static void a_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    char path[256];
    char base[256];
    (void)snprintf(path, sizeof(path), "%s/ca.key", directory);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(issue("acme/other", NULL, NULL, base).code, E_USAGE);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(issue("acme/other", NULL, NULL, base).code, E_OK);
}

static void a_bundle_begins_with_the_keys_own(void **state)
{
    (void)state;
    char other[] = "/tmp/trilane-ca-XXXXXX";
    char command[512];
    struct buf message = BUF_MAX(1024);
    struct cp_ca *ca = NULL;
    assert_non_null(mkdtemp(other));
    assert_int_equal(cp_ca_init(other, "platform.test", &message).code, E_OK);
    (void)snprintf(command, sizeof(command), "cat %s/ca.pem >>%s/ca.pem", directory, other);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe): one thread. */
    assert_int_equal(cp_ca_open(other, NULL, &ca, &message).code, E_OK);
    struct net_chain chain = {.count = 0};
    assert_int_equal(net_chain_read(cp_ca_bundle(ca), &chain).code, E_OK);
    assert_int_equal(chain.count, 2);
    net_chain_free(&chain);
    cp_ca_close(ca);
    (void)snprintf(command, sizeof(command), "cp %s/ca.pem %s/ca.pem", directory, other);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe): one thread. */
    ca = NULL;
    assert_int_equal(cp_ca_open(other, NULL, &ca, &message).code,
                     E_CRYPTO); /* another one's key. */
    assert_null(ca);
    buf_free(&message);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", other);
    assert_int_equal(system(command), 0); /* NOLINT(concurrency-mt-unsafe): one thread. */
}

static void a_serial_has_its_count(void **state)
{
    (void)state;
    assert_int_equal(net_serial_count("400000000000010203040506070809ff"), 1);
    assert_int_equal(net_serial_count("40ffffffffffff0203040506070809ff"), 0xffffffffffffULL);
    assert_int_equal(net_serial_count("410000000000010203040506070809ff"), 0);
    assert_int_equal(net_serial_count("4000000000000102030405060708"), 0);
    assert_int_equal(net_serial_count(""), 0);
}

static void wrong_names_are_refused(void **state)
{
    (void)state;
    static const char *const services[] = {
        "", "acme", "/web", "acme/", "Acme/web", "a/b/c", "acme/web,URI:spiffe"};
    static const char *const sans[] = {"dns:",  "dns:a b", "ip:1.2.3",
                                       "uri:x", "web",     "dns:a\nURI:spiffe://x"};
    char base[256];
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
        assert_int_equal(issue(services[i], NULL, NULL, base).code, E_USAGE);
    }
    for (size_t i = 0; i < sizeof(sans) / sizeof(sans[0]); i++) {
        assert_int_equal(issue("acme/san", NULL, sans[i], base).code, E_USAGE);
    }
    struct buf message = BUF_MAX(1024);
    assert_int_equal(cp_ca_init(directory, "Not A Domain", &message).code, E_USAGE);
    assert_int_equal(cp_ca_init(directory, "platform.test", &message).code, E_EXISTS);
    buf_free(&message);
}

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    struct buf message = BUF_MAX(1024);
    CHECK(err_ok(cp_ca_init(directory, "platform.test", &message)));
    buf_free(&message);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_service_has_its_spiffe_id),
        cmocka_unit_test(a_node_has_its_spiffe_id),
        cmocka_unit_test(a_node_has_its_labels),
        cmocka_unit_test(a_key_that_others_may_read_is_refused),
        cmocka_unit_test(a_bundle_begins_with_the_keys_own),
        cmocka_unit_test(a_serial_has_its_count),
        cmocka_unit_test(wrong_names_are_refused),
    };
    int failed = cmocka_run_group_tests_name("identity.ca", tests, NULL, NULL);
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
    return system(command) == 0 ? failed : 1; /* NOLINT(concurrency-mt-unsafe): one thread. */
}
