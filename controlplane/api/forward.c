/* forward: see forward.h. */
#include "controlplane/api/forward.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"

enum { CONNECT_MS = 1000, ANSWER_S = 300, LINE_MAX_SIZE = 512 };

struct sending {
    const struct cp_forward *forward;
    struct cp_leader_status to; /* who led when it was sent. */
    atomic_bool *abandoned;
    CURL *curl;
    struct curl_slist *headers;
    struct buf *answer;
};

static void sending_free(struct sending *s)
{
    curl_slist_free_all(s->headers);
    curl_easy_cleanup(s->curl);
}

struct err cp_forward_init(void)
{
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? OK : FAIL(E_NO_MEMORY);
}

static size_t take(char *bytes, size_t size, size_t count, void *ctx)
{
    return err_ok(buf_add(ctx, slice_of(bytes, size * count))) ? size * count : 0;
}

/* A leader that was stopped or cut off answers nothing, and holds no row any more. */
static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct sending *s = ctx;
    struct cp_leader_status now;
    (void)a, (void)b, (void)c, (void)d;
    cp_leader_status(s->forward->leader, &now);
    return now.epoch != s->to.epoch || now.leads || atomic_load(s->abandoned);
}

static struct err add_header(struct sending *s, const char *name, const char *value)
{
    char line[LINE_MAX_SIZE];
    int size = snprintf(line, sizeof(line), "%s:%s%s", name, value[0] == '\0' ? "" : " ", value);
    if (size < 0 || (size_t)size >= sizeof(line)) {
        return FAIL(E_TOO_LARGE);
    }
    struct curl_slist *longer = curl_slist_append(s->headers, line);
    if (longer == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->headers = longer;
    return OK;
}

static struct err set_up(struct sending *s, const struct cp_forward_request *q)
{
    char url[CP_ADDRESS_MAX + 64];
    (void)snprintf(url, sizeof(url), "%s%.60s", s->to.address, q->path);
    TRY(add_header(s, "Authorization", q->authorization));
    TRY(add_header(s, "Content-Type", "application/json"));
    TRY(add_header(s, "Idempotency-Key", q->request));
    TRY(add_header(s, CP_FORWARDED_HEADER, s->forward->replica));
    TRY(add_header(s, "Expect", "")); /* none: the body goes at once. */
    (void)curl_easy_setopt(s->curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(s->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(s->curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(s->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(s->curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    (void)curl_easy_setopt(s->curl, CURLOPT_TIMEOUT, (long)ANSWER_S);
    (void)curl_easy_setopt(s->curl, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(s->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(s->curl, CURLOPT_XFERINFODATA, s);
    (void)curl_easy_setopt(s->curl, CURLOPT_HTTPHEADER, s->headers);
    (void)curl_easy_setopt(s->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body.size);
    (void)curl_easy_setopt(s->curl, CURLOPT_POSTFIELDS,
                           q->body.size == 0 ? "" : (const char *)q->body.ptr);
    (void)curl_easy_setopt(s->curl, CURLOPT_WRITEFUNCTION, take);
    (void)curl_easy_setopt(s->curl, CURLOPT_WRITEDATA, s->answer);
    if (s->forward->ca_file != NULL) {
        (void)curl_easy_setopt(s->curl, CURLOPT_CAINFO, s->forward->ca_file);
    }
    return OK;
}

static struct err perform(struct sending *s, unsigned *out_status)
{
    CURLcode done = curl_easy_perform(s->curl);
    long status = 0;
    (void)curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    if (done != CURLE_OK) {
        LOG(LOG_DEBUG, "forward", "leader_not_reached", LOG_STR("leader", s->to.holder),
            LOG_STR("address", s->to.address), LOG_STR("why", curl_easy_strerror(done)));
        return FAIL(E_UNAVAILABLE);
    }
    *out_status = (unsigned)status;
    return OK;
}

struct err cp_forward_send(const struct cp_forward *forward,
                           const struct cp_forward_request *request, unsigned *out_status,
                           struct buf *answer)
{
    __attribute__((cleanup(sending_free))) struct sending s = {
        .forward = forward, .abandoned = request->abandoned, .answer = answer};
    cp_leader_status(forward->leader, &s.to);
    if (s.to.vacant || s.to.address[0] == '\0' || strcmp(s.to.address, forward->address) == 0) {
        return FAIL(E_NOT_LEADER);
    }
    s.curl = curl_easy_init();
    if (s.curl == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(set_up(&s, request));
    buf_clear(answer);
    return perform(&s, out_status);
}
