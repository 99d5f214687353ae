/* grant: see grant.h. */
#include "controlplane/identity/grant.h"

#include <arpa/inet.h>
#include <stdio.h>

#include "common/snapshot/labels.h"

enum { DNS_NAME_MAX = 253 };

static bool is_dns_name(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '-' && c != '*') {
            return false;
        }
    }
    return s.size > 0 && s.size <= DNS_NAME_MAX;
}

static bool is_address(struct slice s)
{
    char text[64];
    uint8_t address[16];
    int size = snprintf(text, sizeof(text), "%.*s", SLICE_ARG(s));
    return size > 0 && (size_t)size == s.size && s.size < sizeof(text) &&
           (inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1);
}

static struct err add_san(struct slice item, struct buf *out, struct buf *message)
{
    struct slice dns = slice_from(item, 4);
    if (slice_starts(item, SLICE_LIT("dns:")) && is_dns_name(dns)) {
        return buf_addf(out, ",DNS:%.*s", SLICE_ARG(dns));
    }
    struct slice ip = slice_from(item, 3);
    if (slice_starts(item, SLICE_LIT("ip:")) && is_address(ip)) {
        return buf_addf(out, ",IP:%.*s", SLICE_ARG(ip));
    }
    TRY(buf_addf(message, "san: found \"%.*s\"; expected dns:NAME or ip:ADDRESS",
                 SLICE_ARG(slice_head(item, 80))));
    return FAIL(E_USAGE);
}

struct err cp_grant_add_sans(struct slice sans, struct buf *out, struct buf *message)
{
    while (sans.size > 0) {
        struct slice item = slice_head(sans, slice_find(sans, ','));
        TRY(add_san(item, out, message));
        sans = slice_from(sans, item.size + 1);
    }
    return OK;
}

static struct err add_labels(struct slice text, struct buf *out, struct buf *message)
{
    struct labels labels;
    struct err e = labels_parse(text, &labels);
    if (!err_ok(e)) {
        TRY(buf_addf(message,
                     "labels: found \"%.*s\"; expected up to %d of name=value, separated by "
                     "commas, each of A-Z, a-z, 0-9, '.', '_', '-', '/' and at most %d characters",
                     SLICE_ARG(slice_head(text, 80)), HEAD_LABELS_MAX, LABEL_MAX));
        return e;
    }
    return labels_print(&labels, out);
}

struct err cp_grant_make(const struct cp_grant *grant, struct buf *out, struct buf *message)
{
    auto_buf struct buf text = BUF_MAX(CP_GRANT_MAX);
    auto_buf struct buf ignored = BUF_MAX((size_t)2 * CP_GRANT_MAX);
    if (grant->labels.size + grant->sans.size >= CP_GRANT_MAX) {
        TRY(buf_addf(message, "labels and sans: expected at most %d characters", CP_GRANT_MAX - 1));
        return FAIL(E_USAGE);
    }
    TRY(add_labels(grant->labels, &text, message));
    TRY(cp_grant_add_sans(grant->sans, &ignored, message));
    if (text.size > 0 && grant->sans.size > 0) {
        TRY(buf_add_byte(&text, ','));
    }
    TRY(buf_add(&text, grant->sans));
    return buf_add(out, buf_slice(&text));
}

struct cp_grant cp_grant_split(struct slice text)
{
    size_t at = 0; /* of the first item that is no label. */
    while (at < text.size) {
        struct slice rest = slice_from(text, at);
        struct slice item = slice_head(rest, slice_find(rest, ','));
        if (slice_find(item, '=') == item.size) {
            break;
        }
        at += item.size + 1;
    }
    return (struct cp_grant){.labels = slice_head(text, at > 0 ? at - 1 : 0),
                             .sans = slice_from(text, at)};
}
