/*
 * api: REST for people, tools and the operator's commands.
 *
 * Shape      HTTP/1.1 on the loop. A request is guarded (Host, Origin, token) before its body is
 *            taken; what takes long is done by a worker, and the answer comes back to the loop.
 * Ownership  cp_api_new() gives an api that cp_api_free() ends; all in the options is borrowed.
 * Threads    the loop's.
 * Errors     answered as {"code", "message", "fix", "field", "diagnostics"}; members that are
 *            empty are left out.
 * Source     docs/control-plane.md, "API".
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/net/loop.h"
#include "common/net/tls.h"
#include "controlplane/api/forward.h"
#include "controlplane/fleet/fleet.h"
#include "controlplane/identity/registrar.h"
#include "controlplane/publish/leader.h"
#include "controlplane/publish/worker.h"

struct cp_api;

struct cp_api_options {
    struct net_loop *loop;
    const char *environment;
    const char *listen;        /* clear text: loopback only; NULL: none. */
    const char *listen_tls;    /* NULL: none. */
    struct net_tls *tls;       /* with listen_tls. */
    const char *server_names;  /* "cp.example.org,…": Host, beside loopback's and advertise. */
    const char *token;         /* that every write must bear. */
    struct cp_forward forward; /* to whoever leads. */
    struct bus *bus;
    struct cp_roots *roots;
    struct cp_leader *leader;
    struct cp_collector *collector;
    struct cp_worker *publisher;
    struct cp_worker *reader;
    struct cp_worker *doorman; /* joins and renewals: no flood of them delays anything else. */
    struct cp_registrar *registrar;
    struct cp_fleet *fleet;
    struct cp_shares *shares;
};

/* E_USAGE when 'listen' is not a loopback address; 'message' gets one sentence. */
MUST_CHECK struct err cp_api_new(const struct cp_api_options *options, struct cp_api **out,
                                 struct buf *message);

/* Takes no more connections and answers what is open; idle() is true when all of it is. */
void cp_api_drain(struct cp_api *api);
bool cp_api_idle(const struct cp_api *api);

/* New connections get this context. */
void cp_api_set_tls(struct cp_api *api, struct net_tls *tls);

/* Gives the listeners back, before the loop is freed. Accepts NULL. */
void cp_api_close(struct cp_api *api);
/* After the loop was freed: its connections name the api. Accepts NULL. */
void cp_api_free(struct cp_api *api);
