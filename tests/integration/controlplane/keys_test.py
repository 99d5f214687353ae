"""Roots and keys of a control plane that runs: the ceremony of files, a root that is published and
walked to, keys that take over without a restart, keys that come by a descriptor, and what is
refused on the way."""

import base64
import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import time
import unittest

import forge
import trilane
from ceremony import Ceremony
from trilane import NatsClient, Platform, wait_until

FAST = {"head_interval_ms": 100, "lease_ms": 10000}
NODE = {"poll_interval_ms": 200, "status_interval_ms": 300, "good_after_ms": 100}


class Keys(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)
        self.cp = self.p.control_plane()
        self.c = Ceremony(self.p)

    def start(self, **flags):
        self.cp.start(**{**FAST, **flags})
        wait_until(self.cp.leads, 60, "a leader\n" + self.cp.log()[-2000:])

    def epoch(self, cp=None):
        return (cp or self.cp).json("status")["leader"]["epoch"]

    def roots(self, cp=None):
        return (cp or self.cp).json("key", "list")

    def in_force(self, version, cp=None):
        wait_until(lambda: self.roots(cp)["root"]["version"] == version,
                   what="root %d in force" % version)

    @staticmethod
    def root_of(node):
        return node.dump()["snapshot"]["root_version"]

    # ---- roots ----

    def test_nodes_zero_one_and_five_roots_behind(self):
        """Each next root has one more head key and none of the one before but the replica's own."""
        self.start()
        self.cp("publish", "-m", "one", trilane.POLICIES)
        old = self.p.node("behind").start(**NODE)
        wait_until(lambda: old.version() == 1, 60, "version 1")
        for version in range(2, 7):
            self.c.generate("head", "head-%d" % version)
            args = ["--add", self.c.public("head-%d" % version)]
            args += ["--drop", "head-%d" % (version - 1)] if version > 2 else []
            answer = self.cp.json("root", "publish", self.c.next_root(version, *args))
            self.assertEqual(answer["version"], version)
        self.in_force(6)
        wait_until(lambda: self.root_of(old) == 6, 60, "the node that runs")
        with NatsClient(self.p.nats) as nats:
            bucket = "trilane_%s_snapshots" % self.p.environment
            for version in range(1, 7):
                self.assertEqual(nats.get(bucket, "root.%d" % version),
                                 self.c.root(version).read_bytes())
        for name, version in (("zero", 6), ("one", 5), ("five", 1)):
            node = self.p.node(name, trust_root=self.c.root(version)).start(**NODE)
            wait_until(lambda n=node: n.version() == 1, 60, name + " serves")
            wait_until(lambda n=node: self.root_of(n) == 6, 60, name + " is at root 6")
        audit = self.cp.api("GET", "/api/v1/audit")[1]["entries"]
        self.assertEqual([e["object"] for e in audit if e["action"] == "root"],
                         ["root %d" % v for v in range(6, 1, -1)])

    def test_the_threshold_of_root_keys_goes_from_one_to_two(self):
        self.start()
        self.cp("publish", "-m", "one", trilane.POLICIES)
        node = self.p.node("node-1").start(**NODE)
        for name in ("root-b", "root-c"):
            self.c.generate("root", name)
        self.cp("root", "publish", self.c.next_root(
            2, "--add", self.c.public("root-b", "root-c"), "--threshold-roots", "2",
            by=("root", "root-c")))
        self.c.generate("head", "head-3")
        draft = self.c.draft(3, "--add", self.c.public("head-3"))
        self.c.sign(draft, "root-b")
        self.assertFalse(self.c.root(3).exists())
        self.in_force(2)
        done = self.cp.run("root", "publish", draft)
        self.assertEqual(done.returncode, 1)
        self.assertIn("ROOT_UNSIGNED", done.stderr)
        self.cp("root", "publish", self.c.sign(draft, "root"))
        wait_until(lambda: self.root_of(node) == 3, 60, "the node walks")
        self.assertEqual(node.version(), 1)
        shown = self.cp.json("key", "list")["root"]
        self.assertEqual(shown["thresholds"], {"root": 2, "manifest": 1, "head": 1})

    def test_a_root_that_is_none_is_refused_and_changes_nothing(self):
        self.start()
        root = forge.Key(self.p.keys / "root.key")
        stranger = forge.Key(self.c.generate("root", "stranger"))
        manifest, head = (forge.Key(self.p.keys / n) for n in ("manifest.key", "head.key"))
        end = int(time.time() * 1000) + 86400000

        def made(version, signers, environment="demo", roots=((root, 0),), floor=None,
                 not_after=end):
            roles = [(roots, 1), ([(manifest, 0)], 1), ([(head, end)], 1)]
            return forge.root(environment, version, not_after, roles, signers, floor)

        cases = [
            ("ROOT_MALFORMED", 400, b"no root"),
            ("ROOT_UNSIGNED", 401, made(2, [stranger], roots=((stranger, 0),))),
            ("ROOT_UNSIGNED", 401, made(2, [root], roots=((stranger, 0),))),
            ("ROOT_MISSING", 503, made(3, [root])),
            ("CONFLICT", 409, made(1, [root])),
            ("ROOT_MALFORMED", 400, made(2, [root], environment="other")),
            ("ROOT_EXPIRED", 409, made(2, [root], not_after=1000)),
            ("USAGE", 400, made(2, [root], floor=(2 ** 62, 1))),
        ]
        for code, status, root_bytes in cases:
            with self.subTest(code=code):
                got, answer = self.cp.api("POST", "/api/v1/roots", forge.as_json(root_bytes))
                self.assertEqual((got, answer["code"]), (status, code), answer)
        for body in ({}, {"root": 7}, {"root": "***"}, {"root": "", "more": 1},
                     {"root": base64.b64encode(bytes(100000)).decode()},
                     {"root": "", "author": "a\nb"}):
            with self.subTest(body=str(body)[:40]):
                self.assertIn(self.cp.api("POST", "/api/v1/roots", body)[0], (400, 413))
        self.assertEqual(self.cp.api("POST", "/api/v1/roots", forge.as_json(b"x"), token=False)[0],
                         401)
        self.assertEqual(self.roots()["root"]["version"], 1)
        known = forge.as_json(self.c.root(1).read_bytes())
        self.assertEqual(self.cp.api("POST", "/api/v1/roots", known)[0], 200, "the same again")

    def test_an_epoch_that_nodes_would_refuse_is_no_floor(self):
        self.start()
        self.cp.stop()
        with contextlib.closing(sqlite3.connect(self.cp.data / "store.db")) as db, db:
            db.execute("UPDATE leader SET epoch = 3000000")
        self.start()
        root = self.c.next_root(2, "--floor-epoch", "5", "--floor-version", "1")
        done = self.cp.run("root", "publish", root)
        self.assertIn("EPOCH_JUMP", done.stderr)
        self.assertEqual(done.returncode, 2)

    def test_every_replica_takes_it_whichever_was_asked(self):
        store = "sqlite:%s" % (self.p.directory / "shared.db")
        self.c.generate("manifest", "manifest-b")
        self.c.generate("head", "head-b")
        self.start(store=store, replica="one")
        second = self.p.control_plane("cp-b", store=store, trust_root=self.c.root(2), replica="two",
                                      key_manifest=self.p.keys / "manifest-b.key",
                                      key_head=self.p.keys / "head-b.key")
        self.cp("root", "publish", self.c.next_root(2, "--add",
                                                    self.c.public("manifest-b", "head-b")))
        second.start(**FAST)
        second("root", "publish", self.c.sign(self.c.revocation(3, "head:head-b")))
        self.in_force(3)
        self.in_force(3, second)
        wait_until(lambda: self.roots(second)["here"]["code"] == "KEY_UNKNOWN", what="it to know")
        wait_until(lambda: "event=head_key code=KEY_UNKNOWN" in second.log(), what="it to say so")
        for cp in (self.cp, second):
            self.look_at_the_keys_of_both(cp)
        self.cp.stop()
        status = second.json("status")["leader"]
        self.assertFalse(status["leads"])
        wait_until(lambda: second.json("status")["leader"]["code"] == "KEY_UNKNOWN", 60, "says why")
        wait_until(lambda: trilane.http("GET", second.url + "/ready")[0] == 503, what="not ready")

    def look_at_the_keys_of_both(self, cp):
        """Whichever is asked: who signs with what, and what was revoked, though one still has it."""
        wait_until(lambda: len(self.roots(cp)["replicas"]) == 2, 60, "what both sign with")
        answer = self.roots(cp)
        ids = {key["name"]: key["id"] for key in answer["root"]["keys"] + answer["revoked"]}
        self.assertEqual({r["name"]: (r["manifest_key"], r["head_key"], r["head_known"])
                          for r in answer["replicas"]},
                         {"one": (ids["manifest"], ids["head"], True),
                          "two": (ids["manifest-b"], ids["head-b"], False)})
        self.assertEqual([(k["name"], k["role"], k["revoked_by"]) for k in answer["revoked"]],
                         [("head-b", "head", 3)])
        text = cp("key", "list")
        for name, end, used in (("manifest", "no end", "one"), ("head", "6d left", "one"),
                                ("manifest-b", "no end", "two"),
                                ("head-b", "revoked by 3", "two")):
            line = "%s +%s +%s *%s" % (ids[name], name, end, used)
            self.assertRegex(text, line)
        self.assertIn("two signs with the head key %s, which is not in the root in force\n" %
                      ids["head-b"], text)

    def test_a_replica_starts_with_an_old_root_and_goes_on_from_the_database(self):
        self.start()
        self.c.generate("head", "head-2")
        root = self.c.next_root(2, "--add", self.c.public("head-2"), "--drop", "head:head")
        self.cp("root", "publish", root)
        self.cp.stop()
        self.cp.start(**FAST, key_head=self.p.keys / "head-2.key")  # --trust-root is root.1 still.
        wait_until(self.cp.leads, 60, "it leads with a key of root 2")
        self.assertEqual(self.roots()["root"]["version"], 2)

    def test_a_database_with_other_roots_is_refused(self):
        self.start()
        self.cp.stop()
        root = forge.Key(self.p.keys / "root.key")
        manifest, head = (forge.Key(self.p.keys / n) for n in ("manifest.key", "head.key"))
        other = self.p.directory / "other.1"
        other.write_bytes(forge.root("demo", 1, 2 ** 50, [([(root, 0)], 1), ([(manifest, 0)], 1),
                                                          ([(head, 0)], 1)], [root]))
        self.cp.start(wait=False, trust_root=other)
        self.assertEqual(self.cp.wait(), 1)
        self.assertIn("trust-root: root 1 of the database is another one", self.cp.log())

    # ---- keys ----

    def test_keys_take_over_without_a_restart(self):
        self.start()
        self.cp("publish", "-m", "one", trilane.POLICIES)
        node = self.p.node("node-1").start(**NODE)
        wait_until(lambda: node.version() == 1, 60, "version 1")
        before, pid = self.epoch(), self.cp.popen.pid
        head = self.c.generate("head", "head-2")
        manifest = self.c.generate("manifest", "manifest-2")
        self.c.hold(self.cp, "head", head)
        self.cp.signal(signal.SIGHUP)
        wait_until(lambda: "event=keys_not_taken" in self.cp.log(), 60, "it says no")
        self.assertIn("key-head: the root in force (version 1) does not have this key",
                      self.cp.log())
        wait_until(self.cp.leads, 60, "heads go out")
        self.assertEqual(self.epoch(), before, "the old one signs on")
        self.cp("root", "publish", self.c.next_root(2, "--add",
                                                    self.c.public("head-2", "manifest-2")))
        wait_until(lambda: self.roots()["here"]["head_key"] == forge.Key(head).id.hex(),
                   what="the new root has the key file read anew")
        wait_until(self.cp.leads, 60, "heads go out")
        self.assertGreater(self.epoch(), before)
        self.c.hold(self.cp, "manifest", manifest)
        self.cp.signal(signal.SIGHUP)
        wait_until(lambda: self.roots()["here"]["manifest_key"] == forge.Key(manifest).id.hex(),
                   what="the new manifest key")
        wait_until(self.cp.leads, 60, "heads go out")
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        wait_until(lambda: node.version() == 2, 60, "version 2")
        self.assertEqual(self.roots()["newest_signers"], [forge.Key(manifest).id.hex()])
        self.cp.signal(signal.SIGHUP)
        wait_until(lambda: "event=keys_unchanged" in self.cp.log(), 60, "nothing to do")
        self.assertEqual(self.cp.popen.pid, pid)

    def test_no_replica_holds_the_break_glass_key(self):
        self.start()
        key = self.c.generate("manifest", "break-glass")
        self.cp("root", "publish", self.c.next_root(2, "--add", self.c.public("break-glass")))
        self.in_force(2)
        self.assertIn("people: break-glass", self.cp("key", "list"))
        self.c.hold(self.cp, "manifest", key)
        self.cp.signal(signal.SIGHUP)
        wait_until(lambda: "break-glass is a key that people hold" in self.cp.log(), 60, "refused")
        wait_until(self.cp.leads, 60, "heads go out")

    def test_a_key_comes_by_a_descriptor(self):
        """As from systemd, a secret store or a vault's agent: read once, and nowhere on disk."""
        ends = {}
        for role in ("manifest", "head"):
            ends[role], write = os.pipe()
            os.write(write, (self.p.keys / (role + ".key")).read_bytes())
            os.close(write)
            (self.p.keys / (role + ".key")).unlink()
        flags = {**self.cp.flags, **{"key-" + r: "fd:%d" % fd for r, fd in ends.items()},
                 "head-interval-ms": 100, "lease-ms": 10000}
        with open(self.cp.log_path, "ab") as log:
            self.cp.popen = subprocess.Popen(
                [*trilane.WITH_PARENT, trilane.CP, "serve", *("--%s=%s" % f for f in flags.items())],
                stdout=log, stderr=log, pass_fds=list(ends.values()))
        for fd in ends.values():
            os.close(fd)
        self.cp.wait_healthy()
        wait_until(self.cp.leads, 60, "a leader")
        self.cp("publish", "-m", "one", trilane.POLICIES)
        before = self.epoch()
        os.kill(self.signer(), signal.SIGKILL)
        wait_until(lambda: "event=signer_restarted" in self.cp.log(), 60, "another signer")
        wait_until(self.cp.leads, 60, "heads go out")
        self.assertGreater(self.epoch(), before)
        self.cp("publish", "--again", "-m", "two", trilane.POLICIES)
        self.cp.signal(signal.SIGHUP)
        wait_until(lambda: "event=keys_unchanged" in self.cp.log(), 60, "the same keys")

    def signer(self):
        for path in pathlib.Path("/proc/%d/task" % self.cp.popen.pid).glob("*/children"):
            for child in path.read_text().split():
                if b"\0signer\0" in pathlib.Path("/proc/%s/cmdline" % child).read_bytes():
                    return int(child)
        raise AssertionError("no signer")

    def test_the_signer_is_shut_off(self):
        self.start()
        status = dict(line.split(":\t", 1) for line in pathlib.Path(
            "/proc/%d/status" % self.signer()).read_text().splitlines() if ":\t" in line)
        self.assertEqual(status["Seccomp"].strip(), "2")
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        self.assertEqual(status["Threads"].strip(), "1")
        fds = {os.readlink(p) for p in pathlib.Path("/proc/%d/fd" % self.signer()).iterdir()}
        self.assertEqual({f for f in fds if f.startswith("/")} - {"/dev/null",
                                                                 str(self.cp.log_path)},
                         {str(self.cp.data / "signer.state")})
        # Another one is started in its place when it ends, whatever ended it.
        os.kill(self.signer(), signal.SIGSYS)
        wait_until(lambda: "the signer had ended by SIGSYS" in self.cp.log(), 60, "it says so")
        wait_until(self.cp.leads, 60, "heads go out")

    def test_what_ends_when_is_shown(self):
        self.start()
        wait_until(lambda: self.cp.metric("trilane_head_key_usable") == 1, 60, "the first beat")
        week = 7 * 86400
        self.assertAlmostEqual(self.cp.metric("trilane_key_expires_seconds"), week, delta=300)
        self.assertAlmostEqual(self.cp.metric("trilane_root_expires_seconds"), 365 * 86400,
                               delta=300)
        self.assertEqual(self.cp.metric("trilane_root_version"), 1)
        text = self.cp("key", "list")
        self.assertIn("6d left", text)
        self.assertEqual(text.count("this replica"), 2)
        offline = json.loads(self.p.command("key", "list", "--output", "json", self.p.root))
        self.assertEqual(offline["root"], self.roots()["root"])
        self.cp.stop()
        self.cp.start(**FAST, key_warn_ms=8 * 86400 * 1000)
        wait_until(lambda: "event=head_key_ends" in self.cp.log(), 60, "a warning")


if __name__ == "__main__":
    unittest.main()
