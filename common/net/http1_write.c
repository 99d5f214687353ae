/* http1_write: heads and chunks, written. What would split a message is refused, not escaped. */
#include <stdio.h>

#include "common/base/check.h"
#include "common/net/http1.h"

#define HTTP1_REASONS(X)                                                                           \
    X(100, "Continue")                                                                             \
    X(101, "Switching Protocols")                                                                  \
    X(102, "Processing")                                                                           \
    X(103, "Early Hints")                                                                          \
    X(200, "OK")                                                                                   \
    X(201, "Created")                                                                              \
    X(202, "Accepted")                                                                             \
    X(204, "No Content")                                                                           \
    X(206, "Partial Content")                                                                      \
    X(301, "Moved Permanently")                                                                    \
    X(302, "Found")                                                                                \
    X(303, "See Other")                                                                            \
    X(304, "Not Modified")                                                                         \
    X(307, "Temporary Redirect")                                                                   \
    X(308, "Permanent Redirect")                                                                   \
    X(400, "Bad Request")                                                                          \
    X(401, "Unauthorized")                                                                         \
    X(403, "Forbidden")                                                                            \
    X(404, "Not Found")                                                                            \
    X(405, "Method Not Allowed")                                                                   \
    X(406, "Not Acceptable")                                                                       \
    X(407, "Proxy Authentication Required")                                                        \
    X(408, "Request Timeout")                                                                      \
    X(409, "Conflict")                                                                             \
    X(410, "Gone")                                                                                 \
    X(411, "Length Required")                                                                      \
    X(412, "Precondition Failed")                                                                  \
    X(413, "Content Too Large")                                                                    \
    X(414, "URI Too Long")                                                                         \
    X(415, "Unsupported Media Type")                                                               \
    X(416, "Range Not Satisfiable")                                                                \
    X(417, "Expectation Failed")                                                                   \
    X(421, "Misdirected Request")                                                                  \
    X(422, "Unprocessable Content")                                                                \
    X(426, "Upgrade Required")                                                                     \
    X(428, "Precondition Required")                                                                \
    X(429, "Too Many Requests")                                                                    \
    X(431, "Request Header Fields Too Large")                                                      \
    X(499, "Client Closed Request")                                                                \
    X(500, "Internal Server Error")                                                                \
    X(501, "Not Implemented")                                                                      \
    X(502, "Bad Gateway")                                                                          \
    X(503, "Service Unavailable")                                                                  \
    X(504, "Gateway Timeout")                                                                      \
    X(505, "HTTP Version Not Supported")                                                           \
    X(507, "Insufficient Storage")                                                                 \
    X(508, "Loop Detected")

const char *http1_reason(unsigned status)
{
    switch (status) {
#define X(number, text)                                                                            \
    case number:                                                                                   \
        return text;
        HTTP1_REASONS(X)
#undef X
    default:
        return "Unknown";
    }
}

/* Written as it came in: no blank, no control byte, nothing beyond ASCII. */
static bool is_target(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f) {
            return false;
        }
    }
    return s.size > 0;
}

struct err http1_write_request_line(struct buf *out, struct slice method, struct slice target)
{
    if (!http1_is_token(method) || !is_target(target)) {
        return FAIL(E_USAGE);
    }
    TRY(buf_add(out, method));
    TRY(buf_add_byte(out, ' '));
    TRY(buf_add(out, target));
    return buf_add_str(out, " HTTP/1.1\r\n");
}

struct err http1_write_status_line(struct buf *out, unsigned status)
{
    if (status < 100 || status > 599) {
        return FAIL(E_USAGE);
    }
    return buf_addf(out, "HTTP/1.1 %u %s\r\n", status, http1_reason(status));
}

struct err http1_write_field(struct buf *out, struct slice name, struct slice value)
{
    if (!http1_is_token(name) || !http1_is_value(value)) {
        return FAIL(E_USAGE);
    }
    TRY(buf_add(out, name));
    TRY(buf_add_str(out, ": "));
    TRY(buf_add(out, value));
    return buf_add_str(out, "\r\n");
}

struct err http1_write_head_end(struct buf *out)
{
    return buf_add_str(out, "\r\n");
}

size_t http1_chunk_head(uint64_t size, char out[HTTP1_CHUNK_HEAD_MAX + 1])
{
    int written = snprintf(out, HTTP1_CHUNK_HEAD_MAX + 1, "%llx\r\n", (unsigned long long)size);
    CHECK(written > 0 && written <= HTTP1_CHUNK_HEAD_MAX);
    return (size_t)written;
}
