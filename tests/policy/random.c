/* random: rules and requests. */
#include <stdio.h>
#include <string.h>

#include "tests/policy/plain.h"

const char *const plain_verbs[4] = {"call", "publish", "subscribe", "fetch"};
const char *const plain_lanes[3] = {"operator", "canonical", "proxy"};
const char *const plain_tenants[2] = {"acme", "globex"};
const char *const plain_domains[2] = {"test.example", "other.example"};
const char *const plain_traits[PLAIN_NAMES] = {"team", "tier"};
const char *const plain_headers[PLAIN_NAMES] = {"x-a", "x-b"};
const char *const plain_values[PLAIN_VALUES] = {"one", "two", "twofold", "t/x", "7", "-12", "007"};

static uint64_t state;

void plain_seed(uint64_t seed)
{
    state = seed;
}

/* splitmix64 */
uint64_t plain_random(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

int plain_below(int count)
{
    return (int)(plain_random() % (uint64_t)count);
}

bool plain_chance(int percent)
{
    return plain_below(100) < percent;
}

static void random_method(const struct plain_world *world, char out[PLAIN_TEXT])
{
    static const char *const words[] = {"Get", "List", "Set", "GetAll"};
    int package = plain_below(world->packages);
    (void)snprintf(out, PLAIN_TEXT, "/p%d.S/%s", package, words[plain_below(4)]);
}

/* Now and then one that no rule about a service may name. */
static void random_request_method(const struct plain_world *world, char out[PLAIN_TEXT])
{
    if (plain_chance(5)) {
        (void)snprintf(out, PLAIN_TEXT, "%s", plain_chance(50) ? "GET" : "User.v1");
        return;
    }
    random_method(world, out);
}

static void random_glob(const struct plain_world *world, char out[PLAIN_TEXT])
{
    static const char *const others[] = {"*/Get", "/*/?et", "*List*", "*", "/p?.S/G*", "*S/*All"};
    int package = plain_below(world->packages);
    switch (plain_below(world->precise && plain_chance(95) ? 3 : 4)) {
    case 0:
        (void)snprintf(out, PLAIN_TEXT, "/p%d.S/*", package);
        return;
    case 1:
        (void)snprintf(out, PLAIN_TEXT, "/p%d.*", package);
        return;
    case 2:
        (void)snprintf(out, PLAIN_TEXT, "/p%d.S/Get*", package);
        return;
    default:
        (void)snprintf(out, PLAIN_TEXT, "%s", others[plain_below(6)]);
        return;
    }
}

static void random_caller(const struct plain_world *world, struct plain_caller *c)
{
    *c = (struct plain_caller){.service = -1, .tenant = -1, .domain = -1, .traits = {-1, -1}};
    if (world->precise || plain_chance(60)) {
        c->service = plain_below(world->services);
        c->service_tenant = plain_below(2);
        return;
    }
    c->tenant = plain_chance(50) ? plain_below(2) : -1;
    c->domain = plain_chance(20) ? plain_below(2) : -1;
    for (int i = 0; i < PLAIN_NAMES; i++) {
        c->traits[i] = plain_chance(30) ? plain_below(PLAIN_VALUES) : -1;
    }
    if (c->tenant < 0 && c->domain < 0 && c->traits[0] < 0 && c->traits[1] < 0) {
        (void)snprintf(c->id, sizeof(c->id), plain_chance(50) ? "%s/s%d*" : "%s/*%d",
                       plain_tenants[plain_below(2)], plain_below(10));
    }
}

static void random_window(struct plain_window *w)
{
    w->days = plain_chance(50) ? 0 : 1U + (unsigned)plain_below(127);
    w->from = plain_below(24 * 4) * 15;
    w->to = plain_below(24 * 4 + 1) * 15;
    w->to = w->to == w->from ? w->from + 1 : w->to;
    w->offset = plain_chance(50) ? 0 : (plain_below(57) - 28) * 30;
}

int64_t plain_random_time(void)
{
    /* Three weeks from Thursday, 1 January 2026. */
    return INT64_C(1767225600000) + (int64_t)(plain_random() % UINT64_C(1814400000));
}

static void random_times(struct plain_rule *r)
{
    r->window_count = plain_below(3);
    for (int i = 0; i < r->window_count; i++) {
        random_window(&r->windows[i]);
    }
    r->bounded = r->window_count == 0 || plain_chance(30);
    r->not_before_ms = plain_random_time() / 1000 * 1000;
    r->not_after_ms = r->not_before_ms + 1000 + (int64_t)(plain_random() % 900000) * 1000;
}

static void random_methods(const struct plain_world *world, struct plain_rule *r)
{
    r->method_count = world->precise || plain_chance(80) ? 1 + plain_below(PLAIN_METHODS) : 0;
    for (int i = 0; i < r->method_count; i++) {
        if (plain_chance(world->globs)) {
            random_glob(world, r->methods[i]);
        } else {
            random_method(world, r->methods[i]);
        }
        for (int k = 0; k < i; k++) { /* none twice: that is refused. */
            if (strcmp(r->methods[k], r->methods[i]) == 0) {
                r->method_count = i;
            }
        }
    }
}

void plain_random_rule(const struct plain_world *world, int index, struct plain_rule *r)
{
    *r = (struct plain_rule){.deny = plain_chance(world->denies),
                             .shadow = plain_chance(world->shadows)};
    /* Names whose order is not that of the rules in the file. */
    (void)snprintf(r->name, sizeof(r->name), "r%d-%d", plain_below(10), index);
    (void)snprintf(r->id, sizeof(r->id), "acme/p/%s", r->name);
    /* The target is a service: a rule without its verb and lane is refused. */
    r->verbs = plain_chance(30) ? (unsigned)plain_below(16) | 1U : 0;
    r->lanes = plain_chance(20) ? (unsigned)plain_below(8) | 1U : 0;
    r->caller_count = world->precise || plain_chance(80) ? 1 + plain_below(PLAIN_CALLERS) : 0;
    for (int i = 0; i < r->caller_count; i++) {
        random_caller(world, &r->callers[i]);
    }
    random_methods(world, r);
    for (int i = 0; i < PLAIN_NAMES; i++) {
        r->headers[i] = !plain_chance(world->headers) ? -1
                        : plain_chance(30)            ? 99
                                                      : plain_below(PLAIN_VALUES);
    }
    if (plain_chance(world->conditions)) {
        plain_random_condition(world, &r->condition);
    }
    if (plain_chance(world->windows)) {
        random_times(r);
    }
}

void plain_random_request(const struct plain_world *world, struct plain_request *q)
{
    *q = (struct plain_request){.verb = plain_below(4),
                                .lane = plain_below(3),
                                .tenant = plain_below(2),
                                .service = plain_below(world->services),
                                .domain = plain_below(2),
                                .wall_ms = plain_random_time()};
    for (int i = 0; i < PLAIN_NAMES; i++) {
        q->traits[i] = plain_below(PLAIN_VALUES + 1) - 1;
        q->headers[i] = plain_below(PLAIN_VALUES + 1) - 1;
    }
    if (plain_chance(10)) { /* of a token: no service, but a subject that ends like one's name. */
        (void)snprintf(q->caller, sizeof(q->caller), "%s/idp#u/s%d", plain_tenants[q->tenant],
                       q->service);
        q->service = -1;
    } else {
        (void)snprintf(q->caller, sizeof(q->caller), "%s/s%d", plain_tenants[q->tenant],
                       q->service);
    }
    random_request_method(world, q->method);
}
