/*
 * descriptors: a service's part has the files of its own gRPC services and what these import, no
 * others; its methods, and which of them stream; and what a set lacks is refused where it is named.
 */
#include <stdio.h>

#include "common/proto/wire.h"

#include "tests/support/cmocka.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define EXPECT_OK(call) assert_true(err_ok(call))

/* ---- a descriptor set, by the numbers of google/protobuf/descriptor.proto ---- */

static void add_text(struct buf *out, uint32_t number, const char *text)
{
    EXPECT_OK(wire_add_bytes(out, number, slice_str(text)));
}

static void add_message(struct buf *out, uint32_t number, const char *name)
{
    auto_buf struct buf message = BUF_MAX(4096);
    add_text(&message, 1, name);
    EXPECT_OK(wire_add_bytes(out, number, buf_slice(&message)));
}

/* "Name" a call, "Name<" what the client streams, "Name>" what the server does. */
static void add_method(struct buf *service, const char *text)
{
    auto_buf struct buf method = BUF_MAX(4096);
    struct slice name = slice_str(text);
    char last = text[name.size - 1];
    bool streams = last == '<' || last == '>';
    EXPECT_OK(wire_add_bytes(&method, 1, slice_head(name, name.size - (streams ? 1 : 0))));
    add_text(&method, 2, ".x.M");
    add_text(&method, 3, ".x.M");
    if (streams) {
        EXPECT_OK(wire_add_varint(&method, last == '<' ? 5 : 6, 1));
    }
    EXPECT_OK(wire_add_bytes(service, 2, buf_slice(&method)));
}

static void add_service(struct buf *file, const char *name, const char *const *methods)
{
    auto_buf struct buf service = BUF_MAX(4096);
    add_text(&service, 1, name);
    for (size_t i = 0; methods[i] != NULL; i++) {
        add_method(&service, methods[i]);
    }
    EXPECT_OK(wire_add_bytes(file, 6, buf_slice(&service)));
}

/* A file of package 'package' with a message M, which may import one and have one service. */
struct file {
    const char *name;
    const char *package;
    const char *import;
    const char *service;
    const char *methods[4];
};

static void add_file(struct buf *set, const struct file *f)
{
    auto_buf struct buf file = BUF_MAX(1 << 16);
    add_text(&file, 1, f->name);
    add_text(&file, 2, f->package);
    if (f->import != NULL) {
        add_text(&file, 3, f->import);
    }
    add_message(&file, 4, "M");
    if (f->service != NULL) {
        add_service(&file, f->service, f->methods);
    }
    add_text(&file, 12, "proto3");
    EXPECT_OK(wire_add_bytes(set, 1, buf_slice(&file)));
}

static const struct file shop[] = {
    {"x.proto", "x", NULL, NULL, {NULL}},
    {"mid.proto", "mid", "x.proto", NULL, {NULL}},
    {"orders.proto", "acme.v1", "mid.proto", "Orders", {"Get", "Put<", "Watch>", NULL}},
    {"other.proto", "other", "x.proto", "Other", {"Do", NULL}},
};

/* A platform of one service that registers 'services', with a set of these files. */
static void add_sources(struct fixture *f, const char *services, const struct file *files,
                        size_t count)
{
    char text[1024];
    auto_buf struct buf set = BUF_MAX(1 << 20);
    for (size_t i = 0; i < count; i++) {
        add_file(&set, &files[i]);
    }
    (void)snprintf(text, sizeof(text),
                   FIXTURE_ENVIRONMENT
                   "---\napiVersion: trilane.dev/v1\nkind: Service\n"
                   "metadata: {name: orders, tenant: acme}\n"
                   "spec: {grpcServices: [%s], descriptorSet: {file: sets/all.binpb}}\n",
                   services);
    fixture_init(f);
    fixture_add(f, "platform.yaml", text);
    EXPECT_OK(cp_source_set_add(&f->set, SLICE_LIT("sets/all.binpb"), buf_slice(&set)));
}

static Trilane__Parts__V1__ServiceDescriptors *part_of(const struct fixture *f)
{
    const struct cp_part *part = fixture_part(f, CP_PART_SCHEMAS, "service/acme/orders");
    assert_non_null(part);
    return trilane__parts__v1__service_descriptors__unpack(NULL, part->bytes.size, part->bytes.ptr);
}

static void expect_names(char *const *names, size_t count, const char *wanted)
{
    auto_buf struct buf all = BUF_MAX(4096);
    for (size_t i = 0; i < count; i++) {
        EXPECT_OK(buf_addf(&all, "%s%s", i > 0 ? " " : "", names[i]));
    }
    if (!slice_eq(buf_slice(&all), slice_str(wanted))) {
        fail_msg("%.*s, not %s", SLICE_ARG(buf_slice(&all)), wanted);
    }
}

static void a_part_has_what_its_services_need(void **state)
{
    (void)state;
    struct fixture f;
    add_sources(&f, "acme.v1.Orders", shop, 4);
    fixture_compile(&f);
    Trilane__Parts__V1__ServiceDescriptors *part = part_of(&f);
    assert_string_equal(part->service, "service/acme/orders");
    assert_int_equal(part->n_files, 3);
    assert_string_equal(part->files[0]->name, "mid.proto");
    assert_string_equal(part->files[1]->name, "orders.proto");
    assert_string_equal(part->files[2]->name, "x.proto");
    expect_names(part->files[1]->imports, part->files[1]->n_imports, "mid.proto");
    expect_names(part->files[1]->symbols, part->files[1]->n_symbols,
                 "acme.v1.M acme.v1.Orders acme.v1.Orders.Get acme.v1.Orders.Put "
                 "acme.v1.Orders.Watch");
    expect_names(part->methods, part->n_methods,
                 "/acme.v1.Orders/Get /acme.v1.Orders/Put /acme.v1.Orders/Watch");
    expect_names(part->streams, part->n_streams, "/acme.v1.Orders/Put /acme.v1.Orders/Watch");
    assert_true((cp_compiled_capabilities(f.compiled) & CAPABILITY_SERVICE_DESCRIPTORS) != 0);
    trilane__parts__v1__service_descriptors__free_unpacked(part, NULL);
    fixture_free(&f);
}

#define SPEAKS_OF(method)                                                                          \
    "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"           \
    "spec: {target: {service: orders}, rules: [{name: no, effect: deny, methods: [" method         \
    "]}]}\n"                                                                                       \
    "---\napiVersion: trilane.dev/v1\nkind: RateLimit\nmetadata: {name: l, tenant: acme}\n"        \
    "spec: {target: {service: orders}, methods: [" method "], rate: 1/s}\n"

/* A rule or limit of a method that the set has not would fit nothing: it is refused where it
 * stands, and the nearest one is named. Globs, and names that are routed here from elsewhere, are
 * not judged. */
static void a_method_that_a_set_lacks_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    add_sources(&f, "acme.v1.Orders", shop, 4);
    fixture_add(&f, "wrong.yaml", SPEAKS_OF("/acme.v1.Orders/Gett"));
    fixture_refuse(&f, CP_DIAG_FITS_NOTHING);
    assert_int_equal(f.diags.count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(f.diags.items[i]->code, CP_DIAG_FITS_NOTHING);
        assert_true(slice_eq(f.diags.items[i]->nearest, SLICE_LIT("/acme.v1.Orders/Get")));
    }
    assert_int_equal(f.diags.items[0]->at.line, 5);
    fixture_free(&f);
    add_sources(&f, "acme.v1.Orders", shop, 4);
    fixture_add(&f, "right.yaml",
                SPEAKS_OF("/acme.v1.Orders/Watch, /acme.v1.Orders/No*, /acme.v0.Orders/Old"));
    fixture_compile(&f);
    fixture_free(&f);
}

static void without_a_set_there_is_no_part(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    fixture_add(&f, "platform.yaml",
                FIXTURE_ENVIRONMENT "---\napiVersion: trilane.dev/v1\nkind: Service\n"
                                    "metadata: {name: orders, tenant: acme}\n"
                                    "spec: {grpcServices: [acme.v1.Orders]}\n");
    fixture_compile(&f);
    assert_null(fixture_part(&f, CP_PART_SCHEMAS, "service/acme/orders"));
    assert_int_equal(cp_compiled_capabilities(f.compiled) & CAPABILITY_SERVICE_DESCRIPTORS, 0);
    fixture_free(&f);
}

static void what_a_set_lacks_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    add_sources(&f, "acme.v1.Orders, acme.v1.Gone", shop, 4);
    fixture_refuse(&f, CP_DIAG_MESSAGE_UNKNOWN);
    fixture_free(&f);
    add_sources(&f, "acme.v1.Orders", shop + 1, 2); /* without x.proto, which is imported. */
    fixture_refuse(&f, CP_DIAG_MESSAGE_UNKNOWN);
    fixture_free(&f);
}

static void a_file_that_is_there_twice_is_refused(void **state)
{
    (void)state;
    static const struct file twice[] = {
        {"a.proto", "a", NULL, "A", {"Do", NULL}},
        {"a.proto", "b", NULL, NULL, {NULL}},
    };
    struct fixture f;
    add_sources(&f, "a.A", twice, 2);
    fixture_refuse(&f, CP_DIAG_DESCRIPTOR_MALFORMED);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_has_what_its_services_need),
        cmocka_unit_test(a_method_that_a_set_lacks_is_refused),
        cmocka_unit_test(without_a_set_there_is_no_part),
        cmocka_unit_test(what_a_set_lacks_is_refused),
        cmocka_unit_test(a_file_that_is_there_twice_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
