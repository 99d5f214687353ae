"""Statuses of nodes against who may write to the bucket: forged, replayed, under another name, and ten
thousand of them a second; with a real node, a real NATS, and a control plane that starts anew."""

import json
import time
import unittest

import trilane
from joining import JoinedNode
from trilane import NatsClient, Platform, wait_until

BUCKET = "trilane_demo_nodes"
NODE = {"status_interval_ms": 300, "poll_interval_ms": 200, "good_after_ms": 100}


class Statuses(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane(ca=self.p.identities)
        self.start()

    def start(self):
        self.cp.start(head_interval_ms=200)
        wait_until(self.cp.leads, 60, "a leader")

    def node(self, name):
        return JoinedNode(self.p, name).joined(self.cp).start(**NODE)

    def shown(self, name):
        nodes = json.loads(trilane.http("GET", self.cp.url + "/api/v1/nodes")[2])["nodes"]
        return next((n for n in nodes if n["node"] == name), {})

    def count(self, event):
        line = 'trilane_statuses_total{event="%s"} ' % event
        text = trilane.http("GET", self.cp.url + "/metrics")[2].decode()
        return next(int(part[len(line):]) for part in text.splitlines() if part.startswith(line))

    def subject(self, name):
        return "$KV.%s.%s" % (BUCKET, name)

    def line(self, name, payload):
        """A publication in NATS' own words, to be sent with many others."""
        return b"PUB %s %d\r\n%s\r\n" % (self.subject(name).encode(), len(payload), payload)

    def test_a_replay_counts_no_more_also_after_a_restart(self):
        node = self.node("edge-1")
        wait_until(lambda: self.shown("edge-1").get("live"), 60, "its status")
        with NatsClient(self.p.nats) as nats:
            old = nats.get(BUCKET, "edge-1")
            wait_until(lambda: nats.get(BUCKET, "edge-1") != old, 60, "its next status")
            node.stop()
            wait_until(lambda: self.shown("edge-1")["state"] == "DRAINING", 60, "its last status")
            last = nats.get(BUCKET, "edge-1")
            self.replay(nats, old)
            self.cp.stop()
            nats.put(BUCKET, "edge-1", last)  # as the node left it.
            self.start()
            wait_until(lambda: self.shown("edge-1").get("state") == "DRAINING", 60,
                       "what lay in the bucket")
            self.replay(nats, old)

    def replay(self, nats, old):
        """Sent again until one was looked at; the node stays what it said last."""
        before = self.count("replayed")
        self.until(lambda: nats.publish(self.subject("edge-1"), old),
                   lambda: self.count("replayed") > before)
        self.assertEqual(self.shown("edge-1")["state"], "DRAINING")

    def until(self, act, condition):
        def once():
            act()
            return condition()
        wait_until(once, 60, "the refusal", step=0.3)

    def test_a_bucket_that_is_destroyed_is_made_again(self):
        """While everybody stays connected: the statuses lie there again, for who starts next."""
        self.node("edge-1")
        wait_until(lambda: self.shown("edge-1").get("live"), 60, "its status")
        with NatsClient(self.p.nats) as nats:
            nats.destroy(BUCKET)
            wait_until(lambda: self.in_bucket(nats) > 0, 60, "its status in a new one")
        self.assertNotIn("event=bucket_missing", self.cp.log())
        self.cp.stop()
        self.start()
        wait_until(lambda: self.shown("edge-1").get("live"), 60, "what lay there to be read")

    def in_bucket(self, nats):
        """How many messages lie there; none when there is no bucket."""
        answer = json.loads(nats.request("$JS.API.STREAM.INFO.KV_" + BUCKET))
        return answer.get("state", {}).get("messages", 0)

    def test_ten_thousand_a_second(self):
        """In one node's name, and signed by another one: one verification a second, no more."""
        self.node("edge-1")
        other = self.node("edge-2")
        wait_until(lambda: self.shown("edge-1").get("live") and self.shown("edge-2").get("live"), 60,
                   "their statuses")
        with NatsClient(self.p.nats) as nats:
            forged = nats.get(BUCKET, "edge-2")
            other.stop()
            time_0, verified_0, superseded_0 = time.monotonic(), self.count("verified"), \
                self.count("superseded")
            lines = self.line("edge-1", forged) * 1000
            for _ in range(30):  # three seconds, or as long as the machine takes to send them.
                nats.file.write(lines)
                nats.flush()
            wait_until(lambda: self.count("superseded") - superseded_0 > 1000, what="the flood")
            verified = self.count("verified") - verified_0
            seconds = time.monotonic() - time_0
            self.assertLessEqual(verified, 2 * (seconds + 2))  # of edge-1 and of edge-2's last.
        # It is itself again as soon as that ends.
        wait_until(lambda: self.shown("edge-1").get("live") and
                   self.shown("edge-1")["age_ms"] < 2000, 60, "its own status")
        wait_until(self.cp.leads, 60, "it leads")

    def test_names_that_nobody_has(self):
        node = self.node("edge-1")
        wait_until(lambda: self.shown("edge-1").get("live"), 60, "its status")
        with NatsClient(self.p.nats) as nats:
            forged = nats.get(BUCKET, "edge-1")
            nats.file.write(self.line("edge-1", b"x" * 4096))  # no status is as large.
            for name in ["made-up-%d" % i for i in range(600)] + ["Not_A_Name"]:
                nats.file.write(self.line(name, forged))
            nats.flush()
        wait_until(lambda: self.count("unknown") >= 300, 60, "the places to run out")
        self.assertEqual(self.count("crowded"), 0)  # it never came in.
        late = self.node("edge-2")  # a real one comes in all the same.
        wait_until(lambda: self.shown("edge-2").get("live"), 60, "its status")
        for name in ("edge-1", "edge-2"):
            self.assertTrue(self.shown(name)["verified"])
        shown = wait_until(lambda: self.shown("made-up-0"), 60, "a name that nobody has")
        self.assertFalse(shown["verified"])
        self.assertNotIn("version", self.shown("made-up-0"))
        self.assertTrue(node.alive() and late.alive())


if __name__ == "__main__":
    unittest.main()
