"""The operator lane: gRPC of all kinds through a real node, from real clients to real servers."""

import pathlib
import socket
import threading
import time
import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb


class OperatorLane(unittest.TestCase):
    """One platform for all: NATS, a control plane, a node, two echo servers."""

    @classmethod
    def setUpClass(cls):
        cls.servers = [echo.Server("a"), echo.Server("b")]
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        for server in cls.servers:
            cls.addClassCleanup(server.stop)
        cls.cp = cls.platform.control_plane().start()
        cls.node = cls.platform.node("node-1", access_log=cls.platform.directory / "access.log")
        cls.node.start()
        cls.publish([s.port for s in cls.servers])

    @classmethod
    def publish(cls, ports, **options):
        files = {"platform.yaml": echo.platform_yaml(ports, **options)}
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies(files))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it")

    def setUp(self):
        self.channel = echo.channel(self.node)
        self.addCleanup(self.channel.close)
        self.stub = echo.stubs.EchoStub(self.channel)

    def refused(self, call):
        """The error of a call that must fail."""
        with self.assertRaises(grpc.RpcError) as caught:
            result = call()
            if not isinstance(result, pb.Words):
                list(result)
        return caught.exception

    # ---- the four kinds ----

    def test_unary(self):
        answer, call = self.stub.Say.with_call(pb.Words(text="hi"), metadata=echo.token("web"))
        self.assertIn(answer.text, ("hi from a", "hi from b"))
        self.assertEqual(call.code(), grpc.StatusCode.OK)
        initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
        self.assertIn(initial["x-server"], ("a", "b"))
        self.assertEqual(initial["x-data-bin"], b"\x00\xff")
        self.assertEqual(trailing["x-trailer"], "yes")
        self.assertEqual(trailing["x-more-bin"], b"\x01\x02")

    def test_server_streaming(self):
        got = list(self.stub.SayMany(pb.Words(text="x", count=500, filler=b"y" * 1000),
                                     metadata=echo.token("web")))
        self.assertEqual([w.count for w in got], list(range(500)))

    def test_client_streaming(self):
        words = (pb.Words(text="w%d" % i) for i in range(300))
        answer = self.stub.Collect(words, metadata=echo.token("web"))
        self.assertEqual(answer.count, 300)
        self.assertTrue(answer.text.startswith("w0 w1 w2"))

    def test_bidirectional(self):
        """Each word is answered before the next is sent: nothing waits for an end."""
        gate = threading.Semaphore(1)

        def words():
            for i in range(50):
                gate.acquire()
                yield pb.Words(text=str(i))
        got = []
        for word in self.stub.Chat(words(), metadata=echo.token("web")):
            got.append(word.text)
            gate.release()
        self.assertEqual(got, ["re: %d" % i for i in range(50)])

    def test_endpoints_take_turns(self):
        names = {self.stub.Say(pb.Words(text="t"), metadata=echo.token("web")).text
                 for _ in range(8)}
        self.assertEqual(names, {"t from a", "t from b"})

    # ---- statuses ----

    def test_status_of_the_server(self):
        error = self.refused(lambda: self.stub.Say(pb.Words(text="fail"),
                                                   metadata=echo.token("web")))
        self.assertEqual((error.code(), error.details()),
                         (grpc.StatusCode.DATA_LOSS, "lost it"))
        self.assertEqual(dict(error.trailing_metadata())["x-trailer"], "yes")

    def test_trailers_only(self):
        error = self.refused(lambda: self.stub.Say(pb.Words(text="trailers-only"),
                                                   metadata=echo.token("web")))
        self.assertEqual((error.code(), error.details()),
                         (grpc.StatusCode.NOT_FOUND, "nothing here: 100% \u20ac"))

    # ---- who may ----

    def test_denial_names_code_rule_and_version(self):
        error = self.refused(lambda: self.stub.Say(pb.Words(), metadata=echo.token("stranger")))
        self.assertEqual(error.code(), grpc.StatusCode.PERMISSION_DENIED)
        details = dict(error.trailing_metadata())
        self.assertEqual(details["x-trilane-code"], "POLICY_DENIED")
        self.assertEqual(details["x-trilane-rule"], "acme/echo/nobody-collects")
        self.assertEqual(int(details["x-trilane-version"]), self.node.version())

    def test_unauthenticated(self):
        for metadata in ((), (("authorization", "Bearer wrong"),),
                         (("authorization", "Basic d2ViOnRva2Vu"),)):
            error = self.refused(lambda: self.stub.Say(pb.Words(), metadata=metadata))
            self.assertEqual(error.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_tenants_do_not_meet(self):
        error = self.refused(lambda: self.stub.Say(pb.Words(), metadata=echo.token("other")))
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        spoofed = echo.token("web") + (("x-tenant-id", "globex"),)
        error = self.refused(lambda: self.stub.Say(pb.Words(), metadata=spoofed))
        self.assertEqual(dict(error.trailing_metadata())["x-trilane-code"], "TENANT_MISMATCH")

    def test_unknown_service(self):
        call = self.channel.unary_unary("/no.such.Service/Get")
        error = self.refused(lambda: call(b"", metadata=echo.token("web")) or pb.Words())
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual(dict(error.trailing_metadata())["x-trilane-code"], "NO_ROUTE")

    def test_mtls(self):
        identity = self.platform.issue_service("acme", "web")
        credentials = grpc.ssl_channel_credentials(
            self.platform.ca.read_bytes(), pathlib.Path(identity["key"]).read_bytes(),
            pathlib.Path(identity["cert"]).read_bytes())
        target = "localhost:%d" % self.node.ports["listen-tls"]
        with grpc.secure_channel(target, credentials) as channel:
            answer = echo.stubs.EchoStub(channel).Say(pb.Words(text="s"))
            self.assertTrue(answer.text.startswith("s from"))
        self.assertEqual(self.seen("x-caller-id"),
                         "spiffe://trilane.test/tenant/acme/service/web")

    def test_tls_without_certificate_needs_a_token(self):
        credentials = grpc.ssl_channel_credentials(self.platform.ca.read_bytes())
        target = "localhost:%d" % self.node.ports["listen-tls"]
        with grpc.secure_channel(target, credentials) as channel:
            stub = echo.stubs.EchoStub(channel)
            error = self.refused(lambda: stub.Say(pb.Words()))
            self.assertIn(error.code(), (grpc.StatusCode.UNAUTHENTICATED,
                                         grpc.StatusCode.UNAVAILABLE))

    # ---- context ----

    def seen(self, name):
        return max((s.echo for s in self.servers), key=lambda e: e.seen.get("n", 0) or
                   (name in e.seen)).seen.get(name)

    def test_context_reaches_the_server(self):
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        for server in self.servers:
            server.echo.seen = {}
        sent = echo.token("web") + (
            ("traceparent", "00-%s-00f067aa0ba902b7-01" % trace), ("x-correlation-id", "corr-1"),
            ("x-request-id", "req-1"), ("x-caller-id", "spiffe://evil/x"),
            ("x-trilane-anything", "evil"), ("x-forwarded-client-cert", "evil"),
            ("x-app", "kept"))
        self.stub.Say(pb.Words(text="c"), metadata=sent, timeout=3)
        seen = next(s.echo.seen for s in self.servers if s.echo.seen)
        self.assertEqual(seen["x-tenant-id"], "acme")
        self.assertEqual(seen["x-correlation-id"], "corr-1")
        self.assertEqual(seen["x-request-id"], "req-1")
        self.assertEqual(seen["x-caller-id"], "spiffe://trilane.test/tenant/acme/service/web")
        self.assertEqual(seen["x-app"], "kept")
        version, trace_id, span, _ = seen["traceparent"].split("-")
        self.assertEqual((version, trace_id), ("00", trace))
        self.assertNotEqual(span, "00f067aa0ba902b7")
        for name in ("x-trilane-anything", "x-forwarded-client-cert", "authorization"):
            self.assertNotIn(name, seen)
        self.assertLess(seen["time-left"], 3.1)  # grpcio rounds up what it sends.

    def test_context_is_made_when_missing(self):
        for server in self.servers:
            server.echo.seen = {}
        self.stub.Say(pb.Words(text="c"), metadata=echo.token("web"))
        seen = next(s.echo.seen for s in self.servers if s.echo.seen)
        self.assertRegex(seen["traceparent"], "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$")
        self.assertTrue(seen["x-correlation-id"])
        self.assertLess(seen["time-left"], 5.1)  # the TransportProfile's.

    # ---- time ----

    def test_deadline(self):
        began = time.monotonic()
        error = self.refused(lambda: self.stub.Say(pb.Words(count=40000), timeout=0.4,
                                                   metadata=echo.token("web")))
        self.assertEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - began, 20)

    def test_cancellation_reaches_the_server(self):
        before = sum(s.echo.cancelled for s in self.servers)
        call = self.stub.SayMany(pb.Words(text="x", count=10000000, filler=b"z" * 1000),
                                 metadata=echo.token("web"))
        next(call)
        call.cancel()
        trilane.wait_until(lambda: sum(s.echo.cancelled for s in self.servers) > before,
                           what="the server to hear of it")

    # ---- bounds ----

    def test_large_message_passes(self):
        filler = bytes(range(256)) * 3000
        answer = self.stub.Say(pb.Words(filler=filler), metadata=echo.token("web"))
        self.assertEqual(answer.filler, filler)

    def test_message_over_the_bound(self):
        error = self.refused(lambda: self.stub.Say(pb.Words(filler=b"x" * (2 << 20)),
                                                   metadata=echo.token("web")))
        self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_headers_over_the_bound(self):
        many = echo.token("web") + tuple(("x-h%d" % i, "v" * 400) for i in range(100))
        error = self.refused(lambda: self.stub.Say(pb.Words(), metadata=many))
        self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        answer = self.stub.Say(pb.Words(text="still"), metadata=echo.token("web"))
        self.assertTrue(answer.text.startswith("still"))

    def test_reader_that_never_reads(self):
        """The server is stopped by the windows; the node's memory stays small."""
        call = self.stub.SayMany(pb.Words(text="x", count=2000000, filler=b"z" * 1000),
                                 metadata=echo.token("web"))
        next(call)
        for _ in range(20):  # other calls pass beside it.
            self.stub.Say(pb.Words(text="by"), metadata=echo.token("web"))
        call.cancel()

    # ---- health, log, metrics ----

    def test_health(self):
        from_bytes = lambda b: b
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check",
                                         response_deserializer=from_bytes)
        self.assertEqual(check(b""), b"\x08\x01")
        self.assertEqual(check(b"\x0a\x14trilane.test.v1.Echo"), b"\x08\x01")
        error = self.refused(lambda: check(b"\x0a\x04none") or pb.Words())
        self.assertEqual(error.code(), grpc.StatusCode.NOT_FOUND)

    def test_access_log_and_metrics(self):
        corr = "log-%d" % time.time_ns()
        self.stub.Say(pb.Words(text="l"),
                      metadata=echo.token("web") + (("x-correlation-id", corr),))
        log = self.platform.directory / "access.log"
        line = trilane.wait_until(lambda: [l for l in log.read_text().splitlines() if corr in l],
                                  what="the line")[0]
        for part in ("lane=operator", "code=OK", "caller=acme/web", "rule=acme/echo/gold-may-call",
                     "target=service/acme/echo", "grpc=0"):
            self.assertIn(part, line)
        for part in ('trilane_requests_total{lane="operator",code="OK"}', "gw_rpc_latency_ms_bucket",
                     "policy_decision_cache_hit_ratio"):
            trilane.wait_until(lambda p=part: p in trilane.http(
                "GET", self.node.admin + "/metrics")[2].decode(), what=part)

    def test_process_metrics(self):
        trilane.look_at_process_metrics(self, self.node)


class Failing(unittest.TestCase):
    """Upstreams that are not there, break off, or speak something else."""

    def setUp(self):
        self.platform = trilane.Platform(environment="dev")
        self.addCleanup(self.platform.close)
        self.cp = self.platform.control_plane().start()
        self.node = self.platform.node("node-1").start()

    def publish(self, ports, **options):
        files = {"platform.yaml": echo.platform_yaml(ports, **options)}
        before = self.node.version()
        self.cp("publish", "-m", "test", self.platform.write_policies(files))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it")

    def call(self, timeout=60):
        with echo.channel(self.node) as channel:
            return echo.stubs.EchoStub(channel).Say(pb.Words(text="f"), timeout=timeout,
                                                    metadata=echo.token("web"))

    def failure(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.call()
        error = caught.exception
        return error.code(), dict(error.trailing_metadata() or ()).get("x-trilane-code")

    def test_upstreams_that_fail(self):
        self.publish([])
        self.assertEqual(self.failure(), (grpc.StatusCode.UNAVAILABLE, "NO_HEALTHY_ENDPOINT"))
        # Nobody listens.
        self.publish([trilane.free_port()])
        self.assertEqual(self.failure()[0], grpc.StatusCode.UNAVAILABLE)
        # One of two listens: calls find it.
        server = echo.Server("only")
        self.addCleanup(server.stop)
        self.publish([trilane.free_port(), server.port])
        for _ in range(6):
            self.assertEqual(self.call().text, "f from only")
        # It accepts and closes; it speaks no HTTP/2.
        for behaviour in (lambda c: c.close(), lambda c: c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")):
            listener = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(listener.close)
            threading.Thread(target=serve_badly, args=(listener, behaviour), daemon=True).start()
            self.publish([listener.getsockname()[1]])
            self.assertEqual(self.failure()[0], grpc.StatusCode.UNAVAILABLE)

    def test_node_drains(self):
        """SIGTERM: a call that is open ends well, and the node ends with 0."""
        server = echo.Server("slow")
        self.addCleanup(server.stop)
        self.publish([server.port])
        with echo.channel(self.node) as channel:
            stub = echo.stubs.EchoStub(channel)
            call = stub.Say.future(pb.Words(text="d", count=1500), timeout=60,
                                   metadata=echo.token("web"))
            trilane.wait_until(lambda: server.echo.calls == 1, what="the call to arrive")
            self.node.popen.terminate()
            self.assertEqual(call.result().text, "d from slow")
        self.assertEqual(self.node.wait(), 0)


def serve_badly(listener, behaviour):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        behaviour(connection)


if __name__ == "__main__":
    unittest.main()
