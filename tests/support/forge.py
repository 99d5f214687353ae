"""What somebody makes who has a private key of ours and no control plane: roots, manifests, heads.

The layouts are those of docs/formats.md, written here a second time on purpose: a test that forges
shall not lean on the code that it attacks.
"""

import base64
import ctypes
import hashlib
import json
import struct
import time

_sodium = ctypes.CDLL("libsodium.so.23")
ROOT, MANIFEST, HEAD = 1, 2, 3
EPOCH_JUMP = 1 << 20


class Key:
    """A private key file."""

    def __init__(self, path):
        lines = dict(line.split(": ", 1) for line in path.read_text().splitlines()[1:])
        self.role, self.name = lines["role"], lines["name"]
        self.public = bytes.fromhex(lines["public"])
        self.private = bytes.fromhex(lines["private"]) + self.public

    @property
    def id(self):
        return hashlib.blake2b(self.public, digest_size=32).digest()[:8]

    def sign(self, message):
        out = ctypes.create_string_buffer(64)
        _sodium.crypto_sign_detached(out, None, message, ctypes.c_ulonglong(len(message)),
                                     self.private)
        return out.raw


def varint(number):
    out = b""
    while number > 0x7f:
        out += bytes((number & 0x7f | 0x80,))
        number >>= 7
    return out + bytes((number,))


def number_field(field, value):
    """A default is left out."""
    return varint(field << 3) + varint(value) if value else b""


def bytes_field(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def container(kind, environment, body, keys):
    env = hashlib.blake2b(environment.encode(), digest_size=32).digest()[:16]
    size = struct.pack("<I", len(body))
    signed = b"trilane.dev/container/1\0" + bytes((kind,)) + env + size + body
    header = b"TRLN" + struct.pack("<HBB", 1, kind, len(keys)) + env + size + bytes(4)
    return header + b"".join(k.id + k.sign(signed) for k in keys) + body


def body_of(container_bytes):
    return container_bytes[32 + 72 * container_bytes[7]:]


ALL = number_field(1, 1)  # a selector


def target(selector, version, digest):
    return bytes_field(4, bytes_field(1, selector) + number_field(2, version) +
                       bytes_field(3, digest))


def labelled(name, value):
    """The selector of all nodes that have a label."""
    label = bytes_field(1, name.encode()) + bytes_field(2, value.encode())
    return bytes_field(2, label) + number_field(3, 1000) + bytes_field(4, bytes(16))


def head(environment, key, *, root_version, epoch, sequence, version, digest, selector=ALL,
         validity_ms=15000, before=()):
    """Points those selected at a version, but for whom targets that stand before that one select."""
    now = int(time.time() * 1000)
    targets = b"".join(before) + target(selector, version, digest)
    body = (number_field(1, root_version) + number_field(2, epoch) + number_field(3, sequence) +
            targets + number_field(5, now) + number_field(6, now + validity_ms))
    return container(HEAD, environment, body, [key])


def order_of(head_bytes):
    """Its (epoch, sequence)."""
    body, at, numbers = body_of(head_bytes), 0, {}
    while at < len(body) and body[at] & 7 == 0:
        field, shift, value = body[at] >> 3, 0, 0
        at += 1
        while True:
            value |= (body[at] & 0x7f) << shift
            shift += 7
            at += 1
            if not body[at - 1] & 0x80:
                break
        numbers[field] = value
    return numbers[2], numbers[3]


def manifest_again(environment, keys, old, version):
    """The body of a manifest under another number; returns (container, digest)."""
    body = body_of(old)
    at = 1
    while body[at] & 0x80:
        at += 1
    body = number_field(1, version) + body[at + 1:]
    digest = hashlib.blake2b(body, digest_size=32).digest()
    return container(MANIFEST, environment, body, keys), digest


def root(environment, version, not_after_ms, roles, signers, floor=None):
    """'roles' is [(keys, threshold)] for roots, manifests, heads; a key is (Key, not_after_ms)."""
    body = bytes_field(1, environment.encode()) + number_field(2, version)
    body += number_field(3, not_after_ms)
    for field, (keys, threshold) in zip((4, 5, 6), roles):
        role = b"".join(bytes_field(1, bytes_field(1, key.public) +
                                    bytes_field(2, key.name.encode()) + number_field(3, end))
                        for key, end in keys)
        body += bytes_field(field, role + number_field(2, threshold))
    if floor:
        body += bytes_field(7, number_field(1, floor[0]) + number_field(2, floor[1]))
    return container(ROOT, environment, body, signers)


class Intruder:
    """Somebody who may write to NATS as they like."""

    def __init__(self, nats, environment):
        self.nats = nats
        self.environment = environment
        self.bucket = "trilane_%s_snapshots" % environment

    def newest_manifest(self):
        """(version, digest, container) of the highest one in the bucket."""
        answer = json.loads(self.nats.request(
            "$JS.API.STREAM.INFO.KV_" + self.bucket,
            json.dumps({"subjects_filter": "$KV.%s.manifest.>" % self.bucket}).encode()))
        names = [s.split("manifest.")[1].split(".") for s in answer["state"].get("subjects", {})]
        version, digest = max(names, key=lambda n: int(n[0]))
        return int(version), bytes.fromhex(digest), self.nats.get(
            self.bucket, "manifest.%s.%s" % (version, digest))

    def hint(self, head_bytes):
        self.nats.publish("trilane.%s.head" % self.environment, head_bytes)

    def put(self, key, value):
        self.nats.put(self.bucket, key, value)

    def order(self):
        """(epoch, sequence) of the head in KV."""
        return order_of(self.nats.get(self.bucket, "head"))


def as_json(root_bytes):
    """The body of POST /api/v1/roots."""
    return {"root": base64.b64encode(root_bytes).decode()}
