/* sockets: see sockets.h. */
#include "dataplane/runtime/sockets.h"

#include <sys/socket.h>

#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/net/addr.h"
#include "common/net/listener.h"
#include "dataplane/runtime/handover.h"
#include "dataplane/runtime/options.h"
#include "dataplane/runtime/worker.h"

/* Where the ports are taken from, and put. */
struct sockets {
    const struct dp_options *options;
    struct dp_handover *handed;
    struct dp_worker_config *config;
};

bool dp_socket_listens_on(int fd, const char *text)
{
    struct net_addr wanted = {0};
    struct net_addr bound = {0};
    socklen_t size = sizeof(bound.sa);
    return fd >= 0 && getsockname(fd, &bound.sa.any, &size) == 0 &&
           err_ok(net_addr_resolve_boot(slice_str(text), &wanted)) && net_addr_eq(&wanted, &bound);
}

/* The socket of a port: the one that was handed over, or a new one. */
static struct err get_socket(const struct sockets *s, enum dp_port_id id,
                             struct net_addr *out_bound)
{
    const char *text = s->options->ports[id];
    if (!dp_socket_listens_on(s->handed->ports[id], text)) {
        return net_listen(slice_str(text), &s->config->port_fds[id], out_bound);
    }
    s->config->port_fds[id] = TAKE_FD(s->handed->ports[id]);
    return net_addr_resolve_boot(slice_str(text), out_bound);
}

/* A socket that cannot be had is named with its setting. */
static struct err listen_on(const struct sockets *s, enum dp_port_id id, struct buf *message)
{
    static const char *const settings[DP_PORT_COUNT] = {
        [DP_PORT_TLS] = "listen-tls",
        [DP_PORT_CLEAR] = "listen",
        [DP_PORT_PROXY_TLS] = "listen-proxy-tls",
        [DP_PORT_PROXY_CLEAR] = "listen-proxy",
    };
    const char *text = s->options->ports[id];
    if (text == NULL) {
        return OK;
    }
    struct net_addr bound;
    char shown[NET_ADDR_TEXT_MAX];
    struct err e = get_socket(s, id, &bound);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "%s: %s: the address cannot be listened on; is it taken?",
                     settings[id], text));
        return e;
    }
    s->config->listens[s->config->listen_count++] = bound;
    LOG(LOG_INFO, "runtime", "listening", LOG_STR("setting", settings[id]),
        LOG_STR("address", net_addr_text(&bound, shown)));
    return OK;
}

struct err dp_sockets_open(const struct dp_options *options, struct dp_handover *handed,
                           struct dp_worker_config *config, struct buf *message)
{
    const struct sockets all = {options, handed, config};
    for (int i = 0; i < DP_PORT_COUNT; i++) {
        TRY(listen_on(&all, (enum dp_port_id)i, message));
    }
    struct net_addr admin = {0};
    if (options->admin != NULL && err_ok(net_addr_parse(slice_str(options->admin), &admin))) {
        config->listens[config->listen_count++] = admin;
    }
    return OK;
}
