/*
 * roll: see roll.h.
 *
 * One thread changes the table; it takes the lock to change it and not to look, and verifies
 * without it. Entries of enrolled nodes stay for good, so that their counts do.
 */
#include "controlplane/fleet/roll.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "controlplane/identity/ceremony.h"

#define NS_PER_MS UINT64_C(1000000)

enum { PATH_SIZE = 4096, HEARTBEATS = 3 /* a node that missed these is not live. */ };

/* Where a node's key is from. */
enum known { NOWHERE, BY_HAND, IN_STORE };

struct entry {
    struct cp_fleet_node node;
    uint8_t key[KEY_PUBLIC_SIZE]; /* the store's, or the one that last verified. */
    enum known known;
    bool proved; /* of one in the store: a certificate of ours says its key. */
    bool removed;
    bool asked;         /* the store was looked at since it came up. */
    uint64_t count;     /* highest of a status that counted, of this key. */
    uint64_t seen_ns;   /* 0: never heard of. */
    uint64_t judged_ns; /* 0: never. */
    uint8_t *waiting;   /* owned; NULL: none. */
    size_t waiting_size;
    struct entry *next; /* of those that wait. */
};

/* With its slots in the map, which is at most half full and at least a quarter, and what malloc
 * adds: docs/control-plane.md, "Statuses". */
_Static_assert(sizeof(struct entry) + 4 * sizeof(struct map_entry) + 16 <= 1024,
               "a node takes at most 1 KiB");

struct cp_roll {
    uint8_t environment[ENVIRONMENT_SIZE];
    char node_keys[PATH_SIZE];
    struct entry *waiting; /* list. */
    size_t waiting_count;
    size_t unknown_count;
    bool wants_members;
    bool wants_restore;
    struct {
        struct lock lock;
        struct map nodes GUARDED; /* id to struct entry. */
        struct cp_status_counters counters GUARDED;
    } shared;
};

#define COUNT(roll, name)                                                                          \
    do {                                                                                           \
        lock_take(&(roll)->shared.lock);                                                           \
        (roll)->shared.counters.name++;                                                            \
        lock_drop(&(roll)->shared.lock);                                                           \
    } while (0)

struct err cp_roll_new(const char *environment, const char *node_keys, struct cp_roll **out)
{
    struct cp_roll *roll = calloc(1, sizeof(*roll));
    if (roll == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    snap_environment(slice_str(environment), roll->environment);
    (void)snprintf(roll->node_keys, sizeof(roll->node_keys), "%s", node_keys);
    lock_init(&roll->shared.lock);
    *out = roll;
    return OK;
}

static void entry_free(struct entry *entry)
{
    free(entry->waiting);
    free(entry);
}

void cp_roll_free(struct cp_roll *roll)
{
    if (roll == NULL) {
        return;
    }
    size_t at = 0;
    const struct map_entry *found = NULL;
    lock_take(&roll->shared.lock);
    while ((found = map_next(&roll->shared.nodes, &at)) != NULL) {
        entry_free(found->value);
    }
    map_free(&roll->shared.nodes);
    lock_drop(&roll->shared.lock);
    lock_free(&roll->shared.lock);
    free(roll);
}

/* ---- the table ---- */

static struct entry *get(struct cp_roll *roll, struct slice id)
{
    lock_take(&roll->shared.lock);
    struct entry *entry = map_get(&roll->shared.nodes, id);
    lock_drop(&roll->shared.lock);
    return entry;
}

/* NULL when the table is full, or there is no memory. */
static struct entry *add(struct cp_roll *roll, struct slice id, enum known known)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (entry == NULL) {
        return NULL;
    }
    entry->known = known;
    (void)snprintf(entry->node.id, sizeof(entry->node.id), "%.*s", SLICE_ARG(id));
    lock_take(&roll->shared.lock);
    bool full = roll->shared.nodes.count >= limits.nodes;
    bool put =
        !full && err_ok(map_put(&roll->shared.nodes, slice_str(entry->node.id), entry, NULL));
    lock_drop(&roll->shared.lock);
    if (!put) {
        free(entry);
        return NULL;
    }
    roll->unknown_count += known == NOWHERE;
    return entry;
}

static void set_known(struct cp_roll *roll, struct entry *entry, enum known known)
{
    roll->unknown_count -= entry->known == NOWHERE;
    roll->unknown_count += known == NOWHERE;
    entry->known = known;
}

static void path_of(const struct cp_roll *roll, struct slice id, char out[PATH_SIZE])
{
    (void)snprintf(out, PATH_SIZE, "%.3900s/%.*s.pub", roll->node_keys, SLICE_ARG(id));
}

static bool is_by_hand(const struct cp_roll *roll, struct slice id)
{
    char path[PATH_SIZE];
    path_of(roll, id, path);
    return access(path, F_OK) == 0;
}

/* The entry of a name that a status came under. Names that nobody enrolled have few places, so
 * that made-up ones do not keep real nodes out. */
static struct entry *entry_of(struct cp_roll *roll, struct slice id)
{
    struct entry *entry = get(roll, id);
    if (entry != NULL) {
        return entry;
    }
    enum known known = is_by_hand(roll, id) ? BY_HAND : NOWHERE;
    if (known == NOWHERE && roll->unknown_count >= CP_ROLL_UNKNOWN_MAX) {
        return NULL;
    }
    return add(roll, id, known);
}

/* ---- the store's nodes ---- */

static void drop_statements(struct entry *entry, enum err_code why)
{
    entry->node.verified = false;
    entry->node.claimed = false;
    entry->node.why = why;
    entry->node.status = (struct status){.count = 0};
}

/* Another key is another node of that name: what the one before said is not its word. */
static void set_key(struct entry *entry, const struct cp_roll_member *m)
{
    bool same = memcmp(entry->key, m->status_key, KEY_PUBLIC_SIZE) == 0;
    if (!same) {
        memcpy(entry->key, m->status_key, KEY_PUBLIC_SIZE);
        entry->count = 0;
        drop_statements(entry, m->proved ? E_UNAUTHENTICATED : E_CERTIFICATE_MISSING);
    } else if (m->proved && entry->node.claimed) { /* what it said was its own. */
        entry->node.claimed = false;
        entry->node.verified = true;
        entry->node.why = E_OK;
    }
    entry->proved = m->proved;
}

/* A row that nothing vouches for stands behind a key that is known otherwise. */
static void set_member(struct cp_roll *roll, struct entry *entry, const struct cp_roll_member *m)
    REQUIRES(roll->shared.lock)
{
    if (!m->proved && entry->known == BY_HAND) {
        return;
    }
    if (m->proved || !entry->proved) {
        set_key(entry, m);
    }
    if (m->removed && !entry->removed) {
        drop_statements(entry, E_NODE_REMOVED);
    }
    entry->removed = m->removed;
    set_known(roll, entry, IN_STORE);
}

/* An unknown name that was not heard of for long; NULL: none. */
static struct entry *find_stale(struct cp_roll *roll, const struct cp_roll_now *now)
    REQUIRES(roll->shared.lock)
{
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&roll->shared.nodes, &at)) != NULL) {
        struct entry *entry = found->value;
        uint64_t age_s = (now->mono_ns - entry->judged_ns) / (1000 * NS_PER_MS);
        if (entry->known == NOWHERE && entry->waiting == NULL && age_s > CP_ROLL_UNKNOWN_KEPT_S) {
            return entry;
        }
    }
    return NULL;
}

static void drop_stale(struct cp_roll *roll, const struct cp_roll_now *now)
{
    lock_take(&roll->shared.lock);
    struct entry *stale = NULL;
    while ((stale = find_stale(roll, now)) != NULL) {
        (void)map_remove(&roll->shared.nodes, slice_str(stale->node.id));
        entry_free(stale);
        roll->unknown_count--;
    }
    lock_drop(&roll->shared.lock);
}

void cp_roll_enrol(struct cp_roll *roll, const struct cp_roll_member *members, size_t count,
                   const struct cp_roll_now *now)
{
    CHECK(count == 0 || members != NULL);
    for (size_t i = 0; i < count; i++) {
        struct slice id = slice_str(members[i].id);
        struct entry *entry = get(roll, id);
        if (entry == NULL) {
            bool by_hand = !members[i].proved && is_by_hand(roll, id);
            entry = add(roll, id, by_hand ? BY_HAND : IN_STORE);
        }
        if (entry != NULL) {
            lock_take(&roll->shared.lock);
            set_member(roll, entry, &members[i]);
            lock_drop(&roll->shared.lock);
        }
    }
    if (roll->unknown_count > 0) {
        drop_stale(roll, now);
    }
}

bool cp_roll_next_member(struct cp_roll *roll, size_t *at, char out[KEY_NAME_MAX + 1])
{
    const struct map_entry *found = NULL;
    bool is_member = false;
    lock_take(&roll->shared.lock);
    while (!is_member && (found = map_next(&roll->shared.nodes, at)) != NULL) {
        const struct entry *entry = found->value;
        is_member = entry->known == IN_STORE && !entry->removed;
        memcpy(out, entry->node.id, sizeof(entry->node.id));
    }
    lock_drop(&roll->shared.lock);
    return is_member;
}

bool cp_roll_wants_members(struct cp_roll *roll)
{
    bool wants = roll->wants_members;
    roll->wants_members = false;
    return wants;
}

bool cp_roll_wants_restore(struct cp_roll *roll)
{
    bool wants = roll->wants_restore;
    roll->wants_restore = false;
    return wants;
}

/* ---- judging ---- */

/* Whether a node found something else in the bucket than what was put there, or nothing. Which key
 * a stranger's object was signed with makes no difference: ours has to be put again. A head that is
 * no stranger's is by a key of a root that the node did not find. */
static bool says_bucket_is_wrong(const struct status *status)
{
    static const enum err_code codes[] = {
        E_HEAD_UNSIGNED,  E_HEAD_WRONG_KEY,     E_ROOT_MISSING,       E_ROOT_MALFORMED,
        E_ROOT_UNSIGNED,  E_MANIFEST_MISSING,   E_MANIFEST_MALFORMED, E_MANIFEST_UNSIGNED,
        E_MANIFEST_MIXED, E_MANIFEST_WRONG_KEY, E_CHUNK_MISSING,      E_CHUNK_TAMPERED,
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (status->code == (uint32_t)codes[i]) {
            return true;
        }
    }
    return false;
}

/* E_NOT_FOUND: nobody enrolled it. E_CERTIFICATE_MISSING: the store has it without a key. */
static struct err find_key(struct cp_roll *roll, struct entry *entry, struct key_public *out)
{
    struct key_public key = {.role = KEY_ROLE_NODE};
    struct slice id = slice_str(entry->node.id);
    if (entry->known == IN_STORE) {
        memcpy(key.name, entry->node.id, sizeof(key.name));
        memcpy(key.bytes, entry->key, sizeof(key.bytes));
        *out = key;
        return sodium_is_zero(key.bytes, sizeof(key.bytes)) ? FAIL(E_CERTIFICATE_MISSING) : OK;
    }
    char path[PATH_SIZE];
    auto_buf struct buf message = BUF_MAX(PATH_SIZE + 256);
    path_of(roll, id, path);
    struct err e = cp_key_read_public(path, &key, &message);
    set_known(roll, entry, e.code == E_NOT_FOUND ? NOWHERE : BY_HAND);
    TRY(e);
    if (key.role != KEY_ROLE_NODE || !slice_eq(slice_str(key.name), id)) {
        return FAIL(E_UNAUTHENTICATED);
    }
    *out = key;
    return OK;
}

/* A status of our node that is older than one that counted, or of another time than now, was kept
 * by somebody and sent again; or the node's clock is wrong, and its ages mean nothing. */
static struct err judge_time(const struct entry *entry, const struct status *s, bool recalled,
                             const struct cp_roll_now *now)
{
    int64_t tolerance_ms = (int64_t)limits.clock_tolerance_ms;
    int64_t beat_ms = (int64_t)(limits.status_interval_ms + limits.status_interval_ms / 5);
    if (s->at_ms > now->wall_ms + tolerance_ms ||
        (!recalled && s->at_ms < now->wall_ms - tolerance_ms - beat_ms)) {
        return FAIL(E_CLOCK_SKEW);
    }
    return s->count > entry->count ? OK : FAIL(E_CONFLICT);
}

/* One that was read, not sent just now, is as old as its own clock says. */
static uint64_t seen_at(const struct status *s, bool recalled, const struct cp_roll_now *now)
{
    int64_t age_ms = now->wall_ms - s->at_ms;
    uint64_t age_ns = age_ms <= 0 ? 0 : (uint64_t)age_ms * NS_PER_MS;
    if (!recalled || age_ns == 0) {
        return now->mono_ns;
    }
    return age_ns < now->mono_ns ? now->mono_ns - age_ns : 1;
}

static void accept(struct cp_roll *roll, struct entry *entry, const struct key_public *key,
                   const struct status *s, bool recalled, const struct cp_roll_now *now)
{
    bool claimed = entry->known == IN_STORE && !entry->proved;
    lock_take(&roll->shared.lock);
    memcpy(entry->key, key->bytes, KEY_PUBLIC_SIZE);
    entry->count = s->count;
    entry->node.verified = !claimed;
    entry->node.claimed = claimed;
    entry->node.why = claimed ? E_CERTIFICATE_MISSING : E_OK;
    entry->node.status = *s;
    entry->seen_ns = seen_at(s, recalled, now);
    roll->shared.counters.accepted += !claimed;
    roll->shared.counters.unverified += claimed;
    lock_drop(&roll->shared.lock);
    bool wrong = says_bucket_is_wrong(s) && !recalled && !claimed;
    roll->wants_restore = roll->wants_restore || wrong;
}

/* What a verified or claimed node said stays: somebody else wrote under its name. */
static void refuse(struct cp_roll *roll, struct entry *entry, enum err_code why,
                   const struct cp_roll_now *now)
{
    lock_take(&roll->shared.lock);
    struct cp_status_counters *counters = &roll->shared.counters;
    counters->skewed += why == E_CLOCK_SKEW;
    counters->replayed += why == E_CONFLICT;
    counters->removed += why == E_NODE_REMOVED;
    counters->unverified += why != E_CLOCK_SKEW && why != E_CONFLICT && why != E_NODE_REMOVED;
    if (!entry->node.verified && !entry->node.claimed) {
        entry->node.why = why;
        entry->seen_ns = now->mono_ns;
    }
    lock_drop(&roll->shared.lock);
}

static struct err verify(struct cp_roll *roll, struct entry *entry, const struct key_public *key,
                         struct slice bytes, struct status *out)
{
    COUNT(roll, verified);
    TRY(status_open(bytes, roll->environment, key, out));
    bool own = slice_eq(slice_str(out->node), slice_str(entry->node.id));
    return own ? OK : FAIL(E_UNAUTHENTICATED);
}

static void judge(struct cp_roll *roll, struct entry *entry, struct slice bytes, bool recalled,
                  const struct cp_roll_now *now)
{
    struct key_public key;
    struct status status;
    entry->judged_ns = now->mono_ns;
    struct err e = find_key(roll, entry, &key);
    if (err_ok(e) && memcmp(key.bytes, entry->key, KEY_PUBLIC_SIZE) != 0) {
        entry->count = 0; /* enrolled by hand with another key. */
    }
    if (err_ok(e)) {
        e = verify(roll, entry, &key, bytes, &status);
    }
    if (err_ok(e)) {
        e = judge_time(entry, &status, recalled, now);
    }
    if (err_ok(e)) {
        accept(roll, entry, &key, &status, recalled, now);
    } else if (!recalled || e.code != E_CONFLICT) { /* the one that lies there came before. */
        refuse(roll, entry, e.code == E_NOT_FOUND ? E_UNAUTHENTICATED : e.code, now);
    }
}

/* ---- waiting ---- */

/* The latest one waits; what waited before is dropped unread. */
static void keep(struct cp_roll *roll, struct entry *entry, struct slice bytes)
{
    bool waits = entry->waiting != NULL;
    bool room = waits || roll->waiting_count < CP_ROLL_WAITING_MAX;
    bool fits = bytes.size <= CP_ROLL_STATUS_MAX;
    uint8_t *copy = room && fits && bytes.size > 0 ? malloc(bytes.size) : NULL;
    if (copy == NULL) {
        COUNT(roll, crowded);
        return;
    }
    memcpy(copy, bytes.ptr, bytes.size);
    free(entry->waiting);
    entry->waiting = copy;
    entry->waiting_size = bytes.size;
    if (waits) {
        COUNT(roll, superseded);
        return;
    }
    entry->next = roll->waiting;
    roll->waiting = entry;
    roll->waiting_count++;
}

/* In how many nanoseconds the next status of the node may be verified. */
static uint64_t due_in_ns(const struct entry *entry, const struct cp_roll_now *now)
{
    uint64_t age_ns = now->mono_ns - entry->judged_ns;
    bool due = entry->judged_ns == 0 || age_ns >= CP_ROLL_VERIFY_MS * NS_PER_MS;
    return due ? 0 : CP_ROLL_VERIFY_MS * NS_PER_MS - age_ns;
}

/* A name that just came up may be of a node that joined since the store was looked at: its status
 * waits for that. */
static bool waits_for_store(struct cp_roll *roll, struct entry *entry)
{
    if (entry->known != NOWHERE || entry->asked) {
        return false;
    }
    entry->asked = true;
    roll->wants_members = true;
    return true;
}

void cp_roll_offer(struct cp_roll *roll, struct slice id, struct slice bytes,
                   const struct cp_roll_now *now)
{
    struct entry *entry = text_is_name(id) ? entry_of(roll, id) : NULL;
    if (entry == NULL) { /* no node has such an id, or there is no place for it. */
        COUNT(roll, unknown);
        return;
    }
    if (entry->removed) {
        refuse(roll, entry, E_NODE_REMOVED, now);
        return;
    }
    if (waits_for_store(roll, entry)) {
        entry->judged_ns = now->mono_ns;
        keep(roll, entry, bytes);
        return;
    }
    if (due_in_ns(entry, now) == 0 && entry->waiting == NULL) {
        judge(roll, entry, bytes, /* recalled= */ false, now);
        return;
    }
    keep(roll, entry, bytes);
}

void cp_roll_recall(struct cp_roll *roll, struct slice id, struct slice bytes,
                    const struct cp_roll_now *now)
{
    struct entry *entry = text_is_name(id) ? entry_of(roll, id) : NULL;
    if (entry != NULL && !entry->removed) {
        judge(roll, entry, bytes, /* recalled= */ true, now);
    }
}

uint64_t cp_roll_turn(struct cp_roll *roll, const struct cp_roll_now *now)
{
    uint64_t next_ms = UINT64_MAX;
    struct entry **at = &roll->waiting;
    while (*at != NULL) {
        struct entry *entry = *at;
        uint64_t left_ns = due_in_ns(entry, now);
        if (left_ns > 0) {
            uint64_t left_ms = left_ns / NS_PER_MS + 1;
            next_ms = left_ms < next_ms ? left_ms : next_ms;
            at = &entry->next;
            continue;
        }
        *at = entry->next;
        roll->waiting_count--;
        auto_free uint8_t *bytes = TAKE_PTR(entry->waiting);
        if (!entry->removed) {
            judge(roll, entry, slice_of(bytes, entry->waiting_size), /* recalled= */ false, now);
        }
    }
    return next_ms;
}

/* ---- from other threads ---- */

static int by_id(const void *a, const void *b)
{
    const struct cp_fleet_node *left = a;
    const struct cp_fleet_node *right = b;
    return strcmp(left->id, right->id);
}

static uint64_t age_ms(const struct entry *entry, const struct cp_roll_now *now)
{
    return now->mono_ns < entry->seen_ns ? 0 : (now->mono_ns - entry->seen_ns) / NS_PER_MS;
}

static bool is_heard(const struct entry *entry, const struct cp_roll_now *now)
{
    uint64_t live_ms = HEARTBEATS * (limits.status_interval_ms + limits.status_interval_ms / 5);
    return entry->seen_ns != 0 && age_ms(entry, now) <= live_ms;
}

static bool is_live(const struct entry *entry, const struct cp_roll_now *now)
{
    return entry->node.verified && is_heard(entry, now);
}

static size_t copy_nodes(struct cp_roll *roll, const struct cp_roll_now *now,
                         struct cp_fleet_node *out) REQUIRES(roll->shared.lock)
{
    size_t at = 0;
    size_t count = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&roll->shared.nodes, &at)) != NULL) {
        const struct entry *entry = found->value;
        if (entry->seen_ns == 0) {
            continue; /* enrolled, and never heard of. */
        }
        struct cp_fleet_node *node = &out[count++];
        *node = entry->node;
        node->age_ms = age_ms(entry, now);
        node->live = (node->verified || node->claimed) && is_heard(entry, now);
    }
    return count;
}

void cp_roll_tally(struct cp_roll *roll, const struct cp_roll_now *now, struct cp_fleet_tally *out)
{
    size_t at = 0;
    const struct map_entry *found = NULL;
    *out = (struct cp_fleet_tally){0};
    lock_take(&roll->shared.lock);
    while ((found = map_next(&roll->shared.nodes, &at)) != NULL) {
        const struct entry *entry = found->value;
        bool live = is_live(entry, now);
        out->heard += entry->seen_ns != 0;
        out->live += live;
        out->refusing += live && entry->node.status.state == SNAP_REFUSED;
        out->degraded += live && cp_fleet_degraded(&entry->node.status) > 0;
    }
    lock_drop(&roll->shared.lock);
}

static void raise_order(const struct status *status, const struct cp_fleet_order *most,
                        struct cp_fleet_order *out)
{
    bool higher = status->epoch > out->epoch ||
                  (status->epoch == out->epoch && status->sequence > out->sequence);
    if (higher && status->epoch <= most->epoch) {
        out->epoch = status->epoch;
        out->sequence = status->sequence;
    }
    if (status->version > out->version && status->version <= most->version) {
        out->version = status->version;
    }
}

void cp_roll_order(struct cp_roll *roll, const struct cp_roll_now *now,
                   const struct cp_fleet_order *most, struct cp_fleet_order *out)
{
    size_t at = 0;
    const struct map_entry *found = NULL;
    *out = (struct cp_fleet_order){0};
    lock_take(&roll->shared.lock);
    while ((found = map_next(&roll->shared.nodes, &at)) != NULL) {
        const struct entry *entry = found->value;
        if (is_live(entry, now)) {
            raise_order(&entry->node.status, most, out);
        }
    }
    lock_drop(&roll->shared.lock);
}

struct err cp_roll_list(struct cp_roll *roll, const struct cp_roll_now *now,
                        struct cp_fleet_node **out, size_t *out_count)
{
    size_t count = 0;
    lock_take(&roll->shared.lock);
    struct cp_fleet_node *nodes = calloc(roll->shared.nodes.count + 1, sizeof(*nodes));
    if (nodes != NULL) {
        count = copy_nodes(roll, now, nodes);
    }
    lock_drop(&roll->shared.lock);
    if (nodes == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    qsort(nodes, count, sizeof(*nodes), by_id);
    *out = nodes;
    *out_count = count;
    return OK;
}

void cp_roll_counters(struct cp_roll *roll, struct cp_status_counters *out)
{
    lock_take(&roll->shared.lock);
    *out = roll->shared.counters;
    lock_drop(&roll->shared.lock);
}

bool cp_roll_key(struct cp_roll *roll, struct slice id, struct key_public *out)
{
    bool known = false;
    lock_take(&roll->shared.lock);
    const struct entry *entry = map_get(&roll->shared.nodes, id);
    if (entry != NULL && entry->node.verified && !entry->removed) {
        *out = (struct key_public){.role = KEY_ROLE_NODE};
        memcpy(out->name, entry->node.id, sizeof(out->name));
        memcpy(out->bytes, entry->key, sizeof(out->bytes));
        known = true;
    }
    lock_drop(&roll->shared.lock);
    return known;
}
