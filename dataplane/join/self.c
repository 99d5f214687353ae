/* self: see self.h. */
#include "dataplane/join/self.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/net/csr.h"
#include "common/net/tls.h"
#include "common/snapshot/file.h"
#include "dataplane/apply/fault.h"

#define JOINED_FIRST "trilane joined 1\n"

enum { JOINED_MAX = 4096, NAME_SIZE = 64 };

/* ---- the directory ---- */

static struct err make_directory(const char *path, struct buf *message)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        TRY(buf_addf(message, "%s: %s", path, strerrordesc_np(errno)));
        return FAIL(E_IO);
    }
    return OK;
}

struct err dp_identity_open(const char *data_dir, bool make, struct dp_identity_dir *out,
                            struct buf *message)
{
    struct dp_identity_dir dir = {.fd = -1};
    int size = snprintf(dir.path, sizeof(dir.path), "%s/identity", data_dir);
    if (size < 0 || (size_t)size >= sizeof(dir.path)) {
        return FAIL(E_TOO_LARGE);
    }
    if (make) {
        TRY(make_directory(data_dir, message));
        TRY(make_directory(dir.path, message));
    }
    auto_close int fd = open(dir.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_IO);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        TRY(buf_addf(message, "%s: another process joins or renews here", dir.path));
        return FAIL(E_CONFLICT);
    }
    dir.fd = TAKE_FD(fd);
    *out = dir;
    return OK;
}

void dp_identity_close(struct dp_identity_dir *dir)
{
    scope_close(&dir->fd);
}

/* Aside, then in its place: whoever reads finds the one or the other, and whole. */
struct err dp_identity_put(const struct dp_identity_dir *dir, const char *name, struct slice bytes)
{
    char aside[NAME_SIZE];
    (void)snprintf(aside, sizeof(aside), "%.50s.aside", name);
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    auto_close int fd = openat(dir->fd, aside, flags, 0600);
    if (fd < 0 || !err_ok(file_write_at(fd, bytes, 0)) || fsync(fd) != 0) {
        (void)unlinkat(dir->fd, aside, 0);
        return FAIL(E_PERSIST_FAILED);
    }
    return dp_identity_rename(dir, aside, name);
}

struct err dp_identity_rename(const struct dp_identity_dir *dir, const char *from, const char *to)
{
    bool done = renameat(dir->fd, from, dir->fd, to) == 0 && fsync(dir->fd) == 0;
    return done ? OK : FAIL(E_PERSIST_FAILED);
}

struct err dp_identity_get(const struct dp_identity_dir *dir, const char *name, struct buf *out)
{
    auto_close int fd = openat(dir->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uint8_t *room = NULL;
    size_t size = 0;
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_IO);
    }
    TRY(buf_reserve(out, out->max - out->size, &room));
    TRY(file_read_at(fd, room, out->max - out->size, 0, &size));
    if (size == out->max - out->size) {
        return FAIL(E_TOO_LARGE); /* there may be more of it. */
    }
    buf_commit(out, size);
    return OK;
}

struct err dp_identity_path(const struct dp_identity_dir *dir, const char *name, struct buf *out)
{
    return buf_addf(out, "%s/%s", dir->path, name);
}

/* ---- joined ---- */

struct err dp_self_write(const struct dp_identity_dir *dir, const struct dp_self *self)
{
    auto_buf struct buf text = BUF_MAX(JOINED_MAX);
    char pin[2 * JOIN_PIN_SIZE + 1] = "-";
    char token[2 * DIGEST_SIZE + 1];
    text_hex(slice_of(self->token, DIGEST_SIZE), token);
    if (self->has_pin) {
        text_hex(slice_of(self->pin, JOIN_PIN_SIZE), pin);
    }
    TRY(buf_addf(&text,
                 JOINED_FIRST "environment: %s\nnode: %s\nserver: %s\npin: %s\ntoken: %s\n"
                              "root: %llu\nepoch: %llu\nversion: %llu\n",
                 self->environment, self->node, self->server, pin, token,
                 (unsigned long long)self->seed.root_version, (unsigned long long)self->seed.epoch,
                 (unsigned long long)self->seed.version));
    return dp_identity_put(dir, DP_FILE_JOINED, buf_slice(&text));
}

/* Takes one line "<name>: <value>" off the front. */
static struct err take_line(struct slice *rest, const char *name, struct slice *out)
{
    size_t end = slice_find(*rest, '\n');
    struct slice line = slice_head(*rest, end);
    struct slice wanted = slice_str(name);
    if (end == rest->size || !slice_starts(line, wanted) ||
        !slice_starts(slice_from(line, wanted.size), SLICE_LIT(": "))) {
        return FAIL(E_MALFORMED);
    }
    *out = slice_from(line, wanted.size + 2);
    *rest = slice_from(*rest, end + 1);
    return OK;
}

static struct err take_text(struct slice *rest, const char *name, char *out, size_t size)
{
    struct slice value = {0};
    TRY(take_line(rest, name, &value));
    if (value.size == 0 || value.size >= size || slice_find(value, '\0') != value.size) {
        return FAIL(E_MALFORMED); /* what is behind a NUL would be lost without a word. */
    }
    memcpy(out, value.ptr, value.size);
    out[value.size] = '\0';
    return OK;
}

static struct err take_number(struct slice *rest, const char *name, uint64_t *out)
{
    struct slice value = {0};
    TRY(take_line(rest, name, &value));
    return slice_to_u64(value, out) ? OK : FAIL(E_MALFORMED);
}

static struct err decode(struct slice text, struct dp_self *out)
{
    struct dp_self self = {.has_pin = true};
    struct slice value = {0};
    if (!slice_starts(text, SLICE_LIT(JOINED_FIRST))) {
        return FAIL(E_MALFORMED);
    }
    text = slice_from(text, sizeof(JOINED_FIRST) - 1);
    TRY(take_text(&text, "environment", self.environment, sizeof(self.environment)));
    TRY(take_text(&text, "node", self.node, sizeof(self.node)));
    TRY(take_text(&text, "server", self.server, sizeof(self.server)));
    TRY(take_line(&text, "pin", &value));
    self.has_pin = !slice_eq(value, SLICE_LIT("-"));
    TRY(self.has_pin ? text_unhex(value, self.pin, sizeof(self.pin)) : OK);
    TRY(take_line(&text, "token", &value));
    TRY(text_unhex(value, self.token, sizeof(self.token)));
    TRY(take_number(&text, "root", &self.seed.root_version));
    TRY(take_number(&text, "epoch", &self.seed.epoch));
    TRY(take_number(&text, "version", &self.seed.version));
    if (text.size > 0 || !text_is_name(slice_str(self.environment)) ||
        !text_is_name(slice_str(self.node))) {
        return FAIL(E_MALFORMED);
    }
    *out = self;
    return OK;
}

struct err dp_self_read(const struct dp_identity_dir *dir, struct dp_self *out, struct buf *message)
{
    auto_buf struct buf text = BUF_MAX(JOINED_MAX);
    struct err e = dp_identity_get(dir, DP_FILE_JOINED, &text);
    if (err_ok(e)) {
        e = decode(buf_slice(&text), out);
    }
    if (!err_ok(e) && e.code != E_NOT_FOUND) {
        TRY(buf_addf(message, "%s/" DP_FILE_JOINED ": %s; join anew", dir->path, err_text(e.code)));
    }
    return e;
}

/* ---- the certificate ---- */

static struct err read_key(const struct dp_identity_dir *dir, const char *name,
                           struct evp_pkey_st **out)
{
    auto_buf struct buf pem = BUF_MAX(NET_KEY_PEM_MAX);
    struct err e = dp_identity_get(dir, name, &pem);
    if (err_ok(e)) {
        e = net_key_read(buf_slice(&pem), out);
    }
    if (pem.ptr != NULL) {
        sodium_memzero(pem.ptr, pem.capacity);
    }
    return e;
}

static bool is_for(const struct dp_identity_dir *dir, const struct net_chain *chain,
                   const char *key_name)
{
    auto_net_key struct evp_pkey_st *key = NULL;
    return err_ok(read_key(dir, key_name, &key)) && net_cert_is_for(chain->certs[0], key);
}

/* The certificate that lies there decides: its key goes first, so that what is in force is a pair
 * again as soon as both are in their places, however often this is broken off. */
static struct err finish(const struct dp_identity_dir *dir, const struct net_chain *chain)
{
    if (is_for(dir, chain, DP_FILE_KEY_NEXT)) {
        TRY(dp_identity_rename(dir, DP_FILE_KEY_NEXT, DP_FILE_KEY));
    } else if (!is_for(dir, chain, DP_FILE_KEY)) {
        return unlinkat(dir->fd, DP_FILE_CERT_NEXT, 0) == 0 ? OK : FAIL(E_PERSIST_FAILED);
    }
    TRY(dp_fault("identity.key"));
    return dp_identity_rename(dir, DP_FILE_CERT_NEXT, DP_FILE_CERT);
}

struct err dp_self_settle(const struct dp_identity_dir *dir)
{
    auto_buf struct buf pem = BUF_MAX(DP_IDENTITY_FILE_MAX);
    auto_chain struct net_chain chain = {.count = 0};
    struct err e = dp_identity_get(dir, DP_FILE_CERT_NEXT, &pem);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    TRY(net_chain_read(buf_slice(&pem), &chain));
    return finish(dir, &chain);
}

struct err dp_self_take_cert(const struct dp_identity_dir *dir, struct slice chain)
{
    TRY(dp_identity_put(dir, DP_FILE_CERT_NEXT, chain));
    TRY(dp_fault("identity.next"));
    return dp_self_settle(dir);
}

static struct err say(struct err e, const char *sentence, struct buf *message)
{
    if (!err_ok(e) && message->size == 0) {
        TRY(buf_add_str(message, sentence));
    }
    return e;
}

static struct err judge_name(const struct dp_self *self, struct x509_st *cert)
{
    struct net_identity *identity = NULL;
    char path[sizeof("/node/") + KEY_NAME_MAX];
    (void)snprintf(path, sizeof(path), "/node/%s", self->node);
    TRY(net_identity_new(cert, &identity));
    bool is = identity->spiffe_id.size > 0 && slice_eq(identity->spiffe.path, slice_str(path));
    net_identity_free(identity);
    return is ? OK : FAIL(E_UNAUTHENTICATED);
}

/* Labels are text that is compared and sent: judged once, here. */
static struct err read_labels(const struct x509_st *cert, char out[LABELS_TEXT_MAX + 1])
{
    auto_buf struct buf text = BUF_MAX(LABELS_TEXT_MAX);
    auto_buf struct buf sorted = BUF_MAX(LABELS_TEXT_MAX);
    struct labels labels;
    TRY(net_cert_labels(cert, &text));
    TRY(labels_parse(buf_slice(&text), &labels));
    TRY(labels_print(&labels, &sorted));
    (void)snprintf(out, LABELS_TEXT_MAX + 1, "%.*s", SLICE_ARG(buf_slice(&sorted)));
    return OK;
}

static struct err judge(const struct dp_self *self, const struct net_chain *chain,
                        const struct net_chain *anchors, const struct evp_pkey_st *key,
                        struct dp_self_cert *out, struct buf *message)
{
    struct dp_self_cert cert;
    uint8_t said[NET_STATUS_KEY_SIZE];
    struct x509_st *leaf = chain->certs[0];
    if (!net_cert_is_for(leaf, key)) {
        return say(FAIL(E_CRYPTO), "the certificate is another key's", message);
    }
    if (anchors != NULL) {
        TRY(say(net_chain_verify(chain, anchors),
                "the certificate does not lead to the CA that "
                "came with it; do the clocks agree?",
                message));
    }
    TRY(say(judge_name(self, leaf), "the certificate is not this node's", message));
    TRY(say(read_labels(leaf, cert.labels), "the certificate's labels do not parse", message));
    TRY(say(net_cert_times(leaf, &cert.times), "the certificate's times do not parse", message));
    TRY(say(net_cert_status_key(leaf, said, &cert.says_key),
            "the certificate's status key does not parse", message));
    net_cert_serial(leaf, cert.serial);
    *out = cert;
    return OK;
}

struct err dp_self_judge(const struct dp_self *self, struct slice chain, struct slice ca,
                         const struct evp_pkey_st *key, struct dp_self_cert *out,
                         struct buf *message)
{
    auto_chain struct net_chain certs = {.count = 0};
    auto_chain struct net_chain anchors = {.count = 0};
    TRY(say(net_chain_read(chain, &certs), "the certificate does not parse", message));
    TRY(say(net_chain_read(ca, &anchors), "the CA's certificates do not parse", message));
    return judge(self, &certs, &anchors, key, out, message);
}

/* Whether it is in time is not asked: a node that was off for long renews by its status key. */
struct err dp_self_cert(const struct dp_identity_dir *dir, const struct dp_self *self,
                        struct dp_self_cert *out, struct buf *message)
{
    auto_buf struct buf pem = BUF_MAX(DP_IDENTITY_FILE_MAX);
    auto_chain struct net_chain chain = {.count = 0};
    auto_net_key struct evp_pkey_st *key = NULL;
    TRY(say(dp_identity_get(dir, DP_FILE_CERT, &pem), "identity/" DP_FILE_CERT " cannot be read",
            message));
    TRY(say(net_chain_read(buf_slice(&pem), &chain), "identity/" DP_FILE_CERT " does not parse",
            message));
    TRY(say(read_key(dir, DP_FILE_KEY, &key), "identity/" DP_FILE_KEY " cannot be read", message));
    return judge(self, &chain, /* anchors= */ NULL, key, out, message);
}
