/*
 * say-status: a node's status as some release would say it, signed by the node's key, on standard
 * output: for tests of what a control plane makes of nodes that are not of this release.
 *
 *     say-status KEY-FILE ENVIRONMENT VERSION[/EPOCH] FORMAT CAPABILITIES [CODE]
 *
 * With the code of a refusal it refuses.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/snapshot/status.h"

static struct err say(char **argv, struct buf *out)
{
    auto_key_pair struct key_pair pair = {0};
    uint8_t environment[ENVIRONMENT_SIZE];
    TRY(key_file_read(argv[1], &pair));
    snap_environment(slice_str(argv[2]), environment);
    int64_t now_ms = clock_wall_ms();
    char *rest = NULL;
    uint64_t version = strtoull(argv[3], &rest, 10);
    struct status status = {
        .version = version,
        .epoch = *rest == '/' ? strtoull(rest + 1, NULL, 10) : 0,
        .state = SNAP_GOOD,
        .at_ms = now_ms,
        .format = (uint32_t)strtoul(argv[4], NULL, 10),
        .count = (uint64_t)now_ms,
        .capabilities = strtoull(argv[5], NULL, 0),
    };
    (void)snprintf(status.node, sizeof(status.node), "%s", pair.public.name);
    if (argv[6] != NULL) {
        enum err_code code = E_OK;
        if (!err_find(argv[6], &code)) {
            return FAIL(E_USAGE);
        }
        status.state = SNAP_REFUSED;
        status.code = code;
    }
    return status_seal(&status, environment, &pair, out);
}

int main(int argc, char **argv)
{
    auto_buf struct buf out = BUF_MAX(4096);
    ids_init();
    struct err e = argc == 6 || argc == 7 ? say(argv, &out) : FAIL(E_USAGE);
    if (!err_ok(e)) {
        (void)fprintf(stderr, "say-status: %s at %s\n", err_name(e.code), e.where);
        return 1;
    }
    return fwrite(out.ptr, 1, out.size, stdout) == out.size ? 0 : 1;
}
