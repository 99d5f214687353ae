/* live: see live.h. */
#include "controlplane/cli/live.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "common/base/clock.h"
#include "controlplane/cli/client.h"

enum { STEP_MS = 50, TELL_MS = 5000 };

/* How a node stands to a version. */
enum standing { RUNS, REFUSES, LAGS, NO_MATTER };

/* A node that runs a version above the newest has it from a history that is lost. */
struct wanted {
    uint64_t version;
    uint64_t newest; /* 0: nobody said. */
};

static enum standing standing_of(const json_t *node, const struct wanted *wanted)
{
    const char *state = cli_text(node, "state");
    if (!json_is_true(json_object_get(node, "live")) || strcmp(state, "DRAINING") == 0) {
        return NO_MATTER; /* gone, or going. */
    }
    uint64_t has = (uint64_t)cli_int(node, "version");
    bool is_known = has == wanted->version || wanted->newest == 0 || has <= wanted->newest;
    if (has >= wanted->version && is_known) {
        return RUNS;
    }
    return strcmp(state, "REFUSED") == 0 ? REFUSES : LAGS;
}

struct count {
    size_t of[NO_MATTER + 1];
};

static struct count count_nodes(const json_t *nodes, const struct wanted *wanted)
{
    struct count count = {0};
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        count.of[standing_of(json_array_get(nodes, i), wanted)]++;
    }
    return count;
}

/* "  node-2: REFUSED CHUNK_MISSING chunk.…: a chunk is not in the bucket; runs version 3" */
static void name_laggards(const json_t *nodes, const struct wanted *wanted)
{
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *node = json_array_get(nodes, i);
        enum standing standing = standing_of(node, wanted);
        if (standing != REFUSES && standing != LAGS) {
            continue;
        }
        enum err_code code = E_OK;
        const char *name = cli_text(node, "code");
        const char *object = cli_text(node, "object");
        bool known = name[0] != '\0' && err_find(name, &code);
        cli_say("  %s: %s%s%s%s%s%s%s; runs version %" JSON_INTEGER_FORMAT, cli_text(node, "node"),
                cli_text(node, "state"), name[0] == '\0' ? "" : " ", name,
                object[0] == '\0' ? "" : " ", object, known ? ": " : "",
                known ? err_text(code) : "", cli_int(node, "version"));
    }
}

static int finish(json_t *nodes, const struct wanted *wanted, struct count count, json_t *out)
{
    size_t behind = count.of[REFUSES] + count.of[LAGS];
    if (behind == 0 && count.of[RUNS] == 0) {
        cli_say("no node is live: whichever comes gets it");
    } else if (behind == 0) {
        cli_say("live on %zu node%s", count.of[RUNS], count.of[RUNS] == 1 ? "" : "s");
    } else {
        cli_say("error: NOT_LIVE: %zu of %zu live nodes do not run version %" PRIu64, behind,
                behind + count.of[RUNS], wanted->version);
        name_laggards(nodes, wanted);
    }
    if (out != NULL) {
        (void)json_object_set_new(out, "live", json_boolean(behind == 0));
        (void)json_object_set(out, "nodes", nodes);
    }
    return behind == 0 ? CLI_DONE : CLI_NOT_LIVE;
}

int cli_wait_live(const struct cli *cli, uint64_t version, uint64_t timeout_s, json_t *out)
{
    uint64_t end_ns = clock_mono_ns() + timeout_s * 1000000000;
    uint64_t tell_ns = clock_mono_ns() + (uint64_t)TELL_MS * 1000000;
    for (;;) { /* ends with the nodes, a refusal, or the time. */
        json_t *answer = NULL;
        struct err e = cli_call(cli, "/api/v1/nodes", /* body= */ NULL, &answer);
        if (!err_ok(e)) {
            return cli_refused(cli, e, answer);
        }
        json_t *nodes = json_object_get(answer, "nodes");
        const struct wanted wanted = {.version = version,
                                      .newest = (uint64_t)cli_int(answer, "newest_version")};
        struct count count = count_nodes(nodes, &wanted);
        bool over = count.of[REFUSES] + count.of[LAGS] == 0 || clock_mono_ns() >= end_ns;
        /* A refusal is final only when nobody is still on the way: one that lacks a chunk asks
         * again, and gets it with the next restore. */
        over = over || (count.of[LAGS] == 0 && count.of[REFUSES] > 0 &&
                        clock_mono_ns() + timeout_s * 500000000 >= end_ns);
        if (over) {
            int code = finish(nodes, &wanted, count, out);
            json_decref(answer);
            return code;
        }
        if (clock_mono_ns() >= tell_ns) {
            cli_say("waiting: %zu nodes run version %" PRIu64 ", not yet:", count.of[RUNS],
                    version);
            name_laggards(nodes, &wanted);
            tell_ns = clock_mono_ns() + (uint64_t)TELL_MS * 1000000;
        }
        json_decref(answer);
        (void)poll(NULL, 0, STEP_MS);
    }
}
