/* set: the bytes that a load starts from. See source.h. */
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/limits.h"
#include "common/base/text.h"
#include "controlplane/source/source.h"

enum { FILES_MAX = 100000, NAME_BYTES = 1024 };

void cp_source_set_init(struct cp_source_set *set)
{
    *set = (struct cp_source_set){0};
    /* Names and block ends come on top of the bytes that are bounded. */
    arena_init(&set->arena, 64 << 10,
               (size_t)limits.source_total_bytes + (size_t)FILES_MAX * (NAME_BYTES + 512));
}

void cp_source_set_free(struct cp_source_set *set)
{
    map_free(&set->by_name);
    free(set->files);
    free(set->unread);
    arena_free(&set->arena);
    *set = (struct cp_source_set){0};
}

/* Whether one segment of a path leads nowhere but down. */
static bool segment_is_plain(struct slice s)
{
    return s.size > 0 && !slice_eq(s, SLICE_LIT(".")) && !slice_eq(s, SLICE_LIT(".."));
}

static bool name_is_plain(struct slice name)
{
    if (name.size == 0 || name.size > NAME_BYTES || !text_is_utf8(name)) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        if (name.ptr[i] < 0x20 || name.ptr[i] == 0x7f || name.ptr[i] == '\\') {
            return false;
        }
    }
    for (struct slice rest = name;; rest = slice_from(rest, slice_find(rest, '/') + 1)) {
        /* ends: each turn drops one segment. */
        size_t end = slice_find(rest, '/');
        if (!segment_is_plain(slice_head(rest, end))) {
            return false;
        }
        if (end == rest.size) {
            return true;
        }
    }
}

struct err cp_source_set_add(struct cp_source_set *set, struct slice name, struct slice bytes)
{
    if (!name_is_plain(name)) {
        return FAIL(E_MALFORMED);
    }
    if (set->count >= FILES_MAX || bytes.size > limits.source_file_bytes ||
        bytes.size > limits.source_total_bytes - set->bytes) {
        return FAIL(E_TOO_LARGE);
    }
    if (cp_source_set_find(set, name) != NULL) {
        return FAIL(E_EXISTS);
    }
    TRY(array_room(&set->files, set->count, &set->capacity, sizeof(struct cp_source_file)));
    struct cp_source_file file = {0};
    TRY(arena_dup(&set->arena, name, &file.name));
    TRY(arena_dup(&set->arena, bytes, &file.bytes));
    size_t *index = NULL;
    TRY(arena_calloc(&set->arena, 1, sizeof(size_t), (void **)&index));
    *index = set->count;
    TRY(map_put(&set->by_name, file.name, index, /* out_old= */ NULL));
    set->files[set->count++] = file;
    set->bytes += bytes.size;
    return OK;
}

const struct cp_source_file *cp_source_set_find(const struct cp_source_set *set, struct slice name)
{
    const size_t *index = map_get(&set->by_name, name);
    return index == NULL ? NULL : &set->files[*index];
}

void cp_source_unread(const struct cp_source_set *set, struct cp_diags *diags)
{
    for (size_t i = 0; i < set->unread_count; i++) {
        const struct cp_unread *unread = &set->unread[i];
        struct cp_diag *diag =
            cp_diags_add_file(diags, unread->code, unread->name, "%.*s", SLICE_ARG(unread->why));
        cp_diag_expect(diags, diag, "%.*s", SLICE_ARG(unread->fix));
    }
}

bool cp_source_is_unread(const struct cp_source_set *set, struct slice name)
{
    for (size_t i = 0; i < set->unread_count; i++) {
        struct slice unread = set->unread[i].name;
        if (slice_starts(name, unread) &&
            (name.size == unread.size || name.ptr[unread.size] == '/')) {
            return true;
        }
    }
    return false;
}

bool cp_source_is_yaml(struct slice name)
{
    return slice_ends(name, SLICE_LIT(".yaml")) || slice_ends(name, SLICE_LIT(".yml"));
}

bool cp_source_is_data(struct slice name)
{
    return slice_ends(name, SLICE_LIT(".binpb")) || slice_ends(name, SLICE_LIT(".desc")) ||
           slice_ends(name, SLICE_LIT(".pb")) || slice_ends(name, SLICE_LIT(".jwks"));
}
