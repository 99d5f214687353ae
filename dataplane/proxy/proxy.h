/*
 * proxy: the lane in which a service calls the outside world.
 *
 * Shape      a dp_lane. Without an Egress of the caller's tenant that names the host, the port,
 *            the method and the path there is no way out; what a way out needs further is a policy
 *            that allows it, and an address that may be dialled.
 * Threads    the worker's.
 * Source     docs/proxy.md.
 */
#pragma once

#include "dataplane/request/lane.h"

extern const struct dp_lane dp_proxy_lane;
