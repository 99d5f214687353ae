/*
 * model: resources as typed values, checked, with the place that each came from.
 *
 * Shape      one struct a kind, filled by decode.c from the table of kinds.c. Numbers are uint64_t
 *            so that one table can write them all; lists are {items, count}.
 * Units      durations are milliseconds, sizes bytes, a rate the nanoseconds of one request;
 *            a quota as struct cp_rate_limit says.
 * Ownership  resources live in the leaves of their files (see leaf.h), the rest in the model's
 *            arena.
 * Threads    read-only once cp_source_load() has returned it.
 * Errors     a model of sources with errors holds what could be read, and says of what is faulty
 *            that it is: it is judged further, and never published.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/map.h"
#include "common/base/slice.h"
#include "controlplane/source/diag.h"

struct cp_leaf;
struct cp_source_cache;
struct cp_source_set;

enum cp_kind {
    CP_KIND_ENVIRONMENT,
    CP_KIND_SERVICE,
    CP_KIND_ROUTE,
    CP_KIND_POLICY,
    CP_KIND_RATE_LIMIT,
    CP_KIND_TRANSPORT_PROFILE,
    CP_KIND_EGRESS,
    CP_KIND_TOPIC,
    CP_KIND_REVOCATION,
    CP_KIND_ISSUER,
    CP_KIND_COUNT,
};

struct cp_text {
    struct slice text; /* empty: not given. */
    struct cp_pos at;  /* line 0: a default. */
};

struct cp_texts {
    struct cp_text *items;
    size_t count;
};

struct cp_pair {
    struct cp_text name;
    struct cp_text value;
};

struct cp_pairs {
    struct cp_pair *items; /* sorted by name. */
    size_t count;
};

/* What every resource begins with. */
struct cp_meta {
    enum cp_kind kind;
    struct cp_pos at;
    struct cp_text name;
    struct cp_text tenant; /* "-": the platform's. */
    struct cp_pairs labels;
    bool faulty;      /* something in it, or that it refers to, is wrong. */
    bool apart;       /* nothing can refer to it: its name could not be read, or another has it. */
    struct slice id;  /* "<tenant>/<name>". */
    struct slice key; /* by which others refer to it: the id; of a Topic "<Type>.v<major>". */
    struct cp_leaf *leaf; /* of its file. */
    uint32_t index;       /* in the leaf. */
    bool proven;          /* an earlier load of the same bytes had no fault at all. */
};

/*
 * What every struct of an object in a list, or with a place of its own, begins with. 'faulty':
 * something in it is wrong, so what it leaves out or says may be meant otherwise.
 */
struct cp_object {
    struct cp_pos at;
    bool faulty;
};

/* A reference to another resource. */
struct cp_ref {
    struct slice text; /* empty: not given. */
    struct cp_pos at;
    const struct cp_meta *to; /* NULL: not given, or there is none, which was said. */
    struct slice id;          /* of a kept leaf: id and key of what it led to last; see leaf.h. */
    struct slice key;
};

struct cp_trust_bundle {
    struct cp_pos at;
    bool faulty;
    struct cp_text trust_domain;
    struct cp_text ca; /* PEM. */
};

struct cp_trust_bundles {
    struct cp_trust_bundle *items;
    size_t count;
};

struct cp_environment {
    struct cp_meta meta;
    uint64_t security; /* 0 dev, 1 strict. */
    struct cp_text trust_domain;
    struct cp_texts trust_domains; /* beside that one. */
    struct cp_trust_bundles trust_bundles;
    struct cp_ref transport; /* whose 'listener' holds for callers' connections. */
    uint64_t partitions;
    uint64_t freshness_max_ms;   /* 0: none. */
    uint64_t queue_delay_ms;     /* 0: no load is shed. */
    uint64_t guard_miss_percent; /* 0: not looked at; so the next. */
    uint64_t guard_decision_us;
    uint64_t guard_hold_ms;
};

struct cp_locality {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_text region;
    struct cp_text zone; /* empty: not given. */
};

struct cp_endpoint {
    struct cp_pos at;
    bool faulty;
    struct cp_text address;
    uint64_t port;
    uint64_t weight;
    struct cp_locality locality;
};

struct cp_endpoints {
    struct cp_endpoint *items;
    size_t count;
};

/* By what a policy hashes: one of the two. */
struct cp_hash_by {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_text header;
    uint64_t tenant; /* 1: the caller's. */
};

enum cp_balance_policy {
    CP_BALANCE_ROUND_ROBIN,
    CP_BALANCE_LEAST_REQUEST,
    CP_BALANCE_PICK_FIRST,
    CP_BALANCE_RING_HASH,
    CP_BALANCE_RENDEZVOUS,
    CP_BALANCE_PEAK_EWMA,
};

struct cp_balance {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    uint64_t policy; /* a cp_balance_policy. */
    struct cp_hash_by hash_by;
    uint64_t slow_start_ms; /* 0: none. */
    uint64_t panic_percent; /* 0: never. */
};

struct cp_outlier_detection {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    uint64_t consecutive_failures;
    uint64_t statuses; /* bits 1 << (gRPC status - 1); 0: the usual ones. */
    uint64_t interval_ms;
    uint64_t base_ejection_ms;
    uint64_t max_ejection_ms;
    struct cp_pos max_ejection_at;
    uint64_t max_ejection_percent;
    uint64_t success_rate_hosts;
    uint64_t success_rate_requests;
    uint64_t success_rate_stdev_milli;
};

struct cp_circuit_breakers {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    uint64_t requests; /* 0: no such bound, as of the others. */
    uint64_t pending;
    uint64_t connections;
};

struct cp_health_grpc {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_text service; /* empty: the server as a whole. */
};

struct cp_health_http {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_text path;
};

/* Exactly one of the first three. */
struct cp_health_check {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_health_grpc grpc;
    struct cp_health_http http;
    uint64_t tcp; /* 1: it is asked for. */
    uint64_t interval_ms;
    uint64_t timeout_ms;
    uint64_t healthy_threshold;
    uint64_t unhealthy_threshold;
};

struct cp_sla {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    uint64_t latency_ms;
    uint64_t percentile;
    uint64_t interval_ms;
    uint64_t requests;
};

/* gRPC A6: the next attempt follows one that failed. */
struct cp_retry {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    uint64_t attempts;
    uint64_t try_timeout_ms; /* 0: none. */
    uint64_t backoff_ms;
    uint64_t backoff_max_ms; /* 0: ten times that. */
    struct cp_pos backoff_max_at;
    uint64_t multiplier;
    uint64_t codes; /* bits 1 << (status - 1); 0: UNAVAILABLE. */
};

/* gRPC A6: the next attempt does not wait for the end of the one before. */
struct cp_hedging {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    uint64_t attempts;
    uint64_t delay_ms; /* 0: by percentile. */
    uint64_t percentile;
    uint64_t codes; /* bits 1 << (status - 1) of those that are not fatal. */
};

struct cp_method {
    struct cp_pos at;
    bool faulty;
    struct cp_texts names; /* globs. */
    uint64_t idempotent;
    struct cp_retry retry; /* this, or 'hedging'. */
    struct cp_hedging hedging;
};

struct cp_methods {
    struct cp_method *items;
    size_t count;
};

/* What further attempts may cost, in all. */
struct cp_retry_budget {
    uint64_t max_tokens;
    uint64_t ratio_per_mille;
    uint64_t active_percent;
    uint64_t min_concurrent;
    uint64_t hedges_per_mille;
};

struct cp_service {
    struct cp_meta meta;
    struct cp_pairs traits;
    struct cp_texts grpc_services;
    struct cp_endpoints endpoints;
    struct cp_ref transport;
    struct cp_texts tokens; /* "blake2b:<64 hex>". */
    struct cp_balance balance;
    struct cp_outlier_detection outlier_detection;
    struct cp_circuit_breakers circuit_breakers;
    struct cp_health_check health_check;
    struct cp_sla sla;
    struct cp_methods methods;
    struct cp_retry_budget retry_budget;
    struct cp_text descriptor_file;
    struct cp_text descriptor_inline; /* base64. */
    struct slice descriptor_set;      /* its bytes, from either; ptr NULL: none is given. */
};

struct cp_header_match {
    struct cp_pos at;
    bool faulty;
    struct cp_text name;
    struct cp_text value;
    uint64_t present; /* 1: value is not looked at. */
};

struct cp_header_matches {
    struct cp_header_match *items;
    size_t count;
};

struct cp_path_match {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_text exact;
    struct cp_text prefix;
};

struct cp_grpc_match {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_text service;
    struct cp_text method;
};

struct cp_route_match {
    struct cp_pos at;
    bool faulty;
    struct cp_path_match path;
    struct cp_grpc_match grpc;
    struct cp_texts tenants;
    struct cp_text method;
    struct cp_header_matches headers;
};

struct cp_route_matches {
    struct cp_route_match *items;
    size_t count;
};

struct cp_weighted {
    struct cp_pos at;
    bool faulty;
    struct cp_ref service;
    uint64_t weight;
};

struct cp_weighteds {
    struct cp_weighted *items;
    size_t count;
};

/* Where copies of requests go. */
struct cp_mirror {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_ref service;
    uint64_t per_mille;
};

/* Which pages may call through a browser. */
struct cp_cors {
    struct cp_pos at; /* line 0: not given. */
    bool faulty;
    struct cp_texts origins;
    struct cp_texts allow_headers;
    struct cp_texts expose_headers;
    uint64_t credentials;
    struct cp_pos credentials_at;
    uint64_t max_age_ms; /* 0: the browser's own. */
};

struct cp_route {
    struct cp_meta meta;
    struct cp_texts hosts;
    struct cp_route_matches match;
    struct cp_weighteds targets;
    struct cp_ref transport;
    uint64_t timeout_ms; /* 0: the profile's. */
    struct cp_mirror mirror;
    struct cp_cors cors;
};

/* What a policy or a limit is about: exactly one of the three. That of a policy may be a glob. */
struct cp_target {
    struct cp_pos at;
    bool faulty;
    struct cp_ref service;
    struct cp_ref topic;
    struct cp_ref egress;
};

struct cp_caller {
    struct cp_pos at;
    bool faulty;
    struct cp_ref service;
    struct cp_text tenant;
    struct cp_text trust_domain;
    struct cp_text id; /* a glob of "<tenant>/<service>". */
    struct cp_pairs traits;
};

struct cp_callers {
    struct cp_caller *items;
    size_t count;
};

enum cp_verb { CP_VERB_CALL, CP_VERB_PUBLISH, CP_VERB_SUBSCRIBE, CP_VERB_FETCH, CP_VERB_COUNT };
enum cp_lane { CP_LANE_OPERATOR, CP_LANE_CANONICAL, CP_LANE_PROXY, CP_LANE_COUNT };

struct cp_window {
    struct cp_pos at;
    bool faulty;
    uint64_t days; /* bits from Monday; 0: all. */
    struct cp_text from;
    struct cp_text to;     /* not later than 'from': on the next day. */
    struct cp_text offset; /* from UTC; empty: none. */
};

enum { CP_WINDOWS_MAX = 16 }; /* of a rule. */

struct cp_windows {
    struct cp_window *items;
    size_t count;
};

struct cp_rule {
    struct cp_pos at;
    bool faulty;
    struct cp_text name;
    uint64_t effect;        /* 0 allow, 1 deny. */
    uint64_t verbs;         /* bits 1 << cp_verb; 0: all. */
    struct cp_pos verbs_at; /* line 0: not given; so the others. */
    uint64_t lanes;         /* bits 1 << cp_lane; 0: all. */
    struct cp_pos lanes_at;
    struct cp_callers callers;        /* one of them; none: any. */
    struct cp_texts methods;          /* globs, one of them; none: any. */
    struct cp_header_matches headers; /* all of them. */
    struct cp_text condition;         /* cel.h; empty: none. */
    struct cp_windows windows;        /* one of them; none: always. */
    struct cp_text not_before;
    struct cp_text not_after;
    uint64_t shadow; /* 1: it decides nothing, what it would decide is told. */
};

struct cp_rules {
    struct cp_rule *items;
    size_t count;
};

struct cp_policy {
    struct cp_meta meta;
    struct cp_target target;
    struct cp_rules rules;
};

enum cp_by { CP_BY_CALLER, CP_BY_TENANT, CP_BY_METHOD, CP_BY_SERVICE };

enum cp_quota_unit { CP_QUOTA_NONE, CP_QUOTA_HOUR, CP_QUOTA_DAY, CP_QUOTA_MONTH };

/* A quota is one number in the table of kinds: its window, and its count below that. */
enum { CP_QUOTA_BITS = 44 };
#define CP_QUOTA_MAX UINT64_C(1000000000000)

/* Exactly one of rate, quota and concurrency. */
struct cp_rate_limit {
    struct cp_meta meta;
    struct cp_target target;
    struct cp_texts methods;
    uint64_t by; /* bits 1 << cp_by. */
    struct cp_texts by_headers;
    uint64_t period_ns; /* 0: no rate. */
    uint64_t burst;     /* 0: what the rate gives in a second, at least 1. */
    struct cp_pos burst_at;
    uint64_t quota;       /* 0: none; see CP_QUOTA_BITS. */
    uint64_t concurrency; /* 0: none. */
    struct cp_pos concurrency_at;
    uint64_t on_unknown; /* 0 auto, 1 closed, 2 open, 3 local. */
    struct cp_pos on_unknown_at;
    uint64_t scope; /* 0 node, 1 global. */
    struct cp_pos scope_at;
};

struct cp_transport_profile {
    struct cp_meta meta;
    uint64_t timeout_ms;
    struct cp_pos timeout_at; /* line 0: not given; so the others. */
    uint64_t timeout_max_ms;
    struct cp_pos timeout_max_at;
    uint64_t connect_timeout_ms;
    struct cp_pos connect_timeout_at;
    uint64_t idle_timeout_ms;
    uint64_t request_message_bytes;
    uint64_t response_message_bytes;
    uint64_t upstream_tls;     /* 0 none, 1 tls, 2 mtls. */
    uint64_t upstream_tls_min; /* 0 TLSv1.2, 1 TLSv1.3. */
    struct cp_pos upstream_tls_min_at;
    uint64_t upstream_tls_max; /* 0 TLSv1.3, 1 TLSv1.2. */
    struct cp_pos upstream_tls_max_at;
    uint64_t listener_tls; /* 0 any, 1 tls, 2 mtls. */
    struct cp_pos listener_tls_at;
    uint64_t listener_tls_min; /* as of the upstream. */
    struct cp_pos listener_tls_min_at;
    uint64_t listener_tls_max;
    struct cp_pos listener_tls_max_at;
    struct cp_text upstream_server_name;
    struct cp_text upstream_spiffe;
    uint64_t upstream_max_age_ms; /* 0: the node's. */
};

struct cp_egress {
    struct cp_meta meta;
    struct cp_texts hosts;
    struct cp_texts ports; /* decimal. */
    struct cp_texts methods;
    struct cp_texts paths;
    struct cp_texts address_ranges;
    struct cp_ref transport;
    uint64_t response_bytes;
};

struct cp_topic {
    struct cp_meta meta;
    struct cp_text type;
    uint64_t major;
    struct cp_text version;
    struct cp_text message;
    struct cp_text descriptor_file;
    struct cp_text descriptor_inline; /* base64. */
    struct slice descriptor_set;      /* its bytes, from either. */
    uint64_t payload_bytes;
};

struct cp_revocation {
    struct cp_meta meta;
    struct cp_texts identities;   /* SPIFFE ids. */
    struct cp_texts certificates; /* serials in hex, as they were written. */
    struct cp_texts tokens;       /* "blake2b:<64 hex>". */
    struct cp_texts subjects;     /* "<issuer>#<subject>". */
    struct cp_texts types;        /* "Greeting.v1". */
    struct cp_text reason;
    uint64_t removed_until_ms; /* of its certificates; 0: they are of no removed node. */
};

struct cp_claim_value {
    struct cp_pos at;
    bool faulty;
    struct cp_text claim;
    struct cp_text value;
};

struct cp_claim_values {
    struct cp_claim_value *items;
    size_t count;
};

/* A way from a token to a tenant: exactly one of 'tenant' and 'claim'. */
struct cp_issuer_tenant {
    struct cp_pos at;
    bool faulty;
    struct cp_claim_values when; /* all of them; none: always. */
    struct cp_text tenant;
    struct cp_text claim;
};

struct cp_issuer_tenants {
    struct cp_issuer_tenant *items;
    size_t count;
};

struct cp_issuer {
    struct cp_meta meta;
    struct cp_text issuer;
    struct cp_texts audiences;
    uint64_t algorithms; /* bits, in the order of JOSE_ALG_LIST, from 0. */
    struct cp_text jwks_uri;
    uint64_t jwks_discovery; /* 1: the issuer's document says where its keys are. */
    struct cp_text jwks_ca;
    struct cp_text jwks_file;
    struct cp_text jwks_inline;
    struct slice jwks; /* the key set's bytes, from either; empty: they are read by nodes. */
    uint64_t refresh_ms;
    uint64_t max_stale_ms; /* 0: none. */
    struct cp_pos max_stale_at;
    uint64_t leeway_ms;
    struct cp_issuer_tenants tenants;
    struct cp_text subject;
    struct cp_text service;
    struct cp_pairs traits; /* name to claim. */
    struct cp_text trust_domain;
};

struct cp_resources {
    struct cp_meta **items; /* sorted by id. */
    size_t count;
};

struct cp_model {
    const struct cp_source_set *set;
    struct arena arena;
    struct cp_leaf **leaves; /* owned; of those that are kept, the cache's. */
    size_t leaf_count;
    size_t leaf_capacity;
    struct cp_source_cache *cache; /* NULL: none. */
    struct cp_resources of[CP_KIND_COUNT];
    struct map keys[CP_KIND_COUNT]; /* key of a resource to it. */
};
