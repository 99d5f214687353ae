"""Keys in the wrong hands, and keys whose time is over: what a thief reaches with a head key, and
with a manifest key besides; what the next root takes away from them while traffic flows; and how
all is as it was before afterwards."""

import datetime
import sys
import threading
import unittest

import forge
import trilane
from ceremony import Ceremony
from other_node import OtherNode
from trilane import NatsClient, Platform, wait_until

sys.path.insert(0, str(trilane.SOURCE / "tests" / "integration" / "operator"))
import echo_service as echo  # noqa: E402
import grpc  # noqa: E402

NODE = {"poll_interval_ms": 200, "status_interval_ms": 300, "good_after_ms": 100}
HEAD_KEY_MS = 20000  # a control plane and a node start within it.
FAST = {"head_interval_ms": 100, "lease_ms": 1500}


class Traffic:
    """Calls through a node, one after the other, until it is told to stop."""

    def __init__(self, node):
        self.node = node
        self.done = 0
        self.failed = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        with echo.channel(self.node) as channel:
            stub = echo.stubs.EchoStub(channel)
            while not self.stopping.wait(0.005):
                try:
                    stub.Say(echo.pb.Words(text="x"), metadata=echo.token("web"), timeout=10)
                    self.done += 1
                except grpc.RpcError as error:
                    self.failed.append((error.code(), error.details()))

    def stop(self):
        self.stopping.set()
        self.thread.join()


class Thieves(unittest.TestCase):
    def setUp(self):
        self.p = Platform(environment="dev")
        self.addCleanup(self.p.close)
        self.c = Ceremony(self.p)
        self.cp = self.p.control_plane()
        self.server = echo.Server("a")
        self.addCleanup(self.server.stop)

    def begin(self):
        """Two nodes at version 1, and calls through the first."""
        self.cp.start(**FAST)
        wait_until(self.cp.leads, 60, "a leader")
        self.publish(1)
        self.nodes = [self.p.node("node-%d" % i).start(**NODE) for i in (1, 2)]
        self.at(1)
        self.traffic = Traffic(self.nodes[0])
        self.addCleanup(self.traffic.stop)
        nats = NatsClient(self.p.nats)
        self.addCleanup(nats.__exit__, None, None, None)
        self.thief = forge.Intruder(nats, "dev")

    def publish(self, turn):
        text = echo.platform_yaml([self.server.port], timeout="%ds" % (9 + turn))
        files = self.p.write_policies({"platform.yaml": text})
        return wait_until(lambda: self.published(files), 60, "a publication")

    def published(self, files):
        """One that meets the step to the next epoch, as a thief's heads make it, is refused, and sent
        again."""
        done = self.cp.run("publish", "--wait", "no", "-m", "turn", files)
        if "error: NOT_LEADER: " not in done.stderr:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done.returncode == 0

    def at(self, version):
        for node in self.nodes:
            wait_until(lambda n=node: n.version() == version, 60,
                       "%s at version %d\n%s" % (node.node_id, version, node.log()[-1500:]))

    def snapshot(self, node=None):
        return (node or self.nodes[0]).dump()["snapshot"]

    def insist(self, head, condition, what):
        """Sends a hint until each node acted on it: of those that come at once it takes one. What is
        to be above the leader's order is made anew each time: the leader answers by an epoch."""
        def met(node):
            self.thief.hint(head() if callable(head) else head)
            return condition(node)
        for node in self.nodes:
            wait_until(lambda n=node: met(n), 60, "%s: %s" % (node.node_id, what), step=0.02)

    def refused(self, head, code):
        """Every node says so in its log; what comes next may have another code."""
        self.insist(head, lambda node: "code=%s " % code in node.log(), code)

    def traffic_flowed(self):
        self.traffic.stop()
        self.assertEqual(self.traffic.failed, [])
        self.assertGreater(self.traffic.done, 20)

    def swap_key(self, role, name):
        """The replica is given another key; it takes it with the root that knows it."""
        self.c.hold(self.cp, role, self.c.generate(role, name))

    def heads_of(self, key):
        """A maker of heads that point at what nodes serve, in an order of the thief's."""
        version, digest, _ = self.thief.newest_manifest()

        def make(epoch, sequence=1, **other):
            return forge.head("dev", key, **{
                "root_version": 1, "epoch": epoch, "sequence": sequence, "version": version,
                "digest": digest, **other})
        return make

    def test_a_leaked_head_key(self):
        self.begin()
        first = self.thief.newest_manifest()
        self.publish(2)
        self.at(2)
        key = forge.Key(self.p.keys / "head.key")
        make = self.heads_of(key)
        # It can point at nothing older, and at nothing that it signed itself.
        def above():
            return self.thief.order()[0] + 1
        self.refused(lambda: make(above(), 1, version=first[0], digest=first[1]),
                     "SNAPSHOT_REPLAYED")
        own, digest = forge.manifest_again("dev", [key], self.thief.newest_manifest()[2], 3)
        self.thief.put("manifest.3.%s" % digest.hex(), own)
        self.refused(lambda: make(above(), 2, version=3, digest=digest), "MANIFEST_WRONG_KEY")
        # Nor at nothing, nor at a root that nobody made.
        nobody = forge.labelled("no", "such")
        self.refused(lambda: make(above(), 3, selector=nobody), "NO_TARGET")
        self.refused(lambda: make(above(), 4, root_version=2), "ROOT_MISSING")
        # But it can use epochs up, at most 2^20 a head, and lock the leader out. Nodes stand at the
        # order in KV or above it.
        epoch = self.thief.order()[0]
        for _ in range(3):
            epoch += forge.EPOCH_JUMP
            self.insist(make(epoch), lambda n, e=epoch: self.snapshot(n)["epoch"] == e, "the epoch")
        self.refused(make(epoch + forge.EPOCH_JUMP + 1), "EPOCH_JUMP")
        # An order is taken once: at another time it is another head.
        self.refused(lambda: make(epoch), "HEAD_EQUIVOCATION")
        self.publish(3)
        for node in self.nodes:
            wait_until(lambda n=node: self.snapshot(n)["last_refusal"] == "HEAD_REPLAYED", 60,
                       "the leader is locked out")
        self.assertEqual({n.version() for n in self.nodes}, {2})
        # The next root takes the key away, and sets nodes back to the leader's epoch.
        leader = self.cp.json("status")["leader"]["epoch"]
        self.swap_key("head", "head-2")
        self.cp("root", "publish", self.c.next_root(
            2, "--add", self.c.public("head-2"), "--drop", "head:head",
            "--floor-epoch", leader, "--floor-version", 2))
        self.at(3)
        self.assertLess(self.snapshot()["epoch"], forge.EPOCH_JUMP)
        self.refused(make(epoch + 1), "HEAD_UNSIGNED")
        self.publish(4)
        self.at(4)
        self.traffic_flowed()

    def test_a_leaked_head_key_names_what_nobody_published(self):
        """Heads go on, and no number is used up: one key alone says nothing of what there is."""
        self.begin()
        make = self.heads_of(forge.Key(self.p.keys / "head.key"))
        epoch = self.thief.order()[0] + 3
        self.thief.put("head", make(epoch, version=2 ** 62, digest=bytes(32)))
        wait_until(lambda: self.thief.order()[0] == epoch + 1, 60, "the leader's next epoch")
        self.assertIn("head_of_nothing", self.cp.log())
        self.assertEqual(self.cp.json("status")["leader"]["code"], "")
        self.publish(2)
        self.at(2)
        self.traffic_flowed()

    def test_nodes_that_lie_about_heads(self):
        """One that is far ahead drowns no other; one that is near has the row renewed now and then."""
        self.begin()
        epoch = self.cp.told()["leader"]["epoch"]
        for name, ahead in (("far", 2 ** 62), ("near", epoch + 10)):
            liar = OtherNode(self.p, name)
            self.addCleanup(liar.silence)
            liar.speaks(1, serves="1/%d" % ahead)
        wait_until(lambda: len(self.answers()) >= 3, 60, "three epochs that answer")
        times = self.answers()
        self.assertGreaterEqual(min(b - a for a, b in zip(times, times[1:])), 1.9, times)
        self.traffic_flowed()

    def answers(self):
        """When nodes' words were answered by an epoch, in seconds."""
        lines = [line for line in self.cp.log().splitlines() if "foreign_head_at_nodes" in line]
        return [datetime.datetime.fromisoformat(line.split()[0][3:].replace("Z", "+00:00"))
                .timestamp() for line in lines]

    def test_a_leaked_manifest_key_besides(self):
        """With both keys a thief's content is served until the root that takes them away; a version
        far ahead is healed by its floor."""
        self.begin()
        head, manifest = (forge.Key(self.p.keys / n) for n in ("head.key", "manifest.key"))
        forged, digest = forge.manifest_again("dev", [manifest], self.thief.newest_manifest()[2],
                                              2 ** 40)
        self.thief.put("manifest.%d.%s" % (2 ** 40, digest.hex()), forged)
        make = self.heads_of(head)
        self.insist(lambda: make(self.thief.order()[0] + 1, version=2 ** 40, digest=digest),
                    lambda node: node.version() == 2 ** 40, "the forged version")
        epoch = max(self.snapshot(node)["epoch"] for node in self.nodes)
        self.publish(2)
        self.assertEqual({n.version() for n in self.nodes}, {2 ** 40})
        self.swap_key("head", "head-2")
        self.swap_key("manifest", "manifest-2")
        self.cp("root", "publish", self.c.next_root(
            2, "--add", self.c.public("head-2", "manifest-2"), "--drop",
            "head:head,manifest:manifest", "--floor-epoch", epoch + 1, "--floor-version", 100))
        self.at(101)
        self.assertGreater(self.cp.json("status")["leader"]["epoch"], epoch + 1)
        newest = self.cp.json("history")["versions"][0]
        self.assertEqual((newest["version"], newest["origin"]), (101, 2))
        self.assertEqual(self.cp.json("key", "list")["newest_signers"],
                         [forge.Key(self.p.keys / "manifest-2.key").id.hex()])
        audit = self.cp.api("GET", "/api/v1/audit")[1]["entries"]
        self.assertEqual([e["outcome"] for e in audit if e["action"] == "republish"], ["OK"])
        self.refused(make(epoch + 9, version=2 ** 40, digest=digest), "HEAD_UNSIGNED")
        self.publish(3)
        self.at(102)
        self.traffic_flowed()

    def test_a_manifest_key_is_taken_away(self):
        """Nodes stay where they are; the content comes under a new version, by keys that are there,
        so that a node that starts tomorrow finds one that it believes."""
        self.begin()
        self.swap_key("manifest", "manifest-2")
        self.cp("root", "publish", self.c.next_root(2, "--add", self.c.public("manifest-2"),
                                                    "--drop", "manifest:manifest"))
        self.at(2)
        content = self.snapshot()["content_digest"]
        fresh = self.p.node("fresh", trust_root=self.c.root(2)).start(**NODE)
        self.nodes.append(fresh)
        self.at(2)
        self.assertEqual(self.snapshot(fresh)["content_digest"], content)
        self.assertEqual(self.cp.json("history")["versions"][0]["version"], 2, "once")
        self.traffic_flowed()

    def test_a_manifest_key_is_taken_away_from_a_replica_that_has_no_other(self):
        """Heads go on; what cannot be signed is said, and no number is used up for it."""
        self.begin()
        self.c.generate("manifest", "manifest-2")
        self.cp("root", "publish", self.c.next_root(2, "--add", self.c.public("manifest-2"),
                                                    "--drop", "manifest:manifest"))
        wait_until(lambda: "event=republish_failed" in self.cp.log(), 60, "it says so")
        self.assertEqual(self.cp.metric("trilane_manifest_key_known"), 0)
        sequence = self.snapshot()["sequence"]
        wait_until(lambda: self.snapshot()["sequence"] > sequence, 60, "heads go on")
        self.c.hold(self.cp, "manifest", self.p.keys / "manifest-2.key")
        self.cp.signal(1)
        self.at(2)
        self.traffic_flowed()

    def test_all_roots_come_back_into_a_bucket_that_was_purged(self):
        self.begin()
        for version in (2, 3):
            self.c.generate("head", "head-%d" % version)
            self.cp("root", "publish", self.c.next_root(version, "--add",
                                                        self.c.public("head-%d" % version)))
        self.thief.nats.purge(self.thief.bucket)
        for version in (1, 2, 3):
            wait_until(lambda v=version: self.thief.nats.get(self.thief.bucket, "root.%d" % v), 60,
                       "root %d" % version)
        self.nodes.append(self.p.node("fresh").start(**NODE))  # of root 1.
        self.at(1)
        self.traffic_flowed()


    def test_a_root_that_a_purge_took_while_others_were_put_comes_back(self):
        self.begin()
        self.c.generate("head", "head-2")
        self.cp("root", "publish", self.c.next_root(2, "--add", self.c.public("head-2")))
        roots = ("root.1", "root.2")
        wait_until(lambda: all(map(self.get, roots)), 60, "both roots")
        before = [self.get(root) for root in roots]
        self.thief.nats.put(self.thief.bucket, "root.1", b"purged")
        self.publish(2)
        self.assertEqual([self.get(root) for root in roots], before)
        self.traffic_flowed()

    def get(self, key):
        return self.thief.nats.get(self.thief.bucket, key)


class Ends(unittest.TestCase):
    """Days are too long for a test: the first root is made by hand, with a head key of seconds."""

    def test_a_head_key_past_its_time_does_not_lead(self):
        with Platform() as p:
            c = Ceremony(p)
            root, manifest, head = (forge.Key(p.keys / (n + ".key"))
                                    for n in ("root", "manifest", "head"))
            now = int(trilane.time.time() * 1000)
            p.root.write_bytes(forge.root(
                "demo", 1, now + 86400000,
                [([(root, 0)], 1), ([(manifest, 0)], 1), ([(head, now + HEAD_KEY_MS)], 1)], [root]))
            cp = p.control_plane().start(**FAST)
            wait_until(cp.leads, 60, "a leader")
            cp("publish", "-m", "one", trilane.POLICIES)
            node = p.node("node-1").start(**NODE)
            wait_until(lambda: node.version() == 1, 60, "version 1")
            self.assertIn("event=head_key_ends", cp.log())
            self.assertLess(cp.metric("trilane_key_expires_seconds"), HEAD_KEY_MS / 1000)
            wait_until(lambda: cp.told()["leader"]["code"] == "KEY_EXPIRED", 60, "the end")
            wait_until(lambda: not cp.told()["leader"]["leads"], 60, "the row to be let go")
            self.assertEqual(cp.metric("trilane_head_key_usable"), 0)
            self.assertIn("cannot lead: KEY_EXPIRED", cp("key", "list"))
            cp("publish", "--again", "-m", "two", trilane.POLICIES, code=3)
            # It can be restarted, and is given the next root while it leads nothing.
            cp.stop()
            cp.start(**FAST)
            c.hold(cp, "head", c.generate("head", "head-2"))
            cp("root", "publish", c.next_root(2, "--add", c.public("head-2"), "--drop",
                                              "head:head"))
            wait_until(cp.leads, 60, "it leads again")
            cp("publish", "--again", "-m", "two", trilane.POLICIES)
            wait_until(lambda: node.version() == 2, 60, "version 2")


if __name__ == "__main__":
    unittest.main()
