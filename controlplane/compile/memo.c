/* memo: see memo.h. */
#include "controlplane/compile/memo.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

struct cp_memo_entry {
    struct cp_memo_entry *newer;
    struct cp_memo_entry *older;
    void *value;
    size_t bytes;
    size_t key_size;
    uint8_t key[];
};

void cp_memo_init(struct cp_memo *memo, size_t bytes_max, void (*drop)(void *value))
{
    *memo = (struct cp_memo){.bytes_max = bytes_max, .drop = drop};
}

static struct slice key_of(const struct cp_memo_entry *entry)
{
    return slice_of(entry->key, entry->key_size);
}

static void unlink_entry(struct cp_memo *memo, struct cp_memo_entry *entry)
{
    *(entry->newer != NULL ? &entry->newer->older : &memo->newest) = entry->older;
    *(entry->older != NULL ? &entry->older->newer : &memo->oldest) = entry->newer;
    entry->newer = NULL;
    entry->older = NULL;
}

static void link_newest(struct cp_memo *memo, struct cp_memo_entry *entry)
{
    entry->older = memo->newest;
    *(entry->older != NULL ? &entry->older->newer : &memo->oldest) = entry;
    memo->newest = entry;
}

static void drop_oldest(struct cp_memo *memo)
{
    struct cp_memo_entry *entry = memo->oldest;
    void *removed = map_remove(&memo->map, key_of(entry));
    CHECK(removed == entry);
    unlink_entry(memo, entry);
    memo->bytes -= entry->bytes;
    memo->drop(entry->value);
    free(entry);
}

void cp_memo_free(struct cp_memo *memo)
{
    while (memo->oldest != NULL) {
        drop_oldest(memo);
    }
    map_free(&memo->map);
}

void *cp_memo_get(struct cp_memo *memo, struct slice key)
{
    struct cp_memo_entry *entry = map_get(&memo->map, key);
    if (entry == NULL) {
        return NULL;
    }
    unlink_entry(memo, entry);
    link_newest(memo, entry);
    return entry->value;
}

struct err cp_memo_put(struct cp_memo *memo, struct slice key, void *value, size_t bytes)
{
    struct cp_memo_entry *entry = malloc(sizeof(*entry) + key.size);
    if (entry == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *entry = (struct cp_memo_entry){.value = value, .key_size = key.size};
    entry->bytes = sizeof(*entry) + key.size + bytes;
    (void)memcpy(entry->key, key.ptr, key.size);
    CHECK(map_get(&memo->map, key) == NULL);
    struct err e = map_put(&memo->map, key_of(entry), entry, /* out_old= */ NULL);
    if (!err_ok(e)) {
        free(entry);
        return e;
    }
    link_newest(memo, entry);
    memo->bytes += entry->bytes;
    while (memo->bytes > memo->bytes_max) { /* ends: without an entry it weighs nothing. */
        drop_oldest(memo);
    }
    return OK;
}
