"""One version after the other under calls of all kinds: none fails, and under ThreadSanitizer none
races. The worker threads, the apply thread and the bus threads all do their part, and none of the
others takes the core from a worker by waking up."""

import os
import pathlib
import threading
import time
import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb
SECONDS = 60 if os.environ.get("TRILANE_TEST_LONG") else 6


class SwapsUnderLoad(unittest.TestCase):
    def setUp(self):
        self.servers = [echo.Server("a"), echo.Server("b")]
        for server in self.servers:
            self.addCleanup(server.stop)
        self.platform = trilane.Platform(environment="dev")
        self.addCleanup(self.platform.close)
        self.cp = self.platform.control_plane().start(head_interval_ms=100)
        self.node = self.platform.node("node-1", workers=4,
                                       access_log=self.platform.directory / "access.log").start()
        self.failed = []
        self.done = [0] * 8
        self.stop = threading.Event()

    def publish(self, turn):
        """Each version differs: timeout, the order of endpoints, a limit that comes and goes."""
        ports = [s.port for s in self.servers]
        extra = """
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: many, tenant: acme}
spec: {target: {service: echo}, by: [caller], rate: 100000/s, burst: 100000}
""" if turn % 2 else ""
        files = {"platform.yaml": echo.platform_yaml(ports if turn % 3 else ports[::-1], extra=extra,
                                                     timeout="%ds" % (20 + turn % 7))}
        self.cp("publish", "-m", "turn", self.platform.write_policies(files))

    def load(self, i):
        kinds = (self.unary, self.many, self.collect, self.chat)
        while not self.stop.is_set():
            with echo.channel(self.node, grpc__use_local_subchannel_pool=1) as channel:
                stub = echo.stubs.EchoStub(channel)
                for _ in range(25):
                    try:
                        kinds[i % len(kinds)](stub)
                        self.done[i] += 1
                    except grpc.RpcError as error:
                        self.failed.append((error.code(), error.details(),
                                            error.trailing_metadata()))
                        return

    def unary(self, stub):
        stub.Say(pb.Words(text="x"), metadata=echo.token("web"))

    def many(self, stub):
        list(stub.SayMany(pb.Words(text="x", count=100, filler=b"y" * 1000),
                          metadata=echo.token("web")))

    def collect(self, stub):
        stub.Collect((pb.Words(text="w") for _ in range(20)), metadata=echo.token("web"))

    def chat(self, stub):
        def words():
            for i in range(10):
                yield pb.Words(text=str(i))
                time.sleep(0.02)  # it lives over a swap or two.
        list(stub.Chat(words(), metadata=echo.token("web")))

    def look_at_threads(self):
        """Those of libraries, too."""
        policies = {}
        for task in pathlib.Path("/proc/%d/task" % self.node.popen.pid).iterdir():
            try:
                kind = (task / "comm").read_text().startswith("worker-")
                policies.setdefault(kind, set()).add(os.sched_getscheduler(int(task.name)))
            except (FileNotFoundError, ProcessLookupError):
                continue  # one of nats.c that ended meanwhile.
        self.assertEqual(policies, {True: {os.sched_getscheduler(0)}, False: {os.SCHED_BATCH}})

    def look_at_turns(self, turn):
        """Nobody calls: a worker spends three turns on a swap, which adopt it, look over its callers,
        and over its upstreams; all are timed."""
        turns = "trilane_snapshot_turn_seconds_count"
        trilane.wait_until(lambda: not self.node.metric("trilane_requests_open"), what="calls to end")
        before = self.node.metric(turns)
        self.publish(turn)
        trilane.wait_until(lambda: self.node.metric(turns) >= before + 3 * self.node.flags["workers"],
                           what="the turns of a swap")

    def test_no_call_fails(self):
        self.publish(0)
        trilane.wait_until(lambda: self.node.version() > 0, what="the first version")
        threads = [threading.Thread(target=self.load, args=(i,)) for i in range(len(self.done))]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        turn = 0
        while time.monotonic() < end:
            turn += 1
            self.publish(turn)
            trilane.http("GET", self.node.admin + "/metrics")
        trilane.wait_until(lambda: self.node.version() >= turn, what="the last version")
        self.stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(self.failed, [])
        self.assertTrue(all(self.done), self.done)
        self.assertGreater(self.node.metric("trilane_requests_redecided_total") or 0, 0)
        self.look_at_threads()
        self.look_at_turns(turn + 1)
        self.assertEqual(self.node.stop(), 0, self.node.log()[-4000:])
        self.assertNotIn("ThreadSanitizer", self.node.log())
        print("%d versions, %d calls" % (turn, sum(self.done)))


if __name__ == "__main__":
    unittest.main()
