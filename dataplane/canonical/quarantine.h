/*
 * quarantine: messages that are no envelope of their type leave the consumer's way, and stay.
 *
 * Shape      the message goes, with its headers and the reason, to
 *            trilane.<env>.quarantine.<stream>.<consumer> in TRILANE_QUARANTINE; only when
 *            JetStream has it there, the delivery is terminated; else it comes again.
 * Threads    the worker's.
 * Errors     none: what cannot be quarantined now is tried again with its next delivery.
 */
#pragma once

#include "common/base/err.h"
#include "common/bus/bus.h"
#include "common/bus/subject.h"
#include "dataplane/canonical/state.h"

/* Borrows the message for the call. */
void canon_quarantine(struct canon *lane, const struct canon_topic *topic,
                      const struct subject *durable, const struct bus_message *message,
                      struct err why);
