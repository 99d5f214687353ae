"""A rollback brings back who was revoked since then only when it is asked to, twice."""

import hashlib
import os
import pty
import subprocess
import unittest

import trilane
from trilane import Platform, wait_until

TOKEN = "web-token-of-this-test"
PLATFORM = """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: dev}
spec: {security: dev, trustDomain: trilane.test}
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: web, tenant: acme}
spec:
  traits: {turn: "%d"}
  tokens: ["blake2b:%s"]
"""
REVOCATION = """
---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: incident}
spec:
  reason: token on a public page
  identities: ["spiffe://trilane.test/tenant/acme/service/web"]
"""
SUBJECTS = """  subjects: ["https://id.example.com#alice"]
"""
KEY = "revocation identity/spiffe://trilane.test/tenant/acme/service/web"


class Rollbacks(unittest.TestCase):
    def setUp(self):
        self.p = Platform(environment="dev")
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane().start(head_interval_ms=100)
        wait_until(self.cp.leads, 60, "a leader")
        self.node = self.p.node("node-1").start(status_interval_ms=200)
        self.assertEqual(self.publish(1), 1)
        self.assertEqual(self.publish(2, REVOCATION), 2)
        self.assertEqual(self.asks(), "IDENTITY_REVOKED")

    def sources(self, turn, more=""):
        digest = hashlib.blake2b(TOKEN.encode(), digest_size=32).hexdigest()
        return self.p.write_policies({"platform.yaml": PLATFORM % (turn, digest) + more})

    def publish(self, turn, more=""):
        return self.served(self.cp.json("publish", "-m", "turn %d" % turn, self.sources(turn, more)))

    def served(self, answer):
        """Its version, once the node serves it."""
        version = answer["record"]["version"]
        wait_until(lambda: self.node.version() == version, what="the node to serve it")
        return version

    def rollback(self, *args):
        answer = self.cp.json("rollback", "-m", "back", *args)
        self.needs = answer["capabilities"]
        return self.served(answer)

    def asks(self):
        """What web is told: who it is comes before where it wants to go."""
        status, headers, _ = trilane.http(
            "GET", self.node.proxy + "/v1/fetch?url=http://nowhere.test/", headers={
                "Authorization": "Bearer " + TOKEN})
        code = {k.lower(): v for k, v in headers.items()}["x-trilane-code"]
        self.assertEqual(status, 401 if code == "IDENTITY_REVOKED" else 403)
        return code

    def changes(self, old, new):
        return [c["sentence"] for c in
                self.cp.json("diff", str(old), str(new))["diff"]["changes"]]

    def test_it_keeps_the_newest_revocations(self):
        self.assertEqual(self.rollback("1"), 3)
        self.assertEqual(self.asks(), "IDENTITY_REVOKED")
        self.assertEqual(self.changes(1, 3), [KEY + " added"])
        self.assertEqual([c for c in self.changes(2, 3) if "revocation" in c], [])
        self.assertFalse(self.cp.json("history")["versions"][0]["with_trust"])
        self.assertIn("back (content of 1)\n", self.cp("history"))
        # A rollback of the rollback, and one to it.
        self.assertEqual(self.rollback("2"), 4)
        self.assertEqual(self.rollback("3"), 5)
        self.assertEqual(self.asks(), "IDENTITY_REVOKED")
        self.assertEqual(self.changes(3, 5), [])

        # The old sources lack it: to publish them lifts it, which the plan says.
        plan = self.cp("plan", self.sources(1))
        self.assertIn("! %s lifted: what it refused is taken again\n" % KEY, plan)
        self.assertIn("this LOOSENS: 1 revocation is lifted\n", plan)
        change = self.cp.json("plan", self.sources(1))["diff"]["changes"][0]
        self.assertEqual((change["kind"], change["op"], change["loosens"]),
                         ("revocation", "removed", True))
        self.assertEqual(self.publish(1), 6)
        self.assertEqual(self.asks(), "EGRESS_UNKNOWN")
        # The newest are none: a rollback to when there was one does not bring it back.
        self.assertEqual(self.rollback("2"), 7)
        self.assertEqual(self.asks(), "EGRESS_UNKNOWN")

    def test_what_revocations_need_goes_where_they_go(self):
        self.assertEqual(self.publish(3, REVOCATION + SUBJECTS), 3)
        self.assertEqual(self.rollback("1"), 4)
        self.assertEqual(self.needs, ["REVOCATIONS", "REVOKED_SUBJECTS"])
        self.assertEqual(self.rollback("--with-trust", "--yes-really", "2", "2"), 5)
        self.assertEqual(self.needs, ["REVOCATIONS"])
        self.assertEqual(self.rollback("3"), 6)
        self.assertEqual(self.needs, ["REVOCATIONS"])

    def test_with_trust_is_asked_for_twice(self):
        rollback = ("rollback", "-m", "back", "--with-trust")
        for more in (("1",), ("--yes-really", "2", "1"), ("--yes-really", "yes", "1")):
            done = self.cp.run(*rollback, *more)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("--yes-really 1", done.stderr)
        body = {"message": "m", "version": 1, "with_trust": True}
        for more in ({}, {"confirm": 2}, {"confirm": "1"}, {"with_trust": False, "confirm": 1}):
            status, answer = self.cp.api("POST", "/api/v1/rollback", dict(body, **more))
            self.assertEqual((status, answer["code"]), (400, "USAGE"))
            self.assertIn("confirm", answer["message"])
        self.assertEqual(len(self.cp.json("history")["versions"]), 2)

        self.assertEqual(self.rollback("--with-trust", "--yes-really", "1", "1"), 3)
        self.assertEqual(self.asks(), "EGRESS_UNKNOWN")
        self.assertEqual(self.changes(2, 3)[-1], KEY + " lifted: what it refused is taken again")
        newest = self.cp.json("history")["versions"][0]
        self.assertEqual((newest["origin"], newest["with_trust"], newest["message"]),
                         (1, True, "back"))
        self.assertIn("back (content of 1, with trust)\n", self.cp("history"))
        entry = self.cp.api("GET", "/api/v1/audit")[1]["entries"][0]
        self.assertEqual((entry["action"], entry["object"], entry["outcome"]),
                         ("rollback-with-trust", "version 3", "OK"))

        status, answer = self.cp.api("POST", "/api/v1/rollback", {
            "message": "m", "version": 2, "with_trust": True, "confirm": 2})
        self.assertEqual((status, answer["record"]["version"]), (200, 4))
        wait_until(lambda: self.node.version() == 4, what="the node to serve it")
        self.assertEqual(self.asks(), "IDENTITY_REVOKED")

    def at_the_terminal(self, typed):
        ours, its = pty.openpty()
        try:
            done = subprocess.Popen(
                [trilane.CP, "rollback", "--server", self.cp.url, "--token-file",
                 self.cp.data / "token", "-m", "back", "--with-trust", "1"], stdin=its,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            os.write(ours, typed.encode())
            said = done.communicate(timeout=60)
            return done.returncode, said[1]
        finally:
            os.close(ours)
            os.close(its)

    def test_a_terminal_is_asked(self):
        code, said = self.at_the_terminal("yes\n")
        self.assertEqual(code, 2, said)
        self.assertIn("What was revoked since version 1 is taken again", said)
        self.assertEqual(self.asks(), "IDENTITY_REVOKED")
        code, said = self.at_the_terminal("1\n")
        self.assertEqual(code, 0, said)
        wait_until(lambda: self.node.version() == 3, what="the node to serve it")
        self.assertEqual(self.asks(), "EGRESS_UNKNOWN")


if __name__ == "__main__":
    unittest.main()
