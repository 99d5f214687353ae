/* http1_answer: what a server writes. A head is written to a scratch buffer first: one that must
 * not be written leaves no half of it on the wire. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/net/http1_server_impl.h"

enum { CHUNK_OVERHEAD = HTTP1_CHUNK_HEAD_MAX + 2 + 5 }; /* with the end of chunk and of body. */

static bool is_ours(struct slice name)
{
    return slice_eq_nocase(name, SLICE_LIT("content-length")) ||
           slice_eq_nocase(name, SLICE_LIT("transfer-encoding")) ||
           slice_eq_nocase(name, SLICE_LIT("connection"));
}

static struct err write_fields(struct buf *out, const struct http1_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_ours(fields[i].name)) {
            return FAIL(E_USAGE);
        }
        TRY(http1_write_field(out, fields[i].name, fields[i].value));
    }
    return OK;
}

static struct err write_framing(const struct http1_exchange *x, unsigned status, uint64_t length)
{
    struct buf *out = &x->server->scratch;
    const struct http1_head *request = &x->server->parser.head;
    if (status >= 200 && status != 204 && status != 304) {
        if (length != HTTP1_LENGTH_UNKNOWN) {
            TRY(buf_addf(out, "content-length: %llu\r\n", (unsigned long long)length));
        } else if (x->chunked) {
            TRY(buf_add_str(out, "transfer-encoding: chunked\r\n"));
        }
    }
    if (x->close_after) {
        TRY(buf_add_str(out, "connection: close\r\n"));
    } else if (request->minor == 0) {
        TRY(buf_add_str(out, "connection: keep-alive\r\n"));
    }
    return http1_write_head_end(out);
}

/* Writes a final head into scratch, after deciding how its body is framed. */
static struct err answer_head(struct http1_exchange *x, unsigned status,
                              const struct http1_field *fields, size_t field_count, uint64_t length)
{
    struct http1_server *s = x->server;
    const struct http1_head *request = &s->parser.head;
    if (x->head_answered || net_conn_closing(s->conn)) {
        return FAIL(E_CLOSED);
    }
    if (status < 200) {
        return FAIL(E_USAGE);
    }
    x->bodiless = slice_eq(request->method, SLICE_LIT("HEAD")) || status == 204 || status == 304;
    x->chunked = length == HTTP1_LENGTH_UNKNOWN && request->minor > 0;
    /* A caller who waits for 100 and does not get it may, or may not, send the body. */
    x->close_after |= !request->keep_alive || s->draining || x->continue_due || s->eof ||
                      (length == HTTP1_LENGTH_UNKNOWN && !x->chunked && !x->bodiless);
    x->left = length;
    buf_clear(&s->scratch);
    TRY(http1_write_status_line(&s->scratch, status));
    TRY(write_fields(&s->scratch, fields, field_count));
    return write_framing(x, status, length);
}

/* The answer is whole. */
static void answer_end(struct http1_exchange *x)
{
    struct http1_server *s = x->server;
    x->answer_done = true;
    if (x->continue_due) { /* the body that was not asked for is not waited for. */
        x->request_done = true;
    }
    if (x->paused) { /* what is left of the request is read and dropped. */
        x->paused = false;
    }
    net_hook_queue(net_conn_loop(s->conn), &s->hook);
}

bool http1_answer_pump(struct http1_exchange *x)
{
    struct net_conn *conn = x->server->conn;
    struct slice left = slice_from(buf_slice(&x->rest), x->rest_at);
    if (left.size == 0) {
        return true;
    }
    struct slice part = slice_head(left, net_conn_room(conn));
    if (!err_ok(net_conn_write(conn, part))) {
        return false; /* it is ending: closed() comes. */
    }
    x->rest_at += part.size;
    if (part.size < left.size) {
        net_conn_want_drained(conn);
        return false;
    }
    buf_free(&x->rest); /* it may have been large. */
    x->rest_at = 0;
    answer_end(x);
    return true;
}

struct err http1_respond(struct http1_exchange *x, unsigned status,
                         const struct http1_field *fields, size_t field_count, struct slice body)
{
    struct net_conn *conn = x->server->conn;
    TRY(answer_head(x, status, fields, field_count, body.size));
    struct slice head = buf_slice(&x->server->scratch);
    struct slice sent = x->bodiless ? (struct slice){0} : body;
    size_t room = net_conn_room(conn);
    if (head.size > room) {
        return FAIL(E_TOO_LARGE);
    }
    struct slice now = slice_head(sent, room - head.size);
    TRY(buf_add(&x->rest, slice_from(sent, now.size)));
    struct err failed = net_conn_write(conn, head);
    if (err_ok(failed)) {
        failed = net_conn_write(conn, now);
    }
    if (!err_ok(failed)) { /* half an answer would be taken for a whole one. */
        net_conn_abort(conn, failed);
        return failed;
    }
    x->head_answered = true;
    if (x->rest.size == 0) {
        answer_end(x);
    } else {
        net_conn_want_drained(conn);
    }
    return OK;
}

/* All come from ERR_LIST, and ids are letters and digits: nothing in them needs escaping. */
static struct err error_body(struct buf *out, struct err why, const struct http1_refusal *more)
{
    TRY(buf_addf(out, "{\"code\":\"%s\",\"message\":\"%s\",\"fix\":\"%s\"", err_name(why.code),
                 err_text(why.code), err_fix(why.code)));
    if (more->explain.size > 0) {
        TRY(buf_addf(out, ",\"explain\":\"%.*s\"", SLICE_ARG(more->explain)));
    }
    if (more->version != 0) {
        TRY(buf_addf(out, ",\"version\":%" PRIu64, more->version));
    }
    return buf_add_str(out, "}\n");
}

static struct err answer_error(struct http1_exchange *x, unsigned status, struct err why,
                               const struct http1_refusal *more)
{
    enum { BODY_MAX = 1024, FIELDS = 5, NUMBER_MAX = 24 };
    auto_buf struct buf body = BUF_MAX(BODY_MAX);
    char version[NUMBER_MAX];
    struct http1_field fields[FIELDS];
    size_t n = 0;
    TRY(error_body(&body, why, more));
    fields[n++] = (struct http1_field){SLICE_LIT("content-type"), SLICE_LIT("application/json")};
    fields[n++] = (struct http1_field){SLICE_LIT("x-trilane-code"), slice_str(err_name(why.code))};
    if (more->allow.size > 0) {
        fields[n++] = (struct http1_field){SLICE_LIT("allow"), more->allow};
    }
    if (more->explain.size > 0) {
        fields[n++] = (struct http1_field){SLICE_LIT("x-trilane-explain"), more->explain};
    }
    if (more->version != 0) {
        (void)snprintf(version, sizeof(version), "%" PRIu64, more->version);
        fields[n++] = (struct http1_field){SLICE_LIT("x-trilane-version"), slice_str(version)};
    }
    return http1_respond(x, status, fields, n, buf_slice(&body));
}

struct err http1_respond_error(struct http1_exchange *x, struct err why,
                               const struct http1_refusal *more)
{
    const struct http1_refusal nothing = {0};
    return answer_error(x, (unsigned)err_http_status(why.code), why,
                        more == NULL ? &nothing : more);
}

void http1_answer_refusal(struct http1_exchange *x, unsigned status, struct err why,
                          const struct http1_refusal *more)
{
    x->close_after = true;
    if (!err_ok(answer_error(x, status, why, more))) {
        net_conn_abort(x->server->conn, why);
    }
}

struct err http1_respond_head(struct http1_exchange *x, unsigned status,
                              const struct http1_field *fields, size_t field_count, uint64_t length)
{
    TRY(answer_head(x, status, fields, field_count, length));
    TRY(net_conn_write(x->server->conn, buf_slice(&x->server->scratch)));
    x->head_answered = true;
    return OK;
}

struct err http1_respond_interim(struct http1_exchange *x, unsigned status,
                                 const struct http1_field *fields, size_t field_count)
{
    struct buf *out = &x->server->scratch;
    if (x->head_answered) {
        return FAIL(E_CLOSED);
    }
    if (status < 102 || status > 199) {
        return FAIL(E_USAGE);
    }
    if (x->server->parser.head.minor == 0) {
        return OK; /* RFC 9110, 15.2: never to 1.0. */
    }
    buf_clear(out);
    TRY(http1_write_status_line(out, status));
    TRY(write_fields(out, fields, field_count));
    TRY(http1_write_head_end(out));
    return net_conn_write(x->server->conn, buf_slice(out));
}

size_t http1_respond_room(const struct http1_exchange *x)
{
    size_t room = net_conn_room(x->server->conn);
    size_t overhead = x->chunked ? CHUNK_OVERHEAD : 0;
    return room > overhead ? room - overhead : 0;
}

void http1_exchange_want_drained(struct http1_exchange *x)
{
    x->want_drained = true;
    net_conn_want_drained(x->server->conn);
}

static struct err write_chunk(struct net_conn *conn, struct slice bytes)
{
    char head[HTTP1_CHUNK_HEAD_MAX + 1];
    size_t size = http1_chunk_head(bytes.size, head);
    struct err failed = net_conn_write(conn, slice_of(head, size));
    if (err_ok(failed)) {
        failed = net_conn_write(conn, bytes);
    }
    return err_ok(failed) ? net_conn_write(conn, SLICE_LIT("\r\n")) : failed;
}

struct err http1_respond_body(struct http1_exchange *x, struct slice bytes)
{
    struct net_conn *conn = x->server->conn;
    if (!x->head_answered || x->answer_done || net_conn_closing(conn)) {
        return FAIL(E_CLOSED);
    }
    bool counted = x->left != HTTP1_LENGTH_UNKNOWN;
    if (counted && bytes.size > x->left) {
        return FAIL(E_TOO_LARGE);
    }
    if (bytes.size > http1_respond_room(x) && !x->bodiless) {
        http1_exchange_want_drained(x);
        return FAIL(E_TOO_LARGE);
    }
    x->left -= counted ? bytes.size : 0;
    if (x->bodiless || bytes.size == 0) { /* an empty chunk would end the body. */
        return OK;
    }
    struct err failed = x->chunked ? write_chunk(conn, bytes) : net_conn_write(conn, bytes);
    if (!err_ok(failed)) {
        net_conn_abort(conn, failed);
    }
    return failed;
}

static struct err write_last_chunk(struct http1_exchange *x, const struct http1_field *trailers,
                                   size_t count)
{
    struct buf *out = &x->server->scratch;
    buf_clear(out);
    TRY(buf_add_str(out, "0\r\n"));
    TRY(write_fields(out, trailers, count));
    TRY(http1_write_head_end(out));
    return net_conn_write(x->server->conn, buf_slice(out));
}

struct err http1_respond_end(struct http1_exchange *x, const struct http1_field *trailers,
                             size_t count)
{
    struct net_conn *conn = x->server->conn;
    if (!x->head_answered || x->answer_done || net_conn_closing(conn)) {
        return FAIL(E_CLOSED);
    }
    if (x->left != HTTP1_LENGTH_UNKNOWN && x->left > 0 && !x->bodiless) {
        net_conn_abort(conn, FAIL(E_PROTOCOL_ERROR));
        return FAIL(E_PROTOCOL_ERROR);
    }
    if (x->chunked && !x->bodiless) {
        TRY(write_last_chunk(x, trailers, count));
    }
    answer_end(x);
    return OK;
}

bool http1_exchange_answered(const struct http1_exchange *x)
{
    return x->head_answered;
}

bool http1_exchange_done(const struct http1_exchange *x)
{
    return x->answer_done;
}

static struct err take_head(struct http1_exchange *x, unsigned status,
                            const struct http1_field *fields, size_t field_count)
{
    struct buf *out = &x->server->scratch;
    if (x->head_answered || net_conn_closing(x->server->conn)) {
        return FAIL(E_CLOSED);
    }
    buf_clear(out);
    TRY(http1_write_status_line(out, status));
    TRY(write_fields(out, fields, field_count));
    if (status == 101) {
        TRY(buf_add_str(out, "connection: upgrade\r\n"));
    }
    return http1_write_head_end(out);
}

struct err http1_exchange_take_conn(struct http1_exchange *x, unsigned status,
                                    const struct http1_field *fields, size_t field_count,
                                    struct net_conn **out_conn, struct buf *early)
{
    struct http1_server *s = x->server;
    struct net_conn *conn = s->conn;
    struct slice behind = s->parsing ? s->input : buf_slice(&s->pending);
    size_t early_before = early->size;
    TRY(take_head(x, status, fields, field_count));
    TRY(buf_add(early, behind));
    struct err failed = net_conn_write(conn, buf_slice(&s->scratch));
    if (!err_ok(failed)) {
        early->size = early_before;
        return failed;
    }
    struct net_loop *loop = net_conn_loop(conn);
    net_timer_cancel(loop, &s->timer);
    net_hook_cancel(loop, &s->hook);
    net_conn_set_handler(conn, NULL, NULL);
    net_conn_resume(conn);
    s->released = true;
    s->conn = NULL;
    s->input = (struct slice){0};
    *out_conn = conn;
    if (!s->parsing) {
        http1_server_free(s);
    }
    return OK;
}
