"""Policies of a real node: conditions, times, shadow rules, and the kill switch."""

import datetime
import subprocess
import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb
SAY, COLLECT = "/trilane.test.v1.Echo/Say", "/trilane.test.v1.Echo/Collect"
RULES = """
    - name: no-debug
      effect: deny
      verbs: [call]
      callers: [{{id: "acme/w*"}}]
      condition: >-
        'x-debug' in request.headers && request.headers['x-debug'] == 'on'
        && !caller.traits.tier.startsWith('plat')
        && request.service == 'trilane.test.v1.Echo'
    - name: other-team
      effect: deny
      callers: [{{service: web}}]
      condition: "'x-team' in request.headers && request.headers['x-team'] != 'a'"
    - {{name: closed, effect: deny, methods: [{collect}], notAfter: "{past}"}}
    - {{name: no-collect, effect: deny, shadow: true, methods: [{collect}]}}
    - name: web-says
      effect: allow
      methods: [{say}]
      callers: [{{service: web}}]
      notBefore: "{past}"
      windows: [{{from: "00:00", to: "24:00", offset: "+05:30"}}]
"""


def rules():
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    return RULES.format(say=SAY, collect=COLLECT, past=past.strftime("%Y-%m-%dT%H:%M:%SZ"))


class Policies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = echo.Server("a")
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.addClassCleanup(cls.server.stop)
        cls.cp = cls.platform.control_plane().start()
        cls.log = cls.platform.directory / "access.log"
        cls.node = cls.platform.node("node-1", workers=1, access_log=cls.log)

    published = 0

    def publish(self, text):
        # One that starts again first comes to what it had.
        trilane.wait_until(lambda: self.node.version() > 0 or not self.published,
                           what="the node to serve what there is")
        type(self).published += 1
        before = self.node.version()
        self.cp("publish", "-m", "test", self.platform.write_policies({"platform.yaml": text}))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it")

    def stub(self):
        channel = echo.channel(self.node)
        self.addCleanup(channel.close)
        return echo.stubs.EchoStub(channel)

    def collect(self, stub, *headers):
        """None, or the code and the rule of the refusal."""
        try:
            stub.Collect(iter([pb.Words(text="x")]), metadata=echo.token("web") + headers)
            return None
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata())
            return details["x-trilane-code"], details.get("x-trilane-rule", "")

    def test_conditions_times_and_shadows(self):
        self.node.start()
        self.addCleanup(self.node.stop)
        self.publish(echo.platform_yaml([self.server.port], extra=rules()))
        stub = self.stub()
        for _ in range(2):  # decided, and from the cache.
            self.assertIsNone(self.collect(stub))
            self.assertIsNone(self.collect(stub, ("x-team", "a"), ("x-debug", "off")))
            self.assertEqual(self.collect(stub, ("x-team", "b")),
                             ("POLICY_DENIED", "acme/echo/other-team"))
            self.assertEqual(self.collect(stub, ("x-debug", "on")),
                             ("POLICY_DENIED", "acme/echo/no-debug"))
        self.assertEqual(self.node.metric("trilane_policy_shadow_total"), 4)
        self.assertGreater(self.node.metric("policy_decision_cache_hit_ratio"), 0.4)
        lines = trilane.wait_until(
            lambda: [line for line in self.log.read_text().splitlines() if "Collect" in line][7:8]
            and self.log.read_text().splitlines(), what="the lines of the log")
        allowed = [line for line in lines if "rule=acme/echo/gold-may-call" in line]
        denied = [line for line in lines if "rule=acme/echo/other-team" in line]
        self.assertTrue(allowed and denied)
        self.assertTrue(all(" shadow=acme/echo/no-collect" in line for line in allowed))
        self.assertFalse(any("shadow=" in line for line in denied))

    def test_the_kill_switch_denies_more_and_returns(self):
        self.node.start(decision_ttl_ms=0)  # nothing is kept: each decision is a miss.
        self.addCleanup(self.node.stop)
        text = echo.platform_yaml([self.server.port], extra="""
    - {name: web-says, effect: allow, methods: [%s], callers: [{service: web}]}
""" % SAY)
        self.publish(text.replace("trustDomain: trilane.test}", "trustDomain: trilane.test, "
                                  "guardrails: {policy: {missPercent: 90, hold: 4s}}}"))
        stub = self.stub()
        self.assertIsNone(self.collect(stub))
        load = subprocess.Popen(
            [str(trilane.BUILD / "bench-load"), "--port", str(self.node.ports["listen"]), "--path",
             SAY, "--rate", "4000", "--connections", "2", "--streams", "64", "--warmup-ms", "0",
             "--duration-ms", "3000", "--header",
             "authorization: Bearer " + echo.TOKENS["stranger"]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(load.wait)
        trilane.wait_until(lambda: self.node.metric("trilane_policy_guard_thrown") == 1,
                           what="the kill switch to be thrown")
        stub.Say(pb.Words(text="x"), metadata=echo.token("web"))  # by the fast path.
        self.assertEqual(self.collect(stub), ("POLICY_DENIED", ""))
        trilane.wait_until(lambda: load.poll() is not None, what="the load to end")
        trilane.wait_until(lambda: self.collect(stub) is None, what="the rules to decide again")
        trilane.wait_until(lambda: self.node.metric("trilane_policy_guard_thrown") == 0,
                           what="the switch to be shown as back")
        self.assertGreaterEqual(self.node.metric("trilane_policy_guard_trips_total"), 1)
        self.assertGreaterEqual(self.node.metric("trilane_policy_guard_decisions_total"), 2)
        self.assertIn("path=fast", trilane.wait_until(
            lambda: "path=fast" in self.log.read_text() and self.log.read_text(),
            what="the line of the log"))


if __name__ == "__main__":
    unittest.main()
