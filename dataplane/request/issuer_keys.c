/* issuer_keys: see issuer_keys.h. */
#include "dataplane/request/issuer_keys.h"

#include <stdlib.h>
#include <string.h>

#include "common/jose/jwk.h"

struct err dp_issuer_keys_new(size_t count, struct dp_issuer_keys **out)
{
    struct dp_issuer_keys *table = calloc(1, sizeof(*table) + count * sizeof(table->rows[0]));
    if (table == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    refs_init(&table->refs);
    table->count = count;
    *out = table;
    return OK;
}

struct dp_issuer_keys *dp_issuer_keys_ref(struct dp_issuer_keys *table)
{
    refs_take(&table->refs);
    return table;
}

void dp_issuer_keys_unref(struct dp_issuer_keys *table)
{
    if (table == NULL || !refs_drop(&table->refs)) {
        return;
    }
    for (size_t i = 0; i < table->count; i++) {
        jose_keys_unref(table->rows[i].keys);
    }
    free(table);
}

struct dp_issuer_keys_row *dp_issuer_keys_find(struct dp_issuer_keys *table,
                                               const uint8_t source[DIGEST_SIZE])
{
    for (size_t i = 0; table != NULL && i < table->count; i++) {
        if (memcmp(table->rows[i].source, source, DIGEST_SIZE) == 0) {
            return &table->rows[i];
        }
    }
    return NULL;
}

void dp_keys_mail_put(struct dp_keys_mail *mail, struct dp_issuer_keys *table)
{
    dp_issuer_keys_unref(atomic_exchange(&mail->waiting, dp_issuer_keys_ref(table)));
}

struct dp_issuer_keys *dp_keys_mail_take(struct dp_keys_mail *mail)
{
    if (atomic_load_explicit(&mail->waiting, memory_order_relaxed) == NULL) {
        return NULL;
    }
    return atomic_exchange(&mail->waiting, NULL);
}
