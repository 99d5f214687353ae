/*
 * request: one call through the node, from its head to the line in the access log.
 *
 * Shape      struct dp_request is fixed; all that varies lies in its arena. The pool of a worker
 *            keeps used ones, so that a request allocates nothing in the steady state.
 * Units      *_ns monotonic nanoseconds of the loop; *_bytes bytes.
 * Ownership  the pool owns its requests. A front (the caller's side: HTTP/2 or HTTP/1) takes one
 *            with dp_request_start(), fills 'in' and 'stream' or 'exchange', and gives up every
 *            use of it when its 'ended' was called. A request pins one model: what it points to
 *            there lives as long as the request.
 * Threads    the worker whose pool it is; nobody else.
 * Errors     a failing step becomes the answer: every failure leaves by one door, and is
 *            answered, counted and logged once.
 * Source     docs/architecture.md, "the life of a request". NAMES: "Context, on every hop".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/context/trace.h"
#include "common/net/loop.h"
#include "common/net/timer.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/caller_stream.h"
#include "dataplane/request/guard.h"
#include "dataplane/request/lane.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/overload.h"
#include "dataplane/request/policy.h"
#include "dataplane/request/refusals.h"
#include "dataplane/request/token.h"

struct buf;
struct dp_access_log;
struct dp_identity_memo;
struct dp_issuer_keys;
struct dp_request;
struct dp_request_metrics;
struct h2_stream;
struct http1_exchange;
struct net_conn;

/* An upstream that a caller gives less time than this, and that runs out of it, may be well. */
enum { DP_REQUEST_HURRY_MS = 1000 };

enum dp_step_next { DP_STEP_MORE, DP_STEP_WAIT, DP_STEP_DONE };

/* What the caller sent, as it arrived. Filled by the front, never changed afterwards. */
struct dp_input {
    struct slice scheme;      /* "http", "https". */
    struct slice http_method; /* "POST". */
    struct slice host;        /* lower case, without a port. */
    struct slice path;        /* begins with '/', without the query. */
    struct slice query;       /* behind the '?'. */
    struct slice peer;        /* the connection's far end, as text. */
    struct slice spiffe;      /* proven by the caller's certificate; empty: none. */
    struct slice serial;      /* of that certificate; empty: none. */
    struct slice token;       /* of "authorization: Bearer …"; empty: none. */
    struct slice tenant;      /* x-tenant-id; empty: none. */
    bool trace_known;         /* the caller brought a valid trace. */
    struct slice correlation; /* x-correlation-id; empty: none. */
    struct slice request_id;  /* x-request-id; empty: none. */
    struct slice traceparent;
    struct slice tracestate;
    struct slice timeout;    /* grpc-timeout; empty: none. */
    struct slice timeout_ms; /* x-request-timeout-ms; empty: none. */
    struct slice origin;     /* of a page that is not of this host; empty: no such page asks. */
    /* Finds any request header by its lower-case name. */
    bool (*header)(const void *ctx, struct slice name, struct slice *out_value);
    const void *header_ctx;
    bool
        header_repeated; /* one that was looked at is there twice: what it decided does not hold. */
};

/* The caller's side of a request: how to answer in its protocol. */
struct dp_front {
    const char *name; /* "grpc", "http"; in the access log. */

    /* Answers rq->err in the protocol's own way, whole; called at most once, before anything else
     * was answered. rq->verdict, rq->retry_ns and rq->limit say more. Sets rq->grpc_status or
     * rq->http_status. */
    void (*refuse)(struct dp_request *rq);

    /* The request is over and goes back to the pool: drop every pointer to it, take the lane's
     * events off the stream or exchange. Called once. */
    void (*ended)(struct dp_request *rq);

    /* HTTP/1: answers 200 and gives the caller's connection to the lane, with what the caller
     * sent behind its request in 'early'. What 'in' borrows is copied, and rq->exchange is NULL
     * from then on; the lane sets a handler at once. On failure nothing has changed. NULL in other
     * fronts. */
    struct err (*take)(struct dp_request *rq, struct net_conn **out_conn, struct buf *early);
};

/* What a lane hears of an HTTP/1 caller's exchange; each may be NULL. Bytes are borrowed. The
 * caller's leaving comes as dp_lane.abort() with CANCELLED. */
struct dp_exchange_events {
    void (*body)(struct dp_request *rq, struct slice bytes);
    void (*end)(struct dp_request *rq);     /* the request is whole. */
    void (*drained)(struct dp_request *rq); /* output has room again. */
};

struct dp_step;
struct dp_generation;

struct dp_request {
    const struct dp_step *step; /* the step to run next; NULL before the first. */
    struct dp_request_pool *pool;
    struct dp_generation *generation; /* pins 'model'. */
    const struct dp_model *model;     /* NULL only in a request that was refused as NOT_READY. */
    const struct dp_lane *lane;
    const struct dp_front *front;
    struct h2_stream *stream;        /* an HTTP/2 caller's exchange; NULL: another protocol. */
    struct http1_exchange *exchange; /* an HTTP/1 caller's exchange; NULL: another protocol. */
    struct dp_caller_stream caller_stream; /* a gRPC call's: what the operator lane answers on. */
    /* HTTP/1: what the lane hears of its exchange; set in forward(). NULL: nothing. */
    const struct dp_exchange_events *exchange_events;
    void *front_state; /* the front's own. */
    void *lane_state;  /* the lane's own: of this request. */
    struct arena arena;
    struct dp_input in;

    /* Who asks, as step identify found; and the token that 'caller' is of, if it is of one. */
    const struct dp_caller *caller;
    struct dp_token_hold token;

    /* What every further hop is told: NAMES, "Context". */
    struct trace trace;       /* ours: a child of the caller's. */
    bool trace_known;         /* the caller brought a valid trace. */
    struct slice correlation; /* never empty after step admit. */
    struct slice request_id;  /* never empty after step admit. */
    uint64_t deadline_ns;     /* absolute; never zero after step route. */

    /* What is asked for, as the lane's route() said. */
    enum dp_verb verb;
    const struct dp_target *target;
    struct slice method;
    const struct dp_route *route;         /* operator lane. */
    const struct dp_cluster *cluster;     /* operator lane. */
    const struct dp_transport *transport; /* never NULL after step route, unless deferred. */
    uint32_t route_timeout_ms;            /* zero: the transport's. */
    bool deferred;  /* decided message by message: target is NULL until dp_request_decide(). */
    bool unbounded; /* no deadline unless the caller brings one: streams and tunnels. */
    bool hurried;   /* its caller gave it less than DP_REQUEST_HURRY_MS; no bound of ours did. */

    uint64_t draw; /* random: for choices that must stay when repeated. */

    struct dp_verdict verdict; /* of step authorize. */
    uint64_t retry_ns;  /* RATE_LIMITED, OVERLOADED: when the next one may pass; 0: unknown. */
    struct slice limit; /* RATE_LIMITED, LIMIT_KEY_MISSING: which limit; "tokens": of wrong or
                           unknown ones. */
    struct dp_limit_held held; /* of what limits say may be in flight. */
    struct slice sentence;     /* what the refusal says; empty: the text of its code. */
    struct err err;            /* why it failed; E_OK so far. */
    uint64_t explain;          /* the refusal's id; zero: it has none yet. */
    char explain_text[DP_REFUSAL_ID_SIZE + 1]; /* the same, written. */
    bool answered;    /* the caller has a first byte of an answer of the lane. */
    bool forwarding;  /* step forward was reached: the lane ends the request. */
    bool entering;    /* inside the lane's forward(). */
    bool over;        /* the lane ended the request. */
    bool caller_gone; /* nobody is there to be answered. */

    /* For the access log and the metrics. */
    uint64_t started_ns;
    uint64_t request_bytes;
    uint64_t response_bytes;
    int grpc_status; /* of the answer; -1: none. */
    int http_status;
    struct slice upstream; /* "127.0.0.1:15051"; empty: none. */
    uint32_t attempts;     /* retries and hedges, and the first one; 0: no other was made. */

    struct net_timer deadline_timer;
    struct dp_request *open_prev; /* in the pool's list of open requests. */
    struct dp_request *open_next; /* there, or in the list of free ones. */
};

/* Requests of one worker, and what they stand on. */
struct dp_request_pool {
    struct net_loop *loop;                  /* borrowed. */
    struct dp_policy_cache *decisions;      /* owned. */
    struct dp_identity_memo *identities;    /* owned. */
    struct dp_limit_table *limits;          /* borrowed: the node's. */
    struct dp_access_log *access_log;       /* borrowed; NULL: no lines. */
    struct dp_refusals *refusals;           /* borrowed; NULL: none is kept. */
    struct dp_request_metrics *metrics;     /* borrowed: the worker's. */
    void *lanes[DP_LANE_COUNT];             /* what each lane's start() gave. */
    struct dp_generation *generation;       /* in force; NULL: no snapshot yet. */
    struct dp_generation *generations;      /* all that are alive, newest first. */
    struct dp_generation *generation_spare; /* the next one's memory; NULL: none. */
    struct dp_request *open;                /* every open request, newest first. */
    struct dp_request *free;
    struct net_timer redecide_timer; /* armed while open requests are of an older model. */
    struct dp_request *redecide_at;  /* the next one that may be; NULL: none. */
    struct dp_request *abort_at;     /* the next one that is aborted; NULL: none. */
    size_t open_count;
    size_t free_count;
    bool draining;
    struct dp_overload overload;
    struct dp_guard guard; /* of the policy decisions. */
    bool stale; /* content is older than the environment's freshnessMax: nothing is allowed. */
};

/* E_NO_MEMORY. The loop, table, log and metrics must outlive the pool. */
MUST_CHECK struct err dp_request_pool_init(struct dp_request_pool *pool, struct net_loop *loop,
                                           struct dp_limit_table *limits,
                                           struct dp_access_log *access_log,
                                           struct dp_request_metrics *metrics);

/* Only when no request is open. */
void dp_request_pool_free(struct dp_request_pool *pool);

/*
 * Puts a new model in force (takes the reference): later requests use it; open ones are decided
 * anew, a bounded number a turn: with the same verdict they go on, else they end with what is
 * wrong now: POLICY_DENIED, IDENTITY_REVOKED, SCHEMA_BLOCKED…
 */
void dp_request_pool_adopt(struct dp_request_pool *pool, struct dp_model *model);

/* The model in force, borrowed until the next turn; NULL: none yet. */
const struct dp_model *dp_request_pool_model(const struct dp_request_pool *pool);

/* How many models this worker keeps alive. */
size_t dp_request_pool_generations(const struct dp_request_pool *pool);

/* Other keys of issuers are in force (takes the reference): requests by a token whose key is gone
 * end, a bounded number a turn. */
void dp_request_pool_keys(struct dp_request_pool *pool, struct dp_issuer_keys *keys);

/* From now on requests are refused as DRAINING. */
void dp_request_pool_drain(struct dp_request_pool *pool);

/* Says whether the content served is older than the environment's freshnessMax. While it is, new
 * requests are refused as SNAPSHOT_STALE; open ones go on. */
void dp_request_pool_set_stale(struct dp_request_pool *pool, bool stale);

/* Ends every open request with 'why': the end of a drain. */
void dp_request_pool_abort(struct dp_request_pool *pool, struct err why);

/*
 * Takes a request from the pool for the front to fill: 'in' borrows from the front's connection or
 * is copied into the arena. E_OVERLOADED past limits.requests, E_NO_MEMORY.
 */
MUST_CHECK struct err dp_request_start(struct dp_request_pool *pool, const struct dp_front *front,
                                       void *front_state, const struct dp_lane *lane,
                                       struct dp_request **out);

/* Runs steps until the request waits for its lane, or is over (then it must not be touched). */
enum dp_step_next dp_request_run(struct dp_request *rq);

/* In place of dp_request_run(): what came cannot be made a request of; answered, counted, logged.
 */
void dp_request_refuse(struct dp_request *rq, struct err why);

/*
 * For a request that route() deferred: may the caller do this, and is there budget left for it?
 * By the same policy, cache, limits and counters as the steps of that name; POLICY_DENIED,
 * RATE_LIMITED. What was asked and how it was decided stays in the request, for the answer and the
 * log, until the next question. The lane asks once for each thing that it then does.
 * dp_request_authorize() is the first half: for deciding anew what goes on.
 */
MUST_CHECK struct err dp_request_decide(struct dp_request *rq, const struct dp_target *target,
                                        enum dp_verb verb, struct slice method);
MUST_CHECK struct err dp_request_authorize(struct dp_request *rq, const struct dp_target *target,
                                           enum dp_verb verb, struct slice method);

/* What a policy (NULL: there is none) is asked of the request's caller: this verb and method, in
 * the request's lane, with its headers, now. Borrows of the request. */
struct dp_policy_query dp_request_policy_query(const struct dp_request *rq,
                                               const struct dp_policy_target *policy,
                                               enum dp_verb verb, struct slice method);

/*
 * Whether the caller may do something beside what it asks for, by the same policy: a copy for a
 * shadow, a method that reflection shows. It may not by a header that is there twice. The request
 * is as it was before; nothing is counted. 'cached': what is asked for with each call goes through
 * the cache of decisions.
 */
bool dp_request_may(struct dp_request *rq, const struct dp_target *target, enum dp_verb verb,
                    struct slice method, bool cached);

/* The lane is finished and the caller has the whole answer; 'err' is what it was told. */
void dp_request_done(struct dp_request *rq, struct err err);

/* Why a request ends that its upstream broke off: that one has the same deadline, and a clock that
 * may run out a moment before the timer here does. Then it is DEADLINE_EXCEEDED, and the sentence
 * of the other is dropped. For what the lane itself tells the caller; dp_request_fail() asks it. */
struct err dp_request_why(struct dp_request *rq, struct err err);

/* The lane failed before it answered anything: the front answers. */
void dp_request_fail(struct dp_request *rq, struct err err);

/* The caller went away, or its connection did: the lane is aborted, nothing is answered. */
void dp_request_cancel(struct dp_request *rq);

/* What the caller sent behind the head is broken, and its protocol has told it so: as above, but
 * 'why' is what is counted and logged. */
void dp_request_break(struct dp_request *rq, struct err why);

/* The id that the caller of a refused request is told: x-trilane-explain. Whoever answers a refusal
 * asks for it; the same each time. Lives as long as the request; empty: refusals are not kept. */
struct slice dp_request_explain(struct dp_request *rq);

/* Milliseconds left until the deadline, at least 1. */
uint64_t dp_request_left_ms(const struct dp_request *rq);
