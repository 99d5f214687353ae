/*
 * user: who we are to NATS, by a file: "user:password" on one line.
 *
 * Shape      A password in a URL stands on the command line, where everybody on the machine reads
 *            it. This file is ours alone, or it is refused.
 * Ownership  plain values; bus_user_wipe() ends a secret.
 * Threads    any.
 * Errors     E_NOT_FOUND, E_IO; E_USAGE for a file that is not a plain one of our own, or that
 *            others may read; E_MALFORMED for one that says something else, or more.
 * Source     as key files are read: common/snapshot/keys.h.
 */
#pragma once

#include "common/base/err.h"
#include "common/base/slice.h"

enum { BUS_USER_MAX = 255 };

struct bus_user {
    char name[BUS_USER_MAX + 1];
    char password[BUS_USER_MAX + 1];
};

MUST_CHECK struct err bus_user_read(const char *path, struct bus_user *out);
/* The text of such a file. */
MUST_CHECK struct err bus_user_parse(struct slice text, struct bus_user *out);
void bus_user_wipe(struct bus_user *user);
#define auto_bus_user __attribute__((cleanup(bus_user_wipe)))

/* What is wrong with the file, for people: a sentence. */
const char *bus_user_why(struct err e);
