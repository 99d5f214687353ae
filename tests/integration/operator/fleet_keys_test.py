"""A rate by key that two nodes share: each key goes where it is asked for, by itself, and is never
passed more often than it may."""

import contextlib
import unittest

import echo_service as echo
import fleet_limits_test as fleet
import trilane

RATE = 40
BURST = 4
SPAN_S = 2

LIMIT = """
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: keys, tenant: acme}
spec: {target: {service: echo}, byHeaders: [x-key], rate: %d/s, burst: %d, scope: global}
""" % (RATE, BURST)


class Keys(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        echo.begin(cls)
        cls.nodes = [cls.platform.node("node-%d" % i, workers=2) for i in (1, 2)]
        for node in cls.nodes:
            node.start(status_interval_ms=1000)
        echo.publish_first(cls, cls.nodes, LIMIT)
        for node in cls.nodes:
            trilane.wait_until(lambda node=node: (node.metric("trilane_shares_total") or 0) >= 1,
                               what="shares of %s" % node.name)

    def expect_within(self, passed):
        """In any two seconds, of one key at both nodes."""
        passed = sorted(passed)
        for first, began in enumerate(passed):
            within = sum(1 for at in passed[first:first + 200] if at < began + SPAN_S)
            self.assertLessEqual(within, (SPAN_S * RATE + BURST) * 1.05 + len(self.nodes))

    def call(self, places):
        """Calls by (key, node) until each key has most of its budget; what passed of each."""
        with contextlib.ExitStack() as stack:
            callers = [(key, stack.enter_context(fleet.Callers(node, key)))
                       for key, node in places]
            keys = {key for key, _ in places}
            trilane.wait_until(
                lambda: all(sum(c.rate() for k, c in callers if k == key) >= 0.9 * RATE
                            for key in keys), what="the budget of each key")
        for _, c in callers:
            self.assertLessEqual(c.codes, {"RATE_LIMITED"})
        return {key: [at for k, c in callers if k == key for at in c.passed] for key in keys}

    def test_each_goes_by_itself(self):
        one, two = self.nodes
        before = self.call([("a", one), ("b", two)])
        after = self.call([("a", two), ("b", one)])
        for key in before:
            self.expect_within(before[key] + after[key])

    def test_one_that_is_everywhere(self):
        passed = self.call([("c", node) for node in self.nodes])
        self.expect_within(passed["c"])


if __name__ == "__main__":
    unittest.main()
