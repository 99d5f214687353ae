/*
 * node: everything that `trilane-dp serve` starts, in the order in which it starts and ends.
 *
 * Shape      settings become a struct dp_node; dp_node_run() serves until SIGTERM or SIGINT.
 * Ownership  dp_node owns workers, the apply thread, the bus, the admin's thread and the sockets.
 * Threads    the main thread; signals are blocked everywhere and waited for here.
 * Errors     in 'message', one sentence that names the setting.
 * Source     ARCHITECTURE, "Threads of a node"; NAMES, "Configuration" and exit codes.
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/settings.h"
#include "dataplane/request/lane.h"

/* Settings of `serve`, for settings_load(). */
extern const struct setting_row dp_node_settings[];
extern const size_t dp_node_setting_count;

/* 0 stopped cleanly, 1 error, 6 forced by the shutdown timeout: see dp_node_run(). */
enum dp_node_exit { DP_NODE_STOPPED = 0, DP_NODE_FAILED = 1, DP_NODE_FORCED = 6 };

/*
 * Serves until told to stop, with these lanes (NULL: not on this node). Fails before anything is
 * served when a setting is wrong or a part cannot be had. Past shutdown_timeout the process ends
 * itself with DP_NODE_FORCED.
 */
MUST_CHECK struct err dp_node_run(const struct settings *settings,
                                  const struct dp_lane *const lanes[DP_LANE_COUNT],
                                  struct buf *message);
