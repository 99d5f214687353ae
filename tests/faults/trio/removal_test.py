"""A removed node is revoked by a publication that two of three sign, whichever replica was asked; where
nobody signs it the removal holds, and whatever is published next revokes it."""

import threading
import unittest

import turns
from joining import JoinedNode
from trilane import wait_until
from trio import Trio


class Removed(unittest.TestCase):
    def setUp(self):
        self.t = Trio(cluster=False, head_interval_ms=200, cosign_wait_ms=1500, forward_wait_ms=3000)
        self.addCleanup(self.t.close)
        for replica in self.t.replicas:
            replica.flags["ca"] = self.t.identities
        self.t.start()
        self.t.publish("first", turns.write(self.t, "first"))

    def join(self, name):
        """A node that joined; its serial."""
        JoinedNode(self.t, name).joined(self.t.leader())
        nodes = self.t.leader().json("identity list")["nodes"]
        return next(n["serial"] for n in nodes if n["node"] == name)

    def revoked(self, version, since=1):
        changes = self.t.leader().json("diff", str(since), str(version))["diff"]["changes"]
        return {c["id"] for c in changes if c["kind"] == "revocation"}

    def newest(self):
        return self.t.history()[0]

    def test_it_is_signed_by_two_whoever_is_asked(self):
        serials = [self.join("edge-1"), self.join("edge-2")]
        follower = self.t.followers()[0]
        answer = follower.json("identity remove", "edge-1")
        newest = self.newest()
        self.assertEqual((answer["published"], answer["version"]), (True, newest["version"]))
        self.assertEqual(len(newest["signers"].split(",")), 2, newest)
        self.assertEqual(self.revoked(newest["version"]), {"certificate/" + serials[0]})
        again = self.t.followers()[1].json("identity remove", "edge-1")
        self.assertEqual((again["published"], again["version"]), (False, newest["version"]))
        self.t.leader().json("identity remove", "edge-2")
        both = {"certificate/" + one for one in serials}
        self.assertEqual(self.revoked(self.newest()["version"]), both)
        lines = [e["object"] for e in self.t.leader().api("GET", "/api/v1/audit")[1]["entries"]
                 if e["action"] == "identity remove"]
        self.assertEqual(sorted(lines), ["edge-1", "edge-1", "edge-2"])
        leader = self.t.leader()
        leader.kill()  # the next one has nothing at hand: what was signed says it.
        self.t.wait_leader(besides=leader)
        self.publications(both)

    def publications(self, revoked):
        version = self.t.publish("second", turns.write(self.t, "second"))
        self.assertEqual(self.revoked(version), revoked)
        for flags in ((), ("--with-trust", "--yes-really", "1")):
            record = self.t.leader().json("rollback", "--wait", "no", "-m", "m", *flags,
                                          "1")["record"]
            self.assertEqual(len(record["signers"].split(",")), 2, record)
            self.assertEqual(self.revoked(record["version"]), revoked)

    def test_one_is_left(self):
        serial = self.join("edge-1")
        last = self.t.leader()
        followers = self.t.followers()
        for replica in followers:
            replica.kill()
        done = last.run("identity", "remove", "edge-1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("removed edge-1", done.stdout)
        self.assertIn("error: COSIGNERS_MISSING: its certificates are not revoked yet", done.stderr)
        self.assertIn("the next publication of whatever kind revokes them", done.stderr)
        nodes = last.json("identity list")["nodes"]
        self.assertEqual([n["state"] for n in nodes], ["removed"])
        self.assertEqual(self.newest()["version"], 1)
        self.with_the_break_glass_key(last, {"certificate/" + serial})
        for replica in followers:
            replica.start(wait=False)
        for replica in followers:
            replica.wait_healthy()
        self.t.wait_leader()
        record = wait_until(self.rolled_back, what="a rollback that two sign")
        self.assertEqual(self.revoked(record["version"]), {"certificate/" + serial})
        answer = self.t.leader().json("identity remove", "edge-1")
        self.assertEqual((answer["published"], answer["version"]), (False, record["version"]))

    def with_the_break_glass_key(self, last, revoked):
        """Whoever signs by hand makes the same of sources that do not have it."""
        sources, answer = turns.write(self.t, "glass"), {}
        waiting = threading.Thread(target=lambda: answer.update(
            last.json("publish", "--sign-timeout", "30", "--wait", "no", "-m", "glass", sources)))
        waiting.start()
        wait_until(lambda: last.json("proposal show")["origin"] == 0, 10, "its proposal")
        last("proposal", "sign", "--key", self.t.break_glass, sources)
        waiting.join(40)
        self.assertIn("break-glass", answer["record"]["signers"])
        self.assertEqual(self.revoked(answer["record"]["version"]), revoked)

    def rolled_back(self):
        done = self.t.leader().run("rollback", "--wait", "no", "--output", "json", "-m", "m", "1")
        return self.newest() if done.returncode == 0 else None


if __name__ == "__main__":
    unittest.main()
