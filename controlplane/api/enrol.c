/* enrol: see enrol.h. */
#include "controlplane/api/enrol.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/net/csr.h"
#include "controlplane/api/json.h"
#include "controlplane/identity/grant.h"
#include "controlplane/identity/vouch.h"
#include "controlplane/publish/departure.h"
#include "controlplane/publish/sealed.h"

enum {
    MESSAGE_MAX = 1024,
    ROOTS_SENT = 64, /* the newest; a node begins with the last one. */
};

static void drop_json(json_t **value)
{
    json_decref(*value);
}
#define auto_json __attribute__((cleanup(drop_json)))

/* ---- what is sent ---- */

struct member {
    const char *name;
    bool number;
    bool optional;
    size_t max;       /* longest text. */
    const char *text; /* as it was found; "" when it is not there. */
    int64_t value;
};

static struct err wrong(const struct member *m, struct buf *message)
{
    if (m->number) {
        TRY(buf_addf(message, "\"%s\": expected a whole number from 0 on", m->name));
    } else {
        TRY(buf_addf(message, "\"%s\": expected a text of 1 to %zu bytes", m->name, m->max));
    }
    return FAIL(E_USAGE);
}

static struct err read_member(const json_t *body, struct member *m, struct buf *message)
{
    const json_t *value = json_object_get(body, m->name);
    m->text = "";
    if (value == NULL) {
        return m->optional ? OK : wrong(m, message);
    }
    if (m->number) {
        m->value = json_integer_value(value);
        return json_is_integer(value) && m->value >= 0 ? OK : wrong(m, message);
    }
    size_t size = json_string_length(value);
    if (!json_is_string(value) || size > m->max || strlen(json_string_value(value)) != size ||
        (size == 0 && !m->optional)) {
        return wrong(m, message);
    }
    m->text = json_string_value(value);
    return OK;
}

static const struct member *find(const struct member *members, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(members[i].name, name) == 0) {
            return &members[i];
        }
    }
    return NULL;
}

/* Each member of the table is read, and there is no other one. Texts live as long as *out. */
static struct err read_body(struct slice body, struct member *members, size_t count, json_t **out,
                            struct buf *message)
{
    json_error_t error;
    *out = json_loadb((const char *)body.ptr, body.size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(*out)) {
        TRY(buf_addf(message, "the body is not a JSON object: line %d: %s", error.line,
                     error.text));
        return FAIL(E_MALFORMED);
    }
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(*out, name, value)
    {
        if (find(members, count, name) == NULL) {
            TRY(buf_addf(message, "\"%.80s\" is not a member of this request", name));
            return FAIL(E_USAGE);
        }
    }
    for (size_t i = 0; i < count; i++) {
        TRY(read_member(*out, &members[i], message));
    }
    return OK;
}

static struct err read_hex(const struct member *m, uint8_t *out, size_t size, struct buf *message)
{
    struct err e = text_unhex(slice_str(m->text), out, size);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "\"%s\": expected %zu hex digits", m->name, 2 * size));
    }
    return e;
}

/* Who writes is shown on terminals and kept in the audit. */
static struct err check_author(const struct member *author, struct buf *message)
{
    for (const char *at = author->text; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            TRY(buf_add_str(message, "\"author\": expected no control characters"));
            return FAIL(E_USAGE);
        }
    }
    return OK;
}

/* ---- answers ---- */

static struct err refused(struct err e, const struct buf *message, json_t **out)
{
    *out = cp_json_error(e, /* work= */ NULL);
    if (message->size > 0) {
        (void)json_object_set_new(*out, "message",
                                  json_stringn((const char *)message->ptr, message->size));
    }
    return e;
}

static json_t *text_of(struct slice s)
{
    return json_stringn(s.size == 0 ? "" : (const char *)s.ptr, s.size);
}

static json_t *admission_json(const struct cp_registrar *r, const struct cp_admission *a)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:I}", "node", a->node, "labels", a->labels,
                     "certificate", text_of(buf_slice(&a->leaf.chain)), "ca",
                     text_of(cp_registrar_bundle(r)), "serial", a->leaf.serial, "not_after_ms",
                     (json_int_t)a->leaf.not_after_ms);
}

/* ---- tokens ---- */

struct err cp_enrol_token(struct cp_registrar *registrar, struct cp_publish_room *room,
                          struct slice body, json_t **out)
{
    enum { NODE, LABELS, SANS, TTL, AUTHOR, COUNT };
    struct member m[COUNT] = {{.name = "node", .max = CP_ENVIRONMENT_MAX},
                              {.name = "labels", .max = CP_LABELS_MAX, .optional = true},
                              {.name = "sans", .max = CP_LABELS_MAX, .optional = true},
                              {.name = "ttl_ms", .number = true},
                              {.name = "author", .max = CP_AUTHOR_MAX, .optional = true}};
    auto_json json_t *asked = NULL;
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf token = BUF_MAX(JOIN_TOKEN_MAX);
    int64_t expires_ms = 0;
    struct err e = read_body(body, m, COUNT, &asked, &message);
    if (err_ok(e)) {
        e = check_author(&m[AUTHOR], &message);
    }
    if (err_ok(e)) {
        struct cp_invitation invitation = {.node = m[NODE].text,
                                           .labels = m[LABELS].text,
                                           .sans = m[SANS].text,
                                           .author = m[AUTHOR].text,
                                           .ttl_ms = (uint64_t)m[TTL].value};
        e = cp_registrar_invite(registrar, room->store, &invitation, &token, &expires_ms, &message);
    }
    if (!err_ok(e)) {
        return refused(e, &message, out);
    }
    *out = json_pack("{s:s, s:o, s:I}", "node", m[NODE].text, "token", text_of(buf_slice(&token)),
                     "expires_ms", (json_int_t)expires_ms);
    sodium_memzero(token.ptr, token.capacity);
    return OK;
}

/* ---- joins ---- */

/* The roots that the node begins with. */
static struct err add_root(void *ctx, uint64_t version, struct slice container)
{
    size_t size = sodium_base64_encoded_len(container.size, sodium_base64_VARIANT_ORIGINAL);
    auto_free char *text = malloc(size);
    if (text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    (void)sodium_bin2base64(text, size, container.ptr, container.size,
                            sodium_base64_VARIANT_ORIGINAL);
    json_t *root = json_pack("{s:I, s:s}", "version", (json_int_t)version, "container", text);
    return json_array_append_new(ctx, root) == 0 ? OK : FAIL(E_NO_MEMORY);
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/*
 * The floor that the node begins with: the newest publication, and the epoch of the leader's row.
 * A floor in the root in force stands above both, since the leader may not have followed it yet.
 * A node never goes below its floor, so this must be the least version that any target of a head
 * may give it. Heads have one target, every node, and it is the newest publication that a threshold
 * signed (point.c); with targets that differ it is the least of them:
 * docs/decisions/0070-joining.md.
 */
static struct err make_seed(struct cp_publish_room *room, json_t **out)
{
    struct cp_record latest = {.version = 0};
    struct cp_lease lease = {.epoch = 0};
    struct root root;
    const struct cp_sealed_place place = {room->roots, room->store, room->environment};
    struct err e = cp_sealed_newest(&place, &latest, /* container= */ NULL);
    TRY(e.code == E_NOT_FOUND ? OK : e);
    e = room->store->ops->lease_read(room->store, room->environment, &lease);
    TRY(e.code == E_NOT_FOUND ? OK : e);
    cp_roots_now(room->roots, &root);
    struct root_floor floor = root.has_floor ? root.floor : (struct root_floor){0};
    *out = json_pack("{s:I, s:I, s:I}", "root_version", (json_int_t)root.version, "epoch",
                     (json_int_t)larger(lease.epoch, floor.epoch), "version",
                     (json_int_t)larger(latest.version, floor.version));
    return OK;
}

static struct err add_trust(struct cp_publish_room *room, json_t *answer)
{
    json_t *seed = NULL;
    TRY(make_seed(room, &seed));
    (void)json_object_set_new(answer, "seed", seed);
    json_t *roots = json_array();
    (void)json_object_set_new(answer, "roots", roots);
    uint64_t newest = cp_roots_version(room->roots);
    uint64_t first = newest > ROOTS_SENT ? newest - ROOTS_SENT + 1 : 0;
    return cp_roots_each(room->roots, first, add_root, roots);
}

static struct err read_join(struct slice body, struct cp_join_request *out, json_t **asked,
                            struct buf *message)
{
    enum { TOKEN, CSR, KEY, PROOF, COUNT };
    struct member m[COUNT] = {{.name = "token", .max = JOIN_TOKEN_MAX},
                              {.name = "csr", .max = CP_ENROL_BODY_MAX},
                              {.name = "status_key", .max = (size_t)2 * KEY_PUBLIC_SIZE},
                              {.name = "proof", .max = (size_t)2 * KEY_SIGNATURE_SIZE}};
    TRY(read_body(body, m, COUNT, asked, message));
    TRY(read_hex(&m[KEY], out->status_key, sizeof(out->status_key), message));
    TRY(read_hex(&m[PROOF], out->proof, sizeof(out->proof), message));
    out->csr = slice_str(m[CSR].text);
    struct err e = join_token_parse(slice_str(m[TOKEN].text), &out->token);
    if (!err_ok(e)) {
        TRY(buf_add_str(message, "\"token\": expected a token of trilane-cp identity token"));
    }
    return e;
}

struct err cp_enrol_join(struct cp_registrar *registrar, struct cp_publish_room *room,
                         struct slice body, json_t **out)
{
    auto_json json_t *asked = NULL;
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_join_request request = {.csr = {0}};
    struct cp_admission admission;
    struct err e = read_join(body, &request, &asked, &message);
    if (err_ok(e)) {
        e = cp_registrar_join(registrar, room->store, &request, &admission, &message);
    }
    join_token_wipe(&request.token);
    if (!err_ok(e)) {
        return refused(e, &message, out);
    }
    *out = admission_json(registrar, &admission);
    cp_admission_free(&admission);
    return add_trust(room, *out);
}

/* ---- renewals ---- */

struct err cp_enrol_renew(struct cp_registrar *registrar, struct cp_publish_room *room,
                          struct slice body, json_t **out)
{
    enum { NODE, CSR, AT, SENT, PROOF, CERTIFICATE, PRESENTED, COUNT };
    struct member m[COUNT] = {
        {.name = "node", .max = CP_ENVIRONMENT_MAX},
        {.name = "csr", .max = CP_ENROL_BODY_MAX},
        {.name = "at_ms", .number = true},
        {.name = "count", .number = true},
        {.name = "proof", .max = (size_t)2 * KEY_SIGNATURE_SIZE},
        {.name = "certificate", .max = CP_ENROL_BODY_MAX, .optional = true},
        {.name = "certificate_proof", .max = (size_t)2 * NET_SIGNATURE_MAX, .optional = true}};
    uint8_t presented[NET_SIGNATURE_MAX];
    auto_json json_t *asked = NULL;
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_renew_request request = {.node = NULL};
    struct cp_admission admission;
    struct err e = read_body(body, m, COUNT, &asked, &message);
    if (err_ok(e) && !text_is_name(slice_str(m[NODE].text))) {
        e = wrong(&m[NODE], &message);
    }
    if (err_ok(e)) {
        e = read_hex(&m[PROOF], request.proof, sizeof(request.proof), &message);
    }
    const size_t presented_size = err_ok(e) ? strlen(m[PRESENTED].text) / 2 : 0;
    if (err_ok(e)) {
        e = read_hex(&m[PRESENTED], presented, presented_size, &message);
    }
    if (err_ok(e)) {
        request.certificate = slice_str(m[CERTIFICATE].text);
        request.presented = slice_of(presented, presented_size);
        request.node = m[NODE].text;
        request.csr = slice_str(m[CSR].text);
        request.at_ms = m[AT].value;
        request.count = (uint64_t)m[SENT].value;
        e = cp_registrar_renew(registrar, room->store, &request, &admission, &message);
    }
    if (!err_ok(e)) {
        return refused(e, &message, out);
    }
    *out = admission_json(registrar, &admission);
    cp_admission_free(&admission);
    return OK;
}

/* ---- nodes ---- */

enum { REMOVED_NODE, REMOVED_AUTHOR, REMOVED_COUNT };

static struct err read_removal(struct slice body, struct member m[REMOVED_COUNT], json_t **asked,
                               struct buf *message)
{
    m[REMOVED_NODE] = (struct member){.name = "node", .max = CP_ENVIRONMENT_MAX};
    m[REMOVED_AUTHOR] = (struct member){.name = "author", .max = CP_AUTHOR_MAX, .optional = true};
    TRY(read_body(body, m, REMOVED_COUNT, asked, message));
    return check_author(&m[REMOVED_AUTHOR], message);
}

struct err cp_enrol_remove(struct cp_registrar *registrar, struct cp_publish_room *room,
                           struct slice body, bool is_retold, json_t **out)
{
    struct member m[REMOVED_COUNT];
    auto_json json_t *asked = NULL;
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_departure departure;
    struct err e = read_removal(body, m, &asked, &message);
    if (err_ok(e)) {
        const struct cp_removing removing = {
            .node = m[REMOVED_NODE].text, .author = m[REMOVED_AUTHOR].text, .is_retold = is_retold};
        e = cp_registrar_remove(registrar, room->store, &removing, &departure, &message);
    }
    if (!err_ok(e)) {
        return refused(e, &message, out);
    }
    cp_fleet_refresh(room->fleet); /* its status is refused from now on, not from the next look. */
    return OK;
}

/* What the certificate in a node's row says: all empty, where the row has none of ours. */
static struct err open_passport(struct cp_passports *passports, const struct cp_node *node,
                                struct cp_passport *out)
{
    *out = (struct cp_passport){.grant = ""};
    struct err e = cp_passport_open(passports, node->id,
                                    slice_of(node->certificate, node->certificate_size), out);
    return e.code == E_CERTIFICATE_MISSING ? OK : e;
}

/* Its certificate that no replica vouches for, so that nothing of it is published; "": none. */
struct unvouched {
    const struct cp_publish_room *room;
    char serial[CP_SERIAL_MAX + 1];
    bool any;
};

static struct err judge_unvouched(void *ctx, const struct cp_certificate *certificate)
{
    struct unvouched *u = ctx;
    bool ours = strcmp(certificate->serial, u->serial) == 0 &&
                cp_vouched_removed(u->room->warrant_key->bytes, u->room->environment, certificate);
    u->any = u->any && !ours;
    return OK;
}

/* What the row says of its certificate counts where the certificate does not say it. */
static struct err find_unvouched(struct cp_passports *passports, struct cp_publish_room *room,
                                 const char *name, json_t *answer)
{
    struct cp_store *store = room->store;
    struct unvouched u = {.room = room};
    struct cp_node node;
    struct cp_passport who;
    TRY(store->ops->node_get(store, room->environment, name, &node));
    TRY(open_passport(passports, &node, &who));
    const bool proved = who.serial[0] != '\0';
    const int64_t end_ms = proved ? who.not_after_ms : node.not_after_ms;
    (void)snprintf(u.serial, sizeof(u.serial), "%s", proved ? who.serial : node.serial);
    u.any = u.serial[0] != '\0' && end_ms > clock_wall_ms();
    TRY(store->ops->certificates_of(store, room->environment, name, judge_unvouched, &u));
    (void)json_object_set_new(answer, "unvouched", json_string(u.any ? u.serial : ""));
    return OK;
}

/* The removal holds whatever came of publishing it. */
static json_t *departed_json(const char *node, const struct cp_work *work)
{
    const bool published = err_ok(work->result) && !work->is_unchanged;
    json_t *answer = json_pack(
        "{s:s, s:b, s:b, s:I}", "node", node, "removed", 1, "published", published, "version",
        err_ok(work->result) ? (json_int_t)work->record.version : (json_int_t)0);
    if (!err_ok(work->result)) {
        json_t *why = cp_json_error(work->result, work);
        (void)json_object_update(answer, why);
        json_decref(why);
    }
    return answer;
}

struct err cp_enrol_depart(struct cp_registrar *registrar, struct cp_publish_room *room,
                           struct slice body, bool is_retold, json_t **out)
{
    struct member m[REMOVED_COUNT];
    auto_json json_t *asked = NULL;
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_work work;
    TRY(read_removal(body, m, &asked, &message));
    cp_work_init(&work, CP_WORK_ROLLBACK);
    (void)snprintf(work.author, sizeof(work.author), "%s", m[REMOVED_AUTHOR].text);
    cp_departure_run(room, m[REMOVED_NODE].text, &work);
    if (!is_retold) {
        cp_publish_explain(room, &work);
    }
    struct err e = work.result;
    if (is_retold && e.code == E_NOT_LEADER) {
        cp_work_free(&work);
        return e;
    }
    *out = departed_json(m[REMOVED_NODE].text, &work);
    cp_work_free(&work);
    return find_unvouched(cp_registrar_passports(registrar), room, m[REMOVED_NODE].text, *out);
}

struct listing {
    struct cp_passports *passports;
    json_t *nodes;
};

/* What its certificate says of a node: nothing, where the row has none of ours. */
static struct err add_node(void *ctx, const struct cp_node *node)
{
    struct listing *l = ctx;
    char key[2 * NET_STATUS_KEY_SIZE + 1] = "";
    struct cp_passport who;
    TRY(open_passport(l->passports, node, &who));
    if (who.has_status_key) {
        text_hex(slice_of(who.status_key, sizeof(who.status_key)), key);
    }
    struct cp_grant grant = cp_grant_split(slice_str(who.grant));
    json_t *item = json_pack("{s:s, s:s, s:o, s:o, s:s, s:I, s:I, s:s}", "node", node->id, "state",
                             node->state == CP_NODE_REMOVED ? "removed" : "enrolled", "labels",
                             text_of(grant.labels), "sans", text_of(grant.sans), "serial",
                             node->serial, "not_after_ms", (json_int_t)node->not_after_ms,
                             "enrolled_ms", (json_int_t)node->enrolled_ms, "status_key", key);
    return json_array_append_new(l->nodes, item) == 0 ? OK : FAIL(E_NO_MEMORY);
}

struct err cp_enrol_list(struct cp_registrar *registrar, struct cp_publish_room *room,
                         struct slice body, json_t **out)
{
    (void)body;
    struct listing listing = {.passports = cp_registrar_passports(registrar),
                              .nodes = json_array()};
    struct err e = room->store->ops->node_list(room->store, room->environment, add_node, &listing);
    *out = json_pack("{s:o}", "nodes", listing.nodes);
    return e;
}
