/* ca: see ca.h. */
#include "controlplane/identity/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/base/slice.h"
#include "common/base/text.h"
#include "common/net/csr.h"
#include "common/snapshot/file.h"
#include "controlplane/identity/grant.h"
#include "controlplane/signer/wire.h"

enum { PATH_SIZE = 4096, SAN_SIZE = 4096, TRUST_DOMAIN_MAX = 255, SECONDS_PER_DAY = 86400 };

/* A serial: one byte, positive and never zero; the count; random bytes, more than anyone guesses.
 */
enum { SERIAL_SIZE = 16, SERIAL_FIRST = 0x40, COUNT_SIZE = 6 };

static void free_key(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}
static void free_cert(X509 **cert)
{
    X509_free(*cert);
}
static void close_file(FILE **file)
{
    if (*file != NULL) {
        (void)fclose(*file);
    }
}
#define auto_key __attribute__((cleanup(free_key)))
#define auto_cert __attribute__((cleanup(free_cert)))
#define auto_file __attribute__((cleanup(close_file)))

static struct err join(const char *directory, const char *name, char out[PATH_SIZE])
{
    int size = snprintf(out, PATH_SIZE, "%s/%s", directory, name);
    return size > 0 && size < PATH_SIZE ? OK : FAIL(E_TOO_LARGE);
}

static struct err make_directory(const char *path)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST ? OK : FAIL(E_IO);
}

/* A new file that nothing is written over. */
static struct err create(const char *path, mode_t mode, FILE **out)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0) {
        return FAIL(errno == EEXIST ? E_EXISTS : E_IO);
    }
    FILE *file = fdopen(fd, "w");
    if (file == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    (void)TAKE_FD(fd);
    *out = file;
    return OK;
}

static bool is_trust_domain(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.ptr[i];
        bool fine =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
        if (!fine) {
            return false;
        }
    }
    return s.size > 0 && s.size <= TRUST_DOMAIN_MAX;
}

/* ---- certificates ---- */

static struct err add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    if (extension == NULL) {
        return FAIL(E_CRYPTO);
    }
    int added = X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
    return added == 1 ? OK : FAIL(E_CRYPTO);
}

/* Positive, never zero, with the count, and more random bytes than anyone guesses. */
static struct err set_serial(X509 *cert, uint64_t count)
{
    uint8_t bytes[NET_SERIAL_BYTES];
    ids_random(bytes, sizeof(bytes));
    bytes[0] = NET_SERIAL_FIRST;
    for (unsigned i = 0; i < NET_SERIAL_COUNT_BITS / 8; i++) {
        bytes[1 + i] = (uint8_t)(count >> (NET_SERIAL_COUNT_BITS - 8 - 8 * i));
    }
    BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    bool fine = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)) != NULL;
    BN_free(number);
    return fine ? OK : FAIL(E_CRYPTO);
}

static struct err set_subject(X509 *cert, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(cert);
    const unsigned char *text = (const unsigned char *)name;
    int added = X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, text, -1, -1, 0);
    return added == 1 ? OK : FAIL(E_CRYPTO);
}

struct shape {
    const char *common_name;
    struct labels labels;
    uint64_t life_s;
    uint64_t count; /* in the serial. */
    bool ca;
    const char *san;
    const uint8_t *status_key; /* of a node that joined; NULL: none. */
};

static struct err set_labels(X509 *cert, const struct labels *labels)
{
    for (size_t i = 0; i < labels->count; i++) {
        char text[LABEL_MAX + 1];
        int size = snprintf(text, sizeof(text), "%.*s=%.*s", SLICE_ARG(labels->items[i].name),
                            SLICE_ARG(labels->items[i].value));
        TRY(net_cert_add_label(cert, slice_of(text, (size_t)size)));
    }
    return OK;
}

static struct err extend(X509 *cert, X509 *issuer, const struct shape *shape)
{
    TRY(add_extension(cert, issuer, NID_basic_constraints,
                      shape->ca ? "critical,CA:TRUE,pathlen:0" : "critical,CA:FALSE"));
    TRY(add_extension(cert, issuer, NID_key_usage,
                      shape->ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature"));
    if (!shape->ca) {
        TRY(add_extension(cert, issuer, NID_ext_key_usage, "serverAuth,clientAuth"));
    }
    TRY(add_extension(cert, issuer, NID_subject_key_identifier, "hash"));
    if (!shape->ca) {
        TRY(add_extension(cert, issuer, NID_authority_key_identifier, "keyid:always"));
    }
    return add_extension(cert, issuer, NID_subject_alt_name, shape->san);
}

/* All but the signature; 'issuer' is the certificate itself for a CA. */
static struct err fill(X509 *cert, EVP_PKEY *key, X509 *issuer, const struct shape *shape)
{
    if (X509_set_version(cert, X509_VERSION_3) != 1 || X509_set_pubkey(cert, key) != 1 ||
        X509_gmtime_adj(X509_getm_notBefore(cert), -NET_CERT_EARLIER_S) == NULL ||
        X509_gmtime_adj(X509_getm_notAfter(cert), (long)shape->life_s) == NULL) {
        return FAIL(E_CRYPTO);
    }
    TRY(set_serial(cert, shape->count));
    TRY(set_subject(cert, shape->common_name));
    TRY(set_labels(cert, &shape->labels));
    TRY(shape->status_key == NULL ? OK : net_cert_add_status_key(cert, shape->status_key));
    if (X509_set_issuer_name(cert, X509_get_subject_name(issuer)) != 1) {
        return FAIL(E_CRYPTO);
    }
    return extend(cert, issuer, shape);
}

/* The one use of an authority's private key. */
static struct err sign(X509 *cert, EVP_PKEY *issuer_key)
{
    return X509_sign(cert, issuer_key, EVP_sha256()) > 0 ? OK : FAIL(E_CRYPTO);
}

static struct err write_key(const char *path, EVP_PKEY *key)
{
    auto_file FILE *file = NULL;
    TRY(create(path, 0600, &file));
    bool fine = PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1;
    return fine && fflush(file) == 0 ? OK : FAIL(E_IO);
}

static struct err write_chain(const char *path, X509 *leaf, X509 *ca)
{
    auto_file FILE *file = NULL;
    TRY(create(path, 0644, &file));
    bool fine = PEM_write_X509(file, leaf) == 1 && (ca == NULL || PEM_write_X509(file, ca) == 1);
    return fine && fflush(file) == 0 ? OK : FAIL(E_IO);
}

static struct err say(struct err e, const char *path, struct buf *message)
{
    if (!err_ok(e) && message->size == 0) {
        TRY(buf_addf(message, "%s: %s", path, err_text(e.code)));
    }
    return e;
}

/* The key first: a certificate without its key is of no use, a key without one does no harm. */
static struct err write_pair(const char *directory, const char *base, EVP_PKEY *key, X509 *cert,
                             X509 *ca, struct buf *message)
{
    char name[PATH_SIZE];
    char path[PATH_SIZE];
    (void)snprintf(name, sizeof(name), "%.200s.key", base);
    TRY(join(directory, name, path));
    TRY(say(write_key(path, key), path, message));
    (void)snprintf(name, sizeof(name), "%.200s.pem", base);
    TRY(join(directory, name, path));
    return say(write_chain(path, cert, ca), path, message);
}

/* ---- the authority ---- */

struct err cp_ca_init(const char *directory, const char *trust_domain, struct buf *message)
{
    if (!is_trust_domain(slice_str(trust_domain))) {
        TRY(buf_addf(message, "trust domain: found \"%.80s\"; expected a-z, 0-9, '.', '-', '_'",
                     trust_domain));
        return FAIL(E_USAGE);
    }
    TRY(say(make_directory(directory), directory, message));
    auto_key EVP_PKEY *key = EVP_EC_gen("P-256");
    auto_cert X509 *cert = X509_new();
    if (key == NULL || cert == NULL) {
        return FAIL(E_CRYPTO);
    }
    char san[SAN_SIZE];
    char common_name[65];
    (void)snprintf(san, sizeof(san), "URI:spiffe://%s", trust_domain);
    (void)snprintf(common_name, sizeof(common_name), "Trilane CA %.50s", trust_domain);
    struct shape shape = {.common_name = common_name,
                          .life_s = (uint64_t)CP_CA_DAYS * SECONDS_PER_DAY,
                          .ca = true,
                          .san = san};
    TRY(fill(cert, key, cert, &shape));
    TRY(sign(cert, key));
    return write_pair(directory, "ca", key, cert, NULL, message);
}

struct cp_ca {
    struct net_chain certs; /* the first one is the key's. */
    struct buf bundle;
    EVP_PKEY *key;
    char trust_domain[TRUST_DOMAIN_MAX + 1];
};

static X509 *cert_of(const struct cp_ca *ca)
{
    return ca->certs.certs[0];
}

/* The CA's certificate carries its trust domain as the only URI. */
static struct err find_trust_domain(struct cp_ca *ca)
{
    static const struct slice scheme = SLICE_INIT("spiffe://");
    GENERAL_NAMES *names = X509_get_ext_d2i(cert_of(ca), NID_subject_alt_name, NULL, NULL);
    struct err result = FAIL(E_MALFORMED);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI) {
            continue;
        }
        const ASN1_STRING *uri = name->d.uniformResourceIdentifier;
        struct slice text = slice_of(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
        struct slice domain = slice_from(text, scheme.size);
        if (slice_starts(text, scheme) && is_trust_domain(domain)) {
            (void)snprintf(ca->trust_domain, sizeof(ca->trust_domain), "%.*s", SLICE_ARG(domain));
            result = OK;
        }
    }
    GENERAL_NAMES_free(names);
    return result;
}

static struct err open_file(const char *path, bool secret, int *out)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | (secret ? O_NOFOLLOW : 0));
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : errno == ELOOP ? E_USAGE : E_IO);
    }
    bool private = S_ISREG(info.st_mode) && info.st_uid == geteuid() && (info.st_mode & 077) == 0;
    if (secret && !private) {
        return FAIL(E_USAGE);
    }
    *out = TAKE_FD(fd);
    return OK;
}

/* A file; a key's may be a descriptor, which whoever passed it on has read from somewhere. */
static struct err read_file(const char *path, bool secret, struct buf *out)
{
    auto_close int fd = -1;
    if (!secret || !signer_source_fd(path, &fd)) {
        TRY(open_file(path, secret, &fd));
    }
    uint8_t *room = NULL;
    size_t size = 0;
    TRY(buf_reserve(out, out->max, &room));
    TRY(file_read_at(fd, room, out->max, 0, &size));
    if (size == out->max) {
        return FAIL(E_TOO_LARGE);
    }
    buf_commit(out, size);
    return OK;
}

static struct err read_key(struct cp_ca *ca, const char *path, struct buf *message)
{
    auto_buf struct buf pem = BUF_MAX(NET_KEY_PEM_MAX);
    struct err e = read_file(path, /* secret= */ true, &pem);
    if (e.code == E_USAGE) {
        TRY(buf_addf(message,
                     "%s: expected a plain file of our own that nobody else may read; "
                     "chmod 600",
                     path));
    }
    if (err_ok(e)) {
        e = net_key_read(buf_slice(&pem), &ca->key);
    }
    if (pem.ptr != NULL) {
        sodium_memzero(pem.ptr, pem.capacity);
    }
    if (err_ok(e) && !net_cert_is_for(cert_of(ca), ca->key)) {
        TRY(buf_addf(message, "%s: expected the key of the first certificate of ca.pem", path));
        e = FAIL(E_CRYPTO);
    }
    return say(e, path, message);
}

static struct err read_authority(struct cp_ca *ca, const char *directory, const char *key,
                                 struct buf *message)
{
    char path[PATH_SIZE];
    TRY(join(directory, "ca.pem", path));
    TRY(say(read_file(path, /* secret= */ false, &ca->bundle), path, message));
    TRY(say(net_chain_read(buf_slice(&ca->bundle), &ca->certs), path, message));
    struct err e = find_trust_domain(ca);
    if (!err_ok(e)) {
        TRY(buf_addf(message,
                     "%s: expected a certificate with its trust domain as URI: spiffe://DOMAIN",
                     path));
        return e;
    }
    TRY(join(directory, "ca.key", path));
    return read_key(ca, key == NULL ? path : key, message);
}

struct err cp_ca_open(const char *directory, const char *key, struct cp_ca **out,
                      struct buf *message)
{
    struct cp_ca *ca = calloc(1, sizeof(*ca));
    if (ca == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    ca->bundle = BUF_MAX(NET_CHAIN_BYTES_MAX);
    struct err e = read_authority(ca, directory, key, message);
    if (!err_ok(e)) {
        cp_ca_close(ca);
        return e;
    }
    *out = ca;
    return OK;
}

void cp_ca_close(struct cp_ca *ca)
{
    if (ca == NULL) {
        return;
    }
    net_chain_free(&ca->certs);
    buf_free(&ca->bundle);
    EVP_PKEY_free(ca->key);
    free(ca);
}

static void close_ca(struct cp_ca **ca)
{
    cp_ca_close(*ca);
}
#define auto_ca __attribute__((cleanup(close_ca)))

struct slice cp_ca_bundle(const struct cp_ca *ca)
{
    return buf_slice(&ca->bundle);
}

/* ---- leaves ---- */

static struct err bad_name(const char *what, const char *found, const char *expected,
                           struct buf *message)
{
    TRY(buf_addf(message, "%s: found \"%.80s\"; expected %s", what, found, expected));
    return FAIL(E_USAGE);
}

/* "tenant/name" or a node's id, to the SPIFFE id's path and the files' name. */
static struct err name_leaf(const struct cp_leaf *leaf, struct buf *path, struct buf *base,
                            struct buf *message)
{
    if (leaf->node != NULL) {
        if (!text_is_name(slice_str(leaf->node))) {
            return bad_name("node", leaf->node, "a name of a-z, 0-9 and '-'", message);
        }
        TRY(buf_addf(path, "/node/%s", leaf->node));
        return buf_addf(base, "node-%s", leaf->node);
    }
    struct slice service = slice_str(leaf->service);
    struct slice tenant = slice_head(service, slice_find(service, '/'));
    struct slice name = slice_from(service, tenant.size + 1);
    if (!text_is_name(tenant) || !text_is_name(name)) {
        return bad_name("service", leaf->service, "tenant/name", message);
    }
    TRY(buf_addf(path, "/tenant/%.*s/service/%.*s", SLICE_ARG(tenant), SLICE_ARG(name)));
    return buf_addf(base, "%.*s-%.*s", SLICE_ARG(tenant), SLICE_ARG(name));
}

static struct err issue(const struct cp_leaf *leaf, const struct cp_ca *ca,
                        const struct shape *shape, const char *base, struct buf *message)
{
    auto_key EVP_PKEY *key = EVP_EC_gen("P-256");
    auto_cert X509 *cert = X509_new();
    if (key == NULL || cert == NULL) {
        return FAIL(E_CRYPTO);
    }
    TRY(fill(cert, key, cert_of(ca), shape));
    TRY(sign(cert, ca->key));
    return write_pair(leaf->out, base, key, cert, cert_of(ca), message);
}

/* Labels and names are judged as those of a join token are. */
static struct err judge_grant(const struct cp_leaf *leaf, struct labels *out, struct buf *message)
{
    auto_buf struct buf text = BUF_MAX(CP_GRANT_MAX);
    struct cp_grant grant = {.labels = slice_str(leaf->labels), .sans = slice_str(leaf->san)};
    if (leaf->node == NULL && leaf->labels != NULL) {
        TRY(buf_add_str(message, "labels: they are a node's; name it with --node"));
        return FAIL(E_USAGE);
    }
    TRY(cp_grant_make(&grant, &text, message));
    return labels_parse(grant.labels, out);
}

struct err cp_ca_issue(const struct cp_leaf *leaf, struct buf *out_id, struct buf *out_base,
                       struct buf *message)
{
    auto_ca struct cp_ca *ca = NULL;
    auto_buf struct buf path = BUF_MAX(SAN_SIZE);
    auto_buf struct buf base = BUF_MAX(SAN_SIZE);
    auto_buf struct buf san = BUF_MAX(SAN_SIZE);
    const char *id = NULL;
    const char *base_text = NULL;
    const char *san_text = NULL;
    struct shape shape = {.life_s = (uint64_t)leaf->days * SECONDS_PER_DAY};
    TRY(name_leaf(leaf, &path, &base, message));
    TRY(judge_grant(leaf, &shape.labels, message));
    TRY(cp_ca_open(leaf->ca, /* key= */ NULL, &ca, message));
    TRY(say(make_directory(leaf->out), leaf->out, message));
    TRY(buf_addf(out_id, "spiffe://%s%.*s", ca->trust_domain, SLICE_ARG(buf_slice(&path))));
    TRY(buf_cstr(out_id, &id));
    TRY(buf_addf(&san, "URI:%s", id));
    TRY(cp_grant_add_sans(slice_str(leaf->san), &san, message));
    TRY(buf_cstr(&base, &base_text));
    TRY(buf_cstr(&san, &san_text));
    char common_name[65];
    (void)snprintf(common_name, sizeof(common_name), "%.64s", base_text);
    shape.common_name = common_name;
    shape.san = san_text;
    TRY(issue(leaf, ca, &shape, base_text, message));
    return buf_addf(out_base, "%s/%s", leaf->out, base_text);
}

/* ---- leaves of nodes that join ---- */

static struct err take_pem(BIO *bio, struct buf *out)
{
    char *bytes = NULL;
    long size = BIO_get_mem_data(bio, &bytes);
    return buf_add(out, slice_of(bytes, size < 0 ? 0 : (size_t)size));
}

static struct err write_pem(const struct cp_ca *ca, X509 *leaf, struct buf *out)
{
    BIO *bio = BIO_new(BIO_s_mem());
    struct err e = FAIL(E_NO_MEMORY);
    if (bio != NULL && PEM_write_bio_X509(bio, leaf) == 1 &&
        PEM_write_bio_X509(bio, cert_of(ca)) == 1) {
        e = take_pem(bio, out);
    }
    BIO_free(bio);
    return e;
}

static struct err sign_node(const struct cp_ca *ca, const struct cp_ca_order *order,
                            const struct shape *shape, struct cp_ca_leaf *out)
{
    auto_cert X509 *cert = X509_new();
    struct net_cert_times times;
    if (cert == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(fill(cert, order->key, cert_of(ca), shape));
    TRY(sign(cert, ca->key));
    TRY(write_pem(ca, cert, &out->chain));
    TRY(net_cert_times(cert, &times));
    net_cert_serial(cert, out->serial);
    out->not_after_ms = times.ends_s * 1000;
    return OK;
}

/* What a leaf may live, and no longer than its authority. */
static struct err bound_life(const struct cp_ca *ca, uint64_t ttl_ms, uint64_t *out_s)
{
    struct net_cert_times times;
    uint64_t ttl_s = ttl_ms / 1000;
    if (ttl_s == 0 || ttl_s > (uint64_t)CP_LEAF_DAYS_MAX * SECONDS_PER_DAY) {
        return FAIL(E_USAGE);
    }
    TRY(net_cert_times(cert_of(ca), &times));
    int64_t left_s = times.ends_s - clock_wall_ms() / 1000;
    if (left_s <= 0) {
        return FAIL(E_CA_EXPIRED);
    }
    *out_s = ttl_s < (uint64_t)left_s ? ttl_s : (uint64_t)left_s;
    return OK;
}

struct err cp_ca_sign(struct cp_ca *ca, const struct cp_ca_order *order, struct cp_ca_leaf *out)
{
    char common_name[65];
    const char *san_text = NULL;
    auto_buf struct buf san = BUF_MAX(SAN_SIZE);
    auto_buf struct buf message = BUF_MAX(SAN_SIZE); /* what is wrong was said at the token. */
    struct shape shape = {.count = order->count, .status_key = order->status_key};
    if (!text_is_name(slice_str(order->node)) || order->count >> NET_SERIAL_COUNT_BITS != 0) {
        return FAIL(E_USAGE);
    }
    TRY(bound_life(ca, order->ttl_ms, &shape.life_s));
    TRY(labels_parse(order->labels, &shape.labels));
    TRY(buf_addf(&san, "URI:spiffe://%s/node/%s", ca->trust_domain, order->node));
    TRY(cp_grant_add_sans(order->sans, &san, &message));
    TRY(buf_cstr(&san, &san_text));
    (void)snprintf(common_name, sizeof(common_name), "%.64s", order->node);
    shape.common_name = common_name;
    shape.san = san_text;
    struct cp_ca_leaf leaf = {.chain = BUF_MAX(NET_CHAIN_BYTES_MAX)};
    struct err e = sign_node(ca, order, &shape, &leaf);
    if (!err_ok(e)) {
        cp_ca_leaf_free(&leaf);
        return e;
    }
    *out = leaf;
    return OK;
}

void cp_ca_leaf_free(struct cp_ca_leaf *leaf)
{
    buf_free(&leaf->chain);
}
