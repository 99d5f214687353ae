"""Quotas over the ends of a node: SIGTERM loses nothing, kill -9 gives nothing back."""

import unittest

import grpc

import echo_service as echo
import trilane

pb = echo.pb
QUOTA = 256  # of a month: that it ends within the test is once in a million.
RESERVE = 4  # a sixty-fourth.

LIMIT = """
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: month, tenant: acme}
spec: {target: {service: echo}, by: [caller], quota: %d/month}
""" % QUOTA


class Quotas(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        echo.begin(cls)
        cls.node = cls.platform.node("node-1", workers=2)
        cls.node.start(good_after_ms=10)
        echo.publish_first(cls, [cls.node], LIMIT)

    def say(self, stub):
        """None, or the error of a call."""
        try:
            stub.Say(pb.Words(text="x"), timeout=60, metadata=echo.token("web"))
            return None
        except grpc.RpcError as error:
            return error

    def calls(self, most):
        """How many of so many pass; where the disk is waited for, they are said again."""
        passed = 0
        with echo.channel(self.node, grpc__use_local_subchannel_pool=1) as channel:
            stub = echo.stubs.EchoStub(channel)
            while passed < most:
                error = self.say(stub)
                if error is None:
                    passed += 1
                    continue
                details = dict(error.trailing_metadata() or ())
                self.assertEqual(details["x-trilane-code"], "RATE_LIMITED", error)
                if int(details["grpc-retry-pushback-ms"]) > 1000:
                    self.assertIn(": retry in", error.details())
                    break  # until the month is over.
                self.assertIn("waits for the disk to know what it counted", error.details())
        return passed

    def again(self):
        self.node.start(good_after_ms=10)
        self.wait_good()

    def wait_good(self):
        """A node that is killed three times before takes its snapshot for the reason."""
        trilane.wait_until(lambda: self.node.dump()["state"] == "GOOD", what="a good snapshot")

    def test_ends_of_a_node(self):
        self.wait_good()
        self.assertEqual(self.calls(40), 40)
        self.assertEqual(self.node.stop(), 0)
        self.again()
        self.assertEqual(self.calls(40), 40)
        self.node.kill()
        self.again()
        self.assertEqual(self.calls(40), 40)
        self.node.kill()
        self.again()
        rest = self.calls(QUOTA)
        self.assertLessEqual(rest, QUOTA - 120)  # never over,
        self.assertGreaterEqual(rest, QUOTA - 120 - 2 * RESERVE)  # nor much below.
        self.assertEqual(self.calls(1), 0)
        _, _, text = trilane.http("GET", self.node.admin + "/metrics")
        self.assertIn('trilane_limit_refusals_total{limit="acme/month",why="quota"}',
                      text.decode())


if __name__ == "__main__":
    unittest.main()
