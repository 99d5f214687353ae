/*
 * traceparent, tracestate, grpc-timeout, x-request-timeout-ms: any text is taken or refused; what
 * is taken and sent on is taken again as the same, or as no more time than there was.
 */
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/context/context.h"
#include "common/context/timeout.h"
#include "common/context/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void traces(struct slice text)
{
    struct trace t;
    struct trace back;
    char sent[TRACE_PARENT_SIZE + 1];
    bool known = false;
    if (trace_parse(text, &t)) {
        trace_format(&t, sent);
        CHECK(trace_parse(slice_str(sent), &back));
        CHECK(memcmp(&t, &back, sizeof(t)) == 0);
    }
    t = trace_accept(text, text, /* sampled= */ true, &known);
    trace_format(&t, sent);
    CHECK(trace_parse(slice_str(sent), &back)); /* whatever came: what goes on is valid. */
    (void)trace_state_valid(text);
}

static void timeouts(struct slice text)
{
    uint64_t ns = 0;
    uint64_t back = 0;
    char sent[TIMEOUT_TEXT_MAX];
    if (err_ok(timeout_parse_grpc(text, &ns)) || err_ok(timeout_parse_ms(text, &ns))) {
        CHECK(ns <= TIMEOUT_MAX_NS);
        size_t size = timeout_format_grpc(ns, sent);
        CHECK(err_ok(timeout_parse_grpc(slice_of(sent, size), &back)));
        CHECK(back <= ns || (ns == 0 && back == 1));
        size = timeout_format_ms(ns, sent);
        CHECK(err_ok(timeout_parse_ms(slice_of(sent, size), &back)));
        CHECK(back <= ns || back == 1000000);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = slice_of(data, size);
    ids_init();
    traces(text);
    timeouts(text);
    enum context_name name = context_find_http(text);
    CHECK(name == CONTEXT_COUNT || slice_eq_nocase(context_http(name), text));
    (void)context_judge_client(text);
    (void)context_id_valid(text);
    return 0;
}
