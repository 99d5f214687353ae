"""The proxy lane: a real node between real clients and an outside world that also lies.

All of it runs in a network namespace of its own, in which the forbidden addresses are there and
listen: a node that dialled one would be seen to, and would reach nothing else.
"""

import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse

import outside
import trilane

FORBIDDEN = ("10.1.2.3", "169.254.169.254")


def enter_namespace():
    """Runs this program again in a namespace."""
    if os.environ.get("TRILANE_TEST_NAMESPACE") == "1":
        return
    if not trilane.can_unshare("-Urn"):
        trilane.skip("this machine allows no user namespaces, in which the outside is ours")
    commands = ["ip link set lo up"] + ["ip addr add %s/32 dev lo" % a for a in FORBIDDEN]
    os.environ["TRILANE_TEST_NAMESPACE"] = "1"
    os.execvp("unshare", ["unshare", "-Urn", "sh", "-c", " && ".join(commands) + ' && exec "$@"',
                          "sh", sys.executable, "-B"] + sys.argv)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Outside(unittest.TestCase):
    """One platform for a class: NATS, a control plane, a node, and the outside."""

    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.origin = cls.start(outside.Origin())
        cls.origin6 = cls.start(outside.Origin("::1", cls.origin.port))
        cls.trap = [cls.start(outside.Origin(a, cls.origin.port)) for a in FORBIDDEN]
        server = cls.platform.issue_service("acme", "origin")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server["cert"], server["key"])
        cls.tls = cls.start(outside.Origin(tls=context))
        strange = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        strange.load_cert_chain(*cls.self_signed())
        cls.untrusted = cls.start(outside.Origin(tls=strange))
        inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cls.platform.ca))
        inside.verify_mode = ssl.CERT_REQUIRED
        inside.set_alpn_protocols(["h2", "http/1.1"])
        inside.load_cert_chain(server["cert"], server["key"])
        cls.inside = cls.start(outside.Origin(tls=inside))
        cls.nobody = trilane.free_port()
        cls.names = cls.start(outside.Names({
            "origin.test": ["127.0.0.1"], "limited.test": ["127.0.0.1"],
            "inside.test": ["127.0.0.1"], "two.test": ["127.0.0.2", "127.0.0.1"],
            "mixed.test": ["10.1.2.3", "127.0.0.1"], "mapped.test": ["::ffff:127.0.0.1"],
            "rebind.test": [["127.0.0.1"], ["10.1.2.3"]],
            "loop.guarded.test": ["127.0.0.1"], "private.guarded.test": ["10.1.2.3"],
            "metadata.guarded.test": ["169.254.169.254"], "nat64.guarded.test": ["64:ff9b::a01:203"],
            "sixtofour.guarded.test": ["2002:a01:203::1"], "zero.guarded.test": ["0.0.0.0"],
            "local6.guarded.test": ["::1"]}))
        cls.cp = cls.platform.control_plane().start()
        cls.node = cls.platform.node("node-1", access_log=cls.platform.directory / "access.log",
                                     dns_servers="127.0.0.1:%d" % cls.names.port)
        cls.node.env["SSL_CERT_FILE"] = str(cls.platform.ca)
        cls.node.start(graceful_timeout_ms=300)
        cls.publish()

    @classmethod
    def start(cls, thing):
        cls.addClassCleanup(thing.stop)
        return thing

    @classmethod
    def self_signed(cls):
        cert, key = cls.platform.directory / "self.pem", cls.platform.directory / "self.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                        "-out", cert], check=True, capture_output=True)
        return cert, key

    @classmethod
    def publish(cls, **options):
        ports = [cls.origin.port, cls.tls.port, cls.untrusted.port, cls.inside.port, cls.nobody,
                 cls.node.ports["listen-proxy"], cls.node.ports["listen-admin"]]
        files = {"platform.yaml": outside.platform_yaml(ports, **options)}
        before = cls.node.version()
        cls.cp("publish", "--again", "-m", "test", cls.platform.write_policies(files))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it")

    # ---- callers ----

    def headers(self, who="web", more=None):
        headers = {} if who is None else {"Authorization": "Bearer " + outside.TOKENS[who]}
        headers.update(more or {})
        return headers

    def ask(self, target, method="GET", who="web", body=None, headers=None, conn=None):
        """A request to the proxy port with 'target' as it is on the request line."""
        own = conn or http.client.HTTPConnection("127.0.0.1", self.node.ports["listen-proxy"],
                                                 timeout=60)
        try:
            own.request(method, target, body, self.headers(who, headers))
            answer = own.getresponse()
            return Answer(answer.status, dict((k.lower(), v) for k, v in answer.getheaders()),
                          answer.read())
        finally:
            if conn is None:
                own.close()

    def url(self, path, host="127.0.0.1", port=None):
        return "http://%s:%d%s" % (host, port or self.origin.port, path)

    def fetch(self, url, **options):
        return self.ask("/v1/fetch?url=" + urllib.parse.quote(url, safe=""), **options)

    def refused(self, answer, code, status=403):
        """Checks a refusal, whole: status, header and body."""
        self.assertEqual((answer.status, answer.headers.get("x-trilane-code")), (status, code),
                         answer.body)
        told = answer.json()
        self.assertEqual(told["code"], code)
        self.assertTrue(told["message"] and told["fix"])
        return told

    def connect(self, authority, who="web", early=b""):
        """A CONNECT; the socket and the answer's head."""
        s = socket.create_connection(("127.0.0.1", self.node.ports["listen-proxy"]), 60)
        self.addCleanup(s.close)
        token = "" if who is None else ("Proxy-Authorization: Bearer %s\r\n" % outside.TOKENS[who])
        s.sendall(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (authority, authority, token))
                  .encode() + early)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = s.recv(1)
            if not byte:
                break
            head += byte
        return s, head

    def raw(self, request):
        """Sends bytes; all that comes back until the end."""
        with socket.create_connection(("127.0.0.1", self.node.ports["listen-proxy"]), 60) as s:
            s.sendall(request)
            got = b""
            try:
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        return got, "end"
                    got += piece
            except ConnectionResetError:
                return got, "reset"

    def get_raw(self, path, version="1.1", fields="Connection: close\r\n"):
        """A GET of the origin's path; all that comes back."""
        return self.raw(("GET %s HTTP/%s\r\nHost: h\r\nAuthorization: Bearer %s\r\n%s\r\n" % (
            self.url(path), version, outside.TOKENS["web"], fields)).encode())

    def curl(self, *args):
        return subprocess.run(["curl", "-sS", "--max-time", "60", "--noproxy", ""] + list(args),
                              capture_output=True, timeout=90, check=False)

    def curl_proxy(self, *args):
        return self.curl("-x", self.node.proxy, "--proxy-header",
                         "Proxy-Authorization: Bearer " + outside.TOKENS["web"], *args)

    def publish_port(self, port, **options):
        """Publishes sources with one port more."""
        ports = [self.origin.port, self.tls.port, self.untrusted.port, self.inside.port,
                 self.nobody, port, self.node.ports["listen-proxy"], self.node.ports["listen-admin"]]
        before = self.node.version()
        self.cp("publish", "--again", "-m", "a port more", self.platform.write_policies(
            {"platform.yaml": outside.platform_yaml(ports, **options)}))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it")

    def log_line(self, *parts):
        lines = (self.platform.directory / "access.log").read_text().splitlines()
        return next((line for line in lines if all(p in line for p in parts)), None)


class ProxyLane(Outside):
    """Everything but the node's end."""

    def tearDown(self):
        self.assertTrue(self.node.alive(), self.node.log()[-3000:])

    # ---- the three forms ----

    def test_absolute_form(self):
        answer = self.ask(self.url("/public/echo?a=b"))
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json()["target"], "/public/echo?a=b")

    def test_fetch(self):
        answer = self.fetch(self.url("/public/echo?a=b%20c", host="origin.test"))
        self.assertEqual((answer.status, answer.json()["target"]), (200, "/public/echo?a=b%20c"))
        fields = dict(answer.json()["headers"])
        self.assertEqual(fields["host"], "origin.test:%d" % self.origin.port)

    def test_curl(self):
        done = self.curl_proxy("--data-binary", "x" * 5000, self.url("/public/echo"))
        self.assertEqual(json.loads(done.stdout)["size"], 5000, done.stderr)

    def test_connect_to_tls_with_curl(self):
        done = self.curl_proxy("--cacert", str(self.platform.ca), "--http1.1",
                               "https://localhost:%d/public/echo" % self.tls.port)
        self.assertEqual(json.loads(done.stdout)["method"], "GET", done.stderr)

    def test_fetch_over_tls(self):
        answer = self.fetch("https://localhost:%d/public/echo" % self.tls.port)
        self.assertEqual(answer.status, 200, answer.body)
        self.refused(self.fetch("https://localhost:%d/public/echo" % self.untrusted.port),
                     "EGRESS_UNTRUSTED", 502)

    def test_fetch_over_mutual_tls(self):
        """The profile's way: the node's certificate, the platform's CA, a SPIFFE id as the name."""
        url = "https://inside.test:%d/public/echo"
        answer = self.fetch(url % self.inside.port)
        self.assertEqual(answer.status, 200, answer.body)
        self.refused(self.fetch(url % self.untrusted.port), "EGRESS_UNTRUSTED", 502)

    def test_ipv6_literal(self):
        answer = self.ask(self.url("/public/echo", host="[0:0:0:0:0:0:0:1]"))
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(dict(answer.json()["headers"])["host"], "[::1]:%d" % self.origin.port)

    def test_proxy_port_under_tls_with_a_certificate(self):
        mine = self.platform.issue_service("acme", "web")
        done = self.curl("-x", "https://localhost:%d" % self.node.ports["listen-proxy-tls"],
                         "--proxy-cacert", str(self.platform.ca), "--proxy-cert", mine["cert"],
                         "--proxy-key", mine["key"], "-H", "Authorization: Bearer of-the-origin",
                         self.url("/public/echo"))
        told = json.loads(done.stdout)
        self.assertEqual(dict(told["headers"])["authorization"], "Bearer of-the-origin")

    # ---- fields ----

    def test_fields_of_a_request(self):
        answer = self.ask(self.url("/public/echo"), headers={
            "X-Kept": "yes", "Connection": "keep-alive, x-hop", "X-Hop": "no", "TE": "trailers",
            "Keep-Alive": "timeout=5", "Proxy-Connection": "keep-alive", "X-Tenant-Id": "acme",
            "X-Caller-Id": "spiffe://x/y", "X-Trilane-Code": "OK", "X_Trilane_Rule": "x",
            "X-Request-Timeout-Ms": "5000", "X-Request-Id": "r-1", "X-Correlation-Id": "c-1",
            "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "Tracestate": "a=b", "Upgrade": "websocket", "Via": "1.1 elsewhere"})
        listed = answer.json()["headers"]
        fields = dict(listed)
        self.assertEqual(fields["x-kept"], "yes")
        self.assertEqual((fields["x-request-id"], fields["x-correlation-id"]), ("r-1", "c-1"))
        self.assertRegex(fields["traceparent"],
                         "^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$")
        self.assertNotIn("b7ad6b7169203331", fields["traceparent"])
        self.assertEqual(fields["tracestate"], "a=b")
        self.assertEqual([v for n, v in listed if n == "via"][0], "1.1 elsewhere")
        for name in ("authorization", "x-hop", "te", "keep-alive", "proxy-connection", "upgrade",
                     "x-tenant-id", "x-caller-id", "x-trilane-code", "x_trilane_rule",
                     "x-request-timeout-ms"):
            self.assertNotIn(name, fields)
        self.assertEqual(fields["connection"], "close")

    def test_proxy_authorization_leaves_the_other_alone(self):
        answer = self.ask(self.url("/public/echo"), who=None, headers={
            "Proxy-Authorization": "Bearer " + outside.TOKENS["web"],
            "Authorization": "Basic b3JpZ2lu"})
        fields = dict(answer.json()["headers"])
        self.assertEqual(fields["authorization"], "Basic b3JpZ2lu")
        self.assertNotIn("proxy-authorization", fields)

    def test_fields_of_an_answer(self):
        answer = self.ask(self.url("/public/pretend"))
        self.assertEqual((answer.status, answer.headers["x-kept"]), (200, "yes"))
        for name in ("x-trilane-code", "x-hop", "keep-alive", "proxy-authenticate"):
            self.assertNotIn(name, answer.headers)

    # ---- what is refused before anything is dialled ----

    def test_unknown_destination(self):
        self.refused(self.ask("http://elsewhere.test/"), "EGRESS_UNKNOWN")
        self.refused(self.ask(self.url("/public/echo"), who="other"), "EGRESS_UNKNOWN")

    def test_port_method_and_path(self):
        self.refused(self.ask(self.url("/public/echo", port=1)), "EGRESS_METHOD")
        self.refused(self.ask(self.url("/public/echo"), method="PATCH"), "EGRESS_METHOD")
        self.refused(self.ask(self.url("/secret/echo")), "EGRESS_METHOD")
        self.refused(self.ask(self.url("/public/../secret/echo")), "EGRESS_METHOD")
        self.refused(self.ask(self.url("/publicity")), "EGRESS_METHOD")

    def test_methods_are_in_capitals(self):
        """A server may take "trace" for TRACE, which never goes out, or pass by a rule's DELETE."""
        before = self.origin.connections
        for method in ("trace", "Trace", "delete", "connect", "get"):
            self.refused(self.ask(self.url("/public/echo", host="limited.test"), method=method),
                         "EGRESS_METHOD")
        self.assertEqual(self.origin.connections, before)

    def test_destinations_of_two_readings(self):
        before = self.origin.connections
        for target in (self.url("/public/%2e%2e/secret/echo"), self.url("/public//echo"),
                       self.url("/public/..;/secret/echo"), self.url("/public/a%2fb"),
                       "http://0177.0.0.1:%d/public/echo" % self.origin.port,
                       "http://2130706433:%d/public/echo" % self.origin.port,
                       "http://127.1:%d/public/echo" % self.origin.port,
                       "http://127.0.0.1:%d@elsewhere.test/public/echo" % self.origin.port):
            got, _ = self.raw(("GET %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n"
                               "Connection: close\r\n\r\n" % (target, outside.TOKENS["web"]))
                              .encode())
            self.assertTrue(got.startswith(b"HTTP/1.1 400 "), (target, got))
            self.refused(self.fetch(target), "EGRESS_DESTINATION", 400)
        self.assertEqual(self.origin.connections, before)

    def test_other_paths_of_the_node(self):
        self.refused(self.ask("/elsewhere"), "NO_ROUTE", 404)

    def test_policy_denial_names_rule_and_version(self):
        told = self.refused(self.ask(self.url("/public/echo"), method="DELETE"), "POLICY_DENIED")
        self.assertEqual((told["rule"], told["version"]),
                         ("acme/origin/no-deletes", self.node.version()))
        self.refused(self.ask(self.url("/public/echo"), who="stranger"), "POLICY_DENIED")

    def test_unauthenticated(self):
        answer = self.fetch(self.url("/public/echo"), who=None)
        self.refused(answer, "UNAUTHENTICATED", 401)
        self.assertIn("Bearer", answer.headers["www-authenticate"])
        answer = self.ask(self.url("/public/echo"), who=None)
        self.refused(answer, "UNAUTHENTICATED", 407)
        self.assertIn("Bearer", answer.headers["proxy-authenticate"])
        _, head = self.connect("127.0.0.1:%d" % self.origin.port, who=None)
        self.assertTrue(head.startswith(b"HTTP/1.1 407 "), head)

    def test_rate_limit(self):
        answers = [self.ask(self.url("/", host="limited.test")) for _ in range(6)]
        limited = [a for a in answers if a.status == 429]
        self.assertTrue(limited)
        told = self.refused(limited[0], "RATE_LIMITED", 429)
        self.assertEqual(told["limit"], "acme/limited")
        self.assertGreaterEqual(int(limited[0].headers["retry-after"]), 1)

    def test_a_refusal_keeps_the_connection(self):
        conn = http.client.HTTPConnection("127.0.0.1", self.node.ports["listen-proxy"], timeout=60)
        self.addCleanup(conn.close)
        self.refused(self.ask("http://elsewhere.test/", conn=conn), "EGRESS_UNKNOWN")
        before = conn.sock
        self.assertEqual(self.ask(self.url("/public/echo"), conn=conn).status, 200)
        self.assertIs(conn.sock, before)

    # ---- addresses ----

    def test_special_addresses_after_resolution(self):
        for name in ("loop", "private", "metadata", "nat64", "sixtofour", "zero", "local6"):
            answer = self.ask(self.url("/", host=name + ".guarded.test"))
            self.refused(answer, "EGRESS_ADDRESS")
        for literal in ("10.1.2.3", "169.254.169.254", "[64:ff9b::a01:203]"):
            self.refused(self.ask(self.url("/", host=literal)), "EGRESS_ADDRESS")
            _, head = self.connect("%s:%d" % (literal, self.origin.port))
            self.assertIn(b"x-trilane-code: EGRESS_ADDRESS", head)
        self.assertEqual([t.connections for t in self.trap], [0, 0])

    def test_the_trap_would_be_seen(self):
        """What the test before relies on: those addresses are there, and listen."""
        extra = outside.Origin(FORBIDDEN[0])
        self.addCleanup(extra.stop)
        with socket.create_connection((FORBIDDEN[0], extra.port), 5):
            trilane.wait_until(lambda: extra.connections == 1, what="the connection")

    def test_only_the_allowed_of_several_is_dialled(self):
        answer = self.ask(self.url("/public/echo", host="mixed.test"))
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual([t.connections for t in self.trap], [0, 0])

    def test_the_next_address_is_tried(self):
        """Nobody listens on the first of two that may be dialled."""
        self.assertEqual(self.ask(self.url("/public/echo", host="two.test")).status, 200)

    def test_mapped_address_is_judged_and_dialled_as_ipv4(self):
        self.assertEqual(self.ask(self.url("/public/echo", host="mapped.test")).status, 200)

    def test_rebinding(self):
        """The first answer is judged and dialled; the name is not asked about again in between."""
        asked = len([n for n, kind in self.names.asked if n == "rebind.test" and kind == 1])
        self.assertEqual(self.ask(self.url("/public/echo", host="rebind.test")).status, 200)
        now = len([n for n, kind in self.names.asked if n == "rebind.test" and kind == 1])
        self.assertEqual(now - asked, 1)
        self.refused(self.ask(self.url("/public/echo", host="rebind.test")), "EGRESS_ADDRESS")
        self.assertEqual([t.connections for t in self.trap], [0, 0])

    def test_unresolved(self):
        self.refused(self.ask(self.url("/", host="none.guarded.test")), "EGRESS_UNRESOLVED", 502)

    def test_nobody_listens(self):
        self.refused(self.ask(self.url("/public/echo", port=self.nobody)), "UPSTREAM_CONNECT", 503)

    def test_no_loops(self):
        for name in ("listen-proxy", "listen-admin"):
            answer = self.ask(self.url("/public/echo", port=self.node.ports[name]))
            self.refused(answer, "EGRESS_LOOP", 508)
        via = self.ask(self.url("/public/echo")).headers["via"]
        answer = self.ask(self.url("/public/echo"), headers={"Via": "1.1 a, " + via})
        self.refused(answer, "EGRESS_LOOP", 508)

    # ---- framing ----

    def test_every_framing(self):
        got = self.ask(self.url("/public/chunked?n=500"))
        self.assertEqual(got.body, b"".join(b"%d," % i for i in range(500)))
        self.assertEqual(self.ask(self.url("/public/until_close")).body, b"all of it")
        self.assertEqual(self.ask(self.url("/public/204")).status, 204)
        answer = self.ask(self.url("/public/304"))
        self.assertEqual((answer.status, answer.headers["etag"]), (304, '"x"'))
        answer = self.ask(self.url("/public/echo"), method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertGreater(int(answer.headers["content-length"]), 100)
        self.assertEqual(self.ask(self.url("/public/long")).body, b"01234")

    def test_trailers_and_interim_answers_go_through(self):
        got, _ = self.get_raw("/public/chunked?n=1")
        self.assertTrue(got.endswith(b"0\r\nx-sum: done\r\n\r\n"), got)
        got, _ = self.get_raw("/public/interim")
        self.assertTrue(got.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n"), got)
        self.assertIn(b"HTTP/1.1 200 OK\r\n", got)

    def test_callers_of_http_1_0(self):
        got, how = self.get_raw("/public/chunked?n=3", version="1.0", fields="")
        head, _, body = got.partition(b"\r\n\r\n")
        self.assertEqual((body, how), (b"0,1,2,", "end"))
        self.assertNotIn(b"chunked", head)

    def test_redirects_are_passed_on(self):
        answer = self.ask(self.url("/public/redirect"))
        self.assertEqual((answer.status, answer.headers["location"]),
                         (302, "http://10.1.2.3/secret"))
        self.assertEqual([t.connections for t in self.trap], [0, 0])

    def test_chunked_request(self):
        pieces = [b"a" * 70000, b"b", b"c" * 3000]
        answer = self.ask(self.url("/public/echo"), method="POST", body=iter(pieces))
        told = answer.json()
        self.assertEqual((told["size"], told["sha256"]),
                         (73001, hashlib.sha256(b"".join(pieces)).hexdigest()))
        self.assertEqual(dict(told["headers"])["transfer-encoding"], "chunked")

    def test_expect_continue(self):
        done = self.curl_proxy("-H", "Expect: 100-continue", "--data-binary", "y" * 100000,
                               self.url("/public/echo"))
        self.assertEqual(json.loads(done.stdout)["size"], 100000, done.stderr)

    def test_smuggling(self):
        before = len(self.origin.heads)
        for extra in ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                      "Content-Length: 5\r\nContent-Length: 6\r\n",
                      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                      "Transfer-Encoding: xchunked\r\n", "Content-Length: +5\r\n",
                      "Transfer-Encoding : chunked\r\n", "X: a\r\n b\r\n", "Host: other\r\n",
                      "Content-Length: 5, 5\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n",
                      "Transfer-Encoding: \vchunked\r\n", "Transfer-Encoding:\r\n",
                      "Transfer-Encoding: chunked, gzip\r\n", "X: a\n", "X: a\rb\r\n",
                      "X: a\0b\r\n", "X\0: a\r\n", ": a\r\n", "X\r\n"):
            got, _ = self.raw(("POST %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n%s\r\n"
                               "0\r\n\r\nGET /public/smuggled HTTP/1.1\r\n\r\n" % (
                                   self.url("/public/echo"), outside.TOKENS["web"],
                                   extra)).encode())
            self.assertRegex(got[:13].decode(), "^HTTP/1.1 (400|501) ", extra)
        self.assertEqual(len(self.origin.heads), before)

    def test_what_is_no_request_is_counted(self):
        def refused():
            return self.node.metric("trilane_requests_refused_early_total") or 0
        before = refused()
        got, _ = self.raw(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n")
        self.assertIn(b" 400 ", got.split(b"\r\n")[0])
        trilane.wait_until(lambda: refused() == before + 1, what="the metric")

    def test_what_breaks_behind_its_head_is_logged_as_that(self):
        got, _ = self.raw(("POST %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n"
                           "Transfer-Encoding: chunked\r\nX-Request-Id: broken-chunk\r\n\r\n"
                           "5\r\nhello\r\nnothing hexadecimal\r\n" % (
                               self.url("/public/echo"), outside.TOKENS["web"])).encode())
        self.assertIn(b" 400 ", got.split(b"\r\n")[0])
        line = trilane.wait_until(lambda: self.log_line("broken-chunk"),
                                  what="the line in the access log")
        self.assertIn("code=MALFORMED", line)
        self.assertIn("http=400", line)

    # ---- upstreams that lie ----

    def test_malformed_answers(self):
        for path in ("garbage", "two_framings", "two_lengths", "upgrade", "big_head"):
            self.refused(self.ask(self.url("/public/" + path)), "UPSTREAM_MALFORMED", 502)
        self.refused(self.ask(self.url("/public/silent")), "UPSTREAM_RESET", 502)
        got, _ = self.get_raw("/public/interims")
        self.assertIn(b"HTTP/1.1 502 Bad Gateway\r\n", got)
        self.assertLess(got.count(b"HTTP/1.1 103 "), 20)

    def test_cut_answers_are_seen_to_be_cut(self):
        for path in ("short", "cut_chunk"):
            got, how = self.get_raw("/public/" + path, fields="")
            self.assertEqual(how, "reset", (path, got))

    def test_answer_over_the_bound(self):
        too_much = (16 << 20) + 1
        self.refused(self.ask(self.url("/public/bytes?n=%d" % too_much)), "EGRESS_TOO_LARGE", 502)

    def test_deadline(self):
        self.origin.gone.clear()
        self.refused(self.ask(self.url("/public/hang"), headers={"X-Request-Timeout-Ms": "4000"}),
                     "DEADLINE_EXCEEDED", 504)
        self.assertTrue(self.origin.gone.wait(60))

    def test_caller_leaves(self):
        self.origin.gone.clear()
        before = len(self.origin.heads)
        s = socket.create_connection(("127.0.0.1", self.node.ports["listen-proxy"]), 60)
        s.sendall(("GET %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n\r\n" % (
            self.url("/public/hang"), outside.TOKENS["web"])).encode())
        trilane.wait_until(lambda: len(self.origin.heads) > before, what="the request outside")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        self.assertTrue(self.origin.gone.wait(60))

    # ---- large bodies ----

    def test_large_body_to_a_slow_reader_outside(self):
        body = os.urandom(10 << 20)
        outside.Origin.gate.clear()
        got = []
        thread = threading.Thread(target=lambda: got.append(
            self.ask(self.url("/public/slow"), method="POST", body=body)))
        thread.start()
        try:
            self.assert_memory_bounded()
        finally:
            outside.Origin.gate.set()
            thread.join(60)
        told = got[0].json()
        self.assertEqual((told["size"], told["sha256"]),
                         (len(body), hashlib.sha256(body).hexdigest()))

    def test_large_body_to_a_slow_caller(self):
        size = 10 << 20
        with socket.create_connection(("127.0.0.1", self.node.ports["listen-proxy"]), 60) as s:
            s.sendall(("GET %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\n"
                       "Connection: close\r\n\r\n" % (self.url("/public/bytes?n=%d" % size),
                                                      outside.TOKENS["web"])).encode())
            self.assert_memory_bounded()
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(65536)
            count = len(got.partition(b"\r\n\r\n")[2])
            while True:
                piece = s.recv(1 << 20)
                if not piece:
                    break
                count += len(piece)
        self.assertEqual(count, size)

    def assert_memory_bounded(self):
        """Bytes that the node took in come to a stop long before all of it."""
        def resident():
            with open("/proc/%d/statm" % self.node.popen.pid) as statm:
                return int(statm.read().split()[1]) * 4096
        before = resident()
        self.wait_still(resident)
        self.assertLess(resident() - before, 8 << 20)

    @staticmethod
    def wait_still(value):
        """Until it has not moved for five looks."""
        seen = []

        def still():
            seen.append(value())
            return len(seen) > 5 and len(set(seen[-5:])) == 1
        trilane.wait_until(still, what="a value to stand still", step=0.1)

    # ---- tunnels ----

    def test_tunnel_ends_by_halves(self):
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.publish_port(server.getsockname()[1])
        s, head = self.connect("127.0.0.1:%d" % server.getsockname()[1], early=b"early ")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        trilane.wait_until(lambda: self.node.metric("trilane_proxy_tunnels") == 1, what="the metric")
        there, _ = server.accept()
        self.addCleanup(there.close)
        s.sendall(b"bytes")
        s.shutdown(socket.SHUT_WR)
        got = b""
        while True:
            piece = there.recv(65536)
            if not piece:
                break
            got += piece
        self.assertEqual(got, b"early bytes")
        there.sendall(b"still answers" * 100000)
        there.shutdown(socket.SHUT_WR)
        answer = b""
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            answer += piece
        self.assertEqual(answer, b"still answers" * 100000)
        trilane.wait_until(lambda: self.node.metric("trilane_proxy_tunnels") == 0,
                           what="the tunnel to end")
        line = trilane.wait_until(lambda: self.log_line("method=CONNECT", "out=1300000"),
                                  what="the line in the access log")
        self.assertIn(" in=11 ", line)
        self.assertIn("upstream=127.0.0.1:%d " % server.getsockname()[1], line)

    def test_tunnel_is_cut_with_its_upstream(self):
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.publish_port(server.getsockname()[1])
        s, _ = self.connect("127.0.0.1:%d" % server.getsockname()[1])
        there, _ = server.accept()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        there.close()
        with self.assertRaises(ConnectionResetError):
            s.recv(1)

    def test_idle_tunnel_ends(self):
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.addCleanup(self.publish)
        self.publish_port(server.getsockname()[1], idle="1s")
        began = time.monotonic()
        s, _ = self.connect("127.0.0.1:%d" % server.getsockname()[1])
        there, _ = server.accept()
        self.addCleanup(there.close)
        with self.assertRaises(ConnectionResetError):
            s.recv(1)
        self.assertGreater(time.monotonic() - began, 0.9)

    def test_tunnel_is_decided_anew(self):
        """A snapshot that takes the address range away ends the tunnel that used it."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.publish_port(server.getsockname()[1])
        s, _ = self.connect("127.0.0.1:%d" % server.getsockname()[1])
        there, _ = server.accept()
        self.addCleanup(there.close)
        s.sendall(b"x")
        self.assertEqual(there.recv(1), b"x")
        self.publish_port(server.getsockname()[1], idle="90s")  # still allowed: it goes on.
        s.sendall(b"y")
        self.assertEqual(there.recv(1), b"y")
        self.addCleanup(self.publish)
        self.publish_port(server.getsockname()[1], ranges="")
        with self.assertRaises(ConnectionResetError):
            s.recv(1)
        self.assertIsNotNone(trilane.wait_until(
            lambda: self.log_line("method=CONNECT", "code=EGRESS_ADDRESS"), what="the log line"))

    # ---- figures ----

    def test_figures(self):
        self.assertEqual(self.ask(self.url("/public/echo")).status, 200)
        trilane.wait_until(lambda: b'proxy_upstream_latency_ms_count{domain="127.0.0.1"}' in
                           trilane.http("GET", self.node.admin + "/metrics")[2], what="the metric")
        line = trilane.wait_until(lambda: self.log_line(
            "lane=proxy", "code=OK", "method=GET", "upstream=127.0.0.1:%d" % self.origin.port),
            what="the line in the access log")
        self.assertIn("target=egress/acme/origin", line)


class Drain(Outside):
    """The node's end."""

    def test_drain_ends_tunnels(self):
        s, head = self.connect("127.0.0.1:%d" % self.origin.port)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        self.assertEqual(self.node.stop(timeout=60), 0)
        with self.assertRaises(ConnectionResetError):
            s.recv(1)


if __name__ == "__main__":
    enter_namespace()
    unittest.main()
