/*
 * place: where an Issuer's keys are read from, what was read, and when it is read next.
 *
 * Shape      a bounded list of places, one for each source of keys that a model names. A reading
 *            that fails is tried again, each time after twice as long, so that a server that is
 *            slow or away is asked less and less often, until it is asked once a minute.
 * Units      *_ms milliseconds, of the wall clock in read_ms; *_ns nanoseconds of the monotonic
 *            clock.
 * Ownership  a list owns its places, and these all that they have but for the reading.
 * Threads    one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/slice.h"
#include "common/telemetry/metrics.h"
#include "dataplane/apply/model.h"

struct dp_reading;
struct jose_keys;

struct dp_place {
    uint8_t source[DIGEST_SIZE];
    struct slice issuer; /* id; owned, as are these. */
    struct slice iss;    /* claim iss. */
    struct slice uri;    /* a NUL is behind it. */
    struct slice ca;
    bool discovery; /* of 'uri': as of struct dp_issuer. */
    uint64_t refresh_ms;
    struct jose_keys *keys;      /* a reference; NULL: none yet. */
    uint8_t digest[DIGEST_SIZE]; /* of the set that they were read from. */
    int64_t read_ms;
    uint64_t due_ns;            /* when they are read next. */
    uint64_t asked_ns;          /* when they were asked for last; 0: never. */
    uint64_t backoff_ms;        /* 0: the last time went well. */
    struct dp_reading *reading; /* under way, the keeper's; NULL: none. */
    enum err_code logged;
    metrics_id age;
};

struct dp_places {
    struct dp_place *at;
    size_t count;
};

/* The places of a model's Issuers, whose keys nobody has read; of the first 256 sources. */
void dp_places_of(const struct dp_model *model, struct dp_places *out);
void dp_places_free(struct dp_places *places);

struct dp_place *dp_places_find(const struct dp_places *places, const uint8_t source[DIGEST_SIZE]);

/* The place goes on as it was before: takes what that had. */
void dp_place_go_on(struct dp_place *place, struct dp_place *before, uint64_t now_ns);

/* Takes a set that was read into force; *out_new: it is another one. E_MALFORMED: it is none, and
 * *out_why says why. */
MUST_CHECK struct err dp_place_take(struct dp_place *place, struct slice set, int64_t read_ms,
                                    bool *out_new, const char **out_why);

/* When the place is read next, behind a reading that went well or not. */
void dp_place_rest(struct dp_place *place, bool went_well, uint64_t now_ns);

/* Whether a key that is missed may be asked for before that. */
bool dp_place_may_hurry(const struct dp_place *place, uint64_t now_ns);
