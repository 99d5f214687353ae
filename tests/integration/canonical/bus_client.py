"""Clients of trilane.bus.v1.Bus through a node, and the platform that they belong to."""

import hashlib
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading

import grpc

import trilane

HERE = pathlib.Path(__file__).resolve().parent
_generated = tempfile.TemporaryDirectory(prefix="trilane-canonical-")


def _compile():
    directory = _generated.name
    bus = trilane.SOURCE / "proto" / "trilane" / "bus" / "v1"
    subprocess.run(["protoc", "--proto_path=%s" % bus, "--proto_path=%s" % HERE,
                    "--python_out=%s" % directory, "--grpc_out=%s" % directory,
                    "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin", "bus.proto",
                    "order.proto"], check=True)
    subprocess.run(["protoc", "--proto_path=%s" % HERE, "--include_imports",
                    "--descriptor_set_out=%s/order.binpb" % directory, "order.proto"], check=True)
    sys.path.insert(0, directory)
    import bus_pb2
    import bus_pb2_grpc
    import order_pb2
    return bus_pb2, bus_pb2_grpc, order_pb2


bus_pb2, bus_pb2_grpc, order_pb2 = _compile()
DESCRIPTORS = pathlib.Path(_generated.name, "order.binpb").read_bytes()
SOON = 10.0  # what must happen within a second, on a machine that does much else.
CALLERS = {"web": "acme", "reader": "acme", "stranger": "acme", "other": "globex"}


def _document(kind, name, spec, tenant=None):
    owner = ", tenant: %s" % tenant if tenant else ""
    return "apiVersion: trilane.dev/v1\nkind: %s\nmetadata: {name: %s%s}\nspec:\n%s\n" % (
        kind, name, owner, spec)


def _service(name, tenant):
    digest = hashlib.blake2b(("%s-token" % name).encode(), digest_size=32).hexdigest()
    return _document("Service", name, '  tokens: ["blake2b:%s"]' % digest, tenant)


def _topic(type_name, major, message, payload="64KiB"):
    return _document("Topic", "%s-v%d" % (type_name.lower(), major), """\
  type: %s
  major: %d
  version: %d.0.0
  message: %s
  descriptorSet: {file: order.binpb}
  payload: %s""" % (type_name, major, major, message, payload))


def _policy(name, tenant, topic, rules):
    lines = "".join("""
    - {name: %s, effect: allow, verbs: [%s], callers: [%s]}""" % (
        rule, verb, ", ".join("{service: %s}" % c for c in callers))
        for rule, verb, callers in rules)
    return _document("Policy", name, "  target: {topic: %s}\n  rules:%s" % (topic, lines), tenant)


def sources(readers=("reader", "web"), limit=None, extra=()):
    """web publishes, 'readers' subscribe; other is globex's; nobody may touch Secret.v1."""
    documents = [_document("Environment", "demo", "  {security: dev, trustDomain: trilane.test}")]
    documents += [_service(name, tenant) for name, tenant in CALLERS.items()]
    for topic, major, message in (("Order", 2, "Order"), ("Line", 1, "Line"),
                                  ("Secret", 1, "Secret"), ("Slow", 1, "Line")):
        documents.append(_topic(topic, major, "trilane.test.order.v2." + message))
    for topic in ("Order.v2", "Line.v1", "Slow.v1"):
        name = topic.lower().replace(".", "-")
        rules = [("web-publishes", "publish", ("web",))]
        if readers:
            rules.append(("readers-subscribe", "subscribe", readers))
        documents.append(_policy(name, "acme", topic, rules))
        documents.append(_policy(name, "globex", topic,
                                 [("other-publishes", "publish", ("other",)),
                                  ("other-subscribes", "subscribe", ("other",))]))
    if limit:
        documents.append(_document("RateLimit", "slow", "  target: {topic: Slow.v1}\n"
                                   "  by: [tenant]\n  rate: %s\n  burst: %d" % limit))
    documents += list(extra)
    return {"platform.yaml": "---\n".join(documents), "order.binpb": DESCRIPTORS}


def publish_sources(cp, nodes, platform, **options):
    """Publishes and waits until the nodes serve it."""
    trilane.wait_until(lambda: cp.metric("trilane_bus_connected") == 1 and cp.leads(),
                       what="the control plane to reach NATS")
    before = max(node.version() for node in nodes)
    cp("publish", "-m", "test", platform.write_policies(sources(**options)))
    trilane.wait_until(lambda: all(node.version() > before for node in nodes),
                       what="the nodes to serve it")


def channel(node):
    return grpc.insecure_channel("127.0.0.1:%d" % node.ports["listen"], options=[
        ("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1)])


def token(who):
    return (("authorization", "Bearer %s-token" % who),)


def order(number, **fields):
    """A PublishRequest of an Order.v2."""
    payload = order_pb2.Order(id=str(number), total=number,
                              lines=[order_pb2.Line(article="a", count=2)])
    fields.setdefault("canonical_type", "Order.v2")
    fields.setdefault("payload", payload.SerializeToString())
    return bus_pb2.PublishRequest(envelope=bus_pb2.Envelope(**fields))


def code(error):
    return dict(error.trailing_metadata() or ()).get("x-trilane-code")


class Subscriber:
    """A Subscribe stream read by a thread; what came waits in a queue."""

    def __init__(self, node, consumer, types=("Order.v2",), who="reader", credit=100,
                 from_start=True, wait=True):
        self.requests = queue.Queue()
        self.got = queue.Queue()
        self.error = None
        self.opened = threading.Event()
        self.ended = threading.Event()
        self.channel = channel(node)
        self.requests.put(bus_pb2.SubscribeRequest(open=bus_pb2.Open(
            consumer=consumer, types=types, credit=credit, from_start=from_start)))
        self.call = bus_pb2_grpc.BusStub(self.channel).Subscribe(
            iter(self.requests.get, None), metadata=token(who))
        threading.Thread(target=self._run, daemon=True).start()
        if wait:
            trilane.wait_until(lambda: self.opened.is_set() or self.ended.is_set(), 60, "opened")

    def _run(self):
        try:
            for answer in self.call:
                if answer.opened:
                    self.opened.set()
                else:
                    self.got.put(answer)
        except grpc.RpcError as error:
            self.error = error
        self.ended.set()

    def take(self, timeout=trilane.PATIENCE_S):
        return self.got.get(timeout=timeout)

    def take_many(self, count, timeout=trilane.PATIENCE_S):
        return [self.take(timeout) for _ in range(count)]

    def quiet(self, seconds):
        """True when nothing comes for that long."""
        try:
            self.got.get(timeout=seconds)
            return False
        except queue.Empty:
            return True

    def send(self, **fields):
        self.requests.put(bus_pb2.SubscribeRequest(**fields))

    def ack(self, *answers, credit=0):
        self.send(ack=[a.delivery for a in answers], credit=credit)

    def nack(self, answer, **how):
        self.send(nack=[bus_pb2.Nack(delivery=answer.delivery, **how)])

    def end(self):
        """Ends in good order: half-closes, and waits for the node's end."""
        self.requests.put(None)
        self.ended.wait(trilane.PATIENCE_S)
        self.channel.close()

    def kill(self):
        """The connection goes away, as when the process is killed."""
        self.call.cancel()
        self.channel.close()
