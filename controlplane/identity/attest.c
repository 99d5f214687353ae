/* attest: the join token. See attest.h. */
#include "controlplane/identity/attest.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "controlplane/identity/vouch.h"

/* A used token proves nothing any more. The status key that it enrolled does: a node whose answer
 * was lost asks again with the same keys, and gets no more than a renewal would give it. */
static struct err judge_again(struct cp_store *store, const struct cp_evidence *evidence,
                              struct cp_attested *out)
{
    struct cp_node node;
    struct cp_passport passport;
    struct err e = store->ops->node_get(store, evidence->environment, evidence->token->node, &node);
    if (err_ok(e)) {
        e = cp_passport_open(evidence->passports, node.id,
                             slice_of(node.certificate, node.certificate_size), &passport);
    }
    if (e.code == E_NOT_FOUND || e.code == E_CERTIFICATE_MISSING) {
        return FAIL(E_TOKEN_USED);
    }
    TRY(e);
    if (!passport.has_status_key ||
        memcmp(passport.status_key, evidence->status_key, KEY_PUBLIC_SIZE) != 0) {
        return FAIL(E_TOKEN_USED);
    }
    if (node.state == CP_NODE_REMOVED) {
        return FAIL(E_NODE_REMOVED);
    }
    out->again = true;
    (void)memcpy(out->grant, passport.grant, sizeof(out->grant));
    (void)memcpy(out->serial, passport.serial, sizeof(out->serial));
    return OK;
}

/* A row that no replica wrote is no token, and one past its time by our clock is over, whatever the
 * database's says: who can write there can make up both. */
static struct err judge_row(const struct cp_evidence *evidence, const struct cp_join_token *token)
{
    if (!cp_vouched_token(evidence->vouch_key, evidence->environment, token)) {
        LOG(LOG_WARN, "identity", "token_unvouched", LOG_STR("node", token->node));
        return FAIL(E_TOKEN_UNKNOWN);
    }
    return token->expires_ms > clock_wall_ms() ? OK : FAIL(E_TOKEN_EXPIRED);
}

static struct err judge_token(struct cp_store *store, const struct cp_evidence *evidence,
                              const uint8_t digest[DIGEST_SIZE], struct cp_attested *out)
{
    struct cp_join_token token;
    struct err e = store->ops->token_get(store, evidence->environment, digest, &token);
    if (e.code == E_TOKEN_USED) {
        return judge_again(store, evidence, out);
    }
    TRY(e);
    TRY(judge_row(evidence, &token));
    if (strcmp(token.node, evidence->token->node) != 0) {
        return FAIL(E_TOKEN_MISMATCH);
    }
    (void)snprintf(out->grant, sizeof(out->grant), "%s", token.labels);
    return OK;
}

/* The token first: who has none costs us one look into the database. */
static struct err judge(struct cp_store *store, const struct cp_evidence *evidence,
                        struct cp_attested *out)
{
    struct cp_attested attested = {.again = false};
    uint8_t digest[DIGEST_SIZE];
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    const struct join_token *token = evidence->token;
    if (strcmp(token->environment, evidence->environment) != 0) {
        return FAIL(E_TOKEN_MISMATCH);
    }
    join_token_digest(token, digest);
    TRY(judge_token(store, evidence, digest, &attested));
    struct join_statement s = {.environment = evidence->environment_id,
                               .token = digest,
                               .node = slice_str(token->node),
                               .csr = evidence->csr};
    TRY(join_statement(&s, &statement));
    if (!key_verify(evidence->status_key, buf_slice(&statement), evidence->proof)) {
        return FAIL(E_UNAUTHENTICATED);
    }
    (void)snprintf(attested.node, sizeof(attested.node), "%s", token->node);
    *out = attested;
    return OK;
}

static struct err enrol(struct cp_store *store, const struct cp_evidence *evidence,
                        const struct cp_attested *attested, const struct cp_node *node)
{
    if (attested->again) {
        struct err e = store->ops->node_renew(store, evidence->environment, node);
        return e.code == E_NOT_FOUND ? FAIL(E_NODE_REMOVED) : e;
    }
    uint8_t digest[DIGEST_SIZE];
    join_token_digest(evidence->token, digest);
    return store->ops->node_enrol(store, evidence->environment, digest, node);
}

const struct cp_attestor cp_attest_token = {.name = "token", .judge = judge, .enrol = enrol};
