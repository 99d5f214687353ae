/* client: see client.h. */
#include "controlplane/cli/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/net/ask.h"
#include "controlplane/source/source.h"

enum { PATH_SIZE = 4096, TOKEN_MAX = 256, ANSWER_MAX = 128 << 20 };
/* One server is waited for; of several, the next one is asked after some seconds, longer each time:
 * one that was stopped takes connections and answers nothing. The first wait is a little longer
 * than the leader's row lasts: a server that waits for the next leader has one by then. */
enum { CONNECT_MS = 5000, TIMEOUT_MS = 4200000, ATTEMPT_MS = 2500, GIVE_UP_MS = 300000 };
enum { JSON_PARSER_DEPTH = 2048 }; /* jansson takes no deeper text. */
enum { ID_RANDOM = 16, ID_SIZE = 2 * ID_RANDOM + 1 };

struct asking {
    const char *path;
    const json_t *body;  /* NULL: a GET. */
    char id[ID_SIZE];    /* of a write: the same, whichever server is asked. */
    uint64_t begun_ns;   /* when the first server was asked. */
    uint64_t timeout_ms; /* of one server. */
};

struct request {
    char server[PATH_SIZE]; /* the one that is asked. */
    char url[PATH_SIZE];
    char authorization[TOKEN_MAX + 64];
    char id[ID_SIZE + 64];
    char waited[64];
    char *body; /* freed by free(): jansson's text. */
};

static void request_free(struct request *r)
{
    free(r->body);
}

/* A refusal of our own, in the shape of the server's. */
static void explain(json_t **out, json_t *message, const char *fix)
{
    json_decref(*out);
    *out = json_pack("{s:o, s:s}", "message", message, "fix", fix);
}

static void token_path(const struct cli *cli, char path[PATH_SIZE])
{
    const char *given = settings_get(cli->settings, "token-file");
    if (given == NULL) {
        (void)snprintf(path, PATH_SIZE, "%.4000s/token", settings_get(cli->settings, "data-dir"));
    } else {
        (void)snprintf(path, PATH_SIZE, "%s", given);
    }
}

static struct err read_token(const struct cli *cli, char out[TOKEN_MAX], json_t **why)
{
    char path[PATH_SIZE];
    token_path(cli, path);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, out, TOKEN_MAX - 1);
    if (size <= 0) {
        explain(why, json_sprintf("the token cannot be read from %s", path),
                "name the server's own token file with --token-file");
        return FAIL(E_UNAUTHENTICATED);
    }
    struct slice text = slice_of(out, (size_t)size);
    out[slice_find(text, '\n') < text.size ? slice_find(text, '\n') : text.size] = '\0';
    return OK;
}

static struct err add_body(const struct cli *cli, const struct asking *asking, struct request *r,
                           struct net_ask *ask, json_t **why)
{
    char token[TOKEN_MAX];
    TRY(read_token(cli, token, why));
    (void)snprintf(r->authorization, sizeof(r->authorization), "Authorization: Bearer %s", token);
    (void)snprintf(r->id, sizeof(r->id), "Idempotency-Key: %s", asking->id);
    (void)snprintf(r->waited, sizeof(r->waited), "X-Trilane-Waited-Ms: %" PRIu64,
                   (clock_mono_ns() - asking->begun_ns) / 1000000);
    r->body = json_dumps(asking->body, JSON_COMPACT);
    if (r->body == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    ask->posts = true;
    ask->body = slice_str(r->body);
    ask->headers[0] = r->authorization;
    ask->headers[1] = r->id;
    ask->headers[2] = r->waited;
    return OK;
}

static struct err not_reached(const struct request *r, struct err e, const char *why, json_t **out)
{
    explain(out, json_sprintf("%s: %s", r->server, why),
            "is trilane-cp serve running there? name it with --server");
    return e.code == E_TIMEOUT || e.code == E_TOO_LARGE ? e : FAIL(E_UNAVAILABLE);
}

/* What the server, or whatever else listens there, answered instead of 200. */
static struct err refused(const struct cli *cli, const struct request *r, unsigned status,
                          json_t **out)
{
    enum err_code code = E_MALFORMED;
    if (!err_find(cli_text(*out, "code"), &code)) {
        explain(
            out,
            json_sprintf("%s: HTTP status %u, and no answer of trilane-cp's", r->server, status),
            "is it the address of trilane-cp? name it with --server");
        return FAIL(E_MALFORMED);
    }
    if (code == E_UNAUTHENTICATED && r->body != NULL) {
        char path[PATH_SIZE];
        token_path(cli, path);
        explain(out, json_sprintf("the server does not take the token of %s", path),
                "name the server's own token file with --token-file");
    }
    return FAIL(code);
}

/* Texts come from elsewhere and go to a terminal: they cannot steer it. */
static void make_printable(json_t *value, unsigned depth)
{
    if (depth > JSON_PARSER_DEPTH) {
        return;
    }
    const char *name = NULL;
    json_t *member = NULL;
    json_object_foreach(value, name, member)
    {
        make_printable(member, depth + 1);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        make_printable(json_array_get(value, i), depth + 1);
    }
    if (json_is_string(value)) {
        auto_free char *text = strdup(json_string_value(value));
        for (char *at = text; at != NULL && *at != '\0'; at++) {
            bool control = (unsigned char)*at < 0x20 || *at == 0x7f;
            *at = control && *at != '\n' && *at != '\t' ? '?' : *at;
        }
        (void)json_string_set(value, text == NULL ? "" : text);
    }
}

static struct err perform(const struct cli *cli, const struct request *r, const struct net_ask *ask,
                          json_t **out)
{
    auto_buf struct buf answer = BUF_MAX(ANSWER_MAX);
    unsigned status = 0;
    const char *why = NULL;
    struct err e = net_ask(ask, &status, &answer, &why);
    if (!err_ok(e)) {
        return not_reached(r, e, why, out);
    }
    *out = json_loadb((const char *)answer.ptr, answer.size, 0, NULL);
    if (cli->format == CLI_TABLE) {
        make_printable(*out, 0);
    }
    return status == 200 && json_is_object(*out) ? OK : refused(cli, r, status, out);
}

static struct err call_one(const struct cli *cli, struct slice server, const struct asking *asking,
                           json_t **out)
{
    __attribute__((cleanup(request_free))) struct request r = {.body = NULL};
    struct net_ask ask = {.url = r.url,
                          .connect_ms = CONNECT_MS,
                          .whole_ms = asking->timeout_ms,
                          .ca_file = settings_get(cli->settings, "tls-ca")};
    (void)snprintf(r.server, sizeof(r.server), "%.*s", SLICE_ARG(server));
    int size = snprintf(r.url, sizeof(r.url), "%s%s", r.server, asking->path);
    if (size < 0 || (size_t)size >= sizeof(r.url)) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(asking->body == NULL ? OK : add_body(cli, asking, &r, &ask, out));
    return perform(cli, &r, &ask, out);
}

/* Whether another server may know better: this one was not reached, broke off, or has no leader,
 * whatever keeps it from leading itself. */
static bool is_worth_another(struct err e, const json_t *answer)
{
    return e.code == E_UNAVAILABLE || e.code == E_TIMEOUT || e.code == E_NOT_LEADER ||
           e.code == E_DRAINING || json_is_false(json_object_get(answer, "leads"));
}

/* Each server once, until one knows. */
static struct err call_each(const struct cli *cli, struct slice servers,
                            const struct asking *asking, json_t **out)
{
    struct err e = FAIL(E_UNAVAILABLE);
    for (struct slice rest = servers; rest.size > 0 && is_worth_another(e, *out);) {
        struct slice server = slice_head(rest, slice_find(rest, ','));
        rest = slice_from(rest, server.size + 1);
        json_decref(*out);
        *out = NULL;
        e = call_one(cli, server, asking, out);
    }
    return e;
}

struct err cli_call(const struct cli *cli, const char *path, const json_t *body, json_t **out)
{
    struct slice servers = slice_str(settings_get(cli->settings, "server"));
    bool several = slice_find(servers, ',') < servers.size;
    uint64_t begun_ns = clock_mono_ns();
    uint64_t end_ns = begun_ns + (uint64_t)GIVE_UP_MS * 1000000;
    uint8_t random[ID_RANDOM];
    struct asking asking = {.path = path,
                            .body = body,
                            .begun_ns = begun_ns,
                            .timeout_ms = several ? ATTEMPT_MS : TIMEOUT_MS};
    randombytes_buf(random, sizeof(random));
    text_hex(slice_of(random, sizeof(random)), asking.id);
    *out = NULL;
    struct err e = call_each(cli, servers, &asking, out);
    /* A server that was slow is asked again; those that are not there are not. */
    while (several && e.code == E_TIMEOUT && clock_mono_ns() < end_ns) {
        asking.timeout_ms *= 2;
        e = call_each(cli, servers, &asking, out);
    }
    return e;
}

static void drop_table(const json_t *value)
{
    (void)value;
}

int cli_refused(const struct cli *cli, struct err e, json_t *answer)
{
    const char *message = cli_text(answer, "message");
    (void)fputs(cli_text(answer, "diagnostics_text"), stderr);
    int code = cli_fail_fix(e, message, cli_text(answer, "fix"));
    if (cli_text(answer, "step")[0] != '\0') {
        cli_say("  at step: %s", cli_text(answer, "step"));
    }
    cli_next("trilane-cp help %s", err_name(e.code));
    if (json_is_false(json_object_get(answer, "leads"))) {
        code = CLI_UNREACHABLE; /* there is nobody who could do it, for whatever reason. */
    }
    if (answer != NULL && cli->format != CLI_TABLE) {
        (void)cli_result(cli, answer, drop_table);
    } else {
        json_decref(answer);
    }
    return code;
}

void cli_author(const struct cli *cli, char out[CLI_AUTHOR_SIZE])
{
    struct passwd entry;
    struct passwd *found = NULL;
    char room[4096];
    const char *author = settings_get(cli->settings, "author");
    (void)snprintf(out, CLI_AUTHOR_SIZE, "uid-%u", (unsigned)geteuid());
    if (author != NULL) {
        (void)snprintf(out, CLI_AUTHOR_SIZE, "%s", author);
    } else if (getpwuid_r(geteuid(), &entry, room, sizeof(room), &found) == 0 && found != NULL) {
        (void)snprintf(out, CLI_AUTHOR_SIZE, "%s", entry.pw_name);
    }
}

static json_t *file_of(const struct cp_source_file *file)
{
    size_t size = sodium_base64_encoded_len(file->bytes.size, sodium_base64_VARIANT_ORIGINAL);
    auto_free char *text = malloc(size);
    if (text == NULL) {
        return NULL;
    }
    (void)sodium_bin2base64(text, size, file->bytes.ptr, file->bytes.size,
                            sodium_base64_VARIANT_ORIGINAL);
    return json_pack("{s:s%, s:s}", "name", (const char *)file->name.ptr, file->name.size,
                     "content", text);
}

json_t *cli_files(const struct cp_source_set *set)
{
    json_t *files = json_array();
    for (size_t i = 0; i < set->count; i++) {
        (void)json_array_append_new(files, file_of(&set->files[i]));
    }
    return files;
}
