/* run: from argv to the command that it names. */
#include <stdio.h>
#include <string.h>

#include "common/base/slice.h"
#include "common/base/text.h"
#include "common/base/version.h"
#include "common/snapshot/format.h"
#include "controlplane/cli/commands.h"
#include "controlplane/identity/certifier.h"
#include "controlplane/signer/signer.h"

static const struct cli_command *const commands[] = {
#define X(name) &cli_command_##name,
    CLI_COMMAND_LIST(X)
#undef X
};
enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

const struct cli_command *cli_command_at(size_t index)
{
    return index < COMMAND_COUNT ? commands[index] : NULL;
}

static int usage(FILE *out, int code)
{
    (void)fprintf(out, "trilane-cp: the control plane of Trilane, and its operator's commands\n\n"
                       "usage: trilane-cp COMMAND [settings] [arguments]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        (void)fprintf(out, "  %-16s %s\n", commands[i]->name, commands[i]->summary);
    }
    (void)fprintf(out, "\ntrilane-cp COMMAND --help shows its settings; --version the version.\n");
    return code;
}

static int version(void)
{
    (void)printf("trilane-cp %s commit %s formats %d %d\n", TRILANE_VERSION, TRILANE_COMMIT,
                 SNAPSHOT_FORMAT, SNAPSHOT_FORMAT_LEAST);
    return CLI_DONE;
}

/* How many words of argv name this command; 0: it is another one. */
static int words_matched(const struct cli_command *command, int argc, char **argv)
{
    struct slice rest = slice_str(command->name);
    int words = 0;
    while (rest.size > 0) {
        struct slice word = slice_head(rest, slice_find(rest, ' '));
        if (words >= argc || !slice_eq(word, slice_str(argv[words]))) {
            return 0;
        }
        words++;
        rest = slice_from(rest, word.size + 1);
    }
    return words;
}

/* "key" alone: what can follow. False when no command begins with this word. */
static bool name_group(const char *name)
{
    bool found = false;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        struct slice rest = slice_str(commands[i]->name);
        struct slice word = slice_head(rest, slice_find(rest, ' '));
        if (word.size < rest.size && slice_eq(word, slice_str(name))) {
            if (!found) {
                cli_say("error: USAGE: %s is the first word of:", name);
            }
            cli_say("  %-16s %s", commands[i]->name, commands[i]->summary);
            found = true;
        }
    }
    return found;
}

const struct cli_command *cli_command_find(int argc, char **argv, int *out_words)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        *out_words = words_matched(commands[i], argc, argv);
        if (*out_words > 0) {
            return commands[i];
        }
    }
    return NULL;
}

static int unknown(const char *name)
{
    if (name_group(name)) {
        return CLI_USAGE;
    }
    const char *nearest = NULL;
    size_t best = strlen(name) / 3 + 2;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        struct slice word = slice_str(commands[i]->name);
        word = slice_head(word, slice_find(word, ' '));
        size_t distance = text_distance(slice_str(name), word);
        if (distance < best) {
            best = distance;
            nearest = commands[i]->name;
        }
    }
    cli_say("error: USAGE: no command is called \"%s\"%s%s%s", name,
            nearest == NULL ? "" : "; did you mean \"", nearest == NULL ? "" : nearest,
            nearest == NULL ? "" : "\"?");
    cli_next("trilane-cp --help");
    return CLI_USAGE;
}

int cli_run(int argc, char **argv)
{
    if (argc < 2) {
        return usage(stderr, CLI_USAGE);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        return usage(stdout, CLI_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        return version();
    }
    if (strcmp(argv[1], "signer") == 0) { /* hidden: started by serve alone. */
        return cp_signer_main(argc - 2, argv + 2);
    }
    if (strcmp(argv[1], "certifier") == 0) { /* the same. */
        return cp_certifier_main(argc - 2, argv + 2);
    }
    int words = 0;
    const struct cli_command *command = cli_command_find(argc - 1, argv + 1, &words);
    return words == 0 ? unknown(argv[1])
                      : command->run(command, argc - 1 - words, argv + 1 + words);
}
