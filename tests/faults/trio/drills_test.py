"""The drills of docs/drills.md, as an operator does them."""

import shutil
import threading
import unittest

import full_test
import standby_test
from trilane import POLICIES, SOURCE, wait_until
from trio import Trio


class Drills(unittest.TestCase):
    def setUp(self):
        self.t = Trio(cluster=False, head_interval_ms=200)
        self.addCleanup(self.t.close)
        self.t.start()
        self.node = self.t.node("node-1").start(
            good_after_ms=100, status_interval_ms=300, poll_interval_ms=300, stale_after_ms=2000)
        self.seen = 0
        self.publish("first")

    def publish(self, message):
        version = self.t.publish(message)
        self.serves(version)
        return version

    def serves(self, version):
        wait_until(lambda: self.version() == version, 60,
                   "the node at version %d\n%s" % (version, self.node.log()[-2000:]))

    def version(self):
        """It never falls."""
        version = self.node.version()
        self.assertGreaterEqual(version, self.seen)
        self.seen = version
        return version

    def contact_age_ms(self):
        return self.node.dump()["snapshot"]["contact_age_ms"]

    def published_once(self):
        messages = [v["message"] for v in self.t.history()]
        self.assertEqual(len(messages), len(set(messages)), messages)

    def test_one_replica_is_lost(self):
        lost = self.t.wait_leader()
        lost.kill()
        shutil.rmtree(lost.data)
        lost.data.mkdir()
        self.t.wait_leader(besides=lost)
        self.publish("with two")
        lost.start()
        other = next(r for r in self.t.followers() if r is not lost)
        other.kill()
        self.publish("signed by the one that came back")
        self.published_once()

    def test_two_replicas_are_lost(self):
        last = self.t.wait_leader()
        for follower in self.t.followers(last):
            follower.kill()
        done = last.run("publish", "--again", "--sign-timeout", 1, "-m", "alone", POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("COSIGNERS_MISSING", done.stderr)
        self.assertIn("NOT_FOUND", last.run("proposal show").stderr)  # nobody waits any more.
        wait_until(lambda: self.contact_age_ms() < 1000, 60, "heads to go on")
        self.break_the_glass(last)
        next(r for r in self.t.replicas if r is not last).start()
        self.publish("with two again")
        self.published_once()

    def break_the_glass(self, last):
        answer = {}
        waiting = threading.Thread(target=lambda: answer.update(
            last.json("publish", "--again", "--sign-timeout", "60", "-m", "glass", POLICIES)))
        waiting.start()
        self.t.wait_proposal(last)
        other_sources = self.t.write_policies(
            {path.name: path.read_text() for path in POLICIES.glob("platform/*.yaml")})
        refused = last.run("proposal sign", "--key", self.t.break_glass, other_sources)
        self.assertNotEqual(refused.returncode, 0, refused.stdout)
        wrong = last.run("proposal sign", "--unseen", "--key", self.t.keys / "manifest.key")
        self.assertIn("MANIFEST_WRONG_KEY", wrong.stderr)
        last("proposal sign", "--key", self.t.break_glass, POLICIES)
        waiting.join(90)
        self.assertIn("break-glass", answer["record"]["signers"])
        self.serves(answer["record"]["version"])
        self.assertIn("break-glass", last("history"))
        self.assertIn("break-glass", last("status"))
        entries = last.api("GET", "/api/v1/audit")[1]["entries"]
        objects = [e["object"] for e in entries if e["action"] == "sign" and e["outcome"] == "OK"]
        self.assertEqual(objects, ["version %d by break-glass" % answer["record"]["version"]])

    def test_all_replicas_are_lost(self):
        for replica in self.t.replicas:
            replica.kill()
        wait_until(lambda: self.node.dump()["state"] == "STALE", 60, "the node to say STALE")
        for replica in self.t.replicas:
            replica.start(wait=False)
        self.t.wait_leader()
        wait_until(lambda: self.node.dump()["state"] != "STALE", 60, "the node to be fresh")
        self.publish("after all of them")
        self.published_once()

    def test_nats_is_lost_whole(self):
        for number in range(3):
            self.publish("more %d" % number)
        self.t.nats.kill()
        shutil.rmtree(self.t.nats.directory / "jetstream")
        self.t.nats.start()
        self.t.wait_leader()
        fresh = self.t.node("node-2").start(good_after_ms=100, status_interval_ms=300)
        wait_until(lambda: fresh.version() == self.version(), 60, "a new node to get it all")
        self.publish("into the new one")

    def new_database(self):
        """In the place of the one that is lost; sessions of whoever was killed may still be there."""
        self.t.postgres.sql('DROP DATABASE "trilane" WITH (FORCE)', database="postgres")
        self.t.postgres.sql('CREATE DATABASE "trilane"', database="postgres")

    def one_that_is_behind(self):
        """It leads, and says so."""
        def behind():
            for replica in self.t.replicas:
                told = replica.told()["leader"]
                if told["leads"] and told["code"] == "STORE_BEHIND":
                    return replica
            return None
        return wait_until(behind, 60, "a leader that says STORE_BEHIND")

    def database_of_yesterday(self):
        """A backup, two publications behind it, and the backup in a new database."""
        backup = self.t.directory / "backup"
        self.t.command("backup", backup, env={"TRILANE_STORE": self.t.postgres.url()})
        for number in range(2):
            self.publish("since the backup %d" % number)
        for replica in self.t.replicas:
            replica.kill()
        self.new_database()
        self.t.command("restore", backup, env={"TRILANE_STORE": self.t.postgres.url()})
        for replica in self.t.replicas:
            replica.start()
        leader = self.one_that_is_behind()
        refused = leader.run("publish", "--again", "-m", "too early", POLICIES)
        self.assertIn("STORE_BEHIND", refused.stderr)
        return leader

    def test_the_database_is_lost(self):
        leader = self.database_of_yesterday()
        answers = [self.adopt(leader) for _ in range(2)]  # that of the first may be lost.
        self.assertEqual([status for status, _ in answers], [200, 200], answers)
        self.assertEqual({answer["record"]["version"] for _, answer in answers}, {self.version()})
        self.t.wait_leader()
        leader("plan", POLICIES)  # whose sources are not there to be compared with.
        self.publish("after the recovery")

    def adopt(self, leader):
        return leader.api("POST", "/api/v1/recover", {"message": "adopted", "author": "test"},
                          headers={"Idempotency-Key": "adopt-%s" % self.id()})

    def test_the_database_is_lost_and_the_rest_given_up(self):
        leader = self.database_of_yesterday()
        before = self.version()
        given_up = leader.json("recover", "--give-up", "-m", "given up")
        self.assertGreater(given_up["record"]["version"], before)
        self.assertEqual(given_up["record"]["origin"], 1)
        self.serves(given_up["record"]["version"])
        self.publish("after the recovery")

    def test_the_database_is_lost_and_there_is_no_backup(self):
        before = self.version()
        for replica in self.t.replicas:
            replica.kill()
        self.new_database()
        for replica in self.t.replicas:
            replica.start()
        leader = self.one_that_is_behind()
        leader("recover", "--give-up", "--wait", "no", "-m", "a new beginning")
        self.t.wait_leader()
        self.assertGreater(self.publish("the present sources"), before)

    def test_a_replica_whose_clock_is_behind_does_not_lead(self):
        self.one_whose_clock_is_off(3600000)

    def test_a_replica_whose_clock_is_ahead_does_not_lead(self):
        self.one_whose_clock_is_off(-3600000)

    def one_whose_clock_is_off(self, database_ms):
        """Its session sees a database whose clock is ahead by so much: so its own is behind."""
        leader = self.t.wait_leader()
        epoch = leader.told()["leader"]["epoch"]
        self.t.postgres.sql(
            "CREATE SCHEMA skewed; CREATE FUNCTION skewed.trilane_now() RETURNS bigint LANGUAGE sql"
            " AS 'SELECT public.trilane_now() + (%d)'" % database_ms)
        leader.stop()
        other = self.t.wait_leader(besides=leader)
        leader.start(store=self.t.postgres.url(options="-csearch_path=skewed,public"))
        third = next(r for r in self.t.followers(other) if r is not leader)
        third.stop()
        other.stop()  # it lets the row go.
        wait_until(lambda: leader.told()["leader"]["code"] == "CLOCK_SKEW", 60,
                   "it to say why it does not lead")
        done = leader.run("publish", "--again", "-m", "by nobody", POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("error: CLOCK_SKEW: this replica does not lead: ", done.stderr)
        other.start()
        self.t.wait_leader(besides=leader)
        self.assertLess(other.told()["leader"]["epoch"], epoch + 4, "epochs are not used up")

    def test_each_drill_is_written_down(self):
        text = (SOURCE / "docs" / "drills.md").read_text()
        written = [line[3:].lower() for line in text.splitlines() if line.startswith("## ")]
        tested = [name[5:].replace("_", " ") for name in dir(self) + dir(standby_test.Promotion) +
                  dir(full_test.Full) if name.startswith("test_")]
        for title in written:
            self.assertIn(title.replace(",", ""), tested)


if __name__ == "__main__":
    unittest.main()
