"""Hints that end without a word: the connection is well, but the server let the subscription go.
Polls bring what is new and keep the node fresh, what was lost is counted, and it listens again. And
hints by the ten thousand a second from somebody who may write to NATS: ten of them are judged."""

import signal
import threading
import time
import unittest

import trilane
from trilane import NatsClient, Platform, wait_until

node_permissions = trilane.node_permissions


def deaf_permissions(env, node_id):
    """Those of a node, but for hearing heads."""
    lists = node_permissions(env, node_id)
    lists["subscribe"]["allow"].remove("trilane.%s.head" % env)
    return lists


HINTS_PER_SECOND = 10  # the node's default.


class Flood(threading.Thread):
    """The same hint again and again, as fast as NATS takes it."""

    def __init__(self, nats, subject, payload):
        super().__init__()
        self.lines = b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload) * 1000
        self.nats = nats
        self.sent = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            self.nats.file.write(self.lines)
            self.nats.flush()
            self.sent += 1000

    def stop(self):
        self.over.set()
        self.join()


class Hints(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.addCleanup(self.allow, node_permissions)
        self.cp = self.p.control_plane().start(head_interval_ms=100)
        wait_until(self.cp.leads, 10, "a leader")

    def allow(self, permissions):
        """Rights from now on; a reload ends subscriptions that are none's right any more."""
        trilane.node_permissions = permissions
        self.p.nats._configure()  # pylint: disable=protected-access
        self.p.nats.signal(signal.SIGHUP)

    def heads(self, node, way):
        text = trilane.http("GET", node.admin + "/metrics")[2].decode()
        line = 'trilane_heads_total{way="%s"} ' % way
        return sum(float(l[len(line):]) for l in text.splitlines() if l.startswith(line))

    def test_a_subscription_that_is_gone(self):
        node = self.p.node("node-1").start(poll_interval_ms=500, status_interval_ms=300,
                                           good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        wait_until(lambda: self.heads(node, "hint") > 5, 10, "hints")
        connects = node.metric("trilane_bus_reconnects_total")
        self.allow(deaf_permissions)
        wait_until(lambda: "hints_missing" in node.log(), 15, "the node to notice")
        before = self.heads(node, "hint")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual(node.version(), 2)
        polled = self.heads(node, "poll")
        wait_until(lambda: self.heads(node, "poll") > polled + 2, 10, "polls to bring heads")
        self.assertEqual(self.heads(node, "hint"), before)
        self.assertLess(node.metric("trilane_head_contact_age_seconds"), 3)
        self.allow(node_permissions)
        wait_until(lambda: self.heads(node, "hint") > before + 5, 20, "hints again")
        self.assertEqual(node.metric("trilane_bus_reconnects_total"), connects)
        self.assertNotIn("STALE", node.log())

    def flood(self, node, nats, payload):
        """A publication under a flood reaches the node, which judges no more hints than it does."""
        version, before = node.version(), node.dump()["snapshot"]["refusals"]
        start = time.monotonic()
        flood = Flood(nats, "trilane.%s.head" % self.p.environment, payload)
        self.addCleanup(flood.over.set)
        flood.start()
        self.cp("publish", "--again", "-m", "under a flood", trilane.POLICIES)
        wait_until(lambda: time.monotonic() > start + 2, 3, "two seconds of it")
        self.assertEqual(node.version(), version + 1)
        refusals = node.dump()["snapshot"]["refusals"] - before
        flood.stop()
        seconds = time.monotonic() - start
        self.assertGreater(flood.sent / seconds, 10000)
        self.assertLessEqual(refusals, HINTS_PER_SECOND * (seconds + 2))
        self.assertTrue(node.ready())

    def test_ten_thousand_a_second(self):
        node = self.p.node("node-1").start(poll_interval_ms=500, status_interval_ms=300,
                                           good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        bucket = "trilane_%s_snapshots" % self.p.environment
        with NatsClient(self.p.nats) as nats:
            old = nats.get(bucket, "head")
            wait_until(lambda: nats.get(bucket, "head") != old, 5, "the next head")
            self.flood(node, nats, b"no head" * 30)
            self.assertIn("code=HEAD_MALFORMED", node.log())
            late = self.heads(node, "late")  # behind a poll an old one is no replay yet.
            self.flood(node, nats, old)
            self.assertTrue(self.heads(node, "late") > late or "code=HEAD_REPLAYED" in node.log())
        wait_until(lambda: node.dump()["state"] == "GOOD", 10, "the node to be well again")
        self.assertEqual(node.metric("trilane_bus_reconnects_total") or 0, 0)


if __name__ == "__main__":
    unittest.main()
