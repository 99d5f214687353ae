"""From sources to nodes that run them, through the operator's commands: plan, publish, history,
diff, status, rollback; what is refused, with which exit code; and who is believed."""

import shutil
import time
import unittest

import trilane
from trilane import NatsClient, Platform, wait_until

SOON_S = 25  # before --timeout's default is over, and before a node that says nothing is not live.


class Publish(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.sources = cls.p.policies
        shutil.copytree(trilane.POLICIES, cls.sources)
        cls.cp = cls.p.control_plane().start(head_interval_ms=200)
        wait_until(cls.cp.leads, 60, "a leader")
        cls.nodes = [cls.p.node("node-%d" % i).start(good_after_ms=200, status_interval_ms=500)
                     for i in (1, 2)]

    def edit(self):
        """A change that compiles: the rate of the first RateLimit."""
        path = next(path for path in sorted(self.sources.rglob("*.yaml"))
                    if "kind: RateLimit" in path.read_text())
        text = path.read_text()
        start = text.index("rate:")
        end = text.index("\n", start)
        rate = int("".join(c for c in text[start:end].split("/")[0] if c.isdigit()))
        path.write_text(text[:start] + "rate: %d/s" % (rate + 1) + text[end:])

    def test_1_life_of_a_version(self):
        self.assertIn("to add", self.cp("plan", self.sources))
        self.cp("plan", "--exit-code", self.sources, code=5)
        first = self.cp.json("publish", "-m", "first", self.sources)
        self.assertEqual(first["record"]["version"], 1)
        self.assertTrue(first["live"])
        self.assertEqual({n["version"] for n in first["nodes"]}, {1})
        self.cp("plan", "--exit-code", self.sources)

        self.edit()
        self.cp("publish", "--base", "0", "-m", "late", self.sources, code=1)
        second = self.cp.json("publish", "--base", "1", "-m", "faster", self.sources)
        self.assertEqual(second["record"]["version"], 2)
        self.assertLess(second["chunks_new"], second["chunks"], "what did not change is not new")
        self.assertNotEqual(second["record"]["content_digest"], first["record"]["content_digest"])
        self.assertIn("RateLimit", self.cp("diff", "1", "2"))

        third = self.cp.json("rollback", "-m", "too fast", "1")
        self.assertEqual(third["record"]["version"], 3)
        self.assertEqual(third["record"]["origin"], 1)
        self.assertEqual(third["record"]["content_digest"], first["record"]["content_digest"])
        self.assertEqual(third["chunks_new"], 0)
        self.cp("diff", "--exit-code", "1", "3")
        self.assertEqual([v["message"] for v in self.cp.json("history")["versions"]],
                         ["too fast", "faster", "first"])
        for node in self.nodes:
            self.assertEqual(node.version(), 3)
        wait_until(lambda: {n["state"] for n in self.cp.json("status")["nodes"]} == {"GOOD"},
                   what="both nodes GOOD")
        self.cp("wait", "3")
        self.cp("wait", "4", "--timeout", "0", code=4)

    def test_2_what_is_refused(self):
        self.cp("publish", self.sources, code=2)                       # no message
        self.cp("rollback", "-m", "m", "77", code=1)                   # never published
        before = self.cp.json("history")["versions"][0]["version"]
        bad = self.sources / "bad.yaml"
        bad.write_text("apiVersion: trilane.dev/v1\nkind: Servise\nmetadata: {name: x}\nspec: {}\n")
        self.addCleanup(bad.unlink)
        done = self.cp.run("publish", "-m", "m", self.sources)
        self.assertEqual(done.returncode, 1)
        self.assertIn("bad.yaml:2:7: TL1103", done.stderr)
        self.assertIn("SOURCE_INVALID", done.stderr)
        self.cp("validate", self.sources, code=1)
        self.assertEqual(self.cp.json("history")["versions"][0]["version"], before)
        unreachable = self.cp.run("status", "--server", "http://127.0.0.1:1")
        self.assertEqual(unreachable.returncode, 3)
        self.assertIn("TL1103:", self.p.command("help", "TL1103"))
        self.assertIn("see trilane-cp history", self.p.command("help", "NEVER_PUBLISHED"))

    def test_3_a_status_of_another_key_is_not_believed(self):
        bucket = "trilane_%s_nodes" % self.p.environment
        with NatsClient(self.p.nats) as nats:
            real = nats.get(bucket, "node-1")
            nats.put(bucket, "node-9", real)     # signed, but not by node-9: not enrolled
            nats.put(bucket, "node-2", real)     # signed by node-1, under node-2's name
        def node_9():
            return next((n for n in self.cp.json("status")["nodes"] if n["node"] == "node-9"), None)
        shown = wait_until(node_9, 60, "node-9 in status")
        self.assertFalse(shown["verified"])
        self.assertNotIn("version", shown)
        self.assertIn("UNVERIFIED", self.cp("status"))
        # Each second one of a node is looked at, the latest: node-2's own may have come behind it.
        wait_until(lambda: self.cp.metric("trilane_statuses_unverified_total") >= 1, what="metric")
        node_2 = next(n for n in self.cp.json("status")["nodes"] if n["node"] == "node-2")
        self.assertTrue(node_2["verified"])
        self.cp("wait", "3")                      # an unverified node holds nothing up

    def test_4_a_node_that_refuses_is_named(self):
        """A node that lost its way to the chunks keeps last-good; publish says who and why."""
        node = self.nodes[1]
        node.kill()
        self.edit()
        started = time.monotonic()
        done = self.cp.run("publish", "-m", "one node is gone", "--timeout", "2", self.sources)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertLess(time.monotonic() - started, SOON_S)
        self.assertIn("node-2", done.stderr)
        node.start(good_after_ms=200, status_interval_ms=500)
        version = self.cp.json("history")["versions"][0]["version"]
        self.cp("wait", str(version))

    def test_5_a_node_that_left_is_not_waited_for(self):
        leaver = self.p.node("node-leaver").start(status_interval_ms=500)
        wait_until(lambda: "node-leaver" in self.cp("status"), 60, "the node's status")
        self.assertEqual(leaver.stop(), 0)
        self.edit()
        began = time.monotonic()
        self.cp("publish", "-m", "without it", self.sources)
        self.assertLess(time.monotonic() - began, SOON_S)

    def test_6_drain(self):
        before = self.cp.json("status")["leader"]["epoch"]
        self.assertEqual(self.cp.stop(), 0)
        self.cp.start(head_interval_ms=200)
        wait_until(self.cp.leads, 60, "a leader")
        self.assertEqual(self.cp.json("status")["leader"]["epoch"], before + 1)


if __name__ == "__main__":
    unittest.main()
