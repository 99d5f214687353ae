/* Proves, on the real process, that the certifier signs leaves of nodes for TLS and nothing that
 * says more, for who asks it by whatever means; that it refuses a key that others may read, takes
 * one by descriptor, comes back when it was killed, and is shut off from the rest of the machine.
 */
#include "controlplane/identity/certifier.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/net/csr.h"
#include "common/net/tls.h"

#include "tests/support/cmocka.h"

#define DAY_MS (UINT64_C(86400) * 1000)

static char directory[] = "/tmp/trilane-certifier-XXXXXX";
static char program[4096];
static char key_path[64];
static char said[1024]; /* the last message. */

static struct err start_with(const char *key, struct cp_certifier **out)
{
    struct cp_certifier_options options = {.program = program, .ca = directory, .key = key};
    struct buf message = BUF_MAX(1024);
    struct err e = cp_certifier_start(&options, out, &message);
    assert_int_equal(err_ok(e), message.size == 0); /* a refusal has its sentence. */
    (void)snprintf(said, sizeof(said), "%.*s", SLICE_ARG(buf_slice(&message)));
    buf_free(&message);
    return e;
}

static struct cp_certifier *start(void)
{
    struct cp_certifier *c = NULL;
    struct err e = start_with(NULL, &c);
    if (!err_ok(e)) {
        fail_msg("%s: %s", err_name(e.code), said);
    }
    return c;
}

static const uint8_t status_key[NET_STATUS_KEY_SIZE] = {5, 6};

static struct cp_ca_order order_for(struct evp_pkey_st *key)
{
    return (struct cp_ca_order){.key = key,
                                .node = "node-1",
                                .labels = SLICE_LIT("rack=b,zone=eu-1"),
                                .sans = SLICE_LIT("dns:edge.test,ip:192.0.2.7"),
                                .ttl_ms = DAY_MS,
                                .count = 77,
                                .status_key = status_key};
}

/* The code that an order ends with. */
static enum err_code ask(struct cp_certifier *c, const struct cp_ca_order *order)
{
    struct cp_ca_leaf leaf;
    struct err e = cp_certifier_sign(c, order, &leaf);
    if (err_ok(e)) {
        cp_ca_leaf_free(&leaf);
    }
    return e.code;
}

static void look_at(const struct cp_certifier *c, const struct cp_ca_leaf *leaf,
                    const struct evp_pkey_st *key)
{
    struct net_chain chain = {.count = 0};
    struct net_chain anchors = {.count = 0};
    struct net_identity *identity = NULL;
    assert_int_equal(net_chain_read(buf_slice(&leaf->chain), &chain).code, E_OK);
    assert_int_equal(net_chain_read(cp_certifier_bundle(c), &anchors).code, E_OK);
    assert_int_equal(net_chain_verify(&chain, &anchors).code, E_OK);
    X509 *cert = chain.certs[0];
    assert_true(net_cert_is_for(cert, key));
    assert_int_equal(X509_check_ca(cert), 0);
    assert_int_equal(X509_get_key_usage(cert), KU_DIGITAL_SIGNATURE);
    assert_int_equal(X509_get_extended_key_usage(cert), XKU_SSL_SERVER | XKU_SSL_CLIENT);
    assert_int_equal(net_identity_new(cert, &identity).code, E_OK);
    assert_true(slice_eq(identity->spiffe_id, SLICE_LIT("spiffe://platform.test/node/node-1")));
    assert_int_equal(net_serial_count(leaf->serial), 77);
    uint8_t written[NET_STATUS_KEY_SIZE];
    bool found = false;
    assert_int_equal(net_cert_status_key(cert, written, &found).code, E_OK);
    assert_true(found);
    assert_memory_equal(written, status_key, sizeof(written));
    net_identity_free(identity);
    net_chain_free(&anchors);
    net_chain_free(&chain);
}

static void it_certifies_a_node_and_no_more(void **state)
{
    (void)state;
    static const char *const curves[] = {"P-256", "P-384"};
    struct cp_certifier *c = start();
    for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
        struct evp_pkey_st *key = EVP_EC_gen(curves[i]);
        struct cp_ca_order order = order_for(key);
        struct cp_ca_leaf leaf;
        assert_int_equal(cp_certifier_sign(c, &order, &leaf).code, E_OK);
        look_at(c, &leaf, key);
        cp_ca_leaf_free(&leaf);
        net_key_free(&key);
    }
    cp_certifier_stop(c);
}

static void what_says_more_is_refused(void **state)
{
    (void)state;
    struct cp_certifier *c = start();
    struct evp_pkey_st *key = NULL;
    assert_int_equal(net_key_new(&key).code, E_OK);
    static const char too_long[] = "a-name-that-is-longer-than-the-sixty-three-letters-which-a-name"
                                   "-may-have";
    static const char *const nodes[] = {"",     "a/b",     "../tenant/acme/service/web",
                                        "Node", "a,URI:x", too_long};
    static const char *const sans[] = {"uri:spiffe://platform.test/tenant/acme/service/web",
                                       "dns:a,URI:spiffe://x", "dns:a b", "email:a@b", "ip:1.2.3"};
    static const char *const labels[] = {"zone", "b=1,,a=2", "a=1,a=2", "a=b\n"};
    struct cp_ca_order order = order_for(key);
    for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
        order.node = nodes[i];
        assert_int_equal(ask(c, &order), E_USAGE);
    }
    order = order_for(key);
    for (size_t i = 0; i < sizeof(sans) / sizeof(sans[0]); i++) {
        order.sans = slice_str(sans[i]);
        assert_int_equal(ask(c, &order), E_USAGE);
    }
    order = order_for(key);
    for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
        order.labels = slice_str(labels[i]);
        assert_int_not_equal(ask(c, &order), E_OK);
    }
    static const uint64_t lives[] = {0, 999, (CP_LEAF_DAYS_MAX + 1) * DAY_MS, UINT64_MAX};
    order = order_for(key);
    for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
        order.ttl_ms = lives[i];
        assert_int_equal(ask(c, &order), E_USAGE);
    }
    order = order_for(key);
    order.count = UINT64_C(1) << NET_SERIAL_COUNT_BITS;
    assert_int_equal(ask(c, &order), E_USAGE);
    order = order_for(key);
    assert_int_equal(ask(c, &order), E_OK); /* none of that was its end. */
    net_key_free(&key);
    cp_certifier_stop(c);
}

static void a_key_of_another_kind_is_refused(void **state)
{
    (void)state;
    struct cp_certifier *c = start();
    EVP_PKEY *others[] = {EVP_EC_gen("P-521"), EVP_EC_gen("secp256k1"),
                          EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct cp_ca_order order = order_for(others[i]);
        enum err_code code = ask(c, &order);
        assert_true(code == E_UNSUPPORTED || code == E_MALFORMED);
        EVP_PKEY_free(others[i]);
    }
    cp_certifier_stop(c);
}

static void bytes_that_are_no_point_are_refused(void **state)
{
    (void)state;
    struct evp_pkey_st *key = NULL;
    struct evp_pkey_st *none = NULL;
    struct net_point point;
    assert_int_equal(net_key_new(&key).code, E_OK);
    assert_int_equal(net_key_point(key, &point).code, E_OK);
    struct net_point bad = point;
    bad.bytes[40] ^= 1; /* not on the curve. */
    assert_int_equal(net_key_of_point(&bad, &none).code, E_MALFORMED);
    bad = point;
    bad.bits = 384;
    assert_int_equal(net_key_of_point(&bad, &none).code, E_MALFORMED);
    bad.bits = 521;
    assert_int_equal(net_key_of_point(&bad, &none).code, E_UNSUPPORTED);
    for (uint32_t size = 0; size < point.size; size++) {
        bad = point;
        bad.size = size;
        assert_int_equal(net_key_of_point(&bad, &none).code, E_MALFORMED);
    }
    bad.size = UINT32_MAX;
    assert_int_equal(net_key_of_point(&bad, &none).code, E_MALFORMED);
    bad = (struct net_point){.bits = 256, .size = 1}; /* the point at infinity. */
    assert_int_equal(net_key_of_point(&bad, &none).code, E_MALFORMED);
    assert_null(none);
    net_key_free(&key);
}

/* ---- its key ---- */

static void a_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    struct cp_certifier *c = NULL;
    assert_int_equal(chmod(key_path, 0640), 0);
    assert_int_equal(start_with(NULL, &c).code, E_USAGE);
    assert_non_null(strstr(said, "chmod 600"));
    assert_int_equal(start_with(key_path, &c).code, E_USAGE);
    assert_int_equal(chmod(key_path, 0600), 0);
    assert_int_equal(start_with("/nowhere/ca.key", &c).code, E_NOT_FOUND);
    assert_int_equal(start_with("fd:399", &c).code, E_USAGE);
    assert_null(c);
}

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

static void a_key_comes_by_a_descriptor(void **state)
{
    (void)state;
    char bytes[NET_KEY_PEM_MAX];
    char source[16];
    int fds[2];
    struct cp_certifier *c = NULL;
    struct evp_pkey_st *key = NULL;
    auto_close int fd = open(key_path, O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, bytes, sizeof(bytes));
    assert_true(size > 0);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(write(fds[1], bytes, (size_t)size), size);
    assert_int_equal(close(fds[1]), 0);
    (void)snprintf(source, sizeof(source), "fd:%d", fds[0]);
    assert_int_equal(start_with(source, &c).code, E_OK);
    struct stat info;
    assert_true(fstat(fds[0], &info) != 0 || !S_ISFIFO(info.st_mode)); /* read and closed. */
    assert_int_equal(net_key_new(&key).code, E_OK);
    struct cp_ca_order order = order_for(key);
    assert_int_equal(ask(c, &order), E_OK);
    assert_int_equal(kill(child(), SIGKILL), 0); /* the next one needs the bytes again. */
    enum err_code code = ask(c, &order);
    assert_true(code == E_OK || code == E_SIGNER_GONE); /* it may be found dead, or die. */
    assert_int_equal(ask(c, &order), E_OK);
    net_key_free(&key);
    cp_certifier_stop(c);
}

/* ---- shut off ---- */

/* ASan's runtime makes nothing of mlock(). */
#ifdef __SANITIZE_ADDRESS__
enum { LOCKED_KIB_MIN = 0 };
#else
enum { LOCKED_KIB_MIN = 24 + 32 }; /* the stack, OpenSSL's private numbers. */
#endif

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
    struct cp_certifier *c = start();
    pid_t pid = child();
    char path[64];
    char link[256];
    assert_int_equal(proc_number(pid, "status", "Seccomp:"), 2); /* a filter. */
    assert_int_equal(proc_number(pid, "status", "NoNewPrivs:"), 1);
    assert_true(proc_number(pid, "status", "VmLck:") >= LOCKED_KIB_MIN);
    assert_int_equal(proc_number(pid, "limits", "Max core file size"), 0);
    for (int fd = 4; fd < 64; fd++) { /* no key file, none of ours. */
        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
        assert_true(readlink(path, link, sizeof(link)) < 0);
    }
    cp_certifier_stop(c);
}

static void one_that_is_killed_comes_back(void **state)
{
    (void)state;
    struct cp_certifier *c = start();
    struct evp_pkey_st *key = NULL;
    assert_int_equal(net_key_new(&key).code, E_OK);
    struct cp_ca_order order = order_for(key);
    assert_int_equal(kill(child(), SIGSYS), 0); /* as its sandbox would. */
    enum err_code code = ask(c, &order);
    assert_true(code == E_OK || code == E_SIGNER_GONE);
    assert_int_equal(ask(c, &order), E_OK);
    assert_int_equal(kill(child(), SIGKILL), 0);
    assert_int_equal(chmod(key_path, 0604), 0);
    (void)ask(c, &order);
    assert_int_equal(ask(c, &order), E_SIGNER_GONE); /* it cannot come back, and says so again. */
    assert_int_equal(chmod(key_path, 0600), 0);
    assert_int_equal(ask(c, &order), E_OK);
    net_key_free(&key);
    cp_certifier_stop(c);
}

/* ---- its authority ---- */

/* Signs the authority's own certificate anew, so that it ends 'seconds' from now. */
static void end_authority_in(long seconds)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/ca.pem", directory);
    FILE *file = fopen(path, "re");
    X509 *cert = PEM_read_X509(file, NULL, NULL, NULL);
    assert_int_equal(fclose(file), 0);
    file = fopen(key_path, "re");
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    assert_int_equal(fclose(file), 0);
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), seconds));
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    file = fopen(path, "we");
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(fclose(file), 0);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void no_leaf_outlives_its_authority(void **state)
{
    (void)state;
    struct evp_pkey_st *key = NULL;
    struct cp_ca_leaf leaf;
    assert_int_equal(net_key_new(&key).code, E_OK);
    struct cp_ca_order order = order_for(key);
    end_authority_in(600);
    struct cp_certifier *c = start();
    assert_int_equal(cp_certifier_sign(c, &order, &leaf).code, E_OK);
    assert_in_range(leaf.not_after_ms, clock_wall_ms() + 500000, clock_wall_ms() + 600000);
    cp_ca_leaf_free(&leaf);
    cp_certifier_stop(c);
    end_authority_in(-1);
    c = start();
    assert_int_equal(ask(c, &order), E_CA_EXPIRED);
    cp_certifier_stop(c);
    net_key_free(&key);
}

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    const char *build = getenv("TRILANE_BUILD_DIR");
    (void)snprintf(program, sizeof(program), "%s/trilane-cp", build == NULL ? "." : build);
    (void)snprintf(key_path, sizeof(key_path), "%s/ca.key", directory);
    struct buf message = BUF_MAX(1024);
    CHECK(err_ok(cp_ca_init(directory, "platform.test", &message)));
    buf_free(&message);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_certifies_a_node_and_no_more),
        cmocka_unit_test(what_says_more_is_refused),
        cmocka_unit_test(a_key_of_another_kind_is_refused),
        cmocka_unit_test(bytes_that_are_no_point_are_refused),
        cmocka_unit_test(a_key_that_others_may_read_is_refused),
        cmocka_unit_test(a_key_comes_by_a_descriptor),
        cmocka_unit_test(it_is_shut_off),
        cmocka_unit_test(one_that_is_killed_comes_back),
        cmocka_unit_test(no_leaf_outlives_its_authority),
    };
    int failed = cmocka_run_group_tests_name("identity.certifier", tests, NULL, NULL);
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
    return system(command) == 0 ? failed : 1; /* NOLINT(concurrency-mt-unsafe): one thread. */
}
