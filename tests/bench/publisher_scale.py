"""publisher-scale: what a publication costs the control plane at 10 and at 5,000 listening nodes.

CPU, bytes to NATS and memory of the process trilane-cp alone. A node is the apply thread of
trilane-dp: it hears each head, verifies it, fetches, verifies, builds and persists each version; many
share a connection, and a holder stands in place of workers. Each count of nodes has a control plane,
a NATS and a database of its own, new each round; the same publications are done at both.

First no node says its status: what is left is what listening costs. Then as many nodes say theirs,
and the table of them is weighed.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import time

import bench
import fleet
import large_platform
import trilane

FEW = 10
MANY = int(os.environ.get("TRILANE_BENCH_NODES", "5000"))
ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "3"))
PUBLICATIONS = 10
ROUTES = 100                # and as many rules: a publication's own work is small, growth shows.
CONNECTIONS = 10            # of a process, which its nodes share.
PROCESS_NODES = 1250
SETTLE_SECONDS = 4.0
LEASE_MS = 10000            # NATS has 5,000 nodes to serve on the cores of everybody else.
NICE = 19                   # elsewhere they have machines of their own.


class Rig:
    def __init__(self, stack, count, silent):
        self.count = count
        self.platform = stack.enter_context(trilane.Platform(environment="bench"))
        self.cp = self.platform.control_plane(lease_ms=LEASE_MS).start()
        trilane.wait_until(self.cp.leads, what="a leader")
        self.nodes = stack.enter_context(fleet.Fleet(
            self.platform, count, -(-count // PROCESS_NODES), user="admin", silent=silent,
            connections=min(CONNECTIONS, count), sync=False, nice=NICE))
        self.connection = http.client.HTTPConnection("127.0.0.1", self.cp.port, timeout=60)
        stack.callback(self.connection.close)

    def publish(self, edit):
        files = large_platform.as_json(large_platform.sources(ROUTES, edit))
        self.connection.request(
            "POST", "/api/v1/publish", json.dumps({"files": files, "message": "bench"}),
            {"Authorization": "Bearer " + self.cp.token(), "Content-Type": "application/json"})
        answer = self.connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)["record"]["version"]

    def bytes_out(self):
        """What the control plane has sent to NATS, by the kernel's own count of its connections."""
        lines = subprocess.run(
            ["ss", "-tinpHO", "dport = :%d" % self.platform.nats.port], capture_output=True,
            text=True, check=True).stdout.splitlines()
        own = [line for line in lines if "pid=%d," % self.cp.popen.pid in line]
        assert own, lines
        return sum(int(re.search(r"bytes_sent:(\d+)", line).group(1)) for line in own)

    def memory(self):
        """Bytes that the process wrote. Program text is the same for any number of nodes, and how
        much of it falls to whom depends on who else runs."""
        text = pathlib.Path("/proc/%d/smaps_rollup" % self.cp.popen.pid).read_text()
        return int(re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE).group(1)) * 1024

    def cost(self, act):
        """(CPU seconds, bytes to NATS) of the control plane while act() runs."""
        cpu, sent = bench.cpu_seconds([self.cp.popen.pid]), self.bytes_out()
        act()
        return bench.cpu_seconds([self.cp.popen.pid]) - cpu, self.bytes_out() - sent


def settle():
    time.sleep(SETTLE_SECONDS)


def measure_listening(count):
    """A publication's cost, heads that go out meanwhile taken off, and how long nodes take for it."""
    with contextlib.ExitStack() as stack:
        rig = Rig(stack, count, silent=True)
        rig.nodes.wait(rig.publish(0), timeout=120)
        rig.nodes.wait(rig.publish(1), timeout=120)
        settle()
        took = []

        def publish_all():
            for edit in range(2, PUBLICATIONS + 2):
                start_ns = time.monotonic_ns()
                version = rig.publish(edit)
                swaps = rig.nodes.wait(version, timeout=120)
                took.append((max(one[version] for one in swaps.values()) - start_ns) / 1e6)

        start = time.monotonic()
        cpu_s, sent = rig.cost(publish_all)
        busy_s = time.monotonic() - start
        idle_cpu_s, idle_sent = rig.cost(settle)
        idle = busy_s / SETTLE_SECONDS
        return {"nodes": count, "cpu_ms": (cpu_s - idle_cpu_s * idle) * 1000 / PUBLICATIONS,
                "bytes_out": (sent - idle_sent * idle) / PUBLICATIONS, "memory_bytes": rig.memory(),
                # Of a machine that is too busy for NATS to answer in time; all served each version.
                "refusals": rig.nodes.counts()["refusals"],
                "idle_cpu_ms_per_s": idle_cpu_s * 1000 / SETTLE_SECONDS,
                "last_swap_p50_ms": bench.percentile(took, 50)}


def measure_statuses(count):
    """Memory of the control plane before and after so many nodes said theirs, and what that costs."""
    with contextlib.ExitStack() as stack:
        rig = Rig(stack, FEW, silent=True)
        for edit in range(PUBLICATIONS + 2):
            version = rig.publish(edit)
        rig.nodes.wait(version)
        before = rig.memory()
        nodes = stack.enter_context(fleet.Fleet(
            rig.platform, count, -(-count // PROCESS_NODES), user="admin",
            connections=min(CONNECTIONS, count), sync=False, nice=NICE))
        nodes.wait(version, timeout=180)
        trilane.wait_until(lambda: rig.cp.metric("trilane_nodes_live") == count, timeout=60,
                           what="every node's status", step=0.5)
        after = rig.memory()
        settle()
        cpu_s, _ = rig.cost(settle)
        return {"nodes": count, "bytes_each": (after - before) / count,
                "heartbeats_cpu_ms_per_s": cpu_s * 1000 / SETTLE_SECONDS}


# ---- report -------------------------------------------------------------------------------------

def median(rows, key):
    return bench.spread([row[key] for row in rows])["median"]


def goals(ours):
    growth = ours["growth"]
    return {"growth.cpu_ms": (growth["cpu_ms"], 1.15, "<="),
            "growth.bytes_out": (growth["bytes_out"], 1.05, "<="),
            "growth.memory_bytes": (growth["memory_bytes"], 1.05, "<="),
            "status_bytes": (ours["status_bytes"], 1024, "<=")}


def main():
    quiet, rows = bench.Quiet(), {FEW: [], MANY: []}
    for _ in range(ROUNDS):
        for count in bench.shuffled(rows):
            rows[count].append(measure_listening(count))
    statuses = measure_statuses(MANY)
    ours = bench.spread([row["cpu_ms"] for row in rows[MANY]])
    ours["growth"] = {key: median(rows[MANY], key) / median(rows[FEW], key)
                      for key in ("cpu_ms", "bytes_out", "memory_bytes")}
    for key in ("bytes_out", "memory_bytes", "last_swap_p50_ms"):
        ours[key] = median(rows[MANY], key)
    ours["status_bytes"] = statuses["bytes_each"]
    few = {"few": dict(bench.spread([row["cpu_ms"] for row in rows[FEW]]), nodes=FEW,
                       bytes_out=median(rows[FEW], "bytes_out"),
                       memory_bytes=median(rows[FEW], "memory_bytes"),
                       last_swap_p50_ms=median(rows[FEW], "last_swap_p50_ms"))}
    state = quiet.report()
    bench.write("publisher-scale", "ms", "lower", ROUNDS, ours, {}, {}, {
        "nodes": MANY, "routes": ROUTES, "rules": ROUTES, "publications": PUBLICATIONS,
        "connections": CONNECTIONS * -(-MANY // PROCESS_NODES), "few": few["few"],
        "statuses": statuses, "machine": state,
        "all": {str(count): rows[count] for count in rows}}, goals(ours))
    print("growth from %d to %d nodes: CPU %.2f, bytes %.2f, memory %.2f; a status takes %d bytes"
          % (FEW, MANY, ours["growth"]["cpu_ms"], ours["growth"]["bytes_out"],
             ours["growth"]["memory_bytes"], ours["status_bytes"]))
    bench.warn([state])


if __name__ == "__main__":
    main()
