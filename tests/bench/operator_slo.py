"""operator-slo: absolute latencies of the sample platform under mixed load, beside the objective.

One node with one worker and all that it does: callers' certificates, policies, limits, metrics, trace
context, access log. Of all requests 60 % are unary calls of the operator lane, 10 % streams of eight
messages each way, 15 % publications of the canonical lane, each of which goes to a subscriber, and 15 %
fetches through the proxy lane. The objective holds for each of these alone, and for deliveries.
"""

import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import bench
import grpc
import trilane

ROUNDS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "9"))
SECONDS = float(os.environ.get("TRILANE_BENCH_SECONDS", "3"))
WARMUP = 1.0
RATES = (1000, 10000)
OBJECTIVE = {"p50": 5.0, "p95": 20.0}  # ms.
PERCENTILES = ("p50", "p95", "p99")
FAILURES_MAX = ROUNDS // 4
NEVER_MS = 1e9  # of a rate that is not sustained.
MESSAGES = 8  # of a stream, each way.
ACK_EVERY, CREDIT = 16, 1000
TRACE = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HELLO = "/trilane.demo.hello.v1.Hello/"
# Kind of request: its share of the rate, in hundredths, and its connections.
SHARES = {"unary": (60, 8), "stream": (10, 4), "publish": (15, 4), "fetch": (15, 16)}
# The sample's limits are small, so that its demo runs into them.
LIMITS = ((r"rate: 5000/s\n  burst: 10000", "rate: 100000/s\n  burst: 100000"),
          (r"rate: 2000/s\n  burst: 4000", "rate: 100000/s\n  burst: 100000"))
OUTSIDE = """
daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    server {
        listen 127.0.0.1:PORT;
        location /public { return 200 "WORDS"; }
    }
}
"""


def field(number, value):
    """One of protobuf's fields of length: bytes or text."""
    value = value.encode() if isinstance(value, str) else value
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def framed(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


def greeting():
    """A PublishRequest: an Envelope without an id, so that each is an event of its own."""
    payload = field(1, "web") + field(2, "everybody") + field(3, "x" * 64)
    return field(1, field(3, "Greeting.v1") + field(4, payload) + field(13, "everybody"))


class Kinds:
    """How each kind of request is made: flags of the generator."""

    def __init__(self, directory, node, outside):
        hello = framed(field(1, "x" * 64))
        bodies = {"unary": hello, "stream": hello * MESSAGES, "publish": framed(greeting())}
        for name, body in bodies.items():
            (directory / name).write_bytes(body)
        port, proxy = node.ports["listen-tls"], node.ports["listen-proxy-tls"]
        fetch = "/v1/fetch?url=http%%3A%%2F%%2F127.0.0.1%%3A%d%%2Fpublic%%2Fpage" % outside

        def grpc_flags(name, path, *more):
            return ["--port", str(port), "--path", path, "--body-file", str(directory / name), *more]
        self.flags = {
            "unary": grpc_flags("unary", HELLO + "Say"),
            "stream": grpc_flags("stream", HELLO + "Chat"),
            "publish": grpc_flags("publish", "/trilane.bus.v1.Bus/PublishOne", "--no-echo"),
            "fetch": ["--port", str(proxy), "--path", fetch, "--protocol", "http1", "--no-echo",
                      "--body-bytes", "0"]}


class Subscriber(threading.Thread):
    """Takes and acknowledges each event; when it was published, and how long it took to come."""

    def __init__(self, directory, port, ca, identity):
        super().__init__(daemon=True)
        self.deliveries = []  # (time, latency), ms.
        self.requests = queue.Queue()
        self.opened = threading.Event()
        self.bus = self._generated(directory)
        read = {part: pathlib.Path(path).read_bytes() for part, path in identity.items()}
        self.channel = grpc.secure_channel("127.0.0.1:%d" % port, grpc.ssl_channel_credentials(
            pathlib.Path(ca).read_bytes(), read["key"], read["cert"]))
        self.start()
        assert self.opened.wait(30), "the subscription did not open"

    @staticmethod
    def _generated(directory):
        source = trilane.SOURCE / "proto" / "trilane" / "bus" / "v1" / "bus.proto"
        subprocess.run(["protoc", "-I", source.parent, "--python_out", directory, source],
                       check=True)
        sys.path.insert(0, str(directory))
        import bus_pb2  # pylint: disable=import-outside-toplevel,import-error
        return bus_pb2

    def run(self):
        method = self.channel.stream_stream(
            "/trilane.bus.v1.Bus/Subscribe",
            request_serializer=self.bus.SubscribeRequest.SerializeToString,
            response_deserializer=self.bus.SubscribeResponse.FromString)
        self.requests.put(self.bus.SubscribeRequest(open=self.bus.Open(
            consumer="bench", types=["Greeting.v1"], credit=CREDIT)))
        unanswered = []
        with contextlib.suppress(grpc.RpcError):  # the end.
            for answer in method(iter(self.requests.get, None)):
                if answer.opened:
                    self.opened.set()
                    continue
                sent = answer.envelope.time_ms
                self.deliveries.append((sent, time.time() * 1000 - sent))
                unanswered.append(answer.delivery)
                if len(unanswered) == ACK_EVERY:
                    self.requests.put(self.bus.SubscribeRequest(ack=unanswered, credit=ACK_EVERY))
                    unanswered = []

    def end(self):
        self.requests.put(None)
        self.channel.close()
        self.join(30)

    def between(self, from_ms, to_ms):
        return [latency for sent, latency in self.deliveries if from_ms <= sent < to_ms]


class Sample:
    """The sample platform with services that answer fast, and limits that are not met."""

    def __init__(self, stack, directory):
        self.platform = stack.enter_context(trilane.Platform(
            environment="demo", trust_domain="demo.trilane.test"))
        self.ports = {old: trilane.free_port() for old in (15051, 15052, 15061, 15080)}
        self.helpers = [self._echo(stack, directory, port) for port in (15051, 15052)]
        self.helpers.append(self._outside(stack, directory))
        self.node = self._start(self._policies(directory))
        self.identities = {name: self.platform.issue_service("acme", name)
                           for name in ("web", "hello-canonical")}

    def _echo(self, stack, directory, number):
        port = self.ports[number]
        echo = trilane.Process("echo-%d" % number, directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(port)]))
        return bench.start(stack, echo, port)

    def _outside(self, stack, directory):
        own = directory / "outside"
        own.mkdir()
        (own / "template").write_text(OUTSIDE)
        config = bench.fill(own / "template", own / "nginx.conf", PORT=self.ports[15080],
                            WORDS="x" * 128)
        nginx = trilane.Process("outside", own, bench.pinned(
            bench.LOAD_CORE, ["nginx", "-p", str(own), "-c", str(config)]))
        return bench.start(stack, nginx, self.ports[15080])

    def _policies(self, directory):
        policies = directory / "policies"
        shutil.copytree(trilane.POLICIES, policies)
        raised = 0
        for path in policies.rglob("*.yaml"):
            text = path.read_text()
            for old, new in self.ports.items():
                text = re.sub(r"\b%d\b" % old, str(new), text)
            for small, large in LIMITS:
                text, count = re.subn(small, large, text)
                raised += count
            path.write_text(text)
        assert raised == len(LIMITS), "the sample's limits are others"
        return policies

    def _start(self, policies):
        cp = self.platform.control_plane()
        for program in (cp, self.platform.nats):
            program.argv = bench.pinned(bench.LOAD_CORE, program.argv)
        subprocess.run(["taskset", "-a", "-c", "-p", bench.LOAD_CORE,
                        str(self.platform.nats.popen.pid)], stdout=subprocess.DEVNULL,
                       check=os.cpu_count() > 1)
        cp.start()
        node = self.platform.node("slo-0", **{"workers": 1})
        node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
        node.start()
        cp("publish", "-m", "slo", str(policies))
        trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
        self.helpers.append(self.platform.nats.popen.pid)
        return node


class Runs:
    def __init__(self, sample, kinds, subscriber):
        self.sample, self.kinds, self.subscriber = sample, kinds, subscriber
        web = sample.identities["web"]
        self.tls = ["--tls-ca", str(sample.platform.ca), "--tls-cert", web["cert"], "--tls-key",
                    web["key"]]
        self.results = {rate: [] for rate in RATES}

    def _generators(self, rate):
        found = {}
        for name, (share, connections) in SHARES.items():
            argv = [str(trilane.BUILD / "bench-load"), *self.kinds.flags[name], *self.tls,
                    "--rate", str(rate * share // 100), "--connections", str(connections),
                    "--warmup-ms", str(int(WARMUP * 1000)), "--duration-ms",
                    str(int(SECONDS * 1000)), "--header", TRACE]
            found[name] = subprocess.Popen(bench.pinned(bench.LOAD_CORE, argv),
                                           stdout=subprocess.PIPE)
        return found

    def one(self, rate):
        """A run of all kinds at once; None when a connection was lost."""
        node = self.sample.node.popen.pid
        quiet, generators = bench.Quiet(), self._generators(rate)
        time.sleep(WARMUP)
        loading = [process.pid for process in generators.values()]
        loading += self.sample.helpers + [os.getpid()]
        from_ms, before = time.time() * 1000, (bench.cpu_seconds([node]), bench.cpu_seconds(loading))
        time.sleep(SECONDS)
        to_ms, after = time.time() * 1000, (bench.cpu_seconds([node]), bench.cpu_seconds(loading))
        outputs = {name: process.communicate(timeout=60)[0]
                   for name, process in generators.items()}
        if any(process.returncode != 0 for process in generators.values()):
            return None
        seconds = (to_ms - from_ms) / 1000
        got = {name: json.loads(out) for name, out in outputs.items()}
        got["delivery"] = self._deliveries(from_ms, to_ms, rate * SHARES["publish"][0] / 100)
        return dict(quiet.report(), kinds=got, node_cores=(after[0] - before[0]) / seconds,
                    load_cores=(after[1] - before[1]) / seconds,
                    sustained=all(self._sustained(name, each) for name, each in got.items()))

    def _deliveries(self, from_ms, to_ms, rate):
        """Of what was published in this time; each of them has to come."""
        expected = rate * (to_ms - from_ms) / 1000

        def come():
            return len(self.subscriber.between(from_ms, to_ms)) >= 0.98 * expected
        with contextlib.suppress(AssertionError):
            trilane.wait_until(come, timeout=2, what="the deliveries")
        latencies = self.subscriber.between(from_ms, to_ms)
        return dict({"%s_us" % p: bench.percentile(latencies, int(p[1:])) * 1000
                     for p in PERCENTILES} if latencies else {},
                    answers=len(latencies), expected=expected)

    @staticmethod
    def _sustained(name, got):
        if name == "delivery":
            return got["answers"] >= 0.98 * got["expected"]
        return got["errors"] == 0 and got["behind"] <= 0.02 * got["rate"]

    def run(self):
        for number in range(ROUNDS):
            for rate in bench.shuffled(RATES):
                self.results[rate].append(self.one(rate))
                bench.rest()
            print("round %d of %d done" % (number + 1, ROUNDS), flush=True)

    def held(self, rate):
        held = [got for got in self.results[rate] if got and got["sustained"]]
        return held if len(held) >= ROUNDS - FAILURES_MAX else []

    def median_ms(self, rate, kind, percentile):
        return statistics.median(got["kinds"][kind]["%s_us" % percentile] / 1000
                                 for got in self.held(rate))


def worst_ms(got, percentile):
    """Of the kinds of a run, the one that takes longest."""
    return max(each["%s_us" % percentile] / 1000 for each in got["kinds"].values())


def goals_of(runs):
    goals = {}
    for rate in RATES:
        for percentile, bound in OBJECTIVE.items():
            figures = [worst_ms(got, percentile) for got in runs.held(rate)]
            value = statistics.median(figures) if figures else NEVER_MS
            goals["%d.%s_ms" % (rate, percentile)] = (value, bound, "<")
    return goals


def print_kinds(runs):
    print("%-8s %-9s %8s %8s %8s   ms; objective: p50 < %g, p95 < %g" % (
        "a second", "kind", *PERCENTILES, OBJECTIVE["p50"], OBJECTIVE["p95"]))
    for rate in RATES:
        if not runs.held(rate):
            failed = sum(1 for got in runs.results[rate] if not (got and got["sustained"]))
            print("%-8d not sustained in %d of %d rounds" % (rate, failed, ROUNDS))
            continue
        for kind in (*SHARES, "delivery"):
            print("%-8d %-9s %8.2f %8.2f %8.2f" % (
                rate, kind, *(runs.median_ms(rate, kind, p) for p in PERCENTILES)))
        print("%-8d cores: node %.2f, all else %.2f" % (rate, *(
            statistics.median(got[field] for got in runs.held(rate))
            for field in ("node_cores", "load_cores"))))


def report(runs):
    rates = {str(rate): {kind: {p: runs.median_ms(rate, kind, p) for p in PERCENTILES}
                         for kind in (*SHARES, "delivery")} for rate in RATES if runs.held(rate)}
    last = [worst_ms(got, "p95") for got in runs.held(RATES[-1])]
    ours = dict(bench.spread(last), rate=RATES[-1], rounds=len(last)) if last else {}
    ours["rates"] = rates
    conditions = {"rounds": ROUNDS, "seconds": SECONDS, "rates": RATES, "shares": SHARES,
                  "messages": MESSAGES, "all": {str(rate): got for rate, got in runs.results.items()}}
    print_kinds(runs)
    bench.write("operator-slo", "ms, p95 of the slowest kind", "lower", ROUNDS, ours, {}, {},
                conditions, goals_of(runs))
    bench.warn([got for rate in RATES for got in runs.results[rate] if got])


def main():
    if os.cpu_count() > 1:
        os.sched_setaffinity(0, {int(bench.LOAD_CORE)})  # the subscriber's, too.
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sample = Sample(stack, directory)
        kinds = Kinds(directory, sample.node, sample.ports[15080])
        subscriber = Subscriber(directory, sample.node.ports["listen-tls"], sample.platform.ca,
                                sample.identities["hello-canonical"])
        stack.callback(subscriber.end)
        runs = Runs(sample, kinds, subscriber)
        runs.run()
        report(runs)


if __name__ == "__main__":
    main()
