/* leaf: see leaf.h. */
#include "controlplane/source/leaf.h"

#include <stdlib.h>

#include "common/base/array.h"
#include "controlplane/source/kinds.h"

enum { LEAF_BLOCK = 4 << 10 };

struct err cp_leaf_new(uint32_t file, size_t max, struct cp_leaf **out)
{
    struct cp_leaf *leaf = calloc(1, sizeof(*leaf));
    if (leaf == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    leaf->file = file;
    arena_init(&leaf->arena, LEAF_BLOCK, max);
    *out = leaf;
    return OK;
}

void cp_leaf_free(struct cp_leaf *leaf)
{
    if (leaf != NULL) {
        arena_free(&leaf->arena);
        free(leaf->resources);
        free(leaf);
    }
}

struct err cp_leaf_add(struct cp_leaf *leaf, enum cp_kind kind, struct cp_meta **out)
{
    struct cp_meta *meta = NULL;
    TRY(array_room(&leaf->resources, leaf->count, &leaf->capacity, sizeof(struct cp_meta *)));
    TRY(arena_calloc(&leaf->arena, 1, cp_kind_at(kind)->spec.size, (void **)&meta));
    meta->kind = kind;
    meta->leaf = leaf;
    meta->index = (uint32_t)leaf->count;
    leaf->resources[leaf->count++] = meta;
    *out = meta;
    return OK;
}

/* ---- places ---- */

static void move(struct cp_pos *at, uint32_t file)
{
    at->file = at->line > 0 ? file : at->file; /* line 0: a default, which stands nowhere. */
}

static void move_pairs(struct cp_pairs *pairs, uint32_t file)
{
    for (size_t i = 0; i < pairs->count; i++) {
        move(&pairs->items[i].name.at, file);
        move(&pairs->items[i].value.at, file);
    }
}

static void move_texts(struct cp_texts *texts, uint32_t file)
{
    for (size_t i = 0; i < texts->count; i++) {
        move(&texts->items[i].at, file);
    }
}

static void move_shape(const struct cp_shape *shape, void *at, uint32_t file);

static void move_object(const struct cp_shape *shape, void *at, uint32_t file)
{
    move(at, file); /* all objects begin with their place. */
    move_shape(shape, at, file);
}

static void move_objects(const struct cp_shape *shape, const struct cp_texts *list, uint32_t file)
{
    for (size_t i = 0; i < list->count; i++) { /* all lists begin alike: items, count */
        move_object(shape, (char *)list->items + i * shape->size, file);
    }
}

/* Recursion follows the table, which does not recur. */
static void move_field(const struct cp_field *field, void *at, uint32_t file)
{
    switch (field->type) {
    case CP_TYPE_TEXT:
        move(&((struct cp_text *)at)->at, file);
        break;
    case CP_TYPE_TEXTS:
    case CP_TYPE_PORTS:
        move_texts(at, file);
        break;
    case CP_TYPE_REF:
        move(&((struct cp_ref *)at)->at, file);
        break;
    case CP_TYPE_PAIRS:
        move_pairs(at, file);
        break;
    case CP_TYPE_OBJECT:
        if (field->flat) {
            move_shape(field->shape, at, file);
        } else {
            move_object(field->shape, at, file);
        }
        break;
    case CP_TYPE_OBJECTS:
        move_objects(field->shape, at, file);
        break;
    case CP_TYPE_COUNT:
    case CP_TYPE_BOOL:
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA:
    case CP_TYPE_CHOICE:
    case CP_TYPE_FLAGS:
        break;
    }
}

static void move_shape(const struct cp_shape *shape, void *at, uint32_t file)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        move_field(field, field->flat ? at : (char *)at + field->offset, file);
        if (field->place > 0) {
            move((struct cp_pos *)(void *)((char *)at + field->place), file);
        }
    }
}

static void move_resource(struct cp_meta *meta, uint32_t file)
{
    move(&meta->at, file);
    move_shape(cp_metadata_shape(), meta, file);
    move_shape(&cp_kind_at(meta->kind)->spec, meta, file);
}

void cp_leaf_renew(struct cp_leaf *leaf, uint32_t file)
{
    for (size_t i = 0; i < leaf->count; i++) {
        struct cp_meta *meta = leaf->resources[i];
        meta->faulty = false;
        meta->apart = false;
        if (meta->kind == CP_KIND_TOPIC) {
            ((struct cp_topic *)meta)->descriptor_set = (struct slice){0}; /* another file's. */
        }
        if (meta->kind == CP_KIND_ISSUER) {
            ((struct cp_issuer *)meta)->jwks = (struct slice){0};
        }
        if (meta->kind == CP_KIND_SERVICE) {
            ((struct cp_service *)meta)->descriptor_set = (struct slice){0};
        }
        if (leaf->file != file) {
            move_resource(meta, file);
        }
    }
    leaf->file = file;
}

/* ---- references ---- */

struct err cp_leaf_link(struct cp_leaf *leaf, struct cp_ref *ref, const struct cp_meta *to)
{
    if (leaf->serial > 0 && !(slice_eq(ref->id, to->id) && slice_eq(ref->key, to->key))) {
        bool one = slice_eq(to->id, to->key);
        leaf->links++; /* also when there is no room for the names: then the next time again. */
        TRY(arena_dup(&leaf->arena, to->id, &ref->id));
        if (one) {
            ref->key = ref->id;
        } else {
            TRY(arena_dup(&leaf->arena, to->key, &ref->key));
        }
    }
    ref->to = to;
    return OK;
}
