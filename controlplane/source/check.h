/*
 * check: what resources say about each other.
 *
 * Shape      one pass over the model: doubles, references, tenants, and rules that span fields.
 *            References are resolved on the way.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY only; the rest are diagnostics.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "controlplane/source/diag.h"
#include "controlplane/source/model.h"

/* What was to be a resource and is none, so that nobody knows its name. */
struct cp_loss {
    enum cp_kind kind;   /* CP_KIND_COUNT: not known either. */
    bool kindless;       /* it parses, and its kind is missing or wrong. */
    bool nameless;       /* its kind is known; it has no name, or a wrong one: any may be meant. */
    struct slice tenant; /* of a nameless one; empty: not known. */
    struct slice text;   /* its lines; a NULL pointer: they were not read. */
};

struct cp_losses {
    struct cp_loss *items;
    size_t count;
};

/*
 * A name that is not found is passed over when it stands somewhere in what was lost: it may be
 * defined there.
 */
MUST_CHECK struct err cp_check_model(struct cp_model *model, struct cp_diags *diags,
                                     const struct cp_losses *losses);

/* Rules of a Service's balance, outlierDetection and circuitBreakers. E_NO_MEMORY. */
MUST_CHECK struct err cp_check_balance(struct cp_diags *diags, const struct cp_service *service);

/* TransportProfiles, and who names them. E_NO_MEMORY. */
MUST_CHECK struct err cp_check_transport(const struct cp_model *model, struct cp_diags *diags);

/* The part of it that is about Issuers. */
MUST_CHECK struct err cp_check_issuers(struct cp_model *model, struct cp_diags *diags);

/*
 * The file that 'path' names from the directory of file 'from', in the set; NULL: none. *out_name
 * is the name that it has there; empty when the path leads out of the set.
 */
struct cp_source_file;
MUST_CHECK struct err cp_check_path(struct cp_model *model, uint32_t from, struct slice path,
                                    struct slice *out_name, const struct cp_source_file **out);
