"""Joining as an attacker would try it: requests that ask for more than the token grants, certificates
of keys that are none of ours, guesses, and a removal that a renewal races. Two replicas, no node."""

import concurrent.futures
import datetime
import itertools
import threading
import time
import unittest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joiner import Joiner
from joining import post, token
from trilane import Platform, wait_until

SERVICE = "spiffe://trilane.test/tenant/acme/service/web"


def now_ms():
    return int(time.time() * 1000)


def pem(request):
    return request.public_bytes(serialization.Encoding.PEM).decode()


def greedy(key):
    """A request that asks for everything: to be a CA, another's identity, names, labels, a century."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root-of-all"),
                         x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "zone=admin"),
                         x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "canary=yes")])
    usage = x509.KeyUsage(digital_signature=True, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=True,
                          crl_sign=True, encipher_only=False, decipher_only=False)
    return pem(x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(
        x509.BasicConstraints(ca=True, path_length=9), critical=True).add_extension(
        usage, critical=True).add_extension(x509.SubjectAlternativeName([
            x509.UniformResourceIdentifier(SERVICE), x509.DNSName("api.acme.test"),
            x509.UniformResourceIdentifier("spiffe://trilane.test/node/other")]),
        critical=False).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
                                      critical=False).sign(key, hashes.SHA256()))


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        flags = {"ca": cls.p.identities}
        quick = {"head_interval_ms": 200, "joins_per_second": 1000}
        cls.cp = cls.p.control_plane(**flags).start(**quick)
        cls.other = cls.p.control_plane(
            "cp-2", store="sqlite:%s" % (cls.cp.data / "store.db"), token_file=cls.cp.token_path,
            **flags).start(**quick)
        wait_until(lambda: cls.cp.leads() or cls.other.leads(), 60, "a leader")

    def send(self, cp, path, body):
        """Asked again as long as it is too often: the gate is not what is tried here."""
        return wait_until(lambda: (lambda a: None if a[1].get("code") == "RATE_LIMITED" else a)(
            post(cp, path, body)), 60, "the gate to open")

    def assert_refused(self, answer, status, code):
        self.assertEqual((answer[0], answer[1].get("code")), (status, code), answer)

    def look_at(self, text, node, labels):
        """A leaf of that node for TLS, for a day, and nothing else."""
        cert = x509.load_pem_x509_certificate(text.encode())
        get = cert.extensions.get_extension_for_class
        self.assertFalse(get(x509.BasicConstraints).value.ca)
        usage = get(x509.KeyUsage).value
        self.assertEqual((usage.digital_signature, usage.key_cert_sign, usage.crl_sign),
                         (True, False, False))
        self.assertEqual(list(get(x509.ExtendedKeyUsage).value),
                         [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        names = get(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.UniformResourceIdentifier),
                         ["spiffe://trilane.test/node/" + node])
        self.assertEqual(names.get_values_for_type(x509.DNSName), [])
        self.assertEqual([a.value for a in cert.subject.get_attributes_for_oid(
            NameOID.ORGANIZATIONAL_UNIT_NAME)], labels)
        self.assertEqual([a.value for a in cert.subject.get_attributes_for_oid(
            NameOID.COMMON_NAME)], [node])
        life = cert.not_valid_after - cert.not_valid_before
        self.assertLess(life, datetime.timedelta(hours=26))

    def test_a_request_that_asks_for_more(self):
        """Whatever a request says beside its key is not read, when joining and when renewing."""
        joiner = Joiner("demo", token(self.cp, "greedy", "--labels", "zone=eu-1"))
        status, answer = self.send(self.cp, "/api/v1/join",
                                   joiner.join_body(csr=greedy(joiner.key)))
        self.assertEqual(status, 200, answer)
        self.assertEqual(answer["labels"], "zone=eu-1")
        self.look_at(answer["certificate"], "greedy", ["zone=eu-1"])
        count = int(answer["serial"][2:14], 16)
        status, answer = self.send(self.other, "/api/v1/renew", joiner.renew_body(
            now_ms(), count + 1, csr=greedy(joiner.key)))
        self.assertEqual(status, 200, answer)
        self.look_at(answer["certificate"], "greedy", ["zone=eu-1"])

    def test_a_key_that_is_none_of_ours(self):
        """Neither is one used up by it: what it costs to use such a key is the sender's choice."""
        joiner = Joiner("demo", token(self.cp, "odd-key"))
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1()),
                    ec.generate_private_key(ec.SECP256K1())):
            body = joiner.join_body(csr=pem(builder.sign(key, hashes.SHA256())))
            status, answer = self.send(self.cp, "/api/v1/join", body)
            self.assertEqual(status, 400 if answer["code"] == "MALFORMED" else status, answer)
            self.assertIn(answer["code"], ("UNSUPPORTED", "MALFORMED"))
            self.assertIn("P-256 or P-384", answer["message"])
        p384 = ec.generate_private_key(ec.SECP384R1())
        body = joiner.join_body(csr=pem(builder.sign(p384, hashes.SHA384())))
        self.assertEqual(self.send(self.cp, "/api/v1/join", body)[0], 200)

    def test_a_certificate_and_its_key_renew_nothing(self):
        """Whoever took both, revoked or not, lacks the status key: another one's proof is none."""
        joiner = Joiner("demo", token(self.cp, "stolen"))
        answer = self.send(self.cp, "/api/v1/join", joiner.join_body())[1]
        count = int(answer["serial"][2:14], 16)
        thief = Joiner("demo", token(self.cp, "thief"))
        self.assertEqual(self.send(self.cp, "/api/v1/join", thief.join_body())[0], 200)
        thief.key = joiner.key
        for cp in (self.cp, self.other):
            self.assert_refused(self.send(cp, "/api/v1/renew", thief.renew_body(
                now_ms(), count + 1, node="stolen")), 401, "UNAUTHENTICATED")

    def test_clocks_that_differ(self):
        joiner = Joiner("demo", token(self.cp, "skewed"))
        answer = self.send(self.cp, "/api/v1/join", joiner.join_body())[1]
        count = int(answer["serial"][2:14], 16)
        for off_ms in (-3600000, 3600000, -now_ms(), 2 ** 62 - now_ms()):
            self.assert_refused(self.send(self.cp, "/api/v1/renew", joiner.renew_body(
                now_ms() + off_ms, count + 1)), 409, "CLOCK_SKEW")
        self.assert_refused(self.send(self.cp, "/api/v1/renew", joiner.renew_body(now_ms(), 2 ** 48)),
                            409, "RENEWAL_REPLAYED")  # a count that would be the last one ever.
        self.assertEqual(self.send(self.cp, "/api/v1/renew", joiner.renew_body(now_ms(), count + 1))[0],
                         200)

    def test_bodies_that_are_too_large_or_deep(self):
        joiner = Joiner("demo", token(self.cp, "large"))
        join, renew = joiner.join_body(), joiner.renew_body(now_ms(), now_ms())
        for path, body in (("/api/v1/join", join), ("/api/v1/renew", renew)):
            with self.subTest(path=path):
                self.assert_refused(self.send(self.cp, path, dict(body, csr="x" * (17 << 10))), 413,
                                    "TOO_LARGE")
                self.assertEqual(self.send(self.cp, path, dict(body, csr="x" * (5 << 10)))[0] // 100,
                                 4)
                deep = []
                for _ in range(900):
                    deep = [deep]
                self.assert_refused(self.send(self.cp, path, dict(body, csr=deep)), 400, "USAGE")
                self.assert_refused(self.send(self.cp, path, dict(body, node="n" * 64)), 400,
                                    "USAGE")
        self.assertEqual(self.send(self.cp, "/api/v1/join", join)[0], 200)

    def test_guesses(self):
        """As many as one sends, each is refused, few are looked at, fewer are written down."""
        with Platform() as p:
            cp = p.control_plane(ca=p.identities, joins_per_second=40).start(head_interval_ms=200)
            text = token(cp, "guessed")
            joiner = Joiner("demo", text)
            def guess(number):
                secret = "%064x" % number
                return post(cp, "/api/v1/join", joiner.join_body(
                    text=text.replace(text.split(".")[3], secret)))[1]["code"]

            began = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                codes = list(pool.map(guess, range(200)))
            self.assertEqual(set(codes), {"RATE_LIMITED", "TOKEN_UNKNOWN"})
            # 5 of one address in each second of the clock.
            self.assertLessEqual(codes.count("TOKEN_UNKNOWN"),
                                 5 * (2 + time.monotonic() - began))
            wait_until(lambda: post(cp, "/api/v1/join", joiner.join_body())[0] == 200,
                       what="the one that has it")

    def test_a_removal_that_a_renewal_races(self):
        """From the moment on that the removal is answered no replica gives a certificate."""
        joiner = Joiner("demo", token(self.cp, "raced"))
        answer = self.send(self.cp, "/api/v1/join", joiner.join_body())[1]
        count = int(answer["serial"][2:14], 16)
        removed = threading.Event()
        done = {}  # replica: code, and whether the removal had been answered when it was sent.

        def renew(number, cp):
            results = done.setdefault(number, [])
            for turn in itertools.count():  # until the removal is met.
                late = removed.is_set()
                status, body = post(cp, "/api/v1/renew", joiner.renew_body(
                    now_ms(), count + 1 + 2 * turn + number))
                results.append((body.get("code", status), late))
                if late and body.get("code") == "NODE_REMOVED":
                    return

        threads = [threading.Thread(target=renew, args=pair, daemon=True)
                   for pair in enumerate((self.cp, self.other))]
        for thread in threads:
            thread.start()
        wait_until(lambda: any(code == 200 for results in list(done.values())
                               for code, _ in list(results)), what="a renewal")
        self.cp("identity remove", "raced")
        removed.set()
        for thread in threads:
            thread.join(60)
            self.assertFalse(thread.is_alive(), "the removal is not met")
        for results in done.values():
            self.assertEqual({code for code, late in results if late} - {"RATE_LIMITED"},
                             {"NODE_REMOVED"}, results)
        entry = next(n for n in self.cp.json("identity list")["nodes"] if n["node"] == "raced")
        self.assertEqual(entry["state"], "removed")


if __name__ == "__main__":
    unittest.main()
