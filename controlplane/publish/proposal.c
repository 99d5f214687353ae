/*
 * proposal: a publication from its number to its signatures: the steps version, propose, sign,
 * cosign and tell.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/passage.h"

/* ---- version, propose, sign ---- */

/* Which of the sources are meant. */
enum which { ALL_OF_THEM, BROUGHT };

/* The files of the sources, for whoever frees them. */
static struct err list_files(const struct cp_passage *p, enum which which,
                             struct cp_store_file **out, size_t *count)
{
    const struct cp_prepared *prepared = p->prepared; /* NULL: a rollback. */
    const struct cp_source_set *set = p->work->has_plan ? &prepared->sources : &p->work->sources;
    struct cp_store_file *files = calloc(set->count + 1, sizeof(*files));
    if (files == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    size_t listed = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (which == BROUGHT && slice_eq(set->files[i].name, CP_REMOVALS_FILE)) {
            continue;
        }
        files[listed++] =
            (struct cp_store_file){.name = set->files[i].name,
                                   .bytes = set->files[i].bytes,
                                   .digest = prepared == NULL ? NULL : prepared->digests[i]};
    }
    *out = files;
    *count = listed;
    return OK;
}

static struct err digest(const struct cp_passage *p, enum which which, uint8_t out[DIGEST_SIZE])
{
    auto_free struct cp_store_file *files = NULL;
    size_t count = 0;
    TRY(list_files(p, which, &files, &count));
    return cp_store_sources_digest(files, count, out);
}

struct err cp_passage_sources_digest(const struct cp_passage *p, uint8_t out[DIGEST_SIZE])
{
    return digest(p, ALL_OF_THEM, out);
}

struct err cp_passage_brought_digest(const struct cp_passage *p, uint8_t out[DIGEST_SIZE])
{
    return digest(p, BROUGHT, out);
}

static struct err keep_sources(struct cp_passage *p)
{
    auto_free struct cp_store_file *files = NULL;
    size_t count = 0;
    TRY(list_files(p, ALL_OF_THEM, &files, &count));
    return p->room->store->ops->sources_put(p->room->store, &p->fence, p->work->record.version,
                                            files, count);
}

/*
 * Everything until here stands on the newest version that was read at first: the base, what is
 * unchanged, whose revocations are kept. Compiling took its time, and the row may have been
 * another's meanwhile. Behind this look nobody else publishes: the number is handed out under the
 * fence that was taken before it.
 */
static struct err look_again(struct cp_passage *p)
{
    struct cp_work *work = p->work;
    const uint64_t before = work->before.version;
    TRY(cp_leader_fence(p->room->leader, &p->fence));
    TRY(cp_passage_find_newest(p));
    if (work->before.version == before) {
        return OK;
    }
    TRY(cp_passage_find_request(p, &p->over)); /* sent again, and done by that leader. */
    if (p->over) {
        return OK;
    }
    TRY(buf_addf(&work->sentence, "version %" PRIu64 " was published meanwhile, by another leader",
                 work->before.version));
    /* Without a base it is only to be sent again. */
    return FAIL(work->has_base ? E_BASE_CHANGED : E_NOT_LEADER);
}

struct err cp_step_version(struct cp_passage *p)
{
    TRY(look_again(p));
    if (p->over) {
        return cp_step_head(p);
    }
    TRY(p->room->store->ops->version_hand(p->room->store, &p->fence, &p->work->record.version));
    return keep_sources(p);
}

struct err cp_step_propose(struct cp_passage *p)
{
    struct manifest_plan plan = cp_passage_manifest(p, p->work->record.version);
    TRY(manifest_encode(&plan, &p->body));
    ids_digest(buf_slice(&p->body), p->work->record.manifest_digest);
    struct cp_proposal proposal = {.version = p->work->record.version,
                                   .epoch = p->fence.epoch,
                                   .origin =
                                       p->work->kind == CP_WORK_ROLLBACK ? p->work->target : 0,
                                   .with_trust = p->work->with_trust};
    TRY(cp_passage_sources_digest(p, proposal.sources_digest));
    cp_warrant_proposal(p->room->warrant_key, p->room->environment, &proposal, buf_slice(&p->body),
                        proposal.warrant);
    TRY(p->room->store->ops->proposal_put(p->room->store, &p->fence, &proposal,
                                          buf_slice(&p->body)));
    p->proposes = true;
    cp_cosign_hint(p->room->bus, p->room->environment);
    return OK;
}

struct err cp_step_sign(struct cp_passage *p)
{
    struct cp_signer_request request = {.kind = CONTAINER_MANIFEST,
                                        .version = p->work->record.version,
                                        .body = buf_slice(&p->body)};
    return cp_signer_sign(p->room->signer, &request, &p->signature);
}

/* ---- cosign, tell ---- */

struct err cp_step_cosign(struct cp_passage *p)
{
    struct cp_cosign cosign = {.version = p->work->record.version,
                               .body = buf_slice(&p->body),
                               .own = p->signature,
                               .wait_ms = p->work->sign_wait_ms == 0 ? limits.cosign_wait_ms
                                                                     : p->work->sign_wait_ms};
    auto_buf struct buf signers = BUF_MAX(CP_SIGNERS_MAX);
    TRY(cp_cosign_gather(p->room, &cosign, &p->container, &signers, &p->work->sentence));
    (void)snprintf(p->work->record.signers, sizeof(p->work->record.signers), "%.*s",
                   SLICE_ARG(buf_slice(&signers)));
    return OK;
}

/* Keeps what came of a proposal: the signature, or why there is none. */
static struct err tell(struct cp_passage *p, struct err why)
{
    struct cp_cosignature cosignature = {.code = why.code};
    uint8_t digest[DIGEST_SIZE];
    if (err_ok(why)) { /* by the key that signed: the signer may have another by now. */
        (void)memcpy(cosignature.key_id, p->signature.key_id, sizeof(cosignature.key_id));
        (void)memcpy(cosignature.signature, p->signature.signature, sizeof(cosignature.signature));
    } else {
        cp_passage_own_key(p, cosignature.key_id);
    }
    (void)snprintf(cosignature.sentence, sizeof(cosignature.sentence), "%.*s",
                   SLICE_ARG(slice_head(buf_slice(&p->work->sentence), CP_MESSAGE_MAX)));
    ids_digest(buf_slice(&p->body), digest);
    return p->room->store->ops->cosign_put(p->room->store, p->room->environment,
                                           p->proposal.version, digest, &cosignature);
}

struct err cp_step_tell(struct cp_passage *p)
{
    return tell(p, OK);
}

/* What another try may mend is tried again with the next look; the rest is said once. */
static bool is_final(enum err_code code)
{
    return code != E_UNAVAILABLE && code != E_RESULT_UNKNOWN && code != E_TIMEOUT && code != E_IO &&
           code != E_NO_MEMORY && code != E_SIGNER_GONE && code != E_STORE_LOCKED &&
           code != E_STORE_DEPOSED;
}

void cp_passage_tell_refusal(struct cp_passage *p)
{
    struct err e = p->work->result;
    if (p->proposed && !err_ok(e) && is_final(e.code)) {
        struct err told = tell(p, e);
        LOG(LOG_WARN, "cosign", "refused", LOG_U64("version", p->proposal.version), LOG_ERR(e),
            LOG_SLICE("sentence", buf_slice(&p->work->sentence)),
            LOG_STR("told", err_name(told.code)));
    }
}

void cp_passage_close_proposal(struct cp_passage *p)
{
    struct err e = p->work->result;
    if (!p->proposes || err_ok(e) || !is_final(e.code)) {
        return;
    }
    struct cp_store *store = p->room->store;
    struct err closed = store->ops->proposal_close(store, &p->fence, p->work->record.version);
    LOG(LOG_INFO, "publish", "proposal_closed", LOG_U64("version", p->work->record.version),
        LOG_ERR(closed));
}
