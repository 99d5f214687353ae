/*
 * load: defaults and units of a model, what a source set takes, its bounds, directories, and the
 * two renderings of diagnostics. What is refused, and how, is in tests/golden/source.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "controlplane/source/model.h"
#include "controlplane/source/source.h"

#include "tests/support/cmocka.h"

#define HEAD "apiVersion: trilane.dev/v1\n"

struct loaded {
    struct cp_source_set set;
    struct cp_diags diags;
    struct cp_model *model;
};

static struct err load(struct loaded *l, const char *text)
{
    *l = (struct loaded){0};
    cp_source_set_init(&l->set);
    cp_diags_init(&l->diags, &l->set);
    assert_true(err_ok(cp_source_set_add(&l->set, SLICE_LIT("a.yaml"), slice_str(text))));
    struct err e = cp_source_load(&l->set, &l->diags, /* cache= */ NULL, &l->model);
    cp_diags_sort(&l->diags);
    return err_ok(e) && l->diags.count + l->diags.dropped > 0 ? FAIL(E_SOURCE_INVALID) : e;
}

static void unload(struct loaded *l)
{
    cp_model_free(l->model);
    cp_diags_free(&l->diags);
    cp_source_set_free(&l->set);
}

static void refuses(const char *text, enum cp_diag_code code)
{
    struct loaded l;
    assert_int_equal(load(&l, text).code, E_SOURCE_INVALID);
    size_t found = 0;
    for (size_t i = 0; i < l.diags.count; i++) {
        found += l.diags.items[i]->code == code;
        assert_true(l.diags.items[i]->code == code ||
                    l.diags.items[i]->code == CP_DIAG_ENVIRONMENT_COUNT);
    }
    assert_int_equal(found, 1);
    unload(&l);
}

static void defaults_and_units(void **state)
{
    (void)state;
    struct loaded l;
    struct err e =
        load(&l, HEAD "kind: Environment\nmetadata: {name: test}\n"
                      "spec: {trustDomain: a.example, freshnessMax: 2h}\n---\n" HEAD
                      "kind: TransportProfile\nmetadata: {name: t}\n"
                      "spec: {connectTimeout: 250ms, requestMessage: 64KiB}\n---\n" HEAD
                      "kind: Service\nmetadata: {name: s, tenant: acme}\nspec:\n"
                      "  endpoints: [{address: h, port: 1}]\n  transport: t\n---\n" HEAD
                      "kind: RateLimit\nmetadata: {name: r, tenant: acme}\n"
                      "spec: {target: {service: s}, rate: 30/m, by: [method, caller]}\n");
    assert_int_equal(e.code, E_OK);
    const struct cp_environment *env =
        (const struct cp_environment *)l.model->of[CP_KIND_ENVIRONMENT].items[0];
    assert_int_equal(env->security, 1); /* strict, unless it says otherwise */
    assert_int_equal(env->partitions, 16);
    assert_int_equal(env->freshness_max_ms, 7200000);
    assert_true(slice_eq(env->meta.id, SLICE_LIT("-/test")));
    const struct cp_transport_profile *profile =
        (const struct cp_transport_profile *)l.model->of[CP_KIND_TRANSPORT_PROFILE].items[0];
    assert_int_equal(profile->timeout_ms, 15000);
    assert_int_equal(profile->connect_timeout_ms, 250);
    assert_int_equal(profile->request_message_bytes, 65536);
    assert_int_equal(profile->upstream_tls, 0);
    const struct cp_service *service =
        (const struct cp_service *)l.model->of[CP_KIND_SERVICE].items[0];
    assert_int_equal(service->endpoints.items[0].weight, 1);
    assert_ptr_equal(service->transport.to, &profile->meta); /* found on the platform */
    const struct cp_rate_limit *limit =
        (const struct cp_rate_limit *)l.model->of[CP_KIND_RATE_LIMIT].items[0];
    assert_int_equal(limit->period_ns, 2000000000);
    assert_int_equal(limit->by, 1 << CP_BY_CALLER | 1 << CP_BY_METHOD);
    assert_int_equal(limit->burst, 0);
    unload(&l);
}

static void aliases_stand_for_what_they_name(void **state)
{
    (void)state;
    struct loaded l;
    struct err e = load(&l, HEAD "kind: Environment\nmetadata: {name: test}\n"
                                 "spec: {trustDomain: a.example}\n---\n" HEAD
                                 "kind: Service\nmetadata: {name: s, tenant: acme}\nspec:\n"
                                 "  traits: {a: &v value, b: *v}\n");
    assert_int_equal(e.code, E_OK);
    const struct cp_service *service =
        (const struct cp_service *)l.model->of[CP_KIND_SERVICE].items[0];
    assert_int_equal(service->traits.count, 2);
    assert_true(slice_eq(service->traits.items[1].value.text, SLICE_LIT("value")));
    unload(&l);
}

/* At the bound and past it: depth and nodes, each alias counted as what it stands for. */
static void bounds_of_the_tree(void **state)
{
    (void)state;
    struct limits before = limits;
    limits.source_depth = 4;
    refuses("[[[a]]]\n", CP_DIAG_NOT_RESOURCE); /* four levels */
    refuses("[[[[a]]]]\n", CP_DIAG_TOO_DEEP);
    refuses("- &a [[x]]\n- [*a]\n", CP_DIAG_TOO_DEEP); /* three levels below two */
    limits.source_depth = 32;
    limits.source_nodes = 7;
    refuses("[&a [x, x], *a]\n", CP_DIAG_NOT_RESOURCE); /* 1 + 3 + 3 */
    refuses("[&a [x, x], *a, x]\n", CP_DIAG_TOO_MANY_NODES);
    limits.source_nodes = 6;
    refuses("[&a [x, x], *a]\n", CP_DIAG_TOO_MANY_NODES);
    limits = before;
}

static void all_errors_are_shown_up_to_the_bound(void **state)
{
    (void)state;
    struct limits before = limits;
    struct loaded l;
    limits.source_diagnostics = 3;
    struct err e = load(&l, "a: 1\nb: 2\nc: 3\nd: 4\nkind: X\n");
    assert_int_equal(e.code, E_SOURCE_INVALID);
    assert_int_equal(l.diags.count, 3);
    assert_int_equal(l.diags.dropped, 3); /* d, apiVersion, kind */
    auto_buf struct buf text = BUF_MAX(1 << 16);
    assert_true(err_ok(cp_diags_text(&l.diags, &text)));
    assert_true(slice_ends(buf_slice(&text), SLICE_LIT("and 3 more\n")));
    limits = before;
    unload(&l);
}

static void json_says_the_same(void **state)
{
    (void)state;
    struct loaded l;
    assert_int_equal(load(&l, HEAD
                          "kind: Servcie\nmetadata: {name: s, tenant: acme}\nspec: {}\n---\n" HEAD
                          "kind: Environment\nmetadata: {name: test}\n"
                          "spec: {trustDomain: a.example}\n")
                         .code,
                     E_SOURCE_INVALID);
    auto_buf struct buf text = BUF_MAX(1 << 16);
    assert_true(err_ok(cp_diags_json(&l.diags, &text)));
    json_t *array = json_loadb((const char *)text.ptr, text.size, 0, NULL);
    assert_int_equal(json_array_size(array), 1);
    const json_t *diag = json_array_get(array, 0);
    assert_string_equal(json_string_value(json_object_get(diag, "code")), "TL1103");
    assert_string_equal(json_string_value(json_object_get(diag, "file")), "a.yaml");
    assert_int_equal(json_integer_value(json_object_get(diag, "line")), 2);
    assert_int_equal(json_integer_value(json_object_get(diag, "column")), 7);
    assert_string_equal(json_string_value(json_object_get(diag, "nearest")), "Service");
    assert_non_null(json_object_get(diag, "help"));
    assert_null(json_object_get(diag, "other"));
    json_decref(array);
    unload(&l);
}

static void a_set_takes_plain_names_within_its_bounds(void **state)
{
    (void)state;
    static const char *const refused[] = {"",    "/a",     "a/",   "a//b", ".",   "..",
                                          "./a", "a/../b", "a\nb", "a\\b", "\xff"};
    struct limits before = limits;
    struct cp_source_set set;
    cp_source_set_init(&set);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct err e = cp_source_set_add(&set, slice_str(refused[i]), SLICE_LIT(""));
        assert_int_equal(e.code, E_MALFORMED);
    }
    limits.source_file_bytes = 4;
    limits.source_total_bytes = 6;
    assert_int_equal(cp_source_set_add(&set, SLICE_LIT("a"), SLICE_LIT("12345")).code, E_TOO_LARGE);
    assert_true(err_ok(cp_source_set_add(&set, SLICE_LIT("a"), SLICE_LIT("1234"))));
    assert_int_equal(cp_source_set_add(&set, SLICE_LIT("a"), SLICE_LIT("1")).code, E_EXISTS);
    assert_int_equal(cp_source_set_add(&set, SLICE_LIT("b"), SLICE_LIT("123")).code, E_TOO_LARGE);
    assert_true(err_ok(cp_source_set_add(&set, SLICE_LIT("b"), SLICE_LIT("12"))));
    assert_non_null(cp_source_set_find(&set, SLICE_LIT("b")));
    assert_null(cp_source_set_find(&set, SLICE_LIT("c")));
    limits = before;
    cp_source_set_free(&set);
}

static void put(int dir, const char *name)
{
    auto_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a", 1), 1);
}

static void drop(int dir, const char *name, int flags)
{
    assert_int_equal(unlinkat(dir, name, flags), 0);
}

/* The name of what was not taken, and why: in the order in which it was met. */
static void not_taken(const struct cp_source_set *set, size_t index, const char *name,
                      enum cp_diag_code code)
{
    assert_true(index < set->unread_count);
    assert_true(slice_eq(set->unread[index].name, slice_str(name)));
    assert_int_equal(set->unread[index].code, code);
}

/*
 * What is taken from a directory, and in which order; hidden files are not. A link to a file
 * below is followed, also through a hidden directory, as a ConfigMap is mounted. Other links, pipes
 * and what is too large are noted, and the rest is taken all the same.
 */
static void a_directory_in_order_of_names(void **state)
{
    (void)state;
    char path[] = "/tmp/trilane-set-XXXXXX";
    assert_non_null(mkdtemp(path));
    auto_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(dir, "sub", 0700), 0);
    put(dir, "z.yaml");
    put(dir, "b.yml");
    put(dir, "readme.md");
    put(dir, ".hidden.yaml");
    put(dir, "sub/x.binpb");
    assert_int_equal(mkdirat(dir, "..1", 0700), 0);
    put(dir, "..1/map.yaml");
    assert_int_equal(symlinkat("..1", dir, "..data"), 0);
    assert_int_equal(symlinkat("..data/map.yaml", dir, "map.yaml"), 0);
    assert_int_equal(symlinkat("../../etc/hostname", dir, "link.yaml"), 0);
    assert_int_equal(symlinkat("nowhere", dir, "lost.yaml"), 0);
    assert_int_equal(symlinkat(".", dir, "loop"), 0);
    assert_int_equal(symlinkat("readme.md", dir, "readme-too.md"), 0);
    assert_int_equal(mkfifoat(dir, "pipe.yaml", 0600), 0);
    auto_close int large = openat(dir, "large.yaml", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(large, (off_t)limits.source_file_bytes + 1), 0);
    struct cp_source_set set;
    auto_buf struct buf message = BUF_MAX(4096);
    cp_source_set_init(&set);
    assert_true(err_ok(cp_source_set_load(&set, path, &message)));
    static const char *const wanted[] = {"b.yml", "map.yaml", "sub/x.binpb", "z.yaml"};
    assert_int_equal(set.count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(slice_eq(set.files[i].name, slice_str(wanted[i])));
    }
    assert_int_equal(set.unread_count, 5);
    not_taken(&set, 0, "large.yaml", CP_DIAG_FILE_SIZE);
    not_taken(&set, 1, "link.yaml", CP_DIAG_FILE_UNREADABLE);
    not_taken(&set, 2, "loop", CP_DIAG_FILE_UNREADABLE);
    not_taken(&set, 3, "lost.yaml", CP_DIAG_FILE_UNREADABLE);
    not_taken(&set, 4, "pipe.yaml", CP_DIAG_FILE_UNREADABLE);
    assert_true(cp_source_is_unread(&set, SLICE_LIT("loop/a.binpb")));
    assert_false(cp_source_is_unread(&set, SLICE_LIT("loop.binpb")));
    cp_source_set_free(&set);
    /* One file: with what lies beside it, not below. */
    char file[64];
    (void)snprintf(file, sizeof(file), "%s/z.yaml", path);
    cp_source_set_init(&set);
    assert_true(err_ok(cp_source_set_load(&set, file, &message)));
    assert_int_equal(set.count, 1);
    (void)snprintf(file, sizeof(file), "%s/none.yaml", path);
    assert_int_equal(cp_source_set_load(&set, file, &message).code, E_NOT_FOUND);
    assert_non_null(memmem(message.ptr, message.size, "none.yaml", 9));
    cp_source_set_free(&set);
    drop(dir, "sub/x.binpb", 0);
    drop(dir, "sub", AT_REMOVEDIR);
    drop(dir, "z.yaml", 0);
    drop(dir, "b.yml", 0);
    drop(dir, "readme.md", 0);
    drop(dir, ".hidden.yaml", 0);
    drop(dir, "link.yaml", 0);
    drop(dir, "lost.yaml", 0);
    drop(dir, "map.yaml", 0);
    drop(dir, "..data", 0);
    drop(dir, "..1/map.yaml", 0);
    drop(dir, "..1", AT_REMOVEDIR);
    drop(dir, "loop", 0);
    drop(dir, "readme-too.md", 0);
    drop(dir, "pipe.yaml", 0);
    drop(dir, "large.yaml", 0);
    assert_int_equal(rmdir(path), 0);
}

/* The kernel follows none, wherever it leads; the reader is told that this is why. */
static void an_absolute_link_is_called_one(void **state)
{
    (void)state;
    char path[] = "/tmp/trilane-set-XXXXXX";
    char target[64];
    assert_non_null(mkdtemp(path));
    auto_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    put(dir, "a.yaml");
    (void)snprintf(target, sizeof(target), "%s/a.yaml", path);
    assert_int_equal(symlinkat(target, dir, "link.yaml"), 0);
    struct cp_source_set set;
    auto_buf struct buf message = BUF_MAX(4096);
    cp_source_set_init(&set);
    assert_true(err_ok(cp_source_set_load(&set, path, &message)));
    assert_int_equal(set.count, 1);
    not_taken(&set, 0, "link.yaml", CP_DIAG_FILE_UNREADABLE);
    assert_non_null(memmem(set.unread[0].why.ptr, set.unread[0].why.size, "absolute", 8));
    cp_source_set_free(&set);
    drop(dir, "a.yaml", 0);
    drop(dir, "link.yaml", 0);
    assert_int_equal(rmdir(path), 0);
}

/*
 * What could not be read has a diagnostic without a line; nothing that may be defined in it is
 * missed, and a descriptor set that is there is not called missing.
 */
static void what_is_unread_is_said_once(void **state)
{
    (void)state;
    struct loaded l = {0};
    cp_source_set_init(&l.set);
    cp_diags_init(&l.diags, &l.set);
    struct cp_unread unread[] = {
        {SLICE_LIT("a.binpb"), SLICE_LIT("why"), SLICE_LIT("fix"), CP_DIAG_FILE_UNREADABLE},
        {SLICE_LIT("b.yaml"), SLICE_LIT("why"), SLICE_LIT("fix"), CP_DIAG_FILE_SIZE}};
    static const char text[] = HEAD "kind: Topic\nmetadata: {name: t}\n"
                                    "spec: {type: T, major: 1, version: 1.0.0, message: a.T,\n"
                                    "  descriptorSet: {file: a.binpb}}\n---\n" HEAD
                                    "kind: Service\nmetadata: {name: s, tenant: acme}\n"
                                    "spec: {transport: nowhere}\n";
    assert_true(err_ok(cp_source_set_add(&l.set, SLICE_LIT("t.yaml"), slice_str(text))));
    l.set.unread = unread;
    l.set.unread_count = 2;
    assert_true(err_ok(cp_source_load(&l.set, &l.diags, /* cache= */ NULL, &l.model)));
    cp_diags_sort(&l.diags);
    auto_buf struct buf shown = BUF_MAX(1 << 16);
    assert_true(err_ok(cp_diags_text(&l.diags, &shown)));
    assert_true(slice_eq(buf_slice(&shown), SLICE_LIT("a.binpb: TL1011: why\n"
                                                      "       = expected: fix\n"
                                                      "b.yaml: TL1001: why\n"
                                                      "       = expected: fix\n")));
    l.set.unread = NULL;
    unload(&l);
}

/* A bomb of aliases costs its own document, and no other. */
static void nodes_of_aliases_are_given_back(void **state)
{
    (void)state;
    struct limits before = limits;
    struct loaded l;
    limits.source_nodes = 200;
    static const char bomb[] =
        "- &a [x, x, x, x, x, x, x, x]\n- &b [*a, *a, *a, *a, *a, *a]\n"
        "- [*b, *b, *b, *b]\n---\n" HEAD "kind: Environment\nmetadata: {name: test}\n"
        "spec: {trustDomain: a.example}\n";
    assert_int_equal(load(&l, bomb).code, E_SOURCE_INVALID);
    assert_int_equal(l.diags.count, 1);
    assert_int_equal(l.diags.items[0]->code, CP_DIAG_TOO_MANY_NODES);
    assert_int_equal(l.model->of[CP_KIND_ENVIRONMENT].count, 1);
    unload(&l);
    limits = before;
}

/* A file is begun anew behind what does not parse 100 times; the rest of it is lost. */
static void a_file_is_begun_anew_within_a_bound(void **state)
{
    (void)state;
    static const char environment[] = HEAD "kind: Environment\nmetadata: {name: test}\n"
                                           "spec: {trustDomain: a.example}\n";
    for (size_t bad = 100; bad <= 101; bad++) {
        struct loaded l;
        auto_buf struct buf text = BUF_MAX(1 << 16);
        const char *bytes = NULL;
        for (size_t i = 0; i < bad; i++) {
            assert_true(err_ok(buf_add_str(&text, "a: [\n---\n")));
        }
        assert_true(err_ok(buf_add_str(&text, environment)));
        assert_true(err_ok(buf_cstr(&text, &bytes)));
        assert_int_equal(load(&l, bytes).code, E_SOURCE_INVALID);
        assert_int_equal(l.diags.count, bad);
        assert_int_equal(l.model->of[CP_KIND_ENVIRONMENT].count, bad == 100 ? 1 : 0);
        unload(&l);
    }
}

static void codes_are_found_and_unique(void **state)
{
    (void)state;
    struct cp_diag_row row = {0};
    struct cp_diag_row last = {0};
    assert_true(cp_diag_find(SLICE_LIT("tl1104"), &row));
    assert_string_equal(row.name, "KEY_UNKNOWN");
    assert_true(cp_diag_find(SLICE_LIT("1104"), &row));
    assert_false(cp_diag_find(SLICE_LIT("TL9999"), &row));
    assert_false(cp_diag_find(SLICE_LIT("POLICY_DENIED"), &row));
    for (size_t i = 0; cp_diag_at(i, &row); i++) {
        assert_true(row.code > last.code);
        last = row;
    }
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_units),
        cmocka_unit_test(aliases_stand_for_what_they_name),
        cmocka_unit_test(bounds_of_the_tree),
        cmocka_unit_test(all_errors_are_shown_up_to_the_bound),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(a_set_takes_plain_names_within_its_bounds),
        cmocka_unit_test(a_directory_in_order_of_names),
        cmocka_unit_test(an_absolute_link_is_called_one),
        cmocka_unit_test(what_is_unread_is_said_once),
        cmocka_unit_test(nodes_of_aliases_are_given_back),
        cmocka_unit_test(a_file_is_begun_anew_within_a_bound),
        cmocka_unit_test(codes_are_found_and_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
