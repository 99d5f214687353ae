/* Proves what is SQLite's own: the file's mode, WAL, migrations that run once and keep everything,
 * a clock that tests can move, that a text is read once, and that a database of a newer release, or
 * a file that is none, is refused with a sentence. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>
#include <sqlite3.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "controlplane/store/backup_in.h"
#include "controlplane/store/store.h"

static char directory[] = "/tmp/trilane-sqlite-XXXXXX";
static char path[64];
static char url[80];
static unsigned texts_read; /* by SQLite, to make statements of them. */

static enum err_code open_store(struct cp_store **out, bool *out_said)
{
    struct buf message = BUF_MAX(1024);
    struct err e = cp_store_open(url, out, &message);
    *out_said = message.size > 0;
    buf_free(&message);
    return e.code;
}

static void run_sql(const char *text)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int remove_files(void **state)
{
    (void)state;
    static const char *const endings[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        char name[80];
        (void)snprintf(name, sizeof(name), "%s%s", path, endings[i]);
        (void)unlink(name);
    }
    return 0;
}

static void the_file_is_its_owners(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    mode_t before = umask(0);
    assert_int_equal(open_store(&store, &said), E_OK);
    (void)umask(before);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    cp_store_close(store);
    assert_int_equal(open_store(&store, &said), E_OK); /* migrations run once. */
    cp_store_close(store);
}

/* Whether a process other than this one would find a lock on the bytes that readers share. */
static bool is_locked(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = 0x40000002, .l_len = 510};
        int fd = open(path, O_RDWR | O_CLOEXEC);
        _exit(fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? 1 : 0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

static void opening_again_drops_no_lock(void **state)
{
    (void)state;
    struct cp_store *first = NULL;
    struct cp_store *second = NULL;
    struct cp_record record;
    bool said = false;
    assert_int_equal(open_store(&first, &said), E_OK);
    assert_int_equal(first->ops->latest(first, "dev", &record).code, E_NOT_FOUND);
    assert_true(is_locked());
    assert_int_equal(open_store(&second, &said), E_OK);
    assert_true(is_locked());
    cp_store_close(second);
    assert_true(is_locked());
    cp_store_close(first);
}

static void a_newer_schema_is_refused(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    assert_int_equal(open_store(&store, &said), E_OK);
    cp_store_close(store);
    store = NULL;
    run_sql("PRAGMA user_version = 1000");
    assert_int_equal(open_store(&store, &said), E_STORE_NEWER);
    assert_true(said);
    assert_null(store);
}

static void a_file_that_is_no_database_is_refused(void **state)
{
    (void)state;
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) {
        assert_true(fputs("this is not a database\n", file) >= 0);
    }
    assert_int_equal(fclose(file), 0);
    struct cp_store *store = NULL;
    bool said = false;
    assert_int_equal(open_store(&store, &said), E_IO);
    assert_true(said);
    assert_null(store);
}

/* ---- what is there already ---- */

static void run_file(const char *name)
{
    static char text[64 << 10];
    char whole[512];
    const char *source = getenv("TRILANE_SOURCE_DIR"); /* NOLINT(concurrency-mt-unsafe) */
    (void)snprintf(whole, sizeof(whole), "%s/migrations/%s", source == NULL ? "." : source, name);
    FILE *file = fopen(whole, "re");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof(text) - 1, file);
    assert_int_equal(fclose(file), 0);
    text[size] = '\0';
    run_sql(text);
}

/* A database as the release before left it: two versions with a chunk in common and one that comes
 * twice, a digest with a NUL, a version without sources, a proposal, a line of the audit. */
#define ZEROES "00000000000000000000000000000000000000000000000000000000000000" /* 31 bytes */
#define D0 "x'00" ZEROES "'"
#define D1 "x'01" ZEROES "'"
#define D2 "x'02" ZEROES "'"
static const char before[] =
    "INSERT INTO leader VALUES ('dev', 7, zeroblob(16), 'cp-0', 0);"
    "INSERT INTO version VALUES ('dev', 1, 7, 1), ('dev', 2, 7, 1), ('dev', 3, 7, 1);"
    "INSERT INTO source VALUES (" D0 ", CAST('one' AS BLOB)), (" D1 ", CAST('two' AS BLOB));"
    "INSERT INTO version_source VALUES ('dev', 1, 'a', " D0 "), ('dev', 2, 'a', " D0 "),"
    " ('dev', 2, 'b', " D1 ");"
    "INSERT INTO proposal VALUES ('dev', 1, 7, x'00', 1);"
    "INSERT INTO journal VALUES ('dev', 1, 7, 0, x'00', " D0 ", " D0 ", 5, 'ada', 'x', 1),"
    " ('dev', 2, 7, 1, x'00', " D0 ", " D0 ", 5, 'ada', 'with trust: y', 2);"
    "INSERT INTO chunk VALUES (" D0 ", zeroblob(16), 3, CAST('c0' AS BLOB)),"
    " (" D1 ", zeroblob(16), 3, CAST('c1' AS BLOB)),"
    " (" D2 ", zeroblob(16), 3, CAST('c2' AS BLOB));"
    "INSERT INTO journal_chunk VALUES ('dev', 1, 0, " D0 "), ('dev', 1, 1, " D2 "),"
    " ('dev', 2, 2, " D0 "), ('dev', 2, 0, " D1 "), ('dev', 2, 1, " D0 ");"
    "INSERT INTO audit VALUES (5, 'dev', 1, 'ada', 'publish', 'version 1', 'OK'),"
    " (6, 'dev', 1, 'ada', 'publish', 'version 2', 'OK');"
    "PRAGMA user_version = 1;";

static struct err add_file(void *ctx, const struct cp_store_file *file)
{
    return buf_addf(ctx, "%.*s=%.*s ", SLICE_ARG(file->name), SLICE_ARG(file->bytes));
}

static struct err add_chunk(void *ctx, const struct cp_store_chunk *chunk)
{
    return buf_addf(ctx, "%.*s ", SLICE_ARG(chunk->stored));
}

static void check_version(struct cp_store *store, uint64_t version, const char *sources,
                          const char *chunks)
{
    struct buf text = BUF_MAX(1024);
    assert_int_equal(store->ops->sources_get(store, "dev", version, add_file, &text).code, E_OK);
    assert_true(slice_eq(buf_slice(&text), slice_str(sources)));
    buf_clear(&text);
    assert_int_equal(store->ops->chunks_get(store, "dev", version, add_chunk, &text).code, E_OK);
    assert_true(slice_eq(buf_slice(&text), slice_str(chunks)));
    buf_free(&text);
}

static void take_row(struct cp_store *store, struct cp_lease *out)
{
    struct cp_lease_wish wish = {
        .environment = "dev", .holder = {1}, .name = "cp", .lease_ms = 60000};
    assert_int_equal(store->ops->lease_take(store, &wish, out).code, E_OK);
}

/* A rollback's message said so: now a column does, and what was written stays. */
static void check_trust(struct cp_store *store)
{
    struct cp_record record;
    assert_int_equal(store->ops->load(store, "dev", 1, &record, NULL).code, E_OK);
    assert_false(record.with_trust);
    assert_int_equal(store->ops->load(store, "dev", 2, &record, NULL).code, E_OK);
    assert_true(record.with_trust);
    assert_string_equal(record.message, "with trust: y");
}

static void a_database_of_the_release_before_is_brought_up(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    struct cp_lease lease = {0};
    run_file("0001_store.sqlite.sql");
    run_sql(before);
    assert_int_equal(open_store(&store, &said), E_OK);
    check_version(store, 1, "a=one ", "c0 c2 ");
    check_version(store, 2, "a=one b=two ", "c1 c0 c0 ");
    check_version(store, 3, "", "");
    check_trust(store);
    take_row(store, &lease);
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 8);
    /* Publishing goes on from there: what changes is reckoned against version 2. */
    struct cp_fence fence = {.environment = "dev", .holder = {1}, .epoch = 8};
    uint64_t version = 0;
    assert_int_equal(store->ops->version_hand(store, &fence, &version).code, E_OK);
    assert_int_equal(version, 4);
    struct cp_store_file file = {SLICE_LIT("b"), SLICE_LIT("three"), NULL};
    assert_int_equal(store->ops->sources_put(store, &fence, 4, &file, 1).code, E_OK);
    struct cp_store_chunk chunk = {.raw_digest = {1}}; /* c1, named alone. */
    struct cp_publication p = {.record = {.version = 4}, .chunks = &chunk, .chunk_count = 1};
    assert_int_equal(store->ops->publish(store, &fence, &p).code, E_OK);
    check_version(store, 2, "a=one b=two ", "c1 c0 c0 ");
    check_version(store, 4, "b=three ", "c1 ");
    struct cp_audit line = {.actor = "eve"};
    size_t count = 0;
    assert_int_equal(store->ops->audit_add(store, "dev", &line).code, E_OK);
    assert_int_equal(store->ops->audit_list(store, "dev", &line, 1, &count).code, E_OK);
    assert_int_equal(line.seq, 7);
    assert_string_equal(line.actor, "eve");
    cp_store_close(store);
}

/* A column that a backup leaves out is lost when it is restored. */
static void a_backup_names_every_column(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    unsigned columns = 0;
    assert_int_equal(open_store(&store, &said), E_OK);
    cp_store_close(store);
    sqlite3 *db = NULL;
    sqlite3_stmt *found = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db,
                           "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c"
                           " WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
                           -1, &found, NULL),
        SQLITE_OK);
    while (sqlite3_step(found) == SQLITE_ROW) {
        const char *table = (const char *)sqlite3_column_text(found, 0);
        const char *column = (const char *)sqlite3_column_text(found, 1);
        bool named = false;
        for (unsigned i = 0; i < CP_BACKUP_TABLES; i++) {
            const struct cp_backup_table *t = &cp_backup_tables[i];
            for (unsigned k = 0; k < t->column_count && strcmp(t->name, table) == 0; k++) {
                named = named || strcmp(t->columns[k].name, column) == 0;
            }
        }
        if (!named) {
            print_error("%s.%s is in no backup\n", table, column);
        }
        assert_true(named);
        columns++;
    }
    assert_in_range(columns, 70, 1000);
    assert_int_equal(sqlite3_finalize(found), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void a_newer_release_may_migrate_meanwhile(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    struct cp_lease lease = {0};
    assert_int_equal(open_store(&store, &said), E_OK);
    take_row(store, &lease);
    run_sql("PRAGMA user_version = 1000");
    struct cp_fence fence = {.environment = "dev", .holder = {1}, .epoch = 1};
    uint64_t version = 0;
    assert_int_equal(store->ops->version_hand(store, &fence, &version).code, E_STORE_NEWER);
    cp_store_close(store);
}

static void tests_can_move_the_clock(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    struct cp_lease lease = {0};
    assert_int_equal(open_store(&store, &said), E_OK);
    take_row(store, &lease);
    int64_t now_ms = lease.now_ms;
    struct cp_fence fence = {.environment = "dev", .holder = {1}, .epoch = 1};
    uint64_t version = 0;
    clock_shift_for_test(0, 3600000);
    assert_int_equal(store->ops->version_hand(store, &fence, &version).code, E_NOT_LEADER);
    struct cp_lease_wish wish = {
        .environment = "dev", .holder = {2}, .name = "cp", .lease_ms = 60000};
    assert_int_equal(store->ops->lease_take(store, &wish, &lease).code, E_OK);
    assert_true(lease.held);
    assert_in_range(lease.now_ms - now_ms, 3600000, 3660000);
    clock_shift_for_test(0, 0);
    cp_store_close(store);
}

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
int __real_sqlite3_prepare_v3(sqlite3 *db, const char *text, int size, unsigned flags,
                              sqlite3_stmt **out, const char **out_tail);
int __wrap_sqlite3_prepare_v3(sqlite3 *db, const char *text, int size, unsigned flags,
                              sqlite3_stmt **out, const char **out_tail);
int __wrap_sqlite3_prepare_v3(sqlite3 *db, const char *text, int size, unsigned flags,
                              sqlite3_stmt **out, const char **out_tail)
{
    texts_read++;
    return __real_sqlite3_prepare_v3(db, text, size, flags, out, out_tail);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

static void a_text_is_read_once(void **state)
{
    (void)state;
    struct cp_store *store = NULL;
    bool said = false;
    struct cp_lease lease = {0};
    assert_int_equal(open_store(&store, &said), E_OK);
    take_row(store, &lease);
    struct cp_fence fence = {.environment = "dev", .holder = {1}, .epoch = 1};
    uint64_t first = 0;
    uint64_t second = 0;
    assert_int_equal(store->ops->version_hand(store, &fence, &first).code, E_OK);
    unsigned read_before = texts_read;
    assert_int_equal(store->ops->version_hand(store, &fence, &second).code, E_OK);
    assert_int_equal(second, first + 1);
    assert_int_equal(texts_read, read_before);
    fence.holder[0] = 2; /* what was bound is bound no more. */
    assert_int_equal(store->ops->version_hand(store, &fence, &second).code, E_NOT_LEADER);
    assert_int_equal(texts_read, read_before);
    cp_store_close(store);
}

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof(path), "%s/store.db", directory);
    (void)snprintf(url, sizeof(url), "sqlite:%s", path);
#define T(name) cmocka_unit_test_teardown(name, remove_files)
    const struct CMUnitTest tests[] = {
        T(the_file_is_its_owners),
        T(opening_again_drops_no_lock),
        T(a_newer_schema_is_refused),
        T(a_file_that_is_no_database_is_refused),
        T(a_database_of_the_release_before_is_brought_up),
        T(a_backup_names_every_column),
        T(a_newer_release_may_migrate_meanwhile),
        T(tests_can_move_the_clock),
        T(a_text_is_read_once),
    };
    int failed = cmocka_run_group_tests_name("store.sqlite", tests, NULL, NULL);
    (void)rmdir(directory);
    return failed;
}
