"""clang-tidy over the compile database of preset dev: files that this branch changed first, then
the others until the time box is used up; all of them with --all.

Only files whose compilation or .clang-tidy changed since they were last found clean are looked at.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLEAN = ROOT / "build" / "clang-tidy"  # one empty file a clean state, named by its digest.
BOX_SECONDS = 240


def changed_files():
    def git(*args):
        done = subprocess.run(("git", "-C", str(ROOT)) + args, capture_output=True, text=True,
                              check=False)
        return done.stdout.split("\n") if done.returncode == 0 else []
    base = (git("merge-base", "HEAD", "origin/HEAD") or git("merge-base", "HEAD", "main") or [""])[0]
    head = (git("rev-parse", "HEAD") or [""])[0]
    if base in ("", head):
        base = "HEAD~1"
    return set(git("diff", "--name-only", base) + git("ls-files", "-o", "--exclude-standard"))


def state_of(entry):
    """A digest of all that clang-tidy reads: the preprocessed file and the configuration."""
    words = shlex.split(entry["command"])
    words = [w for w in words if not w.endswith("ccache")]
    out = words.index("-o")
    words = words[:out] + words[out + 2:] + ["-E", "-P"]
    done = subprocess.run(words, cwd=entry["directory"], capture_output=True, check=False)
    digest = hashlib.sha256(done.stdout)
    for configuration in (ROOT / ".clang-tidy", ROOT / "tests" / ".clang-tidy"):
        digest.update(configuration.read_bytes())
    digest.update(pathlib.Path(entry["file"]).read_bytes())
    return digest.hexdigest()


def judge(entry, end):
    """None: no time left; else (file, findings)."""
    if time.monotonic() > end:
        return None
    mark = CLEAN / state_of(entry)
    if mark.exists():
        return entry["file"], ""
    done = subprocess.run(["clang-tidy-14", "-p", str(ROOT / "build" / "dev"), "--quiet",
                           entry["file"]], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        mark.touch()
        return entry["file"], ""
    return entry["file"], done.stdout + done.stderr[-2000:]


def main(arguments):
    CLEAN.mkdir(parents=True, exist_ok=True)
    entries = json.loads((ROOT / "build/dev/compile_commands.json").read_text())
    entries = [e for e in entries if "/build/" not in e["file"][len(str(ROOT)):]]
    changed = {str(ROOT / name) for name in changed_files()}
    entries.sort(key=lambda e: (e["file"] not in changed, e["file"]))
    end = float("inf") if "--all" in arguments else time.monotonic() + BOX_SECONDS
    left = red = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for answer in pool.map(lambda entry: judge(entry, end), entries):
            left += answer is None
            if answer is not None and answer[1]:
                red += 1
                print(answer[1])
                print("reproduce: clang-tidy-14 -p build/dev %s\n" %
                      os.path.relpath(answer[0], ROOT))
    print("%d files, %d red, %d left for --all" % (len(entries), red, left))
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
