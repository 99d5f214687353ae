"""gRPC's standard interop cases pass through a node between languages: Go to Go, Go to Python,
Python to Go. Client's cases and server of Go are grpc-go's own; where they cannot be had, this is
skipped."""

import os
import re
import shutil
import subprocess
import unittest

import interop
import trilane

GO = interop.HERE / "go"
PROGRAM = trilane.BUILD / "interop-go"
# What the module needs comes from the proxy alone, and no other toolchain is fetched.
ENVIRONMENT = dict(os.environ, GOTOOLCHAIN="local", GOFLAGS="-mod=readonly -trimpath")
CASES = 15  # of go/main.go.
DOWNLOAD_S = 60
BUILD_S = 500


def go(*arguments, timeout):
    return subprocess.run(["go", *arguments], cwd=GO, env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=timeout, check=False)


def build():
    """The program, unless it is there already; ends the test where it cannot be had."""
    sources = max(path.stat().st_mtime for path in GO.iterdir())
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > sources:
        return
    if shutil.which("go") is None:
        trilane.skip("Go is not on this machine: interop with grpc-go is not shown")
    try:
        fetched = go("mod", "download", timeout=DOWNLOAD_S)
    except subprocess.TimeoutExpired:
        trilane.skip("the Go module proxy does not answer: interop with grpc-go is not shown")
    if fetched.returncode != 0:
        trilane.skip("grpc-go cannot be had here (%s): interop with it is not shown"
             % fetched.stderr.strip().split("\n")[-1][:200])
    built = go("build", "-o", str(PROGRAM), ".", timeout=BUILD_S)
    assert built.returncode == 0, built.stderr


class GoServer(trilane.Process):
    def __init__(self, directory):
        super().__init__("interop-go", directory, [PROGRAM, "server"])

    def start(self):
        self.spawn()
        self.port = int(trilane.wait_until(lambda: re.search(r"^port (\d+)$", self.log(), re.M),
                                           what="the Go server").group(1))
        return self


class Interop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.platform = trilane.Platform(environment="dev")
        cls.addClassCleanup(cls.platform.close)
        cls.python = interop.Server()
        cls.addClassCleanup(cls.python.stop)
        cls.go = GoServer(cls.platform.directory / "go").start()
        cls.addClassCleanup(cls.go.stop)
        cls.node, = interop.serve(cls.platform, {"go": cls.go.port, "py": cls.python.port},
                                  {"connection_max_age_ms": 500})

    def run_go(self, tenant):
        done = subprocess.run([PROGRAM, "client", interop.address(self.node), tenant + "-token"],
                              capture_output=True, text=True, timeout=interop.PATIENCE_S,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(len(re.findall("^ok ", done.stdout, re.M)), CASES, done.stdout)

    def test_go_to_go(self):
        self.run_go("go")

    def test_go_to_python(self):
        self.run_go("py")

    def test_python_to_go(self):
        self.assertEqual(interop.failures(interop.address(self.node), "go-token"), {})


if __name__ == "__main__":
    build()
    unittest.main()
