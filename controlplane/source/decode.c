/* decode: see decode.h. Scalars are in decode_scalar.c. */
#include "controlplane/source/decode.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "controlplane/source/decode_scalar.h"

/* What every {items, count} list looks like. */
struct any_list {
    void *items;
    size_t count;
};

struct cp_near cp_near_to(struct slice wanted)
{
    return (struct cp_near){.wanted = wanted, .distance = 2 + wanted.size / 4};
}

enum { FOLDED_BYTES = 64 }; /* what text_distance() takes. */

/* Without case, hyphens and underscores: LEAST_REQUEST is leastRequest in other clothes. */
static struct slice folded(struct slice name, uint8_t out[FOLDED_BYTES])
{
    size_t size = 0;
    for (size_t i = 0; i < name.size && size < FOLDED_BYTES; i++) {
        uint8_t c = name.ptr[i];
        if (c != '-' && c != '_') {
            out[size++] = c >= 'A' && c <= 'Z' ? (uint8_t)(c - 'A' + 'a') : c;
        }
    }
    return slice_of(out, size);
}

/* One more where only the clothes are alike, so that what is written alike goes before it. */
static size_t distance_of(struct slice a, struct slice b)
{
    uint8_t a_folded[FOLDED_BYTES];
    uint8_t b_folded[FOLDED_BYTES];
    size_t written = text_distance(a, b);
    if (a.size > FOLDED_BYTES || b.size > FOLDED_BYTES || written == 0) {
        return written;
    }
    size_t undressed = text_distance(folded(a, a_folded), folded(b, b_folded)) + 1;
    return undressed < written ? undressed : written;
}

void cp_near_offer(struct cp_near *near, struct slice name)
{
    size_t distance = distance_of(near->wanted, name);
    bool first =
        distance == near->distance && near->best.size > 0 && slice_cmp(name, near->best) < 0;
    if (distance < near->distance || first) {
        near->distance = distance;
        near->best = name;
    }
}

size_t cp_decode_faults(const struct cp_decode *d)
{
    return d->diags->count + d->diags->dropped + d->doubts;
}

static MUST_CHECK struct err decode_field(struct cp_decode *d, const struct cp_field *field,
                                          const struct cp_yaml *node, void *out);

enum { FIELDS_MAX = 32 }; /* of a shape. */

/* The values of one mapping, by the fields of its shape. */
struct values {
    const struct cp_yaml *of[FIELDS_MAX]; /* NULL: not given. */
    bool unknown;                         /* a key is there that stands for no field. */
};

/* Counts how many of "a|b|c" are given. */
static size_t given(const struct cp_shape *shape, const struct values *values, const char *names)
{
    size_t count = 0;
    struct slice rest = slice_str(names);
    struct slice name = {0};
    while (cp_choice_next(&rest, &name)) {
        for (size_t i = 0; i < shape->field_count; i++) {
            count += values->of[i] != NULL && slice_eq(slice_str(shape->fields[i].name), name);
        }
    }
    return count;
}

static void check_choice(struct cp_decode *d, const struct cp_shape *shape,
                         const struct values *values, struct cp_pos at)
{
    const char *names = shape->one_of != NULL    ? shape->one_of
                        : shape->at_most != NULL ? shape->at_most
                                                 : shape->required;
    if (names == NULL) {
        return;
    }
    size_t count = given(shape, values, names);
    bool fits = shape->one_of != NULL    ? count == 1
                : shape->at_most != NULL ? count <= 1
                                         : count > 0;
    if (fits || (count == 0 && values->unknown)) {
        return; /* the unknown key was refused with the names of the right ones */
    }
    struct cp_diag *diag =
        cp_diags_add(d->diags, CP_DIAG_CHOICE, at, "here are %zu of the keys %s", count, names);
    cp_diag_expect(d->diags, diag, "%s of %s",
                   shape->one_of != NULL    ? "exactly one"
                   : shape->at_most != NULL ? "at most one"
                                            : "at least one",
                   names);
}

/* Index of the field of that name, or the number of fields. */
static size_t find_field(const struct cp_shape *shape, struct slice name)
{
    size_t i = 0;
    while (i < shape->field_count && !slice_eq(name, slice_str(shape->fields[i].name))) {
        i++;
    }
    return i;
}

/* Refuses a key, and takes its value for that of the field that is nearest. */
static MUST_CHECK struct err refuse_key(struct cp_decode *d, const struct cp_shape *shape,
                                        const struct cp_yaml *key, const struct cp_yaml *value,
                                        struct values *out)
{
    if (cp_secret_key(key->text) && value->kind == CP_YAML_SCALAR) {
        struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_SECRET_IN_CLEAR, value->at,
                                            "the value of \"%.*s\" looks like a secret in clear",
                                            SLICE_ARG(slice_head(key->text, 64)));
        cp_diag_expect(d->diags, diag, "a digest or a reference, never the secret itself");
        cp_diag_mask(d->diags, diag);
        out->unknown = true;
        return OK;
    }
    struct cp_near near = cp_near_to(key->text);
    struct buf names = BUF_MAX(4096);
    struct err e = OK;
    for (size_t i = 0; i < shape->field_count && err_ok(e); i++) {
        cp_near_offer(&near, slice_str(shape->fields[i].name));
        e = buf_addf(&names, "%s%s", i == 0 ? "" : ", ", shape->fields[i].name);
    }
    struct cp_diag *diag =
        cp_diags_add(d->diags, CP_DIAG_KEY_UNKNOWN, key->at, "key \"%.*s\" is unknown here",
                     SLICE_ARG(slice_head(key->text, 64)));
    cp_diag_expect(d->diags, diag, "one of %.*s", SLICE_ARG(buf_slice(&names)));
    cp_diag_nearest(d->diags, diag, near.best);
    buf_free(&names);
    size_t meant = find_field(shape, near.best);
    if (meant < shape->field_count && out->of[meant] == NULL) {
        out->of[meant] = value;
    } else {
        out->unknown = true;
    }
    return e;
}

/* Finds the values of a mapping: first of the right keys, then of those that are wrong. */
static MUST_CHECK struct err find_values(struct cp_decode *d, const struct cp_shape *shape,
                                         const struct cp_yaml *node, struct values *out)
{
    CHECK(shape->field_count <= FIELDS_MAX);
    for (size_t i = 0; i < shape->field_count; i++) {
        out->of[i] = cp_yaml_get(node, shape->fields[i].name);
    }
    for (size_t i = 0; i < node->kid_count; i += 2) {
        const struct cp_yaml *key = node->kids[i];
        if (key->kind == CP_YAML_SCALAR && find_field(shape, key->text) == shape->field_count) {
            TRY(refuse_key(d, shape, key, node->kids[i + 1], out));
        }
    }
    return OK;
}

/* A field that is not there: its default, or the defaults of what it holds. */
static MUST_CHECK struct err decode_absent(struct cp_decode *d, const struct cp_field *field,
                                           struct cp_pos at, void *out)
{
    if (field->required) {
        struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_KEY_MISSING, at,
                                            "key \"%s\" is missing here", field->name);
        cp_diag_expect(d->diags, diag, "%s: %s", field->name, field->help);
        return OK;
    }
    if (field->type == CP_TYPE_OBJECT && field->flat) {
        return cp_decode_shape(d, field->shape, NULL, at, out);
    }
    if (field->dflt == NULL) {
        return OK;
    }
    struct cp_yaml scalar = {
        .kind = CP_YAML_SCALAR, .plain = true, .text = slice_str(field->dflt), .weight = 1};
    struct cp_yaml *kids[] = {&scalar};
    struct cp_yaml list = {.kind = CP_YAML_LIST, .kids = kids, .kid_count = 1};
    return decode_field(d, field, field->type == CP_TYPE_TEXTS ? &list : &scalar, out);
}

struct err cp_decode_shape(struct cp_decode *d, const struct cp_shape *shape,
                           const struct cp_yaml *node, struct cp_pos at, void *out)
{
    struct values values = {0};
    if (node != NULL && node->kind != CP_YAML_MAP) {
        cp_refuse_type(d, node, "a mapping");
        return OK;
    }
    if (node != NULL) {
        d->doubts += node->doubtful;
        TRY(find_values(d, shape, node, &values));
        check_choice(d, shape, &values, at);
    }
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        void *to = field->flat ? out : (char *)out + field->offset;
        if (values.of[i] != NULL) {
            if (field->place > 0) {
                *(struct cp_pos *)((char *)out + field->place) = values.of[i]->at;
            }
            TRY(decode_field(d, field, values.of[i], to));
        } else if (field->required || !values.unknown) {
            TRY(decode_absent(d, field, at, to));
        }
    }
    return OK;
}

/* An object with a place of its own, which says whether it is faulty. */
static MUST_CHECK struct err decode_object(struct cp_decode *d, const struct cp_shape *shape,
                                           const struct cp_yaml *node, void *out)
{
    struct cp_object *object = out; /* all of them begin alike */
    size_t before = cp_decode_faults(d);
    object->at = node->at;
    TRY(cp_decode_shape(d, shape, node, node->at, out));
    object->faulty = cp_decode_faults(d) != before;
    return OK;
}

static bool fits_count(struct cp_decode *d, const struct cp_field *field,
                       const struct cp_yaml *node, size_t count)
{
    if (count >= field->min && count <= field->max) {
        return true;
    }
    struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_OUT_OF_BOUND, node->at,
                                        "\"%s\" has %zu items", field->name, count);
    cp_diag_expect(d->diags, diag, "%llu to %llu", (unsigned long long)field->min,
                   (unsigned long long)field->max);
    return false;
}

static bool is_list(struct cp_decode *d, const struct cp_yaml *node)
{
    if (node->kind != CP_YAML_LIST) {
        cp_refuse_type(d, node, "a list");
        return false;
    }
    return true;
}

static MUST_CHECK struct err decode_objects(struct cp_decode *d, const struct cp_field *field,
                                            const struct cp_yaml *node, struct any_list *out)
{
    if (!is_list(d, node) || !fits_count(d, field, node, node->kid_count)) {
        return OK;
    }
    TRY(arena_calloc(d->arena, node->kid_count + 1, field->shape->size, &out->items));
    for (size_t i = 0; i < node->kid_count; i++) {
        void *item = (char *)out->items + i * field->shape->size;
        TRY(decode_object(d, field->shape, node->kids[i], item));
    }
    out->count = node->kid_count;
    return OK;
}

static int text_cmp(const void *x, const void *y)
{
    const struct cp_text *a = x;
    const struct cp_text *b = y;
    int order = slice_cmp(a->text, b->text);
    if (order != 0) {
        return order;
    }
    order = (a->at.line > b->at.line) - (a->at.line < b->at.line);
    return order != 0 ? order : (a->at.column > b->at.column) - (a->at.column < b->at.column);
}

/* Sorts a set of texts and refuses what is in it twice. */
static void sort_texts(struct cp_decode *d, struct cp_texts *texts)
{
    if (texts->count > 1) {
        qsort(texts->items, texts->count, sizeof(struct cp_text), text_cmp);
    }
    for (size_t i = 1; i < texts->count; i++) {
        if (texts->items[i].text.size > 0 &&
            slice_eq(texts->items[i].text, texts->items[i - 1].text)) {
            struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_DUPLICATE_VALUE,
                                                texts->items[i].at, "\"%.*s\" is here twice",
                                                SLICE_ARG(slice_head(texts->items[i].text, 64)));
            cp_diag_expect(d->diags, diag, "each once");
            cp_diag_other(d->diags, diag, texts->items[i - 1].at);
        }
    }
}

static MUST_CHECK struct err decode_texts(struct cp_decode *d, const struct cp_field *field,
                                          const struct cp_yaml *node, struct cp_texts *out)
{
    if (!is_list(d, node) || !fits_count(d, field, node, node->kid_count)) {
        return OK;
    }
    TRY(arena_calloc(d->arena, node->kid_count + 1, sizeof(struct cp_text), (void **)&out->items));
    for (size_t i = 0; i < node->kid_count; i++) {
        TRY(field->type == CP_TYPE_PORTS ? cp_decode_port(d, node->kids[i], &out->items[i])
                                         : cp_decode_text(d, field, node->kids[i], &out->items[i]));
    }
    out->count = node->kid_count;
    sort_texts(d, out);
    return OK;
}

static int pair_cmp(const void *x, const void *y)
{
    return slice_cmp(((const struct cp_pair *)x)->name.text,
                     ((const struct cp_pair *)y)->name.text);
}

/* One entry of a mapping of names to text. */
static MUST_CHECK struct err decode_pair(struct cp_decode *d, const struct cp_field *field,
                                         const struct cp_yaml *key, const struct cp_yaml *value,
                                         struct cp_pair *out)
{
    static const struct cp_field key_field = {
        .name = "key", .type = CP_TYPE_TEXT, .form = CP_FORM_KEY};
    if (key->kind != CP_YAML_SCALAR) {
        return OK; /* it was refused when it was parsed */
    }
    TRY(cp_decode_text(d, &key_field, key, &out->name));
    if (cp_secret_key(key->text) && value->kind == CP_YAML_SCALAR) {
        cp_refuse_secret(d, value->at, "a secret, by its name,");
        return OK;
    }
    return cp_decode_text(d, field, value, &out->value);
}

static MUST_CHECK struct err decode_pairs(struct cp_decode *d, const struct cp_field *field,
                                          const struct cp_yaml *node, struct cp_pairs *out)
{
    if (node->kind != CP_YAML_MAP) {
        cp_refuse_type(d, node, "a mapping of names to text");
        return OK;
    }
    d->doubts += node->doubtful;
    size_t count = node->kid_count / 2;
    if (!fits_count(d, field, node, count)) {
        return OK;
    }
    TRY(arena_calloc(d->arena, count + 1, sizeof(struct cp_pair), (void **)&out->items));
    for (size_t i = 0; i < count; i++) {
        TRY(decode_pair(d, field, node->kids[2 * i], node->kids[2 * i + 1], &out->items[i]));
    }
    out->count = count;
    if (count > 1) {
        qsort(out->items, count, sizeof(struct cp_pair), pair_cmp);
    }
    return OK;
}

static void decode_flags(struct cp_decode *d, const struct cp_field *field,
                         const struct cp_yaml *node, uint64_t *out)
{
    if (!is_list(d, node)) {
        return;
    }
    if (node->kid_count < field->min) {
        struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_OUT_OF_BOUND, node->at,
                                            "\"%s\" has no items", field->name);
        cp_diag_expect(d->diags, diag, "one or more of %s%s", field->choices,
                       field->required ? "" : "; or no such key");
    }
    for (size_t i = 0; i < node->kid_count; i++) {
        uint64_t index = 0;
        if (!cp_decode_choice(d, field, node->kids[i], &index)) {
            continue;
        }
        if ((*out >> index & 1) != 0) {
            struct cp_diag *diag =
                cp_diags_add(d->diags, CP_DIAG_DUPLICATE_VALUE, node->kids[i]->at,
                             "\"%.*s\" is here twice", SLICE_ARG(node->kids[i]->text));
            cp_diag_expect(d->diags, diag, "each once");
        }
        *out |= 1ULL << index;
    }
}

static MUST_CHECK struct err decode_ref(struct cp_decode *d, const struct cp_field *field,
                                        const struct cp_yaml *node, struct cp_ref *out)
{
    struct cp_field as_text = *field;
    as_text.type = CP_TYPE_TEXT;
    as_text.form = cp_ref_form(field);
    struct cp_text text = {0};
    TRY(cp_decode_text(d, &as_text, node, &text));
    out->text = text.text;
    out->at = node->at;
    return OK;
}

/* Fills one field. Recursion follows the table, which does not recur. */
static struct err decode_field(struct cp_decode *d, const struct cp_field *field,
                               const struct cp_yaml *node, void *out)
{
    switch (field->type) {
    case CP_TYPE_TEXT:
        return cp_decode_text(d, field, node, out);
    case CP_TYPE_TEXTS:
    case CP_TYPE_PORTS:
        return decode_texts(d, field, node, out);
    case CP_TYPE_COUNT:
    case CP_TYPE_BOOL:
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA:
        cp_decode_number(d, field, node, out);
        return OK;
    case CP_TYPE_CHOICE:
        (void)cp_decode_choice(d, field, node, out);
        return OK;
    case CP_TYPE_FLAGS:
        decode_flags(d, field, node, out);
        return OK;
    case CP_TYPE_REF:
        return decode_ref(d, field, node, out);
    case CP_TYPE_PAIRS:
        return decode_pairs(d, field, node, out);
    case CP_TYPE_OBJECT:
        return field->flat ? cp_decode_shape(d, field->shape, node, node->at, out)
                           : decode_object(d, field->shape, node, out);
    case CP_TYPE_OBJECTS:
        return decode_objects(d, field, node, out);
    }
    return OK;
}
