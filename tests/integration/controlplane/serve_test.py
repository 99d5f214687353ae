"""The life of `trilane-cp serve` by its signals: a drain, a drain that is forced, certificates read
anew, and a second start on what the first one left."""

import pathlib
import signal
import socket
import ssl
import time
import unittest

import trilane
from trilane import Platform, free_port, wait_until


class Serve(unittest.TestCase):
    def setUp(self):
        self.p = Platform()
        self.addCleanup(self.p.close)

    def half_a_request(self, cp):
        """A request whose body never comes whole: what a drain waits for."""
        s = socket.create_connection(("127.0.0.1", cp.port), 60)
        s.sendall(("POST /api/v1/validate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                   "Content-Type: application/json\r\nAuthorization: Bearer %s\r\n"
                   "Expect: 100-continue\r\n\r\n" % cp.token()).encode())
        self.assertIn(b"100 Continue", s.recv(4096))  # the server has the head.
        s.sendall(b"{")
        self.addCleanup(s.close)
        return s

    @staticmethod
    def refuses(port):
        try:
            socket.create_connection(("127.0.0.1", port), 60).close()
            return False
        except ConnectionRefusedError:
            return True

    def test_drained(self):
        cp = self.p.control_plane().start(graceful_timeout_ms=60000, shutdown_timeout_ms=90000)
        wait_until(cp.leads, 60, "a leader")
        open_request = self.half_a_request(cp)
        cp.signal(signal.SIGTERM)
        wait_until(lambda: "event=drains" in cp.log(), 60, "the drain")
        wait_until(lambda: self.refuses(cp.port), what="the port to be closed")
        open_request.sendall(b'"files":[]' + b" " * 88 + b"}")
        self.assertIn(b"DRAINING", open_request.recv(4096), "what was open is answered")
        self.assertEqual(cp.wait(), 0)

    def test_the_nats_user_is_in_a_file(self):
        """It is on no command line, both programs take it, and a file that others read is refused."""
        users = self.p.directory / "users"
        programs = [trilane.hide_nats_user(one, users / name) for name, one in (
            ("cp", self.p.control_plane()), ("node", self.p.node("node-1")))]
        cp, node = programs
        cp.start(head_interval_ms=100)
        wait_until(cp.leads, 60, "a leader")
        node.start(good_after_ms=100)
        cp("publish", "-m", "one", trilane.POLICIES)
        self.assertEqual(node.version(), 1)
        for program in programs:
            line = pathlib.Path("/proc/%d/cmdline" % program.popen.pid).read_bytes()
            self.assertIn(b"nats-urls", line)
            self.assertNotIn(b"-secret", line)
            self.assertNotIn("-secret", program.log())
            self.assertEqual(program.stop(), 0)
        for program in programs:
            path = program.flags["nats-user-file"]
            for mode, text, said in ((0o640, "cp:x\n", "nobody else may read; chmod 600"),
                                     (0o600, "no colon\n", "expected \"user:password\"")):
                path.chmod(mode)
                path.write_text(text)
                program.start(wait=False)
                self.assertNotEqual(program.wait(), 0)
                self.assertIn("nats-user-file: %s: " % path, program.log())
                self.assertIn(said, program.log())

    def test_a_drain_has_an_end(self):
        """The request never ends: graceful_timeout_ms ends it, and that is still a clean stop."""
        cp = self.p.control_plane().start(graceful_timeout_ms=300, shutdown_timeout_ms=20000)
        wait_until(cp.leads, 60, "a leader")
        self.half_a_request(cp)
        cp.signal(signal.SIGTERM)
        self.assertEqual(cp.wait(), 0)

    def test_forced(self):
        """Requests may go on for longer than the process may: 6."""
        cp = self.p.control_plane().start(graceful_timeout_ms=60000, shutdown_timeout_ms=700)
        wait_until(cp.leads, 60, "a leader")
        request = self.half_a_request(cp)
        started = time.monotonic()
        cp.signal(signal.SIGTERM)
        self.assertEqual(cp.wait(), 6)
        self.assertLess(time.monotonic() - started, 30)
        self.assertIn("event=forced", cp.log())
        request.close()
        # Nothing is left behind that keeps the next one from starting.
        cp.start(lease_ms=1000)
        wait_until(cp.leads, 60, "a leader after the forced end")
        self.assertEqual(cp.stop(), 0)

    def serial(self, port):
        context = ssl.create_default_context(cafile=str(self.p.ca))
        with socket.create_connection(("127.0.0.1", port), 60) as plain, \
                context.wrap_socket(plain, server_hostname="localhost") as tls:
            return tls.getpeercert()["serialNumber"]

    def test_certificates_are_read_anew(self):
        first = self.p.issue_service("platform", "first")
        second = self.p.issue_service("platform", "second")
        cert = self.p.directory / "api.pem"
        key = self.p.directory / "api.key"

        def use(pair):
            for source, target in ((pair["cert"], cert), (pair["key"], key)):
                with open(source, "rb") as file:
                    target.write_bytes(file.read())
                target.chmod(0o600)
        use(first)
        port = free_port()
        cp = self.p.control_plane(listen_tls="127.0.0.1:%d" % port, tls_cert=cert,
                                  tls_key=key).start()
        before = self.serial(port)
        use(second)
        self.assertEqual(self.serial(port), before, "not before it is told")
        cp.signal(signal.SIGHUP)
        wait_until(lambda: self.serial(port) != before, 60, "the new certificate")
        after = self.serial(port)
        key.write_text("this is no key")
        cp.signal(signal.SIGHUP)
        wait_until(lambda: "level=error module=serve event=reload" in cp.log(), 60, "the refusal")
        self.assertEqual(self.serial(port), after, "what cannot be read changes nothing")
        self.assertEqual(cp.stop(), 0)


if __name__ == "__main__":
    unittest.main()
