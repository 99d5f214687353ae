"""operator-unary: CPU microseconds per verified answer of unary gRPC through Trilane and peers.

h2c, 128 bytes, 8 connections of 32 streams, one worker on one core, load and upstream on the other.
Trilane has identity, policy, limit, metrics and trace context on. Offered rates are fixed and the
same for each program, since the cost of a request depends on the rate; the ratio to a peer is taken
at the higher rate that both sustain.

Beside that, saturated: h2load keeps all 256 streams busy, so that a program's loop has always work
and none of its cost is for waking up; what is left is what the work itself costs.

A rate is sustained when every answer is right and no backlog is left, in all rounds but a quarter
at most: a figure is of the rounds that held, and each round is in the file, also one that did not.
A program that failed more often than that at a rate is not tried there again.
"""

import contextlib
import os
import pathlib
import statistics
import subprocess
import tempfile

import bench
import trilane

RATES = (20000, 60000)
LAST_RATE = 10000  # for a peer that sustains none of them.
ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "9"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "2"))
SATURATED = "saturated"  # in the place of a rate.
SATURATED_REQUESTS = int(40000 * SECONDS)
BODY_BYTES = 128
FAILURES_MAX = ROUNDS // 4
PATH = "/trilane.bench.v1.Echo/Say"
TOKEN = "authorization: Bearer bench-token"
TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PAUSED = "trilane with turn-pause-us 500"  # the same node, set to save CPU and not time.
GUARDED = ("trilane", PAUSED, "haproxy", "nginx")  # nghttpx is a bare proxy.


def start_peer(stack, directory, name, upstream):
    """One of the peers on a free port: (port, process)."""
    port = trilane.free_port()
    own = directory / name
    own.mkdir()
    file = {"nghttpx": "nghttpx.conf", "haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[name]
    config = bench.fill(bench.BENCH / "peers" / file, own / file, PORT=port, UPSTREAM=upstream)
    argv = {"nghttpx": ["nghttpx", "--conf=%s" % config],
            "haproxy": ["haproxy", "-db", "-f", str(config)],
            "nginx": ["nginx", "-p", str(own), "-c", str(config)]}[name]
    process = trilane.Process(name, own, bench.pinned(bench.PROGRAM_CORE, argv))
    return port, bench.start(stack, process, port)


def start_nodes(stack, directory, upstream):
    """Two nodes of one platform: {name: (port, process)}."""
    platform = stack.enter_context(trilane.Platform(environment="bench"))
    policies = directory / "policies"
    policies.mkdir()
    bench.fill(bench.BENCH / "platform" / "platform.yaml", policies / "platform.yaml",
               UPSTREAM=upstream)
    # Everything but the node keeps off the node's core.
    subprocess.run(["taskset", "-a", "-c", "-p", bench.LOAD_CORE, str(platform.nats.popen.pid)],
                   stdout=subprocess.DEVNULL, check=os.cpu_count() > 1)
    cp = platform.control_plane()
    cp.argv = bench.pinned(bench.LOAD_CORE, cp.argv)
    cp.start()
    nodes = {}
    for name, pause in (("trilane", 0), (PAUSED, 500)):
        node = platform.node("bench-%d" % len(nodes), **{
            "workers": 1, "access-log": "off", "turn-pause-us": pause})
        node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
        node.start()
        nodes[name] = node
    cp("publish", "-m", "bench", str(policies))
    for node in nodes.values():
        trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
    return {name: (node.ports["listen"], node.popen.pid) for name, node in nodes.items()}


def check_duties(programs):
    """Each guarded program serves a caller with the token and refuses one without."""
    for name, (port, _) in programs.items():
        known = bench.load(port, 200, PATH, 0.5, 0.1, headers=(TOKEN, TRACE))
        assert known and known["errors"] == 0, (name, known)
        if name in GUARDED:
            unknown = bench.load(port, 200, PATH, 0.5, 0.1, headers=(TRACE,))
            assert unknown and unknown["answers"] == 0, (name, unknown)


class Rounds:
    """Runs of all programs: results[name][rate] holds every round."""

    def __init__(self, programs, echo_pid, body):
        self.programs = programs
        self.helpers = [echo_pid]
        self.body = body  # file with one gRPC message.
        self.results = {name: {} for name in programs}

    def one(self, name, rate):
        port, pid = self.programs[name]
        if rate == SATURATED:
            got = bench.saturate(port, PATH, SATURATED_REQUESTS, self.body, watch=[pid],
                                 headers=(TOKEN, TRACE, "content-type: application/grpc",
                                          "te: trailers"))
            if got:
                got["sustained"] = True
        else:
            got = bench.load(port, rate, PATH, SECONDS, headers=(TOKEN, TRACE), watch=[pid],
                             helpers=self.helpers, body_bytes=BODY_BYTES)
        self.results[name].setdefault(rate, []).append(got)

    def failures(self, name, rate):
        return sum(1 for got in self.results[name].get(rate, []) if not (got and got["sustained"]))

    def run(self, work):
        """All pairs of name and rate in random order, as often as there are rounds."""
        for number in range(ROUNDS):
            for name, rate in bench.shuffled(work):
                if self.failures(name, rate) <= FAILURES_MAX:
                    self.one(name, rate)
            print("round %d of %d done" % (number + 1, ROUNDS), flush=True)

    def held(self, name, rate):
        """The rounds that held; empty: the rate is not sustained."""
        if self.failures(name, rate) > FAILURES_MAX:
            return []
        return [got for got in self.results[name].get(rate, []) if got and got["sustained"]]

    def figures(self, name, rate):
        """CPU per answer."""
        return [got["cpu_us"] for got in self.held(name, rate)]

    def all(self):
        return [each for rates in self.results.values() for got in rates.values()
                for each in got if each]


def measure(programs, echo_pid, body):
    rounds = Rounds(programs, echo_pid, body)
    rounds.run([(name, rate) for name in programs for rate in RATES + (SATURATED,)])
    slow = [name for name in programs
            if not any(rounds.figures(name, rate) for rate in RATES)]
    if slow:
        print("at %d a second: %s" % (LAST_RATE, ", ".join(slow)))
        rounds.run([(name, LAST_RATE) for name in sorted(set(slow) | {"trilane"})])
    return rounds


def row_at(rounds, name, rate):
    values = rounds.figures(name, rate)
    return dict(bench.spread(values), rate=rate, rounds=len(values))


def compare(rounds):
    """Rows at the rate that counts, and ratios."""
    peers, ratio = {}, {}
    for name in rounds.results:
        if name in ("trilane", PAUSED):
            continue
        both = [rate for rate in sorted((LAST_RATE,) + RATES, reverse=True)
                if rounds.figures(name, rate) and rounds.figures("trilane", rate)]
        peers[name] = row_at(rounds, name, both[0]) if both else {}
        if both:
            ours = row_at(rounds, "trilane", both[0])
            peers[name]["trilane_median"] = ours["median"]
            ratio[name] = peers[name]["median"] / ours["median"]
    return peers, ratio


def add_saturated(rounds, name, row):
    if rounds.figures(name, SATURATED):
        row["saturated"] = row_at(rounds, name, SATURATED)


def latency(rounds, name, rate, field):
    return statistics.median(got[field] for got in rounds.held(name, rate))


def paused_at(rounds, rate):
    """With turn-pause-us: what it saves, and what it costs."""
    return dict(row_at(rounds, PAUSED, rate), p50_us=latency(rounds, PAUSED, rate, "p50_us"),
                p99_us=latency(rounds, PAUSED, rate, "p99_us"))


def print_latencies(rounds):
    for name in rounds.results:
        for rate in RATES:
            if rounds.figures(name, rate):
                print("%s at %d/s: %.2f us of CPU; p50 %d us, p99 %d us" % (
                    name, rate, row_at(rounds, name, rate)["median"],
                    latency(rounds, name, rate, "p50_us"), latency(rounds, name, rate, "p99_us")))


def print_saturated(rows):
    ours = rows["trilane"].get("saturated")
    for name, row in rows.items():
        if ours and "saturated" in row:
            print("%s saturated: %.2f (ratio %.2f)" % (
                name, row["saturated"]["median"], row["saturated"]["median"] / ours["median"]))


def report(rounds):
    peers, ratio = compare(rounds)
    held = [rate for rate in (LAST_RATE,) + RATES if rounds.figures("trilane", rate)]
    ours = row_at(rounds, "trilane", max(held)) if held else {}
    rows = dict({"trilane": ours}, **peers)
    for name, row in rows.items():
        add_saturated(rounds, name, row)
    ours["paused"] = {str(rate): paused_at(rounds, rate) for rate in RATES
                      if rounds.figures(PAUSED, rate)}
    conditions = {"rates": RATES, "rounds": ROUNDS, "seconds": SECONDS, "body_bytes": BODY_BYTES,
                  "connections": 8, "streams": 32,
                  "trilane": {str(rate): row_at(rounds, "trilane", rate) for rate in held},
                  "all": {name: {str(rate): got for rate, got in rates.items()}
                          for name, rates in rounds.results.items()}}
    bench.write("operator-unary", "CPU us per answer", "lower", ROUNDS, ours, peers, ratio,
                conditions)
    print_latencies(rounds)
    print_saturated(rows)
    for name, rates in rounds.results.items():
        for rate in rates:
            if rounds.failures(name, rate):
                print("%s at %s/s: %d of %d rounds did not hold" % (
                    name, rate, rounds.failures(name, rate), len(rates[rate])))
    crowded = [got for got in rounds.all() if got.get("load_cores", 0) > 0.97]
    if crowded:
        print("NOTE: generator and upstream filled their core in %d runs" % len(crowded))
    bench.warn(rounds.all())


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = trilane.free_port()
        echo = trilane.Process("echo", directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(upstream)]))
        echo_pid = bench.start(stack, echo, upstream)
        programs = {name: start_peer(stack, directory, name, upstream)
                    for name in ("nghttpx", "haproxy", "nginx")}
        programs.update(start_nodes(stack, directory, upstream))
        check_duties(programs)
        body = directory / "message"
        body.write_bytes(b"\0" + (BODY_BYTES - 5).to_bytes(4, "big") + bytes(BODY_BYTES - 5))
        report(measure(programs, echo_pid, body))


if __name__ == "__main__":
    main()
