"""packages: what the tree takes from Debian is in the lists of ./run, so that a bare machine has it.

A machine on which somebody works has everything already: there a missing row is never seen. So each
library, program and Python module that is asked for must have a row here, and its package must be
installed by every command of ./run that gets there.
"""

import ast
import pathlib
import re
import sys

# What CMake looks for: modules of pkg-config, programs, libraries, headers, packages of CMake.
CMAKE = {
    "PkgConfig": "pkg-config", "Threads": "libc6-dev", "OpenSSL": "libssl-dev",
    "libuv": "libuv1-dev", "libcares": "libc-ares-dev", "libnghttp2": "libnghttp2-dev",
    "libsodium": "libsodium-dev", "libseccomp": "libseccomp-dev", "libzstd": "libzstd-dev",
    "libxxhash": "libxxhash-dev",
    "libprotobuf-c": "libprotobuf-c-dev", "yaml-0.1": "libyaml-dev", "jansson": "libjansson-dev",
    "sqlite3": "libsqlite3-dev", "libpq": "libpq-dev", "libcurl": "libcurl4-openssl-dev",
    "cmocka": "libcmocka-dev", "nats": "libnats-dev", "nats/nats.h": "libnats-dev",
    "wslay": "libwslay-dev", "wslay/wslay.h": "libwslay-dev",
    "protoc-c": "protobuf-c-compiler", "protoc": "protobuf-compiler", "ccache": "ccache",
}
PYTHON = {
    "cryptography": "python3-cryptography", "google": "python3-protobuf", "grpc": "python3-grpcio",
    "h2": "python3-h2", "hpack": "python3-hpack", "jsonschema": "python3-jsonschema",
    "prometheus_client": "python3-prometheus-client", "websockets": "python3-websockets",
    "yaml": "python3-yaml",
}
PROGRAMS = {
    "clang-tidy-14": "clang-tidy-14", "curl": "curl", "etcd": "etcd-server", "git": "git",
    "grpc_python_plugin": "protobuf-compiler-grpc", "haproxy": "haproxy", "initdb": "postgresql",
    "nats-server": "nats-server", "nghttpx": "nghttp2-proxy", "nginx": "nginx-light",
    "openssl": "openssl", "postgres": "postgresql", "protoc": "protobuf-compiler",
    "pg_basebackup": "postgresql", "psql": "postgresql", "python3": "python3", "ss": "iproute2",
}
# No Debian is without them.
# What a test may find or not: without it, the test is skipped and says so.
OPTIONAL = {"go"}
ESSENTIAL = {"bash", "chrt", "mount", "nsenter", "setpriv", "sh", "taskset", "unshare"}
# What asks for one of these is skipped without it.
OPTIONAL = {"go"}

COMMAND = re.compile(r"^command_(\w+)\(\)[^\n]*\n\{\n(.*?)^\}", re.DOTALL | re.MULTILINE)
LIST = re.compile(r"^(packages_\w+)=\(([^)]*)\)", re.MULTILINE)
FIND = re.compile(r"^\s*(pkg_check_modules|find_(?:program|library|path|package))\s*\(([^)]*)\)",
                  re.MULTILINE)
KEYWORD = re.compile(r"[A-Z_]*$")
CALL = re.compile(r"(subprocess\.(run|Popen|call|check_call|check_output)|os\.execvpe?|shutil\.which)$")


def installed_by(run):
    """The name of each command that installs something, and what it installs."""
    lists = {name: set(words.split()) for name, words in LIST.findall(run)}
    answer = {}
    for command, body in COMMAND.findall(run):
        names = re.findall(r"\$\{(packages_\w+)\[@\]\}", body)
        if names:
            answer[command] = set().union(*(lists.get(name, set()) for name in names))
    return answer


def commands_of(path, installed):
    """The commands that use a file; whatever they are, the first thing they do is to build."""
    if path.endswith((".cmake", "CMakeLists.txt")):
        return list(installed)
    if path.startswith(("tests/demo/", "tests/support/")):
        return ["demo", "test", "bench"]
    if path.startswith("tests/bench/") and not path.endswith("_test.py"):
        return ["bench"]
    return ["check"] if path == "tests/tidy/clang_tidy.py" else ["test"]


def asked_by_cmake(text):
    """Line and name of everything that a CMake file looks for."""
    for match in FIND.finditer(text):
        words = [re.sub(r"[<>=].*", "", w.strip('"')) for w in match.group(2).split()]
        names = words[:1] if match.group(1) == "find_package" else words[1:]
        for name in names:
            if match.group(1) == "find_package" or not KEYWORD.match(name):
                yield text.count("\n", 0, match.start(1)) + 1, name


def modules_of(node):
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module.split(".")[0]]
    return []


def program_of(node):
    """The program that a call starts, or that a list of arguments begins with (which may be any list);
    and whether it is a call."""
    called = isinstance(node, ast.Call) and CALL.match(ast.unparse(node.func)) and node.args
    words = [node.args[0]] if called else [node]
    if isinstance(words[0], ast.List):
        words = words[0].elts
    elif not called:
        return "", False
    path = words[0].value if words and isinstance(words[0], ast.Constant) else None
    return pathlib.PurePosixPath(path).name if isinstance(path, str) else "", bool(called)


def asked_by_python(text, own):
    """Line, name and package (None: no row has it) of what a Python file imports and starts."""
    for node in ast.walk(ast.parse(text)):
        for name in modules_of(node):
            if name.endswith(("_pb2", "_pb2_grpc")):
                yield node.lineno, name, PYTHON["grpc" if name.endswith("_grpc") else "google"]
            elif name not in sys.stdlib_module_names and name not in own:
                yield node.lineno, name, PYTHON.get(name)
        name, called = program_of(node)
        if name in PROGRAMS or (name and called and name not in ESSENTIAL | OPTIONAL):
            yield node.lineno, name, PROGRAMS.get(name)


def rule_packages(tree):
    installed = installed_by(tree.texts.get("run", ""))
    own = {pathlib.PurePosixPath(path).stem for path, _ in tree.of(".py")}
    asked = [(path, line, name, CMAKE.get(name)) for path, text in tree.of(".cmake", "CMakeLists.txt")
             for line, name in asked_by_cmake(text)]
    asked += [(path, *row) for path, text in tree.of(".py") for row in asked_by_python(text, own)]
    for path, line, name, package in sorted(set(asked), key=lambda row: row[:3]):
        lacking = [c for c in commands_of(path, installed) if package not in installed.get(c, set())]
        if package is None:
            yield path, line, "%s: no row of tests/tidy/packages.py names its package" % name
        elif lacking:
            yield path, line, "%s is of the package %s, which is not installed by ./run %s" % (
                name, package, ", ".join(lacking))
