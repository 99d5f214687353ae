"""compile: milliseconds of one core from sources to parts, and the peak of memory.

10,000 routes and 100,000 rules over 1,000 services in 1,001 files: the control plane's own code
(bench-snapshot), each run a process of its own, pinned to one core. Then the same after an edit of
one rule, with what the compile before left, as the control plane has it from one publication to the
next; and both for 1,000 and 1,000. Reading the files is not in it; cutting into chunks is beside it.
"""

import json
import os
import pathlib
import subprocess
import tempfile

import bench
import large_platform
import trilane

ROUTES = int(os.environ.get("TRILANE_BENCH_ROUTES", "10000"))
RULES = int(os.environ.get("TRILANE_BENCH_RULES", "100000"))
RUNS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "9"))
SMALL = 1000


def write(directory, routes, rules, edit):
    directory.mkdir()
    for name, text in large_platform.sources(routes, edit, rules).items():
        (directory / name).write_text(text)
    return directory


def compile_all(directories):
    """What bench-snapshot says of a compile of each, one after the other in one process."""
    argv = [trilane.BUILD / "bench-snapshot", "compile"] + directories
    out = subprocess.run(bench.pinned(bench.PROGRAM_CORE, [str(a) for a in argv]), check=True,
                         stdout=subprocess.PIPE, timeout=300).stdout
    return json.loads(out)["runs"]


def measure(directory, routes, rules):
    """(runs from nothing, runs after an edit): peaks of the first are of one compile alone."""
    first = write(directory / ("%d-first" % rules), routes, rules, 0)
    edited = write(directory / ("%d-edited" % rules), routes, rules, 1)
    fresh = [compile_all([first])[0] for _ in range(RUNS)]
    return fresh, compile_all([first] + [edited, first] * ((RUNS + 1) // 2))[1:RUNS + 1]


def medians(runs):
    return {name: round(bench.spread([run[name] for run in runs])["median"], 3)
            for name in ("compile_ms", "cut_ms")}


def main():
    quiet = bench.Quiet()
    with tempfile.TemporaryDirectory() as directory:
        fresh, edited = measure(pathlib.Path(directory), ROUTES, RULES)
        small, small_edited = measure(pathlib.Path(directory), SMALL, SMALL)
    state = quiet.report()
    row = bench.spread([run["compile_ms"] for run in fresh])
    row["peak_bytes"] = max(run["peak_kib"] for run in fresh) * 1024
    row["cut_ms"] = medians(fresh)["cut_ms"]
    row["edited_ms"] = medians(edited)["compile_ms"]
    row["edited_cut_ms"] = medians(edited)["cut_ms"]
    row["small_ms"] = medians(small)["compile_ms"]
    row["small_edited_ms"] = medians(small_edited)["compile_ms"]
    bench.write("compile", "ms", "lower", RUNS, row, {}, {}, {
        "routes": ROUTES, "rules": RULES, "files": fresh[0]["files"], "bytes": fresh[0]["bytes"],
        "parts": fresh[0]["parts"], "small": SMALL, "machine": state,
        "all": {"fresh": fresh, "edited": edited, "small": small,
                "small_edited": small_edited}},
        goals={"median": (row["median"], 5000, "<=")})
    print("peak %d MiB; after an edit of one rule %.1f ms; %d routes and rules: %.1f, %.1f ms"
          % (row["peak_bytes"] >> 20, row["edited_ms"], SMALL, row["small_ms"],
             row["small_edited_ms"]))
    bench.warn([state])


if __name__ == "__main__":
    main()
