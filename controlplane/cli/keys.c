/* keys: see keys.h. */
#include "controlplane/cli/keys.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "controlplane/cli/cli.h"

void cli_end_text(json_int_t not_after_ms, char out[CLI_END_SIZE])
{
    char age[CLI_AGE_SIZE];
    json_int_t left_ms = not_after_ms - clock_wall_ms();
    if (not_after_ms == 0) {
        (void)snprintf(out, CLI_END_SIZE, "no end");
    } else if (left_ms < 0) {
        (void)snprintf(out, CLI_END_SIZE, "over since %s", cli_age(-left_ms, age));
    } else {
        (void)snprintf(out, CLI_END_SIZE, "%s left", cli_age(left_ms, age));
    }
}

/* Who uses a key: the server that was asked, or nobody yet. */
static const char *used_by(const json_t *answer, const json_t *key)
{
    const json_t *here = json_object_get(answer, "here");
    const json_t *signers = json_object_get(answer, "newest_signers");
    const char *id = cli_text(key, "id");
    if (strcmp(id, cli_text(here, "head_key")) == 0 ||
        strcmp(id, cli_text(here, "manifest_key")) == 0) {
        return "this replica";
    }
    for (size_t i = 0; i < json_array_size(signers); i++) {
        if (strcmp(id, json_string_value(json_array_get(signers, i))) == 0) {
            return "signed the newest version";
        }
    }
    return json_is_true(json_object_get(key, "break_glass")) ? "people: break-glass" : "";
}

void cli_root_table(const json_t *answer)
{
    const json_t *root = json_object_get(answer, "root");
    const json_t *keys = json_object_get(root, "keys");
    const json_t *floor = json_object_get(root, "floor");
    const json_t *thresholds = json_object_get(root, "thresholds");
    char end[CLI_END_SIZE];
    cli_end_text(cli_int(root, "not_after_ms"), end);
    (void)printf("root %" JSON_INTEGER_FORMAT " of %s, %s; %" JSON_INTEGER_FORMAT
                 " root keys and %" JSON_INTEGER_FORMAT " manifest keys must sign\n",
                 cli_int(root, "version"), cli_text(root, "environment"), end,
                 cli_int(thresholds, "root"), cli_int(thresholds, "manifest"));
    if (floor != NULL) {
        (void)printf("it sets nodes to epoch %" JSON_INTEGER_FORMAT
                     " and version %" JSON_INTEGER_FORMAT "\n",
                     cli_int(floor, "epoch"), cli_int(floor, "version"));
    }
    (void)printf("%-8s %-16s %-20s %-14s %s\n", "ROLE", "ID", "NAME", "END", "USED BY");
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *key = json_array_get(keys, i);
        cli_end_text(cli_int(key, "not_after_ms"), end);
        (void)printf("%-8s %-16s %-20s %-14s %s\n", cli_text(key, "role"), cli_text(key, "id"),
                     cli_text(key, "name"), end, used_by(answer, key));
    }
}
