/* shelf: see shelf.h. */
#include "controlplane/publish/shelf.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/base/lock.h"

struct slot {
    struct cp_prepared *prepared; /* a reference; NULL: the slot is free. */
    size_t bytes;
    bool planned;
    uint64_t base; /* of the plan. */
    bool published;
    uint8_t manifest_digest[DIGEST_SIZE]; /* when it was. */
};

struct cp_shelf {
    struct {
        struct lock lock;
        struct slot slots[CP_SHELF_SLOTS] GUARDED; /* used last first. */
        uint8_t passed[CP_SHELF_CHECKS][DIGEST_SIZE] GUARDED;
        size_t passed_count GUARDED; /* of all; the last CP_SHELF_CHECKS are kept. */
    } shared;
};

struct err cp_shelf_new(struct cp_shelf **out)
{
    struct cp_shelf *shelf = calloc(1, sizeof(*shelf));
    if (shelf == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&shelf->shared.lock);
    *out = shelf;
    return OK;
}

void cp_shelf_free(struct cp_shelf *shelf)
{
    if (shelf == NULL) {
        return;
    }
    lock_take(&shelf->shared.lock);
    for (size_t i = 0; i < CP_SHELF_SLOTS; i++) {
        cp_prepared_unref(shelf->shared.slots[i].prepared);
    }
    lock_drop(&shelf->shared.lock);
    lock_free(&shelf->shared.lock);
    free(shelf);
}

/* ---- slots ---- */

/* Moves a slot to the front. */
static void use(struct cp_shelf *shelf, size_t at) REQUIRES(shelf->shared.lock)
{
    struct slot slot = shelf->shared.slots[at];
    (void)memmove(&shelf->shared.slots[1], &shelf->shared.slots[0],
                  at * sizeof(shelf->shared.slots[0]));
    shelf->shared.slots[0] = slot;
}

/* The slot of something; CP_SHELF_SLOTS: it is not on the shelf. */
static size_t slot_of(const struct cp_shelf *shelf, const struct cp_prepared *prepared)
    REQUIRES(shelf->shared.lock)
{
    size_t i = 0;
    while (i < CP_SHELF_SLOTS && shelf->shared.slots[i].prepared != prepared) {
        i++;
    }
    return i;
}

static bool same_files(const struct cp_source_set *a, const struct cp_source_set *b)
{
    if (a->count != b->count || a->bytes != b->bytes || a->unread_count + b->unread_count > 0) {
        return false;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (!slice_eq(a->files[i].name, b->files[i].name) ||
            !slice_eq(a->files[i].bytes, b->files[i].bytes)) {
            return false;
        }
    }
    return true;
}

/* Compares outside of the lock: it takes a while. */
struct cp_prepared *cp_shelf_find(struct cp_shelf *shelf, const struct cp_source_set *sources)
{
    struct cp_prepared *held[CP_SHELF_SLOTS] = {NULL};
    struct cp_prepared *found = NULL;
    lock_take(&shelf->shared.lock);
    for (size_t i = 0; i < CP_SHELF_SLOTS; i++) {
        struct cp_prepared *prepared = shelf->shared.slots[i].prepared;
        held[i] = prepared == NULL ? NULL : cp_prepared_ref(prepared);
    }
    lock_drop(&shelf->shared.lock);
    for (size_t i = 0; i < CP_SHELF_SLOTS; i++) {
        if (found == NULL && held[i] != NULL && same_files(&held[i]->sources, sources)) {
            found = held[i];
        } else {
            cp_prepared_unref(held[i]);
        }
    }
    lock_take(&shelf->shared.lock);
    size_t at = found == NULL ? CP_SHELF_SLOTS : slot_of(shelf, found);
    if (at < CP_SHELF_SLOTS) {
        use(shelf, at);
    }
    lock_drop(&shelf->shared.lock);
    return found;
}

struct cp_prepared *cp_shelf_planned(struct cp_shelf *shelf, const uint8_t id[CP_PREPARED_ID_SIZE],
                                     uint64_t *out_base)
{
    struct cp_prepared *found = NULL;
    lock_take(&shelf->shared.lock);
    for (size_t i = 0; i < CP_SHELF_SLOTS && found == NULL; i++) {
        const struct slot *slot = &shelf->shared.slots[i];
        if (slot->planned && memcmp(slot->prepared->id, id, CP_PREPARED_ID_SIZE) == 0) {
            found = cp_prepared_ref(slot->prepared);
            *out_base = slot->base;
            use(shelf, i);
        }
    }
    lock_drop(&shelf->shared.lock);
    return found;
}

struct cp_prepared *cp_shelf_published(struct cp_shelf *shelf,
                                       const uint8_t manifest_digest[DIGEST_SIZE])
{
    struct cp_prepared *found = NULL;
    lock_take(&shelf->shared.lock);
    for (size_t i = 0; i < CP_SHELF_SLOTS && found == NULL; i++) {
        const struct slot *slot = &shelf->shared.slots[i];
        if (slot->published && memcmp(slot->manifest_digest, manifest_digest, DIGEST_SIZE) == 0) {
            found = cp_prepared_ref(slot->prepared);
            use(shelf, i);
        }
    }
    lock_drop(&shelf->shared.lock);
    return found;
}

/* Takes slots out from behind until what is left weighs little enough. */
static void make_room(struct cp_shelf *shelf, struct cp_prepared *out[CP_SHELF_SLOTS])
    REQUIRES(shelf->shared.lock)
{
    size_t bytes = 0;
    for (size_t i = 0; i < CP_SHELF_SLOTS; i++) {
        struct slot *slot = &shelf->shared.slots[i];
        bytes += slot->bytes;
        if (bytes > limits.source_cache_bytes) {
            out[i] = slot->prepared;
            *slot = (struct slot){0};
        }
    }
}

static void add_note(struct slot *slot, const struct cp_shelf_note *note)
{
    if (note->planned) {
        slot->planned = true;
        slot->base = note->base;
    }
    if (note->manifest_digest != NULL) {
        slot->published = true;
        (void)memcpy(slot->manifest_digest, note->manifest_digest, DIGEST_SIZE);
    }
}

void cp_shelf_put(struct cp_shelf *shelf, struct cp_prepared *prepared,
                  const struct cp_shelf_note *note)
{
    struct cp_prepared *dropped[CP_SHELF_SLOTS + 1] = {NULL};
    lock_take(&shelf->shared.lock);
    size_t at = slot_of(shelf, prepared);
    if (at == CP_SHELF_SLOTS) {
        at = CP_SHELF_SLOTS - 1;
        dropped[CP_SHELF_SLOTS] = shelf->shared.slots[at].prepared;
        shelf->shared.slots[at] = (struct slot){.prepared = cp_prepared_ref(prepared),
                                                .bytes = cp_prepared_bytes(prepared)};
    }
    add_note(&shelf->shared.slots[at], note);
    use(shelf, at);
    make_room(shelf, dropped);
    lock_drop(&shelf->shared.lock);
    for (size_t i = 0; i <= CP_SHELF_SLOTS; i++) {
        cp_prepared_unref(dropped[i]); /* freeing takes a while, too. */
    }
}

/* ---- checks ---- */

bool cp_shelf_has_passed(struct cp_shelf *shelf, const uint8_t digest[DIGEST_SIZE])
{
    bool found = false;
    lock_take(&shelf->shared.lock);
    for (size_t i = 0; i < CP_SHELF_CHECKS && i < shelf->shared.passed_count && !found; i++) {
        found = memcmp(shelf->shared.passed[i], digest, DIGEST_SIZE) == 0;
    }
    lock_drop(&shelf->shared.lock);
    return found;
}

void cp_shelf_pass(struct cp_shelf *shelf, const uint8_t digest[DIGEST_SIZE])
{
    lock_take(&shelf->shared.lock);
    (void)memcpy(shelf->shared.passed[shelf->shared.passed_count++ % CP_SHELF_CHECKS], digest,
                 DIGEST_SIZE);
    lock_drop(&shelf->shared.lock);
}
