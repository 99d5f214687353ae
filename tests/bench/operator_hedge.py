"""operator-hedge: the tail of unary calls when one endpoint of three is late at times.

One of its answers in a hundred is late by 100 ms. The same node, the same three endpoints, and two
services over them: one whose method is hedged as by default, one that is not ("off"). Load is what
arrives at the endpoints for each call of a caller.
"""

import contextlib
import os
import pathlib
import statistics
import tempfile

import bench
import operator_platform

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "7"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "10"))
RATE = 3000
LATE_EVERY, LATE_MS = 100, 100
METHODS = """
  methods:
    - names: [/trilane.bench.v1.Hedged/Say]
      idempotent: true
      hedging: {}
"""
PATHS = {"trilane": "/trilane.bench.v1.Hedged/Say", "off": "/trilane.bench.v1.Plain/Say"}


class Runs:
    def __init__(self, node, endpoints):
        self.node = node
        self.endpoints = endpoints
        self.results = {name: [] for name in PATHS}

    def requests(self):
        return sum(endpoint.requests() for endpoint in self.endpoints)

    def calls(self):
        return self.node.metric("trilane_requests_total") or 0

    def one(self, name, seconds):
        before = self.requests(), self.calls()
        got = bench.load(self.node.ports["listen"], RATE, PATHS[name], seconds,
                         headers=(operator_platform.TOKEN,), watch=[self.node.popen.pid],
                         helpers=[e.pid for e in self.endpoints], body_bytes=128)
        if got:
            got["load"] = (self.requests() - before[0]) / (self.calls() - before[1])
        return got

    def run(self):
        self.one("trilane", 1)  # what there is to hedge after is measured first.
        for number in range(ROUNDS):
            for name in bench.shuffled(PATHS):
                self.results[name].append(self.one(name, SECONDS))
                bench.rest()
            print("round %d of %d done" % (number + 1, ROUNDS), flush=True)

    def held(self, name):
        return [got for got in self.results[name] if got and got["sustained"]]

    def row(self, name):
        runs = self.held(name)
        if not runs:
            return {}
        row = bench.spread([got["p999_us"] / 1000 for got in runs])
        for field in ("load", "p50_us", "p99_us"):
            row[field] = statistics.median(got[field] for got in runs)
        return row


def report(runs):
    hedged, plain = runs.row("trilane"), runs.row("off")
    goals, ratio = {}, {}
    if hedged and plain:
        ratio["off"] = plain["median"] / hedged["median"]
        goals = {"p999_of_off": (hedged["median"] / plain["median"], 0.2, "<="),
                 "load": (hedged["load"], 1.03, "<=")}
    conditions = {"rate": RATE, "rounds": ROUNDS, "seconds": SECONDS, "endpoints": 3,
                  "late_every": LATE_EVERY, "late_ms": LATE_MS, "all": runs.results}
    bench.write("operator-hedge", "ms, p99.9 of calls", "lower", ROUNDS, hedged, {"off": plain},
                ratio, conditions, goals)
    for name in PATHS:
        row = runs.row(name)
        if row:
            print("%s: p50 %.0f us, p99 %.0f us, p99.9 %.1f ms, load %.3f" % (
                name, row["p50_us"], row["p99_us"], row["median"], row["load"]))
    bench.warn([got for name in PATHS for got in runs.results[name] if got])


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        late = ("stall", str(LATE_EVERY), str(LATE_MS))
        endpoints = [operator_platform.Endpoint(stack, directory, i, *(late if i == 0 else ()))
                     for i in range(3)]
        ports = [endpoint.port for endpoint in endpoints]
        node = operator_platform.start_node(stack, directory, [
            operator_platform.service("hedged", "trilane.bench.v1.Hedged", ports, METHODS),
            operator_platform.service("plain", "trilane.bench.v1.Plain", ports)])
        runs = Runs(node, endpoints)
        runs.run()
        report(runs)


if __name__ == "__main__":
    main()
