"""Publications that follow each other faster than nodes take them: 1,000 within a minute (--long),
fewer otherwise, under calls. Nodes skip what is past, never go back, and all end on the newest, soon; no
call fails, nothing is refused, and nothing grows: neither memory, nor files, nor the bucket."""

import http.client
import json
import pathlib
import re
import sys
import threading
import time
import unittest

import grpc

import fleet
import trilane
from trilane import NatsClient, Platform, wait_until

sys.path.insert(0, str(trilane.SOURCE / "tests" / "integration" / "operator"))
import echo_service as echo  # noqa: E402

COUNT = 1000 if trilane.counts_far() else 100
MINUTE_S = 60
FILES_EVERY = 20  # publications by rollback between two of edited files.
LOGICAL = 8
STATUS_REST_MS = 500
SOON_S = 5  # a sanitizer's second.
# What is past leaves the bucket within seconds, not after a day; a node that is held up for some of
# them while it fetches finds no hole.
COLLECTING = {"collect_interval_ms": 300, "collect_age_ms": 8000, "chunk_fresh_ms": 800,
              "collect_versions": 4, "collect_reported_ms": 100}
MANIFESTS_KEPT = 8  # the last four, and what nodes said that they run.
QUARANTINE = "quarantine_size_mb=4:thread_local_quarantine_size_kb=64"


def files_open(pid):
    return len(list(pathlib.Path("/proc/%d/fd" % pid).iterdir()))


def resident_bytes(pid):
    for line in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Calls(threading.Thread):
    """Calls through a node, one after the other, until it is told to stop."""

    def __init__(self, node):
        super().__init__()
        self.node = node
        self.done = 0
        self.failed = []
        self.over = threading.Event()

    def run(self):
        with echo.channel(self.node, grpc__use_local_subchannel_pool=1) as channel:
            stub = echo.stubs.EchoStub(channel)
            while not self.over.is_set():
                try:
                    stub.Say(echo.pb.Words(text="x"), metadata=echo.token("web"))
                    self.done += 1
                except grpc.RpcError as error:
                    self.failed.append((error.code(), error.details()))
                self.over.wait(0.01)

    def stop(self):
        self.over.set()
        self.join()


class Storm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = echo.Server()
        cls.addClassCleanup(cls.server.stop)
        cls.p = Platform(environment="dev", nats=False)
        cls.addClassCleanup(cls.p.close)
        cls.sources = []
        for name in ("one", "two"):
            path = cls.p.directory / name
            path.mkdir()
            (path / "platform.yaml").write_text(echo.platform_yaml(
                [cls.server.port], timeout={"one": "20s", "two": "21s"}[name]))
            cls.sources.append(path)
        names = fleet.names(LOGICAL)
        for name in names:
            cls.p.nats.add_node(name)
        cls.p.nats.start()
        # A row that would run out many times, if who publishes all the time did not renew it.
        cls.cp = cls.p.control_plane()
        cls.nodes = [cls.p.node("real-%d" % k, workers=2) for k in range(2)]
        for program in [cls.cp] + cls.nodes:  # what is freed shall not look as if it were kept.
            program.env["ASAN_OPTIONS"] = QUARANTINE
        cls.cp.start(lease_ms=2000, **COLLECTING)
        wait_until(cls.cp.leads, 60, "a leader")
        for node in cls.nodes:
            node.start(status_rest_ms=STATUS_REST_MS)
        cls.fleet = fleet.Fleet(cls.p, LOGICAL, env={"ASAN_OPTIONS": QUARANTINE},
                                status_rest_ms=STATUS_REST_MS)
        cls.addClassCleanup(cls.fleet.stop)
        cls.connection = http.client.HTTPConnection("127.0.0.1", cls.cp.port, timeout=30)
        cls.addClassCleanup(cls.connection.close)

    def go_back_to(self, version):
        """Publishes its content again; the new version."""
        self.connection.request(
            "POST", "/api/v1/rollback", json.dumps({"version": version, "message": "storm"}),
            {"Authorization": "Bearer " + self.cp.token(), "Content-Type": "application/json"})
        answer = self.connection.getresponse()
        body = answer.read()
        self.assertEqual(answer.status, 200, body)
        return json.loads(body)["record"]["version"]

    def storm(self, count):
        """So many publications of two contents by turns, without a pause; the last version."""
        start = time.monotonic()
        version = self.cp.json("status")["leader"]["head_version"]
        for number in range(1, count + 1):
            if number % FILES_EVERY == 0:
                sources = self.sources[number // FILES_EVERY % 2]
                self.cp("publish", "--again", "--wait", "no", "-m", "storm", sources)
                version += 1
            else:
                version = self.go_back_to(version - 1)
        return version, time.monotonic() - start

    def wait_all(self, version):
        swaps = self.fleet.wait(version)
        for node in self.nodes:
            wait_until(lambda n=node: n.version() == version, 60, "the newest at " + node.node_id)
        return swaps

    def sizes(self):
        pids = {"cp": self.cp.popen.pid, "fleet": self.fleet.pids()[0]}
        pids.update((node.node_id, node.popen.pid) for node in self.nodes)
        return {name: (files_open(pid), resident_bytes(pid)) for name, pid in pids.items()}

    def statuses(self):
        with NatsClient(self.p.nats) as nats:
            info = json.loads(nats.request(
                "$JS.API.STREAM.INFO.KV_trilane_%s_nodes" % self.p.environment))
        return info["state"]["last_seq"]

    def manifests(self):
        """How many versions lie in the bucket."""
        bucket = "trilane_%s_snapshots" % self.p.environment
        with NatsClient(self.p.nats) as nats:
            info = json.loads(nats.request("$JS.API.STREAM.INFO.KV_" + bucket, json.dumps(
                {"subjects_filter": "$KV.%s.manifest.>" % bucket}).encode()))
        return len(info["state"].get("subjects") or {})

    def versions_served(self, node):
        """In the order in which the node said that it serves them; each once."""
        seen = [int(v) for v in re.findall(r"event=state .*?version=(\d+)", node.log())]
        return [v for k, v in enumerate(seen) if v > 0 and (k == 0 or seen[k - 1] != v)]

    def packs(self):
        """Bytes of every node's pack."""
        return [path.stat().st_size for path in self.p.directory.rglob("pack")]

    def applies(self):
        return [node.dump()["snapshot"]["applies"] for node in self.nodes]

    def judge_nodes(self, before, epoch):
        """Each skipped versions, went forward alone, refused nothing, and keeps few in memory."""
        for node, applies in zip(self.nodes, before):
            snapshot = node.dump()["snapshot"]
            self.assertEqual(snapshot["refusals"], 0, snapshot)
            self.assertEqual(snapshot["epoch"], epoch, "one leader all the time")
            wait_until(lambda n=node: n.dump()["snapshot"]["live"] <= 3, 20, "the past to be freed")
            self.assertGreater(snapshot["applies"], applies + 1)
            self.assertLess(snapshot["applies"] - applies, COUNT, "some were skipped")
            versions = self.versions_served(node)
            self.assertGreater(len(versions), 2, node.log()[-2000:])
            self.assertEqual(versions, sorted(set(versions)), "it went back")

    def test_nodes_coalesce_and_nothing_grows(self):
        self.cp("publish", "-m", "one", self.sources[0])
        self.cp("publish", "-m", "two", self.sources[1])
        version, _ = self.storm(FILES_EVERY)  # what is made once is made.
        self.wait_all(version)
        calls = [Calls(node) for node in self.nodes]
        for thread in calls:
            thread.start()
            self.addCleanup(thread.over.set)
        wait_until(lambda: all(thread.done > 20 for thread in calls), 60, "calls that are answered")
        sizes, statuses = self.sizes(), self.statuses()
        epoch = self.nodes[0].dump()["snapshot"]["epoch"]
        fleet_applies, applies = self.fleet.counts()["applies"], self.applies()

        version, seconds = self.storm(COUNT)
        ended = time.monotonic()
        swaps = self.wait_all(version)
        behind = time.monotonic() - ended
        for thread in calls:
            thread.stop()
        counts = self.fleet.counts()
        print("figure: %d publications in %.1f s, %.0f applies by %d nodes and %d by %d under %d "
              "calls; the last one is everywhere after %.1f s; %d versions lie in the bucket" % (
                  COUNT, seconds, counts["applies"] - fleet_applies, LOGICAL,
                  sum(self.applies()) - sum(applies), len(self.nodes),
                  sum(thread.done for thread in calls), behind, self.manifests()))

        self.assertLess(seconds, MINUTE_S)
        self.assertLess(behind, SOON_S)
        self.assertEqual([thread.failed for thread in calls], [[] for _ in calls])
        self.judge_nodes(applies, epoch)
        self.assertEqual(counts["refusals"], 0, counts)
        self.assertLess(counts["applies"] - fleet_applies, COUNT * LOGICAL, "some were skipped")
        wait_until(lambda: self.fleet.counts()["live_snapshots"] <= 3 * LOGICAL, 20,
                   "the past to be freed")
        for node, times in swaps.items():
            by_version = [times[v] for v in sorted(times)]
            self.assertEqual(by_version, sorted(by_version), "%s went back" % node)
        # A status each half second, the heartbeat, and each node's first and last word.
        bound = (LOGICAL + len(self.nodes)) * ((seconds + behind) * 1000 / STATUS_REST_MS + 4)
        self.assertLess(self.statuses() - statuses, bound)
        for name, (files, bytes_) in self.sizes().items():
            self.assertLessEqual(files, sizes[name][0] + 4, "open files of " + name)
            self.assertLess(bytes_, sizes[name][1] * 1.5 + (8 << 20), "memory of " + name)
        self.assertLess(max(self.packs()), 2 << 20)
        wait_until(lambda: self.manifests() <= MANIFESTS_KEPT, 60, "a bucket without the past")


if __name__ == "__main__":
    unittest.main()
