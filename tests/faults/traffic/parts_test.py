"""Steady gRPC calls and open streams through a node while the parts around it die or turn hostile:
no call fails, the node says why it did not move, and all of it heals without a human."""

import contextlib
import os
import pathlib
import queue
import sys
import threading
import time
import unittest

import grpc

import trilane

TESTS = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(TESTS / "integration" / "operator"), str(TESTS / "demo")]
import echo_service as echo  # noqa: E402
import intruder  # noqa: E402

pb = echo.pb
CALL_S = 30  # longer than any call is held up.
AWAY_S = 15 if os.environ.get("TRILANE_TEST_LONG") else 3


class Traffic:
    """Callers that never stop: unary ones, one that reads streams, and one stream for all time."""

    def __init__(self, node):
        self.node = node
        self.failures = []
        self.calls = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._loop, args=(work,)) for work in
                         (self._unary, self._unary, self._stream, self._chat)]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._over.set()
        for thread in self._threads:
            thread.join(2 * CALL_S)
        return self.failures

    def _loop(self, work):
        with echo.channel(self.node) as channel:
            stub = echo.stubs.EchoStub(channel)
            try:
                work(stub)
            except (grpc.RpcError, AssertionError) as problem:
                self.failures.append("%s at call %d: %r" % (work.__name__, self.calls, problem))

    def _turns(self):
        number = 0
        while not self._over.is_set():
            yield number
            number += 1
            self.calls += 1
            time.sleep(0.02)

    def _unary(self, stub):
        for i in self._turns():
            answer = stub.Say(pb.Words(text="u%d" % i, filler=b"f" * 100), timeout=CALL_S,
                              metadata=echo.token("web"))
            assert answer.text.startswith("u%d from " % i) and len(answer.filler) == 100

    def _stream(self, stub):
        for _ in self._turns():
            words = stub.SayMany(pb.Words(text="s", count=20), timeout=CALL_S,
                                 metadata=echo.token("web"))
            assert [w.count for w in words] == list(range(20))

    def _chat(self, stub):
        words = queue.Queue()
        call = stub.Chat(iter(words.get, None), timeout=600, metadata=echo.token("web"))
        for i in self._turns():
            words.put(pb.Words(text=str(i)))
            answer = next(call)
            assert answer.text == "re: %d" % i
        call.cancel()
        words.put(None)


class Parts(unittest.TestCase):
    def setUp(self):
        self.servers = [echo.Server("a"), echo.Server("b")]
        for server in self.servers:
            self.addCleanup(server.stop)
        self.p = trilane.Platform(environment="dev")
        self.addCleanup(self.p.close)
        self.bucket = "trilane_dev_snapshots"
        self.cp = self.p.control_plane()
        self.start_control_plane()
        self.node = self.p.node("node-1", access_log="off", poll_interval_ms=200,
                                good_after_ms=100, status_interval_ms=300, stale_after_ms=1500,
                                fetch_timeout_ms=1000)
        self.node.start()
        self.serial = 0
        self.publish()
        self.healthy()
        self.traffic = Traffic(self.node)
        self.addCleanup(self.traffic.end)

    def start_control_plane(self):
        # Nothing beside the hint: nodes read what somebody overwrites.
        self.cp.start(head_interval_ms=300, lease_ms=1500, content_push_bytes=0)
        trilane.wait_until(self.cp.leads, 60, "a leader")

    def send(self, code=0, wait="yes"):
        """Publishes another content, of which the callers see nothing."""
        self.serial += 1
        text = echo.platform_yaml([s.port for s in self.servers],
                                  timeout="%ds" % (CALL_S + self.serial))
        return self.cp.run("publish", "--wait", wait, "--timeout", "60", "-m",
                           "number %d" % self.serial,
                           self.p.write_policies({"platform.yaml": text}))

    def newest(self):
        return self.cp.json("history")["versions"][0]["version"]

    def publish(self):
        done = self.send()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # The first publication may come before the node's first status.
        trilane.wait_until(lambda: self.node.version() == self.newest(), 60, "the node to serve it")

    def healthy(self):
        """The node runs the newest version, and says that all is well."""
        trilane.wait_until(lambda: self.node.version() == self.newest() and
                           self.node.dump()["state"] == "GOOD" and
                           self.fleet()["state"] == "GOOD", 60, "all to be well")

    def fleet(self):
        """What the control plane knows of the node, by its signed status; KeyError: nothing yet."""
        return {n["node"]: n for n in self.cp.json("status")["nodes"]}["node-1"]

    def alive(self):
        """Calls went on until now, and none failed."""
        calls = self.traffic.calls
        trilane.wait_until(lambda: self.traffic.calls > calls + 10 or self.traffic.failures,
                           what="more calls")
        self.assertEqual(self.traffic.failures, [])

    def says(self, code, harm):
        """The reason is in /dump, status, log and a metric; harm() is done until all have it."""
        line = 'trilane_snapshot_refusals_total{code="%s"}' % code
        seen = set()

        def everywhere():
            harm()
            if self.node.dump()["snapshot"]["last_refusal"] == code:
                seen.add("dump")
            if self.fleet()["code"] == code:
                seen.add("status")
            if line in trilane.http("GET", self.node.admin + "/metrics")[2].decode():
                seen.add("metric")
            if "code=%s" % code in self.node.log():
                seen.add("log")
            return len(seen) == 4
        try:
            trilane.wait_until(everywhere, what=code)
        except AssertionError as problem:
            raise AssertionError("%s is said in %s only; %s" % (
                code, sorted(seen), self.node.log()[-1500:])) from problem
        self.alive()

    # ---- hostile bytes from somebody with the publisher's password ----

    def test_head(self):
        with trilane.NatsClient(self.p.nats) as nats:
            old = nats.get(self.bucket, "head")

            def put(head):
                nats.put(self.bucket, "head", head)
                nats.publish("trilane.dev.head", head)
            trilane.wait_until(lambda: nats.get(self.bucket, "head") != old, what="a newer head")
            self.says("HEAD_REPLAYED", lambda: put(old))
            self.healthy()
            self.says("HEAD_UNSIGNED", lambda: put(tampered(nats.get(self.bucket, "head"), -1)))
            self.healthy()
            self.says("HEAD_MALFORMED", lambda: put(b"noise"))
        self.publish()
        self.healthy()
        self.finish()

    def test_content(self):
        for keys, code in (("chunk.>", "CHUNK_TAMPERED"), ("manifest.>", "MANIFEST_MALFORMED")):
            with self.subTest(keys=keys):
                thief = intruder.Intruder(self.p.nats.port, "dev", keys=keys)
                with contextlib.closing(thief):
                    self.assertEqual(self.send(wait="no").returncode, 0)
                    self.says(code, lambda: None)
                    self.assertGreater(thief.overwritten, 0)
                self.healthy()  # the leader puts right what was overwritten.
        self.publish()
        self.finish()

    def test_bucket(self):
        for harm in ("purge", "destroy"):
            with self.subTest(harm=harm):
                with trilane.NatsClient(self.p.nats) as nats:
                    getattr(nats, harm)(self.bucket)
                self.alive()
                self.publish()
                self.healthy()
        self.finish()

    # ---- parts that die ----

    def test_nats(self):
        self.p.nats.kill()
        self.away()
        self.p.nats.start()
        trilane.wait_until(self.cp.leads, 60, "heads to go out again")
        self.healthy()
        self.publish()
        self.finish()

    def test_control_plane(self):
        self.cp.kill()
        self.away()
        self.start_control_plane()
        self.healthy()
        self.publish()
        self.finish()

    def test_alone(self):
        """Everything else dead, and the node restarted: it serves last-good from its disk."""
        version = self.node.version()
        self.cp.kill()
        self.p.nats.kill()
        self.away()
        self.finish()
        self.node.kill()
        self.node.start()
        trilane.wait_until(self.node.ready, what="last-good")
        self.assertEqual(self.node.version(), version)
        self.traffic = Traffic(self.node)
        self.away()
        self.p.nats.start()
        self.start_control_plane()
        self.healthy()
        self.publish()
        self.finish()

    def away(self):
        """For as long as nobody speaks to the node it serves, and says that it is STALE."""
        trilane.wait_until(lambda: self.node.dump()["state"] == "STALE", 60, "STALE")
        text = trilane.http("GET", self.node.admin + "/metrics")[2].decode()
        trilane.wait_until(lambda: 'trilane_snapshot_state{state="STALE"} 1' in trilane.http(
            "GET", self.node.admin + "/metrics")[2].decode(), what="the metric\n" + text)
        trilane.wait_until(lambda: "state=STALE" in self.node.log(), what="the log to say so")
        until = time.monotonic() + AWAY_S
        while time.monotonic() < until:
            self.alive()
            self.assertTrue(self.node.ready())

    def finish(self):
        trilane.wait_until(lambda: self.traffic.calls > 50 or self.traffic.failures, what="calls")
        self.assertEqual(self.traffic.end(), [])


def tampered(value, at):
    changed = bytearray(value)
    changed[at] ^= 1
    return bytes(changed)


if __name__ == "__main__":
    unittest.main()
