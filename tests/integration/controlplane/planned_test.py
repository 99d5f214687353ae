"""What was planned is published as it was planned: by its id or by the same sources, without being
compiled or checked again; and not when something else was published since, or when it is gone.
What a publication pushes out of the history is dropped behind it."""

import shutil
import unittest

import trilane
from trilane import Platform, wait_until


HISTORY = 6  # versions that are kept.


class Planned(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = Platform()
        cls.addClassCleanup(cls.p.close)
        cls.sources = cls.p.policies
        shutil.copytree(trilane.POLICIES, cls.sources)
        cls.checks = cls.p.directory / "checks"
        cls.checks.write_text("")
        # The real check, which leaves a line each time.
        check = cls.p.directory / "check"
        check.write_text('#!/bin/sh\necho run >> "%s"\nexec "%s" "$@"\n' % (cls.checks, trilane.DP))
        check.chmod(0o755)
        cls.cp = cls.p.control_plane().start(head_interval_ms=200, dp_check=check,
                                              history_versions=HISTORY, lease_ms=30000)
        wait_until(cls.cp.leads, 60, "a leader")
        cls.cp("publish", "-m", "first", cls.sources)

    def setUp(self):
        self.checked()

    def checked(self):
        """How often the check was run since it was asked last."""
        count = self.checks.read_text().count("run")
        self.checks.write_text("")
        return count

    def edit(self, text):
        path = next(path for path in sorted(self.sources.rglob("*.yaml"))
                    if "kind: RateLimit" in path.read_text())
        old = path.read_text()
        start = old.index("rate:")
        path.write_text(old[:start] + text + old[old.index("\n", start):])

    def newest(self):
        return self.cp.json("history")["versions"][0]["version"]

    def test_by_its_id(self):
        self.edit("rate: 101/s")
        plan = self.cp.json("plan", self.sources)
        self.assertEqual(self.checked(), 1)
        done = self.cp.json("publish", "-m", "as planned", "--plan", plan["plan"])
        self.assertEqual(self.checked(), 0)
        self.assertEqual(done["record"]["content_digest"], plan["record"]["content_digest"])
        self.assertEqual(done["record"]["version"], plan["base"] + 1)
        # Its sources are those of the plan: they plan to nothing now.
        self.cp("plan", "--exit-code", self.sources)
        self.assertIn("RateLimit", self.cp("diff", str(plan["base"]), str(plan["base"] + 1)))

    def test_by_the_same_sources(self):
        self.edit("rate: 102/s")
        plan = self.cp.json("plan", self.sources)
        self.assertEqual(self.checked(), 1)
        done = self.cp.json("publish", "-m", "the same", self.sources)
        self.assertEqual(self.checked(), 0)
        self.assertEqual(done["record"]["content_digest"], plan["record"]["content_digest"])
        self.edit("rate: 103/s")
        self.cp("publish", "-m", "another", self.sources)
        self.assertEqual(self.checked(), 1)

    def test_lines_alone_need_no_check(self):
        path = next(iter(sorted(self.sources.rglob("*.yaml"))))
        path.write_text("# one line more\n" + path.read_text())
        before = self.newest()
        self.cp("publish", "-m", "moved", self.sources)
        self.assertEqual(self.newest(), before + 1)
        self.assertEqual(self.checked(), 0)

    def test_not_on_another_version(self):
        self.edit("rate: 104/s")
        plan = self.cp.json("plan", self.sources)
        self.edit("rate: 105/s")
        self.cp("publish", "-m", "faster", self.sources)
        refused = self.cp.run("publish", "-m", "late", "--plan", plan["plan"])
        self.assertEqual(refused.returncode, 1)
        self.assertIn("BASE_CHANGED", refused.stderr)
        # Who says on what it shall stand has seen it.
        done = self.cp.json("publish", "-m", "all the same", "--plan", plan["plan"], "--base",
                            str(self.newest()))
        self.assertEqual(done["record"]["content_digest"], plan["record"]["content_digest"])

    def test_old_ones_go(self):
        for rate in range(300, 300 + HISTORY):
            self.edit("rate: %d/s" % rate)
            plan = self.cp.json("plan", self.sources)
            self.cp("publish", "-m", "one more", "--plan", plan["plan"])
        versions = [row["version"] for row in self.cp.json("history")["versions"]]
        self.assertEqual(versions, list(range(versions[0], versions[0] - HISTORY, -1)))

    def test_gone(self):
        for plan in ("0" * 32, "7" * 32):
            refused = self.cp.run("publish", "-m", "m", "--plan", plan)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("PLAN_GONE", refused.stderr)
        self.edit("rate: 106/s")
        plan = self.cp.json("plan", self.sources)["plan"]
        for rate in range(200, 204):  # others take its place.
            self.edit("rate: %d/s" % rate)
            self.cp("plan", self.sources)
        self.assertIn("PLAN_GONE", self.cp.run("publish", "-m", "m", "--plan", plan).stderr)
        self.cp("publish", "-m", "m", "--plan", plan, self.sources, code=2)


if __name__ == "__main__":
    unittest.main()
