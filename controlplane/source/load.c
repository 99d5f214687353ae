/*
 * load: a source set to a model, in one reading order: parse, type, sort, check. What is kept of a
 * file from the load before (cache.h) stands for parsing and typing it.
 */
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "controlplane/source/cache.h"
#include "controlplane/source/check.h"
#include "controlplane/source/decode.h"
#include "controlplane/source/leaf.h"
#include "controlplane/source/source.h"
#include "controlplane/source/yaml.h"

/* Bytes of model and tree for each YAML node, well above what either takes. */
enum { BYTES_A_NODE = 512, MODEL_BYTES = 64 << 20, TREE_BLOCK = 256 << 10 };

struct loading {
    struct cp_model *model;
    struct cp_diags *diags;
    struct arena tree;    /* of the YAML of the file at hand. */
    struct cp_leaf *leaf; /* of the same. */
    size_t memory_max;
    struct cp_forms forms;
    struct cp_decode decode;
    struct cp_losses losses;
    uint64_t budget;
    size_t capacity[CP_KIND_COUNT];
    size_t loss_capacity;
};

/* Something that was to be a resource is none, or one that has no name. */
static MUST_CHECK struct err lose(struct loading *l, struct cp_loss loss)
{
    struct cp_losses *all = &l->losses;
    TRY(array_room(&all->items, all->count, &l->loss_capacity, sizeof(struct cp_loss)));
    all->items[all->count++] = loss;
    return OK;
}

/* ---- one document ---- */

#define KINDS                                                                                      \
    "Environment, Service, Route, Policy, RateLimit, TransportProfile, Egress, Topic, Revocation " \
    "or Issuer"

static const struct cp_field document_fields[] = {
    {.name = "apiVersion", .help = "trilane.dev/v1"},
    {.name = "kind", .help = KINDS},
    {.name = "metadata", .help = "a mapping with the name, and the tenant"},
    {.name = "spec", .help = "a mapping; {} takes all defaults"}};

enum { DOCUMENT_FIELDS = sizeof(document_fields) / sizeof(document_fields[0]) };

/* The name of a document's key that is nearest to a wrong one; empty: the key is right. */
static struct slice nearest_key(struct slice text)
{
    struct cp_near near = cp_near_to(text);
    for (size_t i = 0; i < DOCUMENT_FIELDS; i++) {
        if (slice_eq(text, slice_str(document_fields[i].name))) {
            return (struct slice){0};
        }
        cp_near_offer(&near, slice_str(document_fields[i].name));
    }
    return near.best;
}

static void refuse_document_key(struct loading *l, const struct cp_yaml *key)
{
    for (size_t i = 0; i < DOCUMENT_FIELDS; i++) {
        if (slice_eq(key->text, slice_str(document_fields[i].name))) {
            return;
        }
    }
    struct cp_diag *diag =
        cp_diags_add(l->diags, CP_DIAG_KEY_UNKNOWN, key->at, "key \"%.*s\" is unknown here",
                     SLICE_ARG(slice_head(key->text, 64)));
    cp_diag_expect(l->diags, diag, "apiVersion, kind, metadata and spec");
    cp_diag_nearest(l->diags, diag, nearest_key(key->text));
}

/* The value of a document's key, or of one that is near to it, which is refused; or NULL. */
static const struct cp_yaml *find_key(const struct cp_yaml *root, const char *key)
{
    const struct cp_yaml *value = cp_yaml_get(root, key);
    for (size_t i = 0; value == NULL && i < root->kid_count; i += 2) {
        if (root->kids[i]->kind == CP_YAML_SCALAR &&
            slice_eq(nearest_key(root->kids[i]->text), slice_str(key))) {
            value = root->kids[i + 1];
        }
    }
    return value;
}

/* A key that every document has, or a diagnostic. */
static const struct cp_yaml *need(struct loading *l, const struct cp_yaml *root, const char *key)
{
    const struct cp_yaml *value = find_key(root, key);
    for (size_t i = 0; value == NULL && i < DOCUMENT_FIELDS; i++) {
        if (slice_eq(slice_str(document_fields[i].name), slice_str(key))) {
            struct cp_diag *diag = cp_diags_add(l->diags, CP_DIAG_KEY_MISSING, root->at,
                                                "key \"%s\" is missing here", key);
            cp_diag_expect(l->diags, diag, "%s: %s", key, document_fields[i].help);
        }
    }
    return value;
}

static void check_api_version(struct loading *l, const struct cp_yaml *root)
{
    const struct cp_yaml *version = need(l, root, "apiVersion");
    if (version != NULL && (version->kind != CP_YAML_SCALAR ||
                            !slice_eq(version->text, SLICE_LIT("trilane.dev/v1")))) {
        char text[256];
        struct slice found = cp_yaml_describe(version, text, sizeof(text));
        struct cp_diag *diag = cp_diags_add(l->diags, CP_DIAG_API_VERSION, version->at,
                                            "found %.*s", SLICE_ARG(found));
        cp_diag_expect(l->diags, diag, "trilane.dev/v1");
    }
}

/* The kind, or the one that a wrong name is near to. False: neither. */
static bool find_kind(struct loading *l, const struct cp_yaml *root, enum cp_kind *out)
{
    const struct cp_yaml *node = need(l, root, "kind");
    if (node == NULL) {
        return false;
    }
    struct cp_near near = cp_near_to(node->text);
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        struct slice name = slice_str(cp_kind_at(kind)->name);
        cp_near_offer(&near, name);
        *out = slice_eq(near.best, name) ? kind : *out;
        if (node->kind == CP_YAML_SCALAR && slice_eq(node->text, name)) {
            return true;
        }
    }
    char text[256];
    struct slice found = cp_yaml_describe(node, text, sizeof(text));
    struct cp_diag *diag =
        cp_diags_add(l->diags, CP_DIAG_KIND_UNKNOWN, node->at, "found %.*s", SLICE_ARG(found));
    cp_diag_expect(l->diags, diag, KINDS);
    cp_diag_nearest(l->diags, diag, near.best);
    return near.best.size > 0;
}

/* Whose it is. A resource whose tenant is missing is nobody's: its tenant stays empty. */
static void check_tenancy(struct loading *l, const struct cp_kind_row *row,
                          const struct cp_yaml *metadata, struct cp_meta *meta)
{
    const struct cp_yaml *tenant = cp_yaml_get(metadata, "tenant");
    struct cp_pos at = tenant == NULL ? meta->tenant.at : tenant->at;
    bool given = at.line > 0;
    if (row->tenancy == CP_TENANT_REQUIRED && !given) {
        struct cp_diag *diag = cp_diags_add(l->diags, CP_DIAG_KEY_MISSING, metadata->at,
                                            "key \"tenant\" is missing here");
        cp_diag_expect(l->diags, diag, "tenant: each %s belongs to one", row->name);
    }
    if (row->tenancy == CP_TENANT_NONE && given) {
        (void)cp_diags_add(l->diags, CP_DIAG_KEY_UNKNOWN, at,
                           "no tenant has an %s: it is the platform's", row->name);
    }
    if ((!given && row->tenancy == CP_TENANT_OPTIONAL) || row->tenancy == CP_TENANT_NONE) {
        meta->tenant = (struct cp_text){.text = SLICE_LIT("-")};
    }
}

/* metadata: names and the ids made of them. */
static MUST_CHECK struct err decode_meta(struct loading *l, const struct cp_yaml *root,
                                         const struct cp_kind_row *row, struct cp_meta *meta)
{
    const struct cp_yaml *metadata = need(l, root, "metadata");
    if (metadata == NULL) {
        return OK;
    }
    TRY(cp_decode_shape(&l->decode, cp_metadata_shape(), metadata, metadata->at, meta));
    if (metadata->kind != CP_YAML_MAP) {
        return OK;
    }
    check_tenancy(l, row, metadata, meta);
    TRY(arena_printf(&l->leaf->arena, &meta->id, "%.*s/%.*s", SLICE_ARG(meta->tenant.text),
                     SLICE_ARG(meta->name.text)));
    meta->key = meta->id;
    return OK;
}

static MUST_CHECK struct err set_topic_key(struct loading *l, struct cp_meta *meta)
{
    const struct cp_topic *topic = (const struct cp_topic *)meta;
    meta->apart |= topic->type.text.size == 0 || topic->major == 0;
    return arena_printf(&l->leaf->arena, &meta->key, "%.*s.v%llu", SLICE_ARG(topic->type.text),
                        (unsigned long long)topic->major);
}

static MUST_CHECK struct err decode_resource(struct loading *l, const struct cp_yaml *root,
                                             enum cp_kind kind, struct cp_meta **out)
{
    const struct cp_kind_row *row = cp_kind_at(kind);
    struct cp_meta *meta = NULL;
    TRY(cp_leaf_add(l->leaf, kind, &meta));
    size_t before = cp_decode_faults(&l->decode);
    meta->at = root->at;
    TRY(decode_meta(l, root, row, meta));
    const struct cp_yaml *spec = need(l, root, "spec");
    if (spec != NULL) {
        TRY(cp_decode_shape(&l->decode, &row->spec, spec, spec->at, meta));
    }
    meta->faulty = cp_decode_faults(&l->decode) != before;
    meta->apart = meta->name.text.size == 0 || meta->tenant.text.size == 0;
    *out = meta;
    return kind == CP_KIND_TOPIC ? set_topic_key(l, meta) : OK;
}

/* Whether a document is a resource, or was meant to be one; else a diagnostic. */
static bool is_resource(struct loading *l, const struct cp_yaml *root)
{
    char text[256];
    struct slice found = SLICE_LIT("a mapping with neither apiVersion nor kind");
    if (root->kind != CP_YAML_MAP) {
        found = cp_yaml_describe(root, text, sizeof(text));
    } else if (find_key(root, "apiVersion") != NULL || find_key(root, "kind") != NULL) {
        return true;
    }
    struct cp_diag *diag =
        cp_diags_add(l->diags, CP_DIAG_NOT_RESOURCE, root->at, "found %.*s", SLICE_ARG(found));
    cp_diag_expect(l->diags, diag, "a resource: apiVersion, kind, metadata and spec");
    return false;
}

static MUST_CHECK struct err load_document(struct loading *l,
                                           const struct cp_yaml_document *document)
{
    const struct cp_yaml *root = document->root;
    struct cp_loss loss = {.kind = CP_KIND_COUNT, .text = document->text};
    if (root == NULL) {
        return lose(l, loss);
    }
    if (!is_resource(l, root)) {
        return lose(l, loss);
    }
    for (size_t i = 0; i < root->kid_count; i += 2) {
        if (root->kids[i]->kind == CP_YAML_SCALAR) {
            refuse_document_key(l, root->kids[i]);
        }
    }
    check_api_version(l, root);
    enum cp_kind kind = CP_KIND_COUNT;
    if (!find_kind(l, root, &kind)) {
        loss.kindless = true;
        return lose(l, loss);
    }
    struct cp_meta *meta = NULL;
    TRY(decode_resource(l, root, kind, &meta));
    if (root->doubtful) { /* the second of two keys may be another resource */
        return lose(l, loss);
    }
    loss.kind = kind;
    loss.nameless = kind == CP_KIND_TOPIC ? ((const struct cp_topic *)meta)->type.text.size == 0
                                          : meta->name.text.size == 0;
    loss.tenant = kind == CP_KIND_TOPIC ? (struct slice){0} : meta->tenant.text;
    return meta->apart ? lose(l, loss) : OK;
}

/* ---- one file ---- */

/* A private key anywhere, in a comment too: comments are stored and shown like the rest. */
static void refuse_keys(struct loading *l, uint32_t file)
{
    static const char mark[] = "PRIVATE KEY-----";
    struct slice bytes = l->diags->set->files[file].bytes;
    uint32_t line = 1;
    while (bytes.size > 0) {
        size_t end = slice_find(bytes, '\n');
        if (end >= sizeof(mark) - 1 && memmem(bytes.ptr, end, mark, sizeof(mark) - 1) != NULL) {
            struct cp_diag *diag =
                cp_diags_add(l->diags, CP_DIAG_SECRET_IN_CLEAR, (struct cp_pos){file, line, 1},
                             "a private key in clear");
            cp_diag_expect(l->diags, diag, "a reference to where the key is kept");
            cp_diag_mask(l->diags, diag);
        }
        bytes = slice_from(bytes, end + 1);
        line++;
    }
}

/* Parses and types a file into the leaf at hand. */
static MUST_CHECK struct err decode_file(struct loading *l, uint32_t file)
{
    size_t faults = cp_decode_faults(&l->decode);
    size_t losses = l->losses.count;
    uint64_t budget = l->budget;
    refuse_keys(l, file);
    struct cp_yaml_documents documents = {0};
    arena_reset(&l->tree);
    TRY(cp_yaml_parse(l->diags, file, &l->tree, &l->budget, &documents));
    for (size_t i = 0; i < documents.count; i++) {
        TRY(load_document(l, &documents.items[i]));
    }
    l->leaf->nodes = budget - l->budget;
    l->leaf->clean = cp_decode_faults(&l->decode) == faults && l->losses.count == losses;
    return OK;
}

/* Gives a leaf and its resources to the model. */
static MUST_CHECK struct err add_leaf(struct loading *l, struct cp_leaf *leaf)
{
    struct cp_model *model = l->model;
    TRY(array_room(&model->leaves, model->leaf_count, &model->leaf_capacity,
                   sizeof(struct cp_leaf *)));
    model->leaves[model->leaf_count++] = leaf;
    return OK;
}

static MUST_CHECK struct err load_file(struct loading *l, uint32_t file)
{
    struct cp_source_cache *cache = l->model->cache;
    const struct cp_source_file *source = &l->diags->set->files[file];
    if (!cp_source_is_yaml(source->name)) {
        return OK;
    }
    l->leaf = cache == NULL ? NULL : cp_source_cache_take(cache, source->bytes, file, l->budget);
    if (l->leaf != NULL) {
        l->budget -= l->leaf->nodes;
        return add_leaf(l, l->leaf);
    }
    TRY(cp_leaf_new(file, l->memory_max, &l->leaf));
    struct err e = add_leaf(l, l->leaf);
    if (!err_ok(e)) {
        cp_leaf_free(l->leaf);
        return e;
    }
    l->decode.arena = &l->leaf->arena;
    TRY(decode_file(l, file));
    return cache != NULL && l->leaf->clean ? cp_source_cache_keep(cache, l->leaf, source->bytes)
                                           : OK;
}

/* ---- all of them ---- */

static int place_cmp(struct cp_pos a, struct cp_pos b)
{
    int order = (a.file > b.file) - (a.file < b.file);
    return order != 0 ? order : (a.line > b.line) - (a.line < b.line);
}

static int meta_cmp(const void *x, const void *y)
{
    const struct cp_meta *a = *(const struct cp_meta *const *)x;
    const struct cp_meta *b = *(const struct cp_meta *const *)y;
    int order = slice_cmp(a->id, b->id);
    return order != 0 ? order : place_cmp(a->at, b->at);
}

/* The resources of all leaves, by kind, then in order of ids. */
static MUST_CHECK struct err sort_resources(struct cp_model *model)
{
    size_t counts[CP_KIND_COUNT] = {0};
    for (size_t i = 0; i < model->leaf_count; i++) {
        for (size_t k = 0; k < model->leaves[i]->count; k++) {
            counts[model->leaves[i]->resources[k]->kind]++;
        }
    }
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        TRY(arena_calloc(&model->arena, counts[kind] + 1, sizeof(struct cp_meta *),
                         (void **)&model->of[kind].items));
    }
    for (size_t i = 0; i < model->leaf_count; i++) {
        for (size_t k = 0; k < model->leaves[i]->count; k++) {
            struct cp_meta *meta = model->leaves[i]->resources[k];
            struct cp_resources *all = &model->of[meta->kind];
            all->items[all->count++] = meta;
        }
    }
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        struct cp_resources *all = &model->of[kind];
        qsort(all->items, all->count, sizeof(struct cp_meta *), meta_cmp);
    }
    return OK;
}

/* Nothing is wrong with any of it: what each leaf says for itself need not be judged again. */
static void prove(struct cp_model *model)
{
    for (size_t i = 0; i < model->leaf_count; i++) {
        for (size_t k = 0; k < model->leaves[i]->count; k++) {
            model->leaves[i]->resources[k]->proven = true;
        }
    }
}

/* What could not be read at all, of which nothing is known. */
static MUST_CHECK struct err load_unread(struct loading *l)
{
    const struct cp_source_set *set = l->model->set;
    cp_source_unread(set, l->diags);
    for (size_t i = 0; i < set->unread_count; i++) {
        if (!cp_source_is_data(set->unread[i].name)) {
            TRY(lose(l, (struct cp_loss){.kind = CP_KIND_COUNT}));
        }
    }
    return OK;
}

static MUST_CHECK struct err load_all(struct loading *l)
{
    TRY(load_unread(l));
    for (size_t i = 0; i < l->model->set->count; i++) {
        TRY(load_file(l, (uint32_t)i));
    }
    TRY(sort_resources(l->model));
    TRY(cp_check_model(l->model, l->diags, &l->losses));
    if (l->diags->count + l->diags->dropped + l->diags->passed_over == 0) {
        prove(l->model);
    }
    return OK;
}

static struct err load(struct loading *l)
{
    TRY(cp_forms_init(&l->forms));
    l->decode = (struct cp_decode){.diags = l->diags, .forms = &l->forms};
    struct err e = load_all(l);
    cp_forms_free(&l->forms);
    return e;
}

struct err cp_source_load(const struct cp_source_set *set, struct cp_diags *diags,
                          struct cp_source_cache *cache, struct cp_model **out)
{
    CHECK(diags->set == set);
    struct cp_model *model = calloc(1, sizeof(struct cp_model));
    if (model == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    model->set = set;
    model->cache = cache;
    if (cache != NULL) {
        cp_source_cache_begin(cache);
    }
    size_t bound =
        (size_t)(MODEL_BYTES + limits.source_nodes * BYTES_A_NODE + 4 * limits.source_total_bytes);
    arena_init(&model->arena, 256 << 10, bound);
    struct loading l = {
        .model = model, .diags = diags, .budget = limits.source_nodes, .memory_max = bound};
    arena_init(&l.tree, TREE_BLOCK, bound);
    struct err e = load(&l);
    arena_free(&l.tree);
    free(l.losses.items);
    if (!err_ok(e)) {
        cp_model_free(model);
        return e;
    }
    *out = model;
    return OK;
}

void cp_model_free(struct cp_model *model)
{
    if (model == NULL) {
        return;
    }
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        map_free(&model->keys[kind]);
    }
    size_t kept = 0;
    for (size_t i = 0; i < model->leaf_count; i++) {
        if (model->leaves[i]->serial > 0) {
            model->leaves[kept++] = model->leaves[i];
        } else {
            cp_leaf_free(model->leaves[i]);
        }
    }
    if (model->cache != NULL) {
        cp_source_cache_end(model->cache, model->leaves, kept);
    }
    free(model->leaves);
    arena_free(&model->arena);
    free(model);
}
