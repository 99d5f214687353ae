"""Joining: a token lets one node in, once, on whichever replica; what the node then is stands in its
certificate; removal puts it out again. With real control planes, nodes and NATS."""

import json
import os
import pathlib
import socket
import sqlite3
import ssl
import stat
import threading
import time
import unittest

import trilane
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from joiner import Joiner
from joining import JoinedNode, join, post, token
from trilane import NatsClient, Platform, free_port, wait_until

SOURCES = {"shop.yaml": """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: demo}
spec: {security: dev, trustDomain: trilane.test}
"""}
QUICK = {"head_interval_ms": 200, "good_after_ms": 100}
NODE = {"status_interval_ms": 300, "poll_interval_ms": 200, "good_after_ms": 100}


def certificate(node):
    return x509.load_pem_x509_certificate((node.identity / "cert.pem").read_bytes())


def fields(body):
    """The fields of a protobuf message: (number, number or bytes)."""
    def varint(at):
        number = shift = 0
        while body[at] & 0x80:
            number |= (body[at] & 0x7f) << shift
            at, shift = at + 1, shift + 7
        return number | body[at] << shift, at + 1
    at = 0
    while at < len(body):
        tag, at = varint(at)
        value, at = varint(at)
        if tag & 7 == 2:
            value, at = body[at:at + value], at + value
        yield tag >> 3, value


def found_in_memory(pid, wanted):
    """Names of those of 'wanted' whose bytes are in what a process has written to."""
    found = set()
    with open("/proc/%d/maps" % pid, encoding="ascii") as maps, \
            open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1][:2] != "rw" or last - first > 256 << 20:  # a sanitizer's shadow.
                continue
            try:
                memory.seek(first)
                content = memory.read(last - first)
            except (OSError, OverflowError, ValueError):
                continue
            found |= {name for name, text in wanted.items() if text in content}
    return found


class Joining(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        quick = {"head_interval_ms": 200, "joins_per_second": 1000}  # none is one too many.
        cls.cp = cls.p.control_plane(ca=cls.p.identities).start(**quick)
        cls.other = cls.p.control_plane("cp-2", ca=cls.p.identities, token_file=cls.cp.token_path,
                                        store="sqlite:%s" % (cls.cp.data / "store.db"))
        cls.other.start(**quick)
        wait_until(lambda: cls.cp.leads() or cls.other.leads(), 60, "a leader")
        cls.leader = cls.cp if cls.cp.leads() else cls.other

    def audit(self):
        return self.cp.api("GET", "/api/v1/audit")[1]["entries"]

    def status_of(self, node, cp=None):
        nodes = json.loads(trilane.http("GET", (cp or self.cp).url + "/api/v1/nodes")[2])["nodes"]
        return next((n for n in nodes if n["node"] == node), None)

    def assert_refused(self, answer, status, code):
        self.assertEqual((answer[0], answer[1]["code"]), (status, code), answer)

    # ---- a whole life ----

    def test_a_node_joins_serves_and_is_removed(self):
        node = JoinedNode(self.p, "edge-1")
        text = token(self.cp, "edge-1", "--labels", "zone=eu-1,rack=b", "--san",
                     "dns:localhost,ip:127.0.0.1")
        said = join(node.data, text, self.cp.url)
        self.assertIn("joined environment demo as node edge-1", said)
        self.assertIn("labels: rack=b,zone=eu-1", said)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode)
                 for path in node.identity.iterdir()}
        self.assertEqual(modes, {name: 0o600 for name in (
            "joined", "cert.pem", "key.pem", "ca.pem", "status.key")})
        self.assertTrue((node.data / "roots" / "root.1").exists())
        self.look_at_certificate(certificate(node))
        node.start(**NODE)
        said = node.dump()
        self.assertEqual((said["node"], said["environment"]), ("edge-1", "demo"))
        self.assertEqual(said["identity"]["labels"], "rack=b,zone=eu-1")
        self.assertGreater(node.metric("trilane_certificate_expires_seconds"), 80000)
        wait_until(lambda: (self.status_of("edge-1") or {}).get("live"), 60, "its status to count")
        self.leader("publish", "-m", "first", self.p.write_policies(SOURCES))
        self.assertGreater(node.version(), 0)
        self.look_at_audit(text)
        self.remove(node)

    def look_at_certificate(self, cert):
        units = [a.value for a in cert.subject.get_attributes_for_oid(
            NameOID.ORGANIZATIONAL_UNIT_NAME)]
        self.assertEqual(units, ["rack=b", "zone=eu-1"])
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.UniformResourceIdentifier),
                         ["spiffe://trilane.test/node/edge-1"])
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["localhost"])
        life = cert.not_valid_after.timestamp() - time.mktime(time.gmtime())
        self.assertLess(abs(life - 86400), 7200)

    def look_at_audit(self, text):
        """What happened is there, with the token's digest and never the token."""
        secret = text.split(".")[3]
        lines = {e["action"]: e for e in self.audit() if "edge-1" in e["object"]}
        self.assertEqual({lines[a]["outcome"] for a in ("identity token", "identity join")}, {"OK"})
        self.assertEqual(lines["identity token"]["object"], lines["identity join"]["object"])
        self.assertEqual(lines["identity join"]["actor"], "node edge-1")
        for where in (json.dumps(self.audit()), self.cp.log(), self.other.log()):
            self.assertNotIn(secret, where)

    def remove(self, node):
        listed = self.cp.json("identity list")["nodes"]
        entry = next(n for n in listed if n["node"] == "edge-1")
        self.assertEqual(entry["state"], "enrolled")
        self.assertEqual(int(entry["serial"], 16), certificate(node).serial_number)
        spare = token(self.cp, "edge-1")
        # At the other replica; ours sees it by itself.
        self.assertIn("removed edge-1", self.other("identity remove", "edge-1"))
        self.assertIn("TOKEN_USED", join(self.p.directory / "spare", spare, self.cp.url, code=1))
        for cp in (self.other, self.cp):
            wait_until(lambda c=cp: self.status_of("edge-1", c)["code"] == "NODE_REMOVED",
                       what="both to refuse it")
        before = self.statuses(self.other, "removed")
        wait_until(lambda: self.statuses(self.other, "removed") > before,
                   what="its next status to be refused")
        self.assertFalse(self.status_of("edge-1", self.other)["live"])
        entry = next(n for n in self.cp.json("identity list")["nodes"] if n["node"] == "edge-1")
        self.assertEqual(entry["state"], "removed")
        self.assertIn("identity remove", [e["action"] for e in self.audit()])

    def statuses(self, cp, event):
        line = 'trilane_statuses_total{event="%s"} ' % event
        text = trilane.http("GET", cp.url + "/metrics")[2].decode()
        return next(int(part[len(line):]) for part in text.splitlines() if part.startswith(line))

    # ---- the authority's key ----

    def test_the_authoritys_key_is_not_in_the_server(self):
        """Neither before nor after it certified a node: the certifier has it, and nobody can look
        into that one. What is public of the authority is there, so the search does find things."""
        join(self.p.directory / "keyless", token(self.cp, "keyless"), self.cp.url)
        pem = (self.p.identities / "ca.key").read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        number = key.private_numbers().private_value.to_bytes(32, "big")
        public = (self.p.identities / "ca.pem").read_bytes().splitlines()[1]
        wanted = {"big": number, "little": number[::-1], "pem": pem.splitlines()[1], "public": public}
        self.assertEqual(found_in_memory(self.cp.popen.pid, wanted), {"public"})
        children = pathlib.Path("/proc/%d/task" % self.cp.popen.pid).glob("*/children")
        commands = {pathlib.Path("/proc", child, "cmdline").read_bytes().split(b"\0")[1]: child
                    for path in children for child in path.read_text().split()}
        self.assertEqual(set(commands), {b"signer", b"certifier"})
        for child in commands.values():
            # Not dumpable: its files are root's, and its memory is nobody else's.
            self.assertEqual(os.stat("/proc/%s/mem" % child).st_uid, 0)

    # ---- tokens ----

    def test_a_token_is_good_once_on_all_replicas(self):
        text = token(self.cp, "once")
        join(self.p.directory / "once-a", text, self.cp.url)
        for cp in (self.cp, self.other):
            said = join(self.p.directory / "once-b", text, cp.url, code=1)
            self.assertIn("TOKEN_USED", said)
            self.assertIn("make another one", said)
        # The same node, in its own directory, is told that it is in; by another token it is not.
        self.assertIn("joined before", join(self.p.directory / "once-a", text, self.other.url))
        again = token(self.cp, "once")
        self.assertIn("JOINED_ALREADY", join(self.p.directory / "once-a", again, self.cp.url, code=1))

    def test_two_replicas_are_asked_at_once(self):
        """Of many that hold one token exactly one gets in."""
        text = token(self.cp, "raced")
        answers = []

        def ask(cp):
            answers.append(post(cp, "/api/v1/join", Joiner("demo", text).join_body()))
        threads = [threading.Thread(target=ask, args=(cp,)) for cp in (self.cp, self.other) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(a[0] for a in answers), [200] + [401] * 7, answers)
        self.assertEqual({a[1]["code"] for a in answers if a[0] != 200}, {"TOKEN_USED"})

    def test_an_expired_token(self):
        text = token(self.cp, "late", "--ttl", "1s")
        body = Joiner("demo", token(self.cp, "late-2", "--ttl", "1s")).join_body()
        end = time.time() + 1.05
        wait_until(lambda: time.time() > end, 60, "the token's second to be over")
        self.assertIn("TOKEN_EXPIRED", join(self.p.directory / "late", text, self.cp.url, code=1))
        self.assert_refused(post(self.other, "/api/v1/join", body), 401, "TOKEN_EXPIRED")

    def test_a_token_of_another_name(self):
        text = token(self.cp, "mine")
        forged = text.replace(".mine.", ".yours.")
        self.assertIn("TOKEN_MISMATCH", join(self.p.directory / "yours", forged, self.cp.url, code=1))
        self.assertIn("the token is of node", join(self.p.directory / "yours", text, self.cp.url,
                                                   "--node-id", "yours", code=2))
        other = text.replace(".demo.", ".prod.")
        self.assertIn("TOKEN_MISMATCH", join(self.p.directory / "yours", other, self.cp.url, code=1))
        unknown = text.replace(text.split(".")[3], "ab" * 32)
        self.assertIn("TOKEN_UNKNOWN", join(self.p.directory / "yours", unknown, self.cp.url, code=1))
        self.assertIn("expected a token", join(self.p.directory / "yours", "junk", self.cp.url, code=2))
        join(self.p.directory / "mine", text, self.cp.url)  # none of that used it up.

    def test_what_is_not_proved(self):
        joiner = Joiner("demo", token(self.cp, "proof"))
        stranger = Joiner("demo", token(self.cp, "stranger"))
        good = joiner.join_body()
        cases = [
            (dict(good, csr=stranger.csr()), 401, "UNAUTHENTICATED"),     # not what was signed;
            (dict(good, status_key=stranger.public()), 401, "UNAUTHENTICATED"),
            (joiner.join_body(node="stranger"), 401, "UNAUTHENTICATED"),
            (dict(good, proof="00" * 64), 401, "UNAUTHENTICATED"),
            (joiner.join_body(csr="no request"), 400, "MALFORMED"),        # signed, and none;
            (dict(good, proof="00"), 400, "MALFORMED"),
            (dict(good, token="junk"), 400, "MALFORMED"),
            (dict(good, more=1), 400, "USAGE"),
            ({k: v for k, v in good.items() if k != "csr"}, 400, "USAGE"),
            (dict(good, csr=7), 400, "USAGE"),
            ([], 400, "MALFORMED"),
        ]
        lines = joiner.csr().splitlines()
        lines[2] = lines[2][:8] + ("A" if lines[2][8] != "A" else "B") + lines[2][9:]
        tampered = "\n".join(lines) + "\n"
        for body, status, code in cases:
            self.assert_refused(post(self.cp, "/api/v1/join", body), status, code)
        status, answer = post(self.cp, "/api/v1/join", joiner.join_body(csr=tampered))
        self.assertIn(answer["code"], ("UNAUTHENTICATED", "MALFORMED"))
        self.assertIn("csr", answer["message"])
        self.assertEqual(post(self.cp, "/api/v1/join", good)[0], 200)  # the token was kept.

    def test_who_may_ask(self):
        headers = {"Content-Type": "text/plain"}
        status, _, answer = trilane.http("POST", self.cp.url + "/api/v1/join", b"{}", headers)
        self.assertEqual((status, json.loads(answer)["code"]), (415, "CONTENT_TYPE"))
        for path in ("/api/v1/tokens", "/api/v1/identities/remove"):
            self.assert_refused(post(self.cp, path, {"node": "a", "ttl_ms": 1000}), 401,
                                "UNAUTHENTICATED")
        status, _, answer = trilane.http("POST", self.cp.url + "/api/v1/join", b"x" * (17 << 10),
                                         {"Content-Type": "application/json"})
        self.assertEqual(status, 413)
        said = self.cp.run("identity token", "Not_a_name")
        self.assertEqual(said.returncode, 2)
        self.assertIn("expected a name", said.stderr)
        self.assertEqual(self.cp.run("identity token", "n", "--ttl", "soon").returncode, 2)
        self.assertEqual(self.cp.run("identity token", "n", "--labels", "x").returncode, 2)
        said = self.cp.run("identity remove", "nobody")
        self.assertEqual(said.returncode, 1)
        self.assertIn("NOT_FOUND", said.stderr)

    def test_renewals(self):
        joiner = Joiner("demo", token(self.cp, "renews"))
        answer = post(self.cp, "/api/v1/join", joiner.join_body())[1]
        count = int(answer["serial"][2:14], 16)

        def renewal(count, ago_ms=0, **more):
            return joiner.renew_body(int(time.time() * 1000) - ago_ms, count, **more)
        first, second = renewal(count + 1), renewal(count + 9)
        self.assertEqual(post(self.cp, "/api/v1/renew", first)[0], 200)
        for cp in (self.cp, self.other):
            self.assert_refused(post(cp, "/api/v1/renew", first), 409, "RENEWAL_REPLAYED")
        self.assertEqual(post(self.other, "/api/v1/renew", second)[0], 200)
        for cp in (self.cp, self.other):
            self.assert_refused(post(cp, "/api/v1/renew", second), 409, "RENEWAL_REPLAYED")
        late = renewal(count + 20, ago_ms=3600000)
        self.assert_refused(post(self.cp, "/api/v1/renew", late), 409, "CLOCK_SKEW")
        forged = dict(renewal(count + 20), count=count + 21)
        self.assert_refused(post(self.cp, "/api/v1/renew", forged), 401, "UNAUTHENTICATED")
        self.assert_refused(post(self.cp, "/api/v1/renew", renewal(count + 20, node="nobody")), 401,
                            "UNAUTHENTICATED")
        self.cp("identity remove", "renews")
        for cp in (self.cp, self.other):
            self.assert_refused(post(cp, "/api/v1/renew", renewal(count + 30)), 403, "NODE_REMOVED")

    # ---- the node's own word ----

    def test_a_joined_node_is_what_its_certificate_says(self):
        node = JoinedNode(self.p, "said").joined(self.cp, "--labels", "zone=eu-1")
        for flags, said in (({"node_id": "other"}, 'joined as "said"'),
                            ({"environment": "prod"}, 'joined as "demo"'),
                            ({"labels": "zone=us-1"}, 'the certificate says "zone=eu-1"'),
                            ({"labels": "zone=eu-1,canary=yes"}, "the certificate says"),
                            ({"tls_cert": node.identity / "cert.pem"}, "leave it out"),
                            ({"key_status": node.identity / "status.key"}, "leave it out")):
            with self.subTest(**flags):
                self.assertIn(said, node.run(2, **flags))
        node.start(node_id="said", environment="demo", labels="zone=eu-1", **NODE)
        self.assertEqual(node.dump()["identity"]["labels"], "zone=eu-1")

    def test_labels_of_a_certificate_made_by_hand(self):
        self.p.command("identity", "issue", "--ca", self.p.identities, "--node", "by-hand",
                       "--labels", "zone=eu-2", "--out", self.p.directory / "hand")
        pem = self.p.directory / "hand" / "node-by-hand"
        flags = {"tls_cert": "%s.pem" % pem, "tls_key": "%s.key" % pem}
        node = self.p.node("by-hand")
        node.start(wait=False, labels="zone=us-1", **flags)
        self.assertEqual(node.wait(), 2)
        self.assertIn('the certificate says "zone=eu-2"', node.log())
        node.start(**flags)
        self.assertEqual(node.dump()["identity"], {"joined": False, "labels": "zone=eu-2"})

    def test_the_seed_is_the_least_that_a_head_names(self):
        """A seed above its target's version would lock a node out of what is meant for it."""
        self.leader("publish", "-m", "seeded", "--again", self.p.write_policies(SOURCES))
        answer = post(self.cp, "/api/v1/join", Joiner("demo", token(self.cp, "least")).join_body())[1]
        with NatsClient(self.p.nats) as nats:
            def least():
                head = nats.get("trilane_demo_snapshots", "head")
                body = head[32 + 72 * head[7]:]
                return min(dict(fields(t))[2] for number, t in fields(body) if number == 4)
            wait_until(lambda: least() == answer["seed"]["version"], what="the head to name it")

    def test_the_seed_is_its_floor(self):
        """An older version, signed and in time, moves no node that joined after it."""
        for text in ("one", "two"):
            self.leader("publish", "-m", text, "--again", self.p.write_policies(SOURCES))
        bucket = "trilane_demo_snapshots"
        version = self.leader.json("history")["versions"][0]["version"]
        with NatsClient(self.p.nats) as nats:
            older = nats.get(bucket, "head")
            self.leader("publish", "-m", "three", "--again", self.p.write_policies(SOURCES))
            node = JoinedNode(self.p, "seeded").joined(self.cp)
            joined = dict(line.split(": ") for line in
                          (node.identity / "joined").read_text().splitlines()[1:])
            self.assertEqual(int(joined["version"]), version + 1)
            self.assertGreater(int(joined["epoch"]), 0)
            for cp in (self.cp, self.other):
                cp.signal(19)  # SIGSTOP: nobody writes the head anew.
            self.addCleanup(lambda: [cp.signal(18) for cp in (self.cp, self.other)])
            nats.put(bucket, "head", older)
            node.start(**NODE)
            wait_until(lambda: node.dump()["code"] == "SNAPSHOT_REPLAYED", 60, "the refusal")
            self.assertEqual(node.version(), 0)
            for cp in (self.cp, self.other):
                cp.signal(18)  # SIGCONT.
        wait_until(lambda: node.version() == version + 1, 60, "the version that it joined with")


class Seed(unittest.TestCase):
    def test_no_row_that_nobody_signed(self):
        """Heads go out for the newest publication that a threshold signed: so is the floor."""
        p = Platform()
        self.addCleanup(p.close)
        cp = p.control_plane(ca=p.identities).start(head_interval_ms=200)
        wait_until(cp.leads, 60, "a leader")
        cp("publish", "--wait", "no", "-m", "one", p.write_policies(SOURCES))
        store = sqlite3.connect(cp.data / "store.db", timeout=10)
        self.addCleanup(store.close)
        with store:
            store.execute("INSERT INTO version (environment, number, epoch, handed_ms)"
                          " SELECT environment, 1000, epoch, 0 FROM version")
            store.execute(
                "INSERT INTO journal (environment, number, epoch, origin, manifest,"
                " manifest_digest, content_digest, raw_size, author, message, created_ms, chunks)"
                " SELECT environment, 1000, epoch, 0, manifest, manifest_digest, content_digest,"
                " raw_size, 'mallory', 'by SQL', 0, chunks FROM journal")
        node = JoinedNode(p, "seeded").joined(cp)
        self.assertIn("version: 1\n", (node.identity / "joined").read_text())
        node.start(**NODE)
        wait_until(lambda: node.version() == 1, 60, "the version that was signed")


class Limits(unittest.TestCase):
    """One control plane alone: under TLS, without a CA, and under a flood."""

    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        api = cls.p.issue_service("acme", "api")
        port = free_port()
        cls.tls = "127.0.0.1:%d" % port
        cls.cp = cls.p.control_plane(ca=cls.p.identities, listen_tls="0.0.0.0:%d" % port,
                                     tls_cert=api["cert"], tls_key=api["key"])
        cls.cp.start(head_interval_ms=200)
        wait_until(cls.cp.leads, 60, "a leader")

    def test_the_server_is_pinned(self):
        text = token(self.cp, "pinned")
        self.assertEqual(len(text.split(".")[4]), 64)
        # A server with another CA, on the way to ours, learns nothing and is not believed.
        with Platform(nats=False) as stranger:
            api = stranger.issue_service("acme", "api")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(api["cert"], api["key"])
            self.assertIn("UNAUTHENTICATED", self.ask_a_stranger(context, text))
        wrong_name = "https://127.0.0.2:" + self.tls.rsplit(":", 1)[1]
        self.assertIn("UNAUTHENTICATED", join(self.p.directory / "pinned", text, wrong_name, code=1))
        join(self.p.directory / "pinned", text, "https://" + self.tls)
        joined = (self.p.directory / "pinned" / "identity" / "joined").read_text()
        self.assertIn("pin: " + text.split(".")[4], joined)

    def ask_a_stranger(self, context, text):
        """Joins at a TLS server that is not ours; what the node said. The server got no request."""
        got = []
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    got.append(tls.recv(100))
            except (ssl.SSLError, OSError) as problem:
                got.append(problem)
        thread = threading.Thread(target=serve)
        thread.start()
        said = join(self.p.directory / "pinned", text, "https://127.0.0.1:%d" %
                    listener.getsockname()[1], code=1)
        thread.join()
        listener.close()
        self.assertIsInstance(got[0], Exception)
        return said

    def test_clear_text_is_for_loopback(self):
        text = token(self.cp, "clear")
        for url in ("http://192.0.2.7:9080", "http://cp.example.org", "ftp://127.0.0.1", "127.0.0.1",
                    "https://", "https://a/path", "http://127.0.0.1@192.0.2.7", ""):
            with self.subTest(url=url):
                self.assertIn("server: ", join(self.p.directory / "clear", text, url, code=2))

    def test_a_server_that_is_away(self):
        text = token(self.cp, "away")
        gone = "http://127.0.0.1:%d" % free_port()
        said = join(self.p.directory / "away", text, gone, code=3)
        self.assertIn("may be given again with the same token", said)
        join(self.p.directory / "away", text, gone + "," + self.cp.url)  # the next one is asked.

    def test_a_ca_in_the_place_of_the_pin(self):
        text = token(self.cp, "by-ca")
        forged = text.rsplit(".", 1)[0] + "." + "ab" * 32
        said = join(self.p.directory / "by-ca", forged, "https://" + self.tls, code=1)
        self.assertIn("UNAUTHENTICATED", said)
        join(self.p.directory / "by-ca", forged, "https://" + self.tls, "--tls-ca", self.p.ca)
        self.assertTrue((self.p.directory / "by-ca" / "identity" / "server.pem").exists())

    def test_a_flood_is_refused_early(self):
        with Platform() as p:
            cp = p.control_plane(ca=p.identities, joins_per_second=40).start()
            body = Joiner("demo", token(cp, "flood")).join_body()
            started = time.monotonic()
            codes = [post(cp, "/api/v1/join", dict(body, proof="00" * 64))[1]["code"]
                     for _ in range(60)]
            seconds = int(time.monotonic() - started) + 2
            self.assertEqual(set(codes), {"RATE_LIMITED", "UNAUTHENTICATED"})
            self.assertLessEqual(codes.count("UNAUTHENTICATED"), 5 * seconds)  # of one address.
            self.assertEqual(cp.api("GET", "/api/v1/status")[0], 200)  # others go on.
            self.assertIn('trilane_joins_total{event="limited"} %d' % codes.count("RATE_LIMITED"),
                          trilane.http("GET", cp.url + "/metrics")[2].decode())

    def test_without_a_ca(self):
        with Platform() as p:
            cp = p.control_plane().start()
            wait_until(cp.leads, 60, "a leader")
            said = cp.run("identity token", "n")
            self.assertEqual(said.returncode, 1)
            self.assertIn("--ca DIRECTORY", said.stderr)

    def test_a_key_that_others_may_read(self):
        with Platform() as p:
            os.chmod(p.identities / "ca.key", 0o640)
            cp = p.control_plane(ca=p.identities)
            cp.start(wait=False)
            self.assertEqual(cp.wait(), 2)
            self.assertIn("chmod 600", cp.log())


if __name__ == "__main__":
    unittest.main()
