/* ws: see ws.h. */
#include "common/net/ws.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <wslay/wslay.h>

#include "common/base/check.h"
#include "common/net/http1.h"

/* Answers to pings that wait for a peer who does not read. */
enum { PONGS_MAX = 8 };

/* A key is 16 bytes in base64 (RFC 6455, 4.1). */
enum { KEY_SIZE = 24, SHA1_SIZE = 20 };

struct ws {
    wslay_event_context_ptr library;
    const struct ws_handler *handler;
    void *ctx;
    struct slice input;   /* what is being read. */
    uint64_t message_max; /* of one message. */
    uint64_t message;     /* bytes of the present one. */
    bool is_control;      /* the present frame. */
    bool is_last;         /* the present frame ends its message. */
    bool closed;          /* a close was queued by us: nothing more is read or shown. */
};

/* ---- the handshake ---- */

/* The value of a field that is there once. */
static bool find_once(const struct http1_head *head, struct slice name, struct slice *out)
{
    size_t count = 0;
    for (size_t i = 0; i < head->field_count; i++) {
        if (slice_eq(head->fields[i].name, name)) {
            *out = head->fields[i].value;
            count++;
        }
    }
    return count == 1;
}

static bool is_base64(uint8_t c)
{
    uint8_t lower = c | 0x20;
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

static bool is_key(struct slice key)
{
    bool well = key.size == KEY_SIZE && slice_ends(key, SLICE_LIT("=="));
    for (size_t i = 0; well && i < KEY_SIZE - 2; i++) {
        well = is_base64(key.ptr[i]);
    }
    return well;
}

/* base64(SHA-1(key and a GUID)): it only shows that the request was read as a WebSocket's. */
static void accept_key(struct slice key, char accept[WS_ACCEPT_SIZE + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t joined[KEY_SIZE + sizeof(guid) - 1];
    uint8_t digest[SHA1_SIZE];
    unsigned size = 0;
    memcpy(joined, key.ptr, KEY_SIZE);
    memcpy(joined + KEY_SIZE, guid, sizeof(guid) - 1);
    CHECK(EVP_Digest(joined, sizeof(joined), digest, &size, EVP_sha1(), NULL) == 1);
    CHECK(size == SHA1_SIZE);
    CHECK(EVP_EncodeBlock((unsigned char *)accept, digest, SHA1_SIZE) == WS_ACCEPT_SIZE);
}

enum ws_ask ws_judge(const struct http1_head *head, struct slice protocol,
                     char accept[WS_ACCEPT_SIZE + 1])
{
    struct slice key = {0};
    struct slice version = {0};
    if (!head->upgrade || !http1_has_token(head, SLICE_LIT("upgrade"), SLICE_LIT("websocket"))) {
        return WS_ASK_NONE;
    }
    if (find_once(head, SLICE_LIT("sec-websocket-version"), &version) &&
        !slice_eq(version, SLICE_LIT("13"))) {
        return WS_ASK_VERSION;
    }
    bool well = slice_eq(head->method, SLICE_LIT("GET")) && head->framing == HTTP1_NO_BODY &&
                version.size > 0 && find_once(head, SLICE_LIT("sec-websocket-key"), &key) &&
                is_key(key) && http1_has_token(head, SLICE_LIT("sec-websocket-protocol"), protocol);
    if (!well) {
        return WS_ASK_WRONG;
    }
    accept_key(key, accept);
    return WS_ASK_WELL;
}

/* ---- what the library asks for ---- */

static ssize_t take_input(wslay_event_context_ptr library, uint8_t *buf, size_t size, int flags,
                          void *ctx)
{
    (void)flags;
    struct ws *ws = ctx;
    struct slice part = slice_head(ws->input, size);
    if (part.size == 0) {
        wslay_event_set_error(library, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    memcpy(buf, part.ptr, part.size);
    ws->input = slice_from(ws->input, part.size);
    return (ssize_t)part.size;
}

static ssize_t give_output(wslay_event_context_ptr library, const uint8_t *bytes, size_t size,
                           int flags, void *ctx)
{
    (void)flags;
    struct ws *ws = ctx;
    struct slice part = slice_head(slice_of(bytes, size), ws->handler->room(ws->ctx));
    if (part.size == 0) {
        wslay_event_set_error(library, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    if (!err_ok(ws->handler->write(ws->ctx, part))) {
        wslay_event_set_error(library, WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
    }
    return (ssize_t)part.size;
}

/*
 * Whether an answer to a ping has a place. The library queues each and takes none back; control
 * frames leave first, so what waits beside them is one message at most.
 */
static bool has_place_for_pong(struct ws *ws)
{
    return wslay_event_get_queued_msg_count(ws->library) < PONGS_MAX ||
           (err_ok(ws_flush(ws)) && wslay_event_get_queued_msg_count(ws->library) < PONGS_MAX);
}

static void frame_began(wslay_event_context_ptr library,
                        const struct wslay_event_on_frame_recv_start_arg *arg, void *ctx)
{
    (void)library;
    struct ws *ws = ctx;
    ws->is_control = wslay_is_ctrl_frame(arg->opcode);
    ws->is_last = arg->fin != 0;
    bool costs = ws->is_control || (arg->payload_length == 0 && !ws->is_last);
    bool unread = arg->opcode == WSLAY_PING && !has_place_for_pong(ws);
    if (unread || (costs && !ws->handler->control(ws->ctx))) {
        ws_close(ws, WS_POLICY);
        return;
    }
    if (ws->is_control) {
        return;
    }
    if (arg->opcode == WSLAY_TEXT_FRAME) {
        ws_close(ws, WS_UNSUPPORTED);
        return;
    }
    if (arg->opcode != WSLAY_CONTINUATION_FRAME) {
        ws->message = 0;
    }
    if (arg->payload_length > ws->message_max - ws->message) {
        ws_close(ws, WS_TOO_BIG);
        return;
    }
    ws->message += arg->payload_length;
}

static void frame_bytes(wslay_event_context_ptr library,
                        const struct wslay_event_on_frame_recv_chunk_arg *arg, void *ctx)
{
    (void)library;
    struct ws *ws = ctx;
    if (!ws->is_control && !ws->closed && arg->data_length > 0) {
        ws->handler->data(ws->ctx, slice_of(arg->data, arg->data_length), /* end= */ false);
    }
}

static void frame_ended(wslay_event_context_ptr library, void *ctx)
{
    (void)library;
    struct ws *ws = ctx;
    if (!ws->is_control && !ws->closed && ws->is_last) {
        ws->handler->data(ws->ctx, (struct slice){0}, /* end= */ true);
    }
}

/* ---- frames ---- */

struct err ws_new(const struct ws_handler *handler, void *ctx, uint64_t message_max,
                  struct ws **out)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = take_input,
        .send_callback = give_output,
        .on_frame_recv_start_callback = frame_began,
        .on_frame_recv_chunk_callback = frame_bytes,
        .on_frame_recv_end_callback = frame_ended,
    };
    struct ws *ws = calloc(1, sizeof(*ws));
    if (ws == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    ws->handler = handler;
    ws->ctx = ctx;
    ws->message_max = message_max;
    if (wslay_event_context_server_init(&ws->library, &callbacks, ws) != 0) {
        free(ws);
        return FAIL(E_NO_MEMORY);
    }
    wslay_event_config_set_no_buffering(ws->library, 1);
    wslay_event_config_set_max_recv_msg_length(ws->library, message_max);
    *out = ws;
    return OK;
}

void ws_free(struct ws *ws)
{
    if (ws != NULL) {
        wslay_event_context_free(ws->library);
        free(ws);
    }
}

struct err ws_read(struct ws *ws, struct slice bytes)
{
    if (ws->closed || wslay_event_get_read_enabled(ws->library) == 0) {
        return FAIL(E_CLOSED);
    }
    ws->input = bytes;
    int failed = wslay_event_recv(ws->library);
    ws->input = (struct slice){0};
    if (failed == WSLAY_ERR_NOMEM) {
        return FAIL(E_NO_MEMORY);
    }
    bool reads = failed == 0 && !ws->closed && wslay_event_get_read_enabled(ws->library) != 0;
    return reads ? OK : FAIL(E_CLOSED);
}

struct err ws_send(struct ws *ws, struct slice message)
{
    const struct wslay_event_msg binary = {
        .opcode = WSLAY_BINARY_FRAME, .msg = message.ptr, .msg_length = message.size};
    switch (wslay_event_queue_msg(ws->library, &binary)) {
    case 0:
        return ws_flush(ws);
    case WSLAY_ERR_NOMEM:
        return FAIL(E_NO_MEMORY);
    default:
        return FAIL(E_CLOSED);
    }
}

void ws_close(struct ws *ws, enum ws_code code)
{
    if (!ws->closed) {
        ws->closed = true;
        /* Fails when the library closes already, or has no memory: then the connection just ends.
         */
        (void)wslay_event_queue_close(ws->library, (uint16_t)code, NULL, 0);
        wslay_event_shutdown_read(ws->library);
    }
}

struct err ws_flush(struct ws *ws)
{
    return wslay_event_send(ws->library) == 0 ? OK : FAIL(E_CLOSED);
}

bool ws_waits(const struct ws *ws)
{
    return wslay_event_want_write(ws->library) != 0;
}
