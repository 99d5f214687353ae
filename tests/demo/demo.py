"""demo: starts the sample platform on this machine, drives traffic through the three lanes, edits,
breaks and rolls back, kills what can be killed, and shows each step.

    ./run demo [--ha] [--keep]

Each step prints one line of what was done and one of what was seen. The first step that does not
hold ends the demo with exit code 1. Whatever was started is stopped at the end, whichever it is.
"""

import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import intruder  # noqa: E402
import trilane  # noqa: E402
import world  # noqa: E402

BOLD, DIM, RED, PLAIN = ("\033[1m", "\033[2m", "\033[31m", "\033[0m") if sys.stdout.isatty() else \
    ("", "", "", "")
CALL_S = 20  # a machine may be busy.
WAIT_S = 60
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500))


class Callers:
    """Calls Hello through a node as one of the sample platform's callers."""

    def __init__(self, demo_world):
        import grpc  # from Debian's python3-grpcio, which ./run installs first.
        import bus_pb2
        import bus_pb2_grpc
        import hello_pb2
        import hello_pb2_grpc
        self.grpc, self.pb, self.pb_grpc = grpc, hello_pb2, hello_pb2_grpc
        self.bus, self.bus_grpc = bus_pb2, bus_pb2_grpc
        self.world = demo_world
        self.channels = [self.channel(k) for k in range(demo_world.NODES)]

    def channel(self, k):
        return self.grpc.insecure_channel(self.world.node_address(k), options=OPTIONS)

    def tls_channel(self, k, identity):
        """A channel to node k that stands on a certificate."""
        read = lambda path: open(path, "rb").read()  # noqa: E731
        credentials = self.grpc.ssl_channel_credentials(
            read(self.world.platform.ca), read(identity["key"]), read(identity["cert"]))
        address = self.world.node_address(k, "listen-tls").replace("127.0.0.1", "localhost")
        return self.grpc.secure_channel(address, credentials, options=OPTIONS)

    def metadata(self, caller):
        return (("authorization", "Bearer " + world.token(caller)),)

    def hello(self, k):
        return self.pb_grpc.HelloStub(self.channels[k])

    def say(self, k, name="world", caller="web"):
        return self.hello(k).Say(self.pb.HelloRequest(name=name), timeout=CALL_S,
                                 metadata=self.metadata(caller))

    def say_many(self, k, count, caller="web"):
        return list(self.hello(k).SayMany(self.pb.HelloRequest(name="world", count=count),
                                          timeout=CALL_S, metadata=self.metadata(caller)))

    def requests(self, *names):
        return iter([self.pb.HelloRequest(name=name) for name in names])

    def collect(self, k, *names):
        return self.hello(k).Collect(self.requests(*names), timeout=CALL_S,
                                     metadata=self.metadata("web"))

    def chat(self, k, *names):
        return list(self.hello(k).Chat(self.requests(*names), timeout=CALL_S,
                                       metadata=self.metadata("web")))

    def say_mtls(self, k):
        with self.tls_channel(k, self.world.web) as channel:
            return self.pb_grpc.HelloStub(channel).Say(self.pb.HelloRequest(name="mTLS"),
                                                       timeout=CALL_S)

    def publish(self, k, payload, caller="web"):
        envelope = self.bus.Envelope(event_id="made-by-hand", canonical_type="Greeting.v1",
                                     payload=payload)
        return self.bus_grpc.BusStub(self.channels[k]).PublishOne(
            self.bus.PublishRequest(envelope=envelope), timeout=CALL_S,
            metadata=self.metadata(caller))

    def refusal(self, call, *arguments, **named):
        """What a refused call says: (status name, sentence, trailers and headers as one dict)."""
        try:
            answer = call(*arguments, **named)
        except self.grpc.RpcError as error:
            seen = dict(error.initial_metadata() or ())
            seen.update(dict(error.trailing_metadata() or ()))
            return error.code().name, error.details(), seen
        raise AssertionError("it was answered, not refused: %r" % (answer,))


class Demo:
    def __init__(self):
        self.world = None
        self.callers = None
        self.thief = None
        self.number = 0

    # --- the steps, in their order ---

    def steps(self):
        return [self.start, self.first_version, self.operator_kinds, self.operator_mtls,
                self.denial, self.events, self.event_refused, self.fetch_allowed,
                self.fetch_refused, self.edit, self.broken, self.roll_back, self.all_dead,
                self.restart, self.back]

    def start(self):
        w = self.world
        w.nats.start()
        # Nodes read all from the bucket, where somebody overwrites it later: what is sent beside the
        # hint would have them swap all the same.
        w.cp.start(content_push_bytes=0)
        trilane.wait_until(w.cp.leads, WAIT_S, "the control plane to lead")
        for node in w.nodes:
            node.start()
        w.start_services()
        return ("started NATS, one control plane, two nodes and the sample services",
                "NATS on %d, control plane on %d, node-0 on %d, node-1 on %d; neither is ready "
                "before the first snapshot: %s" % (
                    w.nats.port, w.cp.port, w.nodes[0].ports["listen"],
                    w.nodes[1].ports["listen"], [n.ready() for n in w.nodes]))

    def first_version(self):
        self.publish("the sample platform")
        self.wait_version(1)
        return ("published policies/ as version 1 (trilane-cp publish)",
                "both nodes acknowledge it: %s" % self.standing())

    def operator_kinds(self):
        c = self.callers
        served_by = {c.say(k).served_by for k in (0, 1) for _ in range(20)}
        assert served_by == {"endpoint-0", "endpoint-1"}, served_by
        many = c.say_many(0, 3)
        assert [r.message for r in many] == ["Hello %d, world!" % n for n in (1, 2, 3)], many
        collected = c.collect(1, "Ada", "Grace").message
        assert collected == "Hello, Ada and Grace!", collected
        chat = [r.message for r in c.chat(0, "Ada", "Grace")]
        assert chat == ["Hello, Ada!", "Hello, Grace!"], chat
        context = c.say(1).context
        assert context["x-caller-id"].endswith("/tenant/acme/service/web"), context
        assert context["x-tenant-id"] == "acme" and context["traceparent"], context
        return ("called Hello through both nodes as acme/web: unary, both streams, bidirectional",
                "all four kinds answered by %s; the service saw caller %s and tenant %s" % (
                    " and ".join(sorted(served_by)), context["x-caller-id"],
                    context["x-tenant-id"]))

    def operator_mtls(self):
        answer = self.callers.say_mtls(1)
        caller = answer.context["x-caller-id"]
        assert answer.message == "Hello, mTLS!" and caller.endswith("/service/web"), answer
        return ("called over TLS with a client certificate in place of the token",
                "\"%s\" for %s" % (answer.message, caller))

    def denial(self):
        status, message, seen = self.callers.refusal(self.callers.say, 0, caller="intruder")
        assert status == "PERMISSION_DENIED", (status, message)
        assert seen.get("x-trilane-code") == "POLICY_DENIED", seen
        assert seen.get("x-trilane-version") == "1", seen
        rule = seen.get("x-trilane-rule")
        assert rule and "no-suspended-callers" in rule, seen
        return ("called as globex/intruder, whose traits say that it is suspended",
                "%s, code %s, rule %s, version %s" % (status, seen["x-trilane-code"], rule,
                                                      seen["x-trilane-version"]))

    def events(self):
        trilane.wait_until(lambda: self.world.canonical_api("GET", "/greetings")[1]["opened"],
                           WAIT_S, "hello-canonical's subscription through node-1")
        before = len(self.world.canonical_api("GET", "/greetings")[1]["greetings"])
        status, sent = self.world.canonical_api(
            "POST", "/greet", {"to": "world", "text": "greeting %d", "count": 5})
        assert status == 200, sent
        ids = [event["event_id"] for event in sent]

        def arrived():
            seen = self.world.canonical_api("GET", "/greetings")[1]["greetings"][before:]
            return seen if len(seen) >= len(ids) else None
        seen = trilane.wait_until(arrived, WAIT_S, "five greetings")
        assert [event["event_id"] for event in seen] == ids, (sent, seen)
        assert all(event["tenant"] == "acme" for event in seen), seen
        return ("hello-canonical published 5 Greeting.v1 through node-0",
                "JetStream has them as %d to %d; received through node-1 in order, each once" % (
                    sent[0]["sequence"], sent[-1]["sequence"]))

    def event_refused(self):
        status, message, seen = self.callers.refusal(self.callers.publish, 0,
                                                     b"\x0a\x7fnot a Greeting")
        assert seen.get("x-trilane-code") == "PAYLOAD_MALFORMED", (status, message, seen)
        return ("published bytes that are no Greeting", "%s: %s" % (status, message))

    def fetch_allowed(self):
        outside = self.world.port(world.OUTSIDE_PORT)
        url = "http://127.0.0.1:%d/public/hello" % outside
        status, _, body = self.world.fetch(0, url)
        assert status == 200, (status, body)
        seen = json.loads(body)
        assert seen["path"] == "/public/hello", seen
        assert "proxy-authorization" not in seen["headers"], seen
        status, _, body = self.world.fetch_by_path(1, url)
        assert status == 200 and "authorization" not in json.loads(body)["headers"], body
        status, _, body = self.world.tunnel(1, outside, "/public/hello")
        assert status == 200, (status, body)
        return ("fetched %s through the proxy lane, as proxy request, /v1/fetch and CONNECT" % url,
                "200 each; the token stayed in the node")

    def fetch_refused(self):
        outside = self.world.port(world.OUTSIDE_PORT)
        codes = []
        for url in ("http://127.0.0.1:%d/private" % outside, "http://example.org/",
                    "http://169.254.169.254/latest/meta-data/"):
            status, headers, _ = self.world.fetch(0, url)
            assert status == 403, (url, status)
            codes.append(headers["x-trilane-code"])
        return ("fetched a path, a host and a metadata address that no Egress names",
                "403 each: " + ", ".join(codes))

    def edit(self):
        status, _, _ = self.callers.refusal(self.callers.say_many, 0, 1, caller="reports")
        assert status == "PERMISSION_DENIED", status
        self.edit_policies("acme/policies.yaml",
                           "        - service: reports\n"
                           "      methods: [/trilane.demo.hello.v1.Hello/Say]",
                           "        - service: reports\n"
                           "      methods: [\"/trilane.demo.hello.v1.Hello/*\"]")
        self.publish("reports may call all of Hello")
        self.wait_version(2)
        for k in (0, 1):
            assert len(self.callers.say_many(k, 1, caller="reports")) == 1
        return ("edited a policy so that acme/reports may call all of Hello, published version 2",
                "both nodes acknowledge it: %s; what was denied before is answered now" %
                self.standing())

    def broken(self):
        self.edit_policies("acme/policies.yaml", "name: reports-may-say", "name: reports-may-call")
        self.thief = intruder.Intruder(self.world.nats.port, world.ENVIRONMENT)
        # Nodes fetch when all of it is broken, however soon the intruder gets to do so.
        for node in self.world.nodes:
            node.pause()
        self.publish("a version that an intruder breaks", live=False)
        self.thief.catch_up()
        for node in self.world.nodes:
            node.resume()
        codes = trilane.wait_until(self.refused_by_both, WAIT_S, "both nodes to refuse version 3")
        assert self.thief.overwritten > 0
        versions = [node.version() for node in self.world.nodes]
        assert versions == [2, 2], versions
        for k in (0, 1):
            assert self.callers.say(k).message == "Hello, world!"
        return ("published version 3 while somebody with an administrator's NATS password overwrote "
                "its chunks",
                "both nodes refuse it (%s) and go on serving version 2; see trilane-cp status" %
                ", ".join(codes))

    def roll_back(self):
        self.world.cp("rollback", "2", "-m", "back to what worked")
        self.wait_version(4)
        self.thief.close()
        trilane.wait_until(lambda: not any(self.refusals()), WAIT_S, "the refusals to be over")
        assert len(self.callers.say_many(0, 1, caller="reports")) == 1
        return ("rolled back to version 2, which is published as version 4, the intruder still there",
                "both nodes hold its chunks already and acknowledge it: %s" % self.standing())

    def all_dead(self):
        self.world.cp.kill()
        self.world.nats.kill()
        start = time.monotonic()
        answers = 0
        while time.monotonic() - start < 2:
            answers += sum(self.callers.say(k).message == "Hello, world!" for k in (0, 1))
        status, answer = self.world.canonical_api("POST", "/greet", {"to": "x", "text": "lost"})
        assert status == 502, answer
        return ("killed the control plane and NATS (SIGKILL)",
                "%d calls in 2 s, all answered; an event is refused to its publisher: %s" % (
                    answers, answer["message"]))

    def restart(self):
        node = self.world.nodes[1]
        node.kill()
        node.start()
        trilane.wait_until(node.ready, WAIT_S, "node-1 to be ready")
        version = node.version()
        assert version == 4, version
        answer = trilane.wait_until(self.say_after_restart, WAIT_S, "a call through node-1")
        return ("killed node-1 and started it again, with control plane and NATS still dead",
                "it serves version %d from its disk: \"%s\"" % (version, answer.message))

    def back(self):
        self.world.nats.start()
        self.world.cp.start()
        trilane.wait_until(self.world.cp.leads, WAIT_S, "the old lease to run out")
        self.wait_version(self.publish("everything is back"))

        def greeted():
            return self.world.canonical_api("POST", "/greet", {"to": "all", "text": "back"})[0] \
                == 200
        trilane.wait_until(greeted, WAIT_S, "events to flow again")
        return ("started NATS and the control plane again and published",
                "both nodes acknowledge it: %s; events flow again" % self.standing())

    # --- what the steps share ---

    def say_after_restart(self):
        try:
            return self.callers.say(1, "again")
        except self.callers.grpc.RpcError:
            return None  # the channel still backs off from the dead process.

    def publish(self, message, live=True):
        """Publishes the copy of policies/; whether the nodes take it is for the step to say. The
        version."""
        w = self.world
        done = w.cp.run("publish", "--output", "json", "-m", message, "--timeout",
                        WAIT_S if live else 2, w.policies, timeout=2 * WAIT_S)
        expected = 0 if live else 4  # published, but not live.
        assert done.returncode == expected, "trilane-cp publish: exit %d\n%s%s" % (
            done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)["record"]["version"]

    def edit_policies(self, name, old, new):
        path = self.world.policies / name
        text = path.read_text()
        assert text.count(old) == 1, "%s holds %d times: %s" % (name, text.count(old), old)
        path.write_text(text.replace(old, new))

    def fleet(self):
        """What the control plane knows of the nodes, by name."""
        status = self.world.cp.json("status")
        return {node["node"]: node for node in status["nodes"]}

    def wait_version(self, version):
        def acknowledged():
            fleet = self.fleet()
            return len(fleet) == 2 and all(n["version"] == version for n in fleet.values())
        trilane.wait_until(acknowledged, WAIT_S, "both nodes to acknowledge version %d" % version)

    def refusals(self):
        return [node.get("code") or "" for _, node in sorted(self.fleet().items())]

    def refused_by_both(self):
        codes = self.refusals()
        return codes if len(codes) == 2 and all(code not in ("", "OK") for code in codes) else None

    def standing(self):
        return ", ".join("%s at %d (%s)" % (name, node["version"], node["state"])
                         for name, node in sorted(self.fleet().items()))

    # --- running ---

    def title(self):
        return "Trilane demo"

    def make_world(self):
        return world.World()

    def run(self, keep):
        world.generate()
        print("%s%s%s  (keys, certificates and state in a directory of its own)" %
              (BOLD, self.title(), PLAIN), flush=True)
        self.world = self.make_world()
        self.callers = Callers(self.world)
        start = time.monotonic()
        for step in self.steps():
            self.show(step)
        print("%sAll %d steps hold, in %.0f s.%s" % (BOLD, self.number,
                                                    time.monotonic() - start, PLAIN), flush=True)
        if keep:
            self.keep()

    def show(self, step):
        self.number += 1
        try:
            did, seen = step()
        except Exception as problem:
            print("%s%2d  %s does not hold:%s %s: %s" % (
                RED, self.number, step.__name__.replace("_", " "), PLAIN, type(problem).__name__,
                problem), flush=True)
            raise SystemExit(1) from problem
        print("%2d  %s\n    %s%s%s" % (self.number, did, DIM, seen, PLAIN), flush=True)

    def addresses(self):
        """What runs besides nodes and services, and where."""
        return [("control plane", self.world.cp.url), ("NATS", self.world.nats.url("admin"))]

    def servers(self):
        return self.world.cp.url

    def keep(self):
        w = self.world
        print("\nIt keeps running until Ctrl-C. Policies to edit: %s" % w.policies)
        for name, where in self.addresses():
            print("%-13s  %s" % (name, where))
        for node in w.nodes:
            print("%-13s  gRPC %s, TLS %d, proxy %s, admin %s" % (
                node.node_id, node.url, node.ports["listen-tls"], node.proxy, node.admin))
        print("export TRILANE_SERVER=%s TRILANE_TOKEN_FILE=%s" % (self.servers(),
                                                                 w.cp.token_path))
        for name in world.TOKENS:
            print("export DEMO_%s_TOKEN=%s" % (name.upper().replace("-", "_"), world.token(name)))
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def stop(number, frame):
    raise KeyboardInterrupt


def main(arguments):
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    if "--ha" in arguments:
        import demo_ha  # it stands on this module.
        demo = demo_ha.HaDemo()
    else:
        demo = Demo()
    try:
        demo.run("--keep" in arguments)
    except world.DemoError as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    finally:
        # A second Ctrl-C must not leave half of it running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if demo.world is not None:
            demo.world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
