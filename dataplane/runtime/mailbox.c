/* mailbox: see mailbox.h. */
#include "dataplane/runtime/mailbox.h"

#include "dataplane/apply/model.h"

void dp_mailbox_init(struct dp_mailbox *m, struct net_loop *loop, net_task_fn *arrived, void *ctx)
{
    *m = (struct dp_mailbox){.loop = loop, .task = {.fn = arrived, .ctx = ctx}};
    lock_init(&m->posters.lock);
}

void dp_mailbox_close(struct dp_mailbox *m)
{
    lock_take(&m->posters.lock);
    m->posters.closed = true;
    lock_drop(&m->posters.lock);
}

void dp_mailbox_free(struct dp_mailbox *m)
{
    dp_model_unref(dp_mailbox_take(m));
    lock_free(&m->posters.lock);
}

/* Has the loop look, once. The lock is there for dp_mailbox_close() alone, behind which nobody may
 * be on the way to the loop any more. */
static void post(struct dp_mailbox *m)
{
    if (atomic_load(&m->shared.waiting) == NULL) {
        return;
    }
    lock_take(&m->posters.lock);
    if (!m->posters.closed && !atomic_exchange(&m->shared.posted, true) &&
        !err_ok(net_loop_post(m->loop, &m->task))) {
        atomic_store(&m->shared.posted, false); /* the next call asks again. */
    }
    lock_drop(&m->posters.lock);
}

void dp_mailbox_put(struct dp_mailbox *m, struct dp_model *model)
{
    dp_model_unref(atomic_exchange(&m->shared.waiting, dp_model_ref(model)));
    post(m);
}

struct dp_model *dp_mailbox_take(struct dp_mailbox *m)
{
    /* In this order: what is put in between is taken now, or posted anew. */
    atomic_store(&m->shared.posted, false);
    return atomic_exchange(&m->shared.waiting, NULL);
}

void dp_mailbox_fresh(struct dp_mailbox *m, uint64_t content_ns)
{
    atomic_store(&m->shared.content_ns, content_ns);
}

uint64_t dp_mailbox_content_ns(struct dp_mailbox *m)
{
    return atomic_load(&m->shared.content_ns);
}

void dp_mailbox_adopted(struct dp_mailbox *m, uint64_t version)
{
    atomic_store(&m->shared.version, version);
}

uint64_t dp_mailbox_version(struct dp_mailbox *m)
{
    post(m);
    return atomic_load(&m->shared.version);
}
