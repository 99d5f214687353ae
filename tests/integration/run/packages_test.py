"""./run on a machine that lacks everything: it installs what is missing, or says in one sentence why it
cannot and what to type.

A copy of ./run sees a machine of stand-ins: no package is installed, and apt-get and sudo write down
what they are told.
"""

import os
import pathlib
import shutil
import stat
import subprocess
import tempfile
import unittest

import trilane

RUN = pathlib.Path(os.environ["TRILANE_SOURCE_DIR"], "run")
REAL = ("bash", "dirname", "env", "mkdir", "nproc", "tail", "true")
BY_HAND = "apt-get install gcc"


class Packages(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="trilane run ")
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        shutil.copy(RUN, self.root / "run")
        self.bin = self.root / "bin"
        self.bin.mkdir()
        for name in REAL:
            (self.bin / name).symlink_to(shutil.which(name))
        self.program("dpkg-query", "exit 1")
        self.program("apt-get", 'echo "apt-get $*" >>"$TOLD"')

    def program(self, name, script):
        path = self.bin / name
        path.write_text("#!%s\n%s\n" % (shutil.which("bash"), script), encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_it(self, user, *args):
        """Exit code, last line of what was said, and what the stand-ins were told."""
        told = self.root / "told"
        argv = [shutil.which("unshare"), {"root": "-Ur", "somebody": "-U"}[user]]
        done = subprocess.run([*argv, str(self.bin / "bash"), str(self.root / "run"), *args],
                              capture_output=True, text=True, timeout=120, check=False,
                              env={"PATH": str(self.bin), "TOLD": str(told)})
        self.assertEqual(done.stdout, "")
        lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
        return done.returncode, done.stderr.splitlines()[-1], lines

    def test_root_installs(self):
        _, _, told = self.run_it("root", "demo")
        self.assertEqual(told[0], "apt-get update")
        self.assertIn("apt-get install -y --no-install-recommends gcc ", told[1])
        self.assertIn(" python3-grpcio", told[1])

    def test_without_sudo(self):
        for command in ("demo", "test", "bench", "check", "build"):
            with self.subTest(command=command):
                code, said, told = self.run_it("somebody", command)
                self.assertEqual((code, told), (3, []))
                self.assertIn("only root can install them: " + BY_HAND, said)

    def test_sudo_that_refuses(self):
        self.program("sudo", 'echo "sudo: a password is required" >&2; exit 1')
        code, said, told = self.run_it("somebody", "demo")
        self.assertEqual((code, told), (3, []))
        self.assertIn("only root can install them: " + BY_HAND, said)

    def test_sudo_that_allows(self):
        self.program("sudo", 'echo "sudo $*" >>"$TOLD"; "$@"')
        _, _, told = self.run_it("somebody", "demo")
        self.assertEqual(told[:3], ["sudo true", "sudo apt-get update", "apt-get update"])
        self.assertIn("sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y ", told[3])

    def test_no_registry(self):
        self.program("apt-get", "echo 'no such host'; exit 100")
        code, said, _ = self.run_it("root", "demo")
        self.assertEqual(code, 3)
        self.assertIn("could not be fetched; by hand: " + BY_HAND, said)

    def test_no_debian(self):
        (self.bin / "apt-get").unlink()
        code, said, _ = self.run_it("root", "demo")
        self.assertEqual(code, 3)
        self.assertIn("This is no Debian", said)

    def test_a_build_folder_of_somebody_else(self):
        (self.root / "build").write_text("", encoding="utf-8")
        code, said, _ = self.run_it("root", "demo")
        self.assertEqual(code, 3)
        self.assertIn("build/log/apt-update.log cannot be written", said)


if __name__ == "__main__":
    if not trilane.can_unshare("-Ur"):
        trilane.skip("this machine allows no user namespaces, in which a test is root or somebody")
    unittest.main()
