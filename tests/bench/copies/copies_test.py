"""What bench-copies counts: each copied byte once, also of copies that overlap, and copies them."""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import trilane

sys.path.insert(0, str(trilane.SOURCE / "tests" / "bench"))

import bench  # noqa: E402

LIBRARY = trilane.BUILD / "libbench-copies.so"
SIZE = 1 << 20
# A program that a sanitizer has no part in. It copies the bytes as often as it is told, and says
# whether they are the same then.
PROGRAM = """
import ctypes, sys
size, times, apart = %d, int(sys.argv[1]), int(sys.argv[2])
what = bytes(i %% 251 for i in range(size))
room = ctypes.create_string_buffer(size + 64)
room[16:16 + size] = what
for i in range(times):
    ctypes.memmove(ctypes.addressof(room) + 16 + apart, ctypes.addressof(room) + 16, size)
sys.exit(0 if times == 0 or room[16 + apart:16 + apart + size] == what else 3)
""" % SIZE


class Copies(unittest.TestCase):
    def copied(self, times, apart=0):
        """Bytes that the program copies in all, when it makes so many copies."""
        with tempfile.TemporaryDirectory(dir="/tmp") as directory:
            file = pathlib.Path(directory) / "count"
            file.write_bytes(bytes(8))
            library = bench.preloadable(directory, LIBRARY)
            done = subprocess.run(
                ["/usr/bin/python3", "-I", "-S", "-c", PROGRAM, str(times), str(apart)],
                env=dict(os.environ, LD_PRELOAD=str(library), BENCH_COPIES=str(file)),
                check=False, capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            return struct.unpack("=Q", file.read_bytes())[0]

    def test_each_byte_of_a_copy_counts_once(self):
        none = self.copied(0)
        self.assertGreater(none, 0)
        for times in (1, 3):
            more = self.copied(times) - none
            self.assertAlmostEqual(more / SIZE, times + 1, delta=0.02)  # and what it compares.

    def test_copies_that_overlap_are_right_both_ways(self):
        self.copied(1, apart=7)
        self.copied(1, apart=-7)


if __name__ == "__main__":
    unittest.main()
