/* cel_token: the words of a condition. */
#include <string.h>

#include "controlplane/source/cel_impl.h"

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_word(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The character behind a backslash. */
static bool read_escape(struct cel_parsing *p, uint8_t *out)
{
    uint8_t c = p->at < p->text.size ? p->text.ptr[p->at] : 0;
    if (c != '\\' && c != '\'' && c != '"') {
        return cel_fault_at(p, p->at - 1, "an escape that is not taken", "\\\\, \\' or \\\"");
    }
    p->at++;
    *out = c;
    return true;
}

/* The text between two quotes, without its escapes. False: it does not end, or escapes wrongly. */
static bool read_text(struct cel_parsing *p, uint8_t quote)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!err_ok(arena_alloc(p->arena, p->text.size - p->at + 1, (void **)&bytes))) {
        return cel_no_memory(p);
    }
    while (p->at < p->text.size && p->text.ptr[p->at] != quote) {
        uint8_t c = p->text.ptr[p->at++];
        if (c == '\\' && !read_escape(p, &c)) {
            return false;
        }
        if (c < 0x20 || c == 0x7f) {
            return cel_fault_at(p, p->at - 1, "a control character in a text",
                                /* expected= */ NULL);
        }
        bytes[size++] = c;
    }
    if (p->at == p->text.size) {
        return cel_fault(p, "a text without its closing quote", /* expected= */ NULL);
    }
    p->at++;
    bytes[size] = '\0';
    p->token = CEL_TOKEN_TEXT;
    p->value = slice_of(bytes, size);
    return size <= CP_CEL_TEXT_MAX || cel_too_large(p, "a text is too long", "at most 256 bytes");
}

static bool read_word(struct cel_parsing *p)
{
    while (p->at < p->text.size && is_word(p->text.ptr[p->at])) {
        p->at++;
    }
    p->value = slice_of(p->text.ptr + p->begin, p->at - p->begin);
    p->token = slice_eq(p->value, SLICE_LIT("in")) ? CEL_TOKEN_IN : CEL_TOKEN_WORD;
    return true;
}

static bool read_sign(struct cel_parsing *p)
{
    static const struct {
        const char *sign;
        enum cel_token token;
    } signs[] = {
        /* the longer first. */
        {"&&", CEL_TOKEN_AND},       {"||", CEL_TOKEN_OR},      {"==", CEL_TOKEN_EQUAL},
        {"!=", CEL_TOKEN_UNEQUAL},   {"<=", CEL_TOKEN_AT_MOST}, {">=", CEL_TOKEN_AT_LEAST},
        {"<", CEL_TOKEN_LESS},       {">", CEL_TOKEN_GREATER},  {"-", CEL_TOKEN_MINUS},
        {"!", CEL_TOKEN_NOT},        {".", CEL_TOKEN_DOT},      {",", CEL_TOKEN_COMMA},
        {"(", CEL_TOKEN_OPEN},       {")", CEL_TOKEN_CLOSE},    {"[", CEL_TOKEN_LIST_OPEN},
        {"]", CEL_TOKEN_LIST_CLOSE},
    };
    struct slice rest = slice_from(p->text, p->begin);
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        if (slice_starts(rest, slice_str(signs[i].sign))) {
            p->token = signs[i].token;
            p->at = p->begin + strlen(signs[i].sign);
            return true;
        }
    }
    p->token = CEL_TOKEN_OTHER;
    p->at = p->begin + 1;
    uint8_t c = rest.ptr[0];
    if (c == '=' || c == '&' || c == '|') {
        return cel_fault(p, "an operator that is not taken", "==, && or ||");
    }
    return cel_fault(p, "a character that begins nothing", "an attribute, a text, !, && or ||");
}

/* Moves on to the next token. False: a fault was said. */
bool cel_next(struct cel_parsing *p)
{
    while (p->at < p->text.size && is_space(p->text.ptr[p->at])) {
        p->at++;
    }
    p->begin = p->at;
    if (p->at == p->text.size) {
        p->token = CEL_TOKEN_END;
        return true;
    }
    uint8_t c = p->text.ptr[p->at];
    if (c == '"' || c == '\'') {
        p->at++;
        return read_text(p, c);
    }
    return is_word(c) ? read_word(p) : read_sign(p);
}

bool cel_take(struct cel_parsing *p, enum cel_token token, const char *message,
              const char *expected)
{
    return p->token == token ? cel_next(p) : cel_fault(p, message, expected);
}
