"""Rows that somebody writes into the journal by SQL alone: nobody signed them."""

import hashlib

HEADER, SIGNATURE = 32, 72


def next_of(sql, version):
    """A manifest that says the content of a version as the one behind it, with the signatures of
    that; its body, and the digest of the body; in hex."""
    manifest = bytearray.fromhex(sql(
        "SELECT encode(manifest, 'hex') FROM journal WHERE number = %d" % version)[0][0])
    body = HEADER + SIGNATURE * manifest[7]
    assert manifest[body:body + 2] == bytes((8, version)), manifest.hex()
    manifest[body + 1] += 1
    digest = hashlib.blake2b(manifest[body:], digest_size=32)
    return manifest.hex(), manifest[body:].hex(), digest.hexdigest()


def insert(sql, version, digest=None, also=""):
    """A row behind the newest; number and digest are right, unless another is given, signatures are
    not. 'also' is done at the same moment."""
    manifest, _, own = next_of(sql, version)
    sql("BEGIN; INSERT INTO version (environment, number, epoch, handed_ms)"
        " SELECT environment, {0} + 1, epoch, 0 FROM version WHERE number = {0};"
        " INSERT INTO journal (environment, number, epoch, origin, manifest,"
        " manifest_digest, content_digest, raw_size, author, message, created_ms, chunks)"
        " SELECT environment, {0} + 1, epoch, 0, '\\x{1}', '\\x{2}', content_digest,"
        " raw_size, 'mallory', 'by SQL', 0, chunks FROM journal WHERE number = {0};"
        " UPDATE newest SET published = {0} + 1; {3} COMMIT"
        .format(version, manifest, digest or own, also))
