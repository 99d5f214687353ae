/* model: the look-ups, on the way of every request. Building is in build.c and link.c. */
#include "dataplane/apply/model.h"

#include "common/base/check.h"
#include "common/base/text.h"
#include "common/net/tls.h"
#include "common/snapshot/set.h"
#include "dataplane/apply/decode.h"
#include "dataplane/apply/model_impl.h"

uint64_t dp_model_version(const struct dp_model *model)
{
    return snap_set_version(model->set);
}

const uint8_t *dp_model_content_digest(const struct dp_model *model)
{
    return snap_set_content_digest(model->set);
}

const struct dp_environment *dp_model_environment(const struct dp_model *model)
{
    CHECK(model->environment != NULL);
    return model->environment;
}

const struct dp_caller *dp_model_caller_by_spiffe(const struct dp_model *model, struct slice spiffe)
{
    /* Who was revoked is not found. */
    return dp_model_spiffe_revoked(model, spiffe) ? NULL
                                                  : trie_get(&model->callers_by_spiffe, spiffe);
}

const struct dp_caller *dp_model_caller_by_token(const struct dp_model *model,
                                                 const uint8_t digest[DIGEST_SIZE])
{
    return dp_model_token_revoked(model, digest)
               ? NULL
               : trie_get(&model->callers_by_token, slice_of(digest, DIGEST_SIZE));
}

const struct dp_caller *dp_model_service(const struct dp_model *model, struct slice id)
{
    uint8_t room[DP_SERVICE_KEY_MAX];
    struct slice front = DP_SERVICE_PREFIX;
    if (id.size == 0 || front.size + id.size > sizeof(room)) {
        return NULL;
    }
    memcpy(room, front.ptr, front.size);
    memcpy(room + front.size, id.ptr, id.size);
    const struct dp_part *part =
        trie_get(&model->parts[DP_PART_CALLER], slice_of(room, front.size + id.size));
    return part == NULL ? NULL : &part->as.callers.named[0];
}

const struct dp_issuer *dp_model_issuer(const struct dp_model *model, struct slice issuer)
{
    return issuer.size == 0 ? NULL : trie_get(&model->issuers, issuer);
}

bool dp_model_has_issuers(const struct dp_model *model)
{
    return model->issuers.count > 0;
}

struct each_issuer {
    dp_issuer_fn *each;
    void *ctx;
};

static struct err call_each(void *ctx, struct slice key, void *value)
{
    const struct each_issuer *of = ctx;
    (void)key;
    of->each(of->ctx, value);
    return OK;
}

void dp_model_each_issuer(const struct dp_model *model, dp_issuer_fn *each, void *ctx)
{
    struct each_issuer of = {.each = each, .ctx = ctx};
    struct err e = trie_walk(&model->issuers, call_each, &of);
    CHECK(err_ok(e)); /* it says what call_each() says. */
}

/* ---- revocations ---- */

static bool has(const struct trie *trie, struct slice key)
{
    return trie->count > 0 && trie_get(trie, key) != NULL;
}

bool dp_model_spiffe_revoked(const struct dp_model *model, struct slice spiffe)
{
    return has(&model->revoked_identities, spiffe);
}

bool dp_model_serial_revoked(const struct dp_model *model, struct slice serial)
{
    return has(&model->revoked_serials, serial);
}

bool dp_model_token_revoked(const struct dp_model *model, const uint8_t digest[DIGEST_SIZE])
{
    struct slice key = slice_of(digest, DIGEST_SIZE);
    if (has(&model->revoked_tokens, key)) {
        return true;
    }
    /* Those of a revoked identity go with it. */
    const struct dp_caller *caller =
        model->revoked_identities.count == 0 ? NULL : trie_get(&model->callers_by_token, key);
    return caller != NULL && dp_model_spiffe_revoked(model, caller->spiffe);
}

bool dp_model_subject_revoked(const struct dp_model *model, struct slice subject)
{
    return has(&model->revoked_subjects, subject);
}

bool dp_model_peer_revoked(const struct dp_model *model, const struct net_identity *peer)
{
    return peer != NULL && (dp_model_serial_revoked(model, peer->serial) ||
                            dp_model_spiffe_revoked(model, peer->spiffe_id));
}

bool dp_model_trusts_domain(const struct dp_model *model, struct slice domain)
{
    const struct dp_environment *environment = dp_model_environment(model);
    bool trusted = slice_eq(environment->trust_domain, domain);
    for (size_t i = 0; !trusted && i < environment->trust_domain_count; i++) {
        trusted = slice_eq(environment->trust_domains[i], domain);
    }
    return trusted;
}

bool dp_model_revokes(const struct dp_model *model)
{
    return model->revoked_identities.count + model->revoked_serials.count +
               model->revoked_tokens.count + model->revoked_subjects.count +
               model->blocked_types.count >
           0;
}

/* ---- what is asked for ---- */

static const struct dp_part *find(const struct dp_model *model, enum dp_part_kind kind,
                                  struct slice key)
{
    return trie_get(&model->parts[kind], key);
}

const struct dp_cluster *dp_model_cluster(const struct dp_model *model, struct slice id)
{
    const struct dp_part *part = find(model, DP_PART_CLUSTER, id);
    return part == NULL ? NULL : &part->as.cluster;
}

bool dp_cluster_serves(const struct dp_cluster *cluster, struct slice grpc_service)
{
    for (size_t i = 0; i < cluster->grpc_service_count; i++) {
        if (slice_eq(cluster->grpc_services[i], grpc_service)) {
            return true;
        }
    }
    return false;
}

const struct dp_method_policy *dp_cluster_method(const struct dp_cluster *cluster,
                                                 struct slice path)
{
    for (size_t i = 0; i < cluster->method_count; i++) {
        if (text_glob(cluster->methods[i].name, path)) {
            return &cluster->methods[i];
        }
    }
    return NULL;
}

const struct dp_transport *dp_model_transport(const struct dp_model *model, struct slice name)
{
    if (name.size == 0) {
        return &model->usual_transport;
    }
    const struct dp_part *part = find(model, DP_PART_TRANSPORT, name);
    return part == NULL ? NULL : &part->as.transport;
}

const struct dp_policy_target *dp_model_policy(const struct dp_model *model,
                                               const struct dp_target *target)
{
    const struct dp_part *part = find(model, DP_PART_POLICY, target->id);
    return part == NULL ? NULL : part->as.policy;
}

const struct dp_limit_target *dp_model_limits(const struct dp_model *model,
                                              const struct dp_target *target)
{
    const struct dp_part *part = find(model, DP_PART_LIMITS, target->id);
    return part == NULL ? NULL : part->as.limits;
}

struct visit {
    struct err (*name)(void *ctx, struct slice name);
    struct err (*descriptors)(void *ctx, const struct dp_descriptors *d);
    void *ctx;
};

static struct err visit_name(void *ctx, struct slice key, void *value)
{
    const struct visit *v = ctx;
    (void)value;
    return v->name(v->ctx, key);
}

struct err dp_model_each_grpc_service(const struct dp_model *model,
                                      struct err (*visit)(void *ctx, struct slice name), void *ctx)
{
    struct visit v = {.name = visit, .ctx = ctx};
    return trie_walk(&model->grpc_services, visit_name, &v);
}

const struct dp_descriptors *dp_model_descriptors(const struct dp_model *model,
                                                  struct slice cluster)
{
    const struct dp_part *part = find(model, DP_PART_DESCRIPTORS, cluster);
    return part == NULL ? NULL : &part->as.descriptors;
}

static struct err visit_descriptors(void *ctx, struct slice key, void *value)
{
    const struct visit *v = ctx;
    const struct dp_part *part = value;
    (void)key;
    return v->descriptors(v->ctx, &part->as.descriptors);
}

struct err dp_model_each_descriptors(const struct dp_model *model,
                                     struct err (*visit)(void *ctx, const struct dp_descriptors *d),
                                     void *ctx)
{
    struct visit v = {.descriptors = visit, .ctx = ctx};
    return trie_walk(&model->parts[DP_PART_DESCRIPTORS], visit_descriptors, &v);
}

bool dp_model_method_streams(const struct dp_model *model, const struct dp_cluster *cluster,
                             struct slice path)
{
    const struct dp_descriptors *d = dp_model_descriptors(model, cluster->target.id);
    return d != NULL && dp_decode_has(d->streams, d->stream_count, path);
}

bool dp_model_has_grpc_service(const struct dp_model *model, struct slice name)
{
    return trie_get(&model->grpc_services, name) != NULL;
}

const struct dp_topic *dp_model_topic(const struct dp_model *model, struct slice type)
{
    const struct dp_part *part = find(model, DP_PART_TOPIC, type);
    return part != NULL ? &part->as.topic : trie_get(&model->topic_names, type);
}

const struct schema *dp_model_schema(const struct dp_model *model, const struct dp_topic *topic)
{
    const struct dp_part *part = find(model, DP_PART_SCHEMA, topic->type);
    CHECK(part != NULL); /* asked when the model was linked. */
    return part->as.schema;
}

bool dp_model_topic_blocked(const struct dp_model *model, const struct dp_topic *topic)
{
    return has(&model->blocked_types, topic->type);
}

bool dp_model_has_tenant(const struct dp_model *model, struct slice tenant)
{
    return trie_get(&model->tenants, tenant) != NULL;
}

/* ---- routes ---- */

/* Whole segments: "/v1" covers "/v1" and "/v1/x", not "/v12"; "/v1/" covers what is below. */
static bool covers(struct slice prefix, struct slice path)
{
    return slice_starts(path, prefix) &&
           (path.size == prefix.size || prefix.ptr[prefix.size - 1] == '/' ||
            path.ptr[prefix.size] == '/');
}

static bool path_matches(const struct dp_route_entry *entry, struct slice path)
{
    switch (entry->match) {
    case TRILANE__PARTS__V1__PATH_MATCH__PATH_EXACT:
        return slice_eq(entry->path, path);
    case TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX:
        return covers(entry->path, path);
    case TRILANE__PARTS__V1__PATH_MATCH__PATH_ANY:
    case _TRILANE__PARTS__V1__PATH_MATCH_IS_INT_SIZE:
        break;
    }
    return true;
}

static bool tenant_matches(const struct dp_route_entry *entry, struct slice tenant)
{
    for (size_t i = 0; i < entry->tenant_count; i++) {
        if (slice_eq(entry->tenants[i], tenant)) {
            return true;
        }
    }
    return entry->tenant_count == 0;
}

static bool headers_match(const struct dp_route_entry *entry, const struct dp_route_query *query)
{
    for (size_t i = 0; i < entry->header_count; i++) {
        const struct dp_route_header *wanted = &entry->headers[i];
        struct slice value = {0};
        if (query->header == NULL || !query->header(query->ctx, wanted->name, &value) ||
            (!wanted->present && !slice_eq(wanted->value, value))) {
            return false;
        }
    }
    return true;
}

/* A star covers one label or more: the hosts below, and not the one that is named. */
static bool covers_origin(struct slice pattern, struct slice origin)
{
    size_t star = slice_find(pattern, '*');
    if (star == pattern.size) {
        return slice_eq(pattern, origin);
    }
    struct slice tail = slice_from(pattern, star + 1);
    return origin.size > star + tail.size && slice_starts(origin, slice_head(pattern, star)) &&
           slice_ends(origin, tail) && origin.ptr[star] != '.';
}

bool dp_cors_allows(const struct dp_cors *cors, struct slice origin, bool ambient)
{
    if (ambient && cors != NULL && !cors->credentials) {
        return false;
    }
    bool allowed = cors != NULL && cors->any;
    for (size_t i = 0; cors != NULL && !allowed && i < cors->origin_count; i++) {
        allowed = covers_origin(cors->origins[i], origin);
    }
    return allowed;
}

/* Beside the path. */
static bool rest_matches(const struct dp_route_entry *entry, const struct dp_route_query *query)
{
    if (query->origin.size > 0) {
        return dp_cors_allows(entry->cors, query->origin, query->ambient);
    }
    return tenant_matches(entry, query->tenant) &&
           (entry->http_method.size == 0 || slice_eq(entry->http_method, query->method)) &&
           headers_match(entry, query);
}

static size_t find_linear(const struct dp_route_group *group, const struct dp_route_query *query)
{
    size_t i = 0;
    while (i < group->entry_count && !(path_matches(&group->entries[i], query->path) &&
                                       rest_matches(&group->entries[i], query))) {
        i++;
    }
    return i;
}

/* The first entry of a chain that matches, by its index, when that is below 'best'. */
static size_t find_in_chain(const struct dp_route_group *group, const struct dp_route_entry *entry,
                            const struct dp_route_query *query, size_t best)
{
    for (; entry != NULL && (size_t)(entry - group->entries) < best; entry = entry->next_of_path) {
        if (path_matches(entry, query->path) && rest_matches(entry, query)) {
            return (size_t)(entry - group->entries);
        }
    }
    return best;
}

/*
 * The same answer as find_linear(): what can match has the path itself, or a prefix of it that
 * ends before or behind a '/', or takes any path.
 */
static size_t find_indexed(const struct dp_route_group *group, const struct dp_route_query *query)
{
    struct slice path = query->path;
    size_t best = find_in_chain(group, map_get(&group->paths, path), query, group->entry_count);
    for (size_t i = 0; i < path.size && i <= group->prefix_max; i++) {
        if (path.ptr[i] == '/') {
            best = find_in_chain(group, map_get(&group->paths, slice_head(path, i)), query, best);
            best =
                find_in_chain(group, map_get(&group->paths, slice_head(path, i + 1)), query, best);
        }
    }
    return find_in_chain(group, group->any, query, best);
}

static const struct dp_route *find_entry(const struct dp_route_group *group,
                                         const struct dp_route_query *query)
{
    if (group == NULL) {
        return NULL;
    }
    size_t found = group->entry_count < DP_ROUTE_INDEX_MIN ? find_linear(group, query)
                                                           : find_indexed(group, query);
    CHECK(found <= group->entry_count);
    return found == group->entry_count ? NULL : &group->routes[found];
}

static struct slice first_segment(struct slice path)
{
    struct slice rest = slice_from(path, 1);
    return slice_head(rest, slice_find(rest, '/'));
}

/* A path that names a segment is more precise than any that names none. */
static const struct dp_route *find_in_host(const struct dp_linked_host *host,
                                           const struct dp_route_query *query)
{
    if (host == NULL) {
        return NULL;
    }
    const struct dp_route_group *group = trie_get(&host->segments, first_segment(query->path));
    const struct dp_route *route = find_entry(group, query);
    return route != NULL ? route : find_entry(host->any, query);
}

/* The longest host name that a wildcard is made from, and "*" before it. */
enum { HOST_MAX = 255 };

/* Walks "*.b.c", "*.c" for "a.b.c": the longest wildcard first. 'room' holds the name. */
static bool next_wildcard(struct slice *rest, uint8_t room[HOST_MAX + 1], struct slice *out)
{
    size_t dot = slice_find(*rest, '.');
    if (dot == rest->size || rest->size - dot > HOST_MAX) {
        return false;
    }
    struct slice tail = slice_from(*rest, dot);
    room[0] = '*';
    memcpy(room + 1, tail.ptr, tail.size);
    *out = slice_of(room, tail.size + 1);
    *rest = slice_from(tail, 1);
    return true;
}

const struct dp_route *dp_model_route(const struct dp_model *model,
                                      const struct dp_route_query *query)
{
    if (query->path.size == 0 || query->path.ptr[0] != '/') {
        return NULL;
    }
    const struct dp_route *route = find_in_host(trie_get(&model->hosts, query->host), query);
    uint8_t room[HOST_MAX + 1];
    struct slice rest = query->host;
    struct slice wildcard = {0};
    while (route == NULL && model->wildcard_hosts > 0 && next_wildcard(&rest, room, &wildcard)) {
        route = find_in_host(trie_get(&model->hosts, wildcard), query);
    }
    return route != NULL ? route : find_in_host(trie_get(&model->hosts, SLICE_LIT("*")), query);
}

const struct dp_cors *dp_model_cors(const struct dp_model *model, struct slice host,
                                    struct slice path, struct slice origin, bool ambient)
{
    const struct dp_route_query query = {
        .host = host, .path = path, .origin = origin, .ambient = ambient};
    const struct dp_route *route = origin.size == 0 ? NULL : dp_model_route(model, &query);
    return route == NULL ? NULL : route->cors;
}

/* ---- egress ---- */

static bool has_port(const struct dp_egress *egress, uint16_t port)
{
    for (size_t i = 0; i < egress->port_count; i++) {
        if (egress->ports[i] == port) {
            return true;
        }
    }
    return false;
}

static const struct dp_egress *find_egress(const struct dp_model *model, struct slice tenant,
                                           struct slice host, uint16_t port)
{
    uint8_t room[DP_EGRESS_KEY_MAX];
    if (tenant.size == 0 || host.size == 0 || tenant.size + 1 + host.size > sizeof(room)) {
        return NULL;
    }
    memcpy(room, tenant.ptr, tenant.size);
    room[tenant.size] = '/';
    memcpy(room + tenant.size + 1, host.ptr, host.size);
    const struct dp_linked_egresses *all =
        trie_get(&model->egresses, slice_of(room, tenant.size + 1 + host.size));
    for (size_t i = 0; all != NULL && i < all->count; i++) {
        if (has_port(&all->at[i]->as.egress.egress, port)) {
            return &all->at[i]->as.egress.egress;
        }
    }
    return all == NULL ? NULL : &all->at[0]->as.egress.egress;
}

const struct dp_egress *dp_model_egress(const struct dp_model *model, struct slice tenant,
                                        struct slice host, uint16_t port)
{
    const struct dp_egress *egress = find_egress(model, tenant, host, port);
    uint8_t room[HOST_MAX + 1];
    struct slice rest = host;
    struct slice wildcard = {0};
    while (egress == NULL && next_wildcard(&rest, room, &wildcard)) {
        egress = find_egress(model, tenant, wildcard, port);
    }
    return egress;
}

bool dp_model_needs_system_trust(const struct dp_model *model)
{
    return model->needs_system_trust;
}
