"""What leaves the snapshot bucket, and what must not: against publications, a leader that is stopped
in the midst of it, nodes that lag behind, and a bucket that is full."""

import json
import re
import shutil
import signal
import socket
import threading
import time
import unittest

import standstill
import trilane
from trilane import NatsClient, Platform, wait_until
from wire import Wire

# An hour in two and a half seconds: what was put within a second is not put again.
QUICK = {"head_interval_ms": 100, "collect_interval_ms": 200, "collect_age_ms": 2500,
         "chunk_fresh_ms": 1000, "collect_versions": 2, "collect_reported_ms": 100}
SLOW = {"head_interval_ms": 100, "collect_interval_ms": 3600000, "collect_versions": 2}


class PurgeWire(Wire):
    """Freezes with the first removal on its way to NATS."""

    def __init__(self, target):
        super().__init__(target)
        self.caught = threading.Event()
        self.key = None

    def _carry(self, end):
        seen = end.recv(1 << 16, socket.MSG_PEEK) if not self.caught.is_set() else b""
        start = seen.find(b"PUB $JS.API.STREAM.PURGE.")
        if start < 0:
            if seen:  # no more than was looked at.
                self.pairs[end].sendall(end.recv(len(seen)))
            else:
                super()._carry(end)
            return
        self.key = re.search(rb'"filter": "([^"]+)"', seen[start:])[1].decode()
        self.state = "frozen"  # it stays with the kernel.
        self.caught.set()


class Collecting(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.bucket = "trilane_%s_snapshots" % self.p.environment
        self.sources = self.p.directory / "sources"
        shutil.copytree(trilane.POLICIES, self.sources)

    def control_plane(self, name="cp", flags=None, **more):
        cp = self.p.control_plane(name, **more)
        cp.start(**(QUICK if flags is None else flags))
        return cp

    def publish(self, cp, number, *args):
        """A content of its own, with chunks that no other number has."""
        services = "".join("""---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: filler-%d-%d, tenant: acme}
spec:
  grpcServices: [filler.v%d.S%d]
  endpoints: [{address: 127.0.0.1, port: %d}]
""" % (number, k, number, k, 1024 + k) for k in range(40))
        (self.sources / "filler.yaml").write_text(services)
        return cp.json("publish", "--again", "-m", "number %d" % number, *args, self.sources)

    def objects(self, nats):
        """Chunks and manifests in the bucket, by key."""
        info = json.loads(nats.request("$JS.API.STREAM.INFO.KV_" + self.bucket, json.dumps(
            {"subjects_filter": "$KV.%s.>" % self.bucket}).encode()))
        keys = [s.split(".", 2)[2] for s in info["state"].get("subjects") or {}]
        return {k for k in keys if k.startswith(("chunk.", "manifest."))}

    def versions_there(self, nats):
        return sorted(int(k.split(".")[1]) for k in self.objects(nats) if k.startswith("manifest"))

    def fresh_node_reaches(self, version, name="fresh"):
        """A node that has nothing gets all of it from the bucket; None of it was missing."""
        node = self.p.node(name).start(poll_interval_ms=200, status_interval_ms=300)
        wait_until(lambda: node.version() == version, 60, "%s at version %d" % (name, version))
        self.assertNotIn("MISSING", node.log())
        return node

    def test_old_versions_go_and_new_ones_stay(self):
        cp = self.control_plane()
        wait_until(cp.leads, 60, "a leader")
        for number in (1, 2, 3, 4):
            self.publish(cp, number)
        with NatsClient(self.p.nats) as nats:
            wait_until(lambda: self.versions_there(nats) == [3, 4], 60, "two versions to be left")
            # A run removes one after the other, chunks and manifests.
            wait_until(lambda: cp.metric("trilane_bucket_objects") == len(self.objects(nats)) + 2,
                       60, "the metric to say so")
            kept = self.objects(nats)
            self.assertTrue(nats.get(self.bucket, "head") and nats.get(self.bucket, "root.1"))
            self.assertGreaterEqual(cp.metric("trilane_collected_objects_total"), 4)
            self.assertGreater(cp.metric("trilane_collected_bytes_total"), 1000)

            def state():
                return json.loads(nats.request("$JS.API.STREAM.INFO.KV_" + self.bucket))["state"]
            # One that lists just now goes with its list.
            wait_until(lambda: state()["consumer_count"] == 0, 60, "no consumer to be left behind")
            self.assertEqual(state()["messages"], len(kept) + 2, "nor a marker")
        self.fresh_node_reaches(4)
        # What was collected is published again, from the journal.
        cp("rollback", "-m", "back", 1)
        self.fresh_node_reaches(5, "fresh-2")

    def test_a_version_that_a_node_runs_stays(self):
        """As long as it was heard of lately."""
        cp = self.control_plane(flags=dict(QUICK, collect_reported_ms=60000))
        wait_until(cp.leads, 60, "a leader")
        node = self.p.node("node-1").start(status_interval_ms=300, poll_interval_ms=200)
        self.publish(cp, 1)
        wait_until(lambda: cp.json("status")["nodes"][0]["version"] == 1, 60, "its status")
        node.signal(signal.SIGSTOP)
        self.addCleanup(lambda: node.signal(signal.SIGCONT))
        for number in (2, 3, 4):
            self.publish(cp, number, "--wait", "no")
        with NatsClient(self.p.nats) as nats:
            wait_until(lambda: self.versions_there(nats) == [1, 3, 4], 60, "version 2 to go")

    def test_a_chunk_of_an_old_version_that_comes_back_is_put_anew(self):
        """It is garbage by then, and old; who publishes it again must not rely on what lies there."""
        cp = self.control_plane(flags=SLOW)
        wait_until(cp.leads, 60, "a leader")
        self.publish(cp, 1)
        with NatsClient(self.p.nats) as nats:
            first = self.revisions(nats)
            self.publish(cp, 1)  # within half an hour: nothing is put again.
            again = self.revisions(nats)
            self.assertEqual({k: again[k] for k in first}, first)
        cp.stop()
        cp.start(**dict(QUICK, collect_interval_ms=3600000))
        wait_until(cp.leads, 60, "a leader")
        time_of_chunks = time.monotonic()
        wait_until(lambda: time.monotonic() - time_of_chunks > 1.1, 60, "chunks to be no more fresh")
        with NatsClient(self.p.nats) as nats:
            self.publish(cp, 1)
            later = self.revisions(nats)
            chunks = [k for k in first if k.startswith("chunk.")]
            self.assertGreater(len(chunks), 3)
            for key in chunks:
                self.assertGreater(later[key], first[key], key)

    def revisions(self, nats):
        """{key: revision}, each asked for by itself."""
        found = {}
        for key in self.objects(nats):
            answer = json.loads(nats.request("$JS.API.STREAM.MSG.GET.KV_" + self.bucket, json.dumps(
                {"last_by_subj": "$KV.%s.%s" % (self.bucket, key)}).encode()))
            found[key] = answer["message"]["seq"]
        return found

    def test_publishing_all_the_time(self):
        """Contents come and go while what is not fresh is collected as fast as it may be."""
        cp = self.control_plane(flags=dict(QUICK, collect_age_ms=500, chunk_fresh_ms=100,
                                           collect_versions=1, collect_interval_ms=100))
        wait_until(cp.leads, 60, "a leader")
        node = self.p.node("node-1").start(status_interval_ms=300, poll_interval_ms=200,
                                           good_after_ms=100)
        began, published = time.monotonic(), 0

        def collected():
            return cp.metric("trilane_collected_objects_total")
        # On a busy machine few publications fit three seconds.
        while time.monotonic() < began + 3 or (collected() <= 4 and time.monotonic() < began + 30):
            answer = self.publish(cp, published % 3 + 1)
            published += 1
            self.assertEqual(answer["record"]["version"], published)
        wait_until(lambda: node.version() == published, 60, "the node at the newest")
        self.assertGreater(collected(), 4)
        self.assertNotIn("MISSING", node.log())
        self.fresh_node_reaches(published)

    def test_a_leader_that_wakes_up_in_the_midst_of_it(self):
        """It has judged, and sent for removal, what the next leader then publishes anew; when it wakes
        it still waits for the answer."""
        store = "sqlite:%s" % (self.p.directory / "shared.db")
        wire = PurgeWire(("127.0.0.1", self.p.nats.port)).start()
        self.addCleanup(wire.close)
        url = self.p.nats.url("cp")
        first = self.control_plane("first", flags=dict(QUICK, lease_ms=6000, fetch_timeout_ms=60000),
                                   store=store,
                                   replica="first",
                                   nats_urls=url.replace(str(self.p.nats.port), str(wire.port)))
        self.addCleanup(lambda: first.signal(signal.SIGCONT))
        wait_until(first.leads, 60, "the first leads")
        second = self.p.control_plane("second", store=store, replica="second")
        second.start(lease_ms=6000, **dict(SLOW, chunk_fresh_ms=1000))
        for number in (1, 2, 3):
            self.publish(first, number)  # of 1 nothing is kept any more.
        self.assertTrue(wire.caught.wait(60), "the first removal")
        standstill.stop_between_transactions(first, self.p.directory / "shared.db")
        self.assertTrue(wire.key.startswith("$KV.%s.chunk." % self.bucket), wire.key)
        key = wire.key.split(".", 2)[2]
        wait_until(second.leads, 60, "the second leads")
        with NatsClient(self.p.nats) as nats:
            judged = self.revisions(nats)
            second("rollback", "-m", "what the first was removing", 1)
            anew = self.revisions(nats)
            self.assertGreater(anew[key], judged[key])
            wire.mend()  # now it comes.
            first.signal(signal.SIGCONT)
            wait_until(lambda: "event=collected objects=0 " in first.log(), 60, "its run to end")
            self.assertEqual(self.revisions(nats), anew)
        self.fresh_node_reaches(4)

    def test_a_node_that_still_fetches_what_is_collected(self):
        """It finds a hole, says so, and is served by the next head; it never breaks."""
        cp = self.control_plane(flags=dict(QUICK, head_validity_ms=60000))
        self.addCleanup(lambda: cp.signal(signal.SIGCONT))
        wait_until(cp.leads, 60, "a leader")
        self.publish(cp, 1)
        with NatsClient(self.p.nats) as nats:
            head = nats.get(self.bucket, "head")
            for number in (2, 3, 4):
                self.publish(cp, number)
            wait_until(lambda: self.versions_there(nats) == [3, 4], 60, "version 1 to go")
            standstill.stop(cp)
            nats.put(self.bucket, "head", head)  # what a slow node is about to follow.
            node = self.p.node("slow").start(status_interval_ms=300, poll_interval_ms=200)
            wait_until(lambda: node.dump()["snapshot"]["last_refusal"] == "MANIFEST_MISSING", 60,
                       "what it misses")
            self.assertEqual(node.version(), 0)
            cp.signal(signal.SIGCONT)
        wait_until(lambda: node.version() == 4, 60, "the next head's version")

    def test_a_full_bucket(self):
        """Room is made by collecting, a publication that fits nowhere is refused, heads go on."""
        flags = dict(QUICK, collect_interval_ms=3600000, collect_age_ms=20000, chunk_fresh_ms=10000,
                     bucket_bytes=16 << 20)
        cp = self.control_plane(flags=flags)
        wait_until(cp.leads, 60, "a leader")
        self.publish(cp, 1)
        with NatsClient(self.p.nats) as nats:
            for number in range(1000):  # what stayed of versions that nobody remembers.
                if self.room(nats) < 1 << 20:
                    break
                nats.put(self.bucket, "chunk.%032x" % number, bytes(200 << 10))
            done = cp.run("publish", "--again", "-m", "no room", self.write(2))
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("BUCKET_FULL", done.stderr)
            self.assertIn("objects were collected just now", done.stderr)
            sequence = cp.json("status")["leader"]["sequence"]
            wait_until(lambda: cp.json("status")["leader"]["sequence"] > sequence + 5, 60,
                       "heads to go on")
            wait_until(lambda: cp.run("publish", "--again", "-m", "fits", self.write(2)).returncode
                       == 0, 60, "the junk to be old enough", step=0.5)
            self.assertGreater(self.room(nats), 1 << 20)
            self.assertGreater(cp.metric("trilane_collected_objects_total"), 0)
        self.fresh_node_reaches(cp.json("history")["versions"][0]["version"])

    def room(self, nats):
        info = json.loads(nats.request("$JS.API.STREAM.INFO.KV_" + self.bucket))
        return info["config"]["max_bytes"] - info["state"]["bytes"]

    def write(self, number):
        (self.sources / "filler.yaml").write_text("""
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: filler-%d, tenant: acme}
spec:
  grpcServices: [filler.v%d.S]
  endpoints: [{address: 127.0.0.1, port: 1024}]
""" % (number, number))
        return self.sources


if __name__ == "__main__":
    unittest.main()
