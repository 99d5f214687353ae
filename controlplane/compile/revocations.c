/*
 * revocations: what is refused, whatever else the sources say of it. All of it goes into this one
 * stream, which a rollback keeps, and nothing of it anywhere else.
 *
 * An entry is its key: "<what>/<value>". Several resources may list the same.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

#define DIGEST_FRONT SLICE_LIT("blake2b:")

struct entry {
    struct slice key;
    struct slice reason;
    uint64_t removed_until_ms; /* 0: the sources alone say how long. */
    struct cp_pos at;
};

struct entries {
    struct entry *items; /* owned. */
    size_t count;
    size_t capacity;
};

static MUST_CHECK struct err add_entry(struct cp_compiler *c, struct entries *entries,
                                       const char *what, const struct cp_text *value,
                                       const struct cp_revocation *r)
{
    TRY(array_room(&entries->items, entries->count, &entries->capacity, sizeof(struct entry)));
    struct entry *entry = &entries->items[entries->count++];
    *entry = (struct entry){.reason = r->reason.text, .at = value->at};
    return arena_printf(c->arena, &entry->key, "%s/%.*s", what, SLICE_ARG(value->text));
}

/* Lower case, and no zero bytes in front: as a certificate's own number is written by a node. */
static MUST_CHECK struct err serial(struct cp_compiler *c, const struct cp_text *written,
                                    struct cp_text *out)
{
    struct slice text = written->text;
    while (text.size > 2 && slice_starts(text, SLICE_LIT("00"))) {
        text = slice_from(text, 2);
    }
    char *lower = NULL;
    TRY(arena_alloc(c->arena, text.size, (void **)&lower));
    for (size_t i = 0; i < text.size; i++) {
        char digit = (char)text.ptr[i];
        lower[i] = (char)(digit >= 'A' && digit <= 'F' ? digit - 'A' + 'a' : digit);
    }
    *out = (struct cp_text){slice_of(lower, text.size), written->at};
    return OK;
}

static MUST_CHECK struct err add_all(struct cp_compiler *c, struct entries *entries,
                                     const struct cp_revocation *r)
{
    for (size_t i = 0; i < r->identities.count; i++) {
        TRY(add_entry(c, entries, "identity", &r->identities.items[i], r));
    }
    for (size_t i = 0; i < r->certificates.count; i++) {
        struct cp_text number;
        TRY(serial(c, &r->certificates.items[i], &number));
        TRY(add_entry(c, entries, "certificate", &number, r));
        entries->items[entries->count - 1].removed_until_ms = r->removed_until_ms;
    }
    for (size_t i = 0; i < r->tokens.count; i++) {
        struct cp_text digest = r->tokens.items[i];
        digest.text = slice_from(digest.text, DIGEST_FRONT.size);
        TRY(add_entry(c, entries, "token", &digest, r));
    }
    for (size_t i = 0; i < r->subjects.count; i++) {
        TRY(add_entry(c, entries, "subject", &r->subjects.items[i], r));
    }
    for (size_t i = 0; i < r->types.count; i++) {
        TRY(add_entry(c, entries, "type", &r->types.items[i], r));
    }
    return OK;
}

/* By key; of equal ones the longest first, then by reason, so that which file is read first changes
 * nothing. */
static int entry_cmp(const void *x, const void *y)
{
    const struct entry *a = x;
    const struct entry *b = y;
    int order = slice_cmp(a->key, b->key);
    if (order == 0) {
        order = (a->removed_until_ms < b->removed_until_ms) -
                (a->removed_until_ms > b->removed_until_ms);
    }
    return order != 0 ? order : slice_cmp(a->reason, b->reason);
}

/* Names an entry for differences. */
static MUST_CHECK struct err add_item(struct cp_inventory *to, struct slice key,
                                      struct slice reason)
{
    TRY(array_room(&to->items, to->count, &to->capacity, sizeof(struct cp_item)));
    struct cp_item item = {.kind = CP_ITEM_REVOCATION, .monotone = true};
    TRY(arena_dup(&to->arena, key, &item.id));
    TRY(arena_dup(&to->arena, reason, &item.note));
    to->items[to->count++] = item;
    return OK;
}

static MUST_CHECK struct err collect(struct cp_compiler *c, struct entries *out)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_REVOCATION];
    for (size_t i = 0; i < all->count; i++) {
        if (cp_is_whole(all->items[i])) {
            TRY(add_all(c, out, (const struct cp_revocation *)all->items[i]));
        }
    }
    if (out->count > 1) {
        qsort(out->items, out->count, sizeof(struct entry), entry_cmp);
    }
    return OK;
}

/* What a node must be able to do for an entry. */
static uint64_t needed_by(struct slice key)
{
    bool subject = slice_starts(key, SLICE_LIT("subject/"));
    return CAPABILITY_REVOCATIONS | (subject ? (uint64_t)CAPABILITY_REVOKED_SUBJECTS : 0);
}

static MUST_CHECK struct err emit_all(struct cp_compiler *c, const struct entries *entries)
{
    for (size_t i = 0; i < entries->count; i++) {
        const struct entry *entry = &entries->items[i];
        if (i > 0 && slice_eq(entry->key, entries->items[i - 1].key)) {
            continue;
        }
        Trilane__Parts__V1__Revocation part;
        trilane__parts__v1__revocation__init(&part);
        part.removed_until_ms = (int64_t)entry->removed_until_ms;
        TRY(cp_emit(c, CP_PART_REVOCATIONS, entry->key, &part.base, entry->at));
        c->out->capabilities |= needed_by(entry->key);
        TRY(c->inventory ? add_item(c->out->revocations, entry->key, entry->reason) : OK);
    }
    return OK;
}

struct err cp_compile_revocations(struct cp_compiler *c)
{
    TRY(c->inventory ? cp_inventory_new(&c->out->revocations) : OK);
    struct entries entries = {0};
    struct err e = collect(c, &entries);
    if (err_ok(e)) {
        e = emit_all(c, &entries);
    }
    free(entries.items);
    return e;
}

/* ---- those of another version ---- */

static void drop_present(struct cp_compiled *compiled)
{
    size_t parts = 0;
    for (size_t i = 0; i < compiled->part_count; i++) {
        if (compiled->parts[i].kind != CP_PART_REVOCATIONS) {
            compiled->parts[parts++] = compiled->parts[i];
        }
    }
    compiled->part_count = parts;
    cp_inventory_unref(compiled->revocations);
    compiled->revocations = NULL;
    compiled->capabilities &= ~CAPABILITIES_OF_REVOCATIONS;
}

static MUST_CHECK struct err add_part(struct cp_compiled *compiled, const struct cp_part *from)
{
    struct cp_part part = {.kind = CP_PART_REVOCATIONS, .key = from->key};
    TRY(arena_dup(&compiled->arena, from->bytes, &part.bytes));
    part.former = part.bytes;
    TRY(cp_compiled_add(compiled, part));
    compiled->capabilities |= needed_by(part.key);
    return compiled->has_inventory ? add_item(compiled->revocations, part.key, (struct slice){0})
                                   : OK;
}

struct err cp_compiled_revoke(struct cp_compiled *compiled, const struct cp_part *parts,
                              size_t count)
{
    drop_present(compiled);
    TRY(compiled->has_inventory ? cp_inventory_new(&compiled->revocations) : OK);
    for (size_t i = 0; i < count; i++) {
        CHECK(parts[i].kind == CP_PART_REVOCATIONS);
        TRY(add_part(compiled, &parts[i]));
    }
    cp_compiled_sort(compiled);
    return OK;
}
