"""NATS under TLS with certificates on both sides, and what a strict environment asks of it."""

import unittest

import trilane
from trilane import Nats, Platform, wait_until

QUICK = {"good_after_ms": 100, "status_interval_ms": 300, "poll_interval_ms": 300}


class TlsNats(Nats):
    """Takes nobody without a certificate of the platform's CA."""

    def __init__(self, directory, platform):
        self.files = platform.issue_service("acme", "nats")
        self.ca = platform.ca
        super().__init__(directory)

    def _configure(self):
        super()._configure()
        with open(self.configuration, "a", encoding="utf-8") as file:
            file.write('tls { cert_file: "%s", key_file: "%s", ca_file: "%s", verify: true }\n'
                       % (self.files["cert"], self.files["key"], self.ca))

    def _knows(self, user):
        return True  # NatsClient speaks no TLS; who comes too early tries again.


def environment(security):
    return """
apiVersion: trilane.dev/v1
kind: Environment
metadata: {name: demo}
spec: {security: %s, trustDomain: trilane.test}
""" % security


class Tls(unittest.TestCase):
    def setUp(self):
        self.p = Platform(nats=False)
        self.addCleanup(self.p.close)
        self.p.programs.remove(self.p.nats)
        self.p.nats = TlsNats(self.p.directory / "tls", self.p)
        self.p.programs.insert(0, self.p.nats)
        client = self.p.issue_service("acme", "client")
        self.files = {"nats_ca": self.p.ca, "nats_cert": client["cert"], "nats_key": client["key"]}

    def test_publishes_and_applies_under_tls_alone(self):
        self.p.nats.add_node("node-1")
        self.p.nats.start()
        cp = self.p.control_plane(**self.files).start(head_interval_ms=100)
        wait_until(cp.leads, 60, "a leader\n" + cp.log()[-2000:])
        node = self.p.node("node-1", **self.files).start(**QUICK)
        sources = self.p.write_policies({"demo.yaml": environment("strict")})
        cp("publish", "-m", "one", sources)
        wait_until(lambda: node.version() == 1, 60, "the node to serve it")
        self.p.nats.kill()
        wait_until(lambda: cp.json("status")["leader"]["code"] != "", 60, "no head goes out")
        self.p.nats.start()
        wait_until(cp.leads, 60, "heads to go out again")
        cp("publish", "--again", "-m", "two", sources)
        self.assertEqual(node.version(), 2)
        self.assertEqual(node.metric("trilane_bus_connected"), 1)

    def test_without_a_certificate_it_says_why(self):
        self.p.nats.start()
        cp = self.p.control_plane(nats_ca=self.p.ca).start(head_interval_ms=100)
        wait_until(lambda: "certificate" in cp.api("GET", "/api/v1/status")[1]["bus"]["last_error"],
                   60, "the server's refusal")
        done = cp.run("publish", "-m", "one", trilane.POLICIES)
        self.assertEqual(done.returncode, 3, done.stderr)

    def test_halves_are_refused(self):
        cp = self.p.control_plane(nats_cert=self.files["nats_cert"]).start(wait=False)
        self.assertEqual(cp.wait(), 2)
        self.assertIn("nats-cert and nats-key go together", cp.log())
        node = self.p.node("node-1", nats_key=self.files["nats_key"]).start(wait=False)
        self.assertNotEqual(node.wait(), 0)
        self.assertIn("nats-cert and nats-key go together", node.log())


class Strict(unittest.TestCase):
    """127.1 is an address of loopback that a program does not take for one: to it, it leads off."""

    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)

    def off_machine(self, user):
        return self.p.nats.url(user).replace("127.0.0.1", "127.1")

    def test_a_control_plane_in_clear_publishes_nothing_strict(self):
        cp = self.p.control_plane(nats_urls=self.off_machine("cp")).start(head_interval_ms=100)
        wait_until(cp.leads, 60, "a leader\n" + cp.log()[-2000:])
        strict = self.p.write_policies({"demo.yaml": environment("strict")})
        for command in (("plan",), ("publish", "-m", "strict")):
            done = cp.run(*command, strict)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("BUS_EXPOSED", done.stderr)
            self.assertIn("clear text", done.stderr)
        cp("validate", "--server", cp.url, strict)
        cp("publish", "-m", "dev", self.p.write_policies({"demo.yaml": environment("dev")}))

    def test_a_node_in_clear_takes_nothing_strict(self):
        cp = self.p.control_plane().start(head_interval_ms=100)
        wait_until(cp.leads, 60, "a leader\n" + cp.log()[-2000:])
        node = self.p.node("node-1")
        node.flags["nats-urls"] = self.off_machine("node-1")
        node.start(**QUICK)
        cp("publish", "-m", "dev", self.p.write_policies({"demo.yaml": environment("dev")}))
        strict = self.p.write_policies({"demo.yaml": environment("strict")})
        done = cp.run("publish", "-m", "strict", strict, "--timeout", "15")
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("BUS_EXPOSED", done.stderr)
        wait_until(lambda: node.version() == 1, 60, "the node to serve it")
        node.stop()
        node.flags["nats-urls"] = self.p.nats.url("node-1")
        node.start(**QUICK)
        wait_until(lambda: node.version() == 2, 60, "the strict version")
        # What it has on disk it serves, however it is connected now.
        node.stop()
        node.flags["nats-urls"] = self.off_machine("node-1")
        node.start(**QUICK)
        wait_until(lambda: node.version() == 2, 60, "last-good")


if __name__ == "__main__":
    unittest.main()
