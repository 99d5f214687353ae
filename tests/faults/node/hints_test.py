"""Hints that end without a word: the connection is well, but the server let the subscription go.
Polls bring what is new and keep the node fresh, what was lost is counted, and it listens again. And
hints by the ten thousand a second from somebody who may write to NATS: ten of them are judged.

What is pushed beside a hint spares a node its reads, so that it follows without the right to any;
without the right to hear pushes it reads; and a flood of pushes holds nothing up. Heads that come
while chunks are withheld keep a node fresh, and move it nowhere."""

import os
import signal
import sys
import threading
import time
import unittest

import trilane
from trilane import NatsClient, Platform, wait_until

sys.path.insert(0, str(trilane.SOURCE / "tests" / "integration" / "operator"))
import echo_service as echo  # noqa: E402

node_permissions = trilane.node_permissions


def deaf_permissions(env, node_id):
    """Those of a node, but for hearing heads."""
    lists = node_permissions(env, node_id)
    lists["subscribe"]["allow"].remove("trilane.%s.head" % env)
    return lists


def pushes_alone(env, node_id):
    """Those of a node, but for reading the snapshot bucket."""
    lists = node_permissions(env, node_id)
    lists["publish"]["allow"] = [s for s in lists["publish"]["allow"]
                                 if "GET.KV_trilane_%s_snapshots" % env not in s]
    return lists


def no_pushes(env, node_id):
    """Those of a node, but for hearing what is pushed beside hints."""
    lists = node_permissions(env, node_id)
    lists["subscribe"]["allow"].remove("trilane.%s.content" % env)
    return lists


def no_chunks(env, node_id):
    """Those of a node, but for reading chunks; a read of the stream by number could be one."""
    lists = node_permissions(env, node_id)
    bucket = "trilane_%s_snapshots" % env
    lists["publish"]["allow"] = [s for s in lists["publish"]["allow"]
                                 if "GET.KV_" + bucket not in s]
    lists["publish"]["allow"] += ["$JS.API.DIRECT.GET.KV_%s.$KV.%s.%s.>" % (bucket, bucket, kind)
                                  for kind in ("manifest", "root")]
    return lists


HINTS_PER_SECOND = 10  # the node's default.
FLOOD = 30000  # hints: three seconds of a flood, or as long as the machine takes to send them.
FLOOD_PER_SECOND = 10000  # hints that a long run asks for; a shorter one measures no machine.


class Flood(threading.Thread):
    """The same hint again and again, as fast as NATS takes it."""

    def __init__(self, nats, subject, payload):
        super().__init__()
        self.lines = b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(payload), payload) * 1000
        self.nats = nats
        self.sent = 0
        self.seconds = 0.0  # that it took to send those.
        self.over = threading.Event()

    def run(self):
        start = time.monotonic()
        while not self.over.is_set():
            self.nats.file.write(self.lines)
            self.nats.flush()
            self.sent += 1000
            self.seconds = time.monotonic() - start

    def stop(self):
        self.over.set()
        self.join()


class Hearing(unittest.TestCase):
    environment = "demo"
    flags = {}

    def setUp(self):
        self.p = Platform(environment=self.environment)
        self.addCleanup(self.p.close)
        self.addCleanup(self.allow, node_permissions)
        self.cp = self.p.control_plane().start(head_interval_ms=100, **self.flags)
        wait_until(self.cp.leads, 60, "a leader")

    def allow(self, permissions):
        """Rights from now on; a reload ends subscriptions that are none's right any more."""
        trilane.node_permissions = permissions
        self.p.nats._configure()  # pylint: disable=protected-access
        told = self.p.nats.log().count("Reloaded server configuration")
        self.p.nats.signal(signal.SIGHUP)
        wait_until(lambda: not self.p.nats.alive() or
                   self.p.nats.log().count("Reloaded server configuration") > told, what="NATS")

    def heads(self, node, way):
        text = trilane.http("GET", node.admin + "/metrics")[2].decode()
        line = 'trilane_heads_total{way="%s"} ' % way
        return sum(float(l[len(line):]) for l in text.splitlines() if l.startswith(line))


class Hints(Hearing):
    def test_a_subscription_that_is_gone(self):
        node = self.p.node("node-1").start(poll_interval_ms=500, status_interval_ms=300,
                                           good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        wait_until(lambda: self.heads(node, "hint") > 5, 60, "hints")
        connects = node.metric("trilane_bus_reconnects_total")
        self.allow(deaf_permissions)
        wait_until(lambda: "hints_missing" in node.log(), 60, "the node to notice")
        before = self.heads(node, "hint")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual(node.version(), 2)
        polled = self.heads(node, "poll")
        wait_until(lambda: self.heads(node, "poll") > polled + 2, 60, "polls to bring heads")
        self.assertEqual(self.heads(node, "hint"), before)
        wait_until(lambda: node.metric("trilane_head_contact_age_seconds") < 3, what="contact")
        self.allow(node_permissions)
        wait_until(lambda: self.heads(node, "hint") > before + 5, 60, "hints again")
        self.assertEqual(node.metric("trilane_bus_reconnects_total"), connects)
        self.assertNotIn("STALE", node.log())

    def flood(self, node, nats, payload, met):
        """A publication under a flood reaches the node, which judges no more hints than it does. The
        flood goes on until it is one, and 'met' by the node."""
        version, before = node.version(), node.dump()["snapshot"]["refusals"]
        start = time.monotonic()
        flood = Flood(nats, "trilane.%s.head" % self.p.environment, payload)
        self.addCleanup(flood.over.set)
        flood.start()
        self.cp("publish", "--again", "-m", "under a flood", trilane.POLICIES)
        wait_until(lambda: flood.sent > FLOOD, what="a flood")
        wait_until(met, what="the node to meet it")
        self.assertEqual(node.version(), version + 1)
        refusals = node.dump()["snapshot"]["refusals"] - before
        flood.stop()
        seconds = time.monotonic() - start
        self.assertLessEqual(refusals, HINTS_PER_SECOND * (seconds + 2))
        self.assertTrue(node.ready())
        rate = flood.sent / flood.seconds
        print("figure: %.0f heads a second" % rate)
        if os.environ.get("TRILANE_TEST_LONG"):
            self.assertGreaterEqual(rate, FLOOD_PER_SECOND)

    def test_ten_thousand_a_second(self):
        node = self.p.node("node-1").start(poll_interval_ms=500, status_interval_ms=300,
                                           good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        bucket = "trilane_%s_snapshots" % self.p.environment
        with NatsClient(self.p.nats) as nats:
            old = nats.get(bucket, "head")
            wait_until(lambda: nats.get(bucket, "head") != old, 60, "the next head")
            self.flood(node, nats, b"no head" * 30, lambda: "code=HEAD_MALFORMED" in node.log())
            late = self.heads(node, "late")  # behind a poll an old one is no replay yet.
            self.flood(node, nats, old, lambda: self.heads(node, "late") > late or
                       "code=HEAD_REPLAYED" in node.log())
        wait_until(lambda: node.dump()["state"] == "GOOD", 60, "the node to be well again")
        self.assertEqual(node.metric("trilane_bus_reconnects_total") or 0, 0)

    def test_pushes_are_enough(self):
        """A node that may not read the bucket: what it fetches it can only have been pushed."""
        node = self.p.node("node-1").start(status_interval_ms=300, good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        self.allow(pushes_alone)
        fetched = node.metric("trilane_snapshot_fetched_bytes_total")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual(node.version(), 2)
        self.assertGreater(node.metric("trilane_snapshot_fetched_bytes_total"), fetched + 100)
        self.assertEqual(node.dump()["snapshot"]["refusals"], 0)
        self.cp.stop()
        self.cp = self.p.control_plane().start(head_interval_ms=100, content_push_bytes=0)
        wait_until(self.cp.leads, 60, "a leader")
        self.cp("publish", "--again", "--wait", "no", "-m", "three", trilane.POLICIES)
        wait_until(lambda: node.dump()["snapshot"]["last_refusal"] == "CONTENT_UNANSWERED", 60,
                   "the node to miss what it may not read")
        self.allow(node_permissions)
        wait_until(lambda: node.version() == 3, 60, "the node to read it")

    def test_pushes_that_are_not_heard(self):
        """It reads what others are pushed, and says nothing of it."""
        self.allow(no_pushes)
        node = self.p.node("node-1").start(status_interval_ms=300, good_after_ms=100)
        for number in (1, 2):
            self.cp("publish", "--again", "-m", str(number), trilane.POLICIES)
            self.assertEqual(node.version(), number)
        self.assertEqual(node.dump()["snapshot"]["refusals"], 0)
        self.assertNotIn("level=warn", node.log())

    def test_a_flood_of_pushes(self):
        node = self.p.node("node-1").start(status_interval_ms=300, good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        with NatsClient(self.p.nats) as nats:
            for payload in (b"no bundle" * 100, b"TRLB\x01\0\x01\0\x01\0\0\x10\0\0k" + b"x" * 4096):
                version = node.version()
                flood = Flood(nats, "trilane.%s.content" % self.p.environment, payload)
                self.addCleanup(flood.over.set)
                flood.start()
                wait_until(lambda: flood.sent > 2000, 60, "a flood")
                self.cp("publish", "--again", "-m", "under a flood", trilane.POLICIES)
                self.assertEqual(node.version(), version + 1)
                flood.stop()
        self.assertEqual(node.dump()["snapshot"]["refusals"], 0)
        self.assertTrue(node.ready())


class Withheld(Hearing):
    environment = "dev"
    flags = {"content_push_bytes": 0}

    def setUp(self):
        super().setUp()
        self.server = echo.Server("a")
        self.addCleanup(self.server.stop)

    def publish(self, timeout, *flags):
        text = echo.platform_yaml([self.server.port], timeout=timeout)
        self.cp("publish", *flags, "-m", timeout, self.p.write_policies({"platform.yaml": text}))

    def call(self, channel, text):
        said = echo.stubs.EchoStub(channel).Say(echo.pb.Words(text=text), timeout=trilane.PATIENCE_S,
                                                metadata=echo.token("web"))
        self.assertEqual(said.text, text + " from a")

    def test_chunks(self):
        """The manifest is read, and then nobody answers for what it lists."""
        node = self.p.node("node-1").start(status_interval_ms=300, good_after_ms=100,
                                           fetch_timeout_ms=500)
        self.publish("20s")
        wait_until(lambda: node.version() == 1, 60, "version 1")
        self.allow(no_chunks)
        self.publish("21s", "--wait", "no")
        wait_until(lambda: node.dump()["snapshot"]["last_refusal"] == "CONTENT_UNANSWERED", 60,
                   "the node to miss what is withheld")
        heads = self.heads(node, "hint")
        wait_until(lambda: self.heads(node, "hint") > heads + 5, 60, "heads to go on")
        said = node.dump()["snapshot"]
        self.assertEqual(said["last_refusal"], "CONTENT_UNANSWERED")
        self.assertRegex(said["last_refusal_object"], "^chunk[.]")
        wait_until(lambda: node.metric("trilane_head_contact_age_seconds") < 3, what="contact")
        self.assertEqual(node.version(), 1)
        with echo.channel(node) as channel:
            self.call(channel, "withheld")
            self.allow(node_permissions)
            wait_until(lambda: node.version() == 2, 60, "the node to read it")
            self.call(channel, "healed")


if __name__ == "__main__":
    unittest.main()
