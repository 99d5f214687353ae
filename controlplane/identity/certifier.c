/* certifier: trilane-cp's side. See certifier.h. */
#include "controlplane/identity/certifier.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/log.h"
#include "controlplane/identity/certifier_in.h"
#include "controlplane/signer/child.h"
#include "controlplane/signer/keep.h"
#include "controlplane/signer/wire.h"

struct cp_certifier {
    struct cp_certifier_options options;
    struct signer_kept kept; /* set before the first start; never changes. */
    struct signer_child child;
    struct buf bundle;
};

/* ---- starting ---- */

static struct err receive(int fd, size_t size, struct buf *out)
{
    uint8_t *room = NULL;
    buf_clear(out);
    TRY(buf_reserve(out, size, &room));
    TRY(signer_receive(fd, room, size));
    buf_commit(out, size);
    return OK;
}

static struct err greet(struct cp_certifier *c, struct buf *message)
{
    struct certifier_hello hello;
    struct err e = signer_child_greeting(&c->child, &hello, sizeof(hello));
    if (!err_ok(e)) {
        TRY(buf_add_str(message, "certifier: the process ended before it was ready"));
        return e;
    }
    CHECK(hello.magic == CERTIFIER_MAGIC && hello.code < E_COUNT);
    if (hello.code != E_OK) {
        hello.message[sizeof(hello.message) - 1] = '\0';
        TRY(buf_add_str(message, hello.message));
        return FAIL((enum err_code)hello.code);
    }
    return receive(c->child.fd, hello.size, &c->bundle);
}

static struct err start(struct cp_certifier *c, struct buf *message)
{
    const char *key = c->options.key == NULL ? "" : c->options.key;
    const struct signer_child_plan plan = {
        .program = c->options.program,
        .args = {"certifier", c->options.ca, signer_child_key(c->kept.fd, 0, key)},
        .keys = &c->kept.fd,
        .key_count = 1};
    TRY(signer_child_start(&plan, &c->child));
    struct err e = greet(c, message);
    if (!err_ok(e)) {
        (void)signer_child_end(&c->child, /* hangs= */ true);
    }
    return e;
}

static struct err keep_key(struct cp_certifier *c, struct buf *message)
{
    int fd = -1;
    if (c->options.key == NULL || !signer_source_fd(c->options.key, &fd)) {
        return OK;
    }
    struct err e = signer_keep(fd, SIGNER_KEPT_MAX, &c->kept);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "ca-key: %s: %s", c->options.key,
                     e.code == E_USAGE ? "no key can be read from this descriptor"
                                       : err_text(e.code)));
    }
    return e;
}

struct err cp_certifier_start(const struct cp_certifier_options *options, struct cp_certifier **out,
                              struct buf *message)
{
    struct cp_certifier *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *c = (struct cp_certifier){
        .options = *options, .kept.fd = -1, .child.fd = -1, .bundle = BUF_MAX(NET_CHAIN_BYTES_MAX)};
    struct err e = keep_key(c, message);
    if (err_ok(e)) {
        e = start(c, message);
    }
    if (!err_ok(e)) {
        cp_certifier_stop(c);
        return e;
    }
    *out = c;
    return OK;
}

void cp_certifier_stop(struct cp_certifier *certifier)
{
    if (certifier == NULL) {
        return;
    }
    (void)signer_child_end(&certifier->child, /* hangs= */ false);
    signer_kept_free(&certifier->kept);
    buf_free(&certifier->bundle);
    free(certifier);
}

struct slice cp_certifier_bundle(const struct cp_certifier *certifier)
{
    return buf_slice(&certifier->bundle);
}

/* ---- signing ---- */

static struct err make_order(const struct cp_ca_order *from, struct certifier_order *out)
{
    *out = (struct certifier_order){
        .magic = CERTIFIER_MAGIC, .ttl_ms = from->ttl_ms, .count = from->count};
    TRY(net_key_point(from->key, &out->point));
    if (strlen(from->node) >= sizeof(out->node) || from->labels.size >= sizeof(out->labels) ||
        from->sans.size >= sizeof(out->sans)) {
        return FAIL(E_USAGE);
    }
    (void)memcpy(out->status_key, from->status_key, sizeof(out->status_key));
    (void)snprintf(out->node, sizeof(out->node), "%s", from->node);
    (void)snprintf(out->labels, sizeof(out->labels), "%.*s", SLICE_ARG(from->labels));
    (void)snprintf(out->sans, sizeof(out->sans), "%.*s", SLICE_ARG(from->sans));
    return OK;
}

static struct err exchange(struct cp_certifier *c, const struct certifier_order *order,
                           struct certifier_reply *reply, struct buf *chain)
{
    TRY(signer_send(c->child.fd, slice_of(order, sizeof(*order))));
    TRY(signer_receive(c->child.fd, reply, sizeof(*reply)));
    CHECK(reply->magic == CERTIFIER_MAGIC && reply->code < E_COUNT);
    return receive(c->child.fd, reply->size, chain);
}

/* A failure leaves half a message on the socket: it is of no use any more. */
static struct err ask(struct cp_certifier *c, const struct certifier_order *order,
                      struct certifier_reply *reply, struct buf *chain)
{
    int status = 0;
    if (signer_child_is_gone(&c->child, &status)) {
        auto_buf struct buf why = BUF_MAX(4096);
        struct err e = start(c, &why);
        LOG(err_ok(e) ? LOG_WARN : LOG_ERROR, "identity",
            err_ok(e) ? "certifier_restarted" : "certifier_gone", LOG_ERR(e),
            LOG_I64("status", status), LOG_SLICE("why", buf_slice(&why)));
        if (!err_ok(e)) {
            return FAIL(E_SIGNER_GONE);
        }
    }
    if (!err_ok(exchange(c, order, reply, chain))) {
        (void)signer_child_end(&c->child, /* hangs= */ true);
        return FAIL(E_SIGNER_GONE);
    }
    return OK;
}

struct err cp_certifier_sign(struct cp_certifier *certifier, const struct cp_ca_order *order,
                             struct cp_ca_leaf *out)
{
    struct certifier_order typed;
    struct certifier_reply reply = {.magic = 0};
    struct cp_ca_leaf leaf = {.chain = BUF_MAX(NET_CHAIN_BYTES_MAX)};
    TRY(make_order(order, &typed));
    struct err e = ask(certifier, &typed, &reply, &leaf.chain);
    if (err_ok(e) && reply.code != E_OK) {
        e = FAIL((enum err_code)reply.code);
    }
    if (!err_ok(e)) {
        cp_ca_leaf_free(&leaf);
        return e;
    }
    reply.serial[sizeof(reply.serial) - 1] = '\0';
    (void)memcpy(leaf.serial, reply.serial, sizeof(leaf.serial));
    leaf.not_after_ms = reply.not_after_ms;
    *out = leaf;
    return OK;
}
