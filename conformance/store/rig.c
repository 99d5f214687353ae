/*
 * Proves that each kind of database does what store.h says.
 *
 *     conformance.store sqlite|postgresql
 *
 * PostgreSQL is that of TRILANE_TEST_POSTGRES_URL, or one that this program starts. Each case has a
 * database of its own: a file, or a schema.
 */
#include "conformance/store/rig.h"

#include <ftw.h>
#include <unistd.h>

#include "tests/support/postgres_server.h"

static bool with_postgres;
static char directory[256]; /* of the files. */
static struct postgres_server server;
static const char *server_url; /* of PostgreSQL. */
static int database_number;

/* ---- databases ---- */

static void schema_name(int number, char out[64])
{
    (void)snprintf(out, 64, "trilane_test_%d_%d", (int)getpid(), number);
}

static void make_schema(char out_url[RIG_URL_MAX])
{
    char name[64];
    char text[128];
    schema_name(++database_number, name);
    (void)snprintf(text, sizeof(text), "CREATE SCHEMA %s", name);
    postgres_server_sql(server_url, text);
    (void)snprintf(out_url, RIG_URL_MAX, "%s%coptions=-csearch_path%%3D%s", server_url,
                   strchr(server_url, '?') == NULL ? '?' : '&', name);
}

void rig_make_database(char out_url[RIG_URL_MAX])
{
    if (with_postgres) {
        make_schema(out_url);
    } else {
        (void)snprintf(out_url, RIG_URL_MAX, "sqlite:%s/%d", directory, ++database_number);
    }
}

void rig_drop_database(const char *url)
{
    if (with_postgres) {
        char text[128];
        (void)snprintf(text, sizeof(text),
                       "SET client_min_messages = warning; DROP SCHEMA %s CASCADE",
                       strrchr(url, 'D') + 1);
        postgres_server_sql(server_url, text);
    }
}

/* ---- a case ---- */

void rig_must(struct err e, const char *file, int line)
{
    if (!err_ok(e)) {
        print_error("%s at %s\n", err_name(e.code), e.where);
        _fail(file, line);
    }
}

struct cp_store *rig_open(const char *url)
{
    struct cp_store *store = NULL;
    struct buf message = BUF_MAX(1024);
    struct err e = cp_store_open(url, &store, &message);
    if (!err_ok(e)) {
        print_error("%.*s\n", SLICE_ARG(buf_slice(&message)));
    }
    buf_free(&message);
    must(e);
    return store;
}

struct cp_lease_wish rig_wish(uint8_t holder, uint64_t lease_ms)
{
    struct cp_lease_wish wish = {.environment = "dev",
                                 .name = "replica",
                                 .address = "https://replica:9443",
                                 .lease_ms = lease_ms};
    (void)memset(wish.holder, holder, sizeof(wish.holder));
    return wish;
}

static struct cp_fence take(struct rig *f, uint8_t holder)
{
    struct cp_lease_wish wish = rig_wish(holder, 60000);
    struct cp_lease lease = {0};
    must(f->ops->lease_take(f->store, &wish, &lease));
    assert_true(lease.held);
    struct cp_fence fence = {.environment = "dev", .epoch = lease.epoch};
    (void)memcpy(fence.holder, wish.holder, sizeof(wish.holder));
    return fence;
}

struct cp_fence rig_take_over(struct rig *f, uint8_t holder)
{
    must(f->ops->lease_drop(f->store, &f->fence));
    return take(f, holder);
}

int rig_set_up(void **state)
{
    struct rig *f = calloc(1, sizeof(*f));
    CHECK(f != NULL);
    rig_make_database(f->url);
    f->store = rig_open(f->url);
    f->ops = f->store->ops;
    f->fence = take(f, 1);
    *state = f;
    return 0;
}

int rig_tear_down(void **state)
{
    struct rig *f = *state;
    cp_store_close(f->store);
    rig_drop_database(f->url);
    free(f);
    return 0;
}

uint64_t rig_hand(struct rig *f)
{
    uint64_t version = 0;
    must(f->ops->version_hand(f->store, &f->fence, &version));
    return version;
}

struct cp_store_chunk rig_chunk(const char *text)
{
    struct cp_store_chunk chunk = {.raw_size = strlen(text), .stored = slice_str(text)};
    ids_digest(slice_str(text), chunk.raw_digest);
    ids_digest_short(slice_str(text), chunk.stored_digest);
    return chunk;
}

struct cp_publication rig_publication(uint64_t version, const struct cp_store_chunk *chunks,
                                      size_t count)
{
    struct cp_publication p = {.manifest = SLICE_LIT("manifest bytes"),
                               .chunks = chunks,
                               .chunk_count = count,
                               .record = {.version = version, .epoch = 1, .raw_size = 9}};
    (void)snprintf(p.record.author, sizeof(p.record.author), "ada");
    (void)snprintf(p.record.message, sizeof(p.record.message), "version %d", (int)version);
    (void)memset(p.record.manifest_digest, (int)version, DIGEST_SIZE);
    (void)memset(p.record.content_digest, 7, DIGEST_SIZE);
    return p;
}

uint64_t rig_publish(struct rig *f, const struct cp_store_chunk *chunks, size_t count)
{
    uint64_t version = rig_hand(f);
    struct cp_publication p = rig_publication(version, chunks, count);
    must(f->ops->publish(f->store, &f->fence, &p));
    bool any = false;
    must(f->ops->drop_old(f->store, &f->fence, &any));
    return version;
}

bool rig_has_chunk(struct rig *f, const struct cp_store_chunk *chunk)
{
    struct buf bytes = BUF_MAX(1 << 20);
    struct err e = f->ops->chunk_get(f->store, chunk->raw_digest, &bytes);
    buf_free(&bytes);
    if (e.code != E_NOT_FOUND) {
        must(e);
    }
    return err_ok(e);
}

/* ---- all of them ---- */

static int remove_one(const char *path, const struct stat *about, int type, struct FTW *ftw)
{
    (void)about;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void start(void)
{
    if (!with_postgres) {
        const char *base = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe) */
        (void)snprintf(directory, sizeof(directory), "%s/trilane-store-XXXXXX",
                       base == NULL ? "/tmp" : base);
        CHECK(mkdtemp(directory) != NULL);
        return;
    }
    server_url = getenv("TRILANE_TEST_POSTGRES_URL"); /* NOLINT(concurrency-mt-unsafe) */
    if (server_url == NULL) {
        postgres_server_init(&server);
        postgres_server_start(&server);
        server_url = server.url;
    }
}

static void stop(void)
{
    if (!with_postgres) {
        /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread. */
        CHECK(nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
    } else if (server_url == server.url) {
        postgres_server_free(&server);
    }
}

int main(int argc, char **argv)
{
    with_postgres = argc == 2 && strcmp(argv[1], "postgresql") == 0;
    if (argc != 2 || (!with_postgres && strcmp(argv[1], "sqlite") != 0)) {
        (void)fprintf(stderr, "usage: %s sqlite|postgresql\n", argv[0]);
        return 2;
    }
    ids_init();
    start();
    int failed = 0;
#define RUN(group)                                                                                 \
    failed += _cmocka_run_group_tests("conformance.store." #group, group##_cases,                  \
                                      group##_case_count, /* setup= */ NULL, /* teardown= */ NULL)
    RUN(lease);
    RUN(journal);
    RUN(trio);
    RUN(backup);
    stop();
    return failed;
}
