"""Writes docs/evidence/long.md from build/results.tsv: date, commit, machine, and every test with
its time and figures.

    evidence.py build/results.tsv SECONDS docs/evidence/long.md
"""

import collections
import datetime
import os
import pathlib
import platform
import subprocess
import sys


def commit():
    def git(*args):
        return subprocess.run(("git",) + args, capture_output=True, text=True,
                              check=False).stdout.strip()
    return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain") else "")


def main(results, seconds, path):
    rows = [line.rstrip("\n").split("\t") for line in open(results, encoding="utf-8")]
    counts = collections.Counter(row[0] for row in rows)
    lines = [
        "# The last long run of the tests",
        "",
        "`./run test --long` writes this page.",
        "",
        "- date: %s" % datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "- commit: %s" % commit(),
        "- machine: %s, %d cores" % (platform.machine(), os.cpu_count()),
        "- time: %d s" % int(seconds),
        "- result: %d passed, %d failed, %d skipped" % (counts["passed"], counts["failed"],
                                                       counts["skipped"]),
        "",
        "| test | result | seconds | figures |",
        "| --- | --- | ---: | --- |",
    ]
    for result, name, took, why in sorted(rows, key=lambda row: row[1]):
        lines.append("| %s | %s | %.1f | %s |" % (name, result, float(took),
                                                  why.replace("figure: ", "").replace("|", "/")))
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
