/* bench-snapshot: the control plane's and the node's own code over a large platform, timed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ids.h"

#include "tests/bench/snapshot/snapshot.h"

static int usage(void)
{
    (void)fputs("usage: bench-snapshot compile DIRECTORY…\n"
                "       bench-snapshot apply DIRECTORY DIRECTORY ROUNDS STATE\n"
                "       bench-snapshot swap NATS-URL ROOT-FILE DIRECTORY DIRECTORY RATE SECONDS\n",
                stderr);
    return 2;
}

static unsigned number_of(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
    const char *work = argc > 1 ? argv[1] : "";
    ids_init();
    if (strcmp(work, "compile") == 0 && argc > 2) {
        bench_compile(argv + 2, argc - 2);
    } else if (strcmp(work, "apply") == 0 && argc == 6) {
        bench_apply(argv[2], argv[3], (int)number_of(argv[4]), argv[5]);
    } else if (strcmp(work, "swap") == 0 && argc == 8) {
        bench_swap(&(struct bench_swap){.urls = argv[2],
                                        .root = argv[3],
                                        .directories = {argv[4], argv[5]},
                                        .rate = number_of(argv[6]),
                                        .seconds = number_of(argv[7])});
    } else {
        return usage();
    }
    return 0;
}
