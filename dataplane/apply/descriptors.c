/* descriptors: the part of a service's descriptors. Its files are lent as they are: only whoever
 * asks by grpc.reflection reads them. */
#include "dataplane/apply/decode.h"
#include "dataplane/apply/part.h"

static struct err decode_file(const Trilane__Parts__V1__DescriptorFile *m, struct arena *arena,
                              struct dp_descriptor_file *out)
{
    struct slice *imports = NULL;
    struct slice *symbols = NULL;
    TRY(dp_decode_strings(arena, m->imports, m->n_imports, &imports));
    TRY(dp_decode_strings(arena, m->symbols, m->n_symbols, &symbols));
    *out = (struct dp_descriptor_file){.name = slice_str(m->name),
                                       .bytes = slice_of(m->proto.data, m->proto.len),
                                       .imports = imports,
                                       .import_count = m->n_imports,
                                       .symbols = symbols,
                                       .symbol_count = m->n_symbols};
    return m->name[0] == '\0' ? FAIL(E_PART_MALFORMED) : OK;
}

static bool has_file(const struct dp_descriptors *d, struct slice name)
{
    size_t low = 0;
    size_t high = d->file_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_cmp(d->files[middle].name, name);
        if (order == 0) {
            return true;
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return false;
}

/* In order, and each import among them: whoever walks imports then needs no judgement. */
static struct err judge_files(const struct dp_descriptors *d)
{
    for (size_t i = 1; i < d->file_count; i++) {
        if (slice_cmp(d->files[i - 1].name, d->files[i].name) >= 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    for (size_t i = 0; i < d->file_count; i++) {
        for (size_t k = 0; k < d->files[i].import_count; k++) {
            if (!has_file(d, d->files[i].imports[k])) {
                return FAIL(E_PART_MALFORMED);
            }
        }
    }
    return OK;
}

struct err dp_part_decode_descriptors(struct dp_part *part,
                                      const struct dp_environment *environment)
{
    (void)environment;
    const Trilane__Parts__V1__ServiceDescriptors *m = (const void *)part->message;
    struct dp_descriptor_file *files = NULL;
    struct slice *methods = NULL;
    struct slice *streams = NULL;
    if (!slice_eq(part->key, slice_str(m->service))) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(arena_calloc(&part->arena, m->n_files, sizeof(*files), (void **)&files));
    for (size_t i = 0; i < m->n_files; i++) {
        TRY(decode_file(m->files[i], &part->arena, &files[i]));
    }
    TRY(dp_decode_strings(&part->arena, m->methods, m->n_methods, &methods));
    TRY(dp_decode_strings(&part->arena, m->streams, m->n_streams, &streams));
    part->as.descriptors = (struct dp_descriptors){.cluster = part->key,
                                                   .files = files,
                                                   .file_count = m->n_files,
                                                   .methods = methods,
                                                   .method_count = m->n_methods,
                                                   .streams = streams,
                                                   .stream_count = m->n_streams};
    return judge_files(&part->as.descriptors);
}
