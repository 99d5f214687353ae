/* Proves who is let in, once, by which token, over a real store; what a renewal must prove; what is
 * kept of all that; and that a removed node stays out. */
#include "controlplane/identity/registrar.h"

#include <openssl/x509v3.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/csr.h"
#include "common/net/tls.h"
#include "controlplane/identity/grant.h"

#include "tests/support/cmocka.h"

#define ENVIRONMENT "prod"

static char directory[] = "/tmp/trilane-registrar-XXXXXX";
static struct cp_store *stores[2]; /* two replicas, one database. */
static struct cp_certifier *certifiers[2];
static struct cp_registrar *registrars[2];
static char program[4096];
static uint8_t environment_id[ENVIRONMENT_SIZE];
static char said[1024]; /* the last message. */
static const uint8_t vouch_key[CP_VOUCH_KEY_SIZE] = {1};

/* A node's keys, and its token. */
struct joiner {
    struct join_token token;
    struct key_pair status;
    struct evp_pkey_st *key;
    struct buf csr;
};

static void keep_message(struct buf *message)
{
    (void)snprintf(said, sizeof(said), "%.*s", SLICE_ARG(buf_slice(message)));
    buf_free(message);
}

static struct err invite_as(const char *node, const char *labels, const char *sans, uint64_t ttl_ms,
                            struct join_token *out)
{
    struct cp_invitation invitation = {
        .node = node, .labels = labels, .sans = sans, .author = "ada", .ttl_ms = ttl_ms};
    struct buf message = BUF_MAX(1024);
    struct buf text = BUF_MAX(JOIN_TOKEN_MAX);
    int64_t expires_ms = 0;
    int64_t before_ms = clock_wall_ms();
    struct err e =
        cp_registrar_invite(registrars[0], stores[0], &invitation, &text, &expires_ms, &message);
    if (err_ok(e)) {
        assert_int_equal(join_token_parse(buf_slice(&text), out).code, E_OK);
        assert_in_range(expires_ms, before_ms + (int64_t)ttl_ms, clock_wall_ms() + (int64_t)ttl_ms);
    }
    buf_free(&text);
    keep_message(&message);
    return e;
}

static struct joiner joiner_of(const char *node)
{
    struct joiner j = {.csr = BUF_MAX(NET_CSR_MAX)};
    assert_int_equal(
        invite_as(node, "zone=eu-1,rack=b", "dns:edge.test,ip:192.0.2.7", 60000, &j.token).code,
        E_OK);
    assert_int_equal(key_pair_new(KEY_ROLE_NODE, slice_str(node), &j.status).code, E_OK);
    assert_int_equal(net_key_new(&j.key).code, E_OK);
    assert_int_equal(net_csr_make(j.key, &j.csr).code, E_OK);
    return j;
}

static void joiner_free(struct joiner *j)
{
    net_key_free(&j->key);
    buf_free(&j->csr);
}

static struct cp_join_request request_of(const struct joiner *j)
{
    struct cp_join_request request = {.token = j->token, .csr = buf_slice(&j->csr)};
    uint8_t digest[DIGEST_SIZE];
    struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    join_token_digest(&j->token, digest);
    struct join_statement s = {.environment = environment_id,
                               .token = digest,
                               .node = slice_str(j->token.node),
                               .csr = buf_slice(&j->csr)};
    assert_int_equal(join_statement(&s, &statement).code, E_OK);
    key_sign(&j->status, buf_slice(&statement), request.proof);
    memcpy(request.status_key, j->status.public.bytes, KEY_PUBLIC_SIZE);
    buf_free(&statement);
    return request;
}

static struct err send_join(size_t replica, const struct cp_join_request *request,
                            struct cp_admission *out)
{
    struct buf message = BUF_MAX(1024);
    struct err e = cp_registrar_join(registrars[replica], stores[replica], request, out, &message);
    keep_message(&message);
    return e;
}

/* Joins; what the node got is looked at by the caller, or dropped. */
static enum err_code join(size_t replica, const struct joiner *j, struct cp_admission *out)
{
    struct cp_admission admission;
    struct cp_join_request request = request_of(j);
    struct err e = send_join(replica, &request, &admission);
    if (err_ok(e) && out != NULL) {
        *out = admission;
    } else if (err_ok(e)) {
        cp_admission_free(&admission);
    }
    return e.code;
}

static struct cp_renew_request renewal_of(const struct joiner *j, int64_t at_ms, uint64_t count)
{
    struct cp_renew_request request = {
        .node = j->status.public.name, .csr = buf_slice(&j->csr), .at_ms = at_ms, .count = count};
    struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    struct renew_statement s = {.environment = environment_id,
                                .node = slice_str(request.node),
                                .csr = request.csr,
                                .at_ms = at_ms,
                                .count = count};
    assert_int_equal(renew_statement(&s, &statement).code, E_OK);
    key_sign(&j->status, buf_slice(&statement), request.proof);
    buf_free(&statement);
    return request;
}

static enum err_code send_renewal(size_t replica, const struct cp_renew_request *request)
{
    struct cp_admission admission;
    struct buf message = BUF_MAX(1024);
    struct err e =
        cp_registrar_renew(registrars[replica], stores[replica], request, &admission, &message);
    keep_message(&message);
    if (err_ok(e)) {
        cp_admission_free(&admission);
    }
    return e.code;
}

static struct cp_audit last_audit(void)
{
    struct cp_audit entry = {0};
    size_t count = 0;
    assert_int_equal(stores[0]->ops->audit_list(stores[0], ENVIRONMENT, &entry, 1, &count).code,
                     E_OK);
    return entry;
}

static struct cp_node node_of(const char *id)
{
    struct cp_node node;
    assert_int_equal(stores[1]->ops->node_get(stores[1], ENVIRONMENT, id, &node).code, E_OK);
    return node;
}

/* ---- joining ---- */

static void look_at_leaf(const struct joiner *j, const struct cp_admission *a)
{
    struct net_chain chain = {.count = 0};
    struct net_chain anchors = {.count = 0};
    struct net_identity *identity = NULL;
    struct net_cert_times times;
    struct buf labels = BUF_MAX(256);
    assert_int_equal(net_chain_read(buf_slice(&a->leaf.chain), &chain).code, E_OK);
    assert_int_equal(net_chain_read(cp_registrar_bundle(registrars[0]), &anchors).code, E_OK);
    assert_int_equal(net_chain_verify(&chain, &anchors).code, E_OK);
    assert_true(net_cert_is_for(chain.certs[0], j->key));
    assert_int_equal(net_identity_new(chain.certs[0], &identity).code, E_OK);
    assert_true(slice_eq(identity->spiffe_id, SLICE_LIT("spiffe://platform.test/node/node-1")));
    assert_int_equal(identity->dns_name_count, 1);
    assert_true(slice_eq(identity->dns_names[0], SLICE_LIT("edge.test")));
    assert_int_equal(X509_check_ip_asc(chain.certs[0], "192.0.2.7", 0), 1);
    assert_int_equal(net_cert_labels(chain.certs[0], &labels).code, E_OK);
    assert_true(slice_eq(buf_slice(&labels), SLICE_LIT("rack=b,zone=eu-1")));
    assert_int_equal(net_cert_times(chain.certs[0], &times).code, E_OK);
    assert_int_equal(times.ends_s - times.made_s, limits.node_cert_ttl_ms / 1000);
    buf_free(&labels);
    net_identity_free(identity);
    net_chain_free(&chain);
    net_chain_free(&anchors);
}

/* The row is the certificate, and that says the key. */
static void look_at_row(const struct joiner *j, const struct cp_node *node)
{
    struct cp_passport who;
    struct slice der = slice_of(node->certificate, node->certificate_size);
    struct cp_passports *passports = cp_registrar_passports(registrars[1]);
    assert_int_equal(cp_passport_open(passports, "node-1", der, &who).code, E_OK);
    assert_true(who.has_status_key);
    assert_memory_equal(who.status_key, j->status.public.bytes, KEY_PUBLIC_SIZE);
    assert_string_equal(who.grant, "rack=b,zone=eu-1,dns:edge.test,ip:192.0.2.7");
    assert_string_equal(who.serial, node->serial);
    assert_int_equal(who.not_after_ms, node->not_after_ms);
    assert_int_equal(cp_passport_open(passports, "node-2", der, &who).code, E_CERTIFICATE_MISSING);
}

static void a_token_lets_its_node_in_once(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-1");
    struct cp_admission a = {.labels = ""};
    char prefix[32];
    assert_string_equal(last_audit().action, "identity token");
    (void)snprintf(prefix, sizeof(prefix), "%s", strstr(last_audit().object, "token "));
    assert_int_equal(join(0, &j, &a), E_OK);
    look_at_leaf(&j, &a);
    assert_string_equal(a.labels, "rack=b,zone=eu-1");
    struct cp_node node = node_of("node-1");
    assert_string_equal(node.serial, a.leaf.serial);
    assert_int_equal(node.not_after_ms, a.leaf.not_after_ms);
    look_at_row(&j, &node);
    struct cp_audit entry = last_audit();
    assert_string_equal(entry.action, "identity join");
    assert_string_equal(entry.actor, "node node-1");
    assert_string_equal(entry.outcome, "OK");
    assert_non_null(strstr(entry.object, prefix)); /* the same token, and not what it is. */
    assert_null(strstr(entry.object, "tlj1"));
    cp_admission_free(&a);
    /* Other keys, at either replica. */
    struct joiner thief = joiner_of("node-2");
    thief.token = j.token;
    assert_int_equal(key_pair_new(KEY_ROLE_NODE, SLICE_LIT("node-1"), &thief.status).code, E_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(join(i, &thief, NULL), E_TOKEN_USED);
    }
    assert_string_equal(node_of("node-1").serial, node.serial);
    joiner_free(&thief);
    joiner_free(&j);
}

/* Its answer was lost: it asks again, and is the same node as before. */
static void the_same_keys_may_ask_again(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-3");
    struct cp_admission first = {.labels = ""};
    struct cp_admission second = {.labels = ""};
    assert_int_equal(join(0, &j, &first), E_OK);
    assert_int_equal(join(1, &j, &second), E_OK);
    assert_string_not_equal(first.leaf.serial, second.leaf.serial);
    assert_true(net_serial_count(second.leaf.serial) > net_serial_count(first.leaf.serial));
    assert_string_equal(node_of("node-3").serial, second.leaf.serial);
    assert_string_equal(second.labels, "rack=b,zone=eu-1");
    cp_admission_free(&first);
    cp_admission_free(&second);
    joiner_free(&j);
}

static void another_nodes_token_is_refused(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-4");
    (void)snprintf(j.token.node, sizeof(j.token.node), "node-5");
    assert_int_equal(join(0, &j, NULL), E_TOKEN_MISMATCH);
    (void)snprintf(j.token.node, sizeof(j.token.node), "node-4");
    (void)snprintf(j.token.environment, sizeof(j.token.environment), "test");
    assert_int_equal(join(0, &j, NULL), E_TOKEN_MISMATCH);
    (void)snprintf(j.token.environment, sizeof(j.token.environment), ENVIRONMENT);
    j.token.secret[0] ^= 1;
    assert_int_equal(join(0, &j, NULL), E_TOKEN_UNKNOWN);
    j.token.secret[0] ^= 1;
    assert_int_equal(join(0, &j, NULL), E_OK); /* none of that used it up. */
    joiner_free(&j);
}

static void an_expired_token_is_refused(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-6");
    struct cp_join_token row = {.expires_ms = clock_wall_ms() - 1};
    j.token.secret[5] ^= 1; /* another token, of a moment ago. */
    join_token_digest(&j.token, row.digest);
    (void)snprintf(row.node, sizeof(row.node), "node-6");
    (void)snprintf(row.author, sizeof(row.author), "ada");
    assert_int_equal(stores[0]->ops->token_put(stores[0], ENVIRONMENT, &row).code, E_OK);
    assert_int_equal(join(0, &j, NULL), E_TOKEN_EXPIRED);
    assert_string_equal(last_audit().outcome, "TOKEN_EXPIRED");
    joiner_free(&j);
}

/* A row of the node's own token, as a replica writes it. */
static struct cp_join_token row_of(struct joiner *j)
{
    struct cp_join_token row = {.expires_ms = clock_wall_ms() + 60000};
    ids_random(j->token.secret, sizeof(j->token.secret));
    join_token_digest(&j->token, row.digest);
    (void)snprintf(row.node, sizeof(row.node), "%s", j->token.node);
    (void)snprintf(row.labels, sizeof(row.labels), "zone=eu-1");
    (void)snprintf(row.author, sizeof(row.author), "ada");
    cp_vouch_token(vouch_key, ENVIRONMENT, &row, row.warrant);
    return row;
}

static enum err_code join_by_row(const struct joiner *j, const struct cp_join_token *row)
{
    assert_int_equal(stores[0]->ops->token_put(stores[0], ENVIRONMENT, row).code, E_OK);
    return join(0, j, NULL);
}

/* Who can write to the database has no token by that, whatever of a row is made up. */
static void a_token_is_what_a_replica_made(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-16");
    static const uint8_t other_key[CP_VOUCH_KEY_SIZE] = {2};
    struct cp_join_token row;
    for (int i = 0; i < 6; i++) {
        row = row_of(&j);
        row.warrant[0] ^= i == 0;
        row.expires_ms += i == 1;
        (void)snprintf(row.labels, sizeof(row.labels), "%s", i == 2 ? "zone=admin" : "zone=eu-1");
        (void)snprintf(row.author, sizeof(row.author), "%s", i == 3 ? "eve" : "ada");
        if (i == 4) {
            memset(row.warrant, 0, sizeof(row.warrant)); /* as a release before wrote it. */
        }
        if (i == 5) {
            cp_vouch_token(other_key, ENVIRONMENT, &row, row.warrant);
        }
        assert_int_equal(join_by_row(&j, &row), E_TOKEN_UNKNOWN);
        assert_string_equal(last_audit().outcome, "TOKEN_UNKNOWN");
    }
    row = row_of(&j); /* another node's, or another environment's. */
    (void)snprintf(row.node, sizeof(row.node), "node-17");
    cp_vouch_token(vouch_key, ENVIRONMENT, &row, row.warrant);
    (void)snprintf(row.node, sizeof(row.node), "node-16");
    assert_int_equal(join_by_row(&j, &row), E_TOKEN_UNKNOWN);
    row = row_of(&j);
    cp_vouch_token(vouch_key, "test", &row, row.warrant);
    assert_int_equal(join_by_row(&j, &row), E_TOKEN_UNKNOWN);
    row = row_of(&j);
    assert_int_equal(join_by_row(&j, &row), E_OK);
    joiner_free(&j);
}

static void what_is_not_proved_is_refused(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-7");
    struct joiner other = joiner_of("node-8");
    struct cp_admission none;
    struct cp_join_request good = request_of(&j);
    struct cp_join_request bad = good;
    bad.proof[0] ^= 1;
    assert_int_equal(send_join(0, &bad, &none).code, E_UNAUTHENTICATED);
    bad = good;
    bad.csr = buf_slice(&other.csr); /* another key's request under this proof. */
    assert_int_equal(send_join(0, &bad, &none).code, E_UNAUTHENTICATED);
    bad = good;
    memcpy(bad.status_key, other.status.public.bytes, KEY_PUBLIC_SIZE);
    assert_int_equal(send_join(0, &bad, &none).code, E_UNAUTHENTICATED);
    /* A request that its key did not sign, under a proof that covers it. */
    struct joiner broken = j;
    broken.csr = BUF_MAX(NET_CSR_MAX);
    assert_int_equal(buf_add(&broken.csr, SLICE_LIT("-----BEGIN CERTIFICATE REQUEST-----\n"
                                                    "AAAA\n-----END CERTIFICATE REQUEST-----\n"))
                         .code,
                     E_OK);
    assert_int_equal(join(0, &broken, NULL), E_MALFORMED);
    assert_non_null(strstr(said, "csr"));
    buf_free(&broken.csr);
    assert_int_equal(send_join(1, &good, &none).code, E_OK); /* none of that used it up. */
    cp_admission_free(&none);
    joiner_free(&j);
    joiner_free(&other);
}

static void a_rejoined_node_has_other_keys(void **state)
{
    (void)state;
    struct joiner before = joiner_of("node-9");
    assert_int_equal(join(0, &before, NULL), E_OK);
    struct joiner after = joiner_of("node-9");
    assert_int_equal(join(1, &after, NULL), E_OK);
    assert_int_equal(join(0, &before, NULL), E_TOKEN_USED);
    struct cp_renew_request old = renewal_of(&before, clock_wall_ms(), 1ULL << 47);
    assert_int_equal(send_renewal(0, &old), E_UNAUTHENTICATED);
    joiner_free(&before);
    joiner_free(&after);
}

static void wrong_invitations_are_refused(void **state)
{
    (void)state;
    struct join_token token = {.has_pin = false};
    assert_int_equal(invite_as("Node", "", "", 60000, &token).code, E_USAGE);
    assert_int_equal(invite_as("", "", "", 60000, &token).code, E_USAGE);
    assert_int_equal(invite_as("n", "", "", 999, &token).code, E_USAGE);
    assert_int_equal(invite_as("n", "", "", UINT64_MAX, &token).code, E_USAGE);
    assert_int_equal(invite_as("n", "a", "", 60000, &token).code, E_USAGE);
    assert_non_null(strstr(said, "labels"));
    assert_int_equal(invite_as("n", "dns:a=b", "", 60000, &token).code, E_USAGE);
    assert_int_equal(invite_as("n", "", "uri:spiffe://x", 60000, &token).code, E_USAGE);
    assert_non_null(strstr(said, "san"));
    assert_int_equal(invite_as("n", "", "ip:1.2.3", 60000, &token).code, E_USAGE);
    assert_int_equal(invite_as("n", "", "", 30ULL * 86400000, &token).code, E_OK);
}

/* ---- renewing ---- */

static uint64_t count_of(const char *node)
{
    return net_serial_count(node_of(node).serial);
}

static void a_renewal_is_taken_once(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-10");
    assert_int_equal(join(0, &j, NULL), E_OK);
    uint64_t joined = count_of("node-10");
    struct cp_renew_request first = renewal_of(&j, clock_wall_ms(), joined + 1);
    struct cp_renew_request second = renewal_of(&j, clock_wall_ms(), joined + 5);
    assert_int_equal(send_renewal(0, &first), E_OK);
    assert_int_equal(count_of("node-10"), joined + 1);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(send_renewal(i, &first), E_RENEWAL_REPLAYED);
    }
    assert_int_equal(send_renewal(1, &second), E_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(send_renewal(i, &first), E_RENEWAL_REPLAYED);
        assert_int_equal(send_renewal(i, &second), E_RENEWAL_REPLAYED);
    }
    assert_int_equal(count_of("node-10"), joined + 5);
    assert_string_equal(last_audit().action, "identity renew");
    joiner_free(&j);
}

static void a_renewal_is_the_nodes_own_and_of_now(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-11");
    struct joiner other = joiner_of("node-12");
    assert_int_equal(join(0, &j, NULL), E_OK);
    int64_t now_ms = clock_wall_ms();
    int64_t off_ms = (int64_t)limits.clock_tolerance_ms + 60000; /* also when this takes long. */
    uint64_t next = (uint64_t)now_ms + 100000;
    struct cp_renew_request request = renewal_of(&j, now_ms - off_ms, next);
    assert_int_equal(send_renewal(0, &request), E_CLOCK_SKEW);
    request = renewal_of(&j, now_ms + off_ms, next);
    assert_int_equal(send_renewal(0, &request), E_CLOCK_SKEW);
    request = renewal_of(&j, now_ms, 1ULL << 48);
    assert_int_equal(send_renewal(0, &request), E_RENEWAL_REPLAYED);
    request = renewal_of(&other, now_ms, next);
    assert_int_equal(send_renewal(0, &request), E_UNAUTHENTICATED); /* it never joined. */
    request.node = "node-11";
    assert_int_equal(send_renewal(0, &request), E_UNAUTHENTICATED);
    request = renewal_of(&j, now_ms, next);
    request.at_ms++;
    assert_int_equal(send_renewal(0, &request), E_UNAUTHENTICATED);
    request = renewal_of(&j, now_ms, next);
    request.csr = buf_slice(&other.csr);
    assert_int_equal(send_renewal(0, &request), E_UNAUTHENTICATED);
    request = renewal_of(&j, now_ms, next);
    assert_int_equal(send_renewal(0, &request), E_OK);
    joiner_free(&j);
    joiner_free(&other);
}

/* ---- rows that are not ours ---- */

/* As who can write to the database does. */
static void run_sql(const char *text, struct slice bytes)
{
    char path[128];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    (void)snprintf(path, sizeof(path), "%s/store.db", directory);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_bind_blob(statement, 1, bytes.size == 0 ? "" : (const void *)bytes.ptr,
                                       (int)bytes.size, SQLITE_STATIC),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_DONE);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void set_certificate(struct slice der)
{
    run_sql("UPDATE node SET certificate = ?1 WHERE id = 'node-18'", der);
}

static void set_key(const struct joiner *of)
{
    run_sql("UPDATE node SET status_key = ?1, labels = 'zone=admin' WHERE id = 'node-18'",
            slice_of(of->status.public.bytes, KEY_PUBLIC_SIZE));
}

static struct slice row_certificate(const struct cp_node *node)
{
    return slice_of(node->certificate, node->certificate_size);
}

/* What 'by' asks for in the name of node-18, with a certificate (may be empty). */
static enum err_code renew_as(const struct joiner *by, struct slice certificate,
                              struct evp_pkey_st *certificate_key, struct cp_admission *out)
{
    struct joiner named = *by;
    static uint64_t count; /* above all before. */
    struct buf message = BUF_MAX(1024);
    struct buf statement = BUF_MAX(JOIN_STATEMENT_MAX);
    struct buf presented = BUF_MAX(NET_SIGNATURE_MAX);
    count = count == 0 ? (uint64_t)clock_wall_ms() + 1000000 : count + 1;
    (void)snprintf(named.status.public.name, sizeof(named.status.public.name), "node-18");
    struct cp_renew_request request = renewal_of(&named, clock_wall_ms(), count);
    request.certificate = certificate;
    if (certificate_key != NULL) {
        struct renew_statement s = {.environment = environment_id,
                                    .node = slice_str(request.node),
                                    .csr = request.csr,
                                    .at_ms = request.at_ms,
                                    .count = count};
        assert_int_equal(present_statement(&s, by->status.public.bytes, &statement).code, E_OK);
        assert_int_equal(net_key_sign(certificate_key, buf_slice(&statement), &presented).code,
                         E_OK);
        request.presented = buf_slice(&presented);
    }
    struct cp_admission admission;
    struct err e = cp_registrar_renew(registrars[0], stores[0], &request, &admission, &message);
    if (err_ok(e) && out != NULL) {
        *out = admission;
    } else if (err_ok(e)) {
        cp_admission_free(&admission);
    }
    keep_message(&message);
    buf_free(&statement);
    buf_free(&presented);
    return e.code;
}

static void read_text(const char *name, struct buf *out)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    uint8_t *room = NULL;
    assert_non_null(file);
    assert_int_equal(buf_reserve(out, out->max, &room).code, E_OK);
    buf_commit(out, fread(room, 1, out->max, file));
    assert_int_equal(fclose(file), 0);
}

/* A certificate of our CA that was made by hand, as DER; and as it was written. */
static void issue(const char *service, const char *node, struct buf *out_der, struct buf *out_pem,
                  struct evp_pkey_st **out_key)
{
    char ca[128];
    char name[128];
    struct buf id = BUF_MAX(1024);
    struct buf base = BUF_MAX(1024);
    struct buf message = BUF_MAX(1024);
    struct buf key = BUF_MAX(NET_KEY_PEM_MAX);
    auto_chain struct net_chain chain = {.count = 0};
    (void)snprintf(ca, sizeof(ca), "%s/ca", directory);
    struct cp_leaf leaf = {.ca = ca, .out = directory, .service = service, .node = node, .days = 1};
    leaf.labels = node == NULL ? NULL : "zone=by-hand";
    assert_int_equal(cp_ca_issue(&leaf, &id, &base, &message).code, E_OK);
    (void)snprintf(name, sizeof(name), "%s.pem", node == NULL ? "acme-web" : "node-node-18");
    read_text(name, out_pem);
    assert_int_equal(net_chain_read(buf_slice(out_pem), &chain).code, E_OK);
    assert_int_equal(net_cert_write(chain.certs[0], out_der).code, E_OK);
    (void)snprintf(name, sizeof(name), "%s.key", node == NULL ? "acme-web" : "node-node-18");
    read_text(name, &key);
    assert_int_equal(net_key_read(buf_slice(&key), out_key).code, E_OK);
    buf_free(&key);
    buf_free(&id);
    buf_free(&base);
    buf_free(&message);
}

/* Who writes to the database changes nothing of who a node is, and ends its renewals at most. */
static void a_row_is_its_certificate(void **state)
{
    (void)state;
    struct joiner owner = joiner_of("node-18");
    struct joiner thief = joiner_of("node-19");
    struct cp_admission admission = {.labels = ""};
    struct buf der = BUF_MAX(NET_CERT_DER_MAX);
    struct buf pem = BUF_MAX(NET_CHAIN_BYTES_MAX);
    auto_net_key struct evp_pkey_st *service_key = NULL;
    assert_int_equal(join(0, &owner, NULL), E_OK);
    assert_int_equal(join(0, &thief, NULL), E_OK);
    /* Another key and other labels beside the certificate. */
    set_key(&thief);
    assert_int_equal(renew_as(&thief, (struct slice){0}, NULL, NULL), E_UNAUTHENTICATED);
    assert_int_equal(renew_as(&owner, (struct slice){0}, NULL, &admission), E_OK);
    assert_string_equal(admission.labels, "rack=b,zone=eu-1");
    struct cp_node row = node_of("node-18");
    /* Another certificate of our CA: the thief's own, and a service's; bytes that are none. */
    struct cp_node other = node_of("node-19");
    issue("acme/web", NULL, &der, &pem, &service_key);
    const struct slice wrong[] = {row_certificate(&other), buf_slice(&der), SLICE_LIT("x"),
                                  slice_head(row_certificate(&row), row.certificate_size - 1)};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        set_certificate(wrong[i]);
        assert_int_equal(renew_as(&thief, (struct slice){0}, NULL, NULL), E_CERTIFICATE_MISSING);
        assert_int_equal(renew_as(&owner, (struct slice){0}, NULL, NULL), E_CERTIFICATE_MISSING);
        assert_non_null(strstr(said, "join again"));
    }
    /* None, with the thief's key, as if a release before had written it: what is sent decides, and
     * that is the owner's. */
    struct slice sent = buf_slice(&admission.leaf.chain);
    set_certificate((struct slice){0});
    set_key(&thief);
    assert_int_equal(renew_as(&thief, sent, NULL, NULL), E_UNAUTHENTICATED);
    assert_int_equal(renew_as(&thief, sent, thief.key, NULL), E_UNAUTHENTICATED);
    assert_int_equal(renew_as(&thief, buf_slice(&pem), service_key, NULL), E_CERTIFICATE_MISSING);
    assert_int_equal(renew_as(&thief, SLICE_LIT("x"), thief.key, NULL), E_CERTIFICATE_MISSING);
    assert_int_equal(renew_as(&owner, sent, NULL, NULL), E_OK);
    assert_int_equal(renew_as(&owner, (struct slice){0}, NULL, NULL), E_OK); /* it is mended. */
    cp_admission_free(&admission);
    buf_free(&der);
    buf_free(&pem);
    joiner_free(&owner);
    joiner_free(&thief);
}

/* A certificate of a release before says no status key; nor does one that was made by hand. */
static void a_row_of_a_release_before_takes_two_proofs(void **state)
{
    (void)state;
    struct joiner owner = joiner_of("node-18");
    struct joiner thief = joiner_of("node-19");
    struct cp_admission admission = {.labels = ""};
    struct buf der = BUF_MAX(NET_CERT_DER_MAX);
    struct buf pem = BUF_MAX(NET_CHAIN_BYTES_MAX);
    auto_net_key struct evp_pkey_st *key = NULL;
    assert_int_equal(join(0, &owner, NULL), E_OK);
    issue(NULL, "node-18", &der, &pem, &key);
    set_certificate((struct slice){0});
    set_key(&owner);
    struct slice sent = buf_slice(&pem);
    assert_int_equal(renew_as(&owner, (struct slice){0}, NULL, NULL), E_CERTIFICATE_MISSING);
    assert_int_equal(renew_as(&owner, sent, NULL, NULL), E_UNAUTHENTICATED);
    assert_int_equal(renew_as(&owner, sent, thief.key, NULL), E_UNAUTHENTICATED);
    /* The certificate and its key were taken: the status key is what it was. */
    assert_int_equal(renew_as(&thief, sent, key, NULL), E_UNAUTHENTICATED);
    /* The database was written to: the certificate's key says which is the node's. */
    set_key(&thief);
    assert_int_equal(renew_as(&thief, sent, thief.key, NULL), E_UNAUTHENTICATED);
    run_sql("UPDATE node SET status_key = zeroblob(32) WHERE id = 'node-18' AND ?1 = x''",
            (struct slice){0});
    assert_int_equal(renew_as(&owner, sent, key, NULL), E_CERTIFICATE_MISSING);
    set_certificate(buf_slice(&der)); /* in the row it proves no more than when it is sent. */
    set_key(&owner);
    assert_int_equal(renew_as(&owner, (struct slice){0}, NULL, NULL), E_CERTIFICATE_MISSING);
    assert_int_equal(renew_as(&owner, sent, key, &admission), E_OK);
    assert_string_equal(admission.labels, "zone=by-hand");
    assert_int_equal(renew_as(&owner, (struct slice){0}, NULL, NULL), E_OK);
    set_key(&thief); /* it is no row of a release before any more. */
    assert_int_equal(renew_as(&thief, (struct slice){0}, NULL, NULL), E_UNAUTHENTICATED);
    cp_admission_free(&admission);
    buf_free(&der);
    buf_free(&pem);
    joiner_free(&owner);
    joiner_free(&thief);
}

/* ---- removing ---- */

static enum err_code remove_node(const char *node, struct cp_departure *out, struct buf *message)
{
    const struct cp_removing removing = {.node = node, .author = "ada"};
    return cp_registrar_remove(registrars[1], stores[1], &removing, out, message).code;
}

static void a_removed_node_stays_out(void **state)
{
    (void)state;
    struct joiner j = joiner_of("node-13");
    struct buf message = BUF_MAX(1024);
    assert_int_equal(join(0, &j, NULL), E_OK);
    struct cp_departure departure;
    assert_int_equal(remove_node("node-13", &departure, &message), E_OK);
    assert_false(departure.again);
    assert_int_equal(departure.certificates, 1);
    assert_false(departure.unvouched);
    assert_string_equal(last_audit().action, "identity remove");
    assert_string_equal(last_audit().actor, "ada");
    struct cp_renew_request request =
        renewal_of(&j, clock_wall_ms(), (uint64_t)clock_wall_ms() + 100000);
    assert_int_equal(send_renewal(0, &request), E_NODE_REMOVED);
    assert_int_equal(join(0, &j, NULL), E_NODE_REMOVED);
    assert_int_equal(remove_node("node-13", &departure, &message), E_OK);
    assert_true(departure.again);
    assert_int_equal(departure.certificates, 1);
    assert_int_equal(remove_node("nobody", &departure, &message), E_NOT_FOUND);
    assert_true(message.size > 0);
    buf_free(&message);
    struct joiner again = joiner_of("node-13"); /* a new token lets it in again. */
    assert_int_equal(join(0, &again, NULL), E_OK);
    assert_int_equal(node_of("node-13").state, CP_NODE_ENROLLED);
    joiner_free(&again);
    joiner_free(&j);
}

static void refusals_do_not_fill_the_audit(void **state)
{
    (void)state;
    enum { TRIES = 200 };
    struct joiner j = joiner_of("node-14");
    struct cp_registrar_counters before;
    struct cp_registrar_counters after;
    j.token.secret[9] ^= 1;
    cp_registrar_counters(registrars[0], &before);
    uint64_t first_ns = clock_mono_ns();
    for (int i = 0; i < TRIES; i++) {
        assert_int_equal(join(0, &j, NULL), E_TOKEN_UNKNOWN);
    }
    uint64_t seconds = (clock_mono_ns() - first_ns) / 1000000000 + 2;
    cp_registrar_counters(registrars[0], &after);
    assert_int_equal(after.refused - before.refused, TRIES);
    uint64_t audited = TRIES - (after.unaudited - before.unaudited);
    assert_true(audited <= 10 * seconds);
    joiner_free(&j);
}

static void without_a_ca_nobody_joins(void **state)
{
    (void)state;
    struct cp_registrar_options options = {
        .environment = ENVIRONMENT, .attestor = &cp_attest_token, .vouch_key = vouch_key};
    struct cp_registrar *r = NULL;
    struct buf message = BUF_MAX(1024);
    struct joiner j = joiner_of("node-15");
    struct cp_join_request request = request_of(&j);
    struct cp_admission none;
    assert_int_equal(cp_registrar_new(&options, &r).code, E_OK);
    assert_int_equal(cp_registrar_join(r, stores[0], &request, &none, &message).code,
                     E_UNSUPPORTED);
    assert_true(message.size > 0);
    buf_free(&message);
    cp_registrar_free(r);
    joiner_free(&j);
}

static void a_grant_is_one_text(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"", "", ""},
        {"b=1,a=2", "", "a=2,b=1"},
        {"", "dns:x.test,ip:::1", "dns:x.test,ip:::1"},
        {"b=1,a=2", "dns:x.test", "a=2,b=1,dns:x.test"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buf text = BUF_MAX(CP_GRANT_MAX);
        struct buf message = BUF_MAX(1024);
        struct cp_grant grant = {slice_str(cases[i][0]), slice_str(cases[i][1])};
        assert_int_equal(cp_grant_make(&grant, &text, &message).code, E_OK);
        assert_true(slice_eq(buf_slice(&text), slice_str(cases[i][2])));
        struct cp_grant split = cp_grant_split(buf_slice(&text));
        assert_true(slice_eq(split.sans, grant.sans));
        assert_int_equal(split.labels.size, grant.labels.size);
        buf_free(&text);
        buf_free(&message);
    }
}

/* ---- the two replicas ---- */

static void start(const char *tls_cert)
{
    char ca[128];
    char url[128];
    struct buf message = BUF_MAX(1024);
    (void)snprintf(ca, sizeof(ca), "%s/ca", directory);
    (void)snprintf(url, sizeof(url), "sqlite:%s/store.db", directory);
    struct cp_certifier_options certifier = {.program = program, .ca = ca};
    struct cp_registrar_options options = {.environment = ENVIRONMENT,
                                           .tls_cert = tls_cert,
                                           .attestor = &cp_attest_token,
                                           .vouch_key = vouch_key};
    for (size_t i = 0; i < 2; i++) {
        CHECK(err_ok(cp_store_open(url, &stores[i], &message)));
        CHECK(err_ok(cp_certifier_start(&certifier, &certifiers[i], &message)));
        options.certifier = certifiers[i];
        CHECK(err_ok(cp_registrar_new(&options, &registrars[i])));
    }
    buf_free(&message);
}

static void stop(void)
{
    for (size_t i = 0; i < 2; i++) {
        cp_registrar_free(registrars[i]);
        cp_certifier_stop(certifiers[i]);
        cp_store_close(stores[i]);
    }
}

static void a_token_pins_the_last_of_the_chain(void **state)
{
    (void)state;
    struct join_token token = {.has_pin = false};
    char chain[128];
    uint8_t pin[NET_PIN_SIZE];
    struct net_chain anchors = {.count = 0};
    assert_int_equal(invite_as("pinned", "", "", 60000, &token).code, E_OK);
    assert_false(token.has_pin); /* this API has no certificate. */
    stop();
    struct cp_leaf leaf = {.out = directory, .service = "acme/api", .days = 1};
    char ca[128];
    (void)snprintf(ca, sizeof(ca), "%s/ca", directory);
    leaf.ca = ca;
    struct buf id = BUF_MAX(1024);
    struct buf base = BUF_MAX(1024);
    struct buf message = BUF_MAX(1024);
    assert_int_equal(cp_ca_issue(&leaf, &id, &base, &message).code, E_OK);
    (void)snprintf(chain, sizeof(chain), "%s/acme-api.pem", directory);
    start(chain);
    assert_int_equal(invite_as("pinned", "", "", 60000, &token).code, E_OK);
    assert_true(token.has_pin);
    assert_int_equal(net_chain_read(cp_registrar_bundle(registrars[0]), &anchors).code, E_OK);
    assert_int_equal(net_cert_pin(anchors.certs[0], pin).code, E_OK);
    assert_memory_equal(token.pin, pin, NET_PIN_SIZE);
    net_chain_free(&anchors);
    buf_free(&id);
    buf_free(&base);
    buf_free(&message);
}

static int remove_all(void)
{
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
    return system(command); /* NOLINT(concurrency-mt-unsafe): one thread. */
}

int main(void)
{
    ids_init();
    CHECK(mkdtemp(directory) != NULL);
    const char *build = getenv("TRILANE_BUILD_DIR");
    (void)snprintf(program, sizeof(program), "%s/trilane-cp", build == NULL ? "." : build);
    char ca[128];
    struct buf message = BUF_MAX(1024);
    (void)snprintf(ca, sizeof(ca), "%s/ca", directory);
    CHECK(err_ok(cp_ca_init(ca, "platform.test", &message)));
    buf_free(&message);
    snap_environment(SLICE_LIT(ENVIRONMENT), environment_id);
    start(/* tls_cert= */ NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_lets_its_node_in_once),
        cmocka_unit_test(the_same_keys_may_ask_again),
        cmocka_unit_test(another_nodes_token_is_refused),
        cmocka_unit_test(an_expired_token_is_refused),
        cmocka_unit_test(a_token_is_what_a_replica_made),
        cmocka_unit_test(what_is_not_proved_is_refused),
        cmocka_unit_test(a_rejoined_node_has_other_keys),
        cmocka_unit_test(wrong_invitations_are_refused),
        cmocka_unit_test(a_renewal_is_taken_once),
        cmocka_unit_test(a_renewal_is_the_nodes_own_and_of_now),
        cmocka_unit_test(a_row_is_its_certificate),
        cmocka_unit_test(a_row_of_a_release_before_takes_two_proofs),
        cmocka_unit_test(a_removed_node_stays_out),
        cmocka_unit_test(refusals_do_not_fill_the_audit),
        cmocka_unit_test(without_a_ca_nobody_joins),
        cmocka_unit_test(a_grant_is_one_text),
        cmocka_unit_test(a_token_pins_the_last_of_the_chain),
    };
    int failed = cmocka_run_group_tests_name("identity.registrar", tests, NULL, NULL);
    stop();
    return remove_all() == 0 ? failed : 1;
}
