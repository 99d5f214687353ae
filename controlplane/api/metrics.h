/*
 * metrics: what /metrics of the control plane says, in Prometheus' text format.
 *
 * Shape      written anew for each scrape from what the rooms know of themselves.
 * Threads    any: it reads copies.
 */
#pragma once

#include "controlplane/api/api.h"

/* 'limited': joins and renewals that were too many. */
MUST_CHECK struct err cp_metrics_render(const struct cp_api_options *o, uint64_t limited,
                                        struct buf *out);
