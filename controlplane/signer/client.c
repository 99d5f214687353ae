/* client: trilane-cp's side of its signer. See signer.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/lock.h"
#include "common/base/scope.h"
#include "controlplane/signer/signer.h"
#include "controlplane/signer/wire.h"

struct cp_signer {
    pid_t pid;
    int fd;
    struct cp_signer_hello hello;
    struct lock lock; /* one request at a time. */
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

static struct err start(const struct cp_signer_options *o, struct cp_signer *s)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        return FAIL(E_IO);
    }
    auto_close int ours = pair[0];
    auto_close int theirs = pair[1];
    pid_t parent = getpid();
    s->pid = fork();
    if (s->pid == 0) {
        become_signer(o, theirs, parent);
    }
    if (s->pid < 0) {
        return FAIL(E_IO);
    }
    s->fd = TAKE_FD(ours);
    return OK;
}

static struct err greet(struct cp_signer *s, struct buf *message)
{
    struct signer_hello hello;
    struct err e = signer_receive(s->fd, &hello, sizeof(hello));
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
    (void)memcpy(s->hello.manifest_public, hello.manifest_public, KEY_PUBLIC_SIZE);
    (void)memcpy(s->hello.head_public, hello.head_public, KEY_PUBLIC_SIZE);
    s->hello.epoch = hello.epoch;
    s->hello.version = hello.version;
    return OK;
}

struct err cp_signer_start(const struct cp_signer_options *options, struct cp_signer **out,
                           struct buf *message)
{
    struct cp_signer *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->fd = -1;
    lock_init(&s->lock);
    struct err e = start(options, s);
    if (err_ok(e)) {
        e = greet(s, message);
    }
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
    scope_close(&signer->fd); /* the signer ends at the end of its input. */
    if (signer->pid > 0) {
        while (waitpid(signer->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    lock_free(&signer->lock);
    free(signer);
}

const struct cp_signer_hello *cp_signer_hello(const struct cp_signer *signer)
{
    return &signer->hello;
}

static struct err exchange(struct cp_signer *s, const struct signer_request *q, struct slice body,
                           struct signer_reply *reply)
{
    TRY(signer_send(s->fd, slice_of(q, sizeof(*q))));
    TRY(signer_send(s->fd, body));
    return signer_receive(s->fd, reply, sizeof(*reply));
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
    lock_take(&signer->lock);
    struct err e = exchange(signer, &q, request->body, &reply);
    lock_drop(&signer->lock);
    TRY(e);
    CHECK(reply.magic == SIGNER_MAGIC && reply.code < E_COUNT);
    if (reply.code != E_OK) {
        return FAIL((enum err_code)reply.code);
    }
    (void)memcpy(out->key_id, reply.key_id, sizeof(out->key_id));
    (void)memcpy(out->signature, reply.signature, sizeof(out->signature));
    return OK;
}
