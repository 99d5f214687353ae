/*
 * publish: a publication from its sources to the head that points at it. The steps follow each
 * other as in the table in publish.h, each in the file of its noun; only run() decides what comes
 * next.
 *
 * Before the journal row is committed nothing is published: what was put into KV by then is named
 * by no head, and the number that was handed out is never used again. From that commit on it is
 * published, whatever becomes of this process: the next leader's first beat signs the head.
 */
#include "controlplane/publish/publish.h"

#include <signal.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "controlplane/publish/passage.h"
#include "controlplane/publish/rollback.h"

enum { SENTENCE_MAX = 4096, TEXT_MAX = 16 << 20 };

/* ---- the runner ---- */

struct step {
    const char *name;
    unsigned kinds;
    struct err (*run)(struct cp_passage *p);
};

static const struct step steps[] = {
#define X(name, kinds, text) {#name, kinds, cp_step_##name},
    CP_PUBLISH_STEPS(X)
#undef X
};
enum { STEP_COUNT = sizeof(steps) / sizeof(steps[0]) };

/* "stop:NAME" is NAME, at which the process is stopped instead of killed. */
static const char *fault_name(const char *fault, bool *out_stops)
{
    static const char prefix[] = "stop:";
    *out_stops = strncmp(fault, prefix, sizeof(prefix) - 1) == 0;
    return *out_stops ? fault + sizeof(prefix) - 1 : fault;
}

bool cp_publish_is_step(const char *fault)
{
    bool stops = false;
    const char *name = fault_name(fault, &stops);
    for (size_t i = 0; i < STEP_COUNT; i++) {
        if (strcmp(name, steps[i].name) == 0) {
            return true;
        }
    }
    return strcmp(name, CP_FAULT_END) == 0;
}

static void fault_before(const struct cp_publish_room *room, const struct cp_work *work,
                         const char *step)
{
    bool publishes = (1U << work->kind & CP_PUBLISHED) != 0;
    if (!publishes || room->fault_step == NULL) {
        return;
    }
    bool stops = false;
    if (strcmp(fault_name(room->fault_step, &stops), step) == 0) {
        (void)raise(stops ? SIGSTOP : SIGKILL);
    }
}

static struct err run(struct cp_passage *p)
{
    for (size_t i = 0; i < STEP_COUNT; i++) {
        const struct step *step = &steps[i];
        if ((step->kinds & 1U << p->work->kind) == 0) {
            continue;
        }
        p->work->step = step->name;
        fault_before(p->room, p->work, step->name);
        uint64_t start_ns = clock_mono_ns();
        struct err e = step->run(p);
        LOG(LOG_DEBUG, "publish", "step", LOG_STR("step", step->name), LOG_ERR(e),
            LOG_U64("us", (clock_mono_ns() - start_ns) / 1000));
        TRY(e);
        if (p->over) {
            return OK;
        }
    }
    fault_before(p->room, p->work, CP_FAULT_END);
    return OK;
}

/* What NATS refused it says in its own words: which subject, stream or limit. */
static void add_words_of_nats(const struct cp_publish_room *room, struct cp_work *work)
{
    char text[BUS_ERROR_TEXT_MAX];
    bus_last_error(room->bus, text);
    if (text[0] != '\0') {
        struct err ignored =
            buf_addf(&work->sentence, "%s; NATS said last: %s",
                     work->sentence.size == 0 ? err_text(work->result.code) : "", text);
        (void)ignored;
    }
}

void cp_publish_run(struct cp_publish_room *room, struct cp_work *work)
{
    struct cp_passage *p = NULL;
    work->result = cp_passage_new(room, work, &p);
    if (p == NULL) {
        return;
    }
    work->result = run(p);
    const enum err_code code = work->result.code;
    if (work->sentence.size == 0 && (code == E_BUS_FORBIDDEN || code == E_BUS_LIMIT)) {
        add_words_of_nats(room, work);
    }
    cp_passage_tell_refusal(p);
    cp_passage_close_proposal(p);
    if (1U << work->kind & CP_PUBLISHED) {
        LOG(err_ok(work->result) ? LOG_INFO : LOG_WARN, "publish",
            err_ok(work->result) ? "published" : "refused",
            LOG_U64("version", work->record.version), LOG_STR("step", work->step),
            LOG_ERR(work->result), LOG_STR("author", work->author),
            LOG_SLICE("sentence", buf_slice(&work->sentence)));
    }
    cp_passage_leave(p);
    cp_passage_free(p);
}

void cp_publish_explain(struct cp_publish_room *room, struct cp_work *work)
{
    struct cp_leader_status status;
    cp_leader_status(room->leader, &status);
    if (work->result.code != E_NOT_LEADER || status.leads || status.code == E_OK ||
        status.code == E_NOT_LEADER) {
        return;
    }
    buf_clear(&work->sentence);
    struct err said =
        buf_addf(&work->sentence, "this replica does not lead: %s", err_text(status.code));
    work->result = err_ok(said) ? FAIL(status.code) : said;
    work->deposed = true;
    if (status.code == E_BUS_FORBIDDEN || status.code == E_BUS_LIMIT ||
        status.code == E_BUS_UNAVAILABLE || status.code == E_UNAVAILABLE) {
        add_words_of_nats(room, work);
    }
}

struct err cp_publish_compiled(struct cp_publish_room *room, uint64_t version,
                               struct cp_compiled **out)
{
    struct cp_record record;
    struct err e = room->store->ops->load(room->store, room->environment, version, &record,
                                          /* manifest= */ NULL);
    TRY(e.code == E_NOT_FOUND ? FAIL(E_NEVER_PUBLISHED) : e);
    struct cp_source_set set;
    struct cp_diags diags;
    const struct cp_compile_options options = {.reuse = room->reuse, .inventory = true};
    cp_source_set_init(&set);
    cp_diags_init(&diags, &set);
    diags.published = true;
    e = room->store->ops->sources_get(room->store, room->environment, version, cp_passage_take_file,
                                      &set);
    const bool adopted = set.count == (cp_source_set_find(&set, CP_REMOVALS_FILE) != NULL);
    if (err_ok(e) && adopted) { /* its own sources are not here. */
        e = FAIL(E_NOT_FOUND);
    }
    if (err_ok(e)) {
        e = cp_compile_set(&set, &diags, &options, out);
    }
    cp_diags_free(&diags);
    cp_source_set_free(&set);
    TRY(e);
    if (record.origin == 0) {
        return OK;
    }
    const struct cp_sealed_place place = {room->roots, room->store, room->environment};
    e = cp_rollback_revocations(&place, version, *out);
    if (!err_ok(e)) {
        cp_compiled_free(*out);
        *out = NULL;
    }
    return e;
}

void cp_work_init(struct cp_work *work, enum cp_work_kind kind)
{
    *work = (struct cp_work){.kind = kind, .step = ""};
    cp_source_set_init(&work->sources);
    work->sentence = BUF_MAX(SENTENCE_MAX);
    work->diagnostics = BUF_MAX(TEXT_MAX);
    work->diagnostics_text = BUF_MAX(TEXT_MAX);
    work->diff = BUF_MAX(TEXT_MAX);
    work->diff_text = BUF_MAX(TEXT_MAX);
}

void cp_work_free(struct cp_work *work)
{
    cp_source_set_free(&work->sources);
    buf_free(&work->sentence);
    buf_free(&work->diagnostics);
    buf_free(&work->diagnostics_text);
    buf_free(&work->diff);
    buf_free(&work->diff_text);
}
