/* Target: the parser of the proxy lane's destinations. Property: what it accepts has one reading:
 * host, path and target hold nothing that another parser takes for structure, and what comes out
 * goes in again unchanged. */
#include "dataplane/proxy/destination.h"

#include "common/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_any(struct slice s, const char *set)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] >= 0x7f || strchr(set, s.ptr[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* No segment of a normal path is empty or made of dots, but for the last being empty. */
static void check_path(struct slice path)
{
    CHECK(path.size > 0 && path.ptr[0] == '/');
    struct slice rest = slice_from(path, 1);
    while (rest.size > 0) {
        struct slice segment = slice_head(rest, slice_find(rest, '/'));
        CHECK(segment.size > 0);
        CHECK(!slice_eq(segment, SLICE_LIT(".")) && !slice_eq(segment, SLICE_LIT("..")));
        rest = slice_from(rest, segment.size + 1);
    }
}

static void check_url(const struct px_destination *d, struct arena *arena)
{
    struct slice url = {0};
    struct px_destination again = {0};
    CHECK(!has_any(d->host, "/\\?#@%[]"));
    CHECK(!has_any(d->target, "#\\\"<>"));
    check_path(d->path);
    CHECK(err_ok(arena_printf(arena, &url, "%s://%.*s%.*s", d->tls ? "https" : "http",
                              SLICE_ARG(d->authority), SLICE_ARG(d->target))));
    if (url.size <= PX_URL_MAX) {
        CHECK(err_ok(px_destination_url(url, arena, &again)));
        CHECK(slice_eq(again.host, d->host) && again.port == d->port && again.tls == d->tls);
        CHECK(slice_eq(again.target, d->target) && slice_eq(again.path, d->path));
    }
}

/* The first byte: which form. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_arena struct arena arena = {0};
    struct px_destination d = {0};
    if (size == 0) {
        return 0;
    }
    arena_init(&arena, 4096, 1 << 20);
    struct slice text = slice_of(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        if (err_ok(px_destination_url(text, &arena, &d))) {
            check_url(&d, &arena);
        }
        break;
    case 1:
        if (err_ok(px_destination_fetch(text, &arena, &d))) {
            check_url(&d, &arena);
        }
        break;
    default:
        if (err_ok(px_destination_authority(text, &arena, &d))) {
            CHECK(!has_any(d.host, "/\\?#@%[]") && d.port > 0);
        }
        break;
    }
    return 0;
}
