/*
 * routing: clusters, and the routes of each host by first path segment.
 *
 * Precedence, as docs/resources.md says it: exact host, wildcard, any (the node's look-up); then
 * in a group exact path, longest prefix, any path; a named HTTP method before any; more headers
 * before fewer; named tenants before any; a Route before a service's own names. Two routes that
 * are equal in all of this and may fit one request are a tie, which is an error.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/map.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* One route of one host, before it is packed. */
struct entry {
    struct slice host;
    struct slice segment;
    struct slice path;
    Trilane__Parts__V1__PathMatch match;
    struct slice id;
    struct cp_texts tenants;
    struct slice http_method;
    struct cp_header_match *headers; /* sorted by name. */
    size_t header_count;
    const struct cp_route *route;     /* NULL: a service's own name. */
    const struct cp_service *service; /* of those. */
    struct cp_pos at;
};

struct entries {
    struct entry *items; /* owned. */
    size_t count;
    size_t capacity;
    struct map taken; /* "<tenant> <path>": a Route stands for the Service's own name. */
};

static MUST_CHECK struct err add_entry(struct entries *all, const struct entry *entry)
{
    TRY(array_room(&all->items, all->count, &all->capacity, sizeof(struct entry)));
    all->items[all->count++] = *entry;
    return OK;
}

/* Path, kind of match and first segment. */
static void set_path(struct entry *entry, bool exact, struct slice path)
{
    while (!exact && path.size > 0 && path.ptr[path.size - 1] == '/') {
        path.size--;
    }
    entry->path = path;
    entry->match = exact           ? TRILANE__PARTS__V1__PATH_MATCH__PATH_EXACT
                   : path.size > 0 ? TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX
                                   : TRILANE__PARTS__V1__PATH_MATCH__PATH_ANY;
    struct slice rest = slice_from(path, 1); /* behind the '/' */
    entry->segment = path.size == 0 ? (struct slice){0} : slice_head(rest, slice_find(rest, '/'));
}

static MUST_CHECK struct err set_match(struct cp_compiler *c, struct entry *entry,
                                       const struct cp_route_match *match)
{
    struct slice path = {0};
    if (match->grpc.at.line > 0) {
        bool exact = match->grpc.method.text.size > 0;
        TRY(arena_printf(c->arena, &path, "/%.*s%s%.*s", SLICE_ARG(match->grpc.service.text),
                         exact ? "/" : "", SLICE_ARG(match->grpc.method.text)));
        set_path(entry, exact, path);
        return OK;
    }
    bool exact = match->path.exact.text.size > 0;
    set_path(entry, exact, exact ? match->path.exact.text : match->path.prefix.text);
    return OK;
}

static int header_cmp(const void *x, const void *y)
{
    const struct cp_header_match *a = x;
    const struct cp_header_match *b = y;
    int order = slice_cmp(a->name.text, b->name.text);
    return order != 0 ? order : slice_cmp(a->value.text, b->value.text);
}

/* The headers in order of their names: a copy, since the model is not ours to sort. */
static MUST_CHECK struct err set_headers(struct cp_compiler *c, struct entry *entry,
                                         const struct cp_header_matches *headers)
{
    TRY(arena_calloc(c->arena, headers->count + 1, sizeof(struct cp_header_match),
                     (void **)&entry->headers));
    for (size_t i = 0; i < headers->count; i++) {
        entry->headers[i] = headers->items[i];
    }
    entry->header_count = headers->count;
    qsort(entry->headers, entry->header_count, sizeof(struct cp_header_match), header_cmp);
    return OK;
}

static MUST_CHECK struct err take(struct cp_compiler *c, struct entries *all, struct slice tenant,
                                  const struct entry *entry)
{
    struct slice key = {0};
    TRY(arena_printf(c->arena, &key, "%.*s %.*s", SLICE_ARG(tenant), SLICE_ARG(entry->path)));
    return map_put(&all->taken, key, c, /* out_old= */ NULL);
}

/*
 * A Route for a whole path on any host takes the place of a Service's own name on that path, for
 * callers of the Route's tenant; a Route of the platform does for all that it names. A Route of
 * another tenant never does: it must not draw a tenant's calls to itself.
 */
static MUST_CHECK struct err take_name(struct cp_compiler *c, struct entries *all,
                                       const struct entry *entry)
{
    struct slice owner = entry->route->meta.tenant.text;
    bool platform = slice_eq(owner, SLICE_LIT("-"));
    if (!slice_eq(entry->host, SLICE_LIT("*")) || entry->header_count > 0 ||
        entry->http_method.size > 0 ||
        entry->match != TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX) {
        return OK;
    }
    if (entry->tenants.count == 0) {
        return take(c, all, owner, entry);
    }
    for (size_t i = 0; i < entry->tenants.count; i++) {
        struct slice tenant = entry->tenants.items[i].text;
        if (platform || slice_eq(tenant, owner)) {
            TRY(take(c, all, tenant, entry));
        }
    }
    return OK;
}

static bool is_taken(const struct entries *all, struct slice tenant, struct slice path)
{
    struct slice owners[] = {tenant, SLICE_LIT("-")};
    char key[1024];
    for (size_t i = 0; i < 2; i++) {
        int size = snprintf(key, sizeof(key), "%.*s %.*s", SLICE_ARG(owners[i]), SLICE_ARG(path));
        CHECK(size > 0 && (size_t)size < sizeof(key)); /* both are bounded names */
        if (map_get(&all->taken, slice_of(key, (size_t)size)) != NULL) {
            return true;
        }
    }
    return false;
}

static MUST_CHECK struct err add_route(struct cp_compiler *c, struct entries *all,
                                       const struct cp_route *route)
{
    for (size_t i = 0; i < route->match.count; i++) {
        const struct cp_route_match *match = &route->match.items[i];
        if (match->faulty) {
            continue; /* what it leaves out may be what tells it from others */
        }
        struct entry entry = {.route = route,
                              .tenants = match->tenants,
                              .http_method = match->method.text,
                              .at = match->at};
        TRY(arena_printf(c->arena, &entry.id, "%.*s/%zu", SLICE_ARG(route->meta.id), i));
        TRY(set_match(c, &entry, match));
        TRY(set_headers(c, &entry, &match->headers));
        for (size_t h = 0; h < route->hosts.count; h++) {
            entry.host = route->hosts.items[h].text;
            if (entry.host.size == 0) {
                continue;
            }
            TRY(add_entry(all, &entry));
            TRY(take_name(c, all, &entry));
        }
    }
    return OK;
}

/* A service's own gRPC names, for callers of its tenant. */
static MUST_CHECK struct err add_service(struct cp_compiler *c, struct entries *all,
                                         const struct cp_service *service)
{
    struct cp_text *tenant = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(struct cp_text), (void **)&tenant));
    *tenant = service->meta.tenant;
    for (size_t i = 0; i < service->grpc_services.count; i++) {
        struct slice path = {0};
        TRY(arena_printf(c->arena, &path, "/%.*s",
                         SLICE_ARG(service->grpc_services.items[i].text)));
        if (is_taken(all, service->meta.tenant.text, path)) {
            continue;
        }
        struct entry entry = {.host = SLICE_LIT("*"),
                              .id = service->meta.id,
                              .tenants = {tenant, 1},
                              .service = service,
                              .at = service->grpc_services.items[i].at};
        set_path(&entry, /* exact= */ false, path);
        TRY(add_entry(all, &entry));
    }
    return OK;
}

/* ---- precedence ---- */

/* More of it first. */
static int more_first(size_t a, size_t b)
{
    return (a < b) - (a > b);
}

static size_t match_rank(const struct entry *e)
{
    return e->match == TRILANE__PARTS__V1__PATH_MATCH__PATH_EXACT    ? 2
           : e->match == TRILANE__PARTS__V1__PATH_MATCH__PATH_PREFIX ? 1
                                                                     : 0;
}

/* 0: nothing that docs/resources.md names tells the two apart. */
static int precedence_cmp(const struct entry *a, const struct entry *b)
{
    int order = slice_cmp(a->host, b->host);
    order = order != 0 ? order : slice_cmp(a->segment, b->segment);
    order = order != 0 ? order : more_first(match_rank(a), match_rank(b));
    order = order != 0 ? order : more_first(a->path.size, b->path.size);
    order = order != 0 ? order : slice_cmp(a->path, b->path);
    order = order != 0 ? order : more_first(a->http_method.size > 0, b->http_method.size > 0);
    order = order != 0 ? order : slice_cmp(a->http_method, b->http_method);
    order = order != 0 ? order : more_first(a->header_count, b->header_count);
    order = order != 0 ? order : more_first(a->tenants.count > 0, b->tenants.count > 0);
    return order != 0 ? order : more_first(a->route != NULL, b->route != NULL);
}

static int entry_cmp(const void *x, const void *y)
{
    const struct entry *a = x;
    const struct entry *b = y;
    int order = precedence_cmp(a, b);
    order = order != 0 ? order : slice_cmp(a->id, b->id);
    order = order != 0 ? order : (a->at.line > b->at.line) - (a->at.line < b->at.line);
    return order;
}

/* Whether some tenant is named by both; no names stand for all. */
static bool tenants_meet(const struct cp_texts *a, const struct cp_texts *b)
{
    if (a->count == 0 || b->count == 0) {
        return true;
    }
    for (size_t i = 0, k = 0; i < a->count && k < b->count;) {
        int order = slice_cmp(a->items[i].text, b->items[k].text);
        if (order == 0) {
            return true;
        }
        i += order < 0;
        k += order > 0;
    }
    return false;
}

/* Whether one request can have all headers of both. */
static bool headers_meet(const struct entry *a, const struct entry *b)
{
    for (size_t i = 0; i < a->header_count; i++) {
        for (size_t k = 0; k < b->header_count; k++) {
            const struct cp_header_match *x = &a->headers[i];
            const struct cp_header_match *y = &b->headers[k];
            if (slice_eq(x->name.text, y->name.text) && x->present == 0 && y->present == 0 &&
                !slice_eq(x->value.text, y->value.text)) {
                return false;
            }
        }
    }
    return true;
}

static void refuse_tie(struct cp_compiler *c, const struct entry *a, const struct entry *b)
{
    bool swap = a->at.file > b->at.file || (a->at.file == b->at.file && a->at.line > b->at.line);
    const struct entry *first = swap ? b : a;
    const struct entry *second = swap ? a : b;
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_ROUTE_TIE, second->at,
                     "on host \"%.*s\" routes %.*s and %.*s fit the same requests equally well",
                     SLICE_ARG(second->host), SLICE_ARG(first->id), SLICE_ARG(second->id));
    cp_diag_expect(c->diags, diag, "a more precise path, method, header or tenant in one of them");
    cp_diag_other(c->diags, diag, first->at);
}

/* Judges entries [first, end), which are of equal precedence. One tie an entry is enough. */
static void check_ties(struct cp_compiler *c, const struct entries *all, size_t first, size_t end)
{
    for (size_t i = first + 1; i < end; i++) {
        for (size_t k = first; k < i; k++) {
            const struct entry *a = &all->items[k];
            const struct entry *b = &all->items[i];
            /* Own names were compared by tenant when the model was checked. */
            if (b->route != NULL && tenants_meet(&a->tenants, &b->tenants) && headers_meet(a, b)) {
                refuse_tie(c, a, b);
                break;
            }
        }
    }
}

/* ---- packing ---- */

static MUST_CHECK struct err add_target(struct cp_compiler *c, const struct cp_meta *service,
                                        uint32_t weight, Trilane__Parts__V1__WeightedTarget **out)
{
    Trilane__Parts__V1__WeightedTarget *target = NULL;
    struct slice id = {0};
    TRY(arena_calloc(c->arena, 1, sizeof(*target), (void **)&target));
    trilane__parts__v1__weighted_target__init(target);
    TRY(cp_target_id(c->arena, service, &id));
    target->cluster = cp_str(id);
    target->weight = weight;
    *out = target;
    return OK;
}

static int target_cmp(const void *x, const void *y)
{
    const Trilane__Parts__V1__WeightedTarget *a = *(Trilane__Parts__V1__WeightedTarget *const *)x;
    const Trilane__Parts__V1__WeightedTarget *b = *(Trilane__Parts__V1__WeightedTarget *const *)y;
    return slice_cmp(slice_str(a->cluster), slice_str(b->cluster));
}

static MUST_CHECK struct err pack_targets(struct cp_compiler *c, const struct entry *entry,
                                          Trilane__Parts__V1__RouteEntry *packed)
{
    size_t count = entry->route == NULL ? 1 : entry->route->targets.count;
    TRY(arena_calloc(c->arena, count + 1, sizeof(*packed->targets), (void **)&packed->targets));
    if (entry->route == NULL) {
        packed->n_targets = 1;
        return add_target(c, &entry->service->meta, /* weight= */ 1, &packed->targets[0]);
    }
    for (size_t i = 0; i < count; i++) {
        const struct cp_weighted *target = &entry->route->targets.items[i];
        if (target->service.to != NULL) {
            TRY(add_target(c, target->service.to, (uint32_t)target->weight,
                           &packed->targets[packed->n_targets++]));
        }
    }
    qsort(packed->targets, packed->n_targets, sizeof(*packed->targets), target_cmp);
    return OK;
}

static MUST_CHECK struct err pack_headers(struct cp_compiler *c, const struct entry *entry,
                                          Trilane__Parts__V1__RouteEntry *packed)
{
    TRY(arena_calloc(c->arena, entry->header_count + 1, sizeof(*packed->headers),
                     (void **)&packed->headers));
    for (size_t i = 0; i < entry->header_count; i++) {
        Trilane__Parts__V1__HeaderMatch *header = NULL;
        TRY(arena_calloc(c->arena, 1, sizeof(*header), (void **)&header));
        trilane__parts__v1__header_match__init(header);
        header->name = cp_str(entry->headers[i].name.text);
        header->value = cp_str(entry->headers[i].value.text);
        header->present = entry->headers[i].present != 0;
        packed->headers[i] = header;
    }
    packed->n_headers = entry->header_count;
    return OK;
}

static MUST_CHECK struct err pack_mirror(struct cp_compiler *c, const struct cp_mirror *mirror,
                                         Trilane__Parts__V1__RouteEntry *packed)
{
    if (mirror->service.to == NULL) {
        return OK;
    }
    struct slice id = {0};
    TRY(cp_target_id(c->arena, mirror->service.to, &id));
    packed->mirror = cp_str(id);
    packed->mirror_per_mille = (uint32_t)mirror->per_mille;
    cp_needs(c, CAPABILITY_MIRRORS, /* used= */ true);
    return OK;
}

static MUST_CHECK struct err pack_cors(struct cp_compiler *c, const struct cp_cors *cors,
                                       Trilane__Parts__V1__RouteEntry *packed)
{
    if (cors->at.line == 0) {
        return OK;
    }
    TRY(arena_calloc(c->arena, 1, sizeof(*packed->cors), (void **)&packed->cors));
    trilane__parts__v1__cors__init(packed->cors);
    TRY(cp_strings(c, &cors->origins, &packed->cors->n_origins, &packed->cors->origins));
    TRY(cp_strings(c, &cors->allow_headers, &packed->cors->n_allow_headers,
                   &packed->cors->allow_headers));
    TRY(cp_strings(c, &cors->expose_headers, &packed->cors->n_expose_headers,
                   &packed->cors->expose_headers));
    packed->cors->credentials = cors->credentials != 0;
    packed->cors->max_age_s = (uint32_t)(cors->max_age_ms / 1000);
    cp_needs(c, CAPABILITY_CORS, /* used= */ true);
    return OK;
}

static MUST_CHECK struct err pack_entry(struct cp_compiler *c, const struct entry *entry,
                                        Trilane__Parts__V1__RouteEntry **out)
{
    Trilane__Parts__V1__RouteEntry *packed = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__route_entry__init(packed);
    struct slice path = {0}; /* the path may be cut, and then has no NUL behind it */
    TRY(arena_dup(c->arena, entry->path, &path));
    packed->id = cp_str(entry->id);
    packed->match = entry->match;
    packed->path = cp_str(path);
    TRY(cp_strings(c, &entry->tenants, &packed->n_tenants, &packed->tenants));
    packed->http_method = cp_str(entry->http_method);
    TRY(pack_headers(c, entry, packed));
    TRY(pack_targets(c, entry, packed));
    if (entry->route != NULL) {
        packed->transport = cp_transport_id(&entry->route->transport);
        packed->timeout_ms = (uint32_t)entry->route->timeout_ms;
        TRY(pack_mirror(c, &entry->route->mirror, packed));
        TRY(pack_cors(c, &entry->route->cors, packed));
    }
    *out = packed;
    return OK;
}

/* Packs entries [first, end) of one host and segment. */
static MUST_CHECK struct err pack_group(struct cp_compiler *c, const struct entries *all,
                                        size_t first, size_t end)
{
    const struct entry *head = &all->items[first];
    Trilane__Parts__V1__RouteGroup part;
    trilane__parts__v1__route_group__init(&part);
    struct slice segment = {0};
    struct slice key = {0};
    TRY(arena_dup(c->arena, head->segment, &segment));
    TRY(arena_printf(c->arena, &key, "host/%.*s/%.*s", SLICE_ARG(head->host), SLICE_ARG(segment)));
    part.host = cp_str(head->host);
    part.segment = cp_str(segment);
    TRY(arena_calloc(c->arena, end - first, sizeof(*part.routes), (void **)&part.routes));
    for (size_t i = first; i < end; i++) {
        TRY(pack_entry(c, &all->items[i], &part.routes[i - first]));
    }
    part.n_routes = end - first;
    return cp_emit(c, CP_PART_ROUTING, key, &part.base, head->at);
}

static bool one_group(const struct entry *a, const struct entry *b)
{
    return slice_eq(a->host, b->host) && slice_eq(a->segment, b->segment);
}

static MUST_CHECK struct err pack_routes(struct cp_compiler *c, struct entries *all)
{
    if (all->count > 0) {
        qsort(all->items, all->count, sizeof(struct entry), entry_cmp);
    }
    for (size_t first = 0, end = 0; first < all->count; first = end) {
        while (end < all->count && precedence_cmp(&all->items[first], &all->items[end]) == 0) {
            end++;
        }
        check_ties(c, all, first, end);
    }
    for (size_t first = 0, end = 0; first < all->count; first = end) {
        while (end < all->count && one_group(&all->items[first], &all->items[end])) {
            end++;
        }
        TRY(pack_group(c, all, first, end));
    }
    return OK;
}

/* ---- clusters ---- */

static int endpoint_cmp(const void *x, const void *y)
{
    const Trilane__Parts__V1__Endpoint *a = *(Trilane__Parts__V1__Endpoint *const *)x;
    const Trilane__Parts__V1__Endpoint *b = *(Trilane__Parts__V1__Endpoint *const *)y;
    int order = slice_cmp(slice_str(a->address), slice_str(b->address));
    return order != 0 ? order : (a->port > b->port) - (a->port < b->port);
}

static MUST_CHECK struct err pack_endpoints(struct cp_compiler *c,
                                            const struct cp_endpoints *endpoints,
                                            Trilane__Parts__V1__Cluster *part)
{
    TRY(arena_calloc(c->arena, endpoints->count + 1, sizeof(*part->endpoints),
                     (void **)&part->endpoints));
    for (size_t i = 0; i < endpoints->count; i++) {
        Trilane__Parts__V1__Endpoint *endpoint = NULL;
        TRY(arena_calloc(c->arena, 1, sizeof(*endpoint), (void **)&endpoint));
        trilane__parts__v1__endpoint__init(endpoint);
        endpoint->address = cp_str(endpoints->items[i].address.text);
        endpoint->port = (uint32_t)endpoints->items[i].port;
        endpoint->weight = (uint32_t)endpoints->items[i].weight;
        endpoint->region = cp_str(endpoints->items[i].locality.region.text);
        endpoint->zone = cp_str(endpoints->items[i].locality.zone.text);
        cp_needs(c, CAPABILITY_BALANCING, endpoints->items[i].locality.at.line > 0);
        part->endpoints[i] = endpoint;
    }
    part->n_endpoints = endpoints->count;
    qsort(part->endpoints, part->n_endpoints, sizeof(*part->endpoints), endpoint_cmp);
    return OK;
}

static MUST_CHECK struct err pack_cluster(struct cp_compiler *c, const struct cp_service *service)
{
    Trilane__Parts__V1__Cluster part;
    trilane__parts__v1__cluster__init(&part);
    struct slice id = {0};
    TRY(cp_target_id(c->arena, &service->meta, &id));
    part.id = cp_str(id);
    part.tenant = cp_str(service->meta.tenant.text);
    part.name = cp_str(service->meta.name.text);
    TRY(pack_endpoints(c, &service->endpoints, &part));
    part.transport = cp_transport_id(&service->transport);
    TRY(cp_strings(c, &service->grpc_services, &part.n_grpc_services, &part.grpc_services));
    TRY(cp_pack_balancing(c, service, &part));
    TRY(cp_pack_methods(c, service, &part));
    return cp_emit(c, CP_PART_ROUTING, id, &part.base, service->meta.at);
}

static MUST_CHECK struct err compile_all(struct cp_compiler *c, struct entries *all)
{
    const struct cp_resources *routes = &c->model->of[CP_KIND_ROUTE];
    for (size_t i = 0; i < routes->count; i++) {
        if (!routes->items[i]->apart) {
            TRY(add_route(c, all, (const struct cp_route *)routes->items[i]));
        }
    }
    const struct cp_resources *services = &c->model->of[CP_KIND_SERVICE];
    for (size_t i = 0; i < services->count; i++) {
        const struct cp_service *service = (const struct cp_service *)services->items[i];
        if (!cp_is_whole(&service->meta)) {
            continue;
        }
        TRY(add_service(c, all, service));
        TRY(pack_cluster(c, service));
    }
    return pack_routes(c, all);
}

struct err cp_compile_routing(struct cp_compiler *c)
{
    struct entries all = {0};
    struct err e = compile_all(c, &all);
    map_free(&all.taken);
    free(all.items);
    return e;
}
