"""floods: what an honest caller keeps of its rate beside an attacker, by Trilane and by nghttpx.

h2c, 128 bytes, 8 connections of 32 streams, at a fixed rate that both sustain with ease; one worker
on one core. Beside it an attacker makes connection after connection and sends one kind of flood of
tests/support/attacks.py by each, as fast as it is let: nobody limits how often it comes again. A
share is of the rounds' medians: answers in time with the attacker, to those without one.

The attacker has the generator's core, at the lowest priority. How often it came by is told, too: a
program that holds an attacker up for long is attacked less.
"""

import contextlib
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile

import attacks
import bench
import operator_rounds
import trilane

RATE = 5000
ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "2"))
SHARE_MIN = 0.9
ATTACK_READ_S = 0.25  # longer is waited for no answer.
NOTHING = "nothing"   # in the place of a flood.


def attack(name, port):
    """Attacks until it is ended, then says how often: {"attacks"}."""
    flood = next(f for f in attacks.FLOODS if f.name == name)
    data = flood.bytes(attacks.Target(operator_rounds.PATH, [
        tuple(operator_rounds.TOKEN.split(": ", 1))]))
    done = 0
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    print("ready", flush=True)
    while not ended:
        with contextlib.suppress(OSError), attacks.Connection(port) as c:
            c.sock.settimeout(ATTACK_READ_S)
            c.send(data)
            c.read_to_end()
        done += 1
    print(json.dumps({"attacks": done}))


@contextlib.contextmanager
def attacker(name, port, told):
    """Runs beside the block; 'told' gets what it said of itself."""
    if name == NOTHING:
        yield
        return
    argv = ["nice", "-n", "19", sys.executable, "-B", __file__, "attack", name, str(port)]
    process = subprocess.Popen(bench.pinned(bench.LOAD_CORE, argv), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=60)
        told.update(json.loads(out))


def one(program, name, echo_pid):
    """One round: the generator's figures, and the attacker's."""
    port, pid = program
    told = {}
    with attacker(name, port, told):
        got = bench.load(port, RATE, operator_rounds.PATH, SECONDS, watch=[pid], helpers=[echo_pid],
                         headers=(operator_rounds.TOKEN, operator_rounds.TRACE))
    if got is None:  # an honest connection was lost.
        return {"answers_per_s": 0.0, "lost": True, **told}
    return {**got, **told}


def measure(programs, echo_pid):
    """{program: {flood: [rounds]}}"""
    floods = [NOTHING] + [flood.name for flood in attacks.FLOODS]
    results = {name: {flood: [] for flood in floods} for name in programs}
    for number in range(ROUNDS):
        for name, flood in bench.shuffled([(n, f) for n in programs for f in floods]):
            results[name][flood].append(one(programs[name], flood, echo_pid))
        print("round %d of %d done" % (number + 1, ROUNDS), flush=True)
    return results


def figure(rounds, field):
    values = [got[field] for got in rounds if field in got]
    return statistics.median(values) if values else None


def shares(results):
    """{flood: {share, p99_us, attacks_per_s}} of one program."""
    without = max(figure(results[NOTHING], "answers_per_s"), 1)
    return {flood: {"share": figure(rounds, "answers_per_s") / without,
                    "p99_us": figure(rounds, "p99_us"),
                    "attacks_per_s": (figure(rounds, "attacks") or 0) / (SECONDS + 0.5)}
            for flood, rounds in results.items() if flood != NOTHING}


def report(results):
    told = {name: shares(rows) for name, rows in results.items()}
    rows = {name: bench.spread([row["share"] for row in floods.values()])
            for name, floods in told.items()}
    ours = rows.pop("trilane")
    ratio = {name: ours["min"] / max(row["min"], 1e-9) for name, row in rows.items()}
    bench.write("floods", "share of honest answers in time, over all floods", "higher", ROUNDS, ours,
                rows, ratio, {"rate": RATE, "seconds": SECONDS, "floods": told, "all": results},
                goals={"worst_share": (ours["min"], SHARE_MIN, ">=")})
    print("%-24s %s" % ("flood", "".join("%34s" % name for name in told)))
    for flood in attacks.FLOODS:
        print("%-24s %s" % (flood.name, "".join(
            "%9.3f of %d/s, p99 %8s us, %5.0f/s" % (
                row["share"], RATE, "-" if row["p99_us"] is None else "%d" % row["p99_us"],
                row["attacks_per_s"])
            for row in (floods[flood.name] for floods in told.values()))))
    bench.warn([got for rows in results.values() for rounds in rows.values() for got in rounds
                if "quiet" in got])


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        echo = operator_rounds.start_echo(stack, directory)
        nodes = operator_rounds.start_nodes(stack, directory, echo.port, {"trilane": ({}, ())})
        programs = {"trilane": nodes["trilane"],
                    "nghttpx": operator_rounds.start_peer(stack, directory, "nghttpx", echo.port)}
        report(measure(programs, echo.pid))


if __name__ == "__main__":
    if sys.argv[1:2] == ["attack"]:
        attack(sys.argv[2], int(sys.argv[3]))
    else:
        main()
