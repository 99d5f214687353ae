/* guard: see guard.h. */
#include "controlplane/api/guard.h"

#include <sodium.h>

/* "host:port" or "[v6]:port" without the port. */
static struct slice host_of(struct slice authority)
{
    if (authority.size > 0 && authority.ptr[0] == '[') {
        size_t end = slice_find(authority, ']');
        return slice_head(slice_from(authority, 1), end == 0 ? 0 : end - 1);
    }
    return slice_head(authority, slice_find(authority, ':'));
}

static bool is_listed(struct slice names, struct slice host)
{
    while (names.size > 0) {
        struct slice name = slice_head(names, slice_find(names, ','));
        if (slice_eq_nocase(name, host)) {
            return true;
        }
        names = slice_from(names, name.size + 1);
    }
    return false;
}

/* Whoever is told an address may call by it. */
static bool is_told(struct slice address, struct slice host)
{
    size_t scheme = slice_find(address, '/');
    struct slice told = host_of(slice_from(address, scheme + 2));
    return told.size > 0 && slice_eq_nocase(told, host);
}

static bool is_ours(const struct cp_guard *guard, struct slice host)
{
    return is_listed(SLICE_LIT("localhost,127.0.0.1,::1"), host) || is_told(guard->address, host) ||
           is_listed(guard->server_names, host);
}

static struct err judge_origin(const struct http1_head *head, struct slice site)
{
    if (slice_starts(site, SLICE_LIT("https://"))) {
        site = slice_from(site, 8);
    } else if (slice_starts(site, SLICE_LIT("http://"))) {
        site = slice_from(site, 7);
    } else {
        return FAIL(E_ORIGIN_REFUSED); /* "null", and schemes that no console has. */
    }
    return slice_eq_nocase(site, head->authority) ? OK : FAIL(E_ORIGIN_REFUSED);
}

struct err cp_guard_site(const struct cp_guard *guard, const struct http1_head *head)
{
    if (!is_ours(guard, host_of(head->authority))) {
        return FAIL(E_HOST_REFUSED);
    }
    for (size_t i = 0; i < head->field_count; i++) { /* each one, should there be several. */
        if (slice_eq_nocase(head->fields[i].name, SLICE_LIT("origin"))) {
            TRY(judge_origin(head, head->fields[i].value));
        }
    }
    return OK;
}

/* Digests are compared, in constant time: neither size nor content of the token leaks. */
static bool token_matches(struct slice wanted, struct slice given)
{
    uint8_t a[crypto_generichash_BYTES];
    uint8_t b[crypto_generichash_BYTES];
    (void)crypto_generichash(a, sizeof(a), wanted.ptr, wanted.size, NULL, 0);
    (void)crypto_generichash(b, sizeof(b), given.ptr, given.size, NULL, 0);
    return sodium_memcmp(a, b, sizeof(a)) == 0;
}

struct err cp_guard_json(const struct http1_head *head)
{
    const struct http1_field *type = http1_find(head, SLICE_LIT("content-type"));
    struct slice media = type == NULL ? (struct slice){0} : type->value;
    media = slice_head(media, slice_find(media, ';'));
    return slice_eq_nocase(media, SLICE_LIT("application/json")) ? OK : FAIL(E_CONTENT_TYPE);
}

struct err cp_guard_write(const struct cp_guard *guard, const struct http1_head *head)
{
    static const char scheme[] = "Bearer ";
    const struct http1_field *field = http1_find(head, SLICE_LIT("authorization"));
    struct slice prefix = slice_of(scheme, sizeof(scheme) - 1);
    if (field == NULL || !slice_eq_nocase(slice_head(field->value, prefix.size), prefix) ||
        !token_matches(guard->token, slice_from(field->value, prefix.size))) {
        return FAIL(E_UNAUTHENTICATED);
    }
    return cp_guard_json(head);
}
