"""Snapshot formats N and N-1: what the release before made is served; what is written is what every
live node reads; who cannot read it is named before anything is published."""

import shutil
import subprocess
import unittest

import trilane
import turns
from other_node import ALL, FORMER, OtherNode
from trilane import Platform, wait_until

GOLDEN = trilane.SOURCE / "tests" / "golden" / "snapshot-1"


class Programs(unittest.TestCase):
    def test_both_say_their_formats(self):
        for program in (trilane.CP, trilane.DP):
            said = subprocess.run([program, "--version"], check=True, capture_output=True,
                                  text=True).stdout
            self.assertRegex(said, r" formats 2 1\n$")


class FormerDisk(unittest.TestCase):
    def test_a_node_serves_what_its_former_release_stored(self):
        with Platform(environment="kept", trust_domain="kept.trilane.test", nats=False) as p:
            node = self.node(p)
            wait_until(lambda: node.dump()["snapshot"]["parts"] == 26, what="all that it holds")
            self.assertEqual(node.stop(), 0)

    def node(self, p):
        data = p.directory / "upgraded"
        (data / "state").mkdir(parents=True)
        for name in ("pack", "floor"):
            shutil.copy(GOLDEN / name, data / "state" / name)
        p.nats.add_node = lambda node_id: None  # there is no NATS to know it.
        node = p.node("node-1", data_dir=data, trust_root=GOLDEN / "root.1", nats_urls=None)
        node.start()
        wait_until(lambda: node.version() == 1, what="the stored version")
        return node


class Fleet(unittest.TestCase):
    def setUp(self):
        self.p = Platform(environment="dev")
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane().start(head_interval_ms=100, status_interval_ms=2000)
        wait_until(self.cp.leads, 60, "a leader")
        self.node = self.p.node("node-1").start(status_interval_ms=200)
        self.turn = 0
        self.other = OtherNode(self.p, "other")
        self.addCleanup(self.other.silence)

    def sources(self, domains="", more=""):
        self.turn += 1
        return turns.write(self.p, self.turn, more, environment=domains)

    def publish(self, **sources):
        """Publishes; (version, format), once the real node serves it."""
        return self.served(self.cp.json("publish", "-m", "m", "--wait", "no",
                                        self.sources(**sources)))

    def served(self, answer):
        version = answer["record"]["version"]
        wait_until(lambda: self.node.version() == version, what="the node to serve it")
        return version, answer["format"]

    def refused(self, *args):
        done = self.cp.run(*args)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("CAPABILITY_MISSING", done.stderr)
        return done.stderr

    def listed(self, fmt):
        """The control plane has heard the other node speak this."""
        def heard():
            nodes = {n["node"]: n for n in self.cp.json("status")["nodes"]}
            return nodes.get("other", {}).get("format") == fmt and nodes["other"]["live"]
        wait_until(heard, what="the other node's status")

    def test_what_is_written_is_what_all_live_nodes_read(self):
        first = self.publish()
        self.assertEqual(first[1], 2)
        self.other.speaks(1, FORMER)
        self.listed(1)
        plan = self.cp.json("plan", self.sources())
        self.assertEqual(plan["format"], 1)
        former = self.publish()
        self.assertEqual(former[1], 1)
        # The same sources in another format are another content, and nothing that people named.
        self.assertEqual(self.cp.json("diff", str(former[0]), str(former[0]))["diff"]["changes"],
                         [])

        said = self.refused("publish", "-m", "m", self.sources(more=turns.REVOCATION))
        self.assertIn("node other cannot do REVOCATIONS", said)
        said = self.refused("publish", "-m", "m", self.sources(domains=", trustDomains: [b.test]"))
        self.assertIn("node other cannot do TRUST_DOMAINS nor read snapshot format 2, it speaks 1",
                      said)
        said = self.refused("rollback", "-m", "m", str(first[0]))
        self.assertIn("node other cannot read snapshot format 2, it speaks 1", said)

        self.other.speaks(3)  # a newer one reads what we write,
        self.listed(3)
        self.assertEqual(self.publish()[1], 2)
        self.other.speaks(4)  # one that is newer still does not.
        self.listed(4)
        said = self.refused("plan", self.sources())
        self.assertIn("node other cannot read snapshot format 2, it speaks 4", said)

        self.other.silence()  # who is silent holds nothing up,
        wait_until(lambda: not [n for n in self.cp.json("status")["nodes"]
                                if n["node"] == "other" and n["live"]], what="it to be silent")
        newest = self.publish(more=turns.REVOCATION, domains=", trustDomains: [b.test]")
        self.assertEqual(newest[1], 2)
        # and what was written for it is still read. Its revocations are the newest ones.
        back = self.served(self.cp.json("rollback", "-m", "back", "--wait", "no",
                                        str(former[0])))
        self.assertEqual(back[1], 1)
        self.assertEqual(self.node.dump()["code"], "")

    def test_what_was_planned_goes_out_in_the_format_that_is_needed_by_then(self):
        self.publish()
        plan = self.cp.json("plan", self.sources())
        self.assertEqual(plan["format"], 2)
        self.other.speaks(1, FORMER)
        self.listed(1)
        former = self.served(self.cp.json("publish", "-m", "m", "--wait", "no", "--plan",
                                          plan["plan"]))
        self.assertEqual(former[1], 1)

    def test_a_node_that_says_more_than_it_can(self):
        """It refuses by itself; the publication stands, and says that it is not live there."""
        self.publish()
        self.other.speaks(2)
        self.listed(2)
        done = subprocess.Popen([trilane.CP, "publish", "--server", self.cp.url, "--token-file",
                                 self.cp.data / "token", "-m", "m", "--timeout", "20",
                                 self.sources(more=turns.REVOCATION)], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: self.node.version() == 2, what="the real node to serve it")
        self.other.speaks(2, code="CAPABILITY_MISSING")
        said = done.communicate(timeout=90)[0]
        self.assertEqual(done.returncode, 4, said)
        self.assertIn("other", said)
        self.assertIn("CAPABILITY_MISSING", said)


if __name__ == "__main__":
    unittest.main()
