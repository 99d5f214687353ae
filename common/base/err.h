/*
 * err: the one way a fallible function says how it went.
 *
 * Shape      struct err = {code, where}: 16 bytes, returned in two registers, never on the heap.
 * Ownership  'where' points at a string literal; nothing to free.
 * Threads    pure values; any thread.
 * Errors     E_OK is zero, so `struct err e = {0}` is success.
 * Source     docs/errors.md is made from ERR_LIST (build/dev/trilane-cp help --errors).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * name, gRPC status, HTTP status, whose fault, meaning, what to do about it.
 * One row per cause; the code that users see is the name without "E_". Add rows to the end of
 * their group; a row that was released is never renamed.
 */
#define ERR_LIST(X)                                                                                \
    X(OK, 0, 200, NOBODY, "done", "")                                                              \
    /* anywhere */                                                                                 \
    X(MALFORMED, 3, 400, CALLER, "the bytes do not parse", "check what was sent")                  \
    X(NOT_FOUND, 5, 404, CALLER, "no such thing here", "check the name")                           \
    X(EXISTS, 6, 409, CALLER, "it exists already", "use another name")                             \
    X(CONFLICT, 10, 409, CALLER, "it changed in between", "read it again and repeat")              \
    X(TOO_LARGE, 8, 413, CALLER, "a bound of docs/limits.md was reached",                          \
      "send less, or raise the bound")                                                             \
    X(NO_MEMORY, 8, 503, SELF, "an arena, pool or the heap is full",                               \
      "lower the load, or give more memory")                                                       \
    X(IO, 13, 500, SELF, "the operating system refused an operation", "see the log for the errno") \
    X(TIMEOUT, 4, 504, PEER, "it took longer than allowed", "try again, or raise the timeout")     \
    X(CLOSED, 14, 503, PEER, "the connection or component is closed", "try again")                 \
    X(UNAVAILABLE, 14, 503, PEER, "something that is needed cannot be reached", "try again")       \
    X(QUEUE_FULL, 8, 429, SELF, "a bounded queue is full", "slow down")                            \
    X(UNSUPPORTED, 12, 501, CALLER, "this build does not do that", "see the documentation")        \
    X(USAGE, 3, 400, CALLER, "a setting or argument is wrong", "see --help")                       \
    X(CRYPTO, 13, 500, SELF, "a cryptographic operation failed",                                   \
      "check the keys and certificates")                                                           \
    X(RESULT_UNKNOWN, 14, 503, PEER, "no answer came: it may have happened or not",                \
      "read it back before anything else")                                                         \
    /* every lane */                                                                               \
    X(UNAUTHENTICATED, 16, 401, CALLER, "the caller proved no identity",                           \
      "present a certificate or token that the platform knows")                                    \
    X(POLICY_DENIED, 7, 403, CALLER, "no rule of a policy allows this, or one denies it",          \
      "see the rule that is named; where none is, a Policy of the target has to allow it")         \
    X(TENANT_MISMATCH, 7, 403, CALLER, "x-tenant-id disagrees with the caller's identity",         \
      "leave the header out")                                                                      \
    X(RATE_LIMITED, 8, 429, CALLER, "a rate limit is used up",                                     \
      "retry after the time that is named")                                                        \
    X(NO_ROUTE, 12, 404, CALLER, "no route matches", "check service, method and tenant")           \
    X(NO_HEALTHY_ENDPOINT, 14, 503, PEER, "the service has no endpoint that answers",              \
      "check the service's endpoints")                                                             \
    X(DEADLINE_EXCEEDED, 4, 504, PEER, "the deadline passed",                                      \
      "allow more time, or look at the upstream")                                                  \
    X(CANCELLED, 1, 499, CALLER, "the caller gave up", "")                                         \
    X(OVERLOADED, 8, 503, SELF, "the node has no room for another request",                        \
      "slow down, or add nodes")                                                                   \
    X(DRAINING, 14, 503, SELF, "the node is shutting down", "use another node")                    \
    X(NOT_READY, 14, 503, SELF, "the node has no snapshot yet", "wait, or look at its status")     \
    X(UPSTREAM_RESET, 14, 502, PEER, "the upstream ended the call", "look at the upstream")        \
    X(UPSTREAM_MALFORMED, 14, 502, PEER, "the upstream's answer breaks its protocol",              \
      "look at the upstream")                                                                      \
    X(UPSTREAM_CONNECT, 14, 503, PEER, "no connection to the upstream",                            \
      "check that the endpoint listens")                                                           \
    X(HEADERS_TOO_LARGE, 8, 431, CALLER, "too many or too large headers", "send fewer headers")    \
    X(MESSAGE_TOO_LARGE, 8, 413, CALLER, "a message is larger than its bound",                     \
      "send less, or raise the profile's bound")                                                   \
    X(PROTOCOL_ERROR, 13, 400, CALLER, "the request breaks its protocol",                          \
      "see the RFC that is named")                                                                 \
    X(METHOD_NOT_ALLOWED, 12, 405, CALLER, "the method is not allowed here", "use another method") \
    X(CONTENT_TYPE, 3, 415, CALLER, "the content type is not one that this path takes",            \
      "send the right content-type")                                                               \
    X(CONTEXT_INVALID, 3, 400, CALLER, "a context header is not valid", "see docs/context.md")     \
    X(SNAPSHOT_STALE, 14, 503, SELF, "the node's snapshot is older than freshnessMax",             \
      "look at the node's status: it hears no head")                                               \
    X(HTTP_VERSION, 12, 505, CALLER, "this port speaks another version of HTTP",                   \
      "gRPC is HTTP/2; by HTTP/1.1 its ports take gRPC-Web and WebSocket: docs/edge.md")           \
    X(CIRCUIT_OPEN, 14, 503, PEER, "the service has as many calls as a circuit breaker lets by",   \
      "call less, add endpoints, or raise its circuitBreakers")                                    \
    X(HEADER_REPEATED, 3, 400, CALLER, "a header that a rule or a route reads is there twice",     \
      "send it once")                                                                              \
    X(ISSUER_KEYS, 14, 503, SELF, "the keys of the token's issuer are not here, or not yet",       \
      "retry; if it lasts, see that the node reaches the Issuer's jwks.uri")                       \
    X(ORIGIN_DENIED, 7, 403, CALLER, "pages of this origin may not call this",                     \
      "name the origin in cors of a Route, or call from the host itself")                          \
    /* canonical lane */                                                                           \
    X(TYPE_UNKNOWN, 5, 404, CALLER, "no Topic has this canonical type",                            \
      "register the type in a Topic")                                                              \
    X(PAYLOAD_MALFORMED, 3, 422, CALLER, "the payload is not a well-formed message of its type",   \
      "encode it by the registered schema")                                                        \
    X(ENVELOPE_MALFORMED, 3, 400, CALLER, "the envelope does not parse",                           \
      "encode it by trilane.bus.v1.Envelope")                                                      \
    X(ENVELOPE_EXPIRED, 9, 410, CALLER, "the envelope's expiry has passed", "send it anew")        \
    X(BUS_UNAVAILABLE, 14, 503, PEER, "the bus cannot be reached, or did not take the message",    \
      "retry; an event with the same id, so that it is taken once")                                \
    X(BUS_FULL, 8, 429, PEER, "the bus or the queue to it is full",                                \
      "slow down and retry with the same event id")                                                \
    X(SUBSCRIPTION_INVALID, 3, 400, CALLER, "the subscription's first request is wrong",           \
      "name consumer and types")                                                                   \
    X(ACK_UNKNOWN, 9, 409, CALLER, "this delivery is not open",                                    \
      "ack each delivery once, within ack_wait")                                                   \
    X(BUS_FORBIDDEN, 7, 403, PEER, "the NATS user may not do this",                                \
      "check the permissions of the NATS user")                                                    \
    /* proxy lane */                                                                               \
    X(EGRESS_UNKNOWN, 7, 403, CALLER, "no Egress of this tenant names the destination",            \
      "add it to an Egress")                                                                       \
    X(EGRESS_ADDRESS, 7, 403, CALLER, "the destination's address is in a special range",           \
      "see docs/proxy.md")                                                                         \
    X(EGRESS_UNRESOLVED, 14, 502, PEER, "the destination's name does not resolve",                 \
      "check the name")                                                                            \
    X(EGRESS_METHOD, 7, 403, CALLER, "the Egress does not allow this method, port or path",        \
      "see the Egress that is named")                                                              \
    X(EGRESS_DESTINATION, 3, 400, CALLER, "the destination is not a plain http or https URL",      \
      "see docs/proxy.md, destinations")                                                           \
    X(EGRESS_LOOP, 9, 508, CALLER, "the destination is this node, or the request was here before", \
      "call the service behind it")                                                                \
    X(EGRESS_TOO_LARGE, 8, 502, PEER, "the answer is larger than the Egress allows",               \
      "ask for less, or raise the Egress' response")                                               \
    X(EGRESS_UNTRUSTED, 14, 502, PEER, "the upstream's certificate does not verify",               \
      "see docs/proxy.md, TLS")                                                                    \
    /* a node judges a head: docs/formats.md, in the order of the checks */                        \
    X(HEAD_MALFORMED, 3, 400, PEER, "the head does not parse", "look at who writes to the bucket") \
    X(HEAD_WRONG_ENVIRONMENT, 3, 400, PEER, "the head is another environment's",                   \
      "check --environment and the bucket")                                                        \
    X(HEAD_UNSIGNED, 16, 401, PEER, "no head key of the root in force signed it",                  \
      "look at who writes to the bucket")                                                          \
    X(HEAD_WRONG_KEY, 16, 401, PEER, "a key of another role signed the head",                      \
      "sign with a head key")                                                                      \
    X(ROOT_MISSING, 14, 503, PEER, "a root on the way to the named one is not there",              \
      "publish every root")                                                                        \
    X(ROOT_UNSIGNED, 16, 401, PEER, "the root lacks signatures of itself or of the one before",    \
      "sign it by both thresholds")                                                                \
    X(ROOT_MALFORMED, 3, 400, PEER, "the root does not parse", "make it anew")                     \
    X(ROOT_EXPIRED, 9, 409, PEER, "the last root of the walk has expired", "publish a new root")   \
    X(HEAD_REPLAYED, 9, 409, PEER, "the head is older than one accepted",                          \
      "look at who writes to the bucket")                                                          \
    X(HEAD_EQUIVOCATION, 9, 409, PEER, "two heads with one epoch and sequence",                    \
      "a head key is in two places: revoke it")                                                    \
    X(EPOCH_JUMP, 9, 409, PEER, "the epoch is too far above the last one",                         \
      "heal it with a floor in a root")                                                            \
    X(HEAD_EXPIRED, 9, 409, PEER, "the head has expired", "check the leader and the clocks")       \
    X(CLOCK_SKEW, 9, 409, PEER, "the head is from the future, or its key's time is over",          \
      "check the clocks, renew the key")                                                           \
    X(NO_TARGET, 5, 404, PEER, "the head names no target for this node", "check the selectors")    \
    X(SNAPSHOT_REPLAYED, 9, 409, PEER, "the version is below the node's floor",                    \
      "publish under a new version")                                                               \
    X(SNAPSHOT_EQUIVOCATION, 9, 409, PEER, "two manifests of one version",                         \
      "publish under a new version")                                                               \
    X(CRASHED_NODE, 9, 409, SELF, "this snapshot killed the node three times",                     \
      "publish another content")                                                                   \
    X(MANIFEST_MISSING, 14, 503, PEER, "the manifest is not in the bucket",                        \
      "the leader publishes it again")                                                             \
    X(MANIFEST_UNSIGNED, 16, 401, PEER, "the manifest lacks signatures of manifest keys",          \
      "publish it again")                                                                          \
    X(MANIFEST_WRONG_KEY, 16, 401, PEER, "a key of another role signed the manifest",              \
      "sign with a manifest key")                                                                  \
    X(MANIFEST_MIXED, 9, 409, PEER, "the manifest is not the one that the head names",             \
      "publish it again")                                                                          \
    X(MANIFEST_MALFORMED, 3, 400, PEER, "the manifest does not parse", "publish it again")         \
    X(CAPABILITY_MISSING, 12, 501, SELF, "the snapshot uses what this node cannot do",             \
      "upgrade the node")                                                                          \
    X(CHUNK_MISSING, 14, 503, PEER, "a chunk is not in the bucket",                                \
      "the leader publishes it again")                                                             \
    X(CHUNK_TAMPERED, 9, 409, PEER, "a chunk's bytes are not the ones that were signed",           \
      "look at who writes to the bucket")                                                          \
    X(CHUNK_BOMB, 8, 413, PEER, "a chunk unpacks to more than it declares",                        \
      "look at who writes to the bucket")                                                          \
    X(PART_MALFORMED, 3, 400, PEER, "a part does not decode, or names what is not there",          \
      "publish another content")                                                                   \
    X(OUT_OF_MEMORY, 8, 503, SELF, "the snapshot does not fit into memory",                        \
      "give the node more memory")                                                                 \
    X(PERSIST_FAILED, 13, 500, SELF, "the snapshot could not be written to disk",                  \
      "free disk space; the node tries again")                                                     \
    X(FLOOR_CORRUPT, 15, 500, SELF, "the floor on disk cannot be read",                            \
      "it is rebuilt from the pack")                                                               \
    /* control plane */                                                                            \
    X(SOURCE_INVALID, 3, 422, CALLER, "the sources have errors", "see the diagnostics")            \
    X(BASE_CHANGED, 9, 409, CALLER, "another version was published since the plan", "plan again")  \
    X(NOT_LEADER, 14, 503, SELF, "this replica does not lead", "ask the leader that is named")     \
    X(STORE_BEHIND, 15, 503, SELF, "the bucket has a version that the database does not know",     \
      "bring the right database back: docs/operations.md")                                         \
    X(HOST_REFUSED, 7, 403, CALLER, "the Host header names another server",                        \
      "use the server's own name")                                                                 \
    X(ORIGIN_REFUSED, 7, 403, CALLER, "the Origin header names another site",                      \
      "call from the console or without Origin")                                                   \
    X(SIGNER_REFUSED, 9, 500, SELF, "the signer signed a higher number before",                    \
      "see docs/operations.md")                                                                    \
    X(CHECK_FAILED, 9, 422, CALLER, "the compiled snapshot does not load", "see the diagnostics")  \
    X(STORE_NEWER, 9, 500, SELF, "a newer release made the database", "use that release")          \
    X(STORE_FULL, 8, 507, SELF, "the database's disk is full",                                     \
      "free disk space and publish again")                                                         \
    X(NOT_LIVE, 9, 409, PEER, "published, but not live on every node", "see trilane-cp status")    \
    X(CHECK_MISSING, 9, 500, SELF, "trilane-dp, which checks each snapshot, cannot be run",        \
      "install trilane-dp beside trilane-cp, or name it with --dp-check")                          \
    X(NEVER_PUBLISHED, 5, 404, CALLER, "this version was never published",                         \
      "see trilane-cp history")                                                                    \
    X(SIGNER_GONE, 14, 503, SELF, "the signer process ended, or does not answer",                  \
      "the leader starts it again; see the log of trilane-cp serve")                               \
    X(BUCKET_FOREIGN, 9, 409, PEER, "the snapshot bucket is not as the control plane makes it",    \
      "remove the stream KV_trilane_<env>_snapshots: it is made anew and filled from the journal") \
    X(TOKEN_UNKNOWN, 16, 401, CALLER, "nobody made this join token",                               \
      "make one: trilane-cp identity token")                                                       \
    X(TOKEN_USED, 16, 401, CALLER, "this join token was used already",                             \
      "make another one: trilane-cp identity token; if you did not use it, remove the node")       \
    X(TOKEN_EXPIRED, 16, 401, CALLER, "this join token has expired",                               \
      "make another one: trilane-cp identity token")                                               \
    X(NODE_REMOVED, 7, 403, CALLER, "this node was removed", "join again with a new token")        \
    X(COSIGNERS_MISSING, 14, 503, SELF, "too few replicas signed the proposal in time",            \
      "start another replica and publish again, or sign with the break-glass key")                 \
    X(COSIGN_REFUSED, 9, 409, SELF, "a replica made something else of the same sources",           \
      "see its log; all replicas must run one release and have one token")                         \
    X(IDENTITY_REVOKED, 16, 401, CALLER, "the caller's identity was revoked",                      \
      "ask the platform's operators for a new one")                                                \
    X(BUCKET_FULL, 8, 507, SELF,                                                                   \
      "the snapshot bucket is full, and nothing in it may be collected",                           \
      "raise bucket-bytes and have the bucket made anew: docs/operations.md")                      \
    X(REPLICAS_MISSING, 14, 503, PEER, "NATS has too few servers for so many replicas",            \
      "start the cluster's other servers, or lower nats-replicas")                                 \
    X(KEY_UNKNOWN, 9, 503, SELF, "the root in force does not have this replica's head key",        \
      "give it a key of that root, or publish a root with its key: docs/operations.md, Keys")      \
    X(KEY_EXPIRED, 9, 503, SELF, "this replica's head key is past its time",                       \
      "make another one, and a root that has it: docs/operations.md, Keys")                        \
    X(TOKEN_MISMATCH, 16, 401, CALLER, "this join token is another node's or environment's",       \
      "use the token that was made for this node: trilane-cp identity token NODE")                 \
    X(RENEWAL_REPLAYED, 9, 409, CALLER, "this renewal, or a later one, was answered before",       \
      "the node asks again by itself; if it does not, look for a copy of its status key")          \
    X(JOINED_ALREADY, 6, 409, CALLER, "this directory has an identity already",                    \
      "remove data-dir/identity to join anew, with another token")                                 \
    X(BUS_EXPOSED, 9, 409, SELF,                                                                   \
      "the environment is strict, and NATS takes clear text or anybody",                           \
      "give nats-ca, and a user, nats-creds or nats-cert; or security: dev")                       \
    X(SCHEMA_BLOCKED, 9, 410, CALLER, "this canonical type is blocked",                            \
      "use the major version that replaces it")                                                    \
    X(PLAN_GONE, 5, 410, CALLER, "this plan is not at hand any more",                              \
      "plan again, or publish the sources")                                                        \
    X(CA_EXPIRED, 9, 503, SELF, "the authority that certifies nodes is past its time",             \
      "put another one into the directory of --ca: docs/operations.md, nodes that join")           \
    X(STORE_LOCKED, 14, 503, PEER, "another session holds a lock in the database",                 \
      "end that session (pg_stat_activity, pg_locks): what it holds up goes on by itself")         \
    X(CONTENT_UNANSWERED, 14, 503, PEER,                                                           \
      "a read of a manifest or chunk had no answer: nobody knows whether it is there",             \
      "look at NATS, and at what the node's user may read; the node asks again")                   \
    X(CERTIFICATE_MISSING, 9, 409, CALLER,                                                         \
      "no certificate that our authority signed says who this node is",                            \
      "the node renews by the one that it has; if it has none, join again with a new token")       \
    X(BUS_LIMIT, 8, 507, PEER, "a limit of NATS keeps this from being made or stored",             \
      "raise the limit that is named, of the NATS server or account; it goes on by itself")        \
    X(STORE_DEPOSED, 14, 503, PEER,                                                                \
      "the database that answers is an old primary: a standby of it was promoted since",           \
      "end the old primary, or make it a standby of the new one: docs/drills.md")                  \
    X(LIMIT_KEY_MISSING, 3, 400, CALLER,                                                           \
      "a limit counts by a header that the request does not have",                                 \
      "send the header that is named")

enum err_fault { ERR_FAULT_NOBODY, ERR_FAULT_CALLER, ERR_FAULT_PEER, ERR_FAULT_SELF };

#define ERR_ENUM_(name, grpc, http, fault, text, fix) E_##name,
enum err_code { ERR_LIST(ERR_ENUM_) E_COUNT };
#undef ERR_ENUM_

struct err {
    enum err_code code;
    const char *where; /* "file:line" of the first failure; NULL when code is E_OK. */
};

#define MUST_CHECK __attribute__((warn_unused_result))

#define ERR_STR_(x) #x
#define ERR_STR(x) ERR_STR_(x)

/* Success, and a failure born on this line. */
#define OK ((struct err){0})
#define FAIL(cause) ((struct err){.code = (cause), .where = __FILE__ ":" ERR_STR(__LINE__)})

/* Returns from the enclosing function on failure: the only macro here that hides control flow. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        struct err try_err_ = (call);                                                              \
        if (__builtin_expect(try_err_.code != E_OK, 0)) {                                          \
            return try_err_;                                                                       \
        }                                                                                          \
    } while (0)

static inline bool err_ok(struct err e)
{
    return e.code == E_OK;
}

/* Row lookups. 'code' must be a listed cause. Strings are literals. */
const char *err_name(enum err_code code); /* "POLICY_DENIED" */
int err_grpc_status(enum err_code code);
int err_http_status(enum err_code code);
enum err_fault err_fault(enum err_code code);
const char *err_text(enum err_code code);
const char *err_fix(enum err_code code);

/* Finds the code of a name ("POLICY_DENIED"); false when there is none. */
bool err_find(const char *name, enum err_code *out);
