/* Proves that a service's descriptors are found with their cluster, and that a part which is not in
 * order, or names what is not there, is refused. */
#include <string.h>

#include "dataplane/apply/build.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define KEY "service/acme/orders"

enum { FILES = 2, METHODS = 2 };

/* A part whose lists a case may put out of order. */
struct sample {
    Trilane__Parts__V1__ServiceDescriptors part;
    Trilane__Parts__V1__DescriptorFile files[FILES];
    Trilane__Parts__V1__DescriptorFile *file_list[FILES];
    char *imports[1];
    char *symbols[2];
    char *methods[METHODS];
    char *streams[1];
};

static void sample_init(struct sample *s)
{
    static uint8_t bytes[1];
    trilane__parts__v1__service_descriptors__init(&s->part);
    for (size_t i = 0; i < FILES; i++) {
        trilane__parts__v1__descriptor_file__init(&s->files[i]);
        s->file_list[i] = &s->files[i];
        s->files[i].proto = (ProtobufCBinaryData){.len = 1, .data = bytes};
    }
    s->imports[0] = publisher_text("b.proto");
    s->symbols[0] = publisher_text("acme.orders");
    s->symbols[1] = publisher_text("acme.orders.Get");
    s->methods[0] = publisher_text("/acme.orders/Get");
    s->methods[1] = publisher_text("/acme.orders/Watch");
    s->streams[0] = publisher_text("/acme.orders/Watch");
    s->files[0].name = publisher_text("a.proto");
    s->files[0].n_imports = 1;
    s->files[0].imports = s->imports;
    s->files[0].n_symbols = 2;
    s->files[0].symbols = s->symbols;
    s->files[1].name = publisher_text("b.proto");
    s->part.service = publisher_text(KEY);
    s->part.n_files = FILES;
    s->part.files = s->file_list;
    s->part.n_methods = METHODS;
    s->part.methods = s->methods;
    s->part.n_streams = 1;
    s->part.streams = s->streams;
}

/* Builds the sample platform with the part under 'key'. */
static struct err build(const struct sample *s, const char *key, struct dp_model_bin *bin,
                        struct dp_model **out)
{
    struct publisher publisher;
    struct dp_build_report report;
    publisher_init(&publisher);
    struct content *c = content_sample(1);
    content_put(c, STREAM_SCHEMAS, key, &s->part.base);
    struct version *v = version_new(&publisher, c, 1, NULL);
    struct snap_set *set = version_set(&publisher, v, NULL);
    struct err e = dp_model_build(bin, set, NULL, out, &report);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
    publisher_free(&publisher);
    return e;
}

static struct err count(void *ctx, const struct dp_descriptors *d)
{
    size_t *found = ctx;
    assert_true(slice_eq(d->cluster, SLICE_LIT(KEY)));
    ++*found;
    return OK;
}

static void they_are_found_with_their_cluster(void **state)
{
    (void)state;
    struct sample s;
    struct dp_model_bin *bin = NULL;
    struct dp_model *model = NULL;
    size_t found = 0;
    sample_init(&s);
    assert_true(err_ok(dp_model_bin_new(&bin)));
    assert_true(err_ok(build(&s, KEY, bin, &model)));
    const struct dp_descriptors *d = dp_model_descriptors(model, SLICE_LIT(KEY));
    assert_non_null(d);
    assert_int_equal(d->file_count, FILES);
    assert_true(slice_eq(d->files[0].imports[0], SLICE_LIT("b.proto")));
    assert_true(slice_eq(d->files[0].symbols[1], SLICE_LIT("acme.orders.Get")));
    assert_int_equal(d->method_count, METHODS);
    assert_null(dp_model_descriptors(model, SLICE_LIT("service/acme/web")));
    assert_true(err_ok(dp_model_each_descriptors(model, count, &found)));
    assert_int_equal(found, 1);
    const struct dp_cluster *cluster = dp_model_cluster(model, SLICE_LIT(KEY));
    assert_true(dp_model_method_streams(model, cluster, SLICE_LIT("/acme.orders/Watch")));
    assert_false(dp_model_method_streams(model, cluster, SLICE_LIT("/acme.orders/Get")));
    assert_false(dp_model_method_streams(model, cluster, SLICE_LIT("/acme.orders/Watc")));
    const struct dp_cluster *web = dp_model_cluster(model, SLICE_LIT("service/acme/web"));
    assert_false(web != NULL &&
                 dp_model_method_streams(model, web, SLICE_LIT("/acme.orders/Watch")));
    dp_model_unref(model);
    dp_model_bin_free(bin);
}

static void swap_files(struct sample *s)
{
    s->file_list[0] = &s->files[1];
    s->file_list[1] = &s->files[0];
}

static void miss_import(struct sample *s)
{
    s->imports[0] = publisher_text("c.proto");
}

static void swap_symbols(struct sample *s)
{
    s->symbols[0] = publisher_text("z");
}

static void swap_methods(struct sample *s)
{
    s->methods[0] = publisher_text("/z/Z");
}

static void no_name(struct sample *s)
{
    s->files[0].name = publisher_text("");
}

static void another_service(struct sample *s)
{
    s->part.service = publisher_text("service/acme/web");
}

static void what_is_out_of_order_is_refused(void **state)
{
    (void)state;
    static void (*const breaks[])(struct sample *) = {swap_files,   miss_import, swap_symbols,
                                                      swap_methods, no_name,     another_service};
    struct dp_model_bin *bin = NULL;
    assert_true(err_ok(dp_model_bin_new(&bin)));
    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        struct sample s;
        struct dp_model *model = NULL;
        sample_init(&s);
        breaks[i](&s);
        assert_int_equal(build(&s, KEY, bin, &model).code, E_PART_MALFORMED);
    }
    dp_model_bin_free(bin);
}

static void a_cluster_must_be_there(void **state)
{
    (void)state;
    struct sample s;
    struct dp_model_bin *bin = NULL;
    struct dp_model *model = NULL;
    sample_init(&s);
    s.part.service = publisher_text("service/acme/nobody");
    assert_true(err_ok(dp_model_bin_new(&bin)));
    assert_int_equal(build(&s, "service/acme/nobody", bin, &model).code, E_PART_MALFORMED);
    dp_model_bin_free(bin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_found_with_their_cluster),
        cmocka_unit_test(what_is_out_of_order_is_refused),
        cmocka_unit_test(a_cluster_must_be_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
