"""Three NATS servers: each is killed in turn, and one answers from the past; heads go on, nodes stay
fresh and never go back, and buckets have as many replicas as was asked for."""

import json
import re
import unittest

import trilane
from nats_cluster import clustered_platform
from trilane import NatsClient, wait_until

QUICK = {"head_interval_ms": 100, "nats_replicas": 3, "collect_interval_ms": 500}
NODE = {"good_after_ms": 100, "status_interval_ms": 300, "poll_interval_ms": 300,
        "nats_replicas": 3}


class Cluster(unittest.TestCase):
    def setUp(self):
        self.p = clustered_platform()
        self.addCleanup(self.p.close)
        self.nats = self.p.nats
        self.cp = self.p.control_plane()

    def start(self, **flags):
        self.cp.start(**dict(QUICK, **flags))
        wait_until(self.cp.leads, 60, "a leader\n" + self.cp.log()[-2000:])

    def bucket(self):
        return self.cp.told()["bucket"]

    def heads_go_on(self):
        """Into the bucket."""
        def put():
            text = trilane.http("GET", self.cp.url + "/metrics")[2].decode()
            return int(re.search(r'^trilane_heads_total\{event="put"\} (\d+)$', text, re.M)[1])
        before = put()
        wait_until(lambda: self.cp.leads() and put() > before + 5, 60, "heads to go on")

    def test_each_server_is_killed_in_turn(self):
        self.start()
        node = self.p.node("node-1").start(**NODE)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        for stream in (self.nats.snapshots, self.nats.nodes_bucket):
            self.nats.wait_stream(stream)
        with NatsClient(self.nats) as admin:
            for stream in ("TRILANE_EVENTS", "TRILANE_QUARANTINE"):
                wait_until(lambda s=stream: json.loads(admin.request(
                    "$JS.API.STREAM.INFO." + s))["config"]["num_replicas"] == 3, 60, stream)
        version = 1
        # The stream's leader first: that is what costs an election.
        first = self.nats.wait_stream(self.nats.snapshots)
        for index in [first] + [i for i in range(3) if i != first]:
            with self.subTest(server=index):
                self.nats.kill(index)
                self.heads_go_on()
                self.cp("publish", "--again", "-m", "without one", trilane.POLICIES)
                version += 1
                wait_until(lambda v=version: node.version() == v, 60, "the node at the newest")
                self.assertLess(node.metric("trilane_head_contact_age_seconds"), 5)
                wait_until(lambda: self.bucket()["replicas_current"] == 2, 60, "it to be missed")
                self.nats.start_one(index)
                self.nats.wait_stream(self.nats.snapshots)
                wait_until(lambda: self.bucket()["replicas_current"] == 3, 60, "all three to be seen")
        # A server that has just come back may answer from the past: what is late is no refusal.
        refused = re.findall("event=refused code=([A-Z_]+)", node.log())
        self.assertEqual(refused, [], node.log()[-2000:])
        self.assertNotIn("STALE", node.log())
        self.assertEqual(self.cp.metric("trilane_bucket_replicas_wanted"), 3)

    def test_a_replica_that_lost_its_store_and_one_that_lags(self):
        """Heads are read from the stream's leader; content comes from any replica, also from one that
        is behind: a node that finds a hole there asks the leader, and never goes back."""
        self.start()
        node = self.p.node("node-1").start(**NODE)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        leader = self.nats.wait_stream(self.nats.snapshots)
        others = [i for i in range(3) if i != leader]
        lagging = next(i for i in others if "trilane-cp cp-0" not in self.nats.servers[i].clients())
        lost = next(i for i in others if i != lagging)
        self.nats.pause(lagging)
        for _ in range(3):
            # The node may hang on that server: it is not waited for.
            self.cp("publish", "--again", "--wait", "no", "-m", "behind its back",
                    trilane.POLICIES)
        self.nats.kill(lost)
        self.nats.start_one(lost, wipe=True)
        self.nats.resume(lagging)
        # A node at each of the servers.
        fresh = [self.p.node("fresh-%d" % i, nats_urls=server.url("fresh-%d" % i)).start(**NODE)
                 for i, server in enumerate(self.nats.servers)]
        for one in fresh + [node]:
            wait_until(lambda n=one: n.version() == 4, 60, "version 4 on " + one.node_id)
        self.nats.wait_stream(self.nats.snapshots)
        self.cp("publish", "--again", "-m", "all together", trilane.POLICIES)
        for one in fresh + [node]:
            wait_until(lambda n=one: n.version() == 5, 60, "version 5 on " + one.node_id)

    def test_one_replica_becomes_three(self):
        self.start(nats_replicas=1)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        wait_until(lambda: self.bucket().get("replicas") == 1, 60, "one replica")
        self.cp.stop()
        self.start()
        wait_until(lambda: self.bucket()["replicas_current"] == 3, 60, "three that are up to date")
        self.assertIn("event=bucket_replicas", self.cp.log())
        self.nats.wait_stream(self.nats.nodes_bucket)
        self.nats.kill(self.nats.wait_stream(self.nats.snapshots))
        self.heads_go_on()
        self.cp("publish", "--again", "-m", "without one", trilane.POLICIES)


class Alone(unittest.TestCase):
    """Asked for three of a server that stands alone."""

    def setUp(self):
        self.p = trilane.Platform()
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane()

    def test_a_new_bucket_is_not_made_with_less(self):
        self.cp.start(forward_wait_ms=500, **QUICK)
        wait_until(lambda: self.cp.told()["bucket_code"] == "REPLICAS_MISSING", 60,
                   "the status to say so")
        self.assertEqual(self.cp.run("status", "--exit-code").returncode, 10)
        done = self.cp.run("publish", "-m", "one", trilane.POLICIES)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("too few servers", done.stderr)

    def test_an_old_one_is_used_and_told(self):
        self.cp.start(head_interval_ms=100)
        wait_until(self.cp.leads, 60, "a leader")
        self.cp("publish", "-m", "one", trilane.POLICIES)
        self.cp.stop()
        self.cp.start(**QUICK)
        wait_until(lambda: self.cp.metric("trilane_bucket_replicas") == 1, 60, "it to be seen")
        self.assertEqual(self.cp.metric("trilane_bucket_replicas_wanted"), 3)
        told = "event=bucket_replicas has=1 wanted=3 code=REPLICAS_MISSING"
        wait_until(lambda: told in self.cp.log(), 60, "it to be told")
        self.assertIn("THE BUCKET HAS 1 OF 3 REPLICAS", self.cp("status"))
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)

    def test_a_number_that_is_none(self):
        self.cp.start(wait=False, nats_replicas=2)
        self.assertEqual(self.cp.wait(), 2)
        self.assertIn("--nats-replicas", self.cp.log())


if __name__ == "__main__":
    unittest.main()
