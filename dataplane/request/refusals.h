/*
 * refusals: what a worker refused within the last hour, for whoever asks why.
 *
 * Shape      a ring of entries of one size, limits.explain_entries of them: the oldest makes room.
 *            A refusal has an id, which its caller is told (x-trilane-explain) and by which the
 *            entry is found. Texts are cut to fit, with "..." behind what is left; bytes from
 *            outside that are not plain are '?'.
 * Units      milliseconds; bytes.
 * Ownership  a ring is its worker's; entries are copied in and out.
 * Threads    _id(), _add() and _note…(): the worker. _find() and _latest(): any thread, at any
 *            time: an entry is read word by word between two looks at its number, and one that is
 *            written meanwhile is none. Nobody waits.
 * Errors     none: a ring of no entries keeps nothing, and its refusals have no id.
 * Source     OPA's decision_id and decision log; Boehm, "Can seqlocks get along with programming
 *            language memory models?" (2012).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_refusals;
struct dp_request;

/* An id is 60 random bits, written in Crockford's base 32. It names, and opens nothing: what it
 * names is read on the admin's port. */
enum { DP_REFUSAL_ID_SIZE = 12 };

/* How long an entry is answered for. */
enum { DP_REFUSAL_LIFE_MS = 3600000 };

/* name, bytes at most. In this order they find room: what comes late is cut first. */
#define DP_REFUSAL_TEXTS(X)                                                                        \
    X(LANE, "lane", 16)                                                                            \
    X(CALLER, "caller", 127)                                                                       \
    X(TENANT, "tenant", 63)                                                                        \
    X(TARGET, "target", 140)                                                                       \
    X(RULE, "rule", 192)                                                                           \
    X(LIMIT, "limit", 127)                                                                         \
    X(METHOD, "method", 160)                                                                       \
    X(TRACE, "trace", 32)                                                                          \
    X(UPSTREAM, "upstream", 64)                                                                    \
    X(PEER, "peer", 64)                                                                            \
    X(SENTENCE, "sentence", 256)                                                                   \
    X(ROUTE, "route", 140)                                                                         \
    X(REQUEST, "request", 64)                                                                      \
    X(CORRELATION, "correlation", 64)                                                              \
    X(WHERE, "where", 64)

enum dp_refusal_text {
#define X(id, name, max) DP_REFUSAL_##id,
    DP_REFUSAL_TEXTS(X)
#undef X
        DP_REFUSAL_TEXT_COUNT
};

enum { DP_REFUSAL_TEXT_BYTES = 942 };

struct dp_refusal {
    uint64_t id;         /* never zero. */
    int64_t time_ms;     /* wall clock. */
    uint64_t boot_ms;    /* the same by the boot clock: its age is counted by this. */
    uint64_t version;    /* of the snapshot; zero: there was none. */
    int32_t code;        /* enum err_code. */
    int16_t grpc_status; /* of the answer; -1: none. */
    int16_t http_status; /* zero: none. */
    uint32_t us;         /* from the request's head to its end; at its bound: longer. */
    uint16_t ends[DP_REFUSAL_TEXT_COUNT]; /* of each text in 'texts'. */
    char texts[DP_REFUSAL_TEXT_BYTES];
};
_Static_assert(sizeof(struct dp_refusal) == 1016, "whole words, and with its number 1 KiB");

/* E_NO_MEMORY. 'entries' may be zero. */
MUST_CHECK struct err dp_refusals_new(size_t entries, struct dp_refusals **out);
void dp_refusals_free(struct dp_refusals *r);

/* ---- the worker ---- */

/* A new id; zero when the ring (or no ring at all: NULL) keeps nothing. */
uint64_t dp_refusals_id(const struct dp_refusals *r);

/* Sets one text of an entry that is made; each at most once, in the order of the table. */
void dp_refusal_set(struct dp_refusal *entry, enum dp_refusal_text text, struct slice value);

/* Keeps an entry; one without an id is passed over. */
void dp_refusals_add(struct dp_refusals *r, const struct dp_refusal *entry);

/* Keeps a request that is over and was refused, under rq->explain. */
void dp_refusals_note(struct dp_refusals *r, const struct dp_request *rq);

/* A message that was refused alone, of a request that goes on. */
struct dp_refused_message {
    struct err why;
    struct slice type;     /* what it is, as it says; empty: not known. */
    struct slice sentence; /* what the refusal says; empty: the text of its code. */
    bool decided;          /* the request's last question was about this one. */
};

/* Keeps such a message; its id, or zero where nothing is kept. */
uint64_t dp_refusals_note_message(struct dp_refusals *r, const struct dp_request *rq,
                                  const struct dp_refused_message *message);

/* ---- any thread ---- */

/* The entry of this id; false: there is none, or none that is young enough. */
bool dp_refusals_find(const struct dp_refusals *r, uint64_t id, struct dp_refusal *out);

/* The 'back'-th latest entry, from zero; false: there is none, or it was just overwritten. */
bool dp_refusals_latest(const struct dp_refusals *r, size_t back, struct dp_refusal *out);

/* How many were kept since the start, those that made room counted. */
uint64_t dp_refusals_count(const struct dp_refusals *r);

/* ---- pure functions ---- */

/* Borrowed of the entry; may be empty. */
struct slice dp_refusal_text(const struct dp_refusal *entry, enum dp_refusal_text text);
const char *dp_refusal_text_name(enum dp_refusal_text text);

/* Writes an id, with a NUL behind it; and reads one, in either case; false: it is none. */
void dp_refusal_id_format(uint64_t id, char out[DP_REFUSAL_ID_SIZE + 1]);
bool dp_refusal_id_parse(struct slice text, uint64_t *out);
