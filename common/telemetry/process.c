/* process: see process.h. */
#include "common/telemetry/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/slice.h"

enum {
    US_PER_S = 1000000,
    MS_PER_S = 1000,
    NS_PER_US = 1000,
    STAT_START = 22,
    LINE_MAX_BYTES = 1024
};

static uint64_t clock_us(clockid_t clock)
{
    struct timespec t = {0};
    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * US_PER_S + (uint64_t)t.tv_nsec / NS_PER_US;
}

/* A file of one line; empty when it cannot be read. */
static struct slice read_line(const char *path, char *room, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return (struct slice){0};
    }
    size_t got = fread(room, 1, size, file);
    (void)fclose(file);
    return slice_of(room, got);
}

/* The number that is word 'index' of a line, from 0; 0: there is none. */
static uint64_t number_at(struct slice line, size_t index)
{
    uint64_t number = 0;
    for (size_t i = 0; i < index; i++) {
        line = slice_from(line, slice_find(line, ' ') + 1);
    }
    return slice_to_u64(slice_head(line, slice_find(line, ' ')), &number) ? number : 0;
}

static void read_memory(struct process_usage *out)
{
    char room[LINE_MAX_BYTES];
    struct slice line = read_line("/proc/self/statm", room, sizeof(room));
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    out->virtual_bytes = number_at(line, 0) * page;
    out->resident_bytes = number_at(line, 1) * page;
}

static void count_files(struct process_usage *out)
{
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return;
    }
    uint64_t count = 0;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this stream is this thread's alone. */
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    out->open_files = count < 3 ? 0 : count - 3; /* ".", "..", and the directory's own. */
}

/* Ticks after the machine's start; 0: not known. */
static uint64_t start_ticks(void)
{
    char room[LINE_MAX_BYTES];
    struct slice line = read_line("/proc/self/stat", room, sizeof(room));
    /* The second field is a name in parentheses, which may hold anything. */
    size_t name = line.size;
    while (name > 0 && line.ptr[name - 1] != ')') {
        name--;
    }
    return number_at(slice_from(line, name), STAT_START - 2);
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
