"""Nodes that are not of this release, as far as a control plane can tell: by their statuses."""

import subprocess
import threading

import trilane

FORMER = "0x1f"    # what the release before could do.
ALL = "0x7f"


class OtherNode:
    """A node of another release, as far as its status goes: said anew until it is silenced."""

    def __init__(self, platform, name):
        self.platform, self.name = platform, name
        self.key = platform.issue_node(name)["status_key"]
        self.said = threading.Event()
        self.silent = threading.Event()
        self.arguments = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def speaks(self, fmt, capabilities=ALL, code=None, serves="1"):
        """Says so from now on; 'serves': a version, or version/epoch."""
        self.arguments = [serves, str(fmt), capabilities] + ([code] if code else [])
        self.said.clear()
        if not self.thread.is_alive():
            self.thread.start()
        assert self.said.wait(trilane.PATIENCE_S)

    def _run(self):
        with trilane.NatsClient(self.platform.nats) as nats:
            while not self.silent.wait(0.1):
                arguments = list(self.arguments)
                status = subprocess.run([str(trilane.BUILD / "tests" / "say-status"), self.key,
                                         self.platform.environment] + arguments, check=True,
                                        capture_output=True).stdout
                nats.put("trilane_%s_nodes" % self.platform.environment, self.name, status)
                if arguments == self.arguments:
                    self.said.set()

    def silence(self):
        self.silent.set()
        if self.thread.is_alive():
            self.thread.join()
