/* reflection: see reflection.h. */
#include "common/proto/reflection.h"

#include "common/base/text.h"
#include "common/proto/wire.h"

enum {
    REQUEST_HOST = 1,
    RESPONSE_HOST = 1,
    RESPONSE_REQUEST = 2,
    RESPONSE_FILES = 4,
    RESPONSE_SERVICES = 6,
    RESPONSE_ERROR = 7,
    ITEM = 1, /* of a list: FileDescriptorResponse, ListServiceResponse; and its name. */
    ERROR_CODE = 1,
    ERROR_TEXT = 2,
};

static struct err take_field(const struct wire_field *f, struct reflection_request *out)
{
    bool asks = f->number >= REFLECTION_FILE && f->number <= REFLECTION_LIST;
    if (f->number != REQUEST_HOST && !asks) {
        return OK; /* of a later version. */
    }
    bool text = f->number != REFLECTION_EXTENSION;
    if (f->type != WIRE_BYTES || (text && !text_is_utf8(f->bytes))) {
        return FAIL(E_MALFORMED);
    }
    if (!asks) {
        out->host = f->bytes;
        return OK;
    }
    out->ask = (enum reflection_ask)f->number;
    bool named = out->ask == REFLECTION_FILE || out->ask == REFLECTION_SYMBOL;
    out->name = named ? f->bytes : (struct slice){0};
    return OK;
}

struct err reflection_read(struct slice message, struct reflection_request *out)
{
    struct reflection_request request = {.ask = REFLECTION_NOTHING};
    struct wire w = wire_of(message);
    while (wire_more(&w)) {
        struct wire_field f;
        TRY(wire_next(&w, &f));
        TRY(take_field(&f, &request));
    }
    *out = request;
    return OK;
}

struct err reflection_add_asked(struct buf *out, struct slice message,
                                const struct reflection_request *request)
{
    if (request->host.size > 0) {
        TRY(wire_add_bytes(out, RESPONSE_HOST, request->host));
    }
    return wire_add_bytes(out, RESPONSE_REQUEST, message);
}

struct err reflection_add_files(struct buf *out, const struct slice *files, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += wire_bytes_size(ITEM, files[i].size);
    }
    TRY(wire_add_head(out, RESPONSE_FILES, size));
    for (size_t i = 0; i < count; i++) {
        TRY(wire_add_bytes(out, ITEM, files[i]));
    }
    return OK;
}

struct err reflection_add_services(struct buf *out, const struct slice *names, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += wire_bytes_size(ITEM, wire_bytes_size(ITEM, names[i].size));
    }
    TRY(wire_add_head(out, RESPONSE_SERVICES, size));
    for (size_t i = 0; i < count; i++) {
        TRY(wire_add_head(out, ITEM, wire_bytes_size(ITEM, names[i].size)));
        TRY(wire_add_bytes(out, ITEM, names[i]));
    }
    return OK;
}

struct err reflection_add_error(struct buf *out, uint32_t grpc_status, struct slice text)
{
    auto_buf struct buf error = BUF_MAX(SIZE_MAX);
    TRY(wire_add_varint(&error, ERROR_CODE, grpc_status));
    TRY(wire_add_bytes(&error, ERROR_TEXT, text));
    return wire_add_bytes(out, RESPONSE_ERROR, buf_slice(&error));
}
