"""What operator-hedge and operator-retry share: a node over several endpoints that misbehave."""

import re
import signal

import bench
import trilane

TOKEN = "authorization: Bearer bench-token"


def service(name, proto, ports, methods=""):
    """A Service with its Policy, as YAML."""
    return """
---
apiVersion: trilane.dev/v1
kind: Service
metadata: {name: %s, tenant: bench}
spec:
  grpcServices: [%s]
  endpoints: [%s]
%s
---
apiVersion: trilane.dev/v1
kind: Policy
metadata: {name: %s, tenant: bench}
spec:
  target: {service: %s}
  rules: [{name: all, effect: allow, callers: [{service: caller}]}]
""" % (name, proto, ", ".join("{address: 127.0.0.1, port: %d}" % port for port in ports), methods,
       name, name)


class Endpoint:
    """An upstream of its own: bench-echo with these words behind its port."""

    def __init__(self, stack, directory, number, *words):
        self.port = trilane.free_port()
        self.process = trilane.Process("endpoint-%d" % number, directory, bench.pinned(
            bench.LOAD_CORE, [str(trilane.BUILD / "bench-echo"), str(self.port), *words]))
        self.pid = bench.start(stack, self.process, self.port)
        self.asked = 0

    def requests(self):
        """How many came so far."""
        self.asked += 1
        self.process.signal(signal.SIGUSR1)
        said = trilane.wait_until(lambda: (lambda all: all[self.asked - 1:])(
            re.findall(r"requests: (\d+)", self.process.log())), what="the endpoint", step=0.01)
        return int(said[0])


def start_node(stack, directory, services):
    """A node with one worker on its core, and these services: (node, port)."""
    platform = stack.enter_context(trilane.Platform(environment="bench"))
    policies = directory / "policies"
    policies.mkdir()
    bench.fill(bench.BENCH / "platform" / "platform.yaml", policies / "platform.yaml",
               UPSTREAM=trilane.free_port())
    with open(policies / "platform.yaml", "a", encoding="utf-8") as file:
        file.write("".join(services))
    cp = platform.control_plane()
    cp.argv = bench.pinned(bench.LOAD_CORE, cp.argv)
    cp.start()
    node = platform.node("bench-0", **{"workers": 1, "access-log": "off"})
    node.argv = bench.pinned(bench.PROGRAM_CORE, node.argv)
    node.start()
    cp("publish", "-m", "bench", str(policies))
    trilane.wait_until(lambda: node.version() >= 1, what="the node to serve")
    return node
