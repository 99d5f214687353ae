"""swap: microseconds of the longest turn of a worker's loop that was spent on a swap, by the clock;
beside it by the worker's own CPU time, which nobody else on the core can make longer.

100 swaps a second for a minute in all, between two versions that differ in one rule of 1,000, while
the node answers half of what it can. Each round a node starts, answers for a while in peace, then
for as long under swaps: p99 of both. A real node follows a publisher (bench-snapshot) that signs a
manifest and a head each 10 ms. Every line of the access log is held against its version: the rule
that decided must be that version's own.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

import bench
import large_platform
import operator_unary
import trilane

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "10"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "6"))
SWAPS_PER_SECOND = 100
RULES = 1000
RATE_MAX = 30000  # what the generator can be late for no more than the node.
LEAD_SECONDS = 1  # swaps go on so much longer than what is measured.

# Lines, and those of them whose rule is not their version's: "rule-<version mod 2>".
JUDGE = r"""
{ lines++
  if (match($0, / version=[0-9]+/)) { version = substr($0, RSTART + 9, RLENGTH - 9); seen[version] }
  else { broken++; next }
  if (index($0, " rule=bench/echo/rule-" (version % 2) " ") == 0) mixed++ }
END { for (v in seen) versions++
  printf "{\"lines\": %d, \"mixed\": %d, \"broken\": %d, \"versions\": %d}\n",
         lines, mixed, broken, versions }
"""


def write_content(directory, upstream, turn):
    """1,000 rules; the one that decides about the load has another name in each of the two."""
    files = large_platform.sources(RULES, rules=RULES)
    files["environment.yaml"] = files["environment.yaml"].replace("name: bench", "name: test")
    platform = (bench.BENCH / "platform" / "platform.yaml").read_text().replace(
        "UPSTREAM", str(upstream))
    files["echo.yaml"] = platform.split("---\n", 1)[1].replace("gold-may-echo", "rule-%d" % turn)
    own = directory / ("content-%d" % turn)
    own.mkdir()
    for name, text in files.items():
        (own / name).write_text(text)
    return own


class Publisher:
    """Swaps in windows; its trust root is the node's."""

    def __init__(self, stack, platform, directory, contents):
        self.root = directory / "root"
        argv = [trilane.BUILD / "bench-snapshot", "swap", platform.nats.url("cp"), self.root,
                contents[0], contents[1], SWAPS_PER_SECOND, int(SECONDS) + LEAD_SECONDS]
        self.popen = subprocess.Popen(
            bench.pinned(bench.LOAD_CORE, [str(a) for a in argv]), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(self.stop)
        assert self.popen.stdout.readline() == "ready\n"

    def begin(self):
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def wait(self):
        return json.loads(self.popen.stdout.readline())

    def stop(self):
        self.popen.stdin.close()
        self.popen.wait(20)


class Judge:
    """Reads the access log while it is written, and says what of it mixed versions."""

    def __init__(self, stack, directory, number):
        self.path = directory / ("access-%d" % number)
        os.mkfifo(self.path)
        self.popen = subprocess.Popen(
            bench.pinned(bench.LOAD_CORE, ["mawk", JUDGE, str(self.path)]),
            stdout=subprocess.PIPE, text=True)
        stack.callback(self.popen.kill)

    def result(self):
        out, _ = self.popen.communicate(timeout=60)
        return json.loads(out)


def load(node, echo_pid, body_bytes, rate):
    got = bench.load(node.ports["listen"], rate, operator_unary.PATH, SECONDS,
                     headers=(operator_unary.TOKEN, operator_unary.TRACE),
                     watch=[node.popen.pid], helpers=[echo_pid], body_bytes=body_bytes)
    assert got is not None, "a connection was lost"
    return got


def one_round(stack, platform, publisher, directory, echo_pid, number, rate):
    judge = Judge(stack, directory, number)
    node = platform.node("bench-%d" % number, **{
        "workers": 1, "access-log": judge.path, "trust-root": publisher.root,
        "hints-per-second": 1000})
    node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
    node.start()
    stack.callback(node.stop)
    trilane.wait_until(lambda: node.version() >= 2, what="the node to serve")
    if rate is None:
        rate = half_load(node)
    still = load(node, echo_pid, operator_unary.BODY_BYTES, rate)
    applies = node.dump()["snapshot"]["applies"]
    publisher.begin()
    time.sleep(LEAD_SECONDS / 2)
    swapped = load(node, echo_pid, operator_unary.BODY_BYTES, rate)
    published = publisher.wait()
    snapshot = node.dump()["snapshot"]
    dropped = node.dump()["load"]["log_dropped"]
    assert node.stop() == 0, node.log()[-3000:]
    return rate, {"still": still, "swapped": swapped, "published": published,
                  "applies": snapshot["applies"] - applies, "refusals": snapshot["refusals"],
                  "turn_us": snapshot["turn_us"], "turn_cpu_us": snapshot["turn_cpu_us"],
                  "log_dropped": dropped,
                  "judged": judge.result()}


def half_load(node):
    """Half of what the node answers when it is kept busy."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0\0\0\0" + bytes([operator_unary.BODY_BYTES])
                   + b"x" * operator_unary.BODY_BYTES)
        body.flush()
        got = bench.saturate(node.ports["listen"], operator_unary.PATH, 60000, body.name,
                             headers=(operator_unary.TOKEN, operator_unary.TRACE,
                                      "content-type: application/grpc", "te: trailers"),
                             watch=[node.popen.pid])
    assert got, "the node did not answer"
    return min(int(got["answers_per_s"] / 2), RATE_MAX)


def measure():
    rows, rate = [], None
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        platform = stack.enter_context(trilane.Platform(environment="test"))
        upstream = trilane.free_port()
        echo = trilane.Process("echo", directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(upstream)]))
        echo_pid = bench.start(stack, echo, upstream)
        contents = [write_content(directory, upstream, turn) for turn in (0, 1)]
        publisher = Publisher(stack, platform, directory, contents)
        for number in range(ROUNDS):
            rate, row = one_round(stack, platform, publisher, directory, echo_pid, number, rate)
            rows.append(row)
    return rate, rows


def main():
    quiet = bench.Quiet()
    rate, rows = measure()
    state = quiet.report()
    row = bench.spread([r["turn_us"]["longest"] for r in rows])
    for kind, suffix in (("turn_us", "us"), ("turn_cpu_us", "cpu_us")):
        row["longest_" + suffix] = max(r[kind]["longest"] for r in rows)
        row["p99_9_" + suffix] = max(r[kind]["p99_9"] for r in rows)
        row["median_" + suffix] = bench.spread([r[kind]["median"] for r in rows])["median"]
    row["swaps"] = sum(r["applies"] for r in rows)
    row["swaps_per_s"] = round(row["swaps"] / sum(r["published"]["seconds"] for r in rows), 1)
    row["decisions"] = sum(r["judged"]["lines"] for r in rows)
    row["mixed"] = sum(r["judged"]["mixed"] + r["judged"]["broken"] for r in rows)
    row["errors"] = sum(r["swapped"]["errors"] for r in rows)
    row["p99_us"] = bench.spread([r["swapped"]["p99_us"] for r in rows])["median"]
    off = bench.spread([r["still"]["p99_us"] for r in rows])
    row["p99_growth"] = round(row["p99_us"] / off["median"], 3)
    bench.write("swap", "us", "lower", ROUNDS, row, {"off": {"p99_us": off["median"]}}, {}, {
        "rules": RULES, "rate": rate, "swaps_per_second": SWAPS_PER_SECOND, "machine": state,
        "all": rows})
    print("turns: longest %.1f us by the clock, %.1f us of CPU; p99.9 %.1f and %.1f us; median %.1f "
          "and %.1f us" % tuple(row[figure + suffix] for figure in ("longest_", "p99_9_", "median_")
                                for suffix in ("us", "cpu_us")))
    print("%d swaps (%.1f/s), %d decisions, %d of them mixed, %d errors; p99 %.0f us, without "
          "swaps %.0f us: %.3f" % (row["swaps"], row["swaps_per_s"], row["decisions"],
                                   row["mixed"], row["errors"], row["p99_us"], off["median"],
                                   row["p99_growth"]))
    bench.warn([state])


if __name__ == "__main__":
    main()
