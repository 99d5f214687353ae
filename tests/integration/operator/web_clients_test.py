"""The gRPC-Web clients that pages are written with, in Node, through a real node.

Their packages come from the registry that npm is set up for, so this is for long runs, where Node and
npm are; web_test.py asks the same of the node byte by byte, everywhere.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import trilane
import web_test

HERE = pathlib.Path(__file__).resolve().parent / "node"
TOOLS = {name: shutil.which(name) for name in ("node", "npm")}
CLIENTS = 7


class Clients(unittest.TestCase):
    """All of them, one after the other: each says a line when it found all as it should be."""

    @classmethod
    def setUpClass(cls):
        web_test.setUpModule()

    def test_all(self):
        descriptors = self.directory / "echo.binpb"
        subprocess.run(["protoc", "--proto_path=%s" % HERE.parent, "--descriptor_set_out=%s"
                        % descriptors, "echo.proto"], check=True)
        done = subprocess.run((TOOLS["node"], "clients.js", str(web_test.node.ports["listen"]),
                               str(descriptors)), cwd=self.directory, capture_output=True, text=True,
                              timeout=300, check=False)
        self.assertEqual((done.returncode, len(done.stdout.splitlines())), (0, CLIENTS),
                         done.stdout + done.stderr)


def main():
    if not os.environ.get("TRILANE_TEST_LONG"):
        trilane.skip("for ./run test --long: it takes packages from npm's registry")
    if None in TOOLS.values():
        trilane.skip("for machines with Node and npm")
    with tempfile.TemporaryDirectory(prefix="trilane-node-") as directory:
        Clients.directory = pathlib.Path(directory)
        for name in ("clients.js", "package.json", "package-lock.json"):
            shutil.copy(HERE / name, directory)
        done = subprocess.run((TOOLS["npm"], "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
                              cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            trilane.skip("npm finds no packages here: " + done.stderr.strip()[-200:].replace("\n", " "))
        unittest.main()


if __name__ == "__main__":
    main()
