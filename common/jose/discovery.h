/*
 * discovery: where an issuer says that its keys are.
 *
 * Shape      OpenID Connect Discovery: a document at a well-known place of the issuer's URL, that
 *            names the issuer and the URL of its key set. All else in it is passed over.
 * Ownership  answers borrow from what they are read from.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED: no such document, of another issuer, or with a URL that keys are not
 *            read from. E_TOO_LARGE: past its bounds. E_NO_MEMORY.
 * Source     OpenID Connect Discovery 1.0, 3, 4 and 4.3.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum {
    JOSE_DISCOVERY_BYTES_MAX = 64 << 10, /* of the document. */
    JOSE_DISCOVERY_VALUES_MAX = 4096,    /* in it. */
    JOSE_DISCOVERY_URI_MAX = 2048,       /* of the key set. */
};

/* Whether an issuer's name is a URL that has such a place: https, or in clear from this machine
 * itself, without a query. */
bool jose_discovery_may(struct slice issuer, bool *out_clear);

/* The document's URL, in the arena, with a NUL behind it; for an issuer that may be asked. */
MUST_CHECK struct err jose_discovery_uri(struct arena *arena, struct slice issuer,
                                         struct slice *out);

/* The URL of the key set, in the document, whose text is written over. In clear only where the
 * issuer itself is asked in clear. On failure *out_why is a sentence. */
MUST_CHECK struct err jose_discovery_read(uint8_t *json, size_t size, struct slice issuer,
                                          struct slice *out_uri, const char **out_why);
