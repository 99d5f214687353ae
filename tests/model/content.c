/* content: see content.h. */
#include "tests/model/content.h"

#include <stdio.h>

#include "common/base/check.h"

#include "tests/model/world.h"

enum { PORT = 10000, TEXT_MAX = 2048 };

static const char steady[] =
    "apiVersion: trilane.dev/v1\n"
    "kind: Environment\n"
    "metadata: {name: " WORLD_ENVIRONMENT "}\n"
    "spec: {security: dev, trustDomain: model.example}\n"
    "---\n"
    "apiVersion: trilane.dev/v1\n"
    "kind: Service\n"
    "metadata: {name: web, tenant: acme}\n"
    "spec: {endpoints: [{address: 127.0.0.1, port: 9}]}\n"
    "---\n"
    "apiVersion: trilane.dev/v1\n"
    "kind: Policy\n"
    "metadata: {name: orders, tenant: acme}\n"
    "spec:\n"
    "  target: {service: orders}\n"
    "  rules:\n"
    "    - {name: web, effect: allow, verbs: [call], callers: [{service: web}]}\n";

/* Routing by each number, transport by every second one: then a chunk of it is taken over. */
static const char changing[] = "apiVersion: trilane.dev/v1\n"
                               "kind: TransportProfile\n"
                               "metadata: {name: internal}\n"
                               "spec: {timeout: %ums}\n"
                               "---\n"
                               "apiVersion: trilane.dev/v1\n"
                               "kind: Service\n"
                               "metadata: {name: orders, tenant: acme}\n"
                               "spec:\n"
                               "  endpoints: [{address: 127.0.0.1, port: %u}]\n"
                               "  transport: internal\n"
                               "---\n"
                               "apiVersion: trilane.dev/v1\n"
                               "kind: Service\n"
                               "metadata: {name: stock, tenant: acme}\n"
                               "spec:\n"
                               "  endpoints: [{address: 127.0.0.1, port: %u}]\n";

static unsigned timeout_ms(unsigned number)
{
    return PORT + number / 2;
}

void content_add(struct cp_source_set *set, uint64_t number)
{
    char text[TEXT_MAX];
    unsigned n = (unsigned)number;
    int size = snprintf(text, sizeof(text), changing, timeout_ms(n), PORT + n, PORT + n);
    CHECK(n < PORT && size > 0 && (size_t)size < sizeof(text));
    CHECK(err_ok(cp_source_set_add(set, SLICE_LIT("steady.yaml"), slice_str(steady))));
    CHECK(err_ok(cp_source_set_add(set, SLICE_LIT("changing.yaml"), slice_of(text, (size_t)size))));
}

static bool listens_at(const struct dp_cluster *cluster, unsigned port)
{
    return cluster != NULL && cluster->endpoint_count == 1 && cluster->endpoints[0].port == port;
}

const char *content_wrong(const struct dp_model *model, uint64_t number)
{
    const struct dp_cluster *orders = dp_model_cluster(model, SLICE_LIT("service/acme/orders"));
    const struct dp_cluster *stock = dp_model_cluster(model, SLICE_LIT("service/acme/stock"));
    unsigned n = (unsigned)number;
    if (n == 0 && orders != NULL && orders->endpoint_count == 1) {
        n = orders->endpoints[0].port - PORT;
    }
    if (!listens_at(orders, PORT + n) || !listens_at(stock, PORT + n)) {
        return "an endpoint";
    }
    if (dp_model_cluster(model, SLICE_LIT("service/acme/web")) == NULL ||
        dp_model_policy(model, &orders->target) == NULL) {
        return "what never changes";
    }
    const struct dp_transport *transport = dp_model_transport(model, orders->transport);
    return transport->timeout_ms == timeout_ms(n) ? NULL : "the transport";
}
