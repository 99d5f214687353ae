/* part: see part.h. What a part says of itself is judged here; what it names, in link.c. */
#include "dataplane/apply/part.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/net/tls.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "common/snapshot/parts.h"
#include "dataplane/apply/decode.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/policy.h"

/* Memory of what is built beside one message: a bound on our own arithmetic, not on the format,
 * whose bound of a part's size is far below. */
enum { PART_ARENA_BLOCK = 512 };

enum { SERIAL_BYTES_MAX = 20 }; /* RFC 5280, 4.1.2.2. */

/* ---- environment ---- */

static struct err decode_environment(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__EnvironmentPart *m = (const void *)part->message;
    (void)key;
    if (m->name[0] == '\0' || m->trust_domain[0] == '\0' || m->security > 1 || m->partitions == 0 ||
        m->partitions > DP_PARTITIONS_MAX || m->n_trust_domains > DP_TRUST_DOMAINS_MAX ||
        (part->format < TRUST_FORMAT_BY_KEY && m->n_trust_domains > 0)) {
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
        .partitions = m->partitions,
        .freshness_max_ms = m->freshness_max_ms,
    };
    return OK;
}

/* ---- callers ---- */

static struct err decode_traits(const Trilane__Parts__V1__Caller *m, struct dp_part *part)
{
    struct dp_trait *traits = NULL;
    TRY(arena_calloc(&part->arena, m->n_traits, sizeof(*traits), (void **)&traits));
    for (size_t i = 0; i < m->n_traits; i++) {
        traits[i] =
            (struct dp_trait){slice_str(m->traits[i]->name), slice_str(m->traits[i]->value)};
        if (traits[i].name.size == 0 ||
            (i > 0 && slice_cmp(traits[i - 1].name, traits[i].name) >= 0)) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    part->as.caller.traits = traits;
    part->as.caller.trait_count = m->n_traits;
    return OK;
}

/* Format 1: the message says again what the key says. */
static struct err decode_said_caller(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->message;
    struct dp_caller *caller = &part->as.caller;
    *caller = (struct dp_caller){
        .spiffe = slice_str(m->spiffe),
        .tenant = slice_str(m->tenant),
        .service = slice_str(m->service),
    };
    struct net_spiffe spiffe = {0};
    if (!err_ok(net_spiffe_parse(caller->spiffe, &spiffe)) || !slice_eq(key, slice_str(m->id))) {
        return FAIL(E_PART_MALFORMED);
    }
    caller->domain = spiffe.trust_domain;
    TRY(arena_printf(&part->arena, &caller->id, "%s/%s", m->tenant, m->service));
    bool same = slice_starts(key, DP_SERVICE_PREFIX) &&
                slice_eq(slice_from(key, DP_SERVICE_PREFIX.size), caller->id);
    return same ? OK : FAIL(E_PART_MALFORMED);
}

/* Format 2: the key alone; whom it is known as in which trust domain is told by link.c. */
static struct err decode_keyed_caller(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->message;
    struct dp_caller *caller = &part->as.caller;
    *caller = (struct dp_caller){0};
    bool said_again =
        m->id[0] != '\0' || m->spiffe[0] != '\0' || m->tenant[0] != '\0' || m->service[0] != '\0';
    if (said_again || !slice_starts(key, DP_SERVICE_PREFIX)) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(arena_dup(&part->arena, slice_from(key, DP_SERVICE_PREFIX.size), &caller->id));
    caller->tenant = slice_head(caller->id, slice_find(caller->id, '/'));
    caller->service = slice_from(caller->id, caller->tenant.size + 1);
    bool whole = caller->tenant.size > 0 && caller->service.size > 0 &&
                 slice_find(caller->service, '/') == caller->service.size;
    return whole ? OK : FAIL(E_PART_MALFORMED);
}

static struct err decode_caller(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__Caller *m = (const void *)part->message;
    TRY(part->format < TRUST_FORMAT_BY_KEY ? decode_said_caller(key, part)
                                           : decode_keyed_caller(key, part));
    for (size_t i = 0; i < m->n_token_digests; i++) {
        if (m->token_digests[i].len != DIGEST_SIZE) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return decode_traits(m, part);
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

static struct err judge_key(struct dp_part *part, bool holds)
{
    proto_free(part->message); /* these may be many. */
    part->message = NULL;
    return holds ? OK : FAIL(E_PART_MALFORMED);
}

static struct err decode_revoked_identity(struct slice key, struct dp_part *part)
{
    struct slice spiffe = slice_from(key, DP_REVOKED_IDENTITY_PREFIX.size);
    return judge_key(part, slice_starts(spiffe, SLICE_LIT("spiffe://")));
}

static struct err decode_revoked_certificate(struct slice key, struct dp_part *part)
{
    struct slice serial = slice_from(key, DP_REVOKED_CERTIFICATE_PREFIX.size);
    bool padded = serial.size > 2 && slice_starts(serial, SLICE_LIT("00"));
    return judge_key(part, is_hex(serial, SERIAL_BYTES_MAX) && !padded);
}

static struct err decode_revoked_token(struct slice key, struct dp_part *part)
{
    struct slice digest = slice_from(key, DP_REVOKED_TOKEN_PREFIX.size);
    return judge_key(part, is_hex(digest, DIGEST_SIZE) && digest.size == (size_t)2 * DIGEST_SIZE);
}

static struct err decode_blocked_type(struct slice key, struct dp_part *part)
{
    return judge_key(part, key.size > DP_BLOCKED_TYPE_PREFIX.size);
}

/* A newer release revokes something else by it, which is not passed over. */
static struct err decode_unknown_revocation(struct slice key, struct dp_part *part)
{
    (void)key;
    (void)part;
    return FAIL(E_CAPABILITY_MISSING);
}

/* ---- transport ---- */

static uint32_t or_limit(uint32_t value, uint64_t limit)
{
    return value == 0 || value > limit ? (uint32_t)limit : value;
}

static struct err decode_transport(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__Transport *m = (const void *)part->message;
    if (!slice_eq(key, slice_str(m->id)) || m->upstream_tls > 2) {
        return FAIL(E_PART_MALFORMED);
    }
    part->as.transport = (struct dp_transport){
        .id = slice_str(m->id),
        .timeout_ms = m->timeout_ms == 0 ? (uint32_t)limits.deadline_default_ms : m->timeout_ms,
        .timeout_max_ms = m->timeout_max_ms,
        .connect_timeout_ms = m->connect_timeout_ms == 0 ? (uint32_t)limits.connect_timeout_ms
                                                         : m->connect_timeout_ms,
        .idle_timeout_ms = m->idle_timeout_ms,
        .request_message_bytes = or_limit(m->request_message_bytes, limits.request_body_bytes),
        .response_message_bytes = or_limit(m->response_message_bytes, limits.request_body_bytes),
        .upstream_tls = m->upstream_tls,
        .upstream_sni = slice_str(m->upstream_sni),
        .upstream_spiffe = slice_str(m->upstream_spiffe),
    };
    return OK;
}

/* ---- routes ---- */

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
    return OK;
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

static struct err decode_routes(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__RouteGroup *m = (const void *)part->message;
    struct dp_route_group *group = &part->as.routes;
    *group = (struct dp_route_group){.host = slice_str(m->host), .segment = slice_str(m->segment)};
    if (!is_group_key(key, group->host, group->segment) || m->n_routes == 0) {
        return FAIL(E_PART_MALFORMED);
    }
    struct dp_route_entry *entries = NULL;
    TRY(arena_calloc(&part->arena, m->n_routes, sizeof(*entries), (void **)&entries));
    for (size_t i = 0; i < m->n_routes; i++) {
        TRY(decode_entry(m->routes[i], &part->arena, &entries[i]));
    }
    group->entries = entries;
    group->entry_count = m->n_routes;
    return m->n_routes < DP_ROUTE_INDEX_MIN ? OK : index_paths(group, entries);
}

/* ---- clusters, topics, egress: linked straight from their messages ---- */

static struct err decode_cluster(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__Cluster *m = (const void *)part->message;
    struct slice id = {0};
    TRY(arena_printf(&part->arena, &id, "service/%s/%s", m->tenant, m->name));
    if (!slice_eq(key, id) || !slice_eq(key, slice_str(m->id))) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < m->n_endpoints; i++) {
        const Trilane__Parts__V1__Endpoint *e = m->endpoints[i];
        if (e->address[0] == '\0' || e->port == 0 || e->port > UINT16_MAX || e->weight == 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

static struct err decode_topic(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__TopicPart *m = (const void *)part->message;
    struct slice type = {0};
    TRY(arena_printf(&part->arena, &type, "%s.v%u", m->type, m->major));
    if (!slice_eq(key, type) || m->full_name[0] == '\0' || m->stream[0] == '\0') {
        return FAIL(E_PART_MALFORMED);
    }
    return OK;
}

static struct err decode_egress(struct slice key, struct dp_part *part)
{
    const Trilane__Parts__V1__EgressPart *m = (const void *)part->message;
    struct slice id = slice_str(m->id);
    if (!slice_starts(id, DP_EGRESS_PREFIX) ||
        !slice_eq(slice_from(id, DP_EGRESS_PREFIX.size), key) || m->tenant[0] == '\0' ||
        m->n_hosts == 0) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < m->n_ports; i++) {
        if (m->ports[i] == 0 || m->ports[i] > UINT16_MAX) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

/* ---- those that keep their own form ---- */

static struct err build_policy(struct slice key, struct slice bytes, struct dp_part *part)
{
    TRY(dp_policy_build(bytes, &part->as.policy));
    return slice_eq(key, dp_policy_target_id(part->as.policy)) ? OK : FAIL(E_PART_MALFORMED);
}

static struct err build_limits(struct slice key, struct slice bytes, struct dp_part *part)
{
    TRY(dp_limit_build(bytes, &part->as.limits));
    return slice_eq(key, dp_limit_target_id(part->as.limits)) ? OK : FAIL(E_PART_MALFORMED);
}

/* The tables are a schema's own, so the message is not kept. */
static struct err decode_schema(struct slice key, struct dp_part *part)
{
    TRY(schema_build((const void *)part->message, &part->as.schema));
    proto_free(part->message);
    part->message = NULL;
    return slice_eq(key, schema_type(part->as.schema)) ? OK : FAIL(E_PART_MALFORMED);
}

/* ---- all of them ---- */

struct part_row {
    uint32_t stream;
    enum dp_part_kind kind;
    const char *prefix; /* of the key; empty: every key of the stream. */
    /* Either the message is decoded strictly and judged… */
    struct err (*decode)(struct slice key, struct dp_part *part);
    /* …or the bytes are built as they are. */
    struct err (*build)(struct slice key, struct slice bytes, struct dp_part *part);
};

static const struct part_row rows[] = {
    {STREAM_ROUTING, DP_PART_ROUTES, "host/", decode_routes, NULL},
    {STREAM_ROUTING, DP_PART_CLUSTER, "service/", decode_cluster, NULL},
    {STREAM_TRUST, DP_PART_ENVIRONMENT, "environment", decode_environment, NULL},
    {STREAM_TRUST, DP_PART_CALLER, "service/", decode_caller, NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_IDENTITY, "identity/", decode_revoked_identity, NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_CERTIFICATE, "certificate/", decode_revoked_certificate,
     NULL},
    {STREAM_REVOCATIONS, DP_PART_REVOKED_TOKEN, "token/", decode_revoked_token, NULL},
    {STREAM_REVOCATIONS, DP_PART_BLOCKED_TYPE, "type/", decode_blocked_type, NULL},
    {STREAM_REVOCATIONS, DP_PART_KIND_COUNT, "", decode_unknown_revocation, NULL},
    {STREAM_AUTHORISATION, DP_PART_POLICY, "", NULL, build_policy},
    {STREAM_LIMITS, DP_PART_LIMITS, "", NULL, build_limits},
    {STREAM_TRANSPORT, DP_PART_TRANSPORT, "", decode_transport, NULL},
    {STREAM_EGRESS, DP_PART_EGRESS, "", decode_egress, NULL},
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

static struct err fill(const struct part_row *row, uint32_t stream, const struct part *from,
                       struct dp_part *part)
{
    if (row->build != NULL) {
        return row->build(from->key, from->bytes, part);
    }
    const ProtobufCMessageDescriptor *type = part_message(stream, from->key);
    if (type == NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(part_decode(type, from->bytes, &part->message));
    return row->decode(from->key, part);
}

struct err dp_part_new(uint32_t stream, uint32_t format, const struct part *from,
                       struct dp_part **out)
{
    const struct part_row *row = find_row(stream, from->key);
    if (row == NULL) {
        return FAIL(E_PART_MALFORMED);
    }
    struct dp_part *part = calloc(1, sizeof(*part));
    if (part == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    part->kind = row->kind;
    part->refs = 1;
    part->format = format;
    arena_init(&part->arena, PART_ARENA_BLOCK, (size_t)PART_MEMORY_FACTOR * PART_MAX);
    struct err e = fill(row, stream, from, part);
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
