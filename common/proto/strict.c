/* Strict decoding over protobuf-c: count what it allocates, then look at all that it read. */
#include "common/proto/strict.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/base/text.h"

/* Our messages nest five deep at most; a type that nests deeper is a mistake of ours. */
enum { DEPTH_MAX = 16 };

struct cap {
    size_t left;
    bool heap_full;
};

static void *cap_alloc(void *context, size_t size)
{
    struct cap *cap = context;
    if (size > cap->left) {
        return NULL;
    }
    cap->left -= size;
    void *p = malloc(size == 0 ? 1 : size);
    cap->heap_full = cap->heap_full || p == NULL;
    return p;
}

static void cap_free(void *context, void *p)
{
    (void)context;
    free(p);
}

static struct err judge_message(const ProtobufCMessage *m, const struct proto_rules *rules,
                                int depth);

static struct err judge_item(const ProtobufCFieldDescriptor *f, const void *item,
                             const struct proto_rules *rules, int depth)
{
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *const *child = item;
        return *child == NULL ? OK : judge_message(*child, rules, depth + 1);
    }
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        const char *const *text = item;
        return text_is_utf8(slice_str(*text)) ? OK : FAIL(rules->malformed);
    }
    return OK;
}

static struct err judge_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                              const struct proto_rules *rules, int depth)
{
    if (f->type != PROTOBUF_C_TYPE_MESSAGE && f->type != PROTOBUF_C_TYPE_STRING) {
        return OK;
    }
    const uint8_t *base = (const uint8_t *)m;
    const void *member = base + f->offset;
    if (f->label != PROTOBUF_C_LABEL_REPEATED) {
        return judge_item(f, member, rules, depth);
    }
    size_t count = 0;
    memcpy(&count, base + f->quantifier_offset, sizeof(count));
    const void *const *const *list = member;
    for (size_t i = 0; i < count; i++) {
        TRY(judge_item(f, &(*list)[i], rules, depth));
    }
    return OK;
}

/* Unknown fields first, so that a newer message is called newer and not malformed. */
static struct err judge_message(const ProtobufCMessage *m, const struct proto_rules *rules,
                                int depth)
{
    CHECK(depth < DEPTH_MAX);
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        if (m->unknown_fields[i].tag < PROTO_IGNORABLE_FIELD) {
            return FAIL(rules->unknown);
        }
    }
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        TRY(judge_field(m, &m->descriptor->fields[i], rules, depth));
    }
    return OK;
}

/* A sink that compares instead of storing: canonical form is asked without a copy. */
struct compare {
    ProtobufCBuffer base; /* first: protobuf-c calls with a pointer to it. */
    struct slice rest;
    bool same;
};

static void compare_append(ProtobufCBuffer *base, size_t size, const uint8_t *bytes)
{
    struct compare *c = (struct compare *)base;
    c->same = c->same && slice_starts(c->rest, slice_of(bytes, size));
    c->rest = slice_from(c->rest, size);
}

static bool is_canonical(const ProtobufCMessage *m, struct slice bytes)
{
    struct compare c = {.base = {.append = compare_append}, .rest = bytes, .same = true};
    (void)protobuf_c_message_pack_to_buffer(m, &c.base);
    return c.same && c.rest.size == 0;
}

struct err proto_decode(const ProtobufCMessageDescriptor *type, struct slice bytes,
                        const struct proto_rules *rules, ProtobufCMessage **out)
{
    static const uint8_t nothing[1];
    struct cap cap = {.left = type->sizeof_message + rules->memory_max};
    ProtobufCAllocator allocator = {cap_alloc, cap_free, &cap};
    const uint8_t *from = bytes.size == 0 ? nothing : bytes.ptr;
    auto_proto ProtobufCMessage *m = protobuf_c_message_unpack(type, &allocator, bytes.size, from);
    if (m == NULL) {
        return FAIL(cap.heap_full ? E_NO_MEMORY : rules->malformed);
    }
    TRY(judge_message(m, rules, /* depth= */ 0));
    if (!is_canonical(m, bytes)) {
        return FAIL(rules->malformed);
    }
    *out = TAKE_PTR(m);
    return OK;
}

struct err proto_encode(const ProtobufCMessage *message, struct buf *out)
{
    uint8_t *at = NULL;
    size_t size = protobuf_c_message_get_packed_size(message);
    TRY(buf_reserve(out, size == 0 ? 1 : size, &at));
    size_t written = protobuf_c_message_pack(message, at);
    CHECK(written == size);
    buf_commit(out, size);
    return OK;
}

void proto_free(ProtobufCMessage *message)
{
    if (message != NULL) {
        ProtobufCAllocator allocator = {cap_alloc, cap_free, NULL};
        protobuf_c_message_free_unpacked(message, &allocator);
    }
}
