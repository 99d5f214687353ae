/*
 * h2_message: what a header section has to be, so that it is one of HTTP (RFC 9113, section 8).
 *
 * Shape      a check that is shown the fields of a section one by one, and then its end.
 * Threads    pure; any thread.
 * Errors     false: the message is malformed, which costs its stream (section 8.1.1).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "common/net/h2_field.h"

/* Whether a name has only the bytes of a token, in lower case; a colon may stand first. */
bool h2_name_is_valid(struct slice name);

/* Whether a value has neither control bytes but tabs, nor blanks at its ends. */
bool h2_value_is_valid(struct slice value);

enum h2_section_kind { H2_SECTION_REQUEST, H2_SECTION_ANSWER, H2_SECTION_TRAILERS };

/* Where the content-length of a message is not said. */
#define H2_LENGTH_NONE UINT64_MAX

struct h2_check {
    enum h2_section_kind kind;
    bool regular;            /* a field came that is no pseudo header field. */
    uint64_t seen;           /* bit t: token t came. */
    uint64_t content_length; /* or H2_LENGTH_NONE. */
    bool connect;            /* the method is CONNECT. */
    bool asterisk;           /* the path is "*", which OPTIONS alone may ask. */
    bool options;
};

void h2_check_begin(struct h2_check *c, enum h2_section_kind kind);

/* One field, whose bytes are valid. */
bool h2_check_field(struct h2_check *c, enum h2_token token, struct slice name, struct slice value);

/* All fields came. */
bool h2_check_end(const struct h2_check *c);
