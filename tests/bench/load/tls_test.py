"""Generator, echo server and handshakes under mutual TLS: what they verify, and what they count."""

import contextlib
import json
import pathlib
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import trilane

LOAD = str(trilane.BUILD / "bench-load")
ECHO = str(trilane.BUILD / "bench-echo")
HANDSHAKES = str(trilane.BUILD / "bench-handshakes")


def load(port, *flags, code=0, **options):
    settings = dict({"connections": 2, "streams": 8, "rate": 500, "warmup-ms": 100,
                     "duration-ms": 500, "body-bytes": 100},
                    **{name.replace("_", "-"): value for name, value in options.items()})
    argv = [LOAD, "--port", str(port), "--path", "/test.Echo/Say", *flags]
    for name, value in settings.items():
        argv += ["--" + name, str(value)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, "%r: exit %d\n%s%s" % (argv, done.returncode, done.stdout,
                                                           done.stderr)
    return json.loads(done.stdout) if done.stdout else {}


def handshakes(port, p, client, count, kind, code=0):
    argv = [HANDSHAKES, str(port), str(p.ca), client["cert"], client["key"], str(count), kind]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if done.stdout else {}


def flags_of(p, client):
    return ("--tls-ca", str(p.ca), "--tls-cert", client["cert"], "--tls-key", client["key"])


@contextlib.contextmanager
def echo(*words):
    port = trilane.free_port()
    with tempfile.TemporaryDirectory() as directory:
        process = trilane.Process("echo", pathlib.Path(directory), [ECHO, str(port), *words])
        process.spawn()
        try:
            trilane.wait_until(
                lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None,
                what="bench-echo")
            yield port
        finally:
            process.stop()


def answers_come_under_tls(p, server, client):
    with echo("tls", server["cert"], server["key"], str(p.ca)) as port:
        got = load(port, *flags_of(p, client))
        assert got["answers"] == 250 and got["errors"] == 0, got
        # Records that fill the reader's buffer more than once, and windows that fill up.
        got = load(port, *flags_of(p, client), body_bytes=300000, rate=40)
        assert got["answers"] == 20 and got["errors"] == 0, got


def both_sides_verify(p, server, client):
    with echo("tls", server["cert"], server["key"], str(p.ca)) as port:
        load(port, "--tls-ca", str(p.ca), code=1)  # who shows no certificate is let go.
        load(port, code=1)  # in clear.
    with trilane.Platform(nats=False) as other:
        stranger = other.issue_service("acme", "web")
        with echo("tls", server["cert"], server["key"], str(p.ca)) as port:
            load(port, *flags_of(p, stranger), code=1)
            load(port, *flags_of(other, client), code=1)
    elsewhere = issue(p, "elsewhere", "ip:127.0.0.2")
    with echo("tls", elsewhere["cert"], elsewhere["key"], str(p.ca)) as port:
        load(port, *flags_of(p, client), code=1)


def issue(p, name, san):
    p.command("identity", "issue", "--ca", p.identities, "--service", "acme/" + name, "--san", san,
              "--out", p.identities)
    base = str(p.identities / ("acme-" + name))
    return {"cert": base + ".pem", "key": base + ".key"}


def what_cannot_be_read_is_said(p, client):
    load(1, "--tls-ca", "/nonexistent", code=2)
    load(1, "--tls-ca", str(p.ca), "--tls-cert", client["cert"], code=2)  # no key.
    load(1, "--tls-cert", client["cert"], "--tls-key", client["key"], code=2)  # no CA.
    done = subprocess.run([ECHO, "1", "tls", "/nonexistent", client["key"], str(p.ca)],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "wire: " in done.stderr, done


def handshakes_are_of_the_kind_that_was_asked_for(p, server, client):
    with echo("tls", server["cert"], server["key"], str(p.ca)) as port:
        assert handshakes(port, p, client, 20, "full")["handshakes"] == 20
        assert handshakes(port, p, client, 20, "resumed")["handshakes"] == 20
    handshakes(trilane.free_port(), p, client, 1, "full", code=1)  # nobody listens.
    with forgetful(server) as port:
        handshakes(port, p, client, 2, "full")
        handshakes(port, p, client, 2, "resumed", code=1)


@contextlib.contextmanager
def forgetful(server):
    """A TLS server that gives no tickets and says an empty SETTINGS frame."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server["cert"], server["key"])
    context.set_alpn_protocols(["h2"])
    context.num_tickets = 0
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with contextlib.suppress(OSError), \
                        context.wrap_socket(raw, server_side=True) as each:
                    each.sendall(b"\0\0\0\4\0\0\0\0\0")
                    while each.recv(65536):
                        pass
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def held_connections_stay(p, server, client):
    """After its result the generator keeps its connections, until it is told to end."""
    with echo("tls", server["cert"], server["key"], str(p.ca)) as port:
        argv = [LOAD, "--port", str(port), "--path", "/test.Echo/Say", "--hold", "--rate", "100",
                "--connections", "5", "--warmup-ms", "0", "--duration-ms", "100",
                *flags_of(p, client)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as held:
            assert json.loads(held.stdout.readline())["answers"] == 10

            def connections():
                out = subprocess.run(["ss", "-Htn", "state", "established", "sport", "=",
                                      ":%d" % port], capture_output=True, text=True, check=True)
                return len(out.stdout.splitlines())
            assert connections() == 5 and held.poll() is None
            held.send_signal(signal.SIGTERM)
            assert held.wait(timeout=30) == 0
            trilane.wait_until(lambda: connections() == 0, what="the connections to end")


def main():
    with trilane.Platform(nats=False) as p:
        server, client = p.issue_service("acme", "echo"), p.issue_service("acme", "web")
        for check, arguments in ((answers_come_under_tls, (p, server, client)),
                                 (both_sides_verify, (p, server, client)),
                                 (what_cannot_be_read_is_said, (p, client)),
                                 (handshakes_are_of_the_kind_that_was_asked_for,
                                  (p, server, client)),
                                 (held_connections_stay, (p, server, client))):
            start = time.monotonic()
            check(*arguments)
            print("%s: %.1f s" % (check.__name__, time.monotonic() - start), flush=True)


if __name__ == "__main__":
    main()
