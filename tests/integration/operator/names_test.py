"""An endpoint by its name: all addresses are used, in turn; one that is not there is passed over; and
what the name server says later is taken when the time of its answer is over."""

import collections
import pathlib
import sys
import unittest

import grpc

import echo_service as echo
import trilane

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "proxy"))
import outside  # noqa: E402

pb = echo.pb


class Server(echo.Server):
    """One on an address of loopback, at a port that others have on theirs."""

    def __init__(self, name, address, port):
        self.echo = echo.Echo(name)
        self.grpc = grpc.server(echo.concurrent.futures.ThreadPoolExecutor(max_workers=8),
                                options=(("grpc.so_reuseport", 0),))
        echo.stubs.add_EchoServicer_to_server(self.echo, self.grpc)
        assert self.grpc.add_insecure_port("%s:%d" % (address, port)) == port
        self.grpc.start()


class Names(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.names = outside.Names({}, ttl=1)
        cls.addClassCleanup(cls.names.stop)
        cls.p = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.p.close)
        cls.cp = cls.p.control_plane().start(head_interval_ms=100)
        cls.node = cls.p.node("node-1", workers=1,
                              dns_servers="127.0.0.1:%d" % cls.names.port).start()

    def publish(self, name, port):
        text = echo.platform_yaml([port]).replace("address: 127.0.0.1", "address: %s" % name)
        before = self.node.version()
        self.cp("publish", "-m", "test", self.p.write_policies({"platform.yaml": text}))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it")

    def server(self, name, address, port):
        server = Server(name, address, port)
        self.addCleanup(server.stop)
        return server

    def setUp(self):
        channel = echo.channel(self.node)
        self.addCleanup(channel.close)
        self.stub = echo.stubs.EchoStub(channel)

    def who(self, times):
        """How often each answered; no call fails."""
        answers = (self.stub.Say(pb.Words(text="x"), timeout=60, metadata=echo.token("web"))
                   for _ in range(times))
        return dict(collections.Counter(a.text.split(" from ")[1] for a in answers))

    def test_all_addresses_are_used_and_followed(self):
        port = trilane.free_port()
        name = "many.test"
        self.names.names[name] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        a, b = (self.server(s, "127.0.0.%d" % (i + 1), port) for i, s in enumerate("ab"))
        c = self.server("c", "127.0.0.3", port)
        self.publish(name, port)
        self.assertEqual(self.who(30), {"a": 10, "b": 10, "c": 10})
        # Asked for once by a worker, not by each call.
        self.assertLessEqual(self.names.asked.count((name, 1)), 4)
        # Who is gone loses no call, and the others have all of them.
        c.stop()
        found = self.who(30)
        self.assertEqual(sum(found.values()), 30)
        trilane.wait_until(lambda: "c" not in self.who(6), what="the others to have all")
        # The name moves: away from a, to one that comes, while the first answer's time is over.
        self.server("d", "127.0.0.4", port)
        self.names.names[name] = ["127.0.0.2", "127.0.0.4"]
        trilane.wait_until(lambda: set(self.who(8)) == {"b", "d"}, what="the new addresses")
        calls = a.echo.calls
        self.assertEqual(self.who(20), {"b": 10, "d": 10})
        self.assertEqual(a.echo.calls, calls)
        # A name that is not found any more keeps what it had.
        self.names.names[name] = None
        asked = len(self.names.asked)
        trilane.wait_until(lambda: self.who(2) and len(self.names.asked) > asked + 2,
                           what="look-ups that fail")
        self.assertEqual(self.who(20), {"b": 10, "d": 10})

    def test_the_first_call_passes_over_who_is_not_there(self):
        port = trilane.free_port()
        self.names.names["half.test"] = ["127.0.0.5", "127.0.0.6"]
        self.server("six", "127.0.0.6", port)
        self.publish("half.test", port)
        self.assertEqual(self.who(20), {"six": 20})


if __name__ == "__main__":
    unittest.main(verbosity=2)
