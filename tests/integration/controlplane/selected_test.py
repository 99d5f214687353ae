"""Which version a node serves is told by its labels, where a head's targets ask for them: those of its
certificate. With real nodes that joined; the heads are signed here, by the head key itself."""

import unittest

import forge
from joining import JoinedNode
from trilane import NatsClient, Platform, wait_until

SOURCES = """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: demo}
spec: {security: dev, trustDomain: %s.test}
"""
NODE = {"poll_interval_ms": 200, "status_interval_ms": 300, "good_after_ms": 100}


class Selected(unittest.TestCase):
    def setUp(self):
        """Two versions in the bucket, two nodes that have neither, and no control plane any more."""
        self.p = Platform()
        self.addCleanup(self.p.close)
        cp = self.p.control_plane(ca=self.p.identities).start(head_interval_ms=100)
        wait_until(cp.leads, 60, "a leader")
        self.nodes = [JoinedNode(self.p, "node-" + zone).joined(cp, "--labels", "zone=" + zone)
                      for zone in ("a", "b")]
        nats = NatsClient(self.p.nats)
        self.addCleanup(nats.__exit__, None, None, None)
        self.bucket = forge.Intruder(nats, "demo")
        self.versions = {}
        for name in ("one", "two"):
            cp("publish", "-m", name, self.p.write_policies({"shop.yaml": SOURCES % name}))
            number, digest, _ = self.bucket.newest_manifest()
            self.versions[number] = digest
        cp.stop()
        self.epoch, self.sequence = self.bucket.order()
        self.key = forge.Key(self.p.keys / "head.key")

    def point(self, zone):
        """A head that points nodes of a zone at version 2, and all others at version 1."""
        self.sequence += 1
        self.bucket.put("head", forge.head(
            "demo", self.key, root_version=1, epoch=self.epoch, sequence=self.sequence, version=1,
            digest=self.versions[1], before=[
                forge.target(forge.labelled("zone", zone), 2, self.versions[2])]))

    def served(self, zone, versions):
        """Until they serve those, by heads that are ever newer: none runs out while a node starts."""
        def look():
            self.point(zone)
            return [node.version() for node in self.nodes] == versions
        wait_until(look, what="versions %r" % versions, step=0.2)

    def test_by_a_label(self):
        self.assertEqual(sorted(self.versions), [1, 2])
        self.point("a")
        for node in self.nodes:
            node.start(**NODE)
        self.served("a", [2, 1])
        self.assertEqual([node.dump()["snapshot"]["refusals"] for node in self.nodes], [0, 0])
        self.served("b", [2, 2])  # nobody goes back: node-a keeps what it has.
        wait_until(lambda: self.nodes[0].dump()["snapshot"]["last_refusal"] == "SNAPSHOT_REPLAYED",
                   what="node-a to refuse the way back")


if __name__ == "__main__":
    unittest.main()
