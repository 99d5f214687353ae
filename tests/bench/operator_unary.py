"""operator-unary: CPU microseconds per verified answer of unary gRPC through Trilane and peers.

128 bytes, 8 connections of 32 streams. Offered rates are fixed and the same for each program, since
the cost of a request depends on the rate; the ratio to a peer is taken at the higher rate that both
sustain.

Beside that, saturated: h2load keeps all 256 streams busy, so that a program's loop has always work
and none of its cost is for waking up; what is left is what the work itself costs.
"""

import contextlib
import pathlib
import tempfile

import bench
import operator_rounds as rounds_of
from operator_rounds import Load, ROUNDS, SECONDS

RATES = (Load("20000", 20000), Load("60000", 60000))
LAST = Load("10000", 10000)  # for a peer that sustains none of them.
SATURATED = Load("saturated", requests=int(40000 * SECONDS))
PEERS = ("nghttpx", "haproxy", "nginx")
PAUSED = "trilane with turn-pause-us 500"  # the same node, set to save CPU and not time.
NODES = {"trilane": ({}, ()), PAUSED: ({"turn-pause-us": 500}, ())}


def paused_at(rounds, load):
    """With turn-pause-us: what it saves, and what it costs."""
    return dict(rounds.row(PAUSED, load), p50_us=rounds.median(PAUSED, load, "p50_us"),
                p99_us=rounds.median(PAUSED, load, "p99_us"))


def report(rounds):
    fixed = (LAST, *RATES)
    peers, ratio = rounds_of.compare(rounds, fixed, PEERS)
    ours = rounds_of.own_row(rounds, fixed)
    rows = dict({"trilane": ours}, **peers)
    rounds_of.add_saturated(rounds, rows, SATURATED)
    ours["paused"] = {load.name: paused_at(rounds, load) for load in RATES
                      if rounds.figures(PAUSED, load)}
    conditions = dict(rounds_of.settings_of(rounds, (*fixed, SATURATED)),
                      trilane={load.name: rounds.row("trilane", load) for load in fixed})
    bench.write("operator-unary", "CPU us per answer", "lower", ROUNDS, ours, peers, ratio,
                conditions)
    rounds_of.print_latencies(rounds, RATES)
    rounds_of.print_saturated(rows)
    rounds.warn()


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo = rounds_of.start_echo(stack, directory)
        programs = rounds_of.start_all(stack, directory, echo.port, PEERS, NODES)
        rounds = rounds_of.Rounds(programs, echo.pid, directory)
        rounds_of.measure(rounds, RATES, LAST, SATURATED)
        report(rounds)


if __name__ == "__main__":
    main()
