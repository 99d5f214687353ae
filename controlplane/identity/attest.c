/* attest: the join token. See attest.h. */
#include "controlplane/identity/attest.h"

#include <stdio.h>
#include <string.h>

/* A used token proves nothing any more. The status key that it enrolled does: a node whose answer
 * was lost asks again with the same keys, and gets no more than a renewal would give it. */
static struct err judge_again(struct cp_store *store, const struct cp_evidence *evidence,
                              struct cp_attested *out)
{
    struct cp_node node;
    struct err e = store->ops->node_get(store, evidence->environment, evidence->token->node, &node);
    if (e.code == E_NOT_FOUND) {
        return FAIL(E_TOKEN_USED);
    }
    TRY(e);
    if (memcmp(node.status_key, evidence->status_key, KEY_PUBLIC_SIZE) != 0) {
        return FAIL(E_TOKEN_USED);
    }
    if (node.state == CP_NODE_REMOVED) {
        return FAIL(E_NODE_REMOVED);
    }
    out->again = true;
    (void)snprintf(out->grant, sizeof(out->grant), "%s", node.labels);
    (void)snprintf(out->serial, sizeof(out->serial), "%s", node.serial);
    return OK;
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
