/*
 * describe: the table of kinds as JSON Schemas and as docs/resources.md. See source.h.
 */
#include <jansson.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/source/decode_scalar.h"
#include "controlplane/source/kinds.h"
#include "controlplane/source/source.h"

/* ---- JSON Schema, draft 2020-12 ---- */

static json_t *shape_schema(const struct cp_shape *shape);

static void set(json_t *object, const char *name, json_t *value)
{
    (void)json_object_set_new(object, name, value);
}

static json_t *pattern_schema(const char *pattern)
{
    json_t *schema = json_object();
    set(schema, "type", json_string("string"));
    set(schema, "pattern", json_string(pattern));
    return schema;
}

static json_t *form_schema(enum cp_form form)
{
    const struct cp_form_row *row = cp_form_at(form);
    json_t *schema = pattern_schema(row->pattern);
    set(schema, "maxLength", json_integer((json_int_t)row->longest));
    return schema;
}

static json_t *choice_schema(const char *choices)
{
    json_t *schema = json_object();
    json_t *names = json_array();
    struct slice rest = slice_str(choices);
    struct slice choice = {0};
    while (cp_choice_next(&rest, &choice)) {
        (void)json_array_append_new(names, json_stringn((const char *)choice.ptr, choice.size));
    }
    set(schema, "enum", names);
    return schema;
}

static json_t *count_schema(uint64_t min, uint64_t max)
{
    json_t *schema = json_object();
    set(schema, "type", json_string("integer"));
    set(schema, "minimum", json_integer((json_int_t)min));
    set(schema, "maximum", json_integer((json_int_t)max));
    return schema;
}

static json_t *list_schema(const struct cp_field *field, json_t *items)
{
    json_t *schema = json_object();
    set(schema, "type", json_string("array"));
    set(schema, "items", items);
    if (field->min > 0) {
        set(schema, "minItems", json_integer((json_int_t)field->min));
    }
    if (field->max > 0) {
        set(schema, "maxItems", json_integer((json_int_t)field->max));
    }
    if (field->type != CP_TYPE_OBJECTS) {
        set(schema, "uniqueItems", json_true());
    }
    return schema;
}

static json_t *pairs_schema(const struct cp_field *field)
{
    json_t *schema = json_object();
    set(schema, "type", json_string("object"));
    set(schema, "propertyNames", form_schema(CP_FORM_KEY));
    set(schema, "additionalProperties", form_schema(field->form));
    if (field->min > 0) {
        set(schema, "minProperties", json_integer((json_int_t)field->min));
    }
    set(schema, "maxProperties", json_integer((json_int_t)field->max));
    return schema;
}

static json_t *true_schema(void)
{
    json_t *schema = json_object();
    set(schema, "const", json_true());
    return schema;
}

static json_t *type_schema(const struct cp_field *field)
{
    switch (field->type) {
    case CP_TYPE_TEXT:
        return form_schema(field->form);
    case CP_TYPE_TEXTS:
        return list_schema(field, form_schema(field->form));
    case CP_TYPE_PORTS:
        return list_schema(field, count_schema(1, 65535));
    case CP_TYPE_COUNT:
        return count_schema(field->min, field->max);
    case CP_TYPE_BOOL:
        return true_schema();
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA:
        return pattern_schema(cp_unit_pattern(field->type));
    case CP_TYPE_CHOICE:
        return choice_schema(field->choices);
    case CP_TYPE_FLAGS:
        return list_schema(field, choice_schema(field->choices));
    case CP_TYPE_REF:
        return form_schema(cp_ref_form(field));
    case CP_TYPE_PAIRS:
        return pairs_schema(field);
    case CP_TYPE_OBJECT:
        return shape_schema(field->shape);
    case CP_TYPE_OBJECTS:
        return list_schema(field, shape_schema(field->shape));
    }
    return NULL;
}

static json_t *default_json(const struct cp_field *field)
{
    json_t *value = field->type == CP_TYPE_COUNT
                        ? json_integer((json_int_t)strtoll(field->dflt, NULL, 10))
                        : json_string(field->dflt);
    if (field->type != CP_TYPE_TEXTS) {
        return value;
    }
    json_t *list = json_array();
    (void)json_array_append_new(list, value);
    return list;
}

/* One alternative for each of "a|b": it is there. */
static json_t *alternatives(const char *names)
{
    json_t *list = json_array();
    struct slice rest = slice_str(names);
    struct slice name = {0};
    while (cp_choice_next(&rest, &name)) {
        json_t *required = json_array();
        (void)json_array_append_new(required, json_stringn((const char *)name.ptr, name.size));
        json_t *alternative = json_object();
        set(alternative, "required", required);
        (void)json_array_append_new(list, alternative);
    }
    return list;
}

static void set_choice(json_t *schema, const struct cp_shape *shape)
{
    if (shape->one_of != NULL) {
        set(schema, "oneOf", alternatives(shape->one_of));
    }
    if (shape->required != NULL) {
        set(schema, "anyOf", alternatives(shape->required));
    }
    if (shape->at_most != NULL) {
        /* Of two keys: not both. */
        json_t *names = json_array();
        struct slice rest = slice_str(shape->at_most);
        struct slice name = {0};
        while (cp_choice_next(&rest, &name)) {
            (void)json_array_append_new(names, json_stringn((const char *)name.ptr, name.size));
        }
        CHECK(json_array_size(names) == 2);
        json_t *both = json_object();
        set(both, "required", names);
        set(schema, "not", both);
    }
}

static json_t *shape_schema(const struct cp_shape *shape)
{
    json_t *schema = json_object();
    json_t *properties = json_object();
    json_t *required = json_array();
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        json_t *property = type_schema(field);
        set(property, "description", json_string(field->help));
        if (field->dflt != NULL) {
            set(property, "default", default_json(field));
        }
        set(properties, field->name, property);
        if (field->required) {
            (void)json_array_append_new(required, json_string(field->name));
        }
    }
    set(schema, "type", json_string("object"));
    set(schema, "additionalProperties", json_false());
    set(schema, "properties", properties);
    if (json_array_size(required) > 0) {
        set(schema, "required", json_incref(required));
    }
    json_decref(required);
    set_choice(schema, shape);
    return schema;
}

static json_t *metadata_schema(const struct cp_kind_row *row)
{
    json_t *schema = shape_schema(cp_metadata_shape());
    if (row->tenancy == CP_TENANT_NONE) {
        (void)json_object_del(json_object_get(schema, "properties"), "tenant");
    }
    if (row->tenancy == CP_TENANT_REQUIRED) {
        (void)json_array_append_new(json_object_get(schema, "required"), json_string("tenant"));
    }
    return schema;
}

static json_t *const_schema(const char *text)
{
    json_t *schema = json_object();
    set(schema, "const", json_string(text));
    return schema;
}

static json_t *kind_schema(const struct cp_kind_row *row)
{
    json_t *schema = json_object();
    json_t *properties = json_object();
    json_t *required = json_array();
    set(schema, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
    set(schema, "title", json_string(row->name));
    set(schema, "description", json_string(row->help));
    set(schema, "type", json_string("object"));
    set(schema, "additionalProperties", json_false());
    set(properties, "apiVersion", const_schema("trilane.dev/v1"));
    set(properties, "kind", const_schema(row->name));
    set(properties, "metadata", metadata_schema(row));
    set(properties, "spec", shape_schema(&row->spec));
    static const char *const all[] = {"apiVersion", "kind", "metadata", "spec"};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        (void)json_array_append_new(required, json_string(all[i]));
    }
    set(schema, "required", required);
    set(schema, "properties", properties);
    return schema;
}

const char *cp_source_kind(size_t index)
{
    return index < CP_KIND_COUNT ? cp_kind_at((enum cp_kind)index)->name : NULL;
}

struct err cp_source_schema(const char *kind, struct buf *out)
{
    for (enum cp_kind k = 0; k < CP_KIND_COUNT; k++) {
        const struct cp_kind_row *row = cp_kind_at(k);
        if (!slice_eq(slice_str(row->name), slice_str(kind))) {
            continue;
        }
        json_t *schema = kind_schema(row);
        auto_free char *text = json_dumps(schema, JSON_INDENT(2) | JSON_SORT_KEYS);
        json_decref(schema);
        if (text == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        TRY(buf_add_str(out, text));
        return buf_add_byte(out, '\n');
    }
    return FAIL(E_NOT_FOUND);
}

/* ---- docs/resources.md ---- */

static MUST_CHECK struct err add_choices(struct buf *out, const char *choices)
{
    struct slice rest = slice_str(choices);
    struct slice choice = {0};
    for (const char *comma = ""; cp_choice_next(&rest, &choice); comma = ", ") {
        TRY(buf_addf(out, "%s`%.*s`", comma, SLICE_ARG(choice)));
    }
    return OK;
}

/* What a value is, in a few words. */
static MUST_CHECK struct err add_type(struct buf *out, const struct cp_field *field)
{
    switch (field->type) {
    case CP_TYPE_TEXT:
        return buf_add_str(out, cp_form_at(field->form)->text);
    case CP_TYPE_TEXTS:
        return buf_addf(out, "list: %s", cp_form_at(field->form)->text);
    case CP_TYPE_PORTS:
        return buf_add_str(out, "list: a port, 1 to 65535");
    case CP_TYPE_COUNT:
        return buf_add_str(out, "a number");
    case CP_TYPE_BOOL:
        return buf_add_str(out, "true");
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_QUOTA:
        return buf_add_str(out, cp_unit_text(field->type));
    case CP_TYPE_CHOICE:
    case CP_TYPE_FLAGS:
        TRY(buf_add_str(out, field->type == CP_TYPE_FLAGS ? "list: " : ""));
        return add_choices(out, field->choices);
    case CP_TYPE_REF:
        return buf_addf(out, "reference to a %s%s%s", cp_kind_at(field->ref)->name,
                        field->ref == CP_KIND_TOPIC ? ", by type" : "",
                        field->globs ? ", or a glob" : "");
    case CP_TYPE_PAIRS:
        return buf_add_str(out, "mapping of keys to text");
    case CP_TYPE_OBJECT:
        return buf_add_str(out, "mapping");
    case CP_TYPE_OBJECTS:
        return buf_add_str(out, "list of mappings");
    }
    return OK;
}

static MUST_CHECK struct err add_bound(struct buf *out, const struct cp_field *field)
{
    bool number = field->type == CP_TYPE_COUNT || field->type == CP_TYPE_DURATION ||
                  field->type == CP_TYPE_SIZE;
    bool list = field->type == CP_TYPE_TEXTS || field->type == CP_TYPE_PORTS ||
                field->type == CP_TYPE_OBJECTS || field->type == CP_TYPE_PAIRS;
    if (field->type == CP_TYPE_TEXT) {
        return buf_addf(out, "%zu bytes", cp_form_at(field->form)->longest);
    }
    if (list) {
        return buf_addf(out, "%llu to %llu items", (unsigned long long)field->min,
                        (unsigned long long)field->max);
    }
    if (!number) {
        return OK;
    }
    TRY(cp_number_text(out, field->type, field->min));
    TRY(buf_add_str(out, " to "));
    return cp_number_text(out, field->type, field->max);
}

static MUST_CHECK struct err add_rows(struct buf *out, const struct cp_shape *shape,
                                      const char *front);

/* A table's cells are split by '|', so a text that holds one is escaped. */
static MUST_CHECK struct err add_cell(struct buf *out, struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        TRY(text.ptr[i] == '|' ? buf_add_str(out, "\\|") : buf_add_byte(out, text.ptr[i]));
    }
    return OK;
}

static MUST_CHECK struct err add_row(struct buf *out, const struct cp_field *field,
                                     const char *front)
{
    auto_buf struct buf type = BUF_MAX(1024);
    TRY(add_type(&type, field));
    TRY(buf_addf(out, "| `%s%s` | ", front, field->name));
    TRY(add_cell(out, buf_slice(&type)));
    TRY(field->dflt != NULL ? buf_addf(out, " | `%s` | ", field->dflt)
                            : buf_addf(out, " | %s | ", field->required ? "required" : ""));
    TRY(add_bound(out, field));
    TRY(buf_addf(out, " | %s |\n", field->help));
    if (field->shape == NULL) {
        return OK;
    }
    auto_buf struct buf deeper = BUF_MAX(1024);
    const char *path = NULL;
    TRY(buf_addf(&deeper, "%s%s%s.", front, field->name,
                 field->type == CP_TYPE_OBJECTS ? "[]" : ""));
    TRY(buf_cstr(&deeper, &path));
    return add_rows(out, field->shape, path);
}

/* Rows of a shape and of what it holds. Recursion follows the table, which does not recur. */
static struct err add_rows(struct buf *out, const struct cp_shape *shape, const char *front)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        TRY(add_row(out, &shape->fields[i], front));
    }
    return OK;
}

static const char intro[] =
    "# Resources\n"
    "\n"
    "This page is made from the table in `controlplane/source/kinds.c`, which also drives the\n"
    "loader, its defaults and the JSON Schemas in `policies/schema/`. To make it anew:\n"
    "`build/dev/trilane-describe .`\n"
    "\n"
    "Resources are YAML documents, many to a file:\n"
    "\n"
    "```yaml\n"
    "apiVersion: trilane.dev/v1\n"
    "kind: Service\n"
    "metadata: {name: orders, tenant: acme}\n"
    "spec: {…}\n"
    "```\n"
    "\n"
    "A key that is not listed here is an error, as is a value of another type: text that YAML\n"
    "would read as a number or a truth value needs quotes. Numbers with a unit are written with it:\n"
    "`250ms`, `64KiB`, `100/s`. A reference is a name of the same tenant (or, where there is none,\n"
    "of the platform), or `tenant/name`. Aliases and anchors are taken, tags and merge keys are not.\n"
    "Secrets do not belong into sources: tokens stand there as digests, credentials as references.\n"
    "\n"
    "## Match precedence\n"
    "\n"
    "Of the routes that fit a request the most precise one is taken:\n"
    "\n"
    "1. host: exact, then the longest wildcard (`*.example.com`), then any (`*`);\n"
    "2. path: exact, then the longest prefix of whole segments, then any;\n"
    "3. HTTP method: named, then any;\n"
    "4. headers: more of them first;\n"
    "5. tenants: named, then any;\n"
    "6. a Route, then what a Service says of its own gRPC services.\n"
    "\n"
    "Two routes that are equal in all of this and may fit one request are an error (TL1204) that\n"
    "names both. A Service's own gRPC services are reached by callers of its tenant without a Route;\n"
    "callers of another tenant need one. A Route of the same tenant or of the platform for a whole\n"
    "gRPC service on any host takes the place of what the Service says.\n"
    "\n"
    "## Policy combination\n"
    "\n"
    "All rules about one target are judged together, from whichever policy they come. A rule fits\n"
    "when its verbs, callers, methods, lanes and headers all fit; within a list one is enough, but\n"
    "headers and traits must all fit. **Deny wins over allow, and what no rule allows is denied.**\n"
    "Of several rules with the winning effect the one with the smallest id decides; its id,\n"
    "`tenant/policy/rule` (`-` for the platform), is in the denial and in the log. A policy of a\n"
    "tenant is about that tenant's services, egresses and topics; on a topic of the platform its\n"
    "rules speak of callers of its own tenant alone.\n"
    "\n"
    "`methods` is `/package.Service/Method` for `call`, the HTTP method for `fetch`, the type\n"
    "(`Greeting.v1`) for `publish` and `subscribe`. In a glob `*` is any run of characters and `?`\n"
    "one.\n";

static MUST_CHECK struct err add_choice(struct buf *out, const struct cp_kind_row *row)
{
    static const char *const tenancy[] = {
        [CP_TENANT_NONE] = "It is the platform's: `metadata.tenant` is not taken.",
        [CP_TENANT_OPTIONAL] = "Without `metadata.tenant` it is the platform's.",
        [CP_TENANT_REQUIRED] = "`metadata.tenant` is required.",
    };
    return buf_addf(out, "\n## %s\n\n%s %s\n\n", row->name, row->help, tenancy[row->tenancy]);
}

/* The example, indented below "spec:". */
static MUST_CHECK struct err add_example(struct buf *out, const struct cp_kind_row *row)
{
    bool tenant = row->tenancy != CP_TENANT_NONE;
    TRY(buf_addf(out,
                 "```yaml\napiVersion: trilane.dev/v1\nkind: %s\n"
                 "metadata: {name: example%s}\nspec:\n",
                 row->name, tenant ? ", tenant: acme" : ""));
    struct slice rest = slice_str(row->example);
    while (rest.size > 0) {
        size_t end = slice_find(rest, '\n');
        TRY(buf_addf(out, "  %.*s\n", SLICE_ARG(slice_head(rest, end))));
        rest = slice_from(rest, end + 1);
    }
    return buf_add_str(out, "```\n\n");
}

static MUST_CHECK struct err add_kind(struct buf *out, const struct cp_kind_row *row)
{
    TRY(add_choice(out, row));
    TRY(add_example(out, row));
    TRY(buf_add_str(out, "| field | type | default | bound | meaning |\n"
                         "| --- | --- | --- | --- | --- |\n"));
    return add_rows(out, &row->spec, "");
}

static MUST_CHECK struct err add_codes(struct buf *out)
{
    TRY(buf_add_str(out, "\n## Diagnostics\n\n"
                         "`trilane-cp help CODE` prints one of these. Numbers are never used "
                         "again.\n\n| code | meaning | what to do |\n| --- | --- | --- |\n"));
    struct cp_diag_row row;
    for (size_t i = 0; cp_diag_at(i, &row); i++) {
        TRY(buf_addf(out, "| TL%d | %s | %s |\n", (int)row.code, row.text, row.fix));
    }
    return OK;
}

struct err cp_source_reference(struct buf *out)
{
    TRY(buf_add_str(out, intro));
    TRY(buf_add_str(out, "\n## metadata\n\n| field | type | default | bound | meaning |\n"
                         "| --- | --- | --- | --- | --- |\n"));
    TRY(add_rows(out, cp_metadata_shape(), ""));
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        TRY(add_kind(out, cp_kind_at(kind)));
    }
    return add_codes(out);
}
