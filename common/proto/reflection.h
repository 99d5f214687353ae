/*
 * reflection: the messages of grpc.reflection.v1, and of v1alpha, which are the same.
 *
 * Shape      a request is read in one walk; an answer is appended field by field, in order:
 *            reflection_add_asked() first, then one of the others.
 * Ownership  what was read borrows from the message.
 * Threads    pure functions; any thread.
 * Errors     E_MALFORMED: it does not parse, or a name is not UTF-8. E_TOO_LARGE, E_NO_MEMORY from
 *            the buf, whose content is of no use then.
 * Source     grpc/grpc-proto, grpc/reflection/v1/reflection.proto. By hand: the request is a oneof,
 *            which strict decoding does not know, and an answer may be large.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

/* What is asked for; the numbers of ServerReflectionRequest. */
enum reflection_ask {
    REFLECTION_NOTHING = 0,
    REFLECTION_FILE = 3,       /* file_by_filename. */
    REFLECTION_SYMBOL = 4,     /* file_containing_symbol. */
    REFLECTION_EXTENSION = 5,  /* file_containing_extension. */
    REFLECTION_EXTENSIONS = 6, /* all_extension_numbers_of_type. */
    REFLECTION_LIST = 7,       /* list_services. */
};

struct reflection_request {
    enum reflection_ask ask;
    struct slice name; /* of the file or symbol; else empty. */
    struct slice host;
};

/* Of several things that are asked for the last one counts, as protobuf has it. */
MUST_CHECK struct err reflection_read(struct slice message, struct reflection_request *out);

/* valid_host and original_request. */
MUST_CHECK struct err reflection_add_asked(struct buf *out, struct slice message,
                                           const struct reflection_request *request);

/* file_descriptor_response, list_services_response, error_response. */
MUST_CHECK struct err reflection_add_files(struct buf *out, const struct slice *files,
                                           size_t count);
MUST_CHECK struct err reflection_add_services(struct buf *out, const struct slice *names,
                                              size_t count);
MUST_CHECK struct err reflection_add_error(struct buf *out, uint32_t grpc_status,
                                           struct slice text);
