"""Reads what ctest wrote (JUnit XML), adds a line a test to build/results.tsv, and shows why a
test failed or was skipped.

    results.py build/test-dev.xml SUITE build/results.tsv

A test's output may hold lines "figure: ..."; ./run test --long keeps them as evidence.
"""

import sys
import xml.etree.ElementTree

OUTPUT_LINES = 60


def verdict(case):
    if case.find("failure") is not None:
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("disabled", "notrun"):
        return "skipped"
    return "passed"


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def main(path, suite, results):
    try:
        cases = xml.etree.ElementTree.parse(path).getroot().findall("testcase")
    except (OSError, xml.etree.ElementTree.ParseError) as problem:
        print("%s: %s" % (path, problem))
        cases = []
    rows = []
    for case in cases:
        name = case.get("name") + suite
        output = case.findtext("system-out") or ""
        what = verdict(case)
        # A program that is not there is a failure, whatever ctest calls it.
        if what == "skipped" and case.find("skipped") is not None:
            message = case.find("skipped").get("message") or ""
            if "SKIP" not in message.upper() and "Disabled" not in message:
                what, output = "failed", message + "\n" + output
        why = "; ".join(line.strip() for line in output.splitlines() if "figure: " in line)
        if what == "skipped":
            why = last_line(output)
            print("skipped: %s: %s" % (name, why))
        if what == "failed":
            print("--- failed: %s" % name)
            print("\n".join(output.splitlines()[-OUTPUT_LINES:]))
        rows.append("\t".join([what, name, case.get("time") or "0", why.replace("\t", " ")]))
    if not rows:
        rows.append("failed\tctest%s\t0\tit gave no results: see build/log" % suite)
    with open(results, "a", encoding="utf-8") as out:
        out.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
