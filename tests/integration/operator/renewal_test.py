"""Certificates of twenty seconds are renewed under traffic: no connection is dropped, new ones get the
new certificate; a control plane that is away is asked until it is back; a removed node is told."""

import http.client
import socket
import ssl
import threading
import unittest

import grpc
from cryptography import x509

import echo_service as echo
import trilane
from joining import JoinedNode
from trilane import wait_until

pb = echo.pb
LIFE_MS = 20000  # renewed after twelve to fifteen seconds.


def forward(port, to):
    """Passes connections to a port on; returns what ends it."""
    listener = socket.create_server(("127.0.0.1", port))

    def copy(a, b):
        while True:
            data = a.recv(65536)
            if not data:
                break
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)

    def serve():
        while True:
            try:
                a, _ = listener.accept()
            except OSError:
                return
            b = socket.create_connection(("127.0.0.1", to))
            for pair in ((a, b), (b, a)):
                threading.Thread(target=copy, args=pair, daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    return listener.close


def certificate(node):
    return x509.load_pem_x509_certificate((node.identity / "cert.pem").read_bytes())


class Traffic:
    """One gRPC channel with a stream and calls, and one HTTP/1.1 connection, all under TLS."""

    def __init__(self, node, ca):
        self.stop = threading.Event()
        self.failed = []
        self.calls = 0
        self.states = []
        self.channel = grpc.secure_channel(
            "localhost:%d" % node.ports["listen-tls"],
            grpc.ssl_channel_credentials(ca.read_bytes()), options=[("grpc.enable_retries", 0)])
        grpc.channel_ready_future(self.channel).result(60)
        self.channel.subscribe(self.states.append)
        self.stub = echo.stubs.EchoStub(self.channel)
        self.http = http.client.HTTPSConnection(
            "127.0.0.1", node.ports["listen-proxy-tls"], timeout=60,
            context=ssl.create_default_context(cafile=str(ca)))
        self.http.connect()
        self.socket = self.http.sock
        self.threads = [threading.Thread(target=self.run, args=(work,))
                        for work in (self.call, self.stream, self.fetch)]
        for thread in self.threads:
            thread.start()

    def run(self, work):
        try:
            work()
        except (grpc.RpcError, OSError, http.client.HTTPException) as problem:
            self.failed.append(repr(problem))

    def call(self):
        while not self.stop.wait(0.005):
            self.stub.Say(pb.Words(text="x"), metadata=echo.token("web"))
            self.calls += 1

    def stream(self):
        def words():
            while not self.stop.wait(0.02):
                yield pb.Words(text="x")
        for _ in self.stub.Chat(words(), metadata=echo.token("web")):
            self.calls += 1

    def fetch(self):
        while not self.stop.wait(0.02):
            self.http.request("GET", "/v1/fetch?url=http://unknown.test/")
            self.http.getresponse().read()
            assert self.http.sock is self.socket, "the connection was closed"
            self.calls += 1

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(10)
        self.channel.close()
        self.http.close()


class Renewal(unittest.TestCase):
    def setUp(self):
        self.server = echo.Server("a")
        self.addCleanup(self.server.stop)
        self.p = trilane.Platform(environment="dev")
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane(ca=self.p.identities, node_cert_ttl_ms=LIFE_MS).start()

    def node(self, name, server=None):
        node = JoinedNode(self.p, name).joined(self.cp, "--san", "dns:localhost,ip:127.0.0.1",
                                               "--labels", "zone=a")
        if server:
            text = (node.identity / "joined").read_text()
            (node.identity / "joined").write_text(text.replace(self.cp.url, server))
        return node.start(status_interval_ms=300)

    def presented(self, node):
        """The serial of the certificate that a new connection sees."""
        context = ssl.create_default_context(cafile=str(self.p.ca))
        with socket.create_connection(("127.0.0.1", node.ports["listen-tls"]), 5) as s:
            with context.wrap_socket(s, server_hostname="localhost") as tls:
                return x509.load_der_x509_certificate(tls.getpeercert(True)).serial_number

    def identity(self, node):
        return node.dump()["identity"]

    def test_under_traffic(self):
        away_port = trilane.free_port()
        away = self.node("edge-2", server="http://127.0.0.1:%d" % away_port)
        removed = self.node("edge-3")
        sources = {"platform.yaml": echo.platform_yaml([self.server.port], timeout="120s")}
        self.cp("publish", "-m", "first", self.p.write_policies(sources))
        self.cp("identity remove", "edge-3")
        node = self.node("edge-1")  # last: it is looked at before it renews.
        wait_until(lambda: node.version() > 0, what="a snapshot")
        before = (self.presented(node), (node.identity / "key.pem").read_bytes())
        self.assertEqual(self.presented(node), certificate(node).serial_number)
        traffic = Traffic(node, self.p.ca)
        self.addCleanup(traffic.end)
        self.assertEqual(self.identity(node)["renewals"], 0)
        wait_until(lambda: self.identity(node)["renewals"] == 1, 60, "the renewal")
        wait_until(lambda: self.presented(node) != before[0], 60, "new connections to have it")
        wait_until(lambda: self.presented(node) == certificate(node).serial_number,
                   what="each worker to have it")
        self.look(node, before, traffic)
        wait_until(lambda: self.identity(away)["renewals_failed"] >= 2, 60, "two tries")
        self.assertEqual(self.identity(away)["code"], "UNAVAILABLE")
        self.addCleanup(forward(away_port, self.cp.port))
        wait_until(lambda: self.identity(away)["renewals"] >= 1, 60, "the control plane's return")
        self.assertEqual(self.identity(away)["code"], "")
        wait_until(lambda: self.identity(removed)["code"] == "NODE_REMOVED", 60, "its refusal")
        wait_until(lambda: "level=error module=join event=not-renewed code=NODE_REMOVED" in
                   removed.log(), what="the log to say so")
        self.assertEqual(removed.log().count("not-renewed"), 1)  # it goes on failing, and says so once.

    def look(self, node, before, traffic):
        wait_until(lambda: node.metric("trilane_certificate_expires_seconds") > LIFE_MS / 1000 / 2,
                   what="the metric")
        calls = traffic.calls
        wait_until(lambda: traffic.calls > calls + 100, 60, "calls to go on")
        self.assertEqual(traffic.failed, [])
        self.assertEqual(set(traffic.states), {grpc.ChannelConnectivity.READY})
        self.assertNotEqual((node.identity / "key.pem").read_bytes(), before[1])
        self.assertEqual(sorted(path.name for path in node.identity.iterdir()),
                         ["ca.pem", "cert.pem", "joined", "key.pem", "status.key"])
        said = self.identity(node)
        self.assertEqual((said["labels"], said["renewals_failed"]), ("zone=a", 0))
        self.assertEqual(int(said["serial"], 16), certificate(node).serial_number)
        self.assertEqual(node.metric("trilane_certificate_renewals_total"), 1)
        audited = [e for e in self.cp.api("GET", "/api/v1/audit")[1]["entries"]
                   if e["action"] == "identity renew" and e["actor"] == "node edge-1"]
        self.assertEqual([e["outcome"] for e in audited], ["OK"])


if __name__ == "__main__":
    unittest.main()
