/*
 * compiler: what the files of this room share while one model is compiled.
 *
 * Shape      each cp_compile_<part>() reads the model and emits parts; none reads what another
 *            emitted. Their order is in compile.c. Of a model with errors the parts are thrown
 *            away: what is faulty is left out of them, and of every judgement that it could turn.
 * Ownership  all memory comes from the arena of the cp_compiled that is being made.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY; what is wrong with the model is a diagnostic.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/refs.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "controlplane/compile/compile.h"
#include "controlplane/compile/reuse.h"
#include "controlplane/source/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* One thing that people name, for differences. */
struct cp_item {
    struct slice kind;   /* "Service", "rule". */
    struct slice id;     /* "acme/web". */
    struct slice target; /* what it reaches; may be empty. */
    struct slice note;   /* "allows call for acme/web"; may be empty. */
    bool monotone;       /* it only tightens: taking it away loosens. */
    struct cp_item_field *fields;
    size_t field_count;
};

/* What a revoked identity, certificate, token or type is called in differences. */
#define CP_ITEM_REVOCATION SLICE_LIT("revocation")

struct cp_item_field {
    struct slice name;
    struct slice shown;               /* its value in a few words; empty: it has none. */
    uint8_t print[DIGEST_SHORT_SIZE]; /* the same for the same value, and for no other. */
};

/* The items of one file: the same for all compiled platforms that were made from the same leaf. */
struct cp_inventory {
    struct refs refs;
    struct arena arena; /* owns what items say. */
    struct cp_item *items;
    size_t count;
    size_t capacity;
};

/* An empty one, with one reference, the caller's. */
MUST_CHECK struct err cp_inventory_new(struct cp_inventory **out);
void cp_inventory_unref(struct cp_inventory *inventory); /* NULL is fine. */

/* An authorisation part that was made before. */
struct cp_kept_part {
    uint64_t capabilities; /* that it needs. */
    size_t size;
    uint8_t bytes[];
};

struct cp_compiled {
    struct arena arena;
    struct slice environment;
    bool strict;
    uint64_t capabilities;
    struct cp_part *parts; /* owned; keys and bytes are in the arena. */
    size_t part_count;
    size_t part_capacity;
    bool has_inventory;
    struct cp_inventory **inventories; /* one a file, references; in the arena. */
    size_t inventory_count;
    struct cp_inventory *revocations; /* of all files, each once; NULL without an inventory. */
};

struct cp_compiler {
    const struct cp_model *model;
    struct cp_diags *diags;
    struct cp_reuse *reuse; /* NULL: none. */
    bool inventory;         /* is made, too. */
    struct arena *arena;
    struct cp_compiled *out;
};

/* Adds a part; 'at' is blamed when it is larger than a snapshot takes. */
MUST_CHECK struct err cp_emit(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                              const ProtobufCMessage *message, struct cp_pos at);

/* The same for a part that SNAPSHOT_FORMAT_LEAST says in another way. */
MUST_CHECK struct err cp_emit_both(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                                   const ProtobufCMessage *message, const ProtobufCMessage *former,
                                   struct cp_pos at);

/* Adds a part whose bytes are made already, and are the same in both formats. */
MUST_CHECK struct err cp_emit_bytes(struct cp_compiler *c, enum cp_part_kind kind, struct slice key,
                                    struct slice bytes);

/* Adds a part whose bytes are in the arena of 'compiled' already; the key is copied. */
MUST_CHECK struct err cp_compiled_add(struct cp_compiled *compiled, struct cp_part part);

/* Brings parts into their order. */
void cp_compiled_sort(struct cp_compiled *compiled);

/* The content uses what not every node may be able to do. */
static inline void cp_needs(struct cp_compiler *c, enum snap_capability capability, bool used)
{
    c->out->capabilities |= used ? (uint64_t)capability : 0;
}

/* A text of the model as protobuf-c wants it; every one has a NUL behind it. */
static inline char *cp_str(struct slice text)
{
    return proto_text(text.size == 0 ? "" : (const char *)text.ptr);
}

/* "service/acme/orders", "topic/Greeting.v1", "egress/acme/outside". */
MUST_CHECK struct err cp_target_id(struct arena *arena, const struct cp_meta *target,
                                   struct slice *out);
/* The resource that a policy or limit is about; NULL: it names none that exists, which is an error,
 * or is a glob. */
const struct cp_meta *cp_target_of(const struct cp_target *target);
/* Whether a policy is about a resource: by its name, or since its glob fits. */
bool cp_policy_is_about(const struct cp_policy *policy, const struct cp_meta *target);
/* As cp_target_id() of what a policy is about; of a glob "service/acme/orders-*", in a policy of
 * the platform "service/orders-*". */
MUST_CHECK struct err cp_policy_target_id(struct arena *arena, const struct cp_policy *policy,
                                          struct slice *out);

/* Whether nothing is wrong with a resource, so that it can be compiled. */
static inline bool cp_is_whole(const struct cp_meta *meta)
{
    return !meta->faulty && !meta->apart;
}

/* Id of the profile that a reference names; empty for none. */
static inline char *cp_transport_id(const struct cp_ref *ref)
{
    return cp_str(ref->to == NULL ? (struct slice){0} : ref->to->id);
}

/* Versions of TLS as a part says them, of the choices of a profile: 0 when none was taken away. */
static inline uint32_t cp_tls_least(uint64_t choice)
{
    return choice == 1 ? 3 : 0;
}
static inline uint32_t cp_tls_most(uint64_t choice)
{
    return choice == 1 ? 2 : 0;
}

/* Texts as protobuf-c wants a repeated string. */
MUST_CHECK struct err cp_strings(struct cp_compiler *c, const struct cp_texts *texts,
                                 size_t *out_count, char ***out);

/* What a service says of its endpoints beside their addresses, into the part of its cluster. */
MUST_CHECK struct err cp_pack_balancing(struct cp_compiler *c, const struct cp_service *service,
                                        Trilane__Parts__V1__Cluster *part);
/* A service's retries and hedging, into its cluster: methods.c. */
MUST_CHECK struct err cp_pack_methods(struct cp_compiler *c, const struct cp_service *service,
                                      Trilane__Parts__V1__Cluster *cluster);

MUST_CHECK struct err cp_compile_routing(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_trust(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_issuers(struct cp_compiler *c); /* called by cp_compile_trust(). */
MUST_CHECK struct err cp_compile_revocations(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_authorisation(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_limits(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_transport(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_egress(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_schemas(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_descriptors(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_bus(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_positions(struct cp_compiler *c);
MUST_CHECK struct err cp_compile_inventory(struct cp_compiler *c);
