/*
 * replay: gives each file of a corpus directory to a fuzz target, as a plain test.
 *
 * Small inputs are given at each shorter length, too: a decoder must refuse a cut input without
 * reading past its end. Ends with 1 when there is nothing to replay, so that a lost corpus is seen.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/scope.h"

enum { INPUT_MAX_BYTES = 16 << 20, PREFIX_MAX_BYTES = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); /* the target's. */

static void close_file(FILE **file)
{
    if (*file != NULL) {
        CHECK(fclose(*file) == 0);
    }
}

static void read_whole(const char *path, struct buf *out)
{
    __attribute__((cleanup(close_file))) FILE *file = fopen(path, "rbe");
    CHECK(file != NULL);
    for (;;) { /* ends at the end of the file. */
        uint8_t *at = NULL;
        CHECK(err_ok(buf_reserve(out, 4096, &at)));
        size_t size = fread(at, 1, 4096, file);
        buf_commit(out, size);
        if (size == 0) {
            return;
        }
    }
}

/* A block of exactly 'size' bytes, so that ASan sees a read past its end. */
static void give(const uint8_t *bytes, size_t size)
{
    auto_free uint8_t *exact = malloc(size == 0 ? 1 : size);
    CHECK(exact != NULL);
    for (size_t i = 0; i < size; i++) {
        exact[i] = bytes[i];
    }
    (void)LLVMFuzzerTestOneInput(exact, size);
}

static void replay(const char *path)
{
    auto_buf struct buf input = BUF_MAX(INPUT_MAX_BYTES);
    read_whole(path, &input);
    for (size_t size = 0; input.size <= PREFIX_MAX_BYTES && size < input.size; size++) {
        give(input.ptr, size);
    }
    give(input.ptr, input.size);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    DIR *directory = opendir(argv[1]);
    if (directory == NULL) {
        (void)fprintf(stderr, "%s: no such corpus\n", argv[1]);
        return 1;
    }
    size_t count = 0;
    const struct dirent *entry = NULL;
    while ((entry = readdir(directory)) != NULL) { /* NOLINT(concurrency-mt-unsafe): one thread. */
        char path[4096];
        struct stat about;
        (void)snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
        if (stat(path, &about) == 0 && S_ISREG(about.st_mode)) {
            replay(path);
            count++;
        }
    }
    (void)closedir(directory);
    (void)printf("%zu inputs\n", count);
    return count == 0;
}
