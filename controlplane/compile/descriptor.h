/*
 * descriptor: a FileDescriptorSet, read as far as walking the wire needs.
 *
 * Shape      all messages of the set by full name, their fields by number.
 * Ownership  everything lives in the arena; names borrow from the bytes.
 * Threads    one owner at a time.
 * Errors     E_MALFORMED with 'fault' saying what; E_NO_MEMORY.
 * Source     google/protobuf/descriptor.proto. Read by hand, not by generated code, since the
 *            messages nest and what nests must be bounded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/slice.h"

enum { DESCRIPTOR_DEPTH_MAX = 32, DESCRIPTOR_MESSAGES_MAX = 65536 };

struct descriptor_field {
    struct slice name;
    uint32_t number;
    uint32_t type; /* FieldDescriptorProto.Type. */
    bool repeated;
    bool required;
    bool utf8;
    struct slice type_name; /* of messages and groups: full, without the leading dot. */
};

struct descriptor_message {
    struct slice name; /* full. */
    struct descriptor_field *fields;
    size_t field_count;
    uint32_t index; /* scratch of whoever walks; starts as UINT32_MAX. */
};

struct descriptor_set {
    struct map messages; /* full name to struct descriptor_message. */
};

/* Reads a set; descriptor_set_free() gives the map back. */
MUST_CHECK struct err descriptor_read(struct slice bytes, struct arena *arena, struct buf *fault,
                                      struct descriptor_set *out);
void descriptor_set_free(struct descriptor_set *set);
