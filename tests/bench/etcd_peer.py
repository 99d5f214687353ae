"""etcd's watch fan-out: one key changes, so many watchers hear of it.

One etcd on this machine, its log synced as it is by default; each watcher has a connection of its own
to the JSON gateway, and reads raw bytes: no client library is in the time. Nothing is verified,
built, persisted or swapped by who hears of the change.
"""

import base64
import contextlib
import http.client
import json
import selectors
import socket
import time

import bench
import trilane

KEY = base64.b64encode(b"trilane/bench").decode()


class Watchers:
    """So many streams of POST /v3/watch; when each last heard something."""

    def __init__(self, port, count):
        self.selector = selectors.DefaultSelector()
        body = json.dumps({"create_request": {"key": KEY}}).encode()
        request = (b"POST /v3/watch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body)) + body
        for _ in range(count):
            stream = socket.create_connection(("127.0.0.1", port), 5)
            stream.sendall(request)
            self.selector.register(stream, selectors.EVENT_READ)
        self.count = count

    def hear(self, what, timeout=10):
        """Until each has read 'what'; the ns at which each had it."""
        heard, text = {}, {}
        end = time.monotonic() + timeout
        while len(heard) < self.count:
            assert time.monotonic() < end, "%d of %d watchers" % (len(heard), self.count)
            for key, _ in self.selector.select(1):
                text[key.fd] = text.get(key.fd, b"") + key.fileobj.recv(65536)
                if what in text[key.fd] and key.fd not in heard:
                    heard[key.fd] = time.monotonic_ns()
        return list(heard.values())

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


def put(connection, value):
    connection.request("POST", "/v3/kv/put", json.dumps(
        {"key": KEY, "value": base64.b64encode(value).decode()}))
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body


def measure(directory, watchers, changes, value_bytes):
    """[live_ms] from a put's first byte to the last watcher that read it."""
    port, peer = trilane.free_port(), trilane.free_port()
    url, peer_url = ("http://127.0.0.1:%d" % p for p in (port, peer))
    rows = []
    with contextlib.ExitStack() as stack:
        process = trilane.Process("etcd", directory / "etcd", [
            "etcd", "--name", "one", "--data-dir", directory / "etcd" / "data",
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", "one=" + peer_url])
        bench.start(stack, process, port)
        trilane.wait_until(lambda: trilane.http("GET", url + "/health")[0] == 200, what="etcd")
        streams = Watchers(port, watchers)
        stack.callback(streams.close)
        streams.hear(b'"created":true')
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        stack.callback(connection.close)
        for change in range(changes):
            bench.rest()
            start_ns = time.monotonic_ns()
            put(connection, b"%06d" % change + bytes(value_bytes))
            mark = base64.b64encode(b"%06d" % change)
            rows.append({"live_ms": (max(streams.hear(mark)) - start_ns) / 1e6})
    return rows
