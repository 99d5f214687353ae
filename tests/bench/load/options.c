/* options: see options.h. */
#include "tests/bench/load/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/slice.h"

enum { BODY_MAX = 1 << 20, PREFIX_MAX = 16 };

static void usage(void)
{
    (void)fprintf(stderr,
                  "usage: load --port P --path PATH [--host H] [--protocol grpc|http1] [--rate N]\n"
                  "            [--connections N] [--streams N] [--warmup-ms N] [--duration-ms N]\n"
                  "            [--await-ms N] [--body-bytes N] [--header 'name: value']…\n"
                  "            [--body-file FILE] [--no-echo] [--hold] [--punctual]\n"
                  "            [--tls-ca FILE [--tls-cert FILE --tls-key FILE]]\n");
    exit(2);
}

struct number {
    const char *name;
    size_t offset;
    uint64_t min;
    uint64_t max;
};

static const struct number numbers[] = {
    {"rate", offsetof(struct options, rate), 1, 10000000},
    {"connections", offsetof(struct options, connections), 1, CONNECTIONS_MAX},
    {"streams", offsetof(struct options, streams), 1, 10000},
    {"warmup-ms", offsetof(struct options, warmup_ms), 0, 3600000},
    {"duration-ms", offsetof(struct options, duration_ms), 1, 86400000},
    {"await-ms", offsetof(struct options, await_ms), 0, 3600000},
    {"body-bytes", offsetof(struct options, body_bytes), 0, BODY_MAX},
};
enum { NUMBER_COUNT = sizeof(numbers) / sizeof(numbers[0]) };

/* Values of getopt_long() for what is no number; those of 'numbers' are their indices. */
enum { OPTION_HOST = NUMBER_COUNT, OPTION_PORT, OPTION_PATH, OPTION_PROTOCOL, OPTION_HEADER };
enum { OPTION_TLS_CA = OPTION_HEADER + 1, OPTION_TLS_CERT, OPTION_TLS_KEY };
enum { OPTION_BODY_FILE = OPTION_TLS_KEY + 1 };
enum { OPTION_NO_ECHO = OPTION_BODY_FILE + 1, OPTION_HOLD, OPTION_PUNCTUAL, OPTION_COUNT };

static void set_number(struct options *o, const struct number *row, const char *text)
{
    uint64_t value = 0;
    if (!slice_to_u64(slice_str(text), &value) || value < row->min || value > row->max) {
        usage();
    }
    (void)memcpy((char *)o + row->offset, &value, sizeof(value));
}

static void add_header(struct options *o, char *text)
{
    char *colon = strchr(text, ':');
    if (colon == NULL || o->header_count == OPTION_HEADERS_MAX) {
        usage();
    }
    *colon = '\0';
    o->headers[2 * o->header_count] = text;
    o->headers[2 * o->header_count + 1] = colon + 1 + strspn(colon + 1, " ");
    o->header_count++;
}

static enum load_protocol protocol_of(const char *text)
{
    bool http1 = strcmp(text, "http1") == 0;
    if (!http1 && strcmp(text, "grpc") != 0) {
        usage();
    }
    return http1 ? LOAD_HTTP1 : LOAD_GRPC;
}

static void take(struct options *o, int option, char *value)
{
    if (option >= 0 && option < NUMBER_COUNT) {
        set_number(o, &numbers[option], value);
        return;
    }
    switch (option) {
    case OPTION_HOST:
        o->host = value;
        break;
    case OPTION_PORT:
        o->port = value;
        break;
    case OPTION_PATH:
        o->work.path = value;
        break;
    case OPTION_PROTOCOL:
        o->work.protocol = protocol_of(value);
        break;
    case OPTION_HEADER:
        add_header(o, value);
        break;
    case OPTION_TLS_CA:
        o->tls.ca = value;
        break;
    case OPTION_TLS_CERT:
        o->tls.cert = value;
        break;
    case OPTION_TLS_KEY:
        o->tls.key = value;
        break;
    case OPTION_BODY_FILE:
        o->body_file = value;
        break;
    case OPTION_HOLD:
        o->hold = true;
        break;
    case OPTION_NO_ECHO:
        o->work.expect_echo = false;
        break;
    case OPTION_PUNCTUAL:
        o->punctual = true;
        break;
    default:
        usage();
    }
}

/* A gRPC message: five bytes of prefix, then field 1, bytes, so that protobuf takes it. */
static size_t add_prefix(uint8_t *to, size_t payload)
{
    size_t varint = payload < 128 ? 1 : payload < 16384 ? 2 : 3;
    size_t message = 1 + varint + payload;
    size_t at = 0;
    to[at++] = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        to[at++] = (uint8_t)(message >> shift);
    }
    to[at++] = 0x0a;
    for (size_t i = 0; i < varint; i++) {
        to[at++] = (uint8_t)((payload & 127) | (i + 1 < varint ? 128 : 0));
        payload >>= 7;
    }
    return at;
}

/* A certificate comes with its key, and where there is a CA. */
static void check_tls(const struct wire_files *tls)
{
    if ((tls->cert == NULL) != (tls->key == NULL) || (tls->cert != NULL && tls->ca == NULL)) {
        usage();
    }
}

/* The whole of a file, which has at most BODY_MAX bytes. */
static size_t read_body(const char *path, uint8_t *to)
{
    FILE *file = fopen(path, "rb");
    size_t size = file == NULL ? 0 : fread(to, 1, BODY_MAX, file);
    bool whole = file != NULL && fgetc(file) == EOF && ferror(file) == 0;
    if (file != NULL) {
        (void)fclose(file);
    }
    if (!whole) {
        (void)fprintf(stderr, "load: %s cannot be read, or has more than %d bytes\n", path,
                      BODY_MAX);
        exit(2);
    }
    return size;
}

static void make_body(struct options *o)
{
    static uint8_t body[BODY_MAX + PREFIX_MAX];
    o->work.body = body;
    if (o->body_file != NULL) {
        o->work.body_bytes = read_body(o->body_file, body);
        return;
    }
    size_t at = o->work.protocol == LOAD_GRPC ? add_prefix(body, o->body_bytes) : 0;
    for (size_t i = 0; i < o->body_bytes; i++) {
        body[at++] = (uint8_t)('a' + i % 26);
    }
    o->work.body_bytes = at;
}

void options_read(int argc, char **argv, struct options *out)
{
    static const char *const words[] = {"host",      "port",    "path",     "protocol",
                                        "header",    "tls-ca",  "tls-cert", "tls-key",
                                        "body-file", "no-echo", "hold",     "punctual"};
    struct option flags[OPTION_COUNT + 1] = {0};
    for (int i = 0; i < OPTION_COUNT; i++) {
        flags[i].name = i < NUMBER_COUNT ? numbers[i].name : words[i - NUMBER_COUNT];
        flags[i].has_arg = i >= OPTION_NO_ECHO ? no_argument : required_argument;
        flags[i].val = i;
    }
    *out = (struct options){.host = "127.0.0.1",
                            .rate = 1000,
                            .connections = 8,
                            .streams = 32,
                            .warmup_ms = 1000,
                            .duration_ms = 5000,
                            .await_ms = 2000,
                            .body_bytes = 128,
                            .work.expect_echo = true};
    for (int c = getopt_long(argc, argv, "", flags, NULL); c != -1;
         c = getopt_long(argc, argv, "", flags, NULL)) {
        take(out, c, optarg);
    }
    if (out->port == NULL || out->work.path == NULL || optind != argc) {
        usage();
    }
    check_tls(&out->tls);
    make_body(out);
    (void)snprintf(out->authority, sizeof(out->authority), "%s:%s", out->host, out->port);
    out->work.authority = out->authority;
    out->work.headers = out->headers;
}
