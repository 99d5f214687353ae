/* nats_server: see nats_server.h. */
#include "tests/support/nats_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/scope.h"

#include "tests/support/ports.h"

enum { READY_MS = 60000, LOOK_MS = 10, PATH_SIZE = NATS_SERVER_TEXT_MAX + 32 };

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return to;
}

void nats_server_init(struct nats_server *s, const char *extra)
{
    const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): before any thread. */
    *s = (struct nats_server){.port = test_free_port()};
    (void)snprintf(s->directory, sizeof(s->directory), "%s/trilane-nats-XXXXXX",
                   base == NULL ? "/tmp" : base);
    CHECK(mkdtemp(s->directory) != NULL);
    (void)snprintf(s->url, sizeof(s->url), "nats://127.0.0.1:%u", s->port);
    nats_server_configure(s, extra);
}

void nats_server_configure(const struct nats_server *s, const char *extra)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/nats.conf", s->directory);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    CHECK(fprintf(file,
                  "listen: 127.0.0.1:%u\nserver_name: test\n"
                  "jetstream { store_dir: \"%s/store\", max_mem: 64M, max_file: 1G }\n%s\n",
                  s->port, s->directory, extra == NULL ? "" : extra) > 0);
    CHECK(fclose(file) == 0);
}

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *ftw)
{
    (void)about;
    (void)type;
    (void)ftw;
    return remove(path);
}

void nats_server_free(struct nats_server *s)
{
    nats_server_kill(s);
    CHECK(nftw(s->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

static _Noreturn void become_server(const struct nats_server *s)
{
    char config[PATH_SIZE];
    char log[PATH_SIZE];
    (void)snprintf(config, sizeof(config), "%s/nats.conf", s->directory);
    (void)snprintf(log, sizeof(log), "%s/log", s->directory);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)dup2(fd, STDOUT_FILENO);
        (void)dup2(fd, STDERR_FILENO);
    }
    (void)execlp("nats-server", "nats-server", "-c", config, (char *)NULL);
    (void)execl("/usr/sbin/nats-server", "nats-server", "-c", config, (char *)NULL);
    _exit(127);
}

/* Whether it greets with its INFO line. */
static int answers(uint16_t port)
{
    char first[5] = {0};
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = loopback(port);
    struct timeval wait = {.tv_sec = 2};
    CHECK(fd >= 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    return connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
           recv(fd, first, 4, MSG_WAITALL) == 4 && strcmp(first, "INFO") == 0;
}

void nats_server_start(struct nats_server *s)
{
    CHECK(s->pid == 0);
    s->pid = fork();
    CHECK(s->pid >= 0);
    if (s->pid == 0) {
        become_server(s);
    }
    uint64_t until_ns = clock_mono_ns() + (uint64_t)READY_MS * 1000000;
    while (!answers(s->port)) { /* ends: it answers, died, or time is over. */
        if (waitpid(s->pid, NULL, WNOHANG) != 0 || clock_mono_ns() > until_ns) {
            (void)fprintf(stderr, "nats-server did not start: see %s/log\n", s->directory);
            abort();
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
    }
}

void nats_server_kill(struct nats_server *s)
{
    if (s->pid == 0) {
        return;
    }
    CHECK(kill(s->pid, SIGKILL) == 0);
    CHECK(waitpid(s->pid, NULL, 0) == s->pid);
    s->pid = 0;
}

void nats_server_pause(struct nats_server *s)
{
    CHECK(s->pid != 0);
    CHECK(kill(s->pid, SIGSTOP) == 0);
    /* A thread of it may still answer until the last one has stopped. */
    int status = 0;
    CHECK(waitpid(s->pid, &status, WUNTRACED) == s->pid);
    CHECK(WIFSTOPPED(status));
}

void nats_server_resume(struct nats_server *s)
{
    CHECK(s->pid != 0);
    CHECK(kill(s->pid, SIGCONT) == 0);
}
