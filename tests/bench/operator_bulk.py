"""operator-bulk: CPU per KiB of gRPC messages of 64 KiB and 1 MiB, both ways, and copies of a byte.

4 connections of 4 streams. Rates are fixed and the same for each program; beside that, saturated:
h2load keeps all 16 streams busy, and what is carried in a second is told, too. Rounds, peers and
duties are those of operator-unary. Flow control is the programs' own, but that each gives its
streams the window that nghttpx and HAProxy are given.

How often a node copies a payload byte in user space is counted beside: bench-copies, preloaded,
stands in for memcpy() and its kin in the released program and all of its libraries.
"""

import contextlib
import pathlib
import struct
import tempfile

import bench
import operator_rounds as rounds_of
from operator_rounds import Load, ROUNDS, SECONDS
import trilane

CONNECTIONS, STREAMS = 4, 4
PEERS = ("nghttpx", "haproxy", "nginx")
WINDOWS = {"stream-window-bytes": 1 << 20, "connection-window-bytes": 16 << 20}
COUNTED = ("trilane", "nghttpx")  # whose copies are counted.
COUNTED_BYTES = 16 << 20  # each way, of each size.
GOAL = 1.3  # times the CPU of a node, of nghttpx.
COPIES_GOAL = 1.02  # small rests of chunks are copied twice, where that costs less than a reference.


def load_of(name, size, **how):
    return Load(name, body_bytes=size, connections=CONNECTIONS, streams=STREAMS, **how)


FIXED = {size: load_of("%d KiB at %d" % (size >> 10, rate), size, rate=rate)
         for size, rate in ((64 << 10, 1500), (1 << 20, 100))}
SATURATED = {size: load_of("%d KiB saturated" % (size >> 10), size, requests=int(count * SECONDS))
             for size, count in ((64 << 10, 4000), (1 << 20, 250))}


def per_kib(load):
    """From microseconds an answer to nanoseconds a KiB, of either way."""
    return 1000 / (2 * load.body_bytes / 1024)


# ---- copies ----

def count_of(file):
    return struct.unpack("=Q", file.read_bytes())[0]


def copied_by_a_call(program, file, size, rate):
    """Bytes that the program copies for a call with messages of that size."""
    before = count_of(file)
    got = bench.load(program.port, rate, rounds_of.PATH, seconds=1, warmup=0,
                     headers=(rounds_of.TOKEN, rounds_of.TRACE), body_bytes=size,
                     connections=CONNECTIONS, streams=STREAMS)
    assert got and got["errors"] == 0, got
    return (count_of(file) - before) / got["answers"]


def copies_of(program, file):
    """{size: how often each payload byte was copied}: what an empty call copies is none."""
    empty = copied_by_a_call(program, file, 0, rate=200)
    return {size: (copied_by_a_call(program, file, size, COUNTED_BYTES // size) - empty) /
                  (2 * size) for size in FIXED}


def count_copies(stack, directory, upstream):
    """{program: {size: copies}} of programs of their own, which count."""
    files = {name: directory / ("copies-of-%s" % name) for name in COUNTED}
    before = {}
    library = bench.preloadable(directory, trilane.BUILD / "libbench-copies.so")
    for name, file in files.items():
        file.write_bytes(bytes(8))
        before[name] = ("env", "LD_PRELOAD=%s" % library,
                        "BENCH_COPIES=%s" % file)
    programs = rounds_of.start_nodes(stack, directory, upstream,
                                     {"trilane": (WINDOWS, before["trilane"])})
    programs["nghttpx"] = rounds_of.start_peer(stack, directory, "nghttpx", upstream,
                                               before["nghttpx"])
    return {name: copies_of(programs[name], files[name]) for name in COUNTED}


# ---- the report ----

def rows_of(rounds):
    """{program: {load's name: row}}, of CPU a KiB and of what was carried."""
    rows = {}
    for name in rounds.programs:
        rows[name] = {}
        for load in (*FIXED.values(), *SATURATED.values()):
            row = rounds.row(name, load, per_kib(load))
            if row and load.rate == 0:
                row["mib_per_s"] = (rounds.median(name, load, "answers_per_s") *
                                    2 * load.body_bytes / (1 << 20))
            rows[name][load.name] = row
    return rows


def goals_of(rounds, copies):
    goals = {}
    for kind, loads in (("nghttpx", FIXED), ("saturated", SATURATED)):
        for size, load in loads.items():
            # What a node does not sustain, or nobody does, is missed.
            goals["%s.%d" % (kind, size)] = (rounds.ratio("nghttpx", load) or 0, GOAL, ">=")
    for size, value in copies["trilane"].items():
        goals["copies.%d" % size] = (value, COPIES_GOAL, "<=")
    return goals


def print_rows(rounds, rows):
    for name, by_load in rows.items():
        for load in (*FIXED.values(), *SATURATED.values()):
            row = by_load[load.name]
            if not row:
                continue
            ratio = rounds.ratio(name, load)
            said = "ratio %.2f%s" % (ratio, bench.wins(ratio)) if ratio else "Trilane has no figure"
            carried = ", %.0f MiB/s" % row["mib_per_s"] if "mib_per_s" in row else ""
            print("%-10s %-18s %8.1f ns of CPU a KiB, %s%s" % (
                name, load.name, row["median"], said, carried))


def report(rounds, copies):
    rows = rows_of(rounds)
    main_load = FIXED[64 << 10]
    top = {name: dict(by_load[main_load.name], loads=by_load) for name, by_load in rows.items()}
    ratio = {name: rounds.ratio(name, main_load) for name in PEERS
             if rounds.ratio(name, main_load)}
    conditions = dict(rounds_of.settings_of(rounds, (*FIXED.values(), *SATURATED.values())),
                      copies=copies)
    bench.write("operator-bulk", "ns of CPU a KiB", "lower", ROUNDS, top.pop("trilane"), top, ratio,
                conditions, goals_of(rounds, copies))
    print_rows(rounds, rows)
    for name, by_size in copies.items():
        print("%s copies a payload byte %s" % (name, ", ".join(
            "%.3f times (%d KiB)" % (value, size >> 10) for size, value in by_size.items())))
    rounds.warn()


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo = rounds_of.start_echo(stack, directory)
        with contextlib.ExitStack() as counting:
            own = directory / "counted"
            own.mkdir()
            copies = count_copies(counting, own, echo.port)
        programs = rounds_of.start_all(stack, directory, echo.port, PEERS,
                                       {"trilane": (WINDOWS, ())})
        rounds = rounds_of.Rounds(programs, echo.pid, directory)
        rounds.run([(name, load) for name in programs
                    for load in (*FIXED.values(), *SATURATED.values())])
        report(rounds, copies)


if __name__ == "__main__":
    main()
