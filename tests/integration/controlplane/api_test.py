"""The API's doors: token, Host, Origin, content type, methods, TLS, and what every program serves."""

import base64
import os
import re
import ssl
import stat
import unittest

import trilane
import turns
from trilane import Platform, free_port, http, wait_until


LEASE_MS = 30000  # nobody else leads; who is asked leads all the time.


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cert = cls.p.issue_service("platform", "control-plane")
        cls.tls_port = free_port()
        cls.cp = cls.p.control_plane(listen_tls="127.0.0.1:%d" % cls.tls_port,
                                     tls_cert=cert["cert"], tls_key=cert["key"],
                                     lease_ms=LEASE_MS).start()
        wait_until(cls.cp.leads, 60, "a leader")

    def code(self, method, path, **kwargs):
        status, answer = self.cp.api(method, path, **kwargs)
        self.assertTrue(status == 200 or {"code", "message", "fix"} <= set(answer), answer)
        return status, answer.get("code")

    def test_token(self):
        mode = stat.S_IMODE(os.stat(self.cp.data / "token").st_mode)
        self.assertEqual(mode, 0o600)
        for path in ("validate", "plan", "publish", "rollback"):
            self.assertEqual(self.code("POST", "/api/v1/" + path, body={}, token=False),
                             (401, "UNAUTHENTICATED"))
        wrong = {"Authorization": "Bearer " + "0" * 64}
        self.assertEqual(self.code("POST", "/api/v1/publish", body={}, token=False, headers=wrong),
                         (401, "UNAUTHENTICATED"))
        self.assertEqual(self.code("POST", "/api/v1/publish", body={}), (400, "USAGE"))

    def test_site(self):
        self.assertEqual(self.code("GET", "/api/v1/status", headers={"Host": "evil.example.org"}),
                         (403, "HOST_REFUSED"))
        self.assertEqual(self.code("GET", "/api/v1/status",
                                   headers={"Origin": "http://evil.example.org"}),
                         (403, "ORIGIN_REFUSED"))
        self.assertEqual(self.code("GET", "/api/v1/status", headers={"Origin": self.cp.url}),
                         (200, None))

    def test_routes(self):
        self.assertEqual(self.code("GET", "/api/v1/nothing"), (404, "NOT_FOUND"))
        self.assertEqual(self.code("DELETE", "/api/v1/status"), (405, "METHOD_NOT_ALLOWED"))
        self.assertEqual(self.code("GET", "/api/v1/versions/99"), (404, "NEVER_PUBLISHED"))
        self.assertEqual(self.code("GET", "/api/v1/versions/x"), (404, "NOT_FOUND"))
        self.assertEqual(self.code("GET", "/api/v1/history?max=x"), (400, "USAGE"))
        self.assertEqual(self.code("GET", "/api/v1/history?max=2"), (200, None))
        form = {"Content-Type": "text/plain", "Authorization": "Bearer " + self.cp.token()}
        status, _, _ = http("POST", self.cp.url + "/api/v1/publish", b"{}", form)
        self.assertEqual(status, 415)

    def test_refused_body_names_the_member(self):
        status, answer = self.cp.api("POST", "/api/v1/publish", {"message": "m", "fils": []})
        self.assertEqual((status, answer["code"]), (400, "USAGE"))
        self.assertIn("fils", answer["message"])

    def test_what_was_waited_is_a_number(self):
        def validate(waited):
            body = {"files": trilane.files_of(trilane.POLICIES)}
            return self.cp.api("POST", "/api/v1/validate", body,
                               headers={"X-Trilane-Waited-Ms": waited})
        for value in ("0", "4294967295"):
            self.assertEqual(validate(value)[0], 200, value)
        for value in ("", "soon", "-1", "4294967296", "18446744073709551616"):
            status, answer = validate(value)
            self.assertEqual((status, answer["code"]), (400, "USAGE"), value)

    def test_an_id_is_of_one_request(self):
        """Sent again it is answered by what it did; another one under its id is refused."""
        def post(path, key="deploy", **body):
            body = {"message": "m", "author": "a", **body}
            status, answer = self.cp.api("POST", "/api/v1/" + path, body,
                                         headers={"Idempotency-Key": key} if key else {})
            return status, answer.get("code") or answer["record"]["version"]

        def files(turn):
            text = turns.PLATFORM % (self.p.environment, "", turn)
            return [{"name": "p.yaml",
                     "content": base64.b64encode(text.encode()).decode()}]

        self.assertEqual(post("publish", files=files("one")), (200, 1))
        self.assertEqual(post("publish", files=files("one")), (200, 1))
        self.assertEqual(post("publish", files=files("one"), base=0), (200, 1))
        conflict = (409, "CONFLICT")
        self.assertEqual(post("publish", files=files("two")), conflict)
        self.assertEqual(post("publish", files=files("one"), message="n"), conflict)
        self.assertEqual(post("publish", files=files("one"), author="b"), conflict)
        self.assertEqual(post("publish", files=files("one"), again=True), conflict)
        self.assertEqual(post("rollback", version=1), conflict)
        self.assertEqual(len(self.cp.json("history")["versions"]), 1)
        self.assertEqual(post("publish", key=None, files=files("two")), (200, 2))
        trust = {"version": 1, "with_trust": True, "confirm": 1}
        self.assertEqual(post("rollback", key="back", **trust), (200, 3))
        self.assertEqual(post("rollback", key="back", **trust), (200, 3))
        self.assertEqual(post("rollback", key="back", version=1), conflict)
        _, plan = self.cp.api("POST", "/api/v1/plan", {"files": files("three")})
        self.assertEqual(post("publish", key="planned", plan=plan["plan"]), (200, 4))
        self.assertEqual(post("publish", key="planned", plan=plan["plan"]), (200, 4))
        self.assertEqual(post("publish", key="planned", files=files("three")), conflict)
        self.assertEqual(len(self.cp.json("history")["versions"]), 4)

    def test_health_and_metrics(self):
        for path in ("/health", "/healthz", "/ready"):
            self.assertEqual(http("GET", self.cp.url + path)[0], 200)
        self.assertEqual(self.cp.metric("trilane_leader"), 1)
        self.assertEqual(self.cp.metric("trilane_bus_connected"), 1)
        trilane.look_at_process_metrics(self, self.cp)

    def test_each_metric_stands_on_its_page(self):
        wait_until(lambda: self.cp.metric("trilane_bucket_objects") is not None, 60, "all of them")
        text = http("GET", self.cp.url + "/metrics")[2].decode()
        page = (trilane.SOURCE / "docs" / "control-plane.md").read_text()
        section = re.search(r"^## Metrics$.*?(?=^## )", page, re.M | re.S).group()
        rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
        told = {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
        self.assertEqual(set(told), set(re.findall(r"^# TYPE (\w+) ", text, re.M)))
        for name, event in re.findall(r'^(\w+)\{event="(\w+)"\}', text, re.M):
            self.assertIn("`%s`" % event, told[name][1], name)
        for label in re.search(r"^trilane_key_expires_seconds\{(.*)\}", text, re.M)[1].split(","):
            self.assertIn("`%s`" % label.split("=")[0], told["trilane_key_expires_seconds"][0])

    def test_tls(self):
        url = "https://localhost:%d/api/v1/status" % self.tls_port
        context = ssl.create_default_context(cafile=str(self.p.ca))
        self.assertEqual(http("GET", url, context=context)[0], 200)
        done = self.cp.run("status", "--server", "https://localhost:%d" % self.tls_port,
                           "--tls-ca", str(self.p.ca))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_clear_text_stays_on_loopback(self):
        other = self.p.control_plane("other", listen="0.0.0.0:%d" % free_port())
        other.start(wait=False)
        self.assertEqual(other.wait(), 2)
        self.assertIn("loopback", other.log())

    def test_one_process_a_directory(self):
        flags = {"data-dir": self.cp.data, "listen": "127.0.0.1:%d" % free_port()}
        second = trilane.ControlPlane(self.p, "second", flags)
        second.start(wait=False)
        self.assertEqual(second.wait(), 1)
        self.assertIn("another trilane-cp", second.log())


if __name__ == "__main__":
    unittest.main()
