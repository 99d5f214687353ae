"""The operator's commands as a person meets them: what they say, with which exit code, and that each
way of output says the same."""

import http.server
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import threading
import unittest

import trilane
from trilane import CP, NatsClient, Platform, free_port, wait_until


def run(*args, env=None):
    return subprocess.run([CP] + [str(a) for a in args], capture_output=True, text=True, timeout=120,
                          check=False, env=dict(os.environ, **(env or {})))


class Offline(unittest.TestCase):
    """What needs no server."""

    @classmethod
    def setUpClass(cls):
        cls.p = Platform(nats=False)
        cls.addClassCleanup(cls.p.close)

    def check(self, code, said, *args):
        done = run(*args)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertIn(said, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertLessEqual(done.stderr.count("error: "), 1, "one sentence")

    def test_usage(self):
        self.check(2, 'did you mean "status"?', "statsu")
        self.check(2, "key generate", "key")
        self.check(2, "identity issue", "identity")
        self.check(2, 'history does not take "extra"', "history", "extra")
        self.check(2, 'did you mean "server"?', "status", "--sever", "x")
        self.check(2, "expected table, json or yaml", "status", "--output", "xml")
        self.check(2, "needs a DIRECTORY", "validate")
        self.check(2, ": -m needs a value", "publish", "-m")
        self.check(2, "expected yes or no", "publish", "-m", "m", "--wait", "10", trilane.POLICIES)
        self.check(1, 'is called "NOPE"', "help", "NOPE")
        self.assertNotIn("did you mean", run("status", "--bogus").stderr)

    def test_all_that_is_wrong_is_said_in_one_run(self):
        with tempfile.TemporaryDirectory() as path:
            self.check(1, "no sources in it", "validate", path)
            with open(path + "/a.yaml", "w") as out:
                out.write("apiVersion: trilane.dev/v1\nkind: Service\n"
                          "metadata: {name: a, tenant: acme}\nspec: {prot: 1}\n")
            os.symlink("/etc/hostname", path + "/b.yaml")
            for command in (["validate"], ["plan"], ["publish", "-m", "m"]):
                done = run(*command, path, "--output", "json")
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("next: trilane-cp help TL1104", done.stderr)
                value = json.loads(done.stdout)
                self.assertEqual((value["code"], value["dropped"]), ("SOURCE_INVALID", 0))
                first, second = value["diagnostics"]
                self.assertEqual((first["code"], first["name"], first["file"], first["line"],
                                  first["column"]), ("TL1104", "KEY_UNKNOWN", "a.yaml", 4, 8))
                self.assertEqual((second["code"], second["file"]), ("TL1011", "b.yaml"))
                self.assertNotIn("line", second)

    def test_a_server_that_is_not_there(self):
        for url in ("http://127.0.0.1:1", "nonsense.invalid", "ftp://127.0.0.1", "https://127.0.0.1:1"):
            self.check(3, "%s: " % url, "status", "--server", url)

    def test_a_server_that_is_another(self):
        class Other(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"<html>")

            def log_message(self, *args):
                pass
        with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
            thread = threading.Thread(target=other.serve_forever)
            thread.start()
            url = "http://127.0.0.1:%d" % other.server_address[1]
            self.check(1, "no answer of trilane-cp's", "status", "--server", url)
            other.shutdown()
            thread.join()

    def test_serve_says_what_is_wrong(self):
        keys = self.p.keys
        good = {"environment": "demo", "trust-root": self.p.root, "data-dir": self.p.directory / "d",
                "key-manifest": keys / "manifest.key", "key-head": keys / "head.key",
                "listen": "127.0.0.1:%d" % free_port(), "nats-urls": "nats://127.0.0.1:1"}
        loose = self.p.directory / "loose.key"
        shutil.copy(keys / "head.key", loose)
        loose.chmod(0o644)
        (self.p.directory / "plain").write_text("text")
        wrong = self.p.directory / "wrong.db"
        wrong.write_text("this is no database, whatever it is" * 9)
        for code, said, changed in (
                (1, "Not a directory", {"data-dir": self.p.directory / "plain"}),
                (1, "No such file", {"data-dir": self.p.directory / "no" / "where"}),
                (1, "no such thing", {"key-head": "/nonexistent"}),
                (2, "another role", {"key-head": keys / "manifest.key"}),
                (2, "nobody else may read", {"key-head": loose}),
                (1, "does not parse", {"trust-root": self.p.directory / "plain"}),
                (2, 'of environment "demo"', {"environment": "other"}),
                (1, "cannot be opened", {"store": "sqlite:/nonexistent/x.db"}),
                (1, "not usable as a database", {"store": "sqlite:%s" % wrong}),
                (2, "expected sqlite:FILE", {"store": "mysql:x"}),
                (1, "expected ADDRESS:PORT", {"listen": "garbage"}),
                (2, "loopback", {"listen": "0.0.0.0:0"}),
                (2, "--tls-cert", {"listen-tls": "127.0.0.1:0"}),
                (2, "whole number of ms", {"lease-ms": "soon"})):
            with self.subTest(changed=changed):
                flags = ["--%s=%s" % item for item in {**good, **changed}.items()]
                done = run("serve", *flags)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(said, done.stderr)
                self.assertNotIn("event=leads", done.stderr, "it took the row and then ended")

    def test_a_password_on_the_command_line(self):
        """Whoever may run ps would read it: refused, with what to do instead; elsewhere it is fine."""
        keys, port = self.p.keys, free_port()  # where no database listens.
        serve = ["serve", "--environment=demo", "--data-dir=%s" % (self.p.directory / "ps"),
                 "--trust-root=%s" % self.p.root, "--key-manifest=%s" % (keys / "manifest.key"),
                 "--key-head=%s" % (keys / "head.key")]
        bare = "postgresql://u@127.0.0.1:%d/x" % port
        secret = "postgresql://u:swordfish@127.0.0.1:%d/x" % port
        for command in (serve, ["backup", self.p.directory / "file"],
                        ["restore", self.p.directory / "file"]):
            for url in (secret, bare + "?password=swordfish", bare + "?sslpassword=swordfish",
                        "postgresql://u:swordfish@h:port/x"):  # does not parse: might be one.
                with self.subTest(command=command[0], url=url):
                    done = run(*command, "--store", url)
                    self.assertEqual(done.returncode, 2, done.stderr)
                    self.assertIn("TRILANE_STORE", done.stderr)
                    self.assertIn(".pgpass", done.stderr)
                    self.assertNotIn("swordfish", done.stderr)
        config = self.p.directory / "store.yaml"
        config.write_text("store: %s\n" % secret)
        for flags, env in ((["--store", bare], {}), ([], {"TRILANE_STORE": secret}),
                           (["--config", config], {})):
            with self.subTest(flags=flags, env=env):
                done = run(*serve, *flags, env=env)
                self.assertEqual(done.returncode, 1, done.stderr)  # nobody listens there.
                self.assertNotIn(".pgpass", done.stderr)

    def test_a_token_that_others_may_read(self):
        data = self.p.directory / "open-token"
        data.mkdir()
        (data / "token").write_text("0" * 64)
        (data / "token").chmod(0o640)
        done = run("serve", "--environment=demo", "--trust-root=%s" % self.p.root,
                   "--data-dir=%s" % data, "--key-manifest=x", "--key-head=x")
        self.assertEqual(done.returncode, 2)
        self.assertIn("chmod 600", done.stderr)

    def test_a_directory_that_everybody_may_write_to(self):
        data = self.p.directory / "open-data"
        data.mkdir()
        data.chmod(0o777)
        done = run("serve", "--environment=demo", "--trust-root=%s" % self.p.root,
                   "--data-dir=%s" % data, "--key-manifest=x", "--key-head=x")
        self.assertEqual(done.returncode, 2)
        self.assertIn("chmod 700", done.stderr)
        self.assertEqual(list(data.iterdir()), [])

    def test_keys_are_not_overwritten(self):
        out = self.p.directory / "fresh"
        names = ("root.key", "root.pub")
        self.p.command("key", "generate", "--role", "root", "--out", out, "root")
        before = [(out / name).read_bytes() for name in names]
        self.assertEqual(stat.S_IMODE((out / "root.key").stat().st_mode), 0o600)
        self.check(1, "EXISTS", "key", "generate", "--role", "root", "--out", out, "root")
        self.assertEqual([(out / name).read_bytes() for name in names], before)
        self.check(2, "expected root, manifest", "key", "generate", "--role", "boss", "x")
        for name in ("../x", "", "A", "x" * 64):
            self.assertEqual(run("key", "generate", "--role", "root", "--out", out, name).returncode,
                             2, name)
        root = self.p.root.read_bytes()
        self.check(1, "EXISTS", "key", "root", "--environment", "demo", "--out", self.p.keys,
                   "--roots", self.p.keys / "root.key", "--manifests", self.p.keys / "manifest.pub",
                   "--heads", self.p.keys / "head.pub")
        self.assertEqual(self.p.root.read_bytes(), root)

    def test_the_next_root_keeps_its_root_keys(self):
        keys = self.p.keys
        out = self.p.directory / "next-root"
        out.mkdir()
        renew = ["key", "root", "--version", "2", "--environment", "demo", "--out", out,
                 "--manifests", keys / "manifest.pub", "--heads", keys / "head.pub"]
        self.p.command(*renew, "--roots", keys / "root.key", "--signers", keys / "root.key")
        self.assertEqual((out / "root.2").read_bytes()[7], 1, "one key, one signature")
        twice = "%s,%s" % (keys / "root.key", keys / "root.key")
        self.check(2, "root.key: expected a key that is not in this root yet", *renew, "--roots",
                   twice)
        self.check(2, "head.pub: expected a key that is not in this root yet", *renew, "--roots",
                   keys / "root.key", "--heads", "%s,%s" % (keys / "head.pub", keys / "head.pub"))

    def test_identities_are_not_overwritten(self):
        before = (self.p.identities / "ca.key").read_bytes()
        self.check(1, "EXISTS", "identity", "init", "--trust-domain", "a.b", "--out",
                   self.p.identities)
        self.assertEqual((self.p.identities / "ca.key").read_bytes(), before)
        self.p.issue_node("node-7")
        leaf = (self.p.identities / "node-node-7.pem").read_bytes()
        for name in ("node-node-7.key", "node-node-7.status.key"):
            mode = stat.S_IMODE((self.p.identities / name).stat().st_mode)
            self.assertEqual(mode, 0o600, name)
        enrolled = (self.p.node_keys / "node-7.pub").read_bytes()
        again = ["identity", "issue", "--ca", self.p.identities, "--node", "node-7", "--out",
                 self.p.identities, "--node-keys", self.p.node_keys]
        self.check(1, "EXISTS", *again)
        self.assertEqual((self.p.identities / "node-node-7.pem").read_bytes(), leaf)
        self.assertEqual((self.p.node_keys / "node-7.pub").read_bytes(), enrolled)
        for name in ("../node", "a/b", "", "UPPER"):
            done = run("identity", "issue", "--ca", self.p.identities, "--node", name, "--out",
                       self.p.directory / "elsewhere")
            self.assertNotEqual(done.returncode, 0, name)
        self.assertFalse((self.p.directory / "elsewhere").exists()
                         and os.listdir(self.p.directory / "elsewhere"))

    def test_every_output_says_the_same(self):
        table = run("help", "POLICY_DENIED")
        as_json = json.loads(run("help", "POLICY_DENIED", "--output", "json").stdout)
        as_yaml = run("help", "POLICY_DENIED", "--output", "yaml").stdout
        for value in (as_json["message"], as_json["fix"]):
            self.assertIn(value, table.stdout)
            self.assertIn(value, as_yaml)


class Online(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.sources = cls.p.policies
        shutil.copytree(trilane.POLICIES, cls.sources)
        cls.cp = cls.p.control_plane().start(head_interval_ms=200)
        wait_until(cls.cp.leads, 60, "a leader")

    def newest(self):
        return self.cp.json("history")["versions"][0]["version"]

    def test_1_before_the_first_publication(self):
        self.assertIn("nothing was published yet", self.cp("history"))
        self.assertIn("next: trilane-cp publish", self.cp.run("status").stderr)
        empty = self.p.directory / "empty"
        empty.mkdir()
        done = self.cp.run("publish", "-m", "m", empty)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no sources in it", done.stderr)
        done = self.cp.run("publish", "-m", "m", self.p.directory / "nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("No such file", done.stderr)

    def test_2_a_plan_ends_in_the_command_that_does_it(self):
        done = self.cp.run("plan", self.sources)
        self.assertIn("would reach 0 live nodes", done.stdout)
        line = next(l for l in done.stderr.splitlines() if l.startswith("next: trilane-cp publish"))
        words = line.split()[2:]
        words[words.index("MESSAGE")] = "pasted"
        pasted = run(*words)
        self.assertEqual(pasted.returncode, 0, pasted.stderr)
        self.assertIn("published version 1", pasted.stdout)
        self.assertIn("no node is live", pasted.stderr)
        again = run(*words)
        self.assertEqual(again.returncode, 1)
        self.assertIn("BASE_CHANGED", again.stderr)

    def test_3_nothing_changed(self):
        before = self.newest()
        self.assertIn("no differences", self.cp("plan", self.sources))
        done = self.cp.run("publish", "-m", "the same", self.sources)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("nothing changed: version %d" % before, done.stdout)
        self.assertEqual(self.newest(), before)
        self.assertIn("published version", self.cp("publish", "--again", "-m", "m", self.sources))
        self.assertEqual(self.newest(), before + 1)

    def test_4_moved_lines_are_published(self):
        """The content is the same; explanations name the new lines."""
        path = next(iter(sorted(self.sources.rglob("*.yaml"))))
        path.write_text("# one line more\n" + path.read_text())
        before = self.newest()
        self.assertIn("only the lines moved", self.cp("plan", self.sources))
        self.cp("plan", "--exit-code", self.sources)
        self.assertIn("published version", self.cp("publish", "-m", "moved", self.sources))
        self.assertEqual(self.newest(), before + 1)

    def test_5_output(self):
        for command in (["status"], ["history"], ["diff", "1", "2"], ["plan", self.sources],
                        ["wait", "1"], ["publish", "-m", "m", self.sources],
                        ["validate", self.sources]):
            done = self.cp.run(*command, "--output", "json")
            self.assertEqual(done.returncode, 0, done.stderr)
            value = json.loads(done.stdout)
            done = self.cp.run(*command, "--output", "yaml")
            for name in value:
                self.assertRegex(done.stdout, r"(?m)^%s:" % re.escape(name), command)
        done = self.cp.run("diff", "1", "77", "--output", "json")
        self.assertEqual(json.loads(done.stdout)["code"], "NEVER_PUBLISHED")
        self.assertIn("version 77", done.stderr)

    def test_6_the_wrong_token(self):
        other = self.p.directory / "other-token"
        other.write_text("1" * 64)
        for path, said in ((other, "does not take the token of %s" % other),
                           (pathlib.Path("/nonexistent"), "cannot be read from /nonexistent")):
            done = run("publish", "-m", "m", "--server", self.cp.url, "--token-file", path,
                       self.sources)
            self.assertEqual(done.returncode, 1)
            self.assertIn(said, done.stderr)

    def test_7_two_at_once(self):
        """One after the other, each with a number of its own; with a base, one of them is late."""
        base = self.newest()
        argv = [CP, "publish", "--server", self.cp.url, "--token-file", str(self.cp.data / "token"),
                "--again", "-m", "race", str(self.sources)]
        racers = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                  for _ in range(4)]
        self.assertEqual([racer.communicate(timeout=120) and racer.returncode for racer in racers],
                         [0] * 4)
        self.assertEqual(self.newest(), base + 4)
        argv[2:2] = ["--base", str(base + 4)]
        racers = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                  for _ in range(4)]
        said = [racer.communicate(timeout=120)[1] for racer in racers]
        self.assertEqual(sorted(racer.returncode for racer in racers), [0, 1, 1, 1])
        self.assertEqual(sum("BASE_CHANGED" in text for text in said), 3)
        self.assertEqual(self.newest(), base + 5)

    def test_8_unhealthy(self):
        wait_until(lambda: self.cp.run("status", "--exit-code").returncode == 0, 60, "exit code 0")
        self.p.nats.kill()
        wait_until(lambda: self.cp.run("status", "--exit-code").returncode == 10, 60, "exit code 10")
        wait_until(lambda: "NO HEAD GOES OUT" in self.cp.run("status").stdout, 60, "it to be said")
        done = self.cp.run("status")
        self.assertEqual(done.returncode, 0)
        self.assertIn("next: trilane-cp help BUS_UNAVAILABLE", done.stderr)
        self.cp("publish", "--again", "-m", "m", self.sources, code=3)


class Lost(unittest.TestCase):
    """A control plane that begins anew, below what its nodes serve."""

    def test_nodes_that_are_ahead_do_not_run_what_is_published(self):
        p = Platform()
        self.addCleanup(p.close)
        cp = p.control_plane().start(head_interval_ms=200)
        wait_until(cp.leads, 60, "a leader")
        node = p.node("node-1").start(good_after_ms=100, status_interval_ms=300)
        for turn in ("one", "two"):
            cp("publish", "--again", "-m", turn, trilane.POLICIES)
        cp.stop()
        for path in list(cp.data.glob("store.db*")) + [cp.data / "signer.state"]:
            path.unlink()
        with NatsClient(p.nats) as nats:
            nats.destroy("trilane_demo_snapshots")
        cp.start(head_interval_ms=200)
        wait_until(cp.leads, 60, "a leader")
        wait_until(lambda: [n for n in cp.json("status")["nodes"] if n["live"]], 60, "its status")
        done = cp.run("publish", "--timeout", "20", "-m", "again one", trilane.POLICIES)
        self.assertEqual(done.returncode, 4, done.stdout + done.stderr)
        self.assertIn("node-1: REFUSED SNAPSHOT_REPLAYED", done.stderr)
        self.assertEqual(node.version(), 2)


if __name__ == "__main__":
    unittest.main()
