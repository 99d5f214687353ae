/* head: see head.h. */
#include "controlplane/publish/head.h"

#include <string.h>

static struct err open_head(const struct root *root, struct slice bytes, struct container *c,
                            struct head *out)
{
    struct container_signers signers;
    TRY(container_read(bytes, CONTAINER_HEAD, root->environment_id, c));
    TRY(container_verify(c, &root->ring, KEY_ROLE_HEAD, &signers));
    return head_decode(c->body, out);
}

static void find_highest(const struct head *head, struct cp_head_judged *out)
{
    for (uint32_t i = 0; i < head->target_count; i++) {
        const struct head_target *target = &head->targets[i];
        if (target->version > out->version_max) {
            out->version_max = target->version;
            (void)memcpy(out->digest, target->manifest_digest, DIGEST_SIZE);
        }
    }
}

static enum cp_head_verdict judge_order(const struct head *head, const struct container *c,
                                        const struct cp_head_own *own)
{
    if (head->epoch < own->epoch || (head->epoch == own->epoch && head->sequence < own->sequence)) {
        return CP_HEAD_LOWER;
    }
    if (head->epoch - own->epoch > HEAD_EPOCH_JUMP) {
        return CP_HEAD_JUMP;
    }
    uint8_t digest[DIGEST_SIZE];
    container_body_digest(c, digest);
    bool ours = head->epoch == own->epoch && head->sequence == own->sequence &&
                memcmp(digest, own->digest, sizeof(digest)) == 0;
    return ours ? CP_HEAD_OURS : CP_HEAD_FOREIGN;
}

void cp_head_judge(const struct root *root, struct slice bytes, const struct cp_head_own *own,
                   struct cp_head_judged *out)
{
    *out = (struct cp_head_judged){.verdict = CP_HEAD_MALFORMED};
    struct container c;
    auto_head struct head head = {0};
    struct err e = open_head(root, bytes, &c, &head);
    if (e.code == E_HEAD_UNSIGNED || e.code == E_HEAD_WRONG_KEY) {
        out->verdict = CP_HEAD_UNSIGNED;
        return;
    }
    if (!err_ok(e)) {
        return;
    }
    out->epoch = head.epoch;
    find_highest(&head, out);
    out->order = judge_order(&head, &c, own);
    out->verdict = out->version_max > own->version_max ? CP_HEAD_BEHIND : out->order;
}
