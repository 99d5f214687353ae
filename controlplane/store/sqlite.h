/*
 * sqlite: the embedded store.
 *
 * Shape      one file in WAL mode with full synchronisation: a commit that returned survives a
 *            power cut. The only code that knows SQLite's API is sqlite.c and sql.c.
 * Ownership  and threads: as store.h says.
 */
#pragma once

#include "controlplane/store/store.h"

/* Opens FILE, makes it when missing (mode 0600), and migrates it. */
MUST_CHECK struct err cp_sqlite_open(const char *path, struct cp_store **out, struct buf *message);
