"""What is refused before there is a request of it: each answer, of every front, has an id, and the
node says by it what was refused."""

import json
import socket
import subprocess
import unittest

import echo_service as echo
import raw_h2
import trilane
import web_client as web

SERVICE = "/trilane.test.v1.Echo/"
STREAMS = 4
EVIL = "https://evil.example"
PREFLIGHT = [("origin", EVIL), ("access-control-request-method", "POST")]


class Early(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.server = echo.Server("a")
        cls.addClassCleanup(cls.server.stop)
        cp = cls.platform.control_plane().start()
        cls.node = cls.platform.node("node-1", streams_per_connection=STREAMS).start()
        cp("publish", "-m", "test", cls.platform.write_policies(
            {"platform.yaml": echo.platform_yaml([cls.server.port])}))
        trilane.wait_until(lambda: cls.node.version() > 0, what="the node to serve it")

    def trace(self, *arguments):
        done = subprocess.run(
            [trilane.DP, "trace", *arguments, "--output=json",
             "--server=" + self.node.admin.removeprefix("http://")],
            capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    def expect(self, fields, code, method, **more):
        """What the caller was told leads to what was refused."""
        self.assertEqual(fields["x-trilane-code"], code)
        found = self.trace(fields["x-trilane-explain"])
        self.assertEqual((found["code"], found.get("method")), (code, method))
        self.assertTrue(found["peer"].startswith("127.0.0.1:"), found)
        for name, value in more.items():
            self.assertEqual(found.get(name), value, name)

    # ---- HTTP/1.1 ----

    def raw(self, request, port="listen"):
        """Status, fields and body of the answer to these bytes."""
        with socket.create_connection(("127.0.0.1", self.node.ports[port]), 60) as sock:
            sock.sendall(request)
            got = b""
            while b"\r\n\r\n" not in got:
                more = sock.recv(65536)
                self.assertTrue(more, got)
                got += more
            head, _, body = got.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines[1:])
            while len(body) < int(fields["content-length"]):
                body += sock.recv(65536)
        return int(lines[0].split()[1]), fields, body

    def test_bytes_that_are_no_request(self):
        for port in ("listen", "listen-proxy"):
            for request, status, code in (
                    (b"GET / HTTP/1.1\r\n\r\n", 400, "PROTOCOL_ERROR"),
                    (b"GET / HTTP/2.5\r\nHost: x\r\n\r\n", 505, "HTTP_VERSION"),
                    (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 40000, 431, "HEADERS_TOO_LARGE"),
                    (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501,
                     "UNSUPPORTED")):
                got, fields, body = self.raw(request, port)
                self.assertEqual(got, status)
                self.expect(fields, code, None, http=status, grpc=None,
                            version=int(fields["x-trilane-version"]))
                self.assertEqual(json.loads(body)["explain"], fields["x-trilane-explain"])

    def test_what_is_broken_behind_a_head(self):
        """The call is there: its own id is told."""
        got, fields, body = self.raw((
            "POST %sSay HTTP/1.1\r\nhost: echo.test\r\ncontent-type: %s\r\n"
            "authorization: Bearer web-token\r\ntransfer-encoding: chunked\r\n\r\nno number\r\n"
            % (SERVICE, web.BINARY)).encode())
        self.assertEqual((got, json.loads(body)["explain"]), (400, fields["x-trilane-explain"]))
        self.expect(fields, "MALFORMED", SERVICE + "Say", http=400, caller="acme/web")

    def test_what_is_no_call(self):
        with web.Client(self.node.ports["listen"]) as client:
            for method, path, fields, status, code in (
                    ("GET", "/some/where?a=b", {}, 505, "HTTP_VERSION"),
                    ("PUT", SERVICE + "Say", {"content-type": web.BINARY}, 405,
                     "METHOD_NOT_ALLOWED"),
                    ("OPTIONS", SERVICE + "Say", PREFLIGHT, 403, "ORIGIN_DENIED")):
                answer = client.ask(method, path, fields)
                self.assertEqual(answer.status, status)
                self.expect(answer.headers, code, path.split("?")[0], http=status)
            answer = client.call("/no.Such-name/Call", b"")
            self.expect(answer.headers, "NO_ROUTE", "/no.Such-name/Call", grpc=12)

    def test_handshakes_of_websockets(self):
        upgrade = (b"GET %sChat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
                   b"upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                   b"sec-websocket-protocol: grpc-websockets\r\n" % SERVICE.encode())
        for rest, status, code in (
                (b"sec-websocket-version: 12\r\ncontent-length: 0\r\n", 426, "UNSUPPORTED"),
                (b"", 400, "MALFORMED"),
                (b"sec-websocket-version: 13\r\norigin: %s\r\n" % EVIL.encode(), 403,
                 "ORIGIN_DENIED")):
            got, fields, _ = self.raw(upgrade + rest + b"\r\n")
            self.assertEqual(got, status)
            self.expect(fields, code, SERVICE + "Chat", http=status)

    # ---- HTTP/2 ----

    def ask(self, fields):
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            stream = caller.h2.get_next_available_stream_id()
            whole = dict({":method": "POST", ":scheme": "http", ":authority": "echo.test",
                          ":path": SERVICE + "Say"}, **fields)
            caller.h2.send_headers(stream, list(whole.items()), end_stream=True)
            caller.flush()
            caller.answers[stream] = raw_h2.Answer()
            return caller.wait(stream).headers

    def test_over_http2(self):
        much = {"x-%d" % i: "y" * 1000 for i in range(40)}
        rpc = {"content-type": "application/grpc", "te": "trailers"}
        for fields, code, status in (
                ({}, "CONTENT_TYPE", "415"),
                (dict(rpc, **{":method": "PUT"}), "METHOD_NOT_ALLOWED", "405"),
                ({"content-type": "application/grpc"}, "PROTOCOL_ERROR", "200"),
                (dict(rpc, **much), "HEADERS_TOO_LARGE", "200"),
                (much, "HEADERS_TOO_LARGE", "431"),
                ({":method": "OPTIONS", **dict(PREFLIGHT)}, "ORIGIN_DENIED", "403"),
                ({"content-type": web.BINARY, "origin": EVIL}, "ORIGIN_DENIED", "200"),
                (dict(rpc, **{":path": "/grpc.health.v1.Health/Guess"}), "NO_ROUTE", "200")):
            with self.subTest(code=code, status=status):
                answer = self.ask(fields)
                self.assertEqual(answer[":status"], status)
                self.expect(answer, code, fields.get(":path", SERVICE + "Say"), http=int(status))

    def test_streams_that_are_too_many(self):
        """A reset tells nothing: the refusal is among the latest."""
        def refusals():
            return [r for r in self.trace()["refusals"] if r["code"] == "OVERLOADED"]
        self.assertEqual(refusals(), [])
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            for _ in range(STREAMS + 1):
                last = caller.start(SERVICE + "Chat", echo.token("web"), flush=False)
            caller.flush()
            self.assertEqual(caller.wait(last).reset, 7)
        found, = refusals()
        self.assertTrue(found["peer"].startswith("127.0.0.1:"))


if __name__ == "__main__":
    unittest.main()
