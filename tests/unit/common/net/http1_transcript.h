/*
 * http1_transcript: everything that a parser says of a stream, as text; for the unit test and the
 * fuzzer, which both compare what different cuts of one stream give.
 */
#pragma once

#include <stdio.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/net/http1.h"

enum { TRANSCRIPT_MAX = 4 << 20, TRANSCRIPT_FIELDS = 16, TRANSCRIPT_STORE = 1024 };

struct transcript {
    struct http1_parser parser;
    uint8_t bytes[TRANSCRIPT_STORE];
    struct http1_field fields[TRANSCRIPT_FIELDS];
    struct buf text;
    bool in_body; /* the last thing written was body: more of it is joined. */
    bool over;    /* an error, or a tunnel. */
};

static inline void transcript_init(struct transcript *t, enum http1_kind kind)
{
    *t = (struct transcript){.text = BUF_MAX(TRANSCRIPT_MAX)};
    struct http1_store store = {t->bytes, sizeof(t->bytes), t->fields, TRANSCRIPT_FIELDS};
    http1_parser_init(&t->parser, kind, &store);
}

static inline void transcript_fields(struct transcript *t, const struct http1_field *fields,
                                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CHECK(err_ok(buf_addf(&t->text, "[%.*s=%.*s]", SLICE_ARG(fields[i].name),
                              SLICE_ARG(fields[i].value))));
    }
}

static inline void transcript_head(struct transcript *t)
{
    const struct http1_head *h = &t->parser.head;
    CHECK(err_ok(buf_addf(&t->text, "{%.*s %.*s form=%d scheme=%.*s auth=%.*s path=%.*s ",
                          SLICE_ARG(h->method), SLICE_ARG(h->target), (int)h->form,
                          SLICE_ARG(h->scheme), SLICE_ARG(h->authority), SLICE_ARG(h->path))));
    CHECK(err_ok(buf_addf(&t->text, "%u %.*s 1.%u framing=%d length=%llu%s%s%s ", h->status,
                          SLICE_ARG(h->reason), h->minor, (int)h->framing,
                          (unsigned long long)h->length, h->keep_alive ? " keep" : "",
                          h->expect_continue ? " expect" : "", h->upgrade ? " upgrade" : "")));
    transcript_fields(t, h->fields, h->field_count);
    CHECK(err_ok(buf_add_str(&t->text, "}")));
}

static inline void transcript_failed(struct transcript *t, struct err e)
{
    t->over = true;
    CHECK(err_ok(buf_addf(&t->text, "!%s", err_name(e.code))));
}

/* Writes one event; false when nothing more comes of this input. */
static inline bool transcript_event(struct transcript *t, enum http1_event event)
{
    bool was_body = t->in_body;
    t->in_body = event == HTTP1_BODY;
    switch (event) {
    case HTTP1_MORE:
        t->in_body = was_body;
        return false;
    case HTTP1_HEAD:
        transcript_head(t);
        return true;
    case HTTP1_BODY:
        CHECK(t->parser.body.size > 0);
        CHECK(was_body || err_ok(buf_add_byte(&t->text, '<')));
        CHECK(err_ok(buf_add(&t->text, t->parser.body)));
        return true;
    case HTTP1_END:
        CHECK(err_ok(buf_add_str(&t->text, ">")));
        transcript_fields(t, t->parser.trailers, t->parser.trailer_count);
        http1_next(&t->parser);
        return true;
    case HTTP1_UPGRADED:
        t->over = true;
        CHECK(err_ok(buf_add_str(&t->text, "^")));
        return false;
    }
    return false;
}

static inline void transcript_feed(struct transcript *t, struct slice input)
{
    bool more = !t->over;
    while (more) {
        enum http1_event event = HTTP1_MORE;
        struct err e = http1_parse(&t->parser, &input, &event);
        if (!err_ok(e)) {
            transcript_failed(t, e);
            return;
        }
        more = transcript_event(t, event);
    }
    CHECK(t->over || input.size == 0);
}

static inline void transcript_eof(struct transcript *t)
{
    enum http1_event event = HTTP1_MORE;
    if (t->over) {
        return;
    }
    struct err e = http1_parse_eof(&t->parser, &event);
    if (!err_ok(e)) {
        transcript_failed(t, e);
        return;
    }
    (void)transcript_event(t, event);
    CHECK(err_ok(buf_add_str(&t->text, "$")));
}
