/* options: see options.h. */
#include "dataplane/runtime/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/bus/kv.h"
#include "common/bus/subject.h"
#include "common/net/addr.h"
#include "common/net/cert.h"
#include "dataplane/join/join.h"
#include "dataplane/runtime/node.h"
#include "dataplane/runtime/worker.h"

#define TEXT SETTING_TEXT

const struct setting_row dp_node_settings[] = {
    {"environment", "NAME", NULL, "the environment that this node belongs to; as it joined", TEXT},
    {"node-id", "NAME", NULL, "name of this node; as it joined, or the host's name", TEXT},
    {"labels", "K=V,…", NULL, "labels that rollouts select by; those of the certificate go first",
     TEXT},
    {"data-dir", "DIR", NULL, "where last-good is kept, and the identity of a node that joined",
     TEXT},
    {"trust-root", "FILE", NULL, "the root container that trust begins with; as it joined", TEXT},
    {"nats-urls", "URL,…", NULL, "NATS servers; without, the node serves what is on disk", TEXT},
    {"nats-creds", "FILE", NULL, "NATS credentials", TEXT},
    {"nats-user-file", "FILE", NULL,
     "\"user:password\" for NATS, mode 0600: in a URL on the command line everybody reads it",
     TEXT},
    {"nats-ca", "FILE", NULL, "CA of the NATS servers; with it TLS is required", TEXT},
    {"nats-cert", "FILE", NULL, "certificate chain for NATS; needs nats-key", TEXT},
    {"nats-key", "FILE", NULL, "its private key, PEM", TEXT},
    {"nats-bucket-api", "SUBJECT", KV_API, "JetStream's API for snapshots, as it is imported",
     TEXT},
    {"nats-replicas", "N", "1", "servers that keep the streams of events: 1, 3 or 5", TEXT},
    {"key-status", "FILE", NULL, "the node's own key, which signs its status", TEXT},
    {"listen-tls", "ADDR", NULL, "gRPC and HTTP under TLS; :8443 when tls-cert is given", TEXT},
    {"listen", "ADDR", "127.0.0.1:8080", "the same in clear; off: none", TEXT},
    {"listen-proxy-tls", "ADDR", NULL, "proxy under TLS; :8444 when tls-cert is given", TEXT},
    {"listen-proxy", "ADDR", "127.0.0.1:8081", "the same in clear; off: none", TEXT},
    {"listen-admin", "ADDR", "127.0.0.1:8082", "/health /ready /metrics /dump /trace; off: none",
     TEXT},
    {"dns-servers", "ADDR,…", NULL, "resolvers of names; the system's by default", TEXT},
    {"admin-token-file", "FILE", NULL, "a token that /metrics, /dump and /trace ask for", TEXT},
    {"tls-cert", "FILE", NULL, "certificate chain, PEM", TEXT},
    {"tls-key", "FILE", NULL, "its private key, PEM", TEXT},
    {"tls-ca", "FILE", NULL, "CA of callers and upstreams, PEM", TEXT},
    {"pin-workers", "on|off", "off",
     "each worker stays on a core of its own, where there are enough", TEXT},
    {"access-log", "FILE", "-", "one line a request; -: standard output, off: none", TEXT},
    {"log-level", "LEVEL", "info", "error, warn, info or debug", TEXT},
};
const size_t dp_node_setting_count = sizeof(dp_node_settings) / sizeof(dp_node_settings[0]);

/* A token's file, and a path. */
enum { TOKEN_MIN = 16, TOKEN_MAX = 4096, PATH_BYTES_MAX = 4096 };

static struct err wrong(struct buf *message, const char *setting, const char *found,
                        const char *expected)
{
    TRY(buf_addf(message, "%s: %s: %s", setting, found == NULL ? "not given" : found, expected));
    return FAIL(E_USAGE);
}

/* ---- files ---- */

static struct err read_file(const char *path, struct buf *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL(E_NOT_FOUND);
    }
    for (;;) { /* until the end of the file, or past the bound of 'out'. */
        uint8_t bytes[4096];
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return FAIL(E_IO);
        }
        if (n == 0) {
            return OK;
        }
        TRY(buf_add(out, slice_of(bytes, (size_t)n)));
    }
}

static struct err read_setting_file(const struct settings *s, const char *setting, struct buf *out,
                                    struct buf *message)
{
    const char *path = settings_get(s, setting);
    struct err e = path == NULL ? OK : read_file(path, out);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "%s: %s: %s", setting, path, err_text(e.code)));
    }
    return e;
}

static struct err read_token(const struct settings *s, struct dp_options *o, struct buf *message)
{
    o->admin_token = BUF_MAX(TOKEN_MAX);
    TRY(read_setting_file(s, "admin-token-file", &o->admin_token, message));
    while (o->admin_token.size > 0 && o->admin_token.ptr[o->admin_token.size - 1] <= ' ') {
        o->admin_token.size--;
    }
    const char *path = settings_get(s, "admin-token-file");
    if (path != NULL && o->admin_token.size < TOKEN_MIN) {
        return wrong(message, "admin-token-file", path, "a token of at least 16 characters");
    }
    return OK;
}

static struct err read_key_file(struct dp_options *o, const char *setting, const char *path,
                                struct buf *message)
{
    struct err e = key_file_read(path, &o->key);
    if (!err_ok(e) || o->key.public.role != KEY_ROLE_NODE) {
        return wrong(message, setting, path,
                     "a key file of role node, with mode 0600 (trilane-cp identity issue --node)");
    }
    o->has_key = true;
    return OK;
}

static struct err read_key(const struct settings *s, struct dp_options *o, struct buf *message)
{
    const char *path = settings_get(s, "key-status");
    return path == NULL ? OK : read_key_file(o, "key-status", path, message);
}

/* ---- a node that joined ---- */

/* What it got when it joined is not asked for anew, nor gainsaid. */
static struct err check_left_out(const struct settings *s, struct buf *message)
{
    static const char *const settings[] = {"key-status", "tls-cert", "tls-key"};
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (settings_get(s, settings[i]) != NULL) {
            return wrong(message, settings[i], settings_get(s, settings[i]),
                         "this node joined, and has it in data-dir/identity; leave it out");
        }
    }
    return OK;
}

static struct err path_in(const struct dp_identity_dir *dir, const char *name, struct buf *text,
                          const char **out)
{
    *text = BUF_MAX(PATH_BYTES_MAX);
    TRY(dp_identity_path(dir, name, text));
    return buf_cstr(text, out);
}

static struct err use_identity(const struct dp_identity_dir *dir, struct dp_options *o,
                               struct buf *message)
{
    auto_buf struct buf key = BUF_MAX(PATH_BYTES_MAX);
    const char *key_path = NULL;
    const char *ca = NULL;
    TRY(dp_self_settle(dir));
    TRY(dp_self_cert(dir, &o->self, &o->cert, message));
    TRY(path_in(dir, DP_FILE_CERT, &o->identity_paths[0], &o->tls_cert));
    TRY(path_in(dir, DP_FILE_KEY, &o->identity_paths[1], &o->tls_key));
    TRY(path_in(dir, DP_FILE_CA, &o->identity_paths[2], &ca));
    o->tls_ca = o->tls_ca == NULL ? ca : o->tls_ca;
    TRY(path_in(dir, DP_FILE_STATUS_KEY, &key, &key_path));
    o->joined = true;
    return read_key_file(o, "data-dir", key_path, message);
}

static struct err read_identity(const struct settings *s, struct dp_options *o, struct buf *message)
{
    auto_identity_dir struct dp_identity_dir dir = {.fd = -1};
    struct err e = dp_identity_open(o->data_dir, /* make= */ false, &dir, message);
    if (err_ok(e)) {
        e = dp_self_read(&dir, &o->self, message);
    }
    if (e.code == E_NOT_FOUND) {
        return OK; /* it did not join. */
    }
    if (err_ok(e)) {
        e = check_left_out(s, message);
    }
    if (err_ok(e)) {
        e = use_identity(&dir, o, message);
    }
    if (!err_ok(e) && message->size == 0) {
        TRY(buf_addf(message, "data-dir: %s/identity: %s", o->data_dir, err_text(e.code)));
    }
    return e;
}

/* ---- names ---- */

/* A setting that says otherwise than the node's certificate is a mistake, whichever is right. */
static struct err agree(const struct settings *s, const char *setting, const char *joined,
                        struct buf *message)
{
    const char *given = settings_get(s, setting);
    if (given == NULL || strcmp(given, joined) == 0) {
        return OK;
    }
    TRY(buf_addf(message, "%s: %s: this node joined as \"%s\"; leave it out, or join anew", setting,
                 given, joined));
    return FAIL(E_USAGE);
}

static struct err read_joined_names(const struct settings *s, struct dp_options *o,
                                    struct buf *message)
{
    TRY(agree(s, "environment", o->self.environment, message));
    TRY(agree(s, "node-id", o->self.node, message));
    o->environment = slice_str(o->self.environment);
    (void)snprintf(o->node, sizeof(o->node), "%s", o->self.node);
    return OK;
}

static struct err read_names(const struct settings *s, struct dp_options *o, struct buf *message)
{
    if (o->joined) {
        return read_joined_names(s, o, message);
    }
    o->environment = slice_str(settings_get(s, "environment"));
    if (!text_is_name(o->environment)) {
        return wrong(message, "environment", settings_get(s, "environment"),
                     "a name of a-z, 0-9 and - is needed");
    }
    char host[KEY_NAME_MAX + 1] = "";
    const char *node = settings_get(s, "node-id");
    if (node == NULL && gethostname(host, sizeof(host) - 1) == 0) {
        node = host;
    }
    if (!text_is_name(slice_str(node))) {
        return wrong(message, "node-id", node, "a name of a-z, 0-9 and - is needed");
    }
    (void)snprintf(o->node, sizeof(o->node), "%s", node);
    return OK;
}

static struct err read_chain(const struct dp_options *o, struct net_chain *out)
{
    auto_buf struct buf pem = BUF_MAX(NET_CHAIN_BYTES_MAX);
    TRY(o->tls_cert == NULL ? FAIL(E_NOT_FOUND) : read_file(o->tls_cert, &pem));
    return net_chain_read(buf_slice(&pem), out);
}

/* The labels of a certificate that was made elsewhere: its subject may say what it likes, and what
 * is no list of labels is none. */
static void cert_labels(const struct dp_options *o, struct buf *out)
{
    auto_chain struct net_chain chain = {.count = 0};
    struct labels labels;
    if (!err_ok(read_chain(o, &chain)) || !err_ok(net_cert_labels(chain.certs[0], out)) ||
        !err_ok(labels_parse(buf_slice(out), &labels))) {
        buf_clear(out);
    }
}

static struct err read_labels(const struct settings *s, struct dp_options *o, struct buf *message)
{
    auto_buf struct buf certified = BUF_MAX(LABELS_TEXT_MAX);
    const char *given = settings_get(s, "labels");
    struct labels wanted;
    if (!err_ok(labels_parse(slice_str(given), &wanted))) {
        return wrong(message, "labels", given,
                     "up to 8 of name=value, separated by commas, each name once");
    }
    if (o->joined) {
        TRY(buf_add_str(&certified, o->cert.labels));
    } else {
        cert_labels(o, &certified);
    }
    bool has = o->joined || certified.size > 0;
    (void)snprintf(o->label_text, sizeof(o->label_text), "%.*s",
                   SLICE_ARG(has ? buf_slice(&certified) : slice_str(given)));
    TRY(labels_parse(slice_str(o->label_text), &o->labels));
    if (has && given != NULL && !labels_eq(&o->labels, &wanted)) {
        TRY(buf_addf(message, "labels: %s: the certificate says \"%s\"; leave them out", given,
                     o->label_text));
        return FAIL(E_USAGE);
    }
    return OK;
}

static struct err read_root(const struct settings *s, struct dp_options *o, struct buf *message)
{
    if (!o->joined || settings_get(s, "trust-root") != NULL) {
        return read_setting_file(s, "trust-root", &o->trust_root, message);
    }
    struct err e = dp_join_root(o->data_dir, &o->trust_root);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "data-dir: %s/roots: %s", o->data_dir, err_text(e.code)));
    }
    return e;
}

/* ---- addresses ---- */

static const char *address(const struct settings *s, const char *setting, const char *otherwise)
{
    const char *text = settings_get(s, setting);
    if (text == NULL) {
        return otherwise;
    }
    return strcmp(text, "off") == 0 || text[0] == '\0' ? NULL : text;
}

static bool is_loopback(const char *text)
{
    struct slice host = {0};
    uint16_t port = 0;
    struct net_addr addr;
    if (!err_ok(net_host_port(slice_str(text), &host, &port))) {
        return false;
    }
    if (slice_eq(host, SLICE_LIT("localhost"))) {
        return true;
    }
    if (!err_ok(net_addr_from_ip(host, port, &addr))) {
        return false;
    }
    return addr.sa.any.sa_family == AF_INET ? (ntohl(addr.sa.v4.sin_addr.s_addr) >> 24) == 127
                                            : IN6_IS_ADDR_LOOPBACK(&addr.sa.v6.sin6_addr);
}

static struct err read_addresses(const struct settings *s, struct dp_options *o,
                                 struct buf *message)
{
    bool tls = o->tls_cert != NULL;
    o->ports[DP_PORT_TLS] = address(s, "listen-tls", tls ? ":8443" : NULL);
    o->ports[DP_PORT_CLEAR] = address(s, "listen", NULL);
    o->ports[DP_PORT_PROXY_TLS] = address(s, "listen-proxy-tls", tls ? ":8444" : NULL);
    o->ports[DP_PORT_PROXY_CLEAR] = address(s, "listen-proxy", NULL);
    o->admin = address(s, "listen-admin", NULL);
    if (!tls && (o->ports[DP_PORT_TLS] != NULL || o->ports[DP_PORT_PROXY_TLS] != NULL)) {
        return wrong(message, "tls-cert", NULL, "listen-tls and listen-proxy-tls need it");
    }
    if (o->admin != NULL && !is_loopback(o->admin) && o->admin_token.size == 0) {
        return wrong(message, "listen-admin", o->admin,
                     "an address that others reach needs admin-token-file");
    }
    return OK;
}

/* ---- directories ---- */

static struct err read_directories(const struct settings *s, struct dp_options *o,
                                   struct buf *message)
{
    o->data_dir = settings_get(s, "data-dir");
    if (o->data_dir == NULL) {
        return wrong(message, "data-dir", NULL, "a directory for last-good is needed");
    }
    if (mkdir(o->data_dir, 0700) != 0 && errno != EEXIST) {
        return wrong(message, "data-dir", o->data_dir, strerrordesc_np(errno));
    }
    o->state_dir = BUF_MAX(PATH_BYTES_MAX);
    const char *ignored = NULL;
    TRY(buf_addf(&o->state_dir, "%s/state", o->data_dir));
    return buf_cstr(&o->state_dir, &ignored);
}

static struct err judge_nats(const struct dp_options *o, struct buf *message)
{
    if ((o->nats_cert == NULL) != (o->nats_key == NULL)) {
        return wrong(message, o->nats_cert == NULL ? "nats-cert" : "nats-key", NULL,
                     "nats-cert and nats-key go together");
    }
    struct slice api = slice_str(o->nats_bucket_api);
    if (!subject_is_valid(api) || api.size > KV_API_MAX) {
        return wrong(message, "nats-bucket-api", o->nats_bucket_api, "a subject");
    }
    return OK;
}

static struct err read_replicas(const struct settings *s, struct dp_options *o, struct buf *message)
{
    const char *text = settings_get(s, "nats-replicas");
    uint64_t number = 0;
    if (!slice_to_u64(slice_str(text), &number) || (number != 1 && number != 3 && number != 5)) {
        return wrong(message, "nats-replicas", text, "1, 3 or 5");
    }
    o->nats_replicas = (uint32_t)number;
    return OK;
}

static struct err read_pin(const struct settings *s, struct dp_options *o, struct buf *message)
{
    const char *text = settings_get(s, "pin-workers");
    o->pin_workers = strcmp(text, "on") == 0;
    return o->pin_workers || strcmp(text, "off") == 0
               ? OK
               : wrong(message, "pin-workers", text, "on or off");
}

static void read_plain(const struct settings *s, struct dp_options *o)
{
    o->workers = limits.workers;
    if (o->workers == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        o->workers = cores < 1 ? 1 : (size_t)cores;
    }
    o->dns_servers = settings_get(s, "dns-servers");
    o->nats_urls = settings_get(s, "nats-urls");
    o->nats_creds = settings_get(s, "nats-creds");
    o->nats_user_file = settings_get(s, "nats-user-file");
    o->nats_ca = settings_get(s, "nats-ca");
    o->nats_bucket_api = settings_get(s, "nats-bucket-api");
    o->nats_cert = settings_get(s, "nats-cert");
    o->nats_key = settings_get(s, "nats-key");
    o->tls_cert = settings_get(s, "tls-cert");
    o->tls_key = settings_get(s, "tls-key");
    o->tls_ca = settings_get(s, "tls-ca");
    o->access_log = settings_get(s, "access-log");
    if (strcmp(o->access_log, "off") == 0) {
        o->access_log = NULL;
    }
}

struct err dp_options_read(const struct settings *settings, struct dp_options *out,
                           struct buf *message)
{
    *out = (struct dp_options){0};
    out->trust_root = BUF_MAX(CONTAINER_HEADER_SIZE + ROOT_BODY_MAX +
                              CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE);
    read_plain(settings, out);
    TRY(read_directories(settings, out, message));
    TRY(read_identity(settings, out, message));
    TRY(read_names(settings, out, message));
    TRY(judge_nats(out, message));
    TRY(read_replicas(settings, out, message));
    TRY(read_pin(settings, out, message));
    TRY(read_labels(settings, out, message));
    TRY(read_root(settings, out, message));
    TRY(read_token(settings, out, message));
    TRY(out->joined ? OK : read_key(settings, out, message));
    return read_addresses(settings, out, message);
}

void dp_options_free(struct dp_options *o)
{
    buf_free(&o->admin_token);
    buf_free(&o->state_dir);
    buf_free(&o->trust_root);
    for (size_t i = 0; i < DP_IDENTITY_PATHS; i++) {
        buf_free(&o->identity_paths[i]);
    }
    key_pair_wipe(&o->key);
}

/* ---- TLS ---- */

static struct err make_tls(const struct dp_options *o, struct net_tls_trust *trust,
                           struct net_tls *own, struct dp_worker_tls *out)
{
    struct net_tls_options options = {
        .trust = trust,
        .client_cert = trust == NULL ? NET_TLS_CLIENT_CERT_NONE : NET_TLS_CLIENT_CERT_OPTIONAL,
    };
    if (trust != NULL) {
        TRY(net_tls_client_new(&options, &out->client));
    }
    options.cert_file = o->tls_cert;
    options.key_file = o->tls_key;
    options.own = own;
    if (o->tls_cert != NULL) {
        TRY(net_tls_server_new(&options, &out->server));
        options.own = out->server; /* read once: all of them show the same. */
        if (trust != NULL) {       /* else the system's CAs would vouch for upstreams of ours. */
            TRY(net_tls_client_new(&options, &out->client_cert));
        }
        options.http1_only = true;
        TRY(net_tls_server_new(&options, &out->proxy));
    }
    return OK;
}

struct err dp_options_cert_ends(const struct dp_options *o, int64_t *out_s)
{
    auto_chain struct net_chain chain = {.count = 0};
    struct net_cert_times times;
    TRY(read_chain(o, &chain));
    TRY(net_cert_times(chain.certs[0], &times));
    *out_s = times.ends_s;
    return OK;
}

struct err dp_options_trust(const struct dp_options *o, const struct net_tls_bundle *bundles,
                            size_t bundle_count, struct net_tls_trust **out)
{
    *out = NULL;
    return o->tls_ca == NULL && bundle_count == 0
               ? OK
               : net_tls_trust_bound_new(o->tls_ca, bundles, bundle_count, out);
}

struct err dp_options_tls(const struct dp_options *o, struct net_tls_trust *trust,
                          struct net_tls *own, struct dp_worker_tls *out)
{
    struct dp_worker_tls tls = {0};
    struct err e = make_tls(o, trust, own, &tls);
    if (!err_ok(e)) {
        dp_worker_tls_unref(&tls);
        return e;
    }
    *out = tls;
    return OK;
}
