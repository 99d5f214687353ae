/*
 * process: what this process takes of its machine.
 *
 * Units      as named.
 * Threads    any. It reads files of /proc: some 20 us, and more the more files are open.
 * Errors     what cannot be read is 0.
 * Source     Prometheus, "Writing client libraries": process metrics; proc(5).
 */
#pragma once

#include <stdint.h>

struct process_usage {
    uint64_t cpu_us; /* of all threads, since the start. */
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t open_files;
    uint64_t open_files_max; /* the soft limit. */
    uint64_t start_s;        /* since the epoch, when the process began. */
};

void process_usage(struct process_usage *out);
