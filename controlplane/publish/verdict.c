/*
 * verdict: what is to be said of a publication's content before anything of it goes out: the steps
 * agree, compare, reach and check.
 */
#include <stdlib.h>
#include <string.h>

#include "controlplane/publish/check.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/passage.h"
#include "controlplane/publish/reach.h"

/* ---- agree ---- */

/* They came by the database; the proposal says which ones the leader was sent. */
static struct err judge_sources(struct cp_passage *p)
{
    uint8_t digest[DIGEST_SIZE];
    TRY(cp_passage_sources_digest(p, digest));
    if (memcmp(digest, p->proposal.sources_digest, sizeof(digest)) == 0) {
        return OK;
    }
    TRY(buf_add_str(&p->work->sentence,
                    "the sources in the database are not the ones that the leader was sent"));
    return FAIL(E_COSIGN_REFUSED);
}

struct err cp_step_agree(struct cp_passage *p)
{
    TRY(judge_sources(p));
    struct manifest_plan mine = cp_passage_manifest(p, p->proposal.version);
    return cp_cosign_agree(buf_slice(&p->body), &mine, &p->work->sentence);
}

/* ---- compare ---- */

static struct err add_diff(struct cp_passage *p)
{
    struct cp_compiled *again = NULL; /* of the newest publication. */
    const struct cp_compiled *before = p->before == NULL ? NULL : p->before->compiled;
    if (p->work->before.version != 0 && (before == NULL || !cp_compiled_has_inventory(before))) {
        struct err found = cp_publish_compiled(p->room, p->work->before.version, &again);
        TRY(found.code == E_NOT_FOUND ? OK : found); /* it was adopted: everything is new. */
        before = again;
    }
    struct cp_diff diff;
    struct err e = cp_diff_make(before, p->prepared->compiled, &diff);
    cp_compiled_free(again);
    TRY(e);
    e = cp_diff_json(&diff, &p->work->diff);
    if (err_ok(e)) {
        e = cp_diff_text(&diff, &p->work->diff_text);
    }
    cp_diff_free(&diff);
    return e;
}

/* Positions are outside the content digest, but a moved rule is explained by them. */
static bool same_positions(const struct cp_passage *p)
{
    const struct manifest_stream *before = manifest_stream(&p->newest, CP_PART_POSITIONS);
    for (size_t i = 0; i < p->cut->count; i++) {
        if (p->cut->streams[i].kind == CP_PART_POSITIONS) {
            return before != NULL &&
                   memcmp(p->cut->streams[i].raw_digest, before->raw_digest, DIGEST_SIZE) == 0;
        }
    }
    return before == NULL;
}

struct err cp_step_compare(struct cp_passage *p)
{
    struct manifest_plan plan = cp_passage_manifest(p, 0);
    struct cp_record *record = &p->work->record;
    manifest_plan_digest(&plan, record->content_digest);
    for (size_t i = 0; i < p->cut->count; i++) {
        record->raw_size += p->cut->streams[i].raw_size;
        p->work->chunks += p->cut->streams[i].chunk_count;
    }
    p->work->is_same =
        p->newest.version != 0 && memcmp(record->content_digest, p->newest.content_digest,
                                         sizeof(record->content_digest)) == 0;
    p->work->is_unchanged = p->work->is_same && same_positions(p);
    if (p->work->kind == CP_WORK_PUBLISH && p->work->is_unchanged && !p->work->again) {
        p->work->record = p->work->before; /* it is published already: that ends well. */
        p->work->in_head = true;
        p->over = true;
    }
    return p->work->kind == CP_WORK_PLAN ? add_diff(p) : OK;
}

/* ---- reach ---- */

struct err cp_step_reach(struct cp_passage *p)
{
    struct cp_fleet_node *nodes = NULL;
    size_t count = 0;
    TRY(cp_passage_list_nodes(p, &nodes, &count));
    struct cp_work *work = p->work;
    const struct cp_reach_need need = {.capabilities = work->capabilities, .format = work->format};
    struct err e = cp_reach_judge(nodes, count, &need, &work->nodes_live, &work->sentence);
    free(nodes);
    return e;
}

/* ---- check ---- */

/* The number is not handed out yet; the child judges the content. */
static struct err run_check(struct cp_passage *p, struct cp_check *check)
{
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    auto_buf struct buf container = BUF_MAX(CP_CONTAINER_MAX);
    struct manifest_plan plan = cp_passage_manifest(p, p->work->before.version + 1);
    TRY(manifest_encode(&plan, &body));
    TRY(container_seal(CONTAINER_MANIFEST, cp_roots_environment(p->room->roots), buf_slice(&body),
                       /* signatures= */ NULL, 0, &container));
    check->manifest = buf_slice(&container);
    return cp_check_run(check, &p->work->sentence);
}

/* What was loaded once, for a plan or a publication of the same content, loads again. */
struct err cp_step_check(struct cp_passage *p)
{
    struct cp_check check = {.program = p->room->dp_check,
                             .directory = p->room->directory,
                             .environment = p->room->environment,
                             .streams = p->cut->streams,
                             .stream_count = p->cut->count};
    uint8_t digest[DIGEST_SIZE];
    bool named = err_ok(cp_check_digest(&check, p->work->capabilities, digest));
    if (named && cp_shelf_has_passed(p->room->shelf, digest)) {
        return OK;
    }
    TRY(run_check(p, &check));
    if (named) {
        cp_shelf_pass(p->room->shelf, digest);
    }
    return OK;
}
