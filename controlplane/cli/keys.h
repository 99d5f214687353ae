/*
 * keys: how commands show a root and its keys.
 *
 * Shape      JSON as the API and cp_json_root() make it, to standard output.
 * Threads    commands: one thread.
 */
#pragma once

#include <jansson.h>

enum { CLI_END_SIZE = 48 };

/* The end of a key or root for people: "6d left", "over since 2h", "no end" for 0. */
void cli_end_text(json_int_t not_after_ms, char out[CLI_END_SIZE]);

/* Writes a root, {"root"}, and who uses its keys where the answer says so. */
void cli_root_table(const json_t *answer);
