/* postgres_server: see postgres_server.h. */
#include "tests/support/postgres_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/base/text.h"

#include "tests/support/ports.h"

enum { READY_MS = 60000, END_MS = 60000, LOOK_MS = 10, PATH_SIZE = 512, PROCESSES_MAX = 128 };

static void look_later(void)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
}

/* ---- whom it runs as, and which one it is ---- */

/* NOLINTBEGIN(concurrency-mt-unsafe): before any thread of the test. */
static const struct passwd *server_user(void)
{
    if (geteuid() != 0) {
        return NULL;
    }
    const struct passwd *user = getpwnam("postgres");
    user = user == NULL ? getpwnam("nobody") : user;
    CHECK(user != NULL);
    return user;
}
/* NOLINTEND(concurrency-mt-unsafe) */

/* Debian keeps a server's programs off the PATH, a folder a version; glob() sorts them. */
static void find_program(const char *name, char out[PATH_SIZE])
{
    char pattern[PATH_SIZE];
    glob_t found = {0};
    (void)snprintf(pattern, sizeof(pattern), "/usr/lib/postgresql/*/bin/%s", name);
    if (glob(pattern, 0, NULL, &found) != 0) {
        (void)fprintf(stderr, "no %s: apt-get install postgresql\n", pattern);
        abort();
    }
    (void)snprintf(out, PATH_SIZE, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
}

enum { ARGUMENTS_MAX = 16 };

/* In a child: becomes the user (which clears the signal of the parent's death, so that comes
 * behind), and a program whose output goes to the log. It is told its whole path, by which it finds
 * its fellows: they need not be on the PATH. */
static _Noreturn void become(const struct postgres_server *s, const struct passwd *user,
                             const char *program, const char *const *arguments)
{
    const char *argv[ARGUMENTS_MAX + 1] = {program};
    for (size_t i = 1; i < ARGUMENTS_MAX && arguments[i] != NULL; i++) {
        argv[i] = arguments[i];
    }
    char log[PATH_SIZE];
    (void)snprintf(log, sizeof(log), "%s/log", s->directory);
    bool dropped = user == NULL || (setgroups(0, NULL) == 0 && setgid(user->pw_gid) == 0 &&
                                    setuid(user->pw_uid) == 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (!dropped || fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0 ||
        chdir(s->directory) != 0) {
        _exit(126);
    }
    (void)execv(program, (char *const *)(const void *)argv);
    _exit(127);
}

static pid_t spawn(const struct postgres_server *s, const char *name, const char *const *argv)
{
    char program[PATH_SIZE];
    const struct passwd *user = server_user();
    find_program(name, program);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        become(s, user, program, argv);
    }
    return pid;
}

/* ---- the directory, and who removes it ---- */

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *ftw)
{
    (void)about;
    (void)type;
    (void)ftw;
    (void)remove(path); /* a session that still ends may remove files of its own. */
    return 0;
}

/* Processes whose working directory is the data directory: all of the server's. */
static unsigned find_processes(const struct postgres_server *s, pid_t out[PROCESSES_MAX])
{
    char data[PATH_SIZE];
    unsigned count = 0;
    (void)snprintf(data, sizeof(data), "%s/data", s->directory);
    DIR *proc = opendir("/proc");
    CHECK(proc != NULL);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own. */
    for (struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
        char link[PATH_SIZE];
        char target[PATH_SIZE];
        (void)snprintf(link, sizeof(link), "/proc/%.32s/cwd", entry->d_name);
        ssize_t size = readlink(link, target, sizeof(target) - 1);
        target[size < 0 ? 0 : size] = '\0';
        if (size > 0 && strcmp(target, data) == 0 && count < PROCESSES_MAX) {
            out[count++] = (pid_t)strtol(entry->d_name, NULL, 10);
        }
    }
    CHECK(closedir(proc) == 0);
    return count;
}

static void signal_all(const struct postgres_server *s, int number)
{
    pid_t pids[PROCESSES_MAX];
    unsigned count = find_processes(s, pids);
    for (unsigned i = 0; i < count; i++) {
        (void)kill(pids[i], number); /* it may have ended. */
    }
}

static void wait_gone(const struct postgres_server *s)
{
    pid_t pids[PROCESSES_MAX];
    uint64_t until_ns = clock_mono_ns() + (uint64_t)END_MS * 1000000;
    while (find_processes(s, pids) > 0) {
        CHECK(clock_mono_ns() < until_ns);
        look_later();
    }
}

/* Beside the test: waits for its end, whatever that is, and clears up. */
static _Noreturn void keep(const struct postgres_server *s, int fd)
{
    char byte = 0;
    (void)signal(SIGINT, SIG_IGN);
    (void)signal(SIGTERM, SIG_IGN);
    while (read(fd, &byte, 1) < 0 && errno == EINTR) {
    }
    signal_all(s, SIGKILL);
    wait_gone(s);
    _exit(nftw(s->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0 : 1);
}

static void start_keeper(struct postgres_server *s)
{
    int fds[2];
    CHECK(pipe2(fds, O_CLOEXEC) == 0);
    s->keeper = fork();
    CHECK(s->keeper >= 0);
    if (s->keeper == 0) {
        (void)close(fds[1]);
        keep(s, fds[0]);
    }
    (void)close(fds[0]);
    s->keeper_fd = fds[1];
}

static void write_file(const char *path, const char *mode, const char *text)
{
    FILE *file = fopen(path, mode);
    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK(fclose(file) == 0);
}

static void make_data(const struct postgres_server *s)
{
    char data[PATH_SIZE];
    char password[PATH_SIZE];
    char text[PATH_SIZE * 2];
    (void)snprintf(data, sizeof(data), "%s/data", s->directory);
    (void)snprintf(password, sizeof(password), "%s/password", s->directory);
    write_file(password, "we", s->password);
    const struct passwd *user = server_user();
    if (user != NULL) {
        CHECK(chown(s->directory, user->pw_uid, user->pw_gid) == 0);
        CHECK(chown(password, user->pw_uid, user->pw_gid) == 0);
    }
    const char *const argv[] = {
        "initdb",   "--no-sync", "-D", data,   "-U",       "trilane", "-A", "scram-sha-256",
        "--pwfile", password,    "-E", "UTF8", "--locale", "C",       NULL};
    pid_t pid = spawn(s, "initdb", argv);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (status != 0) {
        (void)fprintf(stderr, "initdb failed: %s/log\n", s->directory);
        abort();
    }
    (void)snprintf(text, sizeof(text),
                   "listen_addresses = '127.0.0.1'\nport = %u\nunix_socket_directories = '%s'\n"
                   "fsync = off\nfull_page_writes = off\nshared_buffers = 16MB\n"
                   "max_connections = 60\ntimezone = 'UTC'\n",
                   s->port, s->directory);
    (void)snprintf(data, sizeof(data), "%s/data/postgresql.conf", s->directory);
    write_file(data, "ae", text);
}

void postgres_server_init(struct postgres_server *s)
{
    uint8_t random[16];
    const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): before any thread. */
    *s = (struct postgres_server){.port = test_free_port()};
    (void)snprintf(s->directory, sizeof(s->directory), "%s/trilane-pg-XXXXXX",
                   base == NULL ? "/tmp" : base);
    CHECK(mkdtemp(s->directory) != NULL);
    ids_random(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), s->password);
    (void)snprintf(s->url, sizeof(s->url), "postgresql://trilane:%s@127.0.0.1:%u/postgres",
                   s->password, s->port);
    start_keeper(s);
    make_data(s);
}

void postgres_server_free(struct postgres_server *s)
{
    postgres_server_kill(s);
    CHECK(close(s->keeper_fd) == 0);
    int status = 0;
    CHECK(waitpid(s->keeper, &status, 0) == s->keeper);
    CHECK(status == 0);
}

/* ---- running ---- */

static bool answers(const struct postgres_server *s)
{
    char url[POSTGRES_SERVER_TEXT_MAX + 32];
    (void)snprintf(url, sizeof(url), "%s?connect_timeout=60", s->url);
    PGconn *conn = PQconnectdb(url);
    bool fine = PQstatus(conn) == CONNECTION_OK;
    PQfinish(conn);
    return fine;
}

void postgres_server_start(struct postgres_server *s)
{
    char data[PATH_SIZE];
    (void)snprintf(data, sizeof(data), "%s/data", s->directory);
    const char *const argv[] = {"postgres", "-D", data, NULL};
    CHECK(s->pid == 0);
    s->pid = spawn(s, "postgres", argv);
    uint64_t until_ns = clock_mono_ns() + (uint64_t)READY_MS * 1000000;
    while (!answers(s)) { /* ends: it answers, died, or time is over. */
        if (waitpid(s->pid, NULL, WNOHANG) != 0 || clock_mono_ns() > until_ns) {
            (void)fprintf(stderr, "postgres did not start: see %s/log\n", s->directory);
            abort();
        }
        look_later();
    }
}

void postgres_server_kill(struct postgres_server *s)
{
    if (s->pid == 0) {
        return;
    }
    signal_all(s, SIGKILL);
    CHECK(waitpid(s->pid, NULL, 0) == s->pid);
    s->pid = 0;
    wait_gone(s); /* the next start asks whether somebody is attached to the old shared memory. */
}

void postgres_server_pause(struct postgres_server *s)
{
    CHECK(s->pid != 0);
    CHECK(kill(s->pid, SIGSTOP) == 0); /* first: a stopped one makes no new ones. */
    int status = 0;
    CHECK(waitpid(s->pid, &status, WUNTRACED) == s->pid);
    CHECK(WIFSTOPPED(status));
    signal_all(s, SIGSTOP);
}

void postgres_server_resume(struct postgres_server *s)
{
    CHECK(s->pid != 0);
    signal_all(s, SIGCONT);
}

void postgres_server_sql(const char *url, const char *text)
{
    PGconn *conn = PQconnectdb(url);
    PGresult *result = PQexec(conn, text);
    if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK) {
        (void)fprintf(stderr, "%s: %s", text, PQerrorMessage(conn));
        abort();
    }
    PQclear(result);
    PQfinish(conn);
}
