/*
 * bugs: mistakes that are made in the product's code on purpose, one at a time: a simulation that
 * does not see them proves nothing.
 *
 * Shape      each stands at a function that the linker takes over (--wrap), or in what stands for
 *            the database and NATS; without a bug the function is the real one.
 */
#pragma once

#include <stdbool.h>

/* name, what is wrong, the faults that show it (NULL: any) */
#define BUGS(X)                                                                                    \
    X(none, "nothing", NULL)                                                                       \
    X(head_order, "a node takes a head of a lower order", "intruder replica_dies")                 \
    X(floor_unwritten, "a node swaps without having written anything", "node_dies")                \
    X(root_unwritten, "a node walks to a root without having written it",                          \
      "root_changes node_dies")                                                                    \
    X(manifest_unsigned, "a node takes a manifest whatever its signatures", "intruder")            \
    X(no_poll, "a node never reads the head: what a dead subscription misses stays missed",        \
      "node_is_deaf")                                                                              \
    X(no_restore, "what the bucket lost is not put again", "bucket_is_destroyed node_is_wiped")    \
    X(no_heed, "the leader does not heed which heads nodes accepted", "intruder")                  \
    X(behind_unseen, "the leader does not see that the bucket knows more than the database",       \
      "database_goes_back")                                                                        \
    X(fence_unasked, "the database does not ask whether the row is the writer's",                  \
      "replica_stops replica_without_nats")                                                        \
    X(number_twice, "the database hands out a number again whose row never came",                  \
      "replica_dies_publishing")                                                                   \
    X(request_forgotten, "the database does not keep a request's id",                              \
      "database_answers_get_lost replica_stops")                                                   \
    X(signer_forgets, "a signer's numbers are not on its disk when a signature leaves",            \
      "database_goes_back replicas_die bucket_is_destroyed")                                       \
    X(signer_lower, "a signer signs whatever number it is given",                                  \
      "database_goes_back replicas_die bucket_is_destroyed")                                       \
    X(parts_mixed, "a node takes over built parts whose bytes changed", NULL)

#define X(name, text, faults) BUG_##name,
enum bug { BUGS(X) BUG_COUNT };
#undef X

/* The one that is made from now on. */
void bugs_make(enum bug bug);
bool bugs_is(enum bug bug);

/* Of that name; BUG_none when there is none. */
enum bug bugs_find(const char *name);
const char *bugs_name(enum bug bug);
const char *bugs_text(enum bug bug);
const char *bugs_faults(enum bug bug);
