/* trace: see trace.h. */
#include "common/context/trace.h"

#include "common/base/ids.h"
#include "common/base/text.h"

/* Places in "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01". */
enum { AT_ID = 3, AT_SPAN = 36, AT_FLAGS = 53 };

static bool read_hex(struct slice text, uint8_t *out, size_t size);
static bool is_zero(const uint8_t *bytes, size_t size);
static void make(uint8_t *out, size_t size);

struct trace trace_new(bool sampled)
{
    struct trace t = {.flags = sampled ? TRACE_SAMPLED : 0};
    make(t.id, sizeof(t.id));
    make(t.span, sizeof(t.span));
    return t;
}

struct trace trace_child(const struct trace *parent)
{
    struct trace t = *parent;
    make(t.span, sizeof(t.span));
    return t;
}

/* Whether version and length fit: section 3.2.4, "Versioning of traceparent". */
static bool version_fits(struct slice text)
{
    uint8_t version = 0;
    if (text.size < TRACE_PARENT_SIZE || !read_hex(slice_head(text, 2), &version, 1)) {
        return false;
    }
    if (version == 0xff) {
        return false;
    }
    bool longer = text.size > TRACE_PARENT_SIZE;
    return version == 0 ? !longer : !longer || text.ptr[TRACE_PARENT_SIZE] == '-';
}

bool trace_parse(struct slice text, struct trace *out)
{
    if (!version_fits(text)) {
        return false;
    }
    bool dashes =
        text.ptr[AT_ID - 1] == '-' && text.ptr[AT_SPAN - 1] == '-' && text.ptr[AT_FLAGS - 1] == '-';
    struct trace t;
    bool hex = read_hex(slice_of(text.ptr + AT_ID, TRACE_ID_SIZE), t.id, sizeof(t.id)) &&
               read_hex(slice_of(text.ptr + AT_SPAN, (size_t)2 * TRACE_SPAN_BYTES), t.span,
                        sizeof(t.span)) &&
               read_hex(slice_of(text.ptr + AT_FLAGS, 2), &t.flags, 1);
    if (!dashes || !hex || is_zero(t.id, sizeof(t.id)) || is_zero(t.span, sizeof(t.span))) {
        return false;
    }
    t.flags &= TRACE_SAMPLED; /* the other bits are not ours to pass on. */
    *out = t;
    return true;
}

bool trace_from_id(struct slice text, struct trace *out)
{
    struct trace t = {.flags = 0};
    if (text.size != TRACE_ID_SIZE || !read_hex(text, t.id, sizeof(t.id)) ||
        is_zero(t.id, sizeof(t.id))) {
        return false;
    }
    make(t.span, sizeof(t.span));
    *out = t;
    return true;
}

struct trace trace_accept(struct slice traceparent, struct slice trace_id, bool sampled,
                          bool *out_known)
{
    struct trace t;
    *out_known = trace_parse(traceparent, &t) || trace_from_id(trace_id, &t);
    return *out_known ? t : trace_new(sampled);
}

void trace_format(const struct trace *trace, char out[TRACE_PARENT_SIZE + 1])
{
    out[0] = '0';
    out[1] = '0';
    text_hex(slice_of(trace->id, sizeof(trace->id)), out + AT_ID);
    text_hex(slice_of(trace->span, sizeof(trace->span)), out + AT_SPAN);
    text_hex(slice_of(&trace->flags, 1), out + AT_FLAGS);
    out[AT_ID - 1] = '-';
    out[AT_SPAN - 1] = '-';
    out[AT_FLAGS - 1] = '-';
}

void trace_format_id(const struct trace *trace, char out[TRACE_ID_SIZE + 1])
{
    text_hex(slice_of(trace->id, sizeof(trace->id)), out);
}

/* ---- tracestate ---- */

static bool key_byte(uint8_t b)
{
    return (b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || b == '_' || b == '-' || b == '*' ||
           b == '/' || b == '@';
}

/* "key=value": section 3.3.1; a key begins with a letter or digit, a value is visible ASCII. */
static bool member_fits(struct slice member)
{
    size_t equals = slice_find(member, '=');
    struct slice value = slice_from(member, equals + 1);
    if (equals == 0 || equals > 256 || value.size == 0 || value.size > 256) {
        return false;
    }
    for (size_t i = 0; i < equals; i++) {
        bool first_fits = i > 0 || (member.ptr[0] >= 'a' && member.ptr[0] <= 'z') ||
                          (member.ptr[0] >= '0' && member.ptr[0] <= '9');
        if (!key_byte(member.ptr[i]) || !first_fits) {
            return false;
        }
    }
    for (size_t i = 0; i < value.size; i++) {
        uint8_t b = value.ptr[i];
        if (b < ' ' || b > '~' || b == '=') {
            return false;
        }
    }
    return true;
}

bool trace_state_valid(struct slice text)
{
    if (text.size == 0 || text.size > TRACE_STATE_MAX) {
        return false;
    }
    size_t members = 0;
    for (struct slice rest = text; rest.size > 0;) {
        size_t comma = slice_find(rest, ',');
        struct slice member = slice_trim(slice_head(rest, comma));
        if (member.size > 0) { /* empty members are allowed, and count for nothing. */
            members++;
            if (!member_fits(member)) {
                return false;
            }
        }
        rest = slice_from(rest, comma + 1);
    }
    return members > 0 && members <= TRACE_STATE_MEMBERS;
}

/* ---- pieces ---- */

/* Lower-case hex alone, as the standard wants; text_unhex() takes both cases. Digits and small
 * letters have bit 0x20, capitals have not. */
static bool read_hex(struct slice text, uint8_t *out, size_t size)
{
    uint8_t common = 0x20;
    for (size_t i = 0; i < text.size; i++) {
        common &= text.ptr[i];
    }
    return common != 0 && err_ok(text_unhex(text, out, size));
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) {
        any |= bytes[i];
    }
    return any == 0;
}

/* Random and not all zero. */
static void make(uint8_t *out, size_t size)
{
    do { /* ends: zero comes once in 2^64 draws. */
        ids_quick(out, size);
    } while (is_zero(out, size));
}
