/*
 * array: room in an array that grows.
 *
 * Shape      the owner keeps pointer, count and capacity, each under its own name; this makes room
 *            for one item more by doubling.
 * Ownership  the array comes from the heap and is its owner's to free().
 * Threads    as its owner's.
 * Errors     E_NO_MEMORY; then the array is as it was.
 */
#pragma once

#include <stddef.h>

#include "common/base/err.h"

/*
 * Makes room for item 'count'. 'items' is the address of the pointer to the first item (of any
 * type; NULL and a capacity of 0 for an array that has none yet).
 */
MUST_CHECK struct err array_room(void *items, size_t count, size_t *capacity, size_t item_size);
