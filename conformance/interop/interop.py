"""gRPC's standard interop cases, through a node: a server, a client's cases, and the platform.

The cases and what they must see are those of grpc/grpc, doc/interop-test-descriptions.md. This is
their implementation in Python, over gRPC's C core; grpc-go's own is in go/. Whether a message was
compressed no Python API says: that compressed bytes pass as they came is shown, byte by byte, by
tests/integration/operator/hostile_test.py.
"""

import concurrent.futures
import hashlib
import pathlib
import queue
import subprocess
import sys
import tempfile
import time

import grpc

import trilane

HERE = pathlib.Path(__file__).resolve().parent
INITIAL = "x-grpc-test-echo-initial"
TRAILING = "x-grpc-test-echo-trailing-bin"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
REQUESTS = (27182, 8, 1828, 45904)
ANSWERS = (31415, 9, 2653, 58979)
PATIENCE_S = 60
CONCURRENT = 50
GZIP = grpc.Compression.Gzip


def compile_proto(directory):
    """Generates the Python code of testing.proto and imports it: (messages, stubs)."""
    subprocess.run(["protoc", "--proto_path=%s" % HERE, "--python_out=%s" % directory,
                    "--grpc_out=%s" % directory,
                    "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "testing.proto"],
                   check=True)
    sys.path.insert(0, str(directory))
    import testing_pb2
    import testing_pb2_grpc
    return testing_pb2, testing_pb2_grpc


_generated = tempfile.TemporaryDirectory(prefix="trilane-interop-")
pb, stubs = compile_proto(_generated.name)


def payload(size):
    return pb.Payload(body=b"\0" * size)


# ---- the server ----

class TestService(stubs.TestServiceServicer):
    """UnimplementedCall is not here, as the cases want it."""

    @staticmethod
    def _echo_metadata(context):
        sent = dict(context.invocation_metadata())
        if INITIAL in sent:
            context.send_initial_metadata(((INITIAL, sent[INITIAL]),))
        if TRAILING in sent:
            context.set_trailing_metadata(((TRAILING, sent[TRAILING]),))

    @staticmethod
    def _echo_status(request, context):
        if request.response_status.code:
            context.abort(next(c for c in grpc.StatusCode
                               if c.value[0] == request.response_status.code),
                          request.response_status.message)

    def EmptyCall(self, request, context):
        return pb.Empty()

    def UnaryCall(self, request, context):
        if request.response_compressed.value:
            context.set_compression(GZIP)
        self._echo_metadata(context)
        self._echo_status(request, context)
        return pb.SimpleResponse(payload=payload(request.response_size))

    def StreamingInputCall(self, requests, context):
        return pb.StreamingInputCallResponse(
            aggregated_payload_size=sum(len(r.payload.body) for r in requests))

    def _answers(self, request, context):
        for wanted in request.response_parameters:
            if wanted.interval_us:
                time.sleep(wanted.interval_us / 1e6)
            if not wanted.compressed.value:
                context.disable_next_message_compression()
            yield pb.StreamingOutputCallResponse(payload=payload(wanted.size))

    def StreamingOutputCall(self, request, context):
        if any(p.compressed.value for p in request.response_parameters):
            context.set_compression(GZIP)
        yield from self._answers(request, context)

    def FullDuplexCall(self, requests, context):
        self._echo_metadata(context)
        for request in requests:
            self._echo_status(request, context)
            yield from self._answers(request, context)

    def HalfDuplexCall(self, requests, context):
        for request in list(requests):
            yield from self._answers(request, context)


class Server:
    """On a free loopback port."""

    def __init__(self):
        self.grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=CONCURRENT),
                                options=(("grpc.so_reuseport", 0),))
        stubs.add_TestServiceServicer_to_server(TestService(), self.grpc)
        self.port = self.grpc.add_insecure_port("127.0.0.1:0")
        self.grpc.start()

    def stop(self):
        self.grpc.stop(grace=None).wait(5)


# ---- the client's cases ----

class Client:
    """Calls of one caller through one channel."""

    def __init__(self, address, token):
        # With what is gRPC's own: a call that a GOAWAY met before it had begun is made again (A6).
        self.channel = grpc.insecure_channel(address,
                                             options=(("grpc.use_local_subchannel_pool", 1),))
        self.stub = stubs.TestServiceStub(self.channel)
        self.token = (("authorization", "Bearer " + token),)
        self.options = {"metadata": self.token, "timeout": PATIENCE_S}

    def close(self):
        self.channel.close()

    def failure(self, call, *args, **more):
        """How a call failed that must."""
        try:
            answer = call(*args, **{**self.options, **more})
            answer = list(answer) if hasattr(answer, "__iter__") else answer
        except grpc.RpcError as error:
            return error
        raise AssertionError("answered %r where a status was wanted" % (answer,))


def same(found, wanted):
    assert found == wanted, "%r where %r was wanted" % (found, wanted)


def sizes(answers):
    return tuple(len(a.payload.body) for a in answers)


def asking(size, **more):
    return pb.StreamingOutputCallRequest(
        response_parameters=[pb.ResponseParameters(size=size)], **more)


def large(client, compression=None, **more):
    request = pb.SimpleRequest(response_size=314159, payload=payload(271828), **more)
    answer = client.stub.UnaryCall(request, compression=compression, **client.options)
    same(answer.payload.body, b"\0" * 314159)


def empty_unary(client):
    same(client.stub.EmptyCall(pb.Empty(), **client.options), pb.Empty())


def large_unary(client):
    large(client)


def client_compressed_unary(client):
    large(client, compression=GZIP, expect_compressed=pb.BoolValue(value=True))


def server_compressed_unary(client):
    large(client, response_compressed=pb.BoolValue(value=True))
    large(client, response_compressed=pb.BoolValue(value=False))


def collect(client, wanted, compression=None):
    requests = (pb.StreamingInputCallRequest(payload=payload(size)) for size in wanted)
    answer = client.stub.StreamingInputCall(requests, compression=compression, **client.options)
    same(answer.aggregated_payload_size, sum(wanted))


def client_streaming(client):
    collect(client, REQUESTS)


def client_compressed_streaming(client):
    collect(client, (27182, 45904), compression=GZIP)


def server_streaming(client):
    request = pb.StreamingOutputCallRequest(
        response_parameters=[pb.ResponseParameters(size=size) for size in ANSWERS])
    same(sizes(client.stub.StreamingOutputCall(request, **client.options)), ANSWERS)


def server_compressed_streaming(client):
    request = pb.StreamingOutputCallRequest(response_parameters=[
        pb.ResponseParameters(size=31415, compressed=pb.BoolValue(value=True)),
        pb.ResponseParameters(size=92653, compressed=pb.BoolValue(value=False))])
    same(sizes(client.stub.StreamingOutputCall(request, **client.options)), (31415, 92653))


def ping_pong(client):
    with Pings(client) as pings:
        for request, answer in zip(REQUESTS, ANSWERS):
            same(pings.ping(asking(answer, payload=payload(request))), answer)


class Fed:
    """Requests that are put in while the call is open; None ends them."""

    def __init__(self):
        self.items = queue.SimpleQueue()
        self.put = self.items.put

    def __iter__(self):
        return iter(self.items.get, None)


class Pings:
    """An open FullDuplexCall: one request, then its answer."""

    def __init__(self, client):
        self.queue = Fed()
        self.call = client.stub.FullDuplexCall(iter(self.queue), **client.options)

    def ping(self, request):
        self.queue.put(request)
        return len(next(self.call).payload.body)

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.queue.put(None)
        if kind is None:
            same(list(self.call), [])
            same(self.call.code(), grpc.StatusCode.OK)
        else:
            self.call.cancel()


def empty_stream(client):
    same(list(client.stub.FullDuplexCall(iter(()), **client.options)), [])


def half_duplex(client):
    requests = [asking(size) for size in ANSWERS]
    same(sizes(client.stub.HalfDuplexCall(iter(requests), **client.options)), ANSWERS)


def custom_metadata(client):
    sent = ((INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab"))
    options = {**client.options, "metadata": client.token + sent}
    _, unary = client.stub.UnaryCall.with_call(
        pb.SimpleRequest(response_size=314159, payload=payload(271828)), **options)
    stream = client.stub.FullDuplexCall(iter([asking(314159, payload=payload(271828))]), **options)
    same(sizes(stream), (314159,))
    for call in (unary, stream):
        same(dict(call.initial_metadata())[INITIAL], "test_initial_metadata_value")
        same(dict(call.trailing_metadata())[TRAILING], b"\xab\xab\xab")


def fails_with(client, code, message):
    """Both kinds of calls end with this status."""
    wanted = pb.EchoStatus(code=code.value[0], message=message)
    for error in (client.failure(client.stub.UnaryCall,
                                 pb.SimpleRequest(response_status=wanted)),
                  client.failure(client.stub.FullDuplexCall, iter(
                      [pb.StreamingOutputCallRequest(response_status=wanted)]))):
        same((error.code(), error.details()), (code, message))


def status_code_and_message(client):
    fails_with(client, grpc.StatusCode.UNKNOWN, "test status message")


def special_status_message(client):
    fails_with(client, grpc.StatusCode.UNKNOWN, SPECIAL)


def unimplemented_method(client):
    error = client.failure(client.stub.UnimplementedCall, pb.Empty())
    same(error.code(), grpc.StatusCode.UNIMPLEMENTED)


def unimplemented_service(client):
    stub = stubs.UnimplementedServiceStub(client.channel)
    same(client.failure(stub.UnimplementedCall, pb.Empty()).code(), grpc.StatusCode.UNIMPLEMENTED)


def cancel_after_begin(client):
    requests = Fed()  # nothing is sent.
    call = client.stub.StreamingInputCall.future(iter(requests), **client.options)
    call.cancel()
    requests.put(None)
    same((call.cancelled(), call.code()), (True, grpc.StatusCode.CANCELLED))


def cancel_after_first_response(client):
    pings = Pings(client)
    same(pings.ping(asking(31415, payload=payload(27182))), 31415)
    pings.call.cancel()
    pings.queue.put(None)
    same(pings.call.code(), grpc.StatusCode.CANCELLED)


def timeout_on_sleeping_server(client):
    request = pb.StreamingOutputCallRequest(payload=payload(27182), response_parameters=[
        pb.ResponseParameters(size=31415, interval_us=50000)])
    error = client.failure(client.stub.FullDuplexCall, iter([request]), timeout=0.001)
    same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


def concurrent_large_unary(client):
    with concurrent.futures.ThreadPoolExecutor(CONCURRENT) as pool:
        list(pool.map(lambda _: large(client), range(CONCURRENT)))


CASES = (empty_unary, large_unary, client_compressed_unary, server_compressed_unary,
         client_streaming, client_compressed_streaming, server_streaming,
         server_compressed_streaming, ping_pong, empty_stream, half_duplex, custom_metadata,
         status_code_and_message, special_status_message, unimplemented_method,
         unimplemented_service, cancel_after_begin, cancel_after_first_response,
         timeout_on_sleeping_server, concurrent_large_unary)


def failures(address, token, cases=CASES):
    """Runs cases beside each other over one connection; {name: what went wrong}."""
    client = Client(address, token)
    try:
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            runs = {case.__name__: pool.submit(case, client) for case in cases}
            wrong = {name: run.exception() for name, run in runs.items()}
    finally:
        client.close()
    return {name: repr(problem) for name, problem in wrong.items() if problem is not None}


# ---- the platform ----

def platform_yaml(ports):
    """Sources: a tenant a server, {"py": port}; its caller has the token "<tenant>-token"."""
    documents = ["""
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: dev}
spec: {security: dev, trustDomain: trilane.test}
---
apiVersion: trilane.dev/v1
kind: TransportProfile
metadata: {name: interop}
spec: {timeout: 60s}
"""]
    for tenant, port in sorted(ports.items()):
        digest = hashlib.blake2b(("%s-token" % tenant).encode(), digest_size=32).hexdigest()
        documents.append("""
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: server, tenant: %(tenant)s}
spec:
  grpcServices: [grpc.testing.TestService, grpc.testing.UnimplementedService]
  transport: interop
  endpoints: [{address: 127.0.0.1, port: %(port)d}]
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: client, tenant: %(tenant)s}
spec: {tokens: ["blake2b:%(digest)s"]}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: server, tenant: %(tenant)s}
spec:
  target: {service: server}
  rules:
    - {name: client, effect: allow, verbs: [call], callers: [{service: client}]}
""" % {"tenant": tenant, "port": port, "digest": digest})
    return "---".join(documents)


def serve(platform, ports, *settings):
    """Nodes that serve the servers on these ports, one for each set of further settings."""
    cp = platform.control_plane().start()
    nodes = [platform.node("node-%d" % number).start(**flags)
             for number, flags in enumerate(settings, 1)]
    cp("publish", "-m", "interop", platform.write_policies({"platform.yaml": platform_yaml(ports)}))
    for node in nodes:
        trilane.wait_until(lambda n=node: n.version() == 1, what="the node to serve")
    return nodes


def address(node):
    return "127.0.0.1:%d" % node.ports["listen"]
