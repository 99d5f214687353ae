"""A database that is behind gives up what it lost, and not what was revoked there: it stays refused,
on a real node, whatever else goes back."""

import hashlib
import json
import pathlib
import sqlite3
import unittest

import trilane
from other_node import OtherNode
from trilane import NatsClient, Platform, wait_until

TOKENS = {name: "%s-token-of-this-test" % name for name in ("web", "shop")}
PLATFORM = """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: dev}
spec: {security: dev, trustDomain: trilane.test}
"""
SERVICE = """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: %s, tenant: acme}
spec:
  traits: {turn: "%d"}
  tokens: ["blake2b:%s"]
"""
REVOCATION = """
---
apiVersion: trilane.dev/v1
kind: Revocation
metadata: {name: incident-%s}
spec:
  identities: ["spiffe://trilane.test/tenant/acme/service/%s"]
  certificates: ["4A0DF3"]
  tokens: ["blake2b:%s"]
  types: [Order.v1]
"""


def digest(text):
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def revoked(name):
    return REVOCATION % (name, name, digest("another token of " + name))


class GivingUp(unittest.TestCase):
    def setUp(self):
        self.p = Platform(environment="dev")
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane()
        self.start()
        self.node = self.p.node("node-1").start(status_interval_ms=200)

    def start(self):
        self.cp.start(head_interval_ms=100)
        wait_until(self.cp.leads, 60, "a leader")

    def sources(self, turn, *more):
        services = "".join(SERVICE % (name, turn, digest(token)) for name, token in TOKENS.items())
        return self.p.write_policies({"platform.yaml": PLATFORM + services + "".join(more)})

    def publish(self, turn, *more):
        version = self.cp.json("publish", "-m", "turn %d" % turn,
                               self.sources(turn, *more))["record"]["version"]
        wait_until(lambda: self.node.version() == version, what="the node to serve it")
        return version

    def store(self, command, path):
        self.p.command(command, "--data-dir", self.cp.data, path)

    def lose(self, lost, back_up=True):
        """What 'lost' publishes is in the bucket and on the node, and not in the database."""
        backup = self.p.directory / "backup"
        if back_up:
            self.store("backup", backup)
        lost()
        self.cp.stop()
        for path in self.cp.data.glob("store.db*"):
            path.unlink()
        if back_up:
            self.store("restore", backup)
        self.start_behind()

    def start_behind(self):
        self.cp.start(head_interval_ms=100)
        wait_until(lambda: self.cp.json("status")["leader"]["code"] == "STORE_BEHIND",
                   what="the database to be behind")

    def give_up(self, *more):
        return self.cp.json("recover", "--give-up", "-m", "given up", *more)["record"]

    def asks(self, name):
        """What a service is told: who it is comes before where it wants to go."""
        _, headers, _ = trilane.http(
            "GET", self.node.proxy + "/v1/fetch?url=http://nowhere.test/", headers={
                "Authorization": "Bearer " + TOKENS[name]})
        return {k.lower(): v for k, v in headers.items()}["x-trilane-code"]

    def both_ask(self):
        return self.asks("web"), self.asks("shop")

    def changes(self, old, new):
        return [c["sentence"] for c in
                self.cp.json("diff", str(old), str(new))["diff"]["changes"]]

    def test_what_was_revoked_there_stays_refused(self):
        """What the journal revokes and what the lost version does: both, whatever either lacks."""
        self.assertEqual(self.publish(1, revoked("shop")), 1)
        self.lose(lambda: self.publish(2, revoked("web")))
        self.assertEqual(self.both_ask(), ("IDENTITY_REVOKED", "EGRESS_UNKNOWN"))
        record = self.give_up()
        self.assertEqual((record["version"], record["origin"]), (3, 0))
        wait_until(lambda: self.node.version() == 3, 60, "the node to serve it")
        self.assertEqual(self.both_ask(), ("IDENTITY_REVOKED",) * 2)
        why = " added: in force when version 2 was given up"
        self.assertEqual(self.changes(1, 3), [
            "revocation identity/spiffe://trilane.test/tenant/acme/service/web" + why,
            "revocation token/%s" % digest("another token of web") + why])
        status, answer = self.cp.api("GET", "/api/v1/versions/3")
        self.assertEqual(status, 200)
        self.assertIn("given-up-2.yaml", json.dumps(answer))
        # It is among the sources, so leaving it out is told.
        plan = self.cp("plan", self.sources(1, revoked("shop")))
        self.assertIn("this LOOSENS: 2 revocations are lifted\n", plan)

    def test_what_revokes_no_more_is_a_rollback(self):
        self.assertEqual(self.publish(1, revoked("web")), 1)
        self.lose(lambda: self.publish(2))
        self.assertEqual(self.asks("web"), "EGRESS_UNKNOWN")
        record = self.give_up()
        self.assertEqual((record["version"], record["origin"]), (3, 1))
        wait_until(lambda: self.node.version() == 3, 60, "the node to serve it")
        self.assertEqual(self.asks("web"), "IDENTITY_REVOKED")
        self.assertEqual(self.changes(1, 3), [])

    def test_a_nodes_word_that_nobody_believes_holds_nothing_up(self):
        """One that says it serves what cannot be keeps nothing from being adopted."""
        self.publish(1)
        self.lose(lambda: self.publish(2))
        liar = OtherNode(self.p, "liar")
        self.addCleanup(liar.silence)
        liar.speaks(1, serves=str(2 ** 62))
        wait_until(lambda: 2 ** 62 in [n["version"] for n in self.cp.json("status")["nodes"]],
                   what="its word to be heard")
        answer = self.cp.json("recover", "--wait", "no", "-m", "adopted")
        self.assertEqual(answer["record"]["version"], 2)

    def test_a_row_that_was_damaged_is_given_up(self):
        """As if it had never been: the one below it is the newest, and what it revokes stays."""
        self.publish(1, revoked("web"))
        self.publish(2)
        self.cp.stop()
        with sqlite3.connect(self.cp.data / "store.db", timeout=20) as db:
            db.execute("UPDATE journal SET manifest = x'00' WHERE number = 2")
        self.start_behind()
        record = self.give_up()
        self.assertEqual((record["version"], record["origin"]), (3, 1))
        wait_until(lambda: self.node.version() == 3, 60, "the node to serve it")
        self.assertEqual(self.asks("web"), "IDENTITY_REVOKED")
        self.assertEqual([v["version"] for v in self.cp.json("history")["versions"]], [3, 1])

    def purge(self, keys):
        bucket = "trilane_dev_snapshots"
        with NatsClient(self.p.nats) as nats:
            answer = json.loads(nats.request("$JS.API.STREAM.PURGE.KV_" + bucket, json.dumps(
                {"filter": "$KV.%s.%s" % (bucket, keys)}).encode()))
            self.assertTrue(answer.get("success"), answer)

    def test_what_cannot_be_read_is_not_passed_over(self):
        self.publish(1)
        self.lose(lambda: self.publish(2, revoked("web")))
        self.purge("chunk.>")
        done = self.cp.run("recover", "--give-up", "-m", "too early")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("what version 2 revoked cannot be read", done.stderr)
        self.assertIn("--give-up --with-trust --yes-really 2 gives that up, too", done.stderr)
        once = self.cp.run("recover", "--give-up", "--with-trust", "-m", "asked once")
        self.assertEqual(once.returncode, 2, once.stderr)
        other = self.cp.run("recover", "--give-up", "--with-trust", "--yes-really", "1", "-m", "x")
        self.assertIn("what version 2 revoked cannot be read", other.stderr)
        self.assertEqual(len(self.cp.json("history")["versions"]), 1)
        record = self.give_up("--with-trust", "--yes-really", "2")
        self.assertEqual((record["origin"], record["with_trust"]), (1, True))

    def test_an_empty_database_keeps_it_in_a_file(self):
        self.publish(1)
        self.lose(lambda: self.publish(2, revoked("web")), back_up=False)
        self.cp("recover", "--give-up", "--wait", "no", "-m", "a new beginning")
        file = self.cp.data / "given-up-2.yaml"
        self.assertIn("event=revocations_kept file=%s" % file, self.cp.log())
        wait_until(self.cp.leads, 60, "a leader")
        sources = pathlib.Path(self.sources(1))
        (sources / file.name).write_text(file.read_text())
        version = self.cp.json("publish", "-m", "the present ones", sources)["record"]["version"]
        self.assertEqual(version, 3)
        wait_until(lambda: self.node.version() == 3, what="the node to serve it")
        self.assertEqual(self.both_ask(), ("IDENTITY_REVOKED", "EGRESS_UNKNOWN"))


if __name__ == "__main__":
    unittest.main()
