/* Proves what a replica agrees with: the leader's bytes, if they say what it made itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka wants the headers above first. */
#include <cmocka.h>

#include "common/base/ids.h"
#include "common/snapshot/parts.h"
#include "controlplane/publish/cosign.h"

enum { STREAMS = 2, VERSION = 7, CAPABILITIES = 3 };

/* Two streams, and one that differs in a byte. */
struct fixture {
    struct buf raw[STREAMS + 1];
    struct cut_stream streams[STREAMS + 1];
    struct buf body;
    struct buf sentence;
};

static void must(struct err e)
{
    assert_int_equal(e.code, E_OK);
}

static void cut(struct fixture *f, size_t index, uint32_t kind, const char *part)
{
    f->raw[index] = BUF_MAX(4096);
    struct part_writer writer = {.out = &f->raw[index]};
    must(part_add(&writer, SLICE_LIT("key"), slice_str(part)));
    must(cut_stream(kind, buf_slice(&f->raw[index]), /* options= */ NULL, &f->streams[index]));
}

static struct manifest_plan plan_of(const struct cut_stream *streams, size_t count)
{
    return (struct manifest_plan){.version = VERSION,
                                  .made_at_ms = 1,
                                  .capabilities = CAPABILITIES,
                                  .streams = streams,
                                  .stream_count = count};
}

static int set_up(void **state)
{
    static struct fixture f;
    f = (struct fixture){.body = BUF_MAX(MANIFEST_BODY_MAX), .sentence = BUF_MAX(4096)};
    cut(&f, 0, STREAM_ROUTING, "routes");
    cut(&f, 1, STREAM_TRUST, "callers");
    cut(&f, 2, STREAM_TRUST, "Callers");
    struct manifest_plan leaders = plan_of(f.streams, STREAMS);
    must(manifest_encode(&leaders, &f.body));
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i <= STREAMS; i++) {
        cut_stream_free(&f->streams[i]);
        buf_free(&f->raw[i]);
    }
    buf_free(&f->body);
    buf_free(&f->sentence);
    return 0;
}

/* Judges, and says what the sentence holds of a refusal. */
static void refused(struct fixture *f, const struct manifest_plan *mine, const char *about)
{
    const char *sentence = NULL;
    buf_clear(&f->sentence);
    struct err e = cp_cosign_agree(buf_slice(&f->body), mine, &f->sentence);
    assert_int_equal(e.code, E_COSIGN_REFUSED);
    must(buf_cstr(&f->sentence, &sentence));
    assert_non_null(strstr(sentence, about));
}

static void agrees_whatever_the_time(void **state)
{
    struct fixture *f = *state;
    struct manifest_plan mine = plan_of(f->streams, STREAMS);
    mine.made_at_ms = 999;
    must(cp_cosign_agree(buf_slice(&f->body), &mine, &f->sentence));
}

static void each_difference_is_named(void **state)
{
    struct fixture *f = *state;
    struct manifest_plan mine = plan_of(f->streams, STREAMS);
    mine.version = VERSION + 1;
    refused(f, &mine, "version: the leader has 7, this replica 8");
    mine = plan_of(f->streams, STREAMS);
    mine.capabilities = 1;
    refused(f, &mine, "capabilities: the leader has 3, this replica 1");
    mine = plan_of(f->streams, 1);
    refused(f, &mine, "streams: the leader has 2, this replica 1");
    struct cut_stream other[STREAMS] = {f->streams[0], f->streams[2]};
    mine = plan_of(other, STREAMS);
    refused(f, &mine, "stream trust");
    other[1] = f->streams[1];
    other[1].format++;
    refused(f, &mine, "stream trust");
}

/* Another zstd makes other stored bytes of the same content. */
static void stored_bytes_are_the_leaders_word(void **state)
{
    struct fixture *f = *state;
    struct cut_stream mine[STREAMS] = {f->streams[0], f->streams[1]};
    struct cut_chunk chunk = mine[1].chunks[0];
    (void)memset(chunk.digest, 0xee, sizeof(chunk.digest));
    mine[1].chunks = &chunk;
    struct manifest_plan plan = plan_of(mine, STREAMS);
    must(cp_cosign_agree(buf_slice(&f->body), &plan, &f->sentence));
}

static void what_is_no_manifest_is_not_signed(void **state)
{
    struct fixture *f = *state;
    struct manifest_plan mine = plan_of(f->streams, STREAMS);
    struct err e = cp_cosign_agree(SLICE_LIT("\x08"), &mine, &f->sentence);
    assert_int_equal(e.code, E_MANIFEST_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(agrees_whatever_the_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_difference_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stored_bytes_are_the_leaders_word, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_no_manifest_is_not_signed, set_up, tear_down),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
