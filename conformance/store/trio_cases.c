/* What a trio shares: proposals and what came of them, roots, tokens, nodes, the audit. */
#include "conformance/store/rig.h"

/* ---- proposals ---- */

static struct err propose(struct rig *f, const struct cp_proposal *proposal, const char *body)
{
    return f->ops->proposal_put(f->store, &f->fence, proposal, slice_str(body));
}

static void a_proposal_is_written_once(void **state)
{
    struct rig *f = *state;
    struct cp_proposal proposal = {.version = rig_hand(f)};
    must(propose(f, &proposal, "body"));
    must(propose(f, &proposal, "body"));
    must_fail(propose(f, &proposal, "other"), E_CONFLICT);
    proposal.origin = 7;
    must_fail(propose(f, &proposal, "body"), E_CONFLICT);
    proposal.version = 99;
    must_fail(propose(f, &proposal, "body"), E_CONFLICT);
}

static void check_open(struct rig *f, uint64_t version, const char *body)
{
    struct cp_proposal found;
    struct buf bytes = BUF_MAX(64);
    must(f->ops->proposal_open(f->store, "dev", &found, &bytes));
    assert_int_equal(found.version, version);
    assert_int_equal(found.epoch, f->fence.epoch);
    assert_true(found.proposed_ms > 1000000000000);
    assert_true(slice_eq(buf_slice(&bytes), slice_str(body)));
    buf_free(&bytes);
}

static void the_newest_unpublished_proposal_is_open(void **state)
{
    struct rig *f = *state;
    struct cp_proposal found;
    must_fail(f->ops->proposal_open(f->store, "dev", &found, NULL), E_NOT_FOUND);
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "one"));
    check_open(f, 1, "one");
    must(propose(f,
                 &(struct cp_proposal){.version = rig_hand(f),
                                       .origin = 5,
                                       .with_trust = true,
                                       .sources_digest = {7},
                                       .warrant = {8}},
                 "two"));
    check_open(f, 2, "two");
    must(f->ops->proposal_open(f->store, "dev", &found, NULL));
    assert_int_equal(found.origin, 5);
    assert_true(found.with_trust);
    assert_int_equal(found.sources_digest[0], 7);
    assert_int_equal(found.warrant[0], 8);
    struct cp_publication p = rig_publication(2, NULL, 0);
    must(f->ops->publish(f->store, &f->fence, &p));
    must_fail(f->ops->proposal_open(f->store, "dev", &found, NULL), E_NOT_FOUND);
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "three"));
    check_open(f, 3, "three");
    f->fence = rig_take_over(f, 2); /* of an epoch that is over. */
    must_fail(f->ops->proposal_open(f->store, "dev", &found, NULL), E_NOT_FOUND);
}

static struct cp_cosignature cosignature_of(uint8_t key, enum err_code code, const char *sentence)
{
    struct cp_cosignature c = {.code = code};
    (void)memset(c.key_id, key, sizeof(c.key_id));
    (void)memset(c.signature, code == E_OK ? key : 0, sizeof(c.signature));
    (void)snprintf(c.sentence, sizeof(c.sentence), "%s", sentence);
    return c;
}

static struct err cosign(struct rig *f, const char *body, const struct cp_cosignature *c)
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(slice_str(body), digest);
    return f->ops->cosign_put(f->store, "dev", 1, digest, c);
}

static void a_signature_stays_and_a_refusal_does_not(void **state)
{
    struct rig *f = *state;
    struct cp_cosignature list[CP_COSIGNATURES_MAX];
    size_t count = 77;
    struct cp_cosignature refusal = cosignature_of(2, E_COSIGN_REFUSED, "stream 3 differs");
    struct cp_cosignature mine = cosignature_of(1, E_OK, "");
    struct cp_cosignature later = cosignature_of(2, E_OK, "");
    must(f->ops->cosign_list(f->store, "dev", 1, list, &count));
    assert_int_equal(count, 0);
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "body"));
    must_fail(cosign(f, "another body", &mine), E_NOT_FOUND);
    must(cosign(f, "body", &refusal));
    must(cosign(f, "body", &mine));
    must(f->ops->cosign_list(f->store, "dev", 1, list, &count));
    assert_int_equal(count, 2);
    assert_int_equal(list[0].code, E_OK);
    assert_memory_equal(list[0].signature, mine.signature, sizeof(mine.signature));
    assert_int_equal(list[1].code, E_COSIGN_REFUSED);
    assert_string_equal(list[1].sentence, "stream 3 differs");
    must(cosign(f, "body", &later));
    must(cosign(f, "body", &refusal)); /* comes too late. */
    must(f->ops->cosign_list(f->store, "dev", 1, list, &count));
    assert_int_equal(count, 2);
    assert_int_equal(list[1].code, E_OK);
    assert_memory_equal(list[1].key_id, later.key_id, sizeof(later.key_id));
}

static void a_closed_proposal_is_open_no_longer(void **state)
{
    struct rig *f = *state;
    struct cp_proposal found;
    struct cp_cosignature late = cosignature_of(1, E_OK, "");
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "body"));
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "two"));
    must(f->ops->proposal_close(f->store, &f->fence, 2));
    must_fail(f->ops->proposal_open(f->store, "dev", &found, NULL), E_NOT_FOUND);
    must(cosign(f, "body", &late)); /* the one before it is no newer for that, but open. */
    must(f->ops->proposal_close(f->store, &f->fence, 1));
    must_fail(cosign(f, "body", &late), E_NOT_FOUND);
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "three"));
    check_open(f, 3, "three");
    struct cp_fence old = f->fence;
    f->fence = rig_take_over(f, 2);
    must_fail(f->ops->proposal_close(f->store, &old, 3), E_NOT_LEADER);
}

static void more_keys_than_a_root_has_are_refused(void **state)
{
    struct rig *f = *state;
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "body"));
    for (int i = 0; i < CP_COSIGNATURES_MAX; i++) {
        struct cp_cosignature c = cosignature_of((uint8_t)i, E_OK, "");
        must(cosign(f, "body", &c));
    }
    struct cp_cosignature one_more = cosignature_of(200, E_OK, "");
    must_fail(cosign(f, "body", &one_more), E_TOO_LARGE);
    struct cp_cosignature list[CP_COSIGNATURES_MAX];
    size_t count = 0;
    must(f->ops->cosign_list(f->store, "dev", 1, list, &count));
    assert_int_equal(count, CP_COSIGNATURES_MAX);
}

static void proposals_go_with_their_versions(void **state)
{
    struct rig *f = *state;
    struct cp_cosignature mine = cosignature_of(1, E_OK, "");
    must(propose(f, &(struct cp_proposal){.version = rig_hand(f)}, "body"));
    must(cosign(f, "body", &mine));
    limits.history_versions = 2;
    (void)rig_publish(f, NULL, 0);
    (void)rig_publish(f, NULL, 0);
    (void)rig_publish(f, NULL, 0);
    limits.history_versions = 1000;
    must_fail(cosign(f, "body", &mine), E_NOT_FOUND);
}

/* ---- roots ---- */

static struct err put_root(struct rig *f, uint64_t version, const char *container)
{
    return f->ops->root_put(f->store, "dev", version, slice_str(container));
}

static struct err add_root(void *ctx, uint64_t version, struct slice container)
{
    return buf_addf(ctx, "%d=%.*s ", (int)version, SLICE_ARG(container));
}

static void check_roots(struct rig *f, uint64_t from, const char *expected)
{
    struct buf text = BUF_MAX(4096);
    must(f->ops->roots_get(f->store, "dev", from, add_root, &text));
    assert_true(slice_eq(buf_slice(&text), slice_str(expected)));
    buf_free(&text);
}

static void roots_follow_each_other(void **state)
{
    struct rig *f = *state;
    check_roots(f, 0, "");
    must(put_root(f, 3, "three")); /* the first one may have any number. */
    must(put_root(f, 3, "three"));
    must_fail(put_root(f, 3, "other"), E_CONFLICT);
    must_fail(put_root(f, 5, "five"), E_CONFLICT);
    must_fail(put_root(f, 2, "two"), E_CONFLICT);
    must(put_root(f, 4, "four"));
    must(put_root(f, 3, "three")); /* also when it is not the newest. */
    check_roots(f, 0, "3=three 4=four ");
    check_roots(f, 4, "4=four ");
    check_roots(f, 5, "");
    must(f->ops->root_put(f->store, "prod", 1, SLICE_LIT("one")));
}

static void many_roots_are_walked(void **state)
{
    struct rig *f = *state;
    char expected[1024] = "";
    for (uint64_t i = 1; i <= 70; i++) {
        must(put_root(f, i, "r"));
        size_t size = strlen(expected);
        (void)snprintf(expected + size, sizeof(expected) - size, "%d=r ", (int)i);
    }
    check_roots(f, 1, expected);
}

/* ---- tokens and nodes ---- */

static int64_t now_ms(struct rig *f)
{
    struct cp_lease lease;
    must(f->ops->lease_read(f->store, "dev", &lease));
    return lease.now_ms;
}

static struct cp_join_token make_token(struct rig *f, uint8_t digest, const char *node,
                                       int64_t life_ms)
{
    struct cp_join_token token = {.expires_ms = now_ms(f) + life_ms};
    (void)memset(token.digest, digest, sizeof(token.digest));
    (void)snprintf(token.node, sizeof(token.node), "%s", node);
    (void)snprintf(token.labels, sizeof(token.labels), "zone=a");
    (void)snprintf(token.author, sizeof(token.author), "ada");
    (void)memset(token.warrant, digest + 1, sizeof(token.warrant));
    must(f->ops->token_put(f->store, "dev", &token));
    return token;
}

static struct cp_node node_of(const char *id, uint8_t key)
{
    struct cp_node node = {.not_after_ms = 5000};
    (void)snprintf(node.id, sizeof(node.id), "%s", id);
    (void)snprintf(node.serial, sizeof(node.serial), "0a");
    node.certificate_size = 700;
    (void)memset(node.certificate, key, node.certificate_size);
    return node;
}

static void assert_certificate(const struct cp_node *found, const struct cp_node *wanted)
{
    assert_int_equal(found->certificate_size, wanted->certificate_size);
    assert_memory_equal(found->certificate, wanted->certificate, wanted->certificate_size);
}

static void put_replica(struct rig *f, const char *environment, uint8_t manifest, uint8_t head,
                        const char *name)
{
    struct cp_replica replica = {.manifest_key = {manifest}, .head_key = {head}};
    (void)snprintf(replica.name, sizeof(replica.name), "%s", name);
    must(f->ops->replica_put(f->store, environment, &replica));
}

static void replicas_are_listed_by_their_keys(void **state)
{
    struct rig *f = *state;
    struct cp_replica found[CP_REPLICAS_MAX];
    size_t count = 9;
    must(f->ops->replica_list(f->store, "dev", found, &count));
    assert_int_equal(count, 0);
    put_replica(f, "dev", 1, 2, "cp-0");
    put_replica(f, "dev", 1, 3, "cp-0"); /* another head key; the old one stays a while. */
    put_replica(f, "dev", 1, 2, "cp-9"); /* the same keys: one row. */
    put_replica(f, "prod", 5, 6, "cp-0");
    must(f->ops->replica_list(f->store, "dev", found, &count));
    assert_int_equal(count, 2);
    size_t at = found[0].head_key[0] == 2 ? 0 : 1;
    assert_string_equal(found[at].name, "cp-9");
    assert_string_equal(found[1 - at].name, "cp-0");
    assert_int_equal(found[1 - at].head_key[0], 3);
    assert_in_range(found[at].age_ms, 0, 60000);
    assert_true(found[at].seen_ms > 1000000000000);
    for (int i = 0; i < CP_REPLICAS_MAX; i++) { /* no more than there is room for. */
        put_replica(f, "dev", (uint8_t)(i + 10), 1, "many");
    }
    must(f->ops->replica_list(f->store, "dev", found, &count));
    assert_int_equal(count, CP_REPLICAS_MAX);
}

static void a_token_enrols_one_node_once(void **state)
{
    struct rig *f = *state;
    struct cp_join_token token = make_token(f, 1, "node-1", 60000);
    struct cp_join_token found;
    struct cp_node node;
    must_fail(f->ops->token_put(f->store, "dev", &token), E_CONFLICT);
    must(f->ops->token_get(f->store, "dev", token.digest, &found));
    assert_string_equal(found.node, "node-1");
    assert_string_equal(found.labels, "zone=a");
    assert_string_equal(found.author, "ada");
    assert_int_equal(found.expires_ms, token.expires_ms);
    assert_memory_equal(found.warrant, token.warrant, sizeof(token.warrant));
    struct cp_node other = node_of("node-2", 9);
    must_fail(f->ops->node_enrol(f->store, "dev", token.digest, &other), E_USAGE);
    must_fail(f->ops->node_get(f->store, "dev", "node-2", &node), E_NOT_FOUND);
    struct cp_node mine = node_of("node-1", 9);
    must(f->ops->node_enrol(f->store, "dev", token.digest, &mine));
    must_fail(f->ops->node_enrol(f->store, "dev", token.digest, &mine), E_TOKEN_USED);
    must_fail(f->ops->token_get(f->store, "dev", token.digest, &found), E_TOKEN_USED);
    must_fail(f->ops->token_get(f->store, "prod", token.digest, &found), E_TOKEN_UNKNOWN);
    must(f->ops->node_get(f->store, "dev", "node-1", &node));
    assert_int_equal(node.state, CP_NODE_ENROLLED);
    assert_certificate(&node, &mine);
    assert_string_equal(node.serial, "0a");
    assert_int_equal(node.not_after_ms, 5000);
    assert_true(node.enrolled_ms > 1000000000000);
}

static void a_token_runs_out_and_is_forgotten(void **state)
{
    struct rig *f = *state;
    static const uint8_t nobody[DIGEST_SIZE];
    struct cp_join_token found;
    struct cp_node node = node_of("node-1", 9);
    must_fail(f->ops->token_get(f->store, "dev", nobody, &found), E_TOKEN_UNKNOWN);
    must_fail(f->ops->node_enrol(f->store, "dev", nobody, &node), E_TOKEN_UNKNOWN);
    struct cp_join_token late = make_token(f, 1, "node-1", -1000);
    must_fail(f->ops->token_get(f->store, "dev", late.digest, &found), E_TOKEN_EXPIRED);
    must_fail(f->ops->node_enrol(f->store, "dev", late.digest, &node), E_TOKEN_EXPIRED);
    struct cp_join_token old = make_token(f, 2, "node-1", -8LL * 24 * 3600 * 1000);
    must_fail(f->ops->token_get(f->store, "dev", old.digest, &found), E_TOKEN_EXPIRED);
    (void)make_token(f, 3, "node-1", 60000); /* clears up. */
    must_fail(f->ops->token_get(f->store, "dev", old.digest, &found), E_TOKEN_UNKNOWN);
    must_fail(f->ops->token_get(f->store, "dev", late.digest, &found), E_TOKEN_EXPIRED);
}

static void a_node_joins_again_with_a_new_key(void **state)
{
    struct rig *f = *state;
    struct cp_join_token first = make_token(f, 1, "node-1", 60000);
    struct cp_node old = node_of("node-1", 8);
    struct cp_node young = node_of("node-1", 9);
    struct cp_node found;
    must(f->ops->node_enrol(f->store, "dev", first.digest, &old));
    must(f->ops->node_remove(f->store, "dev", "node-1"));
    struct cp_join_token second = make_token(f, 2, "node-1", 60000);
    must(f->ops->node_enrol(f->store, "dev", second.digest, &young));
    must(f->ops->node_get(f->store, "dev", "node-1", &found));
    assert_int_equal(found.state, CP_NODE_ENROLLED);
    assert_certificate(&found, &young);
}

static void a_removal_ends_the_tokens_of_its_name(void **state)
{
    struct rig *f = *state;
    struct cp_join_token first = make_token(f, 1, "node-1", 60000);
    struct cp_join_token spare = make_token(f, 2, "node-1", 60000);
    struct cp_join_token others = make_token(f, 3, "node-2", 60000);
    struct cp_join_token found;
    struct cp_node node = node_of("node-1", 8);
    must_fail(f->ops->node_remove(f->store, "dev", "node-1"), E_NOT_FOUND);
    must(f->ops->node_enrol(f->store, "dev", first.digest, &node));
    must(f->ops->token_get(f->store, "dev", spare.digest, &found)); /* it was nobody's removal. */
    must(f->ops->node_remove(f->store, "dev", "node-1"));
    must_fail(f->ops->token_get(f->store, "dev", spare.digest, &found), E_TOKEN_USED);
    must_fail(f->ops->node_enrol(f->store, "dev", spare.digest, &node), E_TOKEN_USED);
    must(f->ops->node_get(f->store, "dev", "node-1", &node));
    assert_int_equal(node.state, CP_NODE_REMOVED);
    must(f->ops->token_get(f->store, "dev", others.digest, &found));
}

static void a_removed_node_is_listed_and_never_renewed(void **state)
{
    struct rig *f = *state;
    struct cp_join_token token = make_token(f, 1, "node-1", 60000);
    struct cp_node node = node_of("node-1", 9);
    struct cp_node next = node_of("node-1", 9);
    (void)snprintf(next.serial, sizeof(next.serial), "0b");
    next.not_after_ms = 6000;
    next.certificate_size = CP_CERTIFICATE_MAX; /* the longest. */
    (void)memset(next.certificate, 7, next.certificate_size);
    must_fail(f->ops->node_renew(f->store, "dev", &next), E_NOT_FOUND);
    must_fail(f->ops->node_remove(f->store, "dev", "node-1"), E_NOT_FOUND);
    must(f->ops->node_enrol(f->store, "dev", token.digest, &node));
    must(f->ops->node_renew(f->store, "dev", &next));
    must(f->ops->node_get(f->store, "dev", "node-1", &node));
    assert_string_equal(node.serial, "0b");
    assert_int_equal(node.not_after_ms, 6000);
    assert_certificate(&node, &next);
    must(f->ops->node_remove(f->store, "dev", "node-1"));
    (void)snprintf(next.serial, sizeof(next.serial), "0c");
    must_fail(f->ops->node_renew(f->store, "dev", &next), E_NOT_FOUND);
    must(f->ops->node_get(f->store, "dev", "node-1", &node));
    assert_int_equal(node.state, CP_NODE_REMOVED);
    assert_string_equal(node.serial, "0b");
}

/* ---- certificates ---- */

struct serials {
    char text[256]; /* "0a 0b ", those that were removed with a '!' behind. */
    struct cp_certificate last;
};

static struct err add_serial(void *ctx, const struct cp_certificate *certificate)
{
    struct serials *s = ctx;
    size_t size = strlen(s->text);
    (void)snprintf(s->text + size, sizeof(s->text) - size, "%s%s ", certificate->serial,
                   certificate->removed_ms != 0 ? "!" : "");
    s->last = *certificate;
    return OK;
}

static struct serials serials_of(struct rig *f, const char *node)
{
    struct serials s = {.text = ""};
    must(node != NULL ? f->ops->certificates_of(f->store, "dev", node, add_serial, &s)
                      : f->ops->certificates_removed(f->store, "dev", add_serial, &s));
    return s;
}

static void a_nodes_certificates_are_kept_to_their_end(void **state)
{
    struct rig *f = *state;
    struct cp_join_token token = make_token(f, 1, "node-1", 60000);
    struct cp_join_token other = make_token(f, 2, "node-2", 60000);
    struct cp_node node = node_of("node-1", 9);
    struct cp_node second = node_of("node-2", 8);
    node.not_after_ms = second.not_after_ms = now_ms(f) + 60000;
    (void)memset(node.warrant, 7, sizeof(node.warrant));
    must(f->ops->node_enrol(f->store, "dev", token.digest, &node));
    (void)snprintf(second.serial, sizeof(second.serial), "2a");
    must(f->ops->node_enrol(f->store, "dev", other.digest, &second));
    (void)snprintf(node.serial, sizeof(node.serial), "0b");
    must(f->ops->node_renew(f->store, "dev", &node));
    (void)snprintf(node.serial, sizeof(node.serial), "0c");
    node.not_after_ms = now_ms(f) - 1000; /* over already. */
    must(f->ops->node_renew(f->store, "dev", &node));
    struct serials found = serials_of(f, "node-1");
    assert_string_equal(found.text, "0a 0b ");
    assert_string_equal(found.last.node, "node-1");
    assert_int_equal(found.last.not_after_ms, second.not_after_ms);
    assert_memory_equal(found.last.warrant, node.warrant, sizeof(node.warrant));
    assert_string_equal(serials_of(f, NULL).text, "");
    (void)memset(found.last.removal, 9, sizeof(found.last.removal));
    must(f->ops->certificate_remove(f->store, "dev", &found.last));
    assert_string_equal(serials_of(f, "node-1").text, "0a 0b! ");
    struct serials removed = serials_of(f, NULL);
    assert_string_equal(removed.text, "0b! ");
    assert_memory_equal(removed.last.removal, found.last.removal, sizeof(found.last.removal));
    assert_memory_equal(removed.last.warrant, node.warrant, sizeof(node.warrant));
    must(f->ops->certificate_remove(f->store, "prod", &found.last)); /* whose row is gone. */
    assert_string_equal(serials_of(f, "node-1").text, "0a 0b! ");
    must(f->ops->node_remove(f->store, "dev", "node-1"));
    must_fail(f->ops->node_renew(f->store, "dev", &node), E_NOT_FOUND);
    assert_string_equal(serials_of(f, "node-1").text, "0a 0b! "); /* nothing was given out. */
    assert_string_equal(serials_of(f, "node-2").text, "2a ");
}

static struct err count_node(void *ctx, const struct cp_node *node)
{
    char expected[16];
    int *count = ctx;
    (void)snprintf(expected, sizeof(expected), "node-%04d", (*count)++);
    assert_string_equal(node->id, expected);
    return *count == 70 ? FAIL(E_CANCELLED) : OK;
}

static void nodes_are_listed_by_id(void **state)
{
    struct rig *f = *state;
    int count = 0;
    must(f->ops->node_list(f->store, "dev", count_node, &count));
    assert_int_equal(count, 0);
    for (int i = 79; i >= 0; i--) { /* more than a page. */
        char id[16];
        (void)snprintf(id, sizeof(id), "node-%04d", i);
        struct cp_join_token token = {.expires_ms = now_ms(f) + 60000};
        ids_random(token.digest, sizeof(token.digest));
        (void)memcpy(token.node, id, sizeof(id));
        must(f->ops->token_put(f->store, "dev", &token));
        struct cp_node node = node_of(id, 9);
        must(f->ops->node_enrol(f->store, "dev", token.digest, &node));
    }
    must_fail(f->ops->node_list(f->store, "dev", count_node, &count), E_CANCELLED);
    assert_int_equal(count, 70);
}

/* ---- audit ---- */

static void audit_is_newest_first(void **state)
{
    struct rig *f = *state;
    for (int i = 0; i < 3; i++) {
        struct cp_audit entry = {.actor = "ada", .action = "publish", .outcome = "OK"};
        (void)snprintf(entry.object, sizeof(entry.object), "version %d", i);
        must(f->ops->audit_add(f->store, "dev", &entry));
    }
    struct cp_audit entries[2];
    size_t count = 0;
    must(f->ops->audit_list(f->store, "dev", entries, 2, &count));
    assert_int_equal(count, 2);
    assert_string_equal(entries[0].object, "version 2");
    assert_string_equal(entries[1].actor, "ada");
    assert_true(entries[0].seq > entries[1].seq);
    assert_true(entries[0].at_ms > 1000000000000);
}

static void audit_takes_lines_of_several_replicas(void **state)
{
    struct rig *f = *state;
    struct cp_store *second = rig_open(f->url);
    struct cp_audit entry = {.actor = "ada", .action = "publish", .outcome = "OK"};
    must(f->ops->audit_add(f->store, "dev", &entry));
    must(second->ops->audit_add(second, "prod", &entry));
    must(f->ops->audit_add(f->store, "dev", &entry));
    struct cp_audit entries[4];
    size_t count = 0;
    must(second->ops->audit_list(second, "dev", entries, 4, &count));
    assert_int_equal(count, 2);
    assert_true(entries[0].seq > entries[1].seq + 1);
    cp_store_close(second);
    (void)snprintf(entry.actor, sizeof(entry.actor), "\xff");
    must_fail(f->ops->audit_add(f->store, "dev", &entry), E_MALFORMED);
}

const struct CMUnitTest trio_cases[] = {
    RIG_CASE(a_proposal_is_written_once),
    RIG_CASE(the_newest_unpublished_proposal_is_open),
    RIG_CASE(a_signature_stays_and_a_refusal_does_not),
    RIG_CASE(a_closed_proposal_is_open_no_longer),
    RIG_CASE(more_keys_than_a_root_has_are_refused),
    RIG_CASE(proposals_go_with_their_versions),
    RIG_CASE(roots_follow_each_other),
    RIG_CASE(many_roots_are_walked),
    RIG_CASE(replicas_are_listed_by_their_keys),
    RIG_CASE(a_token_enrols_one_node_once),
    RIG_CASE(a_token_runs_out_and_is_forgotten),
    RIG_CASE(a_node_joins_again_with_a_new_key),
    RIG_CASE(a_removal_ends_the_tokens_of_its_name),
    RIG_CASE(a_removed_node_is_listed_and_never_renewed),
    RIG_CASE(a_nodes_certificates_are_kept_to_their_end),
    RIG_CASE(nodes_are_listed_by_id),
    RIG_CASE(audit_is_newest_first),
    RIG_CASE(audit_takes_lines_of_several_replicas),
};
const size_t trio_case_count = sizeof(trio_cases) / sizeof(trio_cases[0]);
