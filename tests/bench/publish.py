"""publish: milliseconds from a planned publication to the last of fifty nodes, for a one-rule change.

10,000 routes and 100,000 rules over 1,000 services; a control plane, nats-server and fifty nodes,
all on this machine. A node is the apply thread of trilane-dp with its own connection, state directory
and status key, ten to a process (bench-nodes); in place of workers a holder adopts at once.

The clock starts when the API's whole request, which names the plan just before, was given to the
kernel, and stops when the last node has swapped; nodes and driver read one clock. Then the
same from the start of `trilane-cp publish` over files of which one was edited, here and on a
platform of 1,000 rules; what a node fetches, also for a change of comments and order alone; and how
many applies a second fifty nodes take while publications follow each other without a pause.

Beside it stand HAProxy and nginx, which reload as many routes, and etcd's watch fan-out.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

import bench
import etcd_peer
import fleet
import large_platform
import reload_peers
import trilane

ROUTES = int(os.environ.get("TRILANE_BENCH_ROUTES", "10000"))
RULES = int(os.environ.get("TRILANE_BENCH_RULES", "100000"))
NODES = int(os.environ.get("TRILANE_BENCH_NODES", "50"))
RUNS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "50"))
PLANNED_SECONDS = 180        # no more planned runs after this, but at least MIN_RUNS.
MIN_RUNS = 5
COMMANDS = max(RUNS // 5, 3)
RELOADS = max(RUNS // 5, 3)
STORM_SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "10"))
SMALL = 1000                 # routes, and rules, of the small platform.
PROCESSES = max(NODES // 10, 1)
CONTROL_PLANE = {"source_cache_bytes": 2 << 30}  # two plans beside the newest publication.
BUNDLE_FRAME = 8 + 6         # of what goes beside a hint, around one key and value: bundle.h.
APPLY_NICE = 10              # of the nodes' apply threads: thread.c.
HINTS = 1000                 # hints a second that a node judges: the storm is past the default.
STEP = re.compile(r"module=(publish|apply) event=step step=(\w+) code=OK .*us=(\d+)")


class Rig:
    """A platform of that size, its control plane and its nodes."""

    def __init__(self, stack, routes, rules):
        self.routes, self.rules = routes, rules
        self.platform = stack.enter_context(trilane.Platform(environment="bench", nats=False))
        for name in fleet.names(NODES):
            self.platform.nats.add_node(name)
        self.platform.nats.start()
        self.cp = self.platform.control_plane(log_level="debug", **CONTROL_PLANE).start()
        trilane.wait_until(self.cp.leads, what="a leader")
        self.nodes = self.start_nodes(stack)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.cp.port, timeout=60)
        stack.callback(self.connection.close)

    def start_nodes(self, stack, **flags):
        flags.setdefault("log_level", "debug")
        return stack.enter_context(fleet.Fleet(self.platform, NODES, PROCESSES,
                                               hints_per_second=HINTS, **flags))

    def body(self, edit, change=None):
        """A request with the sources of an edit, and what 'change' makes of them."""
        files = large_platform.sources(self.routes, edit, self.rules)
        if change:
            change(files)
        return {"files": large_platform.as_json(files)}

    def post(self, path, body):
        """(when all of it was given to the kernel, the answer)."""
        headers = {"Authorization": "Bearer " + self.cp.token(), "Content-Type": "application/json"}
        data = json.dumps(body).encode()
        self.connection.close()
        self.connection.connect()
        self.connection.request("POST", "/api/v1/" + path, data, headers)
        sent_ns = time.monotonic_ns()
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text[:2000]
        return sent_ns, json.loads(text)

    def publish(self, body):
        return self.post("publish", dict(body, message="bench", author="bench"))

    def plan(self, body):
        """What publishes the planned content: its id, where plans have one, else the sources."""
        answer = self.post("plan", body)[1]
        return {"plan": answer["plan"]} if "plan" in answer else body

    def pids(self):
        return {"control_plane": [self.cp.popen.pid], "nats": [self.platform.nats.popen.pid],
                "nodes": self.nodes.pids()}

    def cpu(self):
        return {name: bench.cpu_seconds(pids) for name, pids in self.pids().items()}

    def manifest_bytes(self, record):
        """Size of a version's manifest, as it goes beside the hint under its key."""
        key = "manifest.%d.%s" % (record["version"], record["manifest_digest"])
        with trilane.NatsClient(self.platform.nats) as nats:
            return BUNDLE_FRAME + len(key) + len(nats.get("trilane_bench_snapshots", key))


def last_swap(swaps, version):
    """(first, last) ns at which a node swapped to it; every node must have."""
    at = [versions[version] for versions in swaps.values() if version in versions]
    assert len(at) == NODES, "%d of %d nodes swapped to version %d" % (len(at), NODES, version)
    return min(at), max(at)


# ---- one publication at a time ------------------------------------------------------------------

def publish_planned(rig, edit):
    plan = rig.plan(rig.body(edit))
    bench.rest()
    fetched, cpu = rig.nodes.counts()["fetched_bytes"], rig.cpu()
    sent_ns, answer = rig.publish(plan)
    answered_ns = time.monotonic_ns()
    record = answer["record"]
    first_ns, last_ns = last_swap(rig.nodes.wait(record["version"]), record["version"])
    used = rig.cpu()
    return {"live_ms": (last_ns - sent_ns) / 1e6, "first_ms": (first_ns - sent_ns) / 1e6,
            "answered_ms": (answered_ns - sent_ns) / 1e6,
            "node_bytes": (rig.nodes.counts()["fetched_bytes"] - fetched) / NODES,
            "manifest_bytes": rig.manifest_bytes(record), "raw_bytes": record["raw_size"],
            "cpu_ms": {name: round((used[name] - cpu[name]) * 1000, 1) for name in used}}


def measure_planned(rig):
    rows, end = [], time.monotonic() + PLANNED_SECONDS
    while len(rows) < RUNS and (len(rows) < MIN_RUNS or time.monotonic() < end):
        rows.append(publish_planned(rig, len(rows) + 1))
    return rows


def measure_command(rig, first_edit):
    """From the command's start, over files of which one was edited."""
    rows = []
    for edit in range(first_edit, first_edit + COMMANDS):
        directory = rig.platform.write_policies(
            large_platform.sources(rig.routes, edit, rig.rules))
        bench.rest()
        start_ns = time.monotonic_ns()
        done = subprocess.run(
            [trilane.CP, "publish", "--server", rig.cp.url, "--token-file", str(rig.cp.token_path),
             "--output", "json", "-m", "bench", str(directory)],
            capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        version = json.loads(done.stdout)["record"]["version"]
        _, last_ns = last_swap(rig.nodes.wait(version), version)
        rows.append({"live_ms": (last_ns - start_ns) / 1e6})
    return rows


def comment(files):
    name = "service-%d.yaml" % (len(files) // 3)
    files[name] = "# a comment,\n# of two lines\n" + files[name]


def reorder(files):
    """The documents of a file in another order."""
    name = "service-%d.yaml" % (len(files) // 4)
    documents = files[name].split("---\n")
    files[name] = "---\n".join(documents[:2] + documents[:1:-1])


def measure_same_content(rig, edit):
    """What a node fetches of parts when only places of things change: their positions do."""
    rows = {}
    rig.nodes.wait(rig.publish(dict(rig.body(edit), again=True))[1]["record"]["version"])
    for change in (comment, reorder):
        before = rig.nodes.counts()["fetched_bytes"]
        _, answer = rig.publish(rig.body(edit, change))
        assert answer["same_content"] and not answer["unchanged"], answer
        rig.nodes.wait(answer["record"]["version"])
        fetched = (rig.nodes.counts()["fetched_bytes"] - before) / NODES
        rows[change.__name__] = fetched - rig.manifest_bytes(answer["record"])
    return rows


def step_times(rig, marks):
    """Median ms of each step over all publications and nodes, in the order in which they run."""
    times = {}
    for log in (rig.cp.log()[marks[0]:], rig.nodes.log()[marks[1]:]):
        for module, step, us in STEP.findall(log):
            times.setdefault("%s.%s" % (module, step), []).append(int(us) / 1000)
    return {name: round(bench.spread(values)["median"], 3) for name, values in times.items()}


# ---- one after the other ------------------------------------------------------------------------

def give_way(pid):
    """A program takes the priority of the nodes' apply threads: it is no machine of its own."""
    for thread in os.listdir("/proc/%d/task" % pid):
        os.setpriority(os.PRIO_PROCESS, int(thread), APPLY_NICE)


def measure_storm(rig, sync):
    """Two planned contents by turns, without a pause; nodes skip what they are too late for."""
    with contextlib.ExitStack() as stack:
        nodes = rig.nodes = rig.start_nodes(stack, sync=sync, log_level="warn")
        plans = [rig.plan(rig.body(edit)) for edit in (1000, 1001)]
        version = rig.publish(plans[1])[1]["record"]["version"]
        nodes.wait(version, timeout=120)
        give_way(rig.cp.popen.pid)
        before, cpu, start, publications = nodes.counts(), rig.cpu(), time.monotonic(), 0
        while time.monotonic() < start + STORM_SECONDS:
            plan = dict(plans[publications % 2], base=version)
            version = rig.publish(plan)[1]["record"]["version"]
            publications += 1
        seconds, after, used = time.monotonic() - start, nodes.counts(), rig.cpu()
        nodes.wait(version)
        assert nodes.counts()["refusals"] == 0, nodes.counts()
        applies = after["applies"] - before["applies"]
        return {"applies_per_s": applies / seconds, "publications_per_s": publications / seconds,
                "cores": {name: round((used[name] - cpu[name]) / seconds, 2) for name in used}}


# ---- report -------------------------------------------------------------------------------------

def measure_large():
    with contextlib.ExitStack() as stack:
        rig = Rig(stack, ROUTES, RULES)
        rig.nodes.wait(rig.publish(rig.body(0))[1]["record"]["version"], timeout=120)
        marks = len(rig.cp.log()), len(rig.nodes.log())
        planned = measure_planned(rig)
        steps = step_times(rig, marks)
        edited = measure_command(rig, len(planned) + 1)
        same = measure_same_content(rig, len(planned) + COMMANDS)
        rig.nodes.stop()
        storms = {name: measure_storm(rig, sync) for name, sync in (("synced", True),
                                                                   ("unsynced", False))}
        return planned, edited, same, storms, steps


def measure_small():
    with contextlib.ExitStack() as stack:
        rig = Rig(stack, SMALL, SMALL)
        rig.nodes.wait(rig.publish(rig.body(0))[1]["record"]["version"])
        return measure_command(rig, 1)


def measure_peers():
    with tempfile.TemporaryDirectory() as directory:
        rows = {name: reload_peers.measure(name, ROUTES, RELOADS, pathlib.Path(directory),
                                           callers=True) for name in reload_peers.PEERS}
        rows["etcd"] = etcd_peer.measure(pathlib.Path(directory), NODES, RUNS, value_bytes=128)
        return rows


def row_of(rows):
    values = [row["live_ms"] for row in rows]
    return dict(bench.spread(values), p50_ms=bench.percentile(values, 50),
                p99_ms=bench.percentile(values, 99))


def goals(ours):
    return {"p50_ms": (ours["p50_ms"], 50, "<="), "p99_ms": (ours["p99_ms"], 250, "<="),
            "edited_p50_ms": (ours["edited_p50_ms"], 2500, "<="),
            "small_edited_p50_ms": (ours["small_edited_p50_ms"], 150, "<="),
            "applies_per_s": (ours["applies_per_s"], 600, ">="),
            "applies_per_s_unsynced": (ours["applies_per_s_unsynced"], 2500, ">="),
            "delta_bytes": (ours["delta_bytes"], 24 << 10, "<="),
            "comment_bytes": (ours["comment_bytes"], 0, "<="),
            "reorder_bytes": (ours["reorder_bytes"], 0, "<=")}


def main():
    quiet = bench.Quiet()
    rows = measure_peers()
    planned, edited, same, storms, steps = measure_large()
    small = measure_small()
    ours = row_of(planned)
    ours.update({
        "applies_per_s": storms["synced"]["applies_per_s"],
        "applies_per_s_unsynced": storms["unsynced"]["applies_per_s"],
        "delta_bytes": bench.spread([row["node_bytes"] for row in planned])["median"],
        "comment_bytes": same["comment"], "reorder_bytes": same["reorder"],
        "edited_p50_ms": row_of(edited)["p50_ms"], "edited_max_ms": row_of(edited)["max"],
        "small_edited_p50_ms": row_of(small)["p50_ms"], "small_edited_max_ms": row_of(small)["max"],
    })
    peers = {name: row_of(rows[name]) for name in rows}
    for name in reload_peers.PEERS:
        peers[name]["calls_lost"] = sum(row["lost"] for row in rows[name])
        peers[name]["calls"] = sum(row["calls"] for row in rows[name])
    ratio = {name: peers[name]["median"] / ours["median"] for name in peers}
    state = quiet.report()
    bench.write("publish", "ms", "lower", len(planned), ours, peers, ratio, {
        "routes": ROUTES, "rules": RULES, "nodes": NODES, "node_processes": PROCESSES,
        "snapshot_bytes": planned[-1]["raw_bytes"], "hints_per_second": HINTS,
        "change": "one rule", "commands": COMMANDS, "reloads": RELOADS, "storms": storms,
        "steps_ms": steps, "machine": state,
        "all": dict(rows, trilane=planned, edited=edited, small_edited=small)}, goals(ours))
    print("p50 %.1f ms, p99 %.1f ms; %d bytes a node; edited files: %.0f ms, of %d rules %.0f ms" % (
        ours["p50_ms"], ours["p99_ms"], ours["delta_bytes"], ours["edited_p50_ms"], SMALL,
        ours["small_edited_p50_ms"]))
    print("applies a second: %.0f, unsynced %.0f; bytes of parts for a comment %d, for an order %d" % (
        ours["applies_per_s"], ours["applies_per_s_unsynced"], ours["comment_bytes"],
        ours["reorder_bytes"]))
    print("steps, ms: " + ", ".join("%s %.2f" % item for item in steps.items() if item[1] >= 0.1))
    bench.warn([state])


if __name__ == "__main__":
    main()
