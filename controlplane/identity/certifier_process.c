/*
 * certifier_process: the certifier's own side. Small on purpose: what holds secrets is read in one
 * sitting. See certifier.h.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "controlplane/identity/certifier.h"
#include "controlplane/identity/certifier_in.h"
#include "controlplane/signer/child.h"
#include "controlplane/signer/sandbox.h"
#include "controlplane/signer/wire.h"

/* Locked, guarded memory in which OpenSSL keeps private numbers; the least piece of it. */
enum { SECURE_HEAP = 32 << 10, SECURE_PIECE = 32 };

/* ---- one order ---- */

static struct err sign(struct cp_ca *ca, const struct certifier_order *from, struct cp_ca_leaf *out)
{
    auto_net_key struct evp_pkey_st *key = NULL;
    TRY(net_key_of_point(&from->point, &key));
    const struct cp_ca_order order = {.key = key,
                                      .node = from->node,
                                      .labels = slice_str(from->labels),
                                      .sans = slice_str(from->sans),
                                      .ttl_ms = from->ttl_ms,
                                      .count = from->count,
                                      .status_key = from->status_key};
    return cp_ca_sign(ca, &order, out);
}

static struct err serve_one(struct cp_ca *ca)
{
    struct certifier_order order;
    struct cp_ca_leaf leaf = {.not_after_ms = 0};
    TRY(signer_receive(SIGNER_FD, &order, sizeof(order)));
    CHECK(order.magic == CERTIFIER_MAGIC); /* our own parent, the same binary. */
    order.node[sizeof(order.node) - 1] = '\0';
    order.labels[sizeof(order.labels) - 1] = '\0';
    order.sans[sizeof(order.sans) - 1] = '\0';
    struct err e = sign(ca, &order, &leaf);
    struct certifier_reply reply = {.magic = CERTIFIER_MAGIC,
                                    .code = (uint32_t)e.code,
                                    .size = (uint32_t)leaf.chain.size,
                                    .not_after_ms = leaf.not_after_ms};
    (void)memcpy(reply.serial, leaf.serial, sizeof(reply.serial));
    struct err sent = signer_send(SIGNER_FD, slice_of(&reply, sizeof(reply)));
    if (err_ok(sent)) {
        sent = signer_send(SIGNER_FD, buf_slice(&leaf.chain));
    }
    cp_ca_leaf_free(&leaf);
    return sent;
}

/* ---- the start ---- */

/* Signs once for a new key of a curve, and throws the leaf away. */
static struct err rehearse_curve(struct cp_ca *ca, const char *curve)
{
    struct certifier_order order = {.ttl_ms = 1000,
                                    .node = "rehearsal",
                                    .labels = "a=b",
                                    .sans = "dns:rehearsal,ip:127.0.0.1,ip:::1"};
    struct cp_ca_leaf leaf;
    auto_net_key struct evp_pkey_st *key = EVP_EC_gen(curve);
    if (key == NULL) {
        return FAIL(E_CRYPTO);
    }
    TRY(net_key_point(key, &order.point));
    TRY(sign(ca, &order, &leaf));
    cp_ca_leaf_free(&leaf);
    order.point.bytes[1] ^= 1; /* what is refused has its code loaded, too. */
    struct err refused = sign(ca, &order, &leaf);
    return err_ok(refused) ? FAIL(E_CRYPTO) : OK;
}

/* OpenSSL looks for its configuration and its algorithms when they are first used: that is now,
 * while files can be opened. An authority that is past its time is served all the same: orders end
 * with what it is, and nodes are told of no other one. */
static struct err rehearse(struct cp_ca *ca)
{
    struct err e = rehearse_curve(ca, "P-256");
    if (err_ok(e)) {
        e = rehearse_curve(ca, "P-384");
    }
    return e.code == E_CA_EXPIRED ? OK : e;
}

static struct err load(char **argv, struct cp_ca **out, struct buf *message)
{
    const char *key = argv[1][0] == '\0' ? NULL : argv[1];
    if (CRYPTO_secure_malloc_init(SECURE_HEAP, SECURE_PIECE) != 1 ||
        !err_ok(signer_sandbox_lock_stack())) {
        TRY(buf_add_str(message, "certifier: no locked memory for a key: raise RLIMIT_MEMLOCK"));
        return FAIL(E_NO_MEMORY);
    }
    TRY(cp_ca_open(argv[0], key, out, message));
    CHECK(CRYPTO_secure_used() > 0); /* that is where the key is. */
    struct err e = rehearse(*out);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "ca: it cannot certify: %s", err_text(e.code)));
        return e;
    }
    e = signer_sandbox_enter_to_certify(SIGNER_FD);
    if (!err_ok(e)) {
        TRY(buf_add_str(message, "certifier: the kernel offers no seccomp"));
    }
    return e;
}

static struct err greet(struct err e, const struct cp_ca *ca, struct buf *message)
{
    struct slice bundle = err_ok(e) ? cp_ca_bundle(ca) : (struct slice){0};
    struct certifier_hello hello = {
        .magic = CERTIFIER_MAGIC, .code = (uint32_t)e.code, .size = (uint32_t)bundle.size};
    struct slice why = buf_slice(message);
    why = why.size == 0 ? slice_str(err_text(e.code)) : why;
    (void)snprintf(hello.message, sizeof(hello.message), "%.*s", SLICE_ARG(why));
    TRY(signer_send(SIGNER_FD, slice_of(&hello, sizeof(hello))));
    return signer_send(SIGNER_FD, bundle);
}

int cp_certifier_main(int argc, char **argv)
{
    struct cp_ca *ca = NULL;
    struct buf message = BUF_MAX(1024);
    if (argc != 2) {
        (void)fprintf(stderr, "certifier: started by trilane-cp serve alone\n");
        return 2;
    }
    signer_child_harden(SIGNER_KEY_FD + 1);
    ids_init();
    struct err e = load(argv, &ca, &message);
    struct err sent = greet(e, ca, &message);
    while (err_ok(e) && err_ok(sent)) { /* ends when the parent closes the socket. */
        sent = serve_one(ca);
    }
    cp_ca_close(ca); /* wipes the key. */
    /* Without exit handlers: nothing here may look at memory. */
    (void)syscall(SYS_exit_group, err_ok(e) ? 0 : 1);
    return 1; /* not reached. */
}
