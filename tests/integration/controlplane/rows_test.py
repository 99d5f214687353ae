"""Rows of the database that no replica wrote: join tokens and nodes by SQL alone, in both databases; and
rows of a release before. With real control planes, a node and NATS."""

import datetime
import json
import secrets
import sqlite3
import time
import unittest

import trilane
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from joiner import Joiner, digest
from joining import JoinedNode, post, token
from postgres import Postgres
from trilane import Platform, wait_until

MINUTE = datetime.timedelta(minutes=1)
HOUR = 60 * MINUTE
NODE = {"status_interval_ms": 300, "poll_interval_ms": 200, "good_after_ms": 100}


def key_of(certificate):
    """The status key that a certificate says, in hex."""
    return [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)]


class Rows:
    """The same for both databases: a subclass has self.p, self.cp, sql() and blob()."""

    def send(self, path, body):
        return wait_until(lambda: (lambda a: None if a[1].get("code") == "RATE_LIMITED" else a)(
            post(self.cp, path, body)), 60, "the gate to open")

    def assert_refused(self, answer, status, code):
        self.assertEqual((answer[0], answer[1].get("code")), (status, code), answer)

    def metric(self, event):
        line = 'trilane_joins_total{event="%s"} ' % event
        text = trilane.http("GET", self.cp.url + "/metrics")[2].decode()
        return next(int(part[len(line):]) for part in text.splitlines() if part.startswith(line))

    def joined(self, name, *flags):
        joiner = Joiner("demo", token(self.cp, name, *flags))
        status, answer = self.send("/api/v1/join", joiner.join_body())
        self.assertEqual(status, 200, answer)
        joiner.answer = answer
        joiner.sent = int(answer["serial"][2:14], 16) + 1000000
        return joiner

    def renew(self, joiner, **more):
        joiner.sent += 1
        return self.send("/api/v1/renew", joiner.renew_body(int(time.time() * 1000), joiner.sent,
                                                            **more))

    def listed(self, name):
        return next((n for n in self.cp.json("identity list")["nodes"] if n["node"] == name), None)

    def shown(self, name):
        nodes = json.loads(trilane.http("GET", self.cp.url + "/api/v1/nodes")[2])["nodes"]
        return next((n for n in nodes if n["node"] == name), {})

    def certify(self, node, public_key, begins, ends, labels=()):
        """A leaf of our CA as a release before made it, or of any time: without a status key."""
        ca = x509.load_pem_x509_certificate((self.p.identities / "ca.pem").read_bytes())
        ca_key = serialization.load_pem_private_key((self.p.identities / "ca.key").read_bytes(), None)
        names = [x509.NameAttribute(NameOID.COMMON_NAME, node)]
        names += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, label) for label in labels]
        now = datetime.datetime.utcnow()
        serial = b"\x40" + int(time.time() * 1000 - 1).to_bytes(6, "big") + secrets.token_bytes(9)
        uri = "spiffe://trilane.test/node/" + node
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        made = x509.CertificateBuilder().subject_name(x509.Name(names)).issuer_name(
            ca.subject).public_key(public_key).serial_number(int.from_bytes(serial, "big")
            ).not_valid_before(now + begins).not_valid_after(now + ends).add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False).add_extension(
            x509.BasicConstraints(False, None), True).add_extension(usage, True).add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH,
                                   x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False).sign(
            ca_key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    # ---- join tokens ----

    def test_a_token_by_sql_lets_nobody_in(self):
        """One of the attacker's own; one of ours, with other labels, of another node, for longer."""
        own = Joiner("demo", "tlj1.demo.spy.%s.-" % secrets.token_hex(32))
        real = token(self.cp, "honest", "--labels", "zone=eu-1")
        honest = digest(bytes.fromhex(real.split(".")[3]))
        refused = self.metric("refused")
        self.sql("INSERT INTO join_token (environment, digest, node, labels, author, expires_ms,"
                 " used_ms, warrant) SELECT environment, %s, 'spy', labels, author, expires_ms, 0,"
                 " warrant FROM join_token WHERE digest = %s" % (self.blob(digest(own.secret)),
                                                                 self.blob(honest)))
        self.assert_refused(self.send("/api/v1/join", own.join_body()), 401, "TOKEN_UNKNOWN")
        self.assertEqual(self.metric("refused"), refused + 1)
        self.assertIn("event=token_unvouched", self.cp.log())

        def audited():
            self.send("/api/v1/join", own.join_body())  # ten refusals a second are written down.
            last = self.cp.api("GET", "/api/v1/audit")[1]["entries"][0]
            return (last["action"], last["outcome"]) == ("identity join", "TOKEN_UNKNOWN")
        wait_until(audited, 60, "the refusal in the audit", step=0.2)
        self.assertIsNone(self.listed("spy"))
        row = "digest = %s" % self.blob(honest)
        for change, back in (("labels = 'zone=admin'", "labels = 'zone=eu-1'"),
                             ("expires_ms = expires_ms + 1", "expires_ms = expires_ms - 1"),
                             ("warrant = %s" % self.blob(b""), None)):
            kept = self.sql("SELECT warrant FROM join_token WHERE " + row)
            self.sql("UPDATE join_token SET %s WHERE %s" % (change, row))
            answer = self.send("/api/v1/join", Joiner("demo", real).join_body())
            self.assert_refused(answer, 401, "TOKEN_UNKNOWN")
            self.assertEqual(len(kept), 1)
            if back:
                self.sql("UPDATE join_token SET %s WHERE %s" % (back, row))
        real = token(self.cp, "honest", "--labels", "zone=eu-1")
        self.assertEqual(self.send("/api/v1/join", Joiner("demo", real).join_body())[1]["labels"],
                         "zone=eu-1")

    # ---- nodes ----

    def test_a_row_by_sql_is_nobody(self):
        """A row with the attacker's key; the same with its certificate, and with another node's."""
        thief = self.joined("thief")
        columns = "(environment, id, state, status_key, labels, serial, not_after_ms, enrolled_ms)"
        self.sql("INSERT INTO node %s VALUES ('demo', 'ghost', 'enrolled', %s, 'zone=admin', '0a',"
                 " 9999999999999, 1)" % (columns, self.blob(bytes.fromhex(thief.public()))))
        self.assert_refused(self.renew(thief, node="ghost"), 409, "CERTIFICATE_MISSING")
        own = thief.answer["certificate"]
        self.assert_refused(self.renew(thief, node="ghost", certificate=own,
                                       certificate_key=thief.key), 409, "CERTIFICATE_MISSING")
        self.sql("UPDATE node SET certificate = (SELECT certificate FROM node WHERE id = 'thief')"
                 " WHERE id = 'ghost'")
        self.assert_refused(self.renew(thief, node="ghost"), 409, "CERTIFICATE_MISSING")
        shown = self.listed("ghost")
        self.assertEqual((shown["labels"], shown["status_key"]), ("", ""))
        self.assertEqual(self.renew(thief)[0], 200)

    def test_columns_change_nothing(self):
        """Key and labels beside the certificate: the node renews as it was, nobody else does."""
        owner = self.joined("owner", "--labels", "zone=eu-1", "--san", "dns:owner.test")
        thief = self.joined("thief-2")
        self.sql("UPDATE node SET status_key = %s, labels = 'zone=admin', serial = '40' WHERE"
                 " id = 'owner'" % self.blob(bytes.fromhex(thief.public())))
        self.assert_refused(self.renew(thief, node="owner"), 401, "UNAUTHENTICATED")
        status, answer = self.renew(owner)
        self.assertEqual((status, answer["labels"]), (200, "zone=eu-1"), answer)
        made = x509.load_pem_x509_certificate(answer["certificate"].encode())
        self.assertEqual(key_of(made), [owner.public()])
        shown = self.listed("owner")
        self.assertEqual((shown["labels"], shown["sans"], shown["status_key"]),
                         ("zone=eu-1", "dns:owner.test", owner.public()))
        # An older renewal is one still, whatever the row says of the serial.
        self.sql("UPDATE node SET serial = '' WHERE id = 'owner'")
        owner.sent -= 2
        self.assert_refused(self.renew(owner), 409, "RENEWAL_REPLAYED")

    def test_a_row_without_certificate(self):
        """Its node mends it by the certificate that it has; nobody else does, and none that is over."""
        owner = self.joined("mended", "--labels", "zone=eu-1")
        thief = self.joined("thief-3")
        ours = owner.answer["certificate"]
        self.sql("UPDATE node SET certificate = %s, status_key = %s WHERE id = 'mended'" % (
            self.blob(b""), self.blob(bytes.fromhex(thief.public()))))
        answer = self.renew(owner)
        self.assert_refused(answer, 409, "CERTIFICATE_MISSING")
        self.assertIn("join again", answer[1]["message"])
        for proof in (None, thief.key):
            self.assert_refused(self.renew(thief, node="mended", certificate=ours,
                                           certificate_key=proof), 401, "UNAUTHENTICATED")
        over = self.certify("mended", owner.key.public_key(), -3 * HOUR, -MINUTE)
        self.sql("UPDATE node SET status_key = %s WHERE id = 'mended'" % self.blob(
            bytes.fromhex(owner.public())))
        self.assert_refused(self.renew(owner, certificate=over, certificate_key=owner.key), 409,
                            "CERTIFICATE_MISSING")
        for wrong in ("x", ours[:300], ours.replace("M", "N", 3)):
            self.assert_refused(self.renew(owner, certificate=wrong, certificate_key=owner.key), 409,
                                "CERTIFICATE_MISSING")
        self.assert_refused(self.renew(owner, certificate=ours * 20), 413, "TOO_LARGE")
        status, answer = self.renew(owner, certificate=ours)
        self.assertEqual((status, answer["labels"]), (200, "zone=eu-1"), answer)
        self.assertEqual(self.renew(owner)[0], 200)  # the row has one again.

    def test_a_node_of_a_release_before(self):
        """Its certificate says no status key: until it renewed its statuses count for nothing, and
        it renews by both keys. Then a column changes nothing, also after a restart."""
        node = JoinedNode(self.p, "edge-1").joined(self.cp, "--labels", "zone=eu-1")
        key = serialization.load_pem_private_key((node.identity / "key.pem").read_bytes(), None)
        status_key = self.listed("edge-1")["status_key"]
        # From before, and due for renewal only a while after the start.
        fresh = self.certify("edge-1", key.public_key(), -HOUR, HOUR, ["zone=eu-1"])
        due = self.certify("edge-1", key.public_key(), -11 * HOUR, HOUR, ["zone=eu-1"])
        self.sql("UPDATE node SET certificate = %s, status_key = %s, labels = 'zone=eu-1' WHERE"
                 " id = 'edge-1'" % (self.blob(b""), self.blob(bytes.fromhex(status_key))))
        self.restart()
        (node.identity / "cert.pem").write_text(fresh, encoding="ascii")
        node.start(**NODE)
        wait_until(lambda: self.shown("edge-1").get("code") == "CERTIFICATE_MISSING",
                   what="its status, which nothing vouches for")
        self.assertFalse(self.shown("edge-1").get("live"))
        node.stop()
        (node.identity / "cert.pem").write_text(due, encoding="ascii")
        node.start(**NODE)
        wait_until(lambda: node.dump()["identity"]["renewals"] == 1, 60, "its renewal")
        made = x509.load_pem_x509_certificate((node.identity / "cert.pem").read_bytes())
        self.assertEqual(key_of(made), [status_key])
        self.assertEqual(node.dump()["identity"]["labels"], "zone=eu-1")
        wait_until(lambda: self.shown("edge-1").get("live"), 60, "its status")
        thief = self.joined("thief-4")
        self.sql("UPDATE node SET status_key = %s WHERE id = 'edge-1'" % self.blob(
            bytes.fromhex(thief.public())))
        self.restart()
        wait_until(lambda: self.shown("edge-1").get("live"), 60, "its status, whatever a column says")

    def restart(self):
        self.cp.stop()
        self.cp.start(head_interval_ms=200, joins_per_second=1000)
        wait_until(self.cp.leads, 60, "a leader")


class RowsOfSqlite(Rows, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.cp = cls.p.control_plane(ca=cls.p.identities)
        cls.cp.start(head_interval_ms=200, joins_per_second=1000)
        wait_until(cls.cp.leads, 60, "a leader")

    def sql(self, text):
        with sqlite3.connect(self.cp.data / "store.db", timeout=20) as db:
            return db.execute(text).fetchall()

    def blob(self, data):
        return "x'%s'" % data.hex()


class RowsOfPostgres(Rows, unittest.TestCase):
    test_a_node_of_a_release_before = None  # what it adds is not the database's.

    @classmethod
    def setUpClass(cls):
        cls.pg = Postgres().start()
        cls.addClassCleanup(cls.pg.close)
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.cp = cls.p.control_plane(ca=cls.p.identities, store=cls.pg.url())
        cls.cp.start(head_interval_ms=200, joins_per_second=1000)
        wait_until(cls.cp.leads, 60, "a leader")

    def sql(self, text):
        return self.pg.sql(text)

    def blob(self, data):
        return "'\\x%s'::bytea" % data.hex()


if __name__ == "__main__":
    unittest.main()
