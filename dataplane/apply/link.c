/*
 * link: what parts name, found; and the tables that requests look things up in.
 *
 * A part stands alone; a cluster points at its transport, policy and limits, and these may come
 * from another version than the cluster's own part. So links are made anew for each model: some
 * hash maps and arrays of pointers, cheap beside decoding.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/text.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/decode.h"
#include "dataplane/apply/model_impl.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/policy.h"

typedef struct err link_fn(struct dp_model *model, const struct dp_model_part *part);

/* Two parts may not claim one name. */
static struct err put_once(struct map *map, struct slice key, void *value)
{
    if (map_get(map, key) != NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    return map_put(map, key, value, /* out_old= */ NULL);
}

/* ---- parts that name no other ---- */

static struct err link_environment(struct dp_model *model, const struct dp_model_part *part)
{
    model->environment = &part->part->as.environment;
    return OK;
}

static struct err link_transport(struct dp_model *model, const struct dp_model_part *part)
{
    return put_once(&model->transports, part->key, &part->part->as.transport);
}

static struct err link_policy(struct dp_model *model, const struct dp_model_part *part)
{
    return put_once(&model->policies, part->key, part->part->as.policy);
}

static struct err link_limits(struct dp_model *model, const struct dp_model_part *part)
{
    return put_once(&model->limits, part->key, part->part->as.limits);
}

static struct err link_schema(struct dp_model *model, const struct dp_model_part *part)
{
    return put_once(&model->schemas, part->key, part->part->as.schema);
}

static struct err add_tenant(struct dp_model *model, struct slice tenant)
{
    return map_put(&model->tenants, tenant, model, /* out_old= */ NULL);
}

/* ---- what is revoked, and callers ---- */

static struct err link_revoked_identity(struct dp_model *model, const struct dp_model_part *part)
{
    struct slice spiffe = slice_from(part->key, DP_REVOKED_IDENTITY_PREFIX.size);
    return map_put(&model->revoked_identities, spiffe, model, /* out_old= */ NULL);
}

static struct err link_revoked_certificate(struct dp_model *model, const struct dp_model_part *part)
{
    struct slice serial = slice_from(part->key, DP_REVOKED_CERTIFICATE_PREFIX.size);
    return map_put(&model->revoked_serials, serial, model, /* out_old= */ NULL);
}

static struct err link_revoked_token(struct dp_model *model, const struct dp_model_part *part)
{
    struct slice hex = slice_from(part->key, DP_REVOKED_TOKEN_PREFIX.size);
    uint8_t *digest = NULL;
    TRY(arena_alloc(&model->arena, DIGEST_SIZE, (void **)&digest));
    TRY(text_unhex(hex, digest, DIGEST_SIZE));
    return map_put(&model->revoked_tokens, slice_of(digest, DIGEST_SIZE), model,
                   /* out_old= */ NULL);
}

static struct err link_blocked_type(struct dp_model *model, const struct dp_model_part *part)
{
    struct slice type = slice_from(part->key, DP_BLOCKED_TYPE_PREFIX.size);
    return map_put(&model->blocked_types, type, model, /* out_old= */ NULL);
}

/* A caller of one trust domain. Who was revoked is not found, so that no request pays for asking.
 */
static struct err add_caller(struct dp_model *model, struct dp_caller *caller)
{
    return dp_model_spiffe_revoked(model, caller->spiffe)
               ? OK
               : put_once(&model->callers_by_spiffe, caller->spiffe, caller);
}

static struct err add_tokens(struct dp_model *model, const Trilane__Parts__V1__Caller *m,
                             struct dp_caller *caller)
{
    bool revoked = dp_model_spiffe_revoked(model, caller->spiffe);
    for (size_t i = 0; i < m->n_token_digests; i++) {
        struct slice digest = slice_of(m->token_digests[i].data, m->token_digests[i].len);
        if (revoked) {
            TRY(map_put(&model->revoked_tokens, digest, model, /* out_old= */ NULL));
        } else if (!dp_model_token_revoked(model, digest.ptr)) {
            TRY(put_once(&model->callers_by_token, digest, caller));
        }
    }
    return OK;
}

/* "spiffe://<domain>/tenant/<tenant>/service/<service>". */
static struct err name_caller(struct dp_model *model, struct slice domain, struct dp_caller *caller)
{
    const struct slice pieces[] = {SLICE_LIT("spiffe://"), domain,
                                   SLICE_LIT("/tenant/"),  caller->tenant,
                                   SLICE_LIT("/service/"), caller->service};
    enum { PIECES = sizeof(pieces) / sizeof(pieces[0]) };
    size_t size = 0;
    for (size_t i = 0; i < PIECES; i++) {
        size += pieces[i].size;
    }
    uint8_t *text = NULL;
    TRY(arena_alloc(&model->arena, size, (void **)&text));
    caller->spiffe = slice_of(text, size);
    caller->domain = domain;
    for (size_t i = 0; i < PIECES; i++) {
        (void)memcpy(text, pieces[i].ptr, pieces[i].size);
        text += pieces[i].size;
    }
    return OK;
}

/* As it is known in one trust domain. */
static struct err caller_in(struct dp_model *model, const struct dp_caller *from,
                            struct slice domain, struct dp_caller **out)
{
    TRY(arena_calloc(&model->arena, 1, sizeof(**out), (void **)out));
    **out = *from;
    TRY(name_caller(model, domain, *out));
    return add_caller(model, *out);
}

static struct err link_caller(struct dp_model *model, const struct dp_model_part *part)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->part->message;
    const struct dp_environment *environment = model->environment;
    struct dp_caller *caller = &part->part->as.caller;
    if (environment == NULL) {
        return OK; /* dp_model_link() refuses that. */
    }
    if (part->part->format < TRUST_FORMAT_BY_KEY) {
        TRY(add_caller(model, caller));
    } else {
        const struct dp_caller *from = caller;
        struct dp_caller *other = NULL;
        TRY(caller_in(model, from, environment->trust_domain, &caller));
        for (size_t i = 0; i < environment->trust_domain_count; i++) {
            TRY(caller_in(model, from, environment->trust_domains[i], &other));
        }
    }
    TRY(add_tokens(model, m, caller));
    return add_tenant(model, caller->tenant);
}

/* ---- what can be asked for ---- */

static struct dp_target target_of(const struct dp_model *model, struct slice id)
{
    return (struct dp_target){
        .id = id,
        .policy = map_get(&model->policies, id),
        .limits = map_get(&model->limits, id),
    };
}

/* What holds where no TransportProfile is named: the limits. */
static struct err usual_transport(struct dp_model *model, const struct dp_transport **out)
{
    struct dp_transport *usual = NULL;
    TRY(arena_calloc(&model->arena, 1, sizeof(*usual), (void **)&usual));
    *usual = (struct dp_transport){
        .timeout_ms = (uint32_t)limits.deadline_default_ms,
        .connect_timeout_ms = (uint32_t)limits.connect_timeout_ms,
        .request_message_bytes = (uint32_t)limits.request_body_bytes,
        .response_message_bytes = (uint32_t)limits.request_body_bytes,
    };
    *out = usual;
    return OK;
}

static struct err find_transport(struct dp_model *model, const char *name,
                                 const struct dp_transport **out)
{
    if (name[0] == '\0') {
        return usual_transport(model, out);
    }
    *out = map_get(&model->transports, slice_str(name));
    return *out == NULL ? FAIL(E_PART_MALFORMED) : OK;
}

static struct err link_endpoints(struct dp_model *model, const Trilane__Parts__V1__Cluster *m,
                                 struct dp_cluster *cluster)
{
    struct dp_endpoint *endpoints = NULL;
    TRY(arena_calloc(&model->arena, m->n_endpoints, sizeof(*endpoints), (void **)&endpoints));
    for (size_t i = 0; i < m->n_endpoints; i++) {
        endpoints[i] = (struct dp_endpoint){
            .address = slice_str(m->endpoints[i]->address),
            .port = (uint16_t)m->endpoints[i]->port,
            .weight = m->endpoints[i]->weight,
        };
    }
    cluster->endpoints = endpoints;
    cluster->endpoint_count = m->n_endpoints;
    return OK;
}

static struct err link_cluster(struct dp_model *model, const struct dp_model_part *part)
{
    const Trilane__Parts__V1__Cluster *m = (const void *)part->part->message;
    struct dp_cluster *cluster = NULL;
    struct slice *services = NULL;
    TRY(arena_calloc(&model->arena, 1, sizeof(*cluster), (void **)&cluster));
    TRY(dp_decode_strings(&model->arena, m->grpc_services, m->n_grpc_services, &services));
    *cluster = (struct dp_cluster){
        .target = target_of(model, slice_str(m->id)),
        .tenant = slice_str(m->tenant),
        .name = slice_str(m->name),
        .grpc_services = services,
        .grpc_service_count = m->n_grpc_services,
    };
    TRY(find_transport(model, m->transport, &cluster->transport));
    TRY(link_endpoints(model, m, cluster));
    for (size_t i = 0; i < m->n_grpc_services; i++) {
        TRY(map_put(&model->grpc_services, services[i], cluster, /* out_old= */ NULL));
    }
    TRY(put_once(&model->clusters, cluster->target.id, cluster));
    return add_tenant(model, cluster->tenant);
}

/* A full name that several majors share finds the highest of them. */
static struct err add_topic_name(struct dp_model *model, const Trilane__Parts__V1__TopicPart *m,
                                 struct dp_topic *topic)
{
    const struct dp_topic *other = map_get(&model->topics, topic->full_name);
    if (other != NULL && other->major > m->major) {
        return OK;
    }
    return map_put(&model->topics, topic->full_name, topic, /* out_old= */ NULL);
}

static struct err link_topic(struct dp_model *model, const struct dp_model_part *part)
{
    const Trilane__Parts__V1__TopicPart *m = (const void *)part->part->message;
    struct dp_topic *topic = NULL;
    struct slice id = {0};
    TRY(arena_calloc(&model->arena, 1, sizeof(*topic), (void **)&topic));
    TRY(arena_printf(&model->arena, &id, "topic/%.*s", SLICE_ARG(part->key)));
    uint64_t bound = limits.envelope_bytes;
    *topic = (struct dp_topic){
        .target = target_of(model, id),
        .type = slice_from(id, DP_TOPIC_PREFIX.size),
        .major = m->major,
        .full_name = slice_str(m->full_name),
        .stream = slice_str(m->stream),
        .version = slice_str(m->version),
        .payload_bytes =
            m->payload_bytes == 0 || m->payload_bytes > bound ? (uint32_t)bound : m->payload_bytes,
        .schema = map_get(&model->schemas, part->key),
        .blocked = map_get(&model->blocked_types, part->key) != NULL,
    };
    if (topic->schema == NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(put_once(&model->topics, topic->type, topic));
    return add_topic_name(model, m, topic);
}

/* ---- egress ---- */

static struct err add_egress_host(struct dp_model *model, const struct dp_egress *egress,
                                  const char *host)
{
    struct slice key = {0};
    struct dp_linked_egress *linked = NULL;
    TRY(arena_printf(&model->arena, &key, "%.*s/%s", SLICE_ARG(egress->tenant), host));
    TRY(arena_calloc(&model->arena, 1, sizeof(*linked), (void **)&linked));
    if (key.size > DP_EGRESS_KEY_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    *linked = (struct dp_linked_egress){.egress = egress, .next = map_get(&model->egresses, key)};
    /* The map keeps the key that it has, which lives as long: both are in the arena. */
    return map_put(&model->egresses, key, linked, /* out_old= */ NULL);
}

static struct err link_egress_lists(struct dp_model *model, const Trilane__Parts__V1__EgressPart *m,
                                    struct dp_egress *egress)
{
    static const uint32_t usual_ports[] = {80, 443};
    struct slice *methods = NULL;
    struct slice *paths = NULL;
    struct slice *ranges = NULL;
    TRY(dp_decode_strings(&model->arena, m->methods, m->n_methods, &methods));
    TRY(dp_decode_strings(&model->arena, m->paths, m->n_paths, &paths));
    TRY(dp_decode_strings(&model->arena, m->address_ranges, m->n_address_ranges, &ranges));
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

static struct err link_egress(struct dp_model *model, const struct dp_model_part *part)
{
    const Trilane__Parts__V1__EgressPart *m = (const void *)part->part->message;
    struct dp_egress *egress = NULL;
    TRY(arena_calloc(&model->arena, 1, sizeof(*egress), (void **)&egress));
    *egress = (struct dp_egress){
        .target = target_of(model, slice_str(m->id)),
        .tenant = slice_str(m->tenant),
        .response_bytes = m->response_bytes,
    };
    TRY(find_transport(model, m->transport, &egress->transport));
    model->needs_system_trust |= egress->transport->upstream_tls == 0;
    TRY(link_egress_lists(model, m, egress));
    for (size_t i = 0; i < m->n_hosts; i++) {
        TRY(add_egress_host(model, egress, m->hosts[i]));
    }
    return OK;
}

/* ---- routes ---- */

static struct err link_targets(struct dp_model *model, const Trilane__Parts__V1__RouteEntry *m,
                               struct dp_route *route)
{
    struct dp_weighted *targets = NULL;
    TRY(arena_calloc(&model->arena, m->n_targets, sizeof(*targets), (void **)&targets));
    for (size_t i = 0; i < m->n_targets; i++) {
        targets[i].cluster = map_get(&model->clusters, slice_str(m->targets[i]->cluster));
        targets[i].weight = m->targets[i]->weight;
        if (targets[i].cluster == NULL || targets[i].weight == 0) {
            return FAIL(E_PART_MALFORMED);
        }
        route->weight_sum += targets[i].weight;
    }
    route->targets = targets;
    route->target_count = m->n_targets;
    return OK;
}

static struct err link_entry(struct dp_model *model, const Trilane__Parts__V1__RouteEntry *m,
                             const struct dp_route_entry *entry, struct dp_route *out)
{
    *out = (struct dp_route){.id = entry->id, .timeout_ms = m->timeout_ms};
    if (m->transport[0] != '\0') {
        TRY(find_transport(model, m->transport, &out->transport));
    }
    return link_targets(model, m, out);
}

static struct err find_host(struct dp_model *model, struct slice name, struct dp_linked_host **out)
{
    *out = map_get(&model->hosts, name);
    if (*out != NULL) {
        return OK;
    }
    model->wildcard_hosts |= slice_starts(name, SLICE_LIT("*."));
    TRY(arena_calloc(&model->arena, 1, sizeof(**out), (void **)out));
    return map_put(&model->hosts, name, *out, /* out_old= */ NULL);
}

static struct err link_routes(struct dp_model *model, const struct dp_model_part *part)
{
    const Trilane__Parts__V1__RouteGroup *m = (const void *)part->part->message;
    const struct dp_route_group *from = &part->part->as.routes;
    struct dp_linked_group *group = NULL;
    TRY(arena_calloc(&model->arena, 1, sizeof(*group), (void **)&group));
    TRY(arena_calloc(&model->arena, from->entry_count, sizeof(*group->routes),
                     (void **)&group->routes));
    for (size_t i = 0; i < from->entry_count; i++) {
        TRY(link_entry(model, m->routes[i], &from->entries[i], &group->routes[i]));
    }
    group->from = from;
    struct dp_linked_host *host = NULL;
    TRY(find_host(model, from->host, &host));
    if (from->segment.size == 0) {
        host->any = group;
        return OK;
    }
    return put_once(&host->segments, from->segment, group);
}

/* ---- all of them, what is named before what names it ---- */

static link_fn *const links[DP_PART_KIND_COUNT] = {
    [DP_PART_ENVIRONMENT] = link_environment,
    [DP_PART_REVOKED_IDENTITY] = link_revoked_identity,
    [DP_PART_REVOKED_CERTIFICATE] = link_revoked_certificate,
    [DP_PART_REVOKED_TOKEN] = link_revoked_token,
    [DP_PART_BLOCKED_TYPE] = link_blocked_type,
    [DP_PART_CALLER] = link_caller,
    [DP_PART_TRANSPORT] = link_transport,
    [DP_PART_POLICY] = link_policy,
    [DP_PART_LIMITS] = link_limits,
    [DP_PART_SCHEMA] = link_schema,
    [DP_PART_CLUSTER] = link_cluster,
    [DP_PART_ROUTES] = link_routes,
    [DP_PART_TOPIC] = link_topic,
    [DP_PART_EGRESS] = link_egress,
};

static struct err link_kind(struct dp_model *model, const struct dp_model_stream *stream,
                            enum dp_part_kind kind, struct slice *out_key)
{
    for (size_t i = 0; i < stream->count; i++) {
        if (stream->parts[i].part->kind == kind) {
            *out_key = stream->parts[i].key;
            TRY(links[kind](model, &stream->parts[i]));
        }
    }
    return OK;
}

struct err dp_model_link(struct dp_model *model, uint32_t *out_stream, struct slice *out_key)
{
    for (int kind = 0; kind < DP_PART_KIND_COUNT; kind++) {
        for (size_t i = 0; i < DP_MODEL_STREAMS; i++) {
            *out_stream = model->streams[i].kind;
            TRY(link_kind(model, &model->streams[i], (enum dp_part_kind)kind, out_key));
        }
    }
    if (model->environment == NULL) {
        *out_stream = STREAM_TRUST;
        *out_key = DP_ENVIRONMENT_KEY;
        return FAIL(E_PART_MALFORMED);
    }
    return OK;
}

void dp_model_unlink(struct dp_model *model)
{
    size_t at = 0;
    const struct map_entry *entry;
    while ((entry = map_next(&model->hosts, &at)) != NULL) {
        map_free(&((struct dp_linked_host *)entry->value)->segments);
    }
    map_free(&model->hosts);
    map_free(&model->callers_by_spiffe);
    map_free(&model->callers_by_token);
    map_free(&model->revoked_identities);
    map_free(&model->revoked_serials);
    map_free(&model->revoked_tokens);
    map_free(&model->blocked_types);
    map_free(&model->transports);
    map_free(&model->policies);
    map_free(&model->limits);
    map_free(&model->schemas);
    map_free(&model->clusters);
    map_free(&model->grpc_services);
    map_free(&model->tenants);
    map_free(&model->topics);
    map_free(&model->egresses);
}
