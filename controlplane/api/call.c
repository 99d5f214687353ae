/* call: what workers do for the API. See call.h. */
#include "controlplane/api/call.h"

#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "controlplane/api/enrol.h"
#include "controlplane/api/json.h"
#include "controlplane/api/proposal.h"
#include "controlplane/api/root.h"
#include "controlplane/compile/compile.h"
#include "controlplane/publish/recover.h"

enum {
    ANSWER_MAX = 64 << 20,
    HISTORY_MAX = 200,
    POST_RETRY_MS = 1,
    LEADER_STEP_MS = 20, /* between two looks for a leader. */
    AUTHORIZATION_MAX = 512,
    REQUEST_RANDOM = 16,
};

/* ---- history, versions, diff, audit ---- */

static struct err history(struct cp_call *call, struct cp_publish_room *room, json_t **out)
{
    size_t max = call->second == 0 || call->second > HISTORY_MAX ? HISTORY_MAX : call->second;
    struct cp_record *records = calloc(max, sizeof(*records));
    size_t count = 0;
    if (records == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = room->store->ops->history(room->store, room->environment, call->first, records,
                                             max, &count);
    json_t *list = json_array();
    for (size_t i = 0; err_ok(e) && i < count; i++) {
        (void)json_array_append_new(list, cp_json_record(&records[i]));
    }
    free(records);
    struct cp_leader_status status;
    cp_leader_status(room->leader, &status);
    *out =
        json_pack("{s:o, s:I}", "versions", list, "head_version", (json_int_t)status.head_version);
    return e;
}

static struct err list_file(void *ctx, const struct cp_store_file *file)
{
    json_t *item = json_pack("{s:s%, s:I}", "name", (const char *)file->name.ptr, file->name.size,
                             "bytes", (json_int_t)file->bytes.size);
    return json_array_append_new(ctx, item) == 0 ? OK : FAIL(E_NO_MEMORY);
}

/* The refusal that names the version. */
static struct err never_published(uint64_t number, json_t **out)
{
    struct err e = FAIL(E_NEVER_PUBLISHED);
    *out = cp_json_error(e, /* work= */ NULL);
    (void)json_object_set_new(*out, "message",
                              json_sprintf("version %llu was never published, or is too old",
                                           (unsigned long long)number));
    return e;
}

static struct err version(struct cp_call *call, struct cp_publish_room *room, json_t **out)
{
    struct cp_record record;
    struct err e = room->store->ops->load(room->store, room->environment, call->first, &record,
                                          /* manifest= */ NULL);
    if (e.code == E_NOT_FOUND) {
        return never_published(call->first, out);
    }
    TRY(e);
    json_t *files = json_array();
    e = room->store->ops->sources_get(room->store, room->environment, call->first, list_file,
                                      files);
    *out = cp_json_record(&record);
    (void)json_object_set_new(*out, "files", files);
    return e;
}

static struct err write_diff(const struct cp_diff *diff, json_t **out)
{
    auto_buf struct buf json = BUF_MAX(ANSWER_MAX);
    auto_buf struct buf text = BUF_MAX(ANSWER_MAX);
    TRY(cp_diff_json(diff, &json));
    TRY(cp_diff_text(diff, &text));
    *out = json_pack("{s:o, s:o}", "diff", json_loadb((const char *)json.ptr, json.size, 0, NULL),
                     "diff_text",
                     json_stringn(text.size == 0 ? "" : (const char *)text.ptr, text.size));
    return OK;
}

static struct err diff_compiled(const struct cp_compiled *before, const struct cp_compiled *after,
                                json_t **out)
{
    struct cp_diff diff;
    TRY(cp_diff_make(before, after, &diff));
    struct err e = write_diff(&diff, out);
    cp_diff_free(&diff);
    return e;
}

static struct err diff(struct cp_call *call, struct cp_publish_room *room, json_t **out)
{
    struct cp_compiled *before = NULL;
    struct cp_compiled *after = NULL;
    uint64_t asked = call->first;
    struct err e = cp_publish_compiled(room, asked, &before);
    if (err_ok(e)) {
        asked = call->second;
        e = cp_publish_compiled(room, asked, &after);
    }
    if (err_ok(e)) {
        e = diff_compiled(before, after, out);
    } else if (e.code == E_NEVER_PUBLISHED) {
        e = never_published(asked, out);
    }
    cp_compiled_free(before);
    cp_compiled_free(after);
    return e;
}

static struct err audit(struct cp_call *call, struct cp_publish_room *room, json_t **out)
{
    struct cp_audit *entries = calloc(HISTORY_MAX, sizeof(*entries));
    size_t count = 0;
    (void)call;
    if (entries == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e =
        room->store->ops->audit_list(room->store, room->environment, entries, HISTORY_MAX, &count);
    json_t *list = json_array();
    for (size_t i = 0; err_ok(e) && i < count; i++) {
        const struct cp_audit *a = &entries[i];
        json_t *item = json_pack("{s:I, s:I, s:s, s:s, s:s, s:s}", "seq", (json_int_t)a->seq,
                                 "at_ms", (json_int_t)a->at_ms, "actor", a->actor, "action",
                                 a->action, "object", a->object, "outcome", a->outcome);
        (void)json_array_append_new(list, item);
    }
    free(entries);
    *out = json_pack("{s:o}", "entries", list);
    return e;
}

/* ---- validate, plan, publish, rollback ---- */

static enum cp_work_kind work_kind(enum cp_call_kind kind)
{
    return (enum cp_work_kind)(CP_WORK_VALIDATE + (kind - CP_CALL_VALIDATE));
}

_Static_assert(CP_CALL_RECOVER - CP_CALL_VALIDATE == CP_WORK_RECOVER - CP_WORK_VALIDATE,
               "calls and works are in one order");

static const char *work_name(enum cp_work_kind kind)
{
    switch ((int)kind) {
    case CP_WORK_PUBLISH:
        return "publish";
    case CP_WORK_ROLLBACK:
        return "rollback";
    default:
        return "recover";
    }
}

/* Every write leaves a line, refused ones, too. */
static void keep_audit(struct cp_publish_room *room, const struct cp_work *work)
{
    struct cp_audit entry = {0};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", work->author);
    (void)snprintf(entry.action, sizeof(entry.action), "%s%s", work_name(work->kind),
                   work->with_trust ? "-with-trust" : "");
    (void)snprintf(entry.object, sizeof(entry.object), "version %llu",
                   (unsigned long long)work->record.version);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(work->result.code));
    struct err e = room->store->ops->audit_add(room->store, room->environment, &entry);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "api", "audit_lost", LOG_ERR(e), LOG_STR("action", entry.action),
            LOG_STR("actor", entry.actor));
    }
}

/* Nothing can be asked of the database, nor kept in it: it is not tried again for each caller. */
static bool is_cut_off(struct cp_publish_room *room)
{
    struct cp_leader_status status;
    cp_leader_status(room->leader, &status);
    return !status.leads && status.store_silent;
}

static struct err refuse_cut_off(const struct cp_call *call, struct cp_work *work)
{
    if (call->forwarded) { /* the replica that sent it looks for another leader. */
        return FAIL(E_NOT_LEADER);
    }
    work->deposed = true;
    TRY(buf_add_str(&work->sentence, "this replica does not lead: the database does not answer"));
    struct err e = FAIL(E_UNAVAILABLE);
    LOG(LOG_WARN, "api", "refused", LOG_ERR(e), LOG_STR("action", work_name(work->kind)),
        LOG_STR("actor", work->author), LOG_STR("request", call->request),
        LOG_SLICE("sentence", buf_slice(&work->sentence)));
    return e;
}

static struct err do_work(struct cp_call *call, struct cp_publish_room *room, struct cp_work *work,
                          json_t **out)
{
    work->result = cp_json_read_work(buf_slice(&call->body), work);
    if (cp_call_writes(call->kind)) {
        (void)memcpy(work->request, call->request, sizeof(work->request));
    }
    const bool begins = err_ok(work->result) && cp_call_writes(call->kind);
    if (begins && atomic_load(&call->abandoned)) {
        /* Whoever left while it waited was told of no publication. */
        work->result = FAIL(E_CANCELLED);
    } else if (begins && is_cut_off(room)) {
        work->result = refuse_cut_off(call, work);
    } else if (err_ok(work->result)) {
        if (work->kind == CP_WORK_RECOVER) {
            cp_recover_run(room, work);
        } else {
            cp_publish_run(room, work);
        }
        if (!call->forwarded) { /* the replica that sent it looks for another leader. */
            cp_publish_explain(room, work);
        }
        if (cp_call_writes(call->kind)) {
            keep_audit(room, work);
        }
    }
    *out = err_ok(work->result) ? cp_json_work(work) : cp_json_error(work->result, work);
    return work->result;
}

/* ---- running and answering ---- */

static struct err dispatch(struct cp_call *call, struct cp_publish_room *room, json_t **out)
{
    switch (call->kind) {
    case CP_CALL_HISTORY:
        return history(call, room, out);
    case CP_CALL_VERSION:
        return version(call, room, out);
    case CP_CALL_DIFF:
        return diff(call, room, out);
    case CP_CALL_AUDIT:
        return audit(call, room, out);
    case CP_CALL_PROPOSAL:
        return cp_api_proposal(room, out);
    case CP_CALL_SIGN:
        return cp_api_sign(room, buf_slice(&call->body), out);
    case CP_CALL_ROOTS:
        return cp_api_roots(room, out);
    case CP_CALL_ROOT_PUBLISH:
        return cp_api_root_publish(room, buf_slice(&call->body), out);
    case CP_CALL_NODES:
        return cp_enrol_list(call->registrar, room, buf_slice(&call->body), out);
    case CP_CALL_TOKEN:
        return cp_enrol_token(call->registrar, room, buf_slice(&call->body), out);
    case CP_CALL_JOIN:
        return cp_enrol_join(call->registrar, room, buf_slice(&call->body), out);
    case CP_CALL_RENEW:
        return cp_enrol_renew(call->registrar, room, buf_slice(&call->body), out);
    case CP_CALL_REMOVE:
        return cp_enrol_depart(call->registrar, room, buf_slice(&call->body), call->forwarded, out);
    case CP_CALL_VALIDATE:
    case CP_CALL_PLAN:
    case CP_CALL_PUBLISH:
    case CP_CALL_ROLLBACK:
    case CP_CALL_RECOVER:
        break;
    }
    struct cp_work work;
    cp_work_init(&work, work_kind(call->kind));
    struct err e = do_work(call, room, &work, out);
    cp_work_free(&work);
    return e;
}

/* ---- to the leader ---- */

static const char *path_of(enum cp_call_kind kind)
{
    switch ((int)kind) {
    case CP_CALL_ROLLBACK:
        return "/api/v1/rollback";
    case CP_CALL_RECOVER:
        return "/api/v1/recover";
    case CP_CALL_PLAN:
        return "/api/v1/plan";
    case CP_CALL_REMOVE:
        return "/api/v1/identities/remove";
    default:
        return "/api/v1/publish";
    }
}

bool cp_call_writes(enum cp_call_kind kind)
{
    return kind == CP_CALL_PUBLISH || kind == CP_CALL_ROLLBACK || kind == CP_CALL_RECOVER ||
           kind == CP_CALL_REMOVE;
}

/* Between two leaders there is none for a moment, and the one that answers may just have lost the
 * row: both are worth another try. */
static bool is_passing(const struct cp_call *call)
{
    if (call->status == (unsigned)err_http_status(E_OK)) {
        return false;
    }
    json_t *value = json_loadb((const char *)call->answer.ptr, call->answer.size, 0, NULL);
    const char *code = json_string_value(json_object_get(value, "code"));
    bool passing = code != NULL && strcmp(code, err_name(E_NOT_LEADER)) == 0;
    json_decref(value);
    return passing;
}

static struct err send_to_leader(struct cp_call *call)
{
    const char *authorization = NULL;
    TRY(buf_cstr(&call->authorization, &authorization));
    struct cp_forward_request request = {.path = path_of(call->kind),
                                         .body = buf_slice(&call->body),
                                         .authorization = authorization,
                                         .request = call->request,
                                         .abandoned = &call->abandoned};
    TRY(cp_forward_send(call->forward, &request, &call->status, &call->answer));
    return is_passing(call) ? FAIL(E_UNAVAILABLE) : OK;
}

/* What keeps a control plane from leading, and passes only by somebody's doing. */
static bool waits_in_vain(struct cp_publish_room *room)
{
    struct cp_leader_status status;
    cp_leader_status(room->leader, &status);
    return status.code != E_OK && status.code != E_NOT_LEADER && status.code != E_UNAVAILABLE &&
           status.code != E_BUS_UNAVAILABLE && status.code != E_STORE_LOCKED &&
           status.code != E_STORE_DEPOSED && status.code != E_STORE_BEHIND;
}

/* A database that is silent to one replica may not be so to another, so a command asks them all;
 * but it waits for it once. For a leader each of them waits anew: one may be elected any time. */
static bool is_over(const struct cp_call *call, struct cp_publish_room *room, uint64_t begun_ns)
{
    uint64_t waited_ms = (clock_mono_ns() - begun_ns) / 1000000;
    waited_ms += is_cut_off(room) ? call->waited_ms : 0;
    return waited_ms >= limits.forward_wait_ms || waits_in_vain(room) ||
           atomic_load(&call->abandoned) || room->stopping(room->stopping_ctx);
}

/* True when the leader answered. False: it is to be done, or refused, here. */
static bool is_answered_elsewhere(struct cp_call *call, struct cp_publish_room *room)
{
    uint64_t begun_ns = clock_mono_ns();
    bool told = false;
    struct cp_fence fence;
    while (!call->forwarded && !err_ok(cp_leader_fence(room->leader, &fence))) {
        struct err e = send_to_leader(call);
        if (err_ok(e)) {
            return true;
        }
        if (!told) {
            told = true;
            LOG(LOG_WARN, "api", "waits_for_a_leader", LOG_ERR(e),
                LOG_STR("request", call->request));
        }
        buf_clear(&call->answer);
        if (is_over(call, room, begun_ns)) {
            return false;
        }
        (void)poll(NULL, 0, LEADER_STEP_MS);
    }
    return false;
}

/* What is planned is at hand where it was planned: at the leader, which will publish it. */
static bool is_planned_elsewhere(struct cp_call *call, struct cp_publish_room *room)
{
    struct cp_fence fence;
    bool follows = !call->forwarded && !err_ok(cp_leader_fence(room->leader, &fence));
    if (call->kind != CP_CALL_PLAN || !follows) {
        return false;
    }
    if (err_ok(send_to_leader(call))) {
        return true;
    }
    buf_clear(&call->answer);
    return false;
}

static void write_answer(struct cp_call *call, struct err e, json_t *value)
{
    if (!err_ok(e) && json_object_get(value, "code") == NULL) {
        json_decref(value);
        value = cp_json_error(e, /* work= */ NULL);
    }
    call->status = (unsigned)err_http_status(e.code);
    struct err written = cp_json_write(value, &call->answer);
    if (!err_ok(written)) {
        buf_clear(&call->answer);
        call->status = (unsigned)err_http_status(written.code);
    }
}

static void answer_here(struct cp_call *call, struct cp_publish_room *room)
{
    json_t *value = NULL;
    struct err e = dispatch(call, room, &value);
    write_answer(call, e, value);
}

/* A removal holds at once, on any replica; publishing it is the publisher's, who may be at work.
 * True when it has gone on to him: from then on the call is his. */
static bool is_handed_on(struct cp_call *call, struct cp_publish_room *room)
{
    json_t *value = NULL;
    struct err e =
        cp_enrol_remove(call->registrar, room, buf_slice(&call->body), call->forwarded, &value);
    if (err_ok(e)) {
        call->begun = true;
        e = cp_worker_push(call->publisher, &call->task);
        if (err_ok(e)) {
            return true;
        }
    }
    write_answer(call, e, value);
    return false;
}

static void answer(struct cp_call *call, struct cp_publish_room *room)
{
    bool answered = cp_call_writes(call->kind) ? is_answered_elsewhere(call, room)
                                               : is_planned_elsewhere(call, room);
    if (!answered) {
        answer_here(call, room);
    }
}

static void run(struct cp_task *task, struct cp_publish_room *room)
{
    struct cp_call *call = (struct cp_call *)task;
    if (call->kind != CP_CALL_REMOVE || call->begun) {
        answer(call, room);
    } else if (is_handed_on(call, room)) {
        return;
    }
    struct err posted = net_loop_post(call->loop, &call->done);
    while (posted.code == E_QUEUE_FULL) {
        (void)poll(NULL, 0, POST_RETRY_MS);
        posted = net_loop_post(call->loop, &call->done);
    }
    if (!err_ok(posted)) { /* the loop has ended: nobody waits for the answer any more. */
        cp_call_free(call);
    }
}

static void finish(struct net_task *task, void *ctx)
{
    struct cp_call *call = ctx;
    (void)task;
    call->answered(call, call->ctx);
    cp_call_free(call);
}

static struct err take_request_id(struct cp_call *call, const struct http1_head *head)
{
    const struct http1_field *id = http1_find(head, SLICE_LIT("idempotency-key"));
    if (id == NULL) {
        uint8_t random[REQUEST_RANDOM];
        ids_random(random, sizeof(random));
        text_hex(slice_of(random, sizeof(random)), call->request);
        return OK;
    }
    for (size_t i = 0; i < id->value.size; i++) {
        if (id->value.ptr[i] <= 0x20 || id->value.ptr[i] >= 0x7f) {
            return FAIL(E_USAGE);
        }
    }
    if (id->value.size == 0 || id->value.size > CP_REQUEST_MAX) {
        return FAIL(E_USAGE);
    }
    (void)memcpy(call->request, id->value.ptr, id->value.size);
    return OK;
}

static struct err take_waited(struct cp_call *call, const struct http1_head *head)
{
    const struct http1_field *waited = http1_find(head, SLICE_LIT(CP_WAITED_HEADER));
    bool holds = waited == NULL ||
                 (slice_to_u64(waited->value, &call->waited_ms) && call->waited_ms <= UINT32_MAX);
    return holds ? OK : FAIL(E_USAGE);
}

static struct err take_head(struct cp_call *call, const struct http1_head *head)
{
    const struct http1_field *authorization = http1_find(head, SLICE_LIT("authorization"));
    call->forwarded = http1_find(head, SLICE_LIT(CP_FORWARDED_HEADER)) != NULL;
    TRY(take_request_id(call, head));
    TRY(take_waited(call, head));
    return authorization == NULL ? OK : buf_add(&call->authorization, authorization->value);
}

struct err cp_call_new(enum cp_call_kind kind, struct http1_exchange *exchange,
                       struct cp_call **out)
{
    struct cp_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    call->kind = kind;
    call->exchange = exchange;
    call->loop = net_conn_loop(http1_exchange_conn(exchange));
    call->task.run = run;
    call->done = (struct net_task){.fn = finish, .ctx = call};
    call->body = BUF_MAX(limits.api_body_bytes);
    call->answer = BUF_MAX(ANSWER_MAX);
    call->authorization = BUF_MAX(AUTHORIZATION_MAX);
    struct err e = take_head(call, http1_exchange_head(exchange));
    if (err_ok(e)) {
        e = buf_add(&call->body, http1_exchange_body(exchange));
    }
    if (!err_ok(e)) {
        cp_call_free(call);
        return e;
    }
    *out = call;
    return OK;
}

void cp_call_free(struct cp_call *call)
{
    sodium_memzero(call->authorization.ptr, call->authorization.size);
    buf_free(&call->authorization);
    buf_free(&call->body);
    buf_free(&call->answer);
    free(call);
}
