"""The canonical lane: events from real gRPC clients through nodes into JetStream, and back."""

import json
import queue
import shutil
import subprocess
import threading
import time
import unittest
import uuid

import grpc

import bus_client as bus
import raw_nats
import trilane

pb = bus.bus_pb2
ACK_WAIT_MS = 5000  # longer than anybody is held up between a delivery and its ack.
REFUSALS = grpc.StatusCode


class Lane(unittest.TestCase):
    """One platform for a class: NATS, a control plane, two nodes with two workers each."""

    flags = {}

    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform()
        cls.addClassCleanup(cls.platform.close)
        cls.cp = cls.platform.control_plane().start()
        cls.nodes = [cls.platform.node("node-%d" % k, workers=2, ack_wait_ms=ACK_WAIT_MS,
                                       access_log=cls.platform.directory / ("access-%d" % k),
                                       **cls.flags).start()
                     for k in (1, 2)]
        cls.node = cls.nodes[0]
        cls.addClassCleanup(cls.check_permissions)
        bus.publish_sources(cls.cp, cls.nodes, cls.platform, limit=("1/s", 2))
        cls.nats = raw_nats.RawNats(cls.platform.nats.url("admin"))
        cls.addClassCleanup(cls.nats.close)

    @classmethod
    def check_permissions(cls):
        """The lists of the nodes' NATS users hold all that the lane does."""
        for node in filter(trilane.Node.alive, cls.nodes):
            error = node.dump()["bus"]["last_error"]
            assert "Permissions Violation" not in error, error

    def setUp(self):
        self.channel = bus.channel(self.node)
        self.addCleanup(self.channel.close)
        self.stub = bus.bus_pb2_grpc.BusStub(self.channel)

    def one(self, request, who="web", metadata=(), timeout=trilane.PATIENCE_S):
        return self.stub.PublishOne(request, metadata=bus.token(who) + tuple(metadata),
                                    timeout=timeout)

    def many(self, requests, who="web", timeout=trilane.PATIENCE_S):
        return list(self.stub.Publish(iter(requests), metadata=bus.token(who), timeout=timeout))

    def refused(self, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return caught.exception

    def refusal(self, request, who="web", metadata=()):
        """The code of a PublishOne that must fail."""
        return bus.code(self.refused(lambda: self.one(request, who, metadata)))

    def traced(self, explain):
        """What the node says of a refusal."""
        done = subprocess.run([trilane.DP, "trace", explain, "--output=json", "--server=" +
                               self.node.admin.removeprefix("http://")],
                              capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    def subscriber(self, *args, node=None, **options):
        s = bus.Subscriber(node or self.node, *args, **options)
        self.addCleanup(s.kill)
        return s

    def metric(self, text):
        """Sum over the nodes of the series whose line begins with 'text'."""
        total = 0.0
        for node in self.nodes:
            lines = trilane.http("GET", node.admin + "/metrics")[2].decode().splitlines()
            total += sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(text))
        return total


class Publishing(Lane):
    # ---- what JetStream gets ----

    def test_publish_one_is_in_the_stream(self):
        request = bus.order(1, event_id="ev-1", key="k", time_ms=77, source="shop",
                            traits={"tier": "gold"})
        answer = self.one(request)
        self.assertEqual((answer.event_id, answer.stream, answer.duplicate),
                         ("ev-1", "TRILANE_EVENTS", False))
        subject, headers, payload = self.nats.message("TRILANE_EVENTS", answer.sequence)
        self.assertRegex(subject, r"^trilane\.demo\.event\.[0-9]+\.acme\.Order\.v2$")
        self.assertEqual(headers["content-type"], "application/vnd.trilane.envelope")
        self.assertEqual(headers["Nats-Msg-Id"], "acme/Order.v2/ev-1")
        self.assertEqual(headers["tenant-id"], "acme")
        caller = "spiffe://trilane.test/tenant/acme/service/web"
        self.assertEqual(headers["caller-id"], caller)
        self.assertLessEqual(int(headers["x-request-timeout-ms"]), 5000)
        self.assertTrue(payload.startswith(request.envelope.SerializeToString()))
        stored = pb.Envelope.FromString(payload)
        self.assertEqual((stored.payload, stored.key, stored.time_ms, stored.source, stored.tenant),
                         (request.envelope.payload, "k", 77, "shop", "acme"))
        self.assertEqual(stored.headers["caller-id"], caller)
        self.assertEqual(stored.headers["tenant-id"], "acme")
        self.assertEqual(stored.headers["idempotency-key"], "ev-1")
        self.assertEqual(stored.traits["tier"], "gold")

    def test_what_is_missing_is_made(self):
        before = time.time() * 1000
        answer = self.one(bus.order(1))
        _, headers, payload = self.nats.message("TRILANE_EVENTS", answer.sequence)
        stored = pb.Envelope.FromString(payload)
        self.assertRegex(answer.event_id, "^[0-9a-f]{32}$")
        self.assertEqual(stored.event_id, answer.event_id)
        self.assertGreaterEqual(stored.time_ms, int(before))
        self.assertEqual(stored.source, "spiffe://trilane.test/tenant/acme/service/web")
        self.assertEqual(stored.envelope_version, 1)
        self.assertEqual(headers["trace-id"], stored.trace_id)
        self.assertEqual(headers["traceparent"], stored.headers["traceparent"])
        self.assertEqual(headers["traceparent"].split("-")[1], stored.trace_id)
        self.assertTrue(headers["x-correlation-id"])
        self.assertEqual(headers["x-correlation-id"], headers["correlation-id"])

    def test_context_of_the_call(self):
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        answer = self.one(bus.order(1), metadata=(
            ("traceparent", "00-%s-00f067aa0ba902b7-01" % trace), ("x-correlation-id", "corr-7"),
            ("x-caller-id", "spiffe://evil/x")))
        _, headers, payload = self.nats.message("TRILANE_EVENTS", answer.sequence)
        stored = pb.Envelope.FromString(payload)
        self.assertEqual((headers["trace-id"], stored.trace_id), (trace, trace))
        self.assertEqual((headers["correlation-id"], stored.headers["correlation-id"]),
                         ("corr-7", "corr-7"))
        self.assertNotIn("evil", headers["caller-id"])

    def test_context_of_the_envelope_goes_first(self):
        trace = "0af7651916cd43dd8448eb211c80319c"
        answer = self.one(bus.order(1, headers={
            "traceparent": "00-%s-b7ad6b7169203331-01" % trace, "correlation-id": "mine",
            "caller-id": "spiffe://evil/x", "idempotency-key": "idem"}))
        _, headers, payload = self.nats.message("TRILANE_EVENTS", answer.sequence)
        stored = pb.Envelope.FromString(payload)
        self.assertEqual((headers["trace-id"], headers["correlation-id"]), (trace, "mine"))
        self.assertEqual(stored.headers["idempotency-key"], "idem")
        self.assertEqual(stored.headers["caller-id"],
                         "spiffe://trilane.test/tenant/acme/service/web")

    def test_stream_of_a_thousand(self):
        ids = [str(uuid.uuid4()) for _ in range(1000)]
        answers = self.many(bus.order(i, event_id=id) for i, id in enumerate(ids))
        self.assertEqual([a.event_id for a in answers], ids)
        self.assertFalse([a for a in answers if a.refusal.code or a.duplicate])
        for answer in (answers[0], answers[500], answers[999]):
            _, headers, _ = self.nats.message("TRILANE_EVENTS", answer.sequence)
            self.assertEqual(headers["Nats-Msg-Id"], "acme/Order.v2/" + answer.event_id)
        self.assertEqual(len({a.sequence for a in answers}), 1000)

    def test_types_of_several_topics_in_one_stream(self):
        line = bus.order_pb2.Line(article="x", count=1).SerializeToString()
        answers = self.many([bus.order(1), bus.order(2, canonical_type="Line.v1", payload=line),
                             bus.order(3, canonical_type="trilane.test.order.v2.Order")])
        subjects = [self.nats.message("TRILANE_EVENTS", a.sequence)[0] for a in answers]
        self.assertEqual([s.split(".", 5)[5] for s in subjects],
                         ["Order.v2", "Line.v1", "Order.v2"])

    def test_order_by_key(self):
        answers = self.many(bus.order(i, key="same") for i in range(50))
        sequences = [a.sequence for a in answers]
        self.assertEqual(sequences, sorted(sequences))
        subjects = {self.nats.message("TRILANE_EVENTS", s)[0] for s in sequences[::10]}
        self.assertEqual(len(subjects), 1)

    def test_duplicates(self):
        first = self.one(bus.order(1, event_id="twice"))
        again = self.one(bus.order(1, event_id="twice"))
        self.assertEqual((again.sequence, again.duplicate), (first.sequence, True))
        other = self.one(bus.order(1, event_id="twice"), who="other")
        self.assertEqual(other.duplicate, False)  # tenants never meet in a dedupe window.

    # ---- refusals ----

    def test_refusals(self):
        line = b"\x0a\x01x"
        huge = b"\x0a" + b"\xff\xff\x03" + b"x" * 65535
        cases = (
            (bus.order(1, canonical_type="Nothing.v1"), "TYPE_UNKNOWN"),
            (bus.order(1, canonical_type=""), "TYPE_UNKNOWN"),
            (pb.PublishRequest(), "ENVELOPE_MALFORMED"),
            (bus.order(1, event_id="has a space"), "ENVELOPE_MALFORMED"),
            (bus.order(1, event_id="x" * 129), "ENVELOPE_MALFORMED"),
            (bus.order(1, payload=b"\xff"), "PAYLOAD_MALFORMED"),
            (bus.order(1, expires_at_ms=1), "ENVELOPE_EXPIRED"),
            (bus.order(1, expires_at_ms=int(time.time() * 1000) - 1), "ENVELOPE_EXPIRED"),
            (bus.order(1, payload=huge), "MESSAGE_TOO_LARGE"),
            (bus.order(1, tenant="globex"), "TENANT_MISMATCH"),
            (bus.order(1, headers={"tenant-id": "globex"}), "TENANT_MISMATCH"),
            (bus.order(1, canonical_type="Secret.v1", payload=line), "POLICY_DENIED"),
        )
        before = self.nats.last("TRILANE_EVENTS")
        for request, code in cases:
            self.assertEqual(self.refusal(request), code, request)
        answers = self.many(request for request, _ in cases)
        self.assertEqual([a.refusal.code for a in answers], [code for _, code in cases])
        self.assertEqual({a.sequence for a in answers}, {0})
        self.assertEqual(self.nats.last("TRILANE_EVENTS"), before)
        for (request, code), answer in zip(cases, answers):
            found = self.traced(answer.refusal.explain)
            self.assertEqual((found["code"], found["lane"], found["caller"]),
                             (code, "canonical", "acme/web"))
            if code != "ENVELOPE_MALFORMED":  # that comes before the decision, or behind it.
                self.assertEqual("target" in found, code not in ("TYPE_UNKNOWN", "TENANT_MISMATCH"))
            if code not in ("ENVELOPE_MALFORMED", "TYPE_UNKNOWN"):
                self.assertEqual(found["method"], request.envelope.canonical_type)
        denied = self.traced(answers[-1].refusal.explain)
        self.assertIn("Secret.v1", denied["target"])
        answer, = self.many([bus.order(1)])
        self.assertEqual(answer.refusal.explain, "")
        self.assertEqual(self.refusal(bus.order(1), who="stranger"), "POLICY_DENIED")
        self.assertEqual(self.refusal(bus.order(1), who="nobody"), "UNAUTHENTICATED")

    def test_refused_ones_do_not_end_the_stream(self):
        requests = [bus.order(i) if i % 3 else bus.order(i, canonical_type="Nothing.v1")
                    for i in range(300)]
        answers = self.many(requests)
        self.assertEqual([bool(a.refusal.code) for a in answers], [i % 3 == 0 for i in range(300)])

    def test_fault_of_a_payload_is_named(self):
        bad = bus.order_pb2.Order(id="ok").SerializeToString() + b"\x12\x03\x0a\x01\xff"
        error = self.refused(lambda: self.one(bus.order(1, payload=bad)))
        self.assertEqual(error.code(), REFUSALS.INVALID_ARGUMENT)
        self.assertRegex(error.details(), r"field 1 of .*Line at byte [0-9]+: .*UTF-8")

    def test_bounds_of_an_envelope(self):
        """Over the reader's bound the call ends; what the node adds counts."""
        error = self.refused(lambda: self.one(bus.order(1, extensions={"x": b"y" * (1 << 20)})))
        self.assertEqual(bus.code(error), "MESSAGE_TOO_LARGE")
        full = 900 * 1024 - bus.order(1, extensions={"x": b""}).envelope.ByteSize() - 8
        request = bus.order(1, extensions={"x": b"y" * full})
        self.assertLessEqual(request.envelope.ByteSize(), 900 * 1024)
        self.assertEqual(self.refusal(request), "MESSAGE_TOO_LARGE")
        answer = self.one(bus.order(1, extensions={"x": b"y" * (full - 2048)}))
        self.assertGreater(answer.sequence, 0)

    def test_rate_limit(self):
        payload = bus.order_pb2.Line(article="s").SerializeToString()
        began = time.monotonic()
        answers = self.many(bus.order(i, canonical_type="Slow.v1", payload=payload)
                            for i in range(50))
        seconds = time.monotonic() - began
        codes = [a.refusal.code for a in answers]
        self.assertEqual(codes[:2], ["", ""])
        self.assertEqual(set(codes), {"", "RATE_LIMITED"})
        self.assertLessEqual(codes.count(""), 2 + seconds)
        refused = next(a for a in answers if a.refusal.code)
        self.assertIn("retry in", refused.refusal.message)
        self.assertIn(self.traced(refused.refusal.explain)["limit"], refused.refusal.message)

    def test_no_envelope_without_a_decision(self):
        """Every envelope that decodes and has a type is one decision, allowed or not."""
        decisions = "trilane_policy_decisions_total"
        before, last = self.metric(decisions), self.nats.last("TRILANE_EVENTS")
        self.many(bus.order(i) for i in range(40))
        self.many((bus.order(i) for i in range(30)), who="stranger")
        for _ in range(5):
            self.assertEqual(self.refusal(bus.order(1), who="stranger"), "POLICY_DENIED")
        trilane.wait_until(lambda: self.metric(decisions) - before == 75, what="75 decisions")
        self.assertEqual(self.nats.last("TRILANE_EVENTS") - last, 40)

    def test_protocol(self):
        def call(path, *messages):
            stub = self.channel.stream_stream(path, request_serializer=lambda b: b,
                                              response_deserializer=lambda b: b)
            return self.refused(lambda: list(stub(iter(messages), metadata=bus.token("web"),
                                                  timeout=5)))
        one = bus.order(1).SerializeToString()
        base = "/trilane.bus.v1.Bus/"
        self.assertEqual(bus.code(call(base + "Nothing", one)), "NO_ROUTE")
        self.assertEqual(bus.code(call(base + "PublishOne")), "PROTOCOL_ERROR")
        self.assertEqual(bus.code(call(base + "PublishOne", one, one)), "PROTOCOL_ERROR")
        self.assertEqual(bus.code(call(base + "PublishOne", b"\xff")), "ENVELOPE_MALFORMED")
        self.assertEqual(bus.code(call(base + "Subscribe", b"\xff")), "PROTOCOL_ERROR")
        self.assertEqual(bus.code(call(base + "Subscribe", b"\x20\x01")), "SUBSCRIPTION_INVALID")

    def test_sender_that_leaves(self):
        """A call that is given up with envelopes on their way harms nobody."""
        gate = threading.Event()

        def requests():
            for i in range(200):
                yield bus.order(i)
            gate.wait(60)
        call = self.stub.Publish(requests(), metadata=bus.token("web"))
        next(call)
        call.cancel()
        gate.set()
        self.assertGreater(self.one(bus.order(1)).sequence, 0)

    def test_access_log_and_metrics(self):
        corr = "log-%d" % time.time_ns()
        self.one(bus.order(1), metadata=(("x-correlation-id", corr),))
        log = self.platform.directory / "access-1"
        line = trilane.wait_until(lambda: [l for l in log.read_text().splitlines() if corr in l],
                                  what="the line")[0]
        for part in ("lane=canonical", "code=OK", "caller=acme/web", "target=topic/Order.v2",
                     "rule=acme/order-v2/web-publishes", "grpc=0"):
            self.assertIn(part, line)
        trilane.wait_until(lambda: self.metric('bus_publish_latency_ms_count{topic="Order.v2"}') > 0,
                           what="the metric")


class Subscribing(Lane):
    def setUp(self):
        super().setUp()
        self.consumer = "c-" + uuid.uuid4().hex[:12]

    def open(self, **options):
        """A subscriber of a consumer of its own that begins now."""
        options.setdefault("from_start", False)
        s = self.subscriber(self.consumer, **options)
        self.assertTrue(s.opened.is_set(), s.error)
        return s

    def put(self, count=1, **fields):
        answers = self.many(bus.order(i, **fields) for i in range(count))
        self.assertFalse([a for a in answers if a.refusal.code])
        return [a.event_id for a in answers]

    def test_deliver_and_ack(self):
        s = self.open()
        ids = self.put(5)
        got = s.take_many(5)
        self.assertEqual([g.envelope.event_id for g in got], ids)
        self.assertEqual({g.attempt for g in got}, {1})
        self.assertEqual(len({g.delivery for g in got}), 5)
        self.assertEqual(got[0].envelope.headers["caller-id"],
                         "spiffe://trilane.test/tenant/acme/service/web")
        _, _, payload = self.nats.message("TRILANE_EVENTS", got[0].sequence)
        self.assertEqual(pb.Envelope.FromString(payload), got[0].envelope)
        s.ack(*got)
        self.assertTrue(s.quiet(ACK_WAIT_MS / 1000 + 1.5))
        self.assertEqual(self.pending(), 0)

    def pending(self):
        consumers = [c for c in self.nats.consumers("TRILANE_EVENTS")
                     if c["name"].startswith("demo_%s_" % self.consumer)]
        return sum(c["num_ack_pending"] + c["num_pending"] for c in consumers)

    def test_from_start(self):
        ids = self.put(3)
        s = self.open(from_start=True, credit=10000)
        seen = []
        while ids[-1] not in seen:
            got = s.take()
            seen.append(got.envelope.event_id)
            s.ack(got)
        self.assertEqual(seen[-3:], ids)

    def test_durable_goes_on_where_it_was(self):
        s = self.open()
        self.put(2)
        s.ack(*s.take_many(2))
        s.end()
        self.assertIsNone(s.error)
        ids = self.put(3)
        got = self.open().take_many(3)
        self.assertEqual(sorted(g.envelope.event_id for g in got), sorted(ids))
        # One that the worker of the first subscriber had asked for is given back, and comes again.
        first = [g.envelope.event_id for g in got if g.attempt == 1]
        self.assertEqual(first, [id for id in ids if id in first])

    def test_without_an_ack_it_comes_again(self):
        s = self.open()
        began = time.monotonic()  # before the delivery, from which JetStream counts.
        self.put(1)
        first = s.take()
        second = s.take()
        self.assertGreater(time.monotonic() - began, ACK_WAIT_MS / 1000 - 0.1)
        self.assertEqual((second.sequence, second.attempt), (first.sequence, 2))
        s.ack(first)  # late: counted, and nothing else.
        s.ack(second)
        trilane.wait_until(lambda: self.pending() == 0, what="the ack")

    def test_nack(self):
        s = self.open()
        self.put(1)
        s.nack(s.take())
        second = s.take(timeout=ACK_WAIT_MS / 1000 - 1)
        self.assertEqual(second.attempt, 2)
        began = time.monotonic()
        s.nack(second, delay_ms=1000)
        third = s.take()
        self.assertGreater(time.monotonic() - began, 0.8)
        self.assertEqual(third.attempt, 3)
        s.nack(third, terminate=True)
        self.assertTrue(s.quiet(ACK_WAIT_MS / 1000 + 1))
        self.assertEqual(self.pending(), 0)

    def test_unknown_ack_ends_the_stream(self):
        s = self.open()
        s.send(ack=["77"])
        self.assertTrue(s.ended.wait(60))
        self.assertEqual(bus.code(s.error), "ACK_UNKNOWN")

    def test_credit(self):
        s = self.open(credit=3)
        ids = self.put(10)
        got = s.take_many(3)
        self.assertTrue(s.quiet(0.7))
        s.ack(*got)
        self.assertTrue(s.quiet(0.7))  # an ack gives no credit by itself.
        s.send(credit=2)
        got += s.take_many(2)
        self.assertTrue(s.quiet(0.7))
        s.ack(*got[3:], credit=100)
        got += s.take_many(5)
        self.assertEqual([g.envelope.event_id for g in got], ids)
        self.assertEqual({g.attempt for g in got}, {1})

    def test_killed_subscriber_gives_back(self):
        s = self.open()
        ids = self.put(4)
        s.take_many(4)
        s.kill()
        began = time.monotonic()
        other = self.open(node=self.nodes[1])
        got = other.take_many(4)
        self.assertLess(time.monotonic() - began, ACK_WAIT_MS / 1000)
        self.assertEqual({g.envelope.event_id for g in got}, set(ids))
        self.assertEqual({g.attempt for g in got}, {2})

    def test_two_share(self):
        """On one node and on two: each event goes to one of them, and each gets some."""
        for nodes in ((self.node, self.node), self.nodes):
            self.consumer = "c-" + uuid.uuid4().hex[:12]
            both = [self.open(node=node, credit=20) for node in nodes]
            ids = self.put(40)
            got = [s.take_many(20) for s in both]
            seen = [g.envelope.event_id for part in got for g in part]
            self.assertEqual(sorted(seen), sorted(ids))
            for s, part in zip(both, got):
                s.ack(*part)

    def test_slow_reader_does_not_hold_up_others(self):
        slow = self.open(credit=1)
        fast = self.open(node=self.nodes[1], credit=1000)
        self.put(50)
        held = slow.take()
        self.assertEqual(len(fast.take_many(49)), 49)
        slow.ack(held)

    def test_reader_that_never_reads(self):
        """Large events stop at the window; the node holds one and goes on with others."""
        call = self.stub.Subscribe(iter_forever(pb.SubscribeRequest(open=pb.Open(
            consumer=self.consumer, types=["Order.v2"], credit=1000))),
            metadata=bus.token("reader"))
        self.assertTrue(next(call).opened)
        self.put(30, extensions={"x": b"y" * 700000})
        got = [next(call) for _ in range(3)]
        self.assertEqual({len(g.envelope.extensions["x"]) for g in got}, {700000})
        self.assertGreater(self.one(bus.order(1)).sequence, 0)
        call.cancel()

    def test_several_types(self):
        s = self.open(types=("Order.v2", "Line.v1", "Order.v2"))
        line = bus.order_pb2.Line(article="x").SerializeToString()
        ids = self.put(1) + self.put(1, canonical_type="Line.v1", payload=line)
        self.assertEqual({g.envelope.event_id for g in s.take_many(2)}, set(ids))

    def test_refused_openings(self):
        def code(**options):
            s = self.subscriber(options.pop("consumer", "fine"), **options)
            self.assertTrue(s.ended.wait(60))
            return bus.code(s.error)
        self.assertEqual(code(consumer="Not A Name"), "SUBSCRIPTION_INVALID")
        self.assertEqual(code(types=()), "SUBSCRIPTION_INVALID")
        self.assertEqual(code(types=["T%d.v1" % i for i in range(17)]), "SUBSCRIPTION_INVALID")
        self.assertEqual(code(types=["Nothing.v1"]), "TYPE_UNKNOWN")
        self.assertEqual(code(types=["Secret.v1"]), "POLICY_DENIED")
        self.assertEqual(code(types=["Order.v2", "Secret.v1"]), "POLICY_DENIED")
        self.assertEqual(code(who="stranger"), "POLICY_DENIED")
        self.assertEqual(code(who="nobody"), "UNAUTHENTICATED")

    def test_tenants_do_not_meet(self):
        mine = self.open()
        theirs = self.open(who="other")  # the same consumer name, another tenant.
        ids = self.put(2)
        other = self.one(bus.order(9), who="other").event_id
        self.assertEqual([g.envelope.event_id for g in mine.take_many(2)], ids)
        got = theirs.take()
        self.assertEqual((got.envelope.event_id, got.envelope.tenant), (other, "globex"))
        self.assertTrue(theirs.quiet(0.5) and mine.quiet(0.5))

    def test_quarantine(self):
        s = self.open()
        subject = "trilane.demo.event.0.acme.Order.v2"
        envelope = bus.order(1, event_id="good", tenant="acme").envelope
        good = envelope.SerializeToString()
        kind = ("content-type", "application/vnd.trilane.envelope")
        foreign = pb.Envelope(canonical_type="Order.v2", tenant="globex").SerializeToString()
        bad = [(good, ("content-type", "application/json"), "CONTENT_TYPE"),
               (b"\xff\xff", kind, "ENVELOPE_MALFORMED"), (foreign, kind, "TENANT_MISMATCH"),
               (pb.Envelope(canonical_type="Line.v1", tenant="acme").SerializeToString(), kind,
                "TYPE_UNKNOWN")]
        before = self.nats.last("TRILANE_QUARANTINE")
        for payload, header, _ in bad:
            self.nats.publish(subject, payload, [header, ("Nats-Msg-Id", uuid.uuid4().hex),
                                                 ("x-mine", "kept")])
        self.nats.publish(subject, good, [kind])
        self.assertEqual(s.take().envelope.event_id, "good")  # it is not held up.
        found = trilane.wait_until(lambda: self.quarantined(before, 4), what="four in quarantine")
        self.assertEqual([m[1]["x-trilane-reason"] for m in found], [code for _, _, code in bad])
        self.assertEqual([m[2] for m in found], [payload for payload, _, _ in bad])
        for place, headers, _ in found:
            self.assertTrue(place.startswith("trilane.demo.quarantine.TRILANE_EVENTS.demo_"))
            self.assertEqual((headers["x-trilane-subject"], headers["x-mine"]), (subject, "kept"))

    def quarantined(self, before, count):
        """What this test's consumer put there; None while it is not as many."""
        last = self.nats.last("TRILANE_QUARANTINE")
        found = [self.nats.message("TRILANE_QUARANTINE", i) for i in range(before + 1, last + 1)]
        found = [m for m in found if "_%s_" % self.consumer in m[0]]
        return found if len(found) >= count else None

    def test_expired_events_are_not_delivered(self):
        s = self.open()
        kind = ("content-type", "application/vnd.trilane.envelope")
        old = pb.Envelope(canonical_type="Order.v2", tenant="acme", event_id="old",
                          expires_at_ms=1).SerializeToString()
        self.nats.publish("trilane.demo.event.0.acme.Order.v2", old, [kind])
        ids = self.put(1)
        self.assertEqual(s.take().envelope.event_id, ids[0])

    def test_consumer_that_was_removed_is_made_again(self):
        s = self.open()
        name = next(c["name"] for c in self.nats.consumers("TRILANE_EVENTS")
                    if c["name"].startswith("demo_%s_" % self.consumer))
        self.assertTrue(self.nats.api("CONSUMER.DELETE.TRILANE_EVENTS." + name)["success"])
        trilane.wait_until(lambda: any(c["name"] == name for c in
                                       self.nats.consumers("TRILANE_EVENTS")), what="the consumer")
        ids = self.put(2)
        self.assertEqual([g.envelope.event_id for g in s.take_many(2)], ids)

    def test_consumer_that_was_removed_while_nobody_pulled(self):
        """To a pull from a consumer that is gone JetStream says nothing at all."""
        s = self.open(credit=1)
        self.put(1)
        s.ack(s.take())
        name = next(c["name"] for c in self.nats.consumers("TRILANE_EVENTS")
                    if c["name"].startswith("demo_%s_" % self.consumer))
        self.assertTrue(self.nats.api("CONSUMER.DELETE.TRILANE_EVENTS." + name)["success"])
        s.send(credit=10)
        trilane.wait_until(lambda: any(c["name"] == name for c in
                                       self.nats.consumers("TRILANE_EVENTS")), what="the consumer")
        ids = self.put(1)
        self.assertEqual(s.take().envelope.event_id, ids[0])

    def test_metrics(self):
        s = self.open()
        trilane.wait_until(lambda: self.metric("trilane_bus_subscriptions") >= 1, what="the gauge")
        acked = 'trilane_bus_deliveries_total{topic="Order.v2",outcome="acked"}'
        before = self.metric(acked)
        self.put(3)
        s.ack(*s.take_many(3))
        trilane.wait_until(lambda: self.metric(acked) >= before + 3, what="three acks")
        trilane.wait_until(lambda: self.metric('bus_consume_latency_ms_count{topic="Order.v2"}') > 0,
                           what="the latency")
        s.end()
        trilane.wait_until(lambda: self.metric("trilane_bus_subscriptions") == 0,
                           what="no subscription")


def iter_forever(request):
    """One request, and a side that stays open."""
    yield request
    threading.Event().wait(120)


class Changing(Lane):
    """What changes under open calls: snapshots, nodes, NATS."""

    def setUp(self):
        super().setUp()
        bus.publish_sources(self.cp, self.nodes, self.platform,
                            extra=[marker()])

    def test_swap_decides_anew(self):
        s = self.subscriber("swap", from_start=False)
        keeps = self.subscriber("swap", who="web", node=self.nodes[1], from_start=False)
        gate = threading.Event()

        def requests():
            yield bus.order(1)
            gate.wait(60)
            yield bus.order(2)
        publishing = self.stub.Publish(requests(), metadata=bus.token("web"))
        self.assertGreater(next(publishing).sequence, 0)
        bus.publish_sources(self.cp, self.nodes, self.platform, readers=("web",))
        self.assertTrue(s.ended.wait(bus.SOON))
        self.assertEqual((s.error.code(), bus.code(s.error)),
                         (REFUSALS.PERMISSION_DENIED, "POLICY_DENIED"))
        self.assertFalse(keeps.ended.wait(1))
        gate.set()
        self.assertGreater(next(publishing).sequence, 0)

    def test_drain(self):
        """Subscriptions end UNAVAILABLE; the node ends with 0 although a publisher stays."""
        node = self.platform.node("node-%s" % uuid.uuid4().hex[:6]).start()
        trilane.wait_until(lambda: node.version() > 0, what="a snapshot")
        s = self.subscriber("drain", node=node, from_start=False)
        self.assertTrue(s.opened.is_set())
        gate = threading.Event()

        def requests():
            for i in range(100):
                yield bus.order(i)
            gate.wait(120)
        with bus.channel(node) as channel:
            call = bus.bus_pb2_grpc.BusStub(channel).Publish(requests(),
                                                             metadata=bus.token("web"))
            acked = [next(call)]
            node.popen.terminate()
            with self.assertRaises(grpc.RpcError) as caught:
                for answer in call:
                    acked.append(answer)
            self.assertEqual(bus.code(caught.exception), "DRAINING")
        self.assertTrue(s.ended.wait(60))
        self.assertEqual((s.error.code(), bus.code(s.error)),
                         (REFUSALS.UNAVAILABLE, "DRAINING"))
        self.assertEqual(node.wait(), 0, node.log()[-6000:])
        gate.set()
        for answer in acked:
            self.assertEqual(self.nats.message("TRILANE_EVENTS", answer.sequence)[1]["Nats-Msg-Id"],
                             "acme/Order.v2/" + answer.event_id)

    def test_zz_nats_comes_back_without_its_store(self):
        """Open subscriptions go on, also one that has no credit just now."""
        with_credit = self.subscriber("empty-store", from_start=False)
        without = self.subscriber("no-credit", from_start=False, credit=1)
        self.one(bus.order(1))
        with_credit.ack(with_credit.take())
        without.ack(without.take())
        self.platform.nats.kill()
        shutil.rmtree(self.platform.nats.directory / "jetstream")
        self.platform.nats.start()
        raw = raw_nats.RawNats(self.platform.nats.url("admin"))
        self.addCleanup(raw.close)
        trilane.wait_until(lambda: len(raw.consumers("TRILANE_EVENTS")) == 2, 60, "the consumers")
        id = self.one(bus.order(1)).event_id
        without.send(credit=1)
        self.assertEqual(with_credit.take().envelope.event_id, id)
        self.assertEqual(without.take().envelope.event_id, id)

    def test_zz_nats_is_killed_while_publishing(self):
        """No event that was acknowledged is lost; while NATS is away the answer comes at once."""
        acked, refused, stop, done = [], [], threading.Event(), threading.Event()
        self.addCleanup(done.set)
        self.addCleanup(stop.set)

        def publish():
            while not stop.is_set():
                id = uuid.uuid4().hex
                try:
                    acked.append((self.one(bus.order(1, event_id=id)).sequence, id))
                    time.sleep(0.002)
                except grpc.RpcError as error:
                    refused.append(bus.code(error))
                    time.sleep(0.02)
        s = self.subscriber("outage", from_start=False, credit=1000000)
        arrived = set()

        def read():
            while not done.is_set():
                try:
                    got = s.take(timeout=0.2)
                except queue.Empty:
                    continue
                arrived.add(got.envelope.event_id)
                s.ack(got)
        threads = [threading.Thread(target=publish) for _ in range(4)]
        threading.Thread(target=read, daemon=True).start()
        for thread in threads:
            thread.start()
        trilane.wait_until(lambda: len(acked) > 200, what="publishes")
        self.platform.nats.stop()
        trilane.wait_until(lambda: "BUS_UNAVAILABLE" in refused[-20:], what="refusals")
        trilane.wait_until(lambda: self.quick_refusal(), what="an answer at once")
        self.platform.nats.start()
        count = len(acked)
        trilane.wait_until(lambda: len(acked) > count + 200, 60, what="publishes again")
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(set(refused), {"BUS_UNAVAILABLE"})
        raw = raw_nats.RawNats(self.platform.nats.url("admin"))
        self.addCleanup(raw.close)
        for sequence, id in acked:
            self.assertEqual(raw.message("TRILANE_EVENTS", sequence)[1]["Nats-Msg-Id"],
                             "acme/Order.v2/" + id)
        published = {id for _, id in acked}
        trilane.wait_until(lambda: published <= set(arrived), 60, what="all events to arrive")

    def quick_refusal(self):
        began = time.monotonic()
        return self.refusal(bus.order(1)) == "BUS_UNAVAILABLE" and time.monotonic() - began < 0.5

    def test_zz_stream_that_is_gone_is_made_again(self):
        raw = raw_nats.RawNats(self.platform.nats.url("admin"))
        self.addCleanup(raw.close)
        self.assertTrue(raw.api("STREAM.DELETE.TRILANE_EVENTS")["success"])

        def published():
            try:
                return self.one(bus.order(1)).sequence > 0
            except grpc.RpcError as error:
                self.assertEqual(bus.code(error), "BUS_UNAVAILABLE")
                return False
        trilane.wait_until(published, what="a new stream")
        subjects = raw.stream("TRILANE_EVENTS")["config"]["subjects"]
        self.assertEqual(subjects, ["trilane.demo.event.>"])


def marker():
    """A resource that makes a new content of every publish."""
    return ("apiVersion: trilane.dev/v1\nkind: Service\n"
            "metadata: {name: m-%s, tenant: acme}\nspec: {traits: {of: test}}\n"
            % uuid.uuid4().hex[:8])


if __name__ == "__main__":
    unittest.main()
