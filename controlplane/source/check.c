/* check: see check.h. */
#include "controlplane/source/check.h"

#include <string.h>
#include <strings.h>

#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/net/cert.h"
#include "common/snapshot/format.h"
#include "controlplane/source/check_fit.h"
#include "controlplane/source/check_rule.h"
#include "controlplane/source/decode_scalar.h"
#include "controlplane/source/form.h"
#include "controlplane/source/leaf.h"
#include "controlplane/source/source.h"

enum {
    NEAR_OFFERS = 2000,      /* names that are looked at for the nearest one. */
    SEARCH_BYTES = 64 << 20, /* of what was lost, in all; past it any name may be there. */
    KEY_BYTES = 256,         /* above "<tenant>/<name>". */
};

struct checking {
    struct cp_model *model;
    struct cp_diags *diags;
    const struct cp_losses *losses;
    struct map tenants; /* of all resources, to their meta. */
    size_t searched;    /* bytes of losses. */
};

/* ---- what was lost ---- */

static bool is_word_char(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

/* Whether 'word' stands in 'text' as a word, in capitals or not: "Orders" is a wrong "orders". */
static bool holds_word(struct slice text, struct slice word)
{
    for (size_t at = 0; at < text.size;) {
        size_t end = at;
        while (end < text.size && is_word_char(text.ptr[end])) {
            end++;
        }
        if (end - at == word.size &&
            strncasecmp((const char *)text.ptr + at, (const char *)word.ptr, word.size) == 0) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

/* Whether a nameless loss may be what is called for in 'tenant' (empty: in any). */
static bool may_be_named(const struct cp_loss *loss, enum cp_kind kind, struct slice tenant)
{
    return loss->nameless && loss->kind == kind &&
           (loss->tenant.size == 0 || tenant.size == 0 || slice_eq(loss->tenant, tenant) ||
            slice_eq(loss->tenant, SLICE_LIT("-")));
}

/* Whether a resource of that kind (CP_KIND_COUNT: any) and name may be among what was lost. */
static bool may_be_lost(struct checking *c, enum cp_kind kind, struct slice tenant,
                        struct slice name)
{
    for (size_t i = 0; i < c->losses->count; i++) {
        const struct cp_loss *loss = &c->losses->items[i];
        if (kind != CP_KIND_COUNT && loss->kind != CP_KIND_COUNT && loss->kind != kind) {
            continue;
        }
        c->searched += loss->text.size;
        bool any = loss->text.ptr == NULL || may_be_named(loss, kind, tenant) ||
                   (loss->kindless && kind == CP_KIND_ENVIRONMENT);
        if (any || c->searched > SEARCH_BYTES || holds_word(loss->text, name)) {
            return true;
        }
    }
    return false;
}

/* ---- doubles ---- */

/* Says of the later of two that the earlier one is there already. */
static void refuse_double(struct checking *c, enum cp_diag_code code, const char *what,
                          const struct cp_text *a, const struct cp_text *b)
{
    bool swap = a->at.file != b->at.file ? a->at.file > b->at.file : a->at.line > b->at.line;
    if (swap) {
        const struct cp_text *first = b;
        b = a;
        a = first;
    }
    struct cp_diag *diag = cp_diags_add(c->diags, code, b->at, "%s \"%.*s\" is there already", what,
                                        SLICE_ARG(slice_head(b->text, 80)));
    cp_diag_expect(c->diags, diag, "%s",
                   code == CP_DIAG_DUPLICATE_RESOURCE ? "another name or tenant in one of the two"
                   : code == CP_DIAG_DUPLICATE_VALUE  ? "each once"
                                                      : "one resource that has it");
    cp_diag_other(c->diags, diag, a->at);
}

/* Indexes resources by their keys; the second of two is refused. */
static MUST_CHECK struct err index_kind(struct checking *c, enum cp_kind kind)
{
    struct cp_resources *all = &c->model->of[kind];
    for (size_t i = 0; i < all->count; i++) {
        struct cp_meta *meta = all->items[i];
        if (meta->tenant.at.line > 0) {
            TRY(map_put(&c->tenants, meta->tenant.text, meta, /* out_old= */ NULL));
        }
        if (meta->apart) {
            continue;
        }
        if (i > 0 && slice_eq(meta->id, all->items[i - 1]->id)) {
            meta->apart = true;
            refuse_double(c, CP_DIAG_DUPLICATE_RESOURCE, cp_kind_at(kind)->name,
                          &all->items[i - 1]->name, &meta->name);
            continue;
        }
        struct cp_meta *before = map_get(&c->model->keys[kind], meta->key);
        if (before != NULL) {
            meta->apart = true;
            struct cp_text first = {before->key, before->name.at};
            struct cp_text second = {meta->key, meta->name.at};
            refuse_double(c, CP_DIAG_DUPLICATE_IDENTITY, "type", &first, &second);
        } else {
            TRY(map_put(&c->model->keys[kind], meta->key, meta, /* out_old= */ NULL));
        }
    }
    return OK;
}

/* ---- references ---- */

/* The resource of key "<tenant>/<name>", or NULL. */
static const struct cp_meta *lookup_in(const struct map *keys, struct slice tenant,
                                       struct slice name)
{
    uint8_t key[KEY_BYTES];
    if (tenant.size + 1 + name.size > sizeof(key)) {
        return NULL; /* ids are made of names that are shorter. */
    }
    if (tenant.size > 0) { /* it has none when it is missing. */
        (void)memcpy(key, tenant.ptr, tenant.size);
    }
    key[tenant.size] = '/';
    (void)memcpy(key + tenant.size + 1, name.ptr, name.size);
    return map_get(keys, slice_of(key, tenant.size + 1 + name.size));
}

static const struct cp_meta *lookup(const struct checking *c, enum cp_kind kind,
                                    struct slice tenant, struct slice name)
{
    const struct map *keys = &c->model->keys[kind];
    if (kind == CP_KIND_TOPIC || slice_find(name, '/') < name.size) {
        return map_get(keys, name);
    }
    const struct cp_meta *own = lookup_in(keys, tenant, name);
    return own != NULL ? own : lookup_in(keys, SLICE_LIT("-"), name);
}

/* The nearest name as it would have to be written here. */
static struct slice nearest_to(const struct checking *c, enum cp_kind kind,
                               const struct cp_meta *owner, const struct cp_ref *ref)
{
    struct cp_near near = cp_near_to(ref->text);
    const struct cp_resources *all = &c->model->of[kind];
    bool bare = kind != CP_KIND_TOPIC && slice_find(ref->text, '/') == ref->text.size;
    for (size_t i = 0; i < all->count && i < NEAR_OFFERS; i++) {
        const struct cp_meta *meta = all->items[i];
        bool at_hand = slice_eq(meta->tenant.text, owner->tenant.text) ||
                       slice_eq(meta->tenant.text, SLICE_LIT("-"));
        if (bare && !at_hand && slice_eq(meta->name.text, ref->text)) {
            return meta->key; /* it is there, in another tenant */
        }
        cp_near_offer(&near, bare && at_hand ? meta->name.text : meta->key);
    }
    return near.best;
}

/* Whether what a reference names may be among what was lost. */
static bool ref_may_be_lost(struct checking *c, enum cp_kind kind, const struct cp_meta *owner,
                            struct slice text)
{
    size_t slash = slice_find(text, '/');
    if (kind == CP_KIND_TOPIC) {
        return may_be_lost(c, kind, (struct slice){0}, slice_head(text, slice_find(text, '.')));
    }
    return slash < text.size
               ? may_be_lost(c, kind, slice_head(text, slash), slice_from(text, slash + 1))
               : may_be_lost(c, kind, owner->tenant.text, text);
}

static const char *article(const char *noun)
{
    return strchr("AEIOU", noun[0]) != NULL ? "an" : "a";
}

static void refuse_dangling(struct checking *c, enum cp_kind kind, const struct cp_meta *owner,
                            const struct cp_ref *ref)
{
    bool bare = kind != CP_KIND_TOPIC && slice_find(ref->text, '/') == ref->text.size;
    const char *noun = cp_kind_at(kind)->name;
    if ((bare && owner->tenant.text.size == 0) || ref_may_be_lost(c, kind, owner, ref->text)) {
        return;
    }
    struct slice nearest = nearest_to(c, kind, owner, ref);
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_REFERENCE_DANGLING, ref->at, "no %s \"%.*s\"",
                     cp_kind_at(kind)->name, SLICE_ARG(ref->text));
    if (kind == CP_KIND_TOPIC) {
        cp_diag_expect(c->diags, diag, "type and major version of a Topic: Greeting.v1");
    } else if (!bare) {
        cp_diag_expect(c->diags, diag, "tenant/name of %s %s", article(noun), noun);
    } else if (slice_eq(owner->tenant.text, SLICE_LIT("-"))) {
        cp_diag_expect(c->diags, diag, "tenant/name: this resource has no tenant of its own");
    } else {
        cp_diag_expect(c->diags, diag, "the name of %s %s of tenant \"%.*s\", or tenant/name",
                       article(noun), noun, SLICE_ARG(owner->tenant.text));
    }
    cp_diag_nearest(c->diags, diag, nearest);
}

/* A glob over another tenant's: of which a tenant's policy says nothing. */
static void check_glob(struct checking *c, struct cp_meta *owner, const struct cp_ref *ref)
{
    struct slice own = owner->tenant.text;
    size_t slash = slice_find(ref->text, '/');
    struct slice tenant = slice_head(ref->text, slash);
    if (slash == ref->text.size || own.size == 0 || slice_eq(own, SLICE_LIT("-")) ||
        slice_eq(tenant, own)) {
        return;
    }
    struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_REFERENCE_FOREIGN, ref->at,
                                        "\"%.*s\" reaches beyond tenant \"%.*s\"",
                                        SLICE_ARG(ref->text), SLICE_ARG(own));
    cp_diag_expect(c->diags, diag, "a glob of names alone, or \"%.*s/…\"", SLICE_ARG(own));
    owner->faulty = true;
}

static MUST_CHECK struct err resolve(struct checking *c, const struct cp_field *field,
                                     struct cp_meta *owner, struct cp_ref *ref)
{
    ref->to = NULL;
    if (ref->text.size == 0) {
        return OK;
    }
    if (field->globs && text_is_glob(ref->text)) {
        check_glob(c, owner, ref);
        return OK;
    }
    const struct cp_meta *to = lookup(c, field->ref, owner->tenant.text, ref->text);
    if (to == NULL) {
        owner->faulty = true;
        refuse_dangling(c, field->ref, owner, ref);
        return OK;
    }
    bool shared = slice_eq(owner->tenant.text, SLICE_LIT("-")) ||
                  slice_eq(to->tenant.text, SLICE_LIT("-")) || field->foreign;
    if (!shared && owner->tenant.text.size > 0 && !slice_eq(to->tenant.text, owner->tenant.text)) {
        struct cp_diag *diag = cp_diags_add(
            c->diags, CP_DIAG_REFERENCE_FOREIGN, ref->at, "%s \"%.*s\" belongs to tenant \"%.*s\"",
            cp_kind_at(field->ref)->name, SLICE_ARG(ref->text), SLICE_ARG(to->tenant.text));
        cp_diag_expect(c->diags, diag, "one of tenant \"%.*s\" or of the platform",
                       SLICE_ARG(owner->tenant.text));
        owner->faulty = true;
        return OK;
    }
    return cp_leaf_link(owner->leaf, ref, to);
}

static void check_tenant(struct checking *c, const struct cp_text *tenant)
{
    if (tenant->text.size == 0 || map_get(&c->tenants, tenant->text) != NULL ||
        may_be_lost(c, CP_KIND_COUNT, tenant->text, tenant->text)) {
        return;
    }
    struct cp_near near = cp_near_to(tenant->text);
    size_t at = 0;
    size_t offers = 0;
    for (const struct map_entry *e = map_next(&c->tenants, &at); e != NULL && offers < NEAR_OFFERS;
         e = map_next(&c->tenants, &at)) {
        cp_near_offer(&near, e->key);
        offers++;
    }
    struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_REFERENCE_DANGLING, tenant->at,
                                        "no resource has tenant \"%.*s\"", SLICE_ARG(tenant->text));
    cp_diag_expect(c->diags, diag, "the metadata.tenant of some resource");
    cp_diag_nearest(c->diags, diag, near.best);
}

static MUST_CHECK struct err walk(struct checking *c, const struct cp_shape *shape,
                                  struct cp_meta *owner, void *at);

static MUST_CHECK struct err walk_field(struct checking *c, const struct cp_field *field,
                                        struct cp_meta *owner, void *at)
{
    if (field->type == CP_TYPE_REF) {
        return resolve(c, field, owner, at);
    }
    if (field->type == CP_TYPE_OBJECT) {
        return walk(c, field->shape, owner, at);
    }
    if (field->type == CP_TYPE_OBJECTS) {
        struct cp_texts *list = at; /* all lists begin alike: items, count */
        for (size_t i = 0; i < list->count; i++) {
            TRY(walk(c, field->shape, owner, (char *)list->items + i * field->shape->size));
        }
    }
    if (field->tenant && field->type == CP_TYPE_TEXT) {
        check_tenant(c, at);
    }
    if (field->tenant && field->type == CP_TYPE_TEXTS) {
        const struct cp_texts *list = at;
        for (size_t i = 0; i < list->count; i++) {
            check_tenant(c, &list->items[i]);
        }
    }
    return OK;
}

/* Follows the table through one struct. */
static struct err walk(struct checking *c, const struct cp_shape *shape, struct cp_meta *owner,
                       void *at)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        TRY(walk_field(c, field, owner, field->flat ? at : (char *)at + field->offset));
    }
    return OK;
}

/* ---- rules that span fields ---- */

static void check_domains(struct checking *c, const struct cp_environment *environment)
{
    const struct cp_text *own = &environment->trust_domain;
    for (size_t i = 0; i < environment->trust_domains.count; i++) {
        if (slice_eq(environment->trust_domains.items[i].text, own->text)) {
            refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "trust domain", own,
                          &environment->trust_domains.items[i]);
        }
    }
}

static void refuse_bundle(struct checking *c, const struct cp_text *domain)
{
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_REFERENCE_DANGLING, domain->at,
                     "trust domain \"%.*s\" is none of the Environment", SLICE_ARG(domain->text));
    cp_diag_expect(c->diags, diag, "trustDomain, or one of trustDomains");
}

static MUST_CHECK struct err check_bundle(struct checking *c, struct cp_environment *environment,
                                          struct map *seen, struct cp_trust_bundle *bundle)
{
    auto_chain struct net_chain chain = {.count = 0};
    struct slice domain = bundle->trust_domain.text;
    struct cp_text *first = map_get(seen, domain);
    bool own = slice_eq(domain, environment->trust_domain.text);
    for (size_t i = 0; i < environment->trust_domains.count; i++) {
        own = own || slice_eq(domain, environment->trust_domains.items[i].text);
    }
    if (domain.size == 0 || bundle->ca.text.size == 0) {
        return OK; /* that was said. */
    }
    if (!own) {
        refuse_bundle(c, &bundle->trust_domain);
    } else if (first != NULL) {
        refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "trust domain", first, &bundle->trust_domain);
    }
    TRY(map_put(seen, domain, &bundle->trust_domain, /* out_old= */ NULL));
    struct err e = net_chain_read(bundle->ca.text, &chain);
    if (!err_ok(e) && e.code != E_NO_MEMORY) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_CA_MALFORMED, bundle->ca.at,
                                            "these are no certificates that parse");
        cp_diag_expect(c->diags, diag, "one to %d of them in PEM", NET_CHAIN_MAX);
        return OK;
    }
    return e;
}

static MUST_CHECK struct err check_bundles(struct checking *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_ENVIRONMENT];
    struct err e = OK;
    for (size_t i = 0; i < all->count && err_ok(e); i++) {
        struct cp_environment *environment = (struct cp_environment *)all->items[i];
        struct map seen = {0};
        for (size_t k = 0; k < environment->trust_bundles.count && err_ok(e); k++) {
            e = check_bundle(c, environment, &seen, &environment->trust_bundles.items[k]);
        }
        map_free(&seen);
    }
    return e;
}

static void check_environment(struct checking *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_ENVIRONMENT];
    if (all->count == 0 &&
        !may_be_lost(c, CP_KIND_ENVIRONMENT, (struct slice){0}, SLICE_LIT("Environment"))) {
        struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_ENVIRONMENT_COUNT, (struct cp_pos){0},
                                            "no Environment among the sources");
        cp_diag_expect(c->diags, diag, "exactly one resource of kind Environment");
    }
    for (size_t i = 1; i < all->count; i++) {
        if (!slice_eq(all->items[i]->id, all->items[0]->id) || all->items[i]->id.size == 0) {
            struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_ENVIRONMENT_COUNT,
                                                all->items[i]->at, "another Environment");
            cp_diag_expect(c->diags, diag, "exactly one");
            cp_diag_other(c->diags, diag, all->items[0]->at);
        }
    }
    for (size_t i = 0; i < all->count; i++) {
        check_domains(c, (const struct cp_environment *)all->items[i]);
    }
}

/* Puts texts into 'seen' under "<scope><text>"; a second one is refused. */
static MUST_CHECK struct err check_unique(struct checking *c, struct map *seen, struct slice scope,
                                          const char *what, struct cp_texts *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        struct slice key = {0};
        TRY(arena_printf(&c->model->arena, &key, "%.*s %.*s", SLICE_ARG(scope),
                         SLICE_ARG(texts->items[i].text)));
        struct cp_text *first = map_get(seen, key);
        if (i > 0 && slice_eq(texts->items[i].text, texts->items[i - 1].text)) {
            continue; /* sorted: the double in one list was refused when it was read */
        }
        if (first != NULL && texts->items[i].text.size > 0) {
            refuse_double(c, CP_DIAG_DUPLICATE_IDENTITY, what, first, &texts->items[i]);
        } else {
            TRY(map_put(seen, key, &texts->items[i], /* out_old= */ NULL));
        }
    }
    return OK;
}

/* Endpoints are few or many, in any order: by address and port. */
static MUST_CHECK struct err check_endpoints(struct checking *c, const struct cp_service *service)
{
    struct map seen = {0};
    struct err e = OK;
    for (size_t i = 0; i < service->endpoints.count && err_ok(e); i++) {
        struct cp_endpoint *endpoint = &service->endpoints.items[i];
        struct slice key = {0};
        e = arena_printf(&c->model->arena, &key, "%.*s %llu", SLICE_ARG(endpoint->address.text),
                         (unsigned long long)endpoint->port);
        struct cp_endpoint *first = err_ok(e) ? map_get(&seen, key) : NULL;
        if (first != NULL && endpoint->address.text.size > 0) {
            refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "endpoint", &first->address,
                          &endpoint->address);
        } else if (err_ok(e)) {
            e = map_put(&seen, key, endpoint, /* out_old= */ NULL);
        }
    }
    map_free(&seen);
    return e;
}

static MUST_CHECK struct err check_backoff(struct checking *c, const struct cp_retry *retry)
{
    if (retry->backoff_max_ms == 0 || retry->backoff_max_ms >= retry->backoff_ms) {
        return OK;
    }
    auto_buf struct buf least = BUF_MAX(64);
    TRY(cp_number_text(&least, CP_TYPE_DURATION, retry->backoff_ms));
    struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_OUT_OF_BOUND, retry->backoff_max_at,
                                        "maxBackoff is below initialBackoff, which is %.*s",
                                        SLICE_ARG(buf_slice(&least)));
    cp_diag_expect(c->diags, diag, "%.*s or more", SLICE_ARG(buf_slice(&least)));
    return OK;
}

/* A name stands in one entry: which of two would hold nobody could tell. */
static MUST_CHECK struct err check_methods(struct checking *c, const struct cp_service *service)
{
    struct map seen = {0};
    struct err e = OK;
    for (size_t i = 0; i < service->methods.count && err_ok(e); i++) {
        struct cp_texts *names = &service->methods.items[i].names;
        for (size_t k = 0; k < names->count && err_ok(e); k++) {
            struct cp_text *name = &names->items[k];
            struct cp_text *first = map_get(&seen, name->text);
            bool twice_in_list = k > 0 && slice_eq(name->text, names->items[k - 1].text);
            if (first == NULL) {
                e = map_put(&seen, name->text, name, /* out_old= */ NULL);
            } else if (name->text.size > 0 && !twice_in_list) { /* that was refused when read */
                refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "method", first, name);
            }
        }
        cp_check_method_fits(c->diags, &service->methods.items[i]);
        const struct cp_retry *retry = &service->methods.items[i].retry;
        if (err_ok(e) && retry->at.line > 0 && !retry->faulty) {
            e = check_backoff(c, retry);
        }
    }
    map_free(&seen);
    return e;
}

static MUST_CHECK struct err check_services(struct checking *c, struct map *seen)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_SERVICE];
    for (size_t i = 0; i < all->count; i++) {
        struct cp_service *service = (struct cp_service *)all->items[i];
        TRY(service->meta.proven ? OK : check_endpoints(c, service));
        TRY(service->meta.proven ? OK : cp_check_balance(c->diags, service));
        TRY(service->meta.proven ? OK : check_methods(c, service));
        if (service->meta.apart) {
            continue; /* of a double, which was refused, all of it is there twice */
        }
        TRY(check_unique(c, seen, SLICE_LIT(""), "token", &service->tokens));
        TRY(check_unique(c, seen, service->meta.tenant.text, "gRPC service of this tenant",
                         &service->grpc_services));
    }
    return OK;
}

static MUST_CHECK struct err check_rules(struct checking *c, struct cp_policy *policy)
{
    struct map seen = {0};
    struct err e = OK;
    for (size_t i = 0; i < policy->rules.count && err_ok(e); i++) {
        struct cp_text *name = &policy->rules.items[i].name;
        struct cp_text *first = map_get(&seen, name->text);
        if (first != NULL && name->text.size > 0) {
            refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "rule", first, name);
        } else {
            e = map_put(&seen, name->text, name, /* out_old= */ NULL);
        }
    }
    map_free(&seen);
    return e;
}

/* A header that carries a credential cannot be matched by value. */
static void check_headers(struct checking *c, const struct cp_header_matches *headers)
{
    for (size_t i = 1; i < headers->count; i++) { /* at most 16 */
        for (size_t k = 0; k < i; k++) {
            if (headers->items[i].name.text.size > 0 &&
                slice_eq(headers->items[i].name.text, headers->items[k].name.text)) {
                refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "header", &headers->items[k].name,
                              &headers->items[i].name);
                break;
            }
        }
    }
    for (size_t i = 0; i < headers->count; i++) {
        const struct cp_header_match *header = &headers->items[i];
        if (header->value.text.size > 0 && cp_secret_header(header->name.text)) {
            struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_SECRET_IN_CLEAR, header->value.at,
                                                "the value of header %.*s is a secret in clear",
                                                SLICE_ARG(header->name.text));
            cp_diag_expect(c->diags, diag, "present: true");
            cp_diag_mask(c->diags, diag);
        }
    }
}

/* One service twice among the targets of a route: its weight would be in two places. */
static void check_targets(struct checking *c, const struct cp_route *route)
{
    for (size_t i = 1; i < route->targets.count; i++) { /* at most 64 */
        for (size_t k = 0; k < i; k++) {
            const struct cp_ref *a = &route->targets.items[k].service;
            const struct cp_ref *b = &route->targets.items[i].service;
            if (b->to != NULL && a->to == b->to) {
                struct cp_text first = {a->text, a->at};
                struct cp_text second = {b->text, b->at};
                refuse_double(c, CP_DIAG_DUPLICATE_VALUE, "target", &first, &second);
                break;
            }
        }
    }
}

/* Any page, with the cookies and certificate of whoever reads it: browsers refuse that, too. */
static void check_cors(struct checking *c, const struct cp_cors *cors)
{
    for (size_t i = 0; cors->credentials != 0 && i < cors->origins.count; i++) {
        if (slice_eq(cors->origins.items[i].text, SLICE_LIT("*"))) {
            struct cp_diag *diag =
                cp_diags_add(c->diags, CP_DIAG_OUT_OF_BOUND, cors->credentials_at,
                             "allowCredentials with the origin * lets any page act as its reader");
            cp_diag_expect(c->diags, diag, "origins by name, or no allowCredentials");
            cp_diag_other(c->diags, diag, cors->origins.items[i].at);
        }
    }
}

static MUST_CHECK struct err check_policies(struct checking *c)
{
    const struct cp_resources *policies = &c->model->of[CP_KIND_POLICY];
    for (size_t i = 0; i < policies->count; i++) {
        struct cp_policy *policy = (struct cp_policy *)policies->items[i];
        TRY(policy->meta.proven ? OK : check_rules(c, policy));
        for (size_t k = 0; !policy->meta.proven && k < policy->rules.count; k++) {
            check_headers(c, &policy->rules.items[k].headers);
            cp_check_rule_fits(c->diags, &policy->target, &policy->rules.items[k]);
            TRY(cp_check_rule(c->model, c->diags, &policy->rules.items[k]));
        }
    }
    const struct cp_resources *routes = &c->model->of[CP_KIND_ROUTE];
    for (size_t i = 0; i < routes->count; i++) {
        const struct cp_route *route = (const struct cp_route *)routes->items[i];
        check_targets(c, route);
        check_cors(c, &route->cors);
        for (size_t k = 0; !route->meta.proven && k < route->match.count; k++) {
            check_headers(c, &route->match.items[k].headers);
            cp_check_match_fits(c->diags, &route->match.items[k]);
        }
    }
    return OK;
}

/* Of a limit: what it says that its kind has no use for. */
static void check_limit(struct checking *c, const struct cp_rate_limit *limit)
{
    if (limit->burst > 0 && limit->concurrency + limit->quota > 0) {
        struct cp_diag *diag =
            cp_diags_add(c->diags, CP_DIAG_CHOICE, limit->burst_at, "burst beside %s",
                         limit->quota > 0 ? "a quota" : "concurrency");
        cp_diag_expect(c->diags, diag, "burst beside a rate alone");
    }
    if (limit->period_ns > 0 && limit->burst > LIMIT_BUDGET_MAX_NS / limit->period_ns) {
        struct cp_diag *diag = cp_diags_add(
            c->diags, CP_DIAG_OUT_OF_BOUND, limit->burst_at,
            "a burst of %llu at this rate takes longer to come back than a node counts",
            (unsigned long long)limit->burst);
        cp_diag_expect(c->diags, diag, "at most %llu, or a faster rate",
                       (unsigned long long)(LIMIT_BUDGET_MAX_NS / limit->period_ns));
    }
    if (limit->scope == 1 && limit->period_ns == 0) {
        struct cp_diag *diag =
            cp_diags_add(c->diags, CP_DIAG_CHOICE, limit->scope_at, "scope: global beside %s",
                         limit->quota > 0 ? "a quota" : "concurrency");
        cp_diag_expect(c->diags, diag,
                       "a rate; quotas and what is in flight are counted by each node");
    }
    if (limit->on_unknown_at.line > 0 && limit->by_headers.count == 0 && limit->scope == 0 &&
        !cp_diags_pass_over(c->diags)) {
        struct cp_diag *diag = cp_diags_add(
            c->diags, CP_DIAG_CHOICE, limit->on_unknown_at,
            "onUnknown where nothing can be unknown: callers, tenants and methods are known");
        cp_diag_expect(c->diags, diag, "byHeaders or scope: global beside it");
    }
    if (limit->concurrency > 0 && limit->target.topic.text.size > 0) {
        struct cp_diag *diag =
            cp_diags_add(c->diags, CP_DIAG_CHOICE, limit->concurrency_at, "concurrency of a topic");
        cp_diag_expect(c->diags, diag,
                       "a rate, or a service or egress as the target: events are not in flight");
    }
}

/* A node keeps as many places for what is in flight with each request. */
static MUST_CHECK struct err check_limits(struct checking *c)
{
    enum { HELD_MAX = 4, SHARED_MAX = 128 };
    uint64_t shared = 0;
    const struct cp_resources *all = &c->model->of[CP_KIND_RATE_LIMIT];
    struct map held = {0}; /* key of a target to how many count it. */
    size_t *counts = NULL;
    TRY(arena_calloc(&c->model->arena, all->count + 1, sizeof(*counts), (void **)&counts));
    struct err e = OK;
    for (size_t i = 0; i < all->count && err_ok(e); i++) {
        const struct cp_rate_limit *limit = (const struct cp_rate_limit *)all->items[i];
        const struct cp_ref *ref =
            limit->target.service.to != NULL ? &limit->target.service : &limit->target.egress;
        check_limit(c, limit);
        cp_check_limit_fits(c->diags, limit);
        shared += limit->scope;
        if (limit->scope == 1 && shared == SHARED_MAX + 1) {
            struct cp_diag *diag = cp_diags_add(c->diags, CP_DIAG_OUT_OF_BOUND, limit->scope_at,
                                                "more than %d limits of scope global", SHARED_MAX);
            cp_diag_expect(c->diags, diag, "at most %d of the platform", SHARED_MAX);
        }
        if (limit->concurrency == 0 || ref->to == NULL) {
            continue;
        }
        struct slice key = slice_of((const uint8_t *)&ref->to, sizeof(ref->to));
        size_t *count = map_get(&held, key);
        if (count == NULL) {
            count = &counts[i];
            e = map_put(&held, key, count, /* out_old= */ NULL);
        }
        if (++*count > HELD_MAX) {
            struct cp_diag *diag =
                cp_diags_add(c->diags, CP_DIAG_OUT_OF_BOUND, limit->concurrency_at,
                             "the fifth limit of concurrency of %.*s", SLICE_ARG(ref->to->id));
            cp_diag_expect(c->diags, diag, "at most %d of a target", HELD_MAX);
        }
    }
    map_free(&held);
    return e;
}

/* Where a resource says its descriptor set. */
struct descriptor_place {
    struct cp_meta *meta;
    const struct cp_text *inl;
    const struct cp_text *path;
};

static MUST_CHECK struct err
take_descriptor(struct checking *c, const struct descriptor_place *place, struct slice *out_set)
{
    const struct cp_text *inl = place->inl;
    const struct cp_text *path = place->path;
    if (inl->text.size > 0 && path->text.size > 0) {
        return OK; /* that was refused: which of them is meant nobody knows */
    }
    if (inl->text.size > 0) {
        return cp_form_base64(inl->text, &c->model->arena, out_set);
    }
    if (path->text.size == 0) {
        return OK;
    }
    struct slice name = {0};
    const struct cp_source_file *file = NULL;
    TRY(cp_check_path(c->model, path->at.file, path->text, &name, &file));
    if (file != NULL) {
        *out_set = file->bytes;
        return OK;
    }
    place->meta->faulty = true;
    if (cp_source_is_unread(c->model->set, name)) {
        return OK; /* it is there, and what is wrong with it was said */
    }
    struct cp_near near = cp_near_to(path->text);
    for (size_t i = 0; i < c->model->set->count && i < NEAR_OFFERS; i++) {
        cp_near_offer(&near, c->model->set->files[i].name);
    }
    struct cp_diag *diag =
        cp_diags_add(c->diags, CP_DIAG_DESCRIPTOR_MISSING, path->at,
                     "no file \"%.*s\" among the sources", SLICE_ARG(path->text));
    cp_diag_expect(c->diags, diag, "a path from the directory of this file");
    cp_diag_nearest(c->diags, diag, near.best);
    return OK;
}

static MUST_CHECK struct err check_service_descriptors(struct checking *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_SERVICE];
    for (size_t i = 0; i < all->count; i++) {
        struct cp_service *service = (struct cp_service *)all->items[i];
        const struct descriptor_place place = {&service->meta, &service->descriptor_inline,
                                               &service->descriptor_file};
        TRY(take_descriptor(c, &place, &service->descriptor_set));
    }
    return OK;
}

static MUST_CHECK struct err check_topics(struct checking *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_TOPIC];
    for (size_t i = 0; i < all->count; i++) {
        struct cp_topic *topic = (struct cp_topic *)all->items[i];
        const struct descriptor_place place = {&topic->meta, &topic->descriptor_inline,
                                               &topic->descriptor_file};
        TRY(take_descriptor(c, &place, &topic->descriptor_set));
        uint64_t major = 0;
        struct slice text = slice_head(topic->version.text, slice_find(topic->version.text, '.'));
        if (text.size > 0 && (!slice_to_u64(text, &major) || major != topic->major)) {
            struct cp_diag *diag =
                cp_diags_add(c->diags, CP_DIAG_FORMAT_INVALID, topic->version.at,
                             "version %.*s is not of major %llu", SLICE_ARG(topic->version.text),
                             (unsigned long long)topic->major);
            cp_diag_expect(c->diags, diag, "%llu.x.y", (unsigned long long)topic->major);
        }
    }
    return OK;
}

static MUST_CHECK struct err check_all(struct checking *c, struct map *seen)
{
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        TRY(index_kind(c, kind));
    }
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        struct cp_resources *all = &c->model->of[kind];
        for (size_t i = 0; i < all->count; i++) {
            TRY(walk(c, &cp_kind_at(kind)->spec, all->items[i], all->items[i]));
        }
    }
    check_environment(c);
    TRY(check_bundles(c));
    TRY(check_services(c, seen));
    TRY(check_service_descriptors(c));
    TRY(check_policies(c));
    TRY(cp_check_transport(c->model, c->diags));
    TRY(cp_check_issuers(c->model, c->diags));
    TRY(check_limits(c));
    return check_topics(c);
}

struct err cp_check_model(struct cp_model *model, struct cp_diags *diags,
                          const struct cp_losses *losses)
{
    struct checking c = {.model = model, .diags = diags, .losses = losses};
    struct map seen = {0};
    struct err e = check_all(&c, &seen);
    map_free(&seen);
    map_free(&c.tenants);
    return e;
}

/* Drops the last segment of a path with a trailing '/'. False: there is none. */
static bool path_up(struct slice *path)
{
    if (path->size == 0) {
        return false;
    }
    size_t end = path->size - 1;
    while (end > 0 && path->ptr[end - 1] != '/') {
        end--;
    }
    path->size = end;
    return true;
}

struct err cp_check_path(struct cp_model *model, uint32_t from, struct slice path,
                         struct slice *out_name, const struct cp_source_file **out)
{
    CHECK(from < model->set->count);
    struct slice base = model->set->files[from].name;
    while (base.size > 0 && base.ptr[base.size - 1] != '/') {
        base.size--;
    }
    *out = NULL;
    for (;;) { /* ends: each turn drops three bytes of the path, or leaves. */
        if (slice_starts(path, SLICE_LIT("./"))) {
            path = slice_from(path, 2);
        } else if (!slice_starts(path, SLICE_LIT("../"))) {
            break;
        } else if (!path_up(&base)) {
            return OK;
        } else {
            path = slice_from(path, 3);
        }
    }
    TRY(arena_printf(&model->arena, out_name, "%.*s%.*s", SLICE_ARG(base), SLICE_ARG(path)));
    *out = cp_source_set_find(model->set, *out_name);
    return OK;
}
