"""failover: milliseconds from a fault of the leader to the next leader's first head at a node, and to
the answer of a publication that was sent right behind the fault.

Three control planes on one PostgreSQL, one node, all real, as in a release. Kinds of faults: SIGKILL,
SIGSTOP, NATS cut off (bytes go nowhere), PostgreSQL cut off. Fifty trials of each, in turn; each
leaves the leader that it found behind, and the next trial meets the one that took over.
"""

import contextlib
import os
import threading
import time

import bench
import trilane
from trio import WiredTrio

TRIALS = int(os.environ.get("TRILANE_BENCH_ROUNDS", "50"))
KINDS = ("killed", "stopped", "cut_from_nats", "cut_from_postgresql")


class Watch:
    """The order of the node's last accepted head, read as fast as its admin port answers."""

    def __init__(self, node):
        self.node = node

    def epoch(self):
        return self.node.dump()["snapshot"]["epoch"]

    def wait_follows(self, leader):
        """Until it heard of this leader: what is higher is the next one's."""
        epoch = leader.json("status")["leader"]["epoch"]
        trilane.wait_until(lambda: self.epoch() == epoch, 20, "the node to hear the leader", 0.01)
        return epoch

    def wait_above(self, epoch, timeout=20):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.epoch() > epoch:
                return time.monotonic()
            time.sleep(0.002)
        raise AssertionError("no head of another leader")


def fault_of(trio, index, kind):
    return {"killed": trio.replicas[index].kill,
            "stopped": trio.replicas[index].pause,
            "cut_from_nats": trio.bus_wires[index].freeze,
            "cut_from_postgresql": trio.store_wires[index].freeze}[kind]


class Publication(threading.Thread):
    """Sent by a command that knows all replicas."""

    def __init__(self, trio, message):
        super().__init__()
        self.trio = trio
        self.message = message
        self.ended = None
        self.problem = None

    def run(self):
        try:
            self.trio.publish(self.message)
            self.ended = time.monotonic()
        except AssertionError as problem:
            self.problem = problem


def check_journal(trio, messages):
    """Nothing was lost, nothing came twice: the newest versions are what was sent, in its order."""
    found = [version["message"] for version in trio.history()]
    expected = list(reversed(messages))[:len(found)]
    assert found == expected, "the journal has %r for %r" % (found[:5], expected[:5])


def trial(trio, watch, kind, messages):
    leader = trio.wait_leader()
    index = trio.replicas.index(leader)
    epoch = watch.wait_follows(leader)
    message = "%s %d" % (kind, len(messages))
    # Somewhere in the life of the row and of the head.
    time.sleep((len(messages) * 0.137) % 0.6)
    began = time.monotonic()
    fault_of(trio, index, kind)()
    publication = Publication(trio, message)
    publication.start()
    headed = watch.wait_above(epoch)
    publication.join(60)
    assert publication.ended, "%s: %s" % (message, publication.problem)
    trio.wait_leader(besides=leader)
    trio.mend()
    messages.append(message)
    check_journal(trio, messages)
    trilane.wait_until(lambda: leader.answers() and not leader.leads(), 20,
                       "the old leader to follow", step=0.02)
    return (headed - began) * 1000, (publication.ended - began) * 1000


def row(values):
    return dict(bench.spread(values), p50_ms=bench.percentile(values, 50),
                p99_ms=bench.percentile(values, 99), runs=values)


def goals(kinds):
    """The next leader's head, and the publication's answer, for each fault."""
    return {"%s.%s.p99_ms" % (kind, what): (rows[what]["p99_ms"], 3000, "<")
            for kind, rows in kinds.items() for what in ("head", "publication")}


def main():
    heads = {kind: [] for kind in KINDS}
    publications = {kind: [] for kind in KINDS}
    quiet = bench.Quiet()
    with contextlib.ExitStack() as stack:
        trio = WiredTrio()
        stack.callback(trio.close)
        trio.start()
        node = trio.node("node-1").start(status_interval_ms=1000)
        messages = ["first"]
        trio.publish(messages[0])
        trilane.wait_until(lambda: node.version() == 1, 20, "the node serves it")
        watch = Watch(node)
        for _ in range(TRIALS):
            for kind in KINDS:
                head_ms, publish_ms = trial(trio, watch, kind, messages)
                heads[kind].append(head_ms)
                publications[kind].append(publish_ms)
    everything = [value for kind in KINDS for value in heads[kind]]
    kinds = {kind: {"head": row(heads[kind]), "publication": row(publications[kind])}
             for kind in KINDS}
    bench.write("failover", "ms to the next leader's first head", "lower", everything,
                dict(row(everything), kinds=kinds), {}, {},
                dict(quiet.report(), lease_ms=2000, trials=TRIALS), goals(kinds))
    print("%-22s %10s %10s %14s %14s" % ("fault", "head p50", "head p99", "publish p50",
                                         "publish p99"))
    for kind in KINDS:
        head, sent = kinds[kind]["head"], kinds[kind]["publication"]
        print("%-22s %7.0f ms %7.0f ms %11.0f ms %11.0f ms" % (
            kind.replace("_", " "), head["p50_ms"], head["p99_ms"], sent["p50_ms"],
            sent["p99_ms"]))


if __name__ == "__main__":
    main()
