/* join: see join.h. */
#include "dataplane/join/join.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/net/csr.h"
#include "common/snapshot/file.h"
#include "common/snapshot/root.h"
#include "dataplane/apply/fault.h"
#include "dataplane/join/server.h"

enum {
    PATH_SIZE = 2048,
    ROOTS_MAX = 64,
    ROOT_MAX =
        CONTAINER_HEADER_SIZE + ROOT_BODY_MAX + CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE,
    STEP_NAME_MAX = 32,
};

struct joining {
    const struct dp_join_options *options;
    struct dp_identity_dir dir;
    struct join_token token;
    struct key_pair status;
    struct evp_pkey_st *key;
    struct buf csr;
    struct buf server_ca; /* of --tls-ca; empty: none. */
    json_t *answer;
    struct buf roots[ROOTS_MAX];
    uint64_t root_versions[ROOTS_MAX];
    size_t root_count;
    struct dp_join_result result;
    bool over; /* nothing is left to do. */
    struct buf *message;
};

static void joining_free(struct joining *j)
{
    dp_identity_close(&j->dir);
    join_token_wipe(&j->token);
    key_pair_wipe(&j->status);
    net_key_free(&j->key);
    buf_free(&j->csr);
    buf_free(&j->server_ca);
    json_decref(j->answer);
    for (size_t i = 0; i < j->root_count; i++) {
        buf_free(&j->roots[i]);
    }
}

static struct err say(struct joining *j, struct err e, const char *sentence)
{
    if (!err_ok(e) && j->message->size == 0) {
        TRY(buf_add_str(j->message, sentence));
    }
    return e;
}

typedef struct err step_fn(struct joining *j);

#define STEP_DECLARE(name, text) static step_fn step_##name;
DP_JOIN_STEPS(STEP_DECLARE)
#undef STEP_DECLARE

struct join_step {
    const char *name;
    step_fn *run;
};

#define STEP_ROW(name, text) {"join." #name, step_##name},
static const struct join_step steps[] = {DP_JOIN_STEPS(STEP_ROW)};
#undef STEP_ROW
enum { STEP_COUNT = sizeof(steps) / sizeof(steps[0]) };

/* ---- look ---- */

static struct err read_file(const char *path, struct buf *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *room = NULL;
    size_t size = 0;
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_IO);
    }
    TRY(buf_reserve(out, out->max, &room));
    TRY(file_read_at(fd, room, out->max, 0, &size));
    if (size == out->max) {
        return FAIL(E_TOO_LARGE);
    }
    buf_commit(out, size);
    return OK;
}

static struct err read_token(struct joining *j)
{
    struct slice text = j->options->token;
    while (text.size > 0 && text.ptr[text.size - 1] <= ' ') {
        text.size--;
    }
    struct err e = join_token_parse(text, &j->token);
    if (!err_ok(e)) {
        return say(j, FAIL(E_USAGE), "token-file: expected a token of trilane-cp identity token");
    }
    const char *node = j->options->node;
    if (node != NULL && strcmp(node, j->token.node) != 0) {
        TRY(buf_addf(j->message, "node-id: found \"%.63s\"; the token is of node \"%s\"", node,
                     j->token.node));
        return FAIL(E_USAGE);
    }
    return OK;
}

static struct err read_server_ca(struct joining *j)
{
    const char *path = j->options->ca_file;
    if (path == NULL) {
        return OK;
    }
    auto_chain struct net_chain chain = {.count = 0};
    struct err e = read_file(path, &j->server_ca);
    if (err_ok(e)) {
        e = net_chain_read(buf_slice(&j->server_ca), &chain);
    }
    if (!err_ok(e)) {
        TRY(buf_addf(j->message, "tls-ca: %s: %s", path, err_text(e.code)));
    }
    return e;
}

static struct err step_look(struct joining *j)
{
    struct dp_self found;
    TRY(dp_server_check_urls(j->options->server, j->message));
    TRY(read_token(j));
    TRY(read_server_ca(j));
    TRY(dp_identity_open(j->options->data_dir, /* make= */ true, &j->dir, j->message));
    struct dp_self *self = &j->result.self;
    join_token_digest(&j->token, self->token);
    struct err e = dp_self_read(&j->dir, &found, j->message);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    if (memcmp(found.token, self->token, DIGEST_SIZE) != 0) {
        TRY(buf_addf(j->message, "%s: this is node %s of environment %s already", j->dir.path,
                     found.node, found.environment));
        return FAIL(E_JOINED_ALREADY);
    }
    *self = found;
    j->result.was_joined = true;
    j->over = true;
    TRY(dp_self_settle(&j->dir));
    return dp_self_cert(&j->dir, self, &j->result.cert, j->message);
}

/* ---- keys ---- */

/* A key that is not whole was never told of: it is made anew. */
static struct err make_status_key(struct joining *j)
{
    char path[PATH_SIZE];
    char aside[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/" DP_FILE_STATUS_KEY, j->dir.path);
    (void)snprintf(aside, sizeof(aside), "%s/" DP_FILE_STATUS_KEY ".aside", j->dir.path);
    struct err e = key_file_read(path, &j->status);
    if (err_ok(e) && strcmp(j->status.public.name, j->token.node) == 0) {
        return OK;
    }
    if (!err_ok(e) && e.code != E_NOT_FOUND) {
        return say(j, e,
                   "identity/" DP_FILE_STATUS_KEY " cannot be read; remove data-dir/identity");
    }
    (void)unlink(aside);
    TRY(key_pair_new(KEY_ROLE_NODE, slice_str(j->token.node), &j->status));
    TRY(key_file_write(aside, &j->status));
    return dp_identity_rename(&j->dir, DP_FILE_STATUS_KEY ".aside", DP_FILE_STATUS_KEY);
}

static struct err write_key(struct joining *j)
{
    auto_buf struct buf pem = BUF_MAX(NET_KEY_PEM_MAX);
    TRY(net_key_new(&j->key));
    struct err e = net_key_write(j->key, &pem);
    if (err_ok(e)) {
        e = dp_identity_put(&j->dir, DP_FILE_KEY_NEXT, buf_slice(&pem));
    }
    if (pem.ptr != NULL) {
        sodium_memzero(pem.ptr, pem.capacity);
    }
    return e;
}

static struct err step_keys(struct joining *j)
{
    TRY(say(j, make_status_key(j), "the status key cannot be written to data-dir/identity"));
    TRY(say(j, write_key(j), "the certificate's key cannot be written to data-dir/identity"));
    return net_csr_make(j->key, &j->csr);
}

/* ---- ask ---- */

static struct err prove(struct joining *j, char out[2 * KEY_SIGNATURE_SIZE + 1])
{
    uint8_t environment[ENVIRONMENT_SIZE];
    uint8_t proof[KEY_SIGNATURE_SIZE];
    auto_buf struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    snap_environment(slice_str(j->token.environment), environment);
    struct join_statement s = {.environment = environment,
                               .token = j->result.self.token,
                               .node = slice_str(j->token.node),
                               .csr = buf_slice(&j->csr)};
    TRY(join_statement(&s, &statement));
    key_sign(&j->status, buf_slice(&statement), proof);
    text_hex(slice_of(proof, sizeof(proof)), out);
    return OK;
}

static struct err step_ask(struct joining *j)
{
    char proof[2 * KEY_SIGNATURE_SIZE + 1];
    char status_key[2 * KEY_PUBLIC_SIZE + 1];
    auto_buf struct buf token = BUF_MAX(JOIN_TOKEN_MAX);
    TRY(prove(j, proof));
    TRY(join_token_print(&j->token, &token));
    text_hex(slice_of(j->status.public.bytes, KEY_PUBLIC_SIZE), status_key);
    bool by_pin = j->token.has_pin && j->server_ca.size == 0;
    struct dp_server server = {.urls = j->options->server,
                               .pin = by_pin ? j->token.pin : NULL,
                               .ca = buf_slice(&j->server_ca)};
    json_t *body =
        json_pack("{s:s%, s:s%, s:s, s:s}", "token", (const char *)token.ptr, token.size, "csr",
                  (const char *)j->csr.ptr, j->csr.size, "status_key", status_key, "proof", proof);
    struct err e = dp_server_post(&server, "/api/v1/join", body, &j->answer, j->message);
    json_decref(body);
    sodium_memzero(token.ptr, token.capacity);
    return e;
}

/* ---- judge ---- */

static struct slice text_of(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return slice_of(json_string_value(value), json_string_length(value));
}

static struct err number_of(const json_t *object, const char *name, uint64_t *out)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return FAIL(E_MALFORMED);
    }
    *out = (uint64_t)json_integer_value(value);
    return OK;
}

static struct err take_root(struct joining *j, const json_t *item)
{
    struct slice text = text_of(item, "container");
    uint8_t *room = NULL;
    size_t size = 0;
    struct root root;
    if (j->root_count == ROOTS_MAX || text.size > (size_t)2 * ROOT_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    struct buf *bytes = &j->roots[j->root_count];
    *bytes = BUF_MAX((size_t)2 * ROOT_MAX);
    j->root_count++;
    TRY(buf_reserve(bytes, text.size + 1, &room));
    if (sodium_base642bin(room, text.size + 1, (const char *)text.ptr, text.size, NULL, &size, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0) {
        return FAIL(E_MALFORMED);
    }
    buf_commit(bytes, size);
    TRY(root_open(buf_slice(bytes), &root));
    uint64_t *versions = j->root_versions;
    size_t at = j->root_count - 1;
    bool follows = at == 0 || root.version == versions[at - 1] + 1;
    versions[at] = root.version;
    return follows && strcmp(root.environment, j->token.environment) == 0 ? OK
                                                                          : FAIL(E_ROOT_MALFORMED);
}

/* Each root leads to the next one by the thresholds of both. */
static struct err walk_roots(struct joining *j)
{
    struct root first;
    struct root_walk walk;
    TRY(root_open(buf_slice(&j->roots[0]), &first));
    root_walk_start(&first, &walk);
    for (size_t i = 1; i < j->root_count; i++) {
        TRY(root_walk_step(&walk, buf_slice(&j->roots[i])));
    }
    return OK;
}

static struct err judge_roots(struct joining *j)
{
    const json_t *list = json_object_get(j->answer, "roots");
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(take_root(j, json_array_get(list, i)));
    }
    return j->root_count == 0 ? FAIL(E_ROOT_MISSING) : walk_roots(j);
}

static struct err judge_seed(struct joining *j)
{
    const json_t *from = json_object_get(j->answer, "seed");
    struct disk_seed *seed = &j->result.self.seed;
    TRY(number_of(from, "root_version", &seed->root_version));
    TRY(number_of(from, "epoch", &seed->epoch));
    TRY(number_of(from, "version", &seed->version));
    return OK;
}

static struct err step_judge(struct joining *j)
{
    struct dp_self *self = &j->result.self;
    (void)snprintf(self->environment, sizeof(self->environment), "%s", j->token.environment);
    (void)snprintf(self->node, sizeof(self->node), "%s", j->token.node);
    int size = snprintf(self->server, sizeof(self->server), "%s", j->options->server);
    if (size < 0 || (size_t)size >= sizeof(self->server)) {
        return say(j, FAIL(E_TOO_LARGE), "server: too long");
    }
    self->has_pin = j->token.has_pin && j->server_ca.size == 0;
    memcpy(self->pin, j->token.pin, sizeof(self->pin));
    TRY(dp_self_judge(self, text_of(j->answer, "certificate"), text_of(j->answer, "ca"), j->key,
                      &j->result.cert, j->message));
    TRY(say(j, judge_roots(j), "the answer's roots do not hold"));
    return say(j, judge_seed(j), "the answer has no seed");
}

/* ---- roots, certificate, commit ---- */

static struct err write_root(int dir_fd, uint64_t version, struct slice bytes)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "root.%llu", (unsigned long long)version);
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    auto_close int fd = openat(dir_fd, "aside", flags, 0644);
    bool fine = fd >= 0 && err_ok(file_write_at(fd, bytes, 0)) && fsync(fd) == 0 &&
                renameat(dir_fd, "aside", dir_fd, name) == 0;
    return fine ? OK : FAIL(E_PERSIST_FAILED);
}

static struct err step_roots(struct joining *j)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.1900s/roots", j->options->data_dir);
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        return say(j, FAIL(E_PERSIST_FAILED), "data-dir/roots cannot be made");
    }
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < j->root_count; i++) {
        TRY(say(j, write_root(fd, j->root_versions[i], buf_slice(&j->roots[i])),
                "data-dir/roots cannot be written"));
    }
    return fd >= 0 && fsync(fd) == 0 ? OK : FAIL(E_PERSIST_FAILED);
}

static struct err write_certificate(struct joining *j)
{
    TRY(dp_identity_put(&j->dir, DP_FILE_CA, text_of(j->answer, "ca")));
    if (j->server_ca.size > 0) {
        TRY(dp_identity_put(&j->dir, DP_FILE_SERVER_CA, buf_slice(&j->server_ca)));
    }
    return dp_self_take_cert(&j->dir, text_of(j->answer, "certificate"));
}

static struct err step_certificate(struct joining *j)
{
    return say(j, write_certificate(j), "data-dir/identity cannot be written");
}

static struct err step_commit(struct joining *j)
{
    return say(j, dp_self_write(&j->dir, &j->result.self), "data-dir/identity cannot be written");
}

/* ---- all of it ---- */

/* What is to be done about it is not the same for who asks by a token as for others. */
static struct err explain(struct joining *j, struct err e)
{
    if (e.code == E_TOKEN_USED) {
        TRY(buf_add_str(j->message,
                        ". If it was this node that used it, its keys are lost: make a new token; "
                        "if it was not, somebody else joined as this node: remove it first"));
    }
    if (e.code == E_UNAVAILABLE || e.code == E_TIMEOUT) {
        TRY(buf_add_str(j->message, ". The keys are kept: the same command may be given again with "
                                    "the same token"));
    }
    return e;
}

struct err dp_join(const struct dp_join_options *options, struct dp_join_result *out,
                   struct buf *message)
{
    __attribute__((cleanup(joining_free))) struct joining j = {.options = options,
                                                               .dir.fd = -1,
                                                               .csr = BUF_MAX(NET_CSR_MAX),
                                                               .server_ca =
                                                                   BUF_MAX(DP_IDENTITY_FILE_MAX),
                                                               .message = message};
    for (size_t i = 0; i < STEP_COUNT && !j.over; i++) {
        struct err e = dp_fault(steps[i].name);
        if (err_ok(e)) {
            e = steps[i].run(&j);
        }
        if (!err_ok(e)) {
            return explain(&j, e);
        }
    }
    *out = j.result;
    return OK;
}

struct err dp_join_root(const char *data_dir, struct buf *out)
{
    char path[PATH_SIZE];
    uint64_t highest = 0;
    (void)snprintf(path, sizeof(path), "%.1900s/roots", data_dir);
    DIR *directory = opendir(path);
    const struct dirent *item = NULL;
    if (directory == NULL) {
        return FAIL(E_NOT_FOUND);
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this stream is ours alone. */
    while ((item = readdir(directory)) != NULL) {
        struct slice name = slice_str(item->d_name);
        uint64_t version = 0;
        if (slice_starts(name, SLICE_LIT("root.")) && slice_to_u64(slice_from(name, 5), &version)) {
            highest = version > highest ? version : highest;
        }
    }
    (void)closedir(directory);
    (void)snprintf(path, sizeof(path), "%.1900s/roots/root.%llu", data_dir,
                   (unsigned long long)highest);
    return highest == 0 ? FAIL(E_NOT_FOUND) : read_file(path, out);
}
