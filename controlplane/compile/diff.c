/* diff: two compiled platforms, compared by what people name. See compile.h. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/map.h"
#include "common/base/scope.h"
#include "controlplane/compile/compiler.h"

static const struct cp_compiled nothing;

static const char *const op_words[] = {
    [CP_CHANGE_ADDED] = "added", [CP_CHANGE_CHANGED] = "changed", [CP_CHANGE_REMOVED] = "removed"};
static const char op_signs[] = {
    [CP_CHANGE_ADDED] = '+', [CP_CHANGE_CHANGED] = '~', [CP_CHANGE_REMOVED] = '-'};

/* The names of the fields whose digests differ, and the same with their values where they have
 * some: "endpoints, rate 5/s -> 6/s". Both are empty when none does. */
struct fields {
    struct slice names;
    struct slice values;
};

static MUST_CHECK struct err changed_fields(struct arena *arena, const struct cp_item *a,
                                            const struct cp_item *b, struct fields *out)
{
    auto_buf struct buf names = BUF_MAX(4096);
    auto_buf struct buf values = BUF_MAX(64 << 10);
    for (size_t i = 0; i < a->field_count; i++) {
        const struct cp_item_field *old = &a->fields[i];
        const struct cp_item_field *new = &b->fields[i];
        if (memcmp(old->digest, new->digest, DIGEST_SHORT_SIZE) == 0) {
            continue;
        }
        const char *between = names.size > 0 ? ", " : "";
        TRY(buf_addf(&names, "%s%.*s", between, SLICE_ARG(old->name)));
        TRY(buf_addf(&values, "%s%.*s", between, SLICE_ARG(old->name)));
        if (old->shown.size + new->shown.size > 0 && !slice_eq(old->shown, new->shown)) {
            struct slice none = SLICE_LIT("none");
            TRY(buf_addf(&values, " %.*s -> %.*s",
                         SLICE_ARG(old->shown.size > 0 ? old->shown : none),
                         SLICE_ARG(new->shown.size > 0 ? new->shown : none)));
        }
    }
    TRY(arena_dup(arena, buf_slice(&names), &out->names));
    return arena_dup(arena, buf_slice(&values), &out->values);
}

static MUST_CHECK struct err add_change(struct cp_diff *diff, size_t *capacity,
                                        enum cp_change_op op, const struct cp_item *item,
                                        struct fields fields)
{
    void *changes = diff->changes;
    TRY(cp_grow(&diff->arena, &changes, diff->count, capacity, sizeof(struct cp_change)));
    diff->changes = changes;
    struct cp_change *change = &diff->changes[diff->count++];
    *change = (struct cp_change){.op = op, .fields = fields.names};
    TRY(arena_dup(&diff->arena, item->kind, &change->kind));
    TRY(arena_dup(&diff->arena, item->id, &change->id));
    TRY(arena_dup(&diff->arena, item->target, &change->target));
    bool note = item->note.size > 0 && op != CP_CHANGE_REMOVED;
    struct slice more = fields.names.size > 0 && !note ? fields.values : item->note;
    return arena_printf(&diff->arena, &change->sentence, "%.*s %.*s %s%s%.*s",
                        SLICE_ARG(item->kind), SLICE_ARG(item->id), op_words[op],
                        more.size > 0 && op != CP_CHANGE_REMOVED ? ": " : "",
                        SLICE_ARG(op == CP_CHANGE_REMOVED ? (struct slice){0} : more));
}

static int item_cmp(const struct cp_item *a, const struct cp_item *b)
{
    int order = slice_cmp(a->kind, b->kind);
    return order != 0 ? order : slice_cmp(a->id, b->id);
}

/* Both inventories are sorted: one pass over the two. */
static MUST_CHECK struct err compare_items(struct cp_diff *diff, const struct cp_compiled *before,
                                           const struct cp_compiled *after)
{
    size_t capacity = 0;
    for (size_t i = 0, k = 0; i < before->item_count || k < after->item_count;) {
        int order = i == before->item_count  ? 1
                    : k == after->item_count ? -1
                                             : item_cmp(&before->items[i], &after->items[k]);
        if (order < 0) {
            TRY(add_change(diff, &capacity, CP_CHANGE_REMOVED, &before->items[i],
                           (struct fields){0}));
        } else if (order > 0) {
            TRY(add_change(diff, &capacity, CP_CHANGE_ADDED, &after->items[k], (struct fields){0}));
        } else {
            struct fields fields = {0};
            TRY(changed_fields(&diff->arena, &before->items[i], &after->items[k], &fields));
            TRY(fields.names.size == 0
                    ? OK
                    : add_change(diff, &capacity, CP_CHANGE_CHANGED, &after->items[k], fields));
        }
        i += order <= 0;
        k += order >= 0;
    }
    return OK;
}

/* The target that a part is about; empty for parts of the platform as a whole. */
static struct slice part_target(const struct cp_part *part, struct arena *arena, struct err *e)
{
    struct slice id = {0};
    bool service = slice_starts(part->key, SLICE_LIT("service/"));
    if (part->kind == CP_PART_AUTHORISATION || part->kind == CP_PART_LIMITS || service) {
        *e = arena_dup(arena, part->key, &id);
    } else if (part->kind == CP_PART_SCHEMAS || part->kind == CP_PART_BUS) {
        *e = arena_printf(arena, &id, "topic/%.*s", SLICE_ARG(part->key));
    } else if (part->kind == CP_PART_EGRESS) {
        *e = arena_printf(arena, &id, "egress/%.*s", SLICE_ARG(part->key));
    }
    return id;
}

static MUST_CHECK struct err add_target(struct cp_diff *diff, size_t *capacity,
                                        const struct cp_part *part)
{
    struct err e = OK;
    struct slice id = part_target(part, &diff->arena, &e);
    TRY(e);
    if (id.size == 0) {
        return OK;
    }
    void *targets = diff->targets;
    TRY(cp_grow(&diff->arena, &targets, diff->target_count, capacity, sizeof(struct slice)));
    diff->targets = targets;
    diff->targets[diff->target_count++] = id;
    return OK;
}

static int slice_order(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static void sort_targets(struct cp_diff *diff)
{
    if (diff->target_count > 1) {
        qsort(diff->targets, diff->target_count, sizeof(struct slice), slice_order);
    }
    size_t count = 0;
    for (size_t i = 0; i < diff->target_count; i++) {
        if (count == 0 || !slice_eq(diff->targets[i], diff->targets[count - 1])) {
            diff->targets[count++] = diff->targets[i];
        }
    }
    diff->target_count = count;
}

static int part_cmp(const struct cp_part *a, const struct cp_part *b)
{
    int order = (a->kind > b->kind) - (a->kind < b->kind);
    return order != 0 ? order : slice_cmp(a->key, b->key);
}

static MUST_CHECK struct err compare_parts(struct cp_diff *diff, const struct cp_compiled *before,
                                           const struct cp_compiled *after)
{
    size_t capacity = 0;
    for (size_t i = 0, k = 0; i < before->part_count || k < after->part_count;) {
        int order = i == before->part_count  ? 1
                    : k == after->part_count ? -1
                                             : part_cmp(&before->parts[i], &after->parts[k]);
        const struct cp_part *part = order <= 0 ? &before->parts[i] : &after->parts[k];
        bool differs = order != 0 || !slice_eq(before->parts[i].bytes, after->parts[k].bytes);
        if (differs && part->kind != CP_PART_POSITIONS) {
            diff->parts_added += order > 0;
            diff->parts_removed += order < 0;
            diff->parts_changed += order == 0;
            TRY(add_target(diff, &capacity, part));
        }
        i += order <= 0;
        k += order >= 0;
    }
    sort_targets(diff);
    return OK;
}

struct err cp_diff_make(const struct cp_compiled *before, const struct cp_compiled *after,
                        struct cp_diff *out)
{
    before = before == NULL ? &nothing : before;
    struct cp_diff diff = {0};
    arena_init(&diff.arena, 64 << 10, 1U << 30);
    struct err e = compare_items(&diff, before, after);
    if (err_ok(e)) {
        e = compare_parts(&diff, before, after);
    }
    if (!err_ok(e)) {
        arena_free(&diff.arena);
        return e;
    }
    *out = diff;
    return OK;
}

void cp_diff_free(struct cp_diff *diff)
{
    arena_free(&diff->arena);
    *diff = (struct cp_diff){0};
}

struct err cp_diff_text(const struct cp_diff *diff, struct buf *out)
{
    size_t counts[3] = {0};
    for (size_t i = 0; i < diff->count; i++) {
        const struct cp_change *change = &diff->changes[i];
        counts[change->op]++;
        TRY(buf_addf(out, "%c %.*s\n", op_signs[change->op], SLICE_ARG(change->sentence)));
    }
    if (diff->count == 0 && diff->parts_added + diff->parts_changed + diff->parts_removed == 0) {
        return buf_add_str(out, "no differences\n");
    }
    TRY(buf_addf(out, "%zu to add, %zu to change, %zu to remove; targets reached: %zu\n",
                 counts[CP_CHANGE_ADDED], counts[CP_CHANGE_CHANGED], counts[CP_CHANGE_REMOVED],
                 diff->target_count));
    for (size_t i = 0; i < diff->target_count; i++) {
        TRY(buf_addf(out, "  %.*s\n", SLICE_ARG(diff->targets[i])));
    }
    return OK;
}

static void set_text(json_t *object, const char *name, struct slice text)
{
    if (text.size > 0) {
        (void)json_object_set_new(object, name, json_stringn((const char *)text.ptr, text.size));
    }
}

static json_t *change_json(const struct cp_change *change)
{
    json_t *object = json_object();
    set_text(object, "op", slice_str(op_words[change->op]));
    set_text(object, "kind", change->kind);
    set_text(object, "id", change->id);
    set_text(object, "target", change->target);
    set_text(object, "fields", change->fields);
    set_text(object, "sentence", change->sentence);
    return object;
}

struct err cp_diff_json(const struct cp_diff *diff, struct buf *out)
{
    json_t *root = json_object();
    json_t *changes = json_array();
    json_t *targets = json_array();
    for (size_t i = 0; i < diff->count; i++) {
        (void)json_array_append_new(changes, change_json(&diff->changes[i]));
    }
    for (size_t i = 0; i < diff->target_count; i++) {
        (void)json_array_append_new(
            targets, json_stringn((const char *)diff->targets[i].ptr, diff->targets[i].size));
    }
    bool whole =
        json_array_size(changes) == diff->count && json_array_size(targets) == diff->target_count;
    (void)json_object_set_new(root, "changes", changes);
    (void)json_object_set_new(root, "targets", targets);
    (void)json_object_set_new(root, "partsAdded", json_integer((json_int_t)diff->parts_added));
    (void)json_object_set_new(root, "partsChanged", json_integer((json_int_t)diff->parts_changed));
    (void)json_object_set_new(root, "partsRemoved", json_integer((json_int_t)diff->parts_removed));
    auto_free char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text == NULL || !whole ? FAIL(E_NO_MEMORY) : buf_add_str(out, text);
}
