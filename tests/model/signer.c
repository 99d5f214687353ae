/* signer: see signer.h. */
#include "tests/model/signer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "controlplane/signer/state.h"

#include "tests/model/bugs.h"
#include "tests/model/ledger.h"
#include "tests/model/replica.h"
#include "tests/model/world.h"

#define SIGNING_MOST_NS (500 * SIM_MS / 1000)

struct cp_signer {
    struct replica *replica;
    struct signer_state state;
    int state_fd;
    struct cp_signer_hello hello; /* what it said when it was started. */
    struct key_pair manifest_key;
    struct key_pair head_key;
    char state_path[REPLICA_PATH + 16];
    bool gone;
};

static struct err start(struct cp_signer *s)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT(WORLD_ENVIRONMENT), environment);
    TRY(signer_state_open(s->state_path, environment, &s->state, &s->state_fd));
    s->gone = false;
    s->manifest_key = s->replica->manifest_key;
    s->head_key = s->replica->head_key;
    s->hello = (struct cp_signer_hello){.epoch = s->state.epoch, .version = s->state.version};
    memcpy(s->hello.manifest_public, s->manifest_key.public.bytes, KEY_PUBLIC_SIZE);
    memcpy(s->hello.head_public, s->head_key.public.bytes, KEY_PUBLIC_SIZE);
    return OK;
}

/* The keys that lie in its files now, if the root in force knows them. */
static struct err accept(const struct cp_signer *s, struct buf *message)
{
    struct cp_signer_hello hello = {0};
    memcpy(hello.manifest_public, s->replica->manifest_key.public.bytes, KEY_PUBLIC_SIZE);
    memcpy(hello.head_public, s->replica->head_key.public.bytes, KEY_PUBLIC_SIZE);
    return cp_roots_check_signer(s->replica->roots, &hello, message);
}

struct err signer_start(struct replica *replica, struct cp_signer **out)
{
    struct cp_signer *s = calloc(1, sizeof(*s));
    CHECK(s != NULL);
    s->replica = replica;
    (void)snprintf(s->state_path, sizeof(s->state_path), "%s/signer.state", replica->directory);
    auto_buf struct buf message = BUF_MAX(4096);
    TRY(accept(s, &message));
    TRY(start(s));
    *out = s;
    return OK;
}

void cp_signer_stop(struct cp_signer *signer)
{
    free(signer);
}

struct cp_signer_hello cp_signer_hello(struct cp_signer *signer)
{
    return signer->hello;
}

bool cp_signer_is_gone(struct cp_signer *signer)
{
    signer->gone = signer->gone || signer->replica->signer_dies;
    signer->replica->signer_dies = false;
    return signer->gone;
}

struct err cp_signer_restart(struct cp_signer *signer, struct buf *message)
{
    sim_point("signer.restart");
    TRY(accept(signer, message));
    return start(signer);
}

struct err cp_signer_reload(struct cp_signer *signer, bool *out_changed, struct buf *message)
{
    sim_point("signer.reload");
    TRY(accept(signer, message));
    *out_changed = memcmp(signer->head_key.public.bytes, signer->replica->head_key.public.bytes,
                          KEY_PUBLIC_SIZE) != 0;
    return *out_changed ? start(signer) : OK;
}

static struct err judge(struct cp_signer *s, const struct cp_signer_request *q)
{
    uint8_t digest[DIGEST_SIZE];
    bool write = false;
    ids_digest(q->body, digest);
    if (bugs_is(BUG_signer_lower)) {
        return OK;
    }
    if (q->kind == CONTAINER_MANIFEST) {
        TRY(signer_state_manifest(&s->state, q->version, digest, &write));
    } else {
        TRY(signer_state_head(&s->state, q->epoch, q->sequence, digest, &write));
    }
    write = write && !bugs_is(BUG_signer_forgets);
    return write ? signer_state_write(s->state_fd, &s->state) : OK;
}

struct err cp_signer_sign(struct cp_signer *signer, const struct cp_signer_request *request,
                          struct container_signature *out)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    const struct key_pair *key =
        request->kind == CONTAINER_MANIFEST ? &signer->manifest_key : &signer->head_key;
    sim_point("signer.sign");
    sim_sleep(sim_random(SIGNING_MOST_NS));
    if (cp_signer_is_gone(signer)) {
        return FAIL(E_SIGNER_GONE);
    }
    TRY(judge(signer, request));
    snap_environment(SLICE_LIT(WORLD_ENVIRONMENT), environment);
    TRY(container_sign(request->kind, environment, request->body, key, out));
    ledger_signed(request, out->key_id);
    sim_point("signer.signed");
    return OK;
}
