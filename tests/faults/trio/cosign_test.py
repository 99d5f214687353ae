"""What replicas sign for is made in the format that is proposed, and a rollback with the revocations
that are newest, or, with trust, with those of its version."""

import threading
import unittest

import turns
from other_node import FORMER, OtherNode
from trilane import wait_until
from trio import Trio


class Cosigned(unittest.TestCase):
    def setUp(self):
        self.t = Trio(cluster=False, head_interval_ms=200)
        self.addCleanup(self.t.close)
        self.t.start()

    def sources(self, turn, more=""):
        return turns.write(self.t, turn, more)

    def command(self, *args):
        """At whoever leads: the version, once two have signed."""
        answer = self.t.wait_leader().json(args[0], "--wait", "no", "-m", "m", *args[1:])
        self.assertEqual(len(answer["record"]["signers"].split(",")), 2, answer)
        return answer

    def revoked(self, version):
        """What the version has that the first one has not."""
        leader = self.t.wait_leader()
        return [c["id"] for c in leader.json("diff", "1", str(version))["diff"]["changes"]
                if c["kind"] == "revocation"]

    def test_rollbacks(self):
        self.command("publish", self.sources("first"))
        self.command("publish", self.sources("second", turns.REVOCATION))
        kept = self.command("rollback", "1")["record"]["version"]
        self.assertEqual(self.revoked(kept), ["certificate/0a"])
        lifted = self.command("rollback", "--with-trust", "--yes-really", "1", "1")["record"]
        self.assertEqual(self.revoked(lifted["version"]), [])
        back = self.command("rollback", "--with-trust", "--yes-really", "2", "2")["record"]
        self.assertEqual(self.revoked(back["version"]), ["certificate/0a"])

    def test_the_format_before(self):
        other = OtherNode(self.t, "other")
        self.addCleanup(other.silence)
        self.assertEqual(self.command("publish", self.sources("first"))["format"], 2)
        other.speaks(1, FORMER)
        wait_until(self.is_heard, 60, "the other node's status")
        self.assertEqual(self.command("publish", self.sources("second"))["format"], 1)
        self.assertEqual(self.command("rollback", "2")["format"], 1)
        self.with_the_break_glass_key()

    def is_heard(self):
        nodes = {n["node"]: n for n in self.t.wait_leader().json("status")["nodes"]}
        return nodes.get("other", {}).get("live") and nodes["other"]["format"] == 1

    def with_the_break_glass_key(self):
        """The sources at hand, too, are compiled in the format that is proposed."""
        last, sources, answer = self.t.wait_leader(), self.sources("third"), {}
        for follower in self.t.followers(last):
            follower.kill()
        waiting = threading.Thread(target=lambda: answer.update(
            last.json("publish", "--sign-timeout", "60", "--wait", "no", "-m", "glass", sources)))
        waiting.start()
        self.t.wait_proposal(last)
        last("proposal", "sign", "--key", self.t.break_glass, sources)
        waiting.join(90)
        self.assertIn("break-glass", answer["record"]["signers"])
        self.assertEqual(answer["format"], 1)


if __name__ == "__main__":
    unittest.main()
