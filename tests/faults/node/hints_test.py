"""Hints that end without a word: the connection is well, but the server let the subscription go.
Polls bring what is new and keep the node fresh, what was lost is counted, and it listens again."""

import signal
import unittest

import trilane
from trilane import Platform, wait_until

node_permissions = trilane.node_permissions


def deaf_permissions(env, node_id):
    """Those of a node, but for hearing heads."""
    lists = node_permissions(env, node_id)
    lists["subscribe"]["allow"].remove("trilane.%s.head" % env)
    return lists


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


if __name__ == "__main__":
    unittest.main()
