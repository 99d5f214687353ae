/* Proves what a joined node's directory says and refuses to say, that a certificate and its key
 * take effect together from whatever state they are found in, when it is renewed, and which servers
 * a node talks to. */
#include "dataplane/join/self.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/net/csr.h"
#include "dataplane/join/join.h"
#include "dataplane/join/renewal.h"
#include "dataplane/join/server.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/certs.h"

static char data_dir[] = "/tmp/trilane-self-XXXXXX";
static struct certs certs;
static struct dp_identity_dir dir = {.fd = -1};
static struct dp_self self = {.environment = "prod",
                              .node = "edge-1",
                              .server = "https://cp.example.org:9443",
                              .has_pin = true,
                              .pin = {1, 2, 3},
                              .token = {4, 5, 6},
                              .seed = {.root_version = 3, .epoch = 7, .version = 41}};

static int setup(void **state)
{
    (void)state;
    auto_buf struct buf message = BUF_MAX(1024);
    return err_ok(dp_identity_open(data_dir, /* make= */ true, &dir, &message)) ? 0 : 1;
}

static int remove_files(const char *what)
{
    char command[256];
    (void)snprintf(command, sizeof(command), "rm -rf %s%s", data_dir, what);
    return system(command); /* NOLINT(concurrency-mt-unsafe): one thread. */
}

static int teardown(void **state)
{
    (void)state;
    dp_identity_close(&dir);
    return remove_files("/identity");
}

/* ---- pairs ---- */

struct pair {
    EVP_PKEY *key;
    struct buf key_pem;
    struct buf chain;
};

static void add_pem(X509 *cert, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *bytes = NULL;
    assert_int_equal(PEM_write_bio_X509(bio, cert), 1);
    long size = BIO_get_mem_data(bio, &bytes);
    assert_int_equal(buf_add(out, slice_of(bytes, (size_t)size)).code, E_OK);
    BIO_free(bio);
}

static struct pair pair_of(const char *san, const char *label)
{
    const struct certs_leaf leaf = {.san = san};
    struct pair p = {.key_pem = BUF_MAX(NET_KEY_PEM_MAX), .chain = BUF_MAX(NET_CHAIN_BYTES_MAX)};
    X509 *cert = certs_make(&certs, &leaf, &p.key);
    if (label != NULL) {
        assert_int_equal(net_cert_add_label(cert, slice_str(label)).code, E_OK);
        assert_true(X509_sign(cert, certs.ca_key, EVP_sha256()) > 0);
    }
    add_pem(cert, &p.chain);
    assert_int_equal(net_key_write(p.key, &p.key_pem).code, E_OK);
    X509_free(cert);
    return p;
}

static struct pair node_pair(void)
{
    return pair_of("URI:spiffe://a.test/node/edge-1", "zone=eu-1");
}

static void pair_free(struct pair *p)
{
    EVP_PKEY_free(p->key);
    buf_free(&p->key_pem);
    buf_free(&p->chain);
}

static void put(const char *name, const struct buf *bytes)
{
    assert_int_equal(dp_identity_put(&dir, name, buf_slice(bytes)).code, E_OK);
}

static bool holds(const char *name, const struct buf *bytes)
{
    auto_buf struct buf found = BUF_MAX(DP_IDENTITY_FILE_MAX);
    struct err e = dp_identity_get(&dir, name, &found);
    return err_ok(e) && slice_eq(buf_slice(&found), buf_slice(bytes));
}

static bool is_there(const char *name)
{
    auto_buf struct buf found = BUF_MAX(DP_IDENTITY_FILE_MAX);
    return err_ok(dp_identity_get(&dir, name, &found));
}

/* ---- joined ---- */

static enum err_code read_back(struct dp_self *out)
{
    auto_buf struct buf message = BUF_MAX(1024);
    return dp_self_read(&dir, out, &message).code;
}

static void what_joined_says_comes_back(void **state)
{
    (void)state;
    struct dp_self found;
    assert_int_equal(read_back(&found), E_NOT_FOUND);
    assert_int_equal(dp_self_write(&dir, &self).code, E_OK);
    assert_int_equal(read_back(&found), E_OK);
    assert_string_equal(found.environment, "prod");
    assert_string_equal(found.node, "edge-1");
    assert_string_equal(found.server, self.server);
    assert_true(found.has_pin);
    assert_memory_equal(found.pin, self.pin, JOIN_PIN_SIZE);
    assert_memory_equal(found.token, self.token, DIGEST_SIZE);
    assert_int_equal(found.seed.root_version, 3);
    assert_int_equal(found.seed.epoch, 7);
    assert_int_equal(found.seed.version, 41);
    struct dp_self no_pin = self;
    no_pin.has_pin = false;
    assert_int_equal(dp_self_write(&dir, &no_pin).code, E_OK);
    assert_int_equal(read_back(&found), E_OK);
    assert_false(found.has_pin);
}

static void what_joined_never_said_is_refused(void **state)
{
    (void)state;
    struct dp_self found;
    auto_buf struct buf whole = BUF_MAX(4096);
    assert_int_equal(dp_self_write(&dir, &self).code, E_OK);
    assert_int_equal(dp_identity_get(&dir, DP_FILE_JOINED, &whole).code, E_OK);
    for (size_t size = 0; size < whole.size; size++) { /* cut short anywhere. */
        struct slice part = slice_head(buf_slice(&whole), size);
        assert_int_equal(dp_identity_put(&dir, DP_FILE_JOINED, part).code, E_OK);
        assert_int_equal(read_back(&found), E_MALFORMED);
    }
    assert_int_equal(buf_add_str(&whole, "more: 1\n").code, E_OK);
    put(DP_FILE_JOINED, &whole);
    assert_int_equal(read_back(&found), E_MALFORMED);
    struct dp_self bad = self;
    (void)snprintf(bad.node, sizeof(bad.node), "Edge");
    assert_int_equal(dp_self_write(&dir, &bad).code, E_OK);
    assert_int_equal(read_back(&found), E_MALFORMED);
}

static void a_directory_has_one_owner(void **state)
{
    (void)state;
    auto_buf struct buf message = BUF_MAX(1024);
    auto_identity_dir struct dp_identity_dir second = {.fd = -1};
    struct stat info;
    assert_int_equal(dp_identity_open(data_dir, false, &second, &message).code, E_CONFLICT);
    assert_true(message.size > 0);
    assert_int_equal(dp_identity_open("/nonexistent", false, &second, &message).code, E_NOT_FOUND);
    assert_int_equal(fstat(dir.fd, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
}

/* ---- certificate and key ---- */

static void take_effect_together(void **state)
{
    (void)state;
    struct pair old = node_pair();
    struct pair next = node_pair();
    put(DP_FILE_KEY, &old.key_pem);
    put(DP_FILE_CERT, &old.chain);
    put(DP_FILE_KEY_NEXT, &next.key_pem);
    assert_int_equal(dp_self_settle(&dir).code, E_OK); /* no certificate came: nothing changes. */
    assert_true(holds(DP_FILE_KEY, &old.key_pem));
    assert_int_equal(dp_self_take_cert(&dir, buf_slice(&next.chain)).code, E_OK);
    assert_true(holds(DP_FILE_KEY, &next.key_pem));
    assert_true(holds(DP_FILE_CERT, &next.chain));
    assert_false(is_there(DP_FILE_KEY_NEXT));
    assert_false(is_there(DP_FILE_CERT_NEXT));
    assert_int_equal(dp_self_settle(&dir).code, E_OK);
    assert_true(holds(DP_FILE_CERT, &next.chain));
    pair_free(&old);
    pair_free(&next);
}

static void whatever_was_broken_off_is_finished(void **state)
{
    (void)state;
    struct pair old = node_pair();
    struct pair next = node_pair();
    struct pair stray = node_pair();
    put(DP_FILE_KEY, &next.key_pem); /* the key had its place, the certificate not yet. */
    put(DP_FILE_CERT, &old.chain);
    put(DP_FILE_CERT_NEXT, &next.chain);
    assert_int_equal(dp_self_settle(&dir).code, E_OK);
    assert_true(holds(DP_FILE_KEY, &next.key_pem));
    assert_true(holds(DP_FILE_CERT, &next.chain));
    put(DP_FILE_CERT_NEXT, &stray.chain); /* of a key that nobody has any more. */
    put(DP_FILE_KEY_NEXT, &old.key_pem);
    assert_int_equal(dp_self_settle(&dir).code, E_OK);
    assert_false(is_there(DP_FILE_CERT_NEXT));
    assert_true(holds(DP_FILE_CERT, &next.chain));
    pair_free(&old);
    pair_free(&next);
    pair_free(&stray);
}

static enum err_code judge(const struct pair *chain_of, EVP_PKEY *key, struct slice ca,
                           struct dp_self_cert *out)
{
    auto_buf struct buf message = BUF_MAX(1024);
    enum err_code code =
        dp_self_judge(&self, buf_slice(&chain_of->chain), ca, key, out, &message).code;
    assert_int_equal(message.size > 0, code != E_OK);
    return code;
}

static void a_certificate_is_judged(void **state)
{
    (void)state;
    struct pair good = node_pair();
    struct pair unlabelled = pair_of("URI:spiffe://a.test/node/edge-1", NULL);
    struct pair other = pair_of("URI:spiffe://a.test/node/edge-2", NULL);
    struct pair service = pair_of("URI:spiffe://a.test/tenant/t/service/edge-1", NULL);
    struct pair two = pair_of("URI:spiffe://a.test/node/edge-1,URI:spiffe://b.test/x", NULL);
    struct pair odd = pair_of("URI:spiffe://a.test/node/edge-1", "zone=a=b");
    struct certs stranger;
    auto_buf struct buf ca = BUF_MAX(NET_CHAIN_BYTES_MAX);
    auto_buf struct buf strange_ca = BUF_MAX(NET_CHAIN_BYTES_MAX);
    struct dp_self_cert cert;
    certs_init(&stranger);
    add_pem(certs.ca, &ca);
    add_pem(stranger.ca, &strange_ca);
    struct slice ours = buf_slice(&ca);
    assert_int_equal(judge(&good, good.key, ours, &cert), E_OK);
    assert_string_equal(cert.labels, "zone=eu-1");
    assert_true(strlen(cert.serial) > 0);
    assert_true(cert.times.ends_s > 0);
    assert_int_equal(judge(&unlabelled, unlabelled.key, ours, &cert), E_OK);
    assert_string_equal(cert.labels, "");
    assert_int_equal(judge(&good, other.key, ours, &cert), E_CRYPTO);
    assert_int_equal(judge(&good, good.key, buf_slice(&strange_ca), &cert), E_UNAUTHENTICATED);
    assert_int_equal(judge(&other, other.key, ours, &cert), E_UNAUTHENTICATED);
    assert_int_equal(judge(&service, service.key, ours, &cert), E_UNAUTHENTICATED);
    assert_int_equal(judge(&two, two.key, ours, &cert), E_UNAUTHENTICATED);
    assert_int_equal(judge(&odd, odd.key, ours, &cert), E_USAGE);
    assert_int_equal(judge(&good, good.key, SLICE_LIT("no CA"), &cert), E_MALFORMED);
    struct pair *all[] = {&good, &unlabelled, &other, &service, &two, &odd};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        pair_free(all[i]);
    }
    certs_free(&stranger);
}

/* ---- when and where ---- */

static void is_renewed_at_two_thirds(void **state)
{
    (void)state;
    const struct net_cert_times day = {.made_s = 1000000, .ends_s = 1000000 + 86400};
    assert_int_equal(dp_renewal_due_s(&day, 0), 1000000 + 86400 * 3 / 5);
    assert_in_range(dp_renewal_due_s(&day, 999), 1000000 + 86400 * 73 / 100,
                    1000000 + 86400 * 74 / 100);
    assert_in_range(dp_renewal_due_s(&day, 500), 1000000 + 86400 * 66 / 100,
                    1000000 + 86400 * 67 / 100);
    const struct net_cert_times ten = {.made_s = 0, .ends_s = 10};
    assert_in_range(dp_renewal_due_s(&ten, 999), 6, 8);
    /* The first one after a start, of a certificate that says all, or not the status key. */
    struct dp_self_cert cert = {.times = day, .says_key = true};
    assert_int_equal(dp_renewal_first_s(&cert, 1000100, 500), dp_renewal_due_s(&day, 500));
    cert.says_key = false;
    assert_int_equal(dp_renewal_first_s(&cert, 1000100, 0), 1000110);
    assert_in_range(dp_renewal_first_s(&cert, 1000100, 999), 1000150, 1000160);
    cert.times = ten; /* past that already. */
    assert_int_equal(dp_renewal_first_s(&cert, 1000100, 500), dp_renewal_due_s(&ten, 500));
}

static void servers_are_told_apart(void **state)
{
    (void)state;
    static const char *const good[] = {"https://cp.example.org:9443", "https://192.0.2.7",
                                       "http://127.0.0.1:9080",       "http://[::1]:9080",
                                       "http://localhost:9080/",      "https://a:1,https://b:2"};
    static const char *const bad[] = {"",
                                      "cp.example.org",
                                      "http://cp.example.org:9080",
                                      "http://192.0.2.7:80",
                                      "http://127.0.0.1", /* a port is asked for. */
                                      "http://127.0.0.1:1@192.0.2.7:80",
                                      "https://a/path",
                                      "https://a?x",
                                      "https://a#x",
                                      "https://user@a",
                                      "https://",
                                      "file:///etc/passwd",
                                      "https://a,,https://b",
                                      "https://a,http://192.0.2.7:1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        auto_buf struct buf message = BUF_MAX(1024);
        assert_int_equal(dp_server_check_urls(good[i], &message).code, E_OK);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        auto_buf struct buf message = BUF_MAX(1024);
        assert_int_equal(dp_server_check_urls(bad[i], &message).code, E_USAGE);
        assert_true(message.size > 0);
    }
}

static void the_highest_root_is_begun_with(void **state)
{
    (void)state;
    char path[256];
    auto_buf struct buf found = BUF_MAX(100);
    assert_int_equal(dp_join_root(data_dir, &found).code, E_NOT_FOUND);
    (void)snprintf(path, sizeof(path), "%s/roots", data_dir);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(dp_join_root(data_dir, &found).code, E_NOT_FOUND);
    static const char *const names[] = {"root.2", "root.10", "root.9", "root.x", "aside"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s/roots/%s", data_dir, names[i]);
        FILE *file = fopen(path, "we");
        assert_non_null(file);
        assert_true(fputs(names[i], file) >= 0);
        assert_int_equal(fclose(file), 0);
    }
    assert_int_equal(dp_join_root(data_dir, &found).code, E_OK);
    assert_true(slice_eq(buf_slice(&found), SLICE_LIT("root.10")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    ids_init();
    CHECK(mkdtemp(data_dir) != NULL);
    certs_init(&certs);
    const struct CMUnitTest tests[] = {
        TEST(what_joined_says_comes_back),
        TEST(what_joined_never_said_is_refused),
        TEST(a_directory_has_one_owner),
        TEST(take_effect_together),
        TEST(whatever_was_broken_off_is_finished),
        TEST(a_certificate_is_judged),
        cmocka_unit_test(is_renewed_at_two_thirds),
        cmocka_unit_test(servers_are_told_apart),
        TEST(the_highest_root_is_begun_with),
    };
    int failed = cmocka_run_group_tests_name("join.self", tests, NULL, NULL);
    certs_free(&certs);
    return remove_files("") == 0 ? failed : 1;
}
