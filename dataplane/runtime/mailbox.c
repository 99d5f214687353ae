/* mailbox: see mailbox.h. */
#include "dataplane/runtime/mailbox.h"

#include "common/base/scope.h"
#include "dataplane/apply/model.h"

void dp_mailbox_init(struct dp_mailbox *m, struct net_loop *loop, net_task_fn *arrived, void *ctx)
{
    *m = (struct dp_mailbox){.loop = loop, .task = {.fn = arrived, .ctx = ctx}};
    lock_init(&m->shared.lock);
}

void dp_mailbox_close(struct dp_mailbox *m)
{
    lock_take(&m->shared.lock);
    m->shared.closed = true;
    lock_drop(&m->shared.lock);
}

void dp_mailbox_free(struct dp_mailbox *m)
{
    dp_model_unref(dp_mailbox_take(m));
    lock_free(&m->shared.lock);
}

/* Has the loop look, once. */
static void post(struct dp_mailbox *m) REQUIRES(m->shared.lock)
{
    if (!m->shared.posted && !m->shared.closed && m->shared.waiting != NULL) {
        m->shared.posted = err_ok(net_loop_post(m->loop, &m->task));
    }
}

void dp_mailbox_put(struct dp_mailbox *m, struct dp_model *model)
{
    lock_take(&m->shared.lock);
    struct dp_model *before = m->shared.waiting;
    m->shared.waiting = dp_model_ref(model);
    post(m);
    lock_drop(&m->shared.lock);
    dp_model_unref(before);
}

struct dp_model *dp_mailbox_take(struct dp_mailbox *m)
{
    lock_take(&m->shared.lock);
    struct dp_model *model = TAKE_PTR(m->shared.waiting);
    m->shared.posted = false;
    lock_drop(&m->shared.lock);
    return model;
}

void dp_mailbox_fresh(struct dp_mailbox *m, uint64_t content_ns)
{
    lock_take(&m->shared.lock);
    m->shared.content_ns = content_ns;
    lock_drop(&m->shared.lock);
}

uint64_t dp_mailbox_content_ns(struct dp_mailbox *m)
{
    lock_take(&m->shared.lock);
    uint64_t content_ns = m->shared.content_ns;
    lock_drop(&m->shared.lock);
    return content_ns;
}

void dp_mailbox_adopted(struct dp_mailbox *m, uint64_t version)
{
    lock_take(&m->shared.lock);
    m->shared.version = version;
    lock_drop(&m->shared.lock);
}

uint64_t dp_mailbox_version(struct dp_mailbox *m)
{
    lock_take(&m->shared.lock);
    uint64_t version = m->shared.version;
    post(m);
    lock_drop(&m->shared.lock);
    return version;
}
