"""Each flood of docs/floods.md against a real node with a real upstream, an honest caller beside it:
the attacker loses its stream or its connection as it should, is counted once and logged once, the
node's memory stays, and no honest call fails. And what smuggles, by HTTP/2: it reaches nobody."""

import pathlib
import re
import sys
import threading
import unittest

import grpc
import hpack

import attacks
import trilane

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "integration" / "operator"))
import echo_service as echo  # noqa: E402

MIB = 1 << 20
GROWTH_MAX = 48 * MIB  # of the node, by all floods one after the other.
SLOW_MS = 2000         # what slow ones are given here.
SAY = attacks.Target("/trilane.test.v1.Echo/Say", echo.token("web"))
MANY = attacks.Target("/trilane.test.v1.Echo/SayMany", echo.token("web"))
RULE = """    - name: not-to-prod
      effect: deny
      headers: [{name: x-env, value: prod}]
---
apiVersion: trilane.dev/v1
kind: Route
metadata: {name: by-header, tenant: acme}
spec:
  match: [{grpc: {service: trilane.test.v1.Echo}, headers: [{name: x-to, value: here}]}]
  targets: [{service: echo}]
"""


def message(**words):
    """A whole request, as the last frame of stream 1."""
    body = echo.pb.Words(**words).SerializeToString()
    return attacks.frame(attacks.DATA, attacks.END_STREAM, 1,
                         b"\0" + len(body).to_bytes(4, "big") + body)


def sections(c):
    """What HEADERS frames said, by stream: a list of dicts. None goes on in a CONTINUATION."""
    decoder, out = hpack.Decoder(), {}
    for kind, _, stream, payload in c.frames:
        if kind == attacks.HEADERS:
            out.setdefault(stream, []).append(dict(decoder.decode(payload)))
    return out


class Honest:
    """A caller that never stops, and to whom nothing may happen."""

    def __init__(self, node):
        self.failures = []
        self.calls = 0
        self._over = threading.Event()
        self._channel = echo.channel(node)
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self):
        stub = echo.stubs.EchoStub(self._channel)
        while not self._over.is_set():
            try:
                answer = stub.Say(echo.pb.Words(text="h", filler=b"f" * 100), metadata=echo.token("web"),
                                  timeout=trilane.PATIENCE_S)
                assert answer.text == "h from a", answer
                self.calls += 1
            except (grpc.RpcError, AssertionError) as problem:
                self.failures.append(repr(problem))
                return

    def goes_on(self, calls=3):
        """Waits for so many calls more; what failed, if anything."""
        wanted = self.calls + calls
        trilane.wait_until(lambda: self.failures or self.calls >= wanted, what="honest calls", step=0.01)
        return self.failures

    def end(self):
        self._over.set()
        self._thread.join()
        self._channel.close()


class Case(unittest.TestCase):
    """One platform, one node and one honest caller for all."""

    @classmethod
    def open(cls):
        cls.server = echo.Server("a")
        cls.platform = trilane.Platform(environment="dev")
        unittest.addModuleCleanup(cls.platform.close)
        unittest.addModuleCleanup(cls.server.stop)
        cp = cls.platform.control_plane().start(head_interval_ms=200)
        cls.node = cls.platform.node("attacked")
        # What is freed is to be seen as freed.
        cls.node.env["ASAN_OPTIONS"] = "quarantine_size_mb=1"
        # Bounds that a flood meets on a slow machine, too.
        cls.node.start(workers=2, access_log="off", header_timeout_ms=SLOW_MS,
                       write_timeout_ms=SLOW_MS, resets_per_second=40,
                       control_frames_per_second=200)
        text = echo.platform_yaml([cls.server.port], timeout="30s", extra=RULE)
        cp("publish", "-m", "test", cls.platform.write_policies({"platform.yaml": text}))
        trilane.wait_until(lambda: cls.node.version() > 0, what="the node to serve")
        cls.honest = Honest(cls.node)
        unittest.addModuleCleanup(cls.honest.end)

    def setUp(self):
        self.port = self.node.ports["listen"]

    def connect(self, port=None, **options):
        c = attacks.Connection(port or self.port, **options)
        self.addCleanup(c.sock.close)
        return c

    def counted(self, name, **labels):
        """A counter of the node, with just these labels."""
        _, _, text = trilane.http("GET", self.node.admin + "/metrics")
        wanted = name + ("{%s}" % ",".join('%s="%s"' % item for item in labels.items())
                         if labels else "") + " "
        values = [line for line in text.decode().splitlines() if line.startswith(wanted)]
        return float(values[0].rsplit(" ", 1)[1]) if values else 0.0

    def flooded(self, kind):
        return self.counted("trilane_connections_flooded_total", kind=kind)

    def memory(self):
        with open("/proc/%d/statm" % self.node.popen.pid, encoding="ascii") as statm:
            return int(statm.read().split()[1]) * 4096

    def expect_flooded(self, c, kind, before):
        """Counted once, logged once, and told to whoever listens."""
        trilane.wait_until(lambda: self.flooded(kind) == before + 1, what="%s to be counted" % kind)
        lines = re.findall(r"event=flood peer=%s kind=(\w+)" % re.escape(c.name), self.node.log())
        self.assertEqual(lines, [kind])

    def expect_calm(self, c, kind, before):
        c.read_to_end()
        self.assertEqual(c.goaway, attacks.ENHANCE_YOUR_CALM)
        self.expect_flooded(c, kind, before)


def setUpModule():
    Case.open()


class Floods(Case):
    def test_floods(self):
        self.assertEqual(self.honest.goes_on(), [])
        memory = self.memory()
        for flood in attacks.FLOODS:
            with self.subTest(flood=flood.name):
                before = self.flooded(flood.kind)
                c = self.connect()
                c.send(flood.bytes(SAY))
                self.expect_calm(c, flood.kind, before)
                self.assertEqual(self.honest.goes_on(), [])
        self.assertLess(self.memory() - memory, GROWTH_MAX)
        trilane.wait_until(lambda: self.node.metric("trilane_requests_open") <= 1,
                           what="all that they began to end")

    def test_slow_ones(self):
        """They wait at the same time: each is over when its time is."""
        heads = self.flooded("slow_head")
        unread = self.flooded("unread")
        streams = self.counted("trilane_streams_unread_total")
        cut_head, cut_section, cut_frame, body, reader, deaf = (
            self.connect(receive_buffer=4096) for _ in range(6))
        cut_head.start(SAY.call()[:40])
        cut_section.start(attacks.frame(attacks.HEADERS, 0, 1, SAY.section()))
        cut_frame.start(attacks.frame(attacks.PING, 0, 0, bytes(8))[:-1])
        body.start(SAY.call(more=attacks.literal("grpc-timeout", "1S")) +
                   attacks.frame(attacks.DATA, 0, 1, b"\0\0\0\1\0begun"))
        reader.start(attacks.setting(4, 0) + SAY.call() + message(text="to nobody"))
        # A stream and a connection of any window, and a socket that nobody empties.
        deaf.start(attacks.setting(4, 0x7fffffff) + attacks.window(0, 0x7fff0000) + MANY.call() +
                   message(text="x", count=1000000, filler=b"z" * 10000))
        old = attacks.http1(self.node.ports["listen-proxy"], b"GET http://x/ HTTP/1.1\r\nHost: ")
        self.assertTrue(old.startswith(b"HTTP/1.1 408 "), old)
        for c in (cut_head, cut_section, cut_frame):
            c.read_to_end()
            self.assertEqual(c.goaway, attacks.ENHANCE_YOUR_CALM)
        trilane.wait_until(lambda: self.flooded("slow_head") == heads + 4, what="them to be counted")
        trilane.wait_until(lambda: self.flooded("unread") == unread + 1, what="the deaf one")
        for c, kind in ((cut_head, "slow_head"), (cut_section, "slow_head"),
                        (cut_frame, "slow_head"), (deaf, "unread")):
            lines = re.findall(r"event=flood peer=%s kind=(\w+)" % re.escape(c.name),
                               self.node.log())
            self.assertEqual(lines, [kind])
        self.assertTrue(body.read_until(lambda c: "grpc-status" in sections(c).get(1, [{}])[-1]))
        self.assertEqual(sections(body)[1][-1]["grpc-status"], "4")
        self.assertTrue(reader.read_until(lambda c: c.resets.get(1) == attacks.CANCEL))
        self.assertEqual(self.counted("trilane_streams_unread_total"), streams + 1)
        self.assertEqual(self.honest.goes_on(), [])

    def test_what_is_too_long(self):
        """It is answered, and the connection goes on."""
        before = self.counted("trilane_headers_too_large_total")
        more = attacks.literal("x-more", "v" * 15000)
        c = self.connect()
        c.start(attacks.frame(attacks.HEADERS, attacks.END_STREAM, 1, SAY.section()) +
                attacks.frame(attacks.CONTINUATION, 0, 1, more) * 2 +
                attacks.frame(attacks.CONTINUATION, attacks.END_HEADERS, 1, more) +
                attacks.frame(attacks.PING, 0, 0, b"still on"))
        self.assertTrue(c.read_until(lambda c: 1 in sections(c)))
        self.assertEqual(sections(c)[1][0]["x-trilane-code"], "HEADERS_TOO_LARGE")
        self.assertTrue(c.read_until(lambda c: (attacks.PING, 1, 0, b"still on") in c.frames))
        trilane.wait_until(lambda: self.counted("trilane_headers_too_large_total") == before + 1,
                           what="the metric")
        old = attacks.http1(self.node.ports["listen-proxy"],
                            b"GET http://x/%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"p" * 40000))
        self.assertTrue(old.startswith(b"HTTP/1.1 431 "), old)


class Smuggling(Case):
    """One request, and two who read it: whatever they could read in two ways reaches nobody."""

    def ask(self, section, text="smuggled"):
        """What became of a call with these fields: a code of ours, "OK", or the code of a reset."""
        c = self.connect()
        c.start(attacks.frame(attacks.HEADERS, attacks.END_HEADERS, 1, section) +
                message(text=text))
        self.assertTrue(c.read_until(lambda c: 1 in c.resets or any(
            kind == attacks.HEADERS and flags & attacks.END_STREAM
            for kind, flags, _, _ in c.frames)), c.goaway)
        fields = {}
        for part in sections(c).get(1, []):
            fields.update(part)
        c.sock.close()
        if "x-trilane-code" in fields:
            return fields["x-trilane-code"]
        return "OK" if fields.get("grpc-status") == "0" else c.resets.get(1)

    def expect(self, outcome, sections):
        for name, section in sections.items():
            with self.subTest(name):
                self.assertEqual(self.ask(section), outcome)

    def tearDown(self):
        self.assertNotIn("smuggled", self.server.echo.texts)
        self.assertEqual(self.honest.goes_on(), [])

    def test_what_breaks_http(self):
        fields = {"a capital": ("X-Upper", "1"), "a blank in a name": ("x y", "1"),
                  "no name": ("", "1"), "CR": ("x-v", "a\rb"), "LF": ("x-v", "a\nx-env: prod"),
                  "NUL": ("x-env", "prod\0"), "white space in front": ("x-env", " prod"),
                  "a path again": (":path", SAY.path), "a method behind": (":method", "GET"),
                  "an unknown pseudo field": (":evil", "1"), "a length that lies": ("content-length", "3"),
                  "a length with a sign": ("content-length", "+20")}
        fields.update({name: (name, "x") for name in (
            "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")})
        sections = {name: SAY.section() + attacks.literal(*field) for name, field in fields.items()}
        sections.update({
            "two lengths": SAY.section() + attacks.literal("content-length", "15") * 2,
            "two hosts": SAY.section(pseudo_authority=None) + attacks.literal("host", "a") * 2,
            "te": SAY.section(te="gzip"), "no path": SAY.section(pseudo_path=None),
            "an empty path": SAY.section(pseudo_path=""),
            "NUL in the path": SAY.section(pseudo_path=SAY.path + "\0"),
            "no authority": SAY.section(pseudo_authority=None)})
        self.expect(1, sections)

    def test_who_is_asked_said_twice(self):
        self.assertEqual(self.ask(SAY.section(host="ATTACKED.test"), text="same"), "OK")
        self.expect("PROTOCOL_ERROR", {
            "another host": SAY.section(host="other.test"),
            "another port": SAY.section(host="attacked.test:81"),
            "a user": SAY.section(pseudo_authority="me@attacked.test"),
            "two ports": SAY.section(pseudo_authority="attacked.test:80:81")})

    def test_fields_that_decide_are_there_once(self):
        def twice(name, *values):
            return SAY.section() + b"".join(attacks.literal(name, value) for value in values)
        self.expect("POLICY_DENIED", {"once": twice("x-env", "prod")})
        self.expect("HEADER_REPEATED", {
            "in front": twice("x-env", "prod", "dev"), "behind": twice("x-env", "dev", "prod"),
            "alike": twice("x-env", "dev", "dev"), "of a route": twice("x-to", "here", "there")})
        self.expect("CONTEXT_INVALID", {
            "tenant": twice("x-tenant-id", "acme", "acme"),
            "token": twice("authorization", "Bearer web-token")})
        self.assertEqual(self.ask(twice("x-free", "a", "b"), text="free"), "OK")

    def test_paths(self):
        """A method has one path, byte by byte; there is none that would have to be normalised."""
        service = "/trilane.test.v1.Echo"
        for path in (service + "/Say/", "/" + service + "/Say", service + "//Say",
                     service + "/./Say", "/x/.." + service + "/Say", service + "/../Echo/Say",
                     service + "/%53ay", service + "%2fSay", service + "%2FSay", service + "\\Say",
                     service + "/Say?x=1", service + "/Say;x=1", service + "/Say%00", service + "/Say#f",
                     service.upper() + "/Say", service + "./Say", service + "/Say ", "*",
                     "http://attacked.test" + service + "/Say"):
            with self.subTest(path):
                self.assertIn(self.ask(SAY.section(pseudo_path=path)), ("NO_ROUTE", 1))


if __name__ == "__main__":
    unittest.main()
