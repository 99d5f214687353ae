"""A removed node is revoked by a publication that two of three sign, whichever replica was asked; where
nobody signs it the removal holds, and whatever is published next revokes it."""

import ctypes
import ctypes.util
import hashlib
import threading
import unittest

import turns
import unsigned
from joining import JoinedNode
from trilane import wait_until
from trio import Trio


def warrant(token, environment, numbers, sources_digest, body):
    """As a replica that has the token writes it: controlplane/publish/warrant.c."""
    sodium = ctypes.CDLL(ctypes.util.find_library("sodium"))
    salt = hashlib.blake2b(b"trilane.dev/warrant/1\0" + environment.encode(), digest_size=16)
    key = ctypes.create_string_buffer(32)
    assert sodium.crypto_pwhash(key, ctypes.c_ulonglong(32), token, ctypes.c_ulonglong(len(token)),
                                salt.digest(), ctypes.c_ulonglong(2), ctypes.c_size_t(16 << 20),
                                ctypes.c_int(2)) == 0
    said = b"trilane.dev/proposal/1\0" + environment.encode() + b"\0"
    said += b"".join(number.to_bytes(8, "little") for number in numbers)
    said += sources_digest + hashlib.blake2b(body, digest_size=32).digest()
    return hashlib.blake2b(said, key=key.raw, digest_size=32).hexdigest()


class Removed(unittest.TestCase):
    def setUp(self):
        self.t = Trio(cluster=False, head_interval_ms=200, lease_ms=5000, cosign_wait_ms=5000)
        self.addCleanup(self.t.close)
        for replica in self.t.replicas:
            replica.flags["ca"] = self.t.identities
        self.t.start()
        self.t.publish("first", turns.write(self.t, "first"))

    def join(self, name):
        """A node that joined; its serial."""
        leader = self.t.wait_leader()
        JoinedNode(self.t, name).joined(leader)
        nodes = leader.json("identity list")["nodes"]
        return next(n["serial"] for n in nodes if n["node"] == name)

    def revoked(self, version, since=1):
        changes = self.t.wait_leader().json("diff", str(since), str(version))["diff"]["changes"]
        return {c["id"] for c in changes if c["kind"] == "revocation"}

    def newest(self):
        return self.t.history()[0]

    def test_it_is_signed_by_two_whoever_is_asked(self):
        serials = [self.join("edge-1"), self.join("edge-2")]
        one, other = self.t.followers()
        answer = one.json("identity remove", "edge-1")
        newest = self.newest()
        self.assertEqual((answer["published"], answer["version"]), (True, newest["version"]))
        self.assertEqual(len(newest["signers"].split(",")), 2, newest)
        self.assertEqual(self.revoked(newest["version"]), {"certificate/" + serials[0]})
        again = other.json("identity remove", "edge-1")
        self.assertEqual((again["published"], again["version"]), (False, newest["version"]))
        self.t.wait_leader().json("identity remove", "edge-2")
        both = {"certificate/" + one for one in serials}
        self.assertEqual(self.revoked(self.newest()["version"]), both)
        lines = [e["object"] for e in self.t.wait_leader().api("GET", "/api/v1/audit")[1]["entries"]
                 if e["action"] == "identity remove"]
        self.assertEqual(sorted(lines), ["edge-1", "edge-1", "edge-2"])
        leader = self.t.wait_leader()
        leader.kill()  # the next one has nothing at hand: what was signed says it.
        self.t.wait_leader(besides=leader)
        self.publications(both)

    def publications(self, revoked):
        version = self.t.publish("second", turns.write(self.t, "second"))
        self.assertEqual(self.revoked(version), revoked)
        for flags in ((), ("--with-trust", "--yes-really", "1")):
            record = self.t.wait_leader().json("rollback", "--wait", "no", "-m", "m", *flags,
                                          "1")["record"]
            self.assertEqual(len(record["signers"].split(",")), 2, record)
            self.assertEqual(self.revoked(record["version"]), revoked)

    def test_a_leader_that_would_let_it_back_in(self):
        """A proposal with trust, of a replica that has the token, which leaves the removal out."""
        self.join("edge-1")
        newest = self.t.wait_leader().json("identity remove", "edge-1")["version"]
        sql = self.t.postgres.sql
        body = bytes.fromhex(sql("SELECT encode(body, 'hex') FROM proposal WHERE number = 1")[0][0])
        epoch = int(sql("SELECT epoch FROM leader")[0][0])
        bears = warrant(b"t" * 32, self.t.environment, (newest + 1, epoch, 1, 1), bytes(32), body)
        sql("BEGIN; INSERT INTO version (environment, number, epoch, handed_ms)"
            " SELECT environment, {0}, {1}, 0 FROM version WHERE number = 1;"
            " INSERT INTO proposal (environment, number, epoch, origin, with_trust, body, body_digest,"
            " at_ms, sources_digest, warrant) SELECT environment, {0}, {1}, 1, 1, body, body_digest, 0,"
            " '\\x{2}', '\\x{3}' FROM proposal WHERE number = 1; COMMIT"
            .format(newest + 1, epoch, bytes(32).hex(), bears))
        judged = "SELECT code, sentence FROM cosignature WHERE number = %d" % (newest + 1)
        wait_until(lambda: len(sql(judged)) == 2, 60, "both followers judge it")
        for code, sentence in sql(judged):
            self.assertEqual((code, sentence), (
                "COSIGN_REFUSED", "it lifts what was revoked of nodes that were removed"))

    def test_a_row_that_nobody_signed_lifts_nothing(self):
        """One behind the newest; it says of itself what it is, or that it is a version that its
        leader has at hand, from before the removal."""
        sql = self.t.postgres.sql
        first = sql("SELECT encode(manifest_digest, 'hex') FROM journal WHERE number = 1")[0][0]
        revoked = {"certificate/" + self.join("edge-1")}
        version = self.t.wait_leader().json("identity remove", "edge-1")["version"]
        sql("DELETE FROM certificate")
        for digest in (None, first):
            unsigned.insert(sql, version, digest)
            version = self.t.publish("over it", turns.write(self.t, "over %d" % version))
            self.assertEqual(self.revoked(version), revoked)

    def test_one_is_left(self):
        serial = self.join("edge-1")
        last = self.t.wait_leader()
        followers = self.t.followers(last)
        for replica in followers:
            replica.kill()
        done = last.run("identity", "remove", "edge-1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("removed edge-1", done.stdout)
        self.assertIn("error: COSIGNERS_MISSING: its certificates are not revoked yet", done.stderr)
        self.assertIn("the leader publishes it by itself as soon as it can", done.stderr)
        nodes = last.json("identity list")["nodes"]
        self.assertEqual([n["state"] for n in nodes], ["removed"])
        self.assertEqual(self.newest()["version"], 1)
        self.with_the_break_glass_key(last, {"certificate/" + serial})
        for replica in followers:
            replica.start(wait=False)
        for replica in followers:
            replica.wait_healthy()
        self.t.wait_leader()
        record = wait_until(self.rolled_back, 60, "a rollback that two sign")
        self.assertEqual(self.revoked(record["version"]), {"certificate/" + serial})
        answer = self.t.wait_leader().json("identity remove", "edge-1")
        self.assertEqual((answer["published"], answer["version"]), (False, record["version"]))

    def test_nobody_has_to_ask_again(self):
        """Its leader could not publish it, and dies; the next one does when somebody signs."""
        self.set_retry(1000)
        serial = self.join("edge-1")
        first = self.t.wait_leader()
        followers = self.t.followers(first)
        for replica in followers:
            replica.kill()
        self.assertEqual(first.run("identity", "remove", "edge-1").returncode, 1)
        first.kill()
        for replica in followers:
            replica.start(wait=False)
        record = wait_until(lambda: self.t.wait_leader() and self.removal_of("trilane-cp"), 60,
                            "a publication that nobody asked for")
        self.assertEqual(self.revoked(record["version"]), {"certificate/" + serial})
        self.assertEqual(len(record["signers"].split(",")), 2, record)
        wait_until(lambda: "OK" in self.outcomes(), 30, "its entry, which is written behind it")
        audit = self.outcomes()
        self.assertEqual(audit.count("OK"), 1, audit)
        self.assertLessEqual(set(audit), {"OK", "COSIGNERS_MISSING"})  # its cosigner just starts.

    def outcomes(self):
        """What the leader's own publications of removals came to."""
        return [e["outcome"] for e in self.t.wait_leader().api("GET", "/api/v1/audit")[1]["entries"]
                if e["action"] == "publish-removal" and e["actor"] == "trilane-cp"]

    def removal_of(self, author):
        newest = self.newest()
        return newest if newest["version"] > 1 and newest["author"] == author else None

    def set_retry(self, milliseconds):
        for replica in self.t.replicas:
            replica.stop()
            replica.start(wait=False, removal_retry_ms=milliseconds)
        for replica in self.t.replicas:
            replica.wait_healthy()
        self.t.wait_leader()

    def with_the_break_glass_key(self, last, revoked):
        """Whoever signs by hand makes the same of sources that do not have it."""
        sources, answer = turns.write(self.t, "glass"), {}
        waiting = threading.Thread(target=lambda: answer.update(
            last.json("publish", "--sign-timeout", "60", "--wait", "no", "-m", "glass", sources)))
        waiting.start()
        # That of the removal is open as long as there is no other.
        wait_until(lambda: self.t.proposed(last).get("origin") == 0, 60, "its proposal")
        last("proposal", "sign", "--key", self.t.break_glass, sources)
        waiting.join(90)
        self.assertIn("break-glass", answer["record"]["signers"])
        self.assertEqual(self.revoked(answer["record"]["version"]), revoked)

    def rolled_back(self):
        done = self.t.wait_leader().run("rollback", "--wait", "no", "--output", "json", "-m", "m", "1")
        return self.newest() if done.returncode == 0 else None


if __name__ == "__main__":
    unittest.main()
