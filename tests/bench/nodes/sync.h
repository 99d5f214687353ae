/*
 * sync: whether this program waits for its disk.
 *
 * Shape      fsync(), fdatasync() and sync_file_range() of the whole program come through here (the
 *            linker's --wrap): what a node writes is written either way, and with sync_skip(true)
 *            not awaited.
 * Threads    sync_skip() before any thread starts.
 */
#pragma once

#include <stdbool.h>

void sync_skip(bool skip);
