/* The tables of HPACK: the static one, and the one that grows with the connection. */
#include <string.h>

#include "common/base/check.h"
#include "common/net/hpack.h"

/* ---- the static table ---- */

#define ROW(name, value)                                                                           \
    {                                                                                              \
        SLICE_INIT(name), SLICE_INIT(value), H2_TOKEN_OTHER                                        \
    }
static struct hpack_static statics[HPACK_STATIC_COUNT + 1] = {
    ROW("", ""),
    ROW(":authority", ""),
    ROW(":method", "GET"),
    ROW(":method", "POST"),
    ROW(":path", "/"),
    ROW(":path", "/index.html"),
    ROW(":scheme", "http"),
    ROW(":scheme", "https"),
    ROW(":status", "200"),
    ROW(":status", "204"),
    ROW(":status", "206"),
    ROW(":status", "304"),
    ROW(":status", "400"),
    ROW(":status", "404"),
    ROW(":status", "500"),
    ROW("accept-charset", ""),
    ROW("accept-encoding", "gzip, deflate"),
    ROW("accept-language", ""),
    ROW("accept-ranges", ""),
    ROW("accept", ""),
    ROW("access-control-allow-origin", ""),
    ROW("age", ""),
    ROW("allow", ""),
    ROW("authorization", ""),
    ROW("cache-control", ""),
    ROW("content-disposition", ""),
    ROW("content-encoding", ""),
    ROW("content-language", ""),
    ROW("content-length", ""),
    ROW("content-location", ""),
    ROW("content-range", ""),
    ROW("content-type", ""),
    ROW("cookie", ""),
    ROW("date", ""),
    ROW("etag", ""),
    ROW("expect", ""),
    ROW("expires", ""),
    ROW("from", ""),
    ROW("host", ""),
    ROW("if-match", ""),
    ROW("if-modified-since", ""),
    ROW("if-none-match", ""),
    ROW("if-range", ""),
    ROW("if-unmodified-since", ""),
    ROW("last-modified", ""),
    ROW("link", ""),
    ROW("location", ""),
    ROW("max-forwards", ""),
    ROW("proxy-authenticate", ""),
    ROW("proxy-authorization", ""),
    ROW("range", ""),
    ROW("referer", ""),
    ROW("refresh", ""),
    ROW("retry-after", ""),
    ROW("server", ""),
    ROW("set-cookie", ""),
    ROW("strict-transport-security", ""),
    ROW("transfer-encoding", ""),
    ROW("user-agent", ""),
    ROW("vary", ""),
    ROW("via", ""),
    ROW("www-authenticate", ""),
};
#undef ROW

const struct hpack_static *const hpack_statics = statics;

static uint8_t static_by_token[H2_TOKEN_COUNT];

/* Behind the constructor of h2_field.c, which fills what h2_token_find() reads. */
__attribute__((constructor(H2_TOKENS_READY + 1))) static void find_static_tokens(void)
{
    for (uint8_t i = HPACK_STATIC_COUNT; i > 0; i--) { /* downwards: the first of a name stays. */
        enum h2_token token = h2_token_find(statics[i].name);
        statics[i].token = (uint8_t)token;
        if (token != H2_TOKEN_OTHER) {
            statics[i].name = h2_token_name(token);
            static_by_token[token] = i;
        }
    }
}

uint8_t hpack_static_of(enum h2_token token)
{
    return static_by_token[token];
}

/* ---- the dynamic table ---- */

/* Entries and bytes that the first memory has room for; blocks of h2_mem have 16 bytes before. */
enum { FIRST_ENTRIES = 16, FIRST_BYTES = 512 - 16 };

struct slice hpack_entry_name(const struct hpack_table *t, const struct hpack_entry *e)
{
    return slice_of(t->bytes + (uint32_t)(e->at - t->base), e->name_size);
}

struct slice hpack_entry_value(const struct hpack_table *t, const struct hpack_entry *e)
{
    return slice_of(t->bytes + (uint32_t)(e->at - t->base) + e->name_size, e->value_size);
}

static uint32_t entry_size(const struct hpack_entry *e)
{
    return (uint32_t)e->name_size + e->value_size + HPACK_ENTRY_OVERHEAD;
}

static void evict_to(struct hpack_table *t, uint32_t size)
{
    while (t->size > size) { /* ends: an empty table has size 0. */
        CHECK(t->evicted != t->added);
        t->size -= entry_size(hpack_table_entry(t, t->evicted));
        t->evicted++;
    }
}

void hpack_table_resize(struct hpack_table *t, uint32_t max)
{
    t->max = max;
    evict_to(t, max);
}

/* A longer ring, when it is full. */
static bool make_entry_room(struct hpack_table *t)
{
    uint32_t live = t->added - t->evicted;
    if (live < t->capacity) {
        return true;
    }
    uint32_t capacity = t->capacity == 0 ? FIRST_ENTRIES : 2 * t->capacity;
    struct hpack_entry *entries = h2_mem_alloc(t->mem, capacity * sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    for (uint32_t n = t->evicted; n != t->added; n++) {
        entries[n & (capacity - 1)] = *hpack_table_entry(t, n);
    }
    h2_mem_free(t->mem, t->entries);
    t->entries = entries;
    t->capacity = capacity;
    return true;
}

/* Where the bytes of the oldest entry that is still there begin; the end of all if there is none.
 */
static uint32_t live_from(const struct hpack_table *t)
{
    return t->evicted == t->added ? t->end : hpack_table_entry(t, t->evicted)->at - t->base;
}

/* The bytes of one entry more, at the end. They may come from the block that is left here, so
 * that is freed last. */
static bool add_bytes(struct hpack_table *t, struct slice name, struct slice value)
{
    uint32_t size = (uint32_t)(name.size + value.size);
    uint8_t *old = NULL;
    if (t->bytes == NULL || size > t->room - t->end) {
        uint32_t from = live_from(t);
        uint32_t live = t->end - from;
        size_t room = 2 * ((size_t)live + size);
        uint8_t *bytes = h2_mem_alloc(t->mem, room < FIRST_BYTES ? FIRST_BYTES : room);
        if (bytes == NULL) {
            return false;
        }
        if (t->bytes != NULL) {
            memcpy(bytes, t->bytes + from, live);
        }
        old = t->bytes;
        t->bytes = bytes;
        t->room = (uint32_t)h2_mem_size(bytes);
        t->base += from;
        t->end = live;
    }
    uint8_t *to = t->bytes + t->end;
    if (name.size > 0) {
        memcpy(to, name.ptr, name.size);
    }
    if (value.size > 0) {
        memcpy(to + name.size, value.ptr, value.size);
    }
    t->end += size;
    h2_mem_free(t->mem, old);
    return true;
}

bool hpack_table_add(struct hpack_table *t, struct slice name, struct slice value,
                     const struct hpack_entry *like)
{
    size_t size = name.size + value.size + HPACK_ENTRY_OVERHEAD;
    if (size > t->max) {
        evict_to(t, 0);
        return true;
    }
    evict_to(t, t->max - (uint32_t)size);
    if (!make_entry_room(t) || !add_bytes(t, name, value)) {
        return false;
    }
    struct hpack_entry *entry = &t->entries[t->added & (t->capacity - 1)];
    *entry = *like;
    entry->at = t->base + t->end - (uint32_t)(name.size + value.size);
    entry->name_size = (uint16_t)name.size;
    entry->value_size = (uint16_t)value.size;
    t->added++;
    t->size += (uint32_t)size;
    return true;
}

void hpack_table_free(struct hpack_table *t)
{
    h2_mem_free(t->mem, t->entries);
    h2_mem_free(t->mem, t->bytes);
    *t = (struct hpack_table){.mem = t->mem, .max = t->max};
}
