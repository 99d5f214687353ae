"""Routes, TransportProfiles, TLS towards upstreams, and what a swap does to open calls."""

import concurrent.futures
import json
import pathlib
import queue
import shutil
import signal
import socket
import threading
import time
import unittest

import grpc

import echo_service as echo
import raw_h2
import trilane

pb = echo.pb
SOON = 10.0  # what must happen within a second, on a machine that does much else.


def read(path):
    return pathlib.Path(path).read_bytes()


class OnePlatform(unittest.TestCase):
    """A node, and echo servers that a test names."""

    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.cp = cls.platform.control_plane().start(head_interval_ms=100)
        cls.node = cls.platform.node("node-1", workers=2)
        cls.node.start(graceful_timeout_ms=5000)

    @classmethod
    def publish(cls, ports, **options):
        files = {"platform.yaml": echo.platform_yaml(ports, **options)}
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies(files))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it",
                           step=0.01)

    def server(self, name, credentials=None):
        server = echo.Server(name, credentials)
        self.addCleanup(server.stop)
        return server

    def stub(self, **options):
        channel = echo.channel(self.node, **options)
        self.addCleanup(channel.close)
        return echo.stubs.EchoStub(channel)

    def say(self, who="web", metadata=(), stub=None, timeout=60):
        """Who answered."""
        answer = (stub or self.stub()).Say(pb.Words(text="x"), timeout=timeout,
                                           metadata=echo.token(who) + tuple(metadata))
        return answer.text.split(" from ")[1]

    def refusal(self, *args, **kwargs):
        with self.assertRaises(grpc.RpcError) as caught:
            self.say(*args, **kwargs)
        error = caught.exception
        details = dict(error.trailing_metadata() or ())
        return error.code().name, details.get("x-trilane-code"), details

    def refused_by(self, port, why):
        """UPSTREAM_CONNECT says why, and whoever asks the node for it hears which endpoint."""
        with self.assertRaises(grpc.RpcError) as caught:
            self.say()
        details = dict(caught.exception.trailing_metadata())
        self.assertEqual(details["x-trilane-code"], "UPSTREAM_CONNECT")
        self.assertIn(why, caught.exception.details())
        found = json.loads(trilane.http(
            "GET", self.node.admin + "/trace/" + details["x-trilane-explain"])[2])
        self.assertEqual((found["upstream"], found["sentence"]),
                         ("127.0.0.1:%d" % port, caught.exception.details()))
        self.assertIn("event=endpoint-unreached endpoint=127.0.0.1:%d" % port, self.node.log())


def service(name, port, transport=None, services="", more=""):
    """A Service of acme on one port; its policy lets gold and globex in."""
    return """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: %s, tenant: acme}
spec:
  %s
  %s
  endpoints: [{address: 127.0.0.1, port: %d%s}]
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: %s, tenant: acme}
spec:
  target: {service: %s}
  rules:
    - {name: all, effect: allow, callers: [{tenant: acme}, {tenant: globex}]}
""" % (name, services, "transport: %s" % transport if transport else "", port, more, name, name)


def route(name, matches, targets, hosts=None, transport=None, timeout=None):
    return """
---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: %s, tenant: acme}
spec:
  %s
  match: [%s]
  targets: [%s]
  %s
  %s
""" % (name, "hosts: [%s]" % ", ".join('"%s"' % h for h in hosts) if hosts else "",
       ", ".join(matches), ", ".join(targets), "transport: %s" % transport if transport else "",
       "timeout: %s" % timeout if timeout else "")


def profile(name, spec):
    return """
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: %s}
spec: {%s}
""" % (name, spec)


ECHO = "grpc: {service: trilane.test.v1.Echo}"


class Routes(OnePlatform):
    def test_most_precise_match_wins(self):
        names = ("own", "host", "wild", "method", "header", "tenant")
        servers = {name: self.server(name) for name in names}
        extra = "".join(service(name, servers[name].port) for name in names[1:])
        extra += route("host", ["{%s}" % ECHO], ["{service: host}"], hosts=["exact.test"])
        extra += route("wild", ["{%s}" % ECHO], ["{service: wild}"], hosts=["*.wild.test"])
        extra += route("method", ["{grpc: {service: trilane.test.v1.Echo, method: Collect}}"],
                       ["{service: method}"])
        extra += route("header", ["{%s, headers: [{name: x-to, value: header}]}" % ECHO],
                       ["{service: header}"])
        extra += route("tenant", ["{%s, tenants: [globex]}" % ECHO], ["{service: tenant}"])
        self.publish([servers["own"].port], extra=extra)
        self.assertEqual(self.say(), "own")
        for authority, name in (("exact.test", "host"), ("EXACT.test:8080", "host"),
                                ("a.wild.test", "wild"), ("a.b.wild.test", "wild"),
                                ("wild.test", "own"), ("other.test", "own")):
            stub = self.stub(grpc__default_authority=authority)
            self.assertEqual(self.say(stub=stub), name, authority)
        self.assertEqual(self.say(metadata=(("x-to", "header"),)), "header")
        self.assertEqual(self.say(metadata=(("x-to", "else"),)), "own")
        # The same method by a Route that is open to another tenant.
        self.assertEqual(self.say("other"), "tenant")
        answer = self.stub().Collect(iter([pb.Words(text="w")]), metadata=echo.token("web"))
        self.assertEqual((answer.count, servers["method"].echo.calls), (1, 1))

    def test_another_tenant_needs_a_route_and_a_rule(self):
        own, shown = self.server("own"), self.server("shown")
        self.publish([own.port])
        self.assertEqual(self.refusal("other")[:2], ("UNIMPLEMENTED", "NO_ROUTE"))
        show = route("show", ["{%s, tenants: [globex]}" % ECHO], ["{service: echo}"])
        self.publish([own.port], extra=show)
        self.assertEqual(self.refusal("other")[:2], ("PERMISSION_DENIED", "POLICY_DENIED"))
        show = route("show", ["{%s, tenants: [globex]}" % ECHO], ["{service: shown}"])
        self.publish([own.port], extra=show + service("shown", shown.port))
        self.assertEqual(self.say("other"), "shown")
        self.assertEqual(shown.echo.seen["x-caller-id"],
                         "spiffe://trilane.test/tenant/globex/service/other")
        self.assertEqual(shown.echo.seen["x-tenant-id"], "globex")

    def test_weights(self):
        """90 to 10 over two services, 3 to 1 over the endpoints of one."""
        old, new, more = self.server("old"), self.server("new"), self.server("more")
        extra = service("old", old.port, more=", weight: 3}, {address: 127.0.0.1, port: %d"
                        % more.port)
        extra += service("new", new.port)
        extra += route("split", ["{%s}" % ECHO],
                       ["{service: old, weight: 90}", "{service: new, weight: 10}"])
        self.publish([], extra=extra)
        stub = self.stub()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            names = list(pool.map(lambda _: self.say(stub=stub), range(1000)))
        # Drawn at random: five standard deviations are 47.
        self.assertTrue(53 <= names.count("new") <= 147, names.count("new"))
        rest = 1000 - names.count("new")
        # Taken in turn by each of the two workers: exact but for the last round of four.
        self.assertAlmostEqual(names.count("old"), rest * 3 / 4, delta=6)

    def test_profile_and_timeout_of_a_route(self):
        server = self.server("a")
        extra = profile("tight", "timeout: 20s, timeoutMax: 40s, requestMessage: 100B")
        extra += route("tight", ["{%s}" % ECHO], ["{service: echo}"], hosts=["tight.test"],
                       transport="tight")
        extra += route("quick", ["{%s}" % ECHO], ["{service: echo}"], hosts=["quick.test"],
                       timeout="10s")
        self.publish([server.port], extra=extra, timeout="50s")
        tight = self.stub(grpc__default_authority="tight.test")
        for authority, timeout, most in (("tight.test", None, 20), ("tight.test", 60, 40),
                                         ("tight.test", 30, 30), ("quick.test", None, 10),
                                         ("else.test", None, 50)):
            stub = self.stub(grpc__default_authority=authority)
            self.assertEqual(self.say(stub=stub, timeout=timeout), "a")
            left = server.echo.seen["time-left"]  # grpcio rounds up.
            self.assertTrue(most - 9 < left < most + 0.1, (authority, left))
        with self.assertRaises(grpc.RpcError) as caught:
            tight.Say(pb.Words(filler=b"x" * 200), metadata=echo.token("web"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_rate_limit_says_when_to_retry(self):
        server = self.server("a")
        extra = """
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: few, tenant: acme}
spec: {target: {service: echo}, by: [caller], rate: 2/m, burst: 2}
"""
        self.publish([server.port], extra=extra)
        self.assertEqual([self.say(), self.say()], ["a", "a"])
        status, code, details = self.refusal()
        self.assertEqual((status, code), ("RESOURCE_EXHAUSTED", "RATE_LIMITED"))
        self.assertTrue(20000 < int(details["grpc-retry-pushback-ms"]) <= 30001, details)


class Security(OnePlatform):
    """TLS and mTLS towards upstreams; who they are is verified."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.identity = cls.platform.issue_service("acme", "echo")

    def credentials(self, client_auth=False):
        return grpc.ssl_server_credentials(
            ((read(self.identity["key"]), read(self.identity["cert"])),),
            read(self.platform.ca) if client_auth else None, client_auth)

    def test_upstream_is_verified(self):
        tls = self.server("tls", self.credentials())
        mtls = self.server("mtls", self.credentials(client_auth=True))
        clear = self.server("clear")
        spiffe = "spiffe://trilane.test/tenant/acme/service/%s"
        nobody = trilane.free_port()
        cert = "a certificate is not taken: the endpoint's, or the node's by the endpoint"
        rows = (  # port, profile, who answers, or why nobody does
            (tls.port, "tls: tls", "tls", None),
            (tls.port, "tls: tls, serverName: localhost", "tls", None),
            (tls.port, "tls: tls, serverName: other.test", None, cert),
            (tls.port, "tls: tls, spiffe: '%s'" % spiffe % "echo", "tls", None),
            (tls.port, "tls: tls, spiffe: '%s'" % spiffe % "web", None, cert),
            (mtls.port, "tls: mtls, spiffe: '%s'" % spiffe % "echo", "mtls", None),
            (clear.port, "tls: tls", None, "the endpoint "),
            (nobody, "tls: tls", None, "the endpoint refuses connections"),
        )
        for port, upstream, name, why in rows:
            with self.subTest(upstream=upstream):
                self.publish([port], profile="upstream: {%s}" % upstream)
                if name:
                    self.assertEqual(self.say(), name)
                else:
                    self.refused_by(port, why)
        # The upstream ends the connection: without the certificate that it asks for, and in clear.
        for port, upstream in ((mtls.port, "tls: tls"), (tls.port, "tls: none")):
            self.publish([port], profile="upstream: {%s}" % upstream)
            self.assertEqual(self.refusal()[0], "UNAVAILABLE")

    def test_one_endpoint_by_two_profiles(self):
        """A route's profile is its own, though the endpoint is the same."""
        server = self.server("tls", self.credentials())
        name = "p" * 63
        extra = profile(name, "upstream: {tls: tls, serverName: localhost}")
        extra += profile("q" * 63, "upstream: {tls: tls, serverName: wrong.test}")
        extra += service("s" * 63, server.port)
        extra += route("right", ["{%s}" % ECHO], ["{service: %s}" % ("s" * 63)],
                       hosts=["right.test"], transport=name)
        extra += route("wrong", ["{%s}" % ECHO], ["{service: %s}" % ("s" * 63)],
                       hosts=["wrong.test"], transport="q" * 63)
        self.publish([], extra=extra)
        self.assertEqual(self.say(stub=self.stub(grpc__default_authority="right.test")), "tls")
        self.assertEqual(self.refusal(stub=self.stub(grpc__default_authority="wrong.test"))[1],
                         "UPSTREAM_CONNECT")

    def test_new_certificate_towards_upstreams(self):
        """SIGHUP: connections made from then on show the new one, at the same endpoint."""
        server = self.server("mtls", self.credentials(client_auth=True))
        self.publish([server.port], profile="upstream: {tls: mtls}")
        self.assertEqual(self.say(), "mtls")
        first = server.echo.peer
        fresh = self.platform.directory / "fresh"
        self.platform.command("identity", "issue", "--ca", self.platform.identities, "--node",
                              "node-1", "--san", "dns:localhost,ip:127.0.0.1", "--out", fresh,
                              "--node-keys", fresh)
        for kind in ("cert", "key"):
            path = pathlib.Path(self.node.identity[kind])
            shutil.copyfile(fresh / path.name, path)
        self.node.signal(signal.SIGHUP)
        trilane.wait_until(lambda: self.say() == "mtls" and server.echo.peer != first,
                           what="the new certificate")


class Swaps(OnePlatform):
    def chat(self, who="web"):
        """An open bidirectional call: (call, say), say(text) gives the answer's text."""
        words = queue.Queue()
        call = self.stub().Chat(iter(words.get, None), metadata=echo.token(who))

        def say(text):
            words.put(pb.Words(text=text))
            return next(call).text
        self.addCleanup(words.put, None)
        return call, say

    def test_open_stream_lives_on_and_is_ended_by_a_denial(self):
        server = self.server("a")
        self.publish([server.port], timeout="60s")
        call, say = self.chat()
        self.assertEqual(say("one"), "re: one")
        for turn in range(3):
            self.publish([server.port], timeout="6%ds" % (turn + 1))
            self.assertEqual(say("again"), "re: again")
        denied = """
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: closed, tenant: acme}
spec:
  target: {service: echo}
  rules: [{name: nobody, effect: deny, callers: [{service: web}]}]
"""
        ended = {}
        call.add_callback(lambda: ended.setdefault("at", time.monotonic()))
        self.publish([server.port], timeout="60s", extra=denied)
        began = time.monotonic()
        trilane.wait_until(lambda: ended, what="the end of the stream", step=0.01)
        self.assertLess(ended["at"] - began, SOON)
        self.assertEqual(call.code(), grpc.StatusCode.PERMISSION_DENIED)
        details = dict(call.trailing_metadata())
        self.assertEqual(details["x-trilane-code"], "POLICY_DENIED")
        self.assertEqual(details["x-trilane-rule"], "acme/closed/nobody")
        self.assertEqual(int(details["x-trilane-version"]), self.node.version())
        trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 0, what="its end")

    def test_swap_while_calls_wait_for_a_connection(self):
        """The upstream accepts and does not speak: calls wait while one version follows another."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        server = self.server("a")
        slow = "upstream: {tls: tls}, connectTimeout: 8s"
        self.publish([silent.getsockname()[1]], profile=slow, timeout="30s")
        calls = [self.stub().Say.future(pb.Words(text="w"), metadata=echo.token("web"))
                 for _ in range(4)]
        trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 4, what="the calls")
        self.publish([silent.getsockname()[1]], profile=slow, timeout="31s")
        self.publish([], profile=slow)  # the cluster has no endpoint any more.
        calls[0].cancel()
        self.publish([server.port])
        for call in calls[1:]:
            # Their endpoint failed; the one in force is tried, or the refusal says why.
            self.assertIn(call.code(), (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE))
        trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 0, what="their end")
        self.assertEqual(self.say(), "a")

    def test_endpoint_that_comes_back_is_used_soon(self):
        """However many calls met it while it was down: a second later it is tried again."""
        server, port = self.server("a"), trilane.free_port()
        self.publish([server.port, port])
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            request = raw_h2.message(pb.Words(text="x").SerializeToString())
            streams = [caller.start("/trilane.test.v1.Echo/Say", echo.token("web"), flush=False)
                       for _ in range(60)]
            for stream in streams:  # all at once: half of them wait for one connection.
                caller.h2.send_data(stream, request, end_stream=True)
            caller.flush()
            self.assertEqual({caller.wait(stream).status for stream in streams}, {"0"})
        back = echo.Server("b", port=port)
        self.addCleanup(back.stop)
        stub = self.stub()
        trilane.wait_until(lambda: self.say(stub=stub) == "b", timeout=15, what="a call by the other")

    def draining(self, name, port=0):
        """An upstream that leaves in good order. Not grpcio's: stopping, it cancels calls that it
        has accepted and not begun, those of a client of its own as well."""
        answer = raw_h2.message(pb.Words(text="x from " + name).SerializeToString())
        upstream = raw_h2.Upstream({"Say": lambda exchange: exchange.answer(answer)}, port=port)
        self.addCleanup(upstream.stop)
        return upstream

    def test_upstream_restarts_under_load(self):
        """Each in turn leaves and comes back: calls find the other one, and not one is lost."""
        servers = [self.draining(name, trilane.free_port()) for name in "ab"]
        ports = [s.port for s in servers]
        self.publish(ports)
        stub = self.stub()
        stop = threading.Event()
        failed, count = [], [0] * 8

        def load(i):
            while not stop.is_set():
                try:
                    self.say(stub=stub)
                    count[i] += 1
                except grpc.RpcError as error:
                    failed.append((error.code().name,
                                   dict(error.trailing_metadata()).get("x-trilane-code")))
        threads = [threading.Thread(target=load, args=(i,)) for i in range(len(count))]
        self.addCleanup(stop.set)
        for thread in threads:
            thread.start()
        for i in (0, 1, 0, 1):
            trilane.wait_until(lambda s=servers[i]: len(s.exchanges) > 50, what="calls")
            before = sum(count)
            self.assertTrue(servers[i].peers and servers[i].drain(), "connections that end by GOAWAY")
            trilane.wait_until(lambda b=before: sum(count) > b + 50, what="calls on the other one")
            servers[i] = self.draining("ab"[i], port=ports[i])
            trilane.wait_until(lambda s=servers[i]: s.exchanges, what="calls to come back")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])


class Drain(OnePlatform):
    def test_no_call_is_lost(self):
        """SIGTERM to a node with idle and busy clients: GOAWAY, and every call that got in ends."""
        server = self.server("a")
        self.publish([server.port])
        idle, busy = self.stub(), self.stub(grpc__use_local_subchannel_pool=1)
        self.assertEqual(self.say(stub=idle), "a")
        answered, refused = [], []
        stop = threading.Event()

        def load():
            while not stop.is_set():
                try:
                    busy.Say(pb.Words(text="d", count=20), timeout=60, metadata=echo.token("web"))
                    answered.append(1)
                except grpc.RpcError as error:
                    refused.append(error)
                    return
        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        trilane.wait_until(lambda: len(answered) > 50, what="load")
        long_one = idle.Say.future(pb.Words(text="long", count=1000), timeout=60,
                                   metadata=echo.token("web"))
        trilane.wait_until(lambda: "long" in server.echo.texts, what="the long call")
        self.node.popen.terminate()
        self.assertEqual(long_one.result().text, "long from a")
        self.assertEqual(self.node.wait(), 0)
        stop.set()
        for thread in threads:
            thread.join()
        # After GOAWAY clients connect anew, and nobody listens: that is all that fails.
        for error in refused:
            self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertRegex(error.details(), "(?i)connect")
        self.__class__.node = self.platform.node("node-2", workers=2).start()


class Health(OnePlatform):
    def setUp(self):
        self.channel = echo.channel(self.node)
        self.addCleanup(self.channel.close)

    def watch(self, request):
        call = self.channel.unary_stream("/grpc.health.v1.Health/Watch",
                                         response_deserializer=lambda b: b)
        stream = call(request)
        self.addCleanup(stream.cancel)
        return stream

    def test_watch_hears_of_a_service_that_comes_and_goes(self):
        server = self.server("a")
        self.publish([server.port])
        name = b"trilane.late.v1.Late"
        node, late = self.watch(b""), self.watch(b"\x0a\x14" + name)
        self.assertEqual((next(node), next(late)), (b"\x08\x01", b"\x08\x03"))
        self.publish([server.port], extra=service(
            "late", server.port, services="grpcServices: [%s]" % name.decode()))
        self.assertEqual(next(late), b"\x08\x01")
        self.publish([server.port])
        self.assertEqual(next(late), b"\x08\x03")

    def test_ready_by_tenant(self):
        server = self.server("a")
        self.publish([server.port])
        for query, status in (("", 200), ("?tenant=acme", 200), ("?tenant=globex", 200),
                              ("?tenant=nobody", 503)):
            trilane.wait_until(lambda url=self.node.admin + "/ready" + query, code=status:
                               trilane.http("GET", url)[0] == code, what=query)


if __name__ == "__main__":
    unittest.main()
