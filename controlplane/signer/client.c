/* client: trilane-cp's side of its signer. See signer.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/lock.h"
#include "common/base/scope.h"
#include "controlplane/signer/signer.h"
#include "controlplane/signer/wire.h"

enum { ANSWER_S = 5 }; /* one write to disk and one signature. */

struct cp_signer {
    struct cp_signer_options options;
    struct {
        struct lock lock;  /* one request at a time. */
        pid_t pid GUARDED; /* 0: none. */
        int fd GUARDED;    /* -1: it is gone. */
        struct cp_signer_hello hello GUARDED;
    } shared;
};

static const char *program_of(const struct cp_signer_options *o)
{
    return o->program == NULL ? "/proc/self/exe" : o->program;
}

/* Between fork and exec: async-signal-safe calls only. */
static _Noreturn void become_signer(const struct cp_signer_options *o, int fd, pid_t parent)
{
    if (fd == SIGNER_FD) {
        (void)fcntl(fd, F_SETFD, 0);
    } else if (dup2(fd, SIGNER_FD) < 0) {
        _exit(1);
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) { /* it died before the line above. */
        _exit(1);
    }
    static char name[] = "trilane-cp";
    static char subcommand[] = "signer";
    /* execve() takes char *const[] for history's sake and writes to nothing of it. */
    union {
        const char *in;
        char *out;
    } environment = {o->environment}, manifest = {o->key_manifest}, head = {o->key_head},
      state = {o->state};
    char *argv[] = {name,     subcommand, environment.out, manifest.out,
                    head.out, state.out,  (char *)0};
    char *no_environment[] = {(char *)0};
    (void)execve(program_of(o), argv, no_environment);
    _exit(1);
}

static struct err set_timeouts(int fd)
{
    const struct timeval wait = {.tv_sec = ANSWER_S};
    bool fine = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0;
    return fine ? OK : FAIL(E_IO);
}

static struct err start(struct cp_signer *s) REQUIRES(s->shared.lock)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return FAIL(E_IO);
    }
    auto_close int ours = pair[0];
    auto_close int theirs = pair[1];
    TRY(set_timeouts(ours));
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        become_signer(&s->options, theirs, parent);
    }
    if (pid < 0) {
        return FAIL(E_IO);
    }
    s->shared.pid = pid;
    s->shared.fd = TAKE_FD(ours);
    return OK;
}

static struct err greet(struct cp_signer *s, struct buf *message) REQUIRES(s->shared.lock)
{
    struct signer_hello hello;
    struct err e = signer_receive(s->shared.fd, &hello, sizeof(hello));
    if (!err_ok(e)) {
        TRY(buf_add_str(message, "signer: the process ended before it was ready"));
        return e;
    }
    CHECK(hello.magic == SIGNER_MAGIC && hello.code < E_COUNT);
    if (hello.code != E_OK) {
        hello.message[sizeof(hello.message) - 1] = '\0';
        TRY(buf_addf(message, "signer: %s", hello.message));
        return FAIL((enum err_code)hello.code);
    }
    (void)memcpy(s->shared.hello.manifest_public, hello.manifest_public, KEY_PUBLIC_SIZE);
    (void)memcpy(s->shared.hello.head_public, hello.head_public, KEY_PUBLIC_SIZE);
    s->shared.hello.epoch = hello.epoch;
    s->shared.hello.version = hello.version;
    return OK;
}

/* It ends at the end of its input; one that hangs is killed: its memory is on disk before any
 * signature leaves it. */
static void end(struct cp_signer *s, bool hangs) REQUIRES(s->shared.lock)
{
    scope_close(&s->shared.fd);
    if (s->shared.pid > 0) {
        if (hangs) {
            (void)kill(s->shared.pid, SIGKILL);
        }
        while (waitpid(s->shared.pid, NULL, 0) < 0 && errno == EINTR) {
        }
        s->shared.pid = 0;
    }
}

static struct err start_and_greet(struct cp_signer *s, struct buf *message) REQUIRES(s->shared.lock)
{
    struct err e = start(s);
    if (err_ok(e)) {
        e = greet(s, message);
    }
    if (!err_ok(e)) {
        end(s, /* hangs= */ true);
    }
    return e;
}

struct err cp_signer_start(const struct cp_signer_options *options, struct cp_signer **out,
                           struct buf *message)
{
    struct cp_signer *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->options = *options;
    lock_init(&s->shared.lock);
    lock_take(&s->shared.lock);
    s->shared.fd = -1;
    struct err e = start_and_greet(s, message);
    lock_drop(&s->shared.lock);
    if (!err_ok(e)) {
        cp_signer_stop(s);
        return e;
    }
    *out = s;
    return OK;
}

void cp_signer_stop(struct cp_signer *signer)
{
    if (signer == NULL) {
        return;
    }
    lock_take(&signer->shared.lock);
    end(signer, /* hangs= */ false);
    lock_drop(&signer->shared.lock);
    lock_free(&signer->shared.lock);
    free(signer);
}

struct cp_signer_hello cp_signer_hello(struct cp_signer *signer)
{
    lock_take(&signer->shared.lock);
    struct cp_signer_hello hello = signer->shared.hello;
    lock_drop(&signer->shared.lock);
    return hello;
}

bool cp_signer_is_gone(struct cp_signer *signer)
{
    lock_take(&signer->shared.lock);
    if (signer->shared.pid > 0 &&
        waitpid(signer->shared.pid, NULL, WNOHANG) == signer->shared.pid) {
        signer->shared.pid = 0;
        scope_close(&signer->shared.fd);
    }
    bool gone = signer->shared.fd < 0;
    lock_drop(&signer->shared.lock);
    return gone;
}

static struct err restart(struct cp_signer *s, struct buf *message) REQUIRES(s->shared.lock)
{
    struct cp_signer_hello before = s->shared.hello;
    end(s, /* hangs= */ true);
    TRY(start_and_greet(s, message));
    const struct cp_signer_hello *now = &s->shared.hello;
    if (memcmp(before.manifest_public, now->manifest_public, KEY_PUBLIC_SIZE) != 0 ||
        memcmp(before.head_public, now->head_public, KEY_PUBLIC_SIZE) != 0) {
        end(s, /* hangs= */ false);
        s->shared.hello = before;
        TRY(buf_add_str(message, "signer: the key files were changed under a running server"));
        return FAIL(E_CONFLICT);
    }
    return OK;
}

struct err cp_signer_restart(struct cp_signer *signer, struct buf *message)
{
    lock_take(&signer->shared.lock);
    struct err e = restart(signer, message);
    lock_drop(&signer->shared.lock);
    return e;
}

/* A failure leaves half a message on the socket: it is of no use any more. */
static struct err exchange(struct cp_signer *s, const struct signer_request *q, struct slice body,
                           struct signer_reply *reply) REQUIRES(s->shared.lock)
{
    if (s->shared.fd < 0) {
        return FAIL(E_SIGNER_GONE);
    }
    struct err e = signer_send(s->shared.fd, slice_of(q, sizeof(*q)));
    if (err_ok(e)) {
        e = signer_send(s->shared.fd, body);
    }
    if (err_ok(e)) {
        e = signer_receive(s->shared.fd, reply, sizeof(*reply));
    }
    if (!err_ok(e)) {
        end(s, /* hangs= */ true);
        return FAIL(E_SIGNER_GONE);
    }
    return OK;
}

struct err cp_signer_sign(struct cp_signer *signer, const struct cp_signer_request *request,
                          struct container_signature *out)
{
    if (request->body.size > container_body_max(request->kind)) {
        return FAIL(E_TOO_LARGE);
    }
    struct signer_request q = {.magic = SIGNER_MAGIC,
                               .kind = (uint32_t)request->kind,
                               .version = request->version,
                               .root_version = request->root_version,
                               .epoch = request->epoch,
                               .sequence = request->sequence,
                               .size = (uint32_t)request->body.size};
    struct signer_reply reply;
    lock_take(&signer->shared.lock);
    struct err e = exchange(signer, &q, request->body, &reply);
    lock_drop(&signer->shared.lock);
    TRY(e);
    CHECK(reply.magic == SIGNER_MAGIC && reply.code < E_COUNT);
    if (reply.code != E_OK) {
        return FAIL((enum err_code)reply.code);
    }
    (void)memcpy(out->key_id, reply.key_id, sizeof(out->key_id));
    (void)memcpy(out->signature, reply.signature, sizeof(out->signature));
    return OK;
}
