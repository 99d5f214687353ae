"""The leader of a trio dies, or is stopped, before steps of a publication: the sender's command goes
on to another replica, with the id of its request, and it is published once."""

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import unittest

import forge
import standstill
from trilane import DP, POLICIES, NatsClient, files_of, wait_until
from trio import Trio, WiredTrio
from wire import Wire

# Some of what is done after a number was handed out, or all of it: with one replica each step is
# killed in controlplane/steps_test.py.
STEPS = (("sign", "cosign", "chunks", "manifest", "journal", "head", "end")
         if os.environ.get("TRILANE_TEST_LONG") else ("cosign", "journal", "head"))


MORE = b"""
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: more, tenant: acme}
spec: {}
"""


class Steps(unittest.TestCase):
    def setUp(self):
        self.t = Trio(cluster=False, head_interval_ms=200)
        self.addCleanup(self.t.close)
        self.t.start()
        self.t.publish("first")

    def lead_with_fault(self, fault):
        """Has a replica lead that meets the fault in its next publication."""
        leader = self.t.wait_leader()
        leader.stop()
        leader.start(fault_step=fault)
        for other in self.t.replicas:
            if other is not leader:
                other.pause()
        wait_until(leader.leads, 60, "the one with the fault leads")
        for other in self.t.replicas:
            other.resume()
        return leader

    def once(self, fault, step):
        leader = self.lead_with_fault(fault + step)
        message = "%s%s" % (fault, step)
        version = self.t.publish(message)
        if fault:
            wait_until(lambda: standstill.states_of(leader) == {"T"}, 60, "it stands at its step")
            leader.paused = True
            self.t.wait_leader(besides=leader)
            leader.resume()
            wait_until(lambda: not leader.leads(), 60, "it is refused")
        else:
            self.assertEqual(leader.wait(), -signal.SIGKILL, "it dies at its step")
        found = [v["version"] for v in self.t.history() if v["message"] == message]
        self.assertEqual(found, [version])
        leader.stop()
        leader.start()

    def test_killed_at_each_step(self):
        for step in STEPS:
            with self.subTest(step=step):
                self.once("", step)

    def test_stopped_at_each_step(self):
        for step in STEPS:
            with self.subTest(step=step):
                self.once("stop:", step)


class HeadWire(Wire):
    """Freezes with the next head on its way into the bucket, and stops who sends it; afterwards it
    remembers what it carries."""

    def __init__(self, target):
        super().__init__(target)
        self.sender = None
        self.head = b""
        self.carried = b""

    def catch_head_of(self, sender):
        self.sender = sender

    def _carry(self, end):
        seen = b""
        if self.sender:
            with contextlib.suppress(OSError):
                seen = end.recv(1 << 16, socket.MSG_PEEK)
        if not self.head:
            command = re.search(rb"HPUB \$KV\.\S+\.head \S+ (\d+) (\d+)\r\n", seen)
            if command:
                self._catch(seen[command.end():], *map(int, command.groups()))
                return
        if seen:  # no more than was looked at.
            if self.head:
                self.carried += seen
            self.pairs[end].sendall(end.recv(len(seen)))
        else:
            super()._carry(end)

    def _catch(self, message, headers, total):
        if len(message) >= total:  # else more of it is on its way.
            self.sender.pause()
            self.state = "frozen"  # it stays with the kernel.
            self.head = message[headers:total]


class WithHeadWires(WiredTrio):
    bus_wire = HeadWire


class Late(unittest.TestCase):
    """A publication's head comes into the bucket, and to a node, when another leads."""

    def setUp(self):
        self.t = WithHeadWires(head_interval_ms=20000)  # none but those of publications.
        self.addCleanup(self.t.close)
        self.t.start()

    def test_a_head_of_one_that_wakes_up_is_refused(self):
        node = self.t.node("node-1").start(status_interval_ms=300, poll_interval_ms=200)
        self.t.publish("first")
        last = self.t.wait_leader()
        wire = self.t.bus_wires[self.t.replicas.index(last)]
        wire.catch_head_of(last)
        version = self.t.publish("second")
        self.assertTrue(wire.head, "its head was on its way")
        new = self.t.wait_leader(besides=last)
        wait_until(lambda: node.version() == version, 60, "the node at the other's head")
        with NatsClient(self.t.nats) as nats:
            thief = forge.Intruder(nats, self.t.environment)
            order = thief.order()
            self.assertLess(forge.order_of(wire.head), order)
            wire.mend()
            wait_until(lambda: b"wrong last sequence" in wire.carried, 60, "the bucket's refusal")
            last.resume()
            wait_until(lambda: last.told()["leader"]["holder"] == new.name, 60, "it knows better")
            self.assertGreaterEqual(thief.order(), order)

            def refused():
                thief.hint(wire.head)
                return "code=HEAD_REPLAYED " in node.log()
            wait_until(refused, 60, "the node's refusal")
        self.assertEqual(node.version(), version)
        self.assertGreaterEqual(node.dump()["snapshot"]["epoch"], order[0])
        self.assertEqual([v["message"] for v in self.t.history()], ["second", "first"])


class Between(unittest.TestCase):
    """What happens while a publication is made: the row is another's, and comes back before its
    number; the database falls silent."""

    def setUp(self):
        self.t = Trio(cluster=False, head_interval_ms=200)
        self.addCleanup(self.t.close)
        self.gate = self.t.directory / "gate"
        # The real check, which waits at the gate where there is one.
        check = self.t.directory / "check"
        check.write_text('#!/bin/sh\n[ -p "%s" ] && read -r _ < "%s"\nexec "%s" "$@"\n'
                         % (self.gate, self.gate, DP))
        check.chmod(0o755)
        for replica in self.t.replicas:
            replica.flags["dp-check"] = check
        self.t.start()
        self.t.publish("first")

    def send(self, replica, answers):
        """A publication that waits at the gate: whoever waits for its answer, and the gate."""
        os.mkfifo(self.gate)
        body = {"files": files_of(POLICIES), "message": "planned on 1", "author": "test",
                "base": 1, "again": True}
        # Other content than the first: what was checked once is not checked again.
        body["files"].append({"name": "more.yaml", "content": base64.b64encode(MORE).decode()})
        sender = threading.Thread(
            target=lambda: answers.append(replica.api("POST", "/api/v1/publish", body)))
        sender.start()
        gate = os.open(self.gate, os.O_WRONLY)  # returns when the check is there.
        self.gate.unlink()
        return sender, gate

    def test_what_was_published_meanwhile_is_not_written_over(self):
        last, answers = self.t.wait_leader(), []
        sender, gate = self.send(last, answers)
        last.pause()
        self.t.wait_leader(besides=last)
        self.t.publish("between")
        for replica in self.t.replicas:
            if replica is not last:
                replica.stop()
        last.resume()
        wait_until(last.leads, 60, "it leads again")
        os.write(gate, b"go\n")
        os.close(gate)
        sender.join(120)
        status, answer = answers[0]
        self.assertEqual((status, answer["code"]), (409, "BASE_CHANGED"), answer)
        self.assertIn("version 2 was published meanwhile", answer["message"])
        self.assertEqual([v["message"] for v in self.t.history()], ["between", "first"])

    @staticmethod
    def is_cut_off(replica):
        told = replica.told()["leader"]
        return told["store_silent"] and not told["leads"]

    def test_what_was_sent_on_to_a_leader_that_was_cut_off_looks_for_another(self):
        """It came while that one led, and waited behind the publication."""
        last = self.t.wait_leader()
        first, gate = self.send(last, [])
        behind = http.client.HTTPConnection("127.0.0.1", last.port, timeout=120)
        self.addCleanup(behind.close)
        body = {"files": files_of(POLICIES), "message": "sent on", "author": "test"}
        behind.request("POST", "/api/v1/publish", json.dumps(body).encode(), {
            "Authorization": "Bearer " + last.token(), "Content-Type": "application/json",
            "X-Trilane-Forwarded": "cp-9"})
        last.told()  # comes after it.
        self.t.postgres.pause()
        wait_until(lambda: self.is_cut_off(last), 60, "the silence")
        os.write(gate, b"go\n")
        os.close(gate)
        answer = behind.getresponse()
        self.assertEqual((answer.status, json.loads(answer.read())["code"]), (503, "NOT_LEADER"))
        first.join(120)
        self.t.postgres.resume()


if __name__ == "__main__":
    unittest.main()
