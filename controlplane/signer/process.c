/*
 * process: the signer's own side. Small on purpose: what holds secrets is read in one sitting.
 * See signer.h.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "controlplane/signer/child.h"
#include "controlplane/signer/sandbox.h"
#include "controlplane/signer/signer.h"
#include "controlplane/signer/state.h"
#include "controlplane/signer/wire.h"

enum {
    PREFIX_MAX = 3 * 11,                   /* three fields: a byte of tag, ten of varint at most. */
    SIGNED_MAX = MANIFEST_BODY_MAX + 1024, /* a body and what is signed before it. */
};

struct process {
    struct key_pair *manifest; /* in locked, guarded memory of libsodium's. */
    struct key_pair *head;
    struct signer_state state;
    int state_fd;
    bool broken; /* the state could not be written: nothing is signed any more. */
    uint8_t body[MANIFEST_BODY_MAX];
    struct buf to_sign; /* has its room before the sandbox: no memory is asked for in it. */
};

/* A key's file, or the descriptor that the parent passed on in its place. */
static struct err read_key(const char *source, struct key_pair *out)
{
    int fd = -1;
    if (!signer_source_fd(source, &fd)) {
        return key_file_read(source, out);
    }
    struct err e = key_file_read_open(fd, out);
    (void)close(fd);
    return e;
}

static struct err load_key(const char *source, enum key_role role, struct key_pair **out,
                           const char **why)
{
    struct key_pair *pair = sodium_malloc(sizeof(*pair)); /* guarded, not dumped. */
    if (pair == NULL || sodium_mlock(pair, sizeof(*pair)) != 0) {
        *why = "no locked memory for a key: raise RLIMIT_MEMLOCK";
        sodium_free(pair);
        return FAIL(E_NO_MEMORY);
    }
    struct err e = read_key(source, pair);
    if (e.code == E_USAGE) {
        *why = "must be a plain file of this account that nobody else may read; chmod 600";
    }
    if (err_ok(e) && pair->public.role != role) {
        *why = "is a key of another role";
        e = FAIL(E_USAGE);
    }
    if (!err_ok(e)) {
        sodium_free(pair);
        return e;
    }
    *out = pair;
    return OK;
}

static uint8_t *put_field(uint8_t *at, uint8_t tag, uint64_t number)
{
    if (number == 0) { /* a default is left out. */
        return at;
    }
    *at++ = tag;
    for (; number >= 0x80; number >>= 7) {
        *at++ = (uint8_t)(number | 0x80);
    }
    *at++ = (uint8_t)number;
    return at;
}

/*
 * The numbers are the first fields of both bodies (1: 0x08, 2: 0x10, 3: 0x18), and nodes take only
 * the canonical form, in which no field comes twice: so equal first bytes are equal numbers.
 */
static bool numbers_match(const struct signer_request *q, struct slice body)
{
    uint8_t want[PREFIX_MAX];
    uint8_t *end = want;
    if (q->kind == CONTAINER_MANIFEST) {
        end = put_field(end, 0x08, q->version);
    } else if (q->kind == CONTAINER_SHARES) {
        end = put_field(end, 0x08, q->epoch);
        end = put_field(end, 0x10, q->sequence);
    } else {
        end = put_field(end, 0x08, q->root_version);
        end = put_field(end, 0x10, q->epoch);
        end = put_field(end, 0x18, q->sequence);
    }
    return slice_starts(body, slice_of(want, (size_t)(end - want)));
}

static struct err judge(struct process *p, const struct signer_request *q, struct slice body)
{
    if (!numbers_match(q, body)) {
        return FAIL(E_SIGNER_REFUSED);
    }
    uint8_t digest[DIGEST_SIZE];
    ids_digest(body, digest);
    bool write = false;
    if (q->kind == CONTAINER_MANIFEST) {
        TRY(signer_state_manifest(&p->state, q->version, digest, &write));
    } else if (q->kind == CONTAINER_SHARES) {
        TRY(signer_state_shares(&p->state, q->epoch, q->sequence));
    } else {
        TRY(signer_state_head(&p->state, q->epoch, q->sequence, digest, &write));
    }
    if (write) {
        struct err e = signer_state_write(p->state_fd, &p->state);
        p->broken = !err_ok(e); /* what is on disk is no longer known: stop here. */
        return e;
    }
    return OK;
}

static struct err answer(struct process *p, const struct signer_request *q,
                         struct signer_reply *reply)
{
    struct slice body = slice_of(p->body, q->size);
    if (p->broken) {
        return FAIL(E_IO);
    }
    TRY(judge(p, q, body));
    const struct key_pair *pair = q->kind == CONTAINER_MANIFEST ? p->manifest : p->head;
    buf_clear(&p->to_sign);
    TRY(container_signed_bytes((enum container_kind)q->kind, p->state.environment, body,
                               &p->to_sign));
    key_id(pair->public.bytes, reply->key_id);
    key_sign(pair, buf_slice(&p->to_sign), reply->signature);
    return OK;
}

static struct err serve_one(struct process *p)
{
    struct signer_request q;
    TRY(signer_receive(SIGNER_FD, &q, sizeof(q)));
    CHECK(q.magic == SIGNER_MAGIC); /* our own parent, the same binary. */
    CHECK(q.kind == CONTAINER_MANIFEST || q.kind == CONTAINER_HEAD || q.kind == CONTAINER_SHARES);
    CHECK(q.size <= container_body_max((enum container_kind)q.kind));
    TRY(signer_receive(SIGNER_FD, p->body, q.size));
    struct signer_reply reply = {.magic = SIGNER_MAGIC};
    reply.code = (uint32_t)answer(p, &q, &reply).code;
    return signer_send(SIGNER_FD, slice_of(&reply, sizeof(reply)));
}

static struct err load(struct process *p, char **argv, const char **at, const char **why)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(slice_str(argv[0]), environment);
    *at = "memory";
    *why = "the stack cannot be locked: raise RLIMIT_MEMLOCK";
    TRY(signer_sandbox_lock_stack());
    *why = NULL;
    *at = argv[1];
    TRY(load_key(argv[1], KEY_ROLE_MANIFEST, &p->manifest, why));
    *at = argv[2];
    TRY(load_key(argv[2], KEY_ROLE_HEAD, &p->head, why));
    *at = argv[3];
    TRY(signer_state_open(argv[3], environment, &p->state, &p->state_fd));
    *at = "memory";
    uint8_t *room = NULL;
    TRY(buf_reserve(&p->to_sign, SIGNED_MAX, &room));
    *at = "sandbox";
    *why = "the kernel offers no seccomp";
    return signer_sandbox_enter(SIGNER_FD, p->state_fd);
}

static struct err prepare(struct process *p, char **argv, struct signer_hello *hello)
{
    const char *at = "";
    const char *why = NULL;
    struct err e = load(p, argv, &at, &why);
    if (!err_ok(e)) {
        (void)snprintf(hello->message, sizeof(hello->message), "%.180s: %s", at,
                       why == NULL ? err_text(e.code) : why);
        return e;
    }
    (void)memcpy(hello->manifest_public, p->manifest->public.bytes, KEY_PUBLIC_SIZE);
    (void)memcpy(hello->head_public, p->head->public.bytes, KEY_PUBLIC_SIZE);
    hello->epoch = p->state.epoch;
    hello->version = p->state.version;
    return OK;
}

static void wipe(struct key_pair *pair)
{
    if (pair != NULL) {
        key_pair_wipe(
            pair); /* its memory goes with the process: unmapping it is a call too many. */
    }
}

int cp_signer_main(int argc, char **argv)
{
    /* Zeroed; the body's room is too large for a stack. */
    static struct process process = {.state_fd = -1, .to_sign = {.max = SIGNED_MAX}};
    if (argc != 4) {
        (void)fprintf(stderr, "signer: started by trilane-cp serve alone\n");
        return 2;
    }
    signer_child_harden(SIGNER_KEY_FD + SIGNER_KEYS);
    ids_init();
    struct signer_hello hello = {.magic = SIGNER_MAGIC};
    struct err e = prepare(&process, argv, &hello);
    hello.code = (uint32_t)e.code;
    struct err sent = signer_send(SIGNER_FD, slice_of(&hello, sizeof(hello)));
    while (err_ok(e) && err_ok(sent)) { /* ends when the parent closes the socket. */
        sent = serve_one(&process);
    }
    wipe(process.manifest);
    wipe(process.head);
    /* Without exit handlers: nothing here may look at memory. By the call itself: a sanitizer does
     * more before _exit() than the sandbox lets it. */
    (void)syscall(SYS_exit_group, err_ok(e) ? 0 : 1);
    return 1; /* not reached. */
}
