/*
 * fixture: sources in a test to compiled parts. Every helper fails the test when it cannot do what
 * it says; cmocka comes with it.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "common/base/ids.h"
#include "common/base/scope.h"
#include "controlplane/compile/compile.h"
#include "controlplane/source/source.h"

#include "tests/support/cmocka.h"

struct fixture {
    struct cp_source_set set;
    struct cp_diags diags;
    struct cp_compiled *compiled;
};

/* An Environment for sources that have none. */
#define FIXTURE_ENVIRONMENT                                                                        \
    "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"                      \
    "spec: {security: dev, trustDomain: test.example}\n"

static inline void fixture_init(struct fixture *f)
{
    *f = (struct fixture){0};
    cp_source_set_init(&f->set);
    cp_diags_init(&f->diags, &f->set);
}

static inline void fixture_free(struct fixture *f)
{
    cp_compiled_free(f->compiled);
    cp_diags_free(&f->diags);
    cp_source_set_free(&f->set);
}

static inline void fixture_add(struct fixture *f, const char *name, const char *text)
{
    assert_true(err_ok(cp_source_set_add(&f->set, slice_str(name), slice_str(text))));
}

static const struct cp_compile_options fixture_options = {.inventory = true};

/* Compiles what was added; fails with the diagnostics when it does not. */
static inline void fixture_compile(struct fixture *f)
{
    struct err e = cp_compile_set(&f->set, &f->diags, &fixture_options, &f->compiled);
    if (!err_ok(e)) {
        auto_buf struct buf text = BUF_MAX(1 << 20);
        assert_true(err_ok(cp_diags_text(&f->diags, &text)));
        fail_msg("%s at %s\n%.*s", err_name(e.code), e.where, SLICE_ARG(buf_slice(&text)));
    }
}

/* Compiles what must be refused with this code first. */
static inline void fixture_refuse(struct fixture *f, enum cp_diag_code code)
{
    struct err e = cp_compile_set(&f->set, &f->diags, &fixture_options, &f->compiled);
    assert_int_equal(e.code, E_SOURCE_INVALID);
    assert_true(f->diags.count > 0);
    assert_int_equal(f->diags.items[0]->code, code);
}

/* The part of that kind and key, or NULL. */
static inline const struct cp_part *fixture_part(const struct fixture *f, enum cp_part_kind kind,
                                                 const char *key)
{
    size_t count = 0;
    const struct cp_part *parts = cp_compiled_parts(f->compiled, &count);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].kind == (uint32_t)kind && slice_eq(parts[i].key, slice_str(key))) {
            return &parts[i];
        }
    }
    return NULL;
}
