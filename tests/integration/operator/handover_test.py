"""SIGUSR2: a node gives way to a process of its program and loses no call; one that does not get there
changes nothing. And workers stay on their cores."""

import concurrent.futures
import os
import pathlib
import queue
import signal
import socket
import threading
import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb
CALLERS = 4
LATER = """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: later-%d, tenant: acme}
spec: {}
"""


class Calls:
    """Callers who call one after the other, each by a connection of its own, until the block ends."""

    def __init__(self, node):
        self.node = node
        self.over = threading.Event()
        self.count = 0
        self.failures = []
        self.pool = concurrent.futures.ThreadPoolExecutor(CALLERS)

    def _channel(self):
        """With what is gRPC's own: a call that a GOAWAY met before it had begun is made again (A6)."""
        return grpc.insecure_channel("127.0.0.1:%d" % self.node.ports["listen"],
                                     options=(("grpc.use_local_subchannel_pool", 1),))

    def _call(self, number):
        """Every other caller makes a new connection for each call."""
        channel = self._channel()
        while not self.over.is_set():
            try:
                echo.stubs.EchoStub(channel).Say(pb.Words(text="x"), timeout=60,
                                                 metadata=echo.token("web"))
                self.count += 1
            except grpc.RpcError as error:
                self.failures.append((error.code(), error.details()))
            if number % 2:
                channel.close()
                channel = self._channel()
        channel.close()

    def __enter__(self):
        self.runs = [self.pool.submit(self._call, number) for number in range(CALLERS)]
        return self

    def more(self, by=20):
        """Waits until so many more calls were answered."""
        wanted = self.count + by
        trilane.wait_until(lambda: self.count >= wanted or self.failures, what="calls")

    def __exit__(self, kind, problem, trace):
        self.over.set()
        for run in self.runs:
            run.result()
        self.pool.shutdown()


class Handover(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        echo.begin(cls)
        cls.node = cls.platform.node("node-1")
        cls.config = cls.platform.directory / "node.conf"
        cls.settings("workers: 2\npin-workers: on")
        cls.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        cls.addClassCleanup(cls.notify.close)
        cls.notify.bind(str(cls.platform.directory / "notify"))
        cls.notify.settimeout(trilane.PATIENCE_S)
        cls.node.env["NOTIFY_SOCKET"] = str(cls.platform.directory / "notify")
        cls.node.start(config=cls.config, graceful_timeout_ms=30000)
        cls.addClassCleanup(cls.node.end_all)
        cls.publish()

    @classmethod
    def settings(cls, text):
        cls.config.write_text(text + "\n")

    @classmethod
    def publish(cls):
        """Something new; it waits until the node says that it serves it."""
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies(
            {"platform.yaml": echo.platform_yaml([cls.server.port], extra=LATER % before)}))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it")

    def main_pid(self):
        """As a supervisor is told."""
        said = self.notify.recv(200).decode().split("\n")
        self.assertEqual(said[1], "READY=1")
        return int(said[0].removeprefix("MAINPID="))

    def workers(self):
        return len(self.node.dump()["workers"])

    def test_0_workers_stay_on_their_cores(self):
        """Where there are as many as workers; other threads are where the kernel wants them."""
        cores = sorted(os.sched_getaffinity(self.node.popen.pid))
        found = {}
        for task in pathlib.Path("/proc/%d/task" % self.node.popen.pid).iterdir():
            name = (task / "comm").read_text().strip()
            found[name] = sorted(os.sched_getaffinity(int(task.name)))
        pinned = len(cores) >= 2
        self.assertEqual([found["worker-0"], found["worker-1"]],
                         [[cores[0]], [cores[1]]] if pinned else [cores, cores])
        self.assertEqual(found["apply"], cores)

    def test_1_another_process_takes_over(self):
        """With another number of workers; and once more, from the successor."""
        old = self.main_pid()
        self.assertEqual((old, self.workers()), (self.node.popen.pid, 2))
        requests = queue.SimpleQueue()
        channel = echo.channel(self.node)
        self.addCleanup(channel.close)
        chat = echo.stubs.EchoStub(channel).Chat(iter(requests.get, None), timeout=600,
                                                 metadata=echo.token("web"))
        requests.put(pb.Words(text="before"))
        self.assertEqual(next(chat).text, "re: before")
        with Calls(self.node) as calls:
            for count in (3, 1):
                calls.more()
                self.settings("workers: %d" % count)
                os.kill(old, signal.SIGUSR2)
                new = self.main_pid()
                self.assertNotEqual(new, old)
                trilane.wait_until(lambda: self.workers() == count, what="the successor")
                calls.more()
                if count == 3:  # a stream that is open stays where it is, and ends well.
                    self.assertIn(old, self.node.pids())
                    requests.put(pb.Words(text="behind"))
                    self.assertEqual(next(chat).text, "re: behind")
                    requests.put(None)
                    self.assertEqual(list(chat), [])
                    self.assertEqual(self.node.wait(), 0)
                trilane.wait_until(lambda: self.node.pids() == [new], what="the one before to end")
                old = new
        self.assertEqual(calls.failures, [])
        self.publish()

    def test_2_a_successor_that_does_not_start(self):
        """The node serves on, keeps what is published, and says so; later one that starts takes over."""
        pid, = self.node.pids()
        with Calls(self.node) as calls:
            # Before it has the sockets and the lock, and behind that.
            for times, wrong in enumerate(("workers: none", "access-log: /nowhere/at/all"), 1):
                self.settings(wrong)
                os.kill(pid, signal.SIGUSR2)
                trilane.wait_until(lambda t=times: self.node.log().count("disk-taken-back") == t,
                                   what="the node to go on")
                calls.more()
                self.publish()
            self.settings("workers: 2")
            os.kill(pid, signal.SIGUSR2)
            new = self.main_pid()
            trilane.wait_until(lambda: self.node.pids() == [new], what="the one before to end")
            calls.more()
        self.assertEqual(calls.failures, [])


if __name__ == "__main__":
    unittest.main()
