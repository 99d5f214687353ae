/* part: see part.h. What a part says of itself is judged here; whether what it names is there, in
 * link.c. */
#include "dataplane/apply/part.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/text.h"
#include "common/jose/jwk.h"
#include "common/net/cert.h"
#include "common/net/http1.h"
#include "common/net/tls.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "common/snapshot/parts.h"
#include "dataplane/apply/cluster.h"
#include "dataplane/apply/decode.h"
#include "dataplane/apply/issuer.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/policy.h"

/* Memory of what is built beside one message: a bound on our own arithmetic, not on the format,
 * whose bound of a part's size is far below. */
enum { PART_ARENA_BLOCK = 512 };

enum { SERIAL_BYTES_MAX = 20 }; /* RFC 5280, 4.1.2.2. */

/* ---- environment ---- */

static bool is_domain_of(const struct dp_environment *environment, struct slice domain)
{
    bool own = slice_eq(environment->trust_domain, domain);
    for (size_t i = 0; i < environment->trust_domain_count; i++) {
        own = own || slice_eq(environment->trust_domains[i], domain);
    }
    return own;
}

/* Certificates are judged here, so that whoever takes them into use later finds nothing wrong. */
static struct err judge_bundle(const struct dp_environment *environment,
                               const struct net_tls_bundle *bundle)
{
    auto_chain struct net_chain chain = {.count = 0};
    struct err e = net_chain_read(bundle->ca, &chain);
    bool holds = err_ok(e) && is_domain_of(environment, bundle->trust_domain);
    return holds || e.code == E_NO_MEMORY ? e : FAIL(E_PART_MALFORMED);
}

static struct err decode_bundles(struct dp_part *part)
{
    const Trilane__Parts__V1__EnvironmentPart *m = (const void *)part->message;
    struct dp_environment *environment = &part->as.environment;
    struct net_tls_bundle *bundles = NULL;
    auto_buf struct buf all = BUF_MAX(PART_MAX);
    TRY(arena_calloc(&part->arena, m->n_trust_bundles, sizeof(*bundles), (void **)&bundles));
    for (size_t i = 0; i < m->n_trust_bundles; i++) {
        const Trilane__Parts__V1__TrustBundle *from = m->trust_bundles[i];
        bundles[i] = (struct net_tls_bundle){slice_str(from->trust_domain),
                                             slice_of(from->ca.data, from->ca.len)};
        if (i > 0 && slice_cmp(bundles[i - 1].trust_domain, bundles[i].trust_domain) >= 0) {
            return FAIL(E_PART_MALFORMED);
        }
        TRY(judge_bundle(environment, &bundles[i]));
        TRY(buf_addf(&all, "%.*s %zu:", SLICE_ARG(bundles[i].trust_domain), bundles[i].ca.size));
        TRY(buf_add(&all, bundles[i].ca));
    }
    environment->bundles = bundles;
    environment->bundle_count = m->n_trust_bundles;
    if (m->n_trust_bundles > 0) {
        ids_digest(buf_slice(&all), environment->bundles_digest);
    }
    return OK;
}

static bool decode_versions(uint32_t least, uint32_t most, struct net_tls_terms *out)
{
    bool known = (least == 0 || least == NET_TLS_1_2 || least == NET_TLS_1_3) &&
                 (most == 0 || most == NET_TLS_1_2 || most == NET_TLS_1_3) &&
                 (most == 0 || least <= most);
    if (known) {
        out->version_min = (enum net_tls_version)least;
        out->version_max = (enum net_tls_version)most;
    }
    return known;
}

static struct err decode_environment(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__EnvironmentPart *m = (const void *)part->message;
    if (m->name[0] == '\0' || m->trust_domain[0] == '\0' || m->security > 1 || m->partitions == 0 ||
        m->partitions > DP_PARTITIONS_MAX || m->n_trust_domains > DP_TRUST_DOMAINS_MAX ||
        (part->format < TRUST_FORMAT_BY_KEY && m->n_trust_domains > 0) ||
        m->guard_miss_percent > 100 || m->guard_decision_us > DP_GUARD_US_MAX ||
        m->guard_hold_ms > DP_GUARD_HOLD_MAX_MS) {
        return FAIL(E_PART_MALFORMED);
    }
    struct net_tls_terms terms = {.client_cert = m->listener_tls == 2};
    if (m->listener_tls > 2 || !decode_versions(m->listener_tls_min, m->listener_tls_max, &terms)) {
        return FAIL(E_PART_MALFORMED);
    }
    struct slice *domains = NULL;
    TRY(dp_decode_strings(&part->arena, m->trust_domains, m->n_trust_domains, &domains));
    part->as.environment = (struct dp_environment){
        .name = slice_str(m->name),
        .trust_domain = slice_str(m->trust_domain),
        .trust_domains = domains,
        .trust_domain_count = m->n_trust_domains,
        .strict = m->security == 1,
        .tls_only = m->security == 1 || m->listener_tls != 0,
        .terms = terms,
        .partitions = m->partitions,
        .freshness_max_ms = m->freshness_max_ms,
        .queue_delay_ms = m->queue_delay_ms,
        .guardrails = {.miss_percent = m->guard_miss_percent,
                       .decision_us = m->guard_decision_us,
                       .hold_ms = m->guard_hold_ms},
    };
    return decode_bundles(part);
}

/* ---- callers ---- */

static struct err decode_traits(const Trilane__Parts__V1__Caller *m, struct arena *arena,
                                struct dp_caller *out)
{
    struct dp_trait *traits = NULL;
    TRY(arena_calloc(arena, m->n_traits, sizeof(*traits), (void **)&traits));
    for (size_t i = 0; i < m->n_traits; i++) {
        traits[i] =
            (struct dp_trait){slice_str(m->traits[i]->name), slice_str(m->traits[i]->value)};
        if (traits[i].name.size == 0 ||
            (i > 0 && slice_cmp(traits[i - 1].name, traits[i].name) >= 0)) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    out->traits = traits;
    out->trait_count = m->n_traits;
    return OK;
}

/* Format 1: the message says again what the key says. */
static struct err decode_said_caller(struct dp_part *part, struct dp_caller *caller)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->message;
    caller->spiffe = slice_str(m->spiffe);
    caller->tenant = slice_str(m->tenant);
    caller->service = slice_str(m->service);
    struct net_spiffe spiffe = {0};
    if (!err_ok(net_spiffe_parse(caller->spiffe, &spiffe)) ||
        !slice_eq(part->key, slice_str(m->id))) {
        return FAIL(E_PART_MALFORMED);
    }
    caller->domain = spiffe.trust_domain;
    TRY(arena_printf(&part->arena, &caller->id, "%s/%s", m->tenant, m->service));
    bool same = slice_starts(part->key, DP_SERVICE_PREFIX) &&
                slice_eq(slice_from(part->key, DP_SERVICE_PREFIX.size), caller->id);
    return same ? OK : FAIL(E_PART_MALFORMED);
}

/* Format 2: the key alone. */
static struct err decode_keyed_caller(struct dp_part *part, struct dp_caller *caller)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->message;
    bool said_again =
        m->id[0] != '\0' || m->spiffe[0] != '\0' || m->tenant[0] != '\0' || m->service[0] != '\0';
    if (said_again || !slice_starts(part->key, DP_SERVICE_PREFIX)) {
        return FAIL(E_PART_MALFORMED);
    }
    caller->id = slice_from(part->key, DP_SERVICE_PREFIX.size);
    caller->tenant = slice_head(caller->id, slice_find(caller->id, '/'));
    caller->service = slice_from(caller->id, caller->tenant.size + 1);
    bool whole = caller->tenant.size > 0 && caller->service.size > 0 &&
                 slice_find(caller->service, '/') == caller->service.size;
    return whole ? OK : FAIL(E_PART_MALFORMED);
}

/* "spiffe://<domain>/tenant/<tenant>/service/<service>". */
static struct err name_caller(struct arena *arena, struct slice domain, struct dp_caller *caller)
{
    const struct slice pieces[] = {SLICE_LIT("spiffe://"), domain,
                                   SLICE_LIT("/tenant/"),  caller->tenant,
                                   SLICE_LIT("/service/"), caller->service};
    TRY(arena_join(arena, pieces, sizeof(pieces) / sizeof(pieces[0]), &caller->spiffe));
    return arena_dup(arena, domain, &caller->domain); /* the environment's part may go first. */
}

static struct err name_callers(struct dp_part *part, const struct dp_caller *base,
                               const struct dp_environment *environment)
{
    struct dp_callers *callers = &part->as.callers;
    bool keyed = part->format >= TRUST_FORMAT_BY_KEY;
    size_t count = 1 + (keyed ? environment->trust_domain_count : 0);
    TRY(arena_calloc(&part->arena, count, sizeof(*callers->named), (void **)&callers->named));
    callers->named_count = count;
    for (size_t i = 0; i < count; i++) {
        callers->named[i] = *base;
        struct slice domain =
            i == 0 ? environment->trust_domain : environment->trust_domains[i - 1];
        if (keyed) {
            TRY(name_caller(&part->arena, domain, &callers->named[i]));
        }
    }
    return OK;
}

static struct err decode_tokens(struct dp_part *part)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->message;
    struct slice *tokens = NULL;
    TRY(arena_calloc(&part->arena, m->n_token_digests, sizeof(*tokens), (void **)&tokens));
    for (size_t i = 0; i < m->n_token_digests; i++) {
        tokens[i] = slice_of(m->token_digests[i].data, m->token_digests[i].len);
        if (tokens[i].size != DIGEST_SIZE) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    part->as.callers.tokens = tokens;
    part->as.callers.token_count = m->n_token_digests;
    return OK;
}

static struct err decode_caller(struct dp_part *part, const struct dp_environment *environment)
{
    struct dp_caller base = {0};
    if (environment == NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(part->format < TRUST_FORMAT_BY_KEY ? decode_said_caller(part, &base)
                                           : decode_keyed_caller(part, &base));
    TRY(decode_traits((const void *)part->message, &part->arena, &base));
    TRY(decode_tokens(part));
    return name_callers(part, &base, environment);
}

/* ---- what is revoked: all of it is in the key ---- */

/* Lower-case hex, two digits a byte. */
static bool is_hex(struct slice text, size_t bytes_max)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.ptr[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
    }
    return text.size > 0 && text.size % 2 == 0 && text.size <= 2 * bytes_max;
}

/* What is revoked lies behind a prefix of the key. */
static struct err judge_key(struct dp_part *part, struct slice revoked, bool holds)
{
    proto_free(part->message); /* these may be many. */
    part->message = NULL;
    part->as.revoked = revoked;
    return holds ? OK : FAIL(E_PART_MALFORMED);
}

static struct err decode_revoked_identity(struct dp_part *part,
                                          const struct dp_environment *environment)
{
    (void)environment;
    struct slice spiffe = slice_from(part->key, DP_REVOKED_IDENTITY_PREFIX.size);
    return judge_key(part, spiffe, slice_starts(spiffe, SLICE_LIT("spiffe://")));
}

static struct err decode_revoked_certificate(struct dp_part *part,
                                             const struct dp_environment *environment)
{
    (void)environment;
    struct slice serial = slice_from(part->key, DP_REVOKED_CERTIFICATE_PREFIX.size);
    bool padded = serial.size > 2 && slice_starts(serial, SLICE_LIT("00"));
    return judge_key(part, serial, is_hex(serial, SERIAL_BYTES_MAX) && !padded);
}

static struct err decode_revoked_token(struct dp_part *part,
                                       const struct dp_environment *environment)
{
    (void)environment;
    struct slice hex = slice_from(part->key, DP_REVOKED_TOKEN_PREFIX.size);
    uint8_t *digest = NULL;
    TRY(judge_key(part, hex, is_hex(hex, DIGEST_SIZE) && hex.size == (size_t)2 * DIGEST_SIZE));
    TRY(arena_alloc(&part->arena, DIGEST_SIZE, (void **)&digest));
    TRY(text_unhex(hex, digest, DIGEST_SIZE));
    part->as.revoked = slice_of(digest, DIGEST_SIZE);
    return OK;
}

/* "<iss>#<sub>". */
static struct err decode_revoked_subject(struct dp_part *part,
                                         const struct dp_environment *environment)
{
    (void)environment;
    struct slice subject = slice_from(part->key, DP_REVOKED_SUBJECT_PREFIX.size);
    size_t hash = slice_find(subject, '#');
    return judge_key(part, subject, hash > 0 && hash + 1 < subject.size);
}

static struct err decode_blocked_type(struct dp_part *part,
                                      const struct dp_environment *environment)
{
    (void)environment;
    struct slice type = slice_from(part->key, DP_BLOCKED_TYPE_PREFIX.size);
    return judge_key(part, type, type.size > 0);
}

/* A newer release revokes something else by it, which is not passed over. */
static struct err decode_unknown_revocation(struct dp_part *part,
                                            const struct dp_environment *environment)
{
    (void)part;
    (void)environment;
    return FAIL(E_CAPABILITY_MISSING);
}

/* ---- transport ---- */

static uint32_t or_limit(uint32_t value, uint64_t limit)
{
    return value == 0 || value > limit ? (uint32_t)limit : value;
}

static struct err decode_transport(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__Transport *m = (const void *)part->message;
    struct net_tls_terms terms = {.client_cert = false};
    if (!slice_eq(part->key, slice_str(m->id)) || m->upstream_tls > 2 ||
        !decode_versions(m->upstream_tls_min, m->upstream_tls_max, &terms)) {
        return FAIL(E_PART_MALFORMED);
    }
    part->as.transport = (struct dp_transport){
        .id = slice_str(m->id),
        .timeout_ms = m->timeout_ms == 0 ? (uint32_t)limits.deadline_default_ms : m->timeout_ms,
        .timeout_max_ms = m->timeout_max_ms,
        .connect_timeout_ms = m->connect_timeout_ms == 0 ? (uint32_t)limits.connect_timeout_ms
                                                         : m->connect_timeout_ms,
        .idle_timeout_ms = m->idle_timeout_ms,
        .upstream_max_age_ms = m->upstream_max_age_ms == 0 ? (uint32_t)limits.upstream_max_age_ms
                                                           : m->upstream_max_age_ms,
        .request_message_bytes = or_limit(m->request_message_bytes, limits.request_body_bytes),
        .response_message_bytes = or_limit(m->response_message_bytes, limits.request_body_bytes),
        .upstream_tls = m->upstream_tls,
        .upstream_terms = terms,
        .upstream_sni = slice_str(m->upstream_sni),
        .upstream_spiffe = slice_str(m->upstream_spiffe),
    };
    return OK;
}

/* ---- routes ---- */

/* The fields that gRPC-Web itself needs, both ways, and then those of the policy. */
static struct err join_headers(struct arena *arena, const char *own, char *const *names,
                               size_t count, struct slice *out)
{
    struct slice *pieces = NULL;
    TRY(arena_calloc(arena, 2 * count + 1, sizeof(*pieces), (void **)&pieces));
    pieces[0] = slice_str(own);
    for (size_t i = 0; i < count; i++) {
        if (!http1_is_token(slice_str(names[i]))) {
            return FAIL(E_PART_MALFORMED);
        }
        pieces[2 * i + 1] = SLICE_LIT(", ");
        pieces[2 * i + 2] = slice_str(names[i]);
    }
    return arena_join(arena, pieces, 2 * count + 1, out);
}

static struct err decode_cors(const Trilane__Parts__V1__Cors *m, struct arena *arena,
                              const struct dp_cors **out)
{
    struct dp_cors *cors = NULL;
    struct slice *origins = NULL;
    if (m == NULL) {
        return OK;
    }
    TRY(arena_calloc(arena, 1, sizeof(*cors), (void **)&cors));
    TRY(dp_decode_strings(arena, m->origins, m->n_origins, &origins));
    *cors = (struct dp_cors){.origins = origins,
                             .origin_count = m->n_origins,
                             .credentials = m->credentials,
                             .max_age_s = m->max_age_s};
    for (size_t i = 0; i < m->n_origins; i++) {
        cors->any = cors->any || slice_eq(origins[i], SLICE_LIT("*"));
    }
    if (m->n_origins == 0 || (cors->any && cors->credentials)) {
        return FAIL(E_PART_MALFORMED); /* any page with the cookies of its reader: never. */
    }
    TRY(join_headers(arena, "content-type, x-grpc-web, x-user-agent, grpc-timeout, authorization",
                     m->allow_headers, m->n_allow_headers, &cors->allow_headers));
    TRY(join_headers(arena,
                     "grpc-status, grpc-message, grpc-status-details-bin, x-trilane-code, "
                     "x-trilane-rule, x-trilane-explain, x-trilane-version, grpc-retry-pushback-ms",
                     m->expose_headers, m->n_expose_headers, &cors->expose_headers));
    *out = cors;
    return OK;
}

static struct err decode_entry(const Trilane__Parts__V1__RouteEntry *m, struct arena *arena,
                               struct dp_route_entry *out)
{
    if (m->id[0] == '\0' || m->n_targets == 0 ||
        m->match > TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX ||
        (m->match != TRILANE__PARTS__V1__PATH_MATCH__PATH_ANY && m->path[0] != '/')) {
        return FAIL(E_PART_MALFORMED);
    }
    struct dp_route_header *headers = NULL;
    TRY(arena_calloc(arena, m->n_headers, sizeof(*headers), (void **)&headers));
    for (size_t i = 0; i < m->n_headers; i++) {
        headers[i].name = slice_str(m->headers[i]->name);
        headers[i].value = slice_str(m->headers[i]->value);
        headers[i].present = m->headers[i]->present;
        if (headers[i].name.size == 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    struct slice *tenants = NULL;
    TRY(dp_decode_strings(arena, m->tenants, m->n_tenants, &tenants));
    *out = (struct dp_route_entry){
        .id = slice_str(m->id),
        .match = m->match,
        .path = slice_str(m->path),
        .tenants = tenants,
        .tenant_count = m->n_tenants,
        .http_method = slice_str(m->http_method),
        .headers = headers,
        .header_count = m->n_headers,
    };
    return decode_cors(m->cors, arena, &out->cors);
}

/* The key says host and segment once more: "host/<host>/<segment>". */
static bool is_group_key(struct slice key, struct slice host, struct slice segment)
{
    struct slice rest = slice_from(key, DP_HOST_PREFIX.size);
    return slice_starts(key, DP_HOST_PREFIX) && host.size > 0 && slice_starts(rest, host) &&
           rest.size == host.size + 1 + segment.size && rest.ptr[host.size] == '/' &&
           slice_eq(slice_from(rest, host.size + 1), segment);
}

/* Back to front, so that each chain runs in the order of the entries. */
static struct err index_paths(struct dp_route_group *group, struct dp_route_entry *entries)
{
    for (size_t i = group->entry_count; i > 0; i--) {
        struct dp_route_entry *entry = &entries[i - 1];
        if (entry->match == TRILANE__PARTS__V1__PATH_MATCH__PATH_ANY) {
            entry->next_of_path = group->any;
            group->any = entry;
            continue;
        }
        if (entry->match == TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX &&
            entry->path.size > group->prefix_max) {
            group->prefix_max = entry->path.size;
        }
        entry->next_of_path = map_get(&group->paths, entry->path);
        TRY(map_put(&group->paths, entry->path, entry, /* out_old= */ NULL));
    }
    return OK;
}

static struct err decode_targets(const Trilane__Parts__V1__RouteEntry *m, struct arena *arena,
                                 struct dp_route *route)
{
    struct dp_weighted *targets = NULL;
    TRY(arena_calloc(arena, m->n_targets, sizeof(*targets), (void **)&targets));
    for (size_t i = 0; i < m->n_targets; i++) {
        targets[i].cluster = slice_str(m->targets[i]->cluster);
        targets[i].weight = m->targets[i]->weight;
        if (targets[i].weight == 0) {
            return FAIL(E_PART_MALFORMED);
        }
        route->weight_sum += targets[i].weight;
    }
    route->targets = targets;
    route->target_count = m->n_targets;
    return OK;
}

static struct err decode_group(const Trilane__Parts__V1__RouteGroup *m, struct arena *arena,
                               struct dp_route_group *group)
{
    struct dp_route_entry *entries = NULL;
    struct dp_route *routes = NULL;
    TRY(arena_calloc(arena, m->n_routes, sizeof(*entries), (void **)&entries));
    TRY(arena_calloc(arena, m->n_routes, sizeof(*routes), (void **)&routes));
    for (size_t i = 0; i < m->n_routes; i++) {
        TRY(decode_entry(m->routes[i], arena, &entries[i]));
        routes[i] = (struct dp_route){.id = entries[i].id,
                                      .transport = slice_str(m->routes[i]->transport),
                                      .timeout_ms = m->routes[i]->timeout_ms,
                                      .mirror = slice_str(m->routes[i]->mirror),
                                      .mirror_per_mille = m->routes[i]->mirror_per_mille,
                                      .cors = entries[i].cors};
        TRY(decode_targets(m->routes[i], arena, &routes[i]));
        bool mirrored = routes[i].mirror.size > 0;
        if (mirrored != (routes[i].mirror_per_mille > 0) || routes[i].mirror_per_mille > 1000) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    group->entries = entries;
    group->routes = routes;
    group->entry_count = m->n_routes;
    return m->n_routes < DP_ROUTE_INDEX_MIN ? OK : index_paths(group, entries);
}

static struct err decode_routes(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__RouteGroup *m = (const void *)part->message;
    struct dp_route_group *group = &part->as.routes;
    *group = (struct dp_route_group){.host = slice_str(m->host), .segment = slice_str(m->segment)};
    if (!is_group_key(part->key, group->host, group->segment) || m->n_routes == 0) {
        return FAIL(E_PART_MALFORMED);
    }
    return decode_group(m, &part->arena, group);
}

/* ---- clusters, topics, egress ---- */

static struct err decode_endpoints(const Trilane__Parts__V1__Cluster *m, struct arena *arena,
                                   struct dp_cluster *cluster)
{
    struct dp_endpoint *endpoints = NULL;
    TRY(arena_calloc(arena, m->n_endpoints, sizeof(*endpoints), (void **)&endpoints));
    for (size_t i = 0; i < m->n_endpoints; i++) {
        const Trilane__Parts__V1__Endpoint *e = m->endpoints[i];
        if (e->address[0] == '\0' || e->port == 0 || e->port > UINT16_MAX || e->weight == 0) {
            return FAIL(E_PART_MALFORMED);
        }
        endpoints[i] = (struct dp_endpoint){.address = slice_str(e->address),
                                            .port = (uint16_t)e->port,
                                            .weight = e->weight,
                                            .region = slice_str(e->region),
                                            .zone = slice_str(e->zone)};
    }
    cluster->endpoints = endpoints;
    cluster->endpoint_count = m->n_endpoints;
    return OK;
}

/* What calls read of it later is judged here: a policy of no attempts, a pause of nothing. */
static bool is_method(const Trilane__Parts__V1__MethodPolicy *m)
{
    bool counts = m->name[0] != '\0' && m->attempts >= 2 && m->attempts <= DP_ATTEMPTS_MAX &&
                  (m->codes & 1) == 0 && m->codes < 1U << 17;
    bool retries = !m->hedged && m->codes != 0 && m->backoff_ms > 0 &&
                   m->backoff_max_ms >= m->backoff_ms && m->multiplier > 0 && m->delay_ms == 0 &&
                   m->percentile == 0;
    bool hedges = m->hedged && m->backoff_ms == 0 && m->backoff_max_ms == 0 && m->multiplier == 0 &&
                  m->try_timeout_ms == 0 && m->percentile < 100 &&
                  (m->delay_ms > 0) != (m->percentile > 0);
    return counts && (retries || hedges);
}

static struct err decode_budget(const Trilane__Parts__V1__RetryBudget *m,
                                struct dp_retry_budget *out)
{
    if (m == NULL || m->max_tokens == 0 || m->max_tokens > 1000 || m->ratio_per_mille > 1000 ||
        m->active_percent > 100 || m->hedges_per_mille > 1000) {
        return FAIL(E_PART_MALFORMED);
    }
    *out = (struct dp_retry_budget){.max_tokens = m->max_tokens,
                                    .ratio_per_mille = m->ratio_per_mille,
                                    .active_percent = m->active_percent,
                                    .min_concurrent = m->min_concurrent,
                                    .hedges_per_mille = m->hedges_per_mille};
    return OK;
}

static struct err decode_methods(const Trilane__Parts__V1__Cluster *m, struct arena *arena,
                                 struct dp_cluster *cluster)
{
    if (m->n_methods == 0) {
        return m->retry_budget == NULL ? OK : FAIL(E_PART_MALFORMED);
    }
    struct dp_method_policy *methods = NULL;
    TRY(arena_calloc(arena, m->n_methods, sizeof(*methods), (void **)&methods));
    for (size_t i = 0; i < m->n_methods; i++) {
        const Trilane__Parts__V1__MethodPolicy *from = m->methods[i];
        if (!is_method(from)) {
            return FAIL(E_PART_MALFORMED);
        }
        methods[i] = (struct dp_method_policy){.name = slice_str(from->name),
                                               .idempotent = from->idempotent,
                                               .hedged = from->hedged,
                                               .attempts = from->attempts,
                                               .codes = from->codes,
                                               .try_timeout_ms = from->try_timeout_ms,
                                               .backoff_ms = from->backoff_ms,
                                               .backoff_max_ms = from->backoff_max_ms,
                                               .multiplier = from->multiplier,
                                               .delay_ms = from->delay_ms,
                                               .percentile = from->percentile};
    }
    cluster->methods = methods;
    cluster->method_count = m->n_methods;
    return decode_budget(m->retry_budget, &cluster->retry_budget);
}

static struct err decode_cluster(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__Cluster *m = (const void *)part->message;
    struct slice id = {0};
    struct slice *services = NULL;
    TRY(arena_printf(&part->arena, &id, "service/%s/%s", m->tenant, m->name));
    if (!slice_eq(part->key, id) || !slice_eq(part->key, slice_str(m->id))) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(dp_decode_strings(&part->arena, m->grpc_services, m->n_grpc_services, &services));
    part->as.cluster = (struct dp_cluster){
        .target = {.id = part->key},
        .tenant = slice_str(m->tenant),
        .name = slice_str(m->name),
        .transport = slice_str(m->transport),
        .grpc_services = services,
        .grpc_service_count = m->n_grpc_services,
    };
    TRY(decode_methods(m, &part->arena, &part->as.cluster));
    return decode_endpoints(m, &part->arena, &part->as.cluster);
}

static struct err decode_topic(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__TopicPart *m = (const void *)part->message;
    struct slice id = {0};
    TRY(arena_printf(&part->arena, &id, "topic/%s.v%u", m->type, m->major));
    struct slice type = slice_from(id, DP_TOPIC_PREFIX.size);
    if (!slice_eq(part->key, type) || m->full_name[0] == '\0' || m->stream[0] == '\0') {
        return FAIL(E_PART_MALFORMED);
    }
    part->as.topic = (struct dp_topic){
        .target = {.id = id},
        .type = type,
        .major = m->major,
        .full_name = slice_str(m->full_name),
        .stream = slice_str(m->stream),
        .version = slice_str(m->version),
        .payload_bytes = or_limit(m->payload_bytes, limits.envelope_bytes),
    };
    return OK;
}

static struct err decode_egress_hosts(const Trilane__Parts__V1__EgressPart *m, struct arena *arena,
                                      struct dp_egress_part *out)
{
    struct slice *keys = NULL;
    TRY(arena_calloc(arena, m->n_hosts, sizeof(*keys), (void **)&keys));
    for (size_t i = 0; i < m->n_hosts; i++) {
        TRY(arena_printf(arena, &keys[i], "%s/%s", m->tenant, m->hosts[i]));
        if (keys[i].size > DP_EGRESS_KEY_MAX) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    out->keys = keys;
    out->key_count = m->n_hosts;
    return OK;
}

static struct err decode_egress_lists(const Trilane__Parts__V1__EgressPart *m, struct arena *arena,
                                      struct dp_egress *egress)
{
    static const uint32_t usual_ports[] = {80, 443};
    struct slice *methods = NULL;
    struct slice *paths = NULL;
    struct slice *ranges = NULL;
    TRY(dp_decode_strings(arena, m->methods, m->n_methods, &methods));
    TRY(dp_decode_strings(arena, m->paths, m->n_paths, &paths));
    TRY(dp_decode_strings(arena, m->address_ranges, m->n_address_ranges, &ranges));
    for (size_t i = 0; i < m->n_ports; i++) {
        if (m->ports[i] == 0 || m->ports[i] > UINT16_MAX) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    egress->ports = m->n_ports == 0 ? usual_ports : m->ports;
    egress->port_count = m->n_ports == 0 ? 2 : m->n_ports;
    egress->methods = methods;
    egress->method_count = m->n_methods;
    egress->paths = paths;
    egress->path_count = m->n_paths;
    egress->address_ranges = ranges;
    egress->address_range_count = m->n_address_ranges;
    return OK;
}

static struct err decode_egress(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__EgressPart *m = (const void *)part->message;
    struct slice id = slice_str(m->id);
    if (!slice_starts(id, DP_EGRESS_PREFIX) ||
        !slice_eq(slice_from(id, DP_EGRESS_PREFIX.size), part->key) || m->tenant[0] == '\0' ||
        m->n_hosts == 0) {
        return FAIL(E_PART_MALFORMED);
    }
    part->as.egress.egress = (struct dp_egress){
        .target = {.id = id},
        .tenant = slice_str(m->tenant),
        .transport = slice_str(m->transport),
        .response_bytes = m->response_bytes,
    };
    TRY(decode_egress_lists(m, &part->arena, &part->as.egress.egress));
    return decode_egress_hosts(m, &part->arena, &part->as.egress);
}

/* ---- those that keep their own form ---- */

static struct err build_policy(struct dp_part *part, struct slice bytes)
{
    TRY(dp_policy_build(bytes, &part->as.policy));
    return slice_eq(part->key, dp_policy_target_id(part->as.policy)) ? OK : FAIL(E_PART_MALFORMED);
}

static struct err build_limits(struct dp_part *part, struct slice bytes)
{
    TRY(dp_limit_build(bytes, &part->as.limits));
    return slice_eq(part->key, dp_limit_target_id(part->as.limits)) ? OK : FAIL(E_PART_MALFORMED);
}

/* The tables are a schema's own, so the message is not kept. */
static struct err decode_schema(struct dp_part *part, const struct dp_environment *environment)
{
    (void)environment;
    TRY(schema_build((const void *)part->message, &part->as.schema));
    proto_free(part->message);
    part->message = NULL;
    return slice_eq(part->key, schema_type(part->as.schema)) ? OK : FAIL(E_PART_MALFORMED);
}

/* ---- all of them ---- */

struct part_row {
    uint32_t stream;
    enum dp_part_kind kind;
    const char *prefix; /* of the key; empty: every key of the stream. */
    /* Either the message is decoded strictly and judged… */
    struct err (*decode)(struct dp_part *part, const struct dp_environment *environment);
    /* …or the bytes are built as they are. */
    struct err (*build)(struct dp_part *part, struct slice bytes);
};

static const struct part_row rows[] = {
    {STREAM_ROUTING, DP_PART_ROUTES, "host/", decode_routes, NULL},
    {STREAM_ROUTING, DP_PART_CLUSTER, "service/", decode_cluster, NULL},
    {STREAM_TRUST, DP_PART_ENVIRONMENT, "environment", decode_environment, NULL},
    {STREAM_TRUST, DP_PART_ISSUER, "issuer/", dp_issuer_decode, NULL},
    {STREAM_TRUST, DP_PART_CALLER, "service/", decode_caller, NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_IDENTITY, "identity/", decode_revoked_identity, NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_CERTIFICATE, "certificate/", decode_revoked_certificate,
     NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_TOKEN, "token/", decode_revoked_token, NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_SUBJECT, "subject/", decode_revoked_subject, NULL},
    {STREAM_REVOCATIONS, DP_PART_BLOCKED_TYPE, "type/", decode_blocked_type, NULL},
    {STREAM_REVOCATIONS, DP_PART_KIND_COUNT, "", decode_unknown_revocation, NULL},
    {STREAM_AUTHORISATION, DP_PART_POLICY, "", NULL, build_policy},
    {STREAM_LIMITS, DP_PART_LIMITS, "", NULL, build_limits},
    {STREAM_TRANSPORT, DP_PART_TRANSPORT, "", decode_transport, NULL},
    {STREAM_EGRESS, DP_PART_EGRESS, "", decode_egress, NULL},
    {STREAM_SCHEMAS, DP_PART_DESCRIPTORS, "service/", dp_part_decode_descriptors, NULL},
    {STREAM_SCHEMAS, DP_PART_SCHEMA, "", decode_schema, NULL},
    {STREAM_BUS, DP_PART_TOPIC, "", decode_topic, NULL},
};

enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

static const struct part_row *find_row(uint32_t stream, struct slice key)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].stream == stream && slice_starts(key, slice_str(rows[i].prefix))) {
            return &rows[i];
        }
    }
    return NULL;
}

bool dp_part_stream(uint32_t stream)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].stream == stream) {
            return true;
        }
    }
    return false;
}

enum dp_part_kind dp_part_kind(uint32_t stream, struct slice key)
{
    const struct part_row *row = find_row(stream, key);
    return row == NULL ? DP_PART_KIND_COUNT : row->kind;
}

uint32_t dp_part_stream_of(enum dp_part_kind kind)
{
    size_t i = 0;
    while (rows[i].kind != kind) { /* ends: every kind has a row. */
        i++;
    }
    return rows[i].stream;
}

static struct err fill(const struct part_row *row, const struct dp_part_from *from,
                       struct dp_part *part)
{
    if (row->build != NULL) {
        return row->build(part, from->part.bytes);
    }
    const ProtobufCMessageDescriptor *type = part_message(from->stream, part->key);
    if (type == NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(part_decode(type, from->part.bytes, &part->message));
    TRY(row->decode(part, from->environment));
    if (part->kind != DP_PART_CLUSTER) {
        return OK;
    }
    ids_digest_short(from->part.bytes, part->as.cluster.print);
    return dp_decode_balancing((const void *)part->message, &part->arena, &from->here,
                               &part->as.cluster);
}

struct err dp_part_new(const struct dp_part_from *from, struct dp_part **out)
{
    struct slice key = from->part.key;
    const struct part_row *row = find_row(from->stream, key);
    if (row == NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    struct dp_part *part = calloc(1, sizeof(*part) + key.size + 1); /* a NUL is behind the key. */
    if (part == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    uint8_t *text = (uint8_t *)(part + 1);
    memcpy(text, key.ptr, key.size);
    part->key = slice_of(text, key.size);
    part->kind = row->kind;
    part->refs = 1;
    part->format = from->format;
    arena_init(&part->arena, PART_ARENA_BLOCK, (size_t)PART_MEMORY_FACTOR * PART_MAX);
    struct err e = fill(row, from, part);
    if (!err_ok(e)) {
        dp_part_unref(part);
        return e;
    }
    *out = part;
    return OK;
}

struct dp_part *dp_part_ref(struct dp_part *part)
{
    CHECK(part->refs > 0);
    part->refs++;
    return part;
}

static void free_built(struct dp_part *part)
{
    if (part->kind == DP_PART_POLICY) {
        dp_policy_free(part->as.policy);
    }
    if (part->kind == DP_PART_LIMITS) {
        dp_limit_free(part->as.limits);
    }
    if (part->kind == DP_PART_SCHEMA) {
        schema_free(part->as.schema);
    }
    if (part->kind == DP_PART_ISSUER) {
        jose_keys_unref(part->as.issuer.keys);
    }
    if (part->kind == DP_PART_ROUTES) {
        map_free(&part->as.routes.paths);
    }
}

void dp_part_unref(struct dp_part *part)
{
    if (part == NULL || --part->refs > 0) {
        return;
    }
    free_built(part);
    proto_free(part->message);
    arena_free(&part->arena);
    free(part);
}
