"""Many nodes in few processes, for benches and storms: bench-nodes, driven over its pipes.

    with Platform(nats=False) as p:
        names = fleet.names(50)
        p.nats.nodes += names                # users of their own
        p.nats.start()
        with fleet.Fleet(p, names) as nodes:
            cp("publish", …)
            swaps = nodes.wait(1)            # {node: {version: ns}}
"""

import json
import os
import pathlib
import subprocess
import tempfile

import trilane

PREFIX = "node-"


def names(count):
    return ["%s%d" % (PREFIX, k) for k in range(count)]


class Fleet:
    """So many nodes, evenly over processes; each node has a user of NATS of its own unless 'user' is
    one that they share, over 'connections' of each process. 'nice': how far they give way."""

    def __init__(self, platform, count, processes=1, user=None, connections=0, sync=True,
                 silent=False, nice=0, env=None, **flags):
        self.count = count
        self.nice = nice
        self.env = dict(os.environ, **(env or {}))
        self.platform = platform
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="fleet-", dir=platform.directory))
        url = platform.nats.url(user) if user else platform.nats.url("%")
        self.programs = []
        for index in range(processes):
            first, last = (count * (index + k) // processes for k in (0, 1))
            argv = [trilane.BUILD / "bench-nodes", "--environment", platform.environment,
                    "--nats-urls", url, "--connections", connections,
                    "--trust-root", platform.root, "--state-dir", self.directory / "state",
                    "--node-keys", platform.node_keys, "--prefix", PREFIX,
                    "--first", first, "--count", last - first]
            argv += ["--no-sync"] if not sync else []
            argv += ["--silent"] if silent else []
            for name, value in flags.items():
                argv += ["--" + name.replace("_", "-"), value]
            self.programs.append(self._spawn(index, argv))
        for program in self.programs:
            assert program.stdout.readline() == "ready\n", self.log()

    def _spawn(self, index, argv):
        with open(self.directory / ("%d.log" % index), "wb") as log:
            words = [*trilane.WITH_PARENT, "nice", "-n", str(self.nice), *(str(w) for w in argv)]
            return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=log, text=True, env=self.env)

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        if kind is not None:
            print("--- nodes\n%s" % self.log()[-3000:])
        self.stop()

    def log(self):
        return "".join(path.read_text(errors="replace")
                       for path in sorted(self.directory.glob("*.log")))

    def pids(self):
        return [program.pid for program in self.programs]

    def _tell(self, line):
        for program in self.programs:
            program.stdin.write(line + "\n")
            program.stdin.flush()

    def wait(self, version, timeout=60):
        """Until all serve that version or a later one; {node: {version: ns}} of the swaps since the
        last wait. AssertionError when they do not in time."""
        self._tell("wait %d %d" % (version, timeout * 1000))
        swaps, late = {}, []
        for program in self.programs:
            for line in iter(program.stdout.readline, ""):
                words = line.split()
                if words[0] != "swap":
                    late += words[1:]
                    break
                swaps.setdefault(words[1], {})[int(words[2])] = int(words[3])
        assert not late, "%s nodes are behind version %d: %r\n%s" % (
            "+".join(late), version, self.counts(), self.log()[-2000:])
        return swaps

    def counts(self):
        """Sums over all nodes: applies, refusals, fetched_bytes; the least version served."""
        self._tell("count")
        each = [json.loads(program.stdout.readline()) for program in self.programs]
        total = {key: sum(one[key] for one in each)
                 for key in ("nodes", "applies", "refusals", "fetched_bytes", "live_snapshots")}
        total["least"] = min(one["least"] for one in each)
        total["codes"] = sorted({one["last_code"] for one in each} - {"OK"})
        return total

    def stop(self):
        """Ends all of them; each must end well."""
        for program in self.programs:
            program.stdin.close()
        codes = []
        for program in self.programs:
            try:
                codes.append(program.wait(60))
            except subprocess.TimeoutExpired:
                program.kill()
                codes.append(program.wait(10))
        self.programs = []
        assert not any(codes), "bench-nodes ended with %r\n%s" % (codes, self.log()[-3000:])
