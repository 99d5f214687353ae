"""world: everything that the demo starts, on fixed ports, and clients to talk to it.

Node k adds 100 * k to each of its ports; TRILANE_DEMO_PORT_BASE is added to all ports.
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import trilane

HERE = pathlib.Path(__file__).resolve().parent
GENERATED = trilane.SOURCE / "build" / "demo"  # Python code of the .proto files.
BUS_PROTO = trilane.SOURCE / "proto" / "trilane" / "bus" / "v1" / "bus.proto"
ENVIRONMENT = "demo"
TRUST_DOMAIN = "demo.trilane.test"  # as policies/platform/environment.yaml says.
NODE_PORTS = {"listen-tls": 8443, "listen": 8080, "listen-proxy-tls": 8444, "listen-proxy": 8081,
              "listen-admin": 8082}
OPERATOR_PORTS = (15051, 15052)
CANONICAL_PORT = 15061
OUTSIDE_PORT = 15080
TOKENS = ("web", "reports", "intruder", "hello-canonical", "billing")


class DemoError(Exception):
    """The demo cannot go on; the text is for the person at the terminal."""


def token(name):
    """The sample platform's tokens are well known; policies/ holds their digests."""
    return "demo-%s-token" % name


def port_base():
    text = os.environ.get("TRILANE_DEMO_PORT_BASE", "0")
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 50000:
        raise DemoError("TRILANE_DEMO_PORT_BASE is \"%s\"; expected a number from 0 to 50000 that "
                        "is added to every port." % text)
    return int(text)


def all_ports(base, nodes):
    """Every port of the demo, and what it is for."""
    ports = {base + 14222: "NATS", base + 9080: "the control plane",
             base + CANONICAL_PORT: "hello-canonical", base + OUTSIDE_PORT: "the outside"}
    for number, port in enumerate(OPERATOR_PORTS):
        ports[base + port] = "hello-operator, endpoint %d" % number
    for k in range(nodes):
        for name, port in NODE_PORTS.items():
            ports[base + port + 100 * k] = "node-%d, %s" % (k, name)
    return ports


def check_ports(ports):
    for port, owner in ports.items():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError as problem:
                raise DemoError(
                    "Port %d, for %s, is taken (%s); set TRILANE_DEMO_PORT_BASE=20000 to move "
                    "all ports." % (port, owner, problem.strerror)) from None


def generate():
    """Python code for the services' .proto files, made again when one of them is newer."""
    sources = [trilane.POLICIES / "proto" / "hello.proto",
               trilane.POLICIES / "proto" / "greeting.proto",
               BUS_PROTO]
    made = GENERATED / "hello_pb2_grpc.py"
    if not made.exists() or made.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        shutil.rmtree(GENERATED, ignore_errors=True)
        GENERATED.mkdir(parents=True)
        subprocess.run(
            ["protoc", "-I", trilane.POLICIES / "proto", "-I", BUS_PROTO.parent,
             "--plugin=protoc-gen-grpc_python=" + shutil.which("grpc_python_plugin"),
             "--python_out", GENERATED, "--grpc_python_out", GENERATED] + sources, check=True)
    sys.path.insert(0, str(GENERATED))


class World:
    NODES = 2

    def __init__(self):
        self.base = port_base()
        check_ports({**all_ports(self.base, self.NODES), **self.extra_ports()})
        self.platform = self._platform()
        self.nats = self.platform.nats
        self.policies = self.platform.directory / "policies"
        self._copy_policies()
        self.cp = self._control_plane()
        self.nodes = [self._node(k) for k in range(self.NODES)]
        self.web = self.platform.issue_service("acme", "web")
        self._services()

    def _platform(self):
        platform = trilane.Platform(environment=ENVIRONMENT, trust_domain=TRUST_DOMAIN, nats=False)
        platform.nats = trilane.Nats(platform.directory / "nats", port=self.base + 14222,
                                     environment=ENVIRONMENT)
        platform.programs = [platform.nats]
        return platform

    def extra_ports(self):
        """Of a world that has more of something."""
        return {}

    def close(self):
        self.platform.close()

    def port(self, number):
        return self.base + number

    def _copy_policies(self):
        """A copy to edit, with moved ports."""
        shutil.copytree(trilane.POLICIES, self.policies)
        for path in self.policies.rglob("*.yaml"):
            text = path.read_text()
            path.write_text(re.sub(r"\b15[0-9]{3}\b",
                                   lambda m: str(int(m.group()) + self.base), text))

    def _control_plane(self):
        cp = self.platform.control_plane()
        cp.port = self.port(9080)
        cp.flags["listen"] = "127.0.0.1:%d" % cp.port
        return self.hidden(cp, "cp")

    def _node(self, k):
        return self.place(self.platform.node("node-%d" % k), k)

    def place(self, node, k):
        """Gives a node the ports of number k."""
        node.ports = {name: self.port(port) + 100 * k for name, port in NODE_PORTS.items()}
        node.flags.update({name: "127.0.0.1:%d" % p for name, p in node.ports.items()})
        return self.hidden(node, node.node_id)

    def hidden(self, program, name):
        return trilane.hide_nats_user(program, self.platform.directory / "nats-users" / name)

    def _services(self):
        env = {"PYTHONPATH": str(GENERATED), "PYTHONUNBUFFERED": "1"}

        def service(name, script, *arguments):
            process = trilane.Process(name, self.platform.directory / name,
                                      ["/usr/bin/python3", "-B", HERE / script, *arguments], env)
            self.platform.programs.append(process)
            return process
        self.services = [service("hello-operator-%d" % number, "hello_operator.py",
                                 self.port(port), "endpoint-%d" % number)
                         for number, port in enumerate(OPERATOR_PORTS)]
        self.services.append(service("outside", "outside.py", self.port(OUTSIDE_PORT)))
        self.canonical = service("hello-canonical", "hello_canonical.py",
                                 self.port(CANONICAL_PORT), self.node_address(0),
                                 self.node_address(1))

    def node_address(self, k, name="listen"):
        return "127.0.0.1:%d" % (self.port(NODE_PORTS[name]) + 100 * k)

    def wait_listening(self, process, port):
        def listens():
            assert process.alive(), "%s ended:\n%s" % (process.name, process.log()[-2000:])
            with socket.create_connection(("127.0.0.1", self.port(port)), 1):
                return True
        trilane.wait_until(listens, 60, "%s to listen" % process.name)

    def start_services(self):
        for process in self.services + [self.canonical]:
            process.spawn()
        for process, port in zip(self.services, OPERATOR_PORTS + (OUTSIDE_PORT,)):
            self.wait_listening(process, port)
        self.wait_listening(self.canonical, CANONICAL_PORT)

    # --- clients ---

    def canonical_api(self, method, path, body=None):
        status, _, answer = trilane.http(
            method, "http://127.0.0.1:%d%s" % (self.port(CANONICAL_PORT), path),
            json.dumps(body).encode() if body is not None else None)
        return status, json.loads(answer)

    def fetch(self, k, url, caller="web"):
        """A request in absolute form through the proxy port of node k: (status, headers, body)."""
        connection = http.client.HTTPConnection(*self._host_port(k), timeout=30)
        try:
            connection.request("GET", url, headers=self._proxy_headers(caller))
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def fetch_by_path(self, k, url, caller="web"):
        """The same as GET /v1/fetch?url=."""
        connection = http.client.HTTPConnection(*self._host_port(k), timeout=30)
        try:
            connection.request("GET", "/v1/fetch?url=" + url,
                               headers={"Authorization": "Bearer " + token(caller)})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def tunnel(self, k, port, path, caller="web"):
        """CONNECT through node k, then a request inside of the tunnel."""
        connection = http.client.HTTPConnection(*self._host_port(k), timeout=30)
        connection.set_tunnel("127.0.0.1", port, headers=self._proxy_headers(caller))
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def _host_port(self, k):
        return "127.0.0.1", self.port(NODE_PORTS["listen-proxy"]) + 100 * k

    @staticmethod
    def _proxy_headers(caller):
        return {"Proxy-Authorization": "Bearer " + token(caller)}
