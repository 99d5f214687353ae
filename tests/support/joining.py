"""Nodes that join: tokens, `trilane-dp join`, and the node that it makes."""

import json
import os
import subprocess

import trilane
from trilane import DP, Node, Process, free_port


def token(cp, node, *flags):
    """A join token, as the operator's command prints it."""
    return cp("identity token", node, *flags).strip()


def join(data, text, server, *flags, fault=None, code=0):
    """`trilane-dp join`, which must end with 'code'; what it wrote. A fault kills it: -9."""
    data.parent.mkdir(parents=True, exist_ok=True)
    env = {"TRILANE_FAULT": fault} if fault else {}
    done = subprocess.run([DP, "join", "--server", server, "--token-file", "-", "--data-dir",
                           str(data)] + [str(flag) for flag in flags], input=text + "\n",
                          capture_output=True, text=True, timeout=60, check=False,
                          env=dict(os.environ, **env))
    assert done.returncode == code, "join: exit %d, expected %d\n%s%s" % (
        done.returncode, code, done.stdout, done.stderr)
    return done.stdout + done.stderr


class JoinedNode(Node):
    """trilane-dp serve over a directory that joined: it is told nothing of who it is."""

    def __init__(self, platform, node_id, flags=()):
        self.platform = platform
        self.node_id = node_id
        self.data = platform.directory / node_id
        self.ports = {name: free_port() for name in
                      ("listen", "listen-tls", "listen-proxy", "listen-proxy-tls", "listen-admin")}
        platform.nats.add_node(node_id)
        self.flags = {"data-dir": self.data, "nats-urls": platform.nats.url(node_id)}
        self.flags.update({name: "127.0.0.1:%d" % port for name, port in self.ports.items()})
        self.flags.update(dict(flags))
        Process.__init__(self, node_id + "-serve", platform.directory / "logs", [DP, "serve"])
        platform.programs.append(self)

    @property
    def identity(self):
        return self.data / "identity"

    def joined(self, cp, *flags, server=None, ca=None):
        """Joins by a new token; flags are those of `identity token`."""
        text = token(cp, self.node_id, *flags)
        more = ["--tls-ca", ca] if ca else []
        join(self.data, text, server or cp.url, *more)
        return self

    def run(self, code, **flags):
        """Starts it where it must end by itself, and returns what it said."""
        self.start(wait=False, **flags)
        assert self.wait() == code, self.log()
        return self.log()


def post(cp, path, body, base=None):
    """A POST without the API's token: (status, decoded JSON)."""
    status, _, answer = trilane.http("POST", (base or cp.url) + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return status, json.loads(answer)
