/* streams: see streams.h. */
#include "controlplane/publish/streams.h"

#include "common/base/check.h"
#include "common/snapshot/parts.h"

static const struct cut_stream *find_stream(const struct cp_streams *s, uint32_t kind)
{
    for (size_t i = 0; s != NULL && i < s->count; i++) {
        if (s->streams[i].kind == kind) {
            return &s->streams[i];
        }
    }
    return NULL;
}

static struct err cut_kind(struct cp_streams *s, const struct cp_part *parts, size_t count,
                           const struct cp_streams_options *options)
{
    if (s->count == STREAMS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    struct buf *raw = &s->raw[s->count];
    *raw = BUF_MAX(STREAM_RAW_MAX);
    struct part_writer writer = {.out = raw};
    for (size_t i = 0; i < count; i++) {
        TRY(part_add(&writer, parts[i].key, cp_part_bytes(&parts[i], s->format)));
    }
    const struct cut_options cut = {.known = options->known,
                                    .look = options->look,
                                    .context = options->context,
                                    .before = find_stream(options->before, parts[0].kind)};
    struct cut_stream *stream = &s->streams[s->count];
    TRY(cut_stream(parts[0].kind, buf_slice(raw), &cut, stream));
    stream->format = stream_format(stream->kind, s->format);
    s->count++;
    return OK;
}

static struct err cut_all(const struct cp_compiled *compiled,
                          const struct cp_streams_options *options, struct cp_streams *s)
{
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(compiled, &count);
    for (size_t from = 0; from < count;) {
        size_t to = from + 1;
        while (to < count && parts[to].kind == parts[from].kind) {
            to++;
        }
        TRY(cut_kind(s, parts + from, to - from, options));
        from = to;
    }
    return OK;
}

uint32_t cp_streams_format(const struct cp_compiled *compiled, uint32_t format)
{
    uint32_t least = cp_compiled_format_least(compiled);
    return format < least ? least : format;
}

struct err cp_streams_cut(const struct cp_compiled *compiled,
                          const struct cp_streams_options *options, struct cp_streams *out)
{
    CHECK(out->count == 0);
    out->format = cp_streams_format(compiled, options->format);
    struct err e = cut_all(compiled, options, out);
    if (!err_ok(e)) {
        cp_streams_free(out);
    }
    return e;
}

void cp_streams_free(struct cp_streams *s)
{
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        cut_stream_free(&s->streams[i]);
        buf_free(&s->raw[i]);
    }
    s->count = 0;
}

size_t cp_streams_bytes(const struct cp_streams *s)
{
    size_t bytes = sizeof(*s);
    for (size_t i = 0; i < s->count; i++) {
        const struct cut_stream *stream = &s->streams[i];
        bytes += s->raw[i].capacity + stream->chunk_count * sizeof(*stream->chunks);
        for (size_t k = 0; k < stream->chunk_count; k++) {
            bytes += stream->chunks[k].owned == NULL ? 0 : stream->chunks[k].stored.size;
        }
    }
    return bytes;
}
