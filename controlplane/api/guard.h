/*
 * guard: who may ask, decided from a request's head before its body is taken.
 *
 * Shape      pure functions over the head.
 * Threads    any.
 * Errors     E_HOST_REFUSED, E_ORIGIN_REFUSED, E_UNAUTHENTICATED, E_CONTENT_TYPE.
 * Source     DNS rebinding and cross-site requests: a browser that a foreign page drives reaches
 *            loopback, too. docs/control-plane.md, "API".
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/http1.h"

struct cp_guard {
    struct slice server_names; /* comma-separated, beside loopback's names; may be empty. */
    struct slice address;      /* "https://HOST:PORT" that other replicas are told; may be empty. */
    struct slice token;
};

/* Host must name this server; Origin, if there is one, must be of the same host. */
MUST_CHECK struct err cp_guard_site(const struct cp_guard *guard, const struct http1_head *head);

/* What is sent is JSON: no form of a foreign page is. */
MUST_CHECK struct err cp_guard_json(const struct http1_head *head);

/* A write bears the token ("Authorization: Bearer …") and is JSON. */
MUST_CHECK struct err cp_guard_write(const struct cp_guard *guard, const struct http1_head *head);
