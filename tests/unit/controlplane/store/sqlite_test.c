/* Proves what is SQLite's own: the file's mode, WAL, migrations that run once, and that a database
 * of a newer release, or a file that is none, is refused with a sentence. */
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
#include "controlplane/store/store.h"

static char directory[] = "/tmp/trilane-sqlite-XXXXXX";
static char path[64];
static char url[80];

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
    };
    int failed = cmocka_run_group_tests_name("store.sqlite", tests, NULL, NULL);
    (void)rmdir(directory);
    return failed;
}
