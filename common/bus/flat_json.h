/*
 * flat_json: the members of one JSON object, without building it.
 *
 * Shape      walks the top level; what is nested comes as the raw bytes of its value. For the
 *            short answers of nats-server (PubAck, INFO) alone: text is not unescaped.
 * Ownership  slices borrow from the bytes that are walked.
 * Threads    pure values; any thread.
 * Errors     E_MALFORMED; nesting is bounded by FLAT_JSON_DEPTH_MAX.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

enum { FLAT_JSON_DEPTH_MAX = 32 };

struct flat_json {
    struct slice rest;
    bool began;
};

struct flat_json_member {
    struct slice name;
    struct slice value; /* of text: between the quotes; else the raw bytes. */
    bool is_text;
};

/* Begins at an object. */
struct flat_json flat_json_of(struct slice object);

/* The next member; *out_more is false behind the last one, when the object was closed. */
MUST_CHECK struct err flat_json_next(struct flat_json *j, struct flat_json_member *out,
                                     bool *out_more);
