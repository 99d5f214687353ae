/*
 * call: one request that a worker answers.
 *
 * Shape      made on the loop when the request is whole; run on a worker; answered on the loop, or
 *            dropped there when the caller has left.
 * Ownership  a call owns itself: it is freed on the loop after its answer.
 * Threads    'exchange' is the loop's alone; the rest is the worker's while it runs.
 */
#pragma once

#include "common/base/buf.h"
#include "common/net/http1_server.h"
#include "common/net/loop.h"
#include "controlplane/api/forward.h"
#include "controlplane/publish/worker.h"

enum cp_call_kind {
    CP_CALL_HISTORY,
    CP_CALL_VERSION,
    CP_CALL_DIFF,
    CP_CALL_AUDIT,
    CP_CALL_VALIDATE,
    CP_CALL_PLAN,
    CP_CALL_PUBLISH,
    CP_CALL_ROLLBACK,
    CP_CALL_RECOVER,
    CP_CALL_PROPOSAL,
    CP_CALL_SIGN,
    CP_CALL_ROOTS,
    CP_CALL_ROOT_PUBLISH,
    CP_CALL_NODES,
    CP_CALL_TOKEN,
    CP_CALL_JOIN,
    CP_CALL_RENEW,
    CP_CALL_REMOVE,
};

struct cp_registrar;

struct cp_call {
    struct cp_task task; /* first: a task is cast to its call. */
    struct net_task done;
    struct net_loop *loop;
    struct http1_exchange *exchange;                   /* NULL once the caller has left. */
    void (*answered)(struct cp_call *call, void *ctx); /* on the loop, before it is freed. */
    void *ctx;
    enum cp_call_kind kind;
    const struct cp_forward *forward; /* a write that is not for us goes that way. */
    bool forwarded;                   /* it came that way. */
    uint64_t waited_ms;               /* by the caller, at whatever server. */
    atomic_bool abandoned;            /* the caller has left; said on the loop. */
    char request[CP_REQUEST_MAX + 1]; /* its id: the caller's, or one that we gave it. */
    struct buf authorization;         /* of the caller; wiped. */
    struct cp_registrar *registrar;
    struct cp_worker *publisher; /* who goes on with it, when somebody else began. */
    bool begun;                  /* by the doorman: the rest is the publisher's. */
    struct buf body;
    uint64_t first;  /* version, from, before. */
    uint64_t second; /* to, max. */
    unsigned status; /* of HTTP. */
    struct buf answer;
};

/* Whether it changes something, and so is the leader's. */
bool cp_call_writes(enum cp_call_kind kind);

/* A call with a copy of the request's body; task.run is set. E_USAGE for an Idempotency-Key that is
 * not 1 to CP_REQUEST_MAX visible ASCII characters, or a CP_WAITED_HEADER that is no number. */
MUST_CHECK struct err cp_call_new(enum cp_call_kind kind, struct http1_exchange *exchange,
                                  struct cp_call **out);
void cp_call_free(struct cp_call *call);
