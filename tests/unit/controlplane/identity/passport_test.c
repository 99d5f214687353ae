/* Proves whose certificates are believed, of which node and for how long, and that other
 * authorities are believed from the moment on that they are given. */
#include "controlplane/identity/passport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/net/csr.h"
#include "controlplane/identity/ca.h"

#include "tests/support/cmocka.h"

enum { DAY_MS = 24 * 3600 * 1000 };

static char directory[] = "/tmp/trilane-passport-XXXXXX";
static struct cp_ca *authorities[2];
static const uint8_t status_key[NET_STATUS_KEY_SIZE] = {5, 6};

/* A node's certificate, in DER. */
static struct buf leaf_of(struct cp_ca *ca, const char *node, const char *labels, const char *sans)
{
    struct buf der = BUF_MAX(NET_CERT_DER_MAX);
    struct cp_ca_leaf leaf;
    auto_net_key struct evp_pkey_st *key = NULL;
    auto_chain struct net_chain chain = {.count = 0};
    assert_int_equal(net_key_new(&key).code, E_OK);
    const struct cp_ca_order order = {.key = key,
                                      .node = node,
                                      .labels = slice_str(labels),
                                      .sans = slice_str(sans),
                                      .ttl_ms = DAY_MS,
                                      .count = 77,
                                      .status_key = status_key};
    assert_int_equal(cp_ca_sign(ca, &order, &leaf).code, E_OK);
    assert_int_equal(net_chain_read(buf_slice(&leaf.chain), &chain).code, E_OK);
    assert_int_equal(net_cert_write(chain.certs[0], &der).code, E_OK);
    cp_ca_leaf_free(&leaf);
    return der;
}

static struct cp_passports *passports_of(const struct cp_ca *ca)
{
    struct cp_passports *p = NULL;
    assert_int_equal(cp_passports_new(cp_ca_bundle(ca), &p).code, E_OK);
    return p;
}

static enum err_code open_as(struct cp_passports *p, const char *node, const struct buf *der)
{
    struct cp_passport ignored;
    return cp_passport_open(p, node, buf_slice(der), &ignored).code;
}

static void it_says_all_that_was_granted(void **state)
{
    (void)state;
    static const char *const grants[][3] = {
        {"", "", ""},
        {"rack=b,zone=eu-1", "", "rack=b,zone=eu-1"},
        {"", "dns:a.test,ip:192.0.2.7,ip:2001:db8::1", "dns:a.test,ip:192.0.2.7,ip:2001:db8::1"},
        {"zone=eu-1", "dns:*.a.test", "zone=eu-1,dns:*.a.test"},
        {"zone=eu-1", "ip:2001:DB8:0::1", "zone=eu-1,ip:2001:db8::1"}, /* one text for each. */
    };
    struct cp_passports *p = passports_of(authorities[0]);
    for (size_t i = 0; i < sizeof(grants) / sizeof(grants[0]); i++) {
        struct cp_passport who;
        struct buf der = leaf_of(authorities[0], "edge-1", grants[i][0], grants[i][1]);
        assert_int_equal(cp_passport_open(p, "edge-1", buf_slice(&der), &who).code, E_OK);
        assert_string_equal(who.grant, grants[i][2]);
        assert_true(who.has_status_key);
        assert_memory_equal(who.status_key, status_key, sizeof(status_key));
        assert_int_equal(net_serial_count(who.serial), 77);
        assert_in_range(who.not_after_ms, clock_wall_ms() + DAY_MS - 10000,
                        clock_wall_ms() + DAY_MS);
        buf_free(&der);
    }
    cp_passports_free(p);
}

static void it_is_that_nodes_and_our_authoritys(void **state)
{
    (void)state;
    struct cp_passports *p = passports_of(authorities[0]);
    struct buf ours = leaf_of(authorities[0], "edge-1", "zone=eu-1", "");
    struct buf theirs = leaf_of(authorities[1], "edge-1", "zone=eu-1", "");
    assert_int_equal(open_as(p, "edge-1", &ours), E_OK);
    assert_int_equal(open_as(p, "edge-2", &ours), E_CERTIFICATE_MISSING);
    assert_int_equal(open_as(p, "edge-", &ours), E_CERTIFICATE_MISSING);
    assert_int_equal(open_as(p, "", &ours), E_CERTIFICATE_MISSING);
    assert_int_equal(open_as(p, "edge-1", &theirs), E_CERTIFICATE_MISSING);
    assert_int_equal(open_as(NULL, "edge-1", &ours), E_CERTIFICATE_MISSING);
    struct buf none = BUF_MAX(1);
    assert_int_equal(open_as(p, "edge-1", &none), E_CERTIFICATE_MISSING);
    for (size_t i = 0; i < ours.size; i++) { /* every byte of it counts. */
        ours.ptr[i] ^= 0x10;
        assert_int_equal(open_as(p, "edge-1", &ours), E_CERTIFICATE_MISSING);
        ours.ptr[i] ^= 0x10;
    }
    buf_free(&ours);
    buf_free(&theirs);
    cp_passports_free(p);
}

/* A new authority is put behind the old one, then in front of it; then the old one goes. */
static void authorities_may_change(void **state)
{
    (void)state;
    struct cp_passports *p = passports_of(authorities[0]);
    struct buf ours = leaf_of(authorities[0], "edge-1", "", "");
    struct buf theirs = leaf_of(authorities[1], "edge-1", "", "");
    struct buf both = BUF_MAX(NET_CHAIN_BYTES_MAX);
    assert_int_equal(buf_add(&both, cp_ca_bundle(authorities[0])).code, E_OK);
    assert_int_equal(buf_add(&both, cp_ca_bundle(authorities[1])).code, E_OK);
    uint64_t generation = cp_passports_generation(p);
    assert_int_equal(cp_passports_set(p, cp_ca_bundle(authorities[0])).code, E_OK);
    assert_int_equal(cp_passports_generation(p), generation);
    assert_int_equal(cp_passports_set(p, buf_slice(&both)).code, E_OK);
    assert_true(cp_passports_generation(p) > generation);
    assert_int_equal(open_as(p, "edge-1", &ours), E_OK);
    assert_int_equal(open_as(p, "edge-1", &theirs), E_OK);
    assert_int_equal(cp_passports_set(p, SLICE_LIT("junk")).code, E_MALFORMED);
    assert_int_equal(open_as(p, "edge-1", &ours), E_OK); /* what was there holds. */
    assert_int_equal(cp_passports_set(p, cp_ca_bundle(authorities[1])).code, E_OK);
    assert_int_equal(open_as(p, "edge-1", &ours), E_CERTIFICATE_MISSING);
    assert_int_equal(open_as(p, "edge-1", &theirs), E_OK);
    buf_free(&both);
    buf_free(&ours);
    buf_free(&theirs);
    cp_passports_free(p);
}

static void make_authority(size_t index)
{
    char path[128];
    struct buf message = BUF_MAX(1024);
    (void)snprintf(path, sizeof(path), "%s/%zu", directory, index);
    CHECK(err_ok(cp_ca_init(path, "platform.test", &message)));
    CHECK(err_ok(cp_ca_open(path, /* key= */ NULL, &authorities[index], &message)));
    buf_free(&message);
}

int main(void)
{
    char command[128];
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    make_authority(0);
    make_authority(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_all_that_was_granted),
        cmocka_unit_test(it_is_that_nodes_and_our_authoritys),
        cmocka_unit_test(authorities_may_change),
    };
    int failed = cmocka_run_group_tests_name("identity.passport", tests, NULL, NULL);
    cp_ca_close(authorities[0]);
    cp_ca_close(authorities[1]);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
    return system(command) == 0 ? failed : 1; /* NOLINT(concurrency-mt-unsafe): one thread. */
}
