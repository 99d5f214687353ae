"""operator-conns: CPU microseconds per verified answer when callers are many and ask little.

128 bytes over 256 connections of one stream each: nothing that a program does for a connection once
a turn is shared by several requests. Rates, rounds, peers and duties are those of operator-unary.
"""

import contextlib
import pathlib
import tempfile

import bench
import operator_rounds as rounds_of
from operator_rounds import Load, ROUNDS, SECONDS

CONNECTIONS, STREAMS = 256, 1


def load_of(name, **how):
    return Load(name, connections=CONNECTIONS, streams=STREAMS, **how)


RATES = (load_of("20000", rate=20000), load_of("40000", rate=40000))
LAST = load_of("10000", rate=10000)  # for a peer that sustains none of them.
SATURATED = load_of("saturated", requests=int(30000 * SECONDS))
PEERS = ("nghttpx", "haproxy", "nginx")
GOAL = 1.15  # times the CPU of a node, of nghttpx.


def report(rounds):
    fixed = (LAST, *RATES)
    peers, ratio = rounds_of.compare(rounds, fixed, PEERS)
    ours = rounds_of.own_row(rounds, fixed)
    rows = dict({"trilane": ours}, **peers)
    rounds_of.add_saturated(rounds, rows, SATURATED)
    # What a node does not sustain, or nobody does, is missed.
    goals = {"nghttpx": (ratio.get("nghttpx", 0), GOAL, ">=")}
    conditions = dict(rounds_of.settings_of(rounds, (*fixed, SATURATED)),
                      trilane={load.name: rounds.row("trilane", load) for load in fixed})
    bench.write("operator-conns", "CPU us per answer", "lower", ROUNDS, ours, peers, ratio,
                conditions, goals)
    rounds_of.print_latencies(rounds, RATES)
    rounds_of.print_saturated(rows)
    rounds.warn()


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo = rounds_of.start_echo(stack, directory)
        programs = rounds_of.start_all(stack, directory, echo.port, PEERS, {"trilane": ({}, ())})
        rounds = rounds_of.Rounds(programs, echo.pid, directory)
        rounds_of.measure(rounds, RATES, LAST, SATURATED)
        report(rounds)


if __name__ == "__main__":
    main()
