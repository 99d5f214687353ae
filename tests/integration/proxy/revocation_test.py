"""Who is revoked fetches nothing any more: not by a token, not on a connection that is open, not
through a tunnel; and a revoked service of ours is not fetched from."""

import json
import signal
import socket
import ssl
import threading
import time
import unittest
import urllib.parse

import outside
import trilane

SOON = 10.0  # what must happen within a second, on a machine that does much else.


def revocation(**lists):
    spec = ", ".join("%s: ['%s']" % (name, value) for name, value in lists.items())
    return """
---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: incident}
spec: {%s}
""" % spec


class Held:
    """An ssl.SSLContext whose handshakes wait until they are let go."""

    def __init__(self, context):
        self.context = context
        self.asked = threading.Event()
        self.goes_on = threading.Event()

    def wrap_socket(self, conn, **how):
        self.asked.set()
        self.goes_on.wait(60)
        return self.context.wrap_socket(conn, **how)


class Revocations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.origin = cls.start(outside.Origin())
        server = cls.platform.issue_service("acme", "origin")
        inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cls.platform.ca))
        inside.verify_mode = ssl.CERT_REQUIRED
        inside.load_cert_chain(server["cert"], server["key"])
        cls.inside = cls.start(outside.Origin(tls=inside))
        cls.names = cls.start(outside.Names({"inside.test": ["127.0.0.1"]}))
        cls.web = cls.platform.issue_service("acme", "web")
        cls.cp = cls.platform.control_plane().start(head_interval_ms=100)
        cls.cas = cls.platform.directory / "cas.pem"
        cls.cas.write_bytes(cls.platform.ca.read_bytes())
        cls.node = cls.platform.node("node-1", workers=2, tls_ca=cls.cas,
                                     dns_servers="127.0.0.1:%d" % cls.names.port).start()

    @classmethod
    def start(cls, thing):
        cls.addClassCleanup(thing.stop)
        return thing

    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))  # what tunnels lead to.
        self.addCleanup(self.listener.close)
        self.publish()

    def publish(self, more=""):
        ports = [self.origin.port, self.inside.port, self.listener.getsockname()[1]]
        answer = self.cp.json("publish", "--again", "-m", "m", self.platform.write_policies(
            {"platform.yaml": outside.platform_yaml(ports) + more}))
        version = answer["record"]["version"]
        trilane.wait_until(lambda: self.node.version() == version, what="the node to serve it")

    def identity(self, service):
        return "spiffe://trilane.test/tenant/acme/service/" + service

    # ---- callers ----

    def secure(self, identity):
        """A connection to the proxy port by a certificate."""
        context = self.platform.tls_context(identity["cert"], identity["key"])
        s = context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.node.ports["listen-proxy-tls"]), 60),
            server_hostname="localhost")
        self.addCleanup(s.close)
        return s

    def clear(self):
        s = socket.create_connection(("127.0.0.1", self.node.ports["listen-proxy"]), 60)
        self.addCleanup(s.close)
        return s

    def send(self, s, target, method="GET", who=None):
        token = "Authorization: Bearer %s\r\n" % outside.TOKENS[who] if who else ""
        s.sendall(("%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n" % (method, target, token)).encode())

    def answer(self, s):
        """Status, fields and body of the next answer on a connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = s.recv(1)
            if not byte:
                raise AssertionError("it ended after %r" % head)
            head += byte
        lines = head.decode().split("\r\n")
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        body = b""
        while len(body) < int(fields.get("content-length", 0)):
            body += s.recv(65536)
        return int(lines[0].split()[1]), fields, body

    def tunnel(self, s, who=None):
        """Opens one; the far end's socket."""
        authority = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.send(s, authority, "CONNECT", who)
        self.assertEqual(self.answer(s)[0], 200)
        there, _ = self.listener.accept()
        self.addCleanup(there.close)
        s.sendall(b"x")
        self.assertEqual(there.recv(1), b"x")
        return there

    def url(self, path):
        return "http://127.0.0.1:%d%s" % (self.origin.port, path)

    def fetch(self, url):
        return "/v1/fetch?url=" + urllib.parse.quote(url, safe="")

    def ends(self, s):
        """The connection ends, soon; what came before."""
        began = time.monotonic()
        got = b""
        try:
            s.settimeout(SOON)
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                got += piece
        except (ConnectionResetError, ssl.SSLError):
            pass
        self.assertLess(time.monotonic() - began, SOON)
        return got

    # ---- what is revoked ----

    def test_a_token(self):
        tunnel = self.clear()
        self.tunnel(tunnel, "web")
        self.publish(revocation(tokens=outside.digest(outside.TOKENS["web"])))
        self.ends(tunnel)
        s = self.clear()
        for target, status, asks in ((self.fetch(self.url("/public/echo")), 401,
                                      "www-authenticate"),
                                     (self.url("/public/echo"), 407, "proxy-authenticate")):
            self.send(s, target, who="web")
            got, fields, body = self.answer(s)
            self.assertEqual((got, fields["x-trilane-code"]), (status, "IDENTITY_REVOKED"))
            self.assertIn(asks, fields)
            self.assertEqual(json.loads(body)["code"], "IDENTITY_REVOKED")
        self.send(s, self.url("/public/echo"), who="stranger")
        self.assertEqual(self.answer(s)[1]["x-trilane-code"], "POLICY_DENIED")

    def test_an_identity_on_open_connections(self):
        idle, tunnel, hanging = self.secure(self.web), self.secure(self.web), self.secure(self.web)
        stays = self.clear()
        self.send(idle, self.url("/public/echo"))
        self.assertEqual(self.answer(idle)[0], 200)
        self.tunnel(tunnel)
        there = self.tunnel(stays, "web")
        before = len(self.origin.heads)
        self.send(hanging, self.url("/public/hang"))
        trilane.wait_until(lambda: len(self.origin.heads) > before, what="the request outside")
        self.publish(revocation(identities="spiffe://trilane.test/tenant/acme/service/nobody"))
        stays.sendall(b"y")
        self.assertEqual(there.recv(1), b"y")
        self.send(idle, self.url("/public/echo"))
        self.assertEqual(self.answer(idle)[0], 200)

        self.publish(revocation(identities=self.identity("web")))
        self.assertEqual(self.ends(idle), b"")
        self.ends(tunnel)
        told = self.ends(hanging)  # answered, since nothing of an answer was there yet.
        self.assertIn(b" 407 ", told.split(b"\r\n")[0])
        self.assertIn(b"IDENTITY_REVOKED", told)
        self.ends(stays)  # its token was web's, too.
        s = self.secure(self.web)
        self.send(s, self.fetch(self.url("/public/echo")))
        self.assertEqual(self.answer(s)[1]["x-trilane-code"], "IDENTITY_REVOKED")

    def test_a_service_that_is_fetched_from(self):
        url = self.fetch("https://inside.test:%d/public/echo" % self.inside.port)
        s = self.clear()
        self.send(s, url, who="web")
        self.assertEqual(self.answer(s)[0], 200)
        hanging = self.clear()
        before = len(self.inside.heads)
        self.send(hanging, url.replace("echo", "hang"), who="web")
        trilane.wait_until(lambda: len(self.inside.heads) > before, what="the request inside")
        self.publish(revocation(identities=self.identity("origin")))
        status, fields, _ = self.answer(hanging)
        self.assertEqual((status, fields["x-trilane-code"]), (502, "EGRESS_UNTRUSTED"))
        self.send(s, url, who="web")
        self.assertEqual(self.answer(s)[1]["x-trilane-code"], "EGRESS_UNTRUSTED")
        self.send(s, self.url("/public/echo"), who="web")  # strangers' names are not asked about.
        self.assertEqual(self.answer(s)[0], 200)

    def test_a_ca_that_goes_takes_its_tunnels(self):
        old = self.platform.directory / "old-ca"
        self.platform.command("identity", "init", "--trust-domain", "trilane.test", "--out", old)
        self.platform.command("identity", "issue", "--ca", old, "--service", "acme/web", "--san",
                              "dns:localhost", "--out", old)
        ours = self.platform.ca.read_bytes()
        self.cas.write_bytes(ours + (old / "ca.pem").read_bytes())
        self.node.signal(signal.SIGHUP)
        trilane.wait_until(lambda: self.node.log().count("certificates-read") == 1, what="SIGHUP")
        goes, stays = self.secure({"cert": str(old / "acme-web.pem"),
                                   "key": str(old / "acme-web.key")}), self.secure(self.web)
        self.tunnel(goes)
        there = self.tunnel(stays)
        self.cas.write_bytes(ours)
        self.node.signal(signal.SIGHUP)
        self.ends(goes)
        stays.sendall(b"y")
        self.assertEqual(there.recv(1), b"y")

    def reload(self, cas):
        before = self.node.log().count("certificates-read")
        self.cas.write_bytes(cas)
        self.node.signal(signal.SIGHUP)
        trilane.wait_until(lambda: self.node.log().count("certificates-read") > before,
                           what="SIGHUP")

    def test_an_upstream_that_shakes_hands_when_its_ca_goes(self):
        other = self.platform.directory / "other-ca"
        self.platform.command("identity", "init", "--trust-domain", "trilane.test", "--out", other)
        ours = self.platform.ca.read_bytes()
        held = Held(self.inside.tls)
        self.addCleanup(setattr, self.inside, "tls", held.context)
        self.inside.tls = held
        url = self.fetch("https://inside.test:%d/public/echo" % self.inside.port)
        s = self.clear()
        self.send(s, url, who="web")
        self.assertTrue(held.asked.wait(60))
        self.addCleanup(self.reload, ours)
        self.reload((other / "ca.pem").read_bytes())
        held.goes_on.set()
        status, fields, _ = self.answer(s)
        self.assertEqual((status, fields["x-trilane-code"]), (502, "EGRESS_UNTRUSTED"))


if __name__ == "__main__":
    unittest.main()
