"""PostgreSQL with a streaming standby: the primary dies, the standby is promoted, and the old primary
comes back and takes writes. Nothing restarts; no number is used for two contents; no node goes back."""

import time
import unittest

from postgres import Standby
from trilane import POLICIES, free_port, wait_until
from trio import Trio


class StandbyTrio(Trio):
    """Its replicas know both hosts."""

    def __init__(self, **flags):
        self.standby_port = free_port()
        super().__init__(cluster=False, **flags)

    def store_url(self, k):
        both = "127.0.0.1:%d,127.0.0.1:%d" % (self.postgres.port, self.standby_port)
        return self.postgres.url().replace("127.0.0.1:%d" % self.postgres.port, both)

    def start(self):
        super().start()
        self.standby = Standby(self.postgres, port=self.standby_port).start()
        return self

    def close(self):
        super().close()
        self.standby.close()


class Promotion(unittest.TestCase):
    def setUp(self):
        self.t = StandbyTrio(head_interval_ms=200, store_timeout_ms=1000,
                             forward_wait_ms=4000)
        self.addCleanup(self.t.close)
        self.t.start()
        self.old, self.new = self.t.postgres, self.t.standby
        self.node = self.t.node("node-1").start(good_after_ms=100, status_interval_ms=300,
                                                poll_interval_ms=300)
        self.seen = (0, 0, 0)
        self.publish("first")

    def publish(self, message):
        version = self.t.publish(message)
        wait_until(lambda: self.order()[0] == version, 60, "the node at version %d" % version)
        return version

    def order(self):
        """Version, epoch and sequence that the node has: none of them goes back."""
        dump = self.node.dump()
        seen = (dump["version"], dump["snapshot"]["epoch"], dump["snapshot"]["sequence"])
        self.assertGreaterEqual(seen[0], self.seen[0])
        self.assertGreaterEqual(seen[1:], self.seen[1:])
        self.seen = seen
        return seen

    @staticmethod
    def code(replica):
        return replica.told()["leader"]["code"]

    def status_with(self, code):
        """The replica whose status says so."""
        return wait_until(lambda: next((r for r in self.t.replicas if r.alive() and
                                        self.code(r) == code), None), 60, code)

    def rows(self, postgres):
        """What a write of any replica would change."""
        return postgres.sql("SELECT epoch, holder, expires_ms FROM leader"), postgres.sql(
            "SELECT max(number) FROM version")

    def published_once(self):
        messages = [v["message"] for v in self.t.history()]
        self.assertEqual(len(messages), len(set(messages)), messages)

    def heads_go_on(self):
        """Under whoever leads now."""
        before = self.order()[1:]
        wait_until(lambda: self.order()[1:] > before, 60, "heads to go on")

    def all_met_the_new_one(self):
        """From then on none of them takes the old one for its database."""
        met = "event=postgres_connected host=127.0.0.1 port=%d " % self.t.standby_port
        for replica in self.t.replicas:
            wait_until(lambda r=replica: met in r.log(), 60, "%s on the new one" % replica.name)

    def promote(self, message):
        self.new.wait_streamed()
        self.old.kill()
        self.new.promote()
        return self.publish(message)

    def test_the_primary_dies_and_the_standby_is_promoted(self):
        began = time.monotonic()
        self.assertGreater(self.promote("on the promoted one"), 1)
        print("figure: promotion to publication %.0f ms" % ((time.monotonic() - began) * 1000))
        self.all_met_the_new_one()
        # The old primary comes back, and would take writes. Each session that connects from now on,
        # also of a replica that just starts, passes it by.
        self.old.start()
        rows = self.rows(self.old)
        leader = self.t.wait_leader()
        leader.stop()
        self.t.wait_leader(besides=leader)
        leader.start()
        self.new.end_sessions()
        for number in range(3):
            self.publish("beside the old one %d" % number)
        leader.run("publish", "--again", "--wait", "no", "-m", "by the one that started", POLICIES)
        self.heads_go_on()
        self.published_once()
        self.assertEqual(self.rows(self.old), rows, "nobody wrote into it")
        self.assertNotIn("STORE_BEHIND", "".join(r.log() for r in self.t.replicas))

    def test_only_the_old_primary_answers(self):
        self.promote("on the promoted one")
        self.all_met_the_new_one()
        self.old.start()
        rows = self.rows(self.old)
        self.new.kill()
        leader = self.status_with("STORE_DEPOSED")
        self.assertIn("is an old primary, on timeline 1: a standby of it was promoted",
                      leader.log())
        done = leader.run("publish", "--again", "--wait", "no", "-m", "nobody's", POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("error: STORE_DEPOSED: ", done.stderr)
        self.assertEqual(self.rows(self.old), rows, "nobody wrote into it")
        self.new.start()
        self.t.wait_leader()
        self.publish("once it is back")
        self.heads_go_on()

    def test_the_promoted_one_lacks_the_last_publications(self):
        self.new.wait_streamed()
        self.new.stop()
        lost = [self.publish("lost %d" % number) for number in range(2)]
        digest = self.t.history()[0]["manifest_digest"]
        self.old.kill()
        self.new.start()
        self.new.promote()
        leader = self.status_with("STORE_BEHIND")
        refused = leader.run("publish", "--again", "--wait", "no", "-m", "too early", POLICIES)
        self.assertIn("error: STORE_BEHIND: the bucket has a version that the database does not"
                      " know", refused.stderr)
        # Once, not each beat; and again when it could not look in between.
        self.assertLess(leader.log().count("event=store_behind"), 4)
        self.assertEqual(self.order()[0], lost[-1])
        adopted = leader.json("recover", "-m", "adopted")["record"]
        self.assertEqual((adopted["version"], adopted["manifest_digest"]), (lost[-1], digest))
        self.t.wait_leader()
        self.assertGreater(self.publish("behind them"), lost[-1])
        self.heads_go_on()
        self.published_once()

    def test_a_synchronous_standby_is_away(self):
        """Each commit waits for it, and so does what the one before had locked."""
        self.old.sql("ALTER SYSTEM SET synchronous_standby_names = '*'", database="postgres")
        self.old.sql("SELECT pg_reload_conf()", database="postgres")
        wait_until(lambda: self.old.sql("SELECT sync_state FROM pg_stat_replication") == [["sync"]],
                   60, "the standby to be synchronous")
        version = self.publish("with both")
        self.new.pause()
        leader = self.status_with("STORE_LOCKED")
        done = leader.run("publish", "--again", "--wait", "no", "-m", "nobody's", POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stderr, "error: (STORE_LOCKED|RESULT_UNKNOWN|UNAVAILABLE): ")
        self.assertEqual(self.node.version(), version)
        self.new.resume()
        self.t.wait_leader()
        self.publish("once it is back")
        self.heads_go_on()
        self.published_once()

    def test_two_databases_and_a_replica_that_knows_the_old_one_alone(self):
        """Whoever gives it the wrong URL: both take writes, and each has a leader."""
        self.new.wait_streamed()
        self.old.kill()
        self.new.promote()
        self.all_met_the_new_one()
        self.t.wait_leader()
        self.old.start()
        stray = self.t.followers()[0]
        stray.stop()
        stray.start(wait=False, store=self.old.url())
        stray.wait_healthy()
        leader = self.t.wait_leader(besides=stray)
        # As long as both databases say the same, both lead, and answer each other by epochs; a
        # publication that meets the step to the next one is refused, and sent again.
        wait_until(stray.leads, 60, "the stray one to lead")
        self.heads_go_on()

        def says(replica, message):
            done = replica.run("publish", "--again", "--wait", "no", "--sign-timeout", "1", "-m",
                               message, POLICIES)
            if done.returncode == 0:
                return "done"
            return "" if "error: NOT_LEADER: " in done.stderr else done.stderr
        self.assertIn("error: COSIGNERS_MISSING: ",
                      wait_until(lambda: says(stray, "astray"), 60, "its refusal"))
        better = "by those that know better"
        self.assertEqual(wait_until(lambda: says(leader, better), 60, "a publication"), "done")
        wait_until(lambda: self.code(stray) == "STORE_BEHIND", 60, "it to know that it is behind")
        self.heads_go_on()
        self.assertEqual(leader.json("history")["versions"][0]["message"], better)
        stray.stop()
        stray.start()
        self.publish("with all of them")


if __name__ == "__main__":
    unittest.main()
