/* http1_server_impl: what http1_server.c (requests) and http1_answer.c (answers) share. */
#pragma once

#include "common/base/buf.h"
#include "common/net/http1_server.h"

/* What the timer waits for. */
enum http1_wait { HTTP1_WAIT_REQUEST, HTTP1_WAIT_HEAD, HTTP1_WAIT_BODY, HTTP1_WAIT_ANSWER };

struct http1_exchange {
    struct http1_server *server;
    void *user;
    bool active;       /* from head() to gone(). */
    bool request_done; /* all of the request came, or will not be read any more. */
    bool paused;       /* by the handler. */
    bool continue_due; /* the caller waits for 100. */
    bool holds;        /* the body is kept, */
    size_t hold_max;   /* ... up to this. */
    struct buf body;
    uint64_t discarded_bytes; /* of a body that came behind the answer. */
    bool head_answered;
    bool answer_done;
    bool bodiless; /* HEAD, 204, 304: the answer's body is counted, not sent. */
    bool chunked;
    bool close_after;
    bool want_drained;
    uint64_t left;   /* bytes that the answer's length still asks for. */
    struct buf rest; /* of a whole answer that had no room at once. */
    size_t rest_at;
};

struct http1_server {
    struct net_conn *conn; /* NULL once it was handed over. */
    struct http1_server_options options;
    struct net_timer timer;
    enum http1_wait waits;
    uint64_t written_before; /* connection's count when the timer was last armed. */
    struct net_hook hook;    /* goes on after an answer. */
    struct http1_parser parser;
    struct slice input; /* what is being parsed. */
    struct buf pending; /* what came before it could be parsed. */
    struct buf scratch; /* heads are written here first. */
    bool parsing;       /* inside server_advance(): handlers may call back. */
    bool draining;
    bool eof;      /* the caller sends no more. */
    bool refused;  /* the last answer was given: nothing more is parsed. */
    bool released; /* the connection was handed over: free the rest. */
    struct http1_exchange exchange;
    uint8_t *store; /* bytes of the head. */
    struct http1_field *fields;
};

/* Ends the parsing for good: answers, if no head was answered yet, and closes. */
void http1_server_refuse(struct http1_server *s, unsigned status, struct err why);

/* The connection can take more: goes on with 'rest'. True when there is none left. */
bool http1_answer_pump(struct http1_exchange *x);

/* Writes {"code", "message"} as a whole answer that closes. */
void http1_answer_refusal(struct http1_exchange *x, unsigned status, struct err why,
                          const struct http1_refusal *more);

/* Frees a server whose connection was handed over or has closed. */
void http1_server_free(struct http1_server *s);
