/* Proves that behind each of the two sandboxes a process can do what the signer, or the certifier,
 * needs, and dies of all else. */
#include "controlplane/signer/sandbox.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

/* In a child, behind the sandbox: 0 is success. */
typedef int act_fn(int socket_fd, int state_fd);

/* Which sandbox. */
typedef struct err enter_fn(int socket_fd);

static int state_fd = -1;

static struct err enter_to_sign(int socket_fd)
{
    return signer_sandbox_enter(socket_fd, state_fd);
}

/* Runs 'act' in a child of which 'pair' is the socket; its status as wait() gives it. */
static int run_in_sandbox(enter_fn *enter, act_fn *act)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(write(pair[0], "x", 1), 1);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        struct err e = enter(pair[1]);
        (void)syscall(SYS_exit_group, err_ok(e) ? act(pair[1], state_fd) : 99);
    }
    int status = 0;
    (void)close(pair[0]);
    (void)close(pair[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int signs(int socket_fd, int file_fd)
{
    char byte = 0;
    bool fine = recv(socket_fd, &byte, 1, 0) == 1 && pwrite(file_fd, &byte, 1, 0) == 1 &&
                fdatasync(file_fd) == 0 && send(socket_fd, &byte, 1, MSG_NOSIGNAL) == 1;
    return fine ? 0 : 1;
}

static void what_the_signer_needs_is_let_through(void **state)
{
    (void)state;
    int status = run_in_sandbox(enter_to_sign, signs);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int certifies(int socket_fd, int file_fd)
{
    char byte = 0;
    (void)file_fd;
    void *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool fine = memory != MAP_FAILED && munmap(memory, 1 << 20) == 0 &&
                syscall(SYS_getrandom, &byte, 1, 0) == 1 && syscall(SYS_getpid) > 0 &&
                recv(socket_fd, &byte, 1, 0) == 1 && send(socket_fd, &byte, 1, MSG_NOSIGNAL) == 1;
    return fine ? 0 : 1;
}

static void what_the_certifier_needs_is_let_through(void **state)
{
    (void)state;
    int status = run_in_sandbox(signer_sandbox_enter_to_certify, certifies);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Each by its system call: no library stands between. */
#define FORBIDDEN(name, call)                                                                      \
    static int name(int socket_fd, int file_fd)                                                    \
    {                                                                                              \
        (void)socket_fd;                                                                           \
        (void)file_fd;                                                                             \
        (void)(call);                                                                              \
        return 0;                                                                                  \
    }

FORBIDDEN(opens, syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY))
FORBIDDEN(reads, syscall(SYS_read, file_fd, &file_fd, 1))
FORBIDDEN(writes_to_standard_error, syscall(SYS_write, 2, "k", 1))
FORBIDDEN(writes_to_another_file, syscall(SYS_pwrite64, 1, "k", 1, 0))
FORBIDDEN(syncs_another_file, syscall(SYS_fdatasync, 1))
FORBIDDEN(sends_elsewhere, syscall(SYS_sendto, file_fd, "k", 1, 0, NULL, 0))
FORBIDDEN(receives_elsewhere, syscall(SYS_recvfrom, file_fd, &file_fd, 1, 0, NULL, NULL))
FORBIDDEN(sends_a_descriptor, syscall(SYS_sendmsg, socket_fd, NULL, 0))
FORBIDDEN(makes_a_socket, syscall(SYS_socket, AF_INET, SOCK_STREAM, 0))
FORBIDDEN(connects, syscall(SYS_connect, socket_fd, NULL, 0))
FORBIDDEN(runs_a_program, syscall(SYS_execve, "/bin/true", NULL, NULL))
FORBIDDEN(forks, syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL))
FORBIDDEN(kills, syscall(SYS_kill, getppid(), SIGTERM))
FORBIDDEN(looks_into_another_process, syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0))
FORBIDDEN(is_traced, syscall(SYS_ptrace, 0, 0, NULL, NULL))
FORBIDDEN(becomes_dumpable, syscall(SYS_prctl, 4, 1, 0, 0, 0))
FORBIDDEN(duplicates, syscall(SYS_dup, socket_fd))
FORBIDDEN(loads_another_filter, syscall(SYS_seccomp, 0, 0, NULL))
FORBIDDEN(maps_code, syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file_fd, 0))
FORBIDDEN(maps_memory_to_run,
          syscall(SYS_mmap, NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
FORBIDDEN(maps_a_file, syscall(SYS_mmap, NULL, 4096, PROT_READ, MAP_PRIVATE, file_fd, 0))
FORBIDDEN(makes_memory_run, syscall(SYS_mprotect, NULL, 0, PROT_EXEC))
FORBIDDEN(renames, syscall(SYS_renameat2, AT_FDCWD, "a", AT_FDCWD, "b", 0))
FORBIDDEN(removes, syscall(SYS_unlinkat, AT_FDCWD, "a", 0))

static void all_else_ends_the_process(void **state)
{
    static act_fn *const acts[] = {
        opens,
        reads,
        writes_to_standard_error,
        writes_to_another_file,
        syncs_another_file,
        sends_elsewhere,
        receives_elsewhere,
        sends_a_descriptor,
        makes_a_socket,
        connects,
        runs_a_program,
        forks,
        kills,
        looks_into_another_process,
        is_traced,
        becomes_dumpable,
        duplicates,
        loads_another_filter,
        maps_code,
        maps_memory_to_run,
        maps_a_file,
        makes_memory_run,
        renames,
        removes,
    };
    static enter_fn *const sandboxes[] = {enter_to_sign, signer_sandbox_enter_to_certify};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof(acts) / sizeof(acts[0]); i++) {
        int status = run_in_sandbox(sandboxes[i % 2], acts[i / 2]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
            fail_msg("call %zu of the list ended with status %d in sandbox %zu", i / 2, status,
                     i % 2);
        }
    }
}

int main(void)
{
    char path[] = "/tmp/trilane-sandbox-XXXXXX";
    state_fd = mkostemp(path, O_CLOEXEC);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_signer_needs_is_let_through),
        cmocka_unit_test(what_the_certifier_needs_is_let_through),
        cmocka_unit_test(all_else_ends_the_process),
    };
    int failed = cmocka_run_group_tests_name("signer.sandbox", tests, NULL, NULL);
    (void)close(state_fd);
    (void)unlink(path);
    return failed;
}
