"""Nodes that join: tokens, `trilane-dp join`, and the node that it makes; and a joiner of our own,
which can say what a node never would."""

import json
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hashlib import blake2b

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
                          env=dict(trilane.os.environ, **env))
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

    def certificate(self):
        return x509.load_pem_x509_certificate((self.identity / "cert.pem").read_bytes())

    def run(self, code, **flags):
        """Starts it where it must end by itself, and returns what it said."""
        self.start(wait=False, **flags)
        assert self.wait() == code, self.log()
        return self.log()


def digest(data, size=32):
    return blake2b(data, digest_size=size).digest()


class Joiner:
    """The requests of a node, made by hand."""

    def __init__(self, environment, text):
        _, self.environment, self.node, secret, _ = text.split(".")
        self.text = text
        self.secret = bytes.fromhex(secret)
        assert environment == self.environment
        self.status = ed25519.Ed25519PrivateKey.generate()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.count = 0

    def csr(self):
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(
            self.key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM).decode()

    def public(self):
        return self.status.public_key().public_bytes(serialization.Encoding.Raw,
                                                     serialization.PublicFormat.Raw).hex()

    def _prove(self, domain, middle, csr, node):
        return self.status.sign(domain + b"\0" + digest(self.environment.encode())[:16] + middle +
                                digest(csr.encode()) + node.encode()).hex()

    def join_body(self, csr=None, signed_csr=None, node=None, text=None):
        csr = csr or self.csr()
        return {"token": text or self.text, "csr": csr, "status_key": self.public(),
                "proof": self._prove(b"trilane.dev/join/1", digest(self.secret),
                                     signed_csr or csr, node or self.node)}

    def renew_body(self, at_ms, count, csr=None, node=None):
        csr = csr or self.csr()
        numbers = at_ms.to_bytes(8, "little") + count.to_bytes(8, "little")
        return {"node": node or self.node, "csr": csr, "at_ms": at_ms, "count": count,
                "proof": self._prove(b"trilane.dev/renew/1", numbers, csr, node or self.node)}


def post(cp, path, body, base=None):
    """A POST without the API's token: (status, decoded JSON)."""
    status, _, answer = trilane.http("POST", (base or cp.url) + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return status, json.loads(answer)
