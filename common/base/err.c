/* err: lookups over ERR_LIST. See err.h. */
#include "common/base/err.h"

#include <stddef.h>
#include <string.h>

#include "common/base/check.h"

struct err_row {
    const char *name;
    const char *text;
    const char *fix;
    int grpc;
    int http;
    enum err_fault fault;
};

static const struct err_row err_rows[] = {
#define X(name, grpc, http, fault, text, fix)                                                      \
    [E_##name] = {#name, text, fix, grpc, http, ERR_FAULT_##fault},
    ERR_LIST(X)
#undef X
};

_Static_assert(sizeof(err_rows) / sizeof(err_rows[0]) == E_COUNT, "one row per cause");
_Static_assert(sizeof(struct err) == 16, "travels in two registers");
_Static_assert(E_OK == 0, "a zeroed struct err must mean success");

static const struct err_row *row(enum err_code code)
{
    CHECK(code < E_COUNT);
    return &err_rows[code];
}

const char *err_name(enum err_code code)
{
    return row(code)->name;
}

int err_grpc_status(enum err_code code)
{
    return row(code)->grpc;
}

int err_http_status(enum err_code code)
{
    return row(code)->http;
}

enum err_fault err_fault(enum err_code code)
{
    return row(code)->fault;
}

const char *err_text(enum err_code code)
{
    return row(code)->text;
}

const char *err_fix(enum err_code code)
{
    return row(code)->fix;
}

bool err_find(const char *name, enum err_code *out)
{
    CHECK(name != NULL);
    for (int code = 0; code < E_COUNT; code++) {
        if (strcmp(err_rows[code].name, name) == 0) {
            *out = (enum err_code)code;
            return true;
        }
    }
    return false;
}
