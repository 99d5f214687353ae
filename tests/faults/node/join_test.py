"""A node that is killed in the midst of joining or renewing: it joins by the same token in the end,
and starts with a certificate and a key that belong together."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
import unittest

from cryptography import x509

import trilane
from joining import JoinedNode, join, token
from trilane import Platform, wait_until

# In the order in which they are met: DP_JOIN_STEPS, and the two of the certificate's way in.
JOIN_POINTS = ("join.look", "join.keys", "join.ask", "join.judge", "join.roots", "join.certificate",
               "identity.next", "identity.key", "join.commit")
RENEW_POINTS = ("renew.put", "identity.next", "identity.key")


def swallow(port, to):
    """Passes one request on and never its answer; returns what ends it."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve():
        a, _ = listener.accept()
        with a, socket.create_connection(("127.0.0.1", to)) as b:
            while b not in select.select([a, b], [], [])[0]:  # until it is answered.
                b.sendall(a.recv(65536))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread, listener.close


def serial(node):
    pem = (node.identity / "cert.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem).serial_number


class OnePlatform(unittest.TestCase):
    flags = {}

    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.cp = cls.p.control_plane(ca=cls.p.identities, **cls.flags).start()


class Joins(OnePlatform):
    """Certificates live so long that none is renewed while a test looks at it."""

    def rows(self, name):
        nodes = json.loads(trilane.http("GET", self.cp.url + "/api/v1/identities")[2])["nodes"]
        return [n for n in nodes if n["node"] == name]

    def test_in_a_join(self):
        for point in JOIN_POINTS:
            with self.subTest(point=point):
                name = "killed-at-" + point.replace(".", "-")
                node = JoinedNode(self.p, name)
                text = token(self.cp, name, "--labels", "zone=a")
                join(node.data, text, self.cp.url, fault=point + ":kill", code=-signal.SIGKILL)
                self.assertFalse((node.identity / "joined").exists())
                self.assertIn("joined environment", join(node.data, text, self.cp.url))
                self.whole(node)

    def test_over_and_over(self):
        """At each point in turn, by one token, in one directory."""
        node = JoinedNode(self.p, "unlucky")
        text = token(self.cp, "unlucky")
        for point in JOIN_POINTS:
            join(node.data, text, self.cp.url, fault=point + ":kill", code=-signal.SIGKILL)
        join(node.data, text, self.cp.url)
        self.whole(node)
        # Killed behind the commit, before it said so: the next one says so.
        self.assertIn("joined before", join(node.data, text, self.cp.url))

    def whole(self, node):
        """Nothing is left over, and it serves as what the control plane knows."""
        self.assertEqual(sorted(path.name for path in node.identity.iterdir()),
                         ["ca.pem", "cert.pem", "joined", "key.pem", "status.key"])
        row, = self.rows(node.node_id)
        self.assertEqual(int(row["serial"], 16), serial(node))
        node.start()
        self.assertEqual(node.dump()["identity"]["serial"], row["serial"])
        node.stop()

    def test_the_answer_is_lost(self):
        node = JoinedNode(self.p, "unheard")
        text = token(self.cp, "unheard")
        port = trilane.free_port()
        thread, close = swallow(port, self.cp.port)
        said = join(node.data, text, "http://127.0.0.1:%d" % port, code=3)
        thread.join(10)
        close()
        self.assertIn("may be given again with the same token", said)
        self.assertEqual(self.rows("unheard")[0]["state"], "enrolled")
        join(node.data, text, self.cp.url)
        self.whole(node)

    def test_the_keys_are_lost(self):
        """A token that was used by keys that nobody has any more: said, with what to do."""
        text = token(self.cp, "forgetful")
        join(self.p.directory / "forgetful-a", text, self.cp.url, fault="join.judge:kill",
             code=-signal.SIGKILL)
        said = join(self.p.directory / "forgetful-b", text, self.cp.url, code=1)
        self.assertIn("its keys are lost: make a new token", said)
        self.assertIn("somebody else joined as this node: remove it first", said)

    def test_one_joins_at_a_time(self):
        node = JoinedNode(self.p, "twice")
        text = token(self.cp, "twice")
        first = subprocess.Popen(
            [trilane.DP, "join", "--server", self.cp.url, "--token-file", "-", "--data-dir",
             str(node.data)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=dict(os.environ, TRILANE_FAULT="join.ask:pause=60000"))
        self.addCleanup(first.kill)
        first.stdin.write(text + "\n")
        first.stdin.close()
        wait_until(lambda: (node.identity / "key.next").exists(), 60, "the first to have its keys")
        self.assertIn("another process joins", join(node.data, text, self.cp.url, code=1))
        first.kill()
        first.wait()
        join(node.data, text, self.cp.url)


class Renewals(OnePlatform):
    flags = {"node_cert_ttl_ms": 10000}

    def test_in_a_renewal(self):
        nodes = {}
        for point in RENEW_POINTS:
            node = JoinedNode(self.p, "renews-at-" + point.replace(".", "-")).joined(self.cp)
            node.env = {"TRILANE_FAULT": point + ":kill"}
            nodes[point] = node.start(wait=False)  # it may be killed before it is looked at.
        for point, node in nodes.items():
            with self.subTest(point=point):
                self.assertEqual(node.wait(), -signal.SIGKILL)
                node.env = {}
                node.start()
                self.assertTrue(node.identity.joinpath("cert.pem").exists())
                wait_until(lambda n=node: n.dump()["identity"]["renewals"] >= 1, 60, "a renewal")
                node.stop()


if __name__ == "__main__":
    unittest.main()
