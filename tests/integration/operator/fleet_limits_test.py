"""A rate that two nodes share: never above, followed when callers go from one node to the other, and
refused where there is no share."""

import contextlib
import os
import pathlib
import queue
import re
import signal
import sqlite3
import threading
import time
import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb
RATE = 40
BURST = 8
WINDOW_S = 1.0

LIMITS = """
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: fleet, tenant: acme}
spec: {target: {service: echo}, methods: [/trilane.test.v1.Echo/Say], rate: %d/s, burst: %d, scope: global}
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: open, tenant: acme}
spec: {target: {service: echo}, methods: [/trilane.test.v1.Echo/Chat], rate: 1/h, scope: global, onUnknown: open}
""" % (RATE, BURST)


SENT = ("trilane_shares_total", 'event="sent"')
REFUSED = ("trilane_shares_total", 'event="refused"')


def series(base, name, labels):
    """Value of one series; 0 when it is not there."""
    _, _, text = trilane.http("GET", base + "/metrics")
    front = "%s{%s} " % (name, labels)
    return sum(float(line[len(front):]) for line in text.decode().splitlines()
               if line.startswith(front))


class Callers:
    """Two that call one node as fast as it answers; when each call passed."""

    def __init__(self, node, key=None):
        self.node = node
        self.metadata = echo.token("web") + ((("x-key", key),) if key else ())
        self.passed = []
        self.codes = set()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._call, daemon=True) for _ in range(2)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, problem, trace):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def _call(self):
        with echo.channel(self.node, grpc__use_local_subchannel_pool=1) as channel:
            stub = echo.stubs.EchoStub(channel)
            while not self.ended.is_set():
                try:
                    stub.Say(pb.Words(text="x"), timeout=60, metadata=self.metadata)
                    self.passed.append(time.monotonic())
                except grpc.RpcError as error:
                    self.codes.add(dict(error.trailing_metadata() or ()).get("x-trilane-code"))
                self.ended.wait(0.005)

    def rate(self):
        """What passed in the last moments, a second."""
        since = time.monotonic() - WINDOW_S
        return sum(1 for at in self.passed if at > since) / WINDOW_S


class Fleet(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        echo.begin(cls)
        cls.nodes = [cls.platform.node("node-%d" % i, workers=2) for i in (1, 2)]
        for node in cls.nodes:
            node.start(status_interval_ms=1000)
        echo.publish_first(cls, cls.nodes, LIMITS)

    def shared(self, node):
        return node.metric("trilane_shares_total") or 0

    def follow(self, node):
        """Calls one node until it has most of the budget; what passed there, and when."""
        with Callers(node) as callers:
            trilane.wait_until(lambda: callers.rate() >= 0.9 * RATE, what="the budget to follow")
        self.assertLessEqual(callers.codes, {"RATE_LIMITED"})
        return callers.passed

    def test_it_goes_where_it_is_asked_for(self):
        for node in self.nodes:
            trilane.wait_until(lambda: self.shared(node) >= 1, what="shares of both nodes")
        passed = []
        for node in self.nodes:
            passed += self.follow(node)
        passed.sort()
        for first, began in enumerate(passed):  # any two seconds of the whole fleet.
            within = sum(1 for at in passed[first:first + 200] if at < began + 2)
            self.assertLessEqual(within, (2 * RATE + BURST) * 1.05 + len(self.nodes))

    def event(self, name):
        """How often the leader counted it."""
        _, _, text = trilane.http("GET", self.cp.url + "/metrics")
        return int(re.search(r'trilane_shares_total\{event="%s"\} (\d+)' % name, text.decode())[1])

    def test_over_a_hand_over(self):
        """What the old process held is given up for the new one, which alone asks from then on."""
        node = self.nodes[0]
        requests = queue.SimpleQueue()
        with echo.channel(node) as channel:
            held = echo.stubs.EchoStub(channel).Collect.future(  # it keeps the old process.
                iter(requests.get, None), timeout=600, metadata=echo.token("web"))
            requests.put(pb.Words(text="x"))
            trilane.wait_until(lambda: self.shared(node) >= 1, what="its shares")
            os.kill(node.popen.pid, signal.SIGUSR2)
            trilane.wait_until(lambda: "event=taken-over" in node.log(), what="the new process")
            pid = int(re.search(r"event=handed-over pid=(\d+)", trilane.wait_until(
                lambda: "event=handed-over" in node.log() and node.log(), what="its number"))[1])
            self.addCleanup(self.replace, node, pid)
            trilane.wait_until(lambda: self.shared(node) >= 1, what="shares of the new one")
            strange = self.event("replayed") + self.event("dropped")
            demands = self.event("demands")
            trilane.wait_until(lambda: self.event("demands") >= demands + 8, what="more demands")
            self.assertLessEqual(self.event("replayed") + self.event("dropped"), strange + 2)
            self.assertIsNone(node.popen.poll())
            requests.put(None)
            self.assertEqual(held.result().text, "x")
            self.assertEqual(node.wait(), 0)
        self.follow(node)

    def replace(self, node, pid):
        """The new process is nobody's child; the node is one for the tests behind this again."""
        os.kill(pid, signal.SIGTERM)
        trilane.wait_until(lambda: not pathlib.Path("/proc/%d" % pid).exists(), what="its end")
        node.start()
        trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")

    def refusal(self, stub):
        try:
            stub.Say(pb.Words(text="x"), timeout=60, metadata=echo.token("web"))
            return None
        except grpc.RpcError as error:
            return error

    def refused(self, stub, node):
        """How often calls were refused there for want of a share, once more of it."""
        self.refusal(stub)
        return series(node.admin, "trilane_limit_refusals_total", 'limit="acme/fleet",why="share"')

    def test_the_lead_is_lost_for_a_moment(self):
        """Who leads again, in the epoch of before, goes on with the order of before."""
        node = self.nodes[0]
        trilane.wait_until(lambda: series(self.cp.url, *SENT) >= 5, what="some shares")
        epoch = self.cp.told()["leader"]["epoch"]
        with echo.channel(node) as channel:
            stub = echo.stubs.EchoStub(channel)
            trilane.wait_until(lambda: self.refusal(stub) is None, what="shares")
            before = self.refused(stub, node)
            with contextlib.closing(sqlite3.connect(self.cp.data / "store.db", timeout=60)) as db:
                db.execute("BEGIN IMMEDIATE")  # nobody renews the row.
                trilane.wait_until(lambda: not self.cp.leads(), what="the lead to be lost")
                trilane.wait_until(lambda: self.refused(stub, node) > before,
                                   what="the shares to be over")
            trilane.wait_until(self.cp.leads, what="a leader")
            self.assertEqual(self.cp.told()["leader"]["epoch"], epoch)
            sent = series(self.cp.url, *SENT)
            trilane.wait_until(lambda: series(self.cp.url, *SENT) > sent, what="shares")
            self.assertEqual(series(self.cp.url, *REFUSED), 0)

    def test_without_a_control_plane(self):
        """Shares are over in a moment; then a call that may change something is refused."""
        node = self.nodes[1]
        with echo.channel(node) as channel:
            stub = echo.stubs.EchoStub(channel)
            before = self.refused(stub, node)
            self.cp.stop()  # the last test of the class.
            trilane.wait_until(lambda: self.refused(stub, node) > before,
                               what="the shares to be over")
            refusal = self.refusal(stub)
            self.assertEqual(refusal.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("this node has no share of it now", refusal.details())
            for _ in range(5):  # of a limit that is open then.
                self.assertEqual([word.text for word in stub.Chat(
                    iter([pb.Words(text="x")]), timeout=60, metadata=echo.token("web"))],
                    ["re: x"])


if __name__ == "__main__":
    unittest.main()
