/*
 * ensure: JetStream's own API, for the files of this room that make blocking calls.
 *
 * Ownership  an api holds the bus' connection from api_begin() to api_end().
 * Threads    background threads only.
 * Errors     those of kv.h, and E_NOT_FOUND for a stream or consumer that is not there.
 */
#pragma once

#include "common/base/buf.h"
#include "common/bus/bus_internal.h"
#include "common/bus/jetstream.h"

/* Numbers of nats-server's errors.json. */
enum {
    API_NO_MESSAGE = 10037,
    API_STREAM_NOT_FOUND = 10059,
    API_CONSUMER_NOT_FOUND = 10014,
    API_STREAM_NAME_IN_USE = 10058,
    API_SUBJECTS_OVERLAP = 10065,
    API_CONSUMER_EXISTS = 10105,
    API_REPLICAS_NOT_CLUSTERED = 10074,
    API_NO_PEERS = 10005,
    API_CONSUMERS_LIMIT = 10026,
    API_NOT_FOR_ACCOUNT = 10039, /* JetStream, as a whole. */
    API_STREAMS_LIMIT = 10027,
    API_MAX_BYTES_REQUIRED = 10113, /* of the account: a stream must say how large it may get. */
    API_ACK_PENDING_LIMIT = 10121,
    API_STREAM_BYTES_LIMIT = 10122
};

struct api {
    struct bus *bus;
    natsConnection *connection;
    jsCtx *js;
    uint64_t forbidden;
    const char *prefix; /* "$JS.API" */
};

MUST_CHECK struct err api_begin(struct api *api, struct bus *bus, const char *prefix,
                                uint64_t timeout_ms);
/* Ends it and says how a call went. */
MUST_CHECK struct err api_end(struct api *api, natsStatus status, jsErrCode code);

/* Makes the stream, or holds the one that is there against 'want'; see kv_ensure(). */
MUST_CHECK struct err ensure_stream(struct bus *bus, jsStreamConfig *want, uint64_t timeout_ms,
                                    struct buf *why, struct stream_info *out);

/* E_NOT_FOUND when it is not there. */
MUST_CHECK struct err look_at_stream(struct bus *bus, const char *api, const char *name,
                                     uint64_t timeout_ms, struct stream_info *out);

/* Brings it up to so many replicas; see kv_raise(). E_NOT_FOUND when it is not there. */
MUST_CHECK struct err raise_stream(struct bus *bus, const char *name, uint32_t replicas,
                                   uint64_t timeout_ms, struct stream_info *out);
