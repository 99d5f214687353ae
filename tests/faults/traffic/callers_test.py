"""What callers and their connections do to a node, with real gRPC clients: certificates of every
kind, certificates that change while calls run, slow handshakes, thousands of idle connections, no
descriptors left; and what a drain, a strict environment and content that is too old do to callers."""

import contextlib
import datetime
import http.client
import os
import pathlib
import queue
import resource
import select
import signal
import socket
import sys
import time
import unittest

import grpc
import prometheus_client.openmetrics.parser
import prometheus_client.parser
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import trilane

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "integration" / "operator"))
import echo_service as echo  # noqa: E402

pb = echo.pb
SPIFFE = "spiffe://trilane.test/tenant/acme/service/web"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def write_key(path, key):
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM,
                                       serialization.PrivateFormat.PKCS8,
                                       serialization.NoEncryption()))


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def new_ca():
    """A CA that nobody trusts: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.utcnow()
    certificate = (x509.CertificateBuilder().subject_name(name("stranger"))
                   .issuer_name(name("stranger")).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(now)
                   .not_valid_after(now + datetime.timedelta(days=1))
                   .add_extension(x509.BasicConstraints(True, None), critical=True)
                   .sign(key, hashes.SHA256()))
    return certificate, key


def new_leaf(directory, label, ca, uris, days=(-1, 1)):
    """A client certificate below 'ca' = (certificate, key), valid from and to these days from now;
    returns what grpc.ssl_channel_credentials() takes: (key, chain)."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.utcnow()
    certificate, ca_key = ca
    builder = (x509.CertificateBuilder().subject_name(name(label))
               .issuer_name(certificate.subject).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(now + datetime.timedelta(days=days[0]))
               .not_valid_after(now + datetime.timedelta(days=days[1]))
               .add_extension(x509.BasicConstraints(False, None), critical=True)
               .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False,
                                            False), critical=True)
               .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]),
                              critical=False))
    if uris:
        builder = builder.add_extension(x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(uri) for uri in uris]), critical=False)
    signed = builder.sign(ca_key, hashes.SHA256())
    write_key(directory / (label + ".key"), key)
    return ((directory / (label + ".key")).read_bytes(),
            signed.public_bytes(serialization.Encoding.PEM))


class Callers(unittest.TestCase):
    """One platform for all; each test has a node of its own."""

    @classmethod
    def setUpClass(cls):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        cls.server = echo.Server("a")
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.addClassCleanup(cls.server.stop)
        cls.web = cls.platform.issue_service("acme", "web")
        cls.cp = cls.platform.control_plane().start(head_interval_ms=200)
        trilane.wait_until(cls.cp.leads, 60, "a leader")
        cls.publish()

    @classmethod
    def publish(cls, *changes, wait=None, **options):
        """Publishes the echo platform with some text of it changed; a node is awaited."""
        text = echo.platform_yaml([cls.server.port], **options)
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        cls.cp("publish", "--wait", "no", "-m", "test", cls.platform.write_policies({"platform.yaml": text}))
        version = cls.cp.json("history")["versions"][0]["version"]
        if wait:
            trilane.wait_until(lambda: wait.version() == version, what="version %d" % version)
        return version

    def start(self, wrapper=(), **flags):
        node = self.platform.node(self.id().rsplit("_", 1)[1] + "-%d" % time.monotonic_ns())
        self.addCleanup(node.stop)
        node.argv = list(wrapper) + node.argv
        node.start(poll_interval_ms=200, access_log="off", **flags)
        trilane.wait_until(node.ready, what="a snapshot\n" + node.log()[-2000:])
        return node

    def stub(self, node):
        channel = echo.channel(node)
        self.addCleanup(channel.close)
        return echo.stubs.EchoStub(channel)

    def say(self, stub, text="x", **options):
        return stub.Say(pb.Words(text=text, **options), timeout=trilane.PATIENCE_S, metadata=echo.token("web"))

    def chat(self, stub, metadata=None):
        """A call that is open until its caller ends it: (send a word and read the answer, call)."""
        words = queue.Queue()
        call = stub.Chat(iter(words.get, None), timeout=60,
                         metadata=echo.token("web") if metadata is None else metadata)
        self.addCleanup(call.cancel)

        def turn(text):
            words.put(pb.Words(text=text))
            self.assertEqual(next(call).text, "re: " + text)
        turn("begin")
        return turn, call

    # ---- who a certificate is ----

    def tls_channel(self, node, key=None, chain=None):
        credentials = grpc.ssl_channel_credentials(self.platform.ca.read_bytes(), key, chain)
        channel = grpc.secure_channel("localhost:%d" % node.ports["listen-tls"], credentials,
                                      options=[("grpc.enable_retries", 0)])
        self.addCleanup(channel.close)
        return channel

    def test_certificates(self):
        node = self.start()
        directory = self.platform.directory
        ca_key = serialization.load_pem_private_key(
            (self.platform.identities / "ca.key").read_bytes(), None)
        ca = (x509.load_pem_x509_certificate(self.platform.ca.read_bytes()), ca_key)
        other = SPIFFE.replace("web", "stranger")
        cases = [("valid", ca, [SPIFFE], (-1, 1), grpc.StatusCode.OK),
                 ("stranger", ca, [other], (-1, 1), grpc.StatusCode.PERMISSION_DENIED),
                 ("nobody", ca, [SPIFFE + "-2"], (-1, 1), grpc.StatusCode.UNAUTHENTICATED),
                 ("no-uri", ca, [], (-1, 1), grpc.StatusCode.UNAUTHENTICATED),
                 ("two-uris", ca, [SPIFFE, other], (-1, 1), grpc.StatusCode.UNAUTHENTICATED),
                 ("no-spiffe", ca, ["https://acme/web"], (-1, 1),
                  grpc.StatusCode.UNAUTHENTICATED),
                 ("expired", ca, [SPIFFE], (-2, -1), grpc.StatusCode.UNAVAILABLE),
                 ("early", ca, [SPIFFE], (1, 2), grpc.StatusCode.UNAVAILABLE),
                 ("foreign", new_ca(), [SPIFFE], (-1, 1), grpc.StatusCode.UNAVAILABLE)]
        for label, issuer, uris, days, expected in cases:
            with self.subTest(certificate=label):
                key, chain = new_leaf(directory, label, issuer, uris, days)
                stub = echo.stubs.EchoStub(self.tls_channel(node, key, chain))
                try:
                    code = stub.Say.with_call(pb.Words(text=label), timeout=trilane.PATIENCE_S)[1].code()
                except grpc.RpcError as error:
                    code = error.code()
                self.assertEqual(code, expected)

    # ---- certificates that change ----

    def issue_again(self, node):
        for path in list(self.platform.identities.glob("node-%s.*" % node.node_id)) + list(
                self.platform.node_keys.glob(node.node_id + ".*")):
            path.unlink()
        self.platform.issue_node(node.node_id)

    def peer_certificate(self, node):
        context = self.platform.tls_context()
        with socket.create_connection(("127.0.0.1", node.ports["listen-tls"]), 5) as raw, \
                context.wrap_socket(raw, server_hostname="localhost") as tls:
            return tls.getpeercert(binary_form=True)

    def reload(self, node):
        before = node.log().count("certificates-read")
        node.signal(signal.SIGHUP)
        trilane.wait_until(lambda: node.log().count("certificates-read") > before,
                           what="the reload")

    def test_reload(self):
        node = self.start()
        stub = echo.stubs.EchoStub(self.tls_channel(
            node, pathlib.Path(self.web["key"]).read_bytes(),
            pathlib.Path(self.web["cert"]).read_bytes()))
        turn, _ = self.chat(stub, metadata=())
        first = self.peer_certificate(node)
        self.issue_again(node)
        self.assertEqual(self.peer_certificate(node), first, "nothing changes before SIGHUP")
        self.reload(node)
        second = trilane.wait_until(lambda: self.changed(node, first), what="the certificate")
        turn("still here")
        # Files that do not load change nothing.
        pathlib.Path(node.identity["cert"]).write_text("no certificate")
        self.reload(node)
        self.assertIn("level=error", node.log().split("certificates-read")[-2][-200:])
        self.assertEqual(self.peer_certificate(node), second)
        turn("and still")
        self.issue_again(node)
        self.reload(node)
        trilane.wait_until(lambda: self.changed(node, second), what="the third certificate")
        turn("to the end")

    def changed(self, node, before):
        now = self.peer_certificate(node)
        return now if now != before else None

    # ---- connections ----

    def connections(self, node):
        return [w["connections"] for w in node.dump()["workers"]]

    def open_idle(self, node, count):
        """Connections that have said what HTTP/2 asks for and then stay silent."""
        sockets = contextlib.ExitStack()
        self.addCleanup(sockets.close)
        for _ in range(count):
            s = sockets.enter_context(socket.create_connection(("127.0.0.1",
                                                                node.ports["listen"]), 10))
            s.sendall(PREFACE)
        return sockets

    def test_idle_thousands(self):
        """10,000 in a long run, as far as this process may open so many."""
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500
        count = min(10000 if os.environ.get("TRILANE_TEST_LONG") else 2000, room)
        node = self.start(workers=4)
        sockets = self.open_idle(node, count)
        trilane.wait_until(lambda: sum(self.connections(node)) == count, what="all of them")
        spread = self.connections(node)
        self.assertLessEqual(max(spread) - min(spread), count / 20, spread)
        self.assertTrue(self.say(self.stub(node)).text.startswith("x from"))
        sockets.close()
        trilane.wait_until(lambda: sum(self.connections(node)) <= 1, what="them to be gone")
        self.assertEqual(node.metric("trilane_connections_refused_total") or 0, 0)

    def test_bound(self):
        node = self.start(workers=2, connections=16)
        sockets = self.open_idle(node, 16)
        trilane.wait_until(lambda: sum(self.connections(node)) == 16, what="16")
        with self.assertRaises(ConnectionResetError), socket.create_connection(
                ("127.0.0.1", node.ports["listen"]), 10) as one_more:
            one_more.sendall(PREFACE)
            one_more.recv(1000)
        trilane.wait_until(lambda: 'refused_total{why="connections"} ' in self.metrics(node),
                           what="the metric")
        sockets.close()
        trilane.wait_until(lambda: sum(self.connections(node)) == 0, what="room")
        self.say(self.stub(node))

    def test_address(self):
        node = self.start(workers=2, connections_per_address=4)
        sockets = self.open_idle(node, 4)
        trilane.wait_until(lambda: sum(self.connections(node)) == 4, what="4")
        with self.assertRaises(ConnectionResetError), socket.create_connection(
                ("127.0.0.1", node.ports["listen"]), 10) as one_more:
            one_more.sendall(PREFACE)
            one_more.recv(1000)
        with socket.create_connection(("127.0.0.1", node.ports["listen"]), 10,
                                      source_address=("127.0.0.2", 0)) as another:
            another.sendall(PREFACE)
            self.assertNotEqual(another.recv(1000), b"", "its SETTINGS")
        trilane.wait_until(lambda: 'refused_total{why="address"} 1' in self.metrics(node),
                           what="the metric")
        sockets.close()
        trilane.wait_until(lambda: sum(self.connections(node)) == 0, what="room")
        self.say(self.stub(node))

    def metrics(self, node):
        return trilane.http("GET", node.admin + "/metrics")[2].decode()

    def test_descriptors(self):
        """Out of descriptors: who is connected goes on, and who waits is served later."""
        node = self.start(wrapper=["prlimit", "--nofile=100:100"], workers=2)
        stub = self.stub(node)
        self.say(stub)
        admin = http.client.HTTPConnection("127.0.0.1", node.ports["listen-admin"], timeout=trilane.PATIENCE_S)
        self.addCleanup(admin.close)

        def refused():
            admin.request("GET", "/metrics")
            text = admin.getresponse().read().decode()
            return 'trilane_connections_refused_total{why="descriptors"}' in text
        self.assertFalse(refused())
        sockets = self.open_idle(node, 200)
        trilane.wait_until(refused, what="the metric")
        for _ in range(20):
            self.say(stub)
        trilane.wait_until(lambda: "accepting-rests" in node.log(), what="the log to say so")
        waits = self.stub(node)
        sockets.close()
        self.say(waits)
        trilane.wait_until(node.ready, what="its admin port to have descriptors again")

    def test_handshake(self):
        """A handshake that never goes on is ended; others, which take their time, pass beside it."""
        node = self.start(handshake_timeout_ms=4000, workers=1)
        slow = []
        for sent in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            s = socket.create_connection(("127.0.0.1", node.ports["listen-tls"]), 10)
            self.addCleanup(s.close)
            s.sendall(sent)
            slow.append(s)
        with self.assertRaises(grpc.RpcError) as caught:
            echo.stubs.EchoStub(self.tls_channel(node)).Say(pb.Words(), timeout=trilane.PATIENCE_S)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
        for s in slow:
            s.settimeout(trilane.PATIENCE_S)
            with contextlib.suppress(ConnectionResetError):
                self.assertEqual(s.recv(100), b"")
        trilane.wait_until(lambda: sum(self.connections(node)) <= 1, what="them to be gone")
        trilane.wait_until(lambda: 'flooded_total{kind="silent"} 3' in self.metrics(node),
                           what="the metric")

    # ---- the end ----

    def test_drain(self):
        """New connections are refused at once, open calls go on, and past the time they end."""
        node = self.start(graceful_timeout_ms=6000)
        turn, call = self.chat(self.stub(node))
        node.signal(signal.SIGTERM)
        trilane.wait_until(lambda: self.refuses(node, "listen") and self.refuses(node, "listen-tls"),
                           what="closed ports")
        turn("while it drains")
        trilane.wait_until(lambda: trilane.http("GET", node.admin + "/ready")[0] == 503,
                           what="the word that it is not ready")
        with self.assertRaises(grpc.RpcError) as caught:
            next(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(dict(caught.exception.trailing_metadata())["x-trilane-code"], "DRAINING")
        self.assertEqual(node.wait(), 0)
        self.assertIn("drain-cut-short", node.log())

    def test_forced(self):
        """Past the shutdown timeout the process ends itself, and says so by its exit code."""
        node = self.start(graceful_timeout_ms=60000, shutdown_timeout_ms=700)
        turn, _ = self.chat(self.stub(node))
        node.signal(signal.SIGTERM)
        self.assertEqual(node.wait(), 6)
        self.assertIn("shutdown-forced", node.log())
        del turn

    @staticmethod
    def refuses(node, port):
        try:
            with socket.create_connection(("127.0.0.1", node.ports[port]), 5):
                return False
        except ConnectionRefusedError:
            return True

    # ---- what a snapshot does to callers ----

    def test_strict(self):
        node = self.start(workers=2)
        tls = echo.stubs.EchoStub(self.tls_channel(
            node, pathlib.Path(self.web["key"]).read_bytes(),
            pathlib.Path(self.web["cert"]).read_bytes()))
        clear = self.stub(node)
        self.say(clear)
        self.addCleanup(self.publish)
        self.publish(("security: dev", "security: strict"), wait=node)
        trilane.wait_until(lambda: self.refuses(node, "listen") and
                           self.refuses(node, "listen-proxy"), what="closed ports")
        # Its connection goes in good order: what is sent before the GOAWAY is met is answered.
        trilane.wait_until(lambda: self.refusal(clear) == "UNAVAILABLE", what="its end")
        tls.Say(pb.Words(text="s"), timeout=trilane.PATIENCE_S)
        trilane.wait_until(lambda: node.dump()["snapshot"]["strict"], what="the dump to say so")
        self.publish(wait=node)
        trilane.wait_until(lambda: not self.refuses(node, "listen"), what="an open port")
        self.say(self.stub(node))
        tls.Say(pb.Words(text="s"), timeout=trilane.PATIENCE_S)

    def test_freshness(self):
        """Content that no head names for freshnessMax allows nothing; the next head heals it."""
        node = self.start(workers=2)
        self.addCleanup(self.publish)
        self.publish(("security: dev", "security: dev, freshnessMax: 2s"), wait=node)
        stub = self.stub(node)
        trilane.wait_until(lambda: self.refusal(stub) is None, what="a call to pass")
        self.cp.kill()
        self.addCleanup(lambda: self.cp.alive() or self.restart())
        trilane.wait_until(lambda: self.refusal(stub) == "SNAPSHOT_STALE", what="SNAPSHOT_STALE")
        dump = node.dump()
        self.assertEqual(dump["state"], "STALE")
        self.assertGreaterEqual(dump["snapshot"]["content_age_ms"], 2000)
        trilane.wait_until(lambda: 'state="STALE"} 1' in self.metrics(node), what="the metric")
        trilane.wait_until(lambda: "state=STALE" in node.log(), what="the log to say so")
        self.restart()
        trilane.wait_until(lambda: self.refusal(stub) is None, what="calls to pass again")

    def refusal(self, stub):
        """The code that a call is refused with; None when it is answered."""
        try:
            return self.say(stub) and None
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ())
            return details.get("x-trilane-code", error.code().name)

    def restart(self):
        self.cp.start(head_interval_ms=200)
        trilane.wait_until(self.cp.leads, 60, "a leader")

    def test_generations(self):
        """Streams that stay open move on to each snapshot, so that old ones are freed: with room
        for two, ten versions in a row are all served, and the streams go on."""
        node = self.start(workers=2, live_snapshots=2)
        stub = self.stub(node)
        turns = [self.chat(stub)[0] for _ in range(6)]
        for i in range(5):
            self.publish(("timeout: 5s", "timeout: %ds" % (20 + i)), wait=node)
            self.publish(wait=node)
            for turn in turns:
                turn("version")
        trilane.wait_until(lambda: node.dump()["snapshot"]["live"] <= 2, what="old ones to be freed")
        # Whoever may no longer call is told so; open calls are looked at one by one behind a swap.
        self.addCleanup(self.publish)
        self.publish(("callers: [{traits: {tier: gold}}]", "callers: [{traits: {tier: other}}]"),
                     wait=node)
        for turn in turns:
            trilane.wait_until(lambda t=turn: self.ended(t), what="the end of the stream")

    def ended(self, turn):
        """Whether a stream is told that its caller may no longer call; until then it is answered."""
        try:
            turn("too late")
            return False
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.PERMISSION_DENIED)
            return True

    # ---- what probes and scrapers see ----

    def test_metrics(self):
        """Both formats are what Prometheus' own parsers take, and say the same."""
        node = self.start()
        self.say(self.stub(node))
        url = node.admin + "/metrics"

        def samples():
            """What both say, once nothing began to be counted in between."""
            plain, families = self.scrape_plain(url), self.scrape_open(url)
            if {(f.name, f.type) for f in plain} != {(f.name, f.type) for f in families}:
                return {}
            return {s.name: s.value for f in families for s in f.samples}
        trilane.wait_until(lambda: samples()["trilane_snapshot_version"] >= 1, what="the version")
        trilane.wait_until(lambda: samples()["gw_rpc_latency_ms_count"] == 1, what="the call")
        for accept, wanted in (("application/openmetrics-text;q=0,text/plain", "text/plain"),
                               ("application/openmetrics-text; version=1.0.0; q=0.2,"
                                "text/plain;q=0.25", "text/plain"),
                               ("text/plain;q=0.3, APPLICATION/openmetrics-text;q=0.75",
                                "application/openmetrics-text"),
                               (",;q=,;;text/plain,q", "text/plain"), ("*/*", "text/plain")):
            _, headers, _ = trilane.http("GET", url, headers={"Accept": accept})
            self.assertEqual(headers["content-type"].split(";")[0], wanted, accept)

    def scrape_plain(self, url):
        _, headers, text = trilane.http("GET", url)
        self.assertEqual(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        return list(prometheus_client.parser.text_string_to_metric_families(text.decode()))

    def scrape_open(self, url):
        _, headers, text = trilane.http("GET", url, headers={
            "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"})
        self.assertEqual(headers["content-type"],
                         "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.assertTrue(text.endswith(b"\n# EOF\n"))
        return list(prometheus_client.openmetrics.parser.text_string_to_metric_families(
            text.decode()))

    def test_admin(self):
        """Nobody's browser reads a node by a name of its own, and silent ones do not pile up."""
        node = self.start()
        port = node.ports["listen-admin"]
        for host, status in (("127.0.0.1:%d" % port, 200), ("localhost", 200), ("[::1]:1", 200),
                             ("evil.example:%d" % port, 403), ("127.0.0.1.evil.example", 403)):
            for path in ("/dump", "/metrics"):
                self.assertEqual(trilane.http("GET", node.admin + path, headers={"Host": host})[0],
                                 status, (host, path))
        self.assertEqual(trilane.http("GET", node.admin + "/ready",
                                      headers={"Host": "evil.example"})[0], 200)
        silent = []
        for _ in range(70):
            with contextlib.suppress(ConnectionResetError):  # one too many, and at once.
                silent.append(socket.create_connection(("127.0.0.1", port), 5))
                self.addCleanup(silent[-1].close)
        # Nothing is said to those that were taken; only the end of the others can be read.
        trilane.wait_until(lambda: len(silent) - len(select.select(silent, [], [], 0)[0]) <= 64,
                           what="the end of those that are too many")
        for s in silent:
            s.close()
        trilane.wait_until(lambda: trilane.http("GET", node.admin + "/health")[0] == 200,
                           what="room again")

    def test_ready(self):
        node = self.platform.node("fresh")
        self.addCleanup(node.stop)
        node.flags["nats-urls"] = None
        node.start()
        status, _, body = trilane.http("GET", node.admin + "/ready")
        self.assertEqual(status, 503)
        self.assertIn(b"NOT_READY", body)
        with self.assertRaises(grpc.RpcError) as caught:
            self.say(self.stub(node))
        self.assertEqual(dict(caught.exception.trailing_metadata())["x-trilane-code"], "NOT_READY")
        node.stop()
        node.flags["nats-urls"] = self.platform.nats.url("fresh")
        node.start()
        trilane.wait_until(node.ready, what="a snapshot")
        for tenant, expected in (("acme", 200), ("globex", 200), ("nobody", 503)):
            trilane.wait_until(lambda url=node.admin + "/ready?tenant=" + tenant, code=expected:
                               trilane.http("GET", url)[0] == code, what=tenant)


if __name__ == "__main__":
    unittest.main()
