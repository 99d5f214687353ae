"""operator-unary: CPU microseconds per verified answer of unary gRPC through Trilane and peers.

h2c, 128 bytes, 8 connections of 32 streams, one worker on one core, load and upstream on the other.
Trilane has identity, policy, limit, metrics and trace context on. Offered rates are fixed and the
same for each program, since the cost of a request depends on the rate; the ratio to a peer is taken
at the higher rate that both sustain.
"""

import contextlib
import os
import pathlib
import tempfile

import bench
import trilane

RATES = (20000, 60000)
LAST_RATE = 10000  # for a peer that sustains none of them.
ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "9"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "2"))
PATH = "/trilane.bench.v1.Echo/Say"
HEADERS = ("authorization: Bearer bench-token",
           "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


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


def start_trilane(stack, directory, upstream):
    platform = stack.enter_context(trilane.Platform(environment="bench"))
    policies = directory / "policies"
    policies.mkdir()
    bench.fill(bench.BENCH / "platform" / "platform.yaml", policies / "platform.yaml",
               UPSTREAM=upstream)
    cp = platform.control_plane().start()
    node = platform.node("bench-1", **{"workers": 1, "access-log": "off"})
    node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
    node.start()
    cp("publish", "-m", "bench", str(policies))
    trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
    return node.ports["listen"], node.popen.pid


def measure(programs):
    """All rounds: {name: {rate: [result, …]}}; a rate that was not sustained is not tried again."""
    results = {name: {} for name in programs}
    work = [(name, rate) for name in programs for rate in RATES]
    for round_number in range(ROUNDS):
        for name, rate in bench.shuffled(work):
            port, pid = programs[name]
            got = bench.load(port, rate, PATH, SECONDS, headers=HEADERS, watch=[pid])
            results[name].setdefault(rate, []).append(got)
            if got is None or not got["sustained"]:
                work.remove((name, rate))
                if not any(n == name for n, _ in work):
                    work.append((name, LAST_RATE))
        print("round %d of %d done" % (round_number + 1, ROUNDS), flush=True)
    return results


def sustained(results, name, rate):
    got = results[name].get(rate, [])
    return [r["cpu_us"] for r in got] if got and all(r and r["sustained"] for r in got) else []


def compare(results):
    """Rows at the rate that counts, and ratios."""
    peers, ratio = {}, {}
    for name in results:
        if name == "trilane":
            continue
        for rate in sorted(RATES, reverse=True) + [LAST_RATE]:
            theirs, ours = sustained(results, name, rate), sustained(results, "trilane", rate)
            if theirs and ours:
                peers[name] = dict(bench.spread(theirs), rate=rate)
                ratio[name] = peers[name]["median"] / bench.spread(ours)["median"]
                break
        else:
            peers[name] = {}
    return peers, ratio


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = trilane.free_port()
        echo = trilane.Process("echo", directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(upstream)]))
        bench.start(stack, echo, upstream)
        programs = {name: start_peer(stack, directory, name, upstream)
                    for name in ("nghttpx", "haproxy", "nginx")}
        programs["trilane"] = start_trilane(stack, directory, upstream)
        results = measure(programs)
        # Trilane at the last rate, too, when a peer needs it.
        if any(LAST_RATE in results[name] for name in results if name != "trilane"):
            port, pid = programs["trilane"]
            results["trilane"][LAST_RATE] = [
                bench.load(port, LAST_RATE, PATH, SECONDS, headers=HEADERS, watch=[pid])
                for _ in range(ROUNDS)]
        peers, ratio = compare(results)
        best = max((r for r in RATES if sustained(results, "trilane", r)), default=LAST_RATE)
        row = dict(bench.spread(sustained(results, "trilane", best)), rate=best)
        conditions = {"rates": RATES, "rounds": ROUNDS, "seconds": SECONDS, "body_bytes": 128,
                      "connections": 8, "streams": 32, "all": {
                          name: {str(rate): got for rate, got in rates.items()}
                          for name, rates in results.items()}}
        bench.write("operator-unary", "CPU us per answer", "lower", ROUNDS, row, peers, ratio,
                    conditions)


if __name__ == "__main__":
    main()
