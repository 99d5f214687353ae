/*
 * ids: random identifiers and digests, over libsodium.
 *
 * Threads    any, after ids_init().
 * Source     BLAKE2b: RFC 7693, unkeyed, without salt; trace ids: W3C Trace Context.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/slice.h"

enum { DIGEST_SIZE = 32, DIGEST_SHORT_SIZE = 16 };

/* Starts libsodium; once, in main(), before any other call here. */
void ids_init(void);

/* Fills with random bytes from the kernel's generator: for keys, tokens, holders' ids. */
void ids_random(void *out, size_t size);

/*
 * Fills with random bytes from a generator of the thread's own (xoshiro256**, seeded from the
 * kernel): for trace, request and event ids, where a guess does no harm. No system call.
 */
void ids_quick(void *out, size_t size);

/* BLAKE2b-256 and BLAKE2b-128 (a digest of its own size, not a cut one). */
void ids_digest(struct slice bytes, uint8_t out[DIGEST_SIZE]);
void ids_digest_short(struct slice bytes, uint8_t out[DIGEST_SHORT_SIZE]);
