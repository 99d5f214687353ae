/* labels: see labels.h. */
#include "common/snapshot/labels.h"

static bool is_word(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && c != '.' && c != '_' && c != '/' && c != '-') {
            return false;
        }
    }
    return s.size > 0;
}

struct err labels_add(struct labels *l, struct slice pair)
{
    size_t equals = slice_find(pair, '=');
    struct head_label label = {slice_head(pair, equals), slice_from(pair, equals + 1)};
    if (l->count == HEAD_LABELS_MAX || pair.size > LABEL_MAX || equals == pair.size ||
        !is_word(label.name) || !is_word(label.value)) {
        return FAIL(E_USAGE);
    }
    size_t at = l->count;
    while (at > 0 && slice_cmp(l->items[at - 1].name, label.name) > 0) {
        at--;
    }
    if (at > 0 && slice_eq(l->items[at - 1].name, label.name)) {
        return FAIL(E_USAGE);
    }
    for (size_t i = l->count; i > at; i--) {
        l->items[i] = l->items[i - 1];
    }
    l->items[at] = label;
    l->count++;
    return OK;
}

struct err labels_parse(struct slice text, struct labels *out)
{
    struct labels labels = {.count = 0};
    while (text.size > 0) {
        size_t comma = slice_find(text, ',');
        TRY(labels_add(&labels, slice_head(text, comma)));
        if (comma + 1 == text.size) {
            return FAIL(E_USAGE); /* a comma with nothing behind it. */
        }
        text = slice_from(text, comma + 1);
    }
    *out = labels;
    return OK;
}

struct err labels_print(const struct labels *l, struct buf *out)
{
    for (size_t i = 0; i < l->count; i++) {
        TRY(buf_addf(out, "%s%.*s=%.*s", i == 0 ? "" : ",", SLICE_ARG(l->items[i].name),
                     SLICE_ARG(l->items[i].value)));
    }
    return OK;
}

bool labels_eq(const struct labels *a, const struct labels *b)
{
    for (size_t i = 0; i < a->count && a->count == b->count; i++) {
        if (!slice_eq(a->items[i].name, b->items[i].name) ||
            !slice_eq(a->items[i].value, b->items[i].value)) {
            return false;
        }
    }
    return a->count == b->count;
}
