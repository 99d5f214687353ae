"""What anyone who reaches the API may send, and what a stolen token may: answered with a code, and the
server lives. Each case is one request on one connection, written byte by byte."""

import base64
import json
import socket
import time
import unittest

from trilane import Platform, wait_until


class Hostile(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.cp = cls.p.control_plane().start(head_interval_ms=200, header_timeout_ms=4000,
                                             api_connections=8)
        wait_until(cls.cp.leads, 60, "a leader")

    def tearDown(self):
        self.assertTrue(self.cp.alive(), self.cp.log()[-2000:])

    def exchange(self, data, timeout=120):
        """Sends bytes; everything that comes back."""
        with socket.create_connection(("127.0.0.1", self.cp.port), timeout) as s:
            try:
                s.sendall(data)
            except OSError:
                pass  # refused before all of it was sent: the answer is there all the same
            got = b""
            try:
                while chunk := s.recv(65536):
                    got += chunk
            except ConnectionResetError:
                pass
            return got

    def ask(self, method, path, body=b"", fields=(), host="localhost", token=True):
        """(status, code) of a request with exactly these fields."""
        head = ["%s %s HTTP/1.1" % (method, path), "Connection: close",
                "Content-Length: %d" % len(body)]
        head += ["Host: " + host] if host is not None else []
        head += ["Content-Type: application/json"] if method == "POST" else []
        head += ["Authorization: Bearer " + self.cp.token()] if token else []
        head += list(fields)
        got = self.exchange("\r\n".join(head + ["", ""]).encode() + body)
        status = int(got.split(b" ")[1])
        text = got.partition(b"\r\n\r\n")[2]
        answer = json.loads(text) if text else {}
        return status, answer.get("code", ""), answer.get("message", "")

    def validate(self, files):
        return self.ask("POST", "/api/v1/validate", json.dumps({"files": files}).encode())

    def test_numbers_that_no_version_has(self):
        for text in ("18446744073709551615", "9223372036854775808", "99999999999999999999999",
                     "-1", "1x", ""):
            for query in ("history?before=", "history?max=", "diff?to=1&from="):
                with self.subTest(query=query + text):
                    self.assertEqual(self.ask("GET", "/api/v1/" + query + text)[:2],
                                     (400, "USAGE"))
            self.assertEqual(self.ask("GET", "/api/v1/versions/" + text)[0], 404)
        for version in (0, 2**63 - 1):
            body = json.dumps({"version": version, "message": "m"}).encode()
            self.assertEqual(self.ask("POST", "/api/v1/rollback", body)[:2],
                             (404, "NEVER_PUBLISHED"))

    def test_bodies(self):
        for body in (b'{"files":' + b"[" * 500000, b'{"a":' * 300000, b'{"base":1e999}',
                     b'{"base":' + b"9" * 5000 + b"}", b'{"files":[],"files":[]}',
                     b'{"fi\\u0000les":[]}', b'{"files":"\xff"}', b'{"files":[]} x', b""):
            with self.subTest(body=body[:20]):
                self.assertEqual(self.ask("POST", "/api/v1/validate", body)[:2],
                                 (400, "MALFORMED"))
        status, code, _ = self.ask("POST", "/api/v1/publish", b"x" * (90 << 20))
        self.assertEqual((status, code), (413, "TOO_LARGE"))
        status, code, _ = self.ask("POST", "/api/v1/publish", b"x" * (90 << 20), token=False)
        self.assertEqual((status, code), (401, "UNAUTHENTICATED"), "judged before its body")

    def test_names_of_files(self):
        for name in ("../x.yaml", "a/../../x.yaml", "/etc/x.yaml", "a\\b.yaml", "", ".", "a//b",
                     "./a.yaml", "a/", "a\x01.yaml", "a\nb.yaml", "a" * 1025):
            with self.subTest(name=name[:20]):
                status, code, message = self.validate([{"name": name, "content": ""}])
                self.assertEqual((status, code), (400, "MALFORMED"))
                self.assertIn("relative path", message)
        twice = [{"name": "a.yaml", "content": ""}] * 2
        self.assertEqual(self.validate(twice)[:2], (409, "EXISTS"))
        for content in ("!!!!", "YQ", "YQ==YQ==", "YQ==\n"):
            self.assertEqual(self.validate([{"name": "a.yaml", "content": content}])[:2],
                             (400, "USAGE"))

    def test_a_hundred_thousand_files(self):
        files = [{"name": "f%d.yaml" % i, "content": ""} for i in range(100000)]
        self.assertEqual(self.validate(files)[:2], (422, "SOURCE_INVALID"))
        files.append({"name": "one-more.yaml", "content": ""})
        self.assertEqual(self.validate(files)[:2], (413, "TOO_LARGE"))

    def test_words_that_would_steer_a_terminal(self):
        files = [{"name": "a.yaml", "content": base64.b64encode(b"a: 1").decode()}]
        for name in ("message", "author"):
            body = {"message": "m", "files": files, name: "\x1b[2J"}
            status, code, message = self.ask("POST", "/api/v1/publish", json.dumps(body).encode())
            self.assertEqual((status, code), (400, "USAGE"))
            self.assertIn(name, message)

    def test_members_of_another_request(self):
        for path, body in (("validate", {"files": [], "message": "m"}),
                           ("validate", {"files": [], "version": 1}),
                           ("publish", {"message": "m", "files": [], "version": 1}),
                           ("rollback", {"message": "m", "version": 1, "files": []})):
            status, code, message = self.ask("POST", "/api/v1/" + path, json.dumps(body).encode())
            self.assertEqual((status, code), (400, "USAGE"))
            self.assertIn("not a member", message)

    def test_no_way_around_the_token(self):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "post", "Post"):
            self.assertEqual(self.ask(method, "/api/v1/publish", token=False)[0], 405, method)
        for path in ("/API/v1/publish", "/api/v1//publish", "/api/v1/publish/", "/api/v1/./publish",
                     "/api/v1/publi%73h"):
            self.assertEqual(self.ask("POST", path, b"{}", token=False)[0], 404, path)
        for fields in ((), ("Authorization: Basic " + self.cp.token(),),
                       ("Authorization: Bearer ",), ("Authorization: Bearer  " + self.cp.token(),),
                       ("Authorization: Bearer x", "Authorization: Bearer " + self.cp.token()),
                       ("X-HTTP-Method-Override: POST",)):
            self.assertEqual(self.ask("POST", "/api/v1/publish?x=1", b"{}", fields, token=False)[:2],
                             (401, "UNAUTHENTICATED"), fields)

    def test_host_and_origin(self):
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.", "127.1", "0.0.0.0"):
            self.assertEqual(self.ask("GET", "/api/v1/status", host=host)[:2],
                             (403, "HOST_REFUSED"), host)
        for host in ("", "[::1", "[::1]evil", "localhost@evil", "localhost:evil", "localhost, evil",
                     None):
            self.assertEqual(self.ask("GET", "/api/v1/status", host=host)[0], 400, host)
        self.assertEqual(self.ask("GET", "http://evil.example/api/v1/status")[:2],
                         (403, "HOST_REFUSED"))
        for origins in (("null",), ("file://localhost",), ("http://localhost", "http://evil"),
                        ("http://evil", "http://localhost"), ("http://localhost.evil",)):
            fields = tuple("Origin: " + origin for origin in origins)
            self.assertEqual(self.ask("POST", "/api/v1/validate", b"{}", fields)[:2],
                             (403, "ORIGIN_REFUSED"), origins)

    def test_slow_heads_do_not_hold_the_door(self):
        """Every connection taken by a head that never ends: the door opens again by itself."""
        slow = [socket.create_connection(("127.0.0.1", self.cp.port), 60) for _ in range(8)]
        try:
            for s in slow:
                s.sendall(b"GET /api/v1/status HTTP/1.1\r\nHost: local")
            end = time.monotonic() + 60
            while True:
                try:
                    if self.ask("GET", "/api/v1/status")[0] == 200:
                        break
                except (OSError, IndexError):
                    self.assertLess(time.monotonic(), end, "the door stayed shut")
                    time.sleep(0.05)
        finally:
            for s in slow:
                s.close()


if __name__ == "__main__":
    unittest.main()
