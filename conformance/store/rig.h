/*
 * rig: what the cases of the store's suite share.
 *
 * Shape      each case gets a database of its own, with a leader in environment "dev" whose fence
 *            is at hand. A case runs over each kind of database and knows neither.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "controlplane/store/store.h"

#include "tests/support/cmocka.h"

enum { RIG_URL_MAX = 400 };

struct rig {
    char url[RIG_URL_MAX];
    struct cp_store *store;
    const struct cp_store_ops *ops; /* of the store. */
    struct cp_fence fence;
};

int rig_set_up(void **state);
int rig_tear_down(void **state);

#define RIG_CASE(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)

/* A database that nobody opened yet, and removing one. */
void rig_make_database(char out_url[RIG_URL_MAX]);
void rig_drop_database(const char *url);

#define must(call) rig_must(call, __FILE__, __LINE__)
void rig_must(struct err e, const char *file, int line);
#define must_fail(call, expected) assert_string_equal(err_name((call).code), err_name(expected))

/* Opens another connection. */
struct cp_store *rig_open(const char *url);
struct cp_lease_wish rig_wish(uint8_t holder, uint64_t lease_ms);
/* Takes the row for another holder, who must get it; its fence. */
struct cp_fence rig_take_over(struct rig *f, uint8_t holder);

uint64_t rig_hand(struct rig *f);
struct cp_store_chunk rig_chunk(const char *text);
struct cp_publication rig_publication(uint64_t version, const struct cp_store_chunk *chunks,
                                      size_t count);
/* Hands a number out and publishes it. */
uint64_t rig_publish(struct rig *f, const struct cp_store_chunk *chunks, size_t count);
bool rig_has_chunk(struct rig *f, const struct cp_store_chunk *chunk);

/* The cases, by what they are about. */
extern const struct CMUnitTest lease_cases[];
extern const size_t lease_case_count;
extern const struct CMUnitTest journal_cases[];
extern const size_t journal_case_count;
extern const struct CMUnitTest trio_cases[];
extern const size_t trio_case_count;
extern const struct CMUnitTest backup_cases[];
extern const size_t backup_case_count;
