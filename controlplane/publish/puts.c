/* puts: see puts.h. */
#include "controlplane/publish/puts.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"

enum { PUTS_MAX = 65536 }; /* four of the largest manifests. */

struct put {
    uint8_t digest[DIGEST_SHORT_SIZE];
    uint64_t at_ns; /* CLOCK_BOOTTIME: a machine that slept did not stand still for others. */
};

static struct slice name_of(const uint8_t digest[DIGEST_SHORT_SIZE])
{
    return slice_of(digest, DIGEST_SHORT_SIZE);
}

static bool is_fresh(const struct put *put)
{
    return clock_boot_ns() - put->at_ns < limits.chunk_fresh_ms * 1000000;
}

/* Makes room: what is not fresh says nothing any more. */
static void sweep(struct cp_puts *p)
{
    struct map kept = {0};
    size_t at = 0;
    const struct map_entry *entry = NULL;
    while ((entry = map_next(&p->chunks, &at)) != NULL) {
        struct put *put = entry->value;
        if (!is_fresh(put) || !err_ok(map_put(&kept, name_of(put->digest), put, NULL))) {
            free(put);
        }
    }
    map_free(&p->chunks);
    p->chunks = kept;
}

static struct put *room_for(struct cp_puts *p, const uint8_t digest[DIGEST_SHORT_SIZE])
{
    struct put *put = map_get(&p->chunks, name_of(digest));
    if (put != NULL) {
        return put;
    }
    if (p->chunks.count >= PUTS_MAX) {
        sweep(p);
    }
    put = p->chunks.count >= PUTS_MAX ? NULL : calloc(1, sizeof(*put));
    if (put == NULL) {
        return NULL;
    }
    (void)memcpy(put->digest, digest, DIGEST_SHORT_SIZE);
    if (!err_ok(map_put(&p->chunks, name_of(put->digest), put, NULL))) {
        free(put);
        return NULL;
    }
    return put;
}

void cp_puts_note(struct cp_puts *p, const uint8_t digest[DIGEST_SHORT_SIZE], uint64_t age_ms)
{
    uint64_t now_ns = clock_boot_ns();
    if (age_ms >= limits.chunk_fresh_ms || age_ms > now_ns / 1000000) {
        return;
    }
    uint64_t at_ns = now_ns - age_ms * 1000000;
    struct put *put = room_for(p, digest);
    if (put != NULL && at_ns > put->at_ns) {
        put->at_ns = at_ns;
    }
}

bool cp_puts_is_fresh(const struct cp_puts *p, const uint8_t digest[DIGEST_SHORT_SIZE])
{
    const struct put *put = map_get(&p->chunks, name_of(digest));
    return put != NULL && is_fresh(put);
}

void cp_puts_forget(struct cp_puts *p)
{
    size_t at = 0;
    const struct map_entry *entry = NULL;
    while ((entry = map_next(&p->chunks, &at)) != NULL) {
        free(entry->value);
    }
    map_free(&p->chunks);
}

void cp_puts_free(struct cp_puts *p)
{
    cp_puts_forget(p);
}
