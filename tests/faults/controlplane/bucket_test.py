"""What others do to the bucket and to NATS, and what the leader makes of it: a head that is garbage,
old, or foreign; a purged and a recreated bucket; a missing chunk; NATS down at start and for long."""

import contextlib
import hashlib
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import unittest

import forge
import trilane
from trilane import NatsClient, Platform, wait_until


class Bucket(unittest.TestCase):
    def setUp(self):
        self.p = Platform(nats=False)
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane()
        self.bucket = "trilane_%s_snapshots" % self.p.environment

    def start(self, **flags):
        self.cp.start(head_interval_ms=100, **flags)
        wait_until(self.cp.leads, 60, "a leader\n" + self.cp.log()[-2000:])

    def publish_one(self, **flags):
        self.p.nats.start()
        self.start(**flags)
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300,
                                           poll_interval_ms=200)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        return node

    def event(self, name):
        """How often the leader met that head in KV."""
        text = trilane.http("GET", self.cp.url + "/metrics")[2].decode()
        line = next(l for l in text.splitlines() if l.startswith(
            'trilane_heads_total{event="%s"}' % name))
        return int(line.rsplit(" ", 1)[1])

    def test_heads_that_are_not_ours_are_written_over(self):
        node = self.publish_one()
        with NatsClient(self.p.nats) as nats:
            old = nats.get(self.bucket, "head")
            wait_until(lambda: nats.get(self.bucket, "head") != old, 60, "the next head")
            tampered = bytearray(old)
            tampered[40] ^= 1  # in the key id: signed by nobody we know
            for event, bytes_ in (("malformed", b"garbage"), ("lower", old),
                                  ("unsigned", bytes(tampered))):
                with self.subTest(event=event):
                    before = self.event(event)
                    nats.put(self.bucket, "head", bytes_)
                    wait_until(lambda e=event, b=before: self.event(e) > b, 60, event)
                    wait_until(lambda v=bytes_: nats.get(self.bucket, "head") != v, 60, "ours again")
                    self.assertIn("event=head_written_over found=" + event, self.cp.log())
        self.cp("publish", "--again", "-m", "goes on", trilane.POLICIES)
        wait_until(lambda: node.version() == 2, 60, "the node at version 2")

    def test_a_publication_writes_on_the_revision_of_the_last_head(self):
        """It does not read before it writes; what others put meanwhile is a conflict, and judged."""
        self.p.nats.start()
        self.cp.start(lease_ms=60000, head_interval_ms=20000)
        wait_until(self.cp.leads, 60, "a leader")
        self.publish("one")
        with NatsClient(self.p.nats) as nats, NatsClient(self.p.nats) as watcher:
            # For a conflict it looks: for an eighth of the row's life it need not do so again.
            nats.put(self.bucket, "head", b"garbage")
            self.publish("two")
            watcher.subscribe("$JS.API.STREAM.MSG.GET.KV_" + self.bucket)
            self.publish("three")
            nats.put(self.bucket, "head", b"garbage")
            before = {name: self.event(name) for name in ("conflict", "malformed")}
            self.publish("four")
            for name, count in before.items():
                self.assertEqual(self.event(name), count + 1, name)
            self.assertEqual(self.heard(watcher, b".head"), 1, "the one behind the conflict")
            self.assertEqual(self.cp.told()["leader"]["head_version"], 4)
            self.assertNotEqual(nats.get(self.bucket, "head"), b"garbage")

    def publish(self, message):
        """By no process of its own: that takes its time."""
        status, answer = self.cp.api("POST", "/api/v1/publish", {
            "files": trilane.files_of(trilane.POLICIES), "message": message, "author": "test",
            "again": True})
        self.assertEqual(status, 200, answer)

    def heard(self, watcher, word):
        """Messages with this word that came to a subscription until now."""
        watcher.file.write(b"PING\r\n")
        watcher.file.flush()
        lines = list(iter(watcher.file.readline, b"PONG\r\n"))
        return sum(word in line for line in lines if not line.startswith(b"MSG"))

    def test_a_valid_head_that_is_not_ours_makes_a_later_epoch(self):
        """An old backup of the database and no memory of the signer: the row's next epoch is one
        that was led before, and a valid head of it lies in KV."""
        node = self.publish_one()
        self.cp.stop()
        self.start()
        wait_until(lambda: self.cp.told()["leader"]["head_version"] == 1, 60, "a head")
        self.assertEqual(self.cp.told()["leader"]["epoch"], 2)
        self.cp.stop()
        (self.cp.data / "signer.state").unlink()
        with contextlib.closing(sqlite3.connect(self.cp.data / "store.db")) as db, db:
            db.execute("UPDATE leader SET epoch = 1")
        self.start()
        self.assertGreaterEqual(self.event("foreign"), 1)
        self.assertEqual(self.cp.told()["leader"]["epoch"], 3)
        self.cp("publish", "--again", "-m", "goes on", trilane.POLICIES)
        wait_until(lambda: node.version() == 2, 60, "the node at version 2")

    def test_its_nodes_are_known_to_a_control_plane_that_just_started(self):
        """A publication at once judges by what they can do, and waits for them."""
        self.publish_one()
        wait_until(lambda: self.cp.json("status")["nodes"], 60, "the node's status")
        for version in (2, 3, 4):
            self.cp.stop()
            self.start()
            self.assertGreater(self.event("put"), 0, "who leads has put a head")
            answer = self.cp.json("publish", "--again", "-m", "at once", trilane.POLICIES)
            self.assertEqual([n["version"] for n in answer["nodes"]], [version])

    def test_purged_and_recreated_bucket_is_filled_again(self):
        node = self.publish_one()
        for harm in ("purge", "destroy"):
            with self.subTest(harm=harm):
                with NatsClient(self.p.nats) as nats:
                    getattr(nats, harm)(self.bucket)
                    wait_until(lambda n=nats: self.whole(n), 60, "head and content in the bucket")
                # A node that knows nothing gets all of it from there.
                fresh = self.p.node("fresh-" + harm).start(poll_interval_ms=200)
                wait_until(lambda f=fresh: f.version() == node.version(), 60, "the fresh node")
                self.cp("publish", "--again", "-m", "after " + harm, trilane.POLICIES)
        self.assertGreaterEqual(self.cp.metric("trilane_restores_total"), 2)

    def test_a_bucket_that_was_restored_is_filled_again(self):
        """As it was two publications ago: the node stays where it is."""
        node = self.publish_one()
        wait_until(lambda: node.version() == 1, 60, "the node at version 1")
        store, aside = self.p.nats.directory / "jetstream", self.p.directory / "aside"
        self.p.nats.stop()
        shutil.copytree(store, aside)
        self.p.nats.start()
        wait_until(self.cp.leads, 60, "heads to go out again")
        for version in (2, 3):
            self.publish("number %d" % version)
            wait_until(lambda v=version: node.version() == v, 60, "the node at the newest")
        self.cp.pause()
        self.p.nats.kill()
        shutil.rmtree(store)
        aside.rename(store)
        self.p.nats.start()
        with NatsClient(self.p.nats) as nats:
            intruder = forge.Intruder(nats, self.p.environment)
            self.assertEqual(intruder.newest_manifest()[0], 1, "it went back")
            wait_until(lambda: "event=head-behind" in node.log(), 60, "the node to find it so")
            self.assertEqual(node.version(), 3)
            self.cp.resume()
            # Before any node asks for it.
            wait_until(lambda: self.stays(node, 3) and self.whole(nats), 60, "what it lacks")
        fresh = self.p.node("fresh").start(poll_interval_ms=200, status_interval_ms=300)
        wait_until(lambda: self.stays(node, 3) and fresh.version() == 3, 60, "the fresh node")
        self.assertNotIn("MISSING", fresh.log())
        wait_until(self.cp.leads, 60, "heads to go out again")
        self.publish("goes on")
        wait_until(lambda: node.version() == 4, 60, "the node at the next version")
        served = [int(v) for v in re.findall(r"event=state \S+ version=(\d+) ", node.log())]
        self.assertEqual(served, sorted(served), "it never goes back")

    def stays(self, node, version):
        self.assertEqual(node.version(), version)
        return True

    def test_a_bucket_that_went_away_while_nobody_led(self):
        self.publish_one()
        self.cp.stop()
        with NatsClient(self.p.nats) as nats:
            nats.destroy(self.bucket)
            self.start()
            wait_until(lambda: self.whole(nats), 60, "head and content in the bucket")

    def test_a_bucket_that_others_made_is_told_and_its_end_heals(self):
        self.publish_one()
        with NatsClient(self.p.nats) as nats:
            wait_until(lambda: self.remake(nats), 60, "to be faster than the leader")
            wait_until(lambda: self.cp.told()["bucket_code"] == "BUCKET_FOREIGN", 60,
                       "the status to say so")
            self.assertEqual(self.cp.run("status", "--exit-code").returncode, 10)
            self.cp("publish", "--again", "-m", "refused", trilane.POLICIES, code=1)
            nats.destroy(self.bucket)
            wait_until(lambda: self.whole(nats), 60, "head and content in the bucket")
        wait_until(lambda: self.cp.told()["bucket_code"] == "", 60, "the status to be well")

    def test_a_bucket_that_others_made_while_it_was_filled(self):
        """What the leader still puts goes into theirs, which then lacks nothing; it is told all the
        same."""
        # nats-server 2.9.10 panics when a head is asked for while its stream is made (in
        # jsMsgGetRequest): the leader stands still then, and the node is not needed.
        self.publish_one().kill()
        with NatsClient(self.p.nats) as nats, NatsClient(self.p.nats) as watcher:
            watcher.subscribe("$KV.%s.chunk.>" % self.bucket)
            nats.destroy(self.bucket)
            self.assertIn(b"MSG", watcher.file.readline())
            self.cp.signal(signal.SIGSTOP)  # with the first of its chunks.
            try:
                self.assertTrue(self.remake(nats))
            finally:
                self.cp.signal(signal.SIGCONT)
            wait_until(lambda: self.cp.told()["bucket_code"] == "BUCKET_FOREIGN", 60,
                       "the status to say so")

    def remake(self, nats):
        """The bucket as somebody else would make it; False when the leader made it before."""
        nats.destroy(self.bucket)
        made = json.loads(nats.request("$JS.API.STREAM.CREATE.KV_" + self.bucket, json.dumps(
            {"name": "KV_" + self.bucket, "subjects": ["$KV.%s.>" % self.bucket],
             "storage": "file", "max_msgs_per_subject": 1}).encode()))
        return "error" not in made

    def whole(self, nats):
        record = self.cp.json("history")["versions"][0]
        key = "manifest.%d.%s" % (record["version"], record["manifest_digest"])
        try:
            return nats.get(self.bucket, "head") and nats.get(self.bucket, key) and \
                nats.get(self.bucket, "root.1")
        except KeyError:
            return False

    def test_a_tampered_chunk_is_put_again(self):
        node = self.publish_one()
        node.kill()
        with NatsClient(self.p.nats) as nats:
            info = json.loads(nats.request(
                "$JS.API.STREAM.INFO.KV_" + self.bucket,
                json.dumps({"subjects_filter": "$KV.%s.chunk.>" % self.bucket}).encode()))
            chunks = [s.split(".", 2)[2] for s in info["state"]["subjects"]]
            self.assertGreater(len(chunks), 3)
            for key in chunks:
                nats.put(self.bucket, key, b"not what was signed")
            fresh = self.p.node("fresh").start(poll_interval_ms=200, status_interval_ms=300)
            wait_until(lambda: fresh.version() == 1, 60, "the chunks to come back")

    def test_a_manifest_signed_in_another_role_is_put_again(self):
        self.publish_one().kill()
        record = self.cp.json("history")["versions"][0]
        key = "manifest.%d.%s" % (record["version"], record["manifest_digest"])
        with NatsClient(self.p.nats) as nats:
            ours = nats.get(self.bucket, key)
            nats.put(self.bucket, key, self.signed_by("head", ours))
            fresh = self.p.node("fresh").start(poll_interval_ms=200, status_interval_ms=300)
            wait_until(lambda: fresh.version() == 1, 60, "the manifest to come back")
            self.assertEqual(nats.get(self.bucket, key), ours)
        self.assertIn("code=MANIFEST_WRONG_KEY", fresh.log())

    def signed_by(self, role, container):
        """The manifest in 'container', signed anew by the key of 'role'."""
        secret = (self.p.keys / (role + ".key")).read_text()
        seed = re.search(r"^private: ([0-9a-f]{64})$", secret, re.M)[1]
        public = re.search(r"^public: ([0-9a-f]{64})$", secret, re.M)[1]
        body = container[32 + 72 * container[7]:]
        key = self.p.directory / "signer.der"
        key.write_bytes(bytes.fromhex("302e020100300506032b657004220420" + seed))
        signed = self.p.directory / "signed"
        signed.write_bytes(b"trilane.dev/container/1\0" + container[6:7] + container[8:28] + body)
        signature = subprocess.run(
            ["openssl", "pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", str(key), "-in",
             str(signed)], capture_output=True, check=True).stdout
        key_id = hashlib.blake2b(bytes.fromhex(public), digest_size=32).digest()[:8]
        return container[:7] + b"\1" + container[8:32] + key_id + signature + body

    def test_a_tampered_root_is_put_again(self):
        self.p.command("key", "root", "--version", "2", "--environment", self.p.environment,
                       "--out", self.p.keys, "--roots", self.p.keys / "root.key", "--manifests",
                       self.p.keys / "manifest.pub", "--heads", self.p.keys / "head.pub")
        self.p.nats.start()
        self.start(trust_root="%s,%s" % (self.p.root, self.p.keys / "root.2"))
        self.cp("publish", "-m", "one", trilane.POLICIES)
        with NatsClient(self.p.nats) as nats:
            ours = nats.get(self.bucket, "root.2")
            tampered = bytearray(ours)
            tampered[40] ^= 1  # in the signature
            for name, bytes_ in (("malformed", b"garbage"), ("unsigned", bytes(tampered))):
                with self.subTest(root=name):
                    nats.put(self.bucket, "root.2", bytes_)
                    fresh = self.p.node(name).start(poll_interval_ms=200, status_interval_ms=300)
                    wait_until(lambda f=fresh: f.version() == 1, 60, "the root to come back")
                    self.assertEqual(nats.get(self.bucket, "root.2"), ours)
                    self.assertIn("code=ROOT_" + name.upper(), fresh.log())

    def test_nats_down_at_start(self):
        self.cp.start(head_interval_ms=100, forward_wait_ms=500)
        wait_until(lambda: self.cp.told()["leader"]["code"] == "BUS_UNAVAILABLE", 60,
                   "BUS_UNAVAILABLE")
        self.assertEqual(trilane.http("GET", self.cp.url + "/ready")[0], 503)
        done = self.cp.run("publish", "--again", "-m", "no bus", trilane.POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("NATS cannot be reached", done.stderr)
        self.cp("plan", trilane.POLICIES)  # needs no bus.
        self.assertEqual(self.cp.json("history")["versions"], [])
        self.p.nats.start()
        wait_until(self.cp.leads, 60, "heads to go out")
        self.cp("publish", "-m", "one", trilane.POLICIES)
        self.assertEqual(self.cp.json("history")["versions"][0]["version"], 1,
                         "what was refused took no number")

    def test_nats_away_for_a_while(self):
        node = self.publish_one(forward_wait_ms=500)
        self.p.nats.kill()
        wait_until(lambda: self.cp.told()["leader"]["code"] != "", 60, "no head goes out")
        self.cp("publish", "--again", "-m", "no bus", trilane.POLICIES, code=3)
        self.p.nats.start()
        wait_until(self.cp.leads, 60, "heads to go out again")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        newest = self.cp.json("history")["versions"][0]["version"]
        wait_until(lambda: node.version() == newest, 60, "the node at the newest")


if __name__ == "__main__":
    unittest.main()
