/*
 * wire: the messages between trilane-cp and its signer; both ends are one binary.
 *
 * Shape      structs as they lie in memory; 'size' bytes of body follow a request.
 * Errors     E_CLOSED when the other end is gone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"

enum {
    SIGNER_MAGIC = 0x544c5331,
    SIGNER_KEYS = 2, /* manifest key, head key. */
};

struct signer_request {
    uint32_t magic;
    uint32_t kind;
    uint64_t version;
    uint64_t root_version;
    uint64_t epoch;
    uint64_t sequence;
    uint32_t size;
    uint32_t reserved;
};

struct signer_reply {
    uint32_t magic;
    uint32_t code; /* enum err_code. */
    uint8_t key_id[KEY_ID_SIZE];
    uint8_t signature[KEY_SIGNATURE_SIZE];
};

struct signer_hello {
    uint32_t magic;
    uint32_t code;
    uint8_t manifest_public[KEY_PUBLIC_SIZE];
    uint8_t head_public[KEY_PUBLIC_SIZE];
    uint64_t epoch;
    uint64_t version;
    char message[256]; /* why it could not start; NUL-terminated. */
};

/* Sends or receives all of it. E_CLOSED when the other end is gone, E_IO. */
MUST_CHECK struct err signer_send(int fd, struct slice bytes);
MUST_CHECK struct err signer_receive(int fd, void *out, size_t size);

/* "fd:5" is a key that comes by a descriptor; false for the path of a file, or a number below 3. */
bool signer_source_fd(const char *source, int *out_fd);
