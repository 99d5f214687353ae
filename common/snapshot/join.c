/* join: see join.h. */
#include "common/snapshot/join.h"

#include <sodium.h>
#include <string.h>

#include "common/base/text.h"
#include "common/snapshot/wire.h"

enum { HEX_SIZE = 2 * JOIN_SECRET_SIZE };

_Static_assert(JOIN_SECRET_SIZE == JOIN_PIN_SIZE, "both are 64 hex digits");

static const char join_domain[] = "trilane.dev/join/1";
static const char renew_domain[] = "trilane.dev/renew/1";
static const char present_domain[] = "trilane.dev/present/1";

void join_token_wipe(struct join_token *token)
{
    sodium_memzero(token, sizeof(*token));
}

struct err join_token_print(const struct join_token *token, struct buf *out)
{
    char secret[HEX_SIZE + 1];
    char pin[HEX_SIZE + 1] = "-";
    text_hex(slice_of(token->secret, JOIN_SECRET_SIZE), secret);
    if (token->has_pin) {
        text_hex(slice_of(token->pin, JOIN_PIN_SIZE), pin);
    }
    struct err e = buf_addf(out, "tlj1.%s.%s.%s.%s", token->environment, token->node, secret, pin);
    sodium_memzero(secret, sizeof(secret));
    return e;
}

static struct slice next_field(struct slice *rest)
{
    struct slice field = slice_head(*rest, slice_find(*rest, '.'));
    *rest = slice_from(*rest, field.size + 1);
    return field;
}

static struct err read_name(struct slice text, char out[KEY_NAME_MAX + 1])
{
    if (!text_is_name(text)) {
        return FAIL(E_MALFORMED);
    }
    memcpy(out, text.ptr, text.size);
    out[text.size] = '\0';
    return OK;
}

struct err join_token_parse(struct slice text, struct join_token *out)
{
    auto_join_token struct join_token token = {.has_pin = true};
    struct slice rest = text;
    if (!slice_eq(next_field(&rest), SLICE_LIT("tlj1"))) {
        return FAIL(E_MALFORMED);
    }
    TRY(read_name(next_field(&rest), token.environment));
    TRY(read_name(next_field(&rest), token.node));
    TRY(text_unhex(next_field(&rest), token.secret, JOIN_SECRET_SIZE));
    token.has_pin = !slice_eq(rest, SLICE_LIT("-"));
    if (token.has_pin) {
        TRY(text_unhex(rest, token.pin, JOIN_PIN_SIZE));
    }
    *out = token;
    return OK;
}

void join_token_digest(const struct join_token *token, uint8_t out[DIGEST_SIZE])
{
    ids_digest(slice_of(token->secret, JOIN_SECRET_SIZE), out);
}

/* Every field but the name at the end is of a fixed size: no two statements have the same bytes. */
static struct err add_digest(struct buf *out, struct slice bytes)
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(bytes, digest);
    return buf_add(out, slice_of(digest, DIGEST_SIZE));
}

struct err join_statement(const struct join_statement *s, struct buf *out)
{
    TRY(buf_add(out, slice_of(join_domain, sizeof(join_domain)))); /* its NUL, too. */
    TRY(buf_add(out, slice_of(s->environment, ENVIRONMENT_SIZE)));
    TRY(buf_add(out, slice_of(s->token, DIGEST_SIZE)));
    TRY(add_digest(out, s->csr));
    return buf_add(out, s->node);
}

struct err renew_statement(const struct renew_statement *s, struct buf *out)
{
    uint8_t numbers[16];
    wire_put64(numbers, (uint64_t)s->at_ms);
    wire_put64(numbers + 8, s->count);
    TRY(buf_add(out, slice_of(renew_domain, sizeof(renew_domain))));
    TRY(buf_add(out, slice_of(s->environment, ENVIRONMENT_SIZE)));
    TRY(buf_add(out, slice_of(numbers, sizeof(numbers))));
    TRY(add_digest(out, s->csr));
    return buf_add(out, s->node);
}

struct err present_statement(const struct renew_statement *s,
                             const uint8_t status_key[KEY_PUBLIC_SIZE], struct buf *out)
{
    TRY(buf_add(out, slice_of(present_domain, sizeof(present_domain))));
    TRY(buf_add(out, slice_of(status_key, KEY_PUBLIC_SIZE)));
    return renew_statement(s, out);
}
