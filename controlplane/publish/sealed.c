/* sealed: see sealed.h. */
#include "controlplane/publish/sealed.h"

enum {
    PAGE = 8,
    ROWS_MAX = 256, /* that are looked through: so many nobody writes by mistake. */
};

bool cp_sealed_is_none(struct err e)
{
    return e.code == E_MANIFEST_UNSIGNED || e.code == E_MANIFEST_WRONG_KEY ||
           e.code == E_MANIFEST_MIXED || e.code == E_MANIFEST_MALFORMED;
}

struct err cp_sealed_load(const struct cp_sealed_place *place, uint64_t version,
                          struct cp_record *record, struct buf *container, struct manifest *out)
{
    auto_buf struct buf own = BUF_MAX(CP_SEALED_CONTAINER_MAX);
    struct buf *bytes = container == NULL ? &own : container;
    buf_clear(bytes);
    TRY(place->store->ops->load(place->store, place->environment, version, record, bytes));
    const struct manifest_wanted wanted = {.version = version, .digest = record->manifest_digest};
    return cp_roots_open(place->roots, buf_slice(bytes), &wanted, out, /* out_in_force= */ NULL);
}

/* The newest publication below a number; 0: of all. */
static struct err find(const struct cp_sealed_place *place, uint64_t below,
                       struct cp_record *record, struct buf *container, struct manifest *out)
{
    struct cp_record page[PAGE];
    size_t count = PAGE;
    for (size_t seen = 0; count == PAGE && seen < ROWS_MAX; seen += count) {
        TRY(place->store->ops->history(place->store, place->environment, below, page, PAGE,
                                       &count));
        for (size_t i = 0; i < count; i++) {
            struct cp_record found;
            struct err e = cp_sealed_load(place, page[i].version, &found, container, out);
            if (err_ok(e)) {
                *record = found;
                return OK;
            }
            TRY(cp_sealed_is_none(e) ? OK : e);
            below = page[i].version;
        }
    }
    return FAIL(E_NOT_FOUND);
}

struct err cp_sealed_newest(const struct cp_sealed_place *place, struct cp_record *out,
                            struct buf *container)
{
    auto_manifest struct manifest manifest = {0};
    return find(place, /* below= */ 0, out, container, &manifest);
}

struct err cp_sealed_until(const struct cp_sealed_place *place, uint64_t version,
                           struct cp_record *record, struct manifest *out)
{
    return find(place, version + 1, record, /* container= */ NULL, out);
}
