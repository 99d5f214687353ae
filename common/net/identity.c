/* identity: who a verified certificate says that it is: SANs, and the one SPIFFE id. */
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "common/net/tls.h"

static bool is_domain_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

static bool is_segment_byte(uint8_t c)
{
    return is_domain_byte(c) || (c >= 'A' && c <= 'Z');
}

/* A path of one or more segments, none of them empty or made of dots alone. */
static bool spiffe_path_valid(struct slice path)
{
    struct slice rest = path;
    while (rest.size > 0) {
        rest = slice_from(rest, 1); /* the slash. */
        struct slice segment = slice_head(rest, slice_find(rest, '/'));
        if (segment.size == 0 || slice_eq(segment, SLICE_LIT(".")) ||
            slice_eq(segment, SLICE_LIT(".."))) {
            return false;
        }
        for (size_t i = 0; i < segment.size; i++) {
            if (!is_segment_byte(segment.ptr[i])) {
                return false;
            }
        }
        rest = slice_from(rest, segment.size);
    }
    return path.size > 0;
}

struct err net_spiffe_parse(struct slice uri, struct net_spiffe *out)
{
    enum { TRUST_DOMAIN_MAX = 255 };
    struct slice scheme = SLICE_LIT("spiffe://");
    if (uri.size > NET_SPIFFE_MAX || !slice_starts(uri, scheme)) {
        return FAIL(E_MALFORMED);
    }
    struct slice rest = slice_from(uri, scheme.size);
    struct slice domain = slice_head(rest, slice_find(rest, '/'));
    struct slice path = slice_from(rest, domain.size);
    if (domain.size == 0 || domain.size > TRUST_DOMAIN_MAX || !spiffe_path_valid(path)) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < domain.size; i++) {
        if (!is_domain_byte(domain.ptr[i])) {
            return FAIL(E_MALFORMED);
        }
    }
    *out = (struct net_spiffe){.trust_domain = domain, .path = path};
    return OK;
}

/* Copies a SAN behind the identity, whose memory was counted before. */
static struct slice keep_name(uint8_t **at, const ASN1_IA5STRING *name)
{
    size_t size = (size_t)ASN1_STRING_length(name);
    struct slice kept = slice_of(*at, size);
    memcpy(*at, ASN1_STRING_get0_data(name), size);
    *at += size;
    return kept;
}

static const ASN1_IA5STRING *san_text(const GENERAL_NAME *name)
{
    int type = 0;
    const void *value = GENERAL_NAME_get0_value(name, &type);
    return type == GEN_URI || type == GEN_DNS ? value : NULL;
}

/* Bytes that all URI and DNS SANs need; refuses a NUL in them. */
static struct err count_names(const GENERAL_NAMES *names, size_t *out_bytes)
{
    size_t bytes = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const ASN1_IA5STRING *text = san_text(sk_GENERAL_NAME_value(names, i));
        if (text == NULL) {
            continue;
        }
        struct slice s = slice_of(ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text));
        if (slice_find(s, 0) != s.size) {
            return FAIL(E_MALFORMED);
        }
        bytes += s.size;
    }
    *out_bytes = bytes;
    return OK;
}

/* The serial's bytes; OpenSSL keeps its magnitude, without zero bytes in front. */
static struct slice serial_bytes(X509 *cert)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(cert);
    return slice_of(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial));
}

/* Memory for the serial's text was counted with that of the names. */
static void keep_serial(struct net_identity *identity, X509 *cert, uint8_t **at)
{
    struct slice bytes = serial_bytes(cert);
    char *text = (char *)*at;
    text_hex(bytes, text);
    identity->serial = slice_of(text, 2 * bytes.size);
    *at += 2 * bytes.size + 1;
}

/* Those past the bound are passed over: nobody is known by one of so many. */
static void read_names(struct net_identity *identity, const GENERAL_NAMES *names, uint8_t *at)
{
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        const ASN1_IA5STRING *text = san_text(name);
        if (text == NULL) {
            continue;
        }
        bool uri = name->type == GEN_URI;
        size_t *count = uri ? &identity->uri_count : &identity->dns_name_count;
        if (*count == NET_IDENTITY_NAMES_MAX) {
            continue;
        }
        struct slice kept = keep_name(&at, text);
        if (uri) {
            identity->uris[(*count)++] = kept;
        } else {
            identity->dns_names[(*count)++] = kept;
        }
    }
}

/* X.509-SVID, 2 to 4: one URI SAN, which is a SPIFFE id; a leaf that signs no certificates. */
static void read_spiffe(struct net_identity *identity, X509 *cert)
{
    uint32_t usage = X509_get_key_usage(cert); /* all bits when there is no such extension. */
    bool signs_others = (usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0 && usage != UINT32_MAX;
    bool leaf = (X509_get_extension_flags(cert) & EXFLAG_CA) == 0;
    struct net_spiffe spiffe = {0};
    if (identity->uri_count != 1 || !leaf || signs_others || (usage & KU_DIGITAL_SIGNATURE) == 0 ||
        !err_ok(net_spiffe_parse(identity->uris[0], &spiffe))) {
        return;
    }
    identity->spiffe_id = identity->uris[0];
    identity->spiffe = spiffe;
}

static struct err read_fixed(struct net_identity *identity, X509 *cert)
{
    unsigned size = 0;
    struct tm expires = {0};
    if (X509_digest(cert, EVP_sha256(), identity->fingerprint, &size) != 1 ||
        ASN1_TIME_to_tm(X509_get0_notAfter(cert), &expires) != 1) {
        return FAIL(E_MALFORMED);
    }
    CHECK(size == sizeof(identity->fingerprint));
    identity->expires_s = timegm(&expires);
    return OK;
}

struct err net_identity_new(struct x509_st *cert, struct net_identity **out)
{
    int critical = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);
    struct net_identity *identity = NULL;
    uint8_t *at = NULL;
    size_t bytes = 0;
    /* -1: no such extension; anything else below zero: twice, or not decodable. */
    struct err failed = names == NULL && critical != -1 ? FAIL(E_MALFORMED) : OK;
    if (err_ok(failed) && names != NULL) {
        failed = count_names(names, &bytes);
    }
    if (err_ok(failed)) {
        bytes += 2 * serial_bytes(cert).size + 1;
        identity = calloc(1, sizeof(*identity) + bytes);
        failed = identity == NULL ? FAIL(E_NO_MEMORY) : read_fixed(identity, cert);
    }
    if (err_ok(failed)) {
        at = (uint8_t *)(identity + 1);
        keep_serial(identity, cert, &at);
        read_names(identity, names, at);
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    if (!err_ok(failed)) {
        free(identity);
        return failed;
    }
    read_spiffe(identity, cert);
    *out = identity;
    return OK;
}

void net_identity_free(struct net_identity *identity)
{
    free(identity);
}
