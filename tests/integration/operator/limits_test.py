"""Limits as callers meet them: rates by header and caller among the workers of a node, calls in
flight, and what is left of a budget."""

import asyncio
import concurrent.futures
import socket
import unittest

import grpc
from websockets.legacy import client as sockets  # the same in Debian 12 and 13.

import echo_service as echo
import trilane
import web_client as web

pb = echo.pb


def limit(name, spec):
    return """
---
apiVersion: trilane.dev/v1
kind: RateLimit
metadata: {name: %s, tenant: acme}
spec: {target: {service: echo}, %s}
""" % (name, spec)


LIMITS = "".join([
    limit("by-key", "methods: [/trilane.test.v1.Echo/Say], byHeaders: [x-key], rate: 1/h, burst: 40"),
    limit("one-chat", "methods: [/trilane.test.v1.Echo/Chat], by: [caller], concurrency: 2"),
])


class Limits(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        echo.begin(cls)
        cls.node = cls.platform.node("node-1", workers=2)
        cls.node.start()
        echo.publish_first(cls, [cls.node], LIMITS)

    def stub(self):
        # A connection of its own, which one of the two workers has.
        channel = echo.channel(self.node, grpc__use_local_subchannel_pool=1)
        self.addCleanup(channel.close)
        return echo.stubs.EchoStub(channel)

    def say(self, stub, key):
        """None, or the error of a call whose x-key is that; None: without one."""
        metadata = echo.token("web") + (() if key is None else (("x-key", key),))
        try:
            stub.Say(pb.Words(text="x"), timeout=60, metadata=metadata)
            return None
        except grpc.RpcError as error:
            return error

    def details(self, error):
        return dict(error.trailing_metadata() or ())

    def left(self, name):
        _, _, text = trilane.http("GET", self.node.admin + "/metrics")
        found = [line for line in text.decode().splitlines()
                 if line.startswith('trilane_limit_left_ratio{limit="acme/%s"}' % name)]
        return float(found[0].rsplit(" ", 1)[1]) if found else None

    def test_a_key_has_its_burst_among_all_workers(self):
        stubs = [self.stub() for _ in range(8)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            errors = list(pool.map(lambda i: self.say(stubs[i % 8], "one"), range(120)))
        refused = [error for error in errors if error is not None]
        self.assertEqual(len(errors) - len(refused), 40)
        for error in refused:
            self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            details = self.details(error)
            self.assertEqual(details["x-trilane-code"], "RATE_LIMITED")
            self.assertGreater(int(details["grpc-retry-pushback-ms"]), 1000)
            self.assertIn("acme/by-key", error.details())
        self.assertIsNone(self.say(stubs[0], "two"))  # has a budget of its own.
        self.assertEqual(self.left("by-key"), 0)
        self.assertEqual(self.node.metric("trilane_limit_refusals_total"), 80)

    def test_without_the_header_a_call_is_refused(self):
        error = self.say(self.stub(), None)
        self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertEqual(self.details(error)["x-trilane-code"], "LIMIT_KEY_MISSING")
        self.assertIn("x-key", error.details())
        self.assertNotIn("grpc-retry-pushback-ms", self.details(error))

    def chat(self, stub, who="web", timeout=60):
        """An open stream, which has answered once; or its error."""
        said = iter([pb.Words(text="hello")])
        done = concurrent.futures.Future()

        def requests():
            yield next(said)
            done.result()  # until the test ends it.

        call = stub.Chat(requests(), timeout=timeout, metadata=echo.token(who))
        try:
            next(call)
        except grpc.RpcError as error:
            done.set_result(None)
            return None, error
        return (call, done), None

    def test_streams_are_in_flight_until_they_end(self):
        stubs = [self.stub() for _ in range(4)]
        open_ones = []
        for stub in stubs[:2]:
            chat, error = self.chat(stub)
            self.assertIsNone(error)
            open_ones.append(chat)
        for stub in stubs:
            chat, error = self.chat(stub)
            self.assertIsNone(chat)
            self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("grpc-retry-pushback-ms", self.details(error))
        self.assertEqual(self.left("one-chat"), 0)
        open_ones[0][1].set_result(None)  # one ends well,
        open_ones[1][0].cancel()          # and one is given up.
        chats = []

        def again():
            chat, _ = self.chat(stubs[2])
            chats.extend([chat] if chat else [])
            return len(chats) == 2

        trilane.wait_until(again, what="both places to be free again")
        self.assertIsNone(self.chat(stubs[3])[0])
        for chat in chats:
            chat[1].set_result(None)

    def leave_web(self, whole):
        """A call of gRPC-Web whose caller leaves, or whose body has an end."""
        body = web.frame(pb.Words(text="hello").SerializeToString())
        with socket.create_connection(("127.0.0.1", self.node.ports["listen"]), 60) as s:
            s.sendall(b"POST /trilane.test.v1.Echo/Chat HTTP/1.1\r\nHost: h\r\n"
                      b"Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\n"
                      b"Authorization: Bearer web-token\r\nTransfer-Encoding: chunked\r\n\r\n"
                      b"%x\r\n%s\r\n" % (len(body), body) + (b"0\r\n\r\n" if whole else b""))
            got = s.recv(65536)
            self.assertTrue(got)
            return b" 200 " in got and b"grpc-status: 8" not in got

    def leave_socket(self, closes):
        async def main():
            url = "ws://127.0.0.1:%d/trilane.test.v1.Echo/Chat" % self.node.ports["listen"]
            async with sockets.connect(url, compression=None, open_timeout=60,
                                       subprotocols=("grpc-websockets",)) as ws:
                await ws.send(b"authorization: Bearer web-token\r\n")
                await ws.send(b"\0" + web.frame(pb.Words(text="hello").SerializeToString()))
                got = await asyncio.wait_for(ws.recv(), 60)
                if not closes:
                    ws.transport.abort()
                return b"x-trilane-code" not in got
        return asyncio.run(main())

    def leave_grpc(self, stub, timeout):
        """A call that is cancelled, or ends at its deadline."""
        chat, _ = self.chat(stub, timeout=timeout)
        if chat is None:
            return False
        if timeout == 60:
            chat[0].cancel()
        else:
            self.assertRaises(grpc.RpcError, next, chat[0])
        chat[1].set_result(None)
        return True

    def test_whatever_ends_a_call_gives_its_place_back(self):
        stub = self.stub()
        ways = [lambda: self.leave_web(True), lambda: self.leave_web(False),
                lambda: self.leave_socket(True), lambda: self.leave_socket(False),
                lambda: self.leave_grpc(stub, 60), lambda: self.leave_grpc(stub, 0.2)]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:  # more than there are places.
            list(pool.map(lambda way: way(), ways * 3))
        for way in ways:  # none is kept for longer than its call.
            trilane.wait_until(way, what="a place to be free")
        chats = []

        def again():
            chat, _ = self.chat(stub)
            chats.extend([chat] if chat else [])
            return len(chats) == 2

        trilane.wait_until(again, what="both places to be free")
        self.assertIsNone(self.chat(stub)[0])  # and none was given back twice.
        for chat in chats:
            chat[1].set_result(None)


if __name__ == "__main__":
    unittest.main()
