/*
 * services: the files of a FileDescriptorSet, read as far as reflection needs.
 *
 * Shape      each file as its bytes, with what it imports, and the full names of what it defines;
 *            the methods of its services, and which of them stream.
 * Ownership  names and bytes borrow from the arena, or from the set's bytes; service_files_free()
 *            gives back the lists.
 * Threads    one owner at a time.
 * Errors     E_MALFORMED: it does not parse, nests deeper than SERVICE_DEPTH_MAX, or has more than
 *            SERVICE_SYMBOLS_MAX names; E_NO_MEMORY.
 * Source     google/protobuf/descriptor.proto. Read by hand, as descriptor.h says.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum { SERVICE_DEPTH_MAX = 32, SERVICE_SYMBOLS_MAX = 65536 };

/* Names that grow; owned. */
struct service_names {
    struct slice *items;
    size_t count;
    size_t capacity;
};

struct service_method {
    struct slice service; /* full name. */
    struct slice path;    /* "/package.Service/Method". */
    bool streams;         /* either way. */
};

struct service_file {
    struct slice name;
    struct slice package;
    struct slice bytes;
    struct service_names imports;
    struct service_names symbols;
    bool wanted; /* scratch of whoever walks. */
};

struct service_files {
    struct service_file *items;
    size_t count;
    size_t capacity;
    struct service_method *methods;
    size_t method_count;
    size_t method_capacity;
};

/* Reads a set; *out is to be freed whatever comes of it. */
MUST_CHECK struct err service_files_read(struct slice set, struct arena *arena,
                                         struct service_files *out);
void service_files_free(struct service_files *files);

/* The file of that name, and the one that defines that symbol; NULL: none. */
struct service_file *service_files_named(const struct service_files *files, struct slice name);
struct service_file *service_files_defining(const struct service_files *files, struct slice symbol);
