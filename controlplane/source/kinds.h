/*
 * kinds: the one table of what a resource may say.
 *
 * The loader, its defaults, the JSON Schemas and docs/resources.md are all made from these rows.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "controlplane/source/model.h"

enum cp_type {
    CP_TYPE_TEXT,     /* struct cp_text; 'form' says which. */
    CP_TYPE_TEXTS,    /* struct cp_texts: a set, nothing in it twice. */
    CP_TYPE_PORTS,    /* struct cp_texts of port numbers. */
    CP_TYPE_COUNT,    /* uint64_t. */
    CP_TYPE_BOOL,     /* uint64_t. */
    CP_TYPE_DURATION, /* uint64_t, ms. */
    CP_TYPE_SIZE,     /* uint64_t, bytes. */
    CP_TYPE_RATE,     /* uint64_t, ns of one. */
    CP_TYPE_QUOTA,    /* uint64_t, enum cp_quota_unit above bit CP_QUOTA_BITS, the count below. */
    CP_TYPE_CHOICE,   /* uint64_t: index into 'choices'. */
    CP_TYPE_FLAGS,    /* uint64_t: bits of 'choices'; a list. */
    CP_TYPE_REF,      /* struct cp_ref. */
    CP_TYPE_PAIRS,    /* struct cp_pairs: a mapping of names to text. */
    CP_TYPE_OBJECT,   /* a struct that begins with struct cp_pos, in place; or with 'flat' its
                         members are the parent's. */
    CP_TYPE_OBJECTS,  /* {items, count} of such structs. */
};

/* name, longest, pattern (extended regular expression and ECMA at once), what it is */
#define CP_FORM_LIST(X)                                                                            \
    X(NAME, 63, "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "a name: a-z, 0-9 and hyphen, at most 63") \
    X(KEY, 63, "^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$",                                      \
      "a key: letters, digits, dot, slash, hyphen, at most 63")                                    \
    X(VALUE, 256, "^[^\n\r\t]*$", "text of one line, at most 256 bytes")                           \
    X(REFERENCE, 127, "^([a-z0-9-]+/)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",                        \
      "a name, or tenant/name")                                                                    \
    X(REFERENCE_GLOB, 127, "^([a-z0-9*?-]+/)?[a-z0-9*?-]+$",                                       \
      "a name, tenant/name, or a glob of either: * any text, ? one character")                     \
    X(TYPE_GLOB, 80, "^[A-Za-z0-9.*?]+$",                                                          \
      "a type, or a glob of types: Greeting.v1, Greeting.*; * any text, ? one character")          \
    X(TYPE_MAJOR, 80, "^[A-Za-z][A-Za-z0-9]*\\.v[1-9][0-9]{0,5}$", "a type: Greeting.v1")          \
    X(DOMAIN, 253, "^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$", "a trust domain: prod.example.com")        \
    X(HOST_ANY, 253, "^([*]|([*][.])?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*)$",     \
      "a host in lower case: api.example.com, *.example.com, or *")                                \
    X(HOST, 253, "^(([*][.])?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*)$",             \
      "a host in lower case: api.example.com, *.example.com, or an address")                       \
    X(ADDRESS, 253, "^([a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*)$",                  \
      "an address or a host name in lower case")                                                   \
    X(PROTO_NAME, 255, "^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$",                     \
      "a full protobuf name: acme.orders.v1.Orders")                                               \
    X(PROTO_WORD, 127, "^[A-Za-z_][A-Za-z0-9_]*$", "a method's name: GetOrder")                    \
    X(HTTP_METHOD, 32, "^[A-Z]+$", "an HTTP method in capitals: GET")                              \
    X(PATH, 1024, "^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$",                                            \
      "a path that begins with /, without //, /./ and /../")                                       \
    X(GLOB, 512, "^[!-~]+$", "a glob: /acme.orders.v1.Orders/*, GET, Greeting.v1; * any, ? one")   \
    X(HEADER, 128, "^[a-z0-9!#$%&'*+.^_`|~-]+$", "a header's name in lower case")                  \
    X(ORIGIN, 300,                                                                                 \
      "^([*]|[a-z][a-z0-9+.-]*://(([*][.])?[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\\[[0-9a-f:.]+\\])"      \
      "(:[1-9][0-9]{0,4})?)$",                                                                     \
      "an origin in lower case, without its usual port: https://app.example.com, "                 \
      "https://*.example.com, or *")                                                               \
    X(HEADER_VALUE, 1024, "^[ -~]*$", "printable ASCII")                                           \
    X(CIDR, 64, "^[0-9a-f:.]+/[0-9]{1,3}$",                                                        \
      "an address range, no bit set behind its prefix: 10.1.0.0/16, fd00::/8")                     \
    X(DIGEST, 72, "^blake2b:[0-9a-f]{64}$",                                                        \
      "the BLAKE2b-256 digest of a token: blake2b: and 64 hex digits")                             \
    X(FILE, 512, "^[^/\n\r\t][^\n\r\t]*$", "a path relative to this file's directory")             \
    X(BASE64, 8388608, "^[A-Za-z0-9+/]+={0,2}$", "base64")                                         \
    X(TYPE, 63, "^[A-Za-z][A-Za-z0-9]*$", "a type's name: letters and digits, at most 63")         \
    X(VERSION, 32, "^(0|[1-9][0-9]{0,8})([.](0|[1-9][0-9]{0,8})){2}$", "a version: 2.1.0")         \
    X(SPIFFE, 512, "^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$",                                   \
      "a SPIFFE id: spiffe://prod.example.com/tenant/acme/service/web")                            \
    X(SERIAL, 40, "^([0-9A-Fa-f]{2}){1,20}$",                                                      \
      "a certificate's serial number, quoted, in hex of whole bytes: openssl x509 -serial has it") \
    X(ISSUER, 512, "^[!$-~]+$", "as tokens write it: https://id.example.com/realms/main")          \
    X(CLAIM, 256, "^[!-~]+$", "a claim's name; dots lead into objects: realm_access.roles")        \
    X(CLAIM_VALUE, 256, "^[^\n\r\t]+$", "a claim's value as text, at most 256 bytes")              \
    X(SUBJECT, 768, "^[!$-~]+#[!-~]+$",                                                            \
      "an issuer, # and a subject as x-caller-id has it: https://id.example.com#alice")            \
    X(KEYS_URI, 1024, "^https?://[!$-~]+$",                                                        \
      "an https URL without user and fragment, or http of 127.0.0.1, [::1] or localhost")          \
    X(KEY_SET, 262144, "^[ \n\r\t]*[{]", "a JSON Web Key Set as text: {\"keys\": […]}")            \
    X(PEM, 262144, "^-----BEGIN CERTIFICATE-----", "certificates in PEM, the first one at once")   \
    X(CONDITION, 4096, "^[^\r]+$", "a condition: caller.tenant == 'acme' && lane == 'operator'")   \
    X(CLOCK, 5, "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", "a time of day: 09:00, up to 24:00")    \
    X(OFFSET, 6, "^(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$", "an offset from UTC: Z, +01:00, -05:30")  \
    X(INSTANT, 20, "^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",                   \
      "a time in UTC: 2026-01-31T12:00:00Z")

enum cp_form {
    CP_FORM_NONE,
#define X(name, longest, pattern, text) CP_FORM_##name,
    CP_FORM_LIST(X)
#undef X
        CP_FORM_COUNT,
};

struct cp_form_row {
    size_t longest;
    const char *pattern;
    const char *text;
};
const struct cp_form_row *cp_form_at(enum cp_form form);

struct cp_shape;
struct cp_field;

/* The form of a reference. */
enum cp_form cp_ref_form(const struct cp_field *field);

struct cp_field {
    const char *name;
    const char *help;
    const char *dflt;    /* as it would stand in YAML; NULL: none. */
    const char *choices; /* "allow|deny". */
    const struct cp_shape *shape;
    size_t offset;
    size_t place; /* offset of a struct cp_pos for where it stands; 0: not kept. */
    uint64_t min; /* of numbers; of lists: items. */
    uint64_t max; /* of numbers; of lists and mappings: items. */
    enum cp_type type;
    enum cp_form form;
    enum cp_kind ref;
    bool required;
    bool foreign; /* a reference that may lead into another tenant. */
    bool globs;   /* a reference that may be a glob, over all whose name fits. */
    bool tenant;  /* names a tenant, which some resource must have. */
    bool flat;
};

struct cp_shape {
    const struct cp_field *fields;
    size_t field_count;
    size_t size;          /* of the struct. */
    const char *one_of;   /* "service|topic|egress": exactly one is given; NULL: no such rule. */
    const char *at_most;  /* "path|grpc": at most one is given; NULL: no such rule. */
    const char *required; /* "name|value": at least one is given; NULL: no such rule. */
};

enum cp_tenancy { CP_TENANT_NONE, CP_TENANT_OPTIONAL, CP_TENANT_REQUIRED };

struct cp_kind_row {
    const char *name;
    const char *help;
    const char *example;
    struct cp_shape spec;
    enum cp_tenancy tenancy;
};

const struct cp_kind_row *cp_kind_at(enum cp_kind kind);
/* metadata: the same for all kinds; tenancy is judged apart. */
const struct cp_shape *cp_metadata_shape(void);

/* Walks "a|b|c": start with *rest = choices; false at the end. */
bool cp_choice_next(struct slice *rest, struct slice *out);
