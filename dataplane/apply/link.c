/*
 * link: the tables that requests look things up in, and whether what parts name is there.
 *
 * A table is a trie that a model shares with the one before; taking a part out of it and putting
 * one in costs what these touch. What several parts give together (a host of several groups, a
 * tenant of several services) is a small thing of its own, made anew by each change.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "dataplane/apply/model_impl.h"

/* ---- what tables hold ---- */

static void part_take(void *value)
{
    (void)dp_part_ref(value);
}

static void part_drop(void *value)
{
    dp_part_unref(value);
}

static void tally_take(void *value)
{
    ((struct dp_tally *)value)->refs++;
}

static void tally_drop(void *value)
{
    struct dp_tally *tally = value;
    if (--tally->refs == 0) {
        free(tally);
    }
}

static void host_take(void *value)
{
    ((struct dp_linked_host *)value)->refs++;
}

static void host_drop(void *value)
{
    struct dp_linked_host *host = value;
    if (--host->refs == 0) {
        trie_free(&host->segments);
        free(host);
    }
}

static void egresses_take(void *value)
{
    ((struct dp_linked_egresses *)value)->refs++;
}

static void egresses_drop(void *value)
{
    struct dp_linked_egresses *egresses = value;
    if (--egresses->refs == 0) {
        free(egresses);
    }
}

static const struct trie_owner part_owner = {part_take, part_drop};
static const struct trie_owner tally_owner = {tally_take, tally_drop};
static const struct trie_owner host_owner = {host_take, host_drop};
static const struct trie_owner egresses_owner = {egresses_take, egresses_drop};

/* ---- all tables ---- */

enum { TABLES_MAX = DP_PART_KIND_COUNT + 13 };

struct tables {
    struct trie *at[TABLES_MAX];
};

static struct tables tables_of(struct dp_model *m)
{
    struct tables t = {.at = {&m->callers_by_spiffe, &m->callers_by_token, &m->revoked_identities,
                              &m->revoked_serials, &m->revoked_tokens, &m->blocked_types,
                              &m->grpc_services, &m->tenants, &m->hosts, &m->topic_names,
                              &m->egresses, &m->issuers, &m->revoked_subjects}};
    for (size_t i = 0; i < DP_PART_KIND_COUNT; i++) {
        t.at[TABLES_MAX - DP_PART_KIND_COUNT + i] = &m->parts[i];
    }
    return t;
}

void dp_model_init_tables(struct dp_model *model)
{
    for (size_t i = 0; i < DP_PART_KIND_COUNT; i++) {
        model->parts[i].owner = &part_owner;
    }
    model->grpc_services.owner = &tally_owner;
    model->tenants.owner = &tally_owner;
    model->hosts.owner = &host_owner;
    model->egresses.owner = &egresses_owner;
    model->usual_transport = (struct dp_transport){
        .timeout_ms = (uint32_t)limits.deadline_default_ms,
        .connect_timeout_ms = (uint32_t)limits.connect_timeout_ms,
        .upstream_max_age_ms = (uint32_t)limits.upstream_max_age_ms,
        .request_message_bytes = (uint32_t)limits.request_body_bytes,
        .response_message_bytes = (uint32_t)limits.request_body_bytes,
    };
}

void dp_model_copy_tables(struct dp_model *model, const struct dp_model *from)
{
    struct dp_model copy = *from;
    struct tables to = tables_of(model);
    struct tables tables = tables_of(&copy);
    for (size_t i = 0; i < TABLES_MAX; i++) {
        *to.at[i] = trie_copy(tables.at[i]);
    }
    model->environment = from->environment;
    model->wildcard_hosts = from->wildcard_hosts;
    model->needs_system_trust = from->needs_system_trust;
}

void dp_model_free_tables(struct dp_model *model)
{
    struct tables tables = tables_of(model);
    for (size_t i = 0; i < TABLES_MAX; i++) {
        trie_free(tables.at[i]);
    }
}

/* Two parts may not claim one name. */
static struct err put_once(struct trie *table, struct slice key, void *value)
{
    return trie_get(table, key) != NULL ? FAIL(E_PART_MALFORMED) : trie_put(table, key, value);
}

/* One part more, or one less, gives a name. */
static struct err tally(struct trie *table, struct slice name, int change)
{
    const struct dp_tally *before = trie_get(table, name);
    size_t users = (before == NULL ? 0 : before->users) + (size_t)change;
    if (users == 0) {
        return trie_remove(table, name);
    }
    struct dp_tally *now = malloc(sizeof(*now) + name.size);
    if (now == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    uint8_t *text = (uint8_t *)(now + 1);
    memcpy(text, name.ptr, name.size);
    *now = (struct dp_tally){.refs = 1, .users = users, .name = slice_of(text, name.size)};
    struct err e = trie_put(table, now->name, now);
    tally_drop(now);
    return e;
}

/* ---- environment, callers, what is revoked ---- */

static struct err add_environment(struct dp_model *model, struct dp_part *part)
{
    model->environment = &part->as.environment;
    return OK;
}

static struct err take_environment(struct dp_model *model, struct dp_part *part)
{
    (void)part;
    model->environment = NULL;
    return OK;
}

static struct err add_callers(struct dp_model *model, struct dp_part *part)
{
    const struct dp_callers *callers = &part->as.callers;
    for (size_t i = 0; i < callers->named_count; i++) {
        TRY(put_once(&model->callers_by_spiffe, callers->named[i].spiffe, &callers->named[i]));
    }
    for (size_t i = 0; i < callers->token_count; i++) {
        TRY(put_once(&model->callers_by_token, callers->tokens[i], &callers->named[0]));
    }
    return tally(&model->tenants, callers->named[0].tenant, 1);
}

static struct err take_callers(struct dp_model *model, struct dp_part *part)
{
    const struct dp_callers *callers = &part->as.callers;
    for (size_t i = 0; i < callers->named_count; i++) {
        TRY(trie_remove(&model->callers_by_spiffe, callers->named[i].spiffe));
    }
    for (size_t i = 0; i < callers->token_count; i++) {
        TRY(trie_remove(&model->callers_by_token, callers->tokens[i]));
    }
    return tally(&model->tenants, callers->named[0].tenant, -1);
}

static struct err add_issuer(struct dp_model *model, struct dp_part *part)
{
    return put_once(&model->issuers, part->as.issuer.issuer, &part->as.issuer);
}

static struct err take_issuer(struct dp_model *model, struct dp_part *part)
{
    return trie_remove(&model->issuers, part->as.issuer.issuer);
}

static struct trie *revoked_table(struct dp_model *model, const struct dp_part *part)
{
    return part->kind == DP_PART_REVOKED_IDENTITY      ? &model->revoked_identities
           : part->kind == DP_PART_REVOKED_CERTIFICATE ? &model->revoked_serials
           : part->kind == DP_PART_REVOKED_TOKEN       ? &model->revoked_tokens
           : part->kind == DP_PART_REVOKED_SUBJECT     ? &model->revoked_subjects
                                                       : &model->blocked_types;
}

static struct err add_revoked(struct dp_model *model, struct dp_part *part)
{
    return trie_put(revoked_table(model, part), part->as.revoked, part);
}

static struct err take_revoked(struct dp_model *model, struct dp_part *part)
{
    return trie_remove(revoked_table(model, part), part->as.revoked);
}

/* ---- what can be asked for ---- */

static struct err tally_cluster(struct dp_model *model, const struct dp_part *part, int change)
{
    const struct dp_cluster *cluster = &part->as.cluster;
    for (size_t i = 0; i < cluster->grpc_service_count; i++) {
        TRY(tally(&model->grpc_services, cluster->grpc_services[i], change));
    }
    return tally(&model->tenants, cluster->tenant, change);
}

static struct err add_cluster(struct dp_model *model, struct dp_part *part)
{
    return tally_cluster(model, part, 1);
}

static struct err take_cluster(struct dp_model *model, struct dp_part *part)
{
    return tally_cluster(model, part, -1);
}

/* A full name that several majors share finds the highest of them. */
static struct err add_topic(struct dp_model *model, struct dp_part *part)
{
    struct dp_topic *topic = &part->as.topic;
    const struct dp_topic *other = trie_get(&model->topic_names, topic->full_name);
    return other != NULL && other->major > topic->major
               ? OK
               : trie_put(&model->topic_names, topic->full_name, topic);
}

struct name_search {
    const struct dp_topic *gone;
    struct dp_topic *best; /* NULL: none yet. */
};

static struct err look_at_topic(void *ctx, struct slice key, void *value)
{
    struct name_search *search = ctx;
    struct dp_topic *topic = &((struct dp_part *)value)->as.topic;
    (void)key;
    if (topic != search->gone && slice_eq(topic->full_name, search->gone->full_name) &&
        (search->best == NULL || topic->major > search->best->major)) {
        search->best = topic;
    }
    return OK;
}

static struct err take_topic(struct dp_model *model, struct dp_part *part)
{
    struct name_search search = {.gone = &part->as.topic};
    if (trie_get(&model->topic_names, search.gone->full_name) != search.gone) {
        return OK;
    }
    TRY(trie_walk(&model->parts[DP_PART_TOPIC], look_at_topic, &search));
    return search.best == NULL ? trie_remove(&model->topic_names, search.gone->full_name)
                               : trie_put(&model->topic_names, search.best->full_name, search.best);
}

/* ---- egress ---- */

/* The key as a part that is in the list has it. */
static struct slice own_key(const struct dp_linked_egresses *list, struct slice key)
{
    const struct dp_egress_part *first = &list->at[0]->as.egress;
    for (size_t i = 0; i < first->key_count; i++) {
        if (slice_eq(first->keys[i], key)) {
            return first->keys[i];
        }
    }
    CHECK(false);
    return key;
}

/* The list of a host with one part more, or without it. */
static struct err change_egresses(struct dp_model *model, struct slice key,
                                  const struct dp_part *part, bool add)
{
    const struct dp_linked_egresses *before = trie_get(&model->egresses, key);
    size_t count = before == NULL ? 0 : before->count;
    struct dp_linked_egresses *now = malloc(sizeof(*now) + (count + 1) * sizeof(struct dp_part *));
    if (now == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *now = (struct dp_linked_egresses){.refs = 1};
    bool placed = !add;
    for (size_t i = 0; i < count; i++) {
        if (!placed && slice_cmp(before->at[i]->key, part->key) < 0) {
            now->at[now->count++] = part;
            placed = true;
        }
        if (before->at[i] != part) {
            now->at[now->count++] = before->at[i];
        }
    }
    if (!placed) {
        now->at[now->count++] = part;
    }
    struct err e = now->count == 0 ? trie_remove(&model->egresses, key)
                                   : trie_put(&model->egresses, own_key(now, key), now);
    egresses_drop(now);
    return e;
}

static struct err change_egress(struct dp_model *model, const struct dp_part *part, bool add)
{
    const struct dp_egress_part *egress = &part->as.egress;
    for (size_t i = 0; i < egress->key_count; i++) {
        TRY(change_egresses(model, egress->keys[i], part, add));
    }
    return OK;
}

static struct err add_egress(struct dp_model *model, struct dp_part *part)
{
    return change_egress(model, part, /* add= */ true);
}

static struct err take_egress(struct dp_model *model, struct dp_part *part)
{
    return change_egress(model, part, /* add= */ false);
}

/* ---- routes ---- */

/* A host that begins as the one that is there. */
static struct err host_change(const struct dp_linked_host *before, struct slice name,
                              struct dp_linked_host **out)
{
    struct dp_linked_host *host = malloc(sizeof(*host) + name.size);
    if (host == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    uint8_t *text = (uint8_t *)(host + 1);
    memcpy(text, name.ptr, name.size);
    *host = (struct dp_linked_host){.refs = 1, .name = slice_of(text, name.size)};
    if (before != NULL) {
        host->segments = trie_copy(&before->segments);
        host->any = before->any;
    }
    *out = host;
    return OK;
}

static bool is_wildcard(struct slice name)
{
    return slice_starts(name, SLICE_LIT("*."));
}

static struct err host_put(struct dp_model *model, const struct dp_linked_host *before,
                           struct dp_linked_host *host)
{
    bool empty = host->segments.count == 0 && host->any == NULL;
    TRY(empty ? trie_remove(&model->hosts, host->name) : trie_put(&model->hosts, host->name, host));
    if (is_wildcard(host->name)) {
        model->wildcard_hosts += (before == NULL ? 1 : 0);
        model->wildcard_hosts -= (empty ? 1 : 0);
    }
    return OK;
}

static struct err change_routes(struct dp_model *model, struct dp_part *part, bool add)
{
    struct dp_route_group *group = &part->as.routes;
    const struct dp_linked_host *before = trie_get(&model->hosts, group->host);
    struct dp_linked_host *host = NULL;
    struct err e = OK;
    TRY(host_change(before, group->host, &host));
    if (group->segment.size == 0) {
        host->any = add ? group : NULL;
    } else {
        e = add ? put_once(&host->segments, group->segment, group)
                : trie_remove(&host->segments, group->segment);
    }
    if (err_ok(e)) {
        e = host_put(model, before, host);
    }
    host_drop(host);
    return e;
}

static struct err add_routes(struct dp_model *model, struct dp_part *part)
{
    return change_routes(model, part, /* add= */ true);
}

static struct err take_routes(struct dp_model *model, struct dp_part *part)
{
    return change_routes(model, part, /* add= */ false);
}

/* ---- what parts name ---- */

static struct err judge_transport(const struct dp_model *model, struct slice name)
{
    return dp_model_transport(model, name) == NULL ? FAIL(E_PART_MALFORMED) : OK;
}

static struct err judge_cluster(const struct dp_model *model, const struct dp_part *part)
{
    return judge_transport(model, part->as.cluster.transport);
}

static struct err judge_descriptors(const struct dp_model *model, const struct dp_part *part)
{
    return dp_model_cluster(model, part->key) == NULL ? FAIL(E_PART_MALFORMED) : OK;
}

static struct err judge_routes(const struct dp_model *model, const struct dp_part *part)
{
    const struct dp_route_group *group = &part->as.routes;
    for (size_t i = 0; i < group->entry_count; i++) {
        const struct dp_route *route = &group->routes[i];
        TRY(judge_transport(model, route->transport));
        if (route->mirror.size > 0 && dp_model_cluster(model, route->mirror) == NULL) {
            return FAIL(E_PART_MALFORMED);
        }
        for (size_t k = 0; k < route->target_count; k++) {
            if (dp_model_cluster(model, route->targets[k].cluster) == NULL) {
                return FAIL(E_PART_MALFORMED);
            }
        }
    }
    return OK;
}

static struct err judge_topic(const struct dp_model *model, const struct dp_part *part)
{
    bool found = trie_get(&model->parts[DP_PART_SCHEMA], part->key) != NULL;
    return found ? OK : FAIL(E_PART_MALFORMED);
}

static struct err judge_egress(const struct dp_model *model, const struct dp_part *part)
{
    return judge_transport(model, part->as.egress.egress.transport);
}

struct looking {
    const struct dp_model *model;
};

static struct err look_at_egress(void *ctx, struct slice key, void *value)
{
    const struct looking *l = ctx;
    const struct dp_egress *egress = &((const struct dp_part *)value)->as.egress.egress;
    (void)key;
    return dp_model_transport(l->model, egress->transport)->upstream_tls == 0 ? FAIL(E_EXISTS) : OK;
}

bool dp_model_look_for_trust(const struct dp_model *model)
{
    struct looking looking = {.model = model};
    return !err_ok(trie_walk(&model->parts[DP_PART_EGRESS], look_at_egress, &looking));
}

/* ---- all of them ---- */

static const struct link {
    /* Tables beside the one of its kind; NULL: there are none. */
    struct err (*add)(struct dp_model *model, struct dp_part *part);
    struct err (*take)(struct dp_model *model, struct dp_part *part);
    /* NULL: it names no other part. */
    struct err (*judge)(const struct dp_model *model, const struct dp_part *part);
    bool named; /* others name it. */
} links[DP_PART_KIND_COUNT] = {
    [DP_PART_ENVIRONMENT] = {add_environment, take_environment, NULL, false},
    [DP_PART_REVOKED_IDENTITY] = {add_revoked, take_revoked, NULL, false},
    [DP_PART_REVOKED_CERTIFICATE] = {add_revoked, take_revoked, NULL, false},
    [DP_PART_REVOKED_TOKEN] = {add_revoked, take_revoked, NULL, false},
    [DP_PART_REVOKED_SUBJECT] = {add_revoked, take_revoked, NULL, false},
    [DP_PART_BLOCKED_TYPE] = {add_revoked, take_revoked, NULL, false},
    [DP_PART_CALLER] = {add_callers, take_callers, NULL, false},
    [DP_PART_ISSUER] = {add_issuer, take_issuer, NULL, false},
    [DP_PART_TRANSPORT] = {NULL, NULL, NULL, true},
    [DP_PART_POLICY] = {NULL, NULL, NULL, false},
    [DP_PART_LIMITS] = {NULL, NULL, NULL, false},
    [DP_PART_SCHEMA] = {NULL, NULL, NULL, true},
    [DP_PART_CLUSTER] = {add_cluster, take_cluster, judge_cluster, true},
    [DP_PART_DESCRIPTORS] = {NULL, NULL, judge_descriptors, false},
    [DP_PART_ROUTES] = {add_routes, take_routes, judge_routes, false},
    [DP_PART_TOPIC] = {add_topic, take_topic, judge_topic, false},
    [DP_PART_EGRESS] = {add_egress, take_egress, judge_egress, false},
};

struct err dp_model_add(struct dp_model *model, struct dp_part *part)
{
    TRY(put_once(&model->parts[part->kind], part->key, part));
    return links[part->kind].add == NULL ? OK : links[part->kind].add(model, part);
}

struct err dp_model_take(struct dp_model *model, struct dp_part *part)
{
    if (links[part->kind].take != NULL) {
        TRY(links[part->kind].take(model, part));
    }
    return trie_remove(&model->parts[part->kind], part->key);
}

struct err dp_model_judge(const struct dp_model *model, const struct dp_part *part)
{
    return links[part->kind].judge == NULL ? OK : links[part->kind].judge(model, part);
}

bool dp_model_is_named(enum dp_part_kind kind)
{
    return links[kind].named;
}

bool dp_model_names(enum dp_part_kind kind)
{
    return links[kind].judge != NULL;
}
