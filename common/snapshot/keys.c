/* Ed25519 by libsodium; the seed is what is kept, the rest is worked out from it. */
#include "common/snapshot/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/snapshot/file.h"

#define KEY_FILE_FIRST "trilane private key 1"

enum { HEX_SIZE = 2 * KEY_SEED_SIZE + 1 };

_Static_assert(KEY_PUBLIC_SIZE == crypto_sign_PUBLICKEYBYTES, "Ed25519");
_Static_assert(KEY_SEED_SIZE == crypto_sign_SEEDBYTES, "Ed25519");
_Static_assert(KEY_SIGNATURE_SIZE == crypto_sign_BYTES, "Ed25519");

void key_id(const uint8_t public[KEY_PUBLIC_SIZE], uint8_t out[KEY_ID_SIZE])
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(slice_of(public, KEY_PUBLIC_SIZE), digest);
    memcpy(out, digest, KEY_ID_SIZE);
}

static struct err set_name(struct key_public *key, struct slice name)
{
    if (!text_is_name(name)) {
        return FAIL(E_USAGE);
    }
    memset(key->name, 0, sizeof(key->name));
    memcpy(key->name, name.ptr, name.size);
    return OK;
}

static void seed_to_public(const uint8_t seed[KEY_SEED_SIZE], uint8_t public[KEY_PUBLIC_SIZE])
{
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    int failed = crypto_sign_seed_keypair(public, secret, seed);
    CHECK(failed == 0);
    sodium_memzero(secret, sizeof(secret));
}

struct err key_pair_new(enum key_role role, struct slice name, struct key_pair *out)
{
    auto_key_pair struct key_pair pair = {.public = {.role = role}};
    TRY(set_name(&pair.public, name));
    ids_random(pair.seed, sizeof(pair.seed));
    seed_to_public(pair.seed, pair.public.bytes);
    *out = pair;
    return OK;
}

void key_pair_wipe(struct key_pair *pair)
{
    sodium_memzero(pair, sizeof(*pair));
}

void key_sign(const struct key_pair *pair, struct slice bytes, uint8_t out[KEY_SIGNATURE_SIZE])
{
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    uint8_t public[KEY_PUBLIC_SIZE];
    int failed = crypto_sign_seed_keypair(public, secret, pair->seed);
    failed |= crypto_sign_detached(out, NULL, bytes.ptr, bytes.size, secret);
    sodium_memzero(secret, sizeof(secret));
    CHECK(failed == 0);
}

bool key_verify(const uint8_t public[KEY_PUBLIC_SIZE], struct slice bytes,
                const uint8_t signature[KEY_SIGNATURE_SIZE])
{
    return crypto_sign_verify_detached(signature, bytes.ptr, bytes.size, public) == 0;
}

/* Text of a key file; the stack copy of the seed's hex is wiped, the buf is the caller's. */
static struct err key_file_print(const struct key_pair *pair, struct buf *out)
{
    char public[HEX_SIZE];
    char private[HEX_SIZE];
    text_hex(slice_of(pair->public.bytes, KEY_PUBLIC_SIZE), public);
    text_hex(slice_of(pair->seed, KEY_SEED_SIZE), private);
    struct err e =
        buf_addf(out, "%s\nrole: %s\nname: %s\npublic: %s\nprivate: %s\n", KEY_FILE_FIRST,
                 key_role_name(pair->public.role), pair->public.name, public, private);
    sodium_memzero(private, sizeof(private));
    return e;
}

static struct err key_file_store(const char *path, struct slice text)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return FAIL(errno == EEXIST ? E_EXISTS : E_IO);
    }
    struct err e = file_write_at(fd, text, 0);
    if (err_ok(e) && fsync(fd) != 0) {
        e = FAIL(E_IO);
    }
    if (!err_ok(e)) {
        (void)unlink(path);
    }
    return e;
}

struct err key_file_write(const char *path, const struct key_pair *pair)
{
    auto_buf struct buf text = BUF_MAX(KEY_FILE_MAX);
    struct err e = key_file_print(pair, &text);
    if (err_ok(e)) {
        e = key_file_store(path, buf_slice(&text));
    }
    if (text.ptr != NULL) {
        sodium_memzero(text.ptr, text.capacity);
    }
    return e;
}

/* Takes one line "<name>: <value>" off the front. */
static struct err take_line(struct slice *rest, const char *name, struct slice *out_value)
{
    size_t end = slice_find(*rest, '\n');
    struct slice line = slice_head(*rest, end);
    if (end == rest->size || !slice_starts(line, slice_str(name))) {
        return FAIL(E_MALFORMED);
    }
    *out_value = slice_from(line, strlen(name));
    *rest = slice_from(*rest, end + 1);
    return OK;
}

static struct err key_file_parse(struct slice text, struct key_pair *out)
{
    auto_key_pair struct key_pair pair = {0};
    struct slice value = {0};
    TRY(take_line(&text, KEY_FILE_FIRST, &value));
    if (value.size != 0) {
        return FAIL(E_MALFORMED);
    }
    TRY(take_line(&text, "role: ", &value));
    if (!key_role_find(value, &pair.public.role)) {
        return FAIL(E_MALFORMED);
    }
    TRY(take_line(&text, "name: ", &value));
    if (!err_ok(set_name(&pair.public, value))) {
        return FAIL(E_MALFORMED);
    }
    uint8_t public[KEY_PUBLIC_SIZE];
    TRY(take_line(&text, "public: ", &value));
    TRY(text_unhex(value, public, sizeof(public)));
    TRY(take_line(&text, "private: ", &value));
    TRY(text_unhex(value, pair.seed, sizeof(pair.seed)));
    seed_to_public(pair.seed, pair.public.bytes);
    if (text.size != 0 || memcmp(public, pair.public.bytes, sizeof(public)) != 0) {
        return FAIL(E_MALFORMED);
    }
    *out = pair;
    return OK;
}

/* A secret that others may read is no secret: the file must be ours alone. */
static struct err key_file_open(const char *path, int *out_fd)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return FAIL(errno == ENOENT ? E_NOT_FOUND : errno == ELOOP ? E_USAGE : E_IO);
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return FAIL(E_IO);
    }
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        return FAIL(E_USAGE);
    }
    *out_fd = TAKE_FD(fd);
    return OK;
}

struct err key_file_read(const char *path, struct key_pair *out)
{
    auto_close int fd = -1;
    TRY(key_file_open(path, &fd));
    return key_file_read_open(fd, out);
}

struct err key_file_read_open(int fd, struct key_pair *out)
{
    uint8_t text[KEY_FILE_MAX];
    size_t size = 0;
    struct err e = file_read_at(fd, text, sizeof(text), 0, &size);
    if (err_ok(e)) {
        e = key_file_parse(slice_of(text, size), out);
    }
    sodium_memzero(text, sizeof(text));
    return e;
}

struct err key_public_print(const struct key_public *key, struct buf *out)
{
    char hex[HEX_SIZE];
    text_hex(slice_of(key->bytes, KEY_PUBLIC_SIZE), hex);
    return buf_addf(out, "%s %s %s", key_role_name(key->role), key->name, hex);
}

struct err key_public_parse(struct slice text, struct key_public *out)
{
    struct key_public key = {0};
    size_t first = slice_find(text, ' ');
    struct slice rest = slice_from(text, first + 1);
    size_t second = slice_find(rest, ' ');
    if (!key_role_find(slice_head(text, first), &key.role) ||
        !err_ok(set_name(&key, slice_head(rest, second)))) {
        return FAIL(E_MALFORMED);
    }
    TRY(text_unhex(slice_from(rest, second + 1), key.bytes, sizeof(key.bytes)));
    *out = key;
    return OK;
}
