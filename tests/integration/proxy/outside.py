"""The outside world of the proxy tests, on loopback: a web server that also lies, a name server
whose answers change, and sources that allow what they should."""

import hashlib
import json
import socket
import ssl
import struct
import threading
import urllib.parse

TOKENS = {"web": "web-token-0123456789abcdef",
          "stranger": "stranger-token-0123456789abcdef", "other": "other-token-0123456789abcdef"}


class Origin:
    """A web server that says exactly what a test wants; it counts connections and keeps heads."""

    def __init__(self, address="127.0.0.1", port=0, tls=None):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.create_server((address, port), family=family)
        self.port = self.socket.getsockname()[1]
        self.tls = tls
        self.connections = 0
        self.heads = []
        self.closed = threading.Event()
        self.gone = threading.Event()  # set when a caller of /public/hang left.
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self.closed.set()
        self.socket.close()

    def _accept(self):
        while not self.closed.is_set():
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            if self.tls:
                conn = self.tls.wrap_socket(conn, server_side=True)
            with conn, conn.makefile("rb") as stream:
                while self._one(conn, stream):
                    pass
                if self.tls:
                    conn.unwrap()
        except (OSError, ValueError):
            pass

    def _one(self, conn, stream):
        line = stream.readline()
        if not line.strip():
            return False
        headers = []
        while True:
            field = stream.readline().rstrip(b"\r\n")
            if not field:
                break
            name, _, value = field.partition(b":")
            headers.append((name.decode().lower(), value.strip().decode()))
        method, target, _ = line.decode().split(" ")
        self.heads.append((method, target, headers))
        path, _, query = target.partition("?")
        arguments = {k: v[0] for k, v in urllib.parse.parse_qs(query).items()}
        act = getattr(self, "do_" + path.rsplit("/", 1)[-1].replace(".", "_"), None)
        if act is None:
            conn.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return False
        return act(conn, stream, method, target, headers, arguments)

    @staticmethod
    def read_body(stream, headers):
        """Yields the pieces of a request's body."""
        fields = dict(headers)
        if fields.get("transfer-encoding") == "chunked":
            while True:
                size = int(stream.readline().split(b";")[0], 16)
                if size == 0:
                    while stream.readline().strip():
                        pass
                    return
                yield stream.read(size)
                stream.readline()
        left = int(fields.get("content-length", "0"))
        while left > 0:
            piece = stream.read(min(left, 65536))
            if not piece:
                raise ValueError("the body is cut off")
            left -= len(piece)
            yield piece

    def do_echo(self, conn, stream, method, target, headers, _):
        digest, size = hashlib.sha256(), 0
        for piece in self.read_body(stream, headers):
            digest.update(piece)
            size += len(piece)
        body = json.dumps({"method": method, "target": target, "headers": headers, "size": size,
                           "sha256": digest.hexdigest()}).encode()
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) +
                     (b"" if method == "HEAD" else body))
        return False

    def do_slow(self, conn, stream, method, target, headers, arguments):
        """Reads the body only when 'gate' was opened by the test."""
        self.gate.wait(60)
        return self.do_echo(conn, stream, method, target, headers, arguments)

    gate = threading.Event()

    def do_bytes(self, conn, _stream, _method, _target, _headers, arguments):
        left = int(arguments["n"])
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % left)
        while left > 0:
            piece = b"x" * min(left, 65536)
            conn.sendall(piece)
            left -= len(piece)
        return False

    def do_chunked(self, conn, _stream, _method, _target, _headers, arguments):
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")
        for i in range(int(arguments["n"])):
            piece = b"%d," % i
            conn.sendall(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
        conn.sendall(b"0\r\nX-Sum: done\r\n\r\n")
        return False

    def do_until_close(self, conn, *_):
        conn.sendall(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        return False

    def do_short(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
        return False

    def do_long(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n01234HTTP/1.1 200 OK\r\n\r\n")
        return False

    def do_cut_chunk(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
        return False

    def do_silent(self, conn, *_):
        return False

    def do_garbage(self, conn, *_):
        conn.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        return False

    def do_two_framings(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"0\r\n\r\n")
        return False

    def do_two_lengths(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n012345")
        return False

    def do_upgrade(self, conn, *_):
        conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n"
                     b"Connection: upgrade\r\n\r\n")
        return False

    def do_big_head(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * (40 << 10) + b"\r\n\r\n")
        return False

    def do_interim(self, conn, *_):
        conn.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                     b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return False

    def do_interims(self, conn, *_):
        conn.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        return False

    def do_redirect(self, conn, *_):
        conn.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://10.1.2.3/secret\r\n"
                     b"Content-Length: 0\r\n\r\n")
        return False

    def do_204(self, conn, *_):
        conn.sendall(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")
        return False

    def do_304(self, conn, *_):
        conn.sendall(b"HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\nContent-Length: 77\r\n\r\n")
        return False

    def do_pretend(self, conn, *_):
        conn.sendall(b"HTTP/1.1 200 OK\r\nX-Trilane-Code: POLICY_DENIED\r\nX-Hop: 1\r\n"
                     b"Connection: x-hop\r\nKeep-Alive: timeout=5\r\n"
                     b"Proxy-Authenticate: Basic\r\nX-Kept: yes\r\nContent-Length: 0\r\n\r\n")
        return False

    def do_hang(self, conn, *_):
        try:
            while conn.recv(1024):
                pass
        finally:
            self.gone.set()
        return False


class Names:
    """A name server on loopback: A and AAAA by name. A list of lists answers one after another,
    and the last for ever."""

    def __init__(self, names, ttl=0):
        self.ttl = ttl
        self.names = {name: list(answers) for name, answers in names.items()}
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        said = {}  # who asks again, since our answer took its time, hears the same.
        while True:
            try:
                query, peer = self.socket.recvfrom(4096)
                said[query] = said.get(query) or self._answer(query)
                self.socket.sendto(said[query], peer)
            except OSError:
                return

    def stop(self):
        self.socket.close()

    def _addresses(self, name, kind):
        answers = self.names.get(name)
        if answers is None:
            return None
        if answers and isinstance(answers[0], list):
            answers = answers[0] if kind == 28 or len(answers) == 1 else answers.pop(0)
        family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
        return [socket.inet_pton(family, a) for a in answers
                if family and (":" in a) == (family == socket.AF_INET6)]

    def _answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        name = ".".join(labels)
        self.asked.append((name, kind))
        found = self._addresses(name, kind)
        flags = 0x8180 if found is not None else 0x8183
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, self.ttl, len(a)) + a
                           for a in found or [])
        return (query[:2] + struct.pack(">HHHHH", flags, 1, len(found or []), 0, 0) +
                query[12:at + 5] + records)


def digest(token):
    return "blake2b:" + hashlib.blake2b(token.encode(), digest_size=32).hexdigest()


def _service(name, tenant):
    return """
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: %s, tenant: %s}
spec: {tokens: ["%s"]}
---""" % (name, tenant, digest(TOKENS[name]))


def _egress(name, hosts, ports, more="", transport="outside"):
    return """
apiVersion: trilane.dev/v1
kind: Egress
metadata: {name: %s, tenant: acme}
spec: {hosts: [%s], ports: [%s], transport: %s%s}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: %s, tenant: acme}
spec:
  target: {egress: %s}
  rules:
    - {name: web, effect: allow, verbs: [fetch], callers: [{service: web}]}
    - {name: no-deletes, effect: deny, methods: [DELETE]}
---""" % (name, ", ".join("'%s'" % h for h in hosts), ", ".join(str(p) for p in ports), transport,
          more, name, name)


LOOPBACK = ", addressRanges: [127.0.0.0/8, '::1/128']"


def platform_yaml(ports, idle="30s", ranges=LOOPBACK):
    """web may; stranger has no rule; other is of another tenant, with no Egress."""
    methods = ", methods: [GET, HEAD, POST, PUT, DELETE, CONNECT]"
    return """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: dev}
spec: {security: dev, trustDomain: trilane.test}
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: outside}
spec: {timeout: 60s, connectTimeout: 5s, idleTimeout: %s}
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: inside}
spec:
  timeout: 60s
  upstream: {tls: mtls, spiffe: "spiffe://trilane.test/tenant/acme/service/origin"}
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: limited, tenant: acme}
spec: {target: {egress: limited}, by: [caller], rate: 1/m, burst: 2}
---""" % idle + "".join(
        [_service("web", "acme"), _service("stranger", "acme"),
         _service("other", "globex"),
         _egress("origin", ["127.0.0.1", "::1", "origin.test", "rebind.test", "mixed.test",
                            "mapped.test", "two.test"], ports,
                 methods + ", paths: [/public], response: 16MiB" + ranges),
         _egress("tls", ["localhost"], ports, methods + ranges),
         _egress("inside", ["inside.test"], ports, ranges, transport="inside"),
         _egress("limited", ["limited.test"], ports, ranges),
         _egress("guarded", ["10.1.2.3", "169.254.169.254", "*.guarded.test", "64:ff9b::a01:203"],
                 ports, methods)]).rstrip("-\n") + "\n"
