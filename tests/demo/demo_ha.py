"""demo --ha: three control planes on PostgreSQL, three NATS servers, three nodes, a fourth that joins
and leaves. Kills the leader in the middle of a publication, stops another, kills a NATS server and a
node, loses all but one control plane, and shows what each saw, while calls go through all nodes.

    ./run demo --ha [--keep]
"""

import json
import sys
import threading
import time

import demo
import trilane
import world
from demo import CALL_S, WAIT_S
from joining import JoinedNode, join, token
from trio import Trio

NODES = 3
JOINER = 3  # the number of the node that joins and leaves.
API_TLS_PORT = 9443
CALL_PAUSE_S = 0.005
QUIET_MS = 3000  # no head for so long: more than one was missed.


class HaWorld(world.World):
    """The demo's world, with three of everything. Replica and node k add 100 * k, NATS k."""

    NODES = NODES

    def _platform(self):
        return Trio(environment=world.ENVIRONMENT, trust_domain=world.TRUST_DOMAIN,
                    nats_ports=[self.port(14222) + k for k in range(3)],
                    postgres_port=self.port(15432))

    def _control_plane(self):
        api = self.platform.issue_service("platform", "trilane-cp")
        for k, replica in enumerate(self.platform.replicas):
            replica.port = self.port(9080) + 100 * k
            replica.flags.update({
                "listen": "127.0.0.1:%d" % replica.port, "listen-tls": self.api_tls(k),
                "tls-cert": api["cert"], "tls-key": api["key"], "tls-ca": self.platform.ca,
                "ca": self.platform.identities})
            self.hidden(replica, replica.name)
        return self.platform.replicas[0]

    def api_tls(self, k):
        return "127.0.0.1:%d" % (self.port(API_TLS_PORT) + 100 * k)

    def joiner(self):
        """The node that joins; it has no keys, no certificate and no root yet."""
        return self.place(JoinedNode(self.platform, "node-%d" % JOINER), JOINER)

    def extra_ports(self):
        ports = {self.port(14222) + k: "NATS server %d" % k for k in (1, 2)}
        ports.update({self.port(9080) + 100 * k: "control plane %d" % k for k in (1, 2)})
        ports.update({self.port(API_TLS_PORT) + 100 * k: "control plane %d, TLS" % k
                      for k in range(3)})
        ports.update({self.port(port) + 100 * JOINER: "node-%d, %s" % (JOINER, name)
                      for name, port in world.NODE_PORTS.items()})
        ports[self.port(15432)] = "PostgreSQL"
        return ports


class Connection:
    """What a gRPC channel that was called through stands on: it notes when that ends."""

    def __init__(self, channel, ready):
        self.ready = ready
        self.states = []
        channel.subscribe(self.states.append)
        trilane.wait_until(lambda: ready in self.states, WAIT_S, "a connection")

    def ended(self):
        return self.states[-1] is not self.ready


class Caller(threading.Thread):
    """Calls through one node after the other without a pause worth the name, and counts."""

    def __init__(self, callers, nodes):
        super().__init__(daemon=True)
        self.callers = callers
        self.nodes = list(range(nodes))
        self.skipped = set()  # nodes that are dead on purpose.
        self.answered = 0
        self.failed = []
        self.over = False

    def run(self):
        while not self.over:
            for k in list(self.nodes):
                if k in self.skipped:
                    continue
                try:
                    self.callers.say(k)
                    self.answered += 1
                except self.callers.grpc.RpcError as error:
                    if k not in self.skipped:
                        self.failed.append("node-%d: %s" % (k, error.details()))
            time.sleep(CALL_PAUSE_S)

    def take(self):
        """What was counted since the last time."""
        answered, self.answered = self.answered, 0
        assert not self.failed, self.failed[:3]
        return answered


class HaDemo(demo.Demo):
    def __init__(self):
        super().__init__()
        self.caller = None
        self.joiner = None
        self.members = ["node-%d" % k for k in range(NODES)]

    def make_world(self):
        return HaWorld()

    def steps(self):
        return [self.start, self.first_version, self.publish_by_a_follower, self.node_joins,
                self.leader_killed_in_a_publication, self.leader_stopped_in_a_publication,
                self.nats_server_killed, self.node_killed, self.node_leaves, self.one_left,
                self.break_glass, self.database_gone, self.everything_back]

    @property
    def trio(self):
        return self.world.platform

    # --- the steps, in their order ---

    def start(self):
        w = self.world
        self.trio.start()
        for node in w.nodes:
            node.start()
        w.start_services()
        return ("started PostgreSQL, three NATS servers, three control planes and three nodes",
                "%s leads, the others follow; no node is ready before the first snapshot: %s" % (
                    self.trio.wait_leader().name, [node.ready() for node in w.nodes]))

    def first_version(self):
        done = self.publish_at(self.trio.wait_leader(), "the sample platform")
        self.wait_version(1)
        self.caller = Caller(self.callers, NODES)
        self.caller.start()
        return ("published policies/ as version 1",
                "signed by %s; all nodes acknowledge it: %s" % (
                    self.names(done), self.standing()))

    def publish_by_a_follower(self):
        follower = self.trio.followers()[0]
        self.edit_policies("acme/policies.yaml", "name: reports-may-say", "name: reports-may-call")
        done = self.publish_at(follower, "sent to a follower")
        version = done["record"]["version"]
        self.wait_version(version)
        return ("edited a policy and published it at %s, which follows" % follower.name,
                "it went on to the leader, which two replicas signed for (%s): version %d on all "
                "nodes; %d calls answered meanwhile" % (self.names(done), version,
                                                        self.caller.take()))

    def node_joins(self):
        asked, joined = self.trio.followers()
        node = self.joiner = self.world.joiner()
        text = token(asked, node.node_id, "--labels", "zone=b", "--san",
                     "dns:localhost,ip:127.0.0.1")
        join(node.data, text, self.tls_url(joined))
        again = join(node.data.with_name("thief"), text, self.tls_url(self.trio.wait_leader()), code=1)
        assert "TOKEN_USED" in again, again
        version = self.world.nodes[0].version()
        node.start()
        trilane.wait_until(lambda: node.ready() and node.version() == version, WAIT_S, node.node_id)
        seen = trilane.wait_until(lambda: self.counts(node), WAIT_S, "its status to count")
        self.members.append(node.node_id)
        self.callers.channels.append(self.callers.channel(JOINER))
        trilane.wait_until(lambda: self.answers(JOINER), WAIT_S, "a call through " + node.node_id)
        self.caller.nodes.append(JOINER)
        return ("let a fourth node join: a token made at %s, used under TLS at %s, used again at %s"
                % (asked.name, joined.name, self.trio.wait_leader().name),
                "the second use is refused: TOKEN_USED; %s, which had nothing but the token, has key, "
                "certificate and root, serves version %d, and its status, signed, counts at all "
                "replicas: %s" % (node.node_id, version, seen))

    def leader_killed_in_a_publication(self):
        leader, epoch, took, version = self.publish_with_fault("journal", "killed in the midst")
        assert leader.popen.poll() is not None
        leader.start()
        return ("published while the leader, %s, was killed just before its commit (SIGKILL)"
                % leader.name,
                "%s took over in %.1f s (epoch %d to %d) and published it once, as version %d: %s; "
                "%d calls answered, none failed" % (
                    self.trio.wait_leader().name, took, epoch, self.epoch(), version, self.standing(),
                    self.caller.take()))

    def leader_stopped_in_a_publication(self):
        leader, epoch, took, version = self.publish_with_fault("stop:journal", "stopped there")
        def refusals():
            return [line for line in leader.log().splitlines() if "event=refused" in line]
        before = len(refusals())
        leader.resume()
        trilane.wait_until(lambda: not leader.leads(), WAIT_S, "the one that woke up to follow")
        refused = trilane.wait_until(lambda: refusals()[before:], WAIT_S, "its refusal")
        code = refused[-1].split("code=")[1].split()[0]
        return ("the same with a leader, %s, that was stopped there (SIGSTOP) and woke up later"
                % leader.name,
                "%s took over in %.1f s (epoch %d to %d) and published version %d; the old one's "
                "commit was refused: %s; %d calls answered, none failed" % (
                    self.trio.wait_leader().name, took, epoch, self.epoch(), version, code,
                    self.caller.take()))

    def nats_server_killed(self):
        cluster = self.trio.nats
        index = cluster.wait_stream(cluster.snapshots)
        cluster.kill(index)
        done = self.publish_at(self.trio.wait_leader(), "with two of three")
        version = done["record"]["version"]
        self.wait_version(version)
        age = max(self.head_ages())
        cluster.start_one(index)
        cluster.wait_led(3)
        return ("killed NATS server %d, which led the bucket, and published" % index,
                "version %d is on all nodes: %s; the last head is at most %d ms old there; %d calls "
                "answered, none failed" % (version, self.standing(), age, self.caller.take()))

    def node_killed(self):
        node = self.world.nodes[2]
        self.caller.skipped.add(2)
        node.kill()
        done = self.publish_at(self.trio.wait_leader(), "without node-2", "--wait", "no")
        version = done["record"]["version"]
        trilane.wait_until(lambda: all(n.version() == version for n in self.world.nodes[:2]), WAIT_S,
                           "the other nodes to serve it")
        node.start()
        trilane.wait_until(lambda: node.ready() and node.version() == version, WAIT_S, "node-2")
        self.wait_version(version)
        trilane.wait_until(lambda: self.answers(2), WAIT_S, "a call through node-2")
        self.caller.skipped.discard(2)
        return ("killed node-2 (SIGKILL), published, and started it again",
                "the others went on; it came up from its disk and caught up: %s; %d calls answered"
                % (self.standing(), self.caller.take()))

    def node_leaves(self):
        node, peer = self.joiner, self.world.nodes[0]
        channel = self.callers.tls_channel(0, {"cert": node.identity / "cert.pem",
                                               "key": node.identity / "key.pem"})
        call = self.callers.pb_grpc.HelloStub(channel).Say, self.callers.pb.HelloRequest()
        self.callers.refusal(*call, timeout=CALL_S)  # a node is nobody's service; it is connected.
        ready = self.callers.grpc.ChannelConnectivity.READY
        own = Connection(channel, ready)
        callers = Connection(self.callers.channels[JOINER], ready)
        done = self.trio.followers()[0].json("identity remove", node.node_id)
        assert done["published"], done
        trilane.wait_until(lambda: self.codes(node) == {"NODE_REMOVED"}, WAIT_S, "all to refuse it")
        self.members.remove(node.node_id)
        self.wait_version(done["version"])
        trilane.wait_until(own.ended, WAIT_S, "its channel to %s to end" % peer.node_id)
        trilane.wait_until(lambda: peer.metric("trilane_connections_ended_total") == 1, WAIT_S,
                           "it to be counted")
        code = self.callers.refusal(*call, timeout=CALL_S)[2].get("x-trilane-code")
        assert code == "IDENTITY_REVOKED", code
        channel.close()
        self.caller.skipped.add(JOINER)
        assert node.stop() == 0, node.log()[-1000:]
        trilane.wait_until(callers.ended, WAIT_S, "its callers to be sent away")
        return ("removed %s, which published version %d, and stopped it (SIGTERM)" % (
            node.node_id, done["version"]),
                "all replicas refuse its statuses (NODE_REMOVED); %s sent GOAWAY and closed the "
                "channel that stood on its certificate, and takes no other (%s); it sent its own "
                "callers away and ended with 0; %d calls answered, none failed" % (
                    peer.node_id, code, self.caller.take()))

    def one_left(self):
        leader = self.trio.wait_leader()
        for replica in self.trio.followers(leader):
            replica.kill()
        done = leader.run("publish", "--again", "--sign-timeout", 2, "-m", "alone",
                          self.world.policies)
        assert done.returncode != 0 and "COSIGNERS_MISSING" in done.stderr, done.stderr
        return ("killed two of the three control planes and published at the last, %s" % leader.name,
                "heads go on (at most %d ms old at the nodes), calls too (%d); publishing asks for a "
                "second signature: COSIGNERS_MISSING" % (max(self.head_ages()), self.caller.take()))

    def break_glass(self):
        leader = self.trio.wait_leader()
        answer = {}

        def publish():
            answer["done"] = self.publish_at(leader, "with the key behind the glass",
                                             "--sign-timeout", 30)
        waiting = threading.Thread(target=publish)
        waiting.start()
        self.trio.wait_proposal(leader)
        leader("proposal sign", "--key", self.trio.break_glass, self.world.policies)
        waiting.join(40)
        version = answer["done"]["record"]["version"]
        self.wait_version(version)
        entries = leader.api("GET", "/api/v1/audit")[1]["entries"]
        entry = next(e for e in entries if e["action"] == "sign")
        return ("an operator made the same content of the same files and signed it with the "
                "break-glass key",
                "version %d is on all nodes, signed by %s; the audit keeps it: %s, %s" % (
                    version, self.names(answer["done"]), entry["object"], entry["outcome"]))

    def database_gone(self):
        for replica in self.trio.replicas:
            if not replica.alive():
                replica.start()
        self.trio.wait_leader()
        self.caller.take()
        self.trio.postgres.pause()
        trilane.wait_until(lambda: self.trio.leader() is None, WAIT_S, "no replica to lead")
        trilane.wait_until(lambda: min(self.head_ages()) > QUIET_MS, WAIT_S, "heads to be missed")
        age = max(self.head_ages())
        status = self.trio.replicas[0].told()["leader"]["code"]
        answered = self.caller.take()
        self.trio.postgres.resume()
        leader = self.trio.wait_leader()
        trilane.wait_until(lambda: max(self.head_ages()) < QUIET_MS, WAIT_S, "heads to be back")
        return ("started the other two again, then stopped PostgreSQL, and let it go on",
                "nobody led (%s), no node had a head for %d ms, %d calls answered all the same; %s "
                "leads again, epoch %d, heads go out" % (status, age, answered, leader.name,
                                                         self.epoch()))

    def everything_back(self):
        done = self.publish_at(self.trio.wait_leader(), "everything is back")
        version = done["record"]["version"]
        self.wait_version(version)
        messages = [v["message"] for v in self.trio.history()]
        assert len(messages) == len(set(messages)), messages
        self.caller.over = True
        self.caller.join(10)
        return ("published once more",
                "version %d on all nodes: %s; each of the %d publications is there once" % (
                    version, self.standing(), len(messages)))

    # --- what the steps share ---

    def publish_with_fault(self, fault, message):
        """Has the leader meet a fault in a publication that is sent to all replicas."""
        leader = self.lead_with(fault)
        self.caller.take()
        epoch = leader.told()["leader"]["epoch"]
        trilane.wait_until(lambda: self.epoch() == epoch, WAIT_S, "its head")
        thread = threading.Thread(target=self.trio.publish, args=(message, self.world.policies))
        thread.start()
        trilane.wait_until(lambda: not self.runs(leader), WAIT_S, "the fault", step=0.005)
        start = time.monotonic()
        trilane.wait_until(lambda: self.epoch() > epoch, WAIT_S, "another leader's head", step=0.01)
        took = time.monotonic() - start
        thread.join(120)
        self.trio.wait_leader(besides=leader)
        found = [v["version"] for v in self.trio.history() if v["message"] == message]
        assert len(found) == 1, self.trio.history()
        self.wait_version(found[0])
        return leader, epoch, took, found[0]

    @staticmethod
    def runs(program):
        """Whether its process is neither dead nor stopped."""
        if not program.alive():
            return False
        with open("/proc/%d/stat" % program.popen.pid, encoding="ascii") as file:
            program.paused = file.read().rsplit(")", 1)[1].split()[0] == "T"
        return not program.paused

    def lead_with(self, fault):
        """The leader starts again, with a fault in its next publication, and leads again."""
        leader = self.trio.wait_leader()
        others = self.trio.followers(leader)
        leader.stop()
        leader.start(fault_step=fault)
        for other in others:
            other.pause()
        trilane.wait_until(leader.leads, WAIT_S, "the one with the fault to lead")
        for other in others:
            other.resume()
        return leader

    def tls_url(self, replica):
        return "https://" + self.world.api_tls(self.trio.replicas.index(replica))

    def head_ages(self):
        """How long ago each node accepted a head, in milliseconds."""
        return [node.dump()["snapshot"]["contact_age_ms"] for node in self.world.nodes]

    def told(self, node):
        """What each replica that answers knows of a node."""
        return [next((n for n in replica.json("status")["nodes"] if n["node"] == node.node_id), {})
                for replica in self.trio.replicas if replica.answers()]

    def counts(self, node):
        """How it stands, once all replicas take its status and it has said that it serves."""
        told = self.told(node)
        if not all(n.get("verified") and n["live"] and n["version"] > 0 for n in told):
            return None
        return "%s at %d (%s)" % (node.node_id, told[0]["version"], told[0]["state"])

    def codes(self, node):
        return {n.get("code") for n in self.told(node)}

    def answers(self, k):
        try:
            return self.callers.say(k)
        except self.callers.grpc.RpcError:
            return None

    def publish_at(self, replica, message, *flags):
        return json.loads(replica("publish", "--again", "--output", "json", "-m", message, *flags,
                                  self.world.policies))

    @staticmethod
    def names(done):
        return done["record"]["signers"].replace(",", " and ")

    def epoch(self):
        return self.world.nodes[0].dump()["snapshot"]["epoch"]

    def fleet(self):
        """As any replica that answers tells it."""
        for replica in self.trio.replicas:
            if replica.answers():
                return {node["node"]: node for node in replica.json("status")["nodes"]
                        if node["node"] in self.members}
        raise AssertionError("no replica answers")

    def wait_version(self, version):
        def acknowledged():
            fleet = self.fleet()
            return len(fleet) == len(self.members) and all(
                n["version"] == version for n in fleet.values())
        trilane.wait_until(acknowledged, WAIT_S, "all nodes to acknowledge version %d" % version)

    def addresses(self):
        return [(replica.name, "%s, TLS %s" % (replica.url, self.tls_url(replica)))
                for replica in self.trio.replicas] + [
            ("NATS", self.trio.nats.url("admin")), ("PostgreSQL", self.trio.postgres.url())]

    def servers(self):
        return self.trio.urls()

    def title(self):
        return "Trilane demo, three of everything"


if __name__ == "__main__":
    sys.exit(demo.main(["--ha"]))
