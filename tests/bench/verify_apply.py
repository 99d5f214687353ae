"""verify-apply: milliseconds of one core from an accepted head to the swap, all bytes at hand.

10,000 routes and 100,000 rules: the node's own code (bench-snapshot): the manifest's signature,
every chunk's digests and unpacking, every part decoded and linked, all of it persisted and synced.
Then the same for an edit of one rule on top of it; and the memory while both versions live.
"""

import json
import os
import pathlib
import subprocess
import tempfile

import bench
import compile as compile_bench
import trilane

RUNS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "15"))
STEPS = ("verify_ms", "build_ms", "persist_ms")


def measure(directory):
    dirs = [compile_bench.write(directory / name, compile_bench.ROUTES, compile_bench.RULES, edit)
            for edit, name in enumerate(("first", "edited"))]
    state = directory / "state"
    state.mkdir()
    argv = [trilane.BUILD / "bench-snapshot", "apply"] + dirs + [RUNS, state]
    out = subprocess.run(bench.pinned(bench.PROGRAM_CORE, [str(a) for a in argv]), check=True,
                         stdout=subprocess.PIPE, timeout=600).stdout
    return json.loads(out)


def steps(runs):
    return {name: round(bench.spread([run[name] for run in runs])["median"], 3) for name in STEPS}


def main():
    quiet = bench.Quiet()
    with tempfile.TemporaryDirectory(dir=str(trilane.SOURCE / "build")) as directory:
        result = measure(pathlib.Path(directory))
    state = quiet.report()
    fresh, turns = result["fresh"], result["turns"][1:]  # the first one is from nothing, too.
    row = bench.spread([run["ms"] for run in fresh])
    row["edited_ms"] = bench.spread([run["ms"] for run in turns])["median"]
    row["heap_bytes"] = fresh[0]["heap"] - result["heap_before"]
    row["heap_both_bytes"] = max(run["heap_both"] for run in turns) - result["heap_before"]
    bench.write("verify-apply", "ms", "lower", RUNS, row, {}, {}, {
        "routes": compile_bench.ROUTES, "rules": compile_bench.RULES,
        "parts": fresh[0]["parts"], "steps_ms": steps(fresh), "edited_steps_ms": steps(turns),
        "machine": state, "all": result},
        goals={"median": (row["median"], 150, "<=")})
    print("an edit of one rule %.1f ms; memory %.1f MB, while both live %.1f MB"
          % (row["edited_ms"], row["heap_bytes"] / 1e6, row["heap_both_bytes"] / 1e6))
    print("steps, ms: %s; edited: %s" % (steps(fresh), steps(turns)))
    bench.warn([state])


if __name__ == "__main__":
    main()
