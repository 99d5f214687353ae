/*
 * snapshot: the works of bench-snapshot, one a file; each prints one JSON object and ends.
 *
 * Threads    one.
 */
#pragma once

/* Compiles a directory from nothing, then each of the others with what the one before left. */
void bench_compile(char *const *directories, int count);

/*
 * Verifies and applies, as a node does from an accepted head on whose bytes are all at hand: the
 * first directory from nothing, then it and the second by turns. State lies below 'state'.
 */
void bench_apply(const char *first, const char *second, int rounds, const char *state);

/*
 * Publishes two directories by turns to nodes on a bus, so many heads a second. Writes the trust
 * root to a file, says "ready", and begins with a line on standard input.
 */
struct bench_swap {
    const char *urls; /* of NATS. */
    const char *root; /* file. */
    const char *directories[2];
    unsigned rate;
    unsigned seconds;
};
void bench_swap(const struct bench_swap *options);
