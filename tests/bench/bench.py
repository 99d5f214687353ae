"""What the benches share: programs under test on one core, load from the other, CPU read from the
kernel's own accounting, results in one form of file."""

import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import trilane  # noqa: E402

BENCH = pathlib.Path(__file__).resolve().parent
PROGRAM_CORE = "0"
LOAD_CORE = "1"
TICK = os.sysconf("SC_CLK_TCK")


def pinned(core, argv):
    """A command on one core, when there is more than one."""
    return ["taskset", "-c", core] + argv if os.cpu_count() > 1 else list(argv)


def start(stack, process, port):
    """Starts a program, ends it with the stack, waits until it listens; its process id."""
    stack.callback(process.stop)
    process.spawn()

    def listens():
        assert process.alive(), "%s ended:\n%s" % (process.name, process.log()[-2000:])
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    trilane.wait_until(listens, what="%s to listen" % process.name)
    return process.popen.pid


def fill(source, target, **values):
    """Copies a template with its UPPER-CASE words replaced."""
    text = source.read_text()
    for name, value in values.items():
        text = text.replace(name, str(value))
    target.write_text(text)
    return target


def cpu_seconds(pids):
    """User and system time of processes and all their threads so far, finely grained."""
    total = 0.0
    for pid in pids:
        for task in pathlib.Path("/proc/%d/task" % pid).iterdir():
            # sum_exec_runtime in ns; ticks of utime and stime would be 10 ms wide.
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def load(port, rate, path, seconds=2.0, warmup=0.5, headers=(), connections=8, streams=32,
         body_bytes=128, watch=()):
    """Runs the generator; returns its result with the CPU that 'watch' used, or None when it
    failed (a lost connection)."""
    argv = [str(trilane.BUILD / "bench-load"), "--port", str(port), "--path", path,
            "--rate", str(rate), "--connections", str(connections), "--streams", str(streams),
            "--body-bytes", str(body_bytes), "--warmup-ms", str(int(warmup * 1000)),
            "--duration-ms", str(int(seconds * 1000))]
    for header in headers:
        argv += ["--header", header]
    process = subprocess.Popen(pinned(LOAD_CORE, argv), stdout=subprocess.PIPE)
    time.sleep(warmup)
    before, from_s = cpu_seconds(watch), time.monotonic()
    time.sleep(seconds)
    after, to_s = cpu_seconds(watch), time.monotonic()
    out, _ = process.communicate(timeout=60)
    if process.returncode != 0:
        return None
    result = json.loads(out)
    # Both windows are as long as each other to within a few ms: scale to the generator's.
    result["cpu_s"] = (after - before) * result["seconds"] / (to_s - from_s)
    result["cpu_us"] = result["cpu_s"] * 1e6 / max(result["answers"], 1)
    result["sustained"] = (result["errors"] == 0 and
                           result["answers"] >= 0.98 * rate * result["seconds"])
    return result


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def write(name, unit, better, runs, trilane_row, peers, ratio, conditions):
    """build/bench/NAME.json, and a table on the screen."""
    directory = trilane.SOURCE / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    report = {"name": name, "unit": unit, "better": better, "runs": runs, "trilane": trilane_row,
              "peers": peers, "ratio": ratio, "conditions": conditions}
    (directory / (name + ".json")).write_text(json.dumps(report, indent=1) + "\n")
    print("%-12s %10s %10s %10s  %s" % (name, "min", "median", "max", "ratio"))
    for who, row in [("trilane", trilane_row)] + sorted(peers.items()):
        if row:
            print("%-12s %10.2f %10.2f %10.2f  %s" % (
                who, row["min"], row["median"], row["max"],
                "%.2f" % ratio[who] if who in ratio else ""))
    print("unit: %s; ratio above 1: Trilane is better; all rounds in build/bench/%s.json"
          % (unit, name))


def shuffled(items):
    items = list(items)
    random.shuffle(items)
    return items
