/*
 * Proves that no mutated, replayed or spliced document is accepted, by a node or by the control
 * plane; that nothing changes by one; that each is refused by a code of its kind of fault, and each
 * code of a kind is seen; and, between them, that the valid documents are accepted.
 *
 * An input is what its seed and number make of it, but for the time in what is signed and for what
 * OpenSSL draws (join tokens, keys of certificates): a failing one is written out as it was.
 *
 * mutation_test SEED FIRST COUNT          inputs FIRST to FIRST + COUNT - 1; with TRILANE_TEST_LONG
 *                                         51 times as many, from FIRST * 51 on, where no
 *                                         sanitizer slows them: a million, and then some for those
 *                                         that are not counted
 * mutation_test --input SEED NUMBER [KIND] one of them alone, and says what it was
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ids.h"
#include "common/base/log.h"

#include "tests/mutation/node.h"
#include "tests/mutation/plane.h"
#include "tests/support/counts.h"

enum {
    GENERATION_INPUTS = 4000, /* of all worlds. */
    CONTROL_EVERY = 64,
    LONG_FACTOR = 51,
    KINDS_MAX = 128,
    PATH_MAX_SIZE = 512,
    SEEN_AFTER = 200, /* inputs of a kind, by which each of its codes must have come. */
};

static const struct trial_kind *const tables[] = {head_kinds,  root_kinds,  manifest_kinds,
                                                  chunk_kinds, plane_kinds, file_kinds};

/* What became of a kind's inputs. */
struct tally {
    const struct trial_kind *kind;
    uint64_t inputs;
    uint64_t idle;
    uint64_t by_code[TRIAL_CODES];
};

static struct {
    uint64_t seed;
    uint64_t number; /* of the input at hand. */
    char directory[64];
    struct tally tallies[KINDS_MAX];
    size_t kind_count;
    uint64_t weight;
    struct world worlds[WORLDS];
    struct node nodes[WORLDS];
    struct plane *planes[WORLDS];
    uint64_t controls;
    const struct trial_kind *kind; /* of the input at hand. */
} run;

/* ---- one input ---- */

void trial_says(struct trial *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(t->what, sizeof(t->what), format, args);
    va_end(args);
}

struct buf *trial_input(struct trial *t, const char *name)
{
    CHECK(t->input_count < TRIAL_INPUTS);
    t->inputs[t->input_count].name = name;
    return &t->inputs[t->input_count++].bytes;
}

struct world *trial_other(struct trial *t)
{
    size_t step = (size_t)dice_between(&t->dice, 1, WORLDS - 1);
    return &t->worlds[(t->world->index + step) % WORLDS];
}

/* The input's parts go to files, for who wants to look at them. */
static void write_out(const struct trial *t)
{
    for (size_t i = 0; i < t->input_count; i++) {
        char path[PATH_MAX_SIZE];
        (void)snprintf(path, sizeof(path), "mutation-%" PRIu64 "-%" PRIu64 ".%s", run.seed,
                       run.number, t->inputs[i].name);
        FILE *file = fopen(path, "we");
        struct slice bytes = buf_slice(&t->inputs[i].bytes);
        if (file != NULL) {
            (void)fwrite(bytes.ptr, 1, bytes.size, file);
            (void)fclose(file);
            (void)fprintf(stderr, "%s: %zu bytes are in %s\n", t->inputs[i].name, bytes.size, path);
        }
    }
}

static void remove_directory(void)
{
    char command[PATH_MAX_SIZE];
    (void)snprintf(command, sizeof(command), "rm -rf %s", run.directory);
    if (system(command) != 0) { /* NOLINT(concurrency-mt-unsafe,cert-env33-c) */
        (void)fprintf(stderr, "%s: could not be removed\n", run.directory);
    }
}

void trial_fail(const struct trial *t, const char *format, ...)
{
    va_list args;
    (void)fprintf(stderr, "input %" PRIu64 " of seed %" PRIu64 ", %s (%s), world %u: ", run.number,
                  run.seed, run.kind->name, t->what, t->world->index);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\nagain, alone: mutation_test --input %" PRIu64 " %" PRIu64 "\n",
                  run.seed, run.number);
    write_out(t);
    remove_directory();
    _exit(1);
}

static size_t code_index(const struct trial_kind *kind, enum err_code code)
{
    size_t i = 0;
    while (i < TRIAL_CODES && kind->codes[i] != code) {
        i++;
    }
    return i;
}

static void judge(const struct trial *t, struct tally *tally)
{
    tally->idle += t->idle ? 1 : 0;
    if (t->idle) {
        return;
    }
    size_t index = code_index(tally->kind, t->got);
    if (t->got == E_OK || index == TRIAL_CODES) {
        trial_fail(t, "%s is no reason of this kind", err_name(t->got));
    }
    if (t->wanted != E_OK && t->wanted != t->got) {
        trial_fail(t, "refused by %s, not by %s", err_name(t->got), err_name(t->wanted));
    }
    tally->inputs++;
    tally->by_code[index]++;
}

static struct tally *pick_kind(struct dice *d)
{
    uint64_t at = dice_below(d, run.weight);
    size_t i = 0;
    while (at >= run.tallies[i].kind->weight) {
        at -= run.tallies[i++].kind->weight;
    }
    return &run.tallies[i];
}

static void run_input(uint64_t number, const char *kind)
{
    struct trial t = {.dice = dice_of(run.seed, number), .worlds = run.worlds};
    size_t index = (size_t)(number % WORLDS);
    struct tally *tally = pick_kind(&t.dice);
    for (size_t i = 0; kind != NULL && i < run.kind_count; i++) {
        tally = strcmp(run.tallies[i].kind->name, kind) == 0 ? &run.tallies[i] : tally;
    }
    run.number = number;
    run.kind = tally->kind;
    t.world = &run.worlds[index];
    t.node = &run.nodes[index];
    t.plane = run.planes[index];
    tally->kind->run(&t);
    judge(&t, tally);
    if (kind != NULL || run.number == UINT64_MAX) {
        (void)printf("%s (%s): %s\n", tally->kind->name, t.what, err_name(t.got));
    }
    for (size_t i = 0; i < t.input_count; i++) {
        buf_free(&t.inputs[i].bytes);
    }
}

/* ---- controls ---- */

static void take(struct node *n, size_t which)
{
    auto_buf struct buf head = BUF_MAX((size_t)2 * HEAD_BODY_MAX);
    const struct version *v = n->world->versions[which];
    world_head(n->world, &(struct world_head){.version = v->number, .digest = v->digest}, &head);
    node_takes(n, buf_slice(&head), v->number);
    node_knows(n, buf_slice(&head));
    run.controls++;
}

/* Each node is brought to where inputs are judged: two versions, and a few heads. */
static void begin_generation(uint64_t generation)
{
    for (unsigned i = 0; i < WORLDS; i++) {
        char directory[PATH_MAX_SIZE];
        (void)snprintf(directory, sizeof(directory), "%s/%u", run.directory, i);
        world_begin(&run.worlds[i], i, generation);
        if (run.nodes[i].apply == NULL) {
            node_start(&run.nodes[i], &run.worlds[i], directory);
        }
        take(&run.nodes[i], VERSION_OLD);
        node_proves(&run.nodes[i]);
        take(&run.nodes[i], VERSION_FLOOR);
        plane_begin(run.planes[i], &run.worlds[i]);
    }
}

/* The documents that inputs were made of are taken now. */
static void end_generation(void)
{
    for (unsigned i = 0; i < WORLDS; i++) {
        struct world *w = &run.worlds[i];
        auto_buf struct buf head = BUF_MAX((size_t)2 * HEAD_BODY_MAX);
        take(&run.nodes[i], VERSION_NEXT);
        world_head(w,
                   &(struct world_head){.root_version = w->roots[ROOT_NEXT].version,
                                        .key = &w->keys[KEY_ROLE_HEAD][ROOT_AFTER]},
                   &head);
        bool withheld = w->generation % 2 == 1; /* heads are, roots are not. */
        node_walks(&run.nodes[i], buf_slice(&w->root_bytes[ROOT_NEXT]),
                   withheld ? (struct slice){0} : buf_slice(&head), w->roots[ROOT_NEXT].version);
        run.controls++;
    }
}

static void run_inputs(uint64_t first, uint64_t count)
{
    uint64_t generation = UINT64_MAX;
    for (uint64_t number = first; number < first + count; number++) {
        if (number / GENERATION_INPUTS != generation) {
            if (generation != UINT64_MAX) {
                end_generation();
            }
            generation = number / GENERATION_INPUTS;
            begin_generation(generation);
        }
        run_input(number, NULL);
        if (number % CONTROL_EVERY == 0) {
            take(&run.nodes[number / CONTROL_EVERY % WORLDS], VERSION_FLOOR);
            run.controls += plane_controls(run.planes[number / CONTROL_EVERY % WORLDS]);
        }
    }
    end_generation();
}

/* ---- figures ---- */

static bool all_codes_seen(const struct tally *tally)
{
    size_t end = code_index(tally->kind, E_OK);
    size_t rare = code_index(tally->kind, TRIAL_RARE);
    for (size_t i = 0; i < (rare < end ? rare : end); i++) {
        if (tally->by_code[i] == 0 && tally->inputs >= SEEN_AFTER) {
            (void)fprintf(stderr, "%s: %s never came in %" PRIu64 " inputs\n", tally->kind->name,
                          err_name(tally->kind->codes[i]), tally->inputs);
            return false;
        }
    }
    return true;
}

static bool figures(void)
{
    static uint64_t by_code[E_COUNT];
    uint64_t inputs = 0;
    uint64_t idle = 0;
    bool tight = true;
    for (size_t i = 0; i < run.kind_count; i++) {
        const struct tally *tally = &run.tallies[i];
        inputs += tally->inputs;
        idle += tally->idle;
        tight = all_codes_seen(tally) && tight;
        (void)printf("%-34s %8" PRIu64, tally->kind->name, tally->inputs);
        for (size_t k = 0; k < TRIAL_CODES; k++) {
            if (tally->by_code[k] > 0) {
                by_code[tally->kind->codes[k]] += tally->by_code[k];
                (void)printf("  %s %" PRIu64, err_name(tally->kind->codes[k]), tally->by_code[k]);
            }
        }
        (void)printf("\n");
    }
    (void)printf("figure: %" PRIu64 " inputs of %zu kinds by seed %" PRIu64
                 ", none accepted; %" PRIu64 " controls accepted; %" PRIu64 " were valid as they "
                 "came, and not counted\n",
                 inputs, run.kind_count, run.seed, run.controls, idle);
    (void)printf("figure: refused by");
    for (size_t code = 0; code < E_COUNT; code++) {
        if (by_code[code] > 0) {
            (void)printf(" %s %" PRIu64, err_name((enum err_code)code), by_code[code]);
        }
    }
    (void)printf("\n");
    return tight;
}

/* ---- main ---- */

static void add_kinds(void)
{
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        for (const struct trial_kind *kind = tables[i]; kind->name != NULL; kind++) {
            CHECK(run.kind_count < KINDS_MAX && kind->weight > 0);
            run.tallies[run.kind_count++].kind = kind;
            run.weight += kind->weight;
        }
    }
}

static void set_up(uint64_t seed)
{
    ids_init();
    log_level_set(LOG_ERROR);
    run.seed = seed;
    bool in_memory = access("/dev/shm", W_OK) == 0; /* no disk is waited for. */
    (void)snprintf(run.directory, sizeof(run.directory), "%s/trilane-mutation-XXXXXX",
                   in_memory ? "/dev/shm" : "/tmp");
    CHECK(mkdtemp(run.directory) != NULL);
    add_kinds();
    for (unsigned i = 0; i < WORLDS; i++) {
        char directory[PATH_MAX_SIZE];
        (void)snprintf(directory, sizeof(directory), "%s/plane-%u", run.directory, i);
        CHECK(mkdir(directory, S_IRWXU) == 0);
        run.planes[i] = plane_new(directory);
    }
}

static void tear_down(void)
{
    for (unsigned i = 0; i < WORLDS; i++) {
        node_stop(&run.nodes[i]);
        plane_free(run.planes[i]);
        world_end(&run.worlds[i]);
    }
    remove_directory();
}

static int run_one(uint64_t number, const char *kind)
{
    begin_generation(number / GENERATION_INPUTS);
    run_input(number, kind == NULL ? "" : kind);
    tear_down();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 4 && strcmp(argv[1], "--input") == 0) {
        set_up(strtoull(argv[2], NULL, 10));
        return run_one(strtoull(argv[3], NULL, 10), argc > 4 ? argv[4] : NULL);
    }
    if (argc != 4) {
        (void)fprintf(stderr, "usage: mutation_test SEED FIRST COUNT\n");
        return 2;
    }
    uint64_t factor = counts_far() ? LONG_FACTOR : 1;
    set_up(strtoull(argv[1], NULL, 10));
    run_inputs(strtoull(argv[2], NULL, 10) * factor, strtoull(argv[3], NULL, 10) * factor);
    bool tight = figures();
    tear_down();
    return tight ? 0 : 1;
}
