/*
 * http1: a strict parser and a writer of HTTP/1.1 messages.
 *
 * Shape      a pull parser: feed it bytes, it answers with the next event. The head is gathered
 *            in memory that the caller lends; bodies are lent straight from the input. It
 *            allocates nothing, and how the input is split never changes what comes out.
 * Units      bytes.
 * Ownership  the caller owns the store; slices of a head live until http1_next() or the store's
 *            end; slices of a body until the input's end.
 * Threads    one owner at a time.
 * Errors     E_MALFORMED (the syntax), E_PROTOCOL_ERROR (framing that is ambiguous or not
 *            allowed), E_HEADERS_TOO_LARGE (store or fields are full), E_HTTP_VERSION (none of
 *            HTTP/1), E_UNSUPPORTED (a transfer coding but chunked). After an error the parser is
 *            dead.
 * Source     RFC 9112, RFC 9110. Stricter where smuggling hides: no bare CR or LF, no obs-fold,
 *            no Content-Length beside Transfer-Encoding, no list of equal lengths, no chunked in
 *            HTTP/1.0, one Host exactly.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct http1_field {
    struct slice name;  /* lower case: made so in the store. */
    struct slice value; /* without white space around. */
};

enum http1_kind { HTTP1_REQUEST, HTTP1_RESPONSE };

/* What comes next in the input. */
enum http1_event {
    HTTP1_MORE,     /* the input is used up. */
    HTTP1_HEAD,     /* parser.head is filled. */
    HTTP1_BODY,     /* parser.body holds bytes of the body, borrowed from the input. */
    HTTP1_END,      /* the message ended; trailers, if any, are in parser.trailers. */
    HTTP1_UPGRADED, /* no HTTP any more: CONNECT, or 101. The rest of the input is the tunnel's. */
};

/* Forms of a request's target (RFC 9112, 3.2). */
enum http1_form { HTTP1_ORIGIN, HTTP1_ABSOLUTE, HTTP1_AUTHORITY, HTTP1_ASTERISK };

enum http1_framing { HTTP1_NO_BODY, HTTP1_LENGTH, HTTP1_CHUNKED, HTTP1_UNTIL_CLOSE };

struct http1_head {
    /* Requests. */
    struct slice method; /* as sent: methods are case-sensitive. */
    struct slice target; /* as sent. */
    enum http1_form form;
    struct slice scheme;    /* absolute form: "http", as sent. */
    struct slice authority; /* absolute form: of the target; else the Host field's value. */
    struct slice path;      /* origin and absolute form: path and query, "/" when empty. */
    /* Responses. */
    unsigned status;
    struct slice reason;
    /* Both. */
    unsigned minor; /* HTTP/1.minor: 0 or 1. */
    const struct http1_field *fields;
    size_t field_count;
    enum http1_framing framing;
    uint64_t length;      /* HTTP1_LENGTH. */
    bool keep_alive;      /* the connection may serve another message. */
    bool expect_continue; /* the sender waits for 100. */
    bool upgrade;         /* "connection: upgrade" with an "upgrade" field. */
};

struct http1_store {
    uint8_t *bytes; /* head and trailers together. */
    size_t size;
    struct http1_field *fields; /* head and trailers together. */
    size_t field_max;
};

struct http1_parser {
    struct http1_head head;
    struct slice body;
    const struct http1_field *trailers;
    size_t trailer_count;
    /* The parser's own from here. */
    struct http1_store store;
    enum http1_kind kind;
    enum err_code dead; /* E_OK while alive. */
    uint8_t state;
    bool no_response_body; /* the request was a HEAD. */
    bool to_connect;       /* the request was a CONNECT. */
    bool saw_cr;
    bool in_extension;
    bool saw_length;
    bool saw_coding;
    bool saw_host;
    bool saw_connection;
    bool saw_close;
    bool saw_keep_alive;
    bool saw_upgrade_option;
    bool saw_upgrade;
    bool skipped_blank;      /* before a request line: one is forgiven (RFC 9112, 2.2). */
    size_t used;             /* bytes of the store. */
    size_t line;             /* start of the line that is being gathered. */
    size_t field_count;      /* fields of the store. */
    uint64_t left;           /* bytes left of the body or of the chunk. */
    unsigned chunk_digits;   /* of the size that is being read. */
    unsigned codings;        /* transfer codings that were named. */
    size_t extension_bytes;  /* of all chunks of this message. */
    size_t connection_bytes; /* of its fields "connection", joined by commas. */
};

/* Bound of all chunk extensions of one message: they mean nothing to us. */
enum { HTTP1_EXTENSION_BYTES_MAX = 4096 };

/* Bound of the fields "connection" of one head, joined: whoever passes a head on asks them about
 * each of its fields. */
enum { HTTP1_CONNECTION_BYTES_MAX = 256 };

void http1_parser_init(struct http1_parser *p, enum http1_kind kind,
                       const struct http1_store *store);

/*
 * Takes bytes off the front of *input and says what they brought. Call again until HTTP1_MORE.
 * HTTP1_END comes also for messages without a body. After HTTP1_END call http1_next().
 */
MUST_CHECK struct err http1_parse(struct http1_parser *p, struct slice *input,
                                  enum http1_event *out);

/* The input ended: HTTP1_END for a body until close; HTTP1_MORE when no message was open (a clean
 * end); else E_MALFORMED: the message is cut off. */
MUST_CHECK struct err http1_parse_eof(struct http1_parser *p, enum http1_event *out);

/* Makes ready for the next message on the connection. */
void http1_next(struct http1_parser *p);

/* Responses: says what the request was, before its response is parsed: HEAD has no body, and a
 * 2xx to CONNECT is a tunnel. */
void http1_expect_response(struct http1_parser *p, struct slice request_method);

/* Whether bytes of a message were taken that has not ended. */
bool http1_in_message(const struct http1_parser *p);

/* The only field of that (lower case) name; NULL when there is none. The first when there are
 * several. */
const struct http1_field *http1_find(const struct http1_head *head, struct slice name);

/* Whether the comma list in the fields 'name' has 'token', case folded. */
bool http1_has_token(const struct http1_head *head, struct slice name, struct slice token);

/* Whether this is a field of one hop only (RFC 9110, 7.6.1), which a proxy must not pass on;
 * the ones that "connection" names are to be asked of http1_has_token(). */
bool http1_is_hop_by_hop(struct slice name);

/* Whether bytes are a token (a method, a field's name), or allowed in a field's value. */
bool http1_is_token(struct slice s);
bool http1_is_value(struct slice s);

/* Whether bytes are a host with or without a port, and without a user (RFC 9110, 4.2.3 and 7.2). */
bool http1_is_authority(struct slice s);

/* The reason phrase of a status: "Not Found"; "Unknown" when there is none. */
const char *http1_reason(unsigned status);

/* Writers: append to 'out'. E_USAGE for a name or value that must not be written (a CR in a value:
 * splitting). http1_write_head_end() writes the blank line. */
MUST_CHECK struct err http1_write_request_line(struct buf *out, struct slice method,
                                               struct slice target);
MUST_CHECK struct err http1_write_status_line(struct buf *out, unsigned status);
MUST_CHECK struct err http1_write_field(struct buf *out, struct slice name, struct slice value);
MUST_CHECK struct err http1_write_head_end(struct buf *out);

/* Bytes that a chunk of 'size' takes before its data: "5\r\n"; behind them comes "\r\n". */
enum { HTTP1_CHUNK_HEAD_MAX = 18 };
size_t http1_chunk_head(uint64_t size, char out[HTTP1_CHUNK_HEAD_MAX + 1]);
