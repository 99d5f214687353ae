/*
 * Fuzzes: jose_discovery_read.
 * Property: a document that is taken points to a URL over TLS that keys may be read from.
 */
#include "common/jose/discovery.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/jose/jwk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice uri = {0};
    const char *why = NULL;
    bool clear = false;
    auto_free uint8_t *text = malloc(size + 1);
    CHECK(text != NULL);
    if (size > 0) {
        memcpy(text, data, size);
    }
    struct slice issuer = SLICE_LIT("https://id.example.com/realms/a");
    if (!err_ok(jose_discovery_read(text, size, issuer, &uri, &why))) {
        CHECK(why != NULL && uri.size == 0);
        return 0;
    }
    CHECK(uri.size <= JOSE_DISCOVERY_URI_MAX);
    CHECK(jose_uri_is_safe(uri, &clear) && !clear);
    return 0;
}
