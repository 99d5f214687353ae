/*
 * disk: whatever kills a node, and wherever the disk refuses, the next start serves a valid
 * version that is not older than the one that was good.
 */
#include "common/snapshot/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/snapshot/file.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

/* A read that fails, as a disk or a machine short of memory has it: see --wrap in CMakeLists.txt.
 */
static struct {
    unsigned countdown; /* reads that go well before it. */
    enum err_code code; /* E_OK: none fails. */
} bad_read;

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
struct err __real_file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size);
struct err __wrap_file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size);
struct err __wrap_file_read_at(int fd, void *out, size_t size, uint64_t offset, size_t *out_size)
{
    if (bad_read.code != E_OK && bad_read.countdown-- == 0) {
        struct err e = {bad_read.code, __FILE__};
        bad_read.code = E_OK;
        return e;
    }
    return __real_file_read_at(fd, out, size, offset, out_size);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

enum { PARTS = 120, VERSIONS = 4 };

static struct fx fx;
static struct fx_version versions[VERSIONS]; /* numbers 1 to 4, one part changed in each. */

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    for (unsigned i = 0; i < VERSIONS; i++) {
        fx_version_make(&fx, i + 1, PARTS, i, &versions[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VERSIONS; i++) {
        fx_version_free(&versions[i]);
    }
    fx_free(&fx);
    return 0;
}

static struct disk_options options_of(const char *directory)
{
    return (struct disk_options){.directory = directory,
                                 .environment = fx.environment,
                                 .trust_root = buf_slice(&fx.root_bytes),
                                 .lock_fd = -1};
}

static struct err commit(struct disk *d, const struct fx_version *v, struct snap_set *set)
{
    (void)v;
    const struct disk_apply apply = {
        .manifest = buf_slice(&v->container), .set = set, .epoch = v->manifest.version + 10};
    TRY(disk_commit(d, &apply));
    disk_make_room(d); /* as behind a swap. */
    return OK;
}

static struct err apply(struct disk *d, const struct fx_version *v)
{
    struct snap_set *set = fx_set(v, NULL);
    struct err e = commit(d, v, set);
    snap_set_unref(set);
    return e;
}

/* Opens with everything else dead: only --trust-root is left out as well. */
static struct disk *open_alone(const char *directory)
{
    struct disk *d = NULL;
    struct disk_options options = options_of(directory);
    options.trust_root = slice_str("");
    EXPECT_OK(disk_open(&options, &d));
    return d;
}

/* Whether the set holds the bytes of the version, part by part. */
static void assert_same_content(const struct snap_set *set, const struct fx_version *v)
{
    for (size_t i = 0; i < FX_STREAMS - 1; i++) {
        struct part_iter it = {.rest = buf_slice(&v->raw[i])};
        struct snap_cursor at = {0};
        struct snap_part got;
        struct part want;
        bool more = true;
        EXPECT_OK(part_next(&it, &want, &more));
        while (more) {
            assert_true(snap_set_next(set, v->streams[i].kind, &at, &got));
            assert_true(slice_eq(got.key, want.key) && slice_eq(got.bytes, want.bytes));
            EXPECT_OK(part_next(&it, &want, &more));
        }
        assert_false(snap_set_next(set, v->streams[i].kind, &at, &got));
    }
}

/* Starts and gives the version that is served, its content checked. */
static uint64_t start_version(struct disk *d)
{
    struct disk_start start;
    EXPECT_OK(disk_start(d, &start));
    uint64_t version = start.version.version;
    assert_true(version >= 1 && version <= VERSIONS);
    assert_same_content(start.set, &versions[version - 1]);
    assert_int_equal(snap_set_version(start.set), version);
    snap_set_unref(start.set);
    return version;
}

/* ---- the plain way ---- */

static void starts_from_disk_alone(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    struct disk_start start;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT(disk_start(d, &start), E_NOT_FOUND);
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);

    d = open_alone(directory);
    assert_int_equal(disk_floor(d)->mark, DISK_MARK_TRYING);
    assert_int_equal(disk_floor(d)->present.version, 2);
    assert_int_equal(disk_floor(d)->good.version, 1);
    assert_int_equal(disk_floor(d)->epoch, 12);
    assert_int_equal(disk_root(d)->version, 1);
    assert_int_equal(start_version(d), 2);
    struct judge j;
    disk_judge(d, &j);
    assert_true(j.has_order && j.has_digest && !j.has_head);
    assert_int_equal(j.version, 2);
    assert_int_equal(j.epoch, 12);
    disk_close(d);
    fx_remove_directory(directory);
}

static void goes_to_no_lower_version(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[2]));
    EXPECT(apply(d, &versions[1]), E_SNAPSHOT_REPLAYED);
    assert_int_equal(disk_floor(d)->present.version, 3);
    disk_close(d);
    fx_remove_directory(directory);
}

static void needs_a_root(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    options.trust_root = slice_str("");
    EXPECT(disk_open(&options, &d), E_ROOT_MISSING);
    fx_remove_directory(directory);
}

static void belongs_to_one_process(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *first = NULL;
    struct disk *second = NULL;
    EXPECT_OK(disk_open(&options, &first));
    EXPECT(disk_open(&options, &second), E_CONFLICT);
    options.lock_fd = disk_lock_fd(first); /* handed over: the new process has it at once. */
    EXPECT_OK(disk_open(&options, &second));
    disk_close(first);
    options.lock_fd = -1;
    EXPECT(disk_open(&options, &first), E_CONFLICT);
    options.lock_fd = 0; /* a descriptor that is not the lock. */
    EXPECT(disk_open(&options, &first), E_USAGE);
    disk_close(second);
    fx_remove_directory(directory);
}

static void refuses_another_environment(void **state)
{
    (void)state;
    char directory[256];
    uint8_t other[ENVIRONMENT_SIZE];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    disk_close(d);
    snap_environment(slice_str("other"), other);
    options.environment = other;
    EXPECT(disk_open(&options, &d), E_USAGE);
    fx_remove_directory(directory);
}

/* ---- crash marks ---- */

static void three_crashes_lead_to_last_good(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    const uint64_t wanted[] = {2, 2, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        d = open_alone(directory);
        struct disk_start start;
        EXPECT_OK(disk_start(d, &start));
        assert_int_equal(start.version.version, wanted[i]);
        assert_int_equal(start.fell_back, wanted[i] == 1);
        assert_int_equal(start.why.code, wanted[i] == 1 ? E_CRASHED_NODE : E_OK);
        snap_set_unref(start.set);
        EXPECT_OK(wanted[i] == 1 ? disk_mark_good(d)
                                 : OK); /* the old one runs, and proves nothing. */
        assert_int_equal(disk_floor(d)->good.version, 1);
        assert_int_equal(disk_floor(d)->present.version, 2);
        disk_close(d);
    }
    d = open_alone(directory);
    struct judge j;
    disk_judge(d, &j);
    assert_int_equal(j.refused.count, 1);
    assert_memory_equal(j.refused.digests[0], versions[1].manifest.digest, DIGEST_SIZE);
    EXPECT_OK(apply(d, &versions[2])); /* the way out. */
    EXPECT_OK(disk_mark_good(d));
    assert_int_equal(start_version(d), 3);
    disk_close(d);
    fx_remove_directory(directory);
}

/* With nothing to fall back to it is refused just so; whoever serves it all the same and sees it
 * live has it at each start from then on. */
static void three_crashes_without_last_good_serve_nothing(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    disk_close(d);
    for (size_t i = 0; i < 2; i++) {
        d = open_alone(directory);
        assert_int_equal(start_version(d), 1);
        disk_close(d);
    }
    d = open_alone(directory);
    struct disk_start start;
    struct judge j;
    EXPECT(disk_start(d, &start), E_CRASHED_NODE);
    disk_judge(d, &j);
    assert_int_equal(j.refused.count, 1);
    assert_memory_equal(j.refused.digests[0], versions[0].manifest.digest, DIGEST_SIZE);
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_floor(d)->refused.count, 0);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Version 2 as a newer release would make it: it asks for what this one cannot do. */
static void make_newer(struct fx_version *v)
{
    fx_version_make(&fx, 2, PARTS, 1, v);
    const struct manifest_plan plan = {.version = 2,
                                       .made_at_ms = FX_NOW_MS,
                                       .capabilities = UINT64_C(1) << 62,
                                       .streams = v->streams,
                                       .stream_count = FX_STREAMS};
    manifest_free(&v->manifest);
    buf_clear(&v->body);
    buf_clear(&v->container);
    EXPECT_OK(manifest_encode(&plan, &v->body));
    const struct key_pair *signers[] = {&fx.manifests[0], &fx.manifests[1]};
    fx_seal(CONTAINER_MANIFEST, "test", buf_slice(&v->body), signers, 2, &v->container);
    EXPECT_OK(manifest_decode(buf_slice(&v->body), &v->manifest));
}

/* Its last good version is no way round what the newer one may refuse, however often it starts;
 * the floor stays where it is. */
static void a_newer_releases_version_is_waited_over(void **state)
{
    (void)state;
    char directory[256];
    struct fx_version newer;
    make_newer(&newer);
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    EXPECT_OK(apply(d, &newer));
    disk_close(d);
    for (size_t i = 0; i < 5; i++) {
        struct disk_start start;
        struct judge j;
        d = open_alone(directory);
        EXPECT(disk_start(d, &start), E_CAPABILITY_MISSING);
        disk_judge(d, &j);
        assert_int_equal(j.version, 2);
        assert_int_equal(j.refused.count, 0);
        disk_close(d);
    }
    d = open_alone(directory);
    EXPECT(apply(d, &versions[0]), E_SNAPSHOT_REPLAYED);
    EXPECT_OK(apply(d, &versions[2])); /* the way on. */
    assert_int_equal(start_version(d), 3);
    disk_close(d);
    fx_version_free(&newer);
    fx_remove_directory(directory);
}

/* What the machine could not give says nothing against the present version: it is neither passed
 * over for the last good one, nor counted, however often that happens. */
static void what_passes_leads_to_no_older_version(void **state)
{
    (void)state;
    const enum err_code codes[] = {E_IO, E_NO_MEMORY, E_OUT_OF_MEMORY};
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(start_version(d), 2);
    disk_close(d); /* one death, which stays counted. */
    for (size_t i = 0; i < 6; i++) {
        struct disk_start start;
        d = open_alone(directory);
        bad_read.countdown = (unsigned)i;
        bad_read.code = codes[i % 3];
        EXPECT(disk_start(d, &start), codes[i % 3]);
        assert_int_equal(bad_read.code, E_OK);
        assert_int_equal(disk_floor(d)->starts, 1);
        disk_close(d);
    }
    d = open_alone(directory);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

static void a_clean_stop_clears_the_count(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    disk_close(d);
    for (size_t i = 0; i < 5; i++) {
        d = open_alone(directory);
        assert_int_equal(start_version(d), 1);
        assert_int_equal(disk_floor(d)->starts, 1);
        EXPECT_OK(disk_mark_stopped(d));
        disk_close(d);
    }
    fx_remove_directory(directory);
}

/* ---- faults at every step ---- */

struct fault {
    int countdown; /* steps that go well before the fault. */
    int error;     /* what the step fails with; zero: SIGKILL. */
    int seen;      /* steps met. */
    bool sticky;   /* all steps after it fail, too: a disk that is full stays full. */
};

static int fault_hook(void *context, enum disk_step step)
{
    struct fault *f = context;
    (void)step;
    f->seen++;
    bool now = f->sticky ? f->seen > f->countdown : f->seen == f->countdown + 1;
    if (now && f->error == 0) {
        (void)kill(getpid(), SIGKILL);
        pause(); /* not reached: the signal ends the process. */
    }
    return now ? f->error : 0;
}

/*
 * A life of a node: start, apply each version and find it good; ends by itself or by the hook.
 * Gives the last version whose apply was said to be done.
 */
static uint64_t live(const char *directory, struct fault *fault)
{
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    struct disk_start start = {0};
    options.hook = fault_hook;
    options.hook_context = fault;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(disk_start(d, &start));
    snap_set_unref(start.set);
    uint64_t applied = start.version.version;
    for (size_t i = 1; i < VERSIONS; i++) {
        struct err e = apply(d, &versions[i]);
        if (err_ok(e)) {
            applied = versions[i].manifest.version;
            e = disk_mark_good(d);
        }
        if (!err_ok(e)) {
            EXPECT(e, E_PERSIST_FAILED);
        }
    }
    disk_close(d);
    return applied;
}

static void make_first_good(const char *directory)
{
    struct disk_options options = options_of(directory);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[0]));
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
}

/* What was good on disk must never be gone: the least that a later start may serve. */
static void assert_survived(const char *directory, uint64_t *out_version)
{
    struct disk *d = open_alone(directory);
    uint64_t good = disk_floor(d)->good.version;
    assert_true(good >= 1);
    assert_false(disk_notes(d).floor_rebuilt);
    *out_version = start_version(d);
    assert_true(*out_version >= good);
    disk_close(d);
}

static void killed_at_every_step(void **state)
{
    (void)state;
    bool finished = false;
    uint64_t last = 1;
    for (int step = 0; !finished; step++) {
        char directory[256];
        fx_directory(directory);
        make_first_good(directory);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct fault fault = {.countdown = step};
            (void)live(directory, &fault);
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        finished = WIFEXITED(status);
        assert_true(finished ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
        uint64_t version = 0;
        assert_survived(directory, &version);
        assert_true(version >= last); /* one step later is never an older version. */
        last = version;
        fx_remove_directory(directory);
    }
    assert_int_equal(last, VERSIONS);
}

static ino_t inode_of(const char *directory, const char *name)
{
    char path[320];
    struct stat s = {0};
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return stat(path, &s) == 0 ? s.st_ino : 0;
}

/* No file is made for an apply; but what the disk may still have as the floor is not written over.
 */
static void two_files_are_the_floor_by_turns(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    assert_int_equal(inode_of(directory, "floor.new"), 0); /* who made it may not have synced. */
    EXPECT_OK(apply(d, &versions[1]));
    ino_t floor = inode_of(directory, "floor");
    ino_t aside = inode_of(directory, "floor.new");
    assert_true(aside != 0 && aside != floor);
    EXPECT_OK(disk_mark_good(d));
    assert_int_equal(inode_of(directory, "floor"), aside);
    assert_int_equal(inode_of(directory, "floor.new"), floor);
    disk_close(d);

    struct fault fault = {.countdown = 1 << 20, .error = ENOSPC};
    struct disk_options options = options_of(directory);
    options.hook = fault_hook;
    options.hook_context = &fault;
    EXPECT_OK(disk_open(&options, &d));
    EXPECT_OK(apply(d, &versions[2]));
    assert_int_equal(disk_floor(d)->mark, DISK_MARK_TRYING);
    fault.countdown = fault.seen + (DISK_FLOOR_DIR_SYNC - DISK_FLOOR_CREATE);
    EXPECT(disk_mark_good(d), E_PERSIST_FAILED);
    assert_int_equal(disk_floor(d)->mark, DISK_MARK_GOOD); /* in place, and not surely synced. */
    assert_int_equal(inode_of(directory, "floor.new"), 0);
    disk_close(d);
    fx_remove_directory(directory);
}

/* The disk refuses at one step, or from one step on; the same process goes on all the while. */
static void refused_at_every_step(bool sticky, int error)
{
    int steps = 1;
    for (int step = 0; step < steps; step++) {
        char directory[256];
        fx_directory(directory);
        make_first_good(directory);
        struct fault fault = {.countdown = step, .error = error, .sticky = sticky};
        uint64_t applied = live(directory, &fault);
        steps = fault.seen > steps ? fault.seen : steps;
        uint64_t version = 0;
        assert_survived(directory, &version);
        assert_true(version >= applied); /* what was said to be done is done. */
        fx_remove_directory(directory);
    }
    assert_true(steps > 30);
}

static void no_space_at_every_step(void **state)
{
    (void)state;
    refused_at_every_step(/* sticky= */ false, ENOSPC);
}

static void no_space_from_every_step_on(void **state)
{
    (void)state;
    refused_at_every_step(/* sticky= */ true, ENOSPC);
}

static void input_output_error_at_every_step(void **state)
{
    (void)state;
    refused_at_every_step(/* sticky= */ false, EIO);
}

static void input_output_error_from_every_step_on(void **state)
{
    (void)state;
    refused_at_every_step(/* sticky= */ true, EIO);
}

/* A real write that fails: the file may not grow past a bound, at every bound near what it takes.
 */
static void real_writes_fail_at_every_size(void **state)
{
    (void)state;
    (void)signal(SIGXFSZ, SIG_IGN);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    unsigned failed = 0;
    unsigned done = 0;
    for (rlim_t extra = 0; extra < 400000; extra += 9973) {
        char directory[256];
        fx_directory(directory);
        make_first_good(directory);
        struct disk_options options = options_of(directory);
        struct disk *d = NULL;
        EXPECT_OK(disk_open(&options, &d));
        uint64_t size = disk_sizes(d).pack_bytes;
        struct rlimit bound = {.rlim_cur = size + extra, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &bound), 0);
        struct err e = apply(d, &versions[1]);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        failed += e.code == E_PERSIST_FAILED ? 1 : 0;
        done += err_ok(e) ? 1 : 0;
        assert_true(err_ok(e) || e.code == E_PERSIST_FAILED);
        assert_int_equal(disk_floor(d)->present.version, err_ok(e) ? 2 : 1);
        disk_close(d);
        d = open_alone(directory);
        assert_int_equal(disk_notes(d).torn_bytes, 0);
        assert_int_equal(start_version(d), err_ok(e) ? 2 : 1);
        EXPECT_OK(apply(d, &versions[2])); /* with room again, it goes on. */
        disk_close(d);
        fx_remove_directory(directory);
    }
    assert_true(failed > 0 && done > 0);
}

enum { NO_NAMESPACE = 77 };

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t ignored = write(fd, text, strlen(text)); /* mounting says whether it was enough. */
        (void)ignored;
        (void)close(fd);
    }
}

/* A file system of our own in a namespace of our own; false where that is not allowed. */
static bool mount_tiny(const char *directory)
{
    char users[64];
    char groups[64];
    (void)snprintf(users, sizeof(users), "0 %u 1", (unsigned)geteuid());
    (void)snprintf(groups, sizeof(groups), "0 %u 1", (unsigned)getegid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", users);
    write_text("/proc/self/gid_map", groups);
    return mount("none", directory, "tmpfs", 0, "size=2m,mode=0700") == 0;
}

/* Fills the file system to its last page but 'pages'. */
static void fill_up(const char *directory, unsigned pages)
{
    static const uint8_t zeros[4096];
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/filler", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    off_t size = 0;
    for (ssize_t n = 1; n > 0; size += n > 0 ? n : 0) {
        n = write(fd, zeros, sizeof(zeros));
    }
    assert_int_equal(errno, ENOSPC);
    assert_true(size >= (off_t)pages * 4096);
    assert_int_equal(ftruncate(fd, size - (off_t)pages * 4096), 0);
    (void)close(fd);
}

/* With ever more pages free, an apply fails whole until it is done whole. */
static void live_on_a_full_disk(const char *directory)
{
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    unsigned pages = 0;
    struct err e = FAIL(E_PERSIST_FAILED);
    for (; !err_ok(e) && pages < 200; pages++) {
        fill_up(directory, pages);
        e = apply(d, &versions[1]);
        assert_true(err_ok(e) || e.code == E_PERSIST_FAILED);
        assert_int_equal(disk_floor(d)->present.version, err_ok(e) ? 2 : 1);
    }
    assert_true(err_ok(e) && pages > 5);
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
}

static void a_full_file_system(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!mount_tiny(directory)) {
            _exit(NO_NAMESPACE);
        }
        live_on_a_full_disk(directory);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(rmdir(directory), 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_NAMESPACE) {
        print_message("no namespaces here: real_writes_fail_at_every_size stands alone\n");
        skip();
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- damaged files ---- */

static void read_file(const char *directory, const char *name, struct buf *out)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st = {0};
    uint8_t *at = NULL;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    buf_clear(out);
    EXPECT_OK(buf_reserve(out, (size_t)st.st_size + 1, &at));
    assert_int_equal(read(fd, at, (size_t)st.st_size), st.st_size);
    buf_commit(out, (size_t)st.st_size);
    (void)close(fd);
}

static void write_file(const char *directory, const char *name, struct slice bytes)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.ptr, bytes.size), bytes.size);
    (void)close(fd);
}

/* A pack that ends anywhere behind the good version: the tail goes, the good version stays. */
static void torn_tail_is_cut_off(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    auto_buf struct buf good_floor = BUF_MAX(4096);
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    read_file(directory, "floor", &good_floor);
    read_file(directory, "pack", &pack);
    size_t good_size = pack.size;
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    read_file(directory, "pack", &pack);
    assert_true(pack.size > good_size + 1000);
    for (size_t size = good_size; size < pack.size; size += size < good_size + 200 ? 1 : 397) {
        write_file(directory, "pack", slice_head(buf_slice(&pack), size));
        write_file(directory, "floor", buf_slice(&good_floor));
        d = open_alone(directory);
        assert_int_equal(start_version(d), 1);
        assert_false(disk_notes(d).floor_rebuilt);
        EXPECT_OK(apply(d, &versions[1]));
        disk_close(d);
        d = open_alone(directory);
        assert_int_equal(start_version(d), 2);
        disk_close(d);
    }
    fx_remove_directory(directory);
}

/* In place of a file, a link to another directory's. */
static void put_link(const char *directory, const char *other, const char *name)
{
    char path[512];
    char target[512];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    (void)snprintf(target, sizeof(target), "%s/%s", other, name);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(target, path), 0);
}

/* Every bit of the floor: it is rebuilt from the highest manifest, never from zero. */
static void damaged_floor_is_rebuilt(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    auto_buf struct buf floor = BUF_MAX(4096);
    read_file(directory, "floor", &floor);
    for (size_t bit = 0; bit < floor.size * 8; bit += bit < 256 ? 1 : 13) {
        floor.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        write_file(directory, "floor", buf_slice(&floor));
        floor.ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        d = open_alone(directory);
        assert_true(disk_notes(d).floor_rebuilt);
        assert_int_equal(disk_floor(d)->present.version, 2);
        assert_int_equal(disk_floor(d)->good.version, 1);
        assert_int_equal(disk_floor(d)->epoch, 12);
        assert_int_equal(disk_floor(d)->root_version, 1);
        disk_close(d);
    }
    for (size_t size = 0; size < floor.size; size++) {
        write_file(directory, "floor", slice_head(buf_slice(&floor), size));
        d = open_alone(directory);
        assert_true(disk_notes(d).floor_rebuilt);
        assert_int_equal(disk_floor(d)->present.version, 2);
        disk_close(d);
    }
    d = open_alone(directory);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

/* An older floor and pack of the same node, to which somebody had links lead. */
static void links_are_not_followed(void **state)
{
    (void)state;
    char directory[256];
    char old[256];
    fx_directory(directory);
    fx_directory(old);
    make_first_good(old);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    put_link(directory, old, "floor");
    d = open_alone(directory);
    assert_true(disk_notes(d).floor_rebuilt);
    assert_int_equal(start_version(d), 2);
    EXPECT_OK(disk_mark_good(d)); /* and it is written over as often as need be. */
    EXPECT_OK(apply(d, &versions[2]));
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
    put_link(directory, old, "pack");
    struct disk_options options = options_of(directory);
    EXPECT(disk_open(&options, &d), E_IO);
    fx_remove_directory(old);
    fx_remove_directory(directory);
}

/* A floor that is longer than one, and is written over by turns with the next. */
static void a_longer_floor_does_not_come_back(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf floor = BUF_MAX(4096);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "floor", &floor);
    EXPECT_OK(buf_add_str(&floor, "and more"));
    write_file(directory, "floor", buf_slice(&floor));
    struct disk *d = open_alone(directory);
    assert_true(disk_notes(d).floor_rebuilt);
    for (size_t i = 1; i < VERSIONS; i++) {
        EXPECT_OK(apply(d, &versions[i]));
    }
    EXPECT_OK(disk_mark_good(d));
    disk_close(d);
    d = open_alone(directory);
    assert_false(disk_notes(d).floor_rebuilt);
    assert_int_equal(start_version(d), VERSIONS);
    disk_close(d);
    fx_remove_directory(directory);
}

/* A bit of the pack, anywhere: what is served is valid, or nothing is served. */
static void damaged_pack_serves_nothing_wrong(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    auto_buf struct buf floor = BUF_MAX(4096);
    read_file(directory, "pack", &pack);
    read_file(directory, "floor", &floor);
    unsigned served[VERSIONS + 1] = {0};
    for (size_t at = 0; at < pack.size; at += at < 2000 ? 61 : 1999) {
        pack.ptr[at] ^= 1;
        write_file(directory, "pack", buf_slice(&pack));
        write_file(directory, "floor", buf_slice(&floor));
        pack.ptr[at] ^= 1;
        struct disk_options options = options_of(directory);
        struct disk_start start;
        EXPECT_OK(disk_open(&options, &d));
        struct err e = disk_start(d, &start);
        served[err_ok(e) ? start.version.version : 0]++;
        if (err_ok(e)) {
            assert_same_content(start.set, &versions[start.version.version - 1]);
            snap_set_unref(start.set);
        }
        /* That would say that nothing was ever applied here. */
        assert_int_not_equal(err_ok(e) ? start.why.code : e.code, E_NOT_FOUND);
        disk_close(d);
    }
    assert_true(served[2] > 0 && served[1] > 0);
    fx_remove_directory(directory);
}

/* A chunk that both versions have. */
static const struct cut_chunk *shared_chunk(const struct fx_version *a, const struct fx_version *b)
{
    for (size_t s = 0; s < FX_STREAMS; s++) {
        for (size_t i = 0; i < a->streams[s].chunk_count; i++) {
            for (size_t k = 0; k < b->streams[s].chunk_count; k++) {
                const struct cut_chunk *c = &a->streams[s].chunks[i];
                if (memcmp(c->digest, b->streams[s].chunks[k].digest, DIGEST_SHORT_SIZE) == 0) {
                    return c;
                }
            }
        }
    }
    fail_msg("the versions share no chunk");
    return NULL;
}

/* Flips a bit of the bytes where they lie in the pack; in place, under whoever has it open. */
static void damage(const char *directory, struct slice bytes)
{
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    read_file(directory, "pack", &pack);
    uint8_t *at = memmem(pack.ptr, pack.size, bytes.ptr, bytes.size);
    assert_non_null(at);
    *at ^= 1;
    write_file(directory, "pack", buf_slice(&pack));
}

/* It is fetched again, and what was fetched reaches the disk. */
static void a_chunk_that_went_bad_is_written_again(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    const struct cut_chunk *c = shared_chunk(&versions[0], &versions[1]);
    struct chunk_name name = {.stored_size = (uint32_t)c->stored.size,
                              .raw_size = (uint32_t)c->raw.size};
    memcpy(name.digest, c->digest, DIGEST_SHORT_SIZE);
    auto_buf struct buf stored = BUF_MAX(DISK_CHUNK_ROOM);
    damage(directory, c->stored);
    EXPECT(disk_chunk(d, &name, &stored), E_CHUNK_TAMPERED);
    EXPECT_OK(apply(d, &versions[1]));
    EXPECT_OK(disk_chunk(d, &name, &stored));
    assert_true(slice_eq(buf_slice(&stored), c->stored));
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 1);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Every bit of a header in the middle: what lies behind it is there, and the next apply leaves no
 * gap. */
static void a_bad_header_takes_nothing_with_it(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    auto_buf struct buf floor = BUF_MAX(4096);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "pack", &pack);
    size_t header =
        pack.size; /* of the first record of version 2, which version 3 does not need. */
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[1]));
    EXPECT_OK(apply(d, &versions[2]));
    disk_close(d);
    read_file(directory, "pack", &pack);
    read_file(directory, "floor", &floor);
    for (size_t bit = 0; bit < (size_t)PACK_HEADER_SIZE * 8; bit++) {
        pack.ptr[header + bit / 8] ^= (uint8_t)(1U << bit % 8);
        write_file(directory, "pack", buf_slice(&pack));
        write_file(directory, "floor", buf_slice(&floor));
        pack.ptr[header + bit / 8] ^= (uint8_t)(1U << bit % 8);
        d = open_alone(directory);
        assert_int_equal(disk_notes(d).bad_records, 1);
        assert_int_equal(disk_notes(d).torn_bytes, 0);
        assert_int_equal(start_version(d), 3);
        disk_close(d);
    }
    memset(pack.ptr + header, 0, PACK_HEADER_SIZE);
    write_file(directory, "pack", buf_slice(&pack));
    d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[3]));
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 0);
    assert_int_equal(start_version(d), 4);
    disk_close(d);
    fx_remove_directory(directory);
}

/* A record of a root as a chunk might hold it, behind a header that went bad. */
static void add_forged_root(uint64_t version, struct buf *pack)
{
    char directory[256];
    auto_buf struct buf container = BUF_MAX(1 << 20);
    auto_buf struct buf record = BUF_MAX(1 << 20);
    fx_directory(directory);
    struct root root = fx_root(&fx, version, &fx.roots[2]);
    root.has_floor = true;
    root.floor = (struct root_floor){.epoch = 1, .version = 1};
    const struct key_pair *signer = &fx.roots[2];
    fx_seal_root(&root, &signer, 1, &container);
    int dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir_fd >= 0);
    const struct disk_steps steps = {0};
    struct pack p;
    EXPECT_OK(pack_open(&p, dir_fd, fx.environment, &steps));
    EXPECT_OK(pack_add(&p, PACK_ROOT, buf_slice(&container)));
    pack_close(&p);
    (void)close(dir_fd);
    read_file(directory, "pack", &record);
    EXPECT_OK(buf_add(pack, buf_slice(&record)));
    fx_remove_directory(directory);
}

static void no_root_comes_from_behind_a_gap(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "pack", &pack);
    EXPECT_OK(buf_add_str(&pack, "what was a header"));
    add_forged_root(1, &pack);
    add_forged_root(5, &pack);
    write_file(directory, "pack", buf_slice(&pack));
    struct disk *d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 3);
    assert_int_equal(disk_root(d)->version, 1);
    assert_false(disk_root(d)->has_floor);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    write_file(directory, "floor", SLICE_LIT("torn"));
    d = open_alone(directory);
    assert_int_equal(disk_root(d)->version, 1);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Content that is full of headers is not read for ever: what lies behind it goes, as a tail. */
static void a_search_ends(void **state)
{
    (void)state;
    static const uint8_t header[PACK_HEADER_SIZE] = {'T', 'R', 'P', 'K', 1, 0, PACK_CHUNK};
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    fx_directory(directory);
    make_first_good(directory);
    read_file(directory, "pack", &pack);
    size_t good = pack.size;
    EXPECT_OK(buf_add_str(&pack, "what was a header"));
    for (size_t i = 0; i < 4096; i++) {
        EXPECT_OK(buf_add(&pack, slice_of(header, sizeof(header))));
        EXPECT_OK(buf_add_str(&pack, "?")); /* so that none of them says where the next is. */
    }
    add_forged_root(5, &pack);
    write_file(directory, "pack", buf_slice(&pack));
    struct disk *d = open_alone(directory);
    assert_int_equal(disk_notes(d).torn_bytes, pack.size - good);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    fx_remove_directory(directory);
}

/* ---- compaction ---- */

static void garbage_is_collected(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    uint64_t largest = 0;
    for (uint64_t n = 2; n < 40; n++) {
        struct fx_version v;
        fx_version_make(&fx, n, PARTS, (unsigned)(n * 7 % PARTS), &v);
        EXPECT_OK(apply(d, &v));
        EXPECT_OK(disk_mark_good(d));
        struct disk_sizes sizes = disk_sizes(d);
        assert_true(sizes.pack_bytes <= 2 * sizes.live_bytes);
        largest = sizes.pack_bytes > largest ? sizes.pack_bytes : largest;
        fx_version_free(&v);
    }
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 0);
    struct disk_start start;
    EXPECT_OK(disk_start(d, &start));
    assert_int_equal(start.version.version, 39);
    snap_set_unref(start.set);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Versions that follow each other too fast to be proved: two are live, however many there were. */
static void garbage_is_collected_before_anything_is_good(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    uint64_t first = disk_sizes(d).pack_bytes;
    uint64_t largest = 0;
    for (uint64_t n = 2; n < 40; n++) {
        struct fx_version v;
        fx_version_make(&fx, n, PARTS, (unsigned)(n * 7 % PARTS), &v);
        EXPECT_OK(apply(d, &v));
        uint64_t size = disk_sizes(d).pack_bytes;
        largest = size > largest ? size : largest;
        fx_version_free(&v);
    }
    assert_true(largest <= 5 * first); /* twice what is live, and what was live before. */
    disk_close(d);
    d = open_alone(directory);
    assert_int_equal(disk_notes(d).bad_records, 0);
    struct disk_start start;
    EXPECT_OK(disk_start(d, &start));
    assert_int_equal(start.version.version, 39);
    snap_set_unref(start.set);
    disk_close(d);
    fx_remove_directory(directory);
}

/* Version 1 is good, and most of the pack is garbage. */
static void make_garbage(const char *directory)
{
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    for (uint64_t n = 2; n < 12; n++) {
        struct fx_version v;
        fx_version_make(&fx, n, PARTS, (unsigned)(n * 7 % PARTS), &v);
        struct snap_set *set = fx_set(&v, NULL);
        const struct disk_apply apply = {
            .manifest = buf_slice(&v.container), .set = set, .epoch = n + 10};
        EXPECT_OK(disk_commit(d, &apply));
        snap_set_unref(set);
        fx_version_free(&v);
    }
    disk_close(d);
}

/* Whether three deaths of the present version still lead to the last good one. */
static void assert_good_is_there(const char *directory)
{
    for (size_t i = 1; i <= 3; i++) {
        struct disk *d = open_alone(directory);
        struct disk_start start;
        EXPECT_OK(disk_start(d, &start));
        assert_int_equal(start.version.version, i < 3 ? 11 : 1);
        snap_set_unref(start.set);
        disk_close(d);
    }
}

/* Each read that may fail on the way to what is live: nothing of it is taken for garbage. */
static void garbage_that_cannot_be_told_stays(void **state)
{
    (void)state;
    char directory[256];
    auto_buf struct buf pack = BUF_MAX(8 << 20);
    auto_buf struct buf floor = BUF_MAX(4096);
    fx_directory(directory);
    make_garbage(directory);
    read_file(directory, "pack", &pack);
    read_file(directory, "floor", &floor);
    unsigned read = 0;
    for (bool failed = true; failed; read += failed ? 1 : 0) {
        write_file(directory, "pack", buf_slice(&pack));
        write_file(directory, "floor", buf_slice(&floor));
        struct disk *d = open_alone(directory);
        bad_read.countdown = read;
        bad_read.code = E_IO;
        disk_make_room(d);
        failed = bad_read.code == E_OK;
        bad_read.code = E_OK;
        uint64_t size = disk_sizes(d).pack_bytes;
        assert_true(failed ? size == pack.size : size < pack.size / 2);
        disk_close(d);
        assert_good_is_there(directory);
    }
    assert_true(read >= 4); /* two manifests, each with its root. */
    fx_remove_directory(directory);
}

/* ---- roots ---- */

static void walk_and_floor_are_one_write(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    auto_buf struct buf second = BUF_MAX(1 << 20);
    struct root next = fx_root(&fx, 2, &fx.roots[1]);
    next.has_floor = true;
    next.floor = (struct root_floor){.epoch = 77, .version = 3};
    const struct key_pair *signers[] = {&fx.roots[0], &fx.roots[1]};
    fx_seal_root(&next, signers, 2, &second);
    struct root_walk walk;
    root_walk_start(disk_root(d), &walk);
    EXPECT_OK(root_walk_step(&walk, buf_slice(&second)));
    struct slice containers[] = {buf_slice(&second)};
    EXPECT_OK(disk_walk(d, &walk, containers));
    disk_close(d);

    d = open_alone(directory);
    assert_int_equal(disk_root(d)->version, 2);
    struct judge j;
    disk_judge(d, &j);
    assert_int_equal(j.epoch, 77);
    assert_int_equal(j.version, 3);
    assert_false(j.has_digest);
    assert_int_equal(start_version(d), 1); /* it serves on: its manifest holds by its own root. */
    EXPECT(apply(d, &versions[1]), E_SNAPSHOT_REPLAYED);
    EXPECT_OK(apply(d, &versions[2]));
    disk_close(d);
    d = open_alone(directory); /* the floor of root 2 took effect once. */
    assert_int_equal(disk_floor(d)->epoch, 13);
    assert_int_equal(start_version(d), 3);
    disk_close(d);
    fx_remove_directory(directory);
}

static void walk_to(struct disk *d, const struct root *to)
{
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    const struct key_pair *signer = &fx.roots[0];
    struct root_walk walk;
    fx_seal_root(to, &signer, 1, &bytes);
    root_walk_start(disk_root(d), &walk);
    EXPECT_OK(root_walk_step(&walk, buf_slice(&bytes)));
    struct slice containers[] = {buf_slice(&bytes)};
    EXPECT_OK(disk_walk(d, &walk, containers));
}

static struct disk *open_without_floor(const char *directory)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/floor", directory);
    assert_int_equal(unlink(path), 0);
    struct disk *d = open_alone(directory);
    assert_true(disk_notes(d).floor_rebuilt);
    return d;
}

/* A fast-forwarded version is healed by a root with a floor, and the lost floor does not bring it
 * back; nor does a later root, which has none of its own. */
static void a_rebuilt_floor_is_not_above_a_roots(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    struct disk *d = open_alone(directory);
    EXPECT_OK(apply(d, &versions[2]));
    EXPECT_OK(disk_mark_good(d));
    struct root second = fx_root(&fx, 2, &fx.roots[0]);
    second.has_floor = true;
    second.floor = (struct root_floor){.epoch = 7, .version = 1};
    walk_to(d, &second);
    const struct root third = fx_root(&fx, 3, &fx.roots[0]);
    walk_to(d, &third);
    disk_close(d);

    d = open_without_floor(directory);
    assert_int_equal(disk_root(d)->version, 3);
    assert_int_equal(disk_floor(d)->epoch, 7);
    assert_int_equal(disk_floor(d)->mark, DISK_MARK_NONE);
    assert_int_equal(disk_floor(d)->present.version, 1);
    assert_int_equal(start_version(d), 1);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);

    d = open_without_floor(directory);
    assert_int_equal(disk_floor(d)->epoch, 12);
    assert_int_equal(disk_floor(d)->good.version, 1);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

/* The root that healed stays on disk as long as it may be asked. */
static void a_roots_floor_outlives_compaction(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_garbage(directory);
    struct disk *d = open_alone(directory);
    struct root second = fx_root(&fx, 2, &fx.roots[0]);
    second.has_floor = true;
    second.floor = (struct root_floor){.epoch = 7, .version = 1};
    walk_to(d, &second);
    const struct root third = fx_root(&fx, 3, &fx.roots[0]);
    walk_to(d, &third);
    uint64_t before = disk_sizes(d).pack_bytes;
    disk_make_room(d);
    assert_true(disk_sizes(d).pack_bytes < before / 2);
    disk_close(d);
    d = open_without_floor(directory);
    assert_int_equal(disk_floor(d)->epoch, 7);
    assert_int_equal(start_version(d), 1);
    disk_close(d);
    fx_remove_directory(directory);
}

static void trust_root_that_is_higher_is_in_force(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    make_first_good(directory);
    auto_buf struct buf fifth = BUF_MAX(1 << 20);
    struct root root = fx_root(&fx, 5, &fx.roots[2]);
    const struct key_pair *signer = &fx.roots[2];
    fx_seal_root(&root, &signer, 1, &fifth);
    struct disk_options options = options_of(directory);
    options.trust_root = buf_slice(&fifth);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    assert_int_equal(disk_root(d)->version, 5);
    assert_int_equal(start_version(d), 1);
    EXPECT_OK(apply(d, &versions[1]));
    disk_close(d);
    options.trust_root = buf_slice(&fx.root_bytes); /* a lower one changes nothing. */
    EXPECT_OK(disk_open(&options, &d));
    assert_int_equal(disk_root(d)->version, 5);
    assert_int_equal(start_version(d), 2);
    disk_close(d);
    fx_remove_directory(directory);
}

static enum judge_move move_to(struct disk *d, const struct fx_version *v)
{
    struct judge judge;
    disk_judge(d, &judge);
    struct head head = fx_head(20, 1, v);
    const struct head_node node = {.id = SLICE_LIT("node-1")};
    return judge_target(&judge, &head, &node).move;
}

static void a_seed_is_the_floor_of_a_node_without_one(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    struct disk_options options = options_of(directory);
    options.seed = (struct disk_seed){.root_version = 1, .epoch = 12, .version = 2};
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    struct judge judge;
    disk_judge(d, &judge);
    assert_true(judge.has_order);
    assert_int_equal(judge.epoch, 12);
    assert_int_equal(judge.version, 2);
    assert_false(judge.has_digest); /* any manifest of version 2 will do. */
    assert_int_equal(move_to(d, &versions[0]), JUDGE_KEEP);
    assert_int_equal(move_to(d, &versions[1]), JUDGE_FETCH);
    assert_int_equal(move_to(d, &versions[2]), JUDGE_FETCH);
    EXPECT(apply(d, &versions[0]), E_SNAPSHOT_REPLAYED);
    disk_close(d);
    write_file(directory, "floor", SLICE_LIT("torn")); /* before the first apply. */
    EXPECT_OK(disk_open(&options, &d));
    assert_int_equal(disk_floor(d)->present.version, 2);
    EXPECT_OK(apply(d, &versions[2]));
    disk_close(d);
    options.seed.version = 4; /* what stands on disk is the floor from now on. */
    EXPECT_OK(disk_open(&options, &d));
    assert_int_equal(disk_floor(d)->present.version, 3);
    disk_close(d);
    fx_remove_directory(directory);
}

/* A fast-forwarded version is healed by a root with a floor: the seed of a node that joined in
 * between does not bring it back. */
static void a_roots_floor_stands_above_an_older_seed(void **state)
{
    (void)state;
    char directory[256];
    fx_directory(directory);
    auto_buf struct buf second = BUF_MAX(1 << 20);
    struct root root = fx_root(&fx, 2, &fx.roots[0]);
    root.has_floor = true;
    root.floor = (struct root_floor){.epoch = 7, .version = 3};
    const struct key_pair *signer = &fx.roots[0];
    fx_seal_root(&root, &signer, 1, &second);
    struct disk_options options = options_of(directory);
    options.seed = (struct disk_seed){.root_version = 1, .epoch = 900, .version = 1000};
    options.trust_root = buf_slice(&second);
    struct disk *d = NULL;
    EXPECT_OK(disk_open(&options, &d));
    assert_int_equal(disk_floor(d)->epoch, 7);
    assert_int_equal(disk_floor(d)->present.version, 3);
    disk_close(d);
    options.seed.root_version = 2; /* it was taken when that root stood already. */
    EXPECT_OK(disk_open(&options, &d));
    assert_int_equal(disk_floor(d)->present.version, 1000);
    disk_close(d);
    fx_remove_directory(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(starts_from_disk_alone),
        cmocka_unit_test(goes_to_no_lower_version),
        cmocka_unit_test(needs_a_root),
        cmocka_unit_test(belongs_to_one_process),
        cmocka_unit_test(refuses_another_environment),
        cmocka_unit_test(three_crashes_lead_to_last_good),
        cmocka_unit_test(three_crashes_without_last_good_serve_nothing),
        cmocka_unit_test(a_newer_releases_version_is_waited_over),
        cmocka_unit_test(what_passes_leads_to_no_older_version),
        cmocka_unit_test(a_clean_stop_clears_the_count),
        cmocka_unit_test(killed_at_every_step),
        cmocka_unit_test(two_files_are_the_floor_by_turns),
        cmocka_unit_test(no_space_at_every_step),
        cmocka_unit_test(no_space_from_every_step_on),
        cmocka_unit_test(input_output_error_at_every_step),
        cmocka_unit_test(input_output_error_from_every_step_on),
        cmocka_unit_test(real_writes_fail_at_every_size),
        cmocka_unit_test(a_full_file_system),
        cmocka_unit_test(torn_tail_is_cut_off),
        cmocka_unit_test(damaged_floor_is_rebuilt),
        cmocka_unit_test(links_are_not_followed),
        cmocka_unit_test(a_longer_floor_does_not_come_back),
        cmocka_unit_test(damaged_pack_serves_nothing_wrong),
        cmocka_unit_test(a_chunk_that_went_bad_is_written_again),
        cmocka_unit_test(a_bad_header_takes_nothing_with_it),
        cmocka_unit_test(no_root_comes_from_behind_a_gap),
        cmocka_unit_test(a_search_ends),
        cmocka_unit_test(garbage_is_collected),
        cmocka_unit_test(garbage_is_collected_before_anything_is_good),
        cmocka_unit_test(garbage_that_cannot_be_told_stays),
        cmocka_unit_test(walk_and_floor_are_one_write),
        cmocka_unit_test(a_rebuilt_floor_is_not_above_a_roots),
        cmocka_unit_test(a_roots_floor_outlives_compaction),
        cmocka_unit_test(trust_root_that_is_higher_is_in_force),
        cmocka_unit_test(a_seed_is_the_floor_of_a_node_without_one),
        cmocka_unit_test(a_roots_floor_stands_above_an_older_seed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
