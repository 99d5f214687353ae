"""What the benches of the operator lane share: the programs, their duties, and rounds of runs.

h2c, one worker on one core, load and upstream on the other. Trilane has identity, a policy of 1,000
rules, a limit, metrics and trace context on; HAProxy and nginx do the same duties as far as they
know them; nghttpx is a bare proxy.

A load is sustained when every answer is right and no backlog is left, in all rounds but a quarter
at most: a figure is of the rounds that held, and each round is in the file, also one that did not.
A program that failed more often than that at a load is not tried there again.
"""

import os
import statistics
import subprocess
from typing import NamedTuple

import bench
import trilane

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "9"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "2"))
FAILURES_MAX = ROUNDS // 4
RULES = 1000
BODY_BYTES = 128  # of a message, where nothing else is said.
PATH = "/trilane.bench.v1.Echo/Say"
TOKEN = "authorization: Bearer bench-token"
TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
GUARDED = ("trilane", "haproxy", "nginx")  # and what begins with it; nghttpx is a bare proxy.
CONFIGS = {"nghttpx": "nghttpx.conf", "haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
RULE = """
    - name: service-%d-may-ask
      effect: allow
      verbs: [call]
      callers:
        - service: service-%d
      methods:
        - /trilane.bench.v1.Echo/Ask%d"""


class Load(NamedTuple):
    """One way of asking, the same for all programs."""
    name: str  # in tables and files.
    rate: int = 0  # a second; 0: saturated, h2load keeps all streams busy.
    body_bytes: int = BODY_BYTES  # of a message, each way.
    connections: int = 8
    streams: int = 32  # of each.
    requests: int = 0  # of a saturated run.
    flags: tuple = ()  # of the generator, besides.


class Program(NamedTuple):
    port: int
    pid: int


# ---- the programs ----

def start_echo(stack, directory):
    """The upstream of all, beside the generator."""
    port = trilane.free_port()
    echo = trilane.Process("echo", directory, bench.pinned(
        bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(port)]))
    return Program(port, bench.start(stack, echo, port))


def start_peer(stack, directory, name, upstream, before=()):
    """One of the peers on a free port; 'before' stands before its command."""
    port = trilane.free_port()
    own = directory / ("%s-%d" % (name, port))
    own.mkdir()
    file = CONFIGS[name]
    config = bench.fill(bench.BENCH / "peers" / file, own / file, PORT=port, UPSTREAM=upstream)
    argv = {"nghttpx": ["nghttpx", "--conf=%s" % config],
            "haproxy": ["haproxy", "-db", "-f", str(config)],
            "nginx": ["nginx", "-p", str(own), "-c", str(config)]}[name]
    process = trilane.Process(name, own, bench.pinned(bench.PROGRAM_CORE, [*before, *argv]))
    return Program(port, bench.start(stack, process, port))


def write_platform(directory, upstream):
    """The platform with all its rules: those that decide are written out, the others are alike."""
    target = bench.fill(bench.BENCH / "platform" / "platform.yaml", directory / "platform.yaml",
                        UPSTREAM=upstream)
    written = "      methods:\n        - /trilane.bench.v1.Echo/Delete*"
    text = target.read_text()
    assert written in text
    others = "".join(RULE % (i, i % 10, i) for i in range(RULES - text.count("effect:")))
    services = "".join("---\napiVersion: trilane.dev/v1\nkind: Service\nmetadata:\n"
                       "  name: service-%d\n  tenant: bench\nspec: {}\n" % i for i in range(10))
    target.write_text(text.replace(written, written + others) + "\n" + services)


def start_nodes(stack, directory, upstream, kinds):
    """Nodes of one platform: {name: Program} of {name: (settings, what stands before)}."""
    platform = stack.enter_context(trilane.Platform(environment="bench"))
    policies = directory / "policies"
    policies.mkdir()
    write_platform(policies, upstream)
    # Everything but the node keeps off the node's core.
    subprocess.run(["taskset", "-a", "-c", "-p", bench.LOAD_CORE, str(platform.nats.popen.pid)],
                   stdout=subprocess.DEVNULL, check=os.cpu_count() > 1)
    cp = platform.control_plane()
    cp.argv = bench.pinned(bench.LOAD_CORE, cp.argv)
    cp.start()
    nodes = {}
    for name, (settings, before) in kinds.items():
        node = platform.node("bench-%d" % len(nodes), **{
            "workers": 1, "access-log": "off", **settings})
        node.argv = bench.pinned(bench.PROGRAM_CORE, [*before, *node.argv])
        node.start()
        nodes[name] = node
    cp("publish", "-m", "bench", str(policies))
    for node in nodes.values():
        trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
    return {name: Program(node.ports["listen"], node.popen.pid) for name, node in nodes.items()}


def start_all(stack, directory, upstream, peers, kinds):
    """Peers and nodes, whose duties are checked."""
    programs = {name: start_peer(stack, directory, name, upstream) for name in peers}
    programs.update(start_nodes(stack, directory, upstream, kinds))
    check_duties(programs)
    return programs


def check_duties(programs):
    """Each guarded program serves a caller with the token and refuses one without."""
    for name, (port, _) in programs.items():
        known = bench.load(port, 200, PATH, 0.5, 0.1, headers=(TOKEN, TRACE))
        assert known and known["errors"] == 0, (name, known)
        if name.startswith(GUARDED):
            unknown = bench.load(port, 200, PATH, 0.5, 0.1, headers=(TRACE,))
            assert unknown and unknown["answers"] == 0, (name, unknown)


def message(directory, body_bytes):
    """A file with one gRPC message, for h2load."""
    path = directory / ("message-%d" % body_bytes)
    path.write_bytes(b"\0" + (body_bytes - 5).to_bytes(4, "big") + bytes(body_bytes - 5))
    return path


# ---- the rounds ----

class Rounds:
    """Runs of all programs: results[name][load's name] holds every round."""

    def __init__(self, programs, echo_pid, directory):
        self.programs = programs
        self.helpers = [echo_pid]
        self.directory = directory
        self.results = {name: {} for name in programs}

    def saturate(self, program, load):
        got = bench.saturate(program.port, PATH, load.requests,
                             message(self.directory, load.body_bytes), watch=[program.pid],
                             headers=(TOKEN, TRACE, "content-type: application/grpc",
                                      "te: trailers"),
                             connections=load.connections, streams=load.streams)
        if got:
            got["sustained"] = True
        return got

    def one(self, name, load, number):
        program = self.programs[name]
        if load.rate == 0:
            got = self.saturate(program, load)
        else:
            got = bench.load(program.port, load.rate, PATH, SECONDS, headers=(TOKEN, TRACE),
                             watch=[program.pid], helpers=self.helpers,
                             body_bytes=load.body_bytes, connections=load.connections,
                             streams=load.streams, flags=load.flags)
        if got:
            got["round"] = number
        self.results[name].setdefault(load.name, []).append(got)

    def failures(self, name, load):
        return sum(1 for got in self.results[name].get(load.name, [])
                   if not (got and got["sustained"]))

    def run(self, work):
        """All pairs of name and load in random order, as often as there are rounds."""
        for number in range(ROUNDS):
            for name, load in bench.shuffled(work):
                if self.failures(name, load) <= FAILURES_MAX:
                    self.one(name, load, number)
            print("round %d of %d done" % (number + 1, ROUNDS), flush=True)

    def held(self, name, load):
        """The rounds that held; empty: the load is not sustained."""
        if self.failures(name, load) > FAILURES_MAX:
            return []
        return [got for got in self.results[name].get(load.name, []) if got and got["sustained"]]

    def figures(self, name, load):
        """CPU per answer."""
        return [got["cpu_us"] for got in self.held(name, load)]

    def row(self, name, load, scale=1.0):
        """Of CPU per answer, times 'scale'; empty when the load is not sustained."""
        values = [value * scale for value in self.figures(name, load)]
        row = dict(bench.spread(values), rounds=len(values)) if values else {}
        if values and load.rate:
            row["rate"] = load.rate
        return row

    def ratio(self, name, load):
        """How many times the CPU of Trilane a program takes; None when one of both did not hold."""
        theirs, ours = self.row(name, load), self.row("trilane", load)
        return theirs["median"] / ours["median"] if theirs and ours else None

    def median(self, name, load, field):
        return statistics.median(got[field] for got in self.held(name, load))

    def all(self):
        return [each for loads in self.results.values() for got in loads.values()
                for each in got if each]

    def warn(self):
        """What there is to say of rounds that did not hold, and of the machine."""
        for name, loads in self.results.items():
            for load, got in loads.items():
                failed = sum(1 for each in got if not (each and each["sustained"]))
                if failed:
                    print("%s at %s: %d of %d rounds did not hold" % (name, load, failed, len(got)))
        crowded = [got for got in self.all() if got.get("load_cores", 0) > 0.97]
        if crowded:
            print("NOTE: generator and upstream filled their core in %d runs" % len(crowded))
        bench.warn(self.all())


# ---- CPU an answer, at the rate that counts and saturated ----

def measure(rounds, rates, last, saturated):
    """All programs at all rates and saturated; those that sustain none of the rates at 'last', too."""
    names = list(rounds.programs)
    rounds.run([(name, load) for name in names for load in (*rates, saturated)])
    slow = [name for name in names if not any(rounds.figures(name, load) for load in rates)]
    if slow:
        print("at %s: %s" % (last.name, ", ".join(slow)))
        rounds.run([(name, last) for name in sorted(set(slow) | {"trilane"})])


def compare(rounds, loads, names):
    """Rows of peers at the highest of the loads that both sustain, and ratios."""
    peers, ratio = {}, {}
    for name in names:
        both = [load for load in sorted(loads, key=lambda load: -load.rate)
                if rounds.figures(name, load) and rounds.figures("trilane", load)]
        peers[name] = rounds.row(name, both[0]) if both else {}
        if both:
            peers[name]["trilane_median"] = rounds.row("trilane", both[0])["median"]
            ratio[name] = rounds.ratio(name, both[0])
    return peers, ratio


def own_row(rounds, loads):
    """Trilane at the highest load that it sustains."""
    held = [load for load in sorted(loads, key=lambda load: -load.rate)
            if rounds.figures("trilane", load)]
    return rounds.row("trilane", held[0]) if held else {}


def add_saturated(rounds, rows, saturated):
    for name, row in rows.items():
        figure = rounds.row(name, saturated)
        if figure:
            row["saturated"] = figure


def print_latencies(rounds, loads):
    for name in rounds.results:
        for load in loads:
            if rounds.figures(name, load):
                print("%s at %s/s: %.2f us of CPU; p50 %d us, p99 %d us" % (
                    name, load.name, rounds.row(name, load)["median"],
                    rounds.median(name, load, "p50_us"), rounds.median(name, load, "p99_us")))


def print_saturated(rows):
    ours = rows["trilane"].get("saturated")
    for name, row in rows.items():
        if ours and "saturated" in row:
            ratio = row["saturated"]["median"] / ours["median"]
            print("%s saturated: %.2f (ratio %.2f%s)" % (
                name, row["saturated"]["median"], ratio, bench.wins(ratio)))


def settings_of(rounds, loads):
    """What a report says under its conditions."""
    return {"rounds": ROUNDS, "seconds": SECONDS, "rules": RULES,
            "loads": {load.name: load._asdict() for load in loads}, "all": rounds.results}

