/* forward: see forward.h. */
#include "controlplane/api/forward.h"

#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "common/net/ask.h"
#include "controlplane/api/json.h"

enum {
    CONNECT_MS = 1000,
    WORK_MS = 300000, /* all that a leader does beside waiting for signatures. */
    WHOLE_MS = CP_SIGN_WAIT_MAX_MS + WORK_MS,
    LINE_SIZE = 512,
};

struct sending {
    const struct cp_forward *forward;
    struct cp_leader_status to; /* who led when it was sent. */
    atomic_bool *abandoned;
};

/* A leader that was stopped or cut off answers nothing, and holds no row any more. */
static bool gives_up(const void *ctx)
{
    const struct sending *s = ctx;
    struct cp_leader_status now;
    cp_leader_status(s->forward->leader, &now);
    return now.epoch != s->to.epoch || now.leads || atomic_load(s->abandoned);
}

static struct err header(char line[LINE_SIZE], const char *name, const char *value)
{
    int size = snprintf(line, LINE_SIZE, "%s: %s", name, value);
    return size >= 0 && size < LINE_SIZE ? OK : FAIL(E_TOO_LARGE);
}

static struct err send_to_leader(const struct sending *s, const struct cp_forward_request *q,
                                 unsigned *out_status, struct buf *answer)
{
    char url[CP_ADDRESS_MAX + 64];
    char authorization[LINE_SIZE];
    char request[LINE_SIZE];
    char forwarded[LINE_SIZE];
    (void)snprintf(url, sizeof(url), "%s%.60s", s->to.address, q->path);
    TRY(header(authorization, "Authorization", q->authorization));
    TRY(header(request, "Idempotency-Key", q->request));
    TRY(header(forwarded, CP_FORWARDED_HEADER, s->forward->replica));
    struct net_ask ask = {.url = url,
                          .posts = true,
                          .body = q->body,
                          .headers = {authorization, request, forwarded},
                          .connect_ms = CONNECT_MS,
                          .whole_ms = WHOLE_MS,
                          .ca_file = s->forward->ca_file,
                          .gives_up = gives_up,
                          .ctx = s};
    const char *why = NULL;
    if (!err_ok(net_ask(&ask, out_status, answer, &why))) {
        LOG(LOG_DEBUG, "forward", "leader_not_reached", LOG_STR("leader", s->to.holder),
            LOG_STR("address", s->to.address), LOG_STR("why", why));
        return FAIL(E_UNAVAILABLE);
    }
    return OK;
}

struct err cp_forward_send(const struct cp_forward *forward,
                           const struct cp_forward_request *request, unsigned *out_status,
                           struct buf *answer)
{
    struct sending s = {.forward = forward, .abandoned = request->abandoned};
    cp_leader_status(forward->leader, &s.to);
    if (s.to.vacant || s.to.address[0] == '\0' || strcmp(s.to.address, forward->address) == 0) {
        return FAIL(E_NOT_LEADER);
    }
    buf_clear(answer);
    return send_to_leader(&s, request, out_status, answer);
}
