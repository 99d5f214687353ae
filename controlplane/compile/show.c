/*
 * show: a field's value as people write it, for the differences between two platforms. What takes
 * more than a line (objects, lists of objects, pairs) has no such text.
 */
#include "controlplane/compile/show.h"

#include "common/base/scope.h"
#include "controlplane/source/kinds.h"
#include "controlplane/source/model.h"

enum { SHOWN_MAX = 120, NS_PER_S = 1000000000 };

struct unit {
    uint64_t size;
    const char *name;
};

/* In the largest unit that leaves no rest; the last one has size 1. */
static MUST_CHECK struct err show_in_units(struct buf *out, uint64_t value,
                                           const struct unit *units)
{
    while (units->size > 1 && (value == 0 || value % units->size != 0)) {
        units++;
    }
    return buf_addf(out, "%llu%s", (unsigned long long)(value / units->size), units->name);
}

/* A rate is kept as the time between two requests. */
static MUST_CHECK struct err show_rate(struct buf *out, uint64_t period_ns)
{
    static const struct unit units[] = {{1, "/s"}, {60, "/m"}, {3600, "/h"}};
    size_t at = 0;
    while (at < 2 && period_ns > units[at].size * NS_PER_S) {
        at++;
    }
    uint64_t span_ns = units[at].size * NS_PER_S;
    uint64_t count = period_ns == 0 ? 0 : (span_ns + period_ns / 2) / period_ns;
    return buf_addf(out, "%llu%s", (unsigned long long)count, units[at].name);
}

/* The words of "a|b|c" whose numbers are given: one of a choice, the bits of flags. */
static MUST_CHECK struct err show_words(struct buf *out, const char *choices, uint64_t bits)
{
    struct slice rest = slice_str(choices);
    const char *between = "";
    for (; rest.size > 0; bits >>= 1) {
        struct slice word = slice_head(rest, slice_find(rest, '|'));
        if ((bits & 1) != 0) {
            TRY(buf_addf(out, "%s%.*s", between, SLICE_ARG(word)));
            between = ", ";
        }
        rest = slice_from(rest, word.size + 1);
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
    static const struct unit times[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    static const struct unit sizes[] = {{1 << 20, "MiB"}, {1 << 10, "KiB"}, {1, "B"}};
    const struct cp_ref *ref = at;
    switch (field->type) {
    case CP_TYPE_TEXT:
        return buf_add(out, ((const struct cp_text *)at)->text);
    case CP_TYPE_REF:
        return ref->to == NULL ? OK : buf_add(out, ref->to->key);
    case CP_TYPE_TEXTS:
    case CP_TYPE_PORTS:
        return show_texts(out, at);
    case CP_TYPE_COUNT:
        return buf_addf(out, "%llu", (unsigned long long)*(const uint64_t *)at);
    case CP_TYPE_BOOL:
        return buf_add_str(out, *(const uint64_t *)at != 0 ? "true" : "false");
    case CP_TYPE_DURATION:
        return show_in_units(out, *(const uint64_t *)at, times);
    case CP_TYPE_SIZE:
        return show_in_units(out, *(const uint64_t *)at, sizes);
    case CP_TYPE_RATE:
        return show_rate(out, *(const uint64_t *)at);
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
    return arena_dup(arena, shown.size > SHOWN_MAX ? (struct slice){0} : shown, out);
}
