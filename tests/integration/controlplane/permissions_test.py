"""The NATS users of docs/own-platform.md, with the very configuration that stands there: what the
control plane and a node need works, and nothing else is let through."""

import json
import re
import unittest

import trilane
from trilane import Nats, NatsClient, Platform, wait_until

ENVIRONMENT = "shop-prod"
SNAPSHOTS = "trilane_%s_snapshots" % ENVIRONMENT
STATUSES = "trilane_%s_nodes" % ENVIRONMENT
DIGEST = "ab" * 32


def documented():
    """The indented block of the page's section on NATS."""
    page = (trilane.SOURCE / "docs" / "own-platform.md").read_text()
    section = re.search(r"^## 3\. NATS.*?(?=^## )", page, re.M | re.S).group()
    block = re.search(r'^    listen: .*?^    }$', section, re.M | re.S).group()
    return re.sub("^    ", "", block, flags=re.M)


class DocumentedNats(Nats):
    """As the page has it, on a free port, with one user more to look at what became of it."""

    def add_node(self, node_id):
        assert "user: %s," % node_id in documented()

    def _configure(self):
        text = documented().replace("127.0.0.1:4222", "127.0.0.1:%d" % self.port)
        text = text.replace('"jetstream"', json.dumps(str(self.directory / "jetstream")))
        admin = "users: [\n    { user: admin, password: admin-secret }"
        self.configuration.write_text(text.replace("users: [", admin))


def everything_of(stream):
    """Each way to change a stream, or to look at it other than by key."""
    return ["$JS.API.STREAM.%s.%s" % (verb, stream) for verb in (
        "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN")]


class Permissions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform(environment=ENVIRONMENT, nats=False)
        cls.addClassCleanup(cls.p.close)
        cls.p.nats = DocumentedNats(cls.p.directory / "documented", environment=ENVIRONMENT)
        cls.p.programs.append(cls.p.nats)
        cls.p.nats.start()
        cls.cp = cls.p.control_plane().start(head_interval_ms=200)
        wait_until(cls.cp.leads, 60, "a leader")
        cls.nodes = [cls.p.node("node-%d" % i).start(good_after_ms=100, status_interval_ms=300,
                                                     poll_interval_ms=200) for i in (1, 2)]
        cls.sources = cls.p.write_policies({"shop.yaml": """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: %s}
spec: {security: dev, trustDomain: trilane.test}
""" % ENVIRONMENT})
        cls.cp("publish", "-m", "first", cls.sources)

    def stored(self):
        """What lies in the snapshot bucket: its stream's age and its keys, but what heads move."""
        with NatsClient(self.p.nats) as admin:
            info = json.loads(admin.request(
                "$JS.API.STREAM.INFO.KV_" + SNAPSHOTS,
                json.dumps({"subjects_filter": "$KV.%s.>" % SNAPSHOTS}).encode()))
            keys = [s.split(".", 2)[2] for s in info["state"]["subjects"]]
            self.assertGreater(len(keys), 3)
            values = {key: admin.get(SNAPSHOTS, key) for key in keys if key != "head"}
        return info["created"], info["config"], values

    def assert_refused(self, user, publishes, subscribes):
        """Each of them is answered with a permissions violation that names it."""
        with NatsClient(self.p.nats, user) as client:
            for subject in publishes:
                with self.subTest(user=user, publish=subject):
                    client.errors.clear()
                    client.publish(subject, b"forged")
                    self.assertEqual(client.errors, [
                        "-ERR 'Permissions Violation for Publish to \"%s\"'" % subject])
            for subject in subscribes:
                with self.subTest(user=user, subscribe=subject):
                    client.errors.clear()
                    client.subscribe(subject)
                    self.assertEqual(client.errors, [
                        "-ERR 'Permissions Violation for Subscription to \"%s\"'" % subject])

    def test_a_node_cannot_write_what_nodes_follow(self):
        before = self.stored()
        keys = ("head", "manifest.1." + DIGEST, "chunk." + DIGEST, "root.1", "root.2", "any")
        publishes = ["$KV.%s.%s" % (SNAPSHOTS, key) for key in keys]
        publishes += ["trilane.%s.head" % ENVIRONMENT, "trilane.%s.content" % ENVIRONMENT,
                      "trilane.%s.shares.node-1" % ENVIRONMENT,
                      "$JS.API.STREAM.CREATE.KV_" + SNAPSHOTS]
        publishes += everything_of("KV_" + SNAPSHOTS)
        publishes += ["$JS.API.CONSUMER.CREATE.KV_" + SNAPSHOTS,
                      "$JS.API.CONSUMER.DURABLE.CREATE.KV_%s.x" % SNAPSHOTS]
        self.assert_refused("node-1", publishes, ["$KV.%s.>" % SNAPSHOTS, ">"])
        self.assertEqual(self.stored(), before)
        for node in self.nodes:
            self.assertEqual(node.dump()["snapshot"]["refusals"], 0)

    def test_a_node_is_nobody_but_itself(self):
        publishes = ["$KV.%s.node-2" % STATUSES, "$KV.%s.node-1.x" % STATUSES,
                     "trilane.%s.demand.node-2" % ENVIRONMENT,
                     "$JS.API.STREAM.CREATE.KV_" + STATUSES, "_INBOX.node-2.x",
                     "_INBOX.trilane-cp.x"]
        publishes += everything_of("KV_" + STATUSES) + everything_of("TRILANE_EVENTS")
        publishes += everything_of("TRILANE_QUARANTINE") + ["$JS.API.STREAM.CREATE.OTHER"]
        subscribes = ["_INBOX.>", "_INBOX.node-2.>", "_INBOX.trilane-cp.>", "$KV.%s.>" % STATUSES,
                      "trilane.%s.event.>" % ENVIRONMENT, "$JS.API.>"]
        self.assert_refused("node-1", publishes, subscribes)
        for node in self.cp.json("status")["nodes"]:
            self.assertTrue(node["verified"], node)

    def test_the_control_plane_only_publishes_snapshots(self):
        publishes = ["$KV.%s.node-1" % STATUSES, "trilane.%s.event.0.shop.A.v1" % ENVIRONMENT,
                     "$JS.API.STREAM.CREATE.TRILANE_EVENTS", "_INBOX.node-1.x"]
        publishes += [s for stream in ("KV_" + SNAPSHOTS, "KV_" + STATUSES)
                      for s in everything_of(stream) if s not in (
                          "$JS.API.STREAM.UPDATE." + stream, "$JS.API.STREAM.PURGE.KV_" + SNAPSHOTS)]
        publishes += ["$JS.API.CONSUMER.CREATE.KV_%s.x.y" % STATUSES,
                      "$JS.API.CONSUMER.DURABLE.CREATE.KV_%s.x" % SNAPSHOTS]
        self.assert_refused("cp", publishes, [">", "_INBOX.>", "trilane.>"])

    def test_what_they_need_works(self):
        """Hints, polls, chunks, roots and statuses; streams of events are made by a node. That the
        canonical lane lacks nothing is shown by its own tests, whose nodes have the same lists."""
        self.cp("publish", "--again", "-m", "again", self.sources)  # ends when both run it.
        self.assertEqual([n.version() for n in self.nodes], [2, 2])
        wait_until(lambda: {n["state"] for n in self.cp.json("status")["nodes"]} == {"GOOD"},
                   what="both to say that it is good")
        with NatsClient(self.p.nats) as admin:
            for stream in ("TRILANE_EVENTS", "TRILANE_QUARANTINE"):
                wait_until(lambda s=stream: "error" not in json.loads(
                    admin.request("$JS.API.STREAM.INFO." + s)), what=stream)
        for node in self.nodes:
            self.assertEqual(node.dump()["bus"]["last_error"], "")
        self.assertEqual(self.cp.api("GET", "/api/v1/status")[1]["bus"]["last_error"], "")

    def test_other_tests_run_with_these_lists(self):
        lists = {"cp": trilane.control_plane_permissions(ENVIRONMENT)}
        lists.update({n: trilane.node_permissions(ENVIRONMENT, n) for n in ("node-1", "node-2")})
        users = re.split(r"\{ user: ([a-z0-9-]+),", documented())[1:]
        self.assertEqual(users[::2], sorted(lists))
        for user, text in zip(users[::2], users[1::2]):
            subjects = [s for kind in lists[user].values() for s in kind["allow"]]
            self.assertEqual(re.findall('"([^"]+)"', text), subjects, user)


API = "trilane.%s.js" % ENVIRONMENT


class TwoAccounts(Nats):
    """As the page has it: the control plane's account and the nodes'."""

    def _configure(self):
        page = (trilane.SOURCE / "docs" / "own-platform.md").read_text()
        text = re.sub("^    ", "", re.search(r"^    accounts: .*?^    }$", page,
                                             re.M | re.S).group(), flags=re.M)
        cp = [{"user": "admin"},
              {"user": "cp", "permissions": trilane.control_plane_permissions(ENVIRONMENT)}]
        nodes = [{"user": "events"}]  # may do everything in the nodes' account.
        nodes += [{"user": node, "permissions": trilane.node_permissions(ENVIRONMENT, node, API)}
                  for node in ("node-1", "node-2")]
        for user in cp + nodes:
            user["password"] = user["user"] + "-secret"
        text = text.replace("users: [ ] # cp", "users: " + json.dumps(cp))
        text = text.replace("users: [ ] # node-1, node-2", "users: " + json.dumps(nodes))
        self.configuration.write_text('listen: "127.0.0.1:%d"\njetstream: { store_dir: "%s" }\n%s\n'
                                      % (self.port, self.directory / "jetstream", text))

    def add_node(self, node_id):
        assert node_id in ("node-1", "node-2")


class Accounts(unittest.TestCase):
    def setUp(self):
        self.p = Platform(environment=ENVIRONMENT, nats=False)
        self.addCleanup(self.p.close)
        self.p.nats = TwoAccounts(self.p.directory / "accounts", environment=ENVIRONMENT)
        self.p.programs.append(self.p.nats)
        self.p.nats.start()
        self.cp = self.p.control_plane().start(head_interval_ms=200)
        wait_until(self.cp.leads, 60, "a leader")
        self.nodes = [self.p.node("node-%d" % i, nats_bucket_api=API).start(
            good_after_ms=100, status_interval_ms=300, poll_interval_ms=200) for i in (1, 2)]
        self.sources = self.p.write_policies({"shop.yaml": """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: %s}
spec: {security: dev, trustDomain: trilane.test}
""" % ENVIRONMENT})
        self.cp("publish", "-m", "first", self.sources)

    def test_what_they_need_works(self):
        self.cp("publish", "--again", "-m", "again", self.sources)  # ends when both run it.
        self.assertEqual([n.version() for n in self.nodes], [2, 2])
        wait_until(lambda: {n["state"] for n in self.cp.json("status")["nodes"]} == {"GOOD"}, 60,
                   "both to say that it is good")
        for node in self.nodes:
            text = trilane.http("GET", node.admin + "/metrics")[2].decode()
            self.assertRegex(text, r'trilane_heads_total{way="hint"} [1-9]')
            self.assertEqual(node.dump()["bus"]["last_error"], "")
        with NatsClient(self.p.nats, "events") as nodes, NatsClient(self.p.nats) as control:
            for stream in ("TRILANE_EVENTS", "TRILANE_QUARANTINE"):
                wait_until(lambda s=stream: "error" not in json.loads(
                    nodes.request("$JS.API.STREAM.INFO." + s)), what=stream)
                self.assertIn("error", json.loads(control.request("$JS.API.STREAM.INFO." + stream)))
        self.assertEqual(self.cp.api("GET", "/api/v1/status")[1]["bus"]["last_error"], "")

    def test_an_answer_of_jetstream_lands_nowhere(self):
        """What one account's lists of permissions cannot prevent."""
        record = self.cp.json("history")["versions"][0]
        manifest = "manifest.%d.%s" % (record["version"], record["manifest_digest"])
        with NatsClient(self.p.nats) as admin:
            before = admin.get(SNAPSHOTS, manifest)
            with NatsClient(self.p.nats, "node-1") as node:
                for asked in (API + ".STREAM.INFO.KV_" + SNAPSHOTS, "$JS.API.STREAM.INFO.TRILANE_EVENTS",
                              API + ".STREAM.MSG.GET.KV_" + SNAPSHOTS):
                    for target in ("$KV.%s.%s" % (SNAPSHOTS, manifest), "$KV.%s.head" % SNAPSHOTS,
                                   "$KV.%s.new" % SNAPSHOTS, "$KV.%s.node-2" % STATUSES):
                        node.errors.clear()
                        node.ask_for_others(asked, target)
                        self.assertEqual(node.errors, [])
            self.cp("publish", "--again", "-m", "after", self.sources)
            self.assertEqual(admin.get(SNAPSHOTS, manifest), before)
            self.assertIsNone(admin.get(SNAPSHOTS, "new"))
        text = trilane.http("GET", self.cp.url + "/metrics")[2].decode()
        self.assertIn('trilane_heads_total{event="malformed"} 0\n', text)
        self.assertEqual(self.cp.metric("trilane_statuses_unverified_total"), 0)


if __name__ == "__main__":
    unittest.main()
