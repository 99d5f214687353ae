"""What the benches share: programs under test on one core, load from the other, CPU read from the
kernel's own accounting, results in one form of file."""

import json
import operator
import os
import pathlib
import random
import signal
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
BOUNDS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge}

# Out of time: what was started is ended, as on ^C.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("the bench was ended"))


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


def preloadable(directory, library):
    """The library by a name without spaces, which LD_PRELOAD would part."""
    link = pathlib.Path(directory) / library.name
    link.symlink_to(library)
    return link


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


def preemptions(pids):
    """How often something else took the core from a thread that wanted to go on."""
    total = 0
    for pid in pids:
        for task in pathlib.Path("/proc/%d/task" % pid).iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("nonvoluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def _machine_seconds():
    """Of all cores since boot: (at work, stolen by the host)."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = [
            int(word) / TICK for word in file.readline().split()[1:9]]
    return user + nice + system + irq + softirq, steal


def _family_seconds():
    """User and system time of this process and all that it started, those that ended too."""
    parents, used = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended meanwhile.
        pid = int(entry.name)
        parents[pid] = int(words[1])
        used[pid] = sum(int(word) for word in words[11:15]) / TICK  # with awaited children.
    total = 0.0
    for pid, seconds in used.items():
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        total += seconds if above == os.getpid() else 0
    return total


class Quiet:
    """Whether the machine worked for anybody else meanwhile."""

    FOREIGN_MAX = 0.05  # cores.
    STEAL_MAX = 0.01    # of the time of one core.

    def __init__(self):
        self.from_s, self.machine, self.family = self._now()

    @staticmethod
    def _now():
        return time.monotonic(), _machine_seconds(), _family_seconds()

    def report(self):
        """{"foreign_cores", "steal_cores", "quiet"} since the start of this object."""
        to_s, machine, family = self._now()
        seconds = to_s - self.from_s
        foreign = max(0.0, machine[0] - self.machine[0] - (family - self.family)) / seconds
        steal = (machine[1] - self.machine[1]) / seconds
        return {"foreign_cores": round(foreign, 3), "steal_cores": round(steal, 3),
                "quiet": foreign <= self.FOREIGN_MAX and steal <= self.STEAL_MAX}


def machine():
    """What the figures depend on beside the programs."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return {"cores": os.cpu_count(), "cpu": models[0] if models else "",
            "kernel": os.uname().release}


def load(port, rate, path, seconds=2.0, warmup=0.5, headers=(), connections=8, streams=32,
         body_bytes=128, watch=(), helpers=(), flags=()):
    """Runs the generator, with 'flags' beside; returns its result with the CPU that 'watch' used;
    'helpers' share the generator's core. None: the run was cut short (a connection was lost)."""
    argv = [str(trilane.BUILD / "bench-load"), "--port", str(port), "--path", path,
            "--rate", str(rate), "--connections", str(connections), "--streams", str(streams),
            "--body-bytes", str(body_bytes), "--warmup-ms", str(int(warmup * 1000)),
            "--duration-ms", str(int(seconds * 1000)), *flags]
    for header in headers:
        argv += ["--header", header]
    process = subprocess.Popen(pinned(LOAD_CORE, argv), stdout=subprocess.PIPE)
    loading = [process.pid] + list(helpers)
    time.sleep(warmup)
    quiet = Quiet()
    before = cpu_seconds(watch), cpu_seconds(loading), preemptions(watch), time.monotonic()
    time.sleep(seconds)
    after = cpu_seconds(watch), cpu_seconds(loading), preemptions(watch), time.monotonic()
    state = quiet.report()
    out, _ = process.communicate(timeout=60)
    if process.returncode != 0:
        return None
    result = json.loads(out)
    elapsed = after[3] - before[3]
    # Both windows are as long as each other to within a few ms: scale to the generator's.
    result["cpu_s"] = (after[0] - before[0]) * result["seconds"] / elapsed
    result["cpu_us"] = result["cpu_s"] * 1e6 / max(result["answers"], 1)
    result["load_cores"] = round((after[1] - before[1]) / elapsed, 3)
    result["preemptions"] = after[2] - before[2]
    result.update(state)
    # Every answer was right, and no backlog had grown by the end beyond 2 % of a second's requests.
    result["sustained"] = result["errors"] == 0 and result["behind"] <= 0.02 * rate
    return result


def saturate(port, path, requests, body, headers=(), watch=(), connections=8, streams=32):
    """h2load keeps all streams busy until so many requests are answered; the CPU that 'watch' used
    for one. None: some failed."""
    argv = ["h2load", "-c", str(connections), "-m", str(streams), "-n", str(requests),
            "-d", str(body)]
    for header in headers:
        argv += ["-H", header]
    argv.append("http://127.0.0.1:%d%s" % (port, path))
    quiet = Quiet()
    before, started = cpu_seconds(watch), time.monotonic()
    try:
        out = subprocess.run(pinned(LOAD_CORE, argv), stdout=subprocess.PIPE, text=True,
                             check=False, timeout=120).stdout
    except subprocess.TimeoutExpired:
        return None
    seconds, used = time.monotonic() - started, cpu_seconds(watch) - before
    if "%d succeeded, 0 failed, 0 errored" % requests not in out:
        return None
    return dict(quiet.report(), cpu_us=used * 1e6 / requests, answers_per_s=requests / seconds)


def rest():
    """So that nothing falls in step with heads, heartbeats or what went before."""
    time.sleep(random.uniform(0.1, 0.4))


def percentile(values, percent):
    """The nearest rank: a value that was measured."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(int(rank), 1) - 1]


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def judge(goals):
    """Of {figure: (value, bound, "<=", "<" or ">=")}: each with whether it was met."""
    return {figure: {"value": value, "bound": bound, "sign": sign,
                     "met": BOUNDS[sign](value, bound)}
            for figure, (value, bound, sign) in goals.items()}


def goal_lines(judged):
    return ["goal %s: %.6g %s %.6g: %s" % (figure, goal["value"], goal["sign"], goal["bound"],
                                           "met" if goal["met"] else "MISSED")
            for figure, goal in judged.items()]


def wins(ratio):
    """What a table says behind a ratio, when it is the peer that is better."""
    return "" if ratio >= 1 else ", the peer wins"


def write(name, unit, better, runs, trilane_row, peers, ratio, conditions, goals=None):
    """build/bench/NAME.json, and a table on the screen, with whether the goals were met: judge()."""
    judged = judge(goals or {})
    directory = trilane.SOURCE / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    report = {"name": name, "unit": unit, "better": better, "runs": runs, "trilane": trilane_row,
              "peers": peers, "ratio": ratio, "conditions": dict(conditions, goals=judged, **machine())}
    (directory / (name + ".json")).write_text(json.dumps(report, indent=1) + "\n")
    print("%-14s %10s %10s %10s %7s  %s" % (name, "min", "median", "max", "ratio", "at"))
    for who, row in [("trilane", trilane_row)] + sorted(peers.items()):
        if "median" in row:
            print("%-14s %10.2f %10.2f %10.2f %7s  %s%s" % (
                who, row["min"], row["median"], row["max"],
                "%.2f" % ratio[who] if who in ratio else "",
                "%d/s" % row["rate"] if "rate" in row else "", wins(ratio.get(who, 1))))
        elif "p99_us" in row:  # of what is measured beside.
            print("%-14s requests: p50 %.0f us, p99 %.0f us" % (who, row["p50_us"], row["p99_us"]))
        else:
            print("%-14s no figure: it sustained none of the rates" % who)
    print("unit: %s; ratio above 1: Trilane is better; all runs in build/bench/%s.json"
          % (unit, name))
    for line in goal_lines(judged):
        print(line)


def warn(states):
    """Says on the screen when the machine was busy with something else during some of the runs."""
    loud = [state for state in states if not state["quiet"]]
    if loud:
        print("WARNING: the machine was not quiet in %d of %d runs (up to %.2f cores at work for "
              "others, %.2f stolen): take these figures for nothing" % (
                  len(loud), len(states), max(state["foreign_cores"] for state in loud),
                  max(state["steal_cores"] for state in loud)))


def shuffled(items):
    items = list(items)
    random.shuffle(items)
    return items
