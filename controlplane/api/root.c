/* root: see root.h. */
#include "controlplane/api/root.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "controlplane/api/json.h"
#include "controlplane/publish/keys.h"

enum { SENTENCE_MAX = 4096, CONTAINER_MAX = 1 << 20, ROOTS_SHOWN = 64 };

/* ---- a root as JSON ---- */

static json_t *hex(const uint8_t *bytes, size_t size)
{
    char text[2 * KEY_PUBLIC_SIZE + 1];
    text_hex(slice_of(bytes, size), text);
    return json_string(text);
}

static json_t *json_key(const struct ring_key *key)
{
    bool break_glass = key->role == KEY_ROLE_MANIFEST && cp_key_is_break_glass(key->name);
    return json_pack("{s:s, s:o, s:s, s:o, s:I, s:b}", "role", key_role_name(key->role), "id",
                     hex(key->id, sizeof(key->id)), "name", key->name, "public",
                     hex(key->public, sizeof(key->public)), "not_after_ms",
                     (json_int_t)key->not_after_ms, "break_glass", break_glass);
}

json_t *cp_json_root(const struct root *root)
{
    json_t *keys = json_array();
    for (uint32_t i = 0; i < root->ring.count; i++) {
        (void)json_array_append_new(keys, json_key(&root->ring.keys[i]));
    }
    const uint32_t *thresholds = root->ring.thresholds;
    json_t *value = json_pack("{s:s, s:I, s:I, s:{s:I, s:I, s:I}, s:o}", "environment",
                              root->environment, "version", (json_int_t)root->version,
                              "not_after_ms", (json_int_t)root->not_after_ms, "thresholds", "root",
                              (json_int_t)thresholds[KEY_ROLE_ROOT], "manifest",
                              (json_int_t)thresholds[KEY_ROLE_MANIFEST], "head",
                              (json_int_t)thresholds[KEY_ROLE_HEAD], "keys", keys);
    if (root->has_floor) {
        (void)json_object_set_new(value, "floor",
                                  json_pack("{s:I, s:I}", "epoch", (json_int_t)root->floor.epoch,
                                            "version", (json_int_t)root->floor.version));
    }
    return value;
}

/* ---- shown ---- */

static json_t *json_public(const uint8_t public[KEY_PUBLIC_SIZE])
{
    uint8_t id[KEY_ID_SIZE];
    key_id(public, id);
    return hex(id, sizeof(id));
}

static json_t *json_here(struct cp_publish_room *room, const struct root *root)
{
    struct cp_signer_hello hello = cp_signer_hello(room->signer);
    struct cp_keys keys;
    cp_keys_judge(root, &hello, clock_wall_ms(), &keys);
    return json_pack("{s:o, s:o, s:b, s:s}", "manifest_key", json_public(hello.manifest_public),
                     "head_key", json_public(hello.head_public), "manifest_known",
                     keys.manifest_known, "code",
                     keys.head_code == E_OK ? "" : err_name(keys.head_code));
}

static bool is_key(const struct root *root, enum key_role role,
                   const uint8_t public[KEY_PUBLIC_SIZE])
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        const struct ring_key *key = &root->ring.keys[i];
        if (key->role == role && memcmp(key->public, public, KEY_PUBLIC_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

/* What each replica signs with, as it told the store last. */
static struct err list_replicas(struct cp_publish_room *room, const struct root *root, json_t *out)
{
    struct cp_replica replicas[CP_REPLICAS_MAX];
    size_t count = 0;
    TRY(room->store->ops->replica_list(room->store, room->environment, replicas, &count));
    for (size_t i = 0; i < count; i++) {
        const struct cp_replica *r = &replicas[i];
        (void)json_array_append_new(
            out, json_pack("{s:s, s:o, s:o, s:b, s:b, s:I}", "name", r->name, "manifest_key",
                           json_public(r->manifest_key), "head_key", json_public(r->head_key),
                           "manifest_known", is_key(root, KEY_ROLE_MANIFEST, r->manifest_key),
                           "head_known", is_key(root, KEY_ROLE_HEAD, r->head_key), "age_ms",
                           (json_int_t)r->age_ms));
    }
    return OK;
}

/* The keys of older roots that the one in force does not have: since which root. */
struct revoked {
    const struct root *now;
    struct root before; /* the root before the one that is looked at; version 0: none. */
    json_t *out;
};

static struct err add_revoked(struct revoked *r, const struct root *next)
{
    for (uint32_t i = 0; i < r->before.ring.count; i++) {
        const struct ring_key *key = &r->before.ring.keys[i];
        if (!is_key(next, key->role, key->public) && !is_key(r->now, key->role, key->public)) {
            json_t *item = json_key(key);
            (void)json_object_set_new(item, "revoked_by", json_integer((json_int_t)next->version));
            TRY(json_array_append_new(r->out, item) == 0 ? OK : FAIL(E_NO_MEMORY));
        }
    }
    return OK;
}

static struct err visit_root(void *ctx, uint64_t version, struct slice container)
{
    struct revoked *r = ctx;
    struct root root;
    (void)version;
    TRY(root_open(container, &root));
    TRY(add_revoked(r, &root));
    r->before = root;
    return OK;
}

static struct err list_revoked(struct cp_publish_room *room, const struct root *now, json_t *out)
{
    struct revoked r = {.now = now, .out = out};
    uint64_t first = now->version > ROOTS_SHOWN ? now->version - ROOTS_SHOWN : 0;
    return cp_roots_each(room->roots, first, visit_root, &r);
}

/* Ids of the keys whose signatures the newest manifest carries. */
static struct err list_signers(struct cp_publish_room *room, json_t *out)
{
    struct cp_record newest;
    struct container c;
    auto_buf struct buf manifest = BUF_MAX(CONTAINER_MAX);
    struct err e = room->store->ops->latest(room->store, room->environment, &newest);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    TRY(room->store->ops->load(room->store, room->environment, newest.version, &newest, &manifest));
    TRY(container_read(buf_slice(&manifest), CONTAINER_MANIFEST, /* environment= */ NULL, &c));
    for (size_t i = 0; i < c.signature_count; i++) {
        const uint8_t *at = c.signatures.ptr + i * CONTAINER_SIGNATURE_SIZE;
        (void)json_array_append_new(out, hex(at, KEY_ID_SIZE));
    }
    return OK;
}

struct err cp_api_roots(struct cp_publish_room *room, json_t **out)
{
    struct root root;
    cp_roots_now(room->roots, &root);
    json_t *signers = json_array();
    json_t *replicas = json_array();
    json_t *revoked = json_array();
    struct err e = list_signers(room, signers);
    if (err_ok(e)) {
        e = list_replicas(room, &root, replicas);
    }
    if (err_ok(e)) {
        e = list_revoked(room, &root, revoked);
    }
    *out = json_pack("{s:o, s:o, s:o, s:o, s:o}", "root", cp_json_root(&root), "here",
                     json_here(room, &root), "newest_signers", signers, "replicas", replicas,
                     "revoked", revoked);
    return e;
}

/* ---- published ---- */

struct publishing {
    struct cp_publish_room *room;
    char author[CP_AUTHOR_MAX + 1];
    struct buf bytes;
    struct root root;
    struct buf sentence;
};

static struct err refuse(struct publishing *p, const char *sentence)
{
    TRY(buf_add_str(&p->sentence, sentence));
    return FAIL(E_USAGE);
}

static struct err read_root(struct publishing *p, const json_t *root)
{
    size_t size = json_string_length(root);
    uint8_t *room = NULL;
    size_t used = 0;
    if (!json_is_string(root)) {
        return refuse(p, "\"root\": expected the container in base64");
    }
    struct err e = buf_reserve(&p->bytes, size / 4 * 3 + 3, &room);
    if (e.code == E_TOO_LARGE) {
        return refuse(p, "\"root\": larger than a root can be");
    }
    TRY(e);
    if (sodium_base642bin(room, size / 4 * 3 + 3, json_string_value(root), size, NULL, &used, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0) {
        return refuse(p, "\"root\": expected base64 with padding");
    }
    buf_commit(&p->bytes, used);
    return OK;
}

static struct err read_members(struct publishing *p, json_t *body)
{
    const char *name = NULL;
    json_t *member = NULL;
    json_object_foreach(body, name, member)
    {
        if (strcmp(name, "root") != 0 && strcmp(name, "author") != 0) {
            return refuse(p, "expected \"root\" and \"author\", nothing else");
        }
    }
    const json_t *author = json_object_get(body, "author");
    if (author != NULL && !cp_json_is_line(author, CP_AUTHOR_MAX)) {
        return refuse(p, "\"author\": expected a short text without control characters");
    }
    (void)snprintf(p->author, sizeof(p->author), "%s",
                   author == NULL ? "" : json_string_value(author));
    return read_root(p, json_object_get(body, "root"));
}

static struct err read_body(struct publishing *p, struct slice body)
{
    json_t *value = json_loadb((const char *)body.ptr, body.size, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(value)) {
        json_decref(value);
        return refuse(p, "the body is not a JSON object");
    }
    struct err e = read_members(p, value);
    json_decref(value);
    return e;
}

static struct err keep(struct publishing *p)
{
    struct cp_publish_room *room = p->room;
    struct cp_leader_status status;
    struct slice container = buf_slice(&p->bytes);
    cp_leader_status(room->leader, &status);
    TRY(cp_roots_judge(room->roots, container, status.epoch, &p->root, &p->sentence));
    TRY(room->store->ops->root_put(room->store, room->environment, p->root.version, container));
    TRY(cp_roots_take(room->roots, container, /* out_new= */ NULL));
    cp_leader_wake(room->leader);
    return OK;
}

/* Every write leaves a line, refused ones, too. */
static void keep_audit(const struct publishing *p, struct err e)
{
    struct cp_audit entry = {.action = "root"};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", p->author);
    (void)snprintf(entry.object, sizeof(entry.object), "root %llu",
                   (unsigned long long)p->root.version);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(e.code));
    struct err kept = p->room->store->ops->audit_add(p->room->store, p->room->environment, &entry);
    if (!err_ok(kept)) {
        LOG(LOG_ERROR, "api", "audit_lost", LOG_ERR(kept), LOG_STR("action", entry.action),
            LOG_STR("actor", entry.actor));
    }
}

static json_t *answer_of(const struct publishing *p)
{
    json_t *here = json_here(p->room, &p->root);
    return json_pack("{s:I, s:o, s:o}", "version", (json_int_t)p->root.version, "root",
                     cp_json_root(&p->root), "here", here);
}

struct err cp_api_root_publish(struct cp_publish_room *room, struct slice body, json_t **out)
{
    struct publishing p = {.room = room,
                           .bytes = BUF_MAX(CP_ROOT_CONTAINER_MAX + 4),
                           .sentence = BUF_MAX(SENTENCE_MAX)};
    struct err e = read_body(&p, body);
    if (err_ok(e)) {
        e = keep(&p);
        keep_audit(&p, e);
    }
    if (err_ok(e)) {
        *out = answer_of(&p);
    } else {
        *out = cp_json_error(e, /* work= */ NULL);
        if (p.sentence.size > 0) {
            (void)json_object_set_new(*out, "message",
                                      json_stringn((const char *)p.sentence.ptr, p.sentence.size));
        }
    }
    buf_free(&p.bytes);
    buf_free(&p.sentence);
    return e;
}
