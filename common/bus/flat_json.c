/* flat_json: see flat_json.h. */
#include "common/bus/flat_json.h"

static void skip_space(struct slice *s)
{
    while (s->size > 0 &&
           (s->ptr[0] == ' ' || s->ptr[0] == '\t' || s->ptr[0] == '\r' || s->ptr[0] == '\n')) {
        *s = slice_from(*s, 1);
    }
}

/* Takes 'byte' if it is next. */
static bool take(struct slice *s, uint8_t byte)
{
    skip_space(s);
    if (s->size == 0 || s->ptr[0] != byte) {
        return false;
    }
    *s = slice_from(*s, 1);
    return true;
}

/* Takes a string whose opening quote was taken; gives what is between the quotes. */
static struct err take_text(struct slice *s, struct slice *out)
{
    for (size_t i = 0; i < s->size; i++) {
        if (s->ptr[i] == '\\') {
            i++;
        } else if (s->ptr[i] == '"') {
            *out = slice_head(*s, i);
            *s = slice_from(*s, i + 1);
            return OK;
        }
    }
    return FAIL(E_MALFORMED);
}

/* Takes an object or array with all that is in it. */
static struct err take_nested(struct slice *s, struct slice *out)
{
    struct slice begin = *s;
    size_t depth = 0;
    while (s->size > 0) {
        uint8_t byte = s->ptr[0];
        *s = slice_from(*s, 1);
        struct slice text;
        if (byte == '"') {
            TRY(take_text(s, &text));
        } else if (byte == '{' || byte == '[') {
            depth++;
        } else if (byte == '}' || byte == ']') {
            depth--;
        }
        if (depth > FLAT_JSON_DEPTH_MAX) {
            return FAIL(E_MALFORMED);
        }
        if (depth == 0) {
            *out = slice_head(begin, begin.size - s->size);
            return OK;
        }
    }
    return FAIL(E_MALFORMED);
}

/* A number, true, false or null: up to what ends it. */
static struct err take_word(struct slice *s, struct slice *out)
{
    size_t size = 0;
    while (size < s->size && s->ptr[size] > ' ' && s->ptr[size] != ',' && s->ptr[size] != '}') {
        size++;
    }
    if (size == 0) {
        return FAIL(E_MALFORMED);
    }
    *out = slice_head(*s, size);
    *s = slice_from(*s, size);
    return OK;
}

static struct err take_value(struct slice *s, struct flat_json_member *m)
{
    m->is_text = take(s, '"');
    if (m->is_text) {
        return take_text(s, &m->value);
    }
    bool nested = s->size > 0 && (s->ptr[0] == '{' || s->ptr[0] == '[');
    return nested ? take_nested(s, &m->value) : take_word(s, &m->value);
}

struct flat_json flat_json_of(struct slice object)
{
    return (struct flat_json){.rest = object};
}

struct err flat_json_next(struct flat_json *j, struct flat_json_member *out, bool *out_more)
{
    struct slice s = j->rest;
    bool first = !j->began;
    if (first && !take(&s, '{')) {
        return FAIL(E_MALFORMED);
    }
    if (take(&s, '}')) {
        *out_more = false;
        return OK;
    }
    if ((!first && !take(&s, ',')) || !take(&s, '"')) {
        return FAIL(E_MALFORMED);
    }
    struct flat_json_member m;
    TRY(take_text(&s, &m.name));
    if (!take(&s, ':')) {
        return FAIL(E_MALFORMED);
    }
    TRY(take_value(&s, &m));
    *j = (struct flat_json){.rest = s, .began = true};
    *out = m;
    *out_more = true;
    return OK;
}
