"""`identity remove`: one command, and the removed node's channels end everywhere: GOAWAY, then the
end of the connection; others notice nothing, and no later publication lets it back in."""

import json
import pathlib
import sqlite3
import unittest

import grpc

import echo_service as echo
import trilane
from joining import JoinedNode
from revocation_test import SOON, Idle, serial
from trilane import wait_until

NODE = {"status_interval_ms": 300, "poll_interval_ms": 200, "good_after_ms": 100}


class Removal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.p.close)
        cls.server = echo.Server("a")
        cls.addClassCleanup(cls.server.stop)
        cls.cp = cls.p.control_plane(ca=cls.p.identities).start(head_interval_ms=100)
        cls.node = cls.join("edge-0")
        cls.node.start(**NODE)
        cls.first = cls.publish()

    @classmethod
    def join(cls, name):
        return JoinedNode(cls.p, name).joined(cls.cp, "--san", "dns:localhost")

    @classmethod
    def publish(cls, extra=""):
        text = echo.platform_yaml([cls.server.port], extra=extra)
        answer = cls.cp.json("publish", "-m", "test", "--again",
                             cls.p.write_policies({"platform.yaml": text}))
        cls.wait_served(answer["record"]["version"])
        return answer["record"]["version"]

    @classmethod
    def wait_served(cls, version):
        wait_until(lambda: cls.node.version() >= version, what="the node to serve it", step=0.01)

    @staticmethod
    def files(node):
        return {"cert": str(node.identity / "cert.pem"), "key": str(node.identity / "key.pem")}

    def idle(self, files):
        return Idle(self.p, self.node.ports["listen-tls"], files)

    def code(self, files):
        """What a new connection by these files is told."""
        credentials = grpc.ssl_channel_credentials(
            self.p.ca.read_bytes(), pathlib.Path(files["key"]).read_bytes(),
            pathlib.Path(files["cert"]).read_bytes())
        with grpc.secure_channel("localhost:%d" % self.node.ports["listen-tls"], credentials,
                                 options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                echo.stubs.EchoStub(channel).Say(echo.pb.Words(text="x"), timeout=60)
                return ""
            except grpc.RpcError as error:
                return dict(error.trailing_metadata() or ()).get("x-trilane-code",
                                                                 error.code().name)

    def sources(self, version):
        return [f["name"] for f in self.cp.api("GET", "/api/v1/versions/%d" % version)[1]["files"]]

    def audit(self, action, object_start):
        entries = self.cp.api("GET", "/api/v1/audit")[1]["entries"]
        return [e for e in entries
                if e["action"] == action and e["object"].startswith(object_start)]

    def assert_ends(self, idle):
        self.assertTrue(idle.goaway.wait(SOON))
        self.assertTrue(idle.closed.wait(SOON))

    def test_its_channels_end_and_nobody_elses(self):
        gone, stays = self.join("edge-1"), self.join("edge-2")
        idle, other = self.idle(self.files(gone)), self.idle(self.files(stays))
        self.assertNotEqual(self.code(self.files(gone)), "IDENTITY_REVOKED")
        before = self.cp.json("history")["versions"][0]
        said = self.cp("identity", "remove", "edge-1", "--author", "ada")
        version = self.cp.json("history")["versions"][0]["version"]
        self.assertEqual(version, before["version"] + 1)
        self.assertIn("removed edge-1", said)
        self.assertIn("version %d ends its channels" % version, said)
        self.assert_ends(idle)
        self.wait_served(version)
        self.assertEqual(self.code(self.files(gone)), "IDENTITY_REVOKED")
        self.assertFalse(other.goaway.is_set())
        self.assertNotEqual(self.code(self.files(stays)), "IDENTITY_REVOKED")
        self.assertEqual(self.audit("identity remove", "edge-1")[0]["actor"], "ada")
        line = self.audit("publish-removal", "edge-1")[0]
        self.assertEqual((line["object"], line["actor"], line["outcome"]),
                         ("edge-1 version %d" % version, "ada", "OK"))
        again = self.cp.json("identity remove", "edge-1")
        self.assertEqual((again["published"], again["version"]), (False, version))
        self.assertEqual(self.cp.json("history")["versions"][0]["version"], version)
        self.assertEqual(len(self.audit("publish-removal", "edge-1")), 1)

    def test_all_that_it_was_given(self):
        """It joined twice, and has two certificates that hold; by a third token it gets one that stays."""
        node = self.join("edge-3")
        old = self.p.directory / "edge-3-old"
        old.mkdir()
        for name in ("cert.pem", "key.pem"):
            (old / name).write_bytes((node.identity / name).read_bytes())
        first = {"cert": str(old / "cert.pem"), "key": str(old / "key.pem")}
        self.rejoin(node)
        second = self.files(node)
        self.assertNotEqual(serial(first["cert"]), serial(second["cert"]))
        idle = [self.idle(first), self.idle(second)]
        version = self.cp.json("identity remove", "edge-3")["version"]
        for one in idle:
            self.assert_ends(one)
        self.wait_served(version)
        self.assertEqual({self.code(first), self.code(second)}, {"IDENTITY_REVOKED"})
        kept = {name: (node.identity / name).read_bytes() for name in ("cert.pem", "key.pem")}
        self.rejoin(node)
        self.assertNotEqual(self.code(self.files(node)), "IDENTITY_REVOKED")
        for name, content in kept.items():
            (old / name).write_bytes(content)
        self.assertEqual(self.code(first), "IDENTITY_REVOKED")

    def rejoin(self, node):
        for path in node.identity.iterdir():
            path.unlink()
        node.identity.rmdir()
        node.joined(self.cp, "--san", "dns:localhost")

    def test_no_publication_lets_it_back_in(self):
        node = self.join("edge-4")
        files = self.files(node)
        removed = self.cp.json("identity remove", "edge-4")["version"]
        self.wait_served(removed)
        self.assertEqual(self.code(files), "IDENTITY_REVOKED")
        self.assertIn("trilane-removed.yaml", self.sources(removed))
        for how in ("publish", "rollback", "rollback-with-trust", "again"):
            with self.subTest(how):
                self.publish_by(how)
                self.assertEqual(self.code(files), "IDENTITY_REVOKED")
        plan = self.cp.json("plan", self.p.write_policies(
            {"platform.yaml": echo.platform_yaml([self.server.port])}))
        self.assertNotIn("LOOSENS", plan["diff_text"])

    def publish_by(self, how):
        if how in ("publish", "again"):
            version = self.publish()
        else:
            first = str(self.first)
            flags = ("--with-trust", "--yes-really", first) if how == "rollback-with-trust" else ()
            version = self.cp.json("rollback", "-m", "back", *flags, first)["record"]["version"]
            self.assertEqual(self.cp.json("history")["versions"][0]["origin"], self.first)
        self.assertIn("trilane-removed.yaml", self.sources(version))
        self.wait_served(version)

    def test_the_database_revokes_nobody(self):
        """A row of somebody else's certificate is no removal, whoever wrote it."""
        node, victim = self.join("edge-5"), self.join("edge-6")
        number = serial(self.files(victim)["cert"]).lower()
        with sqlite3.connect(self.cp.data / "store.db", timeout=20) as db:
            db.execute("UPDATE certificate SET removed_ms = 1, removal = ? WHERE serial = ?",
                       (b"x" * 32, number))
            db.execute("INSERT INTO certificate SELECT environment, '0a0b', 'edge-5', not_after_ms,"
                       " warrant, 0, x'' FROM certificate WHERE serial = ?", (number,))
        answer = self.cp.json("identity remove", "edge-5")
        self.assertTrue(answer["published"])
        self.wait_served(answer["version"])
        self.assertEqual(self.code(self.files(node)), "IDENTITY_REVOKED")
        self.assertNotEqual(self.code(self.files(victim)), "IDENTITY_REVOKED")
        text = json.dumps(self.cp.json("diff", str(answer["version"] - 1), str(answer["version"])))
        self.assertNotIn("0a0b", text)

    def test_the_database_lifts_nothing(self):
        node = self.join("edge-7")
        version = self.cp.json("identity remove", "edge-7")["version"]
        self.wait_served(version)
        with sqlite3.connect(self.cp.data / "store.db", timeout=20) as db:
            db.execute("DELETE FROM certificate")
        self.publish()
        self.assertEqual(self.code(self.files(node)), "IDENTITY_REVOKED")

    def test_a_certificate_vouches_for_itself(self):
        """Its row is gone, or was written under another token of the API: our CA signed it."""
        node = self.join("edge-9")
        with sqlite3.connect(self.cp.data / "store.db", timeout=20) as db:
            db.execute("UPDATE certificate SET warrant = ? WHERE node = 'edge-9'", (b"x" * 32,))
            db.execute("UPDATE node SET serial = '0a0b', not_after_ms = 0 WHERE id = 'edge-9'")
        answer = self.cp.json("identity remove", "edge-9")
        self.assertEqual((answer["published"], answer["unvouched"]), (True, ""))
        self.wait_served(answer["version"])
        self.assertEqual(self.code(self.files(node)), "IDENTITY_REVOKED")

    def test_one_from_before(self):
        """A certificate that nobody vouches for is named, and what to do about it."""
        self.join("edge-8")
        with sqlite3.connect(self.cp.data / "store.db", timeout=20) as db:
            db.execute("DELETE FROM certificate WHERE node = 'edge-8'")
            db.execute("UPDATE node SET certificate = x'' WHERE id = 'edge-8'")
        number = serial(str(self.p.directory / "edge-8" / "identity" / "cert.pem")).lower()
        answer = self.cp.json("identity remove", "edge-8")
        self.assertEqual((answer["published"], answer["unvouched"]), (False, number))

    def test_the_file_is_the_control_planes(self):
        files = {"platform.yaml": echo.platform_yaml([self.server.port]),
                 "trilane-removed.yaml": "kind: Revocation\n"}
        done = self.cp.run("publish", "-m", "mine", self.p.write_policies(files))
        self.assertEqual(done.returncode, 1)
        self.assertIn("trilane-removed.yaml: the control plane writes this file", done.stderr)


if __name__ == "__main__":
    unittest.main()
