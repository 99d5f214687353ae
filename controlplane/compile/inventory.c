/*
 * inventory: what people name in their sources, with a print of each field, so that two compiled
 * platforms can be compared in people's words. It is no part of a snapshot. Each file has its own:
 * of a file that did not change nothing is looked at again.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/compile/show.h"
#include "controlplane/source/kinds.h"
#include "controlplane/source/leaf.h"

enum { INVENTORY_BLOCK = 4 << 10, INVENTORY_MAX = 1 << 30 };

/* Feeds a value into 'out' so that different values give different bytes. */
static MUST_CHECK struct err feed_field(struct buf *out, const struct cp_field *field,
                                        const void *at);

static MUST_CHECK struct err feed_text(struct buf *out, struct slice text)
{
    TRY(buf_addf(out, "%zu:", text.size));
    return buf_add(out, text);
}

static MUST_CHECK struct err feed_shape(struct buf *out, const struct cp_shape *shape,
                                        const void *at)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        TRY(feed_field(out, field, field->flat ? at : (const char *)at + field->offset));
    }
    return OK;
}

/*
 * Stands for bytes: what is short by itself, the rest by a digest. A front byte tells them apart.
 */
static void print_of(struct slice bytes, uint8_t out[DIGEST_SHORT_SIZE])
{
    enum { LONG = 0xff };
    if (bytes.size < DIGEST_SHORT_SIZE) {
        (void)memset(out, 0, DIGEST_SHORT_SIZE);
        out[0] = (uint8_t)bytes.size;
        (void)memcpy(out + 1, bytes.ptr, bytes.size);
    } else {
        ids_digest_short(bytes, out);
        out[0] = LONG;
    }
}

static int print_cmp(const void *x, const void *y)
{
    return slice_cmp(slice_of(x, DIGEST_SHORT_SIZE), slice_of(y, DIGEST_SHORT_SIZE));
}

/* A list without a meaning of order: the sorted prints of its items. */
static MUST_CHECK struct err feed_objects(struct buf *out, const struct cp_field *field,
                                          const void *at)
{
    const struct cp_texts *list = at; /* all lists begin alike: items, count */
    auto_free uint8_t *prints = list->count == 0 ? NULL : calloc(list->count, DIGEST_SHORT_SIZE);
    if (list->count > 0 && prints == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < list->count; i++) {
        size_t before = out->size; /* an item is fed behind what is there, and taken off again. */
        TRY(feed_shape(out, field->shape, (const char *)list->items + i * field->shape->size));
        print_of(slice_from(buf_slice(out), before), prints + i * DIGEST_SHORT_SIZE);
        out->size = before;
    }
    if (list->count > 1) {
        qsort(prints, list->count, DIGEST_SHORT_SIZE, print_cmp);
    }
    TRY(buf_addf(out, "%zu;", list->count));
    return buf_add(out, slice_of(prints, list->count * DIGEST_SHORT_SIZE));
}

static MUST_CHECK struct err feed_texts(struct buf *out, const struct cp_texts *texts)
{
    TRY(buf_addf(out, "%zu;", texts->count));
    for (size_t i = 0; i < texts->count; i++) {
        TRY(feed_text(out, texts->items[i].text));
    }
    return OK;
}

static MUST_CHECK struct err feed_pairs(struct buf *out, const struct cp_pairs *pairs)
{
    TRY(buf_addf(out, "%zu;", pairs->count));
    for (size_t i = 0; i < pairs->count; i++) {
        TRY(feed_text(out, pairs->items[i].name.text));
        TRY(feed_text(out, pairs->items[i].value.text));
    }
    return OK;
}

static struct err feed_field(struct buf *out, const struct cp_field *field, const void *at)
{
    switch (field->type) {
    case CP_TYPE_TEXT:
        return feed_text(out, ((const struct cp_text *)at)->text);
    case CP_TYPE_REF:
        return feed_text(out, ((const struct cp_ref *)at)->to == NULL
                                  ? ((const struct cp_ref *)at)->text /* a glob, or none. */
                                  : ((const struct cp_ref *)at)->to->key);
    case CP_TYPE_TEXTS:
    case CP_TYPE_PORTS:
        return feed_texts(out, at);
    case CP_TYPE_COUNT:
    case CP_TYPE_BOOL:
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA:
    case CP_TYPE_CHOICE:
    case CP_TYPE_FLAGS:
        return buf_addf(out, "%llu;", (unsigned long long)*(const uint64_t *)at);
    case CP_TYPE_PAIRS:
        return feed_pairs(out, at);
    case CP_TYPE_OBJECT:
        return feed_shape(out, field->shape, at);
    case CP_TYPE_OBJECTS:
        return feed_objects(out, field, at);
    }
    return OK;
}

/* ---- items ---- */

struct taking {
    struct cp_inventory *out;
    struct arena *arena; /* the inventory's. */
    struct buf bytes;    /* of a field at a time. */
};

/* Adds an item with the prints of a struct's fields, but for those named 'without'. */
static MUST_CHECK struct err add_item(struct taking *t, struct cp_item item,
                                      const struct cp_shape *shape, const void *at,
                                      const char *without)
{
    TRY(arena_calloc(t->arena, shape->field_count + 1, sizeof(struct cp_item_field),
                     (void **)&item.fields));
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        if (without != NULL && slice_eq(slice_str(field->name), slice_str(without))) {
            continue;
        }
        const void *value = field->flat ? at : (const char *)at + field->offset;
        struct cp_item_field *made = &item.fields[item.field_count++];
        buf_clear(&t->bytes);
        TRY(feed_field(&t->bytes, field, value));
        print_of(buf_slice(&t->bytes), made->print);
        TRY(cp_show_field(t->arena, field, value, &made->shown));
        made->name = slice_str(field->name);
    }
    TRY(array_room(&t->out->items, t->out->count, &t->out->capacity, sizeof(struct cp_item)));
    t->out->items[t->out->count++] = item;
    return OK;
}

static const struct cp_shape *rule_shape(void)
{
    const struct cp_shape *spec = &cp_kind_at(CP_KIND_POLICY)->spec;
    for (size_t i = 0; i < spec->field_count; i++) {
        if (spec->fields[i].type == CP_TYPE_OBJECTS) {
            return spec->fields[i].shape;
        }
    }
    CHECK(false); /* a policy has rules. */
    return NULL;
}

/* Of a rule's field: whether it says anything, and is not in the front of the note already. */
static bool narrows(const struct cp_field *field, const void *at)
{
    static const char *const told[] = {"name", "effect", "verbs", "callers", "shadow"};
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        if (slice_eq(slice_str(field->name), slice_str(told[i]))) {
            return false;
        }
    }
    switch (field->type) {
    case CP_TYPE_TEXT:
        return ((const struct cp_text *)at)->text.size > 0;
    case CP_TYPE_TEXTS:
    case CP_TYPE_OBJECTS: /* all lists begin alike. */
        return ((const struct cp_texts *)at)->count > 0;
    case CP_TYPE_FLAGS:
        return *(const uint64_t *)at != 0;
    case CP_TYPE_COUNT:
    case CP_TYPE_BOOL:
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA:
    case CP_TYPE_CHOICE:
    case CP_TYPE_REF:
    case CP_TYPE_PORTS:
    case CP_TYPE_PAIRS:
    case CP_TYPE_OBJECT:
        return false; /* a rule has none of these. */
    }
    return false;
}

/* ", where methods GET, headers x-debug": else a rule would look as if it always held. */
static MUST_CHECK struct err add_narrowing(struct taking *t, const struct cp_rule *rule,
                                           struct buf *note)
{
    const struct cp_shape *shape = rule_shape();
    const char *between = ", where ";
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        const void *at = (const char *)rule + field->offset;
        struct slice shown = {0};
        if (!narrows(field, at)) {
            continue;
        }
        TRY(cp_show_field(t->arena, field, at, &shown));
        TRY(buf_addf(note, "%s%s", between, field->name));
        TRY(shown.size == 0 ? OK : buf_addf(note, " %.*s", SLICE_ARG(shown)));
        for (size_t k = 0; at == &rule->headers && k < rule->headers.count; k++) {
            TRY(buf_addf(note, "%s%.*s", k == 0 ? " " : " and ",
                         SLICE_ARG(rule->headers.items[k].name.text)));
        }
        between = ", ";
    }
    return OK;
}

/* "allows call, fetch on service/acme/orders for acme/web, where methods /a.v1.A/Get" */
static MUST_CHECK struct err rule_note(struct taking *t, const struct cp_rule *rule,
                                       struct slice target, struct slice *out)
{
    static const char *const verbs[CP_VERB_COUNT] = {"call", "publish", "subscribe", "fetch"};
    struct buf *note = &t->bytes;
    buf_clear(note);
    TRY(buf_addf(note, "%s%s ", rule->shadow != 0 ? "would, in shadow: " : "",
                 rule->effect == 0 ? "allows" : "denies"));
    const char *comma = "";
    for (size_t i = 0; i < CP_VERB_COUNT; i++) {
        if ((rule->verbs >> i & 1) != 0) {
            TRY(buf_addf(note, "%s%s", comma, verbs[i]));
            comma = ", ";
        }
    }
    TRY(buf_addf(note, "%s on %.*s", rule->verbs == 0 ? "everything" : "", SLICE_ARG(target)));
    const struct cp_callers *callers = &rule->callers;
    if (callers->count == 1 && callers->items[0].service.to != NULL) {
        TRY(buf_addf(note, " for %.*s", SLICE_ARG(callers->items[0].service.to->id)));
    } else {
        TRY(callers->count == 0 ? buf_add_str(note, " for anyone")
                                : buf_addf(note, " for %zu kind%s of callers", callers->count,
                                           callers->count == 1 ? "" : "s"));
    }
    TRY(add_narrowing(t, rule, note));
    return arena_dup(t->arena, buf_slice(note), out);
}

static MUST_CHECK struct err add_rules(struct taking *t, const struct cp_policy *policy,
                                       struct slice target)
{
    for (size_t i = 0; i < policy->rules.count; i++) {
        const struct cp_rule *rule = &policy->rules.items[i];
        struct cp_item item = {.kind = SLICE_LIT("rule"), .target = target};
        const struct slice pieces[] = {policy->meta.id, SLICE_LIT("/"), rule->name.text};
        TRY(arena_join(t->arena, pieces, 3, &item.id));
        TRY(rule_note(t, rule, target, &item.note));
        TRY(add_item(t, item, rule_shape(), rule, /* without= */ "name"));
    }
    return OK;
}

/* What a change of the resource reaches: itself, or what it is about. */
static MUST_CHECK struct err target_of(struct taking *t, const struct cp_meta *meta,
                                       struct slice *out)
{
    switch (meta->kind) {
    case CP_KIND_SERVICE:
    case CP_KIND_EGRESS:
    case CP_KIND_TOPIC:
        return cp_target_id(t->arena, meta, out);
    case CP_KIND_POLICY:
        return cp_policy_target_id(t->arena, (const struct cp_policy *)meta, out);
    case CP_KIND_RATE_LIMIT:
        return cp_target_id(t->arena, cp_target_of(&((const struct cp_rate_limit *)meta)->target),
                            out);
    case CP_KIND_ENVIRONMENT:
    case CP_KIND_ROUTE:
    case CP_KIND_TRANSPORT_PROFILE:
    case CP_KIND_REVOCATION:
    case CP_KIND_ISSUER:
    case CP_KIND_COUNT:
        return OK;
    }
    return OK;
}

static MUST_CHECK struct err add_resource(struct taking *t, const struct cp_meta *meta)
{
    CHECK(cp_is_whole(meta)); /* a model with errors has no inventory. */
    if (meta->kind == CP_KIND_REVOCATION) {
        return OK; /* what it lists is named entry by entry: cp_compile_revocations(). */
    }
    const struct cp_kind_row *row = cp_kind_at(meta->kind);
    struct cp_item item = {.kind = slice_str(row->name)};
    TRY(arena_dup(t->arena, meta->id, &item.id));
    TRY(target_of(t, meta, &item.target));
    bool policy = meta->kind == CP_KIND_POLICY;
    TRY(add_item(t, item, &row->spec, meta, policy ? "rules" : NULL));
    return policy ? add_rules(t, (const struct cp_policy *)meta, item.target) : OK;
}

/* ---- files ---- */

struct err cp_inventory_new(struct cp_inventory **out)
{
    struct cp_inventory *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    refs_init(&made->refs);
    arena_init(&made->arena, INVENTORY_BLOCK, INVENTORY_MAX);
    *out = made;
    return OK;
}

void cp_inventory_unref(struct cp_inventory *inventory)
{
    if (inventory != NULL && refs_drop(&inventory->refs)) {
        arena_free(&inventory->arena);
        free(inventory->items);
        free(inventory);
    }
}

static MUST_CHECK struct err take_leaf(const struct cp_leaf *leaf, struct cp_inventory **out)
{
    struct cp_inventory *made = NULL;
    TRY(cp_inventory_new(&made));
    struct taking t = {.out = made, .arena = &made->arena, .bytes = BUF_MAX(SIZE_MAX / 2)};
    struct err e = OK;
    for (size_t i = 0; i < leaf->count && err_ok(e); i++) {
        e = add_resource(&t, leaf->resources[i]);
    }
    buf_free(&t.bytes);
    if (!err_ok(e)) {
        cp_inventory_unref(made);
        return e;
    }
    *out = made;
    return OK;
}

/* Leaves it for the next compile, with a reference of its own; not being able to is no failure. */
static void keep(struct cp_compiler *c, struct slice key, struct cp_inventory *inventory)
{
    size_t bytes =
        sizeof(*inventory) + inventory->arena.total + inventory->capacity * sizeof(struct cp_item);
    refs_take(&inventory->refs);
    if (!err_ok(cp_memo_put(&c->reuse->inventories, key, inventory, bytes))) {
        cp_inventory_unref(inventory);
    }
}

/* The inventory of a file: that of the same leaf whose references lead to the same. */
static MUST_CHECK struct err find_or_take(struct cp_compiler *c, const struct cp_leaf *leaf,
                                          struct cp_inventory **out)
{
    uint64_t names[] = {leaf->serial, leaf->links};
    struct slice key = slice_of(names, sizeof(names));
    bool kept = c->reuse != NULL && leaf->serial > 0;
    struct cp_inventory *known = kept ? cp_memo_get(&c->reuse->inventories, key) : NULL;
    if (known != NULL) {
        refs_take(&known->refs);
        *out = known;
        return OK;
    }
    TRY(take_leaf(leaf, out));
    if (kept) {
        keep(c, key, *out);
    }
    return OK;
}

struct err cp_compile_inventory(struct cp_compiler *c)
{
    struct cp_compiled *out = c->out;
    TRY(arena_calloc(c->arena, c->model->leaf_count + 1, sizeof(*out->inventories),
                     (void **)&out->inventories));
    for (size_t i = 0; i < c->model->leaf_count; i++) {
        TRY(find_or_take(c, c->model->leaves[i], &out->inventories[i]));
        out->inventory_count++;
    }
    out->has_inventory = true;
    return OK;
}
