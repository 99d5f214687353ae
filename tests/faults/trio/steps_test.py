"""The leader of a trio dies, or is stopped, before steps of a publication: the sender's command goes
on to another replica, with the id of its request, and it is published once."""

import base64
import os
import threading
import unittest

from trilane import DP, POLICIES, files_of, wait_until
from trio import Trio

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
            leader.paused = True
            self.t.wait_leader(besides=leader)
            leader.resume()
            wait_until(lambda: not leader.leads(), 60, "it is refused")
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


class Between(unittest.TestCase):
    """The row is another's while a publication is made, and comes back before its number."""

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

    def test_what_was_published_meanwhile_is_not_written_over(self):
        last, answers = self.t.wait_leader(), []
        os.mkfifo(self.gate)
        body = {"files": files_of(POLICIES), "message": "planned on 1", "author": "test",
                "base": 1, "again": True}
        # Other content than the first: what was checked once is not checked again.
        body["files"].append({"name": "more.yaml", "content": base64.b64encode(MORE).decode()})
        sender = threading.Thread(
            target=lambda: answers.append(last.api("POST", "/api/v1/publish", body)))
        sender.start()
        gate = os.open(self.gate, os.O_WRONLY)  # returns when the check is there.
        self.gate.unlink()
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


if __name__ == "__main__":
    unittest.main()
