/* proposal: see proposal.h. */
#include "controlplane/api/proposal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/snapshot/manifest.h"
#include "controlplane/api/json.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/removals.h"

struct open_proposal {
    struct cp_proposal proposal;
    struct buf body;
    uint8_t digest[DIGEST_SIZE];
    struct root root; /* in force. */
};

static struct err read_open(struct cp_publish_room *room, struct open_proposal *out)
{
    out->body = BUF_MAX(MANIFEST_BODY_MAX);
    TRY(room->store->ops->proposal_open(room->store, room->environment, &out->proposal,
                                        &out->body));
    ids_digest(buf_slice(&out->body), out->digest);
    cp_roots_now(room->roots, &out->root);
    /* Who signs it by hand may take our word for what it is. */
    return cp_warrant_holds(room->warrant_key, room->environment, &out->proposal,
                            buf_slice(&out->body))
               ? OK
               : FAIL(E_COSIGN_REFUSED);
}

static json_t *hex(const uint8_t *bytes, size_t size)
{
    char text[2 * KEY_SIGNATURE_SIZE + 1];
    text_hex(slice_of(bytes, size), text);
    return json_string(text);
}

/* ---- shown ---- */

static json_t *signature_of(const struct root *root, const struct cp_cosignature *c)
{
    const struct ring_key *key = cp_cosign_key(root, c->key_id);
    return json_pack("{s:s, s:o, s:s, s:s}", "key", key == NULL ? "" : key->name, "key_id",
                     hex(c->key_id, sizeof(c->key_id)), "code",
                     c->code == E_OK ? "" : err_name(c->code), "message", c->sentence);
}

/* Whoever makes the content of sources of theirs has all but this file. */
static struct err take_carried(void *ctx, const struct cp_store_file *file)
{
    json_t **out = ctx;
    if (slice_eq(file->name, CP_REMOVALS_FILE)) {
        json_decref(*out);
        *out = json_stringn((const char *)file->bytes.ptr, file->bytes.size);
    }
    return OK;
}

struct err cp_api_proposal(struct cp_publish_room *room, json_t **out)
{
    struct cp_cosignature found[CP_COSIGNATURES_MAX];
    size_t count = 0;
    struct open_proposal open = {0};
    struct err e = read_open(room, &open);
    if (err_ok(e)) {
        e = room->store->ops->cosign_list(room->store, room->environment, open.proposal.version,
                                          found, &count);
    }
    json_t *carried = json_string("");
    if (err_ok(e)) {
        e = room->store->ops->sources_get(room->store, room->environment, open.proposal.version,
                                          take_carried, &carried);
    }
    if (err_ok(e)) {
        json_t *signatures = json_array();
        for (size_t i = 0; i < count; i++) {
            (void)json_array_append_new(signatures, signature_of(&open.root, &found[i]));
        }
        *out = json_pack("{s:s, s:I, s:I, s:I, s:b, s:I, s:o, s:o, s:I, s:o, s:O}", "environment",
                         room->environment, "version", (json_int_t)open.proposal.version, "epoch",
                         (json_int_t)open.proposal.epoch, "origin",
                         (json_int_t)open.proposal.origin, "with_trust", open.proposal.with_trust,
                         "proposed_ms", (json_int_t)open.proposal.proposed_ms, "manifest_digest",
                         hex(open.digest, sizeof(open.digest)), "body",
                         cp_json_base64(buf_slice(&open.body)), "threshold",
                         (json_int_t)open.root.ring.thresholds[KEY_ROLE_MANIFEST], "signatures",
                         signatures, "carried", carried);
    }
    json_decref(carried);
    buf_free(&open.body);
    return e;
}

/* ---- signed ---- */

struct signing {
    uint64_t version;
    struct cp_cosignature cosignature;
    const char *author;
};

static struct err read_hex(const json_t *body, const char *name, uint8_t *out, size_t size)
{
    const char *text = json_string_value(json_object_get(body, name));
    return text == NULL ? FAIL(E_USAGE) : text_unhex(slice_str(text), out, size);
}

static struct err read_signing(const json_t *body, struct signing *out)
{
    const json_t *version = json_object_get(body, "version");
    const char *author = json_string_value(json_object_get(body, "author"));
    if (!json_is_integer(version) || json_integer_value(version) <= 0) {
        return FAIL(E_USAGE);
    }
    *out = (struct signing){.version = (uint64_t)json_integer_value(version),
                            .author = author == NULL ? "" : author};
    TRY(read_hex(body, "key_id", out->cosignature.key_id, KEY_ID_SIZE));
    return read_hex(body, "signature", out->cosignature.signature, KEY_SIGNATURE_SIZE);
}

/* Only what counts is kept: by a manifest key of the root in force, over the very bytes. */
static struct err judge(const struct open_proposal *open, const struct signing *signing,
                        const struct ring_key **out)
{
    auto_buf struct buf bytes = BUF_MAX(MANIFEST_BODY_MAX + 256);
    if (signing->version != open->proposal.version) {
        return FAIL(E_BASE_CHANGED);
    }
    *out = cp_cosign_key(&open->root, signing->cosignature.key_id);
    if (*out == NULL) {
        return FAIL(E_MANIFEST_WRONG_KEY);
    }
    TRY(container_signed_bytes(CONTAINER_MANIFEST, open->root.environment_id,
                               buf_slice(&open->body), &bytes));
    return key_verify((*out)->public, buf_slice(&bytes), signing->cosignature.signature)
               ? OK
               : FAIL(E_MANIFEST_UNSIGNED);
}

static void keep_audit(struct cp_publish_room *room, const struct signing *signing, const char *key,
                       struct err result)
{
    struct cp_audit entry = {0};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", signing->author);
    (void)snprintf(entry.action, sizeof(entry.action), "sign");
    (void)snprintf(entry.object, sizeof(entry.object), "version %" PRIu64 " by %s",
                   signing->version, key);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(result.code));
    struct err e = room->store->ops->audit_add(room->store, room->environment, &entry);
    LOG(LOG_WARN, "proposal", err_ok(result) ? "signed_from_outside" : "signature_refused",
        LOG_U64("version", signing->version), LOG_STR("key", key), LOG_ERR(result),
        LOG_STR("author", signing->author), LOG_STR("audit", err_name(e.code)));
}

static struct err sign(struct cp_publish_room *room, const struct open_proposal *open,
                       const struct signing *signing, json_t **out)
{
    const struct ring_key *key = NULL;
    struct err e = judge(open, signing, &key);
    if (err_ok(e)) {
        e = room->store->ops->cosign_put(room->store, room->environment, signing->version,
                                         open->digest, &signing->cosignature);
    }
    keep_audit(room, signing, key == NULL ? "an unknown key" : key->name, e);
    TRY(e);
    *out = json_pack("{s:I, s:s}", "version", (json_int_t)signing->version, "key", key->name);
    return OK;
}

struct err cp_api_sign(struct cp_publish_room *room, struct slice body, json_t **out)
{
    json_error_t error;
    json_t *value = json_loadb((const char *)body.ptr, body.size, JSON_REJECT_DUPLICATES, &error);
    struct signing signing = {0};
    struct open_proposal open = {0};
    struct err e = value == NULL ? FAIL(E_MALFORMED) : read_signing(value, &signing);
    if (err_ok(e)) {
        e = read_open(room, &open);
    }
    if (err_ok(e)) {
        e = sign(room, &open, &signing, out);
    }
    buf_free(&open.body);
    json_decref(value);
    return e;
}
