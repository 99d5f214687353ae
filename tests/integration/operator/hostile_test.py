"""The operator lane between peers that break the rules: each gets the protocol's own error, with a
code of docs/errors.md, and the node goes on."""

import os
import socket
import time
import unittest

import h2.errors
import h2.settings

import echo_service as echo
import raw_h2
import trilane
import web_client as web
from raw_h2 import message

MIB = 1 << 20


def once(first, then):
    """A behaviour for the first exchange, another for the later ones."""
    turns = []

    def behave(exchange):
        turns.append(exchange)
        (first if len(turns) == 1 else then)(exchange)
    return behave


def fine(exchange):
    exchange.answer(exchange.body)


def reset_midway(exchange):
    exchange.answer(message(b"one"), trailers=None)
    exchange.refuse(h2.errors.ErrorCodes.INTERNAL_ERROR)


def close_midway(exchange):
    exchange.answer(message(b"one"), trailers=None)
    exchange.close()


def late_refusal(exchange):
    exchange.send_headers(raw_h2.OK)
    exchange.refuse()


def goes_away(exchange):
    exchange.goaway(last=exchange.stream - 2 if exchange.stream > 1 else 0)


def takes(fields):
    """Says from now on how many bytes of fields it takes."""
    def behave(exchange):
        exchange.peer.h2.update_settings({h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: fields})
        fine(exchange)
    return behave


def spoof(exchange):
    exchange.answer(b"", fields=raw_h2.OK + [("x-trilane-version", "99"), ("content-length", "0")],
                    trailers=raw_h2.STATUS_OK + [("x-trilane-code", "FAKE"),
                                                 ("x-trilane-other", "x")])


def nanoseconds(timeout):
    """What a grpc-timeout says."""
    return int(timeout[:-1]) * {"n": 1, "u": 1e3, "m": 1e6, "S": 1e9}[timeout[-1]]


BEHAVIOURS = {
    "Fine": fine,
    "Http502": lambda e: e.send_headers([(":status", "502")], end=True),
    "Html": lambda e: e.answer(b"<html>", fields=[(":status", "200"), ("content-type", "text/html")]),
    "NoTrailers": lambda e: (e.send_headers(raw_h2.OK), e.send(message(b"x"), end=True)),
    "NoStatus": lambda e: e.answer(message(b"x"), trailers=[("x-other", "1")]),
    "NoStatusAtAll": lambda e: e.send_headers(raw_h2.OK, end=True),
    "ResetMidway": reset_midway,
    "CloseMidway": close_midway,
    "ResetAtOnce": lambda e: e.refuse(h2.errors.ErrorCodes.INTERNAL_ERROR),
    "CloseAtOnce": lambda e: e.close(),
    "RefuseOnce": once(lambda e: e.refuse(), fine),
    "RefuseAlways": lambda e: e.refuse(),
    "LateRefusal": late_refusal,
    "GoAwayOnce": once(goes_away, fine),
    "Flag7": lambda e: e.answer(message(b"x", flag=7)),
    "Truncated": lambda e: e.answer(message(b"abc", size=10)),
    "TooLarge": lambda e: e.answer(message(b"abc", size=2 * MIB)),
    "ManyHeaders": lambda e: e.answer(
        fields=raw_h2.OK + [("x-h%d" % i, "v" * 400) for i in range(100)]),
    "ManyAtOnce": lambda e: e.send_headers(
        raw_h2.OK + raw_h2.STATUS_OK + [("x-h%d" % i, "v" * 400) for i in range(100)], end=True),
    "ManyTrailers": lambda e: e.answer(message(b"x"), trailers=raw_h2.STATUS_OK + [
        ("x-h%d" % i, "v" * 400) for i in range(100)]),
    "Longer": lambda e: e.answer(message(b"x" * 50), fields=raw_h2.OK + [("content-length", "10")]),
    "Shorter": lambda e: e.answer(message(b"x"), fields=raw_h2.OK + [("content-length", "100")]),
    "Spoof": spoof,
    "TakesLittle": takes(1000),
    "TakesMuch": takes(1 << 16),
    "Compressed": lambda e: e.answer(e.body, fields=raw_h2.OK + [("grpc-encoding", "gzip")]),
}


class Hostile(unittest.TestCase):
    """A node between a caller and an upstream, both by hand."""

    @classmethod
    def setUpClass(cls):
        cls.upstream = raw_h2.Upstream(BEHAVIOURS)
        cls.addClassCleanup(cls.upstream.stop)
        cls.other = raw_h2.Upstream(BEHAVIOURS)
        cls.addClassCleanup(cls.other.stop)
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.cp = cls.platform.control_plane().start()
        cls.node = cls.platform.node("node-1", workers=1).start()
        cls.publish(cls.upstream.port)

    @classmethod
    def publish(cls, *ports):
        files = {"platform.yaml": echo.platform_yaml(ports)}
        before = cls.node.version()
        cls.cp("publish", "-m", "test", cls.platform.write_policies(files))
        trilane.wait_until(lambda: cls.node.version() > before, what="the node to serve it")

    def setUp(self):
        self.caller = raw_h2.Caller(self.node.ports["listen"])
        self.addCleanup(self.caller.sock.close)

    def call(self, method, *bodies, extra=()):
        return self.caller.call("/trilane.test.v1.Echo/" + method, *(bodies or (message(b"hi"),)),
                                metadata=echo.token("web"), extra=extra)

    def expect(self, answer, status, code):
        self.assertEqual((answer.status, answer.code), (str(status), code))

    def tearDown(self):
        answer = self.call("Fine")
        self.assertEqual((answer.status, answer.body), ("0", message(b"hi")), "the node goes on")

    # ---- upstreams ----

    def test_upstream_that_speaks_no_grpc(self):
        answer = self.call("Http502")
        self.expect(answer, 14, "UPSTREAM_MALFORMED")
        self.assertIn("502", answer.fields["grpc-message"])
        answer = self.call("Html")
        self.expect(answer, 14, "UPSTREAM_MALFORMED")
        self.assertIn("text/html", answer.fields["grpc-message"])

    def test_answer_without_status(self):
        for method in ("NoTrailers", "NoStatus", "NoStatusAtAll"):
            self.expect(self.call(method), 14, "UPSTREAM_MALFORMED")

    def test_upstream_ends_midway(self):
        for method in ("ResetMidway", "CloseMidway"):
            answer = self.call(method)
            self.expect(answer, 14, "UPSTREAM_RESET")
            self.assertEqual(answer.body, message(b"one"))
            self.assertEqual(answer.headers[":status"], "200")
            self.assertIn("HTTP/2 code", answer.fields["grpc-message"])
            self.assertNotIn("x-trilane-rule", answer.fields)

    def test_what_may_have_been_done_is_not_sent_again(self):
        for method in ("ResetAtOnce", "CloseAtOnce", "LateRefusal"):
            self.expect(self.call(method), 14, "UPSTREAM_RESET")
            self.assertEqual(len(self.upstream.seen(method)), 1, method)

    def test_what_nobody_saw_is_sent_once_more(self):
        for method in ("RefuseOnce", "GoAwayOnce"):
            answer = self.call(method, message(b"ab") + message(b"c")[:3], message(b"c")[3:])
            self.assertEqual(answer.status, "0", method)
            seen = self.upstream.seen(method)
            self.assertEqual([e.body for e in seen[1:]], [message(b"ab") + message(b"c")])
            self.assertEqual(len(seen), 2)
        self.assertIsNot(*[e.peer for e in self.upstream.seen("GoAwayOnce")])
        before = len(self.upstream.seen("RefuseAlways"))
        self.expect(self.call("RefuseAlways"), 14, "UPSTREAM_RESET")
        self.assertEqual(len(self.upstream.seen("RefuseAlways")), before + 2)

    def test_upstream_that_goes_away_under_load(self):
        """It answers what it took, and none of 90 calls at once is lost."""
        self.publish(self.other.port)
        self.addCleanup(self.publish, self.upstream.port)
        self.other.leave_at = 30
        streams = [self.caller.start("/trilane.test.v1.Echo/Fine", echo.token("web"))
                   for _ in range(90)]
        for i, stream in enumerate(streams):
            self.caller.send(stream, message(b"%d" % i), end=True)
        for i, stream in enumerate(streams):
            answer = self.caller.wait(stream)
            self.assertEqual((answer.status, answer.body), ("0", message(b"%d" % i)))
        self.assertGreater(self.other.ignored, 0)

    def test_upstream_that_goes_away_and_listens_no_more(self):
        """Calls go to the other endpoint, however long one goes on at the first."""
        held = []
        leaving = raw_h2.Upstream({"Fine": fine, "Hang": held.append})
        self.addCleanup(leaving.stop)
        self.publish(leaving.port)
        self.addCleanup(self.publish, self.upstream.port)
        stream = self.caller.start("/trilane.test.v1.Echo/Hang", echo.token("web"),
                                   extra=(("grpc-timeout", "10M"),))
        self.caller.send(stream, message(b"hi"), end=True)
        trilane.wait_until(lambda: held, what="the call to arrive")
        self.publish(leaving.port, self.upstream.port)
        held[0].goaway(last=held[0].stream)
        leaving.listener.shutdown(socket.SHUT_RDWR)
        leaving.listener.close()
        for _ in range(4):
            self.assertEqual(self.call("Fine", extra=(("grpc-timeout", "20S"),)).status, "0")
        self.assertFalse(self.caller.answers[stream].ended)

    def test_what_is_too_large_to_keep_is_not_sent_again(self):
        before = len(self.upstream.seen("RefuseAlways"))
        body = message(b"k" * 100000)
        pieces = [body[i:i + 16000] for i in range(0, len(body), 16000)]
        self.expect(self.call("RefuseAlways", *pieces), 14, "UPSTREAM_RESET")
        self.assertEqual(len(self.upstream.seen("RefuseAlways")), before + 1)

    def test_framing_of_answers(self):
        self.expect(self.call("Flag7"), 14, "UPSTREAM_MALFORMED")
        self.expect(self.call("Truncated"), 14, "UPSTREAM_MALFORMED")
        self.expect(self.call("TooLarge"), 8, "MESSAGE_TOO_LARGE")

    def test_headers_of_answers_over_the_bound(self):
        self.expect(self.call("ManyHeaders"), 8, "HEADERS_TOO_LARGE")
        self.expect(self.call("ManyAtOnce"), 8, "HEADERS_TOO_LARGE")
        self.expect(self.call("ManyTrailers"), 8, "HEADERS_TOO_LARGE")

    def test_fields_that_an_upstream_does_not_take(self):
        """They stay here: some servers refuse the next stream, too, which is another caller's."""
        large = [("x-large", "v" * 1000)]
        self.assertEqual(self.call("TakesLittle", extra=large).status, "0")
        self.assertEqual(self.call("Fine").status, "0")
        seen = len(self.upstream.exchanges)
        self.expect(self.call("Fine", extra=large), 8, "HEADERS_TOO_LARGE")
        self.assertEqual(len(self.upstream.exchanges), seen)
        self.assertEqual(self.call("TakesMuch").status, "0")
        self.assertEqual(self.call("Fine").status, "0")
        self.assertEqual(self.call("Fine", extra=large).status, "0")

    def test_content_length_of_answers(self):
        for method in ("Longer", "Shorter"):
            self.expect(self.call(method), 14, "UPSTREAM_RESET")

    def test_answers_do_not_speak_for_the_node(self):
        answer = self.call("Spoof")
        self.assertEqual(answer.status, "0")
        self.assertFalse([name for name in answer.fields if name.startswith("x-trilane-")])

    # ---- callers ----

    def test_compressed_messages_pass_untouched(self):
        body = message(b"\x1f\x8bnot looked into", flag=1)
        answer = self.call("Compressed", body, extra=(("grpc-encoding", "gzip"),
                                                      ("grpc-accept-encoding", "gzip")))
        self.assertEqual((answer.body, answer.headers["grpc-encoding"]), (body, "gzip"))
        seen = self.upstream.seen("Compressed")[-1]
        self.assertEqual((seen.body, seen.headers["grpc-encoding"],
                          seen.headers["grpc-accept-encoding"]), (body, "gzip", "gzip"))

    def test_framing_of_requests(self):
        self.expect(self.call("Fine", message(b"x", flag=7)), 13, "PROTOCOL_ERROR")
        self.expect(self.call("Fine", message(b"abc", size=10)), 13, "PROTOCOL_ERROR")
        self.expect(self.call("Fine", message(b"abc", size=2 * MIB)), 8, "MESSAGE_TOO_LARGE")

    def test_content_length_of_requests(self):
        for length in ("3", "300"):
            before = len(self.upstream.seen("Fine"))
            answer = self.call("Fine", message(b"0123456789"), extra=(("content-length", length),))
            self.assertEqual(answer.reset, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            for exchange in self.upstream.seen("Fine")[before:]:
                trilane.wait_until(lambda e=exchange: e.reset is not None, what="the upstream's end")

    def test_watchers_without_number_leave_room_for_checks(self):
        """Whoever asks whether the node lives is not to hear that others watch it."""
        watch, check = ("/grpc.health.v1.Health/" + name for name in ("Watch", "Check"))
        for _ in range(41):  # 100 streams each: a few more than a worker holds.
            caller = raw_h2.Caller(self.node.ports["listen"])
            self.addCleanup(caller.sock.close)
            for _ in range(100):
                caller.h2.send_data(caller.start(watch, flush=False), message(b""))
            caller.flush()
        last = max(caller.answers)
        self.expect(caller.wait(last), 8, "OVERLOADED")
        answer = self.caller.call(check, message(b""))
        self.assertEqual((answer.status, answer.body), ("0", message(b"\x08\x01")))

    def test_a_question_about_health_that_ends_with_trailers(self):
        for body, status, code in ((message(b""), "0", None), (b"", "3", "MALFORMED"),
                                   (message(b"")[:3], "3", "MALFORMED")):
            stream = self.caller.start("/grpc.health.v1.Health/Check", flush=False)
            self.caller.h2.send_data(stream, body)
            self.caller.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
            self.caller.flush()
            answer = self.caller.wait(stream)
            self.assertEqual((answer.status, answer.code), (status, code))

    def test_deadline_that_does_not_parse(self):
        for name, value in (("grpc-timeout", "soon"), ("grpc-timeout", "-1S"),
                            ("x-request-timeout-ms", "1.5")):
            self.assertEqual(self.call("Fine", extra=((name, value),)).code, "CONTEXT_INVALID")
        self.expect(self.call("Fine", extra=(("grpc-timeout", "0S"),)), 4, "DEADLINE_EXCEEDED")

    def test_deadline_goes_on_with_what_is_left(self):
        """As it was sent, less what passed; the profile's where there was none."""
        for extra, most in (((("grpc-timeout", "30S"),), 30e9),
                            ((("x-request-timeout-ms", "20000"),), 20e9), ((), 5e9)):
            self.assertEqual(self.call("Fine", extra=extra).status, "0")
            headers = self.upstream.seen("Fine")[-1].headers
            left = nanoseconds(headers["grpc-timeout"])
            self.assertTrue(most - 5e9 < left <= most, headers["grpc-timeout"])
            self.assertNotIn("x-request-timeout-ms", headers)

    def test_fields_that_would_be_read_two_ways(self):
        self.expect(self.call("Fine", extra=(("x-tenant-id", "acme"), ("x-tenant-id", "acme"))),
                    3, "CONTEXT_INVALID")
        answer = self.call("Fine", extra=(("x_caller_id", "evil"), ("x-trilane-code", "evil"),
                                          ("x_tenant_id", "globex"), ("x-kept", "1")))
        self.assertEqual(answer.status, "0")
        seen = self.upstream.seen("Fine")[-1]
        self.assertEqual(seen.headers["x-kept"], "1")
        for name in ("x_caller_id", "x-trilane-code", "x_tenant_id", "authorization"):
            self.assertNotIn(name, seen.headers)
        names = [name for name, _ in seen.fields]
        self.assertEqual(sorted(names), sorted(set(names)), "each field once")


class NeverReads(unittest.TestCase):
    """A caller that never reads, and one that leaves while the node connects."""

    def setUp(self):
        self.platform = trilane.Platform(environment="dev")
        self.addCleanup(self.platform.close)
        self.cp = self.platform.control_plane().start()
        self.node = self.platform.node("node-1", workers=1).start()

    def publish(self, ports, **options):
        files = {"platform.yaml": echo.platform_yaml(ports, **options)}
        before = self.node.version()
        self.cp("publish", "-m", "test", self.platform.write_policies(files))
        trilane.wait_until(lambda: self.node.version() > before, what="the node to serve it")

    def memory(self):
        with open("/proc/%d/statm" % self.node.popen.pid, encoding="ascii") as statm:
            return int(statm.read().split()[1]) * 4096

    def test_callers_that_never_read(self):
        server = echo.Server("a")
        self.addCleanup(server.stop)
        self.publish([server.port], timeout="60s")
        request = message(echo.pb.Words(text="x", count=1000000,
                                        filler=b"z" * 1000).SerializeToString())
        before = self.memory()
        callers = [raw_h2.Caller(self.node.ports["listen"], reads=False,
                                 settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30})
                   for _ in range(4)]
        for caller in callers:
            self.addCleanup(caller.sock.close)
            for _ in range(6):
                stream = caller.start("/trilane.test.v1.Echo/SayMany", echo.token("web"))
                caller.send(stream, request, end=True)
        trilane.wait_until(lambda: server.echo.calls == 24, what="all calls to arrive")
        sizes = []

        def settled():
            sizes.append(self.memory())
            return len(sizes) > 10 and max(sizes[-10:]) - min(sizes[-10:]) < MIB // 4
        trilane.wait_until(settled, what="the memory to stay", step=0.1)
        # 24 answers of a gigabyte each take a window each, and a connection its output.
        self.assertLess(self.memory() - before, 24 * MIB + 4 * 2 * MIB)
        with echo.channel(self.node) as channel:
            stub = echo.stubs.EchoStub(channel)
            answer = stub.Say(echo.pb.Words(text="by"), timeout=60, metadata=echo.token("web"))
            self.assertEqual(answer.text, "by from a")

    def test_what_waited_for_a_slow_page_is_given_back(self):
        """And not kept by its connection until that asks again."""
        server = echo.Server("a")
        self.addCleanup(server.stop)
        node = self.node = self.platform.node("node-2", workers=1)
        node.env["ASAN_OPTIONS"] = (os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=0"
                                    ":thread_local_quarantine_size_kb=0")
        node.start()
        self.publish([server.port], timeout="60s")
        body = web.frame(echo.pb.Words(text="x", count=250, filler=b"z" * 30000).SerializeToString())
        ask = ("POST /trilane.test.v1.Echo/SayMany HTTP/1.1\r\nhost: echo.test\r\n"
               "content-type: %s\r\nauthorization: Bearer web-token\r\ncontent-length: %d\r\n\r\n"
               % (web.BINARY, len(body))).encode() + body
        before = self.memory()
        pages = [socket.socket() for _ in range(8)]
        for page in pages:
            self.addCleanup(page.close)
            page.settimeout(60)
            page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            page.connect(("127.0.0.1", node.ports["listen"]))
            page.sendall(ask)
        trilane.wait_until(lambda: self.memory() - before > 12 * MIB, what="answers that wait")
        for page in pages:
            end = b""
            while not end.endswith(b"\r\n0\r\n\r\n"):
                end = end[-64:] + page.recv(1 << 20)
        trilane.wait_until(lambda: node.metric("trilane_requests_open") == 0, what="their end")
        idle = self.memory()
        for page in pages:
            page.close()
        trilane.wait_until(lambda: node.metric("trilane_connections") == 0, what="the closing")
        self.assertLess(idle - self.memory(), 2 * MIB)

    def test_caller_leaves_while_the_node_connects(self):
        """The upstream accepts and says nothing: TLS never ends."""
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        self.publish([silent.getsockname()[1]], timeout="30s",
                     profile="upstream: {tls: tls}, connectTimeout: 8s")
        caller = raw_h2.Caller(self.node.ports["listen"])
        self.addCleanup(caller.sock.close)
        streams = [caller.start("/trilane.test.v1.Echo/Say", echo.token("web")) for _ in range(3)]
        caller.send(streams[0], message(b"x"), end=True)
        trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 3, what="the calls")
        caller.reset(streams[0])
        caller.reset(streams[1])
        trilane.wait_until(lambda: self.node.metric("trilane_requests_open") == 1, what="two to end")
        # The third hears of connectTimeout.
        answer = caller.wait(streams[2])
        self.assertEqual((answer.status, answer.code), ("14", "UPSTREAM_CONNECT"))

    def test_silent_stream_ends_at_idle_timeout(self):
        server = echo.Server("a")
        self.addCleanup(server.stop)
        self.publish([server.port], timeout="60s", profile="idleTimeout: 4s")
        caller = raw_h2.Caller(self.node.ports["listen"])
        self.addCleanup(caller.sock.close)
        stream = caller.start("/trilane.test.v1.Echo/Chat", echo.token("web"))
        word = message(echo.pb.Words(text="w").SerializeToString())
        for turn in range(1, 5):  # while it talks it lives, for longer than the bound in all.
            caller.send(stream, word)
            while len(caller.answers[stream].body) < turn * len(
                    message(echo.pb.Words(text="re: w").SerializeToString())):
                caller.pump()
            time.sleep(1.2)  # what is tested is time.
        answer = caller.wait(stream)
        self.assertEqual((answer.status, answer.code), ("4", "TIMEOUT"))


if __name__ == "__main__":
    unittest.main()
