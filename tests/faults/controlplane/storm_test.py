"""Publications that follow each other faster than nodes take them: 1,000 in a minute (--long), fewer
otherwise. Nodes skip what is past, all end on the newest, nothing is refused, and nothing grows."""

import http.client
import json
import os
import pathlib
import re
import shutil
import time
import unittest

import fleet
import trilane
from trilane import NatsClient, Platform, wait_until

COUNT = 1000 if os.environ.get("TRILANE_TEST_LONG") else 60
LOGICAL = 8
STATUS_REST_MS = 500
QUARANTINE = "quarantine_size_mb=4:thread_local_quarantine_size_kb=64"


def files_open(pid):
    return len(list(pathlib.Path("/proc/%d/fd" % pid).iterdir()))


def resident_bytes(pid):
    for line in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Storm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform(nats=False)
        cls.addClassCleanup(cls.p.close)
        names = fleet.names(LOGICAL)
        for name in names:
            cls.p.nats.add_node(name)
        cls.p.nats.start()
        # A row that would run out many times, if who publishes all the time did not renew it.
        cls.cp = cls.p.control_plane()
        cls.nodes = [cls.p.node("real-%d" % k, workers=2) for k in range(2)]
        for program in [cls.cp] + cls.nodes:  # what is freed shall not look as if it were kept.
            program.env["ASAN_OPTIONS"] = QUARANTINE
        cls.cp.start(lease_ms=600)
        wait_until(cls.cp.leads, 10, "a leader")
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
        for _ in range(count):
            version = self.go_back_to(version - 1)
        return version, time.monotonic() - start

    def wait_all(self, version):
        swaps = self.fleet.wait(version)
        for node in self.nodes:
            wait_until(lambda n=node: n.version() == version, 20, "the newest at " + node.node_id)
        return swaps

    def sizes(self):
        pids = {"cp": self.cp.popen.pid, "fleet": self.fleet.pids()[0]}
        pids.update((node.node_id, node.popen.pid) for node in self.nodes)
        return {name: (files_open(pid), resident_bytes(pid)) for name, pid in pids.items()}

    def statuses(self):
        with NatsClient(self.p.nats) as nats:
            info = json.loads(nats.request("$JS.API.STREAM.INFO.KV_trilane_demo_nodes"))
        return info["state"]["last_seq"]

    def packs(self):
        """Bytes of every node's pack."""
        return [path.stat().st_size for path in self.p.directory.rglob("pack")]

    def test_nodes_coalesce_and_nothing_grows(self):
        self.cp("publish", "-m", "one", trilane.POLICIES)
        shutil.copytree(trilane.POLICIES, self.p.policies)
        limits = self.p.policies / "acme" / "limits.yaml"
        limits.write_text(re.sub(r"rate: \d+/s", "rate: 77/s", limits.read_text(), count=1))
        self.cp("publish", "-m", "two", self.p.policies)
        version, _ = self.storm(20)  # what is made once is made.
        self.wait_all(version)
        sizes, statuses, epoch = self.sizes(), self.statuses(), self.nodes[0].dump()["snapshot"]["epoch"]
        applies = self.fleet.counts()["applies"]

        version, seconds = self.storm(COUNT)
        self.wait_all(version)
        print("figure: %d publications in %.1f s, %.0f applies by %d nodes" % (
            COUNT, seconds, self.fleet.counts()["applies"] - applies, LOGICAL))

        counts = self.fleet.counts()
        self.assertEqual(counts["refusals"], 0, counts)
        self.assertLess(counts["applies"] - applies, COUNT * LOGICAL, "some were skipped")
        for node in self.nodes:
            self.assertEqual(node.dump()["snapshot"]["refusals"], 0)
            self.assertEqual(node.dump()["snapshot"]["epoch"], epoch, "one leader all the time")
            self.assertLessEqual(node.dump()["snapshot"]["live"], 3)
        self.assertLessEqual(counts["live_snapshots"], 3 * LOGICAL)
        # A status each half second, the heartbeat, and each node's first and last word.
        bound = (LOGICAL + len(self.nodes)) * (seconds * 1000 / STATUS_REST_MS + 4)
        self.assertLess(self.statuses() - statuses, bound)
        for name, (files, bytes_) in self.sizes().items():
            self.assertLessEqual(files, sizes[name][0] + 4, "open files of " + name)
            self.assertLess(bytes_, sizes[name][1] * 1.5 + (8 << 20), "memory of " + name)
        self.assertLess(max(self.packs()), 2 << 20)


if __name__ == "__main__":
    unittest.main()
