/* Proves: header blocks are read as RFC 7541 says (its own examples among them), what we write is
 * read back, tables of both sides stay the same through evictions and new bounds, and broken blocks
 * are refused. */
#include "common/net/hpack.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/net/h2_message.h"

#include "tests/support/cmocka.h"

enum { TEXT_MAX = 4096 };

struct world {
    struct h2_mem mem;
    struct hpack_decoder decoder;
    struct hpack_encoder encoder;
    uint8_t scratch[1 << 17];
    char text[TEXT_MAX]; /* "name: value\n" of each field that was read. */
};

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    hpack_decoder_init(&w->decoder, &w->mem);
    hpack_encoder_init(&w->encoder, &w->mem);
    return w;
}

static void world_free(struct world *w)
{
    hpack_decoder_free(&w->decoder);
    hpack_encoder_free(&w->encoder);
    assert_int_equal(w->mem.lent, 0);
    h2_mem_clear(&w->mem);
    free(w);
}

/* Reads a block to its end into w->text; the last step. */
static enum hpack_step read_block(struct world *w, struct slice bytes)
{
    struct hpack_block block = {.at = bytes.ptr, .end = bytes.ptr + bytes.size};
    block.scratch = w->scratch;
    assert_true(hpack_scratch_bound(bytes.size) <= sizeof(w->scratch));
    struct hpack_field f;
    size_t at = 0;
    w->text[0] = '\0';
    enum hpack_step step;
    while ((step = hpack_next(&w->decoder, &block, &f)) == HPACK_FIELD) {
        assert_int_equal(f.token, h2_token_find(f.name));
        int size = snprintf(w->text + at, TEXT_MAX - at, "%.*s: %.*s\n", SLICE_ARG(f.name),
                            SLICE_ARG(f.value));
        at += (size_t)size < TEXT_MAX - at ? (size_t)size : 0;
    }
    return step;
}

static uint8_t nibble(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void expect_read(struct world *w, const char *hex, const char *text)
{
    uint8_t bytes[512];
    size_t size = 0;
    for (const char *c = hex; *c != '\0'; c++) {
        if (*c != ' ') {
            bytes[size++] = (uint8_t)(nibble(c[0]) << 4 | nibble(c[1]));
            c++;
        }
    }
    assert_int_equal(read_block(w, slice_of(bytes, size)), HPACK_END);
    assert_string_equal(w->text, text);
}

/* ---- reading ---- */

/* Appendix C.3 and C.4: three requests on a connection, plain and coded. */
static void requests_of_the_rfc_are_read(void **state)
{
    (void)state;
    static const char *const blocks[2][3] = {
        {"8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", "8286 84be 5808 6e6f 2d63 6163 6865",
         "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65"},
        {"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", "8286 84be 5886 a8eb 1064 9cbf",
         "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"},
    };
    for (int coded = 0; coded < 2; coded++) {
        struct world *w = world_new();
        expect_read(w, blocks[coded][0],
                    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n");
        expect_read(w, blocks[coded][1],
                    ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n"
                    "cache-control: no-cache\n");
        expect_read(w, blocks[coded][2],
                    ":method: GET\n:scheme: https\n:path: /index.html\n"
                    ":authority: www.example.com\ncustom-key: custom-value\n");
        assert_int_equal(w->decoder.table.size, 164);
        world_free(w);
    }
}

/* Appendix C.6: answers that evict, in a table of 256 bytes. */
static void answers_of_the_rfc_evict(void **state)
{
    (void)state;
    struct world *w = world_new();
    hpack_table_resize(&w->decoder.table, 256);
    expect_read(w,
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6"
                "2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                ":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n"
                "location: https://www.example.com\n");
    assert_int_equal(w->decoder.table.size, 222);
    expect_read(w, "4883 640e ffc1 c0bf",
                ":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\n"
                "location: https://www.example.com\n");
    assert_int_equal(w->decoder.table.size, 222);
    expect_read(w,
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab"
                "77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f"
                "9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n"
                "location: https://www.example.com\ncontent-encoding: gzip\n"
                "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n");
    assert_int_equal(w->decoder.table.size, 215);
    world_free(w);
}

/* An entry may be named by one that goes to make room for it (section 4.4). */
static void an_entry_outlives_the_one_that_named_it(void **state)
{
    (void)state;
    struct world *w = world_new();
    hpack_table_resize(&w->decoder.table, 64);
    expect_read(w, "40 06 782d 6c6f 6e67 04 6161 6161", "x-long: aaaa\n");
    for (int i = 0; i < 2000; i++) { /* through many moves of the bytes, too. */
        expect_read(w, "7e 05 6262 6262 62", "x-long: bbbbb\n");
        assert_int_equal(w->decoder.table.added - w->decoder.table.evicted, 1);
    }
    world_free(w);
}

static void an_entry_above_the_bound_empties_the_table(void **state)
{
    (void)state;
    struct world *w = world_new();
    hpack_table_resize(&w->decoder.table, 40);
    expect_read(w, "40 01 61 01 62", "a: b\n");
    assert_int_equal(w->decoder.table.size, 34);
    expect_read(w, "40 06 782d 6c6f 6e67 04 6161 6161", "x-long: aaaa\n");
    assert_int_equal(w->decoder.table.size, 0);
    world_free(w);
}

static void broken_blocks_are_refused(void **state)
{
    (void)state;
    static const struct slice blocks[] = {
        SLICE_INIT("\x80"),                         /* index 0. */
        SLICE_INIT("\xbe"),                         /* an entry that is not there. */
        SLICE_INIT("\xff\xff\xff\xff\xff\xff\x01"), /* a number without end. */
        SLICE_INIT("\xff\xff\xff\xff\xff\x7f"),     /* beyond 32 bits. */
        SLICE_INIT("\xff"),                         /* cut in a number. */
        SLICE_INIT("\x40"),                         /* cut before the name. */
        SLICE_INIT("\x40\x05"
                   "ab"), /* cut in the name. */
        SLICE_INIT("\x40\x01"
                   "a"), /* cut before the value. */
        SLICE_INIT("\x7f\xe1\x1f\x01"
                   "a"),                        /* named by what is not there. */
        SLICE_INIT("\x82\x20"),                 /* a new bound behind a field. */
        SLICE_INIT("\x3f\xe2\x1f"),             /* a bound above ours. */
        SLICE_INIT("\x44\x81\xfe"),             /* padding with a zero. */
        SLICE_INIT("\x44\x82\x1f\xff"),         /* padding of a byte. */
        SLICE_INIT("\x44\x84\xff\xff\xff\xff"), /* the end of string. */
    };
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        struct world *w = world_new();
        assert_int_equal(read_block(w, blocks[i]), HPACK_BROKEN);
        world_free(w);
    }
}

/* Each byte, coded as RFC 7541 does: what the codes of one byte are is told by its neighbours. */
static void every_byte_has_its_code(void **state)
{
    (void)state;
    uint8_t out[16];
    size_t size = 0;
    /* '0' is 5 bits of zero, 'a' 00011, 0x00 is 13 bits 1ff8, 0xff is 26 bits 3ffffee. */
    assert_true(hpack_huffman_decode(slice_of("\x00\x3f", 2), out, &size));
    assert_memory_equal(out, "00", 2);
    assert_int_equal(size, 2);
    assert_true(hpack_huffman_decode(slice_of("\xff\xc7", 2), out, &size));
    assert_int_equal(size, 1);
    assert_int_equal(out[0], 0);
    assert_true(hpack_huffman_decode(slice_of("\xff\xff\xfb\xbf", 4), out, &size));
    assert_int_equal(size, 1);
    assert_int_equal(out[0], 255);
    assert_true(hpack_huffman_decode(slice_of("", 0), out, &size));
    assert_int_equal(size, 0);
}

/* ---- writing ---- */

static size_t write_block(struct world *w, const struct h2_field *fields, size_t count,
                          uint8_t *out, size_t room)
{
    size_t bound = hpack_encoded_bound(fields, count);
    assert_true(bound <= room);
    size_t size = hpack_encode(&w->encoder, fields, count, out);
    assert_true(size <= bound);
    return size;
}

static void expect_round(struct world *w, const struct h2_field *fields, size_t count,
                         size_t *out_size)
{
    static uint8_t bytes[1 << 16];
    char text[TEXT_MAX];
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%.*s: %.*s\n",
                               SLICE_ARG(fields[i].name), SLICE_ARG(fields[i].value));
    }
    *out_size = write_block(w, fields, count, bytes, sizeof(bytes));
    assert_int_equal(read_block(w, slice_of(bytes, *out_size)), HPACK_END);
    assert_string_equal(w->text, text);
    assert_int_equal(w->encoder.table.size, w->decoder.table.size);
}

static void what_repeats_is_a_number(void **state)
{
    (void)state;
    struct world *w = world_new();
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_METHOD, SLICE_LIT("POST")),
        h2_field_of(H2_TOKEN_PATH, SLICE_LIT("/acme.orders.v1.Orders/Get")),
        h2_field_of(H2_TOKEN_TRACEPARENT, SLICE_LIT("00-4bf92f3577b34da6-00f067aa0ba902b7-01")),
        h2_field_named(SLICE_LIT("x-own"), SLICE_LIT("value")),
        h2_field_of(H2_TOKEN_AUTHORIZATION, SLICE_LIT("Bearer secret")),
    };
    size_t first = 0;
    size_t second = 0;
    expect_round(w, fields, 5, &first);
    uint32_t entries = w->encoder.table.added;
    expect_round(w, fields, 5, &second);
    assert_int_equal(w->encoder.table.added, entries);
    /* A number each, but for what varies (number and value) and what is secret. */
    assert_int_equal(second, 1 + 1 + (2 + 1 + 39) + 1 + (2 + 1 + 13));
    assert_true(first > second + 40);
    for (uint32_t n = w->encoder.table.evicted; n != entries; n++) {
        assert_int_not_equal(hpack_table_entry(&w->encoder.table, n)->token,
                             H2_TOKEN_AUTHORIZATION);
    }
    world_free(w);
}

static void secrets_are_never_indexed_at_any_hop(void **state)
{
    (void)state;
    struct world *w = world_new();
    const struct h2_field secret = h2_field_of(H2_TOKEN_COOKIE, SLICE_LIT("a=b"));
    uint8_t bytes[64];
    size_t size = write_block(w, &secret, 1, bytes, sizeof(bytes));
    struct hpack_block block = {.at = bytes, .end = bytes + size, .scratch = w->scratch};
    struct hpack_field f;
    assert_int_equal(hpack_next(&w->decoder, &block, &f), HPACK_FIELD);
    assert_true(f.never_index);
    world_free(w);
}

/* Thousands of fields, of which some repeat, through tables that change their bounds. */
static void tables_stay_the_same(void **state)
{
    (void)state;
    struct world *w = world_new();
    unsigned seed = 7541;
    for (int round = 0; round < 5000; round++) {
        seed = seed * 1103515245 + 12345;
        if (round % 50 == 0) {
            hpack_encoder_limit(&w->encoder, (seed >> 16) % 3 == 0 ? 0 : (seed >> 16) % 5000);
            hpack_encoder_limit(&w->encoder, (seed >> 8) % 5000);
        }
        char value[80];
        char name[32];
        int size =
            snprintf(value, sizeof(value), "%0*u", 1 + (int)((seed >> 20) % 60), (seed >> 12) % 40);
        int name_size = snprintf(name, sizeof(name), "x-%u", (seed >> 18) % 9);
        const struct h2_field fields[] = {
            h2_field_of((enum h2_token)(1 + (seed >> 10) % (H2_TOKEN_COUNT - 1)),
                        slice_of(value, (size_t)size)),
            h2_field_named(slice_of(name, (size_t)name_size), slice_of(value, (size_t)size)),
        };
        size_t bytes = 0;
        expect_round(w, fields, 2, &bytes);
    }
    assert_true(w->encoder.table.evicted > 100);
    world_free(w);
}

/* A peer that keeps no table is sent literals, and numbers of the static table alone. */
static void a_peer_without_a_table_gets_no_entries(void **state)
{
    (void)state;
    struct world *w = world_new();
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_METHOD, SLICE_LIT("POST")),
        h2_field_of(H2_TOKEN_TRACEPARENT, SLICE_LIT("00-4bf9-00f0-01")),
        h2_field_named(SLICE_LIT("x-own"), SLICE_LIT("value")),
    };
    size_t size = 0;
    hpack_encoder_limit(&w->encoder, 0);
    expect_round(w, fields, 3, &size);
    size_t again = 0;
    expect_round(w, fields, 3, &again);
    assert_int_equal(size, again + 1); /* the first one says so. */
    assert_int_equal(w->encoder.table.added, 0);
    assert_null(w->encoder.table.entries);
    hpack_encoder_limit(&w->encoder, UINT32_MAX); /* we use what everybody has. */
    expect_round(w, fields, 3, &size);
    assert_int_equal(w->encoder.table.added, 2);
    assert_int_equal(w->decoder.table.max, HPACK_TABLE_BYTES);
    expect_round(w, fields, 3, &again);
    assert_true(again < size);
    world_free(w);
}

/* Entries are counted in 32 bits: a connection that lives long goes round. */
static void numbers_of_entries_wrap(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct hpack_table *tables[] = {&w->encoder.table, &w->decoder.table};
    for (int i = 0; i < 2; i++) {
        tables[i]->added = tables[i]->evicted = UINT32_MAX - 300;
        tables[i]->base = UINT32_MAX - 3000;
    }
    char value[16];
    unsigned numbers = 0;
    for (int i = 0; i < 600; i++) {
        int size = snprintf(value, sizeof(value), "%d", i / 2);
        const struct h2_field fields[] = {
            h2_field_named(SLICE_LIT("x-own"), slice_of(value, (size_t)size)),
            h2_field_of(H2_TOKEN_X_TENANT_ID, slice_of(value, (size_t)size)),
        };
        size_t bytes = 0;
        expect_round(w, fields, 2, &bytes);
        numbers += bytes == 2 ? 1 : 0;
    }
    assert_true(numbers > 280); /* two of them may be after one slot. */
    assert_true(w->encoder.table.added < 1000);
    world_free(w);
}

/* What was once the number of a name is another's when they went round. */
static void a_name_is_not_taken_for_another(void **state)
{
    (void)state;
    struct world *w = world_new();
    const struct h2_field trace = h2_field_of(H2_TOKEN_TRACEPARENT, SLICE_LIT("00-4bf9-00f0-01"));
    const struct h2_field own = h2_field_named(SLICE_LIT("x-own"), SLICE_LIT("value"));
    size_t size = 0;
    expect_round(w, &trace, 1, &size);
    assert_int_equal(w->encoder.names[H2_TOKEN_TRACEPARENT], 1);
    hpack_encoder_limit(&w->encoder, 0);
    hpack_encoder_limit(&w->encoder, HPACK_TABLE_BYTES);
    w->encoder.table.added = w->encoder.table.evicted = 0; /* as after 2^32 of them. */
    expect_round(w, &own, 1, &size);
    expect_round(w, &trace, 1, &size);
    world_free(w);
}

/* ---- messages ---- */

static void values_have_no_control_bytes(void **state)
{
    (void)state;
    uint8_t value[24];
    for (size_t at = 0; at < sizeof(value); at++) {
        for (unsigned byte = 0; byte < 256; byte++) {
            memset(value, 'v', sizeof(value));
            value[at] = (uint8_t)byte;
            bool edge = at == 0 || at == sizeof(value) - 1;
            bool control = (byte < 0x20 && byte != '\t') || byte == 0x7f;
            bool blank = edge && (byte == ' ' || byte == '\t');
            assert_int_equal(h2_value_is_valid(slice_of(value, sizeof(value))), !control && !blank);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_of_the_rfc_are_read),
        cmocka_unit_test(answers_of_the_rfc_evict),
        cmocka_unit_test(an_entry_outlives_the_one_that_named_it),
        cmocka_unit_test(an_entry_above_the_bound_empties_the_table),
        cmocka_unit_test(broken_blocks_are_refused),
        cmocka_unit_test(every_byte_has_its_code),
        cmocka_unit_test(what_repeats_is_a_number),
        cmocka_unit_test(secrets_are_never_indexed_at_any_hop),
        cmocka_unit_test(tables_stay_the_same),
        cmocka_unit_test(a_peer_without_a_table_gets_no_entries),
        cmocka_unit_test(numbers_of_entries_wrap),
        cmocka_unit_test(a_name_is_not_taken_for_another),
        cmocka_unit_test(values_have_no_control_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
