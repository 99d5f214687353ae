"""The leader of a trio is killed, stopped, cut off from NATS, cut off from PostgreSQL: another leads
within three seconds, nothing that was answered is lost, nothing is published twice, and one that
comes back is refused by the database, by KV and by nodes."""

import time
import unittest

from trilane import POLICIES, files_of, wait_until
from trio import Trio, WiredTrio

TAKE_OVER_S = 3.0
FORWARD_WAIT_S = 4.0


class Failover(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.t = WiredTrio(head_interval_ms=200)
        try:
            cls.t.start()
            cls.node = cls.t.node("node-1").start(good_after_ms=100, status_interval_ms=500,
                                                  poll_interval_ms=500)
            cls.t.publish("first")
            wait_until(lambda: cls.node.version() == 1, 60, "the node serves it")
        except BaseException:
            cls.t.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.t.close()

    def setUp(self):
        self.t.mend()
        self.leader = self.t.wait_leader()
        self.t.wait_followed(self.leader)
        self.index = self.t.replicas.index(self.leader)
        self.orders = []

    def order(self):
        """What the node accepted last; it never goes back."""
        dump = self.node.dump()["snapshot"]
        order = (dump["epoch"], dump["sequence"])
        self.assertTrue(not self.orders or order >= self.orders[-1], (order, self.orders[-1:]))
        self.orders.append(order)
        return order

    def taken_over(self, fault):
        """The node accepts a head of the next leader; the seconds that it took."""
        epoch = self.order()[0]
        began = time.monotonic()
        fault()
        wait_until(lambda: self.order()[0] > epoch, 60, "a head of another leader", step=0.01)
        took = time.monotonic() - began
        self.assertLess(took, TAKE_OVER_S)
        print("figure: failover %s %.0f ms" % (self.id().rsplit("_", 1)[1], took * 1000))
        return self.t.wait_leader(besides=self.leader)

    def published_once(self, message):
        versions = [v for v in self.t.history() if v["message"] == message]
        self.assertEqual(len(versions), 1, self.t.history())
        return versions[0]["version"]

    def test_planned_and_published_by_way_of_any_replica(self):
        one, other = self.t.followers(self.leader)
        plan = one.json("plan", POLICIES)["plan"]
        done = other.json("publish", "--again", "--wait", "no", "-m", "as planned", "--plan", plan)
        self.assertEqual(self.published_once("as planned"), done["record"]["version"])

    def test_killed(self):
        self.taken_over(self.leader.kill)
        version = self.t.publish("after a kill")
        self.assertEqual(self.published_once("after a kill"), version)
        wait_until(lambda: self.node.version() == version, 60, "the node serves it")

    def test_stopped(self):
        leader = self.taken_over(self.leader.pause)
        version = self.t.publish("while it is stopped")
        self.leader.resume()
        wait_until(lambda: not self.leader.leads(), 60, "it knows that it leads no more")
        wait_until(leader.leads, 60, "the other one to go on")
        self.published_once("while it is stopped")
        wait_until(lambda: self.node.version() == version, 60, "the node serves it")

    def test_cut_from_nats(self):
        self.taken_over(self.t.bus_wires[self.index].freeze)
        self.t.publish("without it")
        self.published_once("without it")

    def test_reset_from_nats(self):
        self.taken_over(self.t.bus_wires[self.index].cut)

    def test_cut_from_postgresql(self):
        self.taken_over(self.t.store_wires[self.index].freeze)
        self.t.publish("beside it")
        self.published_once("beside it")

    def test_reset_from_postgresql(self):
        self.taken_over(self.t.store_wires[self.index].cut)

    def test_followers_answer_and_forward(self):
        follower = self.t.followers(self.leader)[0]
        before = follower.json("history")["versions"]
        self.assertEqual(before, self.leader.json("history")["versions"])
        done = follower.json("publish", "--again", "-m", "by a follower", POLICIES)
        self.assertEqual(self.published_once("by a follower"), done["record"]["version"])
        self.assertEqual(len(done["record"]["signers"].split(",")), 2)

    def test_a_request_is_done_once(self):
        body = {"files": files_of(POLICIES), "message": "sent twice", "author": "test",
                "again": True}
        answers = [replica.api("POST", "/api/v1/publish", body,
                               headers={"Idempotency-Key": "request-%s" % self.id()})
                   for replica in self.t.replicas]
        self.assertEqual({status for status, _ in answers}, {200}, answers)
        self.assertEqual(len({answer["record"]["version"] for _, answer in answers}), 1)
        self.published_once("sent twice")

    def test_who_is_taken_for_the_leader_says_that_it_is_not(self):
        """At once, and to the sender alone, who asks each few milliseconds while nobody leads."""
        follower = self.t.followers()[0]
        body = {"files": files_of(POLICIES), "message": "gone astray", "author": "test"}
        status, answer = follower.api("POST", "/api/v1/publish", body,
                                      headers={"X-Trilane-Forwarded": "cp-9"})
        self.assertEqual((status, answer["code"]), (503, "NOT_LEADER"), answer)
        self.assertNotIn("event=refused", follower.log())
        audit = follower.api("GET", "/api/v1/audit")[1]["entries"]
        self.assertNotIn("NOT_LEADER", [entry["outcome"] for entry in audit])


class Silent(unittest.TestCase):
    def test_postgresql_hangs(self):
        """A command with three servers waits for the database once, not once for each of them."""
        t = Trio(cluster=False, head_interval_ms=200, forward_wait_ms=int(FORWARD_WAIT_S * 1000))
        self.addCleanup(t.close)
        t.start()
        t.publish("before")
        t.postgres.pause()
        began = time.monotonic()
        done = t.command_anywhere("publish", "--again", "--wait", "no", "-m", "into silence",
                                  POLICIES)
        self.assertLess(time.monotonic() - began, 3 * FORWARD_WAIT_S, done.stderr)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("error: UNAVAILABLE: this replica does not lead: the database does not answer",
                      done.stderr)
        t.postgres.resume()
        t.publish("behind")
        messages = [v["message"] for v in t.history()]
        if "into silence" in messages:  # begun before the silence, and ended behind it.
            messages.remove("into silence")
        self.assertEqual(messages, ["behind", "before"])


if __name__ == "__main__":
    unittest.main()
