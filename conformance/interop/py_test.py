"""gRPC's standard interop cases pass through a node, Python to Python, while the node tells its
connections to leave all the time; and that loses no call, and leaves an open stream alone."""

import socket
import unittest

import interop
import trilane

AGE_MS = 500


class Interop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.server = interop.Server()
        cls.addClassCleanup(cls.server.stop)
        cls.node, cls.strict = interop.serve(
            cls.platform, {"py": cls.server.port}, {"connection_max_age_ms": AGE_MS},
            {"connection_max_age_ms": AGE_MS, "connection_grace_ms": AGE_MS})

    def aged(self):
        return self.node.metric("trilane_connections_aged_total") or 0

    def test_cases(self):
        self.assertEqual(interop.failures(interop.address(self.node), "py-token"), {})

    def test_old_connections_leave_and_no_call_is_lost(self):
        """A stream that is open goes on over the end of its connection's time, beside calls that move
        on to new connections."""
        before = self.aged()
        client = interop.Client(interop.address(self.node), "py-token")
        self.addCleanup(client.close)
        with interop.Pings(client) as pings:
            calls = 0
            while self.aged() < before + 4:
                interop.empty_unary(client)
                interop.same(pings.ping(interop.asking(9)), 9)
                calls += 1
            self.assertGreater(calls, 4)

    def everything(self, port, sent):
        """What comes on a connection until the node closes it."""
        with socket.create_connection(("127.0.0.1", self.node.ports[port]), 30) as s:
            s.sendall(sent)
            return b"".join(iter(lambda: s.recv(4096), b""))

    def test_connections_without_calls_leave_as_well(self):
        settings = b"\0\0\0\4\0\0\0\0\0"
        frames = self.everything("listen", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        kinds = []
        while frames:
            kinds.append(frames[3])
            frames = frames[9 + int.from_bytes(frames[:3], "big"):]
        self.assertEqual(kinds.count(7), 2)  # GOAWAY: the notice, and the end.
        asked = b"GET http://127.0.0.1/ HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
        self.assertIn(b"HTTP/1.1 4", self.everything("listen-proxy", asked))
        self.assertEqual(self.everything("listen", b""), b"")

    def test_behind_its_grace_a_connection_is_cut(self):
        """With the stream that is open on it."""
        client = interop.Client(interop.address(self.strict), "py-token")
        self.addCleanup(client.close)
        pings = interop.Pings(client)
        interop.same(pings.ping(interop.asking(9)), 9)
        with self.assertRaises(interop.grpc.RpcError) as caught:
            next(pings.call)
        pings.queue.put(None)
        self.assertEqual(caught.exception.code(), interop.grpc.StatusCode.UNAVAILABLE)


if __name__ == "__main__":
    unittest.main()
