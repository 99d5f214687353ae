/*
 * child: a process of our own binary that holds a secret: started, ended, asked how it went.
 *
 * Shape      the parent and the child share one socket and nothing else but the descriptors of
 *            keys that the parent keeps (keep.h). The child dies with the thread that started it.
 * Ownership  whoever calls signer_child_start() ends it with signer_child_end().
 * Threads    one at a time for a child; signer_child_harden() is the child's own.
 * Errors     E_IO when it cannot be started, or is gone.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/base/err.h"

enum {
    SIGNER_FD = 3,     /* the child's end of the socket. */
    SIGNER_KEY_FD = 4, /* keys that come by descriptor, one behind the other. */
    SIGNER_CHILD_KEYS_MAX = 2,
    SIGNER_CHILD_ARGS_MAX = 5, /* the hidden subcommand, and what follows it. */
};

struct signer_child {
    pid_t pid; /* 0: none. */
    int fd;    /* -1: it is gone. */
};

struct signer_child_plan {
    const char *program;                         /* our own binary; NULL: /proc/self/exe. */
    const char *args[SIGNER_CHILD_ARGS_MAX + 1]; /* ends with NULL. */
    const int *keys;                             /* what becomes SIGNER_KEY_FD + i; -1: nothing. */
    int key_count;
    bool urgent; /* others wait meanwhile: its first words have no longer than an answer. */
};

/* What stands for the key number 'index' in the child's arguments: "fd:4" for one that it inherits,
 * else 'file'. */
const char *signer_child_key(int kept_fd, int index, const char *file);

MUST_CHECK struct err signer_child_start(const struct signer_child_plan *plan,
                                         struct signer_child *out);

/* Receives the child's first words, for which it has the time that a start may take, unless it is
 * urgent; from then on each answer has a shorter one. E_CLOSED when it is gone or the time is over.
 */
MUST_CHECK struct err signer_child_greeting(const struct signer_child *child, void *out,
                                            size_t size);

/* It ends at the end of its input, and wipes its keys; one that 'hangs', or does not end within
 * two seconds, is killed. How it ended, as wait() gives it. */
int signer_child_end(struct signer_child *child, bool hangs);

/* Whether it ended by itself; then *out_status is how, as wait() gives it. */
bool signer_child_is_gone(struct signer_child *child, int *out_status);

/* The child's first act: it dies with its parent, leaves no core, no trace for a debugger, no
 * descriptor from 'first_other' on. */
void signer_child_harden(int first_other);
