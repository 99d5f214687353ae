/* limit_key: what a limit counts a request by. */
#include <string.h>

#include "common/base/ids.h"
#include "common/base/map.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/limit_impl.h"

/* "/package.Service" of "/package.Service/Method"; empty where a method has no service. */
static struct slice service_of(struct slice method)
{
    size_t end = method.size;
    while (end > 0 && method.ptr[end - 1] != '/') {
        end--;
    }
    return slice_head(method, end == 0 ? 0 : end - 1);
}

static void add(struct dp_limit_words *words, struct slice value)
{
    words->of[words->count++] = (struct dp_limit_word){.value = value, .found = true};
}

/* The values of the headers that a limit counts by; false: *out_missing is not there. */
static bool add_headers(const struct dp_limit *limit, const struct dp_limit_query *query,
                        struct dp_limit_words *words, struct slice *out_missing)
{
    bool whole = true;
    for (size_t i = 0; i < limit->header_count; i++) {
        struct slice value = {0};
        struct slice name = slice_str(limit->headers[i]);
        if (query->header != NULL && query->header(query->ctx, name, &value)) {
            add(words, value);
        } else {
            words->of[words->count++].found = false; /* those without it are one. */
            *out_missing = whole ? name : *out_missing;
            whole = false;
        }
    }
    return whole;
}

bool dp_limit_find_words(const struct dp_limit *limit, const struct dp_limit_query *query,
                         struct dp_limit_words *out, struct slice *out_missing)
{
    out->count = 0;
    add(out, limit->id);
    if ((limit->by & DP_LIMIT_BY(CALLER)) != 0) {
        add(out, query->caller->id);
    }
    if ((limit->by & DP_LIMIT_BY(TENANT)) != 0) {
        add(out, query->caller->tenant);
    }
    out->true_count = out->count;
    if ((limit->by & DP_LIMIT_BY(SERVICE)) != 0) {
        add(out, service_of(query->method));
    }
    if ((limit->by & DP_LIMIT_BY(METHOD)) != 0) {
        add(out, query->method);
    }
    return add_headers(limit, query, out, out_missing);
}

/* A hash of each word, so that no value runs into the next one. */
static uint64_t hash_of(const uint64_t *hashes, size_t count, uint64_t seed)
{
    struct slice all = slice_of((const uint8_t *)hashes, count * sizeof(hashes[0]));
    uint64_t hash = map_hash_seeded(all, seed);
    return hash == 0 ? 1 : hash;
}

void dp_limit_key_of(const struct dp_limit_words *words, uint64_t seed, struct dp_cell_key *out)
{
    uint64_t hashes[DP_LIMIT_WORDS_MAX];
    for (size_t i = 0; i < words->count; i++) {
        const struct dp_limit_word *word = &words->of[i];
        hashes[i] = word->found ? map_hash_seeded(word->value, seed) : 0;
    }
    out->shared = hash_of(hashes, words->true_count, seed);
    out->own = hash_of(hashes, words->count, seed);
}

uint64_t dp_limit_fleet_id(const struct dp_limit_words *words)
{
    uint8_t digests[DP_LIMIT_WORDS_MAX][DIGEST_SHORT_SIZE];
    memset(digests, 0, sizeof(digests));
    for (size_t i = 0; i < words->count; i++) {
        if (words->of[i].found) {
            ids_digest_short(words->of[i].value, digests[i]);
        }
    }
    return share_budget(slice_of(digests[0], words->count * DIGEST_SHORT_SIZE));
}
