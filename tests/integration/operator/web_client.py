"""gRPC-Web by hand: frames, base64 in pieces, and HTTP/1.1 exchanges whose bytes a test chooses."""

import base64
import http.client
import re
import struct

BINARY = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"


def frame(body, flag=0):
    return struct.pack(">BI", flag, len(body)) + body


def fields_of(section):
    """The fields of a section, by name."""
    lines = section.decode().split("\r\n")
    assert lines[-1] == "", section
    return dict(line.split(": ", 1) for line in lines[:-1])


def decode_text(text):
    """Bytes of base64 that is padded wherever its sender flushed."""
    pieces = re.findall(rb"[^=]+={0,2}", text)
    assert b"".join(pieces) == text, "padding that ends nothing"
    return b"".join(base64.b64decode(piece, validate=True) for piece in pieces)


class Answer:
    """Status, headers in lower case, messages, and trailers (of a frame; None: there was none)."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.raw = body
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/grpc-web-text"):
            body = decode_text(body)
        elif not kind.startswith("application/grpc-web"):
            body = b""
        self.messages = []
        self.trailers = None
        while body:
            assert self.trailers is None, "something behind the trailers"
            flag, size = struct.unpack(">BI", body[:5])
            assert len(body) >= 5 + size, "the body is cut off"
            part, body = body[5:5 + size], body[5 + size:]
            if flag == 0x80:
                self.trailers = fields_of(part)
            else:
                assert flag == 0, flag
                self.messages.append(part)

    @property
    def fields(self):
        return {**self.headers, **(self.trailers or {})}

    @property
    def grpc_status(self):
        return int(self.fields["grpc-status"])

    @property
    def code(self):
        return self.fields.get("x-trilane-code")


class Client:
    """A connection to a node, by HTTP/1.1."""

    def __init__(self, port, tls=None, timeout=60):
        self.http = (http.client.HTTPSConnection("localhost", port, timeout=timeout, context=tls)
                     if tls else http.client.HTTPConnection("127.0.0.1", port, timeout=timeout))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def ask(self, method, path, headers=(), body=None):
        """An exchange; bodies that are lists go in chunks, one for each piece."""
        self.http.request(method, path, body=iter(body) if isinstance(body, list) else body,
                          headers=dict(headers), encode_chunked=isinstance(body, list))
        answer = self.http.getresponse()
        return Answer(answer.status, answer.getheaders(), answer.read())

    def call(self, path, *messages, token="web-token", kind=BINARY, headers=()):
        sent = {"content-type": kind, "x-grpc-web": "1", "x-user-agent": "grpc-web-test"}
        if token:
            sent["authorization"] = "Bearer " + token
        sent.update(headers)
        pieces = [frame(m) for m in messages]
        if kind == TEXT:
            pieces = [base64.b64encode(piece) for piece in pieces]
        if len(pieces) == 1:
            return self.ask("POST", path, sent, pieces[0])
        sent["transfer-encoding"] = "chunked"
        return self.ask("POST", path, sent, pieces)
