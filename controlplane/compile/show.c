/*
 * show: a field's value as people write it, for the differences between two platforms. What takes
 * more than a line (objects, lists of objects, pairs) has no such text.
 */
#include "controlplane/compile/show.h"

#include "common/base/scope.h"
#include "controlplane/source/decode_scalar.h"
#include "controlplane/source/kinds.h"
#include "controlplane/source/model.h"

enum { SHOWN_MAX = 120 };

/* The words of "a|b|c" whose numbers are given: one of a choice, the bits of flags. */
static MUST_CHECK struct err show_words(struct buf *out, const char *choices, uint64_t bits)
{
    struct slice rest = slice_str(choices);
    struct slice word = {0};
    const char *between = "";
    for (; cp_choice_next(&rest, &word); bits >>= 1) {
        if ((bits & 1) != 0) {
            TRY(buf_addf(out, "%s%.*s", between, SLICE_ARG(word)));
            between = ", ";
        }
    }
    return OK;
}

static MUST_CHECK struct err show_texts(struct buf *out, const struct cp_texts *texts)
{
    for (size_t i = 0; i < texts->count && out->size < SHOWN_MAX; i++) {
        TRY(buf_addf(out, "%s%.*s", i == 0 ? "" : ", ", SLICE_ARG(texts->items[i].text)));
    }
    return OK;
}

static MUST_CHECK struct err show(struct buf *out, const struct cp_field *field, const void *at)
{
    const struct cp_ref *ref = at;
    switch (field->type) {
    case CP_TYPE_TEXT:
        return buf_add(out, ((const struct cp_text *)at)->text);
    case CP_TYPE_REF:
        return buf_add(out, ref->to == NULL ? ref->text : ref->to->key); /* none: a glob. */
    case CP_TYPE_TEXTS:
    case CP_TYPE_PORTS:
        return show_texts(out, at);
    case CP_TYPE_BOOL:
        return buf_add_str(out, *(const uint64_t *)at != 0 ? "true" : "false");
    case CP_TYPE_COUNT:
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
        return cp_number_text(out, field->type, *(const uint64_t *)at);
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA: /* none is 0: that is one not given. */
        return *(const uint64_t *)at == 0 ? OK
                                          : cp_number_text(out, field->type, *(const uint64_t *)at);
    case CP_TYPE_CHOICE:
        return show_words(out, field->choices, 1ULL << (*(const uint64_t *)at & 63));
    case CP_TYPE_FLAGS:
        return show_words(out, field->choices, *(const uint64_t *)at);
    case CP_TYPE_PAIRS:
    case CP_TYPE_OBJECT:
    case CP_TYPE_OBJECTS:
        break;
    }
    return OK;
}

struct err cp_show_field(struct arena *arena, const struct cp_field *field, const void *at,
                         struct slice *out)
{
    auto_buf struct buf text = BUF_MAX(SIZE_MAX / 2);
    TRY(show(&text, field, at));
    struct slice shown = buf_slice(&text);
    if (shown.size == 0 || shown.size > SHOWN_MAX) {
        *out = (struct slice){0};
        return OK;
    }
    return arena_dup(arena, shown, out);
}
