/*
 * client: the commands' side of the API.
 *
 * Shape      one request at a time (common/net/ask.h). With several servers the next one is asked
 *            when one cannot be reached, breaks off or has no leader; a write bears an id, so that
 *            it is done once.
 * Units      milliseconds.
 * Ownership  *out is the caller's (json_decref); it is set also when the server refused, or could
 *            not be asked: its "message" and "fix" are then for cli_refused().
 * Threads    commands: one thread.
 * Errors     E_UNAVAILABLE when the server cannot be reached; E_TIMEOUT; E_TOO_LARGE for an answer
 *            that is; the code that the server answered; E_MALFORMED for an answer that is no JSON.
 */
#pragma once

#include <jansson.h>

#include "common/base/err.h"
#include "controlplane/cli/cli.h"
#include "controlplane/source/source.h"

/* 'body' NULL: GET, else POST with the token. */
MUST_CHECK struct err cli_call(const struct cli *cli, const char *path, const json_t *body,
                               json_t **out);

/* Says what the server refused, with its diagnostics; the exit code. Takes 'answer'. */
int cli_refused(const struct cli *cli, struct err e, json_t *answer);

/* Who asks: --author, else the account's name, or its number. */
enum { CLI_AUTHOR_SIZE = 129 };
void cli_author(const struct cli *cli, char out[CLI_AUTHOR_SIZE]);

/* Sources as the API takes them: an array of {name, content}. */
json_t *cli_files(const struct cp_source_set *set);
