"""docs/trio.md as an operator would follow it: every command of the page runs as it stands, one after
the other, against a real PostgreSQL under TLS and real NATS servers. Ports alone are others."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest

from postgres import Postgres
from trilane import BUILD, SOURCE, WITH_PARENT, free_port

PAGE = SOURCE / "docs" / "trio.md"
DATABASE = "127.0.1.4"
PORTS = ("4222", "6222", "9080", "9443", "8443", "8444", "8082")
PATIENCE_S = 240
SECTIONS_BEFORE_DATABASE = 3  # what comes before the page, keys, certificates.


class Database(Postgres):
    """The page's PostgreSQL: at its address, under TLS, which it insists on for the page's role."""

    def __init__(self, certificate):
        super().__init__(database="admin")
        key = self.data / "server.key"
        key.write_bytes(certificate.with_suffix(".key").read_bytes())
        key.chmod(0o600)
        if self._user is not None:
            os.chown(key, self._user.pw_uid, self._user.pw_gid)
        (self.data / "server.crt").write_bytes(certificate.read_bytes())
        with open(self.data / "postgresql.conf", "a", encoding="ascii") as configuration:
            configuration.write("listen_addresses = '127.0.0.1,%s'\nssl = on\n" % DATABASE)
        rules = self.data / "pg_hba.conf"
        rules.write_text("hostssl all shop 127.0.0.0/8 scram-sha-256\n"
                         "hostnossl all shop 127.0.0.0/8 reject\n" + rules.read_text())


def sections(text):
    """The commands of each section, in their order: what is indented."""
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        lines = re.findall(r"^ {4}(.*)$", section, flags=re.MULTILINE)
        found.append((section.splitlines()[0], "\n".join(lines) + "\n"))
    return found


class Page(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="trilane-page-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.environment = dict(os.environ, PATH="%s:%s" % (BUILD, os.environ["PATH"]))
        self.shell = None
        self.addCleanup(self.end)

    def end(self):
        """All that the page started: it is one group."""
        if self.shell is not None:
            try:
                os.killpg(self.shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing of it is left.

    def wait(self):
        try:
            return self.shell.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return "not ended"

    def run_commands(self, found):
        """One shell goes through sections; what it said."""
        script = "set -euo pipefail\n" + "".join(
            "echo '--- %s' >&2\n%s" % (name.replace("'", ""), text) for name, text in found)
        path = self.directory / "page.sh"
        path.write_text(script)
        output = self.directory / "output"
        with open(output, "w", encoding="utf-8") as file:
            self.shell = subprocess.Popen([*WITH_PARENT, "bash", path], cwd=self.directory, stdout=file,
                                          stderr=file, stdin=subprocess.DEVNULL,
                                          env=self.environment, start_new_session=True)
            code = self.wait()
        said = output.read_text(encoding="utf-8")
        logs = "".join("--- %s\n%s" % (p.name, p.read_text(errors="replace")[-2000:])
                       for p in sorted(self.directory.glob("*.log")))
        self.assertEqual(code, 0, said + logs)
        return said

    def test_every_command_works(self):
        page = PAGE.read_text(encoding="utf-8")
        for port in PORTS:
            page = page.replace(":" + port, ":%d" % free_port())
        name, text = sections(page)[0]
        self.assertIn("./run build", text)  # that is the one part done already.
        before = sections(page)[1:SECTIONS_BEFORE_DATABASE]
        self.run_commands(before)
        with Database(self.directory / "postgresql" / "platform-postgresql.pem") as database:
            self.environment["ADMIN"] = database.url(database="postgres", host=DATABASE)
            page = page.replace(DATABASE + ":5432", "%s:%d" % (DATABASE, database.port))
            said = self.run_commands(sections(page)[SECTIONS_BEFORE_DATABASE:])
            self.end()
        for seen in ("3 nodes, 3 live, 0 refusing", "live on 3 nodes", "root 5 is published"):
            self.assertIn(seen, said)


if __name__ == "__main__":
    unittest.main()
