/*
 * reuse: a compile with what earlier ones left gives the same as one from nothing, byte for byte:
 * parts, capabilities, differences, or else diagnostics. A platform of some files is edited at
 * random, round for round: rules and callers, tenants and names, resources that come, go and move,
 * comments, files under other numbers, references that lead nowhere for a while.
 * The seed is printed; TRILANE_SEED repeats a run, TRILANE_ROUNDS makes it longer.
 */
#include "controlplane/compile/reuse.h"

#include <string.h>
#include <time.h>

#include "common/base/limits.h"

#include "fixture.h"

enum {
    FILES = 7,
    SERVICES = 8,
    PROFILES = 3,
    TOPICS = 2,
    RESOURCES = 40,
    ROUNDS = 60,
    TEXT = 1 << 20
};

/* The first SERVICES resources are services, then come PROFILES profiles and TOPICS topics. */
enum kind { SERVICE, POLICY, ROUTE, LIMIT, PROFILE, EGRESS, REVOCATION, TOPIC, KIND_COUNT };
enum { FIRST_PROFILE = SERVICES, FIRST_TOPIC = FIRST_PROFILE + PROFILES };

/* Nearly all is one tenant's: what moves elsewhere is missed where it was. */
enum { OURS, THEIRS, PLATFORM, TENANTS };

/* A resource, and how it is written. */
struct resource {
    enum kind kind;
    unsigned name;
    unsigned tenant;
    unsigned file;
    uint64_t variant; /* its content is drawn from it. */
    bool gone;
};

struct world {
    struct resource items[RESOURCES];
    unsigned comments[FILES]; /* lines before the first resource. */
    unsigned first;           /* file that is number zero. */
    bool twice;               /* a file is there under two names. */
    unsigned message;         /* of the topics: 0 without a field, 1 with one, 2 not there. */
    unsigned domain;          /* that callers are of. */
};

static uint64_t seed;

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static unsigned draw(unsigned below)
{
    return (unsigned)(mix(seed += 0x9e3779b97f4a7c15ULL) % below);
}

/* The k-th detail of a variant. */
static unsigned detail(const struct resource *r, unsigned k, unsigned below)
{
    return (unsigned)(mix(r->variant * 1000 + k) % below);
}

/* ---- writing it ---- */

#define ADD(...) assert_true(err_ok(buf_addf(__VA_ARGS__)))

static void add_head(struct buf *out, const struct resource *r, const char *kind)
{
    ADD(out, "---\napiVersion: trilane.dev/v1\nkind: %s\nmetadata:\n  name: r%u\n", kind, r->name);
    if (r->tenant != PLATFORM && r->kind != REVOCATION) {
        ADD(out, "  tenant: t%u\n", r->tenant);
    }
    ADD(out, "spec:\n");
}

static void add_service(struct buf *out, const struct resource *r)
{
    add_head(out, r, "Service");
    ADD(out, "  traits: {tier: g%u}\n  endpoints: [{address: 10.0.0.%u, port: 80}]\n",
        detail(r, 0, 3), 1 + detail(r, 1, 4));
    if (detail(r, 2, 2) == 0) {
        ADD(out, "  grpcServices: [a.v1.S%u]\n", r->name);
    }
    if (detail(r, 3, 2) == 0) {
        ADD(out, "  transport: r%u\n", FIRST_PROFILE + detail(r, 4, PROFILES));
    }
}

static void add_rule(struct buf *out, const struct resource *r, unsigned k, bool of_topic)
{
    unsigned at = 20 * (k + 1);
    ADD(out, "    - name: rule-%u\n      effect: %s\n", k,
        detail(r, at, 4) == 0 ? "deny" : "allow");
    if (detail(r, at + 1, 3) > 0) {
        ADD(out, "      verbs: [%s]\n", of_topic ? "publish" : "call");
    }
    if (detail(r, at + 2, 3) > 0) {
        ADD(out, "      callers:\n        - service: r%u\n", detail(r, at + 3, SERVICES));
        if (detail(r, at + 4, 3) == 0) {
            ADD(out, "          traits: {tier: g%u}\n", detail(r, at + 5, 3));
        }
    }
    if (detail(r, at + 6, 2) == 0) {
        ADD(out, of_topic ? "      methods: [\"T%u*\"]\n" : "      methods: [\"/a.v1.S%u/*\"]\n",
            detail(r, at + 7, 3));
    }
    if (detail(r, at + 8, 5) == 0) {
        ADD(out, "      headers: [{name: x-h%u, present: true}]\n", detail(r, at + 9, 2));
    }
}

static void add_policy(struct buf *out, const struct resource *r)
{
    static const char *const globs[] = {"*", "r?", "r1*"};
    enum { GLOBS = sizeof(globs) / sizeof(globs[0]) };
    unsigned target = detail(r, 0, SERVICES + TOPICS + GLOBS);
    add_head(out, r, "Policy");
    if (target < SERVICES) {
        ADD(out, "  target: {service: r%u}\n  rules:\n", target);
    } else if (target < SERVICES + GLOBS) {
        ADD(out, "  target: {service: \"%s\"}\n  rules:\n", globs[target - SERVICES]);
    } else {
        ADD(out, "  target: {topic: T%u.v1}\n  rules:\n", FIRST_TOPIC + target - SERVICES - GLOBS);
    }
    for (unsigned k = 0; k < 1 + detail(r, 1, 4); k++) {
        add_rule(out, r, k, target >= SERVICES + GLOBS);
    }
}

static void add_route(struct buf *out, const struct resource *r)
{
    add_head(out, r, "Route");
    ADD(out, "  match:\n    - path: {prefix: /p%u/q%u}\n  targets:\n    - service: r%u\n",
        r->name % 5, r->name, detail(r, 0, SERVICES));
}

static void add_limit(struct buf *out, const struct resource *r)
{
    add_head(out, r, "RateLimit");
    ADD(out, "  target: {service: r%u}\n  rate: %u/s\n", detail(r, 0, SERVICES),
        1 + detail(r, 1, 9));
}

static void add_resource(struct buf *out, const struct resource *r)
{
    switch (r->kind) {
    case SERVICE:
        add_service(out, r);
        break;
    case POLICY:
        add_policy(out, r);
        break;
    case ROUTE:
        add_route(out, r);
        break;
    case LIMIT:
        add_limit(out, r);
        break;
    case PROFILE:
        add_head(out, r, "TransportProfile");
        ADD(out, "  timeout: %us\n", 1 + detail(r, 0, 5));
        break;
    case EGRESS:
        add_head(out, r, "Egress");
        ADD(out, "  hosts: [h%u.example]\n", detail(r, 0, 4));
        break;
    case REVOCATION:
        add_head(out, r, "Revocation");
        ADD(out, "  types: [T%u.v1]\n  certificates: ['0%u']\n", detail(r, 0, 4), detail(r, 1, 9));
        break;
    case TOPIC:
        add_head(out, r, "Topic");
        ADD(out, "  type: T%u\n  major: 1\n  version: 1.%u.0\n  message: e.M\n", r->name,
            detail(r, 0, 3));
        ADD(out, "  descriptorSet: {file: m.binpb}\n");
        break;
    case KIND_COUNT:
        break;
    }
}

/* What protoc makes of: package e; message M { [string f = 1;] } */
static void add_descriptors(struct fixture *f, const struct world *w)
{
    static const char empty[] = "\x0a\x13\x0a\x01m\x12\x01"
                                "e\x22\x03\x0a\x01M\x62\x06proto3";
    static const char one[] = "\x0a\x1e\x0a\x01m\x12\x01"
                              "e\x22\x0e\x0a\x01M\x12\x09\x0a\x01"
                              "f\x18\x01\x20\x01\x28\x09\x62\x06proto3";
    if (w->message < 2) {
        fixture_add(f, "m.binpb", w->message == 1 ? one : empty);
    }
}

static void add_file(struct fixture *f, const struct world *w, unsigned file)
{
    auto_buf struct buf text = BUF_MAX(TEXT);
    char name[32];
    for (unsigned i = 0; i < w->comments[file]; i++) {
        ADD(&text, "# %u\n", i);
    }
    for (unsigned i = 0; i < RESOURCES; i++) {
        if (w->items[i].file == file && !w->items[i].gone) {
            add_resource(&text, &w->items[i]);
        }
    }
    (void)snprintf(name, sizeof(name), "f%u.yaml", file);
    assert_true(err_ok(cp_source_set_add(&f->set, slice_str(name), buf_slice(&text))));
    if (w->twice && file == 0) {
        assert_true(err_ok(cp_source_set_add(&f->set, SLICE_LIT("g.yaml"), buf_slice(&text))));
    }
}

static void add_environment(struct fixture *f, const struct world *w)
{
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
                   "spec: {security: dev, trustDomain: d%u.example}\n",
                   w->domain);
    fixture_add(f, "environment.yaml", text);
}

/* Compiles a world; not being able to is a result, too. */
static struct err compile(const struct world *w, struct cp_reuse *reuse, struct fixture *out)
{
    const struct cp_compile_options options = {.reuse = reuse, .inventory = true};
    fixture_init(out);
    for (unsigned i = 0; i < FILES; i++) {
        add_file(out, w, (w->first + i) % FILES);
    }
    add_environment(out, w);
    add_descriptors(out, w);
    return cp_compile_set(&out->set, &out->diags, &options, &out->compiled);
}

/* ---- editing it ---- */

static void set_up(struct world *w)
{
    *w = (struct world){0};
    for (unsigned i = 0; i < RESOURCES; i++) {
        enum kind kind = i < FIRST_PROFILE          ? SERVICE
                         : i < FIRST_TOPIC          ? PROFILE
                         : i < FIRST_TOPIC + TOPICS ? TOPIC
                                                    : (enum kind)(POLICY + draw(6));
        w->items[i] = (struct resource){
            .kind = kind, .name = i, .tenant = OURS, .file = draw(FILES), .variant = mix(seed)};
    }
}

static void edit(struct world *w)
{
    struct resource *r = &w->items[draw(RESOURCES)];
    struct resource *shared = &w->items[FIRST_PROFILE + draw(PROFILES + TOPICS)];
    switch (draw(16)) {
    case 0:
        r->gone = !r->gone;
        break;
    case 1:
        r->tenant = draw(TENANTS);
        break;
    case 6:
        /* Who refers to it finds another one under the same name, and is not edited. */
        shared->tenant = shared->tenant == PLATFORM ? OURS : PLATFORM;
        break;
    case 7:
        w->twice = !w->twice;
        break;
    case 8:
        w->message = draw(3);
        break;
    case 9:
        w->domain = draw(2);
        break;
    case 2:
        r->file = draw(FILES);
        break;
    case 3:
        w->comments[draw(FILES)] = draw(3);
        break;
    case 4:
        w->first = draw(FILES);
        break;
    case 5:
        r->name = draw(4) == 0 ? draw(RESOURCES) : r->name;
        break;
    default:
        r->variant = mix(seed);
        break;
    }
}

/* ---- comparing ---- */

static void same_text(uint64_t round, const char *what, struct slice a, struct slice b)
{
    if (!slice_eq(a, b)) {
        fail_msg("seed %llu: %s: from nothing\n%.*s\nwith reuse\n%.*s", (unsigned long long)round,
                 what, SLICE_ARG(a), SLICE_ARG(b));
    }
}

static void same_parts(uint64_t round, const struct cp_compiled *a, const struct cp_compiled *b)
{
    size_t a_count = 0;
    size_t b_count = 0;
    const struct cp_part *x = cp_compiled_parts(a, &a_count);
    const struct cp_part *y = cp_compiled_parts(b, &b_count);
    if (a_count != b_count || cp_compiled_capabilities(a) != cp_compiled_capabilities(b)) {
        fail_msg("seed %llu: %zu parts, not %zu", (unsigned long long)round, b_count, a_count);
    }
    for (size_t i = 0; i < a_count; i++) {
        if (x[i].kind != y[i].kind || !slice_eq(x[i].key, y[i].key) ||
            !slice_eq(x[i].bytes, y[i].bytes) || !slice_eq(x[i].former, y[i].former)) {
            fail_msg("seed %llu: part %.*s differs", (unsigned long long)round,
                     SLICE_ARG(x[i].key));
        }
    }
}

static void same_diags(uint64_t round, const struct fixture *a, const struct fixture *b)
{
    auto_buf struct buf x = BUF_MAX(TEXT);
    auto_buf struct buf y = BUF_MAX(TEXT);
    assert_true(err_ok(cp_diags_text(&a->diags, &x)));
    assert_true(err_ok(cp_diags_text(&b->diags, &y)));
    same_text(round, "diagnostics", buf_slice(&x), buf_slice(&y));
}

static void add_diff(const struct cp_compiled *before, const struct cp_compiled *after,
                     struct buf *out)
{
    struct cp_diff diff;
    assert_true(err_ok(cp_diff_make(before, after, &diff)));
    assert_true(err_ok(cp_diff_text(&diff, out)));
    assert_true(err_ok(cp_diff_json(&diff, out)));
    cp_diff_free(&diff);
}

/* The last platform that was valid, compiled both ways. */
struct pair {
    struct fixture fresh;
    struct fixture reused;
};

static void same_diff(uint64_t round, const struct pair *before, const struct pair *after)
{
    auto_buf struct buf x = BUF_MAX(TEXT);
    auto_buf struct buf y = BUF_MAX(TEXT);
    add_diff(before->fresh.compiled, after->fresh.compiled, &x);
    add_diff(before->reused.compiled, after->reused.compiled, &y);
    same_text(round, "differences", buf_slice(&x), buf_slice(&y));
}

static void pair_free(struct pair *p)
{
    fixture_free(&p->fresh);
    fixture_free(&p->reused);
}

/* Compiles a world both ways and compares; true: it is valid, and *last is it from now on. */
static bool compile_both(uint64_t round, const struct world *w, struct cp_reuse *reuse,
                         struct pair *last)
{
    struct pair now;
    struct err fresh = compile(w, /* reuse= */ NULL, &now.fresh);
    struct err reused = compile(w, reuse, &now.reused);
    assert_int_equal(fresh.code, reused.code);
    same_diags(round, &now.fresh, &now.reused);
    if (!err_ok(fresh)) {
        assert_int_equal(fresh.code, E_SOURCE_INVALID);
        pair_free(&now);
        return false;
    }
    same_parts(round, now.fresh.compiled, now.reused.compiled);
    same_diff(round, last, &now);
    pair_free(last);
    *last = now;
    return true;
}

static void edits(uint64_t rounds, struct cp_reuse *reuse)
{
    struct world world;
    struct pair last = {0};
    size_t valid = 0;
    fixture_init(&last.fresh);
    fixture_init(&last.reused);
    set_up(&world);
    struct world good = world;
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t round = seed;
        for (unsigned n = draw(4); n > 0; n--) {
            edit(&world);
        }
        bool taken = compile_both(round, &world, reuse, &last);
        valid += taken;
        good = taken ? world : good;
        world = draw(2) == 0 ? good : world; /* what was wrong is right again. */
    }
    assert_true(valid > rounds / 4);
    pair_free(&last);
}

static uint64_t first_seed(void)
{
    const char *given = getenv("TRILANE_SEED");
    uint64_t first = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    print_message("seed %llu\n", (unsigned long long)first);
    return first;
}

static void same_as_from_nothing(void **state)
{
    (void)state;
    const char *more = getenv("TRILANE_ROUNDS");
    struct cp_reuse *reuse = NULL;
    seed = first_seed();
    assert_true(err_ok(cp_reuse_new(&reuse)));
    edits(more != NULL ? strtoull(more, NULL, 10) : ROUNDS, reuse);
    struct cp_source_cache_counts counts = cp_source_cache_counts(reuse->sources);
    assert_true(counts.hits > counts.misses);
    assert_true(reuse->parts.newest != NULL && reuse->inventories.newest != NULL);
    cp_reuse_free(reuse);
}

/* Most of what is kept goes again at once. */
static void the_same_with_little_room(void **state)
{
    (void)state;
    struct cp_reuse *reuse = NULL;
    limits.source_cache_bytes = 30 << 10;
    seed = first_seed();
    assert_true(err_ok(cp_reuse_new(&reuse)));
    edits(ROUNDS / 4, reuse);
    assert_true(cp_source_cache_counts(reuse->sources).bytes <= limits.source_cache_bytes);
    assert_true(reuse->parts.bytes <= limits.source_cache_bytes);
    assert_true(reuse->inventories.bytes <= limits.source_cache_bytes);
    limits.source_cache_bytes = 0;
    edits(ROUNDS / 4, reuse);
    assert_int_equal(cp_source_cache_counts(reuse->sources).leaves, 0);
    limits.source_cache_bytes = 256 << 20;
    cp_reuse_free(reuse);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_from_nothing),
                                       cmocka_unit_test(the_same_with_little_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
