/*
 * subject: the one place where names of the bus are put together.
 *
 * Shape      a fixed buffer with a NUL behind its text. Tokens are checked and escaped: letters,
 *            digits, '-' and '_' stay, any other byte becomes %XX; so no token can hold a dot, a
 *            wildcard or a space, and two tokens never meet in one text.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED for an empty token and past a bound; *out untouched.
 * Source     docs/names.md, "Subjects, streams, buckets, tables".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

enum {
    SUBJECT_SIZE_MAX = 511,
    SUBJECT_TOKEN_MAX = 128, /* bytes of a token before it is escaped. */
    EVENT_ID_MAX = 128,
    MESSAGE_ID_SIZE_MAX = 511
};

struct subject {
    char text[SUBJECT_SIZE_MAX + 1];
    size_t size;
};

static inline struct slice subject_slice(const struct subject *s)
{
    return slice_of(s->text, s->size);
}

/* Places of an event's subject; in a filter an empty slice, a 0 or SUBJECT_ANY stands for any. */
#define SUBJECT_ANY UINT32_MAX
struct subject_event {
    struct slice environment; /* never any. */
    struct slice tenant;
    struct slice type; /* "User" */
    uint32_t major;
    uint32_t partition;
};

/* trilane.<env>.event.<partition>.<tenant>.<Type>.v<major> */
MUST_CHECK struct err subject_event(const struct subject_event *event, struct subject *out);
/* The same with '*' for what is any. */
MUST_CHECK struct err subject_event_filter(const struct subject_event *event, struct subject *out);
/* trilane.<env>.event.> : what TRILANE_EVENTS holds. */
MUST_CHECK struct err subject_events(struct slice environment, struct subject *out);
/* trilane.<env>.event.<partition>.<tenant>._.frame */
MUST_CHECK struct err subject_frame(const struct subject_event *event, struct subject *out);
/* trilane.<env>.head */
MUST_CHECK struct err subject_head(struct slice environment, struct subject *out);
/* trilane.<env>.content : what a version adds, beside the hint. */
MUST_CHECK struct err subject_content(struct slice environment, struct subject *out);
/* trilane.<env>.demand.<node> and trilane.<env>.shares.<node> : of budgets that nodes share; an
 * empty node stands for any. */
MUST_CHECK struct err subject_demand(struct slice environment, struct slice node,
                                     struct subject *out);
MUST_CHECK struct err subject_shares(struct slice environment, struct slice node,
                                     struct subject *out);
/* trilane.<env>.proposal : a hint among replicas that one waits for signatures. */
MUST_CHECK struct err subject_proposal(struct slice environment, struct subject *out);
/* trilane.<env>.quarantine.<stream>.<consumer>; both empty: trilane.<env>.quarantine.> */
MUST_CHECK struct err subject_quarantine(struct slice environment, struct slice stream,
                                         struct slice consumer, struct subject *out);
/* trilane.<env>.plugin.<plugin>.<phase> */
MUST_CHECK struct err subject_plugin(struct slice environment, struct slice plugin,
                                     struct slice phase, struct subject *out);
/* trilane.<env>.deliver.<durable> : where a push consumer sends to. */
MUST_CHECK struct err subject_deliver(struct slice environment, struct slice durable,
                                      struct subject *out);

/* $JS.API.CONSUMER.MSG.NEXT.<stream>.<durable> : where a pull consumer is asked for messages. */
MUST_CHECK struct err subject_pull(struct slice stream, struct slice durable, struct subject *out);

/* Durable name and deliver group: <env>_<consumer>[_<view>]; each a resource name. */
MUST_CHECK struct err subject_durable(struct slice environment, struct slice consumer,
                                      struct slice view, struct subject *out);

/* Buckets: trilane_<env>_snapshots, trilane_<env>_nodes. */
MUST_CHECK struct err subject_bucket_snapshots(struct slice environment, struct subject *out);
MUST_CHECK struct err subject_bucket_nodes(struct slice environment, struct subject *out);

/* Keys of the snapshot bucket; digests are given as bytes and written as hex. */
MUST_CHECK struct err subject_key_manifest(uint64_t version, struct slice digest,
                                           struct subject *out);
MUST_CHECK struct err subject_key_chunk(struct slice digest, struct subject *out);
MUST_CHECK struct err subject_key_root(uint64_t number, struct subject *out);
#define SUBJECT_KEY_HEAD SLICE_LIT("head")

/* Splits "User.v2" at its last ".v": the type may have dots. E_TYPE_UNKNOWN when it is not that. */
MUST_CHECK struct err subject_type_split(struct slice canonical_type, struct slice *out_type,
                                         uint32_t *out_major);

/* XXH3-64(tenant NUL key) mod partitions; an empty key: of the event id. */
uint32_t subject_partition(struct slice tenant, struct slice key, struct slice event_id,
                           uint32_t partitions);

/* Nats-Msg-Id: <tenant>/<Type>.v<major>/<event id>; the id is 1 to EVENT_ID_MAX visible ASCII. */
MUST_CHECK struct err subject_message_id(struct slice tenant, struct slice type, uint32_t major,
                                         struct slice event_id, struct subject *out);

/* Whether text may stand as a subject on the wire: no empty token, space or control byte. */
bool subject_is_valid(struct slice text);
