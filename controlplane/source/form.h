/*
 * form: whether a text has the form that a field asks for.
 *
 * The pattern of a form is the same regular expression that the JSON Schema carries; what a
 * pattern cannot say (canonical address ranges, paths without "..") is judged besides.
 *
 * Ownership  the compiled patterns belong to struct cp_forms.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY when a pattern does not compile.
 */
#pragma once

#include <regex.h>
#include <stdbool.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/source/kinds.h"

struct cp_forms {
    regex_t patterns[CP_FORM_COUNT];
    bool compiled[CP_FORM_COUNT];
};

MUST_CHECK struct err cp_forms_init(struct cp_forms *forms);
void cp_forms_free(struct cp_forms *forms);

/* 'text' has a NUL behind it. False also when it holds a NUL or is too long. */
bool cp_form_fits(const struct cp_forms *forms, enum cp_form form, struct slice text);

/* The bytes of text that fits CP_FORM_BASE64 into an arena; E_MALFORMED when it does not fit. */
MUST_CHECK struct err cp_form_base64(struct slice text, struct arena *arena, struct slice *out);

/*
 * Why a text looks like a secret ("a private key", "a random-looking token"), or NULL. Texts that
 * are digests by their form are not asked about.
 */
const char *cp_secret_text(struct slice text);
/* Whether a key says that its value is a secret: password, api_key, clientSecret … */
bool cp_secret_key(struct slice key);
/* Whether a header, by its name in lower case, carries a credential: it may be asked whether it is
 * there, and not what it says. */
bool cp_secret_header(struct slice name);
