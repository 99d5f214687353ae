/* yaml: rules as people write them. */
#include <string.h>
#include <time.h>

#include "tests/policy/plain.h"
#include "tests/support/cmocka.h"

#define ADD(out, ...) assert_true(err_ok(buf_addf(out, __VA_ARGS__)))

static void add_bits(struct buf *out, const char *key, unsigned bits, const char *const *names,
                     int count)
{
    if (bits == 0) {
        return;
    }
    const char *comma = "";
    ADD(out, "      %s: [", key);
    for (int i = 0; i < count; i++) {
        if ((bits >> i & 1) != 0) {
            ADD(out, "%s%s", comma, names[i]);
            comma = ", ";
        }
    }
    ADD(out, "]\n");
}

static void add_caller(struct buf *out, const struct plain_caller *c)
{
    ADD(out, "        - {");
    if (c->service >= 0) {
        ADD(out, "service: %s/s%d, ", plain_tenants[c->service_tenant], c->service);
    }
    if (c->tenant >= 0) {
        ADD(out, "tenant: %s, ", plain_tenants[c->tenant]);
    }
    if (c->domain >= 0) {
        ADD(out, "trustDomain: %s, ", plain_domains[c->domain]);
    }
    if (c->id[0] != '\0') {
        ADD(out, "id: \"%s\", ", c->id);
    }
    bool some = false;
    for (int i = 0; i < PLAIN_NAMES; i++) {
        if (c->traits[i] >= 0) {
            ADD(out, "%s%s: \"%s\", ", some ? "" : "traits: {", plain_traits[i],
                plain_values[c->traits[i]]);
            some = true;
        }
    }
    ADD(out, "%s}\n", some ? "}" : "");
}

static void add_instant(struct buf *out, const char *key, int64_t ms)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(ms / 1000);
    assert_non_null(gmtime_r(&seconds, &tm));
    assert_true(strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 20);
    ADD(out, "      %s: \"%s\"\n", key, text);
}

static void add_window(struct buf *out, const struct plain_window *w)
{
    static const char *const days[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
    const char *comma = "";
    ADD(out, "        - {from: \"%02d:%02d\", to: \"%02d:%02d\"", w->from / 60, w->from % 60,
        w->to / 60, w->to % 60);
    if (w->offset != 0) {
        int minutes = w->offset < 0 ? -w->offset : w->offset;
        ADD(out, ", offset: \"%c%02d:%02d\"", w->offset < 0 ? '-' : '+', minutes / 60,
            minutes % 60);
    }
    if (w->days != 0) {
        ADD(out, ", days: [");
        for (int i = 0; i < 7; i++) {
            if ((w->days >> i & 1) != 0) {
                ADD(out, "%s%s", comma, days[i]);
                comma = ", ";
            }
        }
        ADD(out, "]");
    }
    ADD(out, "}\n");
}

static void add_times(struct buf *out, const struct plain_rule *r)
{
    if (r->window_count > 0) {
        ADD(out, "      windows:\n");
    }
    for (int i = 0; i < r->window_count; i++) {
        add_window(out, &r->windows[i]);
    }
    if (r->bounded) {
        add_instant(out, "notBefore", r->not_before_ms);
        add_instant(out, "notAfter", r->not_after_ms);
    }
}

static void add_headers(struct buf *out, const struct plain_rule *r)
{
    if (r->headers[0] >= 0 || r->headers[1] >= 0) {
        ADD(out, "      headers:\n");
    }
    for (int i = 0; i < PLAIN_NAMES; i++) {
        if (r->headers[i] == 99) {
            ADD(out, "        - {name: %s, present: true}\n", plain_headers[i]);
        } else if (r->headers[i] >= 0) {
            ADD(out, "        - {name: %s, value: \"%s\"}\n", plain_headers[i],
                plain_values[r->headers[i]]);
        }
    }
}

static void add_rule(struct buf *out, const struct plain_rule *r)
{
    ADD(out, "    - name: %s\n      effect: %s\n", r->name, r->deny ? "deny" : "allow");
    if (r->shadow) {
        ADD(out, "      shadow: true\n");
    }
    add_bits(out, "verbs", r->verbs, plain_verbs, 4);
    add_bits(out, "lanes", r->lanes, plain_lanes, 3);
    if (r->caller_count > 0) {
        ADD(out, "      callers:\n");
    }
    for (int i = 0; i < r->caller_count; i++) {
        add_caller(out, &r->callers[i]);
    }
    if (r->method_count > 0) {
        ADD(out, "      methods:\n");
    }
    for (int i = 0; i < r->method_count; i++) {
        ADD(out, "        - \"%s\"\n", r->methods[i]);
    }
    add_headers(out, r);
    if (r->condition.count > 0) {
        ADD(out, "      condition: >-\n        ");
        plain_condition_text(&r->condition, out);
        ADD(out, "\n");
    }
    add_times(out, r);
}

void plain_rules_yaml(const struct plain_rule *rules, int count, struct buf *out)
{
    for (int i = 0; i < count; i++) {
        add_rule(out, &rules[i]);
    }
}

void plain_yaml(const struct plain_world *world, const struct plain_rule *rules, int count,
                struct buf *out)
{
    ADD(out,
        "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
        "spec: {security: dev, trustDomain: test.example, trustDomains: [other.example]%s}\n"
        "---\napiVersion: trilane.dev/v1\nkind: Service\n"
        "metadata: {name: orders, tenant: acme}\nspec: {}\n",
        world->guarded ? ", guardrails: {policy: {missPercent: 90}}" : "");
    for (int i = 0; i < 2 * world->services; i++) {
        ADD(out,
            "---\napiVersion: trilane.dev/v1\nkind: Service\n"
            "metadata: {name: s%d, tenant: %s}\nspec: {}\n",
            i / 2, plain_tenants[i % 2]);
    }
    if (count == 0) {
        return;
    }
    ADD(out, "---\napiVersion: trilane.dev/v1\nkind: Policy\nmetadata: {name: p, tenant: acme}\n"
             "spec:\n  target: {service: orders}\n  rules:\n");
    plain_rules_yaml(rules, count, out);
}
