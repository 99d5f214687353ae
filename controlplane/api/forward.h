/*
 * forward: a write that came to a replica which does not lead goes to the one that does.
 *
 * Shape      one POST to the address that stands in the leader's row, with the caller's own
 *            authorization and the request's id. Whoever gets it does not forward it again. The id
 *            makes it safe to send it twice: a publication is done once.
 * Units      milliseconds.
 * Threads    workers; each call waits for its answer, or until another replica leads;
 *            net_ask_init() before them.
 * Errors     E_NOT_LEADER: nobody whom it could go to; it is to be done here, if at all.
 *            E_UNAVAILABLE: the leader was not reached, or left while it was asked: try again.
 * Source     docs/control-plane.md, "Three replicas".
 */
#pragma once

#include <stdatomic.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/publish/leader.h"

#define CP_FORWARDED_HEADER "x-trilane-forwarded"
#define CP_WAITED_HEADER "x-trilane-waited-ms" /* of a command that has asked others before. */

struct cp_forward {
    struct cp_leader *leader;
    const char *replica; /* our own name, */
    const char *address; /* and our own address: nothing is sent there. */
    const char *ca_file; /* that signed the other replicas' certificates; NULL: the system's. */
};

struct cp_forward_request {
    const char *path; /* "/api/v1/publish" */
    struct slice body;
    const char *authorization; /* value of the header. */
    const char *request;       /* its id. */
    atomic_bool *abandoned;    /* the caller has left: nobody waits for the answer. */
};

/* Sends it to whoever leads now; *out_status and 'answer' are the leader's own. */
MUST_CHECK struct err cp_forward_send(const struct cp_forward *forward,
                                      const struct cp_forward_request *request,
                                      unsigned *out_status, struct buf *answer);
