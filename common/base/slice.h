/*
 * slice: bytes that somebody else owns.
 *
 * Shape      pointer and size; no NUL at the end. ptr may be NULL only when size is 0.
 * Ownership  borrowed, always; whoever hands out a slice says how long it lives.
 * Threads    pure values; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *ptr;
    size_t size;
};

/* For printf("%.*s"): a slice of text as its two arguments, cut at INT_MAX; never a NULL. */
#define SLICE_ARG(s)                                                                               \
    (int)((s).size > 0x7fffffff ? 0x7fffffff : (s).size),                                          \
        ((s).ptr == NULL ? "" : (const char *)(s).ptr)

/* A string literal as a slice: in an initialiser, also of static storage, and elsewhere. */
#define SLICE_INIT(text)                                                                           \
    {                                                                                              \
        (const uint8_t *)("" text), sizeof(text) - 1                                               \
    }
#define SLICE_LIT(text) ((struct slice)SLICE_INIT(text))

static inline struct slice slice_of(const void *ptr, size_t size)
{
    return (struct slice){(const uint8_t *)ptr, size};
}

static inline struct slice slice_str(const char *text)
{
    return (struct slice){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.ptr, b.ptr, a.size) == 0);
}

/* Order by bytes, a shorter prefix first: the order of keys in a snapshot's streams. */
static inline int slice_cmp(struct slice a, struct slice b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.ptr, b.ptr, common);
    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

static inline bool slice_starts(struct slice s, struct slice prefix)
{
    return s.size >= prefix.size &&
           (prefix.size == 0 || memcmp(s.ptr, prefix.ptr, prefix.size) == 0);
}

static inline bool slice_ends(struct slice s, struct slice tail)
{
    return s.size >= tail.size &&
           (tail.size == 0 || memcmp(s.ptr + s.size - tail.size, tail.ptr, tail.size) == 0);
}

/* The part of 's' from 'from' on; empty when 'from' is past the end. */
static inline struct slice slice_from(struct slice s, size_t from)
{
    if (s.size == 0) {
        return s; /* no arithmetic on a ptr that may be NULL. */
    }
    return from >= s.size ? (struct slice){s.ptr + s.size, 0}
                          : (struct slice){s.ptr + from, s.size - from};
}

/* The first 'size' bytes of 's', or all of it when it is shorter. */
static inline struct slice slice_head(struct slice s, size_t size)
{
    return (struct slice){s.ptr, s.size < size ? s.size : size};
}

/* Index of the first 'byte', or s.size when there is none. */
static inline size_t slice_find(struct slice s, uint8_t byte)
{
    const uint8_t *at = s.size == 0 ? NULL : memchr(s.ptr, byte, s.size);
    return at == NULL ? s.size : (size_t)(at - s.ptr);
}

/* ASCII case folded equality, for names of HTTP headers and host names. */
bool slice_eq_nocase(struct slice a, struct slice b);

/* Without the spaces and tabs at either end: optional white space of HTTP (RFC 9110, 5.6.3). */
struct slice slice_trim(struct slice s);

/* Reads a decimal number of 1 to 20 digits, nothing else, into *out; false when it is not one. */
bool slice_to_u64(struct slice s, uint64_t *out);

/*
 * Copies into a new NUL-terminated string that the caller frees. Aborts when out of memory:
 * for boot and commands, never on the way of a request.
 */
char *slice_dup(struct slice s);

/* Frees the bytes, which are a slice_dup() of the caller's own. */
void slice_free(struct slice s);
