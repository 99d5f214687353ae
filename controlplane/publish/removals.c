/* removals: see removals.h. */
#include "controlplane/publish/removals.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/array.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/proto/strict.h"
#include "common/snapshot/parts.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum {
    HOUR_MS = 3600000,
    RESOURCE_MAX = 10000, /* entries of one resource: kinds.c takes ten times as many. */
    ENTRY_MAX = 32,       /* one field. */
    ARENA_BLOCK = 64 << 10,
};

#define CERTIFICATE SLICE_LIT("certificate/")
#define UNTIL SLICE_LIT("  removedUntilMs: ")
#define ENTRY SLICE_LIT("    - \"")

void cp_removals_free(struct cp_removals *set)
{
    free(set->items);
    *set = (struct cp_removals){.items = NULL};
}

/* ---- adding ---- */

/* Where a serial is, or would be. */
static size_t place_of(const struct cp_removals *set, struct slice serial, bool *out_found)
{
    size_t low = 0;
    size_t high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_cmp(slice_str(set->items[middle].serial), serial);
        if (order == 0) {
            *out_found = true;
            return middle;
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    *out_found = false;
    return low;
}

/* Where a serial belongs is the caller's to know. */
static struct err insert(struct cp_removals *set, size_t at, struct slice serial, int64_t until_ms)
{
    if (serial.size == 0 || serial.size > CP_SERIAL_MAX) {
        return FAIL(E_MALFORMED);
    }
    TRY(array_room(&set->items, set->count, &set->capacity, sizeof(*set->items)));
    (void)memmove(&set->items[at + 1], &set->items[at], (set->count - at) * sizeof(*set->items));
    set->items[at] = (struct cp_removal){.until_ms = until_ms};
    (void)memcpy(set->items[at].serial, serial.ptr, serial.size);
    set->count++;
    return OK;
}

static struct err add(struct cp_removals *set, struct slice serial, int64_t until_ms)
{
    bool found = false;
    size_t at = place_of(set, serial, &found);
    if (found) {
        struct cp_removal *item = &set->items[at];
        item->until_ms = item->until_ms < until_ms ? until_ms : item->until_ms;
        return OK;
    }
    return insert(set, at, serial, until_ms);
}

struct err cp_removals_add(struct cp_removals *set, struct slice serial, int64_t until_ms,
                           int64_t now_ms)
{
    if (until_ms <= now_ms) {
        return OK;
    }
    if (until_ms > INT64_MAX - HOUR_MS) {
        return FAIL(E_MALFORMED);
    }
    return add(set, serial, (until_ms + HOUR_MS - 1) / HOUR_MS * HOUR_MS);
}

/* Most entries say nothing, and have no bytes. */
static struct err until_of(struct slice bytes, int64_t *out)
{
    ProtobufCMessage *message = NULL;
    *out = 0;
    if (bytes.size == 0) {
        return OK;
    }
    TRY(part_decode(&trilane__parts__v1__revocation__descriptor, bytes, &message));
    *out = ((const Trilane__Parts__V1__Revocation *)(const void *)message)->removed_until_ms;
    proto_free(message);
    return OK;
}

static struct err add_part(struct cp_removals *set, struct slice key, struct slice bytes,
                           int64_t now_ms)
{
    int64_t until_ms = 0;
    if (!slice_starts(key, CERTIFICATE)) {
        return OK;
    }
    TRY(until_of(bytes, &until_ms));
    return cp_removals_add(set, slice_from(key, CERTIFICATE.size), until_ms, now_ms);
}

struct err cp_removals_add_stream(struct cp_removals *set, struct slice raw, int64_t now_ms)
{
    struct part_iter it = {.rest = raw};
    struct part part;
    bool more = true;
    TRY(part_next(&it, &part, &more));
    while (more) {
        TRY(add_part(set, part.key, part.bytes, now_ms));
        TRY(part_next(&it, &part, &more));
    }
    return OK;
}

/* They are by kind, and a large platform has many: most are not looked at. */
static size_t first_revocation(const struct cp_part *parts, size_t count)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        bool below = parts[middle].kind < CP_PART_REVOCATIONS;
        low = below ? middle + 1 : low;
        high = below ? high : middle;
    }
    return low;
}

struct err cp_removals_add_compiled(struct cp_removals *set, const struct cp_compiled *compiled,
                                    int64_t now_ms)
{
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(compiled, &count);
    for (size_t i = first_revocation(parts, count);
         i < count && parts[i].kind == CP_PART_REVOCATIONS; i++) {
        TRY(add_part(set, parts[i].key, parts[i].bytes, now_ms));
    }
    return OK;
}

bool cp_removals_has_all(const struct cp_removals *whole, const struct cp_removals *part)
{
    for (size_t i = 0; i < part->count; i++) {
        bool found = false;
        size_t at = place_of(whole, slice_str(part->items[i].serial), &found);
        if (!found || whole->items[at].until_ms < part->items[i].until_ms) {
            return false;
        }
    }
    return true;
}

/* ---- as a file ---- */

static int end_cmp(const void *x, const void *y)
{
    const struct cp_removal *a = x;
    const struct cp_removal *b = y;
    int order = (a->until_ms > b->until_ms) - (a->until_ms < b->until_ms);
    return order != 0 ? order : strcmp(a->serial, b->serial);
}

static struct err print_sorted(const struct cp_removal *items, size_t count, struct buf *out)
{
    size_t resources = 0;
    size_t in_this = 0;
    TRY(buf_add_str(out, "# Certificates of nodes that were removed (trilane-cp identity remove). "
                         "The control plane\n# writes this file with each publication.\n"));
    for (size_t i = 0; i < count; i++) {
        bool begins =
            i == 0 || items[i].until_ms != items[i - 1].until_ms || in_this == RESOURCE_MAX;
        if (begins) {
            in_this = 0;
            TRY(buf_addf(out,
                         "---\napiVersion: trilane.dev/v1\nkind: Revocation\n"
                         "metadata: {name: trilane-removed-%zu}\nspec:\n"
                         "  reason: \"the node was removed\"\n%.*s%" PRId64 "\n  certificates:\n",
                         ++resources, SLICE_ARG(UNTIL), items[i].until_ms));
        }
        in_this++;
        TRY(buf_addf(out, "%.*s%s\"\n", SLICE_ARG(ENTRY), items[i].serial));
    }
    return OK;
}

struct err cp_removals_print(const struct cp_removals *set, struct buf *out)
{
    if (set->count == 0) {
        return OK;
    }
    auto_free struct cp_removal *items = calloc(set->count, sizeof(*items));
    if (items == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    (void)memcpy(items, set->items, set->count * sizeof(*items));
    qsort(items, set->count, sizeof(*items), end_cmp);
    return print_sorted(items, set->count, out);
}

static struct err parse_end(struct slice digits, int64_t *out)
{
    int64_t value = 0;
    for (size_t i = 0; i < digits.size; i++) {
        uint8_t digit = (uint8_t)(digits.ptr[i] - '0');
        if (digit > 9 || value > (INT64_MAX - 9) / 10) {
            return FAIL(E_MALFORMED);
        }
        value = value * 10 + digit;
    }
    *out = value;
    return OK;
}

static struct err parse_line(struct slice line, int64_t *until_ms, struct cp_removals *out)
{
    if (slice_starts(line, UNTIL)) {
        return parse_end(slice_from(line, UNTIL.size), until_ms);
    }
    struct slice serial = slice_from(line, ENTRY.size);
    return slice_starts(line, ENTRY)
               ? insert(out, out->count, slice_head(serial, slice_find(serial, '"')), *until_ms)
               : OK;
}

static int serial_cmp(const void *x, const void *y)
{
    const struct cp_removal *a = x;
    const struct cp_removal *b = y;
    return strcmp(a->serial, b->serial);
}

/* A file has its entries in another order; putting each into its place could take minutes. */
static struct err order(struct cp_removals *set)
{
    if (set->count > 0) {
        qsort(set->items, set->count, sizeof(*set->items), serial_cmp);
    }
    for (size_t i = 1; i < set->count; i++) {
        if (serial_cmp(&set->items[i - 1], &set->items[i]) == 0) {
            return FAIL(E_MALFORMED);
        }
    }
    return OK;
}

/* What is read is printed again and must be the same: nothing else is in the file. */
struct err cp_removals_parse(struct slice text, struct cp_removals *out)
{
    auto_removals struct cp_removals set = {.items = NULL};
    auto_buf struct buf again = BUF_MAX(limits.source_file_bytes);
    int64_t until_ms = 0;
    for (struct slice rest = text; rest.size > 0;) {
        size_t end = slice_find(rest, '\n');
        TRY(parse_line(slice_head(rest, end), &until_ms, &set));
        rest = slice_from(rest, end < rest.size ? end + 1 : end);
    }
    TRY(order(&set));
    TRY(cp_removals_print(&set, &again));
    if (!slice_eq(buf_slice(&again), text)) {
        return FAIL(E_MALFORMED);
    }
    *out = set;
    set = (struct cp_removals){.items = NULL};
    return OK;
}

/* ---- into a stream ---- */

struct merging {
    const struct cp_removals *set;
    size_t next; /* of the set. */
    struct part_writer writer;
    struct arena arena; /* keys that are added. */
    bool changed;
};

static struct err write_entry(struct merging *m, struct slice key, int64_t until_ms)
{
    Trilane__Parts__V1__Revocation part;
    auto_buf struct buf bytes = BUF_MAX(ENTRY_MAX);
    trilane__parts__v1__revocation__init(&part);
    part.removed_until_ms = until_ms;
    TRY(proto_encode(&part.base, &bytes));
    m->changed = true;
    return part_add(&m->writer, key, buf_slice(&bytes));
}

/* Writes what comes before 'key'; an empty one: all that is left. */
static struct err write_before(struct merging *m, struct slice key)
{
    for (; m->next < m->set->count; m->next++) {
        struct slice own;
        TRY(arena_printf(&m->arena, &own, "%.*s%s", SLICE_ARG(CERTIFICATE),
                         m->set->items[m->next].serial));
        if (key.size > 0 && slice_cmp(own, key) >= 0) {
            return OK;
        }
        TRY(write_entry(m, own, m->set->items[m->next].until_ms));
    }
    return OK;
}

static struct err write_part(struct merging *m, const struct part *part)
{
    TRY(write_before(m, part->key));
    const struct cp_removal *item = m->next < m->set->count ? &m->set->items[m->next] : NULL;
    bool both = item != NULL && slice_starts(part->key, CERTIFICATE) &&
                slice_eq(slice_from(part->key, CERTIFICATE.size), slice_str(item->serial));
    int64_t until_ms = 0;
    TRY(both ? until_of(part->bytes, &until_ms) : OK);
    m->next += both;
    return both && until_ms < item->until_ms ? write_entry(m, part->key, item->until_ms)
                                             : part_add(&m->writer, part->key, part->bytes);
}

static struct err merge(struct merging *m, struct slice raw)
{
    struct part_iter it = {.rest = raw};
    struct part part;
    bool more = true;
    TRY(part_next(&it, &part, &more));
    while (more) {
        TRY(write_part(m, &part));
        TRY(part_next(&it, &part, &more));
    }
    return write_before(m, (struct slice){0});
}

struct err cp_removals_merge(const struct cp_removals *set, struct slice raw, struct buf *out,
                             bool *out_changed)
{
    struct merging m = {.set = set, .writer = {.out = out}};
    arena_init(&m.arena, ARENA_BLOCK, (size_t)STREAM_RAW_MAX);
    struct err e = merge(&m, raw);
    arena_free(&m.arena);
    TRY(e);
    *out_changed = m.changed;
    return OK;
}
