"""limits: how exactly two workers of a node hold a rate that they share, beside nginx' limit_req.

1,000 keys of a header, each with a rate and a burst of its own; a trace of ten seconds in which keys
come in bursts, three times as often as they may. The same trace goes through both, over 16
connections, so that both workers see every key. What should pass is worked out from the trace; the
error is the sum of what each key had too much or too little, over what should have passed.
"""

import contextlib
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time

import bench
import trilane

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "10"))
KEYS = 1000
RATE = 2   # a second, of a key.
BURST = 5
OFFERED = 6  # a second, of a key.
CONNECTIONS = 16
ERROR_MAX = 0.01
PATH = "/trilane.bench.v1.Echo/Say"
TOKEN = "Bearer bench-token"

LIMIT = """---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: keys, tenant: bench}
spec: {target: {service: echo}, byHeaders: [x-key], rate: %d/s, burst: %d}
""" % (RATE, BURST)

NGINX = """
daemon off;
pid nginx.pid;
worker_processes 2;
error_log stderr crit;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    limit_req_zone $http_x_key zone=keys:10m rate=%dr/s;
    upstream echo { server 127.0.0.1:%d; keepalive 512; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:%d http2 reuseport;
        keepalive_requests 1000000000;
        location / {
            limit_req zone=keys burst=%d nodelay;
            grpc_pass grpc://echo;
        }
    }
}
"""


def make_trace(seed):
    """[(microseconds, key)], ascending: bursts of one to twelve calls within 20 ms."""
    rng = random.Random(seed)
    calls = []
    for key in range(KEYS):
        at = rng.uniform(0, 1)
        while at < SECONDS:
            count = rng.randint(1, 12)
            calls += [(int((at + rng.uniform(0, 0.02)) * 1e6), key) for _ in range(count)]
            at += count / OFFERED * rng.uniform(0.5, 1.5)
    return sorted(calls)


def should_pass(calls):
    """Of each key, by an exact bucket."""
    full_at = [0.0] * KEYS  # microseconds.
    passed = [0] * KEYS
    period = 1e6 / RATE
    for at, key in calls:
        then = max(full_at[key], at) + period
        if then <= at + BURST * period:
            full_at[key] = then
            passed[key] += 1
    return passed


def start_nginx(stack, directory, upstream):
    port = trilane.free_port()
    own = directory / "nginx"
    own.mkdir()
    config = own / "nginx.conf"
    config.write_text(NGINX % (RATE, upstream, port, BURST - 1))  # its burst is beside the first.
    bench.start(stack, trilane.Process("nginx", own, ["nginx", "-p", own, "-c", config]), port)
    return port


def start_node(stack, directory, upstream):
    platform = stack.enter_context(trilane.Platform(environment="bench"))
    policies = directory / "policies"
    policies.mkdir()
    file = bench.fill(bench.BENCH / "platform" / "platform.yaml", policies / "platform.yaml",
                      UPSTREAM=upstream)
    file.write_text(file.read_text() + LIMIT)
    cp = platform.control_plane().start()
    node = platform.node("bench-1", **{"workers": 2, "access-log": "off"}).start()
    cp("publish", "-m", "bench", str(policies))
    trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
    return node.ports["listen"]


def one(port, calls):
    text = "".join("%d %d\n" % call for call in calls)
    done = subprocess.run([str(trilane.BUILD / "bench-trace"), str(port), PATH, "x-key",
                           str(CONNECTIONS), TOKEN], input=text, stdout=subprocess.PIPE,
                          text=True, check=True, timeout=SECONDS + 60)
    got = json.loads(done.stdout)
    expected = should_pass(calls)
    good = got["good"] + [0] * (KEYS - len(got["good"]))
    off = [a - b for a, b in zip(good, expected)]
    budget = BURST + RATE * SECONDS
    return {"error": sum(map(abs, off)) / sum(expected), "passed": sum(good),
            "expected": sum(expected), "offered": len(calls), "keys_off": sum(map(bool, off)),
            "most_above_budget": max(0, max(good) - budget), "late_us": got["late_us"],
            "lost": got["lost"]}


def row_of(rounds):
    return dict(bench.spread([got["error"] * 100 for got in rounds]),
                most_above_budget=max(got["most_above_budget"] for got in rounds))


def main():
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = trilane.free_port()
        echo = trilane.Process("echo", directory, [str(trilane.BUILD / "bench-echo"), str(upstream)])
        bench.start(stack, echo, upstream)
        ports = {"nginx": start_nginx(stack, directory, upstream),
                 "trilane": start_node(stack, directory, upstream)}
        rounds = {name: [] for name in ports}
        for number in range(ROUNDS):
            calls = make_trace(number)
            for name in bench.shuffled(ports):
                rounds[name].append(one(ports[name], calls))
            time.sleep(BURST / RATE)  # all buckets are full again before the next trace.
            print("round %d of %d done" % (number + 1, ROUNDS), flush=True)
        rows = {name: row_of(got) for name, got in rounds.items()}
        ratio = {"nginx": rows["nginx"]["median"] / max(rows["trilane"]["median"], 1e-9)}
        conditions = {"keys": KEYS, "rate": RATE, "burst": BURST, "offered": OFFERED,
                      "seconds": SECONDS, "connections": CONNECTIONS, "all": rounds}
        goals = {"error": (max(got["error"] for got in rounds["trilane"]), ERROR_MAX, "<="),
                 "lost": (sum(got["lost"] for got in rounds["trilane"]), 0, "<=")}
        bench.write("limits", "% of what should pass", "lower", ROUNDS, rows.pop("trilane"), rows,
                    ratio, conditions, goals)


if __name__ == "__main__":
    main()
