/* check_balance: what a Service says of its endpoints, as far as fields of it speak of each other.
 * See check.h. */
#include "common/base/scope.h"
#include "controlplane/source/check.h"
#include "controlplane/source/check_fit.h"
#include "controlplane/source/decode_scalar.h"

/* A pick by rendezvous looks at every endpoint; a node takes no more. */
enum { RENDEZVOUS_ENDPOINTS_MAX = 1000 };

static void check_policy(struct cp_diags *diags, const struct cp_service *service)
{
    const struct cp_balance *b = &service->balance;
    if (b->at.line == 0 || b->faulty) {
        return;
    }
    bool rendezvous = b->policy == CP_BALANCE_RENDEZVOUS;
    bool hashes = rendezvous || b->policy == CP_BALANCE_RING_HASH;
    bool by = b->hash_by.at.line > 0;
    if (hashes && !by) {
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_KEY_MISSING, b->at,
                         "key \"hashBy\" is missing here, which the policy needs");
        cp_diag_expect(diags, diag, "hashBy: {header: x-session}, or hashBy: {tenant: true}");
    }
    if (!hashes && by) {
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_CHOICE, b->hash_by.at,
                         "the policy does not hash, so there is nothing to hash by");
        cp_diag_expect(diags, diag, "policy: ringHash or rendezvous, or no hashBy");
    }
    cp_check_balance_fits(diags, b);
    if (rendezvous && service->endpoints.count > RENDEZVOUS_ENDPOINTS_MAX) {
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_OUT_OF_BOUND, b->at, "rendezvous over %zu endpoints",
                         service->endpoints.count);
        cp_diag_expect(diags, diag, "at most %d endpoints, or policy: ringHash",
                       RENDEZVOUS_ENDPOINTS_MAX);
    }
}

static MUST_CHECK struct err check_ejection(struct cp_diags *diags,
                                            const struct cp_outlier_detection *o)
{
    if (o->at.line == 0 || o->faulty || o->max_ejection_ms >= o->base_ejection_ms) {
        return OK;
    }
    auto_buf struct buf least = BUF_MAX(64);
    TRY(cp_number_text(&least, CP_TYPE_DURATION, o->base_ejection_ms));
    struct cp_pos at = o->max_ejection_at.line > 0 ? o->max_ejection_at : o->at;
    struct cp_diag *diag =
        cp_diags_add(diags, CP_DIAG_OUT_OF_BOUND, at,
                     "maxEjectionTime is below the baseEjectionTime, which is %.*s",
                     SLICE_ARG(buf_slice(&least)));
    cp_diag_expect(diags, diag, "%.*s or more", SLICE_ARG(buf_slice(&least)));
    return OK;
}

struct err cp_check_balance(struct cp_diags *diags, const struct cp_service *service)
{
    check_policy(diags, service);
    return check_ejection(diags, &service->outlier_detection);
}
