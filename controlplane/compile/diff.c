/* diff: two compiled platforms, compared by what people name. See compile.h. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "controlplane/compile/compiler.h"

enum { CHANGES_MAX = 10000, LOOSENED_MAX = 10000, TARGETS_MAX = 10000, DIFF_BYTES_MAX = 1 << 30 };

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
        if (memcmp(old->print, new->print, DIGEST_SHORT_SIZE) == 0) {
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

/*
 * Past a bound changes are counted, not kept: nobody reads them all. What loosens has a bound of
 * its own, so that it is seen among however many others.
 */
static bool is_kept(const struct cp_diff *diff, bool loosens)
{
    size_t loosened = diff->loosened < LOOSENED_MAX ? diff->loosened : LOOSENED_MAX;
    return loosens ? loosened < LOOSENED_MAX : diff->count - loosened < CHANGES_MAX;
}

static MUST_CHECK struct err add_change(struct cp_diff *diff, size_t *capacity,
                                        enum cp_change_op op, const struct cp_item *item,
                                        struct fields fields)
{
    bool loosens = item->monotone && op == CP_CHANGE_REMOVED;
    bool kept = is_kept(diff, loosens);
    diff->counts[op]++;
    diff->loosened += loosens;
    if (!kept) {
        return OK;
    }
    TRY(array_room(&diff->changes, diff->count, capacity, sizeof(struct cp_change)));
    struct cp_change *change = &diff->changes[diff->count++];
    *change = (struct cp_change){.op = op, .fields = fields.names, .loosens = loosens};
    TRY(arena_dup(&diff->arena, item->kind, &change->kind));
    TRY(arena_dup(&diff->arena, item->id, &change->id));
    TRY(arena_dup(&diff->arena, item->target, &change->target));
    if (loosens) {
        return arena_printf(&diff->arena, &change->sentence,
                            "%.*s %.*s lifted: what it refused is taken again",
                            SLICE_ARG(item->kind), SLICE_ARG(item->id));
    }
    struct slice note = op == CP_CHANGE_REMOVED ? (struct slice){0} : item->note;
    const char *between = fields.values.size > 0 && note.size > 0 ? "; now: " : "";
    return arena_printf(&diff->arena, &change->sentence, "%.*s %.*s %s%s%.*s%s%.*s",
                        SLICE_ARG(item->kind), SLICE_ARG(item->id), op_words[op],
                        fields.values.size + note.size > 0 ? ": " : "", SLICE_ARG(fields.values),
                        between, SLICE_ARG(note));
}

static int item_cmp(const struct cp_item *a, const struct cp_item *b)
{
    int order = slice_cmp(a->kind, b->kind);
    return order != 0 ? order : slice_cmp(a->id, b->id);
}

/* ---- what to compare ---- */

/* The items of files that only one of the two has, in order. */
struct items {
    const struct cp_item **list;
    size_t count;
};

static int inventory_order(const void *x, const void *y)
{
    const struct cp_inventory *a = *(const struct cp_inventory *const *)x;
    const struct cp_inventory *b = *(const struct cp_inventory *const *)y;
    return ((uintptr_t)a > (uintptr_t)b) - ((uintptr_t)a < (uintptr_t)b);
}

static int item_order(const void *x, const void *y)
{
    return item_cmp(*(const struct cp_item *const *)x, *(const struct cp_item *const *)y);
}

/* The inventories of a platform's files, by their addresses: it has none twice. */
static MUST_CHECK struct err sort_inventories(struct arena *arena, const struct cp_compiled *of,
                                              const struct cp_inventory ***out)
{
    TRY(arena_calloc(arena, of->inventory_count + 1, sizeof(**out), (void **)out));
    for (size_t i = 0; i < of->inventory_count; i++) {
        (*out)[i] = of->inventories[i];
    }
    qsort(*out, of->inventory_count, sizeof(**out), inventory_order);
    return OK;
}

static void add_items(const struct cp_inventory *from, struct items *out)
{
    for (size_t i = 0; from != NULL && i < from->count; i++) {
        out->list[out->count++] = &from->items[i];
    }
}

/* Those of 'count' files, and the revocations, which no two platforms share. */
static MUST_CHECK struct err take_items(struct arena *arena, const struct cp_inventory *const *from,
                                        size_t count, const struct cp_inventory *revocations,
                                        struct items *out)
{
    size_t total = revocations == NULL ? 0 : revocations->count;
    for (size_t i = 0; i < count; i++) {
        total += from[i]->count;
    }
    TRY(arena_calloc(arena, total + 1, sizeof(*out->list), (void **)&out->list));
    for (size_t i = 0; i < count; i++) {
        add_items(from[i], out);
    }
    add_items(revocations, out);
    qsort(out->list, out->count, sizeof(*out->list), item_order);
    return OK;
}

/*
 * Items of an inventory that both have are the same in both, and names are unique: what is left
 * without them differs exactly where all of it does.
 */
static MUST_CHECK struct err items_apart(struct arena *arena, const struct cp_compiled *before,
                                         const struct cp_compiled *after, struct items *out_before,
                                         struct items *out_after)
{
    const struct cp_inventory **a = NULL;
    const struct cp_inventory **b = NULL;
    size_t a_count = 0;
    size_t b_count = 0;
    TRY(sort_inventories(arena, before, &a));
    TRY(sort_inventories(arena, after, &b));
    for (size_t i = 0, k = 0; i < before->inventory_count || k < after->inventory_count;) {
        int order = i == before->inventory_count  ? 1
                    : k == after->inventory_count ? -1
                                                  : inventory_order(&a[i], &b[k]);
        if (order < 0) {
            a[a_count++] = a[i];
        } else if (order > 0) {
            b[b_count++] = b[k];
        }
        i += order <= 0;
        k += order >= 0;
    }
    TRY(take_items(arena, a, a_count, before->revocations, out_before));
    return take_items(arena, b, b_count, after->revocations, out_after);
}

/* One pass over the two. */
static MUST_CHECK struct err compare_items(struct cp_diff *diff, const struct items *before,
                                           const struct items *after)
{
    size_t capacity = 0;
    for (size_t i = 0, k = 0; i < before->count || k < after->count;) {
        int order = i == before->count  ? 1
                    : k == after->count ? -1
                                        : item_cmp(before->list[i], after->list[k]);
        struct fields fields = {0};
        if (order < 0) {
            TRY(add_change(diff, &capacity, CP_CHANGE_REMOVED, before->list[i], fields));
        } else if (order > 0) {
            TRY(add_change(diff, &capacity, CP_CHANGE_ADDED, after->list[k], fields));
        } else {
            TRY(changed_fields(&diff->arena, before->list[i], after->list[k], &fields));
            TRY(fields.names.size == 0
                    ? OK
                    : add_change(diff, &capacity, CP_CHANGE_CHANGED, after->list[k], fields));
        }
        i += order <= 0;
        k += order >= 0;
    }
    return OK;
}

static MUST_CHECK struct err compare_inventories(struct cp_diff *diff,
                                                 const struct cp_compiled *before,
                                                 const struct cp_compiled *after)
{
    struct arena work = {0};
    struct items a = {0};
    struct items b = {0};
    arena_init(&work, 64 << 10, DIFF_BYTES_MAX);
    struct err e = items_apart(&work, before, after, &a, &b);
    if (err_ok(e)) {
        e = compare_items(diff, &a, &b);
    }
    arena_free(&work);
    return e;
}

/* ---- parts ---- */

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
    TRY(array_room(&diff->targets, diff->target_count, capacity, sizeof(struct slice)));
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
        if (part->kind == CP_PART_POSITIONS) {
            break; /* the last ones, and nothing that decides reads them. */
        }
        if (order != 0 || !slice_eq(before->parts[i].bytes, after->parts[k].bytes)) {
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
    CHECK(after->has_inventory && (before == NULL || before->has_inventory));
    before = before == NULL ? &nothing : before;
    struct cp_diff diff = {0};
    arena_init(&diff.arena, 64 << 10, DIFF_BYTES_MAX);
    struct err e = compare_inventories(&diff, before, after);
    if (err_ok(e)) {
        e = compare_parts(&diff, before, after);
    }
    if (!err_ok(e)) {
        cp_diff_free(&diff);
        return e;
    }
    *out = diff;
    return OK;
}

void cp_diff_free(struct cp_diff *diff)
{
    arena_free(&diff->arena);
    free(diff->changes);
    free(diff->targets);
    *diff = (struct cp_diff){0};
}

static size_t sum(const size_t counts[3])
{
    return counts[CP_CHANGE_ADDED] + counts[CP_CHANGE_CHANGED] + counts[CP_CHANGE_REMOVED];
}

/* Targets that are written; the rest is counted. */
static size_t targets_shown(const struct cp_diff *diff)
{
    return diff->target_count < TARGETS_MAX ? diff->target_count : TARGETS_MAX;
}

static MUST_CHECK struct err more_text(struct buf *out, const char *indent, size_t count)
{
    return count == 0 ? OK : buf_addf(out, "%sand %zu more\n", indent, count);
}

struct err cp_diff_text(const struct cp_diff *diff, struct buf *out)
{
    for (size_t i = 0; i < diff->count; i++) {
        const struct cp_change *change = &diff->changes[i];
        char sign = change->loosens ? '!' : op_signs[change->op];
        TRY(buf_addf(out, "%c %.*s\n", sign, SLICE_ARG(change->sentence)));
    }
    TRY(more_text(out, "", sum(diff->counts) - diff->count));
    if (diff->count == 0 && diff->parts_added + diff->parts_changed + diff->parts_removed == 0) {
        return buf_add_str(out, "no differences\n");
    }
    TRY(buf_addf(out, "%zu to add, %zu to change, %zu to remove; targets reached: %zu\n",
                 diff->counts[CP_CHANGE_ADDED], diff->counts[CP_CHANGE_CHANGED],
                 diff->counts[CP_CHANGE_REMOVED], diff->target_count));
    for (size_t i = 0; i < targets_shown(diff); i++) {
        TRY(buf_addf(out, "  %.*s\n", SLICE_ARG(diff->targets[i])));
    }
    TRY(more_text(out, "  ", diff->target_count - targets_shown(diff)));
    if (diff->loosened > 0) {
        TRY(buf_addf(out, "this LOOSENS: %zu revocation%s lifted\n", diff->loosened,
                     diff->loosened == 1 ? " is" : "s are"));
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
    if (change->loosens) {
        (void)json_object_set_new(object, "loosens", json_true());
    }
    return object;
}

static void set_count(json_t *object, const char *name, size_t count)
{
    (void)json_object_set_new(object, name, json_integer((json_int_t)count));
}

static void set_counts(json_t *root, const struct cp_diff *diff)
{
    set_count(root, "partsAdded", diff->parts_added);
    set_count(root, "partsChanged", diff->parts_changed);
    set_count(root, "partsRemoved", diff->parts_removed);
    set_count(root, "loosened", diff->loosened);
    set_count(root, "changesLeftOut", sum(diff->counts) - diff->count);
    set_count(root, "targetsLeftOut", diff->target_count - targets_shown(diff));
}

struct err cp_diff_json(const struct cp_diff *diff, struct buf *out)
{
    json_t *root = json_object();
    json_t *changes = json_array();
    json_t *targets = json_array();
    for (size_t i = 0; i < diff->count; i++) {
        (void)json_array_append_new(changes, change_json(&diff->changes[i]));
    }
    for (size_t i = 0; i < targets_shown(diff); i++) {
        (void)json_array_append_new(
            targets, json_stringn((const char *)diff->targets[i].ptr, diff->targets[i].size));
    }
    bool whole =
        json_array_size(changes) == diff->count && json_array_size(targets) == targets_shown(diff);
    (void)json_object_set_new(root, "changes", changes);
    (void)json_object_set_new(root, "targets", targets);
    set_counts(root, diff);
    auto_free char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    return text == NULL || !whole ? FAIL(E_NO_MEMORY) : buf_add_str(out, text);
}
