"""Retries and hedging through a real node, by gRPC's A6: each rule has a case."""

import itertools
import queue
import signal
import socket
import time
import unittest

import grpc

import commanded
import echo_service as echo
import raw_h2
import trilane

SERVICE = "trilane.test.v1.Tried"
SOON = 10.0  # what happens at once, on a machine that does much else.

METHODS = """
  methods:
    - names: [/trilane.test.v1.Tried/Retry]
      idempotent: true
      retry: {maxAttempts: 4, initialBackoff: 1ms, maxBackoff: 2ms,
              retryableStatusCodes: [UNAVAILABLE, ABORTED]}
    - names: [/trilane.test.v1.Tried/Mutate]
      retry: {maxAttempts: 4, initialBackoff: 1ms, maxBackoff: 2ms}
    - names: [/trilane.test.v1.Tried/Slow]
      idempotent: true
      retry: {perTryTimeout: 400ms, initialBackoff: 1ms, maxBackoff: 2ms}
    - names: ["/trilane.test.v1.Tried/Hedge*"]
      idempotent: true
      hedging: {maxAttempts: 3, hedgingDelay: 100ms, nonFatalStatusCodes: [UNAVAILABLE]}
    - names: [/trilane.test.v1.Tried/HedgeMutation]
      hedging: {hedgingDelay: 10ms}
    - names: [/trilane.test.v1.Tried/Measured]
      idempotent: true
      hedging: {percentile: 90}
"""
WIDE = "  retryBudget: {maxTokens: 1000, minConcurrent: 1000, hedgesPerMille: 1000}\n"

# method, script, what else, the status, attempts.
RULES = (
    ("Retry", "14 14 0", {}, "OK", 3),
    ("Retry", "10 0", {}, "OK", 2),
    ("Retry", "h14 0", {}, "OK", 2),           # a head is no answer yet,
    ("Retry", "m14 0", {}, "UNAVAILABLE", 1),  # a message is.
    ("Retry", "13 0", {}, "INTERNAL", 1),
    ("Retry", "14", {}, "UNAVAILABLE", 4),
    ("Retry", "14p-1 0", {}, "UNAVAILABLE", 1),
    ("Retry", "14psoon 0", {}, "UNAVAILABLE", 1),
    ("Retry", "14p300 0", {"least": 0.3}, "OK", 2),
    ("Retry", "14p600000 0", {"timeout": 60}, "UNAVAILABLE", 1),  # it would be behind the deadline.
    ("Retry", "14 0", {"body": bytes(200000)}, "UNAVAILABLE", 1),  # too much to keep.
    ("Mutate", "14 0", {}, "UNAVAILABLE", 1),
    ("Mutate", "14 0", {"key": "k-1"}, "OK", 2),
    ("Plain", "14 0", {"key": "k-2"}, "UNAVAILABLE", 1),
    ("Slow", "s0 0", {"cancelled": [0]}, "OK", 2),
    ("Hedge", "s0 0", {"cancelled": [0], "least": 0.1}, "OK", 2),
    ("Hedge", "s0 s0 0", {"cancelled": [0, 1]}, "OK", 3),
    ("Hedge", "14 14 0", {}, "OK", 3),
    ("Hedge", "14", {}, "UNAVAILABLE", 3),
    ("Hedge", "13 0", {}, "INTERNAL", 1),
    ("Hedge", "s0 13", {"cancelled": [0]}, "INTERNAL", 2),
    ("Hedge", "14p-1 0", {}, "UNAVAILABLE", 1),
    ("Hedge", "14p300 0", {"least": 0.3}, "OK", 2),
    ("Hedge", "m14 0", {}, "UNAVAILABLE", 1),
    ("HedgeMutation", "s0 0", {"timeout": 0.5, "cancelled": [0]}, "DEADLINE_EXCEEDED", 1),
    ("HedgeMutation", "s0 0", {"key": "k-3", "cancelled": [0]}, "OK", 2),
)


def service(name, ports, spec="", proto=None):
    return """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: %s, tenant: acme}
spec:
  grpcServices: [%s]
  endpoints: [%s]
%s
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: %s, tenant: acme}
spec:
  target: {service: %s}
  rules: [{name: all, effect: allow, callers: [{service: web}]}]
""" % (name, proto or SERVICE, ", ".join("{address: 127.0.0.1, port: %d}" % p for p in ports),
       spec, name, name)


def deaf_port(test):
    """A port whose queue of connections is full, so that the kernel answers no SYN."""
    listener = socket.socket()
    test.addCleanup(listener.close)
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port = listener.getsockname()[1]
    for _ in range(2):
        waiting = socket.socket()
        test.addCleanup(waiting.close)
        waiting.setblocking(False)
        waiting.connect_ex(("127.0.0.1", port))
    return port


class Call:
    """One call, and what became of it."""

    keys = itertools.count()

    def __init__(self, channel, method, script, body=b"hi", key=None, timeout=60, proto=SERVICE):
        self.name = "call-%d" % next(self.keys)
        metadata = echo.token("web") + (("x-key", self.name), ("x-script", script))
        if key:
            metadata += (("idempotency-key", key),)
        self.began = time.monotonic()
        self.future = channel.unary_unary("/%s/%s" % (proto, method)).future(
            body, metadata=metadata, timeout=timeout)

    def wait(self):
        self.code = self.future.code().name
        self.took = time.monotonic() - self.began
        self.trailers = dict(self.future.trailing_metadata() or ())
        return self


def setUpModule():
    """One platform for all: three servers, and a node with one worker."""
    OnePlatform.calls = commanded.Calls()
    OnePlatform.servers = [commanded.Server(name, OnePlatform.calls) for name in "abc"]
    for server in OnePlatform.servers:
        unittest.addModuleCleanup(server.stop)
    OnePlatform.platform = trilane.Platform(environment="dev")
    unittest.addModuleCleanup(OnePlatform.platform.close)
    OnePlatform.cp = OnePlatform.platform.control_plane().start(head_interval_ms=100)
    OnePlatform.node = OnePlatform.platform.node("node-1", workers=1).start()
    OnePlatform.publish(OnePlatform.usual())


class OnePlatform(unittest.TestCase):
    @classmethod
    def usual(cls, ports=None):
        return service("tried", ports or [s.port for s in cls.servers], METHODS + WIDE)

    @classmethod
    def publish(cls, extra):
        files = {"platform.yaml": echo.platform_yaml([], extra=extra)}
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies(files))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it",
                           step=0.01)

    def publish_for_now(self, extra):
        self.addCleanup(self.publish, self.usual())
        self.publish(extra)

    def setUp(self):
        self.channel = echo.channel(self.node)
        self.addCleanup(self.channel.close)

    def call(self, *args, **kwargs):
        return Call(self.channel, *args, **kwargs)

    def attempts(self, call):
        return self.calls.of.get(call.name, [])

    def metric(self, name):
        """A series' value; None: it is not there yet."""
        text = trilane.http("GET", self.node.admin + "/metrics")[2].decode()
        for line in text.splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return None


class Rules(OnePlatform):
    def logged(self, request_id):
        """The line of the access log about a request."""
        def lines():
            return [line for line in self.node.log().splitlines()
                    if "event=request id=%s " % request_id in line]
        trilane.wait_until(lines, what="the line of the access log", step=0.01)
        return lines()[0]

    def check(self, method, script, more, status, count):
        more = dict(more)
        least, cancelled = more.pop("least", 0), more.pop("cancelled", [])
        call = self.call(method, script, **more).wait()
        attempts = self.attempts(call)
        self.assertEqual((call.code, len(attempts)), (status, count))
        self.assertGreaterEqual(call.took, least)
        self.assertLess(call.took, least + SOON)
        self.assertEqual(len({a.server for a in attempts}), min(count, 3))
        for i, attempt in enumerate(attempts):
            self.assertTrue(attempt.gone.wait(SOON))
            self.assertEqual(attempt.previous, str(i) if i else None)
            self.assertEqual(attempt.metadata["x-tenant-id"], "acme")
            trilane.wait_until(lambda a=attempt, i=i: a.cancelled == (i in cancelled),
                               what="attempt %d to be cancelled or not" % i, step=0.01)
        if attempts:
            line = self.logged(attempts[0].metadata["x-request-id"])
            self.assertEqual(" attempts=%d " % count in line, count > 1, line)
        left = [a.left for a in attempts]
        if method == "Retry":
            self.assertEqual(left, sorted(left, reverse=True))
        if status == "OK":
            self.assertEqual(dict(call.future.initial_metadata()).get(
                "grpc-previous-rpc-attempts"), str(count - 1) if count > 1 else None)

    def test_each_rule(self):
        for row in RULES:
            with self.subTest(row=row[:3]):
                self.check(*row)
        trilane.wait_until(lambda: self.metric("trilane_requests_open") == 0, what="their end")

    def test_an_attempt_has_its_own_deadline(self):
        call = self.call("Slow", "s0 0", timeout=30).wait()
        first, second = self.attempts(call)
        self.assertEqual(call.code, "OK")
        self.assertLess(first.left, 1.5)   # grpcio rounds up.
        self.assertLess(second.left, 1.5)

    def test_the_whole_request_is_sent_again(self):
        body = bytes(range(256)) * 200  # more than is kept in the call itself.
        call = self.call("Retry", "14 0", body=body).wait()
        self.assertEqual(call.code, "OK")
        self.assertEqual([a.body for a in self.attempts(call)], [body, body])

    def test_nobody_listens_and_somebody_does(self):
        """No connection is UNAVAILABLE, too; it needs no idempotency: nothing was sent."""
        port = trilane.free_port()
        self.publish_for_now(service("tried", [port], METHODS + WIDE))
        call = self.call("Mutate", "0").wait()
        self.assertEqual((call.code, call.trailers["x-trilane-code"], self.attempts(call)),
                         ("UNAVAILABLE", "UPSTREAM_CONNECT", []))
        trilane.wait_until(lambda: self.metric(
            'trilane_attempts_total{target="service/acme/tried",kind="retry"}'), what="retries")

    def test_waiting_for_a_connection_is_of_an_attempts_time(self):
        """Who does not answer a SYN is passed over by perTryTimeout, long before connectTimeout."""
        deaf = deaf_port(self)
        spec = "  balance: {policy: pickFirst}\n" + METHODS + WIDE
        both = service("tried", [deaf, self.servers[0].port], spec)
        self.publish_for_now(both.replace("port: %d}" % deaf, "port: %d, weight: 10}" % deaf))
        call = self.call("Slow", "0").wait()
        self.assertEqual((call.code, [a.previous for a in self.attempts(call)]), ("OK", ["1"]))

    def test_a_stream_that_goes_on_gets_its_head(self):
        """Who waits for the head before it sends more must not wait for ever: this commits."""
        words = queue.Queue()
        call = self.channel.stream_stream("/%s/Retry" % SERVICE)(
            iter(words.get, None), timeout=60,
            metadata=echo.token("web") + (("x-key", "head"), ("x-script", "h14 0")))
        words.put(b"one")
        self.assertIn(dict(call.initial_metadata())["x-server"], "abc")
        words.put(None)
        with self.assertRaises(grpc.RpcError):
            list(call)
        self.assertEqual((call.code().name, len(self.calls.of["head"])), ("UNAVAILABLE", 1))

    def test_a_hedge_follows_what_is_measured(self):
        for _ in range(120):
            self.assertEqual(self.call("Measured", "0").wait().code, "OK")
        call = self.call("Measured", "s0 0").wait()
        self.assertEqual((call.code, len(self.attempts(call))), ("OK", 2))
        self.assertIsNotNone(self.metric(
            'trilane_attempts_total{target="service/acme/tried",kind="hedge-won"}'))

    def test_the_caller_leaves(self):
        """In a pause, and while two attempts are under way."""
        paused = self.call("Retry", "14p60000 0", timeout=120)
        trilane.wait_until(lambda: self.attempts(paused), what="the first attempt")
        hedged = self.call("Hedge", "s0")
        trilane.wait_until(lambda: len(self.attempts(hedged)) == 3, what="three attempts")
        paused.future.cancel()
        hedged.future.cancel()
        for attempt in self.attempts(hedged):
            self.assertTrue(attempt.gone.wait(60))
        trilane.wait_until(lambda: self.metric("trilane_requests_open") == 0, what="their end")
        self.assertEqual(len(self.attempts(paused)), 1)

    def test_one_deadline_over_all_attempts(self):
        call = self.call("Retry", "14 s0", timeout=0.5).wait()
        self.assertEqual((call.code, len(self.attempts(call))), ("DEADLINE_EXCEEDED", 2))


class Budgets(OnePlatform):
    def test_tokens_stop_a_storm(self):
        spec = METHODS + "  retryBudget: {maxTokens: 4, tokenRatioPerMille: 1000}\n"
        self.publish_for_now(service("tried", [s.port for s in self.servers], spec))
        calls = [self.call("Retry", "14").wait() for _ in range(20)]
        self.assertEqual({c.code for c in calls}, {"UNAVAILABLE"})
        self.assertEqual(sum(len(self.attempts(c)) for c in calls), 21)
        denied = 'trilane_attempts_denied_total{target="service/acme/tried",why="tokens"}'
        trilane.wait_until(lambda: self.metric(denied) == 20, what="20 denials")
        for _ in range(4):
            self.assertEqual(self.call("Retry", "0").wait().code, "OK")
        call = self.call("Retry", "14 0").wait()
        self.assertEqual((call.code, len(self.attempts(call))), ("OK", 2))

    def test_who_says_not_to_come_again_is_hedged_less(self):
        """gRPC A6: such a pushback takes a token, whatever the status is."""
        spec = METHODS + ("  retryBudget: {maxTokens: 4, tokenRatioPerMille: 1000,"
                          " hedgesPerMille: 1000}\n")
        self.publish_for_now(service("tried", [s.port for s in self.servers], spec))
        for _ in range(3):
            self.assertEqual(self.call("Hedge", "13p-1").wait().code, "INTERNAL")
        call = self.call("Hedge", "14 0").wait()
        self.assertEqual((call.code, len(self.attempts(call))), ("UNAVAILABLE", 1))
        for _ in range(4):
            self.assertEqual(self.call("Hedge", "0").wait().code, "OK")

    def test_few_are_made_again_at_once(self):
        spec = METHODS + "  retryBudget: {maxTokens: 1000, minConcurrent: 1, activePercent: 1}\n"
        self.publish_for_now(service("tried", [s.port for s in self.servers], spec))
        waits = self.call("Retry", "14p1000 0")
        trilane.wait_until(lambda: self.attempts(waits), what="the first attempt", step=0.01)
        trilane.wait_until(lambda: self.attempts(waits)[0].gone.is_set(), what="its end", step=0.01)
        denied = self.call("Retry", "14 0").wait()
        self.assertEqual((denied.code, len(self.attempts(denied))), ("UNAVAILABLE", 1))
        self.assertEqual(waits.wait().code, "OK")
        self.assertEqual(self.call("Retry", "14 0").wait().code, "OK")


class Swaps(OnePlatform):
    def test_a_pause_ends_with_a_denial(self):
        call = self.call("Retry", "14p60000 0", timeout=120)
        trilane.wait_until(lambda: self.attempts(call), what="the first attempt")
        self.publish_for_now(self.usual().replace("effect: allow, callers: [{service: web}]",
                                                  "effect: deny"))
        self.assertEqual(call.wait().code, "PERMISSION_DENIED")
        self.assertEqual((call.trailers["x-trilane-code"], len(self.attempts(call))),
                         ("POLICY_DENIED", 1))

    def test_a_retry_goes_where_the_new_snapshot_says(self):
        new = commanded.Server("new", self.calls)
        self.addCleanup(new.stop)

        def went_there():
            call = self.call("Retry", "14p1500 0")
            trilane.wait_until(lambda: self.attempts(call), what="the first attempt", step=0.01)
            self.publish(self.usual([new.port]))
            served = time.monotonic() - call.began
            self.assertEqual(call.wait().code, "OK")
            names = [a.server for a in self.attempts(call)]
            self.assertTrue(served > 1.4 or names[1] == "new", names)
            self.publish(self.usual())
            return served <= 1.4
        trilane.wait_until(went_there, what="a snapshot within a pause")

    def test_a_node_that_drains_begins_no_retry(self):
        node = self.platform.node("node-2", workers=1).start(graceful_timeout_ms=8000)
        trilane.wait_until(lambda: node.version() >= self.node.version(), what="the second node")
        with echo.channel(node) as channel:
            call = Call(channel, "Retry", "14p1500 0")
            open_one = Call(channel, "Retry", "s0")
            for each in (call, open_one):
                trilane.wait_until(lambda e=each: self.attempts(e), what="the first attempt",
                                   step=0.01)
            trilane.wait_until(lambda: self.attempts(call)[0].gone.is_set(), what="its end",
                               step=0.01)
            node.signal(signal.SIGTERM)
            self.assertEqual(call.wait().code, "UNAVAILABLE")
            self.assertEqual((call.trailers["x-trilane-code"], len(self.attempts(call))),
                             ("DRAINING", 1))
            open_one.future.cancel()
        self.assertEqual(node.wait(), 0)


def once(first, then):
    turns = []

    def behave(exchange):
        turns.append(exchange)
        (first if len(turns) == 1 else then)(exchange)
    return behave


def fine(exchange):
    exchange.answer(raw_h2.message(b"fine"))


UNAVAILABLE = [("grpc-status", "14"), ("grpc-message", "not now")]


class Wire(OnePlatform):
    """Both shapes of a failure, by hand, and what transparent retries do beside the policy."""

    def test_shapes_of_failure(self):
        reset = raw_h2.h2.errors.ErrorCodes.INTERNAL_ERROR
        rows = {  # what comes first; how many exchanges the upstream sees, the status.
            "TrailersOnly": (lambda e: e.send_headers(raw_h2.OK + UNAVAILABLE, end=True), 2, "0"),
            "Trailers": (lambda e: e.answer(trailers=UNAVAILABLE), 2, "0"),
            "Reset": (lambda e: e.refuse(reset), 2, "0"),
            "HeadAndReset": (lambda e: (e.send_headers(raw_h2.OK), e.refuse(reset)), 2, "0"),
            "Http503": (lambda e: e.send_headers([(":status", "503")], end=True), 2, "0"),
            "NoStatus": (lambda e: e.answer(trailers=[("x", "1")]), 2, "0"),
            "MessageAndReset": (lambda e: (e.answer(raw_h2.message(b"x"), trailers=None),
                                           e.refuse(reset)), 1, "14"),
            "Refused": (lambda e: e.refuse(), 2, "0"),
        }
        upstream = raw_h2.Upstream({name: once(row[0], fine) for name, row in rows.items()})
        self.addCleanup(upstream.stop)
        spec = METHODS.replace("Tried/Retry]", "Tried/*]") + WIDE
        self.publish_for_now(service("tried", [upstream.port], spec))
        replays = self.metric("trilane_replays_total")
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            for name, (_, exchanges, status) in rows.items():
                with self.subTest(shape=name):
                    answer = caller.call("/%s/%s" % (SERVICE, name), raw_h2.message(b"hi"),
                                         metadata=echo.token("web"))
                    self.assertEqual((answer.status, len(upstream.seen(name))),
                                     (status, exchanges))
                    self.assertEqual(answer.body.count(b"fine"), 1 if status == "0" else 0)
        # A transparent retry is no attempt to the upstream.
        self.assertNotIn("grpc-previous-rpc-attempts", upstream.seen("Refused")[1].headers)
        self.assertEqual(upstream.seen("Reset")[1].headers["grpc-previous-rpc-attempts"], "1")
        trilane.wait_until(lambda: self.metric("trilane_replays_total") == replays + 1,
                           what="one replay")


class Drains(OnePlatform):
    """Of several attempts of a call one is let down: the others go on."""

    HEDGED = """
  balance: {policy: pickFirst}
  methods:
    - names: [/trilane.test.v1.Tried/Hedge]
      idempotent: true
      hedging: {maxAttempts: 2, hedgingDelay: 30ms, nonFatalStatusCodes: [UNAVAILABLE]}
"""
    PATH = "/%s/Hedge" % SERVICE

    def upstreams(self, behave, count=2):
        found = [raw_h2.Upstream({"Hedge": behave}) for _ in range(count)]
        for upstream in found:
            self.addCleanup(upstream.stop)
        self.publish_for_now(service("tried", [u.port for u in found], self.HEDGED + WIDE))

    def test_a_connection_that_goes_leaves_the_other_attempt_alone(self):
        """The second one goes away from its connection: it begins anew where nobody is asked yet,
        and not with whom the first one waits for."""
        seen = []

        def behave(exchange):
            seen.append(exchange)
            turn = len(seen) % 3
            if turn == 2:
                exchange.goaway(last=0)
                exchange.close()
            elif turn == 0:
                fine(exchange)
        self.upstreams(behave)
        with raw_h2.Caller(self.node.ports["listen"]) as caller:
            for i in range(4):
                answer = caller.call(self.PATH, raw_h2.message(b"hi"), metadata=echo.token("web"))
                self.assertEqual((answer.status, len(seen)), ("0", 3 * (i + 1)))
                first, second, third = (e.peer.upstream for e in seen[-3:])
                self.assertIs(second, third)
                self.assertIsNot(first, second)

    def test_a_node_that_drains_waits_for_the_other_attempt(self):
        seen = queue.Queue()
        self.upstreams(seen.put, count=1)  # by one connection: what is said first comes first.
        node = self.platform.node("node-3", workers=1).start(graceful_timeout_ms=60000)
        trilane.wait_until(lambda: node.version() >= self.node.version(), what="the third node")
        with echo.channel(node) as channel, raw_h2.Caller(node.ports["listen"]) as idle:
            call = Call(channel, "Hedge", "")
            first, second = seen.get(timeout=60), seen.get(timeout=60)
            node.signal(signal.SIGTERM)
            while not idle.goaways:
                self.assertTrue(idle.pump())
            first.send_headers(raw_h2.OK + UNAVAILABLE, end=True)
            fine(second)
            second.peer.flush()
            self.assertEqual((call.wait().code, call.future.result()), ("OK", b"fine"))
        self.assertEqual(node.wait(), 0)


if __name__ == "__main__":
    unittest.main()
