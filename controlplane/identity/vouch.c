/* vouch: see vouch.h. */
#include "controlplane/identity/vouch.h"

#include <sodium.h>
#include <string.h>

#include "common/base/check.h"

static const char given_tag[] = "trilane.dev/certificate/1";
static const char removed_tag[] = "trilane.dev/removal/1";
static const char token_tag[] = "trilane.dev/join-token/1";

static void add_number(crypto_generichash_state *state, int64_t number)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    }
    (void)crypto_generichash_update(state, bytes, sizeof(bytes));
}

/* Each with its NUL: no two lists of texts are the same bytes. */
static void begin(crypto_generichash_state *state, const uint8_t key[CP_VOUCH_KEY_SIZE],
                  const char *const *texts, size_t count)
{
    CHECK(key != NULL);
    (void)crypto_generichash_init(state, key, CP_VOUCH_KEY_SIZE, CP_WARRANT_SIZE);
    for (size_t i = 0; i < count; i++) {
        (void)crypto_generichash_update(state, (const uint8_t *)texts[i], strlen(texts[i]) + 1);
    }
}

static void vouch(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *tag, const char *environment,
                  const struct cp_certificate *c, uint8_t out[CP_WARRANT_SIZE])
{
    const char *const texts[] = {tag, environment, c->node, c->serial};
    crypto_generichash_state state;
    begin(&state, key, texts, sizeof(texts) / sizeof(texts[0]));
    add_number(&state, c->not_after_ms);
    (void)crypto_generichash_final(&state, out, CP_WARRANT_SIZE);
}

void cp_vouch_given(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                    const struct cp_certificate *certificate, uint8_t out[CP_WARRANT_SIZE])
{
    vouch(key, given_tag, environment, certificate, out);
}

void cp_vouch_removed(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_certificate *certificate, uint8_t out[CP_WARRANT_SIZE])
{
    vouch(key, removed_tag, environment, certificate, out);
}

bool cp_vouched_given(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_certificate *certificate)
{
    uint8_t wanted[CP_WARRANT_SIZE];
    vouch(key, given_tag, environment, certificate, wanted);
    return sodium_memcmp(wanted, certificate->warrant, sizeof(wanted)) == 0;
}

bool cp_vouched_removed(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                        const struct cp_certificate *certificate)
{
    uint8_t wanted[CP_WARRANT_SIZE];
    vouch(key, removed_tag, environment, certificate, wanted);
    return certificate->removed_ms != 0 &&
           sodium_memcmp(wanted, certificate->removal, sizeof(wanted)) == 0;
}

/* ---- tokens ---- */

void cp_vouch_token(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                    const struct cp_join_token *token, uint8_t out[CP_WARRANT_SIZE])
{
    const char *const texts[] = {token_tag, environment, token->node, token->labels, token->author};
    crypto_generichash_state state;
    begin(&state, key, texts, sizeof(texts) / sizeof(texts[0]));
    (void)crypto_generichash_update(&state, token->digest, sizeof(token->digest));
    add_number(&state, token->expires_ms);
    (void)crypto_generichash_final(&state, out, CP_WARRANT_SIZE);
}

bool cp_vouched_token(const uint8_t key[CP_VOUCH_KEY_SIZE], const char *environment,
                      const struct cp_join_token *token)
{
    uint8_t wanted[CP_WARRANT_SIZE];
    cp_vouch_token(key, environment, token, wanted);
    return sodium_memcmp(wanted, token->warrant, sizeof(wanted)) == 0;
}
