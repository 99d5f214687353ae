"""Three control planes on one PostgreSQL and three clustered NATS servers.

    with Trio() as t:
        t.start()
        t.leader().kill()
        t.wait_leader()

Two of the three replicas sign each manifest; a fourth manifest key, "break-glass", is held by none.
"""

import contextlib
import json
import subprocess

from nats_cluster import NatsCluster
from postgres import Postgres
from trilane import CP, POLICIES, Nats, Platform, http, wait_until
from wire import Wire

REPLICAS = 3
THRESHOLD = 2


class Trio(Platform):
    """A Platform with a trio instead of one control plane; flags go to each replica."""

    def __init__(self, environment="demo", trust_domain="trilane.test", cluster=True,
                 threshold=THRESHOLD, nats_ports=(None, None, None), postgres_port=None, **flags):
        super().__init__(environment=environment, trust_domain=trust_domain, nats=False)
        self.programs.remove(self.nats)
        self.nats = (NatsCluster(self.directory / "nats-cluster", environment, nats_ports)
                     if cluster else self.make_nats(environment))
        self.postgres = self.make_postgres(postgres_port)
        self.programs += [self.nats, self.postgres]
        self.threshold = threshold
        self._trio_ceremony()
        self.flags = dict(flags)
        self.replicas = [self._replica(k) for k in range(REPLICAS)]

    def make_nats(self, environment):
        """One server; tests have others."""
        return Nats(self.directory / "nats", environment=environment)

    def make_postgres(self, port):
        return Postgres(port=port)

    def _trio_ceremony(self):
        """Keys for each replica, and a root that asks for two of their signatures."""
        directory = self.keys / "trio"
        directory.mkdir()
        manifests, heads = [], []
        for k in range(REPLICAS):
            for role, names in (("manifest", manifests), ("head", heads)):
                name = "%s-%d" % (role, k)
                self.command("key", "generate", "--role", role, "--out", directory, name)
                names.append(str(directory / (name + ".pub")))
        self.command("key", "generate", "--role", "manifest", "--out", directory, "break-glass")
        manifests.append(str(directory / "break-glass.pub"))
        self.command("key", "root", "--environment", self.environment, "--out", directory,
                     "--roots", self.keys / "root.key", "--manifests", ",".join(manifests),
                     "--heads", ",".join(heads), "--threshold-manifests", self.threshold)
        self.root = directory / "root.1"
        self.break_glass = directory / "break-glass.key"
        (self.directory / "token").write_text("t" * 32 + "\n")
        (self.directory / "token").chmod(0o600)

    def store_url(self, k):
        """What replica k is given; tests put something between."""
        return self.postgres.url()

    def bus_flags(self):
        return {"nats-replicas": 3} if isinstance(self.nats, NatsCluster) else {}

    def _replica(self, k):
        directory = self.keys / "trio"
        return self.control_plane("cp-%d" % k, **{
            "replica": "cp-%d" % k, "store": self.store_url(k),
            "token-file": self.directory / "token", "trust-root": self.root,
            "key-manifest": directory / ("manifest-%d.key" % k),
            "key-head": directory / ("head-%d.key" % k), **self.bus_flags(), **self.flags})

    def close(self):
        for replica in self.replicas:
            replica.kill()
        super().close()
        self.postgres.close()

    def start(self):
        self.postgres.start()
        self.nats.start()
        for replica in self.replicas:
            replica.start(wait=False)
        for replica in self.replicas:
            replica.wait_healthy()
        self.wait_leader()
        return self

    def leader(self, besides=None):
        """The replica that leads and whose heads go out; None while there is none."""
        for replica in self.replicas:
            with contextlib.suppress(OSError):  # one that just starts, or is busy.
                if replica is not besides and replica.answers() and replica.leads():
                    return replica
        return None

    def wait_leader(self, besides=None, timeout=60):
        return wait_until(lambda: self.leader(besides), timeout, "a leader", step=0.02)

    def wait_followed(self, leader, timeout=60):
        """Until all the others know that they follow it, and could take over: they reach NATS."""
        def follows(replica):
            told = replica.told(timeout=2)
            return (told["leader"]["holder"] == leader.name and
                    told["leader"]["code"] == "NOT_LEADER" and told["bus"]["state"] == "connected")
        for replica in self.replicas:
            if replica is not leader:
                wait_until(lambda r=replica: follows(r), timeout, replica.name + " to follow", 0.02)

    def followers(self, leader=None):
        """All but the one that leads: 'leader' where a test has asked who that is."""
        leader = leader or self.wait_leader()
        return [replica for replica in self.replicas if replica is not leader]

    @staticmethod
    def proposed(replica):
        """The proposal that is open, as the API tells it; {} when there is none."""
        status, proposal = replica.api("GET", "/api/v1/proposal")
        return proposal if status == 200 else {}

    def wait_proposal(self, replica):
        wait_until(lambda: self.proposed(replica), 60, "a proposal")

    def urls(self):
        """For a command that may ask any of them."""
        return ",".join(replica.url for replica in self.replicas)

    def command_anywhere(self, *args, timeout=120):
        """A command with all replicas as its servers; the finished process."""
        return subprocess.run([CP, str(args[0]), "--server", self.urls(), "--token-file",
                               str(self.directory / "token")] + [str(a) for a in args[1:]],
                              capture_output=True, text=True, timeout=timeout, check=False)

    def publish(self, message, directory=POLICIES, *flags):
        """Published by whoever leads, with retries of the command's own; the new version."""
        done = self.command_anywhere("publish", "--again", "--wait", "no", "--output", "json", "-m",
                                     message, *flags, directory)
        assert done.returncode == 0, "%s%s" % (done.stdout, done.stderr)
        return json.loads(done.stdout)["record"]["version"]

    def history(self):
        """Versions as the first replica that reaches the database tells them, newest first."""
        for replica in self.replicas:
            with contextlib.suppress(OSError):
                if replica.answers():
                    status, _, body = http("GET", replica.url + "/api/v1/history")
                    if status == 200:
                        return json.loads(body)["versions"]
        raise AssertionError("no replica knows the history")


class WiredTrio(Trio):
    """Each replica has wires of its own to PostgreSQL and to NATS."""

    bus_wire = Wire  # a test may have another.

    def __init__(self, **flags):
        self.store_wires = []
        super().__init__(cluster=False, **flags)
        self.bus_wires = [self.bus_wire(("127.0.0.1", self.nats.port)).start() for _ in range(3)]
        for k, replica in enumerate(self.replicas):
            replica.flags["nats-urls"] = "nats://cp:cp-secret@127.0.0.1:%d" % self.bus_wires[k].port

    def store_url(self, k):
        self.store_wires.append(Wire(("127.0.0.1", self.postgres.port)).start())
        return self.postgres.url(port=self.store_wires[k].port)

    def close(self):
        super().close()
        for wire in self.store_wires + self.bus_wires:
            wire.close()

    def mend(self):
        """Whatever was cut, frozen, stopped or killed is whole again."""
        for wire in self.store_wires + self.bus_wires:
            wire.mend()
        for replica in self.replicas:
            replica.resume()
            if not replica.alive():
                replica.start()
