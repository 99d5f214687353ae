"""apply: milliseconds from a publish request to the node that serves it, for a one-rule change.

1,000 routes and 1,000 rules over 100 services; a control plane, nats-server and one node, all real,
on this machine, as in a release. The clock starts before the first byte of the API's request is
sent, sources included, and stops when the node's last worker has adopted the version: the node says
when, by the same monotonic clock (/dump, served_since_mono_ns). Every version's content digest is
compared with what was published. Then the same from the start of `trilane-cp publish`.

Beside it stand HAProxy and nginx with as many routes and rules: from the reload signal to the first
answer of the new configuration. Their file lies ready on the disk of the very machine: no check, no
signature, no journal, no transport is in their time.
"""

import http.client
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

import bench
import large_platform
import reload_peers
import trilane

ROUTES = int(os.environ.get("TRILANE_BENCH_ROUTES", "1000"))
RUNS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "50"))
COMMANDS = max(RUNS // 5, 3)
RELOADS = max(RUNS // 5, 3)
STEP = re.compile(r"module=(publish|apply) event=step step=(\w+) code=OK .*us=(\d+)")


# ---- Trilane ------------------------------------------------------------------------------------

class Live:
    """When the node served a version, as it says itself."""

    def __init__(self, node):
        self.node = node

    def fetched(self):
        return self.node.metric("trilane_snapshot_fetched_bytes_total")

    def wait(self, version):
        def served():
            dump = self.node.dump()
            assert dump["snapshot"]["refusals"] == 0, dump
            snapshot = dump["snapshot"]
            return dump["version"] == version and snapshot["served_since_mono_ns"] and snapshot
        return trilane.wait_until(served, what="version %d" % version, step=0.01)


def publish_by_api(cp, connection, edit):
    """Sends a change; (its start, the answer)."""
    files = large_platform.as_json(large_platform.sources(ROUTES, edit))
    body = json.dumps({"files": files, "message": "edit %d" % edit, "author": "bench"})
    headers = {"Authorization": "Bearer " + cp.token(), "Content-Type": "application/json"}
    connection.connect()
    start_ns = time.monotonic_ns()
    connection.request("POST", "/api/v1/publish", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    return start_ns, json.loads(text)


def publish_by_command(cp, directory):
    argv = [trilane.CP, "publish", "--server", cp.url, "--token-file", str(cp.data / "token"),
            "--output", "json", "-m", "bench", str(directory)]
    start_ns = time.monotonic_ns()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    end_ns = time.monotonic_ns()
    assert done.returncode == 0, done.stderr
    return start_ns, end_ns, json.loads(done.stdout)


def check_content(snapshot, answer):
    assert snapshot["content_digest"] == answer["record"]["content_digest"], (snapshot, answer)


def measure_api(cp, live):
    """[{live_ms, bytes, parts_built}] of as many changes."""
    connection = http.client.HTTPConnection("127.0.0.1", cp.port, timeout=30)
    rows = []
    for edit in range(1, RUNS + 1):
        bench.rest()
        before = live.fetched()
        start_ns, answer = publish_by_api(cp, connection, edit)
        snapshot = live.wait(answer["record"]["version"])
        check_content(snapshot, answer)
        rows.append({"live_ms": (snapshot["served_since_mono_ns"] - start_ns) / 1e6,
                     "bytes": live.fetched() - before,
                     "parts_built": snapshot["parts_built"]})
        connection.close()
    return rows


def measure_command(platform, cp, live):
    rows = []
    for edit in range(RUNS + 1, RUNS + 1 + COMMANDS):
        directory = platform.write_policies(large_platform.sources(ROUTES, edit))
        bench.rest()
        start_ns, end_ns, answer = publish_by_command(cp, directory)
        snapshot = live.wait(answer["record"]["version"])
        check_content(snapshot, answer)
        rows.append({"live_ms": (snapshot["served_since_mono_ns"] - start_ns) / 1e6,
                     "command_ms": (end_ns - start_ns) / 1e6})
    return rows


def step_times(*logs):
    """Median ms of each step over all publishes, in the order in which they run."""
    times = {}
    for log in logs:
        for module, step, us in STEP.findall(log):
            times.setdefault("%s.%s" % (module, step), []).append(int(us) / 1000)
    return {name: round(bench.spread(values)["median"], 3) for name, values in times.items()
            if len(values) >= RUNS}


def measure_trilane():
    with trilane.Platform(environment="bench") as platform:
        # Some twenty lines a publish: their cost is below what can be measured here.
        cp = platform.control_plane(**{"log-level": "debug"}).start()
        node = platform.node("bench-1", **{"log-level": "debug"}).start()
        live = Live(node)
        cp("publish", "-m", "first",
           platform.write_policies(large_platform.sources(ROUTES)))
        live.wait(1)
        marks = len(cp.log()), len(node.log())
        api = measure_api(cp, live)
        steps = step_times(cp.log()[marks[0]:], node.log()[marks[1]:])
        return api, measure_command(platform, cp, live), steps


# ---- report -------------------------------------------------------------------------------------

def row_of(rows, key="live_ms"):
    values = [row[key] for row in rows]
    return dict(bench.spread(values), p50_ms=bench.percentile(values, 50),
                p99_ms=bench.percentile(values, 99))


def main():
    quiet = bench.Quiet()
    with tempfile.TemporaryDirectory() as directory:
        rows = {name: reload_peers.measure(name, ROUTES, RELOADS, pathlib.Path(directory))
                for name in reload_peers.PEERS}
    rows["trilane"], command, steps = measure_trilane()
    ours = row_of(rows["trilane"])
    ours["delta_bytes"] = bench.spread([row["bytes"] for row in rows["trilane"]])["median"]
    ours["command_p50_ms"] = row_of(command)["p50_ms"]
    ours["command_p99_ms"] = row_of(command)["p99_ms"]
    peers = {name: row_of(rows[name]) for name in reload_peers.PEERS}
    ratio = {name: peers[name]["median"] / ours["median"] for name in reload_peers.PEERS}
    state = quiet.report()
    bench.write("apply", "ms", "lower", RUNS, ours, peers, ratio, {
        "routes": ROUTES, "rules": ROUTES, "change": "one rule", "commands": COMMANDS,
        "reloads": RELOADS, "steps_ms": steps, "machine": state,
        "all": dict(rows, command=command)})
    print("p50 %.1f ms, p99 %.1f ms; %d bytes fetched by the node; from the command's start: "
          "p50 %.1f ms, p99 %.1f ms" % (ours["p50_ms"], ours["p99_ms"], ours["delta_bytes"],
                                        ours["command_p50_ms"], ours["command_p99_ms"]))
    bench.warn([state])
    print("steps, ms: " + ", ".join("%s %.2f" % item for item in steps.items() if item[1] >= 0.1))


if __name__ == "__main__":
    main()
