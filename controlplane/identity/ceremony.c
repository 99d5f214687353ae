/* ceremony: see ceremony.h. */
#include "controlplane/identity/ceremony.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/snapshot/root.h"
#include "controlplane/identity/files.h"

enum { PUBLIC_FILE_MAX = 512, TOKEN_SIZE = 32 };
static const int64_t day_ms = 86400000;

struct err cp_key_write_public(const char *path, const struct key_public *key)
{
    auto_buf struct buf line = BUF_MAX(PUBLIC_FILE_MAX);
    TRY(key_public_print(key, &line));
    TRY(buf_add_byte(&line, '\n'));
    return cp_file_write_new(path, buf_slice(&line));
}

struct err cp_key_generate(enum key_role role, const char *name, const char *directory,
                           struct key_public *out, struct buf *message)
{
    TRY(cp_file_say(cp_directory_make(directory), directory, message));
    auto_key_pair struct key_pair pair = {0};
    struct err e = key_pair_new(role, slice_str(name), &pair);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "name: found \"%.80s\"; expected a name of a-z, 0-9 and '-'", name));
        return e;
    }
    char path[CP_PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.3900s/%s.key", directory, name);
    TRY(cp_file_say(key_file_write(path, &pair), path, message));
    (void)snprintf(path, sizeof(path), "%.3900s/%s.pub", directory, name);
    TRY(cp_file_say(cp_key_write_public(path, &pair.public), path, message));
    *out = pair.public;
    return OK;
}

static struct err read_public(const char *path, struct key_public *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : E_IO);
    }
    char text[PUBLIC_FILE_MAX];
    ssize_t size = read(fd, text, sizeof(text));
    if (size < 0) {
        return FAIL(E_IO);
    }
    struct slice line = slice_of(text, (size_t)size);
    line = slice_head(line, slice_find(line, '\n'));
    return key_public_parse(line, out);
}

struct err cp_key_read_public(const char *path, struct key_public *out, struct buf *message)
{
    struct slice name = slice_str(path);
    if (!slice_ends(name, SLICE_LIT(".key"))) {
        return cp_file_say(read_public(path, out), path, message);
    }
    auto_key_pair struct key_pair pair = {0};
    TRY(cp_file_say(key_file_read(path, &pair), path, message));
    *out = pair.public;
    return OK;
}

/* ---- roots ---- */

struct ceremony {
    const struct cp_root_plan *plan;
    struct root root;
    struct key_pair pairs[CONTAINER_SIGNATURES_MAX]; /* that sign. */
    size_t pair_count;
    struct buf *message;
};

static void ceremony_wipe(struct ceremony *c)
{
    for (size_t i = 0; i < c->pair_count; i++) {
        key_pair_wipe(&c->pairs[i]);
    }
}

static struct err wrong_role(struct ceremony *c, const char *path, enum key_role wanted)
{
    TRY(buf_addf(c->message, "%s: expected a %s key", path, key_role_name(wanted)));
    return FAIL(E_USAGE);
}

static struct err add_key(struct ceremony *c, const char *path, const struct key_public *key,
                          int64_t not_after_ms)
{
    struct err e = root_add_key(&c->root, key, not_after_ms);
    if (!err_ok(e)) {
        TRY(buf_addf(c->message,
                     "%s: expected a key that is not in this root yet, and at most %d "
                     "of one role",
                     path, ROLE_KEYS_MAX));
    }
    return e;
}

/* Whether the key that was read last signs already: most roots keep the root keys of the one
 * before, and one signature of a key is all that a container takes. */
static bool signs_already(const struct ceremony *c)
{
    const struct key_pair *last = &c->pairs[c->pair_count - 1];
    for (size_t i = 0; i + 1 < c->pair_count; i++) {
        if (memcmp(c->pairs[i].public.bytes, last->public.bytes, KEY_PUBLIC_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

static struct err add_signers(struct ceremony *c, const char *list, bool into_root)
{
    struct slice rest = slice_str(list);
    char path[CP_PATH_SIZE];
    while (cp_list_next(&rest, path)) {
        if (c->pair_count == CONTAINER_SIGNATURES_MAX) {
            return cp_file_say(FAIL(E_TOO_LARGE), path, c->message);
        }
        struct key_pair *pair = &c->pairs[c->pair_count];
        TRY(cp_file_say(key_file_read(path, pair), path, c->message));
        c->pair_count++;
        if (pair->public.role != KEY_ROLE_ROOT) {
            return wrong_role(c, path, KEY_ROLE_ROOT);
        }
        if (into_root) {
            TRY(add_key(c, path, &pair->public, 0));
        } else if (signs_already(c)) {
            key_pair_wipe(pair);
            c->pair_count--;
        }
    }
    return OK;
}

static struct err add_publics(struct ceremony *c, const char *list, enum key_role role,
                              int64_t not_after_ms)
{
    struct slice rest = slice_str(list);
    char path[CP_PATH_SIZE];
    while (cp_list_next(&rest, path)) {
        struct key_public key = {0};
        TRY(cp_key_read_public(path, &key, c->message));
        if (key.role != role) {
            return wrong_role(c, path, role);
        }
        TRY(add_key(c, path, &key, not_after_ms));
    }
    return OK;
}

static uint32_t keys_of(const struct root *root, enum key_role role)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < root->ring.count; i++) {
        count += root->ring.keys[i].role == role;
    }
    return count;
}

static struct err fill(struct ceremony *c)
{
    const struct cp_root_plan *plan = c->plan;
    int64_t now = clock_wall_ms();
    (void)snprintf(c->root.environment, sizeof(c->root.environment), "%s", plan->environment);
    c->root.version = plan->version;
    c->root.not_after_ms = now + (int64_t)plan->days * day_ms;
    TRY(add_signers(c, plan->roots, /* into_root= */ true));
    TRY(add_publics(c, plan->manifests, KEY_ROLE_MANIFEST, 0));
    TRY(add_publics(c, plan->heads, KEY_ROLE_HEAD, now + (int64_t)plan->head_days * day_ms));
    TRY(add_signers(c, plan->signers == NULL ? "" : plan->signers, /* into_root= */ false));
    uint32_t *thresholds = c->root.ring.thresholds;
    thresholds[KEY_ROLE_ROOT] =
        plan->threshold_roots == 0 ? keys_of(&c->root, KEY_ROLE_ROOT) : plan->threshold_roots;
    thresholds[KEY_ROLE_MANIFEST] = plan->threshold_manifests == 0 ? 1 : plan->threshold_manifests;
    thresholds[KEY_ROLE_HEAD] = 1;
    return OK;
}

static struct err seal(struct ceremony *c, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    struct err e = root_encode(&c->root, &body);
    if (!err_ok(e)) {
        TRY(buf_add_str(c->message, "a root needs a name as environment, at least one key of each "
                                    "role, and thresholds from 1 to the number of keys"));
        return e;
    }
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(slice_str(c->plan->environment), environment);
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    for (size_t i = 0; i < c->pair_count; i++) {
        TRY(container_sign(CONTAINER_ROOT, environment, buf_slice(&body), &c->pairs[i],
                           &signatures[i]));
    }
    TRY(container_seal(CONTAINER_ROOT, environment, buf_slice(&body), signatures, c->pair_count,
                       out));
    struct root opened; /* what is handed out must open as nodes open it. */
    return cp_file_say(root_open(buf_slice(out), &opened), "root", c->message);
}

struct err cp_root_make(const struct cp_root_plan *plan, struct buf *out_path, struct buf *message)
{
    if (!text_is_name(slice_str(plan->environment))) {
        TRY(buf_addf(message, "environment: found \"%.80s\"; expected a name of a-z, 0-9 and '-'",
                     plan->environment));
        return FAIL(E_USAGE);
    }
    __attribute__((cleanup(ceremony_wipe))) struct ceremony c = {.plan = plan, .message = message};
    auto_buf struct buf bytes = BUF_MAX(ROOT_BODY_MAX + (64 << 10));
    TRY(fill(&c));
    TRY(seal(&c, &bytes));
    TRY(cp_file_say(cp_directory_make(plan->out), plan->out, message));
    TRY(buf_addf(out_path, "%s/root.%llu", plan->out, (unsigned long long)plan->version));
    const char *path = NULL;
    TRY(buf_cstr(out_path, &path));
    return cp_file_say(cp_file_write_new(path, buf_slice(&bytes)), path, message);
}

struct err cp_token_make(struct buf *out_token, struct buf *out_digest)
{
    uint8_t random[TOKEN_SIZE];
    char token[2 * TOKEN_SIZE + 1];
    uint8_t digest[DIGEST_SIZE];
    char hex[2 * DIGEST_SIZE + 1];
    ids_random(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), token);
    ids_digest(slice_str(token), digest);
    text_hex(slice_of(digest, sizeof(digest)), hex);
    sodium_memzero(random, sizeof(random));
    TRY(buf_add_str(out_token, token));
    return buf_addf(out_digest, "blake2b:%s", hex);
}
