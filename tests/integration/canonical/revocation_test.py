"""The canonical lane and what is revoked: callers, on streams that are open, and types."""

import queue
import time
import unittest

import grpc

import bus_client as bus
import trilane


def revocation(**lists):
    spec = ", ".join("%s: ['%s']" % (name, value) for name, value in lists.items())
    return ["apiVersion: trilane.dev/v1\nkind: Revocation\nmetadata: {name: incident}\n"
            "spec: {%s}\n" % spec]


class Publisher:
    """A Publish stream that is open as long as it is let be."""

    def __init__(self, node, who="web"):
        self.requests = queue.Queue()
        self.channel = bus.channel(node)
        self.call = bus.bus_pb2_grpc.BusStub(self.channel).Publish(
            iter(self.requests.get, None), metadata=bus.token(who))

    def put(self, number, **fields):
        self.requests.put(bus.order(number, **fields))
        return next(self.call)

    def end(self):
        """The code that it ends with by itself, and after how many seconds."""
        began = time.monotonic()
        try:
            next(self.call)
            raise AssertionError("it was answered")
        except grpc.RpcError as error:
            return bus.code(error), time.monotonic() - began
        finally:
            self.close()

    def close(self):
        self.requests.put(None)
        self.channel.close()


class Revocations(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform()
        cls.addClassCleanup(cls.platform.close)
        cls.cp = cls.platform.control_plane().start(head_interval_ms=100)
        cls.node = cls.platform.node("node-1", workers=2).start()

    def setUp(self):
        self.turn = 0
        self.publish()

    def publish(self, extra=()):
        """Each time another limit, so that each time there is a version."""
        type(self).limit = getattr(self, "limit", 100) + 1
        bus.publish_sources(self.cp, [self.node], self.platform, extra=extra,
                            limit=("1000/s", self.limit))

    def subscriber(self, consumer, **options):
        s = bus.Subscriber(self.node, consumer, **options)
        self.addCleanup(s.kill)
        return s

    def refused_opening(self, consumer, **options):
        s = self.subscriber(consumer, **options)
        self.assertTrue(s.ended.wait(60))
        return bus.code(s.error)

    def ended(self, subscriber):
        began = time.monotonic()
        self.assertTrue(subscriber.ended.wait(bus.SOON), "it goes on after %.1f s" %
                        (time.monotonic() - began))
        return bus.code(subscriber.error)

    def test_callers(self):
        web, other = Publisher(self.node), Publisher(self.node, "other")
        self.addCleanup(other.close)
        reads, also = self.subscriber("one"), self.subscriber("two", who="web")
        self.assertGreater(web.put(1).sequence, 0)
        self.assertGreater(other.put(1).sequence, 0)
        reads.take()
        self.publish(revocation(identities="spiffe://trilane.test/tenant/acme/service/web"))
        code, seconds = web.end()
        self.assertEqual(code, "IDENTITY_REVOKED")
        self.assertLess(seconds, bus.SOON)
        self.assertEqual(self.ended(also), "IDENTITY_REVOKED")
        self.assertFalse(reads.ended.is_set())
        self.assertGreater(other.put(2).sequence, 0)
        self.assertEqual(self.refused_opening("two", who="web"), "IDENTITY_REVOKED")
        with self.assertRaises(grpc.RpcError) as caught:
            bus.bus_pb2_grpc.BusStub(other.channel).PublishOne(bus.order(3),
                                                               metadata=bus.token("web"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
        self.publish()
        again = Publisher(self.node)
        self.assertGreater(again.put(4).sequence, 0)
        again.close()

    def test_types(self):
        web = Publisher(self.node)
        self.addCleanup(web.close)
        blocked = self.subscriber("blocked", types=("Order.v2", "Line.v1"))
        lines = self.subscriber("lines", types=("Line.v1",))
        self.assertGreater(web.put(1).sequence, 0)
        blocked.take()
        self.publish(revocation(types="Order.v2"))
        self.assertEqual(self.ended(blocked), "SCHEMA_BLOCKED")
        self.assertEqual(self.refused_opening("blocked"), "SCHEMA_BLOCKED")
        answer = web.put(2)  # the stream goes on: each envelope is refused by itself.
        self.assertEqual(answer.refusal.code, "SCHEMA_BLOCKED")
        line = bus.order_pb2.Line(article="x").SerializeToString()
        self.assertGreater(web.put(3, canonical_type="Line.v1", payload=line).sequence, 0)
        self.assertEqual(lines.take().envelope.canonical_type, "Line.v1")
        with self.assertRaises(grpc.RpcError) as caught:
            bus.bus_pb2_grpc.BusStub(web.channel).PublishOne(
                bus.order(4, canonical_type="trilane.test.order.v2.Order"),
                metadata=bus.token("web"))
        self.assertEqual(bus.code(caught.exception), "SCHEMA_BLOCKED")
        self.publish()
        self.assertGreater(web.put(5).sequence, 0)
        self.subscriber("blocked").take()  # what lay in the stream is still there.


if __name__ == "__main__":
    unittest.main()
