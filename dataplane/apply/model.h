/*
 * model: one snapshot, built: what every request is served from.
 *
 * Shape      immutable once built. Parts, and the tables that they are looked up in, are shared
 *            with the models before and after as far as they are the same. Parts name each other;
 *            whoever has one part asks the model for the other: what is named is there, unless it
 *            may be absent.
 * Ownership  reference counted; dp_model_unref() of the last reference may be called on any
 *            thread but does the freeing on the apply thread (ARCHITECTURE: the last drop hands
 *            back). What a look-up returns is borrowed and lives as long as the model.
 * Threads    any number of readers without a lock.
 * Errors     look-ups return NULL when there is no such thing; building says PART_MALFORMED with
 *            the key of the part.
 * Source     proto/trilane/parts/v1/parts.proto: keys and messages; docs/architecture.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/slice.h"
#include "common/net/tls.h"
#include "common/proto/schema.h"
#include "dataplane/request/guard.h"

struct dp_model;
struct jose_keys;
struct net_identity;

/* What may be asked for: a policy and limits stand on it. Every target has one, in every model. */
struct dp_target {
    struct slice id; /* "service/acme/orders", "topic/User.v2", … */
};

struct dp_trait {
    struct slice name;
    struct slice value;
};

/* Who calls: a registered service, or the subject of an issuer's token. */
struct dp_caller {
    struct slice id;     /* "acme/web"; of a subject "acme/<issuer's name>#<subject>". */
    struct slice spiffe; /* its SPIFFE id; of a subject "<issuer>#<subject>". */
    struct slice domain; /* the trust domain of that; of a token what its Issuer says. */
    struct slice tenant;
    struct slice service;          /* of a subject empty. */
    const struct dp_trait *traits; /* by name, ascending; of a token in any order. */
    size_t trait_count;
    /* Of a token: whom metrics count it as; the model's. NULL: itself. */
    const struct dp_caller *counted_as;
};

/* A claim that must have a value, and a way from claims to a tenant: all of 'when' hold. */
struct dp_issuer_when {
    struct slice claim;
    struct slice value;
};

struct dp_issuer_tenant {
    const struct dp_issuer_when *when;
    size_t when_count; /* zero: always. */
    struct slice tenant;
    struct slice claim; /* empty: 'tenant' is it. */
};

struct dp_issuer_trait {
    struct slice name;
    struct slice claim;
};

/* Whose JSON Web Tokens prove who calls. */
struct dp_issuer {
    struct slice id;          /* "-/keycloak": tenant and name. */
    struct slice issuer;      /* claim iss. */
    struct slice only_tenant; /* of its callers; empty: any, it is the platform's. */
    struct slice name;
    const struct slice *audiences; /* sorted; at least one. */
    size_t audience_count;
    uint32_t algorithms; /* bits 1 << jose_alg. */
    uint64_t leeway_ms;
    struct slice jwks_uri;  /* a NUL is behind it; empty: 'keys' are all there are. */
    bool discovery;         /* there is no key set, but the document that says where it is. */
    struct jose_keys *keys; /* owned; NULL: they are read from jwks_uri. */
    struct slice ca;        /* PEM; empty: the system's. */
    uint64_t refresh_ms;
    uint64_t max_stale_ms;       /* zero: none. */
    uint8_t source[DIGEST_SIZE]; /* of jwks_uri, ca and issuer: where its keys come from. */
    uint8_t digest[DIGEST_SIZE]; /* of all that it says. */
    const struct dp_issuer_tenant *tenants;
    size_t tenant_count;
    struct slice subject_claim;
    struct slice service_claim; /* empty: none. */
    const struct dp_issuer_trait *traits;
    size_t trait_count;
    struct slice trust_domain;
    struct dp_caller counted; /* what metrics call those of its subjects that are no service. */
};

struct dp_transport {
    struct slice id;
    uint32_t timeout_ms;             /* of a call without a deadline; never zero. */
    uint32_t timeout_max_ms;         /* zero: none. */
    uint32_t connect_timeout_ms;     /* never zero. */
    uint32_t idle_timeout_ms;        /* zero: none. */
    uint32_t request_message_bytes;  /* never zero. */
    uint32_t response_message_bytes; /* never zero. */
    uint32_t upstream_tls;           /* 0 cleartext, 1 TLS, 2 mTLS with the node's certificate. */
    uint32_t upstream_max_age_ms;    /* of a connection; zero: none. */
    struct net_tls_terms upstream_terms; /* the versions. */
    struct slice upstream_sni;
    struct slice upstream_spiffe;
};

struct dp_endpoint {
    struct slice address; /* IP literal or host name. */
    uint16_t port;
    uint32_t weight;     /* above zero. */
    struct slice region; /* empty: nobody said, as of the zone. */
    struct slice zone;
};

/* Of the numbers of a part. */
enum dp_balance_policy {
    DP_BALANCE_ROUND_ROBIN,
    DP_BALANCE_LEAST_REQUEST,
    DP_BALANCE_PICK_FIRST,
    DP_BALANCE_RING_HASH,
    DP_BALANCE_RENDEZVOUS,
    DP_BALANCE_PEAK_EWMA,
};

struct dp_ring_point {
    uint64_t hash;
    uint32_t index; /* of the endpoint. */
};

/* Endpoints of a cluster that are equally near: those from 'first' on, and what picks among them
 * stand on: dataplane/apply/balance.h. Indexes are the cluster's. */
struct dp_level {
    size_t first;
    size_t count;                     /* never zero. */
    uint64_t weight_sum;              /* never above 32 bits. */
    uint64_t stride;                  /* from turn to turn; shares no factor with the sum. */
    const uint64_t *weight_ends;      /* sums of the weights up to each; NULL: all weigh 1. */
    const uint32_t *order;            /* pick first: endpoints, the first one first. */
    const uint64_t *hashes;           /* rendezvous: of each, from the level's first on. */
    const struct dp_ring_point *ring; /* ring hash: ascending. */
    size_t ring_size;
};

/* The node's zone, its region, the rest. */
enum { DP_LEVELS_MAX = 3 };

/* How a cluster's calls are spread. */
struct dp_balance {
    enum dp_balance_policy policy;
    struct slice hash_header;              /* empty: by the tenant, where the policy hashes. */
    uint32_t slow_start_ms;                /* zero: none. */
    uint32_t panic_percent;                /* zero: never. */
    struct dp_level levels[DP_LEVELS_MAX]; /* the nearest first. */
    size_t level_count;                    /* zero: there are no endpoints. */
};

struct dp_outlier_detection {
    uint32_t consecutive_failures; /* zero: nobody is ejected. */
    uint32_t statuses;             /* bits 1 << gRPC status. */
    uint32_t interval_ms;
    uint32_t base_ejection_ms;
    uint32_t max_ejection_ms;
    uint32_t max_ejection_percent;
    uint32_t success_rate_hosts; /* zero: rates are not judged. */
    uint32_t success_rate_requests;
    uint32_t success_rate_stdev_milli;
};

/* Of a node; zero: no such bound. */
struct dp_circuit_breakers {
    uint32_t requests;
    uint32_t pending;
    uint32_t connections; /* to one endpoint. */
};

enum dp_health_kind { DP_HEALTH_NONE, DP_HEALTH_GRPC, DP_HEALTH_HTTP, DP_HEALTH_TCP };

struct dp_health_check {
    enum dp_health_kind kind;
    struct slice service; /* gRPC; empty: the server. */
    struct slice path;    /* HTTP. */
    uint32_t interval_ms;
    uint32_t timeout_ms;
    uint32_t healthy; /* so many in a row. */
    uint32_t unhealthy;
};

struct dp_sla {
    uint32_t latency_ms; /* zero: latency changes nothing. */
    uint32_t percentile;
    uint32_t interval_ms;
    uint32_t requests;
};

/* How a method is tried more than once: gRPC A6. */
struct dp_method_policy {
    struct slice name;       /* "/package.Service/Method", or a glob. */
    bool idempotent;         /* else only calls with an idempotency-key are made again. */
    bool hedged;             /* the next attempt does not wait for the end of the one before. */
    uint32_t attempts;       /* in all; 2 to DP_ATTEMPTS_MAX. */
    uint32_t codes;          /* bits 1 << status: retryable ones, or of hedging those not fatal. */
    uint32_t try_timeout_ms; /* zero: none. */
    uint32_t backoff_ms;     /* of retries: never zero. */
    uint32_t backoff_max_ms;
    uint32_t multiplier;
    uint32_t delay_ms;   /* of hedging; zero: the percentile's. */
    uint32_t percentile; /* of hedging: 1 to 99. */
};

enum { DP_ATTEMPTS_MAX = 5 };

/* What trying more than once may cost: of one cluster, on one worker. */
struct dp_retry_budget {
    uint32_t max_tokens; /* gRPC A6: half of them or less, and nothing is made again. */
    uint32_t ratio_per_mille;
    uint32_t active_percent; /* further attempts at once, of the calls that are open. */
    uint32_t min_concurrent; /* so many are allowed at any rate. */
    uint32_t hedges_per_mille;
};

/* A service as something to call. */
struct dp_cluster {
    struct dp_target target;
    struct slice tenant;
    struct slice name;
    struct slice transport;              /* for dp_model_transport(). */
    const struct dp_endpoint *endpoints; /* the nearest first. */
    size_t endpoint_count;               /* may be zero: NO_HEALTHY_ENDPOINT. */
    const struct slice *grpc_services;   /* sorted. */
    size_t grpc_service_count;
    struct dp_balance balance;
    struct dp_outlier_detection outliers;
    struct dp_circuit_breakers breakers;
    struct dp_health_check health;
    struct dp_sla sla;
    uint8_t print[DIGEST_SHORT_SIZE]; /* of the part's bytes: two of one print are the same. */
    const struct dp_method_policy *methods; /* for dp_cluster_method(). */
    size_t method_count;
    struct dp_retry_budget retry_budget; /* where there are methods. */
};

struct dp_weighted {
    struct slice cluster; /* for dp_model_cluster(). */
    uint32_t weight;      /* above zero. */
};

/* Which pages may call through a browser, and what that is told. */
struct dp_cors {
    const struct slice *origins; /* sorted; with a star for one label or more. */
    size_t origin_count;
    bool any; /* "*" is one of them. */
    bool credentials;
    uint32_t max_age_s;         /* zero: the browser's own. */
    struct slice allow_headers; /* as the browser is told them. */
    struct slice expose_headers;
};

struct dp_route {
    struct slice id;
    const struct dp_weighted *targets; /* at least one. */
    size_t target_count;
    uint64_t weight_sum;
    struct slice transport; /* empty: the cluster's. */
    uint32_t timeout_ms;    /* zero: the transport's. */
    struct slice mirror;    /* for dp_model_cluster(); empty: none. */
    uint32_t mirror_per_mille;

    /* NULL: no page of another origin may call. */
    const struct dp_cors *cors;
};

/* A canonical type on the bus. */
struct dp_topic {
    struct dp_target target;
    struct slice type; /* "User.v2". */
    uint32_t major;
    struct slice full_name; /* "acme.users.v2.User". */
    struct slice stream;
    struct slice version;
    uint32_t payload_bytes; /* never zero. */
};

/* A file of descriptors that a service published. */
struct dp_descriptor_file {
    struct slice name;
    struct slice bytes;          /* google.protobuf.FileDescriptorProto. */
    const struct slice *imports; /* names of files beside it; sorted. */
    size_t import_count;
    const struct slice *symbols; /* full names of what it defines; sorted. */
    size_t symbol_count;
};

/* What a cluster's gRPC services are. */
struct dp_descriptors {
    struct slice cluster;                   /* for dp_model_cluster(). */
    const struct dp_descriptor_file *files; /* by name, ascending. */
    size_t file_count;
    const struct slice *methods; /* "/package.Service/Method"; sorted. */
    size_t method_count;
    const struct slice *streams; /* of these, those that stream either way; sorted. */
    size_t stream_count;
};

/* A group of destinations outside. */
struct dp_egress {
    struct dp_target target;
    struct slice tenant;
    struct slice transport; /* for dp_model_transport(). */
    const uint32_t *ports;  /* never none. */
    size_t port_count;
    const struct slice *methods; /* none: all but CONNECT. */
    size_t method_count;
    const struct slice *paths; /* none: all. */
    size_t path_count;
    const struct slice *address_ranges; /* CIDR: special ranges that are allowed. */
    size_t address_range_count;
    uint64_t response_bytes; /* zero: none. */
};

struct dp_environment {
    struct slice name;
    struct slice trust_domain;
    const struct slice *trust_domains; /* beside that one; sorted. */
    size_t trust_domain_count;
    const struct net_tls_bundle *bundles; /* CAs of trust domains; sorted by domain. */
    size_t bundle_count;
    uint8_t bundles_digest[DIGEST_SIZE]; /* of all of them; zero: there are none. */
    bool strict;
    bool tls_only;              /* callers' connections are under TLS, strict or not, */
    struct net_tls_terms terms; /* and this. */
    uint32_t partitions;        /* never zero. */
    uint64_t freshness_max_ms;  /* zero: none. */
    uint32_t queue_delay_ms;    /* above it a worker sheds load; zero: it never does. */
    struct dp_guardrails guardrails;
};

/* One reference more; and one less. NULL is allowed in dp_model_unref(). */
struct dp_model *dp_model_ref(struct dp_model *model);
void dp_model_unref(struct dp_model *model);

uint64_t dp_model_version(const struct dp_model *model);
const uint8_t *dp_model_content_digest(const struct dp_model *model); /* DIGEST_SIZE bytes. */
const struct dp_environment *dp_model_environment(const struct dp_model *model);

/* The caller of a SPIFFE id, and of a static token's BLAKE2b-256. */
const struct dp_caller *dp_model_caller_by_spiffe(const struct dp_model *model,
                                                  struct slice spiffe);
const struct dp_caller *dp_model_caller_by_token(const struct dp_model *model,
                                                 const uint8_t digest[DIGEST_SIZE]);

/* The issuer of tokens with this claim iss; and whether there is one at all. */
const struct dp_issuer *dp_model_issuer(const struct dp_model *model, struct slice issuer);
bool dp_model_has_issuers(const struct dp_model *model);

/* Calls for each issuer. */
typedef void dp_issuer_fn(void *ctx, const struct dp_issuer *issuer);
void dp_model_each_issuer(const struct dp_model *model, dp_issuer_fn *each, void *ctx);

/* A registered service as a caller, in the environment's own trust domain, by "acme/web". */
const struct dp_caller *dp_model_service(const struct dp_model *model, struct slice id);

/* Whether a token's subject, "<iss>#<sub>", was revoked. */
bool dp_model_subject_revoked(const struct dp_model *model, struct slice subject);

/* Whether a SPIFFE id, a certificate (by its serial, as struct net_identity has it) or a static
 * token was revoked. Where nothing was, each is one comparison. */
bool dp_model_spiffe_revoked(const struct dp_model *model, struct slice spiffe);
bool dp_model_serial_revoked(const struct dp_model *model, struct slice serial);
bool dp_model_token_revoked(const struct dp_model *model, const uint8_t digest[DIGEST_SIZE]);

/* Whether who a peer proved to be was revoked, by identity or certificate. NULL, nobody, was not.
 */
bool dp_model_peer_revoked(const struct dp_model *model, const struct net_identity *peer);

/* Whether SPIFFE ids of this trust domain are the environment's. */
bool dp_model_trusts_domain(const struct dp_model *model, struct slice domain);

/* Whether anything is revoked at all. */
bool dp_model_revokes(const struct dp_model *model);

/* What a request asks of the routes. */
struct dp_route_query {
    struct slice host;   /* lower case, without a port. */
    struct slice path;   /* normalised, begins with '/', without a query. */
    struct slice method; /* HTTP method. */
    struct slice tenant; /* of the caller; empty: none. */
    /* Finds a request header by its lower-case name; false when it is not there. */
    bool (*header)(const void *ctx, struct slice name, struct slice *out_value);
    const void *ctx;
    struct slice origin; /* not empty: which route lets its pages call; the rest is not asked. */
    bool ambient;        /* ... with what a reader's browser proves by itself, its certificate. */
};

/*
 * The route of most precise match: exact host, wildcard host, any host; exact path, longest prefix;
 * then tenant, method and headers as the compiler sorted them.
 */
const struct dp_route *dp_model_route(const struct dp_model *model,
                                      const struct dp_route_query *query);

/* Whether pages of this origin may call; 'ambient': with what a reader's browser proves by itself,
 * its certificate. NULL: they may not. */
bool dp_cors_allows(const struct dp_cors *cors, struct slice origin, bool ambient);

/*
 * What lets pages of this origin call host and path, as above: of the routes that fit both, whoever
 * their callers are, the most precise that does. NULL: none does.
 */
const struct dp_cors *dp_model_cors(const struct dp_model *model, struct slice host,
                                    struct slice path, struct slice origin, bool ambient);

/* The cluster by id "service/<tenant>/<name>". */
const struct dp_cluster *dp_model_cluster(const struct dp_model *model, struct slice id);

/* Whether it registers this full gRPC service name. */
bool dp_cluster_serves(const struct dp_cluster *cluster, struct slice grpc_service);

/* How a method of the cluster is tried more than once; NULL: it is not. */
const struct dp_method_policy *dp_cluster_method(const struct dp_cluster *cluster,
                                                 struct slice path);

/* The transport of that name; of an empty one, what holds where no TransportProfile is named: the
 * limits. Never NULL for a name that a part of the model has. */
const struct dp_transport *dp_model_transport(const struct dp_model *model, struct slice name);

/* What a target is judged by. NULL: no policy names it, so everything is denied; no limit. */
const struct dp_policy_target *dp_model_policy(const struct dp_model *model,
                                               const struct dp_target *target);
const struct dp_limit_target *dp_model_limits(const struct dp_model *model,
                                              const struct dp_target *target);

/* Whether some cluster registers this full gRPC service name; for grpc.health.v1. */
bool dp_model_has_grpc_service(const struct dp_model *model, struct slice name);

/* Calls 'visit' for each name that some cluster registers, in no particular order; its first
 * failure ends the walk. */
MUST_CHECK struct err dp_model_each_grpc_service(const struct dp_model *model,
                                                 struct err (*visit)(void *ctx, struct slice name),
                                                 void *ctx);

/* The descriptors that a cluster's service published; NULL: none. And those of all clusters, as
 * above. */
const struct dp_descriptors *dp_model_descriptors(const struct dp_model *model,
                                                  struct slice cluster);
MUST_CHECK struct err dp_model_each_descriptors(const struct dp_model *model,
                                                struct err (*visit)(void *ctx,
                                                                    const struct dp_descriptors *d),
                                                void *ctx);

/* Whether a cluster's descriptors say that the method of this path streams. */
bool dp_model_method_streams(const struct dp_model *model, const struct dp_cluster *cluster,
                             struct slice path);

/* The topic of "User.v2" or of the full protobuf name. */
const struct dp_topic *dp_model_topic(const struct dp_model *model, struct slice type);

/* The schema of a topic; never NULL. */
const struct schema *dp_model_schema(const struct dp_model *model, const struct dp_topic *topic);

/* Whether nobody publishes or reads it. */
bool dp_model_topic_blocked(const struct dp_model *model, const struct dp_topic *topic);

/*
 * The egress of a tenant that names this host (lower case), exact before the longest wildcard;
 * among several of one host the one that has the port.
 */
const struct dp_egress *dp_model_egress(const struct dp_model *model, struct slice tenant,
                                        struct slice host, uint16_t port);

/* Whether https destinations of some egress are verified against the system's CAs. */
bool dp_model_needs_system_trust(const struct dp_model *model);

/* Whether the tenant has a service in this snapshot; for /ready?tenant=. */
bool dp_model_has_tenant(const struct dp_model *model, struct slice tenant);
