"""tidy: the rules of docs/style.md that a machine can judge by reading the tree.

    tidy.py            judges the tree; a line "file:line: rule: what" for each finding, exit 1
    tidy.py --samples  judges the rules: tests/tidy/samples/RULE/ok gives nothing, bad gives some

Rules look at text only, so the whole tree takes well under a second.
"""

import os
import pathlib
import re
import sys

from packages import rule_packages

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "tidy" / "samples"
SKIPPED = {".git", "build", "__pycache__", "node_modules"}
FILE_LINES_MAX = 1200

# What each room of common/ stands on, besides itself.
COMMON = {
    "base": set(),
    "jose": {"base"},
    "proto": {"base"},
    "telemetry": {"base"},
    "context": {"base"},
    "net": {"base", "telemetry"},
    "snapshot": {"base", "proto"},
    "bus": {"base", "proto", "context", "telemetry"},
}
LANES = {"operator", "canonical", "proxy"}
# Rooms that every lane stands on: they know none of the lanes, nor what starts them.
BELOW_LANES = {"apply", "request"}

HEADER_FIELDS = ["Shape", "Units", "Ownership", "Threads", "Errors", "Source"]
RUN_IN = re.compile(r"^ \* .*[.:] (%s)(  +|$)" % "|".join(HEADER_FIELDS), re.MULTILINE)
HEADER_TOPS = ("common", "controlplane", "dataplane")
BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|atoll|atof|strtok|rand|srand"
                    r"|alloca)\s*\(")
LATER = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(home|ro" r"ot|wo" r"rk|Users)/[A-Za-z]")
TEXT = {".c", ".h", ".py", ".md", ".proto", ".sql", ".yaml", ".yml", ".json", ".cmake", ".txt", ".sh"}
COMMENT_OR_STRING = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
                               re.DOTALL)
PAGE = re.compile(r"\bdocs/(?!evidence/)[a-z0-9/-]+\.md\b")  # evidence comes with a long run.
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(?:#[^)]*)?\)")
SKIP = re.compile(r"\bexit\(77\)|\bskipTest\(|\bSkipTest\b|@unittest\.skip")
CONTAINER_KIND = re.compile(r"^    CONTAINER_(?!FORMAT\b)([A-Z]+) = ([0-9]+),$", re.MULTILINE)
CAPABILITY_ROW = re.compile(r'X\(([0-9]+), ([A-Z0-9_]+), "([^"]*)"\)')
MESSAGE = re.compile(r"^message \w+", re.MULTILINE)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


class Tree:
    """The files of a folder: relative path to text, read once."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.texts = {}
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(f for f in folders if f not in SKIPPED
                                and pathlib.Path(folder, f) != SAMPLES)
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                if path.suffix in TEXT or name == "run":
                    relative = path.relative_to(self.root).as_posix()
                    self.texts[relative] = path.read_text(encoding="utf-8", errors="replace")

    def of(self, *suffixes):
        return [(p, t) for p, t in self.texts.items() if p.endswith(suffixes)]


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def without_comments(text):
    """Comments and strings blanked, line breaks kept."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def arrow_problem(path, target):
    """Why a file at 'path' may not include 'target', or None."""
    here, there = path.split("/"), target.split("/")
    if len(here) < 2 or len(there) < 2 or there[0] not in HEADER_TOPS:
        return None
    if here[0] == "common":
        if there[0] != "common":
            return "common/ includes neither program"
        if there[1] != here[1] and there[1] not in COMMON.get(here[1], set()):
            below = ", ".join(sorted(COMMON.get(here[1], set()))) or "nothing of ours"
            return "common/%s stands on: %s" % (here[1], below)
    if {here[0], there[0]} == {"controlplane", "dataplane"}:
        return "the two programs never include each other"
    if here[0] == there[0] == "dataplane" and there[1] in LANES and there[1] != here[1]:
        if here[1] in LANES:
            return "a lane never includes another lane"
        if here[1] in BELOW_LANES:
            return "dataplane/%s knows no lane" % here[1]
    return None


def rule_arrows(tree):
    for path, text in tree.of(".c", ".h"):
        for match in INCLUDE.finditer(text):
            problem = arrow_problem(path, match.group(1))
            if problem:
                yield path, line_of(text, match.start()), problem


def header_problem(path, text):
    stem = pathlib.PurePosixPath(path).stem
    first = re.match(r"/\*(?:\n \*)? (\S+): ", text)
    if first is None or first.group(1) != stem:
        return 'a header opens with a comment "%s: what it is"' % stem
    opening = text[:text.index("*/")] if "*/" in text else text
    fields = re.findall(r"^ \* ([A-Z][a-z]+)  +\S", opening, re.MULTILINE)
    known = [f for f in fields if f in HEADER_FIELDS]
    if known != sorted(known, key=HEADER_FIELDS.index) or len(known) != len(set(known)):
        return "fields come once each, in the order: " + " ".join(HEADER_FIELDS)
    if RUN_IN.search(opening):
        return "a field begins a line: the formatter wraps what is too long into running text"
    if "#pragma once" not in text:
        return "a header has #pragma once"
    return None


def rule_header(tree):
    for path, text in tree.of(".h"):
        if path.startswith(HEADER_TOPS):
            problem = header_problem(path, text)
            if problem:
                yield path, 1, problem


def rule_banned(tree):
    for path, text in tree.of(".c", ".h"):
        for match in BANNED.finditer(without_comments(text)):
            yield path, line_of(text, match.start()), "%s() is banned" % match.group(1)


def rule_length(tree):
    for path, text in tree.of(".c", ".h", ".py", ".cmake", "/run", ".proto"):
        count = text.count("\n")
        if count > FILE_LINES_MAX:
            yield path, FILE_LINES_MAX, "%d lines; split at %d" % (count, FILE_LINES_MAX)


def rule_later(tree):
    for path, text in tree.texts.items():
        for match in LATER.finditer(text):
            yield path, line_of(text, match.start()), "%s: do it, or open an issue" % match.group()


def rule_machine_path(tree):
    for path, text in tree.texts.items():
        for match in MACHINE_PATH.finditer(text):
            yield path, line_of(text, match.start()), "a path of somebody's machine"


def built_words(tree, path):
    """Every word of the CMakeLists.txt files in the file's folder and above."""
    words = set()
    folder = pathlib.PurePosixPath(path).parent
    for place in [folder, *folder.parents]:
        text = tree.texts.get((place / "CMakeLists.txt").as_posix())
        if text is not None:
            words.update(re.split(r"[\s()/\"]+", text))
    return words


def rule_unbuilt(tree):
    for path, text in tree.of(".c", "_test.py"):
        pure = pathlib.PurePosixPath(path)
        if path.startswith("tests/fuzz/") and pure.stem.endswith("_fuzz"):
            names = {pure.stem[:-len("_fuzz")]}
        else:
            # A list in a foreach() may name the stem without its ending.
            names = {pure.name, pure.stem, re.sub(r"_test$", "", pure.stem)}
        shared = "PROJECT_SOURCE_DIR}/" + path  # named by cmake/*.cmake for every target.
        if names & built_words(tree, path):
            continue
        if any(shared in t for p, t in tree.of(".cmake", "CMakeLists.txt")):
            continue
        yield path, 1, "no CMakeLists.txt names it"


def rule_links(tree):
    """A page that is named must be there, by its path anywhere or by a relative link of a page."""
    for path, text in tree.texts.items():
        folder = pathlib.PurePosixPath(path).parent
        for match in PAGE.finditer(text):
            if not (tree.root / match.group()).exists():
                yield path, line_of(text, match.start()), "there is no " + match.group()
        if not path.endswith(".md"):
            continue
        for match in RELATIVE_LINK.finditer(text):
            target = match.group(1)
            if not target.startswith("docs/") and not (tree.root / folder / target).exists():
                yield path, line_of(text, match.start()), "there is no " + target


def rule_skips(tree):
    """A Python test that cannot run here says so by trilane.skip()."""
    for path, text in tree.of("_test.py"):
        for match in SKIP.finditer(text):
            yield path, line_of(text, match.start()), "trilane.skip() says what is missing"


def said_formats(tree):
    """Place and words of each kind of container, capability and signed message of the source."""
    for path, text in tree.of("common/snapshot/format.h"):
        for match in CONTAINER_KIND.finditer(text):
            yield path, line_of(text, match.start()), "%s %s" % (match[2], match[1].lower())
        for match in CAPABILITY_ROW.finditer(text):
            yield path, line_of(text, match.start()), "| %s | `%s` | %s |" % match.groups()
    for path, text in tree.of("snapshot/v1/snapshot.proto"):
        for match in MESSAGE.finditer(text):
            yield path, line_of(text, match.start()), match.group()


def rule_formats(tree):
    """What travels signed is written down: docs/formats.md says it in these words."""
    page = re.sub(" +", " ", tree.texts.get("docs/formats.md", ""))
    for path, line, words in said_formats(tree):
        if not re.search(re.escape(words) + r"(?!\w)", page):
            yield path, line, "docs/formats.md does not say: " + words


RULES = {
    "arrows": rule_arrows,
    "header": rule_header,
    "banned": rule_banned,
    "formats": rule_formats,
    "length": rule_length,
    "links": rule_links,
    "later": rule_later,
    "machine-path": rule_machine_path,
    "packages": rule_packages,
    "skips": rule_skips,
    "unbuilt": rule_unbuilt,
}


def judge_tree():
    tree = Tree(ROOT)
    count = 0
    for name, rule in RULES.items():
        for path, line, what in rule(tree):
            print("%s:%d: %s: %s" % (path, line, name, what))
            count += 1
    print("%d findings in %d files" % (count, len(tree.texts)))
    return 1 if count else 0


def judge_samples():
    failed = 0
    for name, rule in RULES.items():
        good = list(rule(Tree(SAMPLES / name / "ok")))
        for finding in good:
            print("samples/%s/ok: should pass: %s:%d: %s" % ((name,) + finding))
        expected = (SAMPLES / name / "bad.expected").read_text(encoding="utf-8").splitlines()
        found = sorted("%s:%d" % finding[:2] for finding in rule(Tree(SAMPLES / name / "bad")))
        if found != sorted(expected):
            print("samples/%s/bad: expected %s, found %s" % (name, sorted(expected), found))
        failed += bool(good) + (found != sorted(expected))
    print("%d rules, %d wrong" % (len(RULES), failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(judge_samples() if sys.argv[1:] == ["--samples"] else judge_tree())
