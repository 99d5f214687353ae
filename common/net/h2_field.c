/* Tokens of header names, and fields of ours. */
#include "common/net/h2_field.h"

#include "common/base/check.h"

struct token_row {
    struct slice name;
    uint8_t flags;
};

#define USE_PLAIN 0
#define USE_VARIES H2_FIELD_VARIES
#define USE_SECRET H2_FIELD_NEVER_INDEX

#define X(token, name, use)                                                                        \
    [H2_TOKEN_##                                                                                   \
        token] = {{(const uint8_t *)(name), sizeof(name) - 1}, H2_FIELD_NAME_STATIC | USE_##use},
static const struct token_row token_rows[H2_TOKEN_COUNT] = {H2_TOKEN_LIST(X)};
#undef X

/* Longest name that has a token, and the most tokens whose names are of one length. */
enum { TOKEN_SIZE_MAX = 32, TOKENS_OF_ONE_SIZE = 8 };

/* The tokens whose names have a given length, the more frequent first; ends with OTHER. */
static uint8_t tokens_by_size[TOKEN_SIZE_MAX][TOKENS_OF_ONE_SIZE];

/* Filled before main() runs, so that look-ups need no check and threads no care. */
__attribute__((constructor(H2_TOKENS_READY))) static void fill_tokens_by_size(void)
{
    for (int token = 1; token < H2_TOKEN_COUNT; token++) {
        uint8_t *row = tokens_by_size[token_rows[token].name.size];
        while (*row != H2_TOKEN_OTHER) {
            row++;
        }
        *row = (uint8_t)token;
    }
}

enum h2_token h2_token_find(struct slice name)
{
    if (name.size == 0 || name.size >= TOKEN_SIZE_MAX) {
        return H2_TOKEN_OTHER;
    }
    uint8_t last = name.ptr[name.size - 1];
    for (const uint8_t *t = tokens_by_size[name.size]; *t != H2_TOKEN_OTHER; t++) {
        const uint8_t *candidate = token_rows[*t].name.ptr;
        if (candidate[name.size - 1] == last && memcmp(candidate, name.ptr, name.size) == 0) {
            return (enum h2_token) * t;
        }
    }
    return H2_TOKEN_OTHER;
}

struct slice h2_token_name(enum h2_token token)
{
    return token_rows[token].name;
}

uint8_t h2_token_flags(enum h2_token token)
{
    return token_rows[token].flags;
}

const struct h2_field *h2_fields_find(const struct h2_fields *f, struct slice name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (slice_eq(f->at[i].name, name)) {
            return &f->at[i];
        }
    }
    return NULL;
}

void h2_fields_append(struct h2_fields *f, const struct h2_field *field)
{
    CHECK(f->count < f->capacity);
    if (field->token != H2_TOKEN_OTHER) {
        uint64_t bit = UINT64_C(1) << field->token;
        f->repeated |= f->seen & bit;
        if ((f->seen & bit) == 0) {
            f->first[field->token] = f->count;
        }
        f->seen |= bit;
    }
    f->at[f->count++] = *field;
}

struct h2_field h2_field_of(enum h2_token token, struct slice value)
{
    return (struct h2_field){.name = token_rows[token].name,
                             .value = value,
                             .token = (uint8_t)token,
                             .flags = token_rows[token].flags};
}

struct h2_field h2_field_static(enum h2_token token, struct slice value)
{
    struct h2_field field = h2_field_of(token, value);
    field.flags |= H2_FIELD_VALUE_STATIC;
    return field;
}

struct h2_field h2_field_named(struct slice name, struct slice value)
{
    return (struct h2_field){.name = name, .value = value, .token = H2_TOKEN_OTHER};
}
