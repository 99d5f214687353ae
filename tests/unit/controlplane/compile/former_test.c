/*
 * former: what is compiled for nodes of the release before is, byte for byte, what that release
 * made of the same sources; and the two formats say the same.
 */
#include "common/proto/strict.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/parts.h"

#include "tests/support/cmocka.h"
#include "tests/support/kept.h"
#include "tests/unit/controlplane/compile/fixture.h"
#include "trilane/parts/v1/parts.pb-c.h"

static void load_kept(struct fixture *f)
{
    auto_buf struct buf message = BUF_MAX(4096);
    char path[1024];
    kept_path("sources", path);
    fixture_init(f);
    struct err e = cp_source_set_load(&f->set, path, &message);
    if (!err_ok(e)) {
        fail_msg("%.*s", SLICE_ARG(buf_slice(&message)));
    }
    fixture_compile(f);
}

/* Digest and raw size of a kind's stream in a format. */
static void cut_kind(const struct fixture *f, uint32_t kind, uint32_t format,
                     struct cut_stream *out, struct buf *raw)
{
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(f->compiled, &count);
    struct part_writer writer = {.out = raw};
    for (size_t i = 0; i < count; i++) {
        if (parts[i].kind == kind) {
            assert_true(err_ok(part_add(&writer, parts[i].key, cp_part_bytes(&parts[i], format))));
        }
    }
    assert_true(err_ok(cut_stream(kind, buf_slice(raw), /* options= */ NULL, out)));
    out->format = stream_format(kind, format);
}

static void former_bytes_are_those_of_the_release_before(void **state)
{
    (void)state;
    struct fixture f;
    auto_manifest struct manifest kept = {0};
    load_kept(&f);
    kept_manifest(&kept);
    assert_int_equal(cp_compiled_format_least(f.compiled), SNAPSHOT_FORMAT_LEAST);
    assert_int_equal(cp_compiled_capabilities(f.compiled), kept.capabilities);
    for (size_t i = 0; i < kept.stream_count; i++) {
        const struct manifest_stream *want = &kept.streams[i];
        auto_buf struct buf raw = BUF_MAX(1 << 20);
        struct cut_stream got = {0};
        cut_kind(&f, want->kind, SNAPSHOT_FORMAT_LEAST, &got, &raw);
        assert_int_equal(got.format, want->format);
        assert_int_equal(got.raw_size, want->raw_size);
        assert_memory_equal(got.raw_digest, want->raw_digest, DIGEST_SIZE);
        cut_stream_free(&got);
    }
    fixture_free(&f);
}

/* A caller's key and its former bytes say the same service. */
static void only_callers_are_written_anew(void **state)
{
    (void)state;
    struct fixture f;
    load_kept(&f);
    size_t count = 0;
    size_t callers = 0;
    const struct cp_part *parts = cp_compiled_parts(f.compiled, &count);
    for (size_t i = 0; i < count; i++) {
        bool caller =
            parts[i].kind == CP_PART_TRUST && slice_starts(parts[i].key, SLICE_LIT("service/"));
        assert_int_equal(slice_eq(parts[i].bytes, parts[i].former), !caller);
        if (!caller) {
            continue;
        }
        callers++;
        ProtobufCMessage *present = NULL;
        ProtobufCMessage *former = NULL;
        const ProtobufCMessageDescriptor *type = part_message(parts[i].kind, parts[i].key);
        assert_true(err_ok(part_decode(type, parts[i].bytes, &present)));
        assert_true(err_ok(part_decode(type, parts[i].former, &former)));
        const Trilane__Parts__V1__Caller *a = (const void *)present;
        const Trilane__Parts__V1__Caller *b = (const void *)former;
        assert_string_equal(a->id, "");
        assert_string_equal(a->spiffe, "");
        assert_true(slice_eq(slice_str(b->id), parts[i].key));
        assert_int_equal(a->n_traits, b->n_traits);
        assert_int_equal(a->n_token_digests, b->n_token_digests);
        proto_free(present);
        proto_free(former);
    }
    assert_int_equal(callers, 4);
    fixture_free(&f);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(former_bytes_are_those_of_the_release_before),
        cmocka_unit_test(only_callers_are_written_anew),
    };
    return cmocka_run_group_tests_name("former", tests, NULL, NULL);
}
