/*
 * trilane-describe ROOT: writes policies/schema/<Kind>.json and docs/resources.md below ROOT from
 * the table of kinds. A test compares what is committed with what this gives.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/buf.h"
#include "controlplane/source/source.h"

enum { OUTPUT_BYTES = 4 << 20 };

static MUST_CHECK struct err write_file(const char *root, const char *path, struct slice bytes)
{
    auto_buf struct buf name = BUF_MAX(4096);
    const char *file_name = NULL;
    TRY(buf_addf(&name, "%s/%s", root, path));
    TRY(buf_cstr(&name, &file_name));
    FILE *file = fopen(file_name, "we");
    if (file == NULL) {
        (void)fprintf(stderr, "%s: %s\n", file_name, strerrordesc_np(errno));
        return FAIL(E_IO);
    }
    size_t written = fwrite(bytes.ptr, 1, bytes.size, file);
    return fclose(file) == 0 && written == bytes.size ? OK : FAIL(E_IO);
}

static MUST_CHECK struct err describe(const char *root)
{
    const char *kind = NULL;
    for (size_t i = 0; (kind = cp_source_kind(i)) != NULL; i++) {
        auto_buf struct buf out = BUF_MAX(OUTPUT_BYTES);
        char path[128];
        TRY(cp_source_schema(kind, &out));
        (void)snprintf(path, sizeof(path), "policies/schema/%s.json", kind);
        TRY(write_file(root, path, buf_slice(&out)));
    }
    auto_buf struct buf out = BUF_MAX(OUTPUT_BYTES);
    TRY(cp_source_reference(&out));
    return write_file(root, "docs/resources.md", buf_slice(&out));
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fputs("usage: trilane-describe ROOT\n", stderr);
        return 2;
    }
    return err_ok(describe(argv[1])) ? 0 : 1;
}
