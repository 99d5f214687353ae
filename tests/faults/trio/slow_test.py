"""Slow consumers: nats-server cuts whoever does not read. A node that was stopped through many
publications, and a control plane under a flood of statuses, come back by themselves; nobody else is
held up, and nobody reads more than what is missing."""

import json
import unittest

import trilane
from trilane import Nats, NatsClient, Platform, counts_far, files_of, free_port, http, wait_until

PENDING_BYTES = 1 << 20  # what the server keeps for one that does not read; its kernel keeps more.
FLOOD_BYTES = 64 << 10   # of one message,
FLOOD_MAX = 2000         # and at most so many of them until somebody is cut.
PUBLICATIONS = 1000 if counts_far() else 100
READS_MAX = 100          # of a node that comes back: what it says, polls, and reads.


class ImpatientNats(Nats):
    def __init__(self, directory):
        self.monitor_port = free_port()
        super().__init__(directory)

    def _configure(self):
        super()._configure()
        with open(self.configuration, "a", encoding="utf-8") as file:
            file.write('max_pending: %d\nwrite_deadline: "1s"\nhttp: "127.0.0.1:%d"\n'
                       % (PENDING_BYTES, self.monitor_port))

    def _ask(self, path):
        status, _, body = http("GET", "http://127.0.0.1:%d/%s" % (self.monitor_port, path))
        assert status == 200, body
        return json.loads(body)

    def cut(self):
        """How many it cut."""
        return self._ask("varz")["slow_consumers"]

    def sent(self, name):
        """Messages of a client's present connection; None: it has none."""
        return next((c["in_msgs"] for c in self._ask("connz?limit=1000")["connections"]
                     if c.get("name") == name), None)


class Slow(unittest.TestCase):
    def setUp(self):
        self.p = Platform(nats=False)
        self.addCleanup(self.p.close)
        self.p.programs.remove(self.p.nats)
        self.nats = self.p.nats = ImpatientNats(self.p.directory / "impatient")
        self.p.programs.insert(0, self.nats)
        self.nats.start()
        self.cp = self.p.control_plane().start(head_interval_ms=200)
        wait_until(self.cp.leads, 60, "a leader")
        self.slow, self.other = [self.p.node(name).start(
            good_after_ms=100, status_interval_ms=1000, poll_interval_ms=1000, stale_after_ms=6000)
            for name in ("slow", "other")]
        self.cp("publish", "-m", "one", trilane.POLICIES)

    def publish(self):
        status, answer = self.cp.api("POST", "/api/v1/publish", {
            "files": files_of(trilane.POLICIES), "message": "another", "author": "test",
            "again": True})
        self.assertEqual(status, 200, answer)
        return answer["record"]["version"]

    def flood(self, subject):
        """Until the server cuts whoever stopped reading."""
        before = self.nats.cut()
        with NatsClient(self.nats) as admin:
            for number in range(FLOOD_MAX):
                admin.publish(subject % number, b"x" * FLOOD_BYTES)
                if number % 16 == 0 and self.nats.cut() > before:
                    return
        self.fail("nobody was cut")

    def test_a_stopped_node_that_is_cut(self):
        self.slow.pause()
        for _ in range(PUBLICATIONS):
            newest = self.publish()
        self.flood("trilane.demo.content%.0s")
        wait_until(lambda: self.other.version() == newest, 60, "the other one at the newest")
        self.assertNotIn("STALE", self.other.log())
        self.slow.resume()
        wait_until(lambda: self.slow.version() == newest, 60, "it at the newest")
        self.assertLess(self.nats.sent("trilane-dp slow"), READS_MAX)
        self.assertEqual(self.slow.dump()["bus"]["state"], "connected")
        self.cp("publish", "--again", "-m", "to both", trilane.POLICIES)
        for node in (self.slow, self.other):
            wait_until(lambda n=node: n.version() == newest + 1, 60, "it at " + node.node_id)

    def test_a_control_plane_that_is_cut(self):
        self.cp.pause()
        self.flood("$KV.trilane_demo_nodes.nobody-%d")
        self.cp.resume()
        wait_until(lambda: self.cp.leads() and self.nats.sent("trilane-cp cp-0"), 60, "it to lead")
        done = self.cp.json("publish", "--again", "-m", "behind the flood", trilane.POLICIES)
        wait_until(lambda: {n.version() for n in (self.slow, self.other)} ==
                   {done["record"]["version"]}, 60, "both nodes at it")
        wait_until(lambda: len([n for n in self.cp.json("status")["nodes"] if n["live"]]) == 2, 60,
                   "both nodes to be known as live")


if __name__ == "__main__":
    unittest.main()
