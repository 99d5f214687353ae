"""No room: PostgreSQL's disk is full, JetStream's store is full. Publishing says so, heads and traffic
go on; with room again publishing goes on without a restart, and nothing is lost or there twice. Where
PostgreSQL's log of transactions finds no room it ends itself, in the midst of publications."""

import json
import secrets
import signal
import threading
import unittest

from postgres import SmallLogPostgres, SmallPostgres
from trilane import POLICIES, Nats, NatsClient, http, skip, wait_until
from trio import Trio

DISK_MIB = 104    # PostgreSQL as it is made, its log of transactions, and 25 MiB.
LOG_MIB = 40      # its log as it is made, and one more file of it.
BUCKET_MIB = 16   # the least that a snapshot bucket may have.
ACCOUNT_MIB = 96  # both buckets, 64 MiB for statuses among them, and a little;
OTHERS_MIB = 8    # of which another stream has so much.


class SmallDisk(Trio):
    def make_postgres(self, port):
        return SmallPostgres(DISK_MIB, port=port)


class SmallLog(Trio):
    def make_postgres(self, port):
        return SmallLogPostgres(LOG_MIB, port=port)


class LimitedNats(Nats):
    """Its users are of one account, whose streams may take so much and no more."""

    account_mib = ACCOUNT_MIB

    def limit(self, mib):
        """Also while it runs."""
        self.account_mib = mib
        self._configure()
        reloads = self.log().count("Reloaded server configuration")
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.log().count("Reloaded server configuration") > reloads, 60, "it")

    def _configure(self):
        super()._configure()
        text = self.configuration.read_text()
        head, users = text.split("authorization: { users: ")
        self.configuration.write_text(
            "%s\naccounts: { shop: { jetstream: { max_file: %dMB }, users: %s }"
            % (head, self.account_mib, users))


class SmallStore(Trio):
    def make_nats(self, environment):
        return LimitedNats(self.directory / "nats", environment=environment)


class Full(unittest.TestCase):
    def start(self, platform):
        self.t = platform
        self.addCleanup(self.t.close)
        self.t.start()
        self.node = self.t.node("node-1").start(good_after_ms=100, status_interval_ms=300,
                                                poll_interval_ms=300, stale_after_ms=4000)
        self.publish("first")

    def sources(self, kib):
        """The sample's, and so many KiB that no compression makes smaller."""
        files = {str(path.relative_to(POLICIES)): path.read_bytes()
                 for path in POLICIES.rglob("*") if path.is_file()}
        noise = ("# %s\n" % secrets.token_hex(500) for _ in range(kib))
        return self.t.write_policies(dict(files, **{"platform/noise.yaml": "".join(noise)}))

    def publish(self, message):
        version = self.t.publish(message)
        wait_until(lambda: self.node.version() == version, 60, "the node at version %d" % version)
        return version

    def heads_go_on(self):
        """For longer than it takes a node to be stale, or a row that is not renewed to run out."""
        before = self.node.dump()["snapshot"]["sequence"]
        wait_until(lambda: self.node.dump()["snapshot"]["sequence"] > before + 25, 60, "heads")
        self.assertEqual(http("GET", self.node.admin + "/ready")[0], 200)
        self.assertNotIn("STALE", self.node.log())

    def messages(self):
        """Of the history, oldest first; each number is there once."""
        versions = self.t.history()
        numbers = [v["version"] for v in versions]
        self.assertEqual(numbers, sorted(set(numbers), reverse=True))
        return [v["message"] for v in reversed(versions)]

    def refused(self, code, text):
        done = self.t.command_anywhere("publish", "--again", "--wait", "no", "-m", "no room",
                                       self.sources(512))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("error: %s: " % code, done.stderr)
        self.assertRegex(done.stderr, text)
        self.heads_go_on()
        self.assertEqual(self.messages(), ["first"])

    def goes_on(self, leader):
        self.publish("with room again")
        self.assertEqual(self.messages(), ["first", "with room again"])
        self.assertIs(self.t.wait_leader(), leader)

    def test_the_disk_of_postgresql_is_full(self):
        platform = SmallDisk(cluster=False, head_interval_ms=200, lease_ms=4000)
        if not platform.postgres.can_start():
            platform.close()
            skip("this machine allows no user namespaces, in which a disk is small", self)
        self.start(platform)
        leader = self.t.wait_leader()
        self.t.postgres.fill()
        self.refused("STORE_FULL", "the database's disk is full")
        self.t.postgres.make_room()
        self.goes_on(leader)

    def command(self, message):
        return self.t.command_anywhere("publish", "--again", "--wait", "no", "-m", message, POLICIES)

    def test_the_disk_of_postgresqls_log_is_full(self):
        platform = SmallLog(cluster=False, head_interval_ms=200, forward_wait_ms=2000)
        if not platform.postgres.can_start():
            platform.close()
            skip("this machine allows no user namespaces, in which a disk is small", self)
        self.start(platform)
        answered, refused = ["first"], []

        def publish_on():
            while not refused:
                message = "number %d" % len(answered)
                done = self.command(message)
                if done.returncode:
                    refused.append(done.stderr)
                else:
                    answered.append(message)
        sender = threading.Thread(target=publish_on)
        sender.start()
        self.t.postgres.fill()
        sender.join(60)
        self.assertRegex(refused[0], "error: (UNAVAILABLE|RESULT_UNKNOWN|STORE_FULL): ")
        wait_until(lambda: "error: UNAVAILABLE: this replica does not lead: the database does not"
                           " answer" in self.command("without a database").stderr, 20, "the reason")
        wait_until(lambda: "NO HEAD GOES OUT: UNAVAILABLE: the database does not answer" in
                   self.t.replicas[0].run("status").stdout, 20, "the status to say so, too")
        self.assertIn(self.node.version(), range(1, len(answered) + 2))
        self.t.postgres.make_room()
        self.t.postgres.start()
        self.publish("with room again")
        last = ["number %d" % len(answered)]  # the one without an answer is there, or is not.
        self.assertIn(self.messages(), [answered + more + ["with room again"]
                                        for more in ([], last)])

    def use_account(self):
        """Somebody else's stream of the same account."""
        with NatsClient(self.t.nats) as admin:
            made = json.loads(admin.request("$JS.API.STREAM.CREATE.OTHERS", json.dumps(
                {"name": "OTHERS", "subjects": ["others"], "storage": "file"}).encode()))
            self.assertNotIn("error", made)
            for _ in range(2 * OTHERS_MIB):
                self.assertNotIn("error", json.loads(admin.request("others", b"x" * (1 << 19))))

    def test_the_store_of_jetstream_is_full(self):
        self.start(SmallStore(cluster=False, head_interval_ms=200, lease_ms=4000,
                              bucket_bytes=BUCKET_MIB << 20))
        leader = self.t.wait_leader()
        self.use_account()
        self.t.nats.limit(OTHERS_MIB)
        self.refused("BUS_LIMIT", "NATS said last: KV_trilane_demo_snapshots: resource limits"
                                  " exceeded for account")
        for told in ("NO HEAD GOES OUT: BUS_LIMIT: ",
                     "NATS SAID LAST: KV_trilane_demo_snapshots: "):
            wait_until(lambda t=told: t in leader.run("status").stdout, 60, told)
        self.t.nats.limit(ACCOUNT_MIB)
        wait_until(leader.leads, 60, "heads to rest in the bucket again")
        self.goes_on(leader)


if __name__ == "__main__":
    unittest.main()
