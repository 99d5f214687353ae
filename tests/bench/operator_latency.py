"""operator-latency: what a proxy adds to the latency of unary gRPC calls, beside HAProxy.

Open loop, 128 bytes over 8 connections of 32 streams. In each round the same load goes to the
upstream itself and through either program, in random order; what is added is a percentile of a
round through the program less that of the same round's direct run. HAProxy does the same duties.
"""

import contextlib
import pathlib
import statistics
import tempfile

import bench
import operator_rounds as rounds_of
from operator_rounds import Load, ROUNDS

PUNCTUAL = ("--punctual",)  # what a burst waits for would be taken for the program's.
LOADS = (Load("10000", 10000, flags=PUNCTUAL), Load("30000", 30000, flags=PUNCTUAL))
DIRECT = "direct"  # no program at all.
PROXIES = ("trilane", "haproxy")
FIELDS = ("p50_us", "p99_us", "p999_us")
GOAL = 0.7  # of what HAProxy adds, at p50 and p99.
NO_SHARE = 100  # in the place of a share, when we do not sustain a load, or neither does.


def added(rounds, name, load, field):
    """Of each round in which both runs held, in microseconds."""
    direct = {got["round"]: got[field] for got in rounds.held(DIRECT, load)}
    return [got[field] - direct[got["round"]] for got in rounds.held(name, load)
            if got["round"] in direct]


def added_at(rounds, name, load):
    """{field: spread} of what a program adds; empty when it does not sustain the load."""
    values = {field: added(rounds, name, load, field) for field in FIELDS}
    return {field: bench.spread(each) for field, each in values.items() if each}


def share_of(mine, other, field):
    """What we add to a percentile for each part that HAProxy adds; 0 when it cannot keep up."""
    if not mine:
        return NO_SHARE
    # An addition below a microsecond is one that was not seen.
    return mine[field]["median"] / max(other[field]["median"], 1) if other else 0


def goals_of(ours, theirs):
    """The share of HAProxy's addition that is ours, for each load and percentile."""
    return {"%s.%s_of_haproxy" % (load.name, field):
            (share_of(ours[load.name], theirs[load.name], field), GOAL, "<=")
            for load in LOADS for field in FIELDS[:2]}


def print_added(rows):
    print("%-10s %8s %28s %28s %28s" % ("added us", "rate", "p50", "p99", "p99.9"))
    for name, by_load in rows.items():
        for load, fields in by_load.items():
            cells = ["%8.0f %8.0f %8.0f" % (each["min"], each["median"], each["max"])
                     for each in fields.values()] or ["not sustained"]
            print("%-10s %8s %s" % (name, load, " ".join("%28s" % cell for cell in cells)))


def print_direct(rounds):
    for load in LOADS:
        held = rounds.held(DIRECT, load)
        if held:
            print("direct at %s/s: %s" % (load.name, ", ".join(
                "%s %d us" % (field, statistics.median(got[field] for got in held))
                for field in FIELDS)))


def report(rounds):
    rows = {name: {load.name: added_at(rounds, name, load) for load in LOADS} for name in PROXIES}
    both = [load for load in LOADS if all(rows[name][load.name] for name in PROXIES)]
    top, ratio = {name: {} for name in PROXIES}, {}
    if both:
        top = {name: dict(rows[name][both[-1].name]["p50_us"], rate=both[-1].rate)
               for name in PROXIES}
        ratio["haproxy"] = top["haproxy"]["median"] / max(top["trilane"]["median"], 1)
    for name in PROXIES:
        top[name]["loads"] = rows[name]
    bench.write("operator-latency", "us added to p50", "lower", ROUNDS, top.pop("trilane"), top,
                ratio, rounds_of.settings_of(rounds, LOADS),
                goals_of(rows["trilane"], rows["haproxy"]))
    print_direct(rounds)
    print_added(rows)
    rounds.warn()


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo = rounds_of.start_echo(stack, directory)
        programs = rounds_of.start_all(stack, directory, echo.port, ("haproxy",),
                                       {"trilane": ({}, ())})
        programs[DIRECT] = echo
        rounds = rounds_of.Rounds(programs, echo.pid, directory)
        rounds.run([(name, load) for name in programs for load in LOADS])
        report(rounds)


if __name__ == "__main__":
    main()
