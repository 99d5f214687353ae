"""Control planes on one PostgreSQL: it is stopped, killed and cut off, its sessions are ended, and a
leader is stopped at whatever point of a publication. Nothing is lost or published twice, no node
notices, and no password is seen."""

import pathlib
import signal
import threading
import time
import unittest

import trilane
from postgres import Postgres
from trilane import Platform, wait_until

LEASE = {"head_interval_ms": 100, "lease_ms": 1500, "store_timeout_ms": 600, "forward_wait_ms": 2000}


class ControlPlanesOnPostgres(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = Postgres(database="postgres").start()
        cls.addClassCleanup(cls.pg.close)

    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.addCleanup(self.pg.resume)
        self.schema = "case_%d" % time.monotonic_ns()
        self.pg.sql("CREATE SCHEMA " + self.schema)

    def url(self):
        return self.pg.url(options="-csearch_path=" + self.schema)

    def sql(self, text):
        return self.pg.sql("SET search_path = %s; %s" % (self.schema, text))

    def control_plane(self, name):
        """One that is told its database by the environment: a command line is everybody's to read."""
        cp = self.p.control_plane(name, store=None, replica=name)
        cp.env["TRILANE_STORE"] = self.url()
        self.addCleanup(lambda: cp.signal(signal.SIGCONT))
        cp.start(**LEASE)
        return cp

    def versions(self, cp):
        return [(v["version"], v["message"]) for v in cp.json("history")["versions"]]

    def test_it_serves_and_keeps_its_secret(self):
        cp = self.control_plane("cp")
        wait_until(cp.leads, 60, "it leads")
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300)
        cp("publish", "-m", "one", trilane.POLICIES)
        wait_until(lambda: node.version() == 1, 60, "the node to serve it")
        self.assertNotIn(self.pg.password.encode(),
                         pathlib.Path("/proc/%d/cmdline" % cp.popen.pid).read_bytes())
        cp.stop()
        cp.start(**LEASE)
        wait_until(cp.leads, 60, "it leads again")
        self.assertEqual(self.versions(cp), [(1, "one")])
        cp("rollback", "1", "-m", "again")
        self.assertEqual(self.versions(cp), [(2, "again"), (1, "one")])
        self.assertEqual(self.sql("SELECT DISTINCT epoch FROM journal ORDER BY epoch"),
                         [["1"], ["2"]])
        self.assertNotIn(self.pg.password, cp.log())

    def test_a_stopped_database_stops_heads_alone(self):
        cp = self.control_plane("cp")
        wait_until(cp.leads, 60, "it leads")
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300)
        cp("publish", "-m", "one", trilane.POLICIES)
        wait_until(lambda: node.version() == 1, 60, "the node to serve it")
        self.pg.pause()
        wait_until(lambda: not cp.leads(), 20, "it knows that it does not lead")
        start = time.monotonic()
        status, answer = cp.api("POST", "/api/v1/publish", {
            "files": trilane.files_of(trilane.POLICIES), "message": "nobody's", "author": "test",
            "again": True})
        self.assertLess(time.monotonic() - start, 5, "no thread hangs")
        self.assertNotEqual(status, 200, answer)
        self.assertRegex(answer["code"], "UNAVAILABLE|NOT_LEADER")
        self.assertEqual(trilane.http("GET", cp.url + "/health")[0], 200)
        self.assertEqual(node.version(), 1)
        self.pg.resume()
        wait_until(cp.leads, 60, "it leads again")
        cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual(self.versions(cp)[-1], (1, "one"))
        self.assertEqual(self.versions(cp)[0][1], "two")

    def test_a_killed_database_is_found_again(self):
        cp = self.control_plane("cp")
        wait_until(cp.leads, 60, "it leads")
        cp("publish", "-m", "one", trilane.POLICIES)
        self.pg.kill()
        wait_until(lambda: not cp.leads(), 20, "it knows that it does not lead")
        self.pg.start()
        wait_until(cp.leads, 60, "it leads again")
        self.pg.end_sessions()  # of all threads: none of them fails for it.
        cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual(self.versions(cp), [(2, "two"), (1, "one")])

    def lock(self, table):
        """Another session, which holds the table as long as the block lasts."""
        return self.pg.held("LOCK TABLE %s.%s IN ACCESS EXCLUSIVE MODE" % (self.schema, table))

    def heads_go_on(self, node):
        """For longer than it takes a node to be stale, or a row that is not renewed to run out."""
        before = node.dump()["snapshot"]["sequence"]
        wait_until(lambda: node.dump()["snapshot"]["sequence"] > before + 50, 60, "heads to go on")

    def test_a_journal_that_another_session_locks(self):
        """Heads go on for what was read before, nodes stay fresh; whoever publishes is told why."""
        cp = self.control_plane("cp")
        wait_until(cp.leads, 60, "it leads")
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300,
                                           stale_after_ms=4000)
        cp("publish", "-m", "one", trilane.POLICIES)
        epoch = cp.told()["leader"]["epoch"]
        with self.lock("journal"):
            self.heads_go_on(node)
            self.assertEqual(cp.told()["leader"]["store_code"], "STORE_LOCKED")
            self.assertIn("HEADS NAME WHAT WAS READ BEFORE: STORE_LOCKED", cp("status"))
            done = cp.run("publish", "--again", "-m", "two", trilane.POLICIES)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertIn("error: STORE_LOCKED: ", done.stderr)
        cp("publish", "--again", "-m", "three", trilane.POLICIES)
        wait_until(lambda: node.version() == cp.json("history")["versions"][0]["version"], 60,
                   "the node to serve it")
        self.assertNotIn("STALE", node.log())
        leader = cp.told()["leader"]
        self.assertEqual((leader["epoch"], leader["store_code"], leader["code"]), (epoch, "", ""))
        self.assertIn("event=journal_not_read code=STORE_LOCKED", cp.log())
        self.assertIn("event=journal_read code=OK", cp.log())

    def test_a_leaders_row_that_another_session_locks(self):
        """It cannot be renewed, so it is let go in time, and the status says why."""
        cp = self.control_plane("cp")
        wait_until(cp.leads, 60, "it leads")
        cp("publish", "-m", "one", trilane.POLICIES)
        with self.lock("leader"):
            wait_until(lambda: not cp.leads(), 10, "it leads no more")
            wait_until(lambda: cp.told()["leader"]["code"] == "STORE_LOCKED", 60, "the reason")
        wait_until(cp.leads, 60, "it leads again")
        cp("publish", "--again", "-m", "two", trilane.POLICIES)

    def test_a_leader_stopped_at_any_point_is_succeeded(self):
        first, second = self.control_plane("first"), None
        wait_until(first.leads, 60, "the first leads")
        second = self.control_plane("second")
        first("publish", "-m", "one", trilane.POLICIES)
        for count, moment in enumerate((0.0, 0.05, 0.1, 0.15)):
            leader = wait_until(lambda: next((r for r in (first, second) if r.leads()), None), 60,
                                "one of them leads")
            other = second if leader is first else first
            message = "from a stopped one %d" % count
            result = []
            publisher = threading.Thread(target=lambda cp=leader, text=message: result.append(
                cp.run("publish", "--again", "-m", text, trilane.POLICIES)))
            publisher.start()
            time.sleep(moment)  # where it is stopped is the point: no condition can choose it.
            leader.signal(signal.SIGSTOP)
            start = time.monotonic()
            wait_until(other.leads, 60, "the other one leads")
            took = time.monotonic() - start
            self.assertLess(took, 3, "a take-over of a stopped leader")
            other("publish", "--again", "-m", "from the other %d" % count, trilane.POLICIES)
            leader.signal(signal.SIGCONT)
            publisher.join(90)
            messages = [m for _, m in self.versions(other)]
            self.assertEqual(messages.count("from the other %d" % count), 1)
            self.assertEqual(messages[0], "from the other %d" % count, "nothing comes behind it")
            self.assertLessEqual(messages.count(message), 1)
            if result[0].returncode == 0:
                self.assertEqual(messages.count(message), 1)
            wait_until(lambda cp=leader: not cp.leads(), 60, "the one that woke knows better")
        numbers = [v for v, _ in self.versions(first)]
        self.assertEqual(numbers, sorted(set(numbers), reverse=True))


if __name__ == "__main__":
    unittest.main()
