"""Who is revoked is refused, on open connections too: GOAWAY, streams that end within a second, and
an end of the connection; whoever is not revoked notices nothing."""

import pathlib
import queue
import signal
import socket
import ssl
import subprocess
import threading
import time
import unittest

import grpc
import h2.config
import h2.connection
import h2.events

import echo_service as echo
import trilane

pb = echo.pb
SOON = 10.0  # what must happen within a second, on a machine that does much else.

WORKER = """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: worker, tenant: acme}
spec: {traits: {tier: gold}}
"""


def revocation(**lists):
    """A Revocation resource; identities="…" or a list."""
    spec = ", ".join("%s: [%s]" % (name, ", ".join("'%s'" % v for v in
                                                   ([values] if isinstance(values, str) else values)))
                     for name, values in lists.items())
    return """
---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: incident-7}
spec: {reason: a test, %s}
""" % spec


def serial(cert):
    text = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-serial"], check=True,
                          capture_output=True, text=True).stdout
    return text.strip().split("=")[1]


class Chat:
    """A stream that is open as long as it is let be."""

    def __init__(self, channel, metadata=()):
        self.words = queue.Queue()
        self.call = echo.stubs.EchoStub(channel).Chat(iter(self.words.get, None),
                                                      metadata=metadata, timeout=60)
        self.say()

    def say(self):
        self.words.put(pb.Words(text="x"))
        return next(self.call).text

    def end(self):
        """How it ended, and after how many seconds."""
        began = time.monotonic()
        try:
            next(self.call)
            raise AssertionError("it was answered")
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ())
            return error.code().name, details.get("x-trilane-code"), time.monotonic() - began
        finally:
            self.words.put(None)


class Idle:
    """An HTTP/2 connection under TLS on which nothing happens, and what the node says on it."""

    def __init__(self, platform, port, identity):
        context = platform.tls_context(identity["cert"], identity["key"])
        context.set_alpn_protocols(["h2"])
        self.sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10),
                                        server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.sock.sendall(self.h2.data_to_send())
        self.goaway = threading.Event()
        self.closed = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with self.sock:
            self._read()
        self.closed.set()

    def _read(self):
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    break
                for event in self.h2.receive_data(data):
                    if isinstance(event, h2.events.ConnectionTerminated):
                        self.goaway.set()
                self.sock.sendall(self.h2.data_to_send())
        except (OSError, ssl.SSLError):
            pass


class Revocations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.web = cls.platform.issue_service("acme", "web")
        cls.worker = cls.platform.issue_service("acme", "worker")
        cls.server = echo.Server("a")
        cls.addClassCleanup(cls.server.stop)
        cls.cp = cls.platform.control_plane().start(head_interval_ms=100)
        cls.node = cls.platform.node("node-1", workers=2)
        cls.node.start()
        cls.publish()

    @classmethod
    def publish(cls, *more, ports=None, nodes=None, change=lambda text: text, **options):
        text = echo.platform_yaml(ports or [cls.server.port], extra=WORKER + "".join(more),
                                  **options)
        files = {"platform.yaml": change(text)}
        answer = cls.cp.json("publish", "-m", "test", "--again",
                             cls.platform.write_policies(files))
        version = answer["record"]["version"]
        for node in nodes or [cls.node]:
            trilane.wait_until(lambda: node.version() >= version, what="the node to serve it",
                               step=0.01)

    def setUp(self):
        self.channels = []
        self.addCleanup(self.publish)  # nobody is revoked for the next one.

    def identity(self, service):
        return "spiffe://trilane.test/tenant/acme/service/" + service

    def channel(self, identity, node=None, ca=None):
        credentials = grpc.ssl_channel_credentials(
            pathlib.Path(ca or self.platform.ca).read_bytes(),
            pathlib.Path(identity["key"]).read_bytes(), pathlib.Path(identity["cert"]).read_bytes())
        channel = grpc.secure_channel(
            "localhost:%d" % (node or self.node).ports["listen-tls"], credentials,
            options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        self.channels.append(channel)
        return channel

    def clear(self):
        channel = echo.channel(self.node, grpc__use_local_subchannel_pool=1)
        self.addCleanup(channel.close)
        return channel

    def code(self, channel, metadata=()):
        """The code of a unary call; "" when it is answered."""
        try:
            echo.stubs.EchoStub(channel).Say(pb.Words(text="x"), metadata=metadata, timeout=60)
            return ""
        except grpc.RpcError as error:
            return dict(error.trailing_metadata() or ()).get("x-trilane-code", error.code().name)

    def test_an_identity(self):
        web, worker = Chat(self.channel(self.web)), Chat(self.channel(self.worker))
        by_token = Chat(self.clear(), echo.token("web"))
        idle = Idle(self.platform, self.node.ports["listen-tls"], self.web)
        other = Idle(self.platform, self.node.ports["listen-tls"], self.worker)
        watching = self.channel(self.web).unary_stream("/grpc.health.v1.Health/Watch")(
            b"", timeout=60)
        next(watching)
        before = self.node.metric("trilane_connections_ended_total") or 0
        self.publish(revocation(identities=self.identity("web")))
        for chat in (web, by_token):
            code, why, seconds = chat.end()
            self.assertEqual((code, why), ("UNAUTHENTICATED", "IDENTITY_REVOKED"))
            self.assertLess(seconds, SOON)
        self.assertTrue(idle.goaway.wait(SOON))
        self.assertTrue(idle.closed.wait(SOON))
        with self.assertRaises(grpc.RpcError):  # nobody decides this stream: its connection ends.
            next(watching)
        self.assertEqual(self.code(self.channel(self.web)), "IDENTITY_REVOKED")
        self.assertEqual(self.code(self.clear(), echo.token("web")), "IDENTITY_REVOKED")
        self.assertEqual(worker.say(), "re: x")
        self.assertFalse(other.goaway.is_set())
        trilane.wait_until(lambda: self.node.metric("trilane_connections_ended_total") >= before + 3,
                           what="three connections to be ended")
        self.publish()
        self.assertEqual(self.code(self.channel(self.web)), "")
        self.assertEqual(self.code(self.clear(), echo.token("web")), "")
        self.assertEqual(worker.say(), "re: x")

    def test_a_certificate(self):
        second = self.platform.directory / "second"
        self.platform.command("identity", "issue", "--ca", self.platform.identities, "--service",
                              "acme/web", "--san", "dns:localhost", "--out", second)
        other = {"cert": str(second / "acme-web.pem"), "key": str(second / "acme-web.key")}
        chats = Chat(self.channel(self.web)), Chat(self.channel(other))
        self.publish(revocation(certificates=serial(self.web["cert"])))
        code, why, seconds = chats[0].end()
        self.assertEqual((code, why), ("UNAUTHENTICATED", "IDENTITY_REVOKED"))
        self.assertLess(seconds, SOON)
        self.assertEqual(self.code(self.channel(self.web)), "IDENTITY_REVOKED")
        self.assertEqual(chats[1].say(), "re: x")  # who they are is as good as before.
        self.assertEqual(self.code(self.channel(other)), "")
        self.assertEqual(self.code(self.clear(), echo.token("web")), "")

    def test_a_token(self):
        channel = self.clear()
        chat = Chat(channel, echo.token("web"))
        by_certificate = Chat(self.channel(self.web))
        self.publish(revocation(tokens=echo.digest(echo.TOKENS["web"])))
        code, why, seconds = chat.end()
        self.assertEqual((code, why), ("UNAUTHENTICATED", "IDENTITY_REVOKED"))
        self.assertLess(seconds, SOON)
        self.assertEqual(self.code(channel, echo.token("web")), "IDENTITY_REVOKED")
        self.assertEqual(self.code(channel, echo.token("stranger")), "POLICY_DENIED")
        self.assertEqual(by_certificate.say(), "re: x")

    def test_a_trust_domain_that_goes(self):
        def moved(text):
            return text.replace("trustDomain: trilane.test",
                                "trustDomain: new.test, trustDomains: [trilane.test]")
        self.publish(change=moved)
        chat = Chat(self.channel(self.web))
        idle = Idle(self.platform, self.node.ports["listen-tls"], self.web)
        self.assertEqual(self.code(self.clear(), echo.token("web")), "")
        self.publish(change=lambda text: text.replace("trustDomain: trilane.test",
                                                      "trustDomain: new.test"))
        code, why, seconds = chat.end()
        self.assertEqual((code, why), ("UNAUTHENTICATED", "UNAUTHENTICATED"))
        self.assertLess(seconds, SOON)
        self.assertTrue(idle.goaway.wait(SOON))
        self.assertTrue(idle.closed.wait(SOON))
        self.assertEqual(self.code(self.channel(self.web)), "UNAUTHENTICATED")
        self.assertEqual(self.code(self.clear(), echo.token("web")), "")
        self.publish()
        self.assertEqual(self.code(self.channel(self.web)), "")

    def test_an_upstream(self):
        """Its connections are dropped, with the calls on them; it is not called again."""
        cert = self.platform.issue_service("acme", "echo")
        tls = echo.Server("tls", grpc.ssl_server_credentials(
            [(pathlib.Path(cert["key"]).read_bytes(), pathlib.Path(cert["cert"]).read_bytes())]))
        self.addCleanup(tls.stop)
        profile = "upstream: {tls: tls, serverName: localhost}"
        options = {"ports": [tls.port], "profile": profile}
        self.publish(**options)
        channel = self.channel(self.worker)
        chat = Chat(channel)
        self.publish(revocation(certificates=serial(cert["cert"])), **options)
        code, why, seconds = chat.end()
        self.assertEqual((code, why), ("UNAVAILABLE", "UPSTREAM_RESET"))
        self.assertLess(seconds, SOON)
        self.assertEqual(self.code(channel), "UPSTREAM_CONNECT")
        self.publish(revocation(identities=self.identity("echo")), **options)
        self.assertEqual(self.code(channel), "UPSTREAM_CONNECT")
        self.publish(**options)
        trilane.wait_until(lambda: self.code(channel) == "", what="the upstream to be taken again")

    def test_a_ca_that_goes(self):
        """SIGHUP without one of the CAs: whom it vouched for is ended, nobody else."""
        old = self.platform.directory / "old-ca"
        self.platform.command("identity", "init", "--trust-domain", "trilane.test", "--out", old)
        self.platform.command("identity", "issue", "--ca", old, "--service", "acme/web", "--san",
                              "dns:localhost", "--out", old)
        by_old = {"cert": str(old / "acme-web.pem"), "key": str(old / "acme-web.key")}
        cas = self.platform.directory / "cas.pem"
        cas.write_bytes(self.platform.ca.read_bytes() + (old / "ca.pem").read_bytes())
        node = self.platform.node("node-2", workers=2, tls_ca=cas)
        node.start()
        trilane.wait_until(lambda: node.version() > 0, what="the second node to serve")
        stays = Chat(self.channel(self.web, node))
        goes = Chat(self.channel(by_old, node))
        port = node.ports["listen-tls"]  # more connections than a worker looks at in a turn:
        idle = [Idle(self.platform, port, by_old) for _ in range(12)]
        other = [Idle(self.platform, port, self.web) for _ in range(6)]
        node.signal(signal.SIGHUP)  # the same CAs: nothing ends.
        trilane.wait_until(lambda: node.log().count("certificates-read") == 1, what="SIGHUP")
        self.assertEqual(goes.say(), "re: x")
        cas.write_bytes(self.platform.ca.read_bytes())
        node.signal(signal.SIGHUP)
        code, _, seconds = goes.end()
        self.assertEqual(code, "UNAVAILABLE")
        self.assertLess(seconds, SOON)
        for one in idle:
            self.assertTrue(one.goaway.wait(SOON))
            self.assertTrue(one.closed.wait(SOON))
        self.assertEqual(stays.say(), "re: x")
        self.assertFalse(any(one.goaway.is_set() or one.closed.is_set() for one in other))
        self.assertEqual(node.metric("trilane_connections_ended_total"), 1 + len(idle))
        self.assertEqual(self.code(self.channel(self.web, node)), "")
        self.assertEqual(self.code(self.channel(by_old, node)), "UNAVAILABLE")
        for channel in self.channels:
            channel.close()
        self.assertEqual(node.stop(), 0)


if __name__ == "__main__":
    unittest.main()
