/* draft: see draft.h. */
#include "controlplane/identity/draft.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/text.h"
#include "controlplane/identity/ceremony.h"
#include "controlplane/identity/files.h"

enum {
    KEYS_MAX = ROOT_ROLE_COUNT * ROLE_KEYS_MAX,
    CONTAINER_MAX =
        CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE + ROOT_BODY_MAX
};
static const int64_t day_ms = 86400000;

/* ---- a draft is made ---- */

struct making {
    const struct cp_draft_plan *plan;
    struct root before;
    struct root next;       /* without keys at first. */
    bool dropped[KEYS_MAX]; /* of 'before', by place in its ring. */
    struct key_public added[KEYS_MAX];
    bool renewed[KEYS_MAX]; /* of 'added': it was there before. */
    size_t added_count;
    int64_t head_end_ms;
    struct buf *message;
};

/* The id, the name, or the name behind its role and a colon. */
static bool is_meant(const struct ring_key *key, struct slice text)
{
    char id[2 * KEY_ID_SIZE + 1];
    text_hex(slice_of(key->id, sizeof(key->id)), id);
    size_t colon = slice_find(text, ':');
    bool with_role = colon < text.size;
    if (with_role && !slice_eq(slice_head(text, colon), slice_str(key_role_name(key->role)))) {
        return false;
    }
    struct slice name = with_role ? slice_from(text, colon + 1) : text;
    return slice_eq(name, slice_str(key->name)) || slice_eq(text, slice_str(id));
}

static struct err drop_one(struct making *m, const char *text)
{
    const struct ring_key *found = NULL;
    for (uint32_t i = 0; i < m->before.ring.count; i++) {
        const struct ring_key *key = &m->before.ring.keys[i];
        if (!is_meant(key, slice_str(text))) {
            continue;
        }
        if (found != NULL) {
            TRY(buf_addf(m->message,
                         "\"%s\" is the name of a %s key and of a %s key: say which by ROLE:NAME, "
                         "or by the id that key list shows",
                         text, key_role_name(found->role), key_role_name(key->role)));
            return FAIL(E_USAGE);
        }
        found = key;
        m->dropped[i] = true;
    }
    if (found == NULL) {
        TRY(buf_addf(m->message, "\"%s\" is neither name nor id of a key in root %" PRIu64, text,
                     m->before.version));
        return FAIL(E_USAGE);
    }
    return OK;
}

static struct err drop_all(struct making *m)
{
    struct slice rest = slice_str(m->plan->drop);
    char text[CP_PATH_SIZE];
    while (cp_list_next(&rest, text)) {
        TRY(drop_one(m, text));
    }
    return OK;
}

static struct err read_added(struct making *m)
{
    struct slice rest = slice_str(m->plan->add);
    char path[CP_PATH_SIZE];
    while (cp_list_next(&rest, path)) {
        if (m->added_count == KEYS_MAX) {
            TRY(buf_addf(m->message, "%s: a root has at most %d keys", path, KEYS_MAX));
            return FAIL(E_TOO_LARGE);
        }
        TRY(cp_key_read_public(path, &m->added[m->added_count++], m->message));
    }
    return OK;
}

static struct err add_key(struct making *m, const struct key_public *key, int64_t end_ms)
{
    struct err e = root_add_key(&m->next, key, end_ms);
    if (!err_ok(e)) {
        TRY(buf_addf(m->message,
                     "%s key %s: expected a root, manifest or head key that is not in this root "
                     "yet, and at most %d of one role",
                     key_role_name(key->role), key->name, ROLE_KEYS_MAX));
    }
    return e;
}

/* Whether a key that stays is given again: a head key gets a new end so. */
static bool is_renewed(struct making *m, const struct ring_key *key)
{
    for (size_t i = 0; i < m->added_count; i++) {
        if (key->role == KEY_ROLE_HEAD && m->added[i].role == KEY_ROLE_HEAD &&
            memcmp(m->added[i].bytes, key->public, KEY_PUBLIC_SIZE) == 0) {
            m->renewed[i] = true;
            return true;
        }
    }
    return false;
}

static struct err keep_rest(struct making *m)
{
    for (uint32_t i = 0; i < m->before.ring.count; i++) {
        const struct ring_key *from = &m->before.ring.keys[i];
        if (m->dropped[i]) {
            continue;
        }
        struct key_public key = {.role = from->role};
        (void)memcpy(key.bytes, from->public, sizeof(key.bytes));
        (void)memcpy(key.name, from->name, sizeof(key.name));
        TRY(add_key(m, &key, is_renewed(m, from) ? m->head_end_ms : from->not_after_ms));
    }
    return OK;
}

static struct err add_rest(struct making *m)
{
    for (size_t i = 0; i < m->added_count; i++) {
        const struct key_public *key = &m->added[i];
        if (!m->renewed[i]) {
            TRY(add_key(m, key, key->role == KEY_ROLE_HEAD ? m->head_end_ms : 0));
        }
    }
    return OK;
}

static struct err judge(struct making *m)
{
    for (size_t role = 0; role < ROOT_ROLE_COUNT; role++) {
        uint32_t keys = 0;
        uint32_t threshold = m->next.ring.thresholds[role];
        for (uint32_t i = 0; i < m->next.ring.count; i++) {
            keys += m->next.ring.keys[i].role == (enum key_role)role;
        }
        if (threshold < 1 || threshold > keys) {
            TRY(buf_addf(m->message,
                         "%" PRIu32 " %s keys are left, and %" PRIu32 " of them must sign: add a "
                         "key, or lower the threshold",
                         keys, key_role_name((enum key_role)role), threshold));
            return FAIL(E_USAGE);
        }
    }
    return OK;
}

static struct err fill(struct making *m)
{
    const struct cp_draft_plan *plan = m->plan;
    int64_t now_ms = clock_wall_ms();
    m->head_end_ms = now_ms + (int64_t)plan->head_days * day_ms;
    (void)memcpy(m->next.environment, m->before.environment, sizeof(m->next.environment));
    m->next.version = m->before.version + 1;
    m->next.not_after_ms = now_ms + (int64_t)plan->days * day_ms;
    m->next.has_floor = plan->has_floor;
    m->next.floor = plan->floor;
    for (size_t role = 0; role < ROOT_ROLE_COUNT; role++) {
        m->next.ring.thresholds[role] =
            plan->thresholds[role] == 0 ? m->before.ring.thresholds[role] : plan->thresholds[role];
    }
    TRY(drop_all(m));
    TRY(read_added(m));
    TRY(keep_rest(m));
    TRY(add_rest(m));
    return judge(m);
}

static struct err seal(const struct root *root, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(slice_str(root->environment), environment);
    TRY(root_encode(root, &body));
    return container_seal(CONTAINER_ROOT, environment, buf_slice(&body), /* signatures= */ NULL, 0,
                          out);
}

static struct err read_signed(const char *path, struct root *out, struct buf *message)
{
    auto_buf struct buf bytes = BUF_MAX(CONTAINER_MAX);
    TRY(cp_file_say(cp_file_read(path, &bytes), path, message));
    return cp_file_say(root_open(buf_slice(&bytes), out), path, message);
}

struct err cp_draft_make(const struct cp_draft_plan *plan, struct root *out, struct buf *out_path,
                         struct buf *message)
{
    struct making m = {.plan = plan, .message = message};
    TRY(read_signed(plan->root, &m.before, message));
    TRY(fill(&m));
    auto_buf struct buf bytes = BUF_MAX(CONTAINER_MAX);
    TRY(cp_file_say(seal(&m.next, &bytes), "root", message));
    TRY(cp_file_say(cp_directory_make(plan->out), plan->out, message));
    TRY(buf_addf(out_path, "%s/root.%" PRIu64 ".draft", plan->out, m.next.version));
    const char *path = NULL;
    TRY(buf_cstr(out_path, &path));
    TRY(cp_file_say(cp_file_write_new(path, buf_slice(&bytes)), path, message));
    *out = m.next;
    return OK;
}

/* ---- a draft is read ---- */

/* "DIRECTORY/root.<version>" of the directory that 'path' is in. */
static struct err beside(const char *path, uint64_t version, struct buf *out)
{
    const char *slash = strrchr(path, '/');
    struct slice directory =
        slash == NULL ? SLICE_LIT(".") : slice_of(path, (size_t)(slash - path));
    return buf_addf(out, "%.*s/root.%" PRIu64, SLICE_ARG(directory), version);
}

static struct err read_previous(const char *path, const char *previous, struct cp_draft *d,
                                struct buf *message)
{
    auto_buf struct buf guess = BUF_MAX(CP_PATH_SIZE);
    bool given = previous != NULL;
    if (!given) {
        TRY(beside(path, d->root.version - 1, &guess));
        TRY(buf_cstr(&guess, &previous));
    }
    struct err e = read_signed(previous, &d->before, message);
    if (!given && e.code == E_NOT_FOUND) {
        buf_clear(message);
        return OK; /* it was a guess. */
    }
    TRY(e);
    if (d->before.version + 1 != d->root.version ||
        strcmp(d->before.environment, d->root.environment) != 0) {
        TRY(buf_addf(message,
                     "%s: it is root %" PRIu64 " of %s; expected root %" PRIu64 " of %s, the one "
                     "before",
                     previous, d->before.version, d->before.environment, d->root.version - 1,
                     d->root.environment));
        return FAIL(E_USAGE);
    }
    d->has_before = true;
    return OK;
}

static const struct ring_key *root_key(const struct root *root, const uint8_t id[KEY_ID_SIZE],
                                       uint32_t *out_index)
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        const struct ring_key *key = &root->ring.keys[i];
        if (key->role == KEY_ROLE_ROOT && memcmp(key->id, id, KEY_ID_SIZE) == 0) {
            *out_index = i;
            return key;
        }
    }
    return NULL;
}

/* Whether the signature counts for a side; it is counted there. */
static bool count_one(const struct root *root, const uint8_t *signature, struct slice signed_bytes,
                      struct cp_draft_side *side)
{
    uint32_t index = 0;
    const struct ring_key *key = root_key(root, signature, &index);
    if (key == NULL || !key_verify(key->public, signed_bytes, signature + KEY_ID_SIZE)) {
        return false;
    }
    side->by[index] = true;
    side->count++;
    return true;
}

/* Counts what counts, and keeps nothing else. */
static struct err count_signatures(struct cp_draft *d, const struct container *c,
                                   struct container_signature *out, size_t *out_count)
{
    auto_buf struct buf signed_bytes = BUF_MAX(ROOT_BODY_MAX + CONTAINER_HEADER_SIZE * 2);
    TRY(container_signed_bytes(CONTAINER_ROOT, c->environment, c->body, &signed_bytes));
    d->own = (struct cp_draft_side){.threshold = d->root.ring.thresholds[KEY_ROLE_ROOT]};
    d->previous = (struct cp_draft_side){.threshold = d->before.ring.thresholds[KEY_ROLE_ROOT]};
    size_t count = 0;
    for (size_t i = 0; i < c->signature_count; i++) {
        const uint8_t *at = c->signatures.ptr + i * CONTAINER_SIGNATURE_SIZE;
        bool own = count_one(&d->root, at, buf_slice(&signed_bytes), &d->own);
        bool before =
            d->has_before && count_one(&d->before, at, buf_slice(&signed_bytes), &d->previous);
        if (own || before) {
            (void)memcpy(out[count].key_id, at, KEY_ID_SIZE);
            (void)memcpy(out[count].signature, at + KEY_ID_SIZE, KEY_SIGNATURE_SIZE);
            count++;
        }
    }
    bool first = d->root.version == 1;
    d->whole = d->own.count >= d->own.threshold &&
               (first || (d->has_before && d->previous.count >= d->previous.threshold));
    *out_count = count;
    return OK;
}

struct paper {
    struct cp_draft *draft;
    struct container container;
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX + 1];
    size_t count;
};

static struct err read_paper(const char *path, const char *previous, struct paper *p,
                             struct buf *message)
{
    struct cp_draft *d = p->draft;
    *d = (struct cp_draft){.bytes = BUF_MAX(CONTAINER_MAX)};
    TRY(cp_file_say(cp_file_read(path, &d->bytes), path, message));
    TRY(cp_file_say(root_read(buf_slice(&d->bytes), &d->root, &p->container), path, message));
    if (d->root.version > 1) {
        TRY(read_previous(path, previous, d, message));
    }
    return count_signatures(d, &p->container, p->signatures, &p->count);
}

struct err cp_draft_read(const char *path, const char *previous, struct cp_draft *out,
                         struct buf *message)
{
    struct paper p = {.draft = out};
    return read_paper(path, previous, &p, message);
}

void cp_draft_free(struct cp_draft *draft)
{
    buf_free(&draft->bytes);
}

/* ---- a draft is signed ---- */

static struct err add_signature(struct paper *p, const char *key_path, struct buf *message)
{
    const struct cp_draft *d = p->draft;
    auto_key_pair struct key_pair pair = {0};
    uint32_t own = 0;
    uint32_t before = 0;
    uint8_t id[KEY_ID_SIZE];
    TRY(cp_file_say(key_file_read(key_path, &pair), key_path, message));
    key_id(pair.public.bytes, id);
    bool in_own = root_key(&d->root, id, &own) != NULL;
    bool in_before = d->has_before && root_key(&d->before, id, &before) != NULL;
    if (pair.public.role != KEY_ROLE_ROOT || (!in_own && !in_before)) {
        TRY(buf_addf(message, "%s: it is no root key of root %" PRIu64 "%s", key_path,
                     d->root.version, d->root.version == 1 ? "" : " or of the one before"));
        return FAIL(E_USAGE);
    }
    if ((in_own && d->own.by[own]) || (in_before && d->previous.by[before])) {
        return OK; /* it signed these very bytes before. */
    }
    if (p->count == CONTAINER_SIGNATURES_MAX) {
        TRY(buf_addf(message, "a root carries at most %d signatures", CONTAINER_SIGNATURES_MAX));
        return FAIL(E_TOO_LARGE);
    }
    TRY(container_sign(CONTAINER_ROOT, p->container.environment, p->container.body, &pair,
                       &p->signatures[p->count]));
    p->count++;
    return OK;
}

/* As nodes take it: the step from the root before, or the first one by itself. */
static struct err judge_whole(const struct cp_draft *d)
{
    struct root opened;
    struct root_walk walk;
    if (!d->has_before) {
        return root_open(buf_slice(&d->bytes), &opened);
    }
    root_walk_start(&d->before, &walk);
    return root_walk_step(&walk, buf_slice(&d->bytes));
}

static struct err finish(const struct cp_draft *d, const char *path, struct buf *out_path,
                         struct buf *message)
{
    const char *made = NULL;
    TRY(cp_file_say(judge_whole(d), path, message));
    TRY(beside(path, d->root.version, out_path));
    TRY(buf_cstr(out_path, &made));
    TRY(cp_file_say(cp_file_write_new(made, buf_slice(&d->bytes)), made, message));
    (void)unlink(path); /* all that it said is in the root. */
    return OK;
}

struct err cp_draft_sign(const char *path, const char *previous, const char *key,
                         struct cp_draft *out, struct buf *out_path, struct buf *message)
{
    struct paper p = {.draft = out};
    TRY(read_paper(path, previous, &p, message));
    if (out->root.version > 1 && !out->has_before) {
        TRY(buf_addf(message, "root %" PRIu64 " is needed, too: name it with --previous",
                     out->root.version - 1));
        return FAIL(E_USAGE);
    }
    TRY(add_signature(&p, key, message));
    auto_buf struct buf sealed = BUF_MAX(CONTAINER_MAX);
    TRY(cp_file_say(container_seal(CONTAINER_ROOT, p.container.environment, p.container.body,
                                   p.signatures, p.count, &sealed),
                    path, message));
    struct container c;
    TRY(container_read(buf_slice(&sealed), CONTAINER_ROOT, /* environment= */ NULL, &c));
    TRY(count_signatures(out, &c, p.signatures, &p.count));
    buf_clear(&out->bytes);
    TRY(buf_add(&out->bytes, buf_slice(&sealed)));
    return out->whole ? finish(out, path, out_path, message)
                      : cp_file_say(cp_file_replace(path, buf_slice(&sealed)), path, message);
}
