/* process: see process.h. */
#include "common/telemetry/process.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"

enum { US_PER_S = 1000000, MS_PER_S = 1000, NS_PER_US = 1000, STAT_START = 22 };

static uint64_t clock_us(clockid_t clock)
{
    struct timespec t = {0};
    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * US_PER_S + (uint64_t)t.tv_nsec / NS_PER_US;
}

static void read_memory(struct process_usage *out)
{
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return;
    }
    uint64_t size = 0;
    uint64_t resident = 0;
    if (fscanf(file, "%" SCNu64 " %" SCNu64, &size, &resident) == 2) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        out->virtual_bytes = size * page;
        out->resident_bytes = resident * page;
    }
    (void)fclose(file);
}

static void count_files(struct process_usage *out)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return;
    }
    uint64_t count = 0;
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    out->open_files = count < 3 ? 0 : count - 3; /* ".", "..", and the directory's own. */
}

/* Ticks after the machine's start; 0: not known. */
static uint64_t start_ticks(void)
{
    char line[1024];
    FILE *file = fopen("/proc/self/stat", "re");
    if (file == NULL) {
        return 0;
    }
    size_t size = fread(line, 1, sizeof(line) - 1, file);
    (void)fclose(file);
    line[size] = '\0';
    /* The second field is a name in parentheses, which may hold anything. */
    const char *at = strrchr(line, ')');
    for (int field = 2; at != NULL && field < STAT_START; field++) {
        at = strchr(at + 1, ' ');
    }
    uint64_t ticks = 0;
    return at != NULL && sscanf(at, " %" SCNu64, &ticks) == 1 ? ticks : 0;
}

static void find_start(struct process_usage *out)
{
    uint64_t ticks = start_ticks();
    if (ticks == 0) {
        return;
    }
    uint64_t since_boot_ms = ticks * MS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
    uint64_t boot_ms = (uint64_t)clock_wall_ms() - clock_us(CLOCK_BOOTTIME) / MS_PER_S;
    out->start_s = (boot_ms + since_boot_ms) / MS_PER_S;
}

void process_usage(struct process_usage *out)
{
    struct rlimit files = {0};
    *out = (struct process_usage){.cpu_us = clock_us(CLOCK_PROCESS_CPUTIME_ID)};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        out->open_files_max = files.rlim_cur;
    }
    read_memory(out);
    count_files(out);
    find_start(out);
}
