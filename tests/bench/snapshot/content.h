/*
 * content: sources from a directory, compiled and cut, and signed under a number.
 *
 * Ownership  a content owns what it is made of; a version borrows its streams.
 * Threads    one.
 * Errors     what cannot be made ends the program.
 */
#pragma once

#include "controlplane/compile/compile.h"
#include "controlplane/publish/prepared.h"
#include "controlplane/source/source.h"

#include "tests/support/publisher.h"

struct bench_content {
    struct cp_source_set sources;
    struct cp_prepared *prepared;
};

/* Ends the program when something fails that a bench cannot do without. */
void bench_must(struct err e, const char *what);

/* Reads, compiles, cuts. */
void bench_content_load(struct bench_content *c, const char *directory);
void bench_content_free(struct bench_content *c);

/* The content under a number, signed; version_free() it. It borrows the content's streams. */
struct version *bench_version(struct publisher *p, const struct bench_content *c, uint64_t number);
void bench_version_free(struct version *v);

/* Milliseconds since a moment of the monotonic clock. */
double bench_ms(uint64_t since_ns);
