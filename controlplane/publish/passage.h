/*
 * passage: one work on its way through the steps of publish.h, and what they hand each other.
 *
 * Shape      a struct that each step reads and adds to; the steps stand in turn.c, content.c,
 *            product.c, verdict.c, proposal.c and delivery.c, in the order in which they run.
 * Ownership  cp_passage_new() gives one that cp_passage_free() ends; room and work are
 *            borrowed.
 * Threads    the room's.
 * Errors     a step's failure ends the run: publish.c.
 * Source     docs/formats.md, "Publishing".
 */
#pragma once

#include "common/base/arena.h"
#include "common/base/map.h"
#include "common/snapshot/manifest.h"
#include "controlplane/publish/prepared.h"
#include "controlplane/publish/publish.h"
#include "controlplane/publish/removals.h"

enum { CP_CONTAINER_MAX = 1 << 20 };

struct cp_passage {
    struct cp_publish_room *room;
    struct cp_work *work;
    struct cp_fence fence;
    uint8_t asked[DIGEST_SIZE];   /* of what the request says, but for its sources. */
    struct cp_prepared *prepared; /* compiled, and cut unless it must be cut anew; NULL: not yet,
                                     or it takes over another version's content. */
    bool found;                   /* 'prepared' was on the shelf. */
    struct cp_prepared *before;   /* of the newest publication; NULL: not at hand. */
    struct map before_chunks;     /* raw digests of its chunks to them. */
    struct cp_streams own;        /* what was taken over, or cut anew. */
    const struct cp_streams *cut; /* what is published: 'own', or of 'prepared'; NULL: not yet. */
    struct arena kept;            /* stored bytes of 'own'; raw digests that are known. */
    struct map known;             /* raw digests that the journal knows. */
    struct manifest newest;       /* of the newest publication; zero: none, or nobody signed it. */
    struct map newest_chunks;     /* names of its chunks. */
    struct cp_removals removals;  /* that this publication says; its sources have them as a file. */
    struct buf body;              /* of the manifest. */
    struct cp_proposal proposal;  /* that is cosigned. */
    struct container_signature signature; /* this replica's. */
    bool proposed;                        /* 'proposal' and 'body' are one to judge. */
    bool proposes;                        /* a proposal of this work's waits for signatures. */
    struct buf container;                 /* the body, signed by as many as it needs. */
    bool over;                            /* nothing is left to do. */
    bool committed;                       /* the journal has it, under this manifest. */
    struct cp_store_chunk *rows;          /* of the journal, one a chunk. */
    size_t row_count;
};

MUST_CHECK struct err cp_passage_new(struct cp_publish_room *room, struct cp_work *work,
                                     struct cp_passage **out);
void cp_passage_free(struct cp_passage *p);

/* Leaves what was made on the shelf, for the publication that follows a plan, and for what follows
 * a publication. */
void cp_passage_leave(struct cp_passage *p);

#define X(name, kinds, text) MUST_CHECK struct err cp_step_##name(struct cp_passage *p);
CP_PUBLISH_STEPS(X)
#undef X

/* ---- turn ---- */

/* A request that came before was answered by what it did then: the sender did not hear of it.
 * E_CONFLICT when another one came under its id. */
MUST_CHECK struct err cp_passage_find_request(struct cp_passage *p, bool *out_found);
/* Digest of what was asked for, the id apart. */
MUST_CHECK struct err cp_passage_request_digest(const struct cp_passage *p,
                                                uint8_t out[DIGEST_SIZE]);
/* What is newest now: the base, and whose revocations a rollback keeps. */
MUST_CHECK struct err cp_passage_find_newest(struct cp_passage *p);
/* Id of the manifest key of this replica's signer. */
void cp_passage_own_key(const struct cp_passage *p, uint8_t out[KEY_ID_SIZE]);

/* ---- content ---- */

/* A cp_store_file_fn over a struct cp_source_set. */
MUST_CHECK struct err cp_passage_take_file(void *ctx, const struct cp_store_file *file);
/*
 * Right after a start nobody is known: neither whom this must suit, nor whom to wait for. What
 * cannot be read stops nothing: nodes judge for themselves.
 */
MUST_CHECK struct err cp_passage_list_nodes(struct cp_passage *p, struct cp_fleet_node **out,
                                            size_t *count);

/* ---- carry ---- */

/* Adds what is to be carried to the sources of this work, or sees that its plan has just that. */
MUST_CHECK struct err cp_passage_carry(struct cp_passage *p);
/* Takes what the sources of a proposal carry: of a rollback, those that came with it; and judges
 * that what is in force stays so. E_COSIGN_REFUSED. */
MUST_CHECK struct err cp_passage_take_carried(struct cp_passage *p);
/* A cp_store_file_fn as cp_passage_take_file(), which passes over what another version carried. */
MUST_CHECK struct err cp_passage_take_others(void *ctx, const struct cp_store_file *file);

/* ---- product ---- */

/* Whether the content is an older version's, byte for byte. */
bool cp_passage_is_taken_over(const struct cp_passage *p);
/* Whether a chunk is one of the newest publication, as it is stored there. */
bool cp_passage_is_newest(const struct cp_passage *p, const struct cut_chunk *chunk);
/* What its manifest says under a number. */
struct manifest_plan cp_passage_manifest(const struct cp_passage *p, uint64_t version);

/* ---- proposal ---- */

/* Digest of the sources of this work, as cp_store_sources_digest(); and of what the request brought
 * of them: what is carried is not the sender's. */
MUST_CHECK struct err cp_passage_sources_digest(const struct cp_passage *p,
                                                uint8_t out[DIGEST_SIZE]);
MUST_CHECK struct err cp_passage_brought_digest(const struct cp_passage *p,
                                                uint8_t out[DIGEST_SIZE]);

/* Leaves beside the proposal why it was not signed. */
void cp_passage_tell_refusal(struct cp_passage *p);
/* Of a publication that was refused nobody is to sign the proposal any more. What cannot be closed
 * is so with the next proposal, or the next leader. */
void cp_passage_close_proposal(struct cp_passage *p);
