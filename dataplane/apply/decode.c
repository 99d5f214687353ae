/* decode: see decode.h. */
#include "dataplane/apply/decode.h"

#include <stdlib.h>

struct err dp_decode_strings(struct arena *arena, char *const *strings, size_t count,
                             struct slice **out)
{
    struct slice *list = NULL;
    TRY(arena_calloc(arena, count, sizeof(*list), (void **)&list));
    for (size_t i = 0; i < count; i++) {
        list[i] = slice_str(strings[i]);
        if (i > 0 && slice_cmp(list[i - 1], list[i]) >= 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    *out = list;
    return OK;
}

static int name_cmp(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

bool dp_decode_has(const struct slice *sorted, size_t count, struct slice name)
{
    return count > 0 && bsearch(&name, sorted, count, sizeof(*sorted), name_cmp) != NULL;
}
