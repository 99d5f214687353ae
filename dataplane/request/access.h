/*
 * access: one line a request, logfmt, gathered by the worker and written by another thread.
 *
 *     ts=2026-01-31T12:00:00.123Z event=request id=… lane=operator front=grpc code=OK grpc=0
 *     http=200 caller=acme/web tenant=acme target=service/acme/orders method=/acme.Orders/List
 *     rule=acme/orders/web route=acme/orders upstream=127.0.0.1:15051 version=7 in=128 out=64
 *     us=412 trace=4bf9… correlation=…
 *
 * shadow=acme/orders/strict stands behind the rule where that shadow rule would have decided
 * otherwise; path=fast where the kill switch had the fast path decide.
 *
 * Shape      a block of lines a worker, handed to the writer when it is full or 100 ms old.
 * Ownership  the log owns its blocks; a request is only read.
 * Threads    dp_access_add() and dp_access_flush(): the worker whose log it is. The writer is a
 *            thread of its own, shared by the workers.
 * Errors     what the writer cannot take is dropped and counted; a request never waits for a log.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"

struct dp_access_log;
struct dp_access_writer;
struct dp_request;

/* Starts the writer's thread. 'path': a file that is appended to, or "-" for standard output. */
MUST_CHECK struct err dp_access_writer_new(const char *path, struct dp_access_writer **out);

/* Writes what is left and ends the thread; every log must be freed before. NULL is fine. */
void dp_access_writer_free(struct dp_access_writer *writer);

/* A worker's own log on the writer. */
MUST_CHECK struct err dp_access_log_new(struct dp_access_writer *writer,
                                        struct dp_access_log **out);
void dp_access_log_free(struct dp_access_log *log);

/* Adds the line of a request that is over. */
void dp_access_add(struct dp_access_log *log, const struct dp_request *rq);

/* Hands over what is older than 100 ms; the worker calls it now and then. */
void dp_access_flush(struct dp_access_log *log, uint64_t now_ns);

/* Lines that were dropped since start. Any thread. */
uint64_t dp_access_dropped(const struct dp_access_writer *writer);
