"""A joiner of our own: the requests of a node, made by hand, which can say what a node never would."""

from hashlib import blake2b

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


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

    def renew_body(self, at_ms, count, csr=None, node=None, certificate=None, certificate_key=None):
        """With a certificate, in PEM, and what its key says of the status key."""
        csr = csr or self.csr()
        numbers = at_ms.to_bytes(8, "little") + count.to_bytes(8, "little")
        body = {"node": node or self.node, "csr": csr, "at_ms": at_ms, "count": count,
                "proof": self._prove(b"trilane.dev/renew/1", numbers, csr, node or self.node)}
        if certificate:
            body["certificate"] = certificate
        if certificate_key:
            statement = (b"trilane.dev/present/1\0" + bytes.fromhex(self.public()) +
                         b"trilane.dev/renew/1\0" + digest(self.environment.encode())[:16] + numbers +
                         digest(csr.encode()) + (node or self.node).encode())
            body["certificate_proof"] = certificate_key.sign(
                statement, ec.ECDSA(hashes.SHA256())).hex()
        return body
