"""A real PostgreSQL for tests, in a directory of its own, on a free loopback port.

    with Postgres() as pg:                                # made, started; ended and removed
        cp = platform.control_plane(store=pg.url())
        pg.pause()                                        # every process of it stops: SIGSTOP
        pg.resume()

It asks for a password over TCP (scram-sha-256); url() carries it. Nothing is synced to disk: these
tests kill processes, not machines. As root it runs as postgres or nobody, since it refuses root.
"""

import atexit
import contextlib
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import urllib.parse

from trilane import Process, can_unshare, free_port, wait_until

USER = "trilane"
CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%s'
fsync = off
full_page_writes = off
shared_buffers = 16MB
max_connections = 60
timezone = 'UTC'
"""


def _programs():
    """Debian keeps a server's programs off the PATH, a folder a version."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
                   key=lambda path: float(path.parents[1].name))
    return str(found[-1].parent) if found else ""


def _server_user():
    """Whom to become: None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise AssertionError("neither postgres nor nobody is a user of this machine")


class Postgres(Process):
    """The server. start() and stop() may be repeated: port and data stay until close()."""

    password = secrets.token_hex(16)  # of all that this process makes.
    _fresh = None                     # a directory with the data of one that never ran.

    def __init__(self, name="postgres", database="trilane", port=None):
        base = pathlib.Path(tempfile.mkdtemp(prefix="trilane-pg-"))
        self.database = database
        self.port = port or free_port()
        self.data = base / "data"
        self.paused = False
        self._user = _server_user()
        path = os.pathsep.join(filter(None, [_programs(), os.environ.get("PATH")]))
        super().__init__(name, base, ["postgres", "-D", self.data], env={"PATH": path})
        self._initialise()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, problem, trace):
        if kind is not None:
            print("--- %s\n%s" % (self.name, self.log()[-3000:]))
        self.close()

    def _identity(self):
        """For subprocess: whom the child becomes."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def variables(self):
        return {k: v for k, v in super().variables().items() if not k.startswith("PG")}

    def surroundings(self):
        return dict(self._identity(), cwd=self.directory)

    def _initialise(self):
        """The first of a process is made, the others are copies of what it was then."""
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        if Postgres._fresh is None:
            Postgres._fresh = pathlib.Path(tempfile.mkdtemp(prefix="trilane-pg-fresh-"))
            atexit.register(shutil.rmtree, Postgres._fresh, ignore_errors=True)
            self._make()
            shutil.copytree(self.data, Postgres._fresh / "data")
        else:
            shutil.copytree(Postgres._fresh / "data", self.data)
            self._own()
        self._configure()

    def _configure(self):
        with open(self.data / "postgresql.conf", "a", encoding="ascii") as configuration:
            configuration.write(CONFIGURATION % (self.port, self.directory))

    def _own(self):
        """What root copied is the server's."""
        for path in [self.data, *self.data.rglob("*")] if self._user is not None else []:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _make(self):
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(self.password)
        if self._user is not None:
            os.chown(password, self._user.pw_uid, self._user.pw_gid)
        done = subprocess.run(
            ["initdb", "--no-sync", "--no-instructions", "-D", str(self.data), "-U", USER,
             "-A", "scram-sha-256", "--pwfile", str(password), "-E", "UTF8", "--locale", "C"],
            capture_output=True, text=True, env=self.variables(), check=False,
            **self.surroundings())
        assert done.returncode == 0, done.stdout + done.stderr
        password.unlink()

    def start(self):
        self.spawn()
        self.wait_ready()
        if not self.sql("SELECT 1 FROM pg_database WHERE datname = '%s'" % self.database,
                        database="postgres"):
            self.sql('CREATE DATABASE "%s"' % self.database, database="postgres")
        return self

    def wait_ready(self, timeout=60):
        def ready():
            assert self.alive(), "PostgreSQL ended:\n" + self.log()[-4000:]
            return self._psql("SELECT 1", "postgres").returncode == 0
        wait_until(ready, timeout, "PostgreSQL on port %d" % self.port)

    def stop(self, timeout=20):
        """A fast shutdown: sessions are ended, nothing is lost."""
        if self.popen is None:
            return None
        self.resume()
        self.signal(signal.SIGINT)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self):
        """SIGKILL to all its processes: a crash, after which what was written is there."""
        if self.popen is None:
            return None
        self._signal_all(signal.SIGKILL)
        self.paused = False
        code = self.popen.wait(30)
        # The next start asks whether somebody is attached to the old shared memory.
        wait_until(lambda: not self._orphans(), 60, "the sessions of a killed PostgreSQL to end")
        return code

    def pause(self):
        """SIGSTOP to all its processes: the kernel still takes connections, nobody answers."""
        self._signal_all(signal.SIGSTOP)
        self.paused = True
        wait_until(lambda: all(self._state(pid) in "Tt" for pid in self.processes()), 30,
                   "PostgreSQL to stop")

    def resume(self):
        if self.paused:
            self._signal_all(signal.SIGCONT)
            self.paused = False

    def close(self):
        """Ends it and removes what it has on disk."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database=None, host="127.0.0.1", port=None, **parameters):
        """postgresql://…; parameters are libpq's: sslmode="disable"."""
        url = "postgresql://%s:%s@%s:%d/%s" % (USER, self.password, host, port or self.port,
                                               database or self.database)
        query = urllib.parse.urlencode(parameters, quote_via=urllib.parse.quote)
        return url + ("?" + query if query else "")

    def sql(self, text, database=None):
        """Runs SQL; rows as a list of lists of text."""
        done = self._psql(text, database or self.database)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def end_sessions(self):
        """pg_terminate_backend() for every session but the asking one; how many there were."""
        return len(self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
                            database="postgres"))

    @contextlib.contextmanager
    def held(self, text):
        """Runs SQL in a session of its own, in a transaction that stays open until the block is
        left."""
        with subprocess.Popen(self._psql_words(self.database), stdin=subprocess.PIPE, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=self._psql_variables()) as session:
            try:
                session.stdin.write("BEGIN; %s; SELECT 'held';\n" % text)
                session.stdin.flush()
                said = session.stdout.readline()
                assert said == "held\n", said
                yield
            finally:
                session.stdin.close()  # its end undoes the transaction.

    def _psql_words(self, database):
        return ["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h",
                "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]

    def _psql_variables(self):
        return dict(self.variables(), PGPASSWORD=self.password, PGCONNECT_TIMEOUT="5")

    def _psql(self, text, database):
        return subprocess.run([*self._psql_words(database), "-c", text], capture_output=True,
                              text=True, timeout=60, env=self._psql_variables(), check=False)

    def processes(self):
        """Its processes that live, the first one first."""
        if self.popen is None:
            return []
        mine = [self.popen.pid] if self.alive() else []
        for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                words = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if words[1] == str(self.popen.pid) and words[0] != "Z":
                mine.append(int(path.parent.name))
        return mine

    def _orphans(self):
        """Sessions of this data directory whose first process is gone."""
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(path / "cwd") == str(self.data):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    @staticmethod
    def _state(pid):
        try:
            return pathlib.Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "T"  # it ended: it answers nobody.

    def _signal_all(self, number):
        """The first process first: a stopped one makes no new ones."""
        for pid in self.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


class Standby(Postgres):
    """A streaming standby, asynchronous as PostgreSQL's default is. start() copies the primary, which
    runs, the first time."""

    def __init__(self, primary, port=None):
        self.primary = primary
        super().__init__(name="standby", port=port)

    def _initialise(self):
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)

    def start(self):
        if not self.data.exists():
            self._copy()
        self.spawn()
        self.wait_ready()
        return self

    def _copy(self):
        done = subprocess.run(
            ["pg_basebackup", "--no-sync", "-R", "-c", "fast", "-X", "stream", "-D", str(self.data),
             "-d", self.primary.url("postgres")],
            capture_output=True, text=True, env=self.variables(), check=False,
            **self.surroundings())
        assert done.returncode == 0, done.stderr
        self._configure()

    def wait_streamed(self):
        """Until it has all that the primary wrote by now."""
        lsn = self.primary.sql("SELECT pg_current_wal_lsn()")[0][0]
        wait_until(lambda: self.sql("SELECT pg_last_wal_replay_lsn() >= '%s'" % lsn)[0][0] == "t", 60,
                   "the standby to have it all")

    def promote(self):
        """From now on it is a primary, on a timeline of its own."""
        assert self.sql("SELECT pg_promote()", database="postgres") == [["t"]]


class SmallPostgres(Postgres):
    """All of it lies on a disk of its own: a tmpfs of 'mib' in a mount namespace of its own."""

    def __init__(self, mib, **flags):
        self.mib = mib
        super().__init__(**flags)

    def _initialise(self):
        super()._initialise()
        disk = self.directory / "disk"
        disk.mkdir()
        uid, gid = os.geteuid(), os.getegid()
        if self._user is not None:
            uid, gid = self._user.pw_uid, self._user.pw_gid
            os.chown(disk, uid, gid)
        # PostgreSQL refuses to be root, and be it of a namespace alone: a second one maps it back.
        # The signal of the parent's death goes with each change of user.
        self.argv = ["unshare", "-Urm", "sh", "-e", "-c",
                     'mount -t tmpfs -o size="$3"m none "$1"; cp -a "$2/." "$1"; chmod 700 "$1";'
                     ' exec unshare -U --map-user="$4" --map-group="$5"'
                     ' setpriv --pdeathsig KILL postgres -D "$1"',
                     "sh", str(disk), str(self.data), str(self.mib), str(uid), str(gid)]

    def can_start(self):
        """Whether this machine lets us make such namespaces."""
        return can_unshare("-Urm", **self.surroundings())

    def fill(self):
        """Until no byte is free, but in the log of transactions: without one there PostgreSQL ends
        itself."""
        self.sql("SELECT pg_switch_wal()")
        self.sql("CREATE UNLOGGED TABLE filler (bytes text);"
                 " ALTER TABLE filler ALTER bytes SET STORAGE EXTERNAL")
        for size in (1 << 20, 1 << 16, 1 << 12):
            done = None
            while done is None or done.returncode == 0:
                done = self._psql("INSERT INTO filler SELECT repeat('x', %d)" % size, self.database)
            assert "No space left on device" in done.stderr, done.stderr

    def make_room(self):
        self.sql("DROP TABLE filler")


class SmallLogPostgres(Postgres):
    """Its log of transactions lies on a disk of its own: a tmpfs of 'mib' in a mount namespace, which
    is there until close(), whether PostgreSQL runs or not."""

    def __init__(self, mib, **flags):
        self.mib = mib
        self.keeper = None
        super().__init__(**flags)

    def _initialise(self):
        super()._initialise()
        uid, gid = os.geteuid(), os.getegid()
        if self._user is not None:
            uid, gid = self._user.pw_uid, self._user.pw_gid
        self.argv = ["sh", "-e", "-c", 'exec nsenter -t "$1" -U -m --preserve-credentials unshare -U'
                     ' --map-user="$2" --map-group="$3" setpriv --pdeathsig KILL postgres -D "$4"',
                     "sh", "", str(uid), str(gid), str(self.data)]

    can_start = SmallPostgres.can_start

    def start(self):
        if self.keeper is None:
            self._mount()
        return super().start()

    def _mount(self):
        script = ('mkdir "$2"; mount -t tmpfs -o size="$(($3 + 32))"m none "$2"; cp -a "$1" "$2";'
                  ' head -c 32M /dev/zero >"$2/ballast"; mount --bind "$2/pg_wal" "$1"; echo there;'
                  ' exec setpriv --pdeathsig KILL sleep infinity')
        self.keeper = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-e", "-c", script, "sh", str(self.data / "pg_wal"),
             str(self.directory / "log"), str(self.mib)],
            stdout=subprocess.PIPE, **self.surroundings())
        assert self.keeper.stdout.readline() == b"there\n"
        self.argv[5] = str(self.keeper.pid)

    def fill(self):
        """Until PostgreSQL finds no room for its log, and ends itself."""
        self.sql("CREATE TABLE filler (bytes text);"
                 " ALTER TABLE filler ALTER bytes SET STORAGE EXTERNAL")
        more = "INSERT INTO filler SELECT repeat('x', 1 << 20)"
        wait_until(lambda: self._psql(more, self.database).returncode != 0 and not self.alive(), 60,
                   "PostgreSQL to end itself")

    def make_room(self):
        """It may be started again."""
        subprocess.run(["nsenter", "-t", str(self.keeper.pid), "-U", "-m", "--preserve-credentials",
                        "rm", str(self.directory / "log" / "ballast")], check=True,
                       **self.surroundings())

    def close(self):
        super().close()
        if self.keeper is not None:
            self.keeper.kill()
            self.keeper.wait()
            self.keeper.stdout.close()
            self.keeper = None
