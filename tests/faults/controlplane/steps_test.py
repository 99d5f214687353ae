"""The control plane killed with SIGKILL before every step of a publication, and after the last:
nothing is published twice, nothing that was answered is lost, a number that was handed out never
comes back, and the node's version never falls. Then: a full disk, and a database that was lost."""

import contextlib
import re
import shutil
import sqlite3
import unittest

import trilane
from trilane import Platform, wait_until

HEADER = trilane.SOURCE / "controlplane" / "publish" / "publish.h"
STEPS = re.findall(r"^    X\((\w+), CP_(?:ALL|PLANNED|PUBLISHED)\b", HEADER.read_text(), re.M)
PUBLISHED_FROM = STEPS.index("head")  # before it, the journal row is there.


class Steps(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane()

    def start(self, **flags):
        self.cp.start(head_interval_ms=100, lease_ms=2500, **flags)
        wait_until(self.cp.leads, 60, "a leader\n" + self.cp.log()[-2000:])

    def end_row(self):
        """The row that a killed leader left runs out, as it does with time: leaders_test waits."""
        with contextlib.closing(sqlite3.connect(self.cp.data / "store.db")) as db, db:
            db.execute("UPDATE leader SET expires_ms = 1")

    def versions(self):
        return [v["version"] for v in self.cp.json("history")["versions"]]

    def test_killed_before_each_step(self):
        self.assertEqual(len(STEPS), 16)
        self.start()
        node = self.p.node("node-1").start(good_after_ms=100, status_interval_ms=300)
        self.cp("publish", "-m", "before", trilane.POLICIES)
        seen = node.version()
        self.cp.stop()
        for index, step in enumerate(STEPS + ["end"]):
            with self.subTest(step=step):
                self.start(fault_step=step)
                before = self.versions()
                done = self.cp.run("publish", "--again", "-m", step, trilane.POLICIES)
                self.assertEqual(done.returncode, 3, done.stderr)
                self.assertEqual(self.cp.wait(), -9)
                self.end_row()
                self.start()
                after = self.versions()
                new = [v for v in after if v not in before]
                published = index >= PUBLISHED_FROM
                self.assertEqual(len(new), 1 if published else 0, after)
                self.assertEqual(len(after), len(set(after)))
                # What the journal has, the node gets: the next leader's head points at it.
                wait_until(lambda want=max(after): node.version() == want, 60,
                           "the node at the newest version")
                self.assertGreaterEqual(node.version(), seen)
                self.cp("publish", "--again", "-m", "after " + step, trilane.POLICIES)
                seen = self.versions()[0]
                wait_until(lambda: node.version() == seen, 60, "the node at what was published")
                self.assertGreater(seen, max(after))
                self.cp.stop()

    def test_store_full(self):
        """The database's disk fills: refused with its code, and the heads go on."""
        if not trilane.can_unshare("-Urm"):
            trilane.skip("this machine allows no user namespaces, in which a disk is small", self)
        store = self.p.directory / "small"
        store.mkdir()
        mount = "mount -t tmpfs -o size=20m tmpfs %s && exec \"$@\"" % store
        self.cp.flags["store"] = "sqlite:%s/store.db" % store
        self.cp.argv = ["unshare", "-Urm", "sh", "-c", mount, "sh"] + self.cp.argv
        self.start()
        refused = None
        policies = self.p.directory / "sources"
        shutil.copytree(trilane.POLICIES, policies)
        for number in range(1, 20):
            filler = "".join("# %x\n" % (number * k) for k in range(1, 120000))
            (policies / "filler.yaml").write_text(filler)
            done = self.cp.run("publish", "--again", "-m", "version %d" % number, policies)
            if done.returncode != 0:
                refused = done
                break
        self.assertIsNotNone(refused, "the disk never filled")
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertIn("STORE_FULL", refused.stderr)
        self.assertGreater(len(self.versions()), 0)
        signed = self.cp.told()["leader"]["sequence"]
        wait_until(lambda: self.cp.told()["leader"]["sequence"] > signed + 20, 60,
                   "twenty more heads")
        self.assertTrue(self.cp.leads())

    def test_a_lost_database_does_not_lead_below_the_bucket(self):
        self.start()
        node = self.p.node("node-1").start(good_after_ms=100)
        self.cp("publish", "-m", "one", trilane.POLICIES)
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.cp.stop()
        for path in self.cp.data.glob("store.db*"):
            path.unlink()
        self.cp.start(head_interval_ms=100, lease_ms=2500)
        wait_until(lambda: self.cp.told()["leader"]["code"] == "STORE_BEHIND", 60,
                   "STORE_BEHIND")
        done = self.cp.run("publish", "--again", "-m", "three", trilane.POLICIES)
        self.assertEqual(done.returncode, 1)
        self.assertIn("STORE_BEHIND", done.stderr)
        self.assertEqual(self.cp.metric("trilane_store_behind"), 1)
        self.assertEqual(trilane.http("GET", self.cp.url + "/ready")[0], 503)
        wait_until(lambda: node.version() == 2, 60, "the node to stay where it is")

    def test_a_signer_that_signed_higher_refuses(self):
        """An older database beside the signer's newer memory, and an empty bucket: the number
        comes again, and the signer does not sign it for another body."""
        self.start()
        self.cp("publish", "-m", "one", trilane.POLICIES)
        self.cp.stop()
        for path in self.cp.data.glob("store.db*"):
            path.unlink()
        with trilane.NatsClient(self.p.nats) as nats:
            nats.destroy("trilane_%s_snapshots" % self.p.environment)
        self.start()
        self.assertEqual(self.cp.told()["leader"]["epoch"], 2,
                         "an epoch above the one that the signer knows")
        done = self.cp.run("publish", "--again", "-m", "again", trilane.POLICIES)
        self.assertEqual(done.returncode, 1)
        self.assertIn("SIGNER_REFUSED", done.stderr)
        self.assertEqual(self.versions(), [])
        self.cp("publish", "--again", "-m", "the next number", trilane.POLICIES)
        self.assertEqual(self.versions(), [2])


if __name__ == "__main__":
    unittest.main()
