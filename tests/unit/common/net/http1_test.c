/* Proves: what RFC 9112 allows is parsed, what hides smuggling is refused, bounds hold exactly, and
 * no cut of the input changes anything. */
#include "common/net/http1.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"

#include "tests/support/cmocka.h"
#include "tests/unit/common/net/http1_transcript.h"

/* What a stream gives, as text; cut after each 'cut' bytes (0: not at all). */
static char *transcript_of(enum http1_kind kind, struct slice input, size_t cut)
{
    struct transcript *t = malloc(sizeof(*t));
    transcript_init(t, kind);
    while (input.size > 0) {
        struct slice part = slice_head(input, cut == 0 ? input.size : cut);
        uint8_t *copy = malloc(part.size); /* so that ASan sees what is kept too long. */
        memcpy(copy, part.ptr, part.size);
        transcript_feed(t, slice_of(copy, part.size));
        free(copy);
        input = slice_from(input, part.size);
    }
    transcript_eof(t);
    char *text = slice_dup(buf_slice(&t->text));
    buf_free(&t->text);
    free(t);
    return text;
}

/* Checks the text, whole and at every cut. */
static void expect(enum http1_kind kind, struct slice input, const char *wanted)
{
    for (size_t cut = 0; cut <= input.size && cut < 40; cut++) {
        char *text = transcript_of(kind, input, cut);
        if (strcmp(text, wanted) != 0) {
            print_error("input: %.*s\ncut %zu\n", SLICE_ARG(input), cut);
        }
        assert_string_equal(text, wanted);
        free(text);
    }
}

/* Checks that the transcript ends in '!CODE'. */
static void refuse(enum http1_kind kind, struct slice input, enum err_code code)
{
    char end[64];
    (void)snprintf(end, sizeof(end), "!%s", err_name(code));
    for (size_t cut = 0; cut <= input.size && cut < 40; cut++) {
        char *text = transcript_of(kind, input, cut);
        if (!slice_ends(slice_str(text), slice_str(end))) {
            print_error("input: %.*s\ncut %zu gave %s\n", SLICE_ARG(input), cut, text);
            fail();
        }
        free(text);
    }
}

#define REQUEST(text) HTTP1_REQUEST, SLICE_LIT(text)
#define RESPONSE(text) HTTP1_RESPONSE, SLICE_LIT(text)

static void requests_of_all_forms(void **state)
{
    (void)state;
    expect(REQUEST("GET /a?b=c HTTP/1.1\r\nHost: x:80\r\n\r\n"),
           "{GET /a?b=c form=0 scheme= auth=x:80 path=/a?b=c 0  1.1 framing=0 length=0 keep "
           "[host=x:80]}>$");
    expect(REQUEST("GET http://e.x/p HTTP/1.1\r\nhost: other\r\n\r\n"),
           "{GET http://e.x/p form=1 scheme=http auth=e.x path=/p 0  1.1 framing=0 length=0 keep "
           "[host=other]}>$");
    expect(REQUEST("GET http://[::1]:8 HTTP/1.1\r\nhost: [::1]:8\r\n\r\n"),
           "{GET http://[::1]:8 form=1 scheme=http auth=[::1]:8 path=/ 0  1.1 framing=0 length=0 "
           "keep [host=[::1]:8]}>$");
    expect(REQUEST("CONNECT e.x:443 HTTP/1.1\r\nHost: e.x:443\r\n\r\ntunnel"),
           "{CONNECT e.x:443 form=2 scheme= auth=e.x:443 path= 0  1.1 framing=0 length=0 keep "
           "[host=e.x:443]}^");
    expect(REQUEST("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"),
           "{OPTIONS * form=3 scheme= auth=x path= 0  1.1 framing=0 length=0 keep [host=x]}>$");
    expect(REQUEST("\r\nGET / HTTP/1.0\r\n\r\n"),
           "{GET / form=0 scheme= auth= path=/ 0  1.0 framing=0 length=0 }>$");
    expect(REQUEST(""), "$");
    expect(REQUEST("\r\n"), "$");
}

static void bodies_and_pipelines(void **state)
{
    (void)state;
    expect(REQUEST("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
                   "helloGET / HTTP/1.1\r\nHost: y\r\nConnection: x , Close\r\n\r\n"),
           "{POST / form=0 scheme= auth=x path=/ 0  1.1 framing=1 length=5 keep expect "
           "[host=x][content-length=5][expect=100-continue]}<hello>"
           "{GET / form=0 scheme= auth=y path=/ 0  1.1 framing=0 length=0 "
           "[host=y][connection=x , Close]}>$");
    expect(REQUEST("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
                   "3;a=\"b;c\"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"),
           "{PUT / form=0 scheme= auth=x path=/ 0  1.1 framing=2 length=0 keep "
           "[host=x][transfer-encoding=Chunked]}<abc0123456789>[x-sum=1]$");
    expect(REQUEST("GET / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"),
           "{GET / form=0 scheme= auth= path=/ 0  1.0 framing=0 length=0 keep "
           "[connection=keep-alive][content-length=0]}>$");
    expect(
        REQUEST("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nA:\t b\t \r\n"
                "E:\r\n\r\n"),
        "{GET / form=0 scheme= auth=x path=/ 0  1.1 framing=0 length=0 keep upgrade "
        "[host=x][upgrade=h2c][connection=Upgrade][a=b][e=]}>$");
}

static void responses(void **state)
{
    (void)state;
    expect(RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
           "{  form=0 scheme= auth= path= 200 OK 1.1 framing=1 length=2 keep "
           "[content-length=2]}<hi>$");
    expect(RESPONSE("HTTP/1.1 200\r\n\r\nuntil the end"),
           "{  form=0 scheme= auth= path= 200  1.1 framing=3 length=0 }<until the end>$");
    expect(RESPONSE("HTTP/1.1 200 \r\n\r\n"),
           "{  form=0 scheme= auth= path= 200  1.1 framing=3 length=0 }>$");
    expect(RESPONSE("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n"),
           "{  form=0 scheme= auth= path= 100 Continue 1.1 framing=0 length=0 keep }>"
           "{  form=0 scheme= auth= path= 204 No 1.1 framing=0 length=0 keep "
           "[content-length=0]}>$");
    expect(RESPONSE("HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n"),
           "{  form=0 scheme= auth= path= 304 Not 1.1 framing=0 length=7 keep "
           "[content-length=7]}>$");
    expect(RESPONSE("HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw"),
           "{  form=0 scheme= auth= path= 101 Switch 1.1 framing=0 length=0 keep upgrade "
           "[upgrade=x][connection=upgrade]}^");
    expect(RESPONSE("HTTP/1.0 200 OK\r\nTransfer: x\r\n\r\n"),
           "{  form=0 scheme= auth= path= 200 OK 1.0 framing=3 length=0 [transfer=x]}>$");
}

static void the_request_decides_how_a_response_is_read(void **state)
{
    (void)state;
    struct transcript *t = malloc(sizeof(*t));
    transcript_init(t, HTTP1_RESPONSE);
    http1_expect_response(&t->parser, SLICE_LIT("HEAD"));
    transcript_feed(
        t, SLICE_LIT("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"));
    transcript_eof(t);
    assert_true(slice_ends(buf_slice(&t->text), SLICE_LIT("[content-length=9]}>$")));
    buf_free(&t->text);
    transcript_init(t, HTTP1_RESPONSE);
    http1_expect_response(&t->parser, SLICE_LIT("CONNECT"));
    transcript_feed(t, SLICE_LIT("HTTP/1.1 200 OK\r\n\r\nraw"));
    assert_true(slice_ends(buf_slice(&t->text), SLICE_LIT("}^")));
    buf_free(&t->text);
    free(t);
}

static void smuggling_is_refused(void **state)
{
    (void)state;
#define POST "POST / HTTP/1.1\r\nHost: x\r\n"
    refuse(REQUEST(POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
           E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Content-Length: 1, 1\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length: +1\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length: -1\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length: 0x1\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length:\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length: 9223372036854775808\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length: 99999999999999999999999\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Transfer-Encoding: gzip, chunked\r\n\r\n"), E_UNSUPPORTED);
    refuse(REQUEST(POST "Transfer-Encoding: chunked, gzip\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Transfer-Encoding: ,chunked\r\n\r\n"), E_UNSUPPORTED);
    refuse(REQUEST(POST "Transfer-Encoding: chunked,\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Transfer-Encoding: chunked, \r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Transfer-Encoding: identity\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Transfer-Encoding: xchunked\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Transfer-Encoding: \vchunked\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Transfer-Encoding:\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
           E_UNSUPPORTED);
    refuse(REQUEST(POST "Transfer-Encoding : chunked\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nContent-Length: 1\r\n\r\n"),
           E_PROTOCOL_ERROR);
    refuse(REQUEST(POST " folded: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "A: b\r\n\tfolded\r\n\r\n"), E_MALFORMED);
    refuse(RESPONSE("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
           E_PROTOCOL_ERROR);
}

static void lines_are_strict(void **state)
{
    (void)state;
    refuse(REQUEST("GET / HTTP/1.1\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\n\n"), E_MALFORMED);
    refuse(REQUEST("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\nA(: b\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET  / HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1 \r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET /\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("G\tT / HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(" GET / HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET /\x80 HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET /#f HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET a HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET * HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET http:/x HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET http:///p HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET http://x?q HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("CONNECT x:0 HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("CONNECT http://x:1/ HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("CONNECT [1]:1 HTTP/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), E_HTTP_VERSION);
    refuse(REQUEST("GET / HTTP/1.2\r\nHost: x\r\n\r\n"), E_HTTP_VERSION);
    refuse(REQUEST("GET / http/1.1\r\nHost: x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), E_HTTP_VERSION);
    refuse(RESPONSE("HTTP/1.1 99 x\r\n\r\n"), E_MALFORMED);
    refuse(RESPONSE("HTTP/1.1 600 x\r\n\r\n"), E_MALFORMED);
    refuse(RESPONSE("HTTP/1.1 2000\r\n\r\n"), E_MALFORMED);
    refuse(RESPONSE("HTTP/1.1  200 OK\r\n\r\n"), E_MALFORMED);
    refuse(RESPONSE("HTTP/1.1 200 O\x01K\r\n\r\n"), E_MALFORMED);
    refuse(RESPONSE("\r\nHTTP/1.1 200 OK\r\n\r\n"), E_MALFORMED);
}

static void host_is_there_once(void **state)
{
    (void)state;
    refuse(REQUEST("GET / HTTP/1.1\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST("GET http://x/ HTTP/1.1\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: \r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: a,b\x80\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x:y\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: u@x\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"), E_MALFORMED);
}

static void chunks_are_strict(void **state)
{
    (void)state;
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
    refuse(REQUEST(CHUNKED "\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "g\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "0x1\r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "-1\r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED " 1\r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1 \r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED ";x\r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1\ra\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1;\n\r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1;a\rb\r\na\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1\r\nab\r\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1\r\na\n0\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "1000000000000000\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "0000000000000000\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "0\r\nContent-Length: 1\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n"), E_PROTOCOL_ERROR);
    refuse(REQUEST(CHUNKED "0\r\n x: 1\r\n\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "0\r\nx: 1\n\r\n"), E_MALFORMED);
}

static void what_is_cut_off_is_no_message(void **state)
{
    (void)state;
    refuse(REQUEST("G"), E_MALFORMED);
    refuse(REQUEST("GET / HTTP/1.1\r\nHost: x\r\n"), E_MALFORMED);
    refuse(REQUEST(POST "Content-Length: 5\r\n\r\nhell"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "5\r\nhello\r\n"), E_MALFORMED);
    refuse(REQUEST(CHUNKED "5\r\nhello\r\n0\r\n"), E_MALFORMED);
    refuse(RESPONSE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), E_MALFORMED);
}

/* A request whose head has exactly 'size' bytes. */
static struct slice head_of_size(char *out, size_t size)
{
    static const char start[] = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
    memset(out, 'a', size);
    memcpy(out, start, sizeof(start) - 1);
    memcpy(out + size - 4, "\r\n\r\n", 4);
    return slice_of(out, size);
}

static void bounds_hold_exactly(void **state)
{
    (void)state;
    static char text[TRANSCRIPT_STORE + HTTP1_EXTENSION_BYTES_MAX + 400];
    char *good = transcript_of(HTTP1_REQUEST, head_of_size(text, TRANSCRIPT_STORE), 0);
    assert_true(slice_ends(slice_str(good), SLICE_LIT(">$")));
    free(good);
    refuse(HTTP1_REQUEST, head_of_size(text, TRANSCRIPT_STORE + 1), E_HEADERS_TOO_LARGE);

    for (int extra = 0; extra <= 1; extra++) {
        struct buf b = BUF_MAX(4096);
        assert_int_equal(buf_add_str(&b, "GET / HTTP/1.1\r\nHost: x\r\n").code, E_OK);
        for (int i = 1; i < TRANSCRIPT_FIELDS + extra; i++) {
            assert_int_equal(buf_add_str(&b, "a: b\r\n").code, E_OK);
        }
        assert_int_equal(buf_add_str(&b, "\r\n").code, E_OK);
        char *all = transcript_of(HTTP1_REQUEST, buf_slice(&b), 0);
        assert_true(slice_ends(slice_str(all), slice_str(extra ? "!HEADERS_TOO_LARGE" : ">$")));
        free(all);
        buf_free(&b);

        static const char head[] = CHUNKED "1;";
        size_t size = sizeof(head) - 1;
        memcpy(text, head, size);
        memset(text + size, 'x', HTTP1_EXTENSION_BYTES_MAX + (size_t)extra);
        size += HTTP1_EXTENSION_BYTES_MAX + (size_t)extra;
        memcpy(text + size, "\r\na\r\n0\r\n\r\n", 10);
        all = transcript_of(HTTP1_REQUEST, slice_of(text, size + 10), 0);
        assert_true(slice_ends(slice_str(all), slice_str(extra ? "!TOO_LARGE" : "<a>$")));
        free(all);
    }
}

static void random_cuts_change_nothing(void **state)
{
    (void)state;
    struct slice input = SLICE_LIT(
        CHUNKED "5;x=y\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nt: 1\r\n\r\n" POST
                "Content-Length: 3\r\n\r\nabcGET http://h/p?q HTTP/1.1\r\nHost: h\r\n\r\n");
    char *whole = transcript_of(HTTP1_REQUEST, input, 0);
    uint64_t seed = 7;
    for (int round = 0; round < 500; round++) {
        struct transcript *t = malloc(sizeof(*t));
        transcript_init(t, HTTP1_REQUEST);
        struct slice rest = input;
        while (rest.size > 0) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            struct slice part = slice_head(rest, 1 + (seed >> 33) % 40);
            transcript_feed(t, part);
            rest = slice_from(rest, part.size);
        }
        transcript_eof(t);
        assert_true(slice_eq(buf_slice(&t->text), slice_str(whole)));
        buf_free(&t->text);
        free(t);
    }
    free(whole);
}

/* Each field may be asked whether "connection" names it: what that costs is bounded by the sum of
 * all of them, as if they were one list. */
static void what_connection_names_is_bounded(void **state)
{
    (void)state;
    char request[1024];
    char many[HTTP1_CONNECTION_BYTES_MAX + 2];
    memset(many, 'x', sizeof(many));
    many[sizeof(many) - 1] = '\0';
    for (int over = 0; over <= 1; over++) {
        int size = HTTP1_CONNECTION_BYTES_MAX + over;
        const struct {
            int first;
            int second;
        } cuts[] = {{size, -1}, {1, size - 2}, {size / 2, size - size / 2 - 1}, {size - 1, 0}};
        for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
            int head =
                snprintf(request, sizeof(request),
                         "GET / HTTP/1.1\r\nHost: x\r\nConnection: %.*s\r\n", cuts[i].first, many);
            if (cuts[i].second >= 0) {
                head += snprintf(request + head, sizeof(request) - (size_t)head,
                                 "A: b\r\ncONNECTION: %.*s\r\n", cuts[i].second, many);
            }
            (void)snprintf(request + head, sizeof(request) - (size_t)head, "\r\n");
            char *got = transcript_of(HTTP1_REQUEST, slice_str(request), 0);
            assert_true(slice_ends(slice_str(got), slice_str(over ? "!MALFORMED" : ">$")));
            free(got);
        }
    }
}

static void lists_and_hops(void **state)
{
    (void)state;
    struct http1_field fields[] = {
        {SLICE_LIT("connection"), SLICE_LIT("a, , B ,c")},
        {SLICE_LIT("via"), SLICE_LIT("x")},
        {SLICE_LIT("connection"), SLICE_LIT("d")},
    };
    struct http1_head head = {.fields = fields, .field_count = 3};
    assert_true(http1_has_token(&head, SLICE_LIT("connection"), SLICE_LIT("b")));
    assert_true(http1_has_token(&head, SLICE_LIT("connection"), SLICE_LIT("D")));
    assert_false(http1_has_token(&head, SLICE_LIT("connection"), SLICE_LIT("x")));
    assert_ptr_equal(http1_find(&head, SLICE_LIT("via")), &fields[1]);
    assert_null(http1_find(&head, SLICE_LIT("none")));
    assert_true(http1_is_hop_by_hop(SLICE_LIT("transfer-encoding")));
    assert_false(http1_is_hop_by_hop(SLICE_LIT("content-length")));
}

static void writers_refuse_what_would_split(void **state)
{
    (void)state;
    struct buf b = BUF_MAX(200);
    assert_int_equal(http1_write_request_line(&b, SLICE_LIT("GET"), SLICE_LIT("/a")).code, E_OK);
    assert_int_equal(http1_write_field(&b, SLICE_LIT("a"), SLICE_LIT("b")).code, E_OK);
    assert_int_equal(http1_write_head_end(&b).code, E_OK);
    assert_true(slice_eq(buf_slice(&b), SLICE_LIT("GET /a HTTP/1.1\r\na: b\r\n\r\n")));
    buf_clear(&b);
    assert_int_equal(http1_write_field(&b, SLICE_LIT("a"), SLICE_LIT("b\r\nc: d")).code, E_USAGE);
    assert_int_equal(http1_write_field(&b, SLICE_LIT("a:"), SLICE_LIT("b")).code, E_USAGE);
    assert_int_equal(http1_write_field(&b, SLICE_LIT(""), SLICE_LIT("b")).code, E_USAGE);
    assert_int_equal(http1_write_request_line(&b, SLICE_LIT("GET"), SLICE_LIT("/a b")).code,
                     E_USAGE);
    assert_int_equal(http1_write_request_line(&b, SLICE_LIT("G T"), SLICE_LIT("/")).code, E_USAGE);
    assert_int_equal(http1_write_status_line(&b, 99).code, E_USAGE);
    assert_int_equal(b.size, 0);
    assert_int_equal(http1_write_status_line(&b, 404).code, E_OK);
    assert_true(slice_eq(buf_slice(&b), SLICE_LIT("HTTP/1.1 404 Not Found\r\n")));
    buf_free(&b);
    char head[HTTP1_CHUNK_HEAD_MAX + 1];
    assert_int_equal(http1_chunk_head(UINT64_MAX, head), HTTP1_CHUNK_HEAD_MAX);
    assert_int_equal(http1_chunk_head(26, head), 4);
    assert_string_equal(head, "1a\r\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_all_forms),
        cmocka_unit_test(bodies_and_pipelines),
        cmocka_unit_test(responses),
        cmocka_unit_test(the_request_decides_how_a_response_is_read),
        cmocka_unit_test(smuggling_is_refused),
        cmocka_unit_test(lines_are_strict),
        cmocka_unit_test(host_is_there_once),
        cmocka_unit_test(chunks_are_strict),
        cmocka_unit_test(what_is_cut_off_is_no_message),
        cmocka_unit_test(bounds_hold_exactly),
        cmocka_unit_test(random_cuts_change_nothing),
        cmocka_unit_test(what_connection_names_is_bounded),
        cmocka_unit_test(lists_and_hops),
        cmocka_unit_test(writers_refuse_what_would_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
