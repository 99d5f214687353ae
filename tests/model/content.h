/*
 * content: sources that differ by a number, which can be read out of a built model in several
 * places: so a model that is put together of two contents is seen.
 */
#pragma once

#include <stdint.h>

#include "controlplane/source/source.h"
#include "dataplane/apply/model.h"

/* Adds the sources of content 'number', below 10,000. */
void content_add(struct cp_source_set *set, uint64_t number);

/* What is not that content's in a model; NULL: nothing. Number 0: any, but all of one. */
const char *content_wrong(const struct dp_model *model, uint64_t number);
