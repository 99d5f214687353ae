"""NATS' own protocol, just enough to look at streams without any code of Trilane."""

import base64
import json
import socket
import urllib.parse


class RawNats:
    """One connection; requests are answered one at a time."""

    def __init__(self, url):
        parts = urllib.parse.urlparse(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), 10)
        self.file = self.socket.makefile("rb")
        assert self.file.readline().startswith(b"INFO")
        self._send(b"CONNECT " + json.dumps({
            "user": parts.username, "pass": parts.password, "verbose": False, "headers": True,
            "no_responders": True, "protocol": 1}).encode())
        self._send(b"SUB _INBOX.raw.* 1")
        self.count = 0

    def close(self):
        self.file.close()
        self.socket.close()

    def _send(self, line, *parts):
        self.socket.sendall(b"\r\n".join((line,) + parts) + b"\r\n")

    def _next(self):
        """The next message: (subject, payload)."""
        while True:
            words = self.file.readline().split()
            if not words:
                raise OSError("NATS closed the connection")
            if words[0] == b"PING":
                self._send(b"PONG")
            elif words[0] in (b"MSG", b"HMSG"):
                head = int(words[-2]) if words[0] == b"HMSG" else 0
                body = self.file.read(int(words[-1]) + 2)[:-2]
                return words[1].decode(), body[head:]

    def request(self, subject, payload=b"", headers=None):
        self.count += 1
        inbox = "_INBOX.raw.%d" % self.count
        if headers is None:
            self._send(("PUB %s %s %d" % (subject, inbox, len(payload))).encode(), payload)
        else:
            head = "NATS/1.0\r\n" + "".join("%s: %s\r\n" % h for h in headers) + "\r\n"
            self._send(("HPUB %s %s %d %d" % (subject, inbox, len(head),
                                              len(head) + len(payload))).encode(),
                       head.encode() + payload)
        while True:
            got, answer = self._next()
            if got == inbox:
                return answer

    def api(self, subject, body=None):
        return json.loads(self.request("$JS.API." + subject,
                                       json.dumps(body).encode() if body else b""))

    def publish(self, subject, payload, headers):
        """Into a stream; its answer."""
        return json.loads(self.request(subject, payload, headers))

    def stream(self, name):
        return self.api("STREAM.INFO." + name)

    def last(self, stream):
        return self.stream(stream)["state"]["last_seq"]

    def message(self, stream, sequence):
        """(subject, {header: value}, payload) of a stored message."""
        answer = self.api("STREAM.MSG.GET." + stream, {"seq": sequence})
        message = answer["message"]
        head = base64.b64decode(message.get("hdrs", "")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)
        return message["subject"], headers, base64.b64decode(message.get("data", ""))

    def consumers(self, stream):
        return self.api("CONSUMER.LIST." + stream, {"offset": 0}).get("consumers") or []
