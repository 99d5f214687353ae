/* publisher: see publisher.h. */
#include "tests/support/publisher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "common/snapshot/container.h"
#include "common/snapshot/parts.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum { BYTES_MAX = 64 << 20 };

static void must(struct err e)
{
    if (!err_ok(e)) {
        (void)fprintf(stderr, "publisher: %s at %s\n", err_name(e.code), e.where);
        abort();
    }
}

/* ---- keys and root ---- */

static void new_pair(enum key_role role, const char *name, struct key_pair *out)
{
    must(key_pair_new(role, slice_str(name), out));
}

static void sign_into(enum container_kind kind, const char *environment, struct slice body,
                      const struct key_pair *const *keys, size_t count, struct buf *out)
{
    uint8_t id[ENVIRONMENT_SIZE];
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    snap_environment(slice_str(environment), id);
    for (size_t i = 0; i < count; i++) {
        must(container_sign(kind, id, body, keys[i], &signatures[i]));
    }
    must(container_seal(kind, id, body, signatures, count, out));
}

static void seal_root(struct publisher *p, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    must(root_encode(&p->root, &body));
    const struct key_pair *keys[] = {&p->root_key};
    sign_into(CONTAINER_ROOT, PUBLISHER_ENVIRONMENT, buf_slice(&body), keys, 1, out);
}

void publisher_init(struct publisher *p)
{
    ids_init();
    *p = (struct publisher){.root_bytes = BUF_MAX((size_t)2 * ROOT_BODY_MAX)};
    new_pair(KEY_ROLE_ROOT, "root", &p->root_key);
    new_pair(KEY_ROLE_MANIFEST, "manifest", &p->manifest_key);
    new_pair(KEY_ROLE_HEAD, "head", &p->head_key);
    new_pair(KEY_ROLE_HEAD, "stranger", &p->stranger);
    (void)snprintf(p->root.environment, sizeof(p->root.environment), "%s", PUBLISHER_ENVIRONMENT);
    p->root.version = 1;
    p->root.not_after_ms = clock_wall_ms() + INT64_C(86400000);
    must(root_add_key(&p->root, &p->root_key.public, 0));
    must(root_add_key(&p->root, &p->manifest_key.public, 0));
    must(root_add_key(&p->root, &p->head_key.public, p->root.not_after_ms));
    for (int role = 0; role < ROOT_ROLE_COUNT; role++) {
        p->root.ring.thresholds[role] = 1;
    }
    seal_root(p, &p->root_bytes);
    must(root_open(buf_slice(&p->root_bytes), &p->root));
}

void publisher_free(struct publisher *p)
{
    buf_free(&p->root_bytes);
}

void publisher_next_root(struct publisher *p, const struct root_floor *floor, struct buf *out)
{
    p->root.version++;
    p->root.has_floor = floor != NULL;
    if (floor != NULL) {
        p->root.floor = *floor;
    }
    seal_root(p, out);
}

/* ---- content ---- */

struct content *content_empty(void)
{
    struct content *c = calloc(1, sizeof(*c));
    CHECK(c != NULL);
    c->format = SNAPSHOT_FORMAT;
    return c;
}

void content_free(struct content *c)
{
    for (size_t i = 0; c != NULL && i < c->count; i++) {
        buf_free(&c->parts[i].bytes);
    }
    free(c);
}

void content_remove(struct content *c, uint32_t stream, const char *key)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->parts[i].stream == stream && strcmp(c->parts[i].key, key) == 0) {
            buf_free(&c->parts[i].bytes);
            c->parts[i] = c->parts[--c->count];
            return;
        }
    }
}

void content_put_bytes(struct content *c, uint32_t stream, const char *key, struct slice bytes)
{
    content_remove(c, stream, key);
    CHECK(c->count < CONTENT_PARTS_MAX);
    struct content_part *part = &c->parts[c->count++];
    *part = (struct content_part){.stream = stream, .bytes = BUF_MAX(PART_MAX)};
    (void)snprintf(part->key, sizeof(part->key), "%s", key);
    must(buf_add(&part->bytes, bytes));
}

void content_put(struct content *c, uint32_t stream, const char *key,
                 const ProtobufCMessage *message)
{
    auto_buf struct buf bytes = BUF_MAX(PART_MAX);
    must(proto_encode(message, &bytes));
    content_put_bytes(c, stream, key, buf_slice(&bytes));
}

static void put_service(struct content *c, const char *name, uint16_t port, const uint8_t *token)
{
    char id[64];
    char spiffe[128];
    char full[64];
    (void)snprintf(id, sizeof(id), "service/acme/%s", name);
    (void)snprintf(spiffe, sizeof(spiffe), "spiffe://trilane.test/tenant/acme/service/%s", name);
    (void)snprintf(full, sizeof(full), "acme.%s", name);
    Trilane__Parts__V1__Trait trait;
    trilane__parts__v1__trait__init(&trait);
    trait.name = publisher_text("tier");
    trait.value = publisher_text("gold");
    Trilane__Parts__V1__Trait *traits[] = {&trait};
    uint8_t copy[DIGEST_SIZE] = {0};
    if (token != NULL) {
        memcpy(copy, token, sizeof(copy));
    }
    ProtobufCBinaryData digest = {.len = DIGEST_SIZE, .data = copy};
    Trilane__Parts__V1__Caller caller;
    trilane__parts__v1__caller__init(&caller);
    if (c->format < TRUST_FORMAT_BY_KEY) {
        caller.id = id;
        caller.spiffe = spiffe;
        caller.tenant = publisher_text("acme");
        caller.service = publisher_text(name);
    }
    caller.n_traits = 1;
    caller.traits = traits;
    caller.n_token_digests = token == NULL ? 0 : 1;
    caller.token_digests = &digest;
    content_put(c, STREAM_TRUST, id, &caller.base);

    Trilane__Parts__V1__Endpoint endpoint;
    trilane__parts__v1__endpoint__init(&endpoint);
    endpoint.address = publisher_text("127.0.0.1");
    endpoint.port = port;
    endpoint.weight = 1;
    Trilane__Parts__V1__Endpoint *endpoints[] = {&endpoint};
    char *services[] = {full};
    Trilane__Parts__V1__Cluster cluster;
    trilane__parts__v1__cluster__init(&cluster);
    cluster.id = id;
    cluster.tenant = publisher_text("acme");
    cluster.name = publisher_text(name);
    cluster.n_endpoints = 1;
    cluster.endpoints = endpoints;
    cluster.transport = publisher_text("default");
    cluster.n_grpc_services = 1;
    cluster.grpc_services = services;
    content_put(c, STREAM_ROUTING, id, &cluster.base);
}

static void put_route(struct content *c)
{
    Trilane__Parts__V1__WeightedTarget target;
    trilane__parts__v1__weighted_target__init(&target);
    target.cluster = publisher_text("service/acme/orders");
    target.weight = 1;
    Trilane__Parts__V1__WeightedTarget *targets[] = {&target};
    Trilane__Parts__V1__RouteEntry exact;
    trilane__parts__v1__route_entry__init(&exact);
    exact.id = publisher_text("acme/orders/0");
    exact.match = TRILANE__PARTS__V1__PATH_MATCH__PATH_EXACT;
    exact.path = publisher_text("/acme.orders/Get");
    exact.n_targets = 1;
    exact.targets = targets;
    exact.timeout_ms = 700;
    Trilane__Parts__V1__RouteEntry prefix = exact;
    prefix.id = publisher_text("acme/orders");
    prefix.match = TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX;
    prefix.path = publisher_text("/acme.orders");
    prefix.timeout_ms = 0;
    Trilane__Parts__V1__RouteEntry *routes[] = {&exact, &prefix};
    Trilane__Parts__V1__RouteGroup group;
    trilane__parts__v1__route_group__init(&group);
    group.host = publisher_text("*");
    group.segment = publisher_text("acme.orders");
    group.n_routes = 2;
    group.routes = routes;
    content_put(c, STREAM_ROUTING, "host/*/acme.orders", &group.base);
}

static void put_policy(struct content *c, const char *target, bool allow)
{
    Trilane__Parts__V1__Verdict verdict;
    trilane__parts__v1__verdict__init(&verdict);
    verdict.allow = allow;
    verdict.rule = publisher_text(allow ? "acme/all/allow" : "");
    Trilane__Parts__V1__Verdict *verdicts[] = {&verdict};
    Trilane__Parts__V1__PolicyTarget policy;
    trilane__parts__v1__policy_target__init(&policy);
    policy.target = publisher_text(target);
    policy.n_verdicts = 1;
    policy.verdicts = verdicts;
    content_put(c, STREAM_AUTHORISATION, target, &policy.base);
}

static void put_limit(struct content *c)
{
    Trilane__Parts__V1__Limit limit;
    trilane__parts__v1__limit__init(&limit);
    limit.id = publisher_text("acme/orders");
    limit.period_ns = 1000000;
    limit.burst = 1000;
    Trilane__Parts__V1__Limit *list[] = {&limit};
    Trilane__Parts__V1__LimitTarget target;
    trilane__parts__v1__limit_target__init(&target);
    target.target = publisher_text("service/acme/orders");
    target.n_limits = 1;
    target.limits = list;
    content_put(c, STREAM_LIMITS, "service/acme/orders", &target.base);
}

static void put_bus(struct content *c)
{
    uint8_t fingerprint[DIGEST_SIZE] = {1};
    Trilane__Parts__V1__SchemaMessage message;
    trilane__parts__v1__schema_message__init(&message);
    message.name = publisher_text("acme.users.v2.User");
    Trilane__Parts__V1__SchemaMessage *messages[] = {&message};
    Trilane__Parts__V1__Schema schema;
    trilane__parts__v1__schema__init(&schema);
    schema.type = publisher_text("User.v2");
    schema.full_name = publisher_text("acme.users.v2.User");
    schema.n_messages = 1;
    schema.messages = messages;
    schema.fingerprint = (ProtobufCBinaryData){.len = DIGEST_SIZE, .data = fingerprint};
    content_put(c, STREAM_SCHEMAS, "User.v2", &schema.base);
    Trilane__Parts__V1__TopicPart topic;
    trilane__parts__v1__topic_part__init(&topic);
    topic.type = publisher_text("User");
    topic.major = 2;
    topic.full_name = publisher_text("acme.users.v2.User");
    topic.stream = publisher_text("TRILANE_EVENTS");
    topic.version = publisher_text("2.0.0");
    content_put(c, STREAM_BUS, "User.v2", &topic.base);
}

static void put_egress(struct content *c)
{
    char exact[] = "api.example.com";
    char wildcard[] = "*.example.org";
    char *hosts[] = {wildcard, exact};
    Trilane__Parts__V1__EgressPart egress;
    trilane__parts__v1__egress_part__init(&egress);
    egress.id = publisher_text("egress/acme/partners");
    egress.tenant = publisher_text("acme");
    egress.n_hosts = 2;
    egress.hosts = hosts;
    egress.transport = publisher_text("default");
    content_put(c, STREAM_EGRESS, "acme/partners", &egress.base);
}

void content_move_web(struct content *c, uint16_t port)
{
    uint8_t token[DIGEST_SIZE];
    ids_digest(SLICE_LIT("token-of-web"), token);
    put_service(c, "web", port, token);
}

static struct content *sample(uint16_t endpoint_port, uint32_t format)
{
    struct content *c = content_empty();
    c->format = format;
    Trilane__Parts__V1__EnvironmentPart environment;
    trilane__parts__v1__environment_part__init(&environment);
    environment.name = publisher_text(PUBLISHER_ENVIRONMENT);
    environment.trust_domain = publisher_text("trilane.test");
    environment.partitions = 16;
    content_put(c, STREAM_TRUST, "environment", &environment.base);
    Trilane__Parts__V1__Transport transport;
    trilane__parts__v1__transport__init(&transport);
    transport.id = publisher_text("default");
    transport.timeout_ms = 3000;
    content_put(c, STREAM_TRANSPORT, "default", &transport.base);
    content_move_web(c, 9);
    put_service(c, "orders", endpoint_port, NULL);
    put_route(c);
    put_policy(c, "service/acme/orders", /* allow= */ true);
    put_policy(c, "topic/User.v2", /* allow= */ true);
    put_limit(c);
    put_bus(c);
    put_egress(c);
    return c;
}

struct content *content_sample(uint16_t endpoint_port)
{
    return sample(endpoint_port, SNAPSHOT_FORMAT);
}

struct content *content_sample_former(uint16_t endpoint_port)
{
    return sample(endpoint_port, SNAPSHOT_FORMAT_LEAST);
}

void content_revoke(struct content *c, const char *key)
{
    Trilane__Parts__V1__Revocation part;
    trilane__parts__v1__revocation__init(&part);
    content_put(c, STREAM_REVOCATIONS, key, &part.base);
    c->capabilities |= CAPABILITY_REVOCATIONS;
}

void content_fill_policies(struct content *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char target[64];
        (void)snprintf(target, sizeof(target), "service/filler/%08zu", i);
        put_policy(c, target, i % 2 == 0);
    }
}

/* ---- a version ---- */

struct sorted_part {
    const struct content_part *part;
};

static int by_stream_and_key(const void *a, const void *b)
{
    const struct content_part *x = ((const struct sorted_part *)a)->part;
    const struct content_part *y = ((const struct sorted_part *)b)->part;
    if (x->stream != y->stream) {
        return x->stream < y->stream ? -1 : 1;
    }
    return slice_cmp(slice_str(x->key), slice_str(y->key));
}

static size_t add_stream(struct version *v, const struct sorted_part *parts, size_t count,
                         uint32_t format)
{
    size_t n = v->stream_count++;
    uint32_t kind = parts[0].part->stream;
    v->raw[n] = BUF_MAX(BYTES_MAX);
    struct part_writer writer = {.out = &v->raw[n]};
    size_t i = 0;
    for (; i < count && parts[i].part->stream == kind; i++) {
        must(part_add(&writer, slice_str(parts[i].part->key), buf_slice(&parts[i].part->bytes)));
    }
    must(cut_stream(kind, buf_slice(&v->raw[n]), /* options= */ NULL, &v->streams[n]));
    uint32_t written = stream_format(kind, format);
    v->streams[n].format = written != 0 ? written : v->streams[n].format;
    return i;
}

struct version *version_cut(const struct content *c, uint64_t number)
{
    struct version *v = calloc(1, sizeof(*v));
    struct sorted_part *sorted = calloc(c->count + 1, sizeof(*sorted));
    CHECK(v != NULL && sorted != NULL);
    v->number = number;
    for (size_t i = 0; i < c->count; i++) {
        sorted[i].part = &c->parts[i];
    }
    qsort(sorted, c->count, sizeof(*sorted), by_stream_and_key);
    for (size_t i = 0; i < c->count;) {
        i += add_stream(v, sorted + i, c->count - i, c->format);
    }
    free(sorted);
    return v;
}

void version_sign(struct publisher *p, struct version *v, uint64_t capabilities,
                  const struct key_pair *key)
{
    struct manifest_plan plan = {
        .version = v->number,
        .made_at_ms = clock_wall_ms(),
        .capabilities = capabilities,
        .streams = v->streams,
        .stream_count = v->stream_count,
    };
    v->body = BUF_MAX(MANIFEST_BODY_MAX);
    v->manifest = BUF_MAX((size_t)2 * MANIFEST_BODY_MAX);
    must(manifest_encode(&plan, &v->body));
    ids_digest(buf_slice(&v->body), v->digest);
    const struct key_pair *keys[] = {key == NULL ? &p->manifest_key : key};
    sign_into(CONTAINER_MANIFEST, PUBLISHER_ENVIRONMENT, buf_slice(&v->body), keys, 1,
              &v->manifest);
}

void version_append(struct publisher *p, struct version *v, struct slice bytes)
{
    must(buf_add(&v->body, bytes));
    ids_digest(buf_slice(&v->body), v->digest);
    const struct key_pair *keys[] = {&p->manifest_key};
    buf_clear(&v->manifest);
    sign_into(CONTAINER_MANIFEST, PUBLISHER_ENVIRONMENT, buf_slice(&v->body), keys, 1,
              &v->manifest);
}

struct version *version_new(struct publisher *p, const struct content *c, uint64_t number,
                            const struct key_pair *key)
{
    struct version *v = version_cut(c, number);
    version_sign(p, v, c->capabilities, key);
    return v;
}

void version_free(struct version *v)
{
    for (size_t i = 0; v != NULL && i < v->stream_count; i++) {
        cut_stream_free(&v->streams[i]);
        buf_free(&v->raw[i]);
    }
    if (v != NULL) {
        buf_free(&v->body);
        buf_free(&v->manifest);
    }
    free(v);
}

static const struct cut_chunk *find_chunk(const struct version *v, const uint8_t *digest)
{
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            if (memcmp(v->streams[i].chunks[k].digest, digest, DIGEST_SHORT_SIZE) == 0) {
                return &v->streams[i].chunks[k];
            }
        }
    }
    abort();
}

struct snap_set *version_set(struct publisher *p, const struct version *v,
                             struct snap_set *previous)
{
    auto_manifest struct manifest m = {0};
    struct manifest_wanted wanted = {.version = v->number, .digest = v->digest};
    must(manifest_open(buf_slice(&v->manifest), &p->root, &wanted, &m));
    struct snap_set *set = NULL;
    must(snap_set_new(&m, previous, &set));
    struct snap_missing missing;
    size_t at = 0;
    while (snap_set_missing(set, &at, &missing)) {
        must(snap_set_add(set, &missing.name, find_chunk(v, missing.name.digest)->stored));
    }
    must(snap_set_close(set));
    return set;
}

/* ---- a head ---- */

void publisher_head(struct publisher *p, const struct head_plan *plan, struct buf *out)
{
    int64_t signed_at = plan->signed_at_ms == 0 ? clock_wall_ms() : plan->signed_at_ms;
    struct head head = {
        .root_version = plan->root_version == 0 ? 1 : plan->root_version,
        .epoch = plan->epoch,
        .sequence = plan->sequence,
        .signed_at_ms = signed_at,
        .expires_at_ms = signed_at + (plan->validity_ms == 0 ? 15000 : plan->validity_ms),
        .target_count = 1,
        .targets = {{.all = true, .version = plan->version}},
    };
    memcpy(head.targets[0].manifest_digest, plan->digest, DIGEST_SIZE);
    if (plan->no_target) {
        head.targets[0].all = false;
        head.targets[0].label_count = 1;
        head.targets[0].labels[0] = (struct head_label){SLICE_LIT("zone"), SLICE_LIT("nowhere")};
        head.targets[0].per_mille = 1000;
    }
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    must(head_encode(&head, &body));
    if (plan->unknown_field) {
        static const uint8_t field_50[] = {0x90, 0x03, 0x01};
        must(buf_add(&body, slice_of(field_50, sizeof(field_50))));
    }
    const struct key_pair *keys[] = {plan->key == NULL ? &p->head_key : plan->key};
    sign_into(CONTAINER_HEAD, plan->environment == NULL ? PUBLISHER_ENVIRONMENT : plan->environment,
              buf_slice(&body), keys, 1, out);
}
