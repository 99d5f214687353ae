"""What somebody wrote into the database by SQL alone is neither signed nor pointed at, and gets no
token; nor is what its disk made of a chunk."""

import socket
import threading
import unittest

import turns
import unsigned
from trilane import wait_until
from trio import Trio


class Written(unittest.TestCase):
    """Each test begins with a publication of its own, and leaves one that holds as the newest."""

    @classmethod
    def setUpClass(cls):
        # The row runs out late: who leads is not what is tested here.
        cls.t = Trio(cluster=False, head_interval_ms=200, lease_ms=10000, forward_wait_ms=1000)
        cls.addClassCleanup(cls.t.close)
        cls.t.start()
        cls.sql = staticmethod(cls.t.postgres.sql)

    def setUp(self):
        self.leader = self.t.wait_leader()
        self.version = self.publish(self.id())

    def sources(self, turn):
        return turns.write(self.t, turn)

    def publish(self, turn):
        """At the leader, signed by two: the version."""
        answer = self.leader.json("publish", "--wait", "no", "-m", "m", self.sources(turn))
        self.assertEqual(len(answer["record"]["signers"].split(",")), 2, answer)
        return answer["record"]["version"]

    def post_rollback(self, version):
        _, answer = self.leader.api("POST", "/api/v1/rollback",
                                    {"version": version, "message": "m", "author": "test"})
        return answer

    def test_a_row_of_the_journal_that_nobody_signed(self):
        node = self.t.node("node-1").start(good_after_ms=100, status_interval_ms=300,
                                           poll_interval_ms=500)
        wait_until(lambda: node.version() == self.version, 60, "the node serves it")
        unsigned.insert(self.sql, self.version)
        wait_until(lambda: "journal_row_unsigned" in self.leader.log(), 60, "the leader says so")
        wait_until(lambda: self.leader.json("status")["leader"]["code"] == "MANIFEST_UNSIGNED", 60,
                   "so does its status")
        # Of an older version the revocations of the newest would be kept: nor is that done.
        for version in (self.version + 1, self.version):
            answer = self.post_rollback(version)
            self.assertEqual(answer["code"], "MANIFEST_UNSIGNED", answer)
            self.assertIn("version %d of the journal" % (self.version + 1), answer["message"])
        sequence = node.dump()["snapshot"]["sequence"]
        wait_until(lambda: node.dump()["snapshot"]["sequence"] > sequence, 60, "heads still come")
        self.assertEqual(node.version(), self.version)
        self.assertNotIn("MANIFEST", node.log())
        # The same content is news beside a row that counts for nothing: it is published.
        self.assertEqual(self.publish(self.id()), self.version + 2)
        wait_until(lambda: node.version() == self.version + 2, 60, "the node serves it")
        wait_until(self.leader.leads, 60, "all is well again")
        self.assertEqual(self.t.history()[0]["version"], self.version + 2)

    def wait_behind(self, leader):
        wait_until(lambda: leader.told()["leader"]["code"] == "STORE_BEHIND", 60,
                   "it to say what is lost")

    def refuses(self, leader):
        """What the lost version revoked nobody can tell: nothing is published without it."""
        done = leader.run("publish", "--wait", "no", "-m", "m", self.sources("above it"))
        self.assertIn("STORE_BEHIND", done.stderr)

    def recover(self, leader):
        """The bucket has it still; what is published next stands above it."""
        self.assertEqual(leader.json("recover", "-m", "m")["record"]["version"], self.version)
        wait_until(leader.leads, 60, "heads to go out")
        self.assertEqual(self.t.history()[0]["version"], self.version)
        self.leader = leader
        self.assertGreater(self.publish("above it"), self.version)

    def test_a_row_that_nobody_signed_hides_no_loss(self):
        """The head in the bucket names what is lost: none goes out that names less."""
        node = self.t.node("node-2").start(good_after_ms=100, status_interval_ms=300,
                                           poll_interval_ms=500)
        self.version = self.publish("another")
        wait_until(lambda: node.version() == self.version, 60, "the node serves it")
        unsigned.insert(self.sql, self.version,
                        also="DELETE FROM journal WHERE number = %d;" % self.version)
        self.wait_behind(self.leader)
        self.refuses(self.leader)
        self.recover(self.leader)
        newest = self.t.history()[0]["version"]
        wait_until(lambda: node.version() == newest, 60, "the node serves what comes next")
        self.assertNotIn("SNAPSHOT_REPLAYED", node.log())

    def test_a_row_that_was_damaged(self):
        """Who leads goes on and publishes nothing; so does who leads next."""
        self.version = self.publish("another")
        self.sql("UPDATE journal SET manifest = set_byte(manifest, length(manifest) - 1,"
                 " get_byte(manifest, length(manifest) - 1) # 1) WHERE number = %d" % self.version)
        self.refuses(self.leader)
        self.assertTrue(self.leader.leads())
        self.leader.stop()
        def leads_and_is_behind():
            return next((r for r in self.t.followers(self.leader)
                         if r.told()["leader"]["code"] == "STORE_BEHIND"), None)
        other = wait_until(leads_and_is_behind, 60, "the next one to say what is lost")
        self.leader.start()
        self.refuses(other)
        self.recover(other)

    def test_a_chunk_of_the_journal_that_was_changed(self):
        newest = self.publish("another")
        self.sql("UPDATE chunk SET stored = set_byte(stored, length(stored) - 1,"
                 " get_byte(stored, length(stored) - 1) # 1) WHERE raw_digest IN"
                 " (SELECT raw_digest FROM chunk_use WHERE last_number = %d)" % self.version)
        answer = self.post_rollback(self.version)
        self.assertEqual(answer["code"], "CHUNK_TAMPERED", answer)
        self.assertEqual(self.t.history()[0]["version"], newest)

    def test_a_proposal_that_no_replica_made(self):
        """The sources of the newest, and a body that says just what they are: each replica would
        make the same of them. Who inserts it has no token."""
        _, body, digest = unsigned.next_of(self.sql, self.version)
        self.sql("BEGIN; INSERT INTO version (environment, number, epoch, handed_ms,"
                 " sources_digest) SELECT v.environment, v.number + 1, l.epoch, 0, v.sources_digest"
                 " FROM version v, leader l WHERE v.number = {0};"
                 " INSERT INTO proposal (environment, number, epoch, origin, with_trust, body,"
                 " body_digest, at_ms, sources_digest, warrant) SELECT p.environment, p.number + 1,"
                 " l.epoch, 0, 0, '\\x{1}', '\\x{2}', 0, p.sources_digest, p.warrant"
                 " FROM proposal p, leader l WHERE p.number = {0}; COMMIT"
                 .format(self.version, body, digest))
        judged = "SELECT code, sentence FROM cosignature WHERE number = %d" % (self.version + 1)
        wait_until(lambda: len(self.sql(judged)) == 2, 60, "both followers judge it")
        for code, sentence in self.sql(judged):
            self.assertEqual(code, "COSIGN_REFUSED")
            self.assertIn("has this one's token", sentence)
        shown = self.leader.run("proposal", "show")  # nor is it shown to who signs by hand.
        self.assertIn("COSIGN_REFUSED", shown.stdout + shown.stderr)

    def test_sources_that_were_changed_on_their_way(self):
        """By a comment alone: the content is the same, and still they are not what was sent."""
        self.sql("CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                 " NEW.bytes := NEW.bytes || '\\x23'; RETURN NEW; END $$; CREATE TRIGGER change"
                 " BEFORE INSERT ON source FOR EACH ROW EXECUTE FUNCTION change()")
        self.addCleanup(self.sql, "DROP TRIGGER IF EXISTS change ON source")
        done = self.leader.run("publish", "--wait", "no", "-m", "m", self.sources("changed"))
        self.sql("DROP TRIGGER change ON source")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("COSIGN_REFUSED", done.stderr)
        self.assertIn("not the ones that the leader was sent", done.stderr)
        self.publish("unchanged")

    def test_an_address_that_no_replica_gave(self):
        """A follower sends what it is asked on to the leader, with the token: not to whoever says in
        the database that it leads."""
        heard = []
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def listen():
            try:
                connection, _ = server.accept()
                heard.append(connection.recv(4096))
                connection.close()
            except OSError:
                pass  # the end.
        threading.Thread(target=listen, daemon=True).start()
        follower = self.t.followers(self.leader)[0]
        self.sql("CREATE FUNCTION lure() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                 " NEW.address := 'http://127.0.0.1:%d'; RETURN NEW; END $$; CREATE TRIGGER lure"
                 " BEFORE UPDATE ON leader FOR EACH ROW EXECUTE FUNCTION lure()"
                 % server.getsockname()[1])
        self.addCleanup(self.sql, "DROP TRIGGER lure ON leader")
        wait_until(lambda: self.sql("SELECT address FROM leader")[0][0].endswith(
            ":%d" % server.getsockname()[1]), 60, "the address is another")
        # The follower looks a few times a second; until it does, it knows the right one.
        wait_until(lambda: "NOT_LEADER" in follower.run(
            "publish", "--wait", "no", "-m", "m", self.sources("lured")).stderr, 60, "no address")
        self.assertIn("address_not_warranted", follower.log())
        self.assertEqual(heard, [])


if __name__ == "__main__":
    unittest.main()
