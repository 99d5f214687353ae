"""Which endpoint calls go to: by hash, by order, around those that fail, within circuit breakers."""

import concurrent.futures
import json
import queue
import socket
import threading
import time
import unittest

import grpc

import echo_service as echo
import raw_h2
import routing_test
import trilane

pb = echo.pb


class Health:
    """grpc.health.v1 of a server; its bytes are the protocol's."""

    SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"

    def __init__(self, server):
        self.answer = self.SERVING
        self.asked = []  # (metadata, request)
        server.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {"Check": grpc.unary_unary_rpc_method_handler(self.check)}),))

    def check(self, request, context):
        self.asked.append((dict(context.invocation_metadata()), request))
        return self.answer


class Balanced(routing_test.OnePlatform):
    """A service whose endpoints are balanced as a test says."""

    @classmethod
    def publish_echo(cls, servers, more, weights=None, localities=None, **options):
        """Publishes service echo with further lines of its spec."""
        text = echo.platform_yaml([s.port for s in servers], **options)
        text = text.replace("  transport: usual\n", "  transport: usual\n  %s\n" % more, 1)
        for server, weight in zip(servers, weights or ()):
            text = text.replace("port: %d}" % server.port,
                                "port: %d, weight: %d}" % (server.port, weight))
        for server, locality in zip(servers, localities or ()):
            text = text.replace("port: %d}" % server.port,
                                "port: %d, locality: %s}" % (server.port, locality))
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies({"platform.yaml": text}))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it",
                           step=0.01)

    def status(self, stub=None):
        """How a call ends: OK, or the name of its status."""
        try:
            self.say(stub=stub)
            return "OK"
        except grpc.RpcError as error:
            return error.code().name

    def ejections(self):
        return self.node.metric("trilane_upstream_ejections_total") or 0

    # ---- policies ----

    def test_calls_of_a_session_stay_together(self):
        """On every worker, whichever connection they come by; and on what is left of the servers."""
        servers = [self.server(name) for name in "abc"]
        self.publish_echo(servers, "balance: {policy: ringHash, hashBy: {header: x-session}}")
        stubs = [self.stub(grpc__use_local_subchannel_pool=1) for _ in range(4)]

        def homes():
            found = {}
            for i in range(20):
                names = {self.say(stub=stub, metadata=(("x-session", "s%d" % i),))
                         for stub in stubs}
                self.assertEqual(len(names), 1, "session %d" % i)
                found[i] = names.pop()
            return found
        before = homes()
        self.assertEqual(set(before.values()), {"a", "b", "c"})
        self.publish_echo(servers[:2], "balance: {policy: ringHash, hashBy: {header: x-session}}")
        after = homes()
        for i, name in before.items():
            self.assertTrue(after[i] == name or name == "c", i)

    def test_first_of_the_order_while_it_is_well(self):
        first, second = self.server("first"), self.server("second")
        self.publish_echo([first, second], "balance: {policy: pickFirst}", weights=(10, 5))
        stub = self.stub()
        self.assertEqual({self.say(stub=stub) for _ in range(10)}, {"first"})
        first.stop()
        self.assertEqual({self.say(stub=stub) for _ in range(10)}, {"second"})
        back = echo.Server("first", port=first.port)
        self.addCleanup(back.stop)
        trilane.wait_until(lambda: self.say(stub=stub) == "first", what="the first one again")

    def test_connections_are_shown(self):
        server = self.server("only")
        self.publish_echo([server], "balance: {policy: roundRobin}")

        def shown(low, high):
            trilane.wait_until(
                lambda: low <= self.node.metric("trilane_upstream_connections") <= high,
                what="%d to %d connections" % (low, high))
        shown(0, 0)
        with echo.channel(self.node, grpc__use_local_subchannel_pool=1) as channel:
            self.say(stub=echo.stubs.EchoStub(channel))
        shown(1, 1)
        server.stop()
        shown(0, 0)

    # ---- outliers ----

    def test_status_in_trailers_ejects_and_time_brings_back(self):
        """The head of the answer says 200; what tells is the end of it."""
        good, bad = self.server("good"), self.server("bad")
        bad.echo.fails = grpc.StatusCode.UNAVAILABLE
        self.publish_echo([good, bad], "outlierDetection: {consecutiveFailures: 3, "
                          "baseEjectionTime: 400ms, maxEjectionTime: 1s}")
        stub = self.stub()
        statuses = [self.status(stub) for _ in range(40)]
        self.assertIn("UNAVAILABLE", statuses)
        self.assertLess(statuses.count("UNAVAILABLE"), 20)
        self.assertGreaterEqual(self.node.metric("trilane_upstream_ejections_total"), 1)
        bad.echo.fails = None
        before = bad.echo.calls
        trilane.wait_until(lambda: self.status(stub) == "OK" and bad.echo.calls > before,
                           what="calls to who is well again")
        self.assertEqual({self.status(stub) for _ in range(20)}, {"OK"})

    def test_other_statuses_are_answers(self):
        good, bad = self.server("good"), self.server("bad")
        bad.echo.fails = grpc.StatusCode.NOT_FOUND
        self.publish_echo([good, bad], "outlierDetection: {consecutiveFailures: 1}")
        stub = self.stub()
        statuses = [self.status(stub) for _ in range(20)]
        self.assertEqual(statuses.count("NOT_FOUND"), 10)

    def test_a_caller_in_a_hurry_ejects_nobody(self):
        """Who gives no time gets no answer; that a profile's time ran out tells of the endpoint."""
        silent = [raw_h2.Upstream({"Say": lambda e: None, "Late": lambda e: e.send_headers(
            raw_h2.OK + [("grpc-status", "4")], end=True)}) for _ in range(2)]
        for upstream in silent:
            self.addCleanup(upstream.stop)
        self.publish_echo(silent, "outlierDetection: {consecutiveFailures: 1}", timeout="400ms")
        before = self.ejections()
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            def call(method, *extra):
                answer = caller.call("/trilane.test.v1.Echo/" + method, raw_h2.message(b""),
                                     metadata=echo.token("web"), extra=extra)
                self.assertEqual(answer.status, "4")
            for _ in range(4):
                call("Say", ("grpc-timeout", "50m"))
                call("Say", ("x-request-timeout-ms", "50"))
                call("Late", ("grpc-timeout", "999m"))
            self.assertEqual(self.ejections(), before)
            call("Say")
            self.assertEqual(self.ejections(), before + 1)

    def test_a_caller_that_does_not_go_on_ejects_nobody(self):
        """Who has all that there is of a request, and waits for the rest, did not fail."""
        silent = [raw_h2.Upstream({"Say": lambda e: None}) for _ in range(2)]
        for upstream in silent:
            self.addCleanup(upstream.stop)
        self.publish_echo(silent, "outlierDetection: {consecutiveFailures: 1}",
                          timeout="600ms", profile="idleTimeout: 300ms")
        before = self.ejections()
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            def begin(*bodies, end=False, extra=()):
                stream = caller.start("/trilane.test.v1.Echo/Say", echo.token("web"), extra)
                for body in bodies:
                    caller.send(stream, body, end=end)
                return stream
            # By the profile's silence, and by deadlines while it talks.
            for streams in ([begin(), begin(raw_h2.message(b"one")[:3])],
                            [begin(raw_h2.message(b"one"), extra=(("grpc-timeout", "250m"),)),
                             begin(raw_h2.message(b"one"), raw_h2.message(b"two"))]):
                for stream in streams:
                    self.assertEqual(caller.wait(stream).status, "4")
            self.assertEqual(self.ejections(), before)
            self.assertEqual(caller.wait(begin(raw_h2.message(b"one"), end=True)).status, "4")
            self.assertEqual(self.ejections(), before + 1)

    def test_a_late_attempt_is_not_to_blame(self):
        """Of 800 ms the first one has all and the second one the last fourth: that one is spared."""
        seen = []
        silent = [raw_h2.Upstream({"Say": seen.append}) for _ in range(2)]
        for upstream in silent:
            self.addCleanup(upstream.stop)
        self.publish_echo(
            silent, "outlierDetection: {consecutiveFailures: 1, maxEjectionPercent: 100}\n"
            "  methods: [{names: [/trilane.test.v1.Echo/Say], idempotent: true, hedging: "
            "{hedgingDelay: 600ms, nonFatalStatusCodes: [UNAVAILABLE]}}]", timeout="800ms")
        before = self.ejections()
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            answer = caller.call("/trilane.test.v1.Echo/Say", raw_h2.message(b""),
                                 metadata=echo.token("web"))
        self.assertEqual((answer.status, len(seen)), ("4", 2))
        self.assertEqual(self.ejections(), before + 1)

    # ---- latency ----

    def test_who_is_late_gets_fewer_calls(self):
        soon, late = self.server("soon"), self.server("late")
        late.echo.delay = 0.6
        self.publish_echo([soon, late],
                          "sla: {latency: 500ms, interval: 200ms, requestVolume: 4}")
        stub = self.stub()

        def degraded():
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                names = list(pool.map(lambda _: self.say(stub=stub), range(32)))
            return names.count("late"), self.node.metric("trilane_upstream_endpoints_out")
        self.assertEqual(degraded()[0], 16)
        trilane.wait_until(lambda: degraded()[1] == 1, what="the late one to have less")
        self.assertLess(degraded()[0], 16)
        late.echo.delay = 0
        trilane.wait_until(lambda: degraded()[1] == 0, what="the late one to have its share")

    def test_a_caller_that_takes_its_time_makes_nobody_late(self):
        server = raw_h2.Upstream({"Say": lambda e: e.answer(e.body)})
        self.addCleanup(server.stop)
        interval = 0.1
        self.publish_echo([server], "sla: {latency: 300ms, interval: 100ms, requestVolume: 2}")
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            streams = [caller.start("/trilane.test.v1.Echo/Say", echo.token("web"))
                       for _ in range(8)]
            time.sleep(0.4)  # what is tested is time.
            for stream in streams:
                caller.send(stream, raw_h2.message(b"x"), end=True)
            for stream in streams:
                self.assertEqual(caller.wait(stream).status, "0")
            end = time.monotonic() + 3 * interval
            while time.monotonic() < end:
                self.assertEqual(self.node.metric("trilane_upstream_endpoints_out") or 0, 0)

    @staticmethod
    def question(name):
        return b"\x0a" + bytes([len(name)]) + name if name else b""

    def check(self, name):
        """What the node answers of a service: (message, x-trilane-health)."""
        with echo.channel(self.node) as channel:
            call = channel.unary_unary("/grpc.health.v1.Health/Check",
                                       response_deserializer=lambda b: b)
            message, done = call.with_call(self.question(name), timeout=60)
            return message, dict(done.initial_metadata()).get("x-trilane-health")

    def watch(self, name):
        channel = echo.channel(self.node)
        self.addCleanup(channel.close)
        call = channel.unary_stream("/grpc.health.v1.Health/Watch",
                                    response_deserializer=lambda b: b)
        stream = call(self.question(name))
        self.addCleanup(stream.cancel)
        return stream

    def heard(self):
        """The node as the control plane has it."""
        nodes = self.cp.json("status")["nodes"]
        return next(n for n in nodes if n["node"] == "node-1")

    def test_the_health_of_a_late_service(self):
        """Degraded to all who ask, in its node's word as well, and well again."""
        well, degraded = b"\x08\x01", b"\x08\x01\xc0\x3e\x01"
        server, other = self.server("late"), self.server("other")
        server.echo.delay = 0.6
        self.publish_echo([server], "sla: {latency: 500ms, interval: 200ms, requestVolume: 2}",
                          extra=routing_test.service(
                              "other", other.port, services="grpcServices: [test.Other]"))
        name = b"trilane.test.v1.Echo"
        watched, node, unhurt = self.watch(name), self.watch(b""), self.watch(b"test.Other")
        self.assertEqual((next(watched), next(node), next(unhurt)), (well, well, well))
        trilane.wait_until(lambda: self.heard()["health"] == "well", what="the node's word")
        stop = threading.Event()
        self.addCleanup(stop.set)
        stub = self.stub()

        def load():
            while not stop.is_set():
                self.say(stub=stub)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(8):
                pool.submit(load)
            try:
                self.assertEqual((next(watched), next(node)), (degraded, degraded))
                self.assertEqual(self.check(name), (degraded, "degraded"))
                self.assertEqual(self.check(b""), (degraded, "degraded"))
                self.assertEqual(self.check(b"test.Other"), (well, None))
                self.assertEqual(self.node.dump()["degraded"], ["acme/echo"])
                status, _, body = trilane.http("GET", self.node.admin + "/ready")
                self.assertEqual((status, json.loads(body)["degraded"]), (200, ["acme/echo"]))
                trilane.wait_until(lambda: self.heard()["health"] == "degraded",
                                   what="the node's word")
                self.assertEqual((self.heard()["degraded"], self.heard()["code"]), (1, ""))
                self.assertEqual(self.cp.metric("trilane_nodes_degraded"), 1)
                self.assertEqual(self.node.metric("trilane_services_degraded"), 1)
                table = self.cp("status")
                self.assertIn("1 degraded", table)
                self.assertIn("services that miss their SLA: 1", table)
                server.echo.delay = 0
                self.assertEqual((next(watched), next(node)), (well, well))
            finally:
                stop.set()
        trilane.wait_until(lambda: self.heard()["health"] == "well", what="the node's word")
        self.assertEqual(self.node.dump()["degraded"], [])
        self.assertEqual(self.check(name), (well, None))

    # ---- circuit breakers ----

    def test_calls_above_the_bound_are_refused(self):
        server = self.server("a")
        self.publish_echo([server], "circuitBreakers: {maxRequests: 4}")  # two a worker.
        stub = self.stub()
        chats = []
        for _ in range(2):
            words = queue.Queue()
            call = stub.Chat(iter(words.get, None), metadata=echo.token("web"))
            self.addCleanup(words.put, None)
            words.put(pb.Words(text="w"))
            self.assertEqual(next(call).text, "re: w")
            chats.append((call, words))
        self.assertEqual(self.refusal(stub=stub)[:2], ("UNAVAILABLE", "CIRCUIT_OPEN"))
        chats[0][1].put(None)
        self.assertEqual(list(chats[0][0]), [])
        self.assertEqual(self.say(stub=stub), "a")
        self.assertGreaterEqual(self.node.metric("trilane_upstream_circuit_breaks_total"), 1)

    def test_calls_that_wait_are_bounded(self):
        """The upstream accepts and says nothing: one call waits on the worker, the next may not."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        server = self.server("a")
        server.port = silent.getsockname()[1]
        self.publish_echo([server], "circuitBreakers: {maxPendingRequests: 2}\n"
                          "  healthCheck: {tcp: true, timeout: 60s}",
                          profile="upstream: {tls: tls}, connectTimeout: 60s", timeout="60s")
        stub = self.stub()
        for _ in range(2):  # by the second one a probe waits as well, which counts for nothing.
            waiting = stub.Say.future(pb.Words(text="w"), metadata=echo.token("web"))
            trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 1,
                               what="the call")
            self.assertEqual(self.refusal(stub=stub)[:2], ("UNAVAILABLE", "CIRCUIT_OPEN"))
            waiting.cancel()
            trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 0,
                               what="its end")

    # ---- localities ----

    def test_the_nearest_that_is_well(self):
        """By the node's labels; when it goes, by the next level, and no call fails."""
        near, region, far = (self.server(name) for name in ("near", "region", "far"))
        self.publish_echo([near, region, far], "balance: {}", localities=(
            "{region: eu, zone: a}", "{region: eu, zone: b}", "{region: us, zone: a}"))
        node = self.platform.node("node-eu", workers=1, labels="region=eu,zone=a").start()
        channel = echo.channel(node)
        self.addCleanup(channel.close)
        stub = echo.stubs.EchoStub(channel)
        self.assertEqual({self.say(stub=stub) for _ in range(20)}, {"near"})
        near.stop()
        self.assertEqual({self.say(stub=stub) for _ in range(20)}, {"region"})
        region.stop()
        self.assertEqual({self.say(stub=stub) for _ in range(20)}, {"far"})

    # ---- health checks ----

    def probes(self):
        return self.node.metric("trilane_upstream_health_checks_total") or 0

    def names(self, stubs, count=20):
        return {self.say(stub=stubs[i % len(stubs)]) for i in range(count)}

    def test_who_does_not_serve_gets_no_calls(self):
        """One probe an interval, whichever of the two workers calls; and no call fails."""
        servers = [self.server(name) for name in "ab"]
        healths = [Health(server) for server in servers]
        self.publish_echo(servers, "healthCheck: {grpc: {service: trilane.test.v1.Echo}, "
                          "interval: 100ms, unhealthyThreshold: 2, healthyThreshold: 2}")
        stubs = [self.stub(grpc__use_local_subchannel_pool=1) for _ in range(4)]
        self.assertEqual(self.names(stubs), {"a", "b"})
        first, begun = self.probes(), time.monotonic()
        trilane.wait_until(lambda: self.probes() >= first + 30, what="thirty probes", step=0.01)
        count = self.probes() - first
        # Of two endpoints, each after nine tenths of its interval or more.
        self.assertLessEqual(count, 2 * (time.monotonic() - begun) / 0.09 + 4)
        healths[1].answer = Health.NOT_SERVING
        trilane.wait_until(lambda: self.names(stubs) == {"a"}, what="nobody to call b")
        trilane.wait_until(
            lambda: self.node.metric("trilane_upstream_endpoints_out") == 2, what="both workers")
        healths[1].answer = Health.SERVING
        trilane.wait_until(lambda: self.names(stubs) == {"a", "b"}, what="calls to b again")
        metadata, request = healths[0].asked[0]
        self.assertEqual(request, b"\x0a\x14trilane.test.v1.Echo")
        self.assertRegex(metadata["traceparent"], "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")

    def test_http_and_tcp(self):
        """By a GET; and by the connection alone, of a server that answers nothing."""
        status = {"b": "200"}

        def upstream(name):
            words = raw_h2.message(pb.Words(text="x from " + name).SerializeToString())
            up = raw_h2.Upstream({
                "Say": lambda exchange: exchange.answer(words),
                "ready": lambda exchange: exchange.send_headers(
                    [(":status", status.get(name, "200"))], end=True)})
            self.addCleanup(up.stop)
            return up
        ups = [upstream(name) for name in "ab"]
        self.publish_echo(ups, "healthCheck: {http: {path: /ready}, interval: 200ms}")
        stubs = [self.stub()]
        self.assertEqual(self.names(stubs), {"a", "b"})
        trilane.wait_until(lambda: ups[1].seen("ready"), what="a probe")
        self.assertEqual(ups[1].seen("ready")[0].headers[":method"], "GET")
        status["b"] = "503"
        trilane.wait_until(lambda: self.names(stubs) == {"a"}, what="nobody to call b")
        closed = [self.server("a"), self.server("gone")]
        closed[1].stop()
        self.publish_echo(closed, "healthCheck: {tcp: true, interval: 200ms, unhealthyThreshold: 1}")
        self.assertEqual(self.names(stubs), {"a"})
        trilane.wait_until(lambda: self.node.metric("trilane_upstream_endpoints_out") >= 1,
                           what="the one that is gone")

    def test_who_is_full_is_not_unwell(self):
        """A probe finds no room on the only connection, which calls have all of: that is no verdict."""
        held = []
        server = raw_h2.Upstream({"Hang": held.append, "Check": lambda e: e.answer(
            raw_h2.message(Health.SERVING))})
        self.addCleanup(server.stop)
        for check in ("tcp: true", "grpc: {service: x}"):
            self.publish_echo([server], "healthCheck: {%s, interval: 100ms, timeout: 50ms, "
                              "unhealthyThreshold: 1}\n  circuitBreakers: {maxConnections: 1}" % check)
            before = len(held)
            with raw_h2.Caller(self.node.ports["listen"]) as caller:
                for _ in range(100):  # upstream-streams.
                    caller.send(caller.start("/trilane.test.v1.Echo/Hang", echo.token("web"),
                                             (("grpc-timeout", "1M"),), flush=False),
                                raw_h2.message(b""), end=True)
                trilane.wait_until(lambda n=before: len(held) == n + 100, what="the calls")
                end = time.monotonic() + 0.5  # many intervals.
                while time.monotonic() < end:
                    self.assertEqual(self.node.metric("trilane_upstream_endpoints_out") or 0, 0)


if __name__ == "__main__":
    unittest.main()
