/*
 * signer: the API of controlplane/signer/signer.h without a process: the real state file, real
 * keys. It dies when it is told to, and is started again by the leader.
 */
#pragma once

#include "controlplane/signer/signer.h"

struct replica;

/* A cp_signer of a replica; cp_signer_start() is not used. */
MUST_CHECK struct err signer_start(struct replica *replica, struct cp_signer **out);
