"""Two control planes on one database: one leads at a time, the other takes over, and one that was
stopped and wakes again publishes nothing. And the signer: killed, or hanging, it is started again."""

import os
import pathlib
import shutil
import signal
import sqlite3
import threading
import unittest

import standstill
import trilane
from trilane import NatsClient, Platform, wait_until


def signer_of(cp):
    """Process id of the signer of a control plane; None while there is none."""
    for entry in pathlib.Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
        except (OSError, IndexError):
            continue
        if words[:2] == [b"trilane-cp", b"signer"] and int(parent) == cp.popen.pid:
            return int(entry.name)
    return None


class Leaders(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.bucket = "trilane_%s_snapshots" % self.p.environment

    def pair(self, lease_ms=6000):
        """Two replicas, each with a directory and a signer of its own, on one database."""
        self.database = self.p.directory / "shared.db"
        store = "sqlite:%s" % self.database
        token = self.p.directory / "token"
        token.write_text("t" * 32 + "\n")
        token.chmod(0o600)
        self.first = self.p.control_plane("first", store=store, replica="first", token_file=token)
        self.second = self.p.control_plane("second", store=store, replica="second",
                                           token_file=token)
        # What waits for NATS when it is stopped waits on when it wakes.
        quick = {"head_interval_ms": 100, "lease_ms": lease_ms, "fetch_timeout_ms": 60000}
        self.first.start(**quick)
        wait_until(self.first.leads, 60, "the first leads")
        self.second.start(**quick)
        self.addCleanup(lambda: self.first.signal(signal.SIGCONT))

    def leader(self, cp):
        return cp.told()["leader"]

    def test_the_second_follows(self):
        self.pair(lease_ms=60000)
        self.first("publish", "-m", "one", trilane.POLICIES)
        wait_until(lambda: self.leader(self.second)["holder"] == "first", 60, "it knows who leads")
        self.assertFalse(self.leader(self.second)["leads"])
        self.assertEqual(trilane.http("GET", self.second.url + "/ready")[0], 200)
        self.second("publish", "--again", "-m", "goes on to the first", trilane.POLICIES)
        self.assertEqual([v["epoch"] for v in self.first.json("history")["versions"]], [1, 1])
        self.first.stop()
        wait_until(self.second.leads, 30, "a row that was let go is taken at once")
        self.second("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual([v["epoch"] for v in self.second.json("history")["versions"]], [2, 1, 1])

    def test_one_that_was_stopped_publishes_nothing(self):
        self.pair()
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300)
        self.first("publish", "-m", "one", trilane.POLICIES)
        standstill.stop_between_transactions(self.first, self.database)
        wait_until(self.second.leads, 60, "the second leads")
        self.assertEqual(self.leader(self.second)["epoch"], 2)
        self.second("publish", "--again", "-m", "two", trilane.POLICIES)
        with NatsClient(self.p.nats) as nats:
            head = nats.get(self.bucket, "head")
            self.first.signal(signal.SIGCONT)
            self.first("publish", "--again", "-m", "late", trilane.POLICIES)
            wait_until(lambda: self.leader(self.first)["holder"] == "second", 60,
                       "the first knows better")
            wait_until(lambda: nats.get(self.bucket, "head") != head, 60, "heads go on")
        self.assertFalse(self.leader(self.first)["leads"])
        versions = self.second.json("history")["versions"]
        self.assertEqual([(v["version"], v["epoch"]) for v in versions], [(3, 2), (2, 2), (1, 1)])
        wait_until(lambda: node.version() == 3, 60, "the node at the newest")
        wait_until(lambda: self.second.json("status")["nodes"][0]["epoch"] == 2, 60,
                   "the node to accept the second's heads")
        self.assertEqual(self.leader(self.second)["epoch"], 2, "nobody raised it")

    def test_stopped_in_the_midst_of_a_publication(self):
        """It wakes between two steps, when another has led and published: its number is lost."""
        self.pair()
        self.first("publish", "-m", "one", trilane.POLICIES)
        big = self.p.directory / "big"
        shutil.copytree(trilane.POLICIES, big)
        (big / "filler.yaml").write_text("# filler\n" * 500000)
        result = []
        publisher = threading.Thread(target=lambda: result.append(
            self.first.run("publish", "--again", "-m", "half", big)))
        publisher.start()
        with sqlite3.connect("file:%s?mode=ro" % self.database, uri=True) as db:
            wait_until(lambda: db.execute("SELECT max(number) FROM version").fetchone()[0] == 2, 60,
                       "the number to be handed out", step=0.0005)
        standstill.stop_between_transactions(self.first, self.database)
        try:
            wait_until(self.second.leads, 60, "the second leads")
        except AssertionError as problem:
            raise AssertionError(self.second.log()[-3000:]) from problem
        newest = self.second.json("history")["versions"][0]["version"]
        self.second("publish", "--again", "-m", "mine", trilane.POLICIES)
        self.first.signal(signal.SIGCONT)
        publisher.join(90)
        if newest == 1:  # it was stopped before the commit.
            self.assertEqual(result[0].returncode, 3, result[0].stderr)
            self.assertIn("NOT_LEADER", result[0].stderr)
        versions = self.second.json("history")["versions"]
        self.assertEqual([(v["version"], v["message"]) for v in versions][0], (3, "mine"))
        self.assertEqual("half" in [v["message"] for v in versions], newest == 2)
        self.assertEqual(self.leader(self.second)["head_version"], 3)


class Signer(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane()
        self.cp.start(head_interval_ms=100, lease_ms=5000)
        wait_until(self.cp.leads, 60, "a leader")

    def epoch(self):
        return self.cp.told()["leader"]["epoch"]

    def test_killed(self):
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        before = signer_of(self.cp)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: signer_of(self.cp) not in (None, before), 60, "another signer")
        wait_until(lambda: self.epoch() == 2 and self.cp.leads(), 60, "the next epoch")
        self.assertIn("signer_restarted", self.cp.log())
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        wait_until(lambda: node.version() == 2, 60, "the node to serve it")
        wait_until(lambda: self.cp.json("status")["nodes"][0]["epoch"] == 2, 60,
                   "the node to accept heads of the next epoch")

    def test_killed_before_anything_was_published(self):
        before = signer_of(self.cp)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: signer_of(self.cp) not in (None, before) and self.cp.leads(), 60,
                   "another signer")
        self.cp("publish", "-m", "one", trilane.POLICIES)

    def test_cannot_come_back(self):
        """Its key is gone: no head goes out, publishing says why, and the row is left to others."""
        self.cp("publish", "-m", "one", trilane.POLICIES)
        key = self.p.keys / "head.key"
        away = self.p.keys / "away"
        key.rename(away)
        os.kill(signer_of(self.cp), signal.SIGKILL)
        wait_until(lambda: self.cp.told()["leader"]["code"] == "SIGNER_GONE", 60, "SIGNER_GONE")
        wait_until(lambda: not self.cp.told()["leader"]["leads"], 60, "the row to be let go")
        done = self.cp.run("publish", "--again", "-m", "two", trilane.POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("error: SIGNER_GONE: this replica does not lead: ", done.stderr)
        self.assertNotIn("NOT_LEADER", done.stderr)
        audit = self.cp.api("GET", "/api/v1/audit")[1]["entries"][0]
        self.assertEqual((audit["action"], audit["outcome"]), ("publish", "SIGNER_GONE"))
        self.assertEqual(trilane.http("GET", self.cp.url + "/ready")[0], 503)
        away.rename(key)
        wait_until(self.cp.leads, 60, "it leads again")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)

    def test_hangs(self):
        self.cp("publish", "-m", "one", trilane.POLICIES)
        before = signer_of(self.cp)
        os.kill(before, signal.SIGSTOP)
        wait_until(lambda: signer_of(self.cp) not in (None, before), 60, "another signer")
        wait_until(lambda: self.epoch() == 2 and self.cp.leads(), 60, "the next epoch")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)


if __name__ == "__main__":
    unittest.main()
