"""operator-retry: what retries add to the load of endpoints that all fail.

Three endpoints answer every call with UNAVAILABLE, and the method may be tried five times. The
budget, which is always on, is what keeps attempts near one a call.
"""

import contextlib
import os
import pathlib
import tempfile

import bench
import operator_platform

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "4"))
RATE = 2000
PATH = "/trilane.bench.v1.Tried/Say"
METHODS = """
  methods:
    - names: [%s]
      idempotent: true
      retry: {maxAttempts: 5, initialBackoff: 1ms}
""" % PATH


def one(stack):
    """A node that was just started, so that its budget is full: attempts of a call, and the run."""
    directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    endpoints = [operator_platform.Endpoint(stack, directory, i, "fail") for i in range(3)]
    node = operator_platform.start_node(stack, directory, [operator_platform.service(
        "tried", "trilane.bench.v1.Tried", [endpoint.port for endpoint in endpoints], METHODS)])
    got = bench.load(node.ports["listen"], RATE, PATH, SECONDS, body_bytes=128,
                     headers=(operator_platform.TOKEN,), watch=[node.popen.pid],
                     helpers=[endpoint.pid for endpoint in endpoints])
    assert got and got["answers"] == 0, got  # all of them fail.
    attempts = sum(endpoint.requests() for endpoint in endpoints)
    got["attempts"] = attempts / node.metric("trilane_requests_total")
    return got


def main():
    runs = []
    for number in range(ROUNDS):
        with contextlib.ExitStack() as stack:
            runs.append(one(stack))
        print("round %d of %d done" % (number + 1, ROUNDS), flush=True)
    row = bench.spread([got["attempts"] for got in runs])
    conditions = {"rate": RATE, "rounds": ROUNDS, "seconds": SECONDS, "endpoints": 3, "all": runs}
    bench.write("operator-retry", "attempts a call, all of which fail", "lower", ROUNDS, row, {}, {},
                conditions, {"attempts": (row["max"], 1.2, "<=")})
    bench.warn(runs)


if __name__ == "__main__":
    main()
