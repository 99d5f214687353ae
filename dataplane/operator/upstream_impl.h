/*
 * upstream_impl: what upstreams are made of; for the files of this room that upstream.h speaks for.
 *
 * Shape      a set is a cluster's endpoints by one transport, as one worker knows them: slots by
 *            the index that the cluster gives, filled as they are needed and a few a turn besides,
 *            so that no turn makes thousands. An endpoint that a snapshot leaves out stays with its
 *            set, out of its slots, until nobody holds it.
 * Units      *_ns of the loop's clock.
 * Ownership  upstreams own sets, a set its endpoints; both are freed by the sweep alone.
 * Threads    one worker.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ids.h"
#include "common/base/map.h"
#include "common/net/addr.h"
#include "common/net/h2_pool.h"
#include "common/net/timer.h"
#include "common/telemetry/metrics.h"
#include "dataplane/operator/addresses.h"
#include "dataplane/operator/breaker.h"
#include "dataplane/operator/health.h"
#include "dataplane/operator/outlier.h"
#include "dataplane/operator/sla.h"
#include "dataplane/operator/upstream.h"

struct board;
struct board_cell;
struct net_dns_query;
struct op_probe;

/* How an endpoint did, and whether it is ejected: outlier.h. */
struct op_record {
    uint32_t failures_in_a_row;
    uint32_t answers;  /* of the present interval. */
    uint32_t failures; /* among them. */
    uint32_t times;    /* that it was ejected; one less for each good interval. */
    bool ejected;      /* until: */
    uint64_t ejected_until_ns;
};

/* The judgement of success rates, which walks the slots twice, some a turn. */
struct op_judging {
    size_t at;    /* the next slot. */
    size_t hosts; /* with enough answers. */
    double sum;   /* of their rates. */
    double squares;
    double least; /* below it a rate is too low. */
    bool second;  /* the second walk. */
};

/* Whether an endpoint answers soon enough: sla.h. */
struct op_pace {
    uint32_t answers; /* since it was judged last. */
    uint32_t late;    /* among them. */
    uint32_t rounds;  /* in which there were too few to judge by. */
    uint32_t share;   /* of OP_WHOLE_SHARE, that it has of its calls; 0: all. */
};

/* A moving mean of latencies that rises at once and falls slowly. */
struct op_mean {
    double ns; /* 0: none yet. */
    uint64_t at_ns;
};

struct op_endpoint {
    struct op_upstreams *ups;
    struct op_set *set;
    struct op_endpoint *next; /* in the set's list. */
    struct slice key;         /* owned. */
    uint32_t id;              /* no other endpoint of the worker has it. */
    uint64_t hash;            /* of the key: the same on every node. */
    uint32_t edition;         /* the set's, when it was put in a slot; another one: it left. */
    char *host;               /* owned. */
    uint16_t port;
    uint32_t security; /* dp_transport.upstream_tls. */
    uint32_t connect_timeout_ms;
    uint32_t max_age_ms;        /* of its connections; zero: none. */
    struct net_tls_terms terms; /* the versions. */
    uint32_t connections_max;   /* zero: as many as limits allow. */
    char *server_name;          /* owned. */
    char *spiffe_id;            /* owned. */
    char text[NET_ADDR_TEXT_MAX];
    struct op_addresses addresses; /* none until they are known. */
    struct net_dns_query *query;   /* NULL: no look-up is under way. */
    struct op_wait *line;          /* waits for the look-up. */
    uint64_t resolve_ns;           /* when it is looked up again; a literal: UINT64_MAX. */
    uint64_t failed_until_ns;      /* left alone until then. */
    uint32_t failed_ms;            /* for how long the next time. */
    struct err unreached;          /* what its last connection failed with; OK: none did. */
    size_t refs;                   /* waits and attempts. */
    uint32_t weight;
    uint32_t level;     /* of the cluster, that its slot is in. */
    uint32_t active;    /* attempts under way. */
    uint64_t joined_ns; /* its slow start began; 0: it has none. */
    struct op_record record;
    struct op_pace pace;
    struct op_mean latency;
    struct board_cell *health_cell; /* NULL: not looked for yet, or there is none. */
    uint64_t health_key;            /* of the cell. */
    bool probing;                   /* a probe of ours is under way. */
    bool unwell;                    /* probes say so. */
    bool counted;                   /* in the set's 'out'. */
};

/* What an endpoint's connections are secured by. Strings are owned by the set. */
struct op_security {
    uint32_t tls;
    uint32_t connect_timeout_ms;
    uint32_t max_age_ms;        /* zero: none. */
    struct net_tls_terms terms; /* the versions. */
    struct slice sni;
    struct slice spiffe;
};

/* How endpoints are asked; strings are owned by the set. */
struct op_health {
    enum dp_health_kind kind;
    struct slice service;
    struct slice path;
    uint32_t interval_ms;
    uint32_t timeout_ms;
    uint32_t healthy;
    uint32_t unhealthy;
    uint64_t print; /* of what is asked: other questions have other cells. */
};

struct op_set {
    struct op_upstreams *ups;
    struct op_set *next;                  /* in the upstreams' list. */
    struct slice id;                      /* owned; of cluster and transport. */
    struct slice cluster;                 /* owned: their names. */
    struct slice transport;               /* owned. */
    uint8_t print[DIGEST_SHORT_SIZE];     /* of the cluster that the slots are of. */
    struct op_security security;          /* of the transport. */
    struct dp_outlier_detection outliers; /* of the cluster, as are these. */
    struct dp_circuit_breakers breakers;
    struct dp_sla sla;
    bool measures; /* its policy asks for latencies. */
    struct op_health health;
    uint32_t edition;           /* counts what the slots were made of; 0: nothing yet. */
    struct op_endpoint **slots; /* owned; NULL in it: not needed yet. */
    size_t count;
    size_t filled;                 /* slots before it are. */
    size_t present;                /* endpoints in slots. */
    size_t ejected;                /* of those; */
    size_t unwell;                 /* of those; */
    size_t out;                    /* either, once. */
    size_t out_of[DP_LEVELS_MAX];  /* the same of each level. */
    bool emptied;                  /* nobody used it: its endpoints go, and then itself. */
    struct map by_key;             /* all endpoints, */
    struct op_endpoint *all;       /* and as a list. */
    struct op_endpoint **sweep_at; /* where the sweep goes on; NULL: it begins anew. */
    struct net_timer fill_timer;
    struct net_timer judge_timer; /* armed while outliers are judged. */
    struct op_judging judging;
    struct net_timer health_timer; /* armed while endpoints are asked. */
    size_t health_at;              /* the next slot of that. */
    struct net_timer pace_timer;   /* armed while latencies are judged. */
    size_t pace_at;                /* the next slot of that. */
    size_t degraded;               /* endpoints in slots that have less than their share. */
    bool says_degraded;            /* the host's 'degraded' was told so. */
    uint64_t calls;                /* that had a turn. */
    uint64_t used_ns;              /* when somebody picked last. */
    uint32_t active;               /* attempts under way. */
    uint32_t pending;              /* waits for a connection. */
    struct {
        metrics_id ejections[2]; /* by op_ejection. */
        metrics_id ejected_now;
        metrics_id degraded_now;
        metrics_id unwell_now;
        metrics_id probes[2]; /* by whether all was well. */
        metrics_id panics;
        metrics_id broken[2]; /* by op_breaker. */
    } metrics;
};

struct op_upstreams {
    const struct dp_lane_host *host;
    struct h2_pools *pools;
    struct map sets;         /* by id, */
    struct op_set *all;      /* and as a list. */
    uint32_t endpoint_id;    /* of the last one made. */
    struct board *board;     /* of health; the node's, or: */
    struct board *own_board; /* NULL: the node has one. */
    struct op_probe *probes; /* under way. */
    size_t probe_count;
    struct net_timer sweep_timer;
    struct op_set **sweep_at; /* where the sweep goes on; NULL: it begins anew. */
    struct net_timer follow_timer;
    struct op_set **follow_at; /* whether sets follow the model goes on here; NULL: they do. */
    struct net_timer look_timer;
    bool looks_at_trust; /* CAs changed since all connections were looked over. */
    bool looks;          /* connections are being looked over, */
    bool looks_again;    /* and once more behind the last one. */
};

/* ---- endpoint.c ---- */

/* An endpoint of the set, not in a slot yet. E_NO_MEMORY, E_TOO_LARGE. */
MUST_CHECK struct err op_endpoint_get(struct op_set *set, const struct dp_endpoint *from,
                                      struct op_endpoint **out);

/* What the endpoint's connections are secured by now; a SIGHUP changes it. NULL: nothing. */
struct net_tls *op_endpoint_tls(const struct op_endpoint *e);

/* Nobody waits for it, no attempt is under way at it, and it is in no slot and no list. */
void op_endpoint_free(struct op_endpoint *e);

/* ---- set.c ---- */

/* Endpoints that come and go a turn: a share of what a swap may take of it. */
enum { OP_SET_BATCH = 32 };

/* What a pick needs of the model in force; borrowed of it. */
struct op_question {
    const struct dp_cluster *cluster;
    const struct dp_transport *transport;
};

/* The set of a request's cluster and transport, with slots of the model in force. Fails with
 * NO_HEALTHY_ENDPOINT when that has no such cluster any more. */
MUST_CHECK struct err op_set_get(struct op_upstreams *ups, const struct dp_request *rq,
                                 struct op_question *out_question, struct op_set **out);

/* The endpoint of a slot. */
MUST_CHECK struct err op_set_at(struct op_set *set, const struct dp_cluster *cluster, size_t index,
                                struct op_endpoint **out);

/* The endpoint came to be ejected or unwell, or is not any more: counts it in 'out' or not. */
void op_set_count_out(struct op_endpoint *e);

/* Whether so few endpoints are well that all are called. */
static inline bool op_set_panics(const struct op_set *set, uint32_t panic_percent)
{
    return set->out > 0 && (set->count - set->out) * 100 < set->count * panic_percent;
}

/* Whether the endpoint is in a slot now. */
static inline bool op_set_has(const struct op_set *set, const struct op_endpoint *e)
{
    return e->edition == set->edition;
}

/* Frees endpoints that left and are held by nobody, of a bounded number; true: of all. */
bool op_set_sweep(struct op_set *set);

/* Makes the slots of the model in force, whether somebody picks or not: nobody goes on judging and
 * asking by what is no longer so. True: they were others. */
bool op_set_follow(struct op_set *set);

/* Takes all endpoints out of their slots, until somebody picks again. */
void op_set_empty(struct op_set *set);

/* No endpoint of it is held. */
void op_set_free(struct op_set *set);

/* ---- pick.c ---- */

/* The endpoint that the cluster's policy gives this call, by 'tries' none that it tried. */
MUST_CHECK struct err op_pick(struct op_set *set, const struct dp_request *rq,
                              const struct dp_cluster *cluster, struct op_tries *tries,
                              struct op_endpoint **out);

/* A latency of an answer; and the mean as it is now. */
void op_mean_add(struct op_mean *mean, uint64_t now_ns, double ns);
double op_mean_now(const struct op_mean *mean, uint64_t now_ns);
