/*
 * What comes of joining: a token, labels, a request for a certificate, a chain of certificates, one
 * in DER. Any bytes are taken or refused; a token and labels that are taken come back as the same
 * text, and a chain that is taken can be asked everything.
 */
#include "common/snapshot/join.h"

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/net/cert.h"
#include "common/net/csr.h"
#include "common/net/tls.h"
#include "common/snapshot/labels.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void token(struct slice text)
{
    auto_join_token struct join_token token;
    auto_join_token struct join_token back;
    auto_buf struct buf sent = BUF_MAX(JOIN_TOKEN_MAX);
    if (err_ok(join_token_parse(text, &token))) {
        CHECK(err_ok(join_token_print(&token, &sent)));
        CHECK(err_ok(join_token_parse(buf_slice(&sent), &back)));
        CHECK(memcmp(token.secret, back.secret, JOIN_SECRET_SIZE) == 0);
        CHECK(slice_eq_nocase(buf_slice(&sent), text)); /* hex digits of either case. */
    }
}

static void labels(struct slice text)
{
    struct labels labels;
    struct labels back;
    auto_buf struct buf sent = BUF_MAX(LABELS_TEXT_MAX);
    if (err_ok(labels_parse(text, &labels))) {
        CHECK(err_ok(labels_print(&labels, &sent)));
        CHECK(err_ok(labels_parse(buf_slice(&sent), &back)));
        CHECK(labels_eq(&labels, &back));
        CHECK(sent.size == text.size); /* the same pairs, in order. */
    }
}

static void ask(struct x509_st *cert)
{
    char serial[NET_SERIAL_SIZE];
    uint8_t pin[NET_PIN_SIZE];
    struct net_cert_times times;
    struct net_identity *identity = NULL;
    auto_buf struct buf said = BUF_MAX(LABELS_TEXT_MAX);
    net_cert_serial(cert, serial);
    (void)net_serial_count(serial);
    (void)!err_ok(net_cert_pin(cert, pin));
    bool found = false;
    (void)!err_ok(net_cert_status_key(cert, pin, &found));
    if (err_ok(net_cert_sans(cert, &said))) {
        buf_clear(&said);
    }
    (void)!err_ok(net_cert_times(cert, &times));
    if (err_ok(net_cert_labels(cert, &said))) {
        labels(buf_slice(&said));
    }
    if (err_ok(net_identity_new(cert, &identity))) {
        net_identity_free(identity);
    }
}

/* What is written again is what was read, as far as OpenSSL keeps to DER. */
static void one(struct slice der)
{
    auto_chain struct net_chain read = {.count = 0};
    auto_buf struct buf back = BUF_MAX(NET_CERT_DER_MAX * 2);
    if (err_ok(net_cert_read(der, &read))) {
        ask(read.certs[0]);
        (void)!err_ok(net_cert_write(read.certs[0], &back));
        (void)!err_ok(net_cert_is_signed(read.certs[0], &read));
        (void)!err_ok(net_cert_proves(read.certs[0], der, slice_head(der, 72)));
    }
}

static void chain(struct slice pem)
{
    auto_chain struct net_chain chain = {.count = 0};
    if (err_ok(net_chain_read(pem, &chain))) {
        CHECK(chain.count > 0 && chain.count <= NET_CHAIN_MAX);
        for (size_t i = 0; i < chain.count; i++) {
            ask(chain.certs[i]);
        }
        (void)!err_ok(net_chain_verify(&chain, &chain));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice bytes = slice_of(data, size);
    auto_net_key struct evp_pkey_st *key = NULL;
    ids_init();
    token(bytes);
    labels(bytes);
    chain(bytes);
    one(bytes);
    (void)!err_ok(net_csr_open(bytes, &key));
    return 0;
}
