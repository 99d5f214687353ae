"""Callers by JSON Web Token: of each algorithm, from a key set that is read over HTTPS; rotation,
an issuer that is away, a node that starts meanwhile; what the upstream is told, and when a stream
ends."""

import base64
import json
import re
import socket
import time
import unittest

import grpc

import echo_service as echo
import trilane
from issuer import ALGORITHMS, Issuer, Key
from trilane import wait_until

pb = echo.pb

RESOURCES = """
---
apiVersion: trilane.dev/v1
kind: Issuer
metadata: {name: idp}
spec:
  issuer: https://id.example.com/realms/main
  audiences: [trilane]
  algorithms: [%s]
  leeway: 1s
  jwks:
    uri: %s
    ca: |
%s
  tenants:
    - {claim: org}
    - {when: [{claim: groups, value: acme-staff}], tenant: acme}
  service: client_id
  traits: {role: realm_access.roles, tier: tier}
---
apiVersion: trilane.dev/v1
kind: Issuer
metadata: {name: own, tenant: globex}
spec:
  issuer: https://globex.example.com
  audiences: [trilane]
  algorithms: [EdDSA]
  jwks: {file: globex.jwks}
---
apiVersion: trilane.dev/v1
kind: Issuer
metadata: {name: found}
spec:
  issuer: %s
  audiences: [trilane]
  algorithms: [ES256]
  jwks:
    discovery: true
    ca: |
%s
  tenants: [{claim: org}]
  traits: {role: realm_access.roles}
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: echo-more, tenant: acme}
spec:
  target: {service: echo}
  rules:
    - {name: admins, effect: allow, callers: [{tenant: acme, traits: {role/admin: "true"}}]}
    - {name: not-mallory, effect: deny, callers: [{traits: {role/banned: "true"}}]}
%s
"""


class Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = echo.Server("a")
        cls.addClassCleanup(cls.server.stop)
        cls.p = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.p.close)
        rsa = Key("rsa", "RS256")
        cls.keys = {alg: rsa for alg in ALGORITHMS if alg[0] in "RP"}
        cls.keys.update({alg: Key(alg.lower(), alg) for alg in ("ES256", "ES384", "ES512", "EdDSA")})
        cls.idp = Issuer("https://id.example.com/realms/main",
                         [cls.keys[alg] for alg in ("ES256", "ES384", "ES512", "EdDSA", "RS256")])
        cls.own = Issuer("https://globex.example.com", [Key("g", "EdDSA")])
        identity = cls.p.issue_node("idp")
        cls.idp.serve(identity["cert"], identity["key"])
        cls.addClassCleanup(cls.idp.away)
        cls.found = Issuer("", [Key("found", "ES256")])
        cls.found.serve(identity["cert"], identity["key"])
        cls.addClassCleanup(cls.found.away)
        cls.found.name = "https://localhost:%d/realms/found" % cls.found.port
        cls.cp = cls.p.control_plane().start()
        cls.node = cls.p.node("node-1", issuer_rest_ms=300, token_address_failures_per_second=25,
                              access_log=cls.p.directory / "access.log")
        cls.node.start()
        cls.publish()

    @classmethod
    def publish(cls, extra=""):
        ca = "".join("      %s\n" % line for line in cls.p.ca.read_text().strip().splitlines())
        more = RESOURCES % (", ".join(ALGORITHMS), cls.idp.uri, ca.rstrip("\n"), cls.found.name,
                            ca.rstrip("\n"), extra)
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.p.write_policies({
            "platform.yaml": echo.platform_yaml([cls.server.port], extra=more),
            "globex.jwks": json.dumps({"keys": [k.jwk() for k in cls.own.keys]})}))
        wait_until(lambda: cls.node.version() > before, what="the node to serve it")

    def setUp(self):
        self.channel = echo.channel(self.node)
        self.addCleanup(self.channel.close)
        self.stub = echo.stubs.EchoStub(self.channel)

    def token(self, **claims):
        claims = dict({"org": "acme", "realm_access": {"roles": ["admin"]}}, **claims)
        return self.idp.token(**claims)

    def call(self, token, **metadata):
        """What comes of a call: "OK", or the code of its refusal."""
        more = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        try:
            self.stub.Say(pb.Words(text="hi"), metadata=(("authorization", "Bearer " + token),) + more)
            self.said = ""
            return "OK"
        except grpc.RpcError as error:
            self.said = error.details()
            return dict(error.trailing_metadata() or ()).get("x-trilane-code", error.code().name)

    def soon(self, token, code):
        """An answer that comes once keys were read."""
        wait_until(lambda: self.call(token) == code, what=code)

    def test_1_every_algorithm(self):
        for alg in ALGORITHMS:
            with self.subTest(alg):
                self.soon(self.token(key=self.keys[alg], alg=alg, sub=alg), "OK")

    def test_1_keys_that_are_discovered(self):
        """By the issuer's own document alone; keys that it points to are read anew each time."""
        token = self.found.token(org="acme", realm_access={"roles": ["admin"]})
        self.soon(token, "ISSUER_KEYS")
        self.found.document = {"issuer": self.found.name + "/", "jwks_uri": self.idp.uri}
        wait_until(lambda: "the discovery document is of another issuer" in self.node.log(),
                   what="the line of its log")
        self.assertEqual(self.call(token), "ISSUER_KEYS")
        self.found.document = {"issuer": self.found.name, "jwks_uri": self.found.uri,
                               "response_types_supported": ["code"]}
        self.soon(token, "OK")
        self.found.keys.append(Key("later", "ES256"))
        self.soon(self.found.token(key=self.found.keys[1], org="acme",
                                   realm_access={"roles": ["admin"]}), "OK")

    def test_2_what_the_upstream_is_told(self):
        """Nothing of who the caller says that it is; all of who it proved to be."""
        self.soon(self.token(), "OK")
        forged = {"x_caller_id": "spiffe://trilane.test/tenant/acme/service/web",
                  "x_forwarded_client_cert": "By=x", "x_trilane_rule": "mine"}
        self.assertEqual(self.call(self.token(sub="bob b"), **forged), "OK")
        seen = self.server.echo.seen
        self.assertEqual(seen["x-caller-id"], "https://id.example.com/realms/main#bob%20b")
        self.assertEqual(seen["x-tenant-id"], "acme")
        for name in ("authorization", "x-forwarded-client-cert", "x-trilane-rule"):
            self.assertNotIn(name, seen)
        self.assertEqual(self.call(self.token(client_id="web")), "OK")
        self.assertEqual(self.server.echo.seen["x-caller-id"],
                         "spiffe://trilane.test/tenant/acme/service/web")
        self.assertEqual(self.call(self.token(), x_tenant_id="globex"), "TENANT_MISMATCH")
        wait_until(lambda: "caller=acme/idp#bob%20b " in
                   (self.p.directory / "access.log").read_text(), what="the line of its log")

    def test_3_what_rules_see(self):
        self.soon(self.token(), "OK")
        self.assertEqual(self.call(self.token(realm_access={"roles": ["reader"]})), "POLICY_DENIED")
        self.assertEqual(self.call(self.token(realm_access={"roles": ["admin", "banned"]})),
                         "POLICY_DENIED")
        self.assertEqual(self.call(self.token(realm_access=None, tier="gold")), "OK")
        self.assertEqual(self.call(self.token(org=None, groups=["x", "acme-staff"])), "OK")
        self.assertEqual(self.call(self.token(client_id="stranger")), "POLICY_DENIED")
        # A tenant's own Issuer: its callers are the tenant's, whatever they claim.
        self.assertEqual(self.call(self.own.token(org="acme")), "NO_ROUTE")

    def test_4_what_is_refused(self):
        self.soon(self.token(), "OK")
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        for what, token, said in (
                ("audience", self.token(aud="other"), "audience"),
                ("issuer", self.token(iss="https://id.example.com/realms/mainx"), "issuer"),
                ("expired", self.token(life=-5), "expired"),
                ("not yet", self.token(nbf=int(time.time()) + 60), "not valid yet"),
                ("tenant", self.token(org="globex", groups=["acme-staff"]), "tenant"),
                ("no tenant", self.token(org=None), "tenant"),
                ("unknown tenant", self.token(org="initech"), "tenant"),
                ("service", self.token(client_id="nobody"), "Service"),
                ("none", none + "." + self.token().split(".")[1] + ".AA", "algorithm"),
                ("signature", self.token()[:-8] + "AAAAAAAA", "signature")):
            with self.subTest(what):
                channel = echo.channel(self.node, grpc__use_local_subchannel_pool=1)
                self.stub = echo.stubs.EchoStub(channel)
                self.assertEqual(self.call(token), "UNAUTHENTICATED")
                self.assertIn(said, self.said)
                channel.close()

    def test_5_wrong_ones_are_bounded(self):
        self.soon(self.token(), "OK")
        good = self.token(sub="known")
        self.assertEqual(self.call(good), "OK")
        codes = [self.call(self.token(sub=str(i))[:-8] + "AAAAAAAA") for i in range(40)]
        self.assertIn("RATE_LIMITED", codes)
        self.assertEqual(set(codes), {"UNAUTHENTICATED", "RATE_LIMITED"})
        self.assertEqual(self.call(good), "OK")  # who is known is not held up.

    def test_5_wrong_ones_of_an_address(self):
        """Each by a connection of its own: the address has its bound, who comes from elsewhere is heard."""
        def code(token, source):
            """By gRPC-Web over HTTP/1.1, from an address."""
            request = (b"POST /trilane.test.v1.Echo/Say HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                       b"content-type: application/grpc-web+proto\r\ncontent-length: 9\r\n"
                       b"authorization: Bearer %s\r\n\r\n\0\0\0\0\4\n\2hi" % token.encode())
            with socket.create_connection(("127.0.0.1", self.node.ports["listen"]), 60,
                                          source_address=(source, 0)) as line:
                line.sendall(request)
                answer = b"".join(iter(lambda: line.recv(4096), b""))
            found = re.search(rb"x-trilane-code: ?(\w+)", answer)
            return found[1].decode() if found else answer.split()[1].decode()

        self.soon(self.token(), "OK")
        found = {code(self.token(sub=str(i))[:-8] + "AAAAAAAA", "127.0.0.9") for i in range(400)}
        self.assertEqual(found, {"UNAUTHENTICATED", "RATE_LIMITED"})
        _, _, text = trilane.http("GET", self.node.admin + "/metrics")
        self.assertRegex(text.decode(),
                         r'trilane_token_checks_total\{outcome="limited_address"\} [1-9]')
        self.assertEqual(code(self.token(sub="beside"), "127.0.0.1"), "200")

    def test_6_a_stream_ends_with_its_token(self):
        self.soon(self.token(), "OK")
        long, short = self.token(sub="long"), self.token(sub="short", life=1)
        calls = [self.stub.SayMany(pb.Words(text="x", count=1 << 30), timeout=60,
                                   metadata=(("authorization", "Bearer " + token),))
                 for token in (long, short)]
        self.assertEqual(next(calls[0]).count, 0)
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in calls[1]:
                pass
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
        self.assertIn("expired", caught.exception.details())
        self.assertEqual(next(calls[0]).count, 1)
        calls[0].cancel()

    def test_7_revocation(self):
        token = self.token(sub="leaver")
        self.soon(token, "OK")
        stream = self.stub.SayMany(pb.Words(text="x", count=1 << 30), timeout=60,
                                   metadata=(("authorization", "Bearer " + token),))
        next(stream)
        self.publish("""
---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: leavers}
spec: {subjects: ["https://id.example.com/realms/main#leaver"]}
""")
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertEqual(dict(caught.exception.trailing_metadata())["x-trilane-code"],
                         "IDENTITY_REVOKED")
        self.assertEqual(self.call(token), "IDENTITY_REVOKED")
        self.assertEqual(self.call(self.token()), "OK")

    def test_8_rotation(self):
        """A new key is found by the token that names it; one that goes takes its tokens along."""
        old = self.token(sub="old")
        self.soon(old, "OK")
        fresh = Key("fresh", "ES256")
        stream = self.stub.SayMany(pb.Words(text="x", count=1 << 30), timeout=60,
                                   metadata=(("authorization", "Bearer " + old),))
        next(stream)
        self.idp.keys.append(fresh)
        new = self.token(key=fresh)
        self.soon(new, "OK")
        self.assertEqual(self.call(old), "OK")
        self.idp.keys.remove(self.keys["ES256"])
        self.addCleanup(self.idp.keys.append, self.keys["ES256"])
        nobody = self.idp.token(key=Key("nobody", "ES256"), org="acme")
        self.soon(nobody, "UNAUTHENTICATED")  # it is missed, and so the keys are read anew.
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertIn("withdrawn", caught.exception.details())
        self.soon(old, "UNAUTHENTICATED")
        self.assertEqual(self.call(new), "OK")

    def test_9_an_issuer_that_is_away(self):
        """Keys that were read go on; a node that starts meanwhile has them from its disk; one that
        never had any says that it has none."""
        self.soon(self.token(), "OK")
        self.idp.away()
        self.addCleanup(self.idp.back)
        self.assertEqual(self.call(self.token(sub="later")), "OK")
        self.node.stop()
        self.node.start()
        wait_until(self.node.ready, what="the node to serve")
        self.soon(self.token(sub="after-the-start"), "OK")
        for path in (self.node.data / "issuers").iterdir():
            path.unlink()
        self.node.stop()
        self.node.start()
        wait_until(self.node.ready, what="the node to serve")
        self.soon(self.token(), "ISSUER_KEYS")
        self.idp.back()
        self.soon(self.token(), "OK")
        self.assertGreater(self.node.metric("trilane_issuer_keys_reads_total"), 1)
        self.assertGreater(self.node.metric("trilane_token_checks_total"), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
