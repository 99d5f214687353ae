/* keys: see keys.h. */
#include "controlplane/cli/keys.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "controlplane/cli/cli.h"

enum {
    NAME_SIZE = 128,
    USED_SIZE = 1024,
    SILENT_MS = 180000, /* three times what a replica tells the store after. */
};

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

static void append(char out[USED_SIZE], const char *text)
{
    size_t size = strlen(out);
    (void)snprintf(out + size, USED_SIZE - size, "%s%s", size == 0 ? "" : ", ", text);
}

/* A replica says once a minute what it signs with: one that was not heard of is told with since
 * when. */
static void name_replica(const json_t *replica, char out[NAME_SIZE])
{
    char age[CLI_AGE_SIZE];
    json_int_t age_ms = cli_int(replica, "age_ms");
    bool silent = age_ms > SILENT_MS;
    (void)snprintf(out, NAME_SIZE, "%.63s%s%s%s", cli_text(replica, "name"),
                   silent ? " (last seen " : "", silent ? cli_age(age_ms, age) : "",
                   silent ? " ago)" : "");
}

/* Who uses a key: each replica, as the store was told; or nobody yet. */
static const char *used_by(const json_t *answer, const json_t *key, char out[USED_SIZE])
{
    const json_t *here = json_object_get(answer, "here");
    const json_t *signers = json_object_get(answer, "newest_signers");
    const json_t *replicas = json_object_get(answer, "replicas");
    const char *id = cli_text(key, "id");
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(replicas); i++) {
        const json_t *replica = json_array_get(replicas, i);
        if (strcmp(id, cli_text(replica, "head_key")) == 0 ||
            strcmp(id, cli_text(replica, "manifest_key")) == 0) {
            char name[NAME_SIZE];
            name_replica(replica, name);
            append(out, name);
        }
    }
    if (strcmp(id, cli_text(here, "head_key")) == 0 ||
        strcmp(id, cli_text(here, "manifest_key")) == 0) {
        append(out, "this replica");
    }
    if (out[0] != '\0') {
        return out;
    }
    for (size_t i = 0; i < json_array_size(signers); i++) {
        if (strcmp(id, json_string_value(json_array_get(signers, i))) == 0) {
            return "signed the newest version";
        }
    }
    return json_is_true(json_object_get(key, "break_glass")) ? "people: break-glass" : "";
}

/* Keys of older roots: nodes take nothing more that they sign. */
static void revoked_rows(const json_t *answer)
{
    const json_t *revoked = json_object_get(answer, "revoked");
    char used[USED_SIZE];
    char end[CLI_END_SIZE];
    for (size_t i = 0; i < json_array_size(revoked); i++) {
        const json_t *key = json_array_get(revoked, i);
        (void)snprintf(end, sizeof(end), "revoked by %" JSON_INTEGER_FORMAT,
                       cli_int(key, "revoked_by"));
        (void)printf("%-8s %-16s %-20s %-14s %s\n", cli_text(key, "role"), cli_text(key, "id"),
                     cli_text(key, "name"), end, used_by(answer, key, used));
    }
}

static void unknown_row(const json_t *replica, const char *role, const char *id)
{
    char name[NAME_SIZE];
    name_replica(replica, name);
    (void)printf("%s signs with the %s key %s, which is not in the root in force\n", name, role,
                 id);
}

/* What a replica that was heard of lately signs with, to no use. */
static void unknown_rows(const json_t *answer)
{
    const json_t *replicas = json_object_get(answer, "replicas");
    for (size_t i = 0; i < json_array_size(replicas); i++) {
        const json_t *replica = json_array_get(replicas, i);
        bool silent = cli_int(replica, "age_ms") > SILENT_MS;
        if (!silent && !json_is_true(json_object_get(replica, "manifest_known"))) {
            unknown_row(replica, "manifest", cli_text(replica, "manifest_key"));
        }
        if (!silent && !json_is_true(json_object_get(replica, "head_known"))) {
            unknown_row(replica, "head", cli_text(replica, "head_key"));
        }
    }
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
    char used[USED_SIZE];
    (void)printf("%-8s %-16s %-20s %-14s %s\n", "ROLE", "ID", "NAME", "END", "USED BY");
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *key = json_array_get(keys, i);
        cli_end_text(cli_int(key, "not_after_ms"), end);
        (void)printf("%-8s %-16s %-20s %-14s %s\n", cli_text(key, "role"), cli_text(key, "id"),
                     cli_text(key, "name"), end, used_by(answer, key, used));
    }
    revoked_rows(answer);
    unknown_rows(answer);
}
