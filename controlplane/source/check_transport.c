/* check_transport: what TransportProfiles demand, and of whom it can be demanded. See check.h. */
#include "common/base/scope.h"
#include "controlplane/source/check.h"
#include "controlplane/source/decode_scalar.h"

static const struct cp_transport_profile *profile_of(const struct cp_ref *ref)
{
    return (const struct cp_transport_profile *)ref->to;
}

static MUST_CHECK struct err check_timeouts(struct cp_diags *diags,
                                            const struct cp_transport_profile *p)
{
    if (p->timeout_max_ms == 0 || p->timeout_max_ms >= p->timeout_ms) {
        return OK;
    }
    auto_buf struct buf least = BUF_MAX(64);
    TRY(cp_number_text(&least, CP_TYPE_DURATION, p->timeout_ms));
    struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_OUT_OF_BOUND, p->timeout_max_at,
                                        "timeoutMax is below the timeout, which is %.*s",
                                        SLICE_ARG(buf_slice(&least)));
    cp_diag_expect(diags, diag, "%.*s or more", SLICE_ARG(buf_slice(&least)));
    return OK;
}

/* ---- versions ---- */

/* There are two: the least is 1.3 and the highest 1.2. */
static void check_order(struct cp_diags *diags, uint64_t least, uint64_t most, struct cp_pos at)
{
    if (least != 0 && most != 0) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_OUT_OF_BOUND, at,
                                            "tlsMin is TLSv1.3, which is above tlsMax");
        cp_diag_expect(diags, diag, "a tlsMax of TLSv1.3, or a tlsMin of TLSv1.2");
    }
}

/* What only a handshake can verify: in cleartext it would hold for nobody. At line 0: not given. */
static void refuse_beside_cleartext(struct cp_diags *diags, const struct cp_transport_profile *p,
                                    struct cp_pos at, const char *what)
{
    if (p->upstream_tls == 0 && at.line > 0) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_CHOICE, at, "%s beside cleartext", what);
        cp_diag_expect(diags, diag, "tls: tls or mtls beside it");
    }
}

static void check_versions(struct cp_diags *diags, const struct cp_transport_profile *p)
{
    check_order(diags, p->upstream_tls_min, p->upstream_tls_max, p->upstream_tls_min_at);
    check_order(diags, p->listener_tls_min, p->listener_tls_max, p->listener_tls_min_at);
    struct cp_pos at =
        p->upstream_tls_min_at.line > 0 ? p->upstream_tls_min_at : p->upstream_tls_max_at;
    refuse_beside_cleartext(diags, p, at, "a version of TLS");
}

/* Who names whom the upstream must be, and nothing more, would have calls made to anybody. */
static void check_names(struct cp_diags *diags, const struct cp_transport_profile *p)
{
    bool named = p->upstream_spiffe.at.line + p->upstream_server_name.at.line > 0;
    if (p->upstream_tls == 0 && named && !cp_diags_pass_over(diags)) {
        refuse_beside_cleartext(diags, p, p->upstream_spiffe.at, "a SPIFFE id to verify");
        refuse_beside_cleartext(diags, p, p->upstream_server_name.at, "a name to verify");
    }
}

/* ---- listeners ---- */

static bool asks_callers(const struct cp_transport_profile *p)
{
    return p->listener_tls + p->listener_tls_min + p->listener_tls_max != 0;
}

/*
 * Ports take callers of all services. What a profile asks of callers would be passed over where a
 * Service, a Route or an Egress names it: it is refused instead, unless the Environment asks it.
 */
static void check_use(struct cp_diags *diags, const struct cp_transport_profile *asked,
                      const struct cp_ref *ref)
{
    const struct cp_transport_profile *p = profile_of(ref);
    if (p == NULL || p == asked || !asks_callers(p)) {
        return;
    }
    struct cp_diag *diag = cp_diags_add(
        diags, CP_DIAG_CHOICE, ref->at,
        "TransportProfile \"%.*s\" has a listener, which only the Environment can ask of "
        "callers",
        SLICE_ARG(ref->text));
    cp_diag_expect(diags, diag,
                   "a profile without listener, or the one that spec.transport of the "
                   "Environment names");
}

/* Of what is no listener's: the first that is said; NULL: nothing is. */
static const char *says_of_calls(const struct cp_transport_profile *p)
{
    const struct {
        const char *key;
        bool is_said;
    } keys[] = {
        {"timeout", p->timeout_at.line > 0},
        {"timeoutMax", p->timeout_max_ms != 0},
        {"connectTimeout", p->connect_timeout_at.line > 0},
        {"idleTimeout", p->idle_timeout_ms != 0},
        {"requestMessage", p->request_message_bytes != 0},
        {"responseMessage", p->response_message_bytes != 0},
        {"upstream", p->upstream_tls + p->upstream_max_age_ms != 0},
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].is_said) {
            return keys[i].key;
        }
    }
    return NULL;
}

/*
 * The Environment asks a listener of callers, and nothing else: what its profile says besides holds
 * for nobody, unless a Service, a Route or an Egress names the profile as well.
 */
static void check_asked(struct cp_diags *diags, const struct cp_ref *ref, bool used)
{
    const struct cp_transport_profile *p = profile_of(ref);
    bool listens =
        p->listener_tls_at.line + p->listener_tls_min_at.line + p->listener_tls_max_at.line > 0;
    const char *idle = used ? NULL : says_of_calls(p);
    if ((!listens || idle != NULL) && cp_diags_pass_over(diags)) {
        return;
    }
    if (!listens) {
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_CHOICE, ref->at,
                         "TransportProfile \"%.*s\" asks nothing of callers", SLICE_ARG(ref->text));
        cp_diag_expect(diags, diag,
                       "one with a listener; calls are made as Services, Routes and "
                       "Egresses say");
    } else if (idle != NULL) {
        struct cp_diag *diag = cp_diags_add(
            diags, CP_DIAG_CHOICE, ref->at,
            "TransportProfile \"%.*s\" says %s, which holds for nobody: the Environment asks for "
            "the listener alone",
            SLICE_ARG(ref->text), idle);
        cp_diag_expect(diags, diag,
                       "a profile with a listener alone, or a Service, Route or Egress "
                       "that names this one, too");
    }
}

static bool is_used(const struct cp_model *model, const struct cp_transport_profile *p)
{
    bool used = false;
    const struct cp_resources *all = &model->of[CP_KIND_SERVICE];
    for (size_t i = 0; i < all->count && !used; i++) {
        used = profile_of(&((const struct cp_service *)all->items[i])->transport) == p;
    }
    all = &model->of[CP_KIND_ROUTE];
    for (size_t i = 0; i < all->count && !used; i++) {
        used = profile_of(&((const struct cp_route *)all->items[i])->transport) == p;
    }
    all = &model->of[CP_KIND_EGRESS];
    for (size_t i = 0; i < all->count && !used; i++) {
        used = profile_of(&((const struct cp_egress *)all->items[i])->transport) == p;
    }
    return used;
}

static void check_uses(const struct cp_model *model, struct cp_diags *diags,
                       const struct cp_transport_profile *asked)
{
    const struct cp_resources *all = &model->of[CP_KIND_SERVICE];
    for (size_t i = 0; i < all->count; i++) {
        check_use(diags, asked, &((const struct cp_service *)all->items[i])->transport);
    }
    all = &model->of[CP_KIND_ROUTE];
    for (size_t i = 0; i < all->count; i++) {
        check_use(diags, asked, &((const struct cp_route *)all->items[i])->transport);
    }
    all = &model->of[CP_KIND_EGRESS];
    for (size_t i = 0; i < all->count; i++) {
        check_use(diags, asked, &((const struct cp_egress *)all->items[i])->transport);
    }
}

/* What a tenant writes does not open or close the ports of all. */
static void check_owner(struct cp_diags *diags, const struct cp_ref *ref)
{
    if (ref->to == NULL || slice_eq(ref->to->tenant.text, SLICE_LIT("-"))) {
        return;
    }
    struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_REFERENCE_FOREIGN, ref->at,
                                        "TransportProfile \"%.*s\" belongs to tenant \"%.*s\"",
                                        SLICE_ARG(ref->text), SLICE_ARG(ref->to->tenant.text));
    cp_diag_expect(diags, diag, "one of the platform, without metadata.tenant");
}

struct err cp_check_transport(const struct cp_model *model, struct cp_diags *diags)
{
    const struct cp_resources *profiles = &model->of[CP_KIND_TRANSPORT_PROFILE];
    for (size_t i = 0; i < profiles->count; i++) {
        const struct cp_transport_profile *p =
            (const struct cp_transport_profile *)profiles->items[i];
        TRY(check_timeouts(diags, p));
        check_versions(diags, p);
        check_names(diags, p);
    }
    const struct cp_resources *environments = &model->of[CP_KIND_ENVIRONMENT];
    if (environments->count != 1) {
        return OK; /* that was refused: what it would ask nobody knows. */
    }
    const struct cp_environment *environment =
        (const struct cp_environment *)environments->items[0];
    check_owner(diags, &environment->transport);
    if (environment->transport.to != NULL || environment->transport.text.size == 0) {
        check_uses(model, diags, profile_of(&environment->transport));
    }
    const struct cp_transport_profile *asked = profile_of(&environment->transport);
    if (asked != NULL && !asked->meta.faulty) {
        check_asked(diags, &environment->transport, is_used(model, asked));
    }
    return OK;
}
