/*
 * Fuzzes: the restore operation of a store.
 * Property: whatever is refused leaves the database empty; what is restored can be backed up.
 *
 * The first byte chooses: even, the stream as it is; odd, the stream without its digest, which no
 * fuzzer finds and is reckoned here.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/trilane-fuzz-XXXXXX";
static char path[64];
static struct cp_store *store;

static void remove_files(void)
{
    static const char *const endings[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        char name[80];
        (void)snprintf(name, sizeof(name), "%s%s", path, endings[i]);
        (void)unlink(name);
    }
}

static void clear_up(void)
{
    cp_store_close(store);
    remove_files();
    (void)rmdir(directory);
}

static void open_empty(void)
{
    char url[80];
    auto_buf struct buf message = BUF_MAX(1024);
    (void)snprintf(url, sizeof(url), "sqlite:%s", path);
    CHECK(err_ok(cp_store_open(url, &store, &message)));
}

static void start(void)
{
    ids_init();
    log_level_set(LOG_ERROR);
    CHECK(mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof(path), "%s/store.db", directory);
    open_empty();
    CHECK(atexit(clear_up) == 0);
}

static void write_all(int fd, struct slice bytes)
{
    CHECK(bytes.size == 0 || write(fd, bytes.ptr, bytes.size) == (ssize_t)bytes.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (store == NULL) {
        start();
    }
    if (size == 0) {
        return 0;
    }
    auto_close int fd = memfd_create("backup", MFD_CLOEXEC);
    struct slice stream = slice_of(data + 1, size - 1);
    CHECK(fd >= 0);
    write_all(fd, stream);
    if (data[0] % 2 == 1) {
        uint8_t digest[DIGEST_SIZE];
        ids_digest(stream, digest);
        write_all(fd, slice_of(digest, sizeof(digest)));
    }
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    struct err e = store->ops->restore(store, fd);
    CHECK(e.code != E_CONFLICT); /* it was empty, and stays so. */
    if (err_ok(e)) {
        auto_close int again = memfd_create("again", MFD_CLOEXEC);
        CHECK(again >= 0 && err_ok(store->ops->backup(store, again)));
        cp_store_close(store);
        remove_files();
        open_empty();
    }
    return 0;
}
