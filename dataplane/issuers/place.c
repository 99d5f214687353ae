/* place: see place.h. */
#include "dataplane/issuers/place.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/jose/jwk.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    PLACES_MAX = 256, /* of a model; past it none is read. */
    BACKOFF_MIN_MS = 1000,
    BACKOFF_MAX_MS = 60000,
};

static struct slice copy(struct slice text)
{
    return slice_of(slice_dup(text), text.size);
}

static void add(void *ctx, const struct dp_issuer *issuer)
{
    struct dp_places *places = ctx;
    if (issuer->jwks_uri.size == 0 || places->count == PLACES_MAX ||
        dp_places_find(places, issuer->source) != NULL) {
        return;
    }
    struct dp_place *place = &places->at[places->count++];
    *place = (struct dp_place){.issuer = copy(issuer->id),
                               .iss = copy(issuer->issuer),
                               .uri = copy(issuer->jwks_uri),
                               .discovery = issuer->discovery,
                               .ca = copy(issuer->ca),
                               .refresh_ms = issuer->refresh_ms,
                               .logged = E_OK};
    memcpy(place->source, issuer->source, DIGEST_SIZE);
}

void dp_places_of(const struct dp_model *model, struct dp_places *out)
{
    *out = (struct dp_places){0};
    if (dp_model_has_issuers(model)) {
        out->at = calloc(PLACES_MAX, sizeof(struct dp_place));
        CHECK(out->at != NULL);
        dp_model_each_issuer(model, add, out);
    }
}

static void place_free(struct dp_place *place)
{
    CHECK(place->reading == NULL);
    slice_free(place->issuer);
    slice_free(place->iss);
    slice_free(place->uri);
    slice_free(place->ca);
    jose_keys_unref(place->keys);
}

void dp_places_free(struct dp_places *places)
{
    for (size_t i = 0; i < places->count; i++) {
        place_free(&places->at[i]);
    }
    free(places->at);
    *places = (struct dp_places){0};
}

struct dp_place *dp_places_find(const struct dp_places *places, const uint8_t source[DIGEST_SIZE])
{
    for (size_t i = 0; i < places->count; i++) {
        if (memcmp(places->at[i].source, source, DIGEST_SIZE) == 0) {
            return &places->at[i];
        }
    }
    return NULL;
}

void dp_place_go_on(struct dp_place *place, struct dp_place *before, uint64_t now_ns)
{
    place->keys = TAKE_PTR(before->keys);
    memcpy(place->digest, before->digest, DIGEST_SIZE);
    place->read_ms = before->read_ms;
    place->asked_ns = before->asked_ns;
    place->backoff_ms = before->backoff_ms;
    place->reading = TAKE_PTR(before->reading);
    place->logged = before->logged;
    uint64_t soon_ns = now_ns + place->refresh_ms * NS_PER_MS;
    place->due_ns = before->due_ns < soon_ns ? before->due_ns : soon_ns;
}

struct err dp_place_take(struct dp_place *place, struct slice set, int64_t read_ms, bool *out_new,
                         const char **out_why)
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(set, digest);
    *out_new = place->keys == NULL || memcmp(digest, place->digest, DIGEST_SIZE) != 0;
    if (*out_new) {
        struct jose_keys *keys = NULL;
        TRY(jose_keys_read(set, &keys, out_why));
        jose_keys_unref(place->keys);
        place->keys = keys;
        memcpy(place->digest, digest, DIGEST_SIZE);
    }
    place->read_ms = read_ms;
    return OK;
}

/* ---- when ---- */

/* A time of about 'ms', so that nodes do not come all at once. */
static uint64_t about_ms(uint64_t ms, uint32_t percent)
{
    uint32_t random = 0;
    ids_quick(&random, sizeof(random));
    uint64_t part = ms * percent / 100;
    return ms - part + random % (2 * part + 1);
}

static uint64_t next_backoff_ms(const struct dp_place *place)
{
    uint64_t most = place->refresh_ms < BACKOFF_MAX_MS ? place->refresh_ms : BACKOFF_MAX_MS;
    uint64_t next = place->backoff_ms == 0 ? BACKOFF_MIN_MS : place->backoff_ms * 2;
    return next < most ? next : most;
}

void dp_place_rest(struct dp_place *place, bool went_well, uint64_t now_ns)
{
    place->backoff_ms = went_well ? 0 : next_backoff_ms(place);
    uint64_t rest_ms =
        went_well ? about_ms(place->refresh_ms, 10) : about_ms(place->backoff_ms, 20);
    place->due_ns = now_ns + rest_ms * NS_PER_MS;
}

/* Who fails is not asked sooner because tokens name keys that nobody has. */
bool dp_place_may_hurry(const struct dp_place *place, uint64_t now_ns)
{
    bool rested =
        place->asked_ns == 0 || now_ns - place->asked_ns >= limits.issuer_rest_ms * NS_PER_MS;
    return rested && place->backoff_ms == 0;
}
