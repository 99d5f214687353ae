"""A real gRPC server for the operator lane's tests, and clients that go through a node.

The server answers with what it was sent and with the metadata that it saw, so that a test can tell
what a node did on the way.
"""

import concurrent.futures
import pathlib
import subprocess
import sys
import tempfile
import time

import grpc

import trilane

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = {"web": "web-token", "stranger": "stranger-token", "other": "other-token"}


def compile_proto(directory):
    """Generates the Python code of echo.proto and imports it: (messages, stubs)."""
    plugin = "/usr/bin/grpc_python_plugin"
    subprocess.run(["protoc", "--proto_path=%s" % HERE, "--python_out=%s" % directory,
                    "--grpc_out=%s" % directory, "--plugin=protoc-gen-grpc=%s" % plugin,
                    "echo.proto"], check=True)
    sys.path.insert(0, str(directory))
    import echo_pb2
    import echo_pb2_grpc
    return echo_pb2, echo_pb2_grpc


_generated = tempfile.TemporaryDirectory(prefix="trilane-echo-")
pb, stubs = compile_proto(_generated.name)


class Echo(stubs.EchoServicer):
    """Answers by the text: "fail N" ends with status N, "headers" tells what it saw."""

    def __init__(self, name):
        self.name = name
        self.calls = 0
        self.texts = set()  # that Say was asked for.
        self.cancelled = 0
        self.seen = {}
        self.peer = None  # the certificate of the connection that the last call came by.
        self.delay = 0  # seconds until a Say begins to answer.
        self.fails = None  # the status that every Say ends with, in its trailers.

    def _note(self, context):
        self.calls += 1
        self.seen = dict(context.invocation_metadata())
        self.seen["time-left"] = context.time_remaining()
        self.peer = context.auth_context().get("x509_pem_cert")
        context.add_callback(lambda: self._ended(context))
        context.send_initial_metadata((("x-server", self.name), ("x-data-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailer", "yes"), ("x-more-bin", b"\x01\x02")))

    def _ended(self, context):
        if context.time_remaining() is not None and not context.is_active():
            self.cancelled += 1

    def Say(self, request, context):
        self.texts.add(request.text)
        if self.delay:
            time.sleep(self.delay)
        if request.text == "trailers-only":
            self.calls += 1
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing here: 100% \u20ac")
        self._note(context)
        if request.count:
            end = time.monotonic() + request.count / 1000
            while time.monotonic() < end and context.is_active():
                time.sleep(0.01)
        if self.fails is not None:
            context.abort(self.fails, "it does so all the time")
        if request.text == "fail":
            context.abort(grpc.StatusCode.DATA_LOSS, "lost it")
        return pb.Words(text="%s from %s" % (request.text, self.name), filler=request.filler)

    def SayMany(self, request, context):
        self._note(context)
        for i in range(request.count):
            if not context.is_active():
                return
            yield pb.Words(text=request.text, count=i, filler=request.filler)

    def Collect(self, requests, context):
        self._note(context)
        words = list(requests)
        return pb.Words(text=" ".join(w.text for w in words), count=len(words))

    def Chat(self, requests, context):
        self._note(context)
        for request in requests:
            yield pb.Words(text="re: " + request.text, filler=request.filler)


class Server:
    """A gRPC server on a free port, in clear or with a certificate."""

    def __init__(self, name="a", credentials=None, port=0):
        self.echo = Echo(name)
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=32),
                                options=(("grpc.max_receive_message_length", 64 << 20),
                                         ("grpc.so_reuseport", 0)))
        stubs.add_EchoServicer_to_server(self.echo, self.grpc)
        address = "127.0.0.1:%d" % port
        self.port = (self.grpc.add_secure_port(address, credentials) if credentials
                     else self.grpc.add_insecure_port(address))
        self.grpc.start()

    def stop(self):
        self.grpc.stop(grace=None).wait(5)


def digest(token):
    import hashlib
    return "blake2b:" + hashlib.blake2b(token.encode(), digest_size=32).hexdigest()


def begin(case):
    """For a class of tests, and ended with it: case.platform, case.server of Echo, case.cp."""
    case.platform = trilane.Platform(environment="dev")
    case.addClassCleanup(case.platform.close)
    case.server = Server("a")
    case.addClassCleanup(case.server.stop)
    case.cp = case.platform.control_plane().start(head_interval_ms=100)


def publish_first(case, nodes, extra):
    """Publishes what platform_yaml() says of the class's server, and 'extra'; once all nodes serve it."""
    files = {"platform.yaml": platform_yaml([case.server.port], extra=extra)}
    case.cp("publish", "-m", "first", case.platform.write_policies(files))
    for node in nodes:
        trilane.wait_until(lambda node=node: node.version() == 1, what="the nodes to serve it")


def platform_yaml(endpoints, timeout="5s", message="1MiB", extra="", profile=""):
    """Sources: web and stranger of tenant acme, other of tenant globex; Echo is acme's."""
    lines = "\n".join("    - {address: 127.0.0.1, port: %d}" % port for port in endpoints)
    endpoints_yaml = "  endpoints:\n%s" % lines if endpoints else ""
    return """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: dev}
spec: {security: dev, trustDomain: trilane.test}
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: usual}
spec: {timeout: %s, requestMessage: %s, responseMessage: %s, %s}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: echo, tenant: acme}
spec:
  grpcServices: [trilane.test.v1.Echo]
  transport: usual
%s
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: web, tenant: acme}
spec:
  traits: {tier: gold}
  tokens: ["%s"]
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: stranger, tenant: acme}
spec:
  tokens: ["%s"]
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: other, tenant: globex}
spec:
  tokens: ["%s"]
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: echo, tenant: acme}
spec:
  target: {service: echo}
  rules:
    - name: gold-may-call
      effect: allow
      verbs: [call]
      callers: [{traits: {tier: gold}}]
    - name: nobody-collects
      effect: deny
      callers: [{service: stranger}]
%s
""" % (timeout, message, message, profile, endpoints_yaml, digest(TOKENS["web"]),
       digest(TOKENS["stranger"]), digest(TOKENS["other"]), extra)


def channel(node, **options):
    return grpc.insecure_channel("127.0.0.1:%d" % node.ports["listen"], options=[
        ("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0)] +
        [(name.replace("__", "."), value) for name, value in options.items()])


def token(who):
    return (("authorization", "Bearer " + TOKENS[who]),)
