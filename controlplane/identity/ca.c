/* ca: see ca.h. */
#include "controlplane/identity/ca.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/base/slice.h"
#include "common/base/text.h"

enum { PATH_SIZE = 4096, SAN_SIZE = 4096, SERIAL_SIZE = 16, TRUST_DOMAIN_MAX = 255 };
enum { SECONDS_PER_DAY = 86400, EARLIER_SECONDS = 3600 };

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

static struct err set_serial(X509 *cert)
{
    uint8_t bytes[SERIAL_SIZE];
    ids_random(bytes, sizeof(bytes));
    bytes[0] &= 0x7f; /* positive. */
    bytes[0] |= 0x40; /* of full length, so never zero. */
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
    uint32_t days;
    bool ca;
    const char *san;
};

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

/* Fills and signs; 'issuer' is the certificate itself for a CA. */
static struct err build(X509 *cert, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key,
                        const struct shape *shape)
{
    if (X509_set_version(cert, X509_VERSION_3) != 1 || X509_set_pubkey(cert, key) != 1 ||
        X509_gmtime_adj(X509_getm_notBefore(cert), -EARLIER_SECONDS) == NULL ||
        X509_gmtime_adj(X509_getm_notAfter(cert), (long)shape->days * SECONDS_PER_DAY) == NULL) {
        return FAIL(E_CRYPTO);
    }
    TRY(set_serial(cert));
    TRY(set_subject(cert, shape->common_name));
    if (X509_set_issuer_name(cert, X509_get_subject_name(issuer)) != 1) {
        return FAIL(E_CRYPTO);
    }
    TRY(extend(cert, issuer, shape));
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
    struct shape shape = {.common_name = common_name, .days = CP_CA_DAYS, .ca = true, .san = san};
    TRY(build(cert, key, cert, key, &shape));
    return write_pair(directory, "ca", key, cert, NULL, message);
}

struct authority {
    X509 *cert;
    EVP_PKEY *key;
    char trust_domain[TRUST_DOMAIN_MAX + 1];
};

static void authority_free(struct authority *a)
{
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
}

/* The CA's certificate carries its trust domain as the only URI. */
static struct err find_trust_domain(struct authority *a)
{
    static const struct slice scheme = {(const uint8_t *)"spiffe://", 9};
    GENERAL_NAMES *names = X509_get_ext_d2i(a->cert, NID_subject_alt_name, NULL, NULL);
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
            (void)snprintf(a->trust_domain, sizeof(a->trust_domain), "%.*s", SLICE_ARG(domain));
            result = OK;
        }
    }
    GENERAL_NAMES_free(names);
    return result;
}

static struct err authority_read(const char *directory, struct authority *out)
{
    char path[PATH_SIZE];
    TRY(join(directory, "ca.pem", path));
    auto_file FILE *cert = fopen(path, "re");
    TRY(join(directory, "ca.key", path));
    auto_file FILE *key = fopen(path, "re");
    if (cert == NULL || key == NULL) {
        return FAIL(E_NOT_FOUND);
    }
    out->cert = PEM_read_X509(cert, NULL, NULL, NULL);
    out->key = PEM_read_PrivateKey(key, NULL, NULL, NULL);
    if (out->cert == NULL || out->key == NULL || X509_check_private_key(out->cert, out->key) != 1) {
        return FAIL(E_CRYPTO);
    }
    return find_trust_domain(out);
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

static bool is_dns_name(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '-' && c != '*') {
            return false;
        }
    }
    return s.size > 0 && s.size <= 253;
}

static bool is_address(struct slice s)
{
    char text[64];
    uint8_t address[16];
    (void)snprintf(text, sizeof(text), "%.*s", SLICE_ARG(s));
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

/* One "dns:NAME" or "ip:ADDRESS", as OpenSSL's configuration writes it. */
static struct err add_san(struct slice item, struct buf *san, struct buf *message)
{
    struct slice dns = slice_from(item, 4);
    if (slice_starts(item, SLICE_LIT("dns:")) && is_dns_name(dns)) {
        return buf_addf(san, ",DNS:%.*s", SLICE_ARG(dns));
    }
    struct slice ip = slice_from(item, 3);
    if (slice_starts(item, SLICE_LIT("ip:")) && is_address(ip)) {
        return buf_addf(san, ",IP:%.*s", SLICE_ARG(ip));
    }
    TRY(buf_addf(message, "san: found \"%.*s\"; expected dns:NAME or ip:ADDRESS",
                 SLICE_ARG(slice_head(item, 80))));
    return FAIL(E_USAGE);
}

static struct err add_sans(const char *text, struct buf *san, struct buf *message)
{
    struct slice rest = slice_str(text);
    while (rest.size > 0) {
        struct slice item = slice_head(rest, slice_find(rest, ','));
        TRY(add_san(item, san, message));
        rest = slice_from(rest, item.size + 1);
    }
    return OK;
}

static struct err issue(const struct cp_leaf *leaf, const struct authority *ca,
                        const struct shape *shape, const char *base, struct buf *message)
{
    auto_key EVP_PKEY *key = EVP_EC_gen("P-256");
    auto_cert X509 *cert = X509_new();
    if (key == NULL || cert == NULL) {
        return FAIL(E_CRYPTO);
    }
    TRY(build(cert, key, ca->cert, ca->key, shape));
    return write_pair(leaf->out, base, key, cert, ca->cert, message);
}

struct err cp_ca_issue(const struct cp_leaf *leaf, struct buf *out_id, struct buf *out_base,
                       struct buf *message)
{
    __attribute__((cleanup(authority_free))) struct authority ca = {0};
    auto_buf struct buf path = BUF_MAX(SAN_SIZE);
    auto_buf struct buf base = BUF_MAX(SAN_SIZE);
    auto_buf struct buf san = BUF_MAX(SAN_SIZE);
    const char *id = NULL;
    const char *base_text = NULL;
    const char *san_text = NULL;
    TRY(name_leaf(leaf, &path, &base, message));
    TRY(say(authority_read(leaf->ca, &ca), leaf->ca, message));
    TRY(say(make_directory(leaf->out), leaf->out, message));
    TRY(buf_addf(out_id, "spiffe://%s%.*s", ca.trust_domain, SLICE_ARG(buf_slice(&path))));
    TRY(buf_cstr(out_id, &id));
    TRY(buf_addf(&san, "URI:%s", id));
    TRY(add_sans(leaf->san == NULL ? "" : leaf->san, &san, message));
    TRY(buf_cstr(&base, &base_text));
    TRY(buf_cstr(&san, &san_text));
    char common_name[65];
    (void)snprintf(common_name, sizeof(common_name), "%.64s", base_text);
    struct shape shape = {.common_name = common_name, .days = leaf->days, .san = san_text};
    TRY(issue(leaf, &ca, &shape, base_text, message));
    return buf_addf(out_base, "%s/%s", leaf->out, base_text);
}
