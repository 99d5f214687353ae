/* TLS to a real nats-server: both ways at once, over reconnects, and to nobody but the one meant.
 */
#include <arpa/inet.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/bus/bus.h"
#include "common/bus/jetstream.h"
#include "common/bus/kv.h"
#include "common/bus/relay.h"

#include "tests/support/bus_wait.h"
#include "tests/support/cmocka.h"
#include "tests/support/nats_server.h"
#include "tests/unit/common/net/certs.h"

enum { WAIT_MS = 60000, LOOK_MS = 10, TEXT = 1024 };

struct fixture {
    struct certs certs;
    struct certs strangers; /* another CA. */
    struct certs_file server_file;
    struct certs_file client_file;
    struct certs_file elsewhere_file; /* of our CA, for another host. */
    struct nats_server server;
};

static void tls_block(const struct certs *ca, const struct certs_file *file, bool verify,
                      char out[TEXT])
{
    (void)snprintf(
        out, TEXT,
        "tls { cert_file: \"%s\", key_file: \"%s\", ca_file: \"%s\", verify: %s, timeout: 60 }",
        file->path, file->path, ca->ca_file, verify ? "true" : "false");
}

static int set_up(void **state)
{
    static struct fixture f;
    char block[TEXT];
    ids_init();
    certs_init(&f.certs);
    certs_init(&f.strangers);
    f.server_file = certs_issue(&f.certs, "server",
                                &(struct certs_leaf){.san = "IP:127.0.0.1", .valid_s = 3600});
    f.elsewhere_file = certs_issue(
        &f.certs, "elsewhere", &(struct certs_leaf){.san = "DNS:nats.example", .valid_s = 3600});
    f.client_file =
        certs_issue(&f.certs, "client", &(struct certs_leaf){.san = "DNS:client", .valid_s = 3600});
    tls_block(&f.certs, &f.server_file, /* verify= */ true, block);
    nats_server_init(&f.server, block);
    nats_server_start(&f.server);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    nats_server_free(&f->server);
    certs_free(&f->certs);
    certs_free(&f->strangers);
    return 0;
}

static struct bus *open_bus(const struct fixture *f, const char *url)
{
    struct bus *bus = NULL;
    struct bus_config config = {.urls = url,
                                .tls_ca = f->certs.ca_file,
                                .tls_cert = f->client_file.path,
                                .tls_key = f->client_file.path};
    assert_int_equal(bus_open(&config, &bus).code, E_OK);
    return bus;
}

static void carries_large_values_both_ways(void **state)
{
    struct fixture *f = *state;
    struct kv kv;
    struct kv_config config = {.history = 1, .max_bytes = 64 << 20};
    struct kv_entry entry;
    struct jetstream_server about;
    struct bus *bus = open_bus(f, f->server.url);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    assert_int_equal(jetstream_server_ask(bus, WAIT_MS, &about).code, E_OK);
    assert_true(about.jetstream);
    assert_int_equal(kv_bind(&kv, bus, SLICE_LIT("snap")).code, E_OK);
    assert_int_equal(kv_ensure(&kv, &config, WAIT_MS, NULL, NULL).code, E_OK);
    auto_buf struct buf value = BUF_MAX(1 << 20);
    uint8_t *to = NULL;
    assert_int_equal(buf_reserve(&value, 900 << 10, &to).code, E_OK);
    ids_random(to, 900 << 10);
    buf_commit(&value, 900 << 10);
    for (int i = 0; i < 5; i++) {
        auto_buf struct buf got = BUF_MAX(1 << 20);
        assert_int_equal(kv_put(&kv, SLICE_LIT("a"), buf_slice(&value), WAIT_MS, NULL).code, E_OK);
        assert_int_equal(kv_get(&kv, SLICE_LIT("a"), KV_READ_ANY, WAIT_MS, &got, &entry).code,
                         E_OK);
        assert_true(slice_eq(buf_slice(&got), buf_slice(&value)));
    }
    bus_close(bus);
}

/* Reading and writing at once is where one session without a lock breaks. */
static void reads_and_writes_at_once(void **state)
{
    struct fixture *f = *state;
    enum { MESSAGES = 20000, SIZE = 700 };
    struct queue inbox;
    struct bus_subscription *sub = NULL;
    uint8_t payload[SIZE];
    memset(payload, 'x', sizeof(payload));
    assert_int_equal(queue_init(&inbox, limits.bus_queue, NULL, NULL).code, E_OK);
    struct bus *bus = open_bus(f, f->server.url);
    assert_int_equal(
        bus_subscribe(bus, SLICE_LIT("echo"), (struct slice){0}, &inbox, NULL, &sub).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    size_t sent = 0;
    size_t received = 0;
    while (received < MESSAGES) {
        struct bus_outgoing message = {.subject = SLICE_LIT("echo"),
                                       .payload = slice_of(payload, sizeof(payload))};
        for (int i = 0; i < 64 && sent < MESSAGES && sent - received < 1024; i++, sent++) {
            assert_int_equal(bus_publish(bus, &message).code, E_OK);
        }
        struct bus_message *got = bus_wait_item(&inbox, WAIT_MS);
        assert_non_null(got);
        assert_int_equal(got->payload.size, SIZE);
        bus_message_free(got);
        received++;
    }
    bus_unsubscribe(bus, sub);
    bus_close(bus);
    queue_free(&inbox, bus_message_drop);
}

static void comes_back_with_its_subscriptions(void **state)
{
    struct fixture *f = *state;
    struct queue inbox;
    struct bus_subscription *sub = NULL;
    char urls[TEXT];
    assert_int_equal(queue_init(&inbox, 64, NULL, NULL).code, E_OK);
    /* The first of them is nobody: it goes on to the next. */
    (void)snprintf(urls, sizeof(urls), "nats://127.0.0.1:1,%s", f->server.url);
    struct bus *bus = open_bus(f, urls);
    assert_int_equal(
        bus_subscribe(bus, SLICE_LIT("hint"), (struct slice){0}, &inbox, NULL, &sub).code, E_OK);
    assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
    for (int i = 0; i < 2; i++) {
        nats_server_kill(&f->server);
        while (bus_down_ms(bus) == 0) { /* ends: the socket closes at once. */
            assert_in_range(bus_wait_connected(bus, 1).code, 0, E_COUNT);
        }
        nats_server_start(&f->server);
        assert_int_equal(bus_wait_connected(bus, WAIT_MS).code, E_OK);
        struct bus_outgoing message = {.subject = SLICE_LIT("hint"), .payload = SLICE_LIT("x")};
        assert_int_equal(bus_publish(bus, &message).code, E_OK);
        struct bus_message *got = bus_wait_item(&inbox, WAIT_MS);
        assert_non_null(got);
        bus_message_free(got);
    }
    bus_unsubscribe(bus, sub);
    bus_close(bus);
    queue_free(&inbox, bus_message_drop);
}

/* A publish that was made right before the end arrives. */
static void what_was_sent_before_the_end_arrives(void **state)
{
    struct fixture *f = *state;
    struct queue inbox;
    struct bus_subscription *sub = NULL;
    assert_int_equal(queue_init(&inbox, limits.bus_queue, NULL, NULL).code, E_OK);
    struct bus *reader = open_bus(f, f->server.url);
    assert_int_equal(
        bus_subscribe(reader, SLICE_LIT("last"), (struct slice){0}, &inbox, NULL, &sub).code, E_OK);
    assert_int_equal(bus_wait_connected(reader, WAIT_MS).code, E_OK);
    struct bus *writer = open_bus(f, f->server.url);
    assert_int_equal(bus_wait_connected(writer, WAIT_MS).code, E_OK);
    const struct bus_outgoing probe = {.subject = SLICE_LIT("last"), .payload = SLICE_LIT("p")};
    struct bus_message *heard = NULL;
    while (heard == NULL) { /* until the server knows of the subscription. */
        assert_int_equal(bus_publish(reader, &probe).code, E_OK);
        heard = bus_wait_item(&inbox, /* timeout_ms= */ 200);
    }
    bus_message_free(heard);
    for (int i = 0; i < 1000; i++) {
        struct bus_outgoing message = {.subject = SLICE_LIT("last"), .payload = SLICE_LIT("x")};
        assert_int_equal(bus_publish(writer, &message).code, E_OK);
    }
    bus_close(writer);
    for (int i = 0; i < 1000; i++) {
        struct bus_message *got = bus_wait_item(&inbox, WAIT_MS);
        assert_non_null(got);
        bus_message_free(got);
    }
    bus_unsubscribe(reader, sub);
    bus_close(reader);
    queue_free(&inbox, bus_message_drop);
}

/* Until the bus has said why it does not connect. */
static void expect_refused(const struct bus_config *config, const char *why)
{
    struct bus *bus = NULL;
    char text[BUS_ERROR_TEXT_MAX] = "";
    assert_int_equal(bus_open(config, &bus).code, E_OK);
    for (int i = 0; i < WAIT_MS / LOOK_MS && text[0] == '\0'; i++) {
        assert_int_equal(bus_wait_connected(bus, LOOK_MS).code, E_TIMEOUT);
        bus_last_error(bus, text);
    }
    if (strstr(text, why) == NULL) {
        print_message("\"%s\" is not in \"%s\"\n", why, text);
    }
    assert_non_null(strstr(text, why));
    bus_close(bus);
}

static void says_why_it_does_not_connect(void **state)
{
    struct fixture *f = *state;
    struct bus_config config = {.urls = f->server.url, .tls_ca = f->certs.ca_file};
    expect_refused(&config, "certificate");
    config.tls_ca = f->strangers.ca_file;
    expect_refused(&config, "TLS handshake: certificate");
    config.tls_ca = "/nowhere/ca.pem";
    expect_refused(&config, "/nowhere/ca.pem: cannot be read");
    config.tls_ca = f->certs.ca_file;
    config.urls = "nats://127.0.0.1:1";
    expect_refused(&config, "127.0.0.1:1 cannot be reached");
    /* The system's CAs know nothing of ours. */
    char url[TEXT];
    (void)snprintf(url, sizeof(url), "tls://127.0.0.1:%u", f->server.port);
    expect_refused(&(struct bus_config){.urls = url}, "TLS handshake");
}

static void talks_to_nobody_else(void **state)
{
    struct fixture *f = *state;
    struct nats_server other;
    char block[TEXT];
    tls_block(&f->certs, &f->elsewhere_file, /* verify= */ false, block);
    nats_server_init(&other, block);
    nats_server_start(&other);
    struct bus_config config = {.urls = other.url, .tls_ca = f->certs.ca_file};
    expect_refused(&config, "IP address mismatch");
    /* In clear, to a server that asks for TLS: not followed, though nats.c would. */
    expect_refused(&(struct bus_config){.urls = other.url}, "");
    nats_server_kill(&other);
    /* Under TLS, to one that speaks in clear. */
    nats_server_configure(&other, NULL);
    nats_server_start(&other);
    expect_refused(&config, "TLS handshake");
    nats_server_free(&other);
}

static int connect_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0 ? fd : -1;
}

/* On a terminal OpenSSL would ask for the passphrase of a key, at each connection. */
static void nobody_is_asked_for_a_passphrase(void **state)
{
    struct fixture *f = *state;
    char said[64];
    int terminal = -1;
    int status = 0;
    struct certs_file locked =
        certs_issue_locked(&f->certs, "locked", &(struct certs_leaf){.san = "DNS:client"});
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(pid >= 0);
    if (pid == 0) {
        char why[TEXT];
        char port[8];
        struct relay *relay = NULL;
        (void)snprintf(port, sizeof(port), "%u", f->server.port);
        struct relay_config config = {.host = "127.0.0.1",
                                      .port = port,
                                      .ca = f->certs.ca_file,
                                      .cert = locked.path,
                                      .key = locked.path};
        _exit(relay_open(&config, WAIT_MS, &relay, why, sizeof(why)).code == E_CRYPTO ? 0 : 1);
    }
    ssize_t size = read(terminal, said, sizeof(said)); /* an error: it ended without a word. */
    assert_int_equal(close(terminal), 0);              /* hangs up. */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(size <= 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Any user of the machine can connect to loopback: only this process may use the session. */
static void a_relay_is_for_its_own_process(void **state)
{
    struct fixture *f = *state;
    struct relay *relay = NULL;
    char why[BUS_ERROR_TEXT_MAX] = "";
    char port[8];
    char first[6] = "";
    (void)snprintf(port, sizeof(port), "%u", f->server.port);
    struct relay_config config = {.host = "127.0.0.1",
                                  .port = port,
                                  .ca = f->certs.ca_file,
                                  .cert = f->client_file.path,
                                  .key = f->client_file.path};
    assert_int_equal(relay_open(&config, WAIT_MS, &relay, why, sizeof(why)).code, E_OK);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { /* a stranger: what it gets is the end. */
        int fd = connect_to(relay_port(relay));
        char byte = 0;
        _exit(fd >= 0 && recv(fd, &byte, 1, 0) <= 0 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    auto_close int fd = connect_to(relay_port(relay));
    assert_true(fd >= 0);
    assert_int_equal(recv(fd, first, 5, MSG_WAITALL), 5);
    assert_string_equal(first, "INFO ");
    relay_close(relay, NULL, 0);
    relay_close(NULL, NULL, 0);
}

static void exposure(const struct bus_config *config, const char *why)
{
    struct bus *bus = NULL;
    assert_int_equal(bus_open(config, &bus).code, E_OK);
    if (why == NULL) {
        assert_null(bus_exposure(bus));
    } else {
        assert_non_null(bus_exposure(bus));
        assert_non_null(strstr(bus_exposure(bus), why));
    }
    bus_close(bus);
}

static void says_what_others_could_do(void **state)
{
    struct fixture *f = *state;
    const char *ca = f->certs.ca_file;
    exposure(&(struct bus_config){.urls = "nats://127.0.0.1:1,nats://[::1]:1"}, NULL);
    exposure(&(struct bus_config){.urls = "nats://127.0.0.1:1,nats://u:p@192.0.2.1:1"}, "clear");
    exposure(&(struct bus_config){.urls = "nats://192.0.2.1:1", .tls_ca = ca}, "credential");
    exposure(&(struct bus_config){.urls = "tls://u:p@192.0.2.1:1"}, NULL);
    exposure(&(struct bus_config){.urls = "tls://u:p@192.0.2.1:1,tls://192.0.2.2:1"}, "credential");
    exposure(&(struct bus_config){.urls = "nats://192.0.2.1:1",
                                  .tls_ca = ca,
                                  .tls_cert = f->client_file.path,
                                  .tls_key = f->client_file.path},
             NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(carries_large_values_both_ways),
        cmocka_unit_test(reads_and_writes_at_once),
        cmocka_unit_test(comes_back_with_its_subscriptions),
        cmocka_unit_test(what_was_sent_before_the_end_arrives),
        cmocka_unit_test(says_why_it_does_not_connect),
        cmocka_unit_test(talks_to_nobody_else),
        cmocka_unit_test(nobody_is_asked_for_a_passphrase),
        cmocka_unit_test(a_relay_is_for_its_own_process),
        cmocka_unit_test(says_what_others_could_do),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
