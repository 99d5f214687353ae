"""What TransportProfiles demand of connections, by handshakes: versions of TLS and certificates, of
callers and of upstreams; and that connections to upstreams grow old without a lost call."""

import concurrent.futures
import pathlib
import queue
import socket
import ssl
import threading
import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ENVIRONMENT = "spec: {security: dev, trustDomain: trilane.test}"


class Gate:
    """A port before a server: it counts connections, and may speak TLS."""

    def __init__(self, port, context=None):
        self.to, self.context = port, context
        self.versions = []  # of the connections that opened; None in clear.
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.socks = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._open, args=(sock,), daemon=True).start()

    def _open(self, sock):
        try:
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            out = socket.create_connection(("127.0.0.1", self.to))
        except OSError:
            sock.close()
            return
        self.socks += [sock, out]
        self.versions.append(sock.version() if self.context else None)
        for a, b in ((sock, out), (out, sock)):
            threading.Thread(target=self._pipe, args=(a, b), daemon=True).start()

    @staticmethod
    def _pipe(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        for sock in (a, b):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        for sock in self.socks:
            sock.close()


class OnePlatform(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = echo.Server("a")
        cls.addClassCleanup(cls.server.stop)
        cls.p = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.p.close)
        cls.cp = cls.p.control_plane().start(head_interval_ms=100)
        cls.node = cls.p.node("node-1", workers=2).start()
    published = 0

    def sources(self, port, environment="", **options):
        text = echo.platform_yaml([port], **options)
        return self.p.write_policies({"platform.yaml": text.replace(
            ENVIRONMENT, ENVIRONMENT[:-1] + environment + "}")})

    def publish(self, *args, **kwargs):
        OnePlatform.published += 1  # never the content of before, which would be no new version.
        kwargs["timeout"] = "%dms" % (60000 + OnePlatform.published)
        before = self.node.version()
        self.cp("publish", "-m", "test", self.sources(*args, **kwargs))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it")

    def gate(self, context=None):
        gate = Gate(self.server.port, context)
        self.addCleanup(gate.close)
        return gate

    def stub(self):
        channel = echo.channel(self.node)
        self.addCleanup(channel.close)
        return echo.stubs.EchoStub(channel)

    def status(self, stub=None):
        """"OK", or the code of the refusal."""
        try:
            (stub or self.stub()).Say(pb.Words(text="x"), timeout=60, metadata=echo.token("web"))
            return "OK"
        except grpc.RpcError as error:
            return dict(error.trailing_metadata() or ()).get("x-trilane-code", error.code().name)


class Callers(OnePlatform):
    """What the Environment's profile asks of callers."""

    LISTENER = """
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: callers}
spec: {listener: {%s}}
"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.web = cls.p.issue_service("acme", "web")

    def demand(self, listener):
        if listener is None:
            self.publish(self.server.port)
        else:
            self.publish(self.server.port, environment=", transport: callers",
                         extra=self.LISTENER % listener)

    def context(self, identity=None, least=V12, most=V13):
        context = self.p.tls_context(*(identity["cert"], identity["key"]) if identity else ())
        context.minimum_version, context.maximum_version = least, most
        return context

    def opens(self, context, port="listen-tls", session=None, keep=None):
        """Whether a handshake ends and HTTP/2's first frame, or an answer, comes behind it."""
        h2 = port == "listen-tls"
        context.set_alpn_protocols(["h2"] if h2 else ["http/1.1"])
        hello = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) if h2 else
                 b"GET http://nowhere.test/ HTTP/1.1\r\nhost: nowhere.test\r\n\r\n")
        self.refused = None
        try:
            raw = socket.create_connection(("127.0.0.1", self.node.ports[port]), 60)
            with context.wrap_socket(raw, server_hostname="localhost", session=session) as sock:
                sock.sendall(hello)
                answer = sock.recv(9)
                if keep is not None:
                    keep.append(sock.session)
                return answer[3:4] == b"\x04" if h2 else answer[:5] == b"HTTP/"
        except (ssl.SSLError, ConnectionError) as problem:
            self.refused = str(problem)
            return False

    def test_versions(self):
        rows = (  # listener, 1.2, 1.3
            ("tlsMin: TLSv1.3", False, True),
            ("tlsMax: TLSv1.2", True, False),
            ("tlsMin: TLSv1.2", True, True),
            (None, True, True),
        )
        for listener, old, new in rows:
            self.demand(listener)
            for port in ("listen-tls", "listen-proxy-tls"):
                with self.subTest(listener=listener, port=port):
                    self.assertEqual(self.opens(self.context(most=V12), port), old)
                    if not old:
                        self.assertIn("PROTOCOL_VERSION", self.refused)
                    self.assertEqual(self.opens(self.context(least=V13), port), new)

    def test_certificates(self):
        """Nobody without one gets in, by a new connection, an old one or a session of before."""
        web = self.web
        for version in (V12, V13):
            with self.subTest(version=version):
                self.demand(None)
                sessions = []
                bare = self.context(least=version, most=version)
                self.assertTrue(self.opens(bare, keep=sessions))
                self.assertTrue(self.opens(bare, session=sessions[0]))
                self.demand("tls: mtls")
                self.assertFalse(self.opens(self.context(most=version)))
                self.assertFalse(self.opens(self.context(most=version), "listen-proxy-tls"))
                self.assertFalse(self.opens(bare, session=sessions[0]))
                self.assertTrue(self.opens(self.context(web, most=version)))
                self.assertTrue(self.opens(self.context(web, most=version), "listen-proxy-tls"))
        # 1.3 shakes hands before the server has judged: the alert is the first that is read.
        self.assertFalse(self.opens(self.context(least=V13)))
        self.assertIn("CERTIFICATE_REQUIRED", self.refused.upper().replace(" ", "_"))
        # Clear text is nobody's certificate: nobody listens.
        for port in ("listen", "listen-proxy"):
            trilane.wait_until(lambda p=port: self.is_closed(p), what="the port to be closed")
        self.demand("tls: any")
        self.assertTrue(self.opens(self.context()))
        trilane.wait_until(lambda: self.status() == "OK", what="cleartext again")

    def is_closed(self, port):
        try:
            socket.create_connection(("127.0.0.1", self.node.ports[port]), 60).close()
            return False
        except ConnectionRefusedError:
            return True

    def stream(self, identity):
        credentials = grpc.ssl_channel_credentials(self.p.ca.read_bytes(), *(
            pathlib.Path(identity[kind]).read_bytes() for kind in ("key", "cert")) if identity else ())
        channel = grpc.secure_channel("localhost:%d" % self.node.ports["listen-tls"], credentials,
                                      options=[("grpc.enable_retries", 0),
                                               ("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        return echo.stubs.EchoStub(channel).SayMany(
            pb.Words(text="x", count=1 << 30), timeout=120, metadata=echo.token("web"))

    def test_open_connections_are_looked_over(self):
        self.demand(None)
        bare, proven = self.stream(None), self.stream(self.web)
        self.assertEqual((next(bare).count, next(proven).count), (0, 0))
        self.demand("tls: mtls")
        with self.assertRaises(grpc.RpcError):
            for _ in bare:
                pass
        self.assertEqual(next(proven).count, 1)
        proven.cancel()

    def test_what_is_not_so_is_not_published(self):
        both = "listener: {tls: mtls}"
        rows = (  # environment, profile of the service, further sources, what is said
            ("", "listener: {tlsMin: TLSv1.3, tlsMax: TLSv1.2}", "", "TL1108"),
            ("", "upstream: {tls: tls, tlsMin: TLSv1.3, tlsMax: TLSv1.2}", "", "TL1108"),
            ("", "upstream: {tlsMin: TLSv1.3}", "", "TL1114"),
            ("", "upstream: {tls: tls, tlsMin: TLSv1.1}", "", "TL1109"),
            ("", both, "", "TL1114"),
            (", transport: nobody", "", "", "TL1202"),
            (", transport: acme/own", "", self.LISTENER.replace(
                "{name: callers}", "{name: own, tenant: acme}") % "tls: mtls", "TL1203"),
            (", transport: usual", both, "", None),
        )
        for environment, profile, extra, code in rows:
            with self.subTest(environment=environment, profile=profile):
                done = self.cp.run("validate", self.sources(
                    self.server.port, environment=environment, profile=profile, extra=extra))
                said = done.stdout + done.stderr
                self.assertEqual(done.returncode, 1 if code else 0, said)
                if code:
                    self.assertRegex(said, r"platform.yaml:\d+:\d+", said)
                    self.assertIn(code, said)


class Upstreams(OnePlatform):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.identity = cls.p.issue_service("acme", "echo")

    def context(self, least=V12, most=V13, mutual=False):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.identity["cert"], self.identity["key"])
        context.minimum_version, context.maximum_version = least, most
        context.set_alpn_protocols(["h2"])
        if mutual:
            context.load_verify_locations(self.p.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def test_versions(self):
        old, new = self.gate(self.context(most=V12)), self.gate(self.context(least=V13))
        both = self.gate(self.context())
        rows = (  # gate, upstream, the version of the connection
            (old, "tls: tls", "TLSv1.2"),
            (old, "tls: tls, tlsMin: TLSv1.3", None),
            (new, "tls: tls, tlsMin: TLSv1.3", "TLSv1.3"),
            (new, "tls: tls, tlsMax: TLSv1.2", None),
            (both, "tls: tls, tlsMin: TLSv1.3", "TLSv1.3"),
            (both, "tls: tls, tlsMax: TLSv1.2", "TLSv1.2"),  # not by the connection of before.
            (both, "tls: tls", "TLSv1.3"),
        )
        for gate, upstream, version in rows:
            with self.subTest(upstream=upstream, version=version):
                before = len(gate.versions)
                self.publish(gate.port, profile="upstream: {%s}" % upstream)
                self.assertEqual(self.status(), "OK" if version else "UPSTREAM_CONNECT")
                self.assertEqual(gate.versions[before:], [version] if version else [])

    def test_mutual_tls(self):
        """A certificate of both sides, or there is no call: not to who speaks clear text, nor to who
        proves nothing that was asked for."""
        mutual, clear = self.gate(self.context(mutual=True)), self.gate()
        self.publish(mutual.port, profile="upstream: {tls: mtls, tlsMin: TLSv1.3}")
        self.assertEqual(self.status(), "OK")
        self.publish(clear.port, profile="upstream: {tls: mtls, tlsMin: TLSv1.3}")
        self.assertEqual(self.status(), "UPSTREAM_CONNECT")
        self.publish(mutual.port, profile="upstream: {tls: mtls, spiffe: "
                     "'spiffe://trilane.test/tenant/acme/service/web'}")
        self.assertEqual(self.status(), "UPSTREAM_CONNECT")

    def test_connections_grow_old_and_no_call_is_lost(self):
        gate = self.gate()
        self.publish(gate.port, profile="upstream: {maxAge: 200ms}")
        words = queue.Queue()
        self.addCleanup(words.put, None)
        chat = self.stub().Chat(iter(words.get, None), metadata=echo.token("web"), timeout=60)
        words.put(pb.Words(text="one"))
        self.assertEqual(next(chat).text, "re: one")
        stop = threading.Event()
        self.addCleanup(stop.set)
        failed, count = [], [0]

        def load():
            stub = self.stub()
            while not stop.is_set():
                status = self.status(stub)
                count[0] += 1
                if status != "OK":
                    failed.append(status)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(load)
            try:
                trilane.wait_until(lambda: len(gate.versions) >= 12 and count[0] > 200,
                                   what="connections that follow each other")
            finally:
                stop.set()
        self.assertEqual(failed, [])
        self.assertGreaterEqual(self.node.metric("trilane_upstream_connections_aged_total"), 10)
        # The first connection is old by now, and what it has goes on.
        words.put(pb.Words(text="two"))
        self.assertEqual(next(chat).text, "re: two")


if __name__ == "__main__":
    unittest.main(verbosity=2)
