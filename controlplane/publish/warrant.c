/* warrant: see warrant.h. */
#include "controlplane/publish/warrant.h"

#include <sodium.h>
#include <string.h>

#include "common/base/check.h"

enum {
    PASSES = 2,
    MEMORY_BYTES = 16 << 20,
};

static const char key_tag[] = "trilane.dev/warrant/1";
static const char proposal_tag[] = "trilane.dev/proposal/1";
static const char address_tag[] = "trilane.dev/address/1";

struct err cp_warrant_key_make(struct slice token, const char *environment,
                               struct cp_warrant_key *out)
{
    uint8_t salt[crypto_pwhash_SALTBYTES];
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof(salt));
    (void)crypto_generichash_update(&state, (const uint8_t *)key_tag, sizeof(key_tag));
    (void)crypto_generichash_update(&state, (const uint8_t *)environment, strlen(environment));
    (void)crypto_generichash_final(&state, salt, sizeof(salt));
    int made = crypto_pwhash(out->bytes, sizeof(out->bytes), (const char *)token.ptr, token.size,
                             salt, PASSES, MEMORY_BYTES, crypto_pwhash_ALG_ARGON2ID13);
    return made == 0 ? OK : FAIL(E_NO_MEMORY);
}

static void add_number(crypto_generichash_state *state, uint64_t number)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(number >> (8 * i));
    }
    (void)crypto_generichash_update(state, bytes, sizeof(bytes));
}

void cp_warrant_proposal(const struct cp_warrant_key *key, const char *environment,
                         const struct cp_proposal *proposal, struct slice body,
                         uint8_t out[CP_WARRANT_SIZE])
{
    crypto_generichash_state state;
    uint8_t body_digest[DIGEST_SIZE];
    CHECK(key != NULL);
    ids_digest(body, body_digest);
    (void)crypto_generichash_init(&state, key->bytes, sizeof(key->bytes), CP_WARRANT_SIZE);
    (void)crypto_generichash_update(&state, (const uint8_t *)proposal_tag, sizeof(proposal_tag));
    (void)crypto_generichash_update(&state, (const uint8_t *)environment, strlen(environment) + 1);
    add_number(&state, proposal->version);
    add_number(&state, proposal->epoch);
    add_number(&state, proposal->origin);
    add_number(&state, proposal->with_trust ? 1 : 0);
    (void)crypto_generichash_update(&state, proposal->sources_digest, DIGEST_SIZE);
    (void)crypto_generichash_update(&state, body_digest, DIGEST_SIZE);
    (void)crypto_generichash_final(&state, out, CP_WARRANT_SIZE);
}

void cp_warrant_address(const struct cp_warrant_key *key, const char *environment,
                        const char *address, uint8_t out[CP_WARRANT_SIZE])
{
    crypto_generichash_state state;
    CHECK(key != NULL);
    (void)crypto_generichash_init(&state, key->bytes, sizeof(key->bytes), CP_WARRANT_SIZE);
    (void)crypto_generichash_update(&state, (const uint8_t *)address_tag, sizeof(address_tag));
    (void)crypto_generichash_update(&state, (const uint8_t *)environment, strlen(environment) + 1);
    (void)crypto_generichash_update(&state, (const uint8_t *)address, strlen(address) + 1);
    (void)crypto_generichash_final(&state, out, CP_WARRANT_SIZE);
}

bool cp_warrant_names(const struct cp_warrant_key *key, const char *environment,
                      const struct cp_lease *lease)
{
    uint8_t wanted[CP_WARRANT_SIZE];
    cp_warrant_address(key, environment, lease->address, wanted);
    return sodium_memcmp(wanted, lease->warrant, sizeof(wanted)) == 0;
}

bool cp_warrant_holds(const struct cp_warrant_key *key, const char *environment,
                      const struct cp_proposal *proposal, struct slice body)
{
    uint8_t wanted[CP_WARRANT_SIZE];
    cp_warrant_proposal(key, environment, proposal, body, wanted);
    return sodium_memcmp(wanted, proposal->warrant, sizeof(wanted)) == 0;
}
