"""Real parts for tests: NATS, a control plane, nodes; started, awaited and stopped.

    with Platform() as p:                    # directory, keys, root, CA, NATS
        cp = p.control_plane().start()
        node = p.node("node-1").start()
        cp("publish", "-m", "first", p.policies)
        wait_until(lambda: node.version() == 1)

Every program gets free loopback ports and a directory of its own; leaving the block ends all of
them. Binaries come from TRILANE_BUILD_DIR (ctest sets it) or build/dev.
"""

import base64
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BEGUN = time.time()  # no program of ours is older.
SOURCE = pathlib.Path(os.environ.get("TRILANE_SOURCE_DIR",
                                     pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("TRILANE_BUILD_DIR", SOURCE / "build" / "dev"))
CP = str(BUILD / "trilane-cp")
DP = str(BUILD / "trilane-dp")
POLICIES = SOURCE / "policies"

# Below the ports that the kernel gives to clients: those of other tests, which run beside this one,
# take one between its choice and its use.
PORTS = range(10000, 24000)
PATIENCE_S = 60  # on a machine that does much else; a wait ends with its condition.
ANSWER_S = 30.0  # of a server that a test asks: past it, it hangs.
WRITE_S = 120.0  # a publication waits for a leader, for signatures, and for whatever a test holds up.
SAID_S = 30.0  # a node that reaches NATS says its first status at once; a machine may be busy.
COMMAND_GROUPS = ("identity", "key", "proposal", "root")  # whose commands are two words.

SKIPPED = 77  # what a test ends with that cannot run here; ctest and ./run test know it.

_given_ports = {}  # to what keeps tests that run beside this one from it.


def skip(why, test=None):
    """Ends this program, or only 'test' of it, since it cannot run here: 'why' is a sentence that says
    what is missing, and the last line."""
    if test is not None:
        test.skipTest(why)
    print(why, flush=True)
    sys.exit(SKIPPED)


def can_unshare(namespaces, **options):
    """Whether this machine lets us make such namespaces: "-Urm", as unshare(1) has them."""
    return subprocess.run(["unshare", namespaces, "true"], capture_output=True, check=False,
                          **options).returncode == 0


def _reserve_port(port):
    """A name that one process has at a time, as an open file; None when another has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        try:
            name.bind("\0trilane-test-port-%d" % port)
        except OSError:
            return None
        return name.detach()  # the end of this process closes it.


def free_port():
    """A loopback port that nothing listens on, and that no process that asks here was given."""
    while True:
        port = random.choice(PORTS)
        reserved = None if port in _given_ports else _reserve_port(port)
        if reserved is None:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                os.close(reserved)
                continue
        _given_ports[port] = reserved
        return port


def files_of(directory):
    """As the API takes them."""
    return [{"name": str(path.relative_to(directory)),
             "content": base64.b64encode(path.read_bytes()).decode()}
            for path in sorted(directory.rglob("*.*"))]


# Before a program: a test that is killed leaves nothing behind. By a program, since Python code that
# runs between fork and exec may stand still for ever in a process that has threads (grpc's).
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


def counts_far():
    """Whether this run of a test is the one that counts far: tests/support/counts.h."""
    return bool(os.environ.get("TRILANE_TEST_LONG")) and BUILD.name == "counts"


def wait_until(condition, timeout=PATIENCE_S, what="the condition", step=0.05):
    """Polls until condition() is true and returns what it gave; AssertionError when it never is."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (OSError, KeyError, IndexError, ValueError) as problem:
            last = problem
        if time.monotonic() > end:
            raise AssertionError("waited %.0f s for %s; last: %r" % (timeout, what, last))
        time.sleep(step)


def http(method, url, body=None, headers=None, timeout=ANSWER_S, context=None):
    """One request; returns (status, headers, bytes), whatever the status is."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                         urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


class Process:
    """A program of ours or of the field, with a log file, ended with its owner."""

    def __init__(self, name, directory, argv, env=None):
        self.name = name
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.argv = [str(part) for part in argv]
        self.env = env or {}
        self.log_path = self.directory / (name + ".log")
        self.popen = None
        self.paused = False

    def variables(self):
        """Of the program."""
        return dict(os.environ, **self.env)

    def surroundings(self):
        """For subprocess: where the program runs, and as whom."""
        return {}

    def spawn(self, extra=()):
        with open(self.log_path, "ab") as log:
            # WITH_PARENT comes behind a change of user, which clears that.
            self.popen = subprocess.Popen([*WITH_PARENT, *self.argv, *(str(part) for part in extra)],
                                          stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                          env=self.variables(), **self.surroundings())
        return self

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def answers(self):
        return self.alive() and not self.paused

    def signal(self, number):
        if self.alive():
            self.popen.send_signal(number)

    def pause(self):
        """SIGSTOP: it is there, and does nothing."""
        self.signal(signal.SIGSTOP)
        self.paused = True

    def resume(self):
        self.signal(signal.SIGCONT)
        self.paused = False

    def wait(self, timeout=PATIENCE_S):
        """Waits for the end; the exit code, negative for a signal."""
        return self.popen.wait(timeout)

    def stop(self, timeout=PATIENCE_S):
        """SIGTERM, then SIGKILL after the timeout; the exit code."""
        if self.popen is None:
            return None
        self.resume()
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self):
        """SIGKILL: as a crash."""
        if self.popen is None:
            return None
        self.signal(signal.SIGKILL)
        return self.popen.wait(30)


def control_plane_permissions(env):
    """What the control plane's NATS user may do, and nothing else: docs/own-platform.md."""
    snapshots, nodes = "trilane_%s_snapshots" % env, "trilane_%s_nodes" % env
    return {
        "publish": {"allow": [
            "$KV.%s.>" % snapshots, "trilane.%s.head" % env, "trilane.%s.content" % env,
            "trilane.%s.proposal" % env, "trilane.%s.shares.*" % env,
            "$JS.API.STREAM.INFO.KV_" + snapshots, "$JS.API.STREAM.CREATE.KV_" + snapshots,
            "$JS.API.STREAM.MSG.GET.KV_" + snapshots, "$JS.API.STREAM.UPDATE.KV_" + snapshots,
            "$JS.API.STREAM.PURGE.KV_" + snapshots,
            "$JS.API.CONSUMER.CREATE.KV_%s.>" % snapshots,
            "$JS.API.CONSUMER.MSG.NEXT.KV_%s.*" % snapshots,
            "$JS.API.CONSUMER.DELETE.KV_%s.*" % snapshots,
            "$JS.API.STREAM.INFO.KV_" + nodes, "$JS.API.STREAM.CREATE.KV_" + nodes,
            "$JS.API.STREAM.UPDATE.KV_" + nodes, "$JS.API.DIRECT.GET.KV_%s.>" % nodes]},
        "subscribe": {"allow": ["_INBOX.trilane-cp.>", "$KV.%s.>" % nodes,
                                "trilane.%s.proposal" % env, "trilane.%s.demand.*" % env]},
    }


def node_permissions(env, node_id, api="$JS.API"):
    """What a node's NATS user may do: read snapshots, say its own status, carry events. 'api': where
    it reads snapshots."""
    snapshots, events = "trilane_%s_snapshots" % env, "TRILANE_EVENTS"
    return {
        "publish": {"allow": [
            "$KV.trilane_%s_nodes.%s" % (env, node_id), "trilane.%s.demand.%s" % (env, node_id),
            api + ".STREAM.INFO.KV_" + snapshots,
            api + ".STREAM.MSG.GET.KV_" + snapshots, api + ".DIRECT.GET.KV_%s.>" % snapshots,
            "trilane.%s.event.>" % env, "trilane.%s.quarantine.>" % env,
            "$JS.API.STREAM.INFO." + events, "$JS.API.STREAM.CREATE." + events,
            "$JS.API.STREAM.INFO.TRILANE_QUARANTINE", "$JS.API.STREAM.CREATE.TRILANE_QUARANTINE",
            "$JS.API.CONSUMER.INFO.%s.*" % events, "$JS.API.CONSUMER.CREATE.%s.>" % events,
            "$JS.API.CONSUMER.DURABLE.CREATE.%s.*" % events,
            "$JS.API.CONSUMER.MSG.NEXT.%s.*" % events, "$JS.ACK.%s.>" % events]},
        "subscribe": {"allow": ["_INBOX.%s.>" % node_id, "trilane.%s.head" % env,
                                "trilane.%s.content" % env, "trilane.%s.deliver.*" % env,
                                "trilane.%s.shares.%s" % (env, node_id)]},
    }


class Nats(Process):
    """nats-server with JetStream: the user cp writes snapshots, a user for each node reads them, and
    admin may do everything: it is what tests look and tamper with."""

    def __init__(self, directory, port=None, name="nats", environment="demo"):
        self.port = port or free_port()
        self.environment = environment
        self.nodes = []
        self.configuration = pathlib.Path(directory) / "nats.conf"
        super().__init__(name, directory, ["nats-server", "-c", self.configuration])
        self._configure()

    def _configure(self):
        users = [{"user": "admin"},
                 {"user": "cp", "permissions": control_plane_permissions(self.environment)}]
        users += [{"user": node, "permissions": node_permissions(self.environment, node)}
                  for node in self.nodes]
        for user in users:
            user["password"] = user["user"] + "-secret"
        self.configuration.write_text("""
listen: "127.0.0.1:%d"
max_payload: 1048576
jetstream: { store_dir: "%s", max_mem: 256MB, max_file: 16GB }
authorization: { users: %s }
""" % (self.port, self.directory / "jetstream", json.dumps(users, indent=1)))

    def url(self, user="cp"):
        return "nats://%s:%s-secret@127.0.0.1:%d" % (user, user, self.port)

    def add_node(self, node_id):
        """A user of that name, also while the server runs."""
        if node_id not in self.nodes:
            self.nodes.append(node_id)
            self._configure()
            if self.alive():
                self.signal(signal.SIGHUP)
                wait_until(lambda: self._knows(node_id), what="NATS to know " + node_id)

    def _knows(self, user):
        try:
            with NatsClient(self, user):
                return True
        except PermissionError:
            return False

    def start(self):
        self.spawn()
        wait_until(self._listens, PATIENCE_S, "nats-server on port %d\n%s" % (self.port, self.log()))
        return self

    def _listens(self):
        assert self.alive(), "nats-server ended:\n" + self.log()[-4000:]
        with socket.create_connection(("127.0.0.1", self.port), 1) as s:
            return s.recv(4) == b"INFO"


class NatsClient:
    """As much of NATS' protocol as a test needs to tamper with a bucket: publish and request."""

    def __init__(self, nats, user="admin", timeout=30):
        self.user = user
        self.socket = socket.create_connection(("127.0.0.1", nats.port), timeout)
        self.file = self.socket.makefile("rwb")
        self.errors = []
        try:
            self._greet(user.encode())
        except OSError:
            self.__exit__(None, None, None)
            raise

    def _greet(self, user):
        self.file.readline()  # INFO
        self._send(b'CONNECT {"verbose":false,"pedantic":false,"user":"%s","pass":"%s-secret"}'
                   % (user, user))
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        self.socket.close()
        try:
            self.file.close()
        except OSError:
            pass  # what was still to be written has nowhere to go.

    def _send(self, line, payload=None):
        self.file.write(line + b"\r\n")
        if payload is not None:
            self.file.write(payload + b"\r\n")
        self.file.flush()

    def flush(self):
        """Waits until the server has seen all that was sent."""
        self._send(b"PING")
        while True:
            line = self.file.readline()
            if not line or line.startswith(b"-ERR 'Authorization"):
                raise PermissionError("NATS does not let %s in" % self.user)
            if line.startswith(b"-ERR"):
                self.errors.append(line.decode().strip())
            elif line.startswith(b"PING"):
                self._send(b"PONG")
            elif line.startswith(b"PONG"):
                return

    def publish(self, subject, payload):
        self._send(b"PUB %s %d" % (subject.encode(), len(payload)), payload)
        self.flush()

    def ask_for_others(self, subject, reply, payload=b"{}"):
        """A request whose answer goes where somebody else listens."""
        self._send(b"PUB %s %s %d" % (subject.encode(), reply.encode(), len(payload)), payload)
        self.flush()

    def subscribe(self, subject):
        """For the server's verdict alone; nobody reads what comes."""
        self._send(b"SUB %s 2" % subject.encode())
        self.flush()

    def request(self, subject, payload=b""):
        """One answer, as bytes without headers."""
        inbox = b"_INBOX.%s.test%d" % (self.user.encode(), time.monotonic_ns())
        self._send(b"SUB %s 1" % inbox)
        self._send(b"PUB %s %s %d" % (subject.encode(), inbox, len(payload)), payload)
        while True:
            line = self.file.readline()
            if not line or line.startswith(b"-ERR"):
                raise AssertionError(line.decode() or "NATS closed the connection")
            if line.startswith((b"MSG", b"HMSG")):
                words = line.split()
                skipped = int(words[-2]) if line.startswith(b"HMSG") else 0
                body = self.file.read(int(words[-1]) + 2)[:-2]
                self._send(b"UNSUB 1")
                return body[skipped:]

    def has(self, bucket):
        """Whether there is such a bucket."""
        return "error" not in json.loads(self.request("$JS.API.STREAM.INFO.KV_" + bucket))

    def get(self, bucket, key):
        """The bytes under a key, or None."""
        answer = json.loads(self.request("$JS.API.STREAM.MSG.GET.KV_" + bucket, json.dumps(
            {"last_by_subj": "$KV.%s.%s" % (bucket, key)}).encode()))
        data = answer.get("message", {}).get("data")
        return base64.b64decode(data) if data else None

    def put(self, bucket, key, value):
        answer = json.loads(self.request("$KV.%s.%s" % (bucket, key), value))
        assert "error" not in answer, answer

    def purge(self, bucket):
        answer = json.loads(self.request("$JS.API.STREAM.PURGE.KV_" + bucket))
        assert answer.get("success"), answer

    def destroy(self, bucket):
        answer = json.loads(self.request("$JS.API.STREAM.DELETE.KV_" + bucket))
        assert answer.get("success"), answer


def hide_nats_user(program, path):
    """Its NATS user goes from the URLs, which ps shows, into a file that it alone reads."""
    urls = str(program.flags["nats-urls"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(re.search("//([^@/]+)@", urls).group(1) + "\n")
    program.flags["nats-urls"] = re.sub("//[^@/]+@", "//", urls)
    program.flags["nats-user-file"] = path
    return program


class ControlPlane(Process):
    """trilane-cp serve; calling it runs an operator's command against it."""

    def __init__(self, platform, name="cp", flags=()):
        self.platform = platform
        self.port = free_port()
        self.data = platform.directory / name
        self.data.mkdir(parents=True, exist_ok=True)
        self.flags = {
            "environment": platform.environment,
            "data-dir": self.data,
            "nats-urls": platform.nats.url("cp"),
            "trust-root": platform.root,
            "store": "sqlite:%s" % (self.data / "store.db"),
            "listen": "127.0.0.1:%d" % self.port,
            "key-manifest": platform.keys / "manifest.key",
            "key-head": platform.keys / "head.key",
            "node-keys": platform.node_keys,
            "dp-check": DP,
        }
        self.flags.update(dict(flags))
        self.token_path = pathlib.Path(self.flags.get("token-file", self.data / "token"))
        super().__init__(name, self.data, [CP, "serve"])

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.port

    def leads(self):
        """Whether it leads and its heads go out (before the first publication: could)."""
        leader = self.told(timeout=2)["leader"]
        return leader["leads"] and leader["code"] == ""

    def hears(self, node_id):
        """Whether it has a status of that node's life, so that a publication waits for it; also when
        it does not lead, or believes nothing of that node."""
        try:
            nodes = json.loads(http("GET", self.url + "/api/v1/nodes", timeout=2)[2])["nodes"]
            node = next((n for n in nodes if n["node"] == node_id), None)
            known = node is not None and (not node["verified"] or
                                          (node["live"] and node["state"] != "DRAINING"))
            return known or not self.leads()
        except OSError:
            return True

    def start(self, wait=True, **flags):
        """Starts it with the flags of the object, and those given (head_interval_ms=100)."""
        merged = dict(self.flags)
        merged.update({name.replace("_", "-"): value for name, value in flags.items()})
        if (merged["store"] or "").startswith("postgresql:"):  # its password is for nobody to see.
            self.env["TRILANE_STORE"] = merged.pop("store")
        self.spawn(["--%s=%s" % item for item in merged.items() if item[1] is not None])
        if wait:
            self.wait_healthy()
        return self

    def wait_healthy(self, timeout=PATIENCE_S):
        def up():
            assert self.alive(), "trilane-cp ended:\n" + self.log()[-4000:]
            return http("GET", self.url + "/health")[0] == 200
        wait_until(up, timeout, "trilane-cp's /health")

    def run(self, *args, timeout=120):
        """A command ("publish", "identity token"); the finished process with its output as text."""
        words = [word for a in args for word in (str(a).split() if a is args[0] else [str(a)])]
        named = 2 if words[0] in COMMAND_GROUPS else 1
        argv = [CP, *words[:named], "--server", self.url, "--token-file", str(self.token_path),
                *words[named:]]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)

    def __call__(self, *args, code=0, timeout=120):
        """A command that must end with 'code'; its standard output."""
        done = self.run(*args, timeout=timeout)
        assert done.returncode == code, "%s: exit %d, expected %d\n%s%s\n--- log\n%s" % (
            " ".join(str(a) for a in args), done.returncode, code, done.stdout, done.stderr,
            self.log()[-3000:])
        return done.stdout

    def json(self, *args, code=0):
        return json.loads(self(*args, "--output", "json", code=code))

    def token(self):
        return self.token_path.read_text().strip()

    def api(self, method, path, body=None, token=True, headers=None):
        """A call of the REST API; returns (status, decoded JSON)."""
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = "Bearer " + self.token()
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        status, _, answer = http(method, self.url + path, data, sent, timeout=WRITE_S)
        return status, json.loads(answer) if answer else None

    def told(self, timeout=ANSWER_S):
        """GET /api/v1/status, by no process of its own: for conditions."""
        return json.loads(http("GET", self.url + "/api/v1/status", timeout=timeout)[2])

    def metric(self, name):
        return _metric(self.url, name)


class Node(Process):
    """trilane-dp serve."""

    def __init__(self, platform, node_id, flags=()):
        self.platform = platform
        self.node_id = node_id
        self.data = platform.directory / node_id
        self.data.mkdir(parents=True, exist_ok=True)
        self.ports = {name: free_port() for name in
                      ("listen", "listen-tls", "listen-proxy", "listen-proxy-tls", "listen-admin")}
        self.identity = platform.issue_node(node_id)
        platform.nats.add_node(node_id)
        self.flags = {
            "environment": platform.environment,
            "node-id": node_id,
            "data-dir": self.data,
            "nats-urls": platform.nats.url(node_id),
            "trust-root": platform.root,
            "key-status": self.identity["status_key"],
            "tls-cert": self.identity["cert"],
            "tls-key": self.identity["key"],
            "tls-ca": platform.ca,
        }
        self.flags.update({name: "127.0.0.1:%d" % port for name, port in self.ports.items()})
        self.flags.update(dict(flags))
        super().__init__(node_id, self.data, [DP, "serve"])

    @property
    def url(self):
        """The cleartext port of the operator and canonical lanes."""
        return "http://127.0.0.1:%d" % self.ports["listen"]

    @property
    def admin(self):
        return "http://127.0.0.1:%d" % self.ports["listen-admin"]

    @property
    def proxy(self):
        return "http://127.0.0.1:%d" % self.ports["listen-proxy"]

    def start(self, wait=True, **flags):
        merged = dict(self.flags)
        merged.update({name.replace("_", "-"): value for name, value in flags.items()})
        before = self._status() if wait else None
        self.spawn(["--%s=%s" % item for item in merged.items() if item[1] is not None])
        if wait:
            self.wait_healthy()
            if merged.get("nats-urls"):
                self._wait_said(before or b"")
        return self

    def wait_healthy(self, timeout=PATIENCE_S):
        def up():
            assert self.alive(), "trilane-dp ended:\n" + self.log()[-4000:]
            return http("GET", self.admin + "/health")[0] == 200
        wait_until(up, timeout, "trilane-dp's /health", step=0.02)

    def _status(self):
        """What it said last, as it lies in the bucket; empty: nothing. None: there is no bucket, or
        no NATS that answers a test, where it could lie."""
        bucket = "trilane_%s_nodes" % self.platform.environment
        try:
            with NatsClient(self.platform.nats, timeout=5) as nats:
                return (nats.get(bucket, self.node_id) or b"") if nats.has(bucket) else None
        except (OSError, StopIteration, AssertionError):
            return None

    def _wait_said(self, before):
        """Until its first status is there and the leader heard it, for a publication waits for the
        nodes that are known by then. Where it is not said, it is a test's matter."""
        end = time.monotonic() + SAID_S

        def goes_on():
            return self.alive() and time.monotonic() < end
        while goes_on() and self._status() == before:
            time.sleep(0.01)
        for cp in self.platform.programs:
            while (isinstance(cp, ControlPlane) and cp.answers() and goes_on() and
                   not cp.hears(self.node_id)):
                time.sleep(0.02)

    def ready(self):
        try:
            return http("GET", self.admin + "/ready")[0] == 200
        except OSError:
            return False

    def dump(self):
        status, _, body = http("GET", self.admin + "/dump")
        assert status == 200, body
        return json.loads(body)

    def pids(self):
        """Of all processes of its program and directory: those that took over, too."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--data-dir=%s" % str(self.data).encode() in words and words[0] == DP.encode():
                found.append(int(path.parent.name))
        return sorted(found)

    def end_all(self):
        """Processes that no test waits for: they are nobody's children."""
        for pid in self.pids():
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self.pids(), what="the nodes to end")

    def version(self):
        """The version that is served now; 0 when there is none."""
        return int(self.dump().get("version", 0))

    def metric(self, name):
        return _metric(self.admin, name)


def look_at_process_metrics(test, program):
    """What a node or control plane says of its process is what the kernel says."""
    process = pathlib.Path("/proc/%d" % program.popen.pid)
    files = len(list((process / "fd").iterdir()))
    pages = int((process / "statm").read_text().split()[1])
    resident = program.metric("process_resident_memory_bytes")
    test.assertAlmostEqual(resident / (pages * os.sysconf("SC_PAGESIZE")), 1, delta=0.25)
    test.assertAlmostEqual(program.metric("process_open_fds"), files, delta=16)  # sockets come and go.
    start = program.metric("process_start_time_seconds")
    test.assertTrue(BEGUN - 2 <= start <= time.time() + 2, (BEGUN, start))
    before = program.metric("process_cpu_seconds_total")
    wait_until(lambda: program.metric("process_cpu_seconds_total") > before, what="CPU to be used")
    test.assertEqual(program.metric("trilane_build_info"), 1)


def _metric(base, name):
    """Value of a metric: the sum over its label sets, None when it is not there."""
    _, _, text = http("GET", base + "/metrics")
    values = [float(line.rsplit(" ", 1)[1]) for line in text.decode().splitlines()
              if line.split("{")[0].split(" ")[0] == name]
    return sum(values) if values else None


class Platform:
    """A directory with keys, root and CA, a NATS server, and what is started on top of it."""

    def __init__(self, environment="demo", trust_domain="trilane.test", nats=True):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="trilane-test-"))
        self.environment = environment
        self.trust_domain = trust_domain
        self.keys = self.directory / "keys"
        self.node_keys = self.directory / "nodes"
        self.identities = self.directory / "identities"
        self.ca = self.identities / "ca.pem"
        self.root = self.keys / "root.1"
        self.policies = self.directory / "policies"
        self.programs = []
        self.nats = Nats(self.directory / "nats", environment=environment)
        self.programs.append(self.nats)
        self._ceremony()
        if nats:
            self.nats.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, problem, trace):
        if kind is not None:
            for program in self.programs:
                print("--- %s\n%s" % (program.name, program.log()[-3000:]))
        self.close()

    def close(self):
        """Ours are asked to end all at once, before what they stand on does."""
        for program in self.programs:
            if isinstance(program, (ControlPlane, Node)):
                program.resume()
                program.signal(signal.SIGTERM)
        for program in reversed(self.programs):
            program.stop(timeout=10)
        shutil.rmtree(self.directory, ignore_errors=True)

    def command(self, *args, env=None):
        """A command that needs no server."""
        done = subprocess.run([CP] + [str(a) for a in args], capture_output=True, text=True,
                              timeout=60, check=False, env=dict(os.environ, **(env or {})))
        assert done.returncode == 0, "%r: exit %d\n%s%s" % (args, done.returncode, done.stdout,
                                                            done.stderr)
        return done.stdout

    def _ceremony(self):
        self.keys.mkdir()
        self.node_keys.mkdir()
        for role in ("root", "manifest", "head"):
            self.command("key", "generate", "--role", role, "--out", self.keys, role)
        self.command("key", "root", "--environment", self.environment, "--out", self.keys,
                     "--roots", self.keys / "root.key", "--manifests", self.keys / "manifest.pub",
                     "--heads", self.keys / "head.pub")
        self.command("identity", "init", "--trust-domain", self.trust_domain, "--out",
                     self.identities)

    def issue_node(self, node_id):
        self.command("identity", "issue", "--ca", self.identities, "--node", node_id, "--san",
                     "dns:localhost,ip:127.0.0.1", "--out", self.identities, "--node-keys",
                     self.node_keys)
        base = self.identities / ("node-" + node_id)
        return {"cert": str(base) + ".pem", "key": str(base) + ".key",
                "status_key": str(base) + ".status.key"}

    def issue_service(self, tenant, name):
        """A client certificate: {"cert", "key"} with spiffe://<trust domain>/tenant/…"""
        self.command("identity", "issue", "--ca", self.identities, "--service",
                     "%s/%s" % (tenant, name), "--san", "dns:localhost,ip:127.0.0.1", "--out",
                     self.identities)
        base = self.identities / ("%s-%s" % (tenant, name))
        return {"cert": str(base) + ".pem", "key": str(base) + ".key"}

    def write_policies(self, files):
        """Replaces the sources by {name: text}; returns their directory."""
        shutil.rmtree(self.policies, ignore_errors=True)
        for name, text in files.items():
            path = self.policies / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(text, bytes):
                path.write_bytes(text)
            else:
                path.write_text(text)
        return self.policies

    def control_plane(self, name="cp", **flags):
        cp = ControlPlane(self, name, {k.replace("_", "-"): v for k, v in flags.items()})
        self.programs.append(cp)
        return cp

    def node(self, node_id, **flags):
        node = Node(self, node_id, {k.replace("_", "-"): v for k, v in flags.items()})
        self.programs.append(node)
        return node

    def tls_context(self, cert=None, key=None):
        context = ssl.create_default_context(cafile=str(self.ca))
        if cert:
            context.load_cert_chain(cert, key)
        return context
