/* Roots: what one must hold to be one, and the step from each to the next. */
#include "common/snapshot/root.h"

#include <string.h>

#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/proto/strict.h"

#include "trilane/snapshot/v1/snapshot.pb-c.h"

/* A time beyond this is a mistake, and sums with it could overflow. */
#define TIME_MAX_MS (INT64_MAX / 4)

struct err root_add_key(struct root *r, const struct key_public *key, int64_t not_after_ms)
{
    struct ring_key added = {.role = key->role, .not_after_ms = not_after_ms};
    memcpy(added.public, key->bytes, sizeof(added.public));
    memcpy(added.name, key->name, sizeof(added.name));
    key_id(key->bytes, added.id);
    uint32_t in_role = 0;
    uint32_t at = 0; /* behind the last key of this role or one before it. */
    for (uint32_t i = 0; i < r->ring.count; i++) {
        const struct ring_key *other = &r->ring.keys[i];
        if (memcmp(other->id, added.id, KEY_ID_SIZE) == 0) {
            return FAIL(E_USAGE);
        }
        in_role += other->role == key->role ? 1 : 0;
        at = other->role <= key->role ? i + 1 : at;
    }
    bool timed = not_after_ms != 0;
    if (key->role >= ROOT_ROLE_COUNT || in_role == ROLE_KEYS_MAX || not_after_ms < 0 ||
        not_after_ms > TIME_MAX_MS || (timed && key->role != KEY_ROLE_HEAD) ||
        !text_is_name(slice_str(key->name))) {
        return FAIL(E_USAGE);
    }
    struct ring_key *keys = r->ring.keys;
    memmove(keys + at + 1, keys + at, (r->ring.count - at) * sizeof(*keys));
    keys[at] = added;
    r->ring.count++;
    return OK;
}

/* What is asked of the whole, after the keys were added one by one. */
static bool root_holds(const struct root *r)
{
    uint32_t counts[ROOT_ROLE_COUNT] = {0};
    for (uint32_t i = 0; i < r->ring.count; i++) {
        counts[r->ring.keys[i].role]++;
    }
    for (size_t role = 0; role < ROOT_ROLE_COUNT; role++) {
        if (r->ring.thresholds[role] < 1 || r->ring.thresholds[role] > counts[role]) {
            return false;
        }
    }
    /* A head carries one signature, so that no more than one can be asked for. */
    return r->ring.thresholds[KEY_ROLE_HEAD] == 1 && r->version >= 1 && r->not_after_ms > 0 &&
           r->not_after_ms <= TIME_MAX_MS && text_is_name(slice_str(r->environment));
}

/* ---- encode ---- */

struct role_space {
    Trilane__Snapshot__V1__Role role;
    Trilane__Snapshot__V1__Key keys[ROLE_KEYS_MAX];
    Trilane__Snapshot__V1__Key *list[ROLE_KEYS_MAX];
};

static Trilane__Snapshot__V1__Role *role_fill(struct role_space *space, const struct root *r,
                                              enum key_role role)
{
    trilane__snapshot__v1__role__init(&space->role);
    space->role.threshold = r->ring.thresholds[role];
    space->role.keys = space->list;
    for (uint32_t i = 0; i < r->ring.count; i++) {
        const struct ring_key *from = &r->ring.keys[i];
        if (from->role != role) {
            continue;
        }
        size_t n = space->role.n_keys++;
        Trilane__Snapshot__V1__Key *key = &space->keys[n];
        trilane__snapshot__v1__key__init(key);
        key->public_key = proto_binary(from->public, sizeof(from->public));
        key->name = proto_text(from->name);
        key->not_after_ms = from->not_after_ms;
        space->list[n] = key;
    }
    return &space->role;
}

struct err root_encode(const struct root *r, struct buf *out)
{
    if (!root_holds(r)) {
        return FAIL(E_USAGE);
    }
    struct role_space spaces[ROOT_ROLE_COUNT];
    Trilane__Snapshot__V1__Floor floor;
    trilane__snapshot__v1__floor__init(&floor);
    floor.epoch = r->floor.epoch;
    floor.version = r->floor.version;
    Trilane__Snapshot__V1__Root m;
    trilane__snapshot__v1__root__init(&m);
    m.environment = proto_text(r->environment);
    m.version = r->version;
    m.not_after_ms = r->not_after_ms;
    m.roots = role_fill(&spaces[0], r, KEY_ROLE_ROOT);
    m.manifests = role_fill(&spaces[1], r, KEY_ROLE_MANIFEST);
    m.heads = role_fill(&spaces[2], r, KEY_ROLE_HEAD);
    m.floor = r->has_floor ? &floor : NULL;
    return proto_encode(&m.base, out);
}

/* ---- decode ---- */

static struct err role_decode(const Trilane__Snapshot__V1__Role *m, enum key_role role,
                              struct root *r)
{
    if (m == NULL) {
        return FAIL(E_ROOT_MALFORMED);
    }
    r->ring.thresholds[role] = m->threshold;
    for (size_t i = 0; i < m->n_keys; i++) {
        const Trilane__Snapshot__V1__Key *from = m->keys[i];
        size_t name_size = strlen(from->name);
        struct key_public key = {.role = role};
        if (from->public_key.len != KEY_PUBLIC_SIZE || name_size > KEY_NAME_MAX) {
            return FAIL(E_ROOT_MALFORMED);
        }
        memcpy(key.bytes, from->public_key.data, KEY_PUBLIC_SIZE);
        memcpy(key.name, from->name, name_size);
        if (!err_ok(root_add_key(r, &key, from->not_after_ms))) {
            return FAIL(E_ROOT_MALFORMED);
        }
    }
    return OK;
}

static struct err message_to_root(const Trilane__Snapshot__V1__Root *m, struct root *r)
{
    size_t name_size = strlen(m->environment);
    if (name_size > KEY_NAME_MAX) {
        return FAIL(E_ROOT_MALFORMED);
    }
    memcpy(r->environment, m->environment, name_size);
    snap_environment(slice_str(r->environment), r->environment_id);
    r->version = m->version;
    r->not_after_ms = m->not_after_ms;
    TRY(role_decode(m->roots, KEY_ROLE_ROOT, r));
    TRY(role_decode(m->manifests, KEY_ROLE_MANIFEST, r));
    TRY(role_decode(m->heads, KEY_ROLE_HEAD, r));
    r->has_floor = m->floor != NULL;
    if (r->has_floor) {
        r->floor = (struct root_floor){m->floor->epoch, m->floor->version};
    }
    return root_holds(r) ? OK : FAIL(E_ROOT_MALFORMED);
}

/* The body, and that it is of the environment that the container is sealed for. */
static struct err root_decode(const struct container *c, struct root *out)
{
    const struct proto_rules rules = {.memory_max = CONTAINER_MEMORY_FACTOR * c->body.size,
                                      .malformed = E_ROOT_MALFORMED,
                                      .unknown = E_ROOT_MALFORMED};
    auto_proto ProtobufCMessage *m = NULL;
    TRY(proto_decode(&trilane__snapshot__v1__root__descriptor, c->body, &rules, &m));
    struct root r = {0};
    TRY(message_to_root((const Trilane__Snapshot__V1__Root *)m, &r));
    if (memcmp(r.environment_id, c->environment, ENVIRONMENT_SIZE) != 0) {
        return FAIL(E_ROOT_MALFORMED);
    }
    *out = r;
    return OK;
}

struct err root_read(struct slice bytes, struct root *out, struct container *out_container)
{
    struct container c;
    TRY(container_read(bytes, CONTAINER_ROOT, /* environment= */ NULL, &c));
    TRY(root_decode(&c, out));
    *out_container = c;
    return OK;
}

struct err root_open(struct slice bytes, struct root *out)
{
    struct container c;
    struct root r;
    struct container_signers signers;
    TRY(root_read(bytes, &r, &c));
    TRY(container_verify(&c, &r.ring, KEY_ROLE_ROOT, &signers));
    *out = r;
    return OK;
}

void root_walk_start(const struct root *from, struct root_walk *out)
{
    *out = (struct root_walk){.at = *from};
}

/* The root before has the first word: nothing of the body is parsed until its keys held. */
struct err root_walk_step(struct root_walk *walk, struct slice bytes)
{
    struct container c;
    struct root next;
    struct container_signers signers;
    TRY(container_read(bytes, CONTAINER_ROOT, walk->at.environment_id, &c));
    TRY(container_verify(&c, &walk->at.ring, KEY_ROLE_ROOT, &signers));
    TRY(root_decode(&c, &next));
    TRY(container_verify(&c, &next.ring, KEY_ROLE_ROOT, &signers));
    if (next.version != walk->at.version + 1) {
        return FAIL(E_ROOT_MALFORMED);
    }
    walk->at = next;
    walk->steps++;
    if (next.has_floor) {
        walk->has_floor = true;
        walk->floor = next.floor;
    }
    return OK;
}

struct err root_walk_end(const struct root_walk *walk, int64_t wall_ms, int64_t tolerance_ms)
{
    bool expired = walk->steps > 0 && wall_ms - tolerance_ms > walk->at.not_after_ms;
    return expired ? FAIL(E_ROOT_EXPIRED) : OK;
}
