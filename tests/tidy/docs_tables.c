/*
 * docs_tables: writes docs/errors.md, docs/limits.md or docs/metrics.md from the table in the
 * source, on standard output; a test compares it with the committed page.
 *
 *     docs_tables errors | limits | metrics
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/err.h"
#include "common/base/limits.h"
#include "controlplane/source/diag.h"
#include "dataplane/request/metrics.h"

static const char *const grpc_names[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

static const char *const fault_names[] = {[ERR_FAULT_NOBODY] = "nobody",
                                          [ERR_FAULT_CALLER] = "the caller",
                                          [ERR_FAULT_PEER] = "a peer",
                                          [ERR_FAULT_SELF] = "this program"};

static void write_errors(void)
{
    (void)printf(
        "# Errors\n\n"
        "Made from `ERR_LIST` in `common/base/err.h` by `ninja -C build/dev docs`; edit it there.\n"
        "\n"
        "A refusal carries its code everywhere: in the gRPC message and the `x-trilane-code`\n"
        "header, in the JSON body of HTTP, in `trilane-cp status`, in the log (`code=`) and as a\n"
        "metric label. `trilane-cp help CODE` shows one row. A code is never renamed, and a\n"
        "retired one never used again.\n\n"
        "| code | gRPC | HTTP | whose fault | meaning | what to do |\n"
        "| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < E_COUNT; i++) {
        enum err_code code = (enum err_code)i;
        (void)printf("| `%s` | %s (%d) | %d | %s | %s | %s |\n", err_name(code),
                     grpc_names[err_grpc_status(code)], err_grpc_status(code),
                     err_http_status(code), fault_names[err_fault(code)], err_text(code),
                     err_fix(code));
    }
    (void)printf(
        "\n## Diagnostics of sources\n\n"
        "Made from `DIAG_LIST` in `controlplane/source/diag.h`. Each comes with file, line and\n"
        "column, what was found and what was expected.\n\n"
        "| code | meaning | what to do |\n| --- | --- | --- |\n");
    struct cp_diag_row row;
    for (size_t i = 0; cp_diag_at(i, &row); i++) {
        (void)printf("| `TL%d` | %s | %s |\n", (int)row.code, row.text, row.fix);
    }
}

/* Writes a number of bytes as people say it, others as they are. */
static void write_number(uint64_t number, const char *unit)
{
    static const char *const sizes[] = {"", " KiB", " MiB", " GiB", " TiB"};
    size_t power = 0;
    uint64_t shown = number;
    while (strcmp(unit, "bytes") == 0 && shown >= 1024 && shown % 1024 == 0 && power < 4) {
        shown /= 1024;
        power++;
    }
    (void)printf(" %" PRIu64 "%s |", shown, sizes[power]);
}

static void write_limit(const char *name, const uint64_t values[3], const char *unit,
                        const char *why)
{
    (void)printf("| `--");
    for (const char *c = name; *c != '\0'; c++) {
        (void)putchar(*c == '_' ? '-' : *c);
    }
    (void)printf("` |");
    for (size_t i = 0; i < 3; i++) {
        write_number(values[i], unit);
    }
    (void)printf(" %s | %s |\n", unit, why);
}

static void write_limits(void)
{
    (void)printf(
        "# Limits\n\n"
        "Made from `LIMITS_LIST` in `common/base/limits.h` by `ninja -C build/dev docs`; edit it\n"
        "there.\n\n"
        "Each limit is a setting: a flag of `serve`, an environment variable (`TRILANE_` and the\n"
        "name in capitals with underscores), a line `name: value` of `--config FILE`. A value is a\n"
        "whole number of the row's unit, or says its own: `2s`, `250ms`, `64KiB`; the name goes\n"
        "without its unit as well (`TRILANE_ACK_WAIT=30s`). One out of bounds is refused at start.\n"
        "Bounds of the snapshot's format are no settings: they are in `common/snapshot/format.h`.\n\n"
        "| limit | default | least | most | unit | what it bounds |\n"
        "| --- | ---: | ---: | ---: | --- | --- |\n");
#define X(name, dflt, min, max, unit, why)                                                         \
    write_limit(#name, (const uint64_t[]){(dflt), (min), (max)}, unit, why);
    LIMITS_LIST(X)
#undef X
}

static void write_metric(const char *name, const char *kind, const char *const labels[3],
                         const char *help)
{
    (void)printf("| `%s` |", name);
    for (size_t i = 0; i < 3 && labels[i] != NULL; i++) {
        (void)printf("%s`%s`", i == 0 ? " " : ", ", labels[i]);
    }
    (void)printf(" |");
    for (const char *c = kind; *c != '\0'; c++) {
        (void)printf("%s%c", c == kind ? " " : "", tolower((unsigned char)*c));
    }
    (void)printf(" | %s |\n", help);
}

static void write_metrics(void)
{
    (void)printf(
        "# Metrics of a node\n\n"
        "Made from `DP_METRICS` in `dataplane/request/metrics.h` by `ninja -C build/dev docs`;\n"
        "edit it there. `/metrics` of the admin port shows them in Prometheus' text.\n\n"
        "| metric | labels | kind | what it says |\n| --- | --- | --- | --- |\n");
#define X(id, name, kind, series, scale, help, ...)                                                \
    write_metric(name, #kind, (const char *const[]){__VA_ARGS__}, help);
    DP_METRICS(X)
#undef X
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "errors") == 0) {
        write_errors();
    } else if (argc == 2 && strcmp(argv[1], "limits") == 0) {
        write_limits();
    } else if (argc == 2 && strcmp(argv[1], "metrics") == 0) {
        write_metrics();
    } else {
        (void)fprintf(stderr, "usage: docs_tables errors|limits|metrics\n");
        return 2;
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
