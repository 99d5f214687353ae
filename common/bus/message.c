/*
 * message: ours to nats.c's and back. nats.c wants text with a NUL, so names are copied. Its reader
 * takes the next line for the value of a header whose value is empty (3.4.1: any white space is
 * skipped), so a blank header is not sent.
 */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/bus/bus_internal.h"
#include "common/bus/subject.h"

static bool value_is_safe(struct slice value);
static bool value_is_blank(struct slice value);
static bool name_is_safe(struct slice name);
static struct err set_header(natsMsg *msg, struct slice name, struct slice value);
static struct slice copy_text(uint8_t **at, const char *text);

static void text_of(struct slice s, char *out, size_t size)
{
    CHECK(s.size < size);
    if (s.size > 0) {
        memcpy(out, s.ptr, s.size);
    }
    out[s.size] = '\0';
}

static struct err judge(const struct bus_outgoing *from)
{
    if (!subject_is_valid(from->subject) ||
        (from->reply.size > 0 && !subject_is_valid(from->reply)) ||
        from->header_count > BUS_HEADER_MAX) {
        return FAIL(E_MALFORMED);
    }
    if (from->payload.size > limits.bus_inbox_bytes || from->payload.size > INT32_MAX / 2) {
        return FAIL(E_MESSAGE_TOO_LARGE);
    }
    for (size_t i = 0; i < from->header_count; i++) {
        if (!name_is_safe(from->headers[i].name) || !value_is_safe(from->headers[i].value)) {
            return FAIL(E_MALFORMED);
        }
    }
    return OK;
}

static struct err set_headers(natsMsg *msg, const struct bus_outgoing *from,
                              struct slice message_id)
{
    for (size_t i = 0; i < from->header_count; i++) {
        if (!value_is_blank(from->headers[i].value)) {
            TRY(set_header(msg, from->headers[i].name, from->headers[i].value));
        }
    }
    return message_id.size == 0 ? OK : set_header(msg, SLICE_LIT("Nats-Msg-Id"), message_id);
}

struct err message_make(const struct bus_outgoing *from, struct slice message_id, natsMsg **out)
{
    char subject[SUBJECT_SIZE_MAX + 1];
    char reply[SUBJECT_SIZE_MAX + 1];
    TRY(judge(from));
    if (!value_is_safe(message_id)) {
        return FAIL(E_MALFORMED);
    }
    text_of(from->subject, subject, sizeof(subject));
    text_of(from->reply, reply, sizeof(reply));
    natsMsg *msg = NULL;
    if (natsMsg_Create(&msg, subject, from->reply.size == 0 ? NULL : reply,
                       (const char *)from->payload.ptr, (int)from->payload.size) != NATS_OK) {
        return FAIL(E_NO_MEMORY);
    }
    struct err err = set_headers(msg, from, message_id);
    if (!err_ok(err)) {
        natsMsg_Destroy(msg);
        return err;
    }
    *out = msg;
    return OK;
}

size_t message_bytes(const struct bus_outgoing *message)
{
    size_t size = message->subject.size + message->reply.size + message->payload.size;
    for (size_t i = 0; i < message->header_count; i++) {
        size += message->headers[i].name.size + message->headers[i].value.size;
    }
    return size;
}

/* ---- what arrives ---- */

/* Bytes of a message's texts, each with a NUL behind it. */
static size_t texts_size(natsMsg *from, const char *const *names, int count)
{
    size_t size = strlen(natsMsg_GetSubject(from)) + 1;
    size += natsMsg_GetReply(from) == NULL ? 1 : strlen(natsMsg_GetReply(from)) + 1;
    for (int i = 0; i < count; i++) {
        const char *value = NULL;
        (void)natsMsgHeader_Get(from, names[i], &value);
        size += strlen(names[i]) + 1 + (value == NULL ? 0 : strlen(value)) + 1;
    }
    return size;
}

static struct err copy(natsMsg *from, void *ctx, const char *const *names, int count,
                       struct bus_message **out)
{
    if (count > BUS_HEADER_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    size_t payload_size = (size_t)natsMsg_GetDataLength(from);
    size_t headers_size = (size_t)count * sizeof(struct bus_header);
    struct bus_message *m =
        malloc(sizeof(*m) + headers_size + texts_size(from, names, count) + payload_size);
    if (m == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct bus_header *headers = (struct bus_header *)(void *)(m + 1);
    uint8_t *at = (uint8_t *)headers + headers_size;
    *m = (struct bus_message){.ctx = ctx, .headers = headers, .header_count = (size_t)count};
    m->subject = copy_text(&at, natsMsg_GetSubject(from));
    m->reply = copy_text(&at, natsMsg_GetReply(from));
    for (int i = 0; i < count; i++) {
        const char *value = NULL;
        (void)natsMsgHeader_Get(from, names[i], &value);
        headers[i].name = copy_text(&at, names[i]);
        headers[i].value = copy_text(&at, value);
    }
    m->payload = slice_of(at, payload_size);
    if (payload_size > 0) {
        memcpy(at, natsMsg_GetData(from), payload_size);
    }
    *out = m;
    return OK;
}

struct err message_copy_payload(natsMsg *from, void *ctx, struct bus_message **out)
{
    return copy(from, ctx, /* names= */ NULL, /* count= */ 0, out);
}

struct err message_copy(natsMsg *from, void *ctx, struct bus_message **out)
{
    const char **names = NULL;
    int count = 0;
    natsStatus status = natsMsgHeader_Keys(from, &names, &count);
    if (status != NATS_OK && status != NATS_NOT_FOUND) {
        return FAIL(status == NATS_NO_MEMORY ? E_NO_MEMORY : E_MALFORMED);
    }
    struct err err = copy(from, ctx, names, count, out);
    free((void *)names);
    return err;
}

/* ---- what is done with ---- */

/* Under the lock: 'out' takes what waits, when it is as much as may. */
static size_t take_spent(struct bus *bus, size_t count_max, size_t bytes_max,
                         natsMsg *out[BUS_SPENT_MAX]) REQUIRES(bus->spent.lock)
{
    size_t count = bus->spent.count;
    if (count < count_max && bus->spent.bytes < bytes_max) {
        return 0;
    }
    memcpy((void *)out, (void *)bus->spent.messages, count * sizeof(out[0]));
    bus->spent.count = 0;
    bus->spent.bytes = 0;
    return count;
}

void message_spend(struct bus *bus, natsMsg *msg)
{
    natsMsg *over[BUS_SPENT_MAX];
    if (msg == NULL) {
        return;
    }
    lock_take(&bus->spent.lock);
    bus->spent.messages[bus->spent.count++] = msg;
    bus->spent.bytes += (size_t)natsMsg_GetDataLength(msg);
    size_t count = take_spent(bus, BUS_SPENT_MAX, BUS_SPENT_BYTES, over);
    lock_drop(&bus->spent.lock);
    for (size_t i = 0; i < count; i++) {
        natsMsg_Destroy(over[i]);
    }
}

void message_spend_all(struct bus *bus)
{
    natsMsg *over[BUS_SPENT_MAX];
    lock_take(&bus->spent.lock);
    size_t count = take_spent(bus, /* count_max= */ 0, /* bytes_max= */ 0, over);
    lock_drop(&bus->spent.lock);
    for (size_t i = 0; i < count; i++) {
        natsMsg_Destroy(over[i]);
    }
}

void bus_message_free(struct bus_message *message)
{
    free(message);
}

void bus_message_drop(void *message)
{
    bus_message_free(message);
}

struct slice bus_message_header(const struct bus_message *message, struct slice name)
{
    for (size_t i = 0; i < message->header_count; i++) {
        if (slice_eq(message->headers[i].name, name)) {
            return message->headers[i].value;
        }
    }
    return (struct slice){0};
}

/* ---- pieces ---- */

/* No control byte: nothing that could end a header's line, or the text. */
static bool value_is_safe(struct slice value)
{
    for (size_t i = 0; i < value.size; i++) {
        if ((value.ptr[i] < ' ' && value.ptr[i] != '\t') || value.ptr[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool value_is_blank(struct slice value)
{
    size_t i = 0;
    while (i < value.size && (value.ptr[i] == ' ' || value.ptr[i] == '\t')) {
        i++;
    }
    return i == value.size;
}

static bool name_is_safe(struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        if (name.ptr[i] <= ' ' || name.ptr[i] >= 0x7f || name.ptr[i] == ':') {
            return false;
        }
    }
    return name.size > 0 && name.size <= SUBJECT_TOKEN_MAX;
}

static struct err set_header(natsMsg *msg, struct slice name, struct slice value)
{
    char name_text[SUBJECT_TOKEN_MAX + 1];
    text_of(name, name_text, sizeof(name_text));
    auto_free char *value_text = malloc(value.size + 1);
    if (value_text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    text_of(value, value_text, value.size + 1);
    return natsMsgHeader_Set(msg, name_text, value_text) == NATS_OK ? OK : FAIL(E_NO_MEMORY);
}

static struct slice copy_text(uint8_t **at, const char *text)
{
    size_t size = text == NULL ? 0 : strlen(text);
    struct slice copied = slice_of(*at, size);
    if (size > 0) {
        memcpy(*at, text, size);
    }
    (*at)[size] = '\0';
    *at += size + 1;
    return copied;
}
