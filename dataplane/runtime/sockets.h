/*
 * sockets: what the node listens on: new sockets, or those of the process before.
 *
 * Ownership  a socket that is taken from the hand-over is the workers' configuration's.
 * Threads    the main thread.
 * Errors     E_IO and what net_listen() says, with a sentence that names the setting.
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"

struct dp_handover;
struct dp_options;
struct dp_worker_config;

/* Opens the ports that are set: 'config' has their sockets, and all addresses of the node. */
MUST_CHECK struct err dp_sockets_open(const struct dp_options *options, struct dp_handover *handed,
                                      struct dp_worker_config *config, struct buf *message);

/* Whether a socket that was handed over listens where the setting says. */
bool dp_socket_listens_on(int fd, const char *text);
