"""swap: microseconds of the longest turn of a worker's loop that was spent on a swap, by the clock;
beside it by the worker's own CPU time, which no other thread on the core can make longer. The control
is turns of the same loop that have nothing to do with swaps, about as many and as long: those that
take a request, of one in 256. What the machine adds to a turn, it adds to these.

100 swaps a second for a minute in all, between two versions that differ in one rule of 1,000, while
the node is half busy. A real node follows a publisher (bench-snapshot) that signs a
manifest and a head each 10 ms. Every line of the access log is held against its version: the rule
that decided must be that version's own.

p99 of requests is compared in slices of some seconds, in random order within a round:

  still       nothing is published
  elsewhere   100 publications a second for an environment that no node is of: what publisher and
              NATS take of this machine, and no swap
  here        the same for the node's: swaps
  thread      as elsewhere, and a process on the node's core that works as long for each of them as
              the node's apply thread does for a swap, with its scheduling: any other work
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import bench
import large_platform
import operator_rounds
import trilane

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "20"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "3"))
KINDS = ("still", "elsewhere", "here", "thread")
SWAPS_PER_SECOND = 100
RULES = 1000
RATE_FIRST = 20000
RATE_TRIES = 3
LEAD_SECONDS = 1  # publications go on so much longer than what is measured.
APPLY_US = 600    # of CPU for a swap, until it was measured.

DECIDED = re.compile(r" rule=bench/echo/rule-(\d) .* version=(\d+) ")

# Works for so many microseconds each 10 ms.
BUSY = r"""
import sys, time
while True:
    until = time.thread_time_ns() + int(sys.argv[1]) * 1000
    while time.thread_time_ns() < until:
        pass
    time.sleep(0.01)
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


def leftover(argv):
    """A command that has of the load's core what generator and upstream leave: it stands for
    programs that run on other machines."""
    return bench.pinned(bench.LOAD_CORE, ["chrt", "--idle", "0"] + [str(a) for a in argv])


class Publisher:
    """Publishes in windows; its trust root is the node's."""

    def __init__(self, stack, platform, directory, contents):
        self.root = directory / "root"
        self.popen = subprocess.Popen(
            leftover([trilane.BUILD / "bench-snapshot", "swap", platform.nats.url("admin"),
                      self.root, contents[0], contents[1], SWAPS_PER_SECOND,
                      int(SECONDS) + LEAD_SECONDS]),
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(self.stop)
        assert self.popen.stdout.readline() == "ready\n"

    def begin(self, place):
        self.popen.stdin.write(place + "\n")
        self.popen.stdin.flush()

    def wait(self):
        return json.loads(self.popen.stdout.readline())

    def stop(self):
        self.popen.stdin.close()
        self.popen.wait(20)


def judge(path):
    """The lines of an access log, those that say no version, and those whose rule is not their
    version's: "rule-<version mod 2>". The log is read when nothing is measured."""
    lines = mixed = broken = 0
    versions = set()
    with open(path, encoding="ascii") as file:
        for line in file:
            lines += 1
            found = DECIDED.search(line)
            if found is None:
                broken += 1
                continue
            versions.add(found[2])
            mixed += int(found[1]) != int(found[2]) % 2
    path.unlink()
    return {"lines": lines, "mixed": mixed, "broken": broken, "versions": len(versions)}


def apply_seconds(pid):
    """Of CPU, by the node's apply thread so far."""
    for task in pathlib.Path("/proc/%d/task" % pid).iterdir():
        if (task / "comm").read_text() == "apply\n":
            return int((task / "schedstat").read_text().split()[0]) / 1e9
    raise AssertionError("the node has no apply thread")


def start_thread(stack, us):
    """The other work: see above."""
    popen = subprocess.Popen(bench.pinned(bench.PROGRAM_CORE, [
        "nice", "-n", "10", "chrt", "--batch", "0", sys.executable, "-c", BUSY, str(int(us))]))
    stack.callback(popen.wait)
    stack.callback(popen.kill)


def load(node, echo_pid, rate, seconds):
    got = bench.load(node.ports["listen"], rate, operator_rounds.PATH, seconds,
                     headers=(operator_rounds.TOKEN, operator_rounds.TRACE),
                     watch=[node.popen.pid], helpers=[echo_pid],
                     body_bytes=operator_rounds.BODY_BYTES)
    assert got is not None, "a connection was lost"
    return got


def one_slice(kind, node, publisher, echo_pid, rate, apply_us):
    """The load's figures, with the CPU of the apply thread and what was published meanwhile."""
    with contextlib.ExitStack() as stack:
        if kind != "still":
            publisher.begin("here" if kind == "here" else "elsewhere")
            time.sleep(LEAD_SECONDS / 2)
        if kind == "thread":
            start_thread(stack, apply_us)
        worked, from_s = apply_seconds(node.popen.pid), time.monotonic()
        got = load(node, echo_pid, rate, SECONDS)
        got["apply_cores"] = (apply_seconds(node.popen.pid) - worked) / (time.monotonic() - from_s)
    if kind != "still":
        got["published"] = publisher.wait()
    return got


def one_round(stack, platform, publisher, directory, echo_pid, number, state):
    log = directory / ("access-%d" % number)
    node = platform.node("bench-%d" % number, **{
        "workers": 1, "access-log": log, "trust-root": publisher.root, "hints-per-second": 1000})
    node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
    node.start()
    stack.callback(node.stop)
    trilane.wait_until(lambda: node.version() >= 2, what="the node to serve")
    state["rate"] = state["rate"] or half_load(node, echo_pid)
    applies, row = node.dump()["snapshot"]["applies"], {}
    for kind in bench.shuffled(KINDS):
        row[kind] = one_slice(kind, node, publisher, echo_pid, state["rate"], state["apply_us"])
    dump = node.dump()
    snapshot, shown = dump["snapshot"], dump["load"]
    state["apply_us"] = row["here"]["apply_cores"] * 1e6 / SWAPS_PER_SECOND
    assert node.stop() == 0, node.log()[-3000:]
    return dict(row, applies=snapshot["applies"] - applies, refusals=snapshot["refusals"],
                turn_us=snapshot["turn_us"], turn_cpu_us=snapshot["turn_cpu_us"],
                control_us=shown["request_turn_us"], control_cpu_us=shown["request_turn_cpu_us"],
                log_dropped=shown["log_dropped"], judged=judge(log))


def half_load(node, echo_pid):
    """The rate at which the busier core is half busy: the node's, or that of generator and upstream,
    whose queue would be measured else. An answer costs less the more there are: it is looked for."""
    rate = RATE_FIRST
    for _ in range(RATE_TRIES):
        got = load(node, echo_pid, rate, seconds=1.0)
        busy = max(got["cpu_s"] / got["seconds"], got["load_cores"])
        rate = max(int(rate * 0.5 / busy), RATE_FIRST // 20)
    return rate


def make_room(nats):
    """NATS has what is left, too; its threads so far, and those that they start."""
    pid = str(nats.popen.pid)
    subprocess.run(["chrt", "--all-tasks", "--idle", "--pid", "0", pid], check=True)
    if os.cpu_count() > 1:
        subprocess.run(["taskset", "--all-tasks", "--cpu-list", "--pid", bench.LOAD_CORE, pid],
                       check=True, stdout=subprocess.DEVNULL)


def measure():
    rows, state = [], {"rate": None, "apply_us": APPLY_US}
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for the access log.
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
        platform = stack.enter_context(trilane.Platform(environment="test"))
        make_room(platform.nats)
        upstream = trilane.free_port()
        echo = trilane.Process("echo", directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(upstream)]))
        echo_pid = bench.start(stack, echo, upstream)
        contents = [write_content(directory, upstream, turn) for turn in (0, 1)]
        publisher = Publisher(stack, platform, directory, contents)
        for number in range(ROUNDS):
            rows.append(one_round(stack, platform, publisher, directory, echo_pid, number, state))
    return state["rate"], rows


def median(rows, kind, figure):
    return bench.spread([r[kind][figure] for r in rows])["median"]


def growth(rows, kind, base):
    """Of p99 from one kind of slice to another: the middle one of the rounds' own."""
    return round(bench.spread([r[kind]["p99_us"] / r[base]["p99_us"] for r in rows])["median"], 3)


def turns(rows, kind, prefix=""):
    """Of turns of the loop, by both clocks."""
    row = {prefix + "turns": sum(r[kind + "_us"]["count"] for r in rows)}
    for suffix in ("us", "cpu_us"):
        seen = [r["%s_%s" % (kind, suffix)] for r in rows]
        row["%slongest_%s" % (prefix, suffix)] = max(turn["longest"] for turn in seen)
        row["%sp99_9_%s" % (prefix, suffix)] = max(turn["p99_9"] for turn in seen)
        row["%smedian_%s" % (prefix, suffix)] = bench.spread(
            [turn["median"] for turn in seen])["median"]
    return row


def figures(rows):
    row = bench.spread([r["turn_us"]["longest"] for r in rows])
    row.update(turns(rows, "turn"))
    row.update(turns(rows, "control", prefix="control_"))
    row["swaps"] = sum(r["applies"] for r in rows)
    row["swaps_per_s"] = round(
        row["swaps"] / sum(r["here"]["published"]["seconds"] for r in rows), 1)
    row["decisions"] = sum(r["judged"]["lines"] for r in rows)
    row["mixed"] = sum(r["judged"]["mixed"] + r["judged"]["broken"] for r in rows)
    row["errors"] = sum(r[kind]["errors"] for r in rows for kind in KINDS)
    row["log_dropped"] = sum(r["log_dropped"] for r in rows)
    row["p99_us"] = median(rows, "here", "p99_us")
    row["p99_growth"] = growth(rows, "here", "elsewhere")
    row["apply_cpu_us"] = round(
        median(rows, "here", "apply_cores") * 1e6 / SWAPS_PER_SECOND, 1)
    return row


def slice_of(rows, kind):
    return {"p50_us": median(rows, kind, "p50_us"), "p99_us": median(rows, kind, "p99_us"),
            "p99_growth": growth(rows, kind, "elsewhere")}


def goals(row):
    return {"longest_us": (row["longest_us"], 100, "<="),
            "p99_growth": (row["p99_growth"], 1.05, "<="), "mixed": (row["mixed"], 0, "<=")}


def main():
    quiet = bench.Quiet()
    rate, rows = measure()
    state = quiet.report()
    row = figures(rows)
    others = {kind: slice_of(rows, kind) for kind in KINDS if kind != "here"}
    peers = dict(others, off=others["elsewhere"])
    bench.write("swap", "us", "lower", ROUNDS, row, peers, {}, {
        "rules": RULES, "rate": rate, "swaps_per_second": SWAPS_PER_SECOND, "machine": state,
        "all": rows}, goals(row))
    for name, prefix in (("spent on swaps", ""), ("that take a request", "control_")):
        print("%d turns %s: longest %.1f us by the clock, %.1f us of CPU; p99.9 %.1f and %.1f us; "
              "median %.1f and %.1f us" % (
                  (row[prefix + "turns"], name) + tuple(
                      row[prefix + figure + suffix] for figure in ("longest_", "p99_9_", "median_")
                      for suffix in ("us", "cpu_us"))))
    print("%d swaps (%.1f/s, %.0f us of the apply thread's CPU each), %d decisions, %d of them "
          "mixed, %d errors" % (row["swaps"], row["swaps_per_s"], row["apply_cpu_us"],
                                row["decisions"], row["mixed"], row["errors"]))
    print("p99 at %d/s: %.0f us; as many publications elsewhere %.0f us: %.3f" % (
        rate, row["p99_us"], others["elsewhere"]["p99_us"], row["p99_growth"]))
    print("beside it, against those elsewhere: nothing published %.0f us: %.3f; other work of the "
          "same length %.0f us: %.3f" % tuple(
              others[kind][figure] for kind in ("still", "thread")
              for figure in ("p99_us", "p99_growth")))
    bench.warn([state])


if __name__ == "__main__":
    main()
