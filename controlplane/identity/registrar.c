/* registrar: see registrar.h. */
#include "controlplane/identity/registrar.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/net/csr.h"
#include "controlplane/identity/grant.h"

enum {
    PREFIX_SIZE = 8,  /* of a token's digest, in the audit. */
    AUDITED_MAX = 10, /* refusals a second that the audit keeps: anyone may cause them. */
    CHAIN_FILE_MAX = NET_CHAIN_BYTES_MAX,
    AGAIN_MAX = 2, /* a token that was used between judging and enrolling is judged anew, once. */
};

struct cp_registrar {
    struct cp_registrar_options options;
    uint8_t environment_id[ENVIRONMENT_SIZE];
    struct cp_passports *passports; /* owned; NULL without a CA. */
    uint64_t audited_second;
    unsigned audited; /* refusals in that second. */
    struct {
        struct lock lock;
        struct cp_registrar_counters counters GUARDED;
    } shared;
};

struct err cp_registrar_new(const struct cp_registrar_options *options, struct cp_registrar **out)
{
    struct cp_registrar *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    r->options = *options;
    snap_environment(slice_str(options->environment), r->environment_id);
    lock_init(&r->shared.lock);
    struct err e = options->certifier == NULL
                       ? OK
                       : cp_passports_new(cp_certifier_bundle(options->certifier), &r->passports);
    if (!err_ok(e)) {
        cp_registrar_free(r);
        return e;
    }
    *out = r;
    return OK;
}

void cp_registrar_free(struct cp_registrar *r)
{
    if (r == NULL) {
        return;
    }
    cp_passports_free(r->passports);
    lock_free(&r->shared.lock);
    free(r);
}

struct slice cp_registrar_bundle(const struct cp_registrar *r)
{
    return cp_certifier_bundle(r->options.certifier);
}

struct cp_passports *cp_registrar_passports(const struct cp_registrar *r)
{
    return r->passports;
}

void cp_registrar_counters(struct cp_registrar *r, struct cp_registrar_counters *out)
{
    lock_take(&r->shared.lock);
    *out = r->shared.counters;
    lock_drop(&r->shared.lock);
}

void cp_admission_free(struct cp_admission *admission)
{
    cp_ca_leaf_free(&admission->leaf);
}

static struct err say(struct err e, const char *sentence, struct buf *message)
{
    if (!err_ok(e) && message->size == 0) {
        TRY(buf_add_str(message, sentence));
    }
    return e;
}

/* ---- counting and the audit ---- */

#define COUNT(r, name)                                                                             \
    do {                                                                                           \
        lock_take(&(r)->shared.lock);                                                              \
        (r)->shared.counters.name++;                                                               \
        lock_drop(&(r)->shared.lock);                                                              \
    } while (0)

static void audit(struct cp_registrar *r, struct cp_store *store, const struct cp_audit *entry)
{
    struct err e = store->ops->audit_add(store, r->options.environment, entry);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "identity", "audit_lost", LOG_ERR(e), LOG_STR("action", entry->action),
            LOG_STR("object", entry->object));
    }
}

/* Whoever reaches the API may be refused as often as it likes; the database is not filled by it. */
static bool is_audited(struct cp_registrar *r, struct err result)
{
    uint64_t second = clock_mono_ns() / 1000000000;
    if (err_ok(result)) {
        return true;
    }
    if (second != r->audited_second) {
        r->audited_second = second;
        r->audited = 0;
    }
    return r->audited++ < AUDITED_MAX;
}

static struct cp_audit entry_of(const char *action, const char *actor, struct err result)
{
    struct cp_audit entry = {0};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", actor);
    (void)snprintf(entry.action, sizeof(entry.action), "%s", action);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(result.code));
    return entry;
}

/* "node-1 token 0011223344556677": which token it was, and nothing that could be used. */
static void name_token(struct cp_audit *entry, const char *node, const struct join_token *token)
{
    uint8_t digest[DIGEST_SIZE];
    char prefix[2 * PREFIX_SIZE + 1];
    join_token_digest(token, digest);
    text_hex(slice_of(digest, PREFIX_SIZE), prefix);
    (void)snprintf(entry->object, sizeof(entry->object), "%s token %s", node, prefix);
}

static void tell(struct cp_registrar *r, struct cp_store *store, const struct cp_audit *entry,
                 struct err result)
{
    LOG(err_ok(result) ? LOG_INFO : LOG_WARN, "identity", entry->action, LOG_ERR(result),
        LOG_STR("actor", entry->actor), LOG_STR("object", entry->object));
    if (!err_ok(result)) {
        COUNT(r, refused);
    }
    if (is_audited(r, result)) {
        audit(r, store, entry);
    } else {
        COUNT(r, unaudited);
    }
}

/* ---- invitations ---- */

/* The last certificate of the API's chain: its CA's, so that a token is good at every replica and
 * outlives the API's own certificate. */
static struct err find_pin(const char *path, struct join_token *token)
{
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    if (file == NULL) {
        return path == NULL ? OK : FAIL(E_NOT_FOUND);
    }
    auto_buf struct buf pem = BUF_MAX(CHAIN_FILE_MAX);
    auto_chain struct net_chain chain = {.count = 0};
    uint8_t *room = NULL;
    struct err e = buf_reserve(&pem, CHAIN_FILE_MAX, &room);
    if (err_ok(e)) {
        buf_commit(&pem, fread(room, 1, CHAIN_FILE_MAX, file));
    }
    (void)fclose(file);
    TRY(e);
    TRY(net_chain_read(buf_slice(&pem), &chain));
    TRY(net_cert_pin(chain.certs[chain.count - 1], token->pin));
    token->has_pin = true;
    return OK;
}

static struct err judge_invitation(const struct cp_registrar *r, const struct cp_invitation *i,
                                   struct buf *grant, struct buf *message)
{
    if (r->options.certifier == NULL) {
        TRY(buf_add_str(message, "this control plane has no CA, so nobody joins here: start it "
                                 "with --ca DIRECTORY"));
        return FAIL(E_UNSUPPORTED);
    }
    if (!text_is_name(slice_str(i->node))) {
        TRY(buf_addf(message, "node: found \"%.80s\"; expected a name of a-z, 0-9 and '-'",
                     i->node));
        return FAIL(E_USAGE);
    }
    uint64_t ttl_s = i->ttl_ms / 1000;
    if (ttl_s < CP_TOKEN_TTL_MIN_S || ttl_s > CP_TOKEN_TTL_MAX_S) {
        return say(FAIL(E_USAGE), "ttl: expected from one second to 30 days", message);
    }
    struct cp_grant wanted = {.labels = slice_str(i->labels), .sans = slice_str(i->sans)};
    return cp_grant_make(&wanted, grant, message);
}

static struct err invite(struct cp_registrar *r, struct cp_store *store,
                         const struct cp_invitation *i, struct join_token *token,
                         struct cp_join_token *row, struct buf *message)
{
    auto_buf struct buf grant = BUF_MAX(CP_GRANT_MAX);
    TRY(judge_invitation(r, i, &grant, message));
    (void)snprintf(token->environment, sizeof(token->environment), "%s", r->options.environment);
    (void)snprintf(token->node, sizeof(token->node), "%s", i->node);
    ids_random(token->secret, sizeof(token->secret));
    TRY(say(find_pin(r->options.tls_cert, token), "tls-cert: its chain cannot be read", message));
    join_token_digest(token, row->digest);
    (void)snprintf(row->node, sizeof(row->node), "%s", i->node);
    (void)snprintf(row->labels, sizeof(row->labels), "%.*s", SLICE_ARG(buf_slice(&grant)));
    (void)snprintf(row->author, sizeof(row->author), "%s", i->author);
    row->expires_ms = clock_wall_ms() + (int64_t)i->ttl_ms;
    cp_vouch_token(r->options.vouch_key, r->options.environment, row, row->warrant);
    return store->ops->token_put(store, r->options.environment, row);
}

struct err cp_registrar_invite(struct cp_registrar *r, struct cp_store *store,
                               const struct cp_invitation *invitation, struct buf *out_token,
                               int64_t *out_expires_ms, struct buf *message)
{
    auto_join_token struct join_token token = {.has_pin = false};
    struct cp_join_token row = {.expires_ms = 0};
    struct err e = invite(r, store, invitation, &token, &row, message);
    struct cp_audit entry = entry_of("identity token", invitation->author, e);
    if (err_ok(e)) {
        name_token(&entry, token.node, &token);
        COUNT(r, invited);
    } else {
        (void)snprintf(entry.object, sizeof(entry.object), "%.63s", invitation->node);
    }
    tell(r, store, &entry, e);
    TRY(e);
    *out_expires_ms = row.expires_ms;
    return join_token_print(&token, out_token);
}

/* ---- removing ---- */

/* The certificates of a node that are not over, and that a replica gave out. */
struct given {
    const struct cp_registrar *r;
    const char *present; /* serial of the one that it has now; borrowed. */
    struct cp_certificate *items;
    size_t count;
    size_t capacity;
    bool has_present;
};

static struct err take_given(void *ctx, const struct cp_certificate *certificate)
{
    struct given *g = ctx;
    if (!cp_vouched_given(g->r->options.vouch_key, g->r->options.environment, certificate)) {
        LOG(LOG_WARN, "identity", "certificate_unvouched", LOG_STR("node", certificate->node),
            LOG_STR("serial", certificate->serial));
        return OK;
    }
    TRY(array_room(&g->items, g->count, &g->capacity, sizeof(*g->items)));
    g->items[g->count++] = *certificate;
    g->has_present = g->has_present || strcmp(certificate->serial, g->present) == 0;
    return OK;
}

/* What our CA signed for the node needs nobody else to vouch for it: its row is gone, or was
 * written under another token of the API. */
static struct err add_present(struct given *g, const struct cp_node *node,
                              const struct cp_passport *who)
{
    struct cp_certificate certificate = {.not_after_ms = who->not_after_ms};
    if (g->has_present || who->not_after_ms <= clock_wall_ms()) {
        return OK;
    }
    (void)memcpy(certificate.node, node->id, sizeof(certificate.node));
    (void)memcpy(certificate.serial, who->serial, sizeof(certificate.serial));
    cp_vouch_given(g->r->options.vouch_key, g->r->options.environment, &certificate,
                   certificate.warrant);
    TRY(array_room(&g->items, g->count, &g->capacity, sizeof(*g->items)));
    g->items[g->count++] = certificate;
    g->has_present = true;
    return OK;
}

static struct err find_given(struct cp_registrar *r, struct cp_store *store,
                             const struct cp_node *node, struct given *out)
{
    struct cp_passport who;
    struct err e = cp_passport_open(r->passports, node->id,
                                    slice_of(node->certificate, node->certificate_size), &who);
    bool proved = err_ok(e);
    TRY(e.code == E_CERTIFICATE_MISSING ? OK : e);
    out->present = proved ? who.serial : node->serial;
    e = store->ops->certificates_of(store, r->options.environment, node->id, take_given, out);
    out->present = NULL; /* it ends with this call. */
    TRY(e);
    return proved ? add_present(out, node, &who) : OK;
}

static struct err remove_given(struct cp_registrar *r, struct cp_store *store, struct given *g)
{
    const char *environment = r->options.environment;
    for (size_t i = 0; i < g->count; i++) {
        struct cp_certificate *c = &g->items[i];
        if (!cp_vouched_removed(r->options.vouch_key, environment, c)) {
            cp_vouch_removed(r->options.vouch_key, environment, c, c->removal);
            TRY(store->ops->certificate_remove(store, environment, c));
        }
    }
    return OK;
}

/* The row first: from then on nothing more is given out. */
static struct err remove_all(struct cp_registrar *r, struct cp_store *store, const char *name,
                             struct cp_departure *out)
{
    struct cp_node node;
    const char *environment = r->options.environment;
    TRY(text_is_name(slice_str(name)) ? OK : FAIL(E_USAGE));
    TRY(store->ops->node_get(store, environment, name, &node));
    TRY(store->ops->node_remove(store, environment, name));
    struct given given = {.r = r};
    struct err e = find_given(r, store, &node, &given);
    if (err_ok(e)) {
        e = remove_given(r, store, &given);
    }
    *out = (struct cp_departure){.again = node.state == CP_NODE_REMOVED,
                                 .certificates = given.count,
                                 .unvouched = !given.has_present && node.serial[0] != '\0' &&
                                              node.not_after_ms > clock_wall_ms()};
    free(given.items);
    return e;
}

struct err cp_registrar_remove(struct cp_registrar *r, struct cp_store *store,
                               const struct cp_removing *removing, struct cp_departure *out,
                               struct buf *message)
{
    struct err e = remove_all(r, store, removing->node, out);
    struct cp_audit entry = entry_of("identity remove", removing->author, e);
    (void)snprintf(entry.object, sizeof(entry.object), "%.63s", removing->node);
    if (!err_ok(e) || !out->again || !removing->is_retold) {
        tell(r, store, &entry, e);
    }
    if (err_ok(e) && !out->again) {
        COUNT(r, removed);
    }
    if (e.code == E_NOT_FOUND) {
        TRY(buf_addf(message,
                     "no node \"%.63s\" joined; one that was enrolled by hand is removed by taking "
                     "its .pub file out of --node-keys",
                     removing->node));
    }
    return e;
}

/* ---- joining ---- */

/* The row keeps the leaf as it was signed. That it reads back is asked now, and not at its renewal.
 * The certifier may have been started again, and read its authorities anew. */
static struct err keep_leaf(struct cp_registrar *r, const struct cp_ca_leaf *leaf,
                            struct cp_node *node)
{
    auto_chain struct net_chain chain = {.count = 0};
    auto_buf struct buf der = BUF_MAX(CP_CERTIFICATE_MAX);
    struct cp_passport ignored;
    TRY(net_chain_read(buf_slice(&leaf->chain), &chain));
    TRY(net_cert_write(chain.certs[0], &der));
    TRY(cp_passports_set(r->passports, cp_registrar_bundle(r)));
    TRY(cp_passport_open(r->passports, node->id, buf_slice(&der), &ignored));
    (void)memcpy(node->certificate, der.ptr, der.size);
    node->certificate_size = der.size;
    (void)snprintf(node->serial, sizeof(node->serial), "%s", leaf->serial);
    node->not_after_ms = leaf->not_after_ms;
    return OK;
}

static void vouch(const struct cp_registrar *r, struct cp_node *node)
{
    struct cp_certificate certificate = {.not_after_ms = node->not_after_ms};
    (void)memcpy(certificate.node, node->id, sizeof(certificate.node));
    (void)memcpy(certificate.serial, node->serial, sizeof(certificate.serial));
    cp_vouch_given(r->options.vouch_key, r->options.environment, &certificate, node->warrant);
}

struct wish {
    struct slice csr;
    uint64_t count;
    const struct cp_passport *who;
};

/* What is signed for a node, and what is kept of it. */
static struct err make_leaf(struct cp_registrar *r, const struct wish *wish, struct cp_node *node,
                            struct cp_admission *out, struct buf *message)
{
    auto_net_key struct evp_pkey_st *key = NULL;
    struct cp_grant grant = cp_grant_split(slice_str(wish->who->grant));
    TRY(say(net_csr_open(wish->csr, &key),
            "csr: expected a PKCS #10 request in PEM, signed by its own key of P-256 or P-384",
            message));
    struct cp_ca_order order = {.key = key,
                                .node = node->id,
                                .labels = grant.labels,
                                .sans = grant.sans,
                                .ttl_ms = limits.node_cert_ttl_ms,
                                .count = wish->count,
                                .status_key = wish->who->status_key};
    TRY(cp_certifier_sign(r->options.certifier, &order, &out->leaf));
    TRY(keep_leaf(r, &out->leaf, node));
    (void)snprintf(out->node, sizeof(out->node), "%s", node->id);
    (void)snprintf(out->labels, sizeof(out->labels), "%.*s", SLICE_ARG(grant.labels));
    vouch(r, node);
    return OK;
}

static struct err admit(struct cp_registrar *r, struct cp_store *store,
                        const struct cp_evidence *evidence, struct cp_admission *out,
                        struct buf *message)
{
    struct cp_attested attested;
    TRY(r->options.attestor->judge(store, evidence, &attested));
    struct cp_node node = {.state = CP_NODE_ENROLLED};
    struct cp_passport who = {.has_status_key = true};
    (void)snprintf(node.id, sizeof(node.id), "%s", attested.node);
    (void)snprintf(who.grant, sizeof(who.grant), "%s", attested.grant);
    (void)memcpy(who.status_key, evidence->status_key, KEY_PUBLIC_SIZE);
    uint64_t count = net_serial_count(attested.serial) + 1;
    uint64_t now_ms = (uint64_t)clock_wall_ms();
    const struct wish wish = {
        .csr = evidence->csr, .count = count > now_ms ? count : now_ms, .who = &who};
    TRY(make_leaf(r, &wish, &node, out, message));
    return r->options.attestor->enrol(store, evidence, &attested, &node);
}

/* A token that is used between judging and enrolling may have been so by this very node, whose
 * first request is still on its way at another replica, or whose commit nobody answered. */
static struct err admit_once(struct cp_registrar *r, struct cp_store *store,
                             const struct cp_evidence *evidence, struct cp_admission *out,
                             struct buf *message)
{
    for (unsigned i = 1;; i++) { /* ends with another answer, or the second time. */
        struct cp_admission admission = {.leaf.chain = BUF_MAX(NET_CHAIN_BYTES_MAX)};
        struct err e = admit(r, store, evidence, &admission, message);
        if (err_ok(e)) {
            *out = admission;
            return e;
        }
        cp_admission_free(&admission);
        bool again = e.code == E_TOKEN_USED || e.code == E_RESULT_UNKNOWN;
        if (!again || i == AGAIN_MAX) {
            return e;
        }
    }
}

static const char *why_not_joined(enum err_code code)
{
    switch ((int)code) {
    case E_UNAUTHENTICATED:
        return "proof: it is not the status key's signature of this request";
    case E_TOKEN_USED:
        return "this join token was used already, by other keys than these, or ended as its node "
               "was removed";
    case E_TOKEN_MISMATCH:
        return "this join token is another node's, or another environment's";
    default:
        return err_text(code);
    }
}

struct err cp_registrar_join(struct cp_registrar *r, struct cp_store *store,
                             const struct cp_join_request *request, struct cp_admission *out,
                             struct buf *message)
{
    struct cp_evidence evidence = {.environment = r->options.environment,
                                   .environment_id = r->environment_id,
                                   .vouch_key = r->options.vouch_key,
                                   .passports = r->passports,
                                   .token = &request->token,
                                   .csr = request->csr};
    char actor[CP_AUTHOR_MAX + 1];
    if (r->options.certifier == NULL) {
        return say(FAIL(E_UNSUPPORTED), "this control plane has no CA: nobody joins here", message);
    }
    memcpy(evidence.status_key, request->status_key, sizeof(evidence.status_key));
    memcpy(evidence.proof, request->proof, sizeof(evidence.proof));
    struct err e = admit_once(r, store, &evidence, out, message);
    (void)snprintf(actor, sizeof(actor), "node %s", request->token.node);
    struct cp_audit entry = entry_of("identity join", actor, e);
    name_token(&entry, request->token.node, &request->token);
    tell(r, store, &entry, e);
    if (err_ok(e)) {
        COUNT(r, joined);
    }
    return say(e, why_not_joined(e.code), message);
}

/* ---- renewing ---- */

static struct renew_statement statement_of(const struct cp_registrar *r,
                                           const struct cp_renew_request *request)
{
    return (struct renew_statement){.environment = r->environment_id,
                                    .node = slice_str(request->node),
                                    .csr = request->csr,
                                    .at_ms = request->at_ms,
                                    .count = request->count};
}

/*
 * A certificate of a release before does not say its node's status key. The key that the row has is
 * taken for the node's where the certificate's own key says so, too: neither who can write to the
 * database nor who took a certificate with its key has both. Such certificates are over a
 * node-cert-ttl after the last release that made them.
 */
static struct err judge_presented(struct cp_registrar *r, const struct cp_renew_request *request,
                                  const struct cp_node *node, const struct x509_st *cert,
                                  struct cp_passport *who)
{
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    struct renew_statement s = statement_of(r, request);
    if (sodium_is_zero(node->status_key, sizeof(node->status_key))) {
        return FAIL(E_CERTIFICATE_MISSING);
    }
    TRY(present_statement(&s, node->status_key, &statement));
    TRY(net_cert_proves(cert, buf_slice(&statement), request->presented));
    (void)memcpy(who->status_key, node->status_key, sizeof(who->status_key));
    who->has_status_key = true;
    return OK;
}

/* The one that was sent must be in time: it was not kept by us. */
static struct err open_sent(struct cp_registrar *r, const struct cp_renew_request *request,
                            const struct cp_node *node, struct cp_passport *out)
{
    auto_chain struct net_chain chain = {.count = 0};
    auto_buf struct buf der = BUF_MAX(NET_CERT_DER_MAX);
    if (request->certificate.size == 0 || !err_ok(net_chain_read(request->certificate, &chain))) {
        return FAIL(E_CERTIFICATE_MISSING);
    }
    TRY(net_cert_write(chain.certs[0], &der));
    TRY(cp_passport_open(r->passports, node->id, buf_slice(&der), out));
    if (out->not_after_ms <= clock_wall_ms()) {
        return FAIL(E_CERTIFICATE_MISSING);
    }
    return out->has_status_key ? OK : judge_presented(r, request, node, chain.certs[0], out);
}

/* Who the node is that renews. */
static struct err open_row(struct cp_registrar *r, const struct cp_renew_request *request,
                           const struct cp_node *node, struct cp_passport *out)
{
    struct err e = cp_passport_open(r->passports, node->id,
                                    slice_of(node->certificate, node->certificate_size), out);
    if (err_ok(e) && out->has_status_key) {
        return OK;
    }
    TRY(e.code == E_CERTIFICATE_MISSING ? OK : e);
    if (node->certificate_size > 0) {
        LOG(LOG_WARN, "identity", "row_unproved", LOG_STR("node", node->id));
    }
    return open_sent(r, request, node, out);
}

static struct err judge_renewal(struct cp_registrar *r, const struct cp_renew_request *request,
                                const struct cp_node *node, const struct cp_passport *who,
                                struct buf *message)
{
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    struct renew_statement s = statement_of(r, request);
    TRY(renew_statement(&s, &statement));
    if (!key_verify(who->status_key, buf_slice(&statement), request->proof)) {
        return say(FAIL(E_UNAUTHENTICATED), "proof: it is not the node's status key's", message);
    }
    if (node->state == CP_NODE_REMOVED) {
        return FAIL(E_NODE_REMOVED);
    }
    int64_t tolerance_ms = (int64_t)limits.clock_tolerance_ms;
    int64_t now_ms = clock_wall_ms();
    if (request->at_ms < now_ms - tolerance_ms || request->at_ms > now_ms + tolerance_ms) {
        return say(FAIL(E_CLOCK_SKEW), "at_ms: the clocks differ by more than clock-tolerance-ms",
                   message);
    }
    if (request->count <= net_serial_count(who->serial) ||
        request->count >> NET_SERIAL_COUNT_BITS != 0) {
        return FAIL(E_RENEWAL_REPLAYED);
    }
    return OK;
}

static struct err renew(struct cp_registrar *r, struct cp_store *store,
                        const struct cp_renew_request *request, struct cp_admission *out,
                        struct buf *message)
{
    struct cp_node node;
    struct cp_passport who;
    const char *environment = r->options.environment;
    struct err e = store->ops->node_get(store, environment, request->node, &node);
    if (e.code == E_NOT_FOUND) {
        return say(FAIL(E_UNAUTHENTICATED), "no node of this name joined", message);
    }
    TRY(e);
    TRY(say(open_row(r, request, &node, &who),
            "the node's row has no certificate of ours: send \"certificate\" and "
            "\"certificate_proof\", or join again with a new token",
            message));
    TRY(judge_renewal(r, request, &node, &who, message));
    const struct wish wish = {.csr = request->csr, .count = request->count, .who = &who};
    TRY(make_leaf(r, &wish, &node, out, message));
    e = store->ops->node_renew(store, environment, &node);
    return e.code == E_NOT_FOUND ? FAIL(E_NODE_REMOVED) : e;
}

struct err cp_registrar_renew(struct cp_registrar *r, struct cp_store *store,
                              const struct cp_renew_request *request, struct cp_admission *out,
                              struct buf *message)
{
    struct cp_admission admission = {.leaf.chain = BUF_MAX(NET_CHAIN_BYTES_MAX)};
    char actor[CP_AUTHOR_MAX + 1];
    if (r->options.certifier == NULL) {
        return say(FAIL(E_UNSUPPORTED), "this control plane has no CA: nobody renews here",
                   message);
    }
    struct err e = renew(r, store, request, &admission, message);
    (void)snprintf(actor, sizeof(actor), "node %.63s", request->node);
    struct cp_audit entry = entry_of("identity renew", actor, e);
    (void)snprintf(entry.object, sizeof(entry.object), "%.63s serial %s", request->node,
                   admission.leaf.serial);
    tell(r, store, &entry, e);
    if (!err_ok(e)) {
        cp_admission_free(&admission);
        return e;
    }
    COUNT(r, renewed);
    *out = admission;
    return OK;
}
