"""What browsers speak, through a real node to a real gRPC server: gRPC-Web in both its forms over
HTTP/1.1 and HTTP/2, CORS, and WebSockets that stream both ways."""

import asyncio
import base64
import functools
import http.client
import signal
import socket
import unittest

import websockets.exceptions
from websockets.legacy import client as sockets  # the same in Debian 12 and 13.

import echo_service as echo
import raw_h2
import trilane
import web_client as web

pb = echo.pb
SERVICE = "/trilane.test.v1.Echo/"
APP = "https://app.example.com"
CARDS = "https://cards.example.com"
BOTH = "https://both.example.com"
CORS = """---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: pages, tenant: acme}
spec:
  match: [{grpc: {service: trilane.test.v1.Echo}}]
  targets: [{service: echo}]
  cors:
    allowOrigins: ["%s", "https://*.preview.example.com", "%s"]
    allowHeaders: [x-extra]
    exposeHeaders: [x-server]
    maxAge: 10m
---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: elsewhere, tenant: globex}
spec:
  match: [{grpc: {service: trilane.test.v1.Echo}, tenants: [globex]}]
  targets: [{service: other}]
  cors: {allowOrigins: ["https://globex.example", "%s"], allowCredentials: true}
---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: hosted, tenant: acme}
spec:
  hosts: [pages.test]
  match: [{grpc: {service: trilane.test.v1.Echo}}]
  targets: [{service: echo}]
  cors: {allowOrigins: ["https://hosted.example"]}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: raw, tenant: acme}
spec:
  grpcServices: [trilane.test.v1.Raw]
  endpoints: [{address: 127.0.0.1, port: %d}]
---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: cards, tenant: acme}
spec:
  match: [{grpc: {service: trilane.test.v1.Raw, method: Messages}}]
  targets: [{service: raw}]
  cors: {allowOrigins: ["%s"], allowCredentials: true}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: raw, tenant: acme}
spec:
  target: {service: raw}
  rules: [{name: all, effect: allow, callers: [{service: web}]}]
"""


def says_cors(exchange):
    """An upstream that would let pages in by itself."""
    exchange.answer(raw_h2.message(b"m"), fields=raw_h2.OK + [
        ("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true")])


def breaks_off(exchange):
    """Ends inside of a message, with trailers all the same."""
    exchange.answer(raw_h2.message(b"half", size=1000))


def one_by_one(exchange):
    exchange.answer(raw_h2.message(b"a"), raw_h2.message(b""), raw_h2.message(b"c"))


platform = None
cp = None
node = None
server = None
upstream = None


def setUpModule():
    """One platform for all: NATS, a control plane, a node, an echo server."""
    global platform, cp, node, server, upstream
    server = echo.Server("a")
    unittest.addModuleCleanup(server.stop)
    upstream = raw_h2.Upstream({"Cors": says_cors, "Half": breaks_off, "Messages": one_by_one})
    unittest.addModuleCleanup(upstream.stop)
    platform = trilane.Platform(environment="dev")
    unittest.addModuleCleanup(platform.close)
    cp = platform.control_plane().start()
    node = platform.node("node-1", access_log=platform.directory / "access.log")
    node.start()
    publish()


def publish(allows="gold", extra=""):
    """The same platform, whose Echo is for callers of that tier."""
    text = echo.platform_yaml([server.port], extra=CORS % (APP, BOTH, BOTH, upstream.port, CARDS) + extra)
    text = text.replace("callers: [{traits: {tier: gold}}]", "callers: [{traits: {tier: %s}}]" % allows)
    before = node.version()
    cp("publish", "-m", "test", platform.write_policies({"platform.yaml": text}))
    trilane.wait_until(lambda: node.version() > before, what="the node to serve it")


@functools.cache
def card():
    """A browser that shows a certificate of acme's web."""
    identity = platform.issue_service("acme", "web")
    return platform.tls_context(identity["cert"], identity["key"])


def words(**fields):
    return pb.Words(**fields).SerializeToString()


def read(message):
    return pb.Words.FromString(message)


def client(**options):
    return web.Client(node.ports["listen"], **options)


class GrpcWeb(unittest.TestCase):
    """gRPC-Web over HTTP/1.1."""

    def setUp(self):
        self.client = client()
        self.addCleanup(self.client.http.close)

    def test_unary_in_both_forms(self):
        for kind in (web.BINARY, web.TEXT):
            with self.subTest(kind=kind):
                answer = self.client.call(SERVICE + "Say", words(text="hi"), kind=kind)
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.headers["content-type"], kind)
                self.assertEqual(answer.headers["x-server"], "a")
                self.assertEqual([read(m).text for m in answer.messages], ["hi from a"])
                self.assertEqual(answer.trailers["grpc-status"], "0")
                self.assertEqual(answer.trailers["x-trailer"], "yes")
                self.assertNotIn("x-trailer", answer.headers)

    def test_what_the_service_sees_is_grpc(self):
        answer = self.client.call(SERVICE + "Say", words(text="seen"), headers={
            "x-extra": "1", "Connection": "keep-alive, x-of-this-hop", "x-of-this-hop": "no",
            "accept": web.BINARY, "grpc-timeout": "3S"})
        self.assertEqual(answer.grpc_status, 0)
        seen = server.echo.seen
        self.assertEqual(seen["x-extra"], "1")
        self.assertEqual(seen["x-tenant-id"], "acme")
        self.assertEqual(seen["x-user-agent"], "grpc-web-test")
        self.assertLess(seen["time-left"], 3.1)
        for name in ("x-of-this-hop", "accept", "authorization"):
            self.assertNotIn(name, seen)

    def test_the_answer_is_of_the_form_that_is_accepted(self):
        answer = self.client.call(SERVICE + "Say", words(text="t"), headers={"accept": web.TEXT})
        self.assertEqual(answer.headers["content-type"], web.TEXT)
        self.assertEqual(read(answer.messages[0]).text, "t from a")

    def test_base64_that_is_cut_and_padded_anywhere(self):
        body = web.frame(words(text="pieces of it"))
        encoded = b"".join(base64.b64encode(body[i:i + 4]) for i in range(0, len(body), 4))
        for step in (1, 3, 7):
            pieces = [encoded[i:i + step] for i in range(0, len(encoded), step)]
            answer = self.client.ask("POST", SERVICE + "Say", {
                "content-type": web.TEXT, "authorization": "Bearer web-token",
                "transfer-encoding": "chunked"}, pieces)
            self.assertEqual([read(m).text for m in answer.messages], ["pieces of it from a"])

    def test_what_is_no_base64(self):
        for body in (b"AAAA!AAA", base64.b64encode(web.frame(words(text="cut")))[:-2]):
            answer = self.client.ask("POST", SERVICE + "Say", {
                "content-type": web.TEXT, "authorization": "Bearer web-token"}, body)
            self.assertEqual((answer.grpc_status, answer.code), (13, "PROTOCOL_ERROR"))

    def test_streams_of_the_server_come_as_they_are_sent(self):
        """Each word is there before the next is asked for: nothing is held until the end."""
        for kind in (web.BINARY, web.TEXT):
            answer = self.client.call(SERVICE + "SayMany", words(text="x", count=300,
                                                                 filler=b"y" * 1000), kind=kind)
            self.assertEqual([read(m).count for m in answer.messages], list(range(300)))
            self.assertEqual(answer.trailers["grpc-status"], "0")

    def test_an_answer_begins_before_the_request_ends(self):
        """Both directions of one HTTP/1.1 exchange, word by word, in text."""
        sock = socket.create_connection(("127.0.0.1", node.ports["listen"]), 60)
        self.addCleanup(sock.close)
        sock.sendall(("POST %sChat HTTP/1.1\r\nhost: echo.test\r\ncontent-type: %s\r\n"
                      "authorization: Bearer web-token\r\ntransfer-encoding: chunked\r\n\r\n"
                      % (SERVICE, web.TEXT)).encode())
        got = b""
        for i in range(5):
            piece = base64.b64encode(web.frame(words(text=str(i))))
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            wanted = base64.b64encode(web.frame(words(text="re: %d" % i)))
            while wanted not in got:
                more = sock.recv(65536)
                self.assertTrue(more, got)
                got += more
        sock.sendall(b"0\r\n\r\n")
        while not got.endswith(b"0\r\n\r\n"):
            got += sock.recv(65536)

    def test_client_streaming_and_large_messages(self):
        filler = bytes(range(256)) * 3000
        answer = self.client.call(SERVICE + "Collect", *[words(text="w%d" % i, filler=filler)
                                                         for i in range(8)])
        self.assertEqual(read(answer.messages[0]).count, 8)
        for kind in (web.BINARY, web.TEXT):
            answer = self.client.call(SERVICE + "Say", words(text="big", filler=filler), kind=kind)
            self.assertEqual(read(answer.messages[0]).filler, filler)

    def test_a_slow_reader_gets_all_of_it(self):
        """More than the node's buffers hold; nothing is read until they are full of it."""
        for kind in (web.BINARY, web.TEXT):
            with client() as slow:
                slow.http.sock = socket.socket()
                slow.http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                slow.http.sock.settimeout(60)
                slow.http.sock.connect(("127.0.0.1", node.ports["listen"]))
                body = web.frame(words(text="slow", count=200, filler=b"z" * 30000))
                slow.http.request("POST", SERVICE + "SayMany", headers={
                    "content-type": kind, "authorization": "Bearer web-token",
                    "grpc-timeout": "60S"},
                    body=base64.b64encode(body) if kind == web.TEXT else body)
                wanted = 1 << 14
                trilane.wait_until(lambda s=slow, n=wanted: len(s.http.sock.recv(
                    n, socket.MSG_PEEK)) == n, what="the first bytes")
                answer = slow.http.getresponse()
                got = web.Answer(answer.status, answer.getheaders(), answer.read())
                self.assertEqual([read(m).count for m in got.messages], list(range(200)))
                self.assertEqual(got.grpc_status, 0)

    def test_errors(self):
        answer = self.client.call(SERVICE + "Say", words(text="fail"))
        self.assertEqual((answer.trailers["grpc-status"], answer.trailers["grpc-message"]),
                         ("15", "lost it"))
        answer = self.client.call(SERVICE + "Say", words(text="trailers-only"))
        self.assertEqual((answer.headers["grpc-status"], answer.raw), ("5", b""))
        self.assertEqual(answer.headers["grpc-message"], "nothing here: 100%25 %E2%82%AC")
        answer = self.client.call(SERVICE + "Say", words(), token=None)
        self.assertEqual((answer.status, answer.headers["grpc-status"], answer.code, answer.raw),
                         (200, "16", "UNAUTHENTICATED", b""))
        answer = self.client.call(SERVICE + "Say", words(), token="stranger-token")
        self.assertEqual((answer.grpc_status, answer.headers["x-trilane-rule"]),
                         (7, "acme/echo/nobody-collects"))
        for path in ("/noslash", "/acme.Nowhere/Say"):
            answer = self.client.call(path, words())
            self.assertEqual((answer.status, answer.grpc_status, answer.code),
                             (200, 12, "NO_ROUTE"))

    def test_services_of_the_node_itself_say_what_they_speak(self):
        for path in ("/trilane.bus.v1.Bus/Publish", "/grpc.health.v1.Health/Check",
                     "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
            for token in ("web-token", None):
                answer = self.client.call(path, b"", token=token)
                self.assertEqual((answer.status, answer.grpc_status, answer.code),
                                 (200, 12, "UNSUPPORTED"))
                self.assertIn("gRPC over HTTP/2 alone", answer.fields["grpc-message"])

    def test_the_bytes_of_an_answer(self):
        """As PROTOCOL-WEB.md has them: messages as gRPC frames them, then fields under 0x80."""
        raw = "/trilane.test.v1.Raw/Messages"
        answer = self.client.call(raw, b"")
        self.assertEqual(answer.headers["transfer-encoding"], "chunked")
        self.assertEqual(answer.raw, b"\0\0\0\0\1a" b"\0\0\0\0\0" b"\0\0\0\0\1c"
                                     b"\x80\0\0\0\x10grpc-status: 0\r\n")
        answer = self.client.call(raw, b"", kind=web.TEXT)
        self.assertEqual(web.decode_text(answer.raw).count(b"grpc-status: 0\r\n"), 1)

    def test_an_upstream_that_breaks_off_inside_of_a_message(self):
        """Trailers would be read as the rest of it: there are none."""
        with self.assertRaises((http.client.IncompleteRead, ConnectionError)):
            self.client.call("/trilane.test.v1.Raw/Half", b"")

    def test_what_http1_is_not_taken(self):
        """gRPC itself is HTTP/2; and gRPC-Web is POST."""
        answer = self.client.ask("GET", "/", {})
        self.assertEqual((answer.status, answer.code), (505, "HTTP_VERSION"))
        answer = self.client.ask("POST", SERVICE + "Say", {"content-type": "application/grpc"}, b"")
        self.assertEqual((answer.status, answer.code), (505, "HTTP_VERSION"))
        answer = self.client.ask("PUT", SERVICE + "Say", {"content-type": web.BINARY}, b"")
        self.assertEqual((answer.status, answer.code, answer.headers["allow"]),
                         (405, "METHOD_NOT_ALLOWED", "POST"))

    def test_connection_names_little(self):
        """However many fields it is cut into."""
        for count, status in ((4, b"HTTP/1.1 200 "), (5, b"HTTP/1.1 400 ")):
            with socket.create_connection(("127.0.0.1", node.ports["listen"]), 60) as sock:
                sock.sendall(("POST %sSay HTTP/1.1\r\nhost: echo.test\r\ncontent-type: %s\r\n"
                              "authorization: Bearer web-token\r\ncontent-length: 0\r\n%s\r\n" % (
                                  SERVICE, web.BINARY,
                                  ("connection: " + "x," * 31 + "\r\n") * count)).encode())
                self.assertTrue(sock.recv(65536).startswith(status), count)

    def test_requests_in_a_row_on_one_connection(self):
        sock = socket.create_connection(("127.0.0.1", node.ports["listen"]), 60)
        self.addCleanup(sock.close)
        body = web.frame(words(text="row"))
        request = ("POST %sSay HTTP/1.1\r\nhost: echo.test\r\ncontent-type: %s\r\n"
                   "authorization: Bearer web-token\r\ncontent-length: %d\r\n\r\n"
                   % (SERVICE, web.BINARY, len(body))).encode() + body
        sock.sendall(request * 5)
        got = b""
        while got.count(b"grpc-status: 0") < 5:
            more = sock.recv(65536)
            self.assertTrue(more, got)
            got += more
        self.assertEqual(got.count(b"HTTP/1.1 200 OK"), 5)

    def test_a_caller_that_expects_to_be_told_to_go_on(self):
        sock = socket.create_connection(("127.0.0.1", node.ports["listen"]), 60)
        self.addCleanup(sock.close)
        body = web.frame(words(text="on"))
        sock.sendall(("POST %sSay HTTP/1.1\r\nhost: echo.test\r\ncontent-type: %s\r\n"
                      "authorization: Bearer web-token\r\nexpect: 100-continue\r\n"
                      "content-length: %d\r\n\r\n" % (SERVICE, web.BINARY, len(body))).encode())
        self.assertEqual(sock.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(body)
        got = b""
        while b"grpc-status: 0" not in got:
            more = sock.recv(65536)
            self.assertTrue(more, got)
            got += more

    def test_a_caller_that_leaves_takes_its_call_along(self):
        before = server.echo.cancelled
        with client() as leaving:
            leaving.http.request("POST", SERVICE + "Say", headers={
                "content-type": web.BINARY, "authorization": "Bearer web-token"},
                body=web.frame(words(text="wait", count=60000)))
            trilane.wait_until(lambda: "wait" in server.echo.texts, what="the call")
        trilane.wait_until(lambda: server.echo.cancelled > before, what="its end")
        server.echo.texts.discard("wait")

    def test_over_tls(self):
        tls = platform.tls_context()
        with web.Client(node.ports["listen-tls"], tls=tls) as secure:
            answer = secure.call(SERVICE + "Say", words(text="tls"))
            self.assertEqual(read(answer.messages[0]).text, "tls from a")

    def test_the_access_log_says_which_front_it_was(self):
        log = platform.directory / "access.log"
        self.client.call(SERVICE + "Say", words(text="log"))
        trilane.wait_until(lambda: log.exists() and "front=grpc-web" in log.read_text(),
                           what="the line")


class OverHttp2(unittest.TestCase):
    """gRPC-Web over HTTP/2."""

    def setUp(self):
        self.caller = raw_h2.Caller(node.ports["listen"])
        self.addCleanup(self.caller.sock.close)

    def ask(self, *pieces, method="POST", path=SERVICE + "Say", headers=()):
        stream = self.caller.h2.get_next_available_stream_id()
        self.caller.h2.send_headers(stream, [
            (":method", method), (":scheme", "http"), (":path", path),
            (":authority", "echo.test")] + list(headers), end_stream=not pieces)
        self.caller.flush()
        self.caller.answers[stream] = raw_h2.Answer()
        for i, piece in enumerate(pieces):
            self.caller.send(stream, piece, end=i + 1 == len(pieces))
        got = self.caller.wait(stream)
        self.assertEqual(got.trailers, {})
        self.assertTrue(got.ended)
        return web.Answer(int(got.headers[":status"]), got.headers.items(), got.body)

    def test_unary_in_both_forms(self):
        for kind in (web.BINARY, web.TEXT):
            body = web.frame(words(text="h2"))
            answer = self.ask(base64.b64encode(body) if kind == web.TEXT else body, headers=[
                ("content-type", kind), ("authorization", "Bearer web-token")])
            self.assertEqual(answer.headers["content-type"], kind)
            self.assertEqual([read(m).text for m in answer.messages], ["h2 from a"])
            self.assertEqual(answer.trailers["grpc-status"], "0")

    def test_more_than_a_window_each_way(self):
        """Twice what a stream's window, and its queue, hold."""
        filler = b"q" * 120000
        for kind in (web.BINARY, web.TEXT):
            body = b"".join(web.frame(words(text=str(i), filler=filler)) for i in range(4))
            body = base64.b64encode(body) if kind == web.TEXT else body
            answer = self.ask(*[body[i:i + 10000] for i in range(0, len(body), 10000)],
                              path=SERVICE + "Chat",
                              headers=[("content-type", kind), ("authorization", "Bearer web-token")])
            self.assertEqual([read(m).text for m in answer.messages],
                             ["re: %d" % i for i in range(4)])

    def test_refusals(self):
        answer = self.ask(web.frame(words()), headers=[("content-type", web.BINARY)])
        self.assertEqual((answer.headers["grpc-status"], answer.raw), ("16", b""))
        answer = self.ask(b"!", headers=[("content-type", web.TEXT),
                                         ("authorization", "Bearer web-token")])
        self.assertEqual(answer.code, "PROTOCOL_ERROR")
        answer = self.ask(method="GET", headers=[("content-type", web.BINARY)])
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST"))

    def test_who_is_asked_is_said_once(self):
        """As of gRPC itself, though the host goes no further."""
        for host, code in (("Echo.test", None), ("other.test", "PROTOCOL_ERROR"),
                           ("echo.test:80", "PROTOCOL_ERROR")):
            answer = self.ask(web.frame(words(text="asked")), headers=[
                ("content-type", web.BINARY), ("authorization", "Bearer web-token"), ("host", host)])
            self.assertEqual(answer.code, code, host)

    def test_preflight(self):
        ask = [("origin", APP), ("access-control-request-method", "POST")]
        answer = self.ask(method="OPTIONS", headers=ask)
        self.assertEqual(answer.status, 204)
        self.assertEqual(answer.headers["access-control-allow-origin"], APP)
        answer = self.ask(method="OPTIONS", headers=[("origin", "https://evil.example")] + ask[1:])
        self.assertEqual((answer.status, answer.code), (403, "ORIGIN_DENIED"))
        self.assertNotIn("access-control-allow-origin", answer.headers)


class Cors(unittest.TestCase):
    """Which pages may call: deny by default, by the routes of host and path."""

    def setUp(self):
        self.client = client()
        self.addCleanup(self.client.http.close)

    def preflight(self, origin, path=SERVICE + "Say"):
        return self.client.ask("OPTIONS", path, {
            "origin": origin, "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-grpc-web,authorization"})

    def test_a_preflight_needs_no_identity(self):
        answer = self.preflight(APP)
        self.assertEqual(answer.status, 204)
        self.assertEqual(
            {name: value for name, value in answer.headers.items()
             if name.startswith("access-control-") or name == "vary"},
            {"access-control-allow-origin": APP, "access-control-allow-methods": "POST",
             "access-control-allow-headers": "content-type, x-grpc-web, x-user-agent, grpc-timeout,"
                                             " authorization, x-extra",
             "access-control-max-age": "600", "vary": "origin"})

    def test_a_host_is_the_same_however_it_is_written(self):
        for host in ("pages.test", "Pages.test:8080", "pages.test.", "pages.test.:80"):
            answer = self.client.ask("OPTIONS", SERVICE + "Say", {
                "host": host, "origin": "https://hosted.example",
                "access-control-request-method": "POST"})
            self.assertEqual(answer.status, 204, host)
            for origin, code in (("https://hosted.example", None), (APP, "ORIGIN_DENIED")):
                answer = self.client.call(SERVICE + "Say", words(text="hosted"),
                                          headers={"host": host, "origin": origin})
                self.assertEqual(answer.code, code, (host, origin))

    def test_pages_of_others_may_not_call(self):
        for origin in ("https://evil.example", "http://app.example.com", APP + ":8443",
                       "https://preview.example.com", "https://.preview.example.com",
                       "https://a.preview.example.com.evil.example", "null", APP.upper()):
            answer = self.preflight(origin)
            self.assertEqual((answer.status, answer.code), (403, "ORIGIN_DENIED"), origin)
            self.assertNotIn("access-control-allow-origin", answer.headers)
            calls = server.echo.calls
            answer = self.client.call(SERVICE + "Say", words(text="evil"),
                                      headers={"origin": origin})
            self.assertEqual((answer.grpc_status, answer.code), (7, "ORIGIN_DENIED"), origin)
            self.assertNotIn("access-control-allow-origin", answer.headers)
            self.assertEqual(server.echo.calls, calls)

    def test_a_path_without_cors_lets_no_page_call(self):
        for path in ("/acme.Other/Say", "/trilane.bus.v1.Bus/Publish"):
            self.assertEqual(self.preflight(APP, path).status, 403)

    def test_pages_that_may(self):
        for origin in (APP, "https://pr-7.preview.example.com", "https://a.b.preview.example.com"):
            self.assertEqual(self.preflight(origin).status, 204)
            answer = self.client.call(SERVICE + "Say", words(text="page"),
                                      headers={"origin": origin})
            self.assertEqual(read(answer.messages[0]).text, "page from a")
            self.assertEqual(answer.headers["access-control-allow-origin"], origin)
            self.assertEqual(answer.headers["vary"], "origin")
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            for name in ("grpc-status", "grpc-message", "grpc-status-details-bin", "x-server",
                         "x-trilane-explain"):
                self.assertIn(name, exposed)

    def test_what_an_upstream_says_of_cors(self):
        answer = self.client.call("/trilane.test.v1.Raw/Cors", b"")
        self.assertEqual((answer.messages, answer.grpc_status), ([b"m"], 0))
        self.assertEqual([n for n in answer.headers if n.startswith("access-control-")], [])

    def test_a_page_reads_why_it_was_refused(self):
        answer = self.client.call(SERVICE + "Say", words(), token="wrong", headers={"origin": APP})
        self.assertEqual(answer.headers["grpc-status"], "16")
        self.assertEqual(answer.headers["access-control-allow-origin"], APP)

    def test_a_page_of_the_host_itself(self):
        answer = self.client.call(SERVICE + "Say", words(text="own"), headers={
            "host": "echo.test:8080", "origin": "http://echo.test:8080"})
        self.assertEqual(read(answer.messages[0]).text, "own from a")
        self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_another_tenants_route_lets_no_page_call(self):
        """Its pages may ask, since a preflight says of no tenant; the call takes acme's route."""
        origin = "https://globex.example"
        self.assertEqual(self.preflight(origin).status, 204)
        calls = server.echo.calls
        answer = self.client.call(SERVICE + "Say", words(), headers={"origin": origin})
        self.assertEqual((answer.grpc_status, answer.code), (7, "ORIGIN_DENIED"))
        answer = self.client.call(SERVICE + "Say", words(), token="other-token",
                                  headers={"origin": APP})
        self.assertEqual((answer.grpc_status, answer.code), (7, "ORIGIN_DENIED"))
        self.assertEqual(server.echo.calls, calls)

    def test_a_certificate_is_shown_for_pages_that_may_bring_it(self):
        """A browser shows it for any page, whoever wrote that; a token beside it says nothing."""
        with web.Client(node.ports["listen-tls"], tls=card()) as shown:
            self.assertEqual(shown.call(SERVICE + "Say", words(), token=None).grpc_status, 0)
            calls = server.echo.calls
            for token in (None, "web-token"):
                answer = shown.call(SERVICE + "Say", words(), token=token, headers={"origin": APP})
                self.assertEqual((answer.grpc_status, answer.code), (7, "ORIGIN_DENIED"))
                self.assertNotIn("access-control-allow-origin", answer.headers)
            answer = shown.call(SERVICE + "Say", words(), token=None, headers={"origin": BOTH})
            self.assertEqual((answer.grpc_status, answer.code), (7, "ORIGIN_DENIED"))
            self.assertEqual(server.echo.calls, calls)
            answer = shown.call("/trilane.test.v1.Raw/Messages", b"", token=None,
                                headers={"origin": CARDS})
            self.assertEqual((answer.grpc_status, answer.messages[0]), (0, b"a"))
            self.assertEqual(answer.headers["access-control-allow-credentials"], "true")

    def test_two_origins_are_none(self):
        sock = socket.create_connection(("127.0.0.1", node.ports["listen"]), 60)
        self.addCleanup(sock.close)
        sock.sendall(("OPTIONS %sSay HTTP/1.1\r\nhost: echo.test\r\norigin: %s\r\norigin: %s\r\n"
                      "access-control-request-method: POST\r\n\r\n" % (SERVICE, APP, APP)).encode())
        self.assertTrue(sock.recv(65536).startswith(b"HTTP/1.1 403 "))


class Sockets(unittest.TestCase):
    """grpc-websockets: one call a WebSocket, both ways at once."""

    PROTOCOLS = ("grpc-websockets",)
    FIELDS = (b"content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\n"
              b"Authorization: Bearer web-token\r\n")

    def run_with(self, talk, method="Chat", service=SERVICE, **options):
        async def main():
            url = ("wss://localhost:%d" % node.ports["listen-tls"] if "ssl" in options
                   else "ws://127.0.0.1:%d" % node.ports["listen"]) + service + method
            options.setdefault("subprotocols", self.PROTOCOLS)
            async with sockets.connect(url, compression=None, open_timeout=60, max_size=1 << 24,
                                       **options) as ws:
                return await asyncio.wait_for(talk(ws), 60)
        return asyncio.run(main())

    @staticmethod
    async def frames(ws):
        """Frames of gRPC-Web as they come: (flag, payload)."""
        body = b""
        async for part in ws:
            body += part
            while len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
                size = int.from_bytes(body[1:5], "big")
                yield body[0], body[5:5 + size]
                body = body[5 + size:]
        assert not body, "cut off"

    async def say(self, ws, *texts, end=True):
        for text in texts:
            await ws.send(b"\0" + web.frame(words(text=text)))
        if end:
            await ws.send(b"\1")

    def test_both_ways_word_by_word(self):
        async def talk(ws):
            self.assertEqual(ws.subprotocol, "grpc-websockets")
            await ws.send(self.FIELDS)
            frames = self.frames(ws)
            await self.say(ws, "0", end=False)
            flag, head = await frames.__anext__()
            self.assertEqual((flag, web.fields_of(head)["x-server"]), (0x80, "a"))
            for i in range(20):
                flag, message = await frames.__anext__()
                self.assertEqual((flag, read(message).text), (0, "re: %d" % i))
                await self.say(ws, str(i + 1), end=False)
            await ws.send(b"\1")
            self.assertEqual(read((await frames.__anext__())[1]).text, "re: 20")
            flag, trailers = await frames.__anext__()
            self.assertEqual(flag, 0x80)
            self.assertEqual(web.fields_of(trailers)["grpc-status"], "0")
            self.assertEqual(web.fields_of(trailers)["x-trailer"], "yes")
            await ws.wait_closed()
            self.assertEqual(ws.close_code, 1000)
        self.run_with(talk)

    def test_much_both_ways_and_a_slow_reader(self):
        filler = b"w" * 100000

        async def talk(ws):
            await ws.send(self.FIELDS)
            for i in range(40):
                await ws.send(b"\0" + web.frame(words(text=str(i), filler=filler)))
            await ws.send(b"\1")
            return [f async for f in self.frames(ws)]
        got = self.run_with(talk)
        self.assertEqual([read(m).text for flag, m in got if flag == 0],
                         ["re: %d" % i for i in range(40)])

    def test_fragments_and_pings(self):
        async def talk(ws):
            async def pieces():
                whole = b"\0" + web.frame(words(text="fragments"))
                for i in range(0, len(whole), 3):
                    yield whole[i:i + 3]
            await ws.send([self.FIELDS[:10], self.FIELDS[10:]])
            await (await ws.ping())
            await ws.send(pieces())
            await ws.send(b"\1")
            return [f async for f in self.frames(ws)]
        got = self.run_with(talk)
        self.assertEqual(read(got[1][1]).text, "re: fragments")

    def refused(self, fields, **options):
        """The only frame, and the code of the close."""
        async def talk(ws):
            await ws.send(fields)
            got = [f async for f in self.frames(ws)]
            await ws.wait_closed()
            return got, ws.close_code
        return self.run_with(talk, **options)

    def test_refusals_are_grpc(self):
        for fields, status, code in (
                (b"x-nobody: 1\r\n", "16", "UNAUTHENTICATED"),
                (b"authorization: Bearer stranger-token\r\n", "7", "POLICY_DENIED"),
                (b"authorization: Bearer web-token\r\nx-tenant-id: globex\r\n", "7",
                 "TENANT_MISMATCH"),
                (b"no section of fields", "3", "MALFORMED")):
            got, close = self.refused(fields)
            self.assertEqual([flag for flag, _ in got], [0x80])
            said = web.fields_of(got[0][1])
            self.assertEqual((said["grpc-status"], said["x-trilane-code"]), (status, code))
            self.assertEqual(close, 1000)

    def test_an_upstream_that_answers_with_a_status_alone(self):
        async def talk(ws):
            await ws.send(self.FIELDS)
            await self.say(ws, "trailers-only")
            return [f async for f in self.frames(ws)]
        got = self.run_with(talk, method="Say")
        self.assertEqual([flag for flag, _ in got], [0x80])
        self.assertEqual(web.fields_of(got[0][1])["grpc-status"], "5")

    def test_what_breaks_the_protocol(self):
        for sent, code in (("text", 1003), (b"\2data", 1002), (b"\1more", 1002), (b"", 1002)):
            async def talk(ws, sent=sent):
                await ws.send(self.FIELDS)
                await ws.send(sent)
                await ws.wait_closed()
                return ws.close_code
            self.assertEqual(self.run_with(talk), code, sent)

    def status_of(self, **options):
        with self.assertRaises(websockets.exceptions.InvalidStatusCode) as caught:
            async def nothing(ws):
                del ws
            self.run_with(nothing, **options)
        return caught.exception.status_code

    def test_pages_of_others_open_no_socket(self):
        """A browser lets any page try, with the cookies and certificate of its reader."""
        for origin in ("https://evil.example", "null", "http://app.example.com"):
            self.assertEqual(self.status_of(origin=origin), 403)

        async def nothing(ws):
            self.assertTrue(ws.open)
        for origin in (APP, "https://x.preview.example.com",
                       "http://127.0.0.1:%d" % node.ports["listen"]):
            self.run_with(nothing, origin=origin)

    def test_a_certificate_opens_no_socket_for_pages_that_may_not_bring_it(self):
        self.assertEqual(self.status_of(origin=APP, ssl=card()), 403)
        nobody = b"content-type: application/grpc-web+proto\r\n"
        got, close = self.refused(nobody, origin=BOTH, ssl=card())
        self.assertEqual(web.fields_of(got[0][1])["x-trilane-code"], "ORIGIN_DENIED")
        self.assertEqual(close, 1000)

        async def talk(ws):
            await ws.send(nobody)
            await ws.send(b"\0" + web.frame(b""))
            await ws.send(b"\1")
            return [f async for f in self.frames(ws)]
        got = self.run_with(talk, service="/trilane.test.v1.Raw/", method="Messages",
                            origin=CARDS, ssl=card())
        self.assertEqual([m for flag, m in got if flag == 0], [b"a", b"", b"c"])

    def test_another_tenants_route_opens_no_call(self):
        got, close = self.refused(self.FIELDS, origin="https://globex.example")
        self.assertEqual(web.fields_of(got[0][1])["x-trilane-code"], "ORIGIN_DENIED")
        self.assertEqual(close, 1000)

    def test_handshakes_that_are_refused(self):
        self.assertEqual(self.status_of(subprotocols=["chat"]), 400)
        self.assertEqual(self.status_of(method="Say?x"), 404)
        self.assertEqual(self.status_of(service="/grpc.health.v1.Health/", method="Watch"), 501)
        for request, status in (
                (b"sec-websocket-version: 12\r\n", b"HTTP/1.1 426 "),
                (b"sec-websocket-version: 13\r\ncontent-length: 3\r\n", b"HTTP/1.1 400 "),
                (b"", b"HTTP/1.1 400 ")):
            with socket.create_connection(("127.0.0.1", node.ports["listen"]), 60) as sock:
                sock.sendall(b"GET %sChat HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
                             b"upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                             b"sec-websocket-protocol: grpc-websockets\r\n%s\r\n"
                             % (SERVICE.encode(), request))
                self.assertTrue(sock.recv(65536).startswith(status), request)

    def test_a_page_that_leaves_takes_its_call_along(self):
        before = server.echo.cancelled

        async def talk(ws):
            await ws.send(self.FIELDS)
            await ws.send(b"\0" + web.frame(words(text="ws-wait", count=60000)))
            await ws.send(b"\1")
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, lambda: trilane.wait_until(
                lambda: "ws-wait" in server.echo.texts, what="the call"))
        self.run_with(talk, method="Say")
        trilane.wait_until(lambda: server.echo.cancelled > before, what="its end")


class GivesWay(unittest.TestCase):
    """What a page hears of a node that goes: always why."""

    def ends(self, number):
        """One socket has no call yet; the other has one that would go on."""
        going = platform.node("going-%d" % number, graceful_timeout_ms=1000)
        self.addCleanup(going.end_all)
        going.start()
        trilane.wait_until(going.ready, what="the node to serve")

        async def open_socket():
            return await sockets.connect(
                "ws://127.0.0.1:%d%sChat" % (going.ports["listen"], SERVICE),
                subprotocols=Sockets.PROTOCOLS, compression=None, open_timeout=60)

        async def main():
            waits = await open_socket()
            calls = await open_socket()
            await calls.send(Sockets.FIELDS + b"grpc-timeout: 60S\r\n")
            await calls.send(b"\0" + web.frame(words(text="on")))
            frames = Sockets.frames(calls)
            await frames.__anext__()
            self.assertEqual(read((await frames.__anext__())[1]).text, "re: on")
            going.signal(number)
            await asyncio.wait_for(waits.wait_closed(), 60)
            self.assertEqual(waits.close_code, 1001)
            flag, trailers = await asyncio.wait_for(frames.__anext__(), 60)
            self.assertEqual((flag, web.fields_of(trailers)["x-trilane-code"]), (0x80, "DRAINING"))
            await asyncio.wait_for(calls.wait_closed(), 60)
            self.assertEqual(calls.close_code, 1001)
        asyncio.run(main())
        self.assertEqual(going.wait(), 0)

    def test_to_another_process(self):
        self.ends(signal.SIGUSR2)

    def test_for_good(self):
        self.ends(signal.SIGTERM)


class Swaps(unittest.TestCase):
    """What becomes of open calls by a new snapshot, and by a shutdown. The last of all: it ends the
    node."""

    async def chat(self, fields=Sockets.FIELDS, **options):
        """A WebSocket whose call goes on: it said "on", and heard the answer."""
        address = "ws://127.0.0.1:%d" % node.ports["listen"]
        if "ssl" in options:
            address = "wss://localhost:%d" % node.ports["listen-tls"]
        ws = await sockets.connect(address + SERVICE + "Chat", subprotocols=Sockets.PROTOCOLS,
                                   compression=None, open_timeout=60, **options)
        await ws.send(fields + b"grpc-timeout: 60S\r\n")
        await ws.send(b"\0" + web.frame(words(text="on")))
        frames = Sockets.frames(ws)
        await frames.__anext__()
        self.assertEqual(read((await frames.__anext__())[1]).text, "re: on")
        return ws, frames

    def in_thread(self, run):
        return asyncio.get_running_loop().run_in_executor(None, run)

    def test_a_call_that_is_denied_by_now(self):
        async def main():
            ws, frames = await self.chat()
            await self.in_thread(lambda: publish("silver"))
            flag, trailers = await asyncio.wait_for(frames.__anext__(), 60)
            self.assertEqual(flag, 0x80)
            self.assertEqual(web.fields_of(trailers)["x-trilane-code"], "POLICY_DENIED")
            await ws.wait_closed()
            self.assertEqual(ws.close_code, 1000)
        self.addCleanup(publish)
        asyncio.run(main())

    def test_a_certificate_whose_identity_is_revoked(self):
        """The call hears why; the connection ends with it."""
        revoked = """---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: pages}
spec: {reason: a test, identities: ["spiffe://trilane.test/tenant/acme/service/web"]}
"""

        async def main():
            ws, frames = await self.chat(b"x-nobody: 1\r\n", ssl=card())
            await self.in_thread(lambda: publish(extra=revoked))
            flag, trailers = await asyncio.wait_for(frames.__anext__(), 60)
            self.assertEqual(flag, 0x80)
            self.assertEqual(web.fields_of(trailers)["x-trilane-code"], "IDENTITY_REVOKED")
            await ws.wait_closed()
        self.addCleanup(publish)
        asyncio.run(main())

    def test_the_end_of_the_node(self):
        """One that has no call yet is told to go; a call goes on to its end."""
        async def main():
            waits = await sockets.connect(
                "ws://127.0.0.1:%d%sChat" % (node.ports["listen"], SERVICE),
                subprotocols=Sockets.PROTOCOLS, compression=None, open_timeout=60)
            ws, frames = await self.chat()
            node.signal(signal.SIGTERM)
            await asyncio.wait_for(waits.wait_closed(), 60)
            self.assertEqual(waits.close_code, 1001)
            await ws.send(b"\0" + web.frame(words(text="still")))
            self.assertEqual(read((await frames.__anext__())[1]).text, "re: still")
            await ws.send(b"\1")
            self.assertEqual(web.fields_of((await frames.__anext__())[1])["grpc-status"], "0")
            await ws.wait_closed()
        asyncio.run(main())
        trilane.wait_until(lambda: not node.alive(), what="the end of the node")


if __name__ == "__main__":
    unittest.main()
