/* kinds: the rows. See kinds.h. To add a field: a member in model.h, and a row here. */
#include "controlplane/source/kinds.h"

#include "common/base/check.h"
#include "controlplane/source/kinds_impl.h"

static const struct cp_form_row form_rows[CP_FORM_COUNT] = {
#define X(name, longest, pattern, text) [CP_FORM_##name] = {longest, pattern, text},
    CP_FORM_LIST(X)
#undef X
};

/* ---- metadata ---- */

static const struct cp_field metadata_fields[] = {
    {.name = "name",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_NAME,
     .required = true,
     .offset = offsetof(struct cp_meta, name),
     .help = "Unique among resources of its kind and tenant."},
    {.name = "tenant",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_NAME,
     .offset = offsetof(struct cp_meta, tenant),
     .help = "The tenant that owns it. Without one it is the platform's."},
    {.name = "labels",
     .type = CP_TYPE_PAIRS,
     .form = CP_FORM_VALUE,
     .max = 64,
     .offset = offsetof(struct cp_meta, labels),
     .help = "Notes for people and tools; no part of a snapshot."},
};
static const struct cp_shape metadata = {SHAPE(metadata_fields, struct cp_meta)};

/* ---- Environment ---- */

static const struct cp_field bus_fields[] = {
    {.name = "partitions",
     .type = CP_TYPE_COUNT,
     .dflt = "16",
     .min = 1,
     .max = 1024,
     .offset = offsetof(struct cp_environment, partitions),
     .help =
         "Partitions of the event stream. Order by key holds within one; changing it moves keys."},
};
static const struct cp_shape bus_shape = {SHAPE(bus_fields, struct cp_environment)};

static const struct cp_field overload_fields[] = {
    {.name = "queueDelay",
     .type = CP_TYPE_DURATION,
     .min = 1,
     .max = 10000,
     .offset = offsetof(struct cp_environment, queue_delay_ms),
     .help = "While requests wait longer than this at a worker of a node for 100 ms on end, a "
             "growing share of new ones is refused as OVERLOADED. Health and admin are not. "
             "Without it: none is."},
};
static const struct cp_shape overload_shape = {SHAPE(overload_fields, struct cp_environment)};

static const struct cp_field guard_fields[] = {
    {.name = "missPercent",
     .type = CP_TYPE_COUNT,
     .min = 1,
     .max = 99,
     .offset = offsetof(struct cp_environment, guard_miss_percent),
     .help = "Thrown when more of a second's decisions than that missed the cache."},
    {.name = "decisionMicros",
     .type = CP_TYPE_COUNT,
     .min = 1,
     .max = 1000000,
     .offset = offsetof(struct cp_environment, guard_decision_us),
     .help = "Thrown when a second's decisions took longer on the average, in microseconds."},
    {.name = "hold",
     .type = CP_TYPE_DURATION,
     .dflt = "30s",
     .min = 1000,
     .max = 3600000,
     .offset = offsetof(struct cp_environment, guard_hold_ms),
     .help = "How long it stays thrown; then the rules decide again."},
};
static const struct cp_shape guard_shape = {SHAPE(guard_fields, struct cp_environment),
                                            .required = "missPercent|decisionMicros"};

static const struct cp_field guardrail_fields[] = {
    {.name = "overload",
     .type = CP_TYPE_OBJECT,
     .shape = &overload_shape,
     .flat = true,
     .help = "When a node has more to do than it can."},
    {.name = "policy",
     .type = CP_TYPE_OBJECT,
     .shape = &guard_shape,
     .flat = true,
     .help =
         "The kill switch of policy decisions: while it is thrown a worker decides what its cache "
         "does not have by a subset of the policy, which may deny more and never allows more. "
         "Without it: off."},
};
static const struct cp_shape guardrail_shape = {SHAPE(guardrail_fields, struct cp_environment)};

static const struct cp_field trust_bundle_fields[] = {
    {.name = "trustDomain",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_DOMAIN,
     .required = true,
     .offset = offsetof(struct cp_trust_bundle, trust_domain),
     .help = "trustDomain, or one of trustDomains."},
    {.name = "ca",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PEM,
     .required = true,
     .offset = offsetof(struct cp_trust_bundle, ca),
     .help = "Its CAs."},
};
static const struct cp_shape trust_bundle_shape = {
    SHAPE(trust_bundle_fields, struct cp_trust_bundle)};

static const struct cp_field environment_fields[] = {
    {.name = "security",
     .type = CP_TYPE_CHOICE,
     .choices = "dev|strict",
     .dflt = "strict",
     .offset = offsetof(struct cp_environment, security),
     .help = "strict: nodes close the ports that take cleartext. dev: they stay open."},
    {.name = "trustDomain",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_DOMAIN,
     .required = true,
     .offset = offsetof(struct cp_environment, trust_domain),
     .help = "Trust domain of the services' SPIFFE ids."},
    {.name = "trustDomains",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_DOMAIN,
     .min = 1,
     .max = 7,
     .offset = offsetof(struct cp_environment, trust_domains),
     .help = "Further trust domains in which a service has the same name: for moving from one to "
             "another. When one goes, the connections of those who proved it end."},
    {.name = "trustBundles",
     .type = CP_TYPE_OBJECTS,
     .shape = &trust_bundle_shape,
     .min = 1,
     .max = 8,
     .offset = offsetof(struct cp_environment, trust_bundles),
     .help = "CAs of trust domains. A SPIFFE id of a domain that is here is taken only from a "
             "certificate of its CAs, and they vouch for nothing else; other domains, and names "
             "of servers, are vouched for by the CAs of each node's own file."},
    {.name = "bus",
     .type = CP_TYPE_OBJECT,
     .shape = &bus_shape,
     .flat = true,
     .help = "The event bus."},
    {.name = "transport",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_TRANSPORT_PROFILE,
     .offset = offsetof(struct cp_environment, transport),
     .help = "The platform's profile whose listener says what connections of callers to the ports "
             "of all lanes must be. Open ones that are not end after the swap."},
    {.name = "freshnessMax",
     .type = CP_TYPE_DURATION,
     .min = 1000,
     .max = 30ULL * 24 * 3600 * 1000,
     .offset = offsetof(struct cp_environment, freshness_max_ms),
     .help = "A node whose content is older than this denies what policies decide. Without it the "
             "last good snapshot serves at any age."},
    {.name = "guardrails",
     .type = CP_TYPE_OBJECT,
     .shape = &guardrail_shape,
     .flat = true,
     .help = "What keeps the nodes themselves safe."},
};

/* ---- Route ---- */

static const struct cp_field header_fields[] = {
    {.name = "name",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_HEADER,
     .required = true,
     .offset = offsetof(struct cp_header_match, name),
     .help = "The header."},
    {.name = "value",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_HEADER_VALUE,
     .offset = offsetof(struct cp_header_match, value),
     .help = "Its exact value."},
    {.name = "present",
     .type = CP_TYPE_BOOL,
     .min = 1,
     .offset = offsetof(struct cp_header_match, present),
     .help = "true: it is there, with any value."},
};
static const struct cp_shape header_shape = {SHAPE(header_fields, struct cp_header_match),
                                             .one_of = "value|present"};

static const struct cp_field path_fields[] = {
    {.name = "exact",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PATH,
     .offset = offsetof(struct cp_path_match, exact),
     .help = "The whole path."},
    {.name = "prefix",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PATH,
     .offset = offsetof(struct cp_path_match, prefix),
     .help = "Whole segments at its front: /v1 fits /v1 and /v1/x, not /v12."},
};
static const struct cp_shape path_shape = {SHAPE(path_fields, struct cp_path_match),
                                           .one_of = "exact|prefix"};

static const struct cp_field grpc_fields[] = {
    {.name = "service",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PROTO_NAME,
     .required = true,
     .offset = offsetof(struct cp_grpc_match, service),
     .help = "Full name of the gRPC service."},
    {.name = "method",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PROTO_WORD,
     .offset = offsetof(struct cp_grpc_match, method),
     .help = "Name of the method. Without it: all."},
};
static const struct cp_shape grpc_shape = {SHAPE(grpc_fields, struct cp_grpc_match)};

static const struct cp_field match_fields[] = {
    {.name = "path",
     .type = CP_TYPE_OBJECT,
     .shape = &path_shape,
     .offset = offsetof(struct cp_route_match, path),
     .help = "The request's path."},
    {.name = "grpc",
     .type = CP_TYPE_OBJECT,
     .shape = &grpc_shape,
     .offset = offsetof(struct cp_route_match, grpc),
     .help = "The gRPC service and method: a path written another way."},
    {.name = "tenants",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_NAME,
     .tenant = true,
     .max = 1000,
     .offset = offsetof(struct cp_route_match, tenants),
     .help = "Tenants of callers. None: any."},
    {.name = "method",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_HTTP_METHOD,
     .offset = offsetof(struct cp_route_match, method),
     .help = "HTTP method. Without it: any."},
    {.name = "headers",
     .type = CP_TYPE_OBJECTS,
     .shape = &header_shape,
     .max = 16,
     .offset = offsetof(struct cp_route_match, headers),
     .help = "Headers that must all fit."},
};
static const struct cp_shape match_shape = {SHAPE(match_fields, struct cp_route_match),
                                            .at_most = "path|grpc"};

static const struct cp_field weighted_fields[] = {
    {.name = "service",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_SERVICE,
     .required = true,
     .foreign = true,
     .offset = offsetof(struct cp_weighted, service),
     .help = "The service that answers."},
    {.name = "weight",
     .type = CP_TYPE_COUNT,
     .dflt = "1",
     .min = 1,
     .max = 1000000,
     .offset = offsetof(struct cp_weighted, weight),
     .help = "Share of the calls, relative to the other targets."},
};
static const struct cp_shape weighted_shape = {SHAPE(weighted_fields, struct cp_weighted)};

static const struct cp_field mirror_fields[] = {
    {.name = "service",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_SERVICE,
     .required = true,
     .offset = offsetof(struct cp_mirror, service),
     .help = "The shadow. Its Policy must allow the caller, too."},
    {.name = "perMille",
     .type = CP_TYPE_COUNT,
     .dflt = "1000",
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_mirror, per_mille),
     .help = "Of 1000 requests so many are copied."},
};
static const struct cp_shape mirror_shape = {SHAPE(mirror_fields, struct cp_mirror)};

static const struct cp_field cors_fields[] = {
    {.name = "allowOrigins",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_ORIGIN,
     .required = true,
     .min = 1,
     .max = 64,
     .offset = offsetof(struct cp_cors, origins),
     .help = "Origins of the pages. https://*.example.com is every host below, * any page."},
    {.name = "allowHeaders",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_HEADER,
     .max = 64,
     .offset = offsetof(struct cp_cors, allow_headers),
     .help = "Request headers, beside those that gRPC-Web and a bearer token need."},
    {.name = "exposeHeaders",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_HEADER,
     .max = 64,
     .offset = offsetof(struct cp_cors, expose_headers),
     .help = "Headers of answers that the page may read, beside the status of the call."},
    {.name = "allowCredentials",
     .type = CP_TYPE_BOOL,
     .offset = offsetof(struct cp_cors, credentials),
     .place = offsetof(struct cp_cors, credentials_at),
     .help = "true: the browser may send cookies and certificates along. Not with the origin *. A "
             "bearer token needs none."},
    {.name = "maxAge",
     .type = CP_TYPE_DURATION,
     .min = 1000,
     .max = 24ULL * 3600 * 1000,
     .offset = offsetof(struct cp_cors, max_age_ms),
     .help = "How long the browser need not ask again. Without it: the browser's own 5 s."},
};
static const struct cp_shape cors_shape = {SHAPE(cors_fields, struct cp_cors)};

static const struct cp_field route_fields[] = {
    {.name = "hosts",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_HOST_ANY,
     .dflt = "*",
     .min = 1,
     .max = 256,
     .offset = offsetof(struct cp_route, hosts),
     .help = "Hosts of requests (:authority without port)."},
    {.name = "match",
     .type = CP_TYPE_OBJECTS,
     .shape = &match_shape,
     .required = true,
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_route, match),
     .help = "A request takes the route when one of these fits. {} fits any request."},
    {.name = "targets",
     .type = CP_TYPE_OBJECTS,
     .shape = &weighted_shape,
     .required = true,
     .min = 1,
     .max = 64,
     .offset = offsetof(struct cp_route, targets),
     .help = "Who answers."},
    {.name = "transport",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_TRANSPORT_PROFILE,
     .offset = offsetof(struct cp_route, transport),
     .help = "How the calls are made. Without it: as the service says."},
    {.name = "timeout",
     .type = CP_TYPE_DURATION,
     .min = 1,
     .max = 3600000,
     .offset = offsetof(struct cp_route, timeout_ms),
     .help = "Deadline of a call that brings none. Without it: the profile's."},
    {.name = "mirror",
     .type = CP_TYPE_OBJECT,
     .shape = &mirror_shape,
     .offset = offsetof(struct cp_route, mirror),
     .help = "Copies requests to a second service; its answers are compared and dropped."},
    {.name = "cors",
     .type = CP_TYPE_OBJECT,
     .shape = &cors_shape,
     .offset = offsetof(struct cp_route, cors),
     .help = "Pages of other origins that may call through a browser: gRPC-Web and WebSocket. "
             "Without it: none."},
};

/* ---- Policy ---- */

static const struct cp_field target_fields[] = {
    {.name = "service",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_SERVICE,
     .offset = offsetof(struct cp_target, service),
     .help = "Calls to this service."},
    {.name = "topic",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_TOPIC,
     .offset = offsetof(struct cp_target, topic),
     .help = "Events of this type: Greeting.v1."},
    {.name = "egress",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_EGRESS,
     .offset = offsetof(struct cp_target, egress),
     .help = "Fetches through this Egress."},
};
static const struct cp_shape target_shape = {SHAPE(target_fields, struct cp_target),
                                             .one_of = "service|topic|egress"};

static const struct cp_field protected_fields[] = {
    {.name = "service",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_SERVICE,
     .globs = true,
     .offset = offsetof(struct cp_target, service),
     .help = "Calls to this service, or to each that fits a glob: \"orders-*\", \"acme/*\", "
             "\"*\"; quoted, since YAML reads a bare * as an alias."},
    {.name = "topic",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_TOPIC,
     .globs = true,
     .offset = offsetof(struct cp_target, topic),
     .help = "Events of this type, or of each that fits a glob: Greeting.v1, \"Greeting.*\"."},
    {.name = "egress",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_EGRESS,
     .globs = true,
     .offset = offsetof(struct cp_target, egress),
     .help = "Fetches through this Egress, or through each that fits a glob."},
};
static const struct cp_shape protected_shape = {SHAPE(protected_fields, struct cp_target),
                                                .one_of = "service|topic|egress"};

static const struct cp_field caller_fields[] = {
    {.name = "service",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_SERVICE,
     .foreign = true,
     .offset = offsetof(struct cp_caller, service),
     .help = "The calling service."},
    {.name = "tenant",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_NAME,
     .tenant = true,
     .offset = offsetof(struct cp_caller, tenant),
     .help = "Tenant of the caller."},
    {.name = "trustDomain",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_DOMAIN,
     .offset = offsetof(struct cp_caller, trust_domain),
     .help = "Trust domain of the caller."},
    {.name = "id",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_GLOB,
     .offset = offsetof(struct cp_caller, id),
     .help = "Glob of the caller's tenant/service: acme/web-*."},
    {.name = "traits",
     .type = CP_TYPE_PAIRS,
     .form = CP_FORM_VALUE,
     .min = 1, /* none would be everybody. */
     .max = 16,
     .offset = offsetof(struct cp_caller, traits),
     .help = "Traits that the caller must all have."},
};
static const struct cp_shape caller_shape = {SHAPE(caller_fields, struct cp_caller),
                                             .required = "service|tenant|trustDomain|id|traits"};

static const struct cp_field window_fields[] = {
    {.name = "days",
     .type = CP_TYPE_FLAGS,
     .choices = "mon|tue|wed|thu|fri|sat|sun",
     .min = 1,
     .offset = offsetof(struct cp_window, days),
     .help = "Days on which it begins. Without it: every day."},
    {.name = "from",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLOCK,
     .required = true,
     .offset = offsetof(struct cp_window, from),
     .help = "When it begins."},
    {.name = "to",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CLOCK,
     .required = true,
     .offset = offsetof(struct cp_window, to),
     .help = "When it has ended: on the next day when that is not later than from."},
    {.name = "offset",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_OFFSET,
     .offset = offsetof(struct cp_window, offset),
     .help =
         "Of these times from UTC. Without it: none. Zones with a summer time need two rules with "
         "notBefore and notAfter: nodes have no database of zones."},
};
static const struct cp_shape window_shape = {SHAPE(window_fields, struct cp_window)};

static const struct cp_field rule_fields[] = {
    {.name = "name",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_NAME,
     .required = true,
     .offset = offsetof(struct cp_rule, name),
     .help = "Unique in its policy: a denial names tenant/policy/rule."},
    {.name = "effect",
     .type = CP_TYPE_CHOICE,
     .choices = "allow|deny",
     .required = true,
     .offset = offsetof(struct cp_rule, effect),
     .help = "deny wins over allow, in whichever policy it stands."},
    {.name = "verbs",
     .type = CP_TYPE_FLAGS,
     .choices = "call|publish|subscribe|fetch",
     .min = 1,
     .offset = offsetof(struct cp_rule, verbs),
     .place = offsetof(struct cp_rule, verbs_at),
     .help = "What is done. Without it: anything."},
    {.name = "callers",
     .type = CP_TYPE_OBJECTS,
     .shape = &caller_shape,
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_rule, callers),
     .help = "Who does it: one of these. Without it: anyone."},
    {.name = "methods",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_GLOB,
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_rule, methods),
     .help = "gRPC: /package.Service/Method; fetch: the HTTP method; bus: the type. One of these. "
             "Without it: any."},
    {.name = "lanes",
     .type = CP_TYPE_FLAGS,
     .choices = "operator|canonical|proxy",
     .min = 1,
     .offset = offsetof(struct cp_rule, lanes),
     .place = offsetof(struct cp_rule, lanes_at),
     .help = "Lanes of the request. Without it: any."},
    {.name = "headers",
     .type = CP_TYPE_OBJECTS,
     .shape = &header_shape,
     .min = 1,
     .max = 16,
     .offset = offsetof(struct cp_rule, headers),
     .help = "Headers of the request that must all fit."},
    {.name = "condition",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_CONDITION,
     .offset = offsetof(struct cp_rule, condition),
     .help = "What must hold besides, in a subset of CEL: docs/policy.md. An error in it does not "
             "allow, and does deny."},
    {.name = "windows",
     .type = CP_TYPE_OBJECTS,
     .shape = &window_shape,
     .min = 1,
     .max = CP_WINDOWS_MAX,
     .offset = offsetof(struct cp_rule, windows),
     .help = "When it holds, by the node's clock: in one of these. Without it: always."},
    {.name = "notBefore",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_INSTANT,
     .offset = offsetof(struct cp_rule, not_before),
     .help = "It holds from then on."},
    {.name = "notAfter",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_INSTANT,
     .offset = offsetof(struct cp_rule, not_after),
     .help = "It holds until before then."},
    {.name = "shadow",
     .type = CP_TYPE_BOOL,
     .offset = offsetof(struct cp_rule, shadow),
     .help = "It decides nothing: where it would, access log and metrics say so."},
};
static const struct cp_shape rule_shape = {SHAPE(rule_fields, struct cp_rule)};

static const struct cp_field policy_fields[] = {
    {.name = "target",
     .type = CP_TYPE_OBJECT,
     .shape = &protected_shape,
     .required = true,
     .offset = offsetof(struct cp_policy, target),
     .help = "What the rules protect. A tenant's policy protects what is the tenant's; on a Topic "
             "of the platform it speaks of the tenant's own callers alone. A glob without a "
             "slash is of names of the policy's own tenant, and in a policy of the platform of all "
             "tenants'."},
    {.name = "rules",
     .type = CP_TYPE_OBJECTS,
     .shape = &rule_shape,
     .required = true,
     .min = 1,
     .max = 100000,
     .offset = offsetof(struct cp_policy, rules),
     .help = "In any order: deny wins, and what no rule allows is denied."},
};

/* ---- RateLimit ---- */

static const struct cp_field rate_limit_fields[] = {
    {.name = "target",
     .type = CP_TYPE_OBJECT,
     .shape = &target_shape,
     .required = true,
     .offset = offsetof(struct cp_rate_limit, target),
     .help = "What is limited."},
    {.name = "methods",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_GLOB,
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_rate_limit, methods),
     .help = "As in a Policy. Without it: all."},
    {.name = "by",
     .type = CP_TYPE_FLAGS,
     .choices = "caller|tenant|method|service",
     .min = 1,
     .offset = offsetof(struct cp_rate_limit, by),
     .help = "Each combination of these has a budget of its own; service: the gRPC service that is "
             "called. Without it: one for all."},
    {.name = "byHeaders",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_HEADER,
     .min = 1,
     .max = 4,
     .offset = offsetof(struct cp_rate_limit, by_headers),
     .help = "Headers whose values count like what is listed in by; their first 256 bytes do. "
             "Callers make them up: what holds for a caller needs a limit by caller beside it."},
    {.name = "onUnknown",
     .type = CP_TYPE_CHOICE,
     .choices = "auto|closed|open|local",
     .dflt = "auto",
     .offset = offsetof(struct cp_rate_limit, on_unknown),
     .place = offsetof(struct cp_rate_limit, on_unknown_at),
     .help = "A request without one of byHeaders, or at a node without a share of a global limit. "
             "closed: refused; open: passes, uncounted; local: all such requests have one budget, "
             "or the node has an equal part; auto: local for subscriptions and GET, HEAD and "
             "OPTIONS, else closed."},
    {.name = "rate",
     .type = CP_TYPE_RATE,
     .offset = offsetof(struct cp_rate_limit, period_ns),
     .help = "Requests in a time, steady."},
    {.name = "burst",
     .type = CP_TYPE_COUNT,
     .min = 1,
     .max = 1000000,
     .offset = offsetof(struct cp_rate_limit, burst),
     .place = offsetof(struct cp_rate_limit, burst_at),
     .help = "Requests at once, of a rate. Without it: what the rate gives in a second, at least "
             "1."},
    {.name = "scope",
     .type = CP_TYPE_CHOICE,
     .choices = "node|global",
     .dflt = "node",
     .offset = offsetof(struct cp_rate_limit, scope),
     .place = offsetof(struct cp_rate_limit, scope_at),
     .help =
         "node: each node has the whole of it. global, of a rate alone: all nodes together have "
         "it, each a part by what it is asked for, of each key by itself."},
    {.name = "quota",
     .type = CP_TYPE_QUOTA,
     .offset = offsetof(struct cp_rate_limit, quota),
     .help =
         "Requests of each hour, day or month of the calendar, in UTC, on each node. It "
         "survives restarts; after a crash a key has up to a sixty-fourth less, four at least."},
    {.name = "concurrency",
     .type = CP_TYPE_COUNT,
     .min = 1,
     .max = 1000000,
     .offset = offsetof(struct cp_rate_limit, concurrency),
     .place = offsetof(struct cp_rate_limit, concurrency_at),
     .help = "Calls or fetches in flight at once, streams too, on each node. At most four such "
             "limits of a target."},
};

/* ---- Egress ---- */

static const struct cp_field egress_fields[] = {
    {.name = "hosts",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_HOST,
     .required = true,
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_egress, hosts),
     .help = "Destinations: exact, or *.example.com for what is below."},
    {.name = "ports",
     .type = CP_TYPE_PORTS,
     .min = 1,
     .max = 64,
     .offset = offsetof(struct cp_egress, ports),
     .help = "Ports. Without it: 80 and 443."},
    {.name = "methods",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_HTTP_METHOD,
     .min = 1,
     .max = 32,
     .offset = offsetof(struct cp_egress, methods),
     .help = "HTTP methods. Without it: all but CONNECT, which must be named."},
    {.name = "paths",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_PATH,
     .min = 1,
     .max = 1000,
     .offset = offsetof(struct cp_egress, paths),
     .help = "Prefixes of whole segments. Without it: all."},
    {.name = "addressRanges",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_CIDR,
     .min = 1,
     .max = 64,
     .offset = offsetof(struct cp_egress, address_ranges),
     .help = "Special ranges (loopback, private, link-local …) that are allowed all the same."},
    {.name = "transport",
     .type = CP_TYPE_REF,
     .ref = CP_KIND_TRANSPORT_PROFILE,
     .offset = offsetof(struct cp_egress, transport),
     .help = "Timeouts of the fetches."},
    {.name = "response",
     .type = CP_TYPE_SIZE,
     .min = 1,
     .max = 1ULL << 40,
     .offset = offsetof(struct cp_egress, response_bytes),
     .help = "Bound of an answer. Without it: none."},
};

/* ---- Topic ---- */

static const struct cp_field descriptor_fields[] = {
    {.name = "file",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_FILE,
     .offset = offsetof(struct cp_topic, descriptor_file),
     .help = "File made by protoc --include_imports --descriptor_set_out."},
    {.name = "inline",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_BASE64,
     .offset = offsetof(struct cp_topic, descriptor_inline),
     .help = "The same bytes in base64."},
};
static const struct cp_shape descriptor_shape = {SHAPE(descriptor_fields, struct cp_topic),
                                                 .one_of = "file|inline"};

static const struct cp_field topic_fields[] = {
    {.name = "type",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_TYPE,
     .required = true,
     .offset = offsetof(struct cp_topic, type),
     .help = "Name of the event's type. With the major version it is unique on the platform."},
    {.name = "major",
     .type = CP_TYPE_COUNT,
     .required = true,
     .min = 1,
     .max = 100000,
     .offset = offsetof(struct cp_topic, major),
     .help = "Major version: it changes when readers break."},
    {.name = "version",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_VERSION,
     .required = true,
     .offset = offsetof(struct cp_topic, version),
     .help = "Full version; it begins with the major one."},
    {.name = "message",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_PROTO_NAME,
     .required = true,
     .offset = offsetof(struct cp_topic, message),
     .help = "Full name of the payload's message."},
    {.name = "descriptorSet",
     .type = CP_TYPE_OBJECT,
     .shape = &descriptor_shape,
     .flat = true,
     .required = true,
     .help = "Descriptor set that defines the message and all that it uses."},
    {.name = "payload",
     .type = CP_TYPE_SIZE,
     .min = 1,
     .max = 7 << 20,
     .offset = offsetof(struct cp_topic, payload_bytes),
     .help = "Bound of a payload. Without it: the node's."},
};

/* ---- Revocation ---- */

enum { REVOKED_MAX = 100000 };

static const struct cp_field revocation_fields[] = {
    {.name = "identities",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_SPIFFE,
     .min = 1,
     .max = REVOKED_MAX,
     .offset = offsetof(struct cp_revocation, identities),
     .help = "SPIFFE ids: whoever proves one, by any certificate, and its service's tokens."},
    {.name = "certificates",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_SERIAL,
     .min = 1,
     .max = REVOKED_MAX,
     .offset = offsetof(struct cp_revocation, certificates),
     .help = "Serial numbers, of whichever CA: the identity stays good with another certificate."},
    {.name = "tokens",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_DIGEST,
     .min = 1,
     .max = REVOKED_MAX,
     .offset = offsetof(struct cp_revocation, tokens),
     .help = "Digests of static tokens, and of single tokens of an Issuer."},
    {.name = "subjects",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_SUBJECT,
     .min = 1,
     .max = REVOKED_MAX,
     .offset = offsetof(struct cp_revocation, subjects),
     .help = "Subjects of issuers: whoever proves one by any token of an Issuer."},
    {.name = "types",
     .type = CP_TYPE_TEXTS,
     .form = CP_FORM_TYPE_MAJOR,
     .min = 1,
     .max = REVOKED_MAX,
     .offset = offsetof(struct cp_revocation, types),
     .help = "Types of events that nobody may publish or subscribe to; a Topic need not be there."},
    {.name = "reason",
     .type = CP_TYPE_TEXT,
     .form = CP_FORM_VALUE,
     .offset = offsetof(struct cp_revocation, reason),
     .help = "Why, for people: it is shown when the resource comes into force."},
    {.name = "removedUntilMs",
     .type = CP_TYPE_COUNT,
     .min = 1,
     .max = 1ULL << 53,
     .offset = offsetof(struct cp_revocation, removed_until_ms),
     .help = "What `identity remove` writes: Unix time in ms, until which each later publication "
             "goes on revoking the certificates, whether its sources say so or not."},
};

/* ---- all kinds ---- */

static const struct cp_kind_row environment_row = {
    .name = "Environment",
    .help = "What holds for the platform as a whole. There is exactly one.",
    .tenancy = CP_TENANT_NONE,
    .example = "security: dev\ntrustDomain: demo.trilane.test\n",
    .spec = {SHAPE(environment_fields, struct cp_environment)}};

static const struct cp_kind_row route_row = {
    .name = "Route",
    .help = "Which requests go to which services.",
    .tenancy = CP_TENANT_OPTIONAL,
    .example = "match:\n  - grpc: {service: acme.orders.v1.Orders}\n"
               "targets:\n  - {service: orders, weight: 90}\n"
               "  - {service: orders-next, weight: 10}\n",
    .spec = {SHAPE(route_fields, struct cp_route)}};

static const struct cp_kind_row policy_row = {
    .name = "Policy",
    .help = "Who may do what to a target.",
    .tenancy = CP_TENANT_OPTIONAL,
    .example = "target: {service: orders}\n"
               "rules:\n  - name: web-reads\n    effect: allow\n"
               "    verbs: [call]\n    callers: [{service: web}]\n"
               "    methods: [\"/acme.orders.v1.Orders/Get*\"]\n",
    .spec = {SHAPE(policy_fields, struct cp_policy)}};

static const struct cp_kind_row rate_limit_row = {
    .name = "RateLimit",
    .help = "How often, or how many at once. A request must pass all limits "
            "that fit it.",
    .tenancy = CP_TENANT_OPTIONAL,
    .example = "target: {service: orders}\nby: [caller]\nrate: 100/s\n"
               "burst: 20\n",
    .spec = {SHAPE(rate_limit_fields, struct cp_rate_limit), .one_of = "rate|quota|concurrency"}};

static const struct cp_kind_row egress_row = {
    .name = "Egress",
    .help = "Destinations outside that services of a tenant may fetch.",
    .tenancy = CP_TENANT_REQUIRED,
    .example = "hosts: [api.example.com]\nports: [443]\nmethods: [GET]\n",
    .spec = {SHAPE(egress_fields, struct cp_egress)}};

static const struct cp_kind_row topic_row = {
    .name = "Topic",
    .help = "A type of event, in one major version.",
    .tenancy = CP_TENANT_OPTIONAL,
    .example = "type: Greeting\nmajor: 1\nversion: 1.0.0\n"
               "message: trilane.demo.greeting.v1.Greeting\n"
               "descriptorSet: {file: greeting.binpb}\npayload: 64KiB\n",
    .spec = {SHAPE(topic_fields, struct cp_topic)}};

static const struct cp_kind_row revocation_row = {
    .name = "Revocation",
    .help = "What is refused from now on, on every lane. A rollback keeps "
            "it; taking it out of the sources lifts it.",
    .tenancy = CP_TENANT_NONE,
    .example = "reason: laptop stolen\n"
               "identities: [spiffe://prod.example.com/tenant/acme/service/"
               "web]\ncertificates: [\"4A0DF3\"]\n",
    .spec = {SHAPE(revocation_fields, struct cp_revocation),
             .required = "identities|certificates|tokens|subjects|types"}};

static const struct cp_kind_row *const kind_rows[CP_KIND_COUNT] = {
    [CP_KIND_ENVIRONMENT] = &environment_row,
    [CP_KIND_SERVICE] = &cp_service_row,
    [CP_KIND_ROUTE] = &route_row,
    [CP_KIND_POLICY] = &policy_row,
    [CP_KIND_RATE_LIMIT] = &rate_limit_row,
    [CP_KIND_TRANSPORT_PROFILE] = &cp_transport_profile_row,
    [CP_KIND_EGRESS] = &egress_row,
    [CP_KIND_TOPIC] = &topic_row,
    [CP_KIND_REVOCATION] = &revocation_row,
    [CP_KIND_ISSUER] = &cp_issuer_row,
};

const struct cp_form_row *cp_form_at(enum cp_form form)
{
    CHECK(form > CP_FORM_NONE && form < CP_FORM_COUNT);
    return &form_rows[form];
}

enum cp_form cp_ref_form(const struct cp_field *field)
{
    if (field->ref == CP_KIND_TOPIC) {
        return field->globs ? CP_FORM_TYPE_GLOB : CP_FORM_TYPE_MAJOR;
    }
    return field->globs ? CP_FORM_REFERENCE_GLOB : CP_FORM_REFERENCE;
}

const struct cp_kind_row *cp_kind_at(enum cp_kind kind)
{
    CHECK(kind < CP_KIND_COUNT);
    return kind_rows[kind];
}

const struct cp_shape *cp_metadata_shape(void)
{
    return &metadata;
}

bool cp_choice_next(struct slice *rest, struct slice *out)
{
    if (rest->size == 0) {
        return false;
    }
    size_t end = slice_find(*rest, '|');
    *out = slice_head(*rest, end);
    *rest = slice_from(*rest, end + 1);
    return true;
}
