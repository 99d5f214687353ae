/* reflection: see reflection.h. The call top to bottom, then what is asked for. */
#include "dataplane/runtime/reflection.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "common/proto/reflection.h"
#include "dataplane/apply/decode.h"
#include "dataplane/request/request.h"

/* A request is a name; an answer is what clients take by default; names looked at in a turn. */
enum { REQUEST_MAX = 4096, ANSWER_MAX = 4 << 20, PATH_MAX_BYTES = 1024, NAMES_A_TURN = 64 };

/* A list that is being made. */
struct listing {
    struct slice *names; /* all that are registered, borrowed of the model; owned. */
    size_t count;
    size_t capacity;
    size_t at;   /* the next one to look at. */
    size_t kept; /* of those before it: what is shown stands in front. */
    struct buf asked;
    struct reflection_request request; /* borrowed of 'asked'. */
    bool open;
};

struct reflection {
    struct dp_request *rq;
    struct grpc_reader reader;
    struct buf held; /* what came and was not read yet: of the stream's window. */
    struct buf out;  /* what does not fit into the stream's queue. */
    struct listing listing;
    struct net_timer timer; /* armed: an answer was given in this turn, or a list goes on. */
    bool ended;             /* the caller's side is whole. */
};

static const struct h2_stream_events events;

static void next_turn(struct net_timer *timer, void *ctx);
static void pump(struct reflection *r);
static MUST_CHECK struct err answer(struct reflection *r, struct slice message);
static MUST_CHECK struct err list_some(struct reflection *r);
static MUST_CHECK struct err list_again(struct reflection *r);

bool dp_reflection_serves(struct slice service)
{
    return slice_eq(service, SLICE_LIT("grpc.reflection.v1.ServerReflection")) ||
           slice_eq(service, SLICE_LIT("grpc.reflection.v1alpha.ServerReflection"));
}

/* ---- the lane ---- */

static struct err route(struct dp_request *rq)
{
    if (!slice_ends(rq->in.path, SLICE_LIT("/ServerReflectionInfo"))) {
        return FAIL(E_NO_ROUTE);
    }
    rq->deferred = true;
    rq->verb = DP_VERB_CALL;
    rq->method = rq->in.path;
    return OK;
}

static struct err forward(struct dp_request *rq)
{
    void *memory = NULL;
    CHECK(rq->stream != NULL);
    TRY(arena_calloc(&rq->arena, 1, sizeof(struct reflection), &memory));
    struct reflection *r = memory;
    r->rq = rq;
    r->held = BUF_MAX((size_t)limits.stream_buffer_bytes);
    r->out = BUF_MAX(ANSWER_MAX + GRPC_PREFIX_BYTES);
    r->listing.asked = BUF_MAX(REQUEST_MAX);
    r->ended = h2_stream_received_end(rq->stream);
    grpc_reader_init(&r->reader, REQUEST_MAX);
    net_timer_init(&r->timer, next_turn, r);
    rq->lane_state = r;
    h2_stream_attach(rq->stream, &events, r);
    pump(r);
    return OK;
}

static void let_go(struct reflection *r)
{
    net_timer_cancel(r->rq->pool->loop, &r->timer);
    grpc_reader_free(&r->reader);
    buf_free(&r->held);
    buf_free(&r->out);
    buf_free(&r->listing.asked);
    free(r->listing.names);
    r->rq->lane_state = NULL;
}

/* Ends with a refusal of ours: by the front, or as trailers of an answer that began. */
static void fail(struct reflection *r, struct err why)
{
    struct dp_request *rq = r->rq;
    let_go(r);
    if (!rq->answered) {
        dp_request_fail(rq, why);
        return;
    }
    if (!rq->caller_gone) {
        const struct grpc_refusal refusal = {.code = why.code,
                                             .explain = dp_request_explain(rq),
                                             .version = dp_model_version(rq->model)};
        grpc_refuse(rq->stream, &refusal);
        rq->grpc_status = err_grpc_status(why.code);
    }
    dp_request_done(rq, why);
}

static void abort_call(struct dp_request *rq, struct err why)
{
    fail(rq->lane_state, why);
}

/* What is shown is asked of the model in force each time; a list begins anew. */
static struct err redecide(struct dp_request *rq)
{
    struct reflection *r = rq->lane_state;
    return r->listing.open ? list_again(r) : OK;
}

const struct dp_lane dp_reflection_lane = {.id = DP_LANE_OPERATOR,
                                           .name = "operator",
                                           .route = route,
                                           .forward = forward,
                                           .abort = abort_call,
                                           .redecide = redecide};

/* ---- output ---- */

/* As much as the stream takes now; a filled one says 'writable'. */
static MUST_CHECK struct err flush(struct reflection *r)
{
    struct h2_stream *s = r->rq->stream;
    size_t queued = h2_stream_queued(s);
    CHECK(queued <= limits.stream_buffer_bytes);
    struct slice part = slice_head(buf_slice(&r->out), (size_t)limits.stream_buffer_bytes - queued);
    if (part.size > 0) {
        TRY(h2_stream_send(s, part, /* end= */ false));
    }
    buf_drop(&r->out, part.size);
    return OK;
}

static MUST_CHECK struct err send(struct reflection *r, struct slice message)
{
    uint8_t prefix[GRPC_PREFIX_BYTES];
    TRY(dp_caller_begin_grpc(r->rq));
    grpc_prefix_write((uint32_t)message.size, prefix);
    TRY(buf_add(&r->out, slice_of(prefix, sizeof(prefix))));
    TRY(buf_add(&r->out, message));
    r->rq->response_bytes += message.size + sizeof(prefix);
    return flush(r);
}

static MUST_CHECK struct err finish(struct reflection *r)
{
    struct dp_request *rq = r->rq;
    const struct h2_field status = h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0"));
    TRY(grpc_scan_end(&r->reader.scan));
    TRY(dp_caller_begin_grpc(rq));
    TRY(h2_stream_trailers(rq->stream, &status, 1));
    rq->grpc_status = 0;
    let_go(r);
    dp_request_done(rq, OK);
    return OK;
}

/* ---- input ---- */

/* The next request of what came; its bytes are the caller's to send again. */
static MUST_CHECK struct err read_one(struct reflection *r)
{
    struct slice in = buf_slice(&r->held);
    struct slice message = {0};
    size_t before = in.size;
    bool found = false;
    TRY(grpc_reader_next(&r->reader, &in, &message, &found));
    if (found) {
        TRY(answer(r, message));
    }
    buf_drop(&r->held, before - in.size);
    h2_stream_consume(r->rq->stream, before - in.size);
    return OK;
}

/* Answers requests as they come: one a turn, and not before the answer to the last one has left.
 * *out_over is true when the call ended. */
static MUST_CHECK struct err read_on(struct reflection *r, bool *out_over)
{
    while (r->held.size > 0 && r->out.size == 0 && !net_timer_armed(&r->timer)) {
        TRY(read_one(r));
    }
    if (r->ended && r->held.size == 0 && r->out.size == 0 && !r->listing.open) {
        *out_over = true;
        return finish(r);
    }
    return OK;
}

static void next_turn(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct reflection *r = ctx;
    struct err e = r->listing.open ? list_some(r) : OK;
    if (err_ok(e)) {
        pump(r);
    } else {
        fail(r, e);
    }
}

static void pump(struct reflection *r)
{
    bool over = false;
    struct err e = read_on(r, &over);
    if (!err_ok(e)) {
        fail(r, e);
    }
}

static void data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct reflection *r = h2_stream_user(s);
    r->rq->request_bytes += bytes.size;
    r->ended = r->ended || end;
    struct err e = buf_add(&r->held, bytes);
    if (err_ok(e)) {
        pump(r);
    } else {
        fail(r, e);
    }
}

static void trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields;
    data(s, (struct slice){0}, /* end= */ true);
}

static void writable(struct h2_stream *s)
{
    struct reflection *r = h2_stream_user(s);
    struct err e = flush(r);
    if (err_ok(e)) {
        pump(r);
    } else {
        fail(r, e);
    }
}

static void reset(struct h2_stream *s, struct h2_reset why)
{
    (void)why;
    struct reflection *r = h2_stream_user(s);
    dp_request_cancel(r->rq);
}

static const struct h2_stream_events events = {
    .data = data, .trailers = trailers, .writable = writable, .reset = reset};

/* ---- what the caller may see ---- */

/* As a call would be routed; one that a header which is there twice decides is refused. */
static const struct dp_route *find_route(struct dp_request *rq, struct slice path)
{
    const struct dp_route_query query = {.host = rq->in.host,
                                         .path = path,
                                         .method = rq->in.http_method,
                                         .tenant = rq->caller->tenant,
                                         .header = rq->in.header,
                                         .ctx = rq->in.header_ctx};
    rq->in.header_repeated = false;
    const struct dp_route *found = dp_model_route(rq->model, &query);
    return rq->in.header_repeated ? NULL : found;
}

/* Whether one of the clusters that a path is routed to lets the caller call it. */
static bool may_reach(struct dp_request *rq, struct slice path)
{
    const struct dp_route *found = find_route(rq, path);
    for (size_t i = 0; found != NULL && i < found->target_count; i++) {
        const struct dp_cluster *c = dp_model_cluster(rq->model, found->targets[i].cluster);
        if (dp_request_may(rq, &c->target, DP_VERB_CALL, path, /* cached= */ false)) {
            return true;
        }
    }
    return false;
}

/* Whether a method of the service, whose path is "/package.Service/", may be called. */
static bool may_reach_one(struct dp_request *rq, const struct dp_descriptors *d,
                          struct slice service)
{
    for (size_t i = 0; i < d->method_count; i++) {
        if (slice_starts(d->methods[i], service) && may_reach(rq, d->methods[i])) {
            return true;
        }
    }
    return false;
}

static bool shows(struct dp_request *rq, struct slice name)
{
    char room[PATH_MAX_BYTES];
    int size = snprintf(room, sizeof(room), "/%.*s/", SLICE_ARG(name));
    if (size < 0 || (size_t)size >= sizeof(room)) {
        return false;
    }
    struct slice path = slice_of(room, (size_t)size);
    const struct dp_route *found = find_route(rq, path);
    for (size_t i = 0; found != NULL && i < found->target_count; i++) {
        const struct dp_descriptors *d = dp_model_descriptors(rq->model, found->targets[i].cluster);
        if (d != NULL && may_reach_one(rq, d, path)) {
            return true;
        }
    }
    return may_reach(rq, path);
}

/* ---- files ---- */

/* A file that is asked for by its own name or by that of what it defines. */
struct search {
    struct dp_request *rq;
    const struct reflection_request *request;
    const struct dp_descriptors *of; /* NULL: not found. */
    size_t file;                     /* its index in 'of'. */
};

static bool shows_any(struct dp_request *rq, const struct dp_descriptors *d)
{
    const struct dp_cluster *cluster = dp_model_cluster(rq->model, d->cluster);
    CHECK(cluster != NULL); /* the model was judged by it. */
    for (size_t i = 0; i < cluster->grpc_service_count; i++) {
        if (shows(rq, cluster->grpc_services[i])) {
            return true;
        }
    }
    return false;
}

static bool is_asked_for(const struct reflection_request *request,
                         const struct dp_descriptor_file *file)
{
    return request->ask == REFLECTION_FILE
               ? slice_eq(file->name, request->name)
               : dp_decode_has(file->symbols, file->symbol_count, request->name);
}

/* E_EXISTS ends the walk. */
static struct err look_into(void *ctx, const struct dp_descriptors *d)
{
    struct search *search = ctx;
    for (size_t i = 0; i < d->file_count; i++) {
        if (is_asked_for(search->request, &d->files[i]) && shows_any(search->rq, d)) {
            search->of = d;
            search->file = i;
            return FAIL(E_EXISTS);
        }
    }
    return OK;
}

static size_t file_index(const struct dp_descriptors *d, struct slice name)
{
    size_t i = 0;
    while (!slice_eq(d->files[i].name, name)) { /* ends: imports are among the files. */
        i++;
    }
    return i;
}

/* The file, then all that it imports, each once; 'order' has room for all of them. */
static size_t with_imports(const struct dp_descriptors *d, size_t file, size_t *order, bool *met)
{
    size_t count = 0;
    order[count++] = file;
    met[file] = true;
    for (size_t i = 0; i < count; i++) {
        const struct dp_descriptor_file *f = &d->files[order[i]];
        for (size_t k = 0; k < f->import_count; k++) {
            size_t import = file_index(d, f->imports[k]);
            if (!met[import]) {
                met[import] = true;
                order[count++] = import;
            }
        }
    }
    return count;
}

/* Lists of one search, freed together. */
struct gathered {
    size_t *order;
    bool *met;
    struct slice *files;
};

static void gathered_free(struct gathered *g)
{
    free(g->order);
    free(g->met);
    free(g->files);
}

#define auto_gathered __attribute__((cleanup(gathered_free)))

static MUST_CHECK struct err add_found(const struct search *search, struct buf *body)
{
    const struct dp_descriptors *d = search->of;
    auto_gathered struct gathered g = {.order = calloc(d->file_count, sizeof(size_t)),
                                       .met = calloc(d->file_count, sizeof(bool)),
                                       .files = calloc(d->file_count, sizeof(struct slice))};
    if (g.order == NULL || g.met == NULL || g.files == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    size_t count = with_imports(d, search->file, g.order, g.met);
    for (size_t i = 0; i < count; i++) {
        g.files[i] = d->files[g.order[i]].bytes;
    }
    return reflection_add_files(body, g.files, count);
}

static MUST_CHECK struct err add_file(struct reflection *r,
                                      const struct reflection_request *request, struct buf *body)
{
    struct search search = {.rq = r->rq, .request = request};
    struct err e = dp_model_each_descriptors(r->rq->model, look_into, &search);
    if (search.of != NULL) {
        return add_found(&search, body);
    }
    TRY(e);
    char text[PATH_MAX_BYTES];
    (void)snprintf(text, sizeof(text), "%s not found",
                   request->ask == REFLECTION_FILE ? "file" : "symbol");
    return reflection_add_error(body, GRPC_NOT_FOUND, slice_str(text));
}

/* ---- answers ---- */

static MUST_CHECK struct err add_answer(struct reflection *r,
                                        const struct reflection_request *request, struct buf *body)
{
    switch (request->ask) {
    case REFLECTION_FILE:
    case REFLECTION_SYMBOL:
        return add_file(r, request, body);
    case REFLECTION_LIST:
        return reflection_add_services(body, r->listing.names, r->listing.kept);
    case REFLECTION_EXTENSION:
    case REFLECTION_EXTENSIONS:
        return reflection_add_error(body, GRPC_UNIMPLEMENTED,
                                    SLICE_LIT("extensions are not looked up"));
    case REFLECTION_NOTHING:
        return reflection_add_error(body, GRPC_INVALID_ARGUMENT, SLICE_LIT("nothing is asked for"));
    }
    return OK;
}

static MUST_CHECK struct err respond(struct reflection *r, struct slice message,
                                     const struct reflection_request *request)
{
    auto_buf struct buf body = BUF_MAX(ANSWER_MAX);
    TRY(reflection_add_asked(&body, message, request));
    size_t head = body.size;
    struct err e = add_answer(r, request, &body);
    if (e.code == E_TOO_LARGE) {
        body.size = head;
        e = reflection_add_error(&body, GRPC_RESOURCE_EXHAUSTED,
                                 SLICE_LIT("the answer is larger than 4 MiB"));
    }
    TRY(e);
    net_timer_arm(r->rq->pool->loop, &r->timer, 1);
    return send(r, buf_slice(&body));
}

/* ---- a list, over turns ---- */

static struct err take_name(void *ctx, struct slice name)
{
    struct listing *l = ctx;
    TRY(array_room(&l->names, l->count, &l->capacity, sizeof(*l->names)));
    l->names[l->count++] = name;
    return OK;
}

static struct err list_again(struct reflection *r)
{
    struct listing *l = &r->listing;
    l->open = true;
    l->count = 0;
    l->at = 0;
    l->kept = 0;
    TRY(dp_model_each_grpc_service(r->rq->model, take_name, l));
    net_timer_arm(r->rq->pool->loop, &r->timer, 1);
    return OK;
}

static int name_cmp(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static MUST_CHECK struct err list_some(struct reflection *r)
{
    struct listing *l = &r->listing;
    for (size_t i = 0; i < NAMES_A_TURN && l->at < l->count; i++) {
        struct slice name = l->names[l->at++];
        if (shows(r->rq, name)) {
            l->names[l->kept++] = name;
        }
    }
    if (l->at < l->count) {
        net_timer_arm(r->rq->pool->loop, &r->timer, 1);
        return OK;
    }
    if (l->kept > 0) {
        qsort(l->names, l->kept, sizeof(*l->names), name_cmp);
    }
    l->open = false;
    return respond(r, buf_slice(&l->asked), &l->request);
}

static MUST_CHECK struct err answer(struct reflection *r, struct slice message)
{
    struct reflection_request request = {0};
    TRY(reflection_read(message, &request));
    if (request.ask != REFLECTION_LIST) {
        return respond(r, message, &request);
    }
    buf_clear(&r->listing.asked);
    TRY(buf_add(&r->listing.asked, message));
    TRY(reflection_read(buf_slice(&r->listing.asked), &r->listing.request));
    return list_again(r);
}
