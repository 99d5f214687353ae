"""intruder: somebody who stole the NATS password of an administrator, but no key of the publisher.

A few lines of the NATS client protocol; while it runs, every chunk (or what else 'keys' names)
that is put into the snapshot bucket is overwritten at once by other bytes of the same size, also when the leader repairs it.
"""

import json
import re
import socket
import threading

ANSWER_S = 30


class Intruder:
    def __init__(self, port, environment, user="admin", password="admin-secret", keys="chunk.>"):
        self.bucket = "$KV.trilane_%s_snapshots" % environment
        self.overwritten = 0
        self._sending = threading.Lock()
        self._broken = {}  # subject to the bytes that were put there.
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        self._file.readline()  # INFO
        self._send(b"CONNECT " + json.dumps({
            "user": user, "pass": password, "verbose": False, "headers": True,
            "name": "intruder"}).encode())
        self._send(b"SUB %s.%s 1" % (self.bucket.encode(), keys.encode()))
        self._send(b"PING")
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(ANSWER_S), "NATS does not answer the intruder"

    def catch_up(self):
        """Until the server has what is put in the place of all that was put by now: by the first
        answer it was seen, by the second one what was sent for it is there."""
        for _ in range(2):
            self._ready.clear()
            self._send(b"PING")
            assert self._ready.wait(ANSWER_S), "NATS does not answer the intruder"

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, line):
        with self._sending:
            self._socket.sendall(line + b"\r\n")

    def _run(self):
        try:
            while self._one(self._file.readline()):
                pass
        except OSError:
            pass

    def _one(self, line):
        if line.startswith(b"PONG"):
            self._ready.set()
        elif line.startswith(b"PING"):
            self._send(b"PONG")
        elif re.match(rb"H?MSG ", line):
            words = line.split()
            payload = self._file.read(int(words[-1]) + 2)[:-2]
            head = int(words[-2]) if line.startswith(b"H") else 0
            self._overwrite(words[1], payload[head:])
        return bool(line)

    def _overwrite(self, subject, chunk):
        if not chunk or self._broken.get(subject) == chunk:
            return  # what is seen here is the intruder's own message.
        self._broken[subject] = broken = bytes([chunk[0] ^ 0xff]) + chunk[1:]
        self._send(b"PUB %s %d\r\n%s" % (subject, len(broken), broken))
        self.overwritten += 1
