/*
 * kinds_impl: what the files of rows share; for kinds.c and kinds_*.c alone.
 *
 * Shape      a row a kind; those of kinds with many fields stand in files of their own.
 * Threads    constants.
 */
#pragma once

#include "controlplane/source/kinds.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define SHAPE(rows, type) .fields = (rows), .field_count = COUNT_OF(rows), .size = sizeof(type)

extern const struct cp_kind_row cp_service_row;
extern const struct cp_kind_row cp_issuer_row;
extern const struct cp_kind_row cp_transport_profile_row;
