"""Mirroring through a real node: a shadow gets copies, is compared, and disturbs nobody."""

import asyncio
import itertools
import socket
import time
import unittest

import grpc
from websockets.legacy import client as sockets

import commanded
import echo_service as echo
import raw_h2
import trilane
import web_client as web
from retry_test import SERVICE, service

SOON = 10.0
PATH = "/%s/Say" % SERVICE


class Mirror(unittest.TestCase):
    keys = itertools.count()

    @classmethod
    def setUpClass(cls):
        cls.calls, cls.copies = commanded.Calls(), commanded.Calls()
        cls.server = commanded.Server("own", cls.calls)
        cls.addClassCleanup(cls.server.stop)
        cls.shadow = commanded.Server("own", cls.copies)  # the same name: the same answers.
        cls.addClassCleanup(cls.shadow.stop)
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.cp = cls.platform.control_plane().start(head_interval_ms=100)
        cls.node = cls.platform.node("node-1", workers=1, mirrored_calls=4).start()

    def publish(self, port, mirror="{service: shadow}", rule="effect: allow",
                more=(), spec=""):
        extra = service("own", [self.server.port])
        shadow = service("shadow", [port, *more], spec, proto="trilane.test.v1.Shadow")
        extra += shadow.replace("effect: allow", rule)
        extra += """
---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: own, tenant: acme}
spec:
  match: [{grpc: {service: %s}}]
  targets: [{service: own}]
  mirror: %s
""" % (SERVICE, mirror)
        before = self.node.version()
        files = {"platform.yaml": echo.platform_yaml([], extra=extra)}
        self.cp("publish", "-m", "test", self.platform.write_policies(files))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it",
                           step=0.01)

    def setUp(self):
        self.channel = echo.channel(self.node)
        self.addCleanup(self.channel.close)

    def say(self, body=b"hi", more=()):
        """One call: (key, status, seconds)."""
        key = "m-%d" % next(self.keys)
        began = time.monotonic()
        call = self.channel.unary_unary(PATH).future(
            body, timeout=60, metadata=echo.token("web") + (
                ("x-key", key), ("x-trilane-mirror", "spoofed"), *more))
        return key, call.code().name, time.monotonic() - began

    def counted(self, node=None):
        """{outcome: how often}."""
        text = trilane.http("GET", (node or self.node).admin + "/metrics")[2].decode()
        name = 'trilane_mirrored_total{target="service/acme/shadow",outcome="'
        return {line[len(name):].split('"')[0]: int(float(line.rsplit(" ", 1)[1]))
                for line in text.splitlines() if line.startswith(name)}

    def grown(self, before):
        """How many more there are."""
        return {outcome: count - before.get(outcome, 0) for outcome, count in self.counted().items()
                if count != before.get(outcome, 0)}

    def expect(self, before, **more):
        trilane.wait_until(lambda: self.grown(before) == more, what=repr(more), step=0.01)

    def test_a_copy_is_what_the_upstream_got(self):
        self.publish(self.shadow.port)
        before = self.counted()
        for body in (b"hi", b"", bytes(range(256)) * 100):
            key, status, _ = self.say(body=body)
            self.assertEqual(status, "OK")
            trilane.wait_until(lambda k=key: self.copies.of.get(k), what="the copy")
            own, copy = self.calls.of[key][0], self.copies.of[key][0]
            self.assertTrue(copy.gone.wait(60))
            self.assertEqual(copy.body, own.body)
            self.assertEqual(copy.metadata.pop("x-trilane-mirror"), "1")
            self.assertNotIn("x-trilane-mirror", own.metadata)
            self.assertEqual(copy.metadata, own.metadata)
        self.expect(before, same=3)
        text = trilane.http("GET", self.node.admin + "/metrics")[2].decode()
        for side in ("caller", "shadow"):
            self.assertIn('trilane_mirror_latency_ms_count{target="service/acme/shadow",'
                          'side="%s"}' % side, text)

    def test_differences_are_counted(self):
        shadow = raw_h2.Upstream({
            "Status": lambda e: e.send_headers(raw_h2.OK + [("grpc-status", "5")], end=True),
            "Body": lambda e: e.answer(raw_h2.message(b"differs")),
            "Reset": lambda e: e.refuse(raw_h2.h2.errors.ErrorCodes.INTERNAL_ERROR),
            "Pieces": lambda e: e.answer(raw_h2.message(b"answer of own")[:3],
                                         raw_h2.message(b"answer of own")[3:])})
        self.addCleanup(shadow.stop)
        self.publish(shadow.port)
        for method, outcome in (("Status", "status"), ("Body", "body"), ("Reset", "failed"),
                                ("Pieces", "same")):
            before = self.counted()
            call = self.channel.unary_unary("/%s/%s" % (SERVICE, method))
            self.assertEqual(call(b"hi", metadata=echo.token("web"), timeout=60), b"answer of own")
            self.expect(before, **{outcome: 1})
        self.assertEqual(shadow.seen("Body")[0].headers[":authority"].count("-shadow:"), 1)
        # The caller's upstream fails, and the shadow does not.
        before = self.counted()
        call = self.channel.unary_unary("/%s/Body" % SERVICE)
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"hi", metadata=echo.token("web") + (("x-script", "13"),), timeout=60)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INTERNAL)
        self.expect(before, status=1)

    def test_a_shadow_disturbs_nobody(self):
        """One that is silent, and one that is not there."""
        silent = raw_h2.Upstream({"Say": lambda exchange: None})
        self.addCleanup(silent.stop)
        self.publish(silent.port)
        before = self.counted()
        for _ in range(6):
            key, status, took = self.say()
            self.assertEqual((status, took < SOON), ("OK", True))
        self.expect(before, dropped=2)  # beyond four at once.
        for peer in silent.peers:
            peer.sock.shutdown(socket.SHUT_RDWR)
        self.expect(before, dropped=2, failed=4)
        self.publish(trilane.free_port())
        self.assertEqual(self.say(body=bytes(1 << 20))[1], "OK")
        self.assertEqual(self.say()[1], "OK")

    def test_a_copy_ends_soon_behind_its_call(self):
        """Whatever the call's deadline was: what a silent shadow keeps is bounded by time, too."""
        silent = raw_h2.Upstream({"Say": lambda exchange: None})
        self.addCleanup(silent.stop)
        self.publish(silent.port)
        node = self.platform.node("node-2", workers=1, mirrored_calls=1, mirror_after_ms=50).start()
        with echo.channel(node) as channel:
            call = channel.unary_unary(PATH)
            for copies in (1, 2):
                call(b"hi", timeout=3600, metadata=echo.token("web") + (("x-key", "late"),))
                trilane.wait_until(lambda n=copies: self.counted(node).get("failed") == n,
                                   what="the end of the copy", step=0.01)
        self.assertNotIn("dropped", {k for k, count in self.counted(node).items() if count})
        node.stop()

    def test_a_copy_that_is_cut_off_is_no_failure_of_the_shadow(self):
        """The shadow may be a service like any other, whose endpoints its own callers need."""
        silent = [raw_h2.Upstream({"Say": lambda exchange: None}) for _ in range(2)]
        for upstream in silent:
            self.addCleanup(upstream.stop)
        self.publish(silent[0].port, more=[silent[1].port],
                     spec="  outlierDetection: {consecutiveFailures: 1}\n")
        node = self.platform.node("node-3", workers=1, mirrored_calls=1, mirror_after_ms=50).start()
        with echo.channel(node) as channel:
            call = channel.unary_unary(PATH)
            for copies in range(1, 5):
                call(b"hi", timeout=3600, metadata=echo.token("web") + (("x-key", "cut"),))
                trilane.wait_until(lambda n=copies: self.counted(node).get("failed") == n,
                                   what="the end of the copy", step=0.01)
        self.assertEqual(node.metric("trilane_upstream_ejections_total"), 0)
        node.stop()

    def test_a_copy_of_a_socket_that_is_gone(self):
        """It waits for a stream of the shadow's, and has its fields by then all the same."""
        held = raw_h2.Upstream({"Hold": lambda exchange: None,
                                "Say": lambda exchange: exchange.answer(raw_h2.message(b"m"))})
        self.addCleanup(held.stop)
        self.publish(held.port)
        node = self.platform.node("node-4", workers=1, upstream_connections=1, upstream_streams=1,
                                  mirror_after_ms=60000).start()
        with echo.channel(node) as channel:
            hold = channel.unary_unary("/%s/Hold" % SERVICE)
            self.assertEqual(hold(b"", metadata=echo.token("web"), timeout=60), b"answer of own")
        trilane.wait_until(lambda: held.seen("Hold"), what="the stream that is taken", step=0.01)

        async def page():
            async with sockets.connect("ws://127.0.0.1:%d%s" % (node.ports["listen"], PATH),
                                       subprotocols=("grpc-websockets",), compression=None,
                                       open_timeout=60) as ws:
                await ws.send(b"authorization: Bearer web-token\r\nIdempotency-Key: k\r\n"
                              b"grpc-accept-encoding: gzip\r\nx-page: p\r\n")
                await ws.send(b"\0" + web.frame(b"hi"))
                await ws.send(b"\1")
                await asyncio.wait_for(ws.wait_closed(), 60)
                return ws.close_code
        self.assertEqual(asyncio.run(page()), 1000)
        trilane.wait_until(lambda: node.metric("trilane_connections") == 0,
                           what="the end of the socket", step=0.01)
        first = held.seen("Hold")[0]
        first.answer(raw_h2.message(b"m"))
        first.peer.flush()
        trilane.wait_until(lambda: held.seen("Say"), what="the copy", step=0.01)
        copy = held.seen("Say")[0].headers
        self.assertEqual((copy["idempotency-key"], copy["grpc-accept-encoding"], copy["x-page"]),
                         ("k", "gzip", "p"))
        node.stop()

    def test_a_copys_latency_is_that_of_its_answers_head(self):
        """As a call's: what a stream takes to its end is nobody's delay."""
        def say(exchange):
            exchange.send_headers(raw_h2.OK)
            exchange.peer.flush()
            time.sleep(0.6)  # is the stream: longer than the SLA has for a head.
            exchange.send(raw_h2.message(b"answer of own"))
            exchange.send_headers(raw_h2.STATUS_OK, end=True)
        slow = raw_h2.Upstream({"Say": say})
        self.addCleanup(slow.stop)
        self.publish(slow.port, spec="  sla: {latency: 300ms, interval: 200ms, requestVolume: 1}\n")
        for _ in range(4):
            before = self.counted()
            self.say()
            self.expect(before, same=1)
        self.assertEqual(self.node.metric("trilane_upstream_endpoints_out"), 0)

    def test_who_cannot_be_reached_gets_no_more_copies(self):
        """One of two endpoints is not there: what it is asked for fails once, and again a second later."""
        self.publish(self.shadow.port, more=[trilane.free_port()])
        before, began = self.counted(), time.monotonic()
        for _ in range(30):
            self.say()
        asked = 1 + int(time.monotonic() - began)
        trilane.wait_until(lambda: sum(self.grown(before).values()) == 30, what="their end")
        self.assertLessEqual(self.grown(before).get("failed", 0), asked + 2)

    def test_a_share(self):
        self.publish(self.shadow.port, mirror="{service: shadow, perMille: 250}")
        before = self.counted()
        keys = [self.say()[0] for _ in range(200)]

        def copied():
            return sum(1 for key in keys if key in self.copies.of)
        trilane.wait_until(lambda: self.grown(before).get("same") == copied(), what="their end")
        self.assertTrue(15 < copied() < 95, copied())  # five standard deviations are 31.

    def test_a_shadow_is_a_target_like_any_other(self):
        self.publish(self.shadow.port, rule="effect: deny")
        before = self.counted()
        key, status, _ = self.say()
        self.assertEqual(status, "OK")
        self.expect(before, denied=1)
        self.assertNotIn(key, self.copies.of)

    def test_a_shadow_is_open_by_the_clock(self):
        """And by a header, unless that is there twice, which is none of the caller's business."""
        self.publish(self.shadow.port, rule='effect: allow, notBefore: "2020-01-01T00:00:00Z"')
        before = self.counted()
        self.say()
        self.expect(before, same=1)
        self.publish(self.shadow.port,
                     rule="effect: allow, headers: [{name: x-stage, value: dev}]")
        before = self.counted()
        for stages in (("dev",), ("prod", "dev")):
            self.assertEqual(self.say(more=[("x-stage", s) for s in stages])[1], "OK")
        self.expect(before, same=1, denied=1)


if __name__ == "__main__":
    unittest.main()
