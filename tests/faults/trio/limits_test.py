"""What NATS does not let a control plane or a node do: limits of its server and account, and subjects
that a user's list lacks. Each is named in one sentence, soon, and nothing hangs."""

import contextlib
import json
import re
import signal
import socket
import threading
import time
import unittest

import trilane
from trilane import Nats, NatsClient, Platform, wait_until

REFUSED_S = 20.0  # several waits for an answer; a leader that hears nothing gives up the row first.


class StrictNats(Nats):
    """Its users are of one account; 'server' and 'account' are lines of its configuration; 'lacks' is
    taken out of everybody's list."""

    def __init__(self, directory, server="", account="enabled", lacks=None):
        self.server, self.account, self.lacks = server, account, lacks
        super().__init__(directory)

    def _configure(self):
        super()._configure()
        head, users = self.configuration.read_text().split("authorization: { users: ")
        if self.lacks is not None:
            listed = json.dumps(self.lacks)
            users = users.replace(listed + ",", "").replace(", " + listed, "")
        if "max_payload" in self.server:
            head = head.replace("max_payload: 1048576", "")
        self.configuration.write_text("%s\n%s\naccounts: { shop: { jetstream: %s, users: %s }"
                                      % (head, self.server, self.account, users))


class Limits(unittest.TestCase):
    def start(self, **limits):
        self.p = Platform(nats=False)
        self.addCleanup(self.p.close)
        self.p.programs.remove(self.p.nats)
        self.p.nats = StrictNats(self.p.directory / "strict", **limits)
        self.p.programs.insert(0, self.p.nats)
        self.p.nats.start()
        self.cp = self.p.control_plane()

    def refused(self, code, text, lease_ms=20000):
        """'lease_ms': short where NATS lets nobody in, since the row is given up first; else long: a
        busy machine is not taken for a NATS that says nothing."""
        self.cp.start(head_interval_ms=200, forward_wait_ms=500, lease_ms=lease_ms,
                      fetch_timeout_ms=1500)
        wait_until(self.has_looked, 60, "the first beat")
        began = time.monotonic()
        done = self.cp.run("publish", "-m", "one", trilane.POLICIES)
        self.assertLess(time.monotonic() - began, REFUSED_S)
        self.assertIn(done.returncode, (1, 3), done.stderr)
        self.assertRegex(done.stderr, "^error: (%s): " % code)
        self.assertRegex(done.stderr, text)

    def has_looked(self):
        """Whether it led, and was let in by NATS or told why not."""
        told = self.cp.told()
        heard = told["bus"]["state"] == "connected" or told["bus"]["last_error"]
        return told["leader"]["code"] != "NOT_LEADER" and heard

    def is_told(self, text):
        wait_until(lambda: "NATS SAID LAST: " in self.cp("status") and
                   text in self.cp("status"), 60, "the status to say so")

    def test_the_number_of_streams(self):
        self.start(account="{ max_streams: 1 }")
        # Somebody's stream is the one.
        with NatsClient(self.p.nats) as admin:
            admin.request("$JS.API.STREAM.CREATE.OTHERS",
                          b'{"name":"OTHERS","subjects":["others"]}')
            self.refused("BUS_LIMIT", r"\$JS.API: maximum number of streams reached")
            self.is_told("$JS.API: maximum number of streams reached")
            # Nothing is said at each beat.
            self.assertLess(self.cp.log().count("restore_failed"), 3)
            admin.request("$JS.API.STREAM.DELETE.OTHERS")

    def test_the_storage_of_the_account(self):
        self.start(account="{ max_file: 1MB }")
        self.refused("BUS_LIMIT", r"\$JS.API: insufficient storage resources available")

    def test_an_account_without_jetstream(self):
        self.start(account="disabled")
        self.refused("BUS_LIMIT|UNAVAILABLE", r"\$JS.API: JetStream not enabled for account")

    def test_a_payload_below_a_manifest(self):
        self.start(server="max_payload: 640")
        self.refused("BUS_LIMIT", " are more than NATS' max_payload, 640")

    def payload(self, before, after):
        nats = self.p.nats
        text = nats.configuration.read_text()
        self.assertIn("max_payload: %d\n" % before, text)
        nats.configuration.write_text(text.replace("max_payload: %d\n" % before,
                                                   "max_payload: %d\n" % after))

    def test_a_payload_that_is_lowered_while_it_runs(self):
        self.start()
        self.cp.start(head_interval_ms=200, lease_ms=20000)
        wait_until(self.cp.leads, 60, "a leader")
        self.cp("publish", "-m", "one", trilane.POLICIES)
        self.payload(1048576, 640)
        self.p.nats.signal(signal.SIGHUP)
        wait_until(lambda: "Reloaded: max_payload = 640" in self.p.nats.log(), 60, "the reload")

        def is_named():
            """The first one may end with the connection that it breaks."""
            done = self.cp.run("publish", "--again", "-m", "two", trilane.POLICIES)
            self.assertNotEqual(done.returncode, 0)
            return done.stderr.startswith("error: BUS_LIMIT: ") and "max_payload, 640" in done.stderr
        wait_until(is_named, 60, "the limit to be named")
        put = self.heads()
        wait_until(lambda: self.heads() > put, 60, "heads to go on")
        # NATS tells a bound at a connect alone.
        self.p.nats.stop()
        self.payload(640, 1048576)
        self.p.nats.start()
        wait_until(lambda: self.cp.run("publish", "--again", "-m", "three",
                                       trilane.POLICIES).returncode == 0, 60, "room again")

    def heads(self):
        """That KV took."""
        text = trilane.http("GET", self.cp.url + "/metrics")[2].decode()
        return int(re.search(r'^trilane_heads_total\{event="put"\} (\d+)', text, re.M)[1])

    def test_the_number_of_subscriptions(self):
        self.start(server="max_subscriptions: 2")
        self.refused("BUS_UNAVAILABLE", "maximum subscriptions exceeded", lease_ms=3000)

    def test_the_number_of_connections(self):
        self.start(server="max_connections: 1")
        with wait_until(lambda: NatsClient(self.p.nats), 60, "the one that looked at it to leave"):
            # A reset may come before the server's words are read.
            self.refused("BUS_UNAVAILABLE", "maximum connections exceeded|ended the connection"
                                            " before it let us in: a limit of connections",
                         lease_ms=3000)
        wait_until(self.cp.leads, 60, "it to be let in")
        self.cp("publish", "-m", "one", trilane.POLICIES)

    def test_a_subject_that_the_list_lacks(self):
        subject = "$JS.API.STREAM.CREATE.KV_trilane_demo_snapshots"
        self.start(lacks=subject)
        self.refused("BUS_FORBIDDEN",
                     'Permissions Violation for Publish to "%s"' % re.escape(subject))

    def test_words_that_are_no_text(self):
        """A server that nobody vouches for: what it says is shown, and nothing else comes of it."""
        self.p = Platform(nats=False)
        self.addCleanup(self.p.close)
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def refuse():
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return  # the end.
                with client, contextlib.suppress(OSError):
                    client.sendall(b'INFO {"version":"2.9.10","max_payload":1024}\r\n')
                    client.recv(4096)
                    client.sendall(b"-ERR 'wrong \x1b[31m \xff exceeded'\r\n")
                    client.recv(4096)
        threading.Thread(target=refuse, daemon=True).start()
        self.cp = self.p.control_plane(
            nats_urls="nats://127.0.0.1:%d" % server.getsockname()[1])
        self.cp.start()
        def said():
            text = self.cp.told()["bus"]["last_error"]
            return text if "exceeded" in text else None
        words = wait_until(said, 60, "its words")
        self.assertEqual(words.count("wrong ?[31m ? exceeded"), 1, words)


if __name__ == "__main__":
    unittest.main()
