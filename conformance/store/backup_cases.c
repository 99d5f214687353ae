/* A backup holds everything, restores into either kind, and nothing else restores. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conformance/store/rig.h"

static int memory_file(void)
{
    int fd = memfd_create("backup", MFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static off_t size_of(int fd)
{
    struct stat info;
    CHECK(fstat(fd, &info) == 0);
    return info.st_size;
}

static void rewind_file(int fd)
{
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
}

/* Something in each table. */
static void fill(struct rig *f)
{
    struct cp_store_chunk chunks[] = {rig_chunk("one"), rig_chunk("two")};
    struct cp_store_file files[] = {{.name = SLICE_LIT("a.yaml"), .bytes = SLICE_LIT("a")},
                                    {.name = SLICE_LIT("b.yaml"), .bytes = SLICE_LIT("\xff\0b")}};
    for (int i = 0; i < 12; i++) { /* more than a page of the journal. */
        uint64_t version = rig_hand(f);
        must(f->ops->sources_put(f->store, &f->fence, version, files, i % 2 == 0 ? 2 : 1));
        struct cp_publication p = rig_publication(version, chunks, i % 2 == 0 ? 1 : 2);
        (void)snprintf(p.record.request, sizeof(p.record.request), "request %d", i);
        p.record.with_trust = true;
        (void)snprintf(p.record.signers, sizeof(p.record.signers), "key-1,key-2");
        must(f->ops->publish(f->store, &f->fence, &p));
    }
    struct cp_replica replica = {.manifest_key = {1}, .head_key = {2}, .name = "cp-0"};
    must(f->ops->replica_put(f->store, "dev", &replica));
    struct cp_proposal proposal = {.version = rig_hand(f)};
    must(f->ops->proposal_put(f->store, &f->fence, &proposal, SLICE_LIT("body")));
    uint8_t digest[DIGEST_SIZE];
    ids_digest(SLICE_LIT("body"), digest);
    struct cp_cosignature cosignature = {.key_id = "key id", .code = E_COSIGN_REFUSED};
    must(f->ops->cosign_put(f->store, "dev", 13, digest, &cosignature));
    must(f->ops->root_put(f->store, "dev", 1, SLICE_LIT("root")));
    struct cp_join_token token = {.node = "node-1", .expires_ms = clock_wall_ms() + 60000};
    struct cp_join_token open_token = {
        .digest = {1}, .node = "node-2", .expires_ms = INT64_MAX, .warrant = {8}};
    must(f->ops->token_put(f->store, "dev", &token));
    must(f->ops->token_put(f->store, "dev", &open_token));
    struct cp_node node = {.id = "node-1", .certificate = {7}, .certificate_size = 3};
    must(f->ops->node_enrol(f->store, "dev", token.digest, &node));
    struct cp_audit line = {.actor = "ada", .action = "publish", .outcome = "OK"};
    must(f->ops->audit_add(f->store, "dev", &line));
}

static struct err count_file(void *ctx, const struct cp_store_file *file)
{
    *(size_t *)ctx += file->bytes.size;
    return OK;
}

static struct err count_chunk(void *ctx, const struct cp_store_chunk *chunk)
{
    *(size_t *)ctx += chunk->stored.size;
    return OK;
}

static void check_filled(struct cp_store *store)
{
    const struct cp_store_ops *ops = store->ops;
    struct cp_record record;
    size_t size = 0;
    must(ops->latest(store, "dev", &record));
    assert_int_equal(record.version, 12);
    assert_string_equal(record.message, "version 12");
    assert_string_equal(record.signers, "key-1,key-2");
    assert_true(record.with_trust);
    must(ops->find_request(store, "dev", "request 3", &record));
    assert_int_equal(record.version, 4);
    must(ops->sources_get(store, "dev", 11, count_file, &size));
    assert_int_equal(size, 4);
    size = 0;
    must(ops->chunks_get(store, "dev", 4, count_chunk, &size));
    assert_int_equal(size, 6);
    struct cp_cosignature cosignatures[CP_COSIGNATURES_MAX];
    must(ops->cosign_list(store, "dev", 13, cosignatures, &size));
    assert_int_equal(size, 1);
    assert_int_equal(cosignatures[0].code, E_COSIGN_REFUSED);
    must_fail(ops->root_put(store, "dev", 1, SLICE_LIT("another")), E_CONFLICT);
    struct cp_join_token token = {.digest = {0}};
    must_fail(ops->token_get(store, "dev", token.digest, &token), E_TOKEN_USED);
    token.digest[0] = 1;
    must(ops->token_get(store, "dev", token.digest, &token));
    assert_int_equal(token.warrant[0], 8);
    struct cp_replica replicas[CP_REPLICAS_MAX];
    must(ops->replica_list(store, "dev", replicas, &size));
    assert_int_equal(size, 1);
    assert_string_equal(replicas[0].name, "cp-0");
    struct cp_node node;
    must(ops->node_get(store, "dev", "node-1", &node));
    assert_int_equal(node.certificate_size, 3);
    assert_int_equal(node.certificate[0], 7);
    struct cp_audit line;
    must(ops->audit_list(store, "dev", &line, 1, &size));
    assert_int_equal(size, 1);
    assert_string_equal(line.actor, "ada");
}

static void a_backup_restores_everything(void **state)
{
    struct rig *f = *state;
    char url[RIG_URL_MAX];
    auto_close int fd = memory_file();
    fill(f);
    must(f->ops->backup(f->store, fd));
    rewind_file(fd);
    rig_make_database(url);
    struct cp_store *other = rig_open(url);
    must(other->ops->restore(other, fd));
    check_filled(other);
    /* Both say the same when they are asked again. */
    auto_close int again = memory_file();
    must(other->ops->backup(other, again));
    assert_int_equal(size_of(again), size_of(fd));
    cp_store_close(other);
    rig_drop_database(url);
}

/* Nobody holds the row, the epoch is there, and the next number is above all that were handed out.
 */
static void the_restored_leader_has_run_out(void **state)
{
    struct rig *f = *state;
    char url[RIG_URL_MAX];
    auto_close int fd = memory_file();
    fill(f);
    f->fence = rig_take_over(f, 2);
    assert_int_equal(f->fence.epoch, 2);
    must(f->ops->backup(f->store, fd));
    rewind_file(fd);
    rig_make_database(url);
    struct rig other = {.store = rig_open(url)};
    other.ops = other.store->ops;
    must(other.ops->restore(other.store, fd));
    uint64_t version = 0;
    must_fail(other.ops->version_hand(other.store, &f->fence, &version), E_NOT_LEADER);
    struct cp_lease lease = {0};
    must(other.ops->lease_read(other.store, "dev", &lease));
    assert_int_equal(lease.epoch, 2);
    assert_true(lease.expires_ms <= lease.now_ms);
    struct cp_lease_wish wish = rig_wish(2, 60000); /* even who held it gets another epoch. */
    must(other.ops->lease_take(other.store, &wish, &lease));
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 3);
    other.fence = (struct cp_fence){.environment = "dev", .epoch = 3};
    (void)memcpy(other.fence.holder, wish.holder, sizeof(wish.holder));
    assert_int_equal(rig_publish(&other, NULL, 0), 14);
    cp_store_close(other.store);
    rig_drop_database(url);
}

static bool has_bytes(int fd, const void *bytes, size_t size)
{
    size_t whole = (size_t)size_of(fd);
    void *map = mmap(NULL, whole, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(map != MAP_FAILED);
    bool has = memmem(map, whole, bytes, size) != NULL;
    CHECK(munmap(map, whole) == 0);
    return has;
}

static void a_backup_has_nobodys_holder(void **state)
{
    struct rig *f = *state;
    auto_close int fd = memory_file();
    must(f->ops->backup(f->store, fd));
    assert_true(has_bytes(fd, "https://replica:9443", 20));
    assert_false(has_bytes(fd, f->fence.holder, sizeof(f->fence.holder)));
}

static void a_backup_is_of_one_moment(void **state)
{
    struct rig *f = *state;
    char url[RIG_URL_MAX];
    int fds[2];
    fill(f);
    /* A pipe that is full holds the backup up while another connection publishes. */
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    CHECK(fcntl(fds[1], F_SETPIPE_SZ, 4096) > 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct cp_store *mine = rig_open(f->url);
        _exit(err_ok(mine->ops->backup(mine, fds[1])) ? 0 : 1);
    }
    CHECK(close(fds[1]) == 0);
    char first = 0;
    CHECK(read(fds[0], &first, 1) == 1); /* it has begun. */
    (void)rig_publish(f, NULL, 0);
    auto_close int fd = memory_file();
    CHECK(write(fd, &first, 1) == 1);
    char block[512];
    for (ssize_t size = 1; size > 0;) {
        size = read(fds[0], block, sizeof(block));
        CHECK(size >= 0 && write(fd, block, (size_t)size) == size);
    }
    CHECK(close(fds[0]) == 0);
    rewind_file(fd);
    rig_make_database(url);
    struct cp_store *other = rig_open(url);
    must(other->ops->restore(other, fd));
    check_filled(other);
    cp_store_close(other);
    rig_drop_database(url);
}

static void a_full_database_is_not_written_over(void **state)
{
    struct rig *f = *state;
    auto_close int fd = memory_file();
    must(f->ops->backup(f->store, fd));
    rewind_file(fd);
    must_fail(f->ops->restore(f->store, fd), E_CONFLICT);
    assert_int_equal(rig_hand(f), 1);
}

/* A database, and an attempt to restore into it that must leave it empty. */
static void refuse(struct cp_store *store, int fd, enum err_code code)
{
    struct cp_lease lease;
    rewind_file(fd);
    must_fail(store->ops->restore(store, fd), code);
    must_fail(store->ops->lease_read(store, "dev", &lease), E_NOT_FOUND);
}

static void what_is_no_whole_backup_is_refused(void **state)
{
    struct rig *f = *state;
    char url[RIG_URL_MAX];
    fill(f);
    auto_close int good = memory_file();
    must(f->ops->backup(f->store, good));
    size_t size = (size_t)size_of(good);
    uint8_t *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, good, 0);
    CHECK(bytes != MAP_FAILED);
    rig_make_database(url);
    struct cp_store *other = rig_open(url);
    for (size_t cut = 0; cut < size; cut += cut < 200 ? 7 : 997) { /* too short */
        auto_close int fd = memory_file();
        CHECK(write(fd, bytes, cut) == (ssize_t)cut);
        refuse(other, fd, E_MALFORMED);
    }
    for (size_t at = 16; at < size; at += 499) { /* one byte changed, behind the opening */
        auto_close int fd = memory_file();
        bytes[at] ^= 0x10;
        CHECK(write(fd, bytes, size) == (ssize_t)size);
        bytes[at] ^= 0x10;
        refuse(other, fd, E_MALFORMED);
    }
    auto_close int longer = memory_file();
    CHECK(write(longer, bytes, size) == (ssize_t)size && write(longer, "x", 1) == 1);
    refuse(other, longer, E_MALFORMED);
    auto_close int newer = memory_file();
    bytes[8] = 2; /* the format. */
    CHECK(write(newer, bytes, size) == (ssize_t)size);
    refuse(other, newer, E_STORE_NEWER);
    CHECK(munmap(bytes, size) == 0);
    rewind_file(good);
    must(other->ops->restore(other, good)); /* nothing of all that is left. */
    cp_store_close(other);
    rig_drop_database(url);
}

const struct CMUnitTest backup_cases[] = {
    RIG_CASE(a_backup_restores_everything),        RIG_CASE(the_restored_leader_has_run_out),
    RIG_CASE(a_backup_has_nobodys_holder),         RIG_CASE(a_backup_is_of_one_moment),
    RIG_CASE(a_full_database_is_not_written_over), RIG_CASE(what_is_no_whole_backup_is_refused),
};
const size_t backup_case_count = sizeof(backup_cases) / sizeof(backup_cases[0]);
