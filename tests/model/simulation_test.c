/*
 * Plays schedules of faults over the real leaders, publishers, cosigners, signers' states, stores,
 * nodes and their disks, on simulated clocks and a simulated network, and proves that nodes never
 * go back, never mix, serve nothing that was not published, and come to the newest version when
 * the faults are over; that no number has two contents, no request two versions, no epoch two
 * leaders, and no key signs a lower number.
 *
 *     model.simulation_test FIRST COUNT             seeds FIRST to FIRST + COUNT - 1; with
 *                                                   TRILANE_TEST_LONG fifty times as many, from
 *                                                   FIRST * 50 on, where no sanitizer slows them
 *     model.simulation_test --seed N [--without HEX] [--trace]
 *                                                   one again, as a failure says; what happens goes
 *                                                   to stderr
 *     model.simulation_test --bugs FIRST COUNT      plants the bugs of bugs.h, one at a time: each
 *                                                   must be seen by one of those seeds
 */
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/scope.h"

#include "tests/model/chaos.h"
#include "tests/model/schedule.h"
#include "tests/support/counts.h"

enum { LONG_FACTOR = 50, CHILD_SECONDS = 120 };

#ifdef __SANITIZE_ADDRESS__
/* A killed process gives nothing back, and what it left shall not be kept warm. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0:malloc_context_size=0:max_malloc_fill_size=0:quarantine_size_mb=0:"
           "thread_local_quarantine_size_kb=0";
}
#endif

/* ---- one schedule in a child ---- */

static int remove_entry(const char *path, const struct stat *s, int flag, struct FTW *ftw)
{
    (void)s;
    (void)flag;
    (void)ftw;
    return remove(path);
}

/* In memory: a schedule syncs its disks a thousand times. */
static void make_directory(char out[64])
{
    (void)snprintf(out, 64, "/dev/shm/trilane-model-XXXXXX");
    if (mkdtemp(out) == NULL) {
        (void)snprintf(out, 64, "/tmp/trilane-model-XXXXXX");
        CHECK(mkdtemp(out) != NULL);
    }
}

static _Noreturn void play(const struct schedule *schedule, bool is_quiet,
                           struct schedule_figures *out)
{
    (void)alarm(CHILD_SECONDS); /* a schedule that hangs ends by SIGALRM. */
    if (is_quiet) {
        (void)!freopen("/dev/null", "we", stdout);
        (void)!freopen("/dev/null", "we", stderr);
    }
    schedule_run(schedule, out);
    (void)fflush(stdout);
    _exit(0);
}

/* Whether all held. */
static bool run_child(struct schedule schedule, bool is_quiet, struct schedule_figures *out)
{
    char directory[64];
    struct schedule_figures *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    make_directory(directory);
    schedule.directory = directory;
    (void)fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        play(&schedule, is_quiet, shared);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    /* Nobody else walks a tree in this process. */
    (void)nftw(directory, remove_entry, 16,
               FTW_DEPTH | FTW_PHYS); /* NOLINT(concurrency-mt-unsafe) */
    *out = *shared;
    CHECK(munmap(shared, sizeof(*shared)) == 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- a failure ---- */

/* Leaves out each fault without which it fails all the same. */
static uint64_t shrink(struct schedule schedule)
{
    for (unsigned i = 0; i < FAULTS_MAX; i++) {
        struct schedule_figures figures;
        struct schedule smaller = schedule;
        smaller.left_out |= UINT64_C(1) << i;
        if (!run_child(smaller, /* is_quiet= */ true, &figures)) {
            schedule.left_out = smaller.left_out;
        }
    }
    return schedule.left_out;
}

static void show(struct schedule schedule)
{
    struct schedule_figures figures;
    schedule.left_out = shrink(schedule);
    schedule.says_faults = true;
    (void)printf("--- seed %" PRIu64 " fails; what is left of it:\n", schedule.seed);
    (void)run_child(schedule, /* is_quiet= */ false, &figures);
    (void)printf("reproduce: build/dev/tests/model.simulation_test --seed %" PRIu64
                 " --without %" PRIx64 " --trace\n",
                 schedule.seed, schedule.left_out);
}

/* ---- many ---- */

/* The same seed gives the same schedule, or a failure could not be looked at. */
static bool repeats(uint64_t seed)
{
    struct schedule_figures first;
    struct schedule_figures second;
    struct schedule schedule = {.seed = seed};
    bool held = run_child(schedule, /* is_quiet= */ true, &first) ==
                run_child(schedule, /* is_quiet= */ true, &second);
    if (!held || first.digest != second.digest) {
        (void)printf("seed %" PRIu64 " gave two schedules\n", seed);
        return false;
    }
    return true;
}

/* Until a time, when it is long. */
static int run_many(uint64_t from, uint64_t count)
{
    struct schedule_figures sum = {0};
    for (uint64_t seed = from; seed < from + count; seed++) {
        struct schedule_figures figures = {0};
        struct schedule schedule = {.seed = seed};
        if (!run_child(schedule, /* is_quiet= */ false, &figures)) {
            show(schedule);
            return 1;
        }
        sum.faults += figures.faults;
        sum.publications += figures.publications;
        sum.virtual_ms += figures.virtual_ms;
    }
    (void)printf("figure: %" PRIu64 " schedules from seed %" PRIu64 ", %" PRIu64 " faults, %" PRIu64
                 " publications, %" PRIu64 " s of virtual time\n",
                 count, from, sum.faults, sum.publications, sum.virtual_ms / 1000);
    return repeats(from) ? 0 : 1;
}

static int run_one(int argc, char **argv)
{
    struct schedule schedule = {.says_faults = true};
    struct schedule_figures figures = {0};
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (strcmp(argv[i], "--seed") == 0 && has_value) {
            schedule.seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--without") == 0 && has_value) {
            schedule.left_out = strtoull(argv[++i], NULL, 16);
        } else if (strcmp(argv[i], "--bug") == 0 && has_value) {
            schedule.bug = bugs_find(argv[++i]);
        } else if (strcmp(argv[i], "--trace") == 0) {
            schedule.traces = true;
        } else {
            return 2;
        }
    }
    bool held = run_child(schedule, /* is_quiet= */ false, &figures);
    (void)printf("seed %" PRIu64 ": %s, %" PRIu64 " publications, digest %016" PRIx64 "\n",
                 schedule.seed, held ? "holds" : "fails", figures.publications, figures.digest);
    return held ? 0 : 1;
}

/* ---- planted bugs ---- */

/* Plays schedules until one sees the bug. */
static bool is_seen(enum bug bug, uint64_t from, uint64_t count)
{
    for (uint64_t seed = from; seed < from + count; seed++) {
        struct schedule_figures figures = {0};
        struct schedule schedule = {.seed = seed, .bug = bug};
        if (!run_child(schedule, /* is_quiet= */ true, &figures)) {
            (void)printf("figure: %s is seen by seed %" PRIu64 "\n", bugs_name(bug), seed);
            (void)run_child(schedule, /* is_quiet= */ false, &figures);
            return true;
        }
    }
    (void)printf("%s (%s) is not seen by seeds %" PRIu64 " to %" PRIu64 "\n", bugs_name(bug),
                 bugs_text(bug), from, from + count - 1);
    return false;
}

static int run_bugs(uint64_t from, uint64_t count)
{
    unsigned unseen = 0;
    for (int bug = BUG_none + 1; bug < BUG_COUNT; bug++) {
        unseen += is_seen((enum bug)bug, from, count) ? 0 : 1;
    }
    return unseen == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    ids_init();
    if (argc == 4 && strcmp(argv[1], "--bugs") == 0) {
        return run_bugs(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    }
    if (argc == 3 && argv[1][0] != '-') {
        uint64_t factor = counts_far() ? LONG_FACTOR : 1;
        return run_many(strtoull(argv[1], NULL, 10) * factor, strtoull(argv[2], NULL, 10) * factor);
    }
    return run_one(argc, argv);
}
