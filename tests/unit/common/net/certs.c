/* certs: see certs.h. */
#include "tests/unit/common/net/certs.h"

#include <dirent.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    CHECK(extension != NULL);
    CHECK(X509_add_ext(cert, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

static X509 *new_cert(const char *name, long serial, int valid_s, EVP_PKEY *key)
{
    X509 *cert = X509_new();
    CHECK(cert != NULL);
    CHECK(X509_set_version(cert, X509_VERSION_3) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(cert), serial) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(cert), valid_s < 0 ? 2L * valid_s : -60) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(cert), valid_s) != NULL);
    CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                                     (const unsigned char *)name, -1, -1, 0) == 1);
    CHECK(X509_set_pubkey(cert, key) == 1);
    return cert;
}

void certs_init(struct certs *c)
{
    certs_init_named(c, "test CA");
}

void certs_init_named(struct certs *c, const char *name)
{
    *c = (struct certs){.dir = "/tmp/trilane-certs-XXXXXX"};
    CHECK(mkdtemp(c->dir) != NULL);
    c->ca_key = EVP_EC_gen("P-256");
    CHECK(c->ca_key != NULL);
    c->ca = new_cert(name, 1, 3600, c->ca_key);
    CHECK(X509_set_issuer_name(c->ca, X509_get_subject_name(c->ca)) == 1);
    add_extension(c->ca, c->ca, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(c->ca, c->ca, NID_key_usage, "critical,keyCertSign,cRLSign");
    CHECK(X509_sign(c->ca, c->ca_key, EVP_sha256()) > 0);
    c->serial = 1;
    CHECK(snprintf(c->ca_file, sizeof(c->ca_file), "%s/ca.pem", c->dir) > 0);
    FILE *f = fopen(c->ca_file, "we");
    CHECK(f != NULL && PEM_write_X509(f, c->ca) == 1);
    CHECK(fclose(f) == 0);
}

void certs_free(struct certs *c)
{
    DIR *dir = opendir(c->dir);
    CHECK(dir != NULL);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        (void)unlinkat(dirfd(dir), e->d_name, 0); /* "." and ".." stay. */
    }
    (void)closedir(dir);
    (void)rmdir(c->dir);
    X509_free(c->ca);
    EVP_PKEY_free(c->ca_key);
}

X509 *certs_make(struct certs *c, const struct certs_leaf *leaf, EVP_PKEY **out_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    CHECK(key != NULL);
    const char *name = leaf->name == NULL ? "leaf" : leaf->name;
    X509 *cert = new_cert(name, ++c->serial, leaf->valid_s == 0 ? 600 : leaf->valid_s, key);
    CHECK(X509_set_issuer_name(cert, X509_get_subject_name(c->ca)) == 1);
    add_extension(cert, c->ca, NID_basic_constraints, leaf->is_ca ? "CA:TRUE" : "CA:FALSE");
    add_extension(cert, c->ca, NID_key_usage,
                  leaf->key_usage == NULL ? "digitalSignature" : leaf->key_usage);
    if (leaf->san != NULL) {
        add_extension(cert, c->ca, NID_subject_alt_name, leaf->san);
    }
    CHECK(X509_sign(cert, c->ca_key, EVP_sha256()) > 0);
    *out_key = key;
    return cert;
}

static struct certs_file issue(struct certs *c, const char *name, const struct certs_leaf *leaf,
                               const EVP_CIPHER *lock)
{
    struct certs_file file;
    CHECK(snprintf(file.path, sizeof(file.path), "%s/%s.pem", c->dir, name) > 0);
    EVP_PKEY *key = NULL;
    X509 *cert = certs_make(c, leaf, &key);
    FILE *f = fopen(file.path, "we");
    CHECK(f != NULL && PEM_write_X509(f, cert) == 1);
    CHECK(PEM_write_PKCS8PrivateKey(f, key, lock, lock == NULL ? NULL : "word", 4, NULL, NULL) ==
          1);
    CHECK(fclose(f) == 0);
    X509_free(cert);
    EVP_PKEY_free(key);
    return file;
}

struct certs_file certs_issue(struct certs *c, const char *name, const struct certs_leaf *leaf)
{
    return issue(c, name, leaf, /* lock= */ NULL);
}

struct certs_file certs_issue_locked(struct certs *c, const char *name,
                                     const struct certs_leaf *leaf)
{
    return issue(c, name, leaf, EVP_aes_128_cbc());
}
