/* schema: well-formed bytes pass; each way to be wrong is named with its field and place. */
#include "common/proto/schema.h"

#include "common/proto/wire.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define BYTES(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

typedef struct Trilane__Parts__V1__SchemaField field_part;
typedef struct Trilane__Parts__V1__SchemaMessage message_part;
typedef struct Trilane__Parts__V1__Schema schema_part;

enum { FIXED64 = 6, FIXED32 = 7, STRING = 9, GROUP = 10, MESSAGE = 11, UINT32 = 13 };

static char user_name[] = "acme.User";
static char address_name[] = "acme.Address";
static char type_name[] = "User.v2";

struct parts {
    field_part fields[8];
    field_part *user[7];
    field_part *address[1];
    message_part messages[2];
    message_part *list[2];
    schema_part schema;
};

static field_part field(uint32_t number, uint32_t type)
{
    field_part f = TRILANE__PARTS__V1__SCHEMA_FIELD__INIT;
    f.number = number;
    f.type = type;
    return f;
}

/* message User { 1 string name; 2 repeated uint32; 3 Address (required); 4 group of User;
 * 5 repeated fixed64; 100 User; 200 fixed32 }  message Address { 1 string (required) } */
static void fill(struct parts *p)
{
    p->fields[0] = field(1, STRING);
    p->fields[0].utf8 = 1;
    p->fields[1] = field(2, UINT32);
    p->fields[1].repeated_field = 1;
    p->fields[2] = field(3, MESSAGE);
    p->fields[2].required = 1;
    p->fields[2].message = 1;
    p->fields[3] = field(4, GROUP);
    p->fields[3].message = 1;
    p->fields[4] = field(5, FIXED64);
    p->fields[4].repeated_field = 1;
    p->fields[5] = field(100, MESSAGE);
    p->fields[6] = field(200, FIXED32);
    p->fields[7] = field(1, STRING);
    p->fields[7].required = 1;
    for (size_t i = 0; i < 7; i++) {
        p->user[i] = &p->fields[i];
    }
    p->address[0] = &p->fields[7];
    trilane__parts__v1__schema_message__init(&p->messages[0]);
    p->messages[0].name = user_name;
    p->messages[0].n_fields = 7;
    p->messages[0].fields = p->user;
    trilane__parts__v1__schema_message__init(&p->messages[1]);
    p->messages[1].name = address_name;
    p->messages[1].n_fields = 1;
    p->messages[1].fields = p->address;
    p->list[0] = &p->messages[0];
    p->list[1] = &p->messages[1];
    trilane__parts__v1__schema__init(&p->schema);
    p->schema.type = type_name;
    p->schema.full_name = user_name;
    p->schema.n_messages = 2;
    p->schema.messages = p->list;
}

static int set_up(void **state)
{
    struct parts p;
    struct schema *schema = NULL;
    fill(&p);
    assert_int_equal(schema_build(&p.schema, &schema).code, E_OK);
    memset(&p, 0xee, sizeof(p)); /* nothing of the part is kept. */
    *state = schema;
    return 0;
}

static int tear_down(void **state)
{
    schema_free(*state);
    return 0;
}

static void accepts(void **state)
{
    const struct schema *s = *state;
    const struct slice good[] = {
        BYTES(0x1a, 2, 0x0a, 0),
        BYTES(0x0a, 2, 0xc3, 0xa9, 0x1a, 3, 0x0a, 1, 0xff),    /* bytes in a string without utf8. */
        BYTES(0x12, 3, 1, 0x80, 1, 0x10, 5, 0x1a, 2, 0x0a, 0), /* packed and not. */
        BYTES(0x2a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 2, 0x0a, 0), /* packed fixed. */
        BYTES(0x23, 0x0a, 0, 0x24, 0x1a, 2, 0x0a, 0),             /* a group. */
        BYTES(0x48, 1, 0x53, 0x08, 1, 0x54, 0x1a, 2, 0x0a, 0),    /* unknown ones. */
        BYTES(0xa2, 0x06, 4, 0x1a, 2, 0x0a, 0, 0x1a, 2, 0x0a, 0), /* field 100. */
        BYTES(0xc5, 0x0c, 1, 2, 3, 4, 0x1a, 2, 0x0a, 0),          /* field 200. */
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct schema_fault fault = {0};
        assert_int_equal(schema_check(s, good[i], &fault).code, E_OK);
        assert_int_equal(fault.kind, SCHEMA_FAULT_NONE);
    }
    assert_true(slice_eq(schema_type(s), SLICE_LIT("User.v2")));
    assert_true(slice_eq(schema_full_name(s), SLICE_LIT("acme.User")));
    assert_int_equal(schema_fingerprint(s).size, 0);
}

static void refuses(void **state)
{
    const struct schema *s = *state;
    const struct {
        struct slice bytes;
        enum schema_fault_kind kind;
        uint32_t field;
        size_t offset;
        const char *message;
    } bad[] = {
        {BYTES(0x0a), SCHEMA_FAULT_WIRE, 1, 0, "acme.User"},
        {BYTES(0x07), SCHEMA_FAULT_WIRE, 0, 0, "acme.User"},
        {BYTES(0x1a, 2, 0x0a, 0, 0x0a, 1, 0xff), SCHEMA_FAULT_UTF8, 1, 4, "acme.User"},
        {BYTES(0x1a, 2, 0x0a, 0, 0x08, 1), SCHEMA_FAULT_TYPE, 1, 4, "acme.User"},
        {BYTES(0x15, 1, 2, 3, 4), SCHEMA_FAULT_TYPE, 2, 0, "acme.User"},
        {BYTES(0x12, 1, 0x80), SCHEMA_FAULT_PACKED, 2, 0, "acme.User"},
        {BYTES(0x2a, 7, 1, 2, 3, 4, 5, 6, 7), SCHEMA_FAULT_PACKED, 5, 0, "acme.User"},
        {BYTES(0xc2, 0x0c, 4, 1, 2, 3, 4), SCHEMA_FAULT_TYPE, 200, 0, "acme.User"},
        {BYTES(0x0a, 0), SCHEMA_FAULT_REQUIRED, 3, 2, "acme.User"},
        {BYTES(0x1a, 0), SCHEMA_FAULT_REQUIRED, 1, 2, "acme.Address"},
        {BYTES(0x1a, 2, 0x08, 0), SCHEMA_FAULT_TYPE, 1, 2, "acme.Address"},
        {BYTES(0x23, 0x0a, 0), SCHEMA_FAULT_WIRE, 4, 1, "acme.Address"},
        {BYTES(0x23, 0x0a, 0, 0x2c), SCHEMA_FAULT_WIRE, 5, 3, "acme.Address"},
        {BYTES(0x24), SCHEMA_FAULT_WIRE, 4, 0, "acme.User"},
        /* a group that ends outside of the message that it began in. */
        {BYTES(0xa2, 0x06, 1, 0x23, 0x0a, 0, 0x24), SCHEMA_FAULT_WIRE, 4, 3, "acme.Address"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct schema_fault fault = {0};
        assert_int_equal(schema_check(s, bad[i].bytes, &fault).code, E_PAYLOAD_MALFORMED);
        assert_int_equal(fault.kind, bad[i].kind);
        assert_int_equal(fault.field, bad[i].field);
        assert_int_equal(fault.offset, bad[i].offset);
        assert_true(slice_eq(fault.message, slice_str(bad[i].message)));
        assert_true(strlen(schema_fault_text(fault.kind)) > 0);
    }
    assert_int_equal(schema_check(s, (struct slice){0}, NULL).code, E_PAYLOAD_MALFORMED);
}

/* User inside of User, 'depth' in all, each complete. */
static struct err check_depth(const struct schema *s, size_t depth)
{
    auto_buf struct buf inner = BUF_MAX(1 << 16);
    for (size_t i = 0; i < depth; i++) {
        auto_buf struct buf outer = BUF_MAX(1 << 16);
        if (i > 0) {
            TRY(wire_add_bytes(&outer, 100, buf_slice(&inner)));
        }
        TRY(buf_add(&outer, BYTES(0x1a, 2, 0x0a, 0)));
        buf_clear(&inner);
        TRY(buf_add(&inner, buf_slice(&outer)));
    }
    return schema_check(s, buf_slice(&inner), NULL);
}

static void depth_is_bounded(void **state)
{
    /* The innermost has an Address inside, which is one level more. */
    assert_int_equal(check_depth(*state, SCHEMA_DEPTH_MAX - 1).code, E_OK);
    assert_int_equal(check_depth(*state, SCHEMA_DEPTH_MAX).code, E_PAYLOAD_MALFORMED);
}

static void tables_that_contradict_themselves(void **state)
{
    (void)state;
    struct parts p;
    struct schema *schema = NULL;
    fill(&p);
    p.fields[2].message = 2; /* no such message. */
    assert_int_equal(schema_build(&p.schema, &schema).code, E_PART_MALFORMED);
    fill(&p);
    p.fields[1].number = 1; /* twice. */
    assert_int_equal(schema_build(&p.schema, &schema).code, E_PART_MALFORMED);
    fill(&p);
    p.fields[1].type = 19;
    assert_int_equal(schema_build(&p.schema, &schema).code, E_PART_MALFORMED);
    fill(&p);
    p.fields[6].number = WIRE_NUMBER_MAX + 1;
    assert_int_equal(schema_build(&p.schema, &schema).code, E_PART_MALFORMED);
    fill(&p);
    p.schema.n_messages = 0;
    assert_int_equal(schema_build(&p.schema, &schema).code, E_PART_MALFORMED);
    assert_null(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),
        cmocka_unit_test(refuses),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(tables_that_contradict_themselves),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
