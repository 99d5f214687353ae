/*
 * departure: the publication that ends a removed node's channels.
 *
 * Shape      the newest content under the next number, byte for byte, with what is removed revoked
 *            besides: signed by as many as any other. Where the newest publication says it all,
 *            nothing is published.
 * Threads    the publisher's.
 * Errors     in work->result, as of a rollback; work->record.version is the version that carries
 *            what was removed, 0 when none does yet.
 * Source     docs/decisions/0091-removal-is-published.md.
 */
#pragma once

#include "controlplane/publish/publish.h"

/* 'work' is one of kind CP_WORK_ROLLBACK with its author; 'node' is named in the history. */
void cp_departure_run(struct cp_publish_room *room, const char *node, struct cp_work *work);

/* When the leader looks again for removals that whoever was told of them did not publish: it died,
 * or nobody signed. Zeroed: at once. */
struct cp_departures {
    uint64_t due_ns;  /* monotonic. */
    uint64_t rest_ms; /* behind a publication that failed; longer with each that does. */
};

/* Between two publications: publishes those that stand there for limits.removal_retry_ms, when it
 * leads and is due. Returns in how many milliseconds it is to be called again. */
uint64_t cp_departures_turn(struct cp_departures *d, struct cp_publish_room *room);
