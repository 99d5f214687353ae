"""operator-mtls: CPU microseconds per verified answer when both sides of a program are mutual TLS.

Caller to program and program to upstream: HTTP/2 under TLS 1.3, each side shows a certificate and
verifies the other's. Connections are up before the clock starts. Trilane knows its caller by the
certificate's SPIFFE id and has policy, limit, metrics and trace context on; HAProxy and nghttpx do
the same TLS and nothing else. Handshakes, full and resumed, are measured beside it.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile

import bench
import operator_rounds as rounds_of
import trilane
from operator_rounds import Load, Program, ROUNDS, SECONDS

RATES = (Load("10000", rate=10000), Load("20000", rate=20000))
LAST = Load("5000", rate=5000)  # for a peer that sustains none of them.
FULL, RESUMED = (Load(name, requests=int(150 * SECONDS)) for name in ("full", "resumed"))
PEERS = ("nghttpx", "haproxy")
CONFIGS = {"nghttpx": "nghttpx-mtls.conf", "haproxy": "haproxy-mtls.cfg"}
GOAL = 1.5  # times the CPU of a node, of HAProxy.
PROFILE = """
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: mutual}
spec:
  upstream: {tls: mtls}
"""


class Identities:
    """What each program shows, all of one CA."""

    def __init__(self, platform, directory):
        self.ca = str(platform.ca)
        self.caller = platform.issue_service("bench", "caller")
        self.echo = platform.issue_service("bench", "echo")
        self.peer = platform.issue_service("bench", "peer")
        self.bundle = directory / "peer.pem"
        self.bundle.write_text("".join(pathlib.Path(self.peer[part]).read_text()
                                       for part in ("cert", "key")))

    def flags(self):
        """Of the generator."""
        return ("--tls-ca", self.ca, "--tls-cert", self.caller["cert"], "--tls-key",
                self.caller["key"])


def start_echo(stack, directory, identities):
    port = trilane.free_port()
    echo = trilane.Process("echo", directory, bench.pinned(
        bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(port), "tls",
                          identities.echo["cert"], identities.echo["key"], identities.ca]))
    return Program(port, bench.start(stack, echo, port))


def start_peer(stack, directory, name, upstream, identities):
    port = trilane.free_port()
    file = CONFIGS[name]
    config = bench.fill(bench.BENCH / "peers" / file, directory / file, PORT=port,
                        UPSTREAM=upstream, BUNDLE=identities.bundle, CERT=identities.peer["cert"],
                        KEY=identities.peer["key"], CA=identities.ca)
    argv = {"nghttpx": ["nghttpx", "--conf=%s" % config],
            "haproxy": ["haproxy", "-db", "-f", str(config)]}[name]
    process = trilane.Process(name, directory, bench.pinned(bench.PROGRAM_CORE, argv))
    return Program(port, bench.start(stack, process, port))


def start_node(stack, directory, platform, upstream):
    policies = directory / "policies"
    policies.mkdir()
    rounds_of.write_platform(policies, upstream)
    file = policies / "platform.yaml"
    text = file.read_text()
    listed = "  grpcServices:\n    - trilane.bench.v1.Echo\n"
    assert listed in text
    file.write_text(text.replace(listed, listed + "  transport: mutual\n") + PROFILE)
    subprocess.run(["taskset", "-a", "-c", "-p", bench.LOAD_CORE, str(platform.nats.popen.pid)],
                   stdout=subprocess.DEVNULL, check=os.cpu_count() > 1)
    cp = platform.control_plane()
    cp.argv = bench.pinned(bench.LOAD_CORE, cp.argv)
    cp.start()
    node = platform.node("bench-0", **{"workers": 1, "access-log": "off"})
    node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
    node.start()
    stack.callback(node.stop)
    cp("publish", "-m", "bench", str(policies))
    trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
    return Program(node.ports["listen-tls"], node.popen.pid)


def check_duties(programs, identities):
    """Each program serves whom the certificate proves, and nobody without one."""
    for name, program in programs.items():
        known = bench.load(program.port, 200, rounds_of.PATH, 0.5, 0.1,
                           headers=(rounds_of.TRACE,), flags=identities.flags())
        assert known and known["errors"] == 0, (name, known)
        unknown = bench.load(program.port, 200, rounds_of.PATH, 0.5, 0.1,
                             headers=(rounds_of.TRACE,), flags=("--tls-ca", identities.ca))
        assert unknown is None or unknown["answers"] == 0, (name, unknown)


class Rounds(rounds_of.Rounds):
    """Runs of the generator under mutual TLS, and of handshakes."""

    def __init__(self, programs, echo_pid, directory, identities):
        super().__init__(programs, echo_pid, directory)
        self.identities = identities

    def saturate(self, program, load):
        """Loads without a rate are handshakes here: h2load shows no certificate."""
        argv = [str(trilane.BUILD / "bench-handshakes"), str(program.port), self.identities.ca,
                self.identities.caller["cert"], self.identities.caller["key"],
                str(load.requests), load.name]
        quiet, before = bench.Quiet(), bench.cpu_seconds([program.pid])
        done = subprocess.run(bench.pinned(bench.LOAD_CORE, argv), stdout=subprocess.PIPE,
                              text=True, check=False, timeout=120)
        if done.returncode != 0:
            return None
        used = bench.cpu_seconds([program.pid]) - before
        got = json.loads(done.stdout)
        # One comes before those that are counted.
        return dict(quiet.report(), sustained=True, cpu_us=used * 1e6 / (load.requests + 1),
                    in_turn_per_s=got["handshakes"] / got["seconds"])

    def one(self, name, load, number):
        if load.rate == 0:
            got = self.saturate(self.programs[name], load)
        else:
            program = self.programs[name]
            got = bench.load(program.port, load.rate, rounds_of.PATH, SECONDS,
                             headers=(rounds_of.TRACE,), watch=[program.pid],
                             helpers=self.helpers, flags=self.identities.flags())
        if got:
            got["round"] = number
        self.results[name].setdefault(load.name, []).append(got)


def add_handshakes(rounds, rows):
    """CPU of a handshake, and how many of them a core has room for in a second."""
    for name, row in rows.items():
        for load in (FULL, RESUMED):
            figure = rounds.row(name, load)
            if figure:
                row[load.name] = dict(figure, per_s=1e6 / figure["median"])


def print_handshakes(rounds, rows):
    for load in (FULL, RESUMED):
        for name, row in rows.items():
            if load.name in row:
                ratio = rounds.ratio(name, load)
                print("%s: a %s handshake %.0f us of CPU, %.0f a second of a core (ratio %.2f%s)" % (
                    name, load.name, row[load.name]["median"], row[load.name]["per_s"], ratio,
                    bench.wins(ratio)))


def report(rounds):
    fixed = (LAST, *RATES)
    peers, ratio = rounds_of.compare(rounds, fixed, PEERS)
    ours = rounds_of.own_row(rounds, fixed)
    rows = dict({"trilane": ours}, **peers)
    add_handshakes(rounds, rows)
    goals = {"haproxy": (ratio["haproxy"], GOAL, ">=")} if "haproxy" in ratio else {}
    conditions = dict(rounds_of.settings_of(rounds, (*fixed, FULL, RESUMED)),
                      trilane={load.name: rounds.row("trilane", load) for load in fixed})
    bench.write("operator-mtls", "CPU us per answer", "lower", ROUNDS, ours, peers, ratio,
                conditions, goals)
    rounds_of.print_latencies(rounds, RATES)
    print_handshakes(rounds, rows)
    rounds.warn()


def measure(rounds):
    names = list(rounds.programs)
    rounds.run([(name, load) for name in names for load in (*RATES, FULL, RESUMED)])
    slow = [name for name in names if not any(rounds.figures(name, load) for load in RATES)]
    if slow:
        print("at %s: %s" % (LAST.name, ", ".join(slow)))
        rounds.run([(name, LAST) for name in sorted(set(slow) | {"trilane"})])


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        platform = stack.enter_context(trilane.Platform(environment="bench",
                                                        trust_domain="bench.test"))
        identities = Identities(platform, directory)
        echo = start_echo(stack, directory, identities)
        programs = {name: start_peer(stack, directory, name, echo.port, identities)
                    for name in PEERS}
        programs["trilane"] = start_node(stack, directory, platform, echo.port)
        check_duties(programs, identities)
        rounds = Rounds(programs, echo.pid, directory, identities)
        measure(rounds)
        report(rounds)


if __name__ == "__main__":
    main()
