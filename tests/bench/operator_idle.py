"""operator-idle: bytes that an idle connection takes of a node, beside the peers.

10,000 connections, each of which exchanged SETTINGS and asked once, and then says nothing; in clear
and under TLS. What counts is the growth of the program's anonymous memory, divided by connections.
Each round begins with a program that was just started and has served a few calls, so that memory
which an earlier round gave back is not taken for none.
"""

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import tempfile
import time

import bench
import trilane

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "3"))
CONNECTIONS = int(os.environ.get("TRILANE_BENCH_CONNECTIONS", "10000"))
RATE = 2000  # of the one request that each makes.
SPARE_FILES = 1500
PATH = "/trilane.bench.v1.Echo/Say"
TOKEN = "authorization: Bearer bench-token"
TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MODES = ("clear", "tls")
GOALS = {"clear": 0.5, "tls": 0.7}  # of what nghttpx takes.
SETTLED_BYTES = 64 << 10  # memory that changes by less in a step is at rest.
CONFIGS = {"nghttpx": "nghttpx.conf", "haproxy": "haproxy.cfg", "nginx": "nginx.conf"}
# What makes room for so many in the files of the peers, and time: the first waits for the last.
# Then what is TLS in them.
ROOM = {
    "nghttpx": (("workers=1", "workers=1\nfrontend-http2-read-timeout=600s\n"
                 "frontend-keep-alive-timeout=600s"),),
    "haproxy": (("maxconn 4096", "maxconn %d\n    no strict-limits" % (CONNECTIONS + 100)),
                ("timeout client 60s", "timeout client 600s"),
                ("timeout http-keep-alive 60s", "timeout http-keep-alive 600s")),
    "nginx": (("worker_connections 4096", "worker_connections 16384"),
              ("tcp_nodelay on;", "tcp_nodelay on;\n    keepalive_timeout 600s;\n"
               "    client_header_timeout 600s;"))}
SECURE = {
    "nghttpx": (("frontend=127.0.0.1,PORT;no-tls", "frontend=127.0.0.1,PORT\n"
                 "private-key-file=KEY\ncertificate-file=CERT\n"
                 "tls13-ciphers=TLS_AES_256_GCM_SHA384"),),
    "haproxy": (("bind 127.0.0.1:PORT proto h2",
                 "bind 127.0.0.1:PORT ssl crt BUNDLE alpn h2 curves X25519"),),
    "nginx": (("listen 127.0.0.1:PORT http2;", "listen 127.0.0.1:PORT ssl http2;\n"
               "        ssl_certificate CERT;\n        ssl_certificate_key KEY;\n"
               "        ssl_protocols TLSv1.2 TLSv1.3;"),)}


def check_files():
    """Ends the bench, with a sentence, when so many descriptors may not be open."""
    wanted = CONNECTIONS + SPARE_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit("operator-idle cannot run: a process may have %d open files here, and "
                         "%d connections need %d; \"ulimit -Hn\" says the bound." % (
                             hard, CONNECTIONS, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def anonymous_bytes(pid):
    for line in pathlib.Path("/proc/%d/status" % pid).read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise KeyError("RssAnon")


def settled_bytes(pid):
    """Anonymous memory, once a second has not changed it."""
    last, since = anonymous_bytes(pid), time.monotonic()

    def settled():
        nonlocal last, since
        now = anonymous_bytes(pid)
        if abs(now - last) > SETTLED_BYTES:
            last, since = now, time.monotonic()
        return time.monotonic() - since >= 1
    trilane.wait_until(settled, what="memory to come to rest")
    return anonymous_bytes(pid)


def established(port):
    """Connections of callers, as the program's side has them."""
    out = subprocess.run(["ss", "-Htn", "state", "established", "sport", "=", ":%d" % port],
                         capture_output=True, text=True, check=True)
    return len(out.stdout.splitlines())


class Peer:
    """One of the peers, started anew each time."""

    def __init__(self, directory, name, upstream, identity):
        self.directory, self.name, self.upstream = directory, name, upstream
        self.identity = identity

    def _config(self, own, mode, port):
        text = (bench.BENCH / "peers" / CONFIGS[self.name]).read_text()
        changes = ROOM[self.name] + (SECURE[self.name] if mode == "tls" else ())
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        template = own / "template"
        template.write_text(text)
        return bench.fill(template, own / CONFIGS[self.name], PORT=port, UPSTREAM=self.upstream,
                          CERT=self.identity["cert"], KEY=self.identity["key"],
                          BUNDLE=self.identity["bundle"])

    def start(self, stack, mode):
        """(port, process)"""
        port = trilane.free_port()
        own = self.directory / ("%s-%d" % (self.name, port))
        own.mkdir()
        config = self._config(own, mode, port)
        argv = {"nghttpx": ["nghttpx", "--conf=%s" % config],
                "haproxy": ["haproxy", "-db", "-f", str(config)],
                "nginx": ["nginx", "-p", str(own), "-c", str(config)]}[self.name]
        process = trilane.Process(self.name, own, bench.pinned(bench.PROGRAM_CORE, argv))
        return port, bench.start(stack, process, port)


class Trilane:
    """A node, started anew each time; its snapshot lies on its disk."""

    def __init__(self, stack, directory, platform, upstream):
        policies = directory / "policies"
        policies.mkdir()
        bench.fill(bench.BENCH / "platform" / "platform.yaml", policies / "platform.yaml",
                   UPSTREAM=upstream)
        cp = platform.control_plane()
        cp.argv = bench.pinned(bench.LOAD_CORE, cp.argv)
        cp.start()
        self.node = platform.node("bench-0", **{"workers": 1, "access-log": "off"})
        self.node.argv = bench.pinned(bench.PROGRAM_CORE, self.node.argv)
        self.node.start()
        cp("publish", "-m", "bench", str(policies))
        trilane.wait_until(lambda: self.node.version() >= 1, what="the node to serve")
        self.node.stop()

    def start(self, stack, mode):
        stack.callback(self.node.stop)
        self.node.start()
        trilane.wait_until(lambda: self.node.version() >= 1, what="the node to serve")
        return self.node.ports["listen" if mode == "clear" else "listen-tls"], self.node.popen.pid


class Callers:
    """The generator, which holds its connections after each has asked once."""

    def __init__(self, port, tls):
        argv = [str(trilane.BUILD / "bench-load"), "--port", str(port), "--path", PATH, "--hold",
                "--connections", str(CONNECTIONS), "--streams", "1", "--rate", str(RATE),
                "--warmup-ms", "0", "--duration-ms", str(CONNECTIONS * 1000 // RATE),
                "--await-ms", "10000", "--header", TOKEN, "--header", TRACE, *tls]
        self.popen = subprocess.Popen(bench.pinned(bench.LOAD_CORE, argv), stdout=subprocess.PIPE)

    def answers(self):
        """Waits until all are answered; how many were right."""
        line = self.popen.stdout.readline()
        return json.loads(line)["answers"] if line else 0  # none: one of them could not be made.

    def end(self):
        if self.popen.poll() is None:
            self.popen.terminate()
        self.popen.wait(60)
        self.popen.stdout.close()


def one(program, mode, tls):
    """A round of one program: what an idle connection takes."""
    with contextlib.ExitStack() as stack:
        port, pid = program.start(stack, mode)
        warm = bench.load(port, 200, PATH, 0.5, 0.1, headers=(TOKEN, TRACE), flags=tls)
        before = settled_bytes(pid)
        callers = Callers(port, tls)
        stack.callback(callers.end)
        answers = callers.answers()
        after = settled_bytes(pid)
        open_now = established(port)
        return {"bytes": (after - before) / CONNECTIONS, "before_bytes": before,
                "after_bytes": after, "answers": answers, "connections": open_now,
                "held": bool(warm and warm["errors"] == 0) and answers == open_now == CONNECTIONS}


def row_of(runs):
    held = [run["bytes"] for run in runs if run["held"]]
    return dict(bench.spread(held), rounds=len(held)) if held else {}


def ratios_of(rows):
    """How many times what Trilane takes each peer does."""
    ours = rows["trilane"]
    return {name: row["median"] / ours["median"] for name, row in rows.items()
            if name != "trilane" and row and ours}


def print_tls(rows, ratio):
    for name, row in rows.items():
        if row:
            print("%-14s under TLS: %6.0f bytes a connection (ratio %.2f%s)" % (
                name, row["median"], ratio.get(name, 1), bench.wins(ratio.get(name, 1))))


def report(results):
    rows = {mode: {name: row_of(runs) for name, runs in results[mode].items()} for mode in MODES}
    ratio = {mode: ratios_of(rows[mode]) for mode in MODES}
    goals = {"%s_of_nghttpx" % mode: (1 / ratio[mode]["nghttpx"], GOALS[mode], "<=")
             for mode in MODES if "nghttpx" in ratio[mode]}
    ours = dict(rows["clear"]["trilane"], tls=rows["tls"]["trilane"])
    peers = {name: dict(row, tls=rows["tls"][name], ratio_tls=ratio["tls"].get(name))
             for name, row in rows["clear"].items() if name != "trilane"}
    bench.write("operator-idle", "bytes a connection, in clear", "lower", ROUNDS, ours, peers,
                ratio["clear"], {"connections": CONNECTIONS, "rounds": ROUNDS, "all": results},
                goals)
    print_tls(rows["tls"], ratio["tls"])
    for mode in MODES:
        for name, runs in results[mode].items():
            failed = sum(1 for run in runs if not run["held"])
            if failed:
                print("%s, %s: %d of %d rounds did not hold" % (name, mode, failed, len(runs)))


def main():
    check_files()
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = trilane.free_port()
        echo = trilane.Process("echo", directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(upstream)]))
        bench.start(stack, echo, upstream)
        platform = stack.enter_context(trilane.Platform(environment="bench"))
        identity = platform.issue_service("bench", "peer")
        bundle = directory / "bundle.pem"
        bundle.write_text("".join(pathlib.Path(identity[part]).read_text()
                                  for part in ("cert", "key")))
        identity["bundle"] = bundle
        programs = {name: Peer(directory, name, upstream, identity) for name in CONFIGS}
        programs["trilane"] = Trilane(stack, directory, platform, upstream)
        tls = {"clear": (), "tls": ("--tls-ca", str(platform.ca))}
        results = {mode: {name: [] for name in programs} for mode in MODES}
        for number in range(ROUNDS):
            for mode, name in bench.shuffled((mode, name) for mode in MODES for name in programs):
                results[mode][name].append(one(programs[name], mode, tls[mode]))
            print("round %d of %d done" % (number + 1, ROUNDS), flush=True)
        report(results)


if __name__ == "__main__":
    main()
