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

#include "disk_rig.h"
#include "tests/support/cmocka.h"

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
        cmocka_unit_test(walk_and_floor_are_one_write),
        cmocka_unit_test(a_rebuilt_floor_is_not_above_a_roots),
        cmocka_unit_test(a_roots_floor_outlives_compaction),
        cmocka_unit_test(trust_root_that_is_higher_is_in_force),
        cmocka_unit_test(a_seed_is_the_floor_of_a_node_without_one),
        cmocka_unit_test(a_roots_floor_stands_above_an_older_seed),
    };
    return cmocka_run_group_tests(tests, disk_rig_setup, disk_rig_teardown);
}
