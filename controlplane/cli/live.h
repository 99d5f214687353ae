/*
 * live: whether the nodes run what was published.
 *
 * Shape      asks /api/v1/nodes until every live node runs the version, one refused it, or the time
 *            is over. Unverified nodes count for nothing, in neither way.
 * Units      seconds.
 */
#pragma once

#include "controlplane/cli/cli.h"

/*
 * CLI_DONE, or CLI_NOT_LIVE with the nodes and their codes on standard error, or the code of a call
 * that failed. 'out' (an object, may be NULL) gets "live" and "nodes".
 */
int cli_wait_live(const struct cli *cli, uint64_t version, uint64_t timeout_s, json_t *out);
