/* ask: see ask.h. */
#include "dataplane/admin/ask.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/scope.h"
#include "common/net/addr.h"
#include "common/net/http1.h"
#include "common/net/wait.h"

enum { ASK_TIMEOUT_MS = 5000, STORE_BYTES = 8192, FIELDS_MAX = 64, READ_BYTES = 16384 };

static struct err finish_connect(int fd)
{
    int failure = 0;
    socklen_t size = sizeof(failure);
    TRY(net_wait(fd, POLLOUT, ASK_TIMEOUT_MS));
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0) {
        return FAIL(E_IO);
    }
    return failure == 0 ? OK : FAIL(E_UNAVAILABLE);
}

static struct err connect_to(struct slice address, int *out_fd)
{
    struct net_addr addr;
    TRY(net_addr_resolve_boot(address, &addr));
    auto_close int fd =
        socket(addr.sa.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return FAIL(E_IO);
    }
    if (connect(fd, &addr.sa.any, net_addr_size(&addr)) != 0) {
        if (errno != EINPROGRESS) {
            return FAIL(E_UNAVAILABLE);
        }
        TRY(finish_connect(fd));
    }
    *out_fd = TAKE_FD(fd);
    return OK;
}

static struct err write_request(int fd, struct slice address, struct slice path, struct slice token)
{
    auto_buf struct buf request = BUF_MAX(STORE_BYTES);
    TRY(http1_write_request_line(&request, SLICE_LIT("GET"), path));
    TRY(http1_write_field(&request, SLICE_LIT("host"), address));
    TRY(http1_write_field(&request, SLICE_LIT("connection"), SLICE_LIT("close")));
    if (token.size > 0) {
        TRY(buf_addf(&request, "authorization: Bearer %.*s\r\n", SLICE_ARG(token)));
    }
    TRY(http1_write_head_end(&request));
    size_t at = 0;
    while (at < request.size) {
        TRY(net_wait(fd, POLLOUT, ASK_TIMEOUT_MS));
        ssize_t n = send(fd, request.ptr + at, request.size - at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            continue;
        }
        if (n <= 0) {
            return FAIL(E_UNAVAILABLE);
        }
        at += (size_t)n;
    }
    return OK;
}

/* Takes what has come apart; *out_end is true at the end of the answer. */
static struct err take(struct http1_parser *parser, struct slice bytes, struct buf *out,
                       bool *out_end)
{
    enum http1_event event = HTTP1_HEAD;
    while (event != HTTP1_MORE && event != HTTP1_END) {
        TRY(http1_parse(parser, &bytes, &event));
        if (event == HTTP1_BODY) {
            TRY(buf_add(out, parser->body));
        }
    }
    *out_end = event == HTTP1_END;
    return OK;
}

static struct err read_answer(int fd, struct http1_parser *parser, struct buf *out)
{
    bool end = false;
    while (!end) {
        uint8_t bytes[READ_BYTES];
        TRY(net_wait(fd, POLLIN, ASK_TIMEOUT_MS));
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n < 0 && errno == EAGAIN) {
            continue;
        }
        if (n < 0) {
            return FAIL(E_UNAVAILABLE);
        }
        if (n == 0) {
            enum http1_event event = HTTP1_MORE;
            TRY(http1_parse_eof(parser, &event));
            return event == HTTP1_END ? OK : FAIL(E_MALFORMED);
        }
        TRY(take(parser, slice_of(bytes, (size_t)n), out, &end));
    }
    return OK;
}

static struct err status_err(unsigned status)
{
    switch (status) {
    case 200:
        return OK;
    case 401:
        return FAIL(E_UNAUTHENTICATED);
    case 404:
        return FAIL(E_NOT_FOUND);
    default:
        return FAIL(E_IO);
    }
}

struct err dp_ask(struct slice address, struct slice path, struct slice token, struct buf *out)
{
    auto_close int fd = -1;
    TRY(connect_to(address, &fd));
    TRY(write_request(fd, address, path, token));
    uint8_t bytes[STORE_BYTES];
    struct http1_field fields[FIELDS_MAX];
    struct http1_store store = {
        .bytes = bytes, .size = sizeof(bytes), .fields = fields, .field_max = FIELDS_MAX};
    struct http1_parser parser;
    http1_parser_init(&parser, HTTP1_RESPONSE, &store);
    http1_expect_response(&parser, SLICE_LIT("GET"));
    TRY(read_answer(fd, &parser, out));
    return status_err(parser.head.status);
}
