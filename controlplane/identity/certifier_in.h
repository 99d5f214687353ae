/*
 * certifier_in: the messages between trilane-cp and its certifier; both ends are one binary.
 *
 * Shape      structs as they lie in memory; behind a hello comes the bundle, behind a reply the
 *            chain. Texts end with a NUL, whoever wrote them.
 */
#pragma once

#include <stdint.h>

#include "common/net/cert.h"
#include "common/net/csr.h"
#include "controlplane/store/store.h"

enum { CERTIFIER_MAGIC = 0x544c4331 };

struct certifier_hello {
    uint32_t magic;
    uint32_t code;      /* enum err_code. */
    uint32_t size;      /* of the bundle. */
    char message[1024]; /* why it could not start. */
};

struct certifier_order {
    uint32_t magic;
    struct net_point point;
    uint64_t ttl_ms;
    uint64_t count;
    uint8_t status_key[NET_STATUS_KEY_SIZE];
    char node[CP_ENVIRONMENT_MAX + 1];
    char labels[CP_LABELS_MAX + 1];
    char sans[CP_LABELS_MAX + 1];
};

struct certifier_reply {
    uint32_t magic;
    uint32_t code; /* enum err_code. */
    uint32_t size; /* of the chain. */
    char serial[NET_SERIAL_SIZE];
    int64_t not_after_ms;
};
