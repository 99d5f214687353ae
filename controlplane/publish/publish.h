/*
 * publish: the steps of a publication, top to bottom in publish.c.
 *
 * Shape      validate, plan, publish and rollback run the same steps; each takes those that its
 *            row of the table names. A step returns; the runner logs, counts and stops.
 * Threads    one thread a struct cp_publish_room; several rooms may be at work.
 * Errors     in work->result, with work->step and work->sentence.
 * Source     docs/formats.md, "Publishing"; ARCHITECTURE, "The way data flows".
 */
#pragma once

#include "controlplane/compile/compile.h"
#include "controlplane/fleet/fleet.h"
#include "controlplane/publish/bucket.h"
#include "controlplane/publish/collect.h"
#include "controlplane/publish/leader.h"
#include "controlplane/publish/shelf.h"
#include "controlplane/publish/warrant.h"
#include "controlplane/publish/work.h"

/* Who takes a step. */
#define CP_ALL (1U << CP_WORK_VALIDATE | CP_PLANNED)
#define CP_PLANNED (1U << CP_WORK_PLAN | CP_PUBLISHED)
#define CP_PUBLISHED (1U << CP_WORK_PUBLISH | 1U << CP_WORK_ROLLBACK)
#define CP_COSIGNED (1U << CP_WORK_COSIGN)

/*
 * name, who takes it, what it asks or does. A control plane killed before any of them loses nothing
 * that was answered, and publishes nothing twice: tests/integration/controlplane.
 */
#define CP_PUBLISH_STEPS(X)                                                                        \
    X(base, CP_PLANNED, "is the version that the sender saw still the newest?")                    \
    X(lead, CP_PUBLISHED, "does this replica lead, and can NATS be reached?")                      \
    X(open, CP_COSIGNED, "is there a proposal that this replica has not judged?")                  \
    X(load, CP_ALL | CP_COSIGNED, "take the sources, or the content of the version to go back to") \
    X(compile, CP_ALL | CP_COSIGNED, "sources to parts, or all that is wrong; or what is at hand") \
    X(cut, CP_PLANNED | CP_COSIGNED, "parts to chunks; known chunks keep their stored bytes")      \
    X(agree, CP_COSIGNED, "is the proposal what this replica made of the same sources?")           \
    X(compare, CP_PLANNED, "what does it change?")                                                 \
    X(reach, CP_PLANNED, "can every live node do what it needs?")                                  \
    X(check, CP_PLANNED, "load the whole in a child of trilane-dp check, once")                    \
    X(version, CP_PUBLISHED, "hand out the number, and keep the sources under it")                 \
    X(propose, CP_PUBLISHED, "write the manifest body: those bytes are signed")                    \
    X(sign, CP_PUBLISHED | CP_COSIGNED, "have the signer sign it")                                 \
    X(cosign, CP_PUBLISHED, "wait until as many replicas signed it as the root asks for")          \
    X(tell, CP_COSIGNED, "keep the signature beside the proposal")                                 \
    X(chunks, CP_PUBLISHED, "put the chunks into KV")                                              \
    X(manifest, CP_PUBLISHED, "put the manifest into KV")                                          \
    X(journal, CP_PUBLISHED, "commit the journal row: this is the publication")                    \
    X(head, CP_PUBLISHED, "have the leader point the head at it")

typedef bool cp_publish_stopping_fn(void *ctx);

/* What a thread that publishes works with; all borrowed. */
struct cp_publish_room {
    const char *environment;
    const char *dp_check;   /* see cp_check. */
    const char *directory;  /* for the check's files. */
    const char *fault_step; /* tests: SIGKILL before this step, SIGSTOP at "stop:STEP"; "end": after
                               the last. NULL: no. */
    struct cp_store *store; /* this thread's. */
    struct bus *bus;
    struct cp_roots *roots;
    struct cp_signer *signer;                 /* NULL in a room that only validates and plans; */
    const struct cp_warrant_key *warrant_key; /* so is this. */
    struct cp_leader *leader;
    struct cp_fleet *fleet;
    struct cp_bucket bucket;          /* bound by the worker, replicas apart. */
    struct cp_collector *collector;   /* NULL in a room that only reads. */
    struct cp_shelf *shelf;           /* of all rooms of this replica. */
    struct cp_reuse *reuse;           /* this thread's; made by its worker. */
    cp_publish_stopping_fn *stopping; /* whether the thread is told to end; set by its worker. */
    void *stopping_ctx;
};

/* The fault step that stands behind the last one. */
#define CP_FAULT_END "end"

/* Whether a fault is the name of a step, or CP_FAULT_END, or "stop:" before one of them. */
bool cp_publish_is_step(const char *fault);

/* Compiles the sources of a publication again, with its inventory: E_NEVER_PUBLISHED, E_NOT_FOUND
 * when it was adopted without its sources, and those of cp_compile_set(). */
MUST_CHECK struct err cp_publish_compiled(struct cp_publish_room *room, uint64_t version,
                                          struct cp_compiled **out);

/* Runs the steps of the work's kind. */
void cp_publish_run(struct cp_publish_room *room, struct cp_work *work);

/* Where a work ended with E_NOT_LEADER, and something keeps this replica from leading, puts that in
 * its place: whoever asked cannot see it otherwise. */
void cp_publish_explain(struct cp_publish_room *room, struct cp_work *work);
