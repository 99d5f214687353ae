"""Three NATS servers that are one, for tests: each is killed, stopped and started by itself.

    with clustered_platform() as p:          # a Platform whose NATS is a cluster
        cp = p.control_plane(nats_replicas=3).start()
        p.nats.kill(p.nats.wait_stream(p.nats.snapshots))

Servers go by their index. The cluster can stand wherever a Nats of trilane.py can: url(), port,
add_node(), start(), stop(), log(); users and permissions are the same.
"""

import json
import shutil
import signal

from trilane import Nats, Platform, free_port, http, wait_until

SERVERS = 3


class Server(Nats):
    """One of them."""

    def __init__(self, cluster, index, directory, environment, port):
        self.cluster = cluster
        self.index = index
        self.route_port = free_port()
        self.monitor_port = free_port()
        self.paused = False
        super().__init__(directory, port=port, name="nats-%d" % index, environment=environment)

    def _configure(self):
        super()._configure()
        routes = ["nats-route://127.0.0.1:%d" % other.route_port for other in self.cluster.servers
                  if other is not self]
        with open(self.configuration, "a", encoding="utf-8") as file:
            file.write("""
server_name: "%s"
http: "127.0.0.1:%d"
cluster: { name: "test", listen: "127.0.0.1:%d", routes: %s }
""" % (self.name, self.monitor_port, self.route_port, json.dumps(routes)))

    def configure(self):
        """Once all of them are known."""
        self._configure()

    def jetstream(self):
        """What it knows of JetStream: /jsz, with streams."""
        status, _, body = http("GET", "http://127.0.0.1:%d/jsz?accounts=1&streams=1&config=1"
                               % self.monitor_port, timeout=2)
        assert status == 200, body
        return json.loads(body)

    def clients(self):
        """Names of who is connected to it."""
        status, _, body = http("GET", "http://127.0.0.1:%d/connz?limit=1000" % self.monitor_port,
                               timeout=2)
        assert status == 200, body
        return [client.get("name", "") for client in json.loads(body)["connections"]]

    def answers(self):
        return self.alive() and not self.paused


class NatsCluster:
    def __init__(self, directory, environment="demo", ports=(None, None, None)):
        self.name = "nats"
        self.environment = environment
        self.snapshots = "KV_trilane_%s_snapshots" % environment
        self.nodes_bucket = "KV_trilane_%s_nodes" % environment
        self.servers = []
        for index in range(SERVERS):
            self.servers.append(Server(self, index, directory / str(index), environment,
                                       ports[index]))
        for server in self.servers:
            server.configure()

    # ---- as one ----

    @property
    def port(self):
        """Of one that answers: for NatsClient."""
        return next(s for s in self.servers if s.answers()).port

    def url(self, user="cp"):
        return ",".join(server.url(user) for server in self.servers)

    def add_node(self, node_id):
        for server in self.servers:
            server.add_node(node_id)

    def start(self):
        """All of them, and waits until one leads."""
        for server in self.servers:
            server.start()
        self.wait_led(SERVERS)
        return self

    def stop(self, timeout=20):
        for server in self.servers:
            self.resume(server.index)
            server.signal(signal.SIGTERM)
        for server in self.servers:
            server.stop(timeout)

    def alive(self):
        return any(server.alive() for server in self.servers)

    def log(self):
        return "\n".join("%s\n%s" % (s.name, s.log()[-1500:]) for s in self.servers)

    # ---- each by itself ----

    def kill(self, index):
        """SIGKILL; its store stays."""
        self.resume(index)
        self.servers[index].kill()

    def pause(self, index):
        """SIGSTOP: it is there and says nothing."""
        self.servers[index].signal(signal.SIGSTOP)
        self.servers[index].paused = True

    def resume(self, index):
        if self.servers[index].paused:
            self.servers[index].paused = False
            self.servers[index].signal(signal.SIGCONT)

    def start_one(self, index, wipe=False):
        """Starts one that was killed; 'wipe': it lost its store."""
        if wipe:
            shutil.rmtree(self.servers[index].directory / "jetstream", ignore_errors=True)
        self.servers[index].start()

    # ---- who leads ----

    def meta_leader(self):
        """Index of the server that leads JetStream; None while none does."""
        for server in self.servers:
            if server.answers():
                leader = server.jetstream().get("meta_cluster", {}).get("leader", "")
                return self._index(leader)
        return None

    def wait_led(self, members, timeout=60):
        """Until JetStream has a leader and so many servers take part."""
        def led():
            leader = self.meta_leader()
            if leader is None or not self.servers[leader].answers():
                return False
            peers = self.servers[leader].jetstream()["meta_cluster"].get("replicas", [])
            current = [p for p in peers if p.get("current") and not p.get("offline")]
            return len(current) + 1 >= members
        wait_until(led, timeout, "JetStream's leader with %d servers\n%s" % (members, self.log()))

    def stream(self, name):
        """"cluster" of a stream's information, as its leader tells it; {} while there is none."""
        for server in self.servers:
            if not server.answers():
                continue
            for account in server.jetstream().get("account_details", []):
                for detail in account.get("stream_detail", []):
                    told = detail.get("cluster", {})
                    if detail["name"] == name and told.get("leader") == server.name:
                        return told
        return {}

    def wait_stream(self, name, members=SERVERS, timeout=60):
        """Until a stream has a leader and so many replicas that are up to date, itself counted; the
        index of the leader."""
        def whole():
            told = self.stream(name)
            current = [r for r in told.get("replicas", [])
                       if r.get("current") and not r.get("offline")]
            return told if len(current) + 1 >= members else None
        told = wait_until(whole, timeout, "%d replicas of %s\n%s" % (members, name, self.log()))
        return self._index(told["leader"])

    def _index(self, name):
        found = [server.index for server in self.servers if server.name == name]
        return found[0] if found else None


def clustered_platform(environment="demo", start=True):
    """A Platform whose NATS is a cluster."""
    platform = Platform(environment=environment, nats=False)
    cluster = NatsCluster(platform.directory / "nats-cluster", environment)
    platform.programs.remove(platform.nats)
    platform.nats = cluster
    platform.programs.insert(0, cluster)
    if start:
        cluster.start()
    return platform
