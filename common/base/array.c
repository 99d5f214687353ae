/* array: see array.h. */
#include "common/base/array.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

enum { ARRAY_FIRST = 16 };

struct err array_room(void *items, size_t count, size_t *capacity, size_t item_size)
{
    CHECK(count <= *capacity);
    if (count < *capacity) {
        return OK;
    }
    size_t wanted = *capacity == 0 ? ARRAY_FIRST : *capacity * 2;
    size_t bytes = 0;
    void *old = NULL; /* the pointer's own type is the caller's: it is copied, not cast. */
    if (wanted < count || __builtin_mul_overflow(wanted, item_size, &bytes)) {
        return FAIL(E_NO_MEMORY);
    }
    (void)memcpy(&old, items, sizeof(old));
    void *bigger = realloc(old, bytes);
    if (bigger == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    (void)memcpy(items, &bigger, sizeof(bigger));
    *capacity = wanted;
    return OK;
}
