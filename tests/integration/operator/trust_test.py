"""CAs of trust domains come with the snapshot, and vouch for their own domain alone: a CA of a
partner lets the partner's services in, and cannot make one of ours."""

import contextlib
import datetime
import pathlib
import socket
import ssl
import threading
import unittest

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import echo_service as echo
import trilane
from trilane import wait_until

pb = echo.pb


def forge(directory, ca, spiffe):
    """What a CA can sign: a leaf of any SPIFFE id."""
    issuer = x509.load_pem_x509_certificate((ca / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((ca / "ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.utcnow()
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    cert = (x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "forged")]))
            .issuer_name(issuer.subject).public_key(key.public_key()).serial_number(7)
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(False, None), True).add_extension(usage, True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
            .add_extension(x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(spiffe)]), False)
            .sign(signer, hashes.SHA256()))
    paths = {"cert": directory / "forged.pem", "key": directory / "forged.key"}
    paths["cert"].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    paths["key"].write_bytes(key.private_bytes(serialization.Encoding.PEM,
                                               serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
    return paths


class Held:
    """A way to a server, on which the server's bytes wait until they are let go."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server = port
        self.asked = threading.Event()
        self.goes_on = threading.Event()
        self.threads = [threading.Thread(target=self.accept, daemon=True)]
        self.threads[0].start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.server))
                for pair, gate in (((near, far), None), ((far, near), self.goes_on)):
                    self.threads.append(threading.Thread(target=self.copy, args=(*pair, gate),
                                                         daemon=True))
                    self.threads[-1].start()

    def copy(self, source, to, gate):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.asked.set()
                if gate:
                    gate.wait(60)
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)

    def close(self):
        self.goes_on.set()
        self.listener.close()


class Trust(unittest.TestCase):
    published = 0

    @classmethod
    def setUpClass(cls):
        cls.server = echo.Server("a")
        cls.addClassCleanup(cls.server.stop)
        cls.p = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.p.close)
        cls.partner = cls.p.directory / "partner"
        cls.p.command("identity", "init", "--trust-domain", "partner.test", "--out", cls.partner)
        cls.p.command("identity", "issue", "--ca", cls.partner, "--service", "acme/web", "--san",
                      "dns:localhost", "--out", cls.partner)
        cls.theirs = {"cert": cls.partner / "acme-web.pem", "key": cls.partner / "acme-web.key"}
        cls.ours = cls.p.issue_service("acme", "web")
        cls.forged = forge(cls.partner, cls.partner,
                           "spiffe://trilane.test/tenant/acme/service/web")
        cls.cp = cls.p.control_plane().start()
        cls.node = cls.p.node("node-1").start()

    def publish(self, bundles, port=None, profile="", node=None):
        node = node or self.node
        ca = "".join("      %s\n" % line for line in
                     (self.partner / "ca.pem").read_text().strip().splitlines())
        self.published += 1  # no two have one content, which would be no new version.
        text = echo.platform_yaml([port or self.server.port], "%dms" % (5000 + self.published),
                                  profile=profile).replace(
            "spec: {security: dev, trustDomain: trilane.test}",
            "spec:\n  security: dev\n  trustDomain: trilane.test\n  trustDomains: [partner.test]\n" +
            ("  trustBundles:\n  - trustDomain: partner.test\n    ca: |\n" + ca if bundles else ""))
        before = node.version()
        self.cp("publish", "-m", "test", self.p.write_policies({"platform.yaml": text}))
        wait_until(lambda: node.version() > before, what="the node to serve it")

    def channel(self, identity, node=None):
        credentials = grpc.ssl_channel_credentials(
            self.p.ca.read_bytes(), pathlib.Path(identity["key"]).read_bytes(),
            pathlib.Path(identity["cert"]).read_bytes())
        port = (node or self.node).ports["listen-tls"]
        channel = grpc.secure_channel("localhost:%d" % port, credentials,
                                      options=[("grpc.enable_retries", 0),
                                               ("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        return channel

    def stream(self, identity, node=None):
        """One that has begun, and goes on for as long as it is let be."""
        stream = echo.stubs.EchoStub(self.channel(identity, node)).SayMany(
            pb.Words(text="x", count=1 << 30), timeout=60)
        self.assertEqual(next(stream).count, 0)
        return stream

    def ends(self, stream):
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertIn(caught.exception.code(), (grpc.StatusCode.UNAUTHENTICATED,
                                                grpc.StatusCode.UNAVAILABLE))

    def gets_in(self, identity):
        """Whether the handshake is answered by the first frame of HTTP/2, or by an alert."""
        context = self.p.tls_context(identity["cert"], identity["key"])
        context.set_alpn_protocols(["h2"])
        try:
            with context.wrap_socket(
                    socket.create_connection(("127.0.0.1", self.node.ports["listen-tls"]), 60),
                    server_hostname="localhost") as sock:
                sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                return sock.recv(9)[3:4] == b"\x04"
        except (ssl.SSLError, ConnectionError) as problem:
            self.refused = str(problem)
            return False

    def test_a_partner(self):
        self.publish(bundles=False)
        self.assertTrue(self.gets_in(self.ours))
        self.assertFalse(self.gets_in(self.theirs))
        self.publish(bundles=True)
        wait_until(lambda: self.gets_in(self.theirs), what="the partner to be let in")
        echo.stubs.EchoStub(self.channel(self.theirs)).Say(pb.Words(text="x"), timeout=60)
        self.assertEqual(self.server.echo.seen["x-caller-id"],
                         "spiffe://partner.test/tenant/acme/service/web")
        self.assertTrue(self.gets_in(self.ours))
        self.assertFalse(self.gets_in(self.forged))
        self.assertIn("alert", self.refused)
        stream = self.stream(self.theirs)
        own = self.stream(self.ours)
        self.publish(bundles=False)
        self.ends(stream)
        self.assertEqual(next(own).count, 1)
        own.cancel()
        self.assertFalse(self.gets_in(self.theirs))

    def test_files_that_do_not_load_hold_up_no_bundle(self):
        """A key that is half written when the bundle goes; and it is read once it is whole."""
        key = pathlib.Path(self.node.identity["key"])
        whole = key.read_bytes()
        self.publish(bundles=True)
        wait_until(lambda: self.gets_in(self.theirs), what="the partner to be let in")
        stream = self.stream(self.theirs)
        key.write_bytes(whole[:len(whole) // 2])
        try:
            self.publish(bundles=False)
            self.ends(stream)
            self.assertFalse(self.gets_in(self.theirs))
            self.assertTrue(self.gets_in(self.ours))
            said = self.node.log().count("certificates-read")
            self.assertIn("level=error", self.node.log().split("certificates-read")[-2][-200:])
        finally:
            key.write_bytes(whole)
        wait_until(lambda: self.node.log().count("certificates-read") > said,
                   what="the files to be read again")
        self.assertIn("level=info", self.node.log().split("certificates-read")[-2][-200:])
        self.assertTrue(self.gets_in(self.ours))

    def test_an_upstream_that_shakes_hands_when_its_bundle_goes(self):
        key, cert = (pathlib.Path(self.theirs[kind]).read_bytes() for kind in ("key", "cert"))
        server = echo.Server("theirs", grpc.ssl_server_credentials(((key, cert),)))
        self.addCleanup(server.stop)
        held = Held(server.port)
        self.addCleanup(held.close)
        how = {"port": held.port, "profile":
               "connectTimeout: 30s, timeoutMax: 60s, upstream: {tls: tls, spiffe: "
               "'spiffe://partner.test/tenant/acme/service/web'}"}
        read = self.node.log().count("certificates-read")
        self.publish(bundles=True, **how)
        wait_until(lambda: self.node.log().count("certificates-read") > read, what="the bundle")
        with grpc.insecure_channel("127.0.0.1:%d" % self.node.ports["listen"]) as channel:
            call = echo.stubs.EchoStub(channel).Say.future(
                pb.Words(text="x"), timeout=60, metadata=echo.token("web"))
            self.assertTrue(held.asked.wait(60))
            self.publish(bundles=False, **how)
            wait_until(lambda: self.node.log().count("certificates-read") > read + 1,
                       what="the bundle to go")
            held.goes_on.set()
            self.assertEqual(call.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(dict(call.trailing_metadata())["x-trilane-code"], "UPSTREAM_CONNECT")
            self.assertEqual(server.echo.seen, {})

    def test_a_node_that_has_no_file_of_cas(self):
        """What its bundles vouched for goes with them, and the system's CAs take no place."""
        node = self.p.node("node-2", tls_ca=None)
        node.env["SSL_CERT_FILE"] = str(self.p.ca)
        node.start()
        self.publish(bundles=True, node=node)
        wait_until(lambda: node.log().count("certificates-read") > 0, what="the bundle")
        stream = self.stream(self.theirs, node)
        self.publish(bundles=False, node=node)
        self.ends(stream)
        identity = self.p.issue_service("acme", "echo")
        server = echo.Server("mtls", grpc.ssl_server_credentials(
            ((pathlib.Path(identity["key"]).read_bytes(),
              pathlib.Path(identity["cert"]).read_bytes()),), self.p.ca.read_bytes(), True))
        self.addCleanup(server.stop)
        for tls in ("tls", "mtls"):
            self.publish(bundles=False, port=server.port, node=node,
                         profile="upstream: {tls: %s, serverName: localhost}" % tls)
            with grpc.insecure_channel("127.0.0.1:%d" % node.ports["listen"]) as channel:
                with self.assertRaises(grpc.RpcError) as caught:
                    echo.stubs.EchoStub(channel).Say(pb.Words(text="x"), timeout=60,
                                                     metadata=echo.token("web"))
            self.assertEqual(dict(caught.exception.trailing_metadata())["x-trilane-code"],
                             "UPSTREAM_CONNECT")
        self.assertEqual(node.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
