/* replica: see replica.h. What stands here follows controlplane/cli/cmd_serve.c. */
#include "tests/model/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"

#include "tests/model/database.h"
#include "tests/model/signer.h"
#include "tests/model/world.h"

/* A replica that cannot start is started again. */
#define AGAIN_NS (2 * SIM_SECOND)

/* ---- keys ---- */

static void make_key(enum key_role role, unsigned index, unsigned number, struct key_pair *out)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "cp-%u-%u", index, number);
    CHECK(err_ok(key_pair_new(role, slice_str(name), out)));
}

void replica_rekey(struct replica *replica, unsigned number)
{
    make_key(KEY_ROLE_MANIFEST, replica->index, number, &replica->manifest_key);
    make_key(KEY_ROLE_HEAD, replica->index, number, &replica->head_key);
}

static void on_death(struct sim_process *process)
{
    ((struct replica *)process)->leader = NULL;
}

void replica_init(struct replica *replica, unsigned index, const char *directory)
{
    *replica = (struct replica){.index = index};
    (void)snprintf(replica->name, sizeof(replica->name), "cp-%u", index);
    (void)snprintf(replica->directory, sizeof(replica->directory), "%s/%s", directory,
                   replica->name);
    CHECK(mkdir(replica->directory, 0700) == 0);
    replica->machine.process.name = replica->name;
    replica->machine.process.clock = sim_clock_draw();
    replica->machine.process.on_death = on_death;
    replica_rekey(replica, 0);
}

/* ---- a life ---- */

static void restore(void *ctx)
{
    struct replica *r = ctx;
    cp_worker_restore(r->publisher);
}

static void heard(void *ctx, const struct cp_fleet_order *most, struct cp_fleet_order *out)
{
    struct replica *r = ctx;
    cp_fleet_order(r->fleet, most, out);
}

static void follow(void *ctx)
{
    struct replica *r = ctx;
    cp_cosigner_wake(r->cosigner);
}

static void republish(void *ctx)
{
    struct replica *r = ctx;
    cp_worker_republish(r->publisher);
}

static const struct cp_warrant_key warrant_key = {.bytes = "the token that all of them have"};

static struct err make_workers(struct replica *r, struct buf *message)
{
    TRY(cp_shelf_new(&r->shelf));
    struct cp_publish_room room = {.environment = WORLD_ENVIRONMENT,
                                   .dp_check = "off",
                                   .directory = r->directory,
                                   .bus = r->bus,
                                   .roots = r->roots,
                                   .signer = r->signer,
                                   .warrant_key = &warrant_key,
                                   .leader = r->leader,
                                   .fleet = r->fleet,
                                   .shelf = r->shelf,
                                   .bucket.replicas = NATS_SERVERS};
    TRY(cp_collector_new(&r->collector));
    room.collector = r->collector;
    TRY(cp_worker_start(&room, database_url(), &r->publisher, message));
    room.collector = NULL; /* it is the publisher's. */
    TRY(cp_worker_start(&room, database_url(), &r->signatory, message));
    return cp_cosigner_new(r->bus, WORLD_ENVIRONMENT, r->signatory, &r->cosigner);
}

/* The roots of the files, and those of the database that they lead to. */
static struct err make_roots(struct replica *r, struct buf *message)
{
    struct cp_store *store = NULL;
    TRY(cp_roots_new(world_first_root_path(), WORLD_ENVIRONMENT, &r->roots, message));
    TRY(cp_store_open(database_url(), &store, message));
    struct err e = cp_roots_exchange(r->roots, store, WORLD_ENVIRONMENT, message);
    cp_store_close(store);
    return e;
}

static struct err make(struct replica *r, struct buf *message)
{
    TRY(make_roots(r, message));
    TRY(signer_start(r, &r->signer));
    struct cp_leader_options leader = {.environment = WORLD_ENVIRONMENT,
                                       .name = r->name,
                                       .address = "",
                                       .store = database_url(),
                                       .bus = r->bus,
                                       .roots = r->roots,
                                       .signer = r->signer,
                                       .warrant_key = &warrant_key,
                                       .restore = restore,
                                       .republish = republish,
                                       .heard = heard,
                                       .follow = follow,
                                       .ctx = r};
    TRY(cp_leader_new(&leader, &r->leader, message));
    struct cp_fleet_options fleet = {.environment = WORLD_ENVIRONMENT,
                                     .node_keys = world_node_keys(),
                                     .replicas = NATS_SERVERS,
                                     .store = database_url(),
                                     .bus = r->bus,
                                     .restore = restore,
                                     .restore_ctx = r};
    TRY(cp_fleet_new(&fleet, &r->fleet, message));
    TRY(make_workers(r, message));
    TRY(cp_fleet_run(r->fleet));
    return cp_leader_run(r->leader);
}

/* In the order of cmd_serve.c. */
static void unmake(struct replica *r)
{
    struct cp_leader *leader = TAKE_PTR(r->leader); /* nobody asks it any more. */
    cp_fleet_stop(r->fleet);
    cp_worker_finish(r->publisher);
    cp_worker_finish(r->signatory);
    cp_leader_free(leader);
    cp_cosigner_free(r->cosigner);
    cp_fleet_free(r->fleet);
    cp_worker_free(r->publisher);
    cp_worker_free(r->signatory);
    cp_shelf_free(r->shelf);
    cp_collector_free(r->collector);
    cp_signer_stop(r->signer);
    cp_roots_free(r->roots);
}

static void run_call(struct cp_task *task, struct cp_publish_room *room)
{
    struct api_call *call = (struct api_call *)task;
    if (call->work.kind == CP_WORK_RECOVER) {
        cp_recover_run(room, &call->work);
    } else {
        cp_publish_run(room, &call->work);
    }
    call->done = true;
}

static void take_call(struct replica *r)
{
    struct api_call *call = r->inbox;
    r->inbox = NULL;
    call->task.run = run_call;
    struct err e = cp_worker_push(r->publisher, &call->task);
    if (!err_ok(e)) {
        call->work.result = e;
        call->done = true;
    }
}

static bool has_something_to_do(void *ctx)
{
    const struct replica *r = ctx;
    return r->stops || r->inbox != NULL;
}

/* Whoever watches over it starts it again. */
static void start_again(void *ctx)
{
    struct replica *r = ctx;
    if (!r->machine.process.alive) {
        replica_start(r);
    }
}

static void fail_to_start(struct replica *r, struct err e, const struct buf *message)
{
    sim_note("%s does not start: %s %.*s", r->name, err_name(e.code),
             SLICE_ARG(buf_slice(message)));
    sim_at(sim_now_ns() + AGAIN_NS, start_again, r);
    sim_kill(&r->machine.process);
}

static void body(void *ctx)
{
    struct replica *r = ctx;
    auto_buf struct buf message = BUF_MAX(4096);
    struct err e = make(r, &message);
    if (!err_ok(e)) {
        fail_to_start(r, e, &message);
    }
    while (!r->stops) {
        (void)sim_wait(has_something_to_do, r, SIM_NEVER);
        if (r->inbox != NULL) {
            take_call(r);
        }
    }
    unmake(r);
    sim_kill(&r->machine.process);
}

void replica_start(struct replica *replica)
{
    struct bus *bus = calloc(1, sizeof(*bus)); /* another one in each life. */
    CHECK(bus != NULL);
    *bus = (struct bus){.process = &replica->machine.process, .link = &replica->machine.nats};
    replica->bus = bus;
    replica->stops = false;
    replica->signer_dies = false;
    replica->inbox = NULL;
    sim_start(&replica->machine.process, body, replica);
}

void replica_stop(struct replica *replica)
{
    replica->stops = true;
}
