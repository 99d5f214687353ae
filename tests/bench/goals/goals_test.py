"""What a bench says of its goals: met at the bound, MISSED past it, on the screen and in its file. And
that ./run bench builds what benches run."""

import contextlib
import io
import json
import pathlib
import re
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import bench  # noqa: E402
import trilane  # noqa: E402


class Goals(unittest.TestCase):
    def written(self, goals):
        """(the lines about goals, those of the file)."""
        source, screen = trilane.SOURCE, io.StringIO()
        with tempfile.TemporaryDirectory() as directory:
            trilane.SOURCE = pathlib.Path(directory)
            try:
                with contextlib.redirect_stdout(screen):
                    bench.write("some", "ms", "lower", 1, bench.spread([1.0]), {}, {}, {"x": 1},
                                goals)
                report = json.loads((trilane.SOURCE / "build/bench/some.json").read_text())
            finally:
                trilane.SOURCE = source
        self.assertEqual(report["conditions"]["x"], 1)
        lines = [line for line in screen.getvalue().splitlines() if line.startswith("goal ")]
        return lines, report["conditions"]["goals"]

    def test_each_is_held_against_its_bound(self):
        lines, goals = self.written({
            "p50_ms": (50.0, 50, "<="), "p99_ms": (250.5, 250, "<="), "applies": (600, 600, ">="),
            "unsynced": (2499.5, 2500, ">="), "head_ms": (2999, 3000, "<"), "late": (3000, 3000, "<")})
        self.assertEqual(lines, [
            "goal p50_ms: 50 <= 50: met", "goal p99_ms: 250.5 <= 250: MISSED",
            "goal applies: 600 >= 600: met", "goal unsynced: 2499.5 >= 2500: MISSED",
            "goal head_ms: 2999 < 3000: met", "goal late: 3000 < 3000: MISSED"])
        self.assertEqual([goal["met"] for goal in goals.values()],
                         [True, False, True, False, True, False])
        self.assertEqual(goals["p99_ms"],
                         {"value": 250.5, "bound": 250, "sign": "<=", "met": False})

    def test_a_bench_without_goals_says_nothing_of_them(self):
        self.assertEqual(self.written(None), ([], {}))


class Programs(unittest.TestCase):
    def test_what_benches_run_is_built(self):
        named = {name for file in bench.BENCH.glob("*.py")
                 for name in re.findall(r'BUILD / "(bench-[a-z]+)"', file.read_text())}
        told = re.search(r"\n    build release ([^|]*bench-[^|]*)\|\|",
                         (trilane.SOURCE / "run").read_text()).group(1)
        self.assertIn("bench-load", named)
        self.assertEqual(named - set(told.split()), set())


if __name__ == "__main__":
    unittest.main()
