/* streams: see streams.h. */
#include "controlplane/publish/streams.h"

#include "common/snapshot/parts.h"

static struct err cut_kind(struct cp_streams *s, const struct cp_part *parts, size_t count,
                           cut_known_fn known, void *ctx)
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
    struct cut_stream *stream = &s->streams[s->count];
    const struct cut_options options = {.known = known, .context = ctx};
    TRY(cut_stream(parts[0].kind, buf_slice(raw), &options, stream));
    stream->format = stream_format(stream->kind, s->format);
    s->count++;
    return OK;
}

struct err cp_streams_cut(struct cp_streams *s, const struct cp_compiled *compiled, uint32_t format,
                          cut_known_fn known, void *ctx)
{
    size_t count = 0;
    uint32_t least = cp_compiled_format_least(compiled);
    s->format = format < least ? least : format;
    const struct cp_part *parts = cp_compiled_parts(compiled, &count);
    for (size_t from = 0; from < count;) {
        size_t to = from + 1;
        while (to < count && parts[to].kind == parts[from].kind) {
            to++;
        }
        TRY(cut_kind(s, parts + from, to - from, known, ctx));
        from = to;
    }
    return OK;
}

void cp_streams_free(struct cp_streams *s)
{
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        cut_stream_free(&s->streams[i]);
        buf_free(&s->raw[i]);
    }
    s->count = 0;
}
