"""What a node answers by itself: why it refused a request, and by grpc.reflection what it serves; and
what it knows of streams from the same descriptors."""

import json
import queue
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import echo_service as echo
import trilane

pb = echo.pb
TIMEOUT_S = 0.7
ECHO = "trilane.test.v1.Echo"
PLAIN = "trilane.test.v1.Plain"
STAGED = "trilane.test.v1.Staged"
TIMED = "trilane.test.v1.Timed"
VERSIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")

_generated = tempfile.TemporaryDirectory(prefix="trilane-reflection-")


def protoc(*arguments):
    subprocess.run(["protoc", "--proto_path=%s" % echo.HERE, *arguments], check=True)


protoc("--python_out=%s" % _generated.name, "reflection.proto")
sys.path.insert(0, _generated.name)
import reflection_pb2 as rpb


def descriptor_set():
    """Of echo.proto, as protoc writes it."""
    path = _generated.name + "/echo.binpb"
    protoc("--include_imports", "--descriptor_set_out=%s" % path, "echo.proto")
    with open(path, "rb") as file:
        return file.read()


def sources(port):
    """Echo has descriptors; Plain has none; Hidden has no policy; Timed is open by the clock, and
    Staged by a header."""
    more = """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: plain, tenant: acme}
spec: {grpcServices: [%s]}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: plain, tenant: acme}
spec:
  target: {service: plain}
  rules:
    - {name: all, effect: allow, callers: [{tenant: acme}]}
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: seldom, tenant: acme}
spec: {target: {service: plain}, rate: 1/h, burst: 1}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: hidden, tenant: acme}
spec: {grpcServices: [trilane.test.v1.Hidden]}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: timed, tenant: acme}
spec: {grpcServices: [%s]}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: timed, tenant: acme}
spec:
  target: {service: timed}
  rules:
    - {name: by-now, effect: allow, callers: [{service: web}], notBefore: "2020-01-01T00:00:00Z"}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: staged, tenant: acme}
spec: {grpcServices: [%s]}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: staged, tenant: acme}
spec:
  target: {service: staged}
  rules:
    - {name: dev, effect: allow, callers: [{service: web}], headers: [{name: x-stage, value: dev}]}
""" % (PLAIN, TIMED, STAGED)
    text = echo.platform_yaml([port], timeout="%dms" % (TIMEOUT_S * 1000),
                              profile="idleTimeout: 60s", extra=more)
    text = text.replace("grpcServices: [%s]" % ECHO,
                        "grpcServices: [%s]\n  descriptorSet: {file: echo.binpb}" % ECHO)
    return {"platform.yaml": text, "echo.binpb": descriptor_set()}


class Node(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        echo.begin(cls)
        cls.node = cls.platform.node("node-1", access_log=cls.platform.directory / "access.log",
                                     workers=2).start()
        cls.sources = sources(cls.server.port)
        cls.publish(cls.sources)
        cls.channel = echo.channel(cls.node)
        cls.addClassCleanup(cls.channel.close)
        cls.stub = echo.stubs.EchoStub(cls.channel)

    @classmethod
    def publish(cls, files):
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies(files))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it")

    # ---- why it refused ----

    def trace(self, *arguments, server=None):
        """trilane-dp trace: (exit code, what it printed, what it complained of)."""
        done = subprocess.run(
            [trilane.DP, "trace", *arguments,
             "--server=" + (server or self.node.admin.removeprefix("http://"))],
            capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def traced(self, explain):
        code, out, err = self.trace(explain, "--output=json")
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def refused(self, call):
        """The trailers of a call that must be refused."""
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        return dict(caught.exception.trailing_metadata())

    def denied(self):
        return self.refused(lambda: self.stub.Say(pb.Words(), metadata=echo.token("stranger")))

    def test_a_denial_leads_to_its_rule(self):
        details = self.denied()
        found = self.traced(details["x-trilane-explain"])
        for name, wanted in (("code", "POLICY_DENIED"), ("caller", "acme/stranger"),
                             ("tenant", "acme"), ("target", "service/acme/echo"),
                             ("method", "/%s/Say" % ECHO), ("lane", "operator"), ("grpc", 7),
                             ("rule", details["x-trilane-rule"]), ("node", "node-1"),
                             ("version", int(details["x-trilane-version"]))):
            self.assertEqual(found[name], wanted)
        position = found["position"]
        self.assertEqual((position["state"], position["file"]), ("found", "platform.yaml"))
        line = self.sources["platform.yaml"].split("\n")[position["line"] - 1]
        self.assertIn("nobody-collects", line)
        code, out, _ = self.trace(details["x-trilane-explain"])
        self.assertEqual(code, 0)
        self.assertIn("platform.yaml:%d:%d (acme/echo/nobody-collects)"
                      % (position["line"], position["column"]), out)
        log = self.platform.directory / "access.log"
        trilane.wait_until(lambda: "explain=" + details["x-trilane-explain"] in log.read_text(),
                           what="the line of the access log")

    def test_what_was_refused_before_it_was_a_request(self):
        call = self.channel.unary_unary("/not-a.Name/Call", lambda b: b, lambda b: b)
        found = self.traced(self.refused(lambda: call(b""))["x-trilane-explain"])
        self.assertEqual((found["code"], found["method"]), ("NO_ROUTE", "/not-a.Name/Call"))
        self.assertTrue(found["peer"].startswith("127.0.0.1:"))

    def test_what_nobody_allowed(self):
        """No rule decided: what is shown is the service that has none."""
        call = self.channel.unary_unary("/trilane.test.v1.Hidden/Do", lambda b: b, lambda b: b)
        details = self.refused(lambda: call(b"", metadata=echo.token("web")))
        position = self.traced(details["x-trilane-explain"])["position"]
        self.assertEqual((position["of"], position["state"]), ("Service/acme/hidden", "found"))

    def test_a_limit_is_named_and_found(self):
        call = self.channel.unary_unary("/%s/Do" % PLAIN, lambda b: b, lambda b: b)
        codes = {}
        for _ in range(8):  # of two workers' callers one bucket is taken from.
            details = self.refused(lambda: call(b"", metadata=echo.token("web")))
            codes[details["x-trilane-code"]] = self.traced(details["x-trilane-explain"])
        self.assertEqual(sorted(codes), ["NO_HEALTHY_ENDPOINT", "RATE_LIMITED"])
        limited = codes["RATE_LIMITED"]
        self.assertEqual((limited["limit"], limited["position"]["of"]),
                         ("acme/seldom", "RateLimit/acme/seldom"))
        self.assertEqual(limited["position"]["state"], "found")

    def test_http_is_told_as_well(self):
        request = urllib.request.Request("http://nowhere.example/",
                                         headers={"Proxy-Authorization": "Bearer web-token"})
        request.set_proxy("127.0.0.1:%d" % self.node.ports["listen-proxy"], "http")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)
        explain = caught.exception.headers["x-trilane-explain"]
        self.assertEqual(json.loads(caught.exception.read())["explain"], explain)
        found = self.traced(explain)
        self.assertEqual((found["lane"], found["code"]),
                         ("proxy", caught.exception.headers["x-trilane-code"]))

    def test_what_is_not_kept(self):
        code, _, err = self.trace("0123456789ab")
        self.assertEqual(code, 1)
        self.assertIn("older than an hour", err)
        code, _, err = self.trace("nonsense")
        self.assertEqual(code, 2)
        self.assertIn("is no id", err)

    def test_what_no_rule_allows_says_so(self):
        """Nobody finds a rule to look at: the sentence says that there is none."""
        call = self.channel.unary_unary("/%s/Do" % TIMED, lambda b: b, lambda b: b)
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"", metadata=echo.token("stranger"), timeout=30)
        self.assertEqual(caught.exception.details(), "no rule of a policy allows this")
        details = dict(caught.exception.trailing_metadata())
        self.assertNotIn("x-trilane-rule", details)
        code, out, _ = self.trace(details["x-trilane-explain"])
        self.assertEqual(code, 0)
        self.assertRegex(out, "sentence +no rule of a policy allows this")
        self.assertIn("a Policy of the target has to allow it", out)

    def test_a_start_without_a_root(self):
        """What to give it is said, not which root of which is missing."""
        data = self.platform.directory / "rootless"
        ports = ["--%s=off" % name for name in ("listen", "listen-proxy", "listen-admin")]
        done = subprocess.run([*trilane.WITH_PARENT, trilane.DP, "serve", "--environment=demo",
                               "--node-id=n", "--data-dir=%s" % data, *ports],
                              capture_output=True, text=True, timeout=trilane.PATIENCE_S,
                              check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("trust-root is not set", done.stderr)
        self.assertIn("trilane-dp join", done.stderr)

    def test_several_nodes_are_asked(self):
        explain = self.denied()["x-trilane-explain"]
        deaf = "127.0.0.1:%d" % trilane.free_port()
        alive = self.node.admin.removeprefix("http://")
        code, out, _ = self.trace(explain, server="%s,%s" % (deaf, alive))
        self.assertEqual((code, out.split(":")[0]), (0, "POLICY_DENIED"))
        code, _, err = self.trace(explain, server=deaf)
        self.assertEqual(code, 3)
        self.assertIn(deaf, err)

    def test_the_latest(self):
        explain = self.denied()["x-trilane-explain"]
        code, out, _ = self.trace("--output=yaml")
        self.assertEqual(code, 0)
        self.assertIn("id: \"%s\"" % explain, out)
        code, out, _ = self.trace()
        self.assertRegex(out, explain + " +POLICY_DENIED +acme/stranger +/%s/Say" % ECHO)

    def test_a_version_that_is_gone(self):
        explain = self.denied()["x-trilane-explain"]
        self.publish(dict(self.sources, **{"more.yaml": """
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: later, tenant: acme}
spec: {}
"""}))
        self.assertEqual(self.traced(explain)["position"]["state"], "past")
        self.test_a_denial_leads_to_its_rule()

    # ---- what it serves ----

    def reflect(self, *requests, who="web", version=VERSIONS[0], more=()):
        """The answers on one call."""
        call = self.channel.stream_stream(
            "/%s.ServerReflection/ServerReflectionInfo" % version,
            rpb.ServerReflectionRequest.SerializeToString,
            rpb.ServerReflectionResponse.FromString)
        asked = [rpb.ServerReflectionRequest(**request) for request in requests]
        answers = list(call(iter(asked), timeout=60,
                            metadata=(echo.token(who) if who else ()) + tuple(more)))
        self.assertEqual([a.original_request for a in answers], asked)
        return answers

    def listed(self, **more):
        answer, = self.reflect({"list_services": ""}, **more)
        return [s.name for s in answer.list_services_response.service]

    def test_it_lists_what_the_caller_may_call(self):
        for version in VERSIONS:
            self.assertEqual(self.listed(version=version), [ECHO, PLAIN, TIMED])
        self.assertEqual(self.listed(who="stranger"), [PLAIN])
        self.assertEqual(self.listed(who="other"), [])
        with self.assertRaises(grpc.RpcError) as caught:
            self.listed(who=None)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_a_header_that_is_there_twice_shows_nothing(self):
        """Of what it decides, and of nothing else."""
        dev, prod = ("x-stage", "dev"), ("x-stage", "prod")
        self.assertEqual(self.listed(more=[dev]), [ECHO, PLAIN, STAGED, TIMED])
        self.assertEqual(self.listed(more=[prod]), [ECHO, PLAIN, TIMED])
        self.assertEqual(self.listed(more=[prod, dev]), [ECHO, PLAIN, TIMED])

    def files(self, answer):
        return [descriptor_pb2.FileDescriptorProto.FromString(file)
                for file in answer.file_descriptor_response.file_descriptor_proto]

    def test_it_gives_descriptors(self):
        for asked in ({"file_containing_symbol": ECHO}, {"file_containing_symbol": ECHO + ".Say"},
                      {"file_containing_symbol": "trilane.test.v1.Words"},
                      {"file_by_filename": "echo.proto"}):
            answer, = self.reflect(asked)
            self.assertEqual([f.name for f in self.files(answer)], ["echo.proto"])

    def test_a_client_needs_nothing_else(self):
        """Not even the messages' code: as grpcurl calls."""
        answer, = self.reflect({"file_containing_symbol": ECHO})
        pool = descriptor_pool.DescriptorPool()
        for file in self.files(answer):
            pool.Add(file)
        method = pool.FindServiceByName(ECHO).FindMethodByName("Say")
        make = getattr(message_factory, "GetMessageClass", None) or (
            message_factory.MessageFactory(pool).GetPrototype)
        words = make(method.input_type)
        call = self.channel.unary_unary("/%s/Say" % ECHO, words.SerializeToString,
                                        make(method.output_type).FromString)
        self.assertEqual(call(words(text="hi"), metadata=echo.token("web")).text, "hi from a")

    def test_what_is_not_shown_is_not_found(self):
        """Several questions on one call are answered in their order."""
        answers = self.reflect({"file_containing_symbol": "no.Such"}, {"list_services": "*"},
                               {"file_by_filename": "no.proto"},
                               {"all_extension_numbers_of_type": "trilane.test.v1.Words"}, {})
        self.assertEqual([a.error_response.error_code for a in answers], [5, 0, 5, 12, 3])
        answer, = self.reflect({"file_containing_symbol": ECHO}, who="stranger")
        self.assertEqual(answer.error_response.error_code, 5)

    def test_many_questions_take_turns(self):
        """What a caller sends in one go is answered over turns of the loop, a millisecond each; and
        more than a window of it waits, instead of being refused."""
        asked = [{"file_containing_symbol": "n%d." % i + "x" * 4000} for i in range(200)]
        start = time.monotonic()
        answers = self.reflect(*asked)
        self.assertGreater(time.monotonic() - start, 0.1)
        self.assertEqual({a.error_response.error_code for a in answers}, {5})

    # ---- streams ----

    def test_a_stream_outlives_the_time_of_calls(self):
        """The caller sets no deadline: a call has the profile's, a stream goes on."""
        requests = queue.SimpleQueue()
        chat = self.stub.Chat(iter(requests.get, None), metadata=echo.token("web"))
        requests.put(pb.Words(text="one"))
        self.assertEqual(next(chat).text, "re: one")
        for _ in range(2):
            with self.assertRaises(grpc.RpcError) as caught:
                self.stub.Say(pb.Words(count=60000), metadata=echo.token("web"))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        requests.put(pb.Words(text="two"))
        self.assertEqual(next(chat).text, "re: two")
        requests.put(None)
        self.assertEqual(list(chat), [])


if __name__ == "__main__":
    unittest.main()
