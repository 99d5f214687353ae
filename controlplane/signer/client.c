/* client: trilane-cp's side of its signer. See signer.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/base/check.h"
#include "common/base/lock.h"
#include "common/base/scope.h"
#include "controlplane/signer/child.h"
#include "controlplane/signer/keep.h"
#include "controlplane/signer/signer.h"
#include "controlplane/signer/wire.h"

struct running {
    struct signer_child child;
    struct cp_signer_hello hello;
};

struct cp_signer {
    struct cp_signer_options options;
    struct signer_kept kept[SIGNER_KEYS]; /* set before the first start; never change. */
    struct {
        struct lock lock; /* one request at a time. */
        struct running now GUARDED;
        int end GUARDED; /* status of the last one that ended by itself, as wait() gives it. */
    } shared;
};

static struct err start(const struct cp_signer *s, bool urgent, struct running *out)
{
    const struct cp_signer_options *o = &s->options;
    const int keys[SIGNER_KEYS] = {s->kept[0].fd, s->kept[1].fd};
    const struct signer_child_plan plan = {
        .program = o->program,
        .args = {"signer", o->environment, signer_child_key(keys[0], 0, o->key_manifest),
                 signer_child_key(keys[1], 1, o->key_head), o->state},
        .keys = keys,
        .key_count = SIGNER_KEYS,
        .urgent = urgent};
    struct signer_child child;
    TRY(signer_child_start(&plan, &child));
    *out = (struct running){.child = child};
    return OK;
}

static struct err greet(struct running *r, struct buf *message)
{
    struct signer_hello hello;
    struct err e = signer_child_greeting(&r->child, &hello, sizeof(hello));
    if (!err_ok(e)) {
        TRY(buf_add_str(message, "signer: the process ended before it was ready"));
        return e;
    }
    CHECK(hello.magic == SIGNER_MAGIC && hello.code < E_COUNT);
    if (hello.code != E_OK) {
        hello.message[sizeof(hello.message) - 1] = '\0';
        TRY(buf_addf(message, "signer: %s", hello.message));
        return FAIL((enum err_code)hello.code);
    }
    (void)memcpy(r->hello.manifest_public, hello.manifest_public, KEY_PUBLIC_SIZE);
    (void)memcpy(r->hello.head_public, hello.head_public, KEY_PUBLIC_SIZE);
    r->hello.epoch = hello.epoch;
    r->hello.version = hello.version;
    return OK;
}

static bool same_keys(const struct cp_signer_hello *a, const struct cp_signer_hello *b)
{
    return memcmp(a->manifest_public, b->manifest_public, KEY_PUBLIC_SIZE) == 0 &&
           memcmp(a->head_public, b->head_public, KEY_PUBLIC_SIZE) == 0;
}

/* Starts one, and has its keys judged unless they are those of 'before' (NULL: none). */
static struct err start_judged(const struct cp_signer *s, const struct cp_signer_hello *before,
                               bool urgent, struct running *out, struct buf *message)
{
    struct running r = {.child.fd = -1};
    struct err e = start(s, urgent, &r);
    if (err_ok(e)) {
        e = greet(&r, message);
    }
    bool asks = s->options.accept != NULL && (before == NULL || !same_keys(before, &r.hello));
    if (err_ok(e) && asks) {
        e = s->options.accept(s->options.accept_ctx, &r.hello, message);
    }
    if (!err_ok(e)) {
        (void)signer_child_end(&r.child, /* hangs= */ true);
        return e;
    }
    *out = r;
    return OK;
}

static struct err keep_keys(struct cp_signer *s, struct buf *message)
{
    static const char *const settings[SIGNER_KEYS] = {"key-manifest", "key-head"};
    const char *const sources[SIGNER_KEYS] = {s->options.key_manifest, s->options.key_head};
    for (size_t i = 0; i < SIGNER_KEYS; i++) {
        int fd = -1;
        if (!signer_source_fd(sources[i], &fd)) {
            continue;
        }
        struct err e = signer_keep(fd, KEY_FILE_MAX, &s->kept[i]);
        if (!err_ok(e)) {
            TRY(buf_addf(message, "%s: %s: %s", settings[i], sources[i],
                         e.code == E_USAGE ? "no key can be read from this descriptor"
                                           : err_text(e.code)));
            return e;
        }
    }
    return OK;
}

struct err cp_signer_start(const struct cp_signer_options *options, struct cp_signer **out,
                           struct buf *message)
{
    struct cp_signer *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->options = *options;
    s->kept[0].fd = -1;
    s->kept[1].fd = -1;
    lock_init(&s->shared.lock);
    lock_take(&s->shared.lock);
    s->shared.now.child.fd = -1;
    struct err e = keep_keys(s, message);
    if (err_ok(e)) {
        e = start_judged(s, /* before= */ NULL, /* urgent= */ false, &s->shared.now, message);
    }
    lock_drop(&s->shared.lock);
    if (!err_ok(e)) {
        cp_signer_stop(s);
        return e;
    }
    *out = s;
    return OK;
}

void cp_signer_stop(struct cp_signer *signer)
{
    if (signer == NULL) {
        return;
    }
    lock_take(&signer->shared.lock);
    (void)signer_child_end(&signer->shared.now.child, /* hangs= */ false);
    lock_drop(&signer->shared.lock);
    lock_free(&signer->shared.lock);
    for (size_t i = 0; i < SIGNER_KEYS; i++) {
        signer_kept_free(&signer->kept[i]);
    }
    free(signer);
}

struct cp_signer_hello cp_signer_hello(struct cp_signer *signer)
{
    lock_take(&signer->shared.lock);
    struct cp_signer_hello hello = signer->shared.now.hello;
    lock_drop(&signer->shared.lock);
    return hello;
}

bool cp_signer_is_gone(struct cp_signer *signer)
{
    lock_take(&signer->shared.lock);
    bool gone = signer_child_is_gone(&signer->shared.now.child, &signer->shared.end);
    lock_drop(&signer->shared.lock);
    return gone;
}

static struct err restart(struct cp_signer *s, struct buf *message) REQUIRES(s->shared.lock)
{
    (void)signer_child_end(&s->shared.now.child, /* hangs= */ true);
    if (WIFSIGNALED(s->shared.end)) { /* SIGSYS: it wanted what its sandbox does not allow. */
        TRY(buf_addf(message, "the signer had ended by SIG%s; ",
                     sigabbrev_np(WTERMSIG(s->shared.end))));
    }
    s->shared.end = 0;
    const struct cp_signer_hello before = s->shared.now.hello;
    return start_judged(s, &before, /* urgent= */ false, &s->shared.now, message);
}

struct err cp_signer_restart(struct cp_signer *signer, struct buf *message)
{
    lock_take(&signer->shared.lock);
    struct err e = restart(signer, message);
    lock_drop(&signer->shared.lock);
    return e;
}

static struct err reload(struct cp_signer *s, bool *out_changed, struct buf *message)
    REQUIRES(s->shared.lock)
{
    struct running next = {.child.fd = -1};
    TRY(start_judged(s, &s->shared.now.hello, /* urgent= */ true, &next, message));
    /* The same keys: the one that runs knows its sequence, and goes on. */
    *out_changed = s->shared.now.child.fd < 0 || !same_keys(&s->shared.now.hello, &next.hello);
    (void)signer_child_end(*out_changed ? &s->shared.now.child : &next.child, /* hangs= */ false);
    if (*out_changed) {
        s->shared.now = next;
    }
    return OK;
}

struct err cp_signer_reload(struct cp_signer *signer, bool *out_changed, struct buf *message)
{
    lock_take(&signer->shared.lock);
    struct err e = reload(signer, out_changed, message);
    lock_drop(&signer->shared.lock);
    return e;
}

/* A failure leaves half a message on the socket: it is of no use any more. */
static struct err exchange(struct cp_signer *s, const struct signer_request *q, struct slice body,
                           struct signer_reply *reply) REQUIRES(s->shared.lock)
{
    int fd = s->shared.now.child.fd;
    if (fd < 0) {
        return FAIL(E_SIGNER_GONE);
    }
    struct err e = signer_send(fd, slice_of(q, sizeof(*q)));
    if (err_ok(e)) {
        e = signer_send(fd, body);
    }
    if (err_ok(e)) {
        e = signer_receive(fd, reply, sizeof(*reply));
    }
    if (!err_ok(e)) {
        s->shared.end = signer_child_end(&s->shared.now.child, /* hangs= */ true);
        return FAIL(E_SIGNER_GONE);
    }
    return OK;
}

struct err cp_signer_sign(struct cp_signer *signer, const struct cp_signer_request *request,
                          struct container_signature *out)
{
    if (request->body.size > container_body_max(request->kind)) {
        return FAIL(E_TOO_LARGE);
    }
    struct signer_request q = {.magic = SIGNER_MAGIC,
                               .kind = (uint32_t)request->kind,
                               .version = request->version,
                               .root_version = request->root_version,
                               .epoch = request->epoch,
                               .sequence = request->sequence,
                               .size = (uint32_t)request->body.size};
    struct signer_reply reply;
    lock_take(&signer->shared.lock);
    struct err e = exchange(signer, &q, request->body, &reply);
    lock_drop(&signer->shared.lock);
    TRY(e);
    CHECK(reply.magic == SIGNER_MAGIC && reply.code < E_COUNT);
    if (reply.code != E_OK) {
        return FAIL((enum err_code)reply.code);
    }
    (void)memcpy(out->key_id, reply.key_id, sizeof(out->key_id));
    (void)memcpy(out->signature, reply.signature, sizeof(out->signature));
    return OK;
}
